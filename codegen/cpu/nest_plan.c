/* nest_plan.c -- chooses loops, lanes, tasks and chunks for a nest; see nest.h. */
#include <string.h>

#include "codegen/cpu/nest.h"

enum {
    TASK_WORK = 64 << 10,   /* bytes + flops / 2 that a task should be worth */
    MAX_TASKS = 512,        /* of one phase */
    SPLIT_WORK = 256 << 10, /* below this a few rows stay on one thread */
    MIN_TASKS = 8,          /* with fewer independent tasks a large sum is cut */
    MAX_CHUNKS = 32
};

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t round_up(int64_t a, int64_t to)
{
    return ceil_div(a, to) * to;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- loops ---- */

static void access_permute(Access *x, Arena *a, const int *from, uint32_t n)
{
    Access old = *x;
    Guard *guards = ARENA_ARRAY(a, Guard, old.n_guards + 1);
    memset(x->stride, 0, sizeof x->stride);
    for (uint32_t d = 0; d < n; d++) x->stride[d] = old.stride[from[d]];
    for (uint32_t g = 0; g < old.n_guards; g++) {
        guards[g] = old.guards[g];
        memset(guards[g].stride, 0, sizeof guards[g].stride);
        for (uint32_t d = 0; d < n; d++) guards[g].stride[d] = old.guards[g].stride[from[d]];
    }
    x->guards = guards;
}

/* New loop d is old loop from[d]; old loops that are not listed must have been joined or have
 * extent 1. */
static void kernel_permute(Kernel *k, Arena *a, const int *from, uint32_t n)
{
    Loop old[KERNEL_MAX_LOOPS];
    memcpy(old, k->loops, sizeof old);
    for (uint32_t d = 0; d < n; d++) k->loops[d] = old[from[d]];
    for (uint32_t i = 0; i < k->n_accesses; i++) access_permute(&k->accesses[i], a, from, n);
    for (uint32_t i = 0; i < k->n_stores; i++) access_permute(&k->stores[i].to, a, from, n);
    k->n_loops = n;
}

static Kernel *kernel_copy(Arena *a, const Kernel *k)
{
    Kernel *c = ARENA_NEW(a, Kernel);
    *c = *k;
    c->accesses = ARENA_ARRAY(a, Access, k->n_accesses + 1);
    c->stores = ARENA_ARRAY(a, Store, k->n_stores + 1);
    if (k->n_accesses) memcpy(c->accesses, k->accesses, k->n_accesses * sizeof *k->accesses);
    if (k->n_stores) memcpy(c->stores, k->stores, k->n_stores * sizeof *k->stores);
    return c;
}

static bool access_joins(const Access *x, uint32_t d, int64_t inner)
{
    if (x->stride[d] != x->stride[d + 1] * inner) return false;
    for (uint32_t g = 0; g < x->n_guards; g++)
        if (x->guards[g].stride[d] != x->guards[g].stride[d + 1] * inner) return false;
    return true;
}

/* Can loops d and d + 1 be one loop? */
static bool loops_join(const Kernel *k, uint32_t d)
{
    if (k->loops[d].kind != k->loops[d + 1].kind) return false;
    int64_t inner = k->loops[d + 1].extent;
    for (uint32_t i = 0; i < k->n_accesses; i++)
        if (!access_joins(&k->accesses[i], d, inner)) return false;
    for (uint32_t i = 0; i < k->n_stores; i++)
        if (!access_joins(&k->stores[i].to, d, inner)) return false;
    return true;
}

static void drop_loop(Kernel *k, Arena *a, uint32_t d)
{
    int from[KERNEL_MAX_LOOPS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < k->n_loops; i++)
        if (i != d) from[n++] = (int)i;
    kernel_permute(k, a, from, n);
}

static void join_loops(Kernel *k, Arena *a)
{
    for (uint32_t d = k->n_loops; d-- > 0;)
        if (k->loops[d].extent == 1) drop_loop(k, a, d);
    for (uint32_t d = k->n_loops; d-- > 1;) {
        if (!loops_join(k, d - 1)) continue;
        k->loops[d].extent *= k->loops[d - 1].extent;
        drop_loop(k, a, d - 1);
    }
}

static void par_before_red(Kernel *k, Arena *a)
{
    int from[KERNEL_MAX_LOOPS];
    uint32_t n = 0;
    for (int red = 0; red < 2; red++)
        for (uint32_t d = 0; d < k->n_loops; d++)
            if ((k->loops[d].kind == LOOP_RED) == (red == 1)) from[n++] = (int)d;
    kernel_permute(k, a, from, n);
}

static void plan_loops(NestPlan *p, Arena *a, const Kernel *k)
{
    p->k = kernel_copy(a, k);
    p->n_stages = k->n_stages ? k->n_stages : 1;
    p->reduce = ARENA_ARRAY(a, int32_t, k->n_nodes + 1);
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (k->nodes[i].kind == KN_REDUCE) p->reduce[p->n_reduce++] = (int32_t)i;
    for (uint32_t i = 0; i < k->n_stores; i++) {
        if (k->stores[i].level == LV_ELEM)
            p->has_elem_stores = true;
        else
            p->has_row_stores = true;
    }
    if (k->kind == KK_NEST && !p->n_reduce && !(p->has_row_stores && p->has_elem_stores))
        for (uint32_t d = 0; d < k->n_loops; d++) p->k->loops[d].kind = LOOP_PAR;
    par_before_red(p->k, a);
    join_loops(p->k, a);
}

/* ---- lanes ---- */

static bool is_guarded_along(const Access *x, uint32_t d)
{
    for (uint32_t g = 0; g < x->n_guards; g++)
        if (x->guards[g].stride[d] != 0) return true;
    return false;
}

/* How well an access of one vector goes along loop d: contiguous best, uniform free, strided bad.
 */
static int access_score(const Access *x, uint32_t d)
{
    if (x->arg < 0) return 0;
    if (x->stride[d] == 1) return is_guarded_along(x, d) ? 3 : 4;
    return x->stride[d] == 0 ? 0 : -8;
}

/* Elements that an access goes through; one that does not depend on a loop is hoisted out of it. */
static double access_elems(const Kernel *k, const Access *x)
{
    double elems = 1;
    for (uint32_t d = 0; d < k->n_loops; d++)
        if (x->stride[d] != 0 || x->dyn >= 0) elems *= (double)k->loops[d].extent;
    return elems;
}

static double loop_score(const NestPlan *p, uint32_t d)
{
    const Kernel *k = p->k;
    double score = 0, most = 0;
    for (uint32_t i = 0; i < k->n_accesses; i++) {
        double elems = access_elems(k, &k->accesses[i]);
        score += elems * access_score(&k->accesses[i], d);
        if (elems > most) most = elems;
    }
    for (uint32_t i = 0; i < k->n_stores; i++) {
        double elems = access_elems(k, &k->stores[i].to);
        score += 2 * elems * access_score(&k->stores[i].to, d);
        if (elems > most) most = elems;
    }
    if (k->loops[d].extent * 2 < p->target->vector_bytes / 4) score -= 12 * most; /* empty lanes */
    return score;
}

/* Is there a load along the vector loop that would need a mask the target lacks? */
static bool needs_missing_mask(const NestPlan *p)
{
    const Kernel *k = p->k;
    if (p->target->has_avx512) return false;
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        const Node *n = &k->nodes[i];
        if (n->kind != KN_LOAD || !is_guarded_along(&k->accesses[n->index], (uint32_t)p->vec))
            continue;
        if (!p->target->has_avx2 || dtype_bytes(n->dtype) < 4) return true;
    }
    return false;
}

static int node_cost(const Node *n)
{
    switch (n->kind) {
    case KN_OP: {
        int flops = op_info(n->op)->cost_flops;
        return flops > 0 ? flops : 1;
    }
    case KN_LOAD:
    case KN_REDUCE: return 1;
    case KN_RANDOM: return 60;
    case KN_CONST:
    case KN_INDEX:
    case KN_ACC: return 0;
    }
    ZM_UNREACHABLE("node kind");
}

static int body_cost(const Kernel *k)
{
    int cost = 0;
    for (uint32_t i = 0; i < k->n_nodes; i++) cost += node_cost(&k->nodes[i]);
    return cost + (int)k->n_stores;
}

/* Loads that take one vector of scalar address arithmetic each are not worth unrolling; small
 * bodies are. */
static int choose_unroll(const NestPlan *p)
{
    int cost = body_cost(p->k);
    int unroll = cost <= 12 ? 4 : cost <= 40 ? 2 : 1;
    while (unroll > 1 && (int)p->n_reduce * unroll > 8) unroll /= 2;
    while (unroll > 1 && p->k->loops[p->vec].extent < (int64_t)unroll * p->lanes) unroll /= 2;
    return unroll;
}

static void plan_lanes(NestPlan *p)
{
    const Kernel *k = p->k;
    p->vec = -1;
    p->lanes = p->unroll = 1;
    double best = 0;
    for (uint32_t d = 0; d < k->n_loops; d++) {
        if (k->kind == KK_SCATTER && k->loops[d].kind == LOOP_RED) continue;
        double score = loop_score(p, d);
        if (p->vec < 0 || score >= best) p->vec = (int)d, best = score;
    }
    if (p->vec >= 0) {
        p->vec_is_red = k->loops[p->vec].kind == LOOP_RED;
        if (!needs_missing_mask(p)) p->lanes = p->target->vector_bytes / 4;
        p->unroll = choose_unroll(p);
    }
    for (uint32_t d = 0; d < k->n_loops; d++) {
        if ((int)d == p->vec) continue;
        if (k->loops[d].kind == LOOP_RED)
            p->reds[p->n_reds++] = (int)d;
        else
            p->rows[p->n_rows++] = (int)d;
    }
}

/* ---- tasks ---- */

static double access_bytes(const Kernel *k, const Access *x, DType dt)
{
    return x->arg < 0 ? 0 : access_elems(k, x) * (double)dtype_bytes(dt);
}

static int64_t kernel_work(const Kernel *k)
{
    double bytes = 0, points = 1;
    for (uint32_t d = 0; d < k->n_loops; d++) points *= (double)k->loops[d].extent;
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (k->nodes[i].kind == KN_LOAD)
            bytes += access_bytes(k, &k->accesses[k->nodes[i].index], k->nodes[i].dtype);
    for (uint32_t i = 0; i < k->n_stores; i++)
        bytes += access_bytes(k, &k->stores[i].to, k->nodes[k->stores[i].node].dtype);
    double work = bytes + points * body_cost(k) / 2;
    return work < 1 ? 1 : work > 1e18 ? (int64_t)1e18 : (int64_t)work;
}

static void plan_tasks(NestPlan *p)
{
    const Kernel *k = p->k;
    p->work = kernel_work(k);
    int64_t want = min64(ceil_div(p->work, TASK_WORK), MAX_TASKS);
    p->n_row = p->cols = 1;
    for (int i = 0; i < p->n_rows; i++) p->n_row *= k->loops[p->rows[i]].extent;
    if (p->vec >= 0 && !p->vec_is_red) p->cols = k->loops[p->vec].extent;
    p->rows_per_task = ceil_div(p->n_row, min64(want, p->n_row));
    p->n_row_tasks = ceil_div(p->n_row, p->rows_per_task);
    int64_t col_tasks = p->rows_per_task > 1 ? 1 : ceil_div(want, p->n_row);
    int64_t step = p->cols > 1 ? (int64_t)p->lanes * p->unroll : 1;
    p->cols_per_task = min64(round_up(ceil_div(p->cols, col_tasks), step), p->cols);
    p->n_col_tasks = ceil_div(p->cols, p->cols_per_task);
}

DType nest_acc_dtype(DType dt)
{
    return dt == DT_BF16 || dt == DT_F16 ? DT_F32 : dt;
}

static void plan_chunks(NestPlan *p, Arena *a)
{
    p->n_chunks = 1;
    p->split = -1;
    p->partial_offset = ARENA_ARRAY(a, int64_t, p->n_reduce + 1);
    int64_t n_tasks = p->n_row_tasks * p->n_col_tasks;
    uint32_t n_phases = p->n_stages + (p->has_row_stores ? 1 : 0);
    if (!p->n_reduce || p->k->kind != KK_NEST || n_tasks >= MIN_TASKS || p->work < SPLIT_WORK ||
        n_phases > ZMP_MAX_PHASES)
        return;
    int split = p->n_reds ? p->reds[0] : p->vec;
    int64_t extent = p->k->loops[split].extent;
    int64_t unit = split == p->vec ? (int64_t)p->lanes * p->unroll : 1;
    int64_t want = min64(ceil_div(p->work, TASK_WORK * n_tasks), MAX_CHUNKS);
    int64_t chunk = round_up(ceil_div(extent, want), unit);
    if (chunk >= extent) return;
    p->split = split;
    p->chunk = chunk;
    p->n_chunks = ceil_div(extent, chunk);
    for (uint32_t i = 0; i < p->n_reduce; i++) {
        DType dt = nest_acc_dtype(p->k->nodes[p->reduce[i]].dtype);
        p->partial_offset[i] = p->workspace_bytes;
        p->workspace_bytes +=
            round_up(p->n_chunks * p->n_row * p->cols * dtype_bytes(dt), ZMP_ALIGN);
    }
}

NestPlan nest_plan(Arena *a, const CpuTarget *t, const Kernel *k)
{
    NestPlan p = {.target = t};
    plan_loops(&p, a, k);
    plan_lanes(&p);
    plan_tasks(&p);
    plan_chunks(&p, a);
    return p;
}
