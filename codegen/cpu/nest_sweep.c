/* nest_sweep.c -- one pass over the RED loops of a block: accumulators, the fixed tree that adds
 * them, per-element stores. */
#include <string.h>

#include "codegen/cpu/nest.h"

uint32_t nest_loop_bits(const int *loops, int n)
{
    uint32_t bits = 0;
    for (int i = 0; i < n; i++) bits |= 1u << loops[i];
    return bits;
}

static bool is_elem_store(const Store *s)
{
    return s->level == LV_ELEM;
}

uint32_t nest_roots(const NestPlan *p, uint32_t stage, int32_t *out, uint64_t *stores)
{
    const Kernel *k = p->k;
    uint32_t n = 0;
    *stores = 0;
    for (uint32_t i = 0; i < p->n_reduce; i++) {
        const Node *r = &k->nodes[p->reduce[i]];
        if ((uint32_t)r->stage == stage) out[n++] = r->arg[0];
    }
    for (uint32_t i = 0; i < k->n_stores; i++) {
        const Store *s = &k->stores[i];
        if (is_elem_store(s) ? stage != p->n_stages - 1 : stage != p->n_stages) continue;
        out[n++] = s->node;
        if (s->to.dyn >= 0) out[n++] = s->to.dyn;
        if (i < 64) *stores |= 1ull << i;
    }
    return n;
}

/* ---- along the vector loop ---- */

CpuEval nest_slot(const NestPlan *p, const CpuEval *e, const NestStep *s, int u)
{
    CpuEval f = cpu_eval_fork(e);
    f.vec_loop = p->vec;
    f.lanes = s->lanes;
    f.mask = s->mask;
    f.index[p->vec] = cpu_mad(e->m, cpu_i64(e->m, 1), (int64_t)u * s->lanes, s->index);
    return f;
}

static void step_loop(CpuModule *m, LLVMValueRef lo, LLVMValueRef hi, NestStep s, bool is_masked,
                      LLVMValueRef *carried, uint32_t n_carried, NestStepFn body, void *user)
{
    CpuLoop l = cpu_loop_begin(m, lo, hi, (int64_t)s.n_slots * s.lanes, carried, n_carried);
    if (n_carried) memcpy(carried, l.carried, n_carried * sizeof *carried);
    s.index = l.index;
    if (is_masked) s.mask = cpu_tail_mask(m, l.index, hi, s.lanes);
    body(user, &s, carried);
    cpu_loop_end(m, &l, carried);
    if (n_carried) memcpy(carried, l.carried, n_carried * sizeof *carried);
}

/* lo + the largest multiple of step that fits */
static LLVMValueRef whole_steps(CpuModule *m, LLVMValueRef lo, LLVMValueRef hi, int64_t step)
{
    LLVMValueRef n = LLVMBuildNSWSub(m->b, hi, lo, "");
    n = LLVMBuildUDiv(m->b, n, cpu_i64(m, step), "");
    return cpu_mad(m, n, step, lo);
}

void nest_along(const NestPlan *p, CpuModule *m, LLVMValueRef lo, LLVMValueRef hi,
                LLVMValueRef *carried, uint32_t n_carried, NestStepFn body, void *user)
{
    int64_t extent = p->k->loops[p->vec].extent;
    int64_t step = (int64_t)p->lanes * p->unroll;
    NestStep s = {.n_slots = p->unroll, .lanes = p->lanes};
    LLVMValueRef main_end = extent >= step ? whole_steps(m, lo, hi, step) : lo;
    if (extent >= step) step_loop(m, lo, main_end, s, false, carried, n_carried, body, user);
    int64_t rest = extent % step;
    if (rest == 0) return;
    s.n_slots = 1;
    if (p->lanes > 1 && p->target->has_avx512) {
        step_loop(m, main_end, hi, s, rest % p->lanes != 0, carried, n_carried, body, user);
        return;
    }
    LLVMValueRef end = rest >= p->lanes ? whole_steps(m, main_end, hi, p->lanes) : main_end;
    if (rest >= p->lanes) step_loop(m, main_end, end, s, false, carried, n_carried, body, user);
    if (rest % p->lanes == 0) return;
    s.lanes = 1;
    s.is_scalar_tail = true;
    step_loop(m, end, hi, s, false, carried, n_carried, body, user);
}

/* ---- accumulators ---- */

static LLVMValueRef identity(CpuModule *m, const Node *reduce, int lanes)
{
    DType dt = nest_acc_dtype(reduce->dtype);
    LLVMTypeRef t = cpu_reg_type(m, dt, 1);
    LLVMValueRef v = LLVMConstNull(t);
    if (reduce->op == OP_REDUCE_MAX && dtype_class(dt) == DTC_FLOAT)
        v = LLVMConstReal(t, -__builtin_inf());
    else if (reduce->op == OP_REDUCE_MAX && dt == DT_I32)
        v = cpu_i32(m, INT32_MIN);
    return cpu_splat(m, v, lanes);
}

LLVMValueRef nest_combine(CpuModule *m, const Node *reduce, LLVMValueRef a, LLVMValueRef b)
{
    DType dt = nest_acc_dtype(reduce->dtype);
    LLVMValueRef in[] = {a, b};
    OpCode op = reduce->op == OP_REDUCE_SUM ? OP_ADD : OP_MAX;
    if (dt == DT_I1) op = OP_OR; /* any: the one reduction of truth values */
    return cpu_emit_point(m, op, dt, dt, in);
}

/* Adds the lanes: halves onto halves. */
static LLVMValueRef add_lanes(CpuModule *m, const Node *reduce, LLVMValueRef v)
{
    LLVMValueRef at[64];
    LLVMTypeRef t = LLVMTypeOf(v);
    if (reduce->dtype == DT_I1 && cpu_lanes(v) > 1) /* shuffles of mask registers are slow */
        return cpu_intrinsic(m, "llvm.vector.reduce.or", &t, 1, &v, 1);
    for (int lanes = cpu_lanes(v); lanes > 1; lanes /= 2) {
        int half = lanes / 2;
        if (half == 1) {
            LLVMValueRef lo = LLVMBuildExtractElement(m->b, v, cpu_i32(m, 0), "");
            LLVMValueRef hi = LLVMBuildExtractElement(m->b, v, cpu_i32(m, 1), "");
            return nest_combine(m, reduce, lo, hi);
        }
        LLVMValueRef part[2];
        for (int h = 0; h < 2; h++) {
            for (int i = 0; i < half; i++) at[i] = cpu_i32(m, h * half + i);
            LLVMValueRef mask = LLVMConstVector(at, (unsigned)half);
            part[h] = LLVMBuildShuffleVector(m->b, v, LLVMGetPoison(LLVMTypeOf(v)), mask, "");
        }
        v = nest_combine(m, reduce, part[0], part[1]);
    }
    return v;
}

typedef struct Sweep {
    const NestPlan *p;
    NestBlock *b;
    CpuModule *m;
    uint32_t stage;
    const Node *reduce[KERNEL_MAX_ARGS];
    uint32_t n_reduce;
    int n_sets;                        /* of accumulators: slots, or unroll + 1 for a scalar tail */
    LLVMValueRef acc[CPU_MAX_CARRIED]; /* [set][reduce] */
    CpuEval *row;                      /* eval of the row, lanes along RED */
} Sweep;

static void sweep_stores(Sweep *s, CpuEval *e)
{
    const Kernel *k = s->p->k;
    if (s->stage != s->p->n_stages - 1) return;
    /* all values before the first store: an output may lie on an input */
    for (uint32_t i = 0; i < k->n_stores; i++)
        if (is_elem_store(&k->stores[i])) cpu_emit_node(e, k->stores[i].node);
    for (uint32_t i = 0; i < k->n_stores; i++)
        if (is_elem_store(&k->stores[i]))
            cpu_emit_store(e, &k->stores[i], e->value[k->stores[i].node]);
}

/* One point (or vector of points) of the sweep. */
static void sweep_point(Sweep *s, CpuEval *e, LLVMValueRef *acc)
{
    for (uint32_t i = 0; i < s->n_reduce; i++) {
        LLVMValueRef v = cpu_emit_node_lanes(e, s->reduce[i]->arg[0]);
        LLVMValueRef next = nest_combine(s->m, s->reduce[i], acc[i], v);
        if (e->mask && s->p->vec_is_red) next = LLVMBuildSelect(s->m->b, e->mask, next, acc[i], "");
        acc[i] = next;
    }
    sweep_stores(s, e);
}

static void sweep_step(void *user, const NestStep *step, LLVMValueRef *carried)
{
    Sweep *s = user;
    for (int u = 0; u < step->n_slots; u++) {
        CpuEval e = nest_slot(s->p, s->row, step, u);
        int set = step->is_scalar_tail ? s->p->unroll : u;
        sweep_point(s, &e, carried + (uint32_t)set * s->n_reduce);
    }
}

static void loop_range(const Sweep *s, int loop, LLVMValueRef *lo, LLVMValueRef *hi)
{
    bool is_cut = s->p->n_chunks > 1 && loop == s->p->split;
    *lo = is_cut ? s->b->split_lo : cpu_i64(s->m, 0);
    *hi = is_cut ? s->b->split_hi : cpu_i64(s->m, s->p->k->loops[loop].extent);
}

/* The innermost body: along the vector loop, or one point per slot. */
static void sweep_inner(Sweep *s, CpuEval *slot, int n)
{
    if (s->p->vec_is_red) {
        LLVMValueRef lo, hi;
        loop_range(s, s->p->vec, &lo, &hi);
        s->row = &slot[0];
        nest_along(s->p, s->m, lo, hi, s->acc, (uint32_t)s->n_sets * s->n_reduce, sweep_step, s);
        return;
    }
    for (int u = 0; u < n; u++) sweep_point(s, &slot[u], s->acc + (uint32_t)u * s->n_reduce);
}

static void sweep_loops(Sweep *s)
{
    const NestPlan *p = s->p;
    NestBlock *b = s->b;
    int32_t roots[2048];
    uint64_t stores;
    ZM_CHECK(2 * p->k->n_stores + p->n_reduce <= 2048);
    uint32_t n_roots = nest_roots(p, s->stage, roots, &stores);
    uint32_t known = nest_loop_bits(p->rows, p->n_rows);
    if (p->vec >= 0 && !p->vec_is_red) known |= 1u << p->vec;
    uint32_t n_acc = (uint32_t)s->n_sets * s->n_reduce;
    CpuEval slot[NEST_MAX_UNROLL];
    for (int u = 0; u < b->n; u++) {
        cpu_eval_hoist(&b->slot[u], roots, n_roots, stores, known);
        slot[u] = b->slot[u];
    }
    CpuLoop loops[KERNEL_MAX_LOOPS];
    for (int i = 0; i < p->n_reds; i++) {
        LLVMValueRef lo, hi;
        loop_range(s, p->reds[i], &lo, &hi);
        loops[i] = cpu_loop_begin(s->m, lo, hi, 1, s->acc, n_acc);
        if (n_acc) memcpy(s->acc, loops[i].carried, n_acc * sizeof *s->acc);
        known |= 1u << p->reds[i];
        bool is_inner = i == p->n_reds - 1 && !p->vec_is_red;
        for (int u = 0; u < b->n; u++) {
            slot[u] = cpu_eval_fork(&slot[u]);
            slot[u].index[p->reds[i]] = loops[i].index;
            if (!is_inner) cpu_eval_hoist(&slot[u], roots, n_roots, stores, known);
        }
    }
    sweep_inner(s, slot, b->n);
    for (int i = p->n_reds; i-- > 0;) {
        cpu_loop_end(s->m, &loops[i], s->acc);
        if (n_acc) memcpy(s->acc, loops[i].carried, n_acc * sizeof *s->acc);
    }
}

/* Accumulators of a row with lanes along RED: sets as a tree, lanes as a tree, the scalar tail
 * last. */
static LLVMValueRef row_total(Sweep *s, uint32_t i)
{
    const Node *r = s->reduce[i];
    LLVMValueRef set[NEST_MAX_UNROLL];
    for (int u = 0; u < s->p->unroll; u++) set[u] = s->acc[(uint32_t)u * s->n_reduce + i];
    for (int n = s->p->unroll; n > 1; n /= 2)
        for (int u = 0; u < n / 2; u++) set[u] = nest_combine(s->m, r, set[u], set[u + n / 2]);
    LLVMValueRef v = add_lanes(s->m, r, set[0]);
    if (s->n_sets > s->p->unroll)
        v = nest_combine(s->m, r, v, s->acc[(uint32_t)s->p->unroll * s->n_reduce + i]);
    return v;
}

static int count_sets(const NestPlan *p, const NestBlock *b)
{
    if (!p->vec_is_red) return b->n;
    bool has_tail = p->lanes > 1 && !p->target->has_avx512 && p->k->loops[p->vec].extent % p->lanes;
    return p->unroll + (has_tail ? 1 : 0);
}

void nest_sweep(const NestPlan *p, NestBlock *b, uint32_t stage)
{
    Sweep s = {.p = p, .b = b, .m = b->slot[0].m, .stage = stage};
    int32_t node[KERNEL_MAX_ARGS];
    for (uint32_t i = 0; i < p->n_reduce; i++) {
        const Node *r = &p->k->nodes[p->reduce[i]];
        if ((uint32_t)r->stage != stage) continue;
        ZM_CHECK(s.n_reduce < KERNEL_MAX_ARGS);
        node[s.n_reduce] = p->reduce[i];
        s.reduce[s.n_reduce++] = r;
    }
    bool has_stores = stage == p->n_stages - 1 && p->has_elem_stores;
    if (!s.n_reduce && !has_stores) return;
    s.n_sets = count_sets(p, b);
    ZM_CHECK((uint32_t)s.n_sets * s.n_reduce <= CPU_MAX_CARRIED);
    for (int set = 0; set < s.n_sets; set++) {
        int lanes = !p->vec_is_red ? b->slot[set].lanes : set < p->unroll ? p->lanes : 1;
        for (uint32_t i = 0; i < s.n_reduce; i++)
            s.acc[(uint32_t)set * s.n_reduce + i] = identity(s.m, s.reduce[i], lanes);
    }
    sweep_loops(&s);
    for (uint32_t i = 0; i < s.n_reduce; i++)
        for (int u = 0; u < b->n; u++)
            b->slot[u].value[node[i]] =
                p->vec_is_red ? row_total(&s, i) : s.acc[(uint32_t)u * s.n_reduce + i];
}
