/* module.c -- one LLVM module under construction: types, functions, passes, object file. */
#include <llvm-c/Analysis.h>
#include <llvm-c/Target.h>
#include <llvm-c/Transforms/PassBuilder.h>
#include <string.h>

#include "codegen/cpu/cpu.h"

#define CPU_TRIPLE "x86_64-pc-linux-gnu"

/* Our IR needs no inlining, vectoriser or loop pass: the emitter writes loops and vectors in their
 * final form.  What pays is the removal of repeated address arithmetic. */
#define CPU_PASSES "function(early-cse)"

void cpu_llvm_init(void)
{
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
}

static void module_types(CpuModule *m)
{
    m->void_t = LLVMVoidTypeInContext(m->cx);
    m->ptr_t = LLVMPointerTypeInContext(m->cx, 0);
    m->i1_t = LLVMInt1TypeInContext(m->cx);
    m->i8_t = LLVMInt8TypeInContext(m->cx);
    m->i16_t = LLVMInt16TypeInContext(m->cx);
    m->i32_t = LLVMInt32TypeInContext(m->cx);
    m->i64_t = LLVMInt64TypeInContext(m->cx);
    m->f16_t = LLVMHalfTypeInContext(m->cx);
    m->f32_t = LLVMFloatTypeInContext(m->cx);
    m->f64_t = LLVMDoubleTypeInContext(m->cx);
}

CpuModule *cpu_module_new(Arena *a, const CpuTarget *t, const char *name)
{
    CpuModule *m = ARENA_NEW(a, CpuModule);
    m->target = t;
    m->arena = a;
    m->cx = LLVMContextCreate();
    m->mod = LLVMModuleCreateWithNameInContext(name, m->cx);
    m->b = LLVMCreateBuilderInContext(m->cx);
    module_types(m);
    LLVMTargetRef target = NULL;
    char *why = NULL;
    ZM_CHECK(!LLVMGetTargetFromTriple(CPU_TRIPLE, &target, &why));
    m->tm = LLVMCreateTargetMachine(target, CPU_TRIPLE, t->cpu, t->features,
                                    LLVMCodeGenLevelDefault, LLVMRelocPIC, LLVMCodeModelDefault);
    LLVMSetTarget(m->mod, CPU_TRIPLE);
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(m->tm);
    LLVMSetModuleDataLayout(m->mod, layout);
    LLVMDisposeTargetData(layout);
    return m;
}

void cpu_module_free(CpuModule *m)
{
    LLVMDisposeBuilder(m->b);
    LLVMDisposeModule(m->mod);
    LLVMDisposeTargetMachine(m->tm);
    LLVMContextDispose(m->cx);
}

static Status llvm_failed(Diag *diag, const char *what, char *why)
{
    Status s =
        diag_error(diag, (SrcPos){0}, E_CODEGEN, "LLVM: %s: %s", what, why ? why : "unknown");
    if (why) LLVMDisposeMessage(why);
    return s;
}

static Status module_run_passes(CpuModule *m, Diag *diag)
{
    LLVMPassBuilderOptionsRef opt = LLVMCreatePassBuilderOptions();
    LLVMErrorRef err = LLVMRunPasses(m->mod, CPU_PASSES, m->tm, opt);
    LLVMDisposePassBuilderOptions(opt);
    if (!err) return ZM_OK;
    char *text = LLVMGetErrorMessage(err);
    diag_error(diag, (SrcPos){0}, E_CODEGEN, "LLVM: %s", text);
    LLVMDisposeErrorMessage(text);
    return ZM_FAIL;
}

Status cpu_module_write(CpuModule *m, Diag *diag, const char *path)
{
    char *why = NULL;
#ifndef NDEBUG
    if (LLVMVerifyModule(m->mod, LLVMReturnStatusAction, &why))
        return llvm_failed(diag, "invalid module", why);
    LLVMDisposeMessage(why);
    why = NULL;
#endif
    ZM_TRY(module_run_passes(m, diag));
    if (LLVMTargetMachineEmitToFile(m->tm, m->mod, (char *)path, LLVMObjectFile, &why))
        return llvm_failed(diag, path, why);
    return ZM_OK;
}

static void fn_attr(CpuModule *m, LLVMValueRef fn, const char *key, const char *value)
{
    LLVMAttributeRef at = LLVMCreateStringAttribute(m->cx, key, (unsigned)strlen(key), value,
                                                    (unsigned)strlen(value));
    LLVMAddAttributeAtIndex(fn, (LLVMAttributeIndex)LLVMAttributeFunctionIndex, at);
}

void cpu_function_attrs(CpuModule *m, LLVMValueRef fn)
{
    const CpuTarget *t = m->target;
    fn_attr(m, fn, "target-cpu", t->cpu);
    fn_attr(m, fn, "tune-cpu", t->tune);
    if (t->features[0]) fn_attr(m, fn, "target-features", t->features);
    if (t->has_avx512) { /* x86-64-v4 alone prefers 256 bits */
        fn_attr(m, fn, "prefer-vector-width", "512");
        fn_attr(m, fn, "min-legal-vector-width", "512");
    }
    unsigned kind = LLVMGetEnumAttributeKindForName("nounwind", 8);
    LLVMAddAttributeAtIndex(fn, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
                            LLVMCreateEnumAttribute(m->cx, kind, 0));
}

void cpu_function_begin(CpuModule *m, const char *name)
{
    LLVMTypeRef in[] = {m->ptr_t, m->i64_t, m->ptr_t};
    m->fn = LLVMAddFunction(m->mod, name, LLVMFunctionType(m->void_t, in, 3, 0));
    cpu_function_attrs(m, m->fn);
    m->bufs = LLVMGetParam(m->fn, 0);
    m->task = LLVMGetParam(m->fn, 1);
    m->scratch = LLVMGetParam(m->fn, 2);
    m->entry = LLVMAppendBasicBlockInContext(m->cx, m->fn, "entry");
    LLVMBasicBlockRef body = LLVMAppendBasicBlockInContext(m->cx, m->fn, "start");
    LLVMPositionBuilderAtEnd(m->b, m->entry);
    LLVMBuildBr(m->b, body);
    LLVMPositionBuilderAtEnd(m->b, body);
}

void cpu_function_end(CpuModule *m)
{
    LLVMBuildRetVoid(m->b);
}

LLVMValueRef cpu_buffer(CpuModule *m, uint32_t arg)
{
    LLVMValueRef i = cpu_i64(m, arg);
    LLVMValueRef slot = LLVMBuildInBoundsGEP2(m->b, m->ptr_t, m->bufs, &i, 1, "");
    return LLVMBuildLoad2(m->b, m->ptr_t, slot, "");
}

LLVMValueRef cpu_alloca(CpuModule *m, LLVMTypeRef t, uint32_t align)
{
    LLVMBasicBlockRef here = LLVMGetInsertBlock(m->b);
    LLVMPositionBuilderBefore(m->b, LLVMGetBasicBlockTerminator(m->entry));
    LLVMValueRef v = LLVMBuildAlloca(m->b, t, "");
    LLVMSetAlignment(v, align);
    LLVMPositionBuilderAtEnd(m->b, here);
    return v;
}

LLVMValueRef cpu_intrinsic(CpuModule *m, const char *name, LLVMTypeRef *overload,
                           uint32_t n_overload, LLVMValueRef *args, uint32_t n_args)
{
    unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
    ZM_CHECK(id != 0);
    LLVMValueRef fn = LLVMGetIntrinsicDeclaration(m->mod, id, overload, n_overload);
    return LLVMBuildCall2(m->b, LLVMGlobalGetValueType(fn), fn, args, n_args, "");
}

LLVMValueRef cpu_libm(CpuModule *m, const char *name, LLVMTypeRef t, LLVMValueRef *args,
                      uint32_t n_args)
{
    LLVMTypeRef in[4] = {t, t, t, t};
    ZM_CHECK(n_args <= 4);
    LLVMTypeRef type = LLVMFunctionType(t, in, n_args, 0);
    LLVMValueRef fn = LLVMGetNamedFunction(m->mod, name);
    if (!fn) fn = LLVMAddFunction(m->mod, name, type);
    return LLVMBuildCall2(m->b, type, fn, args, n_args, "");
}

const char *cpu_phase_name(CpuModule *m, const char *name, uint32_t phase)
{
    return arena_printf(m->arena, "%s_%u", name, phase);
}
