/* arena.h -- bump allocation.  Everything in an arena is freed at once; memory handed out is
 * zeroed.
 *
 * Out of memory in the compiler is one fatal message: no caller checks for NULL.
 */
#ifndef ZM_BASE_ARENA_H
#define ZM_BASE_ARENA_H

#include "ir/base/status.h"

typedef struct ArenaChunk ArenaChunk;

typedef struct Arena {
    ArenaChunk *head;
    size_t used_bytes; /* handed out so far, all chunks */
} Arena;

/* n_bytes zeroed bytes, aligned for any object.  Sizes that overflow are fatal. */
void *arena_alloc(Arena *a, size_t n_bytes);
void *arena_alloc_array(Arena *a, size_t n, size_t elem_bytes);
char *arena_strndup(Arena *a, const char *s, size_t n);
char *arena_strdup(Arena *a, const char *s);
char *arena_printf(Arena *a, const char *fmt, ...) ZM_PRINTF(2, 3);
void arena_free(Arena *a); /* the arena is empty and usable again */

#define ARENA_NEW(A, T) ((T *)arena_alloc((A), sizeof(T)))
#define ARENA_ARRAY(A, T, N) ((T *)arena_alloc_array((A), (size_t)(N), sizeof(T)))

#endif
