/* contract_pack.c -- packing of panels: a copy, or a transposition in registers; 16-bit sources
 * are widened, or joined in pairs along k.
 *
 * A panel's edge (x >= nx) is zero after a copy and repeats the last element after a transposition;
 * a tile computes it and nobody reads the result.
 */
#include "codegen/cpu/contract.h"

#include <stdio.h>

enum {
    COPY_PANELS = 4,   /* wide panels copied side by side */
    COPY_NARROW = 128, /* bytes: narrower panels are copied by blocks of k, ... */
    COPY_ROWS = 8      /* ... since their lines would share cache sets */
};

static LLVMTypeRef pack_type(CpuModule *m)
{
    LLVMTypeRef in[6] = {m->ptr_t, m->i64_t, m->i64_t, m->i64_t, m->ptr_t, m->i64_t};
    return LLVMFunctionType(m->void_t, in, 6, 0);
}

void mm_pack_call(CpuModule *m, LLVMValueRef pack, LLVMValueRef src, LLVMValueRef ld,
                  LLVMValueRef nx, LLVMValueRef kc, LLVMValueRef dst, LLVMValueRef step)
{
    LLVMValueRef in[6] = {src, ld, nx, kc, dst, step};
    LLVMBuildCall2(m->b, pack_type(m), pack, in, 6, "");
}

static LLVMValueRef interleave(CpuModule *m, LLVMValueRef a, LLVMValueRef b, int lanes, int from)
{
    LLVMValueRef index[64];
    for (int i = 0; i < lanes / 2; i++) {
        index[2 * i] = cpu_i32(m, from + i);
        index[2 * i + 1] = cpu_i32(m, lanes + from + i);
    }
    return LLVMBuildShuffleVector(m->b, a, b, LLVMConstVector(index, (unsigned)lanes), "");
}

/* rows[n_rows] of equal power-of-two length, transposed in registers: the concatenation of rows[]
 * afterwards is the row-major transposed matrix.  Perfect shuffles: each round makes the top bit of
 * the row number the lowest bit of the position.
 */
static void transpose_block(CpuModule *m, LLVMValueRef *rows, int n_rows)
{
    int lanes = cpu_lanes(rows[0]);
    LLVMValueRef next[64];
    ZM_CHECK(n_rows <= 64 && (n_rows & (n_rows - 1)) == 0);
    for (int round = 1; round < n_rows; round *= 2) {
        for (int i = 0; i < n_rows / 2; i++) {
            next[2 * i] = interleave(m, rows[i], rows[i + n_rows / 2], lanes, 0);
            next[2 * i + 1] = interleave(m, rows[i], rows[i + n_rows / 2], lanes, lanes / 2);
        }
        for (int i = 0; i < n_rows; i++) rows[i] = next[i];
    }
}

typedef struct PackIn {
    LLVMValueRef src, ld, nx, kc, dst, step; /* kc: elements of a panel */
    LLVMValueRef has_half;                   /* i1: a last k without the other of its pair */
    DType dt, from;
    bool is_pairs, is_half;
    int width;
} PackIn;

/* The words of lanes x .. x + n of one k (a pair: this k and the next). */
static LLVMValueRef load_columns(CpuModule *m, const PackIn *p, LLVMValueRef at, int n,
                                 LLVMValueRef mask)
{
    if (!p->is_pairs) return cpu_load(m, p->from, at, n, mask);
    LLVMTypeRef word = cpu_vec_type(m->i32_t, n);
    LLVMValueRef low = cpu_load(m, DT_BF16, at, n, mask);
    low = LLVMBuildBitCast(m->b, low, word, "");
    low = LLVMBuildLShr(m->b, low, cpu_splat(m, cpu_i32(m, 16), n), "");
    if (!p->is_half) {
        at = cpu_elem_ptr(m, at, DT_BF16, p->ld);
        LLVMValueRef high = cpu_load(m, DT_BF16, at, n, mask);
        low = LLVMBuildOr(m->b, low, LLVMBuildBitCast(m->b, high, word, ""), "");
    }
    return LLVMBuildBitCast(m->b, low, cpu_vec_type(m->f32_t, n), "");
}

/* n words of one x, from k on (counted in words). */
static LLVMValueRef load_row(CpuModule *m, const PackIn *p, LLVMValueRef row, LLVMValueRef k, int n)
{
    if (!p->is_pairs) return cpu_load(m, p->from, cpu_elem_ptr(m, row, p->from, k), n, NULL);
    LLVMValueRef at = cpu_elem_ptr(m, row, DT_F32, k);
    LLVMValueRef v = LLVMBuildLoad2(m->b, cpu_vec_type(m->f32_t, n), at, "");
    LLVMSetAlignment(v, (unsigned)dtype_bytes(DT_BF16));
    return v;
}

static LLVMValueRef next_k(CpuModule *m, const PackIn *p, LLVMValueRef at)
{
    return cpu_elem_ptr(m, at, p->from, p->is_pairs ? mm_mul(m, p->ld, 2) : p->ld);
}

/* One k of a full panel. */
static void copy_row(CpuModule *m, const PackIn *p, LLVMValueRef src, LLVMValueRef dst)
{
    int lanes = mm_lanes(m->target, p->dt);
    for (int x = 0; x < p->width; x += lanes) {
        int n = p->width - x < lanes ? p->width - x : lanes;
        LLVMValueRef from = cpu_elem_ptr(m, src, p->from, cpu_i64(m, x));
        LLVMValueRef to = cpu_elem_ptr(m, dst, p->dt, cpu_i64(m, x));
        cpu_store(m, p->dt, load_columns(m, p, from, n, NULL), to, n, NULL);
    }
}

/* dst[k * width + x] = src[k * ld + x] for the full panels: several side by side, so that a row of
 * the source is read in longer runs. */
static void copy_full(CpuModule *m, const PackIn *p, LLVMValueRef n_panels)
{
    LLVMValueRef at[2] = {p->src, p->dst};
    CpuLoop k = cpu_loop_begin(m, cpu_i64(m, 0), p->kc, 1, at, 2);
    CpuLoop q = cpu_loop_begin(m, cpu_i64(m, 0), n_panels, 1, k.carried, 2);
    copy_row(m, p, q.carried[0], q.carried[1]);
    at[0] = cpu_elem_ptr(m, q.carried[0], p->from, cpu_i64(m, p->width));
    at[1] = cpu_elem_ptr(m, q.carried[1], p->dt, p->step);
    cpu_loop_end(m, &q, at);
    at[0] = next_k(m, p, k.carried[0]);
    at[1] = cpu_elem_ptr(m, k.carried[1], p->dt, cpu_i64(m, p->width));
    cpu_loop_end(m, &k, at);
}

/* The address COPY_ROWS steps of k further on. */
static LLVMValueRef next_block(CpuModule *m, const PackIn *p, LLVMValueRef at)
{
    return cpu_elem_ptr(m, at, p->from, mm_mul(m, p->ld, (p->is_pairs ? 2 : 1) * COPY_ROWS));
}

/* Narrow panels: a block of k of each in turn, so that the lines written to a panel are filled at
 * once and a row of the source is read in longer runs; the next block is fetched meanwhile. */
static void copy_narrow(CpuModule *m, const PackIn *p, LLVMValueRef n_panels)
{
    LLVMValueRef at[2] = {p->src, p->dst}, rows = cpu_i64(m, COPY_ROWS);
    CpuLoop block = cpu_loop_begin(m, cpu_i64(m, 0), p->kc, COPY_ROWS, at, 2);
    LLVMValueRef n_rows = mm_min(m, rows, mm_sub(m, p->kc, block.index));
    CpuLoop q = cpu_loop_begin(m, cpu_i64(m, 0), n_panels, 1, block.carried, 2);
    CpuLoop k = cpu_loop_begin(m, cpu_i64(m, 0), n_rows, 1, q.carried, 2);
    cpu_prefetch(m, next_block(m, p, k.carried[0]));
    copy_row(m, p, k.carried[0], k.carried[1]);
    at[0] = next_k(m, p, k.carried[0]);
    at[1] = cpu_elem_ptr(m, k.carried[1], p->dt, cpu_i64(m, p->width));
    cpu_loop_end(m, &k, at);
    at[0] = cpu_elem_ptr(m, q.carried[0], p->from, cpu_i64(m, p->width));
    at[1] = cpu_elem_ptr(m, q.carried[1], p->dt, p->step);
    cpu_loop_end(m, &q, at);
    at[0] = next_block(m, p, block.carried[0]);
    at[1] = cpu_elem_ptr(m, block.carried[1], p->dt, cpu_i64(m, COPY_ROWS * p->width));
    cpu_loop_end(m, &block, at);
}

/* The same at the edge, for targets with masked loads. */
static void copy_masked(CpuModule *m, const PackIn *p)
{
    int lanes = mm_lanes(m->target, p->dt);
    LLVMValueRef at[2] = {p->src, p->dst}, mask[64];
    for (int x = 0; x < p->width; x += lanes) {
        int n = p->width - x < lanes ? p->width - x : lanes;
        mask[x] = cpu_tail_mask(m, cpu_i64(m, x), p->nx, n);
    }
    CpuLoop loop = cpu_loop_begin(m, cpu_i64(m, 0), p->kc, 1, at, 2);
    for (int x = 0; x < p->width; x += lanes) {
        int n = p->width - x < lanes ? p->width - x : lanes;
        LLVMValueRef from = cpu_elem_ptr(m, loop.carried[0], p->from, cpu_i64(m, x));
        LLVMValueRef v = load_columns(m, p, from, n, mask[x]);
        cpu_store(m, p->dt, v, cpu_elem_ptr(m, loop.carried[1], p->dt, cpu_i64(m, x)), n, NULL);
    }
    at[0] = next_k(m, p, loop.carried[0]);
    at[1] = cpu_elem_ptr(m, loop.carried[1], p->dt, cpu_i64(m, p->width));
    cpu_loop_end(m, &loop, at);
}

/* The same at the edge, for targets without. */
static void copy_scalar(CpuModule *m, const PackIn *p)
{
    CpuLoop k = cpu_loop_begin(m, cpu_i64(m, 0), p->kc, 1, NULL, 0);
    LLVMValueRef from = cpu_elem_ptr(m, p->src, p->from, LLVMBuildMul(m->b, k.index, p->ld, ""));
    LLVMValueRef to = cpu_elem_ptr(m, p->dst, p->dt, mm_mul(m, k.index, p->width));
    CpuLoop x = cpu_loop_begin(m, cpu_i64(m, 0), p->nx, 1, NULL, 0);
    LLVMValueRef v = cpu_load(m, p->from, cpu_elem_ptr(m, from, p->from, x.index), 1, NULL);
    cpu_store(m, p->dt, v, cpu_elem_ptr(m, to, p->dt, x.index), 1, NULL);
    cpu_loop_end(m, &x, NULL);
    CpuLoop rest = cpu_loop_begin(m, p->nx, cpu_i64(m, p->width), 1, NULL, 0);
    LLVMValueRef zero = LLVMConstNull(cpu_reg_type(m, p->dt, 1));
    cpu_store(m, p->dt, zero, cpu_elem_ptr(m, to, p->dt, rest.index), 1, NULL);
    cpu_loop_end(m, &rest, NULL);
    cpu_loop_end(m, &k, NULL);
}

static void copy_wide(CpuModule *m, const PackIn *p, LLVMValueRef n_panels)
{
    PackIn some = *p;
    CpuLoop q = cpu_loop_begin(m, cpu_i64(m, 0), n_panels, COPY_PANELS, NULL, 0);
    some.src = cpu_elem_ptr(m, p->src, p->from, mm_mul(m, q.index, p->width));
    some.dst = cpu_elem_ptr(m, p->dst, p->dt, LLVMBuildMul(m->b, q.index, p->step, ""));
    copy_full(m, &some, mm_min(m, cpu_i64(m, COPY_PANELS), mm_sub(m, n_panels, q.index)));
    cpu_loop_end(m, &q, NULL);
}

static void copy_panels(CpuModule *m, const PackIn *p)
{
    LLVMValueRef n_full = mm_div(m, p->nx, p->width);
    if (p->width * dtype_bytes(p->dt) < COPY_NARROW)
        copy_narrow(m, p, n_full);
    else
        copy_wide(m, p, n_full);
    PackIn edge = *p;
    edge.src = cpu_elem_ptr(m, p->src, p->from, mm_mul(m, n_full, p->width));
    edge.dst = cpu_elem_ptr(m, p->dst, p->dt, LLVMBuildMul(m->b, n_full, p->step, ""));
    edge.nx = mm_sub(m, p->nx, mm_mul(m, n_full, p->width));
    CpuIf has_edge = cpu_if_begin(m, mm_cmp(m, LLVMIntSGT, edge.nx, cpu_i64(m, 0)));
    if (m->target->has_avx512)
        copy_masked(m, &edge);
    else
        copy_scalar(m, &edge);
    cpu_if_end(m, &has_edge);
}

/* The copy of a last k without the other of its pair. */
static void copy_half(CpuModule *m, const PackIn *p)
{
    CpuIf half = cpu_if_begin(m, p->has_half);
    PackIn last = *p;
    last.is_half = true;
    LLVMValueRef k = mm_mul(m, p->kc, 2);
    last.src = cpu_elem_ptr(m, p->src, p->from, LLVMBuildMul(m->b, k, p->ld, ""));
    last.dst = cpu_elem_ptr(m, p->dst, p->dt, mm_mul(m, p->kc, p->width));
    last.kc = cpu_i64(m, 1);
    copy_panels(m, &last);
    cpu_if_end(m, &half);
}

/* rows[n] at a last k without the other of its pair. */
static void transpose_half(CpuModule *m, const PackIn *p, LLVMValueRef *rows, LLVMValueRef dst,
                           int n)
{
    CpuIf half = cpu_if_begin(m, p->has_half);
    PackIn last = *p;
    last.is_half = true;
    LLVMValueRef to = cpu_elem_ptr(m, dst, p->dt, mm_mul(m, p->kc, p->width));
    for (int i = 0; i < n; i++) {
        LLVMValueRef from = cpu_elem_ptr(m, rows[i], p->from, mm_mul(m, p->kc, 2));
        LLVMValueRef e = load_columns(m, &last, from, 1, NULL);
        cpu_store(m, p->dt, e, cpu_elem_ptr(m, to, p->dt, cpu_i64(m, i)), 1, NULL);
    }
    cpu_if_end(m, &half);
}

/* dst[k * width + x] = src[x * ld + k] for x in a group of n <= lanes rows: blocks of n x lanes,
 * then the last k one by one. */
static void transpose_group(CpuModule *m, const PackIn *p, LLVMValueRef x0, int n)
{
    int lanes = mm_lanes(m->target, p->dt);
    LLVMValueRef row[64], v[64] = {NULL}, last = mm_sub(m, p->nx, cpu_i64(m, 1));
    for (int i = 0; i < n; i++) {
        LLVMValueRef x = mm_min(m, mm_add(m, x0, cpu_i64(m, i)), last);
        row[i] = cpu_elem_ptr(m, p->src, p->from, LLVMBuildMul(m->b, x, p->ld, ""));
    }
    LLVMValueRef dst = cpu_elem_ptr(m, p->dst, p->dt, x0);
    LLVMValueRef k_full = mm_mul(m, mm_div(m, p->kc, lanes), lanes);
    CpuLoop k = cpu_loop_begin(m, cpu_i64(m, 0), k_full, lanes, NULL, 0);
    for (int i = 0; i < n; i++) v[i] = load_row(m, p, row[i], k.index, lanes);
    transpose_block(m, v, n);
    LLVMValueRef to = cpu_elem_ptr(m, dst, p->dt, mm_mul(m, k.index, p->width));
    for (int i = 0; i < n;
         i++) { /* n == width: the block is contiguous; else n == lanes and v[i] is k row i */
        int64_t at = (int64_t)i * (n == p->width ? lanes : p->width);
        cpu_store(m, p->dt, v[i], cpu_elem_ptr(m, to, p->dt, cpu_i64(m, at)), lanes, NULL);
    }
    cpu_loop_end(m, &k, NULL);
    CpuLoop tail = cpu_loop_begin(m, k_full, p->kc, 1, NULL, 0);
    to = cpu_elem_ptr(m, dst, p->dt, mm_mul(m, tail.index, p->width));
    for (int i = 0; i < n; i++) {
        LLVMValueRef e = load_row(m, p, row[i], tail.index, 1);
        cpu_store(m, p->dt, e, cpu_elem_ptr(m, to, p->dt, cpu_i64(m, i)), 1, NULL);
    }
    cpu_loop_end(m, &tail, NULL);
    if (p->has_half) transpose_half(m, p, row, dst, n);
}

static void transpose_panels(CpuModule *m, const PackIn *p)
{
    int lanes = mm_lanes(m->target, p->dt);
    int n = p->width < lanes ? p->width : lanes;
    ZM_CHECK(n == p->width || n == lanes);
    PackIn panel = *p;
    CpuLoop x = cpu_loop_begin(m, cpu_i64(m, 0), p->nx, p->width, &p->dst, 1);
    panel.src = cpu_elem_ptr(m, p->src, p->from, LLVMBuildMul(m->b, x.index, p->ld, ""));
    panel.dst = x.carried[0];
    panel.nx = mm_sub(m, p->nx, x.index);
    CpuLoop group = cpu_loop_begin(m, cpu_i64(m, 0), cpu_i64(m, p->width), n, NULL, 0);
    transpose_group(m, &panel, group.index, n);
    cpu_loop_end(m, &group, NULL);
    LLVMValueRef next = cpu_elem_ptr(m, panel.dst, p->dt, p->step);
    cpu_loop_end(m, &x, &next);
}

static void pack_name(char *out, size_t n, const MmPack *how)
{
    const char *from = how->from == how->to ? "" : dtype_name(how->from);
    const char *to = how->is_pairs ? how->has_half ? "_halves_" : "_pairs_" : *from ? "_to_" : "";
    snprintf(out, n, "zm_pack_%s%s%s_%d%s", from, to, dtype_name(how->to), how->width,
             how->is_transposed ? "_t" : "");
}

LLVMValueRef mm_pack(CpuModule *m, const MmPack *how)
{
    char name[96];
    pack_name(name, sizeof name, how);
    LLVMValueRef found = LLVMGetNamedFunction(m->mod, name);
    if (found) return found;
    MmFn f = mm_fn_begin(m, name, pack_type(m));
    PackIn p = {.src = LLVMGetParam(f.fn, 0),
                .ld = LLVMGetParam(f.fn, 1),
                .nx = LLVMGetParam(f.fn, 2),
                .kc = LLVMGetParam(f.fn, 3),
                .dst = LLVMGetParam(f.fn, 4),
                .step = LLVMGetParam(f.fn, 5),
                .dt = how->to,
                .from = how->from,
                .is_pairs = how->is_pairs,
                .width = how->width};
    if (how->is_pairs) {
        LLVMValueRef odd = LLVMBuildAnd(m->b, p.kc, cpu_i64(m, 1), "");
        if (how->has_half) p.has_half = mm_cmp(m, LLVMIntNE, odd, cpu_i64(m, 0));
        p.kc = mm_div(m, p.kc, 2);
    }
    if (how->is_transposed)
        transpose_panels(m, &p);
    else
        copy_panels(m, &p);
    if (!how->is_transposed && how->has_half) copy_half(m, &p);
    mm_fn_end(m, &f);
    return f.fn;
}
