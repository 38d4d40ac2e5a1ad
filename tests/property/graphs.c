/* graphs.c -- canon, cse and dce keep the results of random functions, and a second canon finds
 * nothing left to do.
 *
 * Values are integers below 2^22 (a value that could grow beyond is clamped), so f32 arithmetic on
 * them is exact and every order of a sum gives the same number: results must be equal, also where a
 * rule only promises REASSOC.  Only the sign of zero may differ after canon. */
#include "tests/property/prop.h"

enum { N_OPS = 60, N_GRAPHS = 150, MAX_VALUES = 400 };
static const double max_exact = 0x1p22;

typedef struct Graph {
    Prop p;
    ValueId value[MAX_VALUES]; /* f32 */
    double bound[MAX_VALUES];  /* |element| at most */
    uint32_t n;
} Graph;

static const Type *type_of(Graph *g, ValueId v)
{
    return value_type(g->p.f, v);
}

static void add(Graph *g, ValueId v, double bound)
{
    Builder *b = &g->p.b;
    if (bound > max_exact) {
        v = build_binary(b, OP_MIN, v, build_splat(b, 8, type_of(g, v)));
        v = build_binary(b, OP_MAX, v, build_splat(b, -8, type_of(g, v)));
        bound = 8;
    }
    if (type_elems(type_of(g, v)) > 2000 || g->n == MAX_VALUES) return;
    g->value[g->n] = v;
    g->bound[g->n++] = bound;
}

static uint32_t pick(Graph *g)
{
    return (uint32_t)prop_below(&g->p, g->n);
}

/* Another value of the same type as `like`: one of the graph's, or a constant. */
static uint32_t pick_like(Graph *g, uint32_t like)
{
    static const double consts[] = {0, -0.0, 1, -1, 2};
    for (int tries = 0; tries < 20; tries++) {
        uint32_t i = pick(g);
        if (type_of(g, g->value[i]) == type_of(g, g->value[like])) return i;
    }
    double c = consts[prop_below(&g->p, 5)];
    add(g, build_splat(&g->p.b, c, type_of(g, g->value[like])), 2);
    return g->n - 1;
}

static void grow_point(Graph *g)
{
    static const OpCode unary[] = {OP_NEG, OP_ABS, OP_RELU, OP_FLOOR};
    static const OpCode binary[] = {OP_ADD, OP_SUB, OP_MAX, OP_MIN, OP_MUL};
    Builder *b = &g->p.b;
    uint32_t x = pick(g), y = pick_like(g, x);
    if (prop_below(&g->p, 4) == 0) {
        add(g, build_unary(b, unary[prop_below(&g->p, 4)], g->value[x]), g->bound[x]);
        return;
    }
    OpCode code = binary[prop_below(&g->p, 5)];
    double bound = code == OP_MUL ? g->bound[x] * g->bound[y] : g->bound[x] + g->bound[y];
    add(g, build_binary(b, code, g->value[x], g->value[y]), bound);
}

static void grow_choice(Graph *g)
{
    static const OpCode compare[] = {OP_LT, OP_LE, OP_GT, OP_GE, OP_EQ, OP_NE};
    Builder *b = &g->p.b;
    uint32_t x = pick(g), y = pick_like(g, x);
    ValueId c = build_binary(b, compare[prop_below(&g->p, 6)], g->value[x], g->value[y]);
    if (prop_below(&g->p, 2)) c = build_unary(b, OP_NOT, c);
    if (prop_below(&g->p, 3) == 0)
        c = build_binary(b, OP_OR, c, build_splat(b, (double)prop_below(&g->p, 2), type_of(g, c)));
    add(g, build_select(b, c, g->value[x], g->value[y]), fmax(g->bound[x], g->bound[y]));
    if (prop_below(&g->p, 4) == 0) add(g, build_cast(b, c, DT_F32), 1);
}

static void grow_cast(Graph *g)
{
    uint32_t x = pick(g);
    ValueId wide = build_cast(&g->p.b, g->value[x], DT_F64);
    add(g, build_cast(&g->p.b, wide, DT_F32), g->bound[x]);
}

static ValueId random_reshape(Graph *g, ValueId v)
{
    int64_t n = type_elems(type_of(g, v)), dim[3] = {1, 1, 1};
    for (int i = 0; i < 2; i++)
        for (int64_t d = 2; d <= 7; d++)
            if (n % d == 0 && prop_below(&g->p, 2)) {
                dim[i] = d;
                n /= d;
                break;
            }
    dim[2] = n;
    AttrList l = {0};
    attr_add_list(&l, AT_SHAPE, dim, 3);
    return build1(&g->p.b, OP_RESHAPE, &v, 1, &l);
}

static ValueId random_transpose(Graph *g, ValueId v)
{
    int rank = type_of(g, v)->rank;
    int64_t perm[ZM_MAX_RANK];
    for (int i = 0; i < rank; i++) perm[i] = i;
    for (int i = rank - 1; i > 0; i--) {
        int64_t k = prop_below(&g->p, i + 1), t = perm[i];
        perm[i] = perm[k];
        perm[k] = t;
    }
    return build_transpose(&g->p.b, v, perm);
}

static ValueId random_slice(Graph *g, ValueId v)
{
    const Type *t = type_of(g, v);
    int64_t start[ZM_MAX_RANK], size[ZM_MAX_RANK];
    for (int i = 0; i < t->rank; i++) {
        start[i] = prop_below(&g->p, 2) ? 0 : prop_below(&g->p, t->dim[i]);
        size[i] = prop_below(&g->p, 2) ? t->dim[i] - start[i]
                                       : 1 + prop_below(&g->p, t->dim[i] - start[i]);
    }
    return build_slice(&g->p.b, v, start, size);
}

static ValueId random_pad(Graph *g, ValueId v)
{
    int64_t low[ZM_MAX_RANK], high[ZM_MAX_RANK];
    for (int i = 0; i < type_of(g, v)->rank; i++) {
        low[i] = prop_below(&g->p, 2) * prop_below(&g->p, 3);
        high[i] = prop_below(&g->p, 2) * prop_below(&g->p, 3);
    }
    return build_pad(&g->p.b, v, low, high);
}

static ValueId random_broadcast(Graph *g, ValueId v)
{
    Type t = *type_of(g, v);
    for (int i = 0; i < t.rank; i++)
        if (t.dim[i] == 1 && prop_below(&g->p, 2)) t.dim[i] = 1 + prop_below(&g->p, 4);
    if (t.rank < 4 && prop_below(&g->p, 2)) {
        memmove(t.dim + 1, t.dim, (size_t)t.rank * sizeof t.dim[0]);
        t.dim[0] = 1 + prop_below(&g->p, 3);
        t.rank++;
    }
    AttrList l = {0};
    attr_add_list(&l, AT_SHAPE, t.dim, (uint32_t)t.rank);
    return build1(&g->p.b, OP_BROADCAST, &v, 1, &l);
}

static void grow_view(Graph *g)
{
    static ValueId (*const views[])(Graph *, ValueId) = {
        random_reshape, random_transpose, random_slice, random_pad, random_broadcast};
    uint32_t x = pick(g);
    ValueId v = g->value[x];
    for (int64_t n = 1 + prop_below(&g->p, 3); n > 0; n--) v = views[prop_below(&g->p, 5)](g, v);
    add(g, v, g->bound[x]);
}

static void grow_concat(Graph *g)
{
    uint32_t x = pick(g), y = pick_like(g, x);
    int rank = type_of(g, g->value[x])->rank;
    if (rank == 0) return;
    ValueId in[] = {g->value[x], g->value[y], g->value[x]};
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, prop_below(&g->p, rank));
    add(g, build1(&g->p.b, OP_CONCAT, in, 1 + (uint32_t)prop_below(&g->p, 3), &l),
        fmax(g->bound[x], g->bound[y]));
}

static void grow_reduce(Graph *g)
{
    uint32_t x = pick(g);
    int64_t dims[ZM_MAX_RANK], times = 1;
    uint32_t n = 0;
    const Type *t = type_of(g, g->value[x]);
    for (int i = 0; i < t->rank; i++)
        if (prop_below(&g->p, 2)) {
            dims[n++] = i;
            times *= t->dim[i];
        }
    bool is_sum = prop_below(&g->p, 2);
    ValueId v = build_reduce(&g->p.b, is_sum ? OP_REDUCE_SUM : OP_REDUCE_MAX, g->value[x], dims, n);
    add(g, v, g->bound[x] * (double)(is_sum ? times : 1));
}

static void grow_matmul(Graph *g)
{
    uint32_t x = pick(g);
    const Type *t = type_of(g, g->value[x]);
    double bound = g->bound[x] * g->bound[x] * (double)type_elems(t);
    if (t->rank < 2 || bound > max_exact) return;
    ValueId y = g->value[x];
    if (t->rank == 2 || prop_below(&g->p, 2)) {
        int64_t perm[ZM_MAX_RANK];
        for (int i = 0; i < t->rank; i++) perm[i] = i;
        perm[t->rank - 1] = t->rank - 2;
        perm[t->rank - 2] = t->rank - 1;
        add(g, build_matmul(&g->p.b, y, build_transpose(&g->p.b, y, perm), false, false), bound);
        return;
    }
    add(g, build_matmul(&g->p.b, y, y, true, false), bound);
}

static void grow_scatter(Graph *g)
{
    uint32_t x = pick(g);
    const Type *t = type_of(g, g->value[x]);
    if (t->rank != 2 || g->p.n_in == PROP_MAX_INPUTS) return;
    ValueId index = prop_ints(&g->p, 1, (int64_t[]){4}, 0, t->dim[0]);
    ValueId rows[] = {g->value[x], index}, zeros = build_splat(&g->p.b, 0, t);
    ValueId in[] = {zeros, index, build1(&g->p.b, OP_EMBED, rows, 2, NULL)};
    ValueId s = build1(&g->p.b, OP_SCATTER_ADD, in, 3, NULL);
    add(g, build_binary(&g->p.b, OP_ADD, g->value[x], s), 5 * g->bound[x]);
}

static void grow(Graph *g)
{
    static void (*const grows[])(Graph *) = {grow_point,  grow_point,  grow_choice, grow_cast,
                                             grow_view,   grow_view,   grow_concat, grow_reduce,
                                             grow_matmul, grow_scatter};
    void (*f)(Graph *) = grows[prop_below(&g->p, sizeof grows / sizeof *grows)];
    uint64_t rng = g->p.rng;
    f(g);
    if (prop_below(&g->p, 3)) return;
    uint64_t next =
        g->p.rng; /* the same ops once more: work for cse, as long as the choices agree */
    g->p.rng = rng;
    f(g);
    g->p.rng = next;
}

static void build_graph(Graph *g)
{
    for (int i = 0; i < 4; i++) {
        static const int64_t dims[][3] = {{3, 5}, {2, 3, 5}, {7}, {3, 1, 1}};
        static const int rank[] = {2, 3, 1, 3};
        ValueId v = prop_real(&g->p, rank[i], dims[i], SD_ANY);
        double *at = g->p.var[i].at;
        for (int64_t k = 0; k < type_elems(type_of(g, v)); k++) at[k] = trunc(at[k]);
        add(g, v, 3);
    }
    for (int i = 0; i < N_OPS; i++) grow(g);
    ValueId out[8];
    for (int i = 0; i < 8; i++)
        out[i] = g->value[i < 4 ? pick(g) : g->n - 1 - (uint32_t)prop_below(&g->p, 10)];
    build_return(&g->p.b, out, 8, NULL);
}

static int compare(const EvalTensor *a, const EvalTensor *b, bool bits, const char *pass, int seed)
{
    for (int r = 0; r < 8; r++)
        for (int64_t i = 0; i < type_elems(a[r].type); i++) {
            if (bits ? prop_same_bits(a[r].at[i], b[r].at[i]) : a[r].at[i] == b[r].at[i]) continue;
            fprintf(stderr, "graph %d after %s: result %d[%lld] is %.17g, was %.17g\n", seed, pass,
                    r, (long long)i, b[r].at[i], a[r].at[i]);
            return 1;
        }
    return 0;
}

static int check_graph(int seed)
{
    static const char *const passes[] = {"dce", "cse", "canon", "cse,dce"};
    Graph g = {.n = 0};
    prop_open(&g.p, (uint64_t)seed, DT_F32);
    build_graph(&g);
    EvalTensor *before = prop_run(&g.p, g.p.f, false);
    int bad = 0;
    for (int i = 0; i < 4; i++) {
        prop_passes(&g.p, passes[i]);
        bad += compare(before, prop_run(&g.p, g.p.f, false), i < 2, passes[i], seed);
    }
    for (int i = 0; i < 3; i++) prop_passes(&g.p, "canon,cse,dce"); /* each may feed the other */
    uint64_t hash = module_hash(g.p.m);
    prop_passes(&g.p, "canon,cse,dce");
    if (module_hash(g.p.m) != hash) {
        fprintf(stderr, "graph %d: canon, cse, dce do not come to rest\n", seed);
        bad++;
    }
    bad += compare(before, prop_run(&g.p, g.p.f, false), false, "rest", seed);
    prop_close(&g.p);
    return bad;
}

int main(void)
{
    int bad = 0;
    for (int seed = 1; seed <= N_GRAPHS; seed++) bad += check_graph(seed);
    printf("%d random functions, %d failures\n", N_GRAPHS, bad);
    return bad > 0;
}
