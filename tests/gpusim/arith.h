/* arith.h -- an instruction that computes in each lane alone, from an expression over its operands
 * x, y, z: result of type D, operands of type T (of TERNARY the third is a D). */
#ifndef ZM_TESTS_GPUSIM_ARITH_H
#define ZM_TESTS_GPUSIM_ARITH_H

#include "tests/gpusim/sim.h"

#define BINARY(NAME, T, EXPR)                                                                      \
    static void NAME(Warp *w, const Insn *in)                                                      \
    {                                                                                              \
        T *d = SLOT(w, T, in->d);                                                                  \
        const T *a = SLOT(w, T, in->a), *b = SLOT(w, T, in->b);                                    \
        EACH_LANE(w, T x = a[l]; T y = b[l]; d[l] = (T)(EXPR));                                    \
    }
#define UNARY(NAME, D, T, EXPR)                                                                    \
    static void NAME(Warp *w, const Insn *in)                                                      \
    {                                                                                              \
        D *d = SLOT(w, D, in->d);                                                                  \
        const T *a = SLOT(w, T, in->a);                                                            \
        EACH_LANE(w, T x = a[l]; d[l] = (D)(EXPR));                                                \
    }
#define TERNARY(NAME, D, T, EXPR)                                                                  \
    static void NAME(Warp *w, const Insn *in)                                                      \
    {                                                                                              \
        D *d = SLOT(w, D, in->d);                                                                  \
        const T *a = SLOT(w, T, in->a), *b = SLOT(w, T, in->b);                                    \
        const D *c = SLOT(w, D, in->c);                                                            \
        EACH_LANE(w, T x = a[l]; T y = b[l]; D z = c[l]; d[l] = (D)(EXPR));                        \
    }

#endif
