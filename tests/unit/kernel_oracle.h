/* kernel_oracle.h -- for tests of the CUDA back end: what a nest, a scatter or a contraction means
 * (codegen/kernel.h), in f64 with a running bound of what correct code may be off by.
 *
 * A value is the reference, rounded to its dtype, and err, such that every correct execution gives
 * a number within err of it.  Unit roundoff u: 2^-24 (f32), 2^-53, 2^-8 (bf16), 2^-11 (f16).
 *  - + - * / sqrt and casts of exact values are rounded once: err = 0, the bits are known.  (In 16
 *    bits an execution may round to f32 between: err is the difference, where there is one.)
 *  - of inexact values: first-order propagation, and one rounding each of the reference and of the
 *    execution.  Functions: their tolerance in ops.def, in ulp.
 *  - a sum of n terms, in any order: (n - 1) u sum |x|.  A contraction in f32: (K + 1) u sum |a b|;
 *    twice that with 16-bit operands, since tensor cores cut off what they align.
 *  - a scatter adds in the order of the loops, so of exact values the bits are known.
 *  - a comparison of values whose bounds overlap may go either way: a select then is off by the
 *    distance of its branches. */
#ifndef ZM_TESTS_KERNEL_ORACLE_H
#define ZM_TESTS_KERNEL_ORACLE_H

#include <math.h>
#include <string.h>

#include "codegen/kernel.h"
#include "ir/base/philox.h"

typedef struct OracleValue {
    double v, err;
    bool is_known; /* false: depends on a reduction that is not over yet */
} OracleValue;

typedef struct OracleArg { /* as OracleValue; outputs: what is written */
    double *v, *err;
    bool *is_written;
} OracleArg;

typedef struct Oracle {
    const Kernel *k;
    OracleArg arg[KERNEL_MAX_ARGS]; /* v of inputs is given, rounded */
    int64_t index[KERNEL_MAX_LOOPS];
    OracleValue *value;   /* [n_nodes] at the present point */
    OracleValue *reduced; /* [n_nodes] of the present row */
    bool *is_wanted;      /* [n_nodes] */
    OracleValue acc;
} Oracle;

static inline double oracle_unit(DType dt)
{
    return dt == DT_F64 ? 0x1p-53 : dt == DT_BF16 ? 0x1p-8 : dt == DT_F16 ? 0x1p-11 : 0x1p-24;
}

static inline double oracle_tiny(DType dt) /* the least step, where numbers are subnormal */
{
    return dt == DT_F64 ? 0x1p-1074 : dt == DT_F16 ? 0x1p-24 : dt == DT_BF16 ? 0x1p-133 : 0x1p-149;
}

static inline bool oracle_is_half(DType dt)
{
    return dt == DT_BF16 || dt == DT_F16;
}

static inline DType oracle_work(DType dt) /* what arithmetic of a dtype is done in */
{
    return oracle_is_half(dt) ? DT_F32 : dt;
}

/* Both sides round a number of about v that is already off by err. */
static inline double oracle_rounded_err(DType dt, double v, double err)
{
    return 1.01 * err + 2.02 * oracle_unit(dt) * fabs(v) + oracle_tiny(dt);
}

/* ---- one operation ---- */

static inline double oracle_point(OpCode op, double a, double b, double c)
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

/* The argument's error seen through the operation.  raw: the operation's value. */
static inline double oracle_spread(OpCode op, double raw, const OracleValue *x)
{
    double a = x[0].v, b = x[1].v, ea = x[0].err, eb = x[1].err;
    double low = a - ea, high = a + ea;
    switch ((int)op) {
    case OP_ADD:
    case OP_SUB: return ea + eb;
    case OP_MUL: return fabs(a) * eb + fabs(b) * ea + ea * eb;
    case OP_DIV: return eb >= fabs(b) && eb > 0 ? INFINITY : (ea + fabs(raw) * eb) / (fabs(b) - eb);
    case OP_SIN:
    case OP_COS: return ea;
    case OP_SQRT:
    case OP_LOG: low = fmax(low, a < 0 ? a : 0); break;
    case OP_ROUND_BF16: return ea + eb > 0 ? ea + 0x1p-7 * fabs(a) : 0; /* one step */
    default: break;
    }
    if (ea == 0) return 0;
    return fmax(fabs(oracle_point(op, low, b, 0) - raw), fabs(oracle_point(op, high, b, 0) - raw));
}

/* Operations that round: v is the reference's result in dtype dt. */
static inline OracleValue oracle_arithmetic(OpCode op, DType dt, const OracleValue *x)
{
    double raw = oracle_point(op, x[0].v, x[1].v, 0), ulps = op_info(op)->tol_ulp;
    double spread = oracle_spread(op, raw, x), v = dtype_round(dt, raw);
    if (!isfinite(v)) return (OracleValue){v, isfinite(raw) ? fabs(raw) * 0x1p-8 : 0, true};
    if (dt == DT_I32) return (OracleValue){v, 0, true};
    if (spread == 0 && ulps <= 0) /* correctly rounded */
        return (OracleValue){v, fabs(dtype_round(dt, dtype_round(oracle_work(dt), raw)) - v), true};
    double function = 2 * ulps * oracle_unit(oracle_work(dt)) * fabs(raw);
    return (OracleValue){v, oracle_rounded_err(dt, raw, spread + function), true};
}

static inline OracleValue oracle_cast(DType dt, OracleValue a)
{
    double v = dtype_round(dt, a.v);
    if (dt == DT_I1) return (OracleValue){v, a.err > 0 && a.err >= fabs(a.v), true};
    if (a.err == 0 || !isfinite(v)) return (OracleValue){v, 0, true};
    if (dt == DT_I32) return (OracleValue){v, ceil(a.err), true};
    /* What the argument stands for rounds to within its own distance and half a step each. */
    return (OracleValue){v, oracle_rounded_err(dt, a.v, a.err), true};
}

static inline OracleValue oracle_select(const OracleValue *x)
{
    OracleValue pick = x[0].v != 0 ? x[1] : x[2], other = x[0].v != 0 ? x[2] : x[1];
    if (x[0].err > 0) pick.err = fmax(pick.err, fabs(pick.v - other.v) + other.err);
    return pick;
}

static inline OracleValue oracle_op(const Node *n, const OracleValue *x)
{
    double v = n->op == OP_CAST ? 0 : oracle_point(n->op, x[0].v, x[1].v, x[2].v);
    double either = x[0].err + x[1].err;
    switch ((int)n->op) {
    case OP_CAST: return oracle_cast(n->dtype, x[0]);
    case OP_SELECT: return oracle_select(x);
    case OP_NEG:
    case OP_ABS: return (OracleValue){v, x[0].err, true};
    case OP_MAX:
    case OP_MIN: return (OracleValue){v, fmax(x[0].err, x[1].err), true};
    case OP_FLOOR: {
        double step = floor(x[0].v + x[0].err) - floor(x[0].v - x[0].err);
        return (OracleValue){v, step == step ? step : 0, true};
    }
    case OP_EQ:
    case OP_NE:
    case OP_LT:
    case OP_LE:
    case OP_GT:
    case OP_GE: return (OracleValue){v, either > 0 && fabs(x[0].v - x[1].v) <= either, true};
    case OP_AND:
    case OP_OR:
    case OP_NOT: return (OracleValue){v, either > 0, true};
    case OP_IS_FINITE: return (OracleValue){v, 0, true};
    default: return oracle_arithmetic(n->op, n->dtype, x);
    }
}

/* ---- nodes ---- */

static inline int64_t oracle_affine(const Oracle *r, int64_t base, const int64_t *stride)
{
    for (uint32_t d = 0; d < r->k->n_loops; d++) base += stride[d] * r->index[d];
    return base;
}

/* Element number, or -1: it depends on what is not known yet. */
static inline int64_t oracle_address(const Oracle *r, const Access *at)
{
    int64_t e = oracle_affine(r, at->base, at->stride);
    if (at->dyn >= 0 && !r->value[at->dyn].is_known) return -1;
    if (at->dyn >= 0) e += at->dyn_stride * (int64_t)r->value[at->dyn].v;
    ZM_CHECK(e >= 0 && e < r->k->args[at->arg].elems);
    return e;
}

static inline OracleValue oracle_load(const Oracle *r, const Access *at)
{
    for (uint32_t g = 0; g < at->n_guards; g++) {
        int64_t v = oracle_affine(r, at->guards[g].base, at->guards[g].stride);
        if (v < at->guards[g].lo || v >= at->guards[g].hi) return (OracleValue){0, 0, true};
    }
    int64_t e = oracle_address(r, at);
    return e < 0 ? (OracleValue){0} : (OracleValue){r->arg[at->arg].v[e], 0, true};
}

static inline OracleValue oracle_node(const Oracle *r, uint32_t i)
{
    const Node *n = &r->k->nodes[i];
    OracleValue x[8] = {{0}};
    bool is_known = true;
    for (uint32_t a = 0; a < n->n_args; a++) {
        x[a] = r->value[n->arg[a]];
        is_known = is_known && x[a].is_known;
    }
    switch (n->kind) {
    case KN_CONST: return (OracleValue){dtype_round(n->dtype, n->imm), 0, true};
    case KN_LOAD: return oracle_load(r, &r->k->accesses[n->index]);
    case KN_INDEX: {
        const Access *at = &r->k->accesses[n->index];
        return (OracleValue){(double)oracle_affine(r, at->base, at->stride), 0, true};
    }
    case KN_REDUCE: return r->reduced[i];
    case KN_ACC: return r->acc;
    case KN_OP: return is_known ? oracle_op(n, x) : (OracleValue){0};
    case KN_RANDOM: break;
    }
    uint32_t w[8];
    for (int a = 0; a < 8; a++) w[a] = (uint32_t)(int32_t)x[a].v;
    Philox p = philox(w[4], w[3] + w[5], w[2], w[6], w[0], w[1] ^ w[7]);
    return (OracleValue){(p.x[0] >> 8) * 0x1p-24, 0, is_known};
}

static inline void oracle_nodes(Oracle *r, const bool *is_wanted)
{
    for (uint32_t i = 0; i < r->k->n_nodes; i++)
        if (is_wanted[i]) r->value[i] = oracle_node(r, i);
}

static inline void oracle_want(const Kernel *k, bool *is_wanted)
{
    for (uint32_t i = k->n_nodes; i-- > 0;) {
        const Node *n = &k->nodes[i];
        if (!is_wanted[i]) continue;
        for (uint32_t a = 0; a < n->n_args; a++) is_wanted[n->arg[a]] = true;
        if (n->kind == KN_LOAD && k->accesses[n->index].dyn >= 0)
            is_wanted[k->accesses[n->index].dyn] = true;
    }
}

static inline void oracle_want_stores(const Kernel *k, bool *is_wanted)
{
    for (uint32_t i = 0; i < k->n_stores; i++) {
        is_wanted[k->stores[i].node] = true;
        if (k->stores[i].to.dyn >= 0) is_wanted[k->stores[i].to.dyn] = true;
    }
    oracle_want(k, is_wanted);
}

/* Advances the indices of the loops of a kind, the last fastest; false after the last. */
static inline bool oracle_next(Oracle *r, LoopKind kind)
{
    for (uint32_t d = r->k->n_loops; d-- > 0;) {
        if (r->k->loops[d].kind != kind) continue;
        if (++r->index[d] < r->k->loops[d].extent) return true;
        r->index[d] = 0;
    }
    return false;
}

static inline void oracle_set(Oracle *r, const Store *s)
{
    int64_t e = oracle_address(r, &s->to);
    OracleValue x = r->value[s->node];
    OracleArg *to = &r->arg[s->to.arg];
    ZM_CHECK(e >= 0 && x.is_known);
    to->v[e] = x.v;
    to->err[e] = x.err;
    to->is_written[e] = true;
}

/* ---- nest ---- */

typedef struct OracleSum {
    double v, err, magnitude, n;
} OracleSum;

static inline void oracle_add(const Node *n, OracleSum *s, OracleValue x)
{
    ZM_CHECK(x.is_known);
    if (n->op == OP_REDUCE_MAX) {
        s->v = s->n == 0 || x.v != x.v || x.v > s->v ? x.v : s->v;
        s->err = fmax(s->err, x.err);
    } else {
        s->v += x.v;
        s->err += x.err;
        s->magnitude += fabs(x.v) + x.err;
    }
    s->n++;
}

static inline OracleValue oracle_sum(const Node *n, const OracleSum *s)
{
    double v = dtype_round(n->dtype, s->v);
    if (n->op == OP_REDUCE_MAX || n->dtype == DT_I32) return (OracleValue){v, s->err, true};
    if (!isfinite(v)) return (OracleValue){v, 0, true};
    if (s->n == 1 && s->err == 0) return (OracleValue){v, 0, true};
    double order = (s->n - 1) * oracle_unit(oracle_work(n->dtype)) * s->magnitude;
    if (n->dtype == DT_F64) order *= 2; /* the reference has its own */
    return (OracleValue){v, oracle_rounded_err(n->dtype, v, s->err + order), true};
}

static inline void oracle_sweep(Oracle *r, OracleSum *sums, int32_t stage)
{
    const Kernel *k = r->k;
    memset(sums, 0, k->n_nodes * sizeof *sums);
    do {
        oracle_nodes(r, r->is_wanted);
        for (uint32_t i = 0; i < k->n_nodes; i++)
            if (r->is_wanted[i] && k->nodes[i].kind == KN_REDUCE && k->nodes[i].stage == stage)
                oracle_add(&k->nodes[i], &sums[i], r->value[k->nodes[i].arg[0]]);
    } while (oracle_next(r, LOOP_RED));
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (r->is_wanted[i] && k->nodes[i].kind == KN_REDUCE && k->nodes[i].stage == stage)
            r->reduced[i] = oracle_sum(&k->nodes[i], &sums[i]);
}

static inline void oracle_nest(Oracle *r, Arena *a)
{
    const Kernel *k = r->k;
    OracleSum *sums = ARENA_ARRAY(a, OracleSum, k->n_nodes + 1);
    int32_t n_sweeps = 0;
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (k->nodes[i].kind == KN_REDUCE && k->nodes[i].stage >= n_sweeps)
            n_sweeps = k->nodes[i].stage + 1;
    do {
        memset(r->reduced, 0, k->n_nodes * sizeof *r->reduced);
        for (int32_t s = 0; s < n_sweeps; s++) oracle_sweep(r, sums, s);
        do {
            oracle_nodes(r, r->is_wanted);
            for (uint32_t i = 0; i < k->n_stores; i++)
                if (k->stores[i].level == LV_ELEM) oracle_set(r, &k->stores[i]);
        } while (oracle_next(r, LOOP_RED));
        for (uint32_t i = 0; i < k->n_stores; i++)
            if (k->stores[i].level != LV_ELEM) oracle_set(r, &k->stores[i]);
    } while (oracle_next(r, LOOP_PAR));
}

/* ---- scatter ---- */

static inline void oracle_start_scatter(Oracle *r, OracleArg *to)
{
    int out = r->k->stores[0].to.arg, from = r->k->args[out].alias_in;
    for (int64_t e = 0; e < r->k->args[out].elems; e++) {
        to->v[e] = from < 0 ? 0 : r->arg[from].v[e];
        to->err[e] = 0;
        to->is_written[e] = true;
    }
}

/* Additions to an element are made in the loops' order, each rounded to the output's dtype. */
static inline void oracle_scatter(Oracle *r)
{
    const Store *s = &r->k->stores[0];
    OracleArg *to = &r->arg[s->to.arg];
    const Node sum = {.kind = KN_OP, .op = OP_ADD, .dtype = r->k->args[s->to.arg].dtype};
    oracle_start_scatter(r, to);
    do {
        do {
            oracle_nodes(r, r->is_wanted);
            int64_t e = oracle_address(r, &s->to);
            ZM_CHECK(e >= 0 && r->value[s->node].is_known);
            OracleValue x[3] = {{to->v[e], to->err[e], true}, r->value[s->node], {0, 0, true}};
            OracleValue y = oracle_op(&sum, x);
            to->v[e] = y.v;
            to->err[e] = y.err;
        } while (oracle_next(r, LOOP_RED));
    } while (oracle_next(r, LOOP_PAR));
}

/* ---- contraction ---- */

/* One operand of a batch: [rows of `kind`][K]. */
static inline void oracle_operand(Oracle *r, int32_t node, LoopKind kind, OracleValue *to, Arena *a)
{
    bool *is_wanted = ARENA_ARRAY(a, bool, r->k->n_nodes);
    is_wanted[node] = true;
    oracle_want(r->k, is_wanted);
    int64_t i = 0;
    do do {
            oracle_nodes(r, is_wanted);
            to[i++] = r->value[node];
        } while (oracle_next(r, LOOP_K));
    while (oracle_next(r, kind));
}

static inline int64_t oracle_extent(const Kernel *k, LoopKind kind)
{
    int64_t n = 1;
    for (uint32_t d = 0; d < k->n_loops; d++)
        if (k->loops[d].kind == kind) n *= k->loops[d].extent;
    return n;
}

static inline OracleValue oracle_dot(const Kernel *k, const OracleValue *a, const OracleValue *b,
                                     int64_t n)
{
    double sum = 0, err = 0, magnitude = 0;
    for (int64_t i = 0; i < n; i++) {
        double size = fabs(a[i].v * b[i].v);
        double e = fabs(a[i].v) * b[i].err + fabs(b[i].v) * a[i].err + a[i].err * b[i].err;
        sum += a[i].v * b[i].v;
        err += e;
        magnitude += size + e;
    }
    DType da = k->nodes[k->node_a].dtype, db = k->nodes[k->node_b].dtype;
    DType dt = da == DT_F64 || db == DT_F64 ? DT_F64 : DT_F32;
    double twice = oracle_is_half(da) || oracle_is_half(db) || dt == DT_F64 ? 2 : 1;
    if (!isfinite(sum)) return (OracleValue){sum, 0, true};
    err += twice * (double)(n + 1) * oracle_unit(dt) * magnitude;
    return (OracleValue){dtype_round(dt, sum), oracle_rounded_err(dt, sum, err), true};
}

static inline void oracle_contract(Oracle *r, Arena *a)
{
    const Kernel *k = r->k;
    int64_t n_m = oracle_extent(k, LOOP_M), n_n = oracle_extent(k, LOOP_N);
    int64_t n_k = oracle_extent(k, LOOP_K);
    OracleValue *x = ARENA_ARRAY(a, OracleValue, n_m * n_k),
                *y = ARENA_ARRAY(a, OracleValue, n_n * n_k);
    do {
        oracle_operand(r, k->node_a, LOOP_M, x, a);
        oracle_operand(r, k->node_b, LOOP_N, y, a);
        int64_t m = 0;
        do {
            int64_t n = 0;
            do {
                r->acc = oracle_dot(k, x + m * n_k, y + n++ * n_k, n_k);
                oracle_nodes(r, r->is_wanted);
                for (uint32_t i = 0; i < k->n_stores; i++) oracle_set(r, &k->stores[i]);
            } while (oracle_next(r, LOOP_N));
            m++;
        } while (oracle_next(r, LOOP_M));
    } while (oracle_next(r, LOOP_BATCH));
}

/* ---- entry ---- */

static inline Oracle *oracle_new(Arena *a, const Kernel *k)
{
    Oracle *r = ARENA_NEW(a, Oracle);
    r->k = k;
    for (uint32_t i = 0; i < k->n_args; i++) {
        r->arg[i].v = ARENA_ARRAY(a, double, k->args[i].elems + 1);
        r->arg[i].err = ARENA_ARRAY(a, double, k->args[i].elems + 1);
        r->arg[i].is_written = ARENA_ARRAY(a, bool, k->args[i].elems + 1);
    }
    r->value = ARENA_ARRAY(a, OracleValue, k->n_nodes + 1);
    r->reduced = ARENA_ARRAY(a, OracleValue, k->n_nodes + 1);
    r->is_wanted = ARENA_ARRAY(a, bool, k->n_nodes + 1);
    oracle_want_stores(k, r->is_wanted);
    return r;
}

static inline void oracle_run(Oracle *r, Arena *a)
{
    switch (r->k->kind) {
    case KK_NEST: oracle_nest(r, a); return;
    case KK_SCATTER: oracle_scatter(r); return;
    case KK_CONTRACT: oracle_contract(r, a); return;
    case KK_ATTENTION: break;
    }
    ZM_UNREACHABLE("attention has a reference of its own: attention_ref.h");
}

static inline bool oracle_accepts(OracleValue want, DType dt, double got)
{
    if (want.v != want.v) return got != got;
    if (got == want.v || fabs(got - want.v) <= want.err) return true;
    double most = dt == DT_F16 ? 65504 : 0x1.fep127; /* may it overflow? */
    return isinf(got) && got * want.v >= 0 && fabs(want.v) + want.err >= most;
}

#endif
