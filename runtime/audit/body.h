/* body.h -- a kernel's body op by op: what the machine has for each result, and what the op gives
 * in doubles from the same inputs. */
#ifndef ZM_AUDIT_BODY_H
#define ZM_AUDIT_BODY_H

#include "ir/eval/eval.h"

/* One result of one op; exact is not rounded.  False: stop. */
typedef struct BodyResult {
    const Func *body;
    const Op *op; /* that computed it: never a view */
    const Type *type;
    const double *machine, *exact;
} BodyResult;

typedef struct BodyVisitor {
    void *self;
    bool (*result)(void *self, const BodyResult *r);
} BodyVisitor;

/* in: of the body's parameters; a workspace has at = NULL.  out: what the kernel wrote, by result
 * of the body, or NULL: then, as inside the kernel, the machine's number is the exact one rounded
 * to its dtype.  ZM_FAIL after a diagnostic of an op. */
Status body_run(Eval *e, const Func *body, const EvalTensor *in, const EvalTensor *out,
                const BodyVisitor *visitor);

#endif
