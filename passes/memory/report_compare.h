/* report_compare.h -- between report_compare.c, which finds what differs, and
 * report_compare_print.c. */
#ifndef ZM_PASSES_MEMORY_REPORT_COMPARE_H
#define ZM_PASSES_MEMORY_REPORT_COMPARE_H

#include "passes/memory/report.h"

enum { A, B, N_PLANS };

typedef struct Total {
    const char *name; /* as in the plan's JSON, and "parameters": their number */
    bool is_bytes;
    int64_t value[N_PLANS];
} Total;

/* A kind of collective; count 0: not in that plan. */
typedef struct CommPair {
    CommRow row[N_PLANS];
} CommPair;

/* Buffers of one kind, or what lies at one line (lines: at_peak only). */
typedef struct Group {
    const char *func, *cat, *what;
    uint32_t line[N_PLANS]; /* 0: none */
    uint32_t n[N_PLANS];
    int64_t bytes[N_PLANS], at_peak[N_PLANS]; /* sums */
} Group;
typedef VEC(Group) Groups;

/* B's lines: number of the same line in A, 0: none; to[1..n].  to NULL: by number. */
typedef struct LineMap {
    uint32_t *to;
    uint32_t n;
} LineMap;

struct PlanCompare {
    Arena *arena;
    PlanSide side[N_PLANS];
    const char *source[N_PLANS]; /* the models' names in locations */
    LineMap map;
    Buffers all[N_PLANS];
    VEC(Total) totals;
    Groups groups, lines; /* that differ, largest change first */
    VEC(CommPair) comm;   /* that differ */
    bool is_equal;
    uint32_t n_moved;        /* when all else is equal: buffers at other offsets */
    uint32_t *slot, n_slots; /* hash table of groups while they are collected: index + 1 */
};

#endif
