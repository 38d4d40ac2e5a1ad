/* str.c -- see str.h. */
#include "ir/base/str.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void str_reserve(Str *s, size_t extra)
{
    if (s->n + extra + 1 <= s->cap) return;
    size_t cap = s->cap ? s->cap * 2 : 256;
    while (cap < s->n + extra + 1) cap *= 2;
    char *p = realloc(s->at, cap);
    ZM_CHECK(p != NULL);
    s->at = p;
    s->cap = cap;
}

void str_add_n(Str *s, const char *text, size_t n)
{
    str_reserve(s, n);
    if (n) memcpy(s->at + s->n, text, n);
    s->n += n;
    s->at[s->n] = '\0';
}

void str_add(Str *s, const char *text)
{
    str_add_n(s, text, strlen(text));
}

void str_addf(Str *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    str_reserve(s, (size_t)n);
    va_start(ap, fmt);
    vsnprintf(s->at + s->n, (size_t)n + 1, fmt, ap);
    va_end(ap);
    s->n += (size_t)n;
}

const char *str_c(const Str *s)
{
    return s->at ? s->at : "";
}

void str_free(Str *s)
{
    free(s->at);
    *s = (Str){0};
}

void str_add_f64(Str *s, double v)
{
    if (isnan(v)) {
        str_add(s, "nan");
        return;
    }
    if (isinf(v)) {
        str_add(s, v < 0 ? "-inf" : "inf");
        return;
    }
    char buf[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(buf, sizeof buf, "%.*g", digits, v);
        if (strtod(buf, NULL) == v) break;
    }
    if (fabs(v) < 1e7 && v == floor(v)) snprintf(buf, sizeof buf, "%.0f", v); /* 120, not 1.2e+02 */
    str_add(s, buf);
    if (!strpbrk(buf, ".e")) str_add(s, ".0");
}

void str_add_json(Str *s, const char *text)
{
    str_add_n(s, "\"", 1);
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c == '"' || c == '\\')
            str_addf(s, "\\%c", c);
        else if (c < 0x20)
            str_addf(s, "\\u%04x", c);
        else
            str_add_n(s, p, 1);
    }
    str_add_n(s, "\"", 1);
}

uint64_t hash_bytes(const void *p, size_t n, uint64_t seed)
{
    const unsigned char *b = p;
    uint64_t h = 0xcbf29ce484222325u ^ seed;
    for (size_t i = 0; i < n; i++) h = (h ^ b[i]) * 0x100000001b3u;
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    return h ^ (h >> 32);
}

static void intern_rehash(Interner *in)
{
    uint32_t cap = in->cap ? in->cap * 2 : 256;
    const char **slot = ARENA_ARRAY(in->arena, const char *, cap);
    for (uint32_t i = 0; i < in->cap; i++) {
        if (!in->slot[i]) continue;
        uint32_t j = (uint32_t)hash_bytes(in->slot[i], strlen(in->slot[i]), 0) & (cap - 1);
        while (slot[j]) j = (j + 1) & (cap - 1);
        slot[j] = in->slot[i];
    }
    in->slot = slot;
    in->cap = cap;
}

const char *intern_n(Interner *in, const char *text, size_t n)
{
    if (2 * (in->n + 1) > in->cap) intern_rehash(in);
    uint32_t j = (uint32_t)hash_bytes(text, n, 0) & (in->cap - 1);
    for (; in->slot[j]; j = (j + 1) & (in->cap - 1))
        if (strncmp(in->slot[j], text, n) == 0 && in->slot[j][n] == '\0') return in->slot[j];
    in->slot[j] = arena_strndup(in->arena, text, n);
    in->n++;
    return in->slot[j];
}

const char *intern(Interner *in, const char *text)
{
    return intern_n(in, text, strlen(text));
}

bool glob_match(const char *pattern, const char *text)
{
    const char *star = NULL, *resume = NULL;
    while (*text) {
        if (*pattern == '*') {
            star = pattern++;
            resume = text;
        } else if (*pattern == '?' || *pattern == *text) {
            pattern++;
            text++;
        } else if (star) {
            pattern = star + 1;
            text = ++resume;
        } else
            return false;
    }
    while (*pattern == '*') pattern++;
    return *pattern == '\0';
}
