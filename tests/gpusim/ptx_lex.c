/* ptx_lex.c -- tokens of PTX.  A name keeps its dots: "ld.global.u32" and "%tid.x" are one. */
#include "tests/gpusim/ptx.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static bool is_name_char(const char *p)
{
    return isalnum((unsigned char)*p) || *p == '_' || *p == '$' || *p == '%' || *p == '.';
}

static void skip_blank(Lexer *x)
{
    for (;;) {
        while (isspace((unsigned char)*x->at)) x->line += *x->at++ == '\n';
        if (x->at[0] == '/' && x->at[1] == '/') {
            while (*x->at && *x->at != '\n') x->at++;
        } else if (x->at[0] == '/' && x->at[1] == '*') {
            while (*x->at && !(x->at[0] == '*' && x->at[1] == '/')) x->line += *x->at++ == '\n';
            if (*x->at) x->at += 2;
        } else
            return;
    }
}

static void lex_number(Lexer *x)
{
    const char *p = x->at;
    char *end;
    x->kind = TOK_NUMBER;
    x->literal_bytes = 0;
    if (p[0] == '0' && (p[1] == 'f' || p[1] == 'F'))
        x->literal_bytes = 4;
    else if (p[0] == '0' && (p[1] == 'd' || p[1] == 'D'))
        x->literal_bytes = 8;
    if (x->literal_bytes)
        x->value = strtoull(p + 2, &end, 16);
    else
        x->value = strtoull(p, &end, 0);
    while (*end == 'U') end++;
    x->at = end;
}

void lex_next(Lexer *x)
{
    skip_blank(x);
    const char *p = x->at;
    x->text = p;
    if (*p == 0) {
        x->kind = TOK_END;
        x->n = 0;
        return;
    }
    if (isdigit((unsigned char)*p)) {
        lex_number(x);
    } else if (is_name_char(p)) {
        x->kind = TOK_NAME;
        /* L2::128B: a pair of colons belongs to the name, one ends a label. */
        while (is_name_char(x->at) || (x->at[0] == ':' && x->at[1] == ':'))
            x->at += *x->at == ':' ? 2 : 1;
    } else if (*p == '"') {
        x->kind = TOK_PUNCT;
        for (x->at++; *x->at && *x->at != '"';) x->at++;
        x->at += *x->at == '"';
    } else {
        x->kind = TOK_PUNCT;
        x->at++;
    }
    x->n = (size_t)(x->at - p);
}

void lex_start(Lexer *x, const char *text)
{
    *x = (Lexer){.at = text, .line = 1};
    lex_next(x);
}

void lex_rest_of_line(Lexer *x, const char **text, size_t *n)
{
    *text = x->text;
    const char *end = strchr(x->text, '\n');
    *n = end ? (size_t)(end - x->text) : strlen(x->text);
    x->at = x->text + *n;
    lex_next(x);
}

bool lex_is(const Lexer *x, const char *text)
{
    return x->kind != TOK_END && strlen(text) == x->n && memcmp(text, x->text, x->n) == 0;
}

bool lex_accept(Lexer *x, const char *text)
{
    if (!lex_is(x, text)) return false;
    lex_next(x);
    return true;
}
