/* gpusim.h -- what the simulator exports beside the driver API, for tests and for the stand-in of
 * NCCL.  Link against nothing: dlsym() these from the library that stands for libcuda.so.1. */
#ifndef ZM_GPUSIM_H
#define ZM_GPUSIM_H

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

/* Reports so far in this process. */
unsigned long gpusim_report_count(void);

typedef struct GpusimRange { /* device or pinned memory that an operation accesses */
    uint64_t address;
    size_t bytes;
    int is_written;
} GpusimRange;

typedef enum GpusimPoll { GPUSIM_DONE, GPUSIM_LATER } GpusimPoll;

/* Puts an operation of one's own on a stream (or into its capture).  fn runs on the host when the
 * stream reaches it, under the driver's lock, until it is done: one that waits for other processes
 * says GPUSIM_LATER, and is asked again whenever somebody waits or asks, or the host has not called
 * the driver for a while.  It must not call the driver; gpusim_host_address() before.  `name` is
 * copied; ranges are checked as a copy's are (order between streams, reads of what nothing wrote),
 * once.  Returns a CUresult. */
int gpusim_enqueue(void *stream, const char *name, GpusimPoll (*fn)(void *arg), void *arg,
                   const GpusimRange *ranges, size_t n_ranges);

/* Does a graph that was not destroyed yet hold an operation with this arg? */
int gpusim_is_captured(const void *arg);

/* A defect that a stand-in of another library found: a report like the simulator's own. */
void gpusim_report(const char *text);

/* Where device or pinned memory lies on the host; NULL: no allocation holds all of it. */
void *gpusim_host_address(uint64_t address, size_t bytes);

#pragma GCC visibility pop

#endif
