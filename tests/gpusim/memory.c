/* memory.c -- allocations and their shadows, mapped page by page as they are touched. */
#include "tests/gpusim/memory.h"

#include <string.h>
#include <sys/mman.h>

static void *map_pages(uint64_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

static void unmap(void *at, uint64_t bytes)
{
    if (at) munmap(at, bytes);
}

static uint64_t n_chunks(uint64_t bytes)
{
    return (bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
}

static bool map_shadow(Allocation *a)
{
    a->writer = map_pages(a->bytes * sizeof(Stamp));
    a->reader = map_pages(a->bytes * sizeof(Stamp));
    a->chunks = map_pages(n_chunks(a->bytes) * sizeof(Chunk));
    return a->writer && a->reader && a->chunks;
}

static void unmap_all(Allocation *a)
{
    if (!a->is_pinned) unmap(a->host, a->bytes);
    unmap(a->writer, a->bytes * sizeof(Stamp));
    unmap(a->reader, a->bytes * sizeof(Stamp));
    unmap(a->chunks, n_chunks(a->bytes) * sizeof(Chunk));
    a->host = NULL;
    a->writer = a->reader = NULL;
    a->chunks = NULL;
}

/* Number of allocations that begin at or before the address. */
static uint32_t count_below(const Memory *m, uint64_t address)
{
    uint32_t low = 0, high = m->all.n;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (m->all.at[middle]->address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void insert(Memory *m, Allocation *a)
{
    uint32_t at = count_below(m, a->address);
    VEC_PUSH(&m->arena, &m->all, a);
    memmove(&m->all.at[at + 1], &m->all.at[at], (m->all.n - 1 - at) * sizeof m->all.at[0]);
    m->all.at[at] = a;
}

Allocation *memory_allocate(Memory *m, int device, uint64_t bytes)
{
    uint64_t padded = (bytes + ALLOC_ALIGN - 1) / ALLOC_ALIGN * ALLOC_ALIGN;
    if (bytes == 0 || padded > m->total_bytes - m->used_of[device]) return NULL;
    Allocation *a = ARENA_NEW(&m->arena, Allocation);
    /* Addresses are never used twice, and a gap follows: stale pointers and overruns are seen. */
    *a = (Allocation){.address = DEVICE_BASE + (uint64_t)device * DEVICE_RANGE + m->next[device],
                      .bytes = bytes,
                      .is_live = true,
                      .device = device};
    a->host = map_pages(bytes);
    if (!a->host || !map_shadow(a)) {
        unmap_all(a);
        return NULL;
    }
    m->next[device] += padded + ALLOC_ALIGN;
    m->used_of[device] += padded;
    m->used_bytes += padded;
    if (m->used_bytes > m->peak_bytes) m->peak_bytes = m->used_bytes;
    insert(m, a);
    return a;
}

Allocation *memory_pin(Memory *m, void *host, uint64_t bytes)
{
    Allocation *a = ARENA_NEW(&m->arena, Allocation);
    *a = (Allocation){.address = (uint64_t)(uintptr_t)host,
                      .bytes = bytes,
                      .host = host,
                      .is_live = true,
                      .is_pinned = true};
    if (!map_shadow(a)) {
        unmap_all(a);
        return NULL;
    }
    span_copy_write(a, 0, bytes); /* what the host writes is not seen: all counts as written */
    insert(m, a);
    return a;
}

bool memory_free(Memory *m, uint64_t address)
{
    uint32_t n = count_below(m, address);
    Allocation *a = n ? m->all.at[n - 1] : NULL;
    if (!a || a->address != address || !a->is_live) return false;
    a->is_live = false;
    if (!a->is_pinned) {
        uint64_t padded = (a->bytes + ALLOC_ALIGN - 1) / ALLOC_ALIGN * ALLOC_ALIGN;
        m->used_of[a->device] -= padded;
        m->used_bytes -= padded;
    }
    unmap_all(a);
    if (a->is_pinned) { /* the host may give the address to something else */
        memmove(&m->all.at[n - 1], &m->all.at[n], (m->all.n - n) * sizeof m->all.at[0]);
        m->all.n--;
    }
    return true;
}

Allocation *memory_below(const Memory *m, uint64_t address)
{
    uint32_t n = count_below(m, address);
    return n ? m->all.at[n - 1] : NULL;
}

Allocation *memory_find(const Memory *m, uint64_t address)
{
    Allocation *a = memory_below(m, address);
    return a && a->is_live && address - a->address < a->bytes ? a : NULL;
}

/* ---- who touched a byte ---- */

bool stamp_is_others(Stamp s, const Toucher *by)
{
    s &= ~1u;
    if (s < by->launch) return false;
    if (s < by->block) return true;
    return s >= by->phase && by->warp_of[(s - by->phase) / 2] != by->warp;
}

static SpanFault fault_of(const Stamp *writer, const Stamp *reader, uint64_t n, AccessKind kind,
                          const Toucher *by)
{
    for (uint64_t i = 0; i < n; i++) {
        bool is_both_atomic = kind == ACCESS_ATOMIC && (writer[i] & 1);
        if (kind != ACCESS_WRITE && writer[i] == STAMP_NONE) return SPAN_UNWRITTEN;
        if (stamp_is_others(writer[i], by) && !is_both_atomic)
            return kind == ACCESS_READ ? SPAN_WRITE_READ : SPAN_WRITE_WRITE;
        if (kind != ACCESS_READ && stamp_is_others(reader[i], by)) return SPAN_READ_WRITE;
    }
    return SPAN_OK;
}

/* 1: not at once to be seen as fine, which is before the launch, of this block before its last
 * barrier, or this very segment. */
static uint32_t is_doubtful(Stamp s, const Toucher *by)
{
    return (uint32_t)(s >= by->launch) &
           ((uint32_t)(s < by->block) | ((uint32_t)(s >= by->phase) & (uint32_t)(s != by->own)));
}

/* Nothing to look at twice: written, and by no other of this launch. */
static bool is_clean(const Stamp *writer, uint64_t n, const Toucher *by)
{
    uint32_t bad = 0;
    for (uint64_t i = 0; i < n; i++)
        bad |= (uint32_t)(writer[i] == STAMP_NONE) | is_doubtful(writer[i], by);
    return !bad;
}

/* No other of this launch wrote or read it. */
static bool is_free(const Stamp *writer, const Stamp *reader, uint64_t n, const Toucher *by)
{
    uint32_t bad = 0;
    for (uint64_t i = 0; i < n; i++) bad |= is_doubtful(writer[i], by) | is_doubtful(reader[i], by);
    return !bad;
}

static Stamp merged_reader(Stamp old, const Toucher *by)
{
    if (old < by->launch || old == by->own) return by->own;
    if (old < by->block) return by->launch;
    return stamp_is_others(old, by) ? by->phase : by->own;
}

void span_record(Allocation *at, uint64_t offset, uint64_t n, AccessKind kind, const Toucher *by)
{
    Stamp *writer = at->writer + offset, *reader = at->reader + offset;
    Stamp s = by->own | (kind == ACCESS_ATOMIC ? 1u : 0u);
    if (kind == ACCESS_READ)
        for (uint64_t i = 0; i < n; i++)
            reader[i] = reader[i] < by->launch ? by->own : merged_reader(reader[i], by);
    else
        for (uint64_t i = 0; i < n; i++) writer[i] = s;
}

SpanFault span_check(const Allocation *at, uint64_t offset, uint64_t n, AccessKind kind,
                     const Toucher *by)
{
    const Stamp *writer = at->writer + offset, *reader = at->reader + offset;
    if (kind == ACCESS_READ && is_clean(writer, n, by)) return SPAN_OK;
    if (kind == ACCESS_WRITE && is_free(writer, reader, n, by)) return SPAN_OK;
    return fault_of(writer, reader, n, kind, by);
}

void memory_renumber(Memory *m)
{
    for (uint32_t i = 0; i < m->all.n; i++) {
        Allocation *a = m->all.at[i];
        for (uint64_t b = 0; a->is_live && b < a->bytes; b++) { /* reads leave pages unmapped */
            if (a->writer[b] != STAMP_NONE) a->writer[b] = STAMP_COPY;
            if (a->reader[b] != STAMP_NONE) a->reader[b] = STAMP_NONE;
        }
    }
}

bool span_copy_read(Allocation *at, uint64_t offset, uint64_t n)
{
    for (uint64_t i = offset; i < offset + n; i++)
        if (at->writer[i] == STAMP_NONE) return false;
    return true;
}

void span_copy_write(Allocation *at, uint64_t offset, uint64_t n)
{
    for (uint64_t i = offset; i < offset + n; i++) at->writer[i] = STAMP_COPY;
}

/* ---- operations of streams ---- */

void memory_add_op(Memory *m, Op *op)
{
    OpRecord none = {0}, r = {op->stream, op->clock[op->stream], op->name};
    if (m->ops.n == 0) VEC_PUSH(&m->arena, &m->ops, none);
    op->id = m->ops.n;
    VEC_PUSH(&m->arena, &m->ops, r);
}

static const OpRecord *not_before(const Memory *m, uint32_t id, const Op *op)
{
    const OpRecord *r = &m->ops.at[id];
    return id == 0 || id == op->id || op->clock[r->stream] >= r->number ? NULL : r;
}

static const OpRecord *touch_chunk(const Memory *m, Chunk *c, bool is_write, const Op *op)
{
    const OpRecord *bad = not_before(m, c->writer, op);
    if (is_write) {
        for (int s = 0; s < MAX_STREAMS && !bad; s++) bad = not_before(m, c->readers[s], op);
        memset(c->readers, 0, sizeof c->readers);
        c->writer = c->last_written = op->id;
    } else {
        c->readers[op->stream] = op->id;
        c->last_read = op->id;
    }
    return bad;
}

const OpRecord *order_touch(Memory *m, Allocation *at, uint64_t offset, uint64_t n, bool is_write,
                            const Op *op)
{
    const OpRecord *bad = NULL;
    for (uint64_t i = offset / CHUNK_BYTES; i <= (offset + n - 1) / CHUNK_BYTES; i++) {
        Chunk *c = &at->chunks[i];
        if (is_write ? c->last_written == op->id : c->last_read == op->id) continue;
        const OpRecord *found = touch_chunk(m, c, is_write, op);
        if (!bad) bad = found;
    }
    return bad;
}
