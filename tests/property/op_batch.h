/* op_batch.h -- for tests of back ends: one instance of each op in one module, run by a back end
 * and compared with the interpreter.
 *
 *   values     in f32, bf16 and f16: within the op's tolerance in ops.def; an op whose tolerance is
 *              that of a sum (-1) within n eps n M^2 for n terms of magnitude M^2.  16-bit results
 *              are computed in f32 and rounded, so they may be an ulp of theirs further off.
 *   gradients  the gradient by every operand in f64: within 1e4 u (1 + |g|), as gradcheck.c
 *              compares expanded ops
 *   partial    attention of which one result alone is used */
#ifndef ZM_TESTS_OP_BATCH_H
#define ZM_TESTS_OP_BATCH_H

#include <float.h>

#include "codegen/codegen.h"
#include "tests/property/samples.h"

static SampleFn *const samples[N_OP] = {
    SAMPLES_OF_VIEWS,
    SAMPLES_OF_ROWS,
    SAMPLES_OF_PRODUCTS,
    [OP_CROSS_ENTROPY_GRAD] = sample_cross_entropy_grad,
};

enum { MAX_RESULTS = 256 };

typedef struct Batch {
    Prop p;
    bool rounds_operands; /* the back end rounds what attention multiplies to 16 bits */
    OpCode code[MAX_RESULTS];
    ValueId value[MAX_RESULTS];
    uint32_t n;
} Batch;

static bool is_point(OpCode code)
{
    return op_info(code)->traits & TR_POINTWISE && !samples[code];
}

static void add_samples(Batch *b, bool with_gradient)
{
    for (int code = OP_NONE + 1; code < N_OP; code++) {
        const OpInfo *info = op_info((OpCode)code);
        bool point = is_point((OpCode)code) && info->lower;
        if (!point && !samples[code]) continue;
        bool has_none = code == OP_CROSS_ENTROPY_GRAD ||
                        (point && (!info->grad || strcmp(info->grad, "none") == 0));
        if (with_gradient && has_none) continue;
        ZM_CHECK(b->n < MAX_RESULTS);
        b->code[b->n] = (OpCode)code;
        b->value[b->n++] = point ? sample_point(&b->p, (OpCode)code) : samples[code](&b->p);
    }
}

static void run_passes(Batch *b, const char *text, CodegenTarget *t)
{
    PipelineRun run = {.check_changed = true};
    run.opt = (PassOptions){.ranks = 1, .workspace_bytes = codegen_workspace_bytes, .target = t};
    if (pipeline_run(b->p.m, text, &run) == ZM_OK) return;
    diag_print(&b->p.diag, stderr);
    abort();
}

/* Results of the planned module, allocated in the batch's arena; NULL: it failed, or two orders of
 * the work gave different bits. */
typedef EvalTensor *RunBatch(Batch *b, const CodegenTarget *t);

/* ---- values ---- */

static double ulp_of(DType dt, double v)
{
    int e, digits = dt == DT_BF16 ? 8 : dt == DT_F16 ? 11 : dt == DT_F32 ? 24 : 53;
    int least = dt == DT_F16 ? -24 : dt == DT_F64 ? -1074 : dt == DT_BF16 ? -133 : -149;
    if (v == 0) return ldexp(1, least);
    frexp(v, &e);
    return ldexp(1, e - digits > least ? e - digits : least);
}

/* Of the operands: elements of the largest, and M, their greatest magnitude. */
static void operand_sizes(const Batch *b, double *n, double *most)
{
    *n = *most = 1;
    for (uint32_t v = 0; v < b->p.n_vars; v++) {
        int64_t elems = type_elems(var_cget(b->p.m, b->p.var[v].var)->type);
        if ((double)elems > *n) *n = (double)elems;
        for (int64_t i = 0; i < elems; i++)
            if (isfinite(b->p.var[v].at[i]) && fabs(b->p.var[v].at[i]) <= 3) /* not SD_SPECIAL */
                *most = fmax(*most, fabs(b->p.var[v].at[i]));
    }
}

/* n eps n M^2: n terms, each a product of two numbers up to M. */
static double sum_bound(const Batch *b, DType dt)
{
    double n, most;
    operand_sizes(b, &n, &most);
    return n * n * most * most * (dt == DT_F64 ? DBL_EPSILON : FLT_EPSILON);
}

/* A 16-bit scatter rounds after each row: N_ROWS times half an ulp of a sum of N_ROWS + 1. */
static double scatter_bound(const Batch *b, DType dt)
{
    enum { N_ROWS = 10 }; /* of sample_scatter_add */
    double n, most;
    operand_sizes(b, &n, &most);
    return N_ROWS * ulp_of(dt, (N_ROWS + 1) * most) / 2;
}

/* Probabilities, at most 1 / (1 - p) < 2, and score gradients, at most 2 (sum over Dv < 3 of M^2)
 * times the scale 0.7, rounded to 16 bits before a sum of at most 5 products with numbers up to M.
 */
static double attention_bound(const Batch *b, DType dt)
{
    double n, most, half = dt == DT_BF16 ? 0x1p-8 : 0x1p-11;
    operand_sizes(b, &n, &most);
    return 5 * half * most * fmax(2, 2 * 0.7 * 2 * 2 * most * most);
}

static double tolerance(const Batch *b, OpCode code, DType dt, double want)
{
    double ulps = op_info(code)->tol_ulp;
    if (dtype_class(dt) != DTC_FLOAT) return 0;
    bool is_half = dt == DT_BF16 || dt == DT_F16;
    if (is_half && b->rounds_operands && (code == OP_SDPA || code == OP_SDPA_GRAD))
        return attention_bound(b, dt) + ulp_of(dt, want);
    if (is_half && code == OP_SCATTER_ADD) return scatter_bound(b, dt);
    DType in = is_half ? DT_F32 : dt; /* computed in it, then rounded */
    double bound = ulps < 0 ? sum_bound(b, in) : ulps * ulp_of(in, want);
    return is_half && ulps != 0 ? bound + ulp_of(dt, want) : bound;
}

static int check_values(const char *target, Batch *b, const EvalTensor *want, const EvalTensor *got)
{
    int bad = 0;
    for (uint32_t r = 0; r < b->n; r++)
        for (int64_t i = 0; i < type_elems(want[r].type); i++) {
            double w = want[r].at[i], g = got[r].at[i];
            if (prop_same_bits(w, g) || w == g) continue;
            if (fabs(w - g) <= tolerance(b, b->code[r], want[r].type->dtype, w)) continue;
            fprintf(stderr, "%s %s %s variant %d: [%lld] is %.9g, interpreter %.9g (%.3g ulp)\n",
                    target, op_info(b->code[r])->name, dtype_name(want[r].type->dtype),
                    b->p.variant, (long long)i, g, w, fabs(g - w) / ulp_of(want[r].type->dtype, w));
            bad++;
            break;
        }
    return bad;
}

static int test_values(const char *target, CodegenTarget *t, RunBatch *runs, bool rounds_operands,
                       DType dt, int variant)
{
    Batch *b = calloc(1, sizeof *b);
    prop_open(&b->p, 77u + (uint64_t)variant, dt);
    b->p.variant = variant;
    b->rounds_operands = rounds_operands;
    t->arena = &b->p.arena;
    t->diag = &b->p.diag;
    add_samples(b, false);
    build_return(&b->p.b, b->value, b->n, NULL);
    EvalTensor *want = prop_run(&b->p, b->p.f, false);
    run_passes(b, "expand,canon,cse,dce,fuse,workspace,schedule,memplan", t);
    EvalTensor *got = runs(b, t);
    int bad = got ? check_values(target, b, want, got) : 1;
    if (!got)
        fprintf(stderr, "%s variant %d: did not run, or its order changes results\n", target,
                variant);
    prop_close(&b->p);
    free(b);
    return bad;
}

/* ---- gradients ---- */

static void add_loss(Batch *b)
{
    Builder *bb = &b->p.b;
    ValueId sum = build_const(bb, 0, DT_F64);
    for (uint32_t i = 0; i < b->n; i++) {
        ValueId y = build_cast(bb, b->value[i], DT_F64);
        const Type *t = value_type(b->p.f, y);
        ValueId r = prop_input(&b->p, t);
        for (int64_t e = 0; e < type_elems(t); e++)
            b->p.in[b->p.n_in - 1].at[e] = prop_draw(&b->p, SD_NONZERO);
        ValueId v = build_binary(bb, OP_MUL, y, r);
        int64_t dims[ZM_MAX_RANK] = {0, 1, 2, 3, 4, 5, 6, 7};
        if (t->rank) v = build_reduce(bb, OP_REDUCE_SUM, v, dims, (uint32_t)t->rank);
        sum = build_binary(bb, OP_ADD, sum, v);
    }
    ValueId results[] = {sum, build_const(bb, 1, DT_F64)};
    build_return(bb, results, 2, "loss,weight");
    b->p.m->facts |= FACT_HAS_LOSS;
}

static int test_gradients(const char *target, CodegenTarget *t, RunBatch *runs, int variant)
{
    Batch *b = calloc(1, sizeof *b);
    prop_open(&b->p, 99u + (uint64_t)variant, DT_F64);
    b->p.variant = variant;
    t->arena = &b->p.arena;
    t->diag = &b->p.diag;
    add_samples(b, true);
    add_loss(b);
    run_passes(b, "autodiff,canon,cse,dce,expand,canon,cse,dce", t);
    EvalTensor *want = prop_run(&b->p, b->p.f, false);
    run_passes(b, "fuse,workspace,schedule,memplan", t);
    EvalTensor *got = runs(b, t);
    int bad = !got;
    for (uint32_t r = 0; got && r < eval_n_results(b->p.f); r++)
        for (int64_t i = 0; i < type_elems(want[r].type); i++) {
            double w = want[r].at[i], g = got[r].at[i];
            if (prop_same_bits(w, g) || fabs(w - g) <= 1e4 * 0x1p-53 * (1 + fabs(w))) continue;
            fprintf(stderr, "%s variant %d: %s[%lld] is %.17g, interpreter %.17g\n", target,
                    variant, eval_result_name(&b->p.arena, b->p.f, r), (long long)i, g, w);
            bad++;
            break;
        }
    prop_close(&b->p);
    free(b);
    return bad;
}

/* ---- results that nothing uses ---- */

/* Attention of which only result `which` is wanted: 0, 1 of sdpa; 2, 3, 4 are d q, d k, d v. */
static int test_partial(const char *target, CodegenTarget *t, RunBatch *runs, int which)
{
    Batch *b = calloc(1, sizeof *b);
    prop_open(&b->p, 55u + (uint64_t)which, DT_F32);
    b->p.variant = 1;
    t->arena = &b->p.arena;
    t->diag = &b->p.diag;
    ValueId in[8];
    AttrList l = {0};
    uint32_t n = sample_attention(&b->p, in, &l);
    OpId op = build_op(&b->p.b, OP_SDPA, in, n, &l);
    if (which >= 2) {
        in[3] = op_cget(b->p.f, op)->out[0];
        in[4] = op_cget(b->p.f, op)->out[1];
        const Type *out = value_type(b->p.f, in[3]);
        in[5] = prop_real_of(&b->p, out, SD_ANY);
        op = build_op(&b->p.b, OP_SDPA_GRAD, in, 6, &l);
    }
    b->code[0] = which < 2 ? OP_SDPA : OP_SDPA_GRAD;
    b->value[b->n++] = op_cget(b->p.f, op)->out[which < 2 ? which : which - 2];
    build_return(&b->p.b, b->value, b->n, NULL);
    EvalTensor *want = prop_run(&b->p, b->p.f, false);
    run_passes(b, "expand,canon,cse,dce,fuse,workspace,schedule,memplan", t);
    EvalTensor *got = runs(b, t);
    int bad = got ? check_values(target, b, want, got) : 1;
    prop_close(&b->p);
    free(b);
    return bad;
}

#endif
