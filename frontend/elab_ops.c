/* elab_ops.c -- ops on tensors.  Every function asks the type rule first and turns a refusal into a
 * diagnostic, so that the builder below never meets operands that do not fit. */
#include "frontend/elab.h"

#include <math.h>
#include <string.h>

/* The same place in another instance is another location: it names the instance. */
void elab_at(Elab *e, SrcPos pos)
{
    const char *path = e->inst->path;
    uint64_t place[] = {pos.source, (uint64_t)pos.line << 32 | pos.col, pos.len,
                        (uint64_t)(uintptr_t)path};
    uint64_t key = hash_bytes(place, sizeof place, 0);
    LocId loc = {map_get(e->locs, key)};
    if (loc.i == MAP_NONE) {
        loc = loc_source(e->m, pos);
        if (*path) loc = loc_derive(e->m, loc, "instance", path);
        map_put(e->locs, key, loc.i);
    }
    e->b = (Builder){.f = e->f, .loc = loc};
}

const Type *val_type(const Elab *e, Val v)
{
    return value_type(e->f, v.tensor);
}

Status shape_check(Elab *e, SrcPos pos, int rank, const int64_t *dim)
{
    int64_t n = 1;
    if (rank > ZM_MAX_RANK) {
        elab_error(e, pos, E_LIMIT, "%d dimensions: tensors have at most %d", rank, ZM_MAX_RANK);
        return ZM_FAIL;
    }
    for (int i = 0; i < rank; i++) {
        if (dim[i] <= 0) {
            elab_error(e, pos, E_INDEX, "dimension %d would be %lld: dimensions are positive", i,
                       (long long)dim[i]);
            return ZM_FAIL;
        }
        if (__builtin_mul_overflow(n, dim[i], &n) || n > MAX_ELEMS) {
            elab_error(e, pos, E_LIMIT, "a tensor of more than 2^48 elements");
            return ZM_FAIL;
        }
    }
    return ZM_OK;
}

static Status emit_check(Elab *e, SrcPos pos, OpCode code, const ValueId *in, uint32_t n_in,
                         const AttrList *l)
{
    const Type *out[8];
    const Type **types = ARENA_ARRAY(e->arena, const Type *, n_in);
    if (e->f->ops.n > MAX_OPS) {
        if (!e->said_limit) elab_error(e, pos, E_LIMIT, "the model has more than %d ops", MAX_OPS);
        e->said_limit = true;
        return ZM_FAIL;
    }
    for (uint32_t i = 0; i < n_in; i++) types[i] = value_type(e->f, in[i]);
    Attrs attrs = l ? attrs_copy(e->m, l) : (Attrs){0};
    const char *why = op_infer(e->m, code, types, n_in, attrs, out);
    if (why) {
        elab_error(e, pos, E_TYPE, "%s: %s", op_info(code)->name, why);
        return ZM_FAIL;
    }
    for (int i = 0; i < op_info(code)->n_out; i++)
        ZM_TRY(shape_check(e, pos, out[i]->rank, out[i]->dim));
    return ZM_OK;
}

Status emit_many(Elab *e, SrcPos pos, OpCode code, const ValueId *in, uint32_t n_in,
                 const AttrList *l, ValueId *out)
{
    ZM_TRY(emit_check(e, pos, code, in, n_in, l));
    elab_at(e, pos);
    const Op *op = op_cget(e->f, build_op(&e->b, code, in, n_in, l));
    memcpy(out, op->out, op->n_out * sizeof *out);
    return ZM_OK;
}

Val emit(Elab *e, SrcPos pos, OpCode code, const ValueId *in, uint32_t n_in, const AttrList *l)
{
    ValueId out;
    ZM_CHECK(op_info(code)->n_out == 1);
    return emit_many(e, pos, code, in, n_in, l, &out) == ZM_OK ? val_tensor(out) : val_error();
}

/* ---- constants and views ---- */

Val emit_const(Elab *e, SrcPos pos, double v, DType dtype, int rank, const int64_t *dim)
{
    if (shape_check(e, pos, rank, dim) != ZM_OK) return val_error();
    AttrList l = {0};
    attr_add_float(&l, AT_VALUE, v);
    attr_add_list(&l, AT_SHAPE, dim, (uint32_t)rank);
    attr_add_int(&l, AT_DTYPE, dtype);
    return emit(e, pos, OP_CONST, NULL, 0, &l);
}

/* The same view of the items' weights: what was ignored stays so. */
static Val view(Elab *e, SrcPos pos, OpCode code, Val v, const AttrList *l)
{
    Val r = emit(e, pos, code, &v.tensor, 1, l);
    if (r.kind == VAL_TENSOR && value_ok(v.weight))
        r.weight = emit(e, pos, code, &v.weight, 1, l).tensor;
    return r;
}

static Val emit_shaped(Elab *e, SrcPos pos, OpCode code, Val v, int rank, const int64_t *dim)
{
    if (shape_check(e, pos, rank, dim) != ZM_OK) return val_error();
    const Type *t = val_type(e, v);
    if (t->rank == rank && memcmp(t->dim, dim, (size_t)rank * sizeof *dim) == 0) return v;
    AttrList l = {0};
    attr_add_list(&l, AT_SHAPE, dim, (uint32_t)rank);
    return view(e, pos, code, v, &l);
}

Val emit_broadcast(Elab *e, SrcPos pos, Val v, int rank, const int64_t *dim)
{
    return emit_shaped(e, pos, OP_BROADCAST, v, rank, dim);
}

Val emit_reshape(Elab *e, SrcPos pos, Val v, int rank, const int64_t *dim)
{
    return emit_shaped(e, pos, OP_RESHAPE, v, rank, dim);
}

Val emit_transpose(Elab *e, SrcPos pos, Val v, const int64_t *perm)
{
    AttrList l = {0};
    attr_add_list(&l, AT_PERM, perm, (uint32_t)val_type(e, v)->rank);
    return view(e, pos, OP_TRANSPOSE, v, &l);
}

Val emit_slice(Elab *e, SrcPos pos, Val v, const int64_t *start, const int64_t *size)
{
    const Type *t = val_type(e, v);
    if (memcmp(size, t->dim, (size_t)t->rank * sizeof *size) == 0) return v;
    AttrList l = {0};
    attr_add_list(&l, AT_STARTS, start, (uint32_t)t->rank);
    attr_add_list(&l, AT_SIZES, size, (uint32_t)t->rank);
    return view(e, pos, OP_SLICE, v, &l);
}

Val emit_slice_axis(Elab *e, SrcPos pos, Val v, int axis, int64_t start, int64_t size)
{
    int64_t starts[ZM_MAX_RANK] = {0}, sizes[ZM_MAX_RANK];
    const Type *t = val_type(e, v);
    memcpy(sizes, t->dim, sizeof sizes);
    starts[axis] = start;
    sizes[axis] = size;
    return emit_slice(e, pos, v, starts, sizes);
}

Val emit_cast(Elab *e, SrcPos pos, Val v, DType dtype)
{
    if (val_type(e, v)->dtype == dtype) return v;
    AttrList l = {0};
    attr_add_int(&l, AT_DTYPE, dtype);
    return emit(e, pos, OP_CAST, &v.tensor, 1, &l);
}

/* ---- operands of element-wise ops ---- */

static Status number_fits(Elab *e, SrcPos pos, Val v, DType dtype)
{
    bool fits = dtype_class(dtype) == DTC_FLOAT ? val_is_number(v)
                : dtype == DT_I32 ? v.kind == VAL_INT && v.as.i >= INT32_MIN && v.as.i <= INT32_MAX
                                  : v.kind == VAL_BOOL;
    if (fits) return ZM_OK;
    elab_error(e, pos, E_TYPE, "%s does not fit among %s values", elab_text(e, v),
               dtype_name(dtype));
    if (dtype == DT_I32 && val_is_number(v)) elab_help(e, "convert the int tensor: float(x)");
    return ZM_FAIL;
}

Status val_to_tensor(Elab *e, SrcPos pos, Val v, DType dtype, Val *out)
{
    *out = v;
    if (v.kind == VAL_TENSOR) return ZM_OK;
    if (v.kind == VAL_ERROR) return ZM_FAIL;
    if (!val_is_number(v) && v.kind != VAL_BOOL) {
        elab_error(e, pos, E_TYPE, "a tensor is needed here, not %s", val_kind_text(v));
        return ZM_FAIL;
    }
    ZM_TRY(number_fits(e, pos, v, dtype));
    *out = emit_const(e, pos, val_real_of(v), dtype, 0, NULL);
    return out->kind == VAL_TENSOR ? ZM_OK : ZM_FAIL;
}

static SrcPos operand_pos(SrcPos pos, const Ast *const *ast, uint32_t i)
{
    return ast && ast[i] ? ast[i]->pos : pos;
}

static void note_operands(Elab *e, const Val *v, const Ast *const *ast, uint32_t n)
{
    for (uint32_t i = 0; ast && i < n; i++) elab_note_operand(e, ast[i], v[i]);
}

/* The dtype of the tensors among v; F32 (or I1 for bools) when there is none. */
static Status join_dtypes(Elab *e, SrcPos pos, const Val *v, const Ast *const *ast, uint32_t n,
                          const char *what, DType *dtype)
{
    *dtype = DT_NONE;
    for (uint32_t i = 0; i < n; i++) {
        if (v[i].kind != VAL_TENSOR) continue;
        DType dt = val_type(e, v[i])->dtype;
        if (*dtype == DT_NONE) *dtype = dt;
        if (*dtype == dt) continue;
        elab_error(e, pos, E_TYPE, "the operands of %s are %s and %s", what, dtype_name(*dtype),
                   dtype_name(dt));
        note_operands(e, v, ast, n);
        elab_help(e, "convert one of them with float(x) or int(x)");
        return ZM_FAIL;
    }
    if (*dtype == DT_NONE) *dtype = v[0].kind == VAL_BOOL ? DT_I1 : DT_F32;
    return ZM_OK;
}

/* Numpy's rule: align at the last dimension; 1 repeats. */
static bool join_shape(const Type *t, int *rank, int64_t *dim)
{
    if (t->rank > *rank) {
        int lead = t->rank - *rank;
        memmove(dim + lead, dim, (size_t)*rank * sizeof *dim);
        for (int i = 0; i < lead; i++) dim[i] = 1;
        *rank = t->rank;
    }
    int64_t *at = dim + (*rank - t->rank);
    for (int i = 0; i < t->rank; i++) {
        if (at[i] != t->dim[i] && at[i] != 1 && t->dim[i] != 1) return false;
        if (at[i] == 1) at[i] = t->dim[i];
    }
    return true;
}

/* Operands of an element-wise op: numbers to tensors, one dtype, shapes broadcast. */
static Status operands_join(Elab *e, SrcPos pos, Val *v, const Ast *const *ast, uint32_t n,
                            const char *what)
{
    DType dtype;
    int rank = 0;
    int64_t dim[ZM_MAX_RANK] = {0};
    ZM_TRY(join_dtypes(e, pos, v, ast, n, what, &dtype));
    for (uint32_t i = 0; i < n; i++) {
        if (v[i].kind != VAL_TENSOR || join_shape(val_type(e, v[i]), &rank, dim)) continue;
        uint32_t k = 0;
        while (k + 1 < i && v[k].kind != VAL_TENSOR) k++;
        elab_error(e, pos, E_SHAPE, "the shapes of %s do not fit together: %s and %s", what,
                   elab_text(e, v[k]), elab_text(e, v[i]));
        note_operands(e, v, ast, n);
        return ZM_FAIL;
    }
    for (uint32_t i = 0; i < n; i++) {
        Val wide;
        if (v[i].kind == VAL_TENSOR)
            wide = emit_broadcast(e, pos, v[i], rank, dim);
        else if (number_fits(e, operand_pos(pos, ast, i), v[i], dtype) == ZM_OK)
            wide = emit_const(e, operand_pos(pos, ast, i), val_real_of(v[i]), dtype, rank, dim);
        else
            return ZM_FAIL;
        if (wide.kind == VAL_ERROR) return ZM_FAIL;
        v[i] = wide;
    }
    return ZM_OK;
}

/* A result of loss items counts where all of its operands' items count. */
static ValueId join_weights(Elab *e, const Val *v, uint32_t n)
{
    ValueId w = {0};
    for (uint32_t i = 0; i < n; i++) {
        if (!value_ok(v[i].weight) || v[i].weight.i == w.i) continue;
        w = value_ok(w) ? build_binary(&e->b, OP_MUL, w, v[i].weight) : v[i].weight;
    }
    return w;
}

Val emit_point(Elab *e, SrcPos pos, OpCode code, Val *v, const Ast *const *ast, uint32_t n,
               const char *what)
{
    ValueId in[4];
    if (operands_join(e, pos, v, ast, n, what) != ZM_OK) return val_error();
    for (uint32_t i = 0; i < n; i++) in[i] = v[i].tensor;
    Val r = emit(e, pos, code, in, n, NULL);
    if (r.kind == VAL_TENSOR)
        r.weight = join_weights(e, v, n);
    else
        note_operands(e, v, ast, n);
    return r;
}

Val emit_select(Elab *e, SrcPos pos, const Val *v, const Ast *const *ast)
{
    Val cond = v[0], choice[] = {v[1], v[2]};
    int rank = 0;
    int64_t dim[ZM_MAX_RANK] = {0};
    if (cond.kind != VAL_TENSOR || val_type(e, cond)->dtype != DT_I1)
        return elab_error(e, operand_pos(pos, ast, 0), E_TYPE,
                          "the condition must be a tensor of bool, not %s", elab_text(e, cond));
    if (choice[0].kind == VAL_INT &&
        choice[1].kind == VAL_INT && /* two integers make an int tensor */
        val_to_tensor(e, pos, choice[0], DT_I32, &choice[0]) != ZM_OK)
        return val_error();
    if (operands_join(e, pos, choice, ast + 1, 2, "where") != ZM_OK) return val_error();
    if (!join_shape(val_type(e, choice[0]), &rank, dim) ||
        !join_shape(val_type(e, cond), &rank, dim)) {
        Val r = elab_error(e, pos, E_SHAPE, "the shapes of where do not fit together: %s and %s",
                           elab_text(e, cond), elab_text(e, choice[0]));
        note_operands(e, v, ast, 3);
        return r;
    }
    Val all[] = {cond, choice[0], choice[1]};
    ValueId in[3];
    for (int i = 0; i < 3; i++) {
        all[i] = emit_broadcast(e, pos, all[i], rank, dim);
        if (all[i].kind == VAL_ERROR) return val_error();
        in[i] = all[i].tensor;
    }
    return emit(e, pos, OP_SELECT, in, 3, NULL);
}

/* ---- matrix product ---- */

/* y when v is transpose(y) of the last two dimensions. */
static ValueId transpose_source(const Func *f, ValueId v)
{
    const Value *value = value_cget(f, v);
    if (!op_ok(value->def)) return (ValueId){0};
    const Op *op = op_cget(f, value->def);
    if (op->code != OP_TRANSPOSE) return (ValueId){0};
    const Attr *perm = attrs_find(op->attrs, AT_PERM);
    int64_t rank = perm->as.list.n;
    for (int64_t i = 0; i < rank; i++) {
        int64_t want = i == rank - 1 ? rank - 2 : i == rank - 2 ? rank - 1 : i;
        if (perm->as.list.at[i] != want) return (ValueId){0};
    }
    return op->in[0];
}

/* Repeats the leading dimensions of both so that they are equal. */
static Status matmul_lead(Elab *e, const Ast *ast, Val *a, Val *b)
{
    const Type *ta = val_type(e, *a), *tb = val_type(e, *b);
    int rank = 0;
    int64_t dim[ZM_MAX_RANK + 2] = {0};
    Type lead_a = *ta, lead_b = *tb;
    lead_a.rank -= 2;
    lead_b.rank -= 2;
    if (!join_shape(&lead_a, &rank, dim) || !join_shape(&lead_b, &rank, dim)) {
        elab_error(e, ast->pos, E_SHAPE,
                   "the leading dimensions of '@' do not fit together: %s and %s", elab_text(e, *a),
                   elab_text(e, *b));
        note_operands(e, (Val[]){*a, *b}, (const Ast *const *)ast->kid, 2);
        return ZM_FAIL;
    }
    memcpy(dim + rank, ta->dim + ta->rank - 2, 2 * sizeof *dim);
    *a = emit_broadcast(e, ast->pos, *a, rank + 2, dim);
    memcpy(dim + rank, tb->dim + tb->rank - 2, 2 * sizeof *dim);
    *b = emit_broadcast(e, ast->pos, *b, rank + 2, dim);
    return a->kind == VAL_TENSOR && b->kind == VAL_TENSOR ? ZM_OK : ZM_FAIL;
}

static Status matmul_check(Elab *e, const Ast *ast, Val a, Val b)
{
    const Ast *const *kid = (const Ast *const *)ast->kid;
    Val v[] = {a, b};
    if (a.kind != VAL_TENSOR || b.kind != VAL_TENSOR) {
        elab_error(e, ast->pos, E_TYPE, "'@' multiplies tensors, not %s and %s", val_kind_text(a),
                   val_kind_text(b));
        return ZM_FAIL;
    }
    const Type *ta = val_type(e, a), *tb = val_type(e, b);
    if (ta->rank < 2 || tb->rank < 2 || ta->dtype != DT_F32 || tb->dtype != DT_F32) {
        elab_error(e, ast->pos, E_TYPE,
                   "'@' multiplies float tensors of 2 or more dimensions, not %s and %s",
                   elab_text(e, a), elab_text(e, b));
        note_operands(e, v, kid, 2);
        return ZM_FAIL;
    }
    int64_t ka = ta->dim[ta->rank - 1], kb = tb->dim[tb->rank - 2];
    if (ka == kb) return ZM_OK;
    elab_error(e, ast->pos, E_SHAPE, "matmul inner dimensions differ: %lld and %lld", (long long)ka,
               (long long)kb);
    note_operands(e, v, kid, 2);
    if (ka == tb->dim[tb->rank - 1])
        elab_help(e, "transpose one operand: transpose(%s)",
                  kid[1]->kind == AST_NAME ? kid[1]->text : "...");
    return ZM_FAIL;
}

static Val emit_matmul(Elab *e, const Ast *ast, Val a, Val b)
{
    if (matmul_check(e, ast, a, b) != ZM_OK) return val_error();
    if (val_type(e, b)->rank > 2 && matmul_lead(e, ast, &a, &b) != ZM_OK) return val_error();
    /* trans_a is defined beside a matrix on the right only when the left is one, too (ops.def). */
    bool may_fold_a = val_type(e, a)->rank == 2 || val_type(e, b)->rank > 2;
    ValueId fold_a = may_fold_a ? transpose_source(e->f, a.tensor) : (ValueId){0};
    ValueId fold_b = transpose_source(e->f, b.tensor);
    ValueId in[] = {value_ok(fold_a) ? fold_a : a.tensor, value_ok(fold_b) ? fold_b : b.tensor};
    AttrList l = {0};
    if (value_ok(fold_a)) attr_add_int(&l, AT_TRANS_A, 1);
    if (value_ok(fold_b)) attr_add_int(&l, AT_TRANS_B, 1);
    return emit(e, ast->pos, OP_MATMUL, in, 2, &l);
}

/* ---- operators ---- */

static Val one_like(Elab *e, SrcPos pos, Val v)
{
    const Type *t = val_type(e, v);
    return emit_const(e, pos, 1, t->dtype, t->rank, t->dim);
}

/* x ** n by repeated squaring, n > 0. */
static Val emit_power(Elab *e, const Ast *ast, Val x, int64_t n)
{
    Val r = val_none();
    for (Val square = x;; n /= 2) {
        if (n % 2) {
            Val both[] = {r, square};
            r = r.kind == VAL_NONE ? square
                                   : emit_point(e, ast->pos, OP_MUL, both, NULL, 2, "'**'");
        }
        if (n < 2 || r.kind == VAL_ERROR) return r;
        Val twice[] = {square, square};
        square = emit_point(e, ast->pos, OP_MUL, twice, NULL, 2, "'**'");
        if (square.kind == VAL_ERROR) return square;
    }
}

static Val emit_pow(Elab *e, const Ast *ast, Val a, Val b)
{
    bool is_float = a.kind == VAL_TENSOR && dtype_class(val_type(e, a)->dtype) == DTC_FLOAT;
    double n = val_is_number(b) ? val_real_of(b) : 0.25;
    /* Whole powers are products: op pow is for bases above 0. */
    if (a.kind == VAL_TENSOR && n >= (is_float ? -INT32_MAX : 0) && n <= INT32_MAX &&
        n == trunc(n)) {
        if (n == 0) return one_like(e, ast->pos, a);
        Val r = emit_power(e, ast, a, n < 0 ? (int64_t)-n : (int64_t)n);
        if (n > 0 || r.kind == VAL_ERROR) return r;
        Val inverse[] = {val_int(1), r};
        return emit_point(e, ast->pos, OP_DIV, inverse, NULL, 2, "'**'");
    }
    const Ast *base = ast->kid[0];
    if (is_float && n == 0.5) return emit_point(e, ast->pos, OP_SQRT, &a, &base, 1, "'**'");
    if (is_float && n == -0.5) return emit_point(e, ast->pos, OP_RSQRT, &a, &base, 1, "'**'");
    Val v[] = {a, b};
    return emit_point(e, ast->pos, OP_POW, v, (const Ast *const *)ast->kid, 2, "'**'");
}

static const OpCode operator_codes[] = {
#define OPERATOR(ID, TEXT, CODE) OP_##CODE,
#include "frontend/operators.def"
#undef OPERATOR
};
_Static_assert(sizeof operator_codes / sizeof *operator_codes == N_OPR, "one op per operator");

Val emit_binary(Elab *e, const Ast *ast, Operator opr, Val a, Val b)
{
    const char *what = arena_printf(e->arena, "'%s'", operator_text(opr));
    OpCode code = operator_codes[opr];
    if (opr == OPR_MATMUL) return emit_matmul(e, ast, a, b);
    if (opr == OPR_POW) return emit_pow(e, ast, a, b);
    if (code == OP_NONE)
        return elab_error(e, ast->pos, E_TYPE, "%s takes numbers, not tensors", what);
    Val v[] = {a, b};
    return emit_point(e, ast->pos, code, v, (const Ast *const *)ast->kid, 2, what);
}
