/* accumulate.c -- from one differentiated micro-batch to a training step.
 *
 * In:  @train(inputs) returns loss items, their weights and one gradient per parameter; @eval
 * returns loss and weights. Out: @micro  forward, backward; adds the loss, the count and the
 * gradients to accumulators (A - 1 times; only when A > 1)
 *      @last   the same, then: verdict, unscale, global-norm clip, learning rate, optimizer update,
 * metrics
 *      @eval   adds its loss and count to eval_loss_sum and eval_count
 * All state is variables (names: ir/base/program.h).  A step whose gradients are not finite, or
 * whose batch has no item, changes no parameter, moment or counter but `step`: every write is a
 * select on `finite`, so no one waits for a verdict.
 *
 * The gradient that autodiff made is that of S * sum(loss * weight) / items, S the loss scale.  The
 * mean over the n items that count is obtained by one factor, gscale = items / (n * S), applied in
 * f32 where the optimizer reads the gradient. Learning rate and bias corrections are f64, rounded
 * once.  Formulas: docs/training.md.
 */
#include "passes/pass.h"

#include "ir/base/program.h"
#include "passes/scale_update.h"
#include "passes/state_names.h"

#include <math.h>
#include <string.h>

typedef struct Step {
    PassCtx *cx;
    Module *m;
    Builder b;
    const TrainConfig *cfg;
    uint32_t n_params;
    VarId *param;  /* parameters in variable order */
    ValueId *grad; /* of each, raw */
    ValueId items; /* loss * weight summed, f64[] */
    ValueId count; /* weight summed, f64[] */
} Step;

/* ---- small builders ---- */

static ValueId f64_const(Step *s, double v)
{
    return build_const(&s->b, v, DT_F64);
}

static ValueId op2(Step *s, OpCode code, ValueId x, ValueId y)
{
    return build_binary(&s->b, code, x, y);
}

static VarId scalar_var(Step *s, const char *name, DType dtype, double init)
{
    return state_scalar(s->m, name, dtype, init, s->b.loc);
}

static ValueId scalar_read(Step *s, const char *name, DType dtype, double init)
{
    return build_read(&s->b, scalar_var(s, name, dtype, init));
}

static void scalar_write(Step *s, const char *name, DType dtype, double init, ValueId v)
{
    build_write(&s->b, scalar_var(s, name, dtype, init), build_cast(&s->b, v, dtype));
}

/* f64 sum of all elements of v. */
static ValueId sum_all(Step *s, ValueId v)
{
    int64_t dims[ZM_MAX_RANK];
    int rank = value_type(s->b.f, v)->rank;
    for (int i = 0; i < rank; i++) dims[i] = i;
    return build_reduce(&s->b, OP_REDUCE_SUM, build_cast(&s->b, v, DT_F64), dims, (uint32_t)rank);
}

/* ---- taking over a function ---- */

/* Opens f at its return: reads loss, weight and gradients, then drops the return. */
static void step_open(Step *s, Func *f, bool has_grads)
{
    ValueId loss = func_result(f, "loss"), weight = func_result(f, "weight");
    for (uint32_t i = 0; has_grads && i < s->n_params; i++)
        s->grad[i] = func_result(
            f, arena_printf(s->cx->scratch, STATE_GRAD ".%s", var_cget(s->m, s->param[i])->name));
    s->b = (Builder){.f = f, .loc = pass_loc(s->cx, op_cget(f, f->last)->loc, "training step")};
    op_erase(f, f->last);
    s->items = sum_all(s, op2(s, OP_MUL, loss, weight));
    s->count = sum_all(s, weight);
}

/* Sets s->items and s->count to the step's totals so far, and the accumulators' gradients. */
static void step_add_scalars(Step *s)
{
    s->items = op2(s, OP_ADD, scalar_read(s, ZMP_S_LOSS_SUM, DT_F64, 0), s->items);
    s->count = op2(s, OP_ADD, scalar_read(s, ZMP_S_COUNT, DT_F64, 0), s->count);
}

/* Of gradients in memory. */
static DType grad_dtype(const Step *s)
{
    DType low = precision_dtype(s->cfg->precision);
    return s->cfg->grad_low && low != DT_NONE ? low : DT_F32;
}

static VarId grad_var(Step *s, uint32_t i)
{
    const Var *p = var_cget(s->m, s->param[i]);
    const char *name = arena_printf(s->m->arena, STATE_GRAD ".%s", p->name);
    VarId have = var_find(s->m, name);
    if (var_ok(have)) return have;
    Var v = {.name = name,
             .type = type_with_dtype(s->m, p->type, grad_dtype(s)),
             .kind = VK_GRAD,
             .of = s->param[i],
             .loc = p->loc};
    return var_new(s->m, v);
}

/* Each right where the gradient is made: at the end all gradients, and what products fused with the
 * additions read, would be live at once.  Sums are taken in f32, whatever holds them. */
static void step_add_grads(Step *s)
{
    for (uint32_t i = 0; i < s->n_params; i++) {
        VarId acc = grad_var(s, i);
        OpId def = value_cget(s->b.f, s->grad[i])->def;
        Builder at = s->b;
        if (op_ok(def)) at.before = op_cget(s->b.f, def)->next;
        ValueId have = build_cast(&at, build_read(&at, acc), DT_F32);
        ValueId sum = build_binary(&at, OP_ADD, have, build_cast(&at, s->grad[i], DT_F32));
        build_write(&at, acc, build_cast(&at, sum, grad_dtype(s)));
    }
}

/* Without accumulators: each gradient as it lies in memory. */
static void step_store_grads(Step *s)
{
    for (uint32_t i = 0; i < s->n_params; i++)
        s->grad[i] = build_cast(&s->b, s->grad[i], grad_dtype(s));
}

static void make_micro(Step *s, const Func *train)
{
    step_open(s, func_clone(s->m, train, "micro"), true);
    step_add_scalars(s);
    step_add_grads(s);
    scalar_write(s, ZMP_S_LOSS_SUM, DT_F64, 0, s->items);
    scalar_write(s, ZMP_S_COUNT, DT_F64, 0, s->count);
    build_return(&s->b, NULL, 0, NULL);
}

static void make_eval(Step *s, Func *eval)
{
    step_open(s, eval, false);
    scalar_write(s, ZMP_S_EVAL_SUM, DT_F64, 0,
                 op2(s, OP_ADD, scalar_read(s, ZMP_S_EVAL_SUM, DT_F64, 0), s->items));
    scalar_write(s, ZMP_S_EVAL_COUNT, DT_F64, 0,
                 op2(s, OP_ADD, scalar_read(s, ZMP_S_EVAL_COUNT, DT_F64, 0), s->count));
    build_return(&s->b, NULL, 0, NULL);
}

/* ---- learning rate: u updates done before this one ---- */

static ValueId decayed_rate(Step *s, ValueId u)
{
    const TrainConfig *c = s->cfg;
    if (c->schedule == SCHED_CONSTANT) return f64_const(s, c->lr);
    double span = fmax(1, c->total - c->warmup);
    ValueId p = op2(s, OP_DIV, op2(s, OP_SUB, u, f64_const(s, c->warmup)), f64_const(s, span));
    p = op2(s, OP_MIN, p, f64_const(s, 1));
    if (c->schedule == SCHED_LINEAR)
        return op2(s, OP_ADD, f64_const(s, c->lr),
                   op2(s, OP_MUL, f64_const(s, c->min_lr - c->lr), p));
    ValueId wave =
        op2(s, OP_ADD, f64_const(s, 1),
            build_unary(&s->b, OP_COS, op2(s, OP_MUL, p, f64_const(s, 3.14159265358979323846))));
    return op2(s, OP_ADD, f64_const(s, c->min_lr),
               op2(s, OP_MUL, f64_const(s, (c->lr - c->min_lr) / 2), wave));
}

static ValueId learning_rate(Step *s, ValueId u)
{
    ValueId rate = decayed_rate(s, u);
    if (s->cfg->warmup <= 0) return rate;
    ValueId ramp =
        op2(s, OP_DIV, op2(s, OP_MUL, f64_const(s, s->cfg->lr), op2(s, OP_ADD, u, f64_const(s, 1))),
            f64_const(s, s->cfg->warmup));
    return build_select(&s->b, op2(s, OP_LT, u, f64_const(s, s->cfg->warmup)), ramp, rate);
}

/* f32: 1 - beta^t, t = u + 1. */
static ValueId bias_correction(Step *s, ValueId u, double beta)
{
    if (beta <= 0) return build_const(&s->b, 1, DT_F32);
    ValueId t = op2(s, OP_ADD, u, f64_const(s, 1));
    ValueId power = build_unary(&s->b, OP_EXP, op2(s, OP_MUL, t, f64_const(s, log(beta))));
    return build_cast(&s->b, op2(s, OP_SUB, f64_const(s, 1), power), DT_F32);
}

/* ---- optimizer ---- */

typedef struct Factors { /* scalars that every update takes */
    ValueId gscale, lr, c1, c2, finite;
} Factors;

static VarId moment_var(Step *s, uint32_t i, const char *slot)
{
    const Var *p = var_cget(s->m, s->param[i]);
    Var v = {.name = arena_printf(s->m->arena, "%s.%s", slot, p->name),
             .type = type_with_dtype(s->m, p->type, s->cfg->moments_bf16 ? DT_BF16 : DT_F32),
             .kind = VK_MOMENT,
             .of = s->param[i],
             .loc = p->loc};
    return var_new(s->m, v);
}

static void update_adam(Step *s, uint32_t i, const Factors *k, double decay)
{
    VarId m = moment_var(s, i, STATE_EXP_AVG), v = moment_var(s, i, STATE_EXP_AVG_SQ);
    AttrList l = {0};
    attr_add_float(&l, AT_BETA1, s->cfg->beta1);
    attr_add_float(&l, AT_BETA2, s->cfg->beta2);
    attr_add_float(&l, AT_EPS, s->cfg->eps);
    attr_add_float(&l, AT_DECAY, decay);
    attr_add_str(&l, AT_KIND, s->cfg->optimizer == OPT_ADAMW ? "adamw" : "adam");
    ValueId in[] = {build_read(&s->b, s->param[i]),
                    s->grad[i],
                    build_read(&s->b, m),
                    build_read(&s->b, v),
                    k->gscale,
                    k->lr,
                    k->c1,
                    k->c2,
                    k->finite};
    OpId op = build_op(&s->b, OP_ADAM_UPDATE, in, 9, &l);
    VarId target[] = {s->param[i], m, v};
    for (int r = 0; r < 3; r++) build_write(&s->b, target[r], op_cget(s->b.f, op)->out[r]);
}

/* sgd without momentum: no state beside the parameter. */
static void update_descent(Step *s, uint32_t i, const Factors *k, double decay)
{
    AttrList l = {0};
    attr_add_float(&l, AT_DECAY, decay);
    ValueId in[] = {build_read(&s->b, s->param[i]), s->grad[i], k->gscale, k->lr, k->finite};
    build_write(&s->b, s->param[i], build1(&s->b, OP_DESCENT_UPDATE, in, 5, &l));
}

static void update_one_moment(Step *s, uint32_t i, const Factors *k, double decay, OpCode code)
{
    bool is_sgd = code == OP_SGD_UPDATE;
    VarId m = moment_var(s, i, is_sgd ? STATE_MOMENTUM : STATE_EXP_AVG);
    AttrList l = {0};
    attr_add_float(&l, AT_DECAY, decay);
    if (is_sgd) attr_add_float(&l, AT_MOMENTUM, s->cfg->momentum);
    if (is_sgd && s->cfg->nesterov) attr_add_int(&l, AT_NESTEROV, 1);
    if (!is_sgd) attr_add_float(&l, AT_BETA1, s->cfg->beta1);
    if (!is_sgd) attr_add_float(&l, AT_BETA2, s->cfg->beta2);
    ValueId in[] = {build_read(&s->b, s->param[i]),
                    s->grad[i],
                    build_read(&s->b, m),
                    k->gscale,
                    k->lr,
                    k->finite};
    OpId op = build_op(&s->b, code, in, 6, &l);
    build_write(&s->b, s->param[i], op_cget(s->b.f, op)->out[0]);
    build_write(&s->b, m, op_cget(s->b.f, op)->out[1]);
}

static void update_params(Step *s, const Factors *k)
{
    LocId home = s->b.loc;
    for (uint32_t i = 0; i < s->n_params; i++) {
        const Var *p = var_cget(s->m, s->param[i]);
        double decay = p->has_decay ? s->cfg->decay : 0;
        s->b.loc = pass_loc(s->cx, p->loc, "optimizer update");
        switch (s->cfg->optimizer) {
        case OPT_NONE: ZM_UNREACHABLE("a train section without an optimizer");
        case OPT_ADAM:
        case OPT_ADAMW: update_adam(s, i, k, decay); break;
        case OPT_SGD:
            if (s->cfg->momentum == 0)
                update_descent(s, i, k, decay);
            else
                update_one_moment(s, i, k, decay, OP_SGD_UPDATE);
            break;
        case OPT_LION: update_one_moment(s, i, k, decay, OP_LION_UPDATE); break;
        }
    }
    s->b.loc = home;
}

/* ---- @last ---- */

static void probe_grads(Step *s, ValueId gscale)
{
    Str names = {0};
    ValueId *in = ARENA_ARRAY(s->cx->scratch, ValueId, s->n_params + 1);
    for (uint32_t i = 0; i < s->n_params; i++) {
        str_addf(&names, "%s%s", i ? "," : "", var_cget(s->m, s->param[i])->name);
        in[i] = s->grad[i];
    }
    in[s->n_params] = gscale;
    AttrList l = {0};
    attr_add_str(&l, AT_NAMES, str_c(&names));
    build_op(&s->b, OP_PROBE, in, s->n_params + 1, &l);
    str_free(&names);
}

static void write_metrics(Step *s, ValueId finite, ValueId norm, ValueId lr, ValueId update)
{
    Builder *b = &s->b;
    ValueId done = build_cast(b, finite, DT_I32);
    ValueId zero = build_const(b, 0, DT_I32), one = build_const(b, 1, DT_I32);
    ValueId skips = op2(s, OP_ADD, scalar_read(s, ZMP_S_SKIPS, DT_I32, 0), one);
    scalar_write(s, ZMP_S_LOSS, DT_F64, 0, op2(s, OP_DIV, s->items, s->count));
    scalar_write(s, ZMP_S_GRAD_NORM, DT_F64, 0, norm);
    scalar_write(s, ZMP_S_LR, DT_F64, 0, lr);
    scalar_write(s, ZMP_S_SKIPPED, DT_I32, 0, op2(s, OP_SUB, one, done));
    scalar_write(s, ZMP_S_SKIPS, DT_I32, 0, build_select(b, finite, zero, skips));
    scalar_write(s, ZMP_S_UPDATE, DT_I32, 0, op2(s, OP_ADD, update, done));
    scalar_write(s, ZMP_S_STEP, DT_I32, 0,
                 op2(s, OP_ADD, scalar_read(s, ZMP_S_STEP, DT_I32, 0), one));
}

/* min(1, c / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_. */
static ValueId clip_factor(Step *s, ValueId norm)
{
    ValueId ratio =
        op2(s, OP_DIV, f64_const(s, s->cfg->clip), op2(s, OP_ADD, norm, f64_const(s, 1e-6)));
    return build_cast(&s->b, op2(s, OP_MIN, ratio, f64_const(s, 1)), DT_F32);
}

/* Accumulated gradients become the step's: what the optimizer reads is the accumulator after its
 * last addition. */
static void take_accumulated(Step *s)
{
    if (s->cfg->accumulate > 1) step_add_scalars(s);
    step_add_grads(s);
    for (uint32_t i = 0; i < s->n_params; i++) s->grad[i] = build_read(&s->b, grad_var(s, i));
}

static void zero_accumulators(Step *s)
{
    for (uint32_t i = 0; i < s->n_params; i++) {
        VarId acc = grad_var(s, i);
        build_write(&s->b, acc, build_splat(&s->b, 0, var_cget(s->m, acc)->type));
    }
    if (s->cfg->accumulate == 1) return;
    scalar_write(s, ZMP_S_LOSS_SUM, DT_F64, 0, f64_const(s, 0));
    scalar_write(s, ZMP_S_COUNT, DT_F64, 0, f64_const(s, 0));
}

static void make_last(Step *s, Func *train)
{
    Builder *b = &s->b;
    train->name = module_str(s->m, "last");
    step_open(s, train, true);
    bool accumulates = s->cfg->accumulate > 1 || s->cx->opt->keep_state_layout;
    if (accumulates)
        take_accumulated(s);
    else
        step_store_grads(s);
    ValueId has_items = op2(s, OP_GT, s->count, f64_const(s, 0));
    ValueId scale = scale_now(b);
    ValueId raw = op2(s, OP_DIV, f64_const(s, (double)s->m->items),
                      op2(s, OP_MUL, s->count, build_cast(b, scale, DT_F64)));
    ValueId gscale = build_cast(b, build_select(b, has_items, raw, f64_const(s, 0)), DT_F32);
    ValueId is_sound = build1(b, OP_ALL_FINITE, s->grad, s->n_params, NULL);
    ValueId finite = op2(s, OP_AND, has_items, is_sound);
    ScaleVerdict verdict = {build_unary(b, OP_NOT, is_sound), finite};
    if (s->cfg->scale.is_dynamic) /* a scale that decayed to 0 leaves nothing to divide by */
        finite = op2(s, OP_AND, finite, build_unary(b, OP_IS_FINITE, gscale));
    ValueId norm = build_unary(b, OP_SQRT, build1(b, OP_SUM_SQUARES, s->grad, s->n_params, NULL));
    norm = op2(s, OP_MUL, norm, build_cast(b, gscale, DT_F64));
    probe_grads(s, gscale);
    ValueId update = scalar_read(s, ZMP_S_UPDATE, DT_I32, 0);
    ValueId u = build_cast(b, update, DT_F64);
    ValueId lr = build_cast(b, learning_rate(s, u), DT_F32);
    Factors k = {.gscale = gscale, .lr = lr, .finite = finite};
    if (s->cfg->clip > 0) k.gscale = op2(s, OP_MUL, gscale, clip_factor(s, norm));
    k.c1 = bias_correction(s, u, s->cfg->beta1);
    k.c2 = bias_correction(s, u, s->cfg->beta2);
    update_params(s, &k);
    write_metrics(s, finite, norm, lr, update);
    scale_advance(b, scale, &verdict);
    if (accumulates) zero_accumulators(s);
    build_return(b, NULL, 0, NULL);
}

Status pass_accumulate(PassCtx *cx, bool *changed)
{
    Module *m = cx->m;
    Step s = {.cx = cx, .m = m, .cfg = &m->train};
    ZM_TRY(state_names_check(cx));
    if (m->train.optimizer == OPT_NONE)
        return diag_error(m->diag, (SrcPos){0}, E_PASS_NEEDS,
                          "pass 'accumulate' needs an optimizer: the module has no train section");
    s.param = ARENA_ARRAY(cx->scratch, VarId, m->vars.n);
    s.grad = ARENA_ARRAY(cx->scratch, ValueId, m->vars.n);
    for (uint32_t i = 1; i < m->vars.n; i++)
        if (m->vars.at[i].kind == VK_PARAM && !m->vars.at[i].is_bucket)
            s.param[s.n_params++] = (VarId){i};
    Func *train = func_find(m, "train");
    if (m->train.accumulate > 1) make_micro(&s, train);
    make_last(&s, train);
    if (func_find(m, "eval")) make_eval(&s, func_find(m, "eval"));
    *changed = true;
    return ZM_OK;
}
