/* update.c -- the optimizer's part of @last, in the placings of its variables (zero.h).
 *
 *   stage 0     the gathered gradient updates the whole bucket on every rank
 *   stage 1, 2  masters and moments are this rank's part; without masters the state is this rank's
 *               part of the bucket.  The new part, in the parameters' dtype, is gathered into the
 *               bucket
 *   stage 3     the bucket is this rank's part itself
 *
 * Numbers that only depend on the element (stochastic rounding) are drawn for the whole bucket and
 * cut, so that they are those of one rank. */
#include "passes/zero/zero.h"

#include "passes/update_ops.h"

static bool is_shard(const Func *f, ValueId v)
{
    const Type *t = value_type(f, v);
    return t->rank == 1 && t->axis[0] == MESH_DATA;
}

static ValueId shard_of(Builder *b, ValueId v)
{
    return is_shard(b->f, v) ? v : zero_collective(b, OP_SHARD, v);
}

/* This rank's part of the parameters that the update reads, behind the cast of a 16-bit one. */
static ValueId state_shard(Builder *b, ValueId state)
{
    OpId def = value_cget(b->f, state)->def;
    if (is_shard(b->f, state) || op_cget(b->f, def)->code != OP_CAST) return shard_of(b, state);
    DType wide = value_type(b->f, state)->dtype;
    return build_cast(b, shard_of(b, op_cget(b->f, def)->in[0]), wide);
}

static void place_update(Retype *r, OpId id)
{
    const Op *op = op_cget(r->f, id);
    Builder b = {.f = r->f, .before = id, .loc = op->loc};
    ZeroBucket *k = NULL;
    for (uint32_t i = 0; i < r->z->n && !k; i++)
        if (r->z->bucket[i].update.i == op->in[1].i) k = &r->z->bucket[i];
    ZM_CHECK(k);
    op_set_operand(r->f, id, 1, r->z->stage == 0 ? k->full : k->shard);
    if (r->z->stage > 0) op_set_operand(r->f, id, 0, state_shard(&b, op_cget(r->f, id)->in[0]));
}

/* Random numbers beside a shard are those of its elements. */
static void place_rounding(Retype *r, OpId id)
{
    const Op *op = op_cget(r->f, id);
    Builder b = {.f = r->f, .before = id, .loc = op->loc};
    if (is_shard(r->f, op->in[0]))
        op_set_operand(r->f, id, 1, shard_of(&b, op_cget(r->f, id)->in[1]));
}

/* A shard goes into a whole bucket by a gather; zeros into an accumulator have its type. */
static void place_write(Retype *r, OpId id)
{
    const Op *op = op_cget(r->f, id);
    Zero *z = r->z;
    VarId v = var_find(z->m, attr_str(op->attrs, AT_VAR));
    const Var *var = var_cget(z->m, v);
    const Type *t = value_type(r->f, op->in[0]);
    OpId def = value_cget(r->f, op->in[0])->def;
    Builder b = {.f = r->f, .before = id, .loc = op->loc};
    if (t == var->type) return;
    if (op_ok(def) && op_cget(r->f, def)->code == OP_CONST && !type_is_placed(t)) {
        double value = attr_float(op_cget(r->f, def)->attrs, AT_VALUE, 0);
        op_set_operand(r->f, id, 0, build_splat(&b, value, var->type));
    } else if (is_shard(r->f, op->in[0]) && !type_is_placed(var->type)) {
        ZeroBucket *k = zero_bucket_of(z, v);
        const char *what = arena_printf(z->cx->scratch, "gather of %s", var->name);
        if (k) b.loc = zero_loc(z, k, what);
        op_set_operand(r->f, id, 0, zero_collective(&b, OP_ALL_GATHER, op->in[0]));
    }
}

Status zero_update(Retype *r, const ZeroTail *t)
{
    for (OpId id = t->start; op_ok(id); id = op_cget(r->f, id)->next) {
        OpCode code = op_cget(r->f, id)->code;
        if (op_is_update(code)) place_update(r, id);
        if (code == OP_ROUND_BF16) place_rounding(r, id);
        if (code == OP_WRITE) place_write(r, id);
        ZM_TRY(retype_op(r, id));
    }
    return ZM_OK;
}
