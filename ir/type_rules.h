/* type_rules.h -- the TYPE column of ops.def as prototypes: a rule that is not written does not
 * link. */
#ifndef ZM_IR_TYPE_RULES_H
#define ZM_IR_TYPE_RULES_H

#include "ir/ir.h"

#define OP(ID, NAME, SIG_, ATTRS_, TYPE_, ...) TYPE_
#define POINT(ID, NAME, N_IN, TRAITS, TYPE_, ...) TYPE_
#define TYPE(RULE) const char *type_##RULE(const TypeIn *t, const Type **out);
#include "ir/ops.def"
#undef OP
#undef POINT
#undef TYPE

#endif
