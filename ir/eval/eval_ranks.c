/* eval_ranks.c -- a tensor of all ranks cut into theirs and put together again (eval.h). */
#include <string.h>

#include "ir/eval/eval_rules.h"

Type type_whole(const Module *m, const Type *t)
{
    Type whole = *t;
    for (int i = 0; i < t->rank; i++) {
        if (t->axis[i] && m->mesh[t->axis[i]] > 1) whole.dim[i] *= m->mesh[t->axis[i]];
        whole.axis[i] = MESH_NONE;
    }
    whole.partial = 0;
    return whole;
}

/* The dimension that is sharded over `data`; -1: none. */
static int sharded_dim(const Type *t)
{
    for (int i = 0; i < t->rank; i++)
        if (t->axis[i] == MESH_DATA) return i;
    return -1;
}

/* Copies rank `rank`'s part out of the whole, or into it. */
static void copy_part(const Type *t, int dim, double *whole, double *part, uint32_t ranks,
                      uint32_t rank, bool is_out)
{
    Rows r = rows_of(t, dim);
    int64_t n = r.len * r.inner;
    for (int64_t o = 0; o < r.outer; o++) {
        double *w = whole + (o * ranks + rank) * n, *p = part + o * n;
        memcpy(is_out ? p : w, is_out ? w : p, (size_t)n * sizeof(double));
    }
}

void eval_cut(const Type *t, const double *whole, uint32_t ranks, uint32_t rank, double *part)
{
    int dim = sharded_dim(t);
    size_t n = (size_t)type_elems(t) * sizeof(double);
    if (dim >= 0)
        copy_part(t, dim, (double *)whole, part, ranks, rank, true);
    else if (t->partial && rank > 0)
        memset(part, 0, n);
    else
        memcpy(part, whole, n);
}

/* Of a partial sum: element i over ranks, as all_reduce has it. */
static double sum_parts(DType dt, double *const *part, uint32_t ranks, int64_t i)
{
    double sum = part[0][i];
    for (uint32_t r = 1; r < ranks; r++) sum = eval_add_ranks(dt, sum, part[r][i]);
    return dtype_round(dt, sum);
}

void eval_join(const Type *t, double *const *part, uint32_t ranks, double *whole)
{
    int dim = sharded_dim(t);
    for (uint32_t r = 0; r < ranks && dim >= 0; r++)
        copy_part(t, dim, whole, part[r], ranks, r, false);
    for (int64_t i = 0; i < type_elems(t) && dim < 0; i++)
        whole[i] = t->partial ? sum_parts(t->dtype, part, ranks, i) : part[0][i];
}

void eval_cut_vars(const Eval *whole, Eval *const *e, uint32_t ranks)
{
    const Module *m = whole->m;
    for (uint32_t i = 1; i < m->vars.n; i++)
        for (uint32_t r = 0; whole->storage[i] && r < ranks; r++)
            eval_cut(m->vars.at[i].type, whole->storage[i], ranks, r, e[r]->storage[i]);
}

void eval_join_vars(Eval *whole, Eval *const *e, uint32_t ranks)
{
    const Module *m = whole->m;
    double **part = ARENA_ARRAY(whole->arena, double *, ranks);
    for (uint32_t i = 1; i < m->vars.n; i++) {
        if (!whole->storage[i]) continue;
        for (uint32_t r = 0; r < ranks; r++) part[r] = e[r]->storage[i];
        eval_join(m->vars.at[i].type, part, ranks, whole->storage[i]);
    }
}

/* Samples are numbered over the ranks: an input `rng` holds the first one's number. */
static void cut_input(const Module *m, const Value *param, const double *whole, uint32_t ranks,
                      uint32_t rank, double *part)
{
    eval_cut(param->type, whole, ranks, rank, part);
    if (param->name && strcmp(param->name, "rng") == 0 && !type_is_placed(param->type))
        part[3] += (double)(rank * m->batch);
}

void eval_cut_inputs(const Func *f, const EvalTensor *whole, uint32_t ranks, Arena *a,
                     EvalTensor *in)
{
    for (uint32_t i = 0; i < ranks * f->params.n; i++) {
        uint32_t k = i % f->params.n;
        const Value *p = value_cget(f, f->params.at[k]);
        in[i] = eval_tensor(a, p->type);
        cut_input(f->m, p, whole[k].at, ranks, i / f->params.n, in[i].at);
    }
}

void eval_join_results(const Func *f, const EvalTensor *out, uint32_t ranks, Arena *a,
                       EvalTensor *whole)
{
    const Op *ret = op_cget(f, f->last);
    double **part = ARENA_ARRAY(a, double *, ranks);
    for (uint32_t i = 0; i < ret->n_in; i++) {
        Type *t = ARENA_NEW(a, Type);
        *t = type_whole(f->m, value_type(f, ret->in[i]));
        whole[i] = eval_tensor(a, t);
        for (uint32_t r = 0; r < ranks; r++) part[r] = out[r * ret->n_in + i].at;
        eval_join(value_type(f, ret->in[i]), part, ranks, whole[i].at);
    }
}
