/* sharding.h -- how the parts of ranks fit together: the placing (sharded, partial) of an op's
 * results from that of its operands, by the FACTORS column of ops.def.
 *
 * Each op works on one rank's parts; a placing says what that means for the whole:
 *   - a factor whose dimension is sharded is sharded wherever the op has it; a sharded factor that
 * no result has was summed over one rank's part only: the result is partial;
 *   - a partial sum stays one through linear ops (docs/ir.md lists them) and is refused by all
 * others: reduce it first;
 *   - of a sharded dimension, slice, pad, concat and pack work on each rank's part;
 *   - only collectives (and `shard`) change a placing.
 * Source of the idea: Shardy's factors (docs/sharding_representation.md of openxla/shardy); partial
 * sums as types: spmd_types of meta-pytorch. */
#ifndef ZM_IR_SHARDING_H
#define ZM_IR_SHARDING_H

#include "ir/ir.h"

/* As op_infer(), for an op with placed operands or attribute `shard`. */
const char *sharding_infer(const TypeIn *t, OpCode code, const Type **out);

/* Why no tensor of module m may be placed as t is: an axis twice, or one that the mesh does not
 * have; NULL: fine. */
const char *sharding_refusal(Module *m, const Type *t);

#endif
