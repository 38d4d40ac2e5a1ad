/* canon_point.c -- rules over element-wise ops that look at constants, dtypes or shapes
 * (canon_rules.h). */
#include "passes/canon_rules.h"

#include <math.h>
#include <string.h>

static const Op *const_def(const Rewrite *rw, ValueId v)
{
    const Op *o = rewrite_def(rw, v);
    return o && o->code == OP_CONST ? o : NULL;
}

static double const_value(const Op *o)
{
    return attr_float(o->attrs, AT_VALUE, 0);
}

static AttrList list_of(Attrs attrs)
{
    AttrList l = {.n = attrs.n};
    for (uint32_t i = 0; i < attrs.n; i++) l.at[i] = attrs.at[i];
    return l;
}

/* ---- exact casts ---- */

/* Significant bits and exponent range of a float dtype: v = f * 2^e, 0.5 <= |f| < 1, min <= e <=
 * max when normal. */
typedef struct FloatRange {
    int digits, min, max;
} FloatRange;

static FloatRange float_range(DType dt)
{
    switch (dt) {
    case DT_BF16: return (FloatRange){8, -125, 128};
    case DT_F16: return (FloatRange){11, -13, 16};
    case DT_F32: return (FloatRange){24, -125, 128};
    case DT_F64: return (FloatRange){53, -1021, 1024};
    case DT_I1: return (FloatRange){1, 1, 1};
    case DT_I32: return (FloatRange){31, 1, 31};
    case DT_NONE:
    case N_DTYPE: break;
    }
    ZM_UNREACHABLE("dtype");
}

/* Every value of `from` is one of `to`; subnormals of `from` too, for to's range is at least as
 * wide. */
static bool holds_all(DType from, DType to)
{
    if (from == to) return true;
    if (dtype_class(to) != DTC_FLOAT) return from == DT_I1 && to == DT_I32;
    FloatRange a = float_range(from), b = float_range(to);
    if (dtype_class(from) == DTC_FLOAT && b.min - b.digits > a.min - a.digits) return false;
    return a.digits <= b.digits && a.max <= b.max;
}

ValueId rule_cast_same(Rewrite *rw)
{
    ValueId x = rw->var[0];
    return value_type(rw->b.f, x) == rewrite_type(rw) ? x : (ValueId){0};
}

/* The inner cast loses nothing. */
ValueId rule_cast_of_cast(Rewrite *rw)
{
    DType from = value_type(rw->b.f, rw->var[0])->dtype;
    DType middle = value_type(rw->b.f, rewrite_op(rw, 1)->out[0])->dtype;
    if (!holds_all(from, middle)) return (ValueId){0};
    return build_cast(&rw->b, rw->var[0], rewrite_type(rw)->dtype);
}

/* A view between them changes nothing of that. */
ValueId rule_cast_of_view_of_cast(Rewrite *rw)
{
    DType from = value_type(rw->b.f, rw->var[0])->dtype;
    DType middle = value_type(rw->b.f, rewrite_op(rw, 2)->out[0])->dtype;
    if (!holds_all(from, middle)) return (ValueId){0};
    Op view = *rewrite_op(rw, 1);
    AttrList l = list_of(view.attrs);
    ValueId x = build_cast(&rw->b, rw->var[0], rewrite_type(rw)->dtype);
    return build1(&rw->b, view.code, &x, 1, &l);
}

/* ---- constants ---- */

/* x / 2^k = x * 2^-k when both constants are normal. */
ValueId rule_div_by_power_of_two(Rewrite *rw)
{
    const Op *divisor = const_def(rw, rewrite_op(rw, 0)->in[1]);
    if (!divisor || const_def(rw, rewrite_op(rw, 0)->in[0])) return (ValueId){0};
    int e;
    double v = const_value(divisor);
    if (!isfinite(v) || fabs(frexp(v, &e)) != 0.5) return (ValueId){0};
    FloatRange r = float_range(rewrite_type(rw)->dtype);
    if (e < r.min || e > r.max || 2 - e < r.min || 2 - e > r.max) return (ValueId){0};
    ValueId x = rewrite_op(rw, 0)->in[0];
    const Type *t = value_type(rw->b.f, divisor->out[0]);
    return build_binary(&rw->b, OP_MUL, x, build_splat(&rw->b, 1 / v, t));
}

ValueId rule_select_const(Rewrite *rw)
{
    const Op *cond = const_def(rw, rewrite_op(rw, 0)->in[0]);
    if (!cond) return (ValueId){0};
    return rewrite_op(rw, 0)->in[const_value(cond) != 0 ? 1 : 2];
}

/* ---- broadcasts ---- */

/* Index of the first operand that is a broadcast; -1 unless every operand is a constant or a
 * broadcast from that shape. */
static int first_broadcast(const Rewrite *rw, const Op *o)
{
    const Type *from = NULL;
    int first = -1;
    for (uint32_t i = 0; i < o->n_in; i++) {
        const Op *def = rewrite_def(rw, o->in[i]);
        if (!def || (def->code != OP_CONST && def->code != OP_BROADCAST)) return -1;
        if (def->code == OP_CONST) continue;
        const Type *t = value_type(rw->b.f, def->in[0]);
        if (from && (!type_same_shape(from, t) || memcmp(from->axis, t->axis, sizeof t->axis) != 0))
            return -1;
        if (!from) first = (int)i;
        from = t;
    }
    return first;
}

/* op(broadcast(x), broadcast(y)) = broadcast(op(x, y)): computed once per distinct element. */
ValueId rule_point_of_broadcasts(Rewrite *rw)
{
    Op o = *rewrite_op(rw, 0);
    if (!(op_info(o.code)->traits & TR_POINTWISE) || o.n_in > PAT_MAX_IN) return (ValueId){0};
    int first = first_broadcast(rw, &o);
    if (first < 0) return (ValueId){0};
    const Type *from = value_type(rw->b.f, rewrite_def(rw, o.in[first])->in[0]);
    if (type_elems(from) == type_elems(rewrite_type(rw))) return (ValueId){0};
    ValueId in[PAT_MAX_IN];
    for (uint32_t i = 0; i < o.n_in; i++) {
        const Op *def = rewrite_def(rw, o.in[i]);
        DType dt = value_type(rw->b.f, o.in[i])->dtype;
        if (def->code == OP_BROADCAST) {
            in[i] = def->in[0];
            rw->op[rw->n_ops++] = value_cget(rw->b.f, o.in[i])->def;
        } else {
            uint8_t partial = value_type(rw->b.f, o.in[i])->partial;
            const Type *t = type_placed(rw->b.f->m, from, from->axis, partial);
            in[i] = build_splat(&rw->b, const_value(def), type_with_dtype(rw->b.f->m, t, dt));
        }
    }
    AttrList l = list_of(o.attrs);
    return build_broadcast(&rw->b, build1(&rw->b, o.code, in, o.n_in, &l), rewrite_type(rw));
}
