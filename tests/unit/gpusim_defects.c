/* gpusim_defects.c -- each planted defect is found and named, with its kernel, thread and line; the
 * same kernel without the defect gives no report.  PTX by hand: no NVRTC is needed. */
#include <stdbool.h>
#include <sys/wait.h>

#include "tests/unit/check.h"
#include "tests/unit/gpusim_driver.h"

enum { N = 256 }; /* floats of each buffer */

typedef struct Defect {
    const char *kind, *name;
    const char *wrong, *right; /* bodies; right NULL: none */
    unsigned blocks, threads;
    const char *says; /* in the report */
    CUresult rc;      /* of the next wait */
} Defect;

/* %rd1 = a (written), %rd2 = b (not), %rd3 = &a[tid], %rd4 = &b[tid]; %r1 tid, %r2 block; sh is
 * 1024 bytes of shared memory; %p1 = tid == 0. */
static const char head[] = ".version 8.0\n.target sm_80\n.address_size 64\n"
                           ".visible .entry k(.param .u64 k_0, .param .u64 k_1)\n{\n"
                           ".reg .pred %p<9>;\n.reg .b32 %r<30>;\n.reg .b64 %rd<30>;\n"
                           ".reg .f32 %f<30>;\n.shared .align 16 .b8 sh[1024];\n"
                           ".local .align 16 .b8 lo[64];\n.loc 1 7 3\n"
                           "ld.param.u64 %rd1, [k_0];\nld.param.u64 %rd2, [k_1];\n"
                           "mov.u32 %r1, %tid.x;\nmov.u32 %r2, %ctaid.x;\n"
                           "mad.wide.u32 %rd3, %r1, 4, %rd1;\nmad.wide.u32 %rd4, %r1, 4, %rd2;\n"
                           "setp.eq.u32 %p1, %r1, 0;\nmov.u32 %r3, sh;\n"
                           "shl.b32 %r4, %r1, 2;\nadd.u32 %r5, %r3, %r4;\n.loc 1 42 9\n";
static const char tail[] = "ret;\n}\n.file 1 \"k.cu\"\n";

#define NEIGHBOUR "xor.b32 %r6, %r5, 4;\n" /* the next thread's word of sh */
#define FAR "xor.b32 %r6, %r5, 128;\n"     /* another warp's */

/* Each block writes, then counts at a[0]; who counts last reads what all wrote. */
#define LAST_BLOCK(FENCE)                                                                          \
    "mad.lo.u32 %r6, %r2, 32, %r1;\nmad.wide.u32 %rd5, %r6, 4, %rd2;\nst.global.u32 [%rd5], "      \
    "%r2;\n" FENCE                                                                                 \
    "bar.sync 0;\n@%p1 atom.global.add.u32 %r7, [%rd1], 1;\n@%p1 st.shared.u32 [%r3], %r7;\n"      \
    "bar.sync 0;\nld.shared.u32 %r7, [%r3];\nsetp.ne.u32 %p2, %r7, 3;\n@%p2 ret;\n"                \
    "ld.global.u32 %r8, [%rd4];\nld.global.u32 %r8, [%rd4+128];\n"                                 \
    "ld.global.u32 %r8, [%rd4+256];\nld.global.u32 %r8, [%rd4+384];\n"

/* The same with two warps; MIDDLE lies between the writes and the count. */
#define LAST_BLOCK_OF_TWO(BEFORE, MIDDLE)                                                          \
    BEFORE "mad.lo.u32 %r6, %r2, 64, %r1;\nmad.wide.u32 %rd5, %r6, 4, %rd2;\n"                     \
           "st.global.u32 [%rd5], %r2;\n" MIDDLE "@%p1 atom.global.add.u32 %r7, [%rd1], 1;\n"      \
           "@%p1 st.shared.u32 [%r3], %r7;\nbar.sync 0;\nld.shared.u32 %r7, [%r3];\n"              \
           "setp.ne.u32 %p2, %r7, 3;\n@%p2 ret;\nld.global.u32 %r8, [%rd4];\n"                     \
           "ld.global.u32 %r8, [%rd4+256];\nld.global.u32 %r8, [%rd4+512];\n"                      \
           "ld.global.u32 %r8, [%rd4+768];\n"

#define OTHER_WARPS "xor.b32 %r6, %r1, 32;\nmad.wide.u32 %rd5, %r6, 4, %rd1;\n"

static const Defect defects[] = {
    {"out of bounds", "load past the end", "ld.global.f32 %f1, [%rd3+1020];\n",
     "ld.global.f32 %f1, [%rd3+896];\n", 1, 32, "byte 1024 of an allocation of 1024 bytes", 700},
    {"out of bounds", "store before the beginning", "st.global.u32 [%rd3+-4], %r1;\n",
     "st.global.u32 [%rd3], %r1;\n", 1, 1, "4 bytes at", 700},
    {"out of bounds", "null pointer", "mov.u64 %rd5, 0;\nld.global.u32 %r6, [%rd5];\n", NULL, 1, 1,
     "where nothing is allocated", 700},
    {"out of bounds", "shared", "st.shared.u32 [%r5+1024], %r1;\n", "st.shared.u32 [%r5], %r1;\n",
     1, 32, "of shared memory of 1024 bytes", 700},
    {"out of bounds", "local", "st.local.u32 [lo+64], %r1;\n", "st.local.u32 [lo+60], %r1;\n", 1,
     32, "of local memory of 64 bytes", 700},
    {"misaligned", "load", "ld.global.u32 %r6, [%rd3+2];\n", "ld.global.u16 %r6, [%rd3+2];\n", 1, 1,
     "4 bytes at", 716},
    {"misaligned", "vector", "ld.global.v4.f32 {%f1,%f2,%f3,%f4}, [%rd1+8];\n",
     "ld.global.v4.f32 {%f1,%f2,%f3,%f4}, [%rd1+16];\n", 1, 1, "16 bytes at", 716},
    {"misaligned", "shared", "st.shared.u32 [%r3+2], %r1;\n", NULL, 1, 1, "4 bytes at 2 of shared",
     716},
    {"uninitialised", "global", "ld.global.f32 %f1, [%rd4];\n", "ld.global.f32 %f1, [%rd3];\n", 1,
     32, "byte 0 of an allocation of 1024 bytes is read", 0},
    {"uninitialised", "one lane",
     "@%p1 bra SKIP;\nst.global.u32 [%rd4], %r1;\nSKIP:\n"
     "ld.global.u32 %r6, [%rd4];\n",
     "st.global.u32 [%rd4], %r1;\nld.global.u32 %r6, [%rd4];\n", 1, 32, "thread (0,0,0)", 0},
    {"uninitialised", "shared", "ld.shared.f32 %f1, [%r5];\n",
     "st.shared.f32 [%r5], %f1;\nld.shared.f32 %f1, [%r5];\n", 1, 64, "of shared memory is read",
     0},
    {"uninitialised", "local", "ld.local.u32 %r6, [lo+8];\n",
     "st.local.u32 [lo+8], %r1;\nld.local.u32 %r6, [lo+8];\n", 1, 32,
     "byte 8 of local memory is read", 0},
    {"uninitialised", "cp.async that is not waited for",
     "cp.async.ca.shared.global [%r5], [%rd3], 4;\ncp.async.commit_group;\n"
     "ld.shared.f32 %f1, [%r5];\ncp.async.wait_all;\n",
     "cp.async.ca.shared.global [%r5], [%rd3], 4;\ncp.async.commit_group;\n"
     "cp.async.wait_all;\nld.shared.f32 %f1, [%r5];\n",
     1, 32, "of shared memory is read", 0},
    {"shared race", "read after write, warps",
     "st.shared.u32 [%r5], %r1;\n" FAR "ld.shared.u32 %r7, [%r6];\n",
     "st.shared.u32 [%r5], %r1;\nbar.sync 0;\n" FAR "ld.shared.u32 %r7, [%r6];\n", 1, 64,
     "which thread", 0},
    {"shared race", "write after read, warps",
     "st.shared.u32 [%r5], %r1;\nbar.sync 0;\n" FAR
     "ld.shared.u32 %r7, [%r6];\nst.shared.u32 [%r5], %r7;\n",
     "st.shared.u32 [%r5], %r1;\nbar.sync 0;\n" FAR
     "ld.shared.u32 %r7, [%r6];\nbar.sync 0;\nst.shared.u32 [%r5], %r7;\n",
     1, 64, "reads with no barrier between", 0},
    {"shared race", "write after many reads",
     "st.shared.u32 [%r5], %r1;\nbar.sync 0;\nld.shared.u32 %r7, [%r3];\n"
     "@%p1 st.shared.u32 [%r3], %r7;\n",
     "st.shared.u32 [%r5], %r1;\nbar.sync 0;\nld.shared.u32 %r7, [%r3];\nbar.sync 0;\n"
     "@%p1 st.shared.u32 [%r3], %r7;\n",
     1, 96, "reads with no barrier between", 0},
    {"shared race", "two writers", "st.shared.u32 [%r3], %r1;\n",
     "@%p1 st.shared.u32 [%r3], %r1;\n", 1, 32,
     "writes byte 0 of shared memory, which thread 0 writes", 0},
    {"shared race", "lanes of a warp",
     "st.shared.u32 [%r5], %r1;\n" NEIGHBOUR "ld.shared.u32 %r7, [%r6];\n",
     "st.shared.u32 [%r5], %r1;\nbar.warp.sync -1;\n" NEIGHBOUR "ld.shared.u32 %r7, [%r6];\n", 1,
     32, "which thread", 0},
    {"shared race", "atomic and plain",
     "@%p1 st.shared.u32 [%r3], %r1;\nbar.sync 0;\natom.shared.add.u32 %r7, [%r3], 1;\n"
     "ld.shared.u32 %r8, [%r3];\n",
     "@%p1 st.shared.u32 [%r3], %r1;\nbar.sync 0;\natom.shared.add.u32 %r7, [%r3], 1;\n"
     "bar.sync 0;\nld.shared.u32 %r8, [%r3];\n",
     1, 64, "writes with no barrier between", 0},
    {"shared race", "cp.async over what another warp may still read",
     "st.shared.u32 [%r5], %r1;\nbar.sync 0;\n" FAR "ld.shared.u32 %r7, [%r6];\n"
     "cp.async.ca.shared.global [%r5], [%rd3], 4;\ncp.async.commit_group;\nbar.sync 0;\n"
     "cp.async.wait_all;\n",
     "st.shared.u32 [%r5], %r1;\nbar.sync 0;\n" FAR "ld.shared.u32 %r7, [%r6];\nbar.sync 0;\n"
     "cp.async.ca.shared.global [%r5], [%rd3], 4;\ncp.async.commit_group;\n"
     "cp.async.wait_all;\n",
     1, 64, "reads with no barrier between", 0},
    {"global race", "two blocks write", "st.global.u32 [%rd4], %r2;\n",
     "mad.lo.u32 %r6, %r2, 32, %r1;\nmad.wide.u32 %rd5, %r6, 4, %rd2;\n"
     "st.global.u32 [%rd5], %r2;\n",
     2, 32, "which another block writes", 0},
    {"global race", "a block reads what another writes",
     "mad.lo.u32 %r6, %r2, 32, %r1;\nmad.wide.u32 %rd5, %r6, 4, %rd1;\n"
     "st.global.u32 [%rd5], %r2;\nld.global.u32 %r7, [%rd5+4];\n",
     "mad.lo.u32 %r6, %r2, 32, %r1;\nmad.wide.u32 %rd5, %r6, 4, %rd1;\n"
     "st.global.u32 [%rd5], %r2;\nld.global.u32 %r7, [%rd5];\n",
     4, 32, "another block", 0},
    {"global race", "many read, one writes",
     "ld.global.u32 %r7, [%rd1];\nsetp.eq.u32 %p2, %r2, 2;\n@%p2 st.global.u32 [%rd1], %r7;\n",
     NULL, 3, 1, "another block", 0},
    {"global race", "the last block reads, no fence", LAST_BLOCK(""), LAST_BLOCK("membar.gl;\n"), 4,
     32, "which another block writes", 0},
    {"global race", "the last block reads, no barrier before the count",
     LAST_BLOCK_OF_TWO("", "@%p1 membar.gl;\n"),
     LAST_BLOCK_OF_TWO("", "bar.sync 0;\n@%p1 membar.gl;\n"), 4, 64, "which another block writes",
     0},
    {"global race", "the last block reads, the fence comes before the writes",
     LAST_BLOCK_OF_TWO("membar.gl;\n", "bar.sync 0;\n"),
     LAST_BLOCK_OF_TWO("", "membar.gl;\nbar.sync 0;\n"), 4, 64, "which another block writes", 0},
    {"global race", "a warp reads what another writes",
     "st.global.u32 [%rd3], %r1;\n" OTHER_WARPS "ld.global.u32 %r7, [%rd5];\n",
     "st.global.u32 [%rd3], %r1;\nbar.sync 0;\n" OTHER_WARPS "ld.global.u32 %r7, [%rd5];\n", 1, 64,
     "another warp, with no barrier between, writes", 0},
    {"global race", "a warp writes what others read",
     "ld.global.u32 %r7, [%rd1];\n@%p1 st.global.u32 [%rd1], %r7;\n",
     "ld.global.u32 %r7, [%rd1];\nbar.sync 0;\n@%p1 st.global.u32 [%rd1], %r7;\n", 1, 96,
     "another warp, with no barrier between", 0},
    {"global race", "two warps write", "st.global.u32 [%rd1], %r1;\n",
     "@%p1 st.global.u32 [%rd1], %r1;\n", 1, 64, "another warp, with no barrier between, writes",
     0},
    {"divergent barrier", "half of a warp",
     "setp.lt.u32 %p2, %r1, 16;\n@%p2 bra SKIP;\nbar.sync 0;\nSKIP:\nbar.sync 0;\n",
     "bar.sync 0;\n", 1, 32, "wait at a barrier", 719},
    {"divergent barrier", "a warp that exits",
     "setp.lt.u32 %p2, %r1, 32;\n@%p2 ret;\nbar.sync 0;\n", "bar.sync 0;\n", 1, 64,
     "barrier 0: 32 of 64 threads arrive", 719},
    {"absent lane", "shuffle from a lane outside of the mask",
     "setp.lt.u32 %p2, %r1, 16;\n@!%p2 bra SKIP;\n"
     "shfl.sync.idx.b32 %r7, %r1, 20, 31, 65535;\nSKIP:\n",
     "setp.lt.u32 %p2, %r1, 16;\n@!%p2 bra SKIP;\n"
     "shfl.sync.idx.b32 %r7, %r1, 12, 31, 65535;\nSKIP:\n",
     1, 32, "reads lane 20, which does not take part", 0},
    {"absent lane", "lanes of the mask that never come",
     "setp.lt.u32 %p2, %r1, 16;\n@!%p2 bra SKIP;\n"
     "shfl.sync.bfly.b32 %r7, %r1, 1, 31, -1;\nSKIP:\nbar.sync 0;\n",
     "shfl.sync.bfly.b32 %r7, %r1, 1, 31, -1;\n", 1, 32, "0xffff0000", 0},
    {"absent lane", "lanes of the mask that have exited",
     "setp.lt.u32 %p2, %r1, 16;\n@!%p2 ret;\nvote.sync.ballot.b32 %r7, %p1, -1;\n",
     "setp.lt.u32 %p2, %r1, 16;\n@!%p2 ret;\nvote.sync.ballot.b32 %r7, %p1, 65535;\n", 1, 32,
     "which have exited", 0},
    {"absent lane", "a mask that lacks the caller", "vote.sync.ballot.b32 %r7, %p1, 65535;\n", NULL,
     1, 32, "which lacks it", 0},
    {"trap", "a block that waits for another", /* runs to its end first; a warp may wait for one */
     "SPIN:\nbra SPIN;\n",
     "@%p1 st.shared.u32 [%r3], 0;\nbar.sync 0;\nsetp.eq.u32 %p3, %r1, 32;\n"
     "@%p3 atom.shared.or.b32 %r7, [%r3], 1;\n"
     "SPIN:\natom.shared.or.b32 %r7, [%r3], 0;\nsetp.eq.u32 %p2, %r7, 0;\n@%p2 bra SPIN;\n",
     1, 64, "does not end", 702},
    {"trap", "trap", "@%p1 trap;\n", NULL, 1, 1, "executes trap", 719},
};

static char report_path[] = "/tmp/gpusim_defects.XXXXXX";

static void read_reports(char *out, size_t size)
{
    FILE *f = fopen(report_path, "r");
    CHECK(f != NULL);
    size_t n = fread(out, 1, size - 1, f);
    out[n] = 0;
    fclose(f);
    CHECK(truncate(report_path, 0) == 0);
}

static CUmodule load(const Driver *d, const char *body)
{
    char text[4096];
    CUmodule m;
    snprintf(text, sizeof text, "%s%s%s", head, body, tail);
    DRIVER_TRY(d->cuModuleLoadData(&m, text));
    return m;
}

static CUresult run(const Driver *d, const char *body, unsigned blocks, unsigned threads)
{
    CUmodule m = load(d, body);
    CUfunction f;
    CUdeviceptr a, b;
    float zeros[N] = {0};
    DRIVER_TRY(d->cuModuleGetFunction(&f, m, "k"));
    DRIVER_TRY(d->cuMemAlloc_v2(&a, sizeof zeros));
    DRIVER_TRY(d->cuMemAlloc_v2(&b, sizeof zeros));
    DRIVER_TRY(d->cuMemcpyHtoD_v2(a, zeros, sizeof zeros));
    void *params[] = {&a, &b};
    DRIVER_TRY(d->cuLaunchKernel(f, blocks, 1, 1, threads, 1, 1, 0, NULL, params, NULL));
    CUresult rc = d->cuCtxSynchronize();
    (void)d->cuMemFree_v2(a); /* these give rc, too: the device is unusable */
    (void)d->cuMemFree_v2(b);
    (void)d->cuModuleUnload(m);
    return rc;
}

/* In a child: an illegal address leaves the device unusable, as it does a real one. */
static void check_defect(const Defect *x)
{
    Driver d;
    char text[8192];
    driver_open(&d);
    if (x->right) {
        CHECK(run(&d, x->right, x->blocks, x->threads) == CUDA_SUCCESS);
        if (d.reports() != 0) fprintf(stderr, "%s, %s: the right one\n", x->kind, x->name);
        CHECK(d.reports() == 0);
    }
    setenv("GPUSIM_REPORT", report_path, 1);
    CUresult rc = run(&d, x->wrong, x->blocks, x->threads);
    read_reports(text, sizeof text);
    char kind[64];
    snprintf(kind, sizeof kind, "gpusim: %s: ", x->kind);
    bool is_named =
        strstr(text, kind) && strstr(text, x->says) && strstr(text, "kernel k, block (");
    bool has_line = strstr(text, "k.cu:42") != NULL;
    if (!is_named || !has_line || rc != x->rc || d.reports() == 0)
        fprintf(stderr, "%s, %s: rc %d, reports:\n%s", x->kind, x->name, rc, text);
    CHECK(is_named && has_line && rc == x->rc && d.reports() > 0);
}

/* ---- between streams ---- */

static const char add_one[] = "ld.global.f32 %f1, [%rd3];\nadd.f32 %f1, %f1, 0f3F800000;\n"
                              "st.global.f32 [%rd3], %f1;\n";

/* A copy in on one stream, a kernel on another; with_event: ordered. The number of reports. */
static unsigned long run_two_streams(const Driver *d, bool with_event, bool is_captured)
{
    unsigned long before = d->reports();
    CUmodule m = load(d, add_one);
    CUfunction f;
    CUdeviceptr a;
    CUstream one, two;
    CUevent e, back;
    float *host;
    DRIVER_TRY(d->cuModuleGetFunction(&f, m, "k"));
    DRIVER_TRY(d->cuMemAlloc_v2(&a, N * sizeof(float)));
    DRIVER_TRY(d->cuMemHostAlloc((void **)&host, N * sizeof(float), 0));
    for (int i = 0; i < N; i++) host[i] = (float)i;
    DRIVER_TRY(d->cuStreamCreate(&one, 1));
    DRIVER_TRY(d->cuStreamCreate(&two, 1));
    DRIVER_TRY(d->cuEventCreate(&e, 0));
    DRIVER_TRY(d->cuEventCreate(&back, 0));
    DRIVER_TRY(d->cuMemsetD8_v2(a, 0, N * sizeof(float)));
    CUgraph graph;
    CUgraphExec exec;
    void *params[] = {&a, &a};
    if (is_captured) {
        DRIVER_TRY(d->cuStreamBeginCapture_v2(one, 0));
        DRIVER_TRY(d->cuEventRecord(e, one)); /* two joins, but depends on nothing yet */
        DRIVER_TRY(d->cuStreamWaitEvent(two, e, 0));
    }
    DRIVER_TRY(d->cuMemcpyHtoDAsync_v2(a, host, N * sizeof(float), one));
    if (with_event) {
        DRIVER_TRY(d->cuEventRecord(e, one));
        DRIVER_TRY(d->cuStreamWaitEvent(two, e, 0));
    }
    DRIVER_TRY(d->cuLaunchKernel(f, 1, 1, 1, N, 1, 1, 0, two, params, NULL));
    if (is_captured) {
        DRIVER_TRY(d->cuEventRecord(back, two));
        DRIVER_TRY(d->cuStreamWaitEvent(one, back, 0));
        DRIVER_TRY(d->cuStreamEndCapture(one, &graph));
        DRIVER_TRY(d->cuGraphInstantiateWithFlags(&exec, graph, 0));
        DRIVER_TRY(d->cuGraphDestroy(graph));
        for (int i = 0; i < 3; i++) DRIVER_TRY(d->cuGraphLaunch(exec, one));
    }
    DRIVER_TRY(d->cuStreamSynchronize(one));
    DRIVER_TRY(d->cuStreamSynchronize(two));
    DRIVER_TRY(d->cuMemcpyDtoH_v2(host, a, N * sizeof(float)));
    for (int i = 0; i < N && with_event; i++) CHECK(host[i] == (float)i + 1);
    if (is_captured) DRIVER_TRY(d->cuGraphExecDestroy(exec));
    DRIVER_TRY(d->cuStreamDestroy_v2(one));
    DRIVER_TRY(d->cuStreamDestroy_v2(two));
    DRIVER_TRY(d->cuEventDestroy_v2(e));
    DRIVER_TRY(d->cuEventDestroy_v2(back));
    DRIVER_TRY(d->cuMemFreeHost(host));
    DRIVER_TRY(d->cuModuleUnload(m));
    return d->reports() - before;
}

static void check_streams(void)
{
    Driver d;
    char text[8192];
    driver_open(&d);
    for (int i = 0; i < 8; i++) { /* each in another order */
        CHECK(run_two_streams(&d, true, i & 1) == 0);
    }
    setenv("GPUSIM_REPORT", report_path, 1);
    for (int i = 0; i < 8; i++) {
        CHECK(run_two_streams(&d, false, i & 1) > 0);
        read_reports(text, sizeof text);
        CHECK(strstr(text, "gpusim: stream race: ") != NULL);
        CHECK(strstr(text, "after cuMemcpyHtoDAsync on stream") ||
              strstr(text, "after k on stream"));
    }
}

/* A report ends with the line of the CUDA C, which names the op. */
static void check_source(void)
{
    Driver d;
    char text[8192], source[] = "/tmp/gpusim_source.XXXXXX";
    int fd = mkstemp(source);
    CHECK(fd >= 0);
    FILE *f = fdopen(fd, "w");
    for (int i = 1; i < 42; i++) fputs("// nothing\n", f);
    fputs("    const float v3 = a0[i];  // load  net.zm:12:5\n", f);
    fclose(f);
    driver_open(&d);
    setenv("GPUSIM_REPORT", report_path, 1);
    setenv("GPUSIM_SOURCE", source, 1);
    DRIVER_TRY(run(&d, "ld.global.f32 %f1, [%rd4];\n", 1, 32));
    read_reports(text, sizeof text);
    unlink(source);
    CHECK(strstr(text, "k.cu:42: const float v3 = a0[i];  // load  net.zm:12:5") != NULL);
}

/* A copy out of memory that nothing wrote. */
static void check_copy(void)
{
    Driver d;
    CUdeviceptr a;
    float host[N];
    driver_open(&d);
    DRIVER_TRY(d.cuMemAlloc_v2(&a, sizeof host));
    DRIVER_TRY(d.cuMemcpyDtoH_v2(host, a, sizeof host));
    CHECK(d.reports() == 1);
    CHECK(d.cuMemcpyDtoH_v2(host, a, sizeof host + 1) == CUDA_ERROR_INVALID_VALUE);
    DRIVER_TRY(d.cuMemFree_v2(a));
    CHECK(d.cuMemcpyDtoH_v2(host, a, sizeof host) == CUDA_ERROR_INVALID_VALUE);
}

static int in_child(void (*check)(const Defect *x), const Defect *x)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        check(x);
        exit(0);
    }
    int status = 1;
    CHECK(waitpid(pid, &status, 0) == pid);
    return status != 0;
}

static void streams_in_child(const Defect *x)
{
    (void)x;
    check_streams();
}

static void copy_in_child(const Defect *x)
{
    (void)x;
    check_copy();
    check_source();
}

int main(void)
{
    int n = (int)(sizeof defects / sizeof defects[0]), n_failed = 0;
    int fd = mkstemp(report_path);
    CHECK(fd >= 0);
    for (int i = 0; i < n; i++) n_failed += in_child(check_defect, &defects[i]);
    n_failed += in_child(streams_in_child, NULL);
    n_failed += in_child(copy_in_child, NULL);
    close(fd);
    unlink(report_path);
    printf("%s: %d defects, %d failures\n", n_failed ? "FAIL" : "PASS", n + 2, n_failed);
    return n_failed != 0;
}
