/* eval_update.c -- optimizer steps (formulas: docs/ops.md; PyTorch's AdamW, Adam and SGD). */
#include <math.h>
#include <string.h>

#include "ir/eval/eval_rules.h"

/* Copies the state of a skipped step: operand from[i] is result i. */
static void keep_state(const EvalCall *c, const uint32_t *from)
{
    for (uint32_t i = 0; i < c->op->n_out; i++)
        memcpy(c->out[i].at, c->in[from[i]].at,
               (size_t)type_elems(c->out[i].type) * sizeof(double));
}

Status eval_adam_update(const EvalCall *c)
{
    if (c->in[8].at[0] == 0) {
        keep_state(c, (uint32_t[]){0, 2, 3});
        return ZM_OK;
    }
    Attrs at = c->op->attrs;
    double b1 = attr_float(at, AT_BETA1, 0), b2 = attr_float(at, AT_BETA2, 0);
    double eps = attr_float(at, AT_EPS, 0), decay = attr_float(at, AT_DECAY, 0);
    const char *kind = attr_str(at, AT_KIND);
    bool is_decoupled = !kind || strcmp(kind, "adamw") == 0;
    double gscale = c->in[4].at[0], lr = c->in[5].at[0], c1 = c->in[6].at[0], c2 = c->in[7].at[0];
    for (int64_t i = 0; i < type_elems(c->out[0].type); i++) {
        double p = c->in[0].at[i], g = c->in[1].at[i] * gscale;
        if (is_decoupled)
            p -= lr * decay * p;
        else
            g += decay * p;
        double m = b1 * c->in[2].at[i] + (1 - b1) * g;
        double v = b2 * c->in[3].at[i] + (1 - b2) * g * g;
        c->out[0].at[i] = p - lr * (m / c1) / (sqrt(v / c2) + eps);
        c->out[1].at[i] = m;
        c->out[2].at[i] = v;
    }
    return ZM_OK;
}

Status eval_sgd_update(const EvalCall *c)
{
    if (c->in[5].at[0] == 0) {
        keep_state(c, (uint32_t[]){0, 2});
        return ZM_OK;
    }
    Attrs at = c->op->attrs;
    double momentum = attr_float(at, AT_MOMENTUM, 0), decay = attr_float(at, AT_DECAY, 0);
    bool is_nesterov = attr_int(at, AT_NESTEROV, 0) != 0;
    double gscale = c->in[3].at[0], lr = c->in[4].at[0];
    for (int64_t i = 0; i < type_elems(c->out[0].type); i++) {
        double p = c->in[0].at[i], g = c->in[1].at[i] * gscale + decay * p;
        double m = momentum * c->in[2].at[i] + g;
        c->out[0].at[i] = p - lr * (is_nesterov ? g + momentum * m : m);
        c->out[1].at[i] = m;
    }
    return ZM_OK;
}

Status eval_descent_update(const EvalCall *c)
{
    if (c->in[4].at[0] == 0) {
        keep_state(c, (uint32_t[]){0});
        return ZM_OK;
    }
    double decay = attr_float(c->op->attrs, AT_DECAY, 0);
    double gscale = c->in[2].at[0], lr = c->in[3].at[0];
    for (int64_t i = 0; i < type_elems(c->out[0].type); i++) {
        double p = c->in[0].at[i];
        c->out[0].at[i] = p - lr * (c->in[1].at[i] * gscale + decay * p);
    }
    return ZM_OK;
}

Status eval_lion_update(const EvalCall *c)
{
    if (c->in[5].at[0] == 0) {
        keep_state(c, (uint32_t[]){0, 2});
        return ZM_OK;
    }
    Attrs at = c->op->attrs;
    double b1 = attr_float(at, AT_BETA1, 0), b2 = attr_float(at, AT_BETA2, 0);
    double decay = attr_float(at, AT_DECAY, 0), gscale = c->in[3].at[0], lr = c->in[4].at[0];
    for (int64_t i = 0; i < type_elems(c->out[0].type); i++) {
        double p = c->in[0].at[i], g = c->in[1].at[i] * gscale, m = c->in[2].at[i];
        double u = b1 * m + (1 - b1) * g, sign = u > 0 ? 1 : u < 0 ? -1 : u; /* NaN stays */
        c->out[0].at[i] = p - lr * (sign + decay * p);
        c->out[1].at[i] = b2 * m + (1 - b2) * g;
    }
    return ZM_OK;
}
