/* forms.c -- see forms.h. */
#include "passes/forms.h"

#include <math.h>

ValueId form_widen(Builder *b, ValueId x)
{
    DType dt = value_type(b->f, x)->dtype;
    return dt == DT_BF16 || dt == DT_F16 ? build_cast(b, x, DT_F32) : x;
}

ValueId form_spread(Builder *b, ValueId row, ValueId x)
{
    return build_broadcast(b, row, value_type(b->f, x));
}

ValueId form_scalar(Builder *b, ValueId like, double v)
{
    return build_splat(b, v, value_type(b->f, like));
}

ValueId form_square(Builder *b, ValueId x)
{
    return build_binary(b, OP_MUL, x, x);
}

ValueId form_sum(Builder *b, ValueId x, int64_t axis)
{
    return build_reduce_keep(b, OP_REDUCE_SUM, x, &axis, 1);
}

ValueId form_mean(Builder *b, ValueId x, int64_t axis)
{
    int64_t n = value_type(b->f, x)->dim[axis];
    ValueId sum = form_sum(b, x, axis);
    return build_binary(b, OP_DIV, sum, form_scalar(b, sum, (double)n));
}

static int64_t last_axis(Builder *b, ValueId x)
{
    return value_type(b->f, x)->rank - 1;
}

static ValueId rstd_of(Builder *b, ValueId x, double eps)
{
    ValueId var = form_mean(b, form_square(b, x), last_axis(b, x));
    ValueId biased = build_binary(b, OP_ADD, var, form_scalar(b, var, eps));
    return build_binary(b, OP_DIV, form_scalar(b, var, 1), build_unary(b, OP_SQRT, biased));
}

FormNorm form_normalize(Builder *b, ValueId x, double eps)
{
    FormNorm n;
    ValueId mean = form_mean(b, x, last_axis(b, x));
    n.centred = build_binary(b, OP_SUB, x, form_spread(b, mean, x));
    n.rstd = rstd_of(b, n.centred, eps);
    return n;
}

ValueId form_rms_rstd(Builder *b, ValueId x, double eps)
{
    return rstd_of(b, x, eps);
}

FormSoftmax form_softmax(Builder *b, ValueId x, int64_t axis)
{
    FormSoftmax s;
    ValueId max = build_reduce_keep(b, OP_REDUCE_MAX, x, &axis, 1);
    s.shifted = build_binary(b, OP_SUB, x, form_spread(b, max, x));
    s.e = build_unary(b, OP_EXP, s.shifted);
    s.sum = form_sum(b, s.e, axis);
    return s;
}

/* i32 of x's shape: each element's index along axis. */
static ValueId index_along(Builder *b, ValueId x, int64_t axis)
{
    const Type *t = value_type(b->f, x);
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, axis);
    attr_add_type(&l, t);
    attr_add_int(&l, AT_DTYPE, DT_I32);
    return build1(b, OP_IOTA, NULL, 0, &l);
}

ValueId form_one_hot(Builder *b, ValueId target, ValueId x)
{
    Type t = *value_type(b->f, target);
    t.dim[t.rank++] = 1;
    ValueId column = build_reshape_to(b, target, &t);
    ValueId index = index_along(b, x, last_axis(b, x));
    return build_binary(b, OP_EQ, index, build_broadcast(b, column, value_type(b->f, index)));
}

ValueId form_index_below(Builder *b, ValueId x, int64_t axis, int64_t bound)
{
    ValueId index = index_along(b, x, axis);
    return build_binary(b, OP_LT, index, form_scalar(b, index, (double)bound));
}

ValueId form_ignored(Builder *b, ValueId target, Attrs attrs)
{
    const Attr *ignore = attrs_find(attrs, AT_IGNORE);
    if (!ignore) return (ValueId){0};
    return build_binary(b, OP_EQ, target, form_scalar(b, target, (double)ignore->as.i));
}

ValueId form_keep(Builder *b, ValueId key, const Type *t, Attrs attrs)
{
    AttrList l = {0};
    attr_add_type(&l, t);
    attr_add_str(&l, AT_STREAM, attr_str(attrs, AT_STREAM));
    attr_add_int(&l, AT_BATCH, attr_int(attrs, AT_BATCH, 1));
    ValueId r = build1(b, OP_RANDOM, &key, 1, &l);
    double p = dtype_round(DT_F32, attr_float(attrs, AT_P, 0));
    return build_binary(b, OP_GE, r, form_scalar(b, r, p));
}

/* The i1 [B, H, T, S] of causal attention: s <= t + S - T. */
static ValueId causal_mask(Builder *b, ValueId scores)
{
    const Type *t = value_type(b->f, scores);
    ValueId row = index_along(b, scores, 2), col = index_along(b, scores, 3);
    ValueId last =
        build_binary(b, OP_ADD, row, form_scalar(b, row, (double)(t->dim[3] - t->dim[2])));
    return build_binary(b, OP_LE, col, last);
}

static ValueId and_mask(Builder *b, ValueId x, ValueId y)
{
    return value_ok(x) ? build_binary(b, OP_AND, x, y) : y;
}

FormAttention form_attention(Builder *b, const ValueId *in, uint32_t n_in, uint32_t extra,
                             Attrs attrs)
{
    FormAttention a = {.p_drop = dtype_round(DT_F32, attr_float(attrs, AT_P, 0))};
    const Type *q = value_type(b->f, in[0]);
    a.scale = attr_float(attrs, AT_SCALE, 1 / sqrt((double)q->dim[3]));
    ValueId dot = build_matmul(b, form_widen(b, in[0]), form_widen(b, in[1]), false, true);
    a.scores = build_binary(b, OP_MUL, dot, form_scalar(b, dot, a.scale));
    const Type *full = value_type(b->f, a.scores);
    if (attr_int(attrs, AT_CAUSAL, 0)) a.mask = causal_mask(b, a.scores);
    for (uint32_t i = extra; i < n_in; i++) {
        DType dt = value_type(b->f, in[i])->dtype;
        if (dt == DT_I1) {
            a.mask = and_mask(b, a.mask, build_broadcast(b, in[i], full));
        } else if (dt == DT_I32) {
            a.key = in[i];
        } else {
            a.bias = in[i];
            a.scores = build_binary(b, OP_ADD, a.scores,
                                    build_broadcast(b, build_cast(b, in[i], full->dtype), full));
        }
    }
    return a;
}
