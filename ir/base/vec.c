/* vec.c -- see vec.h. */
#include "ir/base/vec.h"

#include <string.h>

void *vec_grow(Arena *a, void *at, uint32_t n, uint32_t *cap, uint32_t want, size_t elem_bytes)
{
    if (want <= *cap) return at;
    uint32_t new_cap = *cap ? *cap * 2 : 8;
    while (new_cap < want) new_cap *= 2;
    void *p = arena_alloc_array(a, new_cap, elem_bytes);
    if (n) memcpy(p, at, n * elem_bytes);
    *cap = new_cap;
    return p;
}
