/* verify_ranks.c -- what must hold in a program of many ranks beside the types (verify.h).
 *
 * An update divides the summed gradient by the number of loss items of all ranks.  The seed of a
 * gradient does not depend on how many items count, so a gradient grows with their number n: it is
 * of degree 1 in n, its square sum of degree 2, the sums of items and n itself of degree 1.  An
 * update multiplies the gradient by gscale, which must be of degree -1: else it is a step by a sum,
 * whose size depends on the number of ranks.  Degrees follow from arithmetic on scalars as units
 * do: a product adds them, a root halves them, a sum has that of its terms.  n is what @loss
 * divides by.
 *
 * Each rank counts its samples on from where its own begin (input rng), so what is drawn for them
 * is divided as the samples are. */
#include "ir/base/program.h"
#include "ir/verify.h"

#include <string.h>

/* ---- the scale of gradients ---- */

typedef enum { DEG_UNKNOWN, DEG_ANY /* a number, of whatever degree */, DEG_KNOWN } DegreeKind;

typedef struct Degree {
    DegreeKind kind;
    int n;
} Degree;

typedef struct Degrees {
    const Func *f;
    Degree *at; /* by ValueId.i */
    ValueId items, count;
} Degrees;

static const Degree unknown = {DEG_UNKNOWN, 0}, any = {DEG_ANY, 0}, none = {DEG_KNOWN, 0};

static Degree of(const Degrees *d, ValueId v)
{
    return d->at[v.i];
}

static Degree plus(Degree a, Degree b, int sign)
{
    if (a.kind == DEG_UNKNOWN || b.kind == DEG_UNKNOWN) return unknown;
    if (a.kind == DEG_ANY && b.kind == DEG_ANY) return any;
    return (Degree){DEG_KNOWN, a.n + sign * b.n};
}

/* Of a sum, or of one of both. */
static Degree same(Degree a, Degree b)
{
    if (a.kind == DEG_ANY) return b;
    if (b.kind == DEG_ANY) return a;
    bool is_same = a.kind == DEG_KNOWN && b.kind == DEG_KNOWN && a.n == b.n;
    return is_same ? a : unknown;
}

static Degree half(Degree a)
{
    if (a.kind != DEG_KNOWN) return a;
    return a.n % 2 ? unknown : (Degree){DEG_KNOWN, a.n / 2};
}

/* The op that made v, through those that change no number's degree. */
static const Op *source_of(const Func *f, ValueId v)
{
    for (;;) {
        OpId def = value_cget(f, v)->def;
        if (!op_ok(def)) return NULL;
        const Op *o = op_cget(f, def);
        if (o->code != OP_ALL_REDUCE && o->code != OP_WAIT && o->code != OP_CAST) return o;
        v = o->in[0];
    }
}

/* One of several numbers that were put together. */
static Degree picked(const Degrees *d, const Op *slice)
{
    const Op *o = source_of(d->f, slice->in[0]);
    int64_t at = attrs_find(slice->attrs, AT_STARTS)->as.list.at[0];
    if (!o || o->code != OP_CONCAT || value_type(d->f, o->out[0])->rank != 1) return unknown;
    for (uint32_t i = 0; i < o->n_in; i++) {
        int64_t n = value_type(d->f, o->in[i])->dim[0];
        if (at < n) return n == 1 ? of(d, o->in[i]) : unknown;
        at -= n;
    }
    return unknown;
}

/* Of any other op: none when its operands have none. */
static Degree of_plain(const Degrees *d, const Op *o)
{
    for (uint32_t i = 0; i < o->n_in; i++)
        if (of(d, o->in[i]).kind == DEG_UNKNOWN || of(d, o->in[i]).n != 0) return unknown;
    return none;
}

static Degree degree_of(const Degrees *d, const Op *o)
{
    switch ((int)o->code) {
    case OP_CONST: return any;
    case OP_READ: return none;
    case OP_SUM_SQUARES: return (Degree){DEG_KNOWN, 2};
    case OP_CAST:
    case OP_RESHAPE:
    case OP_NEG:
    case OP_ABS:
    case OP_AFTER:
    case OP_WAIT:
    case OP_ALL_REDUCE: return of(d, o->in[0]);
    case OP_SLICE: return picked(d, o);
    case OP_MUL: return plus(of(d, o->in[0]), of(d, o->in[1]), 1);
    case OP_DIV: return plus(of(d, o->in[0]), of(d, o->in[1]), -1);
    case OP_ADD:
    case OP_SUB:
    case OP_MIN:
    case OP_MAX: return same(of(d, o->in[0]), of(d, o->in[1]));
    case OP_SELECT: return same(of(d, o->in[1]), of(d, o->in[2]));
    case OP_SQRT: return half(of(d, o->in[0]));
    default: return of_plain(d, o);
    }
}

/* Which operand of an update is gscale; -1: none, it is another op. */
static int gscale_operand(OpCode code)
{
    switch ((int)code) {
    case OP_ADAM_UPDATE: return 4;
    case OP_SGD_UPDATE:
    case OP_LION_UPDATE: return 3;
    case OP_DESCENT_UPDATE: return 2;
    default: return -1;
    }
}

static Status check_update(const Verifier *v, const Degrees *d, const Op *o)
{
    int i = gscale_operand(o->code);
    if (i < 0) return ZM_OK;
    Degree g = of(d, o->in[i]);
    if (g.kind == DEG_UNKNOWN || (g.kind == DEG_KNOWN && g.n == -1)) return ZM_OK;
    return verify_error(
        v, o->loc,
        "gscale of %s does not divide by the number of loss items of all ranks over axis "
        "'data': the gradient, a sum over them, would be applied times their number to "
        "the power %d",
        op_info(o->code)->name, g.n + 1);
}

static bool find_mean(Degrees *d)
{
    FOR_OPS(d->f, op)
    {
        const Op *o = op_cget(d->f, op);
        if (o->code != OP_WRITE || strcmp(attr_str(o->attrs, AT_VAR), ZMP_S_LOSS) != 0) continue;
        OpId def = value_cget(d->f, o->in[0])->def;
        const Op *mean = op_ok(def) ? op_cget(d->f, def) : NULL;
        if (!mean || mean->code != OP_DIV) return false;
        d->items = mean->in[0];
        d->count = mean->in[1];
        return true;
    }
    return false;
}

static Status check_scale(const Verifier *v, const Func *f)
{
    Degrees d = {.f = f};
    if (!find_mean(&d)) return ZM_OK;
    d.at = ARENA_ARRAY(v->scratch, Degree, f->values.n);
    FOR_OPS(f, op)
    {
        const Op *o = op_cget(f, op);
        ZM_TRY(check_update(v, &d, o));
        Degree degree = degree_of(&d, o);
        for (uint32_t i = 0; i < o->n_out; i++) {
            bool is_sum = o->out[i].i == d.items.i || o->out[i].i == d.count.i;
            d.at[o->out[i].i] = is_sum ? (Degree){DEG_KNOWN, 1} : degree;
        }
    }
    return ZM_OK;
}

/* ---- random numbers ---- */

static bool is_rng(const Func *f, ValueId v)
{
    const Value *val = value_cget(f, v);
    return !op_ok(val->def) && val->name && strcmp(val->name, "rng") == 0;
}

static Status check_draws(const Verifier *v, const Func *f)
{
    FOR_OPS(f, op)
    {
        const Op *o = op_cget(f, op);
        if (!op_takes_attr(o->code, AT_STREAM) || !is_rng(f, o->in[o->n_in - 1])) continue;
        const Type *t = value_type(f, o->code == OP_RANDOM ? o->out[0] : o->in[0]);
        if (t->rank && t->axis[0] == MESH_DATA) continue;
        return verify_error(
            v, o->loc,
            "%s draws for %s by the numbers of this rank's samples: it would differ between "
            "the ranks of axis 'data', which hold it alike",
            op_info(o->code)->name, type_text(v->scratch, t));
    }
    return ZM_OK;
}

Status verify_ranks(const Verifier *v, const Func *f)
{
    if (module_ranks(v->m) < 2) return ZM_OK;
    ZM_TRY(check_draws(v, f));
    return check_scale(v, f);
}
