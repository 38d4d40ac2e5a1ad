/* elab_model.c -- the file's dims and consts, the model's inputs, outputs and loss, and the
 * functions made of them. */
#include "frontend/elab.h"

#include <string.h>

/* ---- assert ---- */

/* "T = 2048, ctx = 1024": the names of the condition, each once. */
static void text_names(Elab *e, const Ast *ast, const char **seen, uint32_t *n_seen, Str *out)
{
    enum { MAX_SHOWN = 8 };
    if (ast->kind == AST_NAME && *n_seen < MAX_SHOWN) {
        for (uint32_t i = 0; i < *n_seen; i++)
            if (seen[i] == ast->text) return;
        const Binding *b = scope_find(e, ast->text);
        seen[(*n_seen)++] = ast->text;
        if (b) str_addf(out, "%s%s = %s", out->n ? ", " : "", ast->text, elab_text(e, b->val));
    }
    for (uint32_t i = 0; i < ast->n; i++)
        if (ast->kid[i]) text_names(e, ast->kid[i], seen, n_seen, out);
}

/* The condition as it is written, at most one line of it. */
static const char *source_text(Elab *e, SrcPos pos)
{
    const Source *s = &e->diag->sources->all.at[pos.source];
    const char *p = s->text;
    for (uint32_t line = 1; line < pos.line; line++) p = strchr(p, '\n') + 1;
    p += pos.col - 1;
    size_t n = strcspn(p, "\n");
    return arena_strndup(e->arena, p, n < pos.len ? n : pos.len);
}

void elab_assert(Elab *e, const Ast *assertion)
{
    const Ast *cond = assertion->kid[0];
    Val v = elab_expr(e, cond);
    if (v.kind == VAL_ERROR || (v.kind == VAL_BOOL && v.as.i)) return;
    if (v.kind != VAL_BOOL) {
        elab_error(e, cond->pos, E_TYPE, "assert takes a condition on numbers, not %s",
                   val_kind_text(v));
        return;
    }
    Str names = {0};
    const char *seen[8];
    uint32_t n_seen = 0;
    text_names(e, cond, seen, &n_seen, &names);
    elab_error(e, cond->pos, E_ASSERT, "assertion failed: %s%s%s", source_text(e, cond->pos),
               names.n ? ": " : "", str_c(&names));
    for (uint32_t i = 0; i < n_seen; i++) {
        const Binding *b = scope_find(e, seen[i]);
        if (b) elab_note(e, b->pos, "%s is %s, declared here", seen[i], elab_text(e, b->val));
    }
    str_free(&names);
}

/* ---- dims and consts ---- */

static Val global_value(Elab *e, const Ast *g)
{
    if (e->mode == MODE_GENERATE && g->text == e->batch_dim) return val_int(1);
    const Ast *define = define_find(e, g->text);
    Val v = elab_expr(e, define ? define : g->kid[0]);
    bool is_dim = g->kind == AST_DIM;
    if (v.kind == VAL_ERROR || v.kind == VAL_INT) return v;
    if (!is_dim && (v.kind == VAL_REAL || v.kind == VAL_BOOL)) return v;
    elab_error(e, define ? define->pos : g->kid[0]->pos, define ? E_DEFINE_VALUE : E_TYPE,
               "%s %s must be %s, not %s", is_dim ? "dim" : "const", g->text,
               is_dim ? "an integer" : "a number or bool", elab_text(e, v));
    if (define) elab_note(e, g->name_pos, "%s is declared here", g->text);
    return val_error();
}

static Val global_checked(Elab *e, const Ast *g)
{
    Val v = global_value(e, g);
    if (g->kind == AST_DIM && v.kind == VAL_INT && v.as.i < 0)
        return elab_error(e, g->pos, E_NUMBER, "dim %s is %lld: dims are not negative", g->text,
                          (long long)v.as.i);
    return v;
}

static Status elab_globals(Elab *e)
{
    uint32_t n_errors = e->diag->n_errors;
    for (uint32_t i = 0; i < e->prog->globals.n; i++) {
        const Ast *g = e->prog->globals.at[i];
        e->n_globals = e->frame = e->scope.n;
        if (g->kind == AST_ASSERT)
            elab_assert(e, g);
        else
            scope_add(e, g->text, global_checked(e, g), g->name_pos);
    }
    e->n_globals = e->frame = e->scope.n;
    return e->diag->n_errors == n_errors ? ZM_OK : ZM_FAIL;
}

/* ---- inputs ---- */

static Status input_type(Elab *e, const Ast *arg, const Type **t)
{
    if (!arg->kid[0]) {
        elab_error(e, arg->pos, E_INPUT, "input %s needs a type: %s: [B, n] or int[B, n]",
                   arg->text, arg->text);
        return ZM_FAIL;
    }
    ZM_TRY(type_eval(e, arg->kid[0], t));
    if ((*t)->rank > 0 && (*t)->dtype != DT_I1) return ZM_OK;
    elab_error(e, arg->pos, E_INPUT,
               "input %s is %s: inputs are float or int tensors with the batch as dimension 0",
               arg->text, type_text(e->arena, *t));
    return ZM_FAIL;
}

static Status elab_inputs(Elab *e)
{
    const Ast *args = e->prog->model->kid[0];
    Status st = ZM_OK;
    int64_t batch = 0;
    for (uint32_t i = 0; i < args->n; i++) {
        const Ast *arg = args->kid[i];
        const Type *t;
        if (input_type(e, arg, &t) != ZM_OK) {
            st = ZM_FAIL;
            continue;
        }
        if (batch && t->dim[0] != batch) {
            elab_error(e, arg->pos, E_INPUT, "input %s has %lld samples, %s has %lld", arg->text,
                       (long long)t->dim[0], args->kid[0]->text, (long long)batch);
            elab_note(e, args->kid[0]->pos, "dimension 0 of every input is the batch");
            st = ZM_FAIL;
        }
        if (!batch) batch = t->dim[0];
        scope_add(e, arg->text, val_tensor(func_param(e->f, arg->text, t)), arg->pos);
    }
    if (!args->n) {
        elab_error(e, e->prog->model->name_pos, E_INPUT, "the model has no inputs");
        st = ZM_FAIL;
    }
    e->batch = batch;
    if (e->mode != MODE_GENERATE) e->m->batch = batch;
    return st;
}

/* ---- outputs and loss ---- */

void elab_output(Elab *e, const Ast *output)
{
    Val v = elab_expr(e, output->kid[0]);
    if (v.kind != VAL_ERROR && v.kind != VAL_TENSOR)
        v = elab_error(e, output->kid[0]->pos, E_TYPE, "output %s must be a tensor, not %s",
                       output->text, val_kind_text(v));
    scope_add(e, output->text, v, output->name_pos);
    OutputVal o = {output->text, v, output->pos};
    VEC_PUSH(e->arena, &e->outputs, o);
}

void elab_loss(Elab *e, const Ast *loss)
{
    if (e->mode == MODE_GENERATE) return;
    if (e->loss.kind != VAL_NONE) {
        elab_error(e, loss->pos, E_MODEL, "a second loss");
        elab_note(e, e->loss_pos, "the first is here");
        elab_help(e, "add the item losses: loss a + 0.1 * b");
        return;
    }
    e->loss_pos = loss->pos;
    e->loss = elab_expr(e, loss->kid[0]);
    if (e->loss.kind == VAL_ERROR) return;
    if (e->loss.kind != VAL_TENSOR || val_type(e, e->loss)->dtype != DT_F32)
        e->loss = elab_error(e, loss->kid[0]->pos, E_TYPE,
                             "the loss is a float tensor with one entry for each item, not %s",
                             elab_text(e, e->loss));
}

static Status return_loss(Elab *e)
{
    if (e->loss.kind == VAL_NONE) {
        elab_error(e, e->prog->model->name_pos, E_MODEL, "model %s has no loss",
                   e->prog->model->text);
        elab_help(e, "add a statement such as: loss cross_entropy(logits, targets)");
    }
    if (e->loss.kind != VAL_TENSOR) return ZM_FAIL;
    const Type *t = val_type(e, e->loss);
    e->m->items = type_elems(t);
    elab_at(e, e->loss_pos);
    ValueId weight = value_ok(e->loss.weight) ? e->loss.weight : build_splat(&e->b, 1, t);
    ValueId out[] = {e->loss.tensor, weight};
    build_return(&e->b, out, 2, "loss,weight");
    return ZM_OK;
}

static Status return_outputs(Elab *e)
{
    Str names = {0};
    ValueId *out = ARENA_ARRAY(e->arena, ValueId, e->outputs.n);
    for (uint32_t i = 0; i < e->outputs.n; i++) {
        const OutputVal *o = &e->outputs.at[i];
        if (o->val.kind != VAL_TENSOR) return ZM_FAIL;
        str_addf(&names, "%s%s", i ? "," : "", o->name);
        out[i] = o->val.tensor;
    }
    elab_at(e, e->prog->model->pos);
    build_return(&e->b, out, e->outputs.n, str_c(&names));
    str_free(&names);
    return ZM_OK;
}

/* ---- functions ---- */

/* Pure ops, and reads, whose results are unused. */
static void func_drop_dead(Arena *scratch, Func *f)
{
    bool *is_live = ARENA_ARRAY(scratch, bool, f->values.n);
    for (OpId op = f->last, prev; op_ok(op); op = prev) {
        const Op *o = op_cget(f, op);
        bool keep = o->n_out == 0;
        prev = o->prev;
        for (uint32_t i = 0; i < o->n_out; i++) keep |= is_live[o->out[i].i];
        for (uint32_t i = 0; keep && i < o->n_in; i++) is_live[o->in[i].i] = true;
        if (!keep) op_erase(f, op);
    }
}

/* Parameters from index `from` on that no op uses. */
static void func_drop_params(Elab *e, uint32_t from)
{
    Func *f = e->f;
    Uses uses = func_uses(e->arena, f);
    uint32_t n = from;
    for (uint32_t i = from; i < f->params.n; i++) {
        ValueId v = f->params.at[i];
        if (uses.start[v.i] == uses.start[v.i + 1]) continue;
        value_get(f, v)->index = n;
        f->params.at[n++] = v;
    }
    f->params.n = n;
}

static void elab_reset(Elab *e, ElabMode mode, const char *name)
{
    e->mode = mode;
    e->f = func_new(e->m, name);
    e->scope.n = e->n_globals = e->frame = 0;
    e->inst = ARENA_NEW(e->arena, Instance);
    *e->inst = (Instance){.name = "", .path = "", .count = NOT_A_CHAIN};
    e->call = NULL;
    e->batch = 0;
    e->depth = e->n_steps = e->n_instances = 0;
    e->rng = (ValueId){0};
    e->reads.n = 0;
    e->outputs.n = 0;
    e->walks.n = 0;
    e->loss = val_none();
}

static const char *const mode_names[] = {
    [MODE_TRAIN] = "train", [MODE_EVAL] = "eval", [MODE_GENERATE] = "generate"};

Func *elab_function(Elab *e, ElabMode mode)
{
    uint32_t n_errors = e->diag->n_errors;
    const Ast *model = e->prog->model;
    elab_reset(e, mode, mode_names[mode]);
    e->m->name = model->text;
    if (elab_globals(e) != ZM_OK) return NULL;
    if (elab_inputs(e) != ZM_OK) return NULL;
    elab_body(e, model->kid[1]);
    precision_apply(e);
    if (e->diag->n_errors > n_errors) return NULL;
    Status st = mode == MODE_GENERATE ? return_outputs(e) : return_loss(e);
    if (st != ZM_OK) return NULL;
    func_drop_dead(e->arena, e->f);
    func_drop_params(e, mode == MODE_GENERATE ? 0 : model->kid[0]->n);
    return e->f;
}

const char *model_batch_dim(const Program *prog)
{
    const Ast *args = prog->model->kid[0], *body = prog->model->kid[1];
    const char *name = NULL;
    bool has_output = false;
    for (uint32_t i = 0; i < body->n; i++) has_output |= body->kid[i]->kind == AST_OUTPUT;
    for (uint32_t i = 0; i < args->n; i++) {
        const Ast *type = args->kid[i]->kid[0];
        if (!type || !type->n || type->kid[0]->kind != AST_NAME) return NULL;
        if (name && type->kid[0]->text != name) return NULL;
        name = type->kid[0]->text;
    }
    for (uint32_t i = 0; has_output && i < prog->globals.n; i++)
        if (prog->globals.at[i]->kind == AST_DIM && prog->globals.at[i]->text == name) return name;
    return NULL;
}
