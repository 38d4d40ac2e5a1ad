/* contract.h -- shared by the printers of contractions: contract.c (plain), contract_tiles.c (by
 * tiles in shared memory: tensor cores, or f32). */
#ifndef ZM_CODEGEN_CUDA_CONTRACT_H
#define ZM_CODEGEN_CUDA_CONTRACT_H

#include "codegen/cuda/print.h"

/* What a block computes: m x n outputs, k deep at a time, by warps_m x warps_n warps.  `parts` > 1:
 * that many blocks share a tile, each sums `steps` of the k-deep steps. */
typedef enum {
    CONTRACT_PLAIN,  /* runs anywhere, any dtype */
    CONTRACT_FLOATS, /* f32 by fused multiply-adds, 8 x 8 outputs a thread */
    CONTRACT_MMA     /* 16-bit operands by mma.sync */
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

/* is_wanted[] = nodes that `node` needs, without those printed before the loops. */
void contract_want_node(Printer *p, int32_t node);
void contract_want_stores(Printer *p);
/* Neighbours of the operand in memory are neighbours along k (else along m or n).  After
 * contract_want_node(). */
bool contract_runs_along_k(const Printer *p, const Side *s);
int contract_inner_loop(const Kernel *k, LoopKind kind); /* or -1 */

void print_contract_tiles(Printer *p);

#endif
