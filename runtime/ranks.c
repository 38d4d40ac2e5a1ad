/* ranks.c -- see ranks.h. */
#include "runtime/ranks.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/comm_agree.h"
#include "runtime/comm_host.h"
#include "runtime/comm_link.h"
#include "runtime/watchdog.h"

enum { VALUE_BYTES = 112, SPARE_OPS = 8 };

/* ---- the launcher ---- */

static long number_of(const char *const *names, size_t n, long otherwise)
{
    for (size_t i = 0; i < n; i++) {
        const char *text = getenv(names[i]);
        if (text && *text) return atol(text);
    }
    return otherwise;
}

static long launched_world(void)
{
    static const char *const sizes[] = {"ZMC_WORLD", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE",
                                        "SLURM_STEP_NUM_TASKS"};
    return number_of(sizes, sizeof sizes / sizeof *sizes, 0);
}

static int rank_or(int otherwise)
{
    static const char *const ranks[] = {"ZMC_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK",
                                        "SLURM_PROCID"};
    return (int)number_of(ranks, sizeof ranks / sizeof *ranks, otherwise);
}

int ranks_number(void)
{
    return rank_or(0);
}

bool ranks_launched(void)
{
    return launched_world() > 1 || getenv("ZMC_RANK");
}

/* One process is one rank.  A launcher that started another number of them is told what to do. */
static RtStatus check_world(const Program *p, bool has_place, RtError *e)
{
    long world = launched_world(), ranks = (long)p->h->ranks;
    bool is_unknown = getenv("PMIX_NAMESPACE") || getenv("PMI_FD") || getenv("PMI_PORT");
    if (world == ranks || (world <= 1 && ranks == 1)) return RT_OK;
    if (world > 1 && ranks == 1)
        return RT_FAIL(
            e, RT_BAD,
            "the program was compiled for 1 rank, but %ld started; compile it with --ranks %ld",
            world, world);
    if (world > 1)
        return RT_FAIL(e, RT_BAD,
                       "the program was compiled for %ld ranks, but %ld started; start it with "
                       "zmc run -n %ld, or compile it with --ranks %ld",
                       ranks, world, ranks, world);
    if (world == 0 && (is_unknown || has_place)) return RT_OK; /* MPI or the meeting knows */
    return RT_FAIL(e, RT_BAD,
                   "the program was compiled for %ld ranks, but one process started; start it with "
                   "zmc run -n %ld OUT ... or mpirun -n %ld OUT ..., start %ld processes with "
                   "--rendezvous FILE, or compile it with --ranks 1",
                   ranks, ranks, ranks, ranks);
}

/* ---- the communicator ---- */

/* The MPI library that the executable carries, as a file that can be loaded; *fd -1: none. */
static RtStatus embedded_shim(const ZmrtImage *image, int *fd, RtError *e)
{
    *fd = -1;
    if (!image->mpi_shim_bytes || getenv("ZMC_MPI_SHIM")) return RT_OK;
    *fd = memfd_create("libzmc_mpi.so", MFD_CLOEXEC);
    size_t done = 0, n = (size_t)image->mpi_shim_bytes;
    while (*fd >= 0 && done < n) {
        ssize_t got = write(*fd, (const char *)image->mpi_shim + done, n - done);
        if (got <= 0) break;
        done += (size_t)got;
    }
    if (*fd >= 0 && done == n) return RT_OK;
    rt_say(e,
           "cannot load the MPI library that this executable carries: %s; raise the limits of "
           "the process (ulimit -f, ulimit -v), or set ZMC_MPI_SHIM to the path of libzmc_mpi.so",
           strerror(errno));
    if (*fd >= 0) close(*fd);
    return RT_FAILED;
}

/* MPI waits for ever for a rank that ended before it came.  This one takes all ranks along. */
static RtStatus meet(Run *r, const char *shim, const CommOptions *o, RtError *e)
{
    Watchdog w;
    double limit_s = comm_meeting_limit();
    const char *text = arena_printf(
        &r->arena,
        "rank %d: error: not all %d ranks have come in %.0f s: one ended or hangs before the "
        "start; look at what it wrote, and whether every rank was given the same command line "
        "(ZMC_MEETING_LIMIT=SECONDS in the environment waits longer)\n",
        ranks_number(), o->world, limit_s);
    watchdog_start(&w, limit_s, text, RT_FAILED);
    RtStatus s = comm_mpi_open(&r->comm, shim, o, e);
    watchdog_end(&w);
    r->is_agreed = s == RT_BAD; /* they have met and found that they do not fit together */
    return s;
}

static RtStatus open_mpi(Run *r, const ZmrtImage *image, const CommOptions *o, RtError *e)
{
    char path[64];
    int fd;
    RT_TRY(embedded_shim(image, &fd, e));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    RtStatus s = meet(r, fd >= 0 ? path : NULL, o, e);
    if (fd >= 0) close(fd);
    return s;
}

static RtStatus open_tcp(Run *r, const CommOptions *o, RtError *e)
{
    int rank = rank_or(-1);
    if (rank < 0 && comm_place_is_address(r->o.rendezvous))
        return RT_FAIL(e, RT_BAD,
                       "--rendezvous %s: at an address each process needs its number: set ZMC_RANK "
                       "to 0 ... %d, or give a FILE that all processes see, which numbers them",
                       r->o.rendezvous, o->world - 1);
    return comm_tcp_open(&r->comm, r->o.rendezvous, rank, o, &r->is_agreed, e);
}

RtStatus ranks_open(Run *r, const ZmrtImage *image, RtError *e)
{
    if (image->comm) { /* ranks as threads: they have met */
        r->comm = image->comm;
        r->rank = comm_rank(r->comm);
        return RT_OK;
    }
    RT_TRY(check_world(&r->p, r->o.rendezvous != NULL, e));
    if (r->p.h->ranks == 1) return RT_OK;
    CommOptions o = {.program_hash = r->p.h->hash, .world = (int)r->p.h->ranks};
    o.program =
        arena_printf(&r->arena, "ranks %u, zero stage %u, precision %s, model %s", r->p.h->ranks,
                     r->p.h->zero_stage, program_str(&r->p, r->p.h->precision),
                     program_str(&r->p, r->p.h->model));
    o.source = program_str(&r->p, r->p.h->source);
    o.max_in_flight = program_max_in_flight(&r->p) + SPARE_OPS;
    double longest_s = program_longest_s(&r->p);
    o.limit_s = longest_s > COMM_LIMIT_S ? longest_s : COMM_LIMIT_S;
    RtStatus s = r->o.rendezvous ? open_tcp(r, &o, e) : open_mpi(r, image, &o, e);
    if (s == RT_OK) r->rank = comm_rank(r->comm);
    return s;
}

void ranks_close(Run *r, RtStatus status, const RtError *e)
{
    if (!r->comm) return;
    if (status != RT_OK && !r->is_agreed) comm_fail(r->comm, status, str_c(&e->text));
    comm_close(r->comm);
    r->comm = NULL;
}

/* ---- between them ---- */

RtStatus ranks_gather(Comm *c, const void *mine, void *all, size_t n_bytes, const char *what,
                      RtError *e)
{
    CommCall call = {.kind = COMM_ALL_GATHER, .dtype = ZMP_I32, .in = mine, .out = all};
    call.count = (int64_t)(n_bytes / 4) * comm_size(c);
    call.tensor = what;
    return comm_run(c, &call, e);
}

RtStatus ranks_agree(Run *r, RtStatus mine, const char *what, int64_t n_bytes, RtError *e)
{
    if (!r->comm) return mine;
    RtError unused = {0};
    RtStatus s = comm_agree(r->comm, mine, what, n_bytes, e);
    /* It failed with the others' status, not in talking to them: then talking still works. */
    r->is_agreed = s != RT_OK && comm_poll(r->comm, &unused) == RT_OK;
    str_free(&unused.text);
    return s;
}

RtStatus ranks_max(Run *r, int64_t mine, int64_t *out, const char *what, RtError *e)
{
    *out = mine;
    if (!r->comm) return RT_OK;
    int64_t *all = calloc((size_t)comm_size(r->comm), sizeof *all);
    if (!all) return RT_FAIL(e, RT_FAILED, "out of memory for %d ranks", comm_size(r->comm));
    RtStatus s = ranks_gather(r->comm, &mine, all, sizeof mine, what, e);
    for (int k = 0; k < comm_size(r->comm) && s == RT_OK; k++)
        if (all[k] > *out) *out = all[k];
    free(all);
    return s;
}

/* ---- what must be the same ---- */

typedef struct Shared {
    uint64_t hash;
    char value[VALUE_BYTES];
} Shared;

static RtStatus differ(Run *r, int rank, const char *what, const Shared *theirs,
                       const Shared *first, RtError *e)
{
    r->is_agreed = true; /* all ranks look at the same numbers */
    return RT_FAIL(e, RT_BAD,
                   "%s differs between ranks: %s on rank %d, %s on rank 0; give every "
                   "rank the same program, options and files",
                   what, theirs->value, rank, first->value);
}

/* all: [ranks][n]; names: of each of the n. */
static RtStatus compare(Run *r, const Shared *all, uint32_t n, const char *const *names, RtError *e)
{
    for (int k = 1; k < comm_size(r->comm); k++)
        for (uint32_t i = 0; i < n; i++) {
            const Shared *theirs = &all[(uint32_t)k * n + i];
            if (theirs->hash != all[i].hash) return differ(r, k, names[i], theirs, &all[i], e);
        }
    return RT_OK;
}

static RtStatus exchange(Run *r, const Shared *mine, uint32_t n, const char *const *names,
                         const char *what, RtError *e)
{
    Shared *all = calloc((size_t)comm_size(r->comm) * n, sizeof *all);
    if (!all) return RT_FAIL(e, RT_FAILED, "out of memory for the options of all ranks");
    RtStatus s = ranks_gather(r->comm, mine, all, n * sizeof *mine, what, e);
    if (s == RT_OK) s = compare(r, all, n, names, e);
    free(all);
    return s;
}

RtStatus ranks_compare(Run *r, RtError *e)
{
    enum { MOST = 64 };
    Shared mine[MOST] = {0};
    const char *names[MOST], *name;
    char text[VALUE_BYTES];
    uint32_t n = 1;
    if (!r->comm) return RT_OK;
    names[0] = "the order of collectives";
    mine[0].hash = r->p.h->order_hash;
    snprintf(mine[0].value, VALUE_BYTES, "%016llx", (unsigned long long)mine[0].hash);
    while ((name = options_shared(&r->o, n - 1, text, sizeof text, &mine[n].hash))) {
        memcpy(mine[n].value, text, sizeof text);
        names[n++] = arena_printf(&r->arena, "--%s", name);
        ZM_CHECK(n < MOST);
    }
    return exchange(r, mine, n, names, "the options", e);
}

RtStatus ranks_compare_number(Run *r, int64_t n, const char *what, RtError *e)
{
    if (!r->comm) return RT_OK;
    Shared mine = {.hash = (uint64_t)n};
    snprintf(mine.value, VALUE_BYTES, "%lld", (long long)n);
    return exchange(r, &mine, 1, &what, what, e);
}

/* ---- threads ---- */

typedef struct Cpus { /* where a rank may run */
    char host[64];
    cpu_set_t set;
} Cpus;

RtStatus ranks_threads(Run *r, int *n, RtError *e)
{
    *n = cpus_available();
    if (!r->comm) return RT_OK;
    Cpus mine = {.host = ""}, *all = calloc((size_t)comm_size(r->comm), sizeof *all);
    if (!all) return RT_FAIL(e, RT_FAILED, "out of memory for the CPUs of all ranks");
    gethostname(mine.host, sizeof mine.host - 1);
    sched_getaffinity(0, sizeof mine.set, &mine.set);
    RtStatus s = ranks_gather(r->comm, &mine, all, sizeof mine, "the CPUs", e);
    int n_sharing = 0;
    for (int k = 0; k < comm_size(r->comm) && s == RT_OK; k++) {
        cpu_set_t both;
        CPU_AND(&both, &mine.set, &all[k].set);
        n_sharing += strcmp(mine.host, all[k].host) == 0 && CPU_COUNT(&both) > 0;
    }
    free(all);
    if (n_sharing > 1) *n = *n / n_sharing > 1 ? *n / n_sharing : 1;
    return s;
}

/* ---- GPUs ---- */

RtStatus ranks_place(Run *r, RtError *e)
{
    if (!r->comm) return RT_OK;
    uint64_t mine = host_number(), *all = calloc((size_t)comm_size(r->comm), sizeof *all);
    int place = 0;
    if (!all) return RT_FAIL(e, RT_FAILED, "out of memory for the machines of all ranks");
    RtStatus s = ranks_gather(r->comm, &mine, all, sizeof mine, "the machines", e);
    for (int k = 0; k < comm_rank(r->comm) && s == RT_OK; k++) place += all[k] == mine;
    comm_set_place(r->comm, place);
    free(all);
    return s;
}
