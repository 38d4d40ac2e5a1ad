/* kernel_ref.h -- for tests of the back ends: kernels written by hand, and what they mean by
 * definition (codegen/kernel.h), in f64 with each result rounded to its dtype.  Slow and obvious:
 * every value is computed where it is asked for. */
#ifndef ZM_TESTS_KERNEL_REF_H
#define ZM_TESTS_KERNEL_REF_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/kernel.h"
#include "ir/base/philox.h"

/* ---- building: nodes are numbered in order; levels and loop masks follow from the arguments ----
 */

enum { REF_MAX_NODES = 1024, REF_MAX_ACCESSES = 64, REF_MAX_STORES = 16 };

static inline Kernel *ref_kernel(Arena *a, KernelKind kind, const char *label, uint32_t n_stages)
{
    Kernel *k = ARENA_NEW(a, Kernel);
    k->kind = kind;
    k->label = label;
    k->n_stages = n_stages;
    k->nodes = ARENA_ARRAY(a, Node, REF_MAX_NODES);
    k->accesses = ARENA_ARRAY(a, Access, REF_MAX_ACCESSES);
    k->stores = ARENA_ARRAY(a, Store, REF_MAX_STORES);
    return k;
}

static inline int ref_loop(Kernel *k, LoopKind kind, int64_t extent)
{
    ZM_CHECK(k->n_loops < KERNEL_MAX_LOOPS);
    k->loops[k->n_loops] = (Loop){kind, extent};
    return (int)k->n_loops++;
}

static inline int ref_in(Kernel *k, DType dt, int64_t elems)
{
    k->args[k->n_args] = (KernelArg){dt, elems, false, -1, 0};
    return (int)k->n_args++;
}

static inline int ref_out(Kernel *k, DType dt, int64_t elems, int alias_in)
{
    k->args[k->n_args] = (KernelArg){dt, elems, true, alias_in, 0};
    return (int)k->n_args++;
}

static inline uint32_t ref_mask_of(const Kernel *k, const int64_t *stride)
{
    uint32_t mask = 0;
    for (uint32_t d = 0; d < k->n_loops; d++)
        if (stride[d] != 0) mask |= 1u << d;
    return mask;
}

static inline uint32_t ref_red_mask(const Kernel *k)
{
    uint32_t mask = 0;
    for (uint32_t d = 0; d < k->n_loops; d++)
        if (k->loops[d].kind == LOOP_RED) mask |= 1u << d;
    return mask;
}

static inline Level ref_level(const Kernel *k, uint32_t mask)
{
    uint32_t red = ref_red_mask(k);
    if (mask == 0) return LV_CONST;
    return red == 0 || (mask & red) != 0 ? LV_ELEM : LV_ROW;
}

static inline int ref_add(Kernel *k, Node n)
{
    ZM_CHECK(k->n_nodes < REF_MAX_NODES);
    bool is_row = n.kind == KN_REDUCE;
    for (uint32_t i = 0; i < n.n_args; i++) {
        n.loop_mask |= k->nodes[n.arg[i]].loop_mask;
        if (k->nodes[n.arg[i]].level == LV_ROW) is_row = true;
    }
    if (n.kind == KN_REDUCE) n.loop_mask &= ~ref_red_mask(k);
    n.level = ref_level(k, n.loop_mask);
    if (is_row && n.level == LV_CONST) n.level = LV_ROW; /* a reduction over all loops */
    k->nodes[k->n_nodes] = n;
    return (int)k->n_nodes++;
}

static inline int ref_const(Kernel *k, DType dt, double v)
{
    return ref_add(k, (Node){.kind = KN_CONST, .dtype = dt, .imm = v});
}

static inline int ref_op(Kernel *k, OpCode op, DType dt, int a, int b, int c)
{
    return ref_add(k, (Node){.kind = KN_OP,
                             .op = op,
                             .dtype = dt,
                             .arg = {a, b, c},
                             .n_args = c >= 0   ? 3
                                       : b >= 0 ? 2
                                                : 1});
}

/* Float and integer arithmetic in the first operand's dtype. */
static inline int ref_bin(Kernel *k, OpCode op, int a, int b)
{
    return ref_op(k, op, k->nodes[a].dtype, a, b, -1);
}

static inline int ref_un(Kernel *k, OpCode op, int a)
{
    return ref_op(k, op, k->nodes[a].dtype, a, -1, -1);
}

static inline int ref_cast(Kernel *k, DType dt, int a)
{
    return ref_op(k, OP_CAST, dt, a, -1, -1);
}

static inline int ref_reduce(Kernel *k, OpCode op, int a, int stage)
{
    return ref_add(k, (Node){.kind = KN_REDUCE,
                             .op = op,
                             .dtype = k->nodes[a].dtype,
                             .stage = stage,
                             .arg = {a},
                             .n_args = 1});
}

static inline Access *ref_access(Kernel *k, int arg, int64_t base, const int64_t *stride,
                                 uint32_t *index)
{
    ZM_CHECK(k->n_accesses < REF_MAX_ACCESSES);
    *index = k->n_accesses++;
    Access *at = &k->accesses[*index];
    *at = (Access){.arg = arg, .dyn = -1, .base = base};
    memcpy(at->stride, stride, sizeof(int64_t) * k->n_loops);
    return at;
}

#define STRIDES(...) ((const int64_t[KERNEL_MAX_LOOPS]){__VA_ARGS__})

/* dyn = -1: none. */
static inline int ref_load_dyn(Kernel *k, int arg, int64_t base, const int64_t *stride, int dyn,
                               int64_t dyn_stride)
{
    uint32_t index;
    Access *at = ref_access(k, arg, base, stride, &index);
    at->dyn = dyn;
    at->dyn_stride = dyn_stride;
    uint32_t mask = ref_mask_of(k, stride) | (dyn >= 0 ? k->nodes[dyn].loop_mask : 0);
    return ref_add(
        k, (Node){.kind = KN_LOAD, .dtype = k->args[arg].dtype, .index = index, .loop_mask = mask});
}

static inline int ref_load(Kernel *k, int arg, int64_t base, const int64_t *stride)
{
    return ref_load_dyn(k, arg, base, stride, -1, 0);
}

static inline int ref_load_guarded(Kernel *k, int arg, int64_t base, const int64_t *stride,
                                   const Guard *guards, uint32_t n)
{
    int node = ref_load(k, arg, base, stride);
    Access *at = &k->accesses[k->nodes[node].index];
    at->guards = guards;
    at->n_guards = n;
    for (uint32_t g = 0; g < n; g++) k->nodes[node].loop_mask |= ref_mask_of(k, guards[g].stride);
    k->nodes[node].level = ref_level(k, k->nodes[node].loop_mask);
    return node;
}

static inline int ref_index(Kernel *k, int64_t base, const int64_t *stride)
{
    uint32_t index;
    ref_access(k, -1, base, stride, &index);
    return ref_add(k, (Node){.kind = KN_INDEX,
                             .dtype = DT_I32,
                             .index = index,
                             .loop_mask = ref_mask_of(k, stride)});
}

static inline int ref_random(Kernel *k, const int *key, int element, int sample, uint64_t stream)
{
    int low = ref_const(k, DT_I32, (int32_t)(uint32_t)stream),
        high = ref_const(k, DT_I32, (int32_t)(uint32_t)(stream >> 32));
    return ref_add(k, (Node){.kind = KN_RANDOM,
                             .dtype = DT_F32,
                             .n_args = 8,
                             .arg = {key[0], key[1], key[2], key[3], element, sample, low, high}});
}

static inline int ref_acc(Kernel *k, DType dt)
{
    uint32_t mask = 0;
    for (uint32_t d = 0; d < k->n_loops; d++)
        if (k->loops[d].kind != LOOP_K) mask |= 1u << d;
    return ref_add(k, (Node){.kind = KN_ACC, .dtype = dt, .loop_mask = mask});
}

static inline Store *ref_store(Kernel *k, int node, int arg, int64_t base, const int64_t *stride)
{
    ZM_CHECK(k->n_stores < REF_MAX_STORES);
    Store *s = &k->stores[k->n_stores++];
    *s = (Store){.node = node, .mode = ST_SET, .to = {.arg = arg, .dyn = -1, .base = base}};
    memcpy(s->to.stride, stride, sizeof(int64_t) * k->n_loops);
    s->level = ref_level(k, ref_mask_of(k, stride));
    if (s->level == LV_CONST) s->level = LV_ROW;
    return s;
}

/* ---- meaning: arguments are arrays of double ---- */

typedef struct RefRun {
    const Kernel *k;
    double **mem;
    int64_t index[KERNEL_MAX_LOOPS];
    struct RefRow *row;
    double acc; /* contraction */
} RefRun;

/* Reductions of the present row, once computed: without this, stages multiply. */
typedef struct RefRow {
    double value[REF_MAX_NODES];
    bool is_known[REF_MAX_NODES];
} RefRow;

static inline double ref_value(RefRun *r, int node);

static inline int64_t ref_affine(const RefRun *r, int64_t base, const int64_t *stride)
{
    for (uint32_t d = 0; d < r->k->n_loops; d++) base += stride[d] * r->index[d];
    return base;
}

static inline int64_t ref_address(RefRun *r, const Access *at)
{
    int64_t e = ref_affine(r, at->base, at->stride);
    if (at->dyn >= 0) e += at->dyn_stride * (int64_t)ref_value(r, at->dyn);
    ZM_CHECK(e >= 0 && e < r->k->args[at->arg].elems);
    return e;
}

static inline double ref_load_value(RefRun *r, const Access *at)
{
    for (uint32_t g = 0; g < at->n_guards; g++) {
        int64_t v = ref_affine(r, at->guards[g].base, at->guards[g].stride);
        if (v < at->guards[g].lo || v >= at->guards[g].hi) return 0;
    }
    return r->mem[at->arg][ref_address(r, at)];
}

/* Advances the indices of the loops of a kind, the last fastest; false after the last. */
static inline bool ref_next(RefRun *r, LoopKind kind)
{
    for (uint32_t d = r->k->n_loops; d-- > 0;) {
        if (r->k->loops[d].kind != kind) continue;
        if (++r->index[d] < r->k->loops[d].extent) return true;
        r->index[d] = 0;
    }
    return false;
}

static inline double ref_reduce_value(RefRun *r, const Node *n)
{
    RefRun inner = *r;
    for (uint32_t d = 0; d < r->k->n_loops; d++)
        if (r->k->loops[d].kind == LOOP_RED) inner.index[d] = 0;
    double acc = n->op == OP_REDUCE_SUM ? 0 : -(double)INFINITY;
    do {
        double v = ref_value(&inner, n->arg[0]);
        if (n->op == OP_REDUCE_SUM)
            acc += v;
        else
            acc = acc != acc || v != v ? (double)NAN : acc > v ? acc : v;
    } while (ref_next(&inner, LOOP_RED));
    return acc;
}

static inline double ref_random_value(RefRun *r, const Node *n)
{
    uint32_t w[8];
    for (int i = 0; i < 8; i++) w[i] = (uint32_t)(int32_t)ref_value(r, n->arg[i]);
    return (double)(philox(w[4], w[3] + w[5], w[2], w[6], w[0], w[1] ^ w[7]).x[0] >> 8) * 0x1p-24;
}

static inline double ref_point(OpCode op, double a, double b, double c)
{
#define POINT(ID, NAME, N, TRAITS, TYPE, AMP, GRAD, FLOPS, LOWER, EVAL_, SAMPLE, DOC)              \
    if (op == OP_##ID) return EVAL_;
#define OP(ID, ...)
#define EVAL(E) (double)(E)
#define gelu_tanh_slope(X) ((X) * (double)NAN) /* composite: no kernel holds it */
#include "ir/ops.def"
#undef POINT
#undef OP
#undef EVAL
#undef gelu_tanh_slope
    (void)b;
    (void)c;
    ZM_UNREACHABLE("op of a kernel node");
}

static inline double ref_value(RefRun *r, int node)
{
    const Node *n = &r->k->nodes[node];
    double v = 0;
    switch (n->kind) {
    case KN_CONST: v = n->imm; break;
    case KN_LOAD: return ref_load_value(r, &r->k->accesses[n->index]);
    case KN_INDEX:
        return (double)ref_affine(r, r->k->accesses[n->index].base,
                                  r->k->accesses[n->index].stride);
    case KN_RANDOM: return ref_random_value(r, n);
    case KN_REDUCE:
        if (!r->row->is_known[node]) r->row->value[node] = ref_reduce_value(r, n);
        r->row->is_known[node] = true;
        v = r->row->value[node];
        break;
    case KN_OP: {
        double x[3] = {0, 0, 0};
        for (uint32_t i = 0; i < n->n_args; i++) x[i] = ref_value(r, n->arg[i]);
        v = n->op == OP_CAST ? x[0] : ref_point(n->op, x[0], x[1], x[2]);
        break;
    }
    case KN_ACC: v = r->acc; break;
    }
    return dtype_round(n->dtype, v);
}

/* A scatter's output starts as the argument that it may share memory with, or as zeros. */
static inline void ref_start_scatter(const Kernel *k, double **mem)
{
    if (k->kind != KK_SCATTER) return;
    int out = k->stores[0].to.arg, from = k->args[out].alias_in;
    for (int64_t e = 0; e < k->args[out].elems; e++) mem[out][e] = from < 0 ? 0 : mem[from][e];
}

static inline void ref_store_value(RefRun *r, const Store *s)
{
    double *to = &r->mem[s->to.arg][ref_address(r, &s->to)];
    double v = ref_value(r, s->node);
    *to = s->mode == ST_ADD ? dtype_round(r->k->args[s->to.arg].dtype, *to + v) : v;
}

static inline void ref_run_contract(const Kernel *k, double **mem)
{
    RefRow row;
    RefRun r = {.k = k, .mem = mem, .row = &row};
    do {
        r.acc = 0;
        do r.acc += ref_value(&r, k->node_a) * ref_value(&r, k->node_b);
        while (ref_next(&r, LOOP_K));
        for (uint32_t i = 0; i < k->n_stores; i++) ref_store_value(&r, &k->stores[i]);
    } while (ref_next(&r, LOOP_N) || ref_next(&r, LOOP_M) || ref_next(&r, LOOP_BATCH));
}

/* mem[i]: elems doubles of argument i; outputs are changed. */
static inline void ref_run(const Kernel *k, double **mem)
{
    if (k->kind == KK_CONTRACT) {
        ref_run_contract(k, mem);
        return;
    }
    RefRow row;
    RefRun r = {.k = k, .mem = mem, .row = &row};
    ref_start_scatter(k, mem);
    do {
        memset(&row, 0, sizeof row);
        do {
            for (uint32_t i = 0; i < k->n_stores; i++)
                if (k->stores[i].level == LV_ELEM) ref_store_value(&r, &k->stores[i]);
        } while (ref_next(&r, LOOP_RED));
        for (uint32_t i = 0; i < k->n_stores; i++)
            if (k->stores[i].level != LV_ELEM) ref_store_value(&r, &k->stores[i]);
    } while (ref_next(&r, LOOP_PAR));
}

#endif
