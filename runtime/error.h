/* error.h -- how the runtime fails: a status that is the process's exit code, and one message that
 * says what is wrong, where, and what to do.  The function that finds the fault writes the message;
 * its callers only pass the status on. */
#ifndef ZM_RUNTIME_ERROR_H
#define ZM_RUNTIME_ERROR_H

#include "ir/base/str.h"

typedef enum RtStatus {
    RT_OK = 0,
    RT_BAD = 1,    /* bad use or bad input */
    RT_FAILED = 2, /* failed while running */
    RT_STOPPED = 3 /* by a signal before the run began; the exit code is the signal's */
} RtStatus;

typedef struct RtError {
    Str text; /* empty: no error */
} RtError;

/* Sets the message; the first one wins. */
void rt_say(RtError *e, const char *fmt, ...) ZM_PRINTF(2, 3);

/* Sets the message; its value is STATUS, in sight of the compiler. */
#define RT_FAIL(E, STATUS, ...) (rt_say((E), __VA_ARGS__), (STATUS))

#define RT_TRY(CALL)                                                                               \
    do {                                                                                           \
        RtStatus rt_status_ = (CALL);                                                              \
        if (rt_status_ != RT_OK) return rt_status_;                                                \
    } while (0)

#endif
