/* nccl_api.h -- NCCL's library, opened when ranks on GPUs start: own prototypes, no header and no
 * link dependency.  Numbers and layouts: nccl.h.in of https://github.com/NVIDIA/nccl. */
#ifndef ZM_RUNTIME_NCCL_API_H
#define ZM_RUNTIME_NCCL_API_H

#include "runtime/error.h"

enum {
    NCCL_OK = 0,
    NCCL_IN_PROGRESS = 7,
    NCCL_INT32 = 2,
    NCCL_FLOAT16 = 6,
    NCCL_FLOAT32 = 7,
    NCCL_FLOAT64 = 8,
    NCCL_BFLOAT16 = 9,
    NCCL_SUM = 0,
    NCCL_OLDEST = 21800, /* 2.18: communicators that do not block, with this configuration */
    NCCL_ID_BYTES = 128
};

typedef struct NcclComm *NcclCommRef;

typedef struct NcclId { /* passed by value */
    char bytes[NCCL_ID_BYTES];
} NcclId;

/* ncclConfig_t as of 2.18: later versions take a shorter one by its size and version, and set the
 * rest themselves. */
typedef struct NcclConfig {
    size_t size;
    unsigned magic, version;
    int blocking, cga_cluster_size, min_ctas, max_ctas;
    const char *net_name;
    int split_share, unused;
} NcclConfig;

/* X(member, exported name, parameters); all return ncclResult_t. */
#define NCCL_API(X)                                                                                \
    X(version, "ncclGetVersion", (int *version))                                                   \
    X(new_id, "ncclGetUniqueId", (NcclId * id))                                                    \
    X(init, "ncclCommInitRankConfig",                                                              \
      (NcclCommRef * comm, int n_ranks, NcclId id, int rank, NcclConfig *config))                  \
    X(async_error, "ncclCommGetAsyncError", (NcclCommRef comm, int *error))                        \
    X(finalize, "ncclCommFinalize", (NcclCommRef comm))                                            \
    X(destroy, "ncclCommDestroy", (NcclCommRef comm))                                              \
    X(abort, "ncclCommAbort", (NcclCommRef comm))                                                  \
    X(all_gather, "ncclAllGather",                                                                 \
      (const void *in, void *out, size_t in_count, int dtype, NcclCommRef comm, void *stream))     \
    X(reduce_scatter, "ncclReduceScatter",                                                         \
      (const void *in, void *out, size_t out_count, int dtype, int op, NcclCommRef comm,           \
       void *stream))                                                                              \
    X(all_reduce, "ncclAllReduce",                                                                 \
      (const void *in, void *out, size_t count, int dtype, int op, NcclCommRef comm,               \
       void *stream))                                                                              \
    X(broadcast, "ncclBroadcast",                                                                  \
      (const void *in, void *out, size_t count, int dtype, int root, NcclCommRef comm,             \
       void *stream))

typedef struct NcclLibrary {
    void *handle;
    int number; /* 22304: 2.23.4 */
    const char *(*error_text)(int result);
    const char *(*last_error)(NcclCommRef comm); /* NULL: the library has none */
#define NCCL_MEMBER(NAME, SYMBOL, PARAMS) int(*NAME) PARAMS;
    NCCL_API(NCCL_MEMBER)
#undef NCCL_MEMBER
} NcclLibrary;

/* $ZMC_NCCL (a library or its folder), else the loader's path, the CUDA toolkit, Python's wheels.
 * RT_BAD: what is missing or too old, and where to get it.  The library stays loaded. */
RtStatus nccl_library_open(NcclLibrary *l, RtError *e);

/* Not to block: so that a limit holds. */
NcclConfig nccl_config(void);

#endif
