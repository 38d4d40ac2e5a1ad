/* regather.c -- pass regather: gathered parameters are not held from the forward to the backward.
 *
 * - in: primitive ops; each function gathers a bucket once (pass zero, stage 3)
 * - out: where the bytes do not fit between two uses of a bucket, the later ones read a second
 * gather, right before them; at most two of a bucket in a function
 * - inv: the same values, since nothing writes to the bucket in between
 * - cost: O(ops) for each bucket
 *
 * The cut is at the longest time without a use, which is the one between forward and backward.  At
 * first all buckets are cut.  Then, shortest gap first, those are kept whose bytes leave the most
 * gathered at once as it is or, with --max-gathered-bytes, leave room for the largest layer, so
 * that the next one can be gathered ahead (passes/flight.c). */
#include <stdlib.h>
#include <string.h>

#include "passes/collective.h"
#include "passes/readings.h"

typedef struct Gather {
    OpId op;
    int64_t bytes;
    const char *group;
    uint32_t n_uses;
    uint32_t first, until, again, last; /* positions of uses: [first, until], [again, last] */
    bool is_kept;                       /* one gather for both */
} Gather;

typedef struct Regather {
    PassCtx *cx;
    Func *f;
    uint32_t n_pos;
    OpId *op_at;
    VEC(Gather) gathers;
    uint32_t n_values; /* before anything is added */
    uint32_t *root;    /* by value: 1 + gather that it is made of alone */
    ValueId *copy;     /* by value: the same of the second gather */
    int64_t *delta;    /* by position: for most_gathered() */
} Regather;

static uint32_t root_of(const Regather *r, ValueId v)
{
    return v.i < r->n_values ? r->root[v.i] : 0;
}

/* ---- uses ---- */

/* Costs no memory to speak of, or is as soon made again. */
static bool is_made_of_one(const Op *o)
{
    return o->n_in == 1 && (op_info(o->code)->traits & TR_VIEW || o->code == OP_CAST);
}

static void add_use(Gather *g, uint32_t p)
{
    if (g->n_uses++ == 0) g->first = g->until = g->again = g->last = p;
    if (p - g->last > g->again - g->until) {
        g->until = g->last;
        g->again = p;
    }
    g->last = p;
}

static void find_uses(Regather *r)
{
    for (uint32_t p = 0; p < r->n_pos; p++) {
        const Op *o = op_cget(r->f, r->op_at[p]);
        if (gathers_params(r->f, r->op_at[p])) {
            VarId bucket = collective_bucket(r->f, r->op_at[p]);
            Gather g = {.op = r->op_at[p],
                        .bytes = type_bytes(value_type(r->f, o->out[0])),
                        .group = bucket_instance(r->f->m, bucket)};
            VEC_PUSH(r->cx->scratch, &r->gathers, g);
            r->root[o->out[0].i] = r->gathers.n;
        } else if (is_made_of_one(o) && r->root[o->in[0].i]) {
            r->root[o->out[0].i] = r->root[o->in[0].i];
        } else {
            for (uint32_t i = 0; i < o->n_in; i++)
                if (r->root[o->in[i].i]) add_use(&r->gathers.at[r->root[o->in[i].i] - 1], p);
        }
    }
}

/* ---- what is kept ---- */

/* Most bytes gathered at once. */
static int64_t most_gathered(const Regather *r)
{
    int64_t *delta = r->delta;
    memset(delta, 0, (r->n_pos + 1) * sizeof *delta);
    for (uint32_t i = 0; i < r->gathers.n; i++) {
        const Gather *g = &r->gathers.at[i];
        delta[g->first] += g->bytes;
        delta[g->last + 1] -= g->bytes;
        if (g->is_kept) continue;
        delta[g->until + 1] -= g->bytes;
        delta[g->again] += g->bytes;
    }
    int64_t now = 0, most = 0;
    for (uint32_t p = 0; p < r->n_pos; p++) {
        now += delta[p];
        if (now > most) most = now;
    }
    return most;
}

static int64_t largest_group(const Regather *r)
{
    int64_t most = 0;
    for (uint32_t i = 0; i < r->gathers.n; i++) {
        int64_t n = 0;
        for (uint32_t k = 0; k < r->gathers.n; k++)
            if (r->gathers.at[k].group == r->gathers.at[i].group) n += r->gathers.at[k].bytes;
        if (n > most) most = n;
    }
    return most;
}

static int by_gap(const void *x, const void *y)
{
    const Gather *const *a = x, *const *b = y;
    uint32_t p = (*a)->again - (*a)->until, q = (*b)->again - (*b)->until;
    if (p != q) return p < q ? -1 : 1;
    return (*a)->op.i<(*b)->op.i ? -1 : (*a)->op.i>(*b)->op.i;
}

/* Nothing is written to the bucket between the gather and its later uses. */
static bool can_cut(const Regather *r, const Readings *readings, const Gather *g)
{
    return g->again > g->until &&
           reading_holds(readings, op_cget(r->f, g->op)->in[0], r->op_at[g->again]);
}

static void choose(Regather *r)
{
    uint32_t n = r->gathers.n;
    Gather **order = ARENA_ARRAY(r->cx->scratch, Gather *, n);
    Readings readings = readings_new(r->cx->scratch, r->f);
    bool *must = ARENA_ARRAY(r->cx->scratch, bool, n);
    for (uint32_t i = 0; i < n; i++) {
        order[i] = &r->gathers.at[i];
        must[i] = r->gathers.at[i].is_kept = !can_cut(r, &readings, &r->gathers.at[i]);
    }
    int64_t most = most_gathered(r);
    int64_t limit = r->cx->opt->max_gathered_bytes - largest_group(r);
    if (limit < most) limit = most;
    qsort(order, n, sizeof(Gather *), by_gap);
    for (uint32_t i = 0; i < n; i++) {
        if (must[order[i] - r->gathers.at]) continue;
        order[i]->is_kept = true;
        if (most_gathered(r) > limit) order[i]->is_kept = false;
    }
}

/* ---- the second gather ---- */

/* v made of the second gather; ops on the way are copied before `b`, each once. */
static ValueId again_of(Regather *r, Builder *b, ValueId v)
{
    VEC(OpId) way = {0};
    for (ValueId at = v; !value_ok(r->copy[at.i]);) {
        OpId def = value_cget(r->f, at)->def;
        VEC_PUSH(r->cx->scratch, &way, def);
        at = op_cget(r->f, def)->in[0];
    }
    while (way.n) op_copy(b, r->f, way.at[--way.n], r->copy);
    return r->copy[v.i];
}

static void cut(Regather *r, uint32_t k)
{
    const Gather *g = &r->gathers.at[k];
    Builder b = {.f = r->f, .before = r->op_at[g->again]};
    b.loc = pass_loc(r->cx, op_cget(r->f, g->op)->loc, "again for the backward");
    ValueId first = op_cget(r->f, g->op)->out[0];
    op_copy(&b, r->f, g->op, r->copy);
    op_get(r->f, value_cget(r->f, r->copy[first.i])->def)->loc = b.loc;
    for (uint32_t p = g->again; p <= g->last; p++) {
        const Op *o = op_cget(r->f, r->op_at[p]);
        if (is_made_of_one(o) && root_of(r, o->in[0])) continue;
        for (uint32_t i = 0; i < o->n_in; i++) {
            if (root_of(r, o->in[i]) != k + 1) continue;
            ValueId v = again_of(r, &b, o->in[i]);
            op_set_operand(r->f, r->op_at[p], i, v);
            o = op_cget(r->f, r->op_at[p]); /* f grew */
        }
    }
    r->cx->n_rewrites++;
}

/* Views that only uses of the second gather had. */
static void erase_unused(Regather *r)
{
    Uses uses = func_uses(r->cx->scratch, r->f);
    uint32_t *left = ARENA_ARRAY(r->cx->scratch, uint32_t, r->f->values.n);
    for (uint32_t v = 1; v < r->f->values.n; v++) left[v] = uses.start[v + 1] - uses.start[v];
    for (uint32_t p = r->n_pos; p-- > 0;) {
        const Op *o = op_cget(r->f, r->op_at[p]);
        if (!is_made_of_one(o) || left[o->out[0].i] || !root_of(r, o->in[0])) continue;
        left[o->in[0].i]--;
        op_erase(r->f, r->op_at[p]);
    }
}

static void regather_func(PassCtx *cx, Func *f)
{
    Regather r = {.cx = cx, .f = f, .n_pos = func_n_ops(f)};
    r.op_at = ARENA_ARRAY(cx->scratch, OpId, r.n_pos);
    r.n_values = f->values.n;
    r.root = ARENA_ARRAY(cx->scratch, uint32_t, r.n_values);
    uint32_t p = 0;
    FOR_OPS(f, op) r.op_at[p++] = op;
    find_uses(&r);
    if (!r.gathers.n) return;
    r.copy = ARENA_ARRAY(cx->scratch, ValueId, r.n_values);
    r.delta = ARENA_ARRAY(cx->scratch, int64_t, r.n_pos + 1);
    choose(&r);
    uint32_t n_before = cx->n_rewrites;
    for (uint32_t k = 0; k < r.gathers.n; k++)
        if (!r.gathers.at[k].is_kept) cut(&r, k);
    if (cx->n_rewrites > n_before) erase_unused(&r);
}

Status pass_regather(PassCtx *cx, bool *changed)
{
    for (uint32_t i = 0; i < cx->m->funcs.n; i++) regather_func(cx, cx->m->funcs.at[i]);
    *changed = cx->n_rewrites > 0;
    return ZM_OK;
}
