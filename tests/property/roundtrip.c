/* roundtrip.c -- random valid IR over every op: the verifier takes it, parse(print(m)) prints the
 * same bytes and hashes the same, and both compute the same numbers. */
#include "ir/eval/eval.h"
#include "tests/property/random_ir.h"

enum { N_MODULES = 150, N_EVALUATED = 40 };

typedef struct Ctx {
    Arena arena;
    SourceSet sources;
    Diag diag;
} Ctx;

static void ctx_open(Ctx *cx)
{
    memset(cx, 0, sizeof *cx);
    cx->sources.arena = &cx->arena;
    cx->diag = (Diag){.arena = &cx->arena, .sources = &cx->sources};
}

/* Results and variables of every function of m on inputs that depend on the seed, in order, one
 * after another. */
static void run_all(const Module *m, Arena *a, uint64_t seed, Str *out)
{
    Eval *e = eval_new(a, m);
    for (uint32_t n = 0; n < m->funcs.n; n++) {
        const Func *f = m->funcs.at[n];
        EvalTensor *in = ARENA_ARRAY(a, EvalTensor, f->params.n);
        EvalTensor *results = ARENA_ARRAY(a, EvalTensor, eval_n_results(f));
        RandomIr g = {.state = seed};
        for (uint32_t i = 0; i < f->params.n; i++) {
            in[i] = eval_tensor(a, value_type(f, f->params.at[i]));
            for (int64_t k = 0; k < type_elems(in[i].type); k++)
                in[i].at[k] = dtype_round(in[i].type->dtype, ((double)draw(&g, 4001) - 2000) / 512);
        }
        ZM_CHECK(eval_run(e, f, in, a, results) == ZM_OK);
        for (uint32_t i = 0; i < eval_n_results(f); i++)
            str_add_n(out, (const char *)results[i].at, (size_t)type_elems(results[i].type) * 8);
    }
    for (uint32_t v = 1; v < m->vars.n; v++)
        str_add_n(out, (const char *)eval_var(e, (VarId){v}),
                  (size_t)type_elems(m->vars.at[v].type) * 8);
}

static void check_numbers(const Module *m, const Module *parsed, Arena *a, uint64_t seed)
{
    Str x = {0}, y = {0};
    run_all(m, a, seed, &x);
    run_all(parsed, a, seed, &y);
    ZM_CHECK(x.n == y.n && memcmp(x.at, y.at, x.n) == 0);
    str_free(&x);
    str_free(&y);
}

static bool check_module(uint64_t seed)
{
    Ctx cx, again;
    ctx_open(&cx);
    ctx_open(&again);
    Str once = {0}, twice = {0};
    Module *m = random_module(&cx.arena, &cx.sources, &cx.diag, seed);
    bool is_ok = module_verify(m, NULL) == ZM_OK;
    module_print(m, &once);
    Module *parsed =
        module_parse(&again.arena, &again.sources, &again.diag, "t.zir", once.at, once.n);
    is_ok = is_ok && parsed && module_verify(parsed, NULL) == ZM_OK;
    if (is_ok) {
        module_print(parsed, &twice);
        is_ok = once.n == twice.n && memcmp(once.at, twice.at, once.n) == 0;
        if (seed < N_EVALUATED) check_numbers(m, parsed, &again.arena, seed);
    }
    if (!is_ok) {
        diag_print(&cx.diag, stderr);
        diag_print(&again.diag, stderr);
        fprintf(stderr, "seed %llu:\n%s\nagain:\n%s\n", (unsigned long long)seed, str_c(&once),
                str_c(&twice));
    }
    str_free(&once);
    str_free(&twice);
    arena_free(&cx.arena);
    arena_free(&again.arena);
    return is_ok;
}

static void check_every_op_occurs(void)
{
    Ctx cx;
    ctx_open(&cx);
    const Module *m = random_module(&cx.arena, &cx.sources, &cx.diag, 0);
    bool seen[N_OP] = {0};
    FOR_OPS(m->funcs.at[0], op) seen[op_cget(m->funcs.at[0], op)->code] = true;
    for (int code = OP_NONE + 1; code < N_OP; code++) /* collectives need a mesh: placing.c */
        ZM_CHECK(seen[code] || strcmp(op_info((OpCode)code)->factors, "collective") == 0);
    arena_free(&cx.arena);
}

/* Everything that the text holds counts in the hash: print(m) differs whenever one is changed. */
static void check_hash(void)
{
    Ctx cx;
    ctx_open(&cx);
    Module *m = random_module(&cx.arena, &cx.sources, &cx.diag, 1);
    uint64_t h = module_hash(m);
    Func *f = m->funcs.at[0];
    Op *last = op_get(f, f->last);
    ZM_CHECK(module_hash(m) == h);
    m->items++;
    ZM_CHECK(module_hash(m) != h);
    m->items--;
    ValueId v = last->in[0];
    last->in[0] = last->in[1];
    ZM_CHECK(module_hash(m) != h);
    last->in[0] = v;
    value_get(f, v)->place.bytes++;
    ZM_CHECK(module_hash(m) != h);
    value_get(f, v)->place.bytes--;
    m->vars.at[1].init_a = 0.5;
    ZM_CHECK(module_hash(m) != h);
    m->vars.at[1].init_a = 0.02;
    last->loc = (LocId){1};
    ZM_CHECK(module_hash(m) == h); /* locations do not count */
    arena_free(&cx.arena);
}

int main(void)
{
    int n_failed = 0;
    for (uint64_t seed = 0; seed < N_MODULES && !n_failed; seed++) n_failed += !check_module(seed);
    check_every_op_occurs();
    check_hash();
    printf("%d modules, %d failed\n", N_MODULES, n_failed);
    return n_failed != 0;
}
