/* group.c -- joins home ops into kernels.
 *
 * - down: a value and its user, so that it stays in registers: point chains, the sweeps of a row,
 *   the epilogue of a product
 * - across: kernels that read the same large value in the same pattern
 * - columns: sums down the columns of one domain, neighbours in time, whatever they read
 * - scalars: all arithmetic on single elements
 *
 * A join must keep order (see fuse.h) and have a form (form.h).
 */
#include <stdlib.h>
#include <string.h>

#include "passes/fuse/fuse.h"

enum {
    MAX_GROUP_OPS = 200,
    WINDOW_OPS = 300,
    MAX_USERS = 4000,
    MAX_PENDING = 8 /* column sums that the next may join: those of a layer's widths */
};

/* ---- positions ---- */

static uint32_t value_pos(const Fuse *s, ValueId v)
{
    OpId def = value_cget(s->f, v)->def;
    if (!op_ok(def)) return 0;
    if (op_cget(s->f, def)->code == OP_READ) return s->read_pos[v.i];
    return s->class[def.i] == FC_HOME ? s->groups.at[s->group_of[def.i] - 1].pos : s->pos[def.i];
}

static uint32_t user_pos(const Fuse *s, OpId op)
{
    return s->class[op.i] == FC_HOME ? s->groups.at[s->group_of[op.i] - 1].pos : s->pos[op.i];
}

static uint32_t user_group(const Fuse *s, OpId op)
{
    return s->class[op.i] == FC_HOME ? s->group_of[op.i] - 1 : NO_GROUP;
}

/* ---- a group as a form ---- */

typedef struct Members {
    const Fuse *s;
    uint32_t g, other;
} Members;

bool fuse_is_leaf(const Fuse *s, uint32_t g, uint32_t other, ValueId v)
{
    OpId def = value_cget(s->f, v)->def;
    if (!op_ok(def) || s->class[def.i] == FC_HOST) return true;
    if (s->class[def.i] != FC_HOME) return false;
    uint32_t of = s->group_of[def.i] - 1;
    return of != g && of != other;
}

static bool is_leaf(const void *ctx, ValueId v)
{
    const Members *m = ctx;
    return fuse_is_leaf(m->s, m->g, m->other, v);
}

static bool is_stored(const Fuse *s, ValueId v, uint32_t g, uint32_t other)
{
    for (uint32_t i = s->user_start[v.i]; i < s->user_start[v.i + 1]; i++) {
        uint32_t u = user_group(s, s->users[i]);
        if (u == NO_GROUP || (u != g && u != other)) return true;
    }
    return false;
}

/* Gradients of attention are all computed, used or not. */
static bool is_unused(const Fuse *s, ValueId v)
{
    return s->user_start[v.i] == s->user_start[v.i + 1];
}

typedef VEC(ValueId) ValueVec;

static void add_outs(const Fuse *s, Arena *a, uint32_t of, uint32_t g, uint32_t other,
                     ValueVec *outs)
{
    for (uint32_t i = 0; i < s->groups.at[of].ops.n; i++) {
        const Op *o = op_cget(s->f, s->groups.at[of].ops.at[i]);
        for (uint32_t r = 0; r < o->n_out; r++)
            if (is_stored(s, o->out[r], g, other) ||
                (o->code == OP_SDPA_GRAD && is_unused(s, o->out[r])))
                VEC_PUSH(a, outs, o->out[r]);
    }
}

/* A home value computed at two places would be computed twice. */
static bool has_twin(const Fuse *s, const Form *form, ValueId *at)
{
    for (uint32_t i = 0; i < form->wanted.n; i++) {
        ValueId v = form->wanted.at[i];
        if (s->class[value_cget(s->f, v)->def.i] != FC_HOME) continue;
        for (uint32_t j = i + 1; j < form->wanted.n; j++)
            if (form->wanted.at[j].i == v.i) {
                *at = v;
                return true;
            }
    }
    return false;
}

Form *fuse_form(Fuse *s, Arena *a, uint32_t g, uint32_t other, ValueList *outs, FormWhy *why)
{
    ValueVec list = {0};
    Members m = {s, g, other};
    add_outs(s, a, g, g, other, &list);
    if (other != NO_GROUP) add_outs(s, a, other, g, other, &list);
    *outs = (ValueList){list.at, list.n};
    if (list.n == 0) return NULL;
    FormIn in = {s->f, list.at, list.n, is_leaf, &m};
    Form *form = form_build(a, &in, why);
    if (form && other != NO_GROUP && form->kind != FORM_CONTRACT && has_twin(s, form, &why->at)) {
        why->text = "a shared value is wanted at two places";
        return NULL;
    }
    return form;
}

/* ---- may two groups join? ---- */

static bool is_movable(const Fuse *s, uint32_t g)
{
    for (uint32_t i = 0; i < s->groups.at[g].ops.n; i++) {
        OpCode code = op_cget(s->f, s->groups.at[g].ops.at[i])->code;
        if (code != OP_TRANSPOSE && code != OP_CONCAT && code != OP_RESHAPE) return false;
    }
    return true;
}

/* first computes what second uses. */
static bool domains_match(const Fuse *s, uint32_t first, uint32_t second)
{
    const FuseGroup *p = &s->groups.at[first], *q = &s->groups.at[second];
    if (p->n_ops + q->n_ops > MAX_GROUP_OPS || q->kind != FORM_NEST) return false;
    if (p->kind == FORM_CONTRACT) return !q->red_key && q->total == p->total;
    if (p->kind == FORM_ATTENTION) return is_movable(s, second);
    if (p->kind != FORM_NEST) return false;
    if (p->red_key && q->red_key) return p->red_key == q->red_key;
    if (!p->red_key && !q->red_key) return p->total == q->total;
    const FuseGroup *r = p->red_key ? p : q, *n = p->red_key ? q : p;
    return n->total == r->total || n->total == r->par;
}

static bool users_come_after(const Fuse *s, uint32_t g, uint32_t other, uint32_t pos)
{
    for (uint32_t i = 0; i < s->groups.at[g].ops.n; i++) {
        const Op *o = op_cget(s->f, s->groups.at[g].ops.at[i]);
        for (uint32_t r = 0; r < o->n_out; r++) {
            uint32_t v = o->out[r].i;
            if (s->user_start[v + 1] - s->user_start[v] > MAX_USERS) return false;
            for (uint32_t k = s->user_start[v]; k < s->user_start[v + 1]; k++) {
                if (user_group(s, s->users[k]) == other || user_group(s, s->users[k]) == g)
                    continue;
                if (user_pos(s, s->users[k]) <= pos) return false;
            }
        }
    }
    return true;
}

static bool leaves_come_before(const Fuse *s, uint32_t g, uint32_t other, uint32_t pos)
{
    for (uint32_t i = 0; i < s->groups.at[g].ops.n; i++) {
        ValueList l = s->leaves[s->groups.at[g].ops.at[i].i];
        for (uint32_t k = 0; k < l.n; k++) {
            OpId def = value_cget(s->f, l.at[k])->def;
            uint32_t from = op_ok(def) ? user_group(s, def) : NO_GROUP;
            if (from != NO_GROUP && (from == other || from == g)) continue;
            if (value_pos(s, l.at[k]) >= pos) return false;
        }
    }
    return true;
}

/* The position of the joined group; 0: order forbids it. */
static uint32_t joint_pos(const Fuse *s, uint32_t g, uint32_t h)
{
    bool is_g_first = s->groups.at[g].pos < s->groups.at[h].pos;
    uint32_t lo = is_g_first ? g : h, hi = is_g_first ? h : g;
    uint32_t late = s->groups.at[hi].pos, early = s->groups.at[lo].pos;
    if (s->groups.at[lo].deadline > late && users_come_after(s, lo, hi, late)) return late;
    return leaves_come_before(s, hi, lo, early) ? early : 0;
}

static int by_id(const void *x, const void *y)
{
    const OpId *p = x, *q = y;
    return p->i < q->i ? -1 : p->i > q->i;
}

static void group_absorb(Fuse *s, uint32_t into, uint32_t from, uint32_t pos)
{
    FuseGroup *p = &s->groups.at[into], *q = &s->groups.at[from];
    for (uint32_t i = 0; i < q->ops.n; i++) {
        VEC_PUSH(s->a, &p->ops, q->ops.at[i]);
        s->group_of[q->ops.at[i].i] = into + 1;
    }
    if (p->kind == FORM_NEST && !p->red_key && q->red_key) {
        p->red_key = q->red_key;
        p->is_column = q->is_column;
        p->par = q->par;
        p->total = q->total;
    }
    p->n_ops += q->n_ops;
    p->pos = pos;
    if (q->deadline < p->deadline) p->deadline = q->deadline;
    q->ops.n = 0;
}

/* first computes, second may use it; both change.  Returns the joined group, or NO_GROUP. */
static uint32_t try_join(Fuse *s, uint32_t first, uint32_t second)
{
    if (first == second || !domains_match(s, first, second)) return NO_GROUP;
    uint32_t pos = joint_pos(s, first, second);
    if (!pos) return NO_GROUP;
    Arena tmp = {0};
    ValueList outs;
    FormWhy why;
    bool is_one = fuse_form(s, &tmp, first, second, &outs, &why) != NULL;
    arena_free(&tmp);
    if (!is_one) return NO_GROUP;
    group_absorb(s, first, second, pos);
    s->cx->n_rewrites++;
    return first;
}

/* ---- the three kinds of joins ---- */

static void join_down(Fuse *s)
{
    for (uint32_t p = 0; p < s->n_pos; p++) {
        OpId op = s->op_at[p];
        if (!op_ok(op) || s->class[op.i] != FC_HOME) continue;
        ValueList l = s->leaves[op.i]; /* latest first */
        for (uint32_t k = 0; k < l.n; k++) {
            OpId def = value_cget(s->f, l.at[k])->def;
            if (op_ok(def) && s->class[def.i] == FC_HOME)
                try_join(s, s->group_of[def.i] - 1, s->group_of[op.i] - 1);
        }
    }
}

static bool is_pattern_equal(const FuseGroup *p, const FuseGroup *q)
{
    return p->kind == FORM_NEST && q->kind == FORM_NEST && p->red_key == q->red_key &&
           p->total == q->total;
}

/* The latest group before user k of v that uses v in g's pattern, near enough in time. */
static uint32_t pattern_before(const Fuse *s, ValueId v, uint32_t k, uint32_t g)
{
    const FuseGroup *q = &s->groups.at[g];
    while (k-- > s->user_start[v.i]) {
        uint32_t h = user_group(s, s->users[k]);
        if (h == NO_GROUP || h == g || !is_pattern_equal(&s->groups.at[h], q)) continue;
        uint32_t p = s->groups.at[h].pos, d = p < q->pos ? q->pos - p : p - q->pos;
        return d <= WINDOW_OPS ? h : NO_GROUP;
    }
    return NO_GROUP;
}

/* Users of v in one pattern, neighbours in time. */
static void join_across_value(Fuse *s, ValueId v)
{
    uint32_t n = s->user_start[v.i + 1] - s->user_start[v.i];
    int64_t elems = type_elems(value_type(s->f, v));
    if (n > MAX_USERS || n < 2) return;
    for (uint32_t k = s->user_start[v.i]; k < s->user_start[v.i + 1]; k++) {
        uint32_t g = user_group(s, s->users[k]);
        if (g == NO_GROUP) continue;
        const FuseGroup *q = &s->groups.at[g];
        if (q->kind != FORM_NEST || elems * 2 < q->total || q->total == 1) continue;
        uint32_t last = pattern_before(s, v, k, g);
        if (last != NO_GROUP) try_join(s, last, g);
    }
}

static void join_across(Fuse *s)
{
    for (uint32_t v = 1; v < s->f->values.n; v++) join_across_value(s, (ValueId){v});
}

/* A group that may run later, with another. */
typedef struct Delay {
    uint32_t early, late; /* groups */
    bool is_near;         /* what one kernel right before `late` reads may be kept for `late` too */
} Delay;

static bool reads_from(const Fuse *s, uint32_t g, uint32_t from)
{
    for (uint32_t i = 0; i < s->groups.at[g].ops.n; i++) {
        ValueList l = s->leaves[s->groups.at[g].ops.at[i].i];
        for (uint32_t k = 0; k < l.n; k++) {
            OpId def = value_cget(s->f, l.at[k])->def;
            if (op_ok(def) && user_group(s, def) == from) return true;
        }
    }
    return false;
}

/* No kernel runs between from and the one at `to`, which is close. */
static bool is_next(const Fuse *s, uint32_t from, uint32_t to)
{
    uint32_t p = s->groups.at[from].pos;
    if (p >= to || to - p > WINDOW_OPS) return false;
    while (++p < to) {
        OpId op = s->op_at[p];
        if (s->class[op.i] == FC_HOME && s->groups.at[s->group_of[op.i] - 1].pos == p) return false;
    }
    return true;
}

/* Does v stay in memory until d->late whether or not d->early reads it there?  A variable does, and
 * what another group reads then or later. */
static bool is_live_until(const Fuse *s, ValueId v, const Delay *d)
{
    uint32_t pos = s->groups.at[d->late].pos;
    OpId def = value_cget(s->f, v)->def;
    if (!op_ok(def) || op_cget(s->f, def)->code == OP_READ) return true;
    for (uint32_t k = s->user_start[v.i]; k < s->user_start[v.i + 1]; k++) {
        uint32_t g = user_group(s, s->users[k]);
        if (g == d->early) continue;
        if (user_pos(s, s->users[k]) >= pos) return true;
        if (d->is_near && g != NO_GROUP && is_next(s, g, pos) && reads_from(s, d->late, g))
            return true;
    }
    return false;
}

/* Does the delay keep no large value for longer? */
static bool is_cheap(const Fuse *s, const Delay *d)
{
    const FuseGroup *p = &s->groups.at[d->early];
    for (uint32_t i = 0; i < p->ops.n; i++) {
        ValueList l = s->leaves[p->ops.at[i].i];
        for (uint32_t k = 0; k < l.n; k++) {
            bool is_large = type_elems(value_type(s->f, l.at[k])) * 2 >= p->total;
            if (is_large && !is_live_until(s, l.at[k], d)) return false;
        }
    }
    return true;
}

typedef struct Pending { /* column sums that the next may join, latest first */
    uint32_t group[MAX_PENDING], n;
} Pending;

/* g with the latest of w that has its pattern and may wait for it; both leave w.  Returns g or what
 * it has become. */
static uint32_t join_pending(Fuse *s, Pending *w, uint32_t g, bool is_near)
{
    const FuseGroup *q = &s->groups.at[g];
    for (uint32_t k = 0; k < w->n; k++) {
        const FuseGroup *p = &s->groups.at[w->group[k]];
        Delay d = {w->group[k], g, is_near};
        if (!is_pattern_equal(p, q) || q->pos - p->pos > WINDOW_OPS || !is_cheap(s, &d)) continue;
        uint32_t both = try_join(s, d.early, g);
        if (both == NO_GROUP) continue;
        w->n--;
        memmove(&w->group[k], &w->group[k + 1], (w->n - k) * sizeof *w->group);
        return both;
    }
    return g;
}

static void join_columns(Fuse *s, bool is_near)
{
    Pending w = {.n = 0};
    for (uint32_t p = 1; p <= s->n_pos; p++) {
        OpId op = s->op_at[p];
        if (s->class[op.i] != FC_HOME) continue;
        uint32_t g = s->group_of[op.i] - 1;
        if (!s->groups.at[g].is_column || s->groups.at[g].pos != p) continue;
        g = join_pending(s, &w, g, is_near);
        if (w.n == MAX_PENDING) w.n--;
        memmove(&w.group[1], w.group, w.n++ * sizeof *w.group);
        w.group[0] = g;
    }
}

static void join_scalars(Fuse *s)
{
    uint32_t last = NO_GROUP;
    for (uint32_t p = 0; p < s->n_pos; p++) {
        OpId op = s->op_at[p];
        if (!op_ok(op) || s->class[op.i] != FC_HOME) continue;
        uint32_t g = s->group_of[op.i] - 1;
        const FuseGroup *q = &s->groups.at[g];
        if (g == last || q->kind != FORM_NEST || (q->red_key ? q->par != 1 : q->total != 1))
            continue;
        if (last != NO_GROUP) {
            uint32_t both = try_join(s, last, g);
            if (both != NO_GROUP) g = both;
        }
        last = g;
    }
}

/* ---- set up ---- */

static uint64_t red_pattern(const Type *t, const Attr *dims, FuseGroup *g)
{
    uint64_t h = 0;
    int64_t run = 1;
    bool is_red_run = false, has_red = false;
    g->par = 1;
    for (int d = 0, next = 0; d < t->rank; d++) {
        bool is_red = next < (int)dims->as.list.n && dims->as.list.at[next] == d;
        next += is_red;
        if (!is_red) g->par *= t->dim[d];
        if (t->dim[d] == 1) continue;
        has_red |= is_red;
        if (is_red != is_red_run) {
            h = hash_bytes(&run, sizeof run, h + is_red_run);
            run = 1;
            is_red_run = is_red;
        }
        run *= t->dim[d];
    }
    h = hash_bytes(&run, sizeof run, h + is_red_run);
    g->is_column = has_red && !is_red_run;
    return has_red ? h | 1 : 0;
}

static FuseGroup group_of_op(Fuse *s, OpId op)
{
    const Op *o = op_cget(s->f, op);
    FuseGroup g = {.kind = FORM_NEST, .pos = s->pos[op.i], .deadline = UINT32_MAX, .n_ops = 1};
    g.total = g.par = type_elems(value_type(s->f, o->out[0]));
    if (o->code == OP_MATMUL) g.kind = FORM_CONTRACT;
    if (o->code == OP_SDPA || o->code == OP_SDPA_GRAD) g.kind = FORM_ATTENTION;
    if (o->code == OP_SCATTER_ADD) g.kind = FORM_SCATTER;
    if (o->code == OP_REDUCE_SUM || o->code == OP_REDUCE_MAX) {
        const Type *t = value_type(s->f, o->in[0]);
        g.red_key = red_pattern(t, attrs_find(o->attrs, AT_DIMS), &g);
        g.total = type_elems(t);
    }
    VEC_PUSH(s->a, &g.ops, op);
    return g;
}

typedef struct LeafWalk {
    Fuse *s;
    uint32_t *stamp; /* by value */
    VEC(ValueId) todo, found;
} LeafWalk;

static int later_first(const void *x, const void *y)
{
    const ValueId *p = x, *q = y;
    return p->i > q->i ? -1 : p->i < q->i;
}

/* Held values behind op's operands; counts the inline ops between. */
static ValueList walk_leaves(LeafWalk *w, OpId op, uint32_t *n_ops)
{
    const Func *f = w->s->f;
    w->todo.n = w->found.n = 0;
    const Op *o = op_cget(f, op);
    for (uint32_t i = 0; i < o->n_in; i++) VEC_PUSH(w->s->a, &w->todo, o->in[i]);
    while (w->todo.n) {
        ValueId v = w->todo.at[--w->todo.n];
        if (w->stamp[v.i] == op.i) continue;
        w->stamp[v.i] = op.i;
        OpId def = value_cget(f, v)->def;
        if (!op_ok(def) || w->s->class[def.i] == FC_HOST || w->s->class[def.i] == FC_HOME) {
            VEC_PUSH(w->s->a, &w->found, v);
            continue;
        }
        const Op *d = op_cget(f, def);
        *n_ops += 1;
        for (uint32_t i = 0; i < d->n_in; i++) VEC_PUSH(w->s->a, &w->todo, d->in[i]);
    }
    if (w->found.n) qsort(w->found.at, w->found.n, sizeof *w->found.at, later_first);
    ValueId *kept = ARENA_ARRAY(w->s->a, ValueId, w->found.n);
    if (w->found.n) memcpy(kept, w->found.at, w->found.n * sizeof *kept);
    return (ValueList){kept, w->found.n};
}

static void make_users(Fuse *s)
{
    const Func *f = s->f;
    s->user_start = ARENA_ARRAY(s->a, uint32_t, f->values.n + 2);
    for (int fill = 0; fill < 2; fill++) {
        uint32_t *next = ARENA_ARRAY(s->a, uint32_t, f->values.n + 1);
        FOR_OPS(f, op)
        {
            ValueList l = s->leaves[op.i];
            for (uint32_t k = 0; k < l.n; k++) {
                uint32_t v = l.at[k].i;
                if (fill)
                    s->users[s->user_start[v] + next[v]++] = op;
                else
                    s->user_start[v + 1]++;
            }
        }
        if (fill) break;
        for (uint32_t v = 0; v <= f->values.n; v++) s->user_start[v + 1] += s->user_start[v];
        s->users = ARENA_ARRAY(s->a, OpId, s->user_start[f->values.n + 1] + 1);
    }
}

static void make_groups(Fuse *s)
{
    const Func *f = s->f;
    LeafWalk w = {.s = s, .stamp = ARENA_ARRAY(s->a, uint32_t, f->values.n)};
    FOR_OPS(f, op)
    {
        FuseClass class = (FuseClass)s->class[op.i];
        if (class != FC_HOME && class != FC_HOST) continue;
        uint32_t n_ops = 0;
        s->leaves[op.i] = walk_leaves(&w, op, &n_ops);
        if (class == FC_HOST) continue;
        FuseGroup g = group_of_op(s, op);
        g.n_ops += n_ops;
        for (uint32_t k = 0; k < s->leaves[op.i].n; k++) {
            ValueId v = s->leaves[op.i].at[k];
            if (s->read_end[v.i] && s->read_end[v.i] < g.deadline) g.deadline = s->read_end[v.i];
        }
        VEC_PUSH(s->a, &s->groups, g);
        s->group_of[op.i] = s->groups.n;
    }
    make_users(s);
}

void fuse_group(Fuse *s)
{
    make_groups(s);
    join_down(s);
    join_across(s);
    join_columns(s, false);
    join_columns(s, true);
    join_scalars(s);
    join_down(s);
    for (uint32_t g = 0; g < s->groups.n; g++) {
        FuseGroup *p = &s->groups.at[g];
        if (p->ops.n > 1) qsort(p->ops.at, p->ops.n, sizeof *p->ops.at, by_id);
    }
}
