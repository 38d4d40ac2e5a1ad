/* random_rules.h -- random_ir.h's generators: make_<rule> adds one op whose type rule is <rule>. */
#ifndef ZM_TESTS_RANDOM_RULES_H
#define ZM_TESTS_RANDOM_RULES_H

#include "tests/property/random_values.h"

/* ---- a generator for each rule of column TYPE ---- */

static void make_alike(RandomIr *g, OpCode code, DType dt)
{
    ValueId in[4];
    in[0] = any_value(g, dt, 0, 4);
    for (int i = 1; i < op_info(code)->min_in; i++) in[i] = value_of(g, value_type(g->f, in[0]));
    emit(g, code, in, (uint32_t)op_info(code)->min_in, NULL);
}

static void make_same(RandomIr *g, OpCode code)
{
    make_alike(g, code, draw(g, 4) ? draw_float(g) : DT_I32);
}

static void make_real(RandomIr *g, OpCode code)
{
    make_alike(g, code, draw_float(g));
}

static void make_test(RandomIr *g, OpCode code)
{
    make_alike(g, code, draw_float(g));
}

static void make_logic(RandomIr *g, OpCode code)
{
    make_alike(g, code, DT_I1);
}

static void make_compare(RandomIr *g, OpCode code)
{
    make_alike(g, code, draw_dtype(g));
}

static void make_select(RandomIr *g, OpCode code)
{
    ValueId in[3] = {any_value(g, DT_I1, 0, 4)};
    const Type *t = type_with_dtype(g->m, value_type(g->f, in[0]), draw_dtype(g));
    in[1] = value_of(g, t);
    in[2] = value_of(g, t);
    emit(g, code, in, 3, NULL);
}

static void make_cast(RandomIr *g, OpCode code)
{
    AttrList l = {0};
    attr_add_int(&l, AT_DTYPE, draw_dtype(g));
    emit_unary(g, code, any_value(g, draw_dtype(g), 0, 4), &l);
}

static void make_shaped(RandomIr *g, OpCode code)
{
    AttrList l = {0};
    const Type *t = draw_type(g, draw_dtype(g), code == OP_IOTA ? 1 : 0, 4);
    attr_add_list(&l, AT_SHAPE, t->dim, (uint32_t)t->rank);
    attr_add_int(&l, AT_DTYPE, t->dtype);
    uint64_t allowed = op_info(code)->attrs;
    if (allowed >> AT_AXIS & 1) attr_add_int(&l, AT_AXIS, draw(g, (uint32_t)t->rank));
    bool is_float = dtype_class(t->dtype) == DTC_FLOAT;
    if (allowed >> AT_VALUE & 1)
        attr_add_float(&l, AT_VALUE, is_float ? draw_number(g) : draw(g, 2));
    emit(g, code, NULL, 0, &l);
}

static void add_random(RandomIr *g, AttrList *l, int64_t batch)
{
    attr_add_str(l, AT_STREAM, draw_name(g));
    attr_add_int(l, AT_BATCH, batch);
}

static void make_random(RandomIr *g, OpCode code)
{
    AttrList l = {0};
    const Type *t = draw_type(g, DT_F32, 1, 4);
    attr_add_list(&l, AT_SHAPE, t->dim, (uint32_t)t->rank);
    add_random(g, &l, t->dim[0]);
    emit_unary(g, code, value_of(g, OF(DT_I32, 4)), &l);
}

static const char *draw_var(RandomIr *g)
{
    return var_cget(g->m, (VarId){1 + draw(g, g->m->vars.n - 1)})->name;
}

static void make_read(RandomIr *g, OpCode code)
{
    AttrList l = {0};
    attr_add_str(&l, AT_VAR, draw_var(g));
    emit(g, code, NULL, 0, &l);
}

/* What was read before, of any variable, is not used any more. */
static void make_write(RandomIr *g, OpCode code)
{
    AttrList l = {0};
    const char *name = draw_var(g);
    attr_add_str(&l, AT_VAR, name);
    emit_unary(g, code, value_of(g, var_cget(g->m, var_find(g->m, name))->type), &l);
    for (uint32_t v = 1; v < g->is_read.n; v++) g->is_stale.at[v] |= g->is_read.at[v];
}

static void make_broadcast(RandomIr *g, OpCode code)
{
    const Type *from = draw_type(g, draw_dtype(g), 0, 3);
    Type to = {.rank = from->rank + (int)draw(g, 2)};
    draw_dims(g, to.rank, to.dim);
    for (int i = 0; i < from->rank; i++) {
        int64_t *d = &to.dim[to.rank - from->rank + i];
        if (from->dim[i] != 1) *d = from->dim[i];
    }
    AttrList l = {0};
    attr_add_list(&l, AT_SHAPE, to.dim, (uint32_t)to.rank);
    emit_unary(g, code, value_of(g, from), &l);
}

static void make_concat(RandomIr *g, OpCode code)
{
    ValueId in[3] = {any_value(g, draw_dtype(g), 1, 3)};
    Type t = *value_type(g->f, in[0]);
    uint32_t n = 1 + draw(g, 3), axis = draw(g, (uint32_t)t.rank);
    for (uint32_t i = 1; i < n; i++) {
        t.dim[axis] = 1 + draw(g, 3);
        in[i] = value_of(g, of_dims(g, t.dtype, t.rank, t.dim));
    }
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, axis);
    emit(g, code, in, n, &l);
}

static void make_after(RandomIr *g, OpCode code)
{
    ValueId in[] = {any_value(g, draw_dtype(g), 0, 4), any_value(g, draw_dtype(g), 0, 4)};
    emit(g, code, in, 2, NULL);
}

static void make_pack(RandomIr *g, OpCode code)
{
    ValueId in[3];
    int64_t starts[3], end = 0;
    uint32_t n = 1 + draw(g, 3);
    DType dt = draw_dtype(g);
    for (uint32_t i = 0; i < n; i++) {
        in[i] = any_value(g, dt, 0, 3);
        starts[i] = end + draw(g, 3);
        end = starts[i] + type_elems(value_type(g->f, in[i]));
    }
    end += draw(g, 3);
    AttrList l = {0};
    attr_add_list(&l, AT_STARTS, starts, n);
    attr_add_list(&l, AT_SHAPE, &end, 1);
    emit(g, code, in, n, &l);
}

static void make_pad(RandomIr *g, OpCode code)
{
    ValueId v = any_value(g, draw_dtype(g), 0, 3);
    int64_t low[4], high[4];
    uint32_t rank = (uint32_t)value_type(g->f, v)->rank;
    for (uint32_t i = 0; i < rank; i++) low[i] = draw(g, 3), high[i] = draw(g, 2);
    AttrList l = {0};
    attr_add_list(&l, AT_LOW, low, rank);
    attr_add_list(&l, AT_HIGH, high, rank);
    emit_unary(g, code, v, &l);
}

static void make_reshape(RandomIr *g, OpCode code)
{
    ValueId v = any_value(g, draw_dtype(g), 0, 4);
    int64_t dim[3] = {1, type_elems(value_type(g->f, v)), 1};
    uint32_t from = draw(g, 2), n = 1 + draw(g, 2);
    AttrList l = {0};
    attr_add_list(&l, AT_SHAPE, from ? dim + 1 : dim, from ? n : 2);
    emit_unary(g, code, v, &l);
}

static void make_slice(RandomIr *g, OpCode code)
{
    ValueId v = any_value(g, draw_dtype(g), 0, 4);
    const Type *t = value_type(g->f, v);
    int64_t starts[ZM_MAX_RANK], sizes[ZM_MAX_RANK];
    for (int i = 0; i < t->rank; i++) {
        starts[i] = draw(g, (uint32_t)t->dim[i]);
        sizes[i] = 1 + draw(g, (uint32_t)(t->dim[i] - starts[i]));
    }
    AttrList l = {0};
    attr_add_list(&l, AT_STARTS, starts, (uint32_t)t->rank);
    attr_add_list(&l, AT_SIZES, sizes, (uint32_t)t->rank);
    emit_unary(g, code, v, &l);
}

static void make_transpose(RandomIr *g, OpCode code)
{
    ValueId v = any_value(g, draw_dtype(g), 0, 4);
    uint32_t rank = (uint32_t)value_type(g->f, v)->rank;
    int64_t perm[ZM_MAX_RANK];
    for (uint32_t i = 0; i < rank; i++) {
        uint32_t k = draw(g, i + 1);
        perm[i] = perm[k];
        perm[k] = i;
    }
    AttrList l = {0};
    attr_add_list(&l, AT_PERM, perm, rank);
    emit_unary(g, code, v, &l);
}

static void reduce_of(RandomIr *g, OpCode code, DType dt)
{
    ValueId v = any_value(g, dt, 1, 4);
    uint32_t rank = (uint32_t)value_type(g->f, v)->rank, n = 0;
    int64_t dims[ZM_MAX_RANK];
    for (uint32_t i = 0; i < rank; i++)
        if (coin(g) || (i + 1 == rank && !n)) dims[n++] = i;
    AttrList l = {0};
    attr_add_list(&l, AT_DIMS, dims, n);
    emit_unary(g, code, v, &l);
}

static void make_reduce(RandomIr *g, OpCode code)
{
    reduce_of(g, code, draw_dtype(g));
}

static void make_reduce_sum(RandomIr *g, OpCode code)
{
    reduce_of(g, code, draw_float(g));
}

static void make_axis(RandomIr *g, OpCode code)
{
    ValueId v = any_value(g, draw_float(g), 1, 4);
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, draw(g, (uint32_t)value_type(g->f, v)->rank));
    emit_unary(g, code, v, &l);
}

static void make_normalize(RandomIr *g, OpCode code)
{
    AttrList l = {0};
    attr_add_float(&l, AT_EPS, coin(g) ? 1e-5 : 0.25);
    emit_unary(g, code, any_value(g, draw_float(g), 1, 4), &l);
}

static void make_rotary(RandomIr *g, OpCode code)
{
    AttrList l = {0};
    attr_add_float(&l, AT_THETA, 10000);
    if (coin(g)) attr_add_int(&l, AT_INVERSE, coin(g));
    emit_unary(g, code, value_of(g, OF(draw_float(g), 2, 3, 4)), &l);
}

static void make_drop(RandomIr *g, OpCode code)
{
    ValueId in[2] = {any_value(g, draw_float(g), 1, 4), value_of(g, OF(DT_I32, 4))};
    AttrList l = {0};
    attr_add_float(&l, AT_P, 0.25);
    add_random(g, &l, value_type(g->f, in[0])->dim[0]);
    emit(g, code, in, 2, &l);
}

/* Integers of type t in [0, bound): what t holds anyway, clamped. */
static ValueId indices(RandomIr *g, const Type *t, int64_t bound)
{
    g->b.loc = draw_loc(g);
    ValueId v = value_of(g, t);
    v = build_binary(&g->b, OP_MAX, v, build_splat(&g->b, 0, t));
    v = build_binary(&g->b, OP_MIN, v, build_splat(&g->b, (double)(bound - 1), t));
    grow_flags(g);
    return v;
}

static void make_cross_entropy(RandomIr *g, OpCode code)
{
    AttrList l = {0};
    if (coin(g)) attr_add_int(&l, AT_IGNORE, coin(g) ? 1 : -100);
    ValueId in[2] = {value_of(g, OF(draw_float(g), 2, 3, 5)), indices(g, OF(DT_I32, 2, 3), 5)};
    emit(g, code, in, 2, &l);
}

static void make_cross_entropy_grad(RandomIr *g, OpCode code)
{
    AttrList l = {0};
    if (coin(g)) attr_add_int(&l, AT_IGNORE, coin(g) ? 1 : -100);
    ValueId x = value_of(g, OF(draw_float(g), 2, 3, 5)), y = indices(g, OF(DT_I32, 2, 3), 5);
    ValueId in[3] = {x, y, value_of(g, OF(DT_F32, 2, 3))};
    emit(g, code, in, 3, &l);
}

static void make_matmul(RandomIr *g, OpCode code)
{
    DType dt = draw_float(g);
    bool ta = coin(g), tb = coin(g), is_flat = coin(g);
    if (is_flat) ta = false;
    const Type *a = ta ? OF(dt, 2, 5, 3) : OF(dt, 2, 3, 5);
    const Type *b =
        is_flat ? (tb ? OF(dt, 2, 5) : OF(dt, 5, 2)) : (tb ? OF(dt, 2, 2, 5) : OF(dt, 2, 5, 2));
    AttrList l = {0};
    if (ta) attr_add_int(&l, AT_TRANS_A, 1);
    if (tb) attr_add_int(&l, AT_TRANS_B, 1);
    ValueId in[2] = {value_of(g, a), value_of(g, b)};
    emit(g, code, in, 2, &l);
}

static void make_embed(RandomIr *g, OpCode code)
{
    ValueId in[2] = {value_of(g, OF(draw_float(g), 5, 3)), indices(g, OF(DT_I32, 2, 2), 5)};
    emit(g, code, in, 2, NULL);
}

static void make_scatter_add(RandomIr *g, OpCode code)
{
    DType dt = draw_float(g);
    ValueId in[3] = {value_of(g, OF(dt, 5, 3)), indices(g, OF(DT_I32, 2, 2), 5),
                     value_of(g, OF(dt, 2, 2, 3))};
    emit(g, code, in, 3, NULL);
}

/* Optional operands and attributes of attention on B, H, T, S, D, E = 2, 2, 3, 5, 4, 3. */
static uint32_t add_attention(RandomIr *g, DType dt, bool needs_bias, ValueId *in, uint32_t n,
                              AttrList *l)
{
    if (coin(g)) attr_add_int(l, AT_CAUSAL, 1);
    attr_add_float(l, AT_SCALE, 0.5);
    if (coin(g)) in[n++] = value_of(g, OF(DT_I1, 2, 1, 1, 5));
    if (needs_bias || coin(g))
        in[n++] = value_of(g, coin(g) ? OF(dt, 2, 3, 5) : OF(dt, 2, 2, 3, 5));
    if (coin(g)) {
        in[n++] = value_of(g, OF(DT_I32, 4));
        attr_add_float(l, AT_P, 0.125);
        add_random(g, l, 2);
    }
    return n;
}

static uint32_t add_qkv(RandomIr *g, DType dt, ValueId *in)
{
    in[0] = value_of(g, OF(dt, 2, 2, 3, 4));
    in[1] = value_of(g, OF(dt, 2, 2, 5, 4));
    in[2] = value_of(g, OF(dt, 2, 2, 5, 3));
    return 3;
}

static void make_sdpa(RandomIr *g, OpCode code)
{
    ValueId in[6];
    AttrList l = {0};
    DType dt = draw_float(g);
    uint32_t n = add_qkv(g, dt, in);
    n = add_attention(g, dt, false, in, n, &l);
    emit(g, code, in, n, &l);
}

static void make_attention_grad(RandomIr *g, OpCode code, bool needs_bias)
{
    ValueId in[9];
    AttrList l = {0};
    DType dt = draw_float(g);
    uint32_t n = add_qkv(g, dt, in);
    in[n++] = value_of(g, OF(dt, 2, 2, 3, 3));
    in[n++] = value_of(g, OF(DT_F32, 2, 2, 3));
    in[n++] = value_of(g, OF(dt, 2, 2, 3, 3));
    n = add_attention(g, dt, needs_bias, in, n, &l);
    emit(g, code, in, n, &l);
}

static void make_sdpa_grad(RandomIr *g, OpCode code)
{
    make_attention_grad(g, code, false);
}

static void make_sdpa_grad_bias(RandomIr *g, OpCode code)
{
    make_attention_grad(g, code, true);
}

static void make_all_finite(RandomIr *g, OpCode code)
{
    ValueId in[3];
    uint32_t n = 1 + draw(g, 3);
    for (uint32_t i = 0; i < n; i++) in[i] = any_value(g, draw_float(g), 0, 4);
    emit(g, code, in, n, NULL);
}

static void make_sum_squares(RandomIr *g, OpCode code)
{
    make_all_finite(g, code);
}

static void make_adam_update(RandomIr *g, OpCode code)
{
    ValueId in[9];
    const Type *t = draw_type(g, DT_F32, 0, 2);
    for (int i = 0; i < 4; i++) in[i] = value_of(g, t);
    for (int i = 4; i < 8; i++) in[i] = value_of(g, type_get(g->m, DT_F32, 0, NULL));
    in[8] = value_of(g, type_get(g->m, DT_I1, 0, NULL));
    AttrList l = {0};
    attr_add_float(&l, AT_BETA1, 0.9);
    attr_add_float(&l, AT_BETA2, 0.99);
    attr_add_float(&l, AT_EPS, 1e-8);
    attr_add_float(&l, AT_DECAY, 0.1);
    attr_add_str(&l, AT_KIND, coin(g) ? "adam" : "adamw");
    emit(g, code, in, 9, &l);
}

static void make_sgd_update(RandomIr *g, OpCode code)
{
    ValueId in[6];
    const Type *t = draw_type(g, DT_F32, 0, 2);
    for (int i = 0; i < 3; i++) in[i] = value_of(g, t);
    for (int i = 3; i < 5; i++) in[i] = value_of(g, type_get(g->m, DT_F32, 0, NULL));
    in[5] = value_of(g, type_get(g->m, DT_I1, 0, NULL));
    AttrList l = {0};
    attr_add_float(&l, AT_DECAY, 0.1);
    if (code == OP_SGD_UPDATE)
        attr_add_float(&l, AT_MOMENTUM, 0.5);
    else
        attr_add_float(&l, AT_BETA1, 0.9), attr_add_float(&l, AT_BETA2, 0.99);
    emit(g, code, in, 6, &l);
}

static void make_descent_update(RandomIr *g, OpCode code)
{
    const Type *t = draw_type(g, DT_F32, 0, 2), *scalar = type_get(g->m, DT_F32, 0, NULL);
    ValueId p = value_of(g, t), grad = value_of(g, t), gscale = value_of(g, scalar);
    ValueId lr = value_of(g, scalar), finite = value_of(g, type_get(g->m, DT_I1, 0, NULL));
    ValueId in[] = {p, grad, gscale, lr, finite};
    AttrList l = {0};
    attr_add_float(&l, AT_DECAY, 0.1);
    emit(g, code, in, 5, &l);
}

/* Collectives need a mesh, which a module of one rank does not have. */
static void make_all_gather(RandomIr *g, OpCode code)
{
    (void)g;
    (void)code;
}

static void make_reduce_scatter(RandomIr *g, OpCode code)
{
    make_all_gather(g, code);
}

static void make_all_reduce(RandomIr *g, OpCode code)
{
    make_all_gather(g, code);
}

static void make_shard(RandomIr *g, OpCode code)
{
    make_all_gather(g, code);
}

static void make_wait(RandomIr *g, OpCode code)
{
    make_all_gather(g, code);
}

static void make_none(RandomIr *g, OpCode code)
{
    ValueId in[2] = {any_value(g, DT_F32, 0, 2), value_of(g, type_get(g->m, DT_F32, 0, NULL))};
    AttrList l = {0};
    attr_add_str(&l, AT_NAMES, "grad.x");
    emit(g, code, in, 2, &l);
}

#endif
