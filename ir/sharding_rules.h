/* sharding_rules.h -- inside of sharding*.c: what decides how the parts of an op's results are
 * placed. */
#ifndef ZM_IR_SHARDING_RULES_H
#define ZM_IR_SHARDING_RULES_H

#include "ir/sharding.h"

#define REFUSE(...) return arena_printf(t->m->arena, __VA_ARGS__)
#define TEXT(TYPE_) type_text(t->m->arena, (TYPE_))
#define NEED(CALL)                                                                                 \
    do {                                                                                           \
        const char *why_ = (CALL);                                                                 \
        if (why_) return why_;                                                                     \
    } while (0)

enum { SHARDING_MAX_OUT = 8 };

/* Of a result: axis of each dimension, axes that it is a partial sum over. */
typedef struct Placing {
    uint8_t axis[ZM_MAX_RANK];
    uint8_t partial;
} Placing;

/* An op whose own rule has accepted its operands as tensors of one rank. */
typedef struct Sharding {
    const TypeIn *t;
    OpCode code;
    const Type *const *out; /* its results, not placed ... */
    Placing *place;         /* ... and where they are: the rule fills in what is not zero */
} Sharding;

/* Fills s->place; NULL, or why the operands' placings are refused. */
typedef const char *(*ShardingRule)(const Sharding *s);

/* By FACTORS, when that is no rule's name (sharding_factors.c). */
const char *sharding_by_factors(const Sharding *s);
/* The rule that FACTORS names (sharding_views.c); NULL when it names none. */
ShardingRule sharding_rule(const char *name);

#endif
