/* value_map.h -- replacement of values during one walk over a function in program order.
 *
 * func_replace_uses scans the function; a pass that replaces many values records them here and lets
 * the walk rewrite each op's operands when it gets there (value_map_apply), which costs O(operands)
 * altogether. */
#ifndef ZM_PASSES_VALUE_MAP_H
#define ZM_PASSES_VALUE_MAP_H

#include "ir/ir.h"

typedef struct ValueMap {
    Arena *arena;
    VEC(ValueId) to; /* by ValueId.i; none or beyond the end: the value itself */
} ValueMap;

static inline ValueId value_map_get(const ValueMap *map, ValueId v)
{
    return v.i < map->to.n && value_ok(map->to.at[v.i]) ? map->to.at[v.i] : v;
}

/* `to` stands for `from` from here on; both are final: neither is replaced itself later. */
static inline void value_map_set(ValueMap *map, ValueId from, ValueId to)
{
    while (map->to.n <= from.i) VEC_PUSH(map->arena, &map->to, (ValueId){0});
    map->to.at[from.i] = value_map_get(map, to);
}

static inline void value_map_apply(const ValueMap *map, Func *f, OpId op)
{
    Op *o = op_get(f, op);
    for (uint32_t i = 0; i < o->n_in; i++) o->in[i] = value_map_get(map, o->in[i]);
}

#endif
