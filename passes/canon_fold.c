/* canon_fold.c -- constant folding: an element-wise op of constants is what the interpreter says it
 * is. */
#include "passes/canon_rules.h"

#include "ir/eval/eval_rules.h"

static bool fits(DType dt, double v)
{
    return dtype_class(dt) != DTC_INT || (v >= INT32_MIN && v <= INT32_MAX);
}

ValueId rule_fold_point(Rewrite *rw)
{
    const Op *o = rewrite_op(rw, 0);
    PointFn fn = eval_point(o->code);
    double v[PAT_MAX_IN] = {0};
    if ((o->code != OP_CAST && !fn) || o->n_in > PAT_MAX_IN) return (ValueId){0};
    for (uint32_t i = 0; i < o->n_in; i++) {
        const Op *def = rewrite_def(rw, o->in[i]);
        if (!def || def->code != OP_CONST) return (ValueId){0};
        DType dt = value_type(rw->b.f, o->in[i])->dtype;
        v[i] = dtype_round(dt, attr_float(def->attrs, AT_VALUE, 0));
    }
    const Type *t = rewrite_type(rw);
    double y = o->code == OP_CAST ? v[0] : fn(v[0], v[1], v[2]);
    if (!fits(t->dtype, y) || (t->partial && y != 0)) return (ValueId){0};
    return build_splat(&rw->b, dtype_round(t->dtype, y), t);
}
