/* kernel_trim.c -- the same work on two parts of a value is one form; what may not be cut is not.
 */
#include "tests/unit/kernel_ref.h"

#include <stdio.h>

#include "codegen/program.h"

static int n_bad;
#define CHECK(X)                                                                                   \
    do {                                                                                           \
        if (!(X)) n_bad++, fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #X);                 \
    } while (0)

/* out[r] = sum of x[first + r, c] * w[c] */
static Kernel *make_part(Arena *a, int64_t first)
{
    enum { ALL = 40, ROWS = 8, C = 5 };
    Kernel *k = ref_kernel(a, KK_NEST, "part", 1);
    ref_loop(k, LOOP_PAR, ROWS);
    ref_loop(k, LOOP_RED, C);
    int x = ref_in(k, DT_F32, ALL * C), w = ref_in(k, DT_F32, C), out = ref_out(k, DT_F32, 8, -1);
    int v = ref_load(k, x, first * C, STRIDES(C, 1)), u = ref_load(k, w, 0, STRIDES(0, 1));
    ref_store(k, ref_reduce(k, OP_REDUCE_SUM, ref_bin(k, OP_MUL, v, u), 0), out, 0, STRIDES(1));
    return k;
}

static void test_parts(Arena *a)
{
    int64_t first[2][4];
    Kernel *x = make_part(a, 0), *y = make_part(a, 24);
    CHECK(!kernel_equal(x, y));
    kernel_trim(x, first[0]);
    kernel_trim(y, first[1]);
    CHECK(kernel_equal(x, y) && kernel_hash(x) == kernel_hash(y));
    CHECK(first[0][0] == 0 && first[1][0] == 24 * 5 && first[1][1] == 0 && first[1][2] == 0);
    CHECK(y->args[0].elems == 8 * 5 && y->accesses[0].base == 0);
}

/* A table, padding, and what the output may lie on stay whole. */
static void test_whole(Arena *a)
{
    static const Guard inside[] = {{.stride = {1}, .base = -1, .lo = 0, .hi = 7}};
    Kernel *k = ref_kernel(a, KK_NEST, "whole", 1);
    ref_loop(k, LOOP_PAR, 8);
    int table = ref_in(k, DT_F32, 100), at = ref_in(k, DT_I32, 20), pad = ref_in(k, DT_F32, 90),
        old = ref_in(k, DT_F32, 50), out = ref_out(k, DT_F32, 50, old);
    int row = ref_load(k, at, 9, STRIDES(1)), t = ref_load_dyn(k, table, 3, STRIDES(0), row, 4);
    int p = ref_load_guarded(k, pad, 4, STRIDES(1), inside, 1);
    int sum = ref_bin(k, OP_ADD, ref_bin(k, OP_ADD, t, p), ref_load(k, old, 2, STRIDES(1)));
    ref_store(k, sum, out, 2, STRIDES(1));
    int64_t first[5];
    kernel_trim(k, first);
    CHECK(first[0] == 0 && first[1] == 9 && first[2] == 0 && first[3] == 0 && first[4] == 0);
    CHECK(k->args[0].elems == 100 && k->args[1].elems == 8 && k->args[2].elems == 90);
    CHECK(k->args[3].elems == 50 && k->args[4].elems == 50 && k->stores[0].to.base == 2);
}

int main(void)
{
    Arena a = {0};
    test_parts(&a);
    test_whole(&a);
    printf("kernel_trim: %d failures\n", n_bad);
    arena_free(&a);
    return n_bad != 0;
}
