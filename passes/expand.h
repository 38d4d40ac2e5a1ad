/* expand.h -- how a composite op is written out.  expand_<ID> exists for every op of ops.def with
 * LOWER(EXPAND); one that is missing does not link.  To write one: read the operands from e->op,
 * build before it with e->b, put one value of the right type per result into e->out. */
#ifndef ZM_PASSES_EXPAND_H
#define ZM_PASSES_EXPAND_H

#include "passes/forms.h"
#include "passes/pass.h"

enum { EXPAND_MAX_OUT = 3 };

typedef struct Expand {
    Builder b; /* inserts before the op */
    Op op;     /* copy: the function's own array moves while it grows */
    ValueId out[EXPAND_MAX_OUT];
} Expand;

typedef void ExpandFn(Expand *e);

#define EXPAND_DECLARE_EXPAND(ID) ExpandFn expand_##ID;
#define EXPAND_DECLARE_NONE(ID)
#define EXPAND_DECLARE_POINT EXPAND_DECLARE_NONE
#define EXPAND_DECLARE_NEST EXPAND_DECLARE_NONE
#define EXPAND_DECLARE_CONTRACT EXPAND_DECLARE_NONE
#define EXPAND_DECLARE_ATTENTION EXPAND_DECLARE_NONE
#define EXPAND_DECLARE_SCATTER EXPAND_DECLARE_NONE
#define EXPAND_DECLARE_VIEW EXPAND_DECLARE_NONE
#define EXPAND_DECLARE_HOST EXPAND_DECLARE_NONE
#define LOWER(KIND) EXPAND_DECLARE_##KIND
#define POINT(...)
#define OP(ID, NAME, SIG_, ATTRS_, TYPE_, AMP_, GRAD_, COST_, FACTORS_, LOWER_, EVAL_, SAMPLE_,    \
           DOC_)                                                                                   \
    LOWER_(ID)
#include "ir/ops.def"
#undef OP
#undef POINT
#undef LOWER

/* v in the dtype of result `i`. */
static inline ValueId expand_narrow(Expand *e, uint32_t i, ValueId v)
{
    return build_cast(&e->b, v, value_type(e->b.f, e->op.out[i])->dtype);
}

#endif
