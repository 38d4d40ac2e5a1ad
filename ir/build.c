/* build.c -- reading, building and changing functions (ir.h). */
#include "ir/ir.h"

#include <string.h>

Op *op_get(Func *f, OpId id)
{
    ZM_CHECK(id.i > 0 && id.i < f->ops.n);
    return &f->ops.at[id.i];
}

const Op *op_cget(const Func *f, OpId id)
{
    ZM_CHECK(id.i > 0 && id.i < f->ops.n);
    return &f->ops.at[id.i];
}

Value *value_get(Func *f, ValueId id)
{
    ZM_CHECK(id.i > 0 && id.i < f->values.n);
    return &f->values.at[id.i];
}

const Value *value_cget(const Func *f, ValueId id)
{
    ZM_CHECK(id.i > 0 && id.i < f->values.n);
    return &f->values.at[id.i];
}

const Type *value_type(const Func *f, ValueId id)
{
    return value_cget(f, id)->type;
}

uint32_t func_n_ops(const Func *f)
{
    uint32_t n = 0;
    FOR_OPS(f, op) n++;
    return n;
}

Uses func_uses(Arena *scratch, const Func *f)
{
    Uses u = {.start = ARENA_ARRAY(scratch, uint32_t, f->values.n + 2)};
    uint32_t total = 0;
    FOR_OPS(f, op)
    {
        const Op *o = op_cget(f, op);
        for (uint32_t i = 0; i < o->n_in; i++) u.start[o->in[i].i + 1]++;
        total += o->n_in;
    }
    for (uint32_t v = 0; v <= f->values.n; v++) u.start[v + 1] += u.start[v];
    u.user = ARENA_ARRAY(scratch, OpId, total + 1);
    uint32_t *fill = ARENA_ARRAY(scratch, uint32_t, f->values.n + 1);
    FOR_OPS(f, op)
    {
        const Op *o = op_cget(f, op);
        for (uint32_t i = 0; i < o->n_in; i++) {
            uint32_t v = o->in[i].i;
            u.user[u.start[v] + fill[v]++] = op;
        }
    }
    return u;
}

uint32_t *func_positions(Arena *scratch, const Func *f)
{
    uint32_t *pos = ARENA_ARRAY(scratch, uint32_t, f->ops.n);
    uint32_t n = 0;
    FOR_OPS(f, op) pos[op.i] = n++;
    return pos;
}

/* ---- linking ---- */

static void op_link(Func *f, OpId op, OpId before)
{
    Op *o = op_get(f, op);
    o->next = before;
    o->prev = op_ok(before) ? op_get(f, before)->prev : f->last;
    if (op_ok(o->prev))
        op_get(f, o->prev)->next = op;
    else
        f->first = op;
    if (op_ok(before))
        op_get(f, before)->prev = op;
    else
        f->last = op;
}

static void op_unlink(Func *f, OpId op)
{
    Op *o = op_get(f, op);
    if (op_ok(o->prev))
        op_get(f, o->prev)->next = o->next;
    else
        f->first = o->next;
    if (op_ok(o->next))
        op_get(f, o->next)->prev = o->prev;
    else
        f->last = o->prev;
    o->prev = o->next = (OpId){0};
}

void op_erase(Func *f, OpId op)
{
    op_unlink(f, op);
    op_get(f, op)->code = OP_NONE;
    op_get(f, op)->n_in = 0;
}

void op_move_before(Func *f, OpId op, OpId before)
{
    if (op.i == before.i) return;
    op_unlink(f, op);
    op_link(f, op, before);
}

void op_set_operand(Func *f, OpId op, uint32_t i, ValueId v)
{
    ZM_CHECK(i < op_get(f, op)->n_in);
    op_get(f, op)->in[i] = v;
}

void func_replace_uses(Func *f, ValueId old, ValueId with)
{
    FOR_OPS(f, op)
    {
        Op *o = op_get(f, op);
        for (uint32_t i = 0; i < o->n_in; i++)
            if (o->in[i].i == old.i) o->in[i] = with;
    }
}

/* ---- building ---- */

/* A new op without results; n_out results are made by the caller's types. */
static OpId op_add(Builder *b, OpCode code, const ValueId *in, uint32_t n_in, Attrs attrs,
                   uint32_t n_out, const Type *const *out)
{
    Func *f = b->f;
    Arena *a = f->m->arena;
    ZM_CHECK(loc_ok(b->loc));
    Op op = {.code = code, .loc = b->loc, .n_in = n_in, .n_out = n_out, .attrs = attrs};
    op.in = ARENA_ARRAY(a, ValueId, n_in);
    op.out = ARENA_ARRAY(a, ValueId, n_out);
    if (n_in) memcpy(op.in, in, n_in * sizeof *in);
    OpId id = {f->ops.n};
    for (uint32_t i = 0; i < n_out; i++) {
        Value v = {.type = out[i], .def = id, .index = i};
        VEC_PUSH(a, &f->values, v);
        op.out[i] = (ValueId){f->values.n - 1};
    }
    VEC_PUSH(a, &f->ops, op);
    op_link(f, id, b->before);
    return id;
}

enum { MAX_SMALL_OUT = 8 };

OpId build_op(Builder *b, OpCode code, const ValueId *in, uint32_t n_in, const AttrList *l)
{
    Module *m = b->f->m;
    const Type *small[16];
    const Type **types = n_in <= 16 ? small : ARENA_ARRAY(m->arena, const Type *, n_in);
    for (uint32_t i = 0; i < n_in; i++) types[i] = value_type(b->f, in[i]);
    Attrs attrs = l ? attrs_copy(m, l) : (Attrs){0};
    const Type *out[MAX_SMALL_OUT];
    const char *why = op_infer(m, code, types, n_in, attrs, out);
    if (why) {
        fprintf(stderr, "zmc: %s: %s\n", op_info(code)->name, why);
        ZM_CHECK(!why);
    }
    return op_add(b, code, in, n_in, attrs, (uint32_t)op_info(code)->n_out, out);
}

OpId build_fused(Builder *b, const char *kind, const ValueId *in, uint32_t n_in, Func *body)
{
    const Op *ret = op_cget(body, body->last);
    ZM_CHECK(ret->code == OP_RETURN && body->params.n == n_in);
    AttrList l = {0};
    attr_add_str(&l, AT_KIND, kind);
    const Type **out = ARENA_ARRAY(b->f->m->arena, const Type *, ret->n_in);
    for (uint32_t i = 0; i < ret->n_in; i++) out[i] = value_type(body, ret->in[i]);
    OpId id = op_add(b, OP_FUSED, in, n_in, attrs_copy(b->f->m, &l), ret->n_in, out);
    op_get(b->f, id)->body = body;
    return id;
}

ValueId build1(Builder *b, OpCode code, const ValueId *in, uint32_t n_in, const AttrList *l)
{
    OpId op = build_op(b, code, in, n_in, l);
    ZM_CHECK(op_cget(b->f, op)->n_out == 1);
    return op_cget(b->f, op)->out[0];
}

ValueId build_unary(Builder *b, OpCode code, ValueId a)
{
    return build1(b, code, &a, 1, NULL);
}

ValueId build_binary(Builder *b, OpCode code, ValueId a, ValueId c)
{
    const Type *ta = value_type(b->f, a);
    const Type *tc = value_type(b->f, c);
    if (ta->rank == 0)
        a = build_broadcast(b, a, tc);
    else if (tc->rank == 0)
        c = build_broadcast(b, c, ta);
    ValueId in[] = {a, c};
    return build1(b, code, in, 2, NULL);
}

ValueId build_select(Builder *b, ValueId cond, ValueId yes, ValueId no)
{
    ValueId v[] = {cond, yes, no};
    const Type *shape = value_type(b->f, cond);
    for (int i = 1; i < 3; i++)
        if (value_type(b->f, v[i])->rank > shape->rank) shape = value_type(b->f, v[i]);
    for (int i = 0; i < 3; i++)
        if (value_type(b->f, v[i])->rank == 0) v[i] = build_broadcast(b, v[i], shape);
    return build1(b, OP_SELECT, v, 3, NULL);
}

ValueId build_splat(Builder *b, double v, const Type *t)
{
    AttrList l = {0};
    attr_add_float(&l, AT_VALUE, v);
    attr_add_type(&l, t);
    attr_add_int(&l, AT_DTYPE, t->dtype);
    return build1(b, OP_CONST, NULL, 0, &l);
}

ValueId build_const(Builder *b, double v, DType dtype)
{
    return build_splat(b, v, type_get(b->f->m, dtype, 0, NULL));
}

ValueId build_cast(Builder *b, ValueId a, DType dtype)
{
    if (value_type(b->f, a)->dtype == dtype) return a;
    AttrList l = {0};
    attr_add_int(&l, AT_DTYPE, dtype);
    return build1(b, OP_CAST, &a, 1, &l);
}

ValueId build_broadcast(Builder *b, ValueId a, const Type *shape)
{
    const Type *t = value_type(b->f, a);
    /* A partial sum stays one, and only one does. */
    if (shape->partial != t->partial) shape = type_placed(b->f->m, shape, shape->axis, t->partial);
    if (type_same_shape(t, shape) && type_same_placing(t, shape)) return a;
    AttrList l = {0};
    attr_add_type(&l, shape);
    return build1(b, OP_BROADCAST, &a, 1, &l);
}

/* The type of a reshaped to dims where a's type does not say where the result is sharded. */
static const Type *reshaped(Builder *b, ValueId a, int rank, const int64_t *dims)
{
    const Type *in = value_type(b->f, a), *out;
    AttrList l = {0};
    attr_add_list(&l, AT_SHAPE, dims, (uint32_t)rank);
    const char *why = op_infer(b->f->m, OP_RESHAPE, &in, 1, (Attrs){l.at, l.n}, &out);
    ZM_CHECK(!why);
    return out;
}

ValueId build_reshape(Builder *b, ValueId a, int rank, const int64_t *dims)
{
    return build_reshape_to(b, a, reshaped(b, a, rank, dims));
}

ValueId build_reshape_to(Builder *b, ValueId a, const Type *shape)
{
    const Type *t = value_type(b->f, a);
    if (type_same_shape(t, shape) && memcmp(t->axis, shape->axis, sizeof t->axis) == 0) return a;
    AttrList l = {0};
    attr_add_type(&l, type_placed(b->f->m, shape, shape->axis, t->partial));
    return build1(b, OP_RESHAPE, &a, 1, &l);
}

ValueId build_transpose(Builder *b, ValueId a, const int64_t *perm)
{
    AttrList l = {0};
    attr_add_list(&l, AT_PERM, perm, (uint32_t)value_type(b->f, a)->rank);
    return build1(b, OP_TRANSPOSE, &a, 1, &l);
}

static ValueId build_two_lists(Builder *b, OpCode code, ValueId a, AttrKey k1, const int64_t *v1,
                               AttrKey k2, const int64_t *v2)
{
    uint32_t rank = (uint32_t)value_type(b->f, a)->rank;
    AttrList l = {0};
    attr_add_list(&l, k1, v1, rank);
    attr_add_list(&l, k2, v2, rank);
    return build1(b, code, &a, 1, &l);
}

ValueId build_slice(Builder *b, ValueId a, const int64_t *starts, const int64_t *sizes)
{
    return build_two_lists(b, OP_SLICE, a, AT_STARTS, starts, AT_SIZES, sizes);
}

ValueId build_pad(Builder *b, ValueId a, const int64_t *low, const int64_t *high)
{
    return build_two_lists(b, OP_PAD, a, AT_LOW, low, AT_HIGH, high);
}

ValueId build_reduce(Builder *b, OpCode code, ValueId a, const int64_t *dims, uint32_t n_dims)
{
    if (n_dims == 0) return a;
    AttrList l = {0};
    attr_add_list(&l, AT_DIMS, dims, n_dims);
    return build1(b, code, &a, 1, &l);
}

ValueId build_reduce_keep(Builder *b, OpCode code, ValueId a, const int64_t *dims, uint32_t n_dims)
{
    Type t = *value_type(b->f, a);
    for (uint32_t i = 0; i < n_dims; i++) {
        t.dim[dims[i]] = 1;
        t.axis[dims[i]] = MESH_NONE;
    }
    return build_reshape_to(b, build_reduce(b, code, a, dims, n_dims), &t);
}

ValueId build_matmul(Builder *b, ValueId x, ValueId y, bool trans_a, bool trans_b)
{
    AttrList l = {0};
    if (trans_a) attr_add_int(&l, AT_TRANS_A, 1);
    if (trans_b) attr_add_int(&l, AT_TRANS_B, 1);
    ValueId in[] = {x, y};
    return build1(b, OP_MATMUL, in, 2, &l);
}

static void attr_add_var(AttrList *l, const Module *m, VarId v)
{
    attr_add_str(l, AT_VAR, var_cget(m, v)->name);
}

ValueId build_read(Builder *b, VarId v)
{
    AttrList l = {0};
    attr_add_var(&l, b->f->m, v);
    return build1(b, OP_READ, NULL, 0, &l);
}

OpId build_write(Builder *b, VarId v, ValueId x)
{
    AttrList l = {0};
    attr_add_var(&l, b->f->m, v);
    return build_op(b, OP_WRITE, &x, 1, &l);
}

OpId build_return(Builder *b, const ValueId *in, uint32_t n_in, const char *names)
{
    AttrList l = {0};
    if (names) attr_add_str(&l, AT_NAMES, names);
    return build_op(b, OP_RETURN, in, n_in, &l);
}

/* ---- copying ---- */

OpId op_copy(Builder *b, const Func *from, OpId op, ValueId *map)
{
    Op src = *op_cget(from, op); /* by value: b may grow the same function */
    Arena *a = b->f->m->arena;
    ValueId *in = ARENA_ARRAY(a, ValueId, src.n_in);
    const Type **out = ARENA_ARRAY(a, const Type *, src.n_out);
    for (uint32_t i = 0; i < src.n_in; i++)
        in[i] = value_ok(map[src.in[i].i]) ? map[src.in[i].i] : src.in[i];
    for (uint32_t i = 0; i < src.n_out; i++) out[i] = value_type(from, src.out[i]);
    OpId id = op_add(b, src.code, in, src.n_in, src.attrs, src.n_out, out);
    op_get(b->f, id)->loc = src.loc;
    if (src.body) op_get(b->f, id)->body = func_clone(b->f->m, src.body, "");
    for (uint32_t i = 0; i < src.n_out; i++) {
        map[src.out[i].i] = op_cget(b->f, id)->out[i];
        value_get(b->f, map[src.out[i].i])->name = value_cget(from, src.out[i])->name;
    }
    return id;
}

Func *func_clone(Module *m, const Func *f, const char *name)
{
    Func *g = func_new(m, name);
    ValueId *map = ARENA_ARRAY(m->arena, ValueId, f->values.n);
    for (uint32_t i = 0; i < f->params.n; i++) {
        const Value *v = value_cget(f, f->params.at[i]);
        map[f->params.at[i].i] = func_param(g, v->name, v->type);
    }
    FOR_OPS(f, op)
    {
        Builder b = {.f = g, .loc = op_cget(f, op)->loc};
        op_copy(&b, f, op, map);
    }
    return g;
}
