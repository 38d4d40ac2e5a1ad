/* contract_pack.c -- packing of one panel: a copy, or a transposition in registers.
 *
 * A panel's edge (x >= nx) is zero after a copy and repeats the last element after a transposition;
 * a tile computes it and nobody reads the result.
 */
#include "codegen/cpu/contract.h"

#include <stdio.h>

static LLVMTypeRef pack_type(CpuModule *m)
{
    LLVMTypeRef in[5] = {m->ptr_t, m->i64_t, m->i64_t, m->i64_t, m->ptr_t};
    return LLVMFunctionType(m->void_t, in, 5, 0);
}

void mm_pack_call(CpuModule *m, LLVMValueRef pack, LLVMValueRef src, LLVMValueRef ld,
                  LLVMValueRef nx, LLVMValueRef kc, LLVMValueRef dst)
{
    LLVMValueRef in[5] = {src, ld, nx, kc, dst};
    LLVMBuildCall2(m->b, pack_type(m), pack, in, 5, "");
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

/* Perfect shuffles: each round makes the top bit of the row number the lowest bit of the position.
 */
void mm_transpose(CpuModule *m, LLVMValueRef *rows, int n_rows)
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
    LLVMValueRef src, ld, nx, kc, dst;
    DType dt;
    int width;
} PackIn;

/* dst[k * width + x] = src[k * ld + x] with all of the panel's elements present. */
static void copy_full(CpuModule *m, const PackIn *p)
{
    int lanes = mm_lanes(m->target, p->dt);
    LLVMValueRef at[2] = {p->src, p->dst};
    CpuLoop loop = cpu_loop_begin(m, cpu_i64(m, 0), p->kc, 1, at, 2);
    for (int x = 0; x < p->width; x += lanes) {
        int n = p->width - x < lanes ? p->width - x : lanes;
        LLVMValueRef v =
            cpu_load(m, p->dt, cpu_elem_ptr(m, loop.carried[0], p->dt, cpu_i64(m, x)), n, NULL);
        cpu_store(m, p->dt, v, cpu_elem_ptr(m, loop.carried[1], p->dt, cpu_i64(m, x)), n, NULL);
    }
    at[0] = cpu_elem_ptr(m, loop.carried[0], p->dt, p->ld);
    at[1] = cpu_elem_ptr(m, loop.carried[1], p->dt, cpu_i64(m, p->width));
    cpu_loop_end(m, &loop, at);
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
        LLVMValueRef v =
            cpu_load(m, p->dt, cpu_elem_ptr(m, loop.carried[0], p->dt, cpu_i64(m, x)), n, mask[x]);
        cpu_store(m, p->dt, v, cpu_elem_ptr(m, loop.carried[1], p->dt, cpu_i64(m, x)), n, NULL);
    }
    at[0] = cpu_elem_ptr(m, loop.carried[0], p->dt, p->ld);
    at[1] = cpu_elem_ptr(m, loop.carried[1], p->dt, cpu_i64(m, p->width));
    cpu_loop_end(m, &loop, at);
}

/* The same at the edge, for targets without. */
static void copy_scalar(CpuModule *m, const PackIn *p)
{
    CpuLoop k = cpu_loop_begin(m, cpu_i64(m, 0), p->kc, 1, NULL, 0);
    LLVMValueRef from = cpu_elem_ptr(m, p->src, p->dt, LLVMBuildMul(m->b, k.index, p->ld, ""));
    LLVMValueRef to = cpu_elem_ptr(m, p->dst, p->dt, mm_mul(m, k.index, p->width));
    CpuLoop x = cpu_loop_begin(m, cpu_i64(m, 0), p->nx, 1, NULL, 0);
    LLVMValueRef v = cpu_load(m, p->dt, cpu_elem_ptr(m, from, p->dt, x.index), 1, NULL);
    cpu_store(m, p->dt, v, cpu_elem_ptr(m, to, p->dt, x.index), 1, NULL);
    cpu_loop_end(m, &x, NULL);
    CpuLoop rest = cpu_loop_begin(m, p->nx, cpu_i64(m, p->width), 1, NULL, 0);
    LLVMValueRef zero = LLVMConstNull(cpu_reg_type(m, p->dt, 1));
    cpu_store(m, p->dt, zero, cpu_elem_ptr(m, to, p->dt, rest.index), 1, NULL);
    cpu_loop_end(m, &rest, NULL);
    cpu_loop_end(m, &k, NULL);
}

static void copy_panel(CpuModule *m, const PackIn *p)
{
    LLVMValueRef is_full = mm_cmp(m, LLVMIntSGE, p->nx, cpu_i64(m, p->width));
    CpuIf full = cpu_if_begin(m, is_full);
    copy_full(m, p);
    cpu_if_end(m, &full);
    CpuIf edge = cpu_if_begin(m, LLVMBuildNot(m->b, is_full, ""));
    if (m->target->has_avx512)
        copy_masked(m, p);
    else
        copy_scalar(m, p);
    cpu_if_end(m, &edge);
}

/* dst[k * width + x] = src[x * ld + k] for x in a group of n <= lanes rows: blocks of n x lanes,
 * then the last k one by one. */
static void transpose_group(CpuModule *m, const PackIn *p, LLVMValueRef x0, int n)
{
    int lanes = mm_lanes(m->target, p->dt);
    LLVMValueRef row[64], v[64], last = mm_sub(m, p->nx, cpu_i64(m, 1));
    for (int i = 0; i < n; i++) {
        LLVMValueRef x = mm_min(m, mm_add(m, x0, cpu_i64(m, i)), last);
        row[i] = cpu_elem_ptr(m, p->src, p->dt, LLVMBuildMul(m->b, x, p->ld, ""));
    }
    LLVMValueRef dst = cpu_elem_ptr(m, p->dst, p->dt, x0);
    LLVMValueRef k_full = mm_mul(m, mm_div(m, p->kc, lanes), lanes);
    CpuLoop k = cpu_loop_begin(m, cpu_i64(m, 0), k_full, lanes, NULL, 0);
    for (int i = 0; i < n; i++)
        v[i] = cpu_load(m, p->dt, cpu_elem_ptr(m, row[i], p->dt, k.index), lanes, NULL);
    mm_transpose(m, v, n);
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
        LLVMValueRef e = cpu_load(m, p->dt, cpu_elem_ptr(m, row[i], p->dt, tail.index), 1, NULL);
        cpu_store(m, p->dt, e, cpu_elem_ptr(m, to, p->dt, cpu_i64(m, i)), 1, NULL);
    }
    cpu_loop_end(m, &tail, NULL);
}

static void transpose_panel(CpuModule *m, const PackIn *p)
{
    int lanes = mm_lanes(m->target, p->dt);
    int n = p->width < lanes ? p->width : lanes;
    ZM_CHECK(n == p->width || n == lanes);
    CpuLoop group = cpu_loop_begin(m, cpu_i64(m, 0), cpu_i64(m, p->width), n, NULL, 0);
    transpose_group(m, p, group.index, n);
    cpu_loop_end(m, &group, NULL);
}

LLVMValueRef mm_pack(CpuModule *m, DType dt, int width, bool is_transposed)
{
    char name[96];
    snprintf(name, sizeof name, "zm_pack_%s_%d%s", dtype_name(dt), width,
             is_transposed ? "_t" : "");
    LLVMValueRef found = LLVMGetNamedFunction(m->mod, name);
    if (found) return found;
    MmFn f = mm_fn_begin(m, name, pack_type(m));
    PackIn p = {.src = LLVMGetParam(f.fn, 0),
                .ld = LLVMGetParam(f.fn, 1),
                .nx = LLVMGetParam(f.fn, 2),
                .kc = LLVMGetParam(f.fn, 3),
                .dst = LLVMGetParam(f.fn, 4),
                .dt = dt,
                .width = width};
    if (is_transposed)
        transpose_panel(m, &p);
    else
        copy_panel(m, &p);
    mm_fn_end(m, &f);
    return f.fn;
}
