/* cse.c -- merges identical pure ops: the later one's uses take the earlier one's results.
 *
 * Two ops are identical when code, operands (in either order where the op commutes), attributes,
 * result types and body agree.  Safe because values never change; an op that draws random numbers
 * names its stream, so two draws differ.  A read counts as pure between two writes: reads of one
 * variable merge unless a write stands between them. Cost O(ops), scratch arena only.  Source:
 * global value numbering on straight-line code (Click, PLDI 1995). */
#include "passes/pass.h"

#include <string.h>

#include "passes/value_map.h"

typedef struct Cse {
    PassCtx *cx;
    Func *f;
    ValueMap map;
    Map seen;          /* hash -> OpId.i */
    uint32_t n_writes; /* so far ... */
    uint32_t *epoch;   /* ... and when each op was visited, by OpId.i: a read may only merge within
                          one epoch */
} Cse;

static uint64_t hash_u64(uint64_t v, uint64_t seed)
{
    return hash_bytes(&v, sizeof v, seed);
}

static uint64_t f64_bits(double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static uint64_t hash_attrs(Attrs attrs, uint64_t h)
{
    for (uint32_t i = 0; i < attrs.n; i++) {
        const Attr *a = &attrs.at[i];
        h = hash_u64(a->key, h);
        if (attr_kind(a->key) == AK_LIST)
            h = hash_bytes(a->as.list.at, a->as.list.n * sizeof *a->as.list.at, h);
        else if (attr_kind(a->key) == AK_FLOAT)
            h = hash_u64(f64_bits(a->as.f), h);
        else
            h = hash_u64((uint64_t)a->as.i,
                         h); /* strings are interned: the pointer, in the same union */
    }
    return h;
}

static bool attr_same(const Attr *a, const Attr *b)
{
    if (a->key != b->key) return false;
    switch (attr_kind(a->key)) {
    case AK_STR: return a->as.s == b->as.s;
    case AK_FLOAT: return f64_bits(a->as.f) == f64_bits(b->as.f); /* -0 is not 0, NaN is NaN */
    case AK_LIST:
        return a->as.list.n == b->as.list.n &&
               memcmp(a->as.list.at, b->as.list.at, a->as.list.n * sizeof *a->as.list.at) == 0;
    case AK_INT:
    case AK_BOOL:
    case AK_DTYPE: return a->as.i == b->as.i;
    }
    ZM_UNREACHABLE("attribute kind");
}

static bool attrs_same(Attrs a, Attrs b)
{
    if (a.n != b.n) return false;
    for (uint32_t i = 0; i < a.n; i++)
        if (!attr_same(&a.at[i], &b.at[i])) return false;
    return true;
}

/* Bodies that were built alike number their values alike. */
static bool body_same(const Func *a, const Func *b)
{
    if (a == b) return true;
    if (!a || !b || a->params.n != b->params.n) return false;
    OpId x = a->first, y = b->first;
    for (; op_ok(x) && op_ok(y); x = op_cget(a, x)->next, y = op_cget(b, y)->next) {
        const Op *p = op_cget(a, x), *q = op_cget(b, y);
        if (p->code != q->code || p->n_in != q->n_in || p->n_out != q->n_out ||
            !attrs_same(p->attrs, q->attrs) || memcmp(p->in, q->in, p->n_in * sizeof *p->in) != 0 ||
            memcmp(p->out, q->out, p->n_out * sizeof *p->out) != 0)
            return false;
    }
    return !op_ok(x) && !op_ok(y);
}

static bool commutes(const Op *o)
{
    return o->n_in == 2 && op_info(o->code)->traits & TR_COMMUTES;
}

static uint64_t hash_op(const Cse *c, const Op *o)
{
    uint64_t h = hash_attrs(o->attrs, hash_u64(o->code, 0));
    if (o->code == OP_READ) h = hash_u64(c->n_writes, h);
    if (commutes(o)) {
        uint32_t a = o->in[0].i, b = o->in[1].i;
        return hash_u64((uint64_t)(a < b ? a : b) << 32 | (a < b ? b : a), h);
    }
    return hash_bytes(o->in, o->n_in * sizeof *o->in, h);
}

static bool operands_same(const Op *a, const Op *b)
{
    if (a->n_in != b->n_in) return false;
    if (a->n_in == 0 || memcmp(a->in, b->in, a->n_in * sizeof *a->in) == 0) return true;
    return commutes(a) && a->in[0].i == b->in[1].i && a->in[1].i == b->in[0].i;
}

static bool op_same(const Func *f, const Op *a, const Op *b)
{
    if (a->code != b->code || a->n_out != b->n_out || !operands_same(a, b) ||
        !attrs_same(a->attrs, b->attrs) || !body_same(a->body, b->body))
        return false;
    for (uint32_t i = 0; i < a->n_out; i++)
        if (value_type(f, a->out[i]) != value_type(f, b->out[i])) return false;
    return true;
}

/* The earlier op that is the same as `op`; none: `op` is remembered. */
static OpId find_or_add(Cse *c, OpId op)
{
    const Op *o = op_cget(c->f, op);
    for (uint64_t h = hash_op(c, o);; h = hash_u64(h, 1)) { /* a colliding hash tries the next */
        uint32_t twin = map_get(&c->seen, h);
        if (twin == MAP_NONE) {
            map_put(&c->seen, h, op.i);
            return (OpId){0};
        }
        const Op *t = op_cget(c->f, (OpId){twin});
        bool is_stale = o->code == OP_READ && c->epoch[twin] != c->n_writes;
        if (!is_stale && op_same(c->f, t, o)) return (OpId){twin};
    }
}

static void visit(Cse *c, OpId op)
{
    value_map_apply(&c->map, c->f, op);
    const Op *o = op_cget(c->f, op);
    if (o->code == OP_WRITE || o->code == OP_PROBE) c->n_writes++;
    c->epoch[op.i] = c->n_writes;
    if (o->code != OP_READ && !(op_info(o->code)->traits & TR_PURE)) return;
    OpId twin = find_or_add(c, op);
    if (!op_ok(twin)) return;
    const Op *t = op_cget(c->f, twin);
    for (uint32_t i = 0; i < o->n_out; i++) {
        value_map_set(&c->map, o->out[i], t->out[i]);
        Value *kept = value_get(c->f, t->out[i]);
        if (!kept->name) kept->name = value_cget(c->f, o->out[i])->name;
    }
    op_erase(c->f, op);
    c->cx->n_rewrites++;
}

Status pass_cse(PassCtx *cx, bool *changed)
{
    for (uint32_t i = 0; i < cx->m->funcs.n; i++) {
        Cse c = {.cx = cx, .f = cx->m->funcs.at[i]};
        c.map.arena = c.seen.arena = cx->scratch;
        c.epoch = ARENA_ARRAY(cx->scratch, uint32_t, c.f->ops.n);
        FOR_OPS(c.f, op) visit(&c, op);
    }
    *changed = cx->n_rewrites > 0;
    return ZM_OK;
}
