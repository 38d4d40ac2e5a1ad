/* loop.c -- constants, register types and control flow of emitted functions. */
#include "codegen/cpu/cpu.h"

LLVMValueRef cpu_i64(CpuModule *m, int64_t v)
{
    return LLVMConstInt(m->i64_t, (uint64_t)v, 1);
}

LLVMValueRef cpu_i32(CpuModule *m, int32_t v)
{
    return LLVMConstInt(m->i32_t, (uint64_t)(int64_t)v, 1);
}

LLVMValueRef cpu_f32(CpuModule *m, double v)
{
    return LLVMConstReal(m->f32_t, v);
}

LLVMTypeRef cpu_vec_type(LLVMTypeRef elem, int lanes)
{
    return lanes > 1 ? LLVMVectorType(elem, (unsigned)lanes) : elem;
}

LLVMTypeRef cpu_reg_type(CpuModule *m, DType dt, int lanes)
{
    LLVMTypeRef t = NULL;
    switch (dt) {
    case DT_I1: t = m->i1_t; break;
    case DT_I32: t = m->i32_t; break;
    case DT_BF16:
    case DT_F16:
    case DT_F32: t = m->f32_t; break;
    case DT_F64: t = m->f64_t; break;
    case DT_NONE:
    case N_DTYPE: ZM_UNREACHABLE("dtype");
    }
    return cpu_vec_type(t, lanes);
}

LLVMTypeRef cpu_mem_type(CpuModule *m, DType dt)
{
    switch (dt) {
    case DT_I1: return m->i8_t;
    case DT_I32: return m->i32_t;
    case DT_BF16:
    case DT_F16: return m->i16_t;
    case DT_F32: return m->f32_t;
    case DT_F64: return m->f64_t;
    case DT_NONE:
    case N_DTYPE: break;
    }
    ZM_UNREACHABLE("dtype");
}

int cpu_lanes(LLVMValueRef v)
{
    LLVMTypeRef t = LLVMTypeOf(v);
    return LLVMGetTypeKind(t) == LLVMVectorTypeKind ? (int)LLVMGetVectorSize(t) : 1;
}

LLVMValueRef cpu_splat(CpuModule *m, LLVMValueRef scalar, int lanes)
{
    if (lanes == 1 || cpu_lanes(scalar) == lanes) return scalar;
    LLVMTypeRef vec = LLVMVectorType(LLVMTypeOf(scalar), (unsigned)lanes);
    if (LLVMIsConstant(scalar)) {
        LLVMValueRef elems[64];
        ZM_CHECK(lanes <= 64);
        for (int i = 0; i < lanes; i++) elems[i] = scalar;
        return LLVMConstVector(elems, (unsigned)lanes);
    }
    LLVMValueRef poison = LLVMGetPoison(vec);
    LLVMValueRef one = LLVMBuildInsertElement(m->b, poison, scalar, cpu_i32(m, 0), "");
    LLVMValueRef zeros = LLVMConstNull(LLVMVectorType(m->i32_t, (unsigned)lanes));
    return LLVMBuildShuffleVector(m->b, one, poison, zeros, "");
}

LLVMValueRef cpu_lane_ramp(CpuModule *m, LLVMTypeRef int_elem, int lanes, int64_t step)
{
    (void)m;
    LLVMValueRef elems[64];
    ZM_CHECK(lanes <= 64);
    for (int i = 0; i < lanes; i++) elems[i] = LLVMConstInt(int_elem, (uint64_t)(step * i), 1);
    return lanes == 1 ? elems[0] : LLVMConstVector(elems, (unsigned)lanes);
}

LLVMValueRef cpu_mad(CpuModule *m, LLVMValueRef a, int64_t k, LLVMValueRef b)
{
    if (k == 0) return b;
    LLVMValueRef ak = k == 1 ? a : LLVMBuildNSWMul(m->b, a, cpu_i64(m, k), "");
    if (LLVMIsConstant(b) && LLVMIsAConstantInt(b) && LLVMConstIntGetSExtValue(b) == 0) return ak;
    return LLVMBuildNSWAdd(m->b, ak, b, "");
}

CpuLoop cpu_loop_begin(CpuModule *m, LLVMValueRef lo, LLVMValueRef hi, int64_t step,
                       const LLVMValueRef *init, uint32_t n_carried)
{
    CpuLoop l = {.hi = hi, .step = cpu_i64(m, step), .n_carried = n_carried};
    LLVMBasicBlockRef from = LLVMGetInsertBlock(m->b);
    l.head = LLVMAppendBasicBlockInContext(m->cx, m->fn, "head");
    l.body = LLVMAppendBasicBlockInContext(m->cx, m->fn, "body");
    l.exit = LLVMAppendBasicBlockInContext(m->cx, m->fn, "exit");
    LLVMBuildBr(m->b, l.head);
    LLVMPositionBuilderAtEnd(m->b, l.head);
    l.index = LLVMBuildPhi(m->b, m->i64_t, "i");
    LLVMAddIncoming(l.index, &lo, &from, 1);
    l.carried = ARENA_ARRAY(m->arena, LLVMValueRef, n_carried ? n_carried : 1);
    for (uint32_t i = 0; i < n_carried; i++) {
        LLVMValueRef v = init[i];
        l.carried[i] = LLVMBuildPhi(m->b, LLVMTypeOf(v), "");
        LLVMAddIncoming(l.carried[i], &v, &from, 1);
    }
    LLVMValueRef more = LLVMBuildICmp(m->b, LLVMIntSLT, l.index, hi, "");
    LLVMBuildCondBr(m->b, more, l.body, l.exit);
    LLVMPositionBuilderAtEnd(m->b, l.body);
    return l;
}

void cpu_loop_end(CpuModule *m, CpuLoop *l, const LLVMValueRef *next)
{
    LLVMBasicBlockRef from = LLVMGetInsertBlock(m->b);
    LLVMValueRef index = LLVMBuildNSWAdd(m->b, l->index, l->step, "");
    LLVMAddIncoming(l->index, &index, &from, 1);
    for (uint32_t i = 0; i < l->n_carried; i++) {
        LLVMValueRef v = next[i];
        LLVMAddIncoming(l->carried[i], &v, &from, 1);
    }
    LLVMBuildBr(m->b, l->head);
    LLVMPositionBuilderAtEnd(m->b, l->exit);
}

CpuIf cpu_if_begin(CpuModule *m, LLVMValueRef cond)
{
    LLVMBasicBlockRef then = LLVMAppendBasicBlockInContext(m->cx, m->fn, "then");
    CpuIf i = {LLVMAppendBasicBlockInContext(m->cx, m->fn, "join")};
    LLVMBuildCondBr(m->b, cond, then, i.join);
    LLVMPositionBuilderAtEnd(m->b, then);
    return i;
}

void cpu_if_end(CpuModule *m, CpuIf *i)
{
    LLVMBuildBr(m->b, i->join);
    LLVMPositionBuilderAtEnd(m->b, i->join);
}
