/* program_object.c -- the program's blob, the table of kernel functions, the MPI shim and the
 * code of a GPU as an object file. */
#include "codegen/cpu/cpu.h"

static void add_constant(CpuModule *m, const char *name, LLVMValueRef value, unsigned align)
{
    LLVMValueRef g = LLVMAddGlobal(m->mod, LLVMTypeOf(value), name);
    LLVMSetInitializer(g, value);
    LLVMSetGlobalConstant(g, 1);
    LLVMSetAlignment(g, align);
}

static void add_bytes(CpuModule *m, const char *name, const char *at, size_t n_bytes)
{
    LLVMValueRef bytes = LLVMConstStringInContext2(m->cx, at, n_bytes, 1);
    add_constant(m, name, bytes, ZMP_ALIGN);
}

Status cpu_write_program(Arena *a, Diag *diag, const CpuTarget *t, const CpuProgramObject *o,
                         const char *path)
{
    cpu_llvm_init();
    CpuModule *m = cpu_module_new(a, t, "program");
    LLVMTypeRef in[] = {m->ptr_t, m->i64_t, m->ptr_t};
    LLVMTypeRef fn_t = LLVMFunctionType(m->void_t, in, 3, 0);
    LLVMValueRef *table = ARENA_ARRAY(a, LLVMValueRef, o->n_fns + 1);
    for (uint32_t i = 0; i < o->n_fns; i++) table[i] = LLVMAddFunction(m->mod, o->fns[i], fn_t);
    add_bytes(m, "zm_program", o->blob, o->n_bytes);
    add_constant(m, "zm_program_bytes", cpu_i64(m, (int64_t)o->n_bytes), 8);
    add_constant(m, "zm_kernel_fns", LLVMConstArray2(m->ptr_t, table, o->n_fns), 8);
    add_bytes(m, "zm_mpi_shim", o->shim_bytes ? o->shim : "", o->shim_bytes ? o->shim_bytes : 1);
    add_constant(m, "zm_mpi_shim_bytes", cpu_i64(m, (int64_t)o->shim_bytes), 8);
    add_bytes(m, "zm_device_code", o->device_code_bytes ? o->device_code : "",
              o->device_code_bytes ? o->device_code_bytes : 1);
    add_constant(m, "zm_device_code_bytes", cpu_i64(m, (int64_t)o->device_code_bytes), 8);
    Status s = cpu_module_write(m, diag, path);
    cpu_module_free(m);
    return s;
}
