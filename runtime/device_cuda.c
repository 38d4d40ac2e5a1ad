/* device_cuda.c -- device.h on NVIDIA GPUs, through their driver; see device_cuda.h. */
#include <stdlib.h>
#include <string.h>

#include "runtime/device_cuda.h"

enum { TEXT_BYTES = 256 };

/* ---- opening ---- */

static RtStatus open_event(Device *d, CuEventRef *event, unsigned flags, RtError *e)
{
    CU_TRY(d, event_new(event, flags), "an event");
    return RT_OK;
}

static RtStatus open_pinned_events(Device *d, Pinned *p, int n, RtError *e)
{
    for (int i = 0; i < n; i++) RT_TRY(open_event(d, &p[i].used, CU_EVENT_NO_TIMING, e));
    return RT_OK;
}

static RtStatus open_context(Device *d, RtError *e)
{
    int number = d->host ? comm_place(d->host) : 0, n = 1;
    CU_TRY(d, device_count(&n), "the number of devices");
    CU_TRY(d, device_get(&d->device, number % n), "a device");
    CU_TRY(d, context_retain(&d->context, d->device), "its context");
    CU_TRY(d, context_set(d->context), "its context");
    CU_TRY(d, stream_new(&d->compute, CU_STREAM_NON_BLOCKING), "a stream");
    RT_TRY(open_event(d, &d->idle, CU_EVENT_NO_TIMING, e));
    RT_TRY(open_pinned_events(d, d->feed, DEVICE_FEEDS, e));
    RT_TRY(open_pinned_events(d, d->step, DEVICE_STEPS, e));
    return open_pinned_events(d, d->stage, DEVICE_STAGES, e);
}

static RtStatus open_numbers(Device *d, RtError *e)
{
    size_t n = d->p->n_collectives + 1;
    uint32_t *numbers = calloc(n, sizeof *numbers);
    void *seen = NULL;
    if (!numbers) return RT_FAIL(e, RT_FAILED, "cannot get memory for %zu collectives", n);
    for (uint32_t i = 0; i < n; i++) numbers[i] = i;
    int error = d->cu.memory_new(&d->numbers, n * sizeof *numbers);
    if (error == CU_OK) error = d->cu.copy_in(d->numbers, numbers, n * sizeof *numbers, d->compute);
    if (error == CU_OK) error = d->cu.stream_wait(d->compute);
    if (error == CU_OK) error = d->cu.pinned_new(&seen, sizeof *d->seen);
    free(numbers);
    if (error != CU_OK) return device_fail(d, error, "memory for numbers of collectives", e);
    d->seen = seen;
    *d->seen = 0;
    return RT_OK;
}

static RtStatus open_ranks(Device *d, RtError *e)
{
    if (!d->host) return RT_OK;
    RT_TRY(open_numbers(d, e));
    CU_TRY(d, stream_new(&d->comm, CU_STREAM_NON_BLOCKING), "a stream");
    RT_TRY(open_event(d, &d->fork, CU_EVENT_NO_TIMING, e));
    for (uint32_t i = 0; i < d->p->n_collectives; i++)
        RT_TRY(open_event(d, &d->done[i], CU_EVENT_NO_TIMING, e));
    return nccl_open(&d->nccl, d->host, e);
}

static RtStatus no_memory(Device *d, int error, size_t n_bytes, RtError *e)
{
    size_t n_free = 0, n_total = 0;
    if (error != CU_OUT_OF_MEMORY) return device_fail(d, error, "memory for the arena", e);
    d->cu.memory_info(&n_free, &n_total);
    return RT_FAIL(e, RT_FAILED,
                   "the arena takes %.1f MiB of the GPU's memory, %.1f of %.1f MiB are free; "
                   "compile with a smaller batch, or free memory on this GPU",
                   (double)n_bytes / (1 << 20), (double)n_free / (1 << 20),
                   (double)n_total / (1 << 20));
}

static RtStatus open_memory(Device *d, RtError *e)
{
    const Program *p = d->p;
    size_t n_consts = p->n_consts * sizeof *p->consts;
    if (p->h->arena_bytes > 0) {
        int error = d->cu.memory_new(&d->arena, p->h->arena_bytes);
        if (error != CU_OK) return no_memory(d, error, p->h->arena_bytes, e);
        if (p->h->persistent_bytes > 0)
            CU_TRY(d, fill(d->arena, 0, p->h->persistent_bytes, d->compute), "zeroing variables");
    }
    if (n_consts > 0) {
        CU_TRY(d, memory_new(&d->consts, n_consts), "memory for constants");
        CU_TRY(d, copy_in(d->consts, p->consts, n_consts, d->compute), "constants");
    }
    return device_wait(d, e);
}

/* The cubin where it is for this GPU, else the PTX, which the driver compiles. */
static RtStatus load_module(Device *d, uint32_t i, RtError *e)
{
    const Program *p = d->p;
    const ZmpModule *m = &p->modules[i];
    if (m->cubin.n > 0 &&
        d->cu.module_load(&d->module[i], p->device_code + m->cubin.offset) == CU_OK)
        return RT_OK;
    int error = d->cu.module_load(&d->module[i], p->device_code + m->ptx.offset), major = 0,
        minor = 0, version = 0;
    if (error == CU_OK) return RT_OK;
    char text[TEXT_BYTES], name[TEXT_BYTES] = "GPU";
    cuda_driver_error(&d->cu, error, text, sizeof text);
    d->cu.device_name(name, sizeof name, d->device);
    d->cu.device_attribute(&major, CU_CAPABILITY_MAJOR, d->device);
    d->cu.device_attribute(&minor, CU_CAPABILITY_MINOR, d->device);
    d->cu.version(&version);
    const char *target = program_str(p, p->h->target);
    int made_for = atoi(target + strlen("cuda:sm_")), here = 10 * major + minor;
    bool has_bf16 = here >= 80 || strcmp(program_str(p, p->h->precision), "bf16") != 0;
    return RT_FAIL(e, RT_BAD,
                   "the driver (CUDA %d.%d) does not load the kernels, made for %s, on this %s "
                   "(sm_%d): %s; compile the model with --target cuda:sm_%d%s%s",
                   version / 1000, version % 1000 / 10, target, name, here, text, here,
                   has_bf16 ? "" : " --precision fp16 --loss-scale dynamic",
                   here < made_for ? "" : ", or install a newer driver");
}

static RtStatus open_kernels(Device *d, RtError *e)
{
    const Program *p = d->p;
    for (uint32_t i = 0; i < p->n_modules; i++) RT_TRY(load_module(d, i, e));
    for (uint32_t i = 0; i < p->n_kernels; i++) {
        const ZmpKernel *k = &p->kernels[i];
        const char *entry = program_str(p, k->entry);
        CU_TRY(d, module_function(&d->function[i], d->module[k->module], entry), entry);
        if (k->shared_bytes > 0) /* with what the kernel declares it may pass the default limit */
            CU_TRY(d,
                   function_set(d->function[i], CU_FUNCTION_DYNAMIC_SHARED, (int)k->shared_bytes),
                   entry);
    }
    return RT_OK;
}

static RtStatus open_all(Device *d, RtError *e)
{
    RT_TRY(cuda_driver_open(&d->cu, "compile the model with --target cpu", e));
    RT_TRY(open_context(d, e));
    RT_TRY(open_memory(d, e));
    RT_TRY(device_open_feeds(d, e));
    RT_TRY(device_open_scalars(d, e));
    RT_TRY(open_kernels(d, e));
    return device_wait(d, e);
}

RtStatus device_open(Device **out, const Program *p, const Memory *mirror, Comm *host, RtError *e)
{
    Device *d = calloc(1, sizeof *d);
    const char *graphs = getenv("ZMC_GRAPHS");
    if (d) {
        d->p = p;
        d->mirror = mirror;
        d->host = host;
        d->rank = host ? comm_rank(host) : 0;
        d->has_graphs = !graphs || strcmp(graphs, "0") != 0;
        d->module = calloc((size_t)p->n_modules + 1, sizeof(CuModuleRef));
        d->function = calloc((size_t)p->n_kernels + 1, sizeof(CuFunctionRef));
        d->done = calloc((size_t)p->n_collectives + 1, sizeof(CuEventRef));
        d->graph = calloc((size_t)p->n_funcs + 1, sizeof(CuGraphExecRef));
        d->marks = calloc((size_t)p->n_commands + 1, sizeof(CuEventRef));
        d->n_runs = calloc((size_t)p->n_funcs + 1, sizeof *d->n_runs);
    }
    *out = d;
    if (!d || !d->module || !d->function || !d->done || !d->graph || !d->marks || !d->n_runs)
        return RT_FAIL(e, RT_FAILED, "cannot get memory for %u kernels", p->n_kernels);
    return open_all(d, e);
}

RtStatus device_join(Device *d, RtError *e)
{
    return open_ranks(d, e);
}

/* ---- closing ---- */

void device_leave(Device *d, bool is_well)
{
    if (!d->nccl) return;
    RtError unused = {0};
    is_well = is_well && !d->is_broken && device_wait(d, &unused) == RT_OK;
    device_free_graphs(d);
    if (!is_well) nccl_abort(d->nccl);
    nccl_close(d->nccl);
    d->nccl = NULL;
    str_free(&unused.text);
}

static void close_pinned(Device *d, Pinned *p, int n)
{
    for (int i = 0; i < n; i++) {
        if (p[i].at) d->cu.pinned_free(p[i].at);
        if (p[i].used) d->cu.event_free(p[i].used);
    }
}

static void close_driver(Device *d)
{
    CuEventRef events[] = {d->idle, d->fork};
    device_free_graphs(d);
    for (uint32_t i = 0; i < d->p->n_modules; i++)
        if (d->module[i]) d->cu.module_unload(d->module[i]);
    for (uint32_t i = 0; i < d->p->n_collectives; i++)
        if (d->done[i]) d->cu.event_free(d->done[i]);
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (events[i]) d->cu.event_free(events[i]);
    for (uint32_t i = 0; i < d->n_marks; i++) d->cu.event_free(d->marks[i]);
    close_pinned(d, d->feed, DEVICE_FEEDS);
    close_pinned(d, d->step, DEVICE_STEPS);
    close_pinned(d, d->stage, DEVICE_STAGES);
    if (d->seen) d->cu.pinned_free((void *)d->seen);
    if (d->numbers) d->cu.memory_free(d->numbers);
    if (d->arena) d->cu.memory_free(d->arena);
    if (d->consts) d->cu.memory_free(d->consts);
    if (d->compute) d->cu.stream_free(d->compute);
    if (d->comm) d->cu.stream_free(d->comm);
    d->cu.context_release(d->device);
}

void device_close(Device *d)
{
    if (!d) return;
    device_leave(d, false);
    if (d->context && !d->is_broken) close_driver(d); /* else the process's end does it */
    free(d->module);
    free(d->function);
    free(d->done);
    free(d->graph);
    free(d->marks);
    free(d->n_runs);
    free(d->span);
    str_free(&d->why.text);
    free(d);
}
