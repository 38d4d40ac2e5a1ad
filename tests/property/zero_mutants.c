/* zero_mutants.c -- programs of two ranks with one mistake in what ranks tell each other.
 *
 * A model of two layers at every stage of ZeRO, with and without accumulation, behind pass zero and
 * behind all passes.  Each collective (and shard) is dropped, doubled, moved, made another one,
 * given another type, another axis; each update loses the scale that divides its gradient by the
 * number of items.  A mutant comes as it is, and with all types behind the mistake inferred again,
 * as a pass that is wrong would make it.
 *
 * Each is refused by the verifier, which names a line and the axis, or two ranks compute what they
 * compute without the mistake, in every variable.  Nothing is rounded, so an order of sums may
 * differ: 1e-9 of a number next to mistakes that change it by more than 1e-3 (shown by running
 * one). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/frontend.h"
#include "ir/eval/eval.h"
#include "passes/pass.h"

#define TOL 1e-9
enum { RANKS = 2, N_STEPS = 2 };

static const char model[] = "dim B = 2, W = 11\n"
                            "block layer(x: [..., n]) -> [..., n] {\n"
                            "  param w: [n, n] = normal(0.3)\n"
                            "  param b: [n] = zeros, no_decay\n"
                            "  return x + tanh(x @ w + b)\n"
                            "}\n"
                            "model two(x: [B, W], y: [B, W]) {\n"
                            "  param tied: [W, W] = normal(0.3)\n"
                            "  let h = l[2]: layer(x @ tied)\n"
                            "  loss mse(h @ transpose(tied), y)\n"
                            "}\n"
                            "data { tensors(x, y) }\n"
                            "train { optimizer adamw(lr = 0.01, decay = 0.1)\n clip 0.5\n }\n";

static const char passes[] = "amp,canon,cse,autodiff,loss_scale,canon,cse,dce,accumulate,master,"
                             "bucket,zero,canon,cse,dce";

/* ---- the program without a mistake ---- */

typedef struct Run { /* every variable of every rank after N_STEPS */
    Eval *e[RANKS];
} Run;

typedef struct Base {
    Arena arena;
    Str text;
    int64_t accumulate, stage;
    bool is_planned;   /* all passes have run: collectives are in flight */
    uint32_t distance; /* between the places that a collective is moved to */
    Module *m;
    Run run;
} Base;

typedef struct Tally {
    uint32_t n_refused, n_equal, n_wrong;
} Tally;

static Module *compile(Arena *a, const Base *b)
{
    SourceSet *sources = ARENA_NEW(a, SourceSet);
    Diag *diag = ARENA_NEW(a, Diag);
    sources->arena = a;
    *diag = (Diag){.arena = a, .sources = sources};
    FrontendOptions opt = {0};
    Module *m = frontend_compile(a, sources, diag, "two.zm", model, strlen(model), &opt);
    ZM_CHECK(m != NULL);
    m->train.zero = b->stage;
    m->train.accumulate = b->accumulate;
    PipelineRun how = {.check_changed = true, .opt = {.ranks = RANKS, .bucket_bytes = 1 << 20}};
    ZM_CHECK(pipeline_run(m, b->is_planned ? pipeline_text("train") : passes, &how) == ZM_OK);
    return m;
}

static double noise(const char *name, int64_t i)
{
    uint64_t h = hash_bytes(name, strlen(name), (uint64_t)i + 1);
    return (double)(int32_t)(h >> 32) * 0x1p-31;
}

static void fill(const char *name, EvalTensor t, int64_t seed)
{
    for (int64_t i = 0; i < type_elems(t.type); i++) t.at[i] = noise(name, seed * 1000 + i);
}

static void run_func(Run *r, Arena *a, const Func *f, int64_t micro)
{
    EvalTensor *in = ARENA_ARRAY(a, EvalTensor, RANKS * f->params.n);
    for (uint32_t i = 0; i < RANKS * f->params.n; i++) {
        const Value *p = value_cget(f, f->params.at[i % f->params.n]);
        in[i] = eval_tensor(a, p->type);
        fill(p->name, in[i], micro * RANKS + i / f->params.n);
    }
    EvalTensor *out = ARENA_ARRAY(a, EvalTensor, RANKS * eval_n_results(f) + 1);
    ZM_CHECK(eval_run_ranks(r->e, RANKS, f, in, a, out) == ZM_OK);
}

static Run run_steps(Arena *a, const Module *m, int64_t accumulate)
{
    Run r;
    Eval *whole = eval_new_whole(a, m);
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *v = &m->vars.at[i];
        if (v->kind != VK_PARAM || v->is_bucket) continue;
        for (int64_t k = 0; k < type_elems(v->type); k++)
            eval_var(whole, (VarId){i})[k] = 0.3 * noise(v->name, k);
    }
    for (uint32_t k = 0; k < RANKS; k++) {
        r.e[k] = eval_new(a, m);
        r.e[k]->is_unrounded = true;
    }
    eval_cut_vars(whole, r.e, RANKS);
    for (int64_t i = 0; i < N_STEPS * accumulate; i++)
        run_func(&r, a, func_find(m, (i + 1) % accumulate ? "micro" : "last"), i);
    return r;
}

static void base_open(Base *b)
{
    b->m = compile(&b->arena, b);
    module_print(b->m, &b->text);
    b->run = run_steps(&b->arena, b->m, b->accumulate);
}

static void base_close(Base *b)
{
    str_free(&b->text);
    arena_free(&b->arena);
}

static bool same_numbers(const Module *m, const Run *x, const Run *y)
{
    for (uint32_t i = 1; i < m->vars.n; i++)
        for (uint32_t r = 0; r < RANKS; r++) {
            int64_t n = x->e[r]->storage[i] ? eval_var_elems(x->e[r], (VarId){i}) : 0;
            const double *a = x->e[r]->storage[i], *b = y->e[r]->storage[i];
            for (int64_t k = 0; k < n; k++)
                if (!(fabs(a[k] - b[k]) <= TOL * fabs(a[k])) && a[k] != b[k]) return false;
        }
    return true;
}

/* ---- a mutant ---- */

typedef struct Mutant {
    Arena arena;
    SourceSet sources;
    Diag diag;
    Module *m;
    Func *f;
    OpId op;
    uint32_t distance;
    const char *what;
} Mutant;

static OpId op_at(const Func *f, uint32_t pos)
{
    OpId op = f->first;
    for (uint32_t i = 0; i < pos; i++) op = op_cget(f, op)->next;
    return op;
}

/* A fresh copy of the program; op: the one at position pos of function func. */
static void mutant_open(Mutant *x, const Base *b, uint32_t func, uint32_t pos)
{
    *x = (Mutant){.what = "", .distance = b->distance};
    x->sources.arena = x->diag.arena = &x->arena;
    x->diag.sources = &x->sources;
    x->m = module_parse(&x->arena, &x->sources, &x->diag, "two.zir", b->text.at, b->text.n);
    ZM_CHECK(x->m != NULL);
    x->f = x->m->funcs.at[func];
    x->op = op_at(x->f, pos);
}

/* Types of all ops from their operands'.  Stops at the first that is refused: the verifier says
 * why. */
static void infer_again(Mutant *x)
{
    FOR_OPS(x->f, id)
    {
        const Op *o = op_cget(x->f, id);
        const Type **in = ARENA_ARRAY(&x->arena, const Type *, o->n_in), *out[8];
        for (uint32_t i = 0; i < o->n_in; i++) in[i] = value_type(x->f, o->in[i]);
        if (op_infer(x->m, o->code, in, o->n_in, o->attrs, out)) return;
        for (uint32_t i = 0; i < o->n_out; i++) value_get(x->f, o->out[i])->type = out[i];
    }
}

/* The first error has a line and names an axis of the mesh. */
static bool is_explained(const Mutant *x)
{
    const DiagMsg *e = &x->diag.msgs.at[0];
    return e->pos.line > 0 && (strstr(e->text, "data") || strstr(e->text, "tensor"));
}

static void show(const Mutant *x, const Base *b, const char *verdict)
{
    SrcPos pos = loc_pos(x->m, op_cget(x->f, x->op)->loc);
    fprintf(stderr, "stage %lld, accumulate %lld, @%s, %s of two.zm:%u: %s: %s\n",
            (long long)b->stage, (long long)b->accumulate, x->f->name,
            op_info(op_cget(x->f, x->op)->code)->name, pos.line, x->what, verdict);
    diag_print(&x->diag, stderr);
}

/* The verifier of IR, then those of what passes have made of the module: its memory plan above all.
 */
static bool is_valid(Mutant *x)
{
    if (module_verify(x->m, NULL) != ZM_OK) return false;
    for (int k = 0; k < N_FACT; k++) {
        bool holds = !(x->m->facts >> k & 1);
        const char *why = holds ? NULL : fact_check(x->m, (FactBit)k, &x->arena);
        if (!why) continue;
        diag_error(&x->diag, loc_pos(x->m, op_cget(x->f, x->op)->loc), E_IR_STRUCTURE, "%s", why);
        return false;
    }
    return true;
}

static void judge(Mutant *x, const Base *b, Tally *n)
{
    if (!is_valid(x)) {
        n->n_refused++;
        if (is_explained(x)) return;
        n->n_wrong++;
        show(x, b, "the refusal names no line or no axis");
        return;
    }
    Run r = run_steps(&x->arena, x->m, b->accumulate);
    if (same_numbers(b->m, &b->run, &r)) {
        n->n_equal++;
        return;
    }
    n->n_wrong++;
    show(x, b, "passes wrong");
}

/* ---- mistakes: each changes x; false: there is no such mistake here ---- */

typedef bool (*Mistake)(Mutant *x, uint32_t arg);

static void replace_uses_but(Func *f, ValueId old, ValueId with, OpId but)
{
    FOR_OPS(f, id)
    {
        Op *o = op_get(f, id);
        for (uint32_t i = 0; i < o->n_in; i++)
            if (o->in[i].i == old.i && id.i != but.i) o->in[i] = with;
    }
}

static bool drop(Mutant *x, uint32_t arg)
{
    const Op *o = op_cget(x->f, x->op);
    x->what = "dropped";
    replace_uses_but(x->f, o->out[0], o->in[0], x->op);
    return arg == 0;
}

/* Applied to its own result. */
static bool repeat(Mutant *x, uint32_t arg)
{
    ValueId *map = ARENA_ARRAY(&x->arena, ValueId, x->f->values.n);
    ValueId y = op_cget(x->f, x->op)->out[0];
    Builder b = {.f = x->f, .before = op_cget(x->f, x->op)->next, .loc = op_cget(x->f, x->op)->loc};
    x->what = "doubled";
    OpId again = op_copy(&b, x->f, x->op, map);
    op_set_operand(x->f, again, 0, y);
    replace_uses_but(x->f, y, op_cget(x->f, again)->out[0], again);
    return arg == 0;
}

/* In front of every distance-th op. */
static bool move(Mutant *x, uint32_t arg)
{
    uint32_t pos = arg * x->distance;
    if (pos >= func_n_ops(x->f)) return false;
    x->what = arena_printf(&x->arena, "moved in front of op %u", pos);
    op_move_before(x->f, x->op, op_at(x->f, pos));
    return true;
}

static void set_attr(Mutant *x, AttrKey key, int64_t i, const char *s)
{
    Op *o = op_get(x->f, x->op);
    AttrList l = {0};
    for (uint32_t k = 0; k < o->attrs.n; k++)
        if (op_takes_attr(o->code, o->attrs.at[k].key)) l.at[l.n++] = o->attrs.at[k];
    if (s)
        attr_add_str(&l, key, s);
    else
        attr_add_int(&l, key, i);
    o->attrs = attrs_copy(x->m, &l);
}

static bool make_other(Mutant *x, uint32_t arg)
{
    static const OpCode codes[] = {OP_ALL_GATHER, OP_REDUCE_SCATTER, OP_ALL_REDUCE, OP_SHARD};
    if (arg >= sizeof codes / sizeof *codes) return false;
    Op *o = op_get(x->f, x->op);
    x->what =
        arena_printf(&x->arena, "%s made %s", op_info(o->code)->name, op_info(codes[arg])->name);
    o->code = codes[arg];
    set_attr(x, AT_MESH, 0, mesh_axis_name(MESH_DATA));
    return true;
}

static bool set_axis(Mutant *x, uint32_t arg)
{
    if (arg == 0) set_attr(x, AT_MESH, 0, mesh_axis_name(MESH_TENSOR));
    if (arg == 1) set_attr(x, AT_AXIS, 1, NULL);
    if (arg == 2) set_attr(x, AT_AXIS, -1, NULL);
    x->what = arg ? "another dimension" : "another axis of the mesh";
    return arg < 3 && (arg == 0 || op_takes_attr(op_cget(x->f, x->op)->code, AT_AXIS));
}

/* The result, and nothing else, has another type. */
static bool retype(Mutant *x, uint32_t arg)
{
    Value *v = value_get(x->f, op_cget(x->f, x->op)->out[0]);
    const Type *t = v->type, *plain = type_plain(x->m, t);
    uint8_t axis[ZM_MAX_RANK] = {MESH_DATA};
    const Type *types[] = {
        plain, type_placed(x->m, t, axis, 0), type_placed(x->m, t, NULL, 1 << MESH_DATA),
        value_type(x->f, op_cget(x->f, x->op)->in[0]), type_with_dtype(x->m, t, DT_BF16)};
    if (arg >= sizeof types / sizeof *types) return false;
    x->what = "another type";
    v->type = types[arg];
    return true;
}

static int gscale_of(OpCode code)
{
    return code == OP_ADAM_UPDATE ? 4 : -1;
}

/* The factor of gscale, or gscale, that divides by the number of items is gone: what is left is the
 * clip. */
static bool drop_scale(Mutant *x, uint32_t arg)
{
    const Op *o = op_cget(x->f, x->op);
    ValueId gscale = o->in[gscale_of(o->code)];
    const Op *product = op_cget(x->f, value_cget(x->f, gscale)->def);
    Builder b = {.f = x->f, .before = x->op, .loc = o->loc};
    ZM_CHECK(product->code == OP_MUL);
    x->what = "without the scale";
    for (uint32_t i = 0; arg == 1 && i < 2; i++) {
        const Op *factor = op_cget(x->f, value_cget(x->f, product->in[i])->def);
        const Op *of = op_cget(x->f, value_cget(x->f, factor->in[0])->def);
        if (of->code == OP_MIN) gscale = product->in[i];
    }
    if (arg == 0) gscale = build_const(&b, 1, DT_F32);
    op_set_operand(x->f, x->op, (uint32_t)gscale_of(op_cget(x->f, x->op)->code), gscale);
    return arg < 2;
}

/* gscale as it would be of one rank's items: of what the reduction is given. */
static bool unreduced_scale(Mutant *x, uint32_t arg)
{
    OpId reduction = {0};
    FOR_OPS(x->f, id)
    if (op_cget(x->f, id)->code == OP_ALL_REDUCE) reduction = id;
    x->what = "with the scale of one rank";
    const Op *o = op_cget(x->f, reduction);
    FOR_OPS(x->f, id)
    {
        Op *slice = op_get(x->f, id);
        bool is_count = slice->code == OP_SLICE && slice->in[0].i == o->out[0].i &&
                        attrs_find(slice->attrs, AT_STARTS)->as.list.at[0] == 3;
        if (is_count) slice->in[0] = o->in[0];
    }
    return arg == 0;
}

/* ---- all mutants ---- */

static void try_mistake(const Base *b, uint32_t func, uint32_t pos, Mistake mistake, bool infers,
                        Tally *n)
{
    bool is_one = true;
    for (uint32_t arg = 0; is_one; arg++) {
        Mutant x;
        mutant_open(&x, b, func, pos);
        is_one = mistake(&x, arg);
        if (is_one && infers) infer_again(&x);
        if (is_one) judge(&x, b, n);
        arena_free(&x.arena);
    }
}

static void mutate_op(const Base *b, uint32_t func, uint32_t pos, OpCode code, Tally *n)
{
    static const Mistake of_collectives[] = {drop, repeat, move, make_other, set_axis};
    static const Mistake of_updates[] = {drop_scale, unreduced_scale};
    bool is_update = gscale_of(code) >= 0;
    bool is_collective = strcmp(op_info(code)->factors, "collective") == 0;
    for (int infers = 0; infers < 2; infers++) {
        for (size_t i = 0; is_collective && i < sizeof of_collectives / sizeof *of_collectives; i++)
            try_mistake(b, func, pos, of_collectives[i], infers, n);
        for (size_t i = 0; is_update && i < sizeof of_updates / sizeof *of_updates; i++)
            try_mistake(b, func, pos, of_updates[i], infers, n);
    }
    if (is_collective) try_mistake(b, func, pos, retype, false, n);
}

/* The mistake that only verify_ranks.c sees changes numbers: the comparison is no empty one. */
static void check_comparison(const Base *b)
{
    Mutant x;
    const Func *last = func_find(b->m, "last");
    uint32_t pos = 0, func = 0;
    while (b->m->funcs.at[func] != last) func++;
    while (gscale_of(op_cget(last, op_at(last, pos))->code) < 0) pos++;
    mutant_open(&x, b, func, pos);
    ZM_CHECK(drop_scale(&x, 0));
    Run r = run_steps(&x.arena, x.m, b->accumulate);
    ZM_CHECK(!same_numbers(b->m, &b->run, &r));
    arena_free(&x.arena);
}

static void check_base(Base b, Tally *n)
{
    base_open(&b);
    if (!b.is_planned) check_comparison(&b);
    for (uint32_t k = 0; k < b.m->funcs.n; k++) {
        const Func *f = b.m->funcs.at[k];
        uint32_t pos = 0;
        FOR_OPS(f, op) mutate_op(&b, k, pos++, op_cget(f, op)->code, n);
    }
    base_close(&b);
}

int main(void)
{
    Tally n = {0};
    for (int64_t stage = 0; stage < 4; stage++) {
        for (int64_t accumulate = 1; accumulate < 3; accumulate++)
            check_base((Base){.stage = stage, .accumulate = accumulate, .distance = 9}, &n);
        check_base((Base){.stage = stage, .accumulate = 2, .is_planned = true, .distance = 40}, &n);
    }
    printf("%u mutants refused, %u equal, %u wrong\n", n.n_refused, n.n_equal, n.n_wrong);
    return n.n_wrong != 0 || n.n_refused < 1000 || n.n_equal == 0;
}
