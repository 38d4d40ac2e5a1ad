/* facts.c -- decides each fact of facts.def from the IR alone.  The manager asks before a pass that
 * needs a fact and after every pass for all that should hold. */
#include "passes/pass.h"

#include <string.h>

/* NULL: the fact holds; else why not, in scratch. */
typedef const char *(*FactFn)(const Module *m, Arena *scratch);

/* Types are checked by module_verify, after every pass. */
static const char *fact_TYPED(const Module *m, Arena *scratch)
{
    (void)m;
    (void)scratch;
    return NULL;
}

static const char *check_loss(const Func *f, Arena *scratch)
{
    ValueId loss = func_result(f, "loss"), weight = func_result(f, "weight");
    if (!value_ok(loss) || !value_ok(weight))
        return arena_printf(scratch, "@%s does not return values named loss and weight", f->name);
    const Type *tl = value_type(f, loss), *tw = value_type(f, weight);
    if (!type_same_shape(tl, tw) || dtype_class(tl->dtype) != DTC_FLOAT ||
        dtype_class(tw->dtype) != DTC_FLOAT)
        return arena_printf(scratch,
                            "@%s: loss is %s and weight %s: they must be floats of one shape",
                            f->name, type_text(scratch, tl), type_text(scratch, tw));
    return NULL;
}

static const char *fact_HAS_LOSS(const Module *m, Arena *scratch)
{
    const Func *train = func_find(m, "train"), *eval = func_find(m, "eval");
    if (!train) return "there is no function @train";
    const char *why = check_loss(train, scratch);
    if (!why && eval) why = check_loss(eval, scratch);
    if (why) return why;
    return m->items > 0 ? NULL : "the module does not say how many items a micro-batch has";
}

static const char *fact_HAS_GRAD(const Module *m, Arena *scratch)
{
    const char *why = fact_HAS_LOSS(m, scratch);
    if (why) return why;
    const Func *f = func_find(m, "train");
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *v = &m->vars.at[i];
        if (v->kind != VK_PARAM || v->is_bucket) continue;
        ValueId g = func_result(f, arena_printf(scratch, "grad.%s", v->name));
        if (!value_ok(g)) return arena_printf(scratch, "@train does not return grad.%s", v->name);
        if (!type_same_shape(value_type(f, g), v->type))
            return arena_printf(scratch, "grad.%s is %s, the parameter %s", v->name,
                                type_text(scratch, value_type(f, g)), type_text(scratch, v->type));
    }
    return NULL;
}

static const char *fact_HAS_STEP(const Module *m, Arena *scratch)
{
    (void)scratch;
    if (!func_find(m, "last")) return "there is no function @last";
    if (m->train.accumulate > 1 && !func_find(m, "micro"))
        return "there is no function @micro, though micro-batches are accumulated";
    return func_find(m, "train") ? "@train is still there" : NULL;
}

static const char *fact_BUCKETED(const Module *m, Arena *scratch)
{
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *v = &m->vars.at[i];
        if (v->kind != VK_PARAM && v->kind != VK_MASTER && v->kind != VK_MOMENT) continue;
        if (!var_cget(m, var_storage(m, (VarId){i}, NULL))->is_bucket)
            return arena_printf(scratch, "@%s does not lie in a bucket", v->name);
    }
    return NULL;
}

/* ---- facts about ops ---- */

static bool op_is_primitive(const Func *f, OpId op);

static bool func_is_primitive(const Func *f)
{
    FOR_OPS(f, op)
    if (!op_is_primitive(f, op)) return false;
    return true;
}

/* Bodies do not nest: a fused op holds no fused op. */
static bool op_is_primitive(const Func *f, OpId op)
{
    const Op *o = op_cget(f, op);
    return op_info(o->code)->traits & TR_PRIMITIVE && (!o->body || func_is_primitive(o->body));
}

/* A value that needs no kernel: storage that exists already, or something for the runtime. */
static bool op_is_placed(const Func *f, OpId op)
{
    OpCode code = op_cget(f, op)->code;
    LowerKind kind = op_info(code)->lower_kind;
    return code == OP_FUSED || kind == LK_VIEW || kind == LK_HOST;
}

static const char *all_ops(const Module *m, Arena *scratch, bool (*holds)(const Func *, OpId),
                           const char *what)
{
    for (uint32_t i = 0; i < m->funcs.n; i++) {
        const Func *f = m->funcs.at[i];
        FOR_OPS(f, op)
        if (!holds(f, op))
            return arena_printf(scratch, "%s in @%s %s", op_info(op_cget(f, op)->code)->name,
                                f->name, what);
    }
    return NULL;
}

static const char *fact_EXPANDED(const Module *m, Arena *scratch)
{
    return all_ops(m, scratch, op_is_primitive, "is a composite op");
}

static const char *fact_FUSED(const Module *m, Arena *scratch)
{
    return all_ops(m, scratch, op_is_placed, "does not lie in a kernel");
}

static bool op_is_async(const Func *f, OpId op)
{
    const Op *o = op_cget(f, op);
    return !op_takes_attr(o->code, AT_ASYNC) || attr_int(o->attrs, AT_ASYNC, 0);
}

/* Any order of fused ops is a schedule, with starts and waits of collectives. */
static const char *fact_SCHEDULED(const Module *m, Arena *scratch)
{
    const char *why = fact_FUSED(m, scratch);
    return why ? why : all_ops(m, scratch, op_is_async, "is not async");
}

static const char *fact_PLANNED(const Module *m, Arena *scratch)
{
    const char *why = all_ops(m, scratch, op_is_async, "is not async");
    if (why) return why;
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *v = &m->vars.at[i];
        if (!var_ok(v->in) && v->place.bytes < type_bytes(v->type))
            return arena_printf(scratch, "@%s has no place in the arena", v->name);
    }
    return NULL;
}

static const struct {
    const char *name;
    FactFn check;
} fact_table[] = {
#define FACT(ID, NAME, DOC) {NAME, fact_##ID},
#include "ir/facts.def"
#undef FACT
};
_Static_assert(sizeof fact_table / sizeof *fact_table == N_FACT, "one entry per fact");

const char *fact_check(const Module *m, FactBit fact, Arena *scratch)
{
    ZM_CHECK(fact < N_FACT);
    return fact_table[fact].check(m, scratch);
}

const char *fact_name(FactBit fact)
{
    ZM_CHECK(fact < N_FACT);
    return fact_table[fact].name;
}
