/* memplan_search.c -- mem_allocate: never overlaps, never below the bound, optimal where brute
 * force can tell, packs parts as well as alone, same result twice, time near-linear; both ways of
 * first fit agree with the obvious one. Public instances (MiniMalloc) where they are:
 * $ZMC_SHARED/data/memplan or ../shared/data/memplan. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ir/base/philox.h"
#include "passes/memory/allocate.h"

enum { MOST = 7, ALL_NODES = 4 << 20 };

static uint32_t draw(uint32_t *counter, uint32_t below)
{
    return philox((*counter)++, 0, 0, 0, 3, 4).x[0] % below;
}

static bool live_together(const AllocItem *x, const AllocItem *y)
{
    return x->from <= y->to && y->from <= x->to;
}

static int64_t live_bound(const AllocItem *it, uint32_t n)
{
    int64_t most = 0;
    for (uint32_t i = 0; i < n; i++) { /* a maximum is reached where some item starts */
        int64_t live = 0;
        for (uint32_t j = 0; j < n; j++)
            if (it[j].from <= it[i].from && it[i].from <= it[j].to) live += it[j].bytes;
        if (live > most) most = live;
    }
    return most;
}

static void check_packing(const AllocItem *it, uint32_t n, AllocResult r)
{
    int64_t height = 0;
    for (uint32_t i = 0; i < n; i++) {
        ZM_CHECK(it[i].offset >= 0);
        if (it[i].offset + it[i].bytes > height) height = it[i].offset + it[i].bytes;
        for (uint32_t j = 0; j < i; j++) {
            bool meet = it[i].offset < it[j].offset + it[j].bytes &&
                        it[j].offset < it[i].offset + it[i].bytes;
            ZM_CHECK(!meet || !live_together(&it[i], &it[j]));
        }
    }
    ZM_CHECK(height == r.height && r.height >= r.lower_bound && r.lower_bound >= live_bound(it, n));
}

/* ---- optimal ---- */

/* Least height over all orders, each item on top of the earlier ones that are live with it: the
 * best packing, its items lowered until each rests on another, is the one of its order by offset.
 */
static int64_t brute_force(AllocItem it[MOST], uint32_t n, uint32_t placed, int64_t height,
                           int64_t best)
{
    if (height >= best) return best;
    if (placed == n || placed == MOST) return height;
    for (uint32_t k = placed; k < n; k++) {
        AllocItem x = it[k];
        it[k] = it[placed];
        it[placed] = x;
        int64_t at = 0;
        for (uint32_t j = 0; j < placed; j++)
            if (live_together(&it[j], &x) && it[j].offset + it[j].bytes > at)
                at = it[j].offset + it[j].bytes;
        it[placed].offset = at;
        best = brute_force(it, n, placed + 1, at + x.bytes > height ? at + x.bytes : height, best);
        x = it[placed];
        it[placed] = it[k];
        it[k] = x;
    }
    return best;
}

static int64_t optimum(const AllocItem *it, uint32_t n)
{
    AllocItem copy[MOST];
    memcpy(copy, it, n * sizeof *it);
    return brute_force(copy, n, 0, 0, INT64_MAX);
}

static uint32_t small_instance(uint32_t *counter, AllocItem *it, int32_t start)
{
    uint32_t n = 3 + draw(counter, MOST - 2), times = 4 + draw(counter, 8);
    uint32_t sizes = draw(counter, 2) ? 4 : 12; /* few sizes: many equal ones */
    for (uint32_t i = 0; i < n; i++) {
        int32_t a = (int32_t)draw(counter, times), b = (int32_t)draw(counter, times);
        it[i] = (AllocItem){.bytes = 64 * (1 + draw(counter, sizes)),
                            .from = start + (a < b ? a : b),
                            .to = start + (a < b ? b : a)};
    }
    return n;
}

/* Without climb and other greedy orders the search has more to do; the bound that it proves is the
 * optimum, too. */
static void check_optimal(Arena *a, uint32_t *counter, int *searched)
{
    AllocItem it[MOST];
    uint32_t n = small_instance(counter, it, 0);
    int64_t best = optimum(it, n);
    AllocLimits limits = {.nodes = ALL_NODES};
    AllocResult r = mem_allocate(a, it, n, &limits);
    check_packing(it, n, r);
    ZM_CHECK(r.height == best && r.lower_bound == best);
    *searched += r.nodes > 0;
    limits.capacity = best;
    r = mem_allocate(a, it, n, &limits);
    ZM_CHECK(r.height <= best);
}

/* The search alone, from a part: finds at the optimum, and nothing below it. */
static void check_decision(Arena *a, uint32_t *counter)
{
    AllocItem it[MOST];
    uint32_t n = small_instance(counter, it, 0);
    int64_t best = optimum(it, n), offset[MOST];
    Part p = part_whole(a, it, n);
    AllocLimits limits = {0};
    for (uint32_t order = 0; order < N_SEARCH_ORDERS; order++) {
        Search *s = search_new(a, &p, order);
        ZM_CHECK(search_run(s, best - 1, ALL_NODES, &limits, offset) == SEARCH_NONE);
        ZM_CHECK(search_run(s, best, ALL_NODES, &limits, offset) == SEARCH_FOUND);
        ZM_CHECK(search_run(s, best, 0, &limits, offset) == SEARCH_LIMIT);
        AllocResult r = {.height = best, .lower_bound = live_bound(it, n)};
        for (uint32_t i = 0; i < n; i++) it[p.at[i].origin].offset = offset[i];
        int64_t height = 0;
        for (uint32_t i = 0; i < n; i++)
            if (it[i].offset + it[i].bytes > height) height = it[i].offset + it[i].bytes;
        ZM_CHECK(height <= best);
        r.height = height;
        check_packing(it, n, r);
    }
}

/* ---- parts ---- */

/* Groups one after another in time under items that span them all: the optimum is the highest
 * group's, plus those. */
static void check_parts(Arena *a, uint32_t *counter)
{
    AllocItem it[6 * MOST];
    uint32_t n = 0, groups = 2 + draw(counter, 4);
    int64_t highest = 0, under = 0;
    for (uint32_t g = 0; g < groups; g++) {
        uint32_t k = small_instance(counter, it + n, 100 * (int32_t)g);
        int64_t best = optimum(it + n, k);
        if (best > highest) highest = best;
        n += k;
    }
    for (uint32_t k = draw(counter, 3); k; k--) {
        it[n] = (AllocItem){
            .bytes = 64 * (1 + draw(counter, 9)), .from = 0, .to = 100 * (int32_t)groups};
        under += it[n++].bytes;
    }
    AllocLimits limits = {.nodes = ALL_NODES};
    AllocResult r = mem_allocate(a, it, n, &limits);
    check_packing(it, n, r);
    ZM_CHECK(r.height == under + highest && r.lower_bound == r.height);
}

/* ---- larger ---- */

static void random_instance(uint32_t *counter, AllocItem *it, uint32_t n, uint32_t times,
                            uint32_t width)
{
    for (uint32_t i = 0; i < n; i++) {
        it[i] = (AllocItem){.bytes = 64 * (1 + draw(counter, 100)),
                            .from = (int32_t)draw(counter, times)};
        it[i].to = it[i].from + (int32_t)draw(counter, width);
    }
}

static void check_larger(Arena *a, uint32_t *counter)
{
    enum { N = 150 };
    AllocItem it[N], again[N];
    uint32_t n = 20 + draw(counter, N - 20);
    random_instance(counter, it, n, 20 + draw(counter, 200), 1 + draw(counter, 60));
    memcpy(again, it, n * sizeof *it);
    AllocLimits limits = {.visits = 100000, .nodes = 2000};
    AllocResult r = mem_allocate(a, it, n, &limits);
    check_packing(it, n, r);
    Arena other = {0};
    AllocResult s = mem_allocate(&other, again, n, &limits);
    ZM_CHECK(memcmp(it, again, n * sizeof *it) == 0 && r.height == s.height && r.nodes == s.nodes);
    ZM_CHECK(strcmp(r.step, s.step) == 0);
    AllocLimits none = {0};
    ZM_CHECK(mem_allocate(&other, again, n, &none).height >=
             r.height); /* more steps are never worse */
    arena_free(&other);
}

static int compare_low(const void *x, const void *y)
{
    const AllocItem *a = *(AllocItem *const *)x, *b = *(AllocItem *const *)y;
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

/* First or best fit as one would write it. */
static int64_t obvious_fit(const AllocItem *it, const AllocItem **near, uint32_t n, Fit fit)
{
    int64_t top = 0, best = -1, best_size = INT64_MAX;
    qsort(near, n, sizeof *near, compare_low);
    for (uint32_t i = 0; i < n; i++) {
        int64_t size = near[i]->offset - top;
        if (size >= it->bytes && size < best_size && (fit == FIT_BEST || best < 0)) {
            best = top;
            best_size = size;
        }
        if (near[i]->offset + near[i]->bytes > top) top = near[i]->offset + near[i]->bytes;
    }
    return best < 0 ? top : best;
}

static void check_fits(Arena *a, uint32_t *counter)
{
    enum { N = 300 };
    AllocItem it[N];
    const AllocItem *near[N];
    uint32_t order[N];
    int64_t offset[N];
    random_instance(counter, it, N, 400,
                    draw(counter, 2) ? 5 : 80); /* few live together: the tree; many: the list */
    Part p = part_whole(a, it, N);
    Packer *packer = packer_new(a, &p);
    for (uint32_t k = 0; k < N_GREEDY_ORDERS; k++)
        for (Fit fit = 0; fit < N_FIT; fit++) {
            greedy_order(a, &p, k, order);
            packer_run(packer, order, fit, INT64_MAX, offset);
            for (uint32_t i = 0; i < N; i++) {
                AllocItem *x = &it[p.at[order[i]].origin];
                uint32_t n = 0;
                for (uint32_t j = 0; j < i; j++) {
                    const AllocItem *y = &it[p.at[order[j]].origin];
                    if (live_together(x, y)) near[n++] = y;
                }
                x->offset = obvious_fit(x, near, n, fit);
                ZM_CHECK(x->offset == offset[order[i]]);
            }
        }
}

/* ---- time ---- */

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* 20,000 items with lifetimes as in a training step: long ones from forward to backward, short ones
 * beside them. */
static void check_time(uint32_t *counter)
{
    enum { N = 20000 };
    Arena a = {0};
    AllocItem *it = ARENA_ARRAY(&a, AllocItem, N);
    for (int32_t i = 0; i < N / 4; i++) {
        int32_t fwd = 2 * i, bwd = 4 * N - 2 * i;
        const int32_t span[4][2] = {{fwd, bwd}, {fwd, fwd + 2}, {bwd - 3, bwd - 1}, {bwd - 3, bwd}};
        for (int k = 0; k < 4; k++)
            it[4 * i + k] = (AllocItem){
                .bytes = 64 * (1 + draw(counter, 1000)), .from = span[k][0], .to = span[k][1]};
    }
    double begin = cpu_seconds();
    AllocResult r = mem_allocate(&a, it, N, NULL);
    double seconds = cpu_seconds() - begin;
    ZM_CHECK((double)r.height <= 1.005 * (double)r.lower_bound);
#if !defined __SANITIZE_ADDRESS__
    ZM_CHECK(seconds < 2);
#endif
    printf("%d items: %.2f s, %.3f %% above the bound\n", N, seconds,
           100 * ((double)r.height / (double)r.lower_bound - 1));
    arena_free(&a);
}

/* ---- public instances ---- */

static bool read_instance(Arena *a, char name, AllocItem **items, uint32_t *n)
{
    const char *shared = getenv("ZMC_SHARED");
    FILE *f = fopen(
        arena_printf(a, "%s/data/memplan/%c.1048576.csv", shared ? shared : "../shared", name),
        "r");
    VEC(AllocItem) v = {0};
    char line[256];
    while (f && fgets(line, sizeof line, f)) {
        long long lo, hi, size;
        if (sscanf(line, "%*[^,],%lld,%lld,%lld", &lo, &hi, &size) == 3)
            VEC_PUSH(a, &v,
                     ((AllocItem){.bytes = size, .from = (int32_t)lo, .to = (int32_t)hi - 1}));
    }
    if (f) fclose(f);
    *items = v.at;
    *n = v.n;
    return v.n > 0;
}

/* 120,000 placements pack seven of them into the capacity, and none stays over 1.2 x the bound. */
static void check_public(uint32_t *n_read, uint32_t *n_fit)
{
    for (char name = 'A'; name <= 'K'; name++) {
        Arena a = {0};
        AllocItem *it;
        uint32_t n;
        if (!read_instance(&a, name, &it, &n)) {
            printf("skipped: MiniMalloc's instance %c is not there\n", name);
            arena_free(&a);
            continue;
        }
        AllocLimits limits = {.capacity = 1 << 20, .visits = 16 << 20, .nodes = 120000};
        AllocResult r = mem_allocate(&a, it, n, &limits);
        check_packing(it, n, r);
        ZM_CHECK((double)r.height <= 1.2 * (double)r.lower_bound);
        ++*n_read;
        *n_fit += r.height <= limits.capacity;
        arena_free(&a);
    }
}

int main(void)
{
    uint32_t counter = 0, n_read = 0, n_fit = 0;
    int searched = 0;
    for (int i = 0; i < 600; i++) {
        Arena a = {0};
        check_optimal(&a, &counter, &searched);
        if (i % 2) check_decision(&a, &counter);
        if (i % 3 == 0) check_parts(&a, &counter);
        if (i % 10 == 0) check_larger(&a, &counter);
        if (i % 60 == 0) check_fits(&a, &counter);
        arena_free(&a);
    }
    ZM_CHECK(searched > 10);
    check_time(&counter);
    check_public(&n_read, &n_fit);
    ZM_CHECK(n_read < 11 || n_fit >= 7);
    printf("600 cases, search needed in %d; %u of %u public instances fit\n", searched, n_fit,
           n_read);
    return 0;
}
