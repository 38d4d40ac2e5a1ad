/* allocate.c -- dynamic storage allocation, step by step until a height meets the lower bound
 * (allocate.h).
 *
 *   1. sections; the lower bound is the most bytes live at once
 *   2. parts: what lies at the bottom without loss, what falls apart in time
 *   3. per part: greedy orders, first fit and best fit        (O(n log n + pairs) each)
 *   4. then a hill climb on the best order,
 *   5. then branch and bound, each within its limit.
 * A part needs to be no lower than the bound of the whole allows.
 */
#include "passes/memory/allocate.h"

#include <stdlib.h>
#include <string.h>

enum {
    SPLIT_LEVELS = 64,  /* visits of all items that looking for parts may cost */
    MOST_NODES = 20000, /* by default */
    CLIMB_SHARE = 8     /* the climb's part of the limit of visits */
};

/* A node costs up to some 10 n visits. */
AllocLimits alloc_limits_default(uint32_t n)
{
    uint64_t nodes = (8u << 20) / (n ? n : 1);
    return (AllocLimits){.visits = 128u << 20, .nodes = nodes < MOST_NODES ? nodes : MOST_NODES};
}

typedef struct Allocation {
    Arena *a;
    const AllocLimits *limits;
    int64_t goal; /* of the whole height */
    uint64_t nodes;
    uint64_t visits;
} Allocation;

static void keep_offsets(Part *p, const int64_t *offset, int64_t height, const char *step)
{
    for (uint32_t i = 0; i < p->n; i++) p->at[i].offset = offset[i];
    p->height = height;
    p->step = step;
}

/* The best of the greedy orders; *best_order: that order. */
static void pack_greedy(Allocation *al, Packer *packer, Part *p, int64_t goal, uint32_t *best_order)
{
    uint32_t *order = ARENA_ARRAY(al->a, uint32_t, p->n);
    int64_t *offset = ARENA_ARRAY(al->a, int64_t, p->n);
    p->height = INT64_MAX;
    for (uint32_t k = 0; k < N_GREEDY_ORDERS; k++) {
        greedy_order(al->a, p, k, order);
        for (Fit fit = 0; fit < N_FIT; fit++) {
            int64_t height = packer_run(packer, order, fit, p->height - 1, offset);
            if (height < p->height) {
                keep_offsets(p, offset, height, greedy_step_name(k, fit));
                memcpy(best_order, order, p->n * sizeof *order);
            }
            if (p->height <= goal || packer_visits(packer) > al->visits) return;
        }
    }
}

static void pack_part(Allocation *al, Part *p)
{
    int64_t goal = al->goal - p->base;
    Packer *packer = packer_new(al->a, p);
    uint32_t *order = ARENA_ARRAY(al->a, uint32_t, p->n);
    pack_greedy(al, packer, p, goal, order);
    if (p->height > goal)
        part_climb(al->a, packer, p, order, goal, al->limits->visits / CLIMB_SHARE, al->limits);
    if (p->height > goal) {
        uint64_t left = al->limits->nodes;
        part_minimise(al->a, p, goal, &left, al->limits);
        al->nodes += al->limits->nodes - left;
    }
}

/* The items at the bottom of their parts, and then each part's. */
static void give_offsets(AllocItem *items, const PackItem *at, uint32_t n, int64_t base)
{
    for (uint32_t i = 0; i < n; i++) items[at[i].origin].offset = base + at[i].offset;
}

AllocResult mem_allocate(Arena *scratch, AllocItem *items, uint32_t n, const AllocLimits *limits)
{
    AllocLimits standard = alloc_limits_default(n);
    AllocResult r = {.step = "nothing to place"};
    if (!n) return r;
    Part whole = part_whole(scratch, items, n);
    Allocation al = {.a = scratch, .limits = limits ? limits : &standard};
    al.visits = al.limits->visits;
    PackItems placed = {0};
    Parts parts = {0};
    int64_t bound = whole.bound;
    part_split(scratch, items, whole, (uint64_t)n * SPLIT_LEVELS, &placed, &parts);
    al.goal = bound > al.limits->capacity ? bound : al.limits->capacity;
    r = (AllocResult){.step = "stacked", .lower_bound = bound};
    give_offsets(items, placed.at, placed.n, 0);
    for (uint32_t i = 0; i < placed.n; i++) {
        int64_t top = placed.at[i].offset + placed.at[i].bytes;
        if (top > r.height) r.height = top;
    }
    for (uint32_t i = 0; i < parts.n; i++) {
        Part *p = &parts.at[i];
        pack_part(&al, p);
        give_offsets(items, p->at, p->n, p->base);
        if (p->base + p->bound > r.lower_bound) r.lower_bound = p->base + p->bound;
        if (p->base + p->height <= r.height) continue;
        r.height = p->base + p->height;
        r.step = p->step;
    }
    r.nodes = al.nodes;
    return r;
}
