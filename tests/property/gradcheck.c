/* gradcheck.c -- the gradient of every op of ops.def that has one, against central differences of
 * the interpreter in f64.
 *
 * Loss = sum(r * op(...)) for random r.  For each element of each parameter D(h) = (L(x+h) -
 * L(x-h)) / 2h.  The error of D is c h^2 (the third derivative) + u |L| / h (rounding of L, u =
 * 2^-53); D(2h) - D(h) = 3 c h^2 measures the first.  So |grad - D(h)| <= |D(2h) - D(h)| + 64 u
 * sum|terms of L| / h,      h = u^(1/3): both parts are about 1e-10. A bound above 1e-6 (1 + |D|)
 * would hide mistakes: such a sample is refused as badly conditioned, not passed. */
#include "ir/scalar.h"
#include "tests/property/samples.h"

/* GRAD column of the OP entries as text; POINT entries have theirs in op_info. */
static const char *const grad_rule[N_OP] = {
#define GRAD(RULE) #RULE
#define POINT(...)
#define OP(ID, NAME, SIG_, ATTRS_, TYPE_, AMP_, GRAD_, ...) [OP_##ID] = GRAD_,
#include "ir/ops.def"
#undef OP
#undef POINT
#undef GRAD
};

static SampleFn *const samples[N_OP] = {
    [OP_READ] = sample_read,
    SAMPLES_OF_VIEWS,
    SAMPLES_OF_ROWS,
    SAMPLES_OF_PRODUCTS,
};

/* @train: loss = y * r with weight 1; @loss: the same before autodiff. */
static void add_loss(Prop *p, ValueId y)
{
    const Type *t = value_type(p->f, y);
    ValueId r = prop_input(p, t);
    for (int64_t i = 0; i < type_elems(t); i++) p->in[p->n_in - 1].at[i] = prop_draw(p, SD_NONZERO);
    ValueId results[] = {build_binary(&p->b, OP_MUL, y, r), build_splat(&p->b, 1, t)};
    build_return(&p->b, results, 2, "loss,weight");
    func_clone(p->m, p->f, "loss");
}

typedef struct Loss {
    double sum, magnitude;
} Loss;

static Loss loss_at(Prop *p, uint32_t var, int64_t i, double x)
{
    double saved = p->var[var].at[i];
    p->var[var].at[i] = x;
    EvalTensor loss = prop_run(p, func_find(p->m, "loss"), true)[0];
    p->var[var].at[i] = saved;
    Loss s = {0, 0};
    for (int64_t k = 0; k < type_elems(loss.type); k++) {
        s.sum += loss.at[k];
        s.magnitude += fabs(loss.at[k]);
    }
    return s;
}

static double difference(Prop *p, uint32_t var, int64_t i, double h, double *magnitude)
{
    double x = p->var[var].at[i];
    Loss up = loss_at(p, var, i, x + h), down = loss_at(p, var, i, x - h);
    *magnitude = up.magnitude + down.magnitude;
    return (up.sum - down.sum) / (2 * h);
}

static int check_element(Prop *p, const char *what, uint32_t var, int64_t i, double grad)
{
    double h = cbrt(0x1p-53), magnitude, unused;
    double d = difference(p, var, i, h, &magnitude), d2 = difference(p, var, i, 2 * h, &unused);
    double bound = fabs(d2 - d) + 64 * 0x1p-53 * (magnitude + 1) / h;
    if (bound > 1e-6 * (1 + fabs(d))) {
        fprintf(stderr, "%s variant %d: sample is badly conditioned: bound %g\n", what, p->variant,
                bound);
        return 1;
    }
    if (fabs(grad - d) <= bound) return 0;
    fprintf(stderr, "%s variant %d: d loss / d p%u[%lld] = %.12g, by differences %.12g, bound %g\n",
            what, p->variant, var, (long long)i, grad, d, bound);
    return 1;
}

static int check_sample(Prop *p, const char *what)
{
    int bad = 0;
    p->m->facts |= FACT_HAS_LOSS;
    prop_passes(p, "autodiff");
    EvalTensor *out = prop_run(p, p->f, true);
    ZM_CHECK(eval_n_results(p->f) == 2 + p->n_vars);
    for (uint32_t v = 0; v < p->n_vars; v++)
        for (int64_t i = 0; i < type_elems(out[2 + v].type); i++)
            bad += check_element(p, what, v, i, out[2 + v].at[i]);
    /* the same values after everything that follows autodiff */
    prop_passes(p, "canon,cse,dce,expand,canon,cse,dce");
    EvalTensor *low = prop_run(p, p->f, true);
    for (uint32_t r = 0; r < eval_n_results(p->f); r++)
        for (int64_t i = 0; i < type_elems(out[r].type); i++)
            if (!(fabs(low[r].at[i] - out[r].at[i]) <= 1e4 * 0x1p-53 * (1 + fabs(out[r].at[i])))) {
                fprintf(stderr, "%s variant %d: result %u[%lld] is %.17g, expanded %.17g\n", what,
                        p->variant, r, (long long)i, out[r].at[i], low[r].at[i]);
                bad++;
            }
    return bad;
}

static bool has_gradient(OpCode code)
{
    const OpInfo *info = op_info(code);
    if (!info->grad) return strcmp(grad_rule[code], "none") != 0;
    bool any = false;
    for (uint32_t i = 0; i < scalar_count(info->grad); i++) any |= !scalar_is_zero(info->grad, i);
    return any && scalar_count(info->grad) == (uint32_t)info->min_in &&
           strcmp(info->grad, "none") != 0;
}

static int check_op(OpCode code)
{
    const char *name = op_info(code)->name;
    bool is_point = op_info(code)->grad != NULL;
    if (!is_point && !samples[code]) {
        fprintf(stderr, "%s has a gradient, but gradcheck.c has no sample of it\n", name);
        return 1;
    }
    int bad = 0;
    for (int variant = 0; variant < 12; variant++) {
        Prop p;
        /* by name: an op that is added leaves the samples of the others as they are */
        prop_open(&p, hash_bytes(name, strlen(name), (uint64_t)variant), DT_F64);
        p.variant = variant;
        ValueId y = is_point ? sample_point(&p, code) : samples[code](&p);
        add_loss(&p, y);
        bad += check_sample(&p, name);
        prop_close(&p);
        if (is_point && variant == 4) break; /* shapes repeat */
    }
    return bad;
}

int main(void)
{
    int bad = 0, n = 0;
    for (int code = OP_NONE + 1; code < N_OP; code++)
        if (has_gradient((OpCode)code)) {
            bad += check_op((OpCode)code);
            n++;
        }
    printf("%d ops with a gradient, %d failures\n", n, bad);
    return bad > 0 || n < 40;
}
