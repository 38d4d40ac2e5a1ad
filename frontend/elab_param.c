/* elab_param.c -- parameters: their paths, initial values and reads. */
#include "frontend/elab.h"

#include <string.h>

static uint64_t path_key(const char *path) /* interned */
{
    return (uint64_t)(uintptr_t)path;
}

/* One read of each parameter in a function. */
static Val param_value(Elab *e, VarId v, SrcPos pos)
{
    while (e->reads.n <= v.i) VEC_PUSH(e->arena, &e->reads, ((ValueId){0}));
    if (!value_ok(e->reads.at[v.i])) {
        elab_at(e, pos);
        e->reads.at[v.i] = build_read(&e->b, v);
    }
    return val_tensor(e->reads.at[v.i]);
}

bool param_find(Elab *e, const char *name, Val *out)
{
    if (!e->inst) return false;
    const char *path = *e->inst->path ? arena_printf(e->arena, "%s.%s", e->inst->path, name) : name;
    uint32_t i = map_get(e->param_pos, path_key(module_str(e->m, path)));
    if (i == MAP_NONE) return false;
    *out = param_value(e, (VarId){i}, loc_pos(e->m, var_cget(e->m, (VarId){i})->loc));
    return true;
}

/* ---- initial value ---- */

typedef struct InitFn {
    const char *name;
    InitKind kind;
    bool has_value;
} InitFn;

static const InitFn init_fns[] = {
    {"zeros", INIT_ZEROS, false},  {"ones", INIT_ONES, false},      {"constant", INIT_CONST, true},
    {"normal", INIT_NORMAL, true}, {"uniform", INIT_UNIFORM, true},
};

static Status init_eval(Elab *e, const Ast *init, Var *v)
{
    bool is_call = init->kind == AST_CALL;
    for (size_t i = 0; i < sizeof init_fns / sizeof *init_fns; i++) {
        const InitFn *fn = &init_fns[i];
        if ((!is_call && init->kind != AST_NAME) || strcmp(init->text, fn->name) != 0) continue;
        if (is_call != fn->has_value ||
            (is_call && (init->n != 1 || init->kid[0]->kind == AST_NAMED)))
            break;
        v->init = fn->kind;
        if (!is_call) return ZM_OK;
        Val a = elab_expr(e, init->kid[0]);
        if (a.kind == VAL_ERROR) return ZM_FAIL;
        v->init_a = val_is_number(a) ? val_real_of(a) : -1;
        bool is_spread = fn->kind == INIT_NORMAL || fn->kind == INIT_UNIFORM;
        if (val_is_number(a) && (!is_spread || v->init_a >= 0)) return ZM_OK;
        elab_error(e, init->kid[0]->pos, E_PARAM, "%s takes a number%s, not %s", fn->name,
                   is_spread ? " that is not negative" : "", elab_text(e, a));
        return ZM_FAIL;
    }
    if (init->kind == AST_ERROR) return ZM_FAIL;
    elab_error(e, init->pos, E_PARAM, "unknown initial value");
    elab_help(e, "there are normal(std), uniform(bound), constant(value), zeros and ones");
    return ZM_FAIL;
}

/* ---- declaration ---- */

static bool path_is_good(const char *path)
{
    const char *p = path;
    while ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
           *p == '_' || *p == '.')
        p++;
    size_t n = strlen(path);
    return n && !*p && path[0] != '.' && path[n - 1] != '.' && !strstr(path, "..");
}

static const char *param_path(Elab *e, const Ast *param, bool *is_placed)
{
    *is_placed = false;
    for (uint32_t i = 2; i < param->n; i++) {
        const Ast *at = param->kid[i];
        if (at->kind != AST_AT) continue;
        *is_placed = true;
        if (path_is_good(at->text)) return at->text;
        elab_error(e, at->pos, E_PARAM,
                   "\"%s\" is not a parameter path: names joined by single dots", at->text);
        return NULL;
    }
    const char *up = e->inst->path;
    return *up ? module_str(e->m, arena_printf(e->arena, "%s.%s", up, param->text)) : param->text;
}

static bool has_flag(const Ast *param, const char *flag)
{
    for (uint32_t i = 2; i < param->n; i++)
        if (param->kid[i]->kind == AST_NAME && strcmp(param->kid[i]->text, flag) == 0) return true;
    return false;
}

static Status param_eval(Elab *e, const Ast *param, Var *v, bool *is_placed)
{
    v->name = param_path(e, param, is_placed);
    v->kind = VK_PARAM;
    v->has_decay = !has_flag(param, "no_decay");
    if (!v->name) return ZM_FAIL;
    ZM_TRY(type_eval(e, param->kid[0], &v->type));
    if (v->type->dtype == DT_F32) return init_eval(e, param->kid[1], v);
    elab_error(e, param->kid[0]->pos, E_PARAM, "parameter %s is %s: parameters are float tensors",
               param->text, type_text(e->arena, v->type));
    return ZM_FAIL;
}

/* A path that is in use must be the same parameter: the next walk of this declaration, or one
 * placed by `at`. */
static Status param_agree(Elab *e, const Ast *param, const Var *v, const Var *have, bool is_placed)
{
    SrcPos first = loc_pos(e->m, have->loc);
    bool is_same_place = first.line == param->pos.line && first.col == param->pos.col;
    if (!is_same_place && !is_placed) {
        elab_error(e, param->pos, E_DUPLICATE, "two parameters have the path %s", v->name);
        elab_note(e, first, "the first is declared here");
        return ZM_FAIL;
    }
    if (v->type == have->type && v->init == have->init && v->init_a == have->init_a &&
        v->has_decay == have->has_decay)
        return ZM_OK;
    if (v->type != have->type)
        elab_error(e, param->pos, E_PARAM, "parameter %s is %s here and %s before", v->name,
                   type_text(e->arena, v->type), type_text(e->arena, have->type));
    else
        elab_error(e, param->pos, E_PARAM,
                   "parameter %s has another initial value or decay here than before", v->name);
    elab_note(e, first, "declared here first");
    return ZM_FAIL;
}

static bool is_anonymous(Elab *e, const Ast *param)
{
    if (!e->call || !e->call->is_anonymous) return false;
    elab_error(e, e->call->block->name_pos, E_INSTANCE,
               "block %s has parameters: every use needs a name", e->call->block->text);
    elab_note(e, param->pos, "parameter %s is declared here", param->text);
    elab_help(e, "write name: %s(...)", e->call->block->text);
    return true;
}

void elab_param(Elab *e, const Ast *param)
{
    Var v = {0};
    bool is_placed;
    Val val = val_error();
    if (!is_anonymous(e, param) && param_eval(e, param, &v, &is_placed) == ZM_OK) {
        uint32_t i = map_get(e->param_pos, path_key(v.name));
        if (i == MAP_NONE) {
            elab_at(e, param->pos);
            v.loc = e->b.loc;
            i = var_new(e->m, v).i;
            map_put(e->param_pos, path_key(v.name), i);
            val = param_value(e, (VarId){i}, param->pos);
        } else if (param_agree(e, param, &v, var_cget(e->m, (VarId){i}), is_placed) == ZM_OK)
            val = param_value(e, (VarId){i}, param->pos);
    }
    scope_add(e, param->text, val, param->pos);
}
