/* trace.h -- --profile: a trace of commands for chrome://tracing or ui.perfetto.dev, and the
 * roofline of the steps in it. */
#ifndef ZM_RUNTIME_TRACE_H
#define ZM_RUNTIME_TRACE_H

#include <stdio.h>

#include "runtime/roofline.h"

enum { TRACE_STEPS = 20 };

typedef struct Trace {
    const char *path;
    FILE *out; /* NULL: not asked for, or done */
    double started, last_s;
    int64_t n_events;
    int rank;
    Roofline roofline; /* of the same commands */
} Trace;

/* Where a rank writes: TRACE.json, then TRACE.rank1.json ... */
const char *trace_path(Arena *a, const char *path, int rank);

/* path NULL: off.  Tables go into a. */
RtStatus trace_open(Trace *t, Arena *a, const char *path, const Exec *x, RtError *e);
Observer trace_observer(Trace *t);
RtStatus trace_close(Trace *t, RtError *e); /* again after the first time: nothing */

#endif
