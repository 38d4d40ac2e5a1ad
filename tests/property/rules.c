/* rules.c -- every rewrite rule of canon: the interpreter gives the same value before and after it
 * fires.
 *
 * A rule whose left side says all is built from that; one whose function looks at attributes has
 * instances here, by name. EXACT: bit for bit, on operands that include zeros of both signs,
 * infinities, NaN and subnormals.  REASSOC: finite operands; the two sides add at most N terms in
 * another order, each rounded to f32, so they differ by at most N 2^-23 sum|operands| with N the
 * number of operand elements. */
#include "passes/canon_rules.h"
#include "tests/property/samples.h"

enum { VARIANTS = 6 };

/* ---- left sides from patterns ---- */

static DType operand_dtype(OpCode op, uint32_t i, DType result)
{
    return op == OP_SELECT && i == 0 ? DT_I1 : result;
}

typedef struct Instance {
    Prop *p;
    ValueId var[PAT_MAX_VARS];
    SampleDomain domain;
} Instance;

static ValueId fresh(Instance *in, DType dt)
{
    int64_t dim[] = {3, 5};
    const Type *t = type_get(in->p->m, dt, 2, dim);
    return dt == DT_I1 ? prop_bools(in->p, t->rank, t->dim) : prop_real_of(in->p, t, in->domain);
}

static ValueId build_lhs(Instance *in, const Pat *pat, DType dt)
{
    int64_t dim[] = {3, 5};
    ValueId v[PAT_MAX_IN];
    uint32_t n = 0;
    switch (pat->kind) {
    case PAT_CONST: return build_splat(&in->p->b, pat->value, type_get(in->p->m, dt, 2, dim));
    case PAT_VAR:
        if (!value_ok(in->var[pat->var])) in->var[pat->var] = fresh(in, dt);
        return in->var[pat->var];
    case PAT_OP: break;
    }
    for (; n < PAT_MAX_IN && pat->in[n]; n++)
        v[n] = build_lhs(in, pat->in[n], operand_dtype(pat->op, n, dt));
    return build1(&in->p->b, pat->op, v, n, NULL);
}

/* ---- left sides of rules with functions ---- */

static ValueId real(Prop *p, int rank, const int64_t *dim)
{
    return prop_real(p, rank, dim, p->variant % 2 ? SD_SPECIAL : SD_ANY);
}

static ValueId ordinary(Prop *p, int rank, const int64_t *dim)
{
    return prop_real(p, rank, dim, SD_ANY);
}

static ValueId make_div_by_power_of_two(Prop *p)
{
    static const double by[] = {2, 0.25, -1024, 0x1p-100, 0x1p100, -0.5};
    ValueId x = real(p, DIMS(3, 5));
    return build_binary(&p->b, OP_DIV, x, build_splat(&p->b, by[p->variant], value_type(p->f, x)));
}

static ValueId make_select_const(Prop *p)
{
    ValueId x = real(p, DIMS(3, 5)), y = real(p, DIMS(3, 5));
    const Type *t = type_with_dtype(p->m, value_type(p->f, x), DT_I1);
    return build_select(&p->b, build_splat(&p->b, p->variant % 2, t), x, y);
}

static ValueId make_cast_same(Prop *p)
{
    AttrList l = {0};
    attr_add_int(&l, AT_DTYPE, p->dtype);
    ValueId x = real(p, DIMS(3, 5));
    return build1(&p->b, OP_CAST, &x, 1, &l);
}

static ValueId make_cast_of_cast(Prop *p)
{
    static const DType from[] = {DT_BF16, DT_F16, DT_F32, DT_I1, DT_I32, DT_I1};
    static const DType middle[] = {DT_F32, DT_F32, DT_F64, DT_BF16, DT_F64, DT_I32};
    static const DType to[] = {DT_F16, DT_F16, DT_BF16, DT_F32, DT_F32, DT_F16};
    ValueId x;
    if (from[p->variant] == DT_I32)
        x = prop_ints(p, DIMS(3, 5), -2000000000, 4000000000);
    else if (from[p->variant] == DT_I1)
        x = prop_bools(p, DIMS(3, 5));
    else
        x = prop_real_of(p, type_get(p->m, from[p->variant], DIMS(3, 5)), SD_SPECIAL);
    return build_cast(&p->b, build_cast(&p->b, x, middle[p->variant]), to[p->variant]);
}

static ValueId make_cast_of_view_of_cast(Prop *p, OpCode view)
{
    static const DType to[] = {DT_BF16, DT_F16, DT_F16, DT_BF16, DT_F64, DT_F32};
    DType from = p->variant % 2 ? DT_F16 : DT_BF16;
    ValueId x = prop_real_of(p, type_get(p->m, from, DIMS(4, 5)), SD_SPECIAL);
    x = build_cast(&p->b, x, p->variant == 5 ? DT_F64 : DT_F32);
    if (view == OP_RESHAPE) x = build_reshape(&p->b, x, DIMS(2, 10));
    if (view == OP_TRANSPOSE) x = build_transpose(&p->b, x, (int64_t[]){1, 0});
    if (view == OP_SLICE) x = build_slice(&p->b, x, (int64_t[]){1, 0}, (int64_t[]){2, 3});
    if (view == OP_PAD) x = build_pad(&p->b, x, (int64_t[]){0, 2}, (int64_t[]){1, 0});
    return build_cast(&p->b, x, to[p->variant]);
}

/* A view op with its attributes even where it changes nothing. */
static ValueId shaped(Prop *p, OpCode code, ValueId x, int rank, const int64_t *dim)
{
    AttrList l = {0};
    attr_add_list(&l, AT_SHAPE, dim, (uint32_t)rank);
    return build1(&p->b, code, &x, 1, &l);
}

static ValueId make_broadcast_same(Prop *p)
{
    return shaped(p, OP_BROADCAST, real(p, DIMS(3, 5)), DIMS(3, 5));
}

static ValueId make_broadcast_of_broadcast(Prop *p)
{
    return shaped(p, OP_BROADCAST, shaped(p, OP_BROADCAST, real(p, DIMS(3, 1)), DIMS(3, 5)),
                  DIMS(2, 3, 5));
}

static ValueId make_broadcast_of_reshape(Prop *p)
{
    ValueId x = p->variant % 2 ? real(p, DIMS(1, 3, 1)) : real(p, DIMS(3, 1));
    ValueId y = p->variant % 2 ? shaped(p, OP_RESHAPE, x, DIMS(3, 1))
                               : shaped(p, OP_RESHAPE, x, DIMS(1, 3, 1));
    return shaped(p, OP_BROADCAST, y, DIMS(2, 3, 5));
}

static ValueId make_broadcast_to_reshape(Prop *p)
{
    return shaped(p, OP_BROADCAST, real(p, DIMS(3, 5)), DIMS(1, 1, 3, 5));
}

static ValueId make_view_of_const(Prop *p, OpCode code)
{
    double v = code == OP_PAD ? 0 : 2.5;
    int64_t dim[] = {3, 5};
    ValueId c = build_splat(&p->b, v, type_get(p->m, p->dtype, 2, dim));
    switch ((int)code) {
    case OP_BROADCAST: return shaped(p, code, c, DIMS(2, 3, 5));
    case OP_RESHAPE: return shaped(p, code, c, DIMS(15));
    case OP_TRANSPOSE: return build_transpose(&p->b, c, (int64_t[]){1, 0});
    case OP_SLICE: return build_slice(&p->b, c, (int64_t[]){1, 1}, (int64_t[]){2, 3});
    case OP_PAD: return build_pad(&p->b, c, (int64_t[]){1, 0}, (int64_t[]){0, 2});
    default: ZM_UNREACHABLE("view");
    }
}

static ValueId make_reshape_same(Prop *p)
{
    return shaped(p, OP_RESHAPE, real(p, DIMS(3, 5)), DIMS(3, 5));
}

static ValueId make_reshape_of_reshape(Prop *p)
{
    ValueId x = real(p, DIMS(3, 10));
    return p->variant % 2 ? shaped(p, OP_RESHAPE, shaped(p, OP_RESHAPE, x, DIMS(5, 6)), DIMS(2, 15))
                          : shaped(p, OP_RESHAPE, shaped(p, OP_RESHAPE, x, DIMS(30)), DIMS(3, 10));
}

static ValueId make_transpose_identity(Prop *p)
{
    return build_transpose(&p->b, real(p, DIMS(3, 5)), (int64_t[]){0, 1});
}

static const int64_t perms[VARIANTS][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                           {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};

static ValueId make_transpose_of_transpose(Prop *p)
{
    ValueId x = build_transpose(&p->b, real(p, DIMS(2, 3, 5)), perms[(p->variant + 3) % VARIANTS]);
    return build_transpose(&p->b, x, perms[p->variant]);
}

static ValueId make_transpose_to_reshape(Prop *p)
{
    return build_transpose(&p->b, real(p, DIMS(3, 1, 5)), p->variant % 2 ? perms[1] : perms[2]);
}

static ValueId make_slice_everything(Prop *p)
{
    return build_slice(&p->b, real(p, DIMS(3, 5)), (int64_t[]){0, 0}, (int64_t[]){3, 5});
}

static ValueId make_slice_of_slice(Prop *p)
{
    ValueId x = build_slice(&p->b, real(p, DIMS(4, 7)), (int64_t[]){1, 2}, (int64_t[]){3, 4});
    return build_slice(&p->b, x, (int64_t[]){p->variant % 2, 1}, (int64_t[]){2, 3});
}

static ValueId make_slice_of_pad(Prop *p)
{
    static const int64_t start[VARIANTS][2] = {{1, 2}, {1, 3}, {0, 2}, {1, 0}, {4, 2}, {1, 7}};
    static const int64_t size[VARIANTS][2] = {{3, 5}, {2, 1}, {1, 5}, {3, 2}, {1, 3}, {1, 2}};
    ValueId x = build_pad(&p->b, real(p, DIMS(3, 5)), (int64_t[]){1, 2}, (int64_t[]){1, 2});
    return build_slice(&p->b, x, start[p->variant], size[p->variant]);
}

static ValueId make_slice_of_concat(Prop *p)
{
    static const int64_t start[VARIANTS] = {0, 0, 2, 3, 4, 6}, size[VARIANTS] = {2, 1, 1, 3, 2, 1};
    ValueId in[] = {real(p, DIMS(3, 2, 5)), real(p, DIMS(3, 1, 5)), real(p, DIMS(3, 4, 5))};
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, 1);
    ValueId y = build1(&p->b, OP_CONCAT, in, 3, &l);
    return build_slice(&p->b, y, (int64_t[]){1, start[p->variant], 0},
                       (int64_t[]){2, size[p->variant], 5});
}

static ValueId make_slice_of_broadcast(Prop *p)
{
    ValueId x = shaped(p, OP_BROADCAST, real(p, DIMS(3, 1, 5)), DIMS(2, 3, 7, 5));
    int64_t start[] = {1, p->variant % 2, 3, 2}, size[] = {1, 2, 4, 3};
    if (p->variant == 0)
        return build_slice(&p->b, x, (int64_t[]){0, 0, 1, 0}, (int64_t[]){1, 3, 2, 5});
    return build_slice(&p->b, x, start, size);
}

static ValueId make_pad_nothing(Prop *p)
{
    return build_pad(&p->b, real(p, DIMS(3, 5)), (int64_t[]){0, 0}, (int64_t[]){0, 0});
}

static ValueId make_pad_of_pad(Prop *p)
{
    ValueId x = build_pad(&p->b, real(p, DIMS(3, 5)), (int64_t[]){1, 0}, (int64_t[]){0, 2});
    return build_pad(&p->b, x, (int64_t[]){0, 3}, (int64_t[]){p->variant, 1});
}

static ValueId make_reduce_max_of_const(Prop *p)
{
    int64_t dim[] = {3, 5}, dims[] = {1};
    return build_reduce(&p->b, OP_REDUCE_MAX,
                        build_splat(&p->b, -2.5, type_get(p->m, p->dtype, 2, dim)), dims, 1);
}

static ValueId make_reduce_unit(Prop *p, OpCode code)
{
    ValueId x = code == OP_REDUCE_SUM ? ordinary(p, DIMS(1, 3, 1, 5)) : real(p, DIMS(1, 3, 1, 5));
    return build_reduce(&p->b, code, x, (int64_t[]){0, 2}, p->variant % 2 ? 2 : 1);
}

static ValueId make_reduce_of_reduce(Prop *p, OpCode code)
{
    static const int64_t inner[VARIANTS][2] = {{0, 0}, {1, 0}, {3, 0}, {0, 2}, {1, 3}, {2, 3}};
    static const int64_t outer[VARIANTS][2] = {{0, 0}, {0, 2}, {1, 2}, {1, 0}, {0, 0}, {0, 1}};
    static const uint32_t n_outer[VARIANTS] = {1, 2, 2, 1, 1, 2};
    ValueId x = code == OP_REDUCE_SUM ? ordinary(p, DIMS(2, 3, 4, 5)) : real(p, DIMS(2, 3, 4, 5));
    x = build_reduce(&p->b, code, x, inner[p->variant], p->variant < 3 ? 1 : 2);
    return build_reduce(&p->b, code, x, outer[p->variant], n_outer[p->variant]);
}

static ValueId make_reduce_of_broadcast(Prop *p, OpCode code)
{
    static const int64_t dims[VARIANTS][4] = {{0}, {2}, {0, 2}, {0, 1, 2, 3}, {0, 3}, {1, 3}};
    static const uint32_t n[VARIANTS] = {1, 1, 2, 4, 2, 2};
    ValueId x = code == OP_REDUCE_SUM ? ordinary(p, DIMS(3, 1, 5)) : real(p, DIMS(3, 1, 5));
    return build_reduce(&p->b, code, shaped(p, OP_BROADCAST, x, DIMS(3, 3, 7, 5)), dims[p->variant],
                        n[p->variant]);
}

/* Both operands transposed: each of the two rules finds one. */
static ValueId make_matmul_of_transpose(Prop *p)
{
    bool ta = p->variant & 1, tb = p->variant & 2;
    int64_t a[] = {2, 3, 5}, at[] = {2, 5, 3}, b[] = {2, 5, 7}, bt[] = {2, 7, 5};
    bool matrix = p->variant >= 4;
    ValueId x = ordinary(p, 3 - matrix, (ta ? a : at) + matrix),
            y = ordinary(p, 3 - matrix, (tb ? b : bt) + matrix);
    const int64_t *perm = matrix ? perms[2] : perms[1];
    x = build_transpose(&p->b, x, perm);
    y = build_transpose(&p->b, y, perm);
    return build_matmul(&p->b, x, y, ta, tb);
}

static ValueId make_scatter_into_sum(Prop *p)
{
    ValueId base = ordinary(p, DIMS(7, 3));
    ValueId in[] = {build_splat(&p->b, 0, value_type(p->f, base)), prop_ints(p, DIMS(2, 5), 0, 7),
                    ordinary(p, DIMS(2, 5, 3))};
    ValueId s = build1(&p->b, OP_SCATTER_ADD, in, 3, NULL);
    return p->variant % 2 ? build_binary(&p->b, OP_ADD, s, base)
                          : build_binary(&p->b, OP_ADD, base, s);
}

static ValueId make_concat_of_pads(Prop *p)
{
    int64_t low[] = {0, 0, 1}, high[] = {0, 0, 1};
    low[1] = 2;
    high[1] = 4;
    ValueId x = ordinary(p, DIMS(3, 2, 5)), y = ordinary(p, DIMS(3, 1, 5));
    ValueId px = build_pad(&p->b, x, (int64_t[]){0, 0, 1}, (int64_t[]){0, 5, 1}),
            py = build_pad(&p->b, y, low, high);
    return p->variant % 2 ? build_binary(&p->b, OP_ADD, px, py)
                          : build_binary(&p->b, OP_ADD, py, px);
}

static ValueId make_concat_of_one(Prop *p)
{
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, 1);
    ValueId x = real(p, DIMS(3, 2));
    return build1(&p->b, OP_CONCAT, &x, 1, &l);
}

static ValueId make_concat_of_concat(Prop *p)
{
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, 1);
    ValueId in[] = {real(p, DIMS(3, 2)), real(p, DIMS(3, 1)), real(p, DIMS(3, 4))};
    ValueId two = build1(&p->b, OP_CONCAT, p->variant % 2 ? in : in + 1, 2, &l);
    ValueId all[] = {p->variant % 2 ? two : in[0], p->variant % 2 ? in[2] : two};
    return build1(&p->b, OP_CONCAT, all, 2, &l);
}

static ValueId make_drop_nothing(Prop *p)
{
    ValueId in[] = {real(p, DIMS(3, 5)), prop_key(p)};
    AttrList l = {0};
    add_random(p, &l, 0, 3);
    return build1(&p->b, OP_DROP, in, 2, &l);
}

static ValueId pack(Prop *p, const ValueId *in, uint32_t n, const int64_t *starts, int64_t size)
{
    AttrList l = {0};
    attr_add_list(&l, AT_STARTS, starts, n);
    attr_add_list(&l, AT_SHAPE, &size, 1);
    return build1(&p->b, OP_PACK, in, n, &l);
}

static ValueId make_pack_of_one(Prop *p)
{
    ValueId x = real(p, DIMS(3, 5));
    return pack(p, &x, 1, (int64_t[]){0}, 15);
}

static VarId make_view(Prop *p, const char *name, VarId in, int64_t offset, int rank,
                       const int64_t *dim)
{
    const Type *t = type_get(p->m, p->dtype, rank, dim);
    return var_new(p->m, (Var){.name = name,
                               .type = t,
                               .kind = VK_PARAM,
                               .in = in,
                               .in_offset = offset,
                               .loc = p->b.loc});
}

static ValueId make_pack_of_views(Prop *p)
{
    int64_t size = 32;
    ValueId whole = prop_real(p, 1, &size, SD_ANY); /* @p0 */
    op_erase(p->f, value_cget(p->f, whole)->def);
    VarId bucket = p->var[0].var;
    var_get(p->m, bucket)->is_bucket = true;
    for (int i = 29; i < 32; i++) p->var[0].at[i] = 0; /* padding */
    VarId a = make_view(p, "a", bucket, 0, DIMS(3, 5)),
          b = make_view(p, "b", bucket, 15, DIMS(2, 7));
    ValueId in[] = {build_read(&p->b, a), build_read(&p->b, b)};
    return pack(p, in, 2, (int64_t[]){0, 15}, size);
}

static ValueId make_fold_point(Prop *p)
{
    static const OpCode codes[VARIANTS] = {OP_ADD, OP_EXP,   OP_LT, OP_GELU_TANH_GRAD,
                                           OP_MAX, OP_SELECT};
    int64_t dim[] = {3, 5};
    OpCode code = codes[p->variant];
    ValueId in[3];
    for (int i = 0; i < op_info(code)->min_in; i++) {
        DType dt = operand_dtype(code, (uint32_t)i, p->dtype);
        in[i] = build_splat(&p->b, dt == DT_I1 ? 1 : 0.1 * (i + 1), type_get(p->m, dt, 2, dim));
    }
    return build1(&p->b, code, in, (uint32_t)op_info(code)->min_in, NULL);
}

static ValueId make_point_of_broadcasts(Prop *p)
{
    ValueId x = shaped(p, OP_BROADCAST, real(p, DIMS(3, 1)), DIMS(2, 3, 5));
    ValueId y = shaped(p, OP_BROADCAST, real(p, DIMS(3, 1)), DIMS(2, 3, 5));
    if (p->variant == 0) return build_unary(&p->b, OP_EXP, x);
    if (p->variant == 1)
        return build_binary(&p->b, OP_MUL, x, build_splat(&p->b, 1.7, value_type(p->f, x)));
    if (p->variant == 2) return build_cast(&p->b, x, DT_BF16);
    if (p->variant == 3) return build_select(&p->b, build_binary(&p->b, OP_LT, x, y), x, y);
    return build_binary(&p->b, OP_SUB, x, y);
}

/* By name; `with` takes the code of the left side's root, below a cast. */
static const struct {
    const char *rule;
    ValueId (*make)(Prop *p);
    ValueId (*with)(Prop *p, OpCode root);
} instances[] = {
#define MAKE(NAME) {#NAME, make_##NAME, NULL}
    MAKE(broadcast_of_broadcast),
    MAKE(broadcast_of_reshape),
    MAKE(broadcast_same),
    MAKE(broadcast_to_reshape),
    MAKE(cast_of_cast),
    MAKE(cast_same),
    MAKE(concat_of_concat),
    MAKE(concat_of_one),
    MAKE(concat_of_pads),
    MAKE(div_by_power_of_two),
    MAKE(drop_nothing),
    MAKE(fold_point),
    MAKE(matmul_of_transpose),
    MAKE(pack_of_one),
    MAKE(pack_of_views),
    MAKE(pad_nothing),
    MAKE(pad_of_pad),
    MAKE(point_of_broadcasts),
    MAKE(reduce_max_of_const),
    MAKE(reshape_of_reshape),
    MAKE(reshape_same),
    MAKE(scatter_into_sum),
    MAKE(select_const),
    MAKE(slice_everything),
    MAKE(slice_of_broadcast),
    MAKE(slice_of_concat),
    MAKE(slice_of_pad),
    MAKE(slice_of_slice),
    MAKE(transpose_identity),
    MAKE(transpose_of_transpose),
    MAKE(transpose_to_reshape),
    {"cast_of_view_of_cast", NULL, make_cast_of_view_of_cast},
    {"view_of_const", NULL, make_view_of_const},
    {"reduce_unit", NULL, make_reduce_unit},
    {"reduce_of_reduce", NULL, make_reduce_of_reduce},
    {"reduce_max_of_broadcast", NULL, make_reduce_of_broadcast},
    {"reduce_sum_of_broadcast", NULL, make_reduce_of_broadcast},
};

static ValueId make_instance(Prop *p, const Rule *rule)
{
    const Pat *lhs = rule->lhs, *below = lhs->op == OP_CAST ? lhs->in[0] : NULL;
    OpCode code = below && below->kind == PAT_OP ? below->op : lhs->op;
    for (size_t i = 0; i < sizeof instances / sizeof *instances; i++)
        if (strcmp(instances[i].rule, rule->name) == 0)
            return instances[i].make ? instances[i].make(p) : instances[i].with(p, code);
    if (rule->build) return (ValueId){0};
    OpCode root = rule->lhs->op;
    bool is_logic = root == OP_AND || root == OP_OR || root == OP_NOT;
    Instance in = {.p = p, .domain = rule->precision == EXACT ? SD_SPECIAL : SD_ANY};
    return build_lhs(&in, rule->lhs, is_logic ? DT_I1 : p->dtype);
}

/* ---- both sides ---- */

static double operands_magnitude(const Prop *p, double *n)
{
    double sum = 0;
    *n = 0;
    for (uint32_t v = 0; v < p->n_vars; v++)
        for (int64_t i = 0; i < type_elems(var_cget(p->m, p->var[v].var)->type); i++) {
            sum += fabs(p->var[v].at[i]);
            ++*n;
        }
    return sum;
}

static int compare(Prop *p, const Rule *rule, EvalTensor a, EvalTensor b)
{
    double n, magnitude = operands_magnitude(p, &n);
    double bound = rule->precision == EXACT ? 0 : n * 0x1p-23 * magnitude;
    for (int64_t i = 0; i < type_elems(a.type); i++) {
        bool fits = rule->precision == EXACT ? prop_same_bits(a.at[i], b.at[i])
                                             : fabs(a.at[i] - b.at[i]) <= bound;
        if (fits) continue;
        fprintf(stderr, "rule %s variant %d [%lld]: %.17g before, %.17g after, bound %g\n",
                rule->name, p->variant, (long long)i, a.at[i], b.at[i], bound);
        prop_print(p);
        return 1;
    }
    return 0;
}

static int check_variant(const Rule *rule, int variant, uint32_t *hits)
{
    Prop p;
    prop_open(&p, 31u * (uint64_t)(rule - canon_rules) + (uint64_t)variant, DT_F32);
    p.variant = variant;
    ValueId y = make_instance(&p, rule);
    if (!value_ok(y)) {
        fprintf(stderr, "rules.c has no instance of rule %s\n", rule->name);
        return 1;
    }
    build_return(&p.b, &y, 1, NULL);
    ZM_CHECK(module_verify(p.m, NULL) == ZM_OK);
    EvalTensor *before = prop_run(&p, p.f, false);
    Arena scratch = {0};
    PassCtx cx = {.m = p.m, .scratch = &scratch, .diag = &p.diag, .pass = pass_info(PASS_canon)};
    rewrite_module(&cx, rule, 1, hits);
    if (module_verify(p.m, rule->name) != ZM_OK) diag_print(&p.diag, stderr);
    ZM_CHECK(p.diag.n_errors == 0);
    int bad = compare(&p, rule, before[0], prop_run(&p, p.f, false)[0]);
    arena_free(&scratch);
    prop_close(&p);
    return bad;
}

int main(void)
{
    int bad = 0;
    for (uint32_t r = 0; r < n_canon_rules; r++) {
        uint32_t hits = 0;
        for (int variant = 0; variant < VARIANTS; variant++)
            bad += check_variant(&canon_rules[r], variant, &hits);
        if (hits > 0) continue;
        fprintf(stderr, "rule %s (number %u) never fired on its instances\n", canon_rules[r].name,
                r);
        bad++;
    }
    printf("%u rules, %d failures\n", n_canon_rules, bad);
    return bad > 0 || n_canon_rules < 40;
}
