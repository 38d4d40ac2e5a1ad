/* expand.c -- every composite op of ops.def means the same before and after pass expand.
 *
 *  - In doubles without rounding, both sides are the same formula: they differ by rounding of
 * doubles alone, at most N_TERMS operations on numbers no larger than the largest that occur (here
 * < 1e3): 1e3 * 1e3 * 2^-53 ~ 1e-10.
 *  - In f32, each element within the op's own tolerance of ops.def, in ulps of the largest element
 * of its tensor: that is what a back end, which computes the expansion, is held to.  Tolerance -1:
 * a sum; its terms' ulps (SUM_ULP). */
#include "tests/property/samples.h"

enum { SUM_ULP = 64 };

/* An optimizer on odd shapes; scalars as a real step has them; `finite` false in some variants. */
static OpId sample_update(Prop *p, OpCode code, uint32_t n_state, uint32_t n_scalars,
                          const AttrList *l)
{
    ValueId in[9];
    uint32_t n = 0;
    for (uint32_t i = 0; i < 2 + n_state; i++)
        in[n++] = prop_real(p, DIMS(3, 7), i == 3 ? SD_POSITIVE : SD_ANY);
    for (uint32_t i = 0; i < n_scalars; i++)
        in[n++] = prop_real_of(p, type_get(p->m, DT_F32, 0, NULL), SD_UNIT);
    in[n++] = prop_bools(p, 0, NULL);
    p->in[p->n_in - 1].at[0] = p->variant != 2;
    return build_op(&p->b, code, in, n, l);
}

static OpId sample_adam(Prop *p)
{
    AttrList l = {0};
    attr_add_float(&l, AT_BETA1, 0.9);
    attr_add_float(&l, AT_BETA2, 0.95);
    attr_add_float(&l, AT_EPS, 1e-8);
    attr_add_float(&l, AT_DECAY, p->variant % 2 ? 0.1 : 0);
    attr_add_str(&l, AT_KIND, p->variant < 3 ? "adamw" : "adam");
    return sample_update(p, OP_ADAM_UPDATE, 2, 4, &l);
}

static OpId sample_sgd(Prop *p)
{
    AttrList l = {0};
    attr_add_float(&l, AT_MOMENTUM, p->variant % 2 ? 0.9 : 0);
    attr_add_float(&l, AT_DECAY, p->variant % 3 ? 0.1 : 0);
    if (p->variant == 1 || p->variant == 3) attr_add_int(&l, AT_NESTEROV, 1);
    return sample_update(p, OP_SGD_UPDATE, 1, 2, &l);
}

static OpId sample_descent(Prop *p)
{
    AttrList l = {0};
    attr_add_float(&l, AT_DECAY, p->variant % 2 ? 0.1 : 0);
    return sample_update(p, OP_DESCENT_UPDATE, 0, 2, &l);
}

static OpId sample_lion(Prop *p)
{
    AttrList l = {0};
    attr_add_float(&l, AT_BETA1, 0.9);
    attr_add_float(&l, AT_BETA2, 0.99);
    attr_add_float(&l, AT_DECAY, p->variant % 2 ? 0.1 : 0);
    return sample_update(p, OP_LION_UPDATE, 1, 2, &l);
}

static OpId def_of(Prop *p, ValueId v)
{
    return value_cget(p->f, v)->def;
}

static OpId sample_many(Prop *p, OpCode code, bool is_special)
{
    ValueId in[] = {prop_real(p, DIMS(3, 5), SD_ANY), prop_real(p, 0, NULL, SD_ANY),
                    prop_real(p, DIMS(4099), SD_ANY), prop_real(p, DIMS(2, 4096), SD_ANY)};
    if (is_special && p->variant) p->var[p->variant % 4].at[0] = p->variant % 2 ? INFINITY : NAN;
    return build_op(&p->b, code, in, 4, NULL);
}

/* sdpa_grad_bias on the results of sdpa. */
static OpId sample_bias_grad(Prop *p)
{
    ValueId fwd[6], in[9];
    AttrList l = {0};
    p->variant = 3 + p->variant % 3; /* those with a bias */
    uint32_t n = sample_attention(p, fwd, &l), k = 0;
    OpId a = build_op(&p->b, OP_SDPA, fwd, n, &l);
    for (uint32_t i = 0; i < 3; i++) in[k++] = fwd[i];
    for (uint32_t i = 0; i < 2; i++) in[k++] = op_cget(p->f, a)->out[i];
    const Type *t = value_type(p->f, in[3]);
    in[k++] = prop_real_of(p, t, SD_ANY);
    for (uint32_t i = 3; i < n; i++) in[k++] = fwd[i];
    return build_op(&p->b, OP_SDPA_GRAD_BIAS, in, k, &l);
}

/* The sample of `code`; none when expand.c has no sample. */
static OpId build_sample(Prop *p, OpCode code)
{
    static SampleFn *const rows[N_OP] = {
        SAMPLES_OF_ROWS,
        [OP_CROSS_ENTROPY_GRAD] = sample_cross_entropy_grad,
    };
    if (op_info(code)->traits & TR_POINTWISE) return def_of(p, sample_point(p, code));
    if (rows[code]) return def_of(p, rows[code](p));
    if (code == OP_ADAM_UPDATE) return sample_adam(p);
    if (code == OP_SGD_UPDATE) return sample_sgd(p);
    if (code == OP_DESCENT_UPDATE) return sample_descent(p);
    if (code == OP_LION_UPDATE) return sample_lion(p);
    if (code == OP_ALL_FINITE) return sample_many(p, code, true);
    if (code == OP_COUNT_NONFINITE) return sample_many(p, code, true);
    if (code == OP_SUM_SQUARES) return sample_many(p, code, false);
    if (code == OP_SDPA_GRAD_BIAS) return sample_bias_grad(p);
    return (OpId){0};
}

static double largest(EvalTensor t)
{
    double max = 0;
    for (int64_t i = 0; i < type_elems(t.type); i++) max = fmax(max, fabs(t.at[i]));
    return max;
}

static int compare(const char *name, int variant, EvalTensor a, EvalTensor b, double bound)
{
    int bad = 0;
    for (int64_t i = 0; i < type_elems(a.type); i++) {
        if (prop_same_bits(a.at[i], b.at[i]) || fabs(a.at[i] - b.at[i]) <= bound) continue;
        if (!bad)
            fprintf(stderr, "%s variant %d [%lld]: %.17g, expanded %.17g, bound %g\n", name,
                    variant, (long long)i, a.at[i], b.at[i], bound);
        bad++;
    }
    return bad;
}

static int check_variant(OpCode code, int variant, DType dtype)
{
    const OpInfo *info = op_info(code);
    Prop p;
    prop_open(&p, hash_bytes(info->name, strlen(info->name), (uint64_t)variant), dtype);
    p.variant = variant;
    OpId op = build_sample(&p, code);
    if (!op_ok(op)) {
        fprintf(stderr, "%s is a composite op, but expand.c has no sample of it\n", info->name);
        return 1;
    }
    const Op o = *op_cget(p.f, op);
    build_return(&p.b, o.out, o.n_out, NULL);
    EvalTensor *wide = prop_run(&p, p.f, true), *narrow = prop_run(&p, p.f, false);
    prop_passes(&p, "expand");
    EvalTensor *wide_after = prop_run(&p, p.f, true), *narrow_after = prop_run(&p, p.f, false);
    double ulp = info->tol_ulp < 0 ? SUM_ULP : info->tol_ulp;
    double eps = dtype == DT_F64 ? 0x1p-53 : dtype == DT_F32 ? 0x1p-23 : 0x1p-7;
    int bad = 0;
    for (uint32_t i = 0; i < o.n_out; i++) {
        bad += compare(info->name, variant, wide[i], wide_after[i], 1e-10);
        bad += compare(info->name, variant, narrow[i], narrow_after[i],
                       ulp * eps * largest(narrow[i]));
    }
    prop_close(&p);
    return bad;
}

int main(void)
{
    int bad = 0, n = 0;
    for (int code = OP_NONE + 1; code < N_OP; code++) {
        if (op_info((OpCode)code)->traits & TR_PRIMITIVE) continue;
        n++;
        for (int variant = 0; variant < 5; variant++) {
            bad += check_variant((OpCode)code, variant, DT_F32);
            bad += check_variant((OpCode)code, variant, DT_F64);
            bad += check_variant((OpCode)code, variant, DT_BF16);
        }
    }
    printf("%d composite ops, %d failures\n", n, bad);
    return bad > 0 || n < 20;
}
