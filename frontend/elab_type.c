/* elab_type.c -- types of arguments, parameters and results.
 *
 *   x: [..., n]    '...' are the leading dimensions, the same in the whole signature; n is bound
 * where it is new in this block and in the file, else checked.
 */
#include "frontend/elab.h"

#include <string.h>

static bool type_dtype(Elab *e, const Ast *type, DType *dt)
{
    *dt = strcmp(type->text, "float") == 0  ? DT_F32
          : strcmp(type->text, "int") == 0  ? DT_I32
          : strcmp(type->text, "bool") == 0 ? DT_I1
                                            : DT_NONE;
    if (*dt != DT_NONE) return true;
    elab_error(e, type->name_pos, E_UNKNOWN_NAME,
               "unknown element type %s: there are float, int and bool", type->text);
    return false;
}

static bool has_rest(const Ast *type)
{
    return type->n && type->kid[0]->kind == AST_ELLIPSIS;
}

static Status match_rest(Elab *e, const Ast *type, const char *name, const Ast *given, Val v,
                         int n_lead)
{
    Call *c = e->call;
    const Type *t = val_type(e, v);
    if (!c->has_rest) {
        c->has_rest = true;
        c->rest_rank = n_lead;
        memcpy(c->rest, t->dim, sizeof c->rest);
        return ZM_OK;
    }
    if (c->rest_rank == n_lead && memcmp(c->rest, t->dim, (size_t)n_lead * sizeof *c->rest) == 0)
        return ZM_OK;
    elab_error(
        e, given ? given->pos : type->pos, E_DIM,
        "argument %s is %s: its leading dimensions differ from those of the argument before it",
        name, elab_text(e, v));
    elab_note(e, type->pos, "'...' are the same dimensions in all arguments of a block");
    return ZM_FAIL;
}

static Status match_dim(Elab *e, const Ast *dim, const char *name, const Ast *given, Val v,
                        int axis)
{
    int64_t have = val_type(e, v)->dim[axis], want;
    bool is_name = dim->kind == AST_NAME;
    if (is_name && !scope_find(e, dim->text)) {
        scope_add(e, dim->text, val_int(have), dim->pos);
        return ZM_OK;
    }
    if (!elab_int(e, dim, "a dimension", &want)) return ZM_FAIL;
    if (have == want) return ZM_OK;
    const char *label = is_name ? arena_printf(e->arena, "%s is %lld", dim->text, (long long)want)
                                : arena_printf(e->arena, "the type says %lld", (long long)want);
    elab_error(e, given ? given->pos : dim->pos, E_DIM,
               "argument %s is %s: dimension %d is %lld, but %s", name, elab_text(e, v), axis,
               (long long)have, label);
    elab_note(e, dim->pos, "argument %s is declared here", name);
    const Binding *b = is_name ? scope_find(e, dim->text) : NULL;
    if (b) elab_note(e, b->pos, "%s is %lld, bound here", dim->text, (long long)want);
    return ZM_FAIL;
}

Status type_match(Elab *e, const Ast *type, const char *name, const Ast *given, Val v,
                  SrcPos call_pos)
{
    DType dtype;
    SrcPos pos = given ? given->pos : call_pos;
    if (!type_dtype(e, type, &dtype)) return ZM_FAIL;
    if (val_is_number(v) || v.kind == VAL_BOOL) ZM_TRY(val_to_tensor(e, pos, v, dtype, &v));
    if (v.kind != VAL_TENSOR || val_type(e, v)->dtype != dtype) {
        elab_error(e, pos, E_TYPE, "argument %s must be a tensor of %s, not %s", name, type->text,
                   elab_text(e, v));
        elab_note(e, type->pos, "argument %s is declared here", name);
        return ZM_FAIL;
    }
    int rank = val_type(e, v)->rank, n_named = (int)type->n - has_rest(type);
    if (has_rest(type) ? rank < n_named : rank != n_named) {
        elab_error(e, pos, E_DIM, "argument %s is %s: %d dimensions, but %s%d are declared", name,
                   elab_text(e, v), rank, has_rest(type) ? "at least " : "", n_named);
        elab_note(e, type->pos, "argument %s is declared here", name);
        return ZM_FAIL;
    }
    if (has_rest(type)) ZM_TRY(match_rest(e, type, name, given, v, rank - n_named));
    for (int i = 0; i < n_named; i++)
        ZM_TRY(match_dim(e, type->kid[i + has_rest(type)], name, given, v, rank - n_named + i));
    return ZM_OK;
}

/* Dimensions of a type whose names are all known. */
static Status type_dims(Elab *e, const Ast *type, int *rank, int64_t *dim)
{
    *rank = 0;
    for (uint32_t i = 0; i < type->n; i++) {
        const Ast *kid = type->kid[i];
        bool is_rest = kid->kind == AST_ELLIPSIS;
        if (is_rest && (i > 0 || !e->call || !e->call->has_rest)) {
            elab_error(e, kid->pos, E_TYPE,
                       "'...' stands first, in a block whose arguments have '...'");
            return ZM_FAIL;
        }
        int n = is_rest ? e->call->rest_rank : 1;
        if (*rank + n > ZM_MAX_RANK) return shape_check(e, type->pos, *rank + n, dim);
        if (is_rest)
            memcpy(dim, e->call->rest, (size_t)n * sizeof *dim);
        else if (!elab_int(e, kid, "a dimension", &dim[*rank]))
            return ZM_FAIL;
        *rank += n;
    }
    return shape_check(e, type->pos, *rank, dim);
}

Status type_eval(Elab *e, const Ast *type, const Type **out)
{
    DType dtype;
    int rank;
    int64_t dim[ZM_MAX_RANK];
    if (!type_dtype(e, type, &dtype)) return ZM_FAIL;
    ZM_TRY(type_dims(e, type, &rank, dim));
    *out = type_get(e->m, dtype, rank, dim);
    return ZM_OK;
}

Status type_check_result(Elab *e, const Ast *type, const Ast *given, Val v)
{
    const Type *want;
    ZM_TRY(type_eval(e, type, &want));
    if (v.kind == VAL_TENSOR && val_type(e, v) == want) return ZM_OK;
    elab_error(e, given->pos, E_RESULT, "the block returns %s, but declares %s", elab_text(e, v),
               type_text(e->arena, want));
    elab_note(e, type->pos, "declared here");
    return ZM_FAIL;
}
