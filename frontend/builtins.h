/* builtins.h -- what the theme files of builtins share. */
#ifndef ZM_FRONTEND_BUILTINS_H
#define ZM_FRONTEND_BUILTINS_H

#include "frontend/elab.h"

#define BUILTIN(NAME, PARAMS, DOC) Val builtin_##NAME(Elab *e, BuiltinCall *c);
#include "frontend/builtins.def"
#undef BUILTIN

/* Argument i must be a tensor (of floats, of ints). */
Status need_tensor(Elab *e, const BuiltinCall *c, uint32_t i);
Status need_dtype(Elab *e, const BuiltinCall *c, uint32_t i, DType dtype);
Status need_int(Elab *e, const BuiltinCall *c, uint32_t i, int64_t *out);
Status need_number(Elab *e, const BuiltinCall *c, uint32_t i, double otherwise, double *out);
Status need_bool(Elab *e, const BuiltinCall *c, uint32_t i, bool otherwise, bool *out);
/* A list of integers, or one; at most n_max.  `...` is refused unless rest is given: then it may
 * stand first. */
Status need_ints(Elab *e, const BuiltinCall *c, uint32_t i, int n_max, int64_t *out, int *n,
                 bool *rest);
SrcPos arg_pos(const BuiltinCall *c, uint32_t i);
void note_args(Elab *e, const BuiltinCall *c); /* the types of the given tensors */

#endif
