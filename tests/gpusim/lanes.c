/* lanes.c -- shuffles, votes, match, redux, among the active lanes (all have arrived: warp.c). */
#include "tests/gpusim/lanes.h"

#include <string.h>

#include "tests/gpusim/atomic.h"
#include "tests/gpusim/report.h"

/* Source lane by the ISA: c = clamp | (mask of the segment) << 8. */
static int shfl_source(ShflMode mode, int lane, uint32_t b, uint32_t c, bool *is_in)
{
    uint32_t clamp = c & 31, segment = c >> 8 & 31, at = (uint32_t)lane;
    int top = (int)((at & segment) | (clamp & ~segment & 31)), from = lane;
    int low = (int)(at & segment), shift = (int)(b & 31);
    *is_in = false;
    switch (mode) {
    case SHFL_UP:
        from = lane - shift;
        *is_in = from >= top;
        break;
    case SHFL_DOWN:
        from = lane + shift;
        *is_in = from <= top;
        break;
    case SHFL_BFLY:
        from = lane ^ shift;
        *is_in = from <= top;
        break;
    case SHFL_IDX:
        from = low | (shift & (int)(~segment & 31));
        *is_in = from <= top;
        break;
    }
    return *is_in ? from : lane;
}

void exec_shfl(Warp *w, const Insn *in)
{
    uint32_t old[LANES];
    memcpy(old, SLOT(w, uint32_t, in->a), sizeof old);
    const uint32_t *b = SLOT(w, uint32_t, in->b), *c = SLOT(w, uint32_t, in->c);
    uint32_t *d = SLOT(w, uint32_t, in->d);
    uint32_t out[LANES], inside[LANES];
    for (int l = 0; l < LANES; l++) {
        if (!(w->mask >> l & 1)) continue;
        bool is_in;
        int from = shfl_source((ShflMode)in->variant, l, b[l], c[l], &is_in);
        if (!(w->mask >> from & 1)) {
            /* A warp's tail that never existed reads as anything, too. */
            report_lane(w, in, l, REPORT_LANE, "lane %d reads lane %d, which does not take part", l,
                        from);
            from = l;
        }
        out[l] = old[from];
        inside[l] = is_in;
    }
    EACH_LANE(w, d[l] = out[l]);
    if (in->d2 == UINT32_MAX) return;
    uint32_t *p = SLOT(w, uint32_t, in->d2);
    EACH_LANE(w, p[l] = inside[l]);
}

void exec_vote(Warp *w, const Insn *in)
{
    const uint32_t *a = SLOT(w, uint32_t, in->a);
    uint32_t *d = SLOT(w, uint32_t, in->d), yes = 0, value = 0;
    for (int l = 0; l < LANES; l++) yes |= ((a[l] & 1) ^ (in->is_signed ? 1u : 0u)) << l;
    yes &= w->mask;
    switch ((VoteMode)in->variant) {
    case VOTE_ALL: value = yes == w->mask; break;
    case VOTE_ANY: value = yes != 0; break;
    case VOTE_UNI: value = yes == 0 || yes == w->mask; break;
    case VOTE_BALLOT: value = yes; break;
    }
    EACH_LANE(w, d[l] = value);
}

static uint64_t match_value(const Warp *w, const Insn *in, int l)
{
    return in->bytes == 8 ? SLOT(w, uint64_t, in->a)[l] : SLOT(w, uint32_t, in->a)[l];
}

void exec_match(Warp *w, const Insn *in)
{
    uint32_t out[LANES] = {0}, all = 1;
    int first = __builtin_ctz(w->mask);
    for (int l = 0; l < LANES; l++) {
        if (!(w->mask >> l & 1)) continue;
        if (match_value(w, in, l) != match_value(w, in, first)) all = 0;
        for (int k = 0; k < LANES; k++)
            if (w->mask >> k & 1 && match_value(w, in, l) == match_value(w, in, k))
                out[l] |= 1u << k;
    }
    uint32_t *d = SLOT(w, uint32_t, in->d), mask = w->mask;
    bool is_all = in->variant;
    EACH_LANE(w, d[l] = is_all ? (all ? mask : 0) : out[l]);
    if (in->d2 == UINT32_MAX) return;
    uint32_t *p = SLOT(w, uint32_t, in->d2);
    EACH_LANE(w, p[l] = all);
}

static uint32_t reduce(AtomicOp op, bool is_signed, uint32_t x, uint32_t y)
{
    bool is_less = is_signed ? (int32_t)x < (int32_t)y : x < y;
    switch (op) {
    case ATOMIC_ADD: return x + y;
    case ATOMIC_MIN: return is_less ? x : y;
    case ATOMIC_MAX: return is_less ? y : x;
    case ATOMIC_AND: return x & y;
    case ATOMIC_OR: return x | y;
    case ATOMIC_XOR: return x ^ y;
    case ATOMIC_INC:
    case ATOMIC_DEC:
    case ATOMIC_EXCH:
    case ATOMIC_CAS:
    case N_ATOMIC: break;
    }
    return x;
}

void exec_redux(Warp *w, const Insn *in)
{
    const uint32_t *a = SLOT(w, uint32_t, in->a);
    uint32_t *d = SLOT(w, uint32_t, in->d);
    int first = __builtin_ctz(w->mask);
    uint32_t v = a[first];
    for (int l = first + 1; l < LANES; l++)
        if (w->mask >> l & 1) v = reduce((AtomicOp)in->variant, in->is_signed, v, a[l]);
    EACH_LANE(w, d[l] = v);
}

void exec_activemask(Warp *w, const Insn *in)
{
    uint32_t *d = SLOT(w, uint32_t, in->d), mask = w->mask;
    EACH_LANE(w, d[l] = mask);
}

void exec_warp_barrier(Warp *w, const Insn *in) /* what it orders, warp.c does */
{
    (void)w;
    (void)in;
}

void exec_nothing(Warp *w, const Insn *in)
{
    (void)w;
    (void)in;
}

void exec_fence(Warp *w, const Insn *in)
{
    (void)in;
    handover_fence(w);
}

void exec_clock(Warp *w, const Insn *in)
{
    uint64_t now = ++w->n_clocks;
    for (int l = 0; l < LANES; l++) {
        if (!(w->mask >> l & 1)) continue;
        if (in->bytes == 8)
            SLOT(w, uint64_t, in->d)[l] = now;
        else
            SLOT(w, uint32_t, in->d)[l] = (uint32_t)now;
    }
}
