/* tensors.h -- a function's inputs and a module's variables from a safetensors file, and back.
 *
 * A tensor of the file is an input under the name of the function's parameter, or a variable under
 * its own name; "@name" is always the variable.  Results are written under the names of the
 * function's return, variables under their own, or as "@name" where a result has that name.
 */
#ifndef ZM_TOOLS_ZM_RUN_TENSORS_H
#define ZM_TOOLS_ZM_RUN_TENSORS_H

#include "ir/eval/eval.h"

/* Of all ranks: what is sharded is whole, partial sums are summed (eval.h). */
typedef struct RunTensors {
    Eval *e;
    const Func *f;
    EvalTensor *in;  /* one per parameter */
    EvalTensor *out; /* one per result */
} RunTensors;

/* Variables by their `init` (draws as the runtime's: seed, name, element); masters from what they
 * belong to. */
void tensors_init_vars(Eval *e, uint64_t seed);

/* Fills t->in and variables from path (NULL: no file).  Missing, unknown and mis-shaped tensors are
 * reported together. */
Status tensors_read(RunTensors *t, const char *path);
Status tensors_write(const RunTensors *t, const char *path);

#endif
