/* handover.c -- blocks that hand over data through an atomic, as "the last block sums up" does:
 * what a block did before a fence and an atomic comes before what another does after an atomic on
 * the same word.  Blocks run one after another, so a block is its number and sets of blocks are
 * bits. */
#include <string.h>

#include "tests/gpusim/sim.h"

static uint64_t *set_new(const Launch *l)
{
    uint64_t n = (uint64_t)l->grid[0] * l->grid[1] * l->grid[2];
    return ARENA_ARRAY(l->scratch, uint64_t, n / 64 + 1);
}

static void set_add(uint64_t *set, uint64_t block)
{
    set[block / 64] |= 1ull << block % 64;
}

static uint64_t number_of(const Launch *l, Stamp s)
{
    return ((s & ~1u) - l->first) / 2 - 1;
}

void handover_start(Block *b)
{
    uint64_t n = (uint64_t)b->launch->grid[0] * b->launch->grid[1] * b->launch->grid[2];
    b->has_fenced = false;
    if (b->before) memset(b->before, 0, (n / 64 + 1) * sizeof b->before[0]);
}

void handover_fence(Block *b)
{
    b->has_fenced = true;
}

void handover_atomic(Block *b, uint64_t address)
{
    Launch *l = b->launch;
    uint64_t n = (uint64_t)l->grid[0] * l->grid[1] * l->grid[2];
    if (!l->words.arena) l->words.arena = l->scratch;
    if (!b->before) b->before = set_new(l);
    uint32_t at = map_get(&l->words, address);
    if (at == MAP_NONE) {
        at = l->released.n;
        map_put(&l->words, address, at);
        VEC_PUSH(l->scratch, &l->released, set_new(l));
    }
    uint64_t *released = l->released.at[at];
    for (uint64_t i = 0; i < n / 64 + 1; i++) {
        b->before[i] |= released[i];
        if (b->has_fenced) released[i] |= b->before[i];
    }
    if (b->has_fenced) set_add(released, number_of(l, b->stamp));
}

/* Is the access that left the stamp before what the block does now? */
bool handover_is_before(const Block *b, Stamp s)
{
    const Launch *l = b->launch;
    if (s < l->first || (s & ~1u) == b->stamp) return true;
    if (!b->before || (s & ~1u) == l->first) return false; /* several blocks: not known which */
    uint64_t block = number_of(l, s);
    return b->before[block / 64] >> block % 64 & 1;
}
