/* contract.c -- kernels `contract`: the functions of a scheduled product (contract_plan.c).
 *
 *   phase pack     (resident operand shared)  packs panels into the workspace
 *   phase main     per block of K: packs the task's chunk, multiplies it by every resident panel of
 * its block into its accumulators; then the epilogue, or partial sums in the workspace when K is
 * split phase reduce   (K split)  adds the partial sums in order, then the epilogue
 *
 * Sums run over k in ascending order with one FMA per product, whatever tile computes them.
 */
#include "codegen/cpu/contract.h"

typedef struct Emit {
    CpuModule *m;
    const ContractPlan *p;
    DType dt; /* of the accumulator */
    CpuEval e;
    LLVMValueRef workspace;
    LLVMValueRef batch; /* flat index */
} Emit;

static LLVMValueRef at_byte(Emit *x, LLVMValueRef base, LLVMValueRef bytes)
{
    return LLVMBuildInBoundsGEP2(x->m->b, x->m->i8_t, base, &bytes, 1, "");
}

static LLVMValueRef scratch_at(Emit *x, int64_t bytes)
{
    return at_byte(x, x->m->scratch, cpu_i64(x->m, bytes));
}

static Emit emit_begin(CpuModule *m, const ContractPlan *p, const char *fn)
{
    cpu_function_begin(m, fn);
    Emit x = {.m = m, .p = p, .dt = p->tile.dt, .e = cpu_eval_new(m, p->k)};
    if (p->workspace_bytes) x.workspace = cpu_buffer(m, p->k->n_args);
    return x;
}

static void set_batch(Emit *x, LLVMValueRef batch)
{
    x->batch = batch;
    mm_axis_set(&x->e, &x->p->batch, batch);
}

/* ---- packing ---- */

/* Panels of an operand: elements from x0, nx of them, over k from k0, kc of them. */
typedef struct Panels {
    const MmOperand *o;
    LLVMValueRef x0, nx, k0, kc, dst;
} Panels;

/* Where an access starts in the batch's current element. */
static LLVMValueRef batch_elem(Emit *x, const Access *to)
{
    LLVMValueRef elem = cpu_i64(x->m, to->base);
    for (int i = 0; i < x->p->batch.n; i++) {
        int loop = x->p->batch.loop[i];
        elem = cpu_mad(x->m, x->e.index[loop], to->stride[loop], elem);
    }
    return elem;
}

/* Address of element (x0, k0) of a plain operand, and the elements between its rows in memory. */
static LLVMValueRef direct_at(Emit *x, const MmOperand *o, LLVMValueRef x0, LLVMValueRef k0)
{
    LLVMValueRef elem = cpu_mad(x->m, x0, o->x_stride, batch_elem(x, o->direct));
    elem = cpu_mad(x->m, k0, o->k_stride * x->p->k_unit, elem);
    return cpu_elem_ptr(x->m, x->e.bufs[o->direct->arg], o->dtype, elem);
}

static int64_t direct_ld(const MmOperand *o)
{
    return o->is_transposed ? o->x_stride : o->k_stride;
}

/* Elements of K in the kc elements of panels from k0 on. */
static LLVMValueRef source_kc(Emit *x, LLVMValueRef k0, LLVMValueRef kc)
{
    CpuModule *m = x->m;
    const ContractPlan *p = x->p;
    LLVMValueRef n = mm_mul(m, kc, p->k_unit);
    if (p->red.total % p->k_unit == 0) return n;
    n = mm_min(m, n, mm_sub(m, cpu_i64(m, p->red.total), mm_mul(m, k0, p->k_unit)));
    return mm_max(m, cpu_i64(m, 0), n);
}

static LLVMValueRef pack_of(Emit *x, const MmOperand *o, DType from)
{
    const ContractPlan *p = x->p;
    MmPack how = {.from = from,
                  .to = x->dt,
                  .is_pairs = p->tile.is_pairs,
                  .has_half = p->red.total % p->k_unit != 0,
                  .width = o->width,
                  .is_transposed = o->is_transposed};
    return mm_pack(x->m, &how);
}

static void pack_direct(Emit *x, const Panels *q)
{
    CpuModule *m = x->m;
    const MmOperand *o = q->o;
    mm_pack_call(m, pack_of(x, o, o->dtype), direct_at(x, o, q->x0, q->k0),
                 cpu_i64(m, direct_ld(o)), q->nx, source_kc(x, q->k0, q->kc), q->dst,
                 cpu_i64(m, o->width * x->p->kc_pad));
}

typedef struct SweepOut {
    Emit *x;
    int32_t node;
    DType dt; /* of dst */
    LLVMValueRef dst;
    int64_t ld;
} SweepOut;

static void prologue_body(CpuEval *e, LLVMValueRef r, LLVMValueRef c, void *user)
{
    const SweepOut *s = user;
    LLVMValueRef v = cpu_emit_node_lanes(e, s->node);
    v = cpu_cast(e->m, v, e->k->nodes[s->node].dtype, s->dt);
    cpu_store(e->m, s->dt, v, cpu_elem_ptr(e->m, s->dst, s->dt, cpu_mad(e->m, r, s->ld, c)),
              e->lanes, e->mask);
}

/* Evaluates the operand's expression: straight into the panel, or into a row-major block that is
 * then transposed or joined in pairs. */
static void pack_prologue(Emit *x, const Panels *q)
{
    CpuModule *m = x->m;
    const ContractPlan *p = x->p;
    const MmOperand *o = q->o;
    DType dt = p->tile.is_pairs ? DT_BF16 : x->dt;
    LLVMValueRef k0 = mm_mul(m, q->k0, p->k_unit), kc = source_kc(x, q->k0, q->kc);
    SweepOut out = {.x = x, .node = o->node, .dt = dt, .dst = q->dst, .ld = o->width};
    MmSweep s = {.rows = &p->red,
                 .cols = o->axis,
                 .r0 = k0,
                 .nr = kc,
                 .c0 = q->x0,
                 .nc = q->nx,
                 .nc_multiple = 1};
    s.lanes = o->width < p->lanes ? o->width : p->lanes;
    if (o->axis->total % s.lanes == 0) s.nc_multiple = s.lanes;
    if (o->is_transposed) {
        s = (MmSweep){.rows = o->axis,
                      .cols = &p->red,
                      .r0 = q->x0,
                      .nr = q->nx,
                      .c0 = k0,
                      .nc = kc,
                      .lanes = p->lanes};
        s.nc_multiple =
            p->red.total % p->lanes == 0 && p->kc % p->lanes == 0 && p->split % p->lanes == 0
                ? p->lanes
                : 1;
        out.ld = p->kc_pad * p->k_unit;
    }
    bool has_temp = o->is_transposed || p->tile.is_pairs;
    if (has_temp) out.dst = scratch_at(x, p->temp_at);
    s.nodes = &o->node;
    s.n_nodes = 1;
    s.known = mm_axis_bits(&p->batch);
    mm_sweep(&x->e, &s, prologue_body, &out);
    if (!has_temp) return;
    mm_pack_call(m, pack_of(x, o, dt), out.dst, cpu_i64(m, out.ld), q->nx, kc, q->dst,
                 cpu_i64(m, 0));
}

/* Packs panels [lo, hi) of an operand behind each other from dst: all at once, or one by one when
 * they are computed. */
static void pack_panels(Emit *x, const MmOperand *o, LLVMValueRef lo, LLVMValueRef hi,
                        LLVMValueRef k0, LLVMValueRef kc, LLVMValueRef dst)
{
    CpuModule *m = x->m;
    LLVMValueRef total = cpu_i64(m, o->axis->total), width = cpu_i64(m, o->width);
    Panels q = {.o = o, .x0 = mm_mul(m, lo, o->width), .k0 = k0, .kc = kc, .dst = dst};
    if (o->direct) {
        q.nx = mm_sub(m, mm_min(m, mm_mul(m, hi, o->width), total), q.x0);
        pack_direct(x, &q);
        return;
    }
    CpuLoop l = cpu_loop_begin(m, lo, hi, 1, &dst, 1);
    q.x0 = mm_mul(m, l.index, o->width);
    q.nx = mm_min(m, mm_sub(m, total, q.x0), width);
    q.dst = l.carried[0];
    pack_prologue(x, &q);
    LLVMValueRef next = cpu_elem_ptr(m, q.dst, x->dt, cpu_i64(m, o->width * x->p->kc_pad));
    cpu_loop_end(m, &l, &next);
}

/* Where the resident panels of (batch, kb) start in the workspace. */
static LLVMValueRef resident_at(Emit *x, LLVMValueRef kb, LLVMValueRef panel)
{
    CpuModule *m = x->m;
    const MmOperand *r = contract_resident(x->p);
    LLVMValueRef block = cpu_mad(m, x->batch, x->p->n_kb, kb);
    LLVMValueRef elem = mm_mul(m, cpu_mad(m, block, r->n_panels, panel), r->width * x->p->kc_pad);
    return cpu_elem_ptr(m, x->workspace, x->dt, elem);
}

static void emit_pack_phase(CpuModule *m, const ContractPlan *p, const char *fn)
{
    Emit x = emit_begin(m, p, fn);
    const MmOperand *r = contract_resident(p);
    int64_t groups = mm_ceil_div(r->n_panels, p->pack_group);
    LLVMValueRef block = mm_div(m, m->task, groups);
    set_batch(&x, mm_div(m, block, p->n_kb));
    LLVMValueRef kb = mm_rem(m, block, p->n_kb);
    LLVMValueRef lo = mm_mul(m, mm_rem(m, m->task, groups), p->pack_group);
    LLVMValueRef hi = mm_min(m, mm_add(m, lo, cpu_i64(m, p->pack_group)), cpu_i64(m, r->n_panels));
    LLVMValueRef k0 = mm_mul(m, kb, p->kc);
    LLVMValueRef kc = mm_min(m, cpu_i64(m, p->kc), mm_sub(m, cpu_i64(m, p->k_len), k0));
    pack_panels(&x, r, lo, hi, k0, kc, resident_at(&x, kb, lo));
    cpu_function_end(m);
}

/* ---- epilogue ---- */

static void epilogue_body(CpuEval *e, LLVMValueRef r, LLVMValueRef c, void *user)
{
    const SweepOut *s = user;
    CpuModule *m = e->m;
    e->acc = cpu_load(m, s->x->dt, cpu_elem_ptr(m, s->dst, s->x->dt, cpu_mad(m, r, s->ld, c)),
                      e->lanes, e->mask);
    /* every value before any store: a result may lie over an operand, element on element */
    LLVMValueRef *value = ARENA_ARRAY(m->arena, LLVMValueRef, e->k->n_stores);
    for (uint32_t i = 0; i < e->k->n_stores; i++) value[i] = cpu_emit_node(e, e->k->stores[i].node);
    for (uint32_t i = 0; i < e->k->n_stores; i++) cpu_emit_store(e, &e->k->stores[i], value[i]);
}

static void emit_epilogue(Emit *x, LLVMValueRef acc, LLVMValueRef r0, LLVMValueRef nr,
                          LLVMValueRef c0, LLVMValueRef nc)
{
    const ContractPlan *p = x->p;
    SweepOut in = {.x = x, .dst = acc, .ld = p->ld};
    MmSweep s = {.rows = &p->rows,
                 .cols = &p->cols,
                 .r0 = r0,
                 .nr = nr,
                 .c0 = c0,
                 .nc = nc,
                 .lanes = p->lanes};
    s.nc_multiple = p->cols.total % p->lanes == 0 ? p->lanes : 1;
    int32_t *nodes = ARENA_ARRAY(x->m->arena, int32_t, p->k->n_stores);
    for (uint32_t i = 0; i < p->k->n_stores; i++) nodes[i] = p->k->stores[i].node;
    s.nodes = nodes;
    s.n_nodes = p->k->n_stores;
    s.stores = UINT64_MAX;
    s.known = mm_axis_bits(&p->batch);
    mm_sweep(&x->e, &s, epilogue_body, &in);
}

/* ---- the main phase ---- */

/* A task's part: panels of the streamed and the resident operand, and of K. */
typedef struct Part {
    LLVMValueRef s_lo, s_hi, r_lo, r_hi;
    LLVMValueRef k_lo, k_hi;
    LLVMValueRef acc;            /* element (0, 0) is row r/s_lo * mr, column r/s_lo * width */
    LLVMValueRef s_origin;       /* streamed panel of the accumulators' start */
    LLVMValueRef s_after;        /* streamed panel that the next task starts with */
    LLVMValueRef area[MM_AREAS]; /* addresses of the areas that tiles fetch */
    LLVMValueRef is_last_k;      /* the block of K whose tiles fetch the epilogue's areas */
} Part;

/* The tile for a panel pair: at the edges of M and N, a smaller one. */
static LLVMValueRef choose_tile(Emit *x, LLVMValueRef row, LLVMValueRef col)
{
    CpuModule *m = x->m;
    const ContractPlan *p = x->p;
    MmTile full = p->tile, low = full, narrow = full, corner;
    low.mr = p->low_mr;
    narrow.nv = p->narrow_nv;
    corner = low;
    corner.nv = narrow.nv;
    LLVMValueRef fn = mm_tile(m, &full), edge = mm_tile(m, &low);
    LLVMValueRef last_row = mm_cmp(m, LLVMIntEQ, row, cpu_i64(m, p->row.n_panels - 1));
    LLVMValueRef last_col = mm_cmp(m, LLVMIntEQ, col, cpu_i64(m, p->col.n_panels - 1));
    if (edge != fn) fn = LLVMBuildSelect(m->b, last_row, edge, fn, "");
    if (narrow.nv == full.nv) return fn;
    edge = mm_tile(m, &narrow);
    if (low.mr != full.mr) edge = LLVMBuildSelect(m->b, last_row, mm_tile(m, &corner), edge, "");
    return LLVMBuildSelect(m->b, last_col, edge, fn, "");
}

/* Where the chunk after (s, k0) of the task's order starts: next of this block of K, first of the
 * next block, first of the next task. */
static LLVMValueRef next_chunk(Emit *x, const Part *t, LLVMValueRef s, LLVMValueRef k0)
{
    CpuModule *m = x->m;
    const ContractPlan *p = x->p;
    const MmOperand *so = contract_streamed(p);
    LLVMValueRef s1 = mm_add(m, s, cpu_i64(m, p->chunk)), k1 = mm_add(m, k0, cpu_i64(m, p->kc));
    LLVMValueRef more_s = mm_cmp(m, LLVMIntSLT, s1, t->s_hi);
    LLVMValueRef more_k = mm_cmp(m, LLVMIntSLT, k1, cpu_i64(m, p->k_len));
    LLVMValueRef next_k = LLVMBuildSelect(m->b, more_k, k1, cpu_i64(m, 0), "");
    LLVMValueRef next_s = LLVMBuildSelect(m->b, more_k, t->s_lo, t->s_after, "");
    next_k = LLVMBuildSelect(m->b, more_s, k0, next_k, "");
    next_s = mm_min(m, LLVMBuildSelect(m->b, more_s, s1, next_s, ""),
                    cpu_i64(m, so->n_panels - 1)); /* behind the last: any lines */
    return direct_at(x, so, mm_mul(m, next_s, so->width), next_k);
}

/* The lines that the i-th tile fetches: a column of lines, down some of an area's rows; once all
 * are dealt out, one line over and over. */
static void fetch_ahead(Emit *x, const Part *t, LLVMValueRef i, MmTileArgs *in)
{
    CpuModule *m = x->m;
    const ContractPlan *p = x->p;
    int64_t rows = p->kc / p->tile.ahead, first = 0;
    in->line = in->a;
    in->step = cpu_i64(m, 0);
    for (int n = 0; n < p->n_areas; n++) {
        const MmArea *area = &p->area[n];
        int64_t pieces = mm_ceil_div(area->rows, rows) * area->lines;
        LLVMValueRef j = mm_sub(m, i, cpu_i64(m, first));
        LLVMValueRef is_here = mm_cmp(m, LLVMIntULT, j, cpu_i64(m, pieces));
        if (area->epilogue) is_here = LLVMBuildAnd(m->b, is_here, t->is_last_k, "");
        LLVMValueRef at = cpu_mad(m, mm_div(m, j, area->lines), rows * area->step,
                                  mm_mul(m, mm_rem(m, j, area->lines), MM_LINE));
        at = LLVMBuildGEP2(m->b, m->i8_t, t->area[n], &at, 1, "");
        in->line = LLVMBuildSelect(m->b, is_here, at, in->line, "");
        in->step = LLVMBuildSelect(m->b, is_here, cpu_i64(m, area->step), in->step, "");
        first += pieces;
    }
}

static void multiply_panels(Emit *x, const Part *t, LLVMValueRef s_at, LLVMValueRef r_at,
                            LLVMValueRef kc, LLVMValueRef more)
{
    CpuModule *m = x->m;
    const ContractPlan *p = x->p;
    const MmOperand *ro = contract_resident(p), *so = contract_streamed(p);
    CpuLoop r = cpu_loop_begin(m, t->r_lo, t->r_hi, 1, NULL, 0);
    LLVMValueRef r_rel = mm_sub(m, r.index, t->r_lo);
    LLVMValueRef r_panel = cpu_elem_ptr(m, r_at, x->dt, mm_mul(m, r_rel, ro->width * p->kc_pad));
    CpuLoop s = cpu_loop_begin(m, t->s_lo, t->s_hi, 1, NULL, 0);
    LLVMValueRef s_panel =
        cpu_elem_ptr(m, s_at, x->dt, mm_mul(m, mm_sub(m, s.index, t->s_lo), so->width * p->kc_pad));
    LLVMValueRef s_rel = mm_sub(m, s.index, t->s_origin);
    bool is_row = p->row_is_resident;
    LLVMValueRef row = is_row ? r_rel : s_rel, col = is_row ? s_rel : r_rel;
    LLVMValueRef elem = cpu_mad(m, row, p->row.width * p->ld, mm_mul(m, col, p->col.width));
    LLVMValueRef c = cpu_elem_ptr(m, t->acc, x->dt, elem);
    LLVMValueRef tile = choose_tile(x, is_row ? r.index : s.index, is_row ? s.index : r.index);
    MmTileArgs in = {.a = is_row ? r_panel : s_panel,
                     .b = is_row ? s_panel : r_panel,
                     .c = c,
                     .kc = kc,
                     .ldc = cpu_i64(m, p->ld),
                     .accumulate = more};
    LLVMValueRef i = cpu_mad(m, r_rel, p->chunk, mm_sub(m, s.index, t->s_lo));
    if (p->tile.ahead) fetch_ahead(x, t, i, &in);
    mm_tile_call(m, tile, &in);
    cpu_loop_end(m, &s, NULL);
    cpu_loop_end(m, &r, NULL);
}

/* acc = the task's part of the product. */
static void emit_product(Emit *x, Part t)
{
    CpuModule *m = x->m;
    const ContractPlan *p = x->p;
    const MmOperand *ro = contract_resident(p), *so = contract_streamed(p);
    LLVMValueRef zero = cpu_i64(m, 0), s_at = scratch_at(x, p->s_at);
    CpuLoop kb = cpu_loop_begin(m, zero, cpu_i64(m, p->n_kb), 1, NULL, 0);
    LLVMValueRef k0 = cpu_mad(m, kb.index, p->kc, t.k_lo);
    LLVMValueRef kc = mm_max(m, zero, mm_min(m, cpu_i64(m, p->kc), mm_sub(m, t.k_hi, k0)));
    LLVMValueRef more = mm_cmp(m, LLVMIntNE, kb.index, zero), r_at = NULL;
    if (p->is_shared) {
        r_at = resident_at(x, kb.index, t.r_lo);
    } else {
        r_at = scratch_at(x, p->r_at);
        pack_panels(x, ro, t.r_lo, t.r_hi, k0, kc, r_at);
    }
    Part chunk = t;
    chunk.is_last_k = mm_cmp(m, LLVMIntEQ, kb.index, cpu_i64(m, p->n_kb - 1));
    CpuLoop c = cpu_loop_begin(m, t.s_lo, t.s_hi, p->chunk, NULL, 0);
    chunk.s_lo = c.index;
    chunk.s_hi = mm_min(m, t.s_hi, mm_add(m, c.index, cpu_i64(m, p->chunk)));
    if (p->n_areas && !p->area[0].epilogue) chunk.area[0] = next_chunk(x, &t, c.index, k0);
    pack_panels(x, so, chunk.s_lo, chunk.s_hi, k0, kc, s_at);
    multiply_panels(x, &chunk, s_at, r_at, kc, more);
    cpu_loop_end(m, &c, NULL);
    cpu_loop_end(m, &kb, NULL);
}

/* Elements of an operand's axis covered by panels [lo, hi). */
static LLVMValueRef panel_elems(CpuModule *m, const MmOperand *o, LLVMValueRef lo, LLVMValueRef hi)
{
    LLVMValueRef end = mm_min(m, mm_mul(m, hi, o->width), cpu_i64(m, o->axis->total));
    return mm_sub(m, end, mm_mul(m, lo, o->width));
}

/* Address of a task's first element in a result or an operand of the epilogue over single loops. */
static LLVMValueRef part_at(Emit *x, const Part *t, const Access *to)
{
    CpuModule *m = x->m;
    const ContractPlan *p = x->p;
    LLVMValueRef row = mm_mul(m, p->row_is_resident ? t->r_lo : t->s_lo, p->row.width);
    LLVMValueRef col = mm_mul(m, p->row_is_resident ? t->s_lo : t->r_lo, p->col.width);
    int64_t ld = p->rows.n ? to->stride[p->rows.loop[0]] : 0;
    LLVMValueRef elem = cpu_mad(m, row, ld, mm_add(m, batch_elem(x, to), col));
    return cpu_elem_ptr(m, x->e.bufs[to->arg], p->k->args[to->arg].dtype, elem);
}

static void emit_main_phase(CpuModule *m, const ContractPlan *p, const char *fn)
{
    Emit x = emit_begin(m, p, fn);
    const MmOperand *r = contract_resident(p), *s = contract_streamed(p);
    LLVMValueRef block = mm_rem(m, m->task, p->n_blocks), rest = mm_div(m, m->task, p->n_blocks);
    LLVMValueRef chunk = mm_rem(m, rest, p->n_chunks);
    set_batch(&x, mm_div(m, rest, p->n_chunks));
    LLVMValueRef r_lo = mm_mul(m, block, p->block), s_lo = mm_mul(m, chunk, p->chunk);
    Part t = {.r_lo = r_lo,
              .s_lo = s_lo,
              .s_origin = s_lo,
              .k_lo = cpu_i64(m, 0),
              .k_hi = cpu_i64(m, p->k_len)};
    t.r_hi = mm_min(m, mm_add(m, r_lo, cpu_i64(m, p->block)), cpu_i64(m, r->n_panels));
    t.s_hi = mm_min(m, mm_add(m, s_lo, cpu_i64(m, p->chunk)), cpu_i64(m, s->n_panels));
    LLVMValueRef is_last = mm_cmp(m, LLVMIntEQ, block, cpu_i64(m, p->n_blocks - 1));
    t.s_after = LLVMBuildSelect(m->b, is_last, t.s_hi, s_lo, "");
    t.acc = p->out ? part_at(&x, &t, p->out) : scratch_at(&x, p->acc_at);
    for (int i = 0; i < p->n_areas; i++)
        if (p->area[i].epilogue) t.area[i] = part_at(&x, &t, p->area[i].epilogue);
    emit_product(&x, t);
    if (p->out) {
        cpu_function_end(m);
        return;
    }
    LLVMValueRef row_lo = p->row_is_resident ? t.r_lo : t.s_lo,
                 row_hi = p->row_is_resident ? t.r_hi : t.s_hi;
    LLVMValueRef col_lo = p->row_is_resident ? t.s_lo : t.r_lo,
                 col_hi = p->row_is_resident ? t.s_hi : t.r_hi;
    emit_epilogue(&x, t.acc, mm_mul(m, row_lo, p->row.width),
                  panel_elems(m, &p->row, row_lo, row_hi), mm_mul(m, col_lo, p->col.width),
                  panel_elems(m, &p->col, col_lo, col_hi));
    cpu_function_end(m);
}

/* ---- K split ---- */

static LLVMValueRef partial_at(Emit *x, LLVMValueRef split)
{
    const ContractPlan *p = x->p;
    LLVMValueRef elem =
        mm_mul(x->m, cpu_mad(x->m, x->batch, p->n_splits, split), p->acc_rows * p->ld);
    return cpu_elem_ptr(x->m, at_byte(x, x->workspace, cpu_i64(x->m, p->partial_at)), x->dt, elem);
}

static void emit_split_phase(CpuModule *m, const ContractPlan *p, const char *fn)
{
    Emit x = emit_begin(m, p, fn);
    LLVMValueRef split = mm_rem(m, m->task, p->n_splits), zero = cpu_i64(m, 0);
    set_batch(&x, mm_div(m, m->task, p->n_splits));
    Part t = {.r_lo = zero, .s_lo = zero, .s_origin = zero, .s_after = zero};
    t.k_lo = mm_mul(m, split, p->split);
    t.r_hi = cpu_i64(m, contract_resident(p)->n_panels);
    t.s_hi = cpu_i64(m, contract_streamed(p)->n_panels);
    t.k_hi = mm_min(m, mm_add(m, t.k_lo, cpu_i64(m, p->split)), cpu_i64(m, p->k_len));
    t.acc = partial_at(&x, split);
    emit_product(&x, t);
    cpu_function_end(m);
}

/* sum[c] = partial sums of one row, added in order of the splits. */
static void reduce_row(Emit *x, LLVMValueRef row, LLVMValueRef sum)
{
    CpuModule *m = x->m;
    const ContractPlan *p = x->p;
    LLVMValueRef first = partial_at(x, cpu_i64(m, 0));
    CpuLoop c = cpu_loop_begin(m, cpu_i64(m, 0), cpu_i64(m, p->ld), p->lanes, NULL, 0);
    LLVMValueRef elem = cpu_mad(m, row, p->ld, c.index);
    LLVMValueRef acc = cpu_load(m, x->dt, cpu_elem_ptr(m, first, x->dt, elem), p->lanes, NULL);
    CpuLoop s = cpu_loop_begin(m, cpu_i64(m, 1), cpu_i64(m, p->n_splits), 1, &acc, 1);
    LLVMValueRef at = cpu_elem_ptr(m, first, x->dt, cpu_mad(m, s.index, p->acc_rows * p->ld, elem));
    acc = LLVMBuildFAdd(m->b, s.carried[0], cpu_load(m, x->dt, at, p->lanes, NULL), "");
    cpu_loop_end(m, &s, &acc);
    cpu_store(m, x->dt, s.carried[0], cpu_elem_ptr(m, sum, x->dt, c.index), p->lanes, NULL);
    cpu_loop_end(m, &c, NULL);
}

static void emit_reduce_phase(CpuModule *m, const ContractPlan *p, const char *fn)
{
    Emit x = emit_begin(m, p, fn);
    int64_t groups = mm_ceil_div(p->rows.total, p->reduce_rows);
    set_batch(&x, mm_div(m, m->task, groups));
    LLVMValueRef lo = mm_mul(m, mm_rem(m, m->task, groups), p->reduce_rows);
    LLVMValueRef hi =
        mm_min(m, mm_add(m, lo, cpu_i64(m, p->reduce_rows)), cpu_i64(m, p->rows.total));
    LLVMValueRef sum = scratch_at(&x, p->acc_at);
    CpuLoop row = cpu_loop_begin(m, lo, hi, 1, NULL, 0);
    reduce_row(&x, row.index, sum);
    emit_epilogue(&x, sum, row.index, cpu_i64(m, 1), cpu_i64(m, 0), cpu_i64(m, p->cols.total));
    cpu_loop_end(m, &row, NULL);
    cpu_function_end(m);
}

/* ---- the kernel ---- */

typedef void (*PhaseEmitter)(CpuModule *m, const ContractPlan *p, const char *fn);

static void add_phase(CpuModule *m, const ContractPlan *p, const char *name, PhaseEmitter emit,
                      int64_t n_tasks, double work, CpuKernelCode *out)
{
    uint32_t i = out->n_phases++;
    out->fn[i] = cpu_phase_name(m, name, i);
    out->n_tasks[i] = n_tasks;
    out->task_cost[i] = (int64_t)(work / (double)n_tasks) + 1;
    emit(m, p, out->fn[i]);
}

Status cpu_emit_contract(CpuModule *m, const Kernel *k, const char *name, CpuKernelCode *out)
{
    const ContractPlan *p = contract_plan(m->arena, m->target, k);
    double outputs = (double)p->batch.total * (double)p->rows.total * (double)p->cols.total;
    double flops = 2 * outputs * (double)p->red.total;
    double packed =
        (double)p->batch.total * (double)contract_resident(p)->axis->total * (double)p->red.total;
    *out = (CpuKernelCode){.needs = {p->workspace_bytes, p->scratch_bytes},
                           .has_bf16_products = p->tile.is_pairs};
    if (p->is_shared) add_phase(m, p, name, emit_pack_phase, p->n_pack_tasks, 8 * packed, out);
    if (p->n_splits == 1) {
        add_phase(m, p, name, emit_main_phase, p->n_tasks, flops + 8 * outputs, out);
        return ZM_OK;
    }
    add_phase(m, p, name, emit_split_phase, p->n_tasks, flops, out);
    add_phase(m, p, name, emit_reduce_phase, p->n_reduce_tasks, 8 * outputs * (double)p->n_splits,
              out);
    return ZM_OK;
}
