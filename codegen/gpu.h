/* gpu.h -- the objects of a program for a GPU. */
#ifndef ZM_CODEGEN_GPU_H
#define ZM_CODEGEN_GPU_H

#include "codegen/program.h"

/* As codegen_objects: the one object holds the program and the compiled modules. */
Status codegen_gpu_objects(Arena *a, const Module *m, const CodegenTarget *t,
                           const CodegenOptions *opt, const char *dir, Program *p,
                           const char *const **objects, uint32_t *n_objects);

#endif
