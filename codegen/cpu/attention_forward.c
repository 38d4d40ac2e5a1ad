/* attention_forward.c -- out = softmax(scale q k^T + bias, masked) v, and lse, one block of queries
 * a task.
 *
 * Over blocks of keys, each row keeps its maximum m, its sum l of exp(x - m), and o = sum exp(x -
 * m) v; a new maximum m' scales l and o by exp(m - m').  At the end out = o / l, lse = m + log l.
 * A row that may attend to nothing has m = -inf: out = 0, lse = -inf.
 */
#include <math.h>

#include "codegen/cpu/attention.h"

typedef struct Forward {
    Attn x;
    LLVMValueRef q, k, kt, v, p, o;
    LLVMValueRef max, base, by; /* per row */
    LLVMValueRef sum;           /* per row and lane */
    LLVMValueRef t0, n_rows;    /* queries of the block */
    LLVMValueRef s0, n_keys;    /* keys of the block */
} Forward;

static LLVMValueRef load_row(Forward *f, LLVMValueRef base, LLVMValueRef r)
{
    return cpu_load(f->x.m, f->x.p->dt, attn_at(&f->x, base, r), 1, NULL);
}

static void store_row(Forward *f, LLVMValueRef v, LLVMValueRef base, LLVMValueRef r)
{
    cpu_store(f->x.m, f->x.p->dt, v, attn_at(&f->x, base, r), 1, NULL);
}

/* p[r] = scores of the keys that the row sees; returns their maximum. */
static LLVMValueRef score_row(Forward *f, const AttnRow *row, LLVMValueRef at)
{
    Attn *x = &f->x;
    CpuModule *m = x->m;
    int lanes = x->p->lanes;
    LLVMValueRef most = cpu_splat(m, attn_const(x, -INFINITY), lanes);
    CpuLoop c = cpu_loop_begin(m, cpu_i64(m, 0), row->n_visible, lanes, &most, 1);
    LLVMValueRef to = attn_at(x, at, c.index);
    LLVMValueRef v = attn_scores(x, row, c.index, cpu_load(m, x->p->dt, to, lanes, NULL));
    cpu_store(m, x->p->dt, v, to, lanes, NULL);
    most = cpu_max(m, c.carried[0], v);
    cpu_loop_end(m, &c, &most);
    return attn_max_lanes(x, c.carried[0]);
}

static void score_rows(Forward *f)
{
    Attn *x = &f->x;
    CpuModule *m = x->m;
    CpuLoop r = cpu_loop_begin(m, cpu_i64(m, 0), f->n_rows, 1, NULL, 0);
    AttnRow row = attn_row(x, mm_add(m, f->t0, r.index), f->s0, f->n_keys);
    LLVMValueRef at = attn_at(x, f->p, mm_mul(m, r.index, x->p->k_block));
    store_row(f, score_row(f, &row, at), f->base, r.index);
    cpu_loop_end(m, &r, NULL);
}

/* Of all rows at once: base = the block's maximum -> max' = max(max, base), by = exp(max - max'),
 * base = max', or 0 where it is -inf (exp(-inf - 0) = 0). */
static void move_maxima(Forward *f)
{
    Attn *x = &f->x;
    CpuModule *m = x->m;
    int lanes = x->p->lanes;
    LLVMValueRef low = cpu_splat(m, attn_const(x, -INFINITY), lanes);
    CpuLoop r = cpu_loop_begin(m, cpu_i64(m, 0), f->n_rows, lanes, NULL, 0);
    LLVMValueRef max_at = attn_at(x, f->max, r.index), base_at = attn_at(x, f->base, r.index);
    LLVMValueRef old = cpu_load(m, x->p->dt, max_at, lanes, NULL);
    LLVMValueRef most = cpu_max(m, old, cpu_load(m, x->p->dt, base_at, lanes, NULL));
    LLVMValueRef none = LLVMBuildFCmp(m->b, LLVMRealOEQ, most, low, "");
    LLVMValueRef base = LLVMBuildSelect(m->b, none, LLVMConstNull(LLVMTypeOf(most)), most, "");
    LLVMValueRef by = attn_exp(x, LLVMBuildFSub(m->b, old, base, ""));
    cpu_store(m, x->p->dt, most, max_at, lanes, NULL);
    cpu_store(m, x->p->dt, base, base_at, lanes, NULL);
    cpu_store(m, x->p->dt, by, attn_at(x, f->by, r.index), lanes, NULL);
    cpu_loop_end(m, &r, NULL);
}

/* p[r] = exp(scores - base), dropped out; returns sum (by lanes) plus the exponentials before
 * dropout. */
static LLVMValueRef exp_row(Forward *f, const AttnRow *row, LLVMValueRef at, LLVMValueRef base,
                            LLVMValueRef sum)
{
    Attn *x = &f->x;
    CpuModule *m = x->m;
    int lanes = x->p->lanes;
    CpuLoop c = cpu_loop_begin(m, cpu_i64(m, 0), row->n_visible, lanes, &sum, 1);
    LLVMValueRef to = attn_at(x, at, c.index);
    LLVMValueRef v = cpu_load(m, x->p->dt, to, lanes, NULL);
    v = attn_exp(x, LLVMBuildFSub(m->b, v, cpu_splat(m, base, lanes), ""));
    sum = LLVMBuildFAdd(m->b, c.carried[0], v, "");
    cpu_store(m, x->p->dt, attn_drop(x, attn_keep(x, row, c.index), v), to, lanes, NULL);
    cpu_loop_end(m, &c, &sum);
    attn_zero_row(x, at, c.index, f->n_keys);
    return c.carried[0];
}

static void scale_row(Forward *f, LLVMValueRef r, LLVMValueRef by)
{
    Attn *x = &f->x;
    CpuModule *m = x->m;
    int lanes = x->p->lanes;
    CpuLoop c = cpu_loop_begin(m, cpu_i64(m, 0), cpu_i64(m, x->p->dv_pad), lanes, NULL, 0);
    LLVMValueRef at = attn_at(x, f->o, cpu_mad(m, r, x->p->dv_pad, c.index));
    LLVMValueRef v = cpu_load(m, x->p->dt, at, lanes, NULL);
    cpu_store(m, x->p->dt, LLVMBuildFMul(m->b, v, cpu_splat(m, by, lanes), ""), at, lanes, NULL);
    cpu_loop_end(m, &c, NULL);
}

static void softmax_rows(Forward *f)
{
    Attn *x = &f->x;
    CpuModule *m = x->m;
    int lanes = x->p->lanes;
    score_rows(f);
    move_maxima(f);
    CpuLoop r = cpu_loop_begin(m, cpu_i64(m, 0), f->n_rows, 1, NULL, 0);
    AttnRow row = attn_row(x, mm_add(m, f->t0, r.index), f->s0, f->n_keys);
    LLVMValueRef at = attn_at(x, f->p, mm_mul(m, r.index, x->p->k_block));
    LLVMValueRef sum_at = attn_at(x, f->sum, mm_mul(m, r.index, lanes));
    LLVMValueRef by = load_row(f, f->by, r.index);
    LLVMValueRef sum = cpu_load(m, x->p->dt, sum_at, lanes, NULL);
    sum = LLVMBuildFMul(m->b, sum, cpu_splat(m, by, lanes), "");
    sum = exp_row(f, &row, at, load_row(f, f->base, r.index), sum);
    cpu_store(m, x->p->dt, sum, sum_at, lanes, NULL);
    CpuIf moved = cpu_if_begin(m, LLVMBuildFCmp(m->b, LLVMRealUNE, by, attn_const(x, 1), ""));
    scale_row(f, r.index, by);
    cpu_if_end(m, &moved);
    cpu_loop_end(m, &r, NULL);
}

static void key_block(Forward *f)
{
    Attn *x = &f->x;
    CpuModule *m = x->m;
    const AttnPlan *p = x->p;
    AttnProduct scores = {.cols = p->k_block,
                          .a_row = p->d_pad,
                          .a_k = 1,
                          .b_k = p->k_block,
                          .ldc = p->k_block,
                          .seen = attn_seen(x, ATTN_C_SEEN)};
    AttnProduct values = {.cols = p->dv_pad,
                          .a_row = p->k_block,
                          .a_k = 1,
                          .b_k = p->dv_pad,
                          .ldc = p->dv_pad,
                          .seen = attn_seen(x, ATTN_A_SEEN)};
    LLVMValueRef offset = attn_offset(x, f->t0, f->s0);
    LLVMValueRef no = LLVMConstInt(m->i1_t, 0, 0), yes = LLVMConstInt(m->i1_t, 1, 0);
    attn_load_block(x, &p->s->k, p->s->D, f->s0, f->n_keys, f->k, p->d_pad);
    attn_load_block(x, &p->s->v, p->s->Dv, f->s0, f->n_keys, f->v, p->dv_pad);
    LLVMValueRef pack = attn_pack_keys(x), d = cpu_i64(m, p->s->D);
    mm_pack_call(m, pack, f->k, cpu_i64(m, p->d_pad), f->n_keys, d, f->kt, cpu_i64(m, 0));
    attn_multiply(x, &scores, f->q, f->kt, f->p, f->n_rows, d, no, offset);
    softmax_rows(f);
    attn_multiply(x, &values, f->p, f->v, f->o, f->n_rows, f->n_keys, yes, offset);
}

/* lse = m + log l; a program that needs no backward does not ask for it. */
static void store_lse(Forward *f, LLVMValueRef row, LLVMValueRef sum)
{
    Attn *x = &f->x;
    CpuModule *m = x->m;
    DType dt = x->p->dt;
    const AttnOperand *lse = &x->s->lse;
    if (lse->arg < 0) return;
    LLVMValueRef log = cpu_emit_point(m, OP_LOG, dt, dt, &sum);
    LLVMValueRef v = LLVMBuildFAdd(m->b, load_row(f, f->max, row), log, "");
    LLVMValueRef elem = attn_elem(x, lse, mm_add(m, f->t0, row));
    LLVMValueRef at = cpu_elem_ptr(m, cpu_buffer(m, (uint32_t)lse->arg), lse->dtype, elem);
    cpu_store(m, lse->dtype, cpu_cast(m, v, dt, lse->dtype), at, 1, NULL);
}

/* by = 1 / l, or 0 where there is nothing. */
static void finish_rows(Forward *f)
{
    Attn *x = &f->x;
    CpuModule *m = x->m;
    CpuLoop r = cpu_loop_begin(m, cpu_i64(m, 0), f->n_rows, 1, NULL, 0);
    LLVMValueRef sum_at = attn_at(x, f->sum, mm_mul(m, r.index, x->p->lanes));
    LLVMValueRef sum = attn_sum_lanes(x, cpu_load(m, x->p->dt, sum_at, x->p->lanes, NULL));
    store_lse(f, r.index, sum);
    LLVMValueRef empty = LLVMBuildFCmp(m->b, LLVMRealOEQ, sum, attn_const(x, 0), "");
    LLVMValueRef inverse = LLVMBuildFDiv(m->b, attn_const(x, 1), sum, "");
    store_row(f, LLVMBuildSelect(m->b, empty, attn_const(x, 0), inverse, ""), f->by, r.index);
    cpu_loop_end(m, &r, NULL);
}

static void start_rows(Forward *f)
{
    Attn *x = &f->x;
    CpuModule *m = x->m;
    CpuLoop r = cpu_loop_begin(m, cpu_i64(m, 0), f->n_rows, 1, NULL, 0);
    store_row(f, attn_const(x, -INFINITY), f->max, r.index);
    cpu_loop_end(m, &r, NULL);
    attn_zero(x, f->sum, x->p->q_block * x->p->lanes);
    attn_zero(x, f->o, x->p->q_block * x->p->dv_pad);
}

void attn_emit_forward(CpuModule *m, const AttnPlan *p, const char *fn)
{
    Forward f = {.x = attn_begin(m, p, fn)};
    Attn *x = &f.x;
    attn_set_head(x, mm_div(m, m->task, p->n_q));
    f.q = attn_scratch(x, p->q_at);
    f.k = attn_scratch(x, p->k_at);
    f.kt = attn_scratch(x, p->kt_at);
    f.v = attn_scratch(x, p->v_at);
    f.p = attn_scratch(x, p->p_at);
    f.o = attn_scratch(x, p->o_at);
    f.max = attn_scratch(x, p->max_at);
    f.base = attn_scratch(x, p->base_at);
    f.by = attn_scratch(x, p->by_at);
    f.sum = attn_scratch(x, p->sum_at);
    f.t0 = mm_mul(m, mm_rem(m, m->task, p->n_q), p->q_block);
    f.n_rows = mm_min(m, cpu_i64(m, p->q_block), mm_sub(m, cpu_i64(m, p->s->T), f.t0));
    start_rows(&f);
    attn_load_block(x, &p->s->q, p->s->D, f.t0, f.n_rows, f.q, p->d_pad);
    LLVMValueRef end = attn_key_end(x, mm_add(m, f.t0, f.n_rows));
    CpuLoop k = cpu_loop_begin(m, cpu_i64(m, 0), end, p->k_block, NULL, 0);
    f.s0 = k.index;
    f.n_keys = mm_min(m, cpu_i64(m, p->k_block), mm_sub(m, cpu_i64(m, p->s->S), f.s0));
    key_block(&f);
    cpu_loop_end(m, &k, NULL);
    finish_rows(&f);
    attn_store_block(x, &p->s->out, p->s->Dv, f.t0, f.n_rows, f.o, p->dv_pad, f.by);
    cpu_function_end(m);
}
