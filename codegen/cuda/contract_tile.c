/* contract_tile.c -- how a contraction is cut into blocks: the tile that a simple model of the
 * chip's time likes best.
 *
 * A multiprocessor works off its blocks side by side, so its time is the products of the blocks
 * that it gets, each as fast as its tile's shape allows: a large tile reads less per product.  Too
 * few blocks leave multiprocessors idle; then parts of K become blocks of their own, whose sums
 * pass through the workspace. */
#include "codegen/cuda/contract.h"

enum {
    PLAIN_TILE = CUDA_TILE,
    STEP_BYTES = 64, /* of K a stage; of wgmma twice that */
    FIXED_STEPS = 6, /* time of a block's beginning and end, in steps */
    MIN_PART = 256,  /* of K, elements of a part */
    MAX_PARTS = 64,
    MAX_WORKSPACE = 32 << 20
};

/* Shapes in the order of preference.  speed: products a second against the first; by the ratio of
 * products to elements read from shared memory and by what the loop around them costs. */
static const struct {
    int32_t m, n, warps_m, warps_n, min_sm;
    double speed;
    bool is_wgmma; /* two groups of 4 warps, 64 rows each */
} shapes[] = {
    {128, 128, 8, 1, 90, 1.5, true},
    {128, 128, 2, 4, 80, 1.0, false}, /* 64 KiB of results: too much for sm_75 */
    {128, 64, 2, 2, 75, 0.85, false},
    {64, 128, 1, 4, 75, 0.85, false},
    {64, 64, 2, 2, 75, 0.65, false},
};

/* Of the chips that an architecture stands for, a usual one. */
static int64_t multiprocessors(CudaArch arch)
{
    static const struct {
        int sm, n;
    } usual[] = {{75, 46}, {80, 108}, {86, 84}, {89, 128}, {90, 132}, {100, 148}, {120, 170}};
    int64_t n = 84;
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
        if (arch.sm >= usual[i].sm) n = usual[i].n;
    return n;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static void cut(const Kernel *k, ContractTile *t)
{
    t->n_m = ceil_div(loops_extent(k, LOOP_M), t->m);
    t->n_n = ceil_div(loops_extent(k, LOOP_N), t->n);
    t->n_batches = loops_extent(k, LOOP_BATCH);
    t->n_steps = ceil_div(loops_extent(k, LOOP_K), t->k);
    t->parts = 1;
    t->steps = t->n_steps;
}

/* In units of one step of the first shape on one multiprocessor. */
static double time_of(const ContractTile *t, double speed, int64_t n_sm)
{
    int64_t blocks = t->n_batches * t->n_m * t->n_n * t->parts;
    double work = t->m * (double)t->n / (128 * 128.0) / speed;
    double parts_cost = t->parts > 1 ? 4 + (double)t->parts / 2 : 0; /* write; read all */
    double per_sm = (double)ceil_div(blocks, n_sm);
    double alone = per_sm == 1 ? 1.25 : 1; /* no other block fills its waits */
    double steps = (double)t->steps * (t->kind == CONTRACT_WGMMA ? 2 : 1);
    return per_sm * alone * work * (steps + FIXED_STEPS + parts_cost);
}

static void split(ContractTile *t, int64_t parts)
{
    t->steps = ceil_div(t->n_steps, parts);
    t->parts = ceil_div(t->n_steps, t->steps);
}

static bool may_split(const ContractTile *t, int64_t parts)
{
    int64_t bytes = t->n_batches * t->n_m * t->n_n * parts * t->m * t->n * 4;
    return parts == 1 || (t->n_steps * t->k / parts >= MIN_PART && bytes <= MAX_WORKSPACE);
}

static ContractTile shape_at(size_t i, ContractKind kind, CudaArch arch)
{
    ContractTile t = {.kind = kind, .m = shapes[i].m, .n = shapes[i].n};
    t.warps_m = shapes[i].warps_m;
    t.warps_n = kind == CONTRACT_FLOATS ? t.m * t.n / 64 / 32 / t.warps_m : shapes[i].warps_n;
    t.k = STEP_BYTES / (kind == CONTRACT_FLOATS ? 4 : 2);
    t.stages = arch.sm >= 80 ? 4 : 2;
    if (!shapes[i].is_wgmma) return t;
    t.kind = CONTRACT_WGMMA;
    t.k *= 2;
    t.stages = 3; /* 96 KiB: two blocks share a multiprocessor */
    return t;
}

static ContractTile best_shape(const Kernel *k, ContractKind kind, CudaArch arch)
{
    ContractTile best = {0};
    double best_time = 0;
    int64_t n_sm = multiprocessors(arch);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        if (arch.sm < shapes[i].min_sm) continue;
        if (shapes[i].is_wgmma && (kind != CONTRACT_MMA || arch.sm != 90 || !arch.is_own)) continue;
        ContractTile t = shape_at(i, kind, arch);
        for (int64_t parts = 1; parts <= MAX_PARTS; parts++) {
            cut(k, &t);
            if (!may_split(&t, parts)) break;
            split(&t, parts);
            double time = time_of(&t, shapes[i].speed, n_sm);
            if (best.m > 0 && time >= best_time) continue;
            best = t;
            best_time = time;
        }
    }
    return best;
}

static ContractKind kind_of(const Kernel *k, CudaArch arch)
{
    DType a = k->nodes[k->node_a].dtype, b = k->nodes[k->node_b].dtype;
    if (a != b || arch.sm < 75) return CONTRACT_PLAIN;
    if (a == DT_F16 || (a == DT_BF16 && arch.sm >= 80)) return CONTRACT_MMA;
    return a == DT_F32 ? CONTRACT_FLOATS : CONTRACT_PLAIN;
}

ContractTile contract_tile(const Kernel *k, CudaArch arch)
{
    ContractKind kind = kind_of(k, arch);
    if (kind != CONTRACT_PLAIN) return best_shape(k, kind, arch);
    ContractTile t = {.m = PLAIN_TILE, .n = PLAIN_TILE, .k = 16, .warps_m = 2, .warps_n = 4};
    cut(k, &t);
    return t;
}

void contract_schedule(const Kernel *k, CudaArch arch, CudaSchedule *s)
{
    ContractTile t = contract_tile(k, arch);
    int64_t tiles = t.n_batches * t.n_m * t.n_n;
    s->n_rows = t.n_batches * loops_extent(k, LOOP_M) * loops_extent(k, LOOP_N);
    s->n_reduced = loops_extent(k, LOOP_K);
    s->rows_per_block = t.m * t.n;
    s->threads_x = t.warps_m * t.warps_n * 32;
    s->n_blocks = tiles * t.parts;
    if (t.parts > 1) s->workspace_bytes = tiles * t.parts * t.m * t.n * 4;
    if (t.kind == CONTRACT_PLAIN) return;
    int32_t ring = t.stages * contract_stage_bytes(&t), results = t.m * t.n * 4;
    s->shared_bytes = ring > results ? ring : results;
    if (t.kind == CONTRACT_WGMMA) s->shared_bytes += CONTRACT_SWIZZLE_SPAN;
}
