/* allocate_bound.c -- which heights the branch and bound is asked for, and how long (allocate.h).
 *
 * Rounds with twice the nodes each, restarted with every order of ranks: a search that goes wrong
 * early goes wrong for good, so trying others is better than going on.  A round first asks for the
 * goal, then for heights halfway between what is known to be hard and the best, as long as these
 * are found.  A search that ends without a packing raises the bound, so that with enough nodes the
 * height is proved least. */
#include "passes/memory/allocate.h"

#include <string.h>

typedef struct Minimise {
    Part *part;
    Search *search[N_SEARCH_ORDERS];
    int64_t *offset;
    int64_t unit; /* heights are multiples: the greatest common divisor of all bytes */
    uint64_t *left;
    const AllocLimits *limits;
} Minimise;

static int64_t common_divisor(const Part *p)
{
    int64_t d = 0;
    for (uint32_t i = 0; i < p->n; i++)
        for (int64_t b = p->at[i].bytes; b;) {
            int64_t r = d % b;
            d = b;
            b = r;
        }
    return d;
}

static void keep_solution(Minimise *z)
{
    Part *p = z->part;
    p->height = 0;
    p->step = "branch and bound";
    for (uint32_t i = 0; i < p->n; i++) {
        p->at[i].offset = z->offset[i];
        if (z->offset[i] + p->at[i].bytes > p->height) p->height = z->offset[i] + p->at[i].bytes;
    }
}

/* All orders of ranks, each with `most` nodes at most. */
static SearchEnd ask(Minimise *z, int64_t capacity, uint64_t most)
{
    for (uint32_t k = 0; k < N_SEARCH_ORDERS; k++) {
        Search *s = z->search[k];
        uint64_t before = search_nodes(s), allowed = most < *z->left ? most : *z->left;
        SearchEnd end = search_run(s, capacity, allowed, z->limits, z->offset);
        uint64_t used = search_nodes(s) - before; /* a little more than allowed, at times */
        *z->left -= used < *z->left ? used : *z->left;
        if (end == SEARCH_FOUND) keep_solution(z);
        if (end == SEARCH_NONE) z->part->bound = capacity / z->unit * z->unit + z->unit;
        if (end != SEARCH_LIMIT) return end;
        if (!*z->left || alloc_is_over(z->limits)) break;
    }
    return SEARCH_LIMIT;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* The goal, then ever lower heights. */
static void run_round(Minimise *z, int64_t goal, uint64_t most)
{
    Part *p = z->part;
    int64_t target = larger(goal, p->bound); /* what the round hopes for */
    SearchEnd end = ask(z, target, most);
    if (end == SEARCH_LIMIT) target += z->unit;
    while (end != SEARCH_LIMIT || target < p->height) {
        target = larger(target, p->bound);
        if (p->height <= target || !*z->left) return;
        int64_t middle = target + (p->height - target) / 2;
        end = ask(z, middle / z->unit * z->unit, most);
        if (end == SEARCH_LIMIT) return;
    }
}

void part_minimise(Arena *a, Part *part, int64_t goal, uint64_t *nodes, const AllocLimits *limits)
{
    if (part->n > SEARCH_MOST_ITEMS) return;
    Minimise z = {.part = part,
                  .offset = ARENA_ARRAY(a, int64_t, part->n),
                  .unit = common_divisor(part),
                  .left = nodes,
                  .limits = limits};
    for (uint32_t k = 0; k < N_SEARCH_ORDERS; k++) z.search[k] = search_new(a, part, k);
    for (uint64_t most = 2 * (uint64_t)part->n; *nodes && !alloc_is_over(limits); most *= 2) {
        if (part->height <= larger(goal, part->bound)) return;
        run_round(&z, goal, most);
    }
}
