/* form_attention.c -- operands of sdpa and sdpa_grad as strided [B, H, T, D] ranges of memory,
 * results as strided stores.
 *
 * Split and merged heads cost nothing: q of a packed [B, T, 3C] value is an operand with strides
 * (T*3C, D, 3C, 1), and the three gradients of a concat are stores into ranges of one result.
 */
#include <string.h>

#include "passes/fuse/form.h"

#define TRY(CALL)                                                                                  \
    do {                                                                                           \
        FormResult result_ = (CALL);                                                               \
        if (result_ != FR_OK) return result_;                                                      \
    } while (0)

/* Operand v seen as [d0, d1, d2, d3]: its dimensions, from the left where it has 3 (lse), from the
 * right otherwise. */
static FormResult read_operand(FormBuilder *b, int slot, ValueId v)
{
    const Func *f = b->in->f;
    const Type *t = value_type(f, v);
    LoopSpace s = {.n = 4};
    IndexMap map = {.rank = t->rank}, next;
    int lead = slot == FA_LSE ? 0 : 4 - t->rank;
    for (int d = 0; d < 4; d++) s.extent[d] = 1;
    for (int d = 0; d < t->rank; d++) {
        s.extent[lead + d] = t->dim[d];
        map.dim[d].stride[lead + d] = t->dim[d] > 1;
    }
    ValueId from = v;
    const AccessGuard *guards = NULL;
    for (const Op *o; (o = form_def(b->in, from)) != NULL; from = o->in[0]) {
        if (!op_is_view(o->code))
            return form_refuse(b, from, "attention reads its operands from memory");
        AccessSplit split;
        AccessResult r = map_through_view(b->a, &s, f, o, 0, &map, &next, &guards, &split);
        if (o->code == OP_RESHAPE && r != ACCESS_OK && !form_def(b->in, o->in[0])) {
            Affine flat = map_flatten(&map, value_type(f, o->out[0])); /* memory has no shape */
            next = (IndexMap){.rank = 1, .dim = {flat}};
            from = o->in[0];
            map = next;
            t = NULL;
            break;
        }
        if (r != ACCESS_OK || guards)
            return form_refuse(b, v, "an attention operand is not a strided range");
        map = next;
        t = value_type(f, o->in[0]);
    }
    Affine at = t ? map_flatten(&map, t) : map.dim[0];
    FormOperand *p = &b->form->attn[slot];
    *p = (FormOperand){
        .is_there = true, .leaf = from, .dtype = value_type(f, from)->dtype, .base = at.base};
    for (int d = 0; d < 4; d++) p->stride[d] = at.stride[d];
    for (uint32_t i = 0; i < b->form->leaves.n; i++)
        if (b->form->leaves.at[i].i == from.i) return FR_OK;
    VEC_PUSH(b->a, &b->form->leaves, from);
    return FR_OK;
}

static FormResult read_operands(FormBuilder *b, const Op *o)
{
    static const int forward[] = {FA_Q, FA_K, FA_V},
                     backward[] = {FA_Q, FA_K, FA_V, FA_OUT, FA_LSE, FA_DOUT};
    const int *slot = o->code == OP_SDPA ? forward : backward;
    uint32_t n = o->code == OP_SDPA ? 3 : 6, i = 0;
    for (; i < n; i++) TRY(read_operand(b, slot[i], o->in[i]));
    for (; i < o->n_in; i++) {
        const Type *t = value_type(b->in->f, o->in[i]);
        int optional = t->dtype == DT_I1                  ? FA_MASK
                       : dtype_class(t->dtype) == DTC_INT ? FA_KEY
                                                          : FA_BIAS;
        TRY(read_operand(b, optional, o->in[i]));
    }
    return FR_OK;
}

/* ---- results ---- */

/* Store of value v: its elements go to `at` over loops that are v's dimensions. */
typedef struct Sink {
    ValueId v;
    uint32_t out;
    LoopSpace s;
    Affine at; /* address */
    IndexMap map;
} Sink;

static Sink sink_start(const Func *f, ValueId v, uint32_t out, int64_t base, const int64_t *stride)
{
    const Type *t = value_type(f, v);
    Sink k = {.v = v, .out = out, .s.n = t->rank, .at.base = base, .map.rank = t->rank};
    for (int d = 0; d < t->rank; d++) {
        k.s.extent[d] = t->dim[d];
        if (t->dim[d] == 1) continue;
        k.at.stride[d] = stride[d];
        k.map.dim[d].stride[d] = 1;
    }
    return k;
}

static bool sink_split(Sink *k, AccessSplit split)
{
    int l = split.loop;
    if (k->s.n == ACCESS_MAX_LOOPS) return false;
    for (int i = k->s.n; i > l + 1; i--) {
        k->s.extent[i] = k->s.extent[i - 1];
        k->at.stride[i] = k->at.stride[i - 1];
        for (int d = 0; d < k->map.rank; d++) k->map.dim[d].stride[i] = k->map.dim[d].stride[i - 1];
    }
    k->s.extent[l + 1] = split.inner;
    k->s.extent[l] /= split.inner;
    k->at.stride[l + 1] = k->at.stride[l];
    k->at.stride[l] *= split.inner;
    for (int d = 0; d < k->map.rank; d++) {
        k->map.dim[d].stride[l + 1] = k->map.dim[d].stride[l];
        k->map.dim[d].stride[l] *= split.inner;
    }
    k->s.n++;
    return true;
}

/* Walks from the stored value back to the result of attention; sets k->map to the result's index.
 */
static FormResult sink_walk(FormBuilder *b, Sink *k, const Op *attention)
{
    const Func *f = b->in->f;
    ValueId stored = k->v;
    for (;;) {
        const Op *o = form_def(b->in, k->v);
        if (!o) return form_refuse(b, stored, "attention stores its own results only");
        if (o == attention) return FR_OK;
        if (!op_is_view(o->code) || o->code == OP_BROADCAST || o->code == OP_PAD ||
            o->code == OP_SLICE)
            return form_refuse(b, attention->out[value_cget(f, k->v)->index],
                               "attention's results are stored first");
        IndexMap next;
        const AccessGuard *guards = NULL;
        AccessSplit split;
        AccessResult r = map_through_view(b->a, &k->s, f, o, 0, &k->map, &next, &guards, &split);
        if (r == ACCESS_SPLIT && sink_split(k, split)) continue;
        if (r != ACCESS_OK) return form_refuse(b, o->in[0], "attention's results are stored first");
        k->map = next;
        k->v = o->in[0];
    }
}

/* Address per step of each result dimension: at = base + sum stride[d] * index[d]. */
static FormResult sink_close(FormBuilder *b, const Sink *k, const Op *attention)
{
    static const int grads[] = {FA_DQ, FA_DK, FA_DV};
    uint32_t result = value_cget(b->in->f, k->v)->index;
    int slot = attention->code == OP_SDPA_GRAD ? grads[result] : result == 0 ? FA_OUT : FA_LSE;
    FormOperand *p = &b->form->attn[slot];
    if (p->is_there) return form_refuse(b, k->v, "a result of attention is stored once");
    *p = (FormOperand){.is_there = true, .is_out = true, .out = k->out, .base = k->at.base};
    p->dtype = value_type(b->in->f, k->v)->dtype;
    for (int d = 0; d < k->map.rank; d++) {
        for (int l = 0; l < k->s.n; l++) {
            int64_t c = k->map.dim[d].stride[l];
            if (!c || k->s.extent[l] == 1) continue;
            int64_t step = k->at.stride[l] / c;
            if (k->at.stride[l] % c || (p->stride[d] && p->stride[d] != step))
                return form_refuse(b, k->v,
                                   "a result of attention is not stored as a strided range");
            p->stride[d] = step;
        }
    }
    return FR_OK;
}

static FormResult store_value(FormBuilder *b, const Op *attention, Sink *k)
{
    TRY(sink_walk(b, k, attention));
    return sink_close(b, k, attention);
}

static void row_major(const Type *t, int64_t *stride)
{
    int64_t step = 1;
    for (int d = t->rank - 1; d >= 0; d--) {
        stride[d] = step;
        step *= t->dim[d];
    }
}

static FormResult store_output(FormBuilder *b, const Op *attention, uint32_t out)
{
    const Func *f = b->in->f;
    ValueId v = b->in->outs[out];
    const Op *o;
    while ((o = form_def(b->in, v)) != NULL && o->code == OP_RESHAPE)
        v = o->in[0]; /* memory has no shape */
    int64_t stride[ZM_MAX_RANK];
    row_major(value_type(f, v), stride);
    if (!o || o->code != OP_CONCAT) {
        Sink k = sink_start(f, v, out, 0, stride);
        return store_value(b, attention, &k);
    }
    int64_t axis = attr_int(o->attrs, AT_AXIS, 0), start = 0;
    for (uint32_t i = 0; i < o->n_in; i++) {
        Sink k = sink_start(f, o->in[i], out, start * stride[axis], stride);
        TRY(store_value(b, attention, &k));
        start += value_type(f, o->in[i])->dim[axis];
    }
    return FR_OK;
}

FormResult form_of_attention(FormBuilder *b)
{
    const Op *o = op_cget(b->in->f, b->form->anchor);
    memset(b->form->attn, 0, sizeof b->form->attn);
    TRY(read_operands(b, o));
    for (uint32_t i = 0; i < b->in->n_outs; i++) TRY(store_output(b, o, i));
    return FR_OK;
}
