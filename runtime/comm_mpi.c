/* comm_mpi.c -- see comm.h: ranks as processes under mpirun or srun.
 *
 * MPI brings the ranks together and carries bytes between hosts.  Ranks of one host exchange bytes
 * over one POSIX shared memory object, made by the lowest of them, found by a random name that MPI
 * hands around, and unlinked as soon as all have it: no crash leaves it behind for long. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/comm_host.h"
#include "runtime/comm_mpi_link.h"
#include "runtime/comm_ring.h"

#define LIBRARY "libzmc_mpi.so"

typedef struct Who { /* one rank, as all see it */
    uint64_t host;   /* equal: one kernel, one process table, one /dev/shm */
    uint64_t token;  /* random */
    int32_t pid;
    int32_t has_memory; /* shared memory wanted; later: there */
} Who;

typedef struct MpiRank {
    const MpiShim *shim;
    int rank, size;
    Who *who; /* of every rank */
    RingSpace *space;
    size_t space_bytes;
    int n_here, place;       /* ranks of this host, and this rank's place among them */
    int n_rings, n_messages; /* peers reached each way */
    RingLink *ring;
    MpiLinks messages;
    Link *link;
} MpiRank;

/* ---- the shim ---- */

static void *library_open(const char *path)
{
    char beside[4096];
    const char *set = path ? path : getenv("ZMC_MPI_SHIM");
    if (set && *set) return dlopen(set, RTLD_NOW | RTLD_GLOBAL);
    ssize_t n = readlink("/proc/self/exe", beside, sizeof beside - sizeof LIBRARY - 1);
    while (n > 0 && beside[n - 1] != '/') n--;
    if (n > 0) {
        memcpy(beside + n, LIBRARY, sizeof LIBRARY);
        if (access(beside, R_OK) == 0) return dlopen(beside, RTLD_NOW | RTLD_GLOBAL);
    }
    return dlopen(LIBRARY, RTLD_NOW | RTLD_GLOBAL);
}

/* The library stays for the life of the process: MPI cannot be started twice. */
static RtStatus shim_load(const MpiShim **out, const char *path, RtError *e)
{
    void *library = library_open(path);
    if (!library)
        return RT_FAIL(e, RT_FAILED,
                       "more than one rank needs MPI: %s; install it (Debian: apt-get install "
                       "libopenmpi-dev openmpi-bin) and build zmc again, set ZMC_MPI_SHIM to the "
                       "path of " LIBRARY
                       ", or start the ranks with --rendezvous FILE, which needs no MPI",
                       dlerror());
    const MpiShim *(*entry)(void);
    *(void **)&entry = dlsym(library, MPI_SHIM_ENTRY);
    const MpiShim *shim = entry ? entry() : NULL;
    if (!shim || shim->version != MPI_SHIM_VERSION)
        return RT_FAIL(e, RT_FAILED,
                       "the MPI library (" LIBRARY
                       ") has version %d, this executable needs %d: take "
                       "both from one build of zmc",
                       shim ? shim->version : 0, MPI_SHIM_VERSION);
    *out = shim;
    return RT_OK;
}

static RtStatus mpi_try(const MpiShim *shim, int code, const char *what, RtError *e)
{
    char why[256];
    if (!code) return RT_OK;
    shim->error_text(code, why, sizeof why);
    return RT_FAIL(e, RT_FAILED, "MPI cannot %s: %s", what, why);
}

/* ---- who is where ---- */

static RtStatus who_gather(MpiRank *m, RtError *e)
{
    Who me = m->who[m->rank];
    return mpi_try(m->shim, m->shim->gather(&me, m->who, sizeof me), "gather", e);
}

static bool is_here(const MpiRank *m, int rank)
{
    return m->who[rank].host == m->who[m->rank].host;
}

static RtStatus who_meet(MpiRank *m, RtError *e)
{
    const char *wish = getenv("ZMC_SHM");
    Who *me = &m->who[m->rank];
    *me = (Who){.host = host_number(), .pid = getpid()};
    me->has_memory = !wish || strcmp(wish, "0") != 0;
    if (getrandom(&me->token, sizeof me->token, 0) != sizeof me->token) me->has_memory = 0;
    RT_TRY(who_gather(m, e));
    for (int r = 0; r < m->size; r++) {
        if (!is_here(m, r)) continue;
        if (r < m->rank) m->place++;
        m->n_here++;
    }
    return RT_OK;
}

/* ---- shared memory ---- */

static bool is_memory_everywhere(const MpiRank *m)
{
    for (int r = 0; r < m->size; r++)
        if (is_here(m, r) && !m->who[r].has_memory) return false;
    return m->n_here > 1;
}

static int first_here(const MpiRank *m)
{
    int r = 0;
    while (!is_here(m, r)) r++;
    return r;
}

/* Opens or makes the object and maps it; false: this host has no room or does not allow it. */
static bool memory_map(MpiRank *m, const char *name, bool is_maker)
{
    int fd = shm_open(name, is_maker ? O_RDWR | O_CREAT | O_EXCL : O_RDWR, 0600);
    if (fd < 0) return false;
    off_t n = (off_t)m->space_bytes;
    struct stat st;
    /* Room is taken now: a full /dev/shm would otherwise end the process at some later write. */
    bool is_good =
        is_maker ? posix_fallocate(fd, 0, n) == 0 : fstat(fd, &st) == 0 && st.st_size == n;
    void *at = MAP_FAILED;
    if (is_good) at = mmap(NULL, m->space_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED) return false;
    m->space = at;
    if (is_maker) ring_space_init(m->space, m->n_here);
    return ring_space_is_ready(m->space, m->n_here);
}

static void memory_unmap(MpiRank *m)
{
    if (m->space) munmap(m->space, m->space_bytes);
    m->space = NULL;
}

/* All ranks of all hosts take the same three steps; a host without shared memory goes on over MPI.
 */
static RtStatus memory_share(MpiRank *m, RtError *e)
{
    char name[64];
    bool is_wanted = is_memory_everywhere(m), is_maker = m->place == 0;
    Who *me = &m->who[m->rank];
    snprintf(name, sizeof name, "/zmc-%016llx", (unsigned long long)m->who[first_here(m)].token);
    m->space_bytes = ring_space_bytes(m->n_here);
    me->has_memory = is_wanted && (!is_maker || memory_map(m, name, true));
    RtStatus status = who_gather(m, e); /* made */
    if (status == RT_OK && is_memory_everywhere(m) && !is_maker)
        me->has_memory = memory_map(m, name, false);
    if (status == RT_OK) status = who_gather(m, e); /* found */
    if (is_maker && is_wanted) shm_unlink(name);
    if (status != RT_OK || !is_memory_everywhere(m)) memory_unmap(m);
    return status;
}

/* ---- links ---- */

static RtStatus links_open(MpiRank *m, RtError *e)
{
    RT_TRY(mpi_links_new(&m->messages, m->shim, m->size, e));
    for (int r = 0, place = 0; r < m->size; r++) {
        int here = is_here(m, r) ? place++ : -1;
        if (r == m->rank) continue;
        if (m->space && here >= 0) {
            ring_link_open(&m->ring[r], m->space, m->place, here, m->who[r].pid);
            m->link[r] = ring_link(&m->ring[r]);
            m->n_rings++;
        } else {
            RT_TRY(mpi_link_open(&m->messages, r, here >= 0 ? m->who[r].pid : 0, e));
            m->link[r] = mpi_link(&m->messages, r);
            m->n_messages++;
        }
    }
    return RT_OK;
}

static void mpi_close(void *self, bool is_orderly)
{
    MpiRank *m = self;
    for (int r = 0; m->ring && m->space && r < m->size; r++)
        if (m->ring[r].space) ring_link_close(&m->ring[r]);
    mpi_links_close(&m->messages, is_orderly);
    memory_unmap(m);
    if (is_orderly) m->shim->end(); /* waits for all ranks, so never after a failure */
    free(m->who);
    free(m->ring);
    free(m->link);
    if (is_orderly || !m->n_messages) free(m); /* else a receive is under way into it */
}

static RtStatus mpi_rank_open(MpiRank *m, RtError *e)
{
    RT_TRY(mpi_try(m->shim, m->shim->start(&m->rank, &m->size), "start", e));
    size_t n = (size_t)m->size;
    m->who = calloc(n, sizeof *m->who);
    m->ring = calloc(n, sizeof *m->ring);
    m->link = calloc(n, sizeof *m->link);
    if (!m->who || !m->ring || !m->link)
        return RT_FAIL(e, RT_FAILED, "out of memory for the links of %d ranks", m->size);
    RT_TRY(who_meet(m, e));
    RT_TRY(memory_share(m, e));
    return links_open(m, e);
}

RtStatus comm_mpi_open(Comm **out, const char *shim, const CommOptions *o, RtError *e)
{
    const MpiShim *loaded = NULL;
    RT_TRY(shim_load(&loaded, shim, e));
    MpiRank *m = calloc(1, sizeof *m);
    if (!m) return RT_FAIL(e, RT_FAILED, "out of memory for a rank");
    m->shim = loaded;
    RtStatus status = mpi_rank_open(m, e);
    if (status != RT_OK) {
        mpi_close(m, false);
        return status;
    }
    const char *name = !m->n_messages ? "shared memory"
                       : m->n_rings   ? "shared memory and MPI"
                                      : "MPI";
    Transport t = {m->rank, m->size, m->link, name, m, mpi_close};
    return comm_open(out, &t, o, e);
}
