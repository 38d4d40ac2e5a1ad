/* allocate.c -- dynamic storage allocation: first fit over several orders (memory.h).
 *
 * Source: greedy by size, arXiv:2001.03288; orders as in XLA's heap simulator and MiniMalloc. */
#include "passes/memory/memory.h"

#include <stdlib.h>
#include <string.h>

typedef struct Keyed {
    double key; /* larger first */
    uint32_t item;
} Keyed;

typedef struct Span {
    int64_t lo, hi;
} Span;

typedef double (*OrderKey)(const AllocItem *it);

static double by_size(const AllocItem *it)
{
    return (double)it->bytes;
}

static double by_area(const AllocItem *it)
{
    return (double)it->bytes * (it->to - it->from + 1);
}

static double by_lifetime(const AllocItem *it)
{
    return it->to - it->from;
}

static double by_start(const AllocItem *it)
{
    return -it->from;
}

static int compare_keyed(const void *x, const void *y)
{
    const Keyed *a = x, *b = y;
    if (a->key != b->key) return a->key > b->key ? -1 : 1;
    return a->item < b->item ? -1 : a->item > b->item;
}

static int compare_span(const void *x, const void *y)
{
    const Span *a = x, *b = y;
    return a->lo < b->lo ? -1 : a->lo > b->lo;
}

/* Lowest gap of `bytes` between the spans. */
static int64_t first_fit(Span *span, uint32_t n, int64_t bytes)
{
    qsort(span, n, sizeof *span, compare_span);
    int64_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (span[i].lo - at >= bytes) return at;
        if (span[i].hi > at) at = span[i].hi;
    }
    return at;
}

typedef struct Packer {
    AllocItem *items;
    uint32_t n;
    Keyed *order;
    Span *span;
} Packer;

static int64_t pack_in_order(Packer *p, OrderKey key)
{
    for (uint32_t i = 0; i < p->n; i++) p->order[i] = (Keyed){key(&p->items[i]), i};
    qsort(p->order, p->n, sizeof *p->order, compare_keyed);
    int64_t height = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        AllocItem *it = &p->items[p->order[i].item];
        uint32_t n_span = 0;
        for (uint32_t j = 0; j < i; j++) {
            const AllocItem *other = &p->items[p->order[j].item];
            if (other->from <= it->to && it->from <= other->to)
                p->span[n_span++] = (Span){other->offset, other->offset + other->bytes};
        }
        it->offset = first_fit(p->span, n_span, it->bytes);
        if (it->offset + it->bytes > height) height = it->offset + it->bytes;
    }
    return height;
}

int64_t mem_allocate(Arena *scratch, AllocItem *items, uint32_t n)
{
    static const OrderKey orders[] = {by_size, by_area, by_lifetime, by_start};
    Packer p = {items, n, ARENA_ARRAY(scratch, Keyed, n), ARENA_ARRAY(scratch, Span, n)};
    int64_t *best_offset = ARENA_ARRAY(scratch, int64_t, n);
    int64_t best = INT64_MAX;
    for (size_t k = 0; k < sizeof orders / sizeof *orders; k++) {
        int64_t height = pack_in_order(&p, orders[k]);
        if (height >= best) continue;
        best = height;
        for (uint32_t i = 0; i < n; i++) best_offset[i] = items[i].offset;
    }
    for (uint32_t i = 0; i < n; i++) items[i].offset = best_offset[i];
    return n ? best : 0;
}
