/* verify_async.c -- collectives in flight, and variables of which a rank holds a part (verify.h).
 *
 * From an `async` collective to its `wait` the bytes of its operand and of its result belong to it.
 * In SSA that means: nobody but the wait uses the result, and the wait uses the operand again,
 * which keeps it until then. */
#include "ir/verify.h"

static bool is_async(const Op *o)
{
    return op_takes_attr(o->code, AT_ASYNC) && attr_int(o->attrs, AT_ASYNC, 0);
}

/* The async collective that a wait ends; NULL: its first operand is not one's result. */
static const Op *awaited(const Func *f, const Op *wait)
{
    OpId def = value_cget(f, wait->in[0])->def;
    const Op *o = op_ok(def) ? op_cget(f, def) : NULL;
    return o && is_async(o) ? o : NULL;
}

static Status check_wait(const Verifier *v, const Func *f, const Op *o)
{
    const Op *start = awaited(f, o);
    if (!start)
        return verify_error(v, o->loc,
                            "%s is for %s, which is not the result of a collective "
                            "that is async",
                            verify_op_name(v, f, o), verify_name(v, f, o->in[0]));
    if (o->in[1].i != start->in[0].i)
        return verify_error(v, o->loc,
                            "wait holds %s, but the collective that it ends, %s, works on %s",
                            verify_name(v, f, o->in[1]), verify_op_name(v, f, start),
                            verify_name(v, f, start->in[0]));
    return ZM_OK;
}

/* A value in flight has one use: as the first operand of a wait. */
static Status check_users(const Verifier *v, const Func *f, const Op *o, uint32_t *n_waits)
{
    for (uint32_t i = 0; i < o->n_in; i++) {
        OpId def = value_cget(f, o->in[i])->def;
        if (!op_ok(def) || !is_async(op_cget(f, def))) continue;
        const char *name = verify_op_name(v, f, op_cget(f, def));
        if (o->code != OP_WAIT || i != 0)
            return verify_error(v, o->loc, "%s uses the result of %s before it is waited for",
                                op_info(o->code)->name, name);
        if (n_waits[o->in[i].i]++) return verify_error(v, o->loc, "%s is waited for twice", name);
    }
    return ZM_OK;
}

/* A view in a sharded bucket has bytes on several ranks: only the bucket as a whole can be read. */
static Status check_member(const Verifier *v, const Op *o)
{
    const Var *var = var_cget(v->m, var_find(v->m, attr_str(o->attrs, AT_VAR)));
    if (!var_ok(var->in)) return ZM_OK;
    const Var *in = var_cget(v->m, var_storage(v->m, var->in, NULL));
    if (!type_is_sharded(in->type)) return ZM_OK;
    return verify_error(v, o->loc,
                        "%s of @%s, which lies in the sharded @%s: no rank holds all of it.  "
                        "Gather the bucket and take a slice",
                        op_info(o->code)->name, var->name, in->name);
}

Status verify_async(const Verifier *v, const Func *f)
{
    uint32_t *n_waits = ARENA_ARRAY(v->scratch, uint32_t, f->values.n);
    FOR_OPS(f, op)
    {
        const Op *o = op_cget(f, op);
        if (o->code == OP_WAIT) ZM_TRY(check_wait(v, f, o));
        ZM_TRY(check_users(v, f, o, n_waits));
        if (o->code == OP_READ || o->code == OP_WRITE) ZM_TRY(check_member(v, o));
    }
    FOR_OPS(f, op)
    {
        const Op *o = op_cget(f, op);
        if (is_async(o) && !n_waits[o->out[0].i])
            return verify_error(v, o->loc, "%s is async, but nothing waits for it",
                                verify_op_name(v, f, o));
    }
    return ZM_OK;
}
