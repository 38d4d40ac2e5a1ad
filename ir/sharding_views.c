/* sharding_views.c -- placings of what FACTORS does not say by letters: sources, views, reductions
 * of listed dimensions, sums over several tensors (docs/ir.md). */
#include "ir/sharding_rules.h"

#include <string.h>

static const char *axis_name(uint8_t axis)
{
    return mesh_axis_name((MeshAxis)axis);
}

static void keep_axes(const Type *t, Placing *place)
{
    memcpy(place->axis, t->axis, sizeof place->axis);
}

static bool same_axes(const Type *a, const Type *b)
{
    return a->rank == b->rank && memcmp(a->axis, b->axis, sizeof a->axis) == 0;
}

/* same: all operands alike, and so the result.  concat too: it works on each rank's part. */
static const char *rule_same(const Sharding *s)
{
    const TypeIn *t = s->t;
    for (uint32_t i = 1; i < t->n_in; i++)
        if (!same_axes(t->in[0], t->in[i]))
            REFUSE("operands are placed differently: %s and %s", TEXT(t->in[0]), TEXT(t->in[i]));
    keep_axes(t->in[0], &s->place[0]);
    return NULL;
}

/* ---- sources ---- */

static const char *rule_declared(const Sharding *s)
{
    const TypeIn *t = s->t;
    const Type *r = type_placed_by(t->m, s->out[0],
                                   attr_int(t->attrs, AT_SHARD, 0)); /* checked by the caller */
    keep_axes(r, &s->place[0]);
    s->place[0].partial = r->partial;
    if (s->code == OP_IOTA) {
        uint8_t axis = r->axis[attr_int(t->attrs, AT_AXIS, 0)];
        if (axis)
            REFUSE("counts along dimension %lld of %s, of which a rank has a part: it would count "
                   "from "
                   "0 on every rank",
                   (long long)attr_int(t->attrs, AT_AXIS, 0), TEXT(r));
    }
    bool is_zero = s->code == OP_CONST && attr_float(t->attrs, AT_VALUE, 0) == 0;
    if (r->partial && !is_zero && s->code != OP_WORKSPACE)
        REFUSE("%s would be added up over ranks: only 0 may be a partial sum", TEXT(r));
    return NULL;
}

/* ---- views ---- */

/* Dimension i of the result repeats dimension k of the operand, which has one element on all ranks.
 */
static bool is_repeated(const Type *a, int k)
{
    return k < 0 || (a->dim[k] == 1 && !a->axis[k]);
}

/* r, the result as attribute `shard` declares it, if it does, is what it became. */
static const char *check_declared(const Sharding *s, const Type *r, bool is_declared)
{
    const TypeIn *t = s->t;
    if (!is_declared) return NULL;
    bool is_same = memcmp(s->place[0].axis, r->axis, sizeof r->axis) == 0;
    if (!is_same || (r->partial && r->partial != t->in[0]->partial))
        REFUSE("%s does not become %s", TEXT(t->in[0]), TEXT(r));
    return NULL;
}

static const char *rule_broadcast(const Sharding *s)
{
    const TypeIn *t = s->t;
    const Type *a = t->in[0], *r = s->out[0];
    const Attr *shard = attrs_find(t->attrs, AT_SHARD);
    if (shard) r = type_placed_by(t->m, r, shard->as.i);
    for (int i = 0; i < r->rank; i++) {
        int k = i - (r->rank - a->rank);
        s->place[0].axis[i] = r->axis[i];
        if (is_repeated(a, k)) continue;
        if (!shard) s->place[0].axis[i] = a->axis[k];
        if (s->place[0].axis[i] != a->axis[k] || (a->axis[k] && a->dim[k] != r->dim[i]))
            REFUSE("dimension %d of %s is placed differently in %s", k, TEXT(a), TEXT(r));
    }
    return check_declared(s, r, shard != NULL);
}

/* The dimension of r, from `from` on, that begins behind `before` elements; r->rank: none. */
static int dim_behind(const Type *r, int64_t before, int from)
{
    int64_t n = 1;
    for (int i = 0; i < r->rank; i++) {
        if (n == before && i >= from) return i;
        n *= r->dim[i];
    }
    return r->rank;
}

/* Where a sharded dimension of size `dim` goes that begins where dimension i of r does: of
 * dimensions of size 1 and the one behind them the first that is a multiple of what one rank has of
 * the axis. */
static int place_among_ones(const Module *m, const Type *r, int i, uint8_t axis, int64_t dim)
{
    int64_t unit = axis == MESH_DATA && m->batch > 0 ? m->batch : dim;
    int last = i;
    while (last + 1 < r->rank && r->dim[last] == 1) last++;
    for (; i < last; i++)
        if (r->dim[i] % unit == 0) return i;
    return last;
}

/* The dimension of r that is sharded over `axis`, if it begins where dimension i does and is not
 * before it; r->rank: none. */
static int declared_place(const Type *r, int i, uint8_t axis)
{
    for (; i < r->rank; i++) {
        if (r->axis[i] == axis) return i;
        if (r->dim[i] != 1 || r->axis[i]) break;
    }
    return r->rank;
}

/* A sharded dimension is the major one of the dimensions that are merged or split with it.  Which
 * one it is among dimensions of size 1 may be declared. */
static const char *rule_reshape(const Sharding *s)
{
    const TypeIn *t = s->t;
    const Attr *shard = attrs_find(t->attrs, AT_SHARD);
    const Type *a = t->in[0], *r = s->out[0];
    if (shard) r = type_placed_by(t->m, r, shard->as.i);
    int64_t before = 1;
    int from = 0;
    for (int i = 0; i < a->rank; i++) {
        if (a->axis[i]) {
            int k = dim_behind(r, before, from);
            if (k < r->rank)
                k = shard ? declared_place(r, k, a->axis[i])
                          : place_among_ones(t->m, r, k, a->axis[i], a->dim[i]);
            if (k == r->rank)
                REFUSE("%s to %s: dimension %d, sharded over axis '%s', would not stay together",
                       TEXT(a), TEXT(r), i, axis_name(a->axis[i]));
            s->place[0].axis[k] = a->axis[i];
            from = k + 1;
        }
        before *= a->dim[i];
    }
    return check_declared(s, r, shard != NULL);
}

static const char *rule_perm(const Sharding *s)
{
    const int64_t *perm = attrs_find(s->t->attrs, AT_PERM)->as.list.at;
    for (int i = 0; i < s->out[0]->rank; i++) s->place[0].axis[i] = s->t->in[0]->axis[perm[i]];
    return NULL;
}

/* pack: each rank's part is packed, all operands' or none's. */
static const char *rule_flat(const Sharding *s)
{
    const TypeIn *t = s->t;
    uint8_t axis = t->in[0]->rank ? t->in[0]->axis[0] : MESH_NONE;
    for (uint32_t i = 0; i < t->n_in; i++) {
        const Type *a = t->in[i];
        if ((a->rank ? a->axis[0] : MESH_NONE) != axis)
            REFUSE("operands are placed differently: %s and %s", TEXT(t->in[0]), TEXT(a));
        for (int d = 1; d < a->rank; d++)
            if (a->axis[d]) REFUSE("%s is sharded along dimension %d, not 0", TEXT(a), d);
    }
    s->place[0].axis[0] = axis;
    return NULL;
}

/* ---- reductions ---- */

/* Of dimensions `dims`: a sum over one that is sharded is a partial one. */
static const char *rule_dims(const Sharding *s)
{
    const TypeIn *t = s->t;
    const Type *a = t->in[0];
    const Attr *dims = attrs_find(t->attrs, AT_DIMS);
    uint32_t next = 0;
    int rank = 0;
    for (int i = 0; i < a->rank; i++) {
        if (next == dims->as.list.n || dims->as.list.at[next] != i) {
            s->place[0].axis[rank++] = a->axis[i];
            continue;
        }
        next++;
        if (a->axis[i] && s->code != OP_REDUCE_SUM)
            REFUSE("needs all of dimension %d of %s, which is sharded over axis '%s'", i, TEXT(a),
                   axis_name(a->axis[i]));
        if (a->axis[i]) s->place[0].partial |= (uint8_t)(1u << a->axis[i]);
    }
    return NULL;
}

/* A sum over all elements of all operands: of sharded ones a partial sum.  A replicated one beside
 * them would be counted once a rank. */
static const char *rule_sum(const Sharding *s)
{
    NEED(rule_flat(s));
    if (s->place[0].axis[0]) s->place[0].partial = (uint8_t)(1u << s->place[0].axis[0]);
    s->place[0].axis[0] = MESH_NONE;
    return NULL;
}

static const char *rule_whole(const Sharding *s)
{
    const TypeIn *t = s->t;
    for (uint32_t i = 0; i < t->n_in; i++)
        for (int d = 0; d < t->in[i]->rank; d++)
            if (t->in[i]->axis[d])
                REFUSE("operand %u, %s, is sharded over axis '%s': it would be the verdict on one "
                       "rank's "
                       "part; reduce count_nonfinite of it",
                       i, TEXT(t->in[i]), axis_name(t->in[i]->axis[d]));
    return NULL;
}

static const struct {
    const char *name;
    ShardingRule rule;
} rules[] = {{"same", rule_same},       {"declared", rule_declared}, {"broadcast", rule_broadcast},
             {"reshape", rule_reshape}, {"perm", rule_perm},         {"flat", rule_flat},
             {"dims", rule_dims},       {"sum", rule_sum},           {"whole", rule_whole}};

ShardingRule sharding_rule(const char *name)
{
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (strcmp(rules[i].name, name) == 0) return rules[i].rule;
    return NULL;
}
