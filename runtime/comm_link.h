/* comm_link.h -- what the collectives (comm.c) ask of a transport: a byte stream each way between
 * two ranks, and news of the peer.  Inside the runtime's communication only.
 *
 * Streams move in multiples of COMM_UNIT bytes, so that no element is ever cut. */
#ifndef ZM_RUNTIME_COMM_LINK_H
#define ZM_RUNTIME_COMM_LINK_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/comm.h"

enum { COMM_UNIT = 64, COMM_TEXT_BYTES = 640 };

typedef enum PeerState {
    PEER_RUNS,
    PEER_LEFT,    /* closed in order */
    PEER_DEAD,    /* its process is gone, or out of reach */
    PEER_STOPPED, /* told: ends for a reason of its own (text) */
    PEER_FAILED   /* told: communication failed (text: the message for all ranks) */
} PeerState;

typedef struct PeerWord { /* what it said last */
    RtStatus status;      /* that its run, and so everybody's, ends with */
    const char *text;
} PeerWord;

typedef struct LinkOps {
    /* Bytes that may be written at *at now; push sends the first n of them. */
    size_t (*room)(void *self, char **at);
    void (*push)(void *self, size_t n);
    /* Received bytes at *at, in order; pop lets go of the first n of them. */
    size_t (*ready)(void *self, const char **at);
    void (*pop)(void *self, size_t n);
    /* News of the peer.  is_deep: also ask the system whether its process lives. */
    PeerState (*peer)(void *self, bool is_deep, PeerWord *word);
    void (*tell)(void *self, PeerState mine, PeerWord word);
    void (*beat)(void *self);      /* tells the peer that this rank goes on */
    uint64_t (*beats)(void *self); /* of the peer, as far as peer() has looked */
} LinkOps;

typedef struct Link {
    const LinkOps *ops; /* NULL: this rank itself */
    void *self;
} Link;

typedef struct Transport {
    int rank, size;
    Link *link; /* one per rank; owned by the transport */
    const char *name;
    void *self;
    /* is_orderly: no failure, and every peer has started to close. */
    void (*close)(void *self, bool is_orderly);
} Transport;

/* Takes the transport over, also when it fails; returns when all ranks have said hello and agree on
 * the options. */
RtStatus comm_open(Comm **out, const Transport *t, const CommOptions *o, RtError *e);

/* Seconds until all ranks must have come: $ZMC_MEETING_LIMIT, else 60. */
double comm_meeting_limit(void);
double comm_now(void);       /* seconds of a steady clock */
void comm_pause(int *turns); /* a moment of waiting: spins first, then yields, then sleeps */

#endif
