/* backend.h -- the CPU back end for zm-run: the module lowered to kernels and run in this process.
 */
#ifndef ZM_TOOLS_ZM_RUN_BACKEND_H
#define ZM_TOOLS_ZM_RUN_BACKEND_H

#include "tools/zm-run/tensors.h"

typedef struct CpuBackend CpuBackend;

/* Runs the passes that are still missing before a memory plan, and compiles m's kernels.  cpu: a
 * --cpu name, NULL: native.  NULL after a diagnostic. */
CpuBackend *cpu_backend_new(Arena *a, Module *m, const char *cpu);
/* t->f `times` times on the inputs in[rank * params ...] and the variables of e[rank], which get
 * their new values; results, allocated in a, to out[rank * results ...].  Ranks run in one thread,
 * in step. */
void cpu_backend_run(CpuBackend *b, Eval *const *e, const Func *f, const EvalTensor *in, Arena *a,
                     uint64_t times, EvalTensor *out);
void cpu_backend_free(CpuBackend *b); /* NULL: nothing */

#endif
