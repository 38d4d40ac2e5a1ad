/* math.c -- f32 exp, log, tanh, erf, sin, cos on vectors, emitted in line.
 *
 * Within 2 ulp over all inputs (sin, cos 4 ulp), with and without FMA; subnormals, infinities, NaN
 * and the sign of zero come out right.  tests/unit/cpu_math.c measures it, over all 2^32 inputs
 * when asked.  A lane's result does not depend on the number of lanes.  The polynomials are printed
 * by tools/fit_math.py; range reduction follows Cody and Waite, Software Manual for the Elementary
 * Functions, 1980. */
#include "codegen/cpu/cpu.h"

/* e^r = 1 + r + r^2 P(r), |r| <= ln 2 / 2 */
static const double exp_poly[] = {0.49999994, 0.166665211, 0.0416682921, 0.00836871564,
                                  0.00138186989};
/* ln(1 + f) = f - f^2 / 2 + f^3 P(f), sqrt(1/2) <= 1 + f <= sqrt 2 */
static const double log_poly[] = {0.333333135,  -0.250000089, 0.200020716,
                                  -0.166679889, 0.142203584,  -0.124062337,
                                  0.118835486,  -0.116700985, 0.0674926937};
/* tanh x = x + x^3 P(x^2), |x| <= 0.65 */
static const double tanh_poly[] = {-0.333332598, 0.133308291, -0.0536879152, 0.0204690788,
                                   -0.00551480893};
/* erf x = x + x P(x^2), |x| <= 0.9 */
static const double erf_poly[] = {0.128379166,   -0.376126289,    0.112836242,   -0.02685556,
                                  0.00519175315, -0.000803975272, 7.94310035e-05};
/* erfc x = e^-P(x), 0.88 <= x <= 4 */
static const double erfc_poly[] = {-0.000141115772, 1.1293304,     0.633782625,
                                   0.107703276,     -0.0246514399, 0.00393289234,
                                   -0.000360243052, 8.1511489e-06, 9.67034111e-07};
/* sin r = r + r^3 P(r^2), cos r = 1 - r^2 / 2 + r^4 P(r^2), |r| <= pi / 4 */
static const double sin_poly[] = {-0.166666672, 0.0083333794, -0.000198530688, 2.83261875e-06};
static const double cos_poly[] = {0.0416666456, -0.00138873095, 2.44323292e-05};

#define N_OF(A) (sizeof(A) / sizeof *(A))
#define LN2_HI 0.693359375 /* 10 bits: n * LN2_HI is exact for |n| < 2^14 */
#define LN2_LO -2.12194440e-4
#define ROUNDER 12582912.0 /* 1.5 * 2^23: adding it rounds to an integer in the low bits */

/* Splat of constant k like v. */
static LLVMValueRef like(CpuModule *m, LLVMValueRef v, double k)
{
    LLVMTypeRef t = LLVMTypeOf(v);
    LLVMTypeRef elem = LLVMGetTypeKind(t) == LLVMVectorTypeKind ? LLVMGetElementType(t) : t;
    return cpu_splat(m, LLVMConstReal(elem, k), cpu_lanes(v));
}

static LLVMValueRef int_like(CpuModule *m, LLVMValueRef v, int32_t k)
{
    return cpu_splat(m, cpu_i32(m, k), cpu_lanes(v));
}

static LLVMValueRef to_bits(CpuModule *m, LLVMValueRef v)
{
    return LLVMBuildBitCast(m->b, v, cpu_vec_type(m->i32_t, cpu_lanes(v)), "");
}

static LLVMValueRef from_bits(CpuModule *m, LLVMValueRef v)
{
    return LLVMBuildBitCast(m->b, v, cpu_vec_type(m->f32_t, cpu_lanes(v)), "");
}

LLVMValueRef cpu_fma(CpuModule *m, LLVMValueRef a, LLVMValueRef b, LLVMValueRef c)
{
    if (!m->target->has_fma) return LLVMBuildFAdd(m->b, LLVMBuildFMul(m->b, a, b, ""), c, "");
    LLVMTypeRef t = LLVMTypeOf(a);
    LLVMValueRef in[] = {a, b, c};
    return cpu_intrinsic(m, "llvm.fma", &t, 1, in, 3);
}

static LLVMValueRef fma_k(CpuModule *m, LLVMValueRef a, double k, LLVMValueRef c)
{
    return cpu_fma(m, a, like(m, a, k), c);
}

static LLVMValueRef mul(CpuModule *m, LLVMValueRef a, LLVMValueRef b)
{
    return LLVMBuildFMul(m->b, a, b, "");
}

static LLVMValueRef mul_k(CpuModule *m, LLVMValueRef a, double k)
{
    return mul(m, a, like(m, a, k));
}

static LLVMValueRef add(CpuModule *m, LLVMValueRef a, LLVMValueRef b)
{
    return LLVMBuildFAdd(m->b, a, b, "");
}

static LLVMValueRef horner(CpuModule *m, LLVMValueRef x, const double *c, size_t n)
{
    LLVMValueRef p = like(m, x, c[n - 1]);
    for (size_t i = n - 1; i-- > 0;) p = cpu_fma(m, p, x, like(m, x, c[i]));
    return p;
}

static LLVMValueRef select_if(CpuModule *m, LLVMValueRef x, LLVMRealPredicate is, double k,
                              LLVMValueRef yes, LLVMValueRef no)
{
    return LLVMBuildSelect(m->b, LLVMBuildFCmp(m->b, is, x, like(m, x, k), ""), yes, no, "");
}

/* x limited from above; NaN passes */
static LLVMValueRef at_most(CpuModule *m, LLVMValueRef x, double k)
{
    return select_if(m, x, LLVMRealOGT, k, like(m, x, k), x);
}

static LLVMValueRef absolute(CpuModule *m, LLVMValueRef x)
{
    LLVMTypeRef t = LLVMTypeOf(x);
    return cpu_intrinsic(m, "llvm.fabs", &t, 1, &x, 1);
}

/* magnitude >= 0 (or NaN) with the sign of s */
static LLVMValueRef with_sign(CpuModule *m, LLVMValueRef magnitude, LLVMValueRef s)
{
    LLVMValueRef sign = LLVMBuildAnd(m->b, to_bits(m, s), int_like(m, s, INT32_MIN), "");
    return from_bits(m, LLVMBuildOr(m->b, to_bits(m, magnitude), sign, ""));
}

/* 2^n for n in [-126, 127] */
static LLVMValueRef power_of_2(CpuModule *m, LLVMValueRef n)
{
    LLVMValueRef biased = LLVMBuildAdd(m->b, n, int_like(m, n, 127), "");
    return from_bits(m, LLVMBuildShl(m->b, biased, int_like(m, n, 23), ""));
}

/* x = n ln 2 + r with |r| <= ln 2 / 2: returns e^r, *n as i32. */
static LLVMValueRef exp_reduced(CpuModule *m, LLVMValueRef x, LLVMValueRef *n)
{
    LLVMValueRef rounder = like(m, x, ROUNDER);
    LLVMValueRef t = cpu_fma(m, x, like(m, x, 1.44269504088896341), rounder);
    LLVMValueRef nf = LLVMBuildFSub(m->b, t, rounder, "");
    LLVMValueRef r = fma_k(m, nf, -LN2_LO, fma_k(m, nf, -LN2_HI, x));
    LLVMValueRef q = horner(m, r, exp_poly, N_OF(exp_poly));
    *n = LLVMBuildSub(m->b, to_bits(m, t), to_bits(m, rounder), "");
    return add(m, cpu_fma(m, mul(m, r, r), q, r), like(m, x, 1));
}

/* e^x where the result and its scale are normal: -87 <= x <= 87, or NaN */
static LLVMValueRef exp_normal(CpuModule *m, LLVMValueRef x)
{
    LLVMValueRef n;
    LLVMValueRef p = exp_reduced(m, x, &n);
    return mul(m, p, power_of_2(m, n));
}

LLVMValueRef cpu_exp_f32(CpuModule *m, LLVMValueRef x)
{
    x = at_most(m, x, 89);                                       /* infinite from 88.73 */
    x = select_if(m, x, LLVMRealOLT, -104, like(m, x, -104), x); /* 0 from -103.98 */
    LLVMValueRef n;
    LLVMValueRef p = exp_reduced(m, x, &n);
    /* Two steps: 2^n alone may be infinite or subnormal.  The first is exact, the second rounds
     * once. */
    LLVMValueRef half = LLVMBuildAShr(m->b, n, int_like(m, n, 1), "");
    p = mul(m, p, power_of_2(m, half));
    return mul(m, p, power_of_2(m, LLVMBuildSub(m->b, n, half, "")));
}

LLVMValueRef cpu_log_f32(CpuModule *m, LLVMValueRef x)
{
    /* 1. x = 2^e (1 + f); subnormals are scaled first */
    LLVMValueRef is_tiny = LLVMBuildFCmp(m->b, LLVMRealOLT, x, like(m, x, 0x1p-126), "");
    LLVMValueRef scaled = LLVMBuildSelect(m->b, is_tiny, mul_k(m, x, 0x1p25), x, "");
    LLVMValueRef bits = to_bits(m, scaled);
    LLVMValueRef e = LLVMBuildSub(m->b, bits, int_like(m, x, 0x3f3504f3), ""); /* sqrt(1/2) */
    e = LLVMBuildAShr(m->b, e, int_like(m, x, 23), "");
    LLVMValueRef shifted = LLVMBuildShl(m->b, e, int_like(m, x, 23), "");
    LLVMValueRef mantissa = from_bits(m, LLVMBuildSub(m->b, bits, shifted, ""));
    LLVMValueRef f = LLVMBuildFSub(m->b, mantissa, like(m, x, 1), "");
    LLVMValueRef fix = LLVMBuildSelect(m->b, is_tiny, int_like(m, x, 25), int_like(m, x, 0), "");
    e = LLVMBuildSub(m->b, e, fix, "");
    LLVMValueRef ef = LLVMBuildSIToFP(m->b, e, LLVMTypeOf(x), "");
    /* 2. small terms first */
    LLVMValueRef f2 = mul(m, f, f);
    LLVMValueRef y = mul(m, mul(m, f, f2), horner(m, f, log_poly, N_OF(log_poly)));
    y = fma_k(m, ef, LN2_LO, y);
    y = fma_k(m, f2, -0.5, y);
    y = fma_k(m, ef, LN2_HI, add(m, f, y));
    /* 3. +inf, 0, below 0 or NaN */
    y = select_if(m, x, LLVMRealOEQ, __builtin_inf(), x, y);
    y = select_if(m, x, LLVMRealOEQ, 0, like(m, x, -__builtin_inf()), y);
    return select_if(m, x, LLVMRealULT, 0, like(m, x, __builtin_nan("")), y);
}

LLVMValueRef cpu_tanh_f32(CpuModule *m, LLVMValueRef x)
{
    LLVMValueRef a = absolute(m, x);
    LLVMValueRef x2 = mul(m, x, x);
    LLVMValueRef q = mul(m, x2, horner(m, x2, tanh_poly, N_OF(tanh_poly)));
    LLVMValueRef small = cpu_fma(m, a, q, a);
    /* 1 - 2 / (e^2a + 1); 1 when rounded from a = 9.02 */
    LLVMValueRef e = exp_normal(m, mul_k(m, at_most(m, a, 10), 2));
    LLVMValueRef d = LLVMBuildFDiv(m->b, like(m, x, 2), add(m, e, like(m, x, 1)), "");
    LLVMValueRef large = LLVMBuildFSub(m->b, like(m, x, 1), d, "");
    return with_sign(m, select_if(m, a, LLVMRealOLT, 0.625, small, large), x);
}

LLVMValueRef cpu_erf_f32(CpuModule *m, LLVMValueRef x)
{
    LLVMValueRef a = absolute(m, x);
    LLVMValueRef x2 = mul(m, x, x);
    LLVMValueRef small = cpu_fma(m, a, horner(m, x2, erf_poly, N_OF(erf_poly)), a);
    /* 1 - erfc a; 1 when rounded from a = 3.92 */
    LLVMValueRef q = horner(m, at_most(m, a, 4), erfc_poly, N_OF(erfc_poly));
    LLVMValueRef erfc = exp_normal(m, LLVMBuildFNeg(m->b, q, ""));
    LLVMValueRef large = LLVMBuildFSub(m->b, like(m, x, 1), erfc, "");
    return with_sign(m, select_if(m, a, LLVMRealOLT, 0.89, small, large), x);
}

/* ---- sine and cosine ---- */

#define TRIG_LIMIT 0x1p20 /* larger arguments go to libm */
/* pi / 2 in parts of 33, 33 and 53 bits: n times the first two is exact for n < 2^20 */
#define PIO2_1 0x1.921fb544p+0
#define PIO2_2 0x1.0b4611a6p-34
#define PIO2_3 0x1.3198a2e037073p-69

/* sin(x + quarter * pi / 2) for |x| < TRIG_LIMIT; the reduction is done in f64. */
static LLVMValueRef trig_small(CpuModule *m, LLVMValueRef x, int quarter)
{
    int lanes = cpu_lanes(x);
    LLVMValueRef wide = LLVMBuildFPExt(m->b, x, cpu_vec_type(m->f64_t, lanes), "");
    LLVMValueRef rounder = like(m, wide, 0x1.8p52);
    LLVMValueRef t = add(m, mul_k(m, wide, 0.63661977236758134), rounder);
    LLVMValueRef nf = LLVMBuildFSub(m->b, t, rounder, "");
    LLVMValueRef r = wide;
    r = LLVMBuildFSub(m->b, r, mul_k(m, nf, PIO2_1), "");
    r = LLVMBuildFSub(m->b, r, mul_k(m, nf, PIO2_2), "");
    r = LLVMBuildFSub(m->b, r, mul_k(m, nf, PIO2_3), "");
    LLVMValueRef n = LLVMBuildBitCast(m->b, t, cpu_vec_type(m->i64_t, lanes), "");
    n = LLVMBuildTrunc(m->b, n, cpu_vec_type(m->i32_t, lanes), "");
    n = LLVMBuildAdd(m->b, n, int_like(m, x, quarter), "");
    r = LLVMBuildFPTrunc(m->b, r, LLVMTypeOf(x), "");
    LLVMValueRef r2 = mul(m, r, r);
    LLVMValueRef s = mul(m, r2, horner(m, r2, sin_poly, N_OF(sin_poly)));
    s = cpu_fma(m, r, s, r);
    LLVMValueRef c = mul(m, r2, horner(m, r2, cos_poly, N_OF(cos_poly)));
    c = cpu_fma(m, r2, add(m, c, like(m, x, -0.5)), like(m, x, 1));
    LLVMValueRef odd = LLVMBuildAnd(m->b, n, int_like(m, x, 1), "");
    odd = LLVMBuildICmp(m->b, LLVMIntNE, odd, int_like(m, x, 0), "");
    LLVMValueRef v = LLVMBuildSelect(m->b, odd, c, s, "");
    LLVMValueRef flip = LLVMBuildAnd(m->b, n, int_like(m, x, 2), "");
    flip = LLVMBuildShl(m->b, flip, int_like(m, x, 30), "");
    return from_bits(m, LLVMBuildXor(m->b, to_bits(m, v), flip, ""));
}

/* Replaces the lanes of v whose x is large, infinite or NaN by libm's value, in a loop that is
 * seldom entered. */
static LLVMValueRef trig_large(CpuModule *m, LLVMValueRef x, LLVMValueRef v, const char *name)
{
    int lanes = cpu_lanes(x);
    LLVMValueRef is_large =
        LLVMBuildFCmp(m->b, LLVMRealUGT, absolute(m, x), like(m, x, TRIG_LIMIT), "");
    LLVMValueRef any = is_large;
    if (lanes > 1) {
        LLVMTypeRef t = LLVMTypeOf(is_large);
        any = cpu_intrinsic(m, "llvm.vector.reduce.or", &t, 1, &is_large, 1);
    }
    LLVMValueRef n = LLVMBuildSelect(m->b, any, cpu_i64(m, lanes), cpu_i64(m, 0), "");
    CpuLoop l = cpu_loop_begin(m, cpu_i64(m, 0), n, 1, &v, 1);
    LLVMValueRef in = lanes > 1 ? LLVMBuildExtractElement(m->b, x, l.index, "") : x;
    in = LLVMBuildFPExt(m->b, in, m->f64_t, "");
    LLVMValueRef out = LLVMBuildFPTrunc(m->b, cpu_libm(m, name, m->f64_t, &in, 1), m->f32_t, "");
    LLVMValueRef all = l.carried[0];
    if (lanes > 1) out = LLVMBuildInsertElement(m->b, all, out, l.index, "");
    LLVMValueRef hit = lanes > 1 ? LLVMBuildExtractElement(m->b, is_large, l.index, "") : is_large;
    LLVMValueRef next = LLVMBuildSelect(m->b, hit, out, all, "");
    cpu_loop_end(m, &l, &next);
    return l.carried[0];
}

LLVMValueRef cpu_sin_f32(CpuModule *m, LLVMValueRef x)
{
    LLVMValueRef v = trig_small(m, x, 0);
    v = select_if(m, absolute(m, x), LLVMRealOLT, 0x1p-12, x, v); /* and sin -0 = -0 */
    return trig_large(m, x, v, "sin");
}

LLVMValueRef cpu_cos_f32(CpuModule *m, LLVMValueRef x)
{
    return trig_large(m, x, trig_small(m, x, 1), "cos");
}
