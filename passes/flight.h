/* flight.h -- between flight.c and flight_order.c. */
#ifndef ZM_PASSES_FLIGHT_H
#define ZM_PASSES_FLIGHT_H

#include "passes/collective.h"
#include "passes/schedule.h"

/* Of one function in flight at once, less than a communicator takes (comm.h). */
enum { MAX_IN_FLIGHT = 32 };

typedef enum { TRIP_AHEAD, TRIP_FLYING, TRIP_LANDED } TripState;

/* A collective.  A fetch, a gather for kernels, starts ahead of its first use and is waited for
 * there.  A send, any other, starts as soon as its operand is made and is waited for late. */
typedef struct Trip {
    uint32_t start, wait; /* positions */
    bool is_fetch;
    bool is_param;     /* gathered parameters: limited by --max-gathered-bytes */
    const char *group; /* instance of a repeat that it belongs to; NULL: none known */
    uint32_t run;      /* fetches: number of the row of neighbours of one group */
    int64_t bytes;     /* of the result of a fetch, of the operand of a send */
    uint32_t n_uses;   /* of the result, through views */
} Trip;

typedef struct Policy {
    bool is_ahead;         /* while one run of fetches is used, the next one flies */
    uint32_t most_sends;   /* groups of sends in flight, from 0 */
    int64_t most_gathered; /* bytes of gathered parameters */
} Policy;

typedef struct FlightPlan {
    uint32_t n;
    Trip *trip;         /* fetches in the order of their first uses; sends in program order */
    uint32_t n_fetches; /* they come first */
    uint32_t *trip_at;  /* by position: 1 + trip that starts or is waited for there */
    uint32_t *shows;    /* by value: 1 + fetch whose result it is, or is a view of */
} FlightPlan;

/* order[k]: position of the op that runs k-th.  Returns the most bytes of gathered parameters at
 * once: above most_gathered where the function needs more. */
int64_t flight_order(const Sched *s, const FlightPlan *p, const Policy *policy, uint32_t *order);

#endif
