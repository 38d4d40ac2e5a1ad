/* status.h -- result of anything that can fail, and the three kinds of check.
 *
 * A function that returns ZM_FAIL has already put the reason into the Diag it was given: callers
 * only pass it on.
 */
#ifndef ZM_BASE_STATUS_H
#define ZM_BASE_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { ZM_OK = 0, ZM_FAIL = 1 } Status;

#define ZM_NODISCARD __attribute__((warn_unused_result))
#define ZM_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define ZM_NORETURN __attribute__((noreturn))

/* Return early when CALL fails. */
#define ZM_TRY(CALL)                                                                               \
    do {                                                                                           \
        if ((CALL) != ZM_OK) return ZM_FAIL;                                                       \
    } while (0)

/* Report a broken invariant of zmc itself (never the user's fault) and abort. */
ZM_NORETURN void zm_check_failed(const char *file, int line, const char *what);

/* Always on: an invariant whose breach would make wrong code. */
#define ZM_CHECK(COND)                                                                             \
    do {                                                                                           \
        if (!(COND)) zm_check_failed(__FILE__, __LINE__, #COND);                                   \
    } while (0)

/* Debug builds only: a cheap local truth. */
#ifdef NDEBUG
#define ZM_ASSERT(COND) ((void)0)
#else
#define ZM_ASSERT(COND) ZM_CHECK(COND)
#endif

#define ZM_UNREACHABLE(WHAT) zm_check_failed(__FILE__, __LINE__, "unreachable: " WHAT)

#endif
