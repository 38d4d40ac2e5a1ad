/* loss_scale.c -- the backward starts from S instead of 1, so that small gradients do not underflow
 * in 16 bits.
 *
 *   seed = 1 / items   ->   seed = unscaled_seed * S
 *
 * S is a constant, or the variable @loss_scale (scale_update.h).  Every gradient that @train
 * returns is then S times as large; @last divides by the same S (accumulate.c).  Runs right after
 * autodiff, whose constant it looks for; does nothing when S is the constant 1. */
#include "passes/pass.h"

#include <string.h>

#include "passes/scale_update.h"
#include "passes/state_names.h"

/* By its location: a dump may have renamed the value. */
static bool is_seed(const Func *f, const Op *o)
{
    const Loc *l = loc_get(f->m, o->loc);
    return o->code == OP_CONST && l->pass && strcmp(l->pass, "autodiff") == 0 &&
           strcmp(l->why, "seed") == 0;
}

/* The constant is made anew, so that a second run does not find it. */
static void scale_seed(PassCtx *cx, Func *f, OpId op)
{
    const Op *o = op_cget(f, op);
    ValueId seed = o->out[0];
    const Type *t = value_type(f, seed);
    Builder b = {.f = f, .before = op, .loc = pass_loc(cx, o->loc, "loss scale")};
    ValueId unscaled = build_splat(&b, attr_float(o->attrs, AT_VALUE, 0), t);
    ValueId scale = build_cast(&b, scale_now(&b), t->dtype);
    ValueId scaled = build_binary(&b, OP_MUL, unscaled, scale);
    value_get(f, unscaled)->name = module_str(cx->m, "unscaled_seed");
    value_get(f, scaled)->name = module_str(cx->m, "seed");
    func_replace_uses(f, seed, scaled);
    op_erase(f, op);
}

Status pass_loss_scale(PassCtx *cx, bool *changed)
{
    const LossScale *cfg = &cx->m->train.scale;
    if (!cfg->is_dynamic && cfg->init == 1) return ZM_OK;
    if (cfg->is_dynamic) ZM_TRY(state_names_check(cx));
    Func *f = func_find(cx->m, "train");
    FOR_OPS(f, op)
    {
        if (!is_seed(f, op_cget(f, op))) continue;
        scale_seed(cx, f, op);
        cx->n_rewrites++;
        *changed = true;
    }
    return ZM_OK;
}
