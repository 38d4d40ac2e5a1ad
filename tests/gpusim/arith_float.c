/* arith_float.c -- f32, f64 and f16/bf16 arithmetic.
 *
 * Instructions that round by the ISA are exact here: the host rounds as they do, fma is fused,
 * nothing is contracted.  Approximations (ex2, lg2, sin, cos, tanh, rcp, rsqrt, sqrt, div
 * .approx) are computed in f64 or correctly rounded, so they lie within the ISA's bounds (2 ulp for
 * ex2, div; 2^-22 for lg2; 2^-20.5 absolute for sin and cos; 2^-11 relative for tanh; 1 ulp for
 * rcp; 2^-22.9 relative for rsqrt; 2^-23 for sqrt), but are not the GPU's bits: compare with a
 * tolerance that allows for them. */
#include "tests/gpusim/arith.h"

#include <fenv.h>
#include <math.h>
#include <string.h>

/* -0 < +0, and a NaN loses (or, with .NaN, wins). */
#define LESS(x, y) ((x) < (y) || ((x) == (y) && signbit(x)))
#define MIN_OF(x, y) ((x) != (x) ? (y) : (y) != (y) ? (x) : LESS(x, y) ? (x) : (y))
#define MAX_OF(x, y) ((x) != (x) ? (y) : (y) != (y) ? (x) : LESS(x, y) ? (y) : (x))

#define OPERATIONS(S, T, F)                                                                        \
    BINARY(add_##S, T, x + y)                                                                      \
    BINARY(sub_##S, T, x - y)                                                                      \
    BINARY(mul_##S, T, x *y)                                                                       \
    BINARY(div_##S, T, x / y)                                                                      \
    BINARY(min_##S, T, MIN_OF(x, y))                                                               \
    BINARY(max_##S, T, MAX_OF(x, y))                                                               \
    BINARY(min_nan_##S, T, x != x || y != y ? (T)NAN : MIN_OF(x, y))                               \
    BINARY(max_nan_##S, T, x != x || y != y ? (T)NAN : MAX_OF(x, y))                               \
    BINARY(copysign_##S, T, F(copysign)(y, x))                                                     \
    TERNARY(fma_##S, T, T, F(fma)(x, y, z))                                                        \
    UNARY(neg_##S, T, T, -x)                                                                       \
    UNARY(abs_##S, T, T, F(fabs)(x))                                                               \
    UNARY(sqrt_##S, T, T, F(sqrt)(x))                                                              \
    UNARY(rcp_##S, T, T, 1 / x)
#define F32(NAME) __builtin_##NAME##f
#define F64(NAME) __builtin_##NAME
OPERATIONS(f32, float, F32)
OPERATIONS(f64, double, F64)

UNARY(ex2_f32, float, float, exp2f(x))
UNARY(lg2_f32, float, float, (float)log2((double)x))
UNARY(sin_f32, float, float, (float)sin((double)x))
UNARY(cos_f32, float, float, (float)cos((double)x))
UNARY(tanh_f32, float, float, (float)tanh((double)x))
UNARY(rsqrt_f32, float, float, (float)(1 / sqrt((double)x)))
UNARY(rsqrt_f64, double, double, 1 / sqrt(x))
/* NaN becomes 0. */
UNARY(saturate_f32, float, float, x > 0 ? x < 1 ? x : 1 : 0)
UNARY(saturate_f64, double, double, x > 0 ? x < 1 ? x : 1 : 0)
UNARY(flush_f32, float, float, fabsf(x) < 0x1p-126f ? copysignf(0, x) : x)

static void testp_nan_f32(Warp *w, const Insn *in)
{
    uint32_t *d = SLOT(w, uint32_t, in->d);
    const float *a = SLOT(w, float, in->a);
    EACH_LANE(w, d[l] = a[l] != a[l]);
}

static void testp_finite_f32(Warp *w, const Insn *in)
{
    uint32_t *d = SLOT(w, uint32_t, in->d);
    const float *a = SLOT(w, float, in->a);
    EACH_LANE(w, d[l] = fabsf(a[l]) < INFINITY);
}

void exec_rounded(Warp *w, const Insn *in)
{
    static const int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
    fesetround(modes[in->variant]);
    in->inner(w, in);
    fesetround(FE_TONEAREST);
}

/* ---- 16 bits: one number, or two side by side ---- */

static float of_bf16(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static float of_f16(uint16_t h)
{
    _Float16 v;
    memcpy(&v, &h, sizeof v);
    return (float)v;
}

/* From f64, which holds sums and products of two exactly: one rounding.  NaN is 0x7fff. */
static uint16_t to_f16(double v)
{
    if (v != v) return 0x7fff;
    _Float16 h = (_Float16)v;
    uint16_t u;
    memcpy(&u, &h, sizeof u);
    return u;
}

/* f64 to f32 by rounding to odd, then to nearest even: as good as one rounding. */
static uint16_t to_bf16(double v)
{
    if (v != v) return 0x7fff;
    float f = (float)v;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((double)f != v && fabsf(f) <= 0x1.fffffep127f) {
        if (fabs((double)f) > fabs(v)) u--;
        u |= 1;
    } else if (isinf(f) && !isinf(v))
        u -= 1; /* the largest f32, which rounds to infinity again */
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

#define HALF_LOOP(NAME, N_ARGS, OF, TO, COUNT, EXPR)                                               \
    static void NAME(Warp *w, const Insn *in)                                                      \
    {                                                                                              \
        uint16_t *d = SLOT(w, uint16_t, in->d);                                                    \
        const uint16_t *a = SLOT(w, uint16_t, in->a);                                              \
        const uint16_t *b = SLOT(w, uint16_t, N_ARGS > 1 ? in->b : in->a);                         \
        const uint16_t *c = SLOT(w, uint16_t, N_ARGS > 2 ? in->c : in->a);                         \
        for (int l = 0; l < LANES; l++) {                                                          \
            if (!(w->mask >> l & 1)) continue;                                                     \
            for (int i = COUNT * l; i < COUNT * l + COUNT; i++) {                                  \
                double x = (double)OF(a[i]), y = (double)OF(b[i]), z = (double)OF(c[i]);           \
                (void)y;                                                                           \
                (void)z;                                                                           \
                d[i] = TO(EXPR);                                                                   \
            }                                                                                      \
        }                                                                                          \
    }
/* A product of two bf16 or f16 and a third: exact in f64 up to its own 53 bits; fma's rare double
 * rounding needs operands 2^30 apart, where the sum is inexact: long double holds those of f16. */
#define HALVES(S, OF, TO, COUNT)                                                                   \
    HALF_LOOP(add_##S, 2, OF, TO, COUNT, x + y)                                                    \
    HALF_LOOP(sub_##S, 2, OF, TO, COUNT, x - y)                                                    \
    HALF_LOOP(mul_##S, 2, OF, TO, COUNT, x *y)                                                     \
    HALF_LOOP(fma_##S, 3, OF, TO, COUNT, (double)((long double)x * y + z))                         \
    HALF_LOOP(min_##S, 2, OF, TO, COUNT, MIN_OF(x, y))                                             \
    HALF_LOOP(max_##S, 2, OF, TO, COUNT, MAX_OF(x, y))                                             \
    HALF_LOOP(neg_##S, 1, OF, TO, COUNT, -x)                                                       \
    HALF_LOOP(abs_##S, 1, OF, TO, COUNT, fabs(x))
HALVES(f16, of_f16, to_f16, 1)
HALVES(f16x2, of_f16, to_f16, 2)
HALVES(bf16, of_bf16, to_bf16, 1)
HALVES(bf16x2, of_bf16, to_bf16, 2)

#define TABLE(S, R)                                                                                \
    {"add." #S, R R R, add_##S}, {"sub." #S, R R R, sub_##S}, {"mul." #S, R R R, mul_##S},         \
        {"fma." #S, R R R R, fma_##S}, {"min." #S, R R R, min_##S}, {"max." #S, R R R, max_##S},   \
        {"neg." #S, R R, neg_##S},                                                                 \
    {                                                                                              \
        "abs." #S, R R, abs_##S                                                                    \
    }
#define TABLE_MORE(S, R)                                                                           \
    {"mad." #S, R R R R, fma_##S}, {"div." #S, R R R, div_##S}, {"sqrt." #S, R R, sqrt_##S},       \
        {"rcp." #S, R R, rcp_##S}, {"rsqrt." #S, R R, rsqrt_##S},                                  \
        {"copysign." #S, R R R, copysign_##S}, {"saturate." #S, R R, saturate_##S},                \
        {"min.NaN." #S, R R R, min_nan_##S},                                                       \
    {                                                                                              \
        "max.NaN." #S, R R R, max_nan_##S                                                          \
    }

const Arith arith_float[] = {TABLE(f32, "w"),
                             TABLE(f64, "l"),
                             TABLE(f16, "h"),
                             TABLE(bf16, "h"),
                             TABLE(f16x2, "w"),
                             TABLE(bf16x2, "w"),
                             TABLE_MORE(f32, "w"),
                             TABLE_MORE(f64, "l"),
                             {"ex2.f32", "ww", ex2_f32},
                             {"lg2.f32", "ww", lg2_f32},
                             {"sin.f32", "ww", sin_f32},
                             {"cos.f32", "ww", cos_f32},
                             {"tanh.f32", "ww", tanh_f32},
                             {"flush.f32", "ww", flush_f32},
                             {"testp.notanumber.f32", "pw", testp_nan_f32},
                             {"testp.finite.f32", "pw", testp_finite_f32},
                             {NULL, NULL, NULL}};
