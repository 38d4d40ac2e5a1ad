/* backend.c -- see backend.h. */
#include "tools/zm-run/backend.h"

#include "codegen/host.h"
#include "passes/pass.h"

struct CpuBackend {
    const Module *m;
    HostProgram *host;
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

CpuBackend *cpu_backend_new(Arena *a, Module *m, const char *cpu)
{
    CodegenTarget *target = ARENA_NEW(a, CodegenTarget);
    if (codegen_target_init(target, a, m->diag, "cpu", cpu) != ZM_OK) return NULL;
    if (lower(a, m, target) != ZM_OK) return NULL;
    CpuBackend *b = ARENA_NEW(a, CpuBackend);
    b->m = m;
    b->host = host_program_new(m, target);
    return b->host ? b : NULL;
}

void cpu_backend_run(CpuBackend *b, Eval *const *e, const Func *f, const EvalTensor *in, Arena *a,
                     uint64_t times, EvalTensor *out)
{
    uint32_t n = host_n_ranks(b->host);
    for (uint32_t r = 0; r < n; r++)
        for (uint32_t v = 1; v < b->m->vars.n; v++)
            if (eval_var_elems(e[r], (VarId){v}))
                host_set_rank_var(b->host, r, (VarId){v}, eval_var(e[r], (VarId){v}));
    for (uint64_t i = 0; i < times; i++) host_run_ranks(b->host, f, in, a, out, HOST_FORWARDS);
    for (uint32_t r = 0; r < n; r++)
        for (uint32_t v = 1; v < b->m->vars.n; v++)
            if (eval_var_elems(e[r], (VarId){v}))
                host_get_rank_var(b->host, r, (VarId){v}, eval_var(e[r], (VarId){v}));
}

void cpu_backend_free(CpuBackend *b)
{
    if (b) host_program_free(b->host);
}
