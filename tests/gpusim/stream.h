/* stream.h -- the driver's state: devices, memory, streams whose tasks run when somebody waits.
 *
 * Nothing runs when it is enqueued.  When the host waits, tasks run one at a time; the next is
 * drawn by $GPUSIM_SEED among the first tasks of all streams whose dependencies are done, so a
 * missing dependency shows as a wrong order in some seed.  Independently of the order drawn, memory
 * that two tasks touch with nothing ordering them is reported (memory.h).
 *
 * Dependencies are vector clocks: a task depends on the first clock[t] tasks of stream t.
 * The legacy stream (NULL, 1) comes after everything enqueued before on blocking streams, and they
 * after it; CU_STREAM_NON_BLOCKING streams know nothing of it.  The per-thread stream (2) is one
 * blocking stream. */
#ifndef ZM_GPUSIM_STREAM_H
#define ZM_GPUSIM_STREAM_H

#include <pthread.h>

#include "tests/gpusim/api.h"
#include "tests/gpusim/gpusim.h"
#include "tests/gpusim/sim.h"

enum { MAX_DEVICES = 8, MAX_RANGES = 64, LEGACY = 0, PER_THREAD = 1 };

typedef struct Device {
    int ordinal;  /* among those that $CUDA_VISIBLE_DEVICES leaves */
    int physical; /* among all */
    int n_retained;
} Device;

typedef struct Module_ {
    PtxModule ptx;
    int device;
    VEC(struct Function *) functions;
    VEC(Allocation *) globals;
} Module_;

typedef struct Function {
    Module_ *module;
    Code code;
    int max_dynamic_bytes;
} Function;

typedef enum { TASK_LAUNCH, TASK_COPY, TASK_SET, TASK_RECORD, TASK_HOST, TASK_POLL } TaskKind;

typedef struct Task {
    TaskKind kind;
    Op op;
    Function *function; /* launch */
    uint32_t grid[3], block[3], shared_bytes;
    uint8_t *params;   /* owned */
    uint64_t to, from; /* copy, set */
    size_t bytes;
    uint8_t *staged; /* copy from pageable memory: its bytes; owned */
    uint32_t value;
    uint8_t value_bytes;
    struct Event *event;   /* record */
    void (*fn)(void *arg); /* host */
    GpusimPoll (*poll)(void *arg);
    void *arg;
    bool is_begun; /* poll has been asked */
    GpusimRange *ranges;
    size_t n_ranges; /* owned */
    struct Task *next;
} Task;

typedef struct Event {
    uint32_t clock[MAX_STREAMS];
    bool is_recorded;
    double time_ms;   /* when it was reached */
    uint64_t capture; /* recorded in the capture of this number: then clock is unused; 0: in none */
    uint32_t action;
} Event;

typedef struct Stream {
    uint32_t slot;
    bool is_used, is_blocking;
    int device;                  /* of a stream that was created */
    uint32_t clock[MAX_STREAMS]; /* of what was enqueued last */
    uint32_t n_done;
    Task *first, *last;
    struct Graph *capture; /* or NULL */
    uint32_t capture_branch;
} Stream;

/* A capture is the list of what was called; launching a graph calls it again on streams of its own,
 * branch 0 being the stream that it is launched on. */
typedef enum { ACTION_TASK, ACTION_RECORD, ACTION_WAIT } ActionKind;

typedef struct Action {
    ActionKind kind;
    uint32_t branch;
    Task *task;      /* a template */
    uint32_t record; /* wait: number of the action that recorded */
} Action;

typedef struct Graph {
    Stream *origin;
    uint64_t number;  /* from 1 */
    pthread_t thread; /* that began the capture */
    bool is_relaxed, is_invalid;
    uint32_t n_branches, n_tasks, n_users; /* handles: the graph, its executables */
    VEC(Action) actions;
    bool is_joined[MAX_STREAMS]; /* branch: the origin has waited for all it did */
    Arena arena;
    struct Graph *next; /* of all */
} Graph;

typedef struct GraphExec {
    Graph *graph;
    Stream *branches[MAX_STREAMS];
} GraphExec;

typedef struct System {
    bool is_initialised;
    int n_devices, arch; /* 80 */
    Device devices[MAX_DEVICES];
    Memory memory;
    Stream streams[MAX_STREAMS];
    Graph *graphs;
    uint32_t host_clock[MAX_STREAMS]; /* what the host has waited for */
    uint64_t random;
    Stamp next_stamp;
    uint64_t n_captures;
    CUresult sticky;
    uint64_t n_calls; /* of the driver: the helper looks whether the host is at work */
    bool has_helper;
} System;

/* ---- system.c ---- */

System *system_lock(void);
void system_nap(void);               /* lets go of the lock for a moment */
CUresult system_unlock(CUresult rc); /* rc, or the error that the device is in */
Device *system_current(void);        /* of this thread; NULL: none */
void system_set_current(Device *d);

/* ---- settings.c ---- */

bool settings_read(System *s); /* false: one is wrong, and was told */

/* ---- stream.c ---- */

Stream *stream_of(System *s, CUstream handle);                 /* NULL: no stream */
Stream *stream_new(System *s, bool is_blocking);               /* NULL: MAX_STREAMS are in use */
CUresult stream_push(System *s, Stream *q, const Task *draft); /* or into its capture */
void stream_finish(System *s, const uint32_t *clock);          /* until all before it is done */
void stream_finish_device(System *s, const Device *d); /* all its work; NULL: of all devices */
typedef enum Step {
    STEP_NONE,  /* no task is left */
    STEP_WAITS, /* those that may run wait for another process */
    STEP_RAN
} Step;
Step stream_step(System *s); /* one task, or each that waits asked once */
/* As stream_step for a host that waits: naps, without the lock, when nothing ran; false: no task
 * is left. */
bool stream_step_waiting(System *s);
/* Runs what the host has left alone for a while, as a GPU would: for tasks that other processes
 * wait for. */
void stream_start_helper(System *s);
bool clock_is_done(const System *s, const uint32_t *clock);
void clock_join(uint32_t *into, const uint32_t *from);
void task_free(Task *t);

/* ---- task.c ---- */

bool task_run(System *s, Task *t); /* false: it is not done, ask again */

/* ---- graph.c ---- */

CUresult graph_add_task(Graph *g, Stream *q, const Task *draft);
CUresult graph_record(Stream *q, Event *e);
/* What no capture may meet makes it invalid.  900: a call that this thread may not make while it
 * captures; is_wait: nor in a relaxed capture. */
CUresult capture_refuses(System *s, bool is_wait);
CUresult capture_refuses_stream(Stream *q); /* waiting for it, asking it */
CUresult capture_refuses_event(System *s, const Event *e);
CUresult graph_wait(System *s, Stream *q, Event *e);
Task *task_copy(const Task *t); /* with copies of what it owns */

#endif
