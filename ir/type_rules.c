/* type_rules.c -- types of an op's results from its operands and attributes, or why they are
 * refused (ops.def, column TYPE). */
#include "ir/type_rules.h"

#include <math.h>
#include <string.h>

#define REFUSE(...) return arena_printf(t->m->arena, __VA_ARGS__)
#define TEXT(TYPE_) type_text(t->m->arena, (TYPE_))

static bool is_float(const Type *t)
{
    return dtype_class(t->dtype) == DTC_FLOAT;
}

/* ---- attributes that rules need ---- */

/* List attribute `key` of n entries (n < 0: any number up to the maximal rank); NULL: fine. */
static const char *need_list(const TypeIn *t, AttrKey key, int n, const int64_t **at, int *len)
{
    const Attr *a = attrs_find(t->attrs, key);
    *at = NULL;
    if (len) *len = 0;
    if (!a) REFUSE("needs attribute '%s'", attr_name(key));
    if (n >= 0 && (int)a->as.list.n != n)
        REFUSE("attribute '%s' needs %d entries, not %u", attr_name(key), n, a->as.list.n);
    if (n < 0 && a->as.list.n > ZM_MAX_RANK)
        REFUSE("rank %u is above the limit of %d", a->as.list.n, ZM_MAX_RANK);
    *at = a->as.list.at;
    if (len) *len = (int)a->as.list.n;
    return NULL;
}

static const char *need_shape(const TypeIn *t, DType dtype, const Type **out)
{
    const int64_t *dim;
    int rank;
    const char *why = need_list(t, AT_SHAPE, -1, &dim, &rank);
    if (why) return why;
    for (int i = 0; i < rank; i++)
        if (dim[i] <= 0) REFUSE("dimension %d of the shape is %lld", i, (long long)dim[i]);
    *out = type_get(t->m, dtype, rank, dim);
    return NULL;
}

static const char *need_dtype(const TypeIn *t, DType *dt)
{
    *dt = (DType)attr_int(t->attrs, AT_DTYPE, DT_NONE);
    if (*dt == DT_NONE) REFUSE("needs attribute 'dtype'");
    return NULL;
}

/* Attribute `value`, if any, is one of the dtype's values; a float is rounded. */
static const char *need_value(const TypeIn *t, DType dt)
{
    double v = attr_float(t->attrs, AT_VALUE, 0);
    bool holds = dt == DT_I1    ? v == 0 || v == 1
                 : dt == DT_I32 ? v == trunc(v) && v >= INT32_MIN && v <= INT32_MAX
                                : true;
    if (!holds) REFUSE("%.17g is no value of %s", v, dtype_name(dt));
    return NULL;
}

static const char *need_same(const TypeIn *t, uint32_t i, uint32_t k)
{
    if (t->in[i] != t->in[k]) REFUSE("operands differ: %s and %s", TEXT(t->in[i]), TEXT(t->in[k]));
    return NULL;
}

static const char *need_scalar(const TypeIn *t, uint32_t i, DType dt, const char *what)
{
    if (t->in[i]->rank != 0 || t->in[i]->dtype != dt)
        REFUSE("%s must be %s[], not %s", what, dtype_name(dt), TEXT(t->in[i]));
    return NULL;
}

static const char *need_key(const TypeIn *t, uint32_t i)
{
    const Type *k = t->in[i];
    if (k->dtype != DT_I32 || k->rank != 1 || k->dim[0] != 4)
        REFUSE("the key must be i32[4], not %s", TEXT(k));
    return NULL;
}

#define NEED(CALL)                                                                                 \
    do {                                                                                           \
        const char *why_ = (CALL);                                                                 \
        if (why_) return why_;                                                                     \
    } while (0)

/* ---- element-wise ---- */

static const char *all_same(const TypeIn *t, const Type **out)
{
    for (uint32_t i = 1; i < t->n_in; i++) NEED(need_same(t, 0, i));
    out[0] = t->in[0];
    return NULL;
}

const char *type_same(const TypeIn *t, const Type **out)
{
    if (t->in[0]->dtype == DT_I1) REFUSE("does not take i1");
    return all_same(t, out);
}

const char *type_real(const TypeIn *t, const Type **out)
{
    if (!is_float(t->in[0])) REFUSE("takes floating-point operands, not %s", TEXT(t->in[0]));
    return all_same(t, out);
}

const char *type_logic(const TypeIn *t, const Type **out)
{
    if (t->in[0]->dtype != DT_I1) REFUSE("takes i1 operands, not %s", TEXT(t->in[0]));
    return all_same(t, out);
}

const char *type_compare(const TypeIn *t, const Type **out)
{
    NEED(need_same(t, 0, 1));
    out[0] = type_with_dtype(t->m, t->in[0], DT_I1);
    return NULL;
}

const char *type_test(const TypeIn *t, const Type **out)
{
    if (!is_float(t->in[0])) REFUSE("takes a floating-point operand, not %s", TEXT(t->in[0]));
    out[0] = type_with_dtype(t->m, t->in[0], DT_I1);
    return NULL;
}

const char *type_select(const TypeIn *t, const Type **out)
{
    if (t->in[0]->dtype != DT_I1) REFUSE("the condition must be i1, not %s", TEXT(t->in[0]));
    NEED(need_same(t, 1, 2));
    if (!type_same_shape(t->in[0], t->in[1]))
        REFUSE("shapes differ: condition %s and choice %s", TEXT(t->in[0]), TEXT(t->in[1]));
    out[0] = t->in[1];
    return NULL;
}

const char *type_cast(const TypeIn *t, const Type **out)
{
    DType dt;
    NEED(need_dtype(t, &dt));
    out[0] = type_with_dtype(t->m, t->in[0], dt);
    return NULL;
}

/* ---- sources and variables ---- */

const char *type_shaped(const TypeIn *t, const Type **out)
{
    DType dt;
    NEED(need_dtype(t, &dt));
    NEED(need_value(t, dt));
    NEED(need_shape(t, dt, out));
    int64_t axis = attr_int(t->attrs, AT_AXIS, 0);
    if (attrs_find(t->attrs, AT_AXIS) && (axis < 0 || axis >= out[0]->rank))
        REFUSE("axis %lld is outside of %s", (long long)axis, TEXT(out[0]));
    return NULL;
}

const char *type_random(const TypeIn *t, const Type **out)
{
    NEED(need_key(t, 0));
    NEED(need_shape(t, DT_F32, out));
    int64_t batch = attr_int(t->attrs, AT_BATCH, 0);
    if (batch <= 0 || type_elems(out[0]) % batch)
        REFUSE("%s does not divide into %lld samples", TEXT(out[0]), (long long)batch);
    return attr_str(t->attrs, AT_STREAM) ? NULL : "needs attribute 'stream'";
}

const char *type_read(const TypeIn *t, const Type **out)
{
    const char *name = attr_str(t->attrs, AT_VAR);
    VarId v = name ? var_find(t->m, name) : (VarId){0};
    if (!var_ok(v)) REFUSE("variable @%s is not defined", name ? name : "");
    VarId in = var_cget(t->m, v)->in;
    const Type *bucket = var_ok(in) ? var_cget(t->m, in)->type : NULL;
    if (bucket && bucket->partial != var_cget(t->m, v)->type->partial)
        REFUSE("variable @%s, %s, lies in @%s, %s: a partial sum", name,
               TEXT(var_cget(t->m, v)->type), var_cget(t->m, in)->name, TEXT(bucket));
    out[0] = var_cget(t->m, v)->type;
    return NULL;
}

const char *type_write(const TypeIn *t, const Type **out)
{
    const Type *have;
    (void)out;
    NEED(type_read(t, &have));
    if (have != t->in[0])
        REFUSE("variable @%s is %s, the value %s", attr_str(t->attrs, AT_VAR), TEXT(have),
               TEXT(t->in[0]));
    return NULL;
}

/* ---- views ---- */

const char *type_broadcast(const TypeIn *t, const Type **out)
{
    const Type *a = t->in[0];
    NEED(need_shape(t, a->dtype, out));
    int lead = out[0]->rank - a->rank;
    bool fits = lead >= 0;
    for (int i = 0; fits && i < a->rank; i++)
        fits = a->dim[i] == 1 || a->dim[i] == out[0]->dim[lead + i];
    if (!fits) REFUSE("%s does not broadcast to %s", TEXT(a), TEXT(out[0]));
    return NULL;
}

const char *type_concat(const TypeIn *t, const Type **out)
{
    Type sum = *t->in[0];
    int64_t axis = attr_int(t->attrs, AT_AXIS, -1);
    if (axis < 0 || axis >= sum.rank)
        REFUSE("axis %lld is outside of %s", (long long)axis, TEXT(t->in[0]));
    for (uint32_t i = 1; i < t->n_in; i++) {
        Type other = *t->in[i];
        sum.dim[axis] += other.dim[axis];
        other.dim[axis] = t->in[0]->dim[axis];
        if (other.dtype != sum.dtype || !type_same_shape(&other, t->in[0]))
            REFUSE("operands differ beside axis %lld: %s and %s", (long long)axis, TEXT(t->in[0]),
                   TEXT(t->in[i]));
    }
    out[0] = type_get(t->m, sum.dtype, sum.rank, sum.dim);
    return NULL;
}

const char *type_after(const TypeIn *t, const Type **out)
{
    out[0] = t->in[0];
    return NULL;
}

const char *type_pack(const TypeIn *t, const Type **out)
{
    const int64_t *start;
    NEED(need_list(t, AT_STARTS, (int)t->n_in, &start, NULL));
    NEED(need_shape(t, t->in[0]->dtype, out));
    int64_t end = 0;
    for (uint32_t i = 0; i < t->n_in; i++) {
        if (t->in[i]->dtype != t->in[0]->dtype)
            REFUSE("dtypes differ: %s and %s", TEXT(t->in[0]), TEXT(t->in[i]));
        if (start[i] < end)
            REFUSE("operand %u starts at %lld, before %lld where the one before it ends", i,
                   (long long)start[i], (long long)end);
        end = start[i] + type_elems(t->in[i]);
    }
    if (out[0]->rank != 1 || end > out[0]->dim[0])
        REFUSE("%lld elements do not fit into %s", (long long)end, TEXT(out[0]));
    return NULL;
}

const char *type_pad(const TypeIn *t, const Type **out)
{
    const Type *a = t->in[0];
    const int64_t *low, *high;
    NEED(need_list(t, AT_LOW, a->rank, &low, NULL));
    NEED(need_list(t, AT_HIGH, a->rank, &high, NULL));
    Type r = *a;
    for (int i = 0; i < a->rank; i++) {
        if (low[i] < 0 || high[i] < 0) REFUSE("negative padding of dimension %d", i);
        r.dim[i] += low[i] + high[i];
    }
    out[0] = type_get(t->m, r.dtype, r.rank, r.dim);
    return NULL;
}

const char *type_reshape(const TypeIn *t, const Type **out)
{
    NEED(need_shape(t, t->in[0]->dtype, out));
    if (type_elems(out[0]) != type_elems(t->in[0]))
        REFUSE("%s has %lld elements, %s has %lld", TEXT(t->in[0]), (long long)type_elems(t->in[0]),
               TEXT(out[0]), (long long)type_elems(out[0]));
    return NULL;
}

const char *type_slice(const TypeIn *t, const Type **out)
{
    const Type *a = t->in[0];
    const int64_t *start, *size;
    NEED(need_list(t, AT_STARTS, a->rank, &start, NULL));
    NEED(need_list(t, AT_SIZES, a->rank, &size, NULL));
    for (int i = 0; i < a->rank; i++)
        if (start[i] < 0 || size[i] <= 0 || start[i] + size[i] > a->dim[i])
            REFUSE("%lld..%lld is outside of dimension %d of %s", (long long)start[i],
                   (long long)(start[i] + size[i]), i, TEXT(a));
    out[0] = type_get(t->m, a->dtype, a->rank, size);
    return NULL;
}

const char *type_transpose(const TypeIn *t, const Type **out)
{
    const Type *a = t->in[0];
    const int64_t *perm;
    NEED(need_list(t, AT_PERM, a->rank, &perm, NULL));
    int64_t dim[ZM_MAX_RANK];
    uint32_t seen = 0;
    for (int i = 0; i < a->rank; i++) {
        if (perm[i] < 0 || perm[i] >= a->rank || seen >> perm[i] & 1)
            REFUSE("'perm' is not a permutation of the %d dimensions", a->rank);
        seen |= 1u << perm[i];
        dim[i] = a->dim[perm[i]];
    }
    out[0] = type_get(t->m, a->dtype, a->rank, dim);
    return NULL;
}

/* ---- reductions and rows ---- */

const char *type_reduce(const TypeIn *t, const Type **out)
{
    const Type *a = t->in[0];
    const int64_t *dims;
    int n;
    NEED(need_list(t, AT_DIMS, -1, &dims, &n));
    int64_t dim[ZM_MAX_RANK];
    int rank = 0, next = 0;
    for (int i = 0; i < a->rank; i++) {
        if (next < n && dims[next] == i)
            next++;
        else
            dim[rank++] = a->dim[i];
    }
    if (next != n || n == 0) REFUSE("'dims' must be dimensions of %s, ascending", TEXT(a));
    out[0] = type_get(t->m, a->dtype, rank, dim);
    return NULL;
}

const char *type_reduce_sum(const TypeIn *t, const Type **out)
{
    if (t->in[0]->dtype == DT_I1) REFUSE("does not take i1: cast it to what counts");
    return type_reduce(t, out);
}

const char *type_axis(const TypeIn *t, const Type **out)
{
    int64_t axis = attr_int(t->attrs, AT_AXIS, -1);
    if (axis < 0 || axis >= t->in[0]->rank)
        REFUSE("axis %lld is outside of %s", (long long)axis, TEXT(t->in[0]));
    return type_real(t, out);
}

const char *type_normalize(const TypeIn *t, const Type **out)
{
    if (t->in[0]->rank < 1) REFUSE("needs at least one dimension");
    if (!attrs_find(t->attrs, AT_EPS)) REFUSE("needs attribute 'eps'");
    return type_real(t, out);
}

const char *type_rotary(const TypeIn *t, const Type **out)
{
    const Type *a = t->in[0];
    if (a->rank < 2 || a->dim[a->rank - 1] % 2)
        REFUSE("takes [..., T, D] with even D, not %s", TEXT(a));
    if (!attrs_find(t->attrs, AT_THETA)) REFUSE("needs attribute 'theta'");
    return type_real(t, out);
}

const char *type_drop(const TypeIn *t, const Type **out)
{
    double p = attr_float(t->attrs, AT_P, -1);
    if (!(p >= 0 && p < 1)) REFUSE("p = %g is outside of [0, 1)", p);
    NEED(need_key(t, 1));
    int64_t batch = attr_int(t->attrs, AT_BATCH, 0);
    if (batch <= 0 || type_elems(t->in[0]) % batch)
        REFUSE("%s does not divide into %lld samples", TEXT(t->in[0]), (long long)batch);
    if (!is_float(t->in[0])) REFUSE("takes a floating-point operand, not %s", TEXT(t->in[0]));
    out[0] = t->in[0];
    return attr_str(t->attrs, AT_STREAM) ? NULL : "needs attribute 'stream'";
}

const char *type_cross_entropy(const TypeIn *t, const Type **out)
{
    const Type *x = t->in[0], *y = t->in[1];
    bool fits = x->rank >= 1 && x->rank == y->rank + 1 && is_float(x);
    for (int i = 0; fits && i < y->rank; i++) fits = x->dim[i] == y->dim[i];
    if (!fits || y->dtype != DT_I32)
        REFUSE("takes logits [..., V] and targets i32[...], not %s and %s", TEXT(x), TEXT(y));
    out[0] = type_get(t->m, DT_F32, y->rank, y->dim);
    return NULL;
}

const char *type_cross_entropy_grad(const TypeIn *t, const Type **out)
{
    const Type *item;
    NEED(type_cross_entropy(t, &item));
    if (item != t->in[2]) REFUSE("d items must be %s, not %s", TEXT(item), TEXT(t->in[2]));
    out[0] = t->in[0];
    return NULL;
}

/* ---- contractions, lookup, attention ---- */

const char *type_matmul(const TypeIn *t, const Type **out)
{
    const Type *a = t->in[0], *b = t->in[1];
    if (!is_float(a) || a->dtype != b->dtype)
        REFUSE("takes two floating-point operands of one dtype, not %s and %s", TEXT(a), TEXT(b));
    if (a->rank < 2 || b->rank < 2)
        REFUSE("takes operands of rank 2 or more, not %s and %s", TEXT(a), TEXT(b));
    bool ta = attr_int(t->attrs, AT_TRANS_A, 0) != 0, tb = attr_int(t->attrs, AT_TRANS_B, 0) != 0;
    int64_t m = a->dim[a->rank - (ta ? 1 : 2)], k = a->dim[a->rank - (ta ? 2 : 1)];
    int64_t kb = b->dim[b->rank - (tb ? 1 : 2)], n = b->dim[b->rank - (tb ? 2 : 1)];
    if (k != kb)
        REFUSE("inner dimensions differ: %lld and %lld (%s and %s)", (long long)k, (long long)kb,
               TEXT(a), TEXT(b));
    if (b->rank > 2) {
        bool same = a->rank == b->rank;
        for (int i = 0; same && i < a->rank - 2; i++) same = a->dim[i] == b->dim[i];
        if (!same) REFUSE("leading dimensions differ: %s and %s", TEXT(a), TEXT(b));
    } else if (ta && a->rank > 2)
        REFUSE("trans_a with a matrix on the right needs rank 2 on the left, not %s", TEXT(a));
    Type r = *a;
    r.dim[r.rank - 2] = m;
    r.dim[r.rank - 1] = n;
    bool wide = attr_int(t->attrs, AT_WIDE, 0) != 0;
    if (wide && dtype_bytes(a->dtype) != 2) REFUSE("wide takes 16-bit operands, not %s", TEXT(a));
    out[0] = type_get(t->m, wide ? DT_F32 : r.dtype, r.rank, r.dim);
    return NULL;
}

const char *type_embed(const TypeIn *t, const Type **out)
{
    const Type *table = t->in[0], *index = t->in[1];
    if (table->rank != 2 || index->dtype != DT_I32)
        REFUSE("takes a table [V, C] and i32 indices, not %s and %s", TEXT(table), TEXT(index));
    if (index->rank + 1 > ZM_MAX_RANK)
        REFUSE("rank %d is above the limit of %d", index->rank + 1, ZM_MAX_RANK);
    Type r = *index;
    r.dim[r.rank++] = table->dim[1];
    out[0] = type_get(t->m, table->dtype, r.rank, r.dim);
    return NULL;
}

const char *type_scatter_add(const TypeIn *t, const Type **out)
{
    const Type *row;
    NEED(type_embed(t, &row));
    if (row != t->in[2]) REFUSE("rows must be %s, not %s", TEXT(row), TEXT(t->in[2]));
    out[0] = t->in[0];
    return NULL;
}

static bool broadcasts_to(const Type *a, int rank, const int64_t *dim)
{
    bool fits = a->rank <= rank;
    for (int i = 0; fits && i < a->rank; i++)
        fits = a->dim[i] == 1 || a->dim[i] == dim[rank - a->rank + i];
    return fits;
}

/* q, k, v and, from operand `from`, the optional mask, bias and key.  *bias: the bias's type or
 * NULL. */
static const char *check_attention(const TypeIn *t, uint32_t from, const Type **bias)
{
    const Type *q = t->in[0], *k = t->in[1], *v = t->in[2];
    bool fits = is_float(q) && q->rank == 4 && k->rank == 4 && v->rank == 4 &&
                q->dtype == k->dtype && q->dtype == v->dtype;
    for (int i = 0; fits && i < 2; i++) fits = q->dim[i] == k->dim[i] && q->dim[i] == v->dim[i];
    fits = fits && q->dim[3] == k->dim[3] && k->dim[2] == v->dim[2];
    if (!fits)
        REFUSE("takes q [B, H, T, D], k [B, H, S, D] and v [B, H, S, E], not %s, %s and %s",
               TEXT(q), TEXT(k), TEXT(v));
    int64_t scores[4] = {q->dim[0], q->dim[1], q->dim[2], k->dim[2]};
    *bias = NULL;
    uint32_t i = from;
    if (i < t->n_in && t->in[i]->dtype == DT_I1 && broadcasts_to(t->in[i], 4, scores)) i++;
    if (i < t->n_in && is_float(t->in[i]) && broadcasts_to(t->in[i], 4, scores)) *bias = t->in[i++];
    double p = attr_float(t->attrs, AT_P, 0);
    if (!(p >= 0 && p < 1)) REFUSE("p = %g is outside of [0, 1)", p);
    if (p > 0) {
        if (i >= t->n_in) REFUSE("p = %g needs a key i32[4]", p);
        NEED(need_key(t, i));
        if (!attr_str(t->attrs, AT_STREAM)) REFUSE("p = %g needs attribute 'stream'", p);
        if (attr_int(t->attrs, AT_BATCH, 0) != q->dim[0])
            REFUSE("attribute 'batch' must be %lld", (long long)q->dim[0]);
        i++;
    }
    if (i != t->n_in)
        REFUSE("operand %u, %s, is neither a mask (i1), a bias (float) nor a key, or does not "
               "broadcast to [B, H, T, S]",
               i, TEXT(t->in[i]));
    return NULL;
}

const char *type_sdpa(const TypeIn *t, const Type **out)
{
    const Type *bias;
    NEED(check_attention(t, 3, &bias));
    Type r = *t->in[0];
    r.dim[3] = t->in[2]->dim[3];
    out[0] = type_get(t->m, r.dtype, 4, r.dim);
    out[1] = type_get(t->m, DT_F32, 3, r.dim);
    return NULL;
}

static const char *check_attention_grad(const TypeIn *t, const Type **bias)
{
    NEED(check_attention(t, 6, bias));
    TypeIn fwd = {t->m, t->in, 3, {0}};
    const Type *want[2];
    NEED(type_sdpa(&fwd, want));
    if (t->in[3] != want[0] || t->in[4] != want[1] || t->in[5] != want[0])
        REFUSE("out, lse and d out must be %s, %s and %s", TEXT(want[0]), TEXT(want[1]),
               TEXT(want[0]));
    return NULL;
}

const char *type_sdpa_grad(const TypeIn *t, const Type **out)
{
    const Type *bias;
    NEED(check_attention_grad(t, &bias));
    for (int i = 0; i < 3; i++) out[i] = t->in[i];
    return NULL;
}

const char *type_sdpa_grad_bias(const TypeIn *t, const Type **out)
{
    NEED(check_attention_grad(t, out));
    return out[0] ? NULL : "needs a bias";
}

/* ---- the update ---- */

const char *type_all_finite(const TypeIn *t, const Type **out)
{
    for (uint32_t i = 0; i < t->n_in; i++)
        if (!is_float(t->in[i])) REFUSE("takes floating-point operands, not %s", TEXT(t->in[i]));
    out[0] = type_get(t->m, DT_I1, 0, NULL);
    return NULL;
}

const char *type_sum_squares(const TypeIn *t, const Type **out)
{
    NEED(type_all_finite(t, out));
    out[0] = type_get(t->m, DT_F64, 0, NULL);
    return NULL;
}

const char *type_adam_update(const TypeIn *t, const Type **out)
{
    static const char *const names[] = {"gscale", "lr", "c1", "c2"};
    for (uint32_t i = 0; i < 4; i++) {
        if (!type_same_shape(t->in[i], t->in[0]))
            REFUSE("shapes of p, g, m, v differ: %s and %s", TEXT(t->in[0]), TEXT(t->in[i]));
        NEED(need_scalar(t, 4 + i, DT_F32, names[i]));
    }
    NEED(need_scalar(t, 8, DT_I1, "finite"));
    const char *kind = attr_str(t->attrs, AT_KIND);
    if (kind && strcmp(kind, "adam") != 0 && strcmp(kind, "adamw") != 0)
        REFUSE("kind must be adam or adamw, not '%s'", kind);
    out[0] = t->in[0];
    out[1] = t->in[2];
    out[2] = t->in[3];
    return NULL;
}

const char *type_sgd_update(const TypeIn *t, const Type **out)
{
    for (uint32_t i = 1; i < 3; i++)
        if (!type_same_shape(t->in[i], t->in[0]))
            REFUSE("shapes of p, g, m differ: %s and %s", TEXT(t->in[0]), TEXT(t->in[i]));
    NEED(need_scalar(t, 3, DT_F32, "gscale"));
    NEED(need_scalar(t, 4, DT_F32, "lr"));
    NEED(need_scalar(t, 5, DT_I1, "finite"));
    out[0] = t->in[0];
    out[1] = t->in[2];
    return NULL;
}

const char *type_descent_update(const TypeIn *t, const Type **out)
{
    if (!type_same_shape(t->in[1], t->in[0]))
        REFUSE("shapes of p and g differ: %s and %s", TEXT(t->in[0]), TEXT(t->in[1]));
    NEED(need_scalar(t, 2, DT_F32, "gscale"));
    NEED(need_scalar(t, 3, DT_F32, "lr"));
    NEED(need_scalar(t, 4, DT_I1, "finite"));
    out[0] = t->in[0];
    return NULL;
}

/* ---- structure ---- */

const char *type_none(const TypeIn *t, const Type **out)
{
    (void)t;
    (void)out;
    return NULL;
}

const char *type_return(const TypeIn *t, const Type **out)
{
    return type_none(t, out);
}

const char *type_fused(const TypeIn *t, const Type **out)
{
    (void)t;
    (void)out;
    return "takes its types from its body: use build_fused";
}

/* ---- collectives ---- */

/* The axis of the mesh that attribute `mesh` names. */
static const char *need_axis(const TypeIn *t, MeshAxis *axis)
{
    const char *name = attr_str(t->attrs, AT_MESH);
    *axis = name ? mesh_axis_from_name(name, strlen(name)) : MESH_NONE;
    if (!name) REFUSE("needs attribute 'mesh': the axis that it works over");
    if (*axis == MESH_NONE) REFUSE("'%s' is not an axis of the mesh", name);
    if (t->m->mesh[*axis] < 2) REFUSE("the module's mesh has no axis '%s'", name);
    return NULL;
}

/* Attribute `axis`: a dimension of the operand. */
static const char *need_dim(const TypeIn *t, int *dim)
{
    *dim = (int)attr_int(t->attrs, AT_AXIS, 0);
    if (*dim < 0 || *dim >= t->in[0]->rank)
        REFUSE("axis %d is outside of %s", *dim, TEXT(t->in[0]));
    return NULL;
}

static const char *need_partial(const TypeIn *t, MeshAxis axis)
{
    if (t->in[0]->partial >> axis & 1) return NULL;
    REFUSE("%s is no partial sum over axis '%s'", TEXT(t->in[0]), mesh_axis_name(axis));
}

static const char *need_no_axis(const TypeIn *t, MeshAxis axis)
{
    for (int i = 0; i < t->in[0]->rank; i++)
        if (t->in[0]->axis[i] == axis)
            REFUSE("%s is sharded over axis '%s' already", TEXT(t->in[0]), mesh_axis_name(axis));
    return NULL;
}

/* Dimension `dim` of the operand, divided among the axis's ranks. */
static const char *divide(const TypeIn *t, MeshAxis axis, int dim, Type *part)
{
    int64_t n = t->m->mesh[axis];
    NEED(need_no_axis(t, axis));
    if (part->axis[dim]) REFUSE("dimension %d of %s is sharded already", dim, TEXT(t->in[0]));
    if (part->dim[dim] % n)
        REFUSE("dimension %d of %s does not divide by %lld ranks", dim, TEXT(t->in[0]),
               (long long)n);
    part->dim[dim] /= n;
    part->axis[dim] = (uint8_t)axis;
    return NULL;
}

static const Type *placed_part(Module *m, const Type *t)
{
    const Type *plain = type_get(m, t->dtype, t->rank, t->dim);
    return type_placed(m, plain, t->axis, t->partial);
}

const char *type_all_gather(const TypeIn *t, const Type **out)
{
    MeshAxis axis;
    int dim;
    NEED(need_axis(t, &axis));
    NEED(need_dim(t, &dim));
    Type whole = *t->in[0];
    if (whole.axis[dim] != axis)
        REFUSE("dimension %d of %s is not sharded over axis '%s'", dim, TEXT(t->in[0]),
               mesh_axis_name(axis));
    whole.axis[dim] = MESH_NONE;
    whole.dim[dim] *= t->m->mesh[axis];
    out[0] = placed_part(t->m, &whole);
    return NULL;
}

const char *type_reduce_scatter(const TypeIn *t, const Type **out)
{
    MeshAxis axis;
    int dim;
    Type part = *t->in[0];
    NEED(need_axis(t, &axis));
    NEED(need_dim(t, &dim));
    NEED(need_partial(t, axis));
    NEED(divide(t, axis, dim, &part));
    part.partial &= (uint8_t)~(1u << axis);
    out[0] = placed_part(t->m, &part);
    return NULL;
}

const char *type_all_reduce(const TypeIn *t, const Type **out)
{
    MeshAxis axis;
    NEED(need_axis(t, &axis));
    NEED(need_partial(t, axis));
    out[0] =
        type_placed(t->m, t->in[0], t->in[0]->axis, t->in[0]->partial & (uint8_t)~(1u << axis));
    return NULL;
}

const char *type_wait(const TypeIn *t, const Type **out)
{
    out[0] = t->in[0];
    return NULL;
}

const char *type_shard(const TypeIn *t, const Type **out)
{
    MeshAxis axis;
    int dim;
    Type part = *t->in[0];
    NEED(need_axis(t, &axis));
    NEED(need_dim(t, &dim));
    if (part.partial >> axis & 1) REFUSE("%s is a partial sum: reduce_scatter it", TEXT(t->in[0]));
    NEED(divide(t, axis, dim, &part));
    out[0] = placed_part(t->m, &part);
    return NULL;
}
