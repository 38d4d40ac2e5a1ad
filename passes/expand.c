/* expand.c -- writes composite ops out as primitive ones: an op whose LOWER column is a scalar
 * expression by that text, any other by its expand_<ID> (expand.h).  The result may contain
 * composite ops again; the walk goes back over new ops until only primitives are left.  16-bit
 * operands are widened, the result is rounded once.  So is scatter_add into 16 bits, though it is a
 * primitive op. */
#include "passes/expand.h"

#include "ir/scalar.h"
#include "passes/value_map.h"

#define EXPAND_PICK_EXPAND(ID) expand_##ID
#define EXPAND_PICK_NONE(ID) NULL
#define EXPAND_PICK_POINT EXPAND_PICK_NONE
#define EXPAND_PICK_NEST EXPAND_PICK_NONE
#define EXPAND_PICK_CONTRACT EXPAND_PICK_NONE
#define EXPAND_PICK_ATTENTION EXPAND_PICK_NONE
#define EXPAND_PICK_SCATTER EXPAND_PICK_NONE
#define EXPAND_PICK_VIEW EXPAND_PICK_NONE
#define EXPAND_PICK_HOST EXPAND_PICK_NONE

static ExpandFn *const expand_table[N_OP] = {
#define LOWER(KIND) EXPAND_PICK_##KIND
#define POINT(...)
#define OP(ID, NAME, SIG_, ATTRS_, TYPE_, AMP_, GRAD_, COST_, FACTORS_, LOWER_, EVAL_, SAMPLE_,    \
           DOC_)                                                                                   \
    [OP_##ID] = LOWER_(ID),
#include "ir/ops.def"
#undef OP
#undef POINT
#undef LOWER
};

static void expand_point(Expand *e)
{
    enum { MAX_IN = 4 };
    ValueId in[MAX_IN];
    ZM_CHECK(e->op.n_in >= 1 && e->op.n_in <= MAX_IN);
    for (uint32_t i = 0; i < e->op.n_in; i++) in[i] = form_widen(&e->b, e->op.in[i]);
    const Type *like = value_type(e->b.f, in[e->op.n_in - 1]);
    ValueId y = scalar_build(&e->b, op_info(e->op.code)->lower, 0, "abcd", in, like);
    e->out[0] = expand_narrow(e, 0, y);
}

/* Rows that meet in one element of a 16-bit table are added in f32, rounded once. */
static bool is_low_scatter(const Func *f, OpId op)
{
    const Op *o = op_cget(f, op);
    DType dt = o->code == OP_SCATTER_ADD ? value_type(f, o->in[0])->dtype : DT_NONE;
    return dt == DT_BF16 || dt == DT_F16;
}

static void expand_low_scatter(Expand *e)
{
    ValueId in[] = {form_widen(&e->b, e->op.in[0]), e->op.in[1], form_widen(&e->b, e->op.in[2])};
    e->out[0] = expand_narrow(e, 0, build1(&e->b, OP_SCATTER_ADD, in, 3, NULL));
}

/* The first op that the expansion of `op` made, or the op after it. */
static OpId expand_op(PassCtx *cx, Func *f, OpId op, ValueMap *map)
{
    Expand e = {.op = *op_cget(f, op)};
    ZM_CHECK(e.op.n_out <= EXPAND_MAX_OUT);
    const char *why = arena_printf(cx->scratch, "part of %s", op_info(e.op.code)->name);
    e.b = (Builder){.f = f, .before = op, .loc = pass_loc(cx, e.op.loc, why)};
    if (e.op.code == OP_SCATTER_ADD)
        expand_low_scatter(&e);
    else if (op_info(e.op.code)->traits & TR_POINTWISE)
        expand_point(&e);
    else
        expand_table[e.op.code](&e);
    for (uint32_t i = 0; i < e.op.n_out; i++) {
        ZM_CHECK(value_type(f, e.out[i]) == value_type(f, e.op.out[i]));
        value_map_set(map, e.op.out[i], e.out[i]);
    }
    OpId first = op_ok(e.op.prev) ? op_cget(f, e.op.prev)->next : f->first;
    OpId next = op_cget(f, op)->next;
    op_erase(f, op);
    cx->n_rewrites++;
    return first.i == op.i ? next : first;
}

static void expand_func(PassCtx *cx, Func *f)
{
    ValueMap map = {.arena = cx->scratch};
    for (OpId op = f->first; op_ok(op);) {
        value_map_apply(&map, f, op);
        if (op_info(op_cget(f, op)->code)->traits & TR_PRIMITIVE && !is_low_scatter(f, op))
            op = op_cget(f, op)->next;
        else
            op = expand_op(cx, f, op, &map);
    }
}

Status pass_expand(PassCtx *cx, bool *changed)
{
    for (uint32_t i = 0; i < cx->m->funcs.n; i++) expand_func(cx, cx->m->funcs.at[i]);
    *changed = cx->n_rewrites > 0;
    return ZM_OK;
}
