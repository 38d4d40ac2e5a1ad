/* backend.c -- see backend.h. */
#include "tools/zm-run/backend.h"

#include <stdlib.h>
#include <string.h>

#include "codegen/host.h"
#include "passes/pass.h"
#include "tools/zm-run/gpu_program.h"

struct Backend {
    const Module *m;
    HostProgram *host; /* or */
    GpuProgram *gpu;
};

static const char lowering[] = "expand,fuse,workspace,schedule,memplan";

/* A dumped plan runs as it is. */
static Status lower(Arena *a, Module *m, CodegenTarget *target)
{
    if (m->facts & FACT_PLANNED && !fact_check(m, FACT_PLANNED_BIT, a)) return ZM_OK;
    PipelineRun run = {.check_changed = true};
    run.opt = (PassOptions){.ranks = (uint32_t)module_ranks(m),
                            .workspace_bytes = codegen_workspace_bytes,
                            .target = target};
    return pipeline_run(m, lowering, &run);
}

/* An older GPU runs no newer one's code, and another than sm_90's none of sm_90a. */
static Status check_gpu(Arena *a, Diag *d, const char *arch)
{
    const char *here = gpu_arch(a, d);
    if (!here) return ZM_FAIL;
    int n = atoi(here + strlen("sm_")), made_for = atoi(arch + strlen("sm_"));
    bool is_for_one = strchr(arch + strlen("sm_"), 'a') != NULL;
    if (is_for_one ? n == made_for : n >= made_for) return ZM_OK;
    return diag_error(d, (SrcPos){0}, E_USAGE,
                      "--backend cuda:%s: the GPU here is %s and does not run code for %s: use "
                      "--backend cuda:%s or --backend cpu",
                      arch, here, arch, here);
}

Backend *backend_new(Arena *a, Module *m, const char *name, const char *cpu)
{
    CodegenTarget *target = ARENA_NEW(a, CodegenTarget);
    Backend *b = ARENA_NEW(a, Backend);
    b->m = m;
    if (strcmp(name, "cuda") == 0) {
        const char *arch = gpu_arch(a, m->diag);
        if (!arch) return NULL;
        name = arena_printf(a, "cuda:%s", arch);
    }
    if (codegen_target_init(target, a, m->diag, name, cpu) != ZM_OK) return NULL;
    if (target->is_cuda && module_ranks(m) > 1) {
        diag_error(m->diag, (SrcPos){0}, E_USAGE,
                   "--backend cuda runs one rank, the file is for %lld: run it with --backend cpu, "
                   "or compile the model with --target cuda --ranks %lld",
                   (long long)module_ranks(m), (long long)module_ranks(m));
        return NULL;
    }
    if (target->is_cuda && check_gpu(a, m->diag, target->arch) != ZM_OK) return NULL;
    if (lower(a, m, target) != ZM_OK) return NULL;
    if (target->is_cuda)
        b->gpu = gpu_program_new(m, target);
    else
        b->host = host_program_new(m, target);
    return b->host || b->gpu ? b : NULL;
}

static void set_vars(Backend *b, Eval *e, uint32_t rank)
{
    for (uint32_t i = 1; i < b->m->vars.n; i++) {
        VarId v = {i};
        if (!eval_var_elems(e, v)) continue;
        if (b->gpu)
            gpu_set_var(b->gpu, v, eval_var(e, v));
        else
            host_set_rank_var(b->host, rank, v, eval_var(e, v));
    }
}

static void get_vars(Backend *b, Eval *e, uint32_t rank)
{
    for (uint32_t i = 1; i < b->m->vars.n; i++) {
        VarId v = {i};
        if (!eval_var_elems(e, v)) continue;
        if (b->gpu)
            gpu_get_var(b->gpu, v, eval_var(e, v));
        else
            host_get_rank_var(b->host, rank, v, eval_var(e, v));
    }
}

Status backend_run(Backend *b, Eval *const *e, const Func *f, const EvalTensor *in, Arena *a,
                   uint64_t times, EvalTensor *out)
{
    uint32_t n = b->gpu ? 1 : host_n_ranks(b->host);
    for (uint32_t r = 0; r < n; r++) set_vars(b, e[r], r);
    for (uint64_t i = 0; i < times; i++)
        if (b->gpu)
            ZM_TRY(gpu_run(b->gpu, f, in, a, out));
        else
            host_run_ranks(b->host, f, in, a, out, HOST_FORWARDS);
    for (uint32_t r = 0; r < n; r++) get_vars(b, e[r], r);
    return ZM_OK;
}

void backend_free(Backend *b)
{
    if (b && b->host) host_program_free(b->host);
    if (b && b->gpu) gpu_program_free(b->gpu);
}
