/* parse_tokens.c -- the small pieces of textual IR: words, numbers, lists, types, places (parse.h).
 */
#include "ir/parse.h"

#include <math.h>
#include <string.h>

#include "ir/text.h"

void parse_next(Parser *p)
{
    p->prev_line = p->tok.pos.line;
    p->prev_opens = parse_at(p, '{');
    p->tok = lex_next(&p->lex);
}

static void skip_block(Parser *p)
{
    for (int depth = 1; depth > 0 && p->tok.kind != TK_EOF; parse_next(p))
        depth += parse_at(p, '{') - parse_at(p, '}');
}

void parse_recover(Parser *p)
{
    p->lex.is_quiet = true;
    do {
        while (p->tok.kind != TK_EOF && p->tok.pos.line == p->prev_line) parse_next(p);
        if (!p->prev_opens) break;
        skip_block(p);
    } while (p->tok.kind != TK_EOF);
    p->lex.is_quiet = false;
    if (p->tok.kind == TK_BAD)
        diag_error(p->diag, p->tok.pos, E_IR_SYNTAX, "this character means nothing here");
}

Status parse_unexpected(Parser *p, const char *wanted)
{
    if (p->tok.kind == TK_BAD) return ZM_FAIL; /* reported by the lexer */
    return diag_error(p->diag, p->tok.pos, E_IR_SYNTAX, "expected %s, not %s", wanted,
                      token_describe(p->m->arena, &p->tok));
}

bool parse_at(const Parser *p, char punct)
{
    return p->tok.kind == TK_PUNCT && p->tok.punct == punct;
}

bool parse_at_word(const Parser *p, const char *word)
{
    return p->tok.kind == TK_WORD && strcmp(p->tok.text, word) == 0;
}

bool parse_accept(Parser *p, char punct)
{
    bool is_there = parse_at(p, punct);
    if (is_there) parse_next(p);
    return is_there;
}

Status parse_expect(Parser *p, char punct)
{
    if (parse_accept(p, punct)) return ZM_OK;
    return parse_unexpected(p, (char[]){'\'', punct, '\'', '\0'});
}

Status parse_word(Parser *p, const char *what, const char **out)
{
    if (p->tok.kind != TK_WORD) return parse_unexpected(p, what);
    *out = p->tok.text;
    parse_next(p);
    return ZM_OK;
}

Status parse_str(Parser *p, const char *what, const char **out)
{
    if (p->tok.kind != TK_STR) return parse_unexpected(p, what);
    *out = p->tok.text;
    parse_next(p);
    return ZM_OK;
}

Status parse_name(Parser *p, const char *what, const char **out)
{
    return p->tok.kind == TK_STR ? parse_str(p, what, out) : parse_word(p, what, out);
}

Status parse_int(Parser *p, int64_t *out)
{
    if (p->tok.kind != TK_INT) return parse_unexpected(p, "an integer");
    *out = p->tok.i;
    parse_next(p);
    return ZM_OK;
}

Status parse_float(Parser *p, double *out)
{
    if (p->tok.kind == TK_INT || p->tok.kind == TK_FLOAT)
        *out = p->tok.f;
    else if (parse_at_word(p, "inf"))
        *out = INFINITY;
    else if (parse_at_word(p, "nan"))
        *out = NAN;
    else
        return parse_unexpected(p, "a number");
    parse_next(p);
    return ZM_OK;
}

Status parse_bool(Parser *p, bool *out)
{
    if (!parse_at_word(p, "true") && !parse_at_word(p, "false"))
        return parse_unexpected(p, "true or false");
    *out = parse_at_word(p, "true");
    parse_next(p);
    return ZM_OK;
}

Status parse_choice(Parser *p, const char *const *words, const char *what, int *out)
{
    if (p->tok.kind != TK_WORD) return parse_unexpected(p, what);
    *out = text_word(words, p->tok.text, strlen(p->tok.text));
    if (*out == WORD_NONE) {
        Str all = {0};
        for (int i = 0; words[i]; i++) str_addf(&all, "%s%s", i ? ", " : "", words[i]);
        diag_error(p->diag, p->tok.pos, E_IR_UNKNOWN, "'%s' is not %s: there are %s", p->tok.text,
                   what, str_c(&all));
        str_free(&all);
        return ZM_FAIL;
    }
    parse_next(p);
    return ZM_OK;
}

Status parse_int_list(Parser *p, const int64_t **at, uint32_t *n)
{
    VEC(int64_t) list = {0};
    ZM_TRY(parse_expect(p, '['));
    while (!parse_at(p, ']')) {
        if (list.n) ZM_TRY(parse_expect(p, ','));
        SrcPos pos = p->tok.pos;
        int64_t v;
        ZM_TRY(parse_int(p, &v));
        if (v > PARSE_MAX_INT || v < -PARSE_MAX_INT)
            return diag_error(p->diag, pos, E_IR_TYPE, "%lld is too large for a list",
                              (long long)v);
        VEC_PUSH(p->m->arena, &list, v);
    }
    *at = list.at;
    *n = list.n;
    return parse_expect(p, ']');
}

static bool dims_are_huge(const int64_t *dim, int rank)
{
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        if (__builtin_mul_overflow(n, dim[i], &n) || n > PARSE_MAX_ELEMS) return true;
    return false;
}

bool parse_type_is_huge(const Type *t)
{
    return dims_are_huge(t->dim, t->rank);
}

static Status parse_axis(Parser *p, MeshAxis *out)
{
    SrcPos pos = p->tok.pos;
    const char *name;
    ZM_TRY(parse_word(p, "an axis of the mesh", &name));
    *out = mesh_axis_from_name(name, strlen(name));
    if (*out != MESH_NONE) return ZM_OK;
    return diag_error(p->diag, pos, E_IR_UNKNOWN, "'%s' is not an axis of the mesh", name);
}

/* One dimension, "4" or "data:4". */
static Status parse_dim(Parser *p, int i, int64_t *dim, uint8_t *axis)
{
    SrcPos pos = p->tok.pos;
    MeshAxis over = MESH_NONE;
    if (p->tok.kind == TK_WORD) {
        ZM_TRY(parse_axis(p, &over));
        ZM_TRY(parse_expect(p, ':'));
    }
    ZM_TRY(parse_int(p, dim));
    *axis = (uint8_t)over;
    if (*dim > 0) return ZM_OK;
    return diag_error(p->diag, pos, E_IR_TYPE, "dimension %d is %lld", i, (long long)*dim);
}

/* "[4,data:8]" */
static Status parse_dims(Parser *p, Type *t)
{
    SrcPos pos = p->tok.pos;
    ZM_TRY(parse_expect(p, '['));
    while (!parse_at(p, ']')) {
        if (t->rank) ZM_TRY(parse_expect(p, ','));
        if (t->rank == ZM_MAX_RANK)
            return diag_error(p->diag, pos, E_IR_TYPE, "the rank is above the limit of %d",
                              ZM_MAX_RANK);
        ZM_TRY(parse_dim(p, t->rank, &t->dim[t->rank], &t->axis[t->rank]));
        for (int i = 0; i < t->rank; i++)
            if (t->axis[i] && t->axis[i] == t->axis[t->rank])
                return diag_error(p->diag, pos, E_IR_TYPE, "two dimensions over the axis '%s'",
                                  mesh_axis_name((MeshAxis)t->axis[i]));
        t->rank++;
    }
    return parse_expect(p, ']');
}

Status parse_type(Parser *p, const Type **out)
{
    SrcPos pos = p->tok.pos;
    const char *name;
    ZM_TRY(parse_word(p, "a type", &name));
    DType dt = dtype_from_name(name, strlen(name));
    if (dt == DT_NONE)
        return diag_error(p->diag, pos, E_IR_UNKNOWN,
                          "'%s' is not an element type: there are i1, i32, bf16, f16, f32, f64",
                          name);
    Type t = {.dtype = dt};
    ZM_TRY(parse_dims(p, &t));
    if (dims_are_huge(t.dim, t.rank))
        return diag_error(p->diag, pos, E_IR_TYPE, "the tensor has more than 2^48 elements");
    while (parse_at(p, '+')) {
        MeshAxis axis;
        parse_next(p);
        ZM_TRY(parse_axis(p, &axis));
        t.partial |= (uint8_t)(1u << axis);
    }
    *out = type_placed(p->m, type_get(p->m, dt, t.rank, t.dim), t.axis, t.partial);
    return ZM_OK;
}

static Status parse_place_field(Parser *p, const char *name, int64_t *out)
{
    if (!parse_at_word(p, name)) return parse_unexpected(p, name);
    parse_next(p);
    ZM_TRY(parse_expect(p, '='));
    return parse_int(p, out);
}

Status parse_place(Parser *p, Place *out)
{
    if (p->tok.kind != TK_VAR || strcmp(p->tok.text, "arena") != 0) return ZM_OK;
    SrcPos pos = p->tok.pos;
    int64_t offset, bytes, from, to;
    const char *cat;
    parse_next(p);
    ZM_TRY(parse_expect(p, '+'));
    ZM_TRY(parse_int(p, &offset));
    ZM_TRY(parse_place_field(p, "bytes", &bytes));
    ZM_TRY(parse_place_field(p, "live", &from));
    ZM_TRY(parse_expect(p, '.'));
    ZM_TRY(parse_expect(p, '.'));
    ZM_TRY(parse_int(p, &to));
    if (!parse_at_word(p, "cat")) return parse_unexpected(p, "cat");
    parse_next(p);
    ZM_TRY(parse_expect(p, '='));
    ZM_TRY(parse_name(p, "a category", &cat));
    const int64_t limit = PARSE_MAX_ELEMS * 8;
    if (offset < 0 || offset > limit || bytes <= 0 || bytes > limit || from < INT32_MIN ||
        from > INT32_MAX || to < INT32_MIN || to > INT32_MAX)
        return diag_error(p->diag, pos, E_IR_TYPE, "this place is outside of any arena");
    *out = (Place){offset, bytes, (int32_t)from, (int32_t)to, cat};
    return ZM_OK;
}

Status parse_fields(Parser *p, FieldFn field, void *arg)
{
    ZM_TRY(parse_expect(p, '{'));
    for (bool is_first = true; !parse_at(p, '}'); is_first = false) {
        if (!is_first) ZM_TRY(parse_expect(p, ','));
        Token key = p->tok;
        const char *name;
        ZM_TRY(parse_word(p, "a name", &name));
        ZM_TRY(parse_expect(p, '='));
        ZM_TRY(field(p, arg, &key));
    }
    return parse_expect(p, '}');
}
