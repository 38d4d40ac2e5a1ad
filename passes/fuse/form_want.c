/* form_want.c -- the scalar nodes of a kernel, by demand: one function per way in which an op's
 * element is computed. */
#include <string.h>

#include "passes/fuse/form.h"

FormResult form_refuse(FormBuilder *b, ValueId at, const char *text)
{
    *b->why = (FormWhy){at, text};
    return FR_NO;
}

FormResult form_access_result(FormBuilder *b, AccessResult r, ValueId at)
{
    if (r == ACCESS_OK) return FR_OK;
    if (r == ACCESS_SPLIT) return FR_SPLIT;
    return form_refuse(b, at, "its elements are not reached by an affine index");
}

const Op *form_def(const FormIn *in, ValueId v)
{
    if (in->is_leaf(in->ctx, v)) return NULL;
    OpId def = value_cget(in->f, v)->def;
    ZM_CHECK(op_ok(def)); /* a parameter is a leaf */
    return op_cget(in->f, def);
}

/* ---- nodes ---- */

/* Everything but the access as one affine. */
static uint64_t node_hash(const FormNode *n)
{
    Affine rest = {.base = (int64_t)n->imm_u64};
    memcpy(&rest.stride[0], &n->imm, sizeof n->imm);
    for (int i = 0; i < 6; i++) rest.stride[1 + i] = n->arg[i];
    rest.stride[7] = (int64_t)n->kind << 32 | (int64_t)n->code;
    rest.stride[8] = (int64_t)n->dtype << 32 | n->access.leaf.i;
    rest.stride[9] = n->access.dyn;
    rest.stride[10] = (int64_t)(intptr_t)n->access.guards;
    uint64_t h = affine_hash(&rest, n->n_args);
    return n->kind == FN_LOAD || n->kind == FN_INDEX ? affine_hash(&n->access.at, h) : h;
}

static bool node_equal(const FormNode *x, const FormNode *y)
{
    const FormAccess *p = &x->access, *q = &y->access;
    return x->kind == y->kind && x->code == y->code && x->dtype == y->dtype &&
           x->n_args == y->n_args && memcmp(x->arg, y->arg, sizeof x->arg) == 0 &&
           memcmp(&x->imm, &y->imm, sizeof x->imm) == 0 && x->imm_u64 == y->imm_u64 &&
           p->leaf.i == q->leaf.i && memcmp(&p->at, &q->at, sizeof p->at) == 0 &&
           p->dyn == q->dyn && p->dyn_stride == q->dyn_stride && p->guards == q->guards;
}

int32_t form_node(FormBuilder *b, const FormNode *n)
{
    uint64_t h = node_hash(n);
    uint32_t have = map_get(&b->node_map, h);
    if (have != MAP_NONE && node_equal(&b->form->nodes.at[have], n)) return (int32_t)have;
    VEC_PUSH(b->a, &b->form->nodes, *n);
    map_put(&b->node_map, h, b->form->nodes.n - 1);
    return (int32_t)b->form->nodes.n - 1;
}

static FormNode node_of(FormNodeKind kind, DType dtype, LocId loc)
{
    FormNode n = {.kind = kind, .dtype = dtype, .loc = loc};
    memset(n.arg, -1, sizeof n.arg);
    n.access.dyn = -1;
    return n;
}

static int32_t add_op(FormBuilder *b, OpCode code, DType dtype, LocId loc, uint32_t n,
                      const int32_t *arg)
{
    FormNode node = node_of(FN_OP, dtype, loc);
    node.code = code;
    node.n_args = n;
    for (uint32_t i = 0; i < n; i++) node.arg[i] = arg[i];
    return form_node(b, &node);
}

static int32_t add_const(FormBuilder *b, double v, DType dtype, LocId loc)
{
    FormNode node = node_of(FN_CONST, dtype, loc);
    node.imm = v;
    return form_node(b, &node);
}

static int32_t add_index(FormBuilder *b, const Affine *e, LocId loc)
{
    FormNode node = node_of(FN_INDEX, DT_I32, loc);
    node.access.at = *e;
    return form_node(b, &node);
}

static void add_leaf(FormBuilder *b, ValueId v)
{
    for (uint32_t i = 0; i < b->form->leaves.n; i++)
        if (b->form->leaves.at[i].i == v.i) return;
    VEC_PUSH(b->a, &b->form->leaves, v);
}

static int32_t add_load(FormBuilder *b, ValueId leaf, const Affine *at, const AccessGuard *guards,
                        LocId loc)
{
    FormNode node = node_of(FN_LOAD, value_type(b->in->f, leaf)->dtype, loc);
    node.access.leaf = leaf;
    node.access.at = *at;
    node.access.guards = guards;
    add_leaf(b, leaf);
    return form_node(b, &node);
}

/* lo <= e < hi as an i1 node. */
static int32_t add_range_test(FormBuilder *b, const Affine *e, int64_t n, LocId loc)
{
    int32_t index = add_index(b, e, loc);
    int32_t low[] = {index, add_const(b, 0, DT_I32, loc)};
    int32_t high[] = {index, add_const(b, (double)n, DT_I32, loc)};
    int32_t both[] = {add_op(b, OP_GE, DT_I1, loc, 2, low), add_op(b, OP_LT, DT_I1, loc, 2, high)};
    return add_op(b, OP_AND, DT_I1, loc, 2, both);
}

/* ---- loops ---- */

void form_add_loop(Form *form, FormLoopKind kind, int64_t extent)
{
    if (extent == 1) return;
    ZM_CHECK(form->loops.n < ACCESS_MAX_LOOPS);
    form->loops.extent[form->loops.n] = extent;
    form->loop_kind[form->loops.n++] = kind;
}

uint32_t form_loops_of(const Form *form, FormLoopKind kind)
{
    uint32_t mask = 0;
    for (int l = 0; l < form->loops.n; l++)
        if (form->loop_kind[l] == kind) mask |= 1u << l;
    return mask;
}

Affine form_flat_loops(const Form *form, uint32_t mask)
{
    Affine e = {0};
    int64_t step = 1;
    for (int l = form->loops.n - 1; l >= 0; l--) {
        if (!(mask >> l & 1)) continue;
        e.stride[l] = step;
        step *= form->loops.extent[l];
    }
    return e;
}

int64_t form_count(const Form *form, uint32_t mask)
{
    int64_t n = 1;
    for (int l = 0; l < form->loops.n; l++)
        if (mask >> l & 1) n *= form->loops.extent[l];
    return n;
}

FormResult form_flat_map(FormBuilder *b, ValueId v, const Affine *flat, IndexMap *map)
{
    const Type *t = value_type(b->in->f, v);
    memset(map, 0, sizeof *map);
    map->rank = t->rank;
    AccessResult r = affine_digits(&b->form->loops, flat, t->rank, t->dim, map->dim, &b->split);
    return form_access_result(b, r, v);
}

/* ---- one function per way ---- */

typedef struct Want { /* what is asked for */
    ValueId v;
    const Op *o;
    const IndexMap *map;
    const AccessGuard *guards;
} Want;

#define TRY(CALL)                                                                                  \
    do {                                                                                           \
        FormResult result_ = (CALL);                                                               \
        if (result_ != FR_OK) return result_;                                                      \
    } while (0)

/* Is v a leaf seen through views: a load that yields 0 outside of its guards? */
static bool is_plain_load(const FormIn *in, ValueId v)
{
    const Op *o;
    while ((o = form_def(in, v)) != NULL) {
        if (!op_is_view(o->code)) return false;
        v = o->in[0];
    }
    return true;
}

static FormResult want_view(FormBuilder *b, const Want *w, int32_t *node)
{
    const Func *f = b->in->f;
    ValueId from = w->o->in[0];
    if (w->o->code == OP_RESHAPE && b->in->is_leaf(b->in->ctx, from)) {
        Affine flat = map_flatten(w->map, value_type(f, w->v)); /* memory has no shape */
        *node = add_load(b, from, &flat, w->guards, w->o->loc);
        return FR_OK;
    }
    IndexMap *map = ARENA_NEW(b->a, IndexMap);
    const AccessGuard *guards = w->guards;
    AccessResult r =
        map_through_view(b->a, &b->form->loops, f, w->o, 0, w->map, map, &guards, &b->split);
    TRY(form_access_result(b, r, from));
    TRY(form_want(b, from, map, guards, node));
    if (guards == w->guards || is_plain_load(b->in, from)) return FR_OK;
    DType dt = value_type(f, w->v)->dtype;
    for (const AccessGuard *g = guards; g != w->guards; g = g->next) {
        int32_t arg[] = {add_range_test(b, &g->e, g->n, w->o->loc), *node,
                         add_const(b, 0, dt, w->o->loc)};
        *node = add_op(b, OP_SELECT, dt, w->o->loc, 3, arg);
    }
    return FR_OK;
}

/* Operand k where the axis is below the end of operand k, else the ones after it. */
static FormResult want_concat(FormBuilder *b, const Want *w, int32_t *node)
{
    const Func *f = b->in->f;
    int axis = (int)attr_int(w->o->attrs, AT_AXIS, 0);
    DType dt = value_type(f, w->v)->dtype;
    int64_t end = value_type(f, w->v)->dim[axis], lo, hi;
    affine_range(&b->form->loops, &w->map->dim[axis], &lo, &hi);
    bool is_first = true;
    for (uint32_t k = w->o->n_in; k-- > 0;) {
        int64_t start = end - value_type(f, w->o->in[k])->dim[axis];
        bool is_met = hi >= start && lo < end && hi >= 0;
        if (is_met || (is_first && k == 0)) {
            IndexMap *map = ARENA_NEW(b->a, IndexMap);
            const AccessGuard *guards = w->guards;
            int32_t part;
            map_through_view(b->a, &b->form->loops, f, w->o, k, w->map, map, &guards, &b->split);
            TRY(form_want(b, w->o->in[k], map, guards, &part));
            if (is_first) {
                *node = part;
            } else {
                int32_t test[] = {add_index(b, &w->map->dim[axis], w->o->loc),
                                  add_const(b, (double)end, DT_I32, w->o->loc)};
                int32_t arg[] = {add_op(b, OP_LT, DT_I1, w->o->loc, 2, test), part, *node};
                *node = add_op(b, OP_SELECT, dt, w->o->loc, 3, arg);
            }
            is_first = false;
        }
        end = start;
    }
    return FR_OK;
}

static FormResult want_point(FormBuilder *b, const Want *w, int32_t *node)
{
    int32_t arg[6];
    ZM_CHECK(w->o->n_in <= 4);
    for (uint32_t i = 0; i < w->o->n_in; i++)
        TRY(form_want(b, w->o->in[i], w->map, w->guards, &arg[i]));
    *node = add_op(b, w->o->code, value_type(b->in->f, w->v)->dtype, w->o->loc, w->o->n_in, arg);
    return FR_OK;
}

static FormResult want_iota(FormBuilder *b, const Want *w, int32_t *node)
{
    DType dt = value_type(b->in->f, w->v)->dtype;
    *node = add_index(b, &w->map->dim[attr_int(w->o->attrs, AT_AXIS, 0)], w->o->loc);
    if (dt != DT_I32) *node = add_op(b, OP_CAST, dt, w->o->loc, 1, node);
    return FR_OK;
}

static FormResult want_random(FormBuilder *b, const Want *w, int32_t *node)
{
    const Type *t = value_type(b->in->f, w->v);
    int64_t batch = attr_int(w->o->attrs, AT_BATCH, 1);
    int64_t dims[] = {batch, type_elems(t) / batch};
    Affine flat = map_flatten(w->map, t), digit[2];
    AccessResult r = affine_digits(&b->form->loops, &flat, 2, dims, digit, &b->split);
    TRY(form_access_result(b, r, w->v));
    FormNode n = node_of(FN_RANDOM, DT_F32, w->o->loc);
    const char *stream = attr_str(w->o->attrs, AT_STREAM);
    n.code = OP_RANDOM;
    n.n_args = 6;
    n.imm_u64 = hash_bytes(stream, strlen(stream), 0);
    for (int word = 0; word < 4; word++) {
        IndexMap map = {.rank = 1, .dim[0].base = word};
        TRY(form_want(b, w->o->in[0], &map, NULL, &n.arg[word]));
    }
    n.arg[4] = add_index(b, &digit[1], w->o->loc);
    n.arg[5] = add_index(b, &digit[0], w->o->loc);
    *node = form_node(b, &n);
    return FR_OK;
}

static FormResult want_embed(FormBuilder *b, const Want *w, int32_t *node)
{
    ValueId table = w->o->in[0];
    if (!b->in->is_leaf(b->in->ctx, table))
        return form_refuse(b, table, "a table of rows is read from memory");
    IndexMap *row = ARENA_NEW(b->a, IndexMap);
    *row = *w->map;
    row->rank--;
    FormNode n = node_of(FN_LOAD, value_type(b->in->f, table)->dtype, w->o->loc);
    TRY(form_want(b, w->o->in[1], row, w->guards, &n.access.dyn));
    n.access.leaf = table;
    n.access.at = w->map->dim[row->rank];
    n.access.dyn_stride = value_type(b->in->f, table)->dim[1];
    n.access.guards = w->guards;
    add_leaf(b, table);
    *node = form_node(b, &n);
    return FR_OK;
}

static FormResult want_reduce(FormBuilder *b, const Want *w, int32_t *node)
{
    const Func *f = b->in->f;
    ValueId from = w->o->in[0];
    const Type *t = value_type(f, from);
    uint32_t red = form_loops_of(b->form, FL_RED);
    const Attr *dims = attrs_find(w->o->attrs, AT_DIMS);
    int64_t dim[ZM_MAX_RANK], n_red = 1;
    int n = (int)dims->as.list.n;
    for (int i = 0; i < n; i++) n_red *= dim[i] = t->dim[dims->as.list.at[i]];
    if (n_red == 1) red = 0; /* a sum of one element */
    for (int d = 0; d < w->map->rank; d++)
        if (affine_mask(&w->map->dim[d]) & red)
            return form_refuse(b, w->v, "a reduction inside of another's sweep");
    if (n_red != form_count(b->form, red))
        return form_refuse(b, w->v, "reductions over different domains");
    Affine flat = form_flat_loops(b->form, red), digit[ZM_MAX_RANK];
    TRY(form_access_result(b, affine_digits(&b->form->loops, &flat, n, dim, digit, &b->split),
                           w->v));
    IndexMap *map = ARENA_NEW(b->a, IndexMap);
    map->rank = t->rank;
    for (int d = 0, next = 0, kept = 0; d < t->rank; d++) {
        bool is_reduced = next < n && dims->as.list.at[next] == d;
        map->dim[d] = is_reduced ? digit[next++] : w->map->dim[kept++];
    }
    FormNode node_r = node_of(FN_REDUCE, value_type(f, w->v)->dtype, w->o->loc);
    if (n_red == 1) return form_want(b, from, map, w->guards, node);
    TRY(form_want(b, from, map, w->guards, &node_r.arg[0]));
    node_r.code = w->o->code;
    node_r.n_args = 1;
    *node = form_node(b, &node_r);
    return FR_OK;
}

/* The matmul that the kernel is about, inside of its epilogue. */
static FormResult want_acc(FormBuilder *b, const Want *w, int32_t *node)
{
    uint32_t all = (1u << b->form->loops.n) - 1;
    Affine flat = form_flat_loops(b->form, all & ~form_loops_of(b->form, FL_K));
    Affine have = map_flatten(w->map, value_type(b->in->f, w->v));
    if (memcmp(&flat, &have, sizeof flat) != 0 || w->guards)
        return form_refuse(b, w->v, "a product is used beside its own element");
    FormNode n =
        node_of(FN_ACC, value_type(b->in->f, w->v)->dtype == DT_F64 ? DT_F64 : DT_F32, w->o->loc);
    n.code = OP_MATMUL;
    *node = form_node(b, &n);
    DType dt = value_type(b->in->f, w->v)->dtype;
    if (dt != n.dtype) *node = add_op(b, OP_CAST, dt, w->o->loc, 1, node);
    return FR_OK;
}

static FormResult want_op(FormBuilder *b, const Want *w, int32_t *node)
{
    OpCode code = w->o->code;
    DType dt = value_type(b->in->f, w->v)->dtype;
    if (op_is_view(code)) return want_view(b, w, node);
    if (code == OP_CONCAT) return want_concat(b, w, node);
    if (code == OP_IOTA) return want_iota(b, w, node);
    if (code == OP_RANDOM) return want_random(b, w, node);
    if (code == OP_EMBED) return want_embed(b, w, node);
    if (code == OP_REDUCE_SUM || code == OP_REDUCE_MAX) return want_reduce(b, w, node);
    if (op_info(code)->traits & TR_POINTWISE) return want_point(b, w, node);
    if (code == OP_CONST) {
        *node = add_const(b, attr_float(w->o->attrs, AT_VALUE, 0), dt, w->o->loc);
        return FR_OK;
    }
    bool is_acc = b->form->kind == FORM_CONTRACT && code == OP_MATMUL &&
                  w->o == op_cget(b->in->f, b->form->anchor);
    if (is_acc) return want_acc(b, w, node);
    return form_refuse(b, w->v, "this op is a kernel of its own kind");
}

static uint64_t want_hash(ValueId v, const IndexMap *map, const AccessGuard *guards)
{
    uint64_t h = v.i ^ (uint64_t)(uintptr_t)guards;
    for (int d = 0; d < map->rank; d++) h = affine_hash(&map->dim[d], h);
    return h;
}

static bool seen_is(const FormSeen *s, ValueId v, const IndexMap *map, const AccessGuard *guards)
{
    return s->v.i == v.i && s->guards == guards &&
           memcmp(s->map->dim, map->dim, (size_t)map->rank * sizeof map->dim[0]) == 0;
}

FormResult form_want(FormBuilder *b, ValueId v, const IndexMap *map, const AccessGuard *guards,
                     int32_t *node)
{
    uint64_t h = want_hash(v, map, guards);
    uint32_t have = map_get(&b->seen, h);
    if (have != MAP_NONE && seen_is(&b->seen_at.at[have], v, map, guards)) {
        *node = b->seen_at.at[have].node;
        return FR_OK;
    }
    Want w = {v, form_def(b->in, v), map, guards};
    if (!w.o) {
        Affine flat = map_flatten(map, value_type(b->in->f, v));
        *node = add_load(b, v, &flat, guards, (LocId){0});
    } else {
        if (b->form->nodes.n > FORM_MAX_NODES || b->depth > FORM_MAX_DEPTH)
            return form_refuse(b, v, "the kernel grows too large");
        b->depth++;
        FormResult r = want_op(b, &w, node);
        b->depth--;
        if (r != FR_OK) return r;
        VEC_PUSH(b->a, &b->form->wanted, v);
    }
    size_t map_bytes = offsetof(IndexMap, dim) + (size_t)map->rank * sizeof map->dim[0];
    IndexMap *kept = arena_alloc(b->a, map_bytes);
    memcpy(kept, map, map_bytes);
    VEC_PUSH(b->a, &b->seen_at, ((FormSeen){v, kept, guards, *node}));
    map_put(&b->seen, h, b->seen_at.n - 1);
    return FR_OK;
}
