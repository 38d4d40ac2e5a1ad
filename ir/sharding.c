/* sharding.c -- see sharding.h. */
#include "ir/sharding.h"

#define REFUSE(...) return arena_printf(t->m->arena, __VA_ARGS__)

/* Ops whose own rule knows of placings. */
static bool rule_places(OpCode code)
{
    switch ((int)code) {
    case OP_ALL_GATHER:
    case OP_REDUCE_SCATTER:
    case OP_ALL_REDUCE:
    case OP_SHARD:
    case OP_WAIT:
    case OP_AFTER:
    case OP_READ:
    case OP_WRITE:
    case OP_FUSED:
    case OP_PROBE:
    case OP_RETURN: return true;
    default: return false;
    }
}

const char *sharding_infer(const TypeIn *t, OpCode code, const Type **out)
{
    if (rule_places(code)) return op_info(code)->type_rule(t, out);
    REFUSE("takes no operand that is divided over ranks");
}
