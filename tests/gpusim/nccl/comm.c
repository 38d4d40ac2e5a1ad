/* comm.c -- communicators: the unique id, coming together, errors, the end.
 *
 * $GPUSIM_NCCL_VERSION is what ncclGetVersion says (23007); $GPUSIM_NCCL_BYTES names a file that
 * gets one line of JSON when a communicator ends: what this rank has called and sent. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "tests/gpusim/nccl/nccl.h"

#define ID_PREFIX "/gpusim-nccl-"

static struct ncclComm *all_comms; /* operations in streams and graphs point to them for ever */

double comm_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

ncclResult_t comm_fail_text(ncclComm_t c, ncclResult_t rc, const char *text)
{
    snprintf(c->text, sizeof c->text, "%s", text);
    if (rc == ncclRemoteError || rc == ncclInvalidUsage) atomic_store(&c->error, (int)rc);
    return rc;
}

ncclResult_t ncclGetVersion(int *version)
{
    const char *text = getenv("GPUSIM_NCCL_VERSION");
    *version = text && *text ? atoi(text) : NCCL_VERSION_CODE;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    switch (result) {
    case ncclSuccess: return "no error";
    case ncclUnhandledCudaError: return "unhandled cuda error";
    case ncclSystemError: return "unhandled system error";
    case ncclInternalError: return "internal error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    case ncclRemoteError: return "remote process exited or there was a network error";
    case ncclInProgress: return "NCCL operation in progress";
    }
    return "unknown result code";
}

const char *ncclGetLastError(ncclComm_t comm)
{
    return comm ? comm->text : "";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    uint64_t random[2];
    memset(id, 0, sizeof *id);
    if (getrandom(random, sizeof random, 0) != sizeof random) return ncclSystemError;
    snprintf(id->internal, sizeof id->internal, ID_PREFIX "%016llx%016llx",
             (unsigned long long)random[0], (unsigned long long)random[1]);
    return ncclSuccess;
}

/* ---- coming together ---- */

static bool symbol(void *library, const char *name, void *fn)
{
    void *at = dlsym(library, name);
    memcpy(fn, &at, sizeof at);
    return at != NULL;
}

static bool driver_find(Driver *d)
{
    void *cuda = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    return cuda && symbol(cuda, "gpusim_enqueue", &d->enqueue) &&
           symbol(cuda, "gpusim_host_address", &d->host_address) &&
           symbol(cuda, "gpusim_is_captured", &d->is_captured) &&
           symbol(cuda, "gpusim_report", &d->report) &&
           symbol(cuda, "cuCtxGetDevice", &d->context_device) &&
           symbol(cuda, "cuDeviceGetUuid_v2", &d->device_uuid);
}

static ncclResult_t come(struct ncclComm *c)
{
    const char *why;
    double seconds;
    if (fault_is_set(FAULT_ABSENT, 0, c->rank, &seconds)) return ncclInProgress;
    Space *s = space_open(c->name, c->n_ranks, &why);
    if (!s) return comm_fail_text(c, ncclInvalidUsage, why);
    Place *me = &s->place[c->rank];
    int device;
    if (atomic_exchange(&me->is_taken, true)) {
        space_close(s, c->n_ranks);
        return comm_fail_text(c, ncclInvalidUsage, "two processes have the same rank");
    }
    c->space = s;
    if (c->driver.context_device(&device) != 0 || c->driver.device_uuid(me->device, device) != 0)
        return comm_fail_text(c, ncclUnhandledCudaError, "no context is current");
    atomic_store(&me->is_here, true);
    return ncclInProgress;
}

static ncclResult_t check_devices(struct ncclComm *c)
{
    char text[TEXT_BYTES];
    const Place *p = c->space->place;
    for (int b = 1; b < c->n_ranks; b++)
        for (int a = 0; a < b; a++) {
            if (memcmp(p[a].device, p[b].device, sizeof p[a].device) != 0) continue;
            snprintf(text, sizeof text,
                     "Duplicate GPU detected : rank %d and rank %d both on CUDA device %.16s", b, a,
                     p[a].device);
            return comm_fail_text(c, ncclInvalidUsage, text);
        }
    return ncclSuccess;
}

/* A step on the way; ncclInProgress: others have to come. */
static ncclResult_t meet(struct ncclComm *c)
{
    if (!c->space) {
        ncclResult_t rc = come(c);
        if (rc != ncclInProgress || !c->space) return rc;
    }
    for (int r = 0; r < c->n_ranks; r++)
        if (!atomic_load(&c->space->place[r].is_here)) return ncclInProgress;
    shm_unlink(c->name);
    ncclResult_t rc = check_devices(c);
    c->is_ready = rc == ncclSuccess;
    return rc;
}

static ncclResult_t meet_blocking(struct ncclComm *c)
{
    struct timespec nap = {0, 200000};
    ncclResult_t rc;
    while ((rc = meet(c)) == ncclInProgress) nanosleep(&nap, NULL);
    return rc;
}

static bool is_config_good(const ncclConfig_t *config)
{
    return !config || (config->size >= sizeof *config && config->magic == (unsigned)NCCL_API_MAGIC);
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int n_ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    Driver driver;
    *comm = NULL;
    if (!is_config_good(config) || n_ranks < 1 || n_ranks > MAX_RANKS || rank < 0 ||
        rank >= n_ranks || strncmp(id.internal, ID_PREFIX, sizeof ID_PREFIX - 1) != 0)
        return ncclInvalidArgument;
    if (!driver_find(&driver)) {
        fprintf(stderr, "gpusim: NCCL's stand-in works with the simulator's libcuda.so.1 only\n");
        return ncclSystemError;
    }
    struct ncclComm *c = calloc(1, sizeof *c);
    if (!c) return ncclSystemError;
    c->driver = driver;
    c->rank = rank;
    c->n_ranks = n_ranks;
    c->is_blocking = !config || config->blocking != 0; /* not set: blocking */
    memcpy(c->name, id.internal, sizeof c->name - 1);
    c->next = all_comms;
    all_comms = c;
    *comm = c;
    return c->is_blocking ? meet_blocking(c) : ncclInProgress;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int n_ranks, ncclUniqueId id, int rank)
{
    return ncclCommInitRankConfig(comm, n_ranks, id, rank, NULL);
}

/* What goes on behind a communicator that does not block goes on here. */
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
    if (!comm) return ncclInvalidArgument;
    *error = (ncclResult_t)atomic_load(&comm->error);
    if (*error != ncclSuccess) return ncclSuccess;
    if (!comm->is_ready) *error = meet(comm);
    if (comm->deferred) {
        Operation *o = comm->deferred;
        comm->deferred = NULL;
        *error = operation_enqueue(o);
    }
    if (*error != ncclSuccess && *error != ncclInProgress) atomic_store(&comm->error, (int)*error);
    return ncclSuccess;
}

/* ---- the end ---- */

uint64_t gpusim_nccl_bytes(ncclComm_t comm)
{
    uint64_t n = 0;
    for (int k = 0; k < N_KINDS; k++) n += comm->bytes[k];
    return n;
}

static void write_counts(const struct ncclComm *c)
{
    const char *path = getenv("GPUSIM_NCCL_BYTES");
    char line[1024];
    if (!path || !*path) return;
    int n = snprintf(line, sizeof line, "{\"rank\":%d,\"ranks\":%d", c->rank, c->n_ranks);
    for (int k = 0; k < N_KINDS; k++)
        n += snprintf(line + n, sizeof line - (size_t)n, ",\"%s\":{\"calls\":%llu,\"bytes\":%llu}",
                      kind_name(k), (unsigned long long)c->calls[k],
                      (unsigned long long)c->bytes[k]);
    n += snprintf(line + n, sizeof line - (size_t)n, ",\"scalar_bytes\":%llu,\"bytes\":%llu}\n",
                  (unsigned long long)c->scalar_bytes,
                  (unsigned long long)gpusim_nccl_bytes((ncclComm_t)(uintptr_t)c));
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0 || write(fd, line, (size_t)n) != n) perror(path);
    if (fd >= 0) close(fd);
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    if (!comm || !comm->is_ready || comm->is_finalized) return ncclInvalidArgument;
    comm->is_finalized = true;
    return ncclSuccess;
}

/* NCCL waits for ever, also in an abort. */
static void check_graphs(struct ncclComm *c, const char *call)
{
    char text[TEXT_BYTES];
    bool is_held = false;
    for (Operation *o = c->operations; o && !is_held; o = o->next)
        is_held = c->driver.is_captured(o);
    snprintf(text, sizeof text,
             "%s: a graph that holds a collective was not destroyed before: NCCL hangs", call);
    if (is_held) c->driver.report(text);
}

/* Operations that still run would lose what they run on: they end. */
static void end(struct ncclComm *c)
{
    if (atomic_exchange(&c->is_aborted, true)) return;
    if (c->space && !c->is_ready) shm_unlink(c->name);
    write_counts(c);
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    if (!comm) return ncclInvalidArgument;
    if (comm->running) comm->driver.report("ncclCommDestroy: a collective has not ended");
    check_graphs(comm, "ncclCommDestroy");
    end(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    if (!comm) return ncclInvalidArgument;
    check_graphs(comm, "ncclCommAbort");
    end(comm);
    return ncclSuccess;
}
