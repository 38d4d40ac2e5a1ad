/* vec.h -- growable array whose storage lives in an arena (old storage is left to the arena).
 *
 *   VEC(int) v = {0};  VEC_PUSH(arena, &v, 3);  v.at[0];  v.n
 */
#ifndef ZM_BASE_VEC_H
#define ZM_BASE_VEC_H

#include "ir/base/arena.h"

#define VEC(T)                                                                                     \
    struct {                                                                                       \
        T *at;                                                                                     \
        uint32_t n, cap;                                                                           \
    }

/* Storage for at least n elements; returns the new place of the array. */
void *vec_grow(Arena *a, void *at, uint32_t n, uint32_t *cap, uint32_t want, size_t elem_bytes);

#define VEC_RESERVE(A, V, WANT)                                                                    \
    ((V)->at = vec_grow((A), (V)->at, (V)->n, &(V)->cap, (WANT), sizeof *(V)->at))
#define VEC_PUSH(A, V, X) (VEC_RESERVE((A), (V), (V)->n + 1), (V)->at[(V)->n++] = (X))

#endif
