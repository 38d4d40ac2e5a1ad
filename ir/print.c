/* print.c -- textual IR (docs/ir.md).  parse(print(m)) prints the same bytes: values without a name
 * are numbered in order of definition, equal names get a suffix, locations are numbered in order of
 * first use, and what has its default is left out. */
#include "ir/ir.h"

#include <string.h>

#include "ir/text.h"

typedef struct Printer {
    const Module *m;
    Str *out;
    Arena *scratch;
    uint32_t *loc_number; /* by LocId: number + 1, 0 = not used yet; NULL: no locations */
    VEC(LocId) locs;      /* in order of number */
} Printer;

static void print_name(Str *out, const char *name)
{
    if (text_is_plain_name(name))
        str_add(out, name);
    else
        str_add_json(out, name);
}

static void print_type(Str *out, const Type *t)
{
    char text[TYPE_TEXT_MAX];
    type_put(t, text);
    str_add(out, text);
}

static void print_place(Str *out, const Place *p)
{
    if (p->bytes == 0) return;
    str_addf(out, " @arena+%lld bytes=%lld live=%d..%d cat=", (long long)p->offset,
             (long long)p->bytes, p->live_from, p->live_to);
    print_name(out, p->cat ? p->cat : "");
}

/* ---- locations ---- */

static void print_pos(const Printer *p, SrcPos pos)
{
    const SourceSet *s = p->m->sources;
    str_add_json(p->out, s && pos.source < s->all.n ? s->all.at[pos.source].name : "");
    str_addf(p->out, ":%u:%u+%u", pos.line, pos.col, pos.len);
}

/* Gives loc and its ancestors numbers, the oldest first. */
static void number_loc(Printer *p, LocId loc)
{
    VEC(LocId) chain = {0};
    for (; loc_ok(loc) && !p->loc_number[loc.i]; loc = loc_get(p->m, loc)->parent)
        VEC_PUSH(p->scratch, &chain, loc);
    while (chain.n > 0) {
        LocId next = chain.at[--chain.n];
        VEC_PUSH(p->scratch, &p->locs, next);
        p->loc_number[next.i] = p->locs.n;
    }
}

static void print_loc(Printer *p, LocId loc)
{
    if (!p->loc_number || !loc_ok(loc)) return;
    number_loc(p, loc);
    str_addf(p->out, " !%u", p->loc_number[loc.i] - 1);
}

static void print_loc_table(Printer *p)
{
    if (p->locs.n) str_add(p->out, "\n");
    for (uint32_t i = 0; i < p->locs.n; i++) {
        const Loc *l = loc_get(p->m, p->locs.at[i]);
        str_addf(p->out, "!%u = ", i);
        if (loc_ok(l->parent)) {
            str_addf(p->out, "!%u ", p->loc_number[l->parent.i] - 1);
            print_name(p->out, l->pass);
            str_add(p->out, " ");
            str_add_json(p->out, l->why);
        } else {
            print_pos(p, l->pos);
        }
        str_add(p->out, "\n");
    }
}

/* ---- names of values ---- */

typedef struct Labels {
    Interner strings;
    Map taken; /* interned name -> next suffix to try */
    const char **of;
    uint32_t n_numbers;
} Labels;

static uint64_t pointer_key(const char *interned)
{
    return (uint64_t)(uintptr_t)interned;
}

/* name itself, or name.N when an earlier value has it. */
static const char *unique_name(Labels *l, Arena *a, const char *name)
{
    const char *base = intern(&l->strings, name);
    uint32_t next = map_get(&l->taken, pointer_key(base));
    const char *used = base;
    if (next != MAP_NONE) {
        do {
            used = intern(&l->strings, arena_printf(a, "%s.%u", base, next++));
        } while (map_get(&l->taken, pointer_key(used)) != MAP_NONE);
        map_put(&l->taken, pointer_key(base), next);
    }
    map_put(&l->taken, pointer_key(used), 1);
    return used;
}

static void label_value(Labels *l, Arena *a, const Func *f, ValueId v)
{
    const char *name = value_cget(f, v)->name;
    if (!name) {
        l->of[v.i] = arena_printf(a, "%u", l->n_numbers++);
        return;
    }
    name = unique_name(l, a, name);
    if (!text_is_plain_name(name)) {
        Str quoted = {0};
        str_add_json(&quoted, name);
        name = arena_strdup(a, quoted.at);
        str_free(&quoted);
    }
    l->of[v.i] = name;
}

static const char **label_values(Arena *a, const Func *f)
{
    Labels l = {.strings = {.arena = a}, .taken = {.arena = a}};
    l.of = ARENA_ARRAY(a, const char *, f->values.n);
    for (uint32_t i = 0; i < f->values.n; i++) l.of[i] = "?"; /* not defined: a broken function */
    for (uint32_t i = 0; i < f->params.n; i++) label_value(&l, a, f, f->params.at[i]);
    FOR_OPS(f, op)
    {
        const Op *o = op_cget(f, op);
        for (uint32_t i = 0; i < o->n_out; i++) label_value(&l, a, f, o->out[i]);
    }
    return l.of;
}

/* ---- ops ---- */

static void print_attr(Str *out, const Attr *a)
{
    str_addf(out, "%s = ", attr_name(a->key));
    switch (attr_kind(a->key)) {
    case AK_INT: str_addf(out, "%lld", (long long)a->as.i); break;
    case AK_FLOAT: str_add_f64(out, a->as.f); break;
    case AK_BOOL: str_add(out, a->as.i ? "true" : "false"); break;
    case AK_STR: str_add_json(out, a->as.s); break;
    case AK_LIST:
        str_add(out, "[");
        for (uint32_t i = 0; i < a->as.list.n; i++)
            str_addf(out, "%s%lld", i ? ", " : "", (long long)a->as.list.at[i]);
        str_add(out, "]");
        break;
    case AK_DTYPE: str_add(out, dtype_name((DType)a->as.i)); break;
    }
}

static void print_attrs(Str *out, const Func *f, const Op *o)
{
    const Type *result = o->n_out == 1 ? value_type(f, o->out[0]) : NULL;
    uint32_t n = 0;
    for (uint32_t i = 0; i < o->attrs.n; i++) {
        const Attr *a = &o->attrs.at[i];
        if (a->key == AT_VAR || (result && text_attr_follows_type(a, result))) continue;
        str_add(out, n++ ? ", " : " {");
        print_attr(out, a);
    }
    if (n) str_add(out, "}");
}

static void print_params(Str *out, const Func *f, const char *const *label)
{
    str_add(out, "(");
    for (uint32_t i = 0; i < f->params.n; i++) {
        const Value *v = value_cget(f, f->params.at[i]);
        str_addf(out, "%s%%%s: ", i ? ", " : "", label[f->params.at[i].i]);
        print_type(out, v->type);
        print_place(out, &v->place);
    }
    str_add(out, ")");
}

static void print_block(Printer *p, const Func *f, const char *const *label, int depth);

static void print_result_types(Str *out, const Func *f, const Op *o)
{
    for (uint32_t i = 0; i < o->n_out; i++) {
        const Value *v = value_cget(f, o->out[i]);
        str_add(out, i ? ", " : " : ");
        print_type(out, v->type);
        print_place(out, &v->place);
    }
}

static void print_op(Printer *p, const Func *f, const char *const *label, const Op *o, int depth)
{
    Str *out = p->out;
    str_addf(out, "%*s", 2 * depth, "");
    for (uint32_t i = 0; i < o->n_out; i++)
        str_addf(out, "%s%%%s", i ? ", " : "", label[o->out[i].i]);
    str_addf(out, "%s%s", o->n_out ? " = " : "", op_info(o->code)->name);
    const char *var = attr_str(o->attrs, AT_VAR);
    if (var) {
        str_add(out, " @");
        print_name(out, var);
    }
    for (uint32_t i = 0; i < o->n_in; i++)
        str_addf(out, "%s%%%s", i || var ? ", " : " ",
                 o->in[i].i < f->values.n ? label[o->in[i].i] : "?");
    print_attrs(out, f, o);
    if (o->body) {
        const char **inner = label_values(p->scratch, o->body);
        str_add(out, " ");
        print_params(out, o->body, inner);
        print_block(p, o->body, inner, depth);
    }
    print_result_types(out, f, o);
    print_loc(p, o->loc);
    str_add(out, "\n");
}

/* " {", the ops, "}"; recursion: a body of a fused op holds no other. */
static void print_block(Printer *p, const Func *f, const char *const *label, int depth)
{
    str_add(p->out, " {\n");
    FOR_OPS(f, op) print_op(p, f, label, op_cget(f, op), depth + 1);
    str_addf(p->out, "%*s}", 2 * depth, "");
}

static void print_func(Printer *p, const Func *f)
{
    const char **label = label_values(p->scratch, f);
    str_add(p->out, "func @");
    print_name(p->out, f->name);
    print_params(p->out, f, label);
    print_block(p, f, label, 0);
    str_add(p->out, "\n");
}

/* ---- module ---- */

static void print_init(Str *out, const Var *v)
{
    str_addf(out, "init = %s", text_inits[v->init]);
    if (v->init < INIT_CONST) return;
    str_add(out, "(");
    str_add_f64(out, v->init_a);
    str_add(out, ")");
}

static void print_var_ref(const Printer *p, const char *field, VarId id)
{
    if (!var_ok(id)) return;
    str_addf(p->out, ", %s = @", field);
    print_name(p->out, var_cget(p->m, id)->name);
}

static void print_var(Printer *p, const Var *v)
{
    Str *out = p->out;
    str_add(out, "var @");
    print_name(out, v->name);
    str_add(out, " : ");
    print_type(out, v->type);
    str_addf(out, " {kind = %s, ", var_kind_name(v->kind));
    print_init(out, v);
    if (v->has_decay) str_add(out, ", decay = true");
    if (v->is_bucket) str_add(out, ", bucket = true");
    print_var_ref(p, "in", v->in);
    if (v->in_offset) str_addf(out, ", offset = %lld", (long long)v->in_offset);
    print_var_ref(p, "of", v->of);
    str_add(out, "}");
    print_place(out, &v->place);
    print_loc(p, v->loc);
    str_add(out, "\n");
}

static void print_header(Printer *p)
{
    const Module *m = p->m;
    const struct {
        const char *name;
        int64_t v;
    } fields[] = {{"batch", m->batch}, {"items", m->items}, {"arena_bytes", m->arena_bytes}};
    str_add(p->out, "module ");
    str_add_json(p->out, m->name);
    uint32_t n = 0;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].v)
            str_addf(p->out, "%s%s = %lld", n++ ? ", " : " {", fields[i].name,
                     (long long)fields[i].v);
    for (uint32_t bit = 0, k = 0; bit < N_FACT; bit++) {
        if (!(m->facts >> bit & 1) || bit == FACT_TYPED_BIT) continue;
        if (!k) str_add(p->out, n++ ? ", facts = [" : " {facts = [");
        str_addf(p->out, "%s%s", k++ ? ", " : "", text_facts[bit]);
    }
    if (m->facts & ~(uint32_t)FACT_TYPED) str_add(p->out, "]");
    str_add(p->out, n ? "}\n" : "\n");
}

/* " = value" of a field unless it has its default. */
static void print_train_field(Str *out, const TrainField *field, const TrainConfig *t,
                              const TrainConfig *plain, uint32_t *n)
{
    const char *at = (const char *)t + field->offset, *def = (const char *)plain + field->offset;
    Str v = {0};
    bool same = true;
    switch (field->kind) {
    case TF_FLOAT:
        same = *(const double *)at == *(const double *)def;
        str_add_f64(&v, *(const double *)at);
        break;
    case TF_INT:
        same = *(const int64_t *)at == *(const int64_t *)def;
        str_addf(&v, "%lld", (long long)*(const int64_t *)at);
        break;
    case TF_BOOL:
        same = !*(const bool *)at;
        str_add(&v, "true");
        break;
    case TF_WORD:
        same = *(const int *)at == *(const int *)def;
        str_add(&v, field->words[*(const int *)at]);
        break;
    }
    if (!same) str_addf(out, "%s%s = %s", (*n)++ ? ", " : "train {", field->name, v.at);
    str_free(&v);
}

static void print_train(Printer *p)
{
    const TrainConfig *t = &p->m->train;
    uint32_t n = 0;
    for (const TrainField *f = text_train_fields; f->name; f++)
        print_train_field(p->out, f, t, &train_defaults, &n);
    if (!n && !t->pos.line) return;
    str_add(p->out, n ? "}" : "train {}");
    if (t->pos.line) {
        str_add(p->out, " at ");
        print_pos(p, t->pos);
    }
    str_add(p->out, "\n");
}

static void print_mesh(Str *out, const Module *m)
{
    uint32_t n = 0;
    for (int i = MESH_NONE + 1; i < N_MESH_AXIS; i++)
        if (m->mesh[i])
            str_addf(out, "%s%s = %lld", n++ ? ", " : "mesh {", mesh_axis_name((MeshAxis)i),
                     (long long)m->mesh[i]);
    if (n) str_add(out, "}\n");
}

static void print_feed(Str *out, const Feed *feed)
{
    str_add(out, "feed ");
    str_add_json(out, feed->input);
    str_addf(out, " {kind = %s", text_feeds[feed->kind]);
    if (feed->bound) str_addf(out, ", bound = %lld", (long long)feed->bound);
    if (feed->has_ignore) str_addf(out, ", ignore = %lld", (long long)feed->ignore);
    str_add(out, "}\n");
}

static void print_corruption(Str *out, const Corruption *c)
{
    if (c->rate == 0) return;
    str_add(out, "corruption {rate = ");
    str_add_f64(out, c->rate);
    str_add(out, ", span = ");
    str_add_f64(out, c->span);
    str_addf(out, ", mask = %lld, eos = %lld, start = %lld}\n", (long long)c->mask,
             (long long)c->eos, (long long)c->start);
}

static void print_weight_rule(Str *out, const WeightRule *w)
{
    str_addf(out, "weights %s ", text_weight_rules[w->kind]);
    str_add_json(out, w->from);
    if (w->to) {
        str_add(out, " = ");
        str_add_json(out, w->to);
    }
    str_add(out, "\n");
}

void module_print(const Module *m, Str *out)
{
    Arena scratch = {0};
    Printer p = {.m = m, .out = out, .scratch = &scratch};
    p.loc_number = ARENA_ARRAY(&scratch, uint32_t, m->locs.n);
    print_header(&p);
    print_train(&p);
    print_mesh(out, m);
    for (uint32_t i = 0; i < m->feeds.n; i++) print_feed(out, &m->feeds.at[i]);
    print_corruption(out, &m->corruption);
    for (uint32_t i = 0; i < m->weight_rules.n; i++) print_weight_rule(out, &m->weight_rules.at[i]);
    if (m->vars.n > 1) str_add(out, "\n");
    for (uint32_t i = 1; i < m->vars.n; i++) print_var(&p, &m->vars.at[i]);
    for (uint32_t i = 0; i < m->funcs.n; i++) {
        str_add(out, "\n");
        print_func(&p, m->funcs.at[i]);
    }
    print_loc_table(&p);
    arena_free(&scratch);
}

void func_print(const Func *f, Str *out)
{
    Arena scratch = {0};
    Printer p = {.m = f->m, .out = out, .scratch = &scratch};
    print_func(&p, f);
    arena_free(&scratch);
}
