/* race.c -- shared memory: bounds, bytes never written, races between barriers.
 *
 * Each warp has a clock that each synchronisation advances, and knows up to which clock of each
 * other warp it is ordered: a barrier makes all that take part know of each other.  A byte's tag is
 * time << 11 | flag << 10 | thread: its last writer (flag: atomic), and its last reader (flag:
 * several lanes of the warp; with MANY: several warps since the barrier that `time` counts).
 * The tag 0 means never written.
 *
 * Most reads find what others of the warp or the block have found before: a word is settled when
 * further reads by anybody until the next barrier (an even key), or by one warp until it next
 * synchronises (an odd key), are fine and change no tag. */
#include "tests/gpusim/report.h"

#include <string.h>

enum { FLAG = 1 << 10, MANY = FLAG | 30, SEVERAL = 31, THREAD = FLAG - 1, TIME_SHIFT = 11 };

static uint32_t own_tag(const Warp *w, int lane)
{
    return w->clock << TIME_SHIFT | w->number << 5 | (uint32_t)lane;
}

static uint32_t warp_of(uint32_t tag)
{
    return tag >> 5 & 31;
}

/* Did what the tag stands for happen before, or does this very lane do it? */
static bool is_ordered(const Warp *w, uint32_t tag)
{
    uint32_t from = warp_of(tag), time = tag >> TIME_SHIFT;
    return from == w->number ? time < w->clock : time <= w->seen[from];
}

static bool is_race_with_writer(const Warp *w, uint32_t writer, int lane, bool is_atomic)
{
    if (is_atomic && (writer & FLAG)) return false;
    if ((writer & THREAD) == (w->number << 5 | (uint32_t)lane)) return false;
    return writer && !is_ordered(w, writer);
}

static bool is_race_with_reader(const Warp *w, uint32_t reader, int lane)
{
    if (!reader) return false;
    if ((reader & (FLAG | 31)) == MANY) return reader >> TIME_SHIFT > w->block->n_phases;
    bool is_one = !(reader & FLAG);
    if (is_one && (reader & THREAD) == (w->number << 5 | (uint32_t)lane)) return false;
    return !is_ordered(w, reader);
}

static uint32_t merged_reader(const Warp *w, uint32_t old, int lane)
{
    uint32_t own = own_tag(w, lane), many = (w->block->n_phases + 1) << TIME_SHIFT | MANY;
    if (!old || old == own) return own;
    if ((old & (FLAG | 31)) == MANY) return old >> TIME_SHIFT > w->block->n_phases ? many : own;
    if (is_ordered(w, old)) return own;
    return warp_of(old) == w->number ? (own & ~31u) | FLAG | SEVERAL : many;
}

static void describe(char *out, size_t n, uint32_t tag)
{
    if ((tag & (FLAG | 31)) == MANY)
        snprintf(out, n, "threads of several warps");
    else
        snprintf(out, n, "thread %u", tag & THREAD);
}

static void report_race(Warp *w, const Insn *in, int lane, uint64_t at, const char *does,
                        const char *did, uint32_t tag)
{
    char who[48];
    describe(who, sizeof who, tag);
    report_lane(w, in, lane, REPORT_SHARED_RACE,
                "%s byte %llu of shared memory, which %s %s with no barrier between", does,
                (unsigned long long)at, who, did);
}

static bool is_inside(Warp *w, const Insn *in, int lane, uint64_t at, uint32_t n)
{
    if (at + n > w->block->shared_bytes || at + n < at) {
        report_lane(w, in, lane, REPORT_BOUNDS, "%u bytes at %lld of shared memory of %u bytes", n,
                    (long long)at, w->block->shared_bytes);
        return false;
    }
    if (at % n == 0) return true;
    report_lane(w, in, lane, REPORT_ALIGNMENT, "%u bytes at %llu of shared memory", n,
                (unsigned long long)at);
    return false;
}

/* ---- settled words ---- */

static uint32_t phase_key(const Block *b)
{
    return (b->n_phases + 1) << 1;
}

static uint32_t warp_key(const Warp *w)
{
    return w->clock << 6 | w->number << 1 | 1;
}

/* A full barrier lies between the writer and everyone but its own warp's clock says so too. */
static bool is_ordered_for_all(const Block *b, uint32_t writer)
{
    uint32_t from = warp_of(writer);
    if (b->has_partial_barriers || b->n_warps < 2) return false;
    return writer >> TIME_SHIFT <= b->warps[from ? 0 : 1].seen[from];
}

static uint32_t settled_key(const Warp *w, uint32_t writer, uint32_t reader)
{
    const Block *b = w->block;
    if (!writer) return 0;
    if (reader == ((b->n_phases + 1) << TIME_SHIFT | MANY) && is_ordered_for_all(b, writer))
        return phase_key(b);
    bool is_ours = reader == ((own_tag(w, 0) & ~31u) | FLAG | SEVERAL);
    return is_ours && is_ordered(w, writer) ? warp_key(w) : 0;
}

bool shared_is_settled(const Warp *w, const uint32_t *at, uint32_t n)
{
    const uint32_t *settled = w->block->shared_settled;
    uint32_t phase = phase_key(w->block), warp = warp_key(w), bad = 0;
    for (uint32_t i = 0; i < n; i += 4)
        for (int l = 0; l < LANES; l++) {
            uint32_t s = settled[(at[l] + i) >> 2];
            bad |= (s != phase) & (s != warp);
        }
    return !bad;
}

static void set_four(uint32_t *tags, uint32_t tag)
{
    for (int i = 0; i < 4; i++) tags[i] = tag;
}

/* What all threads could read in an earlier phase, and nobody touched since. */
bool shared_write_settled(Warp *w, int lane, uint32_t at)
{
    uint32_t *settled = &w->block->shared_settled[at >> 2];
    if (*settled == 0 || *settled & 1 || *settled >= phase_key(w->block)) return false;
    *settled = 0;
    set_four(w->block->shared_writer + at, own_tag(w, lane));
    return true;
}

/* ---- one lane ---- */

static bool is_same(const uint32_t *tags)
{
    return tags[0] == tags[1] && tags[0] == tags[2] && tags[0] == tags[3];
}

static bool read_word(Warp *w, int lane, uint64_t at)
{
    uint32_t *writer = w->block->shared_writer + at, *reader = w->block->shared_reader + at;
    uint32_t *settled = &w->block->shared_settled[at >> 2];
    if (*settled == phase_key(w->block) || *settled == warp_key(w)) return true;
    if (!is_same(writer) || !is_same(reader) || !writer[0]) return false;
    if (is_race_with_writer(w, writer[0], lane, false)) return false;
    set_four(reader, merged_reader(w, reader[0], lane));
    *settled = settled_key(w, writer[0], reader[0]);
    return true;
}

static void read_bytes(Warp *w, const Insn *in, int lane, uint64_t at, uint32_t n)
{
    uint32_t *writer = w->block->shared_writer + at, *reader = w->block->shared_reader + at;
    for (uint32_t i = 0; i < n; i++) {
        if (!writer[i])
            report_lane(w, in, lane, REPORT_UNINITIALISED, "byte %llu of shared memory is read",
                        (unsigned long long)at + i);
        else if (is_race_with_writer(w, writer[i], lane, false))
            report_race(w, in, lane, at + i, "reads", "writes", writer[i]);
        reader[i] = merged_reader(w, reader[i], lane);
        w->block->shared_settled[(at + i) >> 2] = 0;
    }
}

static void write_bytes(Warp *w, const Insn *in, int lane, uint64_t at, uint32_t n, bool is_atomic)
{
    uint32_t *writer = w->block->shared_writer + at, *reader = w->block->shared_reader + at;
    uint32_t tag = own_tag(w, lane) | (is_atomic ? (uint32_t)FLAG : 0);
    for (uint32_t i = 0; i < n; i++) {
        if (is_atomic && !writer[i])
            report_lane(w, in, lane, REPORT_UNINITIALISED, "byte %llu of shared memory is read",
                        (unsigned long long)at + i);
        if (is_race_with_writer(w, writer[i], lane, is_atomic))
            report_race(w, in, lane, at + i, "writes", "writes", writer[i]);
        else if (is_race_with_reader(w, reader[i], lane))
            report_race(w, in, lane, at + i, "writes", "reads", reader[i]);
        writer[i] = tag;
        w->block->shared_settled[(at + i) >> 2] = 0;
    }
}

bool shared_access(Warp *w, const Insn *in, int lane, uint64_t at, uint32_t n, bool is_write,
                   bool is_atomic)
{
    if (!is_inside(w, in, lane, at, n)) return false;
    uint32_t step = n < 4 ? n : 4;
    for (uint64_t i = at; i < at + n; i += step) {
        if (!is_write) {
            if (step != 4 || !read_word(w, lane, i)) read_bytes(w, in, lane, i, step);
        } else if (is_atomic || step != 4 || !shared_write_settled(w, lane, (uint32_t)i))
            write_bytes(w, in, lane, i, step, is_atomic);
    }
    return true;
}

void race_pending(Block *b, uint64_t at, uint32_t n)
{
    memset(b->shared_writer + at, 0, n * sizeof b->shared_writer[0]);
    for (uint64_t i = at; i < at + n; i++) b->shared_settled[i >> 2] = 0;
}

/* ---- wgmma reads by another way than threads write ---- */

void exec_proxy_fence(Warp *w, const Insn *in)
{
    (void)in;
    w->published = w->clock;
}

void shared_check_published(Warp *w, const Insn *in, int lane, uint32_t at)
{
    uint32_t tag = w->block->shared_writer[at];
    if (tag >> TIME_SHIFT <= w->block->warps[warp_of(tag)].published) return;
    report_lane(w, in, lane, REPORT_SHARED_RACE,
                "reads byte %u of shared memory, which thread %u writes and does not publish by "
                "fence.proxy.async",
                at, tag & THREAD);
}

/* ---- order ---- */

void race_start(Block *b)
{
    memset(b->shared_writer, 0, b->shared_bytes * sizeof b->shared_writer[0]);
    memset(b->shared_reader, 0, b->shared_bytes * sizeof b->shared_reader[0]);
    memset(b->shared_settled, 0, (b->shared_bytes / 4 + 1) * sizeof b->shared_settled[0]);
    b->n_phases = 0;
    b->has_partial_barriers = false;
    for (uint32_t i = 0; i < b->n_warps; i++) {
        b->warps[i].clock = 1;
        b->warps[i].published = 0;
        memset(b->warps[i].seen, 0, sizeof b->warps[i].seen);
    }
}

void race_sync_warp(Warp *w)
{
    w->clock++;
}

void race_sync_block(Block *b, uint32_t warps)
{
    uint32_t seen[MAX_WARPS] = {0};
    for (uint32_t i = 0; i < b->n_warps; i++) {
        if (!(warps >> i & 1)) continue;
        for (uint32_t v = 0; v < b->n_warps; v++)
            if (b->warps[i].seen[v] > seen[v]) seen[v] = b->warps[i].seen[v];
    }
    for (uint32_t i = 0; i < b->n_warps; i++)
        if (warps >> i & 1) seen[i] = b->warps[i].clock;
    for (uint32_t i = 0; i < b->n_warps; i++) {
        if (!(warps >> i & 1)) continue;
        memcpy(b->warps[i].seen, seen, sizeof seen);
        b->warps[i].clock++;
    }
    b->n_phases++;
    if (warps != UINT32_MAX >> (MAX_WARPS - b->n_warps)) b->has_partial_barriers = true;
}
