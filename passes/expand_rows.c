/* expand_rows.c -- expansions of ops that work along one dimension, and of concat, drop, rotary
 * (expand.h). */
#include "passes/expand.h"

#include <math.h>

void expand_SOFTMAX(Expand *e)
{
    Builder *b = &e->b;
    FormSoftmax s = form_softmax(b, form_widen(b, e->op.in[0]), attr_int(e->op.attrs, AT_AXIS, 0));
    e->out[0] = expand_narrow(e, 0, build_binary(b, OP_DIV, s.e, form_spread(b, s.sum, s.e)));
}

/* (x - max) - log sum exp(x - max) */
void expand_LOG_SOFTMAX(Expand *e)
{
    Builder *b = &e->b;
    FormSoftmax s = form_softmax(b, form_widen(b, e->op.in[0]), attr_int(e->op.attrs, AT_AXIS, 0));
    ValueId log_sum = build_unary(b, OP_LOG, s.sum);
    e->out[0] =
        expand_narrow(e, 0, build_binary(b, OP_SUB, s.shifted, form_spread(b, log_sum, s.e)));
}

/* log sum exp(x - max) - (x - max)[target]: the target's term is picked by a sum with one term, so
 * that the backward needs no index arithmetic and one kernel reads the logits. */
void expand_CROSS_ENTROPY(Expand *e)
{
    Builder *b = &e->b;
    ValueId x = form_widen(b, e->op.in[0]), target = e->op.in[1];
    const Type *t = value_type(b->f, target);
    int64_t axis = value_type(b->f, x)->rank - 1;
    FormSoftmax s = form_softmax(b, x, axis);
    ValueId hot = form_one_hot(b, target, x);
    ValueId picked = form_sum(b, build_select(b, hot, s.shifted, form_scalar(b, x, 0)), axis);
    ValueId loss = build_binary(b, OP_SUB, build_unary(b, OP_LOG, s.sum), picked);
    loss = build_cast(b, build_reshape_to(b, loss, t), DT_F32);
    ValueId ignored = form_ignored(b, target, e->op.attrs);
    if (value_ok(ignored)) loss = build_select(b, ignored, form_scalar(b, loss, 0), loss);
    e->out[0] = loss;
}

/* (softmax(x) - one_hot(target)) dy, rows of ignored targets 0. */
void expand_CROSS_ENTROPY_GRAD(Expand *e)
{
    Builder *b = &e->b;
    ValueId x = form_widen(b, e->op.in[0]), target = e->op.in[1], dy = e->op.in[2];
    const Type *t = value_type(b->f, x);
    ValueId ignored = form_ignored(b, target, e->op.attrs);
    if (value_ok(ignored)) dy = build_select(b, ignored, form_scalar(b, dy, 0), dy);
    Type column = *t;
    column.dim[t->rank - 1] = 1;
    dy = build_reshape_to(b, build_cast(b, dy, t->dtype), &column);
    FormSoftmax s = form_softmax(b, x, t->rank - 1);
    ValueId p = build_binary(b, OP_DIV, s.e, form_spread(b, s.sum, s.e));
    ValueId hot = build_cast(b, form_one_hot(b, target, x), t->dtype);
    ValueId off = build_binary(b, OP_SUB, p, hot);
    e->out[0] = expand_narrow(e, 0, build_binary(b, OP_MUL, off, form_spread(b, dy, off)));
}

void expand_NORMALIZE(Expand *e)
{
    Builder *b = &e->b;
    FormNorm n = form_normalize(b, form_widen(b, e->op.in[0]), attr_float(e->op.attrs, AT_EPS, 0));
    ValueId y = build_binary(b, OP_MUL, n.centred, form_spread(b, n.rstd, n.centred));
    e->out[0] = expand_narrow(e, 0, y);
}

void expand_RMS_NORMALIZE(Expand *e)
{
    Builder *b = &e->b;
    ValueId x = form_widen(b, e->op.in[0]);
    ValueId rstd = form_rms_rstd(b, x, attr_float(e->op.attrs, AT_EPS, 0));
    e->out[0] = expand_narrow(e, 0, build_binary(b, OP_MUL, x, form_spread(b, rstd, x)));
}

void expand_DROP(Expand *e)
{
    Builder *b = &e->b;
    ValueId x = form_widen(b, e->op.in[0]);
    double p = dtype_round(DT_F32, attr_float(e->op.attrs, AT_P, 0)); /* random is f32 */
    if (p == 0) {
        e->out[0] = e->op.in[0];
        return;
    }
    ValueId keep = form_keep(b, e->op.in[1], value_type(b->f, x), e->op.attrs);
    ValueId scaled = build_binary(b, OP_DIV, x, form_scalar(b, x, 1 - p));
    e->out[0] = expand_narrow(e, 0, build_select(b, keep, scaled, form_scalar(b, x, 0)));
}

/* x put at `start` along axis of a tensor of type t; zeros elsewhere. */
static ValueId pad_to(Builder *b, ValueId x, int64_t axis, int64_t start, const Type *t)
{
    int64_t low[ZM_MAX_RANK] = {0}, high[ZM_MAX_RANK] = {0};
    low[axis] = start;
    high[axis] = t->dim[axis] - start - value_type(b->f, x)->dim[axis];
    return low[axis] || high[axis] ? build_pad(b, x, low, high) : x;
}

/* f64 [T, D]: angle of row t, column d: t * theta^(-2 (d mod D/2) / D).  In f64: an angle of 1e5
 * has to keep its fraction. */
static ValueId rotary_angle(Builder *b, const Type *x, double theta)
{
    int64_t dim[2] = {x->dim[x->rank - 2], x->dim[x->rank - 1]}, half = dim[1] / 2;
    ValueId index[2];
    for (int axis = 0; axis < 2; axis++) {
        AttrList l = {0};
        attr_add_int(&l, AT_AXIS, axis);
        attr_add_list(&l, AT_SHAPE, dim, 2);
        attr_add_int(&l, AT_DTYPE, DT_F64);
        index[axis] = build1(b, OP_IOTA, NULL, 0, &l);
    }
    ValueId d = index[1], n = form_scalar(b, d, (double)half);
    d = build_select(b, build_binary(b, OP_LT, d, n), d, build_binary(b, OP_SUB, d, n));
    ValueId power = build_binary(b, OP_MUL, d, form_scalar(b, d, -2 * log(theta) / (double)dim[1]));
    return build_binary(b, OP_MUL, index[0], build_unary(b, OP_EXP, power));
}

static ValueId spread_table(Builder *b, ValueId table, ValueId x)
{
    const Type *t = value_type(b->f, x);
    return build_broadcast(b, build_cast(b, table, t->dtype), t);
}

/* y = x cos + turned sin, where turned = (-x[D/2..], x[..D/2]): each is a load at a shifted index.
 */
void expand_ROTARY(Expand *e)
{
    Builder *b = &e->b;
    ValueId x = form_widen(b, e->op.in[0]);
    const Type *t = value_type(b->f, x);
    int64_t axis = t->rank - 1, half = t->dim[axis] / 2;
    int64_t start[ZM_MAX_RANK] = {0}, size[ZM_MAX_RANK];
    for (int i = 0; i < t->rank; i++) size[i] = t->dim[i];
    size[axis] = half;
    ValueId high = pad_to(b, build_slice(b, x, start, size), axis, half, t);
    start[axis] = half;
    ValueId low = pad_to(b, build_slice(b, x, start, size), axis, 0, t);
    bool inverse = attr_int(e->op.attrs, AT_INVERSE, 0) != 0;
    if (inverse)
        high = build_unary(b, OP_NEG, high);
    else
        low = build_unary(b, OP_NEG, low);
    ValueId turned = build_select(b, form_index_below(b, x, axis, half), low, high);
    ValueId angle = rotary_angle(b, t, attr_float(e->op.attrs, AT_THETA, 0));
    ValueId straight =
        build_binary(b, OP_MUL, x, spread_table(b, build_unary(b, OP_COS, angle), x));
    ValueId across =
        build_binary(b, OP_MUL, turned, spread_table(b, build_unary(b, OP_SIN, angle), x));
    e->out[0] = expand_narrow(e, 0, build_binary(b, OP_ADD, straight, across));
}
