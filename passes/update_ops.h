/* update_ops.h -- what passes know of the optimizers' update ops: operands p, g, then the moments,
 * then scalars; results p, then the moments. */
#ifndef ZM_PASSES_UPDATE_OPS_H
#define ZM_PASSES_UPDATE_OPS_H

#include "ir/ir.h"

static inline bool op_is_update(OpCode code)
{
    return code == OP_ADAM_UPDATE || code == OP_SGD_UPDATE || code == OP_DESCENT_UPDATE ||
           code == OP_LION_UPDATE;
}

/* Moments: operands 2 .. 2 + n - 1, results 1 .. n. */
static inline uint32_t update_n_moments(OpCode code)
{
    return code == OP_ADAM_UPDATE ? 2 : code == OP_DESCENT_UPDATE ? 0 : 1;
}

/* The variable that v is a reading of; none when v is something else. */
static inline VarId value_read_var(const Func *f, ValueId v)
{
    OpId def = value_cget(f, v)->def;
    if (!op_ok(def) || op_cget(f, def)->code != OP_READ) return (VarId){0};
    return var_find(f->m, attr_str(op_cget(f, def)->attrs, AT_VAR));
}

/* round_bf16(x, u), u drawn from `stream`: that of x's element e is number first + e of the step
 * (modulo 2^32), whatever the micro-batch. */
ValueId build_rounding(Builder *b, ValueId x, const char *stream, int64_t first);

#endif
