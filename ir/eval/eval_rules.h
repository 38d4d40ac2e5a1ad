/* eval_rules.h -- the EVAL column of ops.def as prototypes: a rule that is not written does not
 * link. */
#ifndef ZM_IR_EVAL_EVAL_RULES_H
#define ZM_IR_EVAL_EVAL_RULES_H

#include "ir/eval/eval.h"

/* One op at work.  out[] has room, zeroed; the caller rounds it. */
typedef struct EvalCall {
    Eval *e;
    const Func *f;
    const Op *op;
    const EvalTensor *in;
    EvalTensor *out;
} EvalCall;

typedef Status (*EvalRule)(const EvalCall *c);

#define OP(ID, NAME, SIG_, ATTRS_, TYPE_, AMP_, GRAD_, COST_, FACTORS_, LOWER_, EVAL_, ...) EVAL_
#define POINT(...)
#define EVAL(RULE) Status eval_##RULE(const EvalCall *c);
#include "ir/ops.def"
#undef OP
#undef POINT
#undef EVAL

/* The value of a POINT op. */
typedef double (*PointFn)(double a, double b, double c);
PointFn eval_point(OpCode code); /* NULL: not one */

Status eval_fail(const EvalCall *c, const char *fmt, ...) ZM_PRINTF(2, 3);

/* The op's results into out[], not rounded to their dtypes. */
Status eval_op(const EvalCall *c);

/* Runs f into out[], which has room. */
Status eval_func(Eval *e, const Func *f, const EvalTensor *in, EvalTensor *out);

/* Collectives, and shard, need what other ranks hold: the calls of one op on all ranks. */
bool eval_is_collective(OpCode code);
Status eval_over_ranks(const EvalCall *call, uint32_t ranks);
/* The next addition of a sum over ranks: in f32, of f64 in f64; the whole sum is rounded to dt. */
double eval_add_ranks(DType dt, double sum, double term);

/* ---- indices: row-major ---- */

void index_of(const Type *t, int64_t flat, int64_t *coord);
int64_t index_flat(const Type *t, const int64_t *coord);
/* Element of `from` that lands at coord[0 .. rank) after broadcasting by the trailing rule. */
int64_t index_broadcast(const Type *from, int rank, const int64_t *coord);

/* A tensor as [outer, len, inner] around one axis. */
typedef struct Rows {
    int64_t outer, len, inner;
} Rows;
Rows rows_of(const Type *t, int64_t axis);
static inline int64_t row_at(const Rows *r, int64_t outer, int64_t k, int64_t inner)
{
    return (outer * r->len + k) * r->inner + inner;
}

/* ---- random numbers (ops.def, op random) ---- */

typedef struct RandomStream {
    uint32_t seed_low, seed_high, step, first_sample;
    uint64_t stream; /* H */
} RandomStream;
RandomStream random_stream(const EvalTensor *key, const char *stream);
double random_uniform(const RandomStream *r, int64_t sample, int64_t element);

#endif
