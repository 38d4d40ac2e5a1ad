/* kernel.h -- the kernel form: what one `fused` op computes, independent of the target.
 *
 * passes/fuse decides which ops form a kernel (op `fused` with a body); codegen/kernel_build.c
 * turns a body into this form once; codegen/cpu (LLVM) and codegen/cuda (CUDA C) print it.  Two ops
 * with equal forms share one compiled kernel: the form holds shapes and strides, never buffer
 * addresses.
 *
 * A kernel is a set of nested loops, a list of scalar nodes evaluated inside them, and stores.
 *
 * - nest: loops PAR (independent) and RED (reduced).  Nodes have a level: LV_CONST (no loop),
 * LV_ROW (PAR loops only) or LV_ELEM (all loops).  KN_REDUCE makes a ROW node out of an ELEM node
 * by a sweep over the RED loops; node.stage says which sweep (0, 1, ...): a reduction of stage s
 * may use ROW nodes of earlier stages.  ELEM stores happen in the last sweep (stage n_stages - 1),
 * which has no reductions if there are none to do. Without RED loops ROW and ELEM are the same:
 * nodes that depend on a loop, and all stores, are LV_ELEM.  The argument of a KN_REDUCE may be of
 * any level (a row's constant is added extent times). Example, softmax of x[r, c]: loops r PAR, c
 * RED.  Stage 0: m = reduce_max x.  Stage 1: s = reduce_sum exp(x - m).  Stage 2: store exp(x - m)
 * / s.
 * - scatter: a nest whose one store has mode ST_ADD at a dynamic row; RED loops run in order, PAR
 *   loops may be parallel.  The output starts as its alias_in argument (the base): copied first
 *   unless both are the same memory.
 * - contract: loops BATCH, M, N, K, in this order, each kind any number of loops (none: extent 1).
 *   acc[batch, m, n] = sum over k of A * B, where A and B are nodes of level LV_ELEM (a load, or a
 *   prologue over loads that depend on (batch, m, k) or (batch, k, n)).  KN_ACC is acc in the
 *   epilogue, whose nodes and stores run over BATCH, M, N.  Accumulates in f32 (f64 for f64).
 * - attention: a template, AttnSpec.
 *
 * Reductions over a chunked domain, numbers of tasks, tiles and vector widths are the target's
 * choice (a schedule), under one rule: the order of floating-point sums is fixed by the form and
 * the target, never by the number of threads.
 */
#ifndef ZM_CODEGEN_KERNEL_H
#define ZM_CODEGEN_KERNEL_H

#include "ir/ir.h"

enum { KERNEL_MAX_LOOPS = 12, KERNEL_MAX_ARGS = 251 /* FORM_MAX_ARGS and the constants */ };

typedef enum { KK_NEST, KK_SCATTER, KK_CONTRACT, KK_ATTENTION } KernelKind;
typedef enum { LOOP_PAR, LOOP_RED, LOOP_BATCH, LOOP_M, LOOP_N, LOOP_K } LoopKind;
typedef enum { LV_CONST, LV_ROW, LV_ELEM } Level;

typedef struct Loop {
    LoopKind kind;
    int64_t extent; /* >= 1; loops of extent 1 are removed */
} Loop;

/* lo <= base + sum stride[d] * index[d] < hi, else the access is outside (a padded zero). */
typedef struct Guard {
    int64_t stride[KERNEL_MAX_LOOPS];
    int64_t base, lo, hi;
} Guard;

/* Element address within argument `arg`: base + sum over loops d of stride[d] * index[d] +
 * dyn_stride * value(dyn), in elements.  dyn = -1: none.  A load outside a guard yields 0 and
 * touches no memory. */
typedef struct Access {
    int32_t arg;
    int32_t dyn; /* node (i32) whose value is multiplied by dyn_stride: embed, scatter */
    int64_t dyn_stride;
    int64_t base;
    int64_t stride[KERNEL_MAX_LOOPS];
    uint32_t n_guards;
    const Guard *guards;
} Access;

typedef enum {
    KN_OP,     /* `op`, a POINT primitive of ops.def, on arg nodes; OP_CAST casts to dtype */
    KN_CONST,  /* imm */
    KN_LOAD,   /* access[index] */
    KN_INDEX,  /* i32: base + sum stride * loop index, taken from access[index] (arg = -1): iota,
                  positions */
    KN_RANDOM, /* f32 in [0, 1): see ops.def RANDOM.  arg[0..3] = the four i32 key words (nodes),
                  arg[4] = element (i32 node), arg[5] = sample within the micro-batch (i32 node),
                  arg[6], arg[7] = low and high word of the stream's hash (i32 nodes) */
    KN_REDUCE, /* op REDUCE_SUM or REDUCE_MAX of node arg[0] over the RED loops */
    KN_ACC     /* contract: the accumulator, dtype f32 or f64 */
} NodeKind;

typedef struct Node {
    NodeKind kind;
    OpCode op;
    DType dtype;
    Level level;
    int32_t stage;  /* KN_REDUCE: its sweep; others: the first sweep in which it can be computed */
    int32_t arg[8]; /* nodes; earlier in the list */
    uint32_t n_args;
    uint32_t index; /* KN_LOAD, KN_INDEX: which access */
    double imm;
    uint32_t loop_mask; /* loops that the value depends on */
    LocId loc; /* of the op that it computes; none: the kernel's.  Not part of the form: kernel_hash
                  skips it */
} Node;

typedef enum { ST_SET, ST_ADD } StoreMode;
typedef struct Store {
    int32_t node;
    Level level; /* LV_ROW: once per row; LV_ELEM: in the last sweep; contract: LV_ELEM = per
                    (batch, m, n) */
    StoreMode mode;
    Access to; /* no guards */
} Store;

typedef struct KernelArg {
    DType dtype;
    int64_t elems; /* of the whole argument: bounds for checks */
    bool is_out;
    int32_t alias_in; /* out: index of the input argument that may be the same memory (same-index in
                         place), or -1 */
    int32_t align;    /* the address is known to be a multiple of this many bytes, a power of two up
                         to ZMP_ALIGN; 0: of the element's size only.  Not part of the form: kernel_set
                         finds what holds for all uses, once memory is planned */
} KernelArg;

/* Strides in elements of [B, H, T, D]-like operands; 0 where broadcast.  arg = -1: absent. */
typedef struct AttnOperand {
    int32_t arg;
    DType dtype;
    int64_t base;
    int64_t stride[4];
} AttnOperand;

typedef struct AttnSpec {
    bool is_backward;
    bool is_causal;
    int64_t B, H, T, S, D, Dv; /* queries T, keys S; Dv: width of v and out */
    double scale;
    double p; /* dropout of the probabilities */
    /* forward: q k v mask bias key -> out lse.  backward: q k v out lse dout mask bias key -> dq dk
     * dv.  Results may share one argument: dq, dk and dv as three ranges of a packed [B, T, 3C]
     * value.  key: four i32 words; stream: the low and high word of the stream's hash; element e of
     * sample b = (h * T + t) * S + s. */
#define ATTN_OPERANDS(X)                                                                           \
    X(q) X(k) X(v) X(mask) X(bias) X(key) X(stream) X(out) X(lse) X(dout) X(dq) X(dk) X(dv)
#define ATTN_FIELD(NAME) AttnOperand NAME;
    ATTN_OPERANDS(ATTN_FIELD)
#undef ATTN_FIELD
} AttnSpec;

typedef struct Kernel {
    KernelKind kind;
    uint32_t n_args, n_loops, n_nodes, n_accesses, n_stores, n_stages;
    KernelArg args[KERNEL_MAX_ARGS]; /* inputs in operand order, outputs in result order, constants;
                                        behind them the target's workspace, if any */
    uint32_t n_consts;               /* > 0: the last argument is i32[n_consts], read only ... */
    const int32_t *consts;           /* ... with these values, which are not part of the form */
    Loop loops[KERNEL_MAX_LOOPS];    /* outer to inner */
    Node *nodes;
    Access *accesses;
    Store *stores;
    int32_t node_a, node_b; /* contract */
    AttnSpec attn;
    const char *label; /* "matmul+add+gelu_tanh" */
    LocId loc;
    double flops, bytes;
} Kernel;

/* The kernel form of a `fused` op.  NULL when the body is not expressible (diag says why);
 * passes/fuse only makes bodies that are: both sides build the same form (passes/fuse/form.h). */
Kernel *kernel_build(Arena *a, const Func *f, OpId fused);
/* May output argument `out` be the very memory of input argument `in`?  (alias_in is one such
 * input.) */
bool kernel_may_share(const Kernel *k, uint32_t out, uint32_t in);
/* Equal forms => equal hash and equal; args' alias, values of constants, label, locs do not count.
 */
uint64_t kernel_hash(const Kernel *k);
bool kernel_equal(const Kernel *x, const Kernel *y);
void kernel_print(const Kernel *k, Str *out); /* zmc --emit kernels, target cpu: readable loops */

/* Extra memory that a target wants for a kernel, planned in the arena while the op runs (category
 * "workspace"); appended to the arguments as one byte buffer. */
typedef struct KernelNeeds {
    int64_t workspace_bytes;
    int64_t scratch_bytes; /* per thread, outside the arena */
} KernelNeeds;

#endif
