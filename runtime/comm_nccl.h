/* comm_nccl.h -- collectives between GPUs: NCCL, opened when a program of many ranks starts on
 * GPUs, enqueued on a stream and never waited for by the host.
 *
 * The ranks have met on the host already (comm.h: over MPI or a rendezvous); that communicator
 * hands NCCL's unique id around, carries what the host says (options, checkpoints), and tells when
 * a peer is gone.  Collectives are those of comm.h, with device addresses; reductions are in NCCL's
 * order: reruns are bit-equal, other transports are not promised.  One communicator and one stream:
 * NCCL runs them in the order in which they were enqueued.
 *
 * Source: NCCL's user guide, https://docs.nvidia.com/deeplearning/nccl/user-guide/. */
#ifndef ZM_RUNTIME_COMM_NCCL_H
#define ZM_RUNTIME_COMM_NCCL_H

#include "runtime/comm.h"
#include "runtime/cuda_driver.h"

typedef struct Nccl Nccl;

/* On the current context's device; all ranks of `host` call it.  RT_BAD: libnccl.so.2 is missing
 * (where to get it), or two ranks have one GPU. */
RtStatus nccl_open(Nccl **out, Comm *host, RtError *e);

/* Enqueues; also into a capture of the stream.  call.in, call.out: device addresses; a tensor whose
 * count the ranks do not divide is refused but for all_reduce and broadcast. */
RtStatus nccl_enqueue(Nccl *n, const CommCall *call, CuStreamRef stream, RtError *e);

/* What failed since: NCCL's asynchronous error, a peer that ended or hangs (host).  Never waits.
 * awaited, idle_s: the collective that this rank waits for, and since when, as of comm_watch. */
RtStatus nccl_check(Nccl *n, const CommCall *awaited, double idle_s, RtError *e);

/* Bytes that a rank sends for this call, as comm_sent counts them. */
int64_t nccl_bytes(const Nccl *n, const CommCall *call);

/* Ends what is in flight on the GPU; afterwards only nccl_close may be called. */
void nccl_abort(Nccl *n);
/* All ranks, after their streams are through and the graphs destroyed into which it was captured;
 * NULL: nothing. */
void nccl_close(Nccl *n);

#endif
