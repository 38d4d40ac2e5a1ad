/* random_values.h -- random_ir.h's state: draws of types, numbers and names, and the values that
 * ops may use. */
#ifndef ZM_TESTS_RANDOM_VALUES_H
#define ZM_TESTS_RANDOM_VALUES_H

#include <string.h>

#include "ir/ir.h"

typedef struct RandomIr {
    Module *m;
    Func *f;
    Builder b;
    uint64_t state;
    bool is_unfused;    /* no fused ops and workspaces: IR before pass fuse */
    bool is_body;       /* of a fused op: only pure primitive ops */
    VEC(ValueId) pool;  /* values that may be used */
    VEC(bool) is_stale; /* by ValueId.i: stands for bytes of a variable that were written since */
    VEC(bool) is_read;  /* by ValueId.i: stands for bytes of a variable */
} RandomIr;

static uint32_t draw(RandomIr *g, uint32_t n)
{
    g->state = g->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(g->state >> 33) % n;
}

static bool coin(RandomIr *g)
{
    return draw(g, 2);
}

static DType draw_float(RandomIr *g)
{
    static const DType floats[] = {DT_F32, DT_F32, DT_BF16, DT_F16, DT_F64};
    return floats[draw(g, 5)];
}

static DType draw_dtype(RandomIr *g)
{
    return (DType)(1 + draw(g, N_DTYPE - 1));
}

static void draw_dims(RandomIr *g, int rank, int64_t *dim)
{
    static const int64_t sizes[] = {1, 2, 3, 5};
    for (int i = 0; i < rank; i++) dim[i] = sizes[draw(g, rank > 3 ? 2 : 4)];
}

static const Type *draw_type(RandomIr *g, DType dt, int min_rank, int max_rank)
{
    int64_t dim[ZM_MAX_RANK];
    int rank = min_rank + (int)draw(g, (uint32_t)(max_rank - min_rank + 1));
    draw_dims(g, rank, dim);
    return type_get(g->m, dt, rank, dim);
}

static const Type *of_dims(RandomIr *g, DType dt, int rank, const int64_t *dim)
{
    return type_get(g->m, dt, rank, dim);
}

#define OF(DT, ...)                                                                                \
    of_dims(g, (DT), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                    \
            (int64_t[]){__VA_ARGS__})

static double draw_number(RandomIr *g)
{
    static const double special[] = {0, -1, 1e-5, 0.1, 65504, -3e38};
    return coin(g) ? special[draw(g, 6)] : ((double)draw(g, 2001) - 1000) / 256;
}

static const char *draw_name(RandomIr *g)
{
    static const char *const names[] = {"x",     "y",  "h.0.w", "odd name", "quo\"te",
                                        "tab\t", "12", "%3",    ""};
    return names[draw(g, sizeof names / sizeof *names)];
}

/* ---- values ---- */

static bool flag(const RandomIr *g, ValueId v, bool want_stale)
{
    return want_stale ? v.i < g->is_stale.n && g->is_stale.at[v.i]
                      : v.i < g->is_read.n && g->is_read.at[v.i];
}

static void grow_flags(RandomIr *g)
{
    while (g->is_read.n < g->f->values.n) VEC_PUSH(g->m->arena, &g->is_read, false);
    while (g->is_stale.n < g->f->values.n) VEC_PUSH(g->m->arena, &g->is_stale, false);
}

static ValueId value_of(RandomIr *g, const Type *t)
{
    for (int tries = 0; tries < 8 && g->pool.n; tries++) {
        ValueId v = g->pool.at[draw(g, g->pool.n)];
        if (value_type(g->f, v) == t && !flag(g, v, true)) return v;
    }
    ValueId v = func_param(g->f, NULL, t);
    value_get(g->f, v)->name = module_str(g->m, arena_printf(g->m->arena, "p%u", g->f->params.n));
    VEC_PUSH(g->m->arena, &g->pool, v);
    return v;
}

static ValueId any_value(RandomIr *g, DType dt, int min_rank, int max_rank)
{
    for (int tries = 0; tries < 8 && g->pool.n; tries++) {
        ValueId v = g->pool.at[draw(g, g->pool.n)];
        const Type *t = value_type(g->f, v);
        if (t->dtype == dt && t->rank >= min_rank && t->rank <= max_rank && type_elems(t) <= 300 &&
            !flag(g, v, true))
            return v;
    }
    return value_of(g, draw_type(g, dt, min_rank, max_rank));
}

static Place draw_place(RandomIr *g, const Type *t)
{
    static const char *const cats[] = {"activations", "grads", "odd cat"};
    if (draw(g, 3)) return (Place){0};
    int32_t from = (int32_t)draw(g, 50) - 1;
    return (Place){64 * (int64_t)draw(g, 1000), type_bytes(t), from, from + (int32_t)draw(g, 9),
                   module_str(g->m, cats[draw(g, 3)])};
}

static LocId draw_loc(RandomIr *g)
{
    if (coin(g) && g->m->locs.n > 4)
        return loc_derive(g->m, (LocId){1 + draw(g, g->m->locs.n - 1)},
                          coin(g) ? "autodiff" : "cse", "gradient of \"x\"");
    return loc_source(g->m, (SrcPos){0, 1 + draw(g, 99), 1 + draw(g, 70), draw(g, 9)});
}

/* Adds the op and puts its results into the pool. */
static OpId emit(RandomIr *g, OpCode code, const ValueId *in, uint32_t n, const AttrList *l)
{
    bool from_read = code == OP_READ;
    for (uint32_t i = 0; i < n && op_info(code)->lower_kind == LK_VIEW; i++)
        from_read = from_read || flag(g, in[i], false);
    g->b.loc = draw_loc(g);
    OpId op = build_op(&g->b, code, in, n, l);
    grow_flags(g);
    for (uint32_t i = 0; i < op_cget(g->f, op)->n_out; i++) {
        ValueId v = op_cget(g->f, op)->out[i];
        Value *val = value_get(g->f, v);
        if (!draw(g, 3)) val->name = module_str(g->m, draw_name(g));
        val->place = draw_place(g, val->type);
        g->is_read.at[v.i] = from_read;
        VEC_PUSH(g->m->arena, &g->pool, v);
    }
    return op;
}

static void emit_unary(RandomIr *g, OpCode code, ValueId v, const AttrList *l)
{
    emit(g, code, &v, 1, l);
}

#endif
