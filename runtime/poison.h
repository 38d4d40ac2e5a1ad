/* poison.h -- --poison: finds kernels that read what is dead or write outside their buffers.
 *
 * Every buffer lies on its own between guards (exec_open with `spread`); a buffer that is not alive
 * holds NaN (all bits set: a NaN in every float dtype, -1 in integers).  A correct program gives
 * the same bits as on the plan's arena. */
#ifndef ZM_RUNTIME_POISON_H
#define ZM_RUNTIME_POISON_H

#include "runtime/exec.h"

enum { POISON_GUARD_BYTES = 256 };

void poison_start(const Exec *x); /* after exec_open: fills the guards */
Observer poison_observer(void);   /* NaN into dead buffers; checks guards after each function */

#endif
