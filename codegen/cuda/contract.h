/* contract.h -- shared by the printers of contractions: contract.c (plain), contract_tiles.c (by
 * tiles in shared memory: tensor cores, or f32). */
#ifndef ZM_CODEGEN_CUDA_CONTRACT_H
#define ZM_CODEGEN_CUDA_CONTRACT_H

#include "codegen/cuda/print.h"

/* What a block computes: m x n outputs, k deep at a time, by warps_m x warps_n warps.  `parts` > 1:
 * that many blocks share a tile, each sums `steps` of the k-deep steps. */
/* wgmma permutes by the bits of addresses: its tiles begin at multiples of this. */
enum { CONTRACT_SWIZZLE_SPAN = 1024 };

typedef enum {
    CONTRACT_PLAIN,  /* runs anywhere, any dtype */
    CONTRACT_FLOATS, /* f32 by fused multiply-adds, 8 x 8 outputs a thread */
    CONTRACT_MMA,    /* 16-bit operands by mma.sync */
    CONTRACT_WGMMA   /* the same by wgmma: sm_90a alone */
} ContractKind;

typedef struct ContractTile {
    ContractKind kind;
    int32_t m, n, k, warps_m, warps_n;
    int32_t stages; /* of the ring in shared memory */
    int64_t n_m, n_n, n_batches, parts, steps, n_steps;
} ContractTile;

ContractTile contract_tile(const Kernel *k, CudaArch arch);
void contract_schedule(const Kernel *k, CudaArch arch, CudaSchedule *s);

typedef struct Side { /* A or B */
    const char *tile, *outer,
        *first; /* its name; its index along m or n; the first of the block's tile */
    LoopKind loops;
    int32_t node;
} Side;

typedef enum {
    FILL_COPY,   /* chunks of neighbours, by cp.async where they are aligned */
    FILL_CHUNKS, /* the same through registers, sent for before the products, put behind them */
    FILL_VALUES  /* computed element by element: a prologue, or neighbours that are none */
} Fill;

typedef struct Operand {
    Side side;
    Fill fill;
    bool is_turned;
    int32_t unit;         /* elements of a chunk */
    int32_t rows, chunks; /* of its tile: [rows][chunks] */
    int32_t span;         /* along m or n */
    int32_t begin;        /* of its tile in a stage, bytes */
    bool is_whole_outer, is_whole_k;
    long long outer; /* extent of M or N */
} Operand;

/* is_wanted[] = nodes that `node` needs, without those printed before the loops. */
void contract_want_node(Printer *p, int32_t node);
void contract_want_stores(Printer *p);
/* Neighbours of the operand in memory are neighbours along k (else along m or n).  After
 * contract_want_node(). */
bool contract_runs_along_k(const Printer *p, const Side *s);
int contract_inner_loop(const Kernel *k, LoopKind kind); /* or -1 */

/* ---- contract_tiles.c ---- */

void print_contract_tiles(Printer *p);
/* Of step `next`, into the stage that begins at byte `to`; at k0.  put: what fetch left in
 * registers. */
void contract_fetch(Printer *p, const ContractTile *t, const Operand *o);
void contract_put(Printer *p, const ContractTile *t, const Operand *o);
int32_t contract_chunks_a_thread(const Printer *p, const Operand *o);
int32_t contract_stage_bytes(const ContractTile *t);

/* ---- contract_wgmma.c ---- */

void print_steps_wgmma(Printer *p, const ContractTile *t, const Operand *a, const Operand *b);

#endif
