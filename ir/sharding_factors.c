/* sharding_factors.c -- placings by factors: each dimension of an op's operands and results is a
 * factor of its FACTORS text (docs/ir.md).  A factor has one axis, or none, wherever the op has it.
 */
#include "ir/sharding_rules.h"

#include <string.h>

enum { N_LETTER = 26, N_FACTOR = N_LETTER + ZM_MAX_RANK, NO_FACTOR = -1 };

typedef struct Pattern {
    const char *at;
    size_t n;
} Pattern;

/* What the operands say of a factor. */
typedef struct Factor {
    bool is_known;
    uint8_t axis;
    uint32_t operand; /* that said it ... */
    int dim;          /* ... of this dimension */
} Factor;

typedef struct FactorTable {
    Factor at[N_FACTOR];
} FactorTable;

/* ---- reading FACTORS ---- */

/* The pattern up to ',', "->" or '!'; *text moves behind it and a ','. */
static Pattern next_pattern(const char **text)
{
    Pattern p = {*text, strcspn(*text, ",-!")};
    *text += p.n + ((*text)[p.n] == ',');
    return p;
}

/* Factors of t's dimensions after '?': the last letters; a dimension of size 1 that is not sharded
 * is repeated. */
static void broadcast_factors(Pattern p, const Type *t, int *factor)
{
    int missing = (int)p.n - 1 - t->rank;
    for (int i = 0; i < t->rank; i++) {
        bool is_repeated = t->dim[i] == 1 && !t->axis[i];
        factor[i] = is_repeated ? NO_FACTOR : p.at[1 + missing + i] - 'a';
    }
}

/* Factors of t's dimensions; `along`: how many dimensions the first of two '*' stands for. */
static void pattern_factors(Pattern p, const Type *t, int along, int *factor)
{
    int n_letters = 0, n_stars = 0, n = 0, star = 0;
    if (p.n && p.at[0] == '?') {
        broadcast_factors(p, t, factor);
        return;
    }
    for (size_t i = 0; i < p.n; i++) n_stars += p.at[i] == '*';
    n_letters = (int)p.n - n_stars;
    for (size_t i = 0; i < p.n; i++) {
        if (p.at[i] != '*') {
            factor[n++] = p.at[i] - 'a';
            continue;
        }
        int size = t->rank - n_letters - star;
        if (n_stars == 2 && star == 0) size = along;
        for (int k = 0; k < size; k++) factor[n++] = N_LETTER + star++;
        n_stars = n_stars == 2 ? 3 : n_stars; /* the second takes the rest */
    }
    ZM_CHECK(n == t->rank);
}

/* trans_a, trans_b */
static void swap_last(Attrs attrs, uint32_t operand, const Type *t, int *factor)
{
    if (operand > 1 || !attr_int(attrs, operand ? AT_TRANS_B : AT_TRANS_A, 0)) return;
    int last = factor[t->rank - 1];
    factor[t->rank - 1] = factor[t->rank - 2];
    factor[t->rank - 2] = last;
}

/* ---- operands ---- */

static const char *axis_text(const Sharding *s, uint8_t axis)
{
    if (!axis) return "not sharded";
    return arena_printf(s->t->m->arena, "sharded over axis '%s'", mesh_axis_name((MeshAxis)axis));
}

static const char *add_factor(const Sharding *s, FactorTable *table, int id, uint32_t operand,
                              int dim)
{
    const TypeIn *t = s->t;
    Factor *f = &table->at[id];
    uint8_t axis = t->in[operand]->axis[dim];
    if (!f->is_known) *f = (Factor){true, axis, operand, dim};
    int64_t extent = t->in[operand]->dim[dim];
    if (f->axis == axis && extent != t->in[f->operand]->dim[f->dim])
        REFUSE("dimension %d of operand %u, %s, is sharded and so not repeated", dim, operand,
               TEXT(t->in[operand]));
    if (f->axis == axis) return NULL;
    REFUSE("dimension %d of operand %u, %s, is %s, dimension %d of operand %u, %s, is %s", f->dim,
           f->operand, TEXT(t->in[f->operand]), axis_text(s, f->axis), dim, operand,
           TEXT(t->in[operand]), axis_text(s, axis));
}

static bool is_key(const Sharding *s, const Type *t)
{
    return t->dtype == DT_I32 && op_takes_attr(s->code, AT_STREAM);
}

static const char *read_operands(const Sharding *s, FactorTable *table, const char **text)
{
    const TypeIn *t = s->t;
    Pattern p = {0};
    for (uint32_t i = 0; i < t->n_in; i++) {
        int factor[ZM_MAX_RANK];
        if (**text != '-')
            p = next_pattern(text); /* the last one is that of all further operands */
        if (is_key(s, t->in[i])) continue;
        pattern_factors(p, t->in[i], (int)attr_int(t->attrs, AT_AXIS, 0), factor);
        swap_last(t->attrs, i, t->in[i], factor);
        for (int d = 0; d < t->in[i]->rank; d++)
            if (factor[d] != NO_FACTOR) NEED(add_factor(s, table, factor[d], i, d));
    }
    while (**text != '-') (void)next_pattern(text);
    *text += 2;
    return NULL;
}

/* Those after '!' are whole on every rank. */
static const char *check_whole(const Sharding *s, const FactorTable *table, const char *letters)
{
    const TypeIn *t = s->t;
    for (; *letters; letters++) {
        const Factor *f = &table->at[*letters - 'a'];
        if (f->axis)
            REFUSE("needs all of dimension %d of operand %u, %s, which is sharded over axis '%s'",
                   f->dim, f->operand, TEXT(t->in[f->operand]), mesh_axis_name((MeshAxis)f->axis));
    }
    return NULL;
}

/* ---- results ---- */

/* Of sdpa_grad_bias: its result is placed as the bias is. */
static const Type *bias_of(const Sharding *s)
{
    uint32_t i = s->t->n_in - 1;
    while (dtype_class(s->t->in[i]->dtype) != DTC_FLOAT) i--;
    return s->t->in[i];
}

/* A sharded factor that the result does not have was summed over one rank's part of it. */
static void place_result(const FactorTable *table, const int *factor, int rank, Placing *place)
{
    bool has[N_FACTOR] = {0};
    for (int i = 0; i < rank; i++) {
        if (factor[i] == NO_FACTOR) continue;
        has[factor[i]] = true;
        place->axis[i] = table->at[factor[i]].axis;
    }
    for (int i = 0; i < N_FACTOR; i++)
        if (table->at[i].axis && !has[i]) place->partial |= (uint8_t)(1u << table->at[i].axis);
}

const char *sharding_by_factors(const Sharding *s)
{
    const char *text = op_info(s->code)->factors;
    FactorTable table = {0};
    NEED(read_operands(s, &table, &text));
    NEED(check_whole(s, &table, strchr(text, '!') ? strchr(text, '!') + 1 : ""));
    for (int i = 0; i < op_info(s->code)->n_out; i++) {
        int factor[ZM_MAX_RANK];
        Pattern p = next_pattern(&text);
        const Type *r = p.n && p.at[0] == '?' ? bias_of(s) : s->out[i];
        pattern_factors(p, r, (int)attr_int(s->t->attrs, AT_AXIS, 0), factor);
        place_result(&table, factor, s->out[i]->rank, &s->place[i]);
    }
    return NULL;
}
