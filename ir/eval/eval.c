/* eval.c -- state, and the walk over a function's ops (eval.h). */
#include "ir/eval/eval.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "ir/eval/eval_rules.h"

static const EvalRule rules[N_OP] = {
#define POINT(...)
#define EVAL(RULE) eval_##RULE
#define OP(ID, NAME, SIG_, ATTRS_, TYPE_, AMP_, GRAD_, COST_, FACTORS_, LOWER_, EVAL_, ...)        \
    [OP_##ID] = EVAL_,
#include "ir/ops.def"
#undef OP
#undef POINT
#undef EVAL
};

/* ---- state ---- */

EvalTensor eval_tensor(Arena *a, const Type *t)
{
    return (EvalTensor){t, ARENA_ARRAY(a, double, type_elems(t))};
}

static double first_value(const Var *v)
{
    switch (v->init) {
    case INIT_ONES: return 1;
    case INIT_CONST: return dtype_round(v->type->dtype, v->init_a);
    case INIT_ZEROS:
    case INIT_NORMAL:
    case INIT_UNIFORM: return 0;
    }
    ZM_UNREACHABLE("init");
}

/* Elements of v's own storage, or of a view. */
static int64_t elems_of(const Eval *e, const Var *v)
{
    return e->is_whole ? type_whole_elems(e->m, v->type) : type_elems(v->type);
}

/* A view keeps its dimensions where its bucket is sharded. */
static bool is_view_of_shard(const Eval *e, VarId v)
{
    VarId storage = var_storage(e->m, v, NULL);
    const Type *t = var_cget(e->m, storage)->type;
    return storage.i != v.i && type_whole_elems(e->m, t) != type_elems(t) && !e->is_whole;
}

int64_t eval_var_elems(const Eval *e, VarId v)
{
    return is_view_of_shard(e, v) ? 0 : elems_of(e, var_cget(e->m, v));
}

static Eval *new_state(Arena *a, const Module *m, bool is_whole)
{
    Eval *e = ARENA_NEW(a, Eval);
    *e = (Eval){.m = m, .arena = a, .is_whole = is_whole};
    e->storage = ARENA_ARRAY(a, double *, m->vars.n);
    for (uint32_t i = 1; i < m->vars.n; i++)
        if (!var_ok(m->vars.at[i].in))
            e->storage[i] = ARENA_ARRAY(a, double, elems_of(e, &m->vars.at[i]));
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *v = &m->vars.at[i];
        int64_t n = eval_var_elems(e, (VarId){i});
        if (v->init == INIT_ZEROS || n == 0)
            continue; /* a bucket's own zeros must not hide its views */
        double *at = eval_var(e, (VarId){i});
        for (int64_t k = 0; k < n; k++) at[k] = first_value(v);
    }
    return e;
}

Eval *eval_new(Arena *a, const Module *m)
{
    return new_state(a, m, false);
}

Eval *eval_new_whole(Arena *a, const Module *m)
{
    return new_state(a, m, true);
}

double *eval_var(const Eval *e, VarId v)
{
    int64_t offset;
    VarId storage = var_storage(e->m, v, &offset);
    ZM_CHECK(!is_view_of_shard(e, v));
    return e->storage[storage.i] + offset;
}

double *eval_element(const Eval *e, uint32_t rank, VarId v, int64_t i)
{
    int64_t at;
    VarId storage = var_storage(e->m, v, &at);
    int64_t part = type_elems(var_cget(e->m, storage)->type);
    at += i - (is_view_of_shard(e, v) ? part * rank : 0);
    return at < 0 || at >= part ? NULL : &e->storage[storage.i][at];
}

void eval_copy_vars(Eval *to, const Eval *from)
{
    for (uint32_t i = 1; i < to->m->vars.n; i++) {
        const Var *v = &to->m->vars.at[i];
        VarId source = var_find(from->m, v->name);
        int64_t n = eval_var_elems(to, (VarId){i});
        if (!var_ok(source) || n == 0) continue;
        ZM_CHECK(eval_var_elems(from, source) == n);
        memcpy(eval_var(to, (VarId){i}), eval_var(from, source), (size_t)n * sizeof(double));
    }
}

/* ---- results ---- */

uint32_t eval_n_results(const Func *f)
{
    return op_cget(f, f->last)->n_in;
}

const char *eval_result_name(Arena *a, const Func *f, uint32_t i)
{
    const char *names = attr_str(op_cget(f, f->last)->attrs, AT_NAMES);
    if (!names) return arena_printf(a, "%u", i);
    for (; i > 0; i--) names = strchr(names, ',') + 1; /* verified: one name per operand */
    return arena_strndup(a, names, strcspn(names, ","));
}

/* ---- running ---- */

Status eval_fail(const EvalCall *c, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return diag_error(c->e->m->diag, loc_pos(c->e->m, c->op->loc), E_EVAL, "%s: %s",
                      op_info(c->op->code)->name, text);
}

static void round_tensor(const Eval *e, EvalTensor t)
{
    if (e->is_unrounded && dtype_class(t.type->dtype) == DTC_FLOAT) return;
    for (int64_t i = 0; i < type_elems(t.type); i++) t.at[i] = dtype_round(t.type->dtype, t.at[i]);
}

static void apply_point(const EvalCall *c, PointFn fn)
{
    double x[3] = {0};
    for (int64_t i = 0; i < type_elems(c->out[0].type); i++) {
        for (uint32_t k = 0; k < c->op->n_in; k++) x[k] = c->in[k].at[i];
        c->out[0].at[i] = fn(x[0], x[1], x[2]);
    }
}

/* Values of a running function.  Owned ones are freed after their last use, so that the peak is
 * that of the function's live values. */
typedef struct Frame {
    EvalTensor *value;  /* by ValueId.i */
    uint32_t *last_use; /* by ValueId.i: op position + 1; 0: never used */
    Arena scratch;
} Frame;

static void frame_open(Frame *fr, const Func *f, const EvalTensor *in)
{
    *fr = (Frame){0};
    fr->value = ARENA_ARRAY(&fr->scratch, EvalTensor, f->values.n);
    fr->last_use = ARENA_ARRAY(&fr->scratch, uint32_t, f->values.n);
    for (uint32_t i = 0; i < f->params.n; i++) fr->value[f->params.at[i].i] = in[i];
    uint32_t pos = 0;
    FOR_OPS(f, op)
    {
        const Op *o = op_cget(f, op);
        pos++;
        for (uint32_t i = 0; i < o->n_in; i++) fr->last_use[o->in[i].i] = pos;
    }
}

static void frame_drop(Frame *fr, const Func *f, ValueId v)
{
    if (!op_ok(value_cget(f, v)->def)) return; /* a parameter is the caller's */
    free(fr->value[v.i].at);
    fr->value[v.i].at = NULL;
}

static void frame_close(Frame *fr, const Func *f)
{
    for (uint32_t v = 1; v < f->values.n; v++)
        if (fr->value[v].type) frame_drop(fr, f, (ValueId){v});
    arena_free(&fr->scratch);
}

Status eval_op(const EvalCall *c)
{
    PointFn point = eval_point(c->op->code);
    if (!point) return rules[c->op->code](c);
    apply_point(c, point);
    return ZM_OK;
}

/* The operands of op and memory for its results; results of the function go to `results`. */
static EvalCall call_open(Eval *e, const Func *f, const Op *o, Frame *fr, Arena *scratch,
                          EvalTensor *results)
{
    EvalTensor *in = ARENA_ARRAY(scratch, EvalTensor, o->n_in);
    EvalTensor *out = ARENA_ARRAY(scratch, EvalTensor, o->n_out);
    for (uint32_t i = 0; i < o->n_in; i++) in[i] = fr->value[o->in[i].i];
    for (uint32_t i = 0; i < o->n_out; i++) {
        const Type *t = value_type(f, o->out[i]);
        out[i] = (EvalTensor){t, calloc((size_t)type_elems(t), sizeof(double))};
        ZM_CHECK(out[i].at != NULL);
        fr->value[o->out[i].i] = out[i];
    }
    return (EvalCall){e, f, o, in, o->code == OP_RETURN ? results : out};
}

/* The same op on every rank. */
static Status call_ranks(const EvalCall *call, uint32_t ranks)
{
    const Op *o = call->op;
    if (ranks > 1 && eval_is_collective(o->code)) return eval_over_ranks(call, ranks);
    for (uint32_t r = 0; r < ranks; r++) {
        ZM_TRY(eval_op(&call[r]));
        for (uint32_t i = 0; i < o->n_out; i++) round_tensor(call[r].e, call[r].out[i]);
    }
    return ZM_OK;
}

static void drop_dead(Frame *fr, const Func *f, const Op *o, uint32_t pos)
{
    for (uint32_t i = 0; i < o->n_in; i++)
        if (fr->last_use[o->in[i].i] == pos) frame_drop(fr, f, o->in[i]);
    for (uint32_t i = 0; i < o->n_out; i++)
        if (fr->last_use[o->out[i].i] == 0) frame_drop(fr, f, o->out[i]);
}

/* in, out: rank by rank. */
static Status run_func(Eval *const *e, uint32_t ranks, const Func *f, const EvalTensor *in,
                       EvalTensor *out)
{
    Arena scratch = {0};
    Frame *fr = ARENA_ARRAY(&scratch, Frame, ranks);
    EvalCall *call = ARENA_ARRAY(&scratch, EvalCall, ranks);
    uint32_t n_results = op_cget(f, f->last)->n_in, pos = 0;
    Status st = ZM_OK;
    for (uint32_t r = 0; r < ranks; r++) frame_open(&fr[r], f, in + r * f->params.n);
    FOR_OPS(f, op)
    {
        Arena one = {0};
        const Op *o = op_cget(f, op);
        pos++;
        for (uint32_t r = 0; r < ranks; r++)
            call[r] = call_open(e[r], f, o, &fr[r], &one, out + r * n_results);
        st = call_ranks(call, ranks);
        arena_free(&one);
        if (st != ZM_OK) break;
        for (uint32_t r = 0; r < ranks; r++) drop_dead(&fr[r], f, o, pos);
    }
    for (uint32_t r = 0; r < ranks; r++) frame_close(&fr[r], f);
    arena_free(&scratch);
    return st;
}

Status eval_func(Eval *e, const Func *f, const EvalTensor *in, EvalTensor *out)
{
    return run_func(&e, 1, f, in, out);
}

Status eval_run_ranks(Eval *const *e, uint32_t ranks, const Func *f, const EvalTensor *in, Arena *a,
                      EvalTensor *out)
{
    const Op *ret = op_cget(f, f->last);
    for (uint32_t i = 0; i < ranks * f->params.n; i++) {
        const Type *want = value_type(f, f->params.at[i % f->params.n]);
        ZM_CHECK(in[i].type->dtype == want->dtype && type_same_shape(in[i].type, want));
    }
    for (uint32_t i = 0; i < ranks * ret->n_in; i++)
        out[i] = eval_tensor(a, value_type(f, ret->in[i % ret->n_in]));
    return run_func(e, ranks, f, in, out);
}

Status eval_run(Eval *e, const Func *f, const EvalTensor *in, Arena *a, EvalTensor *out)
{
    return eval_run_ranks(&e, 1, f, in, a, out);
}

/* ---- structure ---- */

Status eval_return(const EvalCall *c)
{
    for (uint32_t i = 0; i < c->op->n_in; i++)
        memcpy(c->out[i].at, c->in[i].at, (size_t)type_elems(c->in[i].type) * sizeof(double));
    return ZM_OK;
}

Status eval_none(const EvalCall *c)
{
    (void)c;
    return ZM_OK;
}

Status eval_fused(const EvalCall *c)
{
    return eval_func(c->e, c->op->body, c->in, c->out);
}

Status eval_read(const EvalCall *c)
{
    const double *at = eval_var(c->e, var_find(c->e->m, attr_str(c->op->attrs, AT_VAR)));
    memcpy(c->out[0].at, at, (size_t)type_elems(c->out[0].type) * sizeof(double));
    return ZM_OK;
}

Status eval_write(const EvalCall *c)
{
    double *at = eval_var(c->e, var_find(c->e->m, attr_str(c->op->attrs, AT_VAR)));
    memcpy(at, c->in[0].at, (size_t)type_elems(c->in[0].type) * sizeof(double));
    return ZM_OK;
}
