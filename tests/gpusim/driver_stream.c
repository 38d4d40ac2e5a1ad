/* driver_stream.c -- streams, events, host functions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpusim/stream.h"

enum { NON_BLOCKING = 1 };

/* ---- streams ---- */

CUresult cuStreamCreate(CUstream *stream, unsigned int flags)
{
    System *s = system_lock();
    if (!system_current()) return system_unlock(CUDA_ERROR_INVALID_CONTEXT);
    *stream = stream_new(s, !(flags & NON_BLOCKING));
    if (*stream) (*stream)->device = system_current()->ordinal;
    return system_unlock(*stream ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY);
}

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned int flags, int priority)
{
    (void)priority;
    return cuStreamCreate(stream, flags);
}

CUresult cuStreamDestroy_v2(CUstream stream)
{
    System *s = system_lock();
    Stream *q = stream_of(s, stream);
    if (!q || q->slot <= PER_THREAD) return system_unlock(CUDA_ERROR_INVALID_HANDLE);
    while (!clock_is_done(s, q->clock) && stream_step_waiting(s)) {
    } /* its work still runs */
    q->is_used = false;
    return system_unlock(CUDA_SUCCESS);
}

CUresult cuStreamSynchronize(CUstream stream)
{
    System *s = system_lock();
    Stream *q = stream_of(s, stream);
    if (!q) return system_unlock(CUDA_ERROR_INVALID_HANDLE);
    CUresult rc = capture_refuses_stream(q);
    if (rc == CUDA_SUCCESS) stream_finish(s, q->clock);
    return system_unlock(rc);
}

enum { QUERY_TASKS = 64 }; /* that run meanwhile: somebody who polls gets there */

static CUresult query(System *s, const uint32_t *clock)
{
    if (clock_is_done(s, clock)) {
        clock_join(s->host_clock, clock);
        return CUDA_SUCCESS;
    }
    for (int i = 0; i < QUERY_TASKS && !clock_is_done(s, clock); i++)
        if (stream_step(s) != STEP_RAN) break;
    return CUDA_ERROR_NOT_READY;
}

CUresult cuStreamQuery(CUstream stream)
{
    System *s = system_lock();
    Stream *q = stream_of(s, stream);
    CUresult rc = q ? capture_refuses_stream(q) : CUDA_ERROR_INVALID_HANDLE;
    return system_unlock(rc == CUDA_SUCCESS ? query(s, q->clock) : rc);
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags)
{
    System *s = system_lock();
    Stream *q = stream_of(s, stream);
    (void)flags;
    if (!q || !event) return system_unlock(CUDA_ERROR_INVALID_HANDLE);
    if (q->capture || event->capture) return system_unlock(graph_wait(s, q, event));
    clock_join(q->clock, event->clock); /* zeros, when nothing was recorded */
    return system_unlock(CUDA_SUCCESS);
}

/* ---- events ---- */

CUresult cuEventCreate(CUevent *event, unsigned int flags)
{
    (void)flags;
    *event = calloc(1, sizeof **event);
    return *event ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuEventDestroy_v2(CUevent event)
{
    System *s = system_lock();
    if (!event) return system_unlock(CUDA_ERROR_INVALID_HANDLE);
    while (!clock_is_done(s, event->clock) && stream_step_waiting(s)) {
    }
    free(event);
    return system_unlock(CUDA_SUCCESS);
}

CUresult cuEventRecord(CUevent event, CUstream stream)
{
    System *s = system_lock();
    Stream *q = stream_of(s, stream);
    if (!q || !event) return system_unlock(CUDA_ERROR_INVALID_HANDLE);
    if (q->capture) return system_unlock(graph_record(q, event));
    event->capture = 0;
    Task t = {.kind = TASK_RECORD, .event = event, .op.name = "cuEventRecord"};
    return system_unlock(stream_push(s, q, &t));
}

CUresult cuEventSynchronize(CUevent event)
{
    System *s = system_lock();
    if (!event) return system_unlock(CUDA_ERROR_INVALID_HANDLE);
    CUresult rc = capture_refuses_event(s, event);
    if (rc == CUDA_SUCCESS) stream_finish(s, event->clock);
    return system_unlock(rc);
}

CUresult cuEventQuery(CUevent event)
{
    System *s = system_lock();
    if (!event) return system_unlock(CUDA_ERROR_INVALID_HANDLE);
    CUresult rc = capture_refuses_event(s, event);
    return system_unlock(rc == CUDA_SUCCESS ? query(s, event->clock) : rc);
}

/* Host time between the tasks: for code that divides by it, not for speed. */
CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end)
{
    System *s = system_lock();
    if (!start || !end || !start->is_recorded || !end->is_recorded)
        return system_unlock(CUDA_ERROR_INVALID_HANDLE);
    if (!clock_is_done(s, start->clock) || !clock_is_done(s, end->clock))
        return system_unlock(CUDA_ERROR_NOT_READY);
    *ms = (float)(end->time_ms - start->time_ms);
    return system_unlock(CUDA_SUCCESS);
}

CUresult cuEventElapsedTime_v2(float *ms, CUevent start, CUevent end)
{
    return cuEventElapsedTime(ms, start, end);
}

/* ---- host functions ---- */

static CUresult push_host(System *s, CUstream stream, Task *t)
{
    Stream *q = stream_of(s, stream);
    return q ? stream_push(s, q, t) : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuLaunchHostFunc(CUstream stream, CUhostFn fn, void *arg)
{
    System *s = system_lock();
    Task t = {.kind = TASK_HOST, .fn = fn, .arg = arg, .op.name = "cuLaunchHostFunc"};
    return system_unlock(push_host(s, stream, &t));
}

int gpusim_enqueue(void *stream, const char *name, GpusimPoll (*fn)(void *arg), void *arg,
                   const GpusimRange *ranges, size_t n_ranges)
{
    System *s = system_lock();
    Task t = {.kind = TASK_POLL, .poll = fn, .arg = arg, .op.name = name, .n_ranges = n_ranges};
    t.ranges = n_ranges ? malloc(n_ranges * sizeof *ranges) : NULL;
    if (n_ranges && !t.ranges) return system_unlock(CUDA_ERROR_OUT_OF_MEMORY);
    if (n_ranges) memcpy(t.ranges, ranges, n_ranges * sizeof *ranges);
    stream_start_helper(s);
    CUresult rc = push_host(s, stream, &t);
    free(t.ranges);
    return system_unlock(rc);
}
