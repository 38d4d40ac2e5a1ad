/* placing.c -- each op on N ranks is the op on the whole: the proof of the placings that FACTORS
 * and the rules beside it give (ir/sharding*.c).
 *
 * Random instances of every op, with operands placed at random.  Where the type rule accepts them,
 * each rank gets its part of the operands (of a partial sum a summand), all ranks run the op, and
 * what they have is put together by the placing that was inferred.  That equals the op on the whole
 * operands; replicated results are equal on all ranks.  So it is again after the passes that
 * rewrite ops, and the text of every instance parses to itself.
 *
 * Nothing is rounded, so both sides differ by the order of sums of a few hundred doubles at most.
 */
#include <math.h>

#include "ir/eval/eval.h"
#include "passes/pass.h"
#include "tests/property/random_ir.h"

enum { N_TRIALS = 500, MAX_IN = 16, MAX_OUT = 8, MAX_RANKS = 3 };

static const char passes[] = "canon,cse,dce,expand,canon,cse,dce,fuse";
static const double tolerance = 1e-9; /* of sums of <= 1000 terms in doubles, each below 1e3 */

typedef struct Counts {
    uint32_t n_placed, n_partial, n_refused;
} Counts;

/* An op, its operands placed, as a function of every rank and as one of the whole. */
typedef struct Trial {
    Arena arena;
    SourceSet sources;
    Diag diag;
    RandomIr g;
    uint32_t ranks;
    Op op; /* as drawn: of one rank, not placed */
    const Type *in[MAX_IN];
    AttrList attrs;
    const Type *out[MAX_OUT];
    Func *parts, *whole;
    EvalTensor part[MAX_RANKS * MAX_IN], all[MAX_IN];
} Trial;

/* ---- drawing ---- */

static void trial_open(Trial *t, uint64_t seed)
{
    *t = (Trial){.ranks = 2 + (uint32_t)(seed % 2)};
    t->sources.arena = t->diag.arena = &t->arena;
    t->diag.sources = &t->sources;
    t->g = (RandomIr){.m = module_new(&t->arena, &t->sources, &t->diag),
                      .state = seed * 2654435761u + 1};
    t->g.m->mesh[MESH_DATA] = t->ranks;
    t->g.is_unfused = true;
    source_find_or_add(&t->sources, "t.zir");
    t->g.f = func_new(t->g.m, "draw");
    t->g.b = (Builder){.f = t->g.f};
}

/* An op of this code; false: its generator made none. */
static bool draw_op(Trial *t, OpCode code)
{
    make_op(&t->g, code);
    FOR_OPS(t->g.f, op)
    if (op_cget(t->g.f, op)->code == code) t->op = *op_cget(t->g.f, op);
    if (t->op.code != code || t->op.n_in > MAX_IN) return false;
    for (uint32_t i = 0; i < t->op.n_in; i++) t->in[i] = value_type(t->g.f, t->op.in[i]);
    for (uint32_t i = 0; i < t->op.attrs.n; i++) t->attrs.at[t->attrs.n++] = t->op.attrs.at[i];
    return true;
}

static bool is_key(const Trial *t, uint32_t i)
{
    return t->in[i]->dtype == DT_I32 && op_takes_attr(t->op.code, AT_STREAM);
}

/* Sharded along dimension d, counted from the front or the back; none where it has no such. */
static const Type *sharded(Module *m, const Type *t, int d, bool from_back)
{
    uint8_t axis[ZM_MAX_RANK] = {0};
    int at = from_back ? t->rank - 1 - d : d;
    if (at < 0 || at >= t->rank) return t;
    axis[at] = MESH_DATA;
    return type_placed(m, t, axis, 0);
}

static const Type *draw_placing(RandomIr *g, const Type *t)
{
    uint32_t kind = draw(g, 4);
    if (kind < 2) return kind && t->dtype != DT_I1 ? type_placed(g->m, t, NULL, 1 << MESH_DATA) : t;
    return t->rank ? sharded(g->m, t, (int)draw(g, (uint32_t)t->rank), false) : t;
}

/* All operands along one dimension, or partial, or each at random; now and then one of them
 * otherwise. */
static void place_operands(Trial *t)
{
    RandomIr *g = &t->g;
    uint32_t kind = draw(g, 4);
    int d = (int)draw(g, 4);
    bool skips_ones = coin(g);
    for (uint32_t i = 0; i < t->op.n_in; i++) {
        const Type *x = t->in[i];
        bool is_scalar = x->rank == 0 || (is_key(t, i) && draw(g, 4));
        if (kind == 3 || draw(g, 8) == 0) {
            t->in[i] = draw_placing(g, x);
        } else if (kind == 2) {
            if (x->dtype != DT_I1 && !is_key(t, i))
                t->in[i] = type_placed(g->m, x, NULL, 1 << MESH_DATA);
        } else if (!is_scalar) {
            int at = kind ? x->rank - 1 - d : d;
            if (!(skips_ones && at >= 0 && at < x->rank && x->dim[at] == 1))
                t->in[i] = sharded(g->m, x, d, kind);
        }
    }
}

/* What the result declares: at random, seldom where operands say it. */
static void place_result(Trial *t)
{
    const Attr *shape = attrs_find(t->op.attrs, AT_SHAPE);
    if (!op_takes_attr(t->op.code, AT_SHARD) || coin(&t->g)) return;
    Type r = {.dtype = DT_F32, .rank = (int)shape->as.list.n};
    for (int i = 0; i < r.rank; i++) r.dim[i] = shape->as.list.at[i];
    const Type *placed = draw_placing(&t->g, type_get(t->g.m, DT_F32, r.rank, r.dim));
    attr_add_shard(&t->attrs, placed);
}

/* ---- both functions ---- */

static void set_list(Trial *t, AttrList *l, AttrKey key, const Type *r)
{
    int64_t *dim = ARENA_ARRAY(&t->arena, int64_t, r->rank);
    memcpy(dim, r->dim, (size_t)r->rank * sizeof *dim);
    attr_add_list(l, key, dim, (uint32_t)r->rank);
}

/* Slice, pad, concat and pack of a sharded dimension work on each rank's part, by definition: there
 * is no op of the whole to compare with, unless they leave that dimension alone. */
static bool works_on_parts(const Trial *t)
{
    const Type *a = t->in[0], *r = t->out[0];
    if (t->op.code == OP_PACK) return type_is_placed(r) && !r->partial;
    if (t->op.code == OP_CONCAT) return r->axis[attr_int(t->op.attrs, AT_AXIS, 0)] != MESH_NONE;
    if (t->op.code != OP_SLICE && t->op.code != OP_PAD) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->axis[i] && a->dim[i] != r->dim[i]) return true;
    return false;
}

static bool draws_samples(const Trial *t)
{
    const Type *x = t->op.code == OP_RANDOM ? t->out[0] : t->in[0];
    return op_takes_attr(t->op.code, AT_STREAM) && x->rank && x->axis[0];
}

/* The attributes of the op on the whole. */
static AttrList whole_attrs(Trial *t)
{
    AttrList l = {0};
    Type r = t->op.n_out ? type_whole(t->g.m, t->out[0]) : (Type){0};
    for (uint32_t i = 0; i < t->op.attrs.n; i++) l.at[l.n++] = t->op.attrs.at[i];
    if (attrs_find(t->op.attrs, AT_SHAPE)) set_list(t, &l, AT_SHAPE, &r);
    if (attrs_find(t->op.attrs, AT_SIZES)) set_list(t, &l, AT_SIZES, &r);
    if (draws_samples(t)) attr_add_int(&l, AT_BATCH, attr_int(t->op.attrs, AT_BATCH, 0) * t->ranks);
    return l;
}

/* A key that differs between ranks has the number of the rank's first sample: the whole has the
 * first's. */
static const Type *whole_of(Trial *t, const Type *x)
{
    if (x->dtype == DT_I32 && op_takes_attr(t->op.code, AT_STREAM)) return type_plain(t->g.m, x);
    Type whole = type_whole(t->g.m, x);
    return type_get(t->g.m, whole.dtype, whole.rank, whole.dim);
}

static Func *function(Trial *t, const char *name, bool is_whole, const AttrList *attrs)
{
    ValueId in[MAX_IN];
    Func *f = func_new(t->g.m, name);
    Builder b = {.f = f, .loc = loc_source(t->g.m, (SrcPos){.line = 1, .col = 1, .len = 1})};
    for (uint32_t i = 0; i < t->op.n_in; i++)
        in[i] = func_param(f, arena_printf(&t->arena, "in%u", i),
                           is_whole ? whole_of(t, t->in[i]) : t->in[i]);
    OpId op = build_op(&b, t->op.code, in, t->op.n_in, attrs);
    build_return(&b, op_cget(f, op)->out, op_cget(f, op)->n_out, NULL);
    return f;
}

/* ---- operands ---- */

static double draw_element(Trial *t, DType dt)
{
    if (dt == DT_I1) return coin(&t->g);
    if (dt == DT_I32) return draw(&t->g, 5); /* in range of every table */
    return ((double)draw(&t->g, 2001) - 1000) / 512;
}

/* Key of the ranks' samples: they are numbered over the ranks. */
static void number_samples(Trial *t, uint32_t i)
{
    bool counts = draws_samples(t);
    for (uint32_t r = 0; r < t->ranks; r++) {
        double *key = t->part[r * t->op.n_in + i].at;
        for (int k = 0; k < 4; k++) key[k] = t->all[i].at[k];
        if (counts) key[3] += (double)(r * (uint32_t)attr_int(t->op.attrs, AT_BATCH, 0));
    }
}

static void draw_operand(Trial *t, uint32_t i)
{
    const Type *x = t->in[i];
    t->all[i] = eval_tensor(&t->arena, whole_of(t, x));
    for (int64_t k = 0; k < type_elems(t->all[i].type); k++)
        t->all[i].at[k] = draw_element(t, x->dtype);
    for (uint32_t r = 0; r < t->ranks; r++) {
        EvalTensor *part = &t->part[r * t->op.n_in + i];
        *part = eval_tensor(&t->arena, x);
        if (is_key(t, i)) continue;
        eval_cut(x, t->all[i].at, t->ranks, r, part->at);
        for (int64_t k = 0; x->partial && k < type_elems(x); k++)
            part->at[k] = draw_element(t, x->dtype);
    }
    for (int64_t k = 0; x->partial && k < type_elems(x); k++) {
        t->all[i].at[k] = 0;
        for (uint32_t r = 0; r < t->ranks; r++)
            t->all[i].at[k] += t->part[r * t->op.n_in + i].at[k];
    }
    if (is_key(t, i)) number_samples(t, i);
}

/* ---- running ---- */

static bool near(double a, double b)
{
    return a == b || (isnan(a) && isnan(b)) || fabs(a - b) <= tolerance * (1 + fabs(a));
}

static void fail(const Trial *t, const char *what)
{
    Str s = {0};
    module_print(t->g.m, &s);
    diag_print(&t->diag, stderr);
    fprintf(stderr, "%s, %u ranks:\n%s\n", what, t->ranks, str_c(&s));
    str_free(&s);
}

static bool is_result(Trial *t, const EvalTensor *out, const EvalTensor *want, uint32_t i)
{
    const Type *x = t->out[i];
    double *part[MAX_RANKS];
    EvalTensor have = eval_tensor(&t->arena, whole_of(t, x));
    for (uint32_t r = 0; r < t->ranks; r++) part[r] = out[r * t->op.n_out + i].at;
    eval_join(x, part, t->ranks, have.at);
    for (int64_t k = 0; x->partial && k < type_elems(x); k++) { /* not rounded */
        have.at[k] = 0;
        for (uint32_t r = 0; r < t->ranks; r++) have.at[k] += part[r][k];
    }
    bool is_same = true;
    for (int64_t k = 0; k < type_elems(have.type); k++)
        is_same = is_same && near(have.at[k], want[i].at[k]);
    for (int64_t k = 0; !type_is_placed(x) && k < type_elems(x); k++)
        for (uint32_t r = 1; r < t->ranks; r++) is_same = is_same && near(part[r][k], part[0][k]);
    return is_same;
}

static bool runs_alike(Trial *t)
{
    Eval *e[MAX_RANKS];
    EvalTensor out[MAX_RANKS * MAX_OUT], want[MAX_OUT];
    for (uint32_t r = 0; r < t->ranks; r++) {
        e[r] = eval_new(&t->arena, t->g.m);
        e[r]->is_unrounded = true;
    }
    if (eval_run_ranks(e, t->ranks, t->parts, t->part, &t->arena, out) != ZM_OK) return false;
    if (eval_run(e[0], t->whole, t->all, &t->arena, want) != ZM_OK) return false;
    for (uint32_t i = 0; i < t->op.n_out; i++)
        if (!is_result(t, out, want, i)) return false;
    return true;
}

static bool text_is_stable(Trial *t)
{
    Str once = {0}, twice = {0};
    module_print(t->g.m, &once);
    const Module *again = module_parse(&t->arena, &t->sources, &t->diag, "t.zir", once.at, once.n);
    if (again) module_print(again, &twice);
    bool is_same = once.n == twice.n && memcmp(once.at, twice.at, once.n) == 0;
    str_free(&once);
    str_free(&twice);
    return is_same;
}

/* Only the two functions; the drawn one would be rewritten too. */
static void drop_drawn(Trial *t)
{
    t->g.m->funcs.at[0] = t->g.m->funcs.at[1];
    t->g.m->funcs.at[1] = t->g.m->funcs.at[2];
    t->g.m->funcs.n = 2;
}

static bool holds(Trial *t)
{
    AttrList all = whole_attrs(t);
    t->parts = function(t, "parts", false, &t->attrs);
    t->whole = function(t, "whole", true, &all);
    drop_drawn(t);
    for (uint32_t i = 0; i < t->op.n_in; i++) draw_operand(t, i);
    bool is_ok = module_verify(t->g.m, NULL) == ZM_OK && text_is_stable(t) && runs_alike(t);
    if (!is_ok) fail(t, "not as the op on the whole");
    PipelineRun run = {.check_changed = true};
    if (is_ok && (pipeline_run(t->g.m, passes, &run) != ZM_OK || !runs_alike(t))) {
        is_ok = false;
        fail(t, "not after passes");
    }
    return is_ok;
}

/* ---- every op ---- */

static bool is_tested(OpCode code)
{
    const char *factors = op_info(code)->factors;
    bool is_own = strcmp(factors, "own") == 0 || strcmp(factors, "collective") == 0;
    return code == OP_AFTER || (!is_own && code != OP_WORKSPACE); /* of undefined contents */
}

static bool run_trial(OpCode code, uint64_t seed, Counts *n)
{
    Trial t;
    bool is_ok = true, is_placed = false, is_partial = false;
    trial_open(&t, seed);
    if (draw_op(&t, code)) {
        place_operands(&t);
        place_result(&t);
        Attrs attrs = {t.attrs.at, t.attrs.n};
        const char *why = op_infer(t.g.m, code, t.in, t.op.n_in, attrs, t.out);
        for (uint32_t i = 0; i < t.op.n_in; i++) is_placed |= type_is_placed(t.in[i]);
        for (uint32_t i = 0; !why && i < t.op.n_out; i++) is_partial |= t.out[i]->partial != 0;
        is_placed |= attrs_find(attrs, AT_SHARD) != NULL;
        if (why)
            n->n_refused++;
        else if (is_placed && !works_on_parts(&t)) {
            n->n_placed++;
            n->n_partial += is_partial;
            is_ok = holds(&t);
        }
    }
    arena_free(&t.arena);
    return is_ok;
}

static bool is_among(OpCode code, const OpCode *codes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (codes[i] == code) return true;
    return false;
}

/* Each op is met placed and refused, partial sums as the op is linear or adds up a sharded
 * dimension. */
static bool is_covered(OpCode code, const Counts *n)
{
    static const OpCode partial[] = {OP_ADD,         OP_SUB,
                                     OP_NEG,         OP_MUL,
                                     OP_DIV,         OP_CAST,
                                     OP_SELECT,      OP_CONST,
                                     OP_PACK,        OP_CONCAT,
                                     OP_BROADCAST,   OP_SLICE,
                                     OP_PAD,         OP_RESHAPE,
                                     OP_TRANSPOSE,   OP_AFTER,
                                     OP_MATMUL,      OP_REDUCE_SUM,
                                     OP_SCATTER_ADD, OP_SDPA_GRAD_BIAS,
                                     OP_SUM_SQUARES, OP_COUNT_NONFINITE};
    static const OpCode takes_any[] = {OP_AFTER,      OP_NEG,   OP_NOT,      OP_PAD,
                                       OP_REDUCE_SUM, OP_SLICE, OP_TRANSPOSE};
    bool is_partial = is_among(code, partial, sizeof partial / sizeof *partial);
    bool is_any = is_among(code, takes_any, sizeof takes_any / sizeof *takes_any);
    bool is_placed = code == OP_ALL_FINITE ? n->n_placed == 0 : n->n_placed >= 5;
    return is_placed && (n->n_refused >= 5) == !is_any && (n->n_partial > 0) == is_partial;
}

int main(void)
{
    uint32_t failed = 0, total = 0, refused = 0;
    for (int code = OP_NONE + 1; code < N_OP; code++) {
        Counts n = {0};
        if (!is_tested((OpCode)code)) continue;
        bool is_rare = op_info((OpCode)code)->cost_kind == COST_ATTENTION; /* operands that fit */
        for (uint64_t i = 0; i < (is_rare ? 10 * N_TRIALS : N_TRIALS); i++)
            failed += !run_trial((OpCode)code, i * 131 + (uint64_t)code, &n);
        total += n.n_placed;
        refused += n.n_refused;
        if (is_covered((OpCode)code, &n)) continue;
        failed++;
        fprintf(stderr, "%s: %u placed, %u of them partial sums, %u refused\n",
                op_info((OpCode)code)->name, n.n_placed, n.n_partial, n.n_refused);
    }
    printf("%u placed ops are the ops on the whole, %u refused, %u failures\n", total, refused,
           failed);
    return failed != 0;
}
