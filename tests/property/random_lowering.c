/* random_lowering.c -- the passes from fuse to the memory plan, on random IR over every op: results
 * and variables stay the same bit by bit (any NaN equals any NaN).  The passes before them:
 * random_passes.c. */
#include <math.h>
#include <stdlib.h>

#include "ir/eval/eval.h"
#include "passes/pass.h"
#include "tests/property/random_ir.h"

enum { N_MODULES = 40 };

/* Each is compared with the module before it; expand only prepares. */
static const char *const steps[] = {"expand", "fuse", "workspace", "schedule", "memplan"};

/* All numbers of all functions' results, then of all variables, in order of the module. */
typedef struct Numbers {
    VEC(double) all;
} Numbers;

static void add_numbers(Numbers *n, Arena *a, const double *at, int64_t count)
{
    for (int64_t i = 0; i < count; i++) VEC_PUSH(a, &n->all, at[i]);
}

static void run_func(Eval *e, const Func *f, uint64_t seed, Numbers *n)
{
    Arena *a = e->arena;
    EvalTensor *in = ARENA_ARRAY(a, EvalTensor, f->params.n);
    EvalTensor *out = ARENA_ARRAY(a, EvalTensor, eval_n_results(f));
    RandomIr g = {.state = seed};
    for (uint32_t i = 0; i < f->params.n; i++) {
        in[i] = eval_tensor(a, value_type(f, f->params.at[i]));
        for (int64_t k = 0; k < type_elems(in[i].type); k++)
            in[i].at[k] = dtype_round(in[i].type->dtype, ((double)draw(&g, 4001) - 2000) / 512);
    }
    ZM_CHECK(eval_run(e, f, in, a, out) == ZM_OK);
    for (uint32_t i = 0; i < eval_n_results(f); i++)
        add_numbers(n, a, out[i].at, type_elems(out[i].type));
}

static Numbers run_all(const Module *m, Arena *a, uint64_t seed)
{
    Numbers n = {0};
    Eval *e = eval_new(a, m);
    for (uint32_t i = 0; i < m->funcs.n; i++) run_func(e, m->funcs.at[i], seed, &n);
    for (uint32_t v = 1; v < m->vars.n; v++)
        add_numbers(&n, a, eval_var(e, (VarId){v}), type_elems(m->vars.at[v].type));
    return n;
}

static bool same_numbers(const Numbers *x, const Numbers *y)
{
    if (x->all.n != y->all.n) return false;
    for (uint32_t i = 0; i < x->all.n; i++) {
        double a = x->all.at[i], b = y->all.at[i];
        if (memcmp(&a, &b, sizeof a) != 0 && !(isnan(a) && isnan(b))) return false;
    }
    return true;
}

/* A module that was not planned yet may not claim places. */
static void clear_places(Module *m)
{
    for (uint32_t v = 1; v < m->vars.n; v++) m->vars.at[v].place = (Place){0};
    for (uint32_t i = 0; i < m->funcs.n; i++)
        for (uint32_t v = 1; v < m->funcs.at[i]->values.n; v++)
            m->funcs.at[i]->values.at[v].place = (Place){0};
}

static int check_module(uint64_t seed)
{
    Arena a = {0};
    SourceSet sources = {.arena = &a};
    Diag diag = {.arena = &a, .sources = &sources};
    Module *m = random_unfused(&a, &sources, &diag, seed);
    clear_places(m);
    int n_failed = 0;
    Numbers before = run_all(m, &a, seed);
    for (size_t i = 0; i < sizeof steps / sizeof *steps && !n_failed; i++) {
        PipelineRun how = {.check_changed = true, .opt = {.ranks = 1}};
        if (pipeline_run(m, steps[i], &how) != ZM_OK) {
            diag_print(&diag, stderr);
            n_failed++;
            break;
        }
        Numbers after = run_all(m, &a, seed);
        bool is_prepared = strcmp(steps[i], "expand") == 0;
        if (!is_prepared && !same_numbers(&before, &after)) {
            fprintf(stderr, "seed %llu: pass %s changes numbers\n", (unsigned long long)seed,
                    steps[i]);
            n_failed++;
        }
        before = after;
    }
    arena_free(&a);
    return n_failed;
}

int main(void)
{
    int n_failed = 0;
    for (uint64_t seed = 0; seed < N_MODULES; seed++) n_failed += check_module(seed);
    printf("%d modules, %d failed\n", N_MODULES, n_failed);
    return n_failed != 0;
}
