/* value.c -- the scalar nodes of a kernel as LLVM values: memo, addresses, guards, loads and
 * stores. */
#include <string.h>

#include "codegen/cpu/cpu.h"

/* base + sum over the loops in `loops` of stride * index, i64 */
typedef struct CpuPartial {
    LLVMValueRef sum;
    uint32_t loops;
} CpuPartial;

CpuEval cpu_eval_new(CpuModule *m, const Kernel *k)
{
    CpuEval e = {.m = m, .k = k, .vec_loop = -1, .lanes = 1};
    e.bufs = ARENA_ARRAY(m->arena, LLVMValueRef, k->n_args + 1);
    for (uint32_t i = 0; i < k->n_args; i++) e.bufs[i] = cpu_buffer(m, i);
    e.value = ARENA_ARRAY(m->arena, LLVMValueRef, k->n_nodes + 1);
    e.partial = ARENA_ARRAY(m->arena, CpuPartial, k->n_accesses + k->n_stores + 1);
    return e;
}

CpuEval cpu_eval_fork(const CpuEval *e)
{
    CpuEval f = *e;
    const Kernel *k = e->k;
    size_t n_partial = k->n_accesses + k->n_stores;
    f.value = ARENA_ARRAY(e->m->arena, LLVMValueRef, k->n_nodes + 1);
    memcpy(f.value, e->value, k->n_nodes * sizeof *f.value);
    f.partial = ARENA_ARRAY(e->m->arena, CpuPartial, n_partial + 1);
    memcpy(f.partial, e->partial, n_partial * sizeof *f.partial);
    return f;
}

/* ---- addresses ---- */

/* Which partial an access has: loads by index, stores behind them; NULL for an access of neither
 * table. */
static CpuPartial *access_partial(CpuEval *e, const Access *x)
{
    const Kernel *k = e->k;
    for (uint32_t i = 0; i < k->n_stores; i++)
        if (x == &k->stores[i].to) return &e->partial[k->n_accesses + i];
    if (k->n_accesses && x >= k->accesses && x < k->accesses + k->n_accesses)
        return &e->partial[x - k->accesses];
    return NULL;
}

static CpuPartial partial_extend(CpuEval *e, const Access *x, CpuPartial p, uint32_t known)
{
    if (!p.sum) p.sum = cpu_i64(e->m, x->base);
    for (uint32_t d = 0; d < e->k->n_loops; d++) {
        uint32_t bit = 1u << d;
        if ((p.loops & bit) || !(known & bit)) continue;
        if (x->stride[d] != 0) p.sum = cpu_mad(e->m, e->index[d], x->stride[d], p.sum);
        p.loops |= bit;
    }
    return p;
}

/* Elements from the argument's start, of lane 0 (i64, scalar; a vector when dyn varies along
 * vec_loop). */
static LLVMValueRef access_elem(CpuEval *e, const Access *x)
{
    CpuModule *m = e->m;
    CpuPartial *have = access_partial(e, x);
    CpuPartial p = partial_extend(e, x, have ? *have : (CpuPartial){0}, UINT32_MAX);
    if (x->dyn < 0) return p.sum;
    LLVMValueRef dyn = cpu_emit_node(e, x->dyn);
    int lanes = cpu_lanes(dyn);
    dyn = LLVMBuildSExt(m->b, dyn, cpu_vec_type(m->i64_t, lanes), "");
    if (x->dyn_stride != 1)
        dyn = LLVMBuildNSWMul(m->b, dyn, cpu_splat(m, cpu_i64(m, x->dyn_stride), lanes), "");
    return LLVMBuildNSWAdd(m->b, dyn, cpu_splat(m, p.sum, lanes), "");
}

static bool guard_fits_i32(const Kernel *k, const Guard *g)
{
    int64_t low = g->base, high = g->base;
    for (uint32_t d = 0; d < k->n_loops; d++) {
        int64_t span = g->stride[d] * (k->loops[d].extent - 1);
        if (span < 0)
            low += span;
        else
            high += span;
    }
    /* lanes behind the end of the vector loop count too */
    return low > INT32_MIN / 4 && high < INT32_MAX / 4 && g->lo > INT32_MIN / 4 &&
           g->hi < INT32_MAX / 4;
}

/* lo <= value < hi: i1, or a vector when it varies along the vector loop. */
static LLVMValueRef guard_holds(CpuEval *e, const Guard *g)
{
    CpuModule *m = e->m;
    LLVMValueRef sum = cpu_i64(m, g->base - g->lo);
    for (uint32_t d = 0; d < e->k->n_loops; d++)
        if (g->stride[d]) sum = cpu_mad(m, e->index[d], g->stride[d], sum);
    int64_t span = g->hi > g->lo ? g->hi - g->lo : 0;
    int64_t step = e->vec_loop >= 0 && e->lanes > 1 ? g->stride[e->vec_loop] : 0;
    if (step == 0) return LLVMBuildICmp(m->b, LLVMIntULT, sum, cpu_i64(m, span), "");
    LLVMTypeRef elem = guard_fits_i32(e->k, g) ? m->i32_t : m->i64_t;
    sum = LLVMBuildIntCast2(m->b, sum, elem, 1, "");
    LLVMValueRef lane = cpu_lane_ramp(m, elem, e->lanes, step);
    lane = LLVMBuildAdd(m->b, cpu_splat(m, sum, e->lanes), lane, "");
    LLVMValueRef limit = cpu_splat(m, LLVMConstInt(elem, (uint64_t)span, 1), e->lanes);
    return LLVMBuildICmp(m->b, LLVMIntULT, lane, limit, "");
}

static LLVMValueRef mask_and(CpuModule *m, LLVMValueRef a, LLVMValueRef b)
{
    if (!a || !b) return a ? a : b;
    int lanes = cpu_lanes(a) > cpu_lanes(b) ? cpu_lanes(a) : cpu_lanes(b);
    return LLVMBuildAnd(m->b, cpu_splat(m, a, lanes), cpu_splat(m, b, lanes), "");
}

/* Element offset per lane of an access that is not contiguous along the vector loop. */
static LLVMValueRef lane_elems(CpuEval *e, const Access *x, LLVMValueRef elem)
{
    int64_t step = x->stride[e->vec_loop];
    elem = cpu_splat(e->m, elem, e->lanes);
    if (step == 0) return elem;
    LLVMValueRef ramp = cpu_lane_ramp(e->m, e->m->i64_t, e->lanes, step);
    return LLVMBuildNSWAdd(e->m->b, elem, ramp, "");
}

/* ---- loads and stores ---- */

/* Where a vector reads: `elem` of the buffer, or the buffer's start when no lane is inside its
 * guards. A masked load of nothing at an unmapped address is right but takes an assist of hundreds
 * of cycles. */
static LLVMValueRef guarded_ptr(CpuEval *e, LLVMValueRef base, DType dt, LLVMValueRef elem,
                                LLVMValueRef inside)
{
    CpuModule *m = e->m;
    if (!inside) return cpu_elem_ptr(m, base, dt, elem);
    LLVMTypeRef t = LLVMTypeOf(inside);
    LLVMValueRef any = inside;
    if (cpu_lanes(inside) > 1) any = cpu_intrinsic(m, "llvm.vector.reduce.or", &t, 1, &inside, 1);
    elem = LLVMBuildSelect(m->b, any, elem, cpu_i64(m, 0), "");
    return LLVMBuildGEP2(m->b, cpu_mem_type(m, dt), base, &elem, 1, "");
}

static LLVMValueRef emit_load(CpuEval *e, const Access *x, DType dt)
{
    CpuModule *m = e->m;
    LLVMValueRef inside = NULL;
    for (uint32_t i = 0; i < x->n_guards; i++)
        inside = mask_and(m, inside, guard_holds(e, &x->guards[i]));
    LLVMValueRef elem = access_elem(e, x);
    LLVMValueRef base = e->bufs[x->arg];
    int64_t step = e->vec_loop >= 0 ? x->stride[e->vec_loop] : 0;
    bool is_dynamic = cpu_lanes(elem) > 1;
    bool varies = e->lanes > 1 && (step != 0 || is_dynamic || (inside && cpu_lanes(inside) > 1));
    if (!varies) return cpu_load(m, dt, cpu_elem_ptr(m, base, dt, elem), 1, inside);
    LLVMValueRef mask = mask_and(m, e->mask, inside ? cpu_splat(m, inside, e->lanes) : NULL);
    if (step == 1 && !is_dynamic)
        return cpu_load(m, dt, guarded_ptr(e, base, dt, elem, inside), e->lanes, mask);
    return cpu_gather(m, dt, base, lane_elems(e, x, elem), e->lanes, mask);
}

void cpu_emit_store(CpuEval *e, const Store *s, LLVMValueRef value)
{
    CpuModule *m = e->m;
    const Access *x = &s->to;
    DType dt = e->k->nodes[s->node].dtype;
    LLVMValueRef base = e->bufs[x->arg];
    LLVMValueRef elem = access_elem(e, x);
    int64_t step = e->vec_loop >= 0 && e->lanes > 1 ? x->stride[e->vec_loop] : 0;
    bool is_dynamic = cpu_lanes(elem) > 1;
    int lanes = step != 0 || is_dynamic ? e->lanes : 1;
    bool is_contiguous = step == 1 && !is_dynamic;
    LLVMValueRef mask = lanes > 1 ? e->mask : NULL;
    LLVMValueRef at = NULL;
    if (lanes == 1 || is_contiguous)
        at = cpu_elem_ptr(m, base, dt, elem);
    else
        elem = lane_elems(e, x, elem);
    if (s->mode == ST_ADD) {
        LLVMValueRef in[2];
        in[0] = at ? cpu_load(m, dt, at, lanes, mask) : cpu_gather(m, dt, base, elem, lanes, mask);
        in[1] = cpu_splat(m, value, lanes);
        value = cpu_emit_point(m, OP_ADD, dt, dt, in);
    }
    if (at)
        cpu_store(m, dt, value, at, lanes, mask);
    else
        cpu_scatter(m, dt, value, base, elem, lanes, mask);
}

/* ---- nodes ---- */

static LLVMValueRef emit_const(CpuModule *m, const Node *n)
{
    LLVMTypeRef t = cpu_reg_type(m, n->dtype, 1);
    if (dtype_class(n->dtype) == DTC_FLOAT) return LLVMConstReal(t, dtype_round(n->dtype, n->imm));
    if (n->dtype == DT_I1) return LLVMConstInt(t, n->imm != 0, 0);
    return LLVMConstInt(t, (uint64_t)(int64_t)n->imm, 1);
}

static LLVMValueRef emit_index(CpuEval *e, const Node *n)
{
    CpuModule *m = e->m;
    const Access *x = &e->k->accesses[n->index];
    LLVMValueRef v = LLVMBuildTrunc(m->b, access_elem(e, x), m->i32_t, "");
    int64_t step = e->vec_loop >= 0 && e->lanes > 1 ? x->stride[e->vec_loop] : 0;
    if (step == 0) return v;
    LLVMValueRef ramp = cpu_lane_ramp(m, m->i32_t, e->lanes, step);
    return LLVMBuildAdd(m->b, cpu_splat(m, v, e->lanes), ramp, "");
}

static LLVMValueRef emit_op(CpuEval *e, const Node *n)
{
    LLVMValueRef in[6];
    int lanes = 1;
    for (uint32_t i = 0; i < n->n_args; i++) {
        in[i] = e->value[n->arg[i]];
        if (cpu_lanes(in[i]) > lanes) lanes = cpu_lanes(in[i]);
    }
    DType in_dt = e->k->nodes[n->arg[n->n_args - 1]].dtype; /* of select: b and c */
    if (n->op == OP_CAST) return cpu_cast(e->m, in[0], in_dt, n->dtype);
    for (uint32_t i = 0; i < n->n_args; i++) in[i] = cpu_splat(e->m, in[i], lanes);
    return cpu_emit_point(e->m, n->op, n->dtype, in_dt, in);
}

static LLVMValueRef emit_one(CpuEval *e, const Node *n)
{
    switch (n->kind) {
    case KN_OP: return emit_op(e, n);
    case KN_CONST: return emit_const(e->m, n);
    case KN_LOAD: return emit_load(e, &e->k->accesses[n->index], n->dtype);
    case KN_INDEX: return emit_index(e, n);
    case KN_RANDOM: {
        LLVMValueRef in[8];
        for (int i = 0; i < 8; i++) in[i] = e->value[n->arg[i]];
        return cpu_random(e->m, in, in[4], in[5], &in[6]);
    }
    case KN_REDUCE: ZM_UNREACHABLE("reduction used before its sweep");
    case KN_ACC: return e->acc;
    }
    ZM_UNREACHABLE("node kind");
}

/* Nodes that a node is computed from: operands, and the row of a dynamic access. */
static uint32_t node_inputs(const Kernel *k, const Node *n, int32_t *out)
{
    if (n->kind == KN_REDUCE) return 0; /* comes from the memo */
    uint32_t n_out = 0;
    for (uint32_t i = 0; i < n->n_args; i++) out[n_out++] = n->arg[i];
    if (n->kind == KN_LOAD && k->accesses[n->index].dyn >= 0)
        out[n_out++] = k->accesses[n->index].dyn;
    return n_out;
}

/* Marks what must be computed for the nodes marked already; memoised ones end the walk. */
static void mark_needed(const CpuEval *e, bool *need, uint32_t n)
{
    for (uint32_t i = n; i-- > 0;) {
        int32_t in[8];
        if (!need[i] || e->value[i]) continue;
        uint32_t n_in = node_inputs(e->k, &e->k->nodes[i], in);
        for (uint32_t j = 0; j < n_in; j++) need[in[j]] = true;
    }
}

LLVMValueRef cpu_emit_node(CpuEval *e, int32_t node)
{
    if (e->value[node]) return e->value[node];
    Arena scratch = {0};
    bool *need = ARENA_ARRAY(&scratch, bool, node + 1);
    need[node] = true;
    mark_needed(e, need, (uint32_t)node + 1);
    for (int32_t i = 0; i <= node; i++)
        if (need[i] && !e->value[i]) e->value[i] = emit_one(e, &e->k->nodes[i]);
    arena_free(&scratch);
    return e->value[node];
}

LLVMValueRef cpu_emit_node_lanes(CpuEval *e, int32_t node)
{
    return cpu_splat(e->m, cpu_emit_node(e, node), e->lanes);
}

/* ---- hoisting ---- */

static uint32_t access_loops(const Kernel *k, const Access *x)
{
    uint32_t loops = 0;
    for (uint32_t d = 0; d < k->n_loops; d++) {
        if (x->stride[d]) loops |= 1u << d;
        for (uint32_t g = 0; g < x->n_guards; g++)
            if (x->guards[g].stride[d]) loops |= 1u << d;
    }
    return loops;
}

/* Can node i be computed now, given that its inputs can or cannot (ready)? */
static bool node_is_ready(const CpuEval *e, const bool *ready, uint32_t i, uint32_t known)
{
    const Node *n = &e->k->nodes[i];
    if (e->value[i]) return true;
    if (n->kind == KN_REDUCE || n->kind == KN_ACC) return false;
    int32_t in[8];
    uint32_t n_in = node_inputs(e->k, n, in);
    for (uint32_t j = 0; j < n_in; j++)
        if (!ready[in[j]]) return false;
    if (n->kind != KN_LOAD && n->kind != KN_INDEX) return true;
    return !(access_loops(e->k, &e->k->accesses[n->index]) & ~known);
}

void cpu_eval_hoist(CpuEval *e, const int32_t *nodes, uint32_t n, uint64_t stores, uint32_t known)
{
    const Kernel *k = e->k;
    Arena scratch = {0};
    bool *need = ARENA_ARRAY(&scratch, bool, k->n_nodes + 1);
    bool *ready = ARENA_ARRAY(&scratch, bool, k->n_nodes + 1);
    for (uint32_t i = 0; i < n; i++) need[nodes[i]] = true;
    mark_needed(e, need, k->n_nodes);
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        if (!need[i]) continue;
        const Node *node = &k->nodes[i];
        ready[i] = node_is_ready(e, ready, i, known);
        if (ready[i] && !e->value[i]) e->value[i] = emit_one(e, node);
        if (ready[i] || (node->kind != KN_LOAD && node->kind != KN_INDEX)) continue;
        CpuPartial *p = &e->partial[node->index];
        *p = partial_extend(e, &k->accesses[node->index], *p, known);
    }
    for (uint32_t i = 0; i < k->n_stores && i < 64; i++) {
        CpuPartial *p = &e->partial[k->n_accesses + i];
        if (stores >> i & 1) *p = partial_extend(e, &k->stores[i].to, *p, known);
    }
    arena_free(&scratch);
}
