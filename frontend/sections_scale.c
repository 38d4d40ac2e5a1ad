/* sections_scale.c -- setting loss_scale of section train: a number, or
 * dynamic(init = ..., window = ..., hysteresis = ..., consecutive = ..., min = ..., rule = ...). */
#include "frontend/sections.h"

#include <math.h>
#include <string.h>

#include "frontend/suggest.h"
#include "ir/loss_scale.h"

#define SETTING "train.loss_scale"

/* Expression of each setting: the file's, or that of -D. */
typedef struct Given {
    const Ast *at[N_SCALE_KEY];
} Given;

static const char *define_path(Elab *e, uint32_t i)
{
    return arena_printf(e->arena, SETTING ".%s", scale_keys[i].name);
}

void loss_scale_settings_each(Arena *a, void (*visit)(void *cx, const char *name), void *cx)
{
    visit(cx, SETTING);
    for (uint32_t i = 0; i < N_SCALE_KEY; i++)
        visit(cx, arena_printf(a, SETTING ".%s", scale_keys[i].name));
}

static Status refuse(Elab *e, const Ast *at, const char *name, const char *takes)
{
    elab_error(e, at->pos, E_SETTING, "%s takes %s", name, takes);
    return ZM_FAIL;
}

static Status rule_read(Elab *e, const Ast *at, ScaleRule *rule)
{
    if (!at || (at->kind == AST_NAME && scale_rule_find(at->text, strlen(at->text), rule)))
        return ZM_OK;
    return refuse(e, at, "rule", "deepspeed or gradscaler");
}

static Status store(Elab *e, const ScaleKey *key, const Ast *at, LossScale *to)
{
    void *field = (char *)to + key->offset;
    if (key->kind == SK_RULE) return rule_read(e, at, field);
    Val v = elab_expr(e, at);
    if (v.kind == VAL_ERROR) return ZM_FAIL;
    switch (key->kind) {
    case SK_REAL:
        if (!val_is_number(v)) return refuse(e, at, key->name, "a number");
        *(double *)field = val_real_of(v);
        break;
    case SK_COUNT:
        if (v.kind != VAL_INT) return refuse(e, at, key->name, "an integer");
        *(int64_t *)field = v.as.i;
        break;
    case SK_BOOL:
        if (v.kind != VAL_BOOL) return refuse(e, at, key->name, "true or false");
        *(bool *)field = v.as.i != 0;
        break;
    case SK_RULE: break;
    }
    return ZM_OK;
}

static Status arguments_read(Elab *e, const Ast *call, Given *given)
{
    for (uint32_t i = 0; i < call->n; i++) {
        const Ast *a = call->kid[i];
        const ScaleKey *key =
            a->kind == AST_NAMED ? scale_key_find(a->text, strlen(a->text)) : NULL;
        if (!key) {
            elab_error(e, a->pos, E_ARGS, "dynamic takes named settings only, among them no %s",
                       a->kind == AST_NAMED ? a->text : "other value");
            elab_help(e, "dynamic(init, window, hysteresis, consecutive, min, rule)");
            return ZM_FAIL;
        }
        const Ast **slot = &given->at[key - scale_keys];
        if (*slot) return refuse(e, a, key->name, "one value");
        *slot = a->kid[0];
    }
    return ZM_OK;
}

static Status dynamic_read(Elab *e, const Ast *ast, LossScale *to)
{
    Given given = {0};
    ScaleRule rule = SCALE_DEEPSPEED;
    if (ast->kind == AST_CALL) ZM_TRY(arguments_read(e, ast, &given));
    for (uint32_t i = 0; i < N_SCALE_KEY; i++) {
        const Ast *define = define_find(e, define_path(e, i));
        if (define) given.at[i] = define;
        if (scale_keys[i].kind == SK_RULE) ZM_TRY(rule_read(e, given.at[i], &rule));
    }
    *to = loss_scale_dynamic(rule); /* the other defaults depend on it */
    for (uint32_t i = 0; i < N_SCALE_KEY; i++) {
        if (!given.at[i]) continue;
        ZM_TRY(store(e, &scale_keys[i], given.at[i], to));
        if (!scale_key_is_used(rule, &scale_keys[i]))
            diag_warning(e->m->diag, given.at[i]->pos, W_UNUSED,
                         "rule %s has no %s: the setting is not used", scale_rule_name(rule),
                         scale_keys[i].name);
    }
    return ZM_OK;
}

static Status static_read(Elab *e, const Ast *ast, LossScale *to)
{
    Val v = elab_expr(e, ast);
    if (v.kind == VAL_ERROR) return ZM_FAIL;
    if (!val_is_number(v)) return refuse(e, ast, "loss_scale", "a number or dynamic(...)");
    to->init = val_real_of(v);
    return ZM_OK;
}

Status loss_scale_read(Elab *e, const Ast *section)
{
    const Ast *ast = setting_value(e, section, "loss_scale"), *define = define_find(e, SETTING);
    if (define) ast = define;
    if (!ast) return ZM_OK;
    bool is_dynamic =
        (ast->kind == AST_NAME || ast->kind == AST_CALL) && strcmp(ast->text, "dynamic") == 0;
    LossScale *to = &e->m->train.scale;
    ZM_TRY(is_dynamic ? dynamic_read(e, ast, to) : static_read(e, ast, to));
    const char *why = loss_scale_refusal(e->arena, to);
    if (!why) return ZM_OK;
    elab_error(e, ast->pos, E_SETTING, "loss_scale: %s", why);
    return ZM_FAIL;
}
