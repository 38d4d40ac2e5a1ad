/* sections_train.c -- section train: optimizer, schedule, clip, accumulate, from the file and from
 * -D train.... */
#include "frontend/sections.h"

#include <math.h>
#include <string.h>

typedef enum { TA_NUMBER, TA_BOOL, TA_PAIR } TrainArgKind;

typedef struct TrainFn {
    const char *name;
    int kind; /* OptimizerKind or ScheduleKind */
} TrainFn;

typedef struct TrainArg {
    const char *fn, *name;
    const char *path; /* in -D */
    size_t offset;    /* of the field */
    TrainArgKind kind;
    double otherwise, least, below;
} TrainArg;

#define OPTIMIZER(NAME, KIND) {#NAME, OPT_##KIND},
#define OPTIMIZER_ARG(FN, NAME, FIELD, KIND, OTHERWISE, LEAST, BELOW)
#define SCHEDULE(NAME, KIND)
#define SCHEDULE_ARG(FN, NAME, FIELD, KIND, OTHERWISE, LEAST, BELOW)
static const TrainFn optimizers[] = {
#include "frontend/train.def"
};
#undef OPTIMIZER
#undef SCHEDULE
#define OPTIMIZER(NAME, KIND)
#define SCHEDULE(NAME, KIND) {#NAME, SCHED_##KIND},
static const TrainFn schedules[] = {
#include "frontend/train.def"
};
#undef SCHEDULE
#undef OPTIMIZER_ARG
#undef SCHEDULE_ARG
#define SCHEDULE(NAME, KIND)
#define TRAIN_ARG(OF, FN, NAME, FIELD, KIND, OTHERWISE, LEAST, BELOW)                              \
    {#FN,   #NAME, "train." OF "." #NAME, offsetof(TrainConfig, FIELD), TA_##KIND, OTHERWISE,      \
     LEAST, BELOW},
#define OPTIMIZER_ARG(...) TRAIN_ARG("optimizer", __VA_ARGS__)
#define SCHEDULE_ARG(...)
static const TrainArg optimizer_args[] = {
#include "frontend/train.def"
};
#undef OPTIMIZER_ARG
#undef SCHEDULE_ARG
#define OPTIMIZER_ARG(...)
#define SCHEDULE_ARG(...) TRAIN_ARG("schedule", __VA_ARGS__)
static const TrainArg schedule_args[] = {
#include "frontend/train.def"
};
#undef OPTIMIZER_ARG
#undef SCHEDULE_ARG
#undef OPTIMIZER
#undef SCHEDULE

/* A setting whose value is a function of the table: `optimizer` or `schedule`. */
typedef struct TrainKind {
    const char *name, *path, *otherwise;
    const TrainFn *fns;
    const TrainArg *args;
    uint32_t n_fns, n_args;
} TrainKind;

#define COUNT(TABLE) (uint32_t)(sizeof(TABLE) / sizeof *(TABLE))
static const TrainKind train_kinds[] = {
    {"optimizer", "train.optimizer", "adamw", optimizers, optimizer_args, COUNT(optimizers),
     COUNT(optimizer_args)},
    {"schedule", "train.schedule", "constant", schedules, schedule_args, COUNT(schedules),
     COUNT(schedule_args)},
};

void settings_each(Arena *a, void (*visit)(void *cx, const char *name), void *cx)
{
    for (uint32_t k = 0; k < COUNT(train_kinds); k++) {
        visit(cx, train_kinds[k].path);
        for (uint32_t i = 0; i < train_kinds[k].n_args; i++) visit(cx, train_kinds[k].args[i].path);
    }
    visit(cx, "train.clip");
    visit(cx, "train.accumulate");
    loss_scale_settings_each(a, visit, cx);
}

/* ---- values ---- */

static Status store_number(Elab *e, SrcPos pos, const TrainArg *arg, Val v, double *to)
{
    *to = val_is_number(v) ? val_real_of(v) : NAN;
    if (v.kind == VAL_ERROR) return ZM_FAIL;
    if (*to >= arg->least && *to < arg->below) return ZM_OK;
    if (!val_is_number(v))
        elab_error(e, pos, E_SETTING, "%s takes a number, not %s", arg->name, val_kind_text(v));
    else if (isinf(arg->below))
        elab_error(e, pos, E_SETTING, "%s must be at least %g, not %.12g", arg->name, arg->least,
                   *to);
    else
        elab_error(e, pos, E_SETTING, "%s must be in [%g, %g), not %.12g", arg->name, arg->least,
                   arg->below, *to);
    return ZM_FAIL;
}

static Status store(Elab *e, const TrainArg *arg, const Ast *ast)
{
    char *field = (char *)&e->m->train + arg->offset;
    Val v = elab_expr(e, ast);
    if (v.kind == VAL_ERROR) return ZM_FAIL;
    if (arg->kind == TA_NUMBER) return store_number(e, ast->pos, arg, v, (double *)field);
    if (arg->kind == TA_BOOL) {
        *(bool *)field = v.kind == VAL_BOOL && v.as.i;
        if (v.kind == VAL_BOOL) return ZM_OK;
        elab_error(e, ast->pos, E_SETTING, "%s takes true or false, not %s", arg->name,
                   val_kind_text(v));
        return ZM_FAIL;
    }
    if (v.kind != VAL_TUPLE || v.n != 2) {
        elab_error(e, ast->pos, E_SETTING, "%s takes two numbers: (0.9, 0.95)", arg->name);
        return ZM_FAIL;
    }
    ZM_TRY(store_number(e, ast->pos, arg, v.as.items[0], (double *)field));
    return store_number(e, ast->pos, arg, v.as.items[1], (double *)field + 1);
}

static double second_beta(const char *fn) /* the pair's other default */
{
    return strcmp(fn, "lion") == 0 ? 0.99 : 0.999;
}

static void store_default(Elab *e, const TrainArg *arg)
{
    char *field = (char *)&e->m->train + arg->offset;
    if (arg->kind == TA_BOOL)
        *(bool *)field = arg->otherwise != 0;
    else
        *(double *)field = arg->otherwise;
    if (arg->kind == TA_PAIR) *((double *)field + 1) = second_beta(arg->fn);
}

/* ---- optimizer and schedule ---- */

static const TrainFn *fn_find(Elab *e, const TrainKind *t, const Ast *ast)
{
    const char *name = ast ? ast->text : t->otherwise;
    if (!ast || ast->kind == AST_NAME || ast->kind == AST_CALL)
        for (uint32_t i = 0; i < t->n_fns; i++)
            if (strcmp(t->fns[i].name, name) == 0) return &t->fns[i];
    Str all = {0};
    for (uint32_t i = 0; i < t->n_fns; i++) str_addf(&all, "%s%s", i ? ", " : "", t->fns[i].name);
    elab_error(e, ast ? ast->pos : (SrcPos){0}, E_SETTING, "unknown %s: there are %s", t->name,
               str_c(&all));
    str_free(&all);
    return NULL;
}

/* Argument `name`, or the positional one number `at`. */
static const TrainArg *arg_find(const TrainKind *t, const char *fn, const char *name, uint32_t at)
{
    for (uint32_t i = 0; i < t->n_args; i++) {
        if (strcmp(t->args[i].fn, fn) != 0) continue;
        if (name ? strcmp(t->args[i].name, name) == 0 : at-- == 0) return &t->args[i];
    }
    return NULL;
}

static Status args_read(Elab *e, const TrainKind *t, const char *fn, const Ast *call)
{
    for (uint32_t i = 0; i < call->n; i++) {
        const Ast *a = call->kid[i];
        bool is_named = a->kind == AST_NAMED;
        const TrainArg *arg = arg_find(t, fn, is_named ? a->text : NULL, i);
        if (!arg) {
            elab_error(e, a->pos, E_ARGS,
                       is_named ? "%s has no argument %s" : "%s has no such argument", fn, a->text);
            Str all = {0};
            for (uint32_t k = 0; k < t->n_args; k++)
                if (strcmp(t->args[k].fn, fn) == 0)
                    str_addf(&all, "%s%s", all.n ? ", " : "", t->args[k].name);
            elab_help(e, "%s(%s)", fn, str_c(&all));
            str_free(&all);
            return ZM_FAIL;
        }
        ZM_TRY(store(e, arg, is_named ? a->kid[0] : a));
    }
    return ZM_OK;
}

static Status defines_read(Elab *e, const TrainKind *t, const char *fn, const Ast *ast)
{
    for (uint32_t i = 0; i < t->n_args; i++) {
        const TrainArg *arg = &t->args[i];
        if (strcmp(arg->fn, fn) != 0) continue;
        const Ast *define = define_find(e, arg->path);
        if (define) ZM_TRY(store(e, arg, define));
        double now;
        memcpy(&now, (char *)&e->m->train + arg->offset, sizeof now);
        if (arg->kind != TA_NUMBER || !isnan(now)) continue;
        elab_error(e, ast ? ast->pos : (SrcPos){0}, E_SETTING, "%s needs %s", fn, arg->name);
        elab_help(e, "write %s(%s = ...) or give -D %s=...", fn, arg->name, arg->path);
        return ZM_FAIL;
    }
    return ZM_OK;
}

static Status kind_read(Elab *e, const TrainKind *t, const Ast *section, int *kind)
{
    const Ast *ast = setting_value(e, section, t->name);
    const Ast *define = define_find(e, t->path);
    if (define) ast = define;
    const TrainFn *fn = fn_find(e, t, ast);
    if (!fn) return ZM_FAIL;
    *kind = fn->kind;
    for (uint32_t i = 0; i < t->n_args; i++)
        if (strcmp(t->args[i].fn, fn->name) == 0) store_default(e, &t->args[i]);
    if (ast && ast->kind == AST_CALL) ZM_TRY(args_read(e, t, fn->name, ast));
    return defines_read(e, t, fn->name, ast);
}

/* ---- the section ---- */

static Status clip_read(Elab *e, const Ast *section)
{
    static const TrainArg clip = {"", "clip", "train.clip", offsetof(TrainConfig, clip), TA_NUMBER,
                                  0,  0,      INFINITY};
    const Ast *ast = setting_value(e, section, "clip"), *define = define_find(e, clip.path);
    if (define) ast = define;
    return ast ? store(e, &clip, ast) : ZM_OK;
}

static Status accumulate_read(Elab *e, const Ast *section)
{
    const Ast *ast = setting_value(e, section, "accumulate"),
              *define = define_find(e, "train.accumulate");
    if (define) ast = define;
    e->m->train.accumulate = 1;
    if (!ast) return ZM_OK;
    if (!elab_int(e, ast, "accumulate", &e->m->train.accumulate)) return ZM_FAIL;
    if (e->m->train.accumulate >= 1 && e->m->train.accumulate <= MAX_ACCUMULATE) return ZM_OK;
    elab_error(e, ast->pos, E_SETTING, "accumulate must be in 1..%d, not %lld", MAX_ACCUMULATE,
               (long long)e->m->train.accumulate);
    return ZM_FAIL;
}

static Status train_names(Elab *e, const Ast *section)
{
    static const char *const names[] = {"accumulate", "clip", "loss_scale", "optimizer",
                                        "schedule"};
    Status st = ZM_OK;
    for (uint32_t i = 0; section && i < section->n; i++) {
        bool is_known = false;
        for (uint32_t k = 0; k < COUNT(names); k++)
            is_known |= strcmp(section->kid[i]->text, names[k]) == 0;
        if (is_known) continue;
        elab_error(e, section->kid[i]->pos, E_SECTION,
                   "unknown setting %s: train has optimizer, schedule, clip, "
                   "accumulate and loss_scale",
                   section->kid[i]->text);
        st = ZM_FAIL;
    }
    return st;
}

/* Without momentum nesterov's step is the plain one: not what was meant. */
static Status nesterov_check(Elab *e, const Ast *section)
{
    const TrainConfig *t = &e->m->train;
    if (!t->nesterov || t->momentum > 0) return ZM_OK;
    const Ast *ast = setting_value(e, section, "optimizer");
    elab_error(e, ast ? ast->pos : t->pos, E_SETTING, "nesterov needs a momentum above 0");
    elab_help(e, "write sgd(momentum = 0.9, nesterov = true)");
    return ZM_FAIL;
}

Status train_read(Elab *e)
{
    const Ast *section = section_find(e, "train");
    TrainConfig *t = &e->m->train;
    int optimizer, schedule;
    *t = train_defaults;
    t->pos = section ? section->pos : e->prog->model->pos;
    ZM_TRY(train_names(e, section));
    ZM_TRY(kind_read(e, &train_kinds[0], section, &optimizer));
    ZM_TRY(kind_read(e, &train_kinds[1], section, &schedule));
    t->optimizer = (OptimizerKind)optimizer;
    t->schedule = (ScheduleKind)schedule;
    ZM_TRY(nesterov_check(e, section));
    ZM_TRY(clip_read(e, section));
    ZM_TRY(loss_scale_read(e, section));
    return accumulate_read(e, section);
}
