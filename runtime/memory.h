/* memory.h -- the arena: one mapping of exactly the plan's bytes, filled in at start so that a run
 * that starts does not run out of memory later.  Nothing else is allocated inside a step. */
#ifndef ZM_RUNTIME_MEMORY_H
#define ZM_RUNTIME_MEMORY_H

#include "runtime/error.h"

typedef struct Memory {
    char *at; /* zeroed; aligned to a huge page */
    size_t n_bytes;
} Memory;

/* n_bytes of zeroed, resident memory; `what` names it in the message of refusal. */
RtStatus memory_map(Memory *m, size_t n_bytes, const char *what, RtError *e);
/* Address space of n_bytes, of which only touched pages become memory; zeroed. */
RtStatus memory_reserve(Memory *m, size_t n_bytes, const char *what, RtError *e);
void memory_unmap(Memory *m);

#endif
