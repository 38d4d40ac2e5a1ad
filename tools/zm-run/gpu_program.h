/* gpu_program.h -- a planned module's kernels run on a GPU from within this process, by the runtime
 * that training executables have: zm-run --backend cuda, and tests of the CUDA back end against the
 * interpreter.  One rank. */
#ifndef ZM_TOOLS_ZM_RUN_GPU_PROGRAM_H
#define ZM_TOOLS_ZM_RUN_GPU_PROGRAM_H

#include "codegen/codegen.h"
#include "ir/eval/eval.h"

typedef struct GpuProgram GpuProgram;

/* Architecture of the first GPU, "sm_90".  NULL after a diagnostic that names what is missing. */
const char *gpu_arch(Arena *a, Diag *d);

/* Compiles m (FACT_PLANNED) for t and loads it.  NULL after a diagnostic.  Variables start as
 * zeros. */
GpuProgram *gpu_program_new(const Module *m, const CodegenTarget *t);
void gpu_program_free(GpuProgram *g);

/* A variable's elements, row-major; conversion as by dtype_round. */
void gpu_set_var(GpuProgram *g, VarId v, const double *at);
void gpu_get_var(const GpuProgram *g, VarId v, double *at);

/* Runs the function; its results, allocated in a, go to out. */
Status gpu_run(GpuProgram *g, const Func *f, const EvalTensor *in, Arena *a, EvalTensor *out);

#endif
