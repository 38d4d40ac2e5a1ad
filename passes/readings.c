/* readings.c -- see readings.h. */
#include "passes/readings.h"

static VarRange range_of(const Func *f, const Op *o)
{
    VarId v = var_find(f->m, attr_str(o->attrs, AT_VAR));
    VarRange r = {{0}, 0, 0};
    r.storage = var_storage(f->m, v, &r.from);
    r.to = r.from + type_elems(var_cget(f->m, v)->type);
    return r;
}

Readings readings_new(Arena *scratch, const Func *f)
{
    Readings r = {.a = scratch, .f = f};
    while (r.epoch.n < f->ops.n) VEC_PUSH(scratch, &r.epoch, 0);
    FOR_OPS(f, op)
    {
        const Op *o = op_cget(f, op);
        r.epoch.at[op.i] = r.writes.n;
        if (o->code == OP_WRITE) VEC_PUSH(scratch, &r.writes, range_of(f, o));
    }
    return r;
}

void readings_add(Readings *r, OpId made, OpId at)
{
    while (r->epoch.n <= made.i) VEC_PUSH(r->a, &r->epoch, 0);
    r->epoch.at[made.i] = r->epoch.at[at.i];
}

static bool read_holds(const Readings *r, OpId read, uint32_t end)
{
    VarRange x = range_of(r->f, op_cget(r->f, read));
    for (uint32_t i = r->epoch.at[read.i]; i < end; i++) {
        VarRange w = r->writes.at[i];
        if (w.storage.i == x.storage.i && w.from < x.to && x.from < w.to) return false;
    }
    return true;
}

bool reading_holds(const Readings *r, ValueId v, OpId user)
{
    uint32_t end = r->epoch.at[user.i];
    VEC(ValueId) todo = {0};
    for (;;) {
        OpId def = value_cget(r->f, v)->def;
        const Op *o = op_ok(def) && r->epoch.at[def.i] < end ? op_cget(r->f, def) : NULL;
        if (o && o->code == OP_READ && !read_holds(r, def, end)) return false;
        bool is_view = o && op_info(o->code)->lower_kind == LK_VIEW;
        for (uint32_t i = 0; is_view && i < o->n_in; i++) VEC_PUSH(r->a, &todo, o->in[i]);
        if (todo.n == 0) return true;
        v = todo.at[--todo.n];
    }
}
