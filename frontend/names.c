/* names.c -- checks that need no shapes, once for each block, also for blocks that nothing uses:
 * names are declared, declared once, and used; statements stand where they may. */
#include <string.h>

#include "frontend/elab.h"
#include "frontend/suggest.h"

typedef struct Entry {
    const char *name; /* interned */
    const char *what; /* "dim", "argument", ... */
    SrcPos pos;
    bool is_used;
} Entry;

typedef struct NameCx {
    Arena *arena;
    Diag *diag;
    Program *prog;
    VEC(Entry) values;    /* of the file, then of the running block */
    VEC(Entry) instances; /* of the running block */
    bool *block_used;     /* by index in prog->blocks */
    bool is_section;      /* words of settings are not names */
    bool said_limit;
} NameCx;

static void unused_add(NameCx *cx, const char *what, const char *name, SrcPos pos)
{
    Unused u = {what, name, pos};
    VEC_PUSH(cx->arena, &cx->prog->unused, u);
}

static Entry *value_find(NameCx *cx, const char *name)
{
    for (uint32_t i = cx->values.n; i > 0; i--)
        if (cx->values.at[i - 1].name == name) return &cx->values.at[i - 1];
    return NULL;
}

static void value_add(NameCx *cx, const char *name, const char *what, SrcPos pos)
{
    Entry entry = {name, what, pos, false};
    if (cx->values.n < 2 * MAX_NAMES)
        VEC_PUSH(cx->arena, &cx->values, entry);
    else if (!cx->said_limit)
        diag_error(cx->diag, pos, E_LIMIT, "more than %d names are visible here", 2 * MAX_NAMES);
    cx->said_limit = cx->values.n == 2 * MAX_NAMES;
}

/* From entry `from` on: one scope. */
static void value_add_new(NameCx *cx, const char *name, const char *what, SrcPos pos, uint32_t from)
{
    for (uint32_t i = from; i < cx->values.n; i++) {
        if (cx->values.at[i].name != name) continue;
        diag_error(cx->diag, pos, E_DUPLICATE, "%s %s is declared twice", what, name);
        diag_note(cx->diag, cx->values.at[i].pos, "%s %s is declared here", cx->values.at[i].what,
                  name);
        return;
    }
    value_add(cx, name, what, pos);
}

/* Leaves a scope: what was declared in it and never used is noted. */
static void values_leave(NameCx *cx, uint32_t from)
{
    for (uint32_t i = from; i < cx->values.n; i++) {
        const Entry *v = &cx->values.at[i];
        if (!v->is_used && v->name[0] != '_') unused_add(cx, v->what, v->name, v->pos);
    }
    cx->values.n = from;
}

/* ---- expressions ---- */

static void names_expr(NameCx *cx, const Ast *ast);

static const Entry *instance_find(const NameCx *cx, const char *name, size_t n)
{
    for (uint32_t i = 0; i < cx->instances.n; i++)
        if (strlen(cx->instances.at[i].name) == n && memcmp(cx->instances.at[i].name, name, n) == 0)
            return &cx->instances.at[i];
    return NULL;
}

static void names_name(NameCx *cx, const Ast *ast)
{
    Entry *v = value_find(cx, ast->text);
    if (v) {
        v->is_used = true;
        return;
    }
    size_t head = strcspn(ast->text, ".");
    if (cx->is_section || (ast->text[head] && instance_find(cx, ast->text, head)))
        return; /* resolved later */
    diag_error(cx->diag, ast->pos, E_UNKNOWN_NAME, "unknown name %s", ast->text);
    Suggest s = suggest_new(ast->text);
    for (uint32_t i = 0; i < cx->values.n; i++) suggest_try(&s, cx->values.at[i].name);
    if (s.best) diag_help(cx->diag, "did you mean %s?", s.best);
}

static bool block_use(NameCx *cx, const char *name)
{
    for (uint32_t i = 0; i < cx->prog->blocks.n; i++)
        if (cx->prog->blocks.at[i]->text == name) return cx->block_used[i] = true;
    return false;
}

static void try_name(void *s, const char *name)
{
    suggest_try(s, name);
}

static void names_callee(NameCx *cx, const Ast *call)
{
    if (instance_find(cx, call->text, strcspn(call->text, ".")) || block_use(cx, call->text))
        return;
    if (builtin_exists(call->text) || cx->is_section) return;
    diag_error(cx->diag, call->name_pos, E_UNKNOWN_NAME, "unknown block or function %s",
               call->text);
    Suggest s = suggest_new(call->text);
    builtin_each(try_name, &s);
    for (uint32_t i = 0; i < cx->prog->blocks.n; i++) suggest_try(&s, cx->prog->blocks.at[i]->text);
    for (uint32_t i = 0; i < cx->instances.n; i++) suggest_try(&s, cx->instances.at[i].name);
    if (s.best) diag_help(cx->diag, "did you mean %s?", s.best);
}

static void names_instance(NameCx *cx, const Ast *ast)
{
    const Entry *first = instance_find(cx, ast->text, strlen(ast->text));
    if (first) {
        diag_error(cx->diag, ast->name_pos, E_INSTANCE, "instance %s is made twice", ast->text);
        diag_note(cx->diag, first->pos, "the first is here");
        diag_help(cx->diag, "use it again, with the same parameters: %s(...)", ast->text);
        return;
    }
    Entry entry = {ast->text, "instance", ast->name_pos, true};
    if (cx->instances.n == MAX_NAMES)
        diag_error(cx->diag, ast->name_pos, E_LIMIT, "more than %d instances in a block",
                   MAX_NAMES);
    else if (cx->instances.n < MAX_NAMES)
        VEC_PUSH(cx->arena, &cx->instances, entry);
}

static void names_kids(NameCx *cx, const Ast *ast)
{
    for (uint32_t i = 0; i < ast->n; i++)
        if (ast->kid[i]) names_expr(cx, ast->kid[i]);
}

static void names_expr(NameCx *cx, const Ast *ast)
{
    if (ast->kind == AST_NAME) names_name(cx, ast);
    names_kids(cx, ast);
    if (ast->kind == AST_CALL) names_callee(cx, ast);
    if (ast->kind == AST_INSTANCE)
        names_instance(cx, ast); /* after its arguments: they come first */
}

/* ---- declarations ---- */

/* A bare name of an argument's type is declared by it when it is new. */
static void names_arg_type(NameCx *cx, const Ast *type)
{
    for (uint32_t i = 0; i < type->n; i++) {
        const Ast *dim = type->kid[i];
        if (dim->kind == AST_ELLIPSIS && i > 0)
            diag_error(cx->diag, dim->pos, E_TYPE,
                       "'...' stands for leading dimensions: it comes first");
        else if (dim->kind == AST_NAME && !value_find(cx, dim->text)) {
            value_add(cx, dim->text, "dimension", dim->pos);
            cx->values.at[cx->values.n - 1].is_used = true; /* it documents the shape */
        } else
            names_expr(cx, dim);
    }
}

static void names_args(NameCx *cx, const Ast *args, uint32_t from, const char *what)
{
    for (uint32_t i = 0; i < args->n; i++) {
        const Ast *arg = args->kid[i];
        if (arg->kind == AST_ERROR) continue;
        if (arg->kid[0]) names_arg_type(cx, arg->kid[0]);
        if (arg->kid[1]) names_expr(cx, arg->kid[1]);
        value_add_new(cx, arg->text, what, arg->pos, from);
    }
}

static void names_param(NameCx *cx, const Ast *s, uint32_t from)
{
    names_expr(cx, s->kid[0]);
    if (s->kid[1]->kind == AST_CALL) /* the initial value's function is no builtin */
        names_kids(cx, s->kid[1]);
    value_add_new(cx, s->text, "param", s->name_pos, from);
}

static void names_let(NameCx *cx, const Ast *s)
{
    names_expr(cx, s->kid[s->n - 1]);
    for (uint32_t i = 0; i + 1 < s->n; i++) value_add(cx, s->kid[i]->text, "let", s->kid[i]->pos);
}

static void names_place(NameCx *cx, const Ast *body, uint32_t i, bool is_model)
{
    const Ast *s = body->kid[i];
    if (s->kind == AST_RETURN && is_model)
        diag_error(cx->diag, s->pos, E_PLACE,
                   "return stands in a block; a model has output and loss");
    else if (s->kind == AST_RETURN && i + 1 < body->n)
        diag_error(cx->diag, body->kid[i + 1]->pos, E_PLACE,
                   "nothing follows the return of a block");
    else if ((s->kind == AST_OUTPUT || s->kind == AST_LOSS) && !is_model)
        diag_error(cx->diag, s->pos, E_PLACE, "%s stands in the model; a block has return",
                   s->kind == AST_LOSS ? "loss" : "output");
}

static void names_body(NameCx *cx, const Ast *body, uint32_t from, bool is_model)
{
    for (uint32_t i = 0; i < body->n; i++) {
        const Ast *s = body->kid[i];
        names_place(cx, body, i, is_model);
        if (s->kind == AST_LET)
            names_let(cx, s);
        else if (s->kind == AST_PARAM)
            names_param(cx, s, from);
        else
            names_kids(cx, s);
        if (s->kind == AST_OUTPUT) {
            value_add_new(cx, s->text, "output", s->name_pos, from);
            cx->values.at[cx->values.n - 1].is_used = true;
        }
    }
}

static void names_block(NameCx *cx, const Ast *block)
{
    bool is_model = block->kind == AST_MODEL;
    const Ast *body = block->kid[block->n - 1];
    uint32_t from = cx->values.n;
    cx->instances.n = 0;
    names_args(cx, block->kid[0], from, is_model ? "input" : "argument");
    if (!is_model) names_kids(cx, block->kid[1]);
    names_body(cx, body, from, is_model);
    if (!is_model && (body->n == 0 || body->kid[body->n - 1]->kind != AST_RETURN) &&
        cx->diag->n_errors == 0)
        diag_error(cx->diag, block->name_pos, E_RESULT, "block %s ends without return",
                   block->text);
    values_leave(cx, from);
}

static void names_globals(NameCx *cx)
{
    for (uint32_t i = 0; i < cx->prog->globals.n; i++) {
        const Ast *g = cx->prog->globals.at[i];
        names_kids(cx, g);
        if (g->kind != AST_ASSERT)
            value_add_new(cx, g->text, g->kind == AST_DIM ? "dim" : "const", g->name_pos, 0);
    }
}

static void names_blocks(NameCx *cx)
{
    for (uint32_t i = 0; i < cx->prog->blocks.n; i++) {
        const Ast *b = cx->prog->blocks.at[i];
        if (builtin_exists(b->text))
            diag_error(cx->diag, b->name_pos, E_DUPLICATE,
                       "%s is a built-in function: the block needs another name", b->text);
        for (uint32_t k = 0; k < i; k++) {
            if (cx->prog->blocks.at[k]->text != b->text) continue;
            diag_error(cx->diag, b->name_pos, E_DUPLICATE, "block %s is declared twice", b->text);
            diag_note(cx->diag, cx->prog->blocks.at[k]->name_pos, "block %s is declared here",
                      b->text);
        }
    }
    for (uint32_t i = 0; i < cx->prog->blocks.n; i++) names_block(cx, cx->prog->blocks.at[i]);
}

Status names_check(Arena *arena, Diag *diag, Program *prog)
{
    NameCx cx = {.arena = arena, .diag = diag, .prog = prog};
    uint32_t n_errors = diag->n_errors;
    cx.block_used = ARENA_ARRAY(arena, bool, prog->blocks.n);
    names_globals(&cx);
    names_blocks(&cx);
    cx.instances.n = 0;
    cx.is_section = true;
    for (uint32_t i = 0; i < prog->sections.n; i++) names_kids(&cx, prog->sections.at[i]);
    cx.is_section = false;
    if (prog->model) names_block(&cx, prog->model);
    for (uint32_t i = 0; i < prog->blocks.n; i++) {
        const Ast *b = prog->blocks.at[i];
        if (!cx.block_used[i]) unused_add(&cx, "block", b->text, b->name_pos);
    }
    values_leave(&cx, 0);
    return diag->n_errors == n_errors ? ZM_OK : ZM_FAIL;
}
