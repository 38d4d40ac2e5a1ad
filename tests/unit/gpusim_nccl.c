/* gpusim_nccl.c -- the stand-in for NCCL between processes: what its collectives compute and count,
 * eagerly and in graphs, and that each planted defect and injected failure shows. */
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/gpusim/nccl/api.h"
#include "tests/unit/check.h"
#include "tests/unit/gpusim_driver.h"

enum { N_BIG = 100003, LIMIT_S = 60 };

/* X(name, parameters) */
#define NCCL_FUNCTIONS(X)                                                                          \
    X(ncclGetUniqueId, (ncclUniqueId * id))                                                        \
    X(ncclCommInitRankConfig,                                                                      \
      (ncclComm_t * c, int n_ranks, ncclUniqueId id, int rank, ncclConfig_t *config))              \
    X(ncclCommInitRank, (ncclComm_t * c, int n_ranks, ncclUniqueId id, int rank))                  \
    X(ncclCommDestroy, (ncclComm_t c))                                                             \
    X(ncclCommAbort, (ncclComm_t c))                                                               \
    X(ncclCommGetAsyncError, (ncclComm_t c, ncclResult_t * error))                                 \
    X(ncclAllGather,                                                                               \
      (const void *in, void *out, size_t n, ncclDataType_t t, ncclComm_t c, void *stream))         \
    X(ncclReduceScatter, (const void *in, void *out, size_t n, ncclDataType_t t, ncclRedOp_t op,   \
                          ncclComm_t c, void *stream))                                             \
    X(ncclAllReduce, (const void *in, void *out, size_t n, ncclDataType_t t, ncclRedOp_t op,       \
                      ncclComm_t c, void *stream))                                                 \
    X(ncclBroadcast, (const void *in, void *out, size_t n, ncclDataType_t t, int root,             \
                      ncclComm_t c, void *stream))

typedef struct Nccl {
#define NCCL_FIELD(NAME, PARAMS) ncclResult_t(*NAME) PARAMS;
    NCCL_FUNCTIONS(NCCL_FIELD)
#undef NCCL_FIELD
    uint64_t (*bytes)(ncclComm_t c);
    const char *(*last)(ncclComm_t c);
} Nccl;

typedef struct Rank { /* one process */
    Driver d;
    Nccl n;
    ncclComm_t c;
    CUstream q;
    int rank, size;
} Rank;

static void nccl_load(Nccl *n)
{
    char path[PATH_MAX], full[PATH_MAX + 32];
    ssize_t k = readlink("/proc/self/exe", path, sizeof path - 1);
    CHECK(k > 0);
    path[k] = 0;
    *strrchr(path, '/') = 0;
    snprintf(full, sizeof full, "%s/gpusim/libnccl.so.2", path);
    void *library = dlopen(full, RTLD_NOW);
    CHECK(library);
#define NCCL_LOAD(NAME, PARAMS) driver_symbol(library, #NAME, &n->NAME);
    NCCL_FUNCTIONS(NCCL_LOAD)
#undef NCCL_LOAD
    driver_symbol(library, "gpusim_nccl_bytes", &n->bytes);
    driver_symbol(library, "ncclGetLastError", &n->last);
}

static void *pointer(CUdeviceptr at)
{
    return (void *)(uintptr_t)at;
}

static CUdeviceptr floats_new(Rank *r, size_t n, float first)
{
    CUdeviceptr at;
    float *x = malloc(n * sizeof *x);
    CHECK(x);
    for (size_t i = 0; i < n; i++) x[i] = first + (float)(i % 1000);
    DRIVER_TRY(r->d.cuMemAlloc_v2(&at, n * sizeof *x));
    DRIVER_TRY(r->d.cuMemcpyHtoD_v2(at, x, n * sizeof *x));
    free(x);
    return at;
}

static float float_at(Rank *r, CUdeviceptr at, size_t i)
{
    float x;
    DRIVER_TRY(r->d.cuStreamSynchronize(r->q));
    DRIVER_TRY(r->d.cuMemcpyDtoH_v2(&x, at + i * sizeof x, sizeof x));
    return x;
}

static ncclResult_t state_of(Rank *r)
{
    ncclResult_t state;
    CHECK(r->n.ncclCommGetAsyncError(r->c, &state) == ncclSuccess);
    return state;
}

static ncclResult_t settled(Rank *r)
{
    ncclResult_t state;
    while ((state = state_of(r)) == ncclInProgress) usleep(200);
    return state;
}

#define SETTLE(R, CALL)                                                                            \
    do {                                                                                           \
        ncclResult_t result_ = (R)->n.CALL;                                                        \
        CHECK(result_ == ncclSuccess || result_ == ncclInProgress);                                \
        CHECK(settled(R) == ncclSuccess);                                                          \
    } while (0)

/* ---- what is computed ---- */

/* Rank k has k, k + 1, ...: all_gather into place, reduce_scatter out of place and in place. */
static void check_floats(Rank *r, size_t n)
{
    size_t size = (size_t)r->size, me = (size_t)r->rank, last = (n - 1) % 1000;
    uint64_t before = r->n.bytes(r->c);
    float sum = (float)(r->size * (r->size - 1) / 2);
    CUdeviceptr x = floats_new(r, n, (float)me), y = floats_new(r, n * size, -1),
                z = floats_new(r, n, -1);
    SETTLE(r, ncclAllGather(pointer(x), pointer(y), n, ncclFloat32, r->c, r->q));
    for (size_t k = 0; k < size; k++)
        CHECK(float_at(r, y, k * n + n - 1) == (float)k + (float)last);
    SETTLE(r, ncclReduceScatter(pointer(y), pointer(z), n, ncclFloat32, ncclSum, r->c, r->q));
    CHECK(float_at(r, z, n - 1) == (float)(r->size * (r->rank + (int)last)));
    SETTLE(r, ncclReduceScatter(pointer(y), pointer(y + me * n * 4), n, ncclFloat32, ncclSum, r->c,
                                r->q));
    CHECK(float_at(r, y, me * n + n - 1) == (float)(r->size * (r->rank + (int)last)));
    SETTLE(r, ncclAllReduce(pointer(x), pointer(x), n, ncclFloat32, ncclSum, r->c, r->q));
    CHECK(float_at(r, x, n - 1) == sum + (float)(size * last));
    SETTLE(r, ncclBroadcast(pointer(z), pointer(z), n, ncclFloat32, r->size - 1, r->c, r->q));
    CHECK(float_at(r, z, n - 1) == (float)(r->size * (r->size - 1 + (int)last)));
    uint64_t own = n / size + (me < n % size), others = size - 1;
    uint64_t elems = 3 * n * others + n - own + own * others + (others == me ? n * others : 0);
    CHECK(r->n.bytes(r->c) - before == 4 * elems);
    DRIVER_TRY(r->d.cuMemFree_v2(x));
    DRIVER_TRY(r->d.cuMemFree_v2(y));
    DRIVER_TRY(r->d.cuMemFree_v2(z));
}

/* 16-bit sums are rounded once: 256 + 1 + 1 + ... in f32. */
static void check_low(Rank *r, ncclDataType_t type, uint16_t big, uint16_t one, uint16_t two_more)
{
    CUdeviceptr at;
    uint16_t x = r->rank == 0 ? big : one;
    DRIVER_TRY(r->d.cuMemAlloc_v2(&at, sizeof x));
    DRIVER_TRY(r->d.cuMemcpyHtoD_v2(at, &x, sizeof x));
    SETTLE(r, ncclAllReduce(pointer(at), pointer(at), 1, type, ncclSum, r->c, r->q));
    DRIVER_TRY(r->d.cuStreamSynchronize(r->q));
    DRIVER_TRY(r->d.cuMemcpyDtoH_v2(&x, at, sizeof x));
    if (r->size == 3) CHECK(x == two_more);
    DRIVER_TRY(r->d.cuMemFree_v2(at));
}

static void run_values(Rank *r)
{
    check_floats(r, 1);
    check_floats(r, 1000);
    check_floats(r, N_BIG);                             /* more than a slot */
    check_low(r, ncclBfloat16, 0x4380, 0x3f80, 0x4381); /* 256 + 1 + 1 = 258 */
    check_low(r, ncclFloat16, 0x6800, 0x3c00, 0x6801);  /* 2048 + 1 + 1 = 2050 */
    CHECK(r->d.reports() == 0);
}

/* Of a collective of x on a side stream. */
static CUgraphExec graph_new(Rank *r, CUstream main, CUdeviceptr x)
{
    CUevent fork, join;
    CUgraph graph;
    CUgraphExec exec;
    DRIVER_TRY(r->d.cuEventCreate(&fork, 0));
    DRIVER_TRY(r->d.cuEventCreate(&join, 0));
    DRIVER_TRY(r->d.cuStreamBeginCapture_v2(main, 0));
    DRIVER_TRY(r->d.cuMemsetD32Async(x, 0x3f800000, 8, main)); /* 1.0 */
    DRIVER_TRY(r->d.cuEventRecord(fork, main));
    DRIVER_TRY(r->d.cuStreamWaitEvent(r->q, fork, 0));
    SETTLE(r, ncclAllReduce(pointer(x), pointer(x), 8, ncclFloat32, ncclSum, r->c, r->q));
    DRIVER_TRY(r->d.cuEventRecord(join, r->q));
    DRIVER_TRY(r->d.cuStreamWaitEvent(main, join, 0));
    DRIVER_TRY(r->d.cuStreamEndCapture(main, &graph));
    DRIVER_TRY(r->d.cuGraphInstantiateWithFlags(&exec, graph, 0));
    DRIVER_TRY(r->d.cuGraphDestroy(graph));
    return exec;
}

/* Replayed; eager ones between. */
static void run_graph(Rank *r)
{
    CUstream main;
    CUdeviceptr x = floats_new(r, 8, 1);
    DRIVER_TRY(r->d.cuStreamCreate(&main, 1));
    CUgraphExec exec = graph_new(r, main, x);
    for (int i = 0; i < 3; i++) {
        DRIVER_TRY(r->d.cuGraphLaunch(exec, main));
        DRIVER_TRY(r->d.cuStreamSynchronize(main));
        CHECK(float_at(r, x, 7) == (float)r->size);
        SETTLE(r, ncclAllReduce(pointer(x), pointer(x), 8, ncclFloat32, ncclSum, r->c, r->q));
        CHECK(float_at(r, x, 7) == (float)(r->size * r->size));
    }
    DRIVER_TRY(r->d.cuGraphExecDestroy(exec));
    CHECK(r->d.reports() == 0);
}

/* While its peer hangs; rank 1 destroys the graph before it aborts, the others forget to. */
static void run_graph_abort(Rank *r)
{
    CUstream main;
    CUdeviceptr x = floats_new(r, 8, 1);
    DRIVER_TRY(r->d.cuStreamCreate(&main, 1));
    CUgraphExec exec = graph_new(r, main, x);
    DRIVER_TRY(r->d.cuGraphLaunch(exec, main));
    if (r->rank == 1) DRIVER_TRY(r->d.cuGraphExecDestroy(exec));
    CHECK(r->d.cuStreamQuery(main) == CUDA_ERROR_NOT_READY);
    CHECK(r->n.ncclCommAbort(r->c) == ncclSuccess);
    r->c = NULL;
    DRIVER_TRY(r->d.cuStreamSynchronize(main)); /* what was launched goes on to its end */
    CHECK(r->d.reports() == (r->rank == 1 ? 0u : 1u));
}

/* ---- planted defects ---- */

static void abort_comm(Rank *r)
{
    CHECK(r->n.ncclCommAbort(r->c) == ncclSuccess);
    r->c = NULL;
}

/* Until the asynchronous error is there; what was enqueued never ends. */
static void expect_error(Rank *r, ncclResult_t error)
{
    while (state_of(r) == ncclSuccess) {
        CHECK(r->d.cuStreamQuery(r->q) == CUDA_ERROR_NOT_READY);
        usleep(200);
    }
    CHECK(state_of(r) == error);
}

static void expect_abort(Rank *r)
{
    abort_comm(r);
    DRIVER_TRY(r->d.cuStreamSynchronize(r->q));
}

static void run_mismatch(Rank *r)
{
    CUdeviceptr x = floats_new(r, 64, 1);
    size_t n = r->rank == 1 ? 15 : 16;
    SETTLE(r, ncclAllReduce(pointer(x), pointer(x), 16, ncclFloat32, ncclSum, r->c, r->q));
    SETTLE(r, ncclAllReduce(pointer(x), pointer(x), n, ncclFloat32, ncclSum, r->c, r->q));
    expect_error(r, ncclInvalidUsage);
    CHECK(strstr(r->n.last(r->c), "of 15 elements") && strstr(r->n.last(r->c), "of 16 elements"));
    CHECK(r->d.reports() == 1);
    expect_abort(r);
}

/* Blocking: both are enqueued before the first one can fail. */
static void run_order(Rank *r)
{
    CUdeviceptr x = floats_new(r, 64, 1);
    SETTLE(r, ncclAllReduce(pointer(x), pointer(x), 8, ncclFloat32, ncclSum, r->c, r->q));
    for (int i = 0; i < 2; i++) {
        if ((r->rank + i) % 2)
            (void)r->n.ncclAllReduce(pointer(x), pointer(x), 8, ncclFloat32, ncclSum, r->c, r->q);
        else
            (void)r->n.ncclBroadcast(pointer(x), pointer(x), 8, ncclFloat32, 0, r->c, r->q);
    }
    expect_error(r, ncclInvalidUsage);
    CHECK(r->d.reports() == 1);
    expect_abort(r);
}

static void run_bounds(Rank *r)
{
    CUdeviceptr x = floats_new(r, 16, 1);
    CHECK(r->n.ncclAllReduce(pointer(x), pointer(x), 17, ncclFloat32, ncclSum, r->c, r->q) ==
          ncclInvalidArgument);
    CHECK(r->d.reports() == 1);
    CHECK(r->n.ncclAllGather(pointer(x), pointer(x + 4), 4, ncclFloat32, r->c, r->q) ==
              ncclInvalidArgument ||
          r->rank > 0);
    CHECK(r->d.reports() >= (r->rank == 0 ? 2u : 1u)); /* an overlap */
}

static void run_uninitialised(Rank *r)
{
    CUdeviceptr x;
    DRIVER_TRY(r->d.cuMemAlloc_v2(&x, 64));
    SETTLE(r, ncclAllReduce(pointer(x), pointer(x), 16, ncclFloat32, ncclSum, r->c, r->q));
    DRIVER_TRY(r->d.cuStreamSynchronize(r->q));
    CHECK(r->d.reports() == 1);
}

static void run_race(Rank *r)
{
    CUstream other;
    CUdeviceptr x = floats_new(r, 16, 1);
    DRIVER_TRY(r->d.cuStreamCreate(&other, 1));
    SETTLE(r, ncclAllReduce(pointer(x), pointer(x), 16, ncclFloat32, ncclSum, r->c, r->q));
    DRIVER_TRY(r->d.cuMemsetD32Async(x, 0, 16, other));
    DRIVER_TRY(r->d.cuCtxSynchronize());
    CHECK(r->d.reports() >= 1);
}

/* ---- injected failures; the collective at fault is the one after the first ---- */

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Enqueues two; false: the second was refused. */
static bool enqueue_two(Rank *r)
{
    CUdeviceptr x = floats_new(r, 16, 1);
    SETTLE(r, ncclAllReduce(pointer(x), pointer(x), 16, ncclFloat32, ncclSum, r->c, r->q));
    DRIVER_TRY(r->d.cuStreamSynchronize(r->q));
    ncclResult_t result =
        r->n.ncclAllReduce(pointer(x), pointer(x), 16, ncclFloat32, ncclSum, r->c, r->q);
    if (result == ncclInProgress) { /* too early for another one */
        CHECK(r->n.ncclAllReduce(pointer(x), pointer(x), 16, ncclFloat32, ncclSum, r->c, r->q) ==
              ncclInvalidArgument);
        result = settled(r);
    }
    return result == ncclSuccess;
}

/* The second never ends, here and (but for `error` on rank 1) without a word. */
static void expect_hang(Rank *r)
{
    double end = now_s() + 0.3;
    while (now_s() < end) {
        CHECK(r->d.cuStreamQuery(r->q) == CUDA_ERROR_NOT_READY);
        CHECK(state_of(r) == ncclSuccess);
        usleep(1000);
    }
    expect_abort(r);
}

static void run_error(Rank *r)
{
    CHECK(enqueue_two(r));
    if (r->rank != 1) {
        expect_hang(r);
        return;
    }
    expect_error(r, ncclRemoteError);
    expect_abort(r);
}

static void run_hang(Rank *r)
{
    CHECK(enqueue_two(r));
    expect_hang(r);
}

static void run_slow(Rank *r)
{
    double start = now_s();
    CHECK(enqueue_two(r));
    DRIVER_TRY(r->d.cuStreamSynchronize(r->q));
    CHECK(now_s() - start >= 0.2);
}

static void run_refuse(Rank *r)
{
    CHECK(enqueue_two(r) == (r->rank != 1));
    if (r->rank != 1) expect_hang(r);
}

static void run_absent(Rank *r) /* no communicator was made */
{
    double end = now_s() + 0.3;
    while (now_s() < end) CHECK(state_of(r) == ncclInProgress);
    abort_comm(r);
}

/* ---- processes ---- */

typedef struct Case {
    const char *name;
    void (*run)(Rank *r);
    int size;
    bool is_blocking;
    const char *fault;
    int dies; /* the rank that is killed; -1: none */
} Case;

static const Case cases[] = {
    {"values", run_values, 1, false, "", -1},
    {"values", run_values, 2, true, "", -1},
    {"values", run_values, 3, false, "", -1},
    {"graph", run_graph, 2, false, "", -1},
    {"graph of an aborted communicator", run_graph_abort, 2, false, "hang@0:1", -1},
    {"mismatch", run_mismatch, 2, false, "", -1},
    {"order", run_order, 2, true, "", -1},
    {"bounds", run_bounds, 2, true, "", -1},
    {"uninitialised", run_uninitialised, 2, false, "", -1},
    {"race", run_race, 2, false, "", -1},
    {"error", run_error, 2, false, "error@1:1", -1},
    {"hang", run_hang, 2, false, "hang@1:1", -1},
    {"slow", run_slow, 2, false, "slow@1:0:0.2", -1},
    {"refuse", run_refuse, 2, false, "slow@9:0,refuse@1:1", -1},
    {"die", run_hang, 2, false, "die@1:1", 1},
    {"absent", run_absent, 2, false, "absent@0:1", -1},
};

static void rank_main(const Case *k, int rank, ncclUniqueId id)
{
    ncclConfig_t config = {sizeof config, (unsigned)NCCL_API_MAGIC, NCCL_VERSION_CODE, 0};
    Rank r = {.rank = rank, .size = k->size};
    CUcontext context;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(LIMIT_S);
    driver_open(&r.d);
    nccl_load(&r.n);
    DRIVER_TRY(r.d.cuCtxCreate_v2(&context, 0, rank));
    DRIVER_TRY(r.d.cuStreamCreate(&r.q, 1));
    ncclResult_t result =
        r.n.ncclCommInitRankConfig(&r.c, k->size, id, rank, k->is_blocking ? NULL : &config);
    CHECK(result == (k->is_blocking ? ncclSuccess : ncclInProgress));
    if (k->run != run_absent) CHECK(settled(&r) == ncclSuccess);
    k->run(&r);
    if (r.c) CHECK(r.n.ncclCommDestroy(r.c) == ncclSuccess);
    exit(0);
}

static void check_case(const Case *k)
{
    Nccl n;
    ncclUniqueId id;
    pid_t pids[4];
    int status;
    nccl_load(&n);
    setenv("GPUSIM_NCCL_FAULT", k->fault, 1);
    CHECK(n.ncclGetUniqueId(&id) == ncclSuccess);
    for (int r = 0; r < k->size; r++) {
        pids[r] = fork();
        CHECK(pids[r] >= 0);
        if (pids[r] == 0) rank_main(k, r, id);
    }
    for (int r = 0; r < k->size; r++) {
        CHECK(waitpid(pids[r], &status, 0) == pids[r]);
        bool is_good = r == k->dies ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL
                                    : WIFEXITED(status) && WEXITSTATUS(status) == 0;
        if (!is_good) fprintf(stderr, "%s: rank %d of %d: %#x\n", k->name, r, k->size, status);
        CHECK(is_good);
    }
}

/* Two ranks on device 0, and NCCL's own check of it. */
static void run_one_gpu(int rank, ncclUniqueId id)
{
    Rank r = {.rank = rank, .size = 2};
    alarm(LIMIT_S);
    driver_open(&r.d);
    nccl_load(&r.n);
    CHECK(r.n.ncclCommInitRank(&r.c, 2, id, rank) == ncclInvalidUsage);
    CHECK(strstr(r.n.last(r.c), "Duplicate GPU detected : rank 1 and rank 0"));
    exit(0);
}

static void check_one_gpu(void)
{
    Nccl n;
    ncclUniqueId id;
    int status;
    nccl_load(&n);
    unsetenv("GPUSIM_NCCL_FAULT");
    CHECK(n.ncclGetUniqueId(&id) == ncclSuccess);
    for (int r = 0; r < 2; r++)
        if (fork() == 0) run_one_gpu(r, id);
    for (int r = 0; r < 2; r++) CHECK(wait(&status) > 0 && status == 0);
}

int main(void)
{
    setenv("GPUSIM_DEVICES", "4", 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) check_case(&cases[i]);
    check_one_gpu();
    puts("PASS");
    return 0;
}
