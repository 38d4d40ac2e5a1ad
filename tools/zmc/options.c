/* options.c -- the command line of zmc (zmc.h, options.def). */
#include "tools/zmc/zmc.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum { KIND_STR, KIND_INT, KIND_RANGE, KIND_SIZE, KIND_FLAG, KIND_PAIRS } OptionKind;

typedef struct OptionInfo {
    const char *name;
    OptionKind kind;
    size_t offset; /* of the field in Options */
    const char *arg, *help;
} OptionInfo;

static const OptionInfo option_info[] = {
#define OPTION(FIELD, NAME, KIND, ARG, HELP)                                                       \
    {NAME, KIND_##KIND, offsetof(Options, FIELD), ARG, HELP},
#include "tools/zmc/options.def"
#undef OPTION
};
enum { N_OPTIONS = sizeof option_info / sizeof *option_info };

void options_help(FILE *out)
{
    fputs("zmc MODEL.zm -o OUT [options] [-D name=value]...    compile a model to a training "
          "executable\n"
          "zmc plan MODEL.zm|FILE.zir [options]                print the memory plan\n"
          "zmc run -n N [--restarts K] OUT [options of OUT]    launch an executable on N ranks; "
          "after a failure go on\n"
          "                                                    from its newest --save, at most K "
          "times\n\n",
          out);
    fprintf(out, "  %-38s %s\n", "-D NAME=VALUE",
            "set a dim, a const, or a section's setting (train.optimizer.lr=1e-3)");
    for (int i = 0; i < N_OPTIONS; i++) {
        char left[80];
        snprintf(left, sizeof left, "%s %s", option_info[i].name, option_info[i].arg);
        fprintf(out, "  %-38s %s\n", left, option_info[i].help);
    }
    fputs("\nexit codes: 0 done, 1 bad input or usage, 2 a failure of the system, 3 over --memory; "
          "of zmc run: the executable's\n"
          "(OUT --help lists them), or 128 + the signal that ended it\n",
          out);
}

Status options_error(Session *s, const char *text)
{
    diag_error(&s->diag, (SrcPos){0}, E_USAGE, "%s", text);
    diag_help(&s->diag, "zmc --help lists the options");
    return ZM_FAIL;
}

/* ---- values ---- */

static Status parse_int(Session *s, const char *name, const char *text, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end || errno || v <= 0)
        return options_error(
            s, arena_printf(&s->arena, "%s takes a positive integer, not '%s'", name, text));
    *out = v;
    return ZM_OK;
}

static Status parse_range(Session *s, const char *name, const char *text, OptRANGE *out)
{
    const char *dots = strstr(text, "..");
    const char *first = dots ? arena_strndup(&s->arena, text, (size_t)(dots - text)) : text;
    ZM_TRY(parse_int(s, name, first, &out->from));
    out->to = out->from;
    if (dots) ZM_TRY(parse_int(s, name, dots + 2, &out->to));
    if (out->to >= out->from) return ZM_OK;
    diag_error(&s->diag, (SrcPos){0}, E_USAGE, "%s %s ends before it begins", name, text);
    if (s->is_plan)
        diag_help(&s->diag, "the smaller number comes first: %s %lld..%lld", name,
                  (long long)out->to, (long long)out->from);
    else
        diag_help(&s->diag, "choose one number here; zmc plan takes %s %lld..%lld", name,
                  (long long)out->to, (long long)out->from);
    return ZM_FAIL;
}

static double size_unit(const char *text)
{
    static const struct {
        const char *name;
        double bytes;
    } units[] = {{"", 1},         {"B", 1},    {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30},
                 {"TiB", 0x1p40}, {"KB", 1e3}, {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(units[i].name, text) == 0) return units[i].bytes;
    return 0;
}

static Status parse_size(Session *s, const char *name, const char *text, int64_t *out)
{
    char *end;
    double v = strtod(text, &end);
    double bytes = v * size_unit(end);
    if (end == text || !isfinite(bytes) || bytes < 1 || bytes > 0x1p62)
        return options_error(
            s, arena_printf(&s->arena,
                            "%s takes a number of bytes such as 65536, 500MB or 16GiB, not '%s'",
                            name, text));
    *out = (int64_t)bytes;
    return ZM_OK;
}

static Status parse_pair(Session *s, const char *name, const char *text, OptPAIRS *out)
{
    const char *eq = strchr(text, '=');
    if (!eq || eq == text)
        return options_error(s,
                             arena_printf(&s->arena, "%s takes name=value, not '%s'", name, text));
    Define d = {.name = arena_strndup(&s->arena, text, (size_t)(eq - text)), .value = eq + 1};
    VEC_PUSH(&s->arena, out, d);
    return ZM_OK;
}

static Status set_option(Session *s, const OptionInfo *info, const char *value)
{
    void *field = (char *)&s->opt + info->offset;
    switch (info->kind) {
    case KIND_STR: *(const char **)field = value; return ZM_OK;
    case KIND_INT: return parse_int(s, info->name, value, (int64_t *)field);
    case KIND_RANGE: return parse_range(s, info->name, value, (OptRANGE *)field);
    case KIND_SIZE: return parse_size(s, info->name, value, (int64_t *)field);
    case KIND_FLAG: *(bool *)field = true; return ZM_OK;
    case KIND_PAIRS: return parse_pair(s, info->name, value, field);
    }
    ZM_UNREACHABLE("option kind");
}

/* ---- arguments ---- */

/* The option that argv word `text` names; *value points behind "=" if there is one. */
static const OptionInfo *find_option(const char *text, const char **value)
{
    size_t n = strcspn(text, "=");
    *value = text[n] ? text + n + 1 : NULL;
    for (int i = 0; i < N_OPTIONS; i++)
        if (strlen(option_info[i].name) == n && strncmp(option_info[i].name, text, n) == 0)
            return &option_info[i];
    return NULL;
}

static Status parse_word(Session *s, int argc, char **argv, int *i)
{
    const char *word = argv[*i];
    bool is_define = strncmp(word, "-D", 2) == 0;
    if (*word != '-' || word[1] == '\0') {
        if (s->opt.input)
            return options_error(
                s, arena_printf(&s->arena, "two inputs: '%s' and '%s'", s->opt.input, word));
        s->opt.input = word;
        return ZM_OK;
    }
    if (is_define && word[2]) return parse_pair(s, "-D", word + 2, &s->opt.defines);
    const char *value = NULL;
    const OptionInfo *info = is_define ? NULL : find_option(word, &value);
    if (!info && !is_define)
        return options_error(s, arena_printf(&s->arena, "unknown option '%s'", word));
    if (info && info->kind == KIND_FLAG)
        return value ? options_error(s, arena_printf(&s->arena, "%s takes no value", info->name))
                     : set_option(s, info, NULL);
    if (!value && *i + 1 >= argc)
        return options_error(s, arena_printf(&s->arena, "'%s' needs a value", word));
    if (!value) value = argv[++*i];
    return is_define ? parse_pair(s, "-D", value, &s->opt.defines) : set_option(s, info, value);
}

static const char *join_arguments(Arena *a, int argc, char **argv)
{
    Str text = {0};
    str_add(&text, "zmc");
    for (int i = 0; i < argc; i++) str_addf(&text, " %s", argv[i]);
    const char *kept = arena_strdup(a, str_c(&text));
    str_free(&text);
    return kept;
}

Status options_parse(Session *s, int argc, char **argv)
{
    s->opt.command_line = join_arguments(&s->arena, argc, argv);
    for (int i = 0; i < argc; i++) ZM_TRY(parse_word(s, argc, argv, &i));
    return options_check(s);
}
