/* contract_tile.c -- register tiles: the inner loop of every product, and small integer helpers.
 *
 * A tile keeps mr x nv accumulators in registers over a plain loop of k: nv loads of B, mr
 * broadcasts of A, mr * nv FMAs. With AVX-512: 8 x 3 vectors = 24 accumulators of 32 registers;
 * with AVX2 4 x 3 = 12 of 16; with SSE 4 x 2 = 8 of 16, where the product needs a register of its
 * own.
 */
#include "codegen/cpu/contract.h"

#include <stdio.h>

int mm_lanes(const CpuTarget *t, DType dt)
{
    return t->vector_bytes / (int)dtype_bytes(dt);
}

MmTile mm_tile_for(const CpuTarget *t, DType dt)
{
    MmTile tile = {.dt = dt, .mr = 4, .nv = 2, .a_row = 1};
    if (t->n_vector_regs >= 32) {
        tile.mr = 8;
        tile.nv = 3;
    } else if (t->has_fma) {
        tile.nv = 3;
    }
    tile.a_k = tile.mr;
    tile.b_k = (int64_t)tile.nv * mm_lanes(t, dt);
    return tile;
}

MmFn mm_fn_begin(CpuModule *m, const char *name, LLVMTypeRef type)
{
    MmFn f = {.saved_fn = m->fn, .saved_block = LLVMGetInsertBlock(m->b), .saved_entry = m->entry};
    f.fn = LLVMAddFunction(m->mod, name, type);
    LLVMSetLinkage(f.fn, LLVMInternalLinkage);
    cpu_function_attrs(m, f.fn);
    unsigned kind = LLVMGetEnumAttributeKindForName("noinline", 8);
    LLVMAddAttributeAtIndex(f.fn, LLVMAttributeFunctionIndex,
                            LLVMCreateEnumAttribute(m->cx, kind, 0));
    m->fn = f.fn;
    m->entry = LLVMAppendBasicBlockInContext(m->cx, f.fn, "entry");
    LLVMBasicBlockRef first = LLVMAppendBasicBlockInContext(m->cx, f.fn, "");
    LLVMPositionBuilderAtEnd(m->b, m->entry);
    LLVMBuildBr(m->b, first);
    LLVMPositionBuilderAtEnd(m->b, first);
    return f;
}

void mm_fn_end(CpuModule *m, MmFn *f)
{
    LLVMBuildRetVoid(m->b);
    m->fn = f->saved_fn;
    m->entry = f->saved_entry;
    if (f->saved_block) LLVMPositionBuilderAtEnd(m->b, f->saved_block);
}

LLVMValueRef mm_mul(CpuModule *m, LLVMValueRef a, int64_t k)
{
    return cpu_mad(m, a, k, cpu_i64(m, 0));
}

LLVMValueRef mm_add(CpuModule *m, LLVMValueRef a, LLVMValueRef b)
{
    return LLVMBuildAdd(m->b, a, b, "");
}

LLVMValueRef mm_sub(CpuModule *m, LLVMValueRef a, LLVMValueRef b)
{
    return LLVMBuildSub(m->b, a, b, "");
}

LLVMValueRef mm_cmp(CpuModule *m, LLVMIntPredicate p, LLVMValueRef a, LLVMValueRef b)
{
    return LLVMBuildICmp(m->b, p, a, b, "");
}

LLVMValueRef mm_min(CpuModule *m, LLVMValueRef a, LLVMValueRef b)
{
    return LLVMBuildSelect(m->b, mm_cmp(m, LLVMIntSLT, a, b), a, b, "");
}

LLVMValueRef mm_max(CpuModule *m, LLVMValueRef a, LLVMValueRef b)
{
    return LLVMBuildSelect(m->b, mm_cmp(m, LLVMIntSGT, a, b), a, b, "");
}

LLVMValueRef mm_div(CpuModule *m, LLVMValueRef a, int64_t k)
{
    return k == 1 ? a : LLVMBuildUDiv(m->b, a, cpu_i64(m, k), "");
}

LLVMValueRef mm_rem(CpuModule *m, LLVMValueRef a, int64_t k)
{
    return k == 1 ? cpu_i64(m, 0) : LLVMBuildURem(m->b, a, cpu_i64(m, k), "");
}

/* acc + a * b; of pairs, acc + a_1 b_1 + a_0 b_0, each sum rounded, subnormals taken and left as
 * zeros. */
static LLVMValueRef multiply_add(CpuModule *m, const MmTile *t, LLVMValueRef a, LLVMValueRef b,
                                 LLVMValueRef acc)
{
    if (!t->is_pairs) return cpu_fma(m, a, b, acc);
    LLVMTypeRef pairs = LLVMVectorType(LLVMBFloatTypeInContext(m->cx), 32);
    LLVMValueRef in[] = {acc, LLVMBuildBitCast(m->b, a, pairs, ""),
                         LLVMBuildBitCast(m->b, b, pairs, "")};
    return cpu_intrinsic(m, "llvm.x86.avx512bf16.dpbf16ps.512", NULL, 0, in, 3);
}

static LLVMTypeRef tile_type(CpuModule *m)
{
    LLVMTypeRef in[8] = {m->ptr_t, m->ptr_t, m->ptr_t, m->i64_t,
                         m->i64_t, m->i1_t,  m->ptr_t, m->i64_t};
    return LLVMFunctionType(m->void_t, in, 8, 0);
}

void mm_tile_call(CpuModule *m, LLVMValueRef tile, const MmTileArgs *t)
{
    LLVMValueRef line = t->line ? t->line : t->a, step = t->step ? t->step : cpu_i64(m, 0);
    LLVMValueRef in[8] = {t->a, t->b, t->c, t->kc, t->ldc, t->accumulate, line, step};
    LLVMBuildCall2(m->b, tile_type(m), tile, in, 8, "");
}

/* Addresses of the tile's vectors of C, and their types. */
typedef struct TileC {
    LLVMValueRef at[64];
    LLVMTypeRef vec;
    uint32_t n;
} TileC;

static TileC tile_c(CpuModule *m, const MmTile *t, LLVMValueRef c, LLVMValueRef ldc)
{
    int lanes = mm_lanes(m->target, t->dt);
    TileC out = {.vec = cpu_vec_type(cpu_mem_type(m, t->dt), lanes),
                 .n = (uint32_t)(t->mr * t->nv)};
    for (int i = 0; i < t->mr; i++)
        for (int j = 0; j < t->nv; j++)
            out.at[i * t->nv + j] = cpu_elem_ptr(
                m, c, t->dt, mm_add(m, mm_mul(m, ldc, i), cpu_i64(m, (int64_t)j * lanes)));
    return out;
}

/* Accumulators before the loop: c, or zeros. */
static void tile_init(CpuModule *m, const MmTile *t, const TileC *c, LLVMValueRef accumulate,
                      LLVMValueRef *acc)
{
    int lanes = mm_lanes(m->target, t->dt);
    LLVMBasicBlockRef from = LLVMGetInsertBlock(m->b);
    CpuIf reads = cpu_if_begin(m, accumulate);
    LLVMValueRef old[64];
    for (uint32_t i = 0; i < c->n; i++) old[i] = cpu_load(m, t->dt, c->at[i], lanes, NULL);
    LLVMBasicBlockRef then = LLVMGetInsertBlock(m->b);
    cpu_if_end(m, &reads);
    LLVMValueRef zero = LLVMConstNull(c->vec);
    for (uint32_t i = 0; i < c->n; i++) {
        acc[i] = LLVMBuildPhi(m->b, c->vec, "");
        LLVMAddIncoming(acc[i], &zero, &from, 1);
        LLVMAddIncoming(acc[i], &old[i], &then, 1);
    }
}

/* What the loop over k carries: accumulators, then the addresses of A, B and the line to fetch. */
enum { MAX_ACC = 32, CARRIES = MAX_ACC + 3 };

/* for k in [lo, hi): acc += A[:, k] * B[k, :] */
static void tile_loop(CpuModule *m, const MmTile *t, LLVMValueRef lo, LLVMValueRef hi,
                      LLVMValueRef *acc)
{
    int n = t->mr * t->nv, lanes = mm_lanes(m->target, t->dt);
    CpuLoop loop = cpu_loop_begin(m, lo, hi, 1, acc, (uint32_t)n + 2);
    LLVMValueRef a_at = loop.carried[n], b_at = loop.carried[n + 1], bv[8];
    for (int j = 0; j < t->nv; j++)
        bv[j] = cpu_load(m, t->dt, cpu_elem_ptr(m, b_at, t->dt, cpu_i64(m, (int64_t)j * lanes)),
                         lanes, NULL);
    for (int i = 0; i < t->mr; i++) {
        LLVMValueRef x =
            cpu_load(m, t->dt, cpu_elem_ptr(m, a_at, t->dt, cpu_i64(m, i * t->a_row)), 1, NULL);
        LLVMValueRef av = cpu_splat(m, x, lanes);
        for (int j = 0; j < t->nv; j++) {
            int at = i * t->nv + j;
            acc[at] = multiply_add(m, t, av, bv[j], loop.carried[at]);
        }
    }
    acc[n] = cpu_elem_ptr(m, a_at, t->dt, cpu_i64(m, t->a_k));
    acc[n + 1] = cpu_elem_ptr(m, b_at, t->dt, cpu_i64(m, t->b_k));
    cpu_loop_end(m, &loop, acc);
    for (int i = 0; i < n + 2; i++) acc[i] = loop.carried[i];
}

/* The same over [0, kc), a line fetched before every t->ahead steps. */
static void tile_loop_ahead(CpuModule *m, const MmTile *t, LLVMValueRef kc, LLVMValueRef step,
                            LLVMValueRef *acc)
{
    uint32_t n = (uint32_t)(t->mr * t->nv) + 3;
    CpuLoop loop = cpu_loop_begin(m, cpu_i64(m, 0), kc, t->ahead, acc, n);
    for (uint32_t i = 0; i < n; i++) acc[i] = loop.carried[i];
    cpu_prefetch(m, acc[n - 1]);
    acc[n - 1] = LLVMBuildGEP2(m->b, m->i8_t, acc[n - 1], &step, 1, "");
    tile_loop(m, t, loop.index, mm_min(m, kc, mm_add(m, loop.index, cpu_i64(m, t->ahead))), acc);
    cpu_loop_end(m, &loop, acc);
    for (uint32_t i = 0; i < n; i++) acc[i] = loop.carried[i];
}

LLVMValueRef mm_tile(CpuModule *m, const MmTile *t)
{
    char name[128];
    snprintf(name, sizeof name, "zm_tile_%s_%dx%d_%lld_%lld_%lld_%d",
             t->is_pairs ? "pairs" : dtype_name(t->dt), t->mr, t->nv, (long long)t->a_row,
             (long long)t->a_k, (long long)t->b_k, t->ahead);
    LLVMValueRef found = LLVMGetNamedFunction(m->mod, name);
    if (found) return found;
    ZM_CHECK(t->mr * t->nv <= MAX_ACC);
    MmFn f = mm_fn_begin(m, name, tile_type(m));
    LLVMValueRef kc = LLVMGetParam(f.fn, 3);
    TileC c = tile_c(m, t, LLVMGetParam(f.fn, 2), LLVMGetParam(f.fn, 4));
    LLVMValueRef acc[CARRIES];
    tile_init(m, t, &c, LLVMGetParam(f.fn, 5), acc);
    acc[c.n] = LLVMGetParam(f.fn, 0);
    acc[c.n + 1] = LLVMGetParam(f.fn, 1);
    acc[c.n + 2] = LLVMGetParam(f.fn, 6);
    if (t->ahead)
        tile_loop_ahead(m, t, kc, LLVMGetParam(f.fn, 7), acc);
    else
        tile_loop(m, t, cpu_i64(m, 0), kc, acc);
    for (uint32_t i = 0; i < c.n; i++)
        cpu_store(m, t->dt, acc[i], c.at[i], mm_lanes(m->target, t->dt), NULL);
    mm_fn_end(m, &f);
    return f.fn;
}
