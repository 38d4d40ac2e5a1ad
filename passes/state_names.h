/* state_names.h -- names of the variables that passes make beside the parameters.
 *
 * Scalars: ZMP_S_* of ir/base/program.h.  State of a parameter or of a bucket: SLOT "." its name.
 * A bucket: STATE_BUCKET "." its number.
 */
#ifndef ZM_PASSES_STATE_NAMES_H
#define ZM_PASSES_STATE_NAMES_H

#include "passes/pass.h"

#define STATE_BUCKET "bucket"
#define STATE_MASTER "master"
#define STATE_ROUND "round" /* streams of random numbers */
#define STATE_GRAD "grad"
#define STATE_EXP_AVG "exp_avg"
#define STATE_EXP_AVG_SQ "exp_avg_sq"
#define STATE_MOMENTUM "momentum_buffer"

/* Path of the repeat instance, interned: "h.3.s.1.bias" -> "h.3", with depth 1 "h.3.s.1"; a path
 * without so many numbered components -> "". */
const char *repeat_instance(Module *m, const char *path, uint32_t depth);

/* The scalar variable `name`; made when the module has none. */
VarId state_scalar(Module *m, const char *name, DType dtype, double init, LocId loc);

/* ZM_FAIL after a diagnostic for each parameter whose path is such a name. */
Status state_names_check(PassCtx *cx);

#endif
