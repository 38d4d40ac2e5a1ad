/* allocate_search.c -- branch and bound over canonical packings of a part (allocate.h).
 *
 * Source: M. D. Moffitt, "MiniMalloc: A Lightweight Memory Allocator for Hardware-Accelerated
 * Machine Learning", ASPLOS 2023.  Items are placed by increasing (offset, rank), each directly on
 * what lies below it: some best packing has this form.  Below a partial packing whose last item
 * lies at `floor`:
 *   - an item's low is the top of the placed items that share a section with it;
 *   - every item still to come lies at `floor` or above, so a candidate with low >= low(c) +
 * bytes(c) of another item c leaves a hole that c could have had: dominated;
 *   - an item with low below `floor` must come to rest on an unplaced neighbour: its low rises to
 * the least top that one of them can have, and without one the packing fails;
 *   - a section's unplaced bytes lie above the least low among them; above the capacity: fails;
 *   - unplaced items that fall apart in time are packed independently: when one side has no
 * packing, the other is not tried again.
 */
#include "passes/memory/allocate.h"

#include <stdlib.h>
#include <string.h>

enum { NODES_PER_LOOK = 1024 }; /* between two questions whether the search is over */

typedef struct Undo {
    int64_t *at, old;
} Undo;

/* A set of unplaced items with consecutive sections, the choices for the next one, and, after a
 * choice, the rest of the set of which a front has been packed. */
typedef struct Frame {
    const uint32_t *item; /* by first section */
    uint32_t n;
    uint32_t *candidate, n_candidates, next;
    uint32_t *rest, n_rest, n_packed;
    int64_t floor; /* (offset, rank) of the item placed last */
    uint32_t rank;
    size_t undo;   /* size of the trail before the choice */
    uint32_t *top; /* of the pool before this frame */
} Frame;

struct Search {
    const Part *part;
    uint32_t *rank;  /* by item; at equal offsets lower ranks first */
    int64_t *ground; /* by item: top of the placed items that share a section */
    int64_t *low;    /* by item: least offset that it can have, >= ground */
    int64_t *offset; /* by item; -1: not placed */
    int64_t *total;  /* by section: bytes not placed */
    int64_t *under;  /* by section: no unplaced item lies lower */
    int64_t *least;  /* by section, scratch */
    VEC(Undo) trail;
    Arena *a;
    Frame *frame;
    uint32_t depth;
    uint32_t *pool, *pool_top;
    int64_t capacity;
    uint64_t nodes;
};

/* ---- ranks ---- */

/* W width, A area, T total: WAT, TAW, TWA, each with the width in time and in sections. */
static void rank_items(Search *s, Arena *a, uint32_t order)
{
    const Part *p = s->part;
    OrderKey *key = ARENA_ARRAY(a, OrderKey, p->n);
    for (uint32_t i = 0; i < p->n; i++) {
        const PackItem *it = &p->at[i];
        int64_t w = order < N_SEARCH_ORDERS / 2 ? it->width : it->end - it->first;
        int64_t area = w * it->bytes, t = it->total;
        const OrderKey keys[] = {{{w, area, t}, i}, {{t, area, w}, i}, {{t, w, area}, i}};
        key[i] = keys[order % (N_SEARCH_ORDERS / 2)];
    }
    qsort(key, p->n, sizeof *key, compare_order_keys);
    for (uint32_t i = 0; i < p->n; i++) s->rank[key[i].item] = i;
}

Search *search_new(Arena *a, const Part *part, uint32_t order)
{
    ZM_CHECK(part->n <= SEARCH_MOST_ITEMS && order < N_SEARCH_ORDERS);
    Search *s = ARENA_NEW(a, Search);
    size_t n = part->n;
    *s = (Search){.part = part,
                  .a = a,
                  .rank = ARENA_ARRAY(a, uint32_t, n),
                  .ground = ARENA_ARRAY(a, int64_t, n),
                  .low = ARENA_ARRAY(a, int64_t, n),
                  .offset = ARENA_ARRAY(a, int64_t, n),
                  .total = ARENA_ARRAY(a, int64_t, part->n_sections),
                  .under = ARENA_ARRAY(a, int64_t, part->n_sections),
                  .least = ARENA_ARRAY(a, int64_t, part->n_sections),
                  .frame = ARENA_ARRAY(a, Frame, n + 1),
                  .pool = ARENA_ARRAY(a, uint32_t, n *(n + 3))};
    rank_items(s, a, order);
    return s;
}

uint64_t search_nodes(const Search *s)
{
    return s->nodes;
}

/* ---- one placement ---- */

static void set(Search *s, int64_t *at, int64_t value)
{
    VEC_PUSH(s->a, &s->trail, ((Undo){at, *at}));
    *at = value;
}

static void undo_to(Search *s, size_t mark)
{
    while (s->trail.n > mark) {
        Undo u = s->trail.at[--s->trail.n];
        *u.at = u.old;
    }
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Raises the lows of the items in rest that share a section with item b; the sections that these
 * touch: [*first, *end). */
static void raise_neighbours(Search *s, const Frame *f, uint32_t b, uint32_t *first, uint32_t *end)
{
    const PackItem *at = s->part->at;
    int64_t top = s->offset[b] + at[b].bytes;
    *first = at[b].first;
    *end = at[b].end;
    for (uint32_t k = 0; k < f->n_rest; k++) {
        uint32_t j = f->rest[k];
        if (at[j].first >= at[b].end) break; /* by first section */
        if (at[j].end <= at[b].first) continue;
        if (s->ground[j] < top) set(s, &s->ground[j], top);
        if (s->low[j] >= top) continue;
        set(s, &s->low[j], top);
        if (at[j].first < *first) *first = at[j].first;
        if (at[j].end > *end) *end = at[j].end;
    }
}

/* Has item j been passed over where it lies now? */
static bool is_late(const Search *s, uint32_t j, int64_t floor, uint32_t rank)
{
    int64_t at = s->ground[j];
    return at < s->low[j] || at < floor || (at == floor && s->rank[j] < rank);
}

/* An item that could only lie below the one placed last rests on an unplaced neighbour: raises its
 * low to the least top of those.  False: it has none.  Widens the touched sections. */
static bool raise_late(Search *s, const Frame *f, uint32_t b, uint32_t *first, uint32_t *end)
{
    const PackItem *at = s->part->at;
    int64_t floor = s->offset[b];
    for (uint32_t k = 0; k < f->n_rest; k++) {
        uint32_t j = f->rest[k];
        if (!is_late(s, j, floor, s->rank[b])) continue;
        int64_t least = INT64_MAX;
        for (uint32_t q = 0; q < f->n_rest; q++) {
            uint32_t i = f->rest[q];
            if (at[i].first >= at[j].end) break;
            if (at[i].end <= at[j].first || i == j) continue;
            int64_t top = larger(s->low[i], floor) + at[i].bytes;
            if (top < least) least = top;
        }
        if (least == INT64_MAX || least + at[j].bytes > s->capacity) return false;
        if (least <= s->low[j]) continue;
        set(s, &s->low[j], least);
        if (at[j].first < *first) *first = at[j].first;
        if (at[j].end > *end) *end = at[j].end;
    }
    return true;
}

/* The least low of the unplaced items of sections [first, end). */
static void raise_sections(Search *s, const Frame *f, uint32_t first, uint32_t end)
{
    const PackItem *at = s->part->at;
    for (uint32_t t = first; t < end; t++) s->least[t] = INT64_MAX;
    for (uint32_t k = 0; k < f->n_rest; k++) {
        uint32_t j = f->rest[k];
        if (at[j].first >= end) break;
        uint32_t from = at[j].first > first ? at[j].first : first;
        uint32_t to = at[j].end < end ? at[j].end : end;
        for (uint32_t t = from; t < to; t++)
            if (s->low[j] < s->least[t]) s->least[t] = s->low[j];
    }
    for (uint32_t t = first; t < end; t++)
        if (s->least[t] != INT64_MAX && s->least[t] > s->under[t])
            set(s, &s->under[t], s->least[t]);
}

/* Do the unplaced bytes of every section of the frame fit above what lies there? */
static bool sections_fit(const Search *s, const Frame *f, int64_t floor)
{
    const PackItem *at = s->part->at;
    uint32_t first = at[f->item[0]].first, end = first;
    for (uint32_t k = 0; k < f->n; k++)
        if (at[f->item[k]].end > end) end = at[f->item[k]].end;
    for (uint32_t t = first; t < end; t++)
        if (s->total[t] && larger(s->under[t], floor) + s->total[t] > s->capacity) return false;
    return true;
}

/* Places item b of the frame, which gets its rest.  False: no packing has it there. */
static bool place(Search *s, Frame *f, uint32_t b)
{
    const PackItem *at = s->part->at;
    int64_t offset = s->low[b];
    for (uint32_t t = at[b].first; t < at[b].end; t++)
        if (offset + s->total[t] > s->capacity) return false;
    s->nodes++;
    f->undo = s->trail.n;
    f->n_rest = f->n_packed = 0;
    for (uint32_t k = 0; k < f->n; k++)
        if (f->item[k] != b) f->rest[f->n_rest++] = f->item[k];
    set(s, &s->offset[b], offset);
    for (uint32_t t = at[b].first; t < at[b].end; t++)
        set(s, &s->total[t], s->total[t] - at[b].bytes);
    uint32_t first, end;
    raise_neighbours(s, f, b, &first, &end);
    if (!raise_late(s, f, b, &first, &end)) return false;
    raise_sections(s, f, first, end);
    return sections_fit(s, f, offset);
}

/* ---- the choices of a frame ---- */

static bool is_before(const Search *s, uint32_t i, uint32_t j)
{
    return s->low[i] != s->low[j] ? s->low[i] < s->low[j] : s->rank[i] < s->rank[j];
}

static void insert_sorted(const Search *s, Frame *f, uint32_t item)
{
    uint32_t at = f->n_candidates++;
    for (; at && is_before(s, item, f->candidate[at - 1]); at--)
        f->candidate[at] = f->candidate[at - 1];
    f->candidate[at] = item;
}

/* A frame for these items, on the stack. */
static void push_frame(Search *s, const uint32_t *item, uint32_t n, int64_t floor, uint32_t rank)
{
    Frame *f = &s->frame[s->depth++];
    *f = (Frame){.item = item, .n = n, .floor = floor, .rank = rank, .top = s->pool_top};
    f->candidate = s->pool_top;
    int64_t least_top = INT64_MAX;
    for (uint32_t k = 0; k < n; k++) {
        int64_t top = s->ground[item[k]] + s->part->at[item[k]].bytes;
        if (top < least_top) least_top = top;
    }
    for (uint32_t k = 0; k < n; k++) {
        uint32_t i = item[k];
        if (!is_late(s, i, floor, rank) && s->ground[i] < least_top) insert_sorted(s, f, i);
    }
    f->rest = f->candidate + f->n_candidates;
    s->pool_top = f->rest + n;
}

static void pop_frame(Search *s)
{
    s->pool_top = s->frame[--s->depth].top;
}

/* Pushes the next items of the rest that hang together; false when all are packed. */
static bool push_rest(Search *s, Frame *f)
{
    if (f->n_packed == f->n_rest) return false;
    const PackItem *at = s->part->at;
    uint32_t from = f->n_packed, to = from;
    for (uint32_t end = at[f->rest[from]].end; to < f->n_rest && at[f->rest[to]].first < end; to++)
        end = at[f->rest[to]].end > end ? at[f->rest[to]].end : end;
    f->n_packed = to;
    uint32_t placed = f->candidate[f->next - 1];
    push_frame(s, f->rest + from, to - from, s->offset[placed], s->rank[placed]);
    return true;
}

/* The next choice of the top frame that may have a packing; false when there is none. */
static bool choose_next(Search *s, Frame *f)
{
    while (f->next < f->n_candidates) {
        if (f->next) undo_to(s, f->undo);
        f->undo = s->trail.n;
        if (place(s, f, f->candidate[f->next++])) return true;
    }
    if (f->next) undo_to(s, f->undo);
    return false;
}

static void reset(Search *s, int64_t capacity)
{
    const Part *p = s->part;
    s->capacity = capacity;
    s->depth = 0;
    s->trail.n = 0;
    s->pool_top = s->pool;
    memset(s->total, 0, p->n_sections * sizeof *s->total);
    memset(s->under, 0, p->n_sections * sizeof *s->under);
    for (uint32_t i = 0; i < p->n; i++) {
        s->ground[i] = s->low[i] = 0;
        s->offset[i] = -1;
        for (uint32_t t = p->at[i].first; t < p->at[i].end; t++) s->total[t] += p->at[i].bytes;
    }
}

SearchEnd search_run(Search *s, int64_t capacity, uint64_t most_nodes, const AllocLimits *limits,
                     int64_t *offset)
{
    const Part *p = s->part;
    uint32_t *all = s->pool;
    reset(s, capacity);
    if (p->bound > capacity) return SEARCH_NONE;
    for (uint32_t i = 0; i < p->n; i++) all[i] = i;
    s->pool_top = all + p->n;
    uint64_t end = s->nodes + most_nodes, look = s->nodes + NODES_PER_LOOK;
    push_frame(s, all, p->n, 0, 0);
    bool is_packed = false; /* of the frame just popped */
    bool is_new = true;     /* the top frame was just pushed */
    while (s->depth) {
        Frame *f = &s->frame[s->depth - 1];
        if (s->nodes >= end) return SEARCH_LIMIT;
        if (s->nodes >= look) {
            if (alloc_is_over(limits)) return SEARCH_LIMIT;
            look += NODES_PER_LOOK;
        }
        bool has_choice = is_new || !is_packed ? choose_next(s, f) : true;
        if (has_choice && push_rest(s, f)) {
            is_new = true;
            continue;
        }
        is_packed = has_choice; /* nothing left to pack, or nothing left to choose */
        is_new = false;
        pop_frame(s);
    }
    if (!is_packed) return SEARCH_NONE;
    memcpy(offset, s->offset, p->n * sizeof *offset);
    return SEARCH_FOUND;
}
