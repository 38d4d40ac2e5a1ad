/* canon_reduce.c -- rules over reductions, matmul, lookup, drop and storage (canon_rules.h). */
#include "passes/canon_rules.h"

static const ValueId none = {0};

static const Attr *dims_of(const Op *o)
{
    return attrs_find(o->attrs, AT_DIMS);
}

/* ---- reductions ---- */

ValueId rule_reduce_max_of_const(Rewrite *rw)
{
    return build_splat(&rw->b, attr_float(rewrite_op(rw, 1)->attrs, AT_VALUE, 0), rewrite_type(rw));
}

/* Every reduced dimension has one element. */
ValueId rule_reduce_unit(Rewrite *rw)
{
    const Type *t = rewrite_type(rw);
    if (rw->keeps_units || type_elems(value_type(rw->b.f, rw->var[0])) != type_elems(t))
        return none;
    return rule_reshape_to(rw, t);
}

ValueId rule_reduce_of_reduce(Rewrite *rw)
{
    const Attr *outer = dims_of(rewrite_op(rw, 0)), *inner = dims_of(rewrite_op(rw, 1));
    int64_t dims[ZM_MAX_RANK];
    uint32_t n = 0, at_inner = 0, at_outer = 0;
    int64_t middle = 0; /* dimension of the inner result */
    for (int64_t i = 0; i < value_type(rw->b.f, rw->var[0])->rank; i++) {
        if (at_inner < inner->as.list.n && inner->as.list.at[at_inner] == i) {
            at_inner++;
            dims[n++] = i;
            continue;
        }
        if (at_outer < outer->as.list.n && outer->as.list.at[at_outer] == middle) {
            at_outer++;
            dims[n++] = i;
        }
        middle++;
    }
    return build_reduce(&rw->b, rewrite_op(rw, 0)->code, rw->var[0], dims, n);
}

/* The reduced dimensions that x, broadcast to `wide`, has itself; *repeats: how often the others
 * repeat an element. */
static uint32_t own_dims(const Op *reduce, const Type *x, const Type *wide, int64_t *dims,
                         int64_t *repeats)
{
    uint32_t n = 0;
    *repeats = 1;
    for (uint32_t i = 0; i < dims_of(reduce)->as.list.n; i++) {
        int64_t d = dims_of(reduce)->as.list.at[i], k = d - (wide->rank - x->rank);
        if (k >= 0) dims[n++] = k;
        if (k < 0 || x->dim[k] != wide->dim[d]) *repeats *= wide->dim[d];
    }
    return n;
}

/* Is a product by `n` what n additions give, but for rounding? */
static bool holds_factor(DType dt, int64_t n)
{
    if (dtype_class(dt) == DTC_INT) return n <= INT32_MAX;
    return dtype_round(dt, (double)n) == (double)n;
}

/* reduce(broadcast(x)) = broadcast(reduce(x)), times the number of repeats when summing. */
static ValueId reduce_of_broadcast(Rewrite *rw)
{
    Op reduce = *rewrite_op(rw, 0);
    const Type *x = value_type(rw->b.f, rw->var[0]),
               *wide = value_type(rw->b.f, rewrite_op(rw, 1)->out[0]);
    int64_t dims[ZM_MAX_RANK], repeats, elems = type_elems(x);
    uint32_t n = own_dims(&reduce, x, wide, dims, &repeats);
    if (reduce.code == OP_REDUCE_SUM && !holds_factor(x->dtype, repeats)) return none;
    for (uint32_t i = 0; i < n; i++) elems /= x->dim[dims[i]];
    if (2 * elems >= type_elems(wide)) return none;
    ValueId y = build_reduce(&rw->b, reduce.code, rw->var[0], dims, n);
    if (reduce.code == OP_REDUCE_SUM && repeats > 1) {
        const Type *t = value_type(rw->b.f, y);
        ValueId k = build_splat(&rw->b, (double)repeats, type_placed(rw->b.f->m, t, t->axis, 0));
        y = build_binary(&rw->b, OP_MUL, y, k);
    }
    return build_broadcast(&rw->b, y, rewrite_type(rw));
}

ValueId rule_reduce_max_of_broadcast(Rewrite *rw)
{
    return reduce_of_broadcast(rw);
}

ValueId rule_reduce_sum_of_broadcast(Rewrite *rw)
{
    return reduce_of_broadcast(rw);
}

/* ---- matmul, scatter, drop ---- */

static bool swaps_last_two(const Op *transpose)
{
    const Attr *perm = attrs_find(transpose->attrs, AT_PERM);
    int64_t rank = perm->as.list.n;
    for (int64_t i = 0; i < rank; i++) {
        int64_t want = i < rank - 2 ? i : 2 * rank - 3 - i;
        if (perm->as.list.at[i] != want) return false;
    }
    return rank >= 2;
}

/* A transposed operand becomes a flag. */
ValueId rule_matmul_of_transpose(Rewrite *rw)
{
    const Op *o = rewrite_op(rw, 0), *transpose = rewrite_op(rw, 1);
    if (!swaps_last_two(transpose)) return none;
    bool is_left = o->in[0].i == transpose->out[0].i;
    bool ta = attr_int(o->attrs, AT_TRANS_A, 0) != 0, tb = attr_int(o->attrs, AT_TRANS_B, 0) != 0;
    const Type *a = value_type(rw->b.f, o->in[0]), *b = value_type(rw->b.f, o->in[1]);
    if (is_left && !ta && a->rank > 2 && b->rank == 2)
        return none; /* rows of A's matrices must be rows */
    return build_matmul(&rw->b, is_left ? transpose->in[0] : o->in[0],
                        is_left ? o->in[1] : transpose->in[0], ta != is_left, is_left ? tb : !tb);
}

/* x + scatter_add(zeros, i, rows) = scatter_add(x, i, rows) */
ValueId rule_scatter_into_sum(Rewrite *rw)
{
    return build1(&rw->b, OP_SCATTER_ADD, rw->var, 3, NULL);
}

ValueId rule_drop_nothing(Rewrite *rw)
{
    return attr_float(rewrite_op(rw, 0)->attrs, AT_P, 0) == 0 ? rw->var[0] : none;
}

/* ---- pack ---- */

ValueId rule_pack_of_one(Rewrite *rw)
{
    const Op *o = rewrite_op(rw, 0);
    const Type *t = rewrite_type(rw);
    if (o->n_in != 1 || type_elems(value_type(rw->b.f, o->in[0])) != t->dim[0]) return none;
    return build_reshape(&rw->b, o->in[0], 1, t->dim);
}

/* The bucket whose view operand i of `pack` reads in its own place; none if it does not. */
static VarId bucket_in_place(const Rewrite *rw, const Op *pack, uint32_t i)
{
    const Module *m = rw->b.f->m;
    const Op *read = rewrite_def(rw, pack->in[i]);
    if (!read || read->code != OP_READ) return (VarId){0};
    const Var *v = var_cget(m, var_find(m, attr_str(read->attrs, AT_VAR)));
    if (!var_ok(v->in) || v->in_offset != attrs_find(pack->attrs, AT_STARTS)->as.list.at[i])
        return (VarId){0};
    return var_cget(m, v->in)->type == rewrite_type(rw) ? v->in : (VarId){0};
}

/* Every element of the bucket that belongs to a view is one of pack's. */
static bool packs_all_views(const Module *m, const Func *f, const Op *pack, VarId bucket)
{
    int64_t n = 0;
    for (uint32_t i = 0; i < pack->n_in; i++) n += type_elems(value_type(f, pack->in[i]));
    for (uint32_t v = 1; v < m->vars.n; v++)
        if (m->vars.at[v].in.i == bucket.i) n -= type_elems(m->vars.at[v].type);
    return n == 0;
}

/* pack of all views of a bucket, each in its place = the bucket; what no view covers is zero in
 * both (docs/training.md, Flat buckets).  The readings are still good at the pack (verify_effects),
 * so the bucket holds them there. */
ValueId rule_pack_of_views(Rewrite *rw)
{
    const Op *pack = rewrite_op(rw, 0);
    const Module *m = rw->b.f->m;
    VarId bucket = bucket_in_place(rw, pack, 0);
    if (!var_ok(bucket) || !var_cget(m, bucket)->is_bucket) return none;
    for (uint32_t i = 1; i < pack->n_in; i++)
        if (bucket_in_place(rw, pack, i).i != bucket.i) return none;
    return packs_all_views(m, rw->b.f, pack, bucket) ? build_read(&rw->b, bucket) : none;
}
