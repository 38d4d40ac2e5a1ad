/* suggest.c -- Levenshtein distance; a candidate counts when at most a third of the name is wrong.
 */
#include "frontend/suggest.h"

#include <string.h>

enum { MAX_NAME = 64 };

static uint32_t min2(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t name_distance(const char *a, size_t na, const char *b, size_t nb)
{
    uint32_t row[MAX_NAME + 1];
    for (uint32_t j = 0; j <= nb; j++) row[j] = j;
    for (uint32_t i = 1; i <= na; i++) {
        uint32_t diagonal = row[0];
        row[0] = i;
        for (uint32_t j = 1; j <= nb; j++) {
            uint32_t change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = min2(change, min2(row[j], row[j - 1]) + 1);
        }
    }
    return row[nb];
}

Suggest suggest_new(const char *wanted)
{
    size_t n = strlen(wanted);
    return (Suggest){.wanted = wanted, .distance = n < 3 ? 2 : (uint32_t)(n + 2) / 3 + 1};
}

void suggest_try(Suggest *s, const char *candidate)
{
    size_t na = strlen(s->wanted), nb = strlen(candidate);
    if (na > MAX_NAME || nb > MAX_NAME || nb == 0) return;
    uint32_t d = name_distance(s->wanted, na, candidate, nb);
    if (d == 0 || d >= s->distance || d >= nb) return;
    s->best = candidate;
    s->distance = d;
}
