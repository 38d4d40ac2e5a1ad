/* arith_logic.c -- comparisons, selections, predicates. */
#include "tests/gpusim/sim.h"

#include <math.h>

#define COMPARE(NAME, T, EXPR)                                                                     \
    static void NAME(Warp *w, const Insn *in)                                                      \
    {                                                                                              \
        uint32_t *d = SLOT(w, uint32_t, in->d);                                                    \
        const T *a = SLOT(w, T, in->a), *b = SLOT(w, T, in->b);                                    \
        EACH_LANE(w, T x = a[l]; T y = b[l]; d[l] = (EXPR) ? 1 : 0);                               \
    }
#define ORDERED(S, T)                                                                              \
    COMPARE(eq_##S, T, x == y)                                                                     \
    COMPARE(ne_##S, T, x<y || x> y)                                                                \
    COMPARE(lt_##S, T, x < y)                                                                      \
    COMPARE(le_##S, T, x <= y)                                                                     \
    COMPARE(gt_##S, T, x > y)                                                                      \
    COMPARE(ge_##S, T, x >= y)
#define UNORDERED(S, T)                                                                            \
    ORDERED(S, T)                                                                                  \
    COMPARE(equ_##S, T, !(x < y || x > y))                                                         \
    COMPARE(neu_##S, T, x != y)                                                                    \
    COMPARE(ltu_##S, T, !(x >= y))                                                                 \
    COMPARE(leu_##S, T, !(x > y))                                                                  \
    COMPARE(gtu_##S, T, !(x <= y))                                                                 \
    COMPARE(geu_##S, T, !(x < y))                                                                  \
    COMPARE(num_##S, T, x == x && y == y)                                                          \
    COMPARE(nan_##S, T, x != x || y != y)
ORDERED(u16, uint16_t)
ORDERED(s16, int16_t)
ORDERED(u32, uint32_t)
ORDERED(s32, int32_t)
ORDERED(u64, uint64_t)
ORDERED(s64, int64_t)
UNORDERED(f32, float)
UNORDERED(f64, double)
UNORDERED(f16, _Float16)

#define SELECT(NAME, T)                                                                            \
    static void NAME(Warp *w, const Insn *in)                                                      \
    {                                                                                              \
        T *d = SLOT(w, T, in->d);                                                                  \
        const T *a = SLOT(w, T, in->a), *b = SLOT(w, T, in->b);                                    \
        const uint32_t *c = SLOT(w, uint32_t, in->c);                                              \
        EACH_LANE(w, T x = a[l]; T y = b[l]; d[l] = c[l] ? x : y);                                 \
    }
SELECT(selp_16, uint16_t)
SELECT(selp_32, uint32_t)
SELECT(selp_64, uint64_t)

#define PREDICATES(NAME, EXPR)                                                                     \
    static void NAME(Warp *w, const Insn *in)                                                      \
    {                                                                                              \
        uint32_t *d = SLOT(w, uint32_t, in->d);                                                    \
        const uint32_t *a = SLOT(w, uint32_t, in->a), *b = SLOT(w, uint32_t, in->b);               \
        EACH_LANE(w, uint32_t x = a[l]; uint32_t y = b[l]; d[l] = EXPR);                           \
    }
PREDICATES(and_pred, x &y)
PREDICATES(or_pred, x | y)
PREDICATES(xor_pred, x ^ y)

static void not_pred(Warp *w, const Insn *in)
{
    uint32_t *d = SLOT(w, uint32_t, in->d);
    const uint32_t *a = SLOT(w, uint32_t, in->a);
    EACH_LANE(w, d[l] = a[l] ^ 1);
}

static void mov_pred(Warp *w, const Insn *in)
{
    uint32_t *d = SLOT(w, uint32_t, in->d);
    const uint32_t *a = SLOT(w, uint32_t, in->a);
    EACH_LANE(w, d[l] = a[l]);
}

#define ENTRIES(S, R)                                                                              \
    {"setp.eq." #S, "p" R R, eq_##S}, {"setp.ne." #S, "p" R R, ne_##S},                            \
        {"setp.lt." #S, "p" R R, lt_##S}, {"setp.le." #S, "p" R R, le_##S},                        \
        {"setp.gt." #S, "p" R R, gt_##S},                                                          \
    {                                                                                              \
        "setp.ge." #S, "p" R R, ge_##S                                                             \
    }
#define ENTRIES_UNORDERED(S, R)                                                                    \
    ENTRIES(S, R), {"setp.equ." #S, "p" R R, equ_##S}, {"setp.neu." #S, "p" R R, neu_##S},         \
        {"setp.ltu." #S, "p" R R, ltu_##S}, {"setp.leu." #S, "p" R R, leu_##S},                    \
        {"setp.gtu." #S, "p" R R, gtu_##S}, {"setp.geu." #S, "p" R R, geu_##S},                    \
        {"setp.num." #S, "p" R R, num_##S},                                                        \
    {                                                                                              \
        "setp.nan." #S, "p" R R, nan_##S                                                           \
    }
#define ENTRIES_UNSIGNED(BITS, R)                                                                  \
    ENTRIES(u##BITS, R), {"setp.eq.b" #BITS, "p" R R, eq_u##BITS},                                 \
        {"setp.ne.b" #BITS, "p" R R, ne_u##BITS}, {"setp.lo.u" #BITS, "p" R R, lt_u##BITS},        \
        {"setp.ls.u" #BITS, "p" R R, le_u##BITS}, {"setp.hi.u" #BITS, "p" R R, gt_u##BITS},        \
    {                                                                                              \
        "setp.hs.u" #BITS, "p" R R, ge_u##BITS                                                     \
    }
#define SELECTS(BITS, R)                                                                           \
    {"selp.b" #BITS, R R R "p", selp_##BITS}, {"selp.u" #BITS, R R R "p", selp_##BITS},            \
        {"selp.s" #BITS, R R R "p", selp_##BITS},                                                  \
    {                                                                                              \
        "selp.f" #BITS, R R R "p", selp_##BITS                                                     \
    }

const Arith arith_logic[] = {ENTRIES_UNSIGNED(16, "h"),
                             ENTRIES_UNSIGNED(32, "w"),
                             ENTRIES_UNSIGNED(64, "l"),
                             ENTRIES(s16, "h"),
                             ENTRIES(s32, "w"),
                             ENTRIES(s64, "l"),
                             ENTRIES_UNORDERED(f32, "w"),
                             ENTRIES_UNORDERED(f64, "l"),
                             ENTRIES_UNORDERED(f16, "h"),
                             SELECTS(16, "h"),
                             SELECTS(32, "w"),
                             SELECTS(64, "l"),
                             {"and.pred", "ppp", and_pred},
                             {"or.pred", "ppp", or_pred},
                             {"xor.pred", "ppp", xor_pred},
                             {"not.pred", "pp", not_pred},
                             {"mov.pred", "pp", mov_pred},
                             {NULL, NULL, NULL}};
