/* init.h -- the initial state: parameters as their `init` says, companions from them, everything
 * else zero. */
#ifndef ZM_RUNTIME_INIT_H
#define ZM_RUNTIME_INIT_H

#include "runtime/state.h"

/* Elements [first, first + n) of the parameter `name` with rule (init, a) of program.h.  Element e
 * depends on (seed, name, e) only: not on the layout, the number of ranks or of threads. */
void init_elements(float *out, const char *name, uint32_t init, double a, uint64_t seed,
                   int64_t first, int64_t n);

/* What this rank holds.  The arena is zero before.  has_params: the parameters too; false when all
 * of them are read from a file next. */
void init_state(const Exec *x, const State *s, uint64_t seed, bool has_params);

#endif
