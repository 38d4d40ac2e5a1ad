/* handover.c -- blocks that hand over data through an atomic, as "the last block sums up" does:
 * what a warp did, or its block before a barrier, and then a fence and an atomic, comes before what
 * another block does after an atomic on the same word. */
#include <string.h>

#include "tests/gpusim/sim.h"

/* ---- sets of segments ---- */

static uint32_t number_of(const Launch *l, Stamp s)
{
    return ((s & ~1u) - l->first) / 2;
}

static void set_reach(const Launch *l, Set *s, uint32_t n_words)
{
    if (s->n_words >= n_words) return;
    uint64_t *bits = ARENA_ARRAY(l->scratch, uint64_t, n_words);
    if (s->n_words) memcpy(bits, s->bits, s->n_words * sizeof bits[0]);
    s->bits = bits;
    s->n_words = n_words;
}

static void set_add(const Launch *l, Set *s, uint32_t number)
{
    uint32_t at = number / 64;
    if (at >= s->n_words) set_reach(l, s, at + at / 2 + 1);
    s->bits[number / 64] |= 1ull << number % 64;
}

static bool set_has(const Set *s, uint32_t number)
{
    return number / 64 < s->n_words && (s->bits[number / 64] >> number % 64 & 1);
}

static void set_join(const Launch *l, Set *to, const Set *from)
{
    set_reach(l, to, from->n_words);
    for (uint32_t i = 0; i < from->n_words; i++) to->bits[i] |= from->bits[i];
}

/* ---- fences and atomics ---- */

void handover_start(Block *b)
{
    b->fenced = b->before = (Set){0};
}

/* The warp's own, or of its block before the last barrier. */
static bool is_ordered_here(const Warp *w, Stamp s)
{
    const Block *b = w->block;
    return s < b->phase || b->warp_of.at[(s - b->phase) / 2] == w->number;
}

void handover_fence(Warp *w)
{
    Block *b = w->block;
    for (Stamp s = b->first; s < b->launch->next; s += 2)
        if (is_ordered_here(w, s)) set_add(b->launch, &b->fenced, number_of(b->launch, s));
    segment_start(w);
}

static Set *released_at(Launch *l, uint64_t address)
{
    if (!l->words.arena) l->words.arena = l->scratch;
    uint32_t at = map_get(&l->words, address);
    if (at == MAP_NONE) {
        Set none = {0};
        at = l->released.n;
        map_put(&l->words, address, at);
        VEC_PUSH(l->scratch, &l->released, none);
    }
    return &l->released.at[at];
}

void handover_atomic(Warp *w, uint64_t address)
{
    Block *b = w->block;
    Launch *l = b->launch;
    Set *released = released_at(l, address);
    set_join(l, &b->before, released);
    if (b->fenced.n_words == 0) return;
    set_join(l, released, &b->before);
    for (Stamp s = b->first; s < l->next; s += 2)
        if (set_has(&b->fenced, number_of(l, s)) && is_ordered_here(w, s))
            set_add(l, released, number_of(l, s));
}

/* Is the access that left the stamp before what the warp does now? */
bool handover_is_before(const Warp *w, Stamp s)
{
    const Launch *l = w->block->launch;
    s &= ~1u;
    if (s < l->first) return true;
    if (s >= w->block->first) return is_ordered_here(w, s);
    return s != l->first && set_has(&w->block->before, number_of(l, s)); /* several: not known */
}
