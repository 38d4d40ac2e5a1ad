/* flights.c -- collectives ahead and late: random programs of ranks, with gathers, reductions and
 * updates in random order, hold the same bits in the interpreter before and after regather, fuse,
 * schedule and memplan (which proves its plan); the least --max-gathered-bytes that an error names
 * works, and one byte less does not.  Some of them also run as machine code: each order of tasks,
 * collectives that move at their start or only at their wait, and a plan without anything in flight
 * give the same bits. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/host.h"
#include "ir/eval/eval.h"
#include "passes/pass.h"

enum {
    N_PROGRAMS = 150,
    N_COMPILED = 8,
    MAX_RANKS = 4,
    MAX_BUCKETS = 6,
    SIDE = 16,             /* values are f32[data:8,16], weights [16,16] */
    PART = SIDE * SIDE / 2 /* elements of a bucket on each rank */
};

typedef struct Program {
    uint64_t rng;
    uint32_t ranks, n_parted, n_whole;
    Str text;
    uint32_t n;                     /* values so far */
    uint32_t now;                   /* the value that goes through the layers */
    uint32_t gathered[MAX_BUCKETS]; /* of parted buckets: the value, 0: none yet */
    VEC(uint32_t) reduced;          /* parts of gradients */
    Arena arena;
} Program;

static uint32_t below(Program *p, uint32_t n)
{
    uint64_t z = p->rng += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) % n);
}

/* ---- programs ---- */

#define LINE(...)                                                                                  \
    (str_addf(&p->text, "  "), str_addf(&p->text, __VA_ARGS__), str_add(&p->text, "\n"))
#define MESH "{mesh = \"data\"}"

/* The value that goes on times a weight out of flat tensor `flat`. */
static void multiply(Program *p, uint32_t flat)
{
    uint32_t start = SIDE * below(p, (PART * p->ranks - SIDE * SIDE) / SIDE + 1);
    LINE("%%v%u = slice %%v%u {starts = [%u], sizes = [%d]}", p->n, flat, start, SIDE * SIDE);
    LINE("%%v%u = reshape %%v%u {shape = [%d, %d]}", p->n + 1, p->n, SIDE, SIDE);
    LINE("%%v%u = matmul %%v%u, %%v%u", p->n + 2, p->now, p->n + 1);
    LINE("%%v%u = sin %%v%u", p->n + 3, p->n + 2);
    p->now = p->n + 3;
    p->n += 4;
}

static void use_parted(Program *p)
{
    uint32_t k = below(p, p->n_parted);
    if (!p->gathered[k]) {
        LINE("%%v%u = read @bucket.%u", p->n, k);
        LINE("%%v%u = all_gather %%v%u " MESH, p->n + 1, p->n);
        p->gathered[k] = p->n + 1;
        p->n += 2;
    }
    multiply(p, p->gathered[k]);
}

static void use_whole(Program *p)
{
    LINE("%%v%u = read @whole.%u", p->n, below(p, p->n_whole));
    p->n++;
    multiply(p, p->n - 1);
}

static void reduce(Program *p)
{
    uint32_t start = below(p, PART * p->ranks - SIDE);
    LINE("%%v%u = reduce_sum %%v%u {dims = [0]}", p->n, p->now);
    LINE("%%v%u = pack %%v%u {shape = [%u], starts = [%u]}", p->n + 1, p->n, PART * p->ranks,
         start);
    LINE("%%v%u = reduce_scatter %%v%u " MESH, p->n + 2, p->n + 1);
    VEC_PUSH(&p->arena, &p->reduced, p->n + 2);
    p->n += 3;
}

static uint32_t some_part(Program *p)
{
    if (!p->reduced.n) reduce(p);
    return p->reduced.at[below(p, p->reduced.n)];
}

static void update_whole(Program *p)
{
    uint32_t k = below(p, p->n_whole), g = some_part(p);
    LINE("%%v%u = read @whole.%u", p->n, k);
    LINE("%%v%u = shard %%v%u " MESH, p->n + 1, p->n);
    LINE("%%v%u = sub %%v%u, %%v%u", p->n + 2, p->n + 1, g);
    LINE("%%v%u = all_gather %%v%u " MESH, p->n + 3, p->n + 2);
    LINE("write @whole.%u, %%v%u", k, p->n + 3);
    p->n += 4;
}

/* A gather of the old value goes on being used, or not. */
static void update_parted(Program *p)
{
    uint32_t k = below(p, p->n_parted), g = some_part(p);
    LINE("%%v%u = read @bucket.%u", p->n, k);
    LINE("%%v%u = sub %%v%u, %%v%u", p->n + 1, p->n, g);
    LINE("write @bucket.%u, %%v%u", k, p->n + 1);
    if (below(p, 2)) p->gathered[k] = 0;
    p->n += 2;
}

static void sum_up(Program *p)
{
    LINE("%%v%u = reduce_sum %%v%u {dims = [0, 1]}", p->n, p->now);
    LINE("%%v%u = all_reduce %%v%u " MESH, p->n + 1, p->n);
    LINE("write @sum.%u, %%v%u", below(p, 2), p->n + 1);
    p->n += 2;
}

static void generate(Program *p)
{
    static void (*const steps[])(Program *) = {use_parted, use_parted,   use_parted,    use_whole,
                                               reduce,     update_whole, update_parted, sum_up};
    p->ranks = 2 + below(p, MAX_RANKS - 1);
    p->n_parted = 1 + below(p, MAX_BUCKETS);
    p->n_whole = 1 + below(p, 2);
    str_addf(&p->text, "module \"m\"\nmesh {data = %u}\n", p->ranks);
    for (uint32_t k = 0; k < p->n_parted; k++) {
        str_addf(&p->text, "var @bucket.%u : f32[data:%d] {kind = param, bucket = true}\n", k,
                 PART);
        str_addf(&p->text, "var @h.%u.w%u : f32[%d] {kind = param, in = @bucket.%u}\n", k / 2, k,
                 PART, k);
    }
    for (uint32_t k = 0; k < p->n_whole; k++)
        str_addf(&p->text, "var @whole.%u : f32[%u] {kind = param, bucket = true}\n", k,
                 PART * p->ranks);
    str_add(&p->text, "var @sum.0 : f32[] {kind = scalar}\nvar @sum.1 : f32[] {kind = scalar}\n");
    str_addf(&p->text, "func @last(%%v1: f32[data:8,%d]) {\n", SIDE);
    p->now = 1;
    p->n = 2;
    for (uint32_t left = 5 + below(p, 30); left; left--)
        steps[below(p, sizeof steps / sizeof *steps)](p);
    for (uint32_t i = 0; i < p->reduced.n; i++) LINE("%%g%u = exp %%v%u", i, p->reduced.at[i]);
    str_addf(&p->text, "  return %%v%u", p->now);
    for (uint32_t i = 0; i < p->reduced.n; i++) str_addf(&p->text, ", %%g%u", i);
    str_add(&p->text, "\n}\n");
}

/* ---- runs ---- */

typedef struct Case {
    Arena arena;
    SourceSet sources;
    Diag diag;
    Module *m;
} Case;

static Case *case_new(const Program *p)
{
    Case *c = calloc(1, sizeof *c);
    ZM_CHECK(c != NULL);
    c->sources.arena = c->diag.arena = &c->arena;
    c->diag.sources = &c->sources;
    c->m = module_parse(&c->arena, &c->sources, &c->diag, "t.zir", p->text.at, p->text.n);
    if (c->m && module_verify(c->m, NULL) == ZM_OK) return c;
    fprintf(stderr, "%s", str_c((Str *)&p->text));
    diag_print(&c->diag, stderr);
    abort();
}

static void case_free(Case *c)
{
    arena_free(&c->arena);
    free(c);
}

static Status run_passes(Case *c, int64_t most)
{
    PipelineRun run = {.check_changed = true, .opt = {.max_gathered_bytes = most}};
    return pipeline_run(c->m, "regather,dce,fuse,schedule,memplan", &run);
}

/* A number from what names it. */
static double noise(uint64_t a, uint64_t b)
{
    const uint64_t key[] = {a, b};
    return (double)(int32_t)hash_bytes(key, sizeof key, 1) * 0x1p-31;
}

typedef struct Numbers {
    VEC(double) all;
} Numbers;

static void add_numbers(Case *c, Numbers *to, const double *at, int64_t n)
{
    for (int64_t i = 0; i < n; i++) VEC_PUSH(&c->arena, &to->all, at[i]);
}

static void add_results(Case *c, Numbers *to, const Func *f, const EvalTensor *out, uint32_t ranks)
{
    for (uint32_t i = 0; i < ranks * eval_n_results(f); i++)
        add_numbers(c, to, out[i].at, type_elems(out[i].type));
}

static bool is_same(const Numbers *x, const Numbers *y)
{
    return x->all.n == y->all.n && memcmp(x->all.at, y->all.at, x->all.n * sizeof(double)) == 0;
}

/* The variables of each rank into e, the inputs into in. */
static void begin_run(Case *c, uint32_t ranks, Eval **e, EvalTensor *in)
{
    const Func *f = func_find(c->m, "last");
    Eval *whole = eval_new_whole(&c->arena, c->m);
    for (uint32_t v = 1; v < c->m->vars.n; v++)
        for (int64_t i = 0; !var_ok(c->m->vars.at[v].in) && i < eval_var_elems(whole, (VarId){v});
             i++)
            eval_var(whole, (VarId){v})[i] = dtype_round(DT_F32, noise(v, (uint64_t)i));
    for (uint32_t r = 0; r < ranks; r++) {
        e[r] = eval_new(&c->arena, c->m);
        in[r] = eval_tensor(&c->arena, value_type(f, f->params.at[0]));
        for (int64_t i = 0; i < type_elems(in[r].type); i++)
            in[r].at[i] = dtype_round(DT_F32, noise(1000 + r, (uint64_t)i));
    }
    eval_cut_vars(whole, e, ranks);
}

/* All ranks' results and variables, one after another. */
static Numbers interpret(Case *c, uint32_t ranks)
{
    const Func *f = func_find(c->m, "last");
    Eval *e[MAX_RANKS];
    EvalTensor in[MAX_RANKS], *out = ARENA_ARRAY(&c->arena, EvalTensor, ranks * eval_n_results(f));
    begin_run(c, ranks, e, in);
    ZM_CHECK(eval_run_ranks(e, ranks, f, in, &c->arena, out) == ZM_OK);
    Numbers n = {0};
    add_results(c, &n, f, out, ranks);
    for (uint32_t r = 0; r < ranks; r++)
        for (uint32_t v = 1; v < c->m->vars.n; v++)
            if (!var_ok(c->m->vars.at[v].in))
                add_numbers(c, &n, eval_var(e[r], (VarId){v}), eval_var_elems(e[r], (VarId){v}));
    return n;
}

static void compare(const Program *p, int64_t most)
{
    Case *before = case_new(p), *after = case_new(p);
    if (run_passes(after, most) != ZM_OK) {
        fprintf(stderr, "%s", str_c((Str *)&p->text));
        diag_print(&after->diag, stderr);
        abort();
    }
    Numbers x = interpret(before, p->ranks), y = interpret(after, p->ranks);
    ZM_CHECK(is_same(&x, &y));
    case_free(before);
    case_free(after);
}

/* ---- machine code ---- */

/* Each collective is waited for where it starts. */
static void wait_at_once(Module *m)
{
    Func *f = func_find(m, "last");
    FOR_OPS(f, op)
    {
        Op o = *op_cget(f, op); /* by value: f grows */
        if (!op_takes_attr(o.code, AT_ASYNC)) continue;
        AttrList l = {0};
        attr_add_int(&l, AT_ASYNC, 1);
        for (uint32_t i = 0; i < o.attrs.n; i++) l.at[l.n++] = o.attrs.at[i];
        op_get(f, op)->attrs = attrs_copy(m, &l);
        Builder b = {.f = f, .before = o.next, .loc = o.loc};
        ValueId in[] = {o.out[0], o.in[0]}, wait = build1(&b, OP_WAIT, in, 2, NULL);
        func_replace_uses(f, o.out[0], wait);
        op_set_operand(f, value_cget(f, wait)->def, 0, o.out[0]);
    }
}

static Numbers execute(Case *c, HostProgram *h, uint32_t ranks, HostOrder order)
{
    const Func *f = func_find(c->m, "last");
    Eval *e[MAX_RANKS];
    EvalTensor in[MAX_RANKS], *out = ARENA_ARRAY(&c->arena, EvalTensor, ranks * eval_n_results(f));
    begin_run(c, ranks, e, in);
    for (uint32_t r = 0; r < ranks; r++)
        for (uint32_t v = 1; v < c->m->vars.n; v++)
            if (!var_ok(c->m->vars.at[v].in))
                host_set_rank_var(h, r, (VarId){v}, eval_var(e[r], (VarId){v}));
    host_run_ranks(h, f, in, &c->arena, out, order);
    Numbers n = {0};
    add_results(c, &n, f, out, ranks);
    for (uint32_t r = 0; r < ranks; r++)
        for (uint32_t v = 1; v < c->m->vars.n; v++) {
            if (var_ok(c->m->vars.at[v].in)) continue;
            int64_t elems = eval_var_elems(e[r], (VarId){v});
            double *at = ARENA_ARRAY(&c->arena, double, elems);
            host_get_rank_var(h, r, (VarId){v}, at);
            add_numbers(c, &n, at, elems);
        }
    return n;
}

static Case *compiled(const Program *p, bool flies, HostProgram **h)
{
    Case *c = case_new(p);
    CodegenTarget t;
    ZM_CHECK(codegen_target_init(&t, &c->arena, &c->diag, NULL, NULL) == ZM_OK);
    PipelineRun run = {.check_changed = true,
                       .opt = {.workspace_bytes = codegen_workspace_bytes, .target = &t}};
    ZM_CHECK(pipeline_run(c->m, "regather,dce,fuse", &run) == ZM_OK);
    if (!flies) wait_at_once(c->m);
    const char *rest = flies ? "workspace,schedule,memplan" : "workspace,memplan";
    if (pipeline_run(c->m, rest, &run) != ZM_OK || !(*h = host_program_new(c->m, &t))) {
        diag_print(&c->diag, stderr);
        abort();
    }
    return c;
}

static void compare_compiled(const Program *p)
{
    HostProgram *h, *g;
    Case *flying = compiled(p, true, &h), *waiting = compiled(p, false, &g);
    Numbers x = execute(flying, h, p->ranks, HOST_FORWARDS),
            y = execute(flying, h, p->ranks, HOST_BACKWARDS),
            z = execute(waiting, g, p->ranks, HOST_FORWARDS);
    ZM_CHECK(isfinite(x.all.at[0]) && is_same(&x, &y));
    ZM_CHECK(is_same(&x, &z));
    host_program_free(h);
    host_program_free(g);
    case_free(flying);
    case_free(waiting);
}

/* ---- limits ---- */

/* The least limit that the error at `most` names; 0: there is none. */
static int64_t least(const Program *p, int64_t most)
{
    Case *c = case_new(p);
    int64_t bytes = 0;
    if (run_passes(c, most) != ZM_OK) {
        ZM_CHECK(c->diag.msgs.at[0].code == E_PLAN_GATHERED);
        const char *number = strrchr(c->diag.msgs.at[1].text, ' ');
        bytes = strtoll(number, NULL, 10);
        ZM_CHECK(bytes > most);
    }
    case_free(c);
    return bytes;
}

int main(void)
{
    int n_limited = 0;
    for (uint64_t seed = 1; seed <= N_PROGRAMS; seed++) {
        Program p = {.rng = seed};
        generate(&p);
        compare(&p, 0);
        if (seed <= N_COMPILED) compare_compiled(&p);
        int64_t need = least(&p, 1), bucket = PART * p.ranks * dtype_bytes(DT_F32);
        if (need) {
            n_limited++;
            ZM_CHECK(least(&p, need - 1) == need);
            compare(&p, need);
            compare(&p, need + bucket);
            compare(&p, need + 3 * bucket);
        }
        str_free(&p.text);
        arena_free(&p.arena);
    }
    ZM_CHECK(n_limited > N_PROGRAMS / 2);
    printf("%d programs, %d with a limit\n", N_PROGRAMS, n_limited);
    return 0;
}
