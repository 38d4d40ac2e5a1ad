/* nccl.h -- the stand-in for libnccl.so.2 from inside: comm.c (communicators), calls.c (checks of a
 * call), collective.c (what runs on a stream), space.c (memory of all ranks), fault.c (injected
 * failures), sum.c.
 *
 * Ranks are processes of one machine, or several of one process.  They share a POSIX memory object
 * that is named by the unique id, and gone as soon as all have it.  A collective runs in rounds:
 * each rank posts a slot full of its input, then takes what it needs from all slots.  What a rank
 * runs is written beside its slot, so that all see when they do not run the same.
 *
 * A rank that hangs or ends makes the others hang, as with NCCL between GPUs of one machine: to
 * find out is the caller's part. */
#ifndef ZM_GPUSIM_NCCL_H
#define ZM_GPUSIM_NCCL_H

#include <stdatomic.h>
#include <stdbool.h>

#include "tests/gpusim/gpusim.h"
#include "tests/gpusim/nccl/api.h"

enum { MAX_RANKS = 16, SLOT_BYTES = 1 << 18, TEXT_BYTES = 256 };

typedef enum Kind { ALL_GATHER, REDUCE_SCATTER, ALL_REDUCE, BROADCAST, N_KINDS } Kind;

typedef struct Call { /* what all ranks must agree on */
    uint64_t number;  /* of the collectives that this communicator has run */
    uint64_t count;   /* as its function takes it */
    int32_t kind, type, root;
} Call;

/* ---- space.c ---- */

typedef struct Place { /* of one rank */
    _Atomic bool is_taken, is_here;
    char device[16];
    _Atomic uint64_t n_posted, n_taken; /* rounds */
    Call call;                          /* of the round posted last */
} Place;

typedef struct Space {
    _Atomic int n_ranks; /* 0: nobody has been here */
    Place place[MAX_RANKS];
    _Alignas(64) uint8_t slots[];
} Space;

/* NULL: `why`. */
Space *space_open(const char *name, int n_ranks, const char **why);
void space_close(Space *s, int n_ranks);
uint8_t *space_slot(Space *s, int rank);

/* ---- fault.c ---- */

/* $GPUSIM_NCCL_FAULT = KIND@CALL:RANK[:SECONDS],...  CALL counts the collectives that the rank runs
 * (FAULT_REFUSE: enqueues), from 0. */
typedef enum Fault {
    FAULT_ABSENT, /* the rank never comes; CALL is 0 */
    FAULT_ERROR,  /* an asynchronous error, and the collective never ends */
    FAULT_DIE,    /* the process is killed */
    FAULT_HANG,   /* the collective never begins */
    FAULT_SLOW,   /* it begins SECONDS (1) later */
    FAULT_REFUSE, /* the enqueue fails */
    N_FAULTS
} Fault;
bool fault_is_set(Fault fault, uint64_t call, int rank, double *seconds);

/* ---- sum.c ---- */

size_t type_bytes(int type); /* 0: not a type that the stand-in knows */
/* out[i] = row[0][i] + row[1][i] + ...: 16-bit types in f32, rounded once. */
void sum_rows(int type, const void *const *rows, int n_rows, void *out, size_t n);

/* ---- comm.c ---- */

typedef struct Driver { /* of the simulator that stands for libcuda.so.1 */
    int (*enqueue)(void *stream, const char *name, GpusimPoll (*fn)(void *arg), void *arg,
                   const GpusimRange *ranges, size_t n_ranges);
    void *(*host_address)(uint64_t address, size_t bytes);
    int (*is_captured)(const void *arg);
    void (*report)(const char *text);
    int (*context_device)(int *device);
    int (*device_uuid)(void *uuid, int device);
} Driver;

typedef struct Operation {
    struct ncclComm *comm;
    Call call;
    const uint8_t *in; /* on the host; NULL: this rank gives nothing */
    uint8_t *out;
    void *stream;
    GpusimRange ranges[2];
    size_t n_ranges;
    struct Operation *next; /* of all: graphs may run them again at any time */
} Operation;

struct ncclComm {
    Driver driver;
    char name[64];
    Space *space; /* NULL: not come yet */
    int rank, n_ranks;
    bool is_blocking, is_ready, is_finalized;
    _Atomic bool is_aborted;
    _Atomic int error; /* asynchronous */
    char text[TEXT_BYTES];
    Operation *operations;
    Operation *deferred; /* to be enqueued when somebody asks for the state */
    uint64_t n_enqueued;
    /* What runs: under the simulator's lock. */
    Operation *running;
    uint64_t n_run, round, first_round; /* rounds so far; at the start of what runs */
    bool has_posted;
    double not_before; /* when it may go on */
    uint64_t calls[N_KINDS], bytes[N_KINDS], scalar_bytes;
    struct ncclComm *next;
};

ncclResult_t comm_fail_text(ncclComm_t c, ncclResult_t rc, const char *text);
double comm_seconds(void);

/* ---- collective.c ---- */

const char *kind_name(int kind); /* "ncclAllGather" */
/* Puts it on its stream. */
ncclResult_t operation_enqueue(Operation *o);

#endif
