/* launch.c -- a grid: its blocks one after another, the warps of a block in turn.
 *
 * Blocks run in ascending or descending order and warps from either end, by the launch's seed: a
 * kernel must not depend on it.  A block runs to its end before the next starts, so a kernel whose
 * blocks wait for each other does not end here; that is reported. */
#include <stdlib.h>
#include <string.h>

#include "tests/gpusim/report.h"

enum {
    CUDA_OK = 0,
    CUDA_NO_MEMORY = 2,
    CUDA_ILLEGAL_ADDRESS = 700,
    CUDA_TIMEOUT = 702,
    CUDA_MISALIGNED = 716,
    CUDA_LAUNCH_FAILED = 719,
    MAX_SLICES = 10000 /* of a block's warps, 10^8 instructions: it does not end */
};

/* ---- registers ---- */

static void fill_slot(Warp *w, const Constant *c)
{
    for (int l = 0; l < LANES; l++) {
        if (c->bytes == 8)
            SLOT(w, uint64_t, c->slot)[l] = c->value;
        else if (c->bytes == 2)
            SLOT(w, uint16_t, c->slot)[l] = (uint16_t)c->value;
        else
            SLOT(w, uint32_t, c->slot)[l] = (uint32_t)c->value;
    }
}

static uint32_t special_value(const Warp *w, SpecialReg r, int l)
{
    const Block *b = w->block;
    const Launch *g = b->launch;
    uint32_t t = w->number * LANES + (uint32_t)l, bit = 1u << l;
    switch (r) {
    case SR_TID_X: return t % g->block[0];
    case SR_TID_Y: return t / g->block[0] % g->block[1];
    case SR_TID_Z: return t / g->block[0] / g->block[1];
    case SR_LANE: return (uint32_t)l;
    case SR_WARP: return w->number;
    case SR_CTA_X: return b->x;
    case SR_CTA_Y: return b->y;
    case SR_CTA_Z: return b->z;
    case SR_NTID_X: return g->block[0];
    case SR_NTID_Y: return g->block[1];
    case SR_NTID_Z: return g->block[2];
    case SR_NCTA_X: return g->grid[0];
    case SR_NCTA_Y: return g->grid[1];
    case SR_NCTA_Z: return g->grid[2];
    case SR_NWARP: return b->n_warps;
    case SR_LANEMASK_EQ: return bit;
    case SR_LANEMASK_LT: return bit - 1;
    case SR_LANEMASK_LE: return bit | (bit - 1);
    case SR_LANEMASK_GT: return ~(bit | (bit - 1));
    case SR_LANEMASK_GE: return ~(bit - 1);
    case SR_DYN_SHARED: return g->dynamic_bytes;
    case SR_TOTAL_SHARED: return b->shared_bytes;
    case N_SPECIAL: break;
    }
    return 0;
}

static void fill_specials(Warp *w)
{
    for (int r = 0; r < N_SPECIAL; r++) {
        uint32_t slot = w->block->code->special[r];
        if (slot == UINT32_MAX) continue;
        for (int l = 0; l < LANES; l++)
            SLOT(w, uint32_t, slot)[l] = special_value(w, (SpecialReg)r, l);
    }
}

/* ---- barriers ---- */

static uint32_t threads_of(const Block *b, const Warp *w)
{
    uint32_t first = w->number * LANES, n = b->n_threads - first;
    return n < LANES ? n : LANES;
}

static void leave_barrier(Warp *w, const Barrier *x)
{
    const Insn *in = w->barrier;
    w->is_at_barrier = false;
    if (in->variant != BAR_POPC && in->variant != BAR_AND && in->variant != BAR_OR) return;
    uint32_t v = in->variant == BAR_POPC ? x->popc : in->variant == BAR_AND ? x->all : x->any;
    warp_set_mask(w, w->live);
    uint32_t *d = SLOT(w, uint32_t, in->d);
    EACH_LANE(w, d[l] = v);
}

static void complete_barrier(Block *b, uint32_t id)
{
    Barrier x = b->barriers[id];
    memset(&b->barriers[id], 0, sizeof b->barriers[id]);
    race_sync_block(b, x.warps);
    segment_start_phase(b);
    for (uint32_t i = 0; i < b->n_warps; i++) {
        Warp *w = &b->warps[i];
        if (w->is_at_barrier && w->barrier_id == id) leave_barrier(w, &x);
    }
}

static void arrive(Block *b, Warp *w)
{
    const Insn *in = w->barrier;
    warp_set_mask(w, w->live);
    uint32_t id = slot_first(w, in->a) % N_BARRIERS;
    Barrier *x = &b->barriers[id];
    if (x->n_arrived == 0) *x = (Barrier){.all = true};
    w->barrier_id = id;
    x->n_arrived += threads_of(b, w);
    x->warps |= 1u << w->number;
    for (int l = 0; in->c != UINT32_MAX && l < LANES; l++) {
        if (!(w->live >> l & 1)) continue;
        bool p = SLOT(w, uint32_t, in->c)[l] & 1;
        x->popc += p;
        x->all &= p;
        x->any |= p;
    }
    if (in->variant == BAR_ARRIVE) w->is_at_barrier = false;
    uint32_t wanted = in->b == UINT32_MAX ? b->n_threads : slot_first(w, in->b);
    if (x->n_arrived >= wanted) complete_barrier(b, id);
}

/* Warps wait, and none runs. */
static void report_stuck(Block *b)
{
    for (uint32_t i = 0; i < b->n_warps; i++) {
        Warp *w = &b->warps[i];
        if (!w->is_at_barrier) continue;
        const Barrier *x = &b->barriers[w->barrier_id];
        report_lane(w, w->barrier, __builtin_ctz(w->live), REPORT_BARRIER,
                    "barrier %u: %u of %u threads arrive, the others exit or wait elsewhere",
                    w->barrier_id, x->n_arrived, b->n_threads);
        b->is_failed = true;
        return;
    }
}

/* ---- a block ---- */

static void report_endless(Warp *w)
{
    const Group *g = &w->groups[0];
    report_lane(w, &w->block->code->insns.at[g->pc], __builtin_ctz(g->mask), REPORT_TRAP,
                "the block does not end: it waits for another block, or for what nobody does");
    w->block->launch->is_endless = w->block->is_failed = true;
}

static void start_block(Block *b)
{
    const Code *code = b->code;
    memset(b->barriers, 0, sizeof b->barriers);
    for (uint32_t i = 0; i < b->n_warps; i++) {
        Warp *w = &b->warps[i];
        fill_specials(w);
        memset(w->local_written, 0, (size_t)code->local_bytes * LANES);
        warp_start(w, b->n_threads);
    }
    race_start(b);
    segment_start_block(b);
    handover_start(b);
}

static void run_block(Block *b, bool is_reversed)
{
    uint32_t n_slices = 0;
    start_block(b);
    for (bool is_moving = true; is_moving && !b->is_failed;) {
        is_moving = false;
        for (uint32_t i = 0; i < b->n_warps && !b->is_failed; i++) {
            Warp *w = &b->warps[is_reversed ? b->n_warps - 1 - i : i];
            if (w->is_at_barrier || !w->live) continue;
            is_moving = true;
            WarpStop stop = warp_run(w);
            if (stop == WARP_BARRIER) arrive(b, w);
            if (stop == WARP_SPENT && ++n_slices == MAX_SLICES) report_endless(w);
        }
    }
    if (!b->is_failed) report_stuck(b);
}

/* ---- the grid ---- */

static void free_block(Block *b)
{
    for (uint32_t i = 0; i < b->n_warps; i++) {
        free(b->warps[i].regs);
        free(b->warps[i].local);
        free(b->warps[i].local_written);
    }
    free(b->shared);
    free(b->shared_writer);
    free(b->shared_reader);
    free(b->shared_settled);
    free(b->caches);
    free(b);
}

static Block *new_block(Launch *l)
{
    const Code *code = l->code;
    Block *b = calloc(1, sizeof *b);
    if (!b) return NULL;
    b->code = code;
    b->launch = l;
    b->n_threads = l->block[0] * l->block[1] * l->block[2];
    b->n_warps = (b->n_threads + LANES - 1) / LANES;
    b->shared_bytes =
        l->dynamic_bytes ? code->dynamic_offset + l->dynamic_bytes : code->shared_bytes;
    b->shared = calloc(b->shared_bytes + 1, 1);
    b->shared_writer = calloc(b->shared_bytes + 1, sizeof b->shared_writer[0]);
    b->shared_reader = calloc(b->shared_bytes + 1, sizeof b->shared_reader[0]);
    b->shared_settled = calloc(b->shared_bytes / 4 + 1, sizeof b->shared_settled[0]);
    b->caches = calloc(code->insns.n, sizeof b->caches[0]);
    bool is_ok =
        b->shared && b->shared_writer && b->shared_reader && b->shared_settled && b->caches;
    for (uint32_t i = 0; i < b->n_warps; i++) {
        Warp *w = &b->warps[i];
        w->block = b;
        w->number = i;
        w->regs = aligned_alloc(64, (code->n_reg_bytes + 63u) / 64 * 64);
        w->local = calloc((size_t)code->local_bytes * LANES + 1, 1);
        w->local_written = calloc((size_t)code->local_bytes * LANES + 1, 1);
        is_ok = is_ok && w->regs && w->local && w->local_written;
        if (w->regs) memset(w->regs, 0, code->n_reg_bytes);
    }
    if (is_ok) return b;
    free_block(b);
    return NULL;
}

int launch_run(Launch *l)
{
    uint64_t n = (uint64_t)l->grid[0] * l->grid[1] * l->grid[2];
    Block *b = new_block(l);
    if (!b) return CUDA_NO_MEMORY;
    for (uint32_t i = 0; i < b->n_warps; i++)
        for (uint32_t c = 0; c < l->code->constants.n; c++)
            fill_slot(&b->warps[i], &l->code->constants.at[c]);
    for (uint64_t i = 0; i < n && !b->is_failed; i++) {
        uint64_t at = l->seed & 1 ? n - 1 - i : i;
        b->x = (uint32_t)(at % l->grid[0]);
        b->y = (uint32_t)(at / l->grid[0] % l->grid[1]);
        b->z = (uint32_t)(at / l->grid[0] / l->grid[1]);
        run_block(b, l->seed >> 1 & 1);
    }
    bool is_failed = b->is_failed;
    free_block(b);
    if (l->is_out_of_bounds) return CUDA_ILLEGAL_ADDRESS;
    if (l->is_misaligned) return CUDA_MISALIGNED;
    if (l->is_endless) return CUDA_TIMEOUT;
    return is_failed ? CUDA_LAUNCH_FAILED : CUDA_OK;
}
