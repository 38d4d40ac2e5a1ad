/* comm_sum.c -- see comm_sum.h.  Two terms make a sum in one pass over memory; 16-bit terms are
 * widened in blocks that stay in the first cache. */
#include "runtime/comm_sum.h"

#include <stdbool.h>
#include <string.h>

#include "ir/base/program.h"
#include "runtime/convert.h"

enum { BLOCK = 1024 }; /* elements */

size_t comm_elem_bytes(uint32_t dtype)
{
    if (dtype == ZMP_BF16 || dtype == ZMP_F16) return 2;
    if (dtype == ZMP_F32 || dtype == ZMP_I32) return 4;
    return dtype == ZMP_F64 ? 8 : 0;
}

size_t comm_acc_bytes(uint32_t dtype)
{
    return dtype == ZMP_F64 ? 8 : 4;
}

static bool is_low(uint32_t dtype)
{
    return dtype == ZMP_BF16 || dtype == ZMP_F16;
}

#ifdef __OPTIMIZE__ /* elsewhere gcc warns that it ignores it */
#define ANY_ORDER _Pragma("GCC ivdep")
#else
#define ANY_ORDER
#endif

/* to = a + b, or (a + b) + c.  `to` may be one of them, element by element: the loops need no order
 * (ivdep, which a build without optimization refuses). */
#ifdef __OPTIMIZE__
#define ANY_ORDER _Pragma("GCC ivdep")
#else
#define ANY_ORDER
#endif
#define SUM_OF(NAME, TYPE)                                                                         \
    static void NAME(TYPE *to, const TYPE *a, const TYPE *b, const TYPE *c, size_t n)              \
    {                                                                                              \
        ANY_ORDER for (size_t i = 0; !c && i < n; i++) to[i] = a[i] + b[i];                        \
        ANY_ORDER for (size_t i = 0; c && i < n; i++) to[i] = a[i] + b[i] + c[i];                  \
    }

SUM_OF(sum_f32, float)
SUM_OF(sum_f64, double)
SUM_OF(sum_i32, uint32_t) /* wraps around, so that the order of terms does not matter */

/* Accumulators of these dtypes look like their tensors. */
static void sum_plain(void *to, const SumTerms *t, size_t n)
{
    const void *in[1 + COMM_MAX_TERMS] = {0};
    int n_in = 0;
    if (t->acc) in[n_in++] = t->acc;
    for (int k = 0; k < t->n_terms; k++) in[n_in++] = t->term[k];
    if (n_in == 1)
        memcpy(to, in[0], n * comm_elem_bytes(t->dtype));
    else if (t->dtype == ZMP_F32)
        sum_f32(to, in[0], in[1], in[2], n);
    else if (t->dtype == ZMP_F64)
        sum_f64(to, in[0], in[1], in[2], n);
    else if (t->dtype == ZMP_I32)
        sum_i32(to, in[0], in[1], in[2], n);
}

/* Elements [i, i + n) of a sum of 16-bit terms. */
static void block_low(float *sum, const SumTerms *t, size_t i, size_t n)
{
    float wide[BLOCK];
    int k = 0;
    if (t->acc)
        memcpy(sum, (const float *)t->acc + i, n * sizeof *sum);
    else
        convert_to_f32(sum, (const char *)t->term[k++] + 2 * i, t->dtype, n);
    for (; k < t->n_terms; k++) {
        convert_to_f32(wide, (const char *)t->term[k] + 2 * i, t->dtype, n);
        sum_f32(sum, sum, wide, NULL, n);
    }
}

static void sum_low(void *to, bool is_acc, const SumTerms *t, size_t n)
{
    float sum[BLOCK];
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t k = n - i < BLOCK ? n - i : BLOCK;
        block_low(sum, t, i, k);
        if (is_acc)
            memcpy((float *)to + i, sum, k * sizeof *sum);
        else
            convert_from_f32((char *)to + 2 * i, t->dtype, sum, k);
    }
}

void comm_sum_acc(void *to, const SumTerms *t, size_t n)
{
    if (is_low(t->dtype))
        sum_low(to, true, t, n);
    else
        sum_plain(to, t, n);
}

void comm_sum_out(void *to, const SumTerms *t, size_t n)
{
    if (is_low(t->dtype))
        sum_low(to, false, t, n);
    else
        sum_plain(to, t, n);
}
