/* elab_expr.c -- expressions: dispatch over the syntax tree. */
#include "frontend/elab.h"
#include "frontend/suggest.h"

static Val expr_inner(Elab *e, const Ast *ast);

static bool is_too_big(Elab *e, const Ast *ast)
{
    bool is_deep = e->depth > MAX_WALK_DEPTH;
    if (!is_deep && e->n_steps <= MAX_STEPS) return false;
    if (!e->said_limit)
        elab_error(e, ast->pos, E_LIMIT,
                   is_deep ? "blocks and expressions nest more than %d levels deep here"
                           : "the model takes more than %d steps to write out",
                   is_deep ? MAX_WALK_DEPTH : MAX_STEPS);
    e->said_limit = true;
    return true;
}

Val elab_expr(Elab *e, const Ast *ast)
{
    e->n_steps++;
    if (is_too_big(e, ast) || diag_is_full(e->diag)) return val_error();
    e->depth++;
    Val v = expr_inner(e, ast);
    e->depth--;
    return v;
}

static Val name_unknown(Elab *e, const Ast *ast)
{
    elab_error(e, ast->pos, E_UNKNOWN_NAME, "unknown name %s", ast->text);
    Suggest s = suggest_new(ast->text);
    for (uint32_t i = 0; i < e->scope.n; i++)
        if (i < e->n_globals || i >= e->frame) suggest_try(&s, e->scope.at[i].name);
    if (s.best) elab_help(e, "did you mean %s?", s.best);
    return val_error();
}

static Val expr_name(Elab *e, const Ast *ast)
{
    const Binding *b = scope_find(e, ast->text);
    if (b) return b->val;
    Val v;
    if (param_find(e, ast->text, &v)) return v;
    return name_unknown(e, ast);
}

static Val expr_tuple(Elab *e, const Ast *ast)
{
    Val v = {.kind = VAL_TUPLE, .n = ast->n};
    v.as.items = ARENA_ARRAY(e->arena, Val, ast->n);
    for (uint32_t i = 0; i < ast->n; i++) {
        const Ast *kid = ast->kid[i];
        if (kid->kind == AST_NAMED)
            return elab_error(e, kid->pos, E_ARGS,
                              "%s = ... names an argument, but this is not a call", kid->text);
        if (kid->kind == AST_ELLIPSIS)
            v.as.items[i] = (Val){.kind = VAL_REST};
        else
            v.as.items[i] = elab_expr(e, kid);
        if (v.as.items[i].kind == VAL_ERROR) return val_error();
    }
    return v;
}

static Val expr_unary(Elab *e, const Ast *ast)
{
    Val a = elab_expr(e, ast->kid[0]);
    if (a.kind == VAL_ERROR) return a;
    if (a.kind != VAL_TENSOR) return number_unary(e, ast->pos, ast->as.opr, a);
    const Ast *operand = ast->kid[0];
    return emit_point(e, ast->pos, ast->as.opr == OPR_NEG ? OP_NEG : OP_NOT, &a, &operand, 1,
                      ast->as.opr == OPR_NEG ? "'-'" : "'not'");
}

static Val expr_binary(Elab *e, const Ast *ast)
{
    Val a = elab_expr(e, ast->kid[0]);
    Val b = elab_expr(e, ast->kid[1]);
    if (a.kind == VAL_ERROR || b.kind == VAL_ERROR) return val_error();
    if (a.kind != VAL_TENSOR && b.kind != VAL_TENSOR)
        return number_binary(e, ast->pos, ast->as.opr, a, b);
    return emit_binary(e, ast, ast->as.opr, a, b);
}

static Val expr_index(Elab *e, const Ast *ast)
{
    Val base = elab_expr(e, ast->kid[0]);
    return base.kind == VAL_ERROR ? base : emit_index(e, ast, base);
}

static Val expr_inner(Elab *e, const Ast *ast)
{
    switch (ast->kind) {
    case AST_INT: return val_int(ast->as.i);
    case AST_REAL: return val_real(ast->as.real);
    case AST_BOOL: return val_bool(ast->as.i != 0);
    case AST_STRING: return (Val){.kind = VAL_STRING, .as.text = ast->text};
    case AST_NAME: return expr_name(e, ast);
    case AST_UNARY: return expr_unary(e, ast);
    case AST_BINARY: return expr_binary(e, ast);
    case AST_CALL: return elab_call(e, ast);
    case AST_INSTANCE: return elab_instance(e, ast);
    case AST_INDEX: return expr_index(e, ast);
    case AST_TUPLE: return expr_tuple(e, ast);
    case AST_ERROR:
    case AST_FILE:
    case AST_DIM:
    case AST_CONST:
    case AST_BLOCK:
    case AST_MODEL:
    case AST_SECTION:
    case AST_SETTING:
    case AST_ARG:
    case AST_TYPE:
    case AST_LIST:
    case AST_BODY:
    case AST_ASSERT:
    case AST_PARAM:
    case AST_AT:
    case AST_LET:
    case AST_RETURN:
    case AST_OUTPUT:
    case AST_LOSS:
    case AST_NAMED:
    case AST_RANGE:
    case AST_ELLIPSIS:
    case N_AST: break;
    }
    return val_error(); /* AST_ERROR: already reported; the grammar puts nothing else here */
}

Status val_to_int(Elab *e, SrcPos pos, Val v, const char *what, int64_t *out)
{
    if (v.kind == VAL_ERROR) return ZM_FAIL;
    if (v.kind == VAL_INT) {
        *out = v.as.i;
        return ZM_OK;
    }
    if (v.kind == VAL_REAL)
        elab_error(e, pos, E_NUMBER, "%s must be an integer, not %s", what, elab_text(e, v));
    else
        elab_error(e, pos, E_TYPE, "%s must be an integer, not %s", what, val_kind_text(v));
    return ZM_FAIL;
}

bool elab_int(Elab *e, const Ast *ast, const char *what, int64_t *out)
{
    return val_to_int(e, ast->pos, elab_expr(e, ast), what, out) == ZM_OK;
}
