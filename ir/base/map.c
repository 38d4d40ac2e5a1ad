/* map.c -- see map.h.  Open addressing, linear probes, at most half full. */
#include "ir/base/map.h"

static uint32_t map_slot(const Map *m, uint64_t key)
{
    uint64_t h = key * 0x9e3779b97f4a7c15u;
    uint32_t i = (uint32_t)(h >> 32) & (m->cap - 1);
    while (m->val[i] && m->key[i] != key) i = (i + 1) & (m->cap - 1);
    return i;
}

uint32_t map_get(const Map *m, uint64_t key)
{
    if (!m->cap) return MAP_NONE;
    uint32_t i = map_slot(m, key);
    return m->val[i] ? m->val[i] - 1 : MAP_NONE;
}

static void map_grow(Map *m)
{
    Map old = *m;
    m->cap = old.cap ? old.cap * 2 : 64;
    m->key = ARENA_ARRAY(m->arena, uint64_t, m->cap);
    m->val = ARENA_ARRAY(m->arena, uint32_t, m->cap);
    for (uint32_t i = 0; i < old.cap; i++) {
        if (!old.val[i]) continue;
        uint32_t j = map_slot(m, old.key[i]);
        m->key[j] = old.key[i];
        m->val[j] = old.val[i];
    }
}

void map_put(Map *m, uint64_t key, uint32_t val)
{
    if (2 * (m->n + 1) > m->cap) map_grow(m);
    uint32_t i = map_slot(m, key);
    if (!m->val[i]) m->n++;
    m->key[i] = key;
    m->val[i] = val + 1;
}
