/* gpu_program.c -- see gpu_program.h. */
#include "tools/zm-run/gpu_program.h"

#include <stdlib.h>

#include "codegen/gpu.h"
#include "runtime/cuda_driver.h"
#include "runtime/exec.h"

struct GpuProgram {
    Arena arena;
    const Module *m;
    Program p;
    Exec x;
};

/* The runtime's message as a diagnostic. */
static Status fail(Diag *d, RtError *e)
{
    diag_error(d, (SrcPos){0}, E_CODEGEN, "%s", str_c(&e->text));
    str_free(&e->text);
    return ZM_FAIL;
}

const char *gpu_arch(Arena *a, Diag *d)
{
    CuDriver cu;
    RtError e = {0};
    int device = 0, major = 0, minor = 0;
    if (cuda_driver_open(&cu, "use --backend cpu", &e) != RT_OK) {
        fail(d, &e);
        return NULL;
    }
    int error = cu.device_get(&device, 0);
    if (error == CU_OK) error = cu.device_attribute(&major, CU_CAPABILITY_MAJOR, device);
    if (error == CU_OK) error = cu.device_attribute(&minor, CU_CAPABILITY_MINOR, device);
    if (error == CU_OK) return arena_printf(a, "sm_%d%d", major, minor);
    char text[256];
    cuda_driver_error(&cu, error, text, sizeof text);
    diag_error(d, (SrcPos){0}, E_CODEGEN, "the first GPU's architecture: %s", text);
    return NULL;
}

/* ---- loading ---- */

static Status load(GpuProgram *g, const CodegenTarget *t)
{
    GpuImage image = {0};
    RtError e = {0};
    CodegenOptions opt = {0};
    ZM_TRY(codegen_gpu_image(&g->arena, g->m, t, &opt, &image));
    ZmrtImage all = {.program = image.program,
                     .program_bytes = image.program_bytes,
                     .device_code = image.device_code,
                     .device_code_bytes = image.device_code_bytes};
    if (program_open_functions(&g->p, &all, &e) != RT_OK) return fail(t->diag, &e);
    return exec_open(&g->x, &g->p, NULL, 0, &e) == RT_OK ? ZM_OK : fail(t->diag, &e);
}

GpuProgram *gpu_program_new(const Module *m, const CodegenTarget *t)
{
    GpuProgram *g = calloc(1, sizeof *g);
    ZM_CHECK(g != NULL && module_ranks(m) == 1);
    g->m = m;
    if (load(g, t) == ZM_OK) return g;
    gpu_program_free(g);
    return NULL;
}

void gpu_program_free(GpuProgram *g)
{
    exec_close(&g->x);
    arena_free(&g->arena);
    free(g);
}

/* ---- elements ---- */

static void elems_write(const Exec *x, char *to, DType dt, int64_t n, const double *from)
{
    for (int64_t i = 0; i < n; i++)
        scalar_set(to + i * dtype_bytes(dt), dt, dtype_round(dt, from[i]));
    exec_put(x, to, n * dtype_bytes(dt));
}

static void elems_read(const Exec *x, const char *from, DType dt, int64_t n, double *to)
{
    exec_fetch(x, from, n * dtype_bytes(dt));
    for (int64_t i = 0; i < n; i++) to[i] = scalar_get(from + i * dtype_bytes(dt), dt);
}

void gpu_set_var(GpuProgram *g, VarId v, const double *at)
{
    const Type *t = var_cget(g->m, v)->type;
    elems_write(&g->x, exec_var(&g->x, &g->p.vars[v.i - 1]), t->dtype, type_elems(t), at);
}

void gpu_get_var(const GpuProgram *g, VarId v, double *at)
{
    const Type *t = var_cget(g->m, v)->type;
    elems_read(&g->x, exec_var(&g->x, &g->p.vars[v.i - 1]), t->dtype, type_elems(t), at);
}

/* ---- running ---- */

static const ZmpFunc *find_func(const GpuProgram *g, const Func *f)
{
    for (uint32_t i = 0; i < g->m->funcs.n; i++)
        if (g->m->funcs.at[i] == f) return &g->p.funcs[i];
    ZM_UNREACHABLE("a function of another module");
}

Status gpu_run(GpuProgram *g, const Func *f, const EvalTensor *in, Arena *a, EvalTensor *out)
{
    const ZmpFunc *z = find_func(g, f);
    const Op *ret = op_cget(f, f->last);
    RtError e = {0};
    for (uint32_t i = 0; i < z->n_in; i++) {
        char *to = exec_port(&g->x, &g->p.ports[z->first_in + i]);
        elems_write(&g->x, to, in[i].type->dtype, type_elems(in[i].type), in[i].at);
    }
    if (exec_run(&g->x, z, &e) != RT_OK || device_wait(g->x.device, &e) != RT_OK)
        return fail(g->m->diag, &e);
    for (uint32_t i = 0; i < z->n_out; i++) {
        out[i] = eval_tensor(a, value_type(f, ret->in[i]));
        elems_read(&g->x, exec_port(&g->x, &g->p.ports[z->first_out + i]), out[i].type->dtype,
                   type_elems(out[i].type), out[i].at);
    }
    return ZM_OK;
}
