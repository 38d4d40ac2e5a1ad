/* attention.h -- shared by attention*.c: blocks of queries and keys, and one row of scores.
 *
 * A block of queries is q_block rows, a block of keys k_block; blocks live in thread scratch as
 * padded row-major matrices of the compute dtype, so that every product is a fixed-shape tile loop
 * without edges in memory.  T x S is never stored. See "FlashAttention: Fast and Memory-Efficient
 * Exact Attention", arXiv:2205.14135.
 */
#ifndef ZM_CODEGEN_CPU_ATTENTION_H
#define ZM_CODEGEN_CPU_ATTENTION_H

#include "codegen/cpu/contract.h"

typedef struct AttnPlan {
    const AttnSpec *s;
    DType dt; /* compute: f32, or f64 for f64 operands */
    int lanes;
    MmTile tile;
    int64_t q_block, k_block;
    int64_t n_q, n_k;      /* blocks */
    int64_t d_pad, dv_pad; /* row lengths in scratch: multiples of the lanes */
    bool is_whole_head; /* backward: one task does all of (b, h), in one sweep; else dK, dV and dQ
                           in two phases */
    int64_t n_phases;
    int64_t scratch_bytes;
    /* offsets in scratch, bytes.  forward: q k kt v p o max base by sum.  backward: q k kt v_t dout
     * p dp, dk dv, and per query row dq delta of dq_blocks blocks. */
    int64_t q_at, k_at, kt_at, v_at, vt_at, dout_at, p_at, dp_at, o_at, max_at, base_at, by_at,
        sum_at, dk_at, dv_at, dq_at, delta_at;
    int64_t dq_blocks;
} AttnPlan;

AttnPlan attn_plan(const CpuTarget *t, const Kernel *k);

typedef struct Attn {
    CpuModule *m;
    const AttnPlan *p;
    const AttnSpec *s;
    LLVMValueRef b, h;              /* i64 */
    LLVMValueRef key[4], stream[2]; /* with dropout */
} Attn;

/* Starts a phase's function; b and h from `flat` = b * H + h are set by attn_set_head. */
Attn attn_begin(CpuModule *m, const AttnPlan *p, const char *fn);
void attn_set_head(Attn *x, LLVMValueRef flat);

LLVMValueRef attn_scratch(Attn *x, int64_t bytes);
/* Address of element `elem` of a scratch matrix. */
LLVMValueRef attn_at(Attn *x, LLVMValueRef base, LLVMValueRef elem);
LLVMValueRef attn_const(Attn *x, double v); /* scalar of the compute dtype */
/* Element index of (b, h, row, 0) of an operand. */
LLVMValueRef attn_elem(Attn *x, const AttnOperand *o, LLVMValueRef row);

/* dst[n_rows][width] = rows row0 .. of an operand with `cols` columns; columns behind are 0. */
void attn_load_block(Attn *x, const AttnOperand *o, int64_t cols, LLVMValueRef row0,
                     LLVMValueRef n_rows, LLVMValueRef dst, int64_t width);
/* The other way; factor: NULL, or scratch with a number per row to multiply by. */
void attn_store_block(Attn *x, const AttnOperand *o, int64_t cols, LLVMValueRef row0,
                      LLVMValueRef n_rows, LLVMValueRef src, int64_t width, LLVMValueRef factor);
void attn_zero(Attn *x, LLVMValueRef at, int64_t n_elems);
/* Elements [lo, hi) of a row, by whole vectors. */
void attn_zero_row(Attn *x, LLVMValueRef at, LLVMValueRef lo, LLVMValueRef hi);

/* Packs a block of keys or values [k][d] as [d][k_block]: mm_pack. */
LLVMValueRef attn_pack_keys(Attn *x);

/* What a causal mask leaves of a product: query row r of the block sees key columns <= r + offset.
 */
typedef enum {
    ATTN_ALL,
    ATTN_C_SEEN, /* C is queries x keys: only what is seen is computed, by whole tiles */
    ATTN_A_SEEN, /* A is queries x keys, 0 where not seen */
    ATTN_A_SEES  /* A is keys x queries, 0 where not seen */
} AttnSeen;

/* C[n_rows, cols] (+)= A B, n_rows rounded up to the tile; cols a multiple of the lanes. */
typedef struct AttnProduct {
    int64_t cols, a_row, a_k, b_k, ldc;
    AttnSeen seen; /* not causal: ATTN_ALL */
} AttnProduct;
/* seen, or ATTN_ALL where there is no causal mask */
AttnSeen attn_seen(const Attn *x, AttnSeen seen);
void attn_multiply(Attn *x, const AttnProduct *shape, LLVMValueRef a, LLVMValueRef b,
                   LLVMValueRef c, LLVMValueRef n_rows, LLVMValueRef kc, LLVMValueRef accumulate,
                   LLVMValueRef offset);
/* Of the block of queries from t0 and of keys from s0. */
LLVMValueRef attn_offset(Attn *x, LLVMValueRef t0, LLVMValueRef s0);

/* One row of a block of scores. */
typedef struct AttnRow {
    LLVMValueRef t;  /* query */
    LLVMValueRef s0; /* first key of the block */
    LLVMValueRef
        n_visible; /* keys of the block that exist and that `causal` lets the row see, >= 0 */
} AttnRow;
AttnRow attn_row(Attn *x, LLVMValueRef t, LLVMValueRef s0, LLVMValueRef n_keys);
/* Scores of keys s0 + c ..: q k^T in `dot` -> scale, bias; -inf where not attended. */
LLVMValueRef attn_scores(Attn *x, const AttnRow *row, LLVMValueRef c, LLVMValueRef dot);
/* v / (1 - p) where the dropout keeps (row, s0 + c ..), else 0; `keep` from attn_keep (NULL without
 * dropout). */
LLVMValueRef attn_keep(Attn *x, const AttnRow *row, LLVMValueRef c);
LLVMValueRef attn_drop(Attn *x, LLVMValueRef keep, LLVMValueRef v);

LLVMValueRef attn_exp(Attn *x, LLVMValueRef v);
LLVMValueRef attn_sum_lanes(Attn *x, LLVMValueRef v);
LLVMValueRef attn_max_lanes(Attn *x, LLVMValueRef v);

/* Keys before which every query of [t0, t0 + n) sees (an upper bound for the loop over key blocks).
 */
LLVMValueRef attn_key_end(Attn *x, LLVMValueRef t_end);

void attn_emit_forward(CpuModule *m, const AttnPlan *p, const char *fn);
typedef enum {
    ATTN_HEAD,
    ATTN_KEYS,
    ATTN_QUERIES
} AttnPart; /* a task's part of the backward: all, dK and dV, dQ */
void attn_emit_backward(CpuModule *m, const AttnPlan *p, const char *fn, AttnPart part);

#endif
