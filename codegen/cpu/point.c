/* point.c -- the POINT primitives of ops.def on registers, and random numbers. */
#include "codegen/cpu/cpu.h"
#include "ir/base/philox.h"

typedef struct PointIn {
    CpuModule *m;
    DType dt, in_dt; /* result, operands */
    LLVMValueRef a, b, c;
} PointIn;

static bool is_float(const PointIn *p)
{
    return dtype_class(p->in_dt) == DTC_FLOAT;
}

/* ---- arithmetic ---- */

static LLVMValueRef point_add(const PointIn *p)
{
    return is_float(p) ? LLVMBuildFAdd(p->m->b, p->a, p->b, "")
                       : LLVMBuildAdd(p->m->b, p->a, p->b, "");
}

static LLVMValueRef point_sub(const PointIn *p)
{
    return is_float(p) ? LLVMBuildFSub(p->m->b, p->a, p->b, "")
                       : LLVMBuildSub(p->m->b, p->a, p->b, "");
}

static LLVMValueRef point_mul(const PointIn *p)
{
    return is_float(p) ? LLVMBuildFMul(p->m->b, p->a, p->b, "")
                       : LLVMBuildMul(p->m->b, p->a, p->b, "");
}

static LLVMValueRef point_div(const PointIn *p)
{
    return LLVMBuildFDiv(p->m->b, p->a, p->b, "");
}

static LLVMValueRef point_neg(const PointIn *p)
{
    return is_float(p) ? LLVMBuildFNeg(p->m->b, p->a, "") : LLVMBuildNeg(p->m->b, p->a, "");
}

static LLVMValueRef unary_intrinsic(const PointIn *p, const char *name)
{
    LLVMTypeRef t = LLVMTypeOf(p->a);
    LLVMValueRef in[] = {p->a};
    return cpu_intrinsic(p->m, name, &t, 1, in, 1);
}

static LLVMValueRef point_abs(const PointIn *p)
{
    if (is_float(p)) return unary_intrinsic(p, "llvm.fabs");
    LLVMTypeRef t = LLVMTypeOf(p->a);
    LLVMValueRef in[] = {p->a, LLVMConstNull(p->m->i1_t)};
    return cpu_intrinsic(p->m, "llvm.abs", &t, 1, in, 2);
}

static LLVMValueRef point_floor(const PointIn *p)
{
    return unary_intrinsic(p, "llvm.floor");
}

static LLVMValueRef point_sqrt(const PointIn *p)
{
    return unary_intrinsic(p, "llvm.sqrt");
}

/* a where a OP b or a is NaN, else b: so a NaN on either side stays. */
static LLVMValueRef pick(CpuModule *m, LLVMValueRef a, LLVMValueRef b, LLVMRealPredicate real,
                         LLVMIntPredicate integer)
{
    LLVMTypeRef t = LLVMTypeOf(a);
    LLVMTypeKind kind = LLVMGetTypeKind(t);
    if (kind == LLVMVectorTypeKind) kind = LLVMGetTypeKind(LLVMGetElementType(t));
    if (kind == LLVMIntegerTypeKind)
        return LLVMBuildSelect(m->b, LLVMBuildICmp(m->b, integer, a, b, ""), a, b, "");
    LLVMValueRef most = LLVMBuildSelect(m->b, LLVMBuildFCmp(m->b, real, a, b, ""), a, b, "");
    return LLVMBuildSelect(m->b, LLVMBuildFCmp(m->b, LLVMRealUNO, a, a, ""), a, most, "");
}

LLVMValueRef cpu_max(CpuModule *m, LLVMValueRef a, LLVMValueRef b)
{
    return pick(m, a, b, LLVMRealOGT, LLVMIntSGT);
}

static LLVMValueRef point_max(const PointIn *p)
{
    if (p->in_dt == DT_I1) return LLVMBuildOr(p->m->b, p->a, p->b, "");
    return cpu_max(p->m, p->a, p->b);
}

static LLVMValueRef point_min(const PointIn *p)
{
    if (p->in_dt == DT_I1) return LLVMBuildAnd(p->m->b, p->a, p->b, "");
    return pick(p->m, p->a, p->b, LLVMRealOLT, LLVMIntSLT);
}

/* ---- logic and comparison ---- */

static LLVMValueRef compare(const PointIn *p, LLVMRealPredicate real, LLVMIntPredicate integer)
{
    if (is_float(p)) return LLVMBuildFCmp(p->m->b, real, p->a, p->b, "");
    if (p->in_dt != DT_I1) return LLVMBuildICmp(p->m->b, integer, p->a, p->b, "");
    LLVMTypeRef t = cpu_vec_type(p->m->i32_t, cpu_lanes(p->a)); /* i1's sign bit is its value */
    LLVMValueRef a = LLVMBuildZExt(p->m->b, p->a, t, "");
    LLVMValueRef b = LLVMBuildZExt(p->m->b, p->b, t, "");
    return LLVMBuildICmp(p->m->b, integer, a, b, "");
}

static LLVMValueRef point_eq(const PointIn *p)
{
    return compare(p, LLVMRealOEQ, LLVMIntEQ);
}

static LLVMValueRef point_ne(const PointIn *p)
{
    return compare(p, LLVMRealUNE, LLVMIntNE);
}

static LLVMValueRef point_lt(const PointIn *p)
{
    return compare(p, LLVMRealOLT, LLVMIntSLT);
}

static LLVMValueRef point_le(const PointIn *p)
{
    return compare(p, LLVMRealOLE, LLVMIntSLE);
}

static LLVMValueRef point_gt(const PointIn *p)
{
    return compare(p, LLVMRealOGT, LLVMIntSGT);
}

static LLVMValueRef point_ge(const PointIn *p)
{
    return compare(p, LLVMRealOGE, LLVMIntSGE);
}

static LLVMValueRef point_and(const PointIn *p)
{
    return LLVMBuildAnd(p->m->b, p->a, p->b, "");
}

static LLVMValueRef point_or(const PointIn *p)
{
    return LLVMBuildOr(p->m->b, p->a, p->b, "");
}

static LLVMValueRef point_not(const PointIn *p)
{
    return LLVMBuildNot(p->m->b, p->a, "");
}

static LLVMValueRef point_select(const PointIn *p)
{
    return LLVMBuildSelect(p->m->b, p->a, p->b, p->c, "");
}

static LLVMValueRef point_is_finite(const PointIn *p)
{
    if (!is_float(p)) return LLVMConstAllOnes(cpu_vec_type(p->m->i1_t, cpu_lanes(p->a)));
    int lanes = cpu_lanes(p->a);
    bool is_f64 = p->in_dt == DT_F64;
    LLVMTypeRef elem = is_f64 ? p->m->i64_t : p->m->i32_t;
    uint64_t exponent = is_f64 ? 0x7ff0000000000000u : 0x7f800000u;
    LLVMValueRef mask = cpu_splat(p->m, LLVMConstInt(elem, exponent, 0), lanes);
    LLVMValueRef bits = LLVMBuildBitCast(p->m->b, p->a, cpu_vec_type(elem, lanes), "");
    bits = LLVMBuildAnd(p->m->b, bits, mask, "");
    return LLVMBuildICmp(p->m->b, LLVMIntNE, bits, mask, "");
}

/* ROUND_BF16: bf16 is the upper half of f32's bits; of f64's, its steps are 2^45 apart. */
static LLVMValueRef point_round_bf16(const PointIn *p)
{
    CpuModule *m = p->m;
    int lanes = cpu_lanes(p->a);
    bool is_f64 = p->in_dt == DT_F64;
    LLVMTypeRef elem = is_f64 ? m->i64_t : m->i32_t, t = cpu_vec_type(elem, lanes);
    uint64_t cut = is_f64 ? ~((UINT64_C(1) << 45) - 1) : 0xffff0000u;
    LLVMValueRef steps = LLVMConstReal(is_f64 ? m->f64_t : m->f32_t, 65536);
    LLVMValueRef part = LLVMBuildFMul(m->b, p->b, cpu_splat(m, steps, lanes), "");
    part = LLVMBuildFPToSI(m->b, part, t, "");
    if (is_f64) part = LLVMBuildShl(m->b, part, cpu_splat(m, LLVMConstInt(elem, 29, 0), lanes), "");
    LLVMValueRef bits = LLVMBuildBitCast(m->b, p->a, t, "");
    bits = LLVMBuildAdd(m->b, bits, part, "");
    bits = LLVMBuildAnd(m->b, bits, cpu_splat(m, LLVMConstInt(elem, cut, 0), lanes), "");
    LLVMValueRef rounded = LLVMBuildBitCast(m->b, bits, LLVMTypeOf(p->a), "");
    return LLVMBuildSelect(m->b, point_is_finite(p), rounded, p->a, "");
}

/* ---- functions ---- */

/* f64 values are few (learning rate, norms, losses): libm, lane by lane. */
static LLVMValueRef by_libm(const PointIn *p, const char *name)
{
    CpuModule *m = p->m;
    int lanes = cpu_lanes(p->a);
    LLVMValueRef in = p->a;
    if (lanes == 1) return cpu_libm(m, name, m->f64_t, &in, 1);
    LLVMValueRef out = LLVMGetPoison(LLVMTypeOf(p->a));
    for (int i = 0; i < lanes; i++) {
        in = LLVMBuildExtractElement(m->b, p->a, cpu_i32(m, i), "");
        out = LLVMBuildInsertElement(m->b, out, cpu_libm(m, name, m->f64_t, &in, 1), cpu_i32(m, i),
                                     "");
    }
    return out;
}

static LLVMValueRef point_exp(const PointIn *p)
{
    return p->dt == DT_F64 ? by_libm(p, "exp") : cpu_exp_f32(p->m, p->a);
}

static LLVMValueRef point_log(const PointIn *p)
{
    return p->dt == DT_F64 ? by_libm(p, "log") : cpu_log_f32(p->m, p->a);
}

static LLVMValueRef point_tanh(const PointIn *p)
{
    return p->dt == DT_F64 ? by_libm(p, "tanh") : cpu_tanh_f32(p->m, p->a);
}

static LLVMValueRef point_erf(const PointIn *p)
{
    return p->dt == DT_F64 ? by_libm(p, "erf") : cpu_erf_f32(p->m, p->a);
}

static LLVMValueRef point_sin(const PointIn *p)
{
    return p->dt == DT_F64 ? by_libm(p, "sin") : cpu_sin_f32(p->m, p->a);
}

static LLVMValueRef point_cos(const PointIn *p)
{
    return p->dt == DT_F64 ? by_libm(p, "cos") : cpu_cos_f32(p->m, p->a);
}

/* ---- table ---- */

typedef LLVMValueRef (*PointFn)(const PointIn *p);

typedef struct PointRule {
    OpCode op;
    PointFn build;
    bool is_exact; /* of 16-bit operands the result is a 16-bit float already */
} PointRule;

static const PointRule point_rules[] = {
    {OP_ABS, point_abs, true},
    {OP_ADD, point_add, false},
    {OP_AND, point_and, true},
    {OP_COS, point_cos, false},
    {OP_DIV, point_div, false},
    {OP_EQ, point_eq, true},
    {OP_ERF, point_erf, false},
    {OP_EXP, point_exp, false},
    {OP_FLOOR, point_floor, true},
    {OP_GE, point_ge, true},
    {OP_GT, point_gt, true},
    {OP_IS_FINITE, point_is_finite, true},
    {OP_LE, point_le, true},
    {OP_LOG, point_log, false},
    {OP_LT, point_lt, true},
    {OP_MAX, point_max, true},
    {OP_MIN, point_min, true},
    {OP_MUL, point_mul, false},
    {OP_NE, point_ne, true},
    {OP_NEG, point_neg, true},
    {OP_NOT, point_not, true},
    {OP_OR, point_or, true},
    {OP_ROUND_BF16, point_round_bf16, false},
    {OP_SELECT, point_select, true},
    {OP_SIN, point_sin, false},
    {OP_SQRT, point_sqrt, false},
    {OP_SUB, point_sub, false},
    {OP_TANH, point_tanh, false},
};

LLVMValueRef cpu_emit_point(CpuModule *m, OpCode op, DType dt, DType in_dt, LLVMValueRef *in)
{
    size_t n = sizeof point_rules / sizeof *point_rules;
    const PointRule *rule = NULL;
    for (size_t i = 0; i < n && !rule; i++)
        if (point_rules[i].op == op) rule = &point_rules[i];
    ZM_CHECK(rule != NULL); /* pass expand leaves primitives only */
    int n_in = op_info(op)->max_in;
    PointIn p = {m, dt, in_dt, in[0], n_in > 1 ? in[1] : NULL, n_in > 2 ? in[2] : NULL};
    LLVMValueRef v = rule->build(&p);
    return rule->is_exact ? v : cpu_round(m, v, dt);
}

/* ---- random numbers ---- */

/* High and low words of the product of v with a constant. */
static void mul_wide(CpuModule *m, LLVMValueRef v, uint32_t k, LLVMValueRef *high,
                     LLVMValueRef *low)
{
    int lanes = cpu_lanes(v);
    LLVMTypeRef wide = cpu_vec_type(m->i64_t, lanes);
    LLVMValueRef product = LLVMBuildMul(m->b, LLVMBuildZExt(m->b, v, wide, ""),
                                        cpu_splat(m, cpu_i64(m, (int64_t)k), lanes), "");
    LLVMValueRef shift = cpu_splat(m, cpu_i64(m, 32), lanes);
    *high = LLVMBuildTrunc(m->b, LLVMBuildLShr(m->b, product, shift, ""), LLVMTypeOf(v), "");
    *low = LLVMBuildTrunc(m->b, product, LLVMTypeOf(v), "");
}

static LLVMValueRef xor3(CpuModule *m, LLVMValueRef a, LLVMValueRef b, LLVMValueRef c)
{
    int lanes = cpu_lanes(a) > cpu_lanes(b) ? cpu_lanes(a) : cpu_lanes(b);
    LLVMValueRef ab = LLVMBuildXor(m->b, cpu_splat(m, a, lanes), cpu_splat(m, b, lanes), "");
    return LLVMBuildXor(m->b, ab, cpu_splat(m, c, lanes), "");
}

/* Word 0 of Philox4x32-10 per lane: counter c[4] (scalars or vectors, mixed), key k[2] (scalars).
 */
static LLVMValueRef philox_word(CpuModule *m, const LLVMValueRef c[4], const LLVMValueRef k[2])
{
    LLVMValueRef x[4] = {c[0], c[1], c[2], c[3]};
    LLVMValueRef k0 = k[0], k1 = k[1];
    for (int r = 0; r < PHILOX_ROUNDS; r++) {
        LLVMValueRef high0, low0, high1, low1;
        mul_wide(m, x[0], PHILOX_M0, &high0, &low0);
        mul_wide(m, x[2], PHILOX_M1, &high1, &low1);
        x[0] = xor3(m, high1, x[1], k0);
        x[1] = low1;
        x[2] = xor3(m, high0, x[3], k1);
        x[3] = low0;
        k0 = LLVMBuildAdd(m->b, k0, cpu_i32(m, (int32_t)PHILOX_W0), "");
        k1 = LLVMBuildAdd(m->b, k1, cpu_i32(m, (int32_t)PHILOX_W1), "");
    }
    return x[0];
}

LLVMValueRef cpu_random(CpuModule *m, const LLVMValueRef key[4], LLVMValueRef element,
                        LLVMValueRef sample, const LLVMValueRef stream[2])
{
    int lanes = cpu_lanes(sample);
    LLVMValueRef s = LLVMBuildAdd(m->b, cpu_splat(m, key[3], lanes), sample, "");
    LLVMValueRef counter[] = {element, s, key[2], stream[0]};
    LLVMValueRef seed[] = {key[0], LLVMBuildXor(m->b, key[1], stream[1], "")};
    LLVMValueRef word = philox_word(m, counter, seed);
    lanes = cpu_lanes(word);
    word = LLVMBuildLShr(m->b, word, cpu_splat(m, cpu_i32(m, 8), lanes), "");
    LLVMValueRef f = LLVMBuildSIToFP(m->b, word, cpu_vec_type(m->f32_t, lanes), "");
    return LLVMBuildFMul(m->b, f, cpu_splat(m, cpu_f32(m, 0x1p-24), lanes), "");
}
