/* arith_int.c -- integer arithmetic, bits, carries.  Tables at the end: name, slots, function. */
#include "tests/gpusim/arith.h"

#include <string.h>

/* Shift amounts are 32 bits wide whatever is shifted. */
#define SHIFT(NAME, T, EXPR)                                                                       \
    static void NAME(Warp *w, const Insn *in)                                                      \
    {                                                                                              \
        T *d = SLOT(w, T, in->d);                                                                  \
        const T *a = SLOT(w, T, in->a);                                                            \
        const uint32_t *b = SLOT(w, uint32_t, in->b);                                              \
        const uint32_t bits = sizeof(T) * 8;                                                       \
        EACH_LANE(w, T x = a[l]; uint32_t y = b[l]; d[l] = (T)(EXPR));                             \
    }

#define EVERY_WIDTH(X) X(16, uint16_t, int16_t) X(32, uint32_t, int32_t) X(64, uint64_t, int64_t)

/* A divisor of 0 gives all ones, and the dividend as remainder; so does the hardware's code. */
#define OPERATIONS(BITS, U, S)                                                                     \
    BINARY(add_##BITS, U, x + y)                                                                   \
    BINARY(sub_##BITS, U, x - y)                                                                   \
    BINARY(mul_lo_##BITS, U, (U)((uint64_t)x * (uint64_t)y))                                       \
    BINARY(and_##BITS, U, x &y)                                                                    \
    BINARY(or_##BITS, U, x | y)                                                                    \
    BINARY(xor_##BITS, U, x ^ y)                                                                   \
    BINARY(min_u##BITS, U, x < y ? x : y)                                                          \
    BINARY(max_u##BITS, U, x > y ? x : y)                                                          \
    BINARY(min_s##BITS, S, x < y ? x : y)                                                          \
    BINARY(max_s##BITS, S, x > y ? x : y)                                                          \
    BINARY(div_u##BITS, U, y ? x / y : (U) - 1)                                                    \
    BINARY(rem_u##BITS, U, y ? x % y : x)                                                          \
    BINARY(div_s##BITS, S, y == 0 ? -1 : y == -1 ? (S)(0 - (U)x) : x / y)                          \
    BINARY(rem_s##BITS, S, y == 0 ? x : y == -1 ? 0 : x % y)                                       \
    TERNARY(mad_lo_##BITS, U, U, (U)((uint64_t)x * (uint64_t)y) + z)                               \
    UNARY(neg_##BITS, U, U, 0 - x)                                                                 \
    UNARY(not_##BITS, U, U, ~x)                                                                    \
    UNARY(abs_##BITS, U, S, x < 0 ? 0 - (U)x : (U)x)                                               \
    UNARY(mov_##BITS, U, U, x)                                                                     \
    SHIFT(shl_##BITS, U, y < bits ? x << y : 0)                                                    \
    SHIFT(shr_u##BITS, U, y < bits ? x >> y : 0)                                                   \
    SHIFT(shr_s##BITS, S, x >> (y < bits ? y : bits - 1))
EVERY_WIDTH(OPERATIONS)

BINARY(mul_hi_u16, uint16_t, (uint32_t)x *y >> 16)
BINARY(mul_hi_s16, int16_t, (int32_t)x *y >> 16)
BINARY(mul_hi_u32, uint32_t, (uint64_t)x *y >> 32)
BINARY(mul_hi_s32, int32_t, (int64_t)x *y >> 32)
BINARY(mul_hi_u64, uint64_t, (unsigned __int128)x *y >> 64)
BINARY(mul_hi_s64, int64_t, (__int128)x *y >> 64)
TERNARY(mad_hi_u32, uint32_t, uint32_t, (uint32_t)((uint64_t)x *y >> 32) + z)
TERNARY(mad_hi_s32, uint32_t, int32_t, (uint32_t)((int64_t)x *y >> 32) + z)
TERNARY(mad_hi_u64, uint64_t, uint64_t, (uint64_t)((unsigned __int128)x *y >> 64) + z)
TERNARY(mad_hi_s64, uint64_t, int64_t, (uint64_t)((__int128)x *y >> 64) + z)
TERNARY(mad_wide_u16, uint32_t, uint16_t, (uint32_t)x *y + z)
TERNARY(mad_wide_s16, uint32_t, int16_t, (uint32_t)((int32_t)x *y) + z)
TERNARY(mad_wide_u32, uint64_t, uint32_t, (uint64_t)x *y + z)
TERNARY(mad_wide_s32, uint64_t, int32_t, (uint64_t)((int64_t)x *y) + z)
TERNARY(sad_u32, uint32_t, uint32_t, (x > y ? x - y : y - x) + z)
TERNARY(sad_s32, uint32_t, int32_t,
        (x > y ? (uint32_t)x - (uint32_t)y : (uint32_t)y - (uint32_t)x) + z)

#define WIDE(NAME, D, T)                                                                           \
    static void NAME(Warp *w, const Insn *in)                                                      \
    {                                                                                              \
        D *d = SLOT(w, D, in->d);                                                                  \
        const T *a = SLOT(w, T, in->a), *b = SLOT(w, T, in->b);                                    \
        EACH_LANE(w, d[l] = (D)a[l] * (D)b[l]);                                                    \
    }
WIDE(mul_wide_u16, uint32_t, uint16_t)
WIDE(mul_wide_s16, int32_t, int16_t)
WIDE(mul_wide_u32, uint64_t, uint32_t)
WIDE(mul_wide_s32, int64_t, int32_t)

/* ---- bits ---- */

static uint32_t reverse32(uint32_t x)
{
    x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
    x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
    x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(x);
}

UNARY(popc_32, uint32_t, uint32_t, __builtin_popcount(x))
UNARY(popc_64, uint32_t, uint64_t, __builtin_popcountll(x))
UNARY(clz_32, uint32_t, uint32_t, x ? __builtin_clz(x) : 32)
UNARY(clz_64, uint32_t, uint64_t, x ? __builtin_clzll(x) : 64)
UNARY(brev_32, uint32_t, uint32_t, reverse32(x))
UNARY(brev_64, uint64_t, uint64_t,
      (uint64_t)reverse32((uint32_t)x) << 32 | reverse32((uint32_t)(x >> 32)))
UNARY(bfind_u32, uint32_t, uint32_t, x ? 31 - __builtin_clz(x) : -1)
UNARY(bfind_u64, uint32_t, uint64_t, x ? 63 - __builtin_clzll(x) : -1)
UNARY(bfind_shift_u32, uint32_t, uint32_t, x ? __builtin_clz(x) : -1)
UNARY(bfind_shift_u64, uint32_t, uint64_t, x ? __builtin_clzll(x) : -1)
UNARY(bfind_s32, uint32_t, int32_t,
      (x < 0 ? ~x : x) ? 31 - __builtin_clz((uint32_t)(x < 0 ? ~x : x)) : -1)
UNARY(bfind_s64, uint32_t, int64_t,
      (x < 0 ? ~x : x) ? 63 - __builtin_clzll((uint64_t)(x < 0 ? ~x : x)) : -1)

/* Bits [pos, pos + len) of a; signed: the field's top bit is repeated (a's own where it ends). */
static uint64_t field(uint64_t a, uint32_t bits, uint32_t pos, uint32_t len, bool is_signed)
{
    pos &= 0xff;
    len &= 0xff;
    uint32_t top = pos + len - 1 < bits - 1 ? pos + len - 1 : bits - 1;
    uint64_t sign = is_signed && len ? a >> top & 1 : 0, out = 0;
    for (uint32_t i = 0; i < bits; i++)
        out |= (i < len && pos + i < bits ? a >> (pos + i) & 1 : sign) << i;
    return out;
}

#define FIELD(NAME, T, BITS, SIGNED)                                                               \
    static void NAME(Warp *w, const Insn *in)                                                      \
    {                                                                                              \
        T *d = SLOT(w, T, in->d);                                                                  \
        const T *a = SLOT(w, T, in->a);                                                            \
        const uint32_t *b = SLOT(w, uint32_t, in->b), *c = SLOT(w, uint32_t, in->c);               \
        EACH_LANE(w, d[l] = (T)field(a[l], BITS, b[l], c[l], SIGNED));                             \
    }
FIELD(bfe_u32, uint32_t, 32, false)
FIELD(bfe_s32, uint32_t, 32, true)
FIELD(bfe_u64, uint64_t, 64, false)
FIELD(bfe_s64, uint64_t, 64, true)

static uint64_t insert(uint64_t a, uint64_t b, uint32_t bits, uint32_t pos, uint32_t len)
{
    pos &= 0xff;
    len &= 0xff;
    for (uint32_t i = 0; i < len && pos + i < bits; i++)
        b = (b & ~(1ull << (pos + i))) | (a >> i & 1) << (pos + i);
    return b;
}

#define INSERT(NAME, T, BITS)                                                                      \
    static void NAME(Warp *w, const Insn *in)                                                      \
    {                                                                                              \
        T *d = SLOT(w, T, in->d);                                                                  \
        const T *a = SLOT(w, T, in->a), *b = SLOT(w, T, in->b);                                    \
        const uint32_t *c = SLOT(w, uint32_t, in->c), *e = SLOT(w, uint32_t, in->e);               \
        EACH_LANE(w, d[l] = (T)insert(a[l], b[l], BITS, c[l], e[l]));                              \
    }
INSERT(bfi_32, uint32_t, 32)
INSERT(bfi_64, uint64_t, 64)

static uint32_t permute(uint32_t a, uint32_t b, uint32_t selector)
{
    uint64_t both = (uint64_t)b << 32 | a;
    uint32_t out = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t nibble = selector >> (4 * i) & 0xf;
        uint32_t byte = (uint32_t)(both >> (8 * (nibble & 7))) & 0xff;
        if (nibble & 8) byte = byte & 0x80 ? 0xff : 0;
        out |= byte << (8 * i);
    }
    return out;
}
TERNARY(prmt, uint32_t, uint32_t, permute(x, y, z))
TERNARY(shf_l_wrap, uint32_t, uint32_t, (uint32_t)(((uint64_t)y << 32 | x) << (z & 31) >> 32))
TERNARY(shf_r_wrap, uint32_t, uint32_t, (uint32_t)(((uint64_t)y << 32 | x) >> (z & 31)))
TERNARY(shf_l_clamp, uint32_t, uint32_t,
        z >= 32 ? x : (uint32_t)(((uint64_t)y << 32 | x) << z >> 32))
TERNARY(shf_r_clamp, uint32_t, uint32_t, z >= 32 ? y : (uint32_t)(((uint64_t)y << 32 | x) >> z))

static uint32_t lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t table)
{
    uint32_t out = 0;
    for (uint32_t i = 0; i < 8; i++) {
        if (!(table >> i & 1)) continue;
        out |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    }
    return out;
}
static void exec_lop3(Warp *w, const Insn *in)
{
    uint32_t *d = SLOT(w, uint32_t, in->d);
    const uint32_t *a = SLOT(w, uint32_t, in->a), *b = SLOT(w, uint32_t, in->b),
                   *c = SLOT(w, uint32_t, in->c), *e = SLOT(w, uint32_t, in->e);
    EACH_LANE(w, d[l] = lop3(a[l], b[l], c[l], e[l]));
}

static uint32_t dot4(uint32_t a, uint32_t b, uint32_t c, bool a_signed, bool b_signed)
{
    for (int i = 0; i < 32; i += 8) {
        int32_t x = a_signed ? (int8_t)(a >> i) : (uint8_t)(a >> i);
        int32_t y = b_signed ? (int8_t)(b >> i) : (uint8_t)(b >> i);
        c += (uint32_t)(x * y);
    }
    return c;
}
TERNARY(dp4a_uu, uint32_t, uint32_t, dot4(x, y, z, false, false))
TERNARY(dp4a_us, uint32_t, uint32_t, dot4(x, y, z, false, true))
TERNARY(dp4a_su, uint32_t, uint32_t, dot4(x, y, z, true, false))
TERNARY(dp4a_ss, uint32_t, uint32_t, dot4(x, y, z, true, true))

/* Halves of a times bytes `first`, `first` + 1 of b. */
static uint32_t dot2(uint32_t a, uint32_t b, uint32_t c, int first, bool sa, bool sb)
{
    for (int i = 0; i < 2; i++) {
        uint32_t x = a >> (16 * i) & 0xffff, y = b >> (8 * (first + i)) & 0xff;
        if (sa) x = (uint32_t)(int32_t)(int16_t)x;
        if (sb) y = (uint32_t)(int32_t)(int8_t)y;
        c += x * y;
    }
    return c;
}
TERNARY(dp2a_lo_uu, uint32_t, uint32_t, dot2(x, y, z, 0, false, false))
TERNARY(dp2a_lo_us, uint32_t, uint32_t, dot2(x, y, z, 0, false, true))
TERNARY(dp2a_lo_su, uint32_t, uint32_t, dot2(x, y, z, 0, true, false))
TERNARY(dp2a_lo_ss, uint32_t, uint32_t, dot2(x, y, z, 0, true, true))
TERNARY(dp2a_hi_uu, uint32_t, uint32_t, dot2(x, y, z, 2, false, false))
TERNARY(dp2a_hi_us, uint32_t, uint32_t, dot2(x, y, z, 2, false, true))
TERNARY(dp2a_hi_su, uint32_t, uint32_t, dot2(x, y, z, 2, true, false))
TERNARY(dp2a_hi_ss, uint32_t, uint32_t, dot2(x, y, z, 2, true, true))

/* ---- carries: the flag is the slot e ---- */

#define CARRY(NAME, T, WIDE_T, BITS, SUM, OUT, SETS)                                               \
    static void NAME(Warp *w, const Insn *in)                                                      \
    {                                                                                              \
        T *d = SLOT(w, T, in->d);                                                                  \
        const T *a = SLOT(w, T, in->a), *b = SLOT(w, T, in->b), *c = SLOT(w, T, in->c);            \
        uint32_t *flag = SLOT(w, uint32_t, in->e);                                                 \
        EACH_LANE(w, WIDE_T x = a[l]; WIDE_T y = b[l]; WIDE_T z = c[l]; WIDE_T f = flag[l];        \
                  WIDE_T s = SUM; (void)z; (void)f; d[l] = (T)s;                                   \
                  if (SETS) flag[l] = (uint32_t)(OUT) & 1);                                        \
    }
#define CARRIES(BITS, T, WIDE_T)                                                                   \
    CARRY(add_cc_##BITS, T, WIDE_T, BITS, x + y, s >> BITS, true)                                  \
    CARRY(addc_##BITS, T, WIDE_T, BITS, x + y + f, s >> BITS, false)                               \
    CARRY(addc_cc_##BITS, T, WIDE_T, BITS, x + y + f, s >> BITS, true)                             \
    CARRY(sub_cc_##BITS, T, WIDE_T, BITS, x - y, s >> BITS, true)                                  \
    CARRY(subc_##BITS, T, WIDE_T, BITS, x - y - f, s >> BITS, false)                               \
    CARRY(subc_cc_##BITS, T, WIDE_T, BITS, x - y - f, s >> BITS, true)                             \
    CARRY(mad_lo_cc_##BITS, T, WIDE_T, BITS, (T)(x * y) + z, s >> BITS, true)                      \
    CARRY(madc_lo_##BITS, T, WIDE_T, BITS, (T)(x * y) + z + f, s >> BITS, false)                   \
    CARRY(madc_lo_cc_##BITS, T, WIDE_T, BITS, (T)(x * y) + z + f, s >> BITS, true)                 \
    CARRY(mad_hi_cc_##BITS, T, WIDE_T, BITS, (x * y >> BITS) + z, s >> BITS, true)                 \
    CARRY(madc_hi_##BITS, T, WIDE_T, BITS, (x * y >> BITS) + z + f, s >> BITS, false)              \
    CARRY(madc_hi_cc_##BITS, T, WIDE_T, BITS, (x * y >> BITS) + z + f, s >> BITS, true)
CARRIES(32, uint32_t, uint64_t)
CARRIES(64, uint64_t, unsigned __int128)

#define SAME_SIGNS(OP, BITS, SHAPE, FN)                                                            \
    {OP ".u" #BITS, SHAPE, FN}, {OP ".s" #BITS, SHAPE, FN},                                        \
    {                                                                                              \
        OP ".b" #BITS, SHAPE, FN                                                                   \
    }
#define TABLE(BITS, R)                                                                             \
    SAME_SIGNS("add", BITS, R R R, add_##BITS), SAME_SIGNS("sub", BITS, R R R, sub_##BITS),        \
        SAME_SIGNS("mul.lo", BITS, R R R, mul_lo_##BITS),                                          \
        SAME_SIGNS("mad.lo", BITS, R R R R, mad_lo_##BITS),                                        \
        SAME_SIGNS("and", BITS, R R R, and_##BITS), SAME_SIGNS("or", BITS, R R R, or_##BITS),      \
        SAME_SIGNS("xor", BITS, R R R, xor_##BITS), SAME_SIGNS("neg", BITS, R R, neg_##BITS),      \
        SAME_SIGNS("not", BITS, R R, not_##BITS), SAME_SIGNS("abs", BITS, R R, abs_##BITS),        \
        SAME_SIGNS("mov", BITS, R R, mov_##BITS), {"mov.f" #BITS, R R, mov_##BITS},                \
        SAME_SIGNS("shl", BITS, R R "w", shl_##BITS), {"shr.u" #BITS, R R "w", shr_u##BITS},       \
        {"shr.b" #BITS, R R "w", shr_u##BITS}, {"shr.s" #BITS, R R "w", shr_s##BITS},              \
        {"min.u" #BITS, R R R, min_u##BITS}, {"max.u" #BITS, R R R, max_u##BITS},                  \
        {"min.s" #BITS, R R R, min_s##BITS}, {"max.s" #BITS, R R R, max_s##BITS},                  \
        {"div.u" #BITS, R R R, div_u##BITS}, {"div.s" #BITS, R R R, div_s##BITS},                  \
        {"rem.u" #BITS, R R R, rem_u##BITS},                                                       \
    {                                                                                              \
        "rem.s" #BITS, R R R, rem_s##BITS                                                          \
    }
#define CARRY_TABLE(BITS, R)                                                                       \
    SAME_SIGNS("add.cc", BITS, R R R, add_cc_##BITS),                                              \
        SAME_SIGNS("addc", BITS, R R R, addc_##BITS),                                              \
        SAME_SIGNS("addc.cc", BITS, R R R, addc_cc_##BITS),                                        \
        SAME_SIGNS("sub.cc", BITS, R R R, sub_cc_##BITS),                                          \
        SAME_SIGNS("subc", BITS, R R R, subc_##BITS),                                              \
        SAME_SIGNS("subc.cc", BITS, R R R, subc_cc_##BITS),                                        \
        SAME_SIGNS("mad.lo.cc", BITS, R R R R, mad_lo_cc_##BITS),                                  \
        SAME_SIGNS("madc.lo", BITS, R R R R, madc_lo_##BITS),                                      \
        SAME_SIGNS("madc.lo.cc", BITS, R R R R, madc_lo_cc_##BITS),                                \
        {"mad.hi.cc.u" #BITS, R R R R, mad_hi_cc_##BITS},                                          \
        {"madc.hi.u" #BITS, R R R R, madc_hi_##BITS},                                              \
    {                                                                                              \
        "madc.hi.cc.u" #BITS, R R R R, madc_hi_cc_##BITS                                           \
    }

const Arith arith_int[] = {TABLE(16, "h"),
                           TABLE(32, "w"),
                           TABLE(64, "l"),
                           CARRY_TABLE(32, "w"),
                           CARRY_TABLE(64, "l"),
                           {"mul.hi.u16", "hhh", mul_hi_u16},
                           {"mul.hi.s16", "hhh", mul_hi_s16},
                           {"mul.hi.u32", "www", mul_hi_u32},
                           {"mul.hi.s32", "www", mul_hi_s32},
                           {"mul.hi.u64", "lll", mul_hi_u64},
                           {"mul.hi.s64", "lll", mul_hi_s64},
                           {"mad.hi.u32", "wwww", mad_hi_u32},
                           {"mad.hi.s32", "wwww", mad_hi_s32},
                           {"mad.hi.u64", "llll", mad_hi_u64},
                           {"mad.hi.s64", "llll", mad_hi_s64},
                           {"mul.wide.u16", "whh", mul_wide_u16},
                           {"mul.wide.s16", "whh", mul_wide_s16},
                           {"mul.wide.u32", "lww", mul_wide_u32},
                           {"mul.wide.s32", "lww", mul_wide_s32},
                           {"mad.wide.u16", "whhw", mad_wide_u16},
                           {"mad.wide.s16", "whhw", mad_wide_s16},
                           {"mad.wide.u32", "lwwl", mad_wide_u32},
                           {"mad.wide.s32", "lwwl", mad_wide_s32},
                           {"sad.u32", "wwww", sad_u32},
                           {"sad.s32", "wwww", sad_s32},
                           {"popc.b32", "ww", popc_32},
                           {"popc.b64", "wl", popc_64},
                           {"clz.b32", "ww", clz_32},
                           {"clz.b64", "wl", clz_64},
                           {"brev.b32", "ww", brev_32},
                           {"brev.b64", "ll", brev_64},
                           {"bfind.u32", "ww", bfind_u32},
                           {"bfind.u64", "wl", bfind_u64},
                           {"bfind.s32", "ww", bfind_s32},
                           {"bfind.s64", "wl", bfind_s64},
                           {"bfind.shiftamt.u32", "ww", bfind_shift_u32},
                           {"bfind.shiftamt.u64", "wl", bfind_shift_u64},
                           {"bfe.u32", "wwww", bfe_u32},
                           {"bfe.s32", "wwww", bfe_s32},
                           {"bfe.u64", "llww", bfe_u64},
                           {"bfe.s64", "llww", bfe_s64},
                           {"bfi.b32", "wwwww", bfi_32},
                           {"bfi.b64", "lllww", bfi_64},
                           {"prmt.b32", "wwww", prmt},
                           {"shf.l.wrap.b32", "wwww", shf_l_wrap},
                           {"shf.r.wrap.b32", "wwww", shf_r_wrap},
                           {"shf.l.clamp.b32", "wwww", shf_l_clamp},
                           {"shf.r.clamp.b32", "wwww", shf_r_clamp},
                           {"lop3.b32", "wwwww", exec_lop3},
                           {"dp4a.u32.u32", "wwww", dp4a_uu},
                           {"dp4a.u32.s32", "wwww", dp4a_us},
                           {"dp4a.s32.u32", "wwww", dp4a_su},
                           {"dp4a.s32.s32", "wwww", dp4a_ss},
                           {"dp2a.lo.u32.u32", "wwww", dp2a_lo_uu},
                           {"dp2a.lo.u32.s32", "wwww", dp2a_lo_us},
                           {"dp2a.lo.s32.u32", "wwww", dp2a_lo_su},
                           {"dp2a.lo.s32.s32", "wwww", dp2a_lo_ss},
                           {"dp2a.hi.u32.u32", "wwww", dp2a_hi_uu},
                           {"dp2a.hi.u32.s32", "wwww", dp2a_hi_us},
                           {"dp2a.hi.s32.u32", "wwww", dp2a_hi_su},
                           {"dp2a.hi.s32.s32", "wwww", dp2a_hi_ss},
                           {NULL, NULL, NULL}};
