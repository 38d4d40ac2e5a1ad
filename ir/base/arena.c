/* arena.c -- see arena.h. */
#include "ir/base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 64 * 1024, ALIGN_BYTES = 16 };

struct ArenaChunk {
    ArenaChunk *next;
    size_t cap_bytes;
    size_t used_bytes;
    size_t pad; /* keeps `data` aligned to ALIGN_BYTES */
    char data[];
};

void zm_check_failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "zmc: internal error at %s:%d: %s\n", file, line, what);
    abort();
}

static void out_of_memory(size_t n_bytes)
{
    fprintf(stderr, "zmc: out of memory: %zu bytes asked for\n", n_bytes);
    exit(2);
}

static ArenaChunk *chunk_new(size_t n_bytes)
{
    size_t cap = n_bytes > CHUNK_BYTES ? n_bytes : CHUNK_BYTES;
    ArenaChunk *c = calloc(1, sizeof(ArenaChunk) + cap);
    if (!c) out_of_memory(cap);
    c->cap_bytes = cap;
    return c;
}

void *arena_alloc(Arena *a, size_t n_bytes)
{
    if (n_bytes > SIZE_MAX / 2) out_of_memory(n_bytes);
    n_bytes = (n_bytes + ALIGN_BYTES - 1) & ~(size_t)(ALIGN_BYTES - 1);
    if (!a->head || a->head->cap_bytes - a->head->used_bytes < n_bytes) {
        ArenaChunk *c = chunk_new(n_bytes);
        c->next = a->head;
        a->head = c;
    }
    void *p = a->head->data + a->head->used_bytes;
    a->head->used_bytes += n_bytes;
    a->used_bytes += n_bytes;
    return p;
}

void *arena_alloc_array(Arena *a, size_t n, size_t elem_bytes)
{
    if (elem_bytes && n > SIZE_MAX / 2 / elem_bytes) out_of_memory(SIZE_MAX);
    return arena_alloc(a, n * elem_bytes);
}

char *arena_strndup(Arena *a, const char *s, size_t n)
{
    char *p = arena_alloc(a, n + 1);
    memcpy(p, s, n);
    return p;
}

char *arena_strdup(Arena *a, const char *s)
{
    return arena_strndup(a, s, strlen(s));
}

char *arena_printf(Arena *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = arena_alloc(a, (size_t)n + 1);
    va_start(ap, fmt);
    vsnprintf(p, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return p;
}

void arena_free(Arena *a)
{
    for (ArenaChunk *c = a->head; c;) {
        ArenaChunk *next = c->next;
        free(c);
        c = next;
    }
    *a = (Arena){0};
}
