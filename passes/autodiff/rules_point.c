/* rules_point.c -- gradients of element-wise ops and of ops that move elements. */
#include "passes/autodiff/grad.h"

#include "ir/scalar.h"

void grad_none(Grad *g)
{
    for (uint32_t i = 0; i < g->op.n_in; i++)
        if (grad_wants(g, i)) {
            grad_refuse(g, "ops.def gives it none");
            return;
        }
}

/* POINT: the expressions of the GRAD column over a, b, c, y, g, computed in f32 when the op is
 * 16-bit. */
void grad_pointwise(Grad *g)
{
    static const char names[] = "abcyg";
    enum { MAX_IN = 3, Y = 3, G = 4 };
    const char *text = op_info(g->op.code)->grad;
    ValueId v[MAX_IN + 2] = {{0}};
    ZM_CHECK(g->op.n_in <= MAX_IN);
    if (scalar_count(text) != g->op.n_in) {
        grad_none(g);
        return;
    }
    for (uint32_t i = 0; i < g->op.n_in; i++) v[i] = form_widen(&g->b, g->op.in[i]);
    v[Y] = form_widen(&g->b, g->op.out[0]);
    v[G] = form_widen(&g->b, g->out[0]);
    for (uint32_t i = 0; i < g->op.n_in; i++)
        if (grad_wants(g, i) && !scalar_is_zero(text, i))
            grad_add(g, i, scalar_build(&g->b, text, i, names, v, value_type(g->b.f, v[G])));
}

void grad_read(Grad *g)
{
    const Module *m = g->b.f->m;
    VarId v = var_find(m, attr_str(g->op.attrs, AT_VAR));
    if (var_cget(m, v)->kind == VK_PARAM) grad_add_param(g, v, g->out[0]);
}

void grad_cast(Grad *g)
{
    if (grad_wants(g, 0)) grad_add(g, 0, g->out[0]);
}

void grad_reshape(Grad *g)
{
    const Type *t = grad_type(g, 0);
    if (grad_wants(g, 0)) grad_add(g, 0, build_reshape(&g->b, g->out[0], t->rank, t->dim));
}

void grad_transpose(Grad *g)
{
    if (!grad_wants(g, 0)) return;
    const Attr *perm = attrs_find(g->op.attrs, AT_PERM);
    int64_t inverse[ZM_MAX_RANK];
    for (uint32_t i = 0; i < perm->as.list.n; i++) inverse[perm->as.list.at[i]] = i;
    grad_add(g, 0, build_transpose(&g->b, g->out[0], inverse));
}

/* Sums over the dimensions that were repeated. */
void grad_broadcast(Grad *g)
{
    if (!grad_wants(g, 0)) return;
    const Type *t = grad_type(g, 0), *full = value_type(g->b.f, g->out[0]);
    int64_t dims[ZM_MAX_RANK];
    uint32_t n = 0;
    for (int i = 0; i < full->rank; i++) {
        int k = i - (full->rank - t->rank);
        if (k < 0 || (t->dim[k] == 1 && full->dim[i] != 1)) dims[n++] = i;
    }
    ValueId sum = build_reduce(&g->b, OP_REDUCE_SUM, g->out[0], dims, n);
    grad_add(g, 0, build_reshape(&g->b, sum, t->rank, t->dim));
}

void grad_pad(Grad *g)
{
    const int64_t *low = attrs_find(g->op.attrs, AT_LOW)->as.list.at;
    if (grad_wants(g, 0)) grad_add(g, 0, build_slice(&g->b, g->out[0], low, grad_type(g, 0)->dim));
}

void grad_slice(Grad *g)
{
    if (!grad_wants(g, 0)) return;
    const int64_t *start = attrs_find(g->op.attrs, AT_STARTS)->as.list.at;
    const Type *whole = grad_type(g, 0), *part = value_type(g->b.f, g->out[0]);
    int64_t high[ZM_MAX_RANK];
    for (int i = 0; i < whole->rank; i++) high[i] = whole->dim[i] - start[i] - part->dim[i];
    grad_add(g, 0, build_pad(&g->b, g->out[0], start, high));
}

void grad_concat(Grad *g)
{
    int64_t axis = attr_int(g->op.attrs, AT_AXIS, 0);
    int64_t start[ZM_MAX_RANK] = {0};
    for (uint32_t i = 0; i < g->op.n_in; i++) {
        if (grad_wants(g, i))
            grad_add(g, i, build_slice(&g->b, g->out[0], start, grad_type(g, i)->dim));
        start[axis] += grad_type(g, i)->dim[axis];
    }
}

/* y = x / (1 - p) where kept: linear, with the same draws. */
void grad_drop(Grad *g)
{
    if (!grad_wants(g, 0)) return;
    ValueId in[] = {g->out[0], g->op.in[1]};
    AttrList l = {0};
    attr_add_float(&l, AT_P, attr_float(g->op.attrs, AT_P, 0));
    attr_add_str(&l, AT_STREAM, attr_str(g->op.attrs, AT_STREAM));
    attr_add_int(&l, AT_BATCH, attr_int(g->op.attrs, AT_BATCH, 1));
    grad_add(g, 0, build1(&g->b, OP_DROP, in, 2, &l));
}

/* A rotation: its transpose turns back. */
void grad_rotary(Grad *g)
{
    if (!grad_wants(g, 0)) return;
    AttrList l = {0};
    attr_add_float(&l, AT_THETA, attr_float(g->op.attrs, AT_THETA, 0));
    if (!attr_int(g->op.attrs, AT_INVERSE, 0)) attr_add_int(&l, AT_INVERSE, 1);
    grad_add(g, 0, build1(&g->b, OP_ROTARY, &g->out[0], 1, &l));
}
