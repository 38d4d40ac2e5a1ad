/* numerics.h -- where do non-finite numbers come from?  An observer that looks at everything that a
 * command wrote. */
#ifndef ZM_RUNTIME_NUMERICS_H
#define ZM_RUNTIME_NUMERICS_H

#include "runtime/audit.h"
#include "runtime/kernel_inputs.h"

/* Between two collectives: what was found is located with the interpreter. */
#define NUMERICS_LIMIT_S 300.0

typedef struct Numerics {
    bool is_found;
    bool is_quiet;    /* goes on behind the first one: the other ranks do */
    int64_t found_at; /* commands before it */
    int64_t n_seen;
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
