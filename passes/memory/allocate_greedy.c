/* allocate_greedy.c -- items placed one by one in some order (allocate.h).
 *
 * Orders as in XLA's heap simulator (size, lifetime, area, start), TVM's USMP and MiniMalloc (WAT,
 * TWA).  What an item must avoid are the placed items that share a section with it, by offset.  Two
 * ways find them, the cheaper one by counts known beforehand: all placed items kept by offset, or a
 * tree over the items by first section that knows the last section of what is placed below a node.
 */
#include "passes/memory/allocate.h"

#include <stdlib.h>
#include <string.h>

typedef struct Placed {
    int64_t low, top;
    uint32_t first, end;
} Placed;

struct Packer {
    const Part *part;
    Placed *by_offset; /* all placed items */
    Placed *near;      /* those in the way of one item */
    uint32_t n_placed;
    uint32_t *n_near; /* by item: items that share a section */
    uint32_t *ends;   /* tree of item indices: largest end among placed items, [n_leaves + i] */
    uint32_t n_leaves;
    const int64_t *offset;
    uint64_t visits;
};

/* ---- orders ---- */

static const char *const step_names[N_GREEDY_ORDERS][N_FIT] = {
    {"greedy size first-fit", "greedy size best-fit"},
    {"greedy area first-fit", "greedy area best-fit"},
    {"greedy lifetime first-fit", "greedy lifetime best-fit"},
    {"greedy start first-fit", "greedy start best-fit"},
    {"greedy end first-fit", "greedy end best-fit"},
    {"greedy WAT first-fit", "greedy WAT best-fit"},
    {"greedy TWA first-fit", "greedy TWA best-fit"},
};

const char *greedy_step_name(uint32_t order, Fit fit)
{
    return step_names[order][fit];
}

void greedy_order(Arena *a, const Part *part, uint32_t order, uint32_t *out)
{
    OrderKey *key = ARENA_ARRAY(a, OrderKey, part->n);
    for (uint32_t i = 0; i < part->n; i++) {
        const PackItem *it = &part->at[i];
        int64_t size = it->bytes, w = it->end - it->first, area = size * w, total = it->total;
        const int64_t keys[N_GREEDY_ORDERS][3] = {{size, w, 0},
                                                  {area, size, 0},
                                                  {w, size, 0},
                                                  {-(int64_t)it->first, w, 0},
                                                  {(int64_t)it->end, w, 0},
                                                  {w, area, total},
                                                  {total, w, area}};
        key[i].item = i;
        memcpy(key[i].key, keys[order], sizeof key[i].key);
    }
    qsort(key, part->n, sizeof *key, compare_order_keys);
    for (uint32_t i = 0; i < part->n; i++) out[i] = key[i].item;
}

/* ---- what is in an item's way ---- */

/* Items that share a section with item i: those that start before its end, less those that have
 * ended by its start. */
static void count_near(Arena *a, Packer *p)
{
    const Part *part = p->part;
    uint32_t *starts = ARENA_ARRAY(a, uint32_t, (size_t)part->n_sections + 1);
    uint32_t *ends = ARENA_ARRAY(a, uint32_t, (size_t)part->n_sections + 1);
    for (uint32_t i = 0; i < part->n; i++) {
        starts[part->at[i].first]++;
        ends[part->at[i].end]++;
    }
    for (uint32_t t = 1; t <= part->n_sections; t++) {
        starts[t] += starts[t - 1];
        ends[t] += ends[t - 1];
    }
    for (uint32_t i = 0; i < part->n; i++)
        p->n_near[i] = starts[part->at[i].end - 1] - ends[part->at[i].first];
}

Packer *packer_new(Arena *a, const Part *part)
{
    Packer *p = ARENA_NEW(a, Packer);
    uint32_t leaves = 1;
    while (leaves < part->n) leaves *= 2;
    *p = (Packer){.part = part,
                  .by_offset = ARENA_ARRAY(a, Placed, part->n),
                  .near = ARENA_ARRAY(a, Placed, part->n),
                  .n_near = ARENA_ARRAY(a, uint32_t, part->n),
                  .ends = ARENA_ARRAY(a, uint32_t, (size_t)leaves * 2),
                  .n_leaves = leaves};
    count_near(a, p);
    return p;
}

uint64_t packer_visits(const Packer *p)
{
    return p->visits;
}

static int compare_placed(const void *x, const void *y)
{
    const Placed *a = x, *b = y;
    return a->low != b->low ? (a->low < b->low ? -1 : 1) : 0;
}

/* Appends the placed items of leaves [leaf, leaf + size) that end after `first` and start before
 * `end`, under tree node `node`. */
static uint32_t gather(Packer *p, const PackItem *it)
{
    const PackItem *at = p->part->at;
    struct {
        uint32_t node, leaf, size;
    } stack[64] = {{1, 0, p->n_leaves}};
    uint32_t depth = 1, n = 0;
    while (depth) {
        uint32_t node = stack[--depth].node, leaf = stack[depth].leaf, size = stack[depth].size;
        p->visits++;
        if (leaf >= p->part->n || at[leaf].first >= it->end || p->ends[node] <= it->first) continue;
        if (size == 1) {
            p->near[n++] = (Placed){p->offset[leaf], p->offset[leaf] + at[leaf].bytes, 0, 0};
            continue;
        }
        stack[depth].node = 2 * node + 1;
        stack[depth].leaf = leaf + size / 2;
        stack[depth++].size = size / 2;
        stack[depth].node = 2 * node;
        stack[depth].leaf = leaf;
        stack[depth++].size = size / 2;
    }
    qsort(p->near, n, sizeof *p->near, compare_placed);
    p->visits += 8 * n;
    return n;
}

/* ---- fits ---- */

typedef struct Gap {
    int64_t at, size;
} Gap;

/* Takes the gap [at, at + size) when it fits better.  True: no other can be better. */
static bool take_gap(Gap *best, Gap g, int64_t bytes, Fit fit)
{
    if (g.size < bytes || g.size >= best->size) return false;
    *best = g;
    return fit == FIT_FIRST || g.size == bytes;
}

static int64_t fit_between(Packer *p, const Placed *placed, uint32_t n, const PackItem *it, Fit fit,
                           bool is_near)
{
    Gap best = {.size = INT64_MAX};
    int64_t top = 0;
    bool is_done = false;
    uint32_t i = 0;
    for (; i < n && !is_done; i++) {
        if (!is_near && (placed[i].first >= it->end || placed[i].end <= it->first)) continue;
        is_done = take_gap(&best, (Gap){top, placed[i].low - top}, it->bytes, fit);
        if (placed[i].top > top) top = placed[i].top;
    }
    p->visits += i;
    return best.size == INT64_MAX ? top : best.at;
}

static int64_t find_offset(Packer *p, uint32_t item, Fit fit)
{
    const PackItem *it = &p->part->at[item];
    if (16 * (uint64_t)p->n_near[item] > p->n_placed)
        return fit_between(p, p->by_offset, p->n_placed, it, fit, false);
    uint32_t n = gather(p, it);
    return fit_between(p, p->near, n, it, fit, true);
}

static void keep_placed(Packer *p, uint32_t item, int64_t offset)
{
    const PackItem *it = &p->part->at[item];
    uint32_t lo = 0, hi = p->n_placed;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (p->by_offset[mid].low < offset)
            lo = mid + 1;
        else
            hi = mid;
    }
    memmove(&p->by_offset[lo + 1], &p->by_offset[lo], (p->n_placed - lo) * sizeof(Placed));
    p->by_offset[lo] = (Placed){offset, offset + it->bytes, it->first, it->end};
    p->n_placed++;
    for (uint32_t node = p->n_leaves + item; node && p->ends[node] < it->end; node /= 2)
        p->ends[node] = it->end;
}

int64_t packer_run(Packer *p, const uint32_t *order, Fit fit, int64_t most, int64_t *offset)
{
    p->n_placed = 0;
    p->offset = offset;
    memset(p->ends, 0, (size_t)p->n_leaves * 2 * sizeof *p->ends);
    p->visits += p->part->n;
    int64_t height = 0;
    for (uint32_t k = 0; k < p->part->n; k++) {
        uint32_t i = order[k];
        offset[i] = find_offset(p, i, fit);
        int64_t top = offset[i] + p->part->at[i].bytes;
        if (top > most) return INT64_MAX;
        if (top > height) height = top;
        keep_placed(p, i, offset[i]);
    }
    return height;
}
