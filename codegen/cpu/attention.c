/* attention.c -- kernels `attention`: sizes of blocks, scratch, phases. */
#include "codegen/cpu/attention.h"

enum {
    BLOCK_ROWS = 64, /* queries or keys: a block of scores is 16 KiB, and all blocks of a task fit
                        the second-level cache */
    ENOUGH_HEADS = 8 /* backward: with so many (b, h), one task each is parallel enough and saves
                        two products of seven */
};

static int64_t take(int64_t *at, int64_t bytes)
{
    int64_t here = *at;
    *at = mm_round_up(here + bytes, ZMP_ALIGN);
    return here;
}

static void plan_forward(AttnPlan *p, int64_t size)
{
    int64_t at = 0;
    p->q_at = take(&at, p->q_block * p->d_pad * size);
    p->k_at = take(&at, p->k_block * p->d_pad * size);
    p->kt_at = take(&at, p->s->D * p->k_block * size);
    p->v_at = take(&at, p->k_block * p->dv_pad * size);
    p->p_at = take(&at, p->q_block * p->k_block * size);
    p->o_at = take(&at, p->q_block * p->dv_pad * size);
    int64_t rows = mm_round_up(p->q_block, p->lanes);
    p->max_at = take(&at, rows * size);
    p->base_at = take(&at, rows * size);
    p->by_at = take(&at, rows * size);
    p->sum_at = take(&at, p->q_block * p->lanes * size);
    p->scratch_bytes = at;
    p->n_phases = 1;
}

static void plan_backward(AttnPlan *p, int64_t size)
{
    int64_t at = 0;
    p->is_whole_head = p->s->B * p->s->H >= ENOUGH_HEADS || (p->n_q == 1 && p->n_k == 1);
    p->n_phases = p->is_whole_head ? 1 : 2;
    p->dq_blocks = p->is_whole_head ? p->n_q : 1;
    p->q_at = take(&at, p->q_block * p->d_pad * size);
    p->k_at = take(&at, p->k_block * p->d_pad * size);
    p->kt_at = take(&at, p->s->D * p->k_block * size);
    p->v_at = take(&at, p->k_block * p->dv_pad * size);
    p->vt_at = take(&at, p->s->Dv * p->k_block * size);
    p->dout_at = take(&at, p->q_block * p->dv_pad * size);
    p->o_at = take(&at, p->q_block * p->dv_pad * size);
    p->p_at = take(&at, p->q_block * p->k_block * size);
    p->dp_at = take(&at, p->q_block * p->k_block * size);
    p->dk_at = take(&at, p->k_block * p->d_pad * size);
    p->dv_at = take(&at, p->k_block * p->dv_pad * size);
    p->dq_at = take(&at, p->dq_blocks * p->q_block * p->d_pad * size);
    p->delta_at = take(&at, p->n_q * p->q_block * size);
    p->scratch_bytes = at;
}

AttnPlan attn_plan(const CpuTarget *t, const Kernel *k)
{
    const AttnSpec *s = &k->attn;
    AttnPlan p = {.s = s, .dt = s->q.dtype == DT_F64 ? DT_F64 : DT_F32};
    p.tile = mm_tile_for(t, p.dt);
    p.lanes = mm_lanes(t, p.dt);
    int64_t q_most = mm_round_up(s->T, p.tile.mr),
            k_most = mm_round_up(s->S, p.lanes > p.tile.mr ? p.lanes : p.tile.mr);
    p.q_block = q_most < BLOCK_ROWS ? q_most : BLOCK_ROWS;
    p.k_block = k_most < BLOCK_ROWS ? k_most : BLOCK_ROWS;
    p.n_q = mm_ceil_div(s->T, p.q_block);
    p.n_k = mm_ceil_div(s->S, p.k_block);
    p.d_pad = mm_round_up(s->D, p.lanes);
    p.dv_pad = mm_round_up(s->Dv, p.lanes);
    if (s->is_backward)
        plan_backward(&p, dtype_bytes(p.dt));
    else
        plan_forward(&p, dtype_bytes(p.dt));
    return p;
}

KernelNeeds cpu_attention_needs(const CpuTarget *t, const Kernel *k)
{
    return (KernelNeeds){.workspace_bytes = 0, .scratch_bytes = attn_plan(t, k).scratch_bytes};
}

static void add_phase(CpuModule *m, const char *name, int64_t n_tasks, double flops,
                      CpuKernelCode *out)
{
    uint32_t i = out->n_phases++;
    out->fn[i] = cpu_phase_name(m, name, i);
    out->n_tasks[i] = n_tasks;
    out->task_cost[i] = (int64_t)(flops / (double)n_tasks) + 1;
}

Status cpu_emit_attention(CpuModule *m, const Kernel *k, const char *name, CpuKernelCode *out)
{
    AttnPlan *p = ARENA_NEW(m->arena, AttnPlan);
    *p = attn_plan(m->target, k);
    const AttnSpec *s = p->s;
    int64_t heads = s->B * s->H;
    double product = 2.0 * (double)heads * (double)s->T * (double)s->S * (double)(s->D + s->Dv) / 2;
    *out = (CpuKernelCode){.needs = {.scratch_bytes = p->scratch_bytes}};
    if (!s->is_backward) {
        add_phase(m, name, heads * p->n_q, 3 * product, out);
        attn_emit_forward(m, p, out->fn[0]);
    } else if (p->is_whole_head) {
        add_phase(m, name, heads, 6 * product, out);
        attn_emit_backward(m, p, out->fn[0], ATTN_HEAD);
    } else {
        add_phase(m, name, heads * p->n_k, 5 * product, out);
        attn_emit_backward(m, p, out->fn[0], ATTN_KEYS);
        add_phase(m, name, heads * p->n_q, 4 * product, out);
        attn_emit_backward(m, p, out->fn[1], ATTN_QUERIES);
    }
    return ZM_OK;
}
