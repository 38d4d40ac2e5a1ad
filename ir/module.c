/* module.c -- modules, variables, functions and locations (ir.h). */
#include "ir/ir.h"

#include <string.h>

Module *module_new(Arena *arena, SourceSet *sources, Diag *diag)
{
    Module *m = ARENA_NEW(arena, Module);
    m->arena = arena;
    m->strings.arena = arena;
    m->type_map.arena = arena;
    m->var_map.arena = arena;
    m->sources = sources;
    m->diag = diag;
    m->name = module_str(m, "module");
    m->train = train_defaults;
    m->facts = FACT_TYPED;
    VEC_PUSH(arena, &m->vars, ((Var){0}));
    VEC_PUSH(arena, &m->locs, ((Loc){0}));
    return m;
}

const char *module_str(Module *m, const char *text)
{
    return intern(&m->strings, text);
}

static LocId loc_add(Module *m, Loc loc)
{
    VEC_PUSH(m->arena, &m->locs, loc);
    return (LocId){m->locs.n - 1};
}

LocId loc_source(Module *m, SrcPos pos)
{
    return loc_add(m, (Loc){.pos = pos});
}

LocId loc_derive(Module *m, LocId parent, const char *pass, const char *why)
{
    ZM_CHECK(loc_ok(parent));
    return loc_add(m,
                   (Loc){.parent = parent, .pass = module_str(m, pass), .why = module_str(m, why)});
}

const Loc *loc_get(const Module *m, LocId loc)
{
    ZM_CHECK(loc.i < m->locs.n);
    return &m->locs.at[loc.i];
}

LocId loc_by_pass(const Module *m, LocId loc, const char *pass)
{
    for (; loc_ok(loc); loc = loc_get(m, loc)->parent) {
        const Loc *l = loc_get(m, loc);
        if (l->pass && strcmp(l->pass, pass) == 0) break;
    }
    return loc;
}

SrcPos loc_pos(const Module *m, LocId loc)
{
    while (loc_ok(loc_get(m, loc)->parent)) loc = loc_get(m, loc)->parent;
    return loc_get(m, loc)->pos;
}

static const char *const var_kind_names[] = {"param", "master", "moment", "grad", "scalar"};
_Static_assert(sizeof var_kind_names / sizeof *var_kind_names == N_VAR_KIND, "one name per kind");

const char *var_kind_name(VarKind k)
{
    return var_kind_names[k];
}

static uint64_t name_key(const char *name)
{
    return hash_bytes(name, strlen(name), 0);
}

VarId var_find(const Module *m, const char *name)
{
    uint32_t i = map_get(&m->var_map, name_key(name));
    if (i == MAP_NONE) return (VarId){0};
    ZM_CHECK(strcmp(m->vars.at[i].name, name) == 0); /* 64-bit hashes of two names never met */
    return (VarId){i};
}

VarId var_new(Module *m, Var v)
{
    ZM_ASSERT(!var_ok(var_find(m, v.name)));
    v.name = module_str(m, v.name);
    VEC_PUSH(m->arena, &m->vars, v);
    map_put(&m->var_map, name_key(v.name), m->vars.n - 1);
    return (VarId){m->vars.n - 1};
}

Var *var_get(Module *m, VarId id)
{
    ZM_CHECK(id.i > 0 && id.i < m->vars.n);
    return &m->vars.at[id.i];
}

const Var *var_cget(const Module *m, VarId id)
{
    ZM_CHECK(id.i > 0 && id.i < m->vars.n);
    return &m->vars.at[id.i];
}

VarId var_storage(const Module *m, VarId id, int64_t *offset_elems)
{
    int64_t offset = 0;
    while (var_ok(var_cget(m, id)->in)) {
        offset += var_cget(m, id)->in_offset;
        id = var_cget(m, id)->in;
    }
    if (offset_elems) *offset_elems = offset;
    return id;
}

int64_t module_ranks(const Module *m)
{
    return m->mesh[MESH_DATA] > 1 ? m->mesh[MESH_DATA] : 1;
}

Func *func_new(Module *m, const char *name)
{
    Func *f = ARENA_NEW(m->arena, Func);
    f->m = m;
    f->name = module_str(m, name);
    VEC_PUSH(m->arena, &f->values, ((Value){0}));
    VEC_PUSH(m->arena, &f->ops, ((Op){0}));
    if (*name) VEC_PUSH(m->arena, &m->funcs, f);
    return f;
}

Func *func_find(const Module *m, const char *name)
{
    for (uint32_t i = 0; i < m->funcs.n; i++)
        if (strcmp(m->funcs.at[i]->name, name) == 0) return m->funcs.at[i];
    return NULL;
}

ValueId func_param(Func *f, const char *name, const Type *t)
{
    Value v = {.type = t, .index = f->params.n, .name = name ? module_str(f->m, name) : NULL};
    VEC_PUSH(f->m->arena, &f->values, v);
    ValueId id = {f->values.n - 1};
    VEC_PUSH(f->m->arena, &f->params, id);
    return id;
}
