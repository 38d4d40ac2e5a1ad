/* collective.c -- see collective.h. */
#include "passes/collective.h"
#include "passes/state_names.h"

#include <string.h>

static VarId read_bucket(const Func *f, OpId op)
{
    ValueId v = op_cget(f, op)->in[0];
    for (;;) {
        OpId def = value_cget(f, v)->def;
        const Op *o = op_ok(def) ? op_cget(f, def) : NULL;
        if (o && o->code == OP_READ) return var_find(f->m, attr_str(o->attrs, AT_VAR));
        if (!o || o->code != OP_AFTER) return (VarId){0};
        v = o->in[0];
    }
}

static bool is_param_bucket(const Module *m, VarId v)
{
    return var_ok(v) && var_cget(m, v)->kind == VK_PARAM && var_cget(m, v)->is_bucket;
}

/* "gather of bucket.3", "reduction of grad.bucket.3" */
static VarId named_bucket(const Module *m, LocId loc)
{
    LocId by = loc_by_pass(m, loc, "zero");
    const char *name = loc_ok(by) ? strrchr(loc_get(m, by)->why, ' ') : NULL;
    if (!name) return (VarId){0};
    name++;
    size_t n = strlen(STATE_GRAD ".");
    return var_find(m, strncmp(name, STATE_GRAD ".", n) == 0 ? name + n : name);
}

bool gathers_params(const Func *f, OpId op)
{
    return op_cget(f, op)->code == OP_ALL_GATHER && is_param_bucket(f->m, read_bucket(f, op));
}

VarId collective_bucket(const Func *f, OpId op)
{
    VarId v = read_bucket(f, op);
    if (!is_param_bucket(f->m, v)) v = named_bucket(f->m, op_cget(f, op)->loc);
    return is_param_bucket(f->m, v) ? v : (VarId){0};
}

const char *bucket_instance(Module *m, VarId bucket)
{
    for (uint32_t i = 1; i < m->vars.n; i++)
        if (m->vars.at[i].in.i == bucket.i) return repeat_instance(m, m->vars.at[i].name, 0);
    return module_str(m, "");
}
