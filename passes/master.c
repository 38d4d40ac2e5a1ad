/* master.c -- 16-bit parameters with f32 masters (mode master of mixed precision; Apex O2,
 * DeepSpeed's fp16 and bf16).
 *
 * In:  pass `amp` left parameters in f32 and casts where 16 bits are used: cast(read @p).
 * Out: a parameter that is read through casts to 16 bits only is stored in 16 bits.  A new variable
 *      @master.<p> : f32 holds what the update works on, and the update ends with two writes:
 *        write @master.<p>, new           write @p, cast(new)
 *      A skipped step's `new` is the old master, so that @p stays as it was, too: @p is at all
 *      times the rounding of its master.
 * A parameter that an op reads in f32 (`precision f32` in the language) keeps its f32 variable and
 * needs no master.  Views between the reading and the cast become views of the 16-bit value.
 *
 * Without masters (train setting `pure`, bf16): the update widens the parameter and rounds what
 * comes out stochastically, since nearest rounding loses steps below half a bf16 step:
 *   p = cast(read @p);  new = update(p, ...);  u = random(key);  write @p, cast(round_bf16(new, u))
 * u is drawn from stream "round.<p>", of sample 0 of the step, as element e of the parameter: not
 * by micro-batches or ranks.  A skipped step's `new` is p, which the rounding keeps.
 *
 * Cost: two walks over each function.
 */
#include "passes/pass.h"
#include "passes/state_names.h"
#include "passes/update_ops.h"
#include "passes/value_map.h"

#include <string.h>

typedef struct Masters {
    PassCtx *cx;
    Module *m;
    DType low;
    uint32_t n_vars;
    bool *is_low;    /* by VarId: stored in 16 bits */
    VarId *master;   /* by VarId */
    Func *f;         /* while a function is rewritten: */
    ValueId *narrow; /* by ValueId of f before: the same value in 16 bits */
    uint32_t n_values;
    Uses uses; /* before */
    ValueMap map;
    VEC(OpId) old; /* ops whose results nobody uses afterwards */
} Masters;

/* ---- which parameters ---- */

static bool casts_only(const Masters *ms, const Func *f, const Uses *uses, ValueId v)
{
    for (uint32_t i = uses->start[v.i]; i < uses->start[v.i + 1]; i++) {
        const Op *op = op_cget(f, uses->user[i]);
        bool is_view = op_info(op->code)->traits & TR_VIEW;
        if (op->code == OP_CAST && value_type(f, op->out[0])->dtype == ms->low) continue;
        if (op_is_update(op->code) && op->in[0].i == v.i) continue;
        if (!is_view || !casts_only(ms, f, uses, op->out[0])) return false;
    }
    return true;
}

static bool is_updated(const Func *f, const Op *write)
{
    OpId def = value_cget(f, write->in[0])->def;
    return op_ok(def) && op_is_update(op_cget(f, def)->code) &&
           value_cget(f, write->in[0])->index == 0;
}

/* Clears is_low of what f reads or writes in another way. */
static void keep_wide(Masters *ms, const Func *f)
{
    Uses uses = func_uses(ms->cx->scratch, f);
    FOR_OPS(f, id)
    {
        const Op *op = op_cget(f, id);
        if (op->code != OP_READ && op->code != OP_WRITE) continue;
        VarId var = var_find(ms->m, attr_str(op->attrs, AT_VAR));
        bool is_fine =
            op->code == OP_READ ? casts_only(ms, f, &uses, op->out[0]) : is_updated(f, op);
        if (!is_fine) ms->is_low[var.i] = false;
    }
}

/* ---- variables ---- */

static void add_master(Masters *ms, VarId p)
{
    Var v = *var_cget(ms->m, p);
    var_get(ms->m, p)->type = type_with_dtype(ms->m, v.type, ms->low);
    ms->cx->n_rewrites++;
    if (ms->m->train.pure) return;
    v.name = arena_printf(ms->m->arena, STATE_MASTER ".%s", v.name);
    v.kind = VK_MASTER;
    v.of = p;
    ms->master[p.i] = var_new(ms->m, v);
}

/* ---- functions ---- */

static ValueId narrow_of(const Masters *ms, const Op *op)
{
    bool is_known = op->n_in && op->in[0].i < ms->n_values;
    return is_known ? ms->narrow[op->in[0].i] : (ValueId){0};
}

static bool is_low_var(const Masters *ms, const Op *op, VarId *var)
{
    *var = var_find(ms->m, attr_str(op->attrs, AT_VAR));
    return var->i < ms->n_vars && ms->is_low[var->i];
}

static bool is_for_update(const Masters *ms, ValueId v)
{
    for (uint32_t i = ms->uses.start[v.i]; i < ms->uses.start[v.i + 1]; i++)
        if (!op_is_update(op_cget(ms->f, ms->uses.user[i])->code)) return false;
    return true;
}

static void replace_read(Masters *ms, Builder *b, OpId id)
{
    VarId var;
    if (!is_low_var(ms, op_cget(ms->f, id), &var)) return;
    ValueId old = op_cget(ms->f, id)->out[0];
    if (!is_for_update(ms, old)) ms->narrow[old.i] = build_read(b, var);
    VEC_PUSH(ms->cx->scratch, &ms->old, id);
}

static void replace_view(Masters *ms, Builder *b, OpId id)
{
    Op op = *op_cget(ms->f, id);
    ValueId narrow = narrow_of(ms, &op);
    if (!value_ok(narrow)) return;
    AttrList l = {.n = op.attrs.n};
    memcpy(l.at, op.attrs.at, op.attrs.n * sizeof *l.at);
    ms->narrow[op.out[0].i] = build1(b, op.code, &narrow, 1, &l);
    VEC_PUSH(ms->cx->scratch, &ms->old, id);
}

static void replace_cast(Masters *ms, OpId id)
{
    const Op *op = op_cget(ms->f, id);
    ValueId narrow = narrow_of(ms, op);
    if (!value_ok(narrow)) return;
    value_map_set(&ms->map, op->out[0], narrow);
    VEC_PUSH(ms->cx->scratch, &ms->old, id);
}

/* The update reads the master. */
static void replace_operand(Masters *ms, Builder *b, OpId id)
{
    VarId p = value_read_var(ms->f, op_cget(ms->f, id)->in[0]);
    if (p.i >= ms->n_vars || !ms->is_low[p.i]) return;
    bool is_pure = ms->m->train.pure;
    ValueId wide =
        is_pure ? build_cast(b, build_read(b, p), DT_F32) : build_read(b, ms->master[p.i]);
    op_set_operand(ms->f, id, 0, wide);
}

static void replace_write(Masters *ms, Builder *b, OpId id)
{
    VarId var;
    if (!is_low_var(ms, op_cget(ms->f, id), &var)) return;
    ValueId now = op_cget(ms->f, id)->in[0];
    if (ms->m->train.pure) {
        const char *stream =
            arena_printf(ms->cx->scratch, STATE_ROUND ".%s", var_cget(ms->m, var)->name);
        now = build_rounding(b, now, stream, 0);
    } else
        build_write(b, ms->master[var.i], now);
    build_write(b, var, build_cast(b, now, ms->low));
    op_erase(ms->f, id);
}

static void rewrite_op(Masters *ms, OpId id)
{
    value_map_apply(&ms->map, ms->f, id);
    const Op *op = op_cget(ms->f, id);
    Builder b = {.f = ms->f, .before = id, .loc = op->loc};
    if (op->code == OP_READ)
        replace_read(ms, &b, id);
    else if (op->code == OP_WRITE)
        replace_write(ms, &b, id);
    else if (op->code == OP_CAST)
        replace_cast(ms, id);
    else if (op_is_update(op->code))
        replace_operand(ms, &b, id);
    else if (op_info(op->code)->traits & TR_VIEW)
        replace_view(ms, &b, id);
}

static void rewrite_func(Masters *ms, Func *f)
{
    ms->f = f;
    ms->n_values = f->values.n;
    ms->uses = func_uses(ms->cx->scratch, f);
    ms->narrow = ARENA_ARRAY(ms->cx->scratch, ValueId, f->values.n);
    ms->map = (ValueMap){.arena = ms->cx->scratch};
    ms->old.n = 0;
    FOR_OPS(f, op) rewrite_op(ms, op);
    while (ms->old.n) op_erase(f, ms->old.at[--ms->old.n]);
}

Status pass_master(PassCtx *cx, bool *changed)
{
    Module *m = cx->m;
    if (m->train.precision == PREC_FP32 || m->train.amp != AMP_MASTER) return ZM_OK;
    if (m->train.pure && m->train.precision != PREC_BF16)
        return diag_error(cx->diag, m->train.pos, E_PASS_NEEDS,
                          "pass 'master': parameters without masters are bf16 only, not %s",
                          precision_name(m->train.precision));
    Masters ms = {.cx = cx,
                  .m = m,
                  .low = precision_dtype(m->train.precision),
                  .n_vars = m->vars.n,
                  .is_low = ARENA_ARRAY(cx->scratch, bool, m->vars.n),
                  .master = ARENA_ARRAY(cx->scratch, VarId, m->vars.n)};
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *v = &m->vars.at[i];
        ms.is_low[i] = v->kind == VK_PARAM && !v->is_bucket && v->type->dtype == DT_F32;
    }
    for (uint32_t i = 0; i < m->funcs.n; i++) keep_wide(&ms, m->funcs.at[i]);
    for (uint32_t i = 1; i < ms.n_vars; i++)
        if (ms.is_low[i]) add_master(&ms, (VarId){i});
    for (uint32_t i = 0; i < m->funcs.n && cx->n_rewrites; i++) rewrite_func(&ms, m->funcs.at[i]);
    *changed = cx->n_rewrites > 0;
    return ZM_OK;
}
