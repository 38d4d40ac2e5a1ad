/* builtins.c -- the table of built-in functions, the binding of arguments, element-wise ops by
 * name. */
#include "frontend/builtins.h"

#include <ctype.h>
#include <string.h>

typedef struct Builtin {
    const char *name, *params;
    BuiltinFn fn;
} Builtin;

static const Builtin builtins[] = {
#define BUILTIN(NAME, PARAMS, DOC) {#NAME, PARAMS, builtin_##NAME},
#include "frontend/builtins.def"
#undef BUILTIN
};
enum { N_BUILTIN = sizeof builtins / sizeof *builtins };

static const OpCode point_codes[] = {
#define OP(ID, ...)
#define POINT(ID, ...) OP_##ID,
#include "ir/ops.def"
#undef OP
#undef POINT
};
enum { N_POINT = sizeof point_codes / sizeof *point_codes };

static const Builtin *builtin_find(const char *name)
{
    for (int i = 0; i < N_BUILTIN; i++)
        if (strcmp(builtins[i].name, name) == 0) return &builtins[i];
    return NULL;
}

static OpCode point_find(const char *name)
{
    for (int i = 0; i < N_POINT; i++)
        if (strcmp(op_info(point_codes[i])->name, name) == 0) return point_codes[i];
    return OP_NONE;
}

bool builtin_exists(const char *name)
{
    return builtin_find(name) || point_find(name) != OP_NONE;
}

void builtin_each(void (*visit)(void *cx, const char *name), void *cx)
{
    for (int i = 0; i < N_BUILTIN; i++) visit(cx, builtins[i].name);
    for (int i = 0; i < N_POINT; i++) visit(cx, op_info(point_codes[i])->name);
}

/* ---- arguments ---- */

typedef struct Params { /* of one builtin, cut out of its text */
    char name[MAX_ARGS][16];
    bool is_optional[MAX_ARGS];
    uint32_t n;
    uint32_t rest; /* index of "parts...", or n */
} Params;

static void params_read(const char *text, Params *p)
{
    *p = (Params){.rest = MAX_ARGS};
    while (*text) {
        size_t n = 0;
        while (isalnum((unsigned char)text[n]) || text[n] == '_') n++;
        ZM_CHECK(p->n < MAX_ARGS && n < sizeof p->name[0]);
        memcpy(p->name[p->n], text, n);
        if (strncmp(text + n, "...", 3) == 0) p->rest = p->n;
        size_t end = strcspn(text, ",");
        p->is_optional[p->n] = memchr(text, '=', end) != NULL;
        p->n++;
        text += end + (text[end] == ',');
        text += strspn(text, " ");
    }
}

static uint32_t param_named(const Params *p, const char *name)
{
    uint32_t i = 0;
    while (i < p->n && strcmp(p->name[i], name) != 0) i++;
    return i;
}

static Val rest_add(Elab *e, BuiltinCall *c, Val v)
{
    uint32_t n = v.kind == VAL_TUPLE ? v.n : 1;
    const Val *items = v.kind == VAL_TUPLE ? v.as.items : &v;
    Val *all = ARENA_ARRAY(e->arena, Val, c->n_rest + n);
    if (c->n_rest) memcpy(all, c->rest, c->n_rest * sizeof *all);
    if (n) memcpy(all + c->n_rest, items, n * sizeof *all);
    c->rest = all;
    c->n_rest += n;
    return v;
}

static Val arg_place(Elab *e, BuiltinCall *c, const Builtin *b, const Params *p, const Ast *a,
                     uint32_t *next)
{
    bool is_named = a->kind == AST_NAMED;
    uint32_t at = is_named ? param_named(p, a->text) : *next;
    const Ast *value = is_named ? a->kid[0] : a;
    if (!is_named && at == p->rest) return rest_add(e, c, elab_expr(e, value));
    bool is_bad = at >= p->n || c->ast[at];
    if (is_bad && is_named && at >= p->n)
        elab_error(e, a->pos, E_ARGS, "%s has no argument %s", b->name, a->text);
    else if (is_bad && is_named)
        elab_error(e, a->pos, E_ARGS, "argument %s of %s is given twice", a->text, b->name);
    else if (is_bad)
        elab_error(e, a->pos, E_ARGS, "%s takes at most %u arguments", b->name, p->n);
    if (is_bad) {
        elab_help(e, "%s(%s)", b->name, b->params);
        return val_error();
    }
    if (!is_named) (*next)++;
    c->ast[at] = value;
    return c->arg[at] = elab_expr(e, value);
}

static Status args_bind(Elab *e, const Ast *call, const Builtin *b, BuiltinCall *c)
{
    Params p;
    uint32_t next = 0;
    params_read(b->params, &p);
    for (uint32_t i = 0; i < call->n; i++)
        if (arg_place(e, c, b, &p, call->kid[i], &next).kind == VAL_ERROR) return ZM_FAIL;
    for (uint32_t i = 0; i < p.n; i++) {
        if (p.is_optional[i] || c->ast[i] || (i == p.rest && c->n_rest)) continue;
        elab_error(e, call->pos, E_ARGS, "argument %s of %s is missing", p.name[i], b->name);
        elab_help(e, "%s(%s)", b->name, b->params);
        return ZM_FAIL;
    }
    return ZM_OK;
}

/* ---- element-wise ops ---- */

static Val point_call(Elab *e, const Ast *call, OpCode code)
{
    Val v[4];
    uint32_t n = (uint32_t)op_info(code)->min_in;
    if (call->n != n)
        return elab_error(e, call->pos, E_ARGS, "%s takes %u argument%s, not %u", call->text, n,
                          n == 1 ? "" : "s", call->n);
    for (uint32_t i = 0; i < n; i++) {
        if (call->kid[i]->kind == AST_NAMED)
            return elab_error(e, call->kid[i]->pos, E_ARGS, "%s takes no named arguments",
                              call->text);
        v[i] = elab_expr(e, call->kid[i]);
        if (v[i].kind == VAL_ERROR) return v[i];
    }
    Val r;
    if (number_call(e, call->pos, call->text, v, n, &r)) return r;
    if (code == OP_POW) return emit_binary(e, call, OPR_POW, v[0], v[1]);
    if (code == OP_SELECT) return emit_select(e, call->pos, v, (const Ast *const *)call->kid);
    return emit_point(e, call->pos, code, v, (const Ast *const *)call->kid, n, call->text);
}

Val builtin_call(Elab *e, const Ast *call)
{
    const Builtin *b = builtin_find(call->text);
    if (!b) return point_call(e, call, point_find(call->text));
    BuiltinCall c = {.pos = call->pos, .name = b->name};
    return args_bind(e, call, b, &c) == ZM_OK ? b->fn(e, &c) : val_error();
}

/* ---- what builtins ask of their arguments ---- */

SrcPos arg_pos(const BuiltinCall *c, uint32_t i)
{
    return c->ast[i] ? c->ast[i]->pos : c->pos;
}

void note_args(Elab *e, const BuiltinCall *c)
{
    for (uint32_t i = 0; i < MAX_ARGS; i++)
        if (c->arg[i].kind == VAL_TENSOR) elab_note_operand(e, c->ast[i], c->arg[i]);
}

Status need_tensor(Elab *e, const BuiltinCall *c, uint32_t i)
{
    if (c->arg[i].kind == VAL_TENSOR) return ZM_OK;
    elab_error(e, arg_pos(c, i), E_TYPE, "%s takes a tensor here, not %s", c->name,
               val_kind_text(c->arg[i]));
    return ZM_FAIL;
}

Status need_dtype(Elab *e, const BuiltinCall *c, uint32_t i, DType dtype)
{
    const char *want = dtype == DT_F32 ? "float" : dtype == DT_I32 ? "int" : "bool";
    ZM_TRY(need_tensor(e, c, i));
    if (val_type(e, c->arg[i])->dtype == dtype) return ZM_OK;
    elab_error(e, arg_pos(c, i), E_TYPE, "%s takes a tensor of %s here, not %s", c->name, want,
               elab_text(e, c->arg[i]));
    elab_note_operand(e, c->ast[i], c->arg[i]);
    if (dtype != DT_I1) elab_help(e, "convert it: %s(...)", want);
    return ZM_FAIL;
}

Status need_int(Elab *e, const BuiltinCall *c, uint32_t i, int64_t *out)
{
    return val_to_int(e, arg_pos(c, i), c->arg[i], "this argument", out);
}

Status need_number(Elab *e, const BuiltinCall *c, uint32_t i, double otherwise, double *out)
{
    *out = c->arg[i].kind == VAL_NONE ? otherwise : val_real_of(c->arg[i]);
    if (c->arg[i].kind == VAL_NONE || val_is_number(c->arg[i])) return ZM_OK;
    elab_error(e, arg_pos(c, i), E_TYPE, "%s takes a number here, not %s", c->name,
               val_kind_text(c->arg[i]));
    return ZM_FAIL;
}

Status need_bool(Elab *e, const BuiltinCall *c, uint32_t i, bool otherwise, bool *out)
{
    *out = c->arg[i].kind == VAL_NONE ? otherwise : c->arg[i].as.i != 0;
    if (c->arg[i].kind == VAL_NONE || c->arg[i].kind == VAL_BOOL) return ZM_OK;
    elab_error(e, arg_pos(c, i), E_TYPE, "%s takes true or false here, not %s", c->name,
               val_kind_text(c->arg[i]));
    return ZM_FAIL;
}

Status need_ints(Elab *e, const BuiltinCall *c, uint32_t i, int n_max, int64_t *out, int *n,
                 bool *rest)
{
    Val v = c->arg[i];
    uint32_t n_items = v.kind == VAL_TUPLE ? v.n : 1, from = 0;
    const Val *items = v.kind == VAL_TUPLE ? v.as.items : &v;
    if (rest) *rest = n_items && items[0].kind == VAL_REST;
    if (rest && *rest) from = 1;
    if (n_items - from > (uint32_t)n_max) {
        elab_error(e, arg_pos(c, i), E_LIMIT, "%u entries: at most %d", n_items - from, n_max);
        return ZM_FAIL;
    }
    *n = (int)(n_items - from);
    for (uint32_t k = from; k < n_items; k++)
        ZM_TRY(val_to_int(e, arg_pos(c, i), items[k], "each entry", &out[k - from]));
    return ZM_OK;
}
