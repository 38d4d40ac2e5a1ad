/* rules_contract.c -- gradients of matmul, lookup and attention. */
#include "passes/autodiff/grad.h"

/* [..., M, K] as a matrix of all its rows. */
static ValueId as_matrix(Builder *b, ValueId x)
{
    const Type *t = value_type(b->f, x);
    int64_t n = t->dim[t->rank - 1];
    return t->rank == 2 ? x : build_reshape(b, x, 2, (int64_t[]){type_elems(t) / n, n});
}

/* A product that is operand i's cotangent, in its dtype: of 16-bit operands f32 sums without a
 * rounding between. */
static void add_product(Grad *g, uint32_t i, ValueId x, ValueId y, bool trans_a, bool trans_b)
{
    AttrList l = {0};
    if (trans_a) attr_add_int(&l, AT_TRANS_A, 1);
    if (trans_b) attr_add_int(&l, AT_TRANS_B, 1);
    DType dt = value_type(g->b.f, x)->dtype;
    if (dtype_bytes(dt) == 2 && grad_dtype(g, i) == DT_F32) attr_add_int(&l, AT_WIDE, 1);
    ValueId in[] = {x, y};
    grad_add(g, i, build1(&g->b, OP_MATMUL, in, 2, &l));
}

/* Y = A' B', where ' is the transpose when the flag is set:  dA' = G B'^T,  dB' = A'^T G.  A set
 * flag transposes the gradient too: dA = (dA')^T = B' G^T,  dB = (dB')^T = G^T A'.  A [..., M, K]
 * by a matrix B [K, N]: dB over all rows.  The gradient of a wide product is taken in the
 * operands' dtype. */
void grad_matmul(Grad *g)
{
    Builder *b = &g->b;
    ValueId x = g->op.in[0], w = g->op.in[1];
    ValueId dy = build_cast(b, g->out[0], grad_type(g, 0)->dtype);
    bool ta = attr_int(g->op.attrs, AT_TRANS_A, 0) != 0,
         tb = attr_int(g->op.attrs, AT_TRANS_B, 0) != 0;
    if (grad_wants(g, 0))
        ta ? add_product(g, 0, w, dy, tb, true) : add_product(g, 0, dy, w, false, !tb);
    if (!grad_wants(g, 1)) return;
    if (grad_type(g, 1)->rank == 2) {
        x = as_matrix(b, x);
        dy = as_matrix(b, dy);
    }
    tb ? add_product(g, 1, dy, x, true, ta) : add_product(g, 1, x, dy, !ta, false);
}

static ValueId scatter_add(Builder *b, ValueId base, ValueId index, ValueId rows)
{
    ValueId in[] = {base, index, rows};
    return build1(b, OP_SCATTER_ADD, in, 3, NULL);
}

void grad_embed(Grad *g)
{
    if (!grad_wants(g, 0)) return;
    DType dt = grad_dtype(g, 0);
    ValueId zeros = build_splat(&g->b, 0, type_with_dtype(g->b.f->m, grad_type(g, 0), dt));
    ValueId rows = build_cast(&g->b, g->out[0], dt);
    grad_add(g, 0, scatter_add(&g->b, zeros, g->op.in[1], rows));
}

/* y = base with rows added: d base = g, d rows = g at the rows. */
void grad_scatter_add(Grad *g)
{
    if (grad_wants(g, 0)) grad_add(g, 0, g->out[0]);
    if (!grad_wants(g, 2)) return;
    ValueId in[] = {g->out[0], g->op.in[1]};
    grad_add(g, 2, build1(&g->b, OP_EMBED, in, 2, NULL));
}

/* Index of sdpa's bias among its operands, 0 when it has none. */
static uint32_t bias_of(const Grad *g)
{
    for (uint32_t i = 3; i < g->op.n_in; i++)
        if (dtype_class(grad_type(g, i)->dtype) == DTC_FLOAT) return i;
    return 0;
}

void grad_sdpa(Grad *g)
{
    enum { MAX_IN = 9, OUT = 0, LSE = 1 };
    if (value_ok(g->out[LSE])) {
        grad_refuse(g,
                    "its second result, the log of the sum of exponentials, is not differentiated");
        return;
    }
    ValueId in[MAX_IN] = {g->op.in[0],    g->op.in[1],    g->op.in[2],
                          g->op.out[OUT], g->op.out[LSE], g->out[OUT]};
    uint32_t n = 6;
    for (uint32_t i = 3; i < g->op.n_in; i++) in[n++] = g->op.in[i];
    AttrList l = {0};
    for (uint32_t i = 0; i < g->op.attrs.n; i++) l.at[l.n++] = g->op.attrs.at[i];
    if (grad_wants(g, 0) || grad_wants(g, 1) || grad_wants(g, 2)) {
        OpId d = build_op(&g->b, OP_SDPA_GRAD, in, n, &l);
        for (uint32_t i = 0; i < 3; i++)
            if (grad_wants(g, i)) grad_add(g, i, op_cget(g->b.f, d)->out[i]);
    }
    uint32_t bias = bias_of(g);
    if (bias && grad_wants(g, bias)) grad_add(g, bias, build1(&g->b, OP_SDPA_GRAD_BIAS, in, n, &l));
}
