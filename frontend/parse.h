/* parse.h -- what lexer.l and grammar.y share: the state of one parse, and the functions that build
 * nodes. */
#ifndef ZM_FRONTEND_PARSE_H
#define ZM_FRONTEND_PARSE_H

#include "frontend/ast.h"

/* Bytes [begin, end) of the source; line and column of `begin`. */
typedef struct Span {
    uint32_t begin, end;
    uint32_t line, col;
} Span;

typedef struct AstList {
    VEC(Ast *) kids;
} AstList;

typedef struct ParseCx {
    Arena *arena;
    Interner *strings;
    Diag *diag;
    uint32_t source;
    const char *text; /* NUL-terminated */
    /* lexer */
    uint32_t offset, line, line_start; /* of the next byte */
    VEC(Span) open;                    /* the ( and [ around it: newlines in them are not tokens */
    bool at_line_start;
    bool owes_newline; /* after an unclosed parenthesis */
    bool has_ended;    /* the NEWLINE before the end was given */
    int start_token;   /* START_FILE or START_EXPR, given first; then 0 */
    /* parser */
    Ast *result;
    bool is_recovering; /* this statement had its syntax error */
    bool is_lost;       /* a statement stood outside of a block: say so once until the next item */
    bool said_depth;
} ParseCx;

void parse_error(ParseCx *cx, Span at, DiagCode code, const char *fmt, ...) ZM_PRINTF(4, 5);

/* Nodes.  Lists and texts are taken over. */
Ast *ast_leaf(ParseCx *cx, AstKind kind, Span at, const char *text);
Ast *ast_int(ParseCx *cx, AstKind kind, Span at, int64_t v); /* INT or BOOL */
Ast *ast_real(ParseCx *cx, Span at, double v);
Ast *ast_node(ParseCx *cx, AstKind kind, Span at, const char *text, Span text_at, AstList *kids);
Ast *ast_kids(ParseCx *cx, AstKind kind, Span at, const char *text, Span text_at, Ast *a, Ast *b,
              Ast *c, int n);
Ast *ast_unary(ParseCx *cx, Span at, Operator opr, Ast *a);
Ast *ast_binary(ParseCx *cx, Span at, Operator opr, Ast *a, Ast *b);
Ast *ast_tuple(ParseCx *cx, Span at,
               AstList *args); /* ( ... ): a single unnamed value is that value */
Ast *ast_instance(ParseCx *cx, Span at, Ast *name, const char *block, Span block_at, AstList *args);
Ast *ast_index(ParseCx *cx, Span at, Ast *base, AstList *indices);
Ast *ast_param(ParseCx *cx, Span at, const char *name, Span name_at, Ast *type, Ast *init,
               AstList *flags);
Ast *ast_param_flag(ParseCx *cx, Span at, const char *word, Span word_at,
                    const char *path); /* path NULL: a plain flag */
Ast *ast_let(ParseCx *cx, Span at, AstList *names, Ast *value);
Ast *ast_setting(ParseCx *cx, Span at, const char *name, Span name_at, AstList *values, Ast *to);
Ast *ast_top(ParseCx *cx,
             Ast *stmt); /* a statement outside of blocks: only `assert` may stand there */
Ast *ast_block_lost(ParseCx *cx, Ast *body); /* a body whose heading was wrong */

AstList *list_new(ParseCx *cx);
AstList *list_add(ParseCx *cx, AstList *l, Ast *kid); /* l itself; a NULL kid is not added */
AstList *list_join(ParseCx *cx, AstList *l, AstList *more);
/* The statements of a body, marked with their precision; one that is marked already stays. */
AstList *list_precision(ParseCx *cx, const char *word, Span word_at, Ast *body);

#endif
