/* scalars.c -- what all ranks must agree on before an update: how many gradient elements are not
 * finite, the squared norm, loss and count of items, and whether a rank was told to stop.  Five f64
 * numbers in one all-reduce, so that a step waits for the slowest rank once (zero.h).
 *
 * The verdict is the number of elements that are not finite, not a norm: squares can overflow. */
#include "passes/zero/zero.h"

#include <string.h>

#include "ir/base/program.h"
#include "passes/state_names.h"

/* ---- the tail of @last ---- */

/* The value that is written to @name; none: there is no such write. */
static ValueId written(const Func *f, const char *name)
{
    FOR_OPS(f, id)
    {
        const Op *op = op_cget(f, id);
        if (op->code == OP_WRITE && strcmp(attr_str(op->attrs, AT_VAR), name) == 0)
            return op->in[0];
    }
    return (ValueId){0};
}

/* The op of `code` that makes v; NULL: another. */
static const Op *made_by(const Func *f, ValueId v, OpCode code)
{
    OpId def = value_ok(v) ? value_cget(f, v)->def : (OpId){0};
    return op_ok(def) && op_cget(f, def)->code == code ? op_cget(f, def) : NULL;
}

static bool uses(const Op *op, ValueId v)
{
    for (uint32_t i = 0; i < op->n_in; i++)
        if (op->in[i].i == v.i) return true;
    return false;
}

static OpId first_use(const Func *f, ValueId a, ValueId b)
{
    FOR_OPS(f, id)
    if (uses(op_cget(f, id), a) || uses(op_cget(f, id), b)) return id;
    return (OpId){0};
}

/* Op `code` over the buckets' flat gradients, in their order. */
static Status find_over_grads(const Zero *z, const Func *last, OpCode code, OpId *out)
{
    *out = (OpId){0};
    FOR_OPS(last, id)
    {
        const Op *op = op_cget(last, id);
        if (op->code != code) continue;
        bool fits = !op_ok(*out) && op->n_in == z->n + (code == OP_PROBE);
        for (uint32_t i = 0; fits && i < z->n; i++) {
            VarId acc = z->bucket[i].grad, at = {0};
            const Op *read = made_by(last, op->in[i], OP_READ);
            if (read) at = var_find(z->m, attr_str(read->attrs, AT_VAR));
            fits = var_ok(acc) ? at.i == acc.i : op->in[i].i == z->bucket[i].update.i;
        }
        if (!fits)
            return zero_refuse(z, op->loc,
                               "%s in @last is not over the gradients of all %u buckets",
                               op_info(code)->name, z->n);
        *out = id;
    }
    if (op_ok(*out)) return ZM_OK;
    return zero_refuse(z, op_cget(last, last->last)->loc, "@last has no %s", op_info(code)->name);
}

Status zero_find_tail(Zero *z, const Func *last, ZeroTail *t)
{
    const Op *mean = made_by(last, written(last, ZMP_S_LOSS), OP_DIV);
    if (!mean)
        return zero_refuse(z, op_cget(last, last->last)->loc,
                           "@last writes no quotient to @" ZMP_S_LOSS);
    *t = (ZeroTail){.items = mean->in[0], .count = mean->in[1]};
    t->start = first_use(last, t->items, t->count);
    ZM_TRY(find_over_grads(z, last, OP_ALL_FINITE, &t->all_finite));
    ZM_TRY(find_over_grads(z, last, OP_SUM_SQUARES, &t->sum_squares));
    return find_over_grads(z, last, OP_PROBE, &t->probe);
}

/* ---- the all-reduce ---- */

enum { MAX_SCALARS = 8 };

/* n partial f64[] become their sums, in place. */
static void reduce_scalars(Builder *b, ValueId *v, uint32_t n)
{
    int64_t one = 1;
    ValueId part[MAX_SCALARS];
    for (uint32_t i = 0; i < n; i++) part[i] = build_reshape(b, v[i], 1, &one);
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, 0);
    ValueId sum = zero_collective(b, OP_ALL_REDUCE, build1(b, OP_CONCAT, part, n, &l));
    for (uint32_t i = 0; i < n; i++) {
        int64_t at = i;
        v[i] = build_reshape(b, build_slice(b, sum, &at, &one), 0, NULL);
    }
}

static ValueId over_shards(Builder *b, const Zero *z, OpCode code)
{
    ValueId *shard = ARENA_ARRAY(z->cx->scratch, ValueId, z->n);
    for (uint32_t i = 0; i < z->n; i++) shard[i] = z->bucket[i].shard;
    return build1(b, code, shard, z->n, NULL);
}

static ValueId read_stop(Builder *b, const Zero *z)
{
    VarId stop = state_scalar(z->m, ZMP_S_STOP, DT_F64, 0, b->loc);
    Var *v = var_get(z->m, stop);
    v->type = type_placed(z->m, v->type, NULL, 1u << MESH_DATA);
    return build_read(b, stop);
}

/* From op `from` on. */
static void replace_from(Func *f, OpId from, ValueId old, ValueId with)
{
    for (OpId id = from; op_ok(id); id = op_cget(f, id)->next) {
        Op *op = op_get(f, id);
        for (uint32_t i = 0; i < op->n_in; i++)
            if (op->in[i].i == old.i) op->in[i] = with;
    }
}

static void replace_op(Func *f, OpId from, OpId old, ValueId with)
{
    replace_from(f, from, op_cget(f, old)->out[0], with);
    op_erase(f, old);
}

/* v, f64[], as a partial sum; the count of a loss without weights is a constant on each rank. */
static Status as_partial(Retype *r, OpId user, ValueId *v)
{
    const int64_t placing = INT64_C(1) << (32 + MESH_DATA);
    const Type *t = value_type(r->f, *v);
    if (type_placing(t) == placing) return ZM_OK;
    if (!type_is_placed(t)) return retype_demand(r, user, *v, placing, v);
    return zero_refuse(r->z, op_cget(r->f, user)->loc, "%s is no sum over the ranks",
                       type_text(r->z->cx->scratch, t));
}

Status zero_reduce_scalars(Retype *r, const ZeroTail *t)
{
    enum { NONFINITE, SQUARES, ITEMS, COUNT, STOP, N };
    Zero *z = r->z;
    Func *last = r->f;
    Builder b = {.f = last, .before = t->start};
    b.loc = pass_loc(z->cx, op_cget(last, t->all_finite)->loc, "scalars");
    ValueId v[N];
    v[NONFINITE] = over_shards(&b, z, OP_COUNT_NONFINITE);
    v[SQUARES] = over_shards(&b, z, OP_SUM_SQUARES);
    v[ITEMS] = t->items;
    v[COUNT] = t->count;
    ZM_TRY(as_partial(r, t->start, &v[ITEMS]));
    ZM_TRY(as_partial(r, t->start, &v[COUNT]));
    v[STOP] = read_stop(&b, z);
    reduce_scalars(&b, v, N);
    build_write(&b, state_scalar(z->m, ZMP_S_STOPS, DT_F64, 0, b.loc), v[STOP]);
    ValueId sound = build_binary(&b, OP_EQ, v[NONFINITE], build_const(&b, 0, DT_F64));
    replace_from(last, t->start, t->items, v[ITEMS]);
    replace_from(last, t->start, t->count, v[COUNT]);
    for (uint32_t i = 0; i < z->n; i++) op_set_operand(last, t->probe, i, z->bucket[i].shard);
    replace_op(last, t->start, t->all_finite, sound);
    replace_op(last, t->start, t->sum_squares, v[SQUARES]);
    return ZM_OK;
}

/* ---- @eval ---- */

/* The op add(read @name, x) whose result is written to @name. */
static OpId find_addition(const Func *f, const char *name)
{
    ValueId v = written(f, name);
    return made_by(f, v, OP_ADD) ? value_cget(f, v)->def : (OpId){0};
}

Status zero_eval(Retype *r)
{
    static const char *const names[] = {ZMP_S_EVAL_SUM, ZMP_S_EVAL_COUNT};
    enum { N = 2 };
    Func *f = r->f;
    OpId add[N];
    ValueId v[N];
    for (int i = 0; i < N; i++) {
        add[i] = find_addition(f, names[i]);
        if (!op_ok(add[i]))
            return zero_refuse(r->z, op_cget(f, f->last)->loc, "@eval adds nothing to @%s",
                               names[i]);
        v[i] = op_cget(f, add[i])->in[1];
    }
    OpId start = first_use(f, v[0], v[1]);
    ZM_TRY(retype_ops(r, f->first, start));
    for (int i = 0; i < N; i++) ZM_TRY(as_partial(r, add[i], &v[i]));
    Builder b = {.f = f, .before = start};
    b.loc = pass_loc(r->z->cx, op_cget(f, start)->loc, "scalars");
    reduce_scalars(&b, v, N);
    for (int i = 0; i < N; i++) op_set_operand(f, add[i], 1, v[i]);
    return retype_ops(r, start, (OpId){0});
}
