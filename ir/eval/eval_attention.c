/* eval_attention.c -- sdpa and its gradients.
 *
 *   s = scale q k^T + bias     p = exp(s - lse)     w = p * drop     out = w v
 *   dw = dout v^T     ds = p * (dw * drop - sum(dout * out))     dq = scale ds k   dk = scale ds^T
 * q dv = w^T dout     dbias = ds, summed where bias was broadcast
 *
 * drop is 1/(1-P) or 0, by element (h, t, s) of the sample's [H, T, S] of the op's random stream.
 * A row that sees nothing has out = 0 and lse = -inf.
 */
#include <math.h>

#include "ir/eval/eval_rules.h"

typedef struct Attention {
    const EvalCall *c;
    int64_t batch, heads, rows, cols, width, v_width; /* B H T S D E */
    double scale, p;
    bool is_causal;
    const EvalTensor *mask, *bias; /* or NULL */
    RandomStream random;
} Attention;

/* `from`: operand where the optional ones begin. */
static Attention attention_of(const EvalCall *c, uint32_t from)
{
    const Type *q = c->in[0].type, *k = c->in[1].type, *v = c->in[2].type;
    Attrs at = c->op->attrs;
    Attention n = {c,         q->dim[0], q->dim[1], q->dim[2],
                   k->dim[2], q->dim[3], v->dim[3], .is_causal = attr_int(at, AT_CAUSAL, 0) != 0};
    n.scale = attr_float(at, AT_SCALE, 1 / sqrt((double)n.width));
    n.p = dtype_round(DT_F32, attr_float(at, AT_P, 0));
    for (uint32_t i = from; i < c->op->n_in; i++) {
        const EvalTensor *x = &c->in[i];
        if (x->type->dtype == DT_I1)
            n.mask = x;
        else if (x->type->dtype == DT_I32)
            n.random = random_stream(x, attr_str(at, AT_STREAM));
        else
            n.bias = x;
    }
    return n;
}

static const double *row_in(const EvalTensor *x, int64_t b, int64_t h, int64_t t)
{
    const int64_t *d = x->type->dim;
    return x->at + ((b * d[1] + h) * d[2] + t) * d[3];
}

static double *row_out(const EvalTensor *x, int64_t b, int64_t h, int64_t t)
{
    const int64_t *d = x->type->dim;
    return x->at + ((b * d[1] + h) * d[2] + t) * d[3];
}

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* Score of row t for column s; -inf where it may not look. */
static double score(const Attention *n, int64_t b, int64_t h, int64_t t, int64_t s)
{
    int64_t at[4] = {b, h, t, s};
    if (n->is_causal && s > t + n->cols - n->rows) return -INFINITY;
    if (n->mask && n->mask->at[index_broadcast(n->mask->type, 4, at)] == 0) return -INFINITY;
    double v =
        n->scale * dot(row_in(&n->c->in[0], b, h, t), row_in(&n->c->in[1], b, h, s), n->width);
    return n->bias ? v + n->bias->at[index_broadcast(n->bias->type, 4, at)] : v;
}

static double drop_factor(const Attention *n, int64_t b, int64_t h, int64_t t, int64_t s)
{
    if (n->p == 0) return 1;
    int64_t element = (h * n->rows + t) * n->cols + s;
    return random_uniform(&n->random, b, element) >= n->p ? 1 / (1 - n->p) : 0;
}

static void attend_row(const Attention *n, int64_t b, int64_t h, int64_t t, double *s)
{
    double max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < n->cols; j++) {
        s[j] = score(n, b, h, t, j);
        if (s[j] > max || isnan(s[j])) max = s[j];
    }
    for (int64_t j = 0; j < n->cols && max != -INFINITY; j++) sum += exp(s[j] - max);
    double lse = max == -INFINITY ? max : max + log(sum);
    n->c->out[1].at[(b * n->heads + h) * n->rows + t] = lse;
    if (lse == -INFINITY) return;
    double *out = row_out(&n->c->out[0], b, h, t);
    for (int64_t j = 0; j < n->cols; j++) {
        double w = exp(s[j] - lse) * drop_factor(n, b, h, t, j);
        const double *v = row_in(&n->c->in[2], b, h, j);
        for (int64_t e = 0; e < n->v_width; e++) out[e] += w * v[e];
    }
}

Status eval_sdpa(const EvalCall *c)
{
    Attention n = attention_of(c, 3);
    Arena scratch = {0};
    double *s = ARENA_ARRAY(&scratch, double, n.cols);
    for (int64_t b = 0; b < n.batch; b++)
        for (int64_t h = 0; h < n.heads; h++)
            for (int64_t t = 0; t < n.rows; t++) attend_row(&n, b, h, t, s);
    arena_free(&scratch);
    return ZM_OK;
}

/* p and w of one pair and the gradient of its score. */
typedef struct Pair {
    double w, ds;
} Pair;

static Pair pair_grad(const Attention *n, int64_t b, int64_t h, int64_t t, int64_t s)
{
    const EvalTensor *in = n->c->in;
    double lse = in[4].at[(b * n->heads + h) * n->rows + t], at = score(n, b, h, t, s);
    if (at == -INFINITY) return (Pair){0, 0};
    double p = exp(at - lse), drop = drop_factor(n, b, h, t, s);
    const double *dout = row_in(&in[5], b, h, t);
    double dw = dot(dout, row_in(&in[2], b, h, s), n->v_width);
    double delta = dot(dout, row_in(&in[3], b, h, t), n->v_width);
    return (Pair){p * drop, p * (dw * drop - delta)};
}

static void add_grads(const Attention *n, int64_t b, int64_t h, int64_t t, int64_t s)
{
    const EvalTensor *in = n->c->in, *out = n->c->out;
    Pair g = pair_grad(n, b, h, t, s);
    for (int64_t d = 0; d < n->width; d++) {
        row_out(&out[0], b, h, t)[d] += n->scale * g.ds * row_in(&in[1], b, h, s)[d];
        row_out(&out[1], b, h, s)[d] += n->scale * g.ds * row_in(&in[0], b, h, t)[d];
    }
    for (int64_t e = 0; e < n->v_width; e++)
        row_out(&out[2], b, h, s)[e] += g.w * row_in(&in[5], b, h, t)[e];
}

static void add_bias_grad(const Attention *n, int64_t b, int64_t h, int64_t t, int64_t s)
{
    int64_t at[4] = {b, h, t, s};
    n->c->out[0].at[index_broadcast(n->bias->type, 4, at)] += pair_grad(n, b, h, t, s).ds;
}

static void for_pairs(const Attention *n,
                      void (*fn)(const Attention *, int64_t, int64_t, int64_t, int64_t))
{
    for (int64_t b = 0; b < n->batch; b++)
        for (int64_t h = 0; h < n->heads; h++)
            for (int64_t t = 0; t < n->rows; t++)
                for (int64_t s = 0; s < n->cols; s++) fn(n, b, h, t, s);
}

Status eval_sdpa_grad(const EvalCall *c)
{
    Attention n = attention_of(c, 6);
    for_pairs(&n, add_grads);
    return ZM_OK;
}

Status eval_sdpa_grad_bias(const EvalCall *c)
{
    Attention n = attention_of(c, 6);
    for_pairs(&n, add_bias_grad);
    return ZM_OK;
}
