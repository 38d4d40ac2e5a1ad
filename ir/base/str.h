/* str.h -- a growable text buffer and an interner (equal strings <=> equal pointers). */
#ifndef ZM_BASE_STR_H
#define ZM_BASE_STR_H

#include "ir/base/arena.h"

/* Heap buffer, always NUL-terminated once anything was added; free with str_free. */
typedef struct Str {
    char *at;
    size_t n, cap;
} Str;

void str_add(Str *s, const char *text);
void str_add_n(Str *s, const char *text, size_t n);
void str_addf(Str *s, const char *fmt, ...) ZM_PRINTF(2, 3);
const char *str_c(const Str *s); /* "" when empty */
void str_free(Str *s);
/* Short decimal text that reads back as exactly v: "0.1", "120.0", "1e-05", "inf", "-inf", "nan".
 * Always has a '.', 'e', or letter, so that it never reads as an integer. */
void str_add_f64(Str *s, double v);
/* A JSON string literal with its quotes. */
void str_add_json(Str *s, const char *text);

bool glob_match(const char *pattern, const char *text); /* '*' any run, '?' one character */

typedef struct Interner {
    Arena *arena;
    const char **slot;
    uint32_t n, cap;
} Interner;

/* The one copy of text[0..n) (NUL-terminated).  The interner's arena owns it. */
const char *intern_n(Interner *in, const char *text, size_t n);
const char *intern(Interner *in, const char *text);

uint64_t hash_bytes(const void *p, size_t n, uint64_t seed); /* FNV-1a with a final mix */

#endif
