/* zero.c -- ZeRO: one rank's program out of the program for one rank (zero.h; docs/zero.md).
 *
 * Each rank has its own part of the batch.  What a stage divides among N ranks:
 *   0  nothing: gradients are reduced, every rank does the whole update
 *   1  masters and moments
 *   2  also accumulated gradients
 *   3  also parameters, in buckets of at least PassOptions.persist_below bytes
 * A bucket is divided into N equal parts, whatever parameters end where.  Every stage reduces
 * gradients to parts and takes norm and verdict from them, so all stages give the same bits.
 *
 * In:  the program of one rank, in buckets padded for N ranks.  Out: module.mesh, placed types,
 * collectives.  Source: ZeRO, arXiv:1910.02054. */
#include "passes/zero/zero.h"

#include <stdarg.h>

#include "ir/base/program.h"

enum { SHARD_ELEMS = 64 }; /* a shard begins at a multiple of so many elements: bucket.c */

/* ---- what the parts share ---- */

ZeroBucket *zero_bucket_of(const Zero *z, VarId v)
{
    return v.i < z->n_vars && z->of_var[v.i] ? &z->bucket[z->of_var[v.i] - 1] : NULL;
}

const Type *zero_shard_type(const Zero *z, const Type *whole)
{
    int64_t n = whole->dim[0] / z->ranks;
    uint8_t axis[ZM_MAX_RANK] = {MESH_DATA};
    return type_placed(z->m, type_get(z->m, whole->dtype, 1, &n), axis, 0);
}

LocId zero_loc(const Zero *z, const ZeroBucket *k, const char *what)
{
    return pass_loc(z->cx, var_cget(z->m, k->var)->loc, what);
}

ValueId zero_collective(Builder *b, OpCode code, ValueId v)
{
    AttrList l = {0};
    attr_add_str(&l, AT_MESH, mesh_axis_name(MESH_DATA));
    if (code != OP_ALL_REDUCE) attr_add_int(&l, AT_AXIS, 0);
    return build1(b, code, &v, 1, &l);
}

Status zero_refuse(const Zero *z, LocId loc, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char text[512];
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    SrcPos pos = loc_ok(loc) ? loc_pos(z->m, loc) : (SrcPos){0};
    return diag_error(z->cx->diag, pos, E_PASS_NEEDS, "pass 'zero': %s", text);
}

/* ---- buckets ---- */

/* Members stay in the order of their places. */
static void add_member(Zero *z, ZeroBucket *k, VarId v)
{
    uint32_t at = k->n++;
    for (; at && var_cget(z->m, k->member[at - 1])->in_offset > var_cget(z->m, v)->in_offset; at--)
        k->member[at] = k->member[at - 1];
    k->member[at] = v;
}

static void add_view(Zero *z, VarId v)
{
    VarId in = var_cget(z->m, v)->in;
    ZeroBucket *k = var_ok(in) ? zero_bucket_of(z, in) : NULL;
    if (!k) return;
    z->of_var[v.i] = z->of_var[in.i];
    if (in.i == k->var.i) add_member(z, k, v);
}

/* Which member an accumulator's view is: that of the parameter at its place. */
static void set_place(Zero *z, VarId v)
{
    const Var *p = var_cget(z->m, v);
    ZeroBucket *k = zero_bucket_of(z, v);
    for (uint32_t j = 0; k && var_ok(p->in) && j < k->n; j++)
        if (var_cget(z->m, k->member[j])->in_offset == p->in_offset) z->place[v.i] = j;
}

static void collect_buckets(Zero *z)
{
    Module *m = z->m;
    z->n_vars = m->vars.n;
    z->of_var = ARENA_ARRAY(z->cx->scratch, uint32_t, m->vars.n);
    z->place = ARENA_ARRAY(z->cx->scratch, uint32_t, m->vars.n);
    z->bucket = ARENA_ARRAY(z->cx->scratch, ZeroBucket, m->vars.n);
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *v = &m->vars.at[i];
        if (!v->is_bucket || v->kind != VK_PARAM) continue;
        z->bucket[z->n] = (ZeroBucket){.var = {i}, .is_whole = true};
        z->of_var[i] = ++z->n;
    }
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *v = &m->vars.at[i];
        ZeroBucket *k = v->is_bucket && var_ok(v->of) ? zero_bucket_of(z, v->of) : NULL;
        if (!k) continue;
        z->of_var[i] = z->of_var[v->of.i];
        if (v->kind == VK_GRAD) k->grad = (VarId){i};
        if (v->kind == VK_GRAD) k->grad_dtype = v->type->dtype;
    }
    uint32_t *n = ARENA_ARRAY(z->cx->scratch, uint32_t, m->vars.n);
    for (uint32_t i = 1; i < m->vars.n; i++) n[m->vars.at[i].in.i]++;
    for (uint32_t i = 0; i < z->n; i++)
        z->bucket[i].member = ARENA_ARRAY(z->cx->scratch, VarId, n[z->bucket[i].var.i]);
    for (uint32_t i = 1; i < m->vars.n; i++) add_view(z, (VarId){i});
    for (uint32_t i = 1; i < m->vars.n; i++) set_place(z, (VarId){i});
}

static Status check_bucket(const Zero *z, const ZeroBucket *k)
{
    const Var *v = var_cget(z->m, k->var);
    if (v->type->dim[0] % (z->ranks * SHARD_ELEMS) == 0) return ZM_OK;
    return zero_refuse(z, v->loc,
                       "@%s has %lld elements, no multiple of %d for each of %lld ranks: run pass "
                       "'bucket' for as many ranks",
                       v->name, (long long)v->type->dim[0], SHARD_ELEMS, (long long)z->ranks);
}

static Status check_config(const Zero *z)
{
    if (z->stage < 0 || z->stage > 3)
        return zero_refuse(z, (LocId){0}, "there is no stage %lld of ZeRO, only 0 to 3",
                           (long long)z->stage);
    if (z->ranks > MESH_MAX_RANKS)
        return zero_refuse(z, (LocId){0}, "at most %d ranks, not %lld", MESH_MAX_RANKS,
                           (long long)z->ranks);
    for (int i = 1; i < N_MESH_AXIS; i++)
        if (z->m->mesh[i])
            return zero_refuse(z, (LocId){0}, "the module is one for %lld ranks already",
                               (long long)z->m->mesh[i]);
    return ZM_OK;
}

/* ---- variables ---- */

static bool is_divided(const Zero *z, const Var *v)
{
    switch (v->kind) {
    case VK_MASTER:
    case VK_MOMENT: return z->stage >= 1;
    case VK_GRAD: return z->divides_sums;
    case VK_PARAM: return z->stage == 3;
    case VK_SCALAR:
    case N_VAR_KIND: break;
    }
    return false;
}

static void place_vars(Zero *z)
{
    Module *m = z->m;
    for (uint32_t i = 0; i < z->n; i++) {
        ZeroBucket *k = &z->bucket[i];
        k->is_whole =
            z->stage < 3 || type_bytes(var_cget(m, k->var)->type) < z->cx->opt->persist_below;
    }
    for (uint32_t i = 1; i < m->vars.n; i++) {
        Var *v = &m->vars.at[i];
        const ZeroBucket *k = zero_bucket_of(z, (VarId){i});
        bool is_sum =
            k ? v->kind == VK_GRAD && !z->divides_sums
              : v->name == module_str(m, ZMP_S_LOSS_SUM) || v->name == module_str(m, ZMP_S_COUNT);
        if (is_sum)
            v->type = type_placed(m, v->type, NULL, 1u << MESH_DATA);
        else if (k && v->is_bucket && is_divided(z, v) && (v->kind != VK_PARAM || !k->is_whole))
            v->type = zero_shard_type(z, v->type);
    }
}

/* ---- functions ---- */

static bool is_named(const Func *f, const char *name)
{
    return func_find(f->m, name) == f;
}

static Status place_step(Retype *r, bool is_last)
{
    Zero *z = r->z;
    ZeroTail t = {0};
    if (is_last) {
        ZM_TRY(zero_find_updates(z, r->f));
        ZM_TRY(zero_find_tail(z, r->f, &t));
    }
    if (z->divides_sums) ZM_TRY(zero_take_additions(z, r->f));
    ZM_TRY(retype_ops(r, r->f->first, t.start));
    ZM_TRY(zero_reduce(r, t.start, is_last));
    if (!is_last) return ZM_OK;
    ZM_TRY(zero_reduce_scalars(r, &t));
    return zero_update(r, &t);
}

static Status place_func(Zero *z, Func *f)
{
    Retype r = {.z = z, .f = f};
    bool is_last = is_named(f, "last"), is_step = is_last || is_named(f, "micro");
    bool is_eval = is_named(f, "eval");
    for (uint32_t i = 0; i < z->n; i++)
        z->bucket[i].raw = ARENA_ARRAY(z->cx->scratch, ValueId, z->bucket[i].n);
    zero_gather_params(z, f);
    if (is_step || is_eval) retype_inputs(&r);
    if (is_step) ZM_TRY(place_step(&r, is_last));
    if (is_eval) ZM_TRY(zero_eval(&r));
    retype_clean(&r);
    return ZM_OK;
}

Status pass_zero(PassCtx *cx, bool *changed)
{
    Module *m = cx->m;
    Zero z = {.cx = cx, .m = m, .ranks = cx->opt->ranks, .stage = m->train.zero};
    if (z.ranks <= 1 || m->mesh[MESH_DATA] == z.ranks) return ZM_OK;
    DType low = precision_dtype(m->train.precision);
    z.wire = m->train.comm_low && low != DT_NONE ? low : DT_F32;
    collect_buckets(&z);
    ZM_TRY(check_config(&z));
    for (uint32_t i = 0; i < z.n; i++) ZM_TRY(check_bucket(&z, &z.bucket[i]));
    z.divides_sums = z.stage >= 2 && !m->train.reduce_at_step;
    m->mesh[MESH_DATA] = z.ranks;
    place_vars(&z);
    for (uint32_t i = 0; i < m->funcs.n; i++) ZM_TRY(place_func(&z, m->funcs.at[i]));
    *changed = true;
    cx->n_rewrites += z.n;
    return ZM_OK;
}
