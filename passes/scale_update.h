/* scale_update.h -- loss scaling as arithmetic on device scalars: docs/precision.md.
 *
 * A static scale is a constant.  A dynamic one is the variable @loss_scale, read by the backward's
 * seed (pass loss_scale) and by @last, which also replaces it (pass accumulate). */
#ifndef ZM_PASSES_SCALE_UPDATE_H
#define ZM_PASSES_SCALE_UPDATE_H

#include "passes/pass.h"

/* f32[]: the scale of this step's backward, by m->train.scale. */
ValueId scale_now(Builder *b);

/* What a step means for the scaler, each i1[].  Neither: the scaler stands still. */
typedef struct ScaleVerdict {
    ValueId overflow; /* a gradient is not finite */
    ValueId clean;    /* every gradient is finite, and there was something to learn */
} ScaleVerdict;

/* Writes the metrics' scalars and, of a dynamic scale, the scaler's next state.  `used` is
 * scale_now() of the step, not used after this. */
void scale_advance(Builder *b, ValueId used, const ScaleVerdict *v);

#endif
