/* exec.c -- see exec.h. */
#include "runtime/exec.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/comm_link.h"
#include "runtime/convert.h"

enum { BUFFER_ALIGN = 64, CHUNK_BYTES = 1 << 20 };

/* ---- addresses ---- */

static size_t spread_bytes(const Program *p, size_t guard)
{
    size_t n = 0;
    for (uint32_t i = 0; i < p->n_buffers; i++)
        n += 2 * guard +
             ((size_t)p->buffers[i].bytes + BUFFER_ALIGN - 1) / BUFFER_ALIGN * BUFFER_ALIGN;
    return n;
}

static void place_buffers(Exec *x, size_t guard)
{
    size_t at = 0;
    for (uint32_t i = 0; i < x->p->n_buffers; i++) {
        const ZmpBuffer *b = &x->p->buffers[i];
        if (!guard) {
            x->buffer_at[i] = x->arena.at + b->arena_offset;
            continue;
        }
        x->buffer_at[i] = x->arena.at + at + guard;
        at += 2 * guard + ((size_t)b->bytes + BUFFER_ALIGN - 1) / BUFFER_ALIGN * BUFFER_ALIGN;
    }
}

int exec_rank(const Exec *x)
{
    return x->comm ? comm_rank(x->comm) : 0;
}

RtStatus exec_open(Exec *x, const Program *p, Pool *pool, size_t spread, RtError *e)
{
    return exec_open_rank(x, p, pool, spread, NULL, e);
}

RtStatus exec_open_rank(Exec *x, const Program *p, Pool *pool, size_t spread, Comm *comm,
                        RtError *e)
{
    *x = (Exec){.p = p, .pool = pool, .comm = comm};
    if (program_is_cuda(p)) RT_TRY(memory_reserve(&x->arena, p->h->arena_bytes, "the mirror", e));
    size_t bytes = spread ? spread_bytes(p, spread) : p->h->arena_bytes;
    if (!x->arena.at)
        RT_TRY(
            memory_map(&x->arena, bytes, spread ? "the spread arena of --poison" : "the arena", e));
    x->buffer_at = calloc((size_t)p->n_buffers + 1, sizeof *x->buffer_at);
    x->arg_at = calloc((size_t)p->n_args + 1, sizeof *x->arg_at);
    x->in_flight = calloc((size_t)p->n_collectives + 1, sizeof *x->in_flight);
    x->ended_s = calloc((size_t)p->n_commands + 1, sizeof *x->ended_s);
    if (!x->buffer_at || !x->arg_at || !x->in_flight || !x->ended_s) {
        exec_close(x);
        return RT_FAIL(e, RT_FAILED, "cannot get memory for %u addresses", p->n_args);
    }
    place_buffers(x, spread);
    for (uint32_t i = 0; i < p->n_args; i++) {
        const ZmpArg *a = &p->args[i]; /* kernels only read constants */
        x->arg_at[i] = (a->buffer < 0 ? (char *)p->consts : x->buffer_at[a->buffer]) + a->offset +
                       exec_rank(x) * a->rank_stride;
    }
    return program_is_cuda(p) ? device_open(&x->device, p, &x->arena, comm, e) : RT_OK;
}

void exec_close(Exec *x)
{
    device_close(x->device);
    memory_unmap(&x->arena);
    free(x->buffer_at);
    free(x->arg_at);
    free(x->in_flight);
    free(x->ended_s);
    *x = (Exec){0};
}

char *exec_port(const Exec *x, const ZmpPort *port)
{
    return x->buffer_at[port->buffer] + port->offset;
}

char *exec_var(const Exec *x, const ZmpVar *v)
{
    return x->buffer_at[v->buffer] + (v->arena_offset - x->p->buffers[v->buffer].arena_offset);
}

int64_t exec_sent(const Exec *x)
{
    return (x->comm ? (int64_t)comm_sent_all(x->comm) : 0) +
           (x->device ? device_sent(x->device) : 0);
}

/* ---- scalars ---- */

double scalar_get(const char *at, uint32_t dtype)
{
    int32_t i;
    double d;
    switch ((enum ZmpDType)dtype) {
    case ZMP_I1: return *at != 0;
    case ZMP_I32: memcpy(&i, at, sizeof i); return i;
    case ZMP_F64: memcpy(&d, at, sizeof d); return d;
    case ZMP_F32:
    case ZMP_BF16:
    case ZMP_F16: break;
    }
    float f;
    convert_to_f32(&f, at, dtype, 1);
    return f;
}

void scalar_set(char *at, uint32_t dtype, double value)
{
    int32_t i = (int32_t)value;
    switch ((enum ZmpDType)dtype) {
    case ZMP_I1: *at = value != 0; return;
    case ZMP_I32: memcpy(at, &i, sizeof i); return;
    case ZMP_F64: memcpy(at, &value, sizeof value); return;
    case ZMP_F32:
    case ZMP_BF16:
    case ZMP_F16: break;
    }
    float f = (float)value;
    convert_from_f32(at, dtype, &f, 1);
}

double exec_scalar(const Exec *x, const char *name, double otherwise)
{
    const ZmpVar *v = program_var(x->p, name);
    if (x->device) device_fetch_scalars(x->device);
    return v ? scalar_get(exec_var(x, v), v->dtype) : otherwise;
}

void exec_set_scalar(const Exec *x, const char *name, double value)
{
    const ZmpVar *v = program_var(x->p, name);
    if (!v) return;
    scalar_set(exec_var(x, v), v->dtype, value);
    exec_put(x, exec_var(x, v), zmp_dtype_bytes(v->dtype));
}

/* ---- commands ---- */

typedef struct MoveJob {
    char *to;
    const char *from; /* NULL: zeros */
    size_t n_bytes;
} MoveJob;

static void move_chunk(const void *job, int64_t task)
{
    const MoveJob *j = job;
    size_t at = (size_t)task * CHUNK_BYTES;
    size_t n = j->n_bytes - at < CHUNK_BYTES ? j->n_bytes - at : CHUNK_BYTES;
    if (j->from)
        memcpy(j->to + at, j->from + at, n);
    else
        memset(j->to + at, 0, n);
}

static void run_move(const Exec *x, const ZmpCommand *c)
{
    MoveJob job = {.to = x->arg_at[c->first_arg],
                   .n_bytes = (size_t)x->p->args[c->first_arg].bytes};
    if (c->kind == ZMP_COPY) job.from = x->arg_at[c->first_arg + 1];
    pool_run_job(x->pool, move_chunk, &job,
                 (int64_t)((job.n_bytes + CHUNK_BYTES - 1) / CHUNK_BYTES));
}

static void run_kernel(const Exec *x, const ZmpCommand *c)
{
    const ZmpKernel *k = &x->p->kernels[c->kernel];
    for (uint32_t phase = 0; phase < k->n_phases; phase++)
        pool_run(x->pool, x->p->fns[k->first_fn + phase], x->arg_at + c->first_arg,
                 k->n_tasks[phase], k->task_cost[phase]);
}

static RtStatus run_start(Exec *x, const ZmpCommand *c, RtError *e)
{
    const ZmpCollective *k = &x->p->collectives[c->kernel];
    if (!x->comm)
        return RT_FAIL(e, RT_FAILED, "%s: no communication was opened for it",
                       program_str(x->p, c->label));
    CommCall call = {.kind = (CommKind)k->kind, .dtype = k->dtype, .count = k->count};
    call.out = x->arg_at[c->first_arg];
    call.in = x->arg_at[c->first_arg + 1];
    call.tensor = program_str(x->p, k->tensor);
    call.loc = program_str(x->p, k->loc);
    call.limit_s = x->limit_s;
    return comm_start(x->comm, &call, &x->in_flight[c->kernel], e);
}

static RtStatus run_wait(Exec *x, const ZmpCommand *c, RtError *e)
{
    return comm_wait(x->comm, x->in_flight[c->kernel], e);
}

static RtStatus run_command(Exec *x, const ZmpCommand *c, RtError *e)
{
    switch ((enum ZmpCommandKind)c->kind) {
    case ZMP_KERNEL: run_kernel(x, c); break;
    case ZMP_COPY:
    case ZMP_ZERO: run_move(x, c); break;
    case ZMP_PROBE: return RT_OK; /* for observers */
    case ZMP_START: return run_start(x, c, e);
    case ZMP_WAIT: return run_wait(x, c, e);
    }
    return x->comm ? comm_poll(x->comm, e) : RT_OK;
}

static bool is_timed(const Exec *x)
{
    for (uint32_t o = 0; o < x->n_observers; o++)
        if (!x->observers[o].timed) return false;
    return true;
}

static RtStatus run_timed(Exec *x, const ZmpFunc *f, RtError *e)
{
    RT_TRY(device_run_timed(x->device, f, x->ended_s, e));
    double start = comm_now() - (f->n_commands ? x->ended_s[f->n_commands - 1] : 0);
    for (uint32_t i = 0; i < f->n_commands; i++)
        for (uint32_t o = 0; o < x->n_observers; o++)
            x->observers[o].timed(x->observers[o].self, x, f, f->first_command + i,
                                  start + (i ? x->ended_s[i - 1] : 0), start + x->ended_s[i]);
    return RT_OK;
}

static RtStatus run_commands(Exec *x, const ZmpFunc *f, RtError *e)
{
    if (x->device && x->n_observers == 0) return device_run_all(x->device, f, e);
    if (x->device && is_timed(x)) return run_timed(x, f, e);
    for (uint32_t i = f->first_command; i < f->first_command + f->n_commands; i++) {
        for (uint32_t o = 0; o < x->n_observers; o++)
            if (x->observers[o].before)
                RT_TRY(x->observers[o].before(x->observers[o].self, x, f, i, e));
        RT_TRY(x->device ? device_run(x->device, i, e) : run_command(x, &x->p->commands[i], e));
        for (uint32_t o = 0; o < x->n_observers; o++)
            if (x->observers[o].after)
                RT_TRY(x->observers[o].after(x->observers[o].self, x, f, i, e));
    }
    return RT_OK;
}

RtStatus exec_run(Exec *x, const ZmpFunc *f, RtError *e)
{
    for (uint32_t o = 0; o < x->n_observers; o++)
        if (x->observers[o].begin) RT_TRY(x->observers[o].begin(x->observers[o].self, x, f, e));
    if (x->device) RT_TRY(device_feed(x->device, f, x->limit_s, e));
    RT_TRY(run_commands(x, f, e));
    for (uint32_t o = 0; o < x->n_observers; o++)
        if (x->observers[o].end) RT_TRY(x->observers[o].end(x->observers[o].self, x, f, e));
    return RT_OK;
}

void exec_observe(Exec *x, Observer o)
{
    ZM_CHECK(x->n_observers < EXEC_MAX_OBSERVERS);
    uint32_t at = x->n_observers++;
    for (; at > 0 && x->observers[at - 1].is_last; at--) x->observers[at] = x->observers[at - 1];
    x->observers[at] = o;
}

void exec_observe_first(Exec *x, Observer o)
{
    ZM_CHECK(x->n_observers < EXEC_MAX_OBSERVERS);
    x->n_observers++;
    memmove(x->observers + 1, x->observers, (x->n_observers - 1) * sizeof o);
    x->observers[0] = o;
}

void exec_unobserve(Exec *x, const void *self)
{
    uint32_t n = 0;
    for (uint32_t o = 0; o < x->n_observers; o++)
        if (x->observers[o].self != self) x->observers[n++] = x->observers[o];
    x->n_observers = n;
}
