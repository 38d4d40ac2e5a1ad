/* parse_lex.c -- see parse_lex.h. */
#include "ir/parse_lex.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_word_start(char c)
{
    return isalpha((unsigned char)c) || c == '_';
}

static bool is_word_char(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

static char peek(const Lexer *l, size_t ahead)
{
    return ahead < (size_t)(l->end - l->p) ? l->p[ahead] : '\0';
}

static SrcPos pos_here(const Lexer *l)
{
    return (SrcPos){l->source, l->line, (uint32_t)(l->p - l->line_start) + 1, 1};
}

static void skip_blanks(Lexer *l)
{
    while (l->p < l->end) {
        if (*l->p == '\n') {
            l->line++;
            l->line_start = l->p + 1;
        } else if (*l->p == '/' && peek(l, 1) == '/') {
            while (l->p + 1 < l->end && l->p[1] != '\n') l->p++;
        } else if (*l->p != ' ' && *l->p != '\t' && *l->p != '\r') {
            return;
        }
        l->p++;
    }
}

/* Words are names whose parts are joined by single dots: h.0.attn */
static void lex_word(Lexer *l, Token *t)
{
    const char *start = l->p;
    while (l->p < l->end && (is_word_char(*l->p) || (*l->p == '.' && is_word_char(peek(l, 1)))))
        l->p++;
    t->text = intern_n(&l->m->strings, start, (size_t)(l->p - start));
}

/* The character at p, which may be an escape; advances.  NULL: fine. */
static const char *lex_char(Lexer *l, char *out)
{
    *out = *l->p++;
    if (*out != '\\') return NULL;
    char c = peek(l, 0);
    if (l->p < l->end) l->p++;
    if (c == 'u' && l->end - l->p >= 4) {
        char hex[5] = {0};
        memcpy(hex, l->p, 4);
        char *stop;
        long v = strtol(hex, &stop, 16);
        l->p += 4;
        *out = (char)v;
        if (stop == hex + 4 && isxdigit((unsigned char)hex[0]) && v > 0 && v < 0x80) return NULL;
    }
    *out = c == 'n' ? '\n' : c == 't' ? '\t' : c;
    if (c == '"' || c == '\\' || c == 'n' || c == 't') return NULL;
    return "unknown escape: \\\" \\\\ \\n \\t and \\u0001 to \\u007f exist";
}

static const char *lex_string(Lexer *l, Token *t)
{
    Str s = {0};
    const char *why = NULL;
    l->p++;
    while (!why && peek(l, 0) != '"') {
        char c = peek(l, 0);
        if (c == '\0' || c == '\n')
            why = "this string has no end on its line";
        else if (!(why = lex_char(l, &c)))
            str_add_n(&s, &c, 1);
    }
    if (!why) l->p++;
    t->text = intern(&l->m->strings, str_c(&s));
    str_free(&s);
    return why;
}

/* After a sigil: a word or a string; for '%' also a number, which keeps its sigil. */
static const char *lex_name(Lexer *l, Token *t, TokenKind kind)
{
    const char *sigil = l->p++;
    t->kind = kind;
    if (peek(l, 0) == '"') return lex_string(l, t);
    if (is_word_start(peek(l, 0))) {
        lex_word(l, t);
        return NULL;
    }
    if (kind != TK_VALUE || !isdigit((unsigned char)peek(l, 0))) return "a name must follow here";
    while (isdigit((unsigned char)peek(l, 0))) l->p++;
    t->text = intern_n(&l->m->strings, sigil, (size_t)(l->p - sigil));
    t->is_number = true;
    return NULL;
}

static const char *lex_number(Lexer *l, Token *t)
{
    const char *start = l->p;
    t->kind = TK_INT;
    if (*l->p == '-') l->p++;
    while (isdigit((unsigned char)peek(l, 0))) l->p++;
    if (peek(l, 0) == '.' && isdigit((unsigned char)peek(l, 1))) {
        t->kind = TK_FLOAT;
        for (l->p++; isdigit((unsigned char)peek(l, 0));) l->p++;
    }
    size_t sign = peek(l, 1) == '-' || peek(l, 1) == '+';
    if ((peek(l, 0) == 'e' || peek(l, 0) == 'E') && isdigit((unsigned char)peek(l, 1 + sign))) {
        t->kind = TK_FLOAT;
        for (l->p += 1 + sign; isdigit((unsigned char)peek(l, 0));) l->p++;
    }
    const char *text = intern_n(&l->m->strings, start, (size_t)(l->p - start));
    t->f = strtod(text, NULL);
    errno = 0;
    if (t->kind == TK_INT) t->i = strtoll(text, NULL, 10);
    return errno ? "this integer does not fit into 64 bits" : NULL;
}

static const char *lex_loc(Lexer *l, Token *t)
{
    l->p++;
    if (!isdigit((unsigned char)peek(l, 0))) return "a location's number must follow here";
    const char *why = lex_number(l, t);
    if (!why && (t->kind != TK_INT || t->i >= UINT32_MAX)) why = "this is no location's number";
    t->kind = TK_LOC;
    return why;
}

/* inf and nan are words; -inf is a number. */
static const char *lex_minus_inf(Lexer *l, Token *t)
{
    l->p += 4;
    t->kind = TK_FLOAT;
    t->f = -INFINITY;
    return NULL;
}

static const char *lex_rest(Lexer *l, Token *t)
{
    char c = *l->p;
    if (c == '"') {
        t->kind = TK_STR;
        return lex_string(l, t);
    }
    if (c == '%') return lex_name(l, t, TK_VALUE);
    if (c == '@') return lex_name(l, t, TK_VAR);
    if (c == '!') return lex_loc(l, t);
    if (isdigit((unsigned char)c) || (c == '-' && isdigit((unsigned char)peek(l, 1))))
        return lex_number(l, t);
    if (l->end - l->p >= 4 && memcmp(l->p, "-inf", 4) == 0 && !is_word_char(peek(l, 4)))
        return lex_minus_inf(l, t);
    l->p++;
    t->kind = TK_PUNCT;
    t->punct = c;
    return c && strchr("(){}[],:=+.", c) ? NULL : "this character means nothing here";
}

Token lex_next(Lexer *l)
{
    skip_blanks(l);
    Token t = {.kind = TK_EOF, .pos = pos_here(l)};
    if (l->p == l->end) return t;
    const char *start = l->p, *why = NULL;
    if (is_word_start(*l->p)) {
        t.kind = TK_WORD;
        lex_word(l, &t);
    } else {
        why = lex_rest(l, &t);
    }
    t.pos.len = (uint32_t)(l->p - start);
    if (why) {
        if (!l->is_quiet) diag_error(l->diag, t.pos, E_IR_SYNTAX, "%s", why);
        t.kind = TK_BAD;
    }
    return t;
}

const char *token_describe(Arena *a, const Token *t)
{
    switch (t->kind) {
    case TK_EOF: return "the end of the file";
    case TK_BAD: return "this";
    case TK_WORD: return arena_printf(a, "'%s'", t->text);
    case TK_INT: return arena_printf(a, "%lld", (long long)t->i);
    case TK_FLOAT: return arena_printf(a, "%g", t->f);
    case TK_STR: return arena_printf(a, "\"%s\"", t->text);
    case TK_VALUE: return arena_printf(a, t->is_number ? "%s" : "%%%s", t->text);
    case TK_VAR: return arena_printf(a, "@%s", t->text);
    case TK_LOC: return arena_printf(a, "!%lld", (long long)t->i);
    case TK_PUNCT: return arena_printf(a, "'%c'", t->punct);
    }
    ZM_UNREACHABLE("token");
}
