/* cpu_nest.c -- nest and scatter kernels on every target level that runs here, against the form's
 * meaning in f64.
 *
 * Each buffer ends at a page that may not be touched, tasks run in a scrambled order, and a second
 * order must give the same bits. */
#include <sys/mman.h>

#include "tests/unit/cpu_so.h"
#include "tests/unit/kernel_bound.h"

/* ---- kernels ---- */

static Kernel *axpy(Arena *a, int64_t n)
{
    KernelMaker *b = km_new(a, KK_NEST, "axpy");
    km_loop(b, LOOP_PAR, n);
    int x = km_arg(b, DT_F32, n, false, -1), y = km_arg(b, DT_F32, n, false, -1);
    int s = km_arg(b, DT_F32, 1, false, -1), o = km_arg(b, DT_F32, n, true, -1);
    int32_t v = km_op(b, OP_MUL, DT_F32, km_load(b, x, S(1)), km_load(b, s, S(0)), -1);
    km_store(b, km_op(b, OP_ADD, DT_F32, v, km_load(b, y, S(1)), -1), LV_ELEM, o, S(1));
    return &b->k;
}

static Kernel *bias_functions(Arena *a, int64_t rows, int64_t cols)
{
    KernelMaker *b = km_new(a, KK_NEST, "bias_functions");
    km_loop(b, LOOP_PAR, rows);
    km_loop(b, LOOP_PAR, cols);
    int x = km_arg(b, DT_F32, rows * cols, false, -1), w = km_arg(b, DT_F32, cols, false, -1);
    int o = km_arg(b, DT_F32, rows * cols, true, -1), o2 = km_arg(b, DT_F32, rows * cols, true, 0);
    int32_t v = km_op(b, OP_ADD, DT_F32, km_load(b, x, S(cols, 1)), km_load(b, w, S(0, 1)), -1);
    int32_t e = km_op(b, OP_ERF, DT_F32, v, -1, -1), t = km_op(b, OP_TANH, DT_F32, v, -1, -1);
    int32_t p = km_op(b, OP_EXP, DT_F32, v, -1, -1);
    int32_t l =
        km_op(b, OP_LOG, DT_F32, km_op(b, OP_ADD, DT_F32, p, km_const(b, DT_F32, 1), -1), -1, -1);
    int32_t d = km_op(b, OP_DIV, DT_F32, km_op(b, OP_SQRT, DT_F32, p, -1, -1), l, -1);
    int32_t is_low = km_op(b, OP_LT, DT_I1, v, km_const(b, DT_F32, 0.25), -1);
    int32_t pick = km_op(b, OP_SELECT, DT_F32, is_low, km_op(b, OP_NEG, DT_F32, e, -1, -1), t);
    km_store(b, pick, LV_ELEM, o, S(cols, 1));
    km_store(b, km_op(b, OP_MAX, DT_F32, d, km_op(b, OP_SIN, DT_F32, v, -1, -1), -1), LV_ELEM, o2,
             S(cols, 1));
    return &b->k;
}

static Kernel *transposed(Arena *a, int64_t x0, int64_t x1, int64_t x2)
{
    KernelMaker *b = km_new(a, KK_NEST, "transposed");
    km_loop(b, LOOP_PAR, x0);
    km_loop(b, LOOP_PAR, x1);
    km_loop(b, LOOP_PAR, x2);
    int x = km_arg(b, DT_F32, x0 * x1 * x2, false, -1),
        o = km_arg(b, DT_F32, x0 * x1 * x2, true, -1);
    int32_t v = km_load(b, x, S(1, x0, x0 * x1));
    km_store(b, km_op(b, OP_ABS, DT_F32, v, -1, -1), LV_ELEM, o, S(x1 * x2, x2, 1));
    return &b->k;
}

static Kernel *softmax(Arena *a, int64_t rows, int64_t cols, bool in_place)
{
    KernelMaker *b = km_new(a, KK_NEST, "softmax");
    km_loop(b, LOOP_PAR, rows);
    km_loop(b, LOOP_RED, cols);
    int x = km_arg(b, DT_F32, rows * cols, false, -1),
        o = km_arg(b, DT_F32, rows * cols, true, in_place ? 0 : -1);
    int lse = km_arg(b, DT_F32, rows, true, -1);
    int32_t v = km_load(b, x, S(cols, 1)), m = km_reduce(b, OP_REDUCE_MAX, v, 0);
    int32_t e = km_op(b, OP_EXP, DT_F32, km_op(b, OP_SUB, DT_F32, v, m, -1), -1, -1);
    int32_t s = km_reduce(b, OP_REDUCE_SUM, e, 1);
    b->k.n_stages = 3;
    km_store(b, km_op(b, OP_DIV, DT_F32, e, s, -1), LV_ELEM, o, S(cols, 1));
    int32_t l = km_op(b, OP_ADD, DT_F32, m, km_op(b, OP_LOG, DT_F32, s, -1, -1), -1);
    km_store(b, l, LV_ROW, lse, S(1, 0));
    return &b->k;
}

/* sum and maximum over the loops marked in red, of a row-major [x0, x1, x2]; the maximum of i1 is
 * "any" */
static Kernel *reduce3(Arena *a, int64_t x0, int64_t x1, int64_t x2, unsigned red, DType dt)
{
    KernelMaker *b = km_new(a, KK_NEST, "reduce3");
    const int64_t x[3] = {x0, x1, x2}, in_stride[3] = {x1 * x2, x2, 1};
    int64_t stride[KERNEL_MAX_LOOPS] = {0}, n_out = 1;
    for (int d = 3; d-- > 0;)
        if (!(red >> d & 1)) stride[d] = n_out, n_out *= x[d];
    for (int d = 0; d < 3; d++) km_loop(b, red >> d & 1 ? LOOP_RED : LOOP_PAR, x[d]);
    int in = km_arg(b, dt, x0 * x1 * x2, false, -1), sum = km_arg(b, dt, n_out, true, -1);
    int max = km_arg(b, dt, n_out, true, -1), any = km_arg(b, DT_I1, n_out, true, -1);
    int64_t is[KERNEL_MAX_LOOPS] = {in_stride[0], in_stride[1], in_stride[2]};
    int32_t v = km_load(b, in, is);
    int32_t is_big = km_op(b, OP_GE, DT_I1, v, km_const(b, dt, 1.9), -1);
    km_store(b, km_reduce(b, OP_REDUCE_SUM, v, 0), LV_ROW, sum, stride);
    km_store(b, km_reduce(b, OP_REDUCE_MAX, v, 0), LV_ROW, max, stride);
    km_store(b, km_reduce(b, OP_REDUCE_MAX, is_big, 0), LV_ROW, any, stride);
    return &b->k;
}

/* mean and variance in two sweeps, normalised values in the third; statistics also as row results
 */
static Kernel *layernorm(Arena *a, int64_t rows, int64_t cols)
{
    KernelMaker *b = km_new(a, KK_NEST, "layernorm");
    km_loop(b, LOOP_PAR, rows);
    km_loop(b, LOOP_RED, cols);
    int x = km_arg(b, DT_F32, rows * cols, false, -1), w = km_arg(b, DT_F32, cols, false, -1);
    int o = km_arg(b, DT_F32, rows * cols, true, -1), mean = km_arg(b, DT_F32, rows, true, -1);
    int32_t v = km_load(b, x, S(cols, 1)), n = km_const(b, DT_F32, (double)cols);
    int32_t mu = km_op(b, OP_DIV, DT_F32, km_reduce(b, OP_REDUCE_SUM, v, 0), n, -1);
    int32_t c = km_op(b, OP_SUB, DT_F32, v, mu, -1);
    int32_t var = km_op(b, OP_DIV, DT_F32,
                        km_reduce(b, OP_REDUCE_SUM, km_op(b, OP_MUL, DT_F32, c, c, -1), 1), n, -1);
    int32_t sd = km_op(b, OP_SQRT, DT_F32,
                       km_op(b, OP_ADD, DT_F32, var, km_const(b, DT_F32, 1e-5), -1), -1, -1);
    b->k.n_stages = 3;
    km_store(
        b,
        km_op(b, OP_MUL, DT_F32, km_op(b, OP_DIV, DT_F32, c, sd, -1), km_load(b, w, S(0, 1)), -1),
        LV_ELEM, o, S(cols, 1));
    km_store(b, mu, LV_ROW, mean, S(1, 0));
    return &b->k;
}

static Kernel *embed(Arena *a, int64_t rows, int64_t cols, int64_t vocab)
{
    KernelMaker *b = km_new(a, KK_NEST, "embed");
    km_loop(b, LOOP_PAR, rows);
    km_loop(b, LOOP_PAR, cols);
    int table = km_arg(b, DT_F32, vocab * cols, false, -1),
        ids = km_arg(b, DT_I32, rows, false, -1);
    int o = km_arg(b, DT_F32, rows * cols, true, -1);
    int32_t id = km_load(b, ids, S(1, 0)), v = km_load(b, table, S(0, 1));
    b->accesses[b->nodes[v].index].dyn = id;
    b->accesses[b->nodes[v].index].dyn_stride = cols;
    km_store(b, km_op(b, OP_NEG, DT_F32, v, -1, -1), LV_ELEM, o, S(cols, 1));
    return &b->k;
}

/* x[row, id[row]]: a dynamic index along the lanes */
static Kernel *pick_target(Arena *a, int64_t rows, int64_t cols)
{
    KernelMaker *b = km_new(a, KK_NEST, "pick_target");
    km_loop(b, LOOP_PAR, rows);
    int x = km_arg(b, DT_F32, rows * cols, false, -1), ids = km_arg(b, DT_I32, rows, false, -1);
    int o = km_arg(b, DT_F32, rows, true, -1);
    int32_t id = km_load(b, ids, S(1)), v = km_load(b, x, S(cols));
    b->accesses[b->nodes[v].index].dyn = id;
    b->accesses[b->nodes[v].index].dyn_stride = 1;
    km_store(b, km_op(b, OP_NEG, DT_F32, v, -1, -1), LV_ELEM, o, S(1));
    return &b->k;
}

static Kernel *scatter(Arena *a, int64_t rows, int64_t cols, int64_t vocab)
{
    KernelMaker *b = km_new(a, KK_SCATTER, "scatter");
    km_loop(b, LOOP_RED, rows);
    km_loop(b, LOOP_PAR, cols);
    int base = km_arg(b, DT_F32, vocab * cols, false, -1), ids = km_arg(b, DT_I32, rows, false, -1);
    int x = km_arg(b, DT_F32, rows * cols, false, -1),
        o = km_arg(b, DT_F32, vocab * cols, true, base);
    int32_t id = km_load(b, ids, S(1, 0));
    km_store(b, km_load(b, x, S(cols, 1)), LV_ELEM, o, S(0, 1));
    b->stores[0].mode = ST_ADD;
    b->stores[0].to.dyn = id;
    b->stores[0].to.dyn_stride = cols;
    return &b->k;
}

/* [rows + 3, cols + 5] from [rows, cols] by zeros, plus the position */
static Kernel *padded(Arena *a, int64_t rows, int64_t cols, DType dt)
{
    KernelMaker *b = km_new(a, KK_NEST, "padded");
    km_loop(b, LOOP_PAR, rows + 3);
    km_loop(b, LOOP_PAR, cols + 5);
    int x = km_arg(b, dt, rows * cols, false, -1),
        o = km_arg(b, DT_F32, (rows + 3) * (cols + 5), true, -1);
    int32_t v = km_load(b, x, S(cols, 1));
    Access *at = &b->accesses[b->nodes[v].index];
    at->base = -cols * 2 - 3;
    Guard *g = ARENA_ARRAY(a, Guard, 2);
    g[0] = (Guard){.stride = {1, 0}, .base = -2, .lo = 0, .hi = rows};
    g[1] = (Guard){.stride = {0, 1}, .base = 0, .lo = 3, .hi = cols + 3};
    at->guards = g;
    at->n_guards = 2;
    int32_t pos = km_op(b, OP_CAST, DT_F32, km_index(b, S(cols + 5, 1)), -1, -1);
    int32_t w = dt == DT_F32 ? v : km_op(b, OP_CAST, DT_F32, v, -1, -1);
    km_store(b, km_op(b, OP_ADD, DT_F32, w, pos, -1), LV_ELEM, o, S(cols + 5, 1));
    return &b->k;
}

static Kernel *dropout(Arena *a, int64_t samples, int64_t elems)
{
    KernelMaker *b = km_new(a, KK_NEST, "dropout");
    km_loop(b, LOOP_PAR, samples);
    km_loop(b, LOOP_PAR, elems);
    int key = km_arg(b, DT_I32, 4, false, -1), o = km_arg(b, DT_F32, samples * elems, true, -1);
    int stream = km_arg(b, DT_I32, 2, false, -1);
    Node n = {.kind = KN_RANDOM, .dtype = DT_F32, .n_args = 8};
    for (int i = 0; i < 4; i++) {
        n.arg[i] = km_load(b, key, S(0, 0));
        b->accesses[b->nodes[n.arg[i]].index].base = i;
    }
    n.arg[4] = km_index(b, S(0, 1));
    n.arg[5] = km_index(b, S(1, 0));
    for (int i = 0; i < 2; i++) {
        n.arg[6 + i] = km_load(b, stream, S(0, 0));
        b->accesses[b->nodes[n.arg[6 + i]].index].base = i;
    }
    km_store(b, km_node(b, n), LV_ELEM, o, S(elems, 1));
    return &b->k;
}

/* p, m, v in place from a gradient, a scalar learning rate and a verdict */
static Kernel *update(Arena *a, int64_t n)
{
    KernelMaker *b = km_new(a, KK_NEST, "update");
    km_loop(b, LOOP_PAR, n);
    int p = km_arg(b, DT_F32, n, false, -1), g = km_arg(b, DT_F32, n, false, -1),
        m = km_arg(b, DT_F32, n, false, -1);
    int lr = km_arg(b, DT_F64, 1, false, -1), ok = km_arg(b, DT_I1, 1, false, -1);
    int po = km_arg(b, DT_F32, n, true, p), mo = km_arg(b, DT_F32, n, true, m);
    int32_t vm = km_load(b, m, S(1)), vp = km_load(b, p, S(1)), vg = km_load(b, g, S(1)),
            vok = km_load(b, ok, S(0));
    int32_t m2 = km_op(b, OP_ADD, DT_F32,
                       km_op(b, OP_MUL, DT_F32, vm, km_const(b, DT_F32, 0.9), -1), vg, -1);
    int32_t rate =
        km_op(b, OP_CAST, DT_F32, km_op(b, OP_COS, DT_F64, km_load(b, lr, S(0)), -1, -1), -1, -1);
    int32_t p2 = km_op(b, OP_SUB, DT_F32, vp, km_op(b, OP_MUL, DT_F32, rate, m2, -1), -1);
    km_store(b, km_op(b, OP_SELECT, DT_F32, vok, p2, vp), LV_ELEM, po, S(1));
    km_store(b, km_op(b, OP_SELECT, DT_F32, vok, m2, vm), LV_ELEM, mo, S(1));
    return &b->k;
}

/* no loop: a schedule in f64, a counter in i32 */
static Kernel *scalars(Arena *a)
{
    KernelMaker *b = km_new(a, KK_NEST, "scalars");
    int u = km_arg(b, DT_I32, 1, false, -1), o = km_arg(b, DT_F64, 1, true, -1),
        n = km_arg(b, DT_I32, 1, true, u);
    int32_t i = km_load(b, u, S(0)), x = km_op(b, OP_CAST, DT_F64, i, -1, -1);
    int32_t y = km_op(b, OP_EXP, DT_F64,
                      km_op(b, OP_MUL, DT_F64, x, km_const(b, DT_F64, -0.01), -1), -1, -1);
    km_store(b, km_op(b, OP_MIN, DT_F64, y, km_const(b, DT_F64, 0.7), -1), LV_ELEM, o, S(0));
    km_store(b, km_op(b, OP_ADD, DT_I32, i, km_const(b, DT_I32, 1), -1), LV_ELEM, n, S(0));
    return &b->k;
}

/* 16-bit in and out, f64 sum of squares beside it */
static Kernel *half_precision(Arena *a, int64_t rows, int64_t cols, DType dt)
{
    KernelMaker *b = km_new(a, KK_NEST, "half_precision");
    km_loop(b, LOOP_PAR, rows);
    km_loop(b, LOOP_RED, cols);
    int x = km_arg(b, dt, rows * cols, false, -1), o = km_arg(b, dt, rows * cols, true, -1);
    int s = km_arg(b, DT_F64, rows, true, -1), t = km_arg(b, dt, rows, true, -1);
    int32_t v = km_load(b, x, S(cols, 1));
    int32_t wide = km_op(b, OP_CAST, DT_F64, v, -1, -1);
    km_store(b, km_op(b, OP_MUL, dt, v, v, -1), LV_ELEM, o, S(cols, 1));
    km_store(b, km_reduce(b, OP_REDUCE_SUM, km_op(b, OP_MUL, DT_F64, wide, wide, -1), 0), LV_ROW, s,
             S(1, 0));
    km_store(b, km_reduce(b, OP_REDUCE_SUM, v, 0), LV_ROW, t, S(1, 0));
    return &b->k;
}

/* one verdict per array, as over the buckets of a deep model */
static Kernel *many_reductions(Arena *a, int n, int64_t elems)
{
    KernelMaker *b = km_new(a, KK_NEST, "many_reductions");
    km_loop(b, LOOP_RED, elems);
    for (int i = 0; i < n; i++) km_arg(b, DT_F32, elems, false, -1);
    for (int i = 0; i < n; i++) {
        int32_t v = km_reduce(b, i % 2 ? OP_REDUCE_SUM : OP_REDUCE_MAX, km_load(b, i, S(1)), 0);
        km_store(b, v, LV_ROW, km_arg(b, DT_F32, 1, true, -1), S(0));
    }
    return &b->k;
}

/* ---- running ---- */

typedef struct Buffer {
    char *map, *at;
    size_t map_bytes, bytes;
} Buffer;

/* The last byte touches a page without access. */
static Buffer buffer_new(size_t bytes)
{
    size_t page = 4096, body = (bytes + page - 1) / page * page;
    Buffer b = {.map_bytes = body + page, .bytes = bytes};
    b.map = mmap(NULL, b.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b.map == MAP_FAILED || mprotect(b.map + body, page, PROT_NONE)) abort();
    b.at = b.map + body - bytes;
    return b;
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static void fill(DType dt, char *at, int64_t n, uint32_t *seed, int64_t bound)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t r = next_random(seed);
        double v = (double)r / (1 << 24) * 4 - 2;
        uint32_t bits;
        float f = (float)v;
        if (dt == DT_I1)
            at[i] = (char)(r & 1);
        else if (dt == DT_I32)
            ((int32_t *)(void *)at)[i] = (int32_t)(r % (uint64_t)bound);
        else if (dt == DT_F32)
            ((float *)(void *)at)[i] = f;
        else if (dt == DT_F64)
            ((double *)(void *)at)[i] = v;
        else if (dt == DT_F16)
            ((_Float16 *)(void *)at)[i] = (_Float16)v;
        else
            memcpy(&bits, &f, 4), ((uint16_t *)(void *)at)[i] = (uint16_t)(bits >> 16);
    }
}

typedef struct Run {
    const Kernel *k;
    Buffer buf[KERNEL_MAX_ARGS + 1];
    char *ptr[KERNEL_MAX_ARGS + 1];
} Run;

/* alias: outputs lie on their alias_in arguments where they have one */
static void run_init(Run *r, const Kernel *k, int64_t bound, int64_t workspace, bool alias)
{
    uint32_t seed = 7;
    *r = (Run){.k = k};
    for (uint32_t i = 0; i < k->n_args; i++) {
        const KernelArg *g = &k->args[i];
        if (alias && g->is_out && g->alias_in >= 0) {
            r->ptr[i] = r->ptr[g->alias_in];
            continue;
        }
        r->buf[i] = buffer_new((size_t)(g->elems * dtype_bytes(g->dtype)));
        r->ptr[i] = r->buf[i].at;
        if (g->is_out)
            memset(r->ptr[i], 0xee, r->buf[i].bytes);
        else
            fill(g->dtype, r->ptr[i], g->elems, &seed, bound);
    }
    size_t bytes = ((size_t)workspace + 63) / 64 * 64;
    r->buf[k->n_args] = buffer_new(bytes ? bytes : 64);
    r->ptr[k->n_args] = r->buf[k->n_args].at;
}

static void run_free(Run *r)
{
    for (uint32_t i = 0; i <= r->k->n_args; i++)
        if (r->buf[i].map) munmap(r->buf[i].map, r->buf[i].map_bytes);
}

static void run_tasks(const CpuSo *so, const CpuKernelCode *code, Run *r, bool backwards)
{
    for (uint32_t p = 0; p < code->n_phases; p++) {
        ZmKernelFn fn = so_fn(so, code->fn[p]);
        int64_t n = code->n_tasks[p];
        for (int64_t i = 0; i < n; i++) fn(r->ptr, backwards ? n - 1 - i : i, NULL);
    }
}

typedef struct Check {
    const Run *got;
    Arena arena;
    RefValue *want[KERNEL_MAX_ARGS]; /* per element of an output; err < 0: not stored */
    uint64_t n_checked, n_bad;
} Check;

static void check_store(void *user, uint32_t store, int64_t elem, RefValue v)
{
    Check *c = user;
    const Store *s = &c->got->k->stores[store];
    RefValue *w = &c->want[s->to.arg][elem];
    if (s->mode == ST_SET) {
        *w = v;
        return;
    }
    double sum = w->v + v.v;
    *w = (RefValue){sum, w->err + v.err + 0x1p-24 * (fabs(sum) + w->err + v.err)};
}

static void check_elem(Check *c, uint32_t arg, int64_t i, RefValue w)
{
    const Kernel *k = c->got->k;
    double v = ref_read(k->args[arg].dtype, c->got->ptr[arg], i);
    bool same = (isnan(v) && isnan(w.v)) || v == w.v || fabs(v - w.v) <= w.err;
    c->n_checked++;
    if (same) return;
    if (c->n_bad++ < 3)
        printf("    argument %u element %lld: %.9g, expected %.9g +- %.2g\n", arg, (long long)i, v,
               w.v, w.err);
}

/* `before`: the same inputs, not overwritten. */
static bool check_results(const Run *before, const Run *got)
{
    const Kernel *k = got->k;
    Check c = {.got = got};
    for (uint32_t a = 0; a < k->n_args; a++) {
        if (!k->args[a].is_out) continue;
        c.want[a] = ARENA_ARRAY(&c.arena, RefValue, k->args[a].elems);
        for (int64_t i = 0; i < k->args[a].elems; i++) {
            c.want[a][i].err = -1;
            if (k->kind == KK_SCATTER)
                c.want[a][i] =
                    (RefValue){ref_read(k->args[a].dtype, before->ptr[k->args[a].alias_in], i), 0};
        }
    }
    ref_run(k, before->ptr, check_store, &c);
    for (uint32_t a = 0; a < k->n_args; a++)
        for (int64_t i = 0; c.want[a] && i < k->args[a].elems; i++)
            check_elem(&c, a, i, c.want[a][i]);
    arena_free(&c.arena);
    return c.n_bad == 0 && c.n_checked > 0;
}

static bool same_bits(const Run *x, const Run *y)
{
    for (uint32_t a = 0; a < x->k->n_args; a++)
        if (x->k->args[a].is_out &&
            memcmp(x->ptr[a], y->ptr[a],
                   (size_t)(x->k->args[a].elems * dtype_bytes(x->k->args[a].dtype))))
            return false;
    return true;
}

static bool test_kernel(const CpuSo *so, const Kernel *k, const CpuKernelCode *code, int64_t bound)
{
    bool ok = true;
    for (int alias = 0; alias < 2; alias++) {
        Run before, forth, back;
        run_init(&before, k, bound, 0, false);
        run_init(&forth, k, bound, code->needs.workspace_bytes, alias);
        run_init(&back, k, bound, code->needs.workspace_bytes, alias);
        run_tasks(so, code, &forth, false);
        run_tasks(so, code, &back, true);
        ok = check_results(&before, &forth) && ok;
        if (!same_bits(&forth, &back)) {
            printf("    results depend on the order of tasks\n");
            ok = false;
        }
        run_free(&before), run_free(&forth), run_free(&back);
    }
    return ok;
}

/* ---- all ---- */

enum { MAX_KERNELS = 128, BOUND = 11 /* of random i32 */ };

static int make_kernels(Arena *a, Kernel **k)
{
    static const int64_t sizes[] = {1, 3, 16, 17, 63, 64, 65, 127, 1000, 40001};
    int n = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) k[n++] = axpy(a, sizes[i]);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes - 1; i++) {
        k[n++] = bias_functions(a, 3, sizes[i]);
        k[n++] = softmax(a, 5, sizes[i], i % 2 == 0);
        k[n++] = layernorm(a, 2, sizes[i]);
        k[n++] = scatter(a, 29, sizes[i], BOUND);
        k[n++] = padded(a, 4, sizes[i], i % 3 == 0 ? DT_BF16 : DT_F32);
        k[n++] = half_precision(a, 3, sizes[i], i % 2 ? DT_BF16 : DT_F16);
    }
    k[n++] = softmax(a, 1, 50257, false), k[n++] = softmax(a, 1, 50257, true);
    k[n++] = layernorm(a, 1, 70001);
    k[n++] = transposed(a, 5, 7, 33), k[n++] = transposed(a, 31, 1, 65);
    for (unsigned red = 1; red < 8; red++) {
        k[n++] = reduce3(a, 3, 7, 13, red, DT_F32);
        k[n++] = reduce3(a, 5, 64, 130, red, red % 2 ? DT_I32 : DT_F64);
    }
    k[n++] = reduce3(a, 1, 1, 300001, 7, DT_F32);
    k[n++] = reduce3(a, 1, 20011, 10, 2, DT_F32);
    k[n++] = reduce3(a, 3, 20011, 5, 5, DT_F32);
    k[n++] = reduce3(a, 300, 3, 211, 5, DT_F32);
    k[n++] = embed(a, 9, 37, BOUND), k[n++] = embed(a, 33, 1, BOUND);
    k[n++] = pick_target(a, 37, BOUND), k[n++] = scatter(a, 1000, 1, BOUND);
    k[n++] = scatter(a, 7, 9001, BOUND);
    k[n++] = dropout(a, 3, 77), k[n++] = update(a, 5003), k[n++] = scalars(a);
    k[n++] = many_reductions(a, 60, 77), k[n++] = many_reductions(a, 3, 40000);
    return n;
}

static bool test_target(const char *name)
{
    Arena a = {0};
    SourceSet sources = {.arena = &a};
    Diag diag = {.arena = &a, .sources = &sources};
    CpuTarget t;
    Kernel *k[MAX_KERNELS];
    CpuKernelCode code[MAX_KERNELS];
    if (cpu_target_from_name(&a, &diag, name, &t) != ZM_OK) so_die(&diag, name);
    if (!cpu_target_runs_here(&t)) {
        printf("%s: does not run here\n", name);
        return true;
    }
    int n = make_kernels(&a, k), n_bad = 0;
    CpuModule *m = cpu_module_new(&a, &t, name);
    for (int i = 0; i < n; i++)
        if (cpu_emit_nest(m, k[i], arena_printf(&a, "k%d", i), &code[i]) != ZM_OK)
            so_die(&diag, "emit");
    CpuSo so = so_load(m, &diag);
    for (int i = 0; i < n; i++) {
        bool ok = test_kernel(&so, k[i], &code[i], BOUND);
        if (!ok) printf("FAILED %s: kernel %d %s\n", name, i, k[i]->label), n_bad++;
    }
    printf("%s: %d kernels, %d failed\n", name, n, n_bad);
    so_free(&so);
    cpu_module_free(m);
    arena_free(&a);
    return n_bad == 0;
}

int main(void)
{
    cpu_llvm_init();
    bool ok = test_target("x86-64-v2");
    ok = test_target("x86-64-v3") && ok;
    ok = test_target("x86-64-v4") && ok;
    return ok ? 0 : 1;
}
