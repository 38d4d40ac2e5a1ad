/* index_range.c -- ranges of integers, so that no index leaves its table.
 *
 * embed and cross_entropy take indices without a check at run time.  An input that is used as an
 * index gets its bound here (the loader refuses data outside of it); what is computed from inputs,
 * arange and constants must provably stay inside, by interval arithmetic.  A range is an interval
 * and at most one value beside it (`ignore`). */
#include "frontend/elab.h"

typedef struct Range {
    int64_t lo, hi; /* is_known: every value is in lo..hi, or is `other` */
    bool is_known, has_other;
    int64_t other;
    uint32_t input; /* 1 + index of the input whose elements these are; 0: none */
} Range;

static Range range_of(int64_t lo, int64_t hi)
{
    bool fits = lo >= INT32_MIN && hi <= INT32_MAX; /* 32-bit arithmetic may wrap beyond */
    return fits ? (Range){.lo = lo, .hi = hi, .is_known = true} : (Range){0};
}

static Range range_union(Range a, Range b)
{
    if (!a.is_known || !b.is_known) return (Range){0};
    bool b_is_apart = b.lo == b.hi && (b.lo < a.lo || b.lo > a.hi),
         a_is_apart = a.lo == a.hi && (a.lo < b.lo || a.lo > b.hi);
    if (b_is_apart && !b.has_other && (!a.has_other || a.other == b.lo))
        return (Range){.lo = a.lo, .hi = a.hi, .is_known = true, .has_other = true, .other = b.lo};
    if (a_is_apart && !a.has_other && (!b.has_other || b.other == a.lo))
        return (Range){.lo = b.lo, .hi = b.hi, .is_known = true, .has_other = true, .other = a.lo};
    Range r = range_of(a.lo < b.lo ? a.lo : b.lo, a.hi > b.hi ? a.hi : b.hi);
    if (a.has_other && b.has_other && a.other != b.other) return (Range){0};
    r.has_other = a.has_other || b.has_other;
    r.other = a.has_other ? a.other : b.other;
    return r;
}

/* Without the value beside the interval. */
static Range range_plain(Range r)
{
    if (!r.is_known || !r.has_other) return r.is_known ? range_of(r.lo, r.hi) : (Range){0};
    return range_of(r.other < r.lo ? r.other : r.lo, r.other > r.hi ? r.other : r.hi);
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static Range range_mul(Range a, Range b)
{
    int64_t p = a.lo * b.lo, q = a.lo * b.hi, r = a.hi * b.lo,
            s = a.hi * b.hi; /* of 32-bit numbers */
    return range_of(least(least(p, q), least(r, s)), most(most(p, q), most(r, s)));
}

/* min and max bound one side even when the other operand is unknown. */
static Range range_minmax(Range a, Range b, bool is_max)
{
    Range all = {.lo = INT32_MIN, .hi = INT32_MAX, .is_known = true};
    if (!a.is_known) a = all;
    if (!b.is_known) b = all;
    return is_max ? range_of(most(a.lo, b.lo), most(a.hi, b.hi))
                  : range_of(least(a.lo, b.lo), least(a.hi, b.hi));
}

static Range range_binary(OpCode code, Range a, Range b)
{
    a = range_plain(a);
    b = range_plain(b);
    if (code == OP_MAX || code == OP_MIN) return range_minmax(a, b, code == OP_MAX);
    if (!a.is_known || !b.is_known) return (Range){0};
    if (code == OP_ADD) return range_of(a.lo + b.lo, a.hi + b.hi);
    if (code == OP_SUB) return range_of(a.lo - b.hi, a.hi - b.lo);
    return code == OP_MUL ? range_mul(a, b) : (Range){0};
}

static Range range_op(const Func *f, const Op *op, const Range *r)
{
    Range a = op->n_in ? r[op->in[0].i] : (Range){0};
    switch ((int)op->code) {
    case OP_CONST: {
        double v = attr_float(op->attrs, AT_VALUE, 0);
        return range_of((int64_t)v, (int64_t)v);
    }
    case OP_IOTA:
        return range_of(0, value_type(f, op->out[0])->dim[attr_int(op->attrs, AT_AXIS, 0)] - 1);
    case OP_RESHAPE:
    case OP_BROADCAST:
    case OP_SLICE:
    case OP_TRANSPOSE:
    case OP_REDUCE_MAX: return a;
    case OP_CAST: return value_type(f, op->in[0])->dtype == DT_I1 ? range_of(0, 1) : (Range){0};
    case OP_NEG: return range_binary(OP_SUB, range_of(0, 0), a);
    case OP_SELECT: return range_union(r[op->in[1].i], r[op->in[2].i]);
    case OP_CONCAT:
        for (uint32_t i = 1; i < op->n_in; i++) a = range_union(a, r[op->in[i].i]);
        a.input = 0;
        return a;
    default: return op->n_in == 2 ? range_binary(op->code, a, r[op->in[1].i]) : (Range){0};
    }
}

/* Ranges of all i32 values, given those of the inputs. */
static void ranges_fill(const Func *f, Range *r)
{
    FOR_OPS(f, id)
    {
        const Op *op = op_cget(f, id);
        if (op->n_out == 1 && value_type(f, op->out[0])->dtype == DT_I32)
            r[op->out[0].i] = range_op(f, op, r);
    }
}

/* The table's size when op uses operand 1 as an index; else 0. */
static int64_t index_bound(const Func *f, const Op *op)
{
    if (op->code != OP_EMBED && op->code != OP_CROSS_ENTROPY) return 0;
    const Type *t = value_type(f, op->in[0]);
    return op->code == OP_EMBED ? t->dim[0] : t->dim[t->rank - 1];
}

/* Inputs used as indices as they are: the loader checks them.  is_strict: some use takes no ignored
 * value. */
static void feeds_from_uses(Elab *e, const Func *f, const Range *r, bool *is_strict)
{
    FOR_OPS(f, id)
    {
        const Op *op = op_cget(f, id);
        int64_t bound = index_bound(f, op);
        uint32_t input = bound ? r[op->in[1].i].input : 0;
        if (!input) continue;
        Feed *feed = &e->m->feeds.at[input - 1];
        const Attr *ignore = attrs_find(op->attrs, AT_IGNORE);
        if (!ignore || (feed->has_ignore && feed->ignore != ignore->as.i))
            is_strict[input - 1] = true;
        if (ignore) {
            feed->has_ignore = true;
            feed->ignore = ignore->as.i;
        }
        if (!feed->bound || bound < feed->bound) feed->bound = bound;
    }
}

static Range feed_range(const Feed *feed)
{
    if (!feed->bound) return (Range){0};
    Range r = range_of(0, feed->bound - 1);
    r.has_other = feed->has_ignore;
    r.other = feed->ignore;
    return r;
}

static Status index_check(Elab *e, const Op *op, int64_t bound, Range r)
{
    const Attr *ignore = attrs_find(op->attrs, AT_IGNORE);
    bool other_is_fine =
        !r.has_other || (ignore && r.other == ignore->as.i) || (r.other >= 0 && r.other < bound);
    bool is_ignored = ignore && r.lo == r.hi && r.lo == ignore->as.i;
    if (r.is_known && other_is_fine && (is_ignored || (r.lo >= 0 && r.hi < bound))) return ZM_OK;
    SrcPos pos = loc_pos(e->m, op->loc);
    Range all = range_plain(r);
    if (bound - 1 > INT32_MAX) {
        elab_error(e, pos, E_INDEX_RANGE, "%s chooses among %lld, but an int ends at %d",
                   op_info(op->code)->name, (long long)bound, INT32_MAX);
        return ZM_FAIL;
    }
    if (all.is_known)
        elab_error(e, pos, E_INDEX_RANGE, "%s needs indices in 0..%lld, these may be %lld..%lld",
                   op_info(op->code)->name, (long long)bound - 1, (long long)all.lo,
                   (long long)all.hi);
    else
        elab_error(e, pos, E_INDEX_RANGE, "%s needs indices in 0..%lld, and nothing bounds these",
                   op_info(op->code)->name, (long long)bound - 1);
    elab_help(e, "bound them: clamp(index, 0, %lld)", (long long)bound - 1);
    return ZM_FAIL;
}

/* Ranges of f's values; those of inputs are their feeds'. */
static Range *func_ranges(Elab *e, const Func *f)
{
    Range *r = ARENA_ARRAY(e->arena, Range, f->values.n);
    for (uint32_t i = 0; i < f->params.n; i++) {
        const Value *param = value_cget(f, f->params.at[i]);
        for (uint32_t k = 0; k < e->m->feeds.n; k++) {
            if (e->m->feeds.at[k].input != param->name) continue;
            r[f->params.at[i].i] = feed_range(&e->m->feeds.at[k]);
            r[f->params.at[i].i].input = k + 1;
        }
    }
    ranges_fill(f, r);
    return r;
}

Status feeds_bound(Elab *e)
{
    bool *is_strict = ARENA_ARRAY(e->arena, bool, e->m->feeds.n);
    Status st = ZM_OK;
    for (uint32_t i = 0; i < e->m->funcs.n; i++)
        feeds_from_uses(e, e->m->funcs.at[i], func_ranges(e, e->m->funcs.at[i]), is_strict);
    for (uint32_t i = 0; i < e->m->feeds.n; i++)
        if (is_strict[i]) e->m->feeds.at[i].has_ignore = false;
    for (uint32_t i = 0; i < e->m->funcs.n; i++) {
        const Func *f = e->m->funcs.at[i];
        Range *r = func_ranges(e, f);
        FOR_OPS(f, id)
        {
            const Op *op = op_cget(f, id);
            if (index_bound(f, op) &&
                index_check(e, op, index_bound(f, op), r[op->in[1].i]) != ZM_OK)
                st = ZM_FAIL;
        }
    }
    return st;
}
