/* fuse_check.h -- the property that fusion must have: the functions of a module mean the same
 * before and after pass fuse, and each kernel form means what its body means, also with outputs on
 * top of the inputs that they may share.
 *
 * All in doubles that are not rounded to their dtypes.  Fusion only moves ops: before and after it
 * is the same to the bit. A kernel form may add up a sum of n terms in another order than the
 * interpreter: each addition is off by eps at most, and what is done with the sum afterwards (a
 * root, a quotient, an exponential of values near 1) by a small factor of it. */
#ifndef ZM_TESTS_FUSE_CHECK_H
#define ZM_TESTS_FUSE_CHECK_H

#include <float.h>
#include <stdio.h>

#include "ir/eval/eval.h"
#include "ir/verify.h"
#include "passes/memory/memory.h"
#include "passes/pass.h"
#include "tests/property/kernel_eval.h"

typedef struct FuseStats {
    uint32_t n_funcs, n_kernels, n_shared; /* shared: outputs that lay on an input */
} FuseStats;

static uint64_t check_seed = 1;

static uint32_t draw(uint32_t n) /* in [0, n) */
{
    check_seed = check_seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(check_seed >> 33) % n;
}

/* Integers below 2: in range of any table; positive reals: in the domain of log and sqrt. */
static void fill(EvalTensor t)
{
    for (int64_t i = 0; i < type_elems(t.type); i++)
        t.at[i] = dtype_class(t.type->dtype) == DTC_FLOAT ? 0.5 + draw(1000) / 1000.0 : draw(2);
}

static bool same(double x, double y, double tolerance)
{
    if (x == y || (isnan(x) && isnan(y))) return true;
    return fabs(x - y) <= tolerance * fmax(1, fmax(fabs(x), fabs(y)));
}

static bool same_tensors(const char *what, uint32_t index, int64_t n, const double *x,
                         const double *y, double tolerance)
{
    for (int64_t i = 0; i < n; i++) {
        if (same(x[i], y[i], tolerance)) continue;
        printf("%s: result %u element %lld: %.17g, expected %.17g\n", what, index, (long long)i,
               y[i], x[i]);
        return false;
    }
    return true;
}

static Eval *check_eval(Arena *a, const Module *m)
{
    Eval *e = eval_new(a, m);
    e->is_unrounded = true;
    uint64_t keep = check_seed;
    check_seed = 99;
    for (uint32_t v = 1; v < m->vars.n; v++) {
        EvalTensor t = {m->vars.at[v].type, eval_var(e, (VarId){v})};
        if (!var_ok(m->vars.at[v].in)) fill(t);
    }
    check_seed = keep;
    return e;
}

static EvalTensor *func_run(Arena *a, Eval *e, const Func *f, const EvalTensor *in)
{
    EvalTensor *out = ARENA_ARRAY(a, EvalTensor, eval_n_results(f));
    ZM_CHECK(eval_run(e, f, in, a, out) == ZM_OK);
    return out;
}

/* Terms in the sums behind one element. */
static double n_summed(const Kernel *k)
{
    double n = 1;
    for (uint32_t l = 0; l < k->n_loops; l++)
        if (k->loops[l].kind == LOOP_RED || k->loops[l].kind == LOOP_K)
            n *= (double)k->loops[l].extent;
    return k->kind == KK_ATTENTION ? (double)((k->attn.S + k->attn.T) * (k->attn.D + k->attn.Dv))
                                   : n;
}

typedef enum { SHARE_NONE, SHARE_FORM, SHARE_PLAN, N_SHARE } Share;

static bool is_loaded(const Kernel *k, int32_t arg)
{
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (k->nodes[i].kind == KN_LOAD && k->accesses[k->nodes[i].index].arg == arg) return true;
    return false;
}

/* The input on whose memory output `arg` lies: what the form allows, or the first that the memory
 * plan would take; -1: none.  A scatter starts from its alias_in, which is more than sharing it. */
static int32_t shared_input(Arena *a, const Func *f, OpId op, const Kernel *k, uint32_t arg,
                            Share share, const bool *is_taken)
{
    uint32_t n_in = op_cget(f, op)->n_in;
    int32_t in = k->args[arg].alias_in;
    if (share == SHARE_FORM)
        return in >= 0 && !(k->kind == KK_SCATTER && is_loaded(k, in)) ? in : -1;
    for (uint32_t i = 0; i < n_in && share == SHARE_PLAN; i++)
        if (!is_taken[i] && fused_may_alias(a, f, op, arg - n_in, i)) return (int32_t)i;
    return -1;
}

/* Outputs start as NaN, or lie on an input. */
static bool kernel_agrees(Arena *a, const Func *f, OpId op, const Kernel *k, Share share,
                          FuseStats *stats)
{
    const Func *body = op_cget(f, op)->body;
    EvalTensor *in = ARENA_ARRAY(a, EvalTensor, body->params.n);
    double *mem[KERNEL_MAX_ARGS];
    bool is_taken[KERNEL_MAX_ARGS] = {false};
    for (uint32_t i = 0; i < body->params.n; i++) {
        in[i] = eval_tensor(a, value_type(body, body->params.at[i]));
        fill(in[i]);
        mem[i] = ARENA_ARRAY(a, double, k->args[i].elems);
        memcpy(mem[i], in[i].at, (size_t)k->args[i].elems * sizeof(double));
    }
    uint32_t end = k->n_args - (k->n_consts > 0); /* of the outputs */
    if (k->n_consts) mem[end] = ARENA_ARRAY(a, double, k->n_consts);
    for (uint32_t i = 0; i < k->n_consts; i++) mem[end][i] = k->consts[i];
    for (uint32_t i = body->params.n; i < end; i++) {
        int32_t from = shared_input(a, f, op, k, i, share, is_taken);
        mem[i] = from >= 0 ? mem[from] : ARENA_ARRAY(a, double, k->args[i].elems);
        for (int64_t e = 0; e < k->args[i].elems && from < 0; e++) mem[i][e] = NAN;
        if (from < 0) continue;
        stats->n_shared++;
        is_taken[from] = true;
    }
    EvalTensor *want = func_run(a, check_eval(a, f->m), body, in);
    kernel_run(a, k, mem);
    double tolerance = 64 * DBL_EPSILON * n_summed(k);
    for (uint32_t i = body->params.n; i < end; i++)
        if (!same_tensors(k->label, i - body->params.n, k->args[i].elems,
                          want[i - body->params.n].at, mem[i], tolerance))
            return false;
    return true;
}

static bool check_kernels(Arena *a, const Func *f, FuseStats *stats)
{
    FOR_OPS(f, op)
    {
        const Op *o = op_cget(f, op);
        if (o->code != OP_FUSED) continue;
        Kernel *k = kernel_build(a, f, op);
        if (!k) return false;
        stats->n_kernels++;
        for (Share share = SHARE_NONE; share < N_SHARE; share++) {
            Arena tmp = {0};
            bool ok = kernel_agrees(&tmp, f, op, k, share, stats);
            arena_free(&tmp);
            if (ok) continue;
            Str s = {0};
            kernel_print(k, &s);
            printf("sharing %d\n%s", share, str_c(&s));
            str_free(&s);
            return false;
        }
    }
    return true;
}

static Eval *run_all(Arena *a, const Module *m, EvalTensor **out)
{
    Eval *e = check_eval(a, m);
    check_seed = 7;
    for (uint32_t i = 0; i < m->funcs.n; i++) {
        const Func *f = m->funcs.at[i];
        EvalTensor *in = ARENA_ARRAY(a, EvalTensor, f->params.n);
        for (uint32_t p = 0; p < f->params.n; p++)
            fill(in[p] = eval_tensor(a, value_type(f, f->params.at[p])));
        out[i] = func_run(a, e, f, in);
    }
    return e;
}

/* m: only primitive ops; fused afterwards. */
static inline bool check_fusion(Arena *a, Module *m, FuseStats *stats)
{
    uint64_t keep = check_seed;
    EvalTensor *before[8], *after[8];
    ZM_CHECK(m->funcs.n <= 8);
    Eval *state = run_all(a, m, before);
    PipelineRun run = {.check_changed = true, .opt = {.ranks = 1}};
    if (pipeline_run(m, "fuse", &run) != ZM_OK) return false;
    Eval *fused = run_all(a, m, after);
    for (uint32_t i = 0; i < m->funcs.n; i++) {
        const Func *f = m->funcs.at[i];
        for (uint32_t r = 0; r < eval_n_results(f); r++)
            if (!same_tensors(f->name, r, type_elems(before[i][r].type), before[i][r].at,
                              after[i][r].at, 0))
                return false;
        stats->n_funcs++;
    }
    for (uint32_t v = 1; v < m->vars.n; v++)
        if (!same_tensors(m->vars.at[v].name, 0, type_elems(m->vars.at[v].type),
                          eval_var(state, (VarId){v}), eval_var(fused, (VarId){v}), 0))
            return false;
    check_seed = keep;
    for (uint32_t i = 0; i < m->funcs.n; i++)
        if (!check_kernels(a, m->funcs.at[i], stats)) return false;
    return true;
}

#endif
