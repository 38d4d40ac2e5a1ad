/* ops_table.c -- every scalar expression of ops.def parses and types: LOWER and each GRAD of each
 * POINT op. */
#include <stdio.h>

#include "ir/scalar.h"

static void build_grads(Builder *b, OpCode code, const ValueId *v, const Type *t)
{
    const OpInfo *info = op_info(code);
    ZM_CHECK(scalar_count(info->grad) == (uint32_t)info->min_in);
    for (uint32_t i = 0; i < (uint32_t)info->min_in; i++)
        if (!scalar_is_zero(info->grad, i))
            ZM_CHECK(value_type(b->f, scalar_build(b, info->grad, i, "abcyg", v, t)) == t);
}

/* Values for a, b, c, y, g that suit the op: i1 for conditions. */
static void check_op(Module *m, OpCode code)
{
    const OpInfo *info = op_info(code);
    int64_t dims[] = {3, 5};
    const Type *real = type_get(m, DT_F32, 2, dims);
    const Type *cond = type_get(m, DT_I1, 2, dims);
    Func *f = func_new(m, "");
    Builder b = {.f = f, .loc = loc_source(m, (SrcPos){.line = 1, .col = 1})};
    ValueId v[5];
    for (int i = 0; i < 5; i++) {
        bool is_cond =
            (code == OP_SELECT && i == 0) || code == OP_AND || code == OP_OR || code == OP_NOT;
        v[i] = func_param(f, NULL, is_cond ? cond : real);
    }
    ValueId y = build1(&b, code, v, (uint32_t)info->min_in, NULL);
    if (info->lower_kind == LK_EXPAND)
        ZM_CHECK(value_type(f, scalar_build(&b, info->lower, 0, "abc", v, real)) ==
                 value_type(f, y));
    if (value_type(f, y)->dtype != DT_F32) return;
    v[3] = y;
    if (info->grad[0] != 'n') build_grads(&b, code, v, real);
}

int main(void)
{
    Arena arena = {0};
    SourceSet sources = {.arena = &arena};
    Diag diag = {.arena = &arena, .sources = &sources};
    Module *m = module_new(&arena, &sources, &diag);
    int n = 0;
    for (int code = OP_NONE + 1; code < N_OP; code++) {
        const OpInfo *info = op_info((OpCode)code);
        ZM_CHECK(op_from_name(info->name, __builtin_strlen(info->name)) == (OpCode)code);
        if (!info->grad || !(info->traits & TR_POINTWISE)) continue;
        check_op(m, (OpCode)code);
        n++;
    }
    printf("%d pointwise ops, %d ops\n", n, N_OP - 1);
    arena_free(&arena);
    return n > 30 ? 0 : 1;
}
