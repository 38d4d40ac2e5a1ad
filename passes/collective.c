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

const char *collective_tensor(const Module *m, const Op *op)
{
    static const char *const forms[] = {"gather of ", "reduction of "};
    LocId by = loc_ok(op->loc) ? loc_by_pass(m, op->loc, "zero") : (LocId){0};
    const char *why = loc_ok(by) ? loc_get(m, by)->why : "";
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (strncmp(why, forms[i], strlen(forms[i])) == 0) return why + strlen(forms[i]);
    return NULL;
}

static const char grad_prefix[] = STATE_GRAD ".";

/* "bucket.3" of "grad.bucket.3" too. */
const char *collective_bucket_name(const Module *m, const Op *op)
{
    const char *name = collective_tensor(m, op);
    size_t n = strlen(grad_prefix);
    return name && strncmp(name, grad_prefix, n) == 0 ? name + n : name;
}

const char *collective_what(const Module *m, const Op *op)
{
    if (op->code == OP_ALL_REDUCE) return "scalars";
    const char *name = collective_tensor(m, op);
    bool is_grad = name && strncmp(name, grad_prefix, strlen(grad_prefix)) == 0;
    return op->code == OP_REDUCE_SCATTER || is_grad ? "grads" : "params";
}

bool gathers_params(const Func *f, OpId op)
{
    return op_cget(f, op)->code == OP_ALL_GATHER && is_param_bucket(f->m, read_bucket(f, op));
}

VarId collective_bucket(const Func *f, OpId op)
{
    VarId v = read_bucket(f, op);
    const char *name = collective_bucket_name(f->m, op_cget(f, op));
    if (!is_param_bucket(f->m, v) && name) v = var_find(f->m, name);
    return is_param_bucket(f->m, v) ? v : (VarId){0};
}

const char *bucket_instance(Module *m, VarId bucket)
{
    for (uint32_t i = 1; i < m->vars.n; i++)
        if (m->vars.at[i].in.i == bucket.i) return repeat_instance(m, m->vars.at[i].name, 0);
    return module_str(m, "");
}
