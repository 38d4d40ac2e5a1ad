/* kernel_build.c -- the kernel form of a `fused` op: the form that pass fuse found
 * (passes/fuse/form.h), with argument numbers, levels, sweeps, merged loops, costs and a name. */
#include <math.h>
#include <string.h>

#include "codegen/kernel.h"
#include "codegen/kernel_loops.h"
#include "passes/fuse/form.h"

typedef struct KernelBuilder {
    Arena *a;
    const Func *f;
    const Op *fused;
    const Func *body;
    const Form *form;
    Kernel *k;
    int32_t *arg_of; /* by value of the body: argument, or -1 */
    uint32_t first_out;
    int32_t *consts;  /* Kernel.consts */
    int32_t n_before; /* nodes in front of the form's: loads of constants */
} KernelBuilder;

/* ---- arguments ---- */

static bool body_param(const void *ctx, ValueId v)
{
    const Func *body = ctx;
    return !op_ok(value_cget(body, v)->def);
}

/* A workspace that the target asked for comes after all arguments (pass workspace); the form does
 * not know it. */
static bool is_workspace(const Func *f, ValueId v)
{
    OpId def = value_cget(f, v)->def;
    return op_ok(def) && op_cget(f, def)->code == OP_WORKSPACE;
}

static void add_arg(Kernel *k, const Type *t, bool is_out)
{
    ZM_CHECK(k->n_args < KERNEL_MAX_ARGS);
    k->args[k->n_args++] =
        (KernelArg){.dtype = t->dtype, .elems = type_elems(t), .is_out = is_out, .alias_in = -1};
}

static void add_args(KernelBuilder *b)
{
    b->arg_of = ARENA_ARRAY(b->a, int32_t, b->body->values.n);
    for (uint32_t v = 0; v < b->body->values.n; v++) b->arg_of[v] = -1;
    for (uint32_t i = 0; i < b->body->params.n; i++) {
        if (is_workspace(b->f, b->fused->in[i])) continue;
        b->arg_of[b->body->params.at[i].i] = (int32_t)b->k->n_args;
        add_arg(b->k, value_type(b->body, b->body->params.at[i]), false);
    }
    b->first_out = b->k->n_args;
    const Op *ret = op_cget(b->body, b->body->last);
    for (uint32_t i = 0; i < ret->n_in; i++) add_arg(b->k, value_type(b->body, ret->in[i]), true);
}

/* ---- constants: hashes of streams ----
 * They are data, so that draws that differ in nothing else share a kernel. */

/* Position of a stream's two words in the last argument. */
static int32_t add_stream(KernelBuilder *b, uint64_t hash)
{
    Kernel *k = b->k;
    int32_t words[] = {(int32_t)(uint32_t)hash, (int32_t)(uint32_t)(hash >> 32)};
    uint32_t at = 0;
    while (at < k->n_consts && memcmp(&b->consts[at], words, sizeof words) != 0) at += 2;
    memcpy(&b->consts[at], words, sizeof words);
    if (at == k->n_consts) k->n_consts += 2;
    return (int32_t)at;
}

static void add_const_arg(KernelBuilder *b)
{
    Kernel *k = b->k;
    k->consts = b->consts;
    if (!k->n_consts) return;
    ZM_CHECK(k->n_args < KERNEL_MAX_ARGS);
    k->args[k->n_args++] = (KernelArg){.dtype = DT_I32, .elems = k->n_consts, .alias_in = -1};
}

/* Every word of every stream as a node, in front of all others. */
static void add_streams(KernelBuilder *b)
{
    Kernel *k = b->k;
    b->consts = ARENA_ARRAY(b->a, int32_t, 2 * b->form->nodes.n + 2);
    for (uint32_t i = 0; i < b->form->nodes.n; i++)
        if (b->form->nodes.at[i].kind == FN_RANDOM) add_stream(b, b->form->nodes.at[i].imm_u64);
    add_const_arg(b);
    b->n_before = (int32_t)k->n_consts;
    k->nodes = ARENA_ARRAY(b->a, Node, k->n_consts + b->form->nodes.n);
    k->accesses = ARENA_ARRAY(b->a, Access, k->n_consts + b->form->nodes.n);
    for (uint32_t i = 0; i < k->n_consts; i++) {
        k->accesses[k->n_accesses] =
            (Access){.arg = (int32_t)k->n_args - 1, .dyn = -1, .base = (int64_t)i};
        k->nodes[k->n_nodes++] = (Node){.kind = KN_LOAD, .dtype = DT_I32, .index = k->n_accesses++};
    }
}

/* ---- loops, accesses, nodes, stores ---- */

static void add_loops(KernelBuilder *b)
{
    static const LoopKind kinds[] = {
        [FL_PAR] = LOOP_PAR, [FL_RED] = LOOP_RED, [FL_BATCH] = LOOP_BATCH,
        [FL_M] = LOOP_M,     [FL_N] = LOOP_N,     [FL_K] = LOOP_K};
    b->k->n_loops = (uint32_t)b->form->loops.n;
    for (uint32_t l = 0; l < b->k->n_loops; l++)
        b->k->loops[l] = (Loop){kinds[b->form->loop_kind[l]], b->form->loops.extent[l]};
}

static void copy_affine(const Affine *e, int64_t *base, int64_t *stride)
{
    *base = e->base;
    memcpy(stride, e->stride, sizeof e->stride);
}

static int32_t node_at(const KernelBuilder *b, int32_t form_node)
{
    return form_node < 0 ? form_node : form_node + b->n_before;
}

static Access access_of(KernelBuilder *b, const FormAccess *from, int32_t arg)
{
    Access x = {.arg = arg, .dyn = node_at(b, from->dyn), .dyn_stride = from->dyn_stride};
    copy_affine(&from->at, &x.base, x.stride);
    for (const AccessGuard *g = from->guards; g; g = g->next) x.n_guards++;
    Guard *guards = ARENA_ARRAY(b->a, Guard, x.n_guards);
    uint32_t i = 0;
    for (const AccessGuard *g = from->guards; g; g = g->next) {
        guards[i].hi = g->n;
        copy_affine(&g->e, &guards[i].base, guards[i].stride);
        i++;
    }
    x.guards = guards;
    return x;
}

static Node node_of(KernelBuilder *b, const FormNode *from)
{
    static const NodeKind kinds[] = {
        [FN_OP] = KN_OP,       [FN_CONST] = KN_CONST,   [FN_LOAD] = KN_LOAD,
        [FN_INDEX] = KN_INDEX, [FN_RANDOM] = KN_RANDOM, [FN_REDUCE] = KN_REDUCE,
        [FN_ACC] = KN_ACC};
    Node n = {.kind = kinds[from->kind],
              .op = from->code,
              .dtype = from->dtype,
              .n_args = from->n_args,
              .imm = from->imm,
              .loc = from->loc};
    for (uint32_t i = 0; i < n.n_args; i++) n.arg[i] = node_at(b, from->arg[i]);
    if (from->kind == FN_RANDOM) {
        int32_t stream = add_stream(b, from->imm_u64);
        n.arg[n.n_args++] = stream;
        n.arg[n.n_args++] = stream + 1;
    }
    if (from->kind == FN_LOAD || from->kind == FN_INDEX) {
        int32_t arg = from->kind == FN_LOAD ? b->arg_of[from->access.leaf.i] : -1;
        n.index = b->k->n_accesses;
        b->k->accesses[b->k->n_accesses++] = access_of(b, &from->access, arg);
    }
    return n;
}

static void add_nodes(KernelBuilder *b)
{
    Kernel *k = b->k;
    for (uint32_t i = 0; i < b->form->nodes.n; i++)
        k->nodes[k->n_nodes++] = node_of(b, &b->form->nodes.at[i]);
    k->node_a = node_at(b, b->form->node_a);
    k->node_b = node_at(b, b->form->node_b);
}

static void add_stores(KernelBuilder *b, bool has_red)
{
    Kernel *k = b->k;
    k->stores = ARENA_ARRAY(b->a, Store, b->form->stores.n);
    for (uint32_t i = 0; i < b->form->stores.n; i++) {
        const FormStore *s = &b->form->stores.at[i];
        int32_t arg = (int32_t)(b->first_out + s->out);
        k->stores[k->n_stores++] = (Store){.node = node_at(b, s->node),
                                           .level = s->is_row && has_red ? LV_ROW : LV_ELEM,
                                           .mode = s->is_add ? ST_ADD : ST_SET,
                                           .to = access_of(b, &s->to, arg)};
    }
}

/* ---- levels and sweeps ---- */

static uint32_t loops_of(const Kernel *k, LoopKind kind)
{
    uint32_t mask = 0;
    for (uint32_t l = 0; l < k->n_loops; l++)
        if (k->loops[l].kind == kind) mask |= 1u << l;
    return mask;
}

/* Sweep after which the node's value is known everywhere in the row. */
static int32_t known_from(const Node *n)
{
    return n->kind == KN_REDUCE ? n->stage + 1 : n->stage;
}

static uint32_t mask_of_access(const Kernel *k, const Access *x)
{
    uint32_t mask = x->dyn >= 0 ? k->nodes[x->dyn].loop_mask : 0;
    for (uint32_t l = 0; l < k->n_loops; l++) {
        bool is_used = x->stride[l] != 0;
        for (uint32_t g = 0; g < x->n_guards; g++) is_used |= x->guards[g].stride[l] != 0;
        if (is_used) mask |= 1u << l;
    }
    return mask;
}

static void set_level(Kernel *k, uint32_t i, uint32_t red)
{
    Node *n = &k->nodes[i];
    bool is_row = n->kind == KN_REDUCE;
    if (n->kind == KN_LOAD || n->kind == KN_INDEX) {
        const Access *x = &k->accesses[n->index];
        n->loop_mask = mask_of_access(k, x);
        if (x->dyn >= 0) {
            is_row = k->nodes[x->dyn].level != LV_CONST;
            n->stage = known_from(&k->nodes[x->dyn]);
        }
    }
    if (n->kind == KN_ACC) n->loop_mask = ((1u << k->n_loops) - 1) & ~loops_of(k, LOOP_K);
    for (uint32_t j = 0; j < n->n_args; j++) {
        const Node *arg = &k->nodes[n->arg[j]];
        n->loop_mask |= arg->loop_mask;
        is_row |= arg->level != LV_CONST;
        if (known_from(arg) > n->stage) n->stage = known_from(arg);
    }
    if (n->kind == KN_REDUCE) n->loop_mask &= ~red;
    bool is_elem = red ? (n->loop_mask & red) != 0 : n->loop_mask != 0 || n->kind == KN_ACC;
    n->level = is_elem ? LV_ELEM : red && (is_row || n->loop_mask) ? LV_ROW : LV_CONST;
}

static void set_levels(Kernel *k)
{
    uint32_t red = loops_of(k, LOOP_RED);
    int32_t last = 0;
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        set_level(k, i, red);
        if (k->nodes[i].kind == KN_REDUCE && k->nodes[i].stage > last) last = k->nodes[i].stage;
    }
    for (uint32_t i = 0; i < k->n_stores; i++) {
        int32_t from = known_from(&k->nodes[k->stores[i].node]);
        if (k->stores[i].level == LV_ELEM && from > last) last = from;
    }
    k->n_stages = (uint32_t)last + 1;
}

/* ---- attention ---- */

static AttnOperand operand_of(KernelBuilder *b, int slot)
{
    const FormOperand *p = &b->form->attn[slot];
    AttnOperand x = {.arg = -1};
    if (!p->is_there) return x;
    x.arg = p->is_out ? (int32_t)(b->first_out + p->out) : b->arg_of[p->leaf.i];
    x.dtype = p->dtype;
    x.base = p->base;
    memcpy(x.stride, p->stride, sizeof x.stride);
    return x;
}

static void add_attention(KernelBuilder *b)
{
    const Op *o = op_cget(b->body, b->form->anchor);
    const Type *q = value_type(b->body, o->in[0]), *v = value_type(b->body, o->in[2]);
    const char *stream = attr_str(o->attrs, AT_STREAM);
    AttnSpec *s = &b->k->attn;
    *s = (AttnSpec){.is_backward = o->code == OP_SDPA_GRAD,
                    .is_causal = attr_int(o->attrs, AT_CAUSAL, 0) != 0,
                    .B = q->dim[0],
                    .H = q->dim[1],
                    .T = q->dim[2],
                    .S = v->dim[2],
                    .D = q->dim[3],
                    .Dv = v->dim[3],
                    .scale = attr_float(o->attrs, AT_SCALE, 1 / sqrt((double)q->dim[3])),
                    .p = attr_float(o->attrs, AT_P, 0),
                    .stream = {.arg = -1, .dtype = DT_I32}};
    AttnOperand *slot[N_FA] = {
        [FA_Q] = &s->q,     [FA_K] = &s->k,       [FA_V] = &s->v,       [FA_OUT] = &s->out,
        [FA_LSE] = &s->lse, [FA_DOUT] = &s->dout, [FA_MASK] = &s->mask, [FA_BIAS] = &s->bias,
        [FA_KEY] = &s->key, [FA_DQ] = &s->dq,     [FA_DK] = &s->dk,     [FA_DV] = &s->dv};
    for (int i = 0; i < N_FA; i++) *slot[i] = operand_of(b, i);
    if (s->p > 0 && stream) {
        b->consts = ARENA_ARRAY(b->a, int32_t, 2);
        add_stream(b, hash_bytes(stream, strlen(stream), 0));
        s->stream.arg = (int32_t)b->k->n_args;
        s->stream.stride[3] = 1;
        add_const_arg(b);
    }
    b->k->n_stages = 1;
}

/* ---- memory shared between an output and an input ---- */

/* Every load of argument `in` reads the element that the same iteration stores: after all its
 * sweeps (a row's element), or in the last one (an element). */
static bool may_share(const Kernel *k, const Store *s, int32_t in)
{
    const KernelArg *x = &k->args[in], *y = &k->args[s->to.arg];
    if (x->elems != y->elems || x->dtype != y->dtype) return false;
    if (k->kind == KK_SCATTER) return false;
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        if (k->nodes[i].kind != KN_LOAD) continue;
        const Access *l = &k->accesses[k->nodes[i].index];
        if (l->arg != in) continue;
        if (l->dyn >= 0 || l->n_guards || l->base != s->to.base) return false;
        if (memcmp(l->stride, s->to.stride, sizeof l->stride) != 0) return false;
        if ((int32_t)i == k->node_a || (int32_t)i == k->node_b) return false;
    }
    return true;
}

static bool is_taken(const Kernel *k, int32_t in)
{
    for (uint32_t i = 0; i < k->n_args; i++)
        if (k->args[i].is_out && k->args[i].alias_in == in) return true;
    return false;
}

static void set_sharing(KernelBuilder *b)
{
    Kernel *k = b->k;
    for (uint32_t i = 0; i < k->n_stores; i++) {
        const Store *s = &k->stores[i];
        KernelArg *out = &k->args[s->to.arg];
        if (k->kind == KK_SCATTER) {
            ValueId base = op_cget(b->body, b->form->anchor)->in[0];
            for (const Op *o; op_ok(value_cget(b->body, base)->def);
                 base = o->in[0]) /* reshapes of it */
                o = op_cget(b->body, value_cget(b->body, base)->def);
            out->alias_in = b->arg_of[base.i];
        }
        for (int32_t in = 0; in < (int32_t)b->first_out && out->alias_in < 0; in++)
            if (!is_taken(k, in) && may_share(k, s, in)) out->alias_in = in;
    }
}

bool kernel_may_share(const Kernel *k, uint32_t out, uint32_t in)
{
    if (k->kind == KK_SCATTER) return k->args[out].alias_in == (int32_t)in;
    for (uint32_t i = 0; i < k->n_stores; i++)
        if (k->stores[i].to.arg == (int32_t)out && !may_share(k, &k->stores[i], (int32_t)in))
            return false;
    return k->kind != KK_ATTENTION;
}

/* ---- cost and name ---- */

static double points(const Kernel *k, uint32_t mask)
{
    double n = 1;
    for (uint32_t l = 0; l < k->n_loops; l++)
        if (mask >> l & 1) n *= (double)k->loops[l].extent;
    return n;
}

/* Elements of an argument that the kernel touches: of one that is read in part (the rest of a
 * division into chunks), what its loads can reach. */
static double elems_touched(const Kernel *k, int32_t arg)
{
    double elems = (double)k->args[arg].elems, reached = 0;
    for (uint32_t i = 0; i < k->n_accesses; i++) {
        const Access *x = &k->accesses[i];
        uint32_t moving = 0;
        if (x->arg != arg) continue;
        for (uint32_t l = 0; l < k->n_loops; l++) moving |= (uint32_t)(x->stride[l] != 0) << l;
        reached += points(k, moving);
    }
    bool is_known = reached > 0 && k->kind != KK_ATTENTION;
    return is_known && reached < elems ? reached : elems;
}

static void set_cost(KernelBuilder *b)
{
    Kernel *k = b->k;
    uint32_t all = (1u << k->n_loops) - 1;
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        const Node *n = &k->nodes[i];
        if (n->kind == KN_OP || n->kind == KN_RANDOM)
            k->flops += op_info(n->op)->cost_flops * points(k, n->loop_mask);
        if (n->kind == KN_REDUCE) k->flops += points(k, n->loop_mask | loops_of(k, LOOP_RED));
        bool is_row_of_table = n->kind == KN_LOAD && k->accesses[n->index].dyn >= 0;
        if (is_row_of_table) k->bytes += points(k, n->loop_mask) * (double)dtype_bytes(n->dtype);
    }
    if (k->kind == KK_CONTRACT) k->flops += 2 * points(k, all);
    if (k->kind == KK_ATTENTION) k->flops += op_flops(b->body, b->form->anchor);
    for (uint32_t i = 0; i < k->n_args; i++) {
        bool is_table = false;
        for (uint32_t x = 0; x < k->n_accesses; x++)
            is_table |= k->accesses[x].arg == (int32_t)i && k->accesses[x].dyn >= 0;
        if (!is_table)
            k->bytes += elems_touched(k, (int32_t)i) * (double)dtype_bytes(k->args[i].dtype);
    }
}

/* What the user wrote: the op that pass expand wrote out, else the op itself. */
static const char *name_of(const Module *m, OpCode code, LocId loc)
{
    LocId part = loc_by_pass(m, loc, "expand");
    if (loc_ok(part)) {
        const char *why = loc_get(m, part)->why;
        return why + (strncmp(why, "part of ", 8) == 0 ? 8 : 0);
    }
    return op_info(code)->name;
}

static void label_add(Str *label, const char *name, uint32_t *n)
{
    enum { MAX_NAMES = 5 };
    size_t len = strlen(name);
    for (const char *p = str_c(label); (p = strstr(p, name)) != NULL; p++) {
        bool is_start = p == label->at || p[-1] == '+', is_end = p[len] == '+' || p[len] == '\0';
        if (is_start && is_end) return;
    }
    if (*n == MAX_NAMES) return;
    str_addf(label, "%s%s", *n ? "+" : "", name);
    (*n)++;
}

static void set_label(KernelBuilder *b)
{
    Str label = {0};
    uint32_t n = 0;
    const Module *m = b->f->m;
    FOR_OPS(b->body, op)
    {
        const Op *o = op_cget(b->body, op);
        if (o->code == OP_CONST || o->code == OP_RETURN || o->code == OP_IOTA ||
            op_is_view(o->code))
            continue;
        label_add(&label, name_of(m, o->code, o->loc), &n);
    }
    if (n == 0) str_add(&label, "copy");
    b->k->label = arena_strdup(b->a, str_c(&label));
    str_free(&label);
}

Kernel *kernel_build(Arena *a, const Func *f, OpId fused)
{
    static const KernelKind kinds[] = {[FORM_NEST] = KK_NEST,
                                       [FORM_SCATTER] = KK_SCATTER,
                                       [FORM_CONTRACT] = KK_CONTRACT,
                                       [FORM_ATTENTION] = KK_ATTENTION};
    const Op *o = op_cget(f, fused);
    const Op *ret = op_cget(o->body, o->body->last);
    FormIn in = {o->body, ret->in, ret->n_in, body_param, o->body};
    FormWhy why;
    const Form *form = form_build(a, &in, &why);
    if (!form) {
        diag_error(f->m->diag, loc_pos(f->m, o->loc), E_CODEGEN, "these ops are not one kernel: %s",
                   why.text);
        return NULL;
    }
    KernelBuilder b = {a, f, o, o->body, form, ARENA_NEW(a, Kernel), NULL, 0, NULL, 0};
    b.k->kind = kinds[form->kind];
    b.k->loc = o->loc;
    add_args(&b);
    if (form->kind == FORM_ATTENTION) {
        add_attention(&b);
    } else {
        add_loops(&b);
        add_streams(&b);
        add_nodes(&b);
        add_stores(&b, loops_of(b.k, LOOP_RED) != 0);
        kernel_merge_loops(b.k);
        set_levels(b.k);
        set_sharing(&b);
    }
    set_cost(&b);
    set_label(&b);
    return b.k;
}
