/* canon.c -- brings the IR into canonical form: the rules of canon_rules.c to a fixed point. */
#include "passes/canon_rules.h"

Status pass_canon(PassCtx *cx, bool *changed)
{
    rewrite_module(cx, canon_rules, n_canon_rules, cx->rule_hits);
    *changed = cx->n_rewrites > 0;
    return ZM_OK;
}
