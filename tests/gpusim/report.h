/* report.h -- what the simulator found: one line each on stderr and in $GPUSIM_REPORT. */
#ifndef ZM_GPUSIM_REPORT_H
#define ZM_GPUSIM_REPORT_H

#include <stdio.h>

#include "tests/gpusim/sim.h"

typedef enum {
    REPORT_BOUNDS,
    REPORT_ALIGNMENT,
    REPORT_UNINITIALISED,
    REPORT_SHARED_RACE, /* within a block, no barrier between */
    REPORT_GLOBAL_RACE, /* between blocks of a launch */
    REPORT_STREAM_RACE, /* between operations that no stream or event orders */
    REPORT_BARRIER,     /* divergent */
    REPORT_LANE,        /* absent */
    REPORT_TRAP,
    REPORT_API, /* a call that the driver takes, though it is wrong */
    N_REPORT
} ReportKind;

/* A defect of a kernel, at the lane's instruction:
 *   gpusim: KIND: WHAT; kernel K, block (x,y,z), thread (x,y,z), FILE:LINE: SOURCE
 * Only the first of a kind is reported for an instruction, in each launch. */
ZM_PRINTF(5, 6)
void report_lane(const Warp *w, const Insn *in, int lane, ReportKind kind, const char *fmt, ...);
ZM_PRINTF(2, 3) void report_plain(ReportKind kind, const char *fmt, ...); /* no lane's */
unsigned long report_count(void);                                         /* lines so far */

#endif
