/* allocate_part.c -- sections of items with lifetimes, and parts packed one by one (allocate.h). */
#include "passes/memory/allocate.h"

#include <stdlib.h>
#include <string.h>

/* ---- sections ---- */

typedef struct Event {
    int64_t time; /* 2 t: an item starts; 2 t + 1: an item has ended */
    uint32_t item;
} Event;

static int compare_events(const void *x, const void *y)
{
    const Event *a = x, *b = y;
    if (a->time != b->time) return a->time < b->time ? -1 : 1;
    return a->item < b->item ? -1 : a->item > b->item;
}

static int compare_items(const void *x, const void *y)
{
    const PackItem *a = x, *b = y;
    if (a->first != b->first) return a->first < b->first ? -1 : 1;
    if (a->end != b->end) return a->end > b->end ? -1 : 1;
    return a->origin < b->origin ? -1 : a->origin > b->origin;
}

/* A set of live items is largest where the next event is an end and the last one was a start. */
static void find_sections(Arena *a, Part *p, const AllocItem *items)
{
    Event *event = ARENA_ARRAY(a, Event, (size_t)p->n * 2);
    for (uint32_t i = 0; i < p->n; i++) {
        const AllocItem *it = &items[p->at[i].origin];
        event[2 * i] = (Event){2 * (int64_t)it->from, i};
        event[2 * i + 1] = (Event){2 * (int64_t)it->to + 1, i};
    }
    qsort(event, (size_t)p->n * 2, sizeof *event, compare_events);
    bool has_grown = false;
    p->n_sections = 0;
    for (size_t e = 0; e < (size_t)p->n * 2; e++) {
        PackItem *it = &p->at[event[e].item];
        bool is_end = event[e].time & 1;
        if (is_end && has_grown) p->n_sections++;
        has_grown = !is_end;
        if (is_end)
            it->end = p->n_sections;
        else
            it->first = p->n_sections;
    }
    qsort(p->at, p->n, sizeof *p->at, compare_items);
}

/* ---- totals: the largest of a range of sections, from a table of ranges of 2^k ---- */

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void find_totals(Arena *a, Part *p)
{
    uint32_t n = p->n_sections, levels = 1;
    while (n >> levels) levels++;
    int64_t **most = ARENA_ARRAY(a, int64_t *, levels);
    most[0] = ARENA_ARRAY(a, int64_t, (size_t)n + 1);
    for (uint32_t i = 0; i < p->n; i++) {
        most[0][p->at[i].first] += p->at[i].bytes;
        most[0][p->at[i].end] -= p->at[i].bytes;
    }
    p->bound = 0;
    for (uint32_t t = 0; t < n; t++) {
        if (t) most[0][t] += most[0][t - 1];
        p->bound = larger(p->bound, most[0][t]);
    }
    for (uint32_t k = 1; k < levels; k++) {
        most[k] = ARENA_ARRAY(a, int64_t, n);
        for (uint32_t t = 0; t + (1u << k) <= n; t++)
            most[k][t] = larger(most[k - 1][t], most[k - 1][t + (1u << (k - 1))]);
    }
    for (uint32_t i = 0; i < p->n; i++) {
        PackItem *it = &p->at[i];
        uint32_t k = 0;
        while (2u << k <= it->end - it->first) k++;
        it->total = larger(most[k][it->first], most[k][it->end - (1u << k)]);
    }
}

int compare_order_keys(const void *x, const void *y)
{
    const OrderKey *a = x, *b = y;
    for (int i = 0; i < 3; i++)
        if (a->key[i] != b->key[i]) return a->key[i] > b->key[i] ? -1 : 1;
    return a->item < b->item ? -1 : a->item > b->item;
}

Part part_whole(Arena *a, const AllocItem *items, uint32_t n)
{
    Part p = {.at = ARENA_ARRAY(a, PackItem, n), .n = n};
    for (uint32_t i = 0; i < n; i++) {
        ZM_CHECK(items[i].bytes > 0 && items[i].from <= items[i].to);
        p.at[i] = (PackItem){.bytes = items[i].bytes,
                             .width = (int64_t)items[i].to - items[i].from + 1,
                             .origin = i};
    }
    find_sections(a, &p, items);
    find_totals(a, &p);
    return p;
}

/* ---- parts ---- */

/* Puts the items of all sections at the bottom.  They come first: by first section, longer first.
 */
static bool take_bottom(Arena *a, Part *p, PackItems *placed)
{
    uint32_t k = 0;
    for (; k < p->n && p->at[k].first == 0 && p->at[k].end == p->n_sections; k++) {
        p->at[k].offset = p->base;
        p->base += p->at[k].bytes;
        VEC_PUSH(a, placed, p->at[k]);
    }
    p->at += k;
    p->n -= k;
    return k;
}

/* Adds the groups of items that hang together in time; their sections stay the whole's. */
static void split_at_gaps(Arena *a, Part p, Parts *out)
{
    while (p.n) {
        uint32_t k = 0, end = p.at[0].end;
        for (; k < p.n && p.at[k].first < end; k++)
            if (p.at[k].end > end) end = p.at[k].end;
        Part front = p;
        front.n = k;
        VEC_PUSH(a, out, front);
        p.at += k;
        p.n -= k;
    }
}

void part_split(Arena *a, const AllocItem *items, Part whole, uint64_t most_visits,
                PackItems *placed, Parts *parts)
{
    Parts todo = {0};
    split_at_gaps(a, whole, &todo);
    for (uint64_t visits = 0; todo.n;) {
        Part p = todo.at[--todo.n];
        find_sections(a, &p, items);
        visits += p.n;
        if (visits < most_visits && take_bottom(a, &p, placed)) {
            split_at_gaps(a, p, &todo);
            continue;
        }
        find_totals(a, &p);
        VEC_PUSH(a, parts, p);
    }
}
