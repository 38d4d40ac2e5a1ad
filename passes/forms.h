/* forms.h -- pieces of composite ops that pass `expand` (the op itself) and pass `autodiff` (its
 * gradient) both write. They emit the same ops for the same operand, so that cse leaves one of each
 * and the backward reads what the forward computed.  Row statistics keep the reduced dimension with
 * size 1. */
#ifndef ZM_PASSES_FORMS_H
#define ZM_PASSES_FORMS_H

#include "ir/ir.h"

/* A 16-bit float as f32, the dtype in which composite ops compute; anything else is x itself. */
ValueId form_widen(Builder *b, ValueId x);
/* The reduced dimension of x back to x's shape. */
ValueId form_spread(Builder *b, ValueId row, ValueId x);

ValueId form_sum(Builder *b, ValueId x, int64_t axis);  /* [.., 1, ..] */
ValueId form_mean(Builder *b, ValueId x, int64_t axis); /* [.., 1, ..]: sum / n */
ValueId form_square(Builder *b, ValueId x);

/* normalize: rows of [..., C].  centred = x - mean(x); rstd = 1 / sqrt(mean(centred^2) + eps),
 * [..., 1]. */
typedef struct FormNorm {
    ValueId centred, rstd;
} FormNorm;
FormNorm form_normalize(Builder *b, ValueId x, double eps);
/* rms_normalize: 1 / sqrt(mean(x^2) + eps), [..., 1]. */
ValueId form_rms_rstd(Builder *b, ValueId x, double eps);

/* softmax along `axis`: shifted = x - max(x); e = exp(shifted); sum = sum(e), one per row. */
typedef struct FormSoftmax {
    ValueId shifted, e, sum;
} FormSoftmax;
FormSoftmax form_softmax(Builder *b, ValueId x, int64_t axis);

/* i1 of x's shape [..., V]: where the index along the last dimension is target i32[...]. */
ValueId form_one_hot(Builder *b, ValueId target, ValueId x);
/* i1 of x's shape: whether the index along `axis` is below `bound`. */
ValueId form_index_below(Builder *b, ValueId x, int64_t axis, int64_t bound);
/* i1[...]: target == the op's attribute `ignore`; none when it has no such attribute. */
ValueId form_ignored(Builder *b, ValueId target, Attrs attrs);

/* Probabilities p = exp(scale q k^T + bias - lse), 0 where masked, f32 [B, H, T, S], of sdpa or
 * sdpa_grad*: `in` are the op's operands (q, k, v, ...), `extra` the index of the first optional
 * one. */
typedef struct FormAttention {
    ValueId mask, bias, key; /* none when absent; mask i1[B,H,T,S] already includes `causal` */
    ValueId scores;          /* before masking */
    double scale, p_drop;
} FormAttention;
FormAttention form_attention(Builder *b, const ValueId *in, uint32_t n_in, uint32_t extra,
                             Attrs attrs);

/* i1 of shape t: random(key) >= p, each element drawn from `stream`; batch samples. */
ValueId form_keep(Builder *b, ValueId key, const Type *t, Attrs attrs);

ValueId form_scalar(Builder *b, ValueId like, double v); /* constant of like's type */

#endif
