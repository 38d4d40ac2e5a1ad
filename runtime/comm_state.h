/* comm_state.h -- a communicator from inside: comm.c (calls), comm_flow.c (data), comm_fault.c
 * (what goes wrong).
 *
 * Each collective is, towards each peer, three parts of the byte stream, each padded to COMM_UNIT:
 * HEADER (always), SUM (what the peer adds up: its shard of my tensor) and COPY (what it stores as
 * it is).  Streams carry the collectives in the order in which they were started. */
#ifndef ZM_RUNTIME_COMM_STATE_H
#define ZM_RUNTIME_COMM_STATE_H

#include "runtime/comm_link.h"

enum {
    COMM_HELLO = COMM_N_KINDS, /* the first exchange: count = program hash, root = world, ... */
    COMM_CHUNK = 16384, /* elements summed over all ranks before the next ones: fit a cache */
    COMM_TENSOR_BYTES = 96,
    COMM_LOC_BYTES = 64
};
enum CommPart { PART_HEADER, PART_SUM, PART_COPY, N_PARTS };

typedef struct Header {
    uint32_t magic, kind, dtype;
    int32_t root;
    int64_t seq, count;
    char tensor[COMM_TENSOR_BYTES], loc[COMM_LOC_BYTES];
} Header;
_Static_assert(sizeof(Header) == COMM_HEADER_BYTES && COMM_HEADER_BYTES % COMM_UNIT == 0,
               "a header is whole units of a stream");

typedef struct Cursor { /* how far the stream to or from one peer is */
    int64_t seq;
    int part;
    size_t at; /* bytes of the part */
} Cursor;

typedef struct Op {
    CommCall call;
    Header mine;
    bool is_used;
    int n_to_send, n_to_receive; /* peers */
    /* The sum of this rank's shard: elements stored, peer whose term is next, elements of the chunk
     * that it has added. */
    int64_t n_summed;
    int term;
    size_t n_added;
} Op;

struct Comm {
    Transport t;
    int place; /* comm_place() */
    double limit_s;
    int n_ops;
    Op *op; /* [seq % n_ops] */
    int64_t n_started;
    int64_t summing;        /* first collective whose sum is not complete; n_started: none */
    Cursor *send, *receive; /* per rank */
    Header *incoming;       /* per rank */
    double *heard;          /* per rank: when something last came, or it was seen to go on */
    uint64_t *beats;        /* per rank: LinkOps.beats when last looked at */
    char *acc;              /* sums of COMM_CHUNK elements */
    uint64_t sent[COMM_N_KINDS];
    double looked; /* when the system was last asked about the peers */
    bool is_failed;
    RtStatus status; /* of every call since it failed */
    char text[COMM_TEXT_BYTES];
};

static inline Op *comm_op(const Comm *c, int64_t seq)
{
    return &c->op[seq % c->n_ops];
}

/* comm_flow.c */
RtStatus flow_sweep(Comm *c, bool *moved, RtError *e); /* moves what can move */
void flow_sum(Comm *c); /* past what has no sum to come; after comm_start and after each sweep */
bool op_has_sum(const Op *op);
bool op_is_done(const Comm *c, int64_t seq);

/* comm_fault.c */
RtStatus fault_again(const Comm *c, RtError *e);
RtStatus fault_mismatch(Comm *c, int peer, const Header *theirs, const Header *mine, RtError *e);
RtStatus fault_hello(Comm *c, int world, RtError *e); /* RT_OK when all ranks agree */
/* RT_OK while nothing is known to be wrong; idle_s: seconds without any data, 0 outside a wait;
 * limit_s: how many there may be. */
RtStatus fault_watch(Comm *c, double idle_s, double limit_s, RtError *e);
/* The same when every peer is awaited elsewhere, in `awaited`. */
RtStatus fault_watch_all(Comm *c, const Header *awaited, double idle_s, RtError *e);

#endif
