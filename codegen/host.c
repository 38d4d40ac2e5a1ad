/* host.c -- see host.h. */
#include "codegen/host.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/cpu/cpu.h"
#include "codegen/link.h"
#include "codegen/program.h"

struct HostProgram {
    Arena arena;
    const Module *m;
    Program p;
    void *library;
    const ZmKernelFn *fns;
    char **memory; /* the arena of the plan, for each rank */
    char *scratch; /* one thread's */
};

/* ---- elements ---- */

static double elem_read(DType dt, const char *at)
{
    float f = 0;
    double d = 0;
    int32_t i = 0;
    uint16_t h = 0;
    uint32_t bits = 0;
    switch (dt) {
    case DT_I1: return *at != 0;
    case DT_I32: memcpy(&i, at, 4); return i;
    case DT_F32: memcpy(&f, at, 4); return (double)f;
    case DT_F64: memcpy(&d, at, 8); return d;
    case DT_BF16:
        memcpy(&h, at, 2);
        bits = (uint32_t)h << 16;
        memcpy(&f, &bits, 4);
        return (double)f;
    case DT_F16: {
        _Float16 x;
        memcpy(&x, at, 2);
        return (double)x;
    }
    case DT_NONE:
    case N_DTYPE: break;
    }
    ZM_UNREACHABLE("dtype");
}

static void elem_write(DType dt, char *at, double v)
{
    v = dtype_round(dt, v);
    float f = (float)v;
    int32_t i = dt == DT_I32 ? (int32_t)v : 0;
    uint32_t bits;
    switch (dt) {
    case DT_I1: *at = v != 0; return;
    case DT_I32: memcpy(at, &i, 4); return;
    case DT_F32: memcpy(at, &f, 4); return;
    case DT_F64: memcpy(at, &v, 8); return;
    case DT_BF16: {
        memcpy(&bits, &f, 4);
        uint16_t h = (uint16_t)(bits >> 16);
        memcpy(at, &h, 2);
        return;
    }
    case DT_F16: {
        _Float16 x = (_Float16)v;
        memcpy(at, &x, 2);
        return;
    }
    case DT_NONE:
    case N_DTYPE: break;
    }
    ZM_UNREACHABLE("dtype");
}

static void elems_read(DType dt, const char *from, int64_t n, double *to)
{
    for (int64_t i = 0; i < n; i++) to[i] = elem_read(dt, from + i * dtype_bytes(dt));
}

static void elems_write(DType dt, char *to, int64_t n, const double *from)
{
    for (int64_t i = 0; i < n; i++) elem_write(dt, to + i * dtype_bytes(dt), from[i]);
}

/* ---- loading ---- */

static Status load_library(HostProgram *h, const CodegenTarget *t, const char *dir,
                           const char *const *objects, uint32_t n_objects)
{
    const char *path = arena_printf(&h->arena, "%s/kernels.so", dir);
    ZM_TRY(link_shared(&h->arena, t->diag, objects, n_objects, dir, path));
    h->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *fns = h->library ? dlsym(h->library, "zm_kernel_fns") : NULL;
    if (!fns)
        return diag_error(t->diag, (SrcPos){0}, E_CODEGEN, "cannot load the kernels: %s",
                          dlerror());
    h->fns = fns;
    return ZM_OK;
}

static char *aligned_zeros(uint64_t n_bytes)
{
    uint64_t n = (n_bytes + ZMP_ALIGN - 1) / ZMP_ALIGN * ZMP_ALIGN + ZMP_ALIGN;
    char *at = aligned_alloc(ZMP_ALIGN, n);
    ZM_CHECK(at != NULL);
    memset(at, 0, n);
    return at;
}

static Status load(HostProgram *h, const CodegenTarget *t, const char *dir)
{
    CodegenOptions opt = {.n_threads = 1};
    const char *const *objects;
    uint32_t n_objects;
    if (t->is_cuda || !cpu_target_runs_here(t->cpu))
        return diag_error(t->diag, (SrcPos){0}, E_CODEGEN,
                          "this processor does not run code for %s",
                          t->is_cuda ? "cuda" : t->cpu->name);
    ZM_TRY(codegen_objects(&h->arena, h->m, t, &opt, dir, &h->p, &objects, &n_objects));
    ZM_TRY(load_library(h, t, dir, objects, n_objects));
    uint32_t n = h->p.header.ranks;
    h->memory = ARENA_ARRAY(&h->arena, char *, n);
    for (uint32_t r = 0; r < n; r++) h->memory[r] = aligned_zeros(h->p.header.arena_bytes);
    h->scratch = aligned_zeros(h->p.header.scratch_bytes);
    return ZM_OK;
}

HostProgram *host_program_new(const Module *m, const CodegenTarget *t)
{
    HostProgram *h = calloc(1, sizeof *h);
    ZM_CHECK(h != NULL);
    h->m = m;
    const char *dir = NULL;
    Status s = link_dir_new(&h->arena, t->diag, &dir);
    if (s == ZM_OK) {
        s = load(h, t, dir);
        link_dir_remove(dir);
    }
    if (s == ZM_OK) return h;
    host_program_free(h);
    return NULL;
}

void host_program_free(HostProgram *h)
{
    if (h->library) dlclose(h->library);
    for (uint32_t r = 0; h->memory && r < h->p.header.ranks; r++) free(h->memory[r]);
    free(h->scratch);
    arena_free(&h->arena);
    free(h);
}

/* ---- variables ---- */

uint32_t host_n_ranks(const HostProgram *h)
{
    return h->p.header.ranks;
}

static bool is_view_of_shard(const HostProgram *h, VarId v)
{
    const Var *var = var_cget(h->m, v);
    int64_t at;
    return var_ok(var->in) && type_is_placed(var_cget(h->m, var_storage(h->m, v, &at))->type);
}

static char *var_at(const HostProgram *h, uint32_t rank, VarId v)
{
    return h->memory[rank] + h->p.vars.at[v.i - 1].arena_offset;
}

void host_set_rank_var(HostProgram *h, uint32_t rank, VarId v, const double *at)
{
    const Type *t = var_cget(h->m, v)->type;
    if (!is_view_of_shard(h, v)) elems_write(t->dtype, var_at(h, rank, v), type_elems(t), at);
}

void host_get_rank_var(const HostProgram *h, uint32_t rank, VarId v, double *at)
{
    const Type *t = var_cget(h->m, v)->type;
    if (!is_view_of_shard(h, v)) elems_read(t->dtype, var_at(h, rank, v), type_elems(t), at);
}

void host_set_var(HostProgram *h, VarId v, const double *at)
{
    host_set_rank_var(h, 0, v, at);
}

void host_get_var(const HostProgram *h, VarId v, double *at)
{
    host_get_rank_var(h, 0, v, at);
}

/* ---- commands ---- */

typedef struct HostRun {
    const HostProgram *h;
    uint32_t rank;
    HostOrder order;
} HostRun;

static char *arg_at(const HostRun *x, const ZmpArg *a)
{
    const Program *p = &x->h->p;
    if (a->buffer < 0) return (char *)p->consts.at + a->offset;
    return x->h->memory[x->rank] + p->buffers.at[a->buffer].arena_offset + a->offset +
           x->rank * a->rank_stride;
}

static void run_kernel(const HostRun *x, const ZmpCommand *c)
{
    const HostProgram *h = x->h;
    char *bufs[KERNEL_MAX_ARGS + 1];
    ZM_CHECK(c->n_args <= KERNEL_MAX_ARGS + 1);
    for (uint32_t i = 0; i < c->n_args; i++) bufs[i] = arg_at(x, &h->p.args.at[c->first_arg + i]);
    const ZmpKernel *k = &h->p.kernels.at[c->kernel];
    bool backwards = x->order == HOST_BACKWARDS;
    for (uint32_t phase = 0; phase < k->n_phases; phase++)
        for (int64_t i = 0; i < k->n_tasks[phase]; i++)
            h->fns[k->first_fn + phase](bufs, backwards ? k->n_tasks[phase] - 1 - i : i,
                                        h->scratch);
}

/* Elements [first, first + n) of the sum over all ranks' operands, in rank order. */
static void reduce(const HostProgram *h, const ZmpCommand *c, DType dt, int64_t first, int64_t n,
                   char *out)
{
    int64_t each = dtype_bytes(dt);
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (uint32_t r = 0; r < h->p.header.ranks; r++) {
            HostRun x = {.h = h, .rank = r};
            const char *in = arg_at(&x, &h->p.args.at[c->first_arg + 1]);
            double term = elem_read(dt, in + (first + i) * each);
            sum = r == 0 ? term : sum + term;
            if (dtype_class(dt) == DTC_FLOAT && dt != DT_F64) sum = (double)(float)sum;
        }
        elem_write(dt, out + i * each, sum);
    }
}

/* Results go to a copy first: the operands of the other ranks stay what they are. */
static void run_collective(const HostProgram *h, const ZmpCommand *c)
{
    const ZmpCollective *k = &h->p.collectives.at[c->kernel];
    DType dt = (DType)k->dtype;
    int64_t n = h->p.header.ranks, part = k->count / n, each = dtype_bytes(dt);
    char *whole = aligned_zeros((uint64_t)(k->count * each));
    for (int64_t r = 0; r < n && k->kind == ZMP_ALL_GATHER; r++) {
        HostRun x = {.h = h, .rank = (uint32_t)r};
        const char *in = arg_at(&x, &h->p.args.at[c->first_arg + 1]);
        memcpy(whole + r * part * each, in, (size_t)(part * each));
    }
    if (k->kind != ZMP_ALL_GATHER) reduce(h, c, dt, 0, k->count, whole);
    for (int64_t r = 0; r < n; r++) {
        HostRun x = {.h = h, .rank = (uint32_t)r};
        const ZmpArg *out = &h->p.args.at[c->first_arg];
        int64_t from = k->kind == ZMP_REDUCE_SCATTER ? r * part * each : 0;
        memcpy(arg_at(&x, out), whole + from, (size_t)out->bytes);
    }
    free(whole);
}

static void run_start(const HostProgram *h, const ZmpCommand *c, HostOrder order)
{
    if (order == HOST_FORWARDS) {
        run_collective(h, c);
        return;
    }
    const ZmpArg *out = &h->p.args.at[c->first_arg], *in = out + 1;
    for (uint32_t r = 0; r < h->p.header.ranks; r++) {
        HostRun x = {.h = h, .rank = r};
        const char *from = arg_at(&x, in);
        char *to = arg_at(&x, out);
        if (to + out->bytes <= from || from + in->bytes <= to) memset(to, 0xff, (size_t)out->bytes);
    }
}

static void run_command(const HostRun *x, const ZmpCommand *c)
{
    const ZmpArg *a = &x->h->p.args.at[c->first_arg];
    switch ((enum ZmpCommandKind)c->kind) {
    case ZMP_KERNEL: run_kernel(x, c); return;
    case ZMP_COPY: memmove(arg_at(x, &a[0]), arg_at(x, &a[1]), (size_t)a->bytes); return;
    case ZMP_ZERO: memset(arg_at(x, a), 0, (size_t)a->bytes); return;
    case ZMP_PROBE: return;
    case ZMP_START:
    case ZMP_WAIT: break;
    }
    ZM_UNREACHABLE("command kind");
}

static void run_on_all(const HostProgram *h, const ZmpCommand *c, HostOrder order)
{
    if (c->kind == ZMP_START) {
        run_start(h, c, order);
        return;
    }
    if (c->kind == ZMP_WAIT) {
        if (order == HOST_BACKWARDS) run_collective(h, c);
        return;
    }
    for (uint32_t r = 0; r < h->p.header.ranks; r++) {
        HostRun x = {h, r, order};
        run_command(&x, c);
    }
}

/* ---- running ---- */

static char *port_at(const HostProgram *h, uint32_t rank, const ZmpPort *q)
{
    return h->memory[rank] + h->p.buffers.at[q->buffer].arena_offset + q->offset;
}

static const ZmpFunc *find_func(const HostProgram *h, const Func *f)
{
    for (uint32_t i = 0; i < h->m->funcs.n; i++)
        if (h->m->funcs.at[i] == f) return &h->p.funcs.at[i];
    ZM_UNREACHABLE("a function of another module");
}

static void fill_inputs(HostProgram *h, const ZmpFunc *z, uint32_t rank, const EvalTensor *in)
{
    for (uint32_t i = 0; i < z->n_in; i++)
        elems_write(in[i].type->dtype, port_at(h, rank, &h->p.ports.at[z->first_in + i]),
                    type_elems(in[i].type), in[i].at);
}

static void read_results(const HostProgram *h, const Func *f, const ZmpFunc *z, uint32_t rank,
                         Arena *a, EvalTensor *out)
{
    const Op *ret = op_cget(f, f->last);
    for (uint32_t i = 0; i < z->n_out; i++) {
        out[i] = eval_tensor(a, value_type(f, ret->in[i]));
        elems_read(out[i].type->dtype, port_at(h, rank, &h->p.ports.at[z->first_out + i]),
                   type_elems(out[i].type), out[i].at);
    }
}

void host_run_ranks(HostProgram *h, const Func *f, const EvalTensor *in, Arena *a, EvalTensor *out,
                    HostOrder order)
{
    const ZmpFunc *z = find_func(h, f);
    for (uint32_t r = 0; r < h->p.header.ranks; r++) fill_inputs(h, z, r, in + r * z->n_in);
    for (uint32_t i = 0; i < z->n_commands; i++)
        run_on_all(h, &h->p.commands.at[z->first_command + i], order);
    for (uint32_t r = 0; r < h->p.header.ranks; r++)
        read_results(h, f, z, r, a, out + r * z->n_out);
}

void host_run(HostProgram *h, const Func *f, const EvalTensor *in, Arena *a, EvalTensor *out,
              bool backwards)
{
    ZM_CHECK(h->p.header.ranks == 1);
    host_run_ranks(h, f, in, a, out, backwards ? HOST_BACKWARDS : HOST_FORWARDS);
}
