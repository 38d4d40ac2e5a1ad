/* grad.h -- gradient rules.  grad_<rule> exists for every name in ops.def's GRAD column (OP
 * entries); one that is missing does not link.  A rule reads the cotangents of its op's results and
 * adds one to each operand that wants it:
 *
 *   void grad_exp2(Grad *g) { if (grad_wants(g, 0)) grad_add(g, 0, ...build with &g->b...); }
 *
 * Cotangents have the type of their value, but f32 where the value is a 16-bit copy of a parameter
 * (a cast of it, or a view of one): a weight's gradient is never rounded to 16 bits. */
#ifndef ZM_PASSES_AUTODIFF_GRAD_H
#define ZM_PASSES_AUTODIFF_GRAD_H

#include "passes/forms.h"
#include "passes/pass.h"

typedef struct Reverse Reverse;

typedef struct Grad {
    Reverse *r;
    Builder b;          /* appends before @train's return */
    Op op;              /* copy: the function's own array moves while it grows */
    const ValueId *out; /* cotangent of each result; none = zero */
    Status status;      /* ZM_FAIL after a diagnostic */
} Grad;

typedef void GradFn(Grad *g);

#define GRAD(RULE) GradFn grad_##RULE;
#define POINT(...)
#define OP(ID, NAME, SIG_, ATTRS_, TYPE_, AMP_, GRAD_, COST_, FACTORS_, LOWER_, EVAL_, SAMPLE_,    \
           DOC_)                                                                                   \
    GRAD_
#include "ir/ops.def"
#undef OP
#undef POINT
#undef GRAD
GradFn grad_pointwise; /* POINT entries, by their expressions */

/* Whether operand i depends on a parameter. */
bool grad_wants(const Grad *g, uint32_t i);
/* Dtype of the cotangent of operand i. */
DType grad_dtype(const Grad *g, uint32_t i);
/* Adds x, rounded to that dtype, to the cotangent of operand i. */
void grad_add(Grad *g, uint32_t i, ValueId x);
/* Cotangent of result i as a value: a zero tensor where there is none. */
ValueId grad_out(Grad *g, uint32_t i);
/* E_NO_GRADIENT at the op. */
void grad_refuse(Grad *g, const char *why);
/* Gradient of the parameter that the op reads. */
void grad_add_param(Grad *g, VarId v, ValueId x);

static inline const Type *grad_type(const Grad *g, uint32_t i)
{
    return value_type(g->b.f, g->op.in[i]);
}

#endif
