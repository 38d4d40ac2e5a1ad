/* parse_lex.h -- tokens of textual IR (docs/ir.md).  Comments run from // to the line's end; line
 * ends separate nothing, but tokens know their line, at whose end the parser recovers. */
#ifndef ZM_IR_PARSE_LEX_H
#define ZM_IR_PARSE_LEX_H

#include "ir/ir.h"

typedef enum {
    TK_EOF,
    TK_BAD,   /* not a token; the reason is in Diag already */
    TK_WORD,  /* add, f32, cat */
    TK_INT,   /* -3 */
    TK_FLOAT, /* 1.5, -inf, nan */
    TK_STR,   /* "..." */
    TK_VALUE, /* %name, %12, %"..." */
    TK_VAR,   /* @name, @"..." */
    TK_LOC,   /* !12 */
    TK_PUNCT  /* one character */
} TokenKind;

typedef struct Token {
    TokenKind kind;
    SrcPos pos;
    const char *text; /* interned: WORD; STR, VALUE, VAR: the name without sigil and quotes; a
                         numbered value keeps its sigil: "%12" */
    int64_t i;        /* INT, LOC */
    double f;         /* FLOAT; INT: the same number */
    char punct;
    bool is_number; /* VALUE: a numbered one */
} Token;

typedef struct Lexer {
    Module *m;
    Diag *diag;
    const char *p, *end, *line_start;
    uint32_t source, line;
    bool is_quiet; /* the parser is skipping to the line's end: bad characters are not reported */
} Lexer;

Token lex_next(Lexer *l);
const char *token_describe(Arena *a, const Token *t); /* for messages: "','", "'add'", "the end" */

#endif
