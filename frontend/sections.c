/* sections.c -- what sections share, and section weights.  Others: sections_data.c,
 * sections_train.c. */
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
