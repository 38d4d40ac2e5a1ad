/* suggest.h -- "did you mean": the candidate that is closest to a misspelt name. */
#ifndef ZM_FRONTEND_SUGGEST_H
#define ZM_FRONTEND_SUGGEST_H

#include <stddef.h>
#include <stdint.h>

typedef struct Suggest {
    const char *wanted;
    const char *best; /* NULL: nothing close enough */
    uint32_t distance;
} Suggest;

Suggest suggest_new(const char *wanted);
void suggest_try(Suggest *s, const char *candidate);

#endif
