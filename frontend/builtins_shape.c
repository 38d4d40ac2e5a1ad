/* builtins_shape.c -- built-in functions that move, make and convert elements. */
#include "frontend/builtins.h"

#include <math.h>
#include <string.h>

Val builtin_arange(Elab *e, BuiltinCall *c)
{
    int64_t n, start = 0;
    if (need_int(e, c, 0, &n) != ZM_OK) return val_error();
    if (c->arg[1].kind != VAL_NONE && need_int(e, c, 1, &start) != ZM_OK) return val_error();
    if (shape_check(e, c->pos, 1, &n) != ZM_OK) return val_error();
    if (start < INT32_MIN || n > INT32_MAX || start > INT32_MAX - n)
        return elab_error(e, c->pos, E_NUMBER, "%lld numbers from %lld do not fit into 32 bits",
                          (long long)n, (long long)start);
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, 0);
    attr_add_list(&l, AT_SHAPE, &n, 1);
    attr_add_int(&l, AT_DTYPE, DT_I32);
    Val v[] = {emit(e, c->pos, OP_IOTA, NULL, 0, &l), val_int(start)};
    return start && v[0].kind == VAL_TENSOR ? emit_point(e, c->pos, OP_ADD, v, NULL, 2, "arange")
                                            : v[0];
}

Val builtin_broadcast(Elab *e, BuiltinCall *c)
{
    int64_t dim[ZM_MAX_RANK];
    int rank;
    if (need_tensor(e, c, 0) != ZM_OK) return val_error();
    if (need_ints(e, c, 1, ZM_MAX_RANK, dim, &rank, NULL) != ZM_OK) return val_error();
    Val r = emit_broadcast(e, c->pos, c->arg[0], rank, dim);
    if (r.kind == VAL_ERROR) note_args(e, c);
    return r;
}

Val builtin_clamp(Elab *e, BuiltinCall *c)
{
    double low, high;
    if (need_tensor(e, c, 0) != ZM_OK) return val_error();
    if (need_number(e, c, 1, 0, &low) != ZM_OK || need_number(e, c, 2, 0, &high) != ZM_OK)
        return val_error();
    if (low > high)
        return elab_error(e, c->pos, E_NUMBER, "clamp to %.12g..%.12g keeps nothing", low, high);
    Val v[] = {c->arg[0], c->arg[1]};
    Val atleast = emit_point(e, c->pos, OP_MAX, v, c->ast, 2, "clamp");
    if (atleast.kind == VAL_ERROR) return atleast;
    Val w[] = {atleast, c->arg[2]};
    return emit_point(e, c->pos, OP_MIN, w, NULL, 2, "clamp");
}

Val builtin_concat(Elab *e, BuiltinCall *c)
{
    enum { MAX_PARTS = 4096 };
    int axis;
    if (c->n_rest > MAX_PARTS)
        return elab_error(e, c->pos, E_LIMIT, "%u parts: at most %d", c->n_rest, MAX_PARTS);
    ValueId *in = ARENA_ARRAY(e->arena, ValueId, c->n_rest);
    for (uint32_t i = 0; i < c->n_rest; i++) {
        if (c->rest[i].kind != VAL_TENSOR)
            return elab_error(e, c->pos, E_TYPE, "concat takes tensors, not %s",
                              val_kind_text(c->rest[i]));
        in[i] = c->rest[i].tensor;
    }
    if (axis_of(e, arg_pos(c, 1), c->arg[1], val_type(e, c->rest[0]), &axis) != ZM_OK)
        return val_error();
    if (c->n_rest == 1) return c->rest[0];
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, axis);
    return emit(e, c->pos, OP_CONCAT, in, c->n_rest, &l);
}

static Val convert(Elab *e, BuiltinCall *c, DType dtype)
{
    Val v = c->arg[0];
    if (v.kind == VAL_TENSOR) {
        Val r = emit_cast(e, c->pos, v, dtype);
        if (r.kind == VAL_TENSOR) r.weight = v.weight;
        return r;
    }
    if (!val_is_number(v) && v.kind != VAL_BOOL)
        return elab_error(e, c->pos, E_TYPE, "%s does not convert %s", c->name, val_kind_text(v));
    if (dtype == DT_F32) return val_real(val_real_of(v));
    if (v.kind == VAL_REAL && fabs(v.as.real) >= 0x1p62)
        return elab_error(e, c->pos, E_NUMBER, "%.12g does not fit into an integer", v.as.real);
    return val_int(v.kind == VAL_REAL ? (int64_t)v.as.real : v.as.i);
}

Val builtin_float(Elab *e, BuiltinCall *c)
{
    return convert(e, c, DT_F32);
}

Val builtin_int(Elab *e, BuiltinCall *c)
{
    return convert(e, c, DT_I32);
}

Val builtin_full(Elab *e, BuiltinCall *c)
{
    int64_t dim[ZM_MAX_RANK];
    int rank;
    Val v = c->arg[1];
    if (need_ints(e, c, 0, ZM_MAX_RANK, dim, &rank, NULL) != ZM_OK) return val_error();
    if (!val_is_number(v) && v.kind != VAL_BOOL)
        return elab_error(e, arg_pos(c, 1), E_TYPE, "full takes a number or bool, not %s",
                          val_kind_text(v));
    return emit_const(e, c->pos, val_real_of(v), v.kind == VAL_BOOL ? DT_I1 : DT_F32, rank, dim);
}

/* '...' keeps the longest run of leading dimensions after which the elements come out right. */
static Status shape_rest(Elab *e, BuiltinCall *c, int64_t *dim, int *rank)
{
    const Type *t = val_type(e, c->arg[0]);
    ZM_TRY(shape_check(e, arg_pos(c, 1), *rank, dim));
    int64_t want = 1, have = 1;
    for (int i = 0; i < *rank; i++) want *= dim[i];
    for (int k = t->rank; k >= 0; k--) {
        if (k < t->rank) have *= t->dim[k];
        if (have != want) continue;
        if (k + *rank > ZM_MAX_RANK) return shape_check(e, c->pos, k + *rank, dim);
        memmove(dim + k, dim, (size_t)*rank * sizeof *dim);
        memcpy(dim, t->dim, (size_t)k * sizeof *dim);
        *rank += k;
        return ZM_OK;
    }
    elab_error(e, c->pos, E_SHAPE,
               "no leading dimensions of %s leave %lld elements for the rest of the shape",
               elab_text(e, c->arg[0]), (long long)want);
    note_args(e, c);
    return ZM_FAIL;
}

Val builtin_reshape(Elab *e, BuiltinCall *c)
{
    int64_t dim[ZM_MAX_RANK] = {0};
    int rank;
    bool has_rest;
    if (need_tensor(e, c, 0) != ZM_OK) return val_error();
    if (need_ints(e, c, 1, ZM_MAX_RANK, dim, &rank, &has_rest) != ZM_OK) return val_error();
    if (has_rest && shape_rest(e, c, dim, &rank) != ZM_OK) return val_error();
    Val r = emit_reshape(e, c->pos, c->arg[0], rank, dim);
    if (r.kind == VAL_ERROR) note_args(e, c);
    return r;
}

/* ---- split ---- */

static Status split_sizes(Elab *e, BuiltinCall *c, int64_t total, int64_t *size, int *n)
{
    ZM_TRY(need_ints(e, c, 1, MAX_SPLIT, size, n, NULL));
    if (c->arg[1].kind == VAL_INT) { /* equal parts */
        int64_t parts = size[0];
        if (parts < 1 || parts > MAX_SPLIT || total % parts) {
            elab_error(e, c->pos, E_SHAPE,
                       "%lld does not split into %lld equal parts (of at most %d)",
                       (long long)total, (long long)parts, MAX_SPLIT);
            note_args(e, c);
            return ZM_FAIL;
        }
        for (int64_t i = 0; i < parts; i++) size[i] = total / parts;
        *n = (int)parts;
    }
    int64_t sum = 0;
    for (int i = 0; i < *n; i++) {
        if (size[i] < 1 || size[i] > total - sum) {
            elab_error(e, arg_pos(c, 1), E_SHAPE,
                       "part %d of size %lld is outside of %lld elements", i, (long long)size[i],
                       (long long)total);
            return ZM_FAIL;
        }
        sum += size[i];
    }
    if (sum == total) return ZM_OK;
    elab_error(e, arg_pos(c, 1), E_SHAPE,
               "the parts have %lld elements together, the dimension has %lld", (long long)sum,
               (long long)total);
    note_args(e, c);
    return ZM_FAIL;
}

Val builtin_split(Elab *e, BuiltinCall *c)
{
    int axis, n;
    if (need_tensor(e, c, 0) != ZM_OK) return val_error();
    const Type *t = val_type(e, c->arg[0]);
    if (axis_of(e, arg_pos(c, 2), c->arg[2], t, &axis) != ZM_OK) return val_error();
    int64_t *size = ARENA_ARRAY(e->arena, int64_t, MAX_SPLIT);
    if (split_sizes(e, c, t->dim[axis], size, &n) != ZM_OK) return val_error();
    Val r = {.kind = VAL_TUPLE, .n = (uint32_t)n, .as.items = ARENA_ARRAY(e->arena, Val, n)};
    int64_t start = 0;
    for (int i = 0; i < n; i++) {
        r.as.items[i] = emit_slice_axis(e, c->pos, c->arg[0], axis, start, size[i]);
        if (r.as.items[i].kind == VAL_ERROR) return val_error();
        start += size[i];
    }
    return r;
}

/* ---- transpose, heads ---- */

static Val swap_axes(Elab *e, SrcPos pos, Val v, int a, int b)
{
    int64_t perm[ZM_MAX_RANK];
    for (int i = 0; i < ZM_MAX_RANK; i++) perm[i] = i == a ? b : i == b ? a : i;
    return emit_transpose(e, pos, v, perm);
}

Val builtin_transpose(Elab *e, BuiltinCall *c)
{
    int64_t perm[ZM_MAX_RANK];
    int n;
    if (need_tensor(e, c, 0) != ZM_OK) return val_error();
    int rank = val_type(e, c->arg[0])->rank;
    if (c->arg[1].kind == VAL_NONE) {
        if (rank < 2)
            return elab_error(e, c->pos, E_SHAPE, "transpose needs 2 dimensions, not %s",
                              elab_text(e, c->arg[0]));
        return swap_axes(e, c->pos, c->arg[0], rank - 2, rank - 1);
    }
    if (need_ints(e, c, 1, ZM_MAX_RANK, perm, &n, NULL) != ZM_OK) return val_error();
    if (n != rank)
        return elab_error(e, arg_pos(c, 1), E_ARGS, "%d entries for the %d dimensions of %s", n,
                          rank, elab_text(e, c->arg[0]));
    return emit_transpose(e, c->pos, c->arg[0], perm);
}

Val builtin_split_heads(Elab *e, BuiltinCall *c)
{
    int64_t heads, dim[ZM_MAX_RANK + 1];
    if (need_tensor(e, c, 0) != ZM_OK || need_int(e, c, 1, &heads) != ZM_OK) return val_error();
    const Type *t = val_type(e, c->arg[0]);
    if (t->rank < 2 || heads < 1 || t->dim[t->rank - 1] % heads) {
        Val r =
            elab_error(e, c->pos, E_SHAPE,
                       "%s does not split into %lld heads: the last dimension must be a multiple",
                       elab_text(e, c->arg[0]), (long long)heads);
        note_args(e, c);
        return r;
    }
    memcpy(dim, t->dim, sizeof t->dim);
    dim[t->rank - 1] = heads;
    dim[t->rank] = t->dim[t->rank - 1] / heads;
    Val r = emit_reshape(e, c->pos, c->arg[0], t->rank + 1, dim);
    return r.kind == VAL_ERROR ? r : swap_axes(e, c->pos, r, t->rank - 2, t->rank - 1);
}

Val builtin_merge_heads(Elab *e, BuiltinCall *c)
{
    if (need_tensor(e, c, 0) != ZM_OK) return val_error();
    const Type *t = val_type(e, c->arg[0]);
    int r = t->rank;
    if (r < 3)
        return elab_error(e, c->pos, E_SHAPE, "merge_heads takes [..., H, T, D], not %s",
                          elab_text(e, c->arg[0]));
    Type flat = *t;
    flat.rank = r - 1;
    flat.dim[r - 3] = t->dim[r - 2];
    flat.dim[r - 2] = t->dim[r - 3] * t->dim[r - 1];
    Val v = swap_axes(e, c->pos, c->arg[0], r - 3, r - 2);
    return v.kind == VAL_ERROR ? v : emit_reshape(e, c->pos, v, flat.rank, flat.dim);
}

Val builtin_where(Elab *e, BuiltinCall *c)
{
    if (c->arg[0].kind == VAL_BOOL) return c->arg[c->arg[0].as.i ? 1 : 2];
    return emit_select(e, c->pos, c->arg, c->ast);
}
