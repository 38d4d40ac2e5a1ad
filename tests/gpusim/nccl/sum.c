/* sum.c -- sums in the order of ranks. */
#include <string.h>

#include "tests/gpusim/nccl/nccl.h"

size_t type_bytes(int type)
{
    switch (type) {
    case ncclFloat16:
    case ncclBfloat16: return 2;
    case ncclInt32:
    case ncclFloat32: return 4;
    case ncclFloat64: return 8;
    default: return 0;
    }
}

static float bf16_widen(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint16_t bf16_round(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (f != f) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16); /* to nearest, ties to even */
}

#define SUM(TYPE, WIDE, WIDEN, ROUND)                                                              \
    for (size_t i = 0; i < n; i++) {                                                               \
        WIDE sum = WIDEN(((const TYPE *)rows[0])[i]);                                              \
        for (int r = 1; r < n_rows; r++) sum += WIDEN(((const TYPE *)rows[r])[i]);                 \
        ((TYPE *)out)[i] = ROUND(sum);                                                             \
    }

void sum_rows(int type, const void *const *rows, int n_rows, void *out, size_t n)
{
    switch (type) {
    case ncclInt32: SUM(uint32_t, uint32_t, , ) break; /* wraps */
    case ncclFloat16: SUM(_Float16, float, (float), (_Float16)) break;
    case ncclBfloat16: SUM(uint16_t, float, bf16_widen, bf16_round) break;
    case ncclFloat32: SUM(float, float, , ) break;
    case ncclFloat64: SUM(double, double, , ) break;
    default: break;
    }
}
