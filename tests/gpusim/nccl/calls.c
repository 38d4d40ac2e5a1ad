/* calls.c -- the collectives' functions: what a call says is checked, then it is enqueued. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/gpusim/nccl/nccl.h"

typedef struct Buffers {
    const void *in; /* NULL: this rank gives nothing */
    void *out;
    size_t in_bytes, out_bytes;
} Buffers;

/* On the host; NULL, reported: no device memory of that size. */
static uint8_t *host_of(const struct ncclComm *c, int kind, const void *at, size_t n)
{
    char text[TEXT_BYTES];
    uint8_t *host = c->driver.host_address((uint64_t)(uintptr_t)at, n);
    if (host) return host;
    snprintf(text, sizeof text, "%s: no allocation holds %zu bytes at %p", kind_name(kind), n, at);
    c->driver.report(text);
    return NULL;
}

static bool is_overlap_good(const struct ncclComm *c, const Call *call, const Buffers *b)
{
    const char *in = b->in, *out = b->out;
    size_t own = (size_t)call->count * type_bytes(call->type) * (size_t)c->rank;
    bool is_apart = !in || in + b->in_bytes <= out || out + b->out_bytes <= in;
    bool is_in_place = call->kind == ALL_GATHER       ? in == out + own
                       : call->kind == REDUCE_SCATTER ? out == in + own
                                                      : in == out;
    char text[TEXT_BYTES];
    if (is_apart || is_in_place) return true;
    snprintf(text, sizeof text, "%s: its buffers overlap, and not as in place",
             kind_name(call->kind));
    c->driver.report(text);
    return false;
}

static Buffers buffers_of(const struct ncclComm *c, const Call *call, const void *in, void *out)
{
    size_t n = (size_t)call->count * type_bytes(call->type), all = n * (size_t)c->n_ranks;
    Buffers b = {in, out, n, n};
    if (call->kind == REDUCE_SCATTER) b.in_bytes = all;
    if (call->kind == ALL_GATHER) b.out_bytes = all;
    if (call->kind == BROADCAST && call->root != c->rank) b.in = NULL;
    return b;
}

/* NULL: the call is wrong, which was reported. */
static Operation *operation_new(struct ncclComm *c, const Call *call, const Buffers *b,
                                void *stream)
{
    Operation *o = calloc(1, sizeof *o);
    if (!o) return NULL;
    *o = (Operation){.comm = c, .call = *call, .stream = stream, .next = c->operations};
    c->operations = o;
    if (!is_overlap_good(c, call, b)) return NULL;
    o->out = host_of(c, call->kind, b->out, b->out_bytes);
    if (!o->out) return NULL;
    if (b->in && !(o->in = host_of(c, call->kind, b->in, b->in_bytes))) return NULL;
    if (b->in) o->ranges[o->n_ranges++] = (GpusimRange){(uint64_t)(uintptr_t)b->in, b->in_bytes, 0};
    o->ranges[o->n_ranges++] = (GpusimRange){(uint64_t)(uintptr_t)b->out, b->out_bytes, 1};
    return o;
}

static ncclResult_t collective(struct ncclComm *c, const Call *call, const void *in, void *out,
                               void *stream)
{
    if (!c) return ncclInvalidArgument;
    if (type_bytes(call->type) == 0 || call->root < 0 || call->root >= c->n_ranks)
        return comm_fail_text(c, ncclInvalidArgument, "no such type or root");
    if (!c->is_ready || c->deferred)
        return comm_fail_text(
            c, ncclInvalidArgument,
            "Attempt to use communicator before the previous operation returned ncclSuccess");
    if (c->error || c->is_aborted || c->is_finalized)
        return comm_fail_text(c, ncclInvalidUsage, "the communicator has failed or ended");
    Buffers b = buffers_of(c, call, in, out);
    Operation *o = operation_new(c, call, &b, stream);
    if (!o) return comm_fail_text(c, ncclInvalidArgument, "see the simulator's report");
    if (c->is_blocking) return operation_enqueue(o);
    c->deferred = o; /* NCCL enqueues it from a thread of its own */
    return ncclInProgress;
}

static ncclResult_t sum_collective(struct ncclComm *c, const Call *call, ncclRedOp_t op,
                                   const void *in, void *out, void *stream)
{
    if (op != ncclSum) return comm_fail_text(c, ncclInvalidArgument, "only sums are known");
    return collective(c, call, in, out, stream);
}

ncclResult_t ncclAllGather(const void *send, void *receive, size_t send_count, ncclDataType_t type,
                           ncclComm_t comm, void *stream)
{
    Call call = {.kind = ALL_GATHER, .count = send_count, .type = (int32_t)type};
    return collective(comm, &call, send, receive, stream);
}

ncclResult_t ncclReduceScatter(const void *send, void *receive, size_t receive_count,
                               ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm, void *stream)
{
    Call call = {.kind = REDUCE_SCATTER, .count = receive_count, .type = (int32_t)type};
    return sum_collective(comm, &call, op, send, receive, stream);
}

ncclResult_t ncclAllReduce(const void *send, void *receive, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, void *stream)
{
    Call call = {.kind = ALL_REDUCE, .count = count, .type = (int32_t)type};
    return sum_collective(comm, &call, op, send, receive, stream);
}

ncclResult_t ncclBroadcast(const void *send, void *receive, size_t count, ncclDataType_t type,
                           int root, ncclComm_t comm, void *stream)
{
    Call call = {.kind = BROADCAST, .count = count, .type = (int32_t)type, .root = root};
    return collective(comm, &call, send, receive, stream);
}
