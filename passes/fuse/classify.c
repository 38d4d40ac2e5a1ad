/* classify.c -- which values live in memory.
 *
 * Held: what an effect, a pack, a return, a table lookup or the operand of a matmul or attention
 * needs.  Home: held values, anchors (reductions, products, attention, scatter), and point ops that
 * several kernels use and that are not worth computing twice.  Inline: the rest.  A point op with
 * several users is computed again in each of them when its operands are in memory anyway, together
 * no larger than its result, and the arithmetic is cheap next to a trip to memory: the normalised x
 * of a layer norm, gelu's slope, a dropout mask.
 *
 * Around 16-bit floats memory holds the 16 bits: the operand of a product that is cast down, and of
 * a value that is cast up for several kernels, what is cast.
 */
#include <string.h>

#include "passes/fuse/fuse.h"

enum {
    MAX_CONE_LEAVES = 6,
    MAX_INLINE_FLOPS =
        64, /* per element, for a value with several users; a load and a store cost about as much */
    MAX_CHEAP_FLOPS = 8, /* below a broadcast, where it would be computed many times */
    MAX_CONE_OPS = 64,
    FAR_OPS = 150 /* a value used this much later is kept rather than its two operands */
};

typedef struct Cone { /* what a point op costs when it is computed again */
    ValueId leaf[MAX_CONE_LEAVES];
    uint32_t n_leaves; /* > MAX_CONE_LEAVES: too many */
    uint32_t n_ops;
    int64_t flops;
} Cone;

typedef struct Classifier {
    Fuse *s;
    bool *held;
    uint32_t *fan;   /* by value: ops that use it, through views */
    OpId *user;      /* by value: one of them */
    bool *is_spread; /* by value: some path to a user repeats it */
    Cone *cone;      /* by op */
    uint32_t *end;   /* by value: first write over what its views and inline ops read */
} Classifier;

bool op_is_host(OpCode code)
{
    return code == OP_READ || code == OP_WRITE || code == OP_PACK || code == OP_PROBE ||
           code == OP_AFTER || code == OP_RETURN || code == OP_FUSED || code == OP_WAIT ||
           code == OP_SHARD || op_takes_attr(code, AT_ASYNC);
}

/* A parameter in a gathered bucket, a number of a reduced vector: in memory already, as what is
 * read from a variable is, so that kernels see both alike. */
static bool is_part_of_collective(const Func *f, const Op *o)
{
    while (op_is_view(o->code) && op_is_alias(f, o)) {
        OpId def = value_cget(f, o->in[0])->def;
        if (!op_ok(def)) return false;
        o = op_cget(f, def);
        if (op_takes_attr(o->code, AT_ASYNC)) return true;
    }
    return false;
}

/* A view that belongs to the kernels that read it. */
static bool is_absorbed(const Func *f, const Op *o)
{
    return op_is_view(o->code) && !is_part_of_collective(f, o);
}

ValueId fuse_strip_views(const Func *f, ValueId v)
{
    for (;;) {
        OpId def = value_cget(f, v)->def;
        if (!op_ok(def) || !is_absorbed(f, op_cget(f, def))) return v;
        v = op_cget(f, def)->in[0];
    }
}

/* Marks v as held: through aliases down to the value that owns the memory. */
static void hold(const Func *f, bool *held, ValueId v)
{
    for (;;) {
        OpId def = value_cget(f, v)->def;
        if (!op_ok(def) || !op_is_alias(f, op_cget(f, def)) ||
            is_part_of_collective(f, op_cget(f, def)))
            break;
        v = op_cget(f, def)->in[0];
    }
    held[v.i] = true;
}

static int64_t elem_bytes(const Func *f, ValueId v)
{
    return dtype_bytes(value_type(f, v)->dtype);
}

static bool is_half(const Func *f, ValueId v)
{
    return dtype_class(value_type(f, v)->dtype) == DTC_FLOAT && elem_bytes(f, v) == 2;
}

/* Down to the fewest bytes: not through a cast that makes them fewer. */
static ValueId strip_views_and_casts(const Func *f, ValueId v)
{
    for (;;) {
        OpId def = value_cget(f, v)->def;
        if (!op_ok(def)) return v;
        const Op *o = op_cget(f, def);
        bool is_cast = o->code == OP_CAST && elem_bytes(f, o->in[0]) <= elem_bytes(f, v);
        if (!is_absorbed(f, o) && !is_cast) return v;
        v = o->in[0];
    }
}

/* ---- what must be held ---- */

static bool is_attention(OpCode code)
{
    return code == OP_SDPA || code == OP_SDPA_GRAD;
}

/* Attention's results in the order in which they are used: a transpose of one is stored by the
 * kernel itself. */
static bool is_layout_of_attention(const Func *f, const Op *o)
{
    if (o->code != OP_TRANSPOSE) return false;
    OpId def = value_cget(f, o->in[0])->def;
    return op_ok(def) && is_attention(op_cget(f, def)->code);
}

static ValueId strip_to_layout(const Func *f, ValueId v)
{
    for (;;) {
        OpId def = value_cget(f, v)->def;
        if (!op_ok(def)) return v;
        const Op *o = op_cget(f, def);
        if (!is_absorbed(f, o) || is_layout_of_attention(f, o)) return v;
        v = o->in[0];
    }
}

static void hold_operands(const Func *f, bool *held, const Op *o)
{
    if (op_is_host(o->code)) {
        for (uint32_t i = 0; i < o->n_in; i++) hold(f, held, o->in[i]);
    } else if (o->code == OP_MATMUL) {
        for (uint32_t i = 0; i < 2; i++) {
            ValueId v = strip_to_layout(f, o->in[i]);
            OpId def = value_cget(f, v)->def;
            bool is_layout = op_ok(def) && is_layout_of_attention(f, op_cget(f, def));
            hold(f, held, is_layout ? v : strip_views_and_casts(f, o->in[i]));
        }
    } else if (is_attention(o->code)) {
        for (uint32_t i = 0; i < o->n_in; i++) hold(f, held, strip_to_layout(f, o->in[i]));
    } else if (o->code == OP_EMBED || o->code == OP_SCATTER_ADD) {
        hold(f, held, o->in[0]);
    }
    if (is_layout_of_attention(f, o)) held[o->out[0].i] = true;
}

/* ---- users ---- */

static void note_users(Classifier *c, OpId id)
{
    const Func *f = c->s->f;
    const Op *o = op_cget(f, id);
    if (is_absorbed(f, o) && !c->held[o->out[0].i]) return;
    for (uint32_t i = 0; i < o->n_in; i++) {
        int64_t n = type_elems(value_type(f, o->in[i]));
        ValueId v = o->in[i];
        for (;;) {
            if (n > type_elems(value_type(f, v))) c->is_spread[v.i] = true;
            if (c->user[v.i].i != id.i) c->fan[v.i]++;
            c->user[v.i] = id;
            OpId def = value_cget(f, v)->def;
            if (!op_ok(def) || !is_absorbed(f, op_cget(f, def)) || c->held[v.i]) break;
            v = op_cget(f, def)->in[0];
        }
    }
}

/* ---- cones ---- */

static bool is_computed_again(const Classifier *c, ValueId v)
{
    OpId def = value_cget(c->s->f, v)->def;
    return op_ok(def) && c->s->class[def.i] == FC_INLINE;
}

static void cone_add_leaf(Cone *to, ValueId v)
{
    for (uint32_t i = 0; i < to->n_leaves && i < MAX_CONE_LEAVES; i++)
        if (to->leaf[i].i == v.i) return;
    if (to->n_leaves < MAX_CONE_LEAVES) to->leaf[to->n_leaves] = v;
    to->n_leaves++;
}

static void cone_add(Cone *to, const Cone *from)
{
    for (uint32_t i = 0; i < from->n_leaves && i < MAX_CONE_LEAVES; i++)
        cone_add_leaf(to, from->leaf[i]);
    if (from->n_leaves > MAX_CONE_LEAVES) to->n_leaves = MAX_CONE_LEAVES + 1;
    to->n_ops += from->n_ops;
    to->flops += from->flops;
}

static ValueId strip_to_held(const Classifier *c, ValueId v)
{
    const Func *f = c->s->f;
    for (;;) {
        OpId def = value_cget(f, v)->def;
        if (c->held[v.i] || !op_ok(def) || !is_absorbed(f, op_cget(f, def))) return v;
        v = op_cget(f, def)->in[0];
    }
}

static void cone_compute(Classifier *c, const Op *o, Cone *cone)
{
    *cone = (Cone){.n_ops = 1, .flops = op_info(o->code)->cost_flops};
    for (uint32_t i = 0; i < o->n_in; i++) {
        ValueId v = strip_to_held(c, o->in[i]);
        if (is_computed_again(c, v))
            cone_add(cone, &c->cone[value_cget(c->s->f, v)->def.i]);
        else
            cone_add_leaf(cone, v);
    }
}

static int64_t cone_leaf_bytes(const Classifier *c, const Cone *cone)
{
    int64_t n = 0;
    for (uint32_t i = 0; i < cone->n_leaves && i < MAX_CONE_LEAVES; i++)
        n += type_bytes(value_type(c->s->f, cone->leaf[i]));
    return n;
}

/* Is v in memory whatever becomes of this op? */
static bool is_kept_anyway(const Classifier *c, ValueId v)
{
    OpId def = value_cget(c->s->f, v)->def;
    return c->held[v.i] || !op_ok(def) || c->s->class[def.i] == FC_HOST || c->fan[v.i] >= 2;
}

static bool leaves_are_kept(const Classifier *c, const Cone *cone, int64_t own_bytes)
{
    for (uint32_t i = 0; i < cone->n_leaves; i++) {
        bool is_large = type_bytes(value_type(c->s->f, cone->leaf[i])) * 8 > own_bytes;
        if (is_large && !is_kept_anyway(c, cone->leaf[i])) return false;
    }
    return true;
}

/* ---- the decision ---- */

static bool is_far(const Classifier *c, const Op *o, ValueId v)
{
    uint32_t here = c->s->pos[value_cget(c->s->f, o->out[0])->def.i];
    return c->s->pos[c->user[v.i].i] > here + FAR_OPS;
}

static bool is_lone_product(const Classifier *c, ValueId v)
{
    OpId def = value_cget(c->s->f, v)->def;
    return op_ok(def) && op_cget(c->s->f, def)->code == OP_MATMUL && c->fan[v.i] == 1;
}

static bool has_lone_product(const Classifier *c, const Op *o, ValueId other_than)
{
    for (uint32_t i = 0; i < o->n_in; i++)
        if (o->in[i].i != other_than.i && is_lone_product(c, o->in[i])) return true;
    return false;
}

/* A sum of products so far, to which the only user adds the next: kept, so that each product adds
 * to it in its epilogue (and the memory plan in place) instead of all of them being kept until the
 * last. */
static bool is_running_sum(const Classifier *c, const Op *o)
{
    ValueId v = o->out[0];
    if (o->code != OP_ADD || c->fan[v.i] != 1 || !has_lone_product(c, o, (ValueId){0}))
        return false;
    const Op *user = op_cget(c->s->f, c->user[v.i]);
    return user->code == OP_ADD && has_lone_product(c, user, v);
}

static FuseClass class_of_point(Classifier *c, const Op *o, const Cone *cone)
{
    ValueId v = o->out[0];
    const Type *t = value_type(c->s->f, v);
    int64_t bytes = type_bytes(t), leaf_bytes = cone_leaf_bytes(c, cone);
    if (c->held[v.i] || is_running_sum(c, o)) return FC_HOME;
    if (o->code == OP_CONST || o->code == OP_IOTA) return FC_INLINE;
    if (cone->n_ops > MAX_CONE_OPS) return FC_HOME;
    if (c->is_spread[v.i] && cone->flops > MAX_CHEAP_FLOPS && cone->n_leaves > 0) return FC_HOME;
    if (c->fan[v.i] <= 1)
        return is_far(c, o, v) && leaf_bytes > bytes + bytes / 2 ? FC_HOME : FC_INLINE;
    if (type_elems(t) == 1 || cone->n_leaves > MAX_CONE_LEAVES || cone->flops > MAX_INLINE_FLOPS)
        return FC_HOME;
    if (leaf_bytes > bytes + bytes / 2 || !leaves_are_kept(c, cone, bytes)) return FC_HOME;
    return FC_INLINE;
}

static bool is_anchor(OpCode code)
{
    return code == OP_REDUCE_SUM || code == OP_REDUCE_MAX || code == OP_MATMUL ||
           is_attention(code) || code == OP_SCATTER_ADD;
}

static FuseClass class_of(Classifier *c, OpId id)
{
    const Op *o = op_cget(c->s->f, id);
    if (op_is_host(o->code) || is_part_of_collective(c->s->f, o)) return FC_HOST;
    if (is_anchor(o->code)) return FC_HOME;
    if (op_is_view(o->code)) return c->held[o->out[0].i] ? FC_HOME : FC_VIEW;
    Cone *cone = &c->cone[id.i];
    cone_compute(c, o, cone);
    return class_of_point(c, o, cone);
}

/* ---- reads that end before their user ---- */

static uint32_t end_of(const Classifier *c, const Op *o)
{
    FuseClass class = (FuseClass)c->s->class[value_cget(c->s->f, o->out[0])->def.i];
    if (o->code == OP_READ || o->code == OP_SHARD) return c->s->read_end[o->out[0].i];
    uint32_t end = UINT32_MAX;
    for (uint32_t i = 0; i < o->n_in && (class == FC_VIEW || class == FC_INLINE); i++)
        if (c->end[o->in[i].i] < end) end = c->end[o->in[i].i];
    return end;
}

/* A view or inline op before a write of what it reads, wanted after it, is held.  True: some were.
 */
static bool hold_ended(Classifier *c)
{
    const Fuse *s = c->s;
    bool is_any = false;
    FOR_OPS(s->f, op)
    {
        const Op *o = op_cget(s->f, op);
        for (uint32_t i = 0; i < o->n_in; i++) {
            uint32_t v = o->in[i].i;
            OpId def = value_cget(s->f, o->in[i])->def;
            bool is_ended = op_ok(def) && c->end[v] < s->pos[op.i] && s->pos[def.i] < c->end[v];
            if (!is_ended || s->class[def.i] == FC_HOST || c->held[v]) continue;
            c->held[v] = is_any = true;
        }
        if (o->n_out) {
            uint32_t end = end_of(c, o);
            for (uint32_t r = 0; r < o->n_out; r++) c->end[o->out[r].i] = end;
        }
    }
    return is_any;
}

/* What is cast up to a value that several kernels need is held in its place.  True: some were. */
static bool hold_narrow(Classifier *c)
{
    const Fuse *s = c->s;
    bool is_any = false;
    FOR_OPS(s->f, op)
    {
        const Op *o = op_cget(s->f, op);
        bool is_widening = o->code == OP_CAST && is_half(s->f, o->in[0]);
        if (!is_widening || s->class[op.i] != FC_HOME || c->held[o->out[0].i]) continue;
        ValueId v = fuse_strip_views(s->f, o->in[0]);
        OpId def = value_cget(s->f, v)->def;
        if (!op_ok(def) || s->class[def.i] == FC_HOST || c->held[v.i]) continue;
        c->held[v.i] = is_any = true;
    }
    return is_any;
}

void fuse_classify(Fuse *s, bool *held)
{
    const Func *f = s->f;
    Classifier c = {.s = s, .held = held};
    FOR_OPS(f, op) hold_operands(f, held, op_cget(f, op));
    c.cone = ARENA_ARRAY(s->a, Cone, f->ops.n);
    do {
        c.fan = ARENA_ARRAY(s->a, uint32_t, f->values.n);
        c.user = ARENA_ARRAY(s->a, OpId, f->values.n);
        c.is_spread = ARENA_ARRAY(s->a, bool, f->values.n);
        c.end = ARENA_ARRAY(s->a, uint32_t, f->values.n);
        memset(c.end, 0xff, f->values.n * sizeof *c.end);
        FOR_OPS(f, op) note_users(&c, op);
        FOR_OPS(f, op) s->class[op.i] = (uint8_t)class_of(&c, op);
    } while (hold_ended(&c) | hold_narrow(&c));
}
