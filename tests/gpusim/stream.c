/* stream.c -- streams, their clocks, and who runs next: see stream.h. */
#include "tests/gpusim/stream.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void clock_join(uint32_t *into, const uint32_t *from)
{
    for (int i = 0; i < MAX_STREAMS; i++)
        if (from[i] > into[i]) into[i] = from[i];
}

bool clock_is_done(const System *s, const uint32_t *clock)
{
    for (int i = 0; i < MAX_STREAMS; i++)
        if (s->streams[i].n_done < clock[i]) return false;
    return true;
}

void task_free(Task *t)
{
    free(t->params);
    free(t->staged);
    free(t->ranges);
    free(t);
}

Stream *stream_of(System *s, CUstream handle)
{
    uintptr_t value = (uintptr_t)handle;
    if (value <= 1) return &s->streams[LEGACY];
    if (value == 2) return &s->streams[PER_THREAD];
    for (int i = PER_THREAD + 1; i < MAX_STREAMS; i++)
        if (handle == &s->streams[i]) return s->streams[i].is_used ? handle : NULL;
    return NULL;
}

Stream *stream_new(System *s, bool is_blocking)
{
    for (uint32_t i = 0; i < MAX_STREAMS; i++) {
        Stream *q = &s->streams[i];
        if (q->is_used || q->first) continue; /* a graph's, which still runs */
        q->slot = i; /* numbers go on: what earlier users of the slot did stays done */
        q->is_used = true;
        q->is_blocking = is_blocking;
        return q;
    }
    return NULL;
}

/* ---- enqueueing ---- */

/* What the legacy stream and blocking streams owe each other. */
static void join_legacy(System *s, Stream *q)
{
    if (q->slot != LEGACY && q->is_blocking) clock_join(q->clock, s->streams[LEGACY].clock);
    for (int i = 0; q->slot == LEGACY && i < MAX_STREAMS; i++)
        if (s->streams[i].is_used && s->streams[i].is_blocking)
            clock_join(q->clock, s->streams[i].clock);
}

CUresult stream_push(System *s, Stream *q, const Task *draft)
{
    if (q->capture) return graph_add_task(q->capture, q, draft);
    Task *t = task_copy(draft);
    if (!t) return CUDA_ERROR_OUT_OF_MEMORY;
    clock_join(q->clock, s->host_clock);
    join_legacy(s, q);
    q->clock[q->slot]++;
    t->op.stream = q->slot;
    memcpy(t->op.clock, q->clock, sizeof q->clock);
    t->op.name = arena_strdup(&s->memory.arena, draft->op.name);
    memory_add_op(&s->memory, &t->op);
    if (t->event) {
        memcpy(t->event->clock, q->clock, sizeof q->clock);
        t->event->is_recorded = true;
    }
    t->next = NULL;
    if (q->last)
        q->last->next = t;
    else
        q->first = t;
    q->last = t;
    return CUDA_SUCCESS;
}

/* ---- running ---- */

static uint64_t draw(System *s)
{
    s->random = s->random * 6364136223846793005u + 1442695040888963407u;
    return s->random >> 33;
}

static bool is_ready(const System *s, const Task *t)
{
    for (uint32_t i = 0; i < MAX_STREAMS; i++)
        if (i != t->op.stream && s->streams[i].n_done < t->op.clock[i]) return false;
    return true;
}

static void pop_task(Stream *q)
{
    Task *t = q->first;
    q->first = t->next;
    if (!q->first) q->last = NULL;
    q->n_done++;
    task_free(t);
}

Step stream_step(System *s)
{
    Stream *ready[MAX_STREAMS];
    uint32_t n = 0;
    Step step = STEP_NONE;
    for (int i = 0; i < MAX_STREAMS; i++) {
        Stream *q = &s->streams[i];
        if (q->first && is_ready(s, q->first)) ready[n++] = q;
    }
    while (n > 0) {
        uint32_t i = (uint32_t)(draw(s) % n);
        if (task_run(s, ready[i]->first)) {
            pop_task(ready[i]);
            return STEP_RAN;
        }
        step = STEP_WAITS;
        ready[i] = ready[--n];
    }
    return step;
}

bool stream_step_waiting(System *s)
{
    Step step = stream_step(s);
    if (step == STEP_WAITS) system_nap();
    return step != STEP_NONE;
}

void stream_finish(System *s, const uint32_t *clock)
{
    uint32_t until[MAX_STREAMS]; /* others may enqueue during a nap */
    memcpy(until, clock, sizeof until);
    while (!clock_is_done(s, until) && stream_step_waiting(s)) {
    }
    clock_join(s->host_clock, until);
}

static bool is_of(const Stream *q, const Device *d)
{
    return !d || q->slot <= PER_THREAD || q->device == d->ordinal;
}

static bool is_busy(const System *s, const Device *d)
{
    for (int i = 0; i < MAX_STREAMS; i++)
        if (s->streams[i].first && is_of(&s->streams[i], d)) return true;
    return false;
}

void stream_finish_device(System *s, const Device *d)
{
    while (is_busy(s, d) && stream_step_waiting(s)) {
    }
    for (int i = 0; i < MAX_STREAMS; i++)
        if (is_of(&s->streams[i], d)) clock_join(s->host_clock, s->streams[i].clock);
}

/* ---- the helper ---- */

static void *help(void *arg)
{
    struct timespec nap = {0, 5000000};
    uint64_t n_seen = 0;
    (void)arg;
    for (;;) {
        nanosleep(&nap, NULL);
        System *s = system_lock();
        bool is_idle = s->n_calls == n_seen + 1; /* this one */
        n_seen = s->n_calls;
        while (is_idle && stream_step(s) == STEP_RAN) {
        }
        (void)system_unlock(CUDA_SUCCESS);
    }
    return NULL;
}

void stream_start_helper(System *s)
{
    pthread_t thread;
    if (s->has_helper || pthread_create(&thread, NULL, help, NULL) != 0) return;
    s->has_helper = true;
    pthread_detach(thread);
}
