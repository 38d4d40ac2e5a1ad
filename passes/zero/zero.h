/* zero.h -- what the files of pass zero share.
 *
 *   zero.c     the pass: which variables each stage divides, and the order of the parts
 *   params.c   stage 3: gathers of buckets in front of what reads their parameters
 *   retype.c   the types of all ops again, now that inputs and variables are placed
 *   grads.c    gradients become packs, reductions and shards
 *   scalars.c  norm, verdict, loss, count and stop flag in one all-reduce
 *   update.c   the optimizer on shards
 */
#ifndef ZM_PASSES_ZERO_ZERO_H
#define ZM_PASSES_ZERO_ZERO_H

#include "passes/pass.h"

typedef struct ZeroBucket {
    VarId var;        /* @bucket.k */
    VarId grad;       /* its accumulator @grad.bucket.k; none: there is none */
    bool is_whole;    /* every rank holds all of the parameters */
    DType grad_dtype; /* of gradients in memory */
    uint32_t n;       /* parameters, in the order of their places */
    VarId *member;
    ValueId *raw;   /* of the function at work: the gradient of each, as the backward made it */
    ValueId update; /* ... what its update reads: a reading of the accumulator, or a pack */
    ValueId shard;  /* ... this rank's part of the sum over ranks */
} ZeroBucket;

typedef struct Zero {
    PassCtx *cx;
    Module *m;
    int64_t ranks, stage;
    bool divides_sums; /* accumulators hold this rank's part of the sum over ranks */
    DType wire;        /* of gradients on their way */
    uint32_t n;
    ZeroBucket *bucket;
    uint32_t n_vars;  /* when the pass began */
    uint32_t *of_var; /* by VarId: 1 + number of the bucket that the variable is, lies in or belongs
                         to; 0: none */
    uint32_t *place;  /* by VarId: which member of its bucket a view is */
} Zero;

/* NULL: the variable is in no bucket. */
ZeroBucket *zero_bucket_of(const Zero *z, VarId v);
const Type *zero_shard_type(const Zero *z, const Type *whole); /* of a flat tensor */
/* A location for a collective that moves `what` ("gather of bucket.3") of k. */
LocId zero_loc(const Zero *z, const ZeroBucket *k, const char *what);
ValueId zero_collective(Builder *b, OpCode code, ValueId v); /* over axis data, along dimension 0 */
/* ZM_FAIL after "pass 'zero': ..." at loc. */
Status zero_refuse(const Zero *z, LocId loc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- params.c ---- */

/* Members of divided buckets become slices of one gather per bucket. */
void zero_gather_params(Zero *z, Func *f);

/* ---- retype.c ---- */

typedef struct PlacedCopy {
    ValueId value; /* none: no copy yet */
    int64_t placing;
} PlacedCopy;

typedef struct Retype {
    Zero *z;
    Func *f;
    VEC(PlacedCopy) copy; /* by ValueId: it again, under another placing */
} Retype;

/* Dimension 0 of all inputs but rng is this rank's part of the batch. */
void retype_inputs(Retype *r);
/* Infers the types of the ops from `from` to before `end` (none: to the last).  Constants and what
 * else is alike on all ranks are declared anew where an op needs them placed. */
Status retype_ops(Retype *r, OpId from, OpId end);
Status retype_op(Retype *r, OpId op);
/* v under another placing, made from what all ranks know; ZM_FAIL after a diagnostic at `user`. */
Status retype_demand(Retype *r, OpId user, ValueId v, int64_t placing, ValueId *out);
/* Drops pure ops that nobody uses any more. */
void retype_clean(Retype *r);

/* ---- grads.c ---- */

/* Takes the additions to divided accumulators out of f, leaving ZeroBucket.raw. */
Status zero_take_additions(Zero *z, Func *f);
/* Sets ZeroBucket.update and, where there are no accumulators, .raw of @last. */
Status zero_find_updates(Zero *z, Func *last);
/* Where the types up to `end` are known: packs and reduces.  Sets ZeroBucket.shard. */
Status zero_reduce(Retype *r, OpId end, bool is_last);

/* ---- scalars.c ---- */

typedef struct ZeroTail { /* what follows the backward in @last */
    OpId start;           /* first op that needs the loss or the count */
    OpId all_finite, sum_squares, probe;
    ValueId items, count; /* sums over this rank's items */
} ZeroTail;

Status zero_find_tail(Zero *z, const Func *last, ZeroTail *t);
/* One all-reduce in front of the tail; the tail reads its results. */
Status zero_reduce_scalars(Retype *r, const ZeroTail *t);
Status zero_eval(Retype *r);

/* ---- update.c ---- */

Status zero_update(Retype *r, const ZeroTail *t);

#endif
