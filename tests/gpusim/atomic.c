/* atomic.c -- atom, red; cp.async.  Lanes act in ascending order. */
#include "tests/gpusim/atomic.h"

#include <string.h>

#include "tests/gpusim/report.h"

static const struct {
    const char *name;
    AtomicType type;
} types[] = {{"u32", AT_U32}, {"b32", AT_U32}, {"s32", AT_S32}, {"u64", AT_U64},
             {"b64", AT_U64}, {"s64", AT_S64}, {"f32", AT_F32}, {"f64", AT_F64}};

bool atomic_type(const char *name, AtomicType *out)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(types[i].name, name) != 0) continue;
        *out = types[i].type;
        return true;
    }
    return false;
}

uint8_t atomic_bytes(AtomicType t)
{
    return t == AT_U64 || t == AT_S64 || t == AT_F64 ? 8 : 4;
}

static uint64_t add_float(AtomicType t, uint64_t old, uint64_t b)
{
    if (t == AT_F64) {
        double x, y;
        memcpy(&x, &old, sizeof x);
        memcpy(&y, &b, sizeof y);
        x += y;
        memcpy(&old, &x, sizeof x);
        return old;
    }
    float x, y;
    uint32_t low = (uint32_t)old, low_b = (uint32_t)b;
    memcpy(&x, &low, sizeof x);
    memcpy(&y, &low_b, sizeof y);
    x += y;
    memcpy(&low, &x, sizeof x);
    return low;
}

static bool is_less(AtomicType t, uint64_t x, uint64_t y)
{
    if (t == AT_S32) return (int32_t)x < (int32_t)y;
    return t == AT_S64 ? (int64_t)x < (int64_t)y : x < y;
}

static uint64_t apply(AtomicOp op, AtomicType t, uint64_t old, uint64_t b, uint64_t c)
{
    bool is_float = t == AT_F32 || t == AT_F64;
    switch (op) {
    case ATOMIC_ADD: return is_float ? add_float(t, old, b) : old + b;
    case ATOMIC_MIN: return is_less(t, b, old) ? b : old;
    case ATOMIC_MAX: return is_less(t, old, b) ? b : old;
    case ATOMIC_INC: return old >= b ? 0 : old + 1;
    case ATOMIC_DEC: return old == 0 || old > b ? b : old - 1;
    case ATOMIC_AND: return old & b;
    case ATOMIC_OR: return old | b;
    case ATOMIC_XOR: return old ^ b;
    case ATOMIC_EXCH: return b;
    case ATOMIC_CAS: return old == b ? c : old;
    case N_ATOMIC: break;
    }
    return old;
}

static uint64_t lane_value(const Warp *w, uint32_t slot, uint8_t bytes, int l)
{
    uint64_t v = 0;
    memcpy(&v, w->regs + slot + (unsigned)l * bytes, bytes);
    return v;
}

static bool is_global(const Insn *in, uint64_t address)
{
    return in->space == SPACE_GLOBAL ||
           (in->space == SPACE_GENERIC && address - SHARED_WINDOW >= WINDOW_BYTES &&
            address - LOCAL_WINDOW >= WINDOW_BYTES);
}

void exec_atomic(Warp *w, const Insn *in)
{
    AtomicType t = (AtomicType)in->n_vec;
    for (uint32_t left = w->mask; left; left &= left - 1) {
        int l = __builtin_ctz(left);
        uint8_t *at = lane_access(w, in, l, lane_address(w, in, l), in->bytes, ACCESS_ATOMIC);
        uint64_t old = 0;
        if (!at) continue;
        if (is_global(in, lane_address(w, in, l))) handover_atomic(w, lane_address(w, in, l));
        memcpy(&old, at, in->bytes);
        uint64_t v = apply((AtomicOp)in->variant, t, old, lane_value(w, in->b, in->bytes, l),
                           lane_value(w, in->c, in->bytes, l));
        memcpy(at, &v, in->bytes);
        memcpy(w->regs + in->d + (unsigned)l * in->bytes, &old, in->bytes);
    }
}

/* ---- cp.async: the bytes move when the copy is waited for, so a missing wait shows; where they go
 * is not to be read from the instruction on, by others neither just before it ---- */

void exec_cp_async(Warp *w, const Insn *in)
{
    for (uint32_t left = w->mask; left; left &= left - 1) {
        int l = __builtin_ctz(left);
        uint64_t from =
            in->reg_bytes == 8 ? SLOT(w, uint64_t, in->b)[l] : SLOT(w, uint32_t, in->b)[l];
        uint32_t n_read = SLOT(w, uint32_t, in->c)[l];
        AsyncCopy c = {.from = from + (uint64_t)(int64_t)in->target,
                       .to = (uint32_t)lane_address(w, in, l),
                       .n = in->bytes,
                       .n_read = n_read < in->bytes ? n_read : in->bytes,
                       .lane = (uint8_t)l,
                       .batch = UINT32_MAX,
                       .in = in};
        if (!shared_access(w, in, l, c.to, c.n, true, false)) continue;
        race_pending(w->block, c.to, c.n);
        VEC_PUSH(w->block->launch->scratch, &w->copies, c);
    }
}

void exec_cp_commit(Warp *w, const Insn *in)
{
    (void)in;
    for (uint32_t i = 0; i < w->copies.n; i++) {
        AsyncCopy *c = &w->copies.at[i];
        if (w->mask >> c->lane & 1 && c->batch == UINT32_MAX) c->batch = w->n_batches[c->lane];
    }
    for (int l = 0; l < LANES; l++) w->n_batches[l] += w->mask >> l & 1;
}

static void run_copy(Warp *w, const AsyncCopy *c)
{
    uint8_t bytes[16] = {0};
    uint32_t step = c->n_read == c->n ? c->n : 1;
    for (uint32_t i = 0; i < c->n_read; i += step) {
        const uint8_t *at = global_access(w, c->in, c->lane, c->from + i, step, ACCESS_READ);
        if (at) memcpy(bytes + i, at, step);
    }
    uint8_t *to = lane_access(w, c->in, c->lane, c->to, c->n, ACCESS_WRITE);
    if (to) memcpy(to, bytes, c->n);
}

void exec_cp_wait(Warp *w, const Insn *in)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < w->copies.n; i++) {
        AsyncCopy c = w->copies.at[i];
        bool is_old =
            c.batch != UINT32_MAX && (uint64_t)c.batch + (uint64_t)in->imm < w->n_batches[c.lane];
        if (w->mask >> c.lane & 1 && (is_old || in->is_signed))
            run_copy(w, &c);
        else
            w->copies.at[kept++] = c;
    }
    w->copies.n = kept;
}
