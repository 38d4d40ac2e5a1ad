/* gpu.c -- see gpu.h. */
#include "codegen/gpu.h"

#include <string.h>

#include "codegen/cpu/cpu.h"
#include "codegen/cuda/modules.h"
#include "codegen/program.h"

static KernelCode *kernel_codes(Arena *a, const CudaModules *c)
{
    KernelCode *code = ARENA_ARRAY(a, KernelCode, c->n_kernels + 1);
    for (uint32_t i = 0; i < c->n; i++)
        for (uint32_t k = c->at[i].first; k < c->at[i].first + c->at[i].n; k++) {
            CudaSchedule s = cuda_schedule(c->kernels[k], cuda_arch(c->arch));
            code[k].entry = cuda_kernel_name(a, k);
            code[k].module = i;
            code[k].block_x = (uint32_t)s.threads_x;
            code[k].block_y = (uint32_t)s.threads_y;
            code[k].grid_x = (uint32_t)s.n_blocks;
            code[k].workspace_bytes = s.workspace_bytes;
            code[k].shared_bytes = (uint32_t)s.shared_bytes;
        }
    return code;
}

static ZmpRange append(char *to, size_t *at, const char *from, size_t n)
{
    *at = (*at + ZMP_ALIGN - 1) / ZMP_ALIGN * ZMP_ALIGN;
    ZmpRange r = {.offset = *at, .n = n};
    if (n) memcpy(to + *at, from, n);
    *at += n;
    return r;
}

/* All modules in a row, into the table as well. */
static const char *join(Program *p, const CudaModules *c, size_t *n_bytes)
{
    size_t most = 0;
    for (uint32_t i = 0; i < c->n; i++)
        most += c->at[i].ptx_bytes + c->at[i].cubin_bytes + 2 * ZMP_ALIGN;
    char *code = arena_alloc(p->a, most + 1);
    *n_bytes = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        const CudaModule *m = &c->at[i];
        ZmpModule z = {.name = program_string(p, m->name)};
        z.ptx = append(code, n_bytes, m->ptx, m->ptx_bytes);
        z.cubin = append(code, n_bytes, m->cubin, m->cubin_bytes);
        VEC_PUSH(p->a, &p->modules, z);
    }
    return code;
}

static Status build_image(Arena *a, const Module *m, const CodegenTarget *t,
                          const CodegenOptions *opt, Program *p, GpuImage *out)
{
    KernelSet set;
    ZM_TRY(kernel_set_build(a, m, &set));
    CudaModules c = {.m = m, .arch = t->arch, .n_threads = codegen_threads(opt)};
    c.n_kernels = set.kernels.n;
    c.kernels = set.kernels.at;
    ZM_TRY(cuda_compile_modules(a, t->diag, &c));
    ProgramInfo info = codegen_program_info(t, opt);
    ZM_TRY(program_build(a, m, &set, kernel_codes(a, &c), &info, p));
    out->device_code = join(p, &c, &out->device_code_bytes);
    out->program = program_blob(p, &out->program_bytes);
    return ZM_OK;
}

Status codegen_gpu_image(Arena *a, const Module *m, const CodegenTarget *t,
                         const CodegenOptions *opt, GpuImage *out)
{
    Program p;
    return build_image(a, m, t, opt, &p, out);
}

Status codegen_gpu_objects(Arena *a, const Module *m, const CodegenTarget *t,
                           const CodegenOptions *opt, const char *dir, Program *p,
                           const char *const **objects, uint32_t *n_objects)
{
    GpuImage image;
    ZM_TRY(build_image(a, m, t, opt, p, &image));
    CpuProgramObject out = {.blob = image.program, .n_bytes = image.program_bytes};
    codegen_read_shim(a, p, opt->mpi_shim, &out.shim, &out.shim_bytes);
    out.device_code = image.device_code;
    out.device_code_bytes = image.device_code_bytes;
    const char **all = ARENA_ARRAY(a, const char *, 1);
    all[0] = arena_printf(a, "%s/program.o", dir);
    *objects = all;
    *n_objects = 1;
    return cpu_write_program(a, t->diag, t->cpu, &out, all[0]);
}
