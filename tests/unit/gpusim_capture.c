/* gpusim_capture.c -- what a capture does not allow, on the simulator: the error, and that the
 * capture is lost. */
#include "tests/unit/check.h"
#include "tests/unit/gpusim_driver.h"

enum { GLOBAL = 0, THREAD_LOCAL = 1, RELAXED = 2, BYTES = 256, INVALIDATED = 2 };

typedef struct Scene {
    const Driver *d;
    CUstream q;
    CUevent event; /* recorded in the capture */
    CUdeviceptr at;
    void *pinned;
} Scene;

static CUresult allocate(Scene *s)
{
    CUdeviceptr at;
    CUresult rc = s->d->cuMemAlloc_v2(&at, BYTES);
    if (rc == CUDA_SUCCESS) DRIVER_TRY(s->d->cuMemFree_v2(at));
    return rc;
}

static CUresult pin(Scene *s)
{
    void *at;
    CUresult rc = s->d->cuMemHostAlloc(&at, BYTES, 0);
    if (rc == CUDA_SUCCESS) DRIVER_TRY(s->d->cuMemFreeHost(at));
    return rc;
}

static CUresult free_memory(Scene *s)
{
    CUresult rc = s->d->cuMemFree_v2(s->at);
    if (rc == CUDA_SUCCESS) DRIVER_TRY(s->d->cuMemAlloc_v2(&s->at, BYTES));
    return rc;
}

static CUresult unpin(Scene *s)
{
    CUresult rc = s->d->cuMemFreeHost(s->pinned);
    if (rc == CUDA_SUCCESS) DRIVER_TRY(s->d->cuMemHostAlloc(&s->pinned, BYTES, 0));
    return rc;
}

static CUresult copy(Scene *s)
{
    uint32_t word = 1;
    return s->d->cuMemcpyHtoD_v2(s->at, &word, sizeof word);
}

static CUresult wait_stream(Scene *s)
{
    return s->d->cuStreamSynchronize(s->q);
}

static CUresult ask_stream(Scene *s)
{
    return s->d->cuStreamQuery(s->q);
}

static CUresult wait_context(Scene *s)
{
    (void)s;
    return s->d->cuCtxSynchronize();
}

static CUresult wait_event(Scene *s)
{
    return s->d->cuEventSynchronize(s->event);
}

static CUresult ask_event(Scene *s)
{
    return s->d->cuEventQuery(s->event);
}

static const struct {
    const char *name;
    CUresult (*call)(Scene *s);
    CUresult rc, rc_relaxed;
} calls[] = {
    {"cuMemAlloc", allocate, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, CUDA_SUCCESS},
    {"cuMemFree", free_memory, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, CUDA_SUCCESS},
    {"cuMemHostAlloc", pin, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, CUDA_SUCCESS},
    {"cuMemFreeHost", unpin, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, CUDA_SUCCESS},
    {"cuMemcpyHtoD", copy, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, CUDA_SUCCESS},
    {"cuStreamSynchronize", wait_stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
     CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED},
    {"cuStreamQuery", ask_stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
     CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED},
    {"cuCtxSynchronize", wait_context, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
     CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED},
    {"cuEventSynchronize", wait_event, CUDA_ERROR_CAPTURED_EVENT, CUDA_ERROR_CAPTURED_EVENT},
    {"cuEventQuery", ask_event, CUDA_ERROR_CAPTURED_EVENT, CUDA_ERROR_CAPTURED_EVENT},
};

static void check_lost(Scene *s)
{
    const Driver *d = s->d;
    CUgraph graph = NULL;
    int status;
    DRIVER_TRY(d->cuStreamIsCapturing(s->q, &status));
    CHECK(status == INVALIDATED);
    CHECK(d->cuMemsetD32Async(s->at, 0, 1, s->q) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    CHECK(d->cuEventRecord(s->event, s->q) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    CHECK(d->cuStreamSynchronize(s->q) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    CHECK(d->cuStreamEndCapture(s->q, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED && !graph);
}

static void check_kept(Scene *s)
{
    const Driver *d = s->d;
    CUgraph graph;
    size_t n;
    DRIVER_TRY(d->cuMemsetD32Async(s->at, 0, 1, s->q));
    DRIVER_TRY(d->cuStreamEndCapture(s->q, &graph));
    DRIVER_TRY(d->cuGraphGetNodes(graph, NULL, &n));
    CHECK(n == 2);
    DRIVER_TRY(d->cuGraphDestroy(graph));
}

static void check_calls(Scene *s, int mode)
{
    const Driver *d = s->d;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        DRIVER_TRY(d->cuStreamBeginCapture_v2(s->q, mode));
        DRIVER_TRY(d->cuMemsetD32Async(s->at, 0, 1, s->q));
        DRIVER_TRY(d->cuEventRecord(s->event, s->q));
        CUresult rc = calls[i].call(s);
        CUresult expected = mode == RELAXED ? calls[i].rc_relaxed : calls[i].rc;
        if (rc != expected)
            fprintf(stderr, "%s in mode %d gives %d, not %d\n", calls[i].name, mode, rc, expected);
        CHECK(rc == expected);
        if (rc == CUDA_SUCCESS)
            check_kept(s);
        else
            check_lost(s);
        DRIVER_TRY(d->cuMemsetD32Async(s->at, 0, 1, s->q)); /* captured no longer */
        DRIVER_TRY(d->cuStreamSynchronize(s->q));
    }
}

/* An event knows its capture, not the one that follows. */
static void check_old_event(Scene *s)
{
    const Driver *d = s->d;
    CUgraph graph;
    DRIVER_TRY(d->cuStreamBeginCapture_v2(s->q, THREAD_LOCAL));
    DRIVER_TRY(d->cuEventRecord(s->event, s->q));
    DRIVER_TRY(d->cuStreamEndCapture(s->q, &graph));
    DRIVER_TRY(d->cuGraphDestroy(graph));
    DRIVER_TRY(d->cuStreamBeginCapture_v2(s->q, THREAD_LOCAL));
    CHECK(d->cuEventQuery(s->event) == CUDA_ERROR_CAPTURED_EVENT);
    DRIVER_TRY(d->cuStreamEndCapture(s->q, &graph));
    DRIVER_TRY(d->cuGraphDestroy(graph));
    DRIVER_TRY(d->cuEventRecord(s->event, s->q)); /* in none */
    DRIVER_TRY(d->cuEventSynchronize(s->event));
}

int main(void)
{
    Driver d;
    driver_open(&d);
    Scene s = {.d = &d};
    DRIVER_TRY(d.cuStreamCreate(&s.q, 1));
    DRIVER_TRY(d.cuEventCreate(&s.event, 0));
    DRIVER_TRY(d.cuMemAlloc_v2(&s.at, BYTES));
    DRIVER_TRY(d.cuMemHostAlloc(&s.pinned, BYTES, 0));
    check_calls(&s, GLOBAL);
    check_calls(&s, THREAD_LOCAL);
    check_calls(&s, RELAXED);
    check_old_event(&s);
    CHECK(d.reports() == 0);
    printf("PASS\n");
    return 0;
}
