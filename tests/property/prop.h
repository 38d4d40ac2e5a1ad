/* prop.h -- what the property tests of passes share: a module with one function, operands drawn
 * from a domain, and runs of it in the interpreter.
 *
 * A float operand is a parameter variable (@p0, @p1, ...) that the function reads, so that autodiff
 * differentiates by it; integers and conditions are inputs. */
#ifndef ZM_TESTS_PROP_H
#define ZM_TESTS_PROP_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ir/eval/eval.h"
#include "passes/pass.h"

enum { PROP_MAX_INPUTS = 512 };

typedef struct Prop {
    Arena arena;
    SourceSet sources;
    Diag diag;
    Module *m;
    Func *f; /* @train */
    Builder b;
    uint64_t rng;
    int variant; /* which shape a sample takes */
    DType dtype; /* of float operands */
    EvalTensor in[PROP_MAX_INPUTS];
    uint32_t n_in;
    struct {
        VarId var;
        double *at;
    } var[PROP_MAX_INPUTS]; /* values of the parameters */
    uint32_t n_vars;
} Prop;

static inline double prop_uniform(Prop *p) /* in [0, 1); splitmix64 */
{
    uint64_t z = p->rng += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static inline int64_t prop_below(Prop *p, int64_t n)
{
    return (int64_t)(prop_uniform(p) * (double)n);
}

static inline double prop_draw(Prop *p, SampleDomain domain)
{
    static const double special[] = {0,        -0.0,      1,   -1,  0x1p-149, -0x1p-149,
                                     INFINITY, -INFINITY, NAN, 0.5, 0x1p-126, 3.4e38,
                                     -3.4e38,  1e-30,     2,   -7};
    double u = 2 * prop_uniform(p) - 1;
    switch (domain) {
    case SD_ANY: return 3 * u;
    case SD_POSITIVE: return 0.25 + 2 * fabs(u);
    case SD_NONZERO: return u < 0 ? u - 0.25 : u + 0.25;
    case SD_SMALL: return 2 * u;
    case SD_UNIT: return 0.5 * (u + 1);
    case SD_SPECIAL: return special[prop_below(p, sizeof special / sizeof *special)];
    }
    ZM_UNREACHABLE("domain");
}

static inline void prop_open(Prop *p, uint64_t seed, DType dtype)
{
    *p = (Prop){.rng = seed, .dtype = dtype};
    p->sources.arena = p->diag.arena = &p->arena;
    p->diag.sources = &p->sources;
    p->m = module_new(&p->arena, &p->sources, &p->diag);
    p->m->items = 1;
    p->m->batch = 1;
    source_add(&p->sources, "prop", "", 0);
    p->f = func_new(p->m, "train");
    p->b = (Builder){.f = p->f, .loc = loc_source(p->m, (SrcPos){.line = 1, .col = 1, .len = 1})};
}

static inline void prop_close(Prop *p)
{
    arena_free(&p->arena);
}

static inline const Type *prop_type(Prop *p, DType dt, int rank, const int64_t *dim)
{
    return type_get(p->m, dt, rank, dim);
}

/* ---- operands ---- */

static inline ValueId prop_input(Prop *p, const Type *t)
{
    ZM_CHECK(p->n_in < PROP_MAX_INPUTS);
    ValueId v = func_param(p->f, arena_printf(&p->arena, "in%u", p->n_in), t);
    p->in[p->n_in++] = eval_tensor(&p->arena, t);
    return v;
}

/* Integers in [low, low + n). */
static inline ValueId prop_ints(Prop *p, int rank, const int64_t *dim, int64_t low, int64_t n)
{
    ValueId v = prop_input(p, prop_type(p, DT_I32, rank, dim));
    EvalTensor *t = &p->in[p->n_in - 1];
    for (int64_t i = 0; i < type_elems(t->type); i++) t->at[i] = (double)(low + prop_below(p, n));
    return v;
}

static inline ValueId prop_bools(Prop *p, int rank, const int64_t *dim)
{
    ValueId v = prop_input(p, prop_type(p, DT_I1, rank, dim));
    EvalTensor *t = &p->in[p->n_in - 1];
    for (int64_t i = 0; i < type_elems(t->type); i++) t->at[i] = (double)prop_below(p, 2);
    return v;
}

static inline ValueId prop_key(Prop *p)
{
    return prop_ints(p, 1, (int64_t[]){4}, 0, 1000);
}

static inline ValueId prop_real_of(Prop *p, const Type *t, SampleDomain domain)
{
    ZM_CHECK(p->n_vars < PROP_MAX_INPUTS);
    Var var = {.name = arena_printf(&p->arena, "p%u", p->n_vars),
               .type = t,
               .kind = VK_PARAM,
               .loc = p->b.loc};
    VarId v = var_new(p->m, var);
    double *at = ARENA_ARRAY(&p->arena, double, type_elems(t));
    for (int64_t i = 0; i < type_elems(t); i++) at[i] = dtype_round(t->dtype, prop_draw(p, domain));
    p->var[p->n_vars].var = v;
    p->var[p->n_vars++].at = at;
    return build_read(&p->b, v);
}

static inline ValueId prop_real(Prop *p, int rank, const int64_t *dim, SampleDomain domain)
{
    return prop_real_of(p, prop_type(p, p->dtype, rank, dim), domain);
}

/* ---- running ---- */

/* Runs f; results in the prop's arena. */
static inline EvalTensor *prop_run(Prop *p, const Func *f, bool is_unrounded)
{
    Eval *e = eval_new(&p->arena, p->m);
    e->is_unrounded = is_unrounded;
    for (uint32_t i = 0; i < p->n_vars; i++)
        memcpy(eval_var(e, p->var[i].var), p->var[i].at,
               (size_t)type_elems(var_cget(p->m, p->var[i].var)->type) * sizeof(double));
    EvalTensor *out = ARENA_ARRAY(&p->arena, EvalTensor, eval_n_results(f) + 1);
    if (eval_run(e, f, p->in, &p->arena, out) == ZM_OK) return out;
    diag_print(&p->diag, stderr);
    abort();
}

/* Runs passes on the module, each checked; a failure ends the test. */
static inline void prop_passes(Prop *p, const char *text)
{
    PipelineRun run = {.check_changed = true};
    if (module_verify(p->m, NULL) == ZM_OK && pipeline_run(p->m, text, &run) == ZM_OK) return;
    Str s = {0};
    module_print(p->m, &s);
    fprintf(stderr, "%s", str_c(&s));
    diag_print(&p->diag, stderr);
    abort();
}

static inline bool prop_same_bits(double a, double b)
{
    return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof a) == 0;
}

static inline void prop_print(const Prop *p)
{
    Str s = {0};
    module_print(p->m, &s);
    fprintf(stderr, "%s", str_c(&s));
    str_free(&s);
}

#endif
