/* sections.c -- sections data and weights.  Section train: sections_train.c. */
#include "frontend/sections.h"
#include "frontend/suggest.h"

#include <string.h>

static const char *const section_names[] = {"data", "train", "weights"};
enum { N_SECTION = sizeof section_names / sizeof *section_names };

const Ast *section_find(const Elab *e, const char *name)
{
    for (uint32_t i = 0; i < e->prog->sections.n; i++)
        if (strcmp(e->prog->sections.at[i]->text, name) == 0) return e->prog->sections.at[i];
    return NULL;
}

const Ast *setting_value(Elab *e, const Ast *section, const char *name)
{
    const Ast *found = NULL;
    for (uint32_t i = 0; section && i < section->n; i++) {
        const Ast *s = section->kid[i];
        if (strcmp(s->text, name) != 0) continue;
        if (found) {
            elab_error(e, s->pos, E_SECTION, "setting %s is given twice", name);
            elab_note(e, found->pos, "the first is here");
        }
        found = s;
    }
    if (!found) return NULL;
    if (found->kid[0]->n == 1 && !found->kid[1]) return found->kid[0]->kid[0];
    elab_error(e, found->pos, E_SETTING, "setting %s takes one value", name);
    return NULL;
}

/* ---- data ---- */

static int input_index(Elab *e, const Ast *ast)
{
    const Ast *args = e->prog->model->kid[0];
    for (uint32_t i = 0; i < args->n; i++)
        if (ast->kind == AST_NAME && args->kid[i]->text == ast->text) return (int)i;
    elab_error(e, ast->pos, E_DATA, "the source fills inputs of the model, and this is none");
    Suggest s = suggest_new(ast->text);
    for (uint32_t i = 0; i < args->n; i++) suggest_try(&s, args->kid[i]->text);
    if (s.best) elab_help(e, "did you mean %s?", s.best);
    return -1;
}

static Status feed_set(Elab *e, const Ast *ast, FeedKind kind, bool *is_fed)
{
    int i = input_index(e, ast);
    if (i < 0) return ZM_FAIL;
    if (is_fed[i]) {
        elab_error(e, ast->pos, E_DATA, "input %s is filled twice", ast->text);
        return ZM_FAIL;
    }
    is_fed[i] = true;
    e->m->feeds.at[i].kind = kind;
    return ZM_OK;
}

/* Tokens of a text and, as targets, the tokens that follow them. */
static Status data_causal(Elab *e, const Ast *source, const Ast *values, bool *is_fed)
{
    if (values->n != 2) {
        elab_error(e, source->pos, E_DATA, "causal(tokens, targets) fills two inputs");
        return ZM_FAIL;
    }
    ZM_TRY(feed_set(e, values->kid[0], FEED_TOKENS, is_fed));
    ZM_TRY(feed_set(e, values->kid[1], FEED_TARGETS, is_fed));
    const Type *t[2];
    const Func *f = func_find(e->m, "train");
    for (int i = 0; i < 2; i++) t[i] = value_type(f, f->params.at[input_index(e, values->kid[i])]);
    if (t[0] == t[1] && t[0]->dtype == DT_I32 && t[0]->rank == 2) return ZM_OK;
    elab_error(e, source->pos, E_DATA,
               "causal fills two inputs of one type int[B, T], not %s and %s",
               type_text(e->arena, t[0]), type_text(e->arena, t[1]));
    return ZM_FAIL;
}

static Status data_tensors(Elab *e, const Ast *source, const Ast *values, bool *is_fed)
{
    (void)source;
    for (uint32_t i = 0; i < values->n; i++)
        ZM_TRY(feed_set(e, values->kid[i], FEED_TENSOR, is_fed));
    return ZM_OK;
}

typedef struct DataSource {
    const char *name;
    Status (*read)(Elab *e, const Ast *source, const Ast *values, bool *is_fed);
} DataSource;
static const DataSource data_sources[] = {{"causal", data_causal}, {"tensors", data_tensors}};

static Status data_source(Elab *e, const Ast *section, bool *is_fed)
{
    const Ast *s = section->n ? section->kid[0] : section;
    if (section->n != 1) {
        elab_error(e, s->pos, E_DATA, "the data section names one source, not %u", section->n);
        return ZM_FAIL;
    }
    for (size_t i = 0; i < sizeof data_sources / sizeof *data_sources; i++)
        if (strcmp(s->text, data_sources[i].name) == 0)
            return data_sources[i].read(e, s, s->kid[0], is_fed);
    elab_error(e, s->pos, E_DATA, "unknown data source %s", s->text);
    elab_help(e, "there are causal(tokens, targets) and tensors(x, ...)");
    return ZM_FAIL;
}

/* Without the section every input is a tensor of its name. */
static Status data_read(Elab *e)
{
    const Ast *args = e->prog->model->kid[0], *section = section_find(e, "data");
    for (uint32_t i = 0; i < args->n; i++) {
        Feed feed = {.input = args->kid[i]->text, .kind = FEED_TENSOR};
        VEC_PUSH(e->m->arena, &e->m->feeds, feed);
    }
    if (!section) return ZM_OK;
    bool *is_fed = ARENA_ARRAY(e->arena, bool, args->n);
    ZM_TRY(data_source(e, section, is_fed));
    for (uint32_t i = 0; i < args->n; i++) {
        if (is_fed[i]) continue;
        elab_error(e, section->pos, E_DATA, "nothing fills input %s", args->kid[i]->text);
        elab_note(e, args->kid[i]->pos, "%s is declared here", args->kid[i]->text);
        return ZM_FAIL;
    }
    return ZM_OK;
}

/* ---- weights ---- */

typedef struct WeightForm {
    const char *name;
    WeightRuleKind kind;
    bool has_target;
} WeightForm;
static const WeightForm weight_forms[] = {
    {"strip", WR_STRIP, false},
    {"ignore", WR_IGNORE, false},
    {"alias", WR_ALIAS, true},
    {"rename", WR_RENAME, true},
};

static Status weight_target(Elab *e, const Ast *to, const char **path)
{
    *path = to->text;
    if (to->kind != AST_NAME && to->kind != AST_STRING) {
        elab_error(e, to->pos, E_SETTING, "a parameter's path is needed here");
        return ZM_FAIL;
    }
    if (var_ok(var_find(e->m, to->text))) return ZM_OK;
    elab_error(e, to->pos, E_WEIGHTS, "the model has no parameter %s", to->text);
    Suggest s = suggest_new(to->text);
    for (uint32_t i = 1; i < e->m->vars.n; i++) suggest_try(&s, e->m->vars.at[i].name);
    if (s.best) elab_help(e, "did you mean %s?", s.best);
    return ZM_FAIL;
}

static Status weight_rule(Elab *e, const Ast *s, const WeightForm *form)
{
    WeightRule rule = {.kind = form->kind};
    const Ast *values = s->kid[0];
    if (form->has_target != (s->kid[1] != NULL) || values->n == 0 ||
        (form->has_target && values->n != 1)) {
        elab_error(e, s->pos, E_SETTING,
                   form->has_target ? "%s \"published name\" = parameter" : "%s \"name\", ...",
                   form->name);
        return ZM_FAIL;
    }
    if (form->has_target) ZM_TRY(weight_target(e, s->kid[1], &rule.to));
    for (uint32_t i = 0; i < values->n; i++) {
        if (values->kid[i]->kind != AST_STRING || !*values->kid[i]->text) {
            elab_error(e, values->kid[i]->pos, E_SETTING,
                       "%s takes names of the published file, in quotes", form->name);
            return ZM_FAIL;
        }
        rule.from = values->kid[i]->text;
        VEC_PUSH(e->m->arena, &e->m->weight_rules, rule);
    }
    return ZM_OK;
}

static Status weights_setting(Elab *e, const Ast *s)
{
    for (size_t i = 0; i < sizeof weight_forms / sizeof *weight_forms; i++)
        if (strcmp(s->text, weight_forms[i].name) == 0) return weight_rule(e, s, &weight_forms[i]);
    elab_error(e, s->pos, E_SECTION,
               "unknown setting %s: weights has strip, ignore, alias and rename", s->text);
    return ZM_FAIL;
}

static Status weights_read(Elab *e)
{
    const Ast *section = section_find(e, "weights");
    Status st = ZM_OK;
    for (uint32_t i = 0; section && i < section->n; i++)
        if (weights_setting(e, section->kid[i]) != ZM_OK) st = ZM_FAIL;
    return st;
}

/* ---- all ---- */

static void section_check(Elab *e, const Ast *section)
{
    Suggest s = suggest_new(section->text);
    const Ast *first = section_find(e, section->text);
    if (first != section) {
        elab_error(e, section->pos, E_SECTION, "section %s is given twice", section->text);
        elab_note(e, first->pos, "the first is here");
    }
    for (int i = 0; i < N_SECTION; i++) {
        if (strcmp(section->text, section_names[i]) == 0) return;
        suggest_try(&s, section_names[i]);
    }
    elab_error(e, section->name_pos, E_SECTION,
               "unknown section %s: there are data, train and weights", section->text);
    if (s.best) elab_help(e, "did you mean %s?", s.best);
}

Status sections_read(Elab *e)
{
    uint32_t n_errors = e->diag->n_errors;
    /* Settings see the file's dims and consts; ops that a wrong one makes go nowhere. */
    e->scope.n = e->frame = e->n_globals;
    e->f = func_new(e->m, "");
    for (uint32_t i = 0; i < e->prog->sections.n; i++) section_check(e, e->prog->sections.at[i]);
    Status train = train_read(e), data = data_read(e), weights = weights_read(e);
    if (train != ZM_OK || data != ZM_OK || weights != ZM_OK) return ZM_FAIL;
    return e->diag->n_errors == n_errors ? ZM_OK : ZM_FAIL;
}
