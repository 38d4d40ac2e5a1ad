/* device_cuda.c -- device.h on an NVIDIA GPU, through its driver. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/cuda_driver.h"
#include "runtime/device.h"

enum { N_FEEDS = 2, FEED_ALIGN = 64, MAX_ARGS = 512, TEXT_BYTES = 256 };

/* Pinned memory with the inputs of one run of a function; free again once `used` has passed. */
typedef struct FeedBuffer {
    char *at;
    CuEventRef used;
} FeedBuffer;

struct Device {
    const Program *p;
    const Memory *mirror;
    CuDriver cu;
    int device;
    CuContextRef context;
    CuStreamRef stream;
    CuAddress arena, consts;
    CuModuleRef *module;     /* of the program's modules */
    CuFunctionRef *function; /* of its kernels */
    FeedBuffer feed[N_FEEDS];
    size_t feed_bytes;
    uint32_t n_fed;
    const ZmpFunc *running; /* what was enqueued last */
    bool has_scalars;       /* in the mirror, as they are on the GPU */
    int failed;             /* of a fetch or a put; 0: none */
};

/* ---- errors ---- */

static RtStatus fail(Device *d, int error, const char *what, RtError *e)
{
    char text[TEXT_BYTES];
    cuda_driver_error(&d->cu, error, text, sizeof text);
    return RT_FAIL(e, RT_FAILED, "the GPU: %s: %s", what, text);
}

static RtStatus fail_command(Device *d, int error, uint32_t command, RtError *e)
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

/* Of work that was enqueued before: which command it was is not known. */
static RtStatus fail_late(Device *d, int error, RtError *e)
{
    char text[TEXT_BYTES];
    cuda_driver_error(&d->cu, error, text, sizeof text);
    const char *f = d->running ? program_str(d->p, d->running->name) : "the start";
    return RT_FAIL(e, RT_FAILED,
                   "the GPU failed in a command of %s: %s; run again with --check-numerics, which "
                   "waits for each command, to see which",
                   f, text);
}

#define CU_TRY(D, CALL, WHAT)                                                                      \
    do {                                                                                           \
        int error_ = (D)->cu.CALL;                                                                 \
        if (error_ != CU_OK) return fail((D), error_, (WHAT), e);                                  \
    } while (0)

/* ---- opening ---- */

static RtStatus open_context(Device *d, RtError *e)
{
    CU_TRY(d, device_get(&d->device, 0), "the first device");
    CU_TRY(d, context_retain(&d->context, d->device), "its context");
    CU_TRY(d, context_set(d->context), "its context");
    CU_TRY(d, stream_new(&d->stream, CU_STREAM_NON_BLOCKING), "a stream");
    for (int i = 0; i < N_FEEDS; i++)
        CU_TRY(d, event_new(&d->feed[i].used, CU_EVENT_NO_TIMING), "an event");
    return RT_OK;
}

static RtStatus no_memory(Device *d, int error, size_t n_bytes, RtError *e)
{
    size_t n_free = 0, n_total = 0;
    if (error != CU_OUT_OF_MEMORY) return fail(d, error, "memory for the arena", e);
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
            CU_TRY(d, fill(d->arena, 0, p->h->persistent_bytes, d->stream), "zeroing variables");
    }
    if (n_consts > 0) {
        CU_TRY(d, memory_new(&d->consts, n_consts), "memory for constants");
        CU_TRY(d, copy_in(d->consts, p->consts, n_consts, d->stream), "constants");
    }
    return device_wait(d, e);
}

static size_t port_bytes(const ZmpPort *q)
{
    return (size_t)(port_elems(q) * zmp_dtype_bytes(q->dtype));
}

static size_t feed_slot(const ZmpPort *q)
{
    return (port_bytes(q) + FEED_ALIGN - 1) / FEED_ALIGN * FEED_ALIGN;
}

static RtStatus open_feeds(Device *d, RtError *e)
{
    const Program *p = d->p;
    for (uint32_t i = 0; i < p->n_funcs; i++) {
        size_t n = 0;
        for (uint32_t k = 0; k < p->funcs[i].n_in; k++)
            n += feed_slot(&p->ports[p->funcs[i].first_in + k]);
        if (n > d->feed_bytes) d->feed_bytes = n;
    }
    for (int i = 0; i < N_FEEDS && d->feed_bytes > 0; i++) {
        void *at = NULL;
        CU_TRY(d, pinned_new(&at, d->feed_bytes), "pinned memory for inputs");
        d->feed[i].at = at;
    }
    return RT_OK;
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
    return RT_FAIL(e, RT_BAD,
                   "the driver (CUDA %d.%d) does not load %s, made for %s, on this %s (sm_%d%d): "
                   "%s; compile the model with --target cuda:sm_%d%d, or install a newer driver",
                   version / 1000, version % 1000 / 10, program_str(p, m->name),
                   program_str(p, p->h->target), name, major, minor, text, major, minor);
}

static RtStatus open_kernels(Device *d, RtError *e)
{
    const Program *p = d->p;
    for (uint32_t i = 0; i < p->n_modules; i++) RT_TRY(load_module(d, i, e));
    for (uint32_t i = 0; i < p->n_kernels; i++) {
        const ZmpKernel *k = &p->kernels[i];
        CU_TRY(d, module_function(&d->function[i], d->module[k->module], program_str(p, k->entry)),
               program_str(p, k->entry));
    }
    return RT_OK;
}

static RtStatus open_all(Device *d, RtError *e)
{
    RT_TRY(cuda_driver_open(&d->cu, e));
    RT_TRY(open_context(d, e));
    RT_TRY(open_memory(d, e));
    RT_TRY(open_feeds(d, e));
    return open_kernels(d, e);
}

RtStatus device_open(Device **out, const Program *p, const Memory *mirror, RtError *e)
{
    Device *d = calloc(1, sizeof *d);
    if (d) {
        d->p = p;
        d->mirror = mirror;
        d->module = calloc((size_t)p->n_modules + 1, sizeof(CuModuleRef));
        d->function = calloc((size_t)p->n_kernels + 1, sizeof(CuFunctionRef));
    }
    *out = d;
    if (!d || !d->module || !d->function)
        return RT_FAIL(e, RT_FAILED, "cannot get memory for %u kernels", p->n_kernels);
    return open_all(d, e);
}

void device_close(Device *d)
{
    if (!d) return;
    if (d->context) {
        for (uint32_t i = 0; i < d->p->n_modules; i++)
            if (d->module[i]) d->cu.module_unload(d->module[i]);
        for (int i = 0; i < N_FEEDS; i++) {
            if (d->feed[i].at) d->cu.pinned_free(d->feed[i].at);
            if (d->feed[i].used) d->cu.event_free(d->feed[i].used);
        }
        if (d->arena) d->cu.memory_free(d->arena);
        if (d->consts) d->cu.memory_free(d->consts);
        if (d->stream) d->cu.stream_free(d->stream);
        d->cu.context_release(d->device);
    }
    free(d->module);
    free(d->function);
    free(d);
}

/* ---- commands ---- */

static CuAddress arg_address(const Device *d, const ZmpArg *a)
{
    if (a->buffer < 0) return d->consts + (uint64_t)a->offset;
    return d->arena + (uint64_t)(d->p->buffers[a->buffer].arena_offset + a->offset);
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
                        k->shared_bytes, d->stream, params, NULL);
}

RtStatus device_run(Device *d, uint32_t command, bool waits, RtError *e)
{
    const ZmpCommand *c = &d->p->commands[command];
    const ZmpArg *a = &d->p->args[c->first_arg];
    int error = CU_OK;
    switch ((enum ZmpCommandKind)c->kind) {
    case ZMP_KERNEL: error = run_kernel(d, c); break;
    case ZMP_COPY:
        error =
            d->cu.copy(arg_address(d, &a[0]), arg_address(d, &a[1]), (size_t)a->bytes, d->stream);
        break;
    case ZMP_ZERO: error = d->cu.fill(arg_address(d, a), 0, (size_t)a->bytes, d->stream); break;
    case ZMP_PROBE:
    case ZMP_START:
    case ZMP_WAIT: break; /* exec's own */
    }
    if (error == CU_OK && waits) error = d->cu.stream_wait(d->stream);
    return error == CU_OK ? RT_OK : fail_command(d, error, command, e);
}

RtStatus device_feed(Device *d, const ZmpFunc *f, RtError *e)
{
    FeedBuffer *b = &d->feed[d->n_fed++ % N_FEEDS];
    size_t at = 0;
    d->running = f;
    d->has_scalars = false;
    RT_TRY(d->failed ? device_wait(d, e) : RT_OK);
    int error = d->n_fed > N_FEEDS ? d->cu.event_wait(b->used) : CU_OK;
    if (error != CU_OK) return fail_late(d, error, e);
    for (uint32_t i = 0; i < f->n_in; i++) {
        const ZmpPort *q = &d->p->ports[f->first_in + i];
        uint64_t to = (uint64_t)(d->p->buffers[q->buffer].arena_offset + q->offset);
        memcpy(b->at + at, d->mirror->at + to, port_bytes(q));
        CU_TRY(d, copy_in(d->arena + to, b->at + at, port_bytes(q), d->stream), "inputs");
        at += feed_slot(q);
    }
    CU_TRY(d, event_record(b->used, d->stream), "inputs");
    return RT_OK;
}

RtStatus device_wait(Device *d, RtError *e)
{
    int error = d->failed ? d->failed : d->cu.stream_wait(d->stream);
    return error == CU_OK ? RT_OK : fail_late(d, error, e);
}

/* ---- the mirror ---- */

static CuAddress address_of(const Device *d, const void *at)
{
    return d->arena + (uint64_t)((const char *)at - d->mirror->at);
}

static void note(Device *d, int error)
{
    if (!d->failed) d->failed = error;
}

/* The program's constants are not: they lie in the host's memory already. */
static bool is_mirrored(const Device *d, const void *at)
{
    const char *c = at;
    return c >= d->mirror->at && c < d->mirror->at + d->mirror->n_bytes;
}

void device_fetch(Device *d, const void *at, size_t n_bytes)
{
    if (n_bytes == 0 || !is_mirrored(d, at)) return;
    char *to = d->mirror->at + ((const char *)at - d->mirror->at);
    note(d, d->cu.copy_out(to, address_of(d, at), n_bytes, d->stream));
    note(d, d->cu.stream_wait(d->stream));
}

void device_put(Device *d, const void *at, size_t n_bytes)
{
    if (n_bytes == 0) return;
    note(d, d->cu.copy_in(address_of(d, at), at, n_bytes, d->stream));
    note(d, d->cu.stream_wait(d->stream));
}

void device_fetch_scalars(Device *d)
{
    const Program *p = d->p;
    if (d->has_scalars) return;
    for (uint32_t i = 0; i < p->n_vars; i++) {
        const ZmpVar *v = &p->vars[i];
        if (v->kind != ZMP_SCALAR) continue;
        note(d,
             d->cu.copy_out(d->mirror->at + v->arena_offset, d->arena + (uint64_t)v->arena_offset,
                            (size_t)(v->elems * zmp_dtype_bytes(v->dtype)), d->stream));
    }
    note(d, d->cu.stream_wait(d->stream));
    d->has_scalars = true;
}

void device_forget(Device *d, const void *at, size_t n_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), from = (size_t)((const char *)at - d->mirror->at);
    size_t first = (from + page - 1) / page * page, end = (from + n_bytes) / page * page;
    if (end > first) madvise(d->mirror->at + first, end - first, MADV_DONTNEED); /* a hint */
}
