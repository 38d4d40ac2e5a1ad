/* recompute.c -- pass recompute: the backward computes values of the forward again instead of
 * keeping them.
 *
 * - in: primitive ops, the forward of each function before its backward
 * - out: copies of the forward's ops before the backward that uses them, layer by layer; what they
 *   start from passes through `after`, so that they run late and stay apart from the forward's
 * - inv: every value is the same, but for rounding where a copy ends up in another kernel
 * - cost: one smallest cut a function
 */
#include "passes/recompute/recompute.h"

typedef struct Again {
    Forward w;
    Func *f;
    const bool *is_kept;
    bool *is_again;     /* by value: computed again by its layer's copies, if anything wants it */
    uint32_t *layer_at; /* by layer: position of the first op that uses what is computed again */
    ValueId *waits_for; /* by layer: a value of the backward that is there before it */
    bool *is_copied;    /* by position of the forward */
    ValueId *copy;      /* by value: the copy; of a value at hand the result of `after` */
} Again;
typedef VEC(ValueId) ValueVec;

static const Op *view_of(const Func *f, ValueId v)
{
    OpId def = value_cget(f, v)->def;
    const Op *o = op_ok(def) ? op_cget(f, def) : NULL;
    return o && op_info(o->code)->traits & TR_VIEW ? o : NULL;
}

/* A view of what is at hand is at hand. */
static void find_again(Again *g)
{
    for (uint32_t p = 0; p < g->w.turn; p++) {
        const Op *o = op_cget(g->f, g->w.op_at[p]);
        for (uint32_t i = 0; i < o->n_out; i++) {
            ValueId v = o->out[i];
            if (!forward_has(&g->w, v) || g->is_kept[v.i]) continue;
            g->is_again[v.i] = view_of(g->f, v) ? g->is_again[o->in[0].i] : g->w.layer[p] != 0;
        }
    }
}

static uint32_t layer_of(const Again *g, ValueId v)
{
    return g->w.layer[g->w.pos[value_cget(g->f, v)->def.i]];
}

/* ---- where a layer's copies go ---- */

static bool keeps_operands(OpCode code)
{
    return code == OP_MATMUL || code == OP_SDPA_GRAD;
}

/* An operand of o that the backward made before position `end`, and that o needs in memory. */
static ValueId gradient_operand(const Again *g, const Op *o, uint32_t end)
{
    for (uint32_t i = 0; keeps_operands(o->code) && i < o->n_in; i++) {
        OpId def = value_cget(g->f, o->in[i])->def;
        if (op_ok(def) && g->w.pos[def.i] >= g->w.turn && g->w.pos[def.i] < end) return o->in[i];
    }
    return (ValueId){0};
}

static void find_places(Again *g)
{
    const Forward *w = &g->w;
    for (uint32_t p = w->turn; p < w->n; p++) {
        const Op *o = op_cget(g->f, w->op_at[p]);
        for (uint32_t i = 0; i < o->n_in; i++) {
            if (!g->is_again[o->in[i].i]) continue;
            uint32_t k = layer_of(g, o->in[i]);
            if (!g->layer_at[k]) g->layer_at[k] = p;
            if (!value_ok(g->waits_for[k]))
                g->waits_for[k] = gradient_operand(g, o, g->layer_at[k]);
        }
    }
    for (uint32_t k = 1; k <= w->n_layers; k++)
        for (uint32_t p = g->layer_at[k]; !value_ok(g->waits_for[k]) && p-- > w->turn;)
            g->waits_for[k] = gradient_operand(g, op_cget(g->f, w->op_at[p]), g->layer_at[k]);
}

/* ---- copies ---- */

/* Ops behind the needs of the backward, up to what is kept; operands come before their users. */
static void mark_copied(Again *g)
{
    const Forward *w = &g->w;
    bool *is_wanted = ARENA_ARRAY(w->a, bool, g->f->values.n);
    for (uint32_t p = w->turn; p-- > 0;) {
        const Op *o = op_cget(g->f, w->op_at[p]);
        for (uint32_t i = 0; i < o->n_out; i++)
            g->is_copied[p] |=
                g->is_again[o->out[i].i] && (is_wanted[o->out[i].i] || w->is_needed[o->out[i].i]);
        for (uint32_t i = 0; g->is_copied[p] && i < o->n_in; i++) is_wanted[o->in[i].i] = true;
    }
}

static bool is_variable(const Func *f, ValueId v)
{
    for (const Op *o; (o = view_of(f, v)) != NULL;) v = o->in[0];
    OpId def = value_cget(f, v)->def;
    if (!op_ok(def)) return false;
    OpCode code = op_cget(f, def)->code;
    return code == OP_READ || code == OP_CONST || code == OP_ALL_GATHER;
}

static void copy_op(Again *g, Builder *b, OpId op)
{
    OpId made = op_copy(b, g->f, op, g->copy);
    op_get(g->f, made)->loc = b->loc;
    g->w.cx->n_rewrites++;
}

/* What copies of layer k start from: v itself where it is a variable's, gathered or not, else v
 * after the gradient has arrived.  Of a view that is not kept the same view again: `after` needs
 * its operand in memory.  Sets copy[] and adds to `starts` what it was set for. */
static void start_from(Again *g, Builder *b, uint32_t k, ValueId v, ValueVec *starts)
{
    if (is_variable(g->f, v) || value_ok(g->copy[v.i]) || !value_ok(g->waits_for[k])) return;
    if (view_of(g->f, v) && !g->is_kept[v.i]) {
        start_from(g, b, k, view_of(g->f, v)->in[0], starts);
        copy_op(g, b, value_cget(g->f, v)->def);
    } else {
        ValueId in[] = {v, g->waits_for[k]};
        g->copy[v.i] = build1(b, OP_AFTER, in, 2, NULL);
    }
    VEC_PUSH(g->w.a, starts, v);
}

static void copy_layer(Again *g, uint32_t k)
{
    Forward *w = &g->w;
    ValueVec starts = {0};
    for (uint32_t p = w->begin[k]; p < w->begin[k + 1]; p++) {
        if (!g->is_copied[p]) continue;
        Op o = *op_cget(g->f, w->op_at[p]); /* by value: f grows */
        Builder b = {.f = g->f, .before = w->op_at[g->layer_at[k]]};
        b.loc = pass_loc(w->cx, o.loc, "again for the backward");
        for (uint32_t i = 0; i < o.n_in; i++)
            if (!g->is_again[o.in[i].i]) start_from(g, &b, k, o.in[i], &starts);
        copy_op(g, &b, w->op_at[p]);
    }
    for (uint32_t i = 0; i < starts.n; i++) g->copy[starts.at[i].i] = (ValueId){0};
}

static void use_copies(Again *g)
{
    for (uint32_t p = g->w.turn; p < g->w.n; p++) {
        const Op *o = op_cget(g->f, g->w.op_at[p]);
        for (uint32_t i = 0; i < o->n_in; i++)
            if (g->is_again[o->in[i].i])
                op_set_operand(g->f, g->w.op_at[p], i, g->copy[o->in[i].i]);
    }
}

static void recompute_func(PassCtx *cx, Func *f, bool *changed)
{
    Again g = {.w = forward_of(cx, f), .f = f};
    forward_find_layers(&g.w);
    uint32_t n_steps = forward_count_steps(&g.w), n_values = f->values.n;
    RecomputeSteps *found = cx->opt->recompute_found;
    if (found && found->n < n_steps) *found = (RecomputeSteps){n_steps, g.w.n_layers};
    if (!n_steps || !cx->opt->recompute_steps) return;
    int64_t steps = cx->opt->recompute_steps;
    bool *is_kept = ARENA_ARRAY(cx->scratch, bool, n_values);
    forward_keep(&g.w, steps < n_steps ? (uint32_t)steps : n_steps, is_kept);
    g.is_kept = is_kept;
    g.is_again = ARENA_ARRAY(cx->scratch, bool, n_values);
    g.layer_at = ARENA_ARRAY(cx->scratch, uint32_t, g.w.n_layers + 1);
    g.waits_for = ARENA_ARRAY(cx->scratch, ValueId, g.w.n_layers + 1);
    g.is_copied = ARENA_ARRAY(cx->scratch, bool, g.w.turn);
    g.copy = ARENA_ARRAY(cx->scratch, ValueId, n_values);
    find_again(&g);
    find_places(&g);
    mark_copied(&g);
    for (uint32_t k = 1; k <= g.w.n_layers; k++) copy_layer(&g, k);
    use_copies(&g);
    *changed |= cx->n_rewrites > 0;
}

Status pass_recompute(PassCtx *cx, bool *changed)
{
    for (uint32_t i = 0; i < cx->m->funcs.n; i++) recompute_func(cx, cx->m->funcs.at[i], changed);
    return ZM_OK;
}
