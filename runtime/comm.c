/* comm.c -- see comm.h: the calls, over any transport (comm_link.h). */
#include "runtime/comm_state.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/comm_sum.h"

enum {
    DEFAULT_OPS = 64,
    MAGIC = 0x5a4d4331, /* "1CMZ": the stream's protocol */
    SPIN_TURNS = 200,   /* about 10 us */
    YIELD_TURNS = 2000  /* about 1 ms with nobody else to run */
};

double comm_meeting_limit(void)
{
    const char *text = getenv("ZMC_MEETING_LIMIT");
    double s = text ? atof(text) : 0;
    return s > 0 ? s : 60;
}

double comm_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void comm_pause(int *turns)
{
    struct timespec nap = {0, 50000};
    ++*turns;
    if (*turns > YIELD_TURNS)
        nanosleep(&nap, NULL);
    else if (*turns > SPIN_TURNS)
        sched_yield();
#if defined(__x86_64__)
    else
        __builtin_ia32_pause();
#endif
}

int64_t comm_shard(int64_t count, int rank, int size, int64_t *first)
{
    int64_t each = count / size, rest = count % size;
    *first = each * rank + (rank < rest ? rank : rest);
    return each + (rank < rest);
}

int comm_rank(const Comm *c)
{
    return c->t.rank;
}

int comm_size(const Comm *c)
{
    return c->t.size;
}

int comm_place(const Comm *c)
{
    return c->place;
}

void comm_set_place(Comm *c, int place)
{
    c->place = place;
}

const char *comm_transport(const Comm *c)
{
    return c->t.name;
}

uint64_t comm_sent(const Comm *c, CommKind kind)
{
    return c->sent[kind];
}

uint64_t comm_sent_all(const Comm *c)
{
    uint64_t sum = 0;
    for (int k = 0; k < COMM_N_KINDS; k++) sum += c->sent[k];
    return sum;
}

static void comm_free(Comm *c)
{
    free(c->op);
    free(c->send);
    free(c->receive);
    free(c->incoming);
    free(c->heard);
    free(c->beats);
    free(c->acc);
    free(c);
}

static Comm *comm_new(const Transport *t, const CommOptions *o)
{
    Comm *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    size_t size = (size_t)t->size;
    c->t = *t;
    c->place = t->rank;
    c->limit_s = o->limit_s > 0 ? o->limit_s : COMM_LIMIT_S;
    c->n_ops = o->max_in_flight > 0 ? o->max_in_flight : DEFAULT_OPS;
    c->op = calloc((size_t)c->n_ops, sizeof *c->op);
    c->send = calloc(size, sizeof *c->send);
    c->receive = calloc(size, sizeof *c->receive);
    c->incoming = calloc(size, sizeof *c->incoming);
    c->heard = calloc(size, sizeof *c->heard);
    c->beats = calloc(size, sizeof *c->beats);
    c->acc = aligned_alloc(COMM_UNIT, COMM_CHUNK * sizeof(double));
    if (c->op && c->send && c->receive && c->incoming && c->heard && c->beats && c->acc) return c;
    comm_free(c);
    return NULL;
}

static void header_set(Header *h, const CommCall *call, int64_t seq)
{
    memset(h, 0, sizeof *h);
    h->magic = MAGIC;
    h->kind = call->kind;
    h->dtype = call->dtype;
    h->root = call->root;
    h->seq = seq;
    h->count = call->count;
    if (call->tensor) strncpy(h->tensor, call->tensor, sizeof h->tensor - 1);
    if (call->loc) strncpy(h->loc, call->loc, sizeof h->loc - 1);
}

/* This rank's own part of what is copied. */
static void copy_own(const Comm *c, const CommCall *call)
{
    size_t elem = comm_elem_bytes(call->dtype);
    int64_t first = 0, n = call->count;
    if (call->kind == COMM_ALL_GATHER) n = comm_shard(n, c->t.rank, c->t.size, &first);
    bool is_copied =
        call->kind == COMM_ALL_GATHER || (call->kind == COMM_BROADCAST && call->root == c->t.rank);
    char *to = (char *)call->out + (size_t)first * elem;
    if (is_copied && n && to != call->in) memcpy(to, call->in, (size_t)n * elem);
}

/* Puts the collective in flight; there is room. */
static CommOp op_start(Comm *c, const CommCall *call)
{
    Op *op = comm_op(c, c->n_started);
    *op = (Op){.call = *call, .is_used = true, .n_to_send = c->t.size - 1};
    op->n_to_receive = c->t.size - 1;
    op->term = c->t.rank == 0;
    header_set(&op->mine, call, c->n_started);
    if (call->kind < COMM_BARRIER) copy_own(c, call);
    c->n_started++;
    flow_sum(c);
    return c->n_started - 1;
}

static RtStatus call_check(const Comm *c, const CommCall *call, RtError *e)
{
    const char *name = comm_kind_name(call->kind), *tensor = call->tensor ? call->tensor : "";
    if ((unsigned)call->kind >= COMM_N_KINDS)
        return RT_FAIL(e, RT_BAD, "no such collective: %d", (int)call->kind);
    if (call->kind != COMM_BARRIER && (!comm_elem_bytes(call->dtype) || call->count < 0))
        return RT_FAIL(e, RT_BAD, "%s of '%s': no collective over %lld elements of dtype %u", name,
                       tensor, (long long)call->count, call->dtype);
    if (call->kind == COMM_BROADCAST && (call->root < 0 || call->root >= c->t.size))
        return RT_FAIL(e, RT_BAD, "%s of '%s': there is no rank %d among %d", name, tensor,
                       call->root, c->t.size);
    if (comm_op(c, c->n_started)->is_used)
        return RT_FAIL(e, RT_BAD,
                       "%s of '%s': %d collectives are in flight, no more were asked for", name,
                       tensor, c->n_ops);
    return RT_OK;
}

RtStatus comm_start(Comm *c, const CommCall *call, CommOp *op, RtError *e)
{
    if (c->is_failed) return fault_again(c, e);
    RT_TRY(call_check(c, call, e));
    *op = op_start(c, call);
    return comm_poll(c, e);
}

static void beat(const Comm *c)
{
    for (int r = 0; r < c->t.size; r++)
        if (r != c->t.rank) c->t.link[r].ops->beat(c->t.link[r].self);
}

RtStatus comm_poll(Comm *c, RtError *e)
{
    if (c->is_failed) return fault_again(c, e);
    beat(c);
    bool moved = false;
    RT_TRY(flow_sweep(c, &moved, e));
    return moved ? RT_OK : fault_watch(c, 0, c->limit_s, e);
}

RtStatus comm_watch(Comm *c, const CommCall *awaited, double idle_s, RtError *e)
{
    Header h;
    bool moved = false;
    if (c->is_failed) return fault_again(c, e);
    beat(c);
    RT_TRY(flow_sweep(c, &moved, e));
    if (awaited) header_set(&h, awaited, c->n_started);
    return fault_watch_all(c, awaited ? &h : NULL, idle_s, e);
}

RtStatus comm_wait(Comm *c, CommOp op, RtError *e)
{
    if (c->is_failed) return fault_again(c, e);
    if (op < 0 || op >= c->n_started || !comm_op(c, op)->is_used || comm_op(c, op)->mine.seq != op)
        return RT_FAIL(e, RT_BAD, "collective %lld is not in flight", (long long)op);
    int turns = 0;
    double since = 0; /* when it began to idle; 0: does not */
    double own_s = comm_op(c, op)->call.limit_s, limit_s = own_s > c->limit_s ? own_s : c->limit_s;
    while (!op_is_done(c, op)) {
        bool moved = false;
        RT_TRY(flow_sweep(c, &moved, e));
        if (moved) {
            since = 0;
            turns = 0;
            continue;
        }
        comm_pause(&turns);
        if (turns < SPIN_TURNS) continue;
        double now = comm_now();
        if (since == 0) since = now;
        beat(c); /* who waits for a rank that hangs does not hang itself */
        RT_TRY(fault_watch(c, now - since, limit_s, e));
    }
    comm_op(c, op)->is_used = false;
    return RT_OK;
}

RtStatus comm_run(Comm *c, const CommCall *call, RtError *e)
{
    CommOp op;
    RT_TRY(comm_start(c, call, &op, e));
    return comm_wait(c, op, e);
}

/* After a failure: until the others have heard of it, or a tenth of the limit. */
static void linger(Comm *c)
{
    double end = comm_now() + 0.1 * c->limit_s;
    int turns = 0, n_running = 1;
    while (n_running && comm_now() < end) {
        n_running = 0;
        for (int r = 0; r < c->t.size; r++) {
            PeerWord word;
            if (r == c->t.rank) continue;
            n_running += c->t.link[r].ops->peer(c->t.link[r].self, true, &word) == PEER_RUNS;
        }
        comm_pause(&turns);
    }
}

void comm_close(Comm *c)
{
    if (!c) return;
    RtError e = {0};
    CommCall last = {.kind = COMM_BARRIER, .tensor = "the end of the run"};
    bool is_orderly = !c->is_failed && comm_run(c, &last, &e) == RT_OK;
    if (!is_orderly) linger(c);
    for (int r = 0; is_orderly && r < c->t.size; r++)
        if (r != c->t.rank)
            c->t.link[r].ops->tell(c->t.link[r].self, PEER_LEFT, (PeerWord){RT_OK, ""});
    c->t.close(c->t.self, is_orderly);
    str_free(&e.text);
    comm_free(c);
}

RtStatus comm_open(Comm **out, const Transport *t, const CommOptions *o, RtError *e)
{
    Comm *c = comm_new(t, o);
    if (!c) {
        t->close(t->self, false);
        return RT_FAIL(e, RT_FAILED, "out of memory for a communicator of %d ranks", t->size);
    }
    for (int r = 0; r < t->size; r++) c->heard[r] = comm_now();
    CommCall hello = {.kind = (CommKind)COMM_HELLO, .root = o->world};
    memcpy(&hello.count, &o->program_hash, sizeof hello.count);
    hello.tensor = o->program;
    hello.loc = o->source;
    CommOp op = op_start(c, &hello);
    c->incoming[t->rank] = comm_op(c, op)->mine;
    RtStatus status = comm_wait(c, op, e);
    if (status == RT_OK) status = fault_hello(c, o->world, e);
    if (status == RT_OK)
        *out = c;
    else
        comm_close(c);
    return status;
}
