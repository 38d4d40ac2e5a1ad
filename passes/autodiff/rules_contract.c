/* rules_contract.c -- gradients of matmul, lookup and attention. */
#include "passes/autodiff/grad.h"

/* [..., M, K] as a matrix of all its rows. */
static ValueId as_matrix(Builder *b, ValueId x)
{
    const Type *t = value_type(b->f, x);
    int64_t n = t->dim[t->rank - 1];
    return t->rank == 2 ? x : build_reshape(b, x, 2, (int64_t[]){type_elems(t) / n, n});
}

/* Y = A' B', where ' is the transpose when the flag is set:  dA' = G B'^T,  dB' = A'^T G.  A set
 * flag transposes the gradient too: dA = (dA')^T = B' G^T,  dB = (dB')^T = G^T A'.  A [..., M, K]
 * by a matrix B [K, N]: dB over all rows. */
void grad_matmul(Grad *g)
{
    Builder *b = &g->b;
    ValueId x = g->op.in[0], w = g->op.in[1], dy = g->out[0];
    bool ta = attr_int(g->op.attrs, AT_TRANS_A, 0) != 0,
         tb = attr_int(g->op.attrs, AT_TRANS_B, 0) != 0;
    if (grad_wants(g, 0))
        grad_add(g, 0, ta ? build_matmul(b, w, dy, tb, true) : build_matmul(b, dy, w, false, !tb));
    if (!grad_wants(g, 1)) return;
    if (grad_type(g, 1)->rank == 2) {
        x = as_matrix(b, x);
        dy = as_matrix(b, dy);
    }
    grad_add(g, 1, tb ? build_matmul(b, dy, x, true, ta) : build_matmul(b, x, dy, !ta, false));
}

static ValueId scatter_add(Builder *b, ValueId base, ValueId index, ValueId rows)
{
    ValueId in[] = {base, index, rows};
    return build1(b, OP_SCATTER_ADD, in, 3, NULL);
}

void grad_embed(Grad *g)
{
    if (!grad_wants(g, 0)) return;
    ValueId zeros = build_splat(&g->b, 0, grad_type(g, 0));
    grad_add(g, 0, scatter_add(&g->b, zeros, g->op.in[1], g->out[0]));
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
