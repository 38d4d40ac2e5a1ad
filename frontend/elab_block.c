/* elab_block.c -- blocks: arguments, instances, chains, statements. */
#include "frontend/elab.h"
#include "frontend/suggest.h"

#include <string.h>

static const Ast *block_find(const Elab *e, const char *name)
{
    for (uint32_t i = 0; i < e->prog->blocks.n; i++)
        if (e->prog->blocks.at[i]->text == name) return e->prog->blocks.at[i];
    return NULL;
}

/* ---- instances ---- */

static Instance *instance_kid(const Instance *up, const char *name, size_t n)
{
    for (uint32_t i = 0; i < up->kids.n; i++) {
        Instance *kid = up->kids.at[i];
        if (strlen(kid->name) == n && memcmp(kid->name, name, n) == 0) return kid;
    }
    return NULL;
}

/* "attn" or "h.0.attn", from the running instance. */
static Instance *instance_find(const Elab *e, const char *name)
{
    Instance *at = e->inst;
    while (at) {
        size_t n = strcspn(name, ".");
        at = instance_kid(at, name, n);
        if (!name[n]) return at;
        name += n + 1;
    }
    return NULL;
}

/* NULL after an error: too many, or too long a path. */
static Instance *instance_add(Elab *e, Instance *up, const char *name, const Ast *block, SrcPos pos)
{
    const char *path = *up->path ? arena_printf(e->arena, "%s.%s", up->path, name) : name;
    if (strlen(path) > MAX_PATH || ++e->n_instances > MAX_INSTANCES) {
        elab_error(e, pos, E_LIMIT,
                   "more than %d instances, or an instance's path longer than %d bytes",
                   MAX_INSTANCES, MAX_PATH);
        return NULL;
    }
    Instance *i = ARENA_NEW(e->arena, Instance);
    *i = (Instance){.name = name,
                    .path = module_str(e->m, path),
                    .block = block,
                    .count = NOT_A_CHAIN,
                    .pos = pos};
    VEC_PUSH(e->arena, &up->kids, i);
    return i;
}

/* ---- arguments ---- */

typedef struct Args { /* one entry for each of the block's arguments */
    Val *val;
    const Ast **ast;
    bool *is_given;
} Args;

static uint32_t arg_named(const Ast *params, const char *name)
{
    uint32_t i = 0;
    while (i < params->n && params->kid[i]->text != name) i++;
    return i;
}

static Status args_place(Elab *e, const Ast *call, const Ast *block, Args *args)
{
    const Ast *params = block->kid[0];
    uint32_t n_positional = 0;
    for (uint32_t i = 0; i < call->n; i++) {
        const Ast *a = call->kid[i];
        bool is_named = a->kind == AST_NAMED;
        uint32_t at = is_named ? arg_named(params, a->text) : n_positional++;
        bool is_bad = at >= params->n || args->is_given[at];
        if (is_bad && is_named)
            elab_error(e, a->pos, E_ARGS,
                       at < params->n ? "argument %s of %s is given twice"
                                      : "%2$s has no argument %1$s",
                       a->text, block->text);
        else if (is_bad)
            elab_error(e, a->pos, E_ARGS, "%s takes %u argument%s, %u are given", block->text,
                       params->n, params->n == 1 ? "" : "s", call->n);
        if (is_bad) {
            elab_note(e, block->name_pos, "%s is declared here", block->text);
            return ZM_FAIL;
        }
        args->ast[at] = is_named ? a->kid[0] : a;
        args->is_given[at] = true;
        args->val[at] = elab_expr(e, args->ast[at]);
    }
    return ZM_OK;
}

/* Evaluates the call's arguments where the call stands. */
static Status args_eval(Elab *e, const Ast *call, const Ast *block, Args *args)
{
    const Ast *params = block->kid[0];
    *args =
        (Args){ARENA_ARRAY(e->arena, Val, params->n), ARENA_ARRAY(e->arena, const Ast *, params->n),
               ARENA_ARRAY(e->arena, bool, params->n)};
    ZM_TRY(args_place(e, call, block, args));
    for (uint32_t i = 0; i < params->n; i++) {
        if (args->is_given[i] && args->val[i].kind == VAL_ERROR) return ZM_FAIL;
        if (args->is_given[i] || params->kid[i]->kid[1]) continue;
        elab_error(e, call->pos, E_ARGS, "argument %s of %s is missing", params->kid[i]->text,
                   block->text);
        elab_note(e, params->kid[i]->pos, "declared here");
        return ZM_FAIL;
    }
    return ZM_OK;
}

static Status arg_bind(Elab *e, const Ast *param, const Ast *given, Val v, SrcPos call_pos)
{
    const Ast *type = param->kid[0];
    if (type) {
        ZM_TRY(type_match(e, type, param->text, given, v, call_pos));
    } else if (!val_is_number(v) && v.kind != VAL_BOOL) {
        elab_error(e, given ? given->pos : param->pos, E_TYPE, "argument %s is a number, not %s",
                   param->text, elab_text(e, v));
        elab_note(e, param->pos, "declared here without a type");
        if (v.kind == VAL_TENSOR)
            elab_help(e, "declare a tensor with its type: %s: [...]", param->text);
        return ZM_FAIL;
    }
    scope_add(e, param->text, v, param->pos);
    return ZM_OK;
}

/* In the block's own scope; defaults may use the arguments before them. */
static Status args_bind(Elab *e, const Ast *block, const Args *args, SrcPos call_pos)
{
    const Ast *params = block->kid[0];
    for (uint32_t i = 0; i < params->n; i++) {
        Val v = args->is_given[i] ? args->val[i] : elab_expr(e, params->kid[i]->kid[1]);
        if (v.kind == VAL_ERROR) return ZM_FAIL;
        ZM_TRY(arg_bind(e, params->kid[i], args->ast[i], v, call_pos));
    }
    return ZM_OK;
}

/* ---- walking a block ---- */

static bool is_recursive(Elab *e, const Ast *block, SrcPos pos)
{
    for (const Call *c = e->call; c; c = c->up) {
        if (c->block != block) continue;
        elab_error(e, pos, E_RECURSION, "block %s contains itself", block->text);
        elab_note(e, block->name_pos, "%s is declared here", block->text);
        elab_help(e, "a repeat is written name[n]: %s(x)", block->text);
        return true;
    }
    return false;
}

static const Ast *body_return(const Ast *body)
{
    for (uint32_t i = 0; i < body->n; i++)
        if (body->kid[i]->kind == AST_RETURN) return body->kid[i];
    return NULL;
}

static Val call_result(Elab *e, const Ast *block, const Call *c)
{
    const Ast *types = block->kid[1], *ret = body_return(block->kid[2]);
    if (!c->has_returned || !ret) return val_error();
    if (types->n && types->n != c->n_results) {
        elab_error(e, ret->pos, E_RESULT, "the block returns %u values, but declares %u",
                   c->n_results, types->n);
        elab_note(e, types->pos, "declared here");
        return val_error();
    }
    for (uint32_t i = 0; i < types->n; i++)
        if (type_check_result(e, types->kid[i], ret->kid[i], c->results[i]) != ZM_OK)
            return val_error();
    if (c->n_results == 1) return c->results[0];
    return (Val){.kind = VAL_TUPLE, .n = c->n_results, .as.items = c->results};
}

/* One walk of the block with these arguments.  inst NULL: anonymous. */
static Val block_walk(Elab *e, const Ast *block, Instance *inst, const Args *args, SrcPos pos)
{
    if (is_recursive(e, block, pos)) return val_error();
    uint32_t frame = e->frame, n_scope = e->scope.n, first_op = e->f->ops.n;
    Instance *outer = e->inst;
    Call call = {.block = block, .up = e->call, .is_anonymous = !inst};
    Val result = val_error();
    e->frame = e->scope.n;
    e->call = &call;
    if (inst) e->inst = inst;
    e->depth++;
    if (args_bind(e, block, args, pos) == ZM_OK) {
        elab_body(e, block->kid[2]);
        result = call_result(e, block, &call);
    }
    precision_note_walk(e, block, inst, first_op);
    e->depth--;
    e->inst = outer;
    e->call = call.up;
    e->frame = frame;
    e->scope.n = n_scope;
    return result;
}

static Instance *member_add(Elab *e, Instance *chain, uint32_t i)
{
    const char *name = module_str(e->m, arena_printf(e->arena, "%u", i));
    return instance_add(e, chain, name, chain->block, chain->pos);
}

static Val chain_walk(Elab *e, Instance *chain, Args *args, const Ast *call)
{
    if (!args->is_given[0] || args->val[0].kind != VAL_TENSOR)
        return elab_error(e, call->pos, E_ARGS,
                          "a chain passes its first argument, a tensor, through all instances");
    for (uint32_t i = 0; i < chain->count; i++) {
        Instance *member = i < chain->kids.n ? chain->kids.at[i] : member_add(e, chain, i);
        if (!member) return val_error();
        args->val[0] = block_walk(e, chain->block, member, args, call->pos);
        if (args->val[0].kind == VAL_ERROR) return val_error();
        if (args->val[0].kind != VAL_TENSOR)
            return elab_error(e, call->pos, E_RESULT,
                              "the block of a chain returns one tensor, not %s",
                              val_kind_text(args->val[0]));
    }
    return args->val[0];
}

static Val instance_walk(Elab *e, Instance *inst, const Ast *call, bool is_chain)
{
    Args args;
    if (args_eval(e, call, inst->block, &args) != ZM_OK) return val_error();
    if (!is_chain) return block_walk(e, inst->block, inst, &args, call->pos);
    if (!inst->block->kid[0]->n)
        return elab_error(e, call->pos, E_ARGS, "%s has no argument to chain", inst->block->text);
    return chain_walk(e, inst, &args, call);
}

/* ---- calls ---- */

static void try_name(void *cx, const char *name)
{
    suggest_try(cx, name);
}

static Val callee_unknown(Elab *e, const Ast *call)
{
    Suggest s = suggest_new(call->text);
    elab_error(e, call->name_pos, E_UNKNOWN_NAME, "unknown block or function %s", call->text);
    builtin_each(try_name, &s);
    for (uint32_t i = 0; i < e->prog->blocks.n; i++) suggest_try(&s, e->prog->blocks.at[i]->text);
    for (uint32_t i = 0; i < e->inst->kids.n; i++) suggest_try(&s, e->inst->kids.at[i]->name);
    if (s.best) elab_help(e, "did you mean %s?", s.best);
    return val_error();
}

static bool is_chain_use(const Instance *i)
{
    return i->count != NOT_A_CHAIN;
}

Val elab_call(Elab *e, const Ast *call)
{
    Instance *inst = instance_find(e, call->text);
    if (inst) return instance_walk(e, inst, call, is_chain_use(inst));
    const Ast *block = block_find(e, call->text);
    if (block) {
        Args args;
        if (args_eval(e, call, block, &args) != ZM_OK) return val_error();
        return block_walk(e, block, NULL, &args, call->pos);
    }
    return builtin_exists(call->text) ? builtin_call(e, call) : callee_unknown(e, call);
}

static Status instance_count(Elab *e, const Ast *count, uint32_t *n)
{
    enum { MAX_CHAIN = 100000 };
    int64_t i;
    *n = NOT_A_CHAIN;
    if (!count) return ZM_OK;
    if (!elab_int(e, count, "the number of instances", &i)) return ZM_FAIL;
    if (i < 0 || i > MAX_CHAIN) {
        elab_error(e, count->pos, E_INSTANCE, "%lld instances: a chain has 0 to %d", (long long)i,
                   MAX_CHAIN);
        return ZM_FAIL;
    }
    *n = (uint32_t)i;
    return ZM_OK;
}

Val elab_instance(Elab *e, const Ast *ast)
{
    const Ast *call = ast->kid[1];
    uint32_t count;
    if (call->kind == AST_ERROR || instance_count(e, ast->kid[0], &count) != ZM_OK)
        return val_error();
    if (e->call && e->call->is_anonymous) {
        elab_error(e, e->call->block->name_pos, E_INSTANCE,
                   "block %s has instances: every use needs a name", e->call->block->text);
        elab_note(e, ast->pos, "%s is an instance in it", ast->text);
        elab_help(e, "write name: %s(...)", e->call->block->text);
        return val_error();
    }
    const Ast *block = block_find(e, call->text);
    if (!block) {
        if (!builtin_exists(call->text)) return callee_unknown(e, call);
        return elab_error(e, ast->pos, E_INSTANCE,
                          "%s is a built-in function, which has no instances: write %s(...)",
                          call->text, call->text);
    }
    Instance *inst = instance_kid(e->inst, ast->text, strlen(ast->text));
    if (!inst)
        inst = instance_add(e, e->inst, ast->text, block,
                            ast->pos); /* a second walk finds its instances */
    if (!inst) return val_error();
    inst->count = count;
    return instance_walk(e, inst, call, is_chain_use(inst));
}

/* ---- statements ---- */

static void elab_let(Elab *e, const Ast *let)
{
    uint32_t n = let->n - 1;
    Val v = elab_expr(e, let->kid[n]);
    if (n > 1 && v.kind != VAL_ERROR && (v.kind != VAL_TUPLE || v.n != n)) {
        uint32_t have = v.kind == VAL_TUPLE ? v.n : 1;
        v = elab_error(e, let->pos, E_RESULT, "%u names for %u value%s", n, have,
                       have == 1 ? "" : "s");
    }
    for (uint32_t i = 0; i < n; i++) {
        Val item = n == 1 || v.kind == VAL_ERROR ? v : v.as.items[i];
        scope_add(e, let->kid[i]->text, item, let->kid[i]->pos);
    }
}

static void elab_return(Elab *e, const Ast *ret)
{
    Call *c = e->call;
    c->results = ARENA_ARRAY(e->arena, Val, ret->n);
    c->n_results = ret->n;
    c->has_returned = true;
    for (uint32_t i = 0; i < ret->n; i++) {
        c->results[i] = elab_expr(e, ret->kid[i]);
        if (c->results[i].kind == VAL_ERROR) c->has_returned = false;
    }
}

static void elab_statement(Elab *e, const Ast *s)
{
    uint32_t first_op = e->f->ops.n;
    e->n_steps++;
    if (s->kind == AST_LET) elab_let(e, s);
    if (s->kind == AST_PARAM) elab_param(e, s);
    if (s->kind == AST_ASSERT) elab_assert(e, s);
    if (s->kind == AST_RETURN) elab_return(e, s);
    if (s->kind == AST_OUTPUT) elab_output(e, s);
    if (s->kind == AST_LOSS) elab_loss(e, s);
    if (s->precision) precision_stamp(e, first_op, s->precision);
}

void elab_body(Elab *e, const Ast *body)
{
    for (uint32_t i = 0; i < body->n && !diag_is_full(e->diag); i++)
        elab_statement(e, body->kid[i]);
}
