/* device_cuda_wait.c -- see device_cuda.h. */
#include <time.h>

#include "runtime/comm_link.h"
#include "runtime/device_cuda.h"

enum { TEXT_BYTES = 256, FIRST_NAP_US = 20, LONGEST_NAP_US = 1000 };

/* ---- errors ---- */

RtStatus device_fail(Device *d, int error, const char *what, RtError *e)
{
    char text[TEXT_BYTES];
    cuda_driver_error(&d->cu, error, text, sizeof text);
    return RT_FAIL(e, RT_FAILED, "the GPU: %s: %s", what, text);
}

RtStatus device_fail_command(Device *d, int error, uint32_t command, RtError *e)
{
    const Program *p = d->p;
    const ZmpCommand *c = &p->commands[command];
    char text[TEXT_BYTES];
    cuda_driver_error(&d->cu, error, text, sizeof text);
    const char *entry =
        c->kind == ZMP_KERNEL ? program_str(p, p->kernels[c->kernel].entry) : "no kernel";
    return RT_FAIL(e, RT_FAILED, "%s: command %u, %s (%s): %s", program_str(p, c->loc), command,
                   program_str(p, c->label), entry, text);
}

RtStatus device_fail_late(Device *d, int error, RtError *e)
{
    char text[TEXT_BYTES];
    d->is_broken = true;
    cuda_driver_error(&d->cu, error, text, sizeof text);
    const char *f = d->running ? program_str(d->p, d->running->name) : "the start";
    return RT_FAIL(e, RT_FAILED,
                   "the GPU failed in a command of %s: %s; run again with --check-numerics, which "
                   "waits for each command, to see which",
                   f, text);
}

/* ---- waiting beside other ranks ---- */

/* The collective that the GPU is at, or comes to next, in the function that runs. */
static CommCall awaited_call(const Device *d)
{
    const Program *p = d->p;
    CommCall call = {.kind = COMM_BARRIER, .tensor = "the step"};
    uint32_t seen = *d->seen, next = UINT32_MAX;
    for (uint32_t i = 0; d->running && i < d->running->n_commands; i++) {
        const ZmpCommand *c = &p->commands[d->running->first_command + i];
        if (c->kind != ZMP_START) continue;
        if (next == UINT32_MAX) next = c->kernel; /* the function's first */
        if (seen > 0 && c->kernel >= seen) {
            next = c->kernel;
            break;
        }
    }
    if (next == UINT32_MAX) return call;
    const ZmpCollective *k = &p->collectives[next];
    call.kind = (CommKind)k->kind;
    call.dtype = k->dtype;
    call.count = k->count;
    call.tensor = program_str(p, k->tensor);
    call.loc = program_str(p, k->loc);
    return call;
}

static void nap(int *us)
{
    struct timespec t = {.tv_nsec = *us * 1000L};
    nanosleep(&t, NULL);
    if (*us < LONGEST_NAP_US) *us *= 2;
}

static RtStatus watch(Device *d, double since, RtError *e)
{
    CommCall awaited = awaited_call(d);
    RtStatus s = nccl_check(d->nccl, e);
    if (s == RT_OK) s = comm_watch(d->host, &awaited, comm_now() - since, e);
    if (s == RT_OK) return s;
    d->is_broken = true;
    nccl_abort(d->nccl);
    return s;
}

RtStatus device_settle(Device *d, CuEventRef event, int *error, RtError *e)
{
    double since = comm_now();
    uint32_t seen = d->seen ? *d->seen : 0;
    int us = FIRST_NAP_US;
    if (!d->nccl) {
        *error = d->cu.event_wait(event);
        return RT_OK;
    }
    while ((*error = d->cu.event_query(event)) == CU_NOT_READY) {
        RT_TRY(watch(d, since, e));
        nap(&us);
        if (*d->seen == seen) continue;
        seen = *d->seen;
        since = comm_now();
    }
    return *error == CU_OK ? RT_OK : watch(d, since, e); /* a peer's end is the better reason */
}

RtStatus device_until(Device *d, CuEventRef event, RtError *e)
{
    int error;
    RT_TRY(device_settle(d, event, &error, e));
    return error == CU_OK ? RT_OK : device_fail_late(d, error, e);
}

RtStatus device_wait(Device *d, RtError *e)
{
    int error = d->failed ? d->failed : d->cu.event_record(d->idle, d->compute);
    return error == CU_OK ? device_until(d, d->idle, e) : device_fail_late(d, error, e);
}
