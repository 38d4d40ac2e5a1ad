/* schedule.h -- between the files of pass schedule.
 *
 *   schedule.c         the order of ops: the program's, or a greedy one
 *   flight.c           when collectives start and are waited for, and how much is in flight at once
 *   flight_order.c     the order of ops under one such policy
 */
#ifndef ZM_PASSES_SCHEDULE_H
#define ZM_PASSES_SCHEDULE_H

#include "passes/pass.h"

typedef VEC(uint32_t) Edges;

/* Ops of a function by their positions when this was made, and which must come before which. */
typedef struct Sched {
    Arena *a;
    Func *f;
    uint32_t n;
    OpId *op;         /* by position */
    uint32_t *pos;    /* by OpId.i */
    Edges *succ;      /* by position */
    uint32_t *n_pred; /* by position; an edge may be there twice, and counts twice */
} Sched;

Sched sched_new(Arena *a, Func *f);
/* order[k]: position of the op that runs k-th; NULL: the order that s was made of. */
void sched_apply(const Sched *s, const uint32_t *order);
/* Always the ready op that changes the live bytes least, of equal ones the first; is_eager: those
 * that free bytes as soon as they can, the others in the program's order. */
void sched_greedy(const Sched *s, bool is_eager, uint32_t *order);
int64_t sched_peak(Arena *a, const Func *f); /* bytes that its memory plan needs */

/* ---- flight.c ---- */

/* Makes the collectives of f async, each with its wait, and chooses between the order of the
 * program and the greedy ones. */
typedef struct Flights Flights;
Flights *flights_new(PassCtx *cx, Func *f); /* NULL: f has none */
/* Bytes of parameters that f has to hold gathered at once; may it, by --max-gathered-bytes? */
int64_t flights_gathered(const Flights *fl);
bool flights_fit(const Flights *fl);
Status flights_refuse(const Flights *fl); /* E_PLAN_GATHERED */
/* Gathers ahead of their use. */
void flights_fetch(Flights *fl);
/* Waits as late as a plan of `most` bytes allows, or of as many as flights_fetch left. */
void flights_send(Flights *fl, int64_t most);
int64_t flights_peak(const Flights *fl);

#endif
