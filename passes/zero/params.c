/* params.c -- stage 3: each rank holds its part of a bucket of parameters, and a function that
 * reads them gathers the bucket once, in front of the first reading (zero.h).  Parameters are views
 * of the gathered bucket.  Pass regather splits what would be held too long. */
#include "passes/zero/zero.h"

#include "passes/value_map.h"

typedef struct Gathers {
    Zero *z;
    Func *f;
    ValueId *whole; /* by bucket: the gathered value; none: not yet */
    ValueMap map;
} Gathers;

static ValueId gathered(Gathers *g, ZeroBucket *k, OpId before)
{
    uint32_t i = (uint32_t)(k - g->z->bucket);
    const char *name = var_cget(g->z->m, k->var)->name;
    if (!value_ok(g->whole[i])) {
        Builder b = {.f = g->f, .before = before};
        b.loc = zero_loc(g->z, k, arena_printf(g->z->cx->scratch, "gather of %s", name));
        g->whole[i] = zero_collective(&b, OP_ALL_GATHER, build_read(&b, k->var));
    }
    return g->whole[i];
}

static void replace_read(Gathers *g, OpId read)
{
    Op o = *op_cget(g->f, read);
    VarId v = var_find(g->z->m, attr_str(o.attrs, AT_VAR));
    const Var *p = var_cget(g->z->m, v);
    ZeroBucket *k = zero_bucket_of(g->z, v);
    if (!k || k->is_whole || p->in.i != k->var.i) return;
    Builder b = {.f = g->f, .before = read, .loc = o.loc};
    int64_t n = type_elems(p->type);
    ValueId flat = build_slice(&b, gathered(g, k, read), &p->in_offset, &n);
    value_map_set(&g->map, o.out[0], build_reshape(&b, flat, p->type->rank, p->type->dim));
    op_erase(g->f, read);
}

/* What was gathered before is old. */
static void forget(Gathers *g, const Op *write)
{
    ZeroBucket *k = zero_bucket_of(g->z, var_find(g->z->m, attr_str(write->attrs, AT_VAR)));
    if (k) g->whole[k - g->z->bucket] = (ValueId){0};
}

void zero_gather_params(Zero *z, Func *f)
{
    Gathers g = {.z = z, .f = f, .map = {.arena = z->cx->scratch}};
    g.whole = ARENA_ARRAY(z->cx->scratch, ValueId, z->n);
    FOR_OPS(f, op)
    {
        value_map_apply(&g.map, f, op);
        if (op_cget(f, op)->code == OP_READ) replace_read(&g, op);
        if (op_cget(f, op)->code == OP_WRITE) forget(&g, op_cget(f, op));
    }
}
