/* ranks.h -- one run on many ranks: how they find each other, what they must have in common, and
 * what they say to each other outside of a step.  On one rank everything here is done at once.
 *
 * A failure on which all ranks agree (Run.is_agreed) ends each of them in order, and rank 0 says
 * what it was; any other one ends the communicator, and every rank says what it saw. */
#ifndef ZM_RUNTIME_RANKS_H
#define ZM_RUNTIME_RANKS_H

#include "runtime/run.h"

/* Opens r->comm for a program of many ranks.  RT_BAD, at once and before MPI is touched, when the
 * launcher's world is another one than the program's; shim: of MPI, from the executable. */
RtStatus ranks_open(Run *r, const ZmrtImage *image, RtError *e);
/* The launcher's number of this process, known before ranks_open; 0 without a launcher. */
int ranks_number(void);
bool ranks_launched(void); /* a launcher started more than this process */

/* The same commands in the same order, the same options: else RT_BAD on all, with what differs. */
RtStatus ranks_compare(Run *r, RtError *e);
/* The same for numbers of this run: `what` of them, such as samples, and where they come from. */
RtStatus ranks_compare_number(Run *r, int64_t n, const char *what, RtError *e);

/* comm_place(), for who takes a part of its machine's GPUs. */
RtStatus ranks_place(Run *r, RtError *e);

/* Threads for this rank by default: its share of the CPUs of its host. */
RtStatus ranks_threads(Run *r, int *n, RtError *e);

/* comm_agree, noted in r->is_agreed. */
RtStatus ranks_agree(Run *r, RtStatus mine, const char *what, int64_t n_bytes, RtError *e);

/* The largest of the ranks' numbers. */
RtStatus ranks_max(Run *r, int64_t mine, int64_t *out, const char *what, RtError *e);

/* n_bytes of each rank, in rank order, at `all`; a multiple of 4, aligned to 4. */
RtStatus ranks_gather(Comm *c, const void *mine, void *all, size_t n_bytes, const char *what,
                      RtError *e);

/* Tells the others that this rank ends, and leaves. */
void ranks_close(Run *r, RtStatus status, const RtError *e);

#endif
