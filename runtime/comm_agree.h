/* comm_agree.h -- what the ranks decide together: one outcome for all of them, so that none goes on
 * where another has failed.
 *
 * All ranks call these at the same place of their program.  c = NULL: one rank. */
#ifndef ZM_RUNTIME_COMM_AGREE_H
#define ZM_RUNTIME_COMM_AGREE_H

#include "runtime/comm.h"

static inline int comm_rank_or_0(const Comm *c)
{
    return c ? comm_rank(c) : 0;
}

static inline int comm_size_or_1(const Comm *c)
{
    return c ? comm_size(c) : 1;
}

/* Seconds that others wait for a rank which reads or writes n_bytes first: a slow disk is no hang.
 */
double comm_patience_s(int64_t n_bytes);

/* RT_OK when `mine` was RT_OK on every rank; else, on every rank, the status and the message of the
 * first rank that failed ("rank 2: cannot ..." unless all of them did).  Also a barrier.  n_bytes:
 * what a rank may have read or written since the last one, the same on all.  `what` names the
 * moment: "the checkpoint". */
RtStatus comm_agree(Comm *c, RtStatus mine, const char *what, int64_t n_bytes, RtError *e);

/* Rank 0's bytes to all; n_bytes a multiple of 4, at `at` aligned to 4. */
RtStatus comm_tell(Comm *c, void *at, size_t n_bytes, const char *what, RtError *e);

#endif
