/* api.h -- the driver API that is exported, declared here so that no toolkit is needed.  Values are
 * CUDA's own. */
#ifndef ZM_GPUSIM_API_H
#define ZM_GPUSIM_API_H

#include <stddef.h>
#include <stdint.h>

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct Device *CUcontext;
typedef struct Stream *CUstream;
typedef struct Event *CUevent;
typedef struct Module_ *CUmodule;
typedef struct Function *CUfunction;
typedef struct Graph *CUgraph;
typedef struct GraphExec *CUgraphExec;
typedef void (*CUhostFn)(void *);

enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_INVALID_VALUE = 1,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_NOT_INITIALIZED = 3,
    CUDA_ERROR_NO_DEVICE = 100,
    CUDA_ERROR_INVALID_DEVICE = 101,
    CUDA_ERROR_INVALID_IMAGE = 200,
    CUDA_ERROR_INVALID_CONTEXT = 201,
    CUDA_ERROR_NO_BINARY_FOR_GPU = 209,
    CUDA_ERROR_INVALID_PTX = 218,
    CUDA_ERROR_FILE_NOT_FOUND = 301,
    CUDA_ERROR_INVALID_HANDLE = 400,
    CUDA_ERROR_NOT_FOUND = 500,
    CUDA_ERROR_NOT_READY = 600,
    CUDA_ERROR_ILLEGAL_ADDRESS = 700,
    CUDA_ERROR_MISALIGNED_ADDRESS = 716,
    CUDA_ERROR_LAUNCH_FAILED = 719,
    CUDA_ERROR_NOT_SUPPORTED = 801,
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900,
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901,
    CUDA_ERROR_STREAM_CAPTURE_UNMATCHED = 903,
    CUDA_ERROR_STREAM_CAPTURE_UNJOINED = 904,
    CUDA_ERROR_CAPTURED_EVENT = 907
};

typedef struct CUlaunchConfig {
    unsigned int gridDimX, gridDimY, gridDimZ;
    unsigned int blockDimX, blockDimY, blockDimZ;
    unsigned int sharedMemBytes;
    CUstream hStream;
    void *attrs;
    unsigned int numAttrs;
} CUlaunchConfig;

/* X(name, parameters): every function that is exported and found by cuGetProcAddress. */
#define CU_FUNCTIONS(X)                                                                            \
    X(cuInit, (unsigned int flags))                                                                \
    X(cuDriverGetVersion, (int *version))                                                          \
    X(cuGetErrorName, (CUresult error, const char **name))                                         \
    X(cuGetErrorString, (CUresult error, const char **text))                                       \
    X(cuGetProcAddress, (const char *name, void **fn, int version, uint64_t flags))                \
    X(cuGetProcAddress_v2,                                                                         \
      (const char *name, void **fn, int version, uint64_t flags, int *status))                     \
    X(cuGetExportTable, (const void **table, const void *id))                                      \
    X(cuDeviceGetCount, (int *count))                                                              \
    X(cuDeviceGet, (CUdevice * device, int ordinal))                                               \
    X(cuDeviceGetName, (char *name, int size, CUdevice device))                                    \
    X(cuDeviceGetUuid_v2, (void *uuid, CUdevice device))                                           \
    X(cuDeviceTotalMem_v2, (size_t *bytes, CUdevice device))                                       \
    X(cuDeviceGetAttribute, (int *value, int attribute, CUdevice device))                          \
    X(cuDeviceCanAccessPeer, (int *can, CUdevice device, CUdevice peer))                           \
    X(cuDevicePrimaryCtxRetain, (CUcontext * context, CUdevice device))                            \
    X(cuDevicePrimaryCtxRelease_v2, (CUdevice device))                                             \
    X(cuCtxCreate_v2, (CUcontext * context, unsigned int flags, CUdevice device))                  \
    X(cuCtxDestroy_v2, (CUcontext context))                                                        \
    X(cuCtxSetCurrent, (CUcontext context))                                                        \
    X(cuCtxGetCurrent, (CUcontext * context))                                                      \
    X(cuCtxPushCurrent_v2, (CUcontext context))                                                    \
    X(cuCtxPopCurrent_v2, (CUcontext * context))                                                   \
    X(cuCtxGetDevice, (CUdevice * device))                                                         \
    X(cuCtxSynchronize, (void))                                                                    \
    X(cuCtxEnablePeerAccess, (CUcontext peer, unsigned int flags))                                 \
    X(cuModuleLoadData, (CUmodule * module, const void *image))                                    \
    X(cuModuleLoadDataEx, (CUmodule * module, const void *image, unsigned int n_options,           \
                           const int *options, void **values))                                     \
    X(cuModuleUnload, (CUmodule module))                                                           \
    X(cuModuleGetFunction, (CUfunction * function, CUmodule module, const char *name))             \
    X(cuModuleGetGlobal_v2,                                                                        \
      (CUdeviceptr * address, size_t *bytes, CUmodule module, const char *name))                   \
    X(cuFuncGetAttribute, (int *value, int attribute, CUfunction function))                        \
    X(cuFuncSetAttribute, (CUfunction function, int attribute, int value))                         \
    X(cuFuncSetCacheConfig, (CUfunction function, int config))                                     \
    X(cuOccupancyMaxActiveBlocksPerMultiprocessor,                                                 \
      (int *blocks, CUfunction function, int threads, size_t shared_bytes))                        \
    X(cuLaunchKernel,                                                                              \
      (CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,         \
       unsigned int block_x, unsigned int block_y, unsigned int block_z,                           \
       unsigned int shared_bytes, CUstream stream, void **params, void **extra))                   \
    X(cuLaunchKernelEx,                                                                            \
      (const CUlaunchConfig *config, CUfunction function, void **params, void **extra))            \
    X(cuLaunchHostFunc, (CUstream stream, CUhostFn fn, void *arg))                                 \
    X(cuMemAlloc_v2, (CUdeviceptr * address, size_t bytes))                                        \
    X(cuMemFree_v2, (CUdeviceptr address))                                                         \
    X(cuMemHostAlloc, (void **at, size_t bytes, unsigned int flags))                               \
    X(cuMemAllocHost_v2, (void **at, size_t bytes))                                                \
    X(cuMemFreeHost, (void *at))                                                                   \
    X(cuMemHostRegister_v2, (void *at, size_t bytes, unsigned int flags))                          \
    X(cuMemHostUnregister, (void *at))                                                             \
    X(cuMemHostGetDevicePointer_v2, (CUdeviceptr * address, void *at, unsigned int flags))         \
    X(cuMemGetInfo_v2, (size_t *free_bytes, size_t *total_bytes))                                  \
    X(cuMemGetAddressRange_v2, (CUdeviceptr * base, size_t *bytes, CUdeviceptr address))           \
    X(cuMemcpy, (CUdeviceptr to, CUdeviceptr from, size_t bytes))                                  \
    X(cuMemcpyAsync, (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream))            \
    X(cuMemcpyHtoD_v2, (CUdeviceptr to, const void *from, size_t bytes))                           \
    X(cuMemcpyDtoH_v2, (void *to, CUdeviceptr from, size_t bytes))                                 \
    X(cuMemcpyDtoD_v2, (CUdeviceptr to, CUdeviceptr from, size_t bytes))                           \
    X(cuMemcpyHtoDAsync_v2, (CUdeviceptr to, const void *from, size_t bytes, CUstream stream))     \
    X(cuMemcpyDtoHAsync_v2, (void *to, CUdeviceptr from, size_t bytes, CUstream stream))           \
    X(cuMemcpyDtoDAsync_v2, (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream))     \
    X(cuMemsetD8_v2, (CUdeviceptr to, unsigned char value, size_t n))                              \
    X(cuMemsetD16_v2, (CUdeviceptr to, unsigned short value, size_t n))                            \
    X(cuMemsetD32_v2, (CUdeviceptr to, unsigned int value, size_t n))                              \
    X(cuMemsetD8Async, (CUdeviceptr to, unsigned char value, size_t n, CUstream stream))           \
    X(cuMemsetD16Async, (CUdeviceptr to, unsigned short value, size_t n, CUstream stream))         \
    X(cuMemsetD32Async, (CUdeviceptr to, unsigned int value, size_t n, CUstream stream))           \
    X(cuStreamCreate, (CUstream * stream, unsigned int flags))                                     \
    X(cuStreamCreateWithPriority, (CUstream * stream, unsigned int flags, int priority))           \
    X(cuCtxGetStreamPriorityRange, (int *least, int *greatest))                                    \
    X(cuStreamDestroy_v2, (CUstream stream))                                                       \
    X(cuStreamSynchronize, (CUstream stream))                                                      \
    X(cuStreamQuery, (CUstream stream))                                                            \
    X(cuStreamWaitEvent, (CUstream stream, CUevent event, unsigned int flags))                     \
    X(cuEventCreate, (CUevent * event, unsigned int flags))                                        \
    X(cuEventDestroy_v2, (CUevent event))                                                          \
    X(cuEventRecord, (CUevent event, CUstream stream))                                             \
    X(cuEventSynchronize, (CUevent event))                                                         \
    X(cuEventQuery, (CUevent event))                                                               \
    X(cuEventElapsedTime, (float *ms, CUevent start, CUevent end))                                 \
    X(cuEventElapsedTime_v2, (float *ms, CUevent start, CUevent end))                              \
    X(cuStreamBeginCapture_v2, (CUstream stream, int mode))                                        \
    X(cuStreamEndCapture, (CUstream stream, CUgraph * graph))                                      \
    X(cuStreamIsCapturing, (CUstream stream, int *status))                                         \
    X(cuGraphInstantiateWithFlags, (CUgraphExec * exec, CUgraph graph, uint64_t flags))            \
    X(cuGraphGetNodes, (CUgraph graph, void **nodes, size_t *n))                                   \
    X(cuGraphLaunch, (CUgraphExec exec, CUstream stream))                                          \
    X(cuGraphUpload, (CUgraphExec exec, CUstream stream))                                          \
    X(cuGraphExecDestroy, (CUgraphExec exec))                                                      \
    X(cuGraphDestroy, (CUgraph graph))

#pragma GCC visibility push(default)
#define CU_PROTOTYPE(NAME, PARAMS) CUresult NAME PARAMS;
CU_FUNCTIONS(CU_PROTOTYPE)
#undef CU_PROTOTYPE
#pragma GCC visibility pop

#endif
