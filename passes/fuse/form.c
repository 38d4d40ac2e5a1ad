/* form.c -- form_build: finds what kind of kernel the ops behind the outputs make, tries it, splits
 * loops on demand. */
#include <string.h>

#include "passes/fuse/form.h"

#define TRY(CALL)                                                                                  \
    do {                                                                                           \
        FormResult result_ = (CALL);                                                               \
        if (result_ != FR_OK) return result_;                                                      \
    } while (0)

/* ---- which kind ---- */

typedef struct Anchors {
    OpId reduce;  /* the reduction of most elements */
    OpId special; /* matmul, sdpa, sdpa_grad, scatter_add */
    uint32_t n_special;
} Anchors;

static void anchors_note(const Func *f, OpId id, Anchors *found)
{
    const Op *o = op_cget(f, id);
    OpCode code = o->code;
    if (code == OP_REDUCE_SUM || code == OP_REDUCE_MAX) {
        int64_t n = type_elems(value_type(f, o->in[0]));
        if (!op_ok(found->reduce) ||
            n > type_elems(value_type(f, op_cget(f, found->reduce)->in[0])))
            found->reduce = id;
    } else if (code == OP_MATMUL || code == OP_SDPA || code == OP_SDPA_GRAD ||
               code == OP_SCATTER_ADD) {
        found->special = id;
        found->n_special++;
    }
}

static Anchors find_anchors(Arena *a, const FormIn *in)
{
    Anchors found = {0};
    Map seen = {.arena = a};
    VEC(ValueId) todo = {0};
    for (uint32_t i = 0; i < in->n_outs; i++) VEC_PUSH(a, &todo, in->outs[i]);
    while (todo.n) {
        const Op *o = form_def(in, todo.at[--todo.n]);
        if (!o) continue;
        OpId id = value_cget(in->f, o->out[0])->def;
        if (map_get(&seen, id.i) != MAP_NONE) continue;
        map_put(&seen, id.i, 1);
        anchors_note(in->f, id, &found);
        for (uint32_t i = 0; i < o->n_in; i++) VEC_PUSH(a, &todo, o->in[i]);
    }
    return found;
}

/* ---- nests ---- */

static void nest_add_loops(FormBuilder *b, OpId reduce, bool is_flat)
{
    const Func *f = b->in->f;
    if (op_ok(reduce)) {
        const Op *o = op_cget(f, reduce);
        const Type *t = value_type(f, o->in[0]);
        const Attr *dims = attrs_find(o->attrs, AT_DIMS);
        for (int d = 0, next = 0; d < t->rank; d++) {
            bool is_red = next < (int)dims->as.list.n && dims->as.list.at[next] == d;
            next += is_red;
            form_add_loop(b->form, is_red ? FL_RED : FL_PAR, t->dim[d]);
        }
        return;
    }
    const Type *t = value_type(f, b->in->outs[0]);
    for (uint32_t i = 1; i < b->in->n_outs; i++) {
        const Type *other = value_type(f, b->in->outs[i]);
        if (type_elems(other) > type_elems(t)) t = other;
    }
    if (is_flat) {
        form_add_loop(b->form, FL_PAR, type_elems(t));
        return;
    }
    for (int d = 0; d < t->rank; d++) form_add_loop(b->form, FL_PAR, t->dim[d]);
}

static FormResult nest_output(FormBuilder *b, uint32_t i)
{
    ValueId v = b->in->outs[i];
    uint32_t all = (1u << b->form->loops.n) - 1, par = form_loops_of(b->form, FL_PAR);
    int64_t n = type_elems(value_type(b->in->f, v));
    bool is_row = n == form_count(b->form, par);
    if (!is_row && n != form_count(b->form, all))
        return form_refuse(b, v, "outputs over different domains");
    FormStore s = {.out = i, .is_row = is_row, .to = {.dyn = -1}};
    s.to.at = form_flat_loops(b->form, is_row ? par : all);
    IndexMap map;
    TRY(form_flat_map(b, v, &s.to.at, &map));
    TRY(form_want(b, v, &map, NULL, &s.node));
    VEC_PUSH(b->a, &b->form->stores, s);
    return FR_OK;
}

static FormResult nest_outputs(FormBuilder *b)
{
    for (uint32_t i = 0; i < b->in->n_outs; i++) TRY(nest_output(b, i));
    return FR_OK;
}

/* ---- scatter: loops over the rows in order, stores added at the row that the index names ---- */

static FormResult form_scatter(FormBuilder *b)
{
    const Func *f = b->in->f;
    const Op *o = op_cget(f, b->form->anchor);
    if (b->in->n_outs != 1 || o->out[0].i != b->in->outs[0].i)
        return form_refuse(b, o->out[0], "a scatter stores its own result only");
    if (form_def(b->in, o->in[0])) return form_refuse(b, o->in[0], "a scatter adds to memory");
    const Type *t = value_type(f, o->in[2]);
    VEC_PUSH(b->a, &b->form->leaves, o->in[0]);
    if (b->form->loops.n == 0) {
        for (int d = 0; d + 1 < t->rank; d++) form_add_loop(b->form, FL_RED, t->dim[d]);
        form_add_loop(b->form, FL_PAR, t->dim[t->rank - 1]);
    }
    Affine column = form_flat_loops(b->form, form_loops_of(b->form, FL_PAR));
    Affine flat = form_flat_loops(b->form, (1u << b->form->loops.n) - 1);
    IndexMap map, row;
    TRY(form_flat_map(b, o->in[2], &flat, &map));
    FormStore s = {.is_add = true};
    TRY(form_want(b, o->in[2], &map, NULL, &s.node));
    row = map;
    row.rank--;
    TRY(form_want(b, o->in[1], &row, NULL, &s.to.dyn));
    s.to.at = column;
    s.to.dyn_stride = t->dim[t->rank - 1];
    VEC_PUSH(b->a, &b->form->stores, s);
    return FR_OK;
}

/* ---- contraction: batch and row loops, columns, then the summed dimension ---- */

static void contract_add_loops(Form *form, const Func *f, const Op *o)
{
    const Type *x = value_type(f, o->in[0]), *y = value_type(f, o->in[1]),
               *t = value_type(f, o->out[0]);
    bool is_batched = y->rank > 2;
    for (int d = 0; d + 2 < t->rank; d++)
        form_add_loop(form, is_batched ? FL_BATCH : FL_M, t->dim[d]);
    form_add_loop(form, FL_M, t->dim[t->rank - 2]);
    form_add_loop(form, FL_N, t->dim[t->rank - 1]);
    form_add_loop(form, FL_K,
                  x->dim[attr_int(o->attrs, AT_TRANS_A, 0) ? x->rank - 2 : x->rank - 1]);
}

/* Operand k at the loops: leading dimensions, and its own of (m, k) or (k, n). */
static FormResult contract_operand(FormBuilder *b, const Op *o, uint32_t k, const IndexMap *out,
                                   int32_t *node)
{
    const Type *t = value_type(b->in->f, o->in[k]), *rt = value_type(b->in->f, o->out[0]);
    bool is_swapped = attr_int(o->attrs, k == 0 ? AT_TRANS_A : AT_TRANS_B, 0) != 0;
    IndexMap map = {.rank = t->rank};
    for (int d = 0; d + 2 < t->rank; d++) map.dim[d] = out->dim[d];
    Affine sum = form_flat_loops(b->form, form_loops_of(b->form, FL_K));
    int own = k == 0 ? rt->rank - 2 : rt->rank - 1;
    bool is_sum_last = (k == 0) != is_swapped;
    map.dim[t->rank - (is_sum_last ? 1 : 2)] = sum;
    map.dim[t->rank - (is_sum_last ? 2 : 1)] = out->dim[own];
    return form_want(b, o->in[k], &map, NULL, node);
}

static FormResult form_contract(FormBuilder *b)
{
    const Func *f = b->in->f;
    Form *form = b->form;
    const Op *o = op_cget(f, form->anchor);
    if (form->loops.n == 0) contract_add_loops(form, f, o);
    uint32_t points = ((1u << form->loops.n) - 1) & ~form_loops_of(form, FL_K);
    Affine flat = form_flat_loops(form, points);
    IndexMap out;
    TRY(form_flat_map(b, o->out[0], &flat, &out));
    TRY(contract_operand(b, o, 0, &out, &form->node_a));
    TRY(contract_operand(b, o, 1, &out, &form->node_b));
    for (uint32_t i = 0; i < b->in->n_outs; i++) {
        ValueId v = b->in->outs[i];
        if (type_elems(value_type(f, v)) != form_count(form, points))
            return form_refuse(b, v, "an epilogue over another domain");
        FormStore s = {.out = i, .to = {.at = flat, .dyn = -1}};
        IndexMap map;
        TRY(form_flat_map(b, v, &flat, &map));
        TRY(form_want(b, v, &map, NULL, &s.node));
        VEC_PUSH(b->a, &form->stores, s);
    }
    return FR_OK;
}

/* ---- the driver ---- */

static void split_loop(Form *form, AccessSplit split)
{
    LoopSpace *s = &form->loops;
    for (int l = s->n; l > split.loop + 1; l--) {
        s->extent[l] = s->extent[l - 1];
        form->loop_kind[l] = form->loop_kind[l - 1];
    }
    s->extent[split.loop + 1] = split.inner;
    s->extent[split.loop] /= split.inner;
    form->loop_kind[split.loop + 1] = form->loop_kind[split.loop];
    s->n++;
}

static FormResult form_try(FormBuilder *b)
{
    switch (b->form->kind) {
    case FORM_NEST: return nest_outputs(b);
    case FORM_SCATTER: return form_scatter(b);
    case FORM_CONTRACT: return form_contract(b);
    case FORM_ATTENTION: return form_of_attention(b);
    }
    ZM_UNREACHABLE("form kind");
}

static void form_clear(FormBuilder *b)
{
    Form *form = b->form;
    form->nodes.n = form->stores.n = form->leaves.n = form->wanted.n = 0;
    b->seen = (Map){.arena = b->a};
    b->node_map = (Map){.arena = b->a};
    b->seen_at.n = 0;
    b->depth = 0;
}

/* Starts again after every split; each makes one more loop. */
static FormResult form_settle(FormBuilder *b)
{
    for (;;) {
        form_clear(b);
        FormResult r = form_try(b);
        if (r != FR_SPLIT) return r;
        if (b->form->loops.n == ACCESS_MAX_LOOPS)
            return form_refuse(b, b->in->outs[0], "too many loops");
        split_loop(b->form, b->split);
    }
}

static FormKind kind_of(OpCode anchor)
{
    if (anchor == OP_MATMUL) return FORM_CONTRACT;
    return anchor == OP_SCATTER_ADD ? FORM_SCATTER : FORM_ATTENTION;
}

static FormResult check_args(FormBuilder *b)
{
    bool fits = b->form->leaves.n + b->in->n_outs <= FORM_MAX_ARGS;
    return fits ? FR_OK : form_refuse(b, b->in->outs[0], "too many operands");
}

Form *form_build(Arena *a, const FormIn *in, FormWhy *why)
{
    Form *form = ARENA_NEW(a, Form);
    FormBuilder b = {.a = a, .in = in, .form = form, .why = why};
    Anchors found = find_anchors(a, in);
    *why = (FormWhy){{0}, NULL};
    form->node_a = form->node_b = -1;
    if (found.n_special) {
        form->anchor = found.special;
        form->kind = kind_of(op_cget(in->f, found.special)->code);
        ValueId v = op_cget(in->f, found.special)->out[0];
        FormResult r = found.n_special > 1 ? form_refuse(&b, v, "two kernels of their own kind")
                                           : form_settle(&b);
        return r == FR_OK && check_args(&b) == FR_OK ? form : NULL;
    }
    nest_add_loops(&b, found.reduce, false);
    FormResult r = form_settle(&b);
    if (r != FR_OK && !op_ok(found.reduce)) { /* other loops over the same elements may do */
        form->loops.n = 0;
        nest_add_loops(&b, found.reduce, true);
        r = form_settle(&b);
    }
    return r == FR_OK && check_args(&b) == FR_OK ? form : NULL;
}
