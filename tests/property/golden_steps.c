/* golden_steps.c -- frontend, autodiff, clip, schedule and optimizer against PyTorch, all in f64:
 * the interpreter runs the passes' output on the cases of tests/golden (README there), before any
 * kernel exists.  A number that is wrong here is wrong in the IR; one that is right here and wrong
 * in an executable is the back end's or the runtime's.
 *
 * Tolerances: both sides compute in f64.  Golden gradients are stored in f32: each element is off
 * by at most 6e-8 of itself.  PyTorch's run has the learning rate rounded to f32, the expanded
 * update its constants (betas, eps, decay): 6e-8 of a step each, at most 20 times that, 1.2e-6, of
 * what 20 steps change a loss by, which is less than the loss. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/frontend.h"
#include "ir/base/file.h"
#include "ir/base/program.h"
#include "ir/eval/eval.h"
#include "passes/pass.h"

#define TOL_GRAD 1e-7
#define TOL_STEP 1e-6
enum { N_STEPS = 20, MAX_DEFINES = 16, MAX_INPUTS = 4 };

static int n_failures;

#define FAIL(...) (n_failures++, fprintf(stderr, __VA_ARGS__), fputc('\n', stderr))

/* ---- the case: JSON as make_golden.py writes it ---- */

typedef struct Case {
    const char *name, *text, *dir;
    Define defines[MAX_DEFINES];
    uint32_t n_defines;
    int64_t accumulate;
} Case;

static const char *path_in(Arena *a, const char *dir, const char *file)
{
    return arena_printf(a, "%s/%s", dir, file);
}

static char *read_all(Arena *a, const char *path, size_t *n)
{
    char *text;
    if (file_read(a, path, &text, n) != 0) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    return text;
}

/* After "key": ; NULL when absent. */
static const char *json_find(const char *text, const char *key)
{
    char quoted[80];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *at = strstr(text, quoted);
    return at ? at + strlen(quoted) + strspn(at + strlen(quoted), " \n") : NULL;
}

/* The string at *at, which moves past it. */
static char *json_string(Arena *a, const char **at)
{
    const char *from = strchr(*at, '"') + 1, *to = strchr(from, '"');
    *at = to + 1;
    return arena_strndup(a, from, (size_t)(to - from));
}

static char *case_string(Arena *a, const Case *c, const char *key)
{
    const char *at = json_find(c->text, key);
    return json_string(a, &at);
}

static double json_number(const char *text, const char *key, int index)
{
    const char *at = json_find(text, key) + 1;
    for (int i = 0; i < index; i++) at = strchr(at, ',') + 1;
    return strtod(at, NULL);
}

static Case case_read(Arena *a, const char *dir, const char *name)
{
    size_t n;
    Case c = {.name = name, .dir = dir, .accumulate = 1};
    c.text = read_all(a, path_in(a, dir, arena_printf(a, "%s.json", name)), &n);
    const char *at = json_find(c.text, "zmc"), *end = strchr(at, ']');
    while (strchr(at, '"') < end) {
        char *word = json_string(a, &at), *value = json_string(a, &at);
        if (strcmp(word, "--accumulate") == 0) {
            c.accumulate = atoll(value);
            continue;
        }
        char *eq = strchr(value, '=');
        *eq = '\0';
        ZM_CHECK(c.n_defines < MAX_DEFINES);
        c.defines[c.n_defines++] = (Define){value, eq + 1, false};
    }
    return c;
}

/* ---- safetensors: the few forms that make_golden.py writes ---- */

typedef struct Tensors {
    const char *text; /* header, NUL-terminated */
    const char *data;
} Tensors;

static Tensors tensors_read(Arena *a, const char *path)
{
    size_t n;
    uint64_t size;
    char *raw = read_all(a, path, &n);
    memcpy(&size, raw, sizeof size);
    return (Tensors){arena_strndup(a, raw + 8, (size_t)size), raw + 8 + size};
}

/* Element e of a tensor; f32 or i32. */
static double tensors_at(const Tensors *t, const char *name, int64_t e)
{
    const char *info = json_find(t->text, name);
    ZM_CHECK(info != NULL);
    const char *dtype = json_find(info, "dtype"), *offsets = json_find(info, "data_offsets");
    const char *at = t->data + strtoll(offsets + 1, NULL, 10) + 4 * e;
    float f;
    int32_t i;
    memcpy(&f, at, sizeof f);
    memcpy(&i, at, sizeof i);
    return strncmp(dtype, "\"F32\"", 5) == 0 ? (double)f : (double)i;
}

static int64_t tensors_rows(const Tensors *t, const char *name)
{
    return strtoll(json_find(json_find(t->text, name), "shape") + 1, NULL, 10);
}

/* ---- running ---- */

typedef struct Run {
    Arena *a;
    const Case *c;
    Module *m;
    Eval *e;
    const char *tokens; /* or, when NULL: */
    size_t n_tokens;
    Tensors data;
} Run;

static Module *compile(Arena *a, Case *c, const char *models, Diag *diag, const char *passes)
{
    size_t n;
    const char *model = case_string(a, c, "model");
    char *text = read_all(a, path_in(a, models, model), &n);
    FrontendOptions opt = {.defines = c->defines, .n_defines = c->n_defines};
    Module *m = frontend_compile(a, diag->sources, diag, model, text, n, &opt);
    if (m) m->train.accumulate = c->accumulate;
    PipelineRun run = {.opt = {.ranks = 1, .bucket_bytes = 1 << 16}, .check_changed = true};
    if (!m || pipeline_run(m, passes, &run) != ZM_OK) {
        diag_print(diag, stderr);
        exit(1);
    }
    return m;
}

static Run run_new(Arena *a, const Case *c, Module *m)
{
    Run r = {.a = a, .c = c, .m = m, .e = eval_new(a, m)};
    const char *data = path_in(a, c->dir, case_string(a, c, "data"));
    Tensors weights = tensors_read(a, path_in(a, c->dir, case_string(a, c, "load")));
    bool has_prefix = strstr(weights.text, "\"transformer.") != NULL;
    r.e->is_unrounded = true;
    if (strstr(data, ".safetensors"))
        r.data = tensors_read(a, data);
    else
        r.tokens = read_all(a, data, &r.n_tokens);
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *v = &m->vars.at[i];
        if (v->kind != VK_PARAM || v->is_bucket) continue;
        double *at = eval_var(r.e, (VarId){i});
        const char *name = arena_printf(a, "%s%s", has_prefix ? "transformer." : "", v->name);
        for (int64_t e = 0; e < type_elems(v->type); e++) at[e] = tensors_at(&weights, name, e);
    }
    return r;
}

/* Element of input `name` at (row b, position t) of the batch whose first sample is `first`. */
static double input_at(const Run *r, const char *name, int64_t sample, int64_t t, int64_t width)
{
    if (!r->tokens) {
        int64_t n = tensors_rows(&r->data, name);
        return tensors_at(&r->data, name, sample % n * width + t);
    }
    int64_t n = ((int64_t)r->n_tokens - 1) / width;
    return (unsigned char)r->tokens[sample % n * width + t + (strcmp(name, "targets") == 0)];
}

static EvalTensor *run_function(Run *r, const char *function, int64_t batch, uint32_t *n)
{
    Func *f = func_find(r->m, function);
    ZM_CHECK(f != NULL && f->params.n <= MAX_INPUTS);
    EvalTensor in[MAX_INPUTS];
    for (uint32_t i = 0; i < f->params.n; i++) {
        const Value *v = value_cget(f, f->params.at[i]);
        in[i] = eval_tensor(r->a, v->type);
        int64_t rows = v->type->dim[0], width = type_elems(v->type) / rows;
        for (int64_t e = 0; e < rows * width; e++)
            in[i].at[e] = input_at(r, v->name, batch * rows + e / width, e % width, width);
    }
    *n = eval_n_results(f);
    EvalTensor *out = ARENA_ARRAY(r->a, EvalTensor, *n + 1);
    if (eval_run(r->e, f, in, r->a, out) != ZM_OK)
        FAIL("%s: @%s does not run", r->c->name, function);
    return out;
}

/* ---- checks ---- */

static void check_grad(const Run *r, const Tensors *want, const char *name, EvalTensor got,
                       double *sum)
{
    double error = 0, norm = 0;
    for (int64_t e = 0; e < type_elems(got.type); e++) {
        double w = tensors_at(want, name, e);
        error += (got.at[e] - w) * (got.at[e] - w);
        norm += w * w;
    }
    *sum += norm;
    /* Gradients that are zero in exact arithmetic are compared with the whole. */
    double whole = json_number(r->c->text, "grad_norms", 0);
    if (!(sqrt(error) <= TOL_GRAD * fmax(sqrt(norm), 1e-3 * whole)))
        FAIL("%s: gradient of %s: norm %g, error %g", r->c->name, name, sqrt(norm), sqrt(error));
}

static void check_gradients(Arena *a, Case *c, const char *models)
{
    SourceSet sources = {.arena = a};
    Diag diag = {.arena = a, .sources = &sources};
    Run r = run_new(a, c, compile(a, c, models, &diag, "canon,cse,autodiff"));
    Tensors want = tensors_read(a, path_in(a, c->dir, case_string(a, c, "grads")));
    const Func *f = func_find(r.m, "train");
    uint32_t n, n_grads = 0;
    double sum = 0, norm = json_number(c->text, "grad_norms", 0);
    EvalTensor *out = run_function(&r, "train", 0, &n);
    for (uint32_t i = 0; i < n; i++) {
        const char *name = eval_result_name(a, f, i);
        if (strncmp(name, "grad.", 5) != 0) continue;
        n_grads++;
        check_grad(&r, &want, name + 5, out[i], &sum);
    }
    if (n_grads == 0 || !(fabs(sqrt(sum) - norm) <= TOL_GRAD * norm))
        FAIL("%s: %u gradients of norm %.9g together, want %.9g", c->name, n_grads, sqrt(sum),
             norm);
}

static void check_scalar(const Run *r, const char *var, const char *key, int step)
{
    VarId v = var_find(r->m, var);
    double want = json_number(r->c->text, key, step),
           got = var_ok(v) ? *eval_var(r->e, v) : (double)NAN;
    if (!(fabs(got - want) <= TOL_STEP * fabs(want)))
        FAIL("%s: step %d: %s is %.12g, want %.12g", r->c->name, step, var, got, want);
}

static void check_steps(Arena *a, Case *c, const char *models, const char *passes)
{
    SourceSet sources = {.arena = a};
    Diag diag = {.arena = a, .sources = &sources};
    Run r = run_new(a, c, compile(a, c, models, &diag, passes));
    int before = n_failures;
    for (int step = 0; step < N_STEPS && n_failures == before; step++) {
        uint32_t n;
        for (int64_t micro = 0; micro < c->accumulate; micro++)
            run_function(&r, micro + 1 < c->accumulate ? "micro" : "last",
                         step * c->accumulate + micro, &n);
        check_scalar(&r, ZMP_S_LOSS, "losses", step);
        check_scalar(&r, ZMP_S_GRAD_NORM, "grad_norms", step);
        check_scalar(&r, ZMP_S_LR, "lrs", step);
    }
    if (n_failures > before) fprintf(stderr, "%s: passes %s\n", c->name, passes);
}

static const char before_bucket[] = "canon,cse,autodiff,canon,cse,dce,accumulate";
static const char expanded[] =
    "canon,cse,autodiff,canon,cse,dce,accumulate,bucket,expand,canon,cse,dce";

static void check_case(const char *dir, const char *models, const char *name, bool has_grads)
{
    Arena a = {0};
    Case c = case_read(&a, dir, name);
    if (has_grads) check_gradients(&a, &c, models);
    check_steps(&a, &c, models, before_bucket);
    check_steps(&a, &c, models, expanded);
    arena_free(&a);
}

int main(void)
{
    Arena a = {0};
    const char *slash = strrchr(__FILE__, '/');
    const char *here = slash ? arena_strndup(&a, __FILE__, (size_t)(slash - __FILE__)) : ".";
    const char *dir = path_in(&a, here, "../golden"), *models = path_in(&a, here, "../../models");
    check_case(dir, models, "mlp", true);
    check_case(dir, models, "mlp_adam", false);
    check_case(dir, models, "mlp_sgd", false);
    check_case(dir, models, "mlp_nesterov", false);
    check_case(dir, models, "gpt2", true);
    check_case(dir, models, "gpt2_accumulate", false);
    printf("%s: %d failures\n", n_failures ? "FAIL" : "PASS", n_failures);
    arena_free(&a);
    return n_failures != 0;
}
