/* allocate.c -- mem_allocate never overlaps, never beats the lower bound, and finds it on cases
 * where greedy orders do. */
#include <stdio.h>
#include <stdlib.h>

#include "ir/base/philox.h"
#include "passes/memory/memory.h"

static int64_t lower_bound(const AllocItem *it, uint32_t n)
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

static void check(Arena *a, AllocItem *it, uint32_t n, double at_most)
{
    int64_t height = mem_allocate(a, it, n, NULL).height;
    int64_t bound = lower_bound(it, n);
    ZM_CHECK(height >= bound && (double)height <= at_most * (double)bound);
    for (uint32_t i = 0; i < n; i++) {
        ZM_CHECK(it[i].offset >= 0 && it[i].offset + it[i].bytes <= height);
        for (uint32_t j = 0; j < i; j++) {
            bool together = it[i].from <= it[j].to && it[j].from <= it[i].to;
            bool meet = it[i].offset < it[j].offset + it[j].bytes &&
                        it[j].offset < it[i].offset + it[i].bytes;
            ZM_CHECK(!together || !meet);
        }
    }
}

static uint32_t draw(uint32_t *counter, uint32_t below)
{
    return philox((*counter)++, 0, 0, 0, 1, 2).x[0] % below;
}

/* A stack of lifetimes, as forward activations and their backward: every order by size or start is
 * optimal. */
static void check_nested(Arena *a)
{
    AllocItem it[9];
    for (int i = 0; i < 9; i++) it[i] = (AllocItem){.bytes = 64 * (i + 1), .from = i, .to = 20 - i};
    check(a, it, 9, 1.0);
}

static void check_random(Arena *a, uint32_t seed)
{
    uint32_t counter = seed * 1000;
    uint32_t n = 1 + draw(&counter, 60);
    AllocItem *it = ARENA_ARRAY(a, AllocItem, n);
    for (uint32_t i = 0; i < n; i++) {
        it[i].from = (int32_t)draw(&counter, 40);
        it[i].to = it[i].from + (int32_t)draw(&counter, 15);
        it[i].bytes = 64 * (1 + draw(&counter, 100));
    }
    check(a, it, n, 2.0); /* first fit in the worst case seen in theory is 3; random lifetimes stay
                             far below 2 */
}

/* Public instances (MiniMalloc, Apache-2.0): id,lower,upper,size with half-open times. */
static int check_file(Arena *a, const char *path)
{
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    VEC(AllocItem) items = {0};
    char line[256];
    while (fgets(line, sizeof line, f)) {
        long long lo, hi, size;
        char id[64];
        if (sscanf(line, "%63[^,],%lld,%lld,%lld", id, &lo, &hi, &size) == 4)
            VEC_PUSH(a, &items,
                     ((AllocItem){.bytes = size, .from = (int32_t)lo, .to = (int32_t)hi - 1}));
    }
    fclose(f);
    check(a, items.at, items.n, 1.6);
    return 1;
}

int main(int argc, char **argv)
{
    Arena a = {0};
    check_nested(&a);
    for (uint32_t seed = 0; seed < 200; seed++) check_random(&a, seed);
    int files = 0;
    for (int i = 1; i < argc; i++) files += check_file(&a, argv[i]);
    ZM_CHECK(mem_allocate(&a, NULL, 0, NULL).height == 0);
    printf("200 random cases, %d files\n", files);
    arena_free(&a);
    return 0;
}
