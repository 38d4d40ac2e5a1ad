/* workspace.c -- memory that a kernel needs beside its operands and results (packed matmul
 * operands, partial sums) becomes a value, so that the plan shows it and places it like any other.
 */
#include "passes/pass.h"

/* Appends a workspace of `bytes` to the operands of fused op `id`, and an unused parameter to its
 * body. */
static void add_workspace(PassCtx *cx, Func *f, OpId id, int64_t bytes)
{
    Module *m = cx->m;
    Builder b = {.f = f, .before = id, .loc = pass_loc(cx, op_cget(f, id)->loc, "workspace")};
    int64_t elems = (bytes + dtype_bytes(DT_F32) - 1) / dtype_bytes(DT_F32);
    AttrList l = {0};
    attr_add_list(&l, AT_SHAPE, &elems, 1);
    attr_add_int(&l, AT_DTYPE, DT_F32);
    ValueId w = build1(&b, OP_WORKSPACE, NULL, 0, &l);
    Op *op = op_get(f, id);
    ValueId *in = ARENA_ARRAY(m->arena, ValueId, op->n_in + 1);
    for (uint32_t i = 0; i < op->n_in; i++) in[i] = op->in[i];
    in[op->n_in++] = w;
    op->in = in;
    func_param(op->body, NULL, value_type(f, w));
    cx->n_rewrites++;
}

Status pass_workspace(PassCtx *cx, bool *changed)
{
    if (!cx->opt->workspace_bytes) return ZM_OK;
    for (uint32_t i = 0; i < cx->m->funcs.n; i++) {
        Func *f = cx->m->funcs.at[i];
        FOR_OPS(f, op)
        {
            if (op_cget(f, op)->code != OP_FUSED) continue;
            int64_t bytes = cx->opt->workspace_bytes(cx->opt->target, f, op);
            if (bytes <= 0) continue;
            add_workspace(cx, f, op, bytes);
            *changed = true;
        }
    }
    return ZM_OK;
}
