/* shim.c -- see shim.h.  The only file that sees mpi.h.  MPI itself is one per process, and so is
 * this state. */
#include "runtime/mpi/shim.h"

#include <mpi.h>
#include <string.h>

_Static_assert(sizeof(MPI_Request) <= sizeof(MpiShimRequest), "a request fits");

static MPI_Comm ranks;
static int is_ours; /* MPI was started here */

static int shim_start(int *rank, int *size)
{
    int is_started, provided, code = MPI_Initialized(&is_started);
    if (code == MPI_SUCCESS && !is_started) {
        code = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
        is_ours = code == MPI_SUCCESS;
    }
    if (code == MPI_SUCCESS) code = MPI_Comm_dup(MPI_COMM_WORLD, &ranks);
    if (code == MPI_SUCCESS) code = MPI_Comm_set_errhandler(ranks, MPI_ERRORS_RETURN);
    if (code == MPI_SUCCESS) code = MPI_Comm_rank(ranks, rank);
    if (code == MPI_SUCCESS) code = MPI_Comm_size(ranks, size);
    return code;
}

static int shim_end(void)
{
    int code = MPI_Comm_free(&ranks);
    return code == MPI_SUCCESS && is_ours ? MPI_Finalize() : code;
}

static int shim_gather(const void *in, void *out, int n_bytes)
{
    return MPI_Allgather(in, n_bytes, MPI_BYTE, out, n_bytes, MPI_BYTE, ranks);
}

static MPI_Request request_get(const MpiShimRequest *r)
{
    MPI_Request q;
    memcpy(&q, r, sizeof q);
    return q;
}

static void request_set(MpiShimRequest *r, MPI_Request q)
{
    memcpy(r, &q, sizeof q);
}

static int shim_send(const void *at, int n_bytes, int peer, int tag, MpiShimRequest *r)
{
    MPI_Request q;
    int code = MPI_Isend(at, n_bytes, MPI_BYTE, peer, tag, ranks, &q);
    request_set(r, q);
    return code;
}

static int shim_receive(void *at, int n_bytes, int peer, int tag, MpiShimRequest *r)
{
    MPI_Request q;
    int from = peer == MPI_SHIM_ANY ? MPI_ANY_SOURCE : peer;
    int code = MPI_Irecv(at, n_bytes, MPI_BYTE, from, tag, ranks, &q);
    request_set(r, q);
    return code;
}

static int shim_test(MpiShimRequest *r, int *is_done, int *n_bytes, int *peer)
{
    MPI_Request q = request_get(r);
    MPI_Status status;
    int code = MPI_Test(&q, is_done, &status);
    request_set(r, q);
    if (code != MPI_SUCCESS || !*is_done) return code;
    *peer = status.MPI_SOURCE;
    return MPI_Get_count(&status, MPI_BYTE, n_bytes);
}

static int shim_cancel(MpiShimRequest *r)
{
    MPI_Request q = request_get(r);
    int code = MPI_Cancel(&q);
    if (code == MPI_SUCCESS) code = MPI_Wait(&q, MPI_STATUS_IGNORE);
    return code;
}

static void shim_error_text(int code, char *text, int n_bytes)
{
    char full[MPI_MAX_ERROR_STRING];
    int n = 0;
    if (MPI_Error_string(code, full, &n) != MPI_SUCCESS) n = 0;
    if (n > n_bytes - 1) n = n_bytes - 1;
    memcpy(text, full, (size_t)n);
    text[n] = 0;
}

const MpiShim *zmc_mpi_shim(void)
{
    static const MpiShim shim = {MPI_SHIM_VERSION, sizeof(MPI_Request), shim_start,   shim_end,
                                 shim_gather,      shim_send,           shim_receive, shim_test,
                                 shim_cancel,      shim_error_text};
    return &shim;
}
