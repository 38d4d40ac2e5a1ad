/* half.c -- 16-bit floats: between memory and registers, and rounding.
 *
 * In a register such a value is a float that the 16-bit dtype represents exactly (cpu_round made it
 * so).  Rounding is to nearest even, subnormals included; a NaN stays one, quiet, with the upper
 * bits of its payload.  bf16 is integer arithmetic everywhere: vcvtneps2bf16 takes subnormals as
 * zeros.  f16 is F16C, or integer arithmetic that gives the same bits. */
#include "codegen/cpu/cpu.h"

static LLVMValueRef word(CpuModule *m, uint32_t bits, int lanes)
{
    return cpu_splat(m, cpu_i32(m, (int32_t)bits), lanes);
}

static LLVMValueRef as_bits(CpuModule *m, LLVMValueRef v)
{
    return LLVMBuildBitCast(m->b, v, cpu_vec_type(m->i32_t, cpu_lanes(v)), "");
}

static LLVMValueRef as_float(CpuModule *m, LLVMValueRef bits)
{
    return LLVMBuildBitCast(m->b, bits, cpu_vec_type(m->f32_t, cpu_lanes(bits)), "");
}

static LLVMValueRef and_word(CpuModule *m, LLVMValueRef v, uint32_t bits)
{
    return LLVMBuildAnd(m->b, v, word(m, bits, cpu_lanes(v)), "");
}

static LLVMValueRef or_word(CpuModule *m, LLVMValueRef v, uint32_t bits)
{
    return LLVMBuildOr(m->b, v, word(m, bits, cpu_lanes(v)), "");
}

static LLVMValueRef add_word(CpuModule *m, LLVMValueRef v, uint32_t bits)
{
    return LLVMBuildAdd(m->b, v, word(m, bits, cpu_lanes(v)), "");
}

static LLVMValueRef shift_right(CpuModule *m, LLVMValueRef v, uint32_t by)
{
    return LLVMBuildLShr(m->b, v, word(m, by, cpu_lanes(v)), "");
}

static LLVMValueRef shift_left(CpuModule *m, LLVMValueRef v, uint32_t by)
{
    return LLVMBuildShl(m->b, v, word(m, by, cpu_lanes(v)), "");
}

static LLVMValueRef is_below(CpuModule *m, LLVMValueRef v, uint32_t bits)
{
    return LLVMBuildICmp(m->b, LLVMIntULT, v, word(m, bits, cpu_lanes(v)), "");
}

/* v + (2^(n - 1) - 1 + bit n): the n low bits rounded away, to even. */
static LLVMValueRef round_low_bits(CpuModule *m, LLVMValueRef v, uint32_t n)
{
    LLVMValueRef odd = and_word(m, shift_right(m, v, n), 1);
    return LLVMBuildAdd(m->b, add_word(m, v, (1u << (n - 1)) - 1), odd, "");
}

/* ---- f16 without F16C ---- */

enum {
    SIGN = 0x8000,
    F16_INF = 0x7c00,
    F16_QUIET = 0x7e00,
    F16_SHIFT = 13,       /* bits of a float's mantissa behind f16's */
    F32_INF = 0x7f800000, /* the bits of floats, from here on */
    F32_QUIET = 0x400000,
    F32_65536 = 0x47800000,   /* first power of two behind f16 */
    F32_2M14 = 0x38800000,    /* least normal f16 */
    F32_HALF = 0x3f000000,    /* its last place is f16's least subnormal */
    REBIAS = (127 - 15) << 23 /* exponent of float - exponent of f16 */
};

static LLVMValueRef f16_to_f32(CpuModule *m, LLVMValueRef raw)
{
    int lanes = cpu_lanes(raw);
    LLVMValueRef h = LLVMBuildZExt(m->b, raw, cpu_vec_type(m->i32_t, lanes), "");
    LLVMValueRef sign = shift_left(m, and_word(m, h, SIGN), 16), v = and_word(m, h, 0x7fff);
    LLVMValueRef is_finite = is_below(m, v, F16_INF), is_number = is_below(m, v, F16_INF + 1);
    v = shift_left(m, v, F16_SHIFT);
    LLVMValueRef other = or_word(m, v, F32_INF);
    other = LLVMBuildSelect(m->b, is_number, other, or_word(m, other, F32_QUIET), "");
    /* exact, also for the subnormals of f16 */
    v = LLVMBuildFMul(m->b, as_float(m, v), cpu_splat(m, cpu_f32(m, 0x1p112), lanes), "");
    v = LLVMBuildSelect(m->b, is_finite, as_bits(m, v), other, "");
    return as_float(m, LLVMBuildOr(m->b, v, sign, ""));
}

static LLVMValueRef f32_to_f16(CpuModule *m, LLVMValueRef v)
{
    int lanes = cpu_lanes(v);
    LLVMValueRef bits = as_bits(m, v), a = and_word(m, bits, 0x7fffffff);
    LLVMValueRef sign = shift_right(m, LLVMBuildXor(m->b, bits, a, ""), 16);
    LLVMValueRef normal = round_low_bits(m, a, F16_SHIFT);
    normal = shift_right(m, add_word(m, normal, (uint32_t)-REBIAS), F16_SHIFT);
    /* the addition rounds to multiples of the least subnormal */
    LLVMValueRef half = cpu_splat(m, cpu_f32(m, 0.5), lanes);
    LLVMValueRef low = as_bits(m, LLVMBuildFAdd(m->b, as_float(m, a), half, ""));
    low = add_word(m, low, (uint32_t)-F32_HALF);
    LLVMValueRef nan = or_word(m, and_word(m, shift_right(m, a, F16_SHIFT), 0x3ff), F16_QUIET);
    LLVMValueRef is_number = is_below(m, a, F32_INF + 1);
    LLVMValueRef high = LLVMBuildSelect(m->b, is_number, word(m, F16_INF, lanes), nan, "");
    LLVMValueRef out = LLVMBuildSelect(m->b, is_below(m, a, F32_65536), normal, high, "");
    out = LLVMBuildSelect(m->b, is_below(m, a, F32_2M14), low, out, "");
    out = LLVMBuildOr(m->b, out, sign, "");
    return LLVMBuildTrunc(m->b, out, cpu_vec_type(m->i16_t, lanes), "");
}

/* ---- either ---- */

LLVMValueRef cpu_half_load(CpuModule *m, DType dt, LLVMValueRef raw)
{
    int lanes = cpu_lanes(raw);
    if (dt == DT_BF16) {
        LLVMValueRef bits = LLVMBuildZExt(m->b, raw, cpu_vec_type(m->i32_t, lanes), "");
        return as_float(m, shift_left(m, bits, 16));
    }
    if (!m->target->has_f16c) return f16_to_f32(m, raw);
    LLVMValueRef half = LLVMBuildBitCast(m->b, raw, cpu_vec_type(m->f16_t, lanes), "");
    return LLVMBuildFPExt(m->b, half, cpu_vec_type(m->f32_t, lanes), "");
}

LLVMValueRef cpu_half_store(CpuModule *m, DType dt, LLVMValueRef v)
{
    int lanes = cpu_lanes(v);
    LLVMTypeRef raw = cpu_vec_type(m->i16_t, lanes);
    if (dt == DT_BF16) return LLVMBuildTrunc(m->b, shift_right(m, as_bits(m, v), 16), raw, "");
    if (!m->target->has_f16c) return f32_to_f16(m, v);
    LLVMValueRef half = LLVMBuildFPTrunc(m->b, v, cpu_vec_type(m->f16_t, lanes), "");
    return LLVMBuildBitCast(m->b, half, raw, "");
}

static LLVMValueRef round_bf16(CpuModule *m, LLVMValueRef v)
{
    LLVMValueRef bits = as_bits(m, v), quiet = or_word(m, bits, F32_QUIET);
    LLVMValueRef is_nan = LLVMBuildFCmp(m->b, LLVMRealUNO, v, v, "");
    bits = LLVMBuildSelect(m->b, is_nan, quiet, round_low_bits(m, bits, 16), "");
    return as_float(m, and_word(m, bits, 0xffff0000u));
}

LLVMValueRef cpu_round(CpuModule *m, LLVMValueRef v, DType dt)
{
    if (dt == DT_BF16) return round_bf16(m, v);
    if (dt == DT_F16) return cpu_half_load(m, dt, cpu_half_store(m, dt, v));
    return v;
}
