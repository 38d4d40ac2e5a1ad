/* kernel_loops.h -- loops of a kernel form. */
#ifndef ZM_CODEGEN_KERNEL_LOOPS_H
#define ZM_CODEGEN_KERNEL_LOOPS_H

#include "codegen/kernel.h"

/* Makes one loop of neighbours of a kind where every access, guard and index steps through both as
 * through one. */
void kernel_merge_loops(Kernel *k);

#endif
