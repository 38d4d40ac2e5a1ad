/* kernel_eval.h -- what a kernel form means (codegen/kernel.h), in unrounded doubles: slow, every
 * value is computed where it is asked for, sums run in loop order.  Arguments are arrays of
 * doubles; an output may be the array of its alias_in. */
#ifndef ZM_TESTS_KERNEL_EVAL_H
#define ZM_TESTS_KERNEL_EVAL_H

#include <math.h>
#include <string.h>

#include "codegen/kernel.h"
#include "ir/base/philox.h"

typedef struct KernelRun {
    const Kernel *k;
    double **mem;
    int64_t index[KERNEL_MAX_LOOPS];
    double *sum;    /* by node: reductions of the present row */
    bool *is_known; /* by node */
    double acc;
} KernelRun;

static double run_value(KernelRun *r, int32_t node);

static int64_t run_affine(const KernelRun *r, int64_t base, const int64_t *stride)
{
    for (uint32_t l = 0; l < r->k->n_loops; l++) base += stride[l] * r->index[l];
    return base;
}

static double *run_place(KernelRun *r, const Access *x)
{
    int64_t at = run_affine(r, x->base, x->stride);
    if (x->dyn >= 0) at += x->dyn_stride * (int64_t)run_value(r, x->dyn);
    ZM_CHECK(at >= 0 && at < r->k->args[x->arg].elems);
    return &r->mem[x->arg][at];
}

static double run_load(KernelRun *r, const Access *x)
{
    for (uint32_t g = 0; g < x->n_guards; g++) {
        int64_t e = run_affine(r, x->guards[g].base, x->guards[g].stride);
        if (e < x->guards[g].lo || e >= x->guards[g].hi) return 0;
    }
    return *run_place(r, x);
}

/* Next point of the loops of the kinds in `mask`, the last fastest; false after the last. */
static bool run_next(KernelRun *r, uint32_t kinds)
{
    for (uint32_t l = r->k->n_loops; l-- > 0;) {
        if (!(kinds >> r->k->loops[l].kind & 1)) continue;
        if (++r->index[l] < r->k->loops[l].extent) return true;
        r->index[l] = 0;
    }
    return false;
}

#define KIND(K) (1u << LOOP_##K)

static double run_reduce(KernelRun *r, const Node *n)
{
    double acc = n->op == OP_REDUCE_SUM ? 0 : -INFINITY;
    do {
        double v = run_value(r, n->arg[0]);
        acc = n->op == OP_REDUCE_SUM ? acc + v : isnan(acc) || acc > v ? acc : v;
    } while (run_next(r, KIND(RED)));
    return n->dtype == DT_I1 ? acc > 0 : acc;
}

static double run_random(KernelRun *r, const Node *n)
{
    uint32_t w[8];
    for (int i = 0; i < 8; i++) w[i] = (uint32_t)(int64_t)run_value(r, n->arg[i]);
    return (double)(philox(w[4], w[3] + w[5], w[2], w[6], w[0], w[1] ^ w[7]).x[0] >> 8) * 0x1p-24;
}

static double run_point(OpCode op, double a, double b, double c)
{
    (void)b;
    (void)c;
#define gelu_tanh_slope(X) ((X) * (double)NAN) /* composite: no kernel holds it */
#define POINT(ID, NAME, N, TRAITS, TYPE, AMP, GRAD, FLOPS, LOWER, EVAL_, SAMPLE, DOC)              \
    if (op == OP_##ID) return (double)(EVAL_);
#define OP(ID, ...)
#define EVAL(E) E
#include "ir/ops.def"
#undef POINT
#undef OP
#undef EVAL
#undef gelu_tanh_slope
    ZM_UNREACHABLE("not a point op");
}

static double run_op(KernelRun *r, const Node *n)
{
    double x[3] = {0};
    for (uint32_t i = 0; i < n->n_args; i++) x[i] = run_value(r, n->arg[i]);
    if (n->op != OP_CAST) return run_point(n->op, x[0], x[1], x[2]);
    if (n->dtype == DT_I1) return x[0] != 0;
    return n->dtype == DT_I32 ? trunc(x[0]) : x[0];
}

static double run_value(KernelRun *r, int32_t node)
{
    const Node *n = &r->k->nodes[node];
    ZM_CHECK(node >= 0 && (uint32_t)node < r->k->n_nodes);
    switch (n->kind) {
    case KN_CONST: return n->imm;
    case KN_LOAD: return run_load(r, &r->k->accesses[n->index]);
    case KN_INDEX:
        return (double)run_affine(r, r->k->accesses[n->index].base,
                                  r->k->accesses[n->index].stride);
    case KN_RANDOM: return run_random(r, n);
    case KN_REDUCE:
        ZM_CHECK(r->is_known[node]); /* stages order reductions */
        return r->sum[node];
    case KN_ACC: return r->acc;
    case KN_OP: return run_op(r, n);
    }
    ZM_UNREACHABLE("node kind");
}

static void run_stores(KernelRun *r, bool is_elem)
{
    enum { MAX = 256 };
    double v[MAX];
    ZM_CHECK(r->k->n_stores <= MAX);
    for (uint32_t i = 0; i < r->k->n_stores; i++)
        if ((r->k->stores[i].level == LV_ELEM) == is_elem)
            v[i] = run_value(r, r->k->stores[i].node);
    for (uint32_t i = 0; i < r->k->n_stores; i++) {
        const Store *s = &r->k->stores[i];
        if ((s->level == LV_ELEM) != is_elem) continue;
        double *to = run_place(r, &s->to);
        *to = s->mode == ST_ADD ? *to + v[i] : v[i];
    }
}

static void run_nest(KernelRun *r)
{
    const Kernel *k = r->k;
    do {
        memset(r->is_known, 0, k->n_nodes * sizeof *r->is_known);
        for (int32_t stage = 0; stage < (int32_t)k->n_stages; stage++) {
            for (uint32_t i = 0; i < k->n_nodes; i++) {
                if (k->nodes[i].kind != KN_REDUCE || k->nodes[i].stage != stage) continue;
                r->sum[i] = run_reduce(r, &k->nodes[i]);
                r->is_known[i] = true;
            }
        }
        do run_stores(r, true);
        while (run_next(r, KIND(RED)));
        run_stores(r, false);
    } while (run_next(r, KIND(PAR)));
}

static void run_scatter(KernelRun *r)
{
    const KernelArg *out = &r->k->args[r->k->stores[0].to.arg];
    ZM_CHECK(out->alias_in >= 0);
    double *to = r->mem[r->k->stores[0].to.arg], *from = r->mem[out->alias_in];
    if (to != from) memcpy(to, from, (size_t)out->elems * sizeof *to);
    do run_stores(r, true);
    while (run_next(r, KIND(RED) | KIND(PAR)));
}

static void run_contract(KernelRun *r)
{
    do {
        r->acc = 0;
        do r->acc += run_value(r, r->k->node_a) * run_value(r, r->k->node_b);
        while (run_next(r, KIND(K)));
        run_stores(r, true);
    } while (run_next(r, KIND(BATCH) | KIND(M) | KIND(N)));
}

/* ---- attention ---- */

static double *run_at(KernelRun *r, const AttnOperand *x, int64_t i, int64_t j, int64_t m,
                      int64_t n)
{
    int64_t at =
        x->base + x->stride[0] * i + x->stride[1] * j + x->stride[2] * m + x->stride[3] * n;
    ZM_CHECK(at >= 0 && at < r->k->args[x->arg].elems);
    return &r->mem[x->arg][at];
}

static double run_score(KernelRun *r, int64_t b, int64_t h, int64_t t, int64_t s)
{
    const AttnSpec *a = &r->k->attn;
    if (a->is_causal && s > t + a->S - a->T) return -INFINITY;
    if (a->mask.arg >= 0 && *run_at(r, &a->mask, b, h, t, s) == 0) return -INFINITY;
    double v = 0;
    for (int64_t d = 0; d < a->D; d++)
        v += *run_at(r, &a->q, b, h, t, d) * *run_at(r, &a->k, b, h, s, d);
    v *= a->scale;
    return a->bias.arg >= 0 ? v + *run_at(r, &a->bias, b, h, t, s) : v;
}

static double run_drop(KernelRun *r, int64_t b, int64_t h, int64_t t, int64_t s)
{
    const AttnSpec *a = &r->k->attn;
    if (a->p == 0) return 1;
    uint32_t w[4], stream[2];
    for (int i = 0; i < 4; i++) w[i] = (uint32_t)(int64_t)*run_at(r, &a->key, 0, 0, 0, i);
    for (int i = 0; i < 2; i++) stream[i] = (uint32_t)(int64_t)*run_at(r, &a->stream, 0, 0, 0, i);
    uint32_t e = (uint32_t)((h * a->T + t) * a->S + s);
    Philox x = philox(e, w[3] + (uint32_t)b, w[2], stream[0], w[0], w[1] ^ stream[1]);
    return (double)(x.x[0] >> 8) * 0x1p-24 >= dtype_round(DT_F32, a->p)
               ? 1 / (1 - dtype_round(DT_F32, a->p))
               : 0;
}

static void run_forward_row(KernelRun *r, int64_t b, int64_t h, int64_t t)
{
    const AttnSpec *a = &r->k->attn;
    double max = -INFINITY, sum = 0;
    for (int64_t s = 0; s < a->S; s++) max = fmax(max, run_score(r, b, h, t, s));
    for (int64_t s = 0; s < a->S && max > -INFINITY; s++)
        sum += exp(run_score(r, b, h, t, s) - max);
    double lse = max > -INFINITY ? max + log(sum) : max;
    if (a->lse.arg >= 0) *run_at(r, &a->lse, b, h, t, 0) = lse;
    for (int64_t d = 0; d < a->Dv; d++) {
        double out = 0;
        for (int64_t s = 0; s < a->S && max > -INFINITY; s++)
            out += exp(run_score(r, b, h, t, s) - lse) * run_drop(r, b, h, t, s) *
                   *run_at(r, &a->v, b, h, s, d);
        *run_at(r, &a->out, b, h, t, d) = out;
    }
}

static void run_backward_pair(KernelRun *r, int64_t b, int64_t h, int64_t t, int64_t s)
{
    const AttnSpec *a = &r->k->attn;
    double at = run_score(r, b, h, t, s), dw = 0, delta = 0;
    if (at == -INFINITY) return;
    double p = exp(at - *run_at(r, &a->lse, b, h, t, 0)), drop = run_drop(r, b, h, t, s);
    for (int64_t d = 0; d < a->Dv; d++) {
        dw += *run_at(r, &a->dout, b, h, t, d) * *run_at(r, &a->v, b, h, s, d);
        delta += *run_at(r, &a->dout, b, h, t, d) * *run_at(r, &a->out, b, h, t, d);
    }
    double ds = p * (dw * drop - delta);
    for (int64_t d = 0; d < a->D; d++) {
        *run_at(r, &a->dq, b, h, t, d) += a->scale * ds * *run_at(r, &a->k, b, h, s, d);
        *run_at(r, &a->dk, b, h, s, d) += a->scale * ds * *run_at(r, &a->q, b, h, t, d);
    }
    for (int64_t d = 0; d < a->Dv; d++)
        *run_at(r, &a->dv, b, h, s, d) += p * drop * *run_at(r, &a->dout, b, h, t, d);
}

static void run_attention(KernelRun *r)
{
    const AttnSpec *a = &r->k->attn;
    for (uint32_t i = 0; i < r->k->n_args; i++)
        if (r->k->args[i].is_out)
            memset(r->mem[i], 0, (size_t)r->k->args[i].elems * sizeof **r->mem);
    for (int64_t b = 0; b < a->B; b++)
        for (int64_t h = 0; h < a->H; h++)
            for (int64_t t = 0; t < a->T; t++) {
                if (!a->is_backward) run_forward_row(r, b, h, t);
                for (int64_t s = 0; s < a->S && a->is_backward; s++)
                    run_backward_pair(r, b, h, t, s);
            }
}

static void kernel_run(Arena *a, const Kernel *k, double **mem)
{
    KernelRun r = {.k = k, .mem = mem};
    r.sum = ARENA_ARRAY(a, double, k->n_nodes);
    r.is_known = ARENA_ARRAY(a, bool, k->n_nodes);
    switch (k->kind) {
    case KK_NEST: run_nest(&r); return;
    case KK_SCATTER: run_scatter(&r); return;
    case KK_CONTRACT: run_contract(&r); return;
    case KK_ATTENTION: run_attention(&r); return;
    }
    ZM_UNREACHABLE("kernel kind");
}

#endif
