/* reverse.c -- reverse-mode differentiation of @train.
 *
 *   L = sum(loss * weight) / items
 *   d L / d loss = weight / items: docs/training.md, gradient of a micro-batch, with S = 1
 *
 * Pass loss_scale, which comes right after, multiplies the constant named "seed".
 *
 * One walk over the ops from the last to the first: when an op is reached, all its users have added
 * to its results' cotangents.  Only values that depend on a parameter get one.  The gradient ops
 * are appended before the return, which then also returns grad.<path> for each parameter in the
 * order of variables: the sum over all reads of it, or zeros. Cost O(ops).  Source: Griewank and
 * Walther, Evaluating Derivatives, ch. 3. */
#include "passes/autodiff/grad.h"

#include <string.h>

struct Reverse {
    PassCtx *cx;
    Func *f;
    bool *wants;   /* by ValueId.i of the forward: depends on a parameter */
    bool *is_copy; /* by ValueId.i of the forward: a parameter cast to 16 bits, or a view of one */
    ValueId *cotangent; /* by ValueId.i of the forward */
    ValueId *param;     /* gradient by VarId.i */
    uint32_t n_values;  /* of the forward */
};

static GradFn *const grad_table[N_OP] = {
#define GRAD(RULE) grad_##RULE
#define POINT(ID, ...) [OP_##ID] = grad_pointwise,
#define OP(ID, NAME, SIG_, ATTRS_, TYPE_, AMP_, GRAD_, COST_, FACTORS_, LOWER_, EVAL_, SAMPLE_,    \
           DOC_)                                                                                   \
    [OP_##ID] = GRAD_,
#include "ir/ops.def"
#undef OP
#undef POINT
#undef GRAD
};

/* ---- what rules call (grad.h) ---- */

bool grad_wants(const Grad *g, uint32_t i)
{
    return g->r->wants[g->op.in[i].i];
}

static ValueId sum_of(Builder *b, ValueId have, ValueId x)
{
    return value_ok(have) ? build_binary(b, OP_ADD, have, x) : x;
}

static DType cotangent_dtype(const Reverse *r, ValueId v)
{
    return r->is_copy[v.i] ? DT_F32 : value_type(r->f, v)->dtype;
}

DType grad_dtype(const Grad *g, uint32_t i)
{
    return cotangent_dtype(g->r, g->op.in[i]);
}

void grad_add(Grad *g, uint32_t i, ValueId x)
{
    ValueId v = g->op.in[i];
    ZM_CHECK(type_same_shape(value_type(g->b.f, x), grad_type(g, i)));
    x = build_cast(&g->b, x, grad_dtype(g, i));
    g->r->cotangent[v.i] = sum_of(&g->b, g->r->cotangent[v.i], x);
}

ValueId grad_out(Grad *g, uint32_t i)
{
    if (value_ok(g->out[i])) return g->out[i];
    const Type *t = value_type(g->b.f, g->op.out[i]);
    return build_splat(&g->b, 0,
                       type_with_dtype(g->r->cx->m, t, cotangent_dtype(g->r, g->op.out[i])));
}

void grad_refuse(Grad *g, const char *why)
{
    g->status =
        diag_error(g->r->cx->diag, loc_pos(g->r->cx->m, g->op.loc), E_NO_GRADIENT,
                   "the loss depends on a parameter through '%s', which has no gradient: %s",
                   op_info(g->op.code)->name, why);
}

void grad_add_param(Grad *g, VarId v, ValueId x)
{
    g->r->param[v.i] = sum_of(&g->b, g->r->param[v.i], x);
}

/* ---- the walk ---- */

static bool reads_param(const Module *m, const Op *o)
{
    return o->code == OP_READ &&
           var_cget(m, var_find(m, attr_str(o->attrs, AT_VAR)))->kind == VK_PARAM;
}

/* Views of a parameter that is read, before or after a cast to 16 bits. */
static void mark_copies(Reverse *r)
{
    bool *of_param = ARENA_ARRAY(r->cx->scratch, bool, r->n_values);
    FOR_OPS(r->f, op)
    {
        const Op *o = op_cget(r->f, op);
        bool passes = o->code == OP_CAST || op_info(o->code)->traits & TR_VIEW;
        if (o->n_out != 1) continue;
        uint32_t v = o->out[0].i;
        of_param[v] = reads_param(r->cx->m, o) || (passes && of_param[o->in[0].i]);
        if (!of_param[v] || o->n_in == 0) continue;
        bool narrows = o->code == OP_CAST && value_type(r->f, o->in[0])->dtype == DT_F32;
        r->is_copy[v] = dtype_bytes(value_type(r->f, o->out[0])->dtype) == 2 &&
                        (narrows || r->is_copy[o->in[0].i]);
    }
}

static void mark_wants(Reverse *r)
{
    FOR_OPS(r->f, op)
    {
        const Op *o = op_cget(r->f, op);
        bool wants = reads_param(r->cx->m, o);
        for (uint32_t i = 0; i < o->n_in; i++) wants |= r->wants[o->in[i].i];
        for (uint32_t i = 0; i < o->n_out; i++)
            r->wants[o->out[i].i] =
                wants && dtype_class(value_type(r->f, o->out[i])->dtype) == DTC_FLOAT;
    }
}

static bool has_cotangent(const Reverse *r, const Op *o)
{
    for (uint32_t i = 0; i < o->n_out; i++)
        if (value_ok(r->cotangent[o->out[i].i])) return true;
    return false;
}

static Status reverse_op(Reverse *r, OpId op, OpId ret)
{
    enum { MAX_OUT = 4 };
    Grad g = {.r = r, .op = *op_cget(r->f, op)};
    if (!has_cotangent(r, &g.op)) return ZM_OK;
    ZM_CHECK(g.op.n_out <= MAX_OUT);
    const char *why = arena_printf(r->cx->scratch, "gradient of %s", op_info(g.op.code)->name);
    g.b = (Builder){.f = r->f, .before = ret, .loc = pass_loc(r->cx, g.op.loc, why)};
    ValueId out[MAX_OUT];
    for (uint32_t i = 0; i < g.op.n_out; i++) out[i] = r->cotangent[g.op.out[i].i];
    g.out = out;
    grad_table[g.op.code](&g);
    return g.status;
}

/* Seeds the loss; see the file's head. */
static void seed_loss(Reverse *r, OpId ret)
{
    ValueId loss = func_result(r->f, "loss"), weight = func_result(r->f, "weight");
    if (!r->wants[loss.i]) return;
    Builder b = {.f = r->f, .before = ret};
    b.loc = pass_loc(r->cx, op_cget(r->f, ret)->loc, "seed");
    const Type *t = value_type(r->f, loss);
    ValueId seed = build_const(&b, 1.0 / (double)r->cx->m->items, t->dtype);
    value_get(r->f, seed)->name = module_str(r->cx->m, "seed");
    r->cotangent[loss.i] = build_binary(&b, OP_MUL, build_cast(&b, weight, t->dtype), seed);
}

/* Replaces `ret` by one that also returns the gradients. */
static void return_gradients(Reverse *r, OpId ret)
{
    Module *m = r->cx->m;
    const Op old = *op_cget(r->f, ret);
    Builder b = {.f = r->f, .before = ret, .loc = old.loc};
    VEC(ValueId) results = {0};
    for (uint32_t i = 0; i < old.n_in; i++) VEC_PUSH(r->cx->scratch, &results, old.in[i]);
    Str names = {0};
    str_add(&names, attr_str(old.attrs, AT_NAMES));
    for (uint32_t i = 1; i < m->vars.n; i++) {
        if (m->vars.at[i].kind != VK_PARAM || m->vars.at[i].is_bucket) continue;
        Builder at = b;
        at.loc = pass_loc(r->cx, m->vars.at[i].loc, "gradient of an unused parameter");
        ValueId g = value_ok(r->param[i]) ? r->param[i] : build_splat(&at, 0, m->vars.at[i].type);
        VEC_PUSH(r->cx->scratch, &results, g);
        str_addf(&names, ",grad.%s", m->vars.at[i].name);
    }
    build_return(&b, results.at, results.n, str_c(&names));
    str_free(&names);
    op_erase(r->f, ret);
}

Status pass_autodiff(PassCtx *cx, bool *changed)
{
    if (!fact_check(cx->m, FACT_HAS_GRAD_BIT, cx->scratch)) return ZM_OK; /* nothing left to do */
    Func *f = func_find(cx->m, "train");
    OpId ret = f->last, last = op_cget(f, ret)->prev;
    Reverse r = {.cx = cx, .f = f, .n_values = f->values.n};
    r.wants = ARENA_ARRAY(cx->scratch, bool, r.n_values);
    r.is_copy = ARENA_ARRAY(cx->scratch, bool, r.n_values);
    r.cotangent = ARENA_ARRAY(cx->scratch, ValueId, r.n_values);
    r.param = ARENA_ARRAY(cx->scratch, ValueId, cx->m->vars.n);
    mark_wants(&r);
    mark_copies(&r);
    seed_loss(&r, ret);
    Status ok = ZM_OK;
    for (OpId op = last; op_ok(op); op = op_cget(f, op)->prev) /* gradient ops come after `last` */
        if (reverse_op(&r, op, ret) != ZM_OK) ok = ZM_FAIL;
    if (ok != ZM_OK) return ZM_FAIL;
    return_gradients(&r, ret);
    *changed = true;
    cx->n_rewrites = f->values.n - r.n_values;
    return ZM_OK;
}
