/* task.c -- tasks run: launches, copies, memsets, event records, host functions. */
#include "tests/gpusim/stream.h"

#include <string.h>
#include <time.h>

#include "tests/gpusim/report.h"

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* n bytes at a device or pinned address are accessed; NULL: pageable host memory. */
static Allocation *touch(System *s, const Task *t, uint64_t address, size_t n, bool is_write)
{
    Allocation *a = memory_find(&s->memory, address);
    if (!a || n == 0) return NULL;
    uint64_t offset = address - a->address;
    const OpRecord *other = order_touch(&s->memory, a, offset, n, is_write, &t->op);
    if (other)
        report_plain(REPORT_STREAM_RACE,
                     "%s on stream %u %s byte %llu of an allocation of %llu bytes: nothing orders "
                     "this after %s on stream %u",
                     t->op.name, t->op.stream, is_write ? "writes" : "reads",
                     (unsigned long long)offset, (unsigned long long)a->bytes, other->name,
                     other->stream);
    if (is_write)
        span_copy_write(a, offset, n);
    else if (!span_copy_read(a, offset, n))
        report_plain(REPORT_UNINITIALISED,
                     "%s reads bytes %llu and on of an allocation of %llu bytes", t->op.name,
                     (unsigned long long)offset, (unsigned long long)a->bytes);
    return a;
}

static uint8_t *host_of(const Allocation *a, uint64_t address)
{
    return a ? a->host + (address - a->address) : (uint8_t *)(uintptr_t)address;
}

static void run_copy(System *s, const Task *t)
{
    const uint8_t *from = t->staged;
    if (!from) from = host_of(touch(s, t, t->from, t->bytes, false), t->from);
    uint8_t *to = host_of(touch(s, t, t->to, t->bytes, true), t->to);
    memmove(to, from, t->bytes);
}

static void run_set(System *s, const Task *t)
{
    Allocation *a = touch(s, t, t->to, t->bytes, true);
    uint8_t *to = host_of(a, t->to);
    for (size_t i = 0; i < t->bytes; i += t->value_bytes) memcpy(to + i, &t->value, t->value_bytes);
}

static void run_launch(System *s, const Task *t)
{
    Arena scratch = {0};
    if (s->next_stamp > STAMP_LIMIT) {
        memory_renumber(&s->memory);
        s->next_stamp = STAMP_FIRST;
    }
    Launch l = {.code = &t->function->code,
                .memory = &s->memory,
                .dynamic_bytes = t->shared_bytes,
                .params = t->params,
                .op = &t->op,
                .first = s->next_stamp,
                .next = s->next_stamp + 2,
                .seed = s->random >> 40,
                .scratch = &scratch};
    memcpy(l.grid, t->grid, sizeof l.grid);
    memcpy(l.block, t->block, sizeof l.block);
    int rc = launch_run(&l);
    s->next_stamp = l.next;
    if (rc != CUDA_SUCCESS && s->sticky == CUDA_SUCCESS) s->sticky = rc;
    arena_free(&scratch);
}

static bool run_poll(System *s, Task *t)
{
    for (size_t i = 0; i < t->n_ranges && !t->is_begun; i++)
        if (!t->ranges[i].is_written)
            (void)touch(s, t, t->ranges[i].address, t->ranges[i].bytes, false);
    for (size_t i = 0; i < t->n_ranges && !t->is_begun; i++)
        if (t->ranges[i].is_written)
            (void)touch(s, t, t->ranges[i].address, t->ranges[i].bytes, true);
    t->is_begun = true;
    return t->poll(t->arg) == GPUSIM_DONE;
}

bool task_run(System *s, Task *t)
{
    if (s->sticky != CUDA_SUCCESS) return true; /* the device does nothing any more */
    switch (t->kind) {
    case TASK_LAUNCH: run_launch(s, t); break;
    case TASK_COPY: run_copy(s, t); break;
    case TASK_SET: run_set(s, t); break;
    case TASK_RECORD: t->event->time_ms = now_ms(); break;
    case TASK_HOST: t->fn(t->arg); break;
    case TASK_POLL: return run_poll(s, t);
    }
    return true;
}
