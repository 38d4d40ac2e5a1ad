/* expand_update.c -- expansions of the optimizers, the gradient's norm and verdict, and attention's
 * bias gradient (expand.h).  Optimizers are element-wise; scalars (learning rate, scale, bias
 * corrections) stay rank 0 until used. */
#include "passes/expand.h"

#include <math.h>
#include <string.h>

enum {
    CHUNK_ELEMS = 4096, /* the squared norm's chunks: docs/training.md */
    GROUP_OPERANDS = 16 /* operands whose chunks are combined in one kernel, which looks for each
                           chunk's operand */
};

/* ---- reductions over many operands ----
 *
 * A row of numbers for each operand's chunks, in a kernel of its own, that all_finite and
 * sum_squares share; one for what is left behind the chunks of all operands; one that combines. */

/* x, flat, as [chunks, CHUNK_ELEMS] and what is left behind them: [rest].  No zeros are added: a
 * load that asks for each lane whether it is inside costs more than the sweep.  Either may be
 * absent, not both. */
typedef struct Chunks {
    ValueId rows, rest;
} Chunks;

/* Flat x as rows; of a sharded x a rank's rows are its own. */
static ValueId as_rows(Builder *b, ValueId x, int64_t columns)
{
    Type t = *value_type(b->f, x);
    t.rank = 2;
    t.dim[0] /= columns;
    t.dim[1] = columns;
    return build_reshape_to(b, x, &t);
}

static Chunks chunks_of(Builder *b, ValueId x)
{
    Chunks c = {0};
    int64_t n = type_elems(value_type(b->f, x)), zero = 0;
    int64_t rest = n % CHUNK_ELEMS, whole = n - rest;
    ValueId flat = build_reshape(b, x, 1, &n);
    if (rest) c.rest = build_slice(b, flat, &whole, &rest);
    if (rest && whole) flat = build_slice(b, flat, &zero, &whole);
    if (whole || !rest) c.rows = as_rows(b, flat, CHUNK_ELEMS);
    return c;
}

/* One number for each row of x [rows, columns]. */
typedef ValueId (*RowFn)(Builder *b, ValueId x);

static ValueId concat_rows(Builder *b, const ValueId *x, uint32_t n)
{
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, 0);
    return n == 1 ? x[0] : build1(b, OP_CONCAT, x, n, &l);
}

/* Flat rests, shorter than a chunk, as rows of one length: zeros behind them change no result. */
static ValueId stack_rests(Builder *b, const ValueId *rest, uint32_t n)
{
    ValueId row[GROUP_OPERANDS];
    int64_t longest = 0;
    for (uint32_t i = 0; i < n; i++) {
        int64_t elems = type_elems(value_type(b->f, rest[i]));
        if (elems > longest) longest = elems;
    }
    for (uint32_t i = 0; i < n; i++) {
        int64_t elems = type_elems(value_type(b->f, rest[i])), high[] = {0, longest - elems};
        row[i] = as_rows(b, rest[i], elems);
        if (high[1]) row[i] = build_pad(b, row[i], (int64_t[]){0, 0}, high);
    }
    return concat_rows(b, row, n);
}

/* Numbers of all chunks of x[0..n): those of each operand, then those of the rests, which make one
 * reduction together. */
static ValueId chunk_numbers(Builder *b, const ValueId *x, uint32_t n, RowFn fn)
{
    ValueId part[2 * GROUP_OPERANDS], rest[GROUP_OPERANDS];
    uint32_t n_parts = 0, n_rests = 0;
    for (uint32_t i = 0; i < n; i++) {
        Chunks c = chunks_of(b, x[i]);
        if (value_ok(c.rows)) part[n_parts++] = fn(b, c.rows);
        if (value_ok(c.rest)) rest[n_rests++] = form_widen(b, c.rest);
    }
    if (n_rests) part[n_parts++] = fn(b, stack_rests(b, rest, n_rests));
    return concat_rows(b, part, n_parts);
}

static ValueId any_bad(Builder *b, ValueId x)
{
    ValueId is_bad = build_unary(b, OP_NOT, build_unary(b, OP_IS_FINITE, x));
    return build_reduce(b, OP_REDUCE_MAX, is_bad, &(int64_t){1}, 1);
}

/* Largest of the rows' verdicts. */
static ValueId any_of(Builder *b, ValueId bad)
{
    bad = build_cast(b, bad, DT_I32); /* of i1, canon would make one reduction of the two again */
    return build_cast(b, build_reduce(b, OP_REDUCE_MAX, bad, &(int64_t){0}, 1), DT_I1);
}

/* f64[]: sum of the rows' numbers. */
static ValueId sum_of(Builder *b, ValueId rows)
{
    return build_reduce(b, OP_REDUCE_SUM, build_cast(b, rows, DT_F64), &(int64_t){0}, 1);
}

/* Can chunks of x and y stand in one tensor? */
static bool is_alike(const Builder *b, ValueId x, ValueId y)
{
    const Type *t = value_type(b->f, x), *r = value_type(b->f, y);
    MeshAxis of_t = t->rank ? t->axis[0] : MESH_NONE, of_r = r->rank ? r->axis[0] : MESH_NONE;
    return (t->dtype == DT_F64) == (r->dtype == DT_F64) && of_t == of_r && t->partial == r->partial;
}

/* The operands' chunks through fn, what those make through `all`, and of several groups of operands
 * the results through `join`. */
static ValueId over_operands(Expand *e, RowFn fn, RowFn all, OpCode join)
{
    Builder *b = &e->b;
    ValueId total = {0};
    const ValueId *x = e->op.in;
    for (uint32_t i = 0, n; i < e->op.n_in; i += n) {
        n = 1;
        while (n < GROUP_OPERANDS && i + n < e->op.n_in && is_alike(b, x[i], x[i + n])) n++;
        ValueId of_group = all(b, chunk_numbers(b, x + i, n, fn));
        total = value_ok(total) ? build_binary(b, join, total, of_group) : of_group;
    }
    return total;
}

void expand_ALL_FINITE(Expand *e)
{
    e->out[0] = build_unary(&e->b, OP_NOT, over_operands(e, any_bad, any_of, OP_OR));
}

static ValueId row_sum(Builder *b, ValueId x)
{
    return build_reduce(b, OP_REDUCE_SUM, x, &(int64_t){1}, 1);
}

static ValueId row_squares(Builder *b, ValueId x)
{
    return row_sum(b, form_square(b, form_widen(b, x)));
}

void expand_SUM_SQUARES(Expand *e)
{
    e->out[0] = over_operands(e, row_squares, sum_of, OP_ADD);
}

static ValueId row_nonfinite(Builder *b, ValueId x)
{
    const Type *f32 = type_with_dtype(b->f->m, value_type(b->f, x), DT_F32);
    return row_sum(b, build_select(b, build_unary(b, OP_IS_FINITE, x), build_splat(b, 0, f32),
                                   build_splat(b, 1, f32)));
}

void expand_COUNT_NONFINITE(Expand *e)
{
    e->out[0] = over_operands(e, row_nonfinite, sum_of, OP_ADD);
}

/* ---- optimizers: all of f32, or f64 if p is ---- */

typedef struct Update {
    Expand *e;
    Builder *b;
    DType dtype;
    ValueId p, g; /* g already multiplied by gscale */
} Update;

static ValueId op2(Update *u, OpCode code, ValueId x, ValueId y)
{
    return build_binary(u->b, code, x, y);
}

static ValueId times(Update *u, ValueId x, double k)
{
    return k == 1 ? x : op2(u, OP_MUL, x, form_scalar(u->b, x, k));
}

static ValueId operand(Update *u, uint32_t i)
{
    return build_cast(u->b, u->e->op.in[i], u->dtype);
}

static Update update_begin(Expand *e, uint32_t gscale)
{
    DType dt = value_type(e->b.f, e->op.in[0])->dtype;
    Update u = {.e = e, .b = &e->b, .dtype = dt == DT_F64 ? DT_F64 : DT_F32};
    u.p = operand(&u, 0);
    u.g = op2(&u, OP_MUL, operand(&u, 1), operand(&u, gscale));
    return u;
}

/* Result i: `now` where finite, else operand `old` unchanged. */
static void update_end(Update *u, uint32_t i, uint32_t finite, ValueId now, uint32_t old)
{
    ValueId kept = u->e->op.in[old];
    u->e->out[i] = build_select(u->b, u->e->op.in[finite], expand_narrow(u->e, i, now), kept);
}

static ValueId decayed(Update *u, ValueId x, ValueId p, double decay)
{
    return decay == 0 ? x : op2(u, OP_ADD, x, times(u, p, decay));
}

/* x <- k x + (1 - k) y */
static ValueId blend(Update *u, ValueId x, ValueId y, double k)
{
    return op2(u, OP_ADD, times(u, x, k), times(u, y, 1 - k));
}

/* p (1 - lr decay) - (lr / c1) m / (sqrt(v) / sqrt(c2) + eps) */
void expand_ADAM_UPDATE(Expand *e)
{
    enum { P, G, M, V, GSCALE, LR, C1, C2, FINITE };
    Update u = update_begin(e, GSCALE);
    Attrs at = e->op.attrs;
    double decay = attr_float(at, AT_DECAY, 0), beta1 = attr_float(at, AT_BETA1, 0),
           beta2 = attr_float(at, AT_BETA2, 0);
    const char *kind = attr_str(at, AT_KIND);
    bool decoupled = !kind || strcmp(kind, "adamw") == 0;
    ValueId lr = operand(&u, LR);
    ValueId g = decoupled ? u.g : decayed(&u, u.g, u.p, decay);
    ValueId m = blend(&u, operand(&u, M), g, beta1);
    ValueId v = blend(&u, operand(&u, V), form_square(u.b, g), beta2);
    ValueId root =
        op2(&u, OP_DIV, build_unary(u.b, OP_SQRT, v), build_unary(u.b, OP_SQRT, operand(&u, C2)));
    ValueId bottom = op2(&u, OP_ADD, root, form_scalar(u.b, root, attr_float(at, AT_EPS, 0)));
    ValueId step =
        op2(&u, OP_MUL, op2(&u, OP_DIV, m, bottom), op2(&u, OP_DIV, lr, operand(&u, C1)));
    ValueId p = u.p;
    if (decoupled && decay != 0)
        p = op2(&u, OP_MUL, p, op2(&u, OP_SUB, form_scalar(u.b, lr, 1), times(&u, lr, decay)));
    update_end(&u, 0, FINITE, op2(&u, OP_SUB, p, step), P);
    update_end(&u, 1, FINITE, m, M);
    update_end(&u, 2, FINITE, v, V);
}

void expand_SGD_UPDATE(Expand *e)
{
    enum { P, G, M, GSCALE, LR, FINITE };
    Update u = update_begin(e, GSCALE);
    Attrs at = e->op.attrs;
    double momentum = attr_float(at, AT_MOMENTUM, 0);
    ValueId g = decayed(&u, u.g, u.p, attr_float(at, AT_DECAY, 0));
    ValueId m = momentum == 0 ? g : op2(&u, OP_ADD, times(&u, operand(&u, M), momentum), g);
    ValueId step = attr_int(at, AT_NESTEROV, 0) ? op2(&u, OP_ADD, g, times(&u, m, momentum)) : m;
    ValueId p = op2(&u, OP_SUB, u.p, op2(&u, OP_MUL, step, operand(&u, LR)));
    update_end(&u, 0, FINITE, p, P);
    update_end(&u, 1, FINITE, m, M);
}

void expand_DESCENT_UPDATE(Expand *e)
{
    enum { P, G, GSCALE, LR, FINITE };
    Update u = update_begin(e, GSCALE);
    ValueId step = decayed(&u, u.g, u.p, attr_float(e->op.attrs, AT_DECAY, 0));
    update_end(&u, 0, FINITE, op2(&u, OP_SUB, u.p, op2(&u, OP_MUL, step, operand(&u, LR))), P);
}

/* x > 0 ? 1 : x < 0 ? -1 : 0 */
static ValueId sign_of(Update *u, ValueId x)
{
    ValueId zero = form_scalar(u->b, x, 0);
    ValueId down = build_select(u->b, op2(u, OP_LT, x, zero), form_scalar(u->b, x, -1), zero);
    return build_select(u->b, op2(u, OP_GT, x, zero), form_scalar(u->b, x, 1), down);
}

void expand_LION_UPDATE(Expand *e)
{
    enum { P, G, M, GSCALE, LR, FINITE };
    Update u = update_begin(e, GSCALE);
    Attrs at = e->op.attrs;
    ValueId m = operand(&u, M);
    ValueId step = sign_of(&u, blend(&u, m, u.g, attr_float(at, AT_BETA1, 0)));
    step = decayed(&u, step, u.p, attr_float(at, AT_DECAY, 0));
    ValueId p = op2(&u, OP_SUB, u.p, op2(&u, OP_MUL, step, operand(&u, LR)));
    update_end(&u, 0, FINITE, p, P);
    update_end(&u, 1, FINITE, blend(&u, m, u.g, attr_float(at, AT_BETA2, 0)), M);
}

/* ---- attention ---- */

/* Sum of x [B, H, T, S] down to `t`, which broadcasts to it. */
static ValueId reduce_to(Builder *b, ValueId x, const Type *t)
{
    int64_t dims[ZM_MAX_RANK];
    uint32_t n = 0;
    const Type *full = value_type(b->f, x);
    for (int i = 0; i < full->rank; i++) {
        int k = i - (full->rank - t->rank);
        bool repeats = k >= 0 && t->dim[k] == 1 && !t->axis[k];
        if (k < 0 || (repeats && (full->dim[i] != 1 || full->axis[i]))) dims[n++] = i;
    }
    return build_reshape_to(b, build_reduce(b, OP_REDUCE_SUM, x, dims, n), t);
}

/* P = exp(scores - lse), 0 where masked;  dS = P (dP - sum(d out * out)),  dP = d out v^T through
 * dropout; d bias = dS summed to the bias's shape. */
void expand_SDPA_GRAD_BIAS(Expand *e)
{
    enum { Q, K, V, OUT, LSE, D_OUT, EXTRA };
    Builder *b = &e->b;
    const ValueId *in = e->op.in;
    FormAttention a = form_attention(b, in, e->op.n_in, EXTRA, e->op.attrs);
    const Type *full = value_type(b->f, a.scores);
    ValueId zero = form_scalar(b, a.scores, 0);
    Type column = *full;
    column.dim[3] = 1;
    ValueId lse = build_cast(b, build_reshape_to(b, in[LSE], &column), full->dtype);
    ValueId p =
        build_unary(b, OP_EXP, build_binary(b, OP_SUB, a.scores, form_spread(b, lse, a.scores)));
    if (value_ok(a.mask)) p = build_select(b, a.mask, p, zero);
    ValueId d_out = form_widen(b, in[D_OUT]);
    ValueId dp = build_matmul(b, d_out, form_widen(b, in[V]), false, true);
    if (a.p_drop > 0) {
        ValueId keep = form_keep(b, a.key, full, e->op.attrs);
        dp = build_select(b, keep, build_binary(b, OP_DIV, dp, form_scalar(b, dp, 1 - a.p_drop)),
                          zero);
    }
    ValueId delta = form_sum(b, build_binary(b, OP_MUL, d_out, form_widen(b, in[OUT])), 3);
    ValueId ds = build_binary(b, OP_MUL, p, build_binary(b, OP_SUB, dp, form_spread(b, delta, dp)));
    e->out[0] = expand_narrow(e, 0, reduce_to(b, ds, value_type(b->f, e->op.out[0])));
}
