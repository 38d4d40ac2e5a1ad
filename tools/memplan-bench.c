/* memplan-bench.c -- how well mem_allocate packs buffers of CSV files: MiniMalloc's format
 * (id,lower,upper,size; times half-open), what `zmc plan --csv` writes too. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "passes/memory/memory.h"

static const char usage[] =
    "usage: memplan-bench [--capacity=BYTES] [--seconds=S] [--nodes=N] FILE.csv...\n"
    "  Per file: buffers, lower bound, best greedy order, height after S seconds of one core\n"
    "  (default 5), whether it is within the capacity, placements searched, seconds.\n"
    "  --capacity=BYTES  the search ends when the height is at most this (default: the lower "
    "bound)\n"
    "  --nodes=N         ends after N placements as well: the same result on every machine\n"
    "Exit status: 0 when every file is within its capacity, 1 when not, 2 on bad use.\n";

typedef struct Options {
    int64_t capacity;
    double seconds;
    uint64_t nodes;
} Options;

typedef VEC(AllocItem) Items;

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool is_over(void *deadline)
{
    return cpu_seconds() >= *(double *)deadline;
}

static bool at_once(void *nothing)
{
    (void)nothing;
    return true;
}

/* ---- input ---- */

static bool read_items(Arena *a, const char *path, Items *out)
{
    FILE *f = fopen(path, "r");
    if (!f) {
        fprintf(stderr, "memplan-bench: %s: %s\n", path, strerror(errno));
        return false;
    }
    char line[1024];
    for (int n = 1; fgets(line, sizeof line, f); n++) {
        long long lower, upper, bytes;
        if (n == 1 && strncmp(line, "id,", 3) == 0) continue;
        bool is_row = sscanf(line, "%*[^,],%lld,%lld,%lld", &lower, &upper, &bytes) == 3;
        if (!is_row || bytes <= 0 || lower < 0 || upper <= lower || upper > INT32_MAX) {
            fprintf(stderr, "memplan-bench: %s:%d: not id,lower,upper,size with lower < upper: %s",
                    path, n, line);
            fclose(f);
            return false;
        }
        VEC_PUSH(a, out,
                 ((AllocItem){.bytes = bytes, .from = (int32_t)lower, .to = (int32_t)upper - 1}));
    }
    fclose(f);
    return true;
}

/* ---- one file ---- */

static double over_bound(const AllocResult *r, int64_t bound)
{
    return bound ? 100.0 * ((double)r->height / (double)bound - 1) : 0;
}

static bool run_file(const char *path, const Options *o)
{
    Arena a = {0};
    Items items = {0};
    if (!read_items(&a, path, &items)) exit(2);
    AllocLimits greedy = {.capacity = o->capacity, .visits = UINT64_MAX, .is_over = at_once};
    AllocResult first = mem_allocate(&a, items.at, items.n, &greedy);
    double begin = cpu_seconds(), deadline = begin + o->seconds;
    AllocLimits limits = {.capacity = o->capacity,
                          .visits = alloc_limits_default(items.n).visits,
                          .nodes = o->nodes,
                          .is_over = is_over,
                          .over = &deadline};
    AllocResult r = mem_allocate(&a, items.at, items.n, &limits);
    int64_t goal = o->capacity > r.lower_bound ? o->capacity : r.lower_bound;
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    printf("%-16s %6u %14lld %+8.3f %% %14lld %+8.3f %% %-4s %10llu %8.3f s  %s\n", name, items.n,
           (long long)first.lower_bound, over_bound(&first, first.lower_bound), (long long)r.height,
           over_bound(&r, first.lower_bound), r.height <= goal ? "fits" : "no",
           (unsigned long long)r.nodes, cpu_seconds() - begin, r.step);
    fflush(stdout);
    arena_free(&a);
    return r.height <= goal;
}

static bool read_option(Options *o, const char *arg)
{
    char *end;
    if (strncmp(arg, "--capacity=", 11) == 0)
        o->capacity = strtoll(arg + 11, &end, 10);
    else if (strncmp(arg, "--seconds=", 10) == 0)
        o->seconds = strtod(arg + 10, &end);
    else if (strncmp(arg, "--nodes=", 8) == 0)
        o->nodes = strtoull(arg + 8, &end, 10);
    else
        return false;
    return end != strchr(arg, '=') + 1 && !*end && o->capacity >= 0 && o->seconds >= 0;
}

int main(int argc, char **argv)
{
    Options o = {.seconds = 5, .nodes = UINT64_MAX};
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++)
        if (!read_option(&o, argv[i])) {
            fprintf(stderr, "memplan-bench: bad option '%s'\n%s", argv[i], usage);
            return 2;
        }
    if (i == argc) {
        fputs(usage, stderr);
        return 2;
    }
    printf("%-16s %6s %14s %10s %14s %10s %-4s %10s %10s  %s\n", "file", "items", "lower bound",
           "greedy", "height", "over", "", "nodes", "seconds", "step");
    bool all_fit = true;
    for (; i < argc; i++) all_fit &= run_file(argv[i], &o);
    return all_fit ? 0 : 1;
}
