/* builtins_nn.c -- built-in functions that compute: reductions, rows, losses, attention, dropout.
 */
#include "frontend/builtins.h"

#include <math.h>
#include <string.h>

/* ---- reductions ---- */

/* Sorted, distinct axes; all of them when the argument was left out. */
static Status reduce_axes(Elab *e, BuiltinCall *c, uint32_t i, const Type *t, int64_t *axes, int *n)
{
    bool is_reduced[ZM_MAX_RANK] = {false};
    int64_t given[ZM_MAX_RANK];
    int n_given = 0;
    if (c->arg[i].kind != VAL_NONE) ZM_TRY(need_ints(e, c, i, ZM_MAX_RANK, given, &n_given, NULL));
    for (int k = 0; k < n_given; k++) {
        int axis;
        ZM_TRY(axis_of(e, arg_pos(c, i), val_int(given[k]), t, &axis));
        is_reduced[axis] = true;
    }
    *n = 0;
    for (int k = 0; k < t->rank; k++)
        if (is_reduced[k] || c->arg[i].kind == VAL_NONE) axes[(*n)++] = k;
    return ZM_OK;
}

/* Over argument `at` (the axes) of x; count: elements that went into one. */
static Val reduce(Elab *e, BuiltinCall *c, OpCode code, uint32_t at, int64_t *count)
{
    int64_t axes[ZM_MAX_RANK];
    int n;
    bool keep;
    if (need_tensor(e, c, 0) != ZM_OK) return val_error();
    const Type *t = val_type(e, c->arg[0]);
    if (t->dtype == DT_I1)
        return elab_error(e, c->pos, E_TYPE, "%s does not take bools: write float(x)", c->name);
    if (reduce_axes(e, c, at, t, axes, &n) != ZM_OK) return val_error();
    if (need_bool(e, c, at + 1, false, &keep) != ZM_OK) return val_error();
    Type kept = *t;
    *count = 1;
    for (int i = 0; i < n; i++) {
        *count *= t->dim[axes[i]];
        kept.dim[axes[i]] = 1;
    }
    if (n == 0) return c->arg[0];
    AttrList l = {0};
    attr_add_list(&l, AT_DIMS, axes, (uint32_t)n);
    Val r = emit(e, c->pos, code, &c->arg[0].tensor, 1, &l);
    return keep && r.kind == VAL_TENSOR ? emit_reshape(e, c->pos, r, kept.rank, kept.dim) : r;
}

Val builtin_sum(Elab *e, BuiltinCall *c)
{
    int64_t count;
    return reduce(e, c, OP_REDUCE_SUM, 1, &count);
}

Val builtin_mean(Elab *e, BuiltinCall *c)
{
    int64_t count;
    if (need_dtype(e, c, 0, DT_F32) != ZM_OK) return val_error();
    Val sum = reduce(e, c, OP_REDUCE_SUM, 1, &count);
    if (sum.kind == VAL_ERROR) return sum;
    Val v[] = {sum, val_real(1 / (double)count)};
    return emit_point(e, c->pos, OP_MUL, v, NULL, 2, "mean");
}

Val builtin_max(Elab *e, BuiltinCall *c)
{
    int64_t count;
    Val r;
    if (c->arg[1].kind == VAL_NONE) return reduce(e, c, OP_REDUCE_MAX, 2, &count);
    if (c->arg[2].kind != VAL_NONE || c->arg[3].kind != VAL_NONE)
        return elab_error(e, c->pos, E_ARGS, "max takes either a second value or an axis");
    if (number_call(e, c->pos, "max", c->arg, 2, &r)) return r;
    return emit_point(e, c->pos, OP_MAX, c->arg, c->ast, 2, "max");
}

/* ---- rows ---- */

static Val along_axis(Elab *e, BuiltinCall *c, OpCode code)
{
    int axis;
    if (need_dtype(e, c, 0, DT_F32) != ZM_OK) return val_error();
    if (axis_of(e, arg_pos(c, 1), c->arg[1], val_type(e, c->arg[0]), &axis) != ZM_OK)
        return val_error();
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, axis);
    return emit(e, c->pos, code, &c->arg[0].tensor, 1, &l);
}

Val builtin_softmax(Elab *e, BuiltinCall *c)
{
    return along_axis(e, c, OP_SOFTMAX);
}

Val builtin_log_softmax(Elab *e, BuiltinCall *c)
{
    return along_axis(e, c, OP_LOG_SOFTMAX);
}

static Val with_number(Elab *e, BuiltinCall *c, OpCode code, AttrKey key, double otherwise)
{
    double v;
    if (need_dtype(e, c, 0, DT_F32) != ZM_OK || need_number(e, c, 1, otherwise, &v) != ZM_OK)
        return val_error();
    if (v < 0 || (key == AT_THETA && v == 0))
        return elab_error(e, arg_pos(c, 1), E_NUMBER, "%s must be positive, not %.12g",
                          attr_name(key), v);
    AttrList l = {0};
    attr_add_float(&l, key, v);
    return emit(e, c->pos, code, &c->arg[0].tensor, 1, &l);
}

Val builtin_normalize(Elab *e, BuiltinCall *c)
{
    return with_number(e, c, OP_NORMALIZE, AT_EPS, 1e-5);
}

Val builtin_rms_normalize(Elab *e, BuiltinCall *c)
{
    return with_number(e, c, OP_RMS_NORMALIZE, AT_EPS, 1e-6);
}

Val builtin_rotary(Elab *e, BuiltinCall *c)
{
    return with_number(e, c, OP_ROTARY, AT_THETA, 10000);
}

/* ---- lookup and losses ---- */

static bool is_tensor_of(const Elab *e, Val v, DType dtype)
{
    return v.kind == VAL_TENSOR && val_type(e, v)->dtype == dtype;
}

/* A float and an int tensor.  Given the other way round, the cure is to exchange them. */
static Status need_float_int(Elab *e, const BuiltinCall *c, const char *cure)
{
    if (is_tensor_of(e, c->arg[0], DT_I32) && is_tensor_of(e, c->arg[1], DT_F32)) {
        elab_error(e, c->pos, E_TYPE, "%s takes a float and an int tensor, not %s and %s", c->name,
                   elab_text(e, c->arg[0]), elab_text(e, c->arg[1]));
        note_args(e, c);
        elab_help(e, "exchange them: %s", cure);
        return ZM_FAIL;
    }
    ZM_TRY(need_dtype(e, c, 0, DT_F32));
    return need_dtype(e, c, 1, DT_I32);
}

Val builtin_embed(Elab *e, BuiltinCall *c)
{
    if (need_float_int(e, c, "embed(table, index)") != ZM_OK) return val_error();
    ValueId in[] = {c->arg[0].tensor, c->arg[1].tensor};
    Val r = emit(e, c->pos, OP_EMBED, in, 2, NULL);
    if (r.kind == VAL_ERROR) note_args(e, c);
    return r;
}

/* 1 where the target counts. */
static ValueId target_weight(Elab *e, BuiltinCall *c, int64_t ignore)
{
    Val v[] = {c->arg[1], val_int(ignore)};
    Val counts = emit_point(e, c->pos, OP_NE, v, NULL, 2, "ignore");
    Val w = counts.kind == VAL_TENSOR ? emit_cast(e, c->pos, counts, DT_F32) : counts;
    return w.kind == VAL_TENSOR ? w.tensor : (ValueId){0};
}

Val builtin_cross_entropy(Elab *e, BuiltinCall *c)
{
    int64_t ignore = 0;
    bool has_ignore = c->arg[2].kind != VAL_NONE;
    if (need_float_int(e, c, "cross_entropy(logits, targets)") != ZM_OK) return val_error();
    if (has_ignore && need_int(e, c, 2, &ignore) != ZM_OK) return val_error();
    if (ignore < INT32_MIN || ignore > INT32_MAX)
        return elab_error(e, arg_pos(c, 2), E_NUMBER, "ignore = %lld does not fit into 32 bits",
                          (long long)ignore);
    AttrList l = {0};
    if (has_ignore) attr_add_int(&l, AT_IGNORE, ignore);
    ValueId in[] = {c->arg[0].tensor, c->arg[1].tensor};
    Val r = emit(e, c->pos, OP_CROSS_ENTROPY, in, 2, &l);
    if (r.kind == VAL_ERROR)
        note_args(e, c);
    else if (has_ignore)
        r.weight = target_weight(e, c, ignore);
    return r;
}

/* [B, 1] and [B] would give [B, B]: every prediction against every target, which nobody means. */
Val builtin_mse(Elab *e, BuiltinCall *c)
{
    if (need_dtype(e, c, 0, DT_F32) != ZM_OK) return val_error();
    Val x = c->arg[0], y = c->arg[1];
    Val r = emit_point(e, c->pos, OP_SQUARED_ERROR, c->arg, c->ast, 2, "mse");
    if (r.kind != VAL_TENSOR || y.kind != VAL_TENSOR) return r;
    int64_t n = type_elems(val_type(e, r));
    if (n == type_elems(val_type(e, x)) || n == type_elems(val_type(e, y))) return r;
    elab_error(e, c->pos, E_SHAPE, "mse of %s and %s would repeat both, to %s", elab_text(e, x),
               elab_text(e, y), elab_text(e, r));
    elab_note_operand(e, c->ast[0], x);
    elab_note_operand(e, c->ast[1], y);
    elab_help(e, "bring both to one shape with reshape");
    return val_error();
}

/* ---- randomness ---- */

/* "h.0.attn.drop.1": the instance and the number of its streams before this one. */
static const char *stream_new(Elab *e, const char *kind)
{
    const char *path = e->inst->path;
    return module_str(e->m, arena_printf(e->arena, "%s%s%s.%u", path, *path ? "." : "", kind,
                                         e->inst->n_streams++));
}

static void rng_key(Elab *e, ValueId *key)
{
    const int64_t words = 4;
    if (!value_ok(e->rng)) e->rng = func_param(e->f, "rng", type_get(e->m, DT_I32, 1, &words));
    *key = e->rng;
}

/* The probability; *is_on: this function draws. */
static Status drop_rate(Elab *e, BuiltinCall *c, uint32_t i, const Type *t, double *p, bool *is_on)
{
    ZM_TRY(need_number(e, c, i, 0, p));
    if (!(*p >= 0 && *p < 1)) {
        elab_error(e, arg_pos(c, i), E_NUMBER,
                   "the dropout probability must be in [0, 1), not %.12g", *p);
        return ZM_FAIL;
    }
    *is_on = *p > 0 && e->mode == MODE_TRAIN;
    if (*p == 0 || (t->rank && e->batch > 0 && t->dim[0] % e->batch == 0)) return ZM_OK;
    elab_error(e, c->pos, E_SHAPE,
               "dropout is drawn for each sample: dimension 0 of %s is not the batch of %lld",
               type_text(e->arena, t), (long long)e->batch);
    return ZM_FAIL;
}

static void add_stream(Elab *e, AttrList *l, double p, const char *kind)
{
    attr_add_float(l, AT_P, p);
    attr_add_str(l, AT_STREAM, stream_new(e, kind));
    attr_add_int(l, AT_BATCH, e->batch);
}

Val builtin_drop(Elab *e, BuiltinCall *c)
{
    double p;
    bool is_on;
    if (need_dtype(e, c, 0, DT_F32) != ZM_OK) return val_error();
    if (drop_rate(e, c, 1, val_type(e, c->arg[0]), &p, &is_on) != ZM_OK) return val_error();
    if (!is_on) return c->arg[0];
    AttrList l = {0};
    ValueId in[] = {c->arg[0].tensor, {0}};
    rng_key(e, &in[1]);
    add_stream(e, &l, p, "drop");
    return emit(e, c->pos, OP_DROP, in, 2, &l);
}

/* ---- attention ---- */

enum { Q, K, V, CAUSAL, MASK, BIAS, SCALE, DROP };

static Status sdpa_check(Elab *e, BuiltinCall *c)
{
    for (uint32_t i = Q; i <= V; i++) ZM_TRY(need_dtype(e, c, i, DT_F32));
    if (c->arg[MASK].kind != VAL_NONE) ZM_TRY(need_dtype(e, c, MASK, DT_I1));
    if (c->arg[BIAS].kind != VAL_NONE) ZM_TRY(need_dtype(e, c, BIAS, DT_F32));
    for (uint32_t i = Q; i <= V; i++) {
        if (val_type(e, c->arg[i])->rank == 4) continue;
        elab_error(e, arg_pos(c, i), E_SHAPE, "sdpa takes [B, H, T, D], not %s",
                   elab_text(e, c->arg[i]));
        note_args(e, c);
        elab_help(e, "split the heads of [B, T, C]: split_heads(x, heads)");
        return ZM_FAIL;
    }
    return ZM_OK;
}

Val builtin_sdpa(Elab *e, BuiltinCall *c)
{
    bool is_causal, is_on;
    double scale, p;
    if (sdpa_check(e, c) != ZM_OK || need_bool(e, c, CAUSAL, false, &is_causal) != ZM_OK)
        return val_error();
    const Type *q = val_type(e, c->arg[Q]);
    if (need_number(e, c, SCALE, 1 / sqrt((double)q->dim[3]), &scale) != ZM_OK) return val_error();
    if (drop_rate(e, c, DROP, q, &p, &is_on) != ZM_OK) return val_error();
    ValueId in[6] = {c->arg[Q].tensor, c->arg[K].tensor, c->arg[V].tensor}, out[2];
    uint32_t n = 3;
    if (c->arg[MASK].kind == VAL_TENSOR) in[n++] = c->arg[MASK].tensor;
    if (c->arg[BIAS].kind == VAL_TENSOR) in[n++] = c->arg[BIAS].tensor;
    AttrList l = {0};
    if (is_causal) attr_add_int(&l, AT_CAUSAL, 1);
    attr_add_float(&l, AT_SCALE, scale);
    if (is_on) {
        rng_key(e, &in[n++]);
        add_stream(e, &l, p, "sdpa");
    }
    if (emit_many(e, c->pos, OP_SDPA, in, n, &l, out) == ZM_OK) return val_tensor(out[0]);
    note_args(e, c);
    return val_error();
}
