/* comm.h -- a communicator of R ranks: collectives over bytes of the arena, started and waited for
 * apart, several in flight.
 *
 * Every rank starts the same collectives in the same order; waits come in any order.  One thread at
 * a time calls into a Comm.  Nothing is allocated after opening.  Data moves inside comm_start,
 * comm_wait and comm_poll; a rank that computes for long calls comm_poll between its commands:
 * then it is not taken for one that hangs.
 *
 * A tensor of `count` elements falls into R shards (comm_shard): equal ones where R divides count.
 * Reductions are x0 + x1 + ... in rank order, in f32 for 16-bit elements (rounded once) and in
 * their own type otherwise, whatever carries the bytes: all_reduce gives the bits of reduce_scatter
 * followed by all_gather, and comm_local those of comm_mpi.
 *
 * A collective sends S (R-1)/R bytes from each rank (all_reduce twice that, broadcast S from
 * its root), and one header of COMM_HEADER_BYTES to each peer.
 *
 * Failure: a peer that ends, that sends nothing for the time limit (and, on the same host, calls
 * nothing here), or that starts another
 * collective fails every rank with RT_FAILED and a message that names rank, collective, tensor and
 * line, within CommOptions.limit_s.  A failed Comm fails every later call with the same message. */
#ifndef ZM_RUNTIME_COMM_H
#define ZM_RUNTIME_COMM_H

#include <stdbool.h>

#include "ir/base/program.h"
#include "runtime/error.h"

typedef enum CommKind {
    COMM_ALL_GATHER,     /* in: this rank's shard; out: the tensor */
    COMM_REDUCE_SCATTER, /* in: the tensor; out: this rank's shard of the sum */
    COMM_ALL_REDUCE,     /* in, out: the tensor */
    COMM_BROADCAST,      /* in: the tensor (root only); out: the tensor */
    COMM_BARRIER,        /* no data: done when every rank has started it */
    COMM_N_KINDS
} CommKind;

enum { COMM_HEADER_BYTES = 192 };

typedef struct CommCall {
    CommKind kind;
    uint32_t dtype; /* ZMP_F32, ZMP_F64, ZMP_BF16, ZMP_F16 or ZMP_I32 */
    int root;       /* of a broadcast */
    int64_t count;  /* elements of the whole tensor */
    /* Aligned to their elements.  They may be the same memory (in place: `in` is `out`, or its
     * shard at its place within the other) or apart, and belong to the collective until it was
     * waited for. */
    const void *in;
    void *out;
    const char *tensor, *loc; /* for messages: "h.0.attn.c_attn.weight", "gpt2.zm:12:3" */
    double limit_s; /* of waiting for this one, where it is longer than the communicator's: a peer
                       writes gigabytes first */
} CommCall;

typedef struct Comm Comm;
typedef int64_t CommOp; /* a collective in flight */

typedef struct CommOptions {
    uint64_t program_hash; /* equal on all ranks, or opening fails with RT_BAD */
    /* What the program is, in parts that a message can compare: "zero stage 2, precision bf16".  At
     * most 95 and 63 bytes are used; NULL: nothing is known. */
    const char *program, *source;
    int world;         /* ranks that the program was compiled for */
    int max_in_flight; /* 0: 64 */
    double limit_s;    /* 0: COMM_LIMIT_S; from when a rank waits until every rank knows */
} CommOptions;
#define COMM_LIMIT_S 10.0

/* Ranks as threads of one process: a group is made once, then each thread opens its rank (and waits
 * until all have) and closes it.  The group outlives its ranks. */
typedef struct CommGroup CommGroup;
RtStatus comm_group_new(CommGroup **out, int size, RtError *e);
void comm_group_free(CommGroup *g);
RtStatus comm_local_open(Comm **out, CommGroup *g, int rank, const CommOptions *o, RtError *e);

/* Ranks as processes under mpirun or srun.  shim: path of libzmc_mpi.so; NULL: $ZMC_MPI_SHIM, or
 * beside the executable, or where the system looks.  Ranks of one host exchange data over POSIX
 * shared memory; ZMC_SHM=0 leaves everything to MPI (so that its own monitoring sees the bytes). */
RtStatus comm_mpi_open(Comm **out, const char *shim, const CommOptions *o, RtError *e);

/* Ranks as processes that meet over TCP, without MPI: at `place`, a FILE that all see, or host:port
 * of rank 0's machine.  rank: this process's number; -1, with a file only: in order of arrival.
 * o->world ranks have to come within $ZMC_MEETING_LIMIT seconds (60).  *is_agreed: it failed, and
 * all ranks, among them rank 0, fail with the same message. */
bool comm_place_is_address(const char *place);
RtStatus comm_tcp_open(Comm **out, const char *place, int rank, const CommOptions *o,
                       bool *is_agreed, RtError *e);

/* Leaves and frees.  After a failure it first waits for the others to hear of it, at most a tenth
 * of the limit; the process should then end with an exit code other than 0. */
void comm_close(Comm *c);

int comm_rank(const Comm *c);
int comm_size(const Comm *c);
/* This rank's number among those of its machine, once it was told; before that its rank. */
int comm_place(const Comm *c);
void comm_set_place(Comm *c, int place);

/* The elements [*first, *first + result) that `rank` holds of `count`. */
int64_t comm_shard(int64_t count, int rank, int size, int64_t *first);

RtStatus comm_start(Comm *c, const CommCall *call, CommOp *op, RtError *e);
RtStatus comm_wait(Comm *c, CommOp op, RtError *e); /* once for each start, in any order */
RtStatus comm_poll(Comm *c, RtError *e);            /* moves what can move now; never waits */
RtStatus comm_run(Comm *c, const CommCall *call, RtError *e); /* start and wait */

/* For a rank that waits for the others at something that does not go through here, such as a
 * collective between GPUs, and has done so for idle_s: as comm_poll, and every peer counts as
 * awaited in `awaited` (kind, tensor and line; NULL: in the step): one that ended, or has called
 * nothing here for the time limit, fails.  Call it every few milliseconds. */
RtStatus comm_watch(Comm *c, const CommCall *awaited, double idle_s, RtError *e);

/* Tells the other ranks that this one ends for a reason of its own: they fail with the
 * status and TEXT. */
void comm_fail(Comm *c, RtStatus status, const char *text);

/* Bytes of tensors sent to other ranks so far, without headers. */
uint64_t comm_sent(const Comm *c, CommKind kind);
uint64_t comm_sent_all(const Comm *c);

const char *comm_kind_name(CommKind kind);
const char *comm_transport(const Comm *c); /* "threads", "shared memory", "MPI", or the last two */

#endif
