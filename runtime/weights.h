/* weights.h -- published weight files: --load and --export, names through the model's `weights`
 * section. */
#ifndef ZM_RUNTIME_WEIGHTS_H
#define ZM_RUNTIME_WEIGHTS_H

#include "runtime/safetensors.h"
#include "runtime/state.h"

/* What a published name means to the program. */
typedef enum WeightUse { WEIGHT_PARAM, WEIGHT_ALIAS, WEIGHT_IGNORED, WEIGHT_UNKNOWN } WeightUse;

/* Rules in this order: strip, then ignore, alias, rename (each tried on the name as given and as
 * stripped).  *path: the parameter of PARAM and ALIAS. */
WeightUse weight_use(const Program *p, const char *published, const char **path);
const char *weight_published(const Program *p,
                             const char *path); /* the name under which a parameter is exported */

/* Both over all ranks of the state, which end with one outcome.
 *
 * Fills what this rank holds of parameters and their masters; moments and scalars keep their
 * initial values.  Missing, unexpected and mis-shaped tensors are reported together, and nothing is
 * loaded then. */
RtStatus weights_load(const Exec *x, const State *s, Arena *a, const char *path, RtError *e);

/* Each rank writes what is its own.  Written beside and renamed: an old file at path stays whole
 * when the disk is full. */
RtStatus weights_export(const Exec *x, const State *s, Arena *a, const char *path, RtError *e);

#endif
