/* cuda_sim_attention.h -- for tests: attention kernels in cuda_sim.h's harness, against
 * attention_ref.h.  s.check_attention = sim_check_attention; after that they are cases as others.
 */
#ifndef ZM_TESTS_CUDA_SIM_ATTENTION_H
#define ZM_TESTS_CUDA_SIM_ATTENTION_H

#include "tests/unit/cuda_run_attention.h"
#include "tests/unit/cuda_sim.h"

static inline void sim_check_attention(Sim *s, const SimCase *c, SimRun *r)
{
    Arena a = {0};
    Case own;
    Built *x = built_of_kernel(&a, c->k, &own);
    /* On tensor cores probabilities and score gradients are rounded to the operands' dtype. */
    x->is_rounded = oracle_is_half(own.dt);
    bool is_backward = c->k->attn.is_backward;
    Bufs in = bufs_new(x, false), one = bufs_new(x, false), two = bufs_new(x, false);
    if (is_backward) for_heads(&own, x, &in, NULL, true);
    if (sim_run_both(s, c, r, in.at, one.at, two.at)) {
        for (uint32_t i = 0; i < in.n; i++)
            if (!c->k->args[i].is_out) memcpy(one.at[i], in.at[i], in.g[i].n_bytes);
        if (for_heads(&own, x, &in, &one, is_backward)) FAIL("%s: wrong", c->name);
    }
    bufs_free(&in);
    bufs_free(&one);
    bufs_free(&two);
    arena_free(&a);
}

#endif
