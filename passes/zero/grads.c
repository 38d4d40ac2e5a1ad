/* grads.c -- gradients: a rank's own are one summand each; a bucket of them is packed, reduced over
 * the ranks and kept as this rank's part (zero.h).
 *
 *   stage 0, 1         accumulators, if any, hold this rank's sums; @last reduces them
 *   stage 2, 3         accumulators hold this rank's part of the sum over ranks: a micro-batch's
 *                      gradients are reduced as soon as the bucket's last one is made, and added
 *     at the step      as stages 0 and 1
 *
 * A reduction stands right behind the last gradient of its bucket, so that a schedule may begin it
 * while the backward goes on. */
#include "passes/zero/zero.h"

#include "passes/update_ops.h"

/* ---- what accumulate and bucket have left ---- */

static OpId def_of(const Func *f, ValueId v)
{
    return value_cget(f, v)->def;
}

/* v without the cast that made it. */
static ValueId uncast(const Func *f, ValueId v)
{
    OpId def = def_of(f, v);
    return op_ok(def) && op_cget(f, def)->code == OP_CAST ? op_cget(f, def)->in[0] : v;
}

/* Of write @v, cast(add(cast(read @v), cast(x))): x; none: it is something else. */
static ValueId added_to(const Func *f, const Op *write, VarId v)
{
    OpId def = def_of(f, uncast(f, write->in[0]));
    if (!op_ok(def) || op_cget(f, def)->code != OP_ADD) return (ValueId){0};
    const Op *add = op_cget(f, def);
    bool is_sum = value_read_var(f, uncast(f, add->in[0])).i == v.i;
    return is_sum ? uncast(f, add->in[1]) : (ValueId){0};
}

static Status check_raw(const Zero *z, const Func *f)
{
    for (uint32_t i = 0; i < z->n; i++)
        for (uint32_t j = 0; j < z->bucket[i].n; j++)
            if (!value_ok(z->bucket[i].raw[j]))
                return zero_refuse(z, var_cget(z->m, z->bucket[i].member[j])->loc,
                                   "@%s adds no gradient of @%s to its accumulator", f->name,
                                   var_cget(z->m, z->bucket[i].member[j])->name);
    return ZM_OK;
}

/* Erases what only made v: casts, additions, readings. */
static void drop_value(Func *f, uint32_t *n_uses, ValueId v)
{
    OpId def = def_of(f, v);
    if (n_uses[v.i] || !op_ok(def)) return;
    Op o = *op_cget(f, def);
    if (o.code != OP_CAST && o.code != OP_ADD && o.code != OP_READ) return;
    op_erase(f, def);
    for (uint32_t i = 0; i < o.n_in; i++) n_uses[o.in[i].i]--;
    for (uint32_t i = 0; i < o.n_in; i++) drop_value(f, n_uses, o.in[i]);
}

static void take_addition(Zero *z, Func *f, uint32_t *n_uses, OpId write)
{
    ValueId sum = op_cget(f, write)->in[0];
    VarId v = var_find(z->m, attr_str(op_cget(f, write)->attrs, AT_VAR));
    ValueId raw = added_to(f, op_cget(f, write), v);
    if (!value_ok(raw)) return;
    zero_bucket_of(z, v)->raw[z->place[v.i]] = raw;
    op_erase(f, write);
    n_uses[raw.i]++; /* by the pack to come */
    n_uses[sum.i]--;
    drop_value(f, n_uses, sum);
}

Status zero_take_additions(Zero *z, Func *f)
{
    uint32_t *n_uses = ARENA_ARRAY(z->cx->scratch, uint32_t, f->values.n);
    FOR_OPS(f, id)
    for (uint32_t i = 0; i < op_cget(f, id)->n_in; i++) n_uses[op_cget(f, id)->in[i].i]++;
    FOR_OPS(f, id)
    {
        const Op *op = op_cget(f, id);
        if (op->code != OP_WRITE) continue;
        VarId v = var_find(z->m, attr_str(op->attrs, AT_VAR));
        ZeroBucket *k = zero_bucket_of(z, v);
        if (k && var_ok(k->grad) && var_cget(z->m, v)->in.i == k->grad.i)
            take_addition(z, f, n_uses, id);
    }
    return check_raw(z, f);
}

/* The parameters' bucket that an update reads its first operand from. */
static ZeroBucket *updated_bucket(const Zero *z, const Func *last, const Op *update)
{
    VarId v = value_read_var(last, uncast(last, update->in[0]));
    return var_ok(v) ? zero_bucket_of(z, v) : NULL;
}

/* Operands of a pack are casts to the gradients' dtype in memory, or gradients of that dtype. */
static Status find_packed(Zero *z, const Func *last, ZeroBucket *k)
{
    OpId def = def_of(last, k->update);
    const Op *pack = op_ok(def) ? op_cget(last, def) : NULL;
    if (!pack || pack->code != OP_PACK || pack->n_in != k->n)
        return zero_refuse(z, var_cget(z->m, k->var)->loc,
                           "@last updates @%s by something else than a pack of its %u gradients",
                           var_cget(z->m, k->var)->name, k->n);
    k->grad_dtype = value_type(last, k->update)->dtype;
    for (uint32_t j = 0; j < k->n; j++) k->raw[j] = uncast(last, pack->in[j]);
    return ZM_OK;
}

Status zero_find_updates(Zero *z, Func *last)
{
    for (uint32_t i = 0; i < z->n; i++) z->bucket[i].update = (ValueId){0};
    FOR_OPS(last, id)
    {
        const Op *op = op_cget(last, id);
        ZeroBucket *k = op_is_update(op->code) ? updated_bucket(z, last, op) : NULL;
        if (op_is_update(op->code) && (!k || value_ok(k->update)))
            return zero_refuse(z, op->loc, "%s is no update of one bucket",
                               op_info(op->code)->name);
        if (k) k->update = op->in[1];
    }
    for (uint32_t i = 0; i < z->n; i++) {
        ZeroBucket *k = &z->bucket[i];
        if (!value_ok(k->update))
            return zero_refuse(z, var_cget(z->m, k->var)->loc, "@last does not update @%s",
                               var_cget(z->m, k->var)->name);
        if (!var_ok(k->grad)) ZM_TRY(find_packed(z, last, k));
    }
    return ZM_OK;
}

/* ---- packing and reducing ---- */

typedef struct Reducer {
    Retype *r;
    Zero *z;
    Func *f;
    OpId end;            /* everything is to stand before this op */
    const uint32_t *pos; /* by OpId: before anything was added */
    uint32_t n_pos;
} Reducer;

/* Later of two ops; none is before all. */
static OpId later(const Reducer *d, OpId a, OpId b)
{
    if (!op_ok(a) || !op_ok(b)) return op_ok(a) ? a : b;
    return d->pos[a.i] < d->pos[b.i] ? b : a;
}

static OpId op_behind(const Func *f, OpId op)
{
    return op_ok(op) ? op_cget(f, op)->next : f->first;
}

static Status check_early(const Reducer *d, const ZeroBucket *k, OpId op)
{
    if (!op_ok(op) || !op_ok(d->end) || d->pos[op.i] < d->pos[d->end.i]) return ZM_OK;
    return zero_refuse(d->z, op_cget(d->f, op)->loc,
                       "a gradient of @%s is made behind the loss that the step reads",
                       var_cget(d->z->m, k->var)->name);
}

/* A gradient that is alike on all ranks is a constant: 0, of an unused parameter. */
static Status partial_grad(const Reducer *d, ValueId *v)
{
    int64_t partial = INT64_C(1) << (32 + MESH_DATA);
    OpId def = def_of(d->f, *v);
    const Type *t = value_type(d->f, *v);
    if (type_placing(t) == partial) return ZM_OK;
    if (!type_is_placed(t) && op_ok(def)) return retype_demand(d->r, def, *v, partial, v);
    LocId loc = op_cget(d->f, op_ok(def) ? def : d->f->first)->loc;
    return zero_refuse(d->z, loc, "a gradient is %s, no sum over the ranks",
                       type_text(d->z->cx->scratch, t));
}

/* The gradients as one flat value behind the last of them, *at. */
static Status pack_raw(const Reducer *d, const ZeroBucket *k, ValueId *out, OpId *at)
{
    ValueId *in = ARENA_ARRAY(d->z->cx->scratch, ValueId, k->n);
    int64_t *start = ARENA_ARRAY(d->z->cx->scratch, int64_t, k->n);
    OpId last = {0};
    for (uint32_t j = 0; j < k->n; j++) last = later(d, last, def_of(d->f, k->raw[j]));
    ZM_TRY(check_early(d, k, last));
    *at = op_behind(d->f, last);
    for (uint32_t j = 0; j < k->n; j++) {
        OpId def = def_of(d->f, k->raw[j]);
        Builder b = {.f = d->f, .before = op_behind(d->f, def)};
        b.loc = op_cget(d->f, op_ok(def) ? def : b.before)->loc;
        in[j] = k->raw[j];
        ZM_TRY(partial_grad(d, &in[j]));
        in[j] = build_cast(&b, in[j], k->grad_dtype);
        start[j] = var_cget(d->z->m, k->member[j])->in_offset;
    }
    int64_t elems = type_elems(var_cget(d->z->m, k->var)->type);
    if (!k->is_whole) elems *= d->z->ranks;
    AttrList l = {0};
    attr_add_list(&l, AT_STARTS, start, k->n);
    attr_add_list(&l, AT_SHAPE, &elems, 1);
    Builder b = {.f = d->f, .before = *at};
    b.loc = pass_loc(d->z->cx, var_cget(d->z->m, k->var)->loc, "flat gradients");
    *out = build1(&b, OP_PACK, in, k->n, &l);
    return ZM_OK;
}

/* A reading of this rank's accumulator behind the last write to a part of it, *at. */
static Status read_sums(const Reducer *d, const ZeroBucket *k, ValueId *out, OpId *at)
{
    OpId last = {0};
    FOR_OPS(d->f, id)
    {
        const Op *op = op_cget(d->f, id);
        if (op->code != OP_WRITE || id.i >= d->n_pos) continue;
        VarId v = var_find(d->z->m, attr_str(op->attrs, AT_VAR));
        if (var_cget(d->z->m, v)->in.i == k->grad.i) last = later(d, last, id);
    }
    ZM_TRY(check_early(d, k, last));
    *at = op_behind(d->f, last);
    Builder b = {.f = d->f, .before = *at, .loc = var_cget(d->z->m, k->grad)->loc};
    *out = build_read(&b, k->grad);
    return ZM_OK;
}

static LocId grad_loc(const Reducer *d, const ZeroBucket *k, const char *what)
{
    const char *name = var_cget(d->z->m, k->var)->name;
    return zero_loc(d->z, k, arena_printf(d->z->cx->scratch, "%s of grad.%s", what, name));
}

/* Adds a micro-batch's part to the accumulator, in f32 whatever holds it; the new sum. */
static ValueId add_part(Builder *b, const ZeroBucket *k, ValueId part)
{
    ValueId have = build_cast(b, build_read(b, k->grad), DT_F32);
    ValueId sum = build_binary(b, OP_ADD, have, build_cast(b, part, DT_F32));
    build_write(b, k->grad, build_cast(b, sum, k->grad_dtype));
    return build_read(b, k->grad);
}

static Status reduce_bucket(const Reducer *d, ZeroBucket *k, bool is_last)
{
    bool has_sums = var_ok(k->grad) && !d->z->divides_sums;
    ValueId flat;
    OpId at;
    if (has_sums && !is_last) return ZM_OK;
    ZM_TRY(has_sums ? read_sums(d, k, &flat, &at) : pack_raw(d, k, &flat, &at));
    Builder b = {.f = d->f, .before = at, .loc = grad_loc(d, k, "reduction")};
    ValueId part = zero_collective(&b, OP_REDUCE_SCATTER, build_cast(&b, flat, d->z->wire));
    if (var_ok(k->grad) && d->z->divides_sums) part = add_part(&b, k, part);
    k->shard = build_cast(&b, part, k->grad_dtype);
    return ZM_OK;
}

Status zero_reduce(Retype *r, OpId end, bool is_last)
{
    Reducer d = {.r = r, .z = r->z, .f = r->f, .end = end, .n_pos = r->f->ops.n};
    d.pos = func_positions(r->z->cx->scratch, r->f);
    for (uint32_t i = 0; i < r->z->n; i++) ZM_TRY(reduce_bucket(&d, &r->z->bucket[i], is_last));
    return ZM_OK;
}
