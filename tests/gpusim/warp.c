/* warp.c -- a warp executes: groups of lanes at equal instructions, the lowest first.
 *
 * Without a control-flow graph: a group runs until it reaches the instruction of another group,
 * with which it merges, or leaves it behind.  After SLICE instructions another group has its turn,
 * and another warp, so a lane that spins for another lane or warp of its block does not starve it.
 * At a .sync instruction a group parks until all lanes of the mask that have not exited are there.
 */
#include <string.h>

#include "tests/gpusim/report.h"

enum { SLICE = 10000 };

void warp_set_mask(Warp *w, uint32_t mask)
{
    w->mask = mask;
    for (int l = 0; l < LANES; l++) w->on[l] = -(int32_t)(mask >> l & 1);
}

uint32_t slot_first(const Warp *w, uint32_t slot)
{
    return SLOT(w, const uint32_t, slot)[w->mask ? __builtin_ctz(w->mask) : 0];
}

static uint32_t predicate_mask(const Warp *w, uint32_t slot, bool is_not)
{
    const uint32_t *p = SLOT(w, const uint32_t, slot);
    uint32_t mask = 0;
    for (int l = 0; l < LANES; l++) mask |= (p[l] & 1) << l;
    return is_not ? ~mask : mask;
}

/* ---- groups ---- */

static void add_group(Warp *w, uint32_t mask, int32_t pc)
{
    for (int i = 0; i < w->n_groups; i++) {
        if (w->groups[i].pc != pc) continue;
        w->groups[i].mask |= mask;
        w->groups[i].state = GROUP_READY; /* a parked group looks again who has arrived */
        return;
    }
    w->groups[w->n_groups++] = (Group){mask, pc, GROUP_READY};
}

static Group take_group(Warp *w, int i)
{
    Group g = w->groups[i];
    w->groups[i] = w->groups[--w->n_groups];
    return g;
}

/* The lowest ready group, or, when the last one has used up its slice, the next above it. -1: all
 * are parked. */
static int pick_group(const Warp *w)
{
    int lowest = -1, above = -1;
    for (int i = 0; i < w->n_groups; i++) {
        const Group *g = &w->groups[i];
        if (g->state != GROUP_READY) continue;
        if (lowest < 0 || g->pc < w->groups[lowest].pc) lowest = i;
        if (g->pc > w->last && (above < 0 || g->pc < w->groups[above].pc)) above = i;
    }
    return w->last >= 0 && above >= 0 ? above : lowest;
}

static bool is_other_at(const Warp *w, int32_t pc)
{
    for (int i = 0; i < w->n_groups; i++)
        if (w->groups[i].pc == pc) return true;
    return false;
}

/* ---- .sync instructions ---- */

/* Lanes of the active ones that name the same mask as the first of them. */
static uint32_t same_members(const Warp *w, const Insn *in, uint32_t among, uint32_t *members)
{
    const uint32_t *m = SLOT(w, const uint32_t, in->members);
    uint32_t same = 0;
    *members = m[__builtin_ctz(among)];
    for (int l = 0; l < LANES; l++)
        if (among >> l & 1 && m[l] == *members) same |= 1u << l;
    return same;
}

static void check_members(Warp *w, const Insn *in, uint32_t lanes, uint32_t members)
{
    uint32_t gone = members & ~w->live, strange = lanes & ~members;
    if (gone && w->number * LANES + 31 < w->block->n_threads)
        report_lane(w, in, __builtin_ctz(lanes), REPORT_LANE,
                    "the mask 0x%08x names lanes 0x%08x, which have exited", members, gone);
    if (strange)
        report_lane(w, in, __builtin_ctz(strange), REPORT_LANE,
                    "lane %d calls with the mask 0x%08x, which lacks it", __builtin_ctz(strange),
                    members);
}

/* Executes for all lanes of the group, in sets of equal masks.  False: some set is not complete. */
static bool run_sync(Warp *w, const Insn *in, uint32_t lanes)
{
    uint32_t members;
    for (uint32_t left = lanes; left && !w->is_forced;) {
        uint32_t same = same_members(w, in, left, &members);
        if (members & w->live & ~same) return false;
        left &= ~same;
    }
    for (uint32_t left = lanes; left;) {
        uint32_t same = same_members(w, in, left, &members);
        check_members(w, in, same, members);
        warp_set_mask(w, same);
        in->fn(w, in);
        left &= ~same;
    }
    if (in->fn == exec_warp_barrier) race_sync_warp(w); /* a shuffle orders no memory */
    return true;
}

/* Every group is parked: say who is missing. */
static bool resolve_parked(Warp *w)
{
    const Code *code = w->block->code;
    for (int i = 0; i < w->n_groups; i++) {
        const Insn *in = &code->insns.at[w->groups[i].pc];
        uint32_t lanes = w->groups[i].mask, members;
        if (in->kind != INSN_SYNC) continue;
        (void)same_members(w, in, lanes, &members);
        uint32_t missing = members & w->live & ~lanes;
        report_lane(w, in, __builtin_ctz(lanes), REPORT_LANE,
                    "lanes 0x%08x wait for lanes 0x%08x of the mask, which never come", lanes,
                    missing);
        w->groups[i].state = GROUP_READY;
        w->is_forced = true;
        return true;
    }
    const Group *g = &w->groups[0];
    report_lane(w, &code->insns.at[g->pc], __builtin_ctz(g->mask), REPORT_BARRIER,
                "lanes 0x%08x of the warp wait at a barrier, lanes 0x%08x elsewhere", g->mask,
                w->live & ~g->mask);
    w->block->is_failed = true;
    return false;
}

/* ---- running ---- */

typedef enum { STEP_ON, STEP_REGROUP, STEP_SPENT, STEP_BARRIER, STEP_FAILED } Step;

static void run_plain(Warp *w, const Insn *in, uint32_t lanes)
{
    if (!in->has_guard) {
        in->fn(w, in);
        return;
    }
    uint32_t mask = lanes & predicate_mask(w, in->guard, in->is_not);
    if (!mask) return;
    warp_set_mask(w, mask);
    in->fn(w, in);
    warp_set_mask(w, lanes);
}

static Step run_branch(Warp *w, const Insn *in, Group *g)
{
    uint32_t taken = g->mask;
    if (in->has_guard) taken &= predicate_mask(w, in->guard, in->is_not);
    if (taken == g->mask) {
        g->pc = in->target;
        return STEP_ON;
    }
    g->pc++;
    if (!taken) return STEP_ON;
    add_group(w, g->mask & ~taken, g->pc);
    *g = (Group){taken, in->target, GROUP_READY};
    return STEP_REGROUP;
}

/* Lanes whose guard is false pass by. */
static Step split_guarded(Warp *w, const Insn *in, Group *g)
{
    uint32_t active = g->mask & predicate_mask(w, in->guard, in->is_not);
    if (active == g->mask) return STEP_ON;
    add_group(w, g->mask & ~active, g->pc + 1);
    g->mask = active;
    return STEP_REGROUP;
}

static Step run_exit(Warp *w, Group *g)
{
    w->live &= ~g->mask;
    g->mask = 0;
    for (int i = 0; i < w->n_groups; i++) w->groups[i].state = GROUP_READY;
    return STEP_REGROUP;
}

static Step run_barrier(Warp *w, const Insn *in, Group *g)
{
    if (g->mask != w->live) {
        g->state = GROUP_PARKED;
        return STEP_REGROUP;
    }
    w->is_at_barrier = true;
    w->barrier = in;
    g->pc++;
    return STEP_BARRIER;
}

static Step run_special(Warp *w, const Insn *in, Group *g)
{
    if (in->kind == INSN_BRANCH) return run_branch(w, in, g);
    if (in->has_guard) {
        Step step = split_guarded(w, in, g);
        if (step != STEP_ON) return step;
    }
    switch ((InsnKind)in->kind) {
    case INSN_SYNC:
        if (!run_sync(w, in, g->mask)) {
            g->state = GROUP_PARKED;
            return STEP_REGROUP;
        }
        warp_set_mask(w, g->mask);
        w->is_forced = false;
        g->pc++;
        return STEP_ON;
    case INSN_BAR: return run_barrier(w, in, g);
    case INSN_EXIT: return run_exit(w, g);
    case INSN_TRAP:
        report_lane(w, in, __builtin_ctz(g->mask), REPORT_TRAP, "the kernel executes trap");
        w->block->is_failed = true;
        return STEP_FAILED;
    case INSN_PLAIN:
    case INSN_BRANCH: break;
    }
    return STEP_FAILED;
}

/* One group, until it meets another, parks, or its slice ends. */
static Step run_group(Warp *w, Group *g)
{
    const Insn *insns = w->block->code->insns.at;
    bool is_alone = w->n_groups == 0;
    w->last = -1;
    warp_set_mask(w, g->mask);
    for (int n = 0; n < SLICE; n++) {
        const Insn *in = &insns[g->pc];
        if (in->kind == INSN_PLAIN) {
            run_plain(w, in, g->mask);
            g->pc++;
        } else {
            Step step = run_special(w, in, g);
            if (step != STEP_ON) return step;
        }
        if (!is_alone && is_other_at(w, g->pc)) return STEP_REGROUP;
    }
    w->last = g->pc;
    return STEP_SPENT;
}

WarpStop warp_run(Warp *w)
{
    while (w->live) {
        int i = pick_group(w);
        if (i < 0) {
            if (!resolve_parked(w)) return WARP_FAILED;
            continue;
        }
        Group g = take_group(w, i);
        Step step = run_group(w, &g);
        if (step == STEP_FAILED || w->block->is_failed) return WARP_FAILED;
        if (g.mask && g.state == GROUP_PARKED)
            w->groups[w->n_groups++] = g;
        else if (g.mask)
            add_group(w, g.mask, g.pc);
        if (step == STEP_BARRIER) return WARP_BARRIER;
        if (step == STEP_SPENT) return WARP_SPENT;
    }
    return WARP_DONE;
}

void warp_start(Warp *w, uint32_t n_threads)
{
    uint32_t first = w->number * LANES, n = n_threads - first;
    w->live = n >= LANES ? UINT32_MAX : (1u << n) - 1;
    w->n_groups = 0;
    w->is_forced = w->is_at_barrier = false;
    w->last = -1;
    w->copies.n = 0;
    w->products.n = 0;
    w->n_product_batches = 0;
    w->is_product_fenced = false;
    memset(w->n_batches, 0, sizeof w->n_batches);
    add_group(w, w->live, 0);
}
