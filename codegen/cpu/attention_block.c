/* attention_block.c -- blocks in scratch: load, store, multiply; one vector of scores with its
 * bias, masks and dropout. */
#include <math.h>
#include <stdio.h>

#include "codegen/cpu/attention.h"

static void load_words(CpuModule *m, const AttnOperand *o, LLVMValueRef *out, int n)
{
    LLVMValueRef base = cpu_buffer(m, (uint32_t)o->arg);
    for (int i = 0; i < n; i++)
        out[i] =
            cpu_load(m, DT_I32, cpu_elem_ptr(m, base, DT_I32, cpu_i64(m, o->base + i)), 1, NULL);
}

Attn attn_begin(CpuModule *m, const AttnPlan *p, const char *fn)
{
    cpu_function_begin(m, fn);
    Attn x = {.m = m, .p = p, .s = p->s};
    if (p->s->p > 0) {
        load_words(m, &p->s->key, x.key, 4);
        load_words(m, &p->s->stream, x.stream, 2);
    }
    return x;
}

void attn_set_head(Attn *x, LLVMValueRef flat)
{
    x->b = mm_div(x->m, flat, x->s->H);
    x->h = mm_rem(x->m, flat, x->s->H);
}

LLVMValueRef attn_scratch(Attn *x, int64_t bytes)
{
    LLVMValueRef at = cpu_i64(x->m, bytes);
    return LLVMBuildInBoundsGEP2(x->m->b, x->m->i8_t, x->m->scratch, &at, 1, "");
}

LLVMValueRef attn_at(Attn *x, LLVMValueRef base, LLVMValueRef elem)
{
    return cpu_elem_ptr(x->m, base, x->p->dt, elem);
}

LLVMValueRef attn_const(Attn *x, double v)
{
    return LLVMConstReal(cpu_reg_type(x->m, x->p->dt, 1), v);
}

LLVMValueRef attn_elem(Attn *x, const AttnOperand *o, LLVMValueRef row)
{
    LLVMValueRef e = cpu_mad(x->m, x->b, o->stride[0], cpu_i64(x->m, o->base));
    return cpu_mad(x->m, row, o->stride[2], cpu_mad(x->m, x->h, o->stride[1], e));
}

/* Lanes of an operand along its last dimension, from element `elem`; mask may be NULL. */
static LLVMValueRef load_lanes(Attn *x, const AttnOperand *o, LLVMValueRef elem, int lanes,
                               LLVMValueRef mask)
{
    CpuModule *m = x->m;
    LLVMValueRef base = cpu_buffer(m, (uint32_t)o->arg);
    if (o->stride[3] == 0) {
        LLVMValueRef one = cpu_load(m, o->dtype, cpu_elem_ptr(m, base, o->dtype, elem), 1, NULL);
        return cpu_splat(m, one, lanes);
    }
    if (o->stride[3] == 1 || lanes == 1)
        return cpu_load(m, o->dtype, cpu_elem_ptr(m, base, o->dtype, elem), lanes, mask);
    LLVMValueRef ramp = cpu_lane_ramp(m, m->i64_t, lanes, o->stride[3]);
    LLVMValueRef elems = LLVMBuildAdd(m->b, cpu_splat(m, elem, lanes), ramp, "");
    return cpu_gather(m, o->dtype, base, elems, lanes, mask);
}

/* Calls body over columns [0, cols) of one row: full vectors, then one masked vector, or single
 * columns without masks. */
typedef void (*ColumnBody)(Attn *x, LLVMValueRef c, int lanes, LLVMValueRef mask, void *user);
static void for_columns(Attn *x, int64_t cols, ColumnBody body, void *user)
{
    CpuModule *m = x->m;
    int lanes = x->p->lanes;
    int64_t full = cols / lanes * lanes;
    CpuLoop l = cpu_loop_begin(m, cpu_i64(m, 0), cpu_i64(m, full), lanes, NULL, 0);
    body(x, l.index, lanes, NULL, user);
    cpu_loop_end(m, &l, NULL);
    if (full == cols) return;
    if (m->target->has_avx512) {
        body(x, cpu_i64(m, full), lanes,
             cpu_tail_mask(m, cpu_i64(m, full), cpu_i64(m, cols), lanes), user);
        return;
    }
    l = cpu_loop_begin(m, cpu_i64(m, full), cpu_i64(m, cols), 1, NULL, 0);
    body(x, l.index, 1, NULL, user);
    cpu_loop_end(m, &l, NULL);
}

typedef struct RowCopy {
    const AttnOperand *o;
    LLVMValueRef elem;   /* in the operand, of the row's start */
    LLVMValueRef block;  /* in scratch */
    LLVMValueRef factor; /* NULL or scalar */
} RowCopy;

static void load_columns(Attn *x, LLVMValueRef c, int lanes, LLVMValueRef mask, void *user)
{
    const RowCopy *r = user;
    LLVMValueRef v = load_lanes(x, r->o, cpu_mad(x->m, c, r->o->stride[3], r->elem), lanes, mask);
    v = cpu_cast(x->m, v, r->o->dtype, x->p->dt);
    cpu_store(x->m, x->p->dt, v, attn_at(x, r->block, c), lanes,
              NULL); /* rows are padded: a whole vector fits */
}

void attn_load_block(Attn *x, const AttnOperand *o, int64_t cols, LLVMValueRef row0,
                     LLVMValueRef n_rows, LLVMValueRef dst, int64_t width)
{
    CpuModule *m = x->m;
    CpuLoop row = cpu_loop_begin(m, cpu_i64(m, 0), n_rows, 1, NULL, 0);
    RowCopy r = {.o = o, .elem = attn_elem(x, o, mm_add(m, row0, row.index))};
    r.block = attn_at(x, dst, mm_mul(m, row.index, width));
    for_columns(x, cols, load_columns, &r);
    if (!m->target->has_avx512 && cols < width) {
        CpuLoop pad = cpu_loop_begin(m, cpu_i64(m, cols), cpu_i64(m, width), 1, NULL, 0);
        cpu_store(m, x->p->dt, attn_const(x, 0), attn_at(x, r.block, pad.index), 1, NULL);
        cpu_loop_end(m, &pad, NULL);
    }
    cpu_loop_end(m, &row, NULL);
}

static void store_columns(Attn *x, LLVMValueRef c, int lanes, LLVMValueRef mask, void *user)
{
    const RowCopy *r = user;
    CpuModule *m = x->m;
    const AttnOperand *o = r->o;
    LLVMValueRef v = cpu_load(m, x->p->dt, attn_at(x, r->block, c), lanes, NULL);
    if (r->factor) v = LLVMBuildFMul(m->b, v, cpu_splat(m, r->factor, lanes), "");
    v = cpu_cast(m, v, x->p->dt, o->dtype);
    LLVMValueRef base = cpu_buffer(m, (uint32_t)o->arg),
                 elem = cpu_mad(m, c, o->stride[3], r->elem);
    if (o->stride[3] == 1 || lanes == 1) {
        cpu_store(m, o->dtype, v, cpu_elem_ptr(m, base, o->dtype, elem), lanes, mask);
        return;
    }
    LLVMValueRef ramp = cpu_lane_ramp(m, m->i64_t, lanes, o->stride[3]);
    cpu_scatter(m, o->dtype, v, base, LLVMBuildAdd(m->b, cpu_splat(m, elem, lanes), ramp, ""),
                lanes, mask);
}

void attn_store_block(Attn *x, const AttnOperand *o, int64_t cols, LLVMValueRef row0,
                      LLVMValueRef n_rows, LLVMValueRef src, int64_t width, LLVMValueRef factor)
{
    if (o->arg < 0) return; /* a result that nothing uses */
    CpuModule *m = x->m;
    CpuLoop row = cpu_loop_begin(m, cpu_i64(m, 0), n_rows, 1, NULL, 0);
    RowCopy r = {.o = o, .elem = attn_elem(x, o, mm_add(m, row0, row.index))};
    r.block = attn_at(x, src, mm_mul(m, row.index, width));
    if (factor) r.factor = cpu_load(m, x->p->dt, attn_at(x, factor, row.index), 1, NULL);
    for_columns(x, cols, store_columns, &r);
    cpu_loop_end(m, &row, NULL);
}

void attn_zero_row(Attn *x, LLVMValueRef at, LLVMValueRef lo, LLVMValueRef hi)
{
    CpuModule *m = x->m;
    int lanes = x->p->lanes;
    CpuLoop l = cpu_loop_begin(m, lo, hi, lanes, NULL, 0);
    LLVMValueRef zero = LLVMConstNull(cpu_reg_type(m, x->p->dt, lanes));
    cpu_store(m, x->p->dt, zero, attn_at(x, at, l.index), lanes, NULL);
    cpu_loop_end(m, &l, NULL);
}

void attn_zero(Attn *x, LLVMValueRef at, int64_t n_elems)
{
    attn_zero_row(x, at, cpu_i64(x->m, 0), cpu_i64(x->m, n_elems));
}

/* ---- products ---- */

LLVMValueRef attn_pack_keys(Attn *x)
{
    DType dt = x->p->dt;
    MmPack how = {.from = dt, .to = dt, .width = (int)x->p->k_block, .is_transposed = true};
    return mm_pack(x->m, &how);
}

AttnSeen attn_seen(const Attn *x, AttnSeen seen)
{
    return x->s->is_causal ? seen : ATTN_ALL;
}

LLVMValueRef attn_offset(Attn *x, LLVMValueRef t0, LLVMValueRef s0)
{
    LLVMValueRef t = mm_add(x->m, t0, cpu_i64(x->m, x->s->S - x->s->T));
    return mm_sub(x->m, t, s0);
}

static LLVMTypeRef product_type(CpuModule *m)
{
    LLVMTypeRef in[7] = {m->ptr_t, m->ptr_t, m->ptr_t, m->i64_t, m->i64_t, m->i1_t, m->i64_t};
    return LLVMFunctionType(m->void_t, in, 7, 0);
}

/* Rows r .. of a product: the range of k that is not 0 by the mask, and the columns that are seen.
 */
typedef struct ProductRows {
    LLVMValueRef a, b, c, kc, accumulate;
    LLVMValueRef seen; /* columns before it; NULL: all */
} ProductRows;

static void product_limits(Attn *x, const AttnProduct *s, LLVMValueRef r, LLVMValueRef offset,
                           ProductRows *rows)
{
    CpuModule *m = x->m;
    LLVMValueRef zero = cpu_i64(m, 0);
    if (s->seen == ATTN_A_SEES) { /* the first query that sees key r is r - offset */
        LLVMValueRef k0 = mm_min(m, rows->kc, mm_max(m, zero, mm_sub(m, r, offset)));
        rows->a = attn_at(x, rows->a, mm_mul(m, k0, s->a_k));
        rows->b = attn_at(x, rows->b, mm_mul(m, k0, s->b_k));
        rows->kc = mm_sub(m, rows->kc, k0);
        return;
    }
    if (s->seen == ATTN_ALL) return;
    LLVMValueRef seen = mm_add(m, mm_add(m, r, offset), cpu_i64(m, x->p->tile.mr));
    if (s->seen == ATTN_C_SEEN)
        rows->seen = seen;
    else
        rows->kc = mm_min(m, rows->kc, mm_max(m, zero, seen));
}

/* One row panel by groups of columns of even width. */
static void product_rows(Attn *x, const AttnProduct *s, const ProductRows *rows)
{
    CpuModule *m = x->m;
    const AttnPlan *p = x->p;
    int64_t vectors = s->cols / p->lanes, groups = mm_ceil_div(vectors, p->tile.nv);
    for (int64_t g = 0, at = 0; g < groups; g++) {
        int64_t nv = (vectors - at + groups - g - 1) / (groups - g);
        MmTile tile = {.dt = p->dt,
                       .mr = p->tile.mr,
                       .nv = (int)nv,
                       .a_row = s->a_row,
                       .a_k = s->a_k,
                       .b_k = s->b_k};
        LLVMValueRef col = cpu_i64(m, at * p->lanes);
        MmTileArgs in = {.a = rows->a,
                         .b = attn_at(x, rows->b, col),
                         .c = attn_at(x, rows->c, col),
                         .kc = rows->kc,
                         .ldc = cpu_i64(m, s->ldc),
                         .accumulate = rows->accumulate};
        CpuIf is_seen = {NULL};
        if (rows->seen) is_seen = cpu_if_begin(m, mm_cmp(m, LLVMIntSLT, col, rows->seen));
        mm_tile_call(m, mm_tile(m, &tile), &in);
        if (rows->seen) cpu_if_end(m, &is_seen);
        at += nv;
    }
}

/* void product(a, b, c, n_rows, kc, accumulate, offset) */
static LLVMValueRef product_function(Attn *x, const AttnProduct *s)
{
    CpuModule *m = x->m;
    const AttnPlan *p = x->p;
    char name[160];
    snprintf(name, sizeof name, "zm_product_%s_%lld_%lld_%lld_%lld_%lld_%d", dtype_name(p->dt),
             (long long)s->cols, (long long)s->a_row, (long long)s->a_k, (long long)s->b_k,
             (long long)s->ldc, (int)s->seen);
    LLVMValueRef found = LLVMGetNamedFunction(m->mod, name);
    if (found) return found;
    MmFn f = mm_fn_begin(m, name, product_type(m));
    LLVMValueRef a = LLVMGetParam(f.fn, 0), c = LLVMGetParam(f.fn, 2);
    CpuLoop r = cpu_loop_begin(m, cpu_i64(m, 0), LLVMGetParam(f.fn, 3), p->tile.mr, NULL, 0);
    ProductRows rows = {.a = attn_at(x, a, mm_mul(m, r.index, s->a_row)),
                        .b = LLVMGetParam(f.fn, 1),
                        .c = attn_at(x, c, mm_mul(m, r.index, s->ldc)),
                        .kc = LLVMGetParam(f.fn, 4),
                        .accumulate = LLVMGetParam(f.fn, 5)};
    product_limits(x, s, r.index, LLVMGetParam(f.fn, 6), &rows);
    product_rows(x, s, &rows);
    cpu_loop_end(m, &r, NULL);
    mm_fn_end(m, &f);
    return f.fn;
}

void attn_multiply(Attn *x, const AttnProduct *shape, LLVMValueRef a, LLVMValueRef b,
                   LLVMValueRef c, LLVMValueRef n_rows, LLVMValueRef kc, LLVMValueRef accumulate,
                   LLVMValueRef offset)
{
    LLVMValueRef in[7] = {a, b, c, n_rows, kc, accumulate, offset};
    LLVMBuildCall2(x->m->b, product_type(x->m), product_function(x, shape), in, 7, "");
}

/* ---- scores ---- */

AttnRow attn_row(Attn *x, LLVMValueRef t, LLVMValueRef s0, LLVMValueRef n_keys)
{
    CpuModule *m = x->m;
    AttnRow r = {.t = t, .s0 = s0, .n_visible = n_keys};
    if (!x->s->is_causal) return r;
    LLVMValueRef seen = mm_sub(m, mm_add(m, t, cpu_i64(m, x->s->S - x->s->T + 1)), s0);
    r.n_visible = mm_max(m, cpu_i64(m, 0), mm_min(m, n_keys, seen));
    return r;
}

LLVMValueRef attn_key_end(Attn *x, LLVMValueRef t_end)
{
    CpuModule *m = x->m;
    LLVMValueRef all = cpu_i64(m, x->s->S);
    if (!x->s->is_causal) return all;
    return mm_max(m, cpu_i64(m, 0),
                  mm_min(m, all, mm_add(m, t_end, cpu_i64(m, x->s->S - x->s->T))));
}

LLVMValueRef attn_scores(Attn *x, const AttnRow *row, LLVMValueRef c, LLVMValueRef dot)
{
    CpuModule *m = x->m;
    const AttnSpec *s = x->s;
    int lanes = x->p->lanes;
    LLVMValueRef visible = cpu_tail_mask(m, c, row->n_visible, lanes);
    LLVMValueRef exists = s->S % lanes == 0 ? NULL : visible, key = mm_add(m, row->s0, c);
    LLVMValueRef v = LLVMBuildFMul(m->b, dot, cpu_splat(m, attn_const(x, s->scale), lanes), "");
    if (s->bias.arg >= 0) {
        LLVMValueRef elem = cpu_mad(m, key, s->bias.stride[3], attn_elem(x, &s->bias, row->t));
        LLVMValueRef bias = load_lanes(x, &s->bias, elem, lanes, exists);
        v = LLVMBuildFAdd(m->b, v, cpu_cast(m, bias, s->bias.dtype, x->p->dt), "");
    }
    if (s->mask.arg >= 0) {
        LLVMValueRef elem = cpu_mad(m, key, s->mask.stride[3], attn_elem(x, &s->mask, row->t));
        visible = LLVMBuildAnd(m->b, visible, load_lanes(x, &s->mask, elem, lanes, exists), "");
    }
    return LLVMBuildSelect(m->b, visible, v, cpu_splat(m, attn_const(x, -INFINITY), lanes), "");
}

LLVMValueRef attn_keep(Attn *x, const AttnRow *row, LLVMValueRef c)
{
    CpuModule *m = x->m;
    const AttnSpec *s = x->s;
    if (s->p <= 0) return NULL;
    LLVMValueRef e = cpu_mad(m, x->h, s->T, row->t);
    e = cpu_mad(m, e, s->S, mm_add(m, row->s0, c));
    e = cpu_splat(m, LLVMBuildTrunc(m->b, e, m->i32_t, ""), x->p->lanes);
    e = LLVMBuildAdd(m->b, e, cpu_lane_ramp(m, m->i32_t, x->p->lanes, 1), "");
    LLVMValueRef sample = LLVMBuildTrunc(m->b, x->b, m->i32_t, "");
    LLVMValueRef u = cpu_random(m, x->key, e, sample, x->stream);
    return LLVMBuildFCmp(m->b, LLVMRealOGE, u, cpu_splat(m, cpu_f32(m, s->p), x->p->lanes), "");
}

LLVMValueRef attn_drop(Attn *x, LLVMValueRef keep, LLVMValueRef v)
{
    if (!keep) return v;
    CpuModule *m = x->m;
    LLVMValueRef scaled =
        LLVMBuildFMul(m->b, v, cpu_splat(m, attn_const(x, 1 / (1 - x->s->p)), x->p->lanes), "");
    return LLVMBuildSelect(m->b, keep, scaled, LLVMConstNull(LLVMTypeOf(v)), "");
}

LLVMValueRef attn_exp(Attn *x, LLVMValueRef v)
{
    return cpu_emit_point(x->m, OP_EXP, x->p->dt, x->p->dt, &v);
}

/* Halves until one lane is left. */
static LLVMValueRef fold_lanes(Attn *x, LLVMValueRef v, bool is_max)
{
    CpuModule *m = x->m;
    for (int n = cpu_lanes(v) / 2; n >= 1; n /= 2) {
        LLVMValueRef low[64], high[64], none = LLVMGetPoison(LLVMTypeOf(v));
        for (int i = 0; i < n; i++) {
            low[i] = cpu_i32(m, i);
            high[i] = cpu_i32(m, n + i);
        }
        LLVMValueRef a =
            LLVMBuildShuffleVector(m->b, v, none, LLVMConstVector(low, (unsigned)n), "");
        LLVMValueRef b =
            LLVMBuildShuffleVector(m->b, v, none, LLVMConstVector(high, (unsigned)n), "");
        v = is_max ? cpu_max(m, a, b) : LLVMBuildFAdd(m->b, a, b, "");
    }
    return LLVMBuildExtractElement(m->b, v, cpu_i32(m, 0), "");
}

LLVMValueRef attn_sum_lanes(Attn *x, LLVMValueRef v)
{
    return fold_lanes(x, v, false);
}

LLVMValueRef attn_max_lanes(Attn *x, LLVMValueRef v)
{
    return fold_lanes(x, v, true);
}
