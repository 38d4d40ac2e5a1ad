/* dce.c -- removes ops whose results nobody uses: pure ops and reads.  Writes, probes and return
 * stay, with all that they need.  One walk from the end: an op's users come after it.  Cost
 * O(operands). */
#include "passes/pass.h"

static bool is_removable(OpCode code)
{
    return code == OP_READ || op_info(code)->traits & TR_PURE;
}

static bool is_live(const Op *o, const bool *used)
{
    if (!is_removable(o->code)) return true;
    for (uint32_t i = 0; i < o->n_out; i++)
        if (used[o->out[i].i]) return true;
    return false;
}

static uint32_t func_remove_dead(Arena *scratch, Func *f)
{
    uint32_t n = 0;
    bool *used = ARENA_ARRAY(scratch, bool, f->values.n);
    for (OpId op = f->last, prev; op_ok(op); op = prev) {
        const Op *o = op_cget(f, op);
        prev = o->prev;
        if (!is_live(o, used)) {
            op_erase(f, op);
            n++;
            continue;
        }
        for (uint32_t i = 0; i < o->n_in; i++) used[o->in[i].i] = true;
    }
    return n;
}

Status pass_dce(PassCtx *cx, bool *changed)
{
    for (uint32_t i = 0; i < cx->m->funcs.n; i++)
        cx->n_rewrites += func_remove_dead(cx->scratch, cx->m->funcs.at[i]);
    *changed = cx->n_rewrites > 0;
    return ZM_OK;
}
