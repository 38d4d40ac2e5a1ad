/* nest.c -- prints nest and scatter kernels: loops over rows, a sweep over the RED loops for each
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
#include <stdarg.h>
#include <stdio.h>

const char *cuda_refusal(const Kernel *k)
{
    return k->kind == KK_NEST || k->kind == KK_SCATTER ? NULL : "not a nest kernel";
}

/* ---- lines ---- */

void print_indent(Printer *p)
{
    for (int i = 0; i < p->depth; i++) str_add(p->out, "    ");
}

static void print_loc(Printer *p, LocId loc)
{
    if (!p->m || !loc_ok(loc)) return;
    SrcPos pos = loc_pos(p->m, loc);
    if (pos.line == 0) return;
    str_addf(p->out, "  %s:%u:%u", p->m->sources->all.at[pos.source].name, pos.line, pos.col);
}

void print_end(Printer *p, const char *what, LocId loc)
{
    if (what) {
        str_addf(p->out, "  // %s", what);
        print_loc(p, loc);
    }
    str_add(p->out, "\n");
}

ZM_PRINTF(2, 3) static void print_line(Printer *p, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    ZM_CHECK(n >= 0 && (size_t)n < sizeof text);
    print_indent(p);
    str_add(p->out, text);
    str_add(p->out, "\n");
}

static void print_open(Printer *p, const char *text)
{
    print_line(p, "%s {", text);
    p->depth++;
}

static void print_close(Printer *p)
{
    p->depth--;
    print_line(p, "}");
}

/* ---- what is needed where ---- */

/* Calls mark[] for the nodes that node i reads. */
static void mark_inputs(const Kernel *k, uint32_t i, bool *mark)
{
    const Node *n = &k->nodes[i];
    for (uint32_t a = 0; a < n->n_args; a++) mark[n->arg[a]] = true;
    if (n->kind == KN_LOAD && k->accesses[n->index].dyn >= 0)
        mark[k->accesses[n->index].dyn] = true;
}

static void mark_store(const Store *s, bool *mark)
{
    mark[s->node] = true;
    if (s->to.dyn >= 0) mark[s->to.dyn] = true;
}

static void note_loops(Printer *p, const int64_t *stride)
{
    for (uint32_t d = 0; d < p->k->n_loops; d++)
        if (stride[d] != 0) p->used_loops |= 1u << d;
}

static void note_node_loops(Printer *p, const Node *n)
{
    if (n->kind != KN_LOAD && n->kind != KN_INDEX) return;
    const Access *at = &p->k->accesses[n->index];
    note_loops(p, at->stride);
    for (uint32_t g = 0; g < at->n_guards; g++) note_loops(p, at->guards[g].stride);
}

static void find_live(Printer *p)
{
    const Kernel *k = p->k;
    for (uint32_t i = 0; i < k->n_stores; i++) {
        mark_store(&k->stores[i], p->is_live);
        note_loops(p, k->stores[i].to.stride);
    }
    for (uint32_t i = k->n_nodes; i-- > 0;) {
        if (!p->is_live[i]) continue;
        mark_inputs(k, i, p->is_live);
        note_node_loops(p, &k->nodes[i]);
    }
}

static void find_ready(Printer *p)
{
    const Kernel *k = p->k;
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        const Node *n = &k->nodes[i];
        int32_t ready = 0;
        for (uint32_t a = 0; a < n->n_args; a++)
            if (p->ready[n->arg[a]] > ready) ready = p->ready[n->arg[a]];
        int32_t dyn = n->kind == KN_LOAD ? k->accesses[n->index].dyn : -1;
        if (dyn >= 0 && p->ready[dyn] > ready) ready = p->ready[dyn];
        if (n->kind == KN_REDUCE) {
            ZM_CHECK(n->stage >= ready);
            ready = n->stage + 1;
        }
        p->ready[i] = ready;
    }
}

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

/* ---- nodes and stores ---- */

static const char *node_name(const Node *n)
{
    switch (n->kind) {
    case KN_OP:
    case KN_REDUCE: return op_info(n->op)->name;
    case KN_CONST: return "const";
    case KN_LOAD: return "load";
    case KN_INDEX: return "index";
    case KN_RANDOM: return "random";
    case KN_ACC: return "acc";
    }
    ZM_UNREACHABLE("node kind");
}

static LocId node_loc(const Printer *p, uint32_t i)
{
    LocId loc = p->k->nodes[i].loc;
    return loc_ok(loc) ? loc : p->k->loc;
}

static void print_node(Printer *p, uint32_t i)
{
    const Node *n = &p->k->nodes[i];
    if (n->kind == KN_CONST) return; /* printed where it is used */
    print_indent(p);
    str_addf(p->out, "const %s v%u = ", register_type(n->dtype), i);
    print_node_expr(p, i);
    str_add(p->out, ";");
    print_end(p, node_name(n), node_loc(p, i));
}

/* What is computed before the loops: nodes that depend on no loop and on no reduction over all of
 * them. */
static bool is_constant(const Printer *p, uint32_t i)
{
    return p->k->nodes[i].level == LV_CONST && p->ready[i] == 0;
}

static void print_constants(Printer *p)
{
    for (uint32_t i = 0; i < p->k->n_nodes; i++)
        if (p->is_live[i] && p->k->nodes[i].kind != KN_REDUCE && is_constant(p, i))
            print_node(p, i);
}

/* Live row nodes that can be computed after `ready` sweeps and not before. */
static void print_row_nodes(Printer *p, int32_t ready)
{
    for (uint32_t i = 0; i < p->k->n_nodes; i++) {
        const Node *n = &p->k->nodes[i];
        if (!p->is_live[i] || n->kind == KN_REDUCE || n->level == LV_ELEM) continue;
        if (p->ready[i] == ready && !is_constant(p, i)) print_node(p, i);
    }
}

static void print_stores(Printer *p, Level level)
{
    for (uint32_t i = 0; i < p->k->n_stores; i++) {
        const Store *s = &p->k->stores[i];
        if (s->level != level) continue;
        print_indent(p);
        str_addf(p->out, "a%d[", s->to.arg);
        print_offset(p, &s->to);
        DType dt = p->k->args[s->to.arg].dtype;
        bool adds = s->mode == ST_ADD && dt != DT_BF16 && dt != DT_F16;
        str_add(p->out, adds ? "] += " : "] = ");
        print_store_value(p, s);
        str_add(p->out, ";");
        print_end(p, "store", node_loc(p, (uint32_t)s->node));
    }
}

static bool has_stores(const Printer *p, Level level)
{
    for (uint32_t i = 0; i < p->k->n_stores; i++)
        if (p->k->stores[i].level == level) return true;
    return false;
}

/* ---- loops ---- */

/* const int i<d> = ...: the indices of the loops of a kind out of their flat number. */
static void print_indices(Printer *p, LoopKind kind, const char *flat)
{
    int64_t inner = 1, outer = kind == LOOP_PAR ? p->s.n_rows : p->s.n_reduced;
    for (uint32_t d = p->k->n_loops; d-- > 0;) {
        const Loop *loop = &p->k->loops[d];
        if (loop->kind != kind) continue;
        if (p->used_loops >> d & 1) {
            print_indent(p);
            str_addf(p->out, "const %s i%u = %s", p->index_type, d, flat);
            if (inner > 1) str_addf(p->out, " / %lld", (long long)inner);
            if (inner * loop->extent < outer) str_addf(p->out, " %% %lld", (long long)loop->extent);
            str_add(p->out, ";\n");
        }
        inner *= loop->extent;
    }
}

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

static void print_sweep_loop(Printer *p)
{
    const CudaSchedule *s = &p->s;
    const char *start = "0";
    int step = 1;
    switch (s->shape) {
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
        print_end(p, node_name(n), node_loc(p, i));
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

/* ---- scatter ---- */

/* The output starts as the argument that it may share memory with, or as zeros.  A thread starts
 * the output rows that it adds to: no barrier between the two. */
static void print_scatter_base(Printer *p, const Store *s)
{
    const KernelArg *a = &p->k->args[s->to.arg];
    int64_t n_cols = s->to.dyn_stride;
    ZM_CHECK(n_cols == p->s.n_rows && a->elems % n_cols == 0);
    if (a->alias_in >= 0) {
        print_indent(p);
        str_addf(p->out, "if (a%d != a%d)\n", s->to.arg, a->alias_in);
        p->depth++;
    }
    print_line(p, "for (%s r = threadIdx.y; r < %lld; r += %d)", p->index_type,
               (long long)(a->elems / n_cols), p->s.threads_y);
    Access column = s->to;
    column.dyn = -1;
    p->depth++;
    print_indent(p);
    str_addf(p->out, "a%d[", s->to.arg);
    print_offset(p, &column);
    str_addf(p->out, " + r * %lld] = ", (long long)n_cols);
    if (a->alias_in >= 0) {
        str_addf(p->out, "a%d[", a->alias_in);
        print_offset(p, &column);
        str_addf(p->out, " + r * %lld];\n", (long long)n_cols);
    } else {
        str_addf(p->out, "%s{};\n", memory_type(a->dtype));
    }
    p->depth -= a->alias_in >= 0 ? 2 : 1;
}

/* Each thread sees every addition and makes those to its own rows, in order. */
static void print_scatter(Printer *p)
{
    const Kernel *k = p->k;
    const Store *s = &k->stores[0];
    ZM_CHECK(k->n_stores == 1 && s->to.dyn >= 0 && k->n_stages <= 1);
    print_scatter_base(p, s);
    print_sweep_loop(p);
    for (uint32_t i = 0; i < k->n_nodes; i++) p->is_wanted[i] = i == (uint32_t)s->to.dyn;
    for (uint32_t i = k->n_nodes; i-- > 0;)
        if (p->is_wanted[i]) mark_inputs(k, i, p->is_wanted);
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (p->is_wanted[i] && k->nodes[i].level == LV_ELEM) print_node(p, i);
    print_indent(p);
    str_add(p->out, "if ((unsigned int)");
    print_use(p, s->to.dyn);
    str_addf(p->out, " %% %d != threadIdx.y) continue;\n", p->s.threads_y);
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (p->is_live[i] && !p->is_wanted[i] && k->nodes[i].level == LV_ELEM) print_node(p, i);
    print_stores(p, LV_ELEM);
    print_close(p);
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

static void print_body(Printer *p)
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

static bool is_aliased(const Kernel *k, uint32_t arg)
{
    if (k->args[arg].is_out) return k->args[arg].alias_in >= 0;
    for (uint32_t i = 0; i < k->n_args; i++)
        if (k->args[i].is_out && k->args[i].alias_in == (int32_t)arg) return true;
    return false;
}

static void print_head(Printer *p, const char *name)
{
    static const char *const shape[] = {[CUDA_POINT] = "one thread each",
                                        [CUDA_THREAD] = "one thread each",
                                        [CUDA_WARP] = "one warp each",
                                        [CUDA_BLOCK] = "one block each",
                                        [CUDA_COLUMN] = "32 side by side in a block",
                                        [CUDA_SCATTER] = "32 side by side in a block"};
    const CudaSchedule *s = &p->s;
    str_addf(p->out, "// %s", p->k->label ? p->k->label : "kernel");
    print_loc(p, p->k->loc);
    str_addf(p->out, "\n// %lld rows, %s; %lld elements a row; %lld blocks of (%d, %d) threads\n",
             (long long)s->n_rows, shape[s->shape], (long long)s->n_reduced, (long long)s->n_blocks,
             s->threads_x, s->threads_y);
    str_addf(p->out, "extern \"C\" __global__ void __launch_bounds__(%d) %s(",
             s->threads_x * s->threads_y, name);
    for (uint32_t i = 0; i < p->k->n_args; i++) {
        const KernelArg *a = &p->k->args[i];
        str_addf(p->out, "%s%s%s *%sa%u", i ? ", " : "", a->is_out ? "" : "const ",
                 memory_type(a->dtype), is_aliased(p->k, i) ? "" : "__restrict__ ", i);
    }
    str_add(p->out, ")\n{\n");
}

void cuda_print_kernel(const Kernel *k, const char *name, const Module *m, Str *out)
{
    ZM_CHECK(cuda_refusal(k) == NULL);
    Arena scratch = {0};
    Printer p = {.k = k, .m = m, .s = cuda_schedule(k), .out = out};
    p.index_type = p.s.is_64bit ? "long long" : "int";
    p.is_live = ARENA_ARRAY(&scratch, bool, k->n_nodes + 1);
    p.is_wanted = ARENA_ARRAY(&scratch, bool, k->n_nodes + 1);
    p.ready = ARENA_ARRAY(&scratch, int32_t, k->n_nodes + 1);
    find_live(&p);
    find_ready(&p);
    print_head(&p, name);
    p.depth = 1;
    print_body(&p);
    str_add(out, "}\n\n");
    arena_free(&scratch);
}
