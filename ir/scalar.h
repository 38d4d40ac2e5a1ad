/* scalar.h -- the scalar expressions of ops.def's GRAD and LOWER columns.
 *
 *   expr  := or ('?' expr ':' expr)?        or  := and ('||' and)*         and := cmp ('&&' cmp)*
 *   cmp   := sum (('<'|'<='|'>'|'>='|'=='|'!=') sum)?    sum := prod (('+'|'-') prod)*    prod :=
 * unary (('*'|'/') unary)* unary := '-' unary | '!' unary | number | name | name '(' expr (','
 * expr)* ')' | '(' expr ')'
 *
 * Names without parentheses are variables (a b c d y g); names with them are POINT ops.  '?:' is
 * select.
 */
#ifndef ZM_IR_SCALAR_H
#define ZM_IR_SCALAR_H

#include "ir/ir.h"

/* Writes the expression as IR ops: variables through names/values (all of one shape and dtype, i1
 * for conditions), constants as tensors of the type of `like`.  text may hold several expressions
 * separated by ';': `which` picks one. A malformed expression is a bug in ops.def (ZM_CHECK). */
ValueId scalar_build(Builder *b, const char *text, uint32_t which, const char *names,
                     const ValueId *values, const Type *like);
/* Is expression `which` of text just "0"? */
bool scalar_is_zero(const char *text, uint32_t which);
uint32_t scalar_count(const char *text); /* expressions in text */

#endif
