/* comm_ring.c -- see comm_ring.h. */
#include "runtime/comm_ring.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/comm_host.h"

enum {
    MAX_RING_BYTES = 256 * 1024, /* two of them stay in a second-level cache */
    MIN_RING_BYTES = 16 * 1024,
    ALL_RINGS_BYTES = 64 * 1024 * 1024, /* while they are not the smallest */
    SPACE_MAGIC = 0x5a4d5247
};

typedef struct Ring {
    _Alignas(COMM_UNIT) _Atomic uint64_t n_written; /* bytes since the start */
    _Alignas(COMM_UNIT) _Atomic uint64_t n_read;
    _Alignas(COMM_UNIT) char data[]; /* RingSpace.ring_bytes */
} Ring;

typedef struct Slot { /* written by its rank only; status and text before state */
    _Alignas(COMM_UNIT) _Atomic int state;
    _Atomic uint64_t beats;
    int status;
    char text[COMM_TEXT_BYTES];
} Slot;

struct RingSpace {
    _Alignas(COMM_UNIT) _Atomic int magic;
    int size;
    size_t ring_bytes;
    /* Slot[size], Ring[size][size] (from, to) */
};

static size_t ring_bytes(int size)
{
    size_t n = (size_t)size, share = ALL_RINGS_BYTES / (n * n);
    if (share > MAX_RING_BYTES) share = MAX_RING_BYTES;
    if (share < MIN_RING_BYTES) share = MIN_RING_BYTES;
    return share / COMM_UNIT * COMM_UNIT;
}

size_t ring_space_bytes(int size)
{
    size_t n = (size_t)size;
    return sizeof(RingSpace) + n * sizeof(Slot) + n * n * (sizeof(Ring) + ring_bytes(size));
}

void ring_space_init(RingSpace *s, int size)
{
    s->size = size;
    s->ring_bytes = ring_bytes(size);
    atomic_store(&s->magic, SPACE_MAGIC);
}

bool ring_space_is_ready(const RingSpace *s, int size)
{
    return atomic_load(&s->magic) == SPACE_MAGIC && s->size == size;
}

static Slot *slot_at(RingSpace *s, int rank)
{
    return (Slot *)(void *)(s + 1) + rank;
}

static Ring *ring_at(RingSpace *s, int from, int to)
{
    char *rings = (char *)slot_at(s, s->size);
    size_t place = (size_t)from * (size_t)s->size + (size_t)to;
    return (Ring *)(void *)(rings + place * (sizeof(Ring) + s->ring_bytes));
}

static size_t ring_room(void *self, char **at)
{
    RingLink *l = self;
    Ring *r = ring_at(l->space, l->me, l->peer);
    uint64_t written = atomic_load_explicit(&r->n_written, memory_order_relaxed);
    uint64_t read = atomic_load_explicit(&r->n_read, memory_order_acquire);
    size_t bytes = l->space->ring_bytes, place = written % bytes, to_end = bytes - place;
    size_t n_free = bytes - (size_t)(written - read);
    *at = r->data + place;
    return n_free < to_end ? n_free : to_end;
}

static void ring_push(void *self, size_t n)
{
    RingLink *l = self;
    Ring *r = ring_at(l->space, l->me, l->peer);
    uint64_t written = atomic_load_explicit(&r->n_written, memory_order_relaxed);
    atomic_store_explicit(&r->n_written, written + n, memory_order_release);
}

static size_t ring_ready(void *self, const char **at)
{
    RingLink *l = self;
    Ring *r = ring_at(l->space, l->peer, l->me);
    uint64_t read = atomic_load_explicit(&r->n_read, memory_order_relaxed);
    uint64_t written = atomic_load_explicit(&r->n_written, memory_order_acquire);
    size_t bytes = l->space->ring_bytes, place = read % bytes, to_end = bytes - place;
    size_t n = (size_t)(written - read);
    *at = r->data + place;
    return n < to_end ? n : to_end;
}

static void ring_pop(void *self, size_t n)
{
    RingLink *l = self;
    Ring *r = ring_at(l->space, l->peer, l->me);
    uint64_t read = atomic_load_explicit(&r->n_read, memory_order_relaxed);
    atomic_store_explicit(&r->n_read, read + n, memory_order_release);
}

static PeerState ring_peer(void *self, bool is_deep, PeerWord *word)
{
    RingLink *l = self;
    Slot *slot = slot_at(l->space, l->peer);
    bool is_gone = is_deep && process_is_gone(l->process_fd); /* before the state: its last word */
    PeerState state = (PeerState)atomic_load_explicit(&slot->state, memory_order_acquire);
    *word = (PeerWord){state == PEER_RUNS ? RT_OK : (RtStatus)slot->status, slot->text};
    return state == PEER_RUNS && is_gone ? PEER_DEAD : state;
}

/* The slot is one for all peers: the first word stands. */
static void ring_tell(void *self, PeerState mine, PeerWord word)
{
    RingLink *l = self;
    Slot *slot = slot_at(l->space, l->me);
    if (atomic_load_explicit(&slot->state, memory_order_relaxed) != PEER_RUNS) return;
    slot->status = (int)word.status;
    snprintf(slot->text, sizeof slot->text, "%s", word.text);
    atomic_store_explicit(&slot->state, mine, memory_order_release);
}

static void ring_beat(void *self)
{
    RingLink *l = self;
    Slot *slot = slot_at(l->space, l->me);
    uint64_t n = atomic_load_explicit(&slot->beats, memory_order_relaxed);
    atomic_store_explicit(&slot->beats, n + 1, memory_order_relaxed);
}

static uint64_t ring_beats(void *self)
{
    RingLink *l = self;
    return atomic_load_explicit(&slot_at(l->space, l->peer)->beats, memory_order_relaxed);
}

void ring_link_open(RingLink *l, RingSpace *s, int me, int peer, int pid)
{
    *l = (RingLink){s, me, peer, pid ? process_open(pid) : -1};
}

void ring_link_close(RingLink *l)
{
    if (l->process_fd >= 0) close(l->process_fd);
    l->process_fd = -1;
}

Link ring_link(RingLink *l)
{
    static const LinkOps ops = {ring_room, ring_push, ring_ready, ring_pop,
                                ring_peer, ring_tell, ring_beat,  ring_beats};
    return (Link){&ops, l};
}
