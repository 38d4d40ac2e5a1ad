/* cuda_run_attention.h -- for tests: runs printed attention kernels on the CPU against
 * attention_ref.h, with two grids and two orders of threads: the same bits are expected. */
#ifndef ZM_TESTS_CUDA_RUN_ATTENTION_H
#define ZM_TESTS_CUDA_RUN_ATTENTION_H

#include "tests/unit/attention_ref.h"
#include "tests/unit/cuda_compile.h"

static inline void run_once(const Built *x, RunFn fn, Bufs *f, bool is_second)
{
    void *args[KERNEL_MAX_ARGS];
    for (uint32_t i = 0; i < f->n; i++) args[i] = f->at[i];
    CudaSchedule s = cuda_schedule(&x->k, (CudaArch){0});
    fn(args, is_second ? 2 : (int)s.n_blocks, s.threads_x, s.threads_y, is_second);
}

static inline void check_case(const Case *c, const Built *x, RunFn fn, const char *name)
{
    bool is_backward = x->k.attn.is_backward;
    Bufs one = bufs_new(x, false), two = bufs_new(x, true);
    if (is_backward) {
        for_heads(c, x, &one, NULL, true);
        for_heads(c, x, &two, NULL, true);
    }
    run_once(x, fn, &one, false);
    run_once(x, fn, &two, true);
    if (for_heads(c, x, &one, &one, is_backward)) FAIL("%s: wrong", name);
    for (uint32_t i = 0; i < one.n; i++)
        if (memcmp(one.at[i], two.at[i], one.g[i].n_bytes) != 0)
            FAIL("%s: argument %u: the grid or the order of threads changes the result", name, i);
    bufs_free(&one);
    bufs_free(&two);
}

/* The test of a kernel that a model has. */
static inline Built *built_of_kernel(Arena *a, const Kernel *k, Case *c)
{
    const AttnSpec *s = &k->attn;
    *c = (Case){.B = s->B,
                .H = s->H,
                .T = s->T,
                .S = s->S,
                .D = s->D,
                .Dv = s->Dv,
                .is_causal = s->is_causal,
                .has_mask = s->mask.arg >= 0,
                .has_bias = s->bias.arg >= 0,
                .p = s->p,
                .dt = s->q.dtype};
    const AttnOperand *from[N_OPERAND] = {
        [Q] = &s->q,       [K] = &s->k,     [V] = &s->v,           [MASK] = &s->mask,
        [BIAS] = &s->bias, [KEY] = &s->key, [STREAM] = &s->stream, [OUT] = &s->out,
        [LSE] = &s->lse,   [DQ] = &s->dq,   [DOUT] = &s->dout,     [DK] = &s->dk,
        [DV] = &s->dv};
    Built *x = ARENA_NEW(a, Built);
    x->k = *k;
    for (int i = 0; i < N_OPERAND; i++) {
        Operand *o = &x->o[i];
        *o = (Operand){.is_present = from[i]->arg >= 0, .dt = from[i]->dtype};
        o->arg = from[i]->arg;
        o->base = from[i]->base;
        memcpy(o->stride, from[i]->stride, sizeof o->stride);
    }
    return x;
}

#endif
