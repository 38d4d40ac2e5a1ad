/* parse.c -- textual IR to a module (docs/ir.md): the header, variables, sections and locations.
 * Ops: parse_func.c. */
#include "ir/parse.h"

#include <string.h>

#include "ir/text.h"

static Status no_field(Parser *p, const Token *key, const char *where)
{
    return diag_error(p->diag, key->pos, E_IR_UNKNOWN, "%s has no field '%s'", where, key->text);
}

static bool is_key(const Token *key, const char *name)
{
    return strcmp(key->text, name) == 0;
}

/* ---- module, train, feed, weights ---- */

static Status parse_facts(Parser *p)
{
    ZM_TRY(parse_expect(p, '['));
    for (bool is_first = true; !parse_at(p, ']'); is_first = false) {
        int bit;
        if (!is_first) ZM_TRY(parse_expect(p, ','));
        ZM_TRY(parse_choice(p, text_facts, "a fact", &bit));
        p->m->facts |= 1u << bit;
    }
    return parse_expect(p, ']');
}

static Status parse_header_field(Parser *p, void *arg, const Token *key)
{
    (void)arg;
    if (is_key(key, "facts")) return parse_facts(p);
    if (is_key(key, "batch")) return parse_int(p, &p->m->batch);
    if (is_key(key, "items")) return parse_int(p, &p->m->items);
    if (is_key(key, "arena_bytes")) return parse_int(p, &p->m->arena_bytes);
    return no_field(p, key, "module");
}

static Status parse_header(Parser *p)
{
    ZM_TRY(parse_name(p, "the module's name", &p->m->name));
    return parse_at(p, '{') ? parse_fields(p, parse_header_field, NULL) : ZM_OK;
}

static Status parse_train_field(Parser *p, void *arg, const Token *key)
{
    (void)arg;
    const TrainField *f = text_train_fields;
    while (f->name && !is_key(key, f->name)) f++;
    if (!f->name) return no_field(p, key, "train");
    char *at = (char *)&p->m->train + f->offset;
    int word = 0;
    switch (f->kind) {
    case TF_FLOAT: return parse_float(p, (double *)at);
    case TF_INT: return parse_int(p, (int64_t *)at);
    case TF_BOOL: return parse_bool(p, (bool *)at);
    case TF_WORD:
        ZM_TRY(parse_choice(p, f->words, f->what, &word));
        *(int *)at = word;
        return ZM_OK;
    }
    ZM_UNREACHABLE("train field");
}

static Status parse_u32(Parser *p, uint32_t *out)
{
    if (p->tok.kind != TK_INT || p->tok.i < 0 || p->tok.i > INT32_MAX)
        return parse_unexpected(p, "a line, column or length");
    *out = (uint32_t)p->tok.i;
    parse_next(p);
    return ZM_OK;
}

/* "file":line:col+len */
static Status parse_pos(Parser *p, SrcPos *out)
{
    const char *file;
    ZM_TRY(parse_str(p, "a file's name", &file));
    ZM_TRY(parse_expect(p, ':'));
    ZM_TRY(parse_u32(p, &out->line));
    ZM_TRY(parse_expect(p, ':'));
    ZM_TRY(parse_u32(p, &out->col));
    ZM_TRY(parse_expect(p, '+'));
    ZM_TRY(parse_u32(p, &out->len));
    out->source = source_find_or_add(p->m->sources, file);
    return ZM_OK;
}

static Status parse_train(Parser *p)
{
    ZM_TRY(parse_fields(p, parse_train_field, NULL));
    if (!parse_at_word(p, "at")) return ZM_OK;
    parse_next(p);
    return parse_pos(p, &p->m->train.pos);
}

static Status parse_mesh_field(Parser *p, void *arg, const Token *key)
{
    (void)arg;
    MeshAxis axis = mesh_axis_from_name(key->text, strlen(key->text));
    SrcPos pos = p->tok.pos;
    if (axis == MESH_NONE) return no_field(p, key, "mesh");
    ZM_TRY(parse_int(p, &p->m->mesh[axis]));
    if (p->m->mesh[axis] >= 2 && p->m->mesh[axis] <= MESH_MAX_RANKS) return ZM_OK;
    return diag_error(p->diag, pos, E_IR_TYPE, "an axis of the mesh has 2 to %d ranks, not %lld",
                      MESH_MAX_RANKS, (long long)p->m->mesh[axis]);
}

static Status parse_mesh(Parser *p)
{
    return parse_fields(p, parse_mesh_field, NULL);
}

static Status parse_feed_field(Parser *p, void *arg, const Token *key)
{
    Feed *feed = arg;
    if (is_key(key, "kind")) {
        int kind;
        ZM_TRY(parse_choice(p, text_feeds, "a kind of feed", &kind));
        feed->kind = (FeedKind)kind;
        return ZM_OK;
    }
    if (is_key(key, "bound")) return parse_int(p, &feed->bound);
    if (!is_key(key, "ignore")) return no_field(p, key, "feed");
    feed->has_ignore = true;
    return parse_int(p, &feed->ignore);
}

static Status parse_feed(Parser *p)
{
    Feed feed = {0};
    ZM_TRY(parse_str(p, "the input's name", &feed.input));
    ZM_TRY(parse_fields(p, parse_feed_field, &feed));
    VEC_PUSH(p->m->arena, &p->m->feeds, feed);
    return ZM_OK;
}

static Status parse_corruption_field(Parser *p, void *arg, const Token *key)
{
    Corruption *c = arg;
    if (is_key(key, "rate")) return parse_float(p, &c->rate);
    if (is_key(key, "span")) return parse_float(p, &c->span);
    if (is_key(key, "mask")) return parse_int(p, &c->mask);
    if (is_key(key, "eos")) return parse_int(p, &c->eos);
    return is_key(key, "start") ? parse_int(p, &c->start) : no_field(p, key, "corruption");
}

static Status parse_corruption(Parser *p)
{
    return parse_fields(p, parse_corruption_field, &p->m->corruption);
}

static Status parse_weight_rule(Parser *p)
{
    WeightRule w = {0};
    int kind;
    ZM_TRY(parse_choice(p, text_weight_rules, "a weight rule", &kind));
    w.kind = (WeightRuleKind)kind;
    ZM_TRY(parse_str(p, "a string", &w.from));
    if (w.kind == WR_ALIAS || w.kind == WR_RENAME) {
        ZM_TRY(parse_expect(p, '='));
        ZM_TRY(parse_str(p, "a string", &w.to));
    }
    VEC_PUSH(p->m->arena, &p->m->weight_rules, w);
    return ZM_OK;
}

/* ---- variables ---- */

static Status parse_init(Parser *p, Var *v)
{
    int init;
    ZM_TRY(parse_choice(p, text_inits, "an initial value", &init));
    v->init = (InitKind)init;
    if (v->init < INIT_CONST) return ZM_OK;
    ZM_TRY(parse_expect(p, '('));
    ZM_TRY(parse_float(p, &v->init_a));
    return parse_expect(p, ')');
}

/* @name of another variable; resolved at the end, since either may come first. */
static Status parse_var_ref(Parser *p, bool is_of)
{
    if (p->tok.kind != TK_VAR) return parse_unexpected(p, "a variable");
    VarFix fix = {{p->m->vars.n}, p->tok.text, is_of, p->tok.pos};
    VEC_PUSH(p->m->arena, &p->var_fixes, fix);
    parse_next(p);
    return ZM_OK;
}

static Status parse_var_field(Parser *p, void *arg, const Token *key)
{
    Var *v = arg;
    if (is_key(key, "kind")) {
        const char *words[N_VAR_KIND + 1] = {0};
        for (int k = 0; k < N_VAR_KIND; k++) words[k] = var_kind_name((VarKind)k);
        int kind;
        ZM_TRY(parse_choice(p, words, "a kind of variable", &kind));
        v->kind = (VarKind)kind;
        return ZM_OK;
    }
    if (is_key(key, "init")) return parse_init(p, v);
    if (is_key(key, "decay")) return parse_bool(p, &v->has_decay);
    if (is_key(key, "bucket")) return parse_bool(p, &v->is_bucket);
    if (is_key(key, "offset")) return parse_int(p, &v->in_offset);
    if (is_key(key, "in")) return parse_var_ref(p, false);
    if (is_key(key, "of")) return parse_var_ref(p, true);
    return no_field(p, key, "var");
}

static Status parse_var(Parser *p)
{
    Var v = {0};
    Token name = p->tok;
    if (name.kind != TK_VAR || !*name.text) return parse_unexpected(p, "the variable's @name");
    parse_next(p);
    if (var_ok(var_find(p->m, name.text)))
        return diag_error(p->diag, name.pos, E_IR_STRUCTURE, "variable @%s is defined twice",
                          name.text);
    v.name = name.text;
    ZM_TRY(parse_expect(p, ':'));
    ZM_TRY(parse_type(p, &v.type));
    if (parse_at(p, '{')) ZM_TRY(parse_fields(p, parse_var_field, &v));
    ZM_TRY(parse_place(p, &v.place));
    if (p->tok.kind == TK_LOC) {
        LocFix fix = {.var = {p->m->vars.n}, .number = (uint32_t)p->tok.i, .pos = p->tok.pos};
        VEC_PUSH(p->m->arena, &p->loc_fixes, fix);
        parse_next(p);
    } else {
        v.loc = loc_source(p->m, name.pos);
    }
    var_new(p->m, v);
    return ZM_OK;
}

static void resolve_vars(Parser *p)
{
    for (uint32_t i = 0; i < p->var_fixes.n; i++) {
        const VarFix *fix = &p->var_fixes.at[i];
        VarId target = var_find(p->m, fix->name);
        if (!var_ok(target))
            diag_error(p->diag, fix->pos, E_IR_UNKNOWN, "variable @%s is not defined", fix->name);
        else if (fix->is_of && fix->var.i < p->m->vars.n)
            var_get(p->m, fix->var)->of = target;
        else if (fix->var.i < p->m->vars.n)
            var_get(p->m, fix->var)->in = target;
    }
}

/* ---- locations ---- */

static LocId find_loc(const Parser *p, uint32_t number)
{
    uint32_t i = map_get(&p->locs, number);
    return (LocId){i == MAP_NONE ? 0 : i};
}

static Status parse_derived(Parser *p, LocId *out)
{
    LocId parent = find_loc(p, (uint32_t)p->tok.i);
    const char *pass, *why;
    if (!loc_ok(parent))
        return diag_error(p->diag, p->tok.pos, E_IR_UNKNOWN, "location !%lld is not defined above",
                          (long long)p->tok.i);
    parse_next(p);
    ZM_TRY(parse_name(p, "a pass", &pass));
    ZM_TRY(parse_str(p, "the reason in quotes", &why));
    *out = loc_derive(p->m, parent, pass, why);
    return ZM_OK;
}

/* "!3 = "file":12:3+8" or "!9 = !3 pass "why"" */
static Status parse_loc_entry(Parser *p)
{
    Token name = p->tok;
    LocId loc;
    parse_next(p);
    ZM_TRY(parse_expect(p, '='));
    if (p->tok.kind == TK_LOC) {
        ZM_TRY(parse_derived(p, &loc));
    } else {
        SrcPos pos = {0};
        ZM_TRY(parse_pos(p, &pos));
        loc = loc_source(p->m, pos);
    }
    if (loc_ok(find_loc(p, (uint32_t)name.i)))
        return diag_error(p->diag, name.pos, E_IR_STRUCTURE, "location !%lld is defined twice",
                          (long long)name.i);
    map_put(&p->locs, (uint64_t)name.i, loc.i);
    return ZM_OK;
}

static void resolve_locs(Parser *p)
{
    for (uint32_t i = 0; i < p->loc_fixes.n; i++) {
        const LocFix *fix = &p->loc_fixes.at[i];
        LocId loc = find_loc(p, fix->number);
        if (!loc_ok(loc))
            diag_error(p->diag, fix->pos, E_IR_UNKNOWN, "location !%u is not defined", fix->number);
        else if (fix->f)
            op_get(fix->f, fix->op)->loc = loc;
        else if (fix->var.i < p->m->vars.n)
            var_get(p->m, fix->var)->loc = loc;
    }
}

/* ---- file ---- */

static const struct Section {
    const char *word;
    Status (*parse)(Parser *p);
} sections[] = {{"module", parse_header},
                {"train", parse_train},
                {"mesh", parse_mesh},
                {"feed", parse_feed},
                {"corruption", parse_corruption},
                {"weights", parse_weight_rule},
                {"var", parse_var},
                {"func", parse_func}};

static Status parse_section(Parser *p)
{
    if (p->tok.kind == TK_LOC) return parse_loc_entry(p);
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        if (!parse_at_word(p, sections[i].word)) continue;
        parse_next(p);
        return sections[i].parse(p);
    }
    return parse_unexpected(p, "module, train, mesh, feed, weights, var, func or a location");
}

Module *module_parse(Arena *arena, SourceSet *sources, Diag *diag, const char *file,
                     const char *text, size_t n)
{
    uint32_t before = diag->n_errors;
    Parser p = {.m = module_new(arena, sources, diag), .diag = diag, .locs = {.arena = arena}};
    p.lex = (Lexer){.m = p.m,
                    .diag = diag,
                    .p = text,
                    .end = text + n,
                    .line_start = text,
                    .source = source_add(sources, file, text, n),
                    .line = 1};
    p.tok = lex_next(&p.lex);
    while (p.tok.kind != TK_EOF && !diag_is_full(diag)) {
        const char *start = p.lex.p;
        if (parse_section(&p) == ZM_OK) continue;
        if (p.lex.p == start) parse_next(&p);
        parse_recover(&p);
    }
    resolve_vars(&p);
    resolve_locs(&p);
    return diag->n_errors == before ? p.m : NULL;
}
