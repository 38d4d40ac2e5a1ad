/* nest.h -- how a `nest` or `scatter` kernel is run: which loop the lanes follow, what a task is,
 * where a sum is cut.
 *
 * Everything here is a function of the form and the target, so the order of every sum is too.
 *
 *   rows   PAR loops other than the vector loop; a flat row number runs over their product
 *   cols   the vector loop when it is PAR: each task owns a range of columns, done in blocks of
 *          unroll * lanes
 *   reds   RED loops other than the vector loop, run in order inside a row
 *
 * Lanes along RED: a row has `unroll` vector accumulators; at its end they are added as a tree,
 * then the lanes as a tree.  Lanes along PAR: each column has its own accumulator; no tree.
 *
 * Few rows but much work: the outermost RED loop is cut into chunks of fixed size.  One phase per
 * sweep writes partial results of its chunks to the workspace; later phases combine them in order
 * of chunks.  Stores per row get a last phase of their own. */
#ifndef ZM_CODEGEN_CPU_NEST_H
#define ZM_CODEGEN_CPU_NEST_H

#include "codegen/cpu/cpu.h"

enum { NEST_MAX_UNROLL = 4 };

typedef struct NestPlan {
    const CpuTarget *target;
    Kernel *k; /* a copy with fewer loops: PAR before RED, neighbours joined where every access
                  allows it */
    int vec;   /* -1: no loop at all */
    bool vec_is_red;
    int lanes, unroll;
    int rows[KERNEL_MAX_LOOPS], reds[KERNEL_MAX_LOOPS];
    int n_rows, n_reds;
    uint32_t n_stages;
    bool has_row_stores, has_elem_stores;

    int64_t n_row, rows_per_task, n_row_tasks;
    int64_t cols, cols_per_task,
        n_col_tasks; /* 1, 1, 1 when lanes run along RED or there is no loop */
    int split;       /* the loop that is cut, when n_chunks > 1 */
    int64_t n_chunks, chunk;
    int64_t work; /* bytes moved + flops / 2 of the whole kernel */

    uint32_t n_reduce;
    int32_t *reduce;         /* nodes KN_REDUCE */
    int64_t *partial_offset; /* bytes in the workspace, per reduction */
    int64_t workspace_bytes;
} NestPlan;

NestPlan nest_plan(Arena *a, const CpuTarget *t, const Kernel *k);
DType nest_acc_dtype(DType dt); /* of an accumulator: f32 for 16-bit floats */

/* One or more vectors of columns, or one row: where sweeps leave the reductions' values. */
typedef struct NestBlock {
    CpuEval *slot; /* [n] */
    int n;
    LLVMValueRef row;                /* flat row number, i64 */
    LLVMValueRef chunk;              /* which chunk of plan->split, when there are several ... */
    LLVMValueRef split_lo, split_hi; /* ... and its range */
} NestBlock;

/* Runs sweep `stage`: its reductions' accumulators, not yet rounded to the node's dtype, go to the
 * slots' memos; in the last stage the per-element stores happen. */
void nest_sweep(const NestPlan *p, NestBlock *b, uint32_t stage);
LLVMValueRef nest_combine(CpuModule *m, const Node *reduce, LLVMValueRef a, LLVMValueRef b);
/* Calls body for [lo, hi) of the vector loop in steps of unroll * lanes, then for the rest in
 * single vectors: masked where the target can, else whole vectors and then lanes = 1.  extent: of
 * the whole loop; lo is a multiple of unroll * lanes. n_slots, lanes and mask of the step are
 * given; carried values are threaded through (body updates them in place). */
typedef struct NestStep {
    LLVMValueRef index, mask;
    int n_slots, lanes;
    bool is_scalar_tail; /* lanes = 1 behind vectors */
} NestStep;
typedef void (*NestStepFn)(void *user, const NestStep *s, LLVMValueRef *carried);
void nest_along(const NestPlan *p, CpuModule *m, LLVMValueRef lo, LLVMValueRef hi,
                LLVMValueRef *carried, uint32_t n_carried, NestStepFn body, void *user);
/* Evaluation of slot u of a step: a fork of e with its index, lanes and mask. */
CpuEval nest_slot(const NestPlan *p, const CpuEval *e, const NestStep *s, int u);
uint32_t nest_loop_bits(const int *loops, int n);
/* Nodes that a sweep or (stage = n_stages) the stores per row start from. */
uint32_t nest_roots(const NestPlan *p, uint32_t stage, int32_t *out, uint64_t *stores);

#endif
