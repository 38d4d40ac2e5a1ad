/* scalar.c -- scalar expressions of ops.def, written out as IR ops (scalar.h).  Recursive descent;
 * the depth is that of the table's own texts. */
#include "ir/scalar.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

typedef struct Reader {
    Builder *b;
    const char *p;
    const char *names;
    const ValueId *values;
    const Type *like;
} Reader;

static ValueId read_expr(Reader *r);

static bool accept(Reader *r, const char *token)
{
    while (*r->p == ' ') r->p++;
    size_t n = strlen(token);
    if (strncmp(r->p, token, n) != 0) return false;
    /* '<' is not '<=', '=' and '!' are not '==' and '!=' */
    if (n == 1 && strchr("<>!", *token) && r->p[1] == '=') return false;
    r->p += n;
    return true;
}

static ValueId read_call(Reader *r, const char *name, size_t n)
{
    OpCode code = op_from_name(name, n);
    ZM_CHECK(code != OP_NONE && op_info(code)->traits & TR_POINTWISE);
    ValueId in[4];
    uint32_t n_in = 0;
    do {
        ZM_CHECK(n_in < 4);
        in[n_in++] = read_expr(r);
    } while (accept(r, ","));
    ZM_CHECK(accept(r, ")"));
    return build1(r->b, code, in, n_in, NULL);
}

static ValueId read_name(Reader *r)
{
    const char *start = r->p;
    while (isalnum((unsigned char)*r->p) || *r->p == '_') r->p++;
    size_t n = (size_t)(r->p - start);
    if (accept(r, "(")) return read_call(r, start, n);
    const char *at = n == 1 ? strchr(r->names, *start) : NULL;
    ZM_CHECK(at != NULL);
    return r->values[at - r->names];
}

static ValueId read_unary(Reader *r)
{
    if (accept(r, "-")) return build_unary(r->b, OP_NEG, read_unary(r));
    if (accept(r, "!")) return build_unary(r->b, OP_NOT, read_unary(r));
    if (accept(r, "(")) {
        ValueId v = read_expr(r);
        ZM_CHECK(accept(r, ")"));
        return v;
    }
    while (*r->p == ' ') r->p++;
    if (isdigit((unsigned char)*r->p)) {
        char *end;
        double v = strtod(r->p, &end);
        r->p = end;
        return build_splat(r->b, v, r->like);
    }
    return read_name(r);
}

static ValueId read_product(Reader *r)
{
    ValueId v = read_unary(r);
    for (;;) {
        if (accept(r, "*"))
            v = build_binary(r->b, OP_MUL, v, read_unary(r));
        else if (accept(r, "/"))
            v = build_binary(r->b, OP_DIV, v, read_unary(r));
        else
            return v;
    }
}

static ValueId read_sum(Reader *r)
{
    ValueId v = read_product(r);
    for (;;) {
        if (accept(r, "+"))
            v = build_binary(r->b, OP_ADD, v, read_product(r));
        else if (accept(r, "-"))
            v = build_binary(r->b, OP_SUB, v, read_product(r));
        else
            return v;
    }
}

static ValueId read_comparison(Reader *r)
{
    static const struct {
        const char *token;
        OpCode code;
    } ops[] = {{"<=", OP_LE}, {">=", OP_GE}, {"==", OP_EQ},
               {"!=", OP_NE}, {"<", OP_LT},  {">", OP_GT}};
    ValueId v = read_sum(r);
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (accept(r, ops[i].token)) return build_binary(r->b, ops[i].code, v, read_sum(r));
    return v;
}

static ValueId read_and(Reader *r)
{
    ValueId v = read_comparison(r);
    while (accept(r, "&&")) v = build_binary(r->b, OP_AND, v, read_comparison(r));
    return v;
}

static ValueId read_or(Reader *r)
{
    ValueId v = read_and(r);
    while (accept(r, "||")) v = build_binary(r->b, OP_OR, v, read_and(r));
    return v;
}

static ValueId read_expr(Reader *r)
{
    ValueId cond = read_or(r);
    if (!accept(r, "?")) return cond;
    ValueId yes = read_expr(r);
    ZM_CHECK(accept(r, ":"));
    ValueId no = read_expr(r);
    return build_select(r->b, cond, yes, no);
}

/* Start of expression `which`. */
static const char *expr_start(const char *text, uint32_t which)
{
    for (; which > 0; which--) {
        text = strchr(text, ';');
        ZM_CHECK(text != NULL);
        text++;
    }
    while (*text == ' ') text++;
    return text;
}

ValueId scalar_build(Builder *b, const char *text, uint32_t which, const char *names,
                     const ValueId *values, const Type *like)
{
    Reader r = {b, expr_start(text, which), names, values, like};
    ValueId v = read_expr(&r);
    while (*r.p == ' ') r.p++;
    ZM_CHECK(*r.p == '\0' || *r.p == ';');
    return v;
}

bool scalar_is_zero(const char *text, uint32_t which)
{
    const char *p = expr_start(text, which);
    if (*p++ != '0') return false;
    while (*p == ' ') p++;
    return *p == '\0' || *p == ';';
}

uint32_t scalar_count(const char *text)
{
    uint32_t n = 1;
    for (; *text; text++) n += *text == ';';
    return n;
}
