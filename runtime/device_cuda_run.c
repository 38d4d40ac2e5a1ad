/* device_cuda_run.c -- see device_cuda.h. */
#include <string.h>

#include "runtime/device_cuda.h"

enum {
    FEED_ALIGN = 64,
    MAX_ARGS = 512,
    COPY_BYTES = 256 << 20, /* beyond every cache */
    LEAST_COPY_BYTES = 1 << 20,
    COPIES = 4
};

/* ---- commands ---- */

static CuAddress arg_address(const Device *d, const ZmpArg *a)
{
    if (a->buffer < 0) return d->consts + (uint64_t)a->offset;
    return d->arena +
           (uint64_t)(d->p->buffers[a->buffer].arena_offset + a->offset + d->rank * a->rank_stride);
}

static int run_kernel(Device *d, const ZmpCommand *c)
{
    const ZmpKernel *k = &d->p->kernels[c->kernel];
    CuAddress at[MAX_ARGS];
    void *params[MAX_ARGS];
    ZM_CHECK(c->n_args <= MAX_ARGS);
    for (uint32_t i = 0; i < c->n_args; i++) {
        at[i] = arg_address(d, &d->p->args[c->first_arg + i]);
        params[i] = &at[i];
    }
    return d->cu.launch(d->function[c->kernel], k->grid_x, 1, 1, k->block_x, k->block_y, 1,
                        k->shared_bytes, d->compute, params, NULL);
}

CommCall device_call(const Device *d, const ZmpCommand *c)
{
    const Program *p = d->p;
    const ZmpCollective *k = &p->collectives[c->kernel];
    CommCall call = {.kind = (CommKind)k->kind, .dtype = k->dtype, .count = k->count};
    call.out = (void *)(uintptr_t)arg_address(d, &p->args[c->first_arg]);
    call.in = (const void *)(uintptr_t)arg_address(d, &p->args[c->first_arg + 1]);
    call.tensor = program_str(p, k->tensor);
    call.loc = program_str(p, k->loc);
    return call;
}

/* The host sees the number when the collectives' stream has come here. */
static int show(Device *d, uint32_t number)
{
    CuAddress from = d->numbers + number * sizeof number;
    return d->cu.copy_out((void *)d->seen, from, sizeof number, d->comm);
}

/* Behind all that was computed so far, beside what is computed next. */
static RtStatus start(Device *d, const ZmpCommand *c, RtError *e)
{
    if (!d->nccl)
        return RT_FAIL(e, RT_FAILED, "%s: no communication was opened for it",
                       program_str(d->p, c->label));
    CommCall call = device_call(d, c);
    CU_TRY(d, event_record(d->fork, d->compute), "the start of a collective");
    CU_TRY(d, stream_after(d->comm, d->fork, 0), "the start of a collective");
    int error = show(d, c->kernel + 1);
    if (error == CU_OK) RT_TRY(nccl_enqueue(d->nccl, &call, d->comm, e));
    if (error == CU_OK) error = show(d, 0);
    if (error != CU_OK) return device_fail(d, error, "the number of a collective", e);
    CU_TRY(d, event_record(d->done[c->kernel], d->comm), "the end of a collective");
    return RT_OK;
}

static RtStatus enqueue(Device *d, uint32_t command, RtError *e)
{
    const ZmpCommand *c = &d->p->commands[command];
    const ZmpArg *a = &d->p->args[c->first_arg];
    int error = CU_OK;
    switch ((enum ZmpCommandKind)c->kind) {
    case ZMP_KERNEL: error = run_kernel(d, c); break;
    case ZMP_COPY:
        error =
            d->cu.copy(arg_address(d, &a[0]), arg_address(d, &a[1]), (size_t)a->bytes, d->compute);
        break;
    case ZMP_ZERO: error = d->cu.fill(arg_address(d, a), 0, (size_t)a->bytes, d->compute); break;
    case ZMP_PROBE: break; /* for observers */
    case ZMP_START: return start(d, c, e);
    case ZMP_WAIT: error = d->cu.stream_after(d->compute, d->done[c->kernel], 0); break;
    }
    return error == CU_OK ? RT_OK : device_fail_command(d, error, command, e);
}

/* Bytes are counted where a collective is enqueued: for a graph, where it is launched. */
static void count_sent(Device *d, uint32_t command)
{
    const ZmpCommand *c = &d->p->commands[command];
    if (c->kind != ZMP_START || !d->nccl) return;
    CommCall call = device_call(d, c);
    d->sent += nccl_bytes(d->nccl, &call);
}

RtStatus device_run(Device *d, uint32_t command, RtError *e)
{
    count_sent(d, command);
    RT_TRY(enqueue(d, command, e));
    int error = d->cu.event_record(d->idle, d->compute);
    if (error == CU_OK) RT_TRY(device_settle(d, d->idle, &error, e));
    if (error == CU_OK) return RT_OK;
    d->is_broken = true;
    return device_fail_command(d, error, command, e);
}

/* marks[i]: before command i; the last one behind all. */
static RtStatus mark(Device *d, uint32_t i, RtError *e)
{
    for (; d->n_marks <= i; d->n_marks++)
        CU_TRY(d, event_new(&d->marks[d->n_marks], CU_EVENT_TIMING), "an event");
    CU_TRY(d, event_record(d->marks[i], d->compute), "timing");
    return RT_OK;
}

RtStatus device_run_timed(Device *d, const ZmpFunc *f, double *ended_s, RtError *e)
{
    RT_TRY(mark(d, 0, e));
    for (uint32_t i = 0; i < f->n_commands; i++) {
        count_sent(d, f->first_command + i);
        RT_TRY(enqueue(d, f->first_command + i, e));
        RT_TRY(mark(d, i + 1, e));
    }
    RT_TRY(device_wait(d, e));
    for (uint32_t i = 0; i < f->n_commands; i++) {
        float ms = 0;
        CU_TRY(d, event_elapsed(&ms, d->marks[0], d->marks[i + 1]), "timing");
        ended_s[i] = 1e-3 * (double)ms;
    }
    return RT_OK;
}

/* The first copy is not timed: it touches the memory. */
static RtStatus time_copies(Device *d, CuAddress at, size_t n_bytes, double *bytes_s, RtError *e)
{
    float ms = 0;
    CU_TRY(d, fill(at, 0, n_bytes, d->compute), "measuring");
    CU_TRY(d, copy(at + n_bytes, at, n_bytes, d->compute), "measuring");
    RT_TRY(mark(d, 0, e));
    for (int i = 0; i < COPIES; i++)
        CU_TRY(d, copy(at + n_bytes, at, n_bytes, d->compute), "measuring");
    RT_TRY(mark(d, 1, e));
    RT_TRY(device_wait(d, e));
    CU_TRY(d, event_elapsed(&ms, d->marks[0], d->marks[1]), "measuring");
    *bytes_s = ms > 0 ? 2.0 * COPIES * (double)n_bytes / (1e-3 * (double)ms) : 0;
    return RT_OK;
}

RtStatus device_copy_rate(Device *d, double *bytes_s, RtError *e)
{
    size_t n_free = 0, n_total = 0, n = COPY_BYTES;
    CuAddress at;
    *bytes_s = 0;
    CU_TRY(d, memory_info(&n_free, &n_total), "its memory");
    if (n > n_free / 64) n = n_free / 64 / FEED_ALIGN * FEED_ALIGN;
    if (n < LEAST_COPY_BYTES || d->p->n_commands < 1) return RT_OK;
    CU_TRY(d, memory_new(&at, 2 * n), "memory to measure its speed");
    RtStatus s = time_copies(d, at, n, bytes_s, e);
    d->cu.memory_free(at);
    return s;
}

int64_t device_sent(const Device *d)
{
    return d->sent;
}

/* ---- functions ---- */

static RtStatus enqueue_all(Device *d, const ZmpFunc *f, RtError *e)
{
    for (uint32_t i = 0; i < f->n_commands; i++) RT_TRY(enqueue(d, f->first_command + i, e));
    return RT_OK;
}

static RtStatus record(Device *d, const ZmpFunc *f, CuGraphExecRef *ready, RtError *e)
{
    CuGraphRef graph = NULL;
    CU_TRY(d, capture_begin(d->compute, CU_CAPTURE_THREAD_LOCAL), "recording a function");
    RtStatus s = enqueue_all(d, f, e);
    int error = d->cu.capture_end(d->compute, &graph);
    if (error == CU_OK && s == RT_OK) error = d->cu.graph_ready(ready, graph, 0);
    if (graph) d->cu.graph_free(graph);
    RT_TRY(s);
    if (error == CU_OK) return RT_OK;
    return device_fail(d, error, "recording a function as a graph (ZMC_GRAPHS=0 does without)", e);
}

void device_free_graphs(Device *d)
{
    for (uint32_t i = 0; i < d->p->n_funcs; i++) {
        if (d->graph[i]) d->cu.graph_exec_free(d->graph[i]);
        d->graph[i] = NULL;
    }
}

/* The first time each command on its own: what the driver and NCCL make ready on first use cannot
 * be recorded. */
RtStatus device_run_all(Device *d, const ZmpFunc *f, RtError *e)
{
    uint32_t at = (uint32_t)(f - d->p->funcs);
    for (uint32_t i = 0; i < f->n_commands; i++) count_sent(d, f->first_command + i);
    if (!d->has_graphs || d->n_runs[at]++ == 0) return enqueue_all(d, f, e);
    if (!d->graph[at]) RT_TRY(record(d, f, &d->graph[at], e));
    CU_TRY(d, graph_launch(d->graph[at], d->compute), "a function's graph");
    return RT_OK;
}

/* ---- inputs ---- */

static size_t port_bytes(const ZmpPort *q)
{
    return (size_t)(port_elems(q) * zmp_dtype_bytes(q->dtype));
}

static size_t feed_slot(const ZmpPort *q)
{
    return (port_bytes(q) + FEED_ALIGN - 1) / FEED_ALIGN * FEED_ALIGN;
}

RtStatus device_open_feeds(Device *d, RtError *e)
{
    const Program *p = d->p;
    for (uint32_t i = 0; i < p->n_funcs; i++) {
        size_t n = 0;
        for (uint32_t k = 0; k < p->funcs[i].n_in; k++)
            n += feed_slot(&p->ports[p->funcs[i].first_in + k]);
        if (n > d->feed_bytes) d->feed_bytes = n;
    }
    for (int i = 0; i < DEVICE_FEEDS && d->feed_bytes > 0; i++) {
        void *at = NULL;
        CU_TRY(d, pinned_new(&at, d->feed_bytes), "pinned memory for inputs");
        d->feed[i].at = at;
    }
    return RT_OK;
}

RtStatus device_feed(Device *d, const ZmpFunc *f, double limit_s, RtError *e)
{
    Pinned *b = &d->feed[d->n_fed++ % DEVICE_FEEDS];
    size_t at = 0;
    d->limit_s = limit_s > COMM_LIMIT_S ? limit_s : COMM_LIMIT_S;
    RT_TRY(d->failed ? device_wait(d, e) : RT_OK);
    RT_TRY(device_until(d, b->used, e));
    d->running = f;
    d->has_scalars = false;
    for (uint32_t i = 0; i < f->n_in; i++) {
        const ZmpPort *q = &d->p->ports[f->first_in + i];
        uint64_t to = (uint64_t)(d->p->buffers[q->buffer].arena_offset + q->offset);
        memcpy(b->at + at, d->mirror->at + to, port_bytes(q));
        CU_TRY(d, copy_in(d->arena + to, b->at + at, port_bytes(q), d->compute), "inputs");
        at += feed_slot(q);
    }
    CU_TRY(d, event_record(b->used, d->compute), "inputs");
    return RT_OK;
}
