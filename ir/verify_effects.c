/* verify_effects.c -- stale reads (verify.h).
 *
 * Time: each read looks along the writes to its storage, each op once at its operands. */
#include "ir/verify.h"

typedef struct Write {
    uint32_t pos; /* op position */
    VarId storage;
    int64_t from, to; /* elements */
    uint32_t next;    /* next later write to the same storage; 0: none */
} Write;

typedef struct Effects {
    const Func *f;
    VEC(Write) writes;    /* [0] unused */
    uint32_t *first;      /* by storage VarId: earliest write that is not yet behind us */
    uint32_t *stale_from; /* by ValueId: index of the write that ends its life; 0: none */
} Effects;

static Write extent_of(const Func *f, const Op *o, uint32_t pos)
{
    VarId var = var_find(f->m, attr_str(o->attrs, AT_VAR));
    Write w = {.pos = pos};
    w.storage = var_storage(f->m, var, &w.from);
    w.to = w.from + type_elems(var_cget(f->m, var)->type);
    return w;
}

/* Writes of each storage as a list in program order. */
static void collect_writes(const Verifier *v, Effects *e)
{
    uint32_t *last = ARENA_ARRAY(v->scratch, uint32_t, v->m->vars.n);
    uint32_t pos = 0;
    VEC_PUSH(v->scratch, &e->writes, ((Write){0}));
    FOR_OPS(e->f, op)
    {
        const Op *o = op_cget(e->f, op);
        pos++;
        if (o->code != OP_WRITE) continue;
        Write w = extent_of(e->f, o, pos);
        uint32_t id = e->writes.n;
        VEC_PUSH(v->scratch, &e->writes, w);
        if (last[w.storage.i])
            e->writes.at[last[w.storage.i]].next = id;
        else
            e->first[w.storage.i] = id;
        last[w.storage.i] = id;
    }
}

static uint32_t first_overlap(const Effects *e, const Write *read)
{
    uint32_t id = e->first[read->storage.i];
    for (; id; id = e->writes.at[id].next) {
        const Write *w = &e->writes.at[id];
        if (w->pos > read->pos && w->from < read->to && read->from < w->to) break;
    }
    return id;
}

static uint32_t earlier(const Effects *e, uint32_t a, uint32_t b)
{
    if (!a || !b) return a ? a : b;
    return e->writes.at[a].pos < e->writes.at[b].pos ? a : b;
}

static Status check_use(const Verifier *v, const Effects *e, const Op *o, uint32_t pos)
{
    for (uint32_t i = 0; i < o->n_in; i++) {
        uint32_t w = e->stale_from[o->in[i].i];
        if (!w || e->writes.at[w].pos >= pos) continue;
        return verify_error(v, o->loc,
                            "%s uses %s, which holds a variable's value from before a write to "
                            "@%s's bytes (write at position %u, use at %u)",
                            verify_op_name(v, e->f, o), verify_name(v, e->f, o->in[i]),
                            var_cget(v->m, e->writes.at[w].storage)->name, e->writes.at[w].pos - 1,
                            pos - 1);
    }
    return ZM_OK;
}

Status verify_effects(const Verifier *v, const Func *f)
{
    Effects e = {.f = f};
    e.first = ARENA_ARRAY(v->scratch, uint32_t, v->m->vars.n);
    e.stale_from = ARENA_ARRAY(v->scratch, uint32_t, f->values.n);
    collect_writes(v, &e);
    uint32_t pos = 0;
    FOR_OPS(f, op)
    {
        const Op *o = op_cget(f, op);
        pos++;
        ZM_TRY(check_use(v, &e, o, pos));
        if (o->code == OP_WRITE) {
            VarId storage = extent_of(f, o, pos).storage;
            e.first[storage.i] = e.writes.at[e.first[storage.i]].next;
        } else if (o->code == OP_READ) {
            Write read = extent_of(f, o, pos);
            e.stale_from[o->out[0].i] = first_overlap(&e, &read);
        } else if (op_info(o->code)->lower_kind == LK_VIEW) {
            uint32_t n_shown = o->code == OP_AFTER || o->code == OP_WAIT ? 1 : o->n_in;
            for (uint32_t i = 0; i < n_shown; i++)
                e.stale_from[o->out[0].i] =
                    earlier(&e, e.stale_from[o->out[0].i], e.stale_from[o->in[i].i]);
        }
    }
    return ZM_OK;
}
