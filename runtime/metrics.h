/* metrics.h -- --metrics: one JSON object a line, docs/runtime.md, Metrics. */
#ifndef ZM_RUNTIME_METRICS_H
#define ZM_RUNTIME_METRICS_H

#include "runtime/exec.h"

typedef struct StepResult { /* what a step left in the scalar variables, plus what the runtime
                               measured */
    int64_t step;           /* attempt, from 0 */
    int64_t update;         /* updates done after it */
    double loss, grad_norm, lr;
    double loss_scale, loss_scale_next, hysteresis_next; /* NaN: the program has no such scalar */
    bool is_skipped;
    bool is_exhausted; /* overflow at the least loss scale, hysteresis spent: the run ends */
    int64_t skips_in_row;
    double n_stops; /* ranks that were told to stop before it */
    double seconds, tokens_per_second;
    int64_t comm_bytes;
} StepResult;

typedef struct Metrics {
    const char *path;
    int fd;   /* -1: not asked for */
    Str line; /* reused: no allocation in a step */
} Metrics;

/* path NULL: off.  first_step > 0: goes on in an existing file, behind the lines of the steps
 * before it; what a run that was killed wrote beyond its last checkpoint is cut off. */
RtStatus metrics_open(Metrics *m, const char *path, int64_t first_step, RtError *e);
RtStatus metrics_step(Metrics *m, const StepResult *r, uint64_t arena_bytes, RtError *e);
RtStatus metrics_eval(Metrics *m, int64_t step, double loss, double tokens, RtError *e);
RtStatus metrics_close(Metrics *m, RtError *e);

/* Reads the scalars after a step; fills all but the measured members. */
void step_result_read(StepResult *r, const Exec *x, int64_t step);

void json_add_number(
    Str *s, double v); /* shortest digits that read back; null when not finite; 3 for 3.0 */

#endif
