/* flight_order.c -- the order of ops under a policy for what is in flight (flight.h).
 *
 * A walk over the ops in the order that they have.  Starts and waits are put where the policy wants
 * them; an op that needs a send that is not waited for yet steps back, with all that needs it,
 * until that wait.  What stepped back runs in its old order.  At the end all that still flies
 * lands, in the order of the starts.  O(edges) and, for each wait, the ops that stepped back. */
#include "passes/flight.h"

#include <string.h>

typedef struct Walk {
    const Sched *s;
    const FlightPlan *p;
    const Policy *policy;
    Edges *pred;
    uint32_t *left;        /* by position: edges from ops that have not run */
    bool *is_done;         /* by position */
    uint32_t *uses;        /* by trip: of its result, still to come */
    TripState *state;      /* by trip */
    uint32_t *flying;      /* sends, in the order of their starts */
    uint32_t n_flying;     /* sends */
    uint32_t n_fetched;    /* fetches in flight */
    uint32_t next;         /* the first fetch that has not started */
    uint32_t open;         /* fetches of runs below this may start */
    uint32_t cursor, back; /* all below `back` ran; all below `cursor` ran or stepped back */
    bool has_landed;       /* a send, since the ops that stepped back were looked at */
    uint32_t *ready;       /* sends whose operand is there */
    uint32_t n_ready;
    int64_t gathered, most;
    uint32_t *order, n;
} Walk;

static void run(Walk *w, uint32_t p);

/* ---- bytes of gathered parameters ---- */

static void take(Walk *w, uint32_t t)
{
    if (!w->p->trip[t].is_param) return;
    w->gathered += w->p->trip[t].bytes;
    if (w->gathered > w->most) w->most = w->gathered;
}

static void give_back(Walk *w, uint32_t t)
{
    if (w->p->trip[t].is_param) w->gathered -= w->p->trip[t].bytes;
}

static void count_uses(Walk *w, uint32_t p)
{
    const Op *o = op_cget(w->s->f, w->s->op[p]);
    if (w->p->trip_at[p] || (o->n_out && w->p->shows[o->out[0].i])) return; /* a view */
    for (uint32_t i = 0; i < o->n_in; i++) {
        uint32_t t = w->p->shows[o->in[i].i];
        if (t && --w->uses[t - 1] == 0) give_back(w, t - 1);
    }
}

/* ---- one op ---- */

static bool is_start(const Walk *w, uint32_t p)
{
    return w->p->trip_at[p] && w->p->trip[w->p->trip_at[p] - 1].start == p;
}

/* Runs p: no edge leads to it any more. */
static void run(Walk *w, uint32_t p)
{
    ZM_CHECK(w->left[p] == 0 && !w->is_done[p]);
    w->order[w->n++] = p;
    w->is_done[p] = true;
    count_uses(w, p);
    for (uint32_t i = 0; i < w->s->succ[p].n; i++) {
        uint32_t q = w->s->succ[p].at[i];
        if (--w->left[q]) continue;
        uint32_t t = w->p->trip_at[q];
        if (t && is_start(w, q) && t - 1 >= w->p->n_fetches) w->ready[w->n_ready++] = t - 1;
    }
}

static void start(Walk *w, uint32_t t)
{
    run(w, w->p->trip[t].start);
    w->state[t] = TRIP_FLYING;
    take(w, t);
    if (t >= w->p->n_fetches)
        w->flying[w->n_flying++] = t;
    else
        w->n_fetched++;
}

static void land(Walk *w, uint32_t t)
{
    if (w->state[t] == TRIP_AHEAD) start(w, t);
    run(w, w->p->trip[t].wait);
    w->state[t] = TRIP_LANDED;
    if (t < w->p->n_fetches) {
        const Trip *trip = &w->p->trip[t];
        w->n_fetched--;
        if (w->uses[t] == 0) give_back(w, t);
        if (w->policy->is_ahead && trip->run + 2 > w->open) w->open = trip->run + 2;
        return;
    }
    w->has_landed = true;
    uint32_t i = 0;
    while (w->flying[i] != t) i++;
    memmove(&w->flying[i], &w->flying[i + 1], (w->n_flying - i - 1) * sizeof *w->flying);
    w->n_flying--;
}

/* ---- sends ---- */

static bool is_new_group(const Walk *w, uint32_t i)
{
    const char *group = w->p->trip[w->flying[i]].group;
    for (uint32_t k = 0; k < i; k++)
        if (group && w->p->trip[w->flying[k]].group == group) return false;
    return true;
}

static uint32_t groups_flying(const Walk *w)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->n_flying; i++) n += is_new_group(w, i);
    return n;
}

static void start_sends(Walk *w)
{
    while (w->n_ready) {
        uint32_t t = w->ready[0];
        memmove(w->ready, w->ready + 1, --w->n_ready * sizeof *w->ready);
        start(w, t);
        while (w->n_flying && (groups_flying(w) > w->policy->most_sends ||
                               w->n_flying + w->n_fetched > MAX_IN_FLIGHT))
            land(w, w->flying[0]);
    }
}

/* ---- fetches ---- */

static bool has_room(const Walk *w, const Trip *t)
{
    return !t->is_param || w->gathered + t->bytes <= w->policy->most_gathered;
}

static void start_fetches(Walk *w)
{
    for (;;) {
        while (w->next < w->p->n_fetches && w->state[w->next] != TRIP_AHEAD) w->next++;
        const Trip *t = &w->p->trip[w->next];
        if (w->next == w->p->n_fetches || t->run >= w->open || w->left[t->start] ||
            !has_room(w, t) || w->n_flying + w->n_fetched >= MAX_IN_FLIGHT)
            return;
        start(w, w->next);
    }
}

/* Can the fetch that p waits for begin, if it has not? */
static bool can_land(const Walk *w, uint32_t t)
{
    return t < w->p->n_fetches && (w->state[t] == TRIP_FLYING || w->left[w->p->trip[t].start] == 0);
}

/* Lands the fetches that alone keep p from running.  False: something else does, too. */
static bool land_fetches(Walk *w, uint32_t p)
{
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t i = 0; i < w->pred[p].n; i++) {
            uint32_t q = w->pred[p].at[i], t = w->p->trip_at[q];
            if (w->is_done[q]) continue;
            if (pass)
                land(w, t - 1);
            else if (!t || is_start(w, q) || !can_land(w, t - 1))
                return false;
        }
    return true;
}

/* ---- the walk ---- */

/* Runs op p if it can.  Starts and waits have their own time. */
static bool visit(Walk *w, uint32_t p)
{
    if (w->is_done[p] || w->p->trip_at[p]) return false;
    if (w->left[p] && !land_fetches(w, p)) return false;
    run(w, p);
    return true;
}

static void start_what_can(Walk *w)
{
    start_sends(w);
    start_fetches(w);
}

/* What waits made possible: starts, and ops that stepped back. */
static void catch_up(Walk *w)
{
    start_what_can(w);
    while (w->has_landed) {
        w->has_landed = false;
        while (w->back < w->cursor && w->is_done[w->back]) w->back++;
        for (uint32_t p = w->back; p < w->cursor; p++)
            if (visit(w, p)) start_what_can(w);
    }
}

/* The last op of all: everything lands before it. */
static void finish(Walk *w)
{
    while (w->n + 1 < w->s->n) {
        uint32_t n = w->n;
        for (uint32_t t = 0; !w->n_flying && t < w->p->n_fetches && n == w->n; t++)
            if (w->state[t] != TRIP_LANDED && can_land(w, t)) land(w, t); /* nobody uses it */
        if (w->n_flying) land(w, w->flying[0]);
        w->has_landed = true;
        catch_up(w);
        ZM_CHECK(w->n > n);
    }
    run(w, w->s->n - 1);
}

static void begin(Walk *w)
{
    Arena *a = w->s->a;
    uint32_t n = w->s->n;
    w->pred = ARENA_ARRAY(a, Edges, n);
    w->left = ARENA_ARRAY(a, uint32_t, n);
    w->is_done = ARENA_ARRAY(a, bool, n);
    w->uses = ARENA_ARRAY(a, uint32_t, w->p->n);
    w->state = ARENA_ARRAY(a, TripState, w->p->n);
    w->flying = ARENA_ARRAY(a, uint32_t, w->p->n);
    w->ready = ARENA_ARRAY(a, uint32_t, w->p->n);
    memcpy(w->left, w->s->n_pred, n * sizeof *w->left);
    for (uint32_t t = 0; t < w->p->n; t++) {
        w->uses[t] = w->p->trip[t].n_uses;
        if (t >= w->p->n_fetches && !w->left[w->p->trip[t].start]) w->ready[w->n_ready++] = t;
    }
    for (uint32_t p = 0; p + 1 < n; p++) /* what comes before the last: everything */
        for (uint32_t i = 0; i < w->s->succ[p].n; i++)
            if (w->s->succ[p].at[i] + 1 < n) VEC_PUSH(a, &w->pred[w->s->succ[p].at[i]], p);
    w->open = w->policy->is_ahead && w->p->n_fetches && w->p->trip[0].is_param;
}

int64_t flight_order(const Sched *s, const FlightPlan *p, const Policy *policy, uint32_t *order)
{
    Walk w = {.s = s, .p = p, .policy = policy, .order = order};
    begin(&w);
    for (; w.cursor + 1 < s->n; w.cursor++) {
        catch_up(&w);
        visit(&w, w.cursor);
    }
    catch_up(&w);
    finish(&w);
    return w.most;
}
