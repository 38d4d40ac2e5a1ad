/* memplan.c -- the memory plan: every variable and value gets a place in one arena.
 *
 * The arena is [variables | temporaries].  Variables lie one after another by kind; the temporaries
 * of all functions share the rest, since only one function runs at a time.  Within a function,
 * units (units.c) get offsets by mem_allocate(). Invariant: what overlaps in bytes never overlaps
 * in time unless it is the same data -- proved by mem_check().
 */
#include "passes/memory/memory.h"
#include "passes/pass.h"

static int64_t aligned(int64_t bytes)
{
    return (bytes + MEM_ALIGN - 1) / MEM_ALIGN * MEM_ALIGN;
}

/* Storage first, then views.  Returns the end of the variables. */
static int64_t place_variables(Module *m)
{
    int64_t end = 0;
    for (int kind = 0; kind < N_VAR_KIND; kind++)
        for (uint32_t i = 1; i < m->vars.n; i++) {
            Var *v = &m->vars.at[i];
            if ((int)v->kind != kind || var_ok(v->in)) continue;
            v->place = (Place){.offset = end,
                               .bytes = type_bytes(v->type),
                               .live_from = 0,
                               .live_to = 0,
                               .cat = module_str(m, mem_var_category(v->kind))};
            end += aligned(v->place.bytes);
        }
    for (uint32_t i = 1; i < m->vars.n; i++) {
        Var *v = &m->vars.at[i];
        if (!var_ok(v->in)) continue;
        int64_t elems;
        const Var *own = var_cget(m, var_storage(m, (VarId){i}, &elems));
        v->place = own->place;
        if (type_is_sharded(own->type)) continue; /* no rank need hold all of it */
        v->place.offset += elems * dtype_bytes(own->type->dtype);
        v->place.bytes = type_bytes(v->type);
    }
    return end;
}

/* A height of at most `enough` is good enough. */
static AllocResult allocate_function(Arena *scratch, Units *u, int64_t enough)
{
    AllocItem *items = ARENA_ARRAY(scratch, AllocItem, u->n + 1);
    uint32_t n = 0;
    for (uint32_t i = 0; i < u->n; i++)
        if (u->at[i].kind != UNIT_VAR)
            items[n++] = (AllocItem){
                .bytes = aligned(u->at[i].bytes), .from = u->at[i].from, .to = u->at[i].to};
    AllocLimits limits = alloc_limits_default(n);
    limits.capacity = enough;
    AllocResult r = mem_allocate(scratch, items, n, &limits);
    n = 0;
    for (uint32_t i = 0; i < u->n; i++)
        if (u->at[i].kind != UNIT_VAR) u->at[i].offset = items[n++].offset;
    return r;
}

void units_allocate_within(Arena *scratch, Units *u, uint32_t n, int64_t base, int64_t slack,
                           AllocResult *out)
{
    int64_t *bound = ARENA_ARRAY(scratch, int64_t, n), height = 0;
    for (uint32_t i = 0; i < n; i++) {
        int32_t at;
        bound[i] = units_lower_bound(scratch, &u[i], &at);
    }
    for (uint32_t done = 0; done < n; done++) {
        uint32_t next = 0; /* the one that needs most comes first */
        for (uint32_t i = 1; i < n; i++)
            if (bound[i] > bound[next]) next = i;
        int64_t enough = slack ? bound[next] + (base + bound[next]) / slack : 0;
        out[next] = allocate_function(scratch, &u[next], enough > height ? enough : height);
        if (out[next].height > height) height = out[next].height;
        bound[next] = -1;
    }
}

void units_allocate(Arena *scratch, Units *u, uint32_t n, AllocResult *out)
{
    units_allocate_within(scratch, u, n, 0, 0, out);
}

/* Offsets of the units of f from `base` on. */
static void place_units(const Module *m, Units *u, int64_t base)
{
    for (uint32_t i = 0; i < u->n; i++)
        u->at[i].offset = u->at[i].kind == UNIT_VAR ? var_cget(m, u->at[i].var)->place.offset
                                                    : base + u->at[i].offset;
}

static void place_value(Func *f, const Units *u, ValueId id)
{
    const struct UnitOf *of = &u->of[id.i];
    Value *v = value_get(f, id);
    v->place = (Place){.offset = u->at[of->unit].offset + of->offset,
                       .bytes = type_bytes(v->type),
                       .live_from = u->def_pos[id.i],
                       .live_to = u->last_use[id.i],
                       .cat = module_str(f->m, u->at[of->unit].cat)};
}

static void place_function(Func *f, const Units *u)
{
    for (uint32_t i = 0; i < f->params.n; i++) place_value(f, u, f->params.at[i]);
    FOR_OPS(f, op)
    {
        const Op *o = op_cget(f, op);
        for (uint32_t i = 0; i < o->n_out; i++) place_value(f, u, o->out[i]);
    }
}

/* Returns the end of the arena, which begins with the variables. */
static int64_t place_functions(PassCtx *cx, int64_t variables_end)
{
    Module *m = cx->m;
    Units *u = ARENA_ARRAY(cx->scratch, Units, m->funcs.n);
    AllocResult *r = ARENA_ARRAY(cx->scratch, AllocResult, m->funcs.n);
    int64_t height = 0;
    for (uint32_t i = 0; i < m->funcs.n; i++) u[i] = units_build(cx->scratch, m->funcs.at[i]);
    units_allocate_within(cx->scratch, u, m->funcs.n, variables_end, cx->opt->arena_slack, r);
    for (uint32_t i = 0; i < m->funcs.n; i++) {
        place_units(m, &u[i], variables_end);
        place_function(m->funcs.at[i], &u[i]);
        if (r[i].height > height) height = r[i].height;
    }
    return variables_end + height;
}

Status mem_check_budget(const Module *m, int64_t budget_bytes)
{
    if (budget_bytes <= 0 || m->arena_bytes <= budget_bytes) return ZM_OK;
    return diag_error(m->diag, (SrcPos){0}, E_PLAN_BUDGET, "the plan needs %s, --memory allows %s",
                      plan_bytes_text(m->arena, m->arena_bytes),
                      plan_bytes_text(m->arena, budget_bytes));
}

Status pass_memplan(PassCtx *cx, bool *changed)
{
    Module *m = cx->m;
    uint64_t before = module_hash(m); /* a plan that is made again is the same */
    m->arena_bytes = place_functions(cx, place_variables(m));
    *changed = module_hash(m) != before;
    ZM_TRY(mem_check(m, cx->scratch));
    return mem_check_budget(m, cx->opt->memory_bytes);
}
