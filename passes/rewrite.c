/* rewrite.c -- see rewrite.h. */
#include "passes/rewrite.h"

#include "passes/readings.h"

#include <math.h>

typedef struct Users {
    VEC(OpId) ops; /* may hold ops that no longer use the value */
    uint32_t n;    /* uses by linked ops */
} Users;

typedef struct Driver {
    PassCtx *cx;
    Func *f;
    const Rule *rules;
    uint32_t n_rules;
    uint32_t *hits;
    uint32_t *first;  /* by OpCode: where its rules start in `by_op` */
    uint32_t *by_op;  /* rule numbers, grouped by root op, in table order */
    VEC(Users) users; /* by ValueId.i */
    VEC(OpId) work;
    VEC(bool) queued; /* by OpId.i */
    Readings readings;
} Driver;

/* ---- users and the worklist ---- */

static void grow_tables(Driver *d)
{
    Arena *a = d->cx->scratch;
    while (d->users.n < d->f->values.n) VEC_PUSH(a, &d->users, (Users){0});
    while (d->queued.n < d->f->ops.n) VEC_PUSH(a, &d->queued, false);
}

static void enqueue(Driver *d, OpId op)
{
    if (d->queued.at[op.i]) return;
    d->queued.at[op.i] = true;
    VEC_PUSH(d->cx->scratch, &d->work, op);
}

static void register_op(Driver *d, OpId op)
{
    const Op *o = op_cget(d->f, op);
    for (uint32_t i = 0; i < o->n_in; i++) {
        Users *u = &d->users.at[o->in[i].i];
        VEC_PUSH(d->cx->scratch, &u->ops, op);
        u->n++;
    }
    enqueue(d, op);
}

static void enqueue_users(Driver *d, const Users *u)
{
    for (uint32_t i = 0; i < u->ops.n; i++)
        if (op_cget(d->f, u->ops.at[i])->code != OP_NONE) enqueue(d, u->ops.at[i]);
}

static bool is_dead(const Driver *d, const Op *o)
{
    if (!(op_info(o->code)->traits & TR_PURE))
        return o->code == OP_READ && d->users.at[o->out[0].i].n == 0;
    for (uint32_t i = 0; i < o->n_out; i++)
        if (d->users.at[o->out[i].i].n) return false;
    return true;
}

/* Erases op and what only it used. */
static void erase_dead(Driver *d, OpId op)
{
    VEC(OpId) dead = {0};
    VEC_PUSH(d->cx->scratch, &dead, op);
    while (dead.n > 0) {
        const Op *o = op_cget(d->f, dead.at[--dead.n]);
        if (o->code == OP_NONE || !is_dead(d, o)) continue;
        OpId id = {(uint32_t)(o - d->f->ops.at)};
        for (uint32_t i = 0; i < o->n_in; i++) {
            Users *u = &d->users.at[o->in[i].i];
            OpId def = value_cget(d->f, o->in[i])->def;
            if (--u->n == 0 && op_ok(def)) VEC_PUSH(d->cx->scratch, &dead, def);
            if (u->n == 1) enqueue_users(d, u); /* a P_ONCE may match now */
        }
        op_erase(d->f, id);
    }
}

static void replace(Driver *d, ValueId old, ValueId with)
{
    Users from = d->users.at[old.i];
    for (uint32_t k = 0; k < from.ops.n; k++) {
        OpId user = from.ops.at[k];
        const Op *o = op_cget(d->f, user);
        for (uint32_t i = 0; i < o->n_in; i++) {
            if (o->in[i].i != old.i) continue;
            op_set_operand(d->f, user, i, with);
            VEC_PUSH(d->cx->scratch, &d->users.at[with.i].ops, user);
            d->users.at[with.i].n++;
            d->users.at[old.i].n--;
        }
        if (o->code != OP_NONE) enqueue(d, user);
    }
}

/* ---- matching ---- */

static bool match(const Driver *d, const Pat *p, ValueId v, Rewrite *rw);

static bool match_const(const Driver *d, double value, ValueId v)
{
    OpId def = value_cget(d->f, v)->def;
    if (!op_ok(def) || op_cget(d->f, def)->code != OP_CONST) return false;
    double have = attr_float(op_cget(d->f, def)->attrs, AT_VALUE, 0);
    return have == value && signbit(have) == signbit(value);
}

static bool match_operands(const Driver *d, const Pat *p, const Op *o, bool swapped, Rewrite *rw)
{
    for (uint32_t i = 0; i < PAT_MAX_IN && p->in[i]; i++)
        if (i >= o->n_in || !match(d, p->in[i], o->in[swapped ? 1 - i : i], rw)) return false;
    return true;
}

/* Depth of patterns is that of the rule table. */
static bool match_op(const Driver *d, const Pat *p, OpId op, Rewrite *rw)
{
    const Op *o = op_cget(d->f, op);
    if (p->op != OP_NONE && o->code != p->op) return false;
    ZM_CHECK(rw->n_ops < PAT_MAX_OPS);
    rw->op[rw->n_ops++] = op;
    if (!p->in[0]) return true;
    Rewrite saved = *rw;
    if (match_operands(d, p, o, false, rw)) return true;
    *rw = saved;
    return o->n_in == 2 && op_info(o->code)->traits & TR_COMMUTES &&
           match_operands(d, p, o, true, rw);
}

static bool match(const Driver *d, const Pat *p, ValueId v, Rewrite *rw)
{
    switch (p->kind) {
    case PAT_VAR:
        if (value_ok(rw->var[p->var])) return rw->var[p->var].i == v.i;
        rw->var[p->var] = v;
        return true;
    case PAT_CONST: return match_const(d, p->value, v);
    case PAT_OP: {
        OpId def = value_cget(d->f, v)->def;
        if (!op_ok(def) || op_cget(d->f, def)->n_out != 1) return false;
        return (!p->once || d->users.at[v.i].n == 1) && match_op(d, p, def, rw);
    }
    }
    ZM_UNREACHABLE("pattern kind");
}

/* ---- applying ---- */

static ValueId build_pattern(Rewrite *rw, const Pat *p)
{
    if (p->kind == PAT_VAR) return rw->var[p->var];
    if (p->kind == PAT_CONST) return build_splat(&rw->b, p->value, rewrite_type(rw));
    ValueId in[PAT_MAX_IN];
    uint32_t n = 0;
    for (; n < PAT_MAX_IN && p->in[n]; n++) in[n] = build_pattern(rw, p->in[n]);
    return build1(&rw->b, p->op, in, n, NULL);
}

typedef struct Total {
    int64_t elems;
    uint32_t ops;
} Total;

static void total_add(Total *t, const Func *f, OpId op)
{
    const Op *o = op_cget(f, op);
    if (o->code == OP_CONST) return;
    t->ops++;
    for (uint32_t i = 0; i < o->n_out; i++) t->elems += type_elems(value_type(f, o->out[i]));
}

/* Lighter codes are what a KIND rule may make out of heavier ones. */
static int code_weight(OpCode code)
{
    LowerKind kind = op_info(code)->lower_kind;
    if (code == OP_NEG || code == OP_RESHAPE || code == OP_READ) return 0;
    if (code == OP_DIV || kind == LK_NEST || code == OP_PACK || code == OP_TRANSPOSE) return 2;
    return kind == LK_VIEW || kind == LK_POINT ? 1 : 3;
}

/* The most significant part of the measure that falls, if none before it rises. */
static bool measure_falls(const Driver *d, const Rewrite *rw, uint32_t n_before, ValueId v,
                          Measure *which)
{
    Total old = {0}, made = {0};
    for (uint32_t i = 0; i < rw->n_ops; i++) total_add(&old, d->f, rw->op[i]);
    for (uint32_t i = n_before; i < d->f->ops.n; i++) total_add(&made, d->f, (OpId){i});
    *which = LOWERS_COST;
    if (made.elems != old.elems) return made.elems < old.elems;
    *which = LOWERS_TREE;
    if (made.ops != old.ops) return made.ops < old.ops;
    *which = LOWERS_KIND;
    OpId def = value_cget(d->f, v)->def;
    return op_ok(def) &&
           code_weight(op_cget(d->f, def)->code) < code_weight(rewrite_op(rw, 0)->code);
}

static void check_measure(const Driver *d, const Rule *rule, const Rewrite *rw, uint32_t n_before,
                          ValueId v)
{
    Measure which;
    ZM_CHECK(measure_falls(d, rw, n_before, v, &which) && which <= rule->lowers);
}

/* No reading of a variable gets users behind a write to its bytes: neither the ops that a rule made
 * from n_before on, nor those of the value that v replaces. */
static bool readings_hold(const Driver *d, uint32_t n_before, ValueId old, ValueId v)
{
    if (d->readings.writes.n == 0) return true;
    for (uint32_t i = n_before; i < d->f->ops.n; i++) {
        const Op *o = op_cget(d->f, (OpId){i});
        for (uint32_t k = 0; k < o->n_in; k++)
            if (!reading_holds(&d->readings, o->in[k], (OpId){i})) return false;
    }
    const Users *u = &d->users.at[old.i];
    for (uint32_t i = 0; i < u->ops.n; i++) {
        bool is_linked = op_cget(d->f, u->ops.at[i])->code != OP_NONE;
        if (is_linked && !reading_holds(&d->readings, v, u->ops.at[i])) return false;
    }
    return true;
}

/* Erases what a rule made from n_before on.  Returns false: not applied. */
static bool take_back(Driver *d, uint32_t n_before)
{
    for (uint32_t i = d->f->ops.n; i-- > n_before;) op_erase(d->f, (OpId){i});
    return false;
}

static bool apply(Driver *d, const Rule *rule, OpId op)
{
    const PassOptions *opt = d->cx->opt;
    Rewrite rw = {.keeps_units = opt && opt->ranks > 1 && !d->cx->m->mesh[MESH_DATA]};
    if (!match_op(d, rule->lhs, op, &rw)) return false;
    uint32_t n_before = d->f->ops.n;
    const char *why = arena_printf(d->cx->scratch, "%s", rule->name);
    rw.b = (Builder){.f = d->f, .before = op, .loc = op_cget(d->f, op)->loc};
    ValueId old = op_cget(d->f, op)->out[0];
    ValueId v = rule->rhs ? build_pattern(&rw, rule->rhs) : rule->build(&rw);
    if (!value_ok(v)) {
        ZM_CHECK(d->f->ops.n == n_before);
        return false;
    }
    const Type *t = value_type(d->f, old), *have = value_type(d->f, v);
    ZM_CHECK(v.i != old.i && have->dtype == t->dtype && type_same_shape(have, t));
    grow_tables(d);
    if (have != t) return take_back(d, n_before); /* another placing over ranks */
    check_measure(d, rule, &rw, n_before, v);
    for (uint32_t i = n_before; i < d->f->ops.n; i++) readings_add(&d->readings, (OpId){i}, op);
    if (!readings_hold(d, n_before, old, v)) return take_back(d, n_before);
    for (uint32_t i = n_before; i < d->f->ops.n; i++) {
        op_get(d->f, (OpId){i})->loc = pass_loc(d->cx, rw.b.loc, why);
        register_op(d, (OpId){i});
    }
    Value *kept = value_get(d->f, v);
    if (!kept->name) kept->name = value_cget(d->f, old)->name;
    replace(d, old, v);
    erase_dead(d, op);
    return true;
}

static bool try_rules(Driver *d, OpCode key, OpId op)
{
    for (uint32_t k = d->first[key]; k < d->first[key + 1]; k++) {
        uint32_t rule = d->by_op[k];
        if (!apply(d, &d->rules[rule], op)) continue;
        if (d->hits) d->hits[rule]++;
        d->cx->n_rewrites++;
        return true;
    }
    return false;
}

static void visit(Driver *d, OpId op)
{
    const Op *o = op_cget(d->f, op);
    if (o->code == OP_NONE || o->n_out != 1 || d->users.at[o->out[0].i].n == 0) return;
    if (!try_rules(d, o->code, op)) try_rules(d, OP_NONE, op);
}

/* Groups rule numbers by root op. */
static void index_rules(Driver *d)
{
    d->first = ARENA_ARRAY(d->cx->scratch, uint32_t, N_OP + 1);
    d->by_op = ARENA_ARRAY(d->cx->scratch, uint32_t, d->n_rules);
    uint32_t n = 0;
    for (int code = 0; code < N_OP; code++) {
        d->first[code] = n;
        for (uint32_t i = 0; i < d->n_rules; i++)
            if (d->rules[i].lhs->op == (OpCode)code) d->by_op[n++] = i;
    }
    d->first[N_OP] = n;
}

static void rewrite_func(Driver *d)
{
    grow_tables(d);
    FOR_OPS(d->f, op) register_op(d, op);
    for (uint32_t i = 0; i < d->work.n; i++) {
        OpId op = d->work.at[i];
        d->queued.at[op.i] = false;
        visit(d, op);
    }
}

void rewrite_module(PassCtx *cx, const Rule *rules, uint32_t n_rules, uint32_t *hits)
{
    for (uint32_t i = 0; i < cx->m->funcs.n; i++) {
        Driver d = {
            .cx = cx, .f = cx->m->funcs.at[i], .rules = rules, .n_rules = n_rules, .hits = hits};
        d.readings = readings_new(cx->scratch, d.f);
        index_rules(&d);
        rewrite_func(&d);
    }
}
