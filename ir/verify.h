/* verify.h -- the verifier's parts: verify.c (structure), verify_effects.c (reads and writes) and
 * verify_async.c (collectives in flight), verify_ranks.c (what ranks must agree on). */
#ifndef ZM_IR_VERIFY_H
#define ZM_IR_VERIFY_H

#include <stdarg.h>
#include <stdlib.h>

#include "ir/ir.h"

typedef struct Verifier {
    const Module *m;
    const char *after; /* pass that just ran, or NULL */
    const char *func;  /* "@last", or NULL */
    Arena *scratch;
} Verifier;

Status verify_error(const Verifier *v, LocId loc, const char *fmt, ...) ZM_PRINTF(3, 4);
/* For messages: an op, with the axis that a collective, or a wait, works over; a value. */
const char *verify_op_name(const Verifier *v, const Func *f, const Op *o);
const char *verify_name(const Verifier *v, const Func *f, ValueId id);

/* A value that stands for a variable's bytes -- a read, and what views and packs make of it -- has
 * no use after the first later write that touches those bytes.  The write itself may use it. */
Status verify_effects(const Verifier *v, const Func *f);

/* The result of an `async` collective has one use, a wait that also holds the collective's operand.
 * A variable inside of a sharded bucket is neither read nor written. */
Status verify_async(const Verifier *v, const Func *f);

/* Over ranks, an update divides its gradient by the number of items of all of them; what is drawn
 * by samples' numbers is sharded as the samples are. */
Status verify_ranks(const Verifier *v, const Func *f);

#endif
