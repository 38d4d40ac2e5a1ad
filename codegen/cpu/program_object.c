/* program_object.c -- the program's blob and the table of kernel functions as an object file. */
#include "codegen/cpu/cpu.h"

static void add_constant(CpuModule *m, const char *name, LLVMValueRef value, unsigned align)
{
    LLVMValueRef g = LLVMAddGlobal(m->mod, LLVMTypeOf(value), name);
    LLVMSetInitializer(g, value);
    LLVMSetGlobalConstant(g, 1);
    LLVMSetAlignment(g, align);
}

Status cpu_write_program(Arena *a, Diag *diag, const CpuTarget *t, const char *blob, size_t n_bytes,
                         const char *const *fns, uint32_t n_fns, const char *path)
{
    cpu_llvm_init();
    CpuModule *m = cpu_module_new(a, t, "program");
    LLVMTypeRef in[] = {m->ptr_t, m->i64_t, m->ptr_t};
    LLVMTypeRef fn_t = LLVMFunctionType(m->void_t, in, 3, 0);
    LLVMValueRef *table = ARENA_ARRAY(a, LLVMValueRef, n_fns + 1);
    for (uint32_t i = 0; i < n_fns; i++) table[i] = LLVMAddFunction(m->mod, fns[i], fn_t);
    LLVMValueRef bytes = LLVMConstStringInContext2(m->cx, blob, n_bytes, 1);
    add_constant(m, "zm_program", bytes, ZMP_ALIGN);
    add_constant(m, "zm_program_bytes", cpu_i64(m, (int64_t)n_bytes), 8);
    add_constant(m, "zm_kernel_fns", LLVMConstArray2(m->ptr_t, table, n_fns), 8);
    Status s = cpu_module_write(m, diag, path);
    cpu_module_free(m);
    return s;
}
