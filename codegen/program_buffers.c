/* program_buffers.c -- the memory plan's units, read back from the places of values.
 *
 * A value in a variable's bytes belongs to the variable's buffer.  Of the rest, values whose bytes
 * overlap while both are live can only be one storage (the plan is proved), so the connected groups
 * of that relation are the buffers. */
#include "codegen/program.h"

typedef struct Groups {
    Arena scratch;
    const Func *f;
    int64_t persistent; /* end of the variables */
    uint32_t *parent;   /* by ValueId.i: union-find; 0 = not a temporary */
    VEC(ValueId) order; /* temporaries by start of life */
} Groups;

static uint32_t group_find(Groups *g, uint32_t v)
{
    while (g->parent[v] != v) v = g->parent[v] = g->parent[g->parent[v]];
    return v;
}

static void group_add(Groups *g, ValueId v)
{
    const Place *p = &value_cget(g->f, v)->place;
    if (p->bytes == 0 || p->offset < g->persistent) return;
    g->parent[v.i] = v.i;
    VEC_PUSH(&g->scratch, &g->order, v);
}

static bool bytes_meet(const Place *a, const Place *b)
{
    return a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
}

/* Joins v with what is live and overlaps; `live` is kept short by dropping what has ended. */
static void group_join(Groups *g, ValueId *live, uint32_t *n_live, ValueId v)
{
    const Place *p = &value_cget(g->f, v)->place;
    uint32_t n = 0;
    for (uint32_t i = 0; i < *n_live; i++) {
        const Place *q = &value_cget(g->f, live[i])->place;
        if (q->live_to < p->live_from) continue;
        live[n++] = live[i];
        if (bytes_meet(p, q)) g->parent[group_find(g, live[i].i)] = group_find(g, v.i);
    }
    live[n++] = v;
    *n_live = n;
}

static void groups_build(Groups *g)
{
    for (uint32_t i = 0; i < g->f->params.n; i++) group_add(g, g->f->params.at[i]);
    FOR_OPS(g->f, op)
    {
        const Op *o = op_cget(g->f, op);
        for (uint32_t i = 0; i < o->n_out; i++) group_add(g, o->out[i]);
    }
    ValueId *live = ARENA_ARRAY(&g->scratch, ValueId, g->order.n + 1);
    uint32_t n_live = 0;
    for (uint32_t i = 0; i < g->order.n; i++) group_join(g, live, &n_live, g->order.at[i]);
}

/* ---- buffers ---- */

static int64_t aligned(int64_t bytes)
{
    return (bytes + ZMP_ALIGN - 1) / ZMP_ALIGN * ZMP_ALIGN;
}

static int32_t to_command(const uint32_t *command_at, uint32_t n_ops, int32_t pos, bool is_end)
{
    if (pos >= (int32_t)n_ops) return (int32_t)command_at[n_ops];
    if (!is_end) return (int32_t)command_at[pos];
    int32_t last = (int32_t)command_at[pos + 1] - 1; /* the last command up to pos */
    return last < 0 ? 0 : last;
}

static const char *value_label(Arena *a, const Func *f, ValueId v)
{
    const Value *x = value_cget(f, v);
    return x->name ? x->name : arena_printf(a, "%%%u", v.i);
}

/* Widens buffer b by value v; the largest value names it. */
static void buffer_add(Program *p, ZmpBuffer *b, const Func *f, ValueId v, int64_t *largest)
{
    const Value *x = value_cget(f, v);
    int64_t end = b->arena_offset + b->bytes;
    if (*largest < 0 || x->place.offset < b->arena_offset) b->arena_offset = x->place.offset;
    if (x->place.offset + x->place.bytes > end) end = x->place.offset + x->place.bytes;
    b->bytes = end - b->arena_offset;
    if (x->place.bytes <= *largest) return;
    *largest = x->place.bytes;
    b->name = program_string(p, value_label(p->a, f, v));
    b->cat = program_string(p, x->place.cat);
    if (op_ok(x->def)) b->loc = program_loc(p, op_cget(f, x->def)->loc);
}

static int64_t peak_of(const Program *p, uint32_t first, uint32_t n_commands)
{
    Arena scratch = {0};
    int64_t *delta = ARENA_ARRAY(&scratch, int64_t, (size_t)n_commands + 3), live = 0, peak = 0;
    for (uint32_t i = first; i < p->buffers.n; i++) { /* slot 0 is command -1 */
        const ZmpBuffer *b = &p->buffers.at[i];
        delta[b->live_from + 1] += aligned(b->bytes);
        delta[b->live_to + 2] -= aligned(b->bytes);
    }
    for (uint32_t i = 0; i < n_commands + 2; i++) {
        live += delta[i];
        if (live > peak) peak = live;
    }
    arena_free(&scratch);
    return peak;
}

void program_var_buffers(Program *p)
{
    const Module *m = p->m;
    p->var_buffer = ARENA_ARRAY(p->a, int32_t, m->vars.n);
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *v = &m->vars.at[i];
        if (var_ok(v->in)) continue;
        p->var_buffer[i] = (int32_t)p->buffers.n;
        ZmpBuffer b = {.name = program_string(p, v->name), .cat = program_string(p, v->place.cat)};
        b.loc = program_loc(p, v->loc);
        b.func = -1;
        b.arena_offset = v->place.offset;
        b.bytes = v->place.bytes;
        VEC_PUSH(p->a, &p->buffers, b);
        int64_t end = v->place.offset + aligned(v->place.bytes);
        if (end > (int64_t)p->header.persistent_bytes) p->header.persistent_bytes = (uint64_t)end;
    }
    for (uint32_t i = 1; i < m->vars.n; i++) {
        int64_t elems;
        p->var_buffer[i] = p->var_buffer[var_storage(m, (VarId){i}, &elems).i];
    }
}

/* Buffer of the variable whose bytes hold a value's place. */
static int32_t variable_at(const Program *p, const Place *at)
{
    for (uint32_t i = 0; i < p->buffers.n && p->buffers.at[i].func < 0; i++) {
        const ZmpBuffer *b = &p->buffers.at[i];
        if (at->offset >= b->arena_offset && at->offset < b->arena_offset + b->bytes)
            return (int32_t)i;
    }
    return -1;
}

static void place_in_variables(Program *p, const Func *f, const Groups *g, FuncBuffers *out)
{
    for (uint32_t v = 1; v < f->values.n; v++) {
        const Place *at = &f->values.at[v].place;
        out->buffer_of[v] = -1;
        if (at->bytes && at->offset < g->persistent) out->buffer_of[v] = variable_at(p, at);
    }
}

FuncBuffers program_buffers(Program *p, uint32_t func, const uint32_t *command_at, uint32_t n_ops)
{
    const Func *f = p->m->funcs.at[func];
    Groups g = {.f = f, .persistent = (int64_t)p->header.persistent_bytes};
    g.parent = ARENA_ARRAY(&g.scratch, uint32_t, f->values.n);
    groups_build(&g);
    FuncBuffers out = {.buffer_of = ARENA_ARRAY(p->a, int32_t, f->values.n)};
    place_in_variables(p, f, &g, &out);
    int32_t *buffer_of_root = ARENA_ARRAY(&g.scratch, int32_t, f->values.n);
    int64_t *largest = ARENA_ARRAY(&g.scratch, int64_t, g.order.n + 1);
    uint32_t first = p->buffers.n;
    for (uint32_t i = 0; i < g.order.n; i++) {
        ValueId v = g.order.at[i];
        const Value *x = value_cget(f, v);
        uint32_t root = group_find(&g, v.i);
        int32_t from =
            op_ok(x->def) ? to_command(command_at, n_ops, x->place.live_from, false) : -1;
        int32_t to = to_command(command_at, n_ops, x->place.live_to, true);
        if (!buffer_of_root[root]) {
            largest[p->buffers.n - first] = -1;
            ZmpBuffer b = {.func = (int32_t)func, .live_from = from, .live_to = to};
            VEC_PUSH(p->a, &p->buffers, b);
            buffer_of_root[root] = (int32_t)p->buffers.n;
        }
        int32_t id = buffer_of_root[root] - 1;
        ZmpBuffer *b = &p->buffers.at[id];
        buffer_add(p, b, f, v, &largest[(uint32_t)id - first]);
        if (from < b->live_from) b->live_from = from;
        if (to > b->live_to) b->live_to = to;
        if (b->live_to < b->live_from) b->live_to = b->live_from;
        out.buffer_of[v.i] = id;
    }
    out.peak_live = peak_of(p, first, command_at[n_ops]);
    arena_free(&g.scratch);
    return out;
}
