/* eval_contract.c -- matmul, table lookup and its reverse, rotary. */
#include <math.h>
#include <string.h>

#include "ir/eval/eval_rules.h"

Status eval_matmul(const EvalCall *c)
{
    const Type *a = c->in[0].type, *b = c->in[1].type, *t = c->out[0].type;
    bool ta = attr_int(c->op->attrs, AT_TRANS_A, 0), tb = attr_int(c->op->attrs, AT_TRANS_B, 0);
    int64_t m = t->dim[t->rank - 2], n = t->dim[t->rank - 1];
    int64_t k = a->dim[a->rank - (ta ? 2 : 1)];
    int64_t batch = type_elems(t) / (m * n);
    for (int64_t z = 0; z < batch; z++) {
        const double *x = c->in[0].at + z * m * k;
        const double *y = c->in[1].at + (b->rank > 2 ? z * k * n : 0);
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) {
                double sum = 0;
                for (int64_t l = 0; l < k; l++)
                    sum += x[ta ? l * m + i : i * k + l] * y[tb ? j * k + l : l * n + j];
                c->out[0].at[(z * m + i) * n + j] = sum;
            }
    }
    return ZM_OK;
}

/* Row number i of the indices, checked against the table. */
static Status table_row(const EvalCall *c, int64_t i, int64_t *row)
{
    *row = (int64_t)c->in[1].at[i];
    int64_t rows = c->in[0].type->dim[0];
    if (*row >= 0 && *row < rows) return ZM_OK;
    return eval_fail(c, "index %lld is outside of the table's %lld rows", (long long)*row,
                     (long long)rows);
}

Status eval_embed(const EvalCall *c)
{
    int64_t width = c->in[0].type->dim[1], row;
    for (int64_t i = 0; i < type_elems(c->in[1].type); i++) {
        ZM_TRY(table_row(c, i, &row));
        memcpy(c->out[0].at + i * width, c->in[0].at + row * width, (size_t)width * sizeof(double));
    }
    return ZM_OK;
}

Status eval_scatter_add(const EvalCall *c)
{
    int64_t width = c->in[0].type->dim[1], row;
    memcpy(c->out[0].at, c->in[0].at, (size_t)type_elems(c->in[0].type) * sizeof(double));
    for (int64_t i = 0; i < type_elems(c->in[1].type); i++) {
        ZM_TRY(table_row(c, i, &row));
        for (int64_t k = 0; k < width; k++)
            c->out[0].at[row * width + k] += c->in[2].at[i * width + k];
    }
    return ZM_OK;
}

Status eval_rotary(const EvalCall *c)
{
    const Type *t = c->in[0].type;
    int64_t steps = t->dim[t->rank - 2], width = t->dim[t->rank - 1], half = width / 2;
    double theta = attr_float(c->op->attrs, AT_THETA, 0);
    double sign = attr_int(c->op->attrs, AT_INVERSE, 0) ? -1 : 1;
    for (int64_t row = 0; row < type_elems(t) / width; row++) {
        const double *x = c->in[0].at + row * width;
        double *y = c->out[0].at + row * width;
        for (int64_t i = 0; i < half; i++) {
            double at = (double)(row % steps) * pow(theta, -2 * (double)i / (double)width);
            double co = cos(at), si = sign * sin(at);
            y[i] = x[i] * co - x[i + half] * si;
            y[i + half] = x[i + half] * co + x[i] * si;
        }
    }
    return ZM_OK;
}
