/* comm_mpi_link.h -- links over MPI's messages (runtime/mpi/shim.h).
 *
 * A stream to a peer is a ring of slots, each one message; messages of one pair and tag arrive in
 * order. What a rank has to say of itself travels under a second tag. */
#ifndef ZM_RUNTIME_COMM_MPI_LINK_H
#define ZM_RUNTIME_COMM_MPI_LINK_H

#include "runtime/comm_link.h"
#include "runtime/mpi/shim.h"

enum { MPI_LINK_SLOTS = 4 };

typedef struct Word { /* of a rank about itself */
    int state, status;
    char text[COMM_TEXT_BYTES];
} Word;

typedef struct MpiLink MpiLink;

typedef struct MpiLinks { /* of one rank to all that it reaches over MPI */
    const MpiShim *shim;
    int n_links;
    MpiLink *link; /* by rank; slots NULL where the peer is reached otherwise */
    size_t slot_bytes;
    Word heard; /* being received, from anybody */
    MpiShimRequest hearing;
    bool is_hearing;
} MpiLinks;

typedef struct MpiSlot {
    char *at;
    size_t n_bytes; /* received, from the start */
    MpiShimRequest request;
    bool is_busy; /* request not over */
} MpiSlot;

struct MpiLink {
    MpiLinks *all;
    int peer, process_fd; /* fd: -1 on another host */
    char *memory;         /* of all slots; NULL: unused link */
    MpiSlot out[MPI_LINK_SLOTS], in[MPI_LINK_SLOTS];
    unsigned next_out, next_in; /* slots are taken in turn */
    size_t n_read;              /* of the first slot received */
    Word theirs, mine;
    MpiShimRequest telling, beating;
    bool is_telling, is_beating;
    int pulse; /* what a beat sends: PEER_RUNS, the state of a word */
    double beat_at;
    uint64_t n_beats; /* of the peer */
};

/* Of n ranks; no link is open yet. */
RtStatus mpi_links_new(MpiLinks *l, const MpiShim *shim, int n, RtError *e);
/* pid: of a peer on this host; 0: elsewhere. */
RtStatus mpi_link_open(MpiLinks *l, int peer, int pid, RtError *e);
Link mpi_link(MpiLinks *l, int peer);
/* is_orderly: finishes what was sent and takes back what was to be received.  Frees. */
void mpi_links_close(MpiLinks *l, bool is_orderly);

#endif
