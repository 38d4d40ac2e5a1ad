/* comm_ring.h -- links over memory that all ranks of a group see: the heap of one process
 * (comm_local.c) or POSIX shared memory (comm_mpi.c).
 *
 * One ring per ordered pair of ranks, one writer and one reader each, and a slot per rank where it
 * says how it is. */
#ifndef ZM_RUNTIME_COMM_RING_H
#define ZM_RUNTIME_COMM_RING_H

#include "runtime/comm_link.h"

typedef struct RingSpace RingSpace; /* lies in the shared memory itself; holds no addresses */

/* 256 KiB for each ordered pair of up to 16 ranks; less for each of more, so that all together grow
 * slowly: 64 MiB for 64 ranks, 256 MiB for 128. */
size_t ring_space_bytes(int size);
/* Makes a space of zeroed memory, 64-byte aligned. */
void ring_space_init(RingSpace *s, int size);
/* Whether ring_space_init made it for as many ranks. */
bool ring_space_is_ready(const RingSpace *s, int size);

typedef struct RingLink {
    RingSpace *space;
    int me, peer;   /* places in the space */
    int process_fd; /* of the peer (pidfd); -1: a thread, or the system has none */
} RingLink;

/* pid: of the peer's process; 0: the peer is a thread of this process. */
void ring_link_open(RingLink *l, RingSpace *s, int me, int peer, int pid);
void ring_link_close(RingLink *l);
Link ring_link(RingLink *l);

#endif
