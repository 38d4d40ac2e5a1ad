/* kernel_inputs.h -- what a command reads, kept while it runs: a kernel may write over its inputs.
 */
#ifndef ZM_RUNTIME_KERNEL_INPUTS_H
#define ZM_RUNTIME_KERNEL_INPUTS_H

#include "runtime/exec.h"

typedef struct KernelInputs {
    char *
        *at; /* by argument of the command: its bytes before it ran; NULL for what it only writes */
    char *copies;
    size_t n_at, n_bytes; /* room */
} KernelInputs;

/* Before the command.  Only inputs that share bytes with an output are copied. */
RtStatus kernel_inputs_take(KernelInputs *k, const Exec *x, uint32_t command, RtError *e);
void kernel_inputs_free(KernelInputs *k);

#endif
