/* random_passes.c -- dce, cse and the EXACT rules of canon change no bit of random functions over
 * every op, of all dtypes, with reads and writes: neither of results nor of variables.  With expand
 * and the other rules the passes are run for what the manager checks: valid IR, facts, the truth of
 * *changed.
 *
 * Pass amp changes no bit either when nothing is rounded: it inserts casts.
 *
 * Operands are small integers and halves, so that ordinary values occur beside the infinities and
 * NaNs that random ops make; a NaN equals any NaN. */
#include "passes/canon_rules.h"
#include "tests/property/random_ir.h"
#include "ir/eval/eval.h"

#include <math.h>

enum { N_SEEDS = 60, MAX_FUNCS = 4 };

typedef struct Outcome {
    EvalTensor *out[MAX_FUNCS]; /* results by function */
    Eval *state;                /* variables after all functions ran */
    bool ok;                    /* an index may be out of range */
} Outcome;

static double draw_element(uint64_t *state, DType dt)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    int64_t v = (int64_t)(*state >> 33) % 7 - 3;
    return dt == DT_I1 ? (v & 1) : dt == DT_I32 ? (double)(v < 0 ? -v : v) : 0.5 * (double)v;
}

static EvalTensor draw_tensor(Arena *a, const Type *t, uint64_t *state)
{
    EvalTensor x = eval_tensor(a, t);
    for (int64_t i = 0; i < type_elems(t); i++) x.at[i] = draw_element(state, t->dtype);
    return x;
}

static Outcome run(Arena *a, Module *m, bool is_unrounded)
{
    Outcome o = {.state = eval_new(a, m), .ok = true};
    o.state->is_unrounded = is_unrounded;
    uint64_t state = 11;
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Type *t = m->vars.at[i].type;
        EvalTensor x = draw_tensor(a, t, &state);
        memcpy(eval_var(o.state, (VarId){i}), x.at, (size_t)type_elems(t) * sizeof(double));
    }
    for (uint32_t f = 0; f < m->funcs.n; f++) {
        const Func *fn = m->funcs.at[f];
        EvalTensor *in = ARENA_ARRAY(a, EvalTensor, fn->params.n + 1);
        for (uint32_t i = 0; i < fn->params.n; i++)
            in[i] = draw_tensor(a, value_type(fn, fn->params.at[i]), &state);
        ZM_CHECK(f < MAX_FUNCS);
        o.out[f] = ARENA_ARRAY(a, EvalTensor, eval_n_results(fn) + 1);
        o.ok = o.ok && eval_run(o.state, fn, in, a, o.out[f]) == ZM_OK;
    }
    return o;
}

static bool same(const double *a, const double *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!(a[i] == b[i] && signbit(a[i]) == signbit(b[i])) && !(isnan(a[i]) && isnan(b[i])))
            return false;
    return true;
}

static int compare(const Module *m, const Outcome *x, const Outcome *y, const char *what,
                   uint64_t seed)
{
    int bad = 0;
    for (uint32_t f = 0; f < m->funcs.n; f++)
        for (uint32_t r = 0; r < eval_n_results(m->funcs.at[f]); r++)
            bad += !same(x->out[f][r].at, y->out[f][r].at, type_elems(x->out[f][r].type));
    for (uint32_t i = 1; i < m->vars.n; i++) {
        VarId v = {i};
        bad += !same(eval_var(x->state, v), eval_var(y->state, v), type_elems(m->vars.at[i].type));
    }
    if (bad)
        fprintf(stderr, "seed %llu: %d results or variables differ after %s\n",
                (unsigned long long)seed, bad, what);
    return bad;
}

static Status run_exact(PassCtx *cx, bool *changed)
{
    Rule *exact = ARENA_ARRAY(cx->scratch, Rule, n_canon_rules);
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_canon_rules; i++)
        if (canon_rules[i].precision == EXACT) exact[n++] = canon_rules[i];
    rewrite_module(cx, exact, n, NULL);
    *changed = cx->n_rewrites > 0;
    return ZM_OK;
}

static const PassInfo exact_pass = {
    "exact", run_exact, 0, 0, FACT_EXPANDED | FACT_FUSED | FACT_SCHEDULED | FACT_PLANNED, ""};

static int check_seed(uint64_t seed, int *n_run)
{
    static const char *const passes[] = {"exact", "cse", "exact", "dce",
                                         "expand,canon,cse,canon,dce"};
    Arena arena = {0};
    SourceSet sources = {.arena = &arena};
    Diag diag = {.arena = &arena, .sources = &sources};
    Module *m = random_module(&arena, &sources, &diag, seed);
    PipelineRun run_opt = {.check_changed = true, .extra = &exact_pass, .n_extra = 1};
    Outcome before = run(&arena, m, false);
    *n_run += before.ok;
    diag.n_errors = 0;
    int bad = 0;
    for (size_t i = 0; i < sizeof passes / sizeof *passes; i++) {
        if (pipeline_run(m, passes[i], &run_opt) != ZM_OK) {
            diag_print(&diag, stderr);
            bad++;
            break;
        }
        if (!before.ok || i == sizeof passes / sizeof *passes - 1) continue;
        Outcome after = run(&arena, m, false);
        bad += compare(m, &before, &after, passes[i], seed);
    }
    arena_free(&arena);
    return bad;
}

static int check_amp(uint64_t seed)
{
    Arena arena = {0};
    SourceSet sources = {.arena = &arena};
    Diag diag = {.arena = &arena, .sources = &sources};
    Module *m = random_module(&arena, &sources, &diag, seed);
    m->train.precision = seed % 2 ? PREC_BF16 : PREC_FP16;
    m->train.amp = seed / 2 % 2 ? AMP_MASTER : AMP_AUTOCAST;
    PipelineRun run_opt = {.check_changed = true};
    Outcome before = run(&arena, m, true);
    diag.n_errors = 0;
    int bad = pipeline_run(m, "amp", &run_opt) != ZM_OK;
    if (!bad && before.ok) {
        Outcome after = run(&arena, m, true);
        bad += compare(m, &before, &after, "amp", seed);
    }
    if (!bad) bad += pipeline_run(m, "canon,cse,dce,expand,canon,cse,dce", &run_opt) != ZM_OK;
    if (bad) diag_print(&diag, stderr);
    arena_free(&arena);
    return bad;
}

int main(void)
{
    int bad = 0, n_run = 0;
    for (uint64_t seed = 1; seed <= N_SEEDS; seed++) bad += check_seed(seed, &n_run);
    for (uint64_t seed = 1; seed <= N_SEEDS; seed++) bad += check_amp(seed);
    printf("%d of %d random modules run, %d failures\n", n_run, N_SEEDS, bad);
    return bad > 0 || n_run < N_SEEDS / 2;
}
