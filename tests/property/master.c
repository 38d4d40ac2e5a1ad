/* master.c -- 16-bit parameters in the interpreter, rounded as the machine rounds: a step on
 * masters is the step on f32 parameters, element for element; parameters are the rounding of their
 * masters; without masters each parameter becomes one of the two 16-bit numbers around the f32
 * result, up and down so that the mean is that result. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/frontend.h"
#include "ir/base/file.h"
#include "ir/eval/eval.h"
#include "passes/pass.h"

static int n_failures;

#define FAIL(...) (n_failures++, fprintf(stderr, __VA_ARGS__), fputc('\n', stderr))

typedef struct Setting {
    const char *model;
    PrecisionKind precision;
    bool grad_low, pure;
    int64_t accumulate;
    OptimizerKind optimizer; /* none: the model's */
    double momentum;
} Setting;

static Module *module_of(Arena *a, const Setting *s, const char *passes, int64_t bucket_bytes)
{
    static Define gpt2[] = {{"layers", "1", false}, {"heads", "2", false}, {"width", "6", false},
                            {"ctx", "5", false},    {"T", "3", false},     {"B", "2", false},
                            {"vocab", "11", false}, {"lr", "0.01", false}, {"warmup", "0", false}};
    static Define mlp[] = {
        {"in", "7", false}, {"hidden", "50", false}, {"classes", "30", false}, {"B", "3", false}};
    SourceSet *sources = ARENA_NEW(a, SourceSet);
    Diag *diag = ARENA_NEW(a, Diag);
    sources->arena = a;
    *diag = (Diag){.arena = a, .sources = sources};
    const char *slash = strrchr(__FILE__, '/');
    int here = slash ? (int)(slash - __FILE__) : 0;
    char *text, *path = arena_printf(a, "%.*s/../../models/%s.zm", here, __FILE__, s->model);
    size_t n;
    bool is_mlp = strcmp(s->model, "mlp") == 0;
    FrontendOptions opt = {.defines = is_mlp ? mlp : gpt2, .n_defines = is_mlp ? 4 : 9};
    ZM_CHECK(file_read(a, path, &text, &n) == 0);
    Module *m = frontend_compile(a, sources, diag, path, text, n, &opt);
    ZM_CHECK(m != NULL);
    m->train.precision = s->precision;
    m->train.grad_low = s->grad_low;
    m->train.pure = s->pure;
    m->train.accumulate = s->accumulate;
    if (s->optimizer != OPT_NONE) m->train.optimizer = s->optimizer;
    m->train.momentum = s->momentum;
    PipelineRun how = {.check_changed = true, .opt = {.ranks = 1, .bucket_bytes = bucket_bytes}};
    ZM_CHECK(pipeline_run(m, passes, &how) == ZM_OK);
    return m;
}

static double noise(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int32_t)(*state >> 32) * 0x1p-31;
}

static const char *param_of(const Var *v)
{
    return v->kind == VK_MASTER ? strchr(v->name, '.') + 1 : v->name;
}

/* Parameters and masters by the parameters' names, as 16-bit numbers when on_grid. */
static void fill_params(const Eval *e, DType low, bool on_grid)
{
    for (uint32_t i = 1; i < e->m->vars.n; i++) {
        const Var *v = &e->m->vars.at[i];
        if (v->is_bucket || (v->kind != VK_PARAM && v->kind != VK_MASTER)) continue;
        uint64_t state = hash_bytes(param_of(v), strlen(param_of(v)), 0);
        double *at = eval_var(e, (VarId){i});
        for (int64_t k = 0; k < type_elems(v->type); k++) {
            double x = dtype_round(DT_F32, 0.3 * noise(&state));
            at[k] = dtype_round(v->type->dtype, on_grid ? dtype_round(low, x) : x);
        }
    }
}

static void run_func(Eval *e, const char *name)
{
    const Func *f = func_find(e->m, name);
    EvalTensor *in = ARENA_ARRAY(e->arena, EvalTensor, f->params.n);
    for (uint32_t i = 0; i < f->params.n; i++) {
        const Value *v = value_cget(f, f->params.at[i]);
        uint64_t state = hash_bytes(v->name, strlen(v->name), 0);
        in[i] = eval_tensor(e->arena, v->type);
        for (int64_t k = 0; k < type_elems(v->type); k++) {
            double x = noise(&state);
            bool is_int = dtype_class(v->type->dtype) == DTC_INT;
            in[i].at[k] = is_int ? floor(5 * fabs(x)) : dtype_round(v->type->dtype, x);
        }
    }
    ZM_CHECK(eval_run(e, f, in, e->arena, NULL) == ZM_OK);
}

/* A step of the module that the passes make, as far as the interpreter runs it. */
static Eval *step(Arena *a, const Setting *s, const char *passes, int64_t bucket_bytes)
{
    Module *m = module_of(a, s, passes, bucket_bytes);
    Eval *e = eval_new(a, m);
    fill_params(e, precision_dtype(s->precision), s->pure);
    if (s->accumulate > 1) run_func(e, "micro");
    run_func(e, "last");
    return e;
}

static const double *var_at(const Eval *e, const char *name)
{
    VarId v = var_find(e->m, name);
    return var_ok(v) ? eval_var(e, v) : NULL;
}

/* Everything but parameters and masters is the same in both. */
static void compare_rest(const Setting *s, const Eval *x, const Eval *y)
{
    for (uint32_t i = 1; i < x->m->vars.n; i++) {
        const Var *v = &x->m->vars.at[i];
        const double *other = var_at(y, v->name);
        if (v->kind == VK_PARAM || v->kind == VK_MASTER || !other) continue;
        if (memcmp(eval_var(x, (VarId){i}), other, (size_t)type_elems(v->type) * sizeof *other))
            FAIL("%s: @%s differs", s->model, v->name);
    }
}

static void check_masters(const Setting *s, const Eval *wide, const Eval *e)
{
    Arena *a = e->arena;
    int n_masters = 0;
    for (uint32_t i = 1; i < wide->m->vars.n; i++) {
        const Var *v = &wide->m->vars.at[i];
        const double *master = var_at(e, arena_printf(a, "master.%s", v->name));
        const double *low = var_at(e, v->name), *want = eval_var(wide, (VarId){i});
        if (v->kind != VK_PARAM) continue;
        ZM_CHECK(master && low);
        n_masters++;
        for (int64_t k = 0; k < type_elems(v->type); k++) {
            if (master[k] != want[k])
                FAIL("%s: master.%s[%lld] is %a, the f32 parameter %a", s->model, v->name,
                     (long long)k, master[k], want[k]);
            if (low[k] != dtype_round(precision_dtype(s->precision), master[k]))
                FAIL("%s: %s[%lld] is %a, its master %a", s->model, v->name, (long long)k, low[k],
                     master[k]);
        }
    }
    if (n_masters < 4) FAIL("%s: %d masters", s->model, n_masters);
}

/* Over all elements: where in its bf16 step the f32 result lies is the chance of the upper end. The
 * sum of n independent errors of at most one step stays within 5 standard deviations, 2.5 sqrt(n)
 * steps, but once in 10^6 runs; this is one run, always the same. */
static void check_pure(const Setting *s, const Eval *wide, const Eval *e)
{
    double drift = 0;
    int64_t n = 0, n_between = 0;
    for (uint32_t i = 1; i < wide->m->vars.n; i++) {
        const Var *v = &wide->m->vars.at[i];
        if (v->kind != VK_PARAM) continue;
        const double *have = var_at(e, v->name), *want = eval_var(wide, (VarId){i});
        for (int64_t k = 0; k < type_elems(v->type); k++, n++) {
            double down = bf16_round_by(want[k], 0), up = bf16_round_by(want[k], 65535.0 / 65536);
            if (have[k] != down && have[k] != up)
                FAIL("%s: %s[%lld] is %a, not %a or %a", s->model, v->name, (long long)k, have[k],
                     down, up);
            if (up == down) continue;
            n_between++;
            drift += (have[k] - want[k]) / fabs(up - down);
        }
    }
    if (n_between < n / 4 || fabs(drift) > 2.5 * sqrt((double)n_between))
        FAIL("%s: %lld of %lld elements between steps, drift %g steps", s->model,
             (long long)n_between, (long long)n, drift);
}

#define TO_STEP "amp,canon,cse,autodiff,canon,cse,dce,accumulate"

static void check_setting(const Setting *s)
{
    Arena a = {0};
    Eval *wide = step(&a, s, TO_STEP, 0);
    Eval *each = step(&a, s, TO_STEP ",master", 0);
    Eval *flat = step(&a, s, TO_STEP ",master,bucket", 1 << 20);
    Eval *small = step(&a, s, TO_STEP ",master,bucket", 256);
    Eval *all[] = {each, flat, small};
    for (int i = 0; i < 3; i++) {
        compare_rest(s, each, all[i]);
        if (s->pure)
            check_pure(s, wide, all[i]);
        else
            check_masters(s, wide, all[i]);
    }
    arena_free(&a);
}

int main(void)
{
    static const Setting settings[] = {
        {"mlp", PREC_BF16, false, false, 1, OPT_NONE, 0},
        {"gpt2", PREC_BF16, false, false, 1, OPT_NONE, 0},
        {"gpt2", PREC_FP16, true, false, 2, OPT_NONE, 0},
        {"mlp", PREC_FP16, false, false, 2, OPT_ADAM, 0},
        {"mlp", PREC_BF16, false, false, 1, OPT_LION, 0},
        {"mlp", PREC_FP16, true, false, 2, OPT_SGD, 0.5},
        {"mlp", PREC_BF16, false, false, 1, OPT_SGD, 0},
        {"mlp", PREC_BF16, false, true, 1, OPT_NONE, 0},
        {"mlp", PREC_BF16, false, true, 2, OPT_SGD, 0.5},
        {"gpt2", PREC_BF16, true, true, 2, OPT_LION, 0},
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) check_setting(&settings[i]);
    printf("%d failures\n", n_failures);
    return n_failures != 0;
}
