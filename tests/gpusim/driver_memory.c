/* driver_memory.c -- allocations, copies, memsets.  An address tells whose memory it is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/gpusim/stream.h"

/* What the program takes, for tests that compare it with a plan: a line in $GPUSIM_ALLOCATIONS. */
static void write_allocation(const Allocation *a)
{
    const char *path = getenv("GPUSIM_ALLOCATIONS");
    FILE *f = a && path && *path ? fopen(path, "a") : NULL;
    if (!f) return;
    fprintf(f, "{\"pid\":%ld,\"device\":%d,\"bytes\":%llu}\n", (long)getpid(), a->device,
            (unsigned long long)a->bytes);
    fclose(f);
}

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes)
{
    System *s = system_lock();
    Device *d = system_current();
    *address = 0;
    if (!d) return system_unlock(CUDA_ERROR_INVALID_CONTEXT);
    if (bytes == 0) return system_unlock(CUDA_ERROR_INVALID_VALUE);
    CUresult rc = capture_refuses(s, false);
    if (rc != CUDA_SUCCESS) return system_unlock(rc);
    Allocation *a = memory_allocate(&s->memory, d->ordinal, bytes);
    if (a) *address = a->address;
    write_allocation(a);
    return system_unlock(a ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY);
}

CUresult cuMemFree_v2(CUdeviceptr address)
{
    System *s = system_lock();
    if (address == 0) return system_unlock(CUDA_SUCCESS);
    CUresult rc = capture_refuses(s, false);
    if (rc != CUDA_SUCCESS) return system_unlock(rc);
    stream_finish_device(s, system_current()); /* it waits for the device */
    bool is_ok = memory_free(&s->memory, address);
    return system_unlock(is_ok ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE);
}

CUresult cuMemHostAlloc(void **at, size_t bytes, unsigned int flags)
{
    System *s = system_lock();
    (void)flags;
    *at = NULL;
    CUresult rc = capture_refuses(s, false);
    if (rc != CUDA_SUCCESS) return system_unlock(rc);
    *at = bytes ? aligned_alloc(4096, (bytes + 4095) / 4096 * 4096) : NULL;
    bool is_ok = *at && memory_pin(&s->memory, *at, bytes);
    if (!is_ok) {
        free(*at);
        *at = NULL;
    }
    return system_unlock(is_ok ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY);
}

CUresult cuMemAllocHost_v2(void **at, size_t bytes)
{
    return cuMemHostAlloc(at, bytes, 0);
}

static CUresult unpin(void *at)
{
    System *s = system_lock();
    CUresult rc = capture_refuses(s, false);
    if (rc != CUDA_SUCCESS) return system_unlock(rc);
    stream_finish_device(s, system_current());
    bool is_ok = memory_free(&s->memory, (uint64_t)(uintptr_t)at);
    return system_unlock(is_ok ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE);
}

CUresult cuMemFreeHost(void *at)
{
    CUresult rc = unpin(at);
    if (rc == CUDA_SUCCESS) free(at);
    return rc;
}

CUresult cuMemHostRegister_v2(void *at, size_t bytes, unsigned int flags)
{
    System *s = system_lock();
    (void)flags;
    if (!at || !bytes) return system_unlock(CUDA_ERROR_INVALID_VALUE);
    bool is_ok = memory_pin(&s->memory, at, bytes);
    return system_unlock(is_ok ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY);
}

CUresult cuMemHostUnregister(void *at)
{
    return unpin(at);
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *address, void *at, unsigned int flags)
{
    System *s = system_lock();
    (void)flags;
    *address = (uint64_t)(uintptr_t)at;
    const Allocation *a = memory_find(&s->memory, *address);
    return system_unlock(a && a->is_pinned ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE);
}

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes)
{
    System *s = system_lock();
    Device *d = system_current();
    if (!d) return system_unlock(CUDA_ERROR_INVALID_CONTEXT);
    *total_bytes = s->memory.total_bytes;
    *free_bytes = s->memory.total_bytes - s->memory.used_of[d->ordinal];
    return system_unlock(CUDA_SUCCESS);
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr address)
{
    System *s = system_lock();
    const Allocation *a = memory_find(&s->memory, address);
    if (!a) return system_unlock(CUDA_ERROR_NOT_FOUND);
    if (base) *base = a->address;
    if (bytes) *bytes = a->bytes;
    return system_unlock(CUDA_SUCCESS);
}

/* ---- copies ---- */

typedef enum { SIDE_DEVICE, SIDE_HOST, SIDE_ANY } Side;

/* All of it inside one allocation; host memory may be pageable. */
static bool is_valid(const System *s, uint64_t address, size_t bytes, Side side)
{
    const Allocation *a = memory_find(&s->memory, address);
    if (a) return address - a->address + bytes <= a->bytes;
    bool is_ours = address - DEVICE_BASE < MAX_DEVICES * DEVICE_RANGE;
    return side != SIDE_DEVICE && !is_ours && address != 0;
}

static CUresult push_copy(uint64_t to, Side to_side, uint64_t from, Side from_side, size_t bytes,
                          CUstream stream, const char *name, bool is_sync)
{
    System *s = system_lock();
    Stream *q = stream_of(s, stream);
    if (!q) return system_unlock(CUDA_ERROR_INVALID_HANDLE);
    CUresult rc = is_sync ? capture_refuses(s, false) : CUDA_SUCCESS;
    if (rc != CUDA_SUCCESS) return system_unlock(rc);
    if (bytes == 0) return system_unlock(CUDA_SUCCESS);
    if (!is_valid(s, to, bytes, to_side) || !is_valid(s, from, bytes, from_side))
        return system_unlock(CUDA_ERROR_INVALID_VALUE);
    Task t = {.kind = TASK_COPY, .to = to, .from = from, .bytes = bytes, .op.name = name};
    bool is_pageable = !memory_find(&s->memory, from);
    if (is_pageable && !q->capture) { /* the driver has read it when the call returns */
        t.staged = malloc(bytes);
        if (!t.staged) return system_unlock(CUDA_ERROR_OUT_OF_MEMORY);
        memcpy(t.staged, (const void *)(uintptr_t)from, bytes);
    }
    rc = stream_push(s, q, &t);
    free(t.staged);
    if (rc == CUDA_SUCCESS && is_sync) stream_finish(s, q->clock);
    return system_unlock(rc);
}

CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    return push_copy(to, SIDE_ANY, from, SIDE_ANY, bytes, NULL, "cuMemcpy", true);
}

CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    return push_copy(to, SIDE_ANY, from, SIDE_ANY, bytes, stream, "cuMemcpyAsync", false);
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes)
{
    return push_copy(to, SIDE_DEVICE, (uint64_t)(uintptr_t)from, SIDE_HOST, bytes, NULL,
                     "cuMemcpyHtoD", true);
}

CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes)
{
    return push_copy((uint64_t)(uintptr_t)to, SIDE_HOST, from, SIDE_DEVICE, bytes, NULL,
                     "cuMemcpyDtoH", true);
}

CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    return push_copy(to, SIDE_DEVICE, from, SIDE_DEVICE, bytes, NULL, "cuMemcpyDtoD", true);
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream)
{
    return push_copy(to, SIDE_DEVICE, (uint64_t)(uintptr_t)from, SIDE_HOST, bytes, stream,
                     "cuMemcpyHtoDAsync", false);
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    return push_copy((uint64_t)(uintptr_t)to, SIDE_HOST, from, SIDE_DEVICE, bytes, stream,
                     "cuMemcpyDtoHAsync", false);
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    return push_copy(to, SIDE_DEVICE, from, SIDE_DEVICE, bytes, stream, "cuMemcpyDtoDAsync", false);
}

/* ---- memsets: n elements of `each` bytes ---- */

static CUresult push_set(uint64_t to, uint32_t value, uint8_t each, size_t n, CUstream stream,
                         bool is_sync)
{
    System *s = system_lock();
    Stream *q = stream_of(s, stream);
    if (!q) return system_unlock(CUDA_ERROR_INVALID_HANDLE);
    if (n == 0) return system_unlock(CUDA_SUCCESS);
    if (!is_valid(s, to, n * each, SIDE_DEVICE) || to % each)
        return system_unlock(CUDA_ERROR_INVALID_VALUE);
    Task t = {.kind = TASK_SET,
              .to = to,
              .bytes = n * each,
              .value = value,
              .value_bytes = each,
              .op.name = "cuMemset"};
    CUresult rc = stream_push(s, q, &t);
    if (rc == CUDA_SUCCESS && is_sync) stream_finish(s, q->clock);
    return system_unlock(rc);
}

CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t n)
{
    return push_set(to, value, 1, n, NULL, true);
}

CUresult cuMemsetD16_v2(CUdeviceptr to, unsigned short value, size_t n)
{
    return push_set(to, value, 2, n, NULL, true);
}

CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned int value, size_t n)
{
    return push_set(to, value, 4, n, NULL, true);
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t n, CUstream stream)
{
    return push_set(to, value, 1, n, stream, false);
}

CUresult cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t n, CUstream stream)
{
    return push_set(to, value, 2, n, stream, false);
}

CUresult cuMemsetD32Async(CUdeviceptr to, unsigned int value, size_t n, CUstream stream)
{
    return push_set(to, value, 4, n, stream, false);
}
