/* schedule.c -- how many threads share a row, and how many rows a block takes; see cuda.h. */
#include "codegen/cuda/contract.h"

#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_THREADS = 256,
    WARP = 32,
    MAX_THREADS = 1024,
    FEW = 8,                  /* a row of fewer elements is one thread's work */
    WARP_MAX_REDUCED = 1024,  /* 32 elements a lane */
    WARP_MIN_ROWS = 512,      /* fewer rows get a block each, to fill the chip */
    STRIP_MIN_ROWS = 65536,   /* 132 multiprocessors have 62 packs of 8 each, at least */
    COLUMN_MIN_ROWS = 16,     /* half a warp reads side by side */
    MAX_BLOCKS = 16384,       /* beyond, kernels stride */
    HELD_MAX = 32,            /* elements of a row that a thread keeps in registers */
    RESIDENT = 3,             /* blocks of 256 threads on a multiprocessor, 80 registers each ... */
    RESIDENT_HELD = 32,       /* ... of which packs take these */
    SCATTER_BUCKETS = 528,    /* blocks that fill 132 multiprocessors four times */
    SPLIT_COLUMN_UNITS = 396, /* parts that fill 132 multiprocessors three times; of rows, where */
    SPLIT_ROW_UNITS = 528,    /* more parts cost the last block little, four times */
    SPLIT_MAX_ROWS = 128,     /* more rows fill the chip alone */
    SPLIT_MIN_REDUCED = 8192, /* of a row: 8 parts */
    SPLIT_ROW_PART = 1024,    /* least elements of a part */
    SPLIT_COLUMN_PART = 32,   /* least points of the RED loops of a part */
    SPLIT_COLUMN_MAX = 96     /* parts: the last block reads them all */
};
/* 32-bit element numbers stay below 2^31 also after the last stride: 2^30 + MAX_BLOCKS *
 * MAX_THREADS. */
#define MAX_32BIT_ELEMS ((int64_t)1 << 30)

static bool has_loop(const Kernel *k, LoopKind kind)
{
    for (uint32_t d = 0; d < k->n_loops; d++)
        if (k->loops[d].kind == kind) return true;
    return false;
}

/* Is one sweep of sums all that the kernel does for each row? */
static bool is_plain_reduction(const Kernel *k)
{
    bool any = false;
    for (uint32_t i = 0; i < k->n_stores; i++)
        if (k->stores[i].level == LV_ELEM) return false;
    for (uint32_t i = 0; i < k->n_nodes; i++) any |= k->nodes[i].kind == KN_REDUCE;
    return any && k->n_stages <= 1;
}

static CudaShape shape_of(const Kernel *k, const CudaSchedule *s, CudaArch arch)
{
    if (k->kind == KK_CONTRACT) return CUDA_TILES;
    if (k->kind == KK_SCATTER) return CUDA_SCATTER;
    if (k->kind == KK_ATTENTION) return flash_fits(&k->attn, arch) ? CUDA_FLASH : CUDA_ATTENTION;
    if (!has_loop(k, LOOP_RED)) return CUDA_POINT;
    const Loop *inner = &k->loops[k->n_loops - 1];
    bool is_plain = is_plain_reduction(k);
    bool is_column = inner->kind == LOOP_PAR && inner->extent >= COLUMN_MIN_ROWS;
    if (is_column && is_plain && s->n_rows >= STRIP_MIN_ROWS) return CUDA_STRIP;
    if (is_column)
        return is_plain && s->n_reduced >= 4 * SPLIT_COLUMN_PART ? CUDA_SPLIT_COLUMN : CUDA_COLUMN;
    if (s->n_rows > 1 && s->n_reduced < FEW) return CUDA_THREAD;
    if (is_plain && s->n_rows <= SPLIT_MAX_ROWS && s->n_reduced >= SPLIT_MIN_REDUCED)
        return CUDA_SPLIT_ROW;
    bool is_short = s->n_reduced <= WARP_MAX_REDUCED;
    if (is_short && s->n_rows >= WARP_MIN_ROWS) return CUDA_WARP;
    return s->n_rows > 1 && s->n_reduced <= WARP_MAX_REDUCED / 8 ? CUDA_WARP : CUDA_BLOCK;
}

static bool needs_64bit(const Kernel *k, const CudaSchedule *s)
{
    if (s->n_rows > MAX_32BIT_ELEMS || s->n_reduced > MAX_32BIT_ELEMS) return true;
    for (uint32_t i = 0; i < k->n_args; i++)
        if (k->args[i].elems > MAX_32BIT_ELEMS) return true;
    return false;
}

/* ---- rows ---- */

/* Threads of a block that has a row: 16 elements each while a row can stay in registers, else 4
 * packs; few enough that several blocks share a multiprocessor. */
static int32_t threads_for_row(const CudaSchedule *s, bool is_held)
{
    int32_t threads = 128, each = is_held ? 16 : 4 * s->width;
    int32_t most = is_held ? MAX_THREADS : 512;
    while (threads < most && s->n_reduced > (int64_t)threads * each) threads *= 2;
    return threads;
}

/* Most dynamic shared memory of a block; 0 where the text runs without. */
static int64_t shared_limit(CudaArch arch)
{
    if (arch.sm == 0) return 0;
    return (arch.sm == 90 || arch.sm == 100 ? 227 : arch.sm >= 80 ? 99 : 64) << 10;
}

/* A row that registers do not hold stays in shared memory, if there is room. */
static void hold_in_shared(const Kernel *k, CudaSchedule *s, CudaArch arch)
{
    int64_t bytes = held_bytes(k, s), parts = 0; /* of reductions, one for each warp */
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (k->nodes[i].kind == KN_REDUCE) parts += WARP * (k->nodes[i].dtype == DT_F64 ? 8 : 4);
    if (bytes == 0 || bytes + parts > shared_limit(arch)) return;
    s->shared_bytes = (int32_t)bytes;
    s->threads_x = MAX_THREADS; /* one or two blocks share a multiprocessor */
}

/* Registers of a thread that packs may take: the rest of 255, 128 or 64 computes. */
static int64_t registers_for(const CudaSchedule *s)
{
    return s->threads_x <= 256 ? 96 : s->threads_x <= 512 ? 64 : 32;
}

static void schedule_row(const Kernel *k, CudaSchedule *s, CudaArch arch)
{
    bool is_held = k->n_stages > 1 && s->n_reduced <= MAX_THREADS * HELD_MAX;
    if (s->shape == CUDA_BLOCK) s->threads_x = threads_for_row(s, is_held);
    s->rows_per_block = s->shape == CUDA_BLOCK ? 1 : BLOCK_THREADS / WARP;
    int64_t team = s->shape == CUDA_BLOCK ? s->threads_x : WARP;
    if (is_held && held_bytes(k, s) > team * registers_for(s) * 4) is_held = false;
    bool is_light = is_held && s->width == 8 && held_bytes(k, s) <= team * RESIDENT_HELD * 4;
    if (is_light && s->threads_x <= BLOCK_THREADS) s->n_resident = RESIDENT;
    if (is_held)
        s->n_packs = (int32_t)((held_packs(s) + team - 1) / team);
    else if (k->n_stages > 1 && s->shape == CUDA_BLOCK)
        hold_in_shared(k, s, arch);
}

/* ---- reductions that blocks share ---- */

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Parts do not depend on the width: the plan asks for the workspace before alignments are known. */
static void schedule_split(const Kernel *k, CudaSchedule *s)
{
    bool is_column = s->shape == CUDA_SPLIT_COLUMN;
    int64_t groups = is_column ? ceil_div(s->n_rows, CUDA_SPLIT_COLUMNS) : s->n_rows;
    int64_t least = is_column ? SPLIT_COLUMN_PART : SPLIT_ROW_PART;
    int64_t parts = ceil_div(is_column ? SPLIT_COLUMN_UNITS : SPLIT_ROW_UNITS, groups);
    if (is_column && parts > SPLIT_COLUMN_MAX) parts = SPLIT_COLUMN_MAX;
    if (parts > ceil_div(s->n_reduced, least)) parts = ceil_div(s->n_reduced, least);
    if (parts < 2) parts = 2;
    int64_t length = ceil_div(s->n_reduced, parts);
    s->rows_per_part = is_column ? length : ceil_div(length, SPLIT_ROW_PART) * SPLIT_ROW_PART;
    s->n_splits = ceil_div(s->n_reduced, s->rows_per_part);
    s->threads_x = is_column ? CUDA_SPLIT_COLUMNS / s->width : BLOCK_THREADS;
    s->threads_y = is_column ? BLOCK_THREADS / s->threads_x : 1;
    s->n_blocks = groups * s->n_splits;
    s->n_resident = RESIDENT;
    s->workspace_bytes = split_workspace(k, s, s->n_blocks);
}

/* A block has rows of one head: queries, or keys. */
static void schedule_attention(const AttnSpec *a, CudaSchedule *s)
{
    int64_t heads = a->B * a->H, n = CUDA_ATTENTION_ROWS;
    int64_t keys = a->is_backward ? a->S : 0; /* that have a row too */
    s->n_rows = heads * (a->T + keys);
    s->n_reduced = a->is_backward && a->T > a->S ? a->T : a->S;
    s->rows_per_block = n;
    s->threads_x = CUDA_ATTENTION_ROWS * WARP;
    s->n_blocks = heads * ((a->T + n - 1) / n + (keys + n - 1) / n);
}

CudaArch cuda_arch(const char *name)
{
    const char *digits = name + strcspn(name, "0123456789");
    return (CudaArch){.sm = atoi(digits), .is_own = strchr(digits, 'a') != NULL};
}

/* What every thread loads, such as a counter that the kernel changes in place, is read by a warp
 * alone where one has all rows. */
static void schedule_points(CudaSchedule *s)
{
    if (s->n_rows <= WARP) s->threads_x = WARP;
    s->rows_per_block = (int64_t)s->threads_x * s->width;
    s->n_blocks = ceil_div(s->n_rows, s->rows_per_block);
    int64_t most = MAX_32BIT_ELEMS / 2 / s->rows_per_block; /* one pack a thread, in general */
    if (s->n_blocks > most) s->n_blocks = most;
}

/* Four blocks share a multiprocessor. */
static void schedule_scatter(const Kernel *k, CudaSchedule *s)
{
    int64_t n_table_rows = k->args[k->stores[0].to.arg].elems / s->n_rows;
    s->n_buckets = n_table_rows < SCATTER_BUCKETS ? n_table_rows : SCATTER_BUCKETS;
    s->n_blocks = s->n_buckets;
}

static void schedule_nest(const Kernel *k, CudaSchedule *s, CudaArch arch)
{
    s->n_splits = 1;
    schedule_width(k, s);
    switch (s->shape) {
    case CUDA_POINT:
    case CUDA_STRIP: schedule_points(s); return;
    case CUDA_SPLIT_COLUMN:
    case CUDA_SPLIT_ROW: schedule_split(k, s); return;
    case CUDA_THREAD: s->rows_per_block = BLOCK_THREADS; break;
    case CUDA_WARP:
    case CUDA_BLOCK: schedule_row(k, s, arch); break;
    case CUDA_COLUMN:
        s->rows_per_block = WARP;
        s->threads_x = WARP;
        s->threads_y = s->n_reduced >= 512 ? MAX_THREADS / WARP : BLOCK_THREADS / WARP;
        break;
    case CUDA_SCATTER: schedule_scatter(k, s); return;
    case CUDA_TILES:
    case CUDA_ATTENTION:
    case CUDA_FLASH: ZM_UNREACHABLE("not a nest");
    }
    s->n_blocks = ceil_div(s->n_rows, s->rows_per_block);
}

CudaSchedule cuda_schedule(const Kernel *k, CudaArch arch)
{
    CudaSchedule s = {.n_rows = loops_extent(k, LOOP_PAR), .n_reduced = loops_extent(k, LOOP_RED)};
    s.shape = shape_of(k, &s, arch);
    s.is_64bit = needs_64bit(k, &s);
    s.threads_x = BLOCK_THREADS;
    s.threads_y = 1;
    if (s.shape == CUDA_TILES)
        contract_schedule(k, arch, &s);
    else if (s.shape == CUDA_ATTENTION)
        schedule_attention(&k->attn, &s);
    else if (s.shape == CUDA_FLASH)
        schedule_flash(&k->attn, arch, &s);
    else
        schedule_nest(k, &s, arch);
    if (s.n_blocks > MAX_BLOCKS && s.shape != CUDA_POINT) s.n_blocks = MAX_BLOCKS;
    return s;
}
