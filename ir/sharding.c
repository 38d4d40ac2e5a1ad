/* sharding.c -- see sharding.h.  An op is first checked as one of a single rank, on the parts; then
 * its results are placed. */
#include "ir/sharding_rules.h"

#include <string.h>

/* ---- placings in themselves ---- */

const char *sharding_refusal(Module *m, const Type *r)
{
    uint8_t seen = r->partial;
    for (int i = 0; i < r->rank; i++) {
        if (!r->axis[i]) continue;
        if (seen >> r->axis[i] & 1)
            return arena_printf(m->arena, "%s would be over axis '%s' twice",
                                type_text(m->arena, r), mesh_axis_name((MeshAxis)r->axis[i]));
        seen |= (uint8_t)(1u << r->axis[i]);
    }
    for (int axis = MESH_NONE + 1; axis < N_MESH_AXIS; axis++)
        if (seen >> axis & 1 && m->mesh[axis] < 2)
            return arena_printf(m->arena, "%s: the module's mesh has no axis '%s'",
                                type_text(m->arena, r), mesh_axis_name((MeshAxis)axis));
    return NULL;
}

/* Attribute `shard` is a placing of a tensor of rank `rank`. */
static bool is_placing(int64_t packed, int rank)
{
    uint64_t bits = (uint64_t)packed, partial = bits >> 32;
    for (int i = 0; i < ZM_MAX_RANK; i++) {
        uint64_t axis = bits >> 4 * i & 15;
        if (axis >= N_MESH_AXIS || (axis && i >= rank)) return false;
    }
    return partial < UINT64_C(1) << N_MESH_AXIS && !(partial & 1);
}

/* ---- partial sums ---- */

static const char *refuse_partial(const Sharding *s, uint32_t operand)
{
    const TypeIn *t = s->t;
    uint8_t partial = t->in[operand]->partial;
    int axis = 1;
    while (!(partial >> axis & 1)) axis++;
    REFUSE("operand %u, %s, is a partial sum: %s needs the whole sum over axis '%s': all_reduce it "
           "first",
           operand, TEXT(t->in[operand]), op_info(s->code)->name, mesh_axis_name((MeshAxis)axis));
}

/* f(a + b) = f(a) + f(b) of operands alike. */
static const char *sum_of_alike(const Sharding *s, uint32_t from, uint8_t *partial)
{
    const TypeIn *t = s->t;
    *partial = t->in[from]->partial;
    for (uint32_t i = from + 1; i < t->n_in; i++)
        if (t->in[i]->partial != *partial)
            REFUSE("%s and %s are not partial sums over the same axes: one would count once a rank",
                   TEXT(t->in[from]), TEXT(t->in[i]));
    return NULL;
}

/* Linear in each operand alone. */
static const char *product(const Sharding *s, uint8_t *partial)
{
    const TypeIn *t = s->t;
    if (t->in[0]->partial & t->in[1]->partial)
        REFUSE("%s and %s are both partial sums: the product of the sums is not the sum of the "
               "products; "
               "all_reduce one first",
               TEXT(t->in[0]), TEXT(t->in[1]));
    *partial = t->in[0]->partial | t->in[1]->partial;
    return NULL;
}

/* A product by 1 / b, a choice by a condition: linear in the operands from `from` on, up to `to`.
 */
static const char *linear_in(const Sharding *s, uint32_t from, uint32_t to, uint8_t *partial)
{
    for (uint32_t i = 0; i < s->t->n_in; i++)
        if ((i < from || i > to) && s->t->in[i]->partial) return refuse_partial(s, i);
    return from == to ? (*partial = s->t->in[from]->partial, NULL) : sum_of_alike(s, from, partial);
}

static const char *cast_partial(const Sharding *s, uint8_t *partial)
{
    const TypeIn *t = s->t;
    DTypeClass to = dtype_class(s->out[0]->dtype);
    bool is_linear = to == DTC_FLOAT || (to == DTC_INT && dtype_class(t->in[0]->dtype) == DTC_INT);
    if (t->in[0]->partial && !is_linear) return refuse_partial(s, 0);
    *partial = t->in[0]->partial;
    return NULL;
}

/* The axes over which the operands, and so the results, are partial sums. */
static const char *partial_of(const Sharding *s, uint8_t *partial)
{
    *partial = 0;
    if (s->t->n_in == 0) return NULL;
    switch ((int)s->code) {
    case OP_ADD:
    case OP_SUB:
    case OP_CONCAT:
    case OP_PACK: return sum_of_alike(s, 0, partial);
    case OP_NEG:
    case OP_REDUCE_SUM:
    case OP_BROADCAST:
    case OP_RESHAPE:
    case OP_SLICE:
    case OP_PAD:
    case OP_TRANSPOSE:
    case OP_DIV: return linear_in(s, 0, 0, partial);
    case OP_SELECT: return linear_in(s, 1, 2, partial);
    case OP_CAST: return cast_partial(s, partial);
    case OP_MUL:
    case OP_MATMUL: return product(s, partial);
    case OP_SCATTER_ADD: /* more: check_base() */
        *partial = s->t->in[2]->partial;
        return s->t->in[1]->partial ? refuse_partial(s, 1) : NULL;
    default:
        for (uint32_t i = 0; i < s->t->n_in; i++)
            if (s->t->in[i]->partial) return refuse_partial(s, i);
        return NULL;
    }
}

/* scatter_add: every rank adds its base, so it is a partial sum where the rows are one, or are
 * sharded. */
static const char *check_base(const Sharding *s, uint8_t partial)
{
    const TypeIn *t = s->t;
    if (s->code != OP_SCATTER_ADD || t->in[0]->partial == partial) return NULL;
    if (t->in[0]->partial & ~partial)
        REFUSE("base %s is a partial sum, rows %s are the same on every rank: they would count "
               "once a rank",
               TEXT(t->in[0]), TEXT(t->in[2]));
    REFUSE("the sum of rows %s is a partial one, base %s would count once a rank: a partial sum of "
           "zeros is "
           "needed",
           TEXT(t->in[2]), TEXT(t->in[0]));
}

/* ---- random numbers ---- */

/* Samples are numbered over ranks, elements within a sample from 0: only samples may be divided. */
static const char *check_drawn(const Sharding *s)
{
    const TypeIn *t = s->t;
    bool draws = s->code == OP_RANDOM ||
                 (op_takes_attr(s->code, AT_STREAM) && attr_float(t->attrs, AT_P, 0) > 0);
    if (!draws) return NULL;
    const Type *x = s->code == OP_RANDOM ? s->out[0] : t->in[0];
    const uint8_t *axis = s->code == OP_RANDOM ? s->place[0].axis : t->in[0]->axis;
    for (int i = 0; i < x->rank; i++)
        if (axis[i] && (i > 0 || axis[i] != MESH_DATA))
            REFUSE("draws random numbers along dimension %d, which is sharded over axis '%s': only "
                   "samples "
                   "may be, dimension 0 over axis 'data'",
                   i, mesh_axis_name((MeshAxis)axis[i]));
    for (uint32_t i = 0; i < t->n_in; i++)
        if (t->in[i]->dtype == DT_I32 && t->in[i]->axis[0] && t->in[i]->axis[0] != axis[0])
            REFUSE("the key %s differs between ranks, the numbers drawn by it are to be the same",
                   TEXT(t->in[i]));
    return NULL;
}

/* ---- the op ---- */

/* Ops whose own rule knows of placings. */
static bool rule_places(OpCode code)
{
    const char *factors = op_info(code)->factors;
    return strcmp(factors, "own") == 0 || strcmp(factors, "collective") == 0;
}

static const char *check_operands(const TypeIn *t)
{
    const Attr *shard = attrs_find(t->attrs, AT_SHARD);
    const Attr *shape = attrs_find(t->attrs, AT_SHAPE);
    if (shard && !is_placing(shard->as.i, shape ? (int)shape->as.list.n : 0))
        REFUSE("attribute 'shard' is no placing: %lld", (long long)shard->as.i);
    for (uint32_t i = 0; i < t->n_in; i++) NEED(sharding_refusal(t->m, t->in[i]));
    return NULL;
}

/* As ops of one rank are: the rule sees the parts, the reader of its refusal the placings too. */
static const char *infer_plain(const TypeIn *t, OpCode code, const Type **out)
{
    enum { MAX_SHOWN = 4 };
    const Type **in = ARENA_ARRAY(t->m->arena, const Type *, t->n_in);
    for (uint32_t i = 0; i < t->n_in; i++) in[i] = type_plain(t->m, t->in[i]);
    TypeIn plain = {t->m, in, t->n_in, t->attrs};
    const char *why = op_info(code)->type_rule(&plain, out), *list = "";
    if (!why) return NULL;
    for (uint32_t i = 0; i < t->n_in && i < MAX_SHOWN; i++)
        list = arena_printf(t->m->arena, "%s%s%s", list, i ? ", " : "", TEXT(t->in[i]));
    if (t->n_in > MAX_SHOWN) list = arena_printf(t->m->arena, "%s, ...", list);
    REFUSE("%s; each rank has %s", why, list);
}

const char *sharding_infer(const TypeIn *t, OpCode code, const Type **out)
{
    NEED(check_operands(t));
    if (rule_places(code)) return op_info(code)->type_rule(t, out);
    Placing place[SHARDING_MAX_OUT] = {{{0}, 0}};
    Sharding s = {t, code, out, place};
    ShardingRule rule = sharding_rule(op_info(code)->factors);
    uint8_t partial;
    NEED(infer_plain(t, code, out));
    NEED(partial_of(&s, &partial));
    NEED(rule ? rule(&s) : sharding_by_factors(&s));
    NEED(check_base(&s, partial | place[0].partial));
    NEED(check_drawn(&s));
    for (int i = 0; i < op_info(code)->n_out; i++) {
        out[i] = type_placed(t->m, out[i], place[i].axis, partial | place[i].partial);
        NEED(sharding_refusal(t->m, out[i]));
    }
    return NULL;
}
