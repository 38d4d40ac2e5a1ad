/* collective.c -- a collective as an operation on a stream: rounds through the slots (nccl.h). */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/gpusim/nccl/nccl.h"

const char *kind_name(int kind)
{
    static const char *const names[N_KINDS] = {"ncclAllGather", "ncclReduceScatter",
                                               "ncclAllReduce", "ncclBroadcast"};
    return names[kind];
}

/* ---- starting ---- */

static void begin(Operation *o)
{
    struct ncclComm *c = o->comm;
    double seconds;
    c->running = o;
    c->first_round = c->round;
    c->not_before = 0;
    o->call.number = c->n_run++;
    if (fault_is_set(FAULT_DIE, o->call.number, c->rank, &seconds)) kill(getpid(), SIGKILL);
    if (fault_is_set(FAULT_HANG, o->call.number, c->rank, &seconds)) c->not_before = INFINITY;
    if (fault_is_set(FAULT_SLOW, o->call.number, c->rank, &seconds))
        c->not_before = comm_seconds() + seconds;
    if (fault_is_set(FAULT_ERROR, o->call.number, c->rank, &seconds))
        comm_fail_text(c, ncclRemoteError, "injected by GPUSIM_NCCL_FAULT");
}

/* ---- a round ---- */

static bool all_have(const struct ncclComm *c, bool is_taken, uint64_t n)
{
    for (int r = 0; r < c->n_ranks; r++) {
        const Place *p = &c->space->place[r];
        if (atomic_load(is_taken ? &p->n_taken : &p->n_posted) < n) return false;
    }
    return true;
}

/* Elements of a block that go through a slot at a time. */
static size_t round_elems(const Operation *o)
{
    size_t n = SLOT_BYTES / type_bytes(o->call.type);
    return o->call.kind == REDUCE_SCATTER ? n / (size_t)o->comm->n_ranks : n;
}

/* Where this round's elements begin in each block, and how many they are. */
static size_t round_range(const Operation *o, size_t *first)
{
    size_t n = round_elems(o);
    *first = (size_t)(o->comm->round - o->comm->first_round) * n;
    size_t left = o->call.count > *first ? o->call.count - *first : 0;
    return left < n ? left : n;
}

static void post(Operation *o)
{
    struct ncclComm *c = o->comm;
    Place *me = &c->space->place[c->rank];
    uint8_t *slot = space_slot(c->space, c->rank);
    size_t elem = type_bytes(o->call.type), first, n = round_range(o, &first);
    int n_blocks = o->call.kind == REDUCE_SCATTER ? c->n_ranks : 1;
    for (int b = 0; b < n_blocks && o->in; b++)
        memcpy(slot + (size_t)b * round_elems(o) * elem,
               o->in + ((size_t)b * o->call.count + first) * elem, n * elem);
    me->call = o->call;
    atomic_store(&me->n_posted, c->round + 1);
    c->has_posted = true;
}

static int describe(const Call *call, char *out, size_t size)
{
    int n = snprintf(out, size, "collective %llu: %s of %llu elements of type %d",
                     (unsigned long long)call->number, kind_name(call->kind),
                     (unsigned long long)call->count, call->type);
    if (call->kind == BROADCAST) n += snprintf(out + n, size - (size_t)n, " from %d", call->root);
    return n;
}

static bool is_agreed(Operation *o)
{
    struct ncclComm *c = o->comm;
    char text[TEXT_BYTES], mine[TEXT_BYTES / 3], theirs[TEXT_BYTES / 3];
    for (int r = 0; r < c->n_ranks; r++) {
        const Call *call = &c->space->place[r].call;
        if (memcmp(call, &o->call, sizeof *call) == 0) continue;
        describe(&o->call, mine, sizeof mine);
        describe(call, theirs, sizeof theirs);
        snprintf(text, sizeof text, "rank %d runs %s, but rank %d %s", c->rank, mine, r, theirs);
        c->driver.report(text);
        comm_fail_text(c, ncclInvalidUsage, text);
        return false;
    }
    return true;
}

static void take_sum(Operation *o, size_t first, size_t n)
{
    struct ncclComm *c = o->comm;
    size_t elem = type_bytes(o->call.type), block = 0;
    const void *rows[MAX_RANKS];
    if (o->call.kind == REDUCE_SCATTER) block = (size_t)c->rank * round_elems(o) * elem;
    for (int r = 0; r < c->n_ranks; r++) rows[r] = space_slot(c->space, r) + block;
    sum_rows(o->call.type, rows, c->n_ranks, o->out + first * elem, n);
}

static void take(Operation *o)
{
    struct ncclComm *c = o->comm;
    size_t elem = type_bytes(o->call.type), first, n = round_range(o, &first);
    if (o->call.kind == REDUCE_SCATTER || o->call.kind == ALL_REDUCE)
        take_sum(o, first, n);
    else if (o->call.kind == BROADCAST)
        memcpy(o->out + first * elem, space_slot(c->space, o->call.root), n * elem);
    for (int r = 0; o->call.kind == ALL_GATHER && r < c->n_ranks; r++)
        memcpy(o->out + ((size_t)r * o->call.count + first) * elem, space_slot(c->space, r),
               n * elem);
    atomic_store(&c->space->place[c->rank].n_taken, ++c->round);
    c->has_posted = false;
}

/* ---- bytes ---- */

/* What a rank has to send at least: its own part to all others, and the others' parts of what is
 * summed to them.  Part r of a tensor that the ranks do not divide: the first ones get one more. */
static uint64_t bytes_sent(const Operation *o)
{
    uint64_t ranks = (uint64_t)o->comm->n_ranks, rank = (uint64_t)o->comm->rank;
    uint64_t n = o->call.count, own = n / ranks + (rank < n % ranks), elems = 0;
    switch ((Kind)o->call.kind) {
    case ALL_GATHER:
    case REDUCE_SCATTER: elems = n * (ranks - 1); break;
    case ALL_REDUCE: elems = n - own + own * (ranks - 1); break;
    case BROADCAST: elems = (int)rank == o->call.root ? n * (ranks - 1) : 0; break;
    case N_KINDS: break;
    }
    return elems * type_bytes(o->call.type);
}

static void finish(Operation *o)
{
    struct ncclComm *c = o->comm;
    uint64_t n = bytes_sent(o);
    c->calls[o->call.kind]++;
    c->bytes[o->call.kind] += n;
    if (o->call.kind == ALL_REDUCE && o->call.count * type_bytes(o->call.type) <= 64)
        c->scalar_bytes += n;
    c->running = NULL;
}

/* ---- running ---- */

/* One half of a round; false: others have to come first. */
static bool step(Operation *o)
{
    struct ncclComm *c = o->comm;
    if (!c->has_posted) {
        if (!all_have(c, true, c->round)) return false;
        post(o);
        return true;
    }
    if (!all_have(c, false, c->round + 1) || !is_agreed(o)) return false;
    take(o);
    if ((c->round - c->first_round) * round_elems(o) >= o->call.count) finish(o);
    return true;
}

static GpusimPoll run(void *arg)
{
    Operation *o = arg;
    struct ncclComm *c = o->comm;
    if (c->is_aborted) return GPUSIM_DONE;
    if (c->running && c->running != o) return GPUSIM_LATER; /* of another stream */
    if (!c->running) begin(o);
    if (c->error || (c->not_before > 0 && comm_seconds() < c->not_before)) return GPUSIM_LATER;
    while (c->running)
        if (!step(o)) return GPUSIM_LATER;
    return GPUSIM_DONE;
}

ncclResult_t operation_enqueue(Operation *o)
{
    struct ncclComm *c = o->comm;
    double seconds;
    if (fault_is_set(FAULT_REFUSE, c->n_enqueued++, c->rank, &seconds))
        return comm_fail_text(c, ncclSystemError, "injected by GPUSIM_NCCL_FAULT");
    int rc = c->driver.enqueue(o->stream, kind_name(o->call.kind), run, o, o->ranges, o->n_ranges);
    if (rc == 0) return ncclSuccess;
    return comm_fail_text(c, ncclUnhandledCudaError, "the simulator does not take the operation");
}
