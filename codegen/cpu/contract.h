/* contract.h -- shared by contract*.c and attention*.c: register tiles, packing, sweeps, and the
 * schedule of a contraction.
 *
 * A product C[rows, cols] += A[rows, red] * B[red, cols] is computed by register tiles of mr rows
 * by nv vectors of columns, from panels: a row panel holds mr rows, element (x, k) at [k * mr + x];
 * a column panel holds nv * lanes columns, element (k, x) at [k * nv * lanes + x].  See "Anatomy of
 * high-performance matrix multiplication", Goto and van de Geijn, TOMS 2008.
 *
 * 16-bit operands become f32 when they are packed.  With AVX512-BF16, a product of bf16 operands is
 * packed in pairs instead: an element of a panel is 32 bits, the bf16 of k = 2i (low half) and of
 * k = 2i + 1, so panels, blocks and tiles are those of f32 with half as many k.
 */
#ifndef ZM_CODEGEN_CPU_CONTRACT_H
#define ZM_CODEGEN_CPU_CONTRACT_H

#include "codegen/cpu/cpu.h"

/* ---- register tiles (contract_tile.c) ---- */

typedef struct MmTile {
    DType dt;      /* of the accumulators: f32 or f64 */
    bool is_pairs; /* of A and B: pairs of bf16; else dt */
    int mr, nv;    /* rows; vectors of columns */
    int64_t a_row; /* elements between rows of A, and ... */
    int64_t a_k;   /* ... between its columns; a packed panel: 1, mr */
    int64_t b_k;   /* elements between rows of B; a packed panel: nv * lanes */
    int ahead;     /* every so many k, fetches a line that a later tile needs; 0: never */
} MmTile;

/* Widest tile whose accumulators, column vectors and one row value fit the registers. */
MmTile mm_tile_for(const CpuTarget *t, DType dt);
int mm_lanes(const CpuTarget *t, DType dt); /* elements of a vector register */
/* Internal function `void tile(ptr a, ptr b, ptr c, i64 kc, i64 ldc, i1 accumulate, ptr line, i64
 * step)`, one per module and tile: c[mr][nv * lanes] (+)= sum over k < kc in ascending order.  ldc
 * in elements.  Fetches `line`, `line` + step, ... (bytes; any address) into the second-level
 * cache. */
LLVMValueRef mm_tile(CpuModule *m, const MmTile *t);
typedef struct MmTileArgs {
    LLVMValueRef a, b, c, kc, ldc, accumulate;
    LLVMValueRef line, step; /* used when t->ahead */
} MmTileArgs;
void mm_tile_call(CpuModule *m, LLVMValueRef tile, const MmTileArgs *in);

/* An internal function beside the kernel's: saves where the builder stands. */
typedef struct MmFn {
    LLVMValueRef fn, saved_fn;
    LLVMBasicBlockRef saved_block, saved_entry;
} MmFn;
MmFn mm_fn_begin(CpuModule *m, const char *name, LLVMTypeRef type);
void mm_fn_end(CpuModule *m, MmFn *f); /* returns void */

/* ---- packing (contract_pack.c) ---- */

/* Internal function `void pack(ptr src, i64 ld, i64 nx, i64 kc, ptr dst, i64 step)`: nx > 0
 * elements x over k < kc into panels of `width` elements.  Panel q starts at dst + q * step and
 * holds (x, k) at [k * width + x - q * width]; in the last one, x >= nx gets 0 or a repeated value.
 *   !is_transposed   src[k * ld + x]        is_transposed   src[x * ld + k]
 * ld and kc count elements of the source; the other half of a last pair is 0. */
typedef struct MmPack {
    DType from;    /* of the source */
    DType to;      /* of a panel; with pairs f32, whose size a pair has */
    bool is_pairs; /* from bf16, on targets with AVX512-BF16 */
    bool has_half; /* pairs: kc may be odd */
    int width;
    bool is_transposed;
} MmPack;
LLVMValueRef mm_pack(CpuModule *m, const MmPack *how);
void mm_pack_call(CpuModule *m, LLVMValueRef pack, LLVMValueRef src, LLVMValueRef ld,
                  LLVMValueRef nx, LLVMValueRef kc, LLVMValueRef dst, LLVMValueRef step);

/* ---- small helpers (contract_tile.c) ---- */

LLVMValueRef mm_mul(CpuModule *m, LLVMValueRef a, int64_t k);
LLVMValueRef mm_add(CpuModule *m, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef mm_sub(CpuModule *m, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef mm_min(CpuModule *m, LLVMValueRef a, LLVMValueRef b); /* i64, signed */
LLVMValueRef mm_max(CpuModule *m, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef mm_div(CpuModule *m, LLVMValueRef a, int64_t k); /* a >= 0 */
LLVMValueRef mm_rem(CpuModule *m, LLVMValueRef a, int64_t k);
LLVMValueRef mm_cmp(CpuModule *m, LLVMIntPredicate p, LLVMValueRef a, LLVMValueRef b);

static inline int64_t mm_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static inline int64_t mm_round_up(int64_t a, int64_t b)
{
    return mm_ceil_div(a, b) * b;
}

/* ---- axes and sweeps (contract_sweep.c) ---- */

/* The loops of one kind, outer to inner, seen as one index in [0, total). */
typedef struct MmAxis {
    int n;
    int loop[KERNEL_MAX_LOOPS];
    int64_t extent[KERNEL_MAX_LOOPS];
    int64_t total;
} MmAxis;

uint32_t mm_axis_bits(const MmAxis *axis); /* of its loops */
/* Sets e->index of the axis's loops from the flat index. */
void mm_axis_set(CpuEval *e, const MmAxis *axis, LLVMValueRef flat);

/* For r in [r0, r0 + nr), c in [c0, c0 + nc): body once per vector of columns.  e is a fork with
 * all indices, lanes and mask set; r and c count from r0 and c0. */
typedef void (*MmSweepBody)(CpuEval *e, LLVMValueRef r, LLVMValueRef c, void *user);
typedef struct MmSweep {
    const MmAxis *rows, *cols;
    LLVMValueRef r0, nr, c0, nc;
    int64_t nc_multiple; /* nc is known to be a multiple of it (1: nothing known) */
    int lanes;
    /* what the body will ask for: computed in the outermost loop where it can be */
    const int32_t *nodes;
    uint32_t n_nodes;
    uint64_t stores; /* bit per store */
    uint32_t known;  /* bits of the loops whose index is set already */
} MmSweep;
void mm_sweep(CpuEval *e, const MmSweep *s, MmSweepBody body, void *user);

/* ---- schedule (contract_plan.c) ---- */

/* One operand of the product. */
typedef struct MmOperand {
    int32_t node;
    const MmAxis *axis; /* its own axis: rows or columns */
    int width;          /* of a panel */
    int64_t n_panels;
    DType dtype;          /* of the node */
    const Access *direct; /* plain load whose axis and K are one loop each, one of them of stride 1;
                             else NULL */
    int64_t x_stride, k_stride; /* direct */
    bool is_transposed;         /* k has stride 1 */
} MmOperand;

/* Memory that tiles fetch ahead of its use. */
enum { MM_LINE = 64, MM_AREAS = 6 };
typedef struct MmArea {
    const Access *epilogue; /* the task's part of a result or of an operand of the epilogue; NULL:
                               the next chunk of the streamed operand */
    int64_t rows, lines;    /* rows of memory, lines in each */
    int64_t step;           /* bytes from row to row */
} MmArea;

typedef struct ContractPlan {
    const Kernel *k; /* loops merged where every access allows */
    MmAxis batch, rows, cols, red;
    MmTile tile;
    int lanes;
    int k_unit;    /* k in an element of a panel: 2 for pairs, else 1 */
    int64_t k_len; /* elements of panels along all of K; so count kc, split and kc_pad */
    MmOperand row, col;
    bool row_is_resident; /* the resident operand is packed once (or once a task), the streamed one
                             chunk by chunk */
    bool is_shared;       /* resident panels are packed in phase 0, into the workspace */
    int64_t kc, n_kb;     /* K block and blocks per split */
    int64_t kc_pad;       /* k rows that a panel has room for */
    int64_t chunk, n_chunks; /* streamed panels per task */
    int64_t block, n_blocks; /* resident panels per task */
    int64_t n_splits, split; /* ways that K is split; length of one */
    int low_mr, narrow_nv;   /* tile of the last row panel and of the last column panel */
    const Access *out;       /* the result is the plain sum and tiles are stored where it goes; else
                                NULL */
    int64_t ld, acc_rows;  /* accumulators of a task (or of a split): acc_rows x ld; with `out`, ld
                              is between its rows */
    int64_t pack_group;    /* panels per task of phase 0 */
    MmArea area[MM_AREAS]; /* when tile.ahead */
    int n_areas;
    int64_t n_pack_tasks, n_tasks, n_reduce_tasks, reduce_rows;
    /* offsets, in bytes */
    int64_t s_at, r_at, acc_at, temp_at, scratch_bytes; /* thread scratch */
    int64_t partial_at, workspace_bytes; /* workspace: resident panels, then partial sums */
} ContractPlan;

/* Everything is allocated in a. */
ContractPlan *contract_plan(Arena *a, const CpuTarget *t, const Kernel *k);
static inline const MmOperand *contract_resident(const ContractPlan *p)
{
    return p->row_is_resident ? &p->row : &p->col;
}
static inline const MmOperand *contract_streamed(const ContractPlan *p)
{
    return p->row_is_resident ? &p->col : &p->row;
}

#endif
