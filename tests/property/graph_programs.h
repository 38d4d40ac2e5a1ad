/* graph_programs.h -- for tests of back ends: random graphs of primitive ops through fusion, the
 * memory plan and a back end, against the interpreter.
 *
 * Without ops that jump, values of order 1 to 100: an error of one rounding grows through at most
 * some tens of ops, each by a small factor.  In f64 1e-10 is far above that and far below a wrong
 * element.
 *
 * In 16 bits the interpreter rounds what it computed in f64 and the back end what it computed in
 * f32. Add, subtract and multiply of 16-bit operands then give the same bits; a function or a sum
 * whose f32 result is some ulp off rounds to the neighbour in one case of 2^(24 - digits) / some: 1
 * in thousands for f16.  So of all elements at most 1 in 500 may differ, those by at most 32
 * roundings (graphs have at most 32 ops). */
#ifndef ZM_TESTS_GRAPH_PROGRAMS_H
#define ZM_TESTS_GRAPH_PROGRAMS_H

#include <stdlib.h>

#include "codegen/codegen.h"
#include "tests/property/fuse_graphs.h"

enum { N_GRAPHS = 60 };

/* A program that is loaded, and what can be done with it. */
typedef struct GraphBackend {
    void *(*load)(const Module *m, const CodegenTarget *t); /* NULL: failed */
    void (*set_var)(void *h, VarId v, const double *at);
    void (*get_var)(void *h, VarId v, double *at);
    /* order: two that must give the same.  False: failed. */
    bool (*run)(void *h, const Func *f, const EvalTensor *in, Arena *a, EvalTensor *out, int order);
    void (*unload)(void *h);
    const char *target, *arch; /* --target; when not NULL, instead of the target's */
} GraphBackend;

typedef struct Kind {
    DType dt;
    double tolerance;
} Kind;
static const Kind kinds[] = {{DT_F64, 1e-10}, {DT_BF16, 32 * 0x1p-8}, {DT_F16, 32 * 0x1p-11}};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

typedef struct Run {
    Arena arena;
    const Kind *kind;
    int64_t n_elems, n_differ;
    Module *m;
    EvalTensor *in[N_GRAPHS], *want[N_GRAPHS];
    double **var_before, **var_after[N_GRAPHS]; /* by variable */
} Run;

/* Own storage of every variable. */
static double **read_vars(Arena *a, const Module *m, const Eval *e)
{
    double **at = ARENA_ARRAY(a, double *, m->vars.n);
    for (uint32_t v = 1; v < m->vars.n; v++) {
        int64_t n = type_elems(m->vars.at[v].type);
        at[v] = ARENA_ARRAY(a, double, n);
        memcpy(at[v], eval_var(e, (VarId){v}), (size_t)n * sizeof(double));
    }
    return at;
}

static void round_elems(DType dt, double *at, int64_t n)
{
    for (int64_t i = 0; i < n; i++) at[i] = dtype_round(dt, at[i]);
}

static void interpret(Run *r)
{
    Arena *a = &r->arena;
    for (uint32_t i = 0; i < N_GRAPHS; i++) {
        const Func *f = r->m->funcs.at[i];
        Eval *e = check_eval(a, r->m);
        e->is_unrounded = false;
        for (uint32_t v = 1; v < r->m->vars.n; v++)
            round_elems(r->kind->dt, eval_var(e, (VarId){v}), type_elems(r->m->vars.at[v].type));
        r->var_before = read_vars(a, r->m, e);
        r->in[i] = ARENA_ARRAY(a, EvalTensor, f->params.n);
        for (uint32_t p = 0; p < f->params.n; p++) {
            EvalTensor t = eval_tensor(a, value_type(f, f->params.at[p]));
            fill(t);
            round_elems(t.type->dtype, t.at, type_elems(t.type));
            r->in[i][p] = t;
        }
        r->want[i] = func_run(a, e, f, r->in[i]);
        r->var_after[i] = read_vars(a, r->m, e);
    }
}

static bool check_tensor(Run *r, const char *what, uint32_t index, int64_t n, const double *want,
                         const double *got)
{
    r->n_elems += n;
    for (int64_t i = 0; i < n; i++) r->n_differ += !same(want[i], got[i], 0);
    return same_tensors(what, index, n, want, got, r->kind->tolerance);
}

static bool check_func(Run *r, const GraphBackend *back, void *h, uint32_t i, int order)
{
    const Module *m = r->m;
    const Func *f = m->funcs.at[i];
    EvalTensor *out = ARENA_ARRAY(&r->arena, EvalTensor, N_RETURNED);
    for (uint32_t v = 1; v < m->vars.n; v++)
        if (!var_ok(m->vars.at[v].in)) back->set_var(h, (VarId){v}, r->var_before[v]);
    if (!back->run(h, f, r->in[i], &r->arena, out, order)) return false;
    for (uint32_t k = 0; k < N_RETURNED; k++)
        if (!check_tensor(r, f->name, k, type_elems(out[k].type), r->want[i][k].at, out[k].at))
            return false;
    for (uint32_t v = 1; v < m->vars.n; v++) {
        int64_t n = type_elems(m->vars.at[v].type);
        double *at = ARENA_ARRAY(&r->arena, double, n);
        back->get_var(h, (VarId){v}, at);
        if (!check_tensor(r, m->vars.at[v].name, v, n, r->var_after[i][v], at)) return false;
    }
    return true;
}

static inline bool check_program(uint64_t seed, const Kind *kind, const GraphBackend *back,
                                 uint32_t *n_kernels)
{
    Run r = {.kind = kind};
    SourceSet sources = {.arena = &r.arena};
    Diag diag = {.arena = &r.arena, .sources = &sources};
    check_seed = seed * 1000003;
    source_add(&sources, "random.zm", "x", 1);
    r.m = module_new(&r.arena, &sources, &diag);
    make_vars(r.m, kind->dt);
    for (uint32_t i = 0; i < N_GRAPHS; i++)
        make_graph(r.m, arena_printf(&r.arena, "f%u", i), (GraphKind){kind->dt, true});
    interpret(&r);
    CodegenTarget t;
    ZM_CHECK(codegen_target_init(&t, &r.arena, &diag, back->target, NULL) == ZM_OK);
    if (back->arch) t.arch = back->arch;
    PipelineRun run = {.check_changed = true};
    run.opt = (PassOptions){.ranks = 1, .workspace_bytes = codegen_workspace_bytes, .target = &t};
    bool ok = pipeline_run(r.m, "fuse,workspace,schedule,memplan", &run) == ZM_OK;
    void *h = ok ? back->load(r.m, &t) : NULL;
    for (uint32_t i = 0; h && ok && i < N_GRAPHS; i++) {
        ok = check_func(&r, back, h, i, 0) && check_func(&r, back, h, i, 1);
        if (!ok) printf("%s seed %llu, @f%u\n", dtype_name(kind->dt), (unsigned long long)seed, i);
        FOR_OPS(r.m->funcs.at[i], op) *n_kernels += op_cget(r.m->funcs.at[i], op)->code == OP_FUSED;
    }
    if (kind->dt != DT_F64 && r.n_differ > r.n_elems / 500) {
        printf("%s seed %llu: %lld of %lld elements differ\n", dtype_name(kind->dt),
               (unsigned long long)seed, (long long)r.n_differ, (long long)r.n_elems);
        ok = false;
    }
    diag_print(&diag, stdout);
    if (h) back->unload(h);
    ok = ok && h;
    arena_free(&r.arena);
    return ok;
}

/* Programs of seeds [from, from + n) of every kind; the exit status. */
static inline int check_programs(const GraphBackend *back, uint64_t from, uint64_t n)
{
    uint32_t n_kernels = 0;
    for (uint64_t seed = from; seed < from + n; seed++)
        for (int kind = 0; kind < N_KINDS; kind++)
            if (!check_program(seed, &kinds[kind], back, &n_kernels)) return 1;
    n *= N_KINDS * N_GRAPHS;
    printf("%llu graphs, %u kernels\n", (unsigned long long)n, n_kernels);
    return n_kernels > n ? 0 : 1;
}

#endif
