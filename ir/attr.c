/* attr.c -- attributes of ops (ir.h). */
#include "ir/ir.h"

#include <string.h>

typedef struct AttrInfo {
    const char *name;
    AttrKind kind;
} AttrInfo;

static const AttrInfo attr_info[] = {
#define ATTR(ID, NAME, KIND) {NAME, AK_##KIND},
#include "ir/attrs.def"
#undef ATTR
};
_Static_assert(sizeof attr_info / sizeof *attr_info == N_ATTR && N_ATTR <= 64,
               "a bit of OpInfo.attrs each");

const char *attr_name(AttrKey key)
{
    return attr_info[key].name;
}

AttrKind attr_kind(AttrKey key)
{
    return attr_info[key].kind;
}

const Attr *attrs_find(Attrs attrs, AttrKey key)
{
    for (uint32_t i = 0; i < attrs.n; i++)
        if (attrs.at[i].key == key) return &attrs.at[i];
    return NULL;
}

int64_t attr_int(Attrs attrs, AttrKey key, int64_t otherwise)
{
    const Attr *a = attrs_find(attrs, key);
    return a ? a->as.i : otherwise;
}

double attr_float(Attrs attrs, AttrKey key, double otherwise)
{
    const Attr *a = attrs_find(attrs, key);
    return a ? a->as.f : otherwise;
}

const char *attr_str(Attrs attrs, AttrKey key)
{
    const Attr *a = attrs_find(attrs, key);
    return a ? a->as.s : NULL;
}

/* Keeps l ascending by key; a key that is there already is replaced. */
static Attr *attr_slot(AttrList *l, AttrKey key)
{
    uint32_t i = 0;
    while (i < l->n && l->at[i].key < key) i++;
    if (i == l->n || l->at[i].key != key) {
        ZM_CHECK(l->n < N_ATTR);
        memmove(&l->at[i + 1], &l->at[i], (l->n - i) * sizeof l->at[0]);
        l->n++;
    }
    l->at[i] = (Attr){.key = key};
    return &l->at[i];
}

void attr_add_int(AttrList *l, AttrKey key, int64_t v)
{
    attr_slot(l, key)->as.i = v;
}

void attr_add_float(AttrList *l, AttrKey key, double v)
{
    attr_slot(l, key)->as.f = v;
}

void attr_add_str(AttrList *l, AttrKey key, const char *s)
{
    attr_slot(l, key)->as.s = s;
}

void attr_add_list(AttrList *l, AttrKey key, const int64_t *v, uint32_t n)
{
    Attr *a = attr_slot(l, key);
    a->as.list.at = v;
    a->as.list.n = n;
}

void attr_add_shard(AttrList *l, const Type *t)
{
    if (type_is_placed(t)) attr_add_int(l, AT_SHARD, type_placing(t));
}

void attr_add_type(AttrList *l, const Type *t)
{
    attr_add_list(l, AT_SHAPE, t->dim, (uint32_t)t->rank);
    attr_add_shard(l, t);
}

Attrs attrs_copy(Module *m, const AttrList *l)
{
    Attr *at = ARENA_ARRAY(m->arena, Attr, l->n);
    for (uint32_t i = 0; i < l->n; i++) {
        at[i] = l->at[i];
        switch (attr_kind(at[i].key)) {
        case AK_STR: at[i].as.s = module_str(m, l->at[i].as.s); break;
        case AK_LIST: {
            uint32_t n = l->at[i].as.list.n;
            int64_t *copy = ARENA_ARRAY(m->arena, int64_t, n);
            if (n) memcpy(copy, l->at[i].as.list.at, n * sizeof *copy);
            at[i].as.list.at = copy;
            break;
        }
        case AK_INT:
        case AK_FLOAT:
        case AK_BOOL:
        case AK_DTYPE: break;
        }
    }
    return (Attrs){at, l->n};
}
