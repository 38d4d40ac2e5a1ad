/* retype.c -- the types of a function's ops, inferred again in program order once its inputs and
 * the variables are placed (zero.h).
 *
 * Most follow from their operands.  An op with one sharded operand may have others that are alike
 * on all ranks though they have the batch's dimension: constants, broadcasts of a parameter, what
 * is made of those.  They are declared anew, sharded: that costs nothing, each rank makes its own
 * part. Of a partial sum and a zero (the gradient of a parameter that the loss does not use) the
 * zero becomes a partial sum of zeros.
 *
 * Time: each op once, each copy once. */
#include "passes/zero/zero.h"

#include <string.h>

static const Type *shard_batch(Module *m, const Type *t)
{
    uint8_t axis[ZM_MAX_RANK] = {MESH_DATA};
    return t->rank ? type_placed(m, t, axis, 0) : t;
}

void retype_inputs(Retype *r)
{
    for (uint32_t i = 0; i < r->f->params.n; i++) {
        Value *p = value_get(r->f, r->f->params.at[i]);
        if (!p->name || strcmp(p->name, "rng") != 0) p->type = shard_batch(r->z->m, p->type);
    }
}

static PlacedCopy *copy_of(Retype *r, ValueId v)
{
    while (r->copy.n <= v.i) VEC_PUSH(r->z->cx->scratch, &r->copy, (PlacedCopy){0});
    return &r->copy.at[v.i];
}

/* May o, alike on all ranks, be declared with this placing?  An index along a sharded dimension
 * would begin anew on each rank. */
static bool may_declare(const Op *o, const Type *placed)
{
    if (o->code == OP_IOTA) return placed->partial || !placed->axis[attr_int(o->attrs, AT_AXIS, 0)];
    return o->code == OP_CONST || o->code == OP_RANDOM;
}

static AttrList attrs_of(const Op *o)
{
    AttrList l = {0};
    for (uint32_t i = 0; i < o->attrs.n; i++)
        if (o->attrs.at[i].key != AT_SHARD) l.at[l.n++] = o->attrs.at[i];
    return l;
}

/* The op again, with operands `in`, declared as `placed` where it says its own type.  None: its
 * rule refuses, or gives another placing. */
static ValueId build_again(Retype *r, const Op *o, const ValueId *in, const Type *placed)
{
    Builder b = {.f = r->f, .before = value_cget(r->f, o->out[0])->def, .loc = o->loc};
    AttrList l = attrs_of(o);
    if (op_takes_attr(o->code, AT_SHARD)) attr_add_shard(&l, placed);
    const Type *types[3], *out[1];
    for (uint32_t i = 0; i < o->n_in; i++) types[i] = value_type(r->f, in[i]);
    if (op_infer(r->z->m, o->code, types, o->n_in, attrs_copy(r->z->m, &l), out) ||
        out[0] != placed)
        return (ValueId){0};
    return build1(&b, o->code, in, o->n_in, &l);
}

/* ---- from an op's result back to its operands ---- */

static void axes_of_reduced(const Op *o, const Type *operand, const Type *placed, uint8_t *axis)
{
    const Attr *dims = attrs_find(o->attrs, AT_DIMS);
    int out = 0;
    for (int d = 0, next = 0; d < operand->rank; d++) {
        bool is_gone = next < (int)dims->as.list.n && dims->as.list.at[next] == d;
        next += is_gone;
        if (!is_gone) axis[d] = placed->axis[out++];
    }
}

/* Of a product: batches and rows.  Columns are those of a parameter. */
static void axes_of_product(const Op *o, uint32_t i, const Type *operand, const Type *placed,
                            uint8_t *axis)
{
    bool is_swapped = attr_int(o->attrs, AT_TRANS_A, 0) != 0;
    for (int d = 0; (i == 0 || operand->rank > 2) && d + 2 < operand->rank; d++)
        axis[d] = placed->axis[d];
    if (i == 0) axis[operand->rank - (is_swapped ? 1 : 2)] = placed->axis[placed->rank - 2];
}

/* The placing that operand i must have for the op's result to have `placed`; build_again() asks the
 * op's rule whether that is so. */
static const Type *operand_placed(Module *m, const Op *o, uint32_t i, const Type *operand,
                                  const Type *placed)
{
    uint8_t axis[ZM_MAX_RANK] = {0};
    int lead = o->code == OP_BROADCAST ? placed->rank - operand->rank : 0;
    switch ((int)o->code) {
    case OP_REDUCE_SUM:
        if (placed->partial) return shard_batch(m, operand);
        axes_of_reduced(o, operand, placed, axis);
        break;
    case OP_REDUCE_MAX: axes_of_reduced(o, operand, placed, axis); break;
    case OP_MATMUL: axes_of_product(o, i, operand, placed, axis); break;
    case OP_TRANSPOSE:
        for (int d = 0; d < placed->rank; d++)
            axis[attrs_find(o->attrs, AT_PERM)->as.list.at[d]] = placed->axis[d];
        break;
    case OP_EMBED:
        if (i == 0) return operand;
        memcpy(axis, placed->axis, (size_t)operand->rank);
        break;
    default:
        for (int d = 0; d < operand->rank && lead + d < placed->rank; d++) {
            bool is_repeated = operand->dim[d] == 1 && placed->dim[lead + d] != 1;
            if (o->code != OP_BROADCAST || !is_repeated) axis[d] = placed->axis[lead + d];
        }
    }
    return type_placed(m, operand, axis, placed->partial);
}

static bool passes_placing_on(OpCode code)
{
    switch ((int)code) {
    case OP_BROADCAST:
    case OP_EMBED:
    case OP_MATMUL:
    case OP_NORMALIZE:
    case OP_PAD:
    case OP_REDUCE_MAX:
    case OP_REDUCE_SUM:
    case OP_RESHAPE:
    case OP_RMS_NORMALIZE:
    case OP_ROTARY:
    case OP_SLICE:
    case OP_SOFTMAX:
    case OP_TRANSPOSE: return true;
    default: return (op_info(code)->traits & TR_POINTWISE) != 0;
    }
}

/* ---- copies under another placing ---- */

enum { MAX_COPY_DEPTH = 64, MAX_COPY_OPERANDS = 3 };

static ValueId demand(Retype *r, ValueId v, const Type *placed, int depth);

/* A product, or quotient, that is a partial sum: one factor, or the dividend, is one. */
static ValueId demand_product(Retype *r, const Op *o, const Type *placed, int depth)
{
    uint32_t n = o->code == OP_MUL ? 2 : 1;
    for (uint32_t i = 0; i < n; i++) {
        ValueId in[] = {o->in[0], o->in[1]};
        const Type *t = type_placed(r->z->m, value_type(r->f, in[i]), NULL, placed->partial);
        in[i] = demand(r, in[i], t, depth);
        if (value_ok(in[i])) return build_again(r, o, in, placed);
    }
    return (ValueId){0};
}

/* Each operand as the result's placing asks. */
static ValueId demand_operands(Retype *r, const Op *o, const Type *placed, int depth)
{
    ValueId in[MAX_COPY_OPERANDS] = {{0}};
    for (uint32_t i = 0; i < o->n_in; i++) {
        const Type *t = value_type(r->f, o->in[i]);
        in[i] = demand(r, o->in[i], operand_placed(r->z->m, o, i, t, placed), depth);
        if (!value_ok(in[i])) return in[i];
    }
    return build_again(r, o, in, placed);
}

/* Recursion: along elementwise ops and views over constants, MAX_COPY_DEPTH at most.  What cannot
 * be had is noted, too, and not tried again. */
static ValueId demand(Retype *r, ValueId v, const Type *placed, int depth)
{
    OpId def = value_cget(r->f, v)->def;
    if (value_type(r->f, v) == placed) return v;
    if (!op_ok(def) || depth == MAX_COPY_DEPTH) return (ValueId){0};
    PlacedCopy *have = copy_of(r, v);
    if (have->placing == type_placing(placed)) return have->value;
    Op o = *op_cget(r->f, def);
    ValueId made = {0};
    if (may_declare(&o, placed))
        made = build_again(r, &o, o.in, placed);
    else if (placed->partial && (o.code == OP_MUL || o.code == OP_DIV))
        made = demand_product(r, &o, placed, depth + 1);
    else if (passes_placing_on(o.code) && o.n_in <= MAX_COPY_OPERANDS)
        made = demand_operands(r, &o, placed, depth + 1);
    *copy_of(r, v) = (PlacedCopy){made, type_placing(placed)};
    return made;
}

Status retype_demand(Retype *r, OpId user, ValueId v, int64_t placing, ValueId *out)
{
    const Type *t = value_type(r->f, v), *placed = type_placed_by(r->z->m, t, placing);
    *out = demand(r, v, placed, 0);
    if (value_ok(*out)) return ZM_OK;
    const Op *o = op_cget(r->f, user);
    Arena *a = r->z->cx->scratch;
    return zero_refuse(r->z, o->loc, "%s needs %s, but every rank holds %s", op_info(o->code)->name,
                       type_text(a, placed), type_text(a, t));
}

/* ---- what an op asks of its operands ---- */

/* Placing of dimension 0 alone. */
static int64_t batch_placing(Retype *r, const Type *t)
{
    return type_placing(shard_batch(r->z->m, t));
}

static const Type *first_placed(const Func *f, const Op *o)
{
    for (uint32_t i = 0; i < o->n_in; i++)
        if (type_is_placed(value_type(f, o->in[i]))) return value_type(f, o->in[i]);
    return NULL;
}

static bool is_elementwise(OpCode code)
{
    return op_info(code)->traits & TR_POINTWISE || code == OP_CONCAT || code == OP_SELECT;
}

/* Of a product's operand i beside the other, `placed`: batches and the summed dimension go
 * together. */
static int64_t product_placing(Retype *r, const Op *o, uint32_t i, const Type *placed)
{
    const Type *t = value_type(r->f, o->in[i]);
    uint8_t axis[ZM_MAX_RANK] = {0};
    bool own_last = (i == 0) != (attr_int(o->attrs, i == 0 ? AT_TRANS_A : AT_TRANS_B, 0) != 0);
    bool other_last = (i == 1) != (attr_int(o->attrs, i == 1 ? AT_TRANS_A : AT_TRANS_B, 0) != 0);
    axis[t->rank - (own_last ? 1 : 2)] = placed->axis[placed->rank - (other_last ? 1 : 2)];
    for (int d = 0; t->rank == placed->rank && d + 2 < t->rank; d++) axis[d] = placed->axis[d];
    return type_placing(type_placed(r->z->m, t, axis, 0));
}

/* Mask, bias and key, the operands from `n_own` on, may be one for all samples. */
static int64_t attention_placing(Retype *r, uint32_t i, uint32_t n_own, const Type *t)
{
    bool is_own = i < n_own || (t->rank == 4 && t->dim[0] != 1);
    return is_own ? batch_placing(r, t) : 0;
}

/* The placing that operand i, alike on all ranks, must have beside the operand `placed`; 0: it may
 * stay. */
static int64_t asked_placing(Retype *r, const Op *o, uint32_t i, const Type *placed)
{
    const int64_t partial = INT64_C(1) << (32 + MESH_DATA);
    const Type *t = value_type(r->f, o->in[i]);
    bool is_product = o->code == OP_MUL || o->code == OP_DIV;
    if (is_elementwise(o->code)) return placed->partial && is_product ? 0 : type_placing(placed);
    switch ((int)o->code) {
    case OP_PACK: return type_placing(placed);
    case OP_CROSS_ENTROPY:
    case OP_CROSS_ENTROPY_GRAD: return batch_placing(r, t);
    case OP_SCATTER_ADD:
        if (i == 0) return partial;
        return placed->partial ? 0 : batch_placing(r, t);
    case OP_MATMUL: return product_placing(r, o, i, placed);
    case OP_SDPA: return attention_placing(r, i, 3, t);
    case OP_SDPA_GRAD:
    case OP_SDPA_GRAD_BIAS: return attention_placing(r, i, 6, t);
    default: return 0;
    }
}

/* What draws by the number of a sample differs between ranks, whatever it is made of. */
static Status ask_drawn(Retype *r, OpId id)
{
    const Op *o = op_cget(r->f, id);
    bool draws = o->code == OP_DROP || ((o->code == OP_SDPA || o->code == OP_SDPA_GRAD) &&
                                        attr_float(o->attrs, AT_P, 0) > 0);
    if (!draws || type_is_placed(value_type(r->f, o->in[0]))) return ZM_OK;
    ValueId v = o->in[0];
    ZM_TRY(retype_demand(r, id, v, batch_placing(r, value_type(r->f, v)), &v));
    op_set_operand(r->f, id, 0, v);
    return ZM_OK;
}

static Status ask_operands(Retype *r, OpId id)
{
    ZM_TRY(ask_drawn(r, id));
    const Type *placed = first_placed(r->f, op_cget(r->f, id));
    for (uint32_t i = 0; placed && i < op_cget(r->f, id)->n_in; i++) {
        ValueId v = op_cget(r->f, id)->in[i];
        if (type_is_placed(value_type(r->f, v))) continue;
        int64_t placing = asked_placing(r, op_cget(r->f, id), i, placed);
        if (placing == 0) continue;
        ZM_TRY(retype_demand(r, id, v, placing, &v));
        op_set_operand(r->f, id, i, v);
    }
    return ZM_OK;
}

/* ---- one op ---- */

/* A broadcast says its result's placing: that of its operand. */
static void declare_broadcast(Retype *r, OpId id)
{
    Op *o = op_get(r->f, id);
    if (o->code != OP_BROADCAST) return;
    const Type *in = value_type(r->f, o->in[0]), *out = value_type(r->f, o->out[0]);
    if (!type_is_placed(in)) return;
    uint8_t axis[ZM_MAX_RANK] = {0};
    for (int i = 0; i < in->rank; i++) axis[out->rank - in->rank + i] = in->axis[i];
    AttrList l = attrs_of(o);
    attr_add_shard(&l, type_placed(r->z->m, out, axis, in->partial));
    o->attrs = attrs_copy(r->z->m, &l);
}

Status retype_op(Retype *r, OpId id)
{
    ZM_TRY(ask_operands(r, id));
    declare_broadcast(r, id);
    Op *o = op_get(r->f, id);
    const Type **in = ARENA_ARRAY(r->z->cx->scratch, const Type *, o->n_in), *out[8];
    for (uint32_t i = 0; i < o->n_in; i++) in[i] = value_type(r->f, o->in[i]);
    const char *why = op_infer(r->z->m, o->code, in, o->n_in, o->attrs, out);
    if (why) return zero_refuse(r->z, o->loc, "%s: %s", op_info(o->code)->name, why);
    for (uint32_t i = 0; i < o->n_out; i++) value_get(r->f, o->out[i])->type = out[i];
    return ZM_OK;
}

Status retype_ops(Retype *r, OpId from, OpId end)
{
    for (OpId op = from; op_ok(op) && op.i != end.i; op = op_cget(r->f, op)->next)
        ZM_TRY(retype_op(r, op));
    return ZM_OK;
}

/* ---- what is left over ---- */

void retype_clean(Retype *r)
{
    Func *f = r->f;
    uint32_t *n_uses = ARENA_ARRAY(r->z->cx->scratch, uint32_t, f->values.n);
    FOR_OPS(f, op)
    for (uint32_t i = 0; i < op_cget(f, op)->n_in; i++) n_uses[op_cget(f, op)->in[i].i]++;
    for (OpId op = f->last, prev; op_ok(op); op = prev) {
        const Op *o = op_cget(f, op);
        bool is_used = !(op_info(o->code)->traits & TR_PURE) && o->code != OP_READ;
        prev = o->prev;
        for (uint32_t i = 0; i < o->n_out; i++) is_used |= n_uses[o->out[i].i] > 0;
        if (is_used) continue;
        for (uint32_t i = 0; i < o->n_in; i++) n_uses[o->in[i].i]--;
        op_erase(f, op);
    }
}
