/* convert.c -- cvt between all types and roundings, and moves between registers of different
 * width.  Conversions that a vector instruction does are in the table at the end. */
#include "tests/gpusim/sim.h"

#include <math.h>
#include <string.h>

/* ---- one lane, any types ---- */

typedef struct Number {
    bool is_float, is_signed;
    uint64_t bits; /* of an integer, extended to 64 bits */
    double f;
} Number;

static uint64_t lane_bits(const Warp *w, uint32_t slot, uint8_t reg_bytes, int l)
{
    if (reg_bytes == 8) return SLOT(w, uint64_t, slot)[l];
    return reg_bytes == 4 ? SLOT(w, uint32_t, slot)[l] : SLOT(w, uint16_t, slot)[l];
}

static void set_lane_bits(Warp *w, uint32_t slot, uint8_t reg_bytes, int l, uint64_t v)
{
    if (reg_bytes == 8)
        SLOT(w, uint64_t, slot)[l] = v;
    else if (reg_bytes == 4)
        SLOT(w, uint32_t, slot)[l] = (uint32_t)v;
    else
        SLOT(w, uint16_t, slot)[l] = (uint16_t)v;
}

static uint64_t extend(uint64_t v, uint8_t bytes, bool is_signed)
{
    int shift = 64 - 8 * bytes;
    return is_signed ? (uint64_t)((int64_t)(v << shift) >> shift) : v << shift >> shift;
}

static Number number_of(uint64_t bits, NumberKind kind, uint8_t bytes)
{
    Number n = {.is_float = true};
    uint32_t low = (uint32_t)bits;
    float f = 0;
    _Float16 h;
    switch (kind) {
    case NUM_UINT:
    case NUM_SINT:
        n.is_float = false;
        n.is_signed = kind == NUM_SINT;
        n.bits = extend(bits, bytes, n.is_signed);
        return n;
    case NUM_F64: memcpy(&n.f, &bits, sizeof n.f); return n;
    case NUM_F16:
        memcpy(&h, &bits, sizeof h);
        n.f = (double)h;
        return n;
    case NUM_BF16: low <<= 16; break;
    case NUM_F32:
    case NUM_TF32: break;
    }
    memcpy(&f, &low, sizeof f);
    n.f = (double)f;
    return n;
}

static double round_integral(double v, Rounding r)
{
    switch (r) {
    case ROUND_NEAREST: return rint(v);
    case ROUND_ZERO: return trunc(v);
    case ROUND_DOWN: return floor(v);
    case ROUND_UP: return ceil(v);
    }
    return v;
}

/* Values outside the type become its nearest; NaN becomes 0. */
static uint64_t float_to_int(double v, const Conversion *c)
{
    int bits = 8 * c->to_bytes;
    v = round_integral(v, (Rounding)c->rounding);
    if (v != v) return 0;
    if (c->to == NUM_UINT) {
        double limit = ldexp(1, bits);
        return v <= 0 ? 0 : v >= limit ? UINT64_MAX >> (64 - bits) : (uint64_t)v;
    }
    double limit = ldexp(1, bits - 1);
    if (v >= limit) return (UINT64_MAX >> (64 - bits)) >> 1;
    return v <= -limit ? 1ull << (bits - 1) : (uint64_t)(int64_t)v;
}

static uint64_t int_to_int(Number n, const Conversion *c)
{
    if (!c->is_saturating) return n.bits;
    int bits = 8 * c->to_bytes;
    bool is_negative = n.is_signed && (int64_t)n.bits < 0;
    uint64_t top = UINT64_MAX >> (64 - bits);
    if (c->to == NUM_UINT) return is_negative ? 0 : n.bits > top ? top : n.bits;
    int64_t low = -(int64_t)(top >> 1) - 1;
    if (is_negative) return (int64_t)n.bits < low ? (uint64_t)low : n.bits;
    return n.bits > top >> 1 ? top >> 1 : n.bits;
}

static uint16_t f64_to_bf16(double v)
{
    float f = (float)v;
    uint32_t u;
    if (v != v) return 0x7fff;
    memcpy(&u, &f, sizeof u);
    if ((double)f != v && !isinf(f)) { /* round to odd first */
        if (fabs((double)f) > fabs(v)) u--;
        u |= 1;
    }
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static float directed_f32(double v, Rounding r)
{
    float f = (float)v;
    if (r == ROUND_NEAREST || (double)f == v || v != v) return f;
    bool is_above = (double)f > v;
    if (r == ROUND_DOWN || (r == ROUND_ZERO && v > 0))
        return is_above ? nextafterf(f, -INFINITY) : f;
    return is_above ? f : nextafterf(f, INFINITY);
}

static uint64_t float_bits(double v, const Conversion *c)
{
    uint64_t bits = 0;
    uint32_t u;
    float f;
    _Float16 h;
    if (c->is_saturating) v = v > 0 ? v < 1 ? v : 1 : 0;
    if (c->is_relu && !(v > 0) && v == v) v = 0;
    switch ((NumberKind)c->to) {
    case NUM_F64: memcpy(&bits, &v, sizeof bits); return bits;
    case NUM_F32:
        f = directed_f32(v, (Rounding)c->rounding);
        memcpy(&u, &f, sizeof u);
        return v != v ? 0x7fffffff : u;
    case NUM_TF32: /* half goes away from 0 */
        f = (float)v;
        memcpy(&u, &f, sizeof u);
        return isfinite(f) ? (u + 0x1000) & 0xffffe000u : u;
    case NUM_F16:
        h = (_Float16)v;
        memcpy(&bits, &h, sizeof h);
        return v != v ? 0x7fff : bits;
    case NUM_BF16: return f64_to_bf16(v);
    case NUM_UINT:
    case NUM_SINT: break;
    }
    return 0;
}

static uint64_t convert(uint64_t bits, const Conversion *c)
{
    Number n = number_of(bits, (NumberKind)c->from, c->from_bytes);
    bool to_float = c->to != NUM_UINT && c->to != NUM_SINT;
    if (!to_float) return n.is_float ? float_to_int(n.f, c) : int_to_int(n, c);
    if (n.is_float)
        return float_bits(c->to_integral ? round_integral(n.f, (Rounding)c->rounding) : n.f, c);
    if (c->to == NUM_F32 && c->from_bytes == 8 && c->rounding == ROUND_NEAREST) {
        /* once, not by way of f64 */
        float f = n.is_signed ? (float)(int64_t)n.bits : (float)n.bits;
        return float_bits((double)f, c);
    }
    return float_bits(n.is_signed ? (double)(int64_t)n.bits : (double)n.bits, c);
}

void exec_cvt(Warp *w, const Insn *in)
{
    const Conversion *c = &in->cvt;
    for (int l = 0; l < LANES; l++) {
        if (!(w->mask >> l & 1)) continue;
        uint64_t v = convert(lane_bits(w, in->a, c->from_reg_bytes, l), c);
        if (c->is_pair) v = v << 16 | convert(lane_bits(w, in->b, c->from_reg_bytes, l), c);
        bool is_signed = c->to == NUM_SINT;
        if (!c->is_pair && c->to_bytes < c->to_reg_bytes) v = extend(v, c->to_bytes, is_signed);
        set_lane_bits(w, in->d, c->to_reg_bytes, l, v);
    }
}

/* ---- mov.b64 d, {lo, hi} and back ---- */

void exec_pack(Warp *w, const Insn *in)
{
    for (int l = 0; l < LANES; l++) {
        if (!(w->mask >> l & 1)) continue;
        uint64_t v = 0;
        for (int i = 0; i < in->n_vec; i++)
            v |= lane_bits(w, in->vec[i], in->reg_bytes, l) << (8 * in->reg_bytes * i);
        set_lane_bits(w, in->d, in->bytes, l, v);
    }
}

void exec_unpack(Warp *w, const Insn *in)
{
    for (int l = 0; l < LANES; l++) {
        if (!(w->mask >> l & 1)) continue;
        uint64_t v = lane_bits(w, in->a, in->bytes, l);
        for (int i = 0; i < in->n_vec; i++)
            set_lane_bits(w, in->vec[i], in->reg_bytes, l, v >> (8 * in->reg_bytes * i));
    }
}

/* ---- conversions that need no thought ---- */

#define PLAIN(NAME, D, S)                                                                          \
    static void NAME(Warp *w, const Insn *in)                                                      \
    {                                                                                              \
        D *d = SLOT(w, D, in->d);                                                                  \
        const S *a = SLOT(w, S, in->a);                                                            \
        EACH_LANE(w, d[l] = (D)a[l]);                                                              \
    }
PLAIN(u32_u16, uint32_t, uint16_t)
PLAIN(s32_s16, int32_t, int16_t)
PLAIN(u16_u32, uint16_t, uint32_t)
PLAIN(u32_u64, uint32_t, uint64_t)
PLAIN(u64_u32, uint64_t, uint32_t)
PLAIN(s64_s32, int64_t, int32_t)
PLAIN(u64_u16, uint64_t, uint16_t)
PLAIN(f32_s32, float, int32_t)
PLAIN(f32_u32, float, uint32_t)
PLAIN(f32_u16, float, uint16_t)
PLAIN(f64_s32, double, int32_t)
PLAIN(f64_u32, double, uint32_t)
PLAIN(f64_f32, double, float)
PLAIN(f32_f64, float, double)
PLAIN(f32_f16, float, _Float16)

const Arith arith_cvt[] = {{"cvt.u32.u16", "wh", u32_u16}, {"cvt.s32.u16", "wh", u32_u16},
                           {"cvt.s32.s16", "wh", s32_s16}, {"cvt.u32.s16", "wh", s32_s16},
                           {"cvt.u16.u32", "hw", u16_u32}, {"cvt.u16.s32", "hw", u16_u32},
                           {"cvt.s16.s32", "hw", u16_u32}, {"cvt.s16.u32", "hw", u16_u32},
                           {"cvt.u32.u64", "wl", u32_u64}, {"cvt.s32.s64", "wl", u32_u64},
                           {"cvt.u32.s64", "wl", u32_u64}, {"cvt.s32.u64", "wl", u32_u64},
                           {"cvt.u64.u32", "lw", u64_u32}, {"cvt.s64.u32", "lw", u64_u32},
                           {"cvt.s64.s32", "lw", s64_s32}, {"cvt.u64.s32", "lw", s64_s32},
                           {"cvt.u64.u16", "lh", u64_u16}, {"cvt.f32.s32", "ww", f32_s32},
                           {"cvt.f32.u32", "ww", f32_u32}, {"cvt.f32.u16", "wh", f32_u16},
                           {"cvt.f64.s32", "lw", f64_s32}, {"cvt.f64.u32", "lw", f64_u32},
                           {"cvt.f64.f32", "lw", f64_f32}, {"cvt.f32.f64", "wl", f32_f64},
                           {"cvt.f32.f16", "wh", f32_f16}, {NULL, NULL, NULL}};
