/* state.h -- the persistent state as named tensors, whatever bucket or shard holds them: what
 * --load, --export, --save and
 * --resume see.
 *
 *   param/<path>             a parameter
 *   master/<path>            its f32 master copy, if there is one
 *   moment/<slot>/<path>     an optimizer's moment; slot = "adam.m", ...
 *   scalar/<name>            step, update count, loss scale, ...
 * Accumulators of gradients are zero between steps and are left out; so are the flags of a signal
 * (ZMP_S_STOP), which belong to a process.
 *
 * Of a variable that every rank holds, each rank holds all elements; of a member of a sharded
 * bucket those in its part of the bucket, perhaps none.  Either way every element has exactly one
 * rank that writes it (own_first, own_n): what all hold is cut into equal parts, end to end, as if
 * it were one bucket. */
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
    bool is_replicated;  /* every rank holds all of it */
    int64_t first, n;    /* elements [first, first + n) are on this rank ... */
    char *at;            /* ... from here on */
    int64_t own_first, own_n; /* of these, what this rank writes */
} StateTensor;

typedef struct State {
    VEC(StateTensor) all; /* the same tensors on every rank */
    Comm *comm;           /* of the Exec; NULL: one rank */
    Device *device;       /* of the Exec; NULL: the CPU */
    int64_t most_bytes;   /* of all tensors, whoever holds them */
} State;

void state_list(State *s, Arena *a, const Exec *x);
const StateTensor *state_find(const State *s, const char *name); /* NULL when absent */
/* Of a program for a GPU, whose tensors lie in the host's mirror (device.h): before t is read,
 * after it was written, and when no one needs the mirror's copy of it any more. */
RtStatus state_fetch(const State *s, const StateTensor *t, RtError *e);
RtStatus state_put(const State *s, const StateTensor *t, RtError *e);
void state_forget(const State *s, const StateTensor *t);
char *state_at(const StateTensor *t, int64_t element); /* one that this rank holds */

/* What [first, first + n) and [other, other + m) have in common: *from and its length, 0 if
 * nothing. */
int64_t elems_common(int64_t first, int64_t n, int64_t other, int64_t m, int64_t *from);

/* "[768, 3072]", "[]" for a scalar. */
const char *shape_text(Arena *a, uint32_t rank, const int64_t *dim);

#endif
