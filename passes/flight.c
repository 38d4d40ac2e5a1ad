/* flight.c -- collectives start ahead and are waited for late (schedule.h).
 *
 * - in: ops in some order, collectives among them; of the program's order and the two greedy ones
 *   the best is where the walk (flight_order.c) starts
 * - out: every collective is async, with a wait that holds its operand; one order of starts, which
 *   all ranks have, since all run this program
 * - which order: see below
 *
 * Fetches, gathers for kernels, are waited for at their first use.  While the gathers of one layer
 * are in use those of the next one fly, as far as --max-gathered-bytes allows: the price is the
 * bytes of one layer.  Sends, all else (reductions, gathers that are only written to a variable),
 * start as soon as their operand is made.  They are waited for as late as the peak allows that the
 * module has without that: of the numbers of groups in flight in `sends` the first one whose plan
 * needs no more bytes.  An op that needs a send's result runs after its wait. */
#include <stdlib.h>

#include "passes/flight.h"
#include "passes/memory/memory.h"
#include "passes/value_map.h"

static const uint32_t sends[] = {UINT32_MAX, 8, 4, 2, 1};

struct Flights {
    PassCtx *cx;
    Func *f;
    Sched s;
    FlightPlan p;
    Policy policy;
    int64_t peak;
    int64_t gathered; /* most bytes of parameters at once when none is gathered ahead */
    uint32_t *order;
};

/* ---- waits ---- */

static bool make_async(PassCtx *cx, Func *f)
{
    bool is_any = false;
    ValueMap map = {.arena = cx->scratch};
    FOR_OPS(f, op)
    {
        value_map_apply(&map, f, op);
        Op o = *op_cget(f, op); /* by value: f grows */
        if (!op_is_collective(o.code)) continue;
        is_any = true;
        if (attr_int(o.attrs, AT_ASYNC, 0)) continue;
        AttrList l = {0};
        for (uint32_t i = 0; i < o.attrs.n; i++)
            if (o.attrs.at[i].key != AT_ASYNC) l.at[l.n++] = o.attrs.at[i];
        attr_add_int(&l, AT_ASYNC, 1);
        Builder b = {.f = f, .before = o.next, .loc = o.loc};
        ValueId in[] = {o.out[0], o.in[0]};
        ValueId wait = build1(&b, OP_WAIT, in, 2, NULL);
        value_map_set(&map, o.out[0], wait);
        op_get(f, op)->attrs = attrs_copy(f->m, &l);
        value_get(f, wait)->name = value_cget(f, o.out[0])->name;
        value_get(f, o.out[0])->name = NULL;
        cx->n_rewrites++;
    }
    return is_any;
}

/* ---- trips ---- */

typedef struct UseCount { /* of one result, through views */
    uint32_t n, first;
    bool is_only_written;
} UseCount;

static bool is_alias(OpCode code)
{
    return code == OP_RESHAPE || code == OP_SLICE || code == OP_AFTER;
}

/* Of the values whose root[] is not 0. */
static UseCount *find_uses(const Sched *s, const uint32_t *trip_at, uint32_t *root, uint32_t n)
{
    UseCount *u = ARENA_ARRAY(s->a, UseCount, n + 1);
    for (uint32_t i = 0; i <= n; i++) u[i] = (UseCount){0, UINT32_MAX, true};
    for (uint32_t p = 0; p < s->n; p++) {
        const Op *o = op_cget(s->f, s->op[p]);
        if (trip_at[p]) {
            if (o->code == OP_WAIT) root[o->out[0].i] = trip_at[p];
            continue;
        }
        if (is_alias(o->code) && root[o->in[0].i]) {
            root[o->out[0].i] = root[o->in[0].i];
            continue;
        }
        for (uint32_t i = 0; i < o->n_in; i++) {
            uint32_t t = root[o->in[i].i];
            if (!t) continue;
            u[t].n++;
            if (p < u[t].first) u[t].first = p;
            u[t].is_only_written &= o->code == OP_WRITE;
        }
    }
    return u;
}

static Trip trip_of(const Sched *s, OpId op, const UseCount *u)
{
    const Op *o = op_cget(s->f, op);
    Trip t = {.start = s->pos[op.i], .n_uses = u->n};
    t.is_fetch = o->code == OP_ALL_GATHER && u->n && !u->is_only_written;
    t.is_param = t.is_fetch && gathers_params(s->f, op);
    t.bytes = type_bytes(value_type(s->f, t.is_fetch ? o->out[0] : o->in[0]));
    VarId bucket = collective_bucket(s->f, op);
    t.group = var_ok(bucket) ? bucket_instance(s->f->m, bucket) : NULL;
    return t;
}

typedef struct FoundTrip {
    Trip t;
    uint32_t key; /* order */
} FoundTrip;

static int by_key(const void *x, const void *y)
{
    const FoundTrip *a = x, *b = y;
    if (a->t.is_fetch != b->t.is_fetch) return a->t.is_fetch ? -1 : 1;
    if (a->key != b->key) return a->key < b->key ? -1 : 1;
    return a->t.start < b->t.start ? -1 : a->t.start > b->t.start;
}

static void number_runs(FlightPlan *p)
{
    for (uint32_t i = 1; i < p->n_fetches; i++) {
        const Trip *before = &p->trip[i - 1];
        bool is_same = before->group && before->group == p->trip[i].group;
        p->trip[i].run = before->run + !is_same;
    }
}

/* Positions of the waits; trip_at counts trips in program order. */
static uint32_t find_waits(const Sched *s, uint32_t *trip_at, uint32_t *wait)
{
    uint32_t n = 0;
    for (uint32_t p = 0; p < s->n; p++)
        if (op_is_collective(op_cget(s->f, s->op[p])->code)) trip_at[p] = ++n;
    for (uint32_t p = 0; p < s->n; p++) {
        const Op *o = op_cget(s->f, s->op[p]);
        if (o->code != OP_WAIT) continue;
        trip_at[p] = trip_at[s->pos[value_cget(s->f, o->in[0])->def.i]];
        wait[trip_at[p] - 1] = p;
    }
    return n;
}

static FlightPlan plan_of(const Sched *s)
{
    Arena *a = s->a;
    FlightPlan p = {.trip_at = ARENA_ARRAY(a, uint32_t, s->n)};
    uint32_t *wait = ARENA_ARRAY(a, uint32_t, s->n),
             *root = ARENA_ARRAY(a, uint32_t, s->f->values.n);
    p.n = find_waits(s, p.trip_at, wait);
    const UseCount *u = find_uses(s, p.trip_at, root, p.n);
    FoundTrip *found = ARENA_ARRAY(a, FoundTrip, p.n);
    for (uint32_t at = 0; at < s->n; at++) {
        uint32_t t = p.trip_at[at];
        if (!t || op_cget(s->f, s->op[at])->code == OP_WAIT) continue;
        found[t - 1].t = trip_of(s, s->op[at], &u[t]);
        found[t - 1].t.wait = wait[t - 1];
        found[t - 1].key = found[t - 1].t.is_fetch ? u[t].first : at;
    }
    qsort(found, p.n, sizeof *found, by_key);
    p.trip = ARENA_ARRAY(a, Trip, p.n);
    for (uint32_t i = 0; i < p.n; i++) {
        p.trip[i] = found[i].t;
        p.n_fetches += p.trip[i].is_fetch;
        p.trip_at[p.trip[i].start] = p.trip_at[p.trip[i].wait] = i + 1;
    }
    number_runs(&p);
    p.shows = ARENA_ARRAY(a, uint32_t, s->f->values.n);
    for (uint32_t v = 1; v < s->f->values.n; v++) {
        if (!root[v]) continue; /* numbers in program order: found again by the wait */
        uint32_t t = p.trip_at[wait[root[v] - 1]];
        p.shows[v] = p.trip[t - 1].is_fetch ? t : 0;
    }
    return p;
}

/* ---- policies ---- */

/* Orders f by a policy: its peak; *gathered: most bytes of parameters at once. */
static int64_t try_policy(Flights *fl, const Policy *policy, int64_t *gathered)
{
    *gathered = flight_order(&fl->s, &fl->p, policy, fl->order);
    sched_apply(&fl->s, fl->order);
    Arena tmp = {0};
    int64_t peak = sched_peak(&tmp, fl->f);
    arena_free(&tmp);
    return peak;
}

/* Of the parameters that one run of fetches gathers. */
static int64_t largest_run(const FlightPlan *p)
{
    int64_t most = 0, sum = 0;
    for (uint32_t i = 0; i < p->n_fetches; i++) {
        if (i && p->trip[i].run != p->trip[i - 1].run) sum = 0;
        if (p->trip[i].is_param) sum += p->trip[i].bytes;
        if (sum > most) most = sum;
    }
    return most;
}

/* Waits for everything where it starts, gathers at their first use. */
static void begin(Flights *fl)
{
    fl->s = sched_new(fl->cx->scratch, fl->f);
    fl->p = plan_of(&fl->s);
    fl->order = ARENA_ARRAY(fl->cx->scratch, uint32_t, fl->s.n);
    fl->peak = try_policy(fl, &fl->policy, &fl->gathered);
}

/* Fewer gathered bytes above the limit, then fewer bytes. */
static bool is_better(const Flights *x, const Flights *y)
{
    bool x_fits = flights_fit(x), y_fits = flights_fit(y);
    if (!x_fits || !y_fits) return x_fits || (!y_fits && x->gathered < y->gathered);
    return x->peak < y->peak;
}

Flights *flights_new(PassCtx *cx, Func *f)
{
    if (!make_async(cx, f)) return NULL;
    Flights *fl = ARENA_NEW(cx->scratch, Flights);
    int64_t limit = cx->opt->max_gathered_bytes;
    *fl = (Flights){.cx = cx, .f = f, .policy.most_gathered = limit > 0 ? limit : INT64_MAX};
    begin(fl);
    Flights program = *fl, best = *fl;
    for (int is_eager = 0; is_eager < 2; is_eager++) {
        *fl = program;
        sched_apply(&fl->s, NULL);
        sched_greedy(&fl->s, is_eager, fl->order);
        sched_apply(&fl->s, fl->order);
        begin(fl);
        if (is_better(fl, &best)) best = *fl;
    }
    *fl = best;
    return fl;
}

bool flights_fit(const Flights *fl)
{
    return fl->gathered <= fl->policy.most_gathered;
}

int64_t flights_gathered(const Flights *fl)
{
    return fl->gathered;
}

Status flights_refuse(const Flights *fl)
{
    const FlightPlan *p = &fl->p;
    uint32_t largest = 0;
    for (uint32_t i = 1; i < p->n_fetches; i++)
        if (p->trip[i].bytes > p->trip[largest].bytes) largest = i;
    LocId loc = op_cget(fl->f, fl->s.op[p->trip[largest].start])->loc;
    diag_error(fl->cx->m->diag, loc_pos(fl->cx->m, loc), E_PLAN_GATHERED,
               "@%s holds %s of gathered parameters at once, --max-gathered-bytes allows %s",
               fl->f->name, plan_bytes_text(fl->cx->scratch, fl->gathered),
               plan_bytes_text(fl->cx->scratch, fl->policy.most_gathered));
    diag_help(fl->cx->m->diag, "the least that works is --max-gathered-bytes %lld",
              (long long)fl->gathered);
    return ZM_FAIL;
}

void flights_fetch(Flights *fl)
{
    int64_t gathered;
    Policy ahead = fl->policy;
    ahead.is_ahead = true;
    int64_t peak = try_policy(fl, &ahead, &gathered);
    if (gathered > fl->policy.most_gathered || peak > fl->peak + largest_run(&fl->p)) return;
    fl->policy = ahead;
    fl->peak = peak;
}

int64_t flights_peak(const Flights *fl)
{
    return fl->peak;
}

void flights_send(Flights *fl, int64_t most)
{
    int64_t gathered;
    for (size_t i = 0; i < sizeof sends / sizeof *sends; i++) {
        Policy late = fl->policy;
        late.most_sends = sends[i];
        if (try_policy(fl, &late, &gathered) <= most && gathered <= fl->policy.most_gathered)
            return;
    }
    try_policy(fl, &fl->policy, &gathered);
}
