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
    uint32_t *layer_at; /* by layer: position of the first op that uses what is computed again */
    ValueId *waits_for; /* by layer: a value of the backward that is there before it */
    bool *is_copied;    /* by position of the forward */
    ValueId *copy;      /* by value: the copy; of a kept value the result of `after` */
} Again;

static bool is_again(const Again *g, ValueId v)
{
    if (!forward_has(&g->w, v) || g->is_kept[v.i]) return false;
    return g->w.layer[g->w.pos[value_cget(g->f, v)->def.i]] != 0;
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
            if (!is_again(g, o->in[i])) continue;
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
                is_again(g, o->out[i]) && (is_wanted[o->out[i].i] || w->is_needed[o->out[i].i]);
        for (uint32_t i = 0; g->is_copied[p] && i < o->n_in; i++) is_wanted[o->in[i].i] = true;
    }
}

static bool is_variable(const Func *f, ValueId v)
{
    OpId def = value_cget(f, v)->def;
    while (op_ok(def) && op_info(op_cget(f, def)->code)->traits & TR_VIEW)
        def = value_cget(f, op_cget(f, def)->in[0])->def;
    return op_ok(def) && (op_cget(f, def)->code == OP_READ || op_cget(f, def)->code == OP_CONST);
}

/* What copies of layer k start from: v itself where it is a variable's, else v after the gradient
 * has arrived. */
static void start_from(Again *g, Builder *b, uint32_t k, ValueId v)
{
    if (is_variable(g->f, v) || value_ok(g->copy[v.i]) || !value_ok(g->waits_for[k])) return;
    ValueId in[] = {v, g->waits_for[k]};
    g->copy[v.i] = build1(b, OP_AFTER, in, 2, NULL);
}

static void copy_layer(Again *g, uint32_t k)
{
    Forward *w = &g->w;
    VEC(ValueId) starts = {0};
    for (uint32_t p = w->begin[k]; p < w->begin[k + 1]; p++) {
        if (!g->is_copied[p]) continue;
        Op o = *op_cget(g->f, w->op_at[p]); /* by value: f grows */
        LocId loc = pass_loc(w->cx, o.loc, "again for the backward");
        Builder b = {.f = g->f, .before = w->op_at[g->layer_at[k]], .loc = loc};
        for (uint32_t i = 0; i < o.n_in; i++) {
            if (is_again(g, o.in[i])) continue;
            start_from(g, &b, k, o.in[i]);
            VEC_PUSH(w->a, &starts, o.in[i]);
        }
        OpId made = op_copy(&b, g->f, w->op_at[p], g->copy);
        op_get(g->f, made)->loc = loc;
        w->cx->n_rewrites++;
    }
    for (uint32_t i = 0; i < starts.n; i++) g->copy[starts.at[i].i] = (ValueId){0};
}

static void use_copies(Again *g)
{
    for (uint32_t p = g->w.turn; p < g->w.n; p++) {
        const Op *o = op_cget(g->f, g->w.op_at[p]);
        for (uint32_t i = 0; i < o->n_in; i++)
            if (is_again(g, o->in[i])) op_set_operand(g->f, g->w.op_at[p], i, g->copy[o->in[i].i]);
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
    g.layer_at = ARENA_ARRAY(cx->scratch, uint32_t, g.w.n_layers + 1);
    g.waits_for = ARENA_ARRAY(cx->scratch, ValueId, g.w.n_layers + 1);
    g.is_copied = ARENA_ARRAY(cx->scratch, bool, g.w.turn);
    g.copy = ARENA_ARRAY(cx->scratch, ValueId, n_values);
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
