/* rules_reduce.c -- gradients of reductions and of ops that normalise along one dimension.  They
 * recompute row statistics by forms.h: after pass `expand`, cse finds those of the forward. */
#include "passes/autodiff/grad.h"

#include <string.h>

typedef struct Row {
    Builder *b;
    ValueId x, y, g; /* operand, result, its cotangent; f32 or f64 */
    int64_t axis;
} Row;

static Row row_begin(Grad *g, int64_t axis)
{
    return (Row){.b = &g->b,
                 .x = form_widen(&g->b, g->op.in[0]),
                 .y = form_widen(&g->b, g->op.out[0]),
                 .g = form_widen(&g->b, g->out[0]),
                 .axis = axis};
}

static ValueId op2(Row *r, OpCode code, ValueId x, ValueId y)
{
    return build_binary(r->b, code, x, form_spread(r->b, y, x));
}

static ValueId mul(Row *r, ValueId x, ValueId y)
{
    return op2(r, OP_MUL, x, y);
}

static int64_t last_axis(const Grad *g)
{
    return grad_type(g, 0)->rank - 1;
}

/* y of the reduced shape -> the operand's shape. */
static ValueId unreduce(Grad *g, ValueId y)
{
    const Type *full = grad_type(g, 0);
    const Attr *dims = attrs_find(g->op.attrs, AT_DIMS);
    Type kept = *full;
    for (uint32_t i = 0; i < dims->as.list.n; i++) kept.dim[dims->as.list.at[i]] = 1;
    return build_broadcast(&g->b, build_reshape(&g->b, y, kept.rank, kept.dim), full);
}

void grad_reduce_sum(Grad *g)
{
    if (grad_wants(g, 0)) grad_add(g, 0, unreduce(g, g->out[0]));
}

/* Elements that share the maximum share the gradient equally, as torch.amax. */
void grad_reduce_max(Grad *g)
{
    if (!grad_wants(g, 0)) return;
    Builder *b = &g->b;
    const Attr *dims = attrs_find(g->op.attrs, AT_DIMS);
    ValueId is_max = build_binary(b, OP_EQ, g->op.in[0], unreduce(g, g->op.out[0]));
    ValueId ones = build_cast(b, is_max, value_type(b->f, form_widen(b, g->out[0]))->dtype);
    ValueId n = build_reduce(b, OP_REDUCE_SUM, ones, dims->as.list.at, dims->as.list.n);
    ValueId share = unreduce(g, build_binary(b, OP_DIV, form_widen(b, g->out[0]), n));
    grad_add(g, 0, build_select(b, is_max, share, form_scalar(b, share, 0)));
}

/* dx = y (g - sum(g y)) */
void grad_softmax(Grad *g)
{
    if (!grad_wants(g, 0)) return;
    Row r = row_begin(g, attr_int(g->op.attrs, AT_AXIS, 0));
    ValueId sum = form_sum(r.b, mul(&r, r.g, r.y), r.axis);
    grad_add(g, 0, mul(&r, r.y, op2(&r, OP_SUB, r.g, sum)));
}

/* dx = g - exp(y) sum(g) */
void grad_log_softmax(Grad *g)
{
    if (!grad_wants(g, 0)) return;
    Row r = row_begin(g, attr_int(g->op.attrs, AT_AXIS, 0));
    ValueId p = build_unary(r.b, OP_EXP, r.y);
    grad_add(g, 0, op2(&r, OP_SUB, r.g, mul(&r, p, form_sum(r.b, r.g, r.axis))));
}

void grad_cross_entropy(Grad *g)
{
    if (!grad_wants(g, 0)) return;
    AttrList l = {.n = g->op.attrs.n};
    memcpy(l.at, g->op.attrs.at, l.n * sizeof *l.at);
    ValueId in[] = {g->op.in[0], g->op.in[1], g->out[0]};
    grad_add(g, 0, build1(&g->b, OP_CROSS_ENTROPY_GRAD, in, 3, &l));
}

/* y = (x - mean) rstd:  dx = rstd (g - mean(g) - y mean(g y)) */
void grad_normalize(Grad *g)
{
    if (!grad_wants(g, 0)) return;
    Row r = row_begin(g, last_axis(g));
    FormNorm n = form_normalize(r.b, r.x, attr_float(g->op.attrs, AT_EPS, 0));
    ValueId y = mul(&r, n.centred, n.rstd);
    ValueId along = mul(&r, y, form_mean(r.b, mul(&r, r.g, y), r.axis));
    ValueId across = op2(&r, OP_SUB, r.g, form_mean(r.b, r.g, r.axis));
    grad_add(g, 0, mul(&r, op2(&r, OP_SUB, across, along), n.rstd));
}

/* y = x rstd:  dx = rstd (g - y mean(g y)) */
void grad_rms_normalize(Grad *g)
{
    if (!grad_wants(g, 0)) return;
    Row r = row_begin(g, last_axis(g));
    ValueId rstd = form_rms_rstd(r.b, r.x, attr_float(g->op.attrs, AT_EPS, 0));
    ValueId y = mul(&r, r.x, rstd);
    ValueId along = mul(&r, y, form_mean(r.b, mul(&r, r.g, y), r.axis));
    grad_add(g, 0, mul(&r, op2(&r, OP_SUB, r.g, along), rstd));
}
