/* state.h -- the persistent state as named tensors, whatever bucket or shard holds them: what
 * --load, --export, --save and
 * --resume see.
 *
 *   param/<path>             a parameter
 *   master/<path>            its f32 master copy, if there is one
 *   moment/<slot>/<path>     an optimizer's moment; slot = "adam.m", ...
 *   scalar/<name>            step, update count, loss scale, ...
 * Accumulators of gradients are zero between steps and are left out. */
#ifndef ZM_RUNTIME_STATE_H
#define ZM_RUNTIME_STATE_H

#include "ir/base/vec.h"
#include "runtime/exec.h"

typedef struct StateTensor {
    const char *name;
    const char *path;    /* of the parameter; the name of a scalar */
    const ZmpVar *shape; /* the variable that gives dims and elems: the parameter, or the scalar */
    uint32_t kind;       /* ZmpVarKind */
    uint32_t dtype;      /* in memory */
    char *at;
} StateTensor;

typedef struct State {
    VEC(StateTensor) all;
} State;

void state_list(State *s, Arena *a, const Exec *x);
const StateTensor *state_find(const State *s, const char *name); /* NULL when absent */

/* "[768, 3072]", "[]" for a scalar. */
const char *shape_text(Arena *a, uint32_t rank, const int64_t *dim);

#endif
