/* hash.c -- structural hash of a module: all that its text holds but locations and facts.  Values
 * count by their order of definition, so ids do not matter. */
#include "ir/ir.h"

#include <string.h>

#include "ir/text.h"

typedef struct Hasher {
    uint64_t h;
    const Module *m;
    Arena *scratch;
} Hasher;

static void hash_u64(Hasher *s, uint64_t v)
{
    s->h = hash_bytes(&v, sizeof v, s->h);
}

static void hash_f64(Hasher *s, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    hash_u64(s, bits);
}

static void hash_str(Hasher *s, const char *text)
{
    hash_u64(s, text ? strlen(text) + 1 : 0);
    if (text) s->h = hash_bytes(text, strlen(text), s->h);
}

static void hash_type(Hasher *s, const Type *t)
{
    hash_u64(s, (uint64_t)t->dtype << 16 | (uint64_t)t->rank << 8 | t->partial);
    for (int i = 0; i < t->rank; i++)
        if (t->axis[i]) hash_u64(s, (uint64_t)t->axis[i] << 8 | (uint64_t)i);
    s->h = hash_bytes(t->dim, (size_t)t->rank * sizeof t->dim[0], s->h);
}

static void hash_place(Hasher *s, const Place *p)
{
    hash_u64(s, (uint64_t)p->bytes);
    if (!p->bytes) return;
    hash_u64(s, (uint64_t)p->offset);
    hash_u64(s, (uint64_t)(uint32_t)p->live_from << 32 | (uint32_t)p->live_to);
    hash_str(s, p->cat);
}

static void hash_attrs(Hasher *s, Attrs attrs)
{
    hash_u64(s, attrs.n);
    for (uint32_t i = 0; i < attrs.n; i++) {
        const Attr *a = &attrs.at[i];
        hash_u64(s, a->key);
        switch (attr_kind(a->key)) {
        case AK_INT:
        case AK_BOOL:
        case AK_DTYPE: hash_u64(s, (uint64_t)a->as.i); break;
        case AK_FLOAT: hash_f64(s, a->as.f); break;
        case AK_STR: hash_str(s, a->as.s); break;
        case AK_LIST:
            hash_u64(s, a->as.list.n);
            for (uint32_t k = 0; k < a->as.list.n; k++) hash_u64(s, (uint64_t)a->as.list.at[k]);
            break;
        }
    }
}

/* A definition: gives v its number. */
static void hash_def(Hasher *s, const Func *f, ValueId v, uint32_t *number, uint32_t *n)
{
    const Value *val = value_cget(f, v);
    number[v.i] = ++*n;
    hash_str(s, val->name);
    hash_type(s, val->type);
    hash_place(s, &val->place);
}

/* Recursion: a body of a fused op holds no other. */
static void hash_func(Hasher *s, const Func *f)
{
    uint32_t *number = ARENA_ARRAY(s->scratch, uint32_t, f->values.n);
    uint32_t n = 0;
    hash_str(s, f->name);
    hash_u64(s, f->params.n);
    for (uint32_t i = 0; i < f->params.n; i++) hash_def(s, f, f->params.at[i], number, &n);
    FOR_OPS(f, op)
    {
        const Op *o = op_cget(f, op);
        hash_u64(s, (uint64_t)o->code << 48 | (uint64_t)o->n_in << 24 | o->n_out);
        for (uint32_t i = 0; i < o->n_in; i++) hash_u64(s, number[o->in[i].i]);
        hash_attrs(s, o->attrs);
        if (o->body) hash_func(s, o->body);
        for (uint32_t i = 0; i < o->n_out; i++) hash_def(s, f, o->out[i], number, &n);
    }
}

static void hash_var(Hasher *s, const Var *v)
{
    hash_str(s, v->name);
    hash_type(s, v->type);
    hash_u64(s, (uint64_t)v->kind << 8 | (uint64_t)v->init);
    hash_f64(s, v->init_a);
    hash_u64(s, (uint64_t)v->has_decay << 1 | v->is_bucket);
    hash_u64(s, (uint64_t)v->in.i << 32 | v->of.i);
    hash_u64(s, (uint64_t)v->in_offset);
    hash_place(s, &v->place);
}

static void hash_train(Hasher *s, const TrainConfig *t)
{
    for (const TrainField *f = text_train_fields; f->name; f++) {
        const char *at = (const char *)t + f->offset;
        switch (f->kind) {
        case TF_FLOAT: hash_f64(s, *(const double *)at); break;
        case TF_INT: hash_u64(s, (uint64_t)*(const int64_t *)at); break;
        case TF_BOOL: hash_u64(s, *(const bool *)at); break;
        case TF_WORD: hash_u64(s, (uint64_t)*(const int *)at); break;
        }
    }
}

static void hash_sections(Hasher *s)
{
    const Module *m = s->m;
    hash_str(s, m->name);
    hash_u64(s, (uint64_t)m->batch);
    hash_u64(s, (uint64_t)m->items);
    hash_u64(s, (uint64_t)m->arena_bytes);
    hash_train(s, &m->train);
    for (int i = MESH_NONE + 1; i < N_MESH_AXIS; i++)
        if (m->mesh[i]) hash_u64(s, (uint64_t)m->mesh[i] << 4 | (uint64_t)i);
    for (uint32_t i = 0; i < m->feeds.n; i++) {
        const Feed *f = &m->feeds.at[i];
        hash_str(s, f->input);
        hash_u64(s, (uint64_t)f->kind << 1 | f->has_ignore);
        hash_u64(s, (uint64_t)f->bound);
        hash_u64(s, (uint64_t)f->ignore);
    }
    const Corruption *c = &m->corruption;
    hash_f64(s, c->rate);
    hash_f64(s, c->span);
    hash_u64(s, (uint64_t)c->mask);
    hash_u64(s, (uint64_t)c->eos);
    hash_u64(s, (uint64_t)c->start);
    for (uint32_t i = 0; i < m->weight_rules.n; i++) {
        const WeightRule *w = &m->weight_rules.at[i];
        hash_u64(s, w->kind);
        hash_str(s, w->from);
        hash_str(s, w->to);
    }
}

uint64_t module_hash(const Module *m)
{
    Arena scratch = {0};
    Hasher s = {.m = m, .scratch = &scratch};
    hash_sections(&s);
    for (uint32_t i = 1; i < m->vars.n; i++) hash_var(&s, &m->vars.at[i]);
    for (uint32_t i = 0; i < m->funcs.n; i++) hash_func(&s, m->funcs.at[i]);
    arena_free(&scratch);
    return s.h;
}
