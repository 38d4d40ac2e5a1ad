/* schedule.c -- an order of ops that keeps few bytes live; with collectives in flight (flight.c).
 *
 * Candidates: the order that the program has, and a greedy list schedule that always runs the ready
 * op which changes the live bytes least (ties: program order).  The one with the smaller peak
 * stays, judged by the lower bound of its units, which is what the memory plan will need; on equal
 * peaks the program's own order.
 *
 * Order that must hold: operands before users; reads, writes and probes among themselves where they
 * touch the same storage; users of an older reading before the op whose result overwrites it.
 */
#include "passes/schedule.h"
#include "passes/memory/memory.h"

static void edge(Sched *s, uint32_t from, uint32_t to)
{
    if (from == to) return;
    VEC_PUSH(s->a, &s->succ[from], to);
    s->n_pred[to]++;
}

static VarId effect_storage(const Sched *s, const Op *op)
{
    if (op->code != OP_READ && op->code != OP_WRITE) return (VarId){0};
    return var_storage(s->f->m, var_find(s->f->m, attr_str(op->attrs, AT_VAR)), NULL);
}

/* The op that begins to write v's bytes. */
static OpId maker_of(const Func *f, ValueId v)
{
    OpId def = value_cget(f, v)->def;
    bool is_wait = op_ok(def) && op_cget(f, def)->code == OP_WAIT;
    return is_wait ? value_cget(f, op_cget(f, def)->in[0])->def : def;
}

/* Data edges, and effect edges per storage: a read waits for the last write; a write, and the op
 * that makes the written value, wait for every user of the readings since that write. */
static void build_edges(Sched *s)
{
    const Func *f = s->f;
    uint32_t n_vars = f->m->vars.n;
    uint32_t *last_write = ARENA_ARRAY(s->a, uint32_t, n_vars); /* position + 1 */
    Edges *users = ARENA_ARRAY(s->a, Edges, n_vars);            /* positions since the last write */
    uint32_t *shows =
        ARENA_ARRAY(s->a, uint32_t, f->values.n); /* storage that a value is a view of */
    uint32_t last_probe = 0;
    for (uint32_t p = 0; p < s->n; p++) {
        const Op *op = op_cget(f, s->op[p]);
        VarId own = effect_storage(s, op);
        for (uint32_t i = 0; i < op->n_in; i++) {
            OpId def = value_cget(f, op->in[i])->def;
            if (op_ok(def)) edge(s, s->pos[def.i], p);
            uint32_t v = shows[op->in[i].i];
            if (v) VEC_PUSH(s->a, &users[v], p);
        }
        if (op->code == OP_RESHAPE || op->code == OP_SLICE || op->code == OP_AFTER ||
            op->code == OP_SHARD)
            shows[op->out[0].i] = shows[op->in[0].i];
        if (op->code == OP_READ) {
            shows[op->out[0].i] = own.i;
            VEC_PUSH(s->a, &users[own.i], p);
            if (last_write[own.i]) edge(s, last_write[own.i] - 1, p);
        }
        if (op->code == OP_WRITE) {
            OpId maker = maker_of(f, op->in[0]);
            for (uint32_t i = 0; i < users[own.i].n; i++) {
                edge(s, users[own.i].at[i], p);
                if (op_ok(maker) && users[own.i].at[i] < s->pos[maker.i])
                    edge(s, users[own.i].at[i], s->pos[maker.i]);
            }
            if (last_write[own.i]) edge(s, last_write[own.i] - 1, p);
            users[own.i].n = 0;
            last_write[own.i] = p + 1;
        }
        if (op->code == OP_PROBE) last_probe = p + 1;
        if (op->code == OP_WRITE && last_probe) edge(s, last_probe - 1, p);
        if (op->code == OP_RETURN)
            for (uint32_t q = 0; q < p; q++) edge(s, q, p);
    }
}

/* ---- greedy ---- */

typedef struct Greedy {
    const Sched *s;
    uint32_t *left; /* by value: users not yet run */
    bool *is_fresh; /* by value: takes memory of its own */
} Greedy;

static bool makes_memory(OpCode code)
{
    return code == OP_FUSED || code == OP_PACK || op_takes_attr(code, AT_ASYNC);
    /* a workspace goes where its user goes */
}

/* Live bytes after minus before when op p runs next. */
static int64_t live_change(const Greedy *g, uint32_t p)
{
    const Func *f = g->s->f;
    const Op *op = op_cget(f, g->s->op[p]);
    int64_t change = 0;
    if (makes_memory(op->code))
        for (uint32_t i = 0; i < op->n_out; i++) change += type_bytes(value_type(f, op->out[i]));
    uint32_t last = op_takes_attr(op->code, AT_ASYNC) ? 2 : 1; /* its wait follows at once */
    for (uint32_t i = 0; i < op->n_in; i++)
        if (g->is_fresh[op->in[i].i] && g->left[op->in[i].i] == last)
            change -= type_bytes(value_type(f, op->in[i]));
    return change;
}

static void run_next(Greedy *g, uint32_t p)
{
    const Op *op = op_cget(g->s->f, g->s->op[p]);
    for (uint32_t i = 0; i < op->n_in; i++) g->left[op->in[i].i]--;
    if (makes_memory(op->code) || op->code == OP_WAIT) /* a wait passes on what it ends */
        for (uint32_t i = 0; i < op->n_out; i++) g->is_fresh[op->out[i].i] = true;
}

void sched_greedy(const Sched *s, bool is_eager, uint32_t *order)
{
    Greedy g = {s, ARENA_ARRAY(s->a, uint32_t, s->f->values.n),
                ARENA_ARRAY(s->a, bool, s->f->values.n)};
    uint32_t *waits = ARENA_ARRAY(s->a, uint32_t, s->n);
    Edges ready = {0};
    for (uint32_t p = 0; p < s->n; p++) {
        const Op *op = op_cget(s->f, s->op[p]);
        for (uint32_t i = 0; i < op->n_in; i++) g.left[op->in[i].i]++;
        waits[p] = s->n_pred[p];
        if (!waits[p]) VEC_PUSH(s->a, &ready, p);
    }
    for (uint32_t k = 0; k < s->n; k++) {
        uint32_t best = 0;
        int64_t best_change = INT64_MAX;
        for (uint32_t i = 0; i < ready.n; i++) {
            int64_t change = live_change(&g, ready.at[i]);
            if (is_eager && change > 0) change = 0;
            if (change < best_change || (change == best_change && ready.at[i] < ready.at[best])) {
                best = i;
                best_change = change;
            }
        }
        uint32_t p = ready.at[best];
        ready.at[best] = ready.at[--ready.n];
        order[k] = p;
        run_next(&g, p);
        for (uint32_t i = 0; i < s->succ[p].n; i++)
            if (--waits[s->succ[p].at[i]] == 0) VEC_PUSH(s->a, &ready, s->succ[p].at[i]);
    }
}

void sched_apply(const Sched *s, const uint32_t *order)
{
    Func *f = s->f;
    for (uint32_t k = 0; k < s->n; k++) op_move_before(f, s->op[order ? order[k] : k], (OpId){0});
    FOR_OPS(f, id)
    {
        const Op *o = op_cget(f, id);
        OpId made =
            o->code == OP_FUSED && o->n_in ? value_cget(f, o->in[o->n_in - 1])->def : (OpId){0};
        if (op_ok(made) && op_cget(f, made)->code == OP_WORKSPACE) op_move_before(f, made, id);
    }
}

int64_t sched_peak(Arena *a, const Func *f)
{
    int32_t at;
    Units u = units_build(a, f);
    return units_lower_bound(a, &u, &at);
}

Sched sched_new(Arena *a, Func *f)
{
    Sched s = {.a = a, .f = f, .n = func_n_ops(f), .pos = func_positions(a, f)};
    s.op = ARENA_ARRAY(a, OpId, s.n);
    FOR_OPS(f, op) s.op[s.pos[op.i]] = op;
    s.succ = ARENA_ARRAY(a, Edges, s.n);
    s.n_pred = ARENA_ARRAY(a, uint32_t, s.n);
    build_edges(&s);
    return s;
}

static void order_function(PassCtx *cx, Func *f, bool *changed)
{
    Arena *a = cx->scratch;
    Sched s = sched_new(a, f);
    uint32_t *order = ARENA_ARRAY(a, uint32_t, s.n);
    int64_t before = sched_peak(a, f);
    sched_greedy(&s, false, order);
    sched_apply(&s, order);
    if (sched_peak(a, f) < before) {
        *changed = true;
        cx->n_rewrites++;
    } else
        sched_apply(&s, NULL);
}

/* The one that holds most gathered parameters, if that is more than is allowed. */
static const Flights *find_unfit(Flights *const *fl, uint32_t n)
{
    const Flights *most = NULL;
    for (uint32_t i = 0; i < n; i++)
        if (fl[i] && !flights_fit(fl[i]) &&
            (!most || flights_gathered(fl[i]) > flights_gathered(most)))
            most = fl[i];
    return most;
}

Status pass_schedule(PassCtx *cx, bool *changed)
{
    uint32_t n = cx->m->funcs.n;
    Flights **fl = ARENA_ARRAY(cx->scratch, Flights *, n);
    for (uint32_t i = 0; i < n; i++) {
        fl[i] = flights_new(cx, cx->m->funcs.at[i]);
        if (!fl[i]) order_function(cx, cx->m->funcs.at[i], changed);
        *changed |= fl[i] != NULL;
    }
    const Flights *unfit = find_unfit(fl, n);
    if (unfit) return flights_refuse(unfit);
    int64_t most = 0; /* of any function: the arena is as large */
    for (uint32_t i = 0; i < n; i++) {
        if (!fl[i]) continue;
        flights_fetch(fl[i]);
        if (flights_peak(fl[i]) > most) most = flights_peak(fl[i]);
    }
    for (uint32_t i = 0; i < n; i++)
        if (fl[i]) flights_send(fl[i], most);
    return ZM_OK;
}
