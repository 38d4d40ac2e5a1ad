/* form.h -- what a set of primitive ops computes as one kernel: loops, scalar nodes and stores.
 *
 * The one definition of "these ops can be one kernel": pass fuse asks it before it joins ops,
 * codegen/kernel_build.c turns its answer into the kernel form (codegen/kernel.h describes the same
 * notions).  Built by demand from the outputs: each output element is a point of the loops; the
 * value of an op is wanted at an index map; views change the map.
 */
#ifndef ZM_PASSES_FUSE_FORM_H
#define ZM_PASSES_FUSE_FORM_H

#include "ir/access.h"

enum { FORM_MAX_ARGS = 250, FORM_MAX_NODES = 600, FORM_MAX_DEPTH = 400 };

typedef enum { FORM_NEST, FORM_SCATTER, FORM_CONTRACT, FORM_ATTENTION } FormKind;
typedef enum { FL_PAR, FL_RED, FL_BATCH, FL_M, FL_N, FL_K } FormLoopKind;
typedef enum { FN_OP, FN_CONST, FN_LOAD, FN_INDEX, FN_RANDOM, FN_REDUCE, FN_ACC } FormNodeKind;

/* Element at + dyn_stride * node dyn (none: -1) of leaf; FN_INDEX: no leaf. */
typedef struct FormAccess {
    ValueId leaf;
    Affine at;
    int32_t dyn;
    int64_t dyn_stride;
    const AccessGuard *guards;
} FormAccess;

typedef struct FormNode {
    FormNodeKind kind;
    OpCode code;
    DType dtype;
    int32_t arg[6]; /* earlier nodes */
    uint32_t n_args;
    FormAccess access; /* FN_LOAD, FN_INDEX */
    double imm;
    uint64_t imm_u64;
    LocId loc;
} FormNode;

typedef struct FormStore {
    int32_t node; /* attention: -1 */
    uint32_t out; /* index into FormIn.outs */
    bool is_row;  /* once per point of the PAR loops */
    bool is_add;
    FormAccess to;
} FormStore;

/* [B, H, T, D]-like operand of attention. */
typedef struct FormOperand {
    bool is_there;
    bool is_out;
    ValueId leaf; /* operands */
    uint32_t out; /* results: index into FormIn.outs */
    DType dtype;
    int64_t base, stride[4];
} FormOperand;

enum {
    FA_Q,
    FA_K,
    FA_V,
    FA_OUT,
    FA_LSE,
    FA_DOUT,
    FA_MASK,
    FA_BIAS,
    FA_KEY,
    FA_DQ,
    FA_DK,
    FA_DV,
    N_FA
};

typedef struct Form {
    FormKind kind;
    LoopSpace loops; /* outer to inner, none of extent 1 */
    FormLoopKind loop_kind[ACCESS_MAX_LOOPS];
    VEC(FormNode) nodes;
    VEC(FormStore) stores;
    VEC(ValueId) leaves; /* in order of first use */
    VEC(ValueId)
    wanted; /* every value that a node computes; a value wanted at two places is listed twice */
    int32_t node_a, node_b;
    OpId anchor; /* the matmul, sdpa, sdpa_grad or scatter_add */
    FormOperand attn[N_FA];
} Form;

typedef struct FormIn {
    const Func *f;
    const ValueId *outs; /* results of the kernel, stored row-major */
    uint32_t n_outs;
    bool (*is_leaf)(const void *ctx, ValueId v); /* held in memory: loaded, not computed */
    const void *ctx;
} FormIn;

/* Why there is no form: the value that must be held in memory, not computed inside, for another
 * try. */
typedef struct FormWhy {
    ValueId at;
    const char *text;
} FormWhy;

/* NULL when the ops behind outs are not one kernel.  All memory from a. */
Form *form_build(Arena *a, const FormIn *in, FormWhy *why);

/* ---- between form*.c ---- */

typedef struct FormBuilder {
    Arena *a;
    const FormIn *in;
    Form *form;
    FormWhy *why;
    Map seen, node_map; /* (value, map, guards) -> node;  node -> node */
    VEC(struct FormSeen) seen_at;
    int depth;
    AccessSplit split;
} FormBuilder;

typedef struct FormSeen {
    ValueId v;
    const IndexMap *map;
    const AccessGuard *guards;
    int32_t node;
} FormSeen;

typedef enum { FR_OK, FR_SPLIT, FR_NO } FormResult;
FormResult form_refuse(FormBuilder *b, ValueId at, const char *text);
FormResult form_access_result(FormBuilder *b, AccessResult r, ValueId at);
/* The node for value v at map (rank of v's type) under guards. */
FormResult form_want(FormBuilder *b, ValueId v, const IndexMap *map, const AccessGuard *guards,
                     int32_t *node);
int32_t form_node(FormBuilder *b, const FormNode *n); /* an equal node is reused */
/* Row-major map of a value of type t whose flat index is `flat`. */
FormResult form_flat_map(FormBuilder *b, ValueId v, const Affine *flat, IndexMap *map);
/* Flat index over the loops in `mask`, row-major in loop order. */
Affine form_flat_loops(const Form *form, uint32_t mask);
int64_t form_count(const Form *form, uint32_t mask); /* points of those loops */
uint32_t form_loops_of(const Form *form, FormLoopKind kind);
void form_add_loop(Form *form, FormLoopKind kind, int64_t extent); /* extent 1: none */
const Op *form_def(const FormIn *in, ValueId v);                   /* NULL: a leaf */

FormResult form_of_attention(FormBuilder *b);

#endif
