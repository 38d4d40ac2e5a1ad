/* memory.h -- from a scheduled function to offsets: alias classes, lifetimes, allocation, proof.
 *
 *   alias.c     which result of a kernel may overwrite which operand
 *   units.c     values that share storage form one unit (views, packs, in-place results, values
 *               written to variables)
 *   allocate.h  offsets for units with lifetimes: dynamic storage allocation, in allocate*.c
 *   memplan.c   the pass: places of variables and values
 *   check.c     independent proof: simulates which value each byte holds, op by op
 *   report.c    `zmc plan`: categories at the peak, buffers; report_recompute.c: what recomputed
 *               values save and cost; report_comm.c: communication; report_sweep.c: plans of many
 * ranks and stages; report_page.c: the page; report_compare.c: two plans
 */
#ifndef ZM_PASSES_MEMORY_H
#define ZM_PASSES_MEMORY_H

#include "ir/ir.h"

enum { MEM_ALIGN = 64 };

/* May result `out` of fused op `op` have the very bytes of operand `in`?  True only when the kernel
 * reads element i of the operand in the iteration that stores element i of the result, before the
 * store (codegen evaluates all nodes of an iteration before its stores, and sweeps of a row before
 * its last).  scatter_add: result over base. */
bool fused_may_alias(Arena *scratch, const Func *f, OpId op, uint32_t out, uint32_t in);

typedef enum { UNIT_TEMP, UNIT_INPUT, UNIT_VAR } UnitKind;

typedef struct Unit {
    UnitKind kind;
    VarId var; /* UNIT_VAR: the variable that owns the storage */
    int64_t bytes;
    int32_t from, to;   /* op positions, inclusive */
    int64_t offset;     /* within the arena, after allocation */
    ValueId name_value; /* the value that names it: the largest, first */
    const char *cat;    /* mem_var_category(), or "activations", ... */
} Unit;

/* Where each value of a function lives: unit[of[v].unit] at of[v].offset bytes. */
typedef struct Units {
    Unit *at;
    uint32_t n;
    struct UnitOf {
        uint32_t unit;
        int64_t offset;
    } *of;             /* indexed by ValueId.i */
    int32_t *def_pos;  /* of values, by ValueId.i; parameters: 0 */
    int32_t *last_use; /* by ValueId.i; returned values: number of ops; unused: def_pos */
    int32_t n_ops;
} Units;

/* What the plan counts a variable among: "params", "optimizer", ... */
const char *mem_var_category(VarKind kind);

Units units_build(Arena *scratch, const Func *f);

/* Most bytes live at once over units that are not variables, each aligned to MEM_ALIGN; *at: a
 * position where it happens. */
int64_t units_lower_bound(Arena *scratch, const Units *u, int32_t *at);

typedef struct AllocItem {
    int64_t bytes;    /* > 0, already aligned */
    int32_t from, to; /* inclusive */
    int64_t offset;   /* out */
} AllocItem;

/* How much mem_allocate may search.  Counts, never seconds: the same plan on every machine. */
typedef struct AllocLimits {
    int64_t capacity; /* a height of at most this is good enough; 0: the lower bound is */
    uint64_t visits;  /* items looked at by greedy orders after the first; an eighth by the climb */
    uint64_t nodes;   /* placements tried by the branch and bound */
    bool (*is_over)(void *over); /* asked now and then; true ends the search.  NULL: never */
    void *over;
} AllocLimits;

/* Little beside the other passes: some 50 ms where no greedy order meets the bound. */
AllocLimits alloc_limits_default(uint32_t n);

typedef struct AllocResult {
    int64_t height;
    int64_t lower_bound; /* most bytes live at once, or more where the search proved it */
    const char *step;    /* that found the height: "greedy size first-fit", "hill climb", ... */
    uint64_t nodes;      /* of the branch and bound */
} AllocResult;

/* Offsets such that items live at the same time do not overlap (allocate.h says how).
 * O(n log n + pairs live together) per greedy order; deterministic. */
AllocResult mem_allocate(Arena *scratch, AllocItem *items, uint32_t n, const AllocLimits *limits);

/* Sets the offsets of the units that are not variables, from 0 on, each aligned to MEM_ALIGN; of n
 * functions, which share their memory: none is packed lower than another one needs anyway. */
void units_allocate(Arena *scratch, Units *u, uint32_t n, AllocResult *out);
/* The same with less search: a height of a function that is within 1/slack of base + its lower
 * bound, where base bytes are in the arena already, is low enough.  slack 0: units_allocate(). */
void units_allocate_within(Arena *scratch, Units *u, uint32_t n, int64_t base, int64_t slack,
                           AllocResult *out);

/* Proves the places of all values of m: at every op each operand's bytes still hold that operand.
 * Errors E_PLAN_OVERLAP name both values.  Relies on nothing that the planner computed but the
 * places. */
Status mem_check(const Module *m, Arena *scratch);
/* budget_bytes: of the arena; 0: no limit.  Else E_PLAN_BUDGET with both sizes. */
Status mem_check_budget(const Module *m, int64_t budget_bytes);

/* ---- report.c ---- */

typedef struct PlanCategory {
    const char *name;
    int64_t bytes;
} PlanCategory;
enum { PLAN_N_CATEGORIES = 9 };

/* What pass recompute saves and costs: a row for each line of the model. */
typedef struct RecomputeRow {
    const char *loc, *ops; /* "gpt2.zm:9"; name of the dearest op */
    uint32_t n_ops;        /* copies by pass recompute */
    int64_t saved;         /* bytes at the peak; negative: more than without */
    double flops, most_flops;
} RecomputeRow;

typedef struct RecomputeReport {
    uint32_t steps, n_steps; /* taken, of so many; the caller's */
    int64_t arena_without;
    double flops, flops_without; /* more than without; of a whole step without */
    VEC(RecomputeRow) rows;
} RecomputeReport;

/* What one rank sends in a step: of each kind of collective ... */
typedef struct CommRow {
    const char *op, *axis, *what; /* "all_gather", "data", "params" | "grads" | "scalars" */
    int64_t count, bytes;
} CommRow;

/* ... and of each bucket. */
typedef struct CommBucket {
    const char *name;                 /* "bucket.3" */
    uint32_t var;                     /* VarId; their order */
    int64_t elems;                    /* of all ranks together */
    int64_t gathers, reductions;      /* in a step */
    int64_t gather_bytes, wire_bytes; /* of an element that is gathered, that is reduced */
    int64_t bytes;
} CommBucket;

typedef struct PlanComm {
    VEC(CommRow) rows;
    VEC(CommBucket) buckets;
    int64_t bytes; /* of all rows */
} PlanComm;

typedef struct PlanReport {
    int64_t ranks;
    int64_t params;                      /* elements, of all ranks together */
    PlanCategory cat[PLAN_N_CATEGORIES]; /* params master optimizer grads activations gathered
                                            workspace inputs other */
    int64_t padding, peak_live, arena, states, closed_form;
    int64_t lower_bound;   /* of the arena, for this order of ops */
    const char *plan_step; /* of the allocator, that found the function's height that makes the
                              arena; "given": the offsets are not what the allocator gives */
    double fragmentation;
    const char *peak_func;
    int32_t peak_pos;
    PlanComm comm;
    double flops;                     /* of one step's matmuls and attention and the rest */
    const RecomputeReport *recompute; /* NULL: none */
    const struct PlanSweep *sweep;    /* the plans that this one was chosen from; NULL: none */
} PlanReport;

/* "2469884992 bytes (2.30 GiB)" */
const char *plan_bytes_text(Arena *a, int64_t bytes);

/* Without plan_step: */
PlanReport plan_report(const Module *m, Arena *scratch);
/* ... which it takes another allocation to find. */
void plan_find_step(const Module *m, PlanReport *r, Arena *scratch);
/* m with plan `plan` against the same model planned without recomputation. */
RecomputeReport plan_recompute(const Module *m, const PlanReport *plan, const Module *without,
                               Arena *a);
void plan_print_table(const Module *m, const PlanReport *r, Arena *scratch, Str *out);
void plan_print_json(const Module *m, const PlanReport *r, Arena *scratch, Str *out);
/* One self-contained page around plan_print_json's text (report_page.c). */
void plan_print_html(const Module *m, const PlanReport *r, Arena *scratch, Str *out);
void plan_print_csv(const Module *m, Arena *scratch,
                    Str *out); /* MiniMalloc's columns first: id,lower,upper,size,offset */

/* ---- report_sweep.c ---- */

/* A plan among those of `zmc plan --ranks 1..1024 --zero all`. */
typedef struct SweepRow {
    int64_t ranks, zero;
    int64_t cat[PLAN_N_CATEGORIES]; /* as in PlanReport */
    int64_t padding, states, closed_form, peak_live, lower_bound, arena, comm_bytes;
    bool is_planned; /* false: refused, and why */
    bool is_exact;   /* the arena is that of the plan alone, else within a little of it, above */
    char why[400];
} SweepRow;

typedef struct PlanSweep {
    const char *model, *precision;
    int64_t params, batch, accumulate;
    int64_t memory; /* budget of a rank's arena; 0: none */
    const SweepRow *row;
    uint32_t n; /* rows, ranks ascending, of equal ranks stages ascending */
} PlanSweep;

bool sweep_fits(const PlanSweep *s, const SweepRow *r);
/* The fewest ranks that fit at a stage; NULL: none of the rows. */
const SweepRow *sweep_fewest(const PlanSweep *s, int64_t zero);
/* Of all that fit, or where none does, of all: fewest ranks, then least communication, then
 * smallest arena; where none fits the smallest arena.  NULL: no plan. */
const SweepRow *sweep_best(const PlanSweep *s);
/* Among the stages that fit on r's ranks: sends least, then has the smallest arena, then comes
 * first. */
bool sweep_is_cheapest(const PlanSweep *s, const SweepRow *r);
void sweep_print_table(const PlanSweep *s, Str *out);
void sweep_print_json(const PlanSweep *s, Str *out);
void sweep_print_csv(const PlanSweep *s, Str *out);

/* ---- report_compare.c ---- */

typedef struct PlanSide {
    const char *file; /* as the user wrote it */
    const Module *m;
    const PlanReport *r;
} PlanSide;
typedef struct PlanCompare PlanCompare;

/* What changes from a to b: totals, bytes at the peak by line, buffers.  Kept in arena. */
PlanCompare *plan_compare(Arena *arena, PlanSide a, PlanSide b);
void plan_compare_print_table(const PlanCompare *c, Str *out);
void plan_compare_print_json(const PlanCompare *c, Str *out);

#endif
