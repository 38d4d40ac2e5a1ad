/* attention_ref.h -- for tests of attention kernels on any target: cases, operands, buffers and the
 * formulas in f64 with error bounds.  Odd shapes, strided operands, masks, bias and dropout.
 *
 * Bounds (u = 2^-24, or 2^-53 for f64; first order): a score x is off by dx <= (D + 4) u (scale sum
 * |q||k| + |bias|); so a probability is off by the factor 1 + e, e = 2 max dx + (S + 16) u (sum and
 * exp), and out by e sum Z P |v| + (S + 2) u of the same sum.  The backward follows the same sums
 * term by term in `expect_backward`. */
#ifndef ZM_TESTS_ATTENTION_REF_H
#define ZM_TESTS_ATTENTION_REF_H

#include <math.h>
#include <stdio.h>

#include "ir/base/philox.h"
#include "tests/unit/test_memory.h"

typedef enum {
    ROWS,
    SLICED,
    COLUMNS
} Layout; /* [B,H,T,D]; slices of [B,T,3HD] and out [B,T,HD]; [B,H,D,T] */

typedef struct Case {
    int64_t B, H, T, S, D, Dv;
    bool is_causal, has_mask, has_bias;
    double p;
    Layout layout;
    DType dt; /* of q, k, v, out and their gradients */
} Case;

enum { Q, K, V, MASK, BIAS, KEY, STREAM, OUT, LSE, DOUT, DQ, DK, DV, N_OPERAND };

/* An operand: dtype, dims [B, H, T, D] and strides; mask and bias are [B, 1, T, S] and [1, H, T, S]
 * by stride 0. */
typedef struct Operand {
    bool is_present;
    DType dt;
    int64_t dim[4], stride[4], base, elems;
    int arg;
} Operand;

static inline void operand_set(Operand *o, DType dt, int64_t b, int64_t h, int64_t t, int64_t d,
                               Layout layout)
{
    *o = (Operand){.is_present = true, .dt = dt, .dim = {b, h, t, d}, .elems = b * h * t * d};
    int64_t rows[4] = {h * t * d, t * d, d, 1}, sliced[4] = {t * h * d, d, h * d, 1},
            columns[4] = {h * t * d, t * d, 1, t};
    const int64_t *from = layout == ROWS ? rows : layout == SLICED ? sliced : columns;
    memcpy(o->stride, from, sizeof rows);
}

static inline void operands_of(const Case *c, Operand *o)
{
    memset(o, 0, N_OPERAND * sizeof *o);
    operand_set(&o[Q], c->dt, c->B, c->H, c->T, c->D, c->layout);
    operand_set(&o[K], c->dt, c->B, c->H, c->S, c->D, c->layout);
    operand_set(&o[V], c->dt, c->B, c->H, c->S, c->Dv, c->layout);
    operand_set(&o[OUT], c->dt, c->B, c->H, c->T, c->Dv, c->layout);
    operand_set(&o[LSE], DT_F32, c->B, c->H, c->T, 1, ROWS);
    o[DOUT] = o[OUT];
    o[DQ] = o[Q];
    o[DK] = o[K];
    o[DV] = o[V];
    if (c->has_mask) {
        operand_set(&o[MASK], DT_I1, c->B, 1, c->T, c->S, ROWS);
        o[MASK].stride[1] = 0;
    }
    if (c->has_bias) {
        operand_set(&o[BIAS], DT_F32, 1, c->H, c->T, c->S, ROWS);
        o[BIAS].stride[0] = 0;
    }
    if (c->p > 0) operand_set(&o[KEY], DT_I32, 1, 1, 1, 4, ROWS);
    if (c->p > 0) operand_set(&o[STREAM], DT_I32, 1, 1, 1, 2, ROWS);
}

/* q, k, v (and their gradients) as slices of one argument [B, T, 3HD]; only where S = T and Dv = D.
 */
static inline void slice_together(const Case *c, Operand *o, int first)
{
    int64_t width = 3 * c->H * c->D;
    for (int i = 0; i < 3; i++) {
        Operand *x = &o[first + i];
        x->stride[0] = c->T * width;
        x->stride[2] = width;
        x->base = i * c->H * c->D;
        x->elems = c->B * c->T * width;
    }
}

typedef struct Built {
    Kernel k;
    Operand o[N_OPERAND];
    bool is_rounded; /* the kernel rounds probabilities and gradients of scores to the operands'
                        dtype before it multiplies them, as tensor cores want it */
} Built;

static inline void add_operand(Built *x, int which, AttnOperand *to, bool is_out, int shares)
{
    Operand *o = &x->o[which];
    *to = (AttnOperand){.arg = -1, .dtype = o->dt};
    if (!o->is_present) return;
    o->arg = shares >= 0 ? x->o[shares].arg : (int)x->k.n_args;
    if (shares < 0)
        x->k.args[x->k.n_args++] =
            (KernelArg){.dtype = o->dt, .elems = o->elems, .is_out = is_out, .alias_in = -1};
    to->arg = o->arg;
    to->base = o->base;
    memcpy(to->stride, o->stride, sizeof to->stride);
}

static inline Built *build(Arena *a, const Case *c, bool is_backward)
{
    Built *x = ARENA_NEW(a, Built);
    x->k.kind = KK_ATTENTION;
    x->k.label = "test";
    AttnSpec *s = &x->k.attn;
    *s = (AttnSpec){.is_backward = is_backward,
                    .is_causal = c->is_causal,
                    .B = c->B,
                    .H = c->H,
                    .T = c->T,
                    .S = c->S,
                    .D = c->D,
                    .Dv = c->Dv,
                    .scale = 1 / sqrt((double)c->D),
                    .p = c->p};
    operands_of(c, x->o);
    bool is_sliced = c->layout == SLICED;
    if (is_sliced) slice_together(c, x->o, Q);
    if (is_sliced) slice_together(c, x->o, DQ);
    add_operand(x, Q, &s->q, false, -1);
    add_operand(x, K, &s->k, false, is_sliced ? Q : -1);
    add_operand(x, V, &s->v, false, is_sliced ? Q : -1);
    add_operand(x, MASK, &s->mask, false, -1);
    add_operand(x, BIAS, &s->bias, false, -1);
    add_operand(x, KEY, &s->key, false, -1);
    add_operand(x, STREAM, &s->stream, false, -1);
    add_operand(x, OUT, &s->out, !is_backward, -1);
    add_operand(x, LSE, &s->lse, !is_backward, -1);
    s->dout.arg = s->dq.arg = s->dk.arg = s->dv.arg = -1;
    if (!is_backward) return x;
    add_operand(x, DOUT, &s->dout, false, -1);
    add_operand(x, DQ, &s->dq, true, -1);
    add_operand(x, DK, &s->dk, true, is_sliced ? DQ : -1);
    add_operand(x, DV, &s->dv, true, is_sliced ? DQ : -1);
    return x;
}

/* ---- buffers ---- */

typedef struct Bufs {
    Guarded g[N_OPERAND + 1];
    char *at[N_OPERAND + 1];
    uint32_t n;
} Bufs;

static inline int64_t elem_of(const Operand *o, int64_t b, int64_t h, int64_t t, int64_t d)
{
    return o->base + b * o->stride[0] + h * o->stride[1] + t * o->stride[2] + d * o->stride[3];
}

static inline double elem_get(const Built *x, const Bufs *f, int which, int64_t b, int64_t h,
                              int64_t t, int64_t d)
{
    const Operand *o = &x->o[which];
    return mem_get(f->at[o->arg], o->dt, elem_of(o, b, h, t, d));
}

static inline void elem_set(const Built *x, const Bufs *f, int which, int64_t b, int64_t h,
                            int64_t t, int64_t d, double v)
{
    const Operand *o = &x->o[which];
    mem_set(f->at[o->arg], o->dt, elem_of(o, b, h, t, d), dtype_round(o->dt, v));
}

static inline Bufs bufs_new(const Built *x, bool at_start)
{
    Bufs f = {.n = x->k.n_args};
    uint64_t state = 5;
    for (uint32_t i = 0; i < f.n; i++) {
        const KernelArg *a = &x->k.args[i];
        size_t size = (size_t)dtype_bytes(a->dtype);
        f.g[i] = guarded_new((size_t)a->elems * size, size, at_start);
        f.at[i] = f.g[i].at;
        for (int64_t e = 0; e < a->elems; e++) {
            double v = 2 * test_uniform(&state);
            if (a->dtype == DT_I1) v = test_random(&state) % 4 != 0;
            if (a->dtype == DT_I32) v = (double)(e * 1234567 + 89);
            mem_set(f.at[i], a->dtype, e, v);
        }
    }
    return f;
}

static inline void bufs_free(Bufs *f)
{
    for (uint32_t i = 0; i < f->n; i++) guarded_free(&f->g[i]);
}

/* ---- reference ---- */

/* Of one (b, h): score, probability, dropout factor, and the scores' error bounds. */
typedef struct Head {
    const Case *c;
    const Built *x;
    const Bufs *f;
    int64_t b, h;
    double *prob, *z, *dx;  /* [T][S] */
    double *lse;            /* [T] */
    double u, u_stored;     /* unit roundoff of the arithmetic, of the results' dtype */
    double u_operand, tiny; /* of probabilities and score gradients as operands; f16's subnormals */
} Head;

static inline double get(const Head *r, int which, int64_t t, int64_t d)
{
    return elem_get(r->x, r->f, which, r->b, r->h, t, d);
}

static inline double drop_factor(const Head *r, int64_t t, int64_t s)
{
    if (r->c->p <= 0) return 1;
    const uint32_t *key = (const uint32_t *)r->f->at[r->x->o[KEY].arg] + r->x->o[KEY].base;
    uint32_t e = (uint32_t)((r->h * r->c->T + t) * r->c->S + s);
    const uint32_t *stream = (const uint32_t *)r->f->at[r->x->o[STREAM].arg];
    Philox w = philox(e, key[3] + (uint32_t)r->b, key[2], stream[0], key[0], key[1] ^ stream[1]);
    return (w.x[0] >> 8) / 16777216.0 >= r->c->p ? 1 / (1 - r->c->p) : 0;
}

static inline bool is_attended(const Head *r, int64_t t, int64_t s)
{
    if (r->c->is_causal && s > t + r->c->S - r->c->T) return false;
    const Operand *o = &r->x->o[MASK];
    return !r->c->has_mask || r->f->at[o->arg][elem_of(o, r->b, r->h, t, s)] != 0;
}

static inline void expect_row(Head *r, int64_t t)
{
    const Case *c = r->c;
    double scale = r->x->k.attn.scale, most = -INFINITY, sum = 0, worst = 0;
    double *prob = r->prob + t * c->S, *dx = r->dx + t * c->S;
    for (int64_t s = 0; s < c->S; s++) {
        double dot = 0, mag = 0, bias = c->has_bias ? get(r, BIAS, t, s) : 0;
        for (int64_t d = 0; d < c->D; d++) {
            dot += get(r, Q, t, d) * get(r, K, s, d);
            mag += fabs(get(r, Q, t, d) * get(r, K, s, d));
        }
        prob[s] = is_attended(r, t, s) ? scale * dot + bias : -INFINITY;
        dx[s] = (double)(c->D + 4) * r->u * (scale * mag + fabs(bias));
        if (dx[s] > worst) worst = dx[s];
        if (prob[s] > most) most = prob[s];
    }
    for (int64_t s = 0; s < c->S; s++) sum += isinf(most) ? 0 : exp(prob[s] - most);
    r->lse[t] = most + log(sum);
    for (int64_t s = 0; s < c->S; s++) {
        prob[s] = isinf(most) ? 0 : exp(prob[s] - r->lse[t]);
        double stored = r->x->k.attn.is_backward && !isinf(most) ? 0x1p-24 * fabs(r->lse[t]) : 0;
        /* exp's argument loses u of the numbers that it is the difference of */
        dx[s] = 2 * worst + stored +
                (double)(c->S + 16) * r->u *
                    (1 + fabs(isinf(most) ? 0 : r->lse[t]) + fabs(log(prob[s] + 1e-30)));
        r->z[t * c->S + s] = drop_factor(r, t, s);
    }
}

static inline Head head_new(Arena *a, const Case *c, const Built *x, const Bufs *f)
{
    Head r = {.c = c, .x = x, .f = f, .u = 0x1p-24};
    if (c->dt == DT_F64) r.u = 0x1p-53;
    r.u_stored = c->dt == DT_BF16 ? 0x1p-8 : c->dt == DT_F16 ? 0x1p-11 : r.u;
    if (x->is_rounded) r.u_operand = r.u_stored;
    if (x->is_rounded && c->dt == DT_F16) r.tiny = 0x1p-25;
    if (x->is_rounded) r.u *= 2; /* tensor cores cut off what they align */
    r.prob = ARENA_ARRAY(a, double, c->T * c->S);
    r.z = ARENA_ARRAY(a, double, c->T * c->S);
    r.dx = ARENA_ARRAY(a, double, c->T * c->S);
    r.lse = ARENA_ARRAY(a, double, c->T);
    return r;
}

/* Of a result's rounding; half the distance of subnormals, which is large in f16. */
static inline double stored_error(const Head *r, double want)
{
    return r->u_stored * fabs(want) + (r->c->dt == DT_F16 ? 0x1p-25 : 0);
}

static inline bool is_within(double have, double want, double bound)
{
    if (isinf(want)) return have == want;
    return fabs(have - want) <= bound + 1e-30;
}

static inline int wrong(const char *what, const Case *c, int64_t b, int64_t h, int64_t t, int64_t d,
                        double have, double want, double bound)
{
    fprintf(stderr,
            "%s B%lld H%lld T%lld S%lld D%lld,%lld causal %d p %g: [%lld,%lld,%lld,%lld] is %.9g, "
            "not %.9g (+- %g)\n",
            what, (long long)c->B, (long long)c->H, (long long)c->T, (long long)c->S,
            (long long)c->D, (long long)c->Dv, c->is_causal, c->p, (long long)b, (long long)h,
            (long long)t, (long long)d, have, want, bound);
    return 1;
}

/* Checks (`got` != NULL) or writes into r->f (else) out and lse of the head. */
static inline int expect_forward(Head *r, const Bufs *got)
{
    const Case *c = r->c;
    for (int64_t t = 0; t < c->T; t++) {
        if (!got) elem_set(r->x, r->f, LSE, r->b, r->h, t, 0, r->lse[t]);
        bool has_lse = got && r->x->k.attn.lse.arg >= 0;
        double lse = has_lse ? elem_get(r->x, got, LSE, r->b, r->h, t, 0) : 0;
        double e_lse = isinf(r->lse[t]) ? 0 : r->dx[t * c->S] + 0x1p-24 * fabs(r->lse[t]);
        if (has_lse && !is_within(lse, r->lse[t], e_lse))
            return wrong("lse", c, r->b, r->h, t, 0, lse, r->lse[t], e_lse);
        for (int64_t d = 0; d < c->Dv; d++) {
            double want = 0, bound = 0;
            for (int64_t s = 0; s < c->S; s++) {
                double pz = r->prob[t * c->S + s] * r->z[t * c->S + s], v = get(r, V, s, d);
                want += pz * v;
                bound += pz * fabs(v) *
                             (r->dx[t * c->S + s] + (double)(c->S + 4) * r->u + r->u_operand) +
                         r->tiny * fabs(v);
            }
            bound += stored_error(r, want);
            if (!got) elem_set(r->x, r->f, OUT, r->b, r->h, t, d, want);
            double out = elem_get(r->x, got ? got : r->f, OUT, r->b, r->h, t, d);
            if (got && !is_within(out, want, bound))
                return wrong("out", c, r->b, r->h, t, d, out, want, bound);
        }
    }
    return 0;
}

/* Gradient of the scores times scale, and its error bound. */
static inline void score_gradients(const Head *r, double *ds, double *es)
{
    const Case *c = r->c;
    const double u = r->u, n = (double)c->Dv + 4;
    for (int64_t t = 0; t < c->T; t++) {
        double delta = 0, delta_mag = 0;
        for (int64_t d = 0; d < c->Dv; d++) {
            delta += get(r, DOUT, t, d) * get(r, OUT, t, d);
            delta_mag += fabs(get(r, DOUT, t, d) * get(r, OUT, t, d));
        }
        for (int64_t s = 0; s < c->S; s++) {
            int64_t i = t * c->S + s;
            double dp = 0, mag = 0, scale = r->x->k.attn.scale;
            for (int64_t d = 0; d < c->Dv; d++) {
                dp += get(r, DOUT, t, d) * get(r, V, s, d);
                mag += fabs(get(r, DOUT, t, d) * get(r, V, s, d));
            }
            ds[i] = scale * r->prob[i] * (r->z[i] * dp - delta);
            es[i] = fabs(ds[i]) * (r->dx[i] + 4 * u + r->u_operand) + r->tiny +
                    scale * r->prob[i] * n * u * (r->z[i] * mag + delta_mag);
        }
    }
}

static inline int check_gradient(const Head *r, const Bufs *got, int which, int64_t row, int64_t d,
                                 double want, double bound)
{
    static const char *const names[] = {"dq", "dk", "dv"};
    double have = elem_get(r->x, got, which, r->b, r->h, row, d);
    bound += stored_error(r, want);
    if (is_within(have, want, bound)) return 0;
    return wrong(names[which - DQ], r->c, r->b, r->h, row, d, have, want, bound);
}

static inline int expect_backward(Arena *a, const Head *r, const Bufs *got)
{
    const Case *c = r->c;
    const double u = r->u;
    double *ds = ARENA_ARRAY(a, double, c->T * c->S), *es = ARENA_ARRAY(a, double, c->T * c->S);
    int failed = 0;
    score_gradients(r, ds, es);
    for (int64_t t = 0; t < c->T && !failed; t++)
        for (int64_t d = 0; d < c->D; d++) {
            double want = 0, bound = 0;
            for (int64_t s = 0; s < c->S; s++) {
                want += ds[t * c->S + s] * get(r, K, s, d);
                bound += (es[t * c->S + s] + (double)(c->S + 2) * u * fabs(ds[t * c->S + s])) *
                         fabs(get(r, K, s, d));
            }
            failed += check_gradient(r, got, DQ, t, d, want, bound);
        }
    for (int64_t s = 0; s < c->S && !failed; s++)
        for (int64_t d = 0; d < c->D; d++) {
            double want = 0, bound = 0;
            for (int64_t t = 0; t < c->T; t++) {
                want += ds[t * c->S + s] * get(r, Q, t, d);
                bound += (es[t * c->S + s] + (double)(c->T + 2) * u * fabs(ds[t * c->S + s])) *
                         fabs(get(r, Q, t, d));
            }
            failed += check_gradient(r, got, DK, s, d, want, bound);
        }
    for (int64_t s = 0; s < c->S && !failed; s++)
        for (int64_t d = 0; d < c->Dv; d++) {
            double want = 0, bound = 0;
            for (int64_t t = 0; t < c->T; t++) {
                int64_t i = t * c->S + s;
                double w = r->prob[i] * r->z[i] * get(r, DOUT, t, d);
                want += w;
                bound += fabs(w) * (r->dx[i] + (double)(c->T + 4) * u + r->u_operand) +
                         r->tiny * fabs(get(r, DOUT, t, d));
            }
            failed += check_gradient(r, got, DV, s, d, want, bound);
        }
    return failed;
}

/* ---- running ---- */

/* For every head: fills the reference's out and lse into `in` (got NULL), or checks `got`. */
static inline int for_heads(const Case *c, const Built *x, const Bufs *in, const Bufs *got,
                            bool is_backward)
{
    int failed = 0;
    for (int64_t b = 0; b < c->B; b++)
        for (int64_t h = 0; h < c->H && !failed; h++) {
            Arena a = {0};
            Head r = head_new(&a, c, x, in);
            r.b = b;
            r.h = h;
            for (int64_t t = 0; t < c->T; t++) expect_row(&r, t);
            failed += got && is_backward ? expect_backward(&a, &r, got) : expect_forward(&r, got);
            arena_free(&a);
        }
    return failed;
}

#endif
