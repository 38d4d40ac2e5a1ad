/* allocate.h -- what the files of the allocator share (interface: mem_allocate in memory.h).
 *
 *   allocate.c         the steps one after another, until a height meets the lower bound
 *   allocate_part.c    sections, lower bound, parts that can be packed one by one
 *   allocate_greedy.c  items one by one in some order: first fit and best fit
 *   allocate_climb.c   hill climb on the order
 *   allocate_search.c  branch and bound: packs a part below a given height, or proves that none can
 *   allocate_bound.c   which heights the search is asked for, with how many nodes
 *
 * Time is measured in sections: section s is the s-th set of items live together that is no subset
 * of another such set.  Two items are live together exactly when they share a section (intervals
 * have the Helly property), and an item's sections are consecutive.
 */
#ifndef ZM_PASSES_MEMORY_ALLOCATE_H
#define ZM_PASSES_MEMORY_ALLOCATE_H

#include "passes/memory/memory.h"

typedef struct PackItem {
    int64_t bytes, offset;
    int64_t total;       /* most bytes live in any of its sections, itself included */
    int64_t width;       /* of its lifetime */
    uint32_t first, end; /* sections [first, end) */
    uint32_t origin;     /* the caller's number of it */
} PackItem;

/* Items that share no section with the rest of their level; offsets are above `base`. */
typedef struct Part {
    PackItem *at; /* by first section, longer ones first */
    uint32_t n, n_sections;
    int64_t base;
    int64_t bound; /* most bytes live in a section */
    int64_t height;
    const char *step; /* that found the height */
} Part;

typedef VEC(Part) Parts;

/* Sorts items for one order: larger keys first, equal ones by number. */
typedef struct OrderKey {
    int64_t key[3];
    uint32_t item;
} OrderKey;
int compare_order_keys(const void *x, const void *y); /* for qsort */

/* Items of the caller as one part with sections, totals and bound; its offsets are not set. */
Part part_whole(Arena *a, const AllocItem *items, uint32_t n);

/* Without loss: an item of all sections lies at the bottom of its part, and where no item goes from
 * one section to the next the part falls in two.  `placed` gets the items at bottoms (with
 * offsets), `parts` what is left; at most `most_visits` items are looked at. */
typedef VEC(PackItem) PackItems;
void part_split(Arena *a, const AllocItem *items, Part whole, uint64_t most_visits,
                PackItems *placed, Parts *parts);

/* ---- greedy ---- */

typedef enum { FIT_FIRST, FIT_BEST, N_FIT } Fit;

typedef struct Packer Packer;
Packer *packer_new(Arena *a, const Part *part);

enum { N_GREEDY_ORDERS = 7 };
const char *greedy_step_name(uint32_t order, Fit fit);
void greedy_order(Arena *a, const Part *part, uint32_t order, uint32_t *out);

/* Places the items in this order into offset[]; the height, or INT64_MAX as soon as an item ends
 * above `most`. */
int64_t packer_run(Packer *p, const uint32_t *order, Fit fit, int64_t most, int64_t *offset);
uint64_t packer_visits(const Packer *p); /* of all runs: items looked at */

/* ---- better than greedy ---- */

/* From `order` on: moves items that end at the top forward, keeps what is not higher.  Ends at
 * `goal` or after `most_visits` more visits.  Sets part->at[].offset and height where lower. */
void part_climb(Arena *a, Packer *p, Part *part, uint32_t *order, int64_t goal,
                uint64_t most_visits, const AllocLimits *limits);

typedef enum { SEARCH_FOUND, SEARCH_NONE, SEARCH_LIMIT } SearchEnd;
enum { N_SEARCH_ORDERS = 6, SEARCH_MOST_ITEMS = 2048 };
typedef struct Search Search;
Search *search_new(Arena *a, const Part *part, uint32_t order);

/* A packing of height <= capacity into offset[] (by the part's items), or none exists, or the nodes
 * did not suffice. */
SearchEnd search_run(Search *s, int64_t capacity, uint64_t most_nodes, const AllocLimits *limits,
                     int64_t *offset);
uint64_t search_nodes(const Search *s); /* of all runs */

/* Lowers part->height towards `goal`; raises part->bound where the search proves more.  *nodes:
 * left, counted down. */
void part_minimise(Arena *a, Part *part, int64_t goal, uint64_t *nodes, const AllocLimits *limits);

static inline bool alloc_is_over(const AllocLimits *l)
{
    return l->is_over && l->is_over(l->over);
}

#endif
