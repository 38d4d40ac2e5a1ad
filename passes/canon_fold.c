/* canon_fold.c -- constant folding: the scalar meaning of element-wise ops is ops.def's EVAL
 * column, rounded to the result's dtype as the interpreter does. */
#include "passes/canon_rules.h"

#include <math.h>

static double gelu_tanh_slope(double a)
{
    double k = sqrt(2 / 3.14159265358979323846), t = tanh(k * (a + 0.044715 * a * a * a));
    return 0.5 * (1 + t) + 0.5 * a * (1 - t * t) * k * (1 + 3 * 0.044715 * a * a);
}

#define OP(...)
#define EVAL(C) (C)
#define POINT(ID, NAME, N_IN, TRAITS, TYPE_, AMP_, GRAD_, FLOPS, LOWER_, EVAL_, SAMPLE_, DOC_)     \
    static double fold_##ID(double a, double b, double c)                                          \
    {                                                                                              \
        (void)a, (void)b, (void)c;                                                                 \
        return EVAL_;                                                                              \
    }
#include "ir/ops.def"
#undef POINT

static double (*const fold_table[N_OP])(double a, double b, double c) = {
#define POINT(ID, ...) [OP_##ID] = fold_##ID,
#include "ir/ops.def"
#undef POINT
#undef OP
#undef EVAL
};

static bool fits(DType dt, double v)
{
    return dtype_class(dt) != DTC_INT || (v >= INT32_MIN && v <= INT32_MAX);
}

ValueId rule_fold_point(Rewrite *rw)
{
    const Op *o = rewrite_op(rw, 0);
    double v[PAT_MAX_IN] = {0};
    if (!(op_info(o->code)->traits & TR_POINTWISE) || o->n_in > PAT_MAX_IN) return (ValueId){0};
    if (o->code != OP_CAST && !fold_table[o->code]) return (ValueId){0};
    for (uint32_t i = 0; i < o->n_in; i++) {
        const Op *def = rewrite_def(rw, o->in[i]);
        if (!def || def->code != OP_CONST) return (ValueId){0};
        v[i] =
            dtype_round(value_type(rw->b.f, o->in[i])->dtype, attr_float(def->attrs, AT_VALUE, 0));
    }
    const Type *t = rewrite_type(rw);
    double y = o->code == OP_CAST ? v[0] : fold_table[o->code](v[0], v[1], v[2]);
    if (!fits(t->dtype, y)) return (ValueId){0};
    return build_splat(&rw->b, dtype_round(t->dtype, y), t);
}
