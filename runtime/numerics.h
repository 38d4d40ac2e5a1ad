/* numerics.h -- where do non-finite numbers come from?  An observer that looks at everything that a
 * command wrote. */
#ifndef ZM_RUNTIME_NUMERICS_H
#define ZM_RUNTIME_NUMERICS_H

#include "runtime/audit.h"
#include "runtime/kernel_inputs.h"

typedef struct Numerics {
    bool is_found;
    const AuditHooks *audit; /* NULL: ops inside of kernels are not told apart */
    KernelInputs inputs;     /* of the running command */
    Str text; /* "loss[3] = inf, written by softmax at gpt2.zm:12:3 (command 40 of last)" */
} Numerics;

void numerics_free(Numerics *n);

/* The persistent variables, before any command runs. */
void numerics_scan_state(Numerics *n, const Exec *x);

/* Stops the function (RT_FAILED) at the first command that writes a non-finite number; n->text says
 * where. */
Observer numerics_observer(Numerics *n);

#endif
