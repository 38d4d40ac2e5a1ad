/* eval_ranks.c -- collectives in the interpreter: on 2 to 4 ranks, along every dimension, they
 * leave the whole tensor what it is; a sum over ranks is taken in rank order, each addition in f32,
 * and rounded once. The expected numbers are computed here from the whole tensor, by index, in
 * float arithmetic. */
#include <math.h>
#include <string.h>

#include "ir/eval/eval.h"

enum { MAX_RANKS = 4 };

static int n_failures, n_compared;

#define FAIL(...) (n_failures++, fprintf(stderr, __VA_ARGS__), fputc('\n', stderr))

typedef struct Case {
    Arena arena;
    SourceSet sources;
    Diag diag;
    Module *m;
    Func *f;
    uint32_t ranks;
    EvalTensor in[MAX_RANKS], out[MAX_RANKS];
} Case;

static double noise(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int32_t)(*state >> 32) * 0x1p-28;
}

static void case_open(Case *c, uint32_t ranks)
{
    *c = (Case){.ranks = ranks};
    c->sources.arena = c->diag.arena = &c->arena;
    c->diag.sources = &c->sources;
    c->m = module_new(&c->arena, &c->sources, &c->diag);
    c->m->mesh[MESH_DATA] = ranks;
    source_add(&c->sources, "ranks", "", 0);
    c->f = func_new(c->m, "f");
}

static void build(Case *c, OpCode code, const Type *in, int axis, bool is_async)
{
    Builder b = {.f = c->f, .loc = loc_source(c->m, (SrcPos){.line = 1, .col = 1, .len = 1})};
    ValueId x = func_param(c->f, "x", in);
    AttrList l = {0};
    attr_add_str(&l, AT_MESH, mesh_axis_name(MESH_DATA));
    if (op_takes_attr(code, AT_AXIS)) attr_add_int(&l, AT_AXIS, axis);
    if (is_async) attr_add_int(&l, AT_ASYNC, 1);
    ValueId y = build1(&b, code, &x, 1, &l);
    ValueId held[] = {y, x};
    if (is_async) y = build1(&b, OP_WAIT, held, 2, NULL);
    build_return(&b, &y, 1, NULL);
}

static void run(Case *c, bool is_unrounded)
{
    Eval *e[MAX_RANKS];
    for (uint32_t r = 0; r < c->ranks; r++) {
        e[r] = eval_new(&c->arena, c->m);
        e[r]->is_unrounded = is_unrounded;
    }
    ZM_CHECK(module_verify(c->m, NULL) == ZM_OK);
    ZM_CHECK(eval_run_ranks(e, c->ranks, c->f, c->in, &c->arena, c->out) == ZM_OK);
}

/* Element of the whole that element i of rank r's part along dimension `axis` is; axis < 0: its
 * own. */
static int64_t whole_index(const Type *part, int axis, uint32_t ranks, uint32_t r, int64_t i)
{
    int64_t whole = 0, scale = 1;
    for (int d = part->rank - 1; d >= 0; d--) {
        int64_t n = part->dim[d], x = i % n;
        i /= n;
        if (d == axis) x += (int64_t)r * n, n *= ranks;
        whole += x * scale;
        scale *= n;
    }
    return whole;
}

/* Summed as the runtime sums. */
static double sum_of(const Case *c, DType dt, int64_t i)
{
    float low = (float)c->in[0].at[i];
    double sum = c->in[0].at[i];
    for (uint32_t r = 1; r < c->ranks; r++) {
        low += (float)c->in[r].at[i];
        sum += c->in[r].at[i];
    }
    return dtype_class(dt) == DTC_FLOAT && dt != DT_F64 ? dtype_round(dt, (double)low) : sum;
}

static void compare(const Case *c, const char *what, const double *want, int axis)
{
    for (uint32_t r = 0; r < c->ranks; r++)
        for (int64_t i = 0; i < type_elems(c->out[r].type); i++) {
            double have = c->out[r].at[i];
            double expected = want[whole_index(c->out[r].type, axis, c->ranks, r, i)];
            n_compared++;
            if (have != expected)
                FAIL("%s: rank %u of %u, element %lld: %.17g, not %.17g", what, r, c->ranks,
                     (long long)i, have, expected);
        }
}

static const Type *whole_type(Case *c, DType dt, int axis)
{
    int64_t dim[] = {2, 3, 5};
    dim[axis] *= c->ranks;
    return type_get(c->m, dt, 3, dim);
}

static const Type *shard_type(Case *c, DType dt, int axis)
{
    uint8_t over[ZM_MAX_RANK] = {0};
    over[axis] = MESH_DATA;
    return type_placed(c->m, type_get(c->m, dt, 3, (int64_t[]){2, 3, 5}), over, 0);
}

static void check_movement(uint32_t ranks, int axis, bool is_async)
{
    Case c;
    uint64_t state = ranks * 31 + (uint64_t)axis;
    case_open(&c, ranks);
    EvalTensor whole = eval_tensor(&c.arena, whole_type(&c, DT_F32, axis));
    for (int64_t i = 0; i < type_elems(whole.type); i++)
        whole.at[i] = dtype_round(DT_F32, noise(&state));
    const Type *part = shard_type(&c, DT_F32, axis);
    for (uint32_t r = 0; r < ranks; r++) {
        c.in[r] = eval_tensor(&c.arena, part);
        for (int64_t i = 0; i < type_elems(part); i++)
            c.in[r].at[i] = whole.at[whole_index(part, axis, ranks, r, i)];
    }
    build(&c, OP_ALL_GATHER, part, axis, is_async);
    run(&c, false);
    compare(&c, "all_gather", whole.at, -1);
    arena_free(&c.arena);
    if (is_async) return;

    case_open(&c, ranks);
    whole = eval_tensor(&c.arena, whole_type(&c, DT_F32, axis));
    for (int64_t i = 0; i < type_elems(whole.type); i++)
        whole.at[i] = dtype_round(DT_F32, noise(&state));
    for (uint32_t r = 0; r < ranks; r++) c.in[r] = whole;
    build(&c, OP_SHARD, whole.type, axis, false);
    run(&c, false);
    compare(&c, "shard", whole.at, axis);
    arena_free(&c.arena);
}

static void check_sum(uint32_t ranks, int axis, DType dt, bool is_async)
{
    static const OpCode codes[] = {OP_REDUCE_SCATTER, OP_ALL_REDUCE};
    for (int k = 0; k < 2; k++) {
        Case c;
        uint64_t state = ranks * 77 + (uint64_t)axis;
        case_open(&c, ranks);
        const Type *t = type_placed(c.m, whole_type(&c, dt, axis), NULL, 1 << MESH_DATA);
        EvalTensor want = eval_tensor(&c.arena, t);
        for (uint32_t r = 0; r < ranks; r++) {
            c.in[r] = eval_tensor(&c.arena, t);
            for (int64_t i = 0; i < type_elems(t); i++)
                c.in[r].at[i] = dtype_round(dt, 100 * noise(&state));
        }
        for (int64_t i = 0; i < type_elems(t); i++) want.at[i] = sum_of(&c, dt, i);
        build(&c, codes[k], t, axis, is_async);
        run(&c, false);
        compare(&c, op_info(codes[k])->name, want.at, codes[k] == OP_REDUCE_SCATTER ? axis : -1);
        arena_free(&c.arena);
    }
}

/* Cut to ranks and joined again: the same; of a partial sum, rank 0 begins with all. */
static void check_cut(uint32_t ranks, int axis)
{
    Case c;
    uint64_t state = 5;
    double *part[MAX_RANKS];
    case_open(&c, ranks);
    const Type *types[] = {shard_type(&c, DT_F32, axis),
                           type_get(c.m, DT_F32, 3, (int64_t[]){2, 3, 5}), NULL};
    types[2] = type_placed(c.m, types[1], NULL, 1 << MESH_DATA);
    for (int k = 0; k < 3; k++) {
        int64_t n = type_whole_elems(c.m, types[k]);
        double *whole = ARENA_ARRAY(&c.arena, double, n), *again = ARENA_ARRAY(&c.arena, double, n);
        for (int64_t i = 0; i < n; i++) whole[i] = dtype_round(DT_F32, noise(&state));
        for (uint32_t r = 0; r < ranks; r++) {
            part[r] = ARENA_ARRAY(&c.arena, double, type_elems(types[k]));
            eval_cut(types[k], whole, ranks, r, part[r]);
        }
        eval_join(types[k], part, ranks, again);
        n_compared++;
        if (memcmp(whole, again, (size_t)n * sizeof *whole) != 0)
            FAIL("%s cut to %u ranks and joined differs", type_text(&c.arena, types[k]), ranks);
        if (k == 2 && part[1][0] != 0) FAIL("rank 1 of a partial sum begins with %g", part[1][0]);
    }
    arena_free(&c.arena);
}

/* One rank alone, or another number of ranks than the mesh has, is an error at the collective. */
static void check_refusals(void)
{
    Case c;
    case_open(&c, 2);
    const Type *t =
        type_placed(c.m, type_get(c.m, DT_F32, 1, (int64_t[]){4}), NULL, 1 << MESH_DATA);
    build(&c, OP_ALL_REDUCE, t, 0, false);
    Eval *e[MAX_RANKS];
    for (uint32_t r = 0; r < 3; r++) {
        e[r] = eval_new(&c.arena, c.m);
        c.in[r] = eval_tensor(&c.arena, t);
    }
    for (uint32_t ranks = 1; ranks < 4; ranks += 2) {
        uint32_t before = c.diag.n_errors;
        if (eval_run_ranks(e, ranks, c.f, c.in, &c.arena, c.out) == ZM_OK ||
            c.diag.n_errors == before || c.diag.msgs.at[before].pos.line != 1)
            FAIL("%u ranks run a program of 2", ranks);
    }
    arena_free(&c.arena);
}

int main(void)
{
    static const DType sums[] = {DT_F32, DT_BF16, DT_F16, DT_F64, DT_I32};
    for (uint32_t ranks = 2; ranks <= MAX_RANKS; ranks++)
        for (int axis = 0; axis < 3; axis++)
            for (int is_async = 0; is_async < 2; is_async++) {
                check_movement(ranks, axis, is_async);
                for (size_t k = 0; k < sizeof sums / sizeof *sums; k++)
                    check_sum(ranks, axis, sums[k], is_async);
                check_cut(ranks, axis);
            }
    check_refusals();
    printf("%d numbers of ranks compared, %d failures\n", n_compared, n_failures);
    return n_failures != 0;
}
