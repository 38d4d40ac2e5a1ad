/* nest.c -- kernels `nest` and `scatter`: phases, tasks, rows, blocks of columns.  How: nest.h. */
#include "codegen/cpu/nest.h"

typedef struct Phase {
    const NestPlan *p;
    CpuModule *m;
    uint32_t index;
    bool is_cut;                 /* several chunks: one sweep per phase */
    uint32_t sweep_lo, sweep_hi; /* sweeps that this phase runs */
    bool stores_rows;
    LLVMValueRef workspace;
    LLVMValueRef chunk, split_lo, split_hi;
    LLVMValueRef col_lo, col_hi;
    LLVMValueRef row;  /* flat number, while in a row */
    CpuEval *row_eval; /* of that row */
} Phase;

/* ---- partial results in the workspace ---- */

static LLVMValueRef partial_ptr(const Phase *f, const NestBlock *b, const CpuEval *e, uint32_t i,
                                LLVMValueRef chunk)
{
    CpuModule *m = f->m;
    const NestPlan *p = f->p;
    LLVMValueRef at = cpu_mad(m, chunk, p->n_row, b->row);
    bool has_cols = p->vec >= 0 && !p->vec_is_red;
    at = cpu_mad(m, at, p->cols, has_cols ? e->index[p->vec] : cpu_i64(m, 0));
    LLVMValueRef offset = cpu_i64(m, p->partial_offset[i]);
    LLVMValueRef base = LLVMBuildInBoundsGEP2(m->b, m->i8_t, f->workspace, &offset, 1, "");
    return cpu_elem_ptr(m, base, nest_acc_dtype(p->k->nodes[p->reduce[i]].dtype), at);
}

static void partials_write(const Phase *f, const NestBlock *b, uint32_t stage)
{
    for (uint32_t i = 0; i < f->p->n_reduce; i++) {
        const Node *r = &f->p->k->nodes[f->p->reduce[i]];
        if ((uint32_t)r->stage != stage) continue;
        for (int u = 0; u < b->n; u++) {
            CpuEval *e = &b->slot[u];
            cpu_store(f->m, nest_acc_dtype(r->dtype), e->value[f->p->reduce[i]],
                      partial_ptr(f, b, e, i, f->chunk), e->lanes, e->mask);
        }
    }
}

/* The reductions of earlier sweeps from their chunks, in order. */
static void partials_read(const Phase *f, const NestBlock *b)
{
    CpuModule *m = f->m;
    for (uint32_t i = 0; i < f->p->n_reduce; i++) {
        const Node *r = &f->p->k->nodes[f->p->reduce[i]];
        if ((uint32_t)r->stage >= f->sweep_lo) continue;
        DType dt = nest_acc_dtype(r->dtype);
        for (int u = 0; u < b->n; u++) {
            CpuEval *e = &b->slot[u];
            LLVMValueRef at = partial_ptr(f, b, e, i, cpu_i64(m, 0));
            LLVMValueRef acc = cpu_load(m, dt, at, e->lanes, e->mask);
            CpuLoop l = cpu_loop_begin(m, cpu_i64(m, 1), cpu_i64(m, f->p->n_chunks), 1, &acc, 1);
            at = partial_ptr(f, b, e, i, l.index);
            LLVMValueRef v = cpu_load(m, dt, at, e->lanes, e->mask);
            v = nest_combine(m, r, l.carried[0], v);
            cpu_loop_end(m, &l, &v);
            e->value[f->p->reduce[i]] = cpu_round(m, l.carried[0], r->dtype);
        }
    }
}

/* ---- blocks ---- */

static void round_reductions(const Phase *f, NestBlock *b, uint32_t stage)
{
    for (uint32_t i = 0; i < f->p->n_reduce; i++) {
        int32_t node = f->p->reduce[i];
        const Node *r = &f->p->k->nodes[node];
        if ((uint32_t)r->stage != stage) continue;
        for (int u = 0; u < b->n; u++)
            b->slot[u].value[node] = cpu_round(f->m, b->slot[u].value[node], r->dtype);
    }
}

static void store_rows(const Phase *f, NestBlock *b)
{
    const Kernel *k = f->p->k;
    for (int u = 0; u < b->n; u++) {
        CpuEval *e = &b->slot[u];
        for (uint32_t i = 0; i < k->n_stores; i++)
            if (k->stores[i].level != LV_ELEM) cpu_emit_node(e, k->stores[i].node);
        for (uint32_t i = 0; i < k->n_stores; i++)
            if (k->stores[i].level != LV_ELEM)
                cpu_emit_store(e, &k->stores[i], e->value[k->stores[i].node]);
    }
}

static void emit_block(const Phase *f, CpuEval *slot, int n)
{
    NestBlock b = {.slot = slot, .n = n, .row = f->row, .chunk = f->chunk};
    b.split_lo = f->split_lo;
    b.split_hi = f->split_hi;
    if (f->is_cut) partials_read(f, &b);
    for (uint32_t s = f->sweep_lo; s < f->sweep_hi; s++) {
        nest_sweep(f->p, &b, s);
        if (f->is_cut)
            partials_write(f, &b, s);
        else
            round_reductions(f, &b, s);
    }
    if (f->stores_rows) store_rows(f, &b);
}

static void block_step(void *user, const NestStep *step, LLVMValueRef *carried)
{
    (void)carried;
    const Phase *f = user;
    CpuEval slot[NEST_MAX_UNROLL];
    for (int u = 0; u < step->n_slots; u++) slot[u] = nest_slot(f->p, f->row_eval, step, u);
    emit_block(f, slot, step->n_slots);
}

/* ---- rows ---- */

static void hoist_roots(const Phase *f, CpuEval *e, uint32_t known)
{
    int32_t roots[2048];
    uint64_t stores;
    for (uint32_t s = f->sweep_lo; s < f->sweep_hi; s++) {
        uint32_t n = nest_roots(f->p, s, roots, &stores);
        cpu_eval_hoist(e, roots, n, stores, known);
    }
    if (!f->stores_rows) return;
    uint32_t n = nest_roots(f->p, f->p->n_stages, roots, &stores);
    cpu_eval_hoist(e, roots, n, stores, known);
}

/* Indices of the row loops from the flat row number. */
static void decode_row(const Phase *f, CpuEval *e, LLVMValueRef row)
{
    const NestPlan *p = f->p;
    LLVMBuilderRef b = f->m->b;
    for (int i = p->n_rows; i-- > 0;) {
        LLVMValueRef extent = cpu_i64(f->m, p->k->loops[p->rows[i]].extent);
        e->index[p->rows[i]] = i ? LLVMBuildURem(b, row, extent, "") : row;
        if (i) row = LLVMBuildUDiv(b, row, extent, "");
    }
}

static void emit_row(Phase *f, const CpuEval *task, LLVMValueRef row)
{
    const NestPlan *p = f->p;
    CpuEval e = cpu_eval_fork(task);
    f->row = row;
    f->row_eval = &e;
    decode_row(f, &e, row);
    hoist_roots(f, &e, nest_loop_bits(p->rows, p->n_rows));
    if (p->vec >= 0 && !p->vec_is_red)
        nest_along(p, f->m, f->col_lo, f->col_hi, NULL, 0, block_step, f);
    else
        emit_block(f, &e, 1);
}

/* [lo, hi) = piece number i of `piece` elements out of n; constants when there is one piece. */
static void piece_range(CpuModule *m, LLVMValueRef i, int64_t n_pieces, int64_t piece, int64_t n,
                        LLVMValueRef *lo, LLVMValueRef *hi)
{
    *lo = cpu_i64(m, 0);
    *hi = cpu_i64(m, n);
    if (n_pieces == 1) return;
    *lo = LLVMBuildNSWMul(m->b, i, cpu_i64(m, piece), "");
    if (n % piece == 0) {
        *hi = LLVMBuildNSWAdd(m->b, *lo, cpu_i64(m, piece), "");
        return;
    }
    LLVMValueRef end = LLVMBuildNSWAdd(m->b, *lo, cpu_i64(m, piece), "");
    LLVMValueRef is_past = LLVMBuildICmp(m->b, LLVMIntSGT, end, *hi, "");
    *hi = LLVMBuildSelect(m->b, is_past, *hi, end, "");
}

/* The next digit of the task number in a mixed radix. */
static LLVMValueRef task_digit(CpuModule *m, LLVMValueRef *task, int64_t radix)
{
    if (radix == 1) return cpu_i64(m, 0);
    LLVMValueRef r = cpu_i64(m, radix);
    LLVMValueRef digit = LLVMBuildURem(m->b, *task, r, "");
    *task = LLVMBuildUDiv(m->b, *task, r, "");
    return digit;
}

static void emit_phase(Phase *f, const char *name)
{
    const NestPlan *p = f->p;
    CpuModule *m = f->m;
    cpu_function_begin(m, name);
    CpuEval e = cpu_eval_new(m, p->k);
    e.vec_loop = p->vec;
    if (f->is_cut) f->workspace = cpu_buffer(m, p->k->n_args);
    LLVMValueRef task = m->task;
    bool sweeps = f->sweep_lo < f->sweep_hi;
    f->chunk = task_digit(m, &task, sweeps ? p->n_chunks : 1);
    if (f->is_cut)
        piece_range(m, f->chunk, p->n_chunks, p->chunk, p->k->loops[p->split].extent, &f->split_lo,
                    &f->split_hi);
    LLVMValueRef col_task = task_digit(m, &task, p->n_col_tasks);
    piece_range(m, col_task, p->n_col_tasks, p->cols_per_task, p->cols, &f->col_lo, &f->col_hi);
    LLVMValueRef row_lo, row_hi;
    piece_range(m, task, p->n_row_tasks, p->rows_per_task, p->n_row, &row_lo, &row_hi);
    hoist_roots(f, &e, 0);
    if (p->rows_per_task == 1)
        emit_row(f, &e, row_lo);
    else {
        CpuLoop l = cpu_loop_begin(m, row_lo, row_hi, 1, NULL, 0);
        emit_row(f, &e, l.index);
        cpu_loop_end(m, &l, NULL);
    }
    cpu_function_end(m);
}

static void add_phase(CpuModule *m, const char *name, CpuKernelCode *out, int64_t n_tasks,
                      int64_t work)
{
    uint32_t i = out->n_phases++;
    ZM_CHECK(i < ZMP_MAX_PHASES);
    out->fn[i] = cpu_phase_name(m, name, i);
    out->n_tasks[i] = n_tasks;
    out->task_cost[i] = work / n_tasks > 0 ? work / n_tasks : 1;
}

/* ---- scatter: the base first ---- */

enum { COPY_BYTES = 256 << 10, COPY_MAX_TASKS = 512 };

/* Fills the output with the base (or zeros without one); nothing to do when they are the same
 * memory. */
static void emit_base_copy(CpuModule *m, const Kernel *k, const char *name, CpuKernelCode *out)
{
    uint32_t to = (uint32_t)k->stores[0].to.arg;
    int32_t from = k->args[to].alias_in;
    int64_t bytes = k->args[to].elems * dtype_bytes(k->args[to].dtype);
    int64_t piece = COPY_BYTES;
    while ((bytes + piece - 1) / piece > COPY_MAX_TASKS) piece *= 2;
    int64_t n = (bytes + piece - 1) / piece;
    add_phase(m, name, out, n, 2 * bytes);
    cpu_function_begin(m, out->fn[out->n_phases - 1]);
    LLVMValueRef dst = cpu_buffer(m, to), lo, hi;
    piece_range(m, m->task, n, piece, bytes, &lo, &hi);
    LLVMValueRef size = LLVMBuildNSWSub(m->b, hi, lo, "");
    LLVMValueRef dst_at = LLVMBuildInBoundsGEP2(m->b, m->i8_t, dst, &lo, 1, "");
    if (from < 0) {
        LLVMBuildMemSet(m->b, dst_at, LLVMConstNull(m->i8_t), size, 1);
    } else {
        LLVMValueRef src = cpu_buffer(m, (uint32_t)from);
        CpuIf differs = cpu_if_begin(m, LLVMBuildICmp(m->b, LLVMIntNE, src, dst, ""));
        LLVMValueRef src_at = LLVMBuildInBoundsGEP2(m->b, m->i8_t, src, &lo, 1, "");
        LLVMBuildMemCpy(m->b, dst_at, 1, src_at, 1, size);
        cpu_if_end(m, &differs);
    }
    cpu_function_end(m);
}

/* ---- entry points ---- */

KernelNeeds cpu_nest_needs(const CpuTarget *t, const Kernel *k)
{
    Arena scratch = {0};
    NestPlan p = nest_plan(&scratch, t, k);
    KernelNeeds needs = {.workspace_bytes = p.workspace_bytes};
    arena_free(&scratch);
    return needs;
}

Status cpu_emit_nest(CpuModule *m, const Kernel *k, const char *name, CpuKernelCode *out)
{
    NestPlan p = nest_plan(m->arena, m->target, k);
    *out = (CpuKernelCode){.needs = {.workspace_bytes = p.workspace_bytes}};
    if (k->kind == KK_SCATTER) emit_base_copy(m, k, name, out);
    bool is_cut = p.n_chunks > 1;
    uint32_t n_phases = !is_cut ? 1 : p.n_stages + (p.has_row_stores ? 1 : 0);
    for (uint32_t i = 0; i < n_phases; i++) {
        Phase f = {.p = &p, .m = m, .index = i, .is_cut = is_cut};
        f.sweep_lo = is_cut ? i : 0;
        f.sweep_hi = !is_cut ? p.n_stages : i < p.n_stages ? i + 1 : i;
        f.stores_rows = i == n_phases - 1 && p.has_row_stores;
        int64_t n_tasks = p.n_row_tasks * p.n_col_tasks;
        if (f.sweep_lo < f.sweep_hi) n_tasks *= p.n_chunks;
        bool is_combine = f.sweep_lo == f.sweep_hi;
        add_phase(m, name, out, n_tasks, is_combine ? p.n_row * p.cols * p.n_chunks : p.work);
        emit_phase(&f, out->fn[out->n_phases - 1]);
    }
    return ZM_OK;
}
