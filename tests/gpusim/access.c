/* access.c -- loads and stores.  A warp that reads or writes one run of bytes, or all lanes the
 * same, is checked at once; else, and when something is wrong, lane by lane. */
#include "tests/gpusim/report.h"

#include <string.h>

static uint64_t address_of(const Warp *w, uint32_t slot, uint8_t bytes, int64_t shift, int l)
{
    uint64_t base =
        bytes == 8 ? SLOT(w, const uint64_t, slot)[l] : SLOT(w, const uint32_t, slot)[l];
    return base + (uint64_t)shift;
}

uint64_t lane_address(const Warp *w, const Insn *in, int lane)
{
    return address_of(w, in->a, in->address_bytes, in->imm, lane);
}

/* ---- global memory ---- */

static Allocation *find_allocation(const Warp *w, const Insn *in, uint64_t address)
{
    SpanCache *cache = &w->block->caches[in - w->block->code->insns.at];
    Allocation *a = cache->last;
    if (a && a->is_live && address - a->address < a->bytes) return a;
    a = memory_find(w->block->launch->memory, address);
    if (a) cache->last = a;
    return a;
}

static void report_bounds(Warp *w, const Insn *in, int lane, uint64_t address, uint32_t n)
{
    const Allocation *a = memory_below(w->block->launch->memory, address);
    if (!a)
        report_lane(w, in, lane, REPORT_BOUNDS, "%u bytes at 0x%llx, where nothing is allocated", n,
                    (unsigned long long)address);
    else
        report_lane(w, in, lane, REPORT_BOUNDS,
                    "%u bytes at 0x%llx: byte %llu of an allocation of %llu bytes%s", n,
                    (unsigned long long)address, (unsigned long long)(address - a->address),
                    (unsigned long long)a->bytes, a->is_live ? "" : ", which was freed");
}

static void report_span(Warp *w, const Insn *in, int lane, const Allocation *a, uint64_t offset,
                        SpanFault fault)
{
    if (fault == SPAN_UNWRITTEN) {
        report_lane(w, in, lane, REPORT_UNINITIALISED,
                    "byte %llu of an allocation of %llu bytes is read", (unsigned long long)offset,
                    (unsigned long long)a->bytes);
        return;
    }
    const Stamp *by = fault == SPAN_READ_WRITE ? a->reader : a->writer;
    Toucher self = segment_toucher(w);
    while (!stamp_is_others(by[offset], &self)) offset++;
    Stamp other = by[offset] & ~1u;
    report_lane(w, in, lane, REPORT_GLOBAL_RACE,
                "%s byte %llu of an allocation of %llu bytes, which another %s %s",
                fault == SPAN_WRITE_READ ? "reads" : "writes", (unsigned long long)offset,
                (unsigned long long)a->bytes,
                other >= w->block->first ? "warp, with no barrier between," : "block",
                fault == SPAN_READ_WRITE ? "reads" : "writes");
}

static void check_order(Warp *w, const Insn *in, int lane, Allocation *a, uint64_t offset,
                        uint32_t n, AccessKind kind)
{
    const OpRecord *other = order_touch(w->block->launch->memory, a, offset, n, kind != ACCESS_READ,
                                        w->block->launch->op);
    if (other)
        report_lane(w, in, lane, REPORT_STREAM_RACE,
                    "byte %llu of an allocation of %llu bytes: nothing orders this after %s on "
                    "stream %u",
                    (unsigned long long)offset, (unsigned long long)a->bytes, other->name,
                    other->stream);
}

/* The others that touched these bytes in this launch did so before this block got their atomic. */
static bool is_handed_over(const Warp *w, const Allocation *a, uint64_t offset, uint32_t n,
                           AccessKind kind)
{
    for (uint64_t i = offset; i < offset + n; i++) {
        bool is_both_atomic = kind == ACCESS_ATOMIC && (a->writer[i] & 1);
        if (!is_both_atomic && !handover_is_before(w, a->writer[i])) return false;
        if (kind != ACCESS_READ && !handover_is_before(w, a->reader[i])) return false;
    }
    return true;
}

uint8_t *global_access(Warp *w, const Insn *in, int lane, uint64_t address, uint32_t n,
                       AccessKind kind)
{
    Allocation *a = find_allocation(w, in, address);
    if (!a || address - a->address + n > a->bytes) {
        report_bounds(w, in, lane, address, n);
        return NULL;
    }
    uint64_t offset = address - a->address;
    if (address % n) {
        report_lane(w, in, lane, REPORT_ALIGNMENT, "%u bytes at 0x%llx", n,
                    (unsigned long long)address);
        return NULL;
    }
    check_order(w, in, lane, a, offset, n, kind);
    Toucher by = segment_toucher(w);
    SpanFault fault = span_check(a, offset, n, kind, &by);
    if (fault > SPAN_UNWRITTEN && is_handed_over(w, a, offset, n, kind)) fault = SPAN_OK;
    if (fault != SPAN_OK) report_span(w, in, lane, a, offset, fault);
    span_record(a, offset, n, kind, &by);
    return a->host + offset;
}

/* The same for a run of bytes of many lanes, unless something is wrong. */
static uint8_t *global_run(Warp *w, const Insn *in, uint64_t address, uint32_t n, uint32_t align,
                           AccessKind kind)
{
    Allocation *a = find_allocation(w, in, address);
    if (!a || address - a->address + n > a->bytes || address % align) return NULL;
    uint64_t offset = address - a->address;
    Toucher by = segment_toucher(w);
    if (span_check(a, offset, n, kind, &by) != SPAN_OK) return NULL;
    check_order(w, in, __builtin_ctz(w->mask), a, offset, n, kind);
    span_record(a, offset, n, kind, &by);
    return a->host + offset;
}

/* ---- local memory ---- */

static uint8_t *local_access(Warp *w, const Insn *in, int lane, uint64_t at, uint32_t n,
                             AccessKind kind)
{
    uint32_t bytes = w->block->code->local_bytes;
    if (at + n > bytes || at + n < at || at % n) {
        report_lane(w, in, lane, at % n ? REPORT_ALIGNMENT : REPORT_BOUNDS,
                    "%u bytes at %lld of local memory of %u bytes", n, (long long)at, bytes);
        return NULL;
    }
    uint8_t *written = w->local_written + (uint64_t)bytes * (uint64_t)lane + at;
    for (uint32_t i = 0; i < n && kind == ACCESS_READ; i++) {
        if (written[i]) continue;
        report_lane(w, in, lane, REPORT_UNINITIALISED, "byte %llu of local memory is read",
                    (unsigned long long)at + i);
        break;
    }
    if (kind != ACCESS_READ) memset(written, 1, n);
    return w->local + (uint64_t)bytes * (uint64_t)lane + at;
}

/* ---- all spaces ---- */

static Space resolve(Space space, uint64_t *address)
{
    if (space != SPACE_GENERIC) return space;
    if (*address - SHARED_WINDOW < WINDOW_BYTES) {
        *address -= SHARED_WINDOW;
        return SPACE_SHARED;
    }
    if (*address - LOCAL_WINDOW < WINDOW_BYTES) {
        *address -= LOCAL_WINDOW;
        return SPACE_LOCAL;
    }
    return SPACE_GLOBAL;
}

uint8_t *lane_access(Warp *w, const Insn *in, int lane, uint64_t address, uint32_t n,
                     AccessKind kind)
{
    switch (resolve((Space)in->space, &address)) {
    case SPACE_SHARED:
        if (!shared_access(w, in, lane, address, n, kind != ACCESS_READ, kind == ACCESS_ATOMIC))
            return NULL;
        return w->block->shared + address;
    case SPACE_LOCAL: return local_access(w, in, lane, address, n, kind);
    case SPACE_GLOBAL: return global_access(w, in, lane, address, n, kind);
    case SPACE_GENERIC:
    case SPACE_PARAM: break;
    }
    return NULL;
}

/* ---- registers ---- */

static uint64_t widened(const Insn *in, const uint8_t *from)
{
    uint64_t v = 0;
    memcpy(&v, from, in->bytes);
    int shift = 64 - 8 * in->bytes;
    return in->is_signed ? (uint64_t)((int64_t)(v << shift) >> shift) : v;
}

static void set_register(Warp *w, const Insn *in, int element, int l, const uint8_t *from)
{
    uint8_t *to = w->regs + in->vec[element] + (unsigned)l * in->reg_bytes;
    if (in->bytes == in->reg_bytes) {
        memcpy(to, from, in->bytes);
        return;
    }
    uint64_t v = widened(in, from);
    memcpy(to, &v, in->reg_bytes);
}

/* ---- a whole warp ---- */

typedef enum { SHAPE_ANY, SHAPE_RUN, SHAPE_SAME } Shape;

static Shape shape_of(const Warp *w, const Insn *in, uint64_t *address)
{
    uint64_t a[LANES], first, run = 0, same = 0;
    if (w->mask != UINT32_MAX || in->space != SPACE_GLOBAL || in->n_vec != 1) return SHAPE_ANY;
    for (int l = 0; l < LANES; l++) a[l] = address_of(w, in->a, in->address_bytes, in->imm, l);
    *address = first = a[0];
    for (int l = 0; l < LANES; l++) {
        run |= a[l] ^ (first + (uint64_t)l * in->bytes);
        same |= a[l] ^ first;
    }
    return !run ? SHAPE_RUN : !same ? SHAPE_SAME : SHAPE_ANY;
}

static bool load_at_once(Warp *w, const Insn *in)
{
    uint64_t address;
    Shape shape = shape_of(w, in, &address);
    if (shape == SHAPE_ANY) return false;
    uint32_t n = shape == SHAPE_RUN ? (uint32_t)in->bytes * LANES : in->bytes;
    const uint8_t *from = global_run(w, in, address, n, in->bytes, ACCESS_READ);
    if (!from) return false;
    if (shape == SHAPE_RUN && in->bytes == in->reg_bytes)
        memcpy(w->regs + in->vec[0], from, n);
    else
        for (int l = 0; l < LANES; l++)
            set_register(w, in, 0, l, shape == SHAPE_RUN ? from + l * in->bytes : from);
    return true;
}

/* Offsets of a whole warp's words in shared memory; false: not whole, or something is wrong. */
static bool shared_offsets(const Warp *w, const Insn *in, uint32_t *at)
{
    uint32_t n = 4u * in->n_vec;
    uint64_t bad = 0, limit = (uint64_t)w->block->shared_bytes - n;
    if (w->mask != UINT32_MAX || in->space != SPACE_SHARED || in->bytes != 4 ||
        in->reg_bytes != 4 || n > w->block->shared_bytes)
        return false;
    for (int l = 0; l < LANES; l++) {
        uint64_t a = address_of(w, in->a, in->address_bytes, in->imm, l);
        at[l] = (uint32_t)a;
        bad |= (a > limit) | (a & (n - 1));
    }
    return !bad;
}

static bool load_shared_at_once(Warp *w, const Insn *in)
{
    uint32_t at[LANES];
    const uint32_t *words = (const uint32_t *)(const void *)w->block->shared;
    if (!shared_offsets(w, in, at) || !shared_is_settled(w, at, 4u * in->n_vec)) return false;
    for (uint32_t i = 0; i < in->n_vec; i++) {
        uint32_t *d = SLOT(w, uint32_t, in->vec[i]);
        for (int l = 0; l < LANES; l++) d[l] = words[(at[l] >> 2) + i];
    }
    return true;
}

void exec_load(Warp *w, const Insn *in)
{
    if (load_at_once(w, in) || load_shared_at_once(w, in)) return;
    static const uint8_t zeros[32] = {0};
    uint32_t n = (uint32_t)in->bytes * in->n_vec;
    for (uint32_t left = w->mask; left; left &= left - 1) {
        int l = __builtin_ctz(left);
        const uint8_t *from = lane_access(w, in, l, lane_address(w, in, l), n, ACCESS_READ);
        if (!from) from = zeros;
        for (int i = 0; i < in->n_vec; i++) set_register(w, in, i, l, from + i * in->bytes);
    }
}

static bool store_at_once(Warp *w, const Insn *in)
{
    uint64_t address;
    if (shape_of(w, in, &address) != SHAPE_RUN) return false;
    uint8_t *to = global_run(w, in, address, (uint32_t)in->bytes * LANES, in->bytes, ACCESS_WRITE);
    if (!to) return false;
    const uint8_t *from = w->regs + in->vec[0];
    for (int l = 0; l < LANES; l++) memcpy(to + l * in->bytes, from + l * in->reg_bytes, in->bytes);
    return true;
}

static bool store_shared_at_once(Warp *w, const Insn *in)
{
    uint32_t at[LANES];
    const uint32_t *from = SLOT(w, const uint32_t, in->vec[0]);
    if (in->n_vec != 1 || !shared_offsets(w, in, at)) return false;
    for (int l = 0; l < LANES; l++)
        if (shared_write_settled(w, l, at[l]) || shared_access(w, in, l, at[l], 4, true, false))
            memcpy(w->block->shared + at[l], &from[l], 4);
    return true;
}

void exec_store(Warp *w, const Insn *in)
{
    if (store_at_once(w, in) || store_shared_at_once(w, in)) return;
    uint32_t n = (uint32_t)in->bytes * in->n_vec;
    for (uint32_t left = w->mask; left; left &= left - 1) {
        int l = __builtin_ctz(left);
        uint8_t *to = lane_access(w, in, l, lane_address(w, in, l), n, ACCESS_WRITE);
        for (int i = 0; i < in->n_vec && to; i++)
            memcpy(to + i * in->bytes, w->regs + in->vec[i] + (unsigned)l * in->reg_bytes,
                   in->bytes);
    }
}

void exec_load_param(Warp *w, const Insn *in)
{
    const uint8_t *params = w->block->launch->params;
    for (uint32_t left = w->mask; left; left &= left - 1) {
        int l = __builtin_ctz(left);
        uint64_t at = lane_address(w, in, l);
        for (int i = 0; i < in->n_vec; i++) set_register(w, in, i, l, params + at + i * in->bytes);
    }
}
