/* samples.h -- an instance of every op that is not element-wise, for the property tests:
 * sample_<rule of its EVAL column> builds it on operands of odd shapes and returns its
 * differentiable result.  Element-wise ops need none: their operands follow from ops.def
 * (sample_point). */
#ifndef ZM_TESTS_SAMPLES_H
#define ZM_TESTS_SAMPLES_H

#include "tests/property/prop.h"

#define DIMS(...)                                                                                  \
    (sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[])                              \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

/* A shape of the variant: rank 0, one element, a prime, several odd dimensions. */
static inline const Type *sample_shape(Prop *p, DType dt)
{
    static const int64_t dims[][3] = {{0}, {1}, {7}, {3, 5}, {2, 1, 11}};
    static const int rank[] = {0, 1, 1, 2, 3};
    int i = p->variant % 5;
    return type_get(p->m, dt, rank[i], dims[i]);
}

static inline ValueId sample_point(Prop *p, OpCode code)
{
    const OpInfo *info = op_info(code);
    ValueId in[4];
    bool is_logic = code == OP_AND || code == OP_OR || code == OP_NOT;
    for (int i = 0; i < info->min_in; i++) {
        const Type *t = sample_shape(p, p->dtype);
        bool is_bool = is_logic || (code == OP_SELECT && i == 0);
        in[i] = is_bool ? prop_bools(p, t->rank, t->dim) : prop_real_of(p, t, info->sample);
    }
    return build1(&p->b, code, in, (uint32_t)info->min_in, NULL);
}

static inline ValueId with_axis(Prop *p, OpCode code, ValueId x, int64_t axis)
{
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, axis);
    return build1(&p->b, code, &x, 1, &l);
}

static inline ValueId sample_read(Prop *p)
{
    ValueId x = prop_real(p, DIMS(3, 5), SD_ANY);
    return build_binary(&p->b, OP_MUL, x, build_read(&p->b, p->var[0].var));
}

static inline ValueId sample_broadcast(Prop *p)
{
    static const int64_t from[][3] = {{3, 1, 5}, {5}, {1}};
    static const int rank[] = {3, 1, 1};
    ValueId x = prop_real(p, rank[p->variant % 3], from[p->variant % 3], SD_ANY);
    int64_t to[] = {2, 3, 3, 5};
    return build_broadcast(&p->b, x, prop_type(p, p->dtype, 4, to));
}

static inline ValueId sample_cast(Prop *p)
{
    return build_cast(&p->b, prop_real(p, DIMS(3, 5), SD_ANY),
                      p->dtype == DT_F32 ? DT_F64 : DT_F32);
}

static inline ValueId sample_concat(Prop *p)
{
    ValueId in[] = {prop_real(p, DIMS(3, 2, 5), SD_ANY), prop_real(p, DIMS(3, 1, 5), SD_ANY),
                    prop_real(p, DIMS(3, 4, 5), SD_ANY)};
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, 1);
    return build1(&p->b, OP_CONCAT, in, 3, &l);
}

static inline ValueId sample_pad(Prop *p)
{
    return build_pad(&p->b, prop_real(p, DIMS(3, 5), SD_ANY), (int64_t[]){1, 0}, (int64_t[]){2, 3});
}

static inline ValueId sample_reshape(Prop *p)
{
    return build_reshape(&p->b, prop_real(p, DIMS(3, 5, 2), SD_ANY), DIMS(6, 5));
}

static inline ValueId sample_slice(Prop *p)
{
    return build_slice(&p->b, prop_real(p, DIMS(4, 5), SD_ANY), (int64_t[]){1, 2},
                       (int64_t[]){2, 3});
}

static inline ValueId sample_transpose(Prop *p)
{
    static const int64_t perm[][3] = {{1, 2, 0}, {0, 2, 1}, {2, 1, 0}};
    return build_transpose(&p->b, prop_real(p, DIMS(2, 3, 5), SD_ANY), perm[p->variant % 3]);
}

static inline ValueId sample_reduce(Prop *p, OpCode code)
{
    static const int64_t dims[][3] = {{1}, {0, 2}, {0, 1, 2}};
    static const uint32_t n[] = {1, 2, 3};
    ValueId x = prop_real(p, DIMS(3, 5, 2), SD_ANY);
    return build_reduce(&p->b, code, x, dims[p->variant % 3], n[p->variant % 3]);
}

static inline ValueId sample_reduce_sum(Prop *p)
{
    return sample_reduce(p, OP_REDUCE_SUM);
}

static inline ValueId sample_reduce_max(Prop *p)
{
    return sample_reduce(p, OP_REDUCE_MAX);
}

static inline ValueId sample_cross_entropy(Prop *p)
{
    ValueId x = prop_real(p, DIMS(2, 3, 7), SD_SMALL), y = prop_ints(p, DIMS(2, 3), 0, 7);
    AttrList l = {0};
    if (p->variant % 2) {
        attr_add_int(&l, AT_IGNORE, -100);
        p->in[p->n_in - 1].at[1] = p->in[p->n_in - 1].at[4] = -100;
    }
    ValueId in[] = {x, y};
    return build1(&p->b, OP_CROSS_ENTROPY, in, 2, &l);
}

static inline ValueId sample_cross_entropy_grad(Prop *p)
{
    ValueId x = prop_real(p, DIMS(2, 3, 7), SD_SMALL), y = prop_ints(p, DIMS(2, 3), 0, 7);
    AttrList l = {0};
    if (p->variant % 2) {
        attr_add_int(&l, AT_IGNORE, -100);
        p->in[p->n_in - 1].at[1] = p->in[p->n_in - 1].at[4] = -100;
    }
    ValueId dy = build_cast(&p->b, prop_real(p, DIMS(2, 3), SD_SMALL), DT_F32);
    ValueId in[] = {x, y, dy};
    return build1(&p->b, OP_CROSS_ENTROPY_GRAD, in, 3, &l);
}

static inline void add_random(Prop *p, AttrList *l, double prob, int64_t batch)
{
    (void)p;
    attr_add_float(l, AT_P, prob);
    attr_add_str(l, AT_STREAM, "h.0.drop");
    attr_add_int(l, AT_BATCH, batch);
}

static inline ValueId sample_drop(Prop *p)
{
    ValueId in[] = {prop_real(p, DIMS(3, 7), SD_ANY), prop_key(p)};
    AttrList l = {0};
    add_random(p, &l, 0.3, 3);
    return build1(&p->b, OP_DROP, in, 2, &l);
}

static inline ValueId sample_log_softmax(Prop *p)
{
    return with_axis(p, OP_LOG_SOFTMAX, prop_real(p, DIMS(3, 5, 2), SD_SMALL), p->variant % 3);
}

static inline ValueId sample_softmax(Prop *p)
{
    return with_axis(p, OP_SOFTMAX, prop_real(p, DIMS(3, 5, 2), SD_SMALL), p->variant % 3);
}

static inline ValueId with_eps(Prop *p, OpCode code)
{
    ValueId x = prop_real(p, DIMS(3, 7), SD_ANY);
    AttrList l = {0};
    attr_add_float(&l, AT_EPS, p->variant % 2 ? 0.3 : 1e-5);
    return build1(&p->b, code, &x, 1, &l);
}

static inline ValueId sample_normalize(Prop *p)
{
    return with_eps(p, OP_NORMALIZE);
}

static inline ValueId sample_rms_normalize(Prop *p)
{
    return with_eps(p, OP_RMS_NORMALIZE);
}

static inline ValueId sample_rotary(Prop *p)
{
    ValueId x = prop_real(p, DIMS(2, 5, 6), SD_ANY);
    AttrList l = {0};
    attr_add_float(&l, AT_THETA, 10000);
    if (p->variant % 2) attr_add_int(&l, AT_INVERSE, 1);
    return build1(&p->b, OP_ROTARY, &x, 1, &l);
}

/* Every pair of flags: matrices, equal leading dimensions, [..., M, K] by a matrix; of 16 bits with
 * results of either size. */
static inline ValueId sample_matmul(Prop *p)
{
    int64_t a[] = {2, 3, 5}, b[] = {2, 5, 7}, at[] = {2, 5, 3}, bt[] = {2, 7, 5};
    bool ta = p->variant & 1, tb = p->variant & 2;
    int kind = p->variant / 4 % 3; /* batched, matrix, mixed */
    if (kind == 2) ta = false;
    int skip_a = kind == 1, skip_b = kind != 0;
    ValueId x = prop_real(p, 3 - skip_a, (ta ? at : a) + skip_a, SD_ANY);
    ValueId y = prop_real(p, 3 - skip_b, (tb ? bt : b) + skip_b, SD_ANY);
    AttrList l = {0};
    if (ta) attr_add_int(&l, AT_TRANS_A, 1);
    if (tb) attr_add_int(&l, AT_TRANS_B, 1);
    if (dtype_bytes(p->dtype) == 2 && p->variant >= 3) attr_add_int(&l, AT_WIDE, 1);
    ValueId in[] = {x, y};
    return build1(&p->b, OP_MATMUL, in, 2, &l);
}

static inline ValueId sample_embed(Prop *p)
{
    ValueId in[] = {prop_real(p, DIMS(7, 3), SD_ANY), prop_ints(p, DIMS(2, 5), 0, 7)};
    return build1(&p->b, OP_EMBED, in, 2, NULL);
}

static inline ValueId sample_scatter_add(Prop *p)
{
    ValueId in[] = {prop_real(p, DIMS(7, 3), SD_ANY), prop_ints(p, DIMS(2, 5), 0, 7),
                    prop_real(p, DIMS(2, 5, 3), SD_ANY)};
    return build1(&p->b, OP_SCATTER_ADD, in, 3, NULL);
}

/* q, k, v and the optional operands of the variant: causal, mask, bias (full and broadcast),
 * dropout. */
static inline uint32_t sample_attention(Prop *p, ValueId *in, AttrList *l)
{
    int v = p->variant % 6;
    in[0] = prop_real(p, DIMS(2, 3, 3, 4), SD_ANY);
    in[1] = prop_real(p, DIMS(2, 3, 5, 4), SD_ANY);
    in[2] = prop_real(p, DIMS(2, 3, 5, 2), SD_ANY);
    uint32_t n = 3;
    attr_add_float(l, AT_SCALE, 0.7);
    if (v == 1 || v == 4) attr_add_int(l, AT_CAUSAL, 1);
    if (v == 2 || v == 5) {
        in[n++] = prop_bools(p, DIMS(2, 1, 3, 5));
        for (int i = 0; i < 30; i += 5) p->in[p->n_in - 1].at[i] = 1; /* every row sees something */
    }
    if (v == 3) in[n++] = prop_real(p, DIMS(2, 3, 3, 5), SD_ANY);
    if (v == 4 || v == 5) in[n++] = prop_real(p, DIMS(3, 1, 5), SD_ANY);
    if (v >= 4) {
        in[n++] = prop_key(p);
        add_random(p, l, 0.25, 2);
    }
    return n;
}

static inline ValueId sample_sdpa(Prop *p)
{
    ValueId in[6];
    AttrList l = {0};
    uint32_t n = sample_attention(p, in, &l);
    return op_cget(p->f, build_op(&p->b, OP_SDPA, in, n, &l))->out[0];
}

/* Tables from op to sample: what several tests draw, each adding its own entries. */
typedef ValueId SampleFn(Prop *p);

/* clang-format off */
#define SAMPLES_OF_VIEWS \
    [OP_BROADCAST] = sample_broadcast, \
    [OP_CAST] = sample_cast, \
    [OP_CONCAT] = sample_concat, \
    [OP_PAD] = sample_pad, \
    [OP_RESHAPE] = sample_reshape, \
    [OP_SLICE] = sample_slice, \
    [OP_TRANSPOSE] = sample_transpose, \
    [OP_REDUCE_MAX] = sample_reduce_max, \
    [OP_REDUCE_SUM] = sample_reduce_sum
#define SAMPLES_OF_ROWS \
    [OP_CROSS_ENTROPY] = sample_cross_entropy, \
    [OP_DROP] = sample_drop, \
    [OP_LOG_SOFTMAX] = sample_log_softmax, \
    [OP_NORMALIZE] = sample_normalize, \
    [OP_RMS_NORMALIZE] = sample_rms_normalize, \
    [OP_ROTARY] = sample_rotary, \
    [OP_SOFTMAX] = sample_softmax
#define SAMPLES_OF_PRODUCTS \
    [OP_MATMUL] = sample_matmul, \
    [OP_EMBED] = sample_embed, \
    [OP_SCATTER_ADD] = sample_scatter_add, \
    [OP_SDPA] = sample_sdpa
/* clang-format on */

#endif
