/* scale_update.c -- see scale_update.h.
 *
 *   S scale, h hysteresis left, c clean steps since the last overflow, counted anew from 1 when S
 *   grows: c reaches W again W steps later.  H, W, min as configured.
 *
 *   deepspeed   overflow:  h <= 1 ? S' = max(S / 2, min) : h' = h - 1;   c' = 0
 *               clean:     c >= W ? S' = 2 S, h' = H, c' = 1 : c' = c + 1;   consecutive: h' = H
 *   gradscaler  overflow:  S' = S / 2;  c' = 0
 *               clean:     c + 1 >= W ? S' = 2 S, c' = 0 : c' = c + 1
 *
 * 2 S only where finite.  Sources: DeepSpeed, runtime/fp16/loss_scaler.py (DynamicLossScaler);
 * PyTorch, torch/amp/grad_scaler.py. */
#include "passes/scale_update.h"

#include "ir/base/program.h"
#include "passes/state_names.h"

typedef struct Scaler {
    Builder *b;
    const LossScale *cfg;
    ValueId scale, good; /* before the step */
    ValueId hysteresis;  /* deepspeed */
} Scaler;

/* The scaler's state of one case of the step. */
typedef struct ScaleState {
    ValueId scale, hysteresis, good;
} ScaleState;

static ValueId i32(Scaler *s, int64_t v)
{
    return build_const(s->b, (double)v, DT_I32);
}

static ValueId op2(Scaler *s, OpCode code, ValueId x, ValueId y)
{
    return build_binary(s->b, code, x, y);
}

static ValueId times(Scaler *s, double k)
{
    return op2(s, OP_MUL, s->scale, build_const(s->b, k, DT_F32));
}

static ValueId grown(Scaler *s)
{
    ValueId twice = times(s, 2);
    return build_select(s->b, build_unary(s->b, OP_IS_FINITE, twice), twice, s->scale);
}

static ValueId is_spent(Scaler *s)
{
    return op2(s, OP_LE, s->hysteresis, i32(s, 1));
}

static ScaleState after_overflow(Scaler *s)
{
    ScaleState to = {.scale = times(s, 0.5), .good = i32(s, 0)};
    if (s->cfg->rule == SCALE_GRADSCALER) return to;
    ValueId spent = is_spent(s), least = build_const(s->b, s->cfg->min, DT_F32);
    to.scale = build_select(s->b, spent, op2(s, OP_MAX, to.scale, least), s->scale);
    to.hysteresis =
        build_select(s->b, spent, s->hysteresis, op2(s, OP_SUB, s->hysteresis, i32(s, 1)));
    return to;
}

static ScaleState after_clean(Scaler *s)
{
    bool is_torch = s->cfg->rule == SCALE_GRADSCALER;
    ValueId next = op2(s, OP_ADD, s->good, i32(s, 1));
    ValueId grows = op2(s, OP_GE, is_torch ? next : s->good, i32(s, s->cfg->window));
    ScaleState to = {0};
    to.scale = build_select(s->b, grows, grown(s), s->scale);
    to.good = build_select(s->b, grows, i32(s, is_torch ? 0 : 1), next);
    if (is_torch) return to;
    ValueId full = i32(s, s->cfg->hysteresis);
    to.hysteresis = s->cfg->consecutive ? full : build_select(s->b, grows, full, s->hysteresis);
    return to;
}

/* ---- variables ---- */

static VarId scalar(Builder *b, const char *name, DType dtype, double init)
{
    return state_scalar(b->f->m, name, dtype, init, b->loc);
}

static VarId scale_var(Builder *b)
{
    return scalar(b, ZMP_S_SCALE, DT_F32, b->f->m->train.scale.init);
}

ValueId scale_now(Builder *b)
{
    const LossScale *cfg = &b->f->m->train.scale;
    return cfg->is_dynamic ? build_read(b, scale_var(b)) : build_const(b, cfg->init, DT_F32);
}

static ValueId by_verdict(Builder *b, const ScaleVerdict *v, ValueId bad, ValueId good, ValueId old)
{
    return build_select(b, v->overflow, bad, build_select(b, v->clean, good, old));
}

/* 1 where the run cannot go on: an overflow at the smallest scale, hysteresis spent. */
static ValueId is_exhausted(Scaler *s, ValueId overflow)
{
    ValueId least = op2(s, OP_LE, s->scale, build_const(s->b, s->cfg->min, DT_F32));
    ValueId stuck = op2(s, OP_AND, op2(s, OP_AND, overflow, is_spent(s)), least);
    return build_cast(s->b, stuck, DT_I32);
}

void scale_advance(Builder *b, ValueId used, const ScaleVerdict *v)
{
    const LossScale *cfg = &b->f->m->train.scale;
    bool has_hysteresis = cfg->rule == SCALE_DEEPSPEED;
    VarId hysteresis = scalar(b, ZMP_S_HYSTERESIS, DT_I32, (double)cfg->hysteresis);
    build_write(b, scalar(b, ZMP_S_SCALE_USED, DT_F32, 1), used);
    if (!cfg->is_dynamic) return;
    VarId good = scalar(b, ZMP_S_GOOD, DT_I32, 0);
    Scaler s = {.b = b, .cfg = cfg, .scale = used, .good = build_read(b, good)};
    if (has_hysteresis) s.hysteresis = build_read(b, hysteresis);
    ScaleState bad = after_overflow(&s), clean = after_clean(&s);
    ValueId next = by_verdict(b, v, bad.scale, clean.scale, s.scale);
    ValueId count = by_verdict(b, v, bad.good, clean.good, s.good);
    if (has_hysteresis) {
        ValueId left = by_verdict(b, v, bad.hysteresis, clean.hysteresis, s.hysteresis);
        build_write(b, scalar(b, ZMP_S_EXHAUSTED, DT_I32, 0), is_exhausted(&s, v->overflow));
        build_write(b, hysteresis, left);
    }
    build_write(b, scale_var(b), next);
    build_write(b, good, count);
}
