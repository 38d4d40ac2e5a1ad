/* attention_backward.c -- dq, dk, dv from q, k, v, out, lse, dout.
 *
 * For a block of queries i and one of keys j, with P = exp(scale q k^T + bias - lse), keep/(1-p)
 * the dropout's factor Z: dV_j += (Z P)^T dO_i        dS = scale P (Z (dO_i V_j^T) - delta) dK_j +=
 * dS^T Q_i        dQ_i += dS K_j and delta = rowsum(dO out).  One task does a whole head (five
 * products a block pair); when there are few heads, a first phase does dK and dV by blocks of keys
 * and a second dQ by blocks of queries (seven products).  Sums run over blocks in ascending order
 * in either case.
 */
#include <math.h>

#include "codegen/cpu/attention.h"

typedef struct Backward {
    Attn x;
    bool has_dq, has_dkv;
    LLVMValueRef q, k, kt, v, vt, dout, out, p, dp, dk, dv, dq, delta;
    LLVMValueRef i_lo, i_hi; /* blocks of queries of the task: dq and delta start at i_lo */
    LLVMValueRef i, t0, n_rows;
    LLVMValueRef s0, n_keys;
} Backward;

static void set_queries(Backward *g, LLVMValueRef i)
{
    CpuModule *m = g->x.m;
    const AttnPlan *p = g->x.p;
    g->i = i;
    g->t0 = mm_mul(m, i, p->q_block);
    g->n_rows = mm_min(m, cpu_i64(m, p->q_block), mm_sub(m, cpu_i64(m, p->s->T), g->t0));
}

static LLVMValueRef delta_at(Backward *g, LLVMValueRef r)
{
    CpuModule *m = g->x.m;
    LLVMValueRef block = mm_sub(m, g->i, g->i_lo);
    return attn_at(&g->x, g->delta, cpu_mad(m, block, g->x.p->q_block, r));
}

/* delta[t] = sum over d of dout * out, for every query of the task. */
static void compute_delta(Backward *g)
{
    Attn *x = &g->x;
    CpuModule *m = x->m;
    const AttnPlan *p = x->p;
    CpuLoop i = cpu_loop_begin(m, g->i_lo, g->i_hi, 1, NULL, 0);
    set_queries(g, i.index);
    attn_load_block(x, &p->s->dout, p->s->Dv, g->t0, g->n_rows, g->dout, p->dv_pad);
    attn_load_block(x, &p->s->out, p->s->Dv, g->t0, g->n_rows, g->out, p->dv_pad);
    CpuLoop r = cpu_loop_begin(m, cpu_i64(m, 0), g->n_rows, 1, NULL, 0);
    LLVMValueRef sum = LLVMConstNull(cpu_reg_type(m, p->dt, p->lanes));
    CpuLoop c = cpu_loop_begin(m, cpu_i64(m, 0), cpu_i64(m, p->dv_pad), p->lanes, &sum, 1);
    LLVMValueRef at = cpu_mad(m, r.index, p->dv_pad, c.index);
    LLVMValueRef a = cpu_load(m, p->dt, attn_at(x, g->dout, at), p->lanes, NULL);
    LLVMValueRef b = cpu_load(m, p->dt, attn_at(x, g->out, at), p->lanes, NULL);
    sum = cpu_fma(m, a, b, c.carried[0]);
    cpu_loop_end(m, &c, &sum);
    cpu_store(m, p->dt, attn_sum_lanes(x, c.carried[0]), delta_at(g, r.index), 1, NULL);
    cpu_loop_end(m, &r, NULL);
    cpu_loop_end(m, &i, NULL);
}

/* p = Z P, dp = dS, in place of q k^T and dO V^T. */
static void gradient_rows(Backward *g)
{
    Attn *x = &g->x;
    CpuModule *m = x->m;
    const AttnPlan *p = x->p;
    const AttnOperand *lse = &p->s->lse;
    int lanes = p->lanes;
    CpuLoop r = cpu_loop_begin(m, cpu_i64(m, 0), g->n_rows, 1, NULL, 0);
    AttnRow row = attn_row(x, mm_add(m, g->t0, r.index), g->s0, g->n_keys);
    LLVMValueRef at =
        cpu_elem_ptr(m, cpu_buffer(m, (uint32_t)lse->arg), lse->dtype, attn_elem(x, lse, row.t));
    LLVMValueRef base = cpu_cast(m, cpu_load(m, lse->dtype, at, 1, NULL), lse->dtype, p->dt);
    LLVMValueRef none = LLVMBuildFCmp(m->b, LLVMRealOEQ, base, attn_const(x, -INFINITY), "");
    base = LLVMBuildSelect(m->b, none, attn_const(x, 0), base,
                           ""); /* every score of the row is -inf */
    LLVMValueRef delta = cpu_load(m, p->dt, delta_at(g, r.index), 1, NULL);
    CpuLoop c = cpu_loop_begin(m, cpu_i64(m, 0), row.n_visible, lanes, NULL, 0);
    LLVMValueRef elem = cpu_mad(m, r.index, p->k_block, c.index);
    LLVMValueRef p_at = attn_at(x, g->p, elem), dp_at = attn_at(x, g->dp, elem);
    LLVMValueRef v = attn_scores(x, &row, c.index, cpu_load(m, p->dt, p_at, lanes, NULL));
    v = attn_exp(x, LLVMBuildFSub(m->b, v, cpu_splat(m, base, lanes), ""));
    LLVMValueRef keep = attn_keep(x, &row, c.index);
    LLVMValueRef d = attn_drop(x, keep, cpu_load(m, p->dt, dp_at, lanes, NULL));
    d = LLVMBuildFSub(m->b, d, cpu_splat(m, delta, lanes), "");
    d = LLVMBuildFMul(m->b, LLVMBuildFMul(m->b, v, d, ""),
                      cpu_splat(m, attn_const(x, p->s->scale), lanes), "");
    cpu_store(m, p->dt, d, dp_at, lanes, NULL);
    cpu_store(m, p->dt, attn_drop(x, keep, v), p_at, lanes, NULL);
    cpu_loop_end(m, &c, NULL);
    LLVMValueRef start = mm_mul(m, r.index, p->k_block);
    attn_zero_row(x, attn_at(x, g->p, start), c.index, g->n_keys);
    attn_zero_row(x, attn_at(x, g->dp, start), c.index, g->n_keys);
    cpu_loop_end(m, &r, NULL);
}

static void block_pair(Backward *g)
{
    Attn *x = &g->x;
    CpuModule *m = x->m;
    const AttnPlan *p = x->p;
    int64_t nk = p->k_block, d = p->d_pad, dv = p->dv_pad;
    AttnProduct scores = {.cols = nk, .a_row = d, .a_k = 1, .b_k = nk, .ldc = nk};
    AttnProduct dp = {.cols = nk, .a_row = dv, .a_k = 1, .b_k = nk, .ldc = nk};
    AttnProduct dv_shape = {.cols = dv, .a_row = 1, .a_k = nk, .b_k = dv, .ldc = dv};
    AttnProduct dk_shape = {.cols = d, .a_row = 1, .a_k = nk, .b_k = d, .ldc = d};
    AttnProduct dq_shape = {.cols = d, .a_row = nk, .a_k = 1, .b_k = d, .ldc = d};
    scores.seen = dp.seen = attn_seen(x, ATTN_C_SEEN);
    dv_shape.seen = dk_shape.seen = attn_seen(x, ATTN_A_SEES);
    dq_shape.seen = attn_seen(x, ATTN_A_SEEN);
    LLVMValueRef offset = attn_offset(x, g->t0, g->s0);
    LLVMValueRef no = LLVMConstInt(m->i1_t, 0, 0), yes = LLVMConstInt(m->i1_t, 1, 0);
    attn_load_block(x, &p->s->q, p->s->D, g->t0, g->n_rows, g->q, d);
    attn_load_block(x, &p->s->dout, p->s->Dv, g->t0, g->n_rows, g->dout, dv);
    attn_multiply(x, &scores, g->q, g->kt, g->p, g->n_rows, cpu_i64(m, p->s->D), no, offset);
    attn_multiply(x, &dp, g->dout, g->vt, g->dp, g->n_rows, cpu_i64(m, p->s->Dv), no, offset);
    gradient_rows(g);
    if (g->has_dkv) {
        attn_multiply(x, &dv_shape, g->p, g->dout, g->dv, g->n_keys, g->n_rows, yes, offset);
        attn_multiply(x, &dk_shape, g->dp, g->q, g->dk, g->n_keys, g->n_rows, yes, offset);
    }
    if (g->has_dq) {
        LLVMValueRef block = mm_sub(m, g->i, g->i_lo);
        LLVMValueRef dq = attn_at(x, g->dq, mm_mul(m, block, p->q_block * d));
        attn_multiply(x, &dq_shape, g->dp, g->k, dq, g->n_rows, g->n_keys, yes, offset);
    }
}

/* All blocks of queries of the task that see block j of keys. */
static void key_block(Backward *g, LLVMValueRef j)
{
    Attn *x = &g->x;
    CpuModule *m = x->m;
    const AttnPlan *p = x->p;
    g->s0 = mm_mul(m, j, p->k_block);
    g->n_keys = mm_min(m, cpu_i64(m, p->k_block), mm_sub(m, cpu_i64(m, p->s->S), g->s0));
    attn_load_block(x, &p->s->k, p->s->D, g->s0, g->n_keys, g->k, p->d_pad);
    attn_load_block(x, &p->s->v, p->s->Dv, g->s0, g->n_keys, g->v, p->dv_pad);
    LLVMValueRef pack = attn_pack_keys(x);
    mm_pack_call(m, pack, g->k, cpu_i64(m, p->d_pad), g->n_keys, cpu_i64(m, p->s->D), g->kt,
                 cpu_i64(m, 0));
    mm_pack_call(m, pack, g->v, cpu_i64(m, p->dv_pad), g->n_keys, cpu_i64(m, p->s->Dv), g->vt,
                 cpu_i64(m, 0));
    if (g->has_dkv) {
        attn_zero(x, g->dk, p->k_block * p->d_pad);
        attn_zero(x, g->dv, p->k_block * p->dv_pad);
    }
    LLVMValueRef lo = g->i_lo;
    if (p->s->is_causal) { /* the first query that sees key s0 is s0 - (S - T) */
        LLVMValueRef first = mm_sub(m, g->s0, cpu_i64(m, p->s->S - p->s->T));
        lo = mm_max(m, lo, mm_div(m, mm_max(m, first, cpu_i64(m, 0)), p->q_block));
    }
    CpuLoop i = cpu_loop_begin(m, lo, g->i_hi, 1, NULL, 0);
    set_queries(g, i.index);
    block_pair(g);
    cpu_loop_end(m, &i, NULL);
    if (!g->has_dkv) return;
    attn_store_block(x, &p->s->dk, p->s->D, g->s0, g->n_keys, g->dk, p->d_pad, NULL);
    attn_store_block(x, &p->s->dv, p->s->Dv, g->s0, g->n_keys, g->dv, p->dv_pad, NULL);
}

static void store_dq(Backward *g)
{
    CpuModule *m = g->x.m;
    const AttnPlan *p = g->x.p;
    CpuLoop i = cpu_loop_begin(m, g->i_lo, g->i_hi, 1, NULL, 0);
    set_queries(g, i.index);
    LLVMValueRef at = mm_mul(m, mm_sub(m, i.index, g->i_lo), p->q_block * p->d_pad);
    attn_store_block(&g->x, &p->s->dq, p->s->D, g->t0, g->n_rows, attn_at(&g->x, g->dq, at),
                     p->d_pad, NULL);
    cpu_loop_end(m, &i, NULL);
}

static Backward backward_begin(CpuModule *m, const AttnPlan *p, const char *fn, AttnPart part)
{
    Backward g = {
        .x = attn_begin(m, p, fn), .has_dq = part != ATTN_KEYS, .has_dkv = part != ATTN_QUERIES};
    Attn *x = &g.x;
    g.q = attn_scratch(x, p->q_at);
    g.k = attn_scratch(x, p->k_at);
    g.kt = attn_scratch(x, p->kt_at);
    g.v = attn_scratch(x, p->v_at);
    g.vt = attn_scratch(x, p->vt_at);
    g.dout = attn_scratch(x, p->dout_at);
    g.out = attn_scratch(x, p->o_at);
    g.p = attn_scratch(x, p->p_at);
    g.dp = attn_scratch(x, p->dp_at);
    g.dk = attn_scratch(x, p->dk_at);
    g.dv = attn_scratch(x, p->dv_at);
    g.dq = attn_scratch(x, p->dq_at);
    g.delta = attn_scratch(x, p->delta_at);
    return g;
}

void attn_emit_backward(CpuModule *m, const AttnPlan *p, const char *fn, AttnPart part)
{
    Backward g = backward_begin(m, p, fn, part);
    LLVMValueRef zero = cpu_i64(m, 0), one = cpu_i64(m, 1), j_lo = zero, j_hi = cpu_i64(m, p->n_k);
    g.i_lo = zero;
    g.i_hi = cpu_i64(m, p->n_q);
    int64_t per_head = part == ATTN_KEYS ? p->n_k : part == ATTN_QUERIES ? p->n_q : 1;
    attn_set_head(&g.x, mm_div(m, m->task, per_head));
    LLVMValueRef block = mm_rem(m, m->task, per_head);
    if (part == ATTN_KEYS) {
        j_lo = block;
        j_hi = mm_add(m, block, one);
    } else if (part == ATTN_QUERIES) {
        g.i_lo = block;
        g.i_hi = mm_add(m, block, one);
        LLVMValueRef end = attn_key_end(&g.x, mm_mul(m, g.i_hi, p->q_block));
        j_hi = mm_div(m, mm_add(m, end, cpu_i64(m, p->k_block - 1)), p->k_block);
    }
    compute_delta(&g);
    if (g.has_dq) attn_zero(&g.x, g.dq, p->dq_blocks * p->q_block * p->d_pad);
    CpuLoop j = cpu_loop_begin(m, j_lo, j_hi, 1, NULL, 0);
    key_block(&g, j.index);
    cpu_loop_end(m, &j, NULL);
    if (g.has_dq) store_dq(&g);
    cpu_function_end(m);
}
