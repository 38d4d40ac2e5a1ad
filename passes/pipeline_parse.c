/* pipeline_parse.c -- see pipeline_parse.h.  The options that a pass takes are rows of options.def.
 */
#include "passes/pipeline_parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef enum { OK_COUNT, OK_I64, OK_BOOL } OptionKind;

typedef struct OptionInfo {
    const char *pass, *key;
    OptionKind kind;
    size_t offset; /* in PassOptions */
} OptionInfo;

static const OptionInfo option_table[] = {
#define OPTION(PASS_NAME, KEY, KIND, FIELD, DOC)                                                   \
    {PASS_NAME, KEY, OK_##KIND, offsetof(PassOptions, FIELD)},
#include "passes/options.def"
#undef OPTION
};

typedef struct Parser {
    Arena *a;
    Diag *diag;
    const PipelineRun *run;
    const char *p;
} Parser;

static void skip_space(Parser *s)
{
    while (isspace((unsigned char)*s->p)) s->p++;
}

static bool accept(Parser *s, char c)
{
    skip_space(s);
    if (*s->p != c) return false;
    s->p++;
    return true;
}

/* A word of letters, digits and -_. ; empty when there is none. */
static const char *read_word(Parser *s)
{
    skip_space(s);
    const char *start = s->p;
    while (isalnum((unsigned char)*s->p) || (*s->p && strchr("-_.", *s->p))) s->p++;
    return arena_strndup(s->a, start, (size_t)(s->p - start));
}

static Status fail_unknown_pass(Parser *s, const char *name)
{
    diag_error(s->diag, (SrcPos){0}, E_PASS_UNKNOWN, "unknown pass '%s'", name);
    Str all = {0};
    for (int i = 0; i < N_PASS; i++)
        str_addf(&all, "%s%s", i ? ", " : "", pass_info((PassId)i)->name);
    diag_help(s->diag, "the passes are %s", str_c(&all));
    str_free(&all);
    return ZM_FAIL;
}

static Status fail_unknown_key(Parser *s, const char *pass, const char *key)
{
    diag_error(s->diag, (SrcPos){0}, E_PASS_OPTION, "pass '%s' has no option '%s'", pass, key);
    for (size_t i = 0; i < sizeof option_table / sizeof *option_table; i++)
        if (strcmp(option_table[i].pass, pass) == 0)
            diag_help(s->diag, "it takes '%s'", option_table[i].key);
    return ZM_FAIL;
}

static const OptionInfo *option_find(const char *pass, const char *key)
{
    for (size_t i = 0; i < sizeof option_table / sizeof *option_table; i++)
        if (strcmp(option_table[i].pass, pass) == 0 && strcmp(option_table[i].key, key) == 0)
            return &option_table[i];
    return NULL;
}

/* Whether `text` is a value of this kind; then it is stored. */
static bool option_set(PassOptions *opt, const OptionInfo *info, const char *text)
{
    char *field = (char *)opt + info->offset;
    if (info->kind == OK_BOOL) {
        bool on = strcmp(text, "true") == 0;
        if (!on && strcmp(text, "false") != 0) return false;
        memcpy(field, &on, sizeof on);
        return true;
    }
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (*end || end == text || errno || v < 0) return false;
    if (info->kind == OK_I64) {
        int64_t wide = v;
        memcpy(field, &wide, sizeof wide);
        return true;
    }
    uint32_t narrow = (uint32_t)v;
    memcpy(field, &narrow, sizeof narrow);
    return v >= 1 && v <= UINT32_MAX;
}

static Status read_option(Parser *s, PipelineStep *step)
{
    const char *pass = step->pass->name;
    const char *key = read_word(s);
    const OptionInfo *info = option_find(pass, key);
    if (!info) return fail_unknown_key(s, pass, key);
    if (!accept(s, '='))
        return diag_error(s->diag, (SrcPos){0}, E_PASS_OPTION,
                          "option '%s' of pass '%s' needs =value", key, pass);
    const char *value = read_word(s);
    if (!option_set(&step->opt, info, value))
        return diag_error(s->diag, (SrcPos){0}, E_PASS_OPTION,
                          "option '%s' of pass '%s' does not take the value '%s'", key, pass,
                          value);
    return ZM_OK;
}

static const PassInfo *find_pass(const Parser *s, const char *name)
{
    PassId id;
    for (uint32_t i = 0; i < s->run->n_extra; i++)
        if (strcmp(s->run->extra[i].name, name) == 0) return &s->run->extra[i];
    return pass_find(name, strlen(name), &id) ? pass_info(id) : NULL;
}

static Status read_step(Parser *s, PipelineStep *step)
{
    skip_space(s);
    const char *start = s->p;
    const char *name = read_word(s);
    if (!(step->pass = find_pass(s, name))) return fail_unknown_pass(s, name);
    if (accept(s, '{')) {
        do ZM_TRY(read_option(s, step));
        while (accept(s, ','));
        if (!accept(s, '}'))
            return diag_error(s->diag, (SrcPos){0}, E_PASS_UNKNOWN,
                              "the options of pass '%s' do not end in '}': '%s'", name, s->p);
    }
    step->text = arena_strndup(s->a, start, (size_t)(s->p - start));
    return ZM_OK;
}

Status pipeline_parse(Arena *a, Diag *diag, const char *text, const PipelineRun *run, Pipeline *out)
{
    Parser s = {a, diag, run, text};
    VEC(PipelineStep) steps = {0};
    do {
        PipelineStep step = {.opt = run->opt};
        ZM_TRY(read_step(&s, &step));
        VEC_PUSH(a, &steps, step);
    } while (accept(&s, ','));
    skip_space(&s);
    if (*s.p)
        return diag_error(diag, (SrcPos){0}, E_PASS_UNKNOWN, "expected ',' in the pipeline at '%s'",
                          s.p);
    *out = (Pipeline){steps.at, steps.n};
    return ZM_OK;
}
