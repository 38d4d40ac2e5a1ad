/* random_ir.h -- random valid IR over every op of ops.def, for property tests.  The TYPE column
 * picks the generator: make_<rule>() draws operands and attributes that the rule accepts, so an op
 * with a known rule needs nothing here, and a new rule does not compile before it has a generator.
 *
 * Same seed, same module.  Operands of a wanted type are earlier values, else new parameters. */
#ifndef ZM_TESTS_RANDOM_IR_H
#define ZM_TESTS_RANDOM_IR_H

#include "tests/property/random_rules.h"

static void make_op(RandomIr *g, OpCode code);

static void random_return(RandomIr *g, bool has_names)
{
    ValueId in[6];
    Str names = {0};
    uint32_t n = 0;
    for (uint32_t i = g->pool.n; i > 0 && n < 6; i--) {
        if (flag(g, g->pool.at[i - 1], true)) continue;
        str_addf(&names, "%sr%u", n ? "," : "", n);
        in[n++] = g->pool.at[i - 1];
    }
    g->b.loc = draw_loc(g);
    build_return(&g->b, in, n, has_names ? str_c(&names) : NULL);
    str_free(&names);
}

static void make_fused(RandomIr *g, OpCode code)
{
    static const char *const kinds[] = {"nest", "contract", "attention", "scatter"};
    (void)code;
    RandomIr body = {.m = g->m, .f = func_new(g->m, ""), .is_body = true, .state = g->state};
    body.b.f = body.f;
    for (uint32_t i = 0, n = 1 + draw(g, 5); i < n; i++)
        make_op(&body, (OpCode)(1 + draw(&body, N_OP - 1)));
    random_return(&body, false);
    g->state = body.state;
    uint32_t n = body.f->params.n;
    ValueId *in = ARENA_ARRAY(g->m->arena, ValueId, n + 1);
    for (uint32_t i = 0; i < n; i++) in[i] = value_of(g, value_type(body.f, body.f->params.at[i]));
    g->b.loc = draw_loc(g);
    OpId op = build_fused(&g->b, kinds[draw(g, 4)], in, n, body.f);
    grow_flags(g);
    for (uint32_t i = 0; i < op_cget(g->f, op)->n_out; i++)
        VEC_PUSH(g->m->arena, &g->pool, op_cget(g->f, op)->out[i]);
}

static void make_return(RandomIr *g, OpCode code)
{
    (void)g;
    (void)code; /* once, at the end */
}

static void make_op(RandomIr *g, OpCode code)
{
    static void (*const make[N_OP])(RandomIr *, OpCode) = {
#define TYPE(RULE) make_##RULE
#define OP(ID, NAME, SIG_, ATTRS_, TYPE_, ...) [OP_##ID] = TYPE_,
#define POINT(ID, NAME, N_IN, TRAITS, TYPE_, ...) [OP_##ID] = TYPE_,
#include "ir/ops.def"
#undef OP
#undef POINT
#undef TYPE
    };
    uint32_t traits = op_info(code)->traits;
    bool fits = !g->is_body || (traits & TR_PURE && traits & TR_PRIMITIVE && code != OP_FUSED);
    if (g->is_unfused && (code == OP_FUSED || code == OP_WORKSPACE)) return;
    if (fits) make[code](g, code);
}

/* ---- modules ---- */

static void random_vars(RandomIr *g)
{
    static const struct {
        const char *name;
        VarKind kind;
        InitKind init;
        bool is_bucket, is_view;
    } vars[] = {{"h.0.w", VK_PARAM, INIT_NORMAL, false, true},
                {"h.0.b", VK_PARAM, INIT_ZEROS, false, true},
                {"bucket.0", VK_PARAM, INIT_ZEROS, true, false},
                {"odd name", VK_MOMENT, INIT_CONST, false, false},
                {"step", VK_SCALAR, INIT_ONES, false, false}};
    for (size_t i = 0; i < sizeof vars / sizeof *vars; i++) {
        Var v = {.name = vars[i].name,
                 .kind = vars[i].kind,
                 .init = vars[i].init,
                 .is_bucket = vars[i].is_bucket};
        v.type = vars[i].is_bucket ? OF(DT_F32, 128)
                                   : draw_type(g, vars[i].is_view ? DT_F32 : draw_dtype(g), 0, 2);
        v.init_a = v.init == INIT_NORMAL ? 0.02 : v.init == INIT_CONST ? draw_number(g) : 0;
        v.has_decay = coin(g);
        v.place = draw_place(g, v.type);
        v.loc = draw_loc(g);
        if (vars[i].is_view) v.in = (VarId){3}, v.in_offset = 64 * (int64_t)i;
        if (vars[i].kind == VK_MOMENT) v.of = (VarId){1};
        var_new(g->m, v);
    }
}

static void random_header(RandomIr *g)
{
    Module *m = g->m;
    m->name = module_str(m, draw_name(g));
    m->batch = 2;
    m->items = draw(g, 3);
    m->arena_bytes = draw(g, 2) * 4096;
    if (coin(g))
        m->train =
            (TrainConfig){.precision = (PrecisionKind)draw(g, 3),
                          .amp = (AmpMode)draw(g, 2),
                          .grad_low = coin(g),
                          .moments_bf16 = coin(g),
                          .pure = coin(g),
                          .scale = {coin(g), coin(g), (ScaleRule)draw(g, 2), 65536, 0.25, 7, 3},
                          .optimizer = OPT_ADAMW,
                          .lr = 6e-4,
                          .beta1 = 0.9,
                          .beta2 = 0.95,
                          .eps = 1e-8,
                          .decay = 0.1,
                          .schedule = SCHED_COSINE,
                          .warmup = 100,
                          .total = 2000,
                          .min_lr = 6e-5,
                          .clip = 1,
                          .accumulate = 4,
                          .pos = {0, 3, 1, 5}};
    Feed feed = {module_str(m, "tokens"), FEED_TOKENS, 50257, coin(g), -100};
    VEC_PUSH(m->arena, &m->feeds, feed);
    WeightRule rule = {WR_ALIAS, module_str(m, "lm_head.weight"), module_str(m, "wte\"")};
    if (coin(g)) VEC_PUSH(m->arena, &m->weight_rules, rule);
}

/* A function in which every op of ops.def occurs, in an order that depends on the seed. */
static void random_func(RandomIr *g, const char *name)
{
    g->f = func_new(g->m, name);
    g->b = (Builder){.f = g->f};
    g->pool.n = g->is_read.n = g->is_stale.n = 0;
    grow_flags(g);
    OpCode order[N_OP];
    for (uint32_t i = 0; i < N_OP; i++) {
        uint32_t k = draw(g, i + 1);
        order[i] = order[k];
        order[k] = (OpCode)i;
    }
    for (uint32_t i = 0; i < N_OP; i++)
        if (order[i] != OP_NONE) make_op(g, order[i]);
    random_return(g, coin(g));
}

static Module *random_module_of(RandomIr *g)
{
    source_find_or_add(g->m->sources, "model \"odd\".zm");
    random_header(g);
    random_vars(g);
    random_func(g, "train");
    random_func(g, "odd name");
    return g->m;
}

/* sources must outlive the module. */
static inline Module *random_module(Arena *a, SourceSet *sources, Diag *diag, uint64_t seed)
{
    RandomIr g = {.m = module_new(a, sources, diag), .state = seed * 2654435761u + 1};
    return random_module_of(&g);
}

/* Without fused ops and workspaces: IR as it is before pass fuse. */
static inline Module *random_unfused(Arena *a, SourceSet *sources, Diag *diag, uint64_t seed)
{
    RandomIr g = {.m = module_new(a, sources, diag), .state = seed * 2654435761u + 1};
    g.is_unfused = true;
    return random_module_of(&g);
}

#endif
