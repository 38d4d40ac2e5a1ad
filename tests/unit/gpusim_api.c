/* gpusim_api.c -- the driver's calls on the simulator: what they promise and what they refuse. */
#include <stdbool.h>
#include <sys/wait.h>

#include "tests/unit/check.h"
#include "tests/unit/gpusim_driver.h"

enum { N = 64 };

/* x[i] = 2 x[i] + 1, i < ntid; steps over y, so that a kernel has two parameters of two sizes. */
static const char ptx[] =
    ".version 8.0\n.target sm_80\n.address_size 64\n"
    ".global .align 4 .u32 counter = 41;\n"
    ".visible .entry step(.param .u32 k, .param .u64 x)\n.maxntid 128, 1, 1\n{\n"
    ".reg .b32 %r<9>;\n.reg .b64 %l<9>;\n.shared .align 4 .b8 sh[512];\n"
    "ld.param.u32 %r3, [k];\nld.param.u64 %l1, [x];\nmov.u32 %r1, %tid.x;\n"
    "mad.wide.u32 %l1, %r1, 4, %l1;\nld.global.u32 %r2, [%l1];\nmad.lo.u32 %r2, %r2, 2, %r3;\n"
    "st.global.u32 [%l1], %r2;\nret;\n}\n"
    ".visible .entry count()\n{\n.reg .b32 %r<9>;\n.reg .b64 %l<9>;\nmov.u64 %l1, counter;\n"
    "ld.global.u32 %r1, [%l1];\nadd.u32 %r1, %r1, 1;\nst.global.u32 [%l1], %r1;\nret;\n}\n";

static CUfunction function_of(const Driver *d, CUmodule m, const char *name)
{
    CUfunction f;
    DRIVER_TRY(d->cuModuleGetFunction(&f, m, name));
    return f;
}

static CUdeviceptr words_of(const Driver *d, uint32_t value)
{
    CUdeviceptr at;
    DRIVER_TRY(d->cuMemAlloc_v2(&at, N * 4));
    DRIVER_TRY(d->cuMemsetD32_v2(at, value, N));
    return at;
}

static CUresult step(const Driver *d, CUfunction f, uint32_t k, CUdeviceptr at, CUstream stream)
{
    void *params[] = {&k, &at};
    return d->cuLaunchKernel(f, 1, 1, 1, N, 1, 1, 0, stream, params, NULL);
}

static uint32_t word(const Driver *d, CUdeviceptr at)
{
    uint32_t v;
    DRIVER_TRY(d->cuMemcpyDtoH_v2(&v, at, sizeof v));
    return v;
}

/* ---- devices, errors, lookup ---- */

static void check_devices(const Driver *d)
{
    const char *text;
    int n, version, major, minor;
    CUcontext one;
    CUdevice device;
    char name[32];
    size_t bytes;
    DRIVER_TRY(d->cuDeviceGetCount(&n));
    DRIVER_TRY(d->cuDriverGetVersion(&version));
    DRIVER_TRY(d->cuDeviceGetAttribute(&major, 75, 1));
    DRIVER_TRY(d->cuDeviceGetAttribute(&minor, 76, 1));
    DRIVER_TRY(d->cuDeviceGetName(name, sizeof name, 0));
    DRIVER_TRY(d->cuDeviceTotalMem_v2(&bytes, 1));
    CHECK(n == 2 && version >= 12000 && major == 8 && minor == 9 && bytes == 1 << 20);
    CHECK(strcmp(name, "gpusim sm_89") == 0);
    CHECK(d->cuDeviceGet(&device, 2) == CUDA_ERROR_INVALID_DEVICE);
    DRIVER_TRY(d->cuGetErrorName(700, &text));
    CHECK(strcmp(text, "CUDA_ERROR_ILLEGAL_ADDRESS") == 0);
    CHECK(d->cuGetErrorString(12345, &text) == CUDA_ERROR_INVALID_VALUE && text == NULL);
    DRIVER_TRY(d->cuDevicePrimaryCtxRetain(&one, 1));
    DRIVER_TRY(d->cuCtxSetCurrent(one));
    DRIVER_TRY(d->cuCtxGetDevice(&device));
    CHECK(device == 1);
    DRIVER_TRY(d->cuDevicePrimaryCtxRelease_v2(1));
    CHECK(d->cuDevicePrimaryCtxRelease_v2(1) == CUDA_ERROR_INVALID_CONTEXT);
    DRIVER_TRY(d->cuCtxSetCurrent(d->context));
    void *fn;
    DRIVER_TRY(d->cuGetProcAddress_v2("cuMemAlloc", &fn, 12000, 0, NULL));
    CHECK(memcmp(&fn, &d->cuMemAlloc_v2, sizeof fn) == 0);
    DRIVER_TRY(d->cuGetProcAddress("cuInit", &fn, 12000, 0));
    CHECK(memcmp(&fn, &d->cuInit, sizeof fn) == 0);
    CHECK(d->cuGetProcAddress("cuNonsense", &fn, 12000, 0) == CUDA_ERROR_NOT_FOUND);
}

/* ---- modules ---- */

static void check_refused(const Driver *d, const char *body, CUresult rc, const char *says)
{
    char text[512], log[256] = "";
    int options[] = {5, 6};
    void *values[] = {log, (void *)(uintptr_t)sizeof log};
    CUmodule m;
    snprintf(text, sizeof text, ".version 8.0\n.target sm_80\n.address_size 64\n%s", body);
    CHECK(d->cuModuleLoadDataEx(&m, text, 2, options, values) == rc);
    if (!strstr(log, says)) fprintf(stderr, "the log is '%s', not '%s'\n", log, says);
    CHECK(strstr(log, says) != NULL);
}

static void check_modules(const Driver *d)
{
    CUmodule m;
    CUfunction f;
    CUdeviceptr at;
    size_t bytes;
    int value;
    CHECK(d->cuModuleLoadData(&m, "\177ELF a cubin") == CUDA_ERROR_NO_BINARY_FOR_GPU);
    check_refused(d, ".visible .entry k()\n{\n.reg .b32 %r<3>;\nwarp.speed.b32 %r1, %r2;\n}\n",
                  CUDA_ERROR_INVALID_PTX, "PTX line 7: 'warp.speed.b32'");
    check_refused(d, ".visible .entry k()\n{\nbra NOWHERE;\n}\n", CUDA_ERROR_INVALID_PTX,
                  "NOWHERE");
    check_refused(d, ".visible .entry k()\n{\n.reg .b64 %r<3>;\nadd.u32 %r1, %r1, %r2;\n}\n",
                  CUDA_ERROR_INVALID_PTX, "a register of 64 bits where 32 are taken");
    check_refused(d, ".target sm_90\n", CUDA_ERROR_NO_BINARY_FOR_GPU, "sm_90");
    DRIVER_TRY(d->cuModuleLoadData(&m, ptx));
    CHECK(d->cuModuleGetFunction(&f, m, "none") == CUDA_ERROR_NOT_FOUND);
    DRIVER_TRY(d->cuModuleGetGlobal_v2(&at, &bytes, m, "counter"));
    CHECK(bytes == 4 && word(d, at) == 41);
    f = function_of(d, m, "count");
    for (int i = 0; i < 2; i++)
        DRIVER_TRY(d->cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
    CHECK(word(d, at) == 43);
    f = function_of(d, m, "step");
    DRIVER_TRY(d->cuFuncGetAttribute(&value, 0, f));
    CHECK(value == 128);
    DRIVER_TRY(d->cuFuncGetAttribute(&value, 1, f));
    CHECK(value == 512);
    DRIVER_TRY(d->cuModuleUnload(m));
}

static void check_launch_limits(const Driver *d)
{
    CUmodule m;
    DRIVER_TRY(d->cuModuleLoadData(&m, ptx));
    CUfunction f = function_of(d, m, "step");
    CUdeviceptr at = words_of(d, 1);
    uint32_t k = 0;
    void *params[] = {&k, &at};
    CHECK(d->cuLaunchKernel(f, 1, 1, 1, 129, 1, 1, 0, NULL, params, NULL) ==
          CUDA_ERROR_INVALID_VALUE);
    CHECK(d->cuLaunchKernel(f, 0, 1, 1, 1, 1, 1, 0, NULL, params, NULL) ==
          CUDA_ERROR_INVALID_VALUE);
    CHECK(d->cuLaunchKernel(f, 1, 65536, 1, 1, 1, 1, 0, NULL, params, NULL) ==
          CUDA_ERROR_INVALID_VALUE);
    CHECK(d->cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 49000, NULL, params, NULL) ==
          CUDA_ERROR_INVALID_VALUE);
    DRIVER_TRY(d->cuFuncSetAttribute(f, 8, 90000));
    DRIVER_TRY(d->cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 90000, NULL, params, NULL));
    CHECK(d->cuFuncSetAttribute(f, 8, 300000) == CUDA_ERROR_INVALID_VALUE);
    CUlaunchConfig c = {1, 1, 1, N, 1, 1, 0, NULL, NULL, 0};
    k = 5;
    DRIVER_TRY(d->cuLaunchKernelEx(&c, f, params, NULL));
    CHECK(word(d, at) == 2 * 2 + 5);
    DRIVER_TRY(d->cuMemFree_v2(at));
    DRIVER_TRY(d->cuModuleUnload(m));
}

/* ---- memory ---- */

static void check_memory(const Driver *d)
{
    CUdeviceptr a, b;
    size_t left, total, left_after;
    uint16_t halves[N];
    DRIVER_TRY(d->cuMemGetInfo_v2(&left, &total));
    CHECK(total == 1 << 20 && left <= total);
    DRIVER_TRY(d->cuMemAlloc_v2(&a, 1000));
    DRIVER_TRY(d->cuMemGetInfo_v2(&left_after, &total));
    CHECK(left - left_after == 1024 && a % 256 == 0);
    CHECK(d->cuMemAlloc_v2(&b, left) == CUDA_ERROR_OUT_OF_MEMORY);
    DRIVER_TRY(d->cuMemFree_v2(a));
    CHECK(d->cuMemFree_v2(a) == CUDA_ERROR_INVALID_VALUE);
    DRIVER_TRY(d->cuMemAlloc_v2(&b, left));
    DRIVER_TRY(d->cuMemFree_v2(b));
    a = words_of(d, 0);
    b = words_of(d, 0);
    DRIVER_TRY(d->cuMemsetD16_v2(a, 0x1234, N));
    DRIVER_TRY(d->cuMemsetD8_v2(a, 0xff, 3));
    CHECK(d->cuMemsetD32_v2(a + 2, 0, 1) == CUDA_ERROR_INVALID_VALUE);
    CHECK(d->cuMemcpyDtoD_v2(b, a, N * 4 + 1) == CUDA_ERROR_INVALID_VALUE);
    DRIVER_TRY(d->cuMemcpyDtoD_v2(b, a, N * 4));
    DRIVER_TRY(d->cuMemcpyDtoH_v2(halves, b, sizeof halves));
    CHECK(halves[0] == 0xffff && halves[1] == 0x12ff && halves[2] == 0x1234);
    CHECK(d->host_address(b, N * 4) != NULL && d->host_address(b, N * 4 + 1) == NULL);
    DRIVER_TRY(d->cuMemFree_v2(a));
    DRIVER_TRY(d->cuMemFree_v2(b));
}

/* Nothing runs before somebody waits; pageable memory is read at the call, pinned when it runs. */
static void check_async(const Driver *d)
{
    CUdeviceptr at = words_of(d, 0);
    CUstream q;
    CUevent e, end;
    uint32_t pageable = 7, *pinned, back = 0;
    float ms = -1;
    DRIVER_TRY(d->cuStreamCreate(&q, 1));
    DRIVER_TRY(d->cuEventCreate(&e, 0));
    DRIVER_TRY(d->cuEventCreate(&end, 0));
    DRIVER_TRY(d->cuMemHostAlloc((void **)&pinned, 4, 0));
    *pinned = 1;
    DRIVER_TRY(d->cuEventRecord(e, q));
    DRIVER_TRY(d->cuMemcpyHtoDAsync_v2(at, &pageable, 4, q));
    DRIVER_TRY(d->cuMemcpyHtoDAsync_v2(at + 4, pinned, 4, q));
    DRIVER_TRY(d->cuMemcpyDtoHAsync_v2(&back, at, 4, q));
    DRIVER_TRY(d->cuEventRecord(end, q));
    pageable = 8;
    *pinned = 2;
    CHECK(d->cuEventElapsedTime(&ms, e, end) == CUDA_ERROR_NOT_READY);
    CHECK(back == 0 && d->cuStreamQuery(q) == CUDA_ERROR_NOT_READY);
    int n = 0;
    while (d->cuEventQuery(end) == CUDA_ERROR_NOT_READY) CHECK(++n < 10);
    DRIVER_TRY(d->cuEventElapsedTime(&ms, e, end));
    CHECK(back == 7 && ms >= 0 && word(d, at) == 7 && word(d, at + 4) == 2);
    DRIVER_TRY(d->cuMemFreeHost(pinned));
    DRIVER_TRY(d->cuStreamDestroy_v2(q));
    CHECK(d->cuStreamSynchronize(q) == CUDA_ERROR_INVALID_HANDLE);
    DRIVER_TRY(d->cuEventDestroy_v2(e));
    DRIVER_TRY(d->cuEventDestroy_v2(end));
    DRIVER_TRY(d->cuMemFree_v2(at));
}

/* A blocking stream, the legacy stream, a blocking stream: in that order, with no event. */
static void check_legacy(const Driver *d)
{
    CUmodule m;
    CUstream one, two;
    DRIVER_TRY(d->cuModuleLoadData(&m, ptx));
    CUfunction f = function_of(d, m, "step");
    CUdeviceptr at = words_of(d, 1);
    DRIVER_TRY(d->cuStreamCreate(&one, 0));
    DRIVER_TRY(d->cuStreamCreate(&two, 0));
    for (int i = 0; i < 8; i++) {
        DRIVER_TRY(d->cuMemsetD32Async(at, 1, N, two));
        DRIVER_TRY(step(d, f, 0, at, NULL));        /* 2 */
        DRIVER_TRY(step(d, f, 1, at, one));         /* 5 */
        DRIVER_TRY(step(d, f, 2, at, (CUstream)1)); /* 12 */
        DRIVER_TRY(step(d, f, 3, at, two));         /* 27 */
        DRIVER_TRY(d->cuStreamSynchronize(two));
        CHECK(word(d, at) == 27);
    }
    DRIVER_TRY(d->cuStreamDestroy_v2(one));
    DRIVER_TRY(d->cuStreamDestroy_v2(two));
    DRIVER_TRY(d->cuMemFree_v2(at));
    DRIVER_TRY(d->cuModuleUnload(m));
}

/* ---- operations of the host, graphs ---- */

typedef struct Doubling {
    uint32_t *at;
    int n_runs, n_asked;
} Doubling;

/* Waits once for somebody else: it is asked again. */
static GpusimPoll double_it(void *arg)
{
    Doubling *x = arg;
    if (x->n_asked++ % 2 == 0) return GPUSIM_LATER;
    for (int i = 0; i < N; i++) x->at[i] *= 2;
    x->n_runs++;
    return GPUSIM_DONE;
}

static void check_graph(const Driver *d)
{
    CUmodule m;
    CUstream q, side;
    CUgraph graph;
    CUgraphExec exec;
    CUevent e;
    size_t n_nodes;
    DRIVER_TRY(d->cuModuleLoadData(&m, ptx));
    CUfunction f = function_of(d, m, "step");
    CUdeviceptr at = words_of(d, 1);
    Doubling x = {d->host_address(at, N * 4), 0, 0};
    GpusimRange range[] = {{at, N * 4, 0}, {at, N * 4, 1}};
    DRIVER_TRY(d->cuStreamCreate(&q, 1));
    DRIVER_TRY(d->cuStreamCreate(&side, 1));
    DRIVER_TRY(d->cuEventCreate(&e, 0));
    DRIVER_TRY(d->cuStreamBeginCapture_v2(q, 0));
    DRIVER_TRY(step(d, f, 1, at, q));
    DRIVER_TRY(d->enqueue(q, "double", double_it, &x, range, 2));
    CHECK(d->cuStreamEndCapture(side, &graph) == CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    DRIVER_TRY(d->cuStreamEndCapture(q, &graph));
    DRIVER_TRY(d->cuGraphGetNodes(graph, NULL, &n_nodes));
    CHECK(n_nodes == 2);
    DRIVER_TRY(d->cuGraphInstantiateWithFlags(&exec, graph, 0));
    CHECK(word(d, at) == 1 && x.n_runs == 0);
    for (int i = 0; i < 3; i++) DRIVER_TRY(d->cuGraphLaunch(exec, q));
    DRIVER_TRY(d->cuStreamSynchronize(q));
    CHECK(word(d, at) == 106 && x.n_runs == 3); /* 6, 26, 106 */
    DRIVER_TRY(d->cuGraphExecDestroy(exec));
    DRIVER_TRY(d->cuGraphDestroy(graph));
    DRIVER_TRY(d->cuStreamBeginCapture_v2(q, 0)); /* a side stream that is not joined */
    DRIVER_TRY(d->cuEventRecord(e, q));
    DRIVER_TRY(d->cuStreamWaitEvent(side, e, 0));
    DRIVER_TRY(step(d, f, 1, at, side));
    CHECK(d->cuStreamEndCapture(q, &graph) == CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    DRIVER_TRY(step(d, f, 0, at, side)); /* no longer captured */
    DRIVER_TRY(d->cuStreamSynchronize(side));
    CHECK(word(d, at) == 212);
    DRIVER_TRY(d->cuStreamDestroy_v2(q));
    DRIVER_TRY(d->cuStreamDestroy_v2(side));
    DRIVER_TRY(d->cuEventDestroy_v2(e));
    DRIVER_TRY(d->cuMemFree_v2(at));
    DRIVER_TRY(d->cuModuleUnload(m));
}

/* A module belongs to the device that was current. */
static void check_two_devices(const Driver *d)
{
    CUcontext one;
    CUmodule m;
    CUstream q;
    DRIVER_TRY(d->cuDevicePrimaryCtxRetain(&one, 1));
    DRIVER_TRY(d->cuCtxSetCurrent(one));
    DRIVER_TRY(d->cuModuleLoadData(&m, ptx));
    DRIVER_TRY(d->cuStreamCreate(&q, 1));
    CUdeviceptr at = words_of(d, 3), here;
    CUfunction f = function_of(d, m, "step");
    DRIVER_TRY(step(d, f, 1, at, q));
    DRIVER_TRY(d->cuStreamSynchronize(q));
    DRIVER_TRY(d->cuCtxSetCurrent(d->context));
    CHECK(step(d, f, 1, at, NULL) == CUDA_ERROR_INVALID_HANDLE);
    here = words_of(d, 0);
    DRIVER_TRY(d->cuMemcpy(here, at, N * 4));
    CHECK(word(d, here) == 7);
    DRIVER_TRY(d->cuModuleUnload(m));
    DRIVER_TRY(d->cuModuleLoadData(&m, ptx));
    CHECK(step(d, function_of(d, m, "step"), 1, here, q) == CUDA_ERROR_INVALID_HANDLE);
    DRIVER_TRY(d->cuModuleUnload(m));
}

/* ---- the environment ---- */

/* What cuInit says on stderr with a setting, or then the numbers of the devices: "2 0". */
static void start_with(const char *name, const char *value, char *said, size_t size)
{
    int ends[2], status;
    CHECK(pipe(ends) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CUresult (*init)(unsigned int), (*count)(int *), (*uuid)(void *, CUdevice);
        char id[17] = "";
        int n;
        dup2(ends[1], STDERR_FILENO);
        void *library = driver_library(false);
        setenv("GPUSIM_DEVICES", "3", 1);
        setenv(name, value, 1);
        driver_symbol(library, "cuInit", &init);
        driver_symbol(library, "cuDeviceGetCount", &count);
        driver_symbol(library, "cuDeviceGetUuid_v2", &uuid);
        CUresult rc = init(0);
        if (rc != CUDA_SUCCESS) exit(rc == CUDA_ERROR_NO_DEVICE ? 0 : 1);
        CHECK(count(&n) == CUDA_SUCCESS);
        for (int i = 0; i < n; i++) {
            CHECK(uuid(id, i) == CUDA_SUCCESS);
            fprintf(stderr, "%s%d", i ? " " : "", atoi(id + strlen("gpusim device ")));
        }
        exit(0);
    }
    close(ends[1]);
    size_t n_said = 0;
    for (ssize_t n; (n = read(ends[0], said + n_said, size - 1 - n_said)) > 0;) n_said += (size_t)n;
    said[n_said] = '\0';
    close(ends[0]);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static void check_settings(void)
{
    static const char *const cases[][3] = {
        {"GPUSIM_ARCH", "abc", "compute capability such as 80"},
        {"GPUSIM_ARCH", "8.0", "compute capability such as 80"},
        {"GPUSIM_ARCH", "8", "compute capability such as 80"},
        {"GPUSIM_MEMORY", "xx", "number of bytes such as 512M, at most 64G"},
        {"GPUSIM_MEMORY", "0", "number of bytes such as 512M, at most 64G"},
        {"GPUSIM_MEMORY", "4GB", "number of bytes such as 512M, at most 64G"},
        {"GPUSIM_MEMORY", "65G", "number of bytes such as 512M, at most 64G"},
        {"GPUSIM_MEMORY", "17179869185G", "number of bytes such as 512M, at most 64G"},
        {"GPUSIM_DEVICES", "99", "number of devices from 1 to 8"},
        {"GPUSIM_DEVICES", "0", "number of devices from 1 to 8"},
        {"GPUSIM_SEED", "abc", "number such as 7"},
        {"GPUSIM_SEED", "-1", "number such as 7"},
        {"GPUSIM_SEED", "18446744073709551616", "number such as 7"},
    };
    char said[256], expected[256];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *const *c = cases[i];
        snprintf(expected, sizeof expected, "gpusim: %s=%s is no %s\n", c[0], c[1], c[2]);
        start_with(c[0], c[1], said, sizeof said);
        if (strcmp(said, expected) != 0) fprintf(stderr, "%s, not %s", said, expected);
        CHECK(strcmp(said, expected) == 0);
    }
    start_with("GPUSIM_MEMORY", "64G", said, sizeof said);
    CHECK(strcmp(said, "0 1 2") == 0);
}

static void check_visible(void)
{
    static const char *const cases[][2] = {
        {"2,0", "2 0"}, {"1", "1"},  {"0,1,2", "0 1 2"}, {"1,3,0", "1"}, {"1,-1,0", "1"},
        {"", ""},       {"3,0", ""}, {"-1", ""},         {"x", ""},      {"0,1,0", ""},
    };
    char said[256];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        start_with("CUDA_VISIBLE_DEVICES", cases[i][0], said, sizeof said);
        if (strcmp(said, cases[i][1]) != 0) fprintf(stderr, "%s leaves %s\n", cases[i][0], said);
        CHECK(strcmp(said, cases[i][1]) == 0);
    }
}

/* ---- the order is the seed's ---- */

typedef struct Trace {
    int n, order[6];
} Trace;

typedef struct Mark {
    Trace *trace;
    int number;
} Mark;

static void mark(void *arg)
{
    Mark *m = arg;
    m->trace->order[m->trace->n++] = m->number;
}

/* Three streams of two operations each, as digits in the order in which they ran. */
static int order_of_seed(const char *seed)
{
    int ends[2], digits = 0;
    CHECK(pipe(ends) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        Driver d;
        Trace t = {0};
        Mark marks[6];
        CUstream q[3];
        setenv("GPUSIM_SEED", seed, 1);
        driver_open(&d);
        for (int i = 0; i < 3; i++) DRIVER_TRY(d.cuStreamCreate(&q[i], 1));
        for (int i = 0; i < 6; i++) {
            marks[i] = (Mark){&t, i};
            DRIVER_TRY(d.cuLaunchHostFunc(q[i % 3], mark, &marks[i]));
        }
        DRIVER_TRY(d.cuCtxSynchronize());
        CHECK(t.n == 6);
        for (int i = 0; i < 6; i++) digits = digits * 10 + t.order[i];
        int at[6];
        for (int i = 0; i < 6; i++) at[t.order[i]] = i;
        for (int i = 0; i < 3; i++) CHECK(at[i] < at[i + 3]); /* a stream keeps its order */
        CHECK(write(ends[1], &digits, sizeof digits) == sizeof digits);
        exit(0);
    }
    int status = 1;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(read(ends[0], &digits, sizeof digits) == sizeof digits);
    close(ends[0]);
    close(ends[1]);
    return digits;
}

static void check_seeds(void)
{
    int first = order_of_seed("1"), n_other = 0;
    CHECK(order_of_seed("1") == first);
    for (int i = 2; i < 8; i++) {
        char seed[4];
        snprintf(seed, sizeof seed, "%d", i);
        n_other += order_of_seed(seed) != first;
    }
    CHECK(n_other >= 3);
}

int main(void)
{
    Driver d;
    check_settings();
    check_visible();
    check_seeds();
    setenv("GPUSIM_DEVICES", "2", 1);
    setenv("GPUSIM_ARCH", "89", 1);
    setenv("GPUSIM_MEMORY", "1M", 1);
    driver_open(&d);
    check_devices(&d);
    check_modules(&d);
    check_launch_limits(&d);
    check_memory(&d);
    check_async(&d);
    check_legacy(&d);
    check_graph(&d);
    check_two_devices(&d);
    CHECK(d.reports() == 0);
    printf("PASS\n");
    return 0;
}
