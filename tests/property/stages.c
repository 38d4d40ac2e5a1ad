/* stages.c -- every pass of the training pipeline on both models: the text of each stage parses
 * back to the same bytes, and the next pass runs on what was parsed; functions and variables that
 * exist before and after a pass hold the same numbers in the interpreter.
 *
 * Unrounded, a pass may change the order of f64 operations only: 1e-9 of a tensor's largest element
 * is far above what reassociation does (some thousand operations of 1e-16 each) and far below any
 * wrong term.  Passes that promise to compute nothing anew are also compared rounded, bit by bit.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/frontend.h"
#include "ir/base/file.h"
#include "ir/eval/eval.h"
#include "passes/pass.h"

#define TOL 1e-9
enum { MAX_STAGE_NAME = 32 };

static const char *const exact_passes[] = {"cse",       "dce",      "recompute", "bucket",  "fuse",
                                           "workspace", "schedule", "memplan",   "autodiff"};

/* A module with an arena of its own. */
typedef struct Stage {
    Arena arena;
    SourceSet sources;
    Diag diag;
    Module *m;
    Str text;
} Stage;

static Stage *stage_new(void)
{
    Stage *s = calloc(1, sizeof *s);
    ZM_CHECK(s != NULL);
    s->sources.arena = &s->arena;
    s->diag = (Diag){.arena = &s->arena, .sources = &s->sources};
    return s;
}

static void stage_free(Stage *s)
{
    str_free(&s->text);
    arena_free(&s->arena);
    free(s);
}

static Stage *stage_parse(const Str *text)
{
    Stage *s = stage_new();
    s->m = module_parse(&s->arena, &s->sources, &s->diag, "stage.zir", text->at, text->n);
    if (s->m && module_verify(s->m, NULL) == ZM_OK) {
        module_print(s->m, &s->text);
        return s;
    }
    diag_print(&s->diag, stderr);
    ZM_CHECK(!"a printed stage does not parse");
    return NULL;
}

/* ---- numbers ---- */

static double noise(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int32_t)(*state >> 32) * 0x1p-31;
}

static int64_t feed_bound(const Module *m, const char *name)
{
    for (uint32_t i = 0; i < m->feeds.n; i++)
        if (strcmp(m->feeds.at[i].input, name) == 0) return m->feeds.at[i].bound;
    return 0;
}

static void fill_input(const Module *m, const Value *param, EvalTensor t)
{
    uint64_t state = hash_bytes(param->name, strlen(param->name), 0);
    int64_t bound = feed_bound(m, param->name);
    for (int64_t i = 0; i < type_elems(t.type); i++) {
        double x = noise(&state);
        if (dtype_class(t.type->dtype) == DTC_INT)
            x = bound ? floor((x + 1) / 2 * (double)bound) : 3;
        t.at[i] = dtype_round(t.type->dtype, x);
    }
}

/* Parameters, masters and moments by their names, so that every stage starts alike: a master as its
 * parameter.  Moments are small and not negative, as a second moment is. */
static void fill_vars(const Eval *e)
{
    static const char master[] = "master.";
    for (uint32_t i = 1; i < e->m->vars.n; i++) {
        const Var *v = &e->m->vars.at[i];
        bool is_weight = v->kind == VK_PARAM || v->kind == VK_MASTER;
        if (v->is_bucket || (!is_weight && v->kind != VK_MOMENT)) continue;
        const char *name = v->kind == VK_MASTER ? v->name + strlen(master) : v->name;
        uint64_t state = hash_bytes(name, strlen(name), 0);
        double *at = eval_var(e, (VarId){i});
        for (int64_t k = 0; k < type_elems(v->type); k++) {
            double x = noise(&state);
            at[k] = dtype_round(DT_F32, is_weight ? 0.3 * x : 0.01 * x * x);
            if (!e->is_unrounded) at[k] = dtype_round(v->type->dtype, at[k]);
        }
    }
}

typedef struct Results {
    Eval *e; /* variables after the run */
    EvalTensor *at;
    const Func *f;
} Results;

static Results run(Stage *s, const Func *f, bool is_unrounded)
{
    Results r = {.e = eval_new(&s->arena, s->m), .f = f};
    r.e->is_unrounded = is_unrounded;
    fill_vars(r.e);
    EvalTensor *in = ARENA_ARRAY(&s->arena, EvalTensor, f->params.n);
    r.at = ARENA_ARRAY(&s->arena, EvalTensor, eval_n_results(f));
    for (uint32_t i = 0; i < f->params.n; i++) {
        in[i] = eval_tensor(&s->arena, value_type(f, f->params.at[i]));
        fill_input(s->m, value_cget(f, f->params.at[i]), in[i]);
    }
    ZM_CHECK(eval_run(r.e, f, in, &s->arena, r.at) == ZM_OK);
    return r;
}

static bool is_same(const double *x, const double *y, int64_t n, double tol)
{
    double largest = 0, error = 0;
    for (int64_t i = 0; i < n; i++) {
        if (x[i] == y[i] || (isnan(x[i]) && isnan(y[i]))) continue;
        error = fmax(error, isfinite(x[i] - y[i]) ? fabs(x[i] - y[i]) : (double)INFINITY);
    }
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, isfinite(x[i]) ? fabs(x[i]) : 0);
    return error <= tol * largest;
}

/* ---- comparing two stages ---- */

/* How a model is compiled. */
typedef struct Setting {
    int64_t accumulate, recompute_steps, loss_chunk_bytes;
    PrecisionKind precision;
    AmpMode amp;
    bool is_narrow; /* gradients and moments in 16 bits */
} Setting;

typedef struct Tally {
    const char *model, *pass;
    const Setting *how;
    int n_compared, n_failed;
} Tally;

static void tell(Tally *t, const char *func, const char *kind, const char *name, bool is_ok)
{
    t->n_compared++;
    if (is_ok) return;
    t->n_failed++;
    fprintf(stderr, "%s: pass %s changes %s '%s' of @%s\n", t->model, t->pass, kind, name, func);
}

static void compare_results(Tally *t, const Results *x, const Results *y, double tol)
{
    Arena *a = x->e->arena;
    for (uint32_t i = 0; i < eval_n_results(x->f); i++)
        for (uint32_t k = 0; k < eval_n_results(y->f); k++) {
            const char *name = eval_result_name(a, x->f, i);
            if (strcmp(name, eval_result_name(a, y->f, k)) != 0) continue;
            int64_t n = type_elems(x->at[i].type);
            bool is_ok =
                n == type_elems(y->at[k].type) && is_same(x->at[i].at, y->at[k].at, n, tol);
            tell(t, x->f->name, "result", name, is_ok);
        }
}

static void compare_vars(Tally *t, const Results *x, const Results *y, double tol)
{
    for (uint32_t i = 1; i < x->e->m->vars.n; i++) {
        const Var *v = &x->e->m->vars.at[i];
        VarId other = var_find(y->e->m, v->name);
        if (!var_ok(other)) continue;
        bool is_ok =
            is_same(eval_var(x->e, (VarId){i}), eval_var(y->e, other), type_elems(v->type), tol);
        tell(t, x->f->name, "variable", v->name, is_ok);
    }
}

/* Pass accumulate makes new functions of what returned values: its own tests compare it. */
static void compare(Tally *t, Stage *before, Stage *after, bool is_unrounded)
{
    double tol = is_unrounded ? TOL : 0;
    for (uint32_t i = 0; i < before->m->funcs.n; i++) {
        const Func *f = before->m->funcs.at[i], *g = func_find(after->m, f->name);
        if (!g) continue;
        Results x = run(before, f, is_unrounded), y = run(after, g, is_unrounded);
        compare_results(t, &x, &y, tol);
        if (strcmp(t->pass, "accumulate") != 0) compare_vars(t, &x, &y, tol);
    }
}

static bool is_exact(const char *pass)
{
    for (size_t i = 0; i < sizeof exact_passes / sizeof *exact_passes; i++)
        if (strcmp(pass, exact_passes[i]) == 0) return true;
    return false;
}

static Stage *next_stage(Tally *t, Stage *now)
{
    Stage *next = stage_parse(&now->text);
    ZM_CHECK(now->text.n == next->text.n && memcmp(now->text.at, next->text.at, next->text.n) == 0);
    PipelineRun how = {.check_changed = true,
                       .opt = {.ranks = 1,
                               .bucket_bytes = 1 << 20,
                               .recompute_steps = t->how->recompute_steps,
                               .loss_chunk_bytes = t->how->loss_chunk_bytes}};
    if (pipeline_run(next->m, t->pass, &how) != ZM_OK) {
        diag_print(&next->diag, stderr);
        ZM_CHECK(!"a pass failed");
    }
    str_free(&next->text);
    module_print(next->m, &next->text);
    compare(t, now, next, true);
    if (is_exact(t->pass)) compare(t, now, next, false);
    return next;
}

/* ---- models ---- */

static Stage *stage_of_model(const char *path, Define *defines, uint32_t n, const Setting *how)
{
    Stage *s = stage_new();
    char *text;
    size_t n_bytes;
    ZM_CHECK(file_read(&s->arena, path, &text, &n_bytes) == 0);
    FrontendOptions opt = {.defines = defines, .n_defines = n};
    s->m = frontend_compile(&s->arena, &s->sources, &s->diag, path, text, n_bytes, &opt);
    diag_print(&s->diag, stderr);
    ZM_CHECK(s->m != NULL);
    s->m->train.accumulate = how->accumulate;
    s->m->train.precision = how->precision;
    s->m->train.amp = how->amp;
    s->m->train.grad_low = s->m->train.moments_bf16 = how->is_narrow;
    module_print(s->m, &s->text);
    return s;
}

static int check_model(const char *name, Define *defines, uint32_t n, Setting how)
{
    Arena a = {0};
    const char *slash = strrchr(__FILE__, '/');
    int here = slash ? (int)(slash - __FILE__) : 0;
    Stage *now = stage_of_model(arena_printf(&a, "%.*s/../../models/%s.zm", here, __FILE__, name),
                                defines, n, &how);
    Tally t = {.model = name, .how = &how};
    char pass[MAX_STAGE_NAME];
    for (const char *p = pipeline_text("train"); *p;) {
        size_t len = strcspn(p, ",");
        snprintf(pass, sizeof pass, "%.*s", (int)len, p);
        t.pass = pass;
        Stage *next = next_stage(&t, now);
        stage_free(now);
        now = next;
        p += len + (p[len] == ',');
    }
    printf("%s: %d tensors compared, %d differ\n", name, t.n_compared, t.n_failed);
    stage_free(now);
    arena_free(&a);
    return t.n_failed + (t.n_compared < 100);
}

#define D(NAME, VALUE) {NAME, VALUE, false}

int main(void)
{
    /* Rates that f32 holds: canon folds constants, rounded. */
    Define mlp[] = {D("in", "7"), D("hidden", "5"),        D("classes", "3"),
                    D("B", "3"),  D("lr", "0.0009765625"), D("train.optimizer.decay", "0.0078125")};
    Define gpt2[] = {D("layers", "1"), D("heads", "2"), D("width", "6"),  D("ctx", "5"),
                     D("T", "3"),      D("B", "2"),     D("vocab", "11"), D("dropout", "0.25")};
    enum { N_MLP = sizeof mlp / sizeof *mlp, N_GPT2 = sizeof gpt2 / sizeof *gpt2 };
    int n_failed = check_model("mlp", mlp, N_MLP, (Setting){.accumulate = 1});
    n_failed += check_model("gpt2", gpt2, N_GPT2, (Setting){.accumulate = 2});
    for (int p = PREC_BF16; p <= PREC_FP16; p++)
        for (int mode = AMP_MASTER; mode <= AMP_AUTOCAST; mode++) {
            Setting how = {.accumulate = 1, .precision = (PrecisionKind)p, .amp = (AmpMode)mode};
            n_failed += check_model("mlp", mlp, N_MLP, how);
            how.accumulate = 2;
            n_failed += check_model("gpt2", gpt2, N_GPT2, how);
            how.is_narrow = true;
            n_failed += check_model("gpt2", gpt2, N_GPT2, how);
        }
    gpt2[5].value = "8"; /* 24 rows of logits: chunks of 16 and 8 */
    for (int mode = AMP_MASTER; mode <= AMP_AUTOCAST; mode++)
        n_failed += check_model("gpt2", gpt2, N_GPT2,
                                (Setting){.accumulate = 1,
                                          .loss_chunk_bytes = 256,
                                          .precision = PREC_BF16,
                                          .amp = (AmpMode)mode});
    gpt2[5].value = "2";
    gpt2[0].value = "3";
    for (int64_t steps = 2; steps < 20; steps += 7)
        n_failed +=
            check_model("gpt2", gpt2, N_GPT2, (Setting){.accumulate = 1, .recompute_steps = steps});
    return n_failed != 0;
}
