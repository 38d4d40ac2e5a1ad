/* body.c -- see body.h.
 *
 * Each op is computed once, in doubles, from the machine's numbers of its operands.  Where the
 * kernel wrote the result, that is the machine's number; where it wrote a view of the result (a
 * transpose), the comparison is made there, for the op that computed it. */
#include "runtime/audit/body.h"

#include <stdlib.h>
#include <string.h>

#include "ir/eval/eval_rules.h"

enum { MAX_OUT = 4 };

typedef struct Body {
    Eval *e;
    const Func *f;
    const EvalTensor *out;
    const BodyVisitor *visitor;
    double **machine, **exact; /* by ValueId.i */
    uint32_t *last_use;        /* by ValueId.i: op position + 1 */
    bool *waits;               /* by ValueId.i: a view of it is compared instead */
    Arena scratch;
} Body;

static bool is_view(const Op *o)
{
    return (op_info(o->code)->traits & TR_VIEW) != 0;
}

/* The value that v is a view of. */
static ValueId root_of(const Func *f, ValueId v)
{
    for (OpId def = value_cget(f, v)->def; op_ok(def) && is_view(op_cget(f, def));
         def = value_cget(f, v)->def)
        v = op_cget(f, def)->in[0];
    return v;
}

static void body_open(Body *b, const EvalTensor *in)
{
    const Func *f = b->f;
    Arena *a = &b->scratch;
    b->machine = ARENA_ARRAY(a, double *, f->values.n);
    b->exact = ARENA_ARRAY(a, double *, f->values.n);
    b->last_use = ARENA_ARRAY(a, uint32_t, f->values.n);
    b->waits = ARENA_ARRAY(a, bool, f->values.n);
    for (uint32_t i = 0; i < f->params.n; i++)
        b->machine[f->params.at[i].i] = b->exact[f->params.at[i].i] = in[i].at;
    uint32_t pos = 0;
    FOR_OPS(f, op)
    {
        const Op *o = op_cget(f, op);
        pos++;
        for (uint32_t i = 0; i < o->n_in; i++) b->last_use[o->in[i].i] = pos;
    }
    const Op *ret = op_cget(f, f->last);
    for (uint32_t i = 0; b->out && i < ret->n_in; i++) {
        ValueId root = root_of(f, ret->in[i]);
        if (root.i != ret->in[i].i) b->waits[root.i] = true;
    }
}

static void drop(Body *b, ValueId v)
{
    if (!op_ok(value_cget(b->f, v)->def)) return; /* the caller's */
    free(b->machine[v.i]);
    free(b->exact[v.i]);
    b->machine[v.i] = b->exact[v.i] = NULL;
}

static void body_close(Body *b)
{
    for (uint32_t v = 1; v < b->f->values.n; v++) drop(b, (ValueId){v});
    arena_free(&b->scratch);
}

static double *numbers_new(const Type *t)
{
    double *at = calloc((size_t)type_elems(t), sizeof *at);
    ZM_CHECK(at != NULL);
    return at;
}

static Status compute(Body *b, const Op *o, double **operands, double **results)
{
    EvalTensor *in = ARENA_ARRAY(&b->scratch, EvalTensor, o->n_in), out[MAX_OUT];
    for (uint32_t i = 0; i < o->n_in; i++)
        in[i] = (EvalTensor){value_type(b->f, o->in[i]), operands[o->in[i].i]};
    for (uint32_t i = 0; i < o->n_out; i++) {
        const Type *t = value_type(b->f, o->out[i]);
        results[o->out[i].i] = numbers_new(t);
        out[i] = (EvalTensor){t, results[o->out[i].i]};
    }
    EvalCall c = {b->e, b->f, o, in, out};
    return eval_op(&c);
}

/* What the kernel wrote for v; NULL: nothing. */
static const double *written(const Body *b, ValueId v)
{
    const Op *ret = op_cget(b->f, b->f->last);
    for (uint32_t i = 0; b->out && i < ret->n_in; i++)
        if (ret->in[i].i == v.i) return b->out[i].at;
    return NULL;
}

static void set_machine(Body *b, const Op *o, ValueId v)
{
    const Type *t = value_type(b->f, v);
    size_t n = (size_t)type_elems(t);
    const double *at = written(b, v);
    if (!b->machine[v.i]) b->machine[v.i] = numbers_new(t);
    if (at)
        memcpy(b->machine[v.i], at, n * sizeof *at);
    else if (!is_view(o))
        for (size_t k = 0; k < n; k++) b->machine[v.i][k] = dtype_round(t->dtype, b->exact[v.i][k]);
}

static bool visit(const Body *b, const Op *o, ValueId v)
{
    ValueId root = root_of(b->f, v);
    OpId def = value_cget(b->f, root)->def;
    bool waits = b->waits[v.i] && !written(b, v);
    if (!op_ok(def) || waits || (is_view(o) && !written(b, v))) return true;
    BodyResult r = {b->f, op_cget(b->f, def), value_type(b->f, v), b->machine[v.i], b->exact[v.i]};
    return b->visitor->result(b->visitor->self, &r);
}

static Status run_op(Body *b, const Op *o, bool *goes_on)
{
    ZM_CHECK(o->n_out <= MAX_OUT);
    ZM_TRY(compute(b, o, is_view(o) ? b->exact : b->machine, b->exact));
    if (is_view(o)) ZM_TRY(compute(b, o, b->machine, b->machine));
    for (uint32_t i = 0; i < o->n_out && *goes_on; i++) {
        set_machine(b, o, o->out[i]);
        *goes_on = visit(b, o, o->out[i]);
    }
    return ZM_OK;
}

Status body_run(Eval *e, const Func *body, const EvalTensor *in, const EvalTensor *out,
                const BodyVisitor *visitor)
{
    Body b = {.e = e, .f = body, .out = out, .visitor = visitor};
    body_open(&b, in);
    Status st = ZM_OK;
    bool goes_on = true;
    uint32_t pos = 0;
    FOR_OPS(body, op)
    {
        const Op *o = op_cget(body, op);
        pos++;
        if (o->code == OP_RETURN || !goes_on) break;
        if ((st = run_op(&b, o, &goes_on)) != ZM_OK) break;
        for (uint32_t i = 0; i < o->n_in; i++)
            if (b.last_use[o->in[i].i] == pos) drop(&b, o->in[i]);
    }
    body_close(&b);
    return st;
}
