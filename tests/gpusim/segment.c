/* segment.c -- numbers for what the warps of a block do to global memory between two barriers, and
 * before and after a fence; memory.h keeps them for each byte. */
#include "tests/gpusim/sim.h"

enum { SEVERAL = 255 };

static Stamp take(Block *b, uint8_t warp)
{
    Stamp s = b->launch->next;
    b->launch->next += 2;
    VEC_PUSH(b->launch->scratch, &b->warp_of, warp);
    return s;
}

void segment_start(Warp *w)
{
    w->stamp = take(w->block, (uint8_t)w->number);
}

void segment_start_phase(Block *b)
{
    b->warp_of.n = 0;
    b->phase = take(b, SEVERAL);
    for (uint32_t i = 0; i < b->n_warps; i++) segment_start(&b->warps[i]);
}

void segment_start_block(Block *b)
{
    segment_start_phase(b);
    b->first = b->phase;
}

Toucher segment_toucher(const Warp *w)
{
    const Block *b = w->block;
    return (Toucher){.own = w->stamp,
                     .launch = b->launch->first,
                     .block = b->first,
                     .phase = b->phase,
                     .warp = (uint8_t)w->number,
                     .warp_of = b->warp_of.at};
}
