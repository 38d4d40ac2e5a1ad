/* access.h -- index maps: which element of a value a point of a loop nest touches.
 *
 * A view op (reshape, transpose, broadcast, slice, pad, concat) has no code of its own: the map of
 * its result, over the loops, becomes a map of its operand.  Maps are affine per dimension.  A
 * reshape may need a loop to be split in two (a loop over 12 read as [3, 4]); the caller splits it
 * and starts again.
 */
#ifndef ZM_IR_ACCESS_H
#define ZM_IR_ACCESS_H

#include "ir/ir.h"

enum { ACCESS_MAX_LOOPS = 12 };

/* base + sum over loops of stride * index.  Strides are >= 0; base may be negative below a pad. */
typedef struct Affine {
    int64_t base;
    int64_t stride[ACCESS_MAX_LOOPS];
} Affine;

typedef struct IndexMap {
    int rank;
    Affine dim[ZM_MAX_RANK];
} IndexMap;

/* The access exists only where 0 <= e < n, for this and all next. */
typedef struct AccessGuard AccessGuard;
struct AccessGuard {
    Affine e;
    int64_t n;
    const AccessGuard *next;
};

typedef struct LoopSpace {
    int n;
    int64_t extent[ACCESS_MAX_LOOPS];
} LoopSpace;

typedef enum {
    ACCESS_OK,
    ACCESS_SPLIT, /* split loop split_loop into (extent / split_inner, split_inner) and start again
                   */
    ACCESS_NO     /* not affine */
} AccessResult;

typedef struct AccessSplit {
    int loop;
    int64_t inner;
} AccessSplit;

/* The digits of `flat` in a row-major array of shape dim[0..rank). */
AccessResult affine_digits(const LoopSpace *s, const Affine *flat, int rank, const int64_t *dim,
                           Affine *out, AccessSplit *split);
/* Row-major element number of map in a value of type t. */
Affine map_flatten(const IndexMap *map, const Type *t);
/* Smallest and largest value over all loops. */
void affine_range(const LoopSpace *s, const Affine *e, int64_t *lo, int64_t *hi);
/* Mixes e into h, a word at a time; for tables within one run. */
uint64_t affine_hash(const Affine *e, uint64_t h);
uint32_t affine_mask(const Affine *e); /* bit per loop with a stride */

/* The map of operand `k` of view op `o` (in f) where its result has map `result`; guards of pads
 * and concats are put before *guards, in a. */
AccessResult map_through_view(Arena *a, const LoopSpace *s, const Func *f, const Op *o, uint32_t k,
                              const IndexMap *result, IndexMap *operand, const AccessGuard **guards,
                              AccessSplit *split);

bool op_is_view(OpCode code); /* reshape, transpose, broadcast, slice, pad */
bool op_is_alias(
    const Func *f,
    const Op *o); /* the result is a contiguous range of the operand, in row-major order */

#endif
