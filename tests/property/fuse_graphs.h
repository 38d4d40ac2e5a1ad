/* fuse_graphs.h -- random graphs of primitive ops over odd shapes, with variables: what fusion and
 * the back ends are tried on. */
#ifndef ZM_TESTS_FUSE_GRAPHS_H
#define ZM_TESTS_FUSE_GRAPHS_H

#include "tests/property/fuse_check.h"

enum { MAX_VALUES = 64, MAX_ELEMS = 240, N_RETURNED = 3 };

/* dtype of the floats.  is_smooth: no op jumps and values stay small, so that rounding errors do
 * too. */
typedef struct GraphKind {
    DType dtype;
    bool is_smooth;
} GraphKind;

typedef struct Maker {
    GraphKind kind;
    Builder b;
    Module *m;
    ValueId value[MAX_VALUES];
    uint32_t n;
} Maker;

static const Type *type_at(const Maker *g, ValueId v)
{
    return value_type(g->b.f, v);
}

static ValueId any(Maker *g)
{
    return g->value[draw(g->n)];
}

static void keep(Maker *g, ValueId v)
{
    if (g->n < MAX_VALUES && type_elems(type_at(g, v)) <= MAX_ELEMS) g->value[g->n++] = v;
}

static ValueId any_of_type(Maker *g, const Type *t)
{
    uint32_t start = draw(g->n);
    for (uint32_t i = 0; i < g->n; i++)
        if (type_at(g, g->value[(start + i) % g->n]) == t) return g->value[(start + i) % g->n];
    return build_splat(&g->b, 0.75, t);
}

static void make_unary(Maker *g)
{
    static const OpCode codes[] = {OP_NEG, OP_ABS, OP_EXP, OP_TANH, OP_SIN, OP_FLOOR};
    ValueId v = any(g);
    if (draw(4) == 0) { /* keeps values small */
        keep(g, build_unary(&g->b, OP_TANH, v));
        return;
    }
    OpCode code = codes[draw(g->kind.is_smooth ? 5 : 6)];
    if (code == OP_EXP) v = build_unary(&g->b, OP_TANH, v);
    keep(g, build_unary(&g->b, code, v));
}

static void make_binary(Maker *g)
{
    static const OpCode codes[] = {OP_ADD, OP_SUB, OP_MUL, OP_MAX, OP_MIN};
    ValueId x = any(g), y = any_of_type(g, type_at(g, x));
    OpCode code = codes[draw(5)];
    if (g->kind.is_smooth && code == OP_MUL) y = build_unary(&g->b, OP_TANH, y);
    keep(g, build_binary(&g->b, code, x, y));
}

static void make_select(Maker *g)
{
    ValueId x = any(g), y = any_of_type(g, type_at(g, x));
    ValueId test = build_binary(&g->b, draw(2) ? OP_LT : OP_GE, x, y);
    keep(g, build_select(&g->b, test, y, x));
}

static void make_broadcast(Maker *g)
{
    ValueId v = any(g);
    const Type *t = type_at(g, v);
    int64_t dim[ZM_MAX_RANK];
    int lead = t->rank < 4 ? (int)draw(2) : 0;
    for (int d = 0; d < lead; d++) dim[d] = 1 + draw(4);
    for (int d = 0; d < t->rank; d++)
        dim[lead + d] = t->dim[d] == 1 && draw(2) ? 1 + draw(5) : t->dim[d];
    keep(g, build_broadcast(&g->b, v, type_get(g->m, t->dtype, lead + t->rank, dim)));
}

static void make_reshape(Maker *g)
{
    ValueId v = any(g);
    int64_t n = type_elems(type_at(g, v)), dim[4];
    int rank = 0;
    for (int64_t f = 2; f <= n && rank < 3;) {
        if (n % f == 0 && draw(2)) {
            dim[rank++] = f;
            n /= f;
        } else {
            f++;
        }
    }
    dim[rank++] = n;
    keep(g, build_reshape(&g->b, v, rank, dim));
}

static void make_transpose(Maker *g)
{
    ValueId v = any(g);
    int rank = type_at(g, v)->rank;
    int64_t perm[ZM_MAX_RANK];
    for (int d = 0; d < rank; d++) perm[d] = d;
    for (int d = rank - 1; d > 0; d--) {
        uint32_t other = draw((uint32_t)d + 1);
        int64_t keep_d = perm[d];
        perm[d] = perm[other];
        perm[other] = keep_d;
    }
    keep(g, build_transpose(&g->b, v, perm));
}

static void make_slice_or_pad(Maker *g, bool is_pad)
{
    ValueId v = any(g);
    const Type *t = type_at(g, v);
    int64_t low[ZM_MAX_RANK], other[ZM_MAX_RANK];
    for (int d = 0; d < t->rank; d++) {
        low[d] = is_pad ? draw(3) : draw((uint32_t)t->dim[d]);
        other[d] = is_pad ? draw(2) : 1 + draw((uint32_t)(t->dim[d] - low[d]));
    }
    keep(g, is_pad ? build_pad(&g->b, v, low, other) : build_slice(&g->b, v, low, other));
}

static void make_concat(Maker *g)
{
    ValueId v[3] = {any(g)};
    const Type *t = type_at(g, v[0]);
    if (t->rank == 0) return;
    uint32_t n = 2 + draw(2);
    for (uint32_t i = 1; i < n; i++) v[i] = any_of_type(g, t);
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, draw((uint32_t)t->rank));
    keep(g, build1(&g->b, OP_CONCAT, v, n, &l));
}

static void make_reduce(Maker *g)
{
    ValueId v = any(g);
    const Type *t = type_at(g, v);
    int64_t dims[ZM_MAX_RANK];
    uint32_t n = 0;
    for (int d = 0; d < t->rank; d++)
        if (draw(2)) dims[n++] = d;
    OpCode code = draw(3) ? OP_REDUCE_SUM : OP_REDUCE_MAX;
    if (n && draw(2)) { /* back to the operand's shape, as softmax does */
        ValueId r = build_broadcast(&g->b, build_reduce_keep(&g->b, code, v, dims, n), t);
        keep(g, build_binary(&g->b, OP_SUB, v, r));
        return;
    }
    v = build_reduce(&g->b, code, v, dims, n);
    keep(g, g->kind.is_smooth ? build_unary(&g->b, OP_TANH, v) : v);
}

static void make_matmul(Maker *g)
{
    ValueId x = any(g);
    const Type *t = type_at(g, x);
    if (t->rank < 2) return;
    int64_t n = 1 + draw(4), k = t->dim[t->rank - 1], dim[] = {k, n};
    bool is_swapped = draw(2);
    if (is_swapped) {
        dim[0] = n;
        dim[1] = k;
    }
    ValueId y = any_of_type(g, type_get(g->m, t->dtype, 2, dim));
    ValueId product = build_matmul(&g->b, x, y, false, is_swapped);
    keep(g, g->kind.is_smooth ? build_unary(&g->b, OP_TANH, product) : product);
}

static void make_table(Maker *g)
{
    ValueId table = any(g);
    const Type *t = type_at(g, table);
    if (t->rank != 2 || t->dim[0] < 2) return;
    ValueId index = g->b.f->params.at[0]; /* i32, below 2 */
    ValueId in[] = {table, index};
    ValueId rows = build1(&g->b, OP_EMBED, in, 2, NULL);
    keep(g, rows);
    if (draw(2)) return;
    ValueId scatter[] = {table, index, rows};
    keep(g, build1(&g->b, OP_SCATTER_ADD, scatter, 3, NULL));
}

static void make_random(Maker *g)
{
    const Type *t = type_at(g, any(g));
    int64_t batch = t->rank && draw(2) ? t->dim[0] : 1;
    AttrList l = {0};
    attr_add_list(&l, AT_SHAPE, t->dim, (uint32_t)t->rank);
    attr_add_int(&l, AT_BATCH, batch);
    attr_add_str(&l, AT_STREAM, draw(2) ? "h.0" : "h.1");
    ValueId key = g->b.f->params.at[1];
    ValueId r = build1(&g->b, OP_RANDOM, &key, 1, &l);
    keep(g, build_cast(&g->b, r, g->kind.dtype));
}

/* Variables: @0 is a bucket of 24 elements, @1 and @2 views of it, @3 alone. */
static void make_vars(Module *m, DType dtype)
{
    int64_t bucket[] = {24}, view[] = {2, 3, 2}, alone[] = {3, 3};
    LocId loc = loc_source(m, (SrcPos){.line = 1, .col = 1});
    Var v = {.name = "0", .type = type_get(m, dtype, 1, bucket), .is_bucket = true, .loc = loc};
    VarId in = var_new(m, v);
    for (int i = 0; i < 2; i++) {
        v = (Var){.name = i ? "2" : "1", .in = in, .in_offset = 12 * i, .loc = loc};
        v.type = type_get(m, dtype, 3, view);
        var_new(m, v);
    }
    v = (Var){.name = "3", .type = type_get(m, dtype, 2, alone), .loc = loc};
    var_new(m, v);
}

static VarId any_var(void)
{
    return (VarId){1 + draw(4)};
}

static bool is_read_of(Maker *g, ValueId v, bool of_bucket)
{
    OpId def = value_cget(g->b.f, v)->def;
    if (!op_ok(def) || op_cget(g->b.f, def)->code != OP_READ) return false;
    return (attr_str(op_cget(g->b.f, def)->attrs, AT_VAR)[0] != '3') == of_bucket;
}

/* After the write, what was read of the storage is no longer in use; what was made of it may be. */
static void make_write(Maker *g)
{
    VarId var = any_var();
    ValueId v = any_of_type(g, var_cget(g->m, var)->type);
    if (is_read_of(g, v, true) || is_read_of(g, v, false)) return;
    build_write(&g->b, var, v);
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->n; i++)
        if (!is_read_of(g, g->value[i], var.i != 4)) g->value[n++] = g->value[i];
    g->n = n;
}

enum { ATTN_B = 2, ATTN_H = 2, ATTN_T = 3, ATTN_D = 2 }; /* packed: [B, T, 3 H D] */

/* Head `part` of the packed q, k, v; sometimes with arithmetic, which attention cannot read. */
static ValueId make_heads(Maker *g, ValueId packed, int part)
{
    int64_t width = ATTN_H * ATTN_D, start[] = {0, 0, part * width},
            size[] = {ATTN_B, ATTN_T, width};
    int64_t split[] = {ATTN_B, ATTN_T, ATTN_H, ATTN_D}, perm[] = {0, 2, 1, 3};
    ValueId v = build_slice(&g->b, packed, start, size);
    if (draw(4) == 0) v = build_unary(&g->b, OP_TANH, v);
    return build_transpose(&g->b, build_reshape(&g->b, v, 4, split), perm);
}

static ValueId make_merged(Maker *g, ValueId v)
{
    int64_t perm[] = {0, 2, 1, 3}, merged[] = {ATTN_B, ATTN_T, ATTN_H * ATTN_D};
    return build_reshape(&g->b, build_transpose(&g->b, v, perm), 3, merged);
}

/* Forward, with a mask and a bias at times, and backward into the packed layout. */
static void make_attention(Maker *g)
{
    ValueId packed = g->b.f->params.at[2], in[9];
    uint32_t n = 3, n_extra = 0;
    ValueId extra[2];
    int64_t square[] = {ATTN_T, ATTN_T}, heads[] = {ATTN_H, ATTN_T, ATTN_T};
    if (draw(2) && !g->kind.is_smooth) {
        ValueId x = any_of_type(g, type_get(g->m, g->kind.dtype, 2, square));
        ValueId limit = build_splat(&g->b, 0.6, type_at(g, x));
        extra[n_extra++] = build_binary(&g->b, OP_GE, x, limit);
    }
    if (draw(2)) extra[n_extra++] = any_of_type(g, type_get(g->m, g->kind.dtype, 3, heads));
    AttrList l = {0};
    attr_add_int(&l, AT_CAUSAL, draw(2));
    for (int part = 0; part < 3; part++) in[part] = make_heads(g, packed, part);
    for (uint32_t i = 0; i < n_extra; i++) in[n++] = extra[i];
    const Op *o = op_cget(g->b.f, build_op(&g->b, OP_SDPA, in, n, &l));
    ValueId out = o->out[0], lse = o->out[1], merged = make_merged(g, out);
    keep(g, draw(2) ? merged : out);
    if (draw(2)) return;
    in[3] = out;
    in[4] = lse;
    in[5] = draw(2) ? make_heads(g, packed, 1) : out;
    for (uint32_t i = 0; i < n_extra; i++) in[6 + i] = extra[i];
    o = op_cget(g->b.f, build_op(&g->b, OP_SDPA_GRAD, in, 6 + n_extra, &l));
    ValueId grad[3] = {o->out[0], o->out[1], o->out[2]};
    for (int i = 0; i < 3; i++) grad[i] = make_merged(g, grad[i]);
    AttrList axis = {0};
    attr_add_int(&axis, AT_AXIS, 2);
    keep(g, build1(&g->b, OP_CONCAT, grad, 3, &axis));
    if (draw(2)) keep(g, grad[draw(3)]);
}

static void make_op(Maker *g)
{
    switch (draw(20)) {
    case 19: make_attention(g); break;
    case 16: keep(g, build_read(&g->b, any_var())); break;
    case 17: keep(g, build_unary(&g->b, OP_TANH, build_read(&g->b, any_var()))); break;
    case 18: make_write(g); break;
    case 0:
    case 1: make_unary(g); break;
    case 2:
    case 3:
    case 4: make_binary(g); break;
    case 5: g->kind.is_smooth ? make_binary(g) : make_select(g); break;
    case 6: make_broadcast(g); break;
    case 7: make_reshape(g); break;
    case 8: make_transpose(g); break;
    case 9: make_slice_or_pad(g, false); break;
    case 10: make_slice_or_pad(g, true); break;
    case 11: make_concat(g); break;
    case 12:
    case 13: make_reduce(g); break;
    case 14: make_matmul(g); break;
    default: draw(2) ? make_table(g) : make_random(g); break;
    }
}

static void make_graph(Module *m, const char *name, GraphKind kind)
{
    Maker g = {.kind = kind, .m = m, .b.f = func_new(m, name)};
    g.b.loc = loc_source(m, (SrcPos){.line = 1, .col = 1});
    int64_t index[] = {3}, key[] = {4}, matrix[] = {2 + draw(4), 1 + draw(6)}, cube[] = {2, 3, 4};
    func_param(g.b.f, "index", type_get(m, DT_I32, 1, index));
    func_param(g.b.f, "key", type_get(m, DT_I32, 1, key));
    int64_t packed[] = {ATTN_B, ATTN_T, 3 * ATTN_H * ATTN_D};
    func_param(g.b.f, "qkv", type_get(m, kind.dtype, 3, packed));
    keep(&g, func_param(g.b.f, "x", type_get(m, kind.dtype, 2, matrix)));
    keep(&g, func_param(g.b.f, "y", type_get(m, kind.dtype, 3, cube)));
    uint32_t n_ops = 4 + draw(28);
    for (uint32_t i = 0; i < n_ops; i++) make_op(&g);
    ValueId out[N_RETURNED];
    for (uint32_t i = 0; i < N_RETURNED; i++) out[i] = i ? any(&g) : g.value[g.n - 1];
    build_return(&g.b, out, N_RETURNED, NULL);
}

#endif
