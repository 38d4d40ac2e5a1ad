/* parse.c -- runs the parser; the functions that build nodes. */
#include "frontend/parse.h"

#include <stdarg.h>
#include <string.h>

#include "grammar.h"
#define YYSTYPE ZM_STYPE /* flex's names for what bison made with a prefix */
#define YYLTYPE Span
#include "lexer.h"

static SrcPos span_pos(const ParseCx *cx, Span at)
{
    return (SrcPos){cx->source, at.line, at.col, at.end - at.begin};
}

void parse_error(ParseCx *cx, Span at, DiagCode code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char text[512];
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    diag_error(cx->diag, span_pos(cx, at), code, "%s", text);
}

/* ---- lists ---- */

AstList *list_new(ParseCx *cx)
{
    return ARENA_NEW(cx->arena, AstList);
}

AstList *list_add(ParseCx *cx, AstList *l, Ast *kid)
{
    if (kid) VEC_PUSH(cx->arena, &l->kids, kid);
    return l;
}

AstList *list_join(ParseCx *cx, AstList *l, AstList *more)
{
    for (uint32_t i = 0; i < more->kids.n; i++) list_add(cx, l, more->kids.at[i]);
    return l;
}

AstList *list_precision(ParseCx *cx, const char *word, Span word_at, Ast *body)
{
    if (strcmp(word, "f32") != 0 && strcmp(word, "low") != 0)
        parse_error(cx, word_at, E_SYNTAX, "precision is f32 or low, not %s", word);
    AstList *l = list_new(cx);
    for (uint32_t i = 0; i < body->n; i++) {
        Ast *stmt = body->kid[i];
        if (!stmt->precision) stmt->precision = word;
        list_add(cx, l, stmt);
    }
    return l;
}

/* ---- nodes ---- */

/* Gives the node its kids; a tree that grows too deep is replaced by an error leaf. */
static Ast *ast_adopt(ParseCx *cx, Ast *ast, Span at, Ast **kid, uint32_t n)
{
    ast->kid = kid;
    ast->n = n;
    ast->depth = 1;
    for (uint32_t i = 0; i < n; i++)
        if (kid[i] && kid[i]->depth >= ast->depth) ast->depth = kid[i]->depth + 1;
    if (ast->depth <= AST_MAX_DEPTH) return ast;
    if (!cx->said_depth)
        parse_error(cx, at, E_TOO_DEEP, "nested more than %d levels deep", AST_MAX_DEPTH);
    cx->said_depth = true;
    return ast_leaf(cx, AST_ERROR, at, "");
}

Ast *ast_leaf(ParseCx *cx, AstKind kind, Span at, const char *text)
{
    Ast *ast = ARENA_NEW(cx->arena, Ast);
    ast->kind = kind;
    ast->pos = ast->name_pos = span_pos(cx, at);
    ast->text = *text ? text : "";
    ast->depth = 1;
    return ast;
}

Ast *ast_int(ParseCx *cx, AstKind kind, Span at, int64_t v)
{
    Ast *ast = ast_leaf(cx, kind, at, "");
    ast->as.i = v;
    return ast;
}

Ast *ast_real(ParseCx *cx, Span at, double v)
{
    Ast *ast = ast_leaf(cx, AST_REAL, at, "");
    ast->as.real = v;
    return ast;
}

Ast *ast_node(ParseCx *cx, AstKind kind, Span at, const char *text, Span text_at, AstList *kids)
{
    Ast *ast = ast_leaf(cx, kind, at, intern(cx->strings, text));
    ast->name_pos = span_pos(cx, text_at);
    return ast_adopt(cx, ast, at, kids->kids.at, kids->kids.n);
}

Ast *ast_kids(ParseCx *cx, AstKind kind, Span at, const char *text, Span text_at, Ast *a, Ast *b,
              Ast *c, int n)
{
    Ast *three[] = {a, b, c};
    Ast **kid = ARENA_ARRAY(cx->arena, Ast *, n);
    memcpy(kid, three, (size_t)n * sizeof *kid);
    Ast *ast = ast_leaf(cx, kind, at, intern(cx->strings, text));
    ast->name_pos = span_pos(cx, text_at);
    return ast_adopt(cx, ast, at, kid, (uint32_t)n);
}

Ast *ast_unary(ParseCx *cx, Span at, Operator opr, Ast *a)
{
    Ast *ast = ast_kids(cx, AST_UNARY, at, "", at, a, NULL, NULL, 1);
    if (ast->kind == AST_UNARY) ast->as.opr = opr;
    return ast;
}

Ast *ast_binary(ParseCx *cx, Span at, Operator opr, Ast *a, Ast *b)
{
    Ast *ast = ast_kids(cx, AST_BINARY, at, "", at, a, b, NULL, 2);
    if (ast->kind == AST_BINARY) ast->as.opr = opr;
    return ast;
}

Ast *ast_tuple(ParseCx *cx, Span at, AstList *args)
{
    if (args->kids.n == 1 && args->kids.at[0]->kind != AST_NAMED) return args->kids.at[0];
    return ast_node(cx, AST_TUPLE, at, "", at, args);
}

/* name: block(args)  and  name[count]: block(args); the left side was parsed as an expression. */
Ast *ast_instance(ParseCx *cx, Span at, Ast *name, const char *block, Span block_at, AstList *args)
{
    Span call_at = {block_at.begin, at.end, block_at.line, block_at.col};
    Ast *call = ast_node(cx, AST_CALL, call_at, block, block_at, args);
    Ast *count = NULL, *base = name;
    if (name->kind == AST_INDEX && name->n == 2 && name->kid[1] &&
        name->kid[1]->kind != AST_RANGE && name->kid[1]->kind != AST_ELLIPSIS) {
        base = name->kid[0];
        count = name->kid[1];
    }
    if (base->kind != AST_NAME || strchr(base->text, '.')) {
        diag_error(cx->diag, name->pos, E_SYNTAX,
                   "the left side of ':' must be the instance's name, or name[count]");
        return ast_leaf(cx, AST_ERROR, at, "");
    }
    Span whole = {at.begin, at.end, at.line, at.col};
    Ast *ast = ast_kids(cx, AST_INSTANCE, whole, base->text, at, count, call, NULL, 2);
    ast->name_pos = base->pos;
    return ast;
}

Ast *ast_index(ParseCx *cx, Span at, Ast *base, AstList *indices)
{
    AstList *all = list_add(cx, list_new(cx), base);
    return ast_node(cx, AST_INDEX, at, "", at, list_join(cx, all, indices));
}

Ast *ast_param(ParseCx *cx, Span at, const char *name, Span name_at, Ast *type, Ast *init,
               AstList *flags)
{
    AstList *all = list_add(cx, list_add(cx, list_new(cx), type), init);
    return ast_node(cx, AST_PARAM, at, name, name_at, list_join(cx, all, flags));
}

Ast *ast_param_flag(ParseCx *cx, Span at, const char *word, Span word_at, const char *path)
{
    if (!path && strcmp(word, "no_decay") == 0) return ast_leaf(cx, AST_NAME, at, word);
    if (path && strcmp(word, "at") == 0) return ast_leaf(cx, AST_AT, at, path);
    parse_error(cx, word_at, E_SYNTAX,
                "unexpected '%s': a parameter may end in ', no_decay' and 'at \"path\"'", word);
    return NULL;
}

Ast *ast_let(ParseCx *cx, Span at, AstList *names, Ast *value)
{
    return ast_node(cx, AST_LET, at, "", at, list_add(cx, names, value));
}

/* f(a, b) as a setting is its name and a parenthesised list: the list's elements are the values. */
Ast *ast_setting(ParseCx *cx, Span at, const char *name, Span name_at, AstList *values, Ast *to)
{
    Ast *first = values->kids.n == 1 ? values->kids.at[0] : NULL;
    Ast *list =
        first && first->kind == AST_TUPLE ? first : ast_node(cx, AST_LIST, at, "", at, values);
    return ast_kids(cx, AST_SETTING, at, name, name_at, list, to, NULL, 2);
}

Ast *ast_top(ParseCx *cx, Ast *stmt)
{
    if (stmt->kind == AST_ASSERT || stmt->kind == AST_ERROR) return stmt;
    if (!cx->is_lost)
        diag_error(cx->diag, stmt->pos, E_PLACE,
                   "this statement belongs inside of a block or model, between its '{' and '}'");
    cx->is_lost = true;
    return NULL;
}

Ast *ast_block_lost(ParseCx *cx, Ast *body)
{
    (void)body;
    cx->is_lost = true;
    return NULL;
}

/* ---- running ---- */

static Ast *parse_run(ParseCx *cx, const char *text, size_t n)
{
    if (n > AST_MAX_SOURCE_BYTES) {
        diag_error(cx->diag, (SrcPos){cx->source, 0, 0, 0}, E_FILE_TOO_BIG,
                   "the file has %zu bytes: model files end at %d", n, AST_MAX_SOURCE_BYTES);
        return NULL;
    }
    void *scanner;
    cx->text = cx->diag->sources->all.at[cx->source].text;
    if (zm_lex_lex_init_extra(cx, &scanner)) ZM_UNREACHABLE("no memory for the scanner");
    zm_lex__scan_bytes(text, (int)n, scanner);
    zm_parse(scanner, cx);
    zm_lex_lex_destroy(scanner);
    return cx->result;
}

Ast *parse_file(Arena *arena, Interner *strings, Diag *diag, const char *file, const char *text,
                size_t n)
{
    ParseCx cx = {.arena = arena,
                  .strings = strings,
                  .diag = diag,
                  .line = 1,
                  .at_line_start = true,
                  .start_token = START_FILE};
    cx.source = source_add(diag->sources, file, text, n);
    return parse_run(&cx, text, n);
}

Ast *parse_expression(Arena *arena, Interner *strings, Diag *diag, const char *source,
                      const char *text)
{
    ParseCx cx = {.arena = arena,
                  .strings = strings,
                  .diag = diag,
                  .line = 1,
                  .at_line_start = true,
                  .start_token = START_EXPR};
    cx.source = source_add(diag->sources, source, text, strlen(text));
    return parse_run(&cx, text, strlen(text));
}
