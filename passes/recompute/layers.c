/* layers.c -- the forward's ops by instances of repeats.
 *
 * An instance is known by its parameters ("h.3.ln_1.weight" belongs to h.3).  Ops without
 * parameters between two instances go to one or the other such that the fewest bytes cross: for a
 * transformer that is the residual stream.
 */
#include "passes/recompute/recompute.h"
#include "passes/state_names.h"

#include <string.h>

typedef struct Instance {
    const char *path;     /* interned */
    uint32_t first, last; /* positions of users of its parameters; last: before the next's first */
} Instance;
typedef VEC(Instance) Instances;

/* ---- the forward ---- */

static void find_turn(Forward *w)
{
    const Func *f = w->f;
    w->turn = w->n = func_n_ops(f);
    w->pos = func_positions(w->a, f);
    w->op_at = ARENA_ARRAY(w->a, OpId, w->n);
    FOR_OPS(f, op)
    {
        uint32_t p = w->pos[op.i];
        w->op_at[p] = op;
        if (p < w->turn && loc_ok(loc_by_pass(f->m, op_cget(f, op)->loc, "autodiff"))) w->turn = p;
    }
}

static void find_there(Forward *w)
{
    const Func *f = w->f;
    bool *is_weight = ARENA_ARRAY(w->a, bool, f->values.n); /* made of variables alone */
    for (uint32_t i = 0; i < f->params.n; i++) w->is_there[f->params.at[i].i] = true;
    for (uint32_t p = 0; p < w->turn; p++) {
        const Op *o = op_cget(f, w->op_at[p]);
        bool weight = true, there = op_info(o->code)->traits & TR_VIEW;
        for (uint32_t i = 0; i < o->n_in; i++) {
            weight &= is_weight[o->in[i].i];
            there &= w->is_there[o->in[i].i];
        }
        for (uint32_t i = 0; i < o->n_out; i++) {
            is_weight[o->out[i].i] = weight;
            w->is_there[o->out[i].i] = weight || there;
        }
    }
}

static void find_uses(Forward *w)
{
    const Func *f = w->f;
    for (uint32_t p = w->n; p-- > 0;) {
        const Op *o = op_cget(f, w->op_at[p]);
        uint32_t at = p;
        bool is_view = op_info(o->code)->traits & TR_VIEW;
        if (is_view && p < w->turn && w->last_use[o->out[0].i] > p) at = w->last_use[o->out[0].i];
        for (uint32_t i = 0; i < o->n_in; i++) {
            uint32_t v = o->in[i].i;
            if (p >= w->turn)
                w->is_needed[v] = true;
            else if (at > w->last_use[v])
                w->last_use[v] = at;
        }
    }
}

Forward forward_of(PassCtx *cx, const Func *f)
{
    Forward w = {.cx = cx, .f = f, .a = cx->scratch};
    find_turn(&w);
    w.is_there = ARENA_ARRAY(w.a, bool, f->values.n);
    w.is_needed = ARENA_ARRAY(w.a, bool, f->values.n);
    w.last_use = ARENA_ARRAY(w.a, uint32_t, f->values.n);
    find_there(&w);
    find_uses(&w);
    return w;
}

/* ---- instances ---- */

/* The instance `path` is first used at p, unless it was before. */
static void add_use(Forward *w, Instances *all, const char *path, uint32_t p)
{
    for (uint32_t i = all->n; i-- > 0;)
        if (all->at[i].path == path) return;
    VEC_PUSH(w->a, all, ((Instance){path, p, p}));
}

static VarId read_var(const Func *f, ValueId v)
{
    OpId def = value_cget(f, v)->def;
    if (!op_ok(def) || op_cget(f, def)->code != OP_READ) return (VarId){0};
    return var_find(f->m, attr_str(op_cget(f, def)->attrs, AT_VAR));
}

/* The parameter that v reads; none: v is something else, a bucket say. */
static VarId read_param(const Func *f, ValueId v)
{
    VarId p = read_var(f, v);
    return var_ok(p) && !var_cget(f->m, p)->is_bucket ? p : (VarId){0};
}

/* The parameter that v, as a slice of a gathered bucket in its shape, is; none: v is something
 * else. */
static VarId gathered_param(const Func *f, ValueId v)
{
    const Type *t = value_type(f, v);
    int64_t at = 0;
    OpId def;
    for (; op_ok(def = value_cget(f, v)->def); v = op_cget(f, def)->in[0]) {
        const Op *o = op_cget(f, def);
        if (o->code == OP_ALL_GATHER) break;
        if (o->code != OP_RESHAPE && (o->code != OP_SLICE || value_type(f, v)->rank != 1))
            return (VarId){0};
        if (o->code == OP_SLICE) at += attrs_find(o->attrs, AT_STARTS)->as.list.at[0];
    }
    VarId bucket = op_ok(def) ? read_var(f, op_cget(f, def)->in[0]) : (VarId){0};
    for (uint32_t i = 1; var_ok(bucket) && i < f->m->vars.n; i++) {
        const Var *p = &f->m->vars.at[i];
        if (p->in.i == bucket.i && p->in_offset == at && type_same_shape(p->type, t))
            return (VarId){i};
    }
    return (VarId){0};
}

static void find_params(Forward *w)
{
    w->param = ARENA_ARRAY(w->a, VarId, w->f->values.n);
    for (uint32_t p = 0; p < w->turn; p++) {
        const Op *o = op_cget(w->f, w->op_at[p]);
        if (o->code == OP_READ) w->param[o->out[0].i] = read_param(w->f, o->out[0]);
        if (o->code == OP_SLICE || o->code == OP_RESHAPE)
            w->param[o->out[0].i] = gathered_param(w->f, o->out[0]);
    }
}

/* The instance, `depth` repeats deep, whose parameter operand i of o is; NULL: none. */
static const char *operand_instance(const Forward *w, const Op *o, uint32_t i, uint32_t depth)
{
    VarId p = w->param[o->in[i].i];
    if (!var_ok(p)) return NULL;
    const char *path = repeat_instance(w->f->m, var_cget(w->f->m, p)->name, depth);
    return *path ? path : NULL;
}

/* In the order of their first uses. */
static Instances instances_at(Forward *w, uint32_t depth)
{
    Instances all = {0};
    for (uint32_t p = 0; p < w->turn; p++) {
        const Op *o = op_cget(w->f, w->op_at[p]);
        for (uint32_t i = 0; i < o->n_in; i++) {
            const char *path = operand_instance(w, o, i, depth);
            if (path) add_use(w, &all, path, p);
        }
    }
    uint32_t k = 0; /* of p: the latest instance that has begun */
    for (uint32_t p = 0; all.n && p < w->turn; p++) {
        while (k + 1 < all.n && all.at[k + 1].first <= p) k++;
        const Op *o = op_cget(w->f, w->op_at[p]);
        for (uint32_t i = 0; i < o->n_in; i++)
            if (operand_instance(w, o, i, depth) == all.at[k].path) all.at[k].last = p;
    }
    return all;
}

static bool is_repeated(const Instances *all)
{
    for (uint32_t i = 0; i < all->n; i++) {
        const char *dot = strrchr(all->at[i].path, '.');
        if (strcmp(dot ? dot + 1 : all->at[i].path, "0") != 0) return true;
    }
    return false;
}

/* Of the outermost repeats, or of those inside of repeats that have one instance each. */
static Instances find_instances(Forward *w)
{
    Instances all = instances_at(w, 0);
    for (uint32_t depth = 1; !is_repeated(&all); depth++) {
        Instances inner = instances_at(w, depth);
        if (!inner.n) break;
        all = inner;
    }
    return all;
}

/* ---- where a layer ends ---- */

/* By position: bytes of the forward's values made before it and used at it or later. */
static int64_t *crossing_bytes(const Forward *w)
{
    int64_t *bytes = ARENA_ARRAY(w->a, int64_t, w->turn + 2);
    for (uint32_t p = 0; p < w->turn; p++) {
        const Op *o = op_cget(w->f, w->op_at[p]);
        if (op_info(o->code)->traits & TR_VIEW) continue;
        for (uint32_t i = 0; i < o->n_out; i++) {
            if (w->is_there[o->out[i].i] || w->last_use[o->out[i].i] <= p) continue;
            int64_t n = type_bytes(value_type(w->f, o->out[i]));
            bytes[p + 1] += n;
            bytes[w->last_use[o->out[i].i] + 1] -= n;
        }
    }
    for (uint32_t p = 1; p <= w->turn; p++) bytes[p] += bytes[p - 1];
    return bytes;
}

/* The last position in [from, to] with the smallest positive number of bytes. */
static uint32_t smallest(const int64_t *bytes, uint32_t from, uint32_t to)
{
    uint32_t best = from;
    for (uint32_t p = from; p <= to; p++)
        if (bytes[p] > 0 && (bytes[best] <= 0 || bytes[p] <= bytes[best])) best = p;
    return best;
}

void forward_find_layers(Forward *w)
{
    w->layer = ARENA_ARRAY(w->a, uint32_t, w->turn);
    if (w->turn == w->n) return;
    find_params(w);
    Instances all = find_instances(w);
    if (!all.n) return;
    const int64_t *bytes = crossing_bytes(w);
    w->n_layers = all.n;
    w->begin = ARENA_ARRAY(w->a, uint32_t, all.n + 2);
    w->begin[1] = smallest(bytes, 0, all.at[0].first);
    for (uint32_t i = 1; i < all.n; i++)
        w->begin[i + 1] = smallest(bytes, all.at[i - 1].last + 1, all.at[i].first);
    uint32_t end = all.at[all.n - 1].last + 1; /* as few bytes leave as enter */
    while (end < w->turn && bytes[end] > bytes[w->begin[all.n]]) end++;
    w->begin[all.n + 1] = end;
    for (uint32_t i = 1; i <= all.n; i++)
        for (uint32_t p = w->begin[i]; p < w->begin[i + 1]; p++) w->layer[p] = i;
}
