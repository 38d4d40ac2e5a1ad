/* cuda.h -- the CUDA back end: kernel form -> readable CUDA C -> (NVRTC) PTX and cubin.
 *
 * The text includes nothing: cuda_print_prelude() once per source text, then any number of
 * cuda_print_kernel().  A kernel is extern "C" __global__ void NAME(pointers to the arguments, in
 * argument order) and is right for any grid: it strides over the rows.  Its block shape is fixed by
 * the schedule.
 *
 * Every kind of kernel is printed; attention up to heads of CUDA_MAX_HEAD elements.
 */
#ifndef ZM_CODEGEN_CUDA_CUDA_H
#define ZM_CODEGEN_CUDA_CUDA_H

#include "codegen/kernel.h"

/* A row is one point of the PAR loops; a team is the threads that share a row: they split its RED
 * loops and combine. */
typedef enum {
    CUDA_POINT,  /* no RED loops: one thread per row */
    CUDA_THREAD, /* one thread per row, RED loops in order: rows of a few elements */
    CUDA_WARP,   /* one warp per row */
    CUDA_BLOCK,  /* one block per row */
    CUDA_COLUMN, /* the innermost loop is PAR: threadIdx.x walks 32 rows side by side, threadIdx.y
                    splits the RED loops */
    CUDA_STRIP,  /* likewise, very many rows: a thread takes `width` of them, RED loops in order */
    CUDA_SPLIT_COLUMN, /* likewise, 128 rows side by side, when all that is wanted is one sum:
                          several blocks share their RED loops */
    CUDA_SPLIT_ROW,    /* several blocks share a row: few long ones */
    CUDA_SCATTER,      /* a block owns some rows of the output; a warp adds 32 packs of columns */
    CUDA_TILES, /* contraction: a row is an output, a block computes CUDA_TILE x CUDA_TILE of them
                 */
    CUDA_ATTENTION, /* a row is a query (in the backward, then, a key) of a head, one warp's work */
    CUDA_FLASH      /* attention on tensor cores: a warp owns 16 or 32 such rows */
} CudaShape;

enum {
    CUDA_TILE = 64,
    CUDA_SCATTER_CHUNK = 2048, /* additions that a block lists at once */
    CUDA_SPLIT_COLUMNS = 128,  /* side by side in a block of CUDA_SPLIT_COLUMN */
    CUDA_ATTENTION_ROWS = 16,  /* of a block: 512 threads */
    CUDA_FLASH_THREADS = 128,  /* of a block */
    CUDA_MAX_HEAD = 512        /* most D and Dv: what a lane keeps in registers */
};

typedef struct CudaSchedule {
    CudaShape shape;
    int64_t n_rows, n_reduced;    /* extents of the PAR and of the RED loops together */
    int32_t threads_x, threads_y; /* block */
    int64_t rows_per_block, n_blocks;
    int32_t
        n_resident; /* blocks that a multiprocessor should hold at once, for registers; 0: any */
    int32_t
        width; /* elements side by side that a thread takes at once, one load each; 1, 2, 4, 8 */
    int32_t n_packs; /* of `width` elements: what a thread of a row holds in registers from sweep to
                        sweep; 0: it reads again */
    bool is_ragged;  /* rows begin anywhere: a row's first and last pack may be partial */
    /* Parts of the RED loops, each a block's work, and points of a part; the last block to finish
     * sums up.  1: not divided. */
    int64_t n_splits, rows_per_part;
    int64_t n_buckets;       /* CUDA_SCATTER: a block owns every n_buckets-th row of the output */
    bool is_64bit;           /* element numbers need 64 bits */
    int32_t shared_bytes;    /* asked for at launch; what the text declares itself not counted.  A
                                row's: its packs, from sweep to sweep */
    int64_t workspace_bytes; /* one more argument, behind all others: f32, undefined contents */
} CudaSchedule;

/* What the chip can do.  All zeros: neither tensor cores nor asynchronous copies, for text that
 * runs anywhere. */
typedef struct CudaArch {
    int sm;      /* 75, 80, 86, 89, 90, 100, 120; 0: unknown */
    bool is_own; /* "sm_90a": code for this chip alone, such as wgmma */
} CudaArch;

CudaArch cuda_arch(const char *name); /* "sm_90", "sm_90a", "compute_80" */

CudaSchedule cuda_schedule(const Kernel *k, CudaArch arch);

/* NULL when cuda_print_kernel() can print k, else why not. */
const char *cuda_refusal(const Kernel *k);

void cuda_print_prelude(Str *out);
/* m gives the .zm line of each op; NULL: no lines. */
void cuda_print_kernel(const Kernel *k, CudaArch arch, const char *name, const Module *m, Str *out);

/* ---- NVRTC, opened at run time (nvrtc.c) ---- */

typedef struct NvrtcApi NvrtcApi;

typedef struct Nvrtc {
    void *handle, *builtins; /* dlopen handles: of the library, of what it looks up by name */
    const NvrtcApi *api;
    int major, minor; /* CUDA version */
    const char *path; /* of the library, or the name that the loader found */
} Nvrtc;

/* Looks for libnvrtc, in this order; the first that opens wins:
 *   1. $ZMC_NVRTC, a library or a directory that holds one.  When it is set nothing else is tried.
 *   2. the loader's own path (LD_LIBRARY_PATH, ldconfig): libnvrtc.so.13, .12, libnvrtc.so
 *   3. the toolkit: $CUDA_HOME, $CUDA_PATH, /usr/local/cuda, /usr/local/cuda-VERSION, /opt/cuda; in
 * lib64, lib, targets/CPU-linux/lib
 *   4. PyPI's wheels (nvidia-cuda-nvrtc, nvidia-cuda-nvrtc-cu12), in the site-packages of
 * $VIRTUAL_ENV, $CONDA_PREFIX, ~/.local, /usr/local, /usr.  The wheel's library cannot find its
 * libnvrtc-builtins, so that one is opened by its full path. False: none opens; `why` says where it
 * looked and what to install.  Strings live in `a`.  The library stays loaded: it keeps memory of
 * its own that unloading would leak. */
bool nvrtc_find(Arena *a, Nvrtc *out, Str *why);

/* Does NVRTC compile for arch ("sm_90")?  If not, an error names those that it does, and the cure.
 */
Status nvrtc_check_arch(const Nvrtc *n, Diag *diag, const char *arch);

/* Compiles src, `name` in messages.  arch "compute_80" gives PTX; "sm_90" gives PTX, and cubin when
 * not NULL.  log: NVRTC's messages, also of a success.  Multiplications and additions are not
 * contracted: each op rounds as the kernel form says. */
Status nvrtc_compile(const Nvrtc *n, Diag *diag, const char *src, const char *name,
                     const char *arch, Str *ptx, Str *cubin, Str *log);

#endif
