/* prepare.c -- rewrites before fusion that make better kernels.
 *
 * - layout: out = sdpa(...); merged = transpose(out).  Other uses of out read merged through the
 *   inverse transpose, so that only the merged layout is stored.
 * - concat: a sum of pads that tile one axis (the gradient of a split) is a concat: stores into
 *   ranges, no additions.
 * - wide: a concat of more operands than a kernel takes is a concat of concats.
 */
#include <string.h>

#include "passes/fuse/fuse.h"

enum { MAX_TILES = 16, MAX_CONCAT = 64 };

static const Attr *list_attr(const Op *o, AttrKey key)
{
    const Attr *a = attrs_find(o->attrs, key);
    ZM_CHECK(a != NULL);
    return a;
}

/* ---- layout ---- */

static ValueId inverse_transpose(Func *f, OpId transpose)
{
    const Op *o = op_cget(f, transpose);
    const Attr *perm = list_attr(o, AT_PERM);
    int64_t inverse[ZM_MAX_RANK];
    for (uint32_t d = 0; d < perm->as.list.n; d++) inverse[perm->as.list.at[d]] = d;
    Builder b = {.f = f, .before = o->next, .loc = o->loc};
    return build_transpose(&b, o->out[0], inverse);
}

static bool one_layout(Func *f, const Uses *uses, const uint32_t *pos, OpId sdpa)
{
    ValueId out = op_cget(f, sdpa)->out[0];
    OpId transpose = {0};
    uint32_t n = uses->start[out.i + 1] - uses->start[out.i];
    const OpId *user = &uses->user[uses->start[out.i]];
    for (uint32_t i = 0; i < n && !op_ok(transpose); i++)
        if (op_cget(f, user[i])->code == OP_TRANSPOSE) transpose = user[i];
    if (n < 2 || !op_ok(transpose)) return false;
    for (uint32_t i = 0; i < n; i++)
        if (pos[user[i].i] < pos[transpose.i]) return false;
    ValueId back = inverse_transpose(f, transpose);
    for (uint32_t i = 0; i < n; i++) {
        const Op *o = op_cget(f, user[i]);
        if (user[i].i == transpose.i) continue;
        for (uint32_t k = 0; k < o->n_in; k++)
            if (o->in[k].i == out.i) op_set_operand(f, user[i], k, back);
    }
    return true;
}

/* ---- concat ---- */

typedef struct Tiles {
    OpId pad[MAX_TILES]; /* ascending by low */
    int64_t low[MAX_TILES];
    uint32_t n;
    int axis;
} Tiles;

/* The axis that o pads alone; -1: none or several. */
static int padded_axis(const Func *f, const Op *o)
{
    const int64_t *low = list_attr(o, AT_LOW)->as.list.at,
                  *high = list_attr(o, AT_HIGH)->as.list.at;
    int axis = -1;
    for (int d = 0; d < value_type(f, o->out[0])->rank; d++) {
        if (low[d] == 0 && high[d] == 0) continue;
        if (axis >= 0) return -1;
        axis = d;
    }
    return axis;
}

static bool tiles_add(const Func *f, Tiles *t, OpId pad)
{
    const Op *o = op_cget(f, pad);
    int axis = padded_axis(f, o);
    if (axis < 0 || t->n == MAX_TILES || (t->n && axis != t->axis)) return false;
    t->axis = axis;
    int64_t low = list_attr(o, AT_LOW)->as.list.at[axis];
    uint32_t i = t->n++;
    for (; i > 0 && t->low[i - 1] > low; i--) {
        t->low[i] = t->low[i - 1];
        t->pad[i] = t->pad[i - 1];
    }
    t->low[i] = low;
    t->pad[i] = pad;
    return true;
}

/* All pads below the tree of additions at v. */
static bool tiles_collect(const Func *f, ValueId root, Tiles *t)
{
    ValueId todo[MAX_TILES * 2];
    uint32_t n = 0;
    todo[n++] = root;
    while (n) {
        OpId def = value_cget(f, todo[--n])->def;
        if (!op_ok(def)) return false;
        const Op *o = op_cget(f, def);
        if (o->code == OP_ADD && n + 2 <= MAX_TILES * 2) {
            todo[n++] = o->in[0];
            todo[n++] = o->in[1];
        } else if (o->code != OP_PAD || !tiles_add(f, t, def)) {
            return false;
        }
    }
    return t->n >= 2;
}

static bool tiles_fit(const Func *f, const Tiles *t)
{
    int64_t end = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        if (t->low[i] != end) return false;
        end += value_type(f, op_cget(f, t->pad[i])->in[0])->dim[t->axis];
    }
    return end == value_type(f, op_cget(f, t->pad[0])->out[0])->dim[t->axis];
}

static bool sum_to_concat(Func *f, const Uses *uses, OpId op)
{
    ValueId sum = op_cget(f, op)->out[0];
    Tiles t = {0};
    if (!tiles_collect(f, sum, &t) || !tiles_fit(f, &t)) return false;
    ValueId part[MAX_TILES];
    for (uint32_t i = 0; i < t.n; i++) part[i] = op_cget(f, t.pad[i])->in[0];
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, t.axis);
    Builder b = {.f = f, .before = op, .loc = op_cget(f, op)->loc};
    ValueId whole = build1(&b, OP_CONCAT, part, t.n, &l);
    for (uint32_t i = uses->start[sum.i]; i < uses->start[sum.i + 1]; i++) {
        const Op *o = op_cget(f, uses->user[i]);
        for (uint32_t k = 0; k < o->n_in; k++)
            if (o->in[k].i == sum.i) op_set_operand(f, uses->user[i], k, whole);
    }
    return true;
}

/* ---- wide ---- */

/* Operands in runs of MAX_CONCAT; the loop goes on while there are too many runs. */
static bool narrow_concat(Func *f, OpId op)
{
    bool is_changed = false;
    while (op_cget(f, op)->n_in > MAX_CONCAT) {
        Op o = *op_cget(f, op); /* by value: f grows */
        AttrList l = {0};
        attr_add_int(&l, AT_AXIS, attr_int(o.attrs, AT_AXIS, 0));
        Builder b = {.f = f, .before = op, .loc = o.loc};
        uint32_t n_runs = 0;
        for (uint32_t i = 0; i < o.n_in; i += MAX_CONCAT) {
            uint32_t n = o.n_in - i < MAX_CONCAT ? o.n_in - i : MAX_CONCAT;
            ValueId run = n > 1 ? build1(&b, OP_CONCAT, o.in + i, n, &l) : o.in[i];
            op_set_operand(f, op, n_runs++, run);
        }
        op_get(f, op)->n_in = n_runs;
        is_changed = true;
    }
    return is_changed;
}

/* ---- what nobody uses any more ---- */

static bool erase_unused(PassCtx *cx, Func *f)
{
    Uses uses = func_uses(cx->scratch, f);
    uint32_t *n_users = ARENA_ARRAY(cx->scratch, uint32_t, f->values.n);
    for (uint32_t v = 1; v < f->values.n; v++) n_users[v] = uses.start[v + 1] - uses.start[v];
    bool is_changed = false;
    OpId before;
    for (OpId op = f->last; op_ok(op); op = before) {
        const Op *o = op_cget(f, op);
        before = o->prev;
        bool is_used = !(op_info(o->code)->traits & TR_PURE) && o->code != OP_READ;
        for (uint32_t r = 0; r < o->n_out; r++) is_used |= n_users[o->out[r].i] > 0;
        if (is_used) continue;
        for (uint32_t i = 0; i < o->n_in; i++) n_users[o->in[i].i]--;
        op_erase(f, op);
        is_changed = true;
    }
    return is_changed;
}

void fuse_prepare(PassCtx *cx, Func *f, bool *changed)
{
    Uses uses = func_uses(cx->scratch, f);
    uint32_t *pos = func_positions(cx->scratch, f);
    FOR_OPS(f, op)
    {
        OpCode code = op_cget(f, op)->code;
        if (code == OP_SDPA) *changed |= one_layout(f, &uses, pos, op);
        if (code == OP_CONCAT) *changed |= narrow_concat(f, op);
        if (code == OP_ADD) *changed |= sum_to_concat(f, &uses, op);
    }
    *changed |= erase_unused(cx, f);
}
