/* codegen.c -- see codegen.h. */
#include "codegen/codegen.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#include "codegen/cpu/cpu.h"
#include "codegen/gpu.h"
#include "codegen/cuda/modules.h"
#include "codegen/link.h"
#include "codegen/program.h"
#include "ir/base/file.h"

/* ---- target ---- */

/* sm_90, sm_90a, sm_100f */
static bool is_arch(const char *name)
{
    if (strncmp(name, "sm_", 3) != 0 || name[3] == '0') return false;
    size_t digits = strspn(name + 3, "0123456789");
    const char *end = name + 3 + digits;
    return digits >= 2 && digits <= 3 && (*end == '\0' || (strchr("af", *end) && end[1] == '\0'));
}

Status codegen_target_init(CodegenTarget *t, Arena *arena, Diag *diag, const char *target,
                           const char *cpu)
{
    *t = (CodegenTarget){.arena = arena, .diag = diag};
    CpuTarget *made = ARENA_NEW(arena, CpuTarget);
    ZM_TRY(cpu_target_from_name(arena, diag, cpu ? cpu : "native", made));
    t->cpu = made;
    if (!target || strcmp(target, "cpu") == 0) return ZM_OK;
    if (strcmp(target, "cuda") != 0 && strncmp(target, "cuda:", 5) != 0)
        return diag_error(diag, (SrcPos){0}, E_USAGE,
                          "--target %s: no such target; the targets are cpu, cuda and cuda:sm_NN",
                          target);
    t->is_cuda = true;
    t->arch = target[4] == ':' ? arena_strdup(arena, target + 5) : "sm_90";
    if (!is_arch(t->arch))
        return diag_error(
            diag, (SrcPos){0}, E_USAGE,
            "--target %s: an architecture is written like sm_90; there are sm_75, sm_80, "
            "sm_86, sm_89, sm_90, sm_90a, sm_100 and sm_120",
            target);
    return ZM_OK;
}

int64_t codegen_workspace_bytes(void *target, const Func *f, OpId fused)
{
    const CodegenTarget *t = target;
    Arena scratch = {0};
    Kernel *k = kernel_build(&scratch, f, fused);
    int64_t bytes = 0;
    if (k) kernel_trim(k, ARENA_ARRAY(&scratch, int64_t, k->n_args + 1));
    if (k && t->is_cuda)
        bytes = cuda_schedule(k, cuda_arch(t->arch)).workspace_bytes;
    else if (k)
        bytes = cpu_kernel_needs(t->cpu, k).workspace_bytes;
    arena_free(&scratch);
    return bytes;
}

/* ---- executable ---- */

void codegen_read_shim(Arena *a, const Program *p, const char *path, const char **shim,
                       size_t *n_bytes)
{
    char *text;
    *shim = NULL;
    if (p->header.ranks > 1 && path && file_read(a, path, &text, n_bytes) == 0)
        *shim = text;
    else
        *n_bytes = 0;
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

uint32_t codegen_threads(const CodegenOptions *opt)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return opt->n_threads ? opt->n_threads : cores > 0 ? (uint32_t)cores : 1;
}

static Status compile_kernels(Arena *a, const CodegenTarget *t, const CodegenOptions *opt,
                              const KernelSet *set, const char *dir, CpuObjects *o)
{
    *o = (CpuObjects){.n_kernels = set->kernels.n, .kernels = set->kernels.at, .dir = dir};
    o->n_threads = codegen_threads(opt);
    o->code = ARENA_ARRAY(a, CpuKernelCode, o->n_kernels + 1);
    const char **names = ARENA_ARRAY(a, const char *, o->n_kernels + 1);
    for (uint32_t i = 0; i < o->n_kernels; i++) names[i] = arena_printf(a, "zm_kernel_%u", i);
    o->names = names;
    return cpu_emit_objects(a, t->diag, t->cpu, o);
}

static KernelCode *kernel_codes(Arena *a, const CpuObjects *o)
{
    KernelCode *code = ARENA_ARRAY(a, KernelCode, o->n_kernels + 1);
    for (uint32_t i = 0; i < o->n_kernels; i++) {
        const CpuKernelCode *c = &o->code[i];
        code[i].n_phases = c->n_phases;
        code[i].flags = c->has_bf16_products ? ZMP_BF16_PRODUCTS : 0;
        memcpy(code[i].n_tasks, c->n_tasks, sizeof c->n_tasks);
        memcpy(code[i].task_cost, c->task_cost, sizeof c->task_cost);
        code[i].workspace_bytes = c->needs.workspace_bytes;
        code[i].scratch_bytes = c->needs.scratch_bytes;
    }
    return code;
}

static Status write_program(Arena *a, const CodegenTarget *t, const CodegenOptions *opt, Program *p,
                            const CpuObjects *o, const char *path)
{
    CpuProgramObject out = {0};
    out.blob = program_blob(p, &out.n_bytes);
    codegen_read_shim(a, p, opt->mpi_shim, &out.shim, &out.shim_bytes);
    uint32_t n_fns = 0;
    for (uint32_t i = 0; i < o->n_kernels; i++) n_fns += o->code[i].n_phases;
    const char **fns = ARENA_ARRAY(a, const char *, n_fns + 1);
    n_fns = 0;
    for (uint32_t i = 0; i < o->n_kernels; i++)
        for (uint32_t k = 0; k < o->code[i].n_phases; k++) fns[n_fns++] = o->code[i].fn[k];
    out.fns = fns;
    out.n_fns = n_fns;
    return cpu_write_program(a, t->diag, t->cpu, &out, path);
}

ProgramInfo codegen_program_info(const CodegenTarget *t, const CodegenOptions *opt)
{
    ProgramInfo info = {.target = "cpu", .cpu = t->cpu->name, .cpu_features = t->cpu->needs};
    if (t->is_cuda) info = (ProgramInfo){.target = arena_printf(t->arena, "cuda:%s", t->arch)};
    if (!opt) return info;
    info.precision = opt->precision;
    info.source = opt->source;
    info.command_line = opt->command_line;
    info.plan_text = opt->plan_text;
    return info;
}

static void count_kernels(const Module *m, const Program *p, CodegenStats *stats)
{
    stats->n_distinct = p->kernels.n;
    for (uint32_t i = 0; i < m->funcs.n; i++) FOR_OPS(m->funcs.at[i], op)
        {
            const Op *o = op_cget(m->funcs.at[i], op);
            if (!o->body) continue;
            stats->n_kernels++;
            stats->n_ops += func_n_ops(o->body) - 1; /* without return */
        }
}

Status codegen_objects(Arena *a, const Module *m, const CodegenTarget *t, const CodegenOptions *opt,
                       const char *dir, Program *p, const char *const **objects,
                       uint32_t *n_objects)
{
    if (t->is_cuda) return codegen_gpu_objects(a, m, t, opt, dir, p, objects, n_objects);
    KernelSet set;
    CpuObjects o;
    ZM_TRY(kernel_set_build(a, m, &set));
    ZM_TRY(compile_kernels(a, t, opt, &set, dir, &o));
    ProgramInfo info = codegen_program_info(t, opt);
    ZM_TRY(program_build(a, m, &set, kernel_codes(a, &o), &info, p));
    const char **all = ARENA_ARRAY(a, const char *, o.n_files + 1);
    all[0] = arena_printf(a, "%s/program.o", dir);
    for (uint32_t i = 0; i < o.n_files; i++) all[i + 1] = o.files[i];
    *objects = all;
    *n_objects = o.n_files + 1;
    return write_program(a, t, opt, p, &o, all[0]);
}

static Status build_in(Arena *a, const Module *m, const CodegenTarget *t, const CodegenOptions *opt,
                       const char *dir, const char *out_path, CodegenStats *stats)
{
    double start = now_s();
    Program p;
    const char *const *objects;
    uint32_t n_objects;
    ZM_TRY(codegen_objects(a, m, t, opt, dir, &p, &objects, &n_objects));
    count_kernels(m, &p, stats);
    stats->kernels_s = now_s() - start;
    start = now_s();
    Status s = link_executable(a, t->diag, objects, n_objects, opt->runtime_lib, dir, out_path);
    stats->link_s = now_s() - start;
    return s;
}

Status codegen_executable(const Module *m, const CodegenTarget *t, const CodegenOptions *opt,
                          const char *out_path, CodegenStats *stats)
{
    *stats = (CodegenStats){0};
    Arena a = {0};
    const char *dir = NULL;
    Status s = link_dir_new(&a, t->diag, &dir);
    if (s == ZM_OK) {
        s = build_in(&a, m, t, opt, dir, out_path, stats);
        link_dir_remove(dir);
    }
    arena_free(&a);
    return s;
}

/* ---- text ---- */

static void print_cuda(const Module *m, const KernelSet *set, CudaArch arch, Str *out,
                       uint32_t *n_missing)
{
    Str refused = {0};
    cuda_print_prelude(out);
    for (uint32_t i = 0; i < set->kernels.n; i++) {
        const Kernel *k = set->kernels.at[i];
        const char *why = cuda_refusal(k);
        char name[32];
        snprintf(name, sizeof name, "zm_kernel_%u", i);
        if (why) {
            str_addf(&refused, " *   %s %s: %s\n", name, k->label, why);
            ++*n_missing;
            continue;
        }
        str_add(out, "\n");
        cuda_print_kernel(k, arch, name, m, out);
    }
    if (refused.n) str_addf(out, "\n/* not printed:\n%s */\n", str_c(&refused));
    str_free(&refused);
}

Status codegen_print_kernels(const Module *m, const CodegenTarget *t, Str *out, uint32_t *n_missing)
{
    *n_missing = 0;
    Arena a = {0};
    KernelSet set;
    Status s = kernel_set_build(&a, m, &set);
    if (s == ZM_OK && t->is_cuda) print_cuda(m, &set, cuda_arch(t->arch), out, n_missing);
    for (uint32_t i = 0; s == ZM_OK && !t->is_cuda && i < set.kernels.n; i++) {
        str_addf(out, "%s// zm_kernel_%u\n", i ? "\n" : "", i);
        kernel_print(set.kernels.at[i], out);
    }
    arena_free(&a);
    return s;
}

Status codegen_print_program(const Module *m, const CodegenTarget *t, Str *out)
{
    Arena a = {0};
    KernelSet set;
    Program p;
    ProgramInfo info = codegen_program_info(t, NULL);
    Status s = kernel_set_build(&a, m, &set);
    if (s == ZM_OK) s = program_build(&a, m, &set, NULL, &info, &p);
    if (s == ZM_OK) program_print(&p, out);
    arena_free(&a);
    return s;
}
