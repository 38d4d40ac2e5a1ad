/* readings.h -- how long a reading of a variable may be used, while ops are moved and replaced.
 *
 * A value that shows a variable's bytes (a read, or views of one) is good until the next write to
 * them.  A pass that gives such a value to later users than it had asks here first;
 * verify_effects() refuses what it forgot.  Time is counted in writes, so ops may come and go;
 * writes must stay.
 */
#ifndef ZM_PASSES_READINGS_H
#define ZM_PASSES_READINGS_H

#include "ir/ir.h"

typedef struct VarRange { /* elements [from, to) of a variable with own bytes */
    VarId storage;
    int64_t from, to;
} VarRange;

typedef struct Readings {
    Arena *a;
    const Func *f;
    VEC(VarRange) writes; /* in program order */
    VEC(uint32_t) epoch;  /* by OpId.i: writes before it */
} Readings;

Readings readings_new(Arena *scratch, const Func *f);
/* Op `made` stands next to `at`. */
void readings_add(Readings *r, OpId made, OpId at);
/* Does v still hold what it held when it was made, where op `user` stands?  Cost: O(1) unless a
 * write lies between, then the views behind v times the writes between. */
bool reading_holds(const Readings *r, ValueId v, OpId user);

#endif
