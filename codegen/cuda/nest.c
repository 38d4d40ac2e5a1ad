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
 * Element values are computed again in every sweep that needs them; what they are computed from
 * stays in registers where a row fits (wide.c). */
#include "codegen/cuda/print.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

/* ---- what is needed where ---- */

bool is_reduced_at(const Printer *p, uint32_t node, int32_t stage)
{
    const Node *n = &p->k->nodes[node];
    return n->kind == KN_REDUCE && n->stage == stage && p->is_live[node];
}

static bool is_last(const Printer *p, int32_t stage)
{
    return stage + 1 >= (int32_t)p->k->n_stages;
}

bool is_strip(const Printer *p)
{
    return p->s.shape == CUDA_SPLIT_COLUMN || p->s.shape == CUDA_STRIP;
}

/* Computed in the sweep?  A thread that takes several rows side by side has no place for their own
 * values. */
static bool is_element(const Printer *p, uint32_t node)
{
    const Node *n = &p->k->nodes[node];
    if (n->kind == KN_REDUCE) return false;
    return n->level == LV_ELEM || (is_strip(p) && !is_constant(p, node));
}

/* is_wanted[] = the element nodes of one sweep.  False: the sweep has nothing to do. */
bool find_wanted(Printer *p, int32_t stage)
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
        if (is_element(p, i))
            mark_inputs(k, i, p->is_wanted);
        else
            p->is_wanted[i] = false; /* a row value: there already */
    }
    return has_work;
}

/* ---- nodes by level ---- */

/* Live row nodes that can be computed after `ready` sweeps and not before. */
void print_row_nodes(Printer *p, int32_t ready)
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

/* Rows of a kernel whose threads stride over them. */
static void print_rows_from(Printer *p, const char *first, int64_t n_rows, int64_t step)
{
    print_line(p, "for (%s row = %s; row < %lld; row += %sgridDim.x * %lld) {", p->index_type,
               first, (long long)n_rows, p->s.is_64bit ? "(long long)" : "", (long long)step);
}

static void print_row_loop(Printer *p)
{
    const CudaSchedule *s = &p->s;
    const char *wide = s->is_64bit ? "(long long)" : "";
    long long step = (long long)s->rows_per_block;
    char first[96];
    switch (s->shape) {
    case CUDA_POINT:
    case CUDA_THREAD:
        snprintf(first, sizeof first,
                 s->width > 1 ? "(%sblockIdx.x * %d + threadIdx.x) * %d"
                              : "%sblockIdx.x * %d + threadIdx.x",
                 wide, s->threads_x, s->width);
        print_rows_from(p, first, s->n_rows, step);
        break;
    case CUDA_WARP:
        print_line(p, "const int lane = threadIdx.x %% 32;");
        snprintf(first, sizeof first, "%sblockIdx.x * %lld + threadIdx.x / 32", wide, step);
        print_rows_from(p, first, s->n_rows, step);
        break;
    case CUDA_BLOCK:
        print_line(p, "for (%s row = blockIdx.x; row < %lld; row += gridDim.x) {", p->index_type,
                   (long long)s->n_rows);
        break;
    case CUDA_COLUMN:
        print_line(
            p, "for (%s first = %sblockIdx.x * %lld; first < %lld; first += %sgridDim.x * %lld) {",
            p->index_type, wide, step, (long long)s->n_rows, wide, step);
        break;
    case CUDA_STRIP:
    case CUDA_SPLIT_COLUMN:
    case CUDA_SPLIT_ROW:
    case CUDA_SCATTER:
    case CUDA_ATTENTION:
    case CUDA_FLASH:
    case CUDA_TILES: ZM_UNREACHABLE("printed elsewhere");
    }
    p->depth++;
    if (s->shape == CUDA_COLUMN) {
        print_line(p, "// Columns past the end repeat the last one and store nothing.");
        print_line(p, "const bool is_mine = first + threadIdx.x < %lld;", (long long)s->n_rows);
        print_line(p, "const %s row = is_mine ? first + threadIdx.x : %lld;", p->index_type,
                   (long long)s->n_rows - 1);
    }
    p->is_pack = s->shape == CUDA_POINT && s->width > 1;
    print_indices(p, LOOP_PAR, "row");
    p->is_pack = false;
}

/* Where this row's packs begin: at multiples of the width in memory. */
static void print_skew(Printer *p)
{
    const Access *at = ragged_access_of(p);
    Access row = *at;
    row.stride[p->wide_loop] = 0;
    print_indent(p);
    str_addf(p->out, "const int skew = (");
    print_offset(p, &row);
    str_addf(p->out, ") & %d;  // elements behind a boundary of %d\n", p->s.width - 1, p->s.width);
}

/* for (e = start; e < end; ...) over the flat RED loops, from one thread's pack to its next. */
void print_range_loop(Printer *p, const char *start, const char *end, int64_t step)
{
    print_line(p, "for (%s e = %s; e < %s; e += %lld) {", p->index_type, start, end,
               (long long)step);
    p->depth++;
    p->is_pack = p->s.width > 1;
    print_indices(p, LOOP_RED, "e");
    p->is_pack = false;
}

/* One step for each pack that a thread holds; q: its number. */
static void print_held_loop(Printer *p, const char *thread, int team)
{
    const CudaSchedule *s = &p->s;
    int64_t all = (int64_t)team * s->width * s->n_packs;
    print_line(p, "#pragma unroll");
    print_line(p, "for (int q = 0; q < %d; q++) {", s->n_packs);
    p->depth++;
    print_line(p,
               s->is_ragged ? "const int e = (q * %d + (int)%s) * %d - skew;"
                            : "const int e = (q * %d + %s) * %d;",
               team, thread, s->width);
    if (all != s->n_reduced) print_line(p, "if (e >= %lld) continue;", (long long)s->n_reduced);
    p->is_pack = s->width > 1;
    print_indices(p, LOOP_RED, "e");
    p->is_pack = false;
}

/* Likewise for packs in shared memory: each is the work of one thread, so no barrier is needed. */
static void print_shared_loop(Printer *p)
{
    const CudaSchedule *s = &p->s;
    print_line(p, "for (int q = threadIdx.x; q < %lld; q += %d) {", (long long)held_packs(s),
               s->threads_x);
    p->depth++;
    print_line(p, "const int e = q * %d%s;", s->width, s->is_ragged ? " - skew" : "");
    if (s->is_ragged) print_line(p, "if (e >= %lld) continue;", (long long)s->n_reduced);
    p->is_pack = s->width > 1;
    print_indices(p, LOOP_RED, "e");
    p->is_pack = false;
}

void print_sweep_loop(Printer *p)
{
    const CudaSchedule *s = &p->s;
    const char *thread = "0";
    int team = 1;
    char start[64], end[32];
    switch (s->shape) {
    case CUDA_POINT: return; /* no RED loops: the row is the element */
    case CUDA_ATTENTION:
    case CUDA_FLASH:
    case CUDA_TILES:
    case CUDA_SCATTER:
    case CUDA_STRIP:
    case CUDA_SPLIT_COLUMN:
    case CUDA_SPLIT_ROW: ZM_UNREACHABLE("printed elsewhere");
    case CUDA_THREAD: break;
    case CUDA_WARP:
        thread = "lane";
        team = 32;
        break;
    case CUDA_BLOCK:
        thread = "threadIdx.x";
        team = s->threads_x;
        break;
    case CUDA_COLUMN:
        thread = "threadIdx.y";
        team = s->threads_y;
        break;
    }
    if (s->n_packs > 0) {
        print_held_loop(p, thread, team);
        return;
    }
    if (s->shared_bytes > 0) {
        print_shared_loop(p);
        return;
    }
    const char *from = s->is_ragged ? "(int)%s * %d - skew" : s->width > 1 ? "%s * %d" : "%s";
    snprintf(start, sizeof start, from, thread, s->width);
    snprintf(end, sizeof end, "%lld", (long long)s->n_reduced);
    bool is_pipelined = s->shape == CUDA_BLOCK && !s->is_ragged; /* several loads under way */
    if (is_pipelined) print_line(p, "#pragma unroll 4");
    print_range_loop(p, start, end, (int64_t)team * s->width);
}

/* ---- reductions ---- */

/* The type that a reduction accumulates in: f32 for 16 bits, int for i1. */
DType accumulator_type(const Node *n)
{
    if (n->dtype == DT_F64 || n->dtype == DT_F32) return n->dtype;
    return n->dtype == DT_I1 || n->dtype == DT_I32 ? DT_I32 : DT_F32;
}

double reduce_identity(const Node *n)
{
    if (n->op == OP_REDUCE_SUM) return 0;
    return n->dtype == DT_I1 ? 0 : n->dtype == DT_I32 ? (double)INT32_MIN : -(double)INFINITY;
}

void print_reduce_starts(Printer *p, int32_t stage)
{
    bool is_column = is_strip(p);
    for (uint32_t i = 0; i < p->k->n_nodes; i++) {
        if (!is_reduced_at(p, i, stage)) continue;
        const Node *n = &p->k->nodes[i];
        DType acc = accumulator_type(n);
        print_indent(p);
        str_addf(p->out, "%s r%u", register_type(acc), i);
        if (is_column) str_addf(p->out, "[%d]", p->s.width);
        str_add(p->out, is_column ? " = {" : " = ");
        for (int j = 0; j < (is_column ? p->s.width : 1); j++) {
            if (j > 0) str_add(p->out, ", ");
            print_const(p->out, acc, reduce_identity(n));
        }
        str_add(p->out, is_column ? "};\n" : ";\n");
    }
}

void print_reduce_steps(Printer *p, int32_t stage)
{
    bool is_column = is_strip(p);
    const char *which = !is_column ? "" : p->s.width > 1 ? "[j]" : "[0]";
    for (uint32_t i = 0; i < p->k->n_nodes; i++) {
        if (!is_reduced_at(p, i, stage)) continue;
        const Node *n = &p->k->nodes[i];
        const char *type = register_type(accumulator_type(n));
        print_indent(p);
        if (p->is_masked) str_add(p->out, "if (is_inside) ");
        if (n->op == OP_REDUCE_SUM)
            str_addf(p->out, "r%u%s += ", i, which);
        else
            str_addf(p->out, "r%u%s = zm_max(r%u%s, (%s)", i, which, i, which, type);
        print_use(p, n->arg[0]);
        str_add(p->out, n->op == OP_REDUCE_SUM ? ";" : ");");
        print_end(p, op_info(n->op)->name, node_loc(p, i));
    }
}

const char *combine_name(const Node *n)
{
    return n->op == OP_REDUCE_SUM ? "zm_sum" : "zm_largest";
}

/* const float v5 = ...; rounded to the node's type. */
void print_reduced(Printer *p, uint32_t i, const char *fmt, ...)
{
    const Node *n = &p->k->nodes[i];
    const char *round = n->dtype == DT_BF16  ? "zm_round_bf16("
                        : n->dtype == DT_F16 ? "zm_round_f16("
                                             : "";
    char text[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    print_line(p, "const %s v%u = %s%s%s;", register_type(n->dtype), i, round, text,
               *round ? ")" : "");
}

/* All reductions of a stage over a block: one barrier. */
void print_block_combined(Printer *p, int32_t stage)
{
    const Kernel *k = p->k;
    bool any = false;
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        if (!is_reduced_at(p, i, stage)) continue;
        print_line(p, "__shared__ %s part%u[%d];", register_type(accumulator_type(&k->nodes[i])), i,
                   p->s.threads_x / 32);
        print_line(p, "zm_block_put<%s>(part%u, r%u);", combine_name(&k->nodes[i]), i, i);
        any = true;
    }
    if (!any) return;
    print_line(p, "__syncthreads();");
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (is_reduced_at(p, i, stage))
            print_reduced(p, i, "zm_block_get<%s>(part%u)", combine_name(&k->nodes[i]), i);
}

static void print_combined(Printer *p, int32_t stage)
{
    if (p->s.shape == CUDA_BLOCK) {
        print_block_combined(p, stage);
        return;
    }
    const char *how = p->s.shape == CUDA_WARP     ? "zm_warp"
                      : p->s.shape == CUDA_COLUMN ? "zm_column"
                                                  : NULL;
    for (uint32_t i = 0; i < p->k->n_nodes; i++) {
        if (!is_reduced_at(p, i, stage)) continue;
        if (how)
            print_reduced(p, i, "%s<%s>(r%u)", how, combine_name(&p->k->nodes[i]), i);
        else
            print_reduced(p, i, "r%u", i);
    }
}

/* ---- the kernel ---- */

static void print_sweep(Printer *p, int32_t stage)
{
    if (!find_wanted(p, stage)) return;
    print_reduce_starts(p, stage);
    print_held(p, stage);
    print_sweep_loop(p);
    print_pack(p, stage, is_last(p, stage));
    if (p->s.shape != CUDA_POINT) print_close(p);
    print_combined(p, stage);
}

void print_row_stores(Printer *p)
{
    static const char *const leader[] = {[CUDA_WARP] = "if (lane == 0)",
                                         [CUDA_BLOCK] = "if (threadIdx.x == 0)",
                                         [CUDA_COLUMN] = "if (is_mine && threadIdx.y == 0)",
                                         [CUDA_SPLIT_ROW] = "if (threadIdx.x == 0)",
                                         [CUDA_ATTENTION] = NULL,
                                         [CUDA_FLASH] = NULL};
    if (!has_stores(p, LV_ROW) && !has_stores(p, LV_CONST)) return;
    if (leader[p->s.shape]) print_open(p, leader[p->s.shape]);
    print_stores(p, LV_CONST);
    print_stores(p, LV_ROW);
    if (leader[p->s.shape]) print_close(p);
}

/* The block's threads read what it has combined: the next row must not write it before. */
static bool keeps_shared(const Printer *p)
{
    bool any = false;
    for (uint32_t i = 0; i < p->k->n_nodes; i++)
        any |= p->is_live[i] && p->k->nodes[i].kind == KN_REDUCE;
    return any && p->s.shape == CUDA_BLOCK;
}

static void print_rows(Printer *p)
{
    print_held_in_shared(p);
    print_row_loop(p);
    int32_t n_stages = p->k->n_stages > 0 ? (int32_t)p->k->n_stages : 1;
    if (p->s.is_ragged) print_skew(p);
    int32_t stage = 0;
    if (is_online(p)) {
        print_row_nodes(p, 0);
        print_online(p);
        stage = 2;
    }
    for (; stage < n_stages; stage++) {
        print_row_nodes(p, stage);
        print_sweep(p, stage);
    }
    print_row_nodes(p, n_stages);
    print_row_stores(p);
    if (keeps_shared(p)) print_line(p, "__syncthreads();");
    print_close(p);
}

void print_nest(Printer *p)
{
    print_constants(p);
    if (p->s.shape == CUDA_SCATTER)
        print_scatter(p);
    else if (p->s.shape == CUDA_STRIP)
        print_strips(p);
    else if (p->s.n_splits > 1)
        print_split(p);
    else
        print_rows(p);
}
