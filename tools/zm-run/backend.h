/* backend.h -- machine code for zm-run: the module lowered to kernels and run in this process, on
 * this processor or on a GPU. */
#ifndef ZM_TOOLS_ZM_RUN_BACKEND_H
#define ZM_TOOLS_ZM_RUN_BACKEND_H

#include "tools/zm-run/tensors.h"

typedef struct Backend Backend;

/* Runs the passes that are still missing before a memory plan, and compiles m's kernels.  target:
 * "cpu", "cuda" (the GPU's own architecture) or "cuda:sm_NN"; cpu: a --cpu name, NULL: native.
 * NULL after a diagnostic. */
Backend *backend_new(Arena *a, Module *m, const char *target, const char *cpu);
/* t->f `times` times on the inputs in[rank * params ...] and the variables of e[rank], which get
 * their new values; results, allocated in a, to out[rank * results ...].  Ranks run in one thread,
 * in step; a GPU runs one. */
Status backend_run(Backend *b, Eval *const *e, const Func *f, const EvalTensor *in, Arena *a,
                   uint64_t times, EvalTensor *out);
void backend_free(Backend *b); /* NULL: nothing */

#endif
