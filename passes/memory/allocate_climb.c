/* allocate_climb.c -- hill climb on the order of first fit (allocate.h).
 *
 * An item that ends at the top moves to a random earlier place in the order; the order stays when
 * the height does not grow, so plateaus are walked.  Random numbers: Philox by (try), key fixed. */
#include "passes/memory/allocate.h"

#include <string.h>

#include "ir/base/philox.h"

enum { STALE_TRIES = 200 }; /* and 4 per item without a lower height: the climb ends */

typedef struct Climb {
    Packer *packer;
    Part *part;
    uint32_t *order, *tried;
    int64_t *offset, *tried_offset;
    int64_t height;
} Climb;

/* Place in the order of one of the items that end at the height, and the number of such items. */
static uint32_t find_topmost(const Climb *c, uint32_t random)
{
    uint32_t n = 0, found = 0;
    for (int pass = 0; pass < 2; pass++) {
        uint32_t left = pass ? random % n : UINT32_MAX;
        for (uint32_t k = 0; k < c->part->n; k++) {
            uint32_t i = c->order[k];
            if (c->offset[i] + c->part->at[i].bytes != c->height) continue;
            if (!pass)
                n++;
            else if (left-- == 0)
                found = k;
        }
    }
    return found;
}

/* The order with the item at place `from` moved to the earlier place `to`. */
static void move_earlier(Climb *c, uint32_t from, uint32_t to)
{
    memcpy(c->tried, c->order, c->part->n * sizeof *c->tried);
    memmove(&c->tried[to + 1], &c->tried[to], (from - to) * sizeof *c->tried);
    c->tried[to] = c->order[from];
}

static void try_once(Climb *c, uint32_t number)
{
    Philox r = philox(number, 0, 0, 0, 0x6d656d, 0);
    uint32_t from = find_topmost(c, r.x[0]);
    if (from == 0) from = 1 + r.x[2] % (c->part->n - 1);
    move_earlier(c, from, r.x[1] % from);
    int64_t height = packer_run(c->packer, c->tried, FIT_FIRST, c->height, c->tried_offset);
    if (height > c->height) return;
    c->height = height;
    uint32_t *order = c->order;
    c->order = c->tried;
    c->tried = order;
    int64_t *offset = c->offset;
    c->offset = c->tried_offset;
    c->tried_offset = offset;
}

void part_climb(Arena *a, Packer *p, Part *part, uint32_t *order, int64_t goal,
                uint64_t most_visits, const AllocLimits *limits)
{
    if (part->n < 2) return;
    Climb c = {p,
               part,
               order,
               ARENA_ARRAY(a, uint32_t, part->n),
               ARENA_ARRAY(a, int64_t, part->n),
               ARENA_ARRAY(a, int64_t, part->n),
               0};
    uint64_t end = packer_visits(p) + most_visits;
    c.height = packer_run(p, order, FIT_FIRST, INT64_MAX, c.offset);
    uint32_t stale = 0;
    for (uint32_t t = 0; packer_visits(p) < end && c.height > goal; t++) {
        if (stale > STALE_TRIES + 4 * part->n || alloc_is_over(limits)) break;
        int64_t before = c.height;
        try_once(&c, t);
        stale = c.height < before ? 0 : stale + 1;
    }
    if (c.height >= part->height) return;
    part->height = c.height;
    part->step = "hill climb";
    for (uint32_t i = 0; i < part->n; i++) part->at[i].offset = c.offset[i];
}
