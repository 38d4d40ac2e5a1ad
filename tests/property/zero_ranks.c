/* zero_ranks.c -- pass zero in the interpreter, N ranks at once: after three steps, parameters,
 * moments and metrics of N ranks x B samples are those of one rank with N * B, for every stage,
 * optimizer and way to accumulate; all stages hold the same bits; an overflow on one rank is one on
 * all.
 *
 * Against one rank everything is computed in f64 (unrounded): what may differ is the order of sums.
 * A gradient is then off by n 2^-53 of the sum of its terms' sizes, n < 10^5 terms: 1e-11 of the
 * largest.  The optimizers divide by no less than eps = 1e-8, next to gradients of 1e-3 and more: a
 * step is off by less than 1e-9 of the learning rate's size.  A wrong term, rank or factor is off
 * by 1e-3 or more.  lion's sign has no such bound where a gradient is 0 but for rounding, so it
 * runs on a model without such. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/frontend.h"
#include "ir/base/file.h"
#include "ir/base/program.h"
#include "ir/eval/eval.h"
#include "passes/pass.h"

#define TOL 1e-9
enum { N_STEPS = 3, MAX_RANKS = 4, N_STAGES = 4 };

static const char passes[] = "amp,canon,cse,autodiff,loss_scale,canon,cse,dce,accumulate,master,"
                             "bucket,zero,canon,cse,dce";

static int n_failures, n_compared;

#define FAIL(...) (n_failures++, fprintf(stderr, __VA_ARGS__), fputc('\n', stderr))

/* How a model is compiled. */
typedef struct Setting {
    const char *model;
    uint32_t ranks;
    int64_t stage, accumulate, persist_below;
    PrecisionKind precision;
    AmpMode amp;
    OptimizerKind optimizer; /* none: the model's */
    double momentum;
    bool grad_low, comm_low, pure, reduce_at_step, keep_layout;
    bool is_unrounded;
    bool is_planned; /* all passes run, not only those up to zero */
    bool is_single; /* one sample a rank, not 2: the batch has size 1, and is longer all the same */
    int64_t recompute_steps, max_gathered_bytes;
    double poison; /* added to an input of one sample of the second step */
} Setting;

static const char *setting_text(Arena *a, const Setting *s)
{
    return arena_printf(
        a, "%s, %u ranks, stage %lld, accumulate %lld, %s %s, optimizer %d%s%s%s%s%s", s->model,
        s->ranks, (long long)s->stage, (long long)s->accumulate, precision_name(s->precision),
        amp_mode_name(s->amp), s->optimizer, s->grad_low ? ", grad low" : "",
        s->comm_low ? ", comm low" : "", s->pure ? ", pure" : "",
        s->reduce_at_step ? ", at step" : "", s->keep_layout ? ", kept layout" : "");
}

/* ---- models ---- */

/* Tied weights, a parameter that the loss does not use, one in f32 whatever the precision, and
 * sizes that no number of ranks divides. */
static const char odd[] = "dim B = 2, W = 11\n"
                          "const lr = 0.01\n"
                          "block layer(x: [..., n]) -> [..., n] {\n"
                          "  param w: [n, n] = normal(0.3)\n"
                          "  param scale: [n] = ones, no_decay\n"
                          "  precision f32 {\n"
                          "    let y = normalize(x, eps = 1e-3) * scale\n"
                          "  }\n"
                          "  return x + tanh(y @ w)\n"
                          "}\n"
                          "model odd(x: [B, W], y: [B, W]) {\n"
                          "  param tied: [W, W] = normal(0.3)\n"
                          "  param unused: [5] = ones\n"
                          "  let h = l[2]: layer(x @ tied)\n"
                          "  loss mse(h @ transpose(tied), y)\n"
                          "}\n"
                          "data { tensors(x, y) }\n"
                          "train { optimizer adamw(lr = lr, decay = 0.1)\n clip 0.5\n }\n";

/* Values that are alike on all ranks meet those of a sample: positions, a mask, a bias and keys
 * made of parameters, a loss whose gradient is a constant, a term of it that depends on parameters
 * alone. */
static const char alike[] =
    "dim B = 2, T = 3, H = 2, D = 4, V = 7\n"
    "const lr = 0.01\n"
    "model alike(tokens: int[B, T], x: [B, T, H * D]) {\n"
    "  param table: [V, H * D] = normal(0.3)\n"
    "  param place: [T, H * D] = normal(0.3)\n"
    "  param keys: [H, T, D] = normal(0.3)\n"
    "  param bias: [H, T, T] = normal(0.3)\n"
    "  param out: [H * D, 2] = normal(0.3)\n"
    "  let e = embed(table, tokens) + embed(place, arange(T)) + x\n"
    "  let q = rotary(split_heads(e, H))\n"
    "  let k = broadcast(keys, [B, H, T, D])\n"
    "  let a = drop(merge_heads(sdpa(q, k, q, causal = true, bias = bias, drop = 0.25)), 0.25)\n"
    "  let w = where(arange(T) < 2, 1.0, 0.5)\n"
    "  loss sum((a + e) @ out, 2) * w + 0.1 * mean(place * place)\n"
    "}\n"
    "data { tensors(tokens, x) }\n"
    "train { optimizer sgd(lr = lr, momentum = 0.9)\n clip 0.5\n }\n";

/* One bias for all layers, a parameter that only the output uses, parameters of one element. */
static const char shared[] =
    "dim B = 2, T = 4, W = 8, H = 2, V = 11\n"
    "block layer(x: [B, T, C]) -> [B, T, C] {\n"
    "  param w: [C, C] = normal(0.3)\n"
    "  param bias: [H, T, T] = normal(0.3) at \"first.bias\"\n"
    "  param gain: [1] = ones\n"
    "  let q = split_heads(x @ w, H)\n"
    "  return x + merge_heads(sdpa(q, q, q, causal = true, bias = bias)) * gain\n"
    "}\n"
    "model shared(tokens: int[B, T], targets: int[B, T]) {\n"
    "  param table: [V, W] = normal(0.3)\n"
    "  param only_out: [W] = ones\n"
    "  param gain: [1] = ones\n"
    "  let x = l[3]: layer(embed(table, tokens))\n"
    "  output logits = (x * only_out) @ transpose(table)\n"
    "  loss cross_entropy((x * gain) @ transpose(table), targets, ignore = -100)\n"
    "}\n"
    "data { causal(tokens, targets) }\n"
    "train { optimizer adamw(lr = 0.01, decay = 0.1)\n clip 0.5\n }\n";

/* NULL: a model of models/. */
static const char *own_text(const char *name)
{
    if (strcmp(name, "odd") == 0) return odd;
    if (strcmp(name, "alike") == 0) return alike;
    return strcmp(name, "shared") == 0 ? shared : NULL;
}

static char *model_text(Arena *a, const char *name, const char **path, size_t *n)
{
    char *text;
    const char *slash = strrchr(__FILE__, '/');
    int here = slash ? (int)(slash - __FILE__) : 0;
    *path = arena_printf(a, "%.*s/../../models/%s.zm", here, __FILE__, name);
    const char *own = own_text(name);
    if (own) {
        *n = strlen(own);
        return arena_strndup(a, own, *n);
    }
    ZM_CHECK(file_read(a, *path, &text, n) == 0);
    return text;
}

static uint32_t model_defines(const char *name, const char *batch, Define *out)
{
    static const char *const gpt2[][2] = {{"layers", "2"}, {"heads", "2"},  {"width", "6"},
                                          {"ctx", "5"},    {"T", "3"},      {"vocab", "11"},
                                          {"lr", "0.01"},  {"warmup", "0"}, {"dropout", "0.25"}};
    static const char *const mlp[][2] = {{"in", "7"}, {"hidden", "251"}, {"classes", "3"}};
    uint32_t n = 0;
    out[n++] = (Define){"B", batch, false};
    if (strcmp(name, "gpt2") == 0)
        for (size_t i = 0; i < sizeof gpt2 / sizeof *gpt2; i++)
            out[n++] = (Define){gpt2[i][0], gpt2[i][1], false};
    if (strcmp(name, "mlp") == 0)
        for (size_t i = 0; i < sizeof mlp / sizeof *mlp; i++)
            out[n++] = (Define){mlp[i][0], mlp[i][1], false};
    return n;
}

static const char *const models[] = {"odd", "gpt2", "mlp", "alike", "shared"};
enum { N_MODELS = sizeof models / sizeof *models };

static Module *compile(Arena *a, const Setting *s, int64_t batch)
{
    enum { MAX_DEFINES = 16 };
    SourceSet *sources = ARENA_NEW(a, SourceSet);
    Diag *diag = ARENA_NEW(a, Diag);
    sources->arena = a;
    *diag = (Diag){.arena = a, .sources = sources};
    Define defines[MAX_DEFINES];
    size_t n;
    const char *path;
    char *text = model_text(a, s->model, &path, &n);
    FrontendOptions opt = {.defines = defines};
    opt.n_defines = model_defines(s->model, arena_printf(a, "%lld", (long long)batch), defines);
    Module *m = frontend_compile(a, sources, diag, path, text, n, &opt);
    if (!m) diag_print(diag, stderr);
    ZM_CHECK(m != NULL);
    TrainConfig *t = &m->train;
    t->precision = s->precision;
    t->amp = s->amp;
    t->grad_low = s->grad_low;
    t->comm_low = s->comm_low;
    t->pure = s->pure;
    t->accumulate = s->accumulate;
    t->zero = s->stage;
    t->reduce_at_step = s->reduce_at_step;
    t->scale.is_dynamic = s->precision == PREC_FP16;
    if (s->precision == PREC_FP16) t->scale.init = 1024;
    if (s->optimizer != OPT_NONE) {
        t->optimizer = s->optimizer;
        t->momentum = s->momentum;
    }
    PipelineRun how = {.check_changed = true,
                       .opt = {.ranks = s->ranks,
                               .bucket_bytes = 1 << 20,
                               .persist_below = s->persist_below,
                               .recompute_steps = s->recompute_steps,
                               .max_gathered_bytes = s->max_gathered_bytes,
                               .keep_state_layout = s->keep_layout}};
    const char *pipeline = s->is_planned ? pipeline_text("train") : passes;
    if (pipeline_run(m, pipeline, &how) == ZM_OK) return m;
    diag_print(diag, stderr);
    fprintf(stderr, "%s does not compile\n", setting_text(a, s));
    abort();
}

/* ---- state: every rank's variables ---- */

typedef struct Run {
    Arena *a;
    const Setting *how;
    Module *m;
    uint32_t ranks;
    Eval *e[MAX_RANKS];
} Run;

static double *element(const Run *run, uint32_t r, VarId v, int64_t i)
{
    return eval_element(run->e[r], r, v, i);
}

static double noise(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int32_t)(*state >> 32) * 0x1p-31;
}

/* A number from what names it, so that it is the same wherever it lies. */
static double noise_of(const char *name, int64_t i)
{
    uint64_t state = hash_bytes(name, strlen(name), (uint64_t)i);
    return noise(&state);
}

/* Parameters by their names; a master is what its parameter is the rounding of. */
static void fill_params(Run *run)
{
    static const char master[] = "master.";
    for (uint32_t i = 1; i < run->m->vars.n; i++) {
        const Var *v = &run->m->vars.at[i];
        if (v->is_bucket || (v->kind != VK_PARAM && v->kind != VK_MASTER)) continue;
        const char *name = v->kind == VK_MASTER ? v->name + strlen(master) : v->name;
        for (int64_t k = 0; k < type_elems(v->type); k++) {
            double x = dtype_round(DT_F32, 0.3 * noise_of(name, k));
            if (!run->how->is_unrounded) x = dtype_round(v->type->dtype, x);
            for (uint32_t r = 0; r < run->ranks; r++)
                if (element(run, r, (VarId){i}, k)) *element(run, r, (VarId){i}, k) = x;
        }
    }
}

static Run run_new(Arena *a, const Setting *s, int64_t batch)
{
    Run run = {.a = a, .how = s, .m = compile(a, s, batch), .ranks = s->ranks};
    for (uint32_t r = 0; r < run.ranks; r++) {
        run.e[r] = eval_new(a, run.m);
        run.e[r]->is_unrounded = s->is_unrounded;
    }
    fill_params(&run);
    return run;
}

/* ---- steps ---- */

static int64_t feed_bound(const Module *m, const char *name)
{
    for (uint32_t i = 0; i < m->feeds.n; i++)
        if (strcmp(m->feeds.at[i].input, name) == 0) return m->feeds.at[i].bound;
    return 0;
}

/* Sample k of the data, the same in whatever batch it comes. */
static void fill_input(const Run *run, const char *name, EvalTensor t, int64_t sample, int step)
{
    int64_t batch = t.type->dim[0], n = type_elems(t.type) / batch;
    int64_t bound = feed_bound(run->m, name);
    for (int64_t i = 0; i < batch * n; i++) {
        double x = noise_of(name, (sample + i / n) * n + i % n);
        if (dtype_class(t.type->dtype) == DTC_INT)
            x = floor((x + 1) / 2 * (double)bound);
        else if (step == 1 && i / n + sample == run->m->batch * run->ranks * step && i % n == 0)
            x += run->how->poison;
        t.at[i] = run->how->is_unrounded ? x : dtype_round(t.type->dtype, x);
    }
}

static void run_func(Run *run, const char *name, int64_t micro, int step)
{
    const Func *f = func_find(run->m, name);
    uint32_t n = f->params.n;
    EvalTensor *in = ARENA_ARRAY(run->a, EvalTensor, n * run->ranks);
    for (uint32_t r = 0; r < run->ranks; r++) {
        int64_t sample = (micro * run->ranks + r) * run->m->batch;
        for (uint32_t i = 0; i < n; i++) {
            const Value *p = value_cget(f, f->params.at[i]);
            EvalTensor t = eval_tensor(run->a, p->type);
            const double key[] = {7, 0, step, (double)sample};
            if (strcmp(p->name, "rng") == 0)
                memcpy(t.at, key, sizeof key);
            else
                fill_input(run, p->name, t, sample, step);
            in[r * n + i] = t;
        }
    }
    ZM_CHECK(eval_run_ranks(run->e, run->ranks, f, in, run->a, NULL) == ZM_OK);
}

static void run_step(Run *run, int step)
{
    int64_t n = run->how->accumulate;
    for (int64_t i = 0; i < n; i++) run_func(run, i + 1 < n ? "micro" : "last", step * n + i, step);
}

/* ---- comparing ---- */

static bool is_state(const Var *v)
{
    return !v->is_bucket && v->kind != VK_GRAD && strcmp(v->name, ZMP_S_STOP) != 0 &&
           strcmp(v->name, ZMP_S_STOPS) != 0;
}

/* What rank r of x holds of v against y's same element, wherever that lies. */
static bool is_same_var(const Run *x, uint32_t r, VarId v, const Run *y, double tol)
{
    VarId w = var_find(y->m, var_cget(x->m, v)->name);
    ZM_CHECK(var_ok(w));
    double error = 0, largest = 0;
    for (int64_t i = 0; i < type_elems(var_cget(x->m, v)->type); i++) {
        const double *a = element(x, r, v, i), *b = NULL;
        for (uint32_t s = 0; s < y->ranks && !b; s++) b = element(y, s, w, i);
        ZM_CHECK(b != NULL);
        if (!a || *a == *b || (isnan(*a) && isnan(*b))) continue;
        error = fmax(error, isfinite(*a - *b) ? fabs(*a - *b) : (double)INFINITY);
        largest = fmax(largest, fabs(*b));
    }
    for (int64_t i = 0; i < type_elems(var_cget(x->m, v)->type); i++)
        for (uint32_t s = 0; s < y->ranks; s++) {
            const double *b = element(y, s, w, i);
            if (b && isfinite(*b)) largest = fmax(largest, fabs(*b));
        }
    return error <= tol * largest;
}

static void compare(const Run *x, const Run *y, double tol)
{
    for (uint32_t i = 1; i < x->m->vars.n; i++) {
        const Var *v = &x->m->vars.at[i];
        if (!is_state(v)) continue;
        for (uint32_t r = 0; r < x->ranks; r++) {
            n_compared++;
            if (!is_same_var(x, r, (VarId){i}, y, tol))
                FAIL("%s: @%s of rank %u differs from that of %s", setting_text(x->a, x->how),
                     v->name, r, setting_text(x->a, y->how));
        }
    }
}

/* ---- cases ---- */

/* N ranks x B samples against one rank x B N. */
static void check_one_rank(Setting s)
{
    Arena a = {0};
    int64_t batch = s.is_single ? 1 : 2;
    s.is_unrounded = true;
    Setting one = s;
    one.ranks = 1;
    one.stage = 0;
    Run x = run_new(&a, &s, batch), y = run_new(&a, &one, batch * s.ranks);
    for (int step = 0; step < N_STEPS; step++) {
        run_step(&x, step);
        run_step(&y, step);
        run_func(&x, "eval", step, step); /* adds to what compare() sees */
        run_func(&y, "eval", step, step);
        compare(&x, &y, TOL);
    }
    arena_free(&a);
}

/* Every stage against the first of `from` .. 3, bit by bit. */
static void check_stages(Setting s, int64_t from)
{
    Arena a = {0};
    Setting how[N_STAGES];
    Run run[N_STAGES];
    for (int64_t z = from; z < N_STAGES; z++) {
        how[z] = s;
        how[z].stage = z;
        run[z] = run_new(&a, &how[z], 2);
        for (int step = 0; step < N_STEPS; step++) run_step(&run[z], step);
        compare(&run[z], &run[from], 0);
    }
    arena_free(&a);
}

static double scalar(const Run *run, uint32_t r, const char *name)
{
    return *element(run, r, var_find(run->m, name), 0);
}

/* A sample of the second step makes one rank's gradients infinite: no rank updates. */
static void check_overflow(Setting s)
{
    Arena a = {0};
    s.poison = 1e30;
    Setting calm = s;
    Run run = run_new(&a, &s, 2), before = run_new(&a, &calm, 2);
    run_step(&run, 0);
    run_step(&before, 0);
    run_step(&run, 1);
    for (uint32_t r = 0; r < run.ranks; r++)
        if (scalar(&run, r, ZMP_S_SKIPPED) != 1 || scalar(&run, r, ZMP_S_UPDATE) != 1)
            FAIL("%s: rank %u does not skip", setting_text(&a, &s), r);
    for (uint32_t i = 1; i < run.m->vars.n; i++)
        for (uint32_t r = 0; r < run.ranks; r++)
            if (run.m->vars.at[i].kind != VK_SCALAR && is_state(&run.m->vars.at[i]) &&
                !is_same_var(&run, r, (VarId){i}, &before, 0))
                FAIL("%s: a skipped step changes @%s of rank %u", setting_text(&a, &s),
                     run.m->vars.at[i].name, r);
    run_step(&run, 2);
    if (scalar(&run, 0, ZMP_S_UPDATE) != 2) FAIL("%s: skips on", setting_text(&a, &s));
    arena_free(&a);
}

/* Kernels, their order and collectives in flight: the planned program against one rank's. */
static void check_planned(void)
{
    Setting pure = {.model = "odd", .ranks = 2, .accumulate = 1, .precision = PREC_BF16};
    pure.pure = pure.is_planned = true;
    check_stages(pure, 0);
    for (int p = PREC_FP32; p <= PREC_FP16; p++)
        check_stages((Setting){.model = "gpt2",
                               .ranks = 3,
                               .accumulate = 1,
                               .precision = (PrecisionKind)p,
                               .recompute_steps = 5,
                               .is_planned = true},
                     0);
    for (int64_t z = 0; z < N_STAGES; z++)
        for (int i = 0; i < N_MODELS; i++)
            for (int64_t n = 1; n < 3; n++)
                check_one_rank((Setting){.model = models[i],
                                         .ranks = 2,
                                         .stage = z,
                                         .accumulate = n,
                                         .recompute_steps = n == 1 ? 0 : 5,
                                         .max_gathered_bytes = n == 1 ? 0 : 12 << 10,
                                         .is_planned = true});
}

/* The text that a model generates after a step: every rank gets the same results. */
static EvalTensor *generate(Run *run, uint32_t *n)
{
    const Func *f = func_find(run->m, "generate");
    EvalTensor *in = ARENA_ARRAY(run->a, EvalTensor, f->params.n * run->ranks);
    *n = eval_n_results(f);
    EvalTensor *out = ARENA_ARRAY(run->a, EvalTensor, *n * run->ranks);
    run_step(run, 0);
    for (uint32_t i = 0; i < f->params.n * run->ranks; i++) {
        const Value *p = value_cget(f, f->params.at[i % f->params.n]);
        in[i] = eval_tensor(run->a, p->type);
        fill_input(run, p->name, in[i], 0, 0);
    }
    ZM_CHECK(eval_run_ranks(run->e, run->ranks, f, in, run->a, out) == ZM_OK);
    return out;
}

static void check_generate(Setting s)
{
    Arena a = {0};
    uint32_t n;
    Setting whole = s;
    whole.stage = 0;
    Run x = run_new(&a, &s, 2), y = run_new(&a, &whole, 2);
    EvalTensor *got = generate(&x, &n), *want = generate(&y, &n);
    for (uint32_t i = 0; i < n * s.ranks; i++) {
        size_t bytes = (size_t)type_elems(got[i].type) * sizeof(double);
        n_compared++;
        if (memcmp(got[i].at, want[i % n].at, bytes) != 0)
            FAIL("%s: rank %u generates something else", setting_text(&a, &s), i / n);
    }
    arena_free(&a);
}

static void check_against_one(void)
{
    for (uint32_t n = 2; n <= MAX_RANKS; n++)
        for (int64_t z = 0; z < N_STAGES; z++)
            for (int i = 0; i < N_MODELS; i++)
                check_one_rank(
                    (Setting){.model = models[i], .ranks = n, .stage = z, .accumulate = 1});
    for (int64_t z = 0; z < N_STAGES; z++)
        for (int at_step = 0; at_step < 2; at_step++)
            for (int i = 0; i < N_MODELS; i++)
                check_one_rank((Setting){.model = models[i],
                                         .ranks = 3,
                                         .stage = z,
                                         .accumulate = 2,
                                         .reduce_at_step = at_step});
}

static void check_single(void)
{
    for (int64_t z = 0; z < N_STAGES; z++)
        for (int i = 0; i < N_MODELS; i++)
            check_one_rank((Setting){.model = models[i],
                                     .ranks = 2 + (uint32_t)(z + i) % 2,
                                     .stage = z,
                                     .accumulate = 1 + i % 2,
                                     .is_planned = z > 1,
                                     .is_single = true});
}

static void check_optimizers(void)
{
    static const struct {
        OptimizerKind kind;
        double momentum;
    } optimizers[] = {{OPT_SGD, 0}, {OPT_SGD, 0.9}, {OPT_ADAM, 0}, {OPT_LION, 0}};
    for (size_t i = 0; i < sizeof optimizers / sizeof *optimizers; i++)
        for (int64_t z = 0; z < N_STAGES; z++)
            check_one_rank((Setting){.model = "odd",
                                     .ranks = 2,
                                     .stage = z,
                                     .accumulate = 1,
                                     .optimizer = optimizers[i].kind,
                                     .momentum = optimizers[i].momentum});
}

/* Sums over micro-batches and over ranks are taken in another order where stage 2 reduces each
 * micro-batch: stages 2 and 3 are compared then, and 0 and 1. */
static void check_bits(void)
{
    Setting s = {.model = "odd", .ranks = 3, .accumulate = 1};
    for (int p = PREC_FP32; p <= PREC_FP16; p++)
        for (int mode = AMP_MASTER; mode <= AMP_AUTOCAST; mode++)
            for (int low = 0; low < 4; low++) {
                s.precision = (PrecisionKind)p;
                s.amp = (AmpMode)mode;
                s.grad_low = low & 1;
                s.comm_low = low >> 1;
                check_stages(s, 0);
            }
    check_stages((Setting){.model = "gpt2", .ranks = 4, .accumulate = 1}, 0);
    check_stages((Setting){.model = "mlp", .ranks = 2, .accumulate = 1}, 0);
    s = (Setting){.model = "odd", .ranks = 2, .accumulate = 2, .precision = PREC_BF16};
    check_stages(s, 2);
    s.grad_low = true;
    check_stages(s, 2);
    s.reduce_at_step = true;
    check_stages(s, 0);
    s = (Setting){.model = "odd", .ranks = 2, .accumulate = 1, .keep_layout = true};
    check_stages(s, 0);
    s = (Setting){.model = "odd", .ranks = 2, .accumulate = 1, .persist_below = 1 << 20};
    check_stages(s, 0);
    s = (Setting){
        .model = "odd", .ranks = 2, .accumulate = 1, .precision = PREC_BF16, .pure = true};
    check_stages(s, 0);
}

int main(void)
{
    check_against_one();
    check_single();
    for (int64_t z = 0; z < N_STAGES; z++)
        check_generate((Setting){.model = "gpt2", .ranks = 3, .stage = z, .accumulate = 1});
    check_optimizers();
    check_planned();
    check_bits();
    for (int64_t z = 0; z < N_STAGES; z++)
        for (int p = PREC_FP32; p <= PREC_FP16; p++)
            check_overflow((Setting){.model = "odd",
                                     .ranks = 3,
                                     .stage = z,
                                     .accumulate = 1,
                                     .precision = (PrecisionKind)p});
    printf("%d variables of ranks compared, %d failures\n", n_compared, n_failures);
    return n_failures != 0;
}
