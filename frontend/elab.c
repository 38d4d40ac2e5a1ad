/* elab.c -- errors and scopes of elaboration, and frontend_compile. */
#include "frontend/elab.h"
#include "frontend/sections.h"

#include <stdarg.h>
#include <string.h>

#include "frontend/suggest.h"

/* ---- errors ---- */

/* One error of a code per place: the same line is walked once for each instance and function. */
static bool is_repetition(Elab *e, SrcPos pos, DiagCode code)
{
    uint32_t place[] = {pos.source, pos.line, pos.col, code};
    uint64_t key = hash_bytes(place, sizeof place, 0);
    if (map_get(e->reported, key) != MAP_NONE) return true;
    map_put(e->reported, key, 0);
    return false;
}

Val elab_error(Elab *e, SrcPos pos, DiagCode code, const char *fmt, ...)
{
    e->said = !is_repetition(e, pos, code);
    if (!e->said) return val_error();
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    diag_error(e->diag, pos, code, "%s", text);
    if (e->inst && *e->inst->path)
        diag_note(e->diag, e->inst->pos, "in %s, an instance of %s", e->inst->path,
                  e->inst->block->text);
    return val_error();
}

void elab_note(Elab *e, SrcPos pos, const char *fmt, ...)
{
    if (!e->said) return;
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    diag_note(e->diag, pos, "%s", text);
}

void elab_help(Elab *e, const char *fmt, ...)
{
    if (!e->said) return;
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    diag_help(e->diag, "%s", text);
}

const char *elab_text(Elab *e, Val v)
{
    return val_text(e->arena, e->f, v);
}

void elab_note_operand(Elab *e, const Ast *ast, Val v)
{
    if (!ast || v.kind == VAL_ERROR || v.kind == VAL_NONE) return;
    const Binding *b = ast->kind == AST_NAME ? scope_find(e, ast->text) : NULL;
    if (b && b->pos.line)
        elab_note(e, b->pos, "%s is %s, declared here", ast->text, elab_text(e, v));
    else if (ast->kind == AST_NAME)
        elab_note(e, ast->pos, "%s is %s", ast->text, elab_text(e, v));
    else if (ast->kind != AST_INT && ast->kind != AST_REAL && ast->kind != AST_BOOL)
        elab_note(e, ast->pos, "this is %s", elab_text(e, v));
}

/* ---- scope ---- */

void scope_add(Elab *e, const char *name, Val val, SrcPos pos)
{
    Binding b = {name, val, pos};
    VEC_PUSH(e->arena, &e->scope, b);
}

const Binding *scope_find(const Elab *e, const char *name)
{
    for (uint32_t i = e->scope.n; i > e->frame; i--)
        if (e->scope.at[i - 1].name == name) return &e->scope.at[i - 1];
    for (uint32_t i = e->n_globals; i > 0; i--)
        if (e->scope.at[i - 1].name == name) return &e->scope.at[i - 1];
    return NULL;
}

/* ---- -D ---- */

Ast *define_find(Elab *e, const char *name)
{
    uint32_t at = UINT32_MAX;
    for (uint32_t i = 0; e->opt && i < e->opt->n_defines; i++) {
        if (strcmp(e->opt->defines[i].name, name) != 0) continue;
        e->opt->defines[i].used = true;
        at = i; /* the last one wins */
    }
    if (at == UINT32_MAX) return NULL;
    if (!e->define_ast) e->define_ast = ARENA_ARRAY(e->arena, Ast *, e->opt->n_defines);
    if (!e->define_ast[at]) {
        const char *source = arena_printf(e->arena, "-D %s", name);
        e->define_ast[at] =
            parse_expression(e->arena, &e->m->strings, e->diag, source, e->opt->defines[at].value);
    }
    return e->define_ast[at];
}

static void suggest_setting(void *cx, const char *name)
{
    suggest_try(cx, name);
}

typedef struct KnownSetting {
    const char *name;
    bool is_one;
} KnownSetting;

static void compare_setting(void *cx, const char *name)
{
    KnownSetting *k = cx;
    k->is_one |= strcmp(k->name, name) == 0;
}

/* A setting that there is, but not of what the file sets: the window of a static loss scale. */
static bool define_of_other_kind(Elab *e, const Define *d)
{
    KnownSetting k = {.name = d->name};
    settings_each(e->arena, compare_setting, &k);
    if (!k.is_one) return false;
    int owner = (int)(strrchr(d->name, '.') - d->name);
    bool is_scale = strncmp(d->name, "train.loss_scale.", 17) == 0;
    diag_error(e->diag, (SrcPos){0}, E_DEFINE, "-D %s=%s: %.*s has no such setting here", d->name,
               d->value, owner, d->name);
    diag_help(e->diag,
              is_scale ? "add -D train.loss_scale=dynamic: without it the scale is static"
                       : "-D %.*s=... chooses another kind",
              owner, d->name);
    return true;
}

static Status defines_check(Elab *e)
{
    Status st = ZM_OK;
    for (uint32_t i = 0; e->opt && i < e->opt->n_defines; i++) {
        Define *d = &e->opt->defines[i];
        if (d->used) continue;
        if (define_of_other_kind(e, d)) {
            st = ZM_FAIL;
            continue;
        }
        st = diag_error(e->diag, (SrcPos){0}, E_DEFINE,
                        "-D %s=%s: no dim, const or setting has this name", d->name, d->value);
        Suggest s = suggest_new(d->name);
        Str known = {0};
        for (uint32_t k = 0; k < e->prog->globals.n; k++) {
            const Ast *g = e->prog->globals.at[k];
            if (g->kind == AST_ASSERT) continue;
            suggest_try(&s, g->text);
            str_addf(&known, "%s%s", known.n ? ", " : "", g->text);
        }
        settings_each(e->arena, suggest_setting, &s);
        if (s.best)
            diag_help(e->diag, "did you mean %s?", s.best);
        else
            diag_help(e->diag, "this file has %s",
                      known.n ? str_c(&known) : "no dims and no consts");
        str_free(&known);
    }
    return st;
}

/* ---- the whole ---- */

/* Generation with a batch of 1 is an offer: a model that does not elaborate that way just has none.
 */
static void lower_generate(Elab *e)
{
    e->batch_dim = model_batch_dim(e->prog);
    if (!e->batch_dim) return;
    Diag *diag = e->diag;
    Map *reported = e->reported;
    Diag quiet = {.arena = diag->arena, .sources = diag->sources};
    Map again = {.arena = e->arena};
    uint32_t n_funcs = e->m->funcs.n;
    e->diag = &quiet;
    e->reported = &again;
    if (!elab_function(e, MODE_GENERATE)) e->m->funcs.n = n_funcs;
    e->diag = diag;
    e->reported = reported;
}

/* A step without a gradient is no step. */
static Status trainable_check(Elab *e)
{
    const Func *f = func_find(e->m, "train");
    FOR_OPS(f, op) if (op_cget(f, op)->code == OP_READ) return ZM_OK;
    elab_error(e, e->loss_pos, E_MODEL,
               "the loss depends on no parameter: there is nothing to train");
    return ZM_FAIL;
}

static Status lower(Elab *e)
{
    if (!elab_function(e, MODE_TRAIN)) return ZM_FAIL;
    if (!elab_function(e, MODE_EVAL)) return ZM_FAIL;
    ZM_TRY(precision_check(e));
    ZM_TRY(sections_read(e));
    ZM_TRY(defines_check(e));
    lower_generate(e);
    ZM_TRY(feeds_bound(e));
    ZM_TRY(data_check(e));
    return trainable_check(e);
}

Module *frontend_compile(Arena *arena, SourceSet *sources, Diag *diag, const char *file,
                         const char *text, size_t n, FrontendOptions *opt)
{
    Module *m = module_new(arena, sources, diag);
    uint32_t n_errors = diag->n_errors;
    Arena scratch = {0};
    Ast *ast = parse_file(arena, &m->strings, diag, file, text, n);
    Program prog = {0};
    Map reported = {.arena = &scratch}, param_pos = {.arena = &scratch}, locs = {.arena = &scratch};
    Elab e = {.arena = &scratch,
              .m = m,
              .diag = diag,
              .prog = &prog,
              .opt = opt,
              .reported = &reported,
              .param_pos = &param_pos,
              .locs = &locs};
    Status st =
        ast && diag->n_errors == n_errors ? program_sort(&scratch, diag, ast, &prog) : ZM_FAIL;
    if (st == ZM_OK) st = names_check(&scratch, diag, &prog);
    if (st == ZM_OK && diag->n_errors == n_errors) st = lower(&e);
    for (uint32_t i = 0; st == ZM_OK && diag->n_errors == n_errors && i < prog.unused.n; i++) {
        const Unused *u = &prog.unused.at[i];
        diag_warning(diag, u->pos, W_UNUSED, "%s %s is never used", u->what, u->name);
    }
    arena_free(&scratch);
    if (st != ZM_OK || diag->n_errors > n_errors) return NULL;
    m->facts = FACT_TYPED | FACT_HAS_LOSS;
    return m;
}

Status frontend_print_ast(Arena *arena, SourceSet *sources, Diag *diag, const char *file,
                          const char *text, size_t n, Str *out)
{
    (void)sources;
    Interner strings = {.arena = arena};
    uint32_t n_errors = diag->n_errors;
    Ast *ast = parse_file(arena, &strings, diag, file, text, n);
    if (!ast || diag->n_errors > n_errors) return ZM_FAIL;
    ast_print(ast, out);
    return ZM_OK;
}
