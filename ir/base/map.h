/* map.h -- hash map from 64-bit keys to 32-bit values, in an arena.  Looked up, never iterated:
 * nothing printed or emitted may depend on its order. */
#ifndef ZM_BASE_MAP_H
#define ZM_BASE_MAP_H

#include "ir/base/arena.h"

typedef struct Map {
    Arena *arena;
    uint64_t *key;
    uint32_t *val; /* value + 1; 0 = free slot */
    uint32_t n, cap;
} Map;

#define MAP_NONE UINT32_MAX

uint32_t map_get(const Map *m, uint64_t key);     /* MAP_NONE when absent */
void map_put(Map *m, uint64_t key, uint32_t val); /* val < MAP_NONE; replaces */

#endif
