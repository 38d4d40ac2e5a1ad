/* bucket.c -- flat buckets: parameters, moments and accumulators become views of 1-D variables, and
 * @last updates each bucket by one op.
 *
 * A bucket is a variable @bucket.k : dtype[S]; its parameters lie in it one after another in
 * variable order without gaps, S is padded with zeros to a multiple of ranks x 64 elements.
 * @master.bucket.k, @exp_avg.bucket.k, @grad.bucket.k, ... have the same layout, each in a dtype of
 * its own; the update reads and writes the masters where there are some, and the 16-bit bucket gets
 * their rounding in the same kernel. One bucket per (instance of a repeat
 * or the remainder, dtype, optimizer settings), merged in order up to
 * --bucket-bytes on one rank.  On several none spans instances, at any stage of ZeRO: stage 3
 * gathers an instance at a time, and the order of the norm's sum, which follows the buckets, is
 * that of every other stage.  Reads of single parameters stay as they are: a view copies nothing.
 * Gradients are gathered by `pack`, which the memory plan makes free.
 *
 * Source of the idea: flat optimizer partitions, ZeRO, arXiv:1910.02054.
 */
#include "passes/pass.h"
#include "passes/state_names.h"
#include "passes/update_ops.h"

#include <string.h>

enum { BUCKET_ELEMS = 64, MAX_SLOTS = 4 };

typedef struct Member {
    VarId var;   /* the parameter */
    VarId state; /* what the update reads and writes: its master, or the parameter itself */
    OpId update; /* in @last */
    int64_t offset;
} Member;

typedef struct Bucket {
    const char *group; /* path of the repeat instance, "" = remainder; first of those merged */
    DType dtype;
    bool has_master;
    bool is_pure;       /* no masters: the update rounds stochastically (master.c) ... */
    const char *stream; /* ... by random numbers of this stream ... */
    int64_t first;      /* ... from this one on */
    Op settings;        /* an update op: code and attributes */
    VEC(Member) members;
    int64_t elems;
    VarId var;
    const char *name;
} Bucket;

typedef struct Bucketing {
    PassCtx *cx;
    Module *m;
    Func *last;
    Builder b;
    VEC(Bucket) buckets;
} Bucketing;

/* ---- which parameters share a bucket ---- */

static bool same_settings(const Op *x, const Op *y)
{
    if (x->code != y->code || x->attrs.n != y->attrs.n) return false;
    for (uint32_t i = 0; i < x->attrs.n; i++) {
        const Attr *a = &x->attrs.at[i], *b = &y->attrs.at[i];
        if (a->key != b->key || memcmp(&a->as, &b->as, sizeof a->as) != 0) return false;
    }
    return true;
}

/* Behind the cast of a parameter without a master, too. */
static VarId state_var(const Func *f, ValueId v)
{
    OpId def = value_cget(f, v)->def;
    bool is_cast = op_ok(def) && op_cget(f, def)->code == OP_CAST;
    return value_read_var(f, is_cast ? op_cget(f, def)->in[0] : v);
}

/* Adds the parameter of `update` to the bucket of its group, or opens one. */
static void bucket_add(Bucketing *bk, OpId update)
{
    const Op *op = op_cget(bk->last, update);
    Member member = {.state = state_var(bk->last, op->in[0]), .update = update};
    const Var *state = var_cget(bk->m, member.state);
    bool has_master = state->kind == VK_MASTER;
    member.var = has_master ? state->of : member.state;
    const Var *p = var_cget(bk->m, member.var);
    const char *group = repeat_instance(bk->m, p->name, 0);
    for (uint32_t i = 0; i < bk->buckets.n; i++) {
        Bucket *k = &bk->buckets.at[i];
        if (k->group != group || k->dtype != p->type->dtype || k->has_master != has_master ||
            !same_settings(&k->settings, op))
            continue;
        VEC_PUSH(bk->cx->scratch, &k->members, member);
        return;
    }
    Bucket fresh = {.group = group,
                    .dtype = p->type->dtype,
                    .has_master = has_master,
                    .is_pure = !var_ok(value_read_var(bk->last, op->in[0])),
                    .settings = *op};
    VEC_PUSH(bk->cx->scratch, &fresh.members, member);
    VEC_PUSH(bk->cx->scratch, &bk->buckets, fresh);
}

/* In f32, whatever the parameters' dtype: gradients and masters have the same layout, and a model's
 * buckets are the same in every precision. */
static int64_t bucket_bytes(const Bucketing *bk, const Bucket *k)
{
    int64_t n = 0;
    for (uint32_t i = 0; i < k->members.n; i++)
        n += type_elems(var_cget(bk->m, k->members.at[i].var)->type);
    return n * dtype_bytes(DT_F32);
}

static bool same_class(const Bucket *x, const Bucket *y)
{
    return x->dtype == y->dtype && x->has_master == y->has_master &&
           same_settings(&x->settings, &y->settings);
}

/* Merges each bucket into the latest earlier one with its settings while that stays within the
 * limit. */
static void merge_buckets(Bucketing *bk)
{
    if (bk->cx->opt->ranks > 1) return;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < bk->buckets.n; i++) {
        Bucket *k = &bk->buckets.at[i];
        Bucket *into = NULL;
        for (uint32_t j = kept; j-- > 0 && !into;)
            if (same_class(&bk->buckets.at[j], k)) into = &bk->buckets.at[j];
        if (into && bucket_bytes(bk, into) + bucket_bytes(bk, k) <= bk->cx->opt->bucket_bytes) {
            for (uint32_t j = 0; j < k->members.n; j++)
                VEC_PUSH(bk->cx->scratch, &into->members, k->members.at[j]);
        } else
            bk->buckets.at[kept++] = *k;
    }
    bk->buckets.n = kept;
}

/* Elements of the buckets of one class are numbered on, in an order that neither the limit on a
 * bucket's bytes nor the number of ranks changes: so parameters are rounded alike in every layout.
 */
static void number_elements(Bucketing *bk)
{
    for (uint32_t i = 0; i < bk->buckets.n; i++) {
        Bucket *k = &bk->buckets.at[i];
        const Member *start = &k->members.at[0];
        for (uint32_t j = i; j-- > 0;) {
            const Bucket *before = &bk->buckets.at[j];
            if (!same_class(before, k)) continue;
            start = &before->members.at[0];
            for (uint32_t n = 0; n < before->members.n; n++)
                k->first += type_elems(var_cget(bk->m, before->members.at[n].var)->type);
        }
        k->stream =
            arena_printf(bk->m->arena, STATE_ROUND ".%s", var_cget(bk->m, start->var)->name);
    }
}

/* ---- variables ---- */

static void place_members(Bucketing *bk, Bucket *k)
{
    int64_t n = 0;
    for (uint32_t i = 0; i < k->members.n; i++) {
        k->members.at[i].offset = n;
        n += type_elems(var_cget(bk->m, k->members.at[i].var)->type);
    }
    int64_t unit = (int64_t)bk->cx->opt->ranks * BUCKET_ELEMS;
    k->elems = (n + unit - 1) / unit * unit;
}

/* A flat variable for the slot that `var_of(member)` names, and the members' variables as views of
 * it. */
static VarId flat_var(Bucketing *bk, Bucket *k, const char *name, const VarId *members)
{
    const Var *first = var_cget(bk->m, members[0]);
    Var flat = {.name = name,
                .type = type_get(bk->m, first->type->dtype, 1, &k->elems),
                .kind = first->kind,
                .is_bucket = true,
                .loc = first->loc};
    if (first->kind != VK_PARAM) flat.of = k->var;
    VarId id = var_new(bk->m, flat);
    for (uint32_t i = 0; i < k->members.n; i++) {
        var_get(bk->m, members[i])->in = id;
        var_get(bk->m, members[i])->in_offset = k->members.at[i].offset;
    }
    return id;
}

/* ---- @last ---- */

static ValueId pack_grads(Bucketing *bk, const Bucket *k)
{
    uint32_t n = k->members.n;
    ValueId *in = ARENA_ARRAY(bk->cx->scratch, ValueId, n);
    int64_t *start = ARENA_ARRAY(bk->cx->scratch, int64_t, n);
    for (uint32_t i = 0; i < n; i++) {
        in[i] = op_cget(bk->last, k->members.at[i].update)->in[1];
        start[i] = k->members.at[i].offset;
    }
    AttrList l = {0};
    attr_add_list(&l, AT_STARTS, start, n);
    attr_add_list(&l, AT_SHAPE, &k->elems, 1);
    return build1(&bk->b, OP_PACK, in, n, &l);
}

/* The bucket's gradient as one flat value: the accumulator, or a pack of the members' gradients. */
static ValueId flat_grad(Bucketing *bk, Bucket *k)
{
    VarId *acc = ARENA_ARRAY(bk->cx->scratch, VarId, k->members.n);
    for (uint32_t i = 0; i < k->members.n; i++) {
        acc[i] = value_read_var(bk->last, op_cget(bk->last, k->members.at[i].update)->in[1]);
        if (!var_ok(acc[i]) || var_cget(bk->m, acc[i])->kind != VK_GRAD) return pack_grads(bk, k);
    }
    return build_read(&bk->b,
                      flat_var(bk, k, arena_printf(bk->m->arena, STATE_GRAD ".%s", k->name), acc));
}

/* Operands of `op` that are per-parameter gradients become the buckets' flat ones; the operands
 * after them stay. */
static void replace_grad_operands(Bucketing *bk, OpId id, const ValueId *flat, uint32_t n_grads)
{
    Op *op = op_get(bk->last, id);
    uint32_t tail = op->n_in - n_grads;
    ValueId *in = ARENA_ARRAY(bk->m->arena, ValueId, bk->buckets.n + tail);
    memcpy(in, flat, bk->buckets.n * sizeof *in);
    memcpy(in + bk->buckets.n, op->in + n_grads, tail * sizeof *in);
    op->in = in;
    op->n_in = bk->buckets.n + tail;
    if (op->code != OP_PROBE) return;
    Str names = {0};
    for (uint32_t i = 0; i < bk->buckets.n; i++)
        str_addf(&names, "%s%s", i ? "," : "", bk->buckets.at[i].name);
    AttrList l = {0};
    attr_add_str(&l, AT_NAMES, str_c(&names));
    op->attrs = attrs_copy(bk->m, &l);
    str_free(&names);
}

/* The flat variable of the members' `SLOT.<path>` variables, SLOT.bucket.k. */
static VarId flat_slot(Bucketing *bk, Bucket *k, const VarId *members)
{
    const char *first = var_cget(bk->m, members[0])->name;
    int prefix = (int)(strlen(first) - strlen(var_cget(bk->m, k->members.at[0].var)->name));
    return flat_var(bk, k, arena_printf(bk->m->arena, "%.*s%s", prefix, first, k->name), members);
}

/* What the bucket's update reads and writes: the flat masters, or the parameters themselves. */
static VarId flat_state(Bucketing *bk, Bucket *k)
{
    VarId *state = ARENA_ARRAY(bk->cx->scratch, VarId, k->members.n);
    for (uint32_t i = 0; i < k->members.n; i++) state[i] = k->members.at[i].state;
    return k->has_master ? flat_slot(bk, k, state) : k->var;
}

static VarId flat_moment(Bucketing *bk, Bucket *k, uint32_t slot)
{
    VarId *moment = ARENA_ARRAY(bk->cx->scratch, VarId, k->members.n);
    for (uint32_t i = 0; i < k->members.n; i++)
        moment[i] = value_read_var(bk->last, op_cget(bk->last, k->members.at[i].update)->in[slot]);
    return flat_slot(bk, k, moment);
}

static void update_bucket(Bucketing *bk, Bucket *k, ValueId grad)
{
    OpId last_update = k->members.at[k->members.n - 1].update;
    Op like = *op_cget(bk->last, last_update);
    uint32_t n_moments = update_n_moments(like.code);
    bk->b = (Builder){.f = bk->last, .before = like.next, .loc = like.loc};
    VarId target[MAX_SLOTS] = {flat_state(bk, k)};
    ValueId state = build_read(&bk->b, target[0]);
    if (k->is_pure) state = build_cast(&bk->b, state, DT_F32);
    ValueId in[16] = {state, grad};
    for (uint32_t s = 1; s <= n_moments; s++) {
        target[s] = flat_moment(bk, k, 1 + s);
        in[1 + s] = build_read(&bk->b, target[s]);
    }
    memcpy(in + 2 + n_moments, like.in + 2 + n_moments, (like.n_in - 2 - n_moments) * sizeof *in);
    AttrList l = {.n = like.attrs.n};
    memcpy(l.at, like.attrs.at, like.attrs.n * sizeof *l.at);
    OpId op = build_op(&bk->b, like.code, in, like.n_in, &l);
    ValueId now = op_cget(bk->last, op)->out[0];
    if (!k->is_pure) build_write(&bk->b, target[0], now);
    for (uint32_t s = 1; s <= n_moments; s++)
        build_write(&bk->b, target[s], op_cget(bk->last, op)->out[s]);
    if (k->is_pure) now = build_rounding(&bk->b, now, k->stream, k->first);
    if (k->is_pure || k->has_master) build_write(&bk->b, k->var, build_cast(&bk->b, now, k->dtype));
}

/* Reads that nobody uses any more; without masters also the casts behind them, and the random
 * numbers of single parameters. */
static void erase_unused(Bucketing *bk)
{
    Func *f = bk->last;
    uint32_t *n_uses = ARENA_ARRAY(bk->cx->scratch, uint32_t, f->values.n);
    FOR_OPS(f, op)
    for (uint32_t i = 0; i < op_cget(f, op)->n_in; i++) n_uses[op_cget(f, op)->in[i].i]++;
    for (OpId op = f->last, prev; op_ok(op); op = prev) {
        const Op *o = op_cget(f, op);
        prev = o->prev;
        bool may_go =
            o->code == OP_READ || (bk->m->train.pure && op_info(o->code)->traits & TR_PURE);
        if (!may_go || o->n_out != 1 || n_uses[o->out[0].i]) continue;
        for (uint32_t i = 0; i < o->n_in; i++) n_uses[o->in[i].i]--;
        op_erase(f, op);
    }
}

/* Drops the per-parameter updates, their writes, and the reads that only they used. */
static void erase_old(Bucketing *bk)
{
    Func *f = bk->last;
    bool *dead = ARENA_ARRAY(bk->cx->scratch, bool, f->values.n);
    for (uint32_t i = 0; i < bk->buckets.n; i++)
        for (uint32_t j = 0; j < bk->buckets.at[i].members.n; j++) {
            const Op *u = op_cget(f, bk->buckets.at[i].members.at[j].update);
            for (uint32_t r = 0; r < u->n_out; r++) dead[u->out[r].i] = true;
        }
    OpId *roundings = ARENA_ARRAY(bk->cx->scratch, OpId, f->ops.n);
    uint32_t n_roundings = 0;
    FOR_OPS(f, op)
    {
        const Op *o = op_cget(f, op);
        if ((o->code == OP_CAST || o->code == OP_ROUND_BF16) && dead[o->in[0].i]) {
            dead[o->out[0].i] = true;
            roundings[n_roundings++] = op;
        }
        if (o->code == OP_WRITE && dead[o->in[0].i]) op_erase(f, op);
    }
    while (n_roundings) op_erase(f, roundings[--n_roundings]);
    for (uint32_t i = 0; i < bk->buckets.n; i++)
        for (uint32_t j = 0; j < bk->buckets.at[i].members.n; j++)
            op_erase(f, bk->buckets.at[i].members.at[j].update);
    erase_unused(bk);
}

/* Writes of zeros to members of one accumulator bucket become one write of the bucket. */
static void merge_zero_writes(Bucketing *bk)
{
    bool *is_done = ARENA_ARRAY(bk->cx->scratch, bool, bk->m->vars.n);
    Func *f = bk->last;
    FOR_OPS(f, op)
    {
        const Op *o = op_cget(f, op);
        if (o->code != OP_WRITE) continue;
        const Var *v = var_cget(bk->m, var_find(bk->m, attr_str(o->attrs, AT_VAR)));
        OpId def = value_cget(f, o->in[0])->def;
        if (v->kind != VK_GRAD || !var_ok(v->in) || !op_ok(def) ||
            op_cget(f, def)->code != OP_CONST)
            continue;
        if (!is_done[v->in.i]) {
            Builder b = {.f = f, .before = op, .loc = o->loc};
            build_write(&b, v->in, build_splat(&b, 0, var_cget(bk->m, v->in)->type));
            is_done[v->in.i] = true;
        }
        op_erase(f, op);
        op_erase(f, def);
    }
}

static OpId find_op(const Func *f, OpCode code)
{
    FOR_OPS(f, op)
    if (op_cget(f, op)->code == code) return op;
    return (OpId){0};
}

/* Ops of @last that take the gradient of every parameter; flat ones afterwards. */
static const OpCode gradient_users[] = {OP_ALL_FINITE, OP_SUM_SQUARES, OP_PROBE};
enum { N_GRADIENT_USERS = sizeof gradient_users / sizeof *gradient_users };

/* What the pass takes for granted in @last, where it was edited by hand. */
static Status check_last(const Bucketing *bk, uint32_t n_grads)
{
    const Module *m = bk->m;
    FOR_OPS(bk->last, id)
    {
        const Op *op = op_cget(bk->last, id);
        for (uint32_t i = 0; op_is_update(op->code) && i < 2 + update_n_moments(op->code); i++)
            if (i != 1 &&
                !var_ok(i ? value_read_var(bk->last, op->in[i]) : state_var(bk->last, op->in[i])))
                return diag_error(bk->cx->diag, loc_pos(m, op->loc), E_PASS_NEEDS,
                                  "pass 'bucket': operand %u of %s is no reading of a variable", i,
                                  op_info(op->code)->name);
    }
    for (uint32_t i = 0; i < N_GRADIENT_USERS; i++) {
        OpCode code = gradient_users[i];
        OpId id = find_op(bk->last, code);
        if (!op_ok(id) || op_cget(bk->last, id)->n_in != n_grads + (code == OP_PROBE))
            return diag_error(bk->cx->diag, (SrcPos){0}, E_PASS_NEEDS,
                              "pass 'bucket' needs %s of the gradients of all %u updates in @last",
                              op_info(code)->name, n_grads);
    }
    return ZM_OK;
}

static void rewrite_last(Bucketing *bk, uint32_t n_grads)
{
    OpId first = find_op(bk->last, OP_ALL_FINITE);
    ValueId *flat = ARENA_ARRAY(bk->cx->scratch, ValueId, bk->buckets.n);
    for (uint32_t i = 0; i < bk->buckets.n; i++) {
        bk->b = (Builder){.f = bk->last,
                          .before = first,
                          .loc = pass_loc(bk->cx, op_cget(bk->last, first)->loc, "flat gradients")};
        flat[i] = flat_grad(bk, &bk->buckets.at[i]);
    }
    for (uint32_t i = 0; i < N_GRADIENT_USERS; i++)
        replace_grad_operands(bk, find_op(bk->last, gradient_users[i]), flat, n_grads);
    for (uint32_t i = 0; i < bk->buckets.n; i++) update_bucket(bk, &bk->buckets.at[i], flat[i]);
    erase_old(bk);
    merge_zero_writes(bk);
}

Status pass_bucket(PassCtx *cx, bool *changed)
{
    Bucketing bk = {.cx = cx, .m = cx->m, .last = func_find(cx->m, "last")};
    uint32_t n_grads = 0;
    if (!fact_check(cx->m, FACT_BUCKETED_BIT, cx->scratch)) return ZM_OK; /* nothing left to do */
    FOR_OPS(bk.last, op) n_grads += op_is_update(op_cget(bk.last, op)->code);
    ZM_TRY(check_last(&bk, n_grads));
    FOR_OPS(bk.last, op)
    {
        if (op_is_update(op_cget(bk.last, op)->code)) bucket_add(&bk, op);
    }
    merge_buckets(&bk);
    number_elements(&bk);
    for (uint32_t i = 0; i < bk.buckets.n; i++) {
        Bucket *k = &bk.buckets.at[i];
        place_members(&bk, k);
        VarId *params = ARENA_ARRAY(cx->scratch, VarId, k->members.n);
        for (uint32_t j = 0; j < k->members.n; j++) params[j] = k->members.at[j].var;
        k->name = arena_printf(cx->m->arena, STATE_BUCKET ".%u", i);
        k->var = flat_var(&bk, k, k->name, params);
        cx->n_rewrites++;
    }
    rewrite_last(&bk, n_grads);
    *changed = true;
    return ZM_OK;
}
