/* eval_reduce.c -- reductions and the row ops made of them. */
#include <math.h>

#include "ir/eval/eval_rules.h"

/* Element of the reduction's result that element `coord` of the operand goes to. */
static int64_t reduced_index(const EvalCall *c, const int64_t *coord)
{
    const Attr *dims = attrs_find(c->op->attrs, AT_DIMS);
    int64_t kept[ZM_MAX_RANK];
    uint32_t next = 0;
    int n = 0;
    for (int i = 0; i < c->in[0].type->rank; i++) {
        if (next < dims->as.list.n && dims->as.list.at[next] == i)
            next++;
        else
            kept[n++] = coord[i];
    }
    return index_flat(c->out[0].type, kept);
}

/* Neumaier's sum: sum + lost is exact to about the last bit of a double. */
static void sum_add(double *sum, double *lost, double v)
{
    double t = *sum + v;
    if (isfinite(t)) *lost += fabs(*sum) >= fabs(v) ? (*sum - t) + v : (v - t) + *sum;
    *sum = t;
}

Status eval_reduce_sum(const EvalCall *c)
{
    const Type *t = c->in[0].type;
    Arena scratch = {0};
    double *lost = ARENA_ARRAY(&scratch, double, type_elems(c->out[0].type));
    int64_t coord[ZM_MAX_RANK];
    for (int64_t i = 0; i < type_elems(t); i++) {
        index_of(t, i, coord);
        int64_t k = reduced_index(c, coord);
        sum_add(&c->out[0].at[k], &lost[k], c->in[0].at[i]);
    }
    for (int64_t k = 0; k < type_elems(c->out[0].type); k++)
        if (isfinite(c->out[0].at[k])) c->out[0].at[k] += lost[k];
    arena_free(&scratch);
    return ZM_OK;
}

Status eval_reduce_max(const EvalCall *c)
{
    const Type *t = c->in[0].type;
    int64_t coord[ZM_MAX_RANK];
    double *out = c->out[0].at;
    for (int64_t k = 0; k < type_elems(c->out[0].type); k++) out[k] = -INFINITY;
    for (int64_t i = 0; i < type_elems(t); i++) {
        index_of(t, i, coord);
        int64_t k = reduced_index(c, coord);
        double v = c->in[0].at[i];
        if (isnan(v) || v > out[k]) out[k] = isnan(out[k]) ? out[k] : v;
    }
    return ZM_OK;
}

Status eval_all_finite(const EvalCall *c)
{
    c->out[0].at[0] = 1;
    for (uint32_t n = 0; n < c->op->n_in; n++)
        for (int64_t i = 0; i < type_elems(c->in[n].type); i++)
            if (!isfinite(c->in[n].at[i])) c->out[0].at[0] = 0;
    return ZM_OK;
}

Status eval_count_nonfinite(const EvalCall *c)
{
    double n = 0;
    for (uint32_t k = 0; k < c->op->n_in; k++)
        for (int64_t i = 0; i < type_elems(c->in[k].type); i++) n += !isfinite(c->in[k].at[i]);
    c->out[0].at[0] = n;
    return ZM_OK;
}

Status eval_sum_squares(const EvalCall *c)
{
    double sum = 0, lost = 0;
    for (uint32_t n = 0; n < c->op->n_in; n++)
        for (int64_t i = 0; i < type_elems(c->in[n].type); i++)
            sum_add(&sum, &lost, c->in[n].at[i] * c->in[n].at[i]);
    c->out[0].at[0] = isfinite(sum) ? sum + lost : sum;
    return ZM_OK;
}

/* ---- rows along an axis ---- */

static double row_max(const double *x, const Rows *r, int64_t o, int64_t i)
{
    double m = -INFINITY;
    for (int64_t k = 0; k < r->len; k++) {
        double v = x[row_at(r, o, k, i)];
        if (isnan(v)) return v;
        if (v > m) m = v;
    }
    return m;
}

/* log of the sum of exponentials of a row, by its maximum. */
static double row_lse(const double *x, const Rows *r, int64_t o, int64_t i)
{
    double m = row_max(x, r, o, i), sum = 0;
    if (!isfinite(m)) return m;
    for (int64_t k = 0; k < r->len; k++) sum += exp(x[row_at(r, o, k, i)] - m);
    return m + log(sum);
}

static void log_softmax_rows(const EvalCall *c)
{
    Rows r = rows_of(c->in[0].type, attr_int(c->op->attrs, AT_AXIS, 0));
    const double *x = c->in[0].at;
    for (int64_t o = 0; o < r.outer; o++)
        for (int64_t i = 0; i < r.inner; i++) {
            double lse = row_lse(x, &r, o, i);
            for (int64_t k = 0; k < r.len; k++)
                c->out[0].at[row_at(&r, o, k, i)] = x[row_at(&r, o, k, i)] - lse;
        }
}

Status eval_log_softmax(const EvalCall *c)
{
    log_softmax_rows(c);
    return ZM_OK;
}

Status eval_softmax(const EvalCall *c)
{
    log_softmax_rows(c);
    for (int64_t i = 0; i < type_elems(c->out[0].type); i++) c->out[0].at[i] = exp(c->out[0].at[i]);
    return ZM_OK;
}

Status eval_cross_entropy(const EvalCall *c)
{
    Rows r = rows_of(c->in[0].type, c->in[0].type->rank - 1);
    const Attr *ignore = attrs_find(c->op->attrs, AT_IGNORE);
    for (int64_t o = 0; o < r.outer; o++) {
        int64_t target = (int64_t)c->in[1].at[o];
        if (ignore && target == ignore->as.i) continue;
        if (target < 0 || target >= r.len)
            return eval_fail(c, "target %lld is outside of the %lld classes", (long long)target,
                             (long long)r.len);
        c->out[0].at[o] = row_lse(c->in[0].at, &r, o, 0) - c->in[0].at[row_at(&r, o, target, 0)];
    }
    return ZM_OK;
}

Status eval_cross_entropy_grad(const EvalCall *c)
{
    Rows r = rows_of(c->in[0].type, c->in[0].type->rank - 1);
    const Attr *ignore = attrs_find(c->op->attrs, AT_IGNORE);
    for (int64_t o = 0; o < r.outer; o++) {
        int64_t target = (int64_t)c->in[1].at[o];
        if (ignore && target == ignore->as.i) continue;
        double lse = row_lse(c->in[0].at, &r, o, 0);
        for (int64_t k = 0; k < r.len; k++) {
            int64_t at = row_at(&r, o, k, 0);
            c->out[0].at[at] = (exp(c->in[0].at[at] - lse) - (k == target)) * c->in[2].at[o];
        }
    }
    return ZM_OK;
}

/* (x - mean) / sqrt(mean((x - mean)^2) + eps) of each last dimension; without the mean for RMS. */
static void normalize_rows(const EvalCall *c, bool is_centred)
{
    Rows r = rows_of(c->in[0].type, c->in[0].type->rank - 1);
    double eps = attr_float(c->op->attrs, AT_EPS, 0);
    for (int64_t o = 0; o < r.outer; o++) {
        const double *x = c->in[0].at + o * r.len;
        double *y = c->out[0].at + o * r.len;
        double mean = 0, square = 0;
        for (int64_t k = 0; is_centred && k < r.len; k++) mean += x[k] / (double)r.len;
        for (int64_t k = 0; k < r.len; k++) square += (x[k] - mean) * (x[k] - mean);
        double scale = 1 / sqrt(square / (double)r.len + eps);
        for (int64_t k = 0; k < r.len; k++) y[k] = (x[k] - mean) * scale;
    }
}

Status eval_normalize(const EvalCall *c)
{
    normalize_rows(c, true);
    return ZM_OK;
}

Status eval_rms_normalize(const EvalCall *c)
{
    normalize_rows(c, false);
    return ZM_OK;
}
