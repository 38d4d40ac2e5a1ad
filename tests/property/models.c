/* models.c -- the gradient of whole models, small ones, as a directional derivative in doubles:
 *   sum over parameters of grad . u  =  (L(p + h u) - L(p - h u)) / 2h       u random, L = sum(loss
 * * weight) / items and the same loss and gradients after every pass up to `expand`.  The error of
 * the right side is c h^2 + u |L| / h; as in gradcheck.c the difference of D(2h) and D(h) measures
 * the first part and 64 roundings bound the second.  In every precision and mode: unrounded, casts
 * change nothing. */
#include "frontend/frontend.h"
#include "ir/base/file.h"
#include "tests/property/prop.h"

typedef struct Mixed {
    PrecisionKind precision;
    AmpMode amp;
} Mixed;

static const Mixed precisions[] = {
    {PREC_FP32, AMP_MASTER}, {PREC_BF16, AMP_MASTER},   {PREC_BF16, AMP_AUTOCAST},
    {PREC_FP16, AMP_MASTER}, {PREC_FP16, AMP_AUTOCAST},
};

typedef struct Model {
    const char *file;
    Define defines[12];
    uint32_t n_defines;
} Model;

static const Model models[] = {
    {"models/mlp.zm", {{"in", "7", 0}, {"hidden", "5", 0}, {"classes", "3", 0}, {"B", "4", 0}}, 4},
    {"models/gpt2.zm",
     {{"vocab", "13", 0},
      {"ctx", "6", 0},
      {"layers", "2", 0},
      {"heads", "2", 0},
      {"width", "8", 0},
      {"B", "2", 0},
      {"T", "5", 0},
      {"dropout", "0.25", 0}},
     8},
};

static void compile(Prop *p, const Model *model, Mixed how)
{
    *p = (Prop){.rng = 5};
    p->sources.arena = p->diag.arena = &p->arena;
    p->diag.sources = &p->sources;
    char *text;
    size_t n;
    if (file_read(&p->arena, model->file, &text, &n) != 0) {
        fprintf(stderr, "cannot read %s: run from the root of the source tree\n", model->file);
        exit(1);
    }
    Model own = *model;
    FrontendOptions opt = {.defines = own.defines, .n_defines = own.n_defines};
    p->m = frontend_compile(&p->arena, &p->sources, &p->diag, model->file, text, n, &opt);
    if (!p->m) diag_print(&p->diag, stderr);
    ZM_CHECK(p->m != NULL);
    p->m->train.precision = how.precision;
    p->m->train.amp = how.amp;
    p->f = func_find(p->m, "train");
}

/* Inputs within their feeds' bounds; floats small. */
static void fill_inputs(Prop *p)
{
    for (uint32_t i = 0; i < p->f->params.n; i++) {
        const Value *v = value_cget(p->f, p->f->params.at[i]);
        int64_t bound = 5;
        for (uint32_t k = 0; k < p->m->feeds.n; k++)
            if (strcmp(p->m->feeds.at[k].input, v->name) == 0 && p->m->feeds.at[k].bound)
                bound = p->m->feeds.at[k].bound;
        EvalTensor t = eval_tensor(&p->arena, v->type);
        for (int64_t e = 0; e < type_elems(v->type); e++)
            t.at[e] =
                v->type->dtype == DT_I32 ? (double)prop_below(p, bound) : prop_draw(p, SD_ANY);
        ZM_CHECK(p->n_in < PROP_MAX_INPUTS);
        p->in[p->n_in++] = t;
    }
}

typedef struct State {
    double **at; /* by VarId.i: values of the parameters */
} State;

static State random_state(Prop *p, double scale)
{
    State s = {ARENA_ARRAY(&p->arena, double *, p->m->vars.n)};
    for (uint32_t i = 1; i < p->m->vars.n; i++) {
        int64_t n = type_elems(p->m->vars.at[i].type);
        s.at[i] = ARENA_ARRAY(&p->arena, double, n);
        for (int64_t e = 0; e < n; e++) s.at[i][e] = scale * prop_draw(p, SD_ANY);
    }
    return s;
}

/* Results of f at s + h u. */
static EvalTensor *run_at(Prop *p, const Func *f, State s, State u, double h)
{
    Eval *e = eval_new(&p->arena, p->m);
    e->is_unrounded = true;
    for (uint32_t i = 1; i < p->m->vars.n; i++)
        for (int64_t k = 0; k < type_elems(p->m->vars.at[i].type); k++)
            eval_var(e, (VarId){i})[k] = s.at[i][k] + h * u.at[i][k];
    EvalTensor *out = ARENA_ARRAY(&p->arena, EvalTensor, eval_n_results(f) + 1);
    ZM_CHECK(eval_run(e, f, p->in, &p->arena, out) == ZM_OK);
    return out;
}

static double loss_of(const Prop *p, const EvalTensor *out)
{
    double sum = 0;
    for (int64_t i = 0; i < type_elems(out[0].type); i++) sum += out[0].at[i] * out[1].at[i];
    return sum / (double)p->m->items;
}

static double difference(Prop *p, const Func *f, State s, State u, double h)
{
    double up = loss_of(p, run_at(p, f, s, u, h)), down = loss_of(p, run_at(p, f, s, u, -h));
    return (up - down) / (2 * h);
}

static double along(const Prop *p, const EvalTensor *out, State u)
{
    double sum = 0;
    uint32_t r = 2;
    for (uint32_t i = 1; i < p->m->vars.n; i++, r++)
        for (int64_t k = 0; k < type_elems(out[r].type); k++) sum += out[r].at[k] * u.at[i][k];
    return sum;
}

static int count_differing(const Prop *p, const EvalTensor *have, const EvalTensor *want)
{
    int bad = 0;
    for (uint32_t r = 0; r < eval_n_results(p->f); r++)
        for (int64_t k = 0; k < type_elems(have[r].type); k++)
            if (!(fabs(have[r].at[k] - want[r].at[k]) <= 1e5 * 0x1p-53 * (1 + fabs(want[r].at[k]))))
                bad++;
    return bad;
}

static int check_stages(Prop *p, State s, const EvalTensor *want)
{
    static const char *const stages[] = {"canon", "cse", "dce", "expand", "canon", "cse", "dce"};
    int bad = 0;
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        prop_passes(p, stages[i]);
        bad += count_differing(p, run_at(p, p->f, s, s, 0), want);
        if (bad) fprintf(stderr, "%d results differ after %s\n", bad, stages[i]);
    }
    return bad;
}

/* The gradient of the expanded model is the expansion of the gradient, but for rounding. */
static int check_expanded_first(const Model *model, Mixed how, const EvalTensor *want)
{
    Prop p;
    compile(&p, model, how);
    fill_inputs(&p);
    State s = random_state(&p, 0.3);
    prop_passes(&p, "amp,expand,canon,cse,autodiff,canon,cse,dce");
    int bad = count_differing(&p, run_at(&p, p.f, s, s, 0), want);
    if (bad) fprintf(stderr, "%s: %d gradients differ when expanded first\n", model->file, bad);
    prop_close(&p);
    return bad;
}

static int check_model(const Model *model, Mixed how)
{
    Prop p;
    compile(&p, model, how);
    fill_inputs(&p);
    State s = random_state(&p, 0.3), u = random_state(&p, 1);
    const Func *loss = func_clone(p.m, p.f, "loss");
    prop_passes(&p, "amp,canon,cse,autodiff");
    EvalTensor *out = run_at(&p, p.f, s, u, 0);
    double h = cbrt(0x1p-53), d = difference(&p, loss, s, u, h),
           d2 = difference(&p, loss, s, u, 2 * h);
    double grad = along(&p, out, u),
           bound = fabs(d2 - d) + 64 * 0x1p-53 * (1 + fabs(loss_of(&p, out))) / h;
    int bad = fabs(grad - d) > bound || bound > 1e-4 * fabs(d);
    printf("%s: gradient along u %.12g, by differences %.12g, bound %g\n", model->file, grad, d,
           bound);
    bad += check_stages(&p, s, out);
    bad += check_expanded_first(model, how, out);
    prop_close(&p);
    return bad;
}

int main(void)
{
    int bad = 0;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        for (size_t k = 0; k < sizeof precisions / sizeof *precisions; k++)
            bad += check_model(&models[i], precisions[k]);
    return bad > 0;
}
