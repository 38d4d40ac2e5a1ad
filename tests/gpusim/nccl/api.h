/* api.h -- the part of NCCL's interface that the stand-in has: names, numbers and layouts of
 * nccl.h 2.30 (https://github.com/NVIDIA/nccl/blob/master/src/nccl.h.in). */
#ifndef ZM_GPUSIM_NCCL_API_H
#define ZM_GPUSIM_NCCL_API_H

#include <stddef.h>
#include <stdint.h>

enum { NCCL_UNIQUE_ID_BYTES = 128, NCCL_API_MAGIC = (int)0xcafebeef, NCCL_VERSION_CODE = 23007 };

typedef struct ncclComm *ncclComm_t;

typedef struct ncclUniqueId {
    char internal[NCCL_UNIQUE_ID_BYTES];
} ncclUniqueId;

typedef enum ncclResult_t {
    ncclSuccess = 0,
    ncclUnhandledCudaError = 1,
    ncclSystemError = 2,
    ncclInternalError = 3,
    ncclInvalidArgument = 4,
    ncclInvalidUsage = 5,
    ncclRemoteError = 6,
    ncclInProgress = 7
} ncclResult_t;

typedef enum ncclDataType_t {
    ncclInt32 = 2,
    ncclFloat16 = 6,
    ncclFloat32 = 7,
    ncclFloat64 = 8,
    ncclBfloat16 = 9
} ncclDataType_t;

typedef enum ncclRedOp_t { ncclSum = 0 } ncclRedOp_t;

typedef struct ncclConfig_t { /* its first members, which no version has changed */
    size_t size;
    unsigned magic, version;
    int blocking;
} ncclConfig_t;

#pragma GCC visibility push(default)
ncclResult_t ncclGetVersion(int *version);
ncclResult_t ncclGetUniqueId(ncclUniqueId *id);
ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int n_ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config);
ncclResult_t ncclCommInitRank(ncclComm_t *comm, int n_ranks, ncclUniqueId id, int rank);
ncclResult_t ncclCommFinalize(ncclComm_t comm);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclCommAbort(ncclComm_t comm);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error);
const char *ncclGetErrorString(ncclResult_t result);
const char *ncclGetLastError(ncclComm_t comm);
ncclResult_t ncclAllGather(const void *send, void *receive, size_t send_count, ncclDataType_t type,
                           ncclComm_t comm, void *stream);
ncclResult_t ncclReduceScatter(const void *send, void *receive, size_t receive_count,
                               ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm, void *stream);
ncclResult_t ncclAllReduce(const void *send, void *receive, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, void *stream);
ncclResult_t ncclBroadcast(const void *send, void *receive, size_t count, ncclDataType_t type,
                           int root, ncclComm_t comm, void *stream);

/* Beside NCCL's: bytes that this rank has sent so far. */
uint64_t gpusim_nccl_bytes(ncclComm_t comm);
#pragma GCC visibility pop

#endif
