/* cuda_driver.h -- the CUDA driver, opened when a program for a GPU starts: own prototypes, no
 * header and no link dependency.  Source: the driver API's documentation,
 * https://docs.nvidia.com/cuda/cuda-driver-api/. */
#ifndef ZM_RUNTIME_CUDA_DRIVER_H
#define ZM_RUNTIME_CUDA_DRIVER_H

#include "runtime/error.h"

typedef uint64_t CuAddress; /* CUdeviceptr */
typedef struct CuContext *CuContextRef;
typedef struct CuModule *CuModuleRef;
typedef struct CuFunction *CuFunctionRef;
typedef struct CuStream *CuStreamRef;
typedef struct CuEvent *CuEventRef;
typedef struct CuGraph *CuGraphRef;         /* what a stream would do, recorded */
typedef struct CuGraphExec *CuGraphExecRef; /* ... ready to be launched */

enum {
    CU_OK = 0,
    CU_OUT_OF_MEMORY = 2,
    CU_NO_DEVICE = 100,
    CU_STREAM_NON_BLOCKING = 1,
    CU_EVENT_TIMING = 0,
    CU_EVENT_NO_TIMING = 2,
    CU_NOT_READY = 600,
    CU_CAPTURE_THREAD_LOCAL = 1,
    CU_FUNCTION_DYNAMIC_SHARED = 8, /* attribute: most bytes that a launch may ask for */
    CU_CAPABILITY_MAJOR = 75,
    CU_CAPABILITY_MINOR = 76
};

/* X(member, exported name, parameters); all return CUresult. */
#define CU_DRIVER(X)                                                                               \
    X(init, "cuInit", (unsigned flags))                                                            \
    X(version, "cuDriverGetVersion", (int *version))                                               \
    X(error_name, "cuGetErrorName", (int error, const char **name))                                \
    X(error_text, "cuGetErrorString", (int error, const char **text))                              \
    X(device_count, "cuDeviceGetCount", (int *n))                                                  \
    X(device_get, "cuDeviceGet", (int *device, int ordinal))                                       \
    X(device_name, "cuDeviceGetName", (char *name, int n, int device))                             \
    X(device_attribute, "cuDeviceGetAttribute", (int *value, int attribute, int device))           \
    X(context_retain, "cuDevicePrimaryCtxRetain", (CuContextRef * context, int device))            \
    X(context_release, "cuDevicePrimaryCtxRelease_v2", (int device))                               \
    X(context_set, "cuCtxSetCurrent", (CuContextRef context))                                      \
    X(module_load, "cuModuleLoadData", (CuModuleRef * module, const void *image))                  \
    X(module_unload, "cuModuleUnload", (CuModuleRef module))                                       \
    X(module_function, "cuModuleGetFunction",                                                      \
      (CuFunctionRef * function, CuModuleRef module, const char *name))                            \
    X(function_set, "cuFuncSetAttribute", (CuFunctionRef function, int attribute, int value))      \
    X(launch, "cuLaunchKernel",                                                                    \
      (CuFunctionRef function, unsigned grid_x, unsigned grid_y, unsigned grid_z,                  \
       unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,                \
       CuStreamRef stream, void **params, void **extra))                                           \
    X(memory_new, "cuMemAlloc_v2", (CuAddress * at, size_t n))                                     \
    X(memory_free, "cuMemFree_v2", (CuAddress at))                                                 \
    X(memory_info, "cuMemGetInfo_v2", (size_t *n_free, size_t *n_total))                           \
    X(pinned_new, "cuMemAllocHost_v2", (void **at, size_t n))                                      \
    X(pinned_free, "cuMemFreeHost", (void *at))                                                    \
    X(copy_in, "cuMemcpyHtoDAsync_v2",                                                             \
      (CuAddress to, const void *from, size_t n, CuStreamRef stream))                              \
    X(copy_out, "cuMemcpyDtoHAsync_v2", (void *to, CuAddress from, size_t n, CuStreamRef stream))  \
    X(copy, "cuMemcpyDtoDAsync_v2", (CuAddress to, CuAddress from, size_t n, CuStreamRef stream))  \
    X(fill, "cuMemsetD8Async", (CuAddress to, unsigned char value, size_t n, CuStreamRef stream))  \
    X(stream_new, "cuStreamCreate", (CuStreamRef * stream, unsigned flags))                        \
    X(stream_free, "cuStreamDestroy_v2", (CuStreamRef stream))                                     \
    X(stream_wait, "cuStreamSynchronize", (CuStreamRef stream))                                    \
    X(event_new, "cuEventCreate", (CuEventRef * event, unsigned flags))                            \
    X(event_free, "cuEventDestroy_v2", (CuEventRef event))                                         \
    X(event_record, "cuEventRecord", (CuEventRef event, CuStreamRef stream))                       \
    X(event_wait, "cuEventSynchronize", (CuEventRef event))                                        \
    X(event_query, "cuEventQuery", (CuEventRef event))                                             \
    X(event_elapsed, "cuEventElapsedTime", (float *ms, CuEventRef from, CuEventRef to))            \
    X(stream_after, "cuStreamWaitEvent", (CuStreamRef stream, CuEventRef event, unsigned flags))   \
    X(capture_begin, "cuStreamBeginCapture_v2", (CuStreamRef stream, int mode))                    \
    X(capture_end, "cuStreamEndCapture", (CuStreamRef stream, CuGraphRef * graph))                 \
    X(graph_ready, "cuGraphInstantiateWithFlags",                                                  \
      (CuGraphExecRef * ready, CuGraphRef graph, unsigned long long flags))                        \
    X(graph_launch, "cuGraphLaunch", (CuGraphExecRef ready, CuStreamRef stream))                   \
    X(graph_free, "cuGraphDestroy", (CuGraphRef graph))                                            \
    X(graph_exec_free, "cuGraphExecDestroy", (CuGraphExecRef ready))

typedef struct CuDriver {
    void *handle;
#define CU_MEMBER(NAME, SYMBOL, PARAMS) int(*NAME) PARAMS;
    CU_DRIVER(CU_MEMBER)
#undef CU_MEMBER
} CuDriver;

/* Opens libcuda.so.1 and its first device, initialised.  What is missing is named, with where to
 * get it (RT_BAD), or else `cure`: how to do without a GPU.  The library stays loaded. */
RtStatus cuda_driver_open(CuDriver *d, const char *cure, RtError *e);
/* "CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered" */
void cuda_driver_error(const CuDriver *d, int error, char *out, size_t n);

#endif
