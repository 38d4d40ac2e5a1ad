/* fuse.c -- pass fuse: primitive ops become kernels.
 *
 * - in: only primitive ops
 * - out: every computing op inside of a `fused` op; outside only effects, packs and aliases
 * - inv: codegen/kernel_build.c has a form for every kernel, since both ask form_build
 * - cost: O(n log n) in ops, for kernels of bounded size
 *
 * A round classifies and groups; where a kernel has no form, the value in the way is held in memory
 * and the round is repeated.  One primitive op on held operands always has a form, and every round
 * holds one more value, so rounds end.
 */
#include <string.h>

#include "passes/fuse/fuse.h"

/* ---- reads and writes of one storage ---- */

typedef struct Write {
    VarId storage;
    int64_t from, to; /* elements */
    uint32_t pos;
} Write;

typedef struct Effects {
    const Module *m;
    Map by_name; /* interned name -> variable */
    VEC(Write) writes;
    uint32_t *first_of; /* by storage variable: index + 1 of its latest write ... */
    VEC(uint32_t) next; /* ... and the one before it */
} Effects;

static Write range_of(Effects *e, const Op *o, uint32_t pos)
{
    const char *name = attr_str(o->attrs, AT_VAR);
    VarId v = {map_get(&e->by_name, (uint64_t)(uintptr_t)name)};
    Write w = {.pos = pos};
    w.storage = var_storage(e->m, v, &w.from);
    w.to = w.from + type_elems(var_cget(e->m, v)->type);
    return w;
}

static void collect_writes(Fuse *s, Effects *e)
{
    for (uint32_t p = 1; p <= s->n_pos; p++) {
        const Op *o = op_cget(s->f, s->op_at[p]);
        if (o->code != OP_WRITE) continue;
        Write w = range_of(e, o, p);
        VEC_PUSH(s->a, &e->writes, w);
        VEC_PUSH(s->a, &e->next, e->first_of[w.storage.i]);
        e->first_of[w.storage.i] = e->writes.n;
    }
}

static void bound_reads(Fuse *s)
{
    const Module *m = s->f->m;
    Effects e = {.m = m, .by_name.arena = s->a, .first_of = ARENA_ARRAY(s->a, uint32_t, m->vars.n)};
    for (uint32_t v = 1; v < m->vars.n; v++)
        map_put(&e.by_name, (uint64_t)(uintptr_t)m->vars.at[v].name, v);
    collect_writes(s, &e);
    for (uint32_t p = 1; p <= s->n_pos; p++) {
        const Op *o = op_cget(s->f, s->op_at[p]);
        if (o->code == OP_SHARD) { /* shows what its operand shows */
            s->read_end[o->out[0].i] = s->read_end[fuse_strip_views(s->f, o->in[0]).i];
            continue;
        }
        if (o->code != OP_READ) continue;
        uint32_t v = o->out[0].i;
        Write r = range_of(&e, o, p);
        s->read_end[v] = UINT32_MAX;
        for (uint32_t i = e.first_of[r.storage.i]; i; i = e.next.at[i - 1]) {
            const Write *w = &e.writes.at[i - 1];
            if (w->to <= r.from || r.to <= w->from) continue;
            if (w->pos > p)
                s->read_end[v] = w->pos;
            else
                s->read_pos[v] = p; /* a write before it: stays in place */
        }
    }
}

/* ---- rounds ---- */

static void number_ops(Fuse *s)
{
    const Func *f = s->f;
    s->pos = ARENA_ARRAY(s->a, uint32_t, f->ops.n);
    s->op_at = ARENA_ARRAY(s->a, OpId, f->ops.n + 1);
    FOR_OPS(f, op)
    {
        s->pos[op.i] = ++s->n_pos;
        s->op_at[s->n_pos] = op;
    }
}

static void fuse_round_begin(Fuse *s)
{
    const Func *f = s->f;
    number_ops(s);
    s->class = ARENA_ARRAY(s->a, uint8_t, f->ops.n);
    s->group_of = ARENA_ARRAY(s->a, uint32_t, f->ops.n);
    s->leaves = ARENA_ARRAY(s->a, ValueList, f->ops.n);
    s->read_pos = ARENA_ARRAY(s->a, uint32_t, f->values.n);
    s->read_end = ARENA_ARRAY(s->a, uint32_t, f->values.n);
    bound_reads(s);
}

static ValueList list_copy(Arena *a, const ValueId *at, uint32_t n)
{
    ValueId *copy = ARENA_ARRAY(a, ValueId, n);
    if (n) memcpy(copy, at, n * sizeof *copy);
    return (ValueList){copy, n};
}

/* Holds what stands in the way of group g: the value that form_build names or, when that is held
 * already, the operands of all its ops. */
static void hold_more(Fuse *s, const FuseGroup *g, FormWhy why, bool *held)
{
    OpId def = value_ok(why.at) ? value_cget(s->f, why.at)->def : (OpId){0};
    if (op_ok(def) && s->class[def.i] != FC_HOST && s->class[def.i] != FC_HOME) {
        held[why.at.i] = true;
        return;
    }
    VEC(ValueId) todo = {0};
    bool is_any = false;
    for (uint32_t i = 0; i < g->ops.n; i++) {
        const Op *o = op_cget(s->f, g->ops.at[i]);
        for (uint32_t k = 0; k < o->n_in; k++) VEC_PUSH(s->a, &todo, o->in[k]);
    }
    while (todo.n) {
        ValueId v = todo.at[--todo.n];
        def = value_cget(s->f, v)->def;
        if (!op_ok(def) || held[v.i] || s->class[def.i] == FC_HOST || s->class[def.i] == FC_HOME)
            continue;
        held[v.i] = is_any = true;
        const Op *o = op_cget(s->f, def);
        for (uint32_t k = 0; k < o->n_in; k++) VEC_PUSH(s->a, &todo, o->in[k]);
    }
    ZM_CHECK(is_any); /* one op on held operands has a form */
}

static bool check_groups(Fuse *s, bool *held)
{
    bool is_done = true;
    for (uint32_t g = 0; g < s->groups.n; g++) {
        FuseGroup *p = &s->groups.at[g];
        if (!p->ops.n) continue;
        Arena tmp = {0};
        FormWhy why = {0};
        ValueList outs;
        Form *form = fuse_form(s, &tmp, g, NO_GROUP, &outs, &why);
        if (form) {
            p->kind = form->kind;
            p->outs = list_copy(s->a, outs.at, outs.n);
            p->ins = list_copy(s->a, form->leaves.at, form->leaves.n);
        } else if (outs.n) {
            hold_more(s, p, why, held);
            is_done = false;
        }
        arena_free(&tmp);
    }
    return is_done;
}

static void fuse_func(PassCtx *cx, Func *f, bool *changed)
{
    fuse_prepare(cx, f, changed);
    bool *held = ARENA_ARRAY(cx->scratch, bool, f->values.n);
    for (;;) {
        Arena round = {0};
        Fuse s = {.cx = cx, .f = f, .a = &round};
        fuse_round_begin(&s);
        fuse_classify(&s, held);
        fuse_group(&s);
        bool is_done = check_groups(&s, held);
        if (is_done) {
            fuse_emit(&s);
            *changed |= s.groups.n > 0;
        }
        arena_free(&round);
        if (is_done) return;
    }
}

Status pass_fuse(PassCtx *cx, bool *changed)
{
    for (uint32_t i = 0; i < cx->m->funcs.n; i++) fuse_func(cx, cx->m->funcs.at[i], changed);
    return ZM_OK;
}
