/* elab_index.c -- x[a..b, i, ...] and axis numbers. */
#include "frontend/elab.h"

#include <string.h>

Status axis_of(Elab *e, SrcPos pos, Val v, const Type *t, int *axis)
{
    int64_t i = -1;
    if (v.kind != VAL_NONE) ZM_TRY(val_to_int(e, pos, v, "axis", &i));
    if (i < -t->rank || i >= t->rank) {
        elab_error(e, pos, E_INDEX, "axis %lld is outside of %s, which has %d dimensions",
                   (long long)i, type_text(e->arena, t), t->rank);
        return ZM_FAIL;
    }
    *axis = (int)(i < 0 ? i + t->rank : i);
    return ZM_OK;
}

typedef struct Selection { /* what an index keeps of each dimension */
    int64_t start[ZM_MAX_RANK], size[ZM_MAX_RANK];
    bool is_dropped[ZM_MAX_RANK]; /* x[i]: the dimension goes away */
} Selection;

static Status select_range(Elab *e, const Ast *range, int axis, const Type *t, Selection *s)
{
    int64_t from = 0, to = t->dim[axis];
    if (range->kid[0] && !elab_int(e, range->kid[0], "the start of a range", &from)) return ZM_FAIL;
    if (range->kid[1] && !elab_int(e, range->kid[1], "the end of a range", &to)) return ZM_FAIL;
    if (from < 0 || from >= to || to > t->dim[axis]) {
        elab_error(e, range->pos, E_INDEX, "%lld..%lld is empty or outside of dimension %d of %s",
                   (long long)from, (long long)to, axis, type_text(e->arena, t));
        return ZM_FAIL;
    }
    s->start[axis] = from;
    s->size[axis] = to - from;
    return ZM_OK;
}

static Status select_one(Elab *e, const Ast *ast, int axis, const Type *t, Selection *s)
{
    int64_t i;
    if (ast->kind == AST_RANGE) return select_range(e, ast, axis, t, s);
    if (!elab_int(e, ast, "an index", &i)) return ZM_FAIL;
    if (i < 0 || i >= t->dim[axis]) {
        elab_error(e, ast->pos, E_INDEX, "index %lld is outside of 0..%lld, dimension %d of %s",
                   (long long)i, (long long)t->dim[axis], axis, type_text(e->arena, t));
        return ZM_FAIL;
    }
    s->start[axis] = i;
    s->size[axis] = 1;
    s->is_dropped[axis] = true;
    return ZM_OK;
}

static Status select_all(Elab *e, const Ast *ast, const Type *t, Selection *s)
{
    int n = (int)ast->n - 1, n_ellipsis = 0;
    for (int i = 1; i <= n; i++) n_ellipsis += ast->kid[i]->kind == AST_ELLIPSIS;
    if (n_ellipsis > 1 || n - n_ellipsis > t->rank) {
        elab_error(e, ast->pos, E_INDEX, "%d indices%s for %s", n - n_ellipsis,
                   n_ellipsis > 1 ? " and more than one '...'" : "", type_text(e->arena, t));
        return ZM_FAIL;
    }
    int axis = 0;
    for (int i = 1; i <= n; i++) {
        if (ast->kid[i]->kind == AST_ELLIPSIS)
            axis += t->rank - (n - n_ellipsis);
        else
            ZM_TRY(select_one(e, ast->kid[i], axis++, t, s));
    }
    return ZM_OK;
}

static Val index_tuple(Elab *e, const Ast *ast, Val base)
{
    int64_t i;
    if (ast->n != 2 || ast->kid[1]->kind == AST_RANGE || ast->kid[1]->kind == AST_ELLIPSIS)
        return elab_error(e, ast->pos, E_INDEX, "one of %u values is chosen by one integer",
                          base.n);
    if (!elab_int(e, ast->kid[1], "an index", &i)) return val_error();
    if (i < 0 || i >= base.n)
        return elab_error(e, ast->kid[1]->pos, E_INDEX, "index %lld is outside of 0..%u",
                          (long long)i, base.n);
    return base.as.items[i];
}

Val emit_index(Elab *e, const Ast *ast, Val base)
{
    if (base.kind == VAL_TUPLE) return index_tuple(e, ast, base);
    if (base.kind != VAL_TENSOR)
        return elab_error(e, ast->pos, E_TYPE, "only tensors have indices, not %s",
                          val_kind_text(base));
    const Type *t = val_type(e, base);
    Selection s = {0};
    memcpy(s.size, t->dim, sizeof s.size);
    if (select_all(e, ast, t, &s) != ZM_OK) return val_error();
    int rank = 0;
    int64_t dim[ZM_MAX_RANK];
    for (int i = 0; i < t->rank; i++)
        if (!s.is_dropped[i]) dim[rank++] = s.size[i];
    base = emit_slice(e, ast->pos, base, s.start, s.size);
    return base.kind == VAL_TENSOR ? emit_reshape(e, ast->pos, base, rank, dim) : base;
}
