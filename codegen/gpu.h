/* gpu.h -- a program for a GPU: as objects to link, or in memory to run at once (zm-run). */
#ifndef ZM_CODEGEN_GPU_H
#define ZM_CODEGEN_GPU_H

#include "codegen/codegen.h"

typedef struct GpuImage { /* what zm_program and zm_device_code of ir/base/program.h hold */
    const void *program;
    const char *device_code;
    size_t program_bytes, device_code_bytes;
} GpuImage;

/* Compiles m (FACT_PLANNED) for t, a target with is_cuda; the image lives in a.  NVRTC missing, a
 * kernel that it refuses: diagnostics. */
Status codegen_gpu_image(Arena *a, const Module *m, const CodegenTarget *t,
                         const CodegenOptions *opt, GpuImage *out);

struct Program;

/* As codegen_objects: the one object holds the image. */
Status codegen_gpu_objects(Arena *a, const Module *m, const CodegenTarget *t,
                           const CodegenOptions *opt, const char *dir, struct Program *p,
                           const char *const **objects, uint32_t *n_objects);

#endif
