/* eval_point.c -- element-wise ops: the EVAL column of each POINT entry as a C function. */
#include <math.h>

#include "ir/eval/eval_rules.h"

/* d/da of gelu_tanh(a) = a/2 (1 + tanh u), u = k (a + 0.044715 a^3), k = sqrt(2/pi). */
static double gelu_tanh_slope(double a)
{
    double k = sqrt(2 / 3.14159265358979323846);
    double t = tanh(k * (a + 0.044715 * a * a * a));
    double du = k * (1 + 3 * 0.044715 * a * a);
    return 0.5 * (1 + t) + 0.5 * a * (1 - t * t) * du;
}

#define OP(...)
#define EVAL(C) (double)(C)
#define POINT(ID, NAME, N_IN, TRAITS, TYPE_, AMP_, GRAD_, FLOPS, LOWER_, EVAL_, SAMPLE_, DOC_)     \
    static double point_##ID(double a, double b, double c)                                         \
    {                                                                                              \
        (void)b;                                                                                   \
        (void)c;                                                                                   \
        return EVAL_;                                                                              \
    }
#include "ir/ops.def"
#undef POINT

PointFn eval_point(OpCode code)
{
    static const PointFn fns[N_OP] = {
#define POINT(ID, ...) [OP_##ID] = point_##ID,
#include "ir/ops.def"
#undef POINT
    };
    return fns[code];
}

Status eval_cast(const EvalCall *c)
{
    for (int64_t i = 0; i < type_elems(c->in[0].type); i++) c->out[0].at[i] = c->in[0].at[i];
    return ZM_OK; /* the caller rounds to the result's dtype, which is the cast */
}
