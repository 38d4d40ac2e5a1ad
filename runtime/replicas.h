/* replicas.h -- --check-replicas: every rank holds the same bits of what no rank holds alone. */
#ifndef ZM_RUNTIME_REPLICAS_H
#define ZM_RUNTIME_REPLICAS_H

#include "runtime/exec.h"

typedef struct Replica { /* a parameter, or its piece of a master or moment; or a scalar */
    const char *name;    /* "h.0.w", "adam.m of h.0.w" */
    const char *loc;
    const char *at;
    size_t n_bytes;
} Replica;

typedef struct Replicas {
    Replica *at;
    uint64_t *mine, *all; /* hashes: [n], [ranks][n] */
    uint32_t n;
    int64_t n_bytes;
    bool is_said; /* how much is compared */
} Replicas;

/* Tables go into a; nothing is allocated later. */
void replicas_open(Replicas *c, Arena *a, const Exec *x);

/* RT_FAILED on all ranks, with the same message, when any two of them differ.  step: attempts done,
 * for the message. */
RtStatus replicas_check(const Replicas *c, const Exec *x, int64_t step, RtError *e);

#endif
