/* convert.c -- see convert.h. */
#include "runtime/convert.h"

#include <stdbool.h>
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

/* is_first ? a : b without a branch, so that loops become vector code. */
static uint32_t pick(bool is_first, uint32_t a, uint32_t b)
{
    uint32_t mask = 0u - (uint32_t)is_first;
    return (a & mask) | (b & ~mask);
}

static float f32_of_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, a = (uint32_t)(h & 0x7fffu) << 13;
    /* The exponent counts from 15, not 127; exact below 2^-14, too. */
    uint32_t finite = bits_of_f32(f32_of_bits(a) * 0x1p112f);
    return f32_of_bits(sign | pick(a < 0x0f800000u, finite, a | 0x7f800000u));
}

static uint16_t f16_of_f32(float f)
{
    uint32_t u = bits_of_f32(f), a = u & 0x7fffffffu;
    uint32_t normal = (a + 0xfffu + (a >> 13 & 1u) - 0x38000000u) >> 13;
    /* Below 2^-14 a unit is 2^-24, that of 0.5: the sum rounds. */
    uint32_t small = bits_of_f32(f32_of_bits(pick(a < 0x38800000u, a, 0)) + 0.5f) - 0x3f000000u;
    uint32_t h = pick(a < 0x38800000u, small, normal);
    h = pick(a >= 0x477ff000u, 0x7c00u, h); /* 65520 and above rounds to infinity */
    h = pick(a > 0x7f800000u, 0x7e00u, h);
    return (uint16_t)(u >> 16 & 0x8000u) | (uint16_t)h;
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

static void f16_from_f32(char *out, const float *in, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h = f16_of_f32(in[i]);
        memcpy(out + 2 * i, &h, sizeof h);
    }
}

static void bf16_from_f32(char *out, const float *in, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h = bf16_of_f32(in[i]);
        memcpy(out + 2 * i, &h, sizeof h);
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
    if (dtype == ZMP_F16) f16_from_f32(out, in, n);
    if (dtype == ZMP_BF16) bf16_from_f32(out, in, n);
    if (dtype != ZMP_F64) return;
    for (size_t i = 0; i < n; i++) {
        double d = in[i];
        memcpy((char *)out + 8 * i, &d, sizeof d);
    }
}
