/* exec.h -- runs a function of the program: its commands in order, each over the pool.
 *
 * Every address comes from one table (buffer -> address), so the same commands run on the plan's
 * arena or, with --poison, on buffers that are laid out apart.  Observers (poison, numerics, trace,
 * gradients, faults) see each command before and after it ran; without them a command costs one
 * call.  Of a program for a GPU the addresses are those of the host's mirror (device.h), and the
 * commands are enqueued, all of a function at once; while anyone observes, one by one, and each is
 * waited for.  On many ranks the communicator is polled whenever a command has ended. */
#ifndef ZM_RUNTIME_EXEC_H
#define ZM_RUNTIME_EXEC_H

#include "runtime/comm.h"
#include "runtime/device.h"
#include "runtime/memory.h"
#include "runtime/pool.h"
#include "runtime/program.h"

struct Exec;

/* NULL members are not called.  A status other than RT_OK ends the run. */
typedef struct Observer {
    void *self;
    RtStatus (*begin)(void *self, const struct Exec *x, const ZmpFunc *f, RtError *e);
    RtStatus (*before)(void *self, const struct Exec *x, const ZmpFunc *f, uint32_t command,
                       RtError *e);
    RtStatus (*after)(void *self, const struct Exec *x, const ZmpFunc *f, uint32_t command,
                      RtError *e);
    /* On a GPU, instead of before and after when every observer has it: commands are not waited
     * for, and each is told when all are through, with its times on now_seconds()'s clock. */
    void (*timed)(void *self, const struct Exec *x, const ZmpFunc *f, uint32_t command,
                  double from_s, double to_s);
    RtStatus (*end)(void *self, const struct Exec *x, const ZmpFunc *f, RtError *e);
    bool is_last; /* after all others, also those that come later: they read what it destroys */
} Observer;

enum { EXEC_MAX_OBSERVERS = 7 };

typedef struct Exec {
    const Program *p;
    Pool *pool;
    Memory arena;      /* or its mirror */
    Device *device;    /* NULL: the CPU */
    char **buffer_at;  /* address of each buffer */
    char **arg_at;     /* address of each argument, on this rank */
    Comm *comm;        /* NULL: one rank */
    CommOp *in_flight; /* by collective of the program */
    double *ended_s;   /* of a GPU: by command of a function, for observers with `timed` */
    double limit_s;    /* CommCall.limit_s of each: where a rank may be slow between commands */
    Observer observers[EXEC_MAX_OBSERVERS];
    uint32_t n_observers;
} Exec;

/* spread: bytes of guard before and after each buffer, each buffer on its own (--poison); 0: the
 * plan's arena. */
RtStatus exec_open(Exec *x, const Program *p, Pool *pool, size_t spread, RtError *e);
/* On a rank of `comm` (NULL: the only one), which outlives x. */
RtStatus exec_open_rank(Exec *x, const Program *p, Pool *pool, size_t spread, Comm *comm,
                        RtError *e);
void exec_close(Exec *x);
int exec_rank(const Exec *x);
void exec_observe(Exec *x, Observer o);
void exec_observe_first(Exec *x, Observer o); /* sees each command before the others do */
void exec_unobserve(Exec *x, const void *self);

RtStatus exec_run(Exec *x, const ZmpFunc *f, RtError *e);
int64_t exec_sent(const Exec *x); /* bytes of tensors to other ranks so far */

/* Before the host reads numbers of the arena that commands wrote, and after it changed some; on the
 * CPU they do nothing. */
static inline void exec_fetch(const Exec *x, const void *at, int64_t n_bytes)
{
    if (x->device) device_fetch(x->device, at, (size_t)n_bytes);
}

static inline void exec_put(const Exec *x, const void *at, int64_t n_bytes)
{
    if (x->device) device_put(x->device, at, (size_t)n_bytes);
}

char *exec_port(const Exec *x, const ZmpPort *port);
char *exec_var(const Exec *x, const ZmpVar *v);
/* A scalar variable as a number; `otherwise` when the program has none of that name. */
double exec_scalar(const Exec *x, const char *name, double otherwise);
void exec_set_scalar(const Exec *x, const char *name, double value);
double scalar_get(const char *at, uint32_t dtype);
void scalar_set(char *at, uint32_t dtype, double value);

#endif
