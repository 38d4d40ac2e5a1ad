/* loss_scale.c -- 1,000 random patterns of overflow under random settings, for each rule: the
 * step's IR in the interpreter against plain models of DeepSpeed's and PyTorch's scalers, which are
 * written as those are (an iteration number and the last overflow's; a tracker).  Beside the
 * scaler: the parameter moves in clean steps only, and as far as with scale 1 (bit for bit when the
 * scales are powers of two), also when the scale grows. */
#include <math.h>
#include <string.h>

#include "ir/eval/eval.h"
#include "ir/loss_scale.h"
#include "passes/pass.h"

enum { N_PATTERNS = 1000, MAX_STEPS = 40 };

/* loss_i = w_i x_i: the gradient is not finite exactly where x is not. */
static const char text[] = "module \"m\" {batch = 1, items = 2}\n"
                           "train {optimizer = sgd, lr = 0.5}\n"
                           "var @w : f32[2] {kind = param}\n"
                           "func @train(%x: f32[2], %weight: f32[2]) {\n"
                           "  %w = read @w : f32[2]\n"
                           "  %loss = mul %w, %x : f32[2]\n"
                           "  return %loss, %weight {names = \"loss,weight\"}\n"
                           "}\n";

typedef enum { CLEAN, OVERFLOW, EMPTY, N_EVENT } Event;

static uint32_t draw(uint64_t *state, uint32_t n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33) % n;
}

/* ---- the models ---- */

typedef struct Model {
    LossScale cfg;
    float scale;
    int64_t hysteresis, iteration, last, tracker;
    bool is_exhausted;
} Model;

static float doubled(float s)
{
    return isfinite(2 * s) ? 2 * s : s;
}

static void deepspeed_step(Model *m, bool is_overflow)
{
    const LossScale *c = &m->cfg;
    if (is_overflow) {
        if (c->hysteresis == 1 || m->hysteresis == 1) {
            if (m->scale == (float)c->min) m->is_exhausted = true;
            m->scale = fmaxf(m->scale / 2, (float)c->min);
        } else
            m->hysteresis--;
        m->last = m->iteration;
    } else {
        if (c->consecutive) m->hysteresis = c->hysteresis;
        int64_t stable = m->iteration - m->last - 1;
        if (stable > 0 && stable % c->window == 0) {
            if (!c->consecutive) m->hysteresis = c->hysteresis;
            m->scale = doubled(m->scale);
        }
    }
    m->iteration++;
}

static void gradscaler_step(Model *m, bool is_overflow)
{
    if (is_overflow) {
        m->scale *= 0.5f;
        m->tracker = 0;
    } else if (m->tracker + 1 == m->cfg.window) {
        m->scale = doubled(m->scale);
        m->tracker = 0;
    } else
        m->tracker++;
}

/* ---- the program ---- */

typedef struct Bench {
    Arena arena;
    SourceSet sources;
    Diag diag;
    Module *m;
    Eval *eval;
    const Func *last;
} Bench;

static void bench_open(Bench *b, const LossScale *cfg)
{
    *b = (Bench){0};
    b->sources.arena = &b->arena;
    b->diag = (Diag){.arena = &b->arena, .sources = &b->sources};
    b->m = module_parse(&b->arena, &b->sources, &b->diag, "m.zir", text, strlen(text));
    ZM_CHECK(b->m != NULL);
    b->m->train.scale = *cfg;
    PipelineRun run = {.check_changed = true};
    if (pipeline_run(b->m, "autodiff,loss_scale,accumulate", &run) != ZM_OK) {
        diag_print(&b->diag, stderr);
        ZM_CHECK(!"the pipeline fails");
    }
    b->eval = eval_new(&b->arena, b->m);
    b->last = func_find(b->m, "last");
}

static double *scalar(const Bench *b, const char *name)
{
    VarId v = var_find(b->m, name);
    return var_ok(v) ? eval_var(b->eval, v) : NULL;
}

static void bench_step(Bench *b, Event event)
{
    double x[2] = {0.75, event == OVERFLOW ? INFINITY : -1.25};
    double weight[2] = {event != EMPTY, event != EMPTY};
    EvalTensor in[2] = {{value_type(b->last, b->last->params.at[0]), x},
                        {value_type(b->last, b->last->params.at[1]), weight}};
    ZM_CHECK(eval_run(b->eval, b->last, in, &b->arena, NULL) == ZM_OK);
}

/* ---- the comparison ---- */

static LossScale random_settings(uint64_t *state, ScaleRule rule, bool is_binary)
{
    LossScale c = loss_scale_dynamic(rule);
    c.init = ldexp(is_binary ? 1 : 1 + draw(state, 1000) / 1000.0, (int)draw(state, 30) - 4);
    c.min = ldexp(c.init, -(int)draw(state, 8));
    if (draw(state, 20) == 0) c.init = 0x1p126; /* growth stops at f32's range */
    c.window = 1 + draw(state, 6);
    c.hysteresis = 1 + draw(state, 4);
    c.consecutive = draw(state, 2);
    return c;
}

static Event random_event(uint64_t *state, uint32_t percent_bad)
{
    if (draw(state, 100) < percent_bad) return OVERFLOW;
    return draw(state, 12) == 0 ? EMPTY : CLEAN;
}

static void check_state(const Bench *b, const Model *m, float used)
{
    ZM_CHECK(*scalar(b, "loss_scale") == m->scale);
    ZM_CHECK(*scalar(b, "loss_scale_used") == used);
    ZM_CHECK(*scalar(b, "hysteresis") == (double)m->hysteresis);
    const double *exhausted = scalar(b, "scale_exhausted");
    ZM_CHECK(exhausted ? (*exhausted != 0) == m->is_exhausted : m->cfg.rule == SCALE_GRADSCALER);
}

/* Steps until the pattern or the scaler ends; returns the number of growths. */
static int run_pattern(ScaleRule rule, uint64_t seed, int *n_exhausted)
{
    uint64_t state = seed * 2654435761u + 12345;
    bool is_binary = draw(&state, 2);
    LossScale cfg = random_settings(&state, rule, is_binary);
    uint32_t percent_bad = draw(&state, 4) * 30;
    Bench scaled, plain;
    bench_open(&scaled, &cfg);
    bench_open(&plain, &train_defaults.scale);
    Model m = {.cfg = cfg, .scale = (float)cfg.init, .hysteresis = cfg.hysteresis, .last = -1};
    int n_grown = 0;
    for (int step = 0; step < MAX_STEPS && !m.is_exhausted; step++) {
        Event event = random_event(&state, percent_bad);
        float used = m.scale;
        double before = *scalar(&scaled, "w"), updates = *scalar(&scaled, "update");
        bench_step(&scaled, event);
        bench_step(&plain, event);
        if (event != EMPTY)
            (rule == SCALE_DEEPSPEED ? deepspeed_step : gradscaler_step)(&m, event == OVERFLOW);
        n_grown += m.scale > used;
        check_state(&scaled, &m, used);
        ZM_CHECK(*scalar(&scaled, "update") == updates + (event == CLEAN));
        ZM_CHECK((*scalar(&scaled, "w") != before) == (event == CLEAN));
        ZM_CHECK(!is_binary || used < 0x1p-100 || *scalar(&scaled, "w") == *scalar(&plain, "w"));
    }
    *n_exhausted += m.is_exhausted;
    arena_free(&scaled.arena);
    arena_free(&plain.arena);
    return n_grown;
}

/* A scale that halving has brought to 0 leaves nothing to divide by: the step is skipped. */
static void check_vanished(void)
{
    LossScale cfg = loss_scale_dynamic(SCALE_GRADSCALER);
    cfg.init = 0x1p-120;
    Bench b;
    bench_open(&b, &cfg);
    for (int step = 0; step < 40; step++) bench_step(&b, OVERFLOW);
    ZM_CHECK(*scalar(&b, "loss_scale") == 0);
    bench_step(&b, CLEAN);
    ZM_CHECK(*scalar(&b, "skipped") == 1 && *scalar(&b, "w") == 0);
    arena_free(&b.arena);
}

int main(void)
{
    for (int rule = SCALE_DEEPSPEED; rule <= SCALE_GRADSCALER; rule++) {
        int n_grown = 0, n_exhausted = 0;
        for (uint64_t seed = 0; seed < N_PATTERNS; seed++)
            n_grown += run_pattern((ScaleRule)rule, seed, &n_exhausted);
        printf("%s: %d patterns, %d growths, %d ended at the minimum\n",
               scale_rule_name((ScaleRule)rule), N_PATTERNS, n_grown, n_exhausted);
        ZM_CHECK(n_grown > N_PATTERNS);
        ZM_CHECK(rule == SCALE_GRADSCALER || n_exhausted > N_PATTERNS / 20);
    }
    check_vanished();
    return 0;
}
