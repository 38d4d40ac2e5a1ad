/* device_cuda.h -- between the files of device.h on NVIDIA GPUs.
 *
 *   device_cuda.c          opens and closes: context, memory, kernels
 *   device_cuda_run.c      commands on two streams, functions as graphs, inputs
 *   device_cuda_wait.c     what failed; waits of the host, which watch the other ranks
 *   device_cuda_mirror.c   numbers between the GPU and the host's mirror
 *
 * Kernels run on the stream `compute`, collectives on `comm`.  A collective's START makes `comm`
 * wait for what `compute` was given before; its WAIT makes `compute` wait for the collective: the
 * schedule decides what overlaps. */
#ifndef ZM_RUNTIME_DEVICE_CUDA_H
#define ZM_RUNTIME_DEVICE_CUDA_H

#include "runtime/comm_nccl.h"
#include "runtime/device.h"

enum {
    DEVICE_FEEDS = 2,
    DEVICE_STEPS = 2, /* whose scalars are on their way */
    DEVICE_STAGES = 2,
    DEVICE_STAGE_BYTES = 4 << 20
};

/* Pinned memory that a copy reads or writes; free again once `used` has passed. */
typedef struct Pinned {
    char *at;
    CuEventRef used;
} Pinned;

typedef struct Span { /* scalar variables that lie together, in the arena */
    uint64_t at;
    size_t n_bytes;
} Span;

struct Device {
    const Program *p;
    const Memory *mirror;
    CuDriver cu;
    int device;
    CuContextRef context;
    CuStreamRef compute, comm;
    CuAddress arena, consts;
    CuModuleRef *module;     /* of the program's modules */
    CuFunctionRef *function; /* of its kernels */

    /* many ranks */
    Comm *host; /* NULL: one rank */
    Nccl *nccl;
    int rank;
    CuEventRef fork;         /* compute -> comm */
    CuEventRef *done;        /* of each collective */
    CuAddress numbers;       /* 0, 1, 2, ... */
    volatile uint32_t *seen; /* pinned: the collective that the GPU is in, + 1; 0: in none */
    double limit_s;          /* of being in one */
    int64_t sent;            /* bytes */

    bool has_graphs;
    CuGraphExecRef *graph; /* of each function; NULL: not recorded yet */
    uint32_t *n_runs;      /* of each function */

    Pinned feed[DEVICE_FEEDS], step[DEVICE_STEPS], stage[DEVICE_STAGES];
    size_t feed_bytes, step_bytes;
    uint32_t n_fed, n_noted, n_taken;
    Span *span;
    uint32_t n_spans;

    CuEventRef idle;        /* the end of all so far */
    CuEventRef *marks;      /* between commands that are timed; as many as any function needs */
    uint32_t n_marks;       /* there so far */
    const ZmpFunc *running; /* what was enqueued last */
    bool has_scalars;       /* in the mirror, as the last function or device_take_step left them */
    int failed;             /* of a fetch or a put; 0: none */
    bool is_broken;         /* it may never answer again */
    RtStatus lost;          /* of every wait since the other ranks were given up, with `why` */
    RtError why;
};

#define CU_TRY(D, CALL, WHAT)                                                                      \
    do {                                                                                           \
        int error_ = (D)->cu.CALL;                                                                 \
        if (error_ != CU_OK) return device_fail((D), error_, (WHAT), e);                           \
    } while (0)

/* ---- device_cuda_wait.c ---- */

RtStatus device_fail(Device *d, int error, const char *what, RtError *e);
RtStatus device_fail_command(Device *d, int error, uint32_t command, RtError *e);
/* Of work that was enqueued before: which command it was is not known. */
RtStatus device_fail_late(Device *d, int error, RtError *e);
/* Until the event has passed.  On many ranks it fails when a peer ended, hangs, or NCCL failed;
 * device_settle leaves what the driver says to its caller. */
RtStatus device_until(Device *d, CuEventRef event, RtError *e);
RtStatus device_settle(Device *d, CuEventRef event, int *error, RtError *e);

/* ---- device_cuda_run.c ---- */

CommCall device_call(const Device *d, const ZmpCommand *start); /* addresses are the GPU's */
RtStatus device_open_feeds(Device *d, RtError *e);
/* One that still runs goes on, and is freed by the driver behind its end. */
void device_free_graphs(Device *d);

/* ---- device_cuda_mirror.c ---- */

RtStatus device_open_scalars(Device *d, RtError *e);
void device_forget_error(Device *d, int error); /* kept for the next call with a status */

#endif
