/* audit.h -- what the runtime asks of runtime/audit/, which knows the IR that the program was made
 * from. Main hands the hooks over (zmrt.h), so that the runtime itself depends on ir/base alone. */
#ifndef ZM_RUNTIME_AUDIT_H
#define ZM_RUNTIME_AUDIT_H

#include "runtime/exec.h"

typedef struct Audit Audit;

typedef struct AuditHooks {
    /* Reads the program's IR.  x outlives the audit. */
    RtStatus (*open)(Audit **out, const Exec *x, RtError *e);
    void (*close)(Audit *a); /* NULL is allowed */

    /* Watches functions and computes each op of each kernel again. */
    Observer (*observer)(Audit *a);
    /* The table of what was seen. */
    void (*add_table)(const Audit *a, Str *out);

    /* The op inside a kernel that first makes a number that is not finite, computed from the inputs
     * at input[argument of the command]: "gpt2.zm:12:3: element 5 of the result of exp is inf".
     * False: none does. */
    bool (*locate)(Audit *a, const ZmpFunc *f, uint32_t command, char *const *input, Str *out);
} AuditHooks;

#endif
