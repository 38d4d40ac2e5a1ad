/* zmrt.h -- the runtime's one entry.  A training executable is a generated object (zm_program,
 * zm_program_bytes, zm_kernel_fns of ir/base/program.h) linked with this library; runtime/main.c
 * hands the three to zmrt_main.
 *
 * Reading order: zmrt.c (a whole run) -> train.c (the step loop) -> exec.c (one function) -> pool.c
 * (one kernel). */
#ifndef ZM_RUNTIME_ZMRT_H
#define ZM_RUNTIME_ZMRT_H

#include "ir/base/program.h"

/* Environment of ranks that a launcher gave one command line: what is wrong with it is said once.
 */
#define ZMRT_ALIKE "ZMC_ONE_COMMAND_LINE"

typedef struct ZmrtImage {
    const void *program; /* the blob, 8-byte aligned */
    uint64_t program_bytes;
    const ZmKernelFn *kernel_fns;   /* one per phase of each kernel */
    const struct AuditHooks *audit; /* audit.h; NULL: this program has none */
    const void *mpi_shim;           /* libzmc_mpi.so, for a program of many ranks ... */
    uint64_t mpi_shim_bytes;        /* ... 0: looked for when it starts (comm_mpi_open) */
    const void *device_code;        /* of a program for a GPU ... */
    uint64_t device_code_bytes;     /* ... 0: none */
    struct Comm *comm;              /* ranks as threads (tests): taken over; NULL: MPI */
} ZmrtImage;

/* Runs the command line.  Returns the exit code: 0 done, 1 bad use or input, 2 failed while
 * running, 130 or 143 stopped by SIGINT or SIGTERM.  Text that was asked for goes to stdout,
 * everything else to stderr. */
int zmrt_main(int argc, char **argv, const ZmrtImage *image);

#endif
