/* kernel_bound.h -- for tests of back ends: building kernel forms by hand, and what they mean, in
 * f64 with a running bound of the rounding error.  A back end's result must lie within the bound:
 * tolerances are derived, never chosen. */
#ifndef ZM_TESTS_KERNEL_BOUND_H
#define ZM_TESTS_KERNEL_BOUND_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/kernel.h"
#include "ir/base/philox.h"

enum { KB_MAX = 160 };

typedef struct KernelMaker {
    Arena *a;
    Kernel k;
    Node nodes[KB_MAX];
    Access accesses[KB_MAX];
    Store stores[KB_MAX];
} KernelMaker;

static inline KernelMaker *km_new(Arena *a, KernelKind kind, const char *label)
{
    KernelMaker *b = ARENA_NEW(a, KernelMaker);
    b->a = a;
    b->k.kind = kind;
    b->k.label = label;
    b->k.n_stages = 1;
    b->k.nodes = b->nodes;
    b->k.accesses = b->accesses;
    b->k.stores = b->stores;
    return b;
}

static inline void km_loop(KernelMaker *b, LoopKind kind, int64_t extent)
{
    b->k.loops[b->k.n_loops++] = (Loop){kind, extent};
}

static inline int km_arg(KernelMaker *b, DType dt, int64_t elems, bool is_out, int alias)
{
    b->k.args[b->k.n_args] = (KernelArg){dt, elems, is_out, alias, 0};
    return (int)b->k.n_args++;
}

static inline int32_t km_node(KernelMaker *b, Node n)
{
    b->nodes[b->k.n_nodes] = n;
    return (int32_t)b->k.n_nodes++;
}

static inline int32_t km_op(KernelMaker *b, OpCode op, DType dt, int32_t x, int32_t y, int32_t z)
{
    Node n = {.kind = KN_OP, .op = op, .dtype = dt, .level = LV_ELEM, .arg = {x, y, z}};
    n.n_args = z >= 0 ? 3 : y >= 0 ? 2 : 1;
    return km_node(b, n);
}

static inline int32_t km_const(KernelMaker *b, DType dt, double v)
{
    return km_node(b, (Node){.kind = KN_CONST, .dtype = dt, .level = LV_CONST, .imm = v});
}

/* strides: one per loop */
static inline Access km_access(int arg, const int64_t *stride, uint32_t n)
{
    Access x = {.arg = arg, .dyn = -1};
    memcpy(x.stride, stride, n * sizeof *stride);
    return x;
}

static inline int32_t km_load(KernelMaker *b, int arg, const int64_t *stride)
{
    b->accesses[b->k.n_accesses] = km_access(arg, stride, b->k.n_loops);
    Node n = {.kind = KN_LOAD, .dtype = b->k.args[arg].dtype, .level = LV_ELEM};
    n.index = b->k.n_accesses++;
    return km_node(b, n);
}

static inline int32_t km_index(KernelMaker *b, const int64_t *stride)
{
    b->accesses[b->k.n_accesses] = km_access(-1, stride, b->k.n_loops);
    return km_node(b, (Node){.kind = KN_INDEX, .dtype = DT_I32, .index = b->k.n_accesses++});
}

static inline int32_t km_reduce(KernelMaker *b, OpCode op, int32_t x, int stage)
{
    Node n = {.kind = KN_REDUCE, .op = op, .dtype = b->nodes[x].dtype, .level = LV_ROW, .arg = {x}};
    n.stage = stage;
    n.n_args = 1;
    if ((uint32_t)stage + 1 > b->k.n_stages) b->k.n_stages = (uint32_t)stage + 1;
    return km_node(b, n);
}

static inline void km_store(KernelMaker *b, int32_t node, Level level, int arg,
                            const int64_t *stride)
{
    b->stores[b->k.n_stores++] = (Store){node, level, ST_SET, km_access(arg, stride, b->k.n_loops)};
}

#define S(...) ((const int64_t[KERNEL_MAX_LOOPS]){__VA_ARGS__})

/* ---- meaning ---- */

typedef struct RefValue {
    double v, err; /* |exact v - what correct code may compute| <= err */
} RefValue;

typedef struct Ref {
    const Kernel *k;
    char *const *bufs;
    int64_t index[KERNEL_MAX_LOOPS];
    RefValue reduced[KB_MAX];
} Ref;

static inline double ref_read(DType dt, const char *base, int64_t i)
{
    switch (dt) {
    case DT_I1: return ((const unsigned char *)base)[i] != 0;
    case DT_I32: return ((const int32_t *)(const void *)base)[i];
    case DT_F32: return (double)((const float *)(const void *)base)[i];
    case DT_F64: return ((const double *)(const void *)base)[i];
    case DT_BF16: {
        uint32_t bits = (uint32_t)((const uint16_t *)(const void *)base)[i] << 16;
        float f;
        memcpy(&f, &bits, 4);
        return (double)f;
    }
    case DT_F16: return (double)((const _Float16 *)(const void *)base)[i];
    case DT_NONE:
    case N_DTYPE: break;
    }
    abort();
}

static inline double ref_unit(DType dt) /* half an ulp, relative */
{
    return dt == DT_F64 ? 0x1p-53 : dt == DT_BF16 ? 0x1p-8 : dt == DT_F16 ? 0x1p-11 : 0x1p-24;
}

static inline double ref_tiny(DType dt) /* the least step, where numbers are subnormal */
{
    return dt == DT_F64 ? 0x1p-1074 : dt == DT_F16 ? 0x1p-24 : 0x1p-149;
}

static inline RefValue ref_node(const Ref *r, int32_t i);

static inline bool ref_elem(const Ref *r, const Access *x, int64_t *elem)
{
    int64_t at = x->base;
    for (uint32_t d = 0; d < r->k->n_loops; d++) at += x->stride[d] * r->index[d];
    if (x->dyn >= 0) at += x->dyn_stride * (int64_t)ref_node(r, x->dyn).v;
    *elem = at;
    for (uint32_t g = 0; g < x->n_guards; g++) {
        int64_t v = x->guards[g].base;
        for (uint32_t d = 0; d < r->k->n_loops; d++) v += x->guards[g].stride[d] * r->index[d];
        if (v < x->guards[g].lo || v >= x->guards[g].hi) return false;
    }
    return true;
}

static inline RefValue ref_function(OpCode op, RefValue a, double ulps, double u)
{
    double (*f)(double) = op == OP_EXP    ? exp
                          : op == OP_LOG  ? log
                          : op == OP_TANH ? tanh
                          : op == OP_ERF  ? erf
                          : op == OP_SIN  ? sin
                          : op == OP_COS  ? cos
                                          : sqrt;
    double v = f(a.v), lo = f(a.v - a.err), hi = f(a.v + a.err);
    return (RefValue){v, fmax(fabs(lo - v), fabs(hi - v)) + 2 * ulps * u * fabs(v) + 0x1p-149};
}

static inline RefValue ref_op(const Ref *r, const Node *n)
{
    RefValue a = ref_node(r, n->arg[0]), b = {0, 0}, c = {0, 0};
    if (n->n_args > 1) b = ref_node(r, n->arg[1]);
    if (n->n_args > 2) c = ref_node(r, n->arg[2]);
    double u = ref_unit(n->dtype), v = 0, e = 0;
    bool is_int = n->dtype == DT_I32;
    bool close = fabs(a.v - b.v) <= a.err + b.err && a.err + b.err > 0;
    if (n->op == OP_ADD)
        v = a.v + b.v, e = a.err + b.err;
    else if (n->op == OP_SUB)
        v = a.v - b.v, e = a.err + b.err;
    else if (n->op == OP_MUL)
        v = a.v * b.v, e = fabs(a.v) * b.err + fabs(b.v) * a.err + a.err * b.err;
    else if (n->op == OP_DIV)
        v = a.v / b.v, e = (a.err + fabs(v) * b.err) / fmax(fabs(b.v) - b.err, 1e-300);
    else if (n->op == OP_NEG)
        return (RefValue){-a.v, a.err};
    else if (n->op == OP_ABS)
        return (RefValue){fabs(a.v), a.err};
    else if (n->op == OP_MAX)
        return (RefValue){a.v != a.v || a.v > b.v ? a.v : b.v, fmax(a.err, b.err)};
    else if (n->op == OP_MIN)
        return (RefValue){a.v != a.v || a.v < b.v ? a.v : b.v, fmax(a.err, b.err)};
    else if (n->op == OP_FLOOR)
        return (RefValue){floor(a.v), floor(a.v + a.err) - floor(a.v - a.err)};
    else if (n->op == OP_LT)
        return (RefValue){a.v < b.v, close};
    else if (n->op == OP_GE)
        return (RefValue){a.v >= b.v, close};
    else if (n->op == OP_EQ)
        return (RefValue){a.v == b.v, close};
    else if (n->op == OP_AND)
        return (RefValue){a.v != 0 && b.v != 0, a.err + b.err};
    else if (n->op == OP_NOT)
        return (RefValue){a.v == 0, a.err};
    else if (n->op == OP_IS_FINITE)
        return (RefValue){isfinite(a.v), 0};
    else if (n->op == OP_SELECT) {
        RefValue pick = a.v != 0 ? b : c, other = a.v != 0 ? c : b;
        if (a.err > 0) pick.err += fabs(pick.v - other.v) + other.err;
        return pick;
    } else if (n->op == OP_CAST) {
        DType from = r->k->nodes[n->arg[0]].dtype;
        v = n->dtype == DT_I1 ? a.v != 0 : is_int ? trunc(a.v) : a.v;
        bool widens = dtype_class(from) != DTC_FLOAT || dtype_bytes(from) <= dtype_bytes(n->dtype);
        return (RefValue){v, a.err + (widens ? 0 : 1.01 * u * fabs(v))};
    } else if (n->op == OP_SQRT)
        return ref_function(n->op, a, 0.5, u);
    else
        return ref_function(n->op, a, n->op == OP_SIN || n->op == OP_COS ? 4 : 2, u);
    return (RefValue){v, is_int ? 0 : e * (1 + u) + u * fabs(v) + ref_tiny(n->dtype)};
}

static inline RefValue ref_random(const Ref *r, const Node *n)
{
    uint32_t w[8];
    for (int i = 0; i < 8; i++) w[i] = (uint32_t)(int64_t)ref_node(r, n->arg[i]).v;
    Philox x = philox(w[4], w[3] + w[5], w[2], w[6], w[0], w[1] ^ w[7]);
    return (RefValue){(x.x[0] >> 8) * 0x1p-24, 0};
}

static inline RefValue ref_node(const Ref *r, int32_t i)
{
    const Node *n = &r->k->nodes[i];
    int64_t elem;
    switch (n->kind) {
    case KN_OP: return ref_op(r, n);
    case KN_CONST: return (RefValue){dtype_round(n->dtype, n->imm), 0};
    case KN_LOAD: {
        const Access *x = &r->k->accesses[n->index];
        if (!ref_elem(r, x, &elem)) return (RefValue){0, 0};
        return (RefValue){ref_read(n->dtype, r->bufs[x->arg], elem), 0};
    }
    case KN_INDEX:
        ref_elem(r, &r->k->accesses[n->index], &elem);
        return (RefValue){(double)elem, 0};
    case KN_RANDOM: return ref_random(r, n);
    case KN_REDUCE: return r->reduced[i];
    case KN_ACC: break;
    }
    abort();
}

/* Steps the loops of one kind, last fastest; false after the last point. */
static inline bool ref_next(Ref *r, bool red)
{
    for (uint32_t d = r->k->n_loops; d-- > 0;) {
        if ((r->k->loops[d].kind == LOOP_RED) != red) continue;
        if (++r->index[d] < r->k->loops[d].extent) return true;
        r->index[d] = 0;
    }
    return false;
}

typedef void (*RefStoreFn)(void *user, uint32_t store, int64_t elem, RefValue v);

static inline void ref_store(Ref *r, Level level, RefStoreFn fn, void *user)
{
    for (uint32_t i = 0; i < r->k->n_stores; i++) {
        int64_t elem;
        if ((r->k->stores[i].level == LV_ELEM) != (level == LV_ELEM)) continue;
        ref_elem(r, &r->k->stores[i].to, &elem);
        fn(user, i, elem, ref_node(r, r->k->stores[i].node));
    }
}

static inline void ref_sweep(Ref *r, uint32_t stage, RefStoreFn fn, void *user)
{
    double sum_abs[KB_MAX] = {0}, terms = 0;
    for (uint32_t i = 0; i < r->k->n_nodes; i++)
        if (r->k->nodes[i].kind == KN_REDUCE && (uint32_t)r->k->nodes[i].stage == stage)
            r->reduced[i] = (RefValue){r->k->nodes[i].op == OP_REDUCE_MAX ? -INFINITY : 0, 0};
    do {
        terms++;
        for (uint32_t i = 0; i < r->k->n_nodes; i++) {
            const Node *n = &r->k->nodes[i];
            if (n->kind != KN_REDUCE || (uint32_t)n->stage != stage) continue;
            RefValue x = ref_node(r, n->arg[0]), *t = &r->reduced[i];
            bool is_max = n->op == OP_REDUCE_MAX;
            t->v = !is_max ? t->v + x.v : x.v != x.v || x.v > t->v ? x.v : t->v;
            t->err = is_max ? fmax(t->err, x.err) : t->err + x.err;
            sum_abs[i] += fabs(x.v) + x.err;
        }
        if (stage == r->k->n_stages - 1) ref_store(r, LV_ELEM, fn, user);
    } while (ref_next(r, true));
    for (uint32_t i = 0; i < r->k->n_nodes; i++) {
        const Node *n = &r->k->nodes[i];
        if (n->kind != KN_REDUCE || (uint32_t)n->stage != stage || n->op == OP_REDUCE_MAX) continue;
        double u = n->dtype == DT_F64 ? 0x1p-53 : n->dtype == DT_I32 ? 0 : 0x1p-24;
        r->reduced[i].err += terms * u * sum_abs[i]; /* any order of additions */
        if (n->dtype == DT_BF16 || n->dtype == DT_F16)
            r->reduced[i].err += ref_unit(n->dtype) * fabs(r->reduced[i].v);
    }
}

/* Calls fn with every stored element. */
static inline void ref_run(const Kernel *k, char *const *bufs, RefStoreFn fn, void *user)
{
    Ref r = {.k = k, .bufs = bufs};
    do {
        for (uint32_t s = 0; s < k->n_stages; s++) ref_sweep(&r, s, fn, user);
        ref_store(&r, LV_ROW, fn, user);
    } while (ref_next(&r, false));
}

#endif
