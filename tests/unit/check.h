/* check.h -- what must hold in a test, or the test ends there. */
#ifndef ZM_TESTS_UNIT_CHECK_H
#define ZM_TESTS_UNIT_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(COND)                                                                                \
    do {                                                                                           \
        if (!(COND)) {                                                                             \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #COND);                     \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#endif
