/* trace.h -- --profile: a trace of commands for chrome://tracing or ui.perfetto.dev. */
#ifndef ZM_RUNTIME_TRACE_H
#define ZM_RUNTIME_TRACE_H

#include <stdio.h>

#include "runtime/exec.h"

enum { TRACE_STEPS = 20 };

typedef struct Trace {
    const char *path;
    FILE *out; /* NULL: not asked for, or done */
    double started, last_s;
    int64_t n_events;
} Trace;

RtStatus trace_open(Trace *t, const char *path, const Exec *x, RtError *e); /* path NULL: off */
Observer trace_observer(Trace *t);
RtStatus trace_close(Trace *t, RtError *e); /* again after the first time: nothing */

#endif
