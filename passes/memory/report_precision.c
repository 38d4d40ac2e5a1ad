/* report_precision.c -- the plan's dtypes: what holds parameters, gradients, accumulators, masters
 * and moments, and the bytes that a parameter's states take by the paper's count. */
#include "passes/memory/report.h"

#include <string.h>

/* ---- dtypes of each kind of tensor ---- */

typedef struct DTypeSet {
    bool has[N_DTYPE];
} DTypeSet;

static DTypeSet dtypes_of_kind(const Module *m, VarKind kind)
{
    DTypeSet s = {0};
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *v = &m->vars.at[i];
        if (v->kind == kind && !v->is_bucket) s.has[v->type->dtype] = true;
    }
    return s;
}

/* As the update reads them: what the op `probe` shows but its last operand, the factor. */
static DTypeSet dtypes_of_grads(const Module *m)
{
    DTypeSet s = {0};
    const Func *f = func_find(m, "last");
    if (!f) return s;
    FOR_OPS(f, id)
    {
        const Op *op = op_cget(f, id);
        for (uint32_t i = 0; op->code == OP_PROBE && i + 1 < op->n_in; i++)
            s.has[value_type(f, op->in[i])->dtype] = true;
    }
    return s;
}

/* "bf16", "bf16+f32", "none" */
static void add_dtypes(Str *out, const DTypeSet *s)
{
    const char *plus = "";
    for (int d = 0; d < N_DTYPE; d++) {
        if (!s->has[d]) continue;
        str_addf(out, "%s%s", plus, dtype_name((DType)d));
        plus = "+";
    }
    if (!*plus) str_add(out, "none");
}

enum { N_TENSOR_KINDS = 6 };
static const char *const tensor_kinds[N_TENSOR_KINDS] = {"params", "grads",  "accumulators",
                                                         "wire",   "master", "moments"};

/* What is reduced between ranks. */
static DTypeSet dtypes_of_wire(const Module *m)
{
    DTypeSet s = {0};
    for (uint32_t i = 0; i < m->funcs.n; i++) {
        const Func *f = m->funcs.at[i];
        FOR_OPS(f, id)
        {
            const Op *op = op_cget(f, id);
            if (op->code == OP_REDUCE_SCATTER) s.has[value_type(f, op->in[0])->dtype] = true;
        }
    }
    return s;
}

/* In the order of tensor_kinds. */
static void list_dtypes(const Module *m, DTypeSet out[N_TENSOR_KINDS])
{
    out[0] = dtypes_of_kind(m, VK_PARAM);
    out[1] = dtypes_of_grads(m);
    out[2] = dtypes_of_kind(m, VK_GRAD);
    out[3] = dtypes_of_wire(m);
    out[4] = dtypes_of_kind(m, VK_MASTER);
    out[5] = dtypes_of_kind(m, VK_MOMENT);
}

/* ---- states ---- */

typedef struct StateBytes {
    int64_t param, grad, rest; /* rest: master and moments */
} StateBytes;

/* Of one element.  An f32 parameter, of any mode, has no master. */
static StateBytes state_bytes(const TrainConfig *t, DType param)
{
    int64_t moments = t->moments_bf16 ? 2 * 2 : 2 * 4;
    int64_t grad = t->precision != PREC_FP32 && t->grad_low ? 2 : 4;
    bool has_master = param != DT_F32 && !t->pure;
    return (StateBytes){dtype_bytes(param), grad, moments + (has_master ? 4 : 0)};
}

/* Of n elements on one of so many ranks: stage 1 shares out what is left of the states, 2 the
 * gradients too -- but where they are reduced once a step, they are kept whole until then --, 3 the
 * parameters too. */
static int64_t shared_bytes(StateBytes b, const TrainConfig *t, int64_t n, int64_t ranks)
{
    bool has_whole_grads = t->zero < 2 || (t->reduce_at_step && t->accumulate > 1);
    int64_t whole =
        (t->zero < 1 ? b.rest : 0) + (has_whole_grads ? b.grad : 0) + (t->zero < 3 ? b.param : 0);
    return n * whole + n * (b.rest + b.grad + b.param - whole) / ranks;
}

int64_t precision_closed_form(const Module *m, int64_t ranks)
{
    int64_t bytes = 0;
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *v = &m->vars.at[i];
        if (v->kind != VK_PARAM || var_ok(v->in)) continue;
        int64_t n = type_elems(v->type) * (type_is_placed(v->type) ? ranks : 1);
        bytes += shared_bytes(state_bytes(&m->train, v->type->dtype), &m->train, n, ranks);
    }
    return bytes;
}

/* ---- text ---- */

void precision_print_table(const Module *m, Str *out)
{
    DTypeSet sets[N_TENSOR_KINDS];
    list_dtypes(m, sets);
    str_add(out, "dtypes:");
    for (int i = 0; i < N_TENSOR_KINDS; i++) {
        str_addf(out, "%s %s ", i ? "," : "", tensor_kinds[i]);
        add_dtypes(out, &sets[i]);
    }
    str_add(out, "\n");
}

void precision_print_json(const Module *m, Str *out)
{
    DTypeSet sets[N_TENSOR_KINDS];
    list_dtypes(m, sets);
    str_addf(out, "\"precision\":\"%s\",\"amp\":\"%s\",\"dtypes\":{",
             precision_name(m->train.precision),
             m->train.precision == PREC_FP32 ? "none"
             : m->train.pure                 ? "pure"
                                             : amp_mode_name(m->train.amp));
    for (int i = 0; i < N_TENSOR_KINDS; i++) {
        str_addf(out, "%s\"%s\":\"", i ? "," : "", tensor_kinds[i]);
        add_dtypes(out, &sets[i]);
        str_add(out, "\"");
    }
    str_add(out, "}");
}
