/* comm_sum.c -- see comm_sum.h.  16-bit terms are widened in blocks that stay in the first cache.
 */
#include "runtime/comm_sum.h"

#include <string.h>

#include "ir/base/program.h"
#include "runtime/convert.h"

enum { BLOCK = 1024 };

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

static int is_low(uint32_t dtype)
{
    return dtype == ZMP_BF16 || dtype == ZMP_F16;
}

void comm_sum_set(void *acc, const void *x, uint32_t dtype, size_t n)
{
    if (is_low(dtype))
        convert_to_f32(acc, x, dtype, n);
    else
        memcpy(acc, x, n * comm_elem_bytes(dtype));
}

static void add_f32(float *restrict acc, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++) acc[i] += x[i];
}

static void add_f64(double *restrict acc, const double *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++) acc[i] += x[i];
}

/* Wraps around, so that the order of terms does not matter. */
static void add_i32(uint32_t *restrict acc, const uint32_t *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++) acc[i] += x[i];
}

static void add_low(float *acc, const char *x, uint32_t dtype, size_t n)
{
    float wide[BLOCK];
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t k = n - i < BLOCK ? n - i : BLOCK;
        convert_to_f32(wide, x + 2 * i, dtype, k);
        add_f32(acc + i, wide, k);
    }
}

void comm_sum_add(void *acc, const void *x, uint32_t dtype, size_t n)
{
    if (dtype == ZMP_F32) add_f32(acc, x, n);
    if (dtype == ZMP_F64) add_f64(acc, x, n);
    if (dtype == ZMP_I32) add_i32(acc, x, n);
    if (is_low(dtype)) add_low(acc, x, dtype, n);
}

void comm_sum_store(void *out, const void *acc, uint32_t dtype, size_t n)
{
    if (is_low(dtype))
        convert_from_f32(out, dtype, acc, n);
    else
        memcpy(out, acc, n * comm_elem_bytes(dtype));
}
