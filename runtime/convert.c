/* convert.c -- see convert.h. */
#include "runtime/convert.h"

#include <math.h>
#include <string.h>

#include "ir/base/program.h"

static float f32_of_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static uint32_t bits_of_f32(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float f32_of_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 31u;
    uint32_t fraction = h & 0x3ffu;
    if (exponent == 31) return f32_of_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent) return f32_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
    float f = ldexpf((float)fraction, -24);
    return sign ? -f : f;
}

static uint16_t f16_of_f32(float f)
{
    uint32_t u = bits_of_f32(f);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000u);
    uint32_t a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return sign | 0x7e00u;
    if (a >= 0x477ff000u) return sign | 0x7c00u; /* 65520 and above rounds to infinity */
    if (a < 0x38800000u)
        return sign | (uint16_t)nearbyintf(ldexpf(f32_of_bits(a), 24)); /* below 2^-14: subnormal */
    uint32_t rounded = a + 0xfffu + (a >> 13 & 1u);
    return sign | (uint16_t)((rounded - 0x38000000u) >> 13);
}

static uint16_t bf16_of_f32(float f)
{
    uint32_t u = bits_of_f32(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

static void f16_to_f32(float *out, const char *in, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, in + 2 * i, sizeof h);
        out[i] = f32_of_f16(h);
    }
}

static void bf16_to_f32(float *out, const char *in, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, in + 2 * i, sizeof h);
        out[i] = f32_of_bits((uint32_t)h << 16);
    }
}

void convert_to_f32(float *out, const void *in, uint32_t dtype, size_t n)
{
    if (dtype == ZMP_F32) memcpy(out, in, n * sizeof *out);
    if (dtype == ZMP_F16) f16_to_f32(out, in, n);
    if (dtype == ZMP_BF16) bf16_to_f32(out, in, n);
    if (dtype != ZMP_F64) return;
    for (size_t i = 0; i < n; i++) {
        double d;
        memcpy(&d, (const char *)in + 8 * i, sizeof d);
        out[i] = (float)d;
    }
}

void convert_from_f32(void *out, uint32_t dtype, const float *in, size_t n)
{
    if (dtype == ZMP_F32) memcpy(out, in, n * sizeof *in);
    for (size_t i = 0; i < n && dtype != ZMP_F32; i++) {
        uint16_t h = dtype == ZMP_F16 ? f16_of_f32(in[i]) : bf16_of_f32(in[i]);
        double d = in[i];
        if (dtype == ZMP_F64)
            memcpy((char *)out + 8 * i, &d, sizeof d);
        else
            memcpy((char *)out + 2 * i, &h, sizeof h);
    }
}
