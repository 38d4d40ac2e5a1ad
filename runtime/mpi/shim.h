/* shim.h -- the plain C face of an MPI library, so that an executable needs none to be linked or
 * started.  shim.c is compiled with that library's mpicc into libzmc_mpi.so; runtime/comm_mpi.c
 * loads it.
 *
 * Functions return 0, or an MPI error code for error_text.  Messages are at most INT_MAX bytes. */
#ifndef ZM_RUNTIME_MPI_SHIM_H
#define ZM_RUNTIME_MPI_SHIM_H

#include <stdint.h>

enum { MPI_SHIM_VERSION = 1, MPI_SHIM_ANY = -1 };
#define MPI_SHIM_ENTRY "zmc_mpi_shim"

typedef uint64_t MpiShimRequest; /* holds an MPI_Request */

typedef struct MpiShim {
    int version; /* MPI_SHIM_VERSION; checked before anything else is touched */
    int request_bytes;
    /* Starts MPI unless it was started; a communicator of its own. */
    int (*start)(int *rank, int *size);
    /* Ends MPI if start began it; waits for all ranks. */
    int (*end)(void);
    int (*gather)(const void *in, void *out, int n_bytes); /* waits; out: n_bytes of each rank */
    int (*send)(const void *at, int n_bytes, int peer, int tag, MpiShimRequest *r);
    int (*receive)(void *at, int n_bytes, int peer, int tag, MpiShimRequest *r); /* MPI_SHIM_ANY */
    /* is_done: the request is over and forgotten; of a receive: its bytes and sender. */
    int (*test)(MpiShimRequest *r, int *is_done, int *n_bytes, int *peer);
    int (*cancel)(MpiShimRequest *r); /* of a receive */
    void (*error_text)(int code, char *text, int n_bytes);
} MpiShim;

const MpiShim *zmc_mpi_shim(void);

#endif
