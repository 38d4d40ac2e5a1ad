/* memory.c -- between memory and registers: contiguous, masked, gathered; dtype conversion on the
 * way. */
#include "codegen/cpu/cpu.h"

LLVMValueRef cpu_elem_ptr(CpuModule *m, LLVMValueRef base, DType dt, LLVMValueRef elem)
{
    return LLVMBuildInBoundsGEP2(m->b, cpu_mem_type(m, dt), base, &elem, 1, "");
}

/* Register form of raw memory values. */
static LLVMValueRef reg_from_mem(CpuModule *m, DType dt, LLVMValueRef raw)
{
    if (dt == DT_I1) return LLVMBuildICmp(m->b, LLVMIntNE, raw, LLVMConstNull(LLVMTypeOf(raw)), "");
    if (dt == DT_BF16 || dt == DT_F16) return cpu_half_load(m, dt, raw);
    return raw;
}

static LLVMValueRef mem_from_reg(CpuModule *m, DType dt, LLVMValueRef v)
{
    int lanes = cpu_lanes(v);
    if (dt == DT_I1) return LLVMBuildZExt(m->b, v, cpu_vec_type(m->i8_t, lanes), "");
    if (dt == DT_BF16 || dt == DT_F16) return cpu_half_store(m, dt, v);
    return v;
}

/* A zero on the stack: where a lane that may not touch memory reads. */
static LLVMValueRef zero_slot(CpuModule *m)
{
    LLVMValueRef slot = cpu_alloca(m, m->i64_t, 8);
    LLVMBasicBlockRef here = LLVMGetInsertBlock(m->b);
    LLVMPositionBuilderBefore(m->b, LLVMGetBasicBlockTerminator(m->entry));
    LLVMBuildStore(m->b, cpu_i64(m, 0), slot);
    LLVMPositionBuilderAtEnd(m->b, here);
    return slot;
}

static unsigned elem_align(DType dt)
{
    return (unsigned)dtype_bytes(dt);
}

LLVMValueRef cpu_load(CpuModule *m, DType dt, LLVMValueRef p, int lanes, LLVMValueRef mask)
{
    LLVMTypeRef t = cpu_vec_type(cpu_mem_type(m, dt), lanes);
    if (mask && lanes > 1) {
        LLVMTypeRef over[] = {t, m->ptr_t};
        LLVMValueRef args[] = {p, cpu_i32(m, (int32_t)elem_align(dt)), mask, LLVMConstNull(t)};
        return reg_from_mem(m, dt, cpu_intrinsic(m, "llvm.masked.load", over, 2, args, 4));
    }
    if (mask) p = LLVMBuildSelect(m->b, mask, p, zero_slot(m), "");
    LLVMValueRef raw = LLVMBuildLoad2(m->b, t, p, "");
    LLVMSetAlignment(raw, elem_align(dt));
    return reg_from_mem(m, dt, raw);
}

void cpu_store(CpuModule *m, DType dt, LLVMValueRef v, LLVMValueRef p, int lanes, LLVMValueRef mask)
{
    LLVMValueRef raw = mem_from_reg(m, dt, cpu_splat(m, v, lanes));
    if (mask && lanes > 1) {
        LLVMTypeRef over[] = {LLVMTypeOf(raw), m->ptr_t};
        LLVMValueRef args[] = {raw, p, cpu_i32(m, (int32_t)elem_align(dt)), mask};
        cpu_intrinsic(m, "llvm.masked.store", over, 2, args, 4);
        return;
    }
    if (mask) p = LLVMBuildSelect(m->b, mask, p, cpu_alloca(m, m->i64_t, 8), "");
    LLVMSetAlignment(LLVMBuildStore(m->b, raw, p), elem_align(dt));
}

void cpu_prefetch(CpuModule *m, LLVMValueRef p)
{
    LLVMTypeRef over[] = {m->ptr_t};
    LLVMValueRef args[] = {p, cpu_i32(m, 0), cpu_i32(m, 2), cpu_i32(m, 1)};
    cpu_intrinsic(m, "llvm.prefetch", over, 1, args, 4);
}

static LLVMValueRef full_mask(CpuModule *m, LLVMValueRef mask, int lanes)
{
    return mask ? mask : cpu_splat(m, LLVMConstInt(m->i1_t, 1, 0), lanes);
}

LLVMValueRef cpu_gather(CpuModule *m, DType dt, LLVMValueRef base, LLVMValueRef elems, int lanes,
                        LLVMValueRef mask)
{
    if (lanes == 1) return cpu_load(m, dt, cpu_elem_ptr(m, base, dt, elems), 1, mask);
    LLVMTypeRef t = cpu_vec_type(cpu_mem_type(m, dt), lanes);
    LLVMValueRef at = cpu_elem_ptr(m, base, dt, cpu_splat(m, elems, lanes));
    LLVMTypeRef over[] = {t, LLVMTypeOf(at)};
    LLVMValueRef args[] = {at, cpu_i32(m, (int32_t)elem_align(dt)), full_mask(m, mask, lanes),
                           LLVMConstNull(t)};
    return reg_from_mem(m, dt, cpu_intrinsic(m, "llvm.masked.gather", over, 2, args, 4));
}

void cpu_scatter(CpuModule *m, DType dt, LLVMValueRef v, LLVMValueRef base, LLVMValueRef elems,
                 int lanes, LLVMValueRef mask)
{
    LLVMValueRef at = cpu_elem_ptr(m, base, dt, cpu_splat(m, elems, lanes));
    if (lanes == 1) {
        cpu_store(m, dt, v, at, 1, mask);
        return;
    }
    LLVMValueRef raw = mem_from_reg(m, dt, cpu_splat(m, v, lanes));
    LLVMTypeRef over[] = {LLVMTypeOf(raw), LLVMTypeOf(at)};
    LLVMValueRef args[] = {raw, at, cpu_i32(m, (int32_t)elem_align(dt)), full_mask(m, mask, lanes)};
    cpu_intrinsic(m, "llvm.masked.scatter", over, 2, args, 4);
}

LLVMValueRef cpu_tail_mask(CpuModule *m, LLVMValueRef index, LLVMValueRef n, int lanes)
{
    LLVMValueRef left = LLVMBuildNSWSub(m->b, n, index, "");
    if (lanes == 1) return LLVMBuildICmp(m->b, LLVMIntSGT, left, cpu_i64(m, 0), "");
    /* 32-bit lanes: half the registers of 64-bit ones */
    LLVMValueRef cap = cpu_i64(m, lanes);
    LLVMValueRef is_more = LLVMBuildICmp(m->b, LLVMIntSGT, left, cap, "");
    left = LLVMBuildSelect(m->b, is_more, cap, left, "");
    left = cpu_splat(m, LLVMBuildTrunc(m->b, left, m->i32_t, ""), lanes);
    return LLVMBuildICmp(m->b, LLVMIntSGT, left, cpu_lane_ramp(m, m->i32_t, lanes, 1), "");
}

static LLVMValueRef cast_from_bool(CpuModule *m, LLVMValueRef v, DType to, LLVMTypeRef t)
{
    if (dtype_class(to) == DTC_BOOL) return v;
    if (dtype_class(to) == DTC_INT) return LLVMBuildZExt(m->b, v, t, "");
    LLVMTypeRef elem = to == DT_F64 ? m->f64_t : m->f32_t;
    LLVMValueRef one = cpu_splat(m, LLVMConstReal(elem, 1), cpu_lanes(v));
    return LLVMBuildSelect(m->b, v, one, LLVMConstNull(t), "");
}

static LLVMValueRef cast_from_float(CpuModule *m, LLVMValueRef v, DType from, DType to,
                                    LLVMTypeRef t)
{
    if (dtype_class(to) == DTC_INT) return LLVMBuildFPToSI(m->b, v, t, "");
    if (to == DT_F64) return from == DT_F64 ? v : LLVMBuildFPExt(m->b, v, t, "");
    if (from == DT_F64) v = LLVMBuildFPTrunc(m->b, v, t, "");
    return from == to ? v : cpu_round(m, v, to);
}

LLVMValueRef cpu_cast(CpuModule *m, LLVMValueRef v, DType from, DType to)
{
    LLVMTypeRef t = cpu_reg_type(m, to, cpu_lanes(v));
    LLVMValueRef zero = LLVMConstNull(LLVMTypeOf(v));
    if (dtype_class(from) == DTC_BOOL) return cast_from_bool(m, v, to, t);
    if (dtype_class(from) == DTC_FLOAT) {
        if (to == DT_I1) return LLVMBuildFCmp(m->b, LLVMRealUNE, v, zero, "");
        return cast_from_float(m, v, from, to, t);
    }
    if (to == DT_I1) return LLVMBuildICmp(m->b, LLVMIntNE, v, zero, "");
    if (dtype_class(to) == DTC_INT) return v;
    return cpu_round(m, LLVMBuildSIToFP(m->b, v, t, ""), to);
}
