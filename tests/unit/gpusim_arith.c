/* gpusim_arith.c -- each instruction that computes in one lane, against its definition in C: all
 * pairs of awkward values and random ones.  Roundings that are not the host's own are checked by
 * exact error terms, approximations by the bounds of the PTX ISA. */
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>

#include "tests/unit/check.h"
#include "tests/unit/gpusim_driver.h"

enum { N = 2048 };

typedef enum { EQUAL_BITS, EQUAL_F32, EQUAL_F64, EQUAL_F16, EQUAL_BF16 } Equality;

typedef struct Form {
    const char *op, *shape; /* result and operands: p predicate, h 16, w 32, l 64 bits */
    Equality equality;      /* of NaN any is right */
    double bound;           /* f32: relative; negative: absolute; 0: exact */
} Form;

/* ---- bits ---- */

static float f32_of(uint64_t v)
{
    uint32_t u = (uint32_t)v;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static double f64_of(uint64_t v)
{
    double f;
    memcpy(&f, &v, sizeof f);
    return f;
}

static uint64_t of_f32(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static uint64_t of_f64(double f)
{
    uint64_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* ---- roundings by exact terms: hi + lo is the exact value ---- */

static float directed(double hi, double lo, int way) /* -1 down, 1 up, 0 to zero */
{
    float f = (float)hi;
    if (isnan(hi) || isinf(hi)) return f;
    if (way == 0) way = hi + lo > 0 ? -1 : 1;
    double over = isinf(f) ? (double)f : ((double)f - hi) - lo; /* exact: f is next to hi */
    if (way < 0 && over > 0) return nextafterf(f, -INFINITY);
    if (way > 0 && over < 0) return nextafterf(f, INFINITY);
    return f;
}

static double sum_error(double a, double b)
{
    double s = a + b, x = s - a;
    return (a - (s - x)) + (b - x);
}

static float add_way(float a, float b, int way)
{
    double x = (double)a, y = (double)b;
    if (x + y == 0 && way < 0) return signbit(x) || signbit(y) ? -0.0f : 0; /* x - x, too */
    return directed(x + y, isfinite(x + y) ? sum_error(x, y) : 0, way);
}

static float fma_way(float a, float b, float c, int way)
{
    double p = (double)a * (double)b, z = (double)c;
    if (p + z == 0 && way < 0) return signbit(p) || signbit(z) ? -0.0f : 0;
    return directed(p + z, isfinite(p + z) ? sum_error(p, z) : 0, way);
}

static float sqrt_zero(float a)
{
    float f = sqrtf(a);
    return (double)f * (double)f > (double)a ? nextafterf(f, 0) : f;
}

/* To nearest even with `drop` bits less, of a finite f32. */
static uint64_t drop_bits(float f, int drop)
{
    uint64_t u = of_f32(f), half = 1ull << (drop - 1), low = u & ((1ull << drop) - 1);
    u >>= drop;
    return u + (low > half || (low == half && (u & 1)));
}

static uint64_t bf16_of(float f)
{
    return isnan(f) ? 0x7fff : drop_bits(f, 16);
}

/* By search: the nearest of all f16, ties to even. */
static uint64_t f16_of(float f)
{
    uint64_t sign = of_f32(f) >> 16 & 0x8000;
    double a = fabs((double)f);
    if (isnan(f)) return 0x7fff;
    if (a >= 65520) return sign | 0x7c00;
    int e = a < 0x1p-14 ? -14 : ilogb(a);
    double scaled = ldexp(a, 10 - e), near = nearbyint(scaled);
    return sign | (uint64_t)((e + 14) * 1024 + (int)near + 0);
}

static uint64_t int_of(double v, int bits, bool is_signed)
{
    if (isnan(v)) return 0;
    double low = is_signed ? -ldexp(1, bits - 1) : 0, high = ldexp(1, bits - is_signed) - 1;
    if (v <= low) return is_signed ? 1ull << (bits - 1) : 0;
    if (v >= high) return is_signed ? (1ull << (bits - 1)) - 1 : UINT64_MAX >> (64 - bits);
    return is_signed ? (uint64_t)(int64_t)v : (uint64_t)v;
}

/* ---- what they compute ---- */

#define FA f32_of(a)
#define FB f32_of(b)
#define FC f32_of(c)
#define DA f64_of(a)
#define DB f64_of(b)
#define DC f64_of(c)
#define UA ((uint32_t)a)
#define UB ((uint32_t)b)
#define UC ((uint32_t)c)
#define SA ((int32_t)a)
#define SB ((int32_t)b)
#define LA ((int64_t)a)
#define LB ((int64_t)b)
#define HA ((uint16_t)a)
#define HB ((uint16_t)b)
#define KA ((int16_t)a)
#define KB ((int16_t)b)
#define WIDE(x) ((__int128)(x))
#define FIRST_SET(x) ((x) ? 31 - __builtin_clz(x) : -1)

static uint32_t reversed(uint32_t v)
{
    uint32_t r = 0;
    for (int i = 0; i < 32; i++) r |= (v >> i & 1) << (31 - i);
    return r;
}

static uint32_t permuted(uint32_t a, uint32_t b, uint32_t s)
{
    uint8_t bytes[8], r[4];
    memcpy(bytes, &a, 4);
    memcpy(bytes + 4, &b, 4);
    for (int i = 0; i < 4; i++) {
        uint8_t v = bytes[s >> 4 * i & 7];
        r[i] = s >> 4 * i & 8 ? (v & 0x80 ? 255 : 0) : v;
    }
    memcpy(&a, r, 4);
    return a;
}

static uint64_t inserted(uint64_t a, uint64_t b, uint64_t at, uint64_t n, int bits)
{
    at &= 255;
    n &= 255;
    for (uint64_t i = 0; i < (uint64_t)bits; i++)
        if (i >= at && i < at + n) b = (b & ~(1ull << i)) | (a >> (i - at) & 1) << i;
    return b;
}

static float least(float a, float b)
{
    if (a == b) return signbit(a) ? a : b;
    return isnan(a) ? b : isnan(b) ? a : fminf(a, b);
}

static float most(float a, float b)
{
    if (a == b) return signbit(a) ? b : a;
    return isnan(a) ? b : isnan(b) ? a : fmaxf(a, b);
}

#define FORMS(X)                                                                                   \
    X("add.s32", "www", UA + UB, EQUAL_BITS, 0)                                                    \
    X("add.s64", "lll", a + b, EQUAL_BITS, 0)                                                      \
    X("add.u16", "hhh", HA + HB, EQUAL_BITS, 0)                                                    \
    X("sub.s32", "www", UA - UB, EQUAL_BITS, 0)                                                    \
    X("sub.s64", "lll", a - b, EQUAL_BITS, 0)                                                      \
    X("sub.s16", "hhh", HA - HB, EQUAL_BITS, 0)                                                    \
    X("mul.lo.s16", "hhh", (uint32_t)HA *HB, EQUAL_BITS, 0)                                        \
    X("mul.lo.s32", "www", UA *UB, EQUAL_BITS, 0)                                                  \
    X("mul.lo.u32", "www", UA *UB, EQUAL_BITS, 0)                                                  \
    X("mul.lo.s64", "lll", a *b, EQUAL_BITS, 0)                                                    \
    X("mul.hi.u32", "www", (a & UINT32_MAX) * (b & UINT32_MAX) >> 32, EQUAL_BITS, 0)               \
    X("mul.hi.s32", "www", (uint64_t)((int64_t)SA * SB) >> 32, EQUAL_BITS, 0)                      \
    X("mul.hi.u64", "lll", (uint64_t)((unsigned __int128)a * b >> 64), EQUAL_BITS, 0)              \
    X("mul.hi.s64", "lll", (uint64_t)(WIDE(LA) * LB >> 64), EQUAL_BITS, 0)                         \
    X("mul.wide.u16", "whh", (uint32_t)HA *HB, EQUAL_BITS, 0)                                      \
    X("mul.wide.s16", "whh", (uint32_t)((int32_t)KA * KB), EQUAL_BITS, 0)                          \
    X("mul.wide.u32", "lww", (uint64_t)UA *UB, EQUAL_BITS, 0)                                      \
    X("mul.wide.s32", "lww", (uint64_t)((int64_t)SA * SB), EQUAL_BITS, 0)                          \
    X("mad.lo.s32", "wwww", UA *UB + UC, EQUAL_BITS, 0)                                            \
    X("mad.wide.u32", "lwwl", (uint64_t)UA *UB + c, EQUAL_BITS, 0)                                 \
    X("mad.wide.s32", "lwwl", (uint64_t)((int64_t)SA * SB) + c, EQUAL_BITS, 0)                     \
    X("mad.hi.u32", "wwww", ((uint64_t)UA * UB >> 32) + UC, EQUAL_BITS, 0)                         \
    X("div.u32", "www", UB ? UA / UB : UINT32_MAX, EQUAL_BITS, 0)                                  \
    X("rem.u32", "www", UB ? UA % UB : UA, EQUAL_BITS, 0)                                          \
    X("div.s32", "www", SB ? (uint64_t)((int64_t)SA / SB) : UINT32_MAX, EQUAL_BITS, 0)             \
    X("rem.s32", "www", SB ? (uint64_t)((int64_t)SA % SB) : UA, EQUAL_BITS, 0)                     \
    X("div.u64", "lll", b ? a / b : UINT64_MAX, EQUAL_BITS, 0)                                     \
    X("rem.s64", "lll", b ? (uint64_t)(WIDE(LA) % LB) : a, EQUAL_BITS, 0)                          \
    X("and.b16", "hhh", HA &HB, EQUAL_BITS, 0)                                                     \
    X("and.b32", "www", UA &UB, EQUAL_BITS, 0)                                                     \
    X("and.b64", "lll", a &b, EQUAL_BITS, 0)                                                       \
    X("or.b16", "hhh", HA | HB, EQUAL_BITS, 0)                                                     \
    X("or.b32", "www", UA | UB, EQUAL_BITS, 0)                                                     \
    X("or.b64", "lll", a | b, EQUAL_BITS, 0)                                                       \
    X("xor.b32", "www", UA ^ UB, EQUAL_BITS, 0)                                                    \
    X("xor.b64", "lll", a ^ b, EQUAL_BITS, 0)                                                      \
    X("not.b32", "ww", ~UA, EQUAL_BITS, 0)                                                         \
    X("not.b64", "ll", ~a, EQUAL_BITS, 0)                                                          \
    X("neg.s32", "ww", 0 - UA, EQUAL_BITS, 0)                                                      \
    X("abs.s32", "ww", SA < 0 ? 0 - UA : UA, EQUAL_BITS, 0)                                        \
    X("shl.b32", "www", UB < 32 ? UA << UB : 0, EQUAL_BITS, 0)                                     \
    X("shl.b64", "llw", UB < 64 ? a << UB : 0, EQUAL_BITS, 0)                                      \
    X("shr.u32", "www", UB < 32 ? UA >> UB : 0, EQUAL_BITS, 0)                                     \
    X("shr.s32", "www", (uint32_t)(SA >> (UB < 32 ? UB : 31)), EQUAL_BITS, 0)                      \
    X("shr.u64", "llw", UB < 64 ? a >> UB : 0, EQUAL_BITS, 0)                                      \
    X("shr.s64", "llw", (uint64_t)(LA >> (UB < 64 ? UB : 63)), EQUAL_BITS, 0)                      \
    X("shf.l.wrap.b32", "wwww", ((b << 32 | UA) << (c & 31)) >> 32, EQUAL_BITS, 0)                 \
    X("shf.r.wrap.b32", "wwww", (b << 32 | UA) >> (c & 31), EQUAL_BITS, 0)                         \
    X("min.s32", "www", (uint32_t)(SA < SB ? SA : SB), EQUAL_BITS, 0)                              \
    X("max.s32", "www", (uint32_t)(SA > SB ? SA : SB), EQUAL_BITS, 0)                              \
    X("min.u32", "www", UA < UB ? UA : UB, EQUAL_BITS, 0)                                          \
    X("max.u32", "www", UA > UB ? UA : UB, EQUAL_BITS, 0)                                          \
    X("max.s64", "lll", (uint64_t)(LA > LB ? LA : LB), EQUAL_BITS, 0)                              \
    X("sad.s32", "wwww", (uint64_t)llabs((int64_t)SA - SB) + UC, EQUAL_BITS, 0)                    \
    X("popc.b32", "ww", (uint64_t)__builtin_popcount(UA), EQUAL_BITS, 0)                           \
    X("clz.b32", "ww", (uint64_t)(31 - FIRST_SET(UA)), EQUAL_BITS, 0)                              \
    X("clz.b64", "wl", (uint64_t)(a ? __builtin_clzll(a) : 64), EQUAL_BITS, 0)                     \
    X("brev.b32", "ww", reversed(UA), EQUAL_BITS, 0)                                               \
    X("bfind.u32", "ww", (uint64_t)FIRST_SET(UA), EQUAL_BITS, 0)                                   \
    X("bfind.shiftamt.u32", "ww", UA ? (uint64_t)(31 - FIRST_SET(UA)) : UINT32_MAX, EQUAL_BITS, 0) \
    X("bfi.b32", "wwwww", inserted(a, b, c, e, 32), EQUAL_BITS, 0)                                 \
    X("bfi.b64", "lllww", inserted(a, b, c, e, 64), EQUAL_BITS, 0)                                 \
    X("bfe.u32", "wwww",                                                                           \
      (b & 255) > 31                                                                               \
          ? 0                                                                                      \
          : (a & UINT32_MAX) >> (b & 255) & ((1ull << ((c & 255) < 40 ? (c & 255) : 40)) - 1),     \
      EQUAL_BITS, 0)                                                                               \
    X("prmt.b32", "wwww", permuted(UA, UB, UC), EQUAL_BITS, 0)                                     \
    X("dp4a.u32.u32", "wwww",                                                                      \
      UC + (UA & 255) * (UB & 255) + (UA >> 8 & 255) * (UB >> 8 & 255) +                           \
          (UA >> 16 & 255) * (UB >> 16 & 255) + (UA >> 24) * (UB >> 24),                           \
      EQUAL_BITS, 0)                                                                               \
    X("dp2a.lo.u32.u32", "wwww", UC + (UA & 65535) * (UB & 255) + (UA >> 16) * (UB >> 8 & 255),    \
      EQUAL_BITS, 0)                                                                               \
    X("dp2a.hi.s32.s32", "wwww",                                                                   \
      UC + (uint32_t)((int16_t)UA * (int8_t)(UB >> 16)) +                                          \
          (uint32_t)((int16_t)(UA >> 16) * (int8_t)(UB >> 24)),                                    \
      EQUAL_BITS, 0)                                                                               \
    X("selp.b32", "wwwp", c & 1 ? UA : UB, EQUAL_BITS, 0)                                          \
    X("selp.f64", "lllp", c & 1 ? a : b, EQUAL_BITS, 0)                                            \
    X("selp.u16", "hhhp", c & 1 ? HA : HB, EQUAL_BITS, 0)                                          \
    X("and.pred", "ppp", a &b & 1, EQUAL_BITS, 0)                                                  \
    X("or.pred", "ppp", (a | b) & 1, EQUAL_BITS, 0)                                                \
    X("xor.pred", "ppp", (a ^ b) & 1, EQUAL_BITS, 0)                                               \
    X("not.pred", "pp", ~a & 1, EQUAL_BITS, 0)                                                     \
    X("mov.pred", "pp", a & 1, EQUAL_BITS, 0)                                                      \
    X("setp.eq.s16", "phh", HA == HB, EQUAL_BITS, 0)                                               \
    X("setp.gt.u16", "phh", HA > HB, EQUAL_BITS, 0)                                                \
    X("setp.lt.s16", "phh", KA < KB, EQUAL_BITS, 0)                                                \
    X("setp.eq.b32", "pww", UA == UB, EQUAL_BITS, 0)                                               \
    X("setp.ne.s32", "pww", UA != UB, EQUAL_BITS, 0)                                               \
    X("setp.lt.s32", "pww", SA < SB, EQUAL_BITS, 0)                                                \
    X("setp.le.s32", "pww", SA <= SB, EQUAL_BITS, 0)                                               \
    X("setp.gt.s32", "pww", SA > SB, EQUAL_BITS, 0)                                                \
    X("setp.lt.u32", "pww", UA < UB, EQUAL_BITS, 0)                                                \
    X("setp.gt.u32", "pww", UA > UB, EQUAL_BITS, 0)                                                \
    X("setp.gt.s64", "pll", LA > LB, EQUAL_BITS, 0)                                                \
    X("setp.lt.u64", "pll", a < b, EQUAL_BITS, 0)                                                  \
    X("setp.lt.and.s32", "pwwp", SA < SB && (c & 1), EQUAL_BITS, 0)                                \
    X("setp.eq.f32", "pww", FA == FB, EQUAL_BITS, 0)                                               \
    X("setp.ne.f32", "pww", FA<FB || FA> FB, EQUAL_BITS, 0)                                        \
    X("setp.lt.f32", "pww", FA < FB, EQUAL_BITS, 0)                                                \
    X("setp.gt.f32", "pww", FA > FB, EQUAL_BITS, 0)                                                \
    X("setp.ge.f32", "pww", FA >= FB, EQUAL_BITS, 0)                                               \
    X("setp.neu.f32", "pww", !(FA == FB), EQUAL_BITS, 0)                                           \
    X("setp.geu.f32", "pww", !(FA < FB), EQUAL_BITS, 0)                                            \
    X("setp.gtu.f32", "pww", !(FA <= FB), EQUAL_BITS, 0)                                           \
    X("setp.leu.f32", "pww", !(FA > FB), EQUAL_BITS, 0)                                            \
    X("setp.ltu.f32", "pww", !(FA >= FB), EQUAL_BITS, 0)                                           \
    X("setp.equ.f32", "pww", FA == FB || isnan(FA) || isnan(FB), EQUAL_BITS, 0)                    \
    X("setp.nan.f32", "pww", isnan(FA) || isnan(FB), EQUAL_BITS, 0)                                \
    X("setp.num.f32", "pww", !isnan(FA) && !isnan(FB), EQUAL_BITS, 0)                              \
    X("setp.ltu.f64", "pll", !(DA >= DB), EQUAL_BITS, 0)                                           \
    X("setp.nan.f64", "pll", isnan(DA) || isnan(DB), EQUAL_BITS, 0)                                \
    X("setp.lt.f64", "pll", DA < DB, EQUAL_BITS, 0)                                                \
    X("add.rn.f32", "www", of_f32(FA + FB), EQUAL_F32, 0)                                          \
    X("add.f32", "www", of_f32(FA + FB), EQUAL_F32, 0)                                             \
    X("add.rz.f32", "www", of_f32(add_way(FA, FB, 0)), EQUAL_F32, 0)                               \
    X("add.rm.f32", "www", of_f32(add_way(FA, FB, -1)), EQUAL_F32, 0)                              \
    X("add.rp.f32", "www", of_f32(add_way(FA, FB, 1)), EQUAL_F32, 0)                               \
    X("sub.rn.f32", "www", of_f32(FA - FB), EQUAL_F32, 0)                                          \
    X("mul.rn.f32", "www", of_f32(FA *FB), EQUAL_F32, 0)                                           \
    X("mul.rm.f32", "www", of_f32(directed((double)FA *(double)FB, 0, -1)), EQUAL_F32, 0)          \
    X("mul.rz.f32", "www", of_f32(directed((double)FA *(double)FB, 0, 0)), EQUAL_F32, 0)           \
    X("fma.rn.f32", "wwww", of_f32(fmaf(FA, FB, FC)), EQUAL_F32, 0)                                \
    X("fma.rm.f32", "wwww", of_f32(fma_way(FA, FB, FC, -1)), EQUAL_F32, 0)                         \
    X("fma.rz.f32", "wwww", of_f32(fma_way(FA, FB, FC, 0)), EQUAL_F32, 0)                          \
    X("div.rn.f32", "www", of_f32(FA / FB), EQUAL_F32, 0)                                          \
    X("rcp.rn.f32", "ww", of_f32(1 / FA), EQUAL_F32, 0)                                            \
    X("sqrt.rn.f32", "ww", of_f32(sqrtf(FA)), EQUAL_F32, 0)                                        \
    X("sqrt.rz.f32", "ww", of_f32(sqrt_zero(FA)), EQUAL_F32, 0)                                    \
    X("neg.f32", "ww", of_f32(-FA), EQUAL_F32, 0)                                                  \
    X("abs.f32", "ww", of_f32(fabsf(FA)), EQUAL_F32, 0)                                            \
    X("copysign.f32", "www", of_f32(copysignf(FB, FA)), EQUAL_F32, 0)                              \
    X("min.f32", "www", of_f32(least(FA, FB)), EQUAL_F32, 0)                                       \
    X("max.f32", "www", of_f32(most(FA, FB)), EQUAL_F32, 0)                                        \
    X("max.NaN.f32", "www", isnan(FA) || isnan(FB) ? of_f32(NAN) : of_f32(most(FA, FB)),           \
      EQUAL_F32, 0)                                                                                \
    X("add.sat.f32", "www", of_f32(isnan(FA + FB) ? 0 : fminf(1, fmaxf(0, FA + FB))), EQUAL_F32,   \
      0)                                                                                           \
    X("mul.ftz.f32", "www",                                                                        \
      of_f32((fabsf(FA) < 0x1p-126f ? 0 : FA) * (fabsf(FB) < 0x1p-126f ? 0 : FB)), EQUAL_F32,      \
      -0x1p-126)                                                                                   \
    X("ex2.approx.f32", "ww", of_f32((float)exp2((double)FA)), EQUAL_F32, 0x1p-22)                 \
    X("lg2.approx.f32", "ww", of_f32((float)log2((double)FA)), EQUAL_F32, 0x1p-22)                 \
    X("rcp.approx.f32", "ww", of_f32(1 / FA), EQUAL_F32, 0x1p-23)                                  \
    X("rsqrt.approx.f32", "ww", of_f32((float)(1 / sqrt((double)FA))), EQUAL_F32, 0x1p-22)         \
    X("sqrt.approx.f32", "ww", of_f32(sqrtf(FA)), EQUAL_F32, 0x1p-23)                              \
    X("div.approx.f32", "www", of_f32(FA / FB), EQUAL_F32, 0x1p-22)                                \
    X("sin.approx.f32", "ww", of_f32((float)sin((double)FA)), EQUAL_F32, -0x1p-20)                 \
    X("cos.approx.f32", "ww", of_f32((float)cos((double)FA)), EQUAL_F32, -0x1p-20)                 \
    X("tanh.approx.f32", "ww", of_f32((float)tanh((double)FA)), EQUAL_F32, 0x1p-11)                \
    X("add.rn.f64", "lll", of_f64(DA + DB), EQUAL_F64, 0)                                          \
    X("sub.rn.f64", "lll", of_f64(DA - DB), EQUAL_F64, 0)                                          \
    X("mul.rn.f64", "lll", of_f64(DA *DB), EQUAL_F64, 0)                                           \
    X("fma.rn.f64", "llll", of_f64(fma(DA, DB, DC)), EQUAL_F64, 0)                                 \
    X("div.rn.f64", "lll", of_f64(DA / DB), EQUAL_F64, 0)                                          \
    X("rcp.rn.f64", "ll", of_f64(1 / DA), EQUAL_F64, 0)                                            \
    X("sqrt.rn.f64", "ll", of_f64(sqrt(DA)), EQUAL_F64, 0)                                         \
    X("neg.f64", "ll", of_f64(-DA), EQUAL_F64, 0)                                                  \
    X("abs.f64", "ll", of_f64(fabs(DA)), EQUAL_F64, 0)                                             \
    X("copysign.f64", "lll", of_f64(copysign(DB, DA)), EQUAL_F64, 0)                               \
    X("cvt.u32.u16", "wh", HA, EQUAL_BITS, 0)                                                      \
    X("cvt.s32.s16", "wh", (uint32_t)KA, EQUAL_BITS, 0)                                            \
    X("cvt.u16.u32", "hw", HA, EQUAL_BITS, 0)                                                      \
    X("cvt.u32.u64", "wl", UA, EQUAL_BITS, 0)                                                      \
    X("cvt.u64.u32", "lw", UA, EQUAL_BITS, 0)                                                      \
    X("cvt.s64.s32", "lw", (uint64_t)(int64_t)SA, EQUAL_BITS, 0)                                   \
    X("cvt.s32.s8", "ww", (uint32_t)(int8_t)a, EQUAL_BITS, 0)                                      \
    X("cvt.s16.s8", "hw", (uint16_t)(int8_t)a, EQUAL_BITS, 0)                                      \
    X("cvt.u32.u8", "wh", (uint8_t)a, EQUAL_BITS, 0)                                               \
    X("cvt.sat.u16.s32", "hw", SA < 0 ? 0 : SA > 65535 ? 65535 : UA, EQUAL_BITS, 0)                \
    X("cvt.rn.f32.s32", "ww", of_f32((float)SA), EQUAL_F32, 0)                                     \
    X("cvt.rz.f32.s32", "ww", of_f32(directed((double)SA, 0, 0)), EQUAL_F32, 0)                    \
    X("cvt.rn.f32.u32", "ww", of_f32((float)UA), EQUAL_F32, 0)                                     \
    X("cvt.rn.f32.u16", "wh", of_f32((float)HA), EQUAL_F32, 0)                                     \
    X("cvt.rn.f32.s16", "wh", of_f32((float)KA), EQUAL_F32, 0)                                     \
    X("cvt.rn.f32.s64", "wl", of_f32((float)LA), EQUAL_F32, 0)                                     \
    X("cvt.rn.f32.u64", "wl", of_f32((float)a), EQUAL_F32, 0)                                      \
    X("cvt.rn.f64.s32", "lw", of_f64((double)SA), EQUAL_F64, 0)                                    \
    X("cvt.rn.f64.s64", "ll", of_f64((double)LA), EQUAL_F64, 0)                                    \
    X("cvt.rn.f64.u16", "lh", of_f64((double)HA), EQUAL_F64, 0)                                    \
    X("cvt.f64.f32", "lw", of_f64((double)FA), EQUAL_F64, 0)                                       \
    X("cvt.rn.f32.f64", "wl", of_f32((float)DA), EQUAL_F32, 0)                                     \
    X("cvt.rz.f32.f64", "wl", of_f32(directed(DA, 0, 0)), EQUAL_F32, 0)                            \
    X("cvt.rni.f32.f32", "ww", of_f32(rintf(FA)), EQUAL_F32, 0)                                    \
    X("cvt.rzi.f32.f32", "ww", of_f32(truncf(FA)), EQUAL_F32, 0)                                   \
    X("cvt.rmi.f32.f32", "ww", of_f32(floorf(FA)), EQUAL_F32, 0)                                   \
    X("cvt.rpi.f32.f32", "ww", of_f32(ceilf(FA)), EQUAL_F32, 0)                                    \
    X("cvt.rzi.f64.f64", "ll", of_f64(trunc(DA)), EQUAL_F64, 0)                                    \
    X("cvt.rmi.f64.f64", "ll", of_f64(floor(DA)), EQUAL_F64, 0)                                    \
    X("cvt.sat.f32.f32", "ww", of_f32(isnan(FA) ? 0 : fminf(1, fmaxf(0, FA))), EQUAL_F32, 0)       \
    X("cvt.rni.s32.f32", "ww", int_of((double)rintf(FA), 32, true), EQUAL_BITS, 0)                 \
    X("cvt.rzi.s32.f32", "ww", int_of((double)truncf(FA), 32, true), EQUAL_BITS, 0)                \
    X("cvt.rni.u32.f32", "ww", int_of((double)rintf(FA), 32, false), EQUAL_BITS, 0)                \
    X("cvt.rni.s32.f64", "wl", int_of(rint(DA), 32, true), EQUAL_BITS, 0)                          \
    X("cvt.rn.bf16.f32", "hw", bf16_of(FA), EQUAL_BF16, 0)                                         \
    X("cvt.rn.f16.f32", "hw", f16_of(FA), EQUAL_F16, 0)                                            \
    X("cvt.rn.bf16x2.f32", "www", bf16_of(FA) << 16 | bf16_of(FB), EQUAL_BITS, 0)                  \
    X("cvt.rn.f16x2.f32", "www", f16_of(FA) << 16 | f16_of(FB), EQUAL_BITS, 0)                     \
    X("cvt.rna.tf32.f32", "ww", isfinite(FA) ? (UA + 0x1000) & 0xffffe000u : UA, EQUAL_F32, 0)

/* Of form number `form`; which are numbered in their order. */
static uint64_t reference(int form, uint64_t a, uint64_t b, uint64_t c, uint64_t e)
{
    int n = 0;
    (void)e;
#define REFERENCE(OP, SHAPE, EXPR, EQUALITY, BOUND)                                                \
    if (form == n++) return (uint64_t)(EXPR);
    FORMS(REFERENCE)
#undef REFERENCE
    return 0;
}

static const Form forms[] = {
#define FORM(OP, SHAPE, EXPR, EQUALITY, BOUND) {OP, SHAPE, EQUALITY, BOUND},
    FORMS(FORM)
#undef FORM
};
enum { N_FORMS = sizeof forms / sizeof forms[0] };

/* ---- PTX: form f is the entry t<f>(in[4][N], out[N]), 64 bits each ---- */

static const char *type_of(char c)
{
    return c == 'h' ? "u16" : c == 'l' ? "u64" : "u32";
}

static int put(char *at, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static int put(char *at, size_t size, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(at, size, fmt, args);
    va_end(args);
    CHECK(n >= 0 && (size_t)n < size);
    return n;
}

static int put_form(char *at, size_t size, int form)
{
    const Form *f = &forms[form];
    int n = put(at, size,
                ".visible .entry t%d(.param .u64 p0, .param .u64 p1)\n{\n.reg .pred %%p<8>;\n"
                ".reg .b16 %%h<8>;\n.reg .b32 %%w<16>;\n.reg .b64 %%l<16>;\n"
                "ld.param.u64 %%l8, [p0];\nld.param.u64 %%l9, [p1];\nmov.u32 %%w8, %%tid.x;\n"
                "mov.u32 %%w9, %%ctaid.x;\nmov.u32 %%w10, %%ntid.x;\n"
                "mad.lo.s32 %%w8, %%w9, %%w10, %%w8;\nmad.wide.u32 %%l8, %%w8, 8, %%l8;\n"
                "mad.wide.u32 %%l9, %%w8, 8, %%l9;\n",
                form);
    for (int i = 1; f->shape[i]; i++) {
        char c = f->shape[i] == 'p' ? 'w' : f->shape[i];
        n += put(at + n, size - (size_t)n, "ld.global.%s %%%c%d, [%%l8+%d];\n", type_of(c), c, i,
                 (i - 1) * N * 8);
        if (f->shape[i] == 'p')
            n += put(at + n, size - (size_t)n,
                     "and.b32 %%w%d, %%w%d, 1;\nsetp.ne.u32 %%p%d, %%w%d, 0;\n", i, i, i, i);
    }
    n += put(at + n, size - (size_t)n, "%s %%%c0", f->op, f->shape[0]);
    for (int i = 1; f->shape[i]; i++)
        n += put(at + n, size - (size_t)n, ", %%%c%d", f->shape[i], i);
    n += put(at + n, size - (size_t)n, ";\n");
    if (f->shape[0] == 'p') n += put(at + n, size - (size_t)n, "selp.u32 %%w0, 1, 0, %%p0;\n");
    char c = f->shape[0] == 'p' ? 'w' : f->shape[0];
    return n +
           put(at + n, size - (size_t)n, "st.global.%s [%%l9], %%%c0;\nret;\n}\n", type_of(c), c);
}

/* ---- values ---- */

static uint64_t random_bits(void)
{
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state ^ state >> 29) * 0xbf58476d1ce4e5b9u;
}

/* An awkward value of some type, or random bits, or a plain number. */
static uint64_t value(char c)
{
    static const uint64_t edges[] = {0,      1,      2,      7,          31,         32,
                                     33,     63,     64,     127,        128,        255,
                                     0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff};
    static const float floats[] = {0.0f,
                                   -0.0f,
                                   1,
                                   -1,
                                   0.5f,
                                   1.5f,
                                   2.5f,
                                   -2.5f,
                                   0x1p-126f,
                                   0x1p-149f,
                                   -0x1p-140f,
                                   0x1.fffffep127f,
                                   65504,
                                   65520,
                                   6e-8f,
                                   3e-8f,
                                   16777217,
                                   2147483648.0f,
                                   -2147483648.0f,
                                   4294967296.0f,
                                   1 + 0x1p-8f,
                                   1 + 0x1p-11f,
                                   1 + 0x1.8p-7f,
                                   (float)INFINITY,
                                   -(float)INFINITY,
                                   (float)NAN};
    uint64_t r = random_bits();
    float small = (float)((double)(int64_t)random_bits() * 0x1p-60);
    switch (r % 5) {
    case 0: return edges[r / 5 % (sizeof edges / sizeof edges[0])];
    case 1:
        small = floats[r / 5 % (sizeof floats / sizeof floats[0])];
        return c == 'l' ? of_f64((double)small) : of_f32(small);
    case 2:
    case 3: return c == 'l' ? of_f64((double)small + (double)(r >> 40) * 0x1p-60) : of_f32(small);
    default: return random_bits();
    }
}

static uint64_t masked(uint64_t v, char c)
{
    return c == 'p' ? v & 1 : c == 'h' ? v & 0xffff : c == 'w' ? v & 0xffffffff : v;
}

static bool is_equal(const Form *f, uint64_t got, uint64_t want)
{
    if (got == want) return true;
    if (f->equality == EQUAL_BITS || f->equality == EQUAL_F16 || f->equality == EQUAL_BF16)
        return false;
    if (f->equality == EQUAL_F64) return isnan(f64_of(got)) && isnan(f64_of(want));
    float x = f32_of(got), y = f32_of(want);
    if (isnan(x) || isnan(y)) return isnan(x) && isnan(y);
    double error = fabs((double)x - (double)y);
    /* Results below the normal numbers: the last place is absolute. */
    if (f->bound > 0) return error <= f->bound * fabs((double)y) + 0x1p-149;
    return f->bound < 0 && error <= -f->bound;
}

/* ---- running ---- */

static uint64_t in[4][N], out[N];

static int check_form(const Driver *d, CUmodule m, int form, CUdeviceptr in_at, CUdeviceptr out_at)
{
    const Form *f = &forms[form];
    char name[16];
    CUfunction fn;
    put(name, sizeof name, "t%d", form);
    int n_args = (int)strlen(f->shape) - 1;
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < N; j++)
            in[i][j] = masked(value(f->shape[1]), i < n_args ? f->shape[i + 1] : 'l');
    void *params[] = {&in_at, &out_at};
    DRIVER_TRY(d->cuModuleGetFunction(&fn, m, name));
    DRIVER_TRY(d->cuMemcpyHtoD_v2(in_at, in, sizeof in));
    DRIVER_TRY(d->cuMemsetD8_v2(out_at, 0, sizeof out));
    DRIVER_TRY(d->cuLaunchKernel(fn, N / 128, 1, 1, 128, 1, 1, 0, NULL, params, NULL));
    DRIVER_TRY(d->cuMemcpyDtoH_v2(out, out_at, sizeof out));
    for (int j = 0; j < N; j++) {
        uint64_t want =
            masked(reference(form, in[0][j], in[1][j], in[2][j], in[3][j]), f->shape[0]);
        if (is_equal(f, out[j], want)) continue;
        fprintf(stderr, "%s(%llx, %llx, %llx, %llx) = %llx, want %llx\n", f->op,
                (unsigned long long)in[0][j], (unsigned long long)in[1][j],
                (unsigned long long)in[2][j], (unsigned long long)in[3][j],
                (unsigned long long)out[j], (unsigned long long)want);
        return 1;
    }
    return 0;
}

int main(void)
{
    enum { TEXT = 1 << 20 };
    Driver d;
    CUmodule m;
    CUdeviceptr in_at, out_at;
    char *text = malloc(TEXT);
    int n = put(text, TEXT, ".version 8.0\n.target sm_80\n.address_size 64\n"), n_failed = 0;
    for (int i = 0; i < N_FORMS; i++) n += put_form(text + n, TEXT - (size_t)n, i);
    driver_open(&d);
    DRIVER_TRY(d.cuModuleLoadData(&m, text));
    DRIVER_TRY(d.cuMemAlloc_v2(&in_at, sizeof in));
    DRIVER_TRY(d.cuMemAlloc_v2(&out_at, sizeof out));
    for (int i = 0; i < N_FORMS; i++) n_failed += check_form(&d, m, i, in_at, out_at);
    DRIVER_TRY(d.cuModuleUnload(m));
    if (d.reports() != 0) n_failed++;
    printf("%s: %d forms, %d values each, %d failures\n", n_failed ? "FAIL" : "PASS", N_FORMS, N,
           n_failed);
    free(text);
    return n_failed != 0;
}
