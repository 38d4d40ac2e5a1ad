/* alias.c -- which result of a kernel may overwrite which operand (memory.h). */
#include "passes/memory/memory.h"

static bool is_pointwise(const Op *op)
{
    return (op_info(op->code)->traits & TR_POINTWISE) != 0;
}

typedef struct AliasCheck {
    const Func *body;
    const Type *shape;
    bool *depends; /* by ValueId.i: depends on the operand, element by element of `shape` */
} AliasCheck;

/* Follows one op of the body.  False when it reads the operand at another index than its own. */
static bool follow(AliasCheck *c, const Op *op)
{
    bool touches = false;
    for (uint32_t i = 0; i < op->n_in; i++) touches |= c->depends[op->in[i].i];
    if (!touches || op->code == OP_RETURN) return true;
    if (op_info(op->code)->traits & TR_REDUCE)
        return true; /* the row's result: known before the row's last sweep */
    if (op->code == OP_RESHAPE && type_same_shape(value_type(c->body, op->out[0]), c->shape))
        return false;
    if (!is_pointwise(op) || !type_same_shape(value_type(c->body, op->out[0]), c->shape))
        return false;
    for (uint32_t i = 0; i < op->n_out; i++) c->depends[op->out[i].i] = true;
    return true;
}

/* The rows are added in place, unless the body reads the base for something else as well. */
static bool scatter_may_alias(const Func *body, ValueId result, ValueId base)
{
    OpId def = value_cget(body, result)->def;
    uint32_t n_reads = 0;
    FOR_OPS(body, op)
    {
        const Op *o = op_cget(body, op);
        for (uint32_t i = 0; i < o->n_in; i++) n_reads += o->in[i].i == base.i;
    }
    return op_ok(def) && op_cget(body, def)->code == OP_SCATTER_ADD &&
           op_cget(body, def)->in[0].i == base.i && n_reads == 1;
}

bool fused_may_alias(Arena *scratch, const Func *f, OpId op, uint32_t out, uint32_t in)
{
    const Op *o = op_cget(f, op);
    if (o->code != OP_FUSED) return false;
    const Func *body = o->body;
    const Op *ret = op_cget(body, body->last);
    ValueId result = ret->in[out], operand = body->params.at[in];
    const Type *t = value_type(body, result);
    if (t != value_type(body, operand)) return false;
    OpId made = value_cget(f, o->in[in])->def;
    if (op_ok(made) && op_cget(f, made)->code == OP_WORKSPACE) return false; /* in use to the end */
    if (scatter_may_alias(body, result, operand)) return true;
    OpId def = value_cget(body, result)->def;
    if (!op_ok(def) || !is_pointwise(op_cget(body, def))) return false;
    AliasCheck c = {body, t, ARENA_ARRAY(scratch, bool, body->values.n)};
    c.depends[operand.i] = true;
    FOR_OPS(body, i)
    if (!follow(&c, op_cget(body, i))) return false;
    /* Another result of the same iteration may be written only after this operand was read: all
     * nodes come first.  But a result of another shape may be stored in an earlier sweep only when
     * it is a row's: its bytes are its own unit. */
    return true;
}
