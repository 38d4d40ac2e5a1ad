/* backend.h -- the CPU back end for zm-run: the module lowered to kernels and run in this process.
 */
#ifndef ZM_TOOLS_ZM_RUN_BACKEND_H
#define ZM_TOOLS_ZM_RUN_BACKEND_H

#include "tools/zm-run/tensors.h"

typedef struct CpuBackend CpuBackend;

/* Runs the passes that are still missing before a memory plan, and compiles m's kernels.  cpu: a
 * --cpu name, NULL: native.  NULL after a diagnostic. */
CpuBackend *cpu_backend_new(Arena *a, Module *m, const char *cpu);
/* t->f `times` times on t->in and the variables of t->e, which get their new values. */
void cpu_backend_run(CpuBackend *b, RunTensors *t, uint64_t times);
void cpu_backend_free(CpuBackend *b); /* NULL: nothing */

#endif
