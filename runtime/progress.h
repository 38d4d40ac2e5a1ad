/* progress.h -- what a person sees on stderr: on a terminal one line that updates, otherwise a line
 * every few seconds. */
#ifndef ZM_RUNTIME_PROGRESS_H
#define ZM_RUNTIME_PROGRESS_H

#include "runtime/metrics.h"

typedef struct Progress {
    int fd;
    bool is_terminal, has_open_line;
    int64_t first_step, n_steps;
    double started, last_shown; /* seconds */
    int64_t n_skipped;          /* steps, since the start */
    double tokens, seconds;     /* of the steps since the last line: the rate shown is their mean */
    Str line;
} Progress;

double now_seconds(void); /* monotonic */

void progress_begin(Progress *p, int fd, int64_t first_step, int64_t n_steps);
void progress_step(Progress *p, const StepResult *r);
/* A line of its own: evaluation, checkpoint, warning. */
void progress_note(Progress *p, const char *fmt, ...) ZM_PRINTF(2, 3);
void progress_end(Progress *p); /* ends an open line */

#endif
