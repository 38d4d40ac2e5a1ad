/* driver.c -- initialisation, devices, contexts, errors, lookup of functions.
 *
 * $GPUSIM_DEVICES (1), $GPUSIM_ARCH (80: 8.0), $GPUSIM_MEMORY (bytes of a device, with K, M or G;
 * 4G), $GPUSIM_SEED (0) and $CUDA_VISIBLE_DEVICES are read by cuInit.  A context is its device:
 * cuCtxCreate gives the primary one. */
#include <stdio.h>
#include <string.h>

#include "tests/gpusim/report.h"
#include "tests/gpusim/stream.h"

enum { VERSION = 13000 };

/* ---- errors ---- */

static const struct {
    CUresult code;
    const char *name, *text;
} errors[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU",
     "no kernel image is available for execution on the device"},
    {CUDA_ERROR_INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {CUDA_ERROR_FILE_NOT_FOUND, "CUDA_ERROR_FILE_NOT_FOUND", "file not found"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS",
     "an illegal memory access was encountered"},
    {CUDA_ERROR_MISALIGNED_ADDRESS, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {CUDA_ERROR_CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT",
     "operation not permitted on an event last recorded in a capturing stream"},
    {CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED",
     "the capture was not initiated in this stream"},
    {CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED",
     "capturing stream has unjoined work"},
};

static CUresult error_text(CUresult error, const char **out, bool is_name)
{
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        if (errors[i].code != error) continue;
        *out = is_name ? errors[i].name : errors[i].text;
        return CUDA_SUCCESS;
    }
    *out = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorName(CUresult error, const char **name)
{
    return error_text(error, name, true);
}

CUresult cuGetErrorString(CUresult error, const char **text)
{
    return error_text(error, text, false);
}

/* ---- lookup ---- */

static const struct {
    const char *name;
    void (*fn)(void); /* of its own type */
} functions[] = {
#define CU_ENTRY(NAME, PARAMS) {#NAME, (void (*)(void))NAME},
    CU_FUNCTIONS(CU_ENTRY)
#undef CU_ENTRY
};

static void *find_function(const char *name, const char *suffix)
{
    char full[96];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        if (strcmp(functions[i].name, full) != 0) continue;
        void *at;
        memcpy(&at, &functions[i].fn, sizeof at);
        return at;
    }
    return NULL;
}

CUresult cuGetProcAddress(const char *name, void **fn, int version, uint64_t flags)
{
    (void)version;
    (void)flags;
    *fn = find_function(name, "_v2");
    if (!*fn) *fn = find_function(name, "");
    return *fn ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuGetProcAddress_v2(const char *name, void **fn, int version, uint64_t flags, int *status)
{
    CUresult rc = cuGetProcAddress(name, fn, version, flags);
    if (status) *status = rc == CUDA_SUCCESS ? 0 : 1; /* 1: symbol not found */
    return rc;
}

/* NVRTC looks for tables of the driver's own; it goes on without, but not when this is missing. */
CUresult cuGetExportTable(const void **table, const void *id)
{
    (void)id;
    *table = NULL;
    return CUDA_ERROR_NOT_FOUND;
}

/* ---- initialisation ---- */

static bool set_up(System *s)
{
    if (!settings_read(s)) return false;
    s->next_stamp = STAMP_FIRST;
    (void)stream_new(s, true); /* LEGACY */
    (void)stream_new(s, true); /* PER_THREAD */
    s->is_initialised = true;
    return true;
}

CUresult cuInit(unsigned int flags)
{
    System *s = system_lock();
    if (flags != 0) return system_unlock(CUDA_ERROR_INVALID_VALUE);
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        fprintf(stderr, "gpusim: this CPU lacks AVX2 and FMA, which the simulator is built for\n");
        return system_unlock(CUDA_ERROR_NO_DEVICE);
    }
    if (!s->is_initialised && !set_up(s)) return system_unlock(CUDA_ERROR_NO_DEVICE);
    return system_unlock(s->n_devices > 0 ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE);
}

CUresult cuDriverGetVersion(int *version)
{
    *version = VERSION;
    return CUDA_SUCCESS;
}

/* ---- devices ---- */

/* NULL: none; *rc says why. */
static Device *device_at(System *s, CUdevice ordinal, CUresult *rc)
{
    *rc = !s->is_initialised                       ? CUDA_ERROR_NOT_INITIALIZED
          : ordinal < 0 || ordinal >= s->n_devices ? CUDA_ERROR_INVALID_DEVICE
                                                   : CUDA_SUCCESS;
    return *rc == CUDA_SUCCESS ? &s->devices[ordinal] : NULL;
}

CUresult cuDeviceGetCount(int *count)
{
    System *s = system_lock();
    *count = s->n_devices;
    return system_unlock(s->is_initialised ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED);
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    CUresult rc;
    (void)device_at(system_lock(), ordinal, &rc);
    *device = ordinal;
    return system_unlock(rc);
}

CUresult cuDeviceGetName(char *name, int size, CUdevice device)
{
    CUresult rc;
    System *s = system_lock();
    (void)device_at(s, device, &rc);
    snprintf(name, (size_t)size, "gpusim sm_%d", s->arch);
    return system_unlock(rc);
}

CUresult cuDeviceGetUuid_v2(void *uuid, CUdevice device)
{
    CUresult rc;
    const Device *d = device_at(system_lock(), device, &rc);
    char text[17];
    snprintf(text, sizeof text, "gpusim device %02d", d ? d->physical : 0);
    memcpy(uuid, text, 16);
    return system_unlock(rc);
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    CUresult rc;
    System *s = system_lock();
    (void)device_at(s, device, &rc);
    *bytes = s->memory.total_bytes;
    return system_unlock(rc);
}

/* Of an A100, for what the architecture does not decide. */
static int attribute_of(const System *s, int attribute)
{
    switch (attribute) {
    case 1: return 1024; /* threads of a block */
    case 2:
    case 3: return 1024;       /* block x, y */
    case 4: return 64;         /* block z */
    case 5: return 2147483647; /* grid x */
    case 6:
    case 7: return 65535; /* grid y, z */
    case 8: return 49152; /* shared bytes of a block */
    case 9: return 65536; /* constant bytes */
    case 10: return LANES;
    case 12:
    case 82: return 65536;    /* registers */
    case 13: return 1410000;  /* kHz */
    case 16: return 4;        /* multiprocessors */
    case 31: return 1;        /* concurrent kernels */
    case 36: return 1215000;  /* memory, kHz */
    case 37: return 5120;     /* bus bits */
    case 38: return 41943040; /* L2 bytes */
    case 39: return 2048;     /* threads of a multiprocessor */
    case 40: return 2;        /* copy engines */
    case 41: return 1;        /* unified addresses */
    case 75: return s->arch / 10;
    case 76: return s->arch % 10;
    case 81: return s->arch >= 90 ? 233472 : 167936; /* shared bytes of a multiprocessor */
    case 97: return s->arch >= 90 ? 232448 : s->arch == 80 ? 166912 : 101376; /* opted in */
    case 106: return 32;   /* blocks of a multiprocessor */
    case 111: return 1024; /* reserved shared bytes */
    default: return 0;
    }
}

CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device)
{
    CUresult rc;
    System *s = system_lock();
    (void)device_at(s, device, &rc);
    *value = attribute_of(s, attribute);
    return system_unlock(rc);
}

CUresult cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer)
{
    CUresult rc;
    System *s = system_lock();
    if (device_at(s, device, &rc)) (void)device_at(s, peer, &rc);
    *can = device != peer;
    return system_unlock(rc);
}

/* ---- contexts ---- */

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    CUresult rc;
    *context = device_at(system_lock(), device, &rc);
    if (*context) (*context)->n_retained++;
    return system_unlock(rc);
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    CUresult rc;
    System *s = system_lock();
    Device *d = device_at(s, device, &rc);
    if (d && d->n_retained == 0) rc = CUDA_ERROR_INVALID_CONTEXT;
    if (d && d->n_retained > 0) d->n_retained--;
    return system_unlock(rc);
}

CUresult cuCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device)
{
    (void)flags;
    CUresult rc = cuDevicePrimaryCtxRetain(context, device);
    if (*context) system_set_current(*context);
    return rc;
}

CUresult cuCtxDestroy_v2(CUcontext context)
{
    if (!context) return CUDA_ERROR_INVALID_CONTEXT;
    if (system_current() == context) system_set_current(NULL);
    return cuDevicePrimaryCtxRelease_v2(context->ordinal);
}

CUresult cuCtxSetCurrent(CUcontext context)
{
    system_set_current(context);
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *context)
{
    *context = system_current();
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    return cuCtxSetCurrent(context);
}

CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    if (context) *context = system_current();
    system_set_current(NULL);
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *device)
{
    if (!system_current()) return CUDA_ERROR_INVALID_CONTEXT;
    *device = system_current()->ordinal;
    return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize(void)
{
    System *s = system_lock();
    if (!system_current()) return system_unlock(CUDA_ERROR_INVALID_CONTEXT);
    CUresult rc = capture_refuses(s, true);
    if (rc != CUDA_SUCCESS) return system_unlock(rc);
    stream_finish_device(s, system_current());
    return system_unlock(CUDA_SUCCESS);
}

CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags)
{
    (void)flags;
    return peer ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    if (least) *least = 0;
    if (greatest) *greatest = 0;
    return CUDA_SUCCESS;
}

/* ---- beside the driver API ---- */

unsigned long gpusim_report_count(void)
{
    return report_count();
}

void gpusim_report(const char *text)
{
    report_plain(REPORT_API, "%s", text);
}

void *gpusim_host_address(uint64_t address, size_t bytes)
{
    System *s = system_lock();
    Allocation *a = memory_find(&s->memory, address);
    bool is_inside = a && address - a->address + bytes <= a->bytes;
    void *at = is_inside ? a->host + (address - a->address) : NULL;
    (void)system_unlock(CUDA_SUCCESS);
    return at;
}
