/* rt_nccl.c -- NCCL behind the runtime's interface, on the stand-in: ranks as threads with a
 * simulated GPU each; the results and bytes of the host's communicator, and what fails is named. */
#include <pthread.h>
#include <sys/wait.h>

#include "runtime/comm_nccl.h"
#include "tests/unit/gpusim_driver.h"
#include "tests/unit/rt_comm.h"

enum { MOST = 3, COUNT = 3000, LIMIT_S = 60 };

typedef struct Rank {
    const Driver *d;
    CommGroup *group;
    int number, size, device;
    Comm *host;
    Nccl *n;
    CUstream q;
    RtStatus status;
    RtError e;
    uint64_t n_bytes; /* of nccl_bytes */
} Rank;

typedef struct Scene {
    const char *name;
    void (*run)(Rank *r);
    int size;
    const char *env[2];  /* NAME=VALUE */
    RtStatus status;     /* of rank 0 */
    const char *text[3]; /* in rank 0's message */
} Scene;

static RtStatus enqueue(Rank *r, CommCall *call, CUdeviceptr in, CUdeviceptr out)
{
    call->in = (const void *)(uintptr_t)in;
    call->out = (void *)(uintptr_t)out;
    return nccl_enqueue(r->n, call, (CuStreamRef)r->q, &r->e);
}

/* ---- values ---- */

/* The same call on the host and on the GPU: the stand-in sums in rank order too. */
static void check_call(Rank *r, CommKind kind, uint32_t dtype, int64_t count)
{
    CommCall call = {.kind = kind, .dtype = dtype, .count = count, .root = r->size - 1};
    size_t elem = bytes_of(dtype), all = (size_t)count * elem;
    char *in = malloc(all), *out = calloc(1, all), *back = malloc(all);
    int64_t first, own = comm_shard(count, r->number, r->size, &first);
    size_t in_bytes = kind == COMM_ALL_GATHER ? (size_t)own * elem : all;
    size_t out_bytes = kind == COMM_REDUCE_SCATTER ? (size_t)own * elem : all;
    CUdeviceptr x, y;
    CHECK(in && out && back);
    fill(in, dtype, count, r->number, 5);
    DRIVER_TRY(r->d->cuMemAlloc_v2(&x, in_bytes));
    DRIVER_TRY(r->d->cuMemAlloc_v2(&y, out_bytes));
    DRIVER_TRY(r->d->cuMemcpyHtoD_v2(x, in, in_bytes));
    CHECK(enqueue(r, &call, x, y) == RT_OK);
    DRIVER_TRY(r->d->cuStreamSynchronize(r->q));
    DRIVER_TRY(r->d->cuMemcpyDtoH_v2(back, y, out_bytes));
    uint64_t before = comm_sent_all(r->host);
    r->n_bytes += (uint64_t)nccl_bytes(r->n, &call);
    call.in = in;
    call.out = out;
    CommCall on_host = call;
    CHECK(comm_run(r->host, &on_host, &r->e) == RT_OK);
    CHECK(memcmp(out, back, out_bytes) == 0);
    CHECK((uint64_t)nccl_bytes(r->n, &call) == comm_sent_all(r->host) - before);
    CHECK(nccl_check(r->n, NULL, 0, &r->e) == RT_OK);
    DRIVER_TRY(r->d->cuMemFree_v2(x));
    DRIVER_TRY(r->d->cuMemFree_v2(y));
    free(in);
    free(out);
    free(back);
}

static void run_values(Rank *r)
{
    static const uint32_t dtypes[] = {ZMP_F32, ZMP_F64, ZMP_BF16, ZMP_F16, ZMP_I32};
    for (size_t k = 0; k < sizeof dtypes / sizeof dtypes[0]; k++)
        for (int kind = 0; kind < COMM_BARRIER; kind++)
            check_call(r, (CommKind)kind, dtypes[k], COUNT);
    check_call(r, COMM_ALL_REDUCE, ZMP_F32, 7); /* not divided by the ranks */
    check_call(r, COMM_BROADCAST, ZMP_F32, 1);
}

/* ---- refusals and failures ---- */

static void run_nothing(Rank *r)
{
    (void)r;
}

static CommCall gather(int64_t count)
{
    return (CommCall){.kind = COMM_ALL_GATHER,
                      .dtype = ZMP_F32,
                      .count = count,
                      .tensor = "h.0.w",
                      .loc = "m.zm:4:3"};
}

static void run_uneven(Rank *r)
{
    CommCall call = gather(7);
    r->status = enqueue(r, &call, 0, 0);
}

static CUdeviceptr zeros(Rank *r)
{
    CUdeviceptr x;
    DRIVER_TRY(r->d->cuMemAlloc_v2(&x, COUNT * 4));
    DRIVER_TRY(r->d->cuMemsetD32Async(x, 0, COUNT, r->q));
    return x;
}

/* Collectives into place, until one cannot be enqueued or does not end. */
static void run_two(Rank *r)
{
    CommCall call = gather(r->size * 8);
    CUdeviceptr x = zeros(r);
    double end = seconds() + LIMIT_S / 2;
    for (int i = 0; i < 2 && r->status == RT_OK; i++)
        r->status = enqueue(r, &call, x + (uint64_t)r->number * 32, x);
    while (r->status == RT_OK && r->d->cuStreamQuery(r->q) == CUDA_ERROR_NOT_READY) {
        CHECK(seconds() < end);
        r->status = nccl_check(r->n, &call, 0, &r->e);
        usleep(1000);
    }
    nccl_abort(r->n);
    DRIVER_TRY(r->d->cuStreamSynchronize(r->q)); /* what was in flight has ended */
    CHECK(r->status == RT_OK || enqueue(r, &call, x, x) == RT_FAILED);
}

/* Rank 1 says that it ends; the others hear of it while they wait for the GPU. */
static void run_stopped(Rank *r)
{
    CommCall call = gather(r->size * 8);
    CUdeviceptr x = zeros(r);
    double start = seconds();
    if (r->number == 1) {
        comm_fail(r->host, RT_FAILED, "cannot read tokens.bin");
        return;
    }
    while (r->status == RT_OK) {
        CHECK(seconds() - start < LIMIT_S / 2);
        r->status = comm_watch(r->host, &call, seconds() - start, &r->e);
        usleep(1000);
    }
    DRIVER_TRY(r->d->cuMemFree_v2(x));
}

/* Rank 1 calls nothing for longer than the limit. */
static void run_silent(Rank *r)
{
    if (r->number == 1)
        usleep(2500000);
    else
        run_stopped(r);
}

static const Scene scenes[] = {
    {"values", run_values, 2, {0}, RT_OK, {0}},
    {"values", run_values, 3, {0}, RT_OK, {0}},
    {"uneven", run_uneven, 2, {0}, RT_BAD, {"all_gather of 'h.0.w'", "do not divide 7"}},
    {"missing",
     run_nothing,
     2,
     {"ZMC_NCCL=/nowhere"},
     RT_BAD,
     {"ZMC_NCCL is \"/nowhere\", which is no libnccl.so.2", "; unset it", "nvidia-nccl-cu13"}},
    {"old",
     run_nothing,
     2,
     {"GPUSIM_NCCL_VERSION=21403"},
     RT_BAD,
     {"version 2.14", "2.18 or later", "nvidia-nccl-cu13"}},
    {"one GPU", run_nothing, 2, {"ONE_GPU=1"}, RT_BAD, {"ranks 0 and 1 have one GPU (gpusim"}},
    {"absent",
     run_nothing,
     2,
     {"GPUSIM_NCCL_FAULT=absent@0:1", "ZMC_MEETING_LIMIT=1"},
     RT_FAILED,
     {"not connected the 2 ranks in 1 s", "the start of NCCL", "NCCL_DEBUG"}},
    {"refuse",
     run_two,
     2,
     {"GPUSIM_NCCL_FAULT=refuse@0:0", "ZMC_MEETING_LIMIT=1"},
     RT_FAILED,
     {"all_gather of 'h.0.w' (m.zm:4:3)", "unhandled system error", "injected"}},
    {"error",
     run_two,
     2,
     {"GPUSIM_NCCL_FAULT=error@1:0,error@1:1"},
     RT_FAILED,
     {"rank 0: NCCL 2.30.7 failed in all_gather of 'h.0.w' (m.zm:4:3)", "remote process exited",
      "injected"}},
    {"slow", run_two, 2, {"GPUSIM_NCCL_FAULT=slow@1:1:0.3"}, RT_OK, {0}},
    {"stopped",
     run_stopped,
     2,
     {0},
     RT_FAILED,
     {"rank 1 stopped, awaited by rank 0 in all_gather of 'h.0.w' (m.zm:4:3): cannot read"}},
    {"silent",
     run_silent,
     2,
     {"LIMIT=1"},
     RT_FAILED,
     {"rank 1 hangs: rank 0 has waited", "'h.0.w'"}},
};

/* ---- ranks ---- */

static const Scene *running;

static void *rank_main(void *arg)
{
    Rank *r = arg;
    CUcontext context;
    const char *limit = getenv("LIMIT");
    CommOptions o = {.world = r->size, .limit_s = limit ? atof(limit) : 10};
    CHECK(comm_local_open(&r->host, r->group, r->number, &o, &r->e) == RT_OK);
    DRIVER_TRY(r->d->cuCtxCreate_v2(&context, 0, getenv("ONE_GPU") ? 0 : r->number));
    DRIVER_TRY(r->d->cuStreamCreate(&r->q, 1));
    r->status = nccl_open(&r->n, r->host, &r->e);
    if (r->status == RT_OK) running->run(r);
    nccl_close(r->n);
    if (r->status != RT_OK) comm_fail(r->host, r->status, str_c(&r->e.text));
    comm_close(r->host);
    return NULL;
}

/* The stand-in has counted by itself what nccl_bytes says. */
static void check_counts(const Rank *ranks)
{
    char line[1024];
    int n_lines = 0;
    FILE *f = fopen(getenv("GPUSIM_NCCL_BYTES"), "r");
    CHECK(f);
    for (; fgets(line, sizeof line, f); n_lines++) {
        unsigned rank = 0;
        unsigned long long n = 0;
        CHECK(sscanf(line, "{\"rank\":%u,", &rank) == 1 && rank < MOST);
        CHECK(sscanf(strstr(line, "\"scalar_bytes\""), "\"scalar_bytes\":%*u,\"bytes\":%llu}",
                     &n) == 1);
        CHECK(n == ranks[rank].n_bytes);
    }
    fclose(f);
    unlink(getenv("GPUSIM_NCCL_BYTES"));
    CHECK(n_lines == ranks[0].size);
}

static void check_ranks(const Scene *k)
{
    static Driver d;
    pthread_t threads[MOST];
    Rank ranks[MOST] = {{0}};
    RtError e = {0};
    CommGroup *group;
    running = k;
    driver_open(&d);
    CHECK(comm_group_new(&group, k->size, &e) == RT_OK);
    for (int r = 0; r < k->size; r++) {
        ranks[r] = (Rank){.d = &d, .group = group, .number = r, .size = k->size};
        CHECK(pthread_create(&threads[r], NULL, rank_main, &ranks[r]) == 0);
    }
    for (int r = 0; r < k->size; r++) CHECK(pthread_join(threads[r], NULL) == 0);
    const char *text = str_c(&ranks[0].e.text);
    bool is_good = ranks[0].status == k->status && d.reports() == 0;
    for (int i = 0; i < 3 && k->text[i]; i++) is_good &= strstr(text, k->text[i]) != NULL;
    if (!is_good) fprintf(stderr, "%s: status %d, \"%s\"\n", k->name, ranks[0].status, text);
    for (int r = 0; r < k->size; r++) str_free(&ranks[r].e.text);
    if (k->run == run_values) check_counts(ranks);
    comm_group_free(group);
    CHECK(is_good);
}

static void set(const char *text)
{
    char name[64];
    size_t n = strcspn(text, "=");
    CHECK(n < sizeof name);
    snprintf(name, sizeof name, "%.*s", (int)n, text);
    setenv(name, text + n + 1, 1);
}

int main(void)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 16);
    CHECK(n > 0);
    path[n] = 0;
    strcpy(strrchr(path, '/'), "/gpusim");
    setenv("ZMC_NCCL", path, 1);
    setenv("GPUSIM_DEVICES", "3", 1);
    for (size_t i = 0; i < sizeof scenes / sizeof scenes[0]; i++) {
        int status;
        pid_t child = fork();
        if (child == 0) {
            alarm(LIMIT_S);
            snprintf(path, sizeof path, "/tmp/rt_nccl.%d", (int)getpid());
            setenv("GPUSIM_NCCL_BYTES", path, 1);
            for (int k = 0; k < 2 && scenes[i].env[k]; k++) set(scenes[i].env[k]);
            check_ranks(&scenes[i]);
            unlink(path);
            exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child);
        if (status) fprintf(stderr, "%s: %#x\n", scenes[i].name, status);
        CHECK(status == 0);
    }
    puts("PASS");
    return 0;
}
