/* contract_sweep.c -- axes of a contraction, and loops over a rectangle of them with vectors along
 * the columns' inner loop.
 *
 * A prologue and an epilogue are sweeps.  When the column axis has several loops, a row is cut
 * where the inner loop starts anew, since only within it do the lanes' addresses advance evenly.
 */
#include "codegen/cpu/contract.h"

void mm_axis_set(CpuEval *e, const MmAxis *axis, LLVMValueRef flat)
{
    for (int i = axis->n - 1; i >= 0; i--) {
        e->index[axis->loop[i]] = i ? mm_rem(e->m, flat, axis->extent[i]) : flat;
        if (i) flat = mm_div(e->m, flat, axis->extent[i]);
    }
}

uint32_t mm_axis_bits(const MmAxis *axis)
{
    uint32_t bits = 0;
    for (int i = 0; i < axis->n; i++) bits |= 1u << axis->loop[i];
    return bits;
}

/* A run of columns within the inner loop: the index of lane 0 is start + i, i in [0, n). */
typedef struct Run {
    const CpuEval *e;
    const MmSweep *s;
    LLVMValueRef r, c; /* of the run's first element, relative to the sweep */
    LLVMValueRef start, n;
    bool is_exact; /* n is a multiple of the lanes */
    MmSweepBody body;
    void *user;
} Run;

static void run_step(const Run *run, LLVMValueRef i, int lanes, LLVMValueRef mask)
{
    CpuEval e = cpu_eval_fork(run->e);
    CpuModule *m = e.m;
    const MmAxis *cols = run->s->cols;
    int inner = cols->n ? cols->loop[cols->n - 1] : -1;
    if (inner >= 0) e.index[inner] = mm_add(m, run->start, i);
    e.vec_loop = inner;
    e.lanes = lanes;
    e.mask = mask;
    run->body(&e, run->r, mm_add(m, run->c, i), run->user);
}

static void run_loop(const Run *run)
{
    CpuModule *m = run->e->m;
    int lanes = run->s->lanes;
    LLVMValueRef full = run->is_exact ? run->n : mm_mul(m, mm_div(m, run->n, lanes), lanes);
    CpuLoop l = cpu_loop_begin(m, cpu_i64(m, 0), full, lanes, NULL, 0);
    run_step(run, l.index, lanes, NULL);
    cpu_loop_end(m, &l, NULL);
    if (run->is_exact) return;
    bool has_masks = m->target->has_avx512 && lanes > 1;
    CpuLoop tail = cpu_loop_begin(m, full, run->n, has_masks ? lanes : 1, NULL, 0);
    LLVMValueRef mask = has_masks ? cpu_tail_mask(m, tail.index, run->n, lanes) : NULL;
    run_step(run, tail.index, has_masks ? lanes : 1, mask);
    cpu_loop_end(m, &tail, NULL);
}

/* Cuts [c0, c0 + nc) at multiples of the inner extent. */
static void row_runs(CpuEval *e, const MmSweep *s, LLVMValueRef r, MmSweepBody body, void *user)
{
    CpuModule *m = e->m;
    const MmAxis *cols = s->cols;
    Run run = {.e = e, .s = s, .r = r, .body = body, .user = user};
    if (cols->n <= 1) {
        run.c = cpu_i64(m, 0);
        run.start = s->c0;
        run.n = s->nc;
        run.is_exact = s->lanes == 1 || s->nc_multiple % s->lanes == 0;
        run_loop(&run);
        return;
    }
    int64_t extent = cols->extent[cols->n - 1];
    LLVMValueRef end = mm_add(m, s->c0, s->nc);
    LLVMValueRef last = mm_div(m, mm_add(m, end, cpu_i64(m, extent - 1)), extent);
    CpuLoop outer = cpu_loop_begin(m, mm_div(m, s->c0, extent), last, 1, NULL, 0);
    CpuEval in_outer = cpu_eval_fork(e);
    MmAxis outers = *cols;
    outers.n--;
    mm_axis_set(&in_outer, &outers, outer.index);
    LLVMValueRef first = mm_mul(m, outer.index, extent);
    LLVMValueRef lo = mm_max(m, s->c0, first);
    LLVMValueRef hi = mm_min(m, end, mm_add(m, first, cpu_i64(m, extent)));
    run.e = &in_outer;
    run.c = mm_sub(m, lo, s->c0);
    run.start = mm_sub(m, lo, first);
    run.n = mm_sub(m, hi, lo);
    run.is_exact = s->lanes == 1 || (s->nc_multiple % s->lanes == 0 && extent % s->lanes == 0);
    run_loop(&run);
    cpu_loop_end(m, &outer, NULL);
}

void mm_sweep(CpuEval *e, const MmSweep *sweep, MmSweepBody body, void *user)
{
    CpuModule *m = e->m;
    MmSweep here = *sweep, *s = &here;
    if (s->cols->n == 0) s->lanes = 1; /* one column */
    CpuEval outside = cpu_eval_fork(e);
    cpu_eval_hoist(&outside, s->nodes, s->n_nodes, s->stores, s->known);
    CpuLoop r = cpu_loop_begin(m, cpu_i64(m, 0), s->nr, 1, NULL, 0);
    CpuEval in_row = cpu_eval_fork(&outside);
    mm_axis_set(&in_row, s->rows, mm_add(m, s->r0, r.index));
    cpu_eval_hoist(&in_row, s->nodes, s->n_nodes, s->stores, s->known | mm_axis_bits(s->rows));
    row_runs(&in_row, s, r.index, body, user);
    cpu_loop_end(m, &r, NULL);
}
