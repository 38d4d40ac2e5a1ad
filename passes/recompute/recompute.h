/* recompute.h -- between the files of pass recompute.
 *
 *   recompute.c  the pass: what the backward takes from where, copies of ops, `after`
 *   layers.c     the forward's ops by instances of repeats, and what crosses from one to the next
 *   keep.c       which values are kept: the smallest cut of what may be computed again
 *   min_cut.c    smallest cuts
 */
#ifndef ZM_PASSES_RECOMPUTE_H
#define ZM_PASSES_RECOMPUTE_H

#include "passes/pass.h"

/* A function's forward, up to the first op of the backward, `turn`.  Layers are numbered from 1. */
typedef struct Forward {
    PassCtx *cx;
    const Func *f;
    Arena *a;
    uint32_t n;    /* ops of the function */
    OpId *op_at;   /* by position */
    uint32_t *pos; /* by OpId.i */
    uint32_t turn; /* position; n: there is no backward */
    uint32_t n_layers;
    uint32_t *layer; /* by position before the turn: 0 = none */
    uint32_t *begin; /* by layer, one more: position of its first op */
    bool *is_there; /* by value: at hand at any time: inputs, and what is made of variables alone */
    bool *is_needed;    /* by value of the forward: the backward uses it */
    VarId *param;       /* by value: the parameter that it is; set by forward_find_layers() */
    uint32_t *last_use; /* by value: last position before the turn, also through views; 0: none */
} Forward;

/* Of f, or with turn = n when it has no backward. */
Forward forward_of(PassCtx *cx, const Func *f);
void forward_find_layers(Forward *w);

static inline bool forward_has(const Forward *w, ValueId v)
{
    OpId def = value_cget(w->f, v)->def;
    return op_ok(def) && w->pos[def.i] < w->turn && !w->is_there[v.i];
}

/* The steps of docs/memory.md: first the cheap ops of every layer, then one product or attention
 * after the other by its price, operations per byte that are not kept. */
uint32_t forward_count_steps(const Forward *w);
/* is_kept: by value of the forward.  What is needed and not kept can be computed from kept values
 * by ops of the first `steps` steps. */
void forward_keep(const Forward *w, uint32_t steps, bool *is_kept);

#endif
