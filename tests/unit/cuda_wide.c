/* cuda_wide.c -- nest and scatter kernels whose arguments are aligned: wide loads and stores, rows
 * that stay in registers, rows that begin anywhere, reductions that blocks share, lists of a
 * scatter's additions.  On the simulator, within derived bounds. */
#include "tests/unit/kernel_ref.h"

#include "tests/unit/cuda_sim.h"

enum { EXIT_SKIP = 77 };

static Kernel *align_all(Kernel *k, int32_t align)
{
    for (uint32_t i = 0; i < k->n_args; i++) {
        int32_t least = (int32_t)dtype_bytes(k->args[i].dtype);
        k->args[i].align = align > least ? align : least;
    }
    return k;
}

/* (x + bias[c]) * y in place of x, and a flag: 16, 32 and 8 bits; rows of a multiple of 8 */
static Kernel *make_points(Arena *a, DType dt, int64_t columns)
{
    enum { ROWS = 37 };
    Kernel *k = ref_kernel(a, KK_NEST, "points", 1);
    ref_loop(k, LOOP_PAR, ROWS);
    ref_loop(k, LOOP_PAR, columns);
    int x = ref_in(k, dt, ROWS * columns), bias = ref_in(k, dt, columns + 3),
        row = ref_in(k, dt, ROWS), m = ref_in(k, DT_I1, ROWS * columns);
    int out = ref_out(k, dt, ROWS * columns, x), flag = ref_out(k, DT_I1, ROWS * columns, -1);
    int u = ref_load(k, x, 0, STRIDES(columns, 1)), b = ref_load(k, bias, 3, STRIDES(0, 1));
    int r = ref_load(k, row, 0, STRIDES(1, 0)), f = ref_load(k, m, 0, STRIDES(columns, 1));
    int sum = ref_bin(k, OP_ADD, ref_bin(k, OP_ADD, u, b), r);
    ref_store(k, ref_op(k, OP_SELECT, dt, f, sum, u), out, 0, STRIDES(columns, 1));
    ref_store(k, ref_op(k, OP_LT, DT_I1, u, b, -1), flag, 0, STRIDES(columns, 1));
    return align_all(k, 16);
}

/* x padded by 3 rows of zeros before and 2 after: the guard does not split a pack */
static Kernel *make_padded(Arena *a)
{
    enum { ROWS = 12, C = 24 };
    static const Guard inside[] = {{.stride = {1}, .base = -3, .lo = 0, .hi = ROWS - 5}};
    Kernel *k = ref_kernel(a, KK_NEST, "padded", 1);
    ref_loop(k, LOOP_PAR, ROWS);
    ref_loop(k, LOOP_PAR, C);
    int x = ref_in(k, DT_F16, (ROWS - 5) * C), out = ref_out(k, DT_F16, ROWS * C, -1);
    int v = ref_load_guarded(k, x, -3 * C, STRIDES(C, 1), inside, 1);
    ref_store(k, v, out, 0, STRIDES(C, 1));
    return align_all(k, 16);
}

/* softmax of x, its logarithm's row value stored, on top of a residual */
static Kernel *make_rows(Arena *a, DType dt, int64_t rows, int64_t columns)
{
    Kernel *k = ref_kernel(a, KK_NEST, "softmax", 3);
    ref_loop(k, LOOP_PAR, rows);
    ref_loop(k, LOOP_RED, columns);
    int x = ref_in(k, dt, rows * columns), w = ref_in(k, DT_F32, columns);
    int out = ref_out(k, dt, rows * columns, x), total = ref_out(k, DT_F32, rows, -1);
    int v = ref_cast(k, DT_F32, ref_load(k, x, 0, STRIDES(columns, 1)));
    int e = ref_un(k, OP_EXP, ref_bin(k, OP_SUB, v, ref_reduce(k, OP_REDUCE_MAX, v, 0)));
    int sum = ref_reduce(k, OP_REDUCE_SUM, e, 1), weight = ref_load(k, w, 0, STRIDES(0, 1));
    int y = ref_bin(k, OP_MUL, ref_bin(k, OP_DIV, e, sum), weight);
    ref_store(k, ref_cast(k, dt, y), out, 0, STRIDES(columns, 1));
    ref_store(k, sum, total, 0, STRIDES(1));
    return align_all(k, 16);
}

/* cross-entropy of rows, and with it the gradient: the target's logit is picked by an index */
static Kernel *make_loss(Arena *a, DType dt, int64_t rows, int64_t columns, bool has_grad)
{
    Kernel *k = ref_kernel(a, KK_NEST, "cross_entropy", has_grad ? 3 : 2);
    ref_loop(k, LOOP_PAR, rows);
    ref_loop(k, LOOP_RED, columns);
    int x = ref_in(k, dt, rows * columns), at = ref_in(k, DT_I32, rows);
    int loss = ref_out(k, DT_F32, rows, -1),
        grad = has_grad ? ref_out(k, dt, rows * columns, x) : 0;
    int v = ref_cast(k, DT_F32, ref_load(k, x, 0, STRIDES(columns, 1)));
    int below = ref_bin(k, OP_SUB, v, ref_reduce(k, OP_REDUCE_MAX, v, 0));
    int e = ref_un(k, OP_EXP, below), sum = ref_reduce(k, OP_REDUCE_SUM, e, 1);
    int target = ref_load(k, at, 0, STRIDES(1, 0)), c = ref_index(k, 0, STRIDES(0, 1));
    int is_target = ref_op(k, OP_EQ, DT_I1, c, target, -1);
    int picked = ref_op(k, OP_SELECT, DT_F32, is_target, below, ref_const(k, DT_F32, 0));
    int logit = ref_reduce(k, OP_REDUCE_SUM, picked, 1);
    ref_store(k, ref_bin(k, OP_SUB, ref_un(k, OP_LOG, sum), logit), loss, 0, STRIDES(1));
    if (has_grad) {
        int y = ref_bin(k, OP_SUB, ref_bin(k, OP_DIV, e, sum), ref_cast(k, DT_F32, is_target));
        ref_store(k, ref_cast(k, dt, y), grad, 0, STRIDES(columns, 1));
    }
    return align_all(k, 16);
}

/* Some logits are minus infinity, a whole pack of them at a row's beginning. */
static double fill_masked(const Kernel *k, uint32_t arg, int64_t elem, uint64_t *random)
{
    int64_t columns = k->loops[1].extent;
    double v = sim_value(k, arg, random);
    if (arg == 1) return elem % 2 ? (double)(columns - 1 - elem) : -100;
    return elem % columns < 24 || test_random(random) % 50 == 0 ? -(double)INFINITY : 8 * v;
}

/* per column: sum of x * row[r], added to what was there, and largest x; sum in dtype acc */
static Kernel *make_columns(Arena *a, DType dt, DType acc, int64_t rows, int64_t columns)
{
    Kernel *k = ref_kernel(a, KK_NEST, "columns", 1);
    ref_loop(k, LOOP_RED, rows);
    ref_loop(k, LOOP_PAR, columns);
    int x = ref_in(k, dt, rows * columns), row = ref_in(k, acc, rows),
        scale = ref_in(k, acc, columns), old = ref_in(k, acc, columns);
    int sums = ref_out(k, acc, columns, old), tops = ref_out(k, dt, columns, -1);
    int v = ref_load(k, x, 0, STRIDES(columns, 1)), c = ref_load(k, scale, 0, STRIDES(0, 1));
    int u = ref_bin(k, OP_MUL, ref_bin(k, OP_MUL, ref_cast(k, acc, v), c),
                    ref_load(k, row, 0, STRIDES(1, 0)));
    int s = ref_reduce(k, OP_REDUCE_SUM, u, 0), before = ref_load(k, old, 0, STRIDES(0, 1));
    ref_store(k, ref_bin(k, OP_ADD, before, s), sums, 0, STRIDES(0, 1));
    ref_store(k, ref_reduce(k, OP_REDUCE_MAX, v, 0), tops, 0, STRIDES(0, 1));
    return align_all(k, 16);
}

/* per row: sum of squares in f64, is anything not finite */
static Kernel *make_long_rows(Arena *a, int64_t rows, int64_t columns, int32_t align)
{
    Kernel *k = ref_kernel(a, KK_NEST, "verdict", 1);
    if (rows > 1) ref_loop(k, LOOP_PAR, rows);
    ref_loop(k, LOOP_RED, columns);
    int x = ref_in(k, DT_F32, rows * columns);
    int sum = ref_out(k, DT_F64, rows, -1), bad = ref_out(k, DT_I1, rows, -1);
    int64_t across[] = {columns, 1}, *along = rows > 1 ? across : across + 1;
    int v = ref_load(k, x, 0, rows > 1 ? STRIDES(along[0], 1) : STRIDES(1));
    int w = ref_cast(k, DT_F64, v), f = ref_op(k, OP_IS_FINITE, DT_I1, v, -1, -1);
    ref_store(k, ref_reduce(k, OP_REDUCE_SUM, ref_bin(k, OP_MUL, w, w), 0), sum, 0,
              rows > 1 ? STRIDES(1) : STRIDES(0));
    ref_store(k, ref_reduce(k, OP_REDUCE_MAX, ref_un(k, OP_NOT, f), 0), bad, 0,
              rows > 1 ? STRIDES(1) : STRIDES(0));
    return align_all(k, align);
}

enum { TABLE = 1200, ADDITIONS = 5000 };

/* src[n] added to row index[n] of a table */
static Kernel *make_table(Arena *a, DType dt, DType from, int64_t columns, bool has_base)
{
    Kernel *k = ref_kernel(a, KK_SCATTER, "scatter_add", 1);
    ref_loop(k, LOOP_RED, ADDITIONS / 50);
    ref_loop(k, LOOP_RED, 50);
    ref_loop(k, LOOP_PAR, columns);
    int at = ref_in(k, DT_I32, ADDITIONS), src = ref_in(k, from, ADDITIONS * columns);
    int base = has_base ? ref_in(k, dt, TABLE * columns) : -1;
    int out = ref_out(k, dt, TABLE * columns, base);
    int row = ref_load(k, at, 0, STRIDES(50, 1, 0));
    int v = ref_cast(k, dt, ref_load(k, src, 0, STRIDES(50 * columns, columns, 1)));
    Store *s = ref_store(k, v, out, 0, STRIDES(0, 0, 1));
    s->mode = ST_ADD;
    s->level = LV_ELEM;
    s->to.dyn = row;
    s->to.dyn_stride = columns;
    return align_all(k, 16);
}

/* A fifth of the additions goes to row 3: longer than a list's chunk in the end. */
static double fill_table(const Kernel *k, uint32_t arg, int64_t elem, uint64_t *random)
{
    (void)elem;
    if (arg > 0) return sim_value(k, arg, random);
    return test_random(random) % 5 == 0 ? 3 : test_random(random) % TABLE;
}

static void check_widths(const Sim *s, const SimCase *c, int n, const int *width)
{
    (void)s;
    for (int i = 0; i < n; i++) {
        int got = cuda_schedule(c[i].k, (CudaArch){0}).width;
        if (width[i] && got != width[i]) FAIL("%s: width %d, not %d", c[i].name, got, width[i]);
    }
}

int main(void)
{
    Sim s;
    if (!sim_open(&s, "cuda_wide")) return EXIT_SKIP;
    Arena *a = &s.arena;
    SimCase c[] = {
        {"points_bf16", make_points(a, DT_BF16, 40), NULL},
        {"points_f16", make_points(a, DT_F16, 36), NULL},
        {"points_f32", make_points(a, DT_F32, 40), NULL},
        {"points_f64", make_points(a, DT_F64, 40), NULL},
        {"points_odd", make_points(a, DT_F32, 39), NULL},
        {"points_unaligned", align_all(make_points(a, DT_F32, 40), 4), NULL},
        {"padded", make_padded(a), NULL},
        {"rows_warp", make_rows(a, DT_F32, 520, 132), NULL},
        {"rows_warp_bf16", make_rows(a, DT_BF16, 515, 64), NULL},
        {"rows_warp_short", make_rows(a, DT_BF16, 515, 48), NULL},
        {"rows_block", make_rows(a, DT_BF16, 5, 2048), NULL},
        {"rows_block_partly", make_rows(a, DT_F32, 5, 3004), NULL},
        {"rows_odd_held", make_rows(a, DT_F32, 9, 1031), NULL},
        {"rows_long", make_rows(a, DT_BF16, 3, 33000), NULL},
        {"rows_odd_long", make_rows(a, DT_BF16, 5, 33001), NULL},
        {"loss_held", make_loss(a, DT_F32, 5, 1500, true), NULL},
        {"loss_shared", make_loss(a, DT_BF16, 3, 40007, true), NULL},
        {"loss_f32", make_loss(a, DT_F32, 3, 33000, false), NULL},
        {"loss_odd", make_loss(a, DT_F32, 5, 33003, false), fill_masked},
        {"loss_online", make_loss(a, DT_F32, 3, 60001, true), NULL},
        {"columns_bf16", make_columns(a, DT_BF16, DT_F32, 300, 200), NULL},
        {"columns_f32", make_columns(a, DT_F32, DT_F32, 1000, 772), NULL},
        {"columns_f64", make_columns(a, DT_F32, DT_F64, 259, 130), NULL},
        {"columns_odd", make_columns(a, DT_F16, DT_F32, 300, 131), NULL},
        {"strips_bf16", make_columns(a, DT_BF16, DT_BF16, 5, 65544), NULL},
        {"strips_f32", make_columns(a, DT_F32, DT_F32, 3, 65540), NULL},
        {"strips_odd", make_columns(a, DT_F16, DT_F32, 3, 65539), NULL},
        {"long_row", make_long_rows(a, 1, 49996, 16), NULL},
        {"long_rows", make_long_rows(a, 3, 40000, 16), NULL},
        {"long_rows_unaligned", make_long_rows(a, 3, 40000, 4), NULL},
        {"table_f32", make_table(a, DT_F32, DT_BF16, 136, true), fill_table},
        {"table_zeros", make_table(a, DT_F32, DT_F32, 36, false), fill_table},
        {"table_bf16", make_table(a, DT_BF16, DT_BF16, 40, true), fill_table},
        {"table_odd", make_table(a, DT_F32, DT_F32, 33, true), fill_table},
    };
    enum { N = sizeof c / sizeof *c, N_POINTS_AND_ROWS = 20 };
    ZM_CHECK(strcmp(c[N_POINTS_AND_ROWS].name, "columns_bf16") == 0);
    static const int width[N] = {0, 0, 4, 2, 1, 1, 8, 4, 2, 1, 4, 4, 4, 4, 4, 4, 8,
                                 4, 4, 4, 4, 4, 2, 1, 8, 4, 1, 4, 4, 1, 4, 4, 8, 1};
    check_widths(&s, c, N, width);
    sim_check(&s, "compute_80", c, N);
    sim_check(&s, "compute_75", c,
              N_POINTS_AND_ROWS); /* 64 KiB of shared memory, 16 bits by hand */
    sim_check(&s, "compute_90", c, N_POINTS_AND_ROWS); /* 227 KiB */
    return sim_close(&s);
}
