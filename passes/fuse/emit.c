/* emit.c -- writes the kernels: one `fused` op per group, whose body holds copies of its ops;
 * erases the originals. */
#include <stdlib.h>
#include <string.h>

#include "passes/fuse/fuse.h"

static const char *const kind_names[] = {"nest", "scatter", "contract", "attention"};

typedef struct Emitter {
    Fuse *s;
    ValueId *in_body;   /* by old value: within the body being written */
    ValueId *outside;   /* by old value: its new value in f */
    uint32_t *stamp;    /* by op: group + 1 that collected it */
    VEC(uint32_t) cone; /* positions of the body's ops */
    VEC(ValueId) todo;
} Emitter;

static int by_number(const void *x, const void *y)
{
    const uint32_t *p = x, *q = y;
    return *p < *q ? -1 : *p > *q;
}

static void add_input(Emitter *e, uint32_t g, ValueId v)
{
    ValueList *ins = &e->s->groups.at[g].ins;
    ValueId *more = ARENA_ARRAY(e->s->a, ValueId, ins->n + 1);
    if (ins->n) memcpy(more, ins->at, ins->n * sizeof *more);
    more[ins->n] = e->in_body[v.i] = v;
    *ins = (ValueList){more, ins->n + 1};
}

/* Positions of all ops of group g, ascending; ends at its inputs. */
static void collect_cone(Emitter *e, uint32_t g)
{
    Fuse *s = e->s;
    const FuseGroup *p = &s->groups.at[g];
    for (uint32_t i = 0; i < p->ins.n; i++)
        e->in_body[p->ins.at[i].i] = p->ins.at[i]; /* any mark: a leaf */
    e->cone.n = e->todo.n = 0;
    for (uint32_t i = 0; i < p->outs.n; i++) VEC_PUSH(s->a, &e->todo, p->outs.at[i]);
    while (e->todo.n) {
        ValueId v = e->todo.at[--e->todo.n];
        OpId def = value_cget(s->f, v)->def;
        if (value_ok(e->in_body[v.i])) continue;
        if (fuse_is_leaf(s, g, NO_GROUP, v)) { /* an operand of which no element is read */
            add_input(e, g, v);
            continue;
        }
        if (e->stamp[def.i] == g + 1) continue;
        e->stamp[def.i] = g + 1;
        VEC_PUSH(s->a, &e->cone, s->pos[def.i]);
        const Op *o = op_cget(s->f, def);
        for (uint32_t i = 0; i < o->n_in; i++) VEC_PUSH(s->a, &e->todo, o->in[i]);
    }
    qsort(e->cone.at, e->cone.n, sizeof *e->cone.at, by_number);
}

static Func *write_body(Emitter *e, uint32_t g, LocId loc)
{
    Fuse *s = e->s;
    const FuseGroup *p = &s->groups.at[g];
    Func *body = func_new(s->f->m, "");
    for (uint32_t i = 0; i < p->ins.n; i++) {
        const Value *v = value_cget(s->f, p->ins.at[i]);
        e->in_body[p->ins.at[i].i] = func_param(body, v->name, v->type);
    }
    Builder b = {.f = body, .loc = loc};
    for (uint32_t i = 0; i < e->cone.n; i++) op_copy(&b, s->f, s->op_at[e->cone.at[i]], e->in_body);
    ValueId *out = ARENA_ARRAY(s->a, ValueId, p->outs.n);
    for (uint32_t i = 0; i < p->outs.n; i++) out[i] = e->in_body[p->outs.at[i].i];
    build_return(&b, out, p->outs.n, NULL);
    return body;
}

static void clear_marks(Emitter *e, uint32_t g)
{
    const FuseGroup *p = &e->s->groups.at[g];
    for (uint32_t i = 0; i < p->ins.n; i++) e->in_body[p->ins.at[i].i] = (ValueId){0};
    for (uint32_t i = 0; i < e->cone.n; i++) {
        const Op *o = op_cget(e->s->f, e->s->op_at[e->cone.at[i]]);
        for (uint32_t r = 0; r < o->n_out; r++) e->in_body[o->out[r].i] = (ValueId){0};
    }
}

/* The op whose place in the source names the kernel: its anchor, else the last. */
static LocId group_loc(const Fuse *s, const FuseGroup *p)
{
    OpId best = p->ops.at[p->ops.n - 1];
    for (uint32_t i = 0; i < p->ops.n; i++) {
        OpCode code = op_cget(s->f, p->ops.at[i])->code;
        if (code == OP_MATMUL || code == OP_SDPA || code == OP_SDPA_GRAD || code == OP_SCATTER_ADD)
            best = p->ops.at[i];
    }
    return op_cget(s->f, best)->loc;
}

static void emit_group(Emitter *e, uint32_t g)
{
    Fuse *s = e->s;
    const FuseGroup *p = &s->groups.at[g];
    LocId loc = group_loc(s, p);
    collect_cone(e, g);
    Func *body = write_body(e, g, loc);
    clear_marks(e, g);
    ValueId *in = ARENA_ARRAY(s->a, ValueId, p->ins.n);
    for (uint32_t i = 0; i < p->ins.n; i++) {
        ValueId v = p->ins.at[i];
        in[i] = value_ok(e->outside[v.i]) ? e->outside[v.i] : v;
    }
    Builder b = {.f = s->f, .before = s->op_at[p->pos], .loc = loc};
    OpId fused = build_fused(&b, kind_names[p->kind], in, p->ins.n, body);
    for (uint32_t i = 0; i < p->outs.n; i++) {
        ValueId out = op_cget(s->f, fused)->out[i];
        e->outside[p->outs.at[i].i] = out;
        value_get(s->f, out)->name = value_cget(s->f, p->outs.at[i])->name;
    }
}

/* v outside of kernels, before host op `at`: aliases of held values are written where they are
 * first needed. */
static ValueId outside_value(Emitter *e, ValueId v, OpId at)
{
    Fuse *s = e->s;
    VEC(OpId) chain = {0};
    while (!value_ok(e->outside[v.i])) {
        OpId def = value_cget(s->f, v)->def;
        if (!op_ok(def) || s->class[def.i] == FC_HOST) {
            e->outside[v.i] = v;
            break;
        }
        ZM_CHECK(s->class[def.i] == FC_VIEW);
        VEC_PUSH(s->a, &chain, def);
        v = op_cget(s->f, def)->in[0];
    }
    for (uint32_t i = chain.n; i-- > 0;) {
        Builder b = {.f = s->f, .before = at, .loc = op_cget(s->f, chain.at[i])->loc};
        OpId copy = op_copy(&b, s->f, chain.at[i], e->outside);
        v = op_cget(s->f, chain.at[i])->out[0];
        ZM_CHECK(e->outside[v.i].i == op_cget(s->f, copy)->out[0].i);
    }
    return e->outside[v.i];
}

static void emit_hosts(Emitter *e)
{
    Fuse *s = e->s;
    OpId first = s->f->first;
    for (uint32_t p = 1; p <= s->n_pos; p++) {
        OpId op = s->op_at[p];
        if (s->class[op.i] != FC_HOST) continue;
        for (uint32_t i = 0; i < op_cget(s->f, op)->n_in; i++) {
            ValueId v = outside_value(e, op_cget(s->f, op)->in[i], op);
            op_set_operand(s->f, op, i, v);
        }
        bool is_early =
            op_cget(s->f, op)->code == OP_READ && s->read_pos[op_cget(s->f, op)->out[0].i] == 0;
        if (is_early && op.i != first.i) op_move_before(s->f, op, first);
    }
}

static int by_pos(const void *x, const void *y)
{
    const uint64_t *p = x, *q = y;
    return *p < *q ? -1 : *p > *q;
}

void fuse_emit(Fuse *s)
{
    Emitter e = {.s = s};
    uint32_t n_values = s->f->values.n;
    e.in_body = ARENA_ARRAY(s->a, ValueId, n_values);
    e.outside = ARENA_ARRAY(s->a, ValueId, n_values);
    e.stamp = ARENA_ARRAY(s->a, uint32_t, s->f->ops.n);
    uint64_t *order = ARENA_ARRAY(s->a, uint64_t, s->groups.n); /* position, group */
    for (uint32_t g = 0; g < s->groups.n; g++) order[g] = (uint64_t)s->groups.at[g].pos << 32 | g;
    if (s->groups.n) qsort(order, s->groups.n, sizeof *order, by_pos);
    for (uint32_t i = 0; i < s->groups.n; i++)
        if (s->groups.at[(uint32_t)order[i]].outs.n) emit_group(&e, (uint32_t)order[i]);
    emit_hosts(&e);
    for (uint32_t p = s->n_pos; p >= 1; p--)
        if (s->class[s->op_at[p].i] != FC_HOST) op_erase(s->f, s->op_at[p]);
}
