/* comm_flow.c -- see comm_state.h.
 *
 * No deadlock with streams of any capacity: order the work by (collective, chunk, rank of the
 * term).  The least piece not yet received waits for nothing on the receiving side, and its sender
 * has only lesser pieces before it in that stream. */
#include "runtime/comm_state.h"

#include <string.h>

#include "runtime/comm_sum.h"

typedef struct Piece { /* a part of a collective, towards or from one peer */
    const char *at;
    size_t n_bytes;
    size_t n_usable; /* there already; the rest follows from the sum */
} Piece;

static size_t unit_up(size_t n)
{
    return (n + COMM_UNIT - 1) / COMM_UNIT * COMM_UNIT;
}

bool op_has_sum(const Op *op)
{
    return op->call.kind == COMM_REDUCE_SCATTER || op->call.kind == COMM_ALL_REDUCE;
}

bool op_is_done(const Comm *c, int64_t seq)
{
    const Op *op = comm_op(c, seq);
    return !op->n_to_send && !op->n_to_receive && !(op_has_sum(op) && c->summing <= seq);
}

/* Bytes of `rank`'s shard within a whole tensor at `whole`. */
static Piece shard_piece(const Comm *c, const Op *op, const void *whole, int rank)
{
    int64_t first, n = comm_shard(op->call.count, rank, c->t.size, &first);
    size_t elem = comm_elem_bytes(op->call.dtype), n_bytes = (size_t)n * elem;
    return (Piece){(const char *)whole + (size_t)first * elem, n_bytes, n_bytes};
}

static Piece whole_piece(const Op *op, const void *at)
{
    size_t n_bytes = (size_t)op->call.count * comm_elem_bytes(op->call.dtype);
    return (Piece){at, n_bytes, n_bytes};
}

static Piece send_piece(const Comm *c, const Op *op, int peer, int part)
{
    const CommCall *call = &op->call;
    if (part == PART_HEADER)
        return (Piece){(const char *)&op->mine, sizeof op->mine, sizeof op->mine};
    if (part == PART_SUM) return op_has_sum(op) ? shard_piece(c, op, call->in, peer) : (Piece){0};
    if (call->kind == COMM_ALL_GATHER) {
        Piece own = shard_piece(c, op, call->in, c->t.rank);
        own.at = call->in; /* `in` is the shard alone */
        return own;
    }
    if (call->kind == COMM_BROADCAST && call->root == c->t.rank) return whole_piece(op, call->in);
    if (call->kind != COMM_ALL_REDUCE) return (Piece){0};
    Piece sum = shard_piece(c, op, call->out, c->t.rank);
    sum.n_usable = (size_t)op->n_summed * comm_elem_bytes(call->dtype);
    return sum;
}

static Piece receive_piece(const Comm *c, const Op *op, int peer, int part)
{
    const CommCall *call = &op->call;
    if (part == PART_HEADER) return (Piece){(char *)&c->incoming[peer], sizeof(Header), 0};
    if (part == PART_SUM)
        return op_has_sum(op) ? shard_piece(c, op, call->in, c->t.rank) : (Piece){0};
    if (call->kind == COMM_ALL_GATHER || call->kind == COMM_ALL_REDUCE)
        return shard_piece(c, op, call->out, peer);
    if (call->kind == COMM_BROADCAST && call->root == peer) return whole_piece(op, call->out);
    return (Piece){0};
}

/* To the next part; true when the peer is through with this collective. */
static bool cursor_next(Cursor *k)
{
    k->at = 0;
    if (++k->part < N_PARTS) return false;
    k->part = 0;
    k->seq++;
    return true;
}

/* Writes bytes [at, at + n) of a padded piece. */
static void piece_read(char *to, const Piece *x, size_t at, size_t n)
{
    size_t real = at >= x->n_bytes ? 0 : x->n_bytes - at < n ? x->n_bytes - at : n;
    if (real) memcpy(to, x->at + at, real);
    if (n > real) memset(to + real, 0, n - real);
}

static void count_sent(Comm *c, const Op *op, int part, size_t n_bytes)
{
    if (part != PART_HEADER && op->call.kind < COMM_N_KINDS) c->sent[op->call.kind] += n_bytes;
}

static bool send_some(Comm *c, int peer)
{
    Cursor *k = &c->send[peer];
    const Link *link = &c->t.link[peer];
    bool moved = false;
    while (k->seq < c->n_started) {
        Op *op = comm_op(c, k->seq);
        Piece x = send_piece(c, op, peer, k->part);
        size_t end = unit_up(x.n_bytes);
        size_t usable = x.n_usable == x.n_bytes ? end : x.n_usable / COMM_UNIT * COMM_UNIT;
        while (k->at < usable) {
            char *to;
            size_t room = link->ops->room(link->self, &to);
            size_t n = room < usable - k->at ? room : usable - k->at;
            if (!n) return moved;
            piece_read(to, &x, k->at, n);
            link->ops->push(link->self, n);
            k->at += n;
            moved = true;
        }
        if (k->at < end) return moved; /* the sum has to come first */
        count_sent(c, op, k->part, x.n_bytes);
        if (cursor_next(k)) op->n_to_send--;
    }
    return moved;
}

static size_t chunk_elems(const Comm *c, const Op *op)
{
    int64_t first, left = comm_shard(op->call.count, c->t.rank, c->t.size, &first) - op->n_summed;
    return left < COMM_CHUNK ? (size_t)left : COMM_CHUNK;
}

/* Peers' terms come in the order of ranks; this rank adds its own along with the one before it, or
 * of rank 0 before the first. */
static int first_term(const Comm *c)
{
    return c->t.rank == 0;
}

static int next_term(const Comm *c, int term)
{
    return term + 1 == c->t.rank ? term + 2 : term + 1;
}

/* Where this rank's sum starts in `out`. */
static char *sum_at(const Comm *c, const Op *op)
{
    if (op->call.kind == COMM_REDUCE_SCATTER) return op->call.out;
    return (char *)(uintptr_t)shard_piece(c, op, op->call.out, c->t.rank).at;
}

/* The next n elements of the peer whose term is next. */
static void add_term(Comm *c, Op *op, const void *x, size_t n)
{
    uint32_t dtype = op->call.dtype;
    Piece shard = shard_piece(c, op, op->call.in, c->t.rank);
    size_t at = ((size_t)op->n_summed + op->n_added) * comm_elem_bytes(dtype);
    char *acc = c->acc + op->n_added * comm_acc_bytes(dtype);
    bool is_first = op->term == first_term(c), is_last = next_term(c, op->term) >= c->t.size;
    SumTerms t = {.dtype = dtype, .acc = is_first ? NULL : acc};
    if (is_first && c->t.rank == 0) t.term[t.n_terms++] = shard.at + at;
    t.term[t.n_terms++] = x;
    if (op->term == c->t.rank - 1) t.term[t.n_terms++] = shard.at + at;
    if (is_last)
        comm_sum_out(sum_at(c, op) + at, &t, n);
    else
        comm_sum_acc(acc, &t, n);
    op->n_added += n;
    if (op->n_added < chunk_elems(c, op)) return;
    if (is_last) op->n_summed += (int64_t)op->n_added;
    op->n_added = 0;
    op->term = is_last ? first_term(c) : next_term(c, op->term);
}

/* The sum of one rank is its own term. */
static void copy_alone(const CommCall *call)
{
    if (call->out != call->in)
        memcpy(call->out, call->in, (size_t)call->count * comm_elem_bytes(call->dtype));
}

void flow_sum(Comm *c)
{
    for (; c->summing < c->n_started; c->summing++) {
        Op *op = comm_op(c, c->summing);
        if (!op_has_sum(op) || !chunk_elems(c, op)) continue;
        if (c->t.size > 1) return; /* a peer's term is next */
        copy_alone(&op->call);
    }
}

/* Adds what has come of the peer's terms, if they are next; false: nothing moved. */
static bool receive_terms(Comm *c, int peer, const Piece *x)
{
    Cursor *k = &c->receive[peer];
    const Link *link = &c->t.link[peer];
    Op *op = comm_op(c, k->seq);
    if (c->summing != k->seq || op->term != peer) return false;
    size_t elem = comm_elem_bytes(op->call.dtype);
    const char *at;
    size_t n = link->ops->ready(link->self, &at) / elem, left = chunk_elems(c, op) - op->n_added;
    if (n > left) n = left;
    if (!n) return false;
    add_term(c, op, at, n);
    k->at += n * elem;
    link->ops->pop(link->self, unit_up(n * elem)); /* only the end of a part is not whole units */
    if (k->at == x->n_bytes) k->at = unit_up(x->n_bytes);
    flow_sum(c);
    return true;
}

static bool receive_copy(Comm *c, int peer, const Piece *x)
{
    Cursor *k = &c->receive[peer];
    const Link *link = &c->t.link[peer];
    const char *from;
    size_t n = link->ops->ready(link->self, &from), left = unit_up(x->n_bytes) - k->at;
    if (n > left) n = left;
    if (!n) return false;
    size_t real = x->n_bytes - k->at < n ? x->n_bytes - k->at : n;
    memcpy((char *)(uintptr_t)x->at + k->at, from, real);
    link->ops->pop(link->self, n);
    k->at += n;
    return true;
}

static RtStatus check_header(Comm *c, int peer, const Header *mine, RtError *e)
{
    const Header *theirs = &c->incoming[peer];
    if (mine->kind == COMM_HELLO && theirs->magic == mine->magic) return RT_OK; /* fault_hello */
    bool is_same = mine->magic == theirs->magic && mine->kind == theirs->kind &&
                   mine->dtype == theirs->dtype && mine->root == theirs->root &&
                   mine->seq == theirs->seq && mine->count == theirs->count &&
                   !strcmp(mine->tensor, theirs->tensor);
    return is_same ? RT_OK : fault_mismatch(c, peer, theirs, mine, e);
}

static RtStatus receive_some(Comm *c, int peer, bool *moved, RtError *e)
{
    Cursor *k = &c->receive[peer];
    bool any = false;
    while (k->seq < c->n_started) {
        Op *op = comm_op(c, k->seq);
        Piece x = receive_piece(c, op, peer, k->part);
        size_t end = unit_up(x.n_bytes);
        while (k->at < end) {
            bool got = k->part == PART_SUM ? receive_terms(c, peer, &x) : receive_copy(c, peer, &x);
            if (!got) break;
            any = true;
        }
        if (k->at < end) break;
        if (k->part == PART_HEADER) RT_TRY(check_header(c, peer, &op->mine, e));
        if (cursor_next(k)) op->n_to_receive--;
    }
    *moved |= any;
    if (any) c->heard[peer] = comm_now();
    return RT_OK;
}

RtStatus flow_sweep(Comm *c, bool *moved, RtError *e)
{
    for (int i = 1; i < c->t.size; i++) {
        int peer = (c->t.rank + i) % c->t.size; /* not all at the same one */
        *moved |= send_some(c, peer);
        RT_TRY(receive_some(c, peer, moved, e));
    }
    return RT_OK;
}
