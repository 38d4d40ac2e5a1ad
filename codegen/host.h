/* host.h -- a planned module's kernels loaded into this process: zm-run --backend cpu, and tests of
 * the back end against the interpreter.  One thread; training uses runtime/ instead. */
#ifndef ZM_CODEGEN_HOST_H
#define ZM_CODEGEN_HOST_H

#include "codegen/codegen.h"
#include "ir/eval/eval.h"

typedef struct HostProgram HostProgram;

/* Compiles m (FACT_PLANNED) for t and loads it through cc -shared.  NULL after a diagnostic, also
 * when this processor cannot run t's code.  Variables start as zeros. */
HostProgram *host_program_new(const Module *m, const CodegenTarget *t);
void host_program_free(HostProgram *h);

/* A variable's elements, row-major; conversion as by dtype_round. */
void host_set_var(HostProgram *h, VarId v, const double *at);
void host_get_var(const HostProgram *h, VarId v, double *at);

/* Runs the function on in[0 .. params); results, allocated in a, go to out[0 .. results).
 * backwards: the tasks of each kernel in descending order, which must give the same bits. */
void host_run(HostProgram *h, const Func *f, const EvalTensor *in, Arena *a, EvalTensor *out,
              bool backwards);

#endif
