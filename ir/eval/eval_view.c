/* eval_view.c -- sources and movement: each result element is one operand element, an index or a
 * constant. */
#include <string.h>

#include "ir/eval/eval_rules.h"

void index_of(const Type *t, int64_t flat, int64_t *coord)
{
    for (int i = t->rank - 1; i >= 0; i--) {
        coord[i] = flat % t->dim[i];
        flat /= t->dim[i];
    }
}

int64_t index_flat(const Type *t, const int64_t *coord)
{
    int64_t flat = 0;
    for (int i = 0; i < t->rank; i++) flat = flat * t->dim[i] + coord[i];
    return flat;
}

int64_t index_broadcast(const Type *from, int rank, const int64_t *coord)
{
    int64_t flat = 0;
    for (int i = 0; i < from->rank; i++) {
        int64_t x = from->dim[i] == 1 ? 0 : coord[rank - from->rank + i];
        flat = flat * from->dim[i] + x;
    }
    return flat;
}

Rows rows_of(const Type *t, int64_t axis)
{
    Rows r = {1, t->dim[axis], 1};
    for (int i = 0; i < axis; i++) r.outer *= t->dim[i];
    for (int i = (int)axis + 1; i < t->rank; i++) r.inner *= t->dim[i];
    return r;
}

static const int64_t *list_attr(const EvalCall *c, AttrKey key)
{
    return attrs_find(c->op->attrs, key)->as.list.at;
}

Status eval_const(const EvalCall *c)
{
    double v = attr_float(c->op->attrs, AT_VALUE, 0);
    for (int64_t i = 0; i < type_elems(c->out[0].type); i++) c->out[0].at[i] = v;
    return ZM_OK;
}

Status eval_iota(const EvalCall *c)
{
    const Type *t = c->out[0].type;
    int64_t axis = attr_int(c->op->attrs, AT_AXIS, 0);
    int64_t coord[ZM_MAX_RANK] = {0};
    for (int64_t i = 0; i < type_elems(t); i++) {
        index_of(t, i, coord);
        c->out[0].at[i] = (double)coord[axis];
    }
    return ZM_OK;
}

Status eval_broadcast(const EvalCall *c)
{
    const Type *t = c->out[0].type;
    int64_t coord[ZM_MAX_RANK];
    for (int64_t i = 0; i < type_elems(t); i++) {
        index_of(t, i, coord);
        c->out[0].at[i] = c->in[0].at[index_broadcast(c->in[0].type, t->rank, coord)];
    }
    return ZM_OK;
}

Status eval_reshape(const EvalCall *c)
{
    memcpy(c->out[0].at, c->in[0].at, (size_t)type_elems(c->in[0].type) * sizeof(double));
    return ZM_OK;
}

Status eval_after(const EvalCall *c)
{
    return eval_reshape(c);
}

Status eval_transpose(const EvalCall *c)
{
    const Type *t = c->out[0].type;
    const int64_t *perm = list_attr(c, AT_PERM);
    int64_t to[ZM_MAX_RANK], from[ZM_MAX_RANK];
    for (int64_t i = 0; i < type_elems(t); i++) {
        index_of(t, i, to);
        for (int k = 0; k < t->rank; k++) from[perm[k]] = to[k];
        c->out[0].at[i] = c->in[0].at[index_flat(c->in[0].type, from)];
    }
    return ZM_OK;
}

Status eval_slice(const EvalCall *c)
{
    const Type *t = c->out[0].type;
    const int64_t *starts = list_attr(c, AT_STARTS);
    int64_t coord[ZM_MAX_RANK];
    for (int64_t i = 0; i < type_elems(t); i++) {
        index_of(t, i, coord);
        for (int k = 0; k < t->rank; k++) coord[k] += starts[k];
        c->out[0].at[i] = c->in[0].at[index_flat(c->in[0].type, coord)];
    }
    return ZM_OK;
}

Status eval_pad(const EvalCall *c)
{
    const Type *t = c->in[0].type;
    const int64_t *low = list_attr(c, AT_LOW);
    int64_t coord[ZM_MAX_RANK];
    for (int64_t i = 0; i < type_elems(t); i++) {
        index_of(t, i, coord);
        for (int k = 0; k < t->rank; k++) coord[k] += low[k];
        c->out[0].at[index_flat(c->out[0].type, coord)] = c->in[0].at[i];
    }
    return ZM_OK;
}

Status eval_concat(const EvalCall *c)
{
    int64_t axis = attr_int(c->op->attrs, AT_AXIS, 0), base = 0;
    int64_t coord[ZM_MAX_RANK];
    for (uint32_t n = 0; n < c->op->n_in; n++) {
        const Type *t = c->in[n].type;
        for (int64_t i = 0; i < type_elems(t); i++) {
            index_of(t, i, coord);
            coord[axis] += base;
            c->out[0].at[index_flat(c->out[0].type, coord)] = c->in[n].at[i];
        }
        base += t->dim[axis];
    }
    return ZM_OK;
}

Status eval_pack(const EvalCall *c)
{
    const int64_t *starts = list_attr(c, AT_STARTS);
    for (uint32_t n = 0; n < c->op->n_in; n++)
        memcpy(c->out[0].at + starts[n], c->in[n].at,
               (size_t)type_elems(c->in[n].type) * sizeof(double));
    return ZM_OK;
}
