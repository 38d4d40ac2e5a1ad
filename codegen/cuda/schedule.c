/* schedule.c -- how many threads share a row, and how many rows a block takes; see cuda.h. */
#include "codegen/cuda/print.h"

#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_THREADS = 256,
    WARP = 32,
    MAX_THREADS = 1024,
    FEW = 8,                 /* a row of fewer elements is one thread's work */
    WARP_MAX_REDUCED = 1024, /* 32 elements a lane */
    COLUMN_MIN_ROWS = 16,    /* half a warp reads side by side */
    MAX_BLOCKS = 16384       /* beyond, kernels stride */
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

static CudaShape shape_of(const Kernel *k, const CudaSchedule *s)
{
    if (k->kind == KK_CONTRACT) return CUDA_TILES;
    if (k->kind == KK_SCATTER) return CUDA_SCATTER;
    if (k->kind == KK_ATTENTION) return CUDA_ATTENTION;
    if (!has_loop(k, LOOP_RED)) return CUDA_POINT;
    const Loop *inner = &k->loops[k->n_loops - 1];
    if (inner->kind == LOOP_PAR && inner->extent >= COLUMN_MIN_ROWS) return CUDA_COLUMN;
    if (s->n_rows > 1 && s->n_reduced < FEW) return CUDA_THREAD;
    return s->n_rows > 1 && s->n_reduced <= WARP_MAX_REDUCED ? CUDA_WARP : CUDA_BLOCK;
}

static bool needs_64bit(const Kernel *k, const CudaSchedule *s)
{
    if (s->n_rows > MAX_32BIT_ELEMS || s->n_reduced > MAX_32BIT_ELEMS) return true;
    for (uint32_t i = 0; i < k->n_args; i++)
        if (k->args[i].elems > MAX_32BIT_ELEMS) return true;
    return false;
}

/* Threads of a block that reduces a row of n elements: enough that a thread takes about 4. */
static int32_t threads_for_row(int64_t n)
{
    int32_t threads = BLOCK_THREADS;
    while (threads < MAX_THREADS && n > (int64_t)threads * 4) threads *= 2;
    return threads;
}

static int64_t tiles_along(const Kernel *k, LoopKind kind)
{
    return (loops_extent(k, kind) + CUDA_TILE - 1) / CUDA_TILE;
}

static void schedule_tiles(const Kernel *k, CudaSchedule *s)
{
    int64_t n_batches = loops_extent(k, LOOP_BATCH);
    s->n_rows = n_batches * loops_extent(k, LOOP_M) * loops_extent(k, LOOP_N);
    s->n_reduced = loops_extent(k, LOOP_K);
    s->rows_per_block = CUDA_TILE * CUDA_TILE;
    s->n_blocks = n_batches * tiles_along(k, LOOP_M) * tiles_along(k, LOOP_N);
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

CudaSchedule cuda_schedule(const Kernel *k, CudaArch arch)
{
    (void)arch;
    CudaSchedule s = {.n_rows = loops_extent(k, LOOP_PAR), .n_reduced = loops_extent(k, LOOP_RED)};
    s.shape = shape_of(k, &s);
    s.is_64bit = needs_64bit(k, &s);
    s.threads_x = BLOCK_THREADS;
    s.threads_y = 1;
    switch (s.shape) {
    case CUDA_POINT:
    case CUDA_THREAD: s.rows_per_block = BLOCK_THREADS; break;
    case CUDA_WARP: s.rows_per_block = BLOCK_THREADS / WARP; break;
    case CUDA_BLOCK:
        s.rows_per_block = 1;
        s.threads_x = threads_for_row(s.n_reduced);
        break;
    case CUDA_COLUMN:
        s.rows_per_block = WARP;
        s.threads_x = WARP;
        s.threads_y = s.n_reduced >= 512 ? MAX_THREADS / WARP : BLOCK_THREADS / WARP;
        break;
    case CUDA_TILES:
    case CUDA_ATTENTION: break;
    case CUDA_SCATTER:
        s.rows_per_block = WARP;
        s.threads_x = WARP;
        s.threads_y = MAX_THREADS / WARP;
        break;
    }
    if (s.shape == CUDA_TILES)
        schedule_tiles(k, &s);
    else if (s.shape == CUDA_ATTENTION)
        schedule_attention(&k->attn, &s);
    else
        s.n_blocks = (s.n_rows + s.rows_per_block - 1) / s.rows_per_block;
    if (s.n_blocks > MAX_BLOCKS) s.n_blocks = MAX_BLOCKS;
    return s;
}
