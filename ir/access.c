/* access.c -- see access.h. */
#include "ir/access.h"

#include <string.h>

uint64_t affine_hash(const Affine *e, uint64_t h)
{
    enum { SHIFT = 29 };
    const uint64_t golden = 0x9E3779B97F4A7C15u;
    h = (h ^ (uint64_t)e->base) * golden;
    for (int l = 0; l < ACCESS_MAX_LOOPS; l++) {
        h = (h ^ (uint64_t)e->stride[l]) * golden;
        h ^= h >> SHIFT;
    }
    return h;
}

uint32_t affine_mask(const Affine *e)
{
    uint32_t mask = 0;
    for (int l = 0; l < ACCESS_MAX_LOOPS; l++)
        if (e->stride[l]) mask |= 1u << l;
    return mask;
}

void affine_range(const LoopSpace *s, const Affine *e, int64_t *lo, int64_t *hi)
{
    *lo = *hi = e->base;
    for (int l = 0; l < s->n; l++) *hi += e->stride[l] * (s->extent[l] - 1);
}

static void affine_add(Affine *to, const Affine *e, int64_t factor)
{
    to->base += e->base * factor;
    for (int l = 0; l < ACCESS_MAX_LOOPS; l++) to->stride[l] += e->stride[l] * factor;
}

Affine map_flatten(const IndexMap *map, const Type *t)
{
    Affine flat = {0};
    int64_t step = 1;
    for (int d = t->rank - 1; d >= 0; d--) {
        affine_add(&flat, &map->dim[d], step);
        step *= t->dim[d];
    }
    return flat;
}

/* Puts loop l's part of flat into the one digit that holds it. */
static AccessResult place_loop(const LoopSpace *s, const Affine *flat, int l, int rank,
                               const int64_t *dim, Affine *out, AccessSplit *split)
{
    int64_t c = flat->stride[l], step = 1;
    if (!c) return ACCESS_OK;
    for (int d = rank - 1; d >= 0; d--) {
        int64_t next = step * dim[d];
        if (c < next || d == 0) {
            if (c % step) return ACCESS_NO;
            if (c * (s->extent[l] - 1) < next) {
                out[d].stride[l] = c / step;
                return ACCESS_OK;
            }
            if (next % c || s->extent[l] % (next / c) || next / c <= 1) return ACCESS_NO;
            *split = (AccessSplit){l, next / c};
            return ACCESS_SPLIT;
        }
        step = next;
    }
    return ACCESS_NO;
}

AccessResult affine_digits(const LoopSpace *s, const Affine *flat, int rank, const int64_t *dim,
                           Affine *out, AccessSplit *split)
{
    memset(out, 0, (size_t)rank * sizeof *out);
    if (flat->base < 0) return ACCESS_NO;
    for (int l = 0; l < s->n; l++) {
        AccessResult r = place_loop(s, flat, l, rank, dim, out, split);
        if (r != ACCESS_OK) return r;
    }
    int64_t rest = flat->base;
    for (int d = rank - 1; d >= 0; d--) {
        int64_t lo, hi;
        out[d].base = rest % dim[d];
        rest /= dim[d];
        affine_range(s, &out[d], &lo, &hi);
        if (hi >= dim[d]) return ACCESS_NO; /* a carry into the next digit */
    }
    return rest ? ACCESS_NO : ACCESS_OK;
}

/* ---- reshape: groups of dimensions with equal products are independent ---- */

static int64_t n_elems(const int64_t *dim, int n)
{
    int64_t p = 1;
    for (int i = 0; i < n; i++) p *= dim[i];
    return p;
}

/* Result dimensions [r0, r1) hold the same elements as operand dimensions [o0, o1). */
static AccessResult reshape_group(const LoopSpace *s, const Type *rt, int r0, int r1,
                                  const Type *ot, int o0, int o1, const IndexMap *result,
                                  IndexMap *operand, AccessSplit *split)
{
    Affine flat = {0};
    int64_t step = 1;
    for (int d = r1 - 1; d >= r0; d--) {
        if (rt->dim[d] > 1) affine_add(&flat, &result->dim[d], step);
        step *= rt->dim[d];
    }
    int n_big = 0, big = o0;
    for (int d = o0; d < o1; d++) {
        memset(&operand->dim[d], 0, sizeof operand->dim[d]);
        if (ot->dim[d] > 1) {
            n_big++;
            big = d;
        }
    }
    if (n_big == 0) return ACCESS_OK;
    if (n_big == 1) {
        operand->dim[big] = flat;
        return ACCESS_OK;
    }
    return affine_digits(s, &flat, o1 - o0, ot->dim + o0, operand->dim + o0, split);
}

static AccessResult map_reshape(const LoopSpace *s, const Type *rt, const Type *ot,
                                const IndexMap *result, IndexMap *operand, AccessSplit *split)
{
    int r0 = 0, o0 = 0;
    operand->rank = ot->rank;
    while (r0 < rt->rank || o0 < ot->rank) {
        int r1 = r0 + (r0 < rt->rank), o1 = o0 + (o0 < ot->rank);
        int64_t rn = n_elems(rt->dim + r0, r1 - r0), on = n_elems(ot->dim + o0, o1 - o0);
        while (rn != on) {
            if (rn < on)
                rn *= rt->dim[r1++];
            else
                on *= ot->dim[o1++];
        }
        AccessResult r = reshape_group(s, rt, r0, r1, ot, o0, o1, result, operand, split);
        if (r != ACCESS_OK) return r;
        r0 = r1;
        o0 = o1;
    }
    return ACCESS_OK;
}

/* ---- the other views ---- */

static const int64_t *list_of(const Op *o, AttrKey key)
{
    const Attr *a = attrs_find(o->attrs, key);
    ZM_CHECK(a != NULL);
    return a->as.list.at;
}

static void map_broadcast(const Type *rt, const Type *ot, const IndexMap *result, IndexMap *operand)
{
    int lead = rt->rank - ot->rank;
    operand->rank = ot->rank;
    for (int d = 0; d < ot->rank; d++) {
        if (ot->dim[d] == 1)
            memset(&operand->dim[d], 0, sizeof operand->dim[d]);
        else
            operand->dim[d] = result->dim[lead + d];
    }
}

/* Shifts dimension d by -low; guards it to [0, n) unless it always is. */
static void shift_guarded(Arena *a, const LoopSpace *s, IndexMap *map, int d, int64_t low,
                          int64_t n, const AccessGuard **guards)
{
    map->dim[d].base -= low;
    int64_t lo, hi;
    affine_range(s, &map->dim[d], &lo, &hi);
    if (lo >= 0 && hi < n) return;
    AccessGuard *g = ARENA_NEW(a, AccessGuard);
    *g = (AccessGuard){map->dim[d], n, *guards};
    *guards = g;
}

static void map_concat(Arena *a, const LoopSpace *s, const Func *f, const Op *o, uint32_t k,
                       IndexMap *map, const AccessGuard **guards)
{
    int axis = (int)attr_int(o->attrs, AT_AXIS, 0);
    int64_t start = 0;
    for (uint32_t i = 0; i < k; i++) start += value_type(f, o->in[i])->dim[axis];
    shift_guarded(a, s, map, axis, start, value_type(f, o->in[k])->dim[axis], guards);
}

AccessResult map_through_view(Arena *a, const LoopSpace *s, const Func *f, const Op *o, uint32_t k,
                              const IndexMap *result, IndexMap *operand, const AccessGuard **guards,
                              AccessSplit *split)
{
    const Type *rt = value_type(f, o->out[0]), *ot = value_type(f, o->in[k]);
    if (o->code == OP_RESHAPE) return map_reshape(s, rt, ot, result, operand, split);
    if (o->code == OP_BROADCAST) {
        map_broadcast(rt, ot, result, operand);
        return ACCESS_OK;
    }
    *operand = *result;
    if (o->code == OP_TRANSPOSE) {
        const int64_t *perm = list_of(o, AT_PERM);
        for (int d = 0; d < rt->rank; d++) operand->dim[perm[d]] = result->dim[d];
    } else if (o->code == OP_SLICE) {
        const int64_t *start = list_of(o, AT_STARTS);
        for (int d = 0; d < rt->rank; d++) operand->dim[d].base += start[d];
    } else if (o->code == OP_PAD) {
        const int64_t *low = list_of(o, AT_LOW);
        for (int d = 0; d < rt->rank; d++)
            shift_guarded(a, s, operand, d, low[d], ot->dim[d], guards);
    } else {
        ZM_CHECK(o->code == OP_CONCAT);
        map_concat(a, s, f, o, k, operand, guards);
    }
    return ACCESS_OK;
}

bool op_is_view(OpCode code)
{
    return code == OP_RESHAPE || code == OP_TRANSPOSE || code == OP_BROADCAST || code == OP_SLICE ||
           code == OP_PAD;
}

bool op_is_alias(const Func *f, const Op *o)
{
    if (o->code == OP_RESHAPE || o->code == OP_AFTER) return true;
    if (o->code != OP_SLICE) return false;
    const Type *rt = value_type(f, o->out[0]), *ot = value_type(f, o->in[0]);
    bool is_cut = false; /* outside of a dimension that is cut, only dimensions of one element */
    for (int d = rt->rank - 1; d >= 0; d--) {
        if (is_cut && rt->dim[d] > 1) return false;
        is_cut |= rt->dim[d] != ot->dim[d];
    }
    return true;
}
