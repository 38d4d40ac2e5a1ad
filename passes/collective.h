/* collective.h -- what a collective moves: which bucket, of which layer. */
#ifndef ZM_PASSES_COLLECTIVE_H
#define ZM_PASSES_COLLECTIVE_H

#include "passes/pass.h"

static inline bool op_is_collective(OpCode code) /* all_gather, reduce_scatter, all_reduce */
{
    return op_takes_attr(code, AT_ASYNC);
}

/* What pass zero says that op moves, by its location: "bucket.3", "grad.bucket.3"; NULL: nothing.
 */
const char *collective_tensor(const Module *m, const Op *op);
const char *collective_bucket_name(const Module *m, const Op *op); /* "bucket.3" of both */
const char *collective_what(const Module *m, const Op *op); /* "params", "grads" or "scalars" */
/* The bucket of parameters that op's operand is read from, or that pass zero named it by; none:
 * neither. */
VarId collective_bucket(const Func *f, OpId op);
/* An all_gather of a reading of a bucket of parameters. */
bool gathers_params(const Func *f, OpId op);
/* The path of the repeat instance that the bucket's parameters belong to, interned; "": none. */
const char *bucket_instance(Module *m, VarId bucket);
#endif
