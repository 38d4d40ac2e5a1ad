/* nest.c -- prints nest kernels: loops over rows, a sweep over the RED loops for each
 * stage, stores.
 *
 *   constants
 *   for each row of this thread (or of its warp, block, column)
 *       row values that need no reduction
 *       sweep 0: element values -> reductions of stage 0;   combined over the row's threads
 *       row values that need them;  sweep 1 ...             the last sweep also stores elements
 *       row stores, by one thread of the row
 *
 * Element values are computed again in every sweep that needs them: nothing is kept per element. */
#include "codegen/cuda/print.h"

#include <math.h>

/* ---- what is needed where ---- */

static bool is_reduced_at(const Printer *p, uint32_t node, int32_t stage)
{
    const Node *n = &p->k->nodes[node];
    return n->kind == KN_REDUCE && n->stage == stage && p->is_live[node];
}

static bool is_last(const Printer *p, int32_t stage)
{
    return stage + 1 >= (int32_t)p->k->n_stages;
}

/* is_wanted[] = the element nodes of one sweep.  False: the sweep has nothing to do. */
static bool find_wanted(Printer *p, int32_t stage)
{
    const Kernel *k = p->k;
    bool has_work = false;
    for (uint32_t i = 0; i < k->n_nodes; i++) p->is_wanted[i] = false;
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        if (!is_reduced_at(p, i, stage)) continue;
        p->is_wanted[k->nodes[i].arg[0]] = true;
        has_work = true;
    }
    for (uint32_t i = 0; is_last(p, stage) && i < k->n_stores; i++) {
        if (k->stores[i].level != LV_ELEM) continue;
        mark_store(&k->stores[i], p->is_wanted);
        has_work = true;
    }
    for (uint32_t i = k->n_nodes; i-- > 0;) {
        if (!p->is_wanted[i]) continue;
        ZM_CHECK(p->ready[i] <= stage); /* else it needs a sweep that is not over */
        if (k->nodes[i].level == LV_ELEM && k->nodes[i].kind != KN_REDUCE)
            mark_inputs(k, i, p->is_wanted);
        else
            p->is_wanted[i] = false; /* a row value: there already */
    }
    return has_work;
}

/* ---- nodes by level ---- */

/* Live row nodes that can be computed after `ready` sweeps and not before. */
static void print_row_nodes(Printer *p, int32_t ready)
{
    for (uint32_t i = 0; i < p->k->n_nodes; i++) {
        const Node *n = &p->k->nodes[i];
        if (!p->is_live[i] || n->kind == KN_REDUCE || n->level == LV_ELEM) continue;
        if (p->ready[i] == ready && !is_constant(p, i)) print_node(p, i);
    }
}

static bool has_stores(const Printer *p, Level level)
{
    for (uint32_t i = 0; i < p->k->n_stores; i++)
        if (p->k->stores[i].level == level) return true;
    return false;
}

/* ---- loops ---- */

static void print_row_loop(Printer *p)
{
    const CudaSchedule *s = &p->s;
    const char *type = p->index_type;
    const char *wide = s->is_64bit ? "(long long)" : "";
    long long rows = (long long)s->n_rows, step = (long long)s->rows_per_block;
    switch (s->shape) {
    case CUDA_POINT:
    case CUDA_THREAD:
    case CUDA_SCATTER:
        print_line(p,
                   "for (%s row = %sblockIdx.x * %lld + threadIdx.x; row < %lld; row += "
                   "%sgridDim.x * %lld) {",
                   type, wide, step, rows, wide, step);
        break;
    case CUDA_WARP:
        print_line(p, "const int lane = threadIdx.x %% 32;");
        print_line(p,
                   "for (%s row = %sblockIdx.x * %lld + threadIdx.x / 32; row < %lld; row += "
                   "%sgridDim.x * %lld) {",
                   type, wide, step, rows, wide, step);
        break;
    case CUDA_BLOCK:
        print_line(p, "for (%s row = blockIdx.x; row < %lld; row += gridDim.x) {", type, rows);
        break;
    case CUDA_ATTENTION:
    case CUDA_TILES: return; /* print_attention(), print_contract() */
    case CUDA_COLUMN:
        print_line(
            p, "for (%s first = %sblockIdx.x * %lld; first < %lld; first += %sgridDim.x * %lld) {",
            type, wide, step, rows, wide, step);
        break;
    }
    p->depth++;
    if (s->shape == CUDA_COLUMN) {
        print_line(p, "// Columns past the end repeat the last one and store nothing.");
        print_line(p, "const bool is_mine = first + threadIdx.x < %lld;", rows);
        print_line(p, "const %s row = is_mine ? first + threadIdx.x : %lld;", type, rows - 1);
    }
    print_indices(p, LOOP_PAR, "row");
}

void print_sweep_loop(Printer *p)
{
    const CudaSchedule *s = &p->s;
    const char *start = "0";
    int step = 1;
    switch (s->shape) {
    case CUDA_ATTENTION:
    case CUDA_TILES:
    case CUDA_POINT: return; /* no RED loops: the row is the element */
    case CUDA_THREAD:
    case CUDA_SCATTER: break;
    case CUDA_WARP:
        start = "lane";
        step = 32;
        break;
    case CUDA_BLOCK:
        start = "threadIdx.x";
        step = s->threads_x;
        break;
    case CUDA_COLUMN:
        start = "threadIdx.y";
        step = s->threads_y;
        break;
    }
    print_line(p, "for (%s e = %s; e < %lld; e += %d) {", p->index_type, start,
               (long long)s->n_reduced, step);
    p->depth++;
    print_indices(p, LOOP_RED, "e");
}

/* ---- reductions ---- */

/* The type that a reduction accumulates in: f32 for 16 bits, int for i1. */
static DType accumulator_type(const Node *n)
{
    if (n->dtype == DT_F64 || n->dtype == DT_F32) return n->dtype;
    return n->dtype == DT_I1 || n->dtype == DT_I32 ? DT_I32 : DT_F32;
}

static double reduce_identity(const Node *n)
{
    if (n->op == OP_REDUCE_SUM) return 0;
    return n->dtype == DT_I1 ? 0 : n->dtype == DT_I32 ? (double)INT32_MIN : -(double)INFINITY;
}

static void print_accumulators(Printer *p, int32_t stage)
{
    for (uint32_t i = 0; i < p->k->n_nodes; i++) {
        if (!is_reduced_at(p, i, stage)) continue;
        const Node *n = &p->k->nodes[i];
        DType acc = accumulator_type(n);
        print_indent(p);
        str_addf(p->out, "%s r%u = ", register_type(acc), i);
        print_const(p->out, acc, reduce_identity(n));
        str_add(p->out, ";\n");
    }
}

static void print_accumulate(Printer *p, int32_t stage)
{
    for (uint32_t i = 0; i < p->k->n_nodes; i++) {
        if (!is_reduced_at(p, i, stage)) continue;
        const Node *n = &p->k->nodes[i];
        const char *type = register_type(accumulator_type(n));
        print_indent(p);
        if (n->op == OP_REDUCE_SUM)
            str_addf(p->out, "r%u += ", i);
        else
            str_addf(p->out, "r%u = zm_max(r%u, (%s)", i, i, type);
        print_use(p, n->arg[0]);
        str_add(p->out, n->op == OP_REDUCE_SUM ? ";" : ");");
        print_end(p, op_info(n->op)->name, node_loc(p, i));
    }
}

static void print_combined(Printer *p, int32_t stage)
{
    static const char *const combine[] = {[CUDA_WARP] = "zm_warp",
                                          [CUDA_BLOCK] = "zm_block",
                                          [CUDA_COLUMN] = "zm_column",
                                          [CUDA_SCATTER] = NULL};
    for (uint32_t i = 0; i < p->k->n_nodes; i++) {
        if (!is_reduced_at(p, i, stage)) continue;
        const Node *n = &p->k->nodes[i];
        const char *round = n->dtype == DT_BF16  ? "zm_round_bf16("
                            : n->dtype == DT_F16 ? "zm_round_f16("
                                                 : "";
        print_indent(p);
        str_addf(p->out, "const %s v%u = %s", register_type(n->dtype), i, round);
        const char *how = combine[p->s.shape];
        if (how)
            str_addf(p->out, "%s<%s>(r%u)", how, n->op == OP_REDUCE_SUM ? "zm_sum" : "zm_largest",
                     i);
        else
            str_addf(p->out, "r%u", i);
        str_add(p->out, *round ? ");\n" : ";\n");
    }
}

/* ---- the kernel ---- */

static void print_element_stores(Printer *p)
{
    bool is_guarded = p->s.shape == CUDA_COLUMN && has_stores(p, LV_ELEM);
    if (is_guarded) print_open(p, "if (is_mine)");
    print_stores(p, LV_ELEM);
    if (is_guarded) print_close(p);
}

static void print_sweep(Printer *p, int32_t stage)
{
    if (!find_wanted(p, stage)) return;
    print_accumulators(p, stage);
    print_sweep_loop(p);
    for (uint32_t i = 0; i < p->k->n_nodes; i++)
        if (p->is_wanted[i]) print_node(p, i);
    print_accumulate(p, stage);
    if (is_last(p, stage)) print_element_stores(p);
    if (p->s.shape != CUDA_POINT) print_close(p);
    print_combined(p, stage);
}

static void print_row_stores(Printer *p)
{
    static const char *const leader[] = {[CUDA_WARP] = "if (lane == 0)",
                                         [CUDA_BLOCK] = "if (threadIdx.x == 0)",
                                         [CUDA_COLUMN] = "if (is_mine && threadIdx.y == 0)",
                                         [CUDA_SCATTER] = NULL};
    if (!has_stores(p, LV_ROW) && !has_stores(p, LV_CONST)) return;
    if (leader[p->s.shape]) print_open(p, leader[p->s.shape]);
    print_stores(p, LV_CONST);
    print_stores(p, LV_ROW);
    if (leader[p->s.shape]) print_close(p);
}

void print_nest(Printer *p)
{
    print_constants(p);
    print_row_loop(p);
    if (p->s.shape == CUDA_SCATTER) {
        print_row_nodes(p, 0);
        print_scatter(p);
        print_close(p);
        return;
    }
    int32_t n_stages = p->k->n_stages > 0 ? (int32_t)p->k->n_stages : 1;
    for (int32_t stage = 0; stage < n_stages; stage++) {
        print_row_nodes(p, stage);
        print_sweep(p, stage);
    }
    print_row_nodes(p, n_stages);
    print_row_stores(p);
    print_close(p);
}
