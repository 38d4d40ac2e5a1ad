/* precision.c -- overrides of the precision: statements in `precision f32 { }` and --precision-of
 * put attribute `precision` on the ops that they stand for; pass amp reads and removes it. */
#include "frontend/elab.h"
#include "frontend/suggest.h"

#include <string.h>

/* Ops [from, to) that take something; `wins`: over what is there already. */
static void stamp(Elab *e, uint32_t from, uint32_t to, const char *word, bool wins)
{
    for (uint32_t i = from; i < to; i++) {
        Op *o = op_get(e->f, (OpId){i});
        if (o->n_in == 0 || (attrs_find(o->attrs, AT_PRECISION) && !wins)) continue;
        AttrList l = {.n = o->attrs.n};
        if (l.n) memcpy(l.at, o->attrs.at, l.n * sizeof *l.at);
        attr_add_str(&l, AT_PRECISION, word);
        o->attrs = attrs_copy(e->m, &l);
    }
}

void precision_stamp(Elab *e, uint32_t from, const char *word)
{
    stamp(e, from, e->f->ops.n, word, false);
}

void precision_note_walk(Elab *e, const Ast *block, const Instance *inst, uint32_t from)
{
    if (!e->opt || !e->opt->n_overrides) return;
    BlockWalk w = {block->text, inst ? inst->path : NULL, from, e->f->ops.n};
    VEC_PUSH(e->arena, &e->walks, w);
}

/* ---- --precision-of NAME=f32|low ---- */

/* Of the block; of an instance; of what is in it, for a chain is no walk of its own. */
static bool walk_matches(const BlockWalk *w, const char *name)
{
    size_t n = strlen(name);
    if (strcmp(w->block, name) == 0) return true;
    if (!w->path) return false;
    return glob_match(name, w->path) || (strncmp(w->path, name, n) == 0 && w->path[n] == '.');
}

static void apply(Elab *e, Define *o)
{
    OpCode code = op_from_name(o->name, strlen(o->name));
    bool is_block = false;
    for (uint32_t i = 0; i < e->walks.n; i++) {
        const BlockWalk *w = &e->walks.at[i];
        if (!walk_matches(w, o->name)) continue;
        is_block = true;
        stamp(e, w->from, w->to, o->value, true);
    }
    o->used |= is_block;
    for (uint32_t i = 1; code != OP_NONE && !is_block && i < e->f->ops.n; i++) {
        if (op_cget(e->f, (OpId){i})->code != code) continue;
        o->used = true;
        stamp(e, i, i + 1, o->value, true);
    }
}

void precision_apply(Elab *e)
{
    for (uint32_t i = 0; e->opt && i < e->opt->n_overrides; i++) apply(e, &e->opt->overrides[i]);
}

/* A list of names, each once, that ends in "..." when it is long. */
typedef struct Names {
    Suggest *suggest;
    Str text;
    Map seen;
    uint32_t n;
} Names;

static void add_name(Elab *e, Names *names, const char *name)
{
    enum { MAX_SHOWN = 24 };
    uint64_t key = hash_bytes(name, strlen(name), 0);
    if (map_get(&names->seen, key) != MAP_NONE) return;
    names->seen.arena = e->arena;
    map_put(&names->seen, key, 0);
    suggest_try(names->suggest, name);
    names->n++;
    if (names->n <= MAX_SHOWN) str_addf(&names->text, "%s%s", names->n > 1 ? ", " : "", name);
    if (names->n == MAX_SHOWN + 1) str_add(&names->text, ", ...");
}

static void help_names(Elab *e, const char *what, Names *names)
{
    if (names->n) diag_help(e->diag, "%s: %s", what, str_c(&names->text));
    str_free(&names->text);
}

static Status refuse(Elab *e, const Define *o)
{
    diag_error(e->diag, (SrcPos){0}, E_USAGE,
               "--precision-of %s=%s: no block, instance or op of this model has this name",
               o->name, o->value);
    Suggest s = suggest_new(o->name);
    Names blocks = {.suggest = &s}, paths = {.suggest = &s}, ops = {.suggest = &s};
    for (uint32_t i = 0; i < e->walks.n; i++) add_name(e, &blocks, e->walks.at[i].block);
    for (uint32_t i = 0; i < e->walks.n; i++)
        if (e->walks.at[i].path) add_name(e, &paths, e->walks.at[i].path);
    for (uint32_t i = 1; i < e->f->ops.n; i++) {
        const Op *op = op_cget(e->f, (OpId){i});
        if (op->n_in && op->n_out) add_name(e, &ops, op_info(op->code)->name);
    }
    if (s.best) diag_help(e->diag, "did you mean %s?", s.best);
    help_names(e, "blocks", &blocks);
    help_names(e, "instances", &paths);
    help_names(e, "ops", &ops);
    return ZM_FAIL;
}

Status precision_check(Elab *e)
{
    for (uint32_t i = 0; e->opt && i < e->opt->n_overrides; i++)
        if (!e->opt->overrides[i].used) return refuse(e, &e->opt->overrides[i]);
    return ZM_OK;
}
