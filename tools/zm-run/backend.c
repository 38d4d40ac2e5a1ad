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
    run.opt =
        (PassOptions){.ranks = 1, .workspace_bytes = codegen_workspace_bytes, .target = target};
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

void cpu_backend_run(CpuBackend *b, RunTensors *t, uint64_t times)
{
    for (uint32_t v = 1; v < b->m->vars.n; v++)
        host_set_var(b->host, (VarId){v}, eval_var(t->e, (VarId){v}));
    for (uint64_t i = 0; i < times; i++) host_run(b->host, t->f, t->in, t->e->arena, t->out, false);
    for (uint32_t v = 1; v < b->m->vars.n; v++)
        host_get_var(b->host, (VarId){v}, eval_var(t->e, (VarId){v}));
}

void cpu_backend_free(CpuBackend *b)
{
    if (b) host_program_free(b->host);
}
