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

typedef struct Watch {
    uint32_t seen; /* Device.seen as it is since then */
    double since;
} Watch;

/* The START of a collective of the program. */
static const ZmpCommand *start_of(const Program *p, uint32_t collective)
{
    for (uint32_t i = 0; i < p->n_commands; i++)
        if (p->commands[i].kind == ZMP_START && p->commands[i].kernel == collective)
            return &p->commands[i];
    return NULL;
}

/* Every process lives and looks after its GPU; which of these does not go on is not known. */
static RtStatus fail_limit(const Device *d, const CommCall *call, double idle_s, RtError *e)
{
    return RT_FAIL(e, RT_FAILED,
                   "rank %d has waited %.1f s for its GPU in %s of '%s' (%s), and the processes of "
                   "all ranks go on: the GPU of one of %d ranks hangs, or a link between them; see "
                   "nvidia-smi on each machine, NCCL_DEBUG=INFO in the environment makes NCCL say "
                   "more",
                   d->rank, idle_s, comm_kind_name(call->kind), call->tensor, call->loc,
                   comm_size(d->host));
}

static RtStatus look_in(Device *d, const CommCall *call, double idle_s, RtError *e)
{
    bool is_early = d->limit_s > COMM_LIMIT_S && idle_s < d->limit_s;
    RT_TRY(comm_watch(d->host, call, is_early ? 0 : idle_s, e));
    return idle_s > d->limit_s ? fail_limit(d, call, idle_s, e) : RT_OK;
}

static RtStatus look(Device *d, Watch *w, RtError *e)
{
    uint32_t seen = *d->seen;
    if (seen != w->seen) *w = (Watch){seen, comm_now()};
    const ZmpCommand *start = seen > 0 ? start_of(d->p, seen - 1) : NULL; /* else it computes */
    if (!start) return nccl_check(d->nccl, NULL, 0, e);
    CommCall call = device_call(d, start);
    RT_TRY(look_in(d, &call, comm_now() - w->since, e));
    return nccl_check(d->nccl, &call, 0, e);
}

static RtStatus watch(Device *d, Watch *w, RtError *e)
{
    RtStatus s = look(d, w, e);
    if (s == RT_OK) return s;
    d->is_broken = true;
    d->lost = s; /* what was in flight ends now, as if it had been done */
    rt_say(&d->why, "%s", str_c(&e->text));
    device_free_graphs(d); /* NCCL's abort waits for the end of those that it is captured in */
    nccl_abort(d->nccl);
    return s;
}

static void nap(int *us)
{
    struct timespec t = {.tv_nsec = *us * 1000L};
    nanosleep(&t, NULL);
    if (*us < LONGEST_NAP_US) *us *= 2;
}

RtStatus device_settle(Device *d, CuEventRef event, int *error, RtError *e)
{
    int us = FIRST_NAP_US;
    if (d->lost != RT_OK) return RT_FAIL(e, d->lost, "%s", str_c(&d->why.text));
    if (!d->nccl) {
        *error = d->cu.event_wait(event);
        return RT_OK;
    }
    Watch w = {*d->seen, comm_now()};
    while ((*error = d->cu.event_query(event)) == CU_NOT_READY) {
        RT_TRY(watch(d, &w, e));
        nap(&us);
    }
    return *error == CU_OK ? RT_OK : watch(d, &w, e); /* a peer's end is the better reason */
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
