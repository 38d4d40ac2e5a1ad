/* eval_random.c -- counter-based random numbers and dropout (ops.def, op random). */
#include <string.h>

#include "ir/base/philox.h"
#include "ir/eval/eval_rules.h"

RandomStream random_stream(const EvalTensor *key, const char *stream)
{
    const double *k = key->at;
    return (RandomStream){(uint32_t)(int64_t)k[0], (uint32_t)(int64_t)k[1], (uint32_t)(int64_t)k[2],
                          (uint32_t)(int64_t)k[3], hash_bytes(stream, strlen(stream), 0)};
}

double random_uniform(const RandomStream *r, int64_t sample, int64_t element)
{
    Philox x = philox((uint32_t)element, r->first_sample + (uint32_t)sample, r->step,
                      (uint32_t)r->stream, r->seed_low, r->seed_high ^ (uint32_t)(r->stream >> 32));
    return (double)(x.x[0] >> 8) * 0x1p-24;
}

Status eval_random(const EvalCall *c)
{
    RandomStream r = random_stream(&c->in[0], attr_str(c->op->attrs, AT_STREAM));
    int64_t n = type_elems(c->out[0].type);
    int64_t per_sample = n / attr_int(c->op->attrs, AT_BATCH, 1);
    for (int64_t i = 0; i < n; i++)
        c->out[0].at[i] = random_uniform(&r, i / per_sample, i % per_sample);
    return ZM_OK;
}

Status eval_drop(const EvalCall *c)
{
    RandomStream r = random_stream(&c->in[1], attr_str(c->op->attrs, AT_STREAM));
    int64_t n = type_elems(c->out[0].type);
    int64_t per_sample = n / attr_int(c->op->attrs, AT_BATCH, 1);
    double p = dtype_round(DT_F32, attr_float(c->op->attrs, AT_P, 0)); /* random is f32 */
    for (int64_t i = 0; i < n; i++)
        if (random_uniform(&r, i / per_sample, i % per_sample) >= p)
            c->out[0].at[i] = c->in[0].at[i] / (1 - p);
    return ZM_OK;
}
