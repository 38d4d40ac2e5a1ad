/* cpu_contract.c -- kernels `contract` against an f64 evaluation of the form, on odd shapes,
 * layouts, prologues and epilogues, for every target (one that this host lacks is compiled only).
 * Every node but the accumulator is rounded to its dtype in the evaluation too.
 *
 * Bound: a sum of K products in f32, in any order, is within gamma(K) * sum |a||b|, gamma(K) = K u
 * / (1 - K u), u = 2^-24 (Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1).
 * AVX512-BF16 also takes an operand and leaves a sum below 2^-126 as zero: for operands up to 1 in
 * magnitude less than 3 * 2^-126 a product.  Every epilogue here has slope at most 1 in the
 * accumulator and at most 8 roundings, to the result's dtype, of numbers below its own magnitude
 * plus 1. */
#include "tests/unit/cpu_harness.h"

#include "codegen/cpu/contract.h"
#include "ir/base/philox.h"

typedef enum {
    EPI_PLAIN,
    EPI_BIAS,
    EPI_BASE,
    EPI_TWO,
    EPI_DROP,
    EPI_ADD,
    EPI_MIXED /* f32 (result in its dtype) + f32 bias, stored in both dtypes */
} Epilogue;

/* PADDED: two zeros before and one behind, along the innermost dimension.  SPECIAL: some elements
 * are infinite, NaN or subnormal. */
typedef enum { AS_IS, SCALED, PADDED, SPECIAL } Prologue;

/* Loops: letters b m n k with extents, outer to inner ("m2 m3 n5 k7").  Layouts: loops by number,
 * outer dimension first. */
typedef struct Case {
    const char *loops, *a, *b, *c;
    Epilogue epi;
    Prologue a_prologue, b_prologue;
    DType dt;     /* of A and B */
    DType result; /* DT_NONE: the accumulator's */
} Case;

static const Case cases[] = {
    {"m1 n1 k1", "02", "21", "01", EPI_PLAIN, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"n7 k5", "1", "10", "0", EPI_PLAIN, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m9 k5", "01", "1", "0", EPI_PLAIN, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m3 n50", "0", "1", "01", EPI_BIAS, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"k700", "0", "0", "", EPI_PLAIN, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m13 n17 k19", "02", "21", "01", EPI_BIAS, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m13 n17 k19", "20", "12", "01", EPI_PLAIN, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m67 n101 k53", "02", "12", "01", EPI_BASE, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m67 n101 k53", "20", "21", "10", EPI_PLAIN, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m31 n97 k400", "02", "21", "01", EPI_ADD, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m101 n157 k401", "02", "12", "01", EPI_TWO, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m96 n192 k48", "02", "21", "01", EPI_DROP, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m150 n97 k770", "20", "21", "01", EPI_BIAS, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m20 n33 k5003", "20", "21", "01", EPI_BIAS, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m20 n33 k5003", "02", "12", "01", EPI_BASE, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"b3 m5 n7 k11", "013", "032", "012", EPI_BIAS, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"b2 b3 m33 n50 k70", "0124", "0143", "0123", EPI_PLAIN, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"b2 b3 m33 n50 k70", "0214", "1043", "0213", EPI_PLAIN, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m4 m9 n5 n6 k7 k3", "014 5", "4523", "0123", EPI_BIAS, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m4 m9 n5 n6 k7 k3", "0415", "2435", "0213", EPI_TWO, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m4 m9 n5 n16 k7 k16", "4051", "4253", "2031", EPI_BASE, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m2 m30 n3 n64 k5", "041", "234", "0213", EPI_DROP, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m23 n37 k41", "02", "21", "01", EPI_PLAIN, SCALED, AS_IS, DT_F32, DT_NONE},
    {"m23 n37 k41", "20", "12", "01", EPI_PLAIN, AS_IS, SCALED, DT_F32, DT_NONE},
    {"m41 n100 k390", "02", "12", "01", EPI_BIAS, SCALED, SCALED, DT_F32, DT_NONE},
    {"m41 n100 k390", "20", "21", "01", EPI_BIAS, SCALED, SCALED, DT_F32, DT_NONE},
    {"m23 n37 k41", "02", "21", "01", EPI_PLAIN, AS_IS, AS_IS, DT_BF16, DT_NONE},
    {"m23 n37 k41", "20", "12", "01", EPI_PLAIN, AS_IS, AS_IS, DT_F64, DT_NONE},
    {"m33 n70 k250", "02", "21", "01", EPI_PLAIN, AS_IS, AS_IS, DT_F64, DT_NONE},
    {"m33 n70 k250", "02", "21", "01", EPI_PLAIN, PADDED, AS_IS, DT_F32, DT_NONE},
    {"m33 n70 k25", "20", "12", "01", EPI_BIAS, PADDED, AS_IS, DT_F32, DT_NONE},
    {"m30 n33 k7000", "20", "21", "01", EPI_PLAIN, SCALED, AS_IS, DT_F32, DT_NONE},
    {"b3 m20 n7 k1300", "013", "023", "012", EPI_BASE, AS_IS, SCALED, DT_F32, DT_NONE},
    {"m1100 n300 k5", "02", "21", "01", EPI_TWO, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m300 n1100 k5", "20", "12", "01", EPI_TWO, AS_IS, AS_IS, DT_F32, DT_NONE},
    /* no tile over an edge: stored straight to the result; chunks large enough to be fetched ahead
     */
    {"m49 n192 k700", "02", "21", "01", EPI_PLAIN, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m60 n240 k1001", "20", "12", "01", EPI_PLAIN, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m240 n48 k803", "02", "12", "10", EPI_BIAS, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m200 n96 k900", "20", "21", "01", EPI_PLAIN, SCALED, AS_IS, DT_F32, DT_NONE},
    {"b2 m64 n96 k1500", "013", "032", "102", EPI_PLAIN, AS_IS, AS_IS, DT_F32, DT_NONE},
    {"m65 n96 k1100", "02", "12", "01", EPI_PLAIN, AS_IS, AS_IS, DT_F64, DT_NONE},
    {"m23 n37 k41", "02", "21", "01", EPI_MIXED, SPECIAL, AS_IS, DT_F32, DT_NONE},
    {"m23 n37 k41", "20", "12", "01", EPI_PLAIN, AS_IS, SPECIAL, DT_F32, DT_NONE},
    {"m65 n96 k1101", "02", "12", "01", EPI_MIXED, AS_IS, AS_IS, DT_BF16, DT_BF16},
    {"m65 n96 k2050", "20", "21", "01", EPI_MIXED, AS_IS, AS_IS, DT_F16, DT_F16},
    {"m33 n70 k2501", "02", "21", "01", EPI_MIXED, PADDED, SCALED, DT_BF16, DT_F32},
};

/* ---- building ---- */

enum { MAX_NODES = 32 };

typedef struct Built {
    Kernel k;
    Node nodes[MAX_NODES];
    Access accesses[16];
    Store stores[4];
    Guard guard;
    bool is_key[16];     /* i32 argument: the random key */
    bool is_special[16]; /* holds infinities, NaNs, subnormals */
} Built;

static int32_t add_node(Built *x, Node n)
{
    ZM_CHECK(x->k.n_nodes < MAX_NODES);
    n.level = LV_ELEM;
    x->nodes[x->k.n_nodes] = n;
    return (int32_t)x->k.n_nodes++;
}

/* Row-major over the loops of `layout`; returns the elements. */
static int64_t layout_access(const Built *x, const char *layout, Access *out)
{
    int64_t stride = 1;
    *out = (Access){.dyn = -1};
    for (size_t i = strlen(layout); i-- > 0;) {
        if (layout[i] == ' ') continue;
        out->stride[layout[i] - '0'] = stride;
        stride *= x->k.loops[layout[i] - '0'].extent;
    }
    return stride;
}

static int32_t add_arg(Built *x, DType dt, int64_t elems, bool is_out)
{
    x->k.args[x->k.n_args] =
        (KernelArg){.dtype = dt, .elems = elems, .is_out = is_out, .alias_in = -1};
    return (int32_t)x->k.n_args++;
}

static int32_t add_load(Built *x, DType dt, const char *layout)
{
    Access a;
    int64_t elems = layout_access(x, layout, &a);
    a.arg = add_arg(x, dt, elems, false);
    x->accesses[x->k.n_accesses] = a;
    return add_node(x, (Node){.kind = KN_LOAD, .dtype = dt, .index = x->k.n_accesses++});
}

/* A load whose innermost dimension is 3 shorter in memory: 2 zeros before it, 1 behind. */
static int32_t add_padded_load(Built *x, DType dt, const char *layout)
{
    int inner = layout[strlen(layout) - 1] - '0';
    int64_t full = x->k.loops[inner].extent;
    x->k.loops[inner].extent = full - 3;
    int32_t node = add_load(x, dt, layout);
    x->k.loops[inner].extent = full;
    x->guard = (Guard){.base = -2, .lo = 0, .hi = full - 3};
    x->guard.stride[inner] = 1;
    Access *a = &x->accesses[x->k.n_accesses - 1];
    a->base = -2;
    a->n_guards = 1;
    a->guards = &x->guard;
    return node;
}

static int32_t add_op(Built *x, OpCode op, DType dt, int32_t a, int32_t b, int32_t c)
{
    Node n = {.kind = KN_OP, .op = op, .dtype = dt, .arg = {a, b, c}};
    n.n_args = c >= 0 ? 3 : b >= 0 ? 2 : 1;
    return add_node(x, n);
}

static int32_t add_const(Built *x, DType dt, double v)
{
    return add_node(x, (Node){.kind = KN_CONST, .dtype = dt, .imm = v});
}

static void add_store(Built *x, int32_t node, const char *layout, StoreMode mode)
{
    Access a;
    DType dt = x->nodes[node].dtype;
    int64_t elems = layout_access(x, layout, &a);
    a.arg = add_arg(x, dt, elems, true);
    x->stores[x->k.n_stores++] = (Store){.node = node, .level = LV_ELEM, .mode = mode, .to = a};
}

static void parse_loops(Kernel *k, const char *text)
{
    for (const char *at = text; *at;) {
        LoopKind kind = *at == 'b'   ? LOOP_BATCH
                        : *at == 'm' ? LOOP_M
                        : *at == 'n' ? LOOP_N
                                     : LOOP_K;
        char *end;
        int64_t extent = strtoll(at + 1, &end, 10);
        k->loops[k->n_loops++] = (Loop){kind, extent};
        at = end + (*end == ' ');
    }
}

/* The last loop of the innermost N of the result: what a bias runs over. */
static void bias_layout(const Kernel *k, char *out)
{
    size_t n = 0;
    for (uint32_t i = 0; i < k->n_loops; i++)
        if (k->loops[i].kind == LOOP_N) out[n++] = (char)('0' + i);
    out[n] = '\0';
}

/* x / (1 - p) where random >= p: keep-probability 3/4 */
static int32_t add_drop(Built *x, int32_t v, DType dt, const char *layout)
{
    int32_t key[4], arg = add_arg(x, DT_I32, 4, false);
    x->is_key[arg] = true;
    for (int i = 0; i < 4; i++) {
        x->accesses[x->k.n_accesses] = (Access){.arg = arg, .dyn = -1, .base = i};
        key[i] = add_node(x, (Node){.kind = KN_LOAD, .dtype = DT_I32, .index = x->k.n_accesses++});
    }
    Access index;
    layout_access(x, layout, &index);
    index.arg = -1;
    x->accesses[x->k.n_accesses] = index;
    int32_t element =
        add_node(x, (Node){.kind = KN_INDEX, .dtype = DT_I32, .index = x->k.n_accesses++});
    int32_t sample = add_const(x, DT_I32, 5);
    int32_t low = add_const(x, DT_I32, (int32_t)0x89abcdefu),
            high = add_const(x, DT_I32, 0x1234567);
    Node r = {.kind = KN_RANDOM,
              .dtype = DT_F32,
              .n_args = 8,
              .arg = {key[0], key[1], key[2], key[3], element, sample, low, high}};
    int32_t keep = add_op(x, OP_GE, DT_I1, add_node(x, r), add_const(x, DT_F32, 0.25), -1);
    return add_op(x, OP_SELECT, dt, keep, v, add_const(x, dt, 0));
}

static void add_epilogue(Built *x, const Case *c, DType acc_dt)
{
    char bias[16];
    DType sum_dt = c->dt == DT_F64 ? DT_F64 : DT_F32;
    int32_t acc = add_node(x, (Node){.kind = KN_ACC, .dtype = sum_dt});
    if (acc_dt != sum_dt) acc = add_op(x, OP_CAST, acc_dt, acc, -1, -1);
    int32_t v = acc;
    bias_layout(&x->k, bias);
    switch (c->epi) {
    case EPI_PLAIN: break;
    case EPI_BIAS:
        v = add_op(x, OP_TANH, acc_dt,
                   add_op(x, OP_ADD, acc_dt, acc, add_load(x, acc_dt, bias), -1), -1, -1);
        break;
    case EPI_BASE: v = add_op(x, OP_ADD, acc_dt, acc, add_load(x, acc_dt, c->c), -1); break;
    case EPI_TWO:
        v = add_op(x, OP_SELECT, acc_dt, add_op(x, OP_GT, DT_I1, acc, add_const(x, acc_dt, 0), -1),
                   acc, add_const(x, acc_dt, 0));
        add_store(x, acc, c->c, ST_SET);
        break;
    case EPI_DROP: v = add_drop(x, acc, acc_dt, c->c); break;
    case EPI_MIXED:
        add_store(x, acc, c->c, ST_SET);
        if (acc_dt != DT_F32) v = add_op(x, OP_CAST, DT_F32, acc, -1, -1);
        v = add_op(x, OP_ADD, DT_F32, v, add_load(x, DT_F32, bias), -1);
        break;
    case EPI_ADD: break;
    }
    add_store(x, v, c->c, c->epi == EPI_ADD ? ST_ADD : ST_SET);
    if (c->epi == EPI_BASE) x->k.args[x->k.n_args - 1].alias_in = (int32_t)x->k.n_args - 2;
}

/* The operand, or a prologue: 0.5 * operand * (1-d factor along k). */
static int32_t add_operand(Built *x, const Case *c, const char *layout, Prologue prologue)
{
    if (prologue == PADDED) return add_padded_load(x, c->dt, layout);
    int32_t v = add_load(x, c->dt, layout);
    if (prologue == SPECIAL) x->is_special[x->accesses[x->nodes[v].index].arg] = true;
    if (prologue != SCALED) return v;
    char k[16];
    size_t n = 0;
    for (uint32_t i = 0; i < x->k.n_loops; i++)
        if (x->k.loops[i].kind == LOOP_K) k[n++] = (char)('0' + i);
    k[n] = '\0';
    v = add_op(x, OP_MUL, c->dt, v, add_const(x, c->dt, 0.5), -1);
    return add_op(x, OP_MUL, c->dt, v, add_load(x, c->dt, k), -1);
}

static uint32_t node_mask(const Built *x, const Node *n)
{
    uint32_t mask = 0;
    if (n->kind == KN_LOAD || n->kind == KN_INDEX)
        for (uint32_t d = 0; d < x->k.n_loops; d++)
            mask |= (uint32_t)(x->accesses[n->index].stride[d] != 0) << d;
    for (uint32_t i = 0; i < n->n_args; i++) mask |= x->nodes[n->arg[i]].loop_mask;
    if (n->kind == KN_ACC)
        for (uint32_t d = 0; d < x->k.n_loops; d++)
            mask |= (uint32_t)(x->k.loops[d].kind != LOOP_K) << d;
    return mask;
}

static Built *build(Arena *a, const Case *c)
{
    Built *x = ARENA_NEW(a, Built);
    x->k.kind = KK_CONTRACT;
    x->k.nodes = x->nodes;
    x->k.accesses = x->accesses;
    x->k.stores = x->stores;
    x->k.label = "test";
    x->k.n_stages = 1;
    parse_loops(&x->k, c->loops);
    x->k.node_a = add_operand(x, c, c->a, c->a_prologue);
    x->k.node_b = add_operand(x, c, c->b, c->b_prologue);
    DType acc = c->dt == DT_F64 ? DT_F64 : DT_F32;
    add_epilogue(x, c, c->result == DT_NONE ? acc : c->result);
    for (uint32_t i = 0; i < x->k.n_nodes; i++) x->nodes[i].loop_mask = node_mask(x, &x->nodes[i]);
    return x;
}

/* ---- reference ---- */

typedef struct Ref {
    const Built *x;
    char *const *bufs;
    int64_t index[KERNEL_MAX_LOOPS];
    double acc;
} Ref;

static int64_t access_elem(const Ref *r, const Access *a)
{
    int64_t e = a->base;
    for (uint32_t d = 0; d < r->x->k.n_loops; d++) e += a->stride[d] * r->index[d];
    return e;
}

static double ref_node(const Ref *r, int32_t i);

static double ref_random(const Ref *r, const Node *n)
{
    uint32_t in[8];
    for (int i = 0; i < 8; i++) in[i] = (uint32_t)(int32_t)ref_node(r, n->arg[i]);
    Philox p = philox(in[4], in[3] + in[5], in[2], in[6], in[0], in[1] ^ in[7]);
    return (p.x[0] >> 8) / 16777216.0;
}

static double ref_op(const Ref *r, const Node *n)
{
    double a = ref_node(r, n->arg[0]), b = n->n_args > 1 ? ref_node(r, n->arg[1]) : 0;
    double c = n->n_args > 2 ? ref_node(r, n->arg[2]) : 0;
    if (n->op == OP_CAST) return a;
    if (n->op == OP_ADD) return a + b;
    if (n->op == OP_MUL) return a * b;
    if (n->op == OP_GT) return a > b;
    if (n->op == OP_GE) return a >= b;
    if (n->op == OP_SELECT) return a != 0 ? b : c;
    if (n->op == OP_TANH) return tanh(a);
    ZM_UNREACHABLE("op");
}

static double ref_node(const Ref *r, int32_t i)
{
    const Node *n = &r->x->nodes[i];
    const Access *a = &r->x->accesses[n->index];
    if (n->kind == KN_LOAD && a->n_guards) {
        int64_t at = a->guards->base;
        for (uint32_t d = 0; d < r->x->k.n_loops; d++) at += a->guards->stride[d] * r->index[d];
        if (at < a->guards->lo || at >= a->guards->hi) return 0;
    }
    if (n->kind == KN_LOAD) return mem_get(r->bufs[a->arg], n->dtype, access_elem(r, a));
    if (n->kind == KN_INDEX) return (double)access_elem(r, a);
    if (n->kind == KN_CONST) return n->imm;
    if (n->kind == KN_ACC) return r->acc;
    if (n->kind == KN_RANDOM) return ref_random(r, n);
    return dtype_round(n->dtype, ref_op(r, n));
}

/* Next index over the loops that are (k) or are not (outputs) K; false at the end. */
static bool index_next(Ref *r, bool over_k)
{
    const Kernel *k = &r->x->k;
    for (uint32_t d = k->n_loops; d-- > 0;) {
        if ((k->loops[d].kind == LOOP_K) != over_k) continue;
        if (++r->index[d] < k->loops[d].extent) return true;
        r->index[d] = 0;
    }
    return false;
}

/* ---- running ---- */

typedef struct Bufs {
    Guarded g[18];
    char *at[18];
    uint32_t n;
} Bufs;

static double special(int64_t e, DType dt, double otherwise)
{
    if (e % 97 == 5) return e % 2 ? INFINITY : -INFINITY;
    if (e % 131 == 7) return NAN;
    return e % 7 == 3 ? (dt == DT_F16 ? 0x1p-20 : 0x1p-130) : otherwise;
}

static Bufs bufs_new(const Built *x, int64_t workspace_bytes, bool at_start)
{
    Bufs b = {.n = x->k.n_args + 1};
    uint64_t state = 11;
    for (uint32_t i = 0; i < x->k.n_args; i++) {
        const KernelArg *arg = &x->k.args[i];
        size_t size = (size_t)dtype_bytes(arg->dtype);
        b.g[i] = guarded_new((size_t)arg->elems * size, size, at_start);
        b.at[i] = b.g[i].at;
        for (int64_t e = 0; e < arg->elems; e++)
            mem_set(b.at[i], arg->dtype, e,
                    x->is_key[i] ? (double)(e * 77 + 3) : test_uniform(&state));
        for (int64_t e = 0; x->is_special[i] && e < arg->elems; e++)
            mem_set(b.at[i], arg->dtype, e,
                    special(e, arg->dtype, mem_get(b.at[i], arg->dtype, e)));
    }
    b.g[x->k.n_args] = guarded_new((size_t)workspace_bytes, 64, at_start);
    b.at[x->k.n_args] = b.g[x->k.n_args].at;
    memset(b.at[x->k.n_args], 0xff, (size_t)workspace_bytes);
    return b;
}

static void bufs_free(Bufs *b)
{
    for (uint32_t i = 0; i < b->n; i++) guarded_free(&b->g[i]);
}

static int check(const char *what, const Case *c, const Built *x, const Bufs *in, const Bufs *got)
{
    Ref r = {.x = x, .bufs = in->at};
    double u = c->dt == DT_F64 ? 0x1p-53 : 0x1p-24, n_k = 1, worst = 0;
    double u_out = c->result == DT_BF16 ? 0x1p-8 : c->result == DT_F16 ? 0x1p-11 : u;
    for (uint32_t d = 0; d < x->k.n_loops; d++)
        if (x->k.loops[d].kind == LOOP_K) n_k *= (double)x->k.loops[d].extent;
    do {
        double mag = 0;
        r.acc = 0;
        do {
            double p = ref_node(&r, x->k.node_a) * ref_node(&r, x->k.node_b);
            r.acc += p;
            mag += fabs(p);
        } while (index_next(&r, true));
        for (uint32_t s = 0; s < x->k.n_stores; s++) {
            const Store *st = &x->stores[s];
            int64_t e = access_elem(&r, &st->to);
            DType dt = x->nodes[st->node].dtype;
            double want = ref_node(&r, st->node);
            if (st->mode == ST_ADD) want += mem_get(in->at[st->to.arg], dt, e);
            double have = mem_get(got->at[st->to.arg], dt, e);
            if (have == want || (isnan(have) && isnan(want))) continue;
            /* + 4: the prologues' roundings of each product */
            double bound = (n_k + 4) * u / (1 - n_k * u) * mag + 8 * u_out * (fabs(want) + 1);
            if (c->dt == DT_BF16) bound += 3 * n_k * 0x1p-126;
            double err = fabs(have - want);
            if (isfinite(want) && err <= bound) continue;
            if (!(err <= worst)) worst = isnan(err) ? INFINITY : err;
        }
    } while (index_next(&r, false));
    if (worst == 0) return 0;
    fprintf(stderr, "%s: %s loops %s a %s b %s c %s epilogue %d: error %g beyond the bound\n", what,
            dtype_name(c->dt), c->loops, c->a, c->b, c->c, (int)c->epi, worst);
    return 1;
}

/* Runs once; base in place where the form allows it. */
static void run_case(const Loaded *l, const Built *x, const CpuKernelCode *code, Bufs *b,
                     bool as_two)
{
    for (uint32_t i = 0; i < x->k.n_args; i++) {
        if (x->k.args[i].alias_in >= 0) b->at[i] = b->at[x->k.args[i].alias_in];
    }
    kernel_run(l, code, b->at, as_two);
}

static int test_case(const Loaded *l, const char *target, const Case *c, const Built *x,
                     const CpuKernelCode *code)
{
    Bufs in = bufs_new(x, 0, false);
    Bufs one = bufs_new(x, code->needs.workspace_bytes, false);
    Bufs two = bufs_new(x, code->needs.workspace_bytes, true);
    run_case(l, x, code, &one, false);
    run_case(l, x, code, &two, true);
    int failed = check(target, c, x, &in, &one);
    for (uint32_t i = 0; i < x->k.n_args; i++) {
        size_t n = (size_t)(x->k.args[i].elems * dtype_bytes(x->k.args[i].dtype));
        if (memcmp(one.at[i], two.at[i], n) == 0) continue;
        fprintf(stderr, "%s: loops %s: argument %u differs between one thread and two\n", target,
                c->loops, i);
        failed++;
    }
    bufs_free(&in);
    bufs_free(&one);
    bufs_free(&two);
    return failed;
}

/* The ways of contract_plan.c that the cases must take. */
typedef struct Ways {
    bool pairs, row_shared, col_shared, split, blocks, packed_in_task, direct_copy,
        direct_transposed, prologue_copy, prologue_transposed, swapped;
} Ways;

static void ways_add(Ways *w, const CpuTarget *t, const Kernel *k)
{
    Arena a = {0};
    const ContractPlan *p = contract_plan(&a, t, k);
    const MmOperand *o[2] = {&p->row, &p->col};
    w->pairs |= p->tile.is_pairs || !t->has_avx512bf16;
    w->row_shared |= p->is_shared && p->row_is_resident;
    w->col_shared |= p->is_shared && !p->row_is_resident;
    w->split |= p->n_splits > 1;
    w->blocks |= p->n_blocks > 1;
    w->packed_in_task |= !p->is_shared && p->n_splits == 1;
    w->swapped |= p->row.node == k->node_b;
    for (int i = 0; i < 2; i++) {
        w->direct_copy |= o[i]->direct && !o[i]->is_transposed;
        w->direct_transposed |= o[i]->direct && o[i]->is_transposed;
        w->prologue_copy |= !o[i]->direct && !o[i]->is_transposed;
        w->prologue_transposed |= !o[i]->direct && o[i]->is_transposed;
    }
    arena_free(&a);
}

static int ways_missing(const Ways *w)
{
    const bool all[] = {w->pairs,
                        w->row_shared,
                        w->col_shared,
                        w->split,
                        w->blocks,
                        w->direct_copy,
                        w->direct_transposed,
                        w->prologue_copy,
                        w->prologue_transposed,
                        w->swapped,
                        w->packed_in_task};
    int missing = 0;
    for (size_t i = 0; i < sizeof all; i++) {
        if (!all[i]) fprintf(stderr, "no case takes way %zu\n", i);
        missing += !all[i];
    }
    return missing;
}

/* Case i; then those of f32 again in 16 bits, with results of either size. */
enum { N_WRITTEN = sizeof cases / sizeof *cases, N = 2 * N_WRITTEN };
static Case case_of(int i)
{
    Case c = cases[i % N_WRITTEN];
    if (i < N_WRITTEN || c.dt != DT_F32) return c;
    c.dt = i % 4 == 1 ? DT_F16 : DT_BF16;
    c.result = i / 2 % 2 ? c.dt : DT_F32;
    return c;
}

static int test_target(const char *name)
{
    Arena a = {0};
    SourceSet sources = {.arena = &a};
    Diag diag = {.arena = &a, .sources = &sources};
    CpuTarget t;
    Loaded l;
    loaded_open(&l, &a, &diag, name, &t);
    static CpuKernelCode code[N];
    static Case all[N];
    Built *built[N];
    int failed = 0;
    Ways ways = {0};
    for (int i = 0; i < N; i++) {
        all[i] = case_of(i);
        built[i] = build(&a, &all[i]);
        char *fn = arena_printf(&a, "case%d", i);
        ZM_CHECK(cpu_emit_contract(l.m, &built[i]->k, fn, &code[i]) == ZM_OK);
        KernelNeeds needs = cpu_contract_needs(&t, &built[i]->k);
        ways_add(&ways, &t, &built[i]->k);
        failed += needs.workspace_bytes != code[i].needs.workspace_bytes ||
                  needs.scratch_bytes != code[i].needs.scratch_bytes;
    }
    if (loaded_link(&l, &diag) != ZM_OK) {
        diag_print(&diag, stderr);
        return 1;
    }
    for (int i = 0; i < N && l.handle; i++)
        failed += test_case(&l, name, &all[i], built[i], &code[i]);
    failed += ways_missing(&ways);
    printf("%s: %d cases, %d failed\n", name, N, failed);
    loaded_free(&l);
    arena_free(&a);
    return failed;
}

int main(void)
{
    cpu_llvm_init();
    int failed = test_target("x86-64-v2") + test_target("x86-64-v3") + test_target("x86-64-v4") +
                 test_target("cooperlake");
    return failed != 0;
}
