/* update.c -- the optimizer's part of @last, in the placings of its variables (zero.h).
 *
 *   stage 0     the gathered gradient updates the whole bucket on every rank
 *   stage 1, 2  masters and moments are this rank's part; without masters the state is this rank's
 *               part of the bucket.  The new part, in the parameters' dtype, is gathered into the
 *               bucket
 *   stage 3     the bucket is this rank's part itself
 *
 * Stochastic rounding draws the numbers of this rank's elements: those that one rank would draw. */
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

/* Right before its update: earlier it would keep kernels before it from joining those after it,
 * which do join at other stages, and a sum in another kernel may have other bits. */
static ValueId whole_grad(const Retype *r, Builder *b, const ZeroBucket *k)
{
    const char *name = var_cget(r->z->m, k->var)->name;
    Builder g = *b;
    g.loc = zero_loc(r->z, k, arena_printf(r->z->cx->scratch, "gather of grad.%s", name));
    return zero_collective(&g, OP_ALL_GATHER, k->shard);
}

static void place_update(Retype *r, OpId id)
{
    const Op *op = op_cget(r->f, id);
    Builder b = {.f = r->f, .before = id, .loc = op->loc};
    ZeroBucket *k = NULL;
    for (uint32_t i = 0; i < r->z->n && !k; i++)
        if (r->z->bucket[i].update.i == op->in[1].i) k = &r->z->bucket[i];
    ZM_CHECK(k);
    op_set_operand(r->f, id, 1, r->z->stage == 0 ? whole_grad(r, &b, k) : k->shard);
    if (r->z->stage > 0) op_set_operand(r->f, id, 0, state_shard(&b, op_cget(r->f, id)->in[0]));
}

/* ---- stochastic rounding ---- */

static ValueId op2(Builder *b, OpCode code, ValueId x, ValueId y)
{
    return build_binary(b, code, x, y);
}

/* i32[data:1]: the number of this rank's first element, those of rank 0 beginning at `first`;
 * modulo 2^32, as a signed number. */
static ValueId first_number(const Zero *z, Builder *b, int64_t first, int64_t part)
{
    const double wrap = 0x1p32;
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, 0);
    attr_add_list(&l, AT_SHAPE, &z->ranks, 1);
    attr_add_int(&l, AT_DTYPE, DT_I32);
    ValueId rank = build_cast(b, build1(b, OP_IOTA, NULL, 0, &l), DT_F64);
    ValueId at = op2(b, OP_ADD, op2(b, OP_MUL, rank, build_const(b, (double)part, DT_F64)),
                     build_const(b, (double)first, DT_F64));
    ValueId turns = op2(b, OP_DIV, op2(b, OP_ADD, at, build_const(b, wrap / 2, DT_F64)),
                        build_const(b, wrap, DT_F64));
    turns = op2(b, OP_MUL, build_unary(b, OP_FLOOR, turns), build_const(b, wrap, DT_F64));
    return zero_collective(b, OP_SHARD, build_cast(b, op2(b, OP_SUB, at, turns), DT_I32));
}

/* i32[3], alike on all ranks, as i32[data:3]. */
static ValueId own_copy(const Zero *z, Builder *b, ValueId v)
{
    const uint8_t axis[ZM_MAX_RANK] = {MESH_DATA};
    const int64_t row[] = {1, value_type(b->f, v)->dim[0]};
    const Type *placed = type_placed(z->m, type_get(z->m, DT_I32, 2, row), axis, 0);
    return build_reshape(b, build_broadcast(b, build_reshape(b, v, 2, row), placed), 1, row + 1);
}

/* The numbers u, drawn by build_rounding() for a whole bucket, of this rank's elements alone: its
 * key holds the number of its first one. */
static ValueId drawn_part(const Zero *z, Builder *b, ValueId u)
{
    const Op draw = *op_cget(b->f, value_cget(b->f, u)->def);
    const Op key = *op_cget(b->f, value_cget(b->f, draw.in[0])->def);
    const Op *first = op_cget(b->f, value_cget(b->f, key.in[1])->def);
    int64_t part = type_elems(value_type(b->f, u)) / z->ranks;
    double number = attr_float(first->attrs, AT_VALUE, 0);
    AttrList along = {0}, l = {0};
    attr_add_int(&along, AT_AXIS, 0);
    ValueId in[] = {own_copy(z, b, key.in[0]), first_number(z, b, (int64_t)number, part)};
    ValueId own_key = build1(b, OP_CONCAT, in, 2, &along);
    attr_add_type(&l, zero_shard_type(z, value_type(b->f, u)));
    attr_add_str(&l, AT_STREAM, attr_str(draw.attrs, AT_STREAM));
    attr_add_int(&l, AT_BATCH, part);
    return build1(b, OP_RANDOM, &own_key, 1, &l);
}

/* Is u drawn as build_rounding() draws, an element a sample? */
static bool is_drawn(const Func *f, ValueId u)
{
    OpId draw = value_cget(f, u)->def;
    if (!op_ok(draw) || op_cget(f, draw)->code != OP_RANDOM) return false;
    OpId key = value_cget(f, op_cget(f, draw)->in[0])->def;
    if (!op_ok(key) || op_cget(f, key)->code != OP_CONCAT || op_cget(f, key)->n_in != 2)
        return false;
    OpId first = value_cget(f, op_cget(f, key)->in[1])->def;
    return op_ok(first) && op_cget(f, first)->code == OP_CONST;
}

/* Random numbers beside a shard are those of its elements. */
static Status place_rounding(Retype *r, OpId id)
{
    Op op = *op_cget(r->f, id);
    Builder b = {.f = r->f, .before = id, .loc = op.loc};
    if (!is_shard(r->f, op.in[0])) return ZM_OK;
    if (!is_drawn(r->f, op.in[1]))
        return zero_refuse(r->z, op.loc, "round_bf16 takes other numbers than pass master draws");
    op_set_operand(r->f, id, 1, drawn_part(r->z, &b, op.in[1]));
    return ZM_OK;
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
        if (code == OP_ROUND_BF16) ZM_TRY(place_rounding(r, id));
        if (code == OP_WRITE) place_write(r, id);
        ZM_TRY(retype_op(r, id));
    }
    return ZM_OK;
}
