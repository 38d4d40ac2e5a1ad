/* parse_func.c -- functions and ops of textual IR (docs/ir.md).  A statement that fails defines its
 * results as unknown; ops that use them are checked for syntax only, so that one mistake is one
 * message. */
#include "ir/parse.h"

#include <string.h>

#include "ir/text.h"

typedef struct Def {
    ValueId id; /* none: its definition failed */
    SrcPos pos;
} Def;

typedef struct Scope {
    Func *f;
    bool is_body; /* of a fused op */
    Map names;    /* interned text -> index into defs */
    VEC(Def) defs;
} Scope;

/* An op as the text has it. */
typedef struct Statement {
    SrcPos pos; /* of the op's name */
    OpCode code;
    VEC(Token) results;
    VEC(ValueId) in;
    AttrList attrs;
    VEC(const Type *) types;
    VEC(Place) places;
    SrcPos types_pos;
    Func *body;
    bool is_unknown; /* uses a value whose definition failed */
    bool has_loc;
    uint32_t loc;
    SrcPos loc_pos;
} Statement;

static uint64_t name_key(const Token *t)
{
    return (uint64_t)(uintptr_t)t->text | t->is_number;
}

static Status define(Parser *p, Scope *s, const Token *name, ValueId id)
{
    uint32_t have = map_get(&s->names, name_key(name));
    if (have != MAP_NONE) {
        diag_error(p->diag, name->pos, E_IR_STRUCTURE, "value %s is defined twice",
                   token_describe(p->m->arena, name));
        diag_note(p->diag, s->defs.at[have].pos, "its first definition");
        return ZM_FAIL;
    }
    map_put(&s->names, name_key(name), s->defs.n);
    VEC_PUSH(p->m->arena, &s->defs, ((Def){id, name->pos}));
    return ZM_OK;
}

/* ---- pieces of a statement ---- */

static Status parse_results(Parser *p, Statement *st)
{
    if (p->tok.kind != TK_VALUE) return ZM_OK;
    do {
        if (p->tok.kind != TK_VALUE) return parse_unexpected(p, "a value");
        VEC_PUSH(p->m->arena, &st->results, p->tok);
        parse_next(p);
    } while (parse_accept(p, ','));
    return parse_expect(p, '=');
}

static Status parse_code(Parser *p, Statement *st)
{
    const char *name;
    st->pos = p->tok.pos;
    ZM_TRY(parse_word(p, "an op", &name));
    st->code = op_from_name(name, strlen(name));
    if (st->code == OP_NONE)
        return diag_error(p->diag, st->pos, E_IR_UNKNOWN, "there is no op '%s'", name);
    return ZM_OK;
}

static Status parse_operand(Parser *p, Scope *s, Statement *st)
{
    if (p->tok.kind != TK_VALUE) return parse_unexpected(p, "a value");
    uint32_t def = map_get(&s->names, name_key(&p->tok));
    if (def == MAP_NONE)
        return diag_error(p->diag, p->tok.pos, E_IR_UNKNOWN,
                          "value %s is not defined before this%s",
                          token_describe(p->m->arena, &p->tok),
                          s->is_body ? "; a body sees only its own values" : "");
    if (st->in.n == ZM_MAX_OPERANDS)
        return diag_error(p->diag, p->tok.pos, E_IR_TYPE, "more than %d operands", ZM_MAX_OPERANDS);
    if (!value_ok(s->defs.at[def].id)) st->is_unknown = true;
    VEC_PUSH(p->m->arena, &st->in, s->defs.at[def].id);
    parse_next(p);
    return ZM_OK;
}

/* "@var", then values: "write @x, %v", "add %a, %b".  They begin on the op's line: a value that
 * begins the next line is the result of the next op. */
static Status parse_operands(Parser *p, Scope *s, Statement *st)
{
    if (p->tok.pos.line != p->prev_line) return ZM_OK;
    if (p->tok.kind == TK_VAR) {
        if (!(op_info(st->code)->attrs >> AT_VAR & 1))
            return diag_error(p->diag, p->tok.pos, E_IR_TYPE, "%s takes no variable",
                              op_info(st->code)->name);
        attr_add_str(&st->attrs, AT_VAR, p->tok.text);
        parse_next(p);
        if (!parse_accept(p, ',')) return ZM_OK;
    } else if (p->tok.kind != TK_VALUE) {
        return ZM_OK;
    }
    do {
        ZM_TRY(parse_operand(p, s, st));
    } while (parse_accept(p, ','));
    return ZM_OK;
}

static bool find_attr(const char *name, AttrKey *key)
{
    for (int k = 0; k < N_ATTR; k++)
        if (strcmp(attr_name((AttrKey)k), name) == 0) {
            *key = (AttrKey)k;
            return true;
        }
    return false;
}

static Status parse_dtype(Parser *p, AttrList *l, AttrKey key)
{
    SrcPos pos = p->tok.pos;
    const char *name;
    ZM_TRY(parse_word(p, "an element type", &name));
    DType dt = dtype_from_name(name, strlen(name));
    if (dt == DT_NONE)
        return diag_error(p->diag, pos, E_IR_UNKNOWN, "'%s' is not an element type", name);
    attr_add_int(l, key, dt);
    return ZM_OK;
}

static Status parse_shape_like_list(Parser *p, AttrList *l, AttrKey key)
{
    SrcPos pos = p->tok.pos;
    const int64_t *at;
    uint32_t n;
    ZM_TRY(parse_int_list(p, &at, &n));
    if (key == AT_SHAPE && n <= ZM_MAX_RANK) { /* the type rules refuse the rest */
        Type t = {.rank = (int)n};
        for (uint32_t i = 0; i < n; i++) t.dim[i] = at[i];
        if (parse_type_is_huge(&t))
            return diag_error(p->diag, pos, E_IR_TYPE, "the tensor has more than 2^48 elements");
    }
    attr_add_list(l, key, at, n);
    return ZM_OK;
}

static Status parse_attr(Parser *p, void *arg, const Token *name)
{
    Statement *st = arg;
    AttrKey key;
    if (!find_attr(name->text, &key) || !op_takes_attr(st->code, key))
        return diag_error(p->diag, name->pos, E_IR_TYPE, "%s has no attribute '%s'",
                          op_info(st->code)->name, name->text);
    for (uint32_t i = 0; i < st->attrs.n; i++)
        if (st->attrs.at[i].key == key)
            return diag_error(p->diag, name->pos, E_IR_TYPE, "attribute '%s' is given twice",
                              name->text);
    int64_t i;
    double f;
    bool b;
    const char *s;
    switch (attr_kind(key)) {
    case AK_INT:
        ZM_TRY(parse_int(p, &i));
        attr_add_int(&st->attrs, key, i);
        break;
    case AK_FLOAT:
        ZM_TRY(parse_float(p, &f));
        attr_add_float(&st->attrs, key, f);
        break;
    case AK_BOOL:
        ZM_TRY(parse_bool(p, &b));
        attr_add_int(&st->attrs, key, b);
        break;
    case AK_STR:
        ZM_TRY(parse_str(p, "a string", &s));
        attr_add_str(&st->attrs, key, s);
        break;
    case AK_LIST: return parse_shape_like_list(p, &st->attrs, key);
    case AK_DTYPE: return parse_dtype(p, &st->attrs, key);
    }
    return ZM_OK;
}

/* ": type place, ..." */
static Status parse_types(Parser *p, Statement *st)
{
    st->types_pos = p->tok.pos;
    if (!parse_accept(p, ':')) return ZM_OK;
    st->types_pos = p->tok.pos;
    do {
        const Type *t;
        Place place = {0};
        ZM_TRY(parse_type(p, &t));
        ZM_TRY(parse_place(p, &place));
        VEC_PUSH(p->m->arena, &st->types, t);
        VEC_PUSH(p->m->arena, &st->places, place);
    } while (parse_accept(p, ','));
    return ZM_OK;
}

static Status parse_block(Parser *p, Scope *s);

static Status parse_param(Parser *p, Scope *s)
{
    Token name = p->tok;
    const Type *t;
    Place place = {0};
    if (name.kind != TK_VALUE) return parse_unexpected(p, "a parameter");
    parse_next(p);
    ZM_TRY(parse_expect(p, ':'));
    ZM_TRY(parse_type(p, &t));
    ZM_TRY(parse_place(p, &place));
    ValueId v = func_param(s->f, name.is_number ? NULL : name.text, t);
    value_get(s->f, v)->place = place;
    return define(p, s, &name, v);
}

static Status parse_params(Parser *p, Scope *s)
{
    ZM_TRY(parse_expect(p, '('));
    while (!parse_at(p, ')')) {
        if (s->f->params.n) ZM_TRY(parse_expect(p, ','));
        ZM_TRY(parse_param(p, s));
    }
    return parse_expect(p, ')');
}

static Status parse_body(Parser *p, Scope *outer, Statement *st)
{
    if (st->code != OP_FUSED || outer->is_body)
        return diag_error(p->diag, p->tok.pos, E_IR_STRUCTURE,
                          "only op fused has a body, and a body holds no other");
    Scope s = {.f = func_new(p->m, ""), .is_body = true, .names = {.arena = p->m->arena}};
    ZM_TRY(parse_params(p, &s));
    ZM_TRY(parse_block(p, &s));
    st->body = s.f;
    return ZM_OK;
}

/* ---- making the op ---- */

/* Attributes that the text leaves to the result's type. */
static void fill_attrs(Statement *st)
{
    if (st->types.n != 1) return;
    const Type *t = st->types.at[0];
    uint64_t allowed = op_info(st->code)->attrs;
    Attrs have = {st->attrs.at, st->attrs.n};
    bool no_shape = !attrs_find(have, AT_SHAPE), no_dtype = !attrs_find(have, AT_DTYPE);
    if (allowed >> AT_SHAPE & 1 && no_shape)
        attr_add_list(&st->attrs, AT_SHAPE, t->dim, (uint32_t)t->rank);
    if (allowed >> AT_SHARD & 1) attr_add_shard(&st->attrs, t);
    if (allowed >> AT_DTYPE & 1 && no_dtype) attr_add_int(&st->attrs, AT_DTYPE, t->dtype);
}

static const Type **operand_types(Parser *p, const Scope *s, const Statement *st)
{
    const Type **t = ARENA_ARRAY(p->m->arena, const Type *, st->in.n);
    for (uint32_t i = 0; i < st->in.n; i++) t[i] = value_type(s->f, st->in.at[i]);
    return t;
}

static Status check_body(Parser *p, const Scope *s, const Statement *st)
{
    const char *why = NULL;
    const Func *body = st->body;
    if (!body) return diag_error(p->diag, st->pos, E_IR_TYPE, "fused needs a body");
    if (!op_ok(body->last) || op_cget(body, body->last)->code != OP_RETURN)
        why = "the body of fused does not end with return";
    else if (body->params.n != st->in.n)
        why = arena_printf(p->m->arena, "the body has %u parameters, fused %u operands",
                           body->params.n, st->in.n);
    for (uint32_t i = 0; !why && i < st->in.n; i++)
        if (value_type(body, body->params.at[i]) != value_type(s->f, st->in.at[i]))
            why = arena_printf(p->m->arena, "parameter %u of the body is %s, the operand %s", i,
                               type_text(p->m->arena, value_type(body, body->params.at[i])),
                               type_text(p->m->arena, value_type(s->f, st->in.at[i])));
    if (!why && !attr_str((Attrs){st->attrs.at, st->attrs.n}, AT_KIND))
        why = "fused needs attribute 'kind'";
    return why ? diag_error(p->diag, st->pos, E_IR_TYPE, "%s", why) : ZM_OK;
}

static Status make_fused(Parser *p, Scope *s, Statement *st, Builder *b, OpId *op)
{
    ZM_TRY(check_body(p, s, st));
    const char *kind = attr_str((Attrs){st->attrs.at, st->attrs.n}, AT_KIND);
    *op = build_fused(b, kind, st->in.at, st->in.n, st->body);
    return ZM_OK;
}

static Status make_plain(Parser *p, Scope *s, Statement *st, Builder *b, OpId *op)
{
    const Type *out[8];
    const char *why = op_infer(p->m, st->code, operand_types(p, s, st), st->in.n,
                               (Attrs){st->attrs.at, st->attrs.n}, out);
    if (why) return diag_error(p->diag, st->pos, E_IR_TYPE, "%s: %s", op_info(st->code)->name, why);
    for (int i = 0; i < op_info(st->code)->n_out; i++)
        if (parse_type_is_huge(out[i]))
            return diag_error(p->diag, st->pos, E_IR_TYPE,
                              "%s: the result has more than 2^48 elements",
                              op_info(st->code)->name);
    *op = build_op(b, st->code, st->in.at, st->in.n, &st->attrs);
    return ZM_OK;
}

/* The types in the text against those of the op; places. */
static Status check_types(Parser *p, Scope *s, const Statement *st, OpId op)
{
    const Op *o = op_cget(s->f, op);
    const char *name = op_info(st->code)->name;
    if (st->types.n && st->types.n != o->n_out)
        return diag_error(p->diag, st->types_pos, E_IR_TYPE, "%s has %u results, the text %u types",
                          name, o->n_out, st->types.n);
    for (uint32_t i = 0; i < st->types.n; i++) {
        const Type *have = value_type(s->f, o->out[i]);
        if (have != st->types.at[i])
            return diag_error(p->diag, st->types_pos, E_IR_TYPE, "%s gives %s, the text says %s",
                              name, type_text(p->m->arena, have),
                              type_text(p->m->arena, st->types.at[i]));
        value_get(s->f, o->out[i])->place = st->places.at[i];
    }
    return ZM_OK;
}

static Status define_results(Parser *p, Scope *s, const Statement *st, OpId op)
{
    uint32_t n_out = op_cget(s->f, op)->n_out;
    if (st->results.n != n_out)
        return diag_error(p->diag, st->pos, E_IR_TYPE, "%s has %u results, the text names %u",
                          op_info(st->code)->name, n_out, st->results.n);
    for (uint32_t i = 0; i < n_out; i++) {
        const Token *name = &st->results.at[i];
        ValueId v = op_cget(s->f, op)->out[i];
        if (!name->is_number) value_get(s->f, v)->name = name->text;
        ZM_TRY(define(p, s, name, v));
    }
    return ZM_OK;
}

static Status make_op(Parser *p, Scope *s, Statement *st)
{
    if (st->is_unknown) return ZM_FAIL;
    fill_attrs(st);
    if (st->has_loc && !loc_ok(p->placeholder)) p->placeholder = loc_source(p->m, st->pos);
    Builder b = {.f = s->f, .loc = p->placeholder};
    if (!st->has_loc) b.loc = loc_source(p->m, st->pos);
    OpId op;
    ZM_TRY(st->code == OP_FUSED ? make_fused(p, s, st, &b, &op) : make_plain(p, s, st, &b, &op));
    if (st->has_loc) {
        LocFix fix = {.f = s->f, .op = op, .number = st->loc, .pos = st->loc_pos};
        VEC_PUSH(p->m->arena, &p->loc_fixes, fix);
    }
    ZM_TRY(check_types(p, s, st, op));
    return define_results(p, s, st, op);
}

/* ---- statements ---- */

static Status parse_statement_text(Parser *p, Scope *s, Statement *st)
{
    ZM_TRY(parse_results(p, st));
    ZM_TRY(parse_code(p, st));
    ZM_TRY(parse_operands(p, s, st));
    if (parse_at(p, '{')) ZM_TRY(parse_fields(p, parse_attr, st));
    if (parse_at(p, '(')) ZM_TRY(parse_body(p, s, st));
    ZM_TRY(parse_types(p, st));
    st->has_loc = p->tok.kind == TK_LOC;
    if (!st->has_loc) return ZM_OK;
    st->loc = (uint32_t)p->tok.i;
    st->loc_pos = p->tok.pos;
    parse_next(p);
    return ZM_OK;
}

static void parse_statement(Parser *p, Scope *s)
{
    Statement st = {0};
    const char *start = p->lex.p;
    bool is_read = parse_statement_text(p, s, &st) == ZM_OK;
    if (is_read && make_op(p, s, &st) == ZM_OK) return;
    for (uint32_t i = 0; i < st.results.n; i++)
        if (map_get(&s->names, name_key(&st.results.at[i])) == MAP_NONE)
            define(p, s, &st.results.at[i], (ValueId){0});
    if (is_read) return;
    if (p->lex.p == start) parse_next(p);
    parse_recover(p);
}

static Status parse_block(Parser *p, Scope *s)
{
    SrcPos open = p->tok.pos;
    ZM_TRY(parse_expect(p, '{'));
    uint32_t errors = p->diag->n_errors;
    while (!parse_at(p, '}')) {
        if (p->tok.kind == TK_EOF || parse_at_word(p, "func")) {
            parse_unexpected(p, "'}'");
            diag_note(p->diag, open, "the block begins here");
            return ZM_FAIL;
        }
        parse_statement(p, s);
        if (diag_is_full(p->diag)) return ZM_FAIL;
    }
    parse_next(p);
    return errors == p->diag->n_errors || !s->is_body ? ZM_OK : ZM_FAIL;
}

Status parse_func(Parser *p)
{
    Token name = p->tok;
    if (name.kind != TK_VAR || !*name.text) return parse_unexpected(p, "the function's @name");
    if (func_find(p->m, name.text))
        return diag_error(p->diag, name.pos, E_IR_STRUCTURE, "function @%s is defined twice",
                          name.text);
    parse_next(p);
    Scope s = {.f = func_new(p->m, name.text), .names = {.arena = p->m->arena}};
    ZM_TRY(parse_params(p, &s));
    return parse_block(p, &s);
}
