/* rewrite.h -- local rewrites as data: a rule replaces the result of an op by an equal value.
 *
 * A rule has a left side (a pattern over ops), and either a right side (a pattern too) or a
 * function that decides and builds.  The driver looks rules up by the code of the root op, in table
 * order, and works a list of ops until no rule fires.  That ends because every rule lowers the
 * triple (COST, TREE, KIND) = (elements computed, ops, weight of the root's code), constants not
 * counted, in that order, of what it matched against what it made; the driver checks the claim each
 * time a rule fires.  Each side counts an op once per path, so the totals of the whole function,
 * written out as trees, fall too.
 *
 * Precision: EXACT = bit for bit (any NaN equals any NaN).  REASSOC = the value of a correct but
 * other order of the same sums, or the sign of a zero. */
#ifndef ZM_PASSES_REWRITE_H
#define ZM_PASSES_REWRITE_H

#include "passes/pass.h"

enum { PAT_MAX_IN = 3, PAT_MAX_VARS = 4, PAT_MAX_OPS = 4 };

typedef enum { PAT_VAR, PAT_CONST, PAT_OP } PatKind;

typedef struct Pat {
    PatKind kind;
    int var;                          /* VAR: its number; the same number must be the same value */
    double value;                     /* CONST: a splat of exactly this value (-0 is not 0) */
    OpCode op;                        /* OP; OP_NONE: any op (root only) */
    bool once;                        /* OP: its result has no other user */
    const struct Pat *in[PAT_MAX_IN]; /* OP: operands; in[0] = NULL: any */
} Pat;

#define P_VAR(N) (&(const Pat){.kind = PAT_VAR, .var = (N)})
#define P_CONST(V) (&(const Pat){.kind = PAT_CONST, .value = (V)})
#define P(CODE, ...) (&(const Pat){.kind = PAT_OP, .op = OP_##CODE, .in = {__VA_ARGS__}})
#define P_ONCE(CODE, ...)                                                                          \
    (&(const Pat){.kind = PAT_OP, .op = OP_##CODE, .once = true, .in = {__VA_ARGS__}})
#define P_ANY(CODE) (&(const Pat){.kind = PAT_OP, .op = OP_##CODE})

typedef enum { LOWERS_COST, LOWERS_TREE, LOWERS_KIND } Measure;
typedef enum { EXACT, REASSOC } Precision;

typedef struct Rewrite {
    Builder b;            /* inserts before the root */
    OpId op[PAT_MAX_OPS]; /* matched ops; [0] the root, then in the pattern's order */
    uint32_t n_ops;
    ValueId var[PAT_MAX_VARS];
    /* Dimensions of one element stay what they are: pass zero is to come, and the batch of one
     * sample will be that of each rank. */
    bool keeps_units;
} Rewrite;

/* The value that replaces the root's result (same type), or none when the rule does not apply: then
 * it built nothing. */
typedef ValueId RewriteFn(Rewrite *rw);

typedef struct Rule {
    const char *name;
    const Pat *lhs;
    const Pat *rhs; /* or */
    RewriteFn *build;
    Measure lowers;
    Precision precision;
} Rule;

#define RULE(NAME, LHS, RHS, LOWERS, PRECISION) {#NAME, LHS, RHS, NULL, LOWERS_##LOWERS, PRECISION}
/* built by rule_<name>() */
#define RULE_FN(NAME, LHS, LOWERS, PRECISION)                                                      \
    {#NAME, LHS, NULL, rule_##NAME, LOWERS_##LOWERS, PRECISION}

/* Applies the rules to all functions to a fixed point.  hits[i] (may be NULL) counts rule i,
 * cx->n_rewrites all. */
void rewrite_module(PassCtx *cx, const Rule *rules, uint32_t n_rules, uint32_t *hits);

static inline const Op *rewrite_op(const Rewrite *rw, uint32_t i)
{
    return op_cget(rw->b.f, rw->op[i]);
}

/* Type of the root's result. */
static inline const Type *rewrite_type(const Rewrite *rw)
{
    return value_type(rw->b.f, rewrite_op(rw, 0)->out[0]);
}

/* The op that defines v; NULL for a parameter. */
static inline const Op *rewrite_def(const Rewrite *rw, ValueId v)
{
    OpId def = value_cget(rw->b.f, v)->def;
    return op_ok(def) ? op_cget(rw->b.f, def) : NULL;
}

#endif
