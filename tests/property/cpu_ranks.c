/* cpu_ranks.c -- machine code on N ranks: collectives that happen at their start and at their wait
 * (with garbage in the result before) give the same bits in every variable of every rank, so that
 * nothing looks at or touches what is in flight; and the loss is that of the interpreter on the
 * same plan, to the 1e-5 that N ranks promise against one. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/codegen.h"
#include "codegen/host.h"
#include "frontend/frontend.h"
#include "ir/base/program.h"
#include "passes/pass.h"

enum { N_STEPS = 3, MAX_RANKS = 3, MAX_INPUTS = 4 };

static const char model[] = "dim B = 2, W = 19\n"
                            "block layer(x: [..., n]) -> [..., n] {\n"
                            "  param w: [n, n] = normal(0.2)\n"
                            "  param scale: [n] = ones, no_decay\n"
                            "  return x + tanh(normalize(x, eps = 1e-3) * scale @ w)\n"
                            "}\n"
                            "model deep(x: [B, W], y: [B, W]) {\n"
                            "  param tied: [W, W] = normal(0.2)\n"
                            "  let h = l[4]: layer(x @ tied)\n"
                            "  loss mse(h @ transpose(tied), y)\n"
                            "}\n"
                            "data { tensors(x, y) }\n"
                            "train { optimizer adamw(lr = 0.01, decay = 0.1)\n clip 0.5\n }\n";

typedef struct Case {
    uint32_t ranks;
    int64_t stage, accumulate;
    PrecisionKind precision;
    bool comm_low;
} Case;

static int n_failures;

static Module *compile(Arena *a, const Case *k, CodegenTarget *target)
{
    SourceSet *sources = ARENA_NEW(a, SourceSet);
    Diag *diag = ARENA_NEW(a, Diag);
    sources->arena = a;
    *diag = (Diag){.arena = a, .sources = sources};
    FrontendOptions opt = {0};
    char *text = arena_strdup(a, model);
    Module *m = frontend_compile(a, sources, diag, "deep.zm", text, strlen(text), &opt);
    ZM_CHECK(m != NULL && codegen_target_init(target, a, diag, "cpu", NULL) == ZM_OK);
    m->train.precision = k->precision;
    m->train.accumulate = k->accumulate;
    m->train.zero = k->stage;
    m->train.comm_low = k->comm_low;
    PipelineRun how = {.check_changed = true,
                       .opt = {.ranks = k->ranks,
                               .bucket_bytes = 1 << 20,
                               .workspace_bytes = codegen_workspace_bytes,
                               .target = target}};
    if (pipeline_run(m, pipeline_text("train"), &how) == ZM_OK) return m;
    diag_print(diag, stderr);
    abort();
}

static double noise(const char *name, int64_t i)
{
    uint64_t x = hash_bytes(name, strlen(name), (uint64_t)i);
    return (double)(int32_t)(x >> 32) * 0x1p-31;
}

/* ---- state ---- */

/* Parameters by name and element, where each rank holds them. */
static void fill_params(const Module *m, Eval *const *e, uint32_t ranks)
{
    static const char master[] = "master.";
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *v = &m->vars.at[i];
        if (v->is_bucket || (v->kind != VK_PARAM && v->kind != VK_MASTER)) continue;
        const char *name = v->kind == VK_MASTER ? v->name + strlen(master) : v->name;
        for (int64_t k = 0; k < type_elems(v->type); k++)
            for (uint32_t r = 0; r < ranks; r++) {
                double *at = eval_element(e[r], r, (VarId){i}, k);
                if (at)
                    *at = dtype_round(v->type->dtype, dtype_round(DT_F32, 0.3 * noise(name, k)));
            }
    }
}

static void fill_inputs(const Module *m, const Func *f, uint32_t rank, int64_t micro, int step,
                        Arena *a, EvalTensor *in)
{
    int64_t accumulate = m->train.accumulate > 1 ? m->train.accumulate : 1;
    int64_t ranks = m->mesh[MESH_DATA];
    int64_t sample = ((step * accumulate + micro) * ranks + rank) * m->batch;
    for (uint32_t i = 0; i < f->params.n; i++) {
        const Value *v = value_cget(f, f->params.at[i]);
        in[i] = eval_tensor(a, v->type);
        int64_t n = type_elems(v->type) / v->type->dim[0];
        for (int64_t k = 0; k < type_elems(v->type); k++)
            in[i].at[k] = dtype_round(v->type->dtype, noise(v->name, sample * n + k));
        if (strcmp(v->name, "rng") != 0) continue;
        in[i].at[0] = in[i].at[1] = 0;
        in[i].at[2] = step;
        in[i].at[3] = (double)sample;
    }
}

/* ---- runs ---- */

typedef struct Machine { /* one way to run the module: code in an order, or the interpreter */
    const Module *m;
    uint32_t ranks;
    HostProgram *host; /* NULL: interpreter */
    HostOrder order;
    Eval *e[MAX_RANKS]; /* the state, also of host after the run */
} Machine;

static void copy_state(Machine *x, bool is_out)
{
    for (uint32_t r = 0; x->host && r < x->ranks; r++)
        for (uint32_t v = 1; v < x->m->vars.n; v++) {
            if (!eval_var_elems(x->e[r], (VarId){v})) continue;
            double *at = eval_var(x->e[r], (VarId){v});
            if (is_out)
                host_get_rank_var(x->host, r, (VarId){v}, at);
            else
                host_set_rank_var(x->host, r, (VarId){v}, at);
        }
}

static void run_func(Machine *x, const char *name, int64_t micro, int step)
{
    Arena a = {0};
    const Func *f = func_find(x->m, name);
    EvalTensor in[MAX_RANKS * MAX_INPUTS], *out;
    ZM_CHECK(f->params.n <= MAX_INPUTS);
    for (uint32_t r = 0; r < x->ranks; r++)
        fill_inputs(x->m, f, r, micro, step, &a, in + r * f->params.n);
    out = ARENA_ARRAY(&a, EvalTensor, x->ranks * eval_n_results(f) + 1);
    if (x->host)
        host_run_ranks(x->host, f, in, &a, out, x->order);
    else
        ZM_CHECK(eval_run_ranks(x->e, x->ranks, f, in, &a, out) == ZM_OK);
    arena_free(&a);
}

static void run_steps(Machine *x)
{
    int64_t accumulate = x->m->train.accumulate > 1 ? x->m->train.accumulate : 1;
    copy_state(x, false);
    for (int step = 0; step < N_STEPS; step++) {
        for (int64_t k = 0; k + 1 < accumulate; k++) run_func(x, "micro", k, step);
        run_func(x, "last", accumulate - 1, step);
    }
    copy_state(x, true);
}

static Machine machine_new(Arena *a, Module *m, uint32_t ranks, HostProgram *host, HostOrder order)
{
    Machine x = {.m = m, .ranks = ranks, .host = host, .order = order};
    for (uint32_t r = 0; r < ranks; r++) x.e[r] = eval_new(a, m);
    fill_params(m, x.e, ranks);
    return x;
}

static void check_same(const Machine *x, const Machine *y, const char *what)
{
    for (uint32_t r = 0; r < x->ranks; r++)
        for (uint32_t v = 1; v < x->m->vars.n; v++) {
            int64_t n = eval_var_elems(x->e[r], (VarId){v});
            if (!n || !memcmp(eval_var(x->e[r], (VarId){v}), eval_var(y->e[r], (VarId){v}),
                              (size_t)n * sizeof(double)))
                continue;
            fprintf(stderr, "%s: @%s of rank %u depends on when collectives happen\n", what,
                    x->m->vars.at[v].name, r);
            n_failures++;
        }
}

static double loss_of(const Machine *x)
{
    return *eval_var(x->e[0], var_find(x->m, ZMP_S_LOSS));
}

static void test_case(const Case *k)
{
    Arena a = {0};
    CodegenTarget target;
    Module *m = compile(&a, k, &target);
    const char *what =
        arena_printf(&a, "%u ranks, stage %lld, accumulate %lld, %s", k->ranks, (long long)k->stage,
                     (long long)k->accumulate, precision_name(k->precision));
    HostProgram *h = host_program_new(m, &target);
    ZM_CHECK(h != NULL && host_n_ranks(h) == k->ranks);
    Machine at_start = machine_new(&a, m, k->ranks, h, HOST_FORWARDS);
    Machine at_wait = machine_new(&a, m, k->ranks, h, HOST_BACKWARDS);
    Machine obvious = machine_new(&a, m, k->ranks, NULL, HOST_FORWARDS);
    run_steps(&at_start);
    run_steps(&at_wait);
    run_steps(&obvious);
    check_same(&at_start, &at_wait, what);
    double got = loss_of(&at_start), want = loss_of(&obvious);
    double within = k->precision == PREC_FP32 ? 1e-5 : 0x1p-8; /* half a step of bf16 */
    if (!(fabs(got - want) <= within * fabs(want)) || !(want > 0)) {
        fprintf(stderr, "%s: loss %.9g, of the interpreter %.9g\n", what, got, want);
        n_failures++;
    }
    host_program_free(h);
    arena_free(&a);
}

int main(void)
{
    static const Case cases[] = {
        {2, 0, 1, PREC_FP32, false}, {2, 1, 1, PREC_FP32, false}, {2, 2, 2, PREC_FP32, false},
        {2, 3, 1, PREC_FP32, false}, {3, 3, 2, PREC_FP32, false}, {3, 0, 2, PREC_FP32, false},
        {2, 1, 2, PREC_BF16, true},  {3, 3, 2, PREC_BF16, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) test_case(&cases[i]);
    return n_failures != 0;
}
