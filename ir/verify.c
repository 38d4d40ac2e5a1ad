/* verify.c -- what must hold for every module at every stage (ir.h): single assignment, definition
 * before use, types as inferred, legal attributes, one return at the end, bodies of fused ops,
 * variables inside their storage, location chains.  Effects: verify_effects.c.  Places: the memory
 * plan's own verifier. */
#include "ir/verify.h"
#include "ir/loss_scale.h"
#include "ir/sharding.h"

#include <string.h>

Status verify_error(const Verifier *v, LocId loc, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char text[512];
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    SrcPos pos = {0};
    if (loc_ok(loc) && loc.i < v->m->locs.n) pos = loc_pos(v->m, loc);
    const char *after = v->after;
    return diag_error(v->m->diag, pos, E_IR_STRUCTURE, "%s%s%s%s%s%s", after ? "after pass " : "",
                      after ? after : "", after ? ": " : "", v->func ? v->func : "",
                      v->func ? ": " : "", text);
}

/* What a wait is for is looked up as it stands: its operand may be no collective at all. */
static const Op *collective_of(const Func *f, const Op *o)
{
    if (o->code != OP_WAIT || !value_ok(o->in[0]) || o->in[0].i >= f->values.n) return o;
    OpId def = value_cget(f, o->in[0])->def;
    return op_ok(def) ? op_cget(f, def) : o;
}

const char *verify_op_name(const Verifier *v, const Func *f, const Op *o)
{
    const char *mesh = attr_str(collective_of(f, o)->attrs, AT_MESH);
    const char *name = op_info(o->code)->name;
    return mesh ? arena_printf(v->scratch, "%s over axis '%s'", name, mesh) : name;
}

const char *verify_name(const Verifier *v, const Func *f, ValueId id)
{
    const Value *val = value_cget(f, id);
    if (val->name) return arena_printf(v->scratch, "%%%s", val->name);
    if (!op_ok(val->def)) return arena_printf(v->scratch, "parameter %u", val->index);
    return arena_printf(v->scratch, "result %u of %s", val->index,
                        verify_op_name(v, f, op_cget(f, val->def)));
}

/* ---- locations and variables ---- */

/* Parents come before their children, so chains end; here: in a place. */
static Status check_loc(const Verifier *v, LocId loc, const char *what)
{
    if (!loc_ok(loc) || loc.i >= v->m->locs.n)
        return verify_error(v, (LocId){0}, "%s has no location", what);
    for (LocId l = loc; loc_ok(l); l = loc_get(v->m, l)->parent)
        if (loc_get(v->m, l)->parent.i >= l.i)
            return verify_error(v, (LocId){0}, "the location of %s does not end in a source place",
                                what);
    if (loc_pos(v->m, loc).line == 0)
        return verify_error(v, (LocId){0}, "the location of %s has no line", what);
    return ZM_OK;
}

static Status check_storage(const Verifier *v, const Var *var, VarId id)
{
    const Module *m = v->m;
    if (var->in.i >= m->vars.n || var->of.i >= m->vars.n)
        return verify_error(v, var->loc, "variable @%s names one that does not exist", var->name);
    if (!var_ok(var->in)) return ZM_OK;
    uint32_t steps = 0;
    for (VarId in = var->in; var_ok(in); in = var_cget(m, in)->in)
        if (in.i == id.i || ++steps > m->vars.n)
            return verify_error(v, var->loc, "variable @%s lies inside of itself", var->name);
    const Var *in = var_cget(m, var->in);
    if (!in->is_bucket || in->type->rank != 1)
        return verify_error(v, var->loc, "variable @%s lies in @%s, which is not a flat bucket",
                            var->name, in->name);
    if (in->type->dtype != var->type->dtype)
        return verify_error(v, var->loc, "variable @%s is %s, its bucket @%s %s", var->name,
                            dtype_name(var->type->dtype), in->name, dtype_name(in->type->dtype));
    int64_t end;
    if (var->in_offset < 0 || __builtin_add_overflow(var->in_offset, type_elems(var->type), &end) ||
        end > type_whole_elems(m, in->type))
        return verify_error(
            v, var->loc, "variable @%s ends outside of @%s: offset %lld, %lld elements of %lld",
            var->name, in->name, (long long)var->in_offset, (long long)type_elems(var->type),
            (long long)type_whole_elems(m, in->type));
    return ZM_OK;
}

static Status check_var(const Verifier *v, VarId id)
{
    const Var *var = var_cget(v->m, id);
    if (!var->type || !var->name)
        return verify_error(v, var->loc, "a variable has no type or no name");
    ZM_TRY(check_loc(v, var->loc, var->name));
    const char *why = sharding_refusal((Module *)v->m, var->type);
    if (why) return verify_error(v, var->loc, "variable @%s: %s", var->name, why);
    if (var_find(v->m, var->name).i != id.i)
        return verify_error(v, var->loc, "two variables are called @%s", var->name);
    return check_storage(v, var, id);
}

typedef struct Extent {
    VarId var;
    VarId in;
    int64_t from, to;
} Extent;

static int extent_order(const void *a, const void *b)
{
    const Extent *x = a, *y = b;
    if (x->in.i != y->in.i) return x->in.i < y->in.i ? -1 : 1;
    return x->from < y->from ? -1 : x->from > y->from;
}

/* Views in one bucket do not share elements. */
static Status check_overlap(const Verifier *v)
{
    const Module *m = v->m;
    Extent *e = ARENA_ARRAY(v->scratch, Extent, m->vars.n);
    uint32_t n = 0;
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *var = &m->vars.at[i];
        if (var_ok(var->in))
            e[n++] = (Extent){{i}, var->in, var->in_offset, var->in_offset + type_elems(var->type)};
    }
    qsort(e, n, sizeof *e, extent_order);
    for (uint32_t i = 1; i < n; i++)
        if (e[i].in.i == e[i - 1].in.i && e[i].from < e[i - 1].to) {
            const Var *a = var_cget(m, e[i - 1].var), *b = var_cget(m, e[i].var);
            return verify_error(v, b->loc, "variables @%s and @%s share elements of @%s", a->name,
                                b->name, var_cget(m, e[i].in)->name);
        }
    return ZM_OK;
}

static Status check_vars(const Verifier *v)
{
    Status all = ZM_OK;
    for (uint32_t i = 1; i < v->m->vars.n; i++)
        if (check_var(v, (VarId){i}) != ZM_OK) all = ZM_FAIL;
    return all == ZM_OK ? check_overlap(v) : ZM_FAIL;
}

/* ---- ops ---- */

static Status check_attrs(const Verifier *v, const Op *o)
{
    const char *name = op_info(o->code)->name;
    for (uint32_t i = 0; i < o->attrs.n; i++) {
        const Attr *a = &o->attrs.at[i];
        if (a->key >= N_ATTR || (i && a->key <= o->attrs.at[i - 1].key))
            return verify_error(v, o->loc, "attributes of %s are not in order", name);
        AttrKind kind = attr_kind(a->key);
        bool is_ok = kind != AK_BOOL || (a->as.i & ~INT64_C(1)) == 0;
        if (kind == AK_STR) is_ok = a->as.s != NULL;
        if (kind == AK_DTYPE) is_ok = a->as.i > DT_NONE && a->as.i < N_DTYPE;
        if (!is_ok)
            return verify_error(v, o->loc, "attribute '%s' of %s has no legal value",
                                attr_name(a->key), name);
    }
    return ZM_OK;
}

static Status check_operands(const Verifier *v, const Func *f, const Op *o, const bool *is_defined)
{
    const char *name = op_info(o->code)->name;
    if (o->n_in > ZM_MAX_OPERANDS)
        return verify_error(v, o->loc, "%s has %u operands, above the limit", name, o->n_in);
    for (uint32_t i = 0; i < o->n_in; i++) {
        if (!value_ok(o->in[i]) || o->in[i].i >= f->values.n)
            return verify_error(v, o->loc, "operand %u of %s does not exist", i, name);
        if (!is_defined[o->in[i].i])
            return verify_error(v, o->loc, "operand %u of %s, %s, is not defined before it", i,
                                verify_op_name(v, f, o), verify_name(v, f, o->in[i]));
    }
    return ZM_OK;
}

static Status check_results(const Verifier *v, const Func *f, OpId op, bool *is_defined)
{
    const Op *o = op_cget(f, op);
    for (uint32_t i = 0; i < o->n_out; i++) {
        ValueId r = o->out[i];
        bool is_ok = value_ok(r) && r.i < f->values.n && !is_defined[r.i] &&
                     value_cget(f, r)->def.i == op.i && value_cget(f, r)->index == i;
        if (!is_ok)
            return verify_error(v, o->loc, "result %u of %s is not defined once, by it", i,
                                op_info(o->code)->name);
        is_defined[r.i] = true;
    }
    return ZM_OK;
}

static Status check_types(const Verifier *v, const Func *f, const Op *o)
{
    const Type **in = ARENA_ARRAY(v->scratch, const Type *, o->n_in);
    const Type *out[8] = {0};
    const OpInfo *info = op_info(o->code);
    for (uint32_t i = 0; i < o->n_in; i++) in[i] = value_type(f, o->in[i]);
    const char *why = op_infer(f->m, o->code, in, o->n_in, o->attrs, out);
    if (why) return verify_error(v, o->loc, "%s: %s", verify_op_name(v, f, o), why);
    if ((int)o->n_out != info->n_out)
        return verify_error(v, o->loc, "%s has %u results, not %d", info->name, o->n_out,
                            info->n_out);
    for (uint32_t i = 0; i < o->n_out; i++)
        if (value_type(f, o->out[i]) != out[i])
            return verify_error(v, o->loc, "%s gives %s, but its result is %s",
                                verify_op_name(v, f, o), type_text(v->scratch, out[i]),
                                type_text(v->scratch, value_type(f, o->out[i])));
    return ZM_OK;
}

static uint32_t count_names(const char *names)
{
    uint32_t n = *names != '\0';
    for (; *names; names++) n += *names == ',';
    return n;
}

static Status check_names(const Verifier *v, const Op *o)
{
    const char *names = attr_str(o->attrs, AT_NAMES);
    uint32_t want = o->code == OP_PROBE ? o->n_in - 1 : o->n_in; /* a probe's last is the factor */
    if (names && count_names(names) != want)
        return verify_error(v, o->loc, "%s names %u of its %u operands", op_info(o->code)->name,
                            count_names(names), want);
    return ZM_OK;
}

static Status check_body_matches(const Verifier *v, const Func *f, const Op *o)
{
    const Func *body = o->body;
    const Op *ret = op_cget(body, body->last);
    if (body->params.n != o->n_in || ret->n_in != o->n_out)
        return verify_error(v, o->loc, "fused has %u operands and %u results, its body %u and %u",
                            o->n_in, o->n_out, body->params.n, ret->n_in);
    for (uint32_t i = 0; i < o->n_in; i++)
        if (value_type(body, body->params.at[i]) != value_type(f, o->in[i]))
            return verify_error(v, o->loc, "operand %u of fused is %s, the body's parameter %s", i,
                                type_text(v->scratch, value_type(f, o->in[i])),
                                type_text(v->scratch, value_type(body, body->params.at[i])));
    for (uint32_t i = 0; i < o->n_out; i++)
        if (value_type(body, ret->in[i]) != value_type(f, o->out[i]))
            return verify_error(v, o->loc, "result %u of fused is %s, the body returns %s", i,
                                type_text(v->scratch, value_type(f, o->out[i])),
                                type_text(v->scratch, value_type(body, ret->in[i])));
    return ZM_OK;
}

static Status check_ops(const Verifier *v, const Func *f, bool is_body);

static Status check_fused(const Verifier *v, const Func *f, const Op *o)
{
    static const char *const kinds[] = {"nest", "contract", "attention", "scatter"};
    const char *kind = attr_str(o->attrs, AT_KIND);
    bool is_known = false;
    for (size_t i = 0; kind && i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i], kind) == 0) is_known = true;
    if (!is_known)
        return verify_error(v, o->loc,
                            "kind of fused must be nest, contract, attention or scatter");
    if (!o->body) return verify_error(v, o->loc, "fused has no body");
    ZM_TRY(check_ops(v, o->body, true));
    return check_body_matches(v, f, o);
}

static Status check_in_body(const Verifier *v, const Op *o)
{
    const OpInfo *info = op_info(o->code);
    bool is_ok = info->traits & TR_PRIMITIVE && o->code != OP_FUSED && o->code != OP_SHARD &&
                 (info->traits & (TR_PURE | TR_TERMINATOR));
    return is_ok ? ZM_OK
                 : verify_error(v, o->loc, "the body of a fused op may not hold %s", info->name);
}

static Status check_op(const Verifier *v, const Func *f, OpId op, bool is_body, bool *is_defined)
{
    const Op *o = op_cget(f, op);
    if (o->code == OP_NONE || o->code >= N_OP) return verify_error(v, o->loc, "an erased op");
    const OpInfo *info = op_info(o->code);
    ZM_TRY(check_loc(v, o->loc, info->name));
    if ((info->traits & TR_TERMINATOR) != 0 && f->last.i != op.i)
        return verify_error(v, o->loc, "%s is not the last op", info->name);
    if (is_body) ZM_TRY(check_in_body(v, o));
    ZM_TRY(check_attrs(v, o));
    ZM_TRY(check_operands(v, f, o, is_defined));
    ZM_TRY(o->code == OP_FUSED ? check_fused(v, f, o) : check_types(v, f, o));
    if (o->code == OP_RETURN || o->code == OP_PROBE) ZM_TRY(check_names(v, o));
    return check_results(v, f, op, is_defined);
}

/* Recursion: into the body of a fused op, which holds no other. */
static Status check_ops(const Verifier *v, const Func *f, bool is_body)
{
    LocId at = op_ok(f->last) ? op_cget(f, f->last)->loc : (LocId){0};
    if (!op_ok(f->last) || !(op_info(op_cget(f, f->last)->code)->traits & TR_TERMINATOR))
        return verify_error(v, at, "the last op must be return");
    bool *is_defined = ARENA_ARRAY(v->scratch, bool, f->values.n);
    for (uint32_t i = 0; i < f->params.n; i++) {
        const Value *p = value_cget(f, f->params.at[i]);
        if (op_ok(p->def) || p->index != i || !p->type)
            return verify_error(v, at, "parameter %u is not a parameter's value", i);
        const char *why = sharding_refusal((Module *)v->m, p->type);
        if (why) return verify_error(v, at, "parameter %u: %s", i, why);
        is_defined[f->params.at[i].i] = true;
    }
    uint32_t before = v->m->diag->n_errors;
    OpId prev = {0};
    FOR_OPS(f, op)
    {
        if (op_cget(f, op)->prev.i != prev.i) return verify_error(v, at, "the op list is broken");
        if (check_op(v, f, op, is_body, is_defined) != ZM_OK) return ZM_FAIL;
        prev = op;
    }
    return before == v->m->diag->n_errors ? ZM_OK : ZM_FAIL;
}

static Status check_func(Verifier *v, const Func *f)
{
    v->func = arena_printf(v->scratch, "@%s", f->name);
    if (func_find(v->m, f->name) != f) return verify_error(v, (LocId){0}, "is defined twice");
    ZM_TRY(check_ops(v, f, false));
    ZM_TRY(verify_async(v, f));
    ZM_TRY(verify_ranks(v, f));
    return verify_effects(v, f);
}

static Status check_train(const Verifier *v)
{
    int64_t n = v->m->train.accumulate;
    if (n < 0 || n > MAX_ACCUMULATE)
        return verify_error(v, (LocId){0}, "accumulate must be in 1..%d, not %lld", MAX_ACCUMULATE,
                            (long long)n);
    const char *why = loss_scale_refusal(v->scratch, &v->m->train.scale);
    return why ? verify_error(v, (LocId){0}, "loss scale: %s", why) : ZM_OK;
}

Status module_verify(const Module *m, const char *after)
{
    Arena scratch = {0};
    Verifier v = {.m = m, .after = after, .scratch = &scratch};
    Status all = check_train(&v);
    if (all == ZM_OK) all = check_vars(&v);
    for (uint32_t i = 0; all == ZM_OK && i < m->funcs.n; i++)
        if (check_func(&v, m->funcs.at[i]) != ZM_OK) all = ZM_FAIL;
    arena_free(&scratch);
    return all;
}
