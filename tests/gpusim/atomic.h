/* atomic.h -- operations and types of atom and red. */
#ifndef ZM_GPUSIM_ATOMIC_H
#define ZM_GPUSIM_ATOMIC_H

#include "tests/gpusim/sim.h"

typedef enum {
    ATOMIC_ADD,
    ATOMIC_MIN,
    ATOMIC_MAX,
    ATOMIC_INC,
    ATOMIC_DEC,
    ATOMIC_AND,
    ATOMIC_OR,
    ATOMIC_XOR,
    ATOMIC_EXCH,
    ATOMIC_CAS,
    N_ATOMIC
} AtomicOp;

typedef enum { AT_U32, AT_S32, AT_U64, AT_S64, AT_F32, AT_F64, N_ATOMIC_TYPE } AtomicType;

bool atomic_type(const char *name, AtomicType *out); /* "b32"; false: none */
uint8_t atomic_bytes(AtomicType t);

#endif
