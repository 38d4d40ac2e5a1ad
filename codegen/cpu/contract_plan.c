/* contract_plan.c -- the schedule of a contraction: a pure function of form and target.
 *
 * 1. Loops of one kind are merged where every access allows it.
 * 2. "Rows" and "columns" are M and N, or N and M when the results are contiguous along M: vectors
 * run along columns.
 * 3. The smaller operand is resident: packed once, by all threads, into the workspace (phase 0).
 * The other is streamed: a task packs a chunk of it, block of K by block of K, into its own scratch
 * and multiplies it by every resident panel.  A small product packs both operands in its task.
 * 4. When rows x columns give too few tasks, or K is so large that the resident operand would fill
 * the workspace, K is split a fixed number of ways; the last phase adds the partial sums in order
 * and runs the epilogue. Nothing depends on the number of threads.
 */
#include "codegen/cpu/contract.h"

#include <string.h>

enum {
    K_BLOCK_BYTES = 512 * 4, /* of one element row: with 48 columns a panel is 96 KiB, read from the
                                second-level cache */
    CHUNK_ROWS = 128,        /* streamed elements per task, about: two chunks, accumulators and */
    CHUNK_COLS = 96,         /* ... what the epilogue reads share the second-level cache */
    ACC_BYTES = 512 << 10,   /* accumulators of a task stay in the second-level cache */
    TASK_FLOPS = 1 << 20,    /* a task is worth its start */
    TASKS = 16,              /* more give nothing on the machines that we plan for */
    RESIDENT_BYTES = 24 << 20, /* largest packed operand */
    SPLIT_MIN = 512,           /* shortest part of K */
    AHEAD_BYTES = 512 << 10    /* a smaller array stays in the second-level cache */
};

/* ---- loops ---- */

static bool access_merges(const Access *x, int outer, int inner, int64_t extent)
{
    if (x->stride[outer] != x->stride[inner] * extent) return false;
    for (uint32_t g = 0; g < x->n_guards; g++)
        if (x->guards[g].stride[outer] != x->guards[g].stride[inner] * extent) return false;
    return true;
}

static bool loops_merge(const Kernel *k, int outer, int inner)
{
    int64_t extent = k->loops[inner].extent;
    for (uint32_t i = 0; i < k->n_accesses; i++)
        if (!access_merges(&k->accesses[i], outer, inner, extent)) return false;
    for (uint32_t i = 0; i < k->n_stores; i++)
        if (!access_merges(&k->stores[i].to, outer, inner, extent)) return false;
    return true;
}

/* The axis of a kind.  A merged outer loop keeps its place with extent 1: its index is never set
 * and its stride is zeroed. */
static MmAxis axis_of(Kernel *k, LoopKind kind, int *gone)
{
    MmAxis a = {.total = 1};
    int prev = -1;
    for (int i = 0; i < (int)k->n_loops; i++) {
        if (k->loops[i].kind != kind) continue;
        a.total *= k->loops[i].extent;
        if (prev >= 0 && loops_merge(k, prev, i)) {
            k->loops[i].extent *= k->loops[prev].extent;
            k->loops[prev].extent = 1;
            gone[prev] = 1;
            a.n--;
        }
        a.loop[a.n] = i;
        a.extent[a.n++] = k->loops[i].extent;
        prev = i;
    }
    return a;
}

static void access_drop_loop(Access *x, int loop, Arena *a)
{
    x->stride[loop] = 0;
    if (!x->n_guards) return;
    Guard *g = ARENA_ARRAY(a, Guard, x->n_guards);
    memcpy(g, x->guards, x->n_guards * sizeof *g);
    for (uint32_t i = 0; i < x->n_guards; i++) g[i].stride[loop] = 0;
    x->guards = g;
}

/* A private copy whose accesses no longer mention merged loops; a node that depended on one depends
 * on the loop that took it in. */
static void kernel_drop_loops(Arena *a, Kernel *k, const int *gone)
{
    for (int l = 0; l < (int)k->n_loops; l++) {
        if (!gone[l]) continue;
        int into = l + 1;
        while (k->loops[into].kind != k->loops[l].kind) into++;
        for (uint32_t i = 0; i < k->n_accesses; i++) access_drop_loop(&k->accesses[i], l, a);
        for (uint32_t i = 0; i < k->n_stores; i++) access_drop_loop(&k->stores[i].to, l, a);
        for (uint32_t i = 0; i < k->n_nodes; i++)
            if (k->nodes[i].loop_mask >> l & 1) {
                k->nodes[i].loop_mask &= ~(1u << l);
                k->nodes[i].loop_mask |= 1u << into;
            }
    }
}

static Kernel *kernel_copy(Arena *a, const Kernel *from)
{
    Kernel *k = ARENA_NEW(a, Kernel);
    *k = *from;
    k->nodes = ARENA_ARRAY(a, Node, k->n_nodes);
    memcpy(k->nodes, from->nodes, k->n_nodes * sizeof *k->nodes);
    k->accesses = ARENA_ARRAY(a, Access, k->n_accesses);
    memcpy(k->accesses, from->accesses, k->n_accesses * sizeof *k->accesses);
    k->stores = ARENA_ARRAY(a, Store, k->n_stores);
    memcpy(k->stores, from->stores, k->n_stores * sizeof *k->stores);
    return k;
}

/* ---- operands ---- */

static int64_t inner_stride(const Access *x, const MmAxis *axis)
{
    return axis->n ? x->stride[axis->loop[axis->n - 1]] : 0;
}

/* +1 for each result or epilogue operand that is contiguous along N, -1 along M. */
static bool columns_are_m(const Kernel *k, const MmAxis *am, const MmAxis *an)
{
    int64_t score = 0;
    for (uint32_t i = 0; i < k->n_stores; i++) {
        const Access *to = &k->stores[i].to;
        score += (inner_stride(to, an) == 1) - (inner_stride(to, am) == 1);
    }
    return score < 0 || (score == 0 && an->n == 0 && am->n > 0);
}

/* Is the node a plain load over single loops? */
static const Access *plain_load(const Kernel *k, int32_t node, const MmAxis *axis,
                                const MmAxis *red)
{
    const Node *n = &k->nodes[node];
    if (n->kind != KN_LOAD || axis->n > 1 || red->n > 1) return NULL;
    const Access *x = &k->accesses[n->index];
    return x->dyn < 0 && x->n_guards == 0 && k->args[x->arg].dtype == n->dtype ? x : NULL;
}

/* Vectors of a prologue run along k unless more of its loads are contiguous along its own axis. */
static bool prologue_is_transposed(const Kernel *k, int32_t node, const MmAxis *axis,
                                   const MmAxis *red)
{
    int score = 0;
    for (int32_t i = 0; i <= node; i++) {
        if (k->nodes[i].kind != KN_LOAD) continue;
        const Access *x = &k->accesses[k->nodes[i].index];
        score += (inner_stride(x, red) == 1) - (inner_stride(x, axis) == 1);
    }
    return score > 0;
}

/* A plain load is packed directly when it has stride 1 along its axis or along k (an axis of one
 * element has any stride). */
static MmOperand operand_of(const Kernel *k, int32_t node, const MmAxis *axis, const MmAxis *red,
                            int width)
{
    MmOperand o = {.node = node,
                   .axis = axis,
                   .width = width,
                   .n_panels = mm_ceil_div(axis->total, width),
                   .dtype = k->nodes[node].dtype};
    const Access *x = plain_load(k, node, axis, red);
    if (x) {
        o.x_stride = inner_stride(x, axis);
        o.k_stride = inner_stride(x, red);
        o.is_transposed = red->n == 0 ? o.x_stride != 1 : o.k_stride == 1;
        if (o.is_transposed || o.x_stride == 1 || axis->n == 0) o.direct = x;
    }
    if (!o.direct) o.is_transposed = prologue_is_transposed(k, node, axis, red);
    return o;
}

/* ---- sizes ---- */

/* Smaller tiles for narrow products: no vector of columns that holds nothing. */
static void plan_tile(ContractPlan *p, const CpuTarget *t, DType acc)
{
    p->tile = mm_tile_for(t, acc);
    p->lanes = mm_lanes(t, acc);
    int64_t vectors = mm_ceil_div(p->cols.total, p->lanes);
    if (vectors < p->tile.nv) p->tile.nv = (int)vectors;
    p->tile.b_k = (int64_t)p->tile.nv * p->lanes;
    bool is_bf16 =
        p->k->nodes[p->k->node_a].dtype == DT_BF16 && p->k->nodes[p->k->node_b].dtype == DT_BF16;
    p->tile.is_pairs = t->has_avx512bf16 && is_bf16 && p->red.n > 0;
    p->k_unit = p->tile.is_pairs ? 2 : 1;
    p->k_len = mm_ceil_div(p->red.total, p->k_unit);
}

static void plan_k(ContractPlan *p, DType acc)
{
    int64_t most = K_BLOCK_BYTES / dtype_bytes(acc);
    p->split = mm_ceil_div(p->k_len, p->n_splits);
    p->n_kb = mm_ceil_div(p->split, most);
    p->kc = mm_ceil_div(p->split, p->n_kb);
    p->kc_pad = mm_round_up(p->kc, p->lanes);
}

/* Panels per task of either operand, and the split of K. */
static void plan_tasks(ContractPlan *p, DType acc)
{
    const MmOperand *r = contract_resident(p), *s = contract_streamed(p);
    int64_t per_batch = 2 * p->rows.total * p->cols.total * p->red.total;
    int64_t want = per_batch * p->batch.total / TASK_FLOPS;
    want = want < 1 ? 1 : want > TASKS ? TASKS : want;
    want = mm_ceil_div(want, p->batch.total);
    int64_t most = mm_ceil_div(p->row_is_resident ? CHUNK_COLS : CHUNK_ROWS, s->width);
    int64_t even = mm_ceil_div(s->n_panels, want);
    p->n_chunks = mm_ceil_div(s->n_panels, even < most ? even : most);
    p->chunk = mm_ceil_div(s->n_panels, p->n_chunks);
    p->n_chunks = mm_ceil_div(s->n_panels, p->chunk);
    int64_t fits = ACC_BYTES / (dtype_bytes(acc) * p->chunk * s->width * r->width);
    int64_t blocks = mm_ceil_div(r->n_panels, fits < 1 ? 1 : fits);
    int64_t resident = p->batch.total * r->n_panels * r->width * p->k_len * dtype_bytes(acc);
    p->n_splits = 1;
    if (p->n_chunks * blocks < want || resident > RESIDENT_BYTES) {
        int64_t ways = mm_ceil_div(want, p->n_chunks * blocks);
        if (resident > RESIDENT_BYTES) ways = TASKS / 2;
        int64_t longest = p->k_len / SPLIT_MIN;
        bool is_narrow = p->rows.total * p->cols.total <= 1 << 20;
        if (is_narrow && longest >= 2) p->n_splits = ways < longest ? ways : longest;
    }
    if (p->n_splits == 1 && p->n_chunks * blocks < want) {
        int64_t more = mm_ceil_div(want, p->n_chunks);
        blocks = more < r->n_panels ? more : r->n_panels;
    }
    if (p->n_splits > 1) blocks = 1;
    p->block = mm_ceil_div(r->n_panels, blocks);
    p->n_blocks = mm_ceil_div(r->n_panels, p->block);
    p->is_shared = p->n_splits == 1 && p->n_chunks > 1 && resident <= RESIDENT_BYTES;
}

/* Tiles at the edges of M and N, and whether all tiles can be stored straight to the result: it is
 * the sum itself, its columns are contiguous and no tile reaches over an edge. */
static void plan_edges(ContractPlan *p, DType acc)
{
    int64_t rows = p->rows.total - (p->row.n_panels - 1) * p->row.width;
    int64_t cols = p->cols.total - (p->col.n_panels - 1) * p->col.width;
    p->low_mr = p->tile.mr;
    while (p->low_mr / 2 >= rows) p->low_mr /= 2;
    p->narrow_nv = (int)mm_ceil_div(cols, p->lanes);
    const Kernel *k = p->k;
    const Store *s = &k->stores[0];
    bool is_sum = k->n_stores == 1 && s->mode == ST_SET && s->level == LV_ELEM &&
                  k->nodes[s->node].kind == KN_ACC && k->args[s->to.arg].dtype == acc;
    bool is_plain =
        s->to.dyn < 0 && p->rows.n <= 1 && p->cols.n == 1 && inner_stride(&s->to, &p->cols) == 1;
    bool is_whole = p->low_mr == rows && p->narrow_nv * p->lanes == cols;
    if (is_sum && is_plain && is_whole && p->n_splits == 1) p->out = &s->to;
}

/* ---- what tiles fetch ahead ---- */

static void add_area(ContractPlan *p, const Access *epilogue, int64_t rows, int64_t row_bytes,
                     int64_t step)
{
    if (p->n_areas == MM_AREAS) return;
    int64_t lines = mm_ceil_div(row_bytes, MM_LINE) + (step % MM_LINE != 0);
    p->area[p->n_areas++] =
        (MmArea){.epilogue = epilogue, .rows = rows, .lines = lines, .step = step};
}

static void add_chunk_area(ContractPlan *p)
{
    const MmOperand *s = contract_streamed(p);
    int64_t size = dtype_bytes(s->dtype), chunk = p->chunk * s->width, kc = p->kc * p->k_unit;
    if (!s->direct || s->axis->total * p->red.total * size < AHEAD_BYTES) return;
    if (s->is_transposed)
        add_area(p, NULL, chunk, kc * size, s->x_stride * size);
    else
        add_area(p, NULL, kc, chunk * size, s->k_stride * size);
}

/* A task's part of a result, or of what the epilogue reads element by element. */
static void add_epilogue_area(ContractPlan *p, const Access *x)
{
    int64_t size = dtype_bytes(p->k->args[x->arg].dtype), ld = inner_stride(x, &p->rows);
    int64_t rows = (p->row_is_resident ? p->block : p->chunk) * p->row.width;
    int64_t cols = (p->row_is_resident ? p->chunk : p->block) * p->col.width;
    bool is_plain = x->dyn < 0 && x->n_guards == 0 && p->rows.n == 1 && p->cols.n == 1 &&
                    inner_stride(x, &p->cols) == 1 && ld != 0;
    if (is_plain && p->rows.total * p->cols.total * size >= AHEAD_BYTES)
        add_area(p, x, rows, cols * size, ld * size);
}

static void add_epilogue_areas(Arena *a, ContractPlan *p)
{
    const Kernel *k = p->k;
    bool *is_used = ARENA_ARRAY(a, bool, k->n_nodes);
    for (uint32_t i = 0; i < k->n_nodes; i++) is_used[i] = false;
    for (uint32_t i = 0; i < k->n_stores; i++) is_used[k->stores[i].node] = true;
    for (uint32_t i = k->n_nodes; i-- > 0;) {
        const Node *n = &k->nodes[i];
        if (!is_used[i]) continue;
        for (uint32_t j = 0; j < n->n_args; j++) is_used[n->arg[j]] = true;
        if (n->kind == KN_LOAD) add_epilogue_area(p, &k->accesses[n->index]);
    }
    for (uint32_t i = 0; i < k->n_stores; i++) add_epilogue_area(p, &k->stores[i].to);
}

/* Tiles that it takes to fetch all areas, each a line every so many k. */
static int64_t tiles_to_fetch(const ContractPlan *p, int every)
{
    int64_t n = 0, steps = p->kc / every;
    if (steps == 0) return INT64_MAX;
    for (int i = 0; i < p->n_areas; i++)
        n += mm_ceil_div(p->area[i].rows, steps) * p->area[i].lines;
    return n;
}

/* Packing and the epilogue then find what they read and write in the second-level cache. Lines are
 * fetched as seldom as covers all of it; where a task has too few tiles to hide that, less is
 * fetched. */
static void plan_ahead(Arena *a, ContractPlan *p)
{
    int64_t tiles = p->block * p->chunk;
    add_chunk_area(p);
    if (p->n_splits == 1 && !p->out) add_epilogue_areas(a, p);
    for (; p->n_areas; p->n_areas--)
        for (int every = 16; every >= 2; every /= 2)
            if (tiles_to_fetch(p, every) <= tiles) {
                p->tile.ahead = every;
                return;
            }
}

/* Computed row by row before it is packed?  A row of pairs is as long as one of f32. */
static bool operand_has_temp(const ContractPlan *p, const MmOperand *o)
{
    return !o->direct && (o->is_transposed || p->tile.is_pairs);
}

static void plan_memory(ContractPlan *p, DType acc)
{
    const MmOperand *r = contract_resident(p), *s = contract_streamed(p);
    int64_t size = dtype_bytes(acc), s_panels = p->n_splits > 1 ? s->n_panels : p->chunk;
    int64_t rows = p->row_is_resident ? p->block * r->width : s_panels * s->width;
    int64_t cols = p->row_is_resident ? s_panels * s->width : p->block * r->width;
    p->acc_rows = p->out ? 0 : rows;
    p->ld = p->out ? inner_stride(p->out, &p->rows) : cols;
    p->s_at = 0;
    p->r_at = mm_round_up(p->chunk * s->width * p->kc_pad * size, ZMP_ALIGN);
    p->acc_at = p->r_at +
                (p->is_shared ? 0 : mm_round_up(p->block * r->width * p->kc_pad * size, ZMP_ALIGN));
    p->temp_at = p->acc_at + (p->n_splits > 1 ? mm_round_up(cols * size, ZMP_ALIGN)
                                              : mm_round_up(p->acc_rows * cols * size, ZMP_ALIGN));
    int64_t widest = p->row.width > p->col.width ? p->row.width : p->col.width;
    bool has_temp = operand_has_temp(p, &p->row) || operand_has_temp(p, &p->col);
    p->scratch_bytes = p->temp_at + (has_temp ? widest * p->kc_pad * size : 0);
    int64_t packed =
        p->is_shared ? p->batch.total * p->n_kb * r->n_panels * r->width * p->kc_pad * size : 0;
    p->partial_at = mm_round_up(packed, ZMP_ALIGN);
    p->workspace_bytes = p->partial_at;
    if (p->n_splits > 1) p->workspace_bytes += p->batch.total * p->n_splits * rows * cols * size;
}

static void plan_counts(ContractPlan *p)
{
    int64_t tasks = p->n_splits > 1 ? p->n_splits : p->n_chunks * p->n_blocks;
    p->n_tasks = p->batch.total * tasks;
    const MmOperand *r = contract_resident(p);
    p->pack_group = mm_ceil_div(32 << 10, r->width * p->kc);
    if (p->pack_group > r->n_panels) p->pack_group = r->n_panels;
    p->n_pack_tasks =
        p->is_shared ? p->batch.total * p->n_kb * mm_ceil_div(r->n_panels, p->pack_group) : 0;
    p->reduce_rows = mm_ceil_div(p->rows.total, TASKS);
    p->n_reduce_tasks =
        p->n_splits > 1 ? p->batch.total * mm_ceil_div(p->rows.total, p->reduce_rows) : 0;
}

static DType accumulator(const Kernel *k)
{
    DType a = k->nodes[k->node_a].dtype, b = k->nodes[k->node_b].dtype;
    return a == DT_F64 || b == DT_F64 ? DT_F64 : DT_F32;
}

ContractPlan *contract_plan(Arena *a, const CpuTarget *t, const Kernel *from)
{
    ContractPlan *p = ARENA_NEW(a, ContractPlan);
    Kernel *k = kernel_copy(a, from);
    int gone[KERNEL_MAX_LOOPS] = {0};
    DType acc = accumulator(k);
    p->k = k;
    p->batch = axis_of(k, LOOP_BATCH, gone);
    p->rows = axis_of(k, LOOP_M, gone);
    p->cols = axis_of(k, LOOP_N, gone);
    p->red = axis_of(k, LOOP_K, gone);
    kernel_drop_loops(a, k, gone);
    bool is_swapped = columns_are_m(k, &p->rows, &p->cols);
    if (is_swapped) {
        MmAxis rows = p->rows;
        p->rows = p->cols;
        p->cols = rows;
    }
    plan_tile(p, t, acc);
    p->row = operand_of(k, is_swapped ? k->node_b : k->node_a, &p->rows, &p->red, p->tile.mr);
    p->col =
        operand_of(k, is_swapped ? k->node_a : k->node_b, &p->cols, &p->red, p->tile.nv * p->lanes);
    p->row_is_resident = p->rows.total <= p->cols.total;
    plan_tasks(p, acc);
    plan_k(p, acc);
    plan_edges(p, acc);
    plan_ahead(a, p);
    plan_memory(p, acc);
    plan_counts(p);
    return p;
}

KernelNeeds cpu_contract_needs(const CpuTarget *t, const Kernel *k)
{
    Arena a = {0};
    const ContractPlan *p = contract_plan(&a, t, k);
    KernelNeeds needs = {p->workspace_bytes, p->scratch_bytes};
    arena_free(&a);
    return needs;
}
