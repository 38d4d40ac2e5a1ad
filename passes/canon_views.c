/* canon_views.c -- rules that compose and remove views (canon_rules.h). */
#include "passes/canon_rules.h"

#include <math.h>

static const ValueId none = {0};

static const int64_t *list_attr(const Op *o, AttrKey key)
{
    const Attr *a = attrs_find(o->attrs, key);
    ZM_CHECK(a != NULL);
    return a->as.list.at;
}

static const Type *var_type(const Rewrite *rw, int i)
{
    return value_type(rw->b.f, rw->var[i]);
}

/* Is the view one of type `want`?  Of a sharded tensor it may be another, or none at all. */
static bool gives(const Rewrite *rw, OpCode code, ValueId x, const AttrList *l, const Type *want)
{
    const Type *in = value_type(rw->b.f, x), *out;
    return !op_infer(rw->b.f->m, code, &in, 1, (Attrs){l->at, l->n}, &out) && out == want;
}

ValueId rule_reshape_to(Rewrite *rw, const Type *t)
{
    ValueId x = rw->var[0];
    AttrList l = {0};
    if (value_type(rw->b.f, x) == t) return x;
    attr_add_type(&l, t);
    return gives(rw, OP_RESHAPE, x, &l, t) ? build1(&rw->b, OP_RESHAPE, &x, 1, &l) : none;
}

static ValueId broadcast_to(Rewrite *rw, const Type *t)
{
    ValueId x = rw->var[0];
    AttrList l = {0};
    if (value_type(rw->b.f, x) == t) return x;
    attr_add_type(&l, t);
    return gives(rw, OP_BROADCAST, x, &l, t) ? build1(&rw->b, OP_BROADCAST, &x, 1, &l) : none;
}

/* The view changes nothing. */
static ValueId same_type(Rewrite *rw)
{
    return var_type(rw, 0) == rewrite_type(rw) ? rw->var[0] : none;
}

ValueId rule_broadcast_same(Rewrite *rw)
{
    return same_type(rw);
}

ValueId rule_reshape_same(Rewrite *rw)
{
    return same_type(rw);
}

ValueId rule_slice_everything(Rewrite *rw)
{
    return same_type(rw);
}

ValueId rule_pad_nothing(Rewrite *rw)
{
    return same_type(rw);
}

/* Elements of a splat are equal wherever they go; padding adds zeros. */
ValueId rule_view_of_const(Rewrite *rw)
{
    double v = attr_float(rewrite_op(rw, 1)->attrs, AT_VALUE, 0);
    if (rewrite_op(rw, 0)->code == OP_PAD && (v != 0 || signbit(v))) return none;
    return build_splat(&rw->b, v, rewrite_type(rw));
}

/* ---- broadcast ---- */

ValueId rule_broadcast_of_broadcast(Rewrite *rw)
{
    return broadcast_to(rw, rewrite_type(rw));
}

/* Equal but for leading dimensions of size 1. */
static bool same_but_leading_ones(const Type *a, const Type *b)
{
    int i = a->rank, k = b->rank;
    while (i > 0 && k > 0 && a->dim[i - 1] == b->dim[k - 1]) i--, k--;
    while (i > 0 && a->dim[i - 1] == 1) i--;
    while (k > 0 && b->dim[k - 1] == 1) k--;
    return i == 0 && k == 0;
}

ValueId rule_broadcast_of_reshape(Rewrite *rw)
{
    const Type *x = var_type(rw, 0), *middle = value_type(rw->b.f, rewrite_op(rw, 1)->out[0]);
    if (x->rank > rewrite_type(rw)->rank || !same_but_leading_ones(x, middle)) return none;
    return broadcast_to(rw, rewrite_type(rw));
}

/* Only new leading dimensions of size 1. */
ValueId rule_broadcast_to_reshape(Rewrite *rw)
{
    const Type *t = rewrite_type(rw);
    if (rw->keeps_units || type_elems(var_type(rw, 0)) != type_elems(t)) return none;
    return rule_reshape_to(rw, t);
}

/* ---- reshape, transpose ---- */

ValueId rule_reshape_of_reshape(Rewrite *rw)
{
    return rule_reshape_to(rw, rewrite_type(rw));
}

ValueId rule_transpose_identity(Rewrite *rw)
{
    const int64_t *perm = list_attr(rewrite_op(rw, 0), AT_PERM);
    for (int i = 0; i < rewrite_type(rw)->rank; i++)
        if (perm[i] != i) return none;
    return rw->var[0];
}

ValueId rule_transpose_of_transpose(Rewrite *rw)
{
    const int64_t *outer = list_attr(rewrite_op(rw, 0), AT_PERM),
                  *inner = list_attr(rewrite_op(rw, 1), AT_PERM);
    int64_t perm[ZM_MAX_RANK];
    for (int i = 0; i < rewrite_type(rw)->rank; i++) perm[i] = inner[outer[i]];
    return build_transpose(&rw->b, rw->var[0], perm);
}

/* Only dimensions of size 1 move past others. */
ValueId rule_transpose_to_reshape(Rewrite *rw)
{
    const int64_t *perm = list_attr(rewrite_op(rw, 0), AT_PERM);
    const Type *t = rewrite_type(rw);
    int64_t last = -1;
    if (rw->keeps_units) return none;
    for (int i = 0; i < t->rank; i++) {
        if (t->dim[i] == 1) continue;
        if (perm[i] < last) return none;
        last = perm[i];
    }
    return rule_reshape_to(rw, t);
}

/* ---- slice, pad ---- */

ValueId rule_slice_of_slice(Rewrite *rw)
{
    const int64_t *outer = list_attr(rewrite_op(rw, 0), AT_STARTS),
                  *inner = list_attr(rewrite_op(rw, 1), AT_STARTS);
    int64_t start[ZM_MAX_RANK];
    for (int i = 0; i < rewrite_type(rw)->rank; i++) start[i] = outer[i] + inner[i];
    return build_slice(&rw->b, rw->var[0], start, rewrite_type(rw)->dim);
}

/* Wholly inside of the operand, or wholly in the zeros. */
ValueId rule_slice_of_pad(Rewrite *rw)
{
    const int64_t *outer = list_attr(rewrite_op(rw, 0), AT_STARTS),
                  *low = list_attr(rewrite_op(rw, 1), AT_LOW);
    const Type *t = rewrite_type(rw), *x = var_type(rw, 0);
    int64_t start[ZM_MAX_RANK];
    bool inside = true;
    for (int i = 0; i < t->rank; i++) {
        start[i] = outer[i] - low[i];
        if (start[i] + t->dim[i] <= 0 || start[i] >= x->dim[i]) return build_splat(&rw->b, 0, t);
        if (start[i] < 0 || start[i] + t->dim[i] > x->dim[i]) inside = false;
    }
    return inside ? build_slice(&rw->b, rw->var[0], start, t->dim) : none;
}

/* Wholly inside of one operand. */
ValueId rule_slice_of_concat(Rewrite *rw)
{
    const Op *slice = rewrite_op(rw, 0), *concat = rewrite_op(rw, 1);
    const Type *t = rewrite_type(rw);
    int64_t axis = attr_int(concat->attrs, AT_AXIS, 0), start[ZM_MAX_RANK];
    for (int i = 0; i < t->rank; i++) start[i] = list_attr(slice, AT_STARTS)[i];
    for (uint32_t i = 0; i < concat->n_in; i++) {
        int64_t size = value_type(rw->b.f, concat->in[i])->dim[axis];
        if (start[axis] < size)
            return start[axis] + t->dim[axis] <= size
                       ? build_slice(&rw->b, concat->in[i], start, t->dim)
                       : none;
        start[axis] -= size;
    }
    ZM_UNREACHABLE("slice lies inside of concat");
}

/* slice(broadcast(x)) = broadcast(slice(x)): a repeated dimension is just shorter. */
ValueId rule_slice_of_broadcast(Rewrite *rw)
{
    const int64_t *outer = list_attr(rewrite_op(rw, 0), AT_STARTS);
    const Type *t = rewrite_type(rw), *x = var_type(rw, 0);
    const Type *wide = value_type(rw->b.f, rewrite_op(rw, 1)->out[0]);
    if (type_elems(x) == type_elems(wide)) return none;
    int64_t start[ZM_MAX_RANK], size[ZM_MAX_RANK];
    bool cuts = false;
    for (int k = 0, i = t->rank - x->rank; k < x->rank; k++, i++) {
        bool repeated = x->dim[k] != wide->dim[i];
        start[k] = repeated ? 0 : outer[i];
        size[k] = repeated ? 1 : t->dim[i];
        cuts |= size[k] != x->dim[k];
    }
    ValueId y = cuts ? build_slice(&rw->b, rw->var[0], start, size) : rw->var[0];
    return build_broadcast(&rw->b, y, t);
}

ValueId rule_pad_of_pad(Rewrite *rw)
{
    const Op *outer = rewrite_op(rw, 0), *inner = rewrite_op(rw, 1);
    int64_t low[ZM_MAX_RANK], high[ZM_MAX_RANK];
    for (int i = 0; i < rewrite_type(rw)->rank; i++) {
        low[i] = list_attr(outer, AT_LOW)[i] + list_attr(inner, AT_LOW)[i];
        high[i] = list_attr(outer, AT_HIGH)[i] + list_attr(inner, AT_HIGH)[i];
    }
    return build_pad(&rw->b, rw->var[0], low, high);
}

/* ---- concat ---- */

static ValueId build_concat(Builder *b, const ValueId *in, uint32_t n, int64_t axis)
{
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, axis);
    return build1(b, OP_CONCAT, in, n, &l);
}

/* The operand of the root that is a concat along the same axis; -1: none. */
static int nested_concat(const Rewrite *rw, const Op *o)
{
    for (uint32_t i = 0; i < o->n_in; i++) {
        const Op *def = rewrite_def(rw, o->in[i]);
        if (def && def->code == OP_CONCAT &&
            attr_int(def->attrs, AT_AXIS, 0) == attr_int(o->attrs, AT_AXIS, 0))
            return (int)i;
    }
    return -1;
}

ValueId rule_concat_of_one(Rewrite *rw)
{
    const Op *o = rewrite_op(rw, 0);
    return o->n_in == 1 ? o->in[0] : none;
}

ValueId rule_concat_of_concat(Rewrite *rw)
{
    enum { MAX_PARTS = 64 };
    const Op *o = rewrite_op(rw, 0);
    int at = nested_concat(rw, o);
    if (at < 0) return none;
    const Op *inner = rewrite_def(rw, o->in[at]);
    if (o->n_in + inner->n_in > MAX_PARTS) return none;
    ValueId in[MAX_PARTS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < o->n_in; i++) {
        if ((int)i != at) in[n++] = o->in[i];
        for (uint32_t k = 0; (int)i == at && k < inner->n_in; k++) in[n++] = inner->in[k];
    }
    rw->op[rw->n_ops++] = value_cget(rw->b.f, o->in[at])->def;
    return build_concat(&rw->b, in, n, attr_int(o->attrs, AT_AXIS, 0));
}

/* Padded x and y cover neighbouring ranges of one axis and are padded alike elsewhere:
 * pad(x) + pad(y) = pad(concat(x, y)).  Gradients of the parts of a split come so. */
ValueId rule_concat_of_pads(Rewrite *rw)
{
    const Type *t = rewrite_type(rw), *tx = var_type(rw, 0), *ty = var_type(rw, 1);
    const int64_t *low_x = list_attr(rewrite_op(rw, 1), AT_LOW),
                  *low_y = list_attr(rewrite_op(rw, 2), AT_LOW);
    int axis = -1;
    for (int i = 0; i < t->rank; i++) {
        if (low_x[i] == low_y[i] && tx->dim[i] == ty->dim[i]) continue;
        if (axis >= 0) return none;
        axis = i;
    }
    if (axis < 0) return none;
    bool x_first = low_x[axis] + tx->dim[axis] == low_y[axis];
    if (!x_first && low_y[axis] + ty->dim[axis] != low_x[axis]) return none;
    ValueId in[] = {rw->var[x_first ? 0 : 1], rw->var[x_first ? 1 : 0]};
    const int64_t *low = x_first ? low_x : low_y;
    int64_t high[ZM_MAX_RANK];
    for (int i = 0; i < t->rank; i++)
        high[i] = t->dim[i] - low[i] - tx->dim[i] - (i == axis ? ty->dim[i] : 0);
    ValueId both = build_concat(&rw->b, in, 2, axis);
    return value_type(rw->b.f, both) == t ? both : build_pad(&rw->b, both, low, high);
}
