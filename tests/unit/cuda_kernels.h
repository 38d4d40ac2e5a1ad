/* cuda_kernels.h -- nest and scatter kernels of every shape, for cuda_nest.c (what they compute)
 * and cuda_nvrtc.c (that NVRTC takes them). */
#ifndef ZM_TESTS_CUDA_KERNELS_H
#define ZM_TESTS_CUDA_KERNELS_H

#include "tests/unit/kernel_ref.h"

enum { CUDA_MAX_TEXTS = 8 };

typedef struct CudaCase {
    const char *name;
    Kernel *(*make)(Arena *a);
    bool is_exact;    /* only + - * / sqrt, comparisons, casts: each result is rounded once, so bits
                         are equal */
    double condition; /* else |error| <= (reduced elements + 8) * 2^-24 * condition * max(1, largest
                         |reference|): a sum of n terms loses at most n - 1 roundings of its terms'
                         sum; 8 for the element's own operations */
    bool is_huge;     /* printed and compiled only: too large to run */
    const char *texts[CUDA_MAX_TEXTS]; /* in this order in the text */
} CudaCase;

/* out[i, j] = (x[i, j] + bias[j]) * 0.5, and its transpose */
static Kernel *make_pointwise(Arena *a)
{
    Kernel *k = ref_kernel(a, KK_NEST, "add+mul", 1);
    ref_loop(k, LOOP_PAR, 19);
    ref_loop(k, LOOP_PAR, 29);
    int x = ref_in(k, DT_F32, 19 * 29), bias = ref_in(k, DT_F32, 29);
    int out = ref_out(k, DT_F32, 19 * 29, -1), turned = ref_out(k, DT_F32, 19 * 29, -1);
    int u = ref_load(k, x, 0, STRIDES(29, 1)), w = ref_load(k, bias, 0, STRIDES(0, 1));
    int v = ref_bin(k, OP_MUL, ref_bin(k, OP_ADD, u, w), ref_const(k, DT_F32, 0.5));
    ref_store(k, v, out, 0, STRIDES(29, 1));
    ref_store(k, ref_un(k, OP_NEG, v), turned, 0, STRIDES(1, 19));
    return k;
}

/* x = x - lr * m in place, m too: the update's form */
static Kernel *make_in_place(Arena *a)
{
    Kernel *k = ref_kernel(a, KK_NEST, "update", 1);
    ref_loop(k, LOOP_PAR, 1000);
    int p = ref_in(k, DT_F32, 1000), m = ref_in(k, DT_F32, 1000), g = ref_in(k, DT_F32, 1000),
        lr = ref_in(k, DT_F32, 1);
    int p_new = ref_out(k, DT_F32, 1000, p), m_new = ref_out(k, DT_F32, 1000, m);
    int decayed = ref_bin(k, OP_MUL, ref_load(k, m, 0, STRIDES(1)), ref_const(k, DT_F32, 0.9));
    int moment = ref_bin(k, OP_ADD, decayed, ref_load(k, g, 0, STRIDES(1)));
    int step = ref_bin(k, OP_MUL, ref_load(k, lr, 0, STRIDES(0)), moment);
    ref_store(k, ref_bin(k, OP_SUB, ref_load(k, p, 0, STRIDES(1)), step), p_new, 0, STRIDES(1));
    ref_store(k, moment, m_new, 0, STRIDES(1));
    return k;
}

static Kernel *make_softmax(Arena *a, int64_t rows, int64_t columns)
{
    Kernel *k = ref_kernel(a, KK_NEST, "softmax", 3);
    ref_loop(k, LOOP_PAR, rows);
    ref_loop(k, LOOP_RED, columns);
    int x = ref_in(k, DT_F32, rows * columns), out = ref_out(k, DT_F32, rows * columns, x);
    int v = ref_load(k, x, 0, STRIDES(columns, 1));
    int e = ref_un(k, OP_EXP, ref_bin(k, OP_SUB, v, ref_reduce(k, OP_REDUCE_MAX, v, 0)));
    ref_store(k, ref_bin(k, OP_DIV, e, ref_reduce(k, OP_REDUCE_SUM, e, 1)), out, 0,
              STRIDES(columns, 1));
    return k;
}

static Kernel *make_softmax_thread(Arena *a)
{
    return make_softmax(a, 300, 5);
}

static Kernel *make_softmax_warp(Arena *a)
{
    return make_softmax(a, 21, 127);
}

static Kernel *make_softmax_block(Arena *a)
{
    return make_softmax(a, 3, 2003);
}

/* y = (x - mean) * rstd * weight + bias; mean and rstd are stored too */
static Kernel *make_layernorm(Arena *a)
{
    enum { R = 11, C = 97 };
    Kernel *k = ref_kernel(a, KK_NEST, "normalize+mul+add", 3);
    ref_loop(k, LOOP_PAR, R);
    ref_loop(k, LOOP_RED, C);
    int x = ref_in(k, DT_F32, R * C), w = ref_in(k, DT_F32, C), b = ref_in(k, DT_F32, C);
    int out = ref_out(k, DT_F32, R * C, -1), mean_out = ref_out(k, DT_F32, R, -1),
        rstd_out = ref_out(k, DT_F32, R, -1);
    int v = ref_load(k, x, 0, STRIDES(C, 1)), scale = ref_const(k, DT_F32, 1.0 / C);
    int mean = ref_bin(k, OP_MUL, ref_reduce(k, OP_REDUCE_SUM, v, 0), scale);
    int d = ref_bin(k, OP_SUB, v, mean);
    int var = ref_bin(k, OP_MUL, ref_reduce(k, OP_REDUCE_SUM, ref_bin(k, OP_MUL, d, d), 1), scale);
    int root = ref_un(k, OP_SQRT, ref_bin(k, OP_ADD, var, ref_const(k, DT_F32, 1e-5)));
    int rstd = ref_bin(k, OP_DIV, ref_const(k, DT_F32, 1), root);
    int y = ref_bin(k, OP_MUL, ref_bin(k, OP_MUL, d, rstd), ref_load(k, w, 0, STRIDES(0, 1)));
    ref_store(k, ref_bin(k, OP_ADD, y, ref_load(k, b, 0, STRIDES(0, 1))), out, 0, STRIDES(C, 1));
    ref_store(k, mean, mean_out, 0, STRIDES(1));
    ref_store(k, rstd, rstd_out, 0, STRIDES(1));
    return k;
}

/* sums and largest of columns; each element less its column's sum */
static Kernel *make_column(Arena *a, int64_t rows, int64_t columns)
{
    Kernel *k = ref_kernel(a, KK_NEST, "reduce_sum", 2);
    ref_loop(k, LOOP_RED, rows);
    ref_loop(k, LOOP_PAR, columns);
    int x = ref_in(k, DT_F32, rows * columns);
    int sums = ref_out(k, DT_F32, columns, -1), tops = ref_out(k, DT_F32, columns, -1),
        rest = ref_out(k, DT_F32, rows * columns, -1);
    int v = ref_load(k, x, 0, STRIDES(columns, 1));
    int s = ref_reduce(k, OP_REDUCE_SUM, v, 0);
    ref_store(k, s, sums, 0, STRIDES(0, 1));
    ref_store(k, ref_reduce(k, OP_REDUCE_MAX, v, 0), tops, 0, STRIDES(0, 1));
    ref_store(k, ref_bin(k, OP_SUB, v, s), rest, 0, STRIDES(columns, 1));
    return k;
}

static Kernel *make_column_short(Arena *a)
{
    return make_column(a, 37, 50);
}

static Kernel *make_column_long(Arena *a)
{
    return make_column(a, 601, 33);
}

/* sum of squares of everything, in f64 */
static Kernel *make_full(Arena *a)
{
    Kernel *k = ref_kernel(a, KK_NEST, "sum_squares", 1);
    ref_loop(k, LOOP_RED, 17);
    ref_loop(k, LOOP_RED, 311);
    int x = ref_in(k, DT_F32, 17 * 311), out = ref_out(k, DT_F64, 1, -1);
    int v = ref_cast(k, DT_F64, ref_load(k, x, 0, STRIDES(311, 1)));
    int s = ref_reduce(k, OP_REDUCE_SUM, ref_bin(k, OP_MUL, v, v), 0);
    ref_store(k, s, out, 0, STRIDES(0));
    return k;
}

/* the same, halved, its nodes labelled as constants: nothing depends on a loop that is left */
static Kernel *make_full_constant(Arena *a)
{
    Kernel *k = make_full(a);
    int sum = k->stores[0].node;
    k->stores[0].node = ref_bin(k, OP_MUL, sum, ref_const(k, DT_F64, 0.5));
    k->nodes[sum].level = k->nodes[k->stores[0].node].level = LV_CONST;
    k->stores[0].level = LV_CONST;
    return k;
}

/* PAR, RED, PAR: mean over dimension 1 of x[5, 41, 3] read through a transpose */
static Kernel *make_middle(Arena *a)
{
    Kernel *k = ref_kernel(a, KK_NEST, "mean", 1);
    ref_loop(k, LOOP_PAR, 5);
    ref_loop(k, LOOP_RED, 41);
    ref_loop(k, LOOP_PAR, 3);
    int x = ref_in(k, DT_F32, 5 * 41 * 3), out = ref_out(k, DT_F32, 15, -1);
    int s = ref_reduce(k, OP_REDUCE_SUM, ref_load(k, x, 0, STRIDES(1, 5, 5 * 41)), 0);
    ref_store(k, ref_bin(k, OP_DIV, s, ref_const(k, DT_F32, 41)), out, 0, STRIDES(3, 0, 1));
    return k;
}

/* table[index[n]] + position[t] */
static Kernel *make_embed(Arena *a)
{
    enum { N = 12, T = 6, V = 7, C = 10 };
    Kernel *k = ref_kernel(a, KK_NEST, "embed+add", 1);
    ref_loop(k, LOOP_PAR, N / T);
    ref_loop(k, LOOP_PAR, T);
    ref_loop(k, LOOP_PAR, C);
    int table = ref_in(k, DT_F32, V * C), at = ref_in(k, DT_I32, N),
        position = ref_in(k, DT_F32, T * C);
    int out = ref_out(k, DT_F32, N * C, -1);
    int row = ref_load(k, at, 0, STRIDES(T, 1, 0));
    int v = ref_load_dyn(k, table, 0, STRIDES(0, 0, 1), row, C);
    ref_store(k, ref_bin(k, OP_ADD, v, ref_load(k, position, 0, STRIDES(0, C, 1))), out, 0,
              STRIDES(T * C, C, 1));
    return k;
}

/* base with src[n] added to row index[n], n in order */
static Kernel *make_scatter_onto(Arena *a, bool has_base)
{
    enum { N = 40, V = 7, C = 39 };
    Kernel *k = ref_kernel(a, KK_SCATTER, "scatter_add", 1);
    ref_loop(k, LOOP_RED, N);
    ref_loop(k, LOOP_PAR, C);
    int base = has_base ? ref_in(k, DT_F32, V * C) : -1;
    int at = ref_in(k, DT_I32, N), src = ref_in(k, DT_F32, N * C);
    int out = ref_out(k, DT_F32, V * C, base);
    int row = ref_load(k, at, 0, STRIDES(1, 0));
    int v = ref_bin(k, OP_MUL, ref_load(k, src, 0, STRIDES(C, 1)), ref_const(k, DT_F32, 0.5));
    Store *s = ref_store(k, v, out, 0, STRIDES(0, 1));
    s->mode = ST_ADD;
    s->level = LV_ELEM;
    s->to.dyn = row;
    s->to.dyn_stride = C;
    return k;
}

static Kernel *make_scatter(Arena *a)
{
    return make_scatter_onto(a, true);
}

static Kernel *make_scatter_zeros(Arena *a)
{
    return make_scatter_onto(a, false);
}

/* x / (1 - p) where random >= p */
static Kernel *make_dropout(Arena *a)
{
    enum { B = 3, E = 70 };
    Kernel *k = ref_kernel(a, KK_NEST, "drop", 1);
    ref_loop(k, LOOP_PAR, B);
    ref_loop(k, LOOP_PAR, E);
    int x = ref_in(k, DT_F32, B * E), key_in = ref_in(k, DT_I32, 4),
        out = ref_out(k, DT_F32, B * E, -1);
    int key[4];
    for (int i = 0; i < 4; i++) key[i] = ref_load(k, key_in, i, STRIDES(0));
    int element = ref_index(k, 0, STRIDES(0, 1)), sample = ref_index(k, 0, STRIDES(1, 0));
    int r = ref_random(k, key, element, sample, 0x9abcdef012345678ull);
    int keep = ref_op(k, OP_GE, DT_I1, r, ref_const(k, DT_F32, 0.25), -1);
    int scaled = ref_bin(k, OP_DIV, ref_load(k, x, 0, STRIDES(E, 1)), ref_const(k, DT_F32, 0.75));
    ref_store(k, ref_op(k, OP_SELECT, DT_F32, keep, scaled, ref_const(k, DT_F32, 0)), out, 0,
              STRIDES(E, 1));
    return k;
}

/* two halves one after another, each padded by 3 zeros before and 2 after */
static Kernel *make_pad(Arena *a)
{
    enum { N = 8, LOW = 3, HIGH = 2, ROW = LOW + N + HIGH };
    static const Guard left[] = {{.stride = {0, 1}, .base = -LOW, .lo = 0, .hi = N},
                                 {.stride = {1}, .lo = 0, .hi = 5}};
    static const Guard right[] = {{.stride = {0, 1}, .base = -LOW, .lo = 0, .hi = N},
                                  {.stride = {1}, .lo = 5, .hi = 9}};
    Kernel *k = ref_kernel(a, KK_NEST, "pad", 1);
    ref_loop(k, LOOP_PAR, 9);
    ref_loop(k, LOOP_PAR, ROW);
    int x = ref_in(k, DT_F32, 5 * N), y = ref_in(k, DT_F32, 4 * N),
        out = ref_out(k, DT_F32, 9 * ROW, -1);
    int first = ref_load_guarded(k, x, -LOW, STRIDES(N, 1), left, 2);
    int second = ref_load_guarded(k, y, -LOW - 5 * N, STRIDES(N, 1), right, 2);
    ref_store(k, ref_bin(k, OP_ADD, first, second), out, 0, STRIDES(ROW, 1));
    return k;
}

/* scalars in f64: a schedule's arithmetic, a counter */
static Kernel *make_scalar(Arena *a)
{
    Kernel *k = ref_kernel(a, KK_NEST, "schedule", 1);
    int u_in = ref_in(k, DT_I32, 1), lr = ref_in(k, DT_F64, 1);
    int out = ref_out(k, DT_F64, 1, -1), u_out = ref_out(k, DT_I32, 1, u_in),
        warm_out = ref_out(k, DT_I1, 1, -1);
    int u = ref_load(k, u_in, 0, STRIDES(0)), next = ref_bin(k, OP_ADD, u, ref_const(k, DT_I32, 1));
    int peak = ref_load(k, lr, 0, STRIDES(0));
    int up = ref_bin(k, OP_DIV, ref_bin(k, OP_MUL, peak, ref_cast(k, DT_F64, next)),
                     ref_const(k, DT_F64, 100));
    int p = ref_bin(k, OP_MIN, ref_const(k, DT_F64, 1),
                    ref_bin(k, OP_DIV, ref_cast(k, DT_F64, u), ref_const(k, DT_F64, 50)));
    int c = ref_un(k, OP_COS, ref_bin(k, OP_MUL, p, ref_const(k, DT_F64, 3.14159265358979323846)));
    int down = ref_bin(k, OP_MUL, peak, ref_bin(k, OP_ADD, ref_const(k, DT_F64, 1), c));
    int warm = ref_op(k, OP_LT, DT_I1, u, ref_const(k, DT_I32, 20), -1);
    ref_store(k, ref_op(k, OP_SELECT, DT_F64, warm, up, down), out, 0, STRIDES(0));
    ref_store(k, next, u_out, 0, STRIDES(0));
    ref_store(k, warm, warm_out, 0, STRIDES(0));
    return k;
}

/* verdicts with NaN and infinity in the data: any, all finite, largest and smallest */
static Kernel *make_special(Arena *a)
{
    enum { R = 6, C = 40 };
    Kernel *k = ref_kernel(a, KK_NEST, "all_finite", 1);
    ref_loop(k, LOOP_PAR, R);
    ref_loop(k, LOOP_RED, C);
    int x = ref_in(k, DT_F32, R * C), y = ref_in(k, DT_F32, R * C), m = ref_in(k, DT_I1, R * C);
    int bad_out = ref_out(k, DT_I1, R, -1), top_out = ref_out(k, DT_F32, R, -1);
    int low_out = ref_out(k, DT_F32, R * C, -1), flag_out = ref_out(k, DT_I1, R * C, -1);
    int u = ref_load(k, x, 0, STRIDES(C, 1)), v = ref_load(k, y, 0, STRIDES(C, 1)),
        f = ref_load(k, m, 0, STRIDES(C, 1));
    int finite = ref_op(k, OP_IS_FINITE, DT_I1, u, -1, -1);
    ref_store(k, ref_reduce(k, OP_REDUCE_MAX, ref_un(k, OP_NOT, finite), 0), bad_out, 0,
              STRIDES(1));
    ref_store(k, ref_reduce(k, OP_REDUCE_MAX, u, 0), top_out, 0, STRIDES(1));
    ref_store(k, ref_bin(k, OP_MIN, u, v), low_out, 0, STRIDES(C, 1));
    int less = ref_op(k, OP_LT, DT_I1, u, v, -1);
    ref_store(k, ref_bin(k, OP_OR, ref_bin(k, OP_AND, f, less), ref_un(k, OP_NOT, finite)),
              flag_out, 0, STRIDES(C, 1));
    return k;
}

/* bf16 and f16: arithmetic, casts from f64 that round once, a sum that accumulates in f32 */
static Kernel *make_half(Arena *a)
{
    enum { R = 40, C = 6 };
    Kernel *k = ref_kernel(a, KK_NEST, "half", 1);
    ref_loop(k, LOOP_PAR, R);
    ref_loop(k, LOOP_RED, C);
    int x = ref_in(k, DT_BF16, R * C), y = ref_in(k, DT_F16, R * C), w = ref_in(k, DT_F64, R * C);
    int xo = ref_out(k, DT_BF16, R * C, x), yo = ref_out(k, DT_F16, R * C, -1),
        zo = ref_out(k, DT_BF16, R * C, -1);
    int ho = ref_out(k, DT_F16, R * C, -1), so = ref_out(k, DT_BF16, R, -1);
    int u = ref_load(k, x, 0, STRIDES(C, 1)), v = ref_load(k, y, 0, STRIDES(C, 1)),
        d = ref_load(k, w, 0, STRIDES(C, 1));
    ref_store(k, ref_bin(k, OP_MUL, u, ref_cast(k, DT_BF16, v)), xo, 0, STRIDES(C, 1));
    ref_store(k, ref_bin(k, OP_ADD, v, ref_const(k, DT_F16, 0.1)), yo, 0, STRIDES(C, 1));
    ref_store(k, ref_cast(k, DT_BF16, d), zo, 0, STRIDES(C, 1));
    ref_store(k, ref_cast(k, DT_F16, d), ho, 0, STRIDES(C, 1));
    ref_store(k, ref_reduce(k, OP_REDUCE_SUM, ref_bin(k, OP_ADD, u, u), 0), so, 0, STRIDES(1));
    return k;
}

/* every float primitive that is not exact */
static Kernel *make_functions(Arena *a)
{
    static const OpCode op[] = {OP_COS, OP_ERF, OP_EXP, OP_SIN, OP_TANH};
    Kernel *k = ref_kernel(a, KK_NEST, "functions", 1);
    ref_loop(k, LOOP_PAR, 257);
    int x = ref_in(k, DT_F32, 257);
    int v = ref_load(k, x, 0, STRIDES(1));
    for (int i = 0; i < 5; i++)
        ref_store(k, ref_un(k, op[i], v), ref_out(k, DT_F32, 257, -1), 0, STRIDES(1));
    int positive = ref_bin(k, OP_ADD, ref_un(k, OP_ABS, v), ref_const(k, DT_F32, 0.25));
    ref_store(k, ref_un(k, OP_LOG, positive), ref_out(k, DT_F32, 257, -1), 0, STRIDES(1));
    ref_store(k, ref_un(k, OP_FLOOR, v), ref_out(k, DT_F32, 257, -1), 0, STRIDES(1));
    return k;
}

/* x[B, M, K] @ w[K, N] + bias, times a residual in place: M in two loops */
static Kernel *make_matmul(Arena *a)
{
    enum { B = 3, T = 23, K = 37, N = 70 };
    Kernel *k = ref_kernel(a, KK_CONTRACT, "matmul+add+mul", 1);
    ref_loop(k, LOOP_M, B);
    ref_loop(k, LOOP_M, T);
    ref_loop(k, LOOP_N, N);
    ref_loop(k, LOOP_K, K);
    int x = ref_in(k, DT_F32, B * T * K), w = ref_in(k, DT_F32, K * N), bias = ref_in(k, DT_F32, N);
    int residual = ref_in(k, DT_F32, B * T * N), out = ref_out(k, DT_F32, B * T * N, residual);
    k->node_a = ref_load(k, x, 0, STRIDES(T * K, K, 0, 1));
    k->node_b = ref_load(k, w, 0, STRIDES(0, 0, 1, N));
    int sum = ref_bin(k, OP_ADD, ref_acc(k, DT_F32), ref_load(k, bias, 0, STRIDES(0, 0, 1, 0)));
    int v = ref_bin(k, OP_MUL, sum, ref_load(k, residual, 0, STRIDES(T * N, N, 1, 0)));
    ref_store(k, v, out, 0, STRIDES(T * N, N, 1, 0));
    return k;
}

/* transposed operands, two batch loops, a prologue on one side; bf16 in and out */
static Kernel *make_matmul_batched(Arena *a)
{
    enum { B = 2, H = 3, M = 66, N = 5, K = 16 };
    Kernel *k = ref_kernel(a, KK_CONTRACT, "exp+matmul", 1);
    ref_loop(k, LOOP_BATCH, B);
    ref_loop(k, LOOP_BATCH, H);
    ref_loop(k, LOOP_M, M);
    ref_loop(k, LOOP_N, N);
    ref_loop(k, LOOP_K, K);
    int x = ref_in(k, DT_BF16, B * H * K * M), y = ref_in(k, DT_BF16, B * N * K);
    int scale = ref_in(k, DT_BF16, 1), out = ref_out(k, DT_BF16, B * M * H * N, -1);
    int u = ref_load(k, x, 0, STRIDES(H * K * M, K * M, 1, 0, M));
    k->node_a = ref_bin(k, OP_MUL, u, ref_load(k, scale, 0, STRIDES(0)));
    k->node_b = ref_load(k, y, 0, STRIDES(N * K, 0, 0, K, 1));
    ref_store(k, ref_cast(k, DT_BF16, ref_acc(k, DT_F32)), out, 0,
              STRIDES(M * H * N, N, H * N, 1, 0));
    return k;
}

/* one number: all loops of extent 1 are gone but K; f64 */
static Kernel *make_dot(Arena *a)
{
    Kernel *k = ref_kernel(a, KK_CONTRACT, "dot", 1);
    ref_loop(k, LOOP_K, 100);
    int x = ref_in(k, DT_F64, 100), y = ref_in(k, DT_F64, 100), out = ref_out(k, DT_F64, 1, -1);
    k->node_a = ref_load(k, x, 0, STRIDES(1));
    k->node_b = ref_load(k, y, 0, STRIDES(1));
    ref_store(k, ref_acc(k, DT_F64), out, 0, STRIDES(0));
    return k;
}

/* more elements than 32 bits number */
static Kernel *make_huge(Arena *a)
{
    Kernel *k = ref_kernel(a, KK_NEST, "huge", 1);
    ref_loop(k, LOOP_PAR, 100000);
    ref_loop(k, LOOP_RED, 50000);
    int x = ref_in(k, DT_F32, 5000000000), at = ref_in(k, DT_I32, 100000),
        out = ref_out(k, DT_F32, 100000, -1);
    int row = ref_load(k, at, 0, STRIDES(1, 0));
    int s = ref_reduce(k, OP_REDUCE_SUM, ref_load_dyn(k, x, 0, STRIDES(0, 1), row, 50000), 0);
    ref_store(k, ref_bin(k, OP_ADD, s, ref_cast(k, DT_F32, ref_index(k, 1, STRIDES(1)))), out, 0,
              STRIDES(1));
    return k;
}

static const CudaCase cuda_cases[] = {
    {"pointwise",
     make_pointwise,
     true,
     0,
     false,
     {"// add+mul", "__launch_bounds__(256) pointwise(const float *__restrict__ a0",
      "row += gridDim.x * 256", "const int i1 = row % 29;", "const int i0 = row / 29;",
      "v0 + v1;  // add", " * 0.5f;  // mul", "a3[i0 + i1 * 19] = v5;"}},
    {"in_place",
     make_in_place,
     true,
     0,
     false,
     {"const float *a0, const float *a1, const float *__restrict__ a2", "float *a4, float *a5)",
      "for (int row", "a4[i0] ="}},
    {"softmax_thread",
     make_softmax_thread,
     false,
     1,
     false,
     {"one thread each", "e = 0; e < 5; e += 1", "zm_max(r1", "expf("}},
    {"softmax_warp",
     make_softmax_warp,
     false,
     1,
     false,
     {"one warp each", "float r1 = (-ZM_INF);", "x0[q] = zm_load<1>(a0 + i0 * 127 + i1);",
      "x0[q].at[0]", "= zm_warp<zm_largest>(r1);", "expf(", "= zm_warp<zm_sum>(r4);",
      "a1[i0 * 127 + i1] = v5;"}},
    {"softmax_block",
     make_softmax_block,
     false,
     1,
     false,
     {"one block each", "row = blockIdx.x", "for (int q = 0; q < 16; q++)",
      "zm_block_put<zm_largest>(part1, r1)", "zm_block_get<zm_sum>(part4)"}},
    {"layernorm",
     make_layernorm,
     false,
     8,
     false,
     {"zm_warp<zm_sum>", "zm_warp<zm_sum>", "sqrtf(", "a3[i0 * 97 + i1] =", "if (lane == 0) {",
      "a4[i0] =", "a5[i0] ="}},
    {"column_short",
     make_column_short,
     false,
     64,
     false,
     {"threads", "(256)", "const bool is_mine", "e = threadIdx.y; e < 37; e += 8",
      "zm_column<zm_sum>", "if (is_mine) {", "if (is_mine && threadIdx.y == 0) {"}},
    {"column_long",
     make_column_long,
     false,
     1024,
     false,
     {"__launch_bounds__(1024)", "e += 32", "zm_column<zm_largest>"}},
    {"full",
     make_full,
     false,
     1,
     false,
     {"1 rows, one block each", "double r", "zm_block_get<zm_sum>", "if (threadIdx.x == 0) {",
      "a1[0] ="}},
    {"full_constant",
     make_full_constant,
     false,
     1,
     false,
     {"zm_block_get<zm_sum>", " * 0.5;  // mul", "a1[0] ="}},
    {"middle", make_middle, false, 4, false, {"one warp each", "a0[i0 + i1 * 5 + i2 * 205]"}},
    {"embed", make_embed, true, 0, false, {"const int v0 = a1[i0 * 6 + i1];", "a0[i2 + v0 * 10]"}},
    {"scatter",
     make_scatter,
     true,
     0,
     false,
     {"if (a3 != a0)", "zm_store(a3 + r * 39 + c, zm_load<1>(a0 + r * 39 + c));",
      "if ((unsigned int)v0 % 7 == bucket) target[j] = v0;", "zm_list_sort(",
      "sum.at[0] += v3;  // scatter_add"}},
    {"scatter_zeros",
     make_scatter_zeros,
     true,
     0,
     false,
     {"zm_store(a2 + r * 39 + c, zm_vec<float, 1>{});", "sum.at[0] += v3;"}},
    {"dropout",
     make_dropout,
     true,
     0,
     false,
     {"zm_random(v0, v1, v2, v3 + v5, v4, (unsigned int)305419896, (unsigned int)(-1698898192));  "
      "// random",
      "? "}},
    {"pad",
     make_pad,
     true,
     0,
     false,
     {"i1 - 3 >= 0 && i1 - 3 < 8 && i0 < 5 ? a0[i0 * 8 + i1 - 3] : 0.0f;", "i0 >= 5 ? a1["}},
    {"scalar", make_scalar, false, 1, false, {"1 rows", "const double", "cos(", "a4[0] ="}},
    {"special", make_special, true, 0, false, {"zm_is_finite(", "zm_min(", "zm_max("}},
    {"half",
     make_half,
     true,
     0,
     false,
     {"const zm_bf16 *a0", "zm_to_float(a0[", "zm_round_bf16(zm_odd(", "zm_keep_bf16("}},
    {"functions",
     make_functions,
     false,
     2,
     false,
     {"cosf(", "erff(", "expf(", "sinf(", "tanhf(", "zm_abs(", "logf(", "floorf("}},
    {"matmul",
     make_matmul,
     false,
     16,
     false,
     {"a tile of them a block", "__shared__ float tile_a[16][65]",
      "const int x = s / 16, kk = s % 16;", "tile_a[kk][x] = v;",
      "const int x = s % 64, kk = s / 64;", "fmaf(", "acc[s / 4][s % 4]",
      "a4[i0 * 1610 + i1 * 70 + i2] ="}},
    {"matmul_batched",
     make_matmul_batched,
     false,
     16,
     false,
     {"const int batch = tile / 2;", "const int x = s % 64", "const int x = s / 16", "a3[",
      "] = zm_keep_bf16("}},
    {"dot", make_dot, false, 4, false, {"double acc[4][4]", "fma("}},
    {"huge",
     make_huge,
     false,
     0,
     true,
     {"for (long long row = blockIdx.x;", "(int)(i0 + 1)",
      "for (long long e =", "a0[i1 + (long long)v0 * 50000]"}},
};
enum { N_CUDA_CASES = sizeof cuda_cases / sizeof cuda_cases[0] };

#endif
