/* options.c -- the command line of zmc (zmc.h, options.def). */
#include "tools/zmc/zmc.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum { KIND_STR, KIND_INT, KIND_SIZE, KIND_FLAG, KIND_PAIRS } OptionKind;

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
          "zmc run -n N OUT ...                                launch an executable on N ranks\n\n",
          out);
    fprintf(out, "  %-38s %s\n", "-D NAME=VALUE",
            "set a dim, a const, or a section's setting (train.optimizer.lr=1e-3)");
    for (int i = 0; i < N_OPTIONS; i++) {
        char left[80];
        snprintf(left, sizeof left, "%s %s", option_info[i].name, option_info[i].arg);
        fprintf(out, "  %-38s %s\n", left, option_info[i].help);
    }
}

static Status usage_error(Session *s, const char *text)
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
        return usage_error(
            s, arena_printf(&s->arena, "%s takes a positive integer, not '%s'", name, text));
    *out = v;
    return ZM_OK;
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
        return usage_error(
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
        return usage_error(s, arena_printf(&s->arena, "%s takes name=value, not '%s'", name, text));
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
            return usage_error(
                s, arena_printf(&s->arena, "two inputs: '%s' and '%s'", s->opt.input, word));
        s->opt.input = word;
        return ZM_OK;
    }
    if (is_define && word[2]) return parse_pair(s, "-D", word + 2, &s->opt.defines);
    const char *value = NULL;
    const OptionInfo *info = is_define ? NULL : find_option(word, &value);
    if (!info && !is_define)
        return usage_error(s, arena_printf(&s->arena, "unknown option '%s'", word));
    if (info && info->kind == KIND_FLAG)
        return value ? usage_error(s, arena_printf(&s->arena, "%s takes no value", info->name))
                     : set_option(s, info, NULL);
    if (!value && *i + 1 >= argc)
        return usage_error(s, arena_printf(&s->arena, "'%s' needs a value", word));
    if (!value) value = argv[++*i];
    return is_define ? parse_pair(s, "-D", value, &s->opt.defines) : set_option(s, info, value);
}

/* ---- what this version can do ---- */

static bool is_one_of(const char *text, const char *choices)
{
    for (const char *p = choices; *p;) {
        size_t n = strcspn(p, "|");
        if (strlen(text) == n && strncmp(p, text, n) == 0) return true;
        p += n + (p[n] != '\0');
    }
    return false;
}

/* A choice must be among `valid`; `supported` are those that this version compiles. */
static Status check_choice(Session *s, const char *name, const char *value, const char *valid,
                           const char *supported)
{
    if (!value || is_one_of(value, supported)) return ZM_OK;
    if (!is_one_of(value, valid))
        return usage_error(s, arena_printf(&s->arena, "%s takes %s, not '%s'", name, valid, value));
    diag_error(&s->diag, (SrcPos){0}, E_USAGE, "%s %s is not supported by this version of zmc",
               name, value);
    diag_help(&s->diag, "use %s %s", name, supported);
    return ZM_FAIL;
}

static Status check_overrides(Session *s)
{
    const Options *o = &s->opt;
    for (uint32_t i = 0; i < o->precision_of.n; i++) {
        const Define *d = &o->precision_of.at[i];
        if (!is_one_of(d->value, "f32|low"))
            return usage_error(s, arena_printf(&s->arena,
                                               "--precision-of %s takes f32 or low, not '%s'",
                                               d->name, d->value));
        if (o->precision && strcmp(o->precision, "fp32") != 0) continue;
        diag_error(&s->diag, (SrcPos){0}, E_USAGE,
                   "--precision-of %s=%s with fp32: everything is f32", d->name, d->value);
        diag_help(&s->diag, "give --precision bf16 or fp16 too");
        return ZM_FAIL;
    }
    return ZM_OK;
}

/* What only some precisions can store. */
static Status check_storage(Session *s)
{
    const Options *o = &s->opt;
    const char *precision = o->precision ? o->precision : "fp32";
    bool is_autocast = o->amp && strcmp(o->amp, "autocast") == 0;
    bool is_low = o->grad_dtype && strcmp(o->grad_dtype, "low") == 0;
    if (is_autocast && strcmp(precision, "fp32") == 0)
        return usage_error(s, "--amp autocast: with --precision fp32 nothing is cast; add "
                              "--precision bf16 or fp16");
    if (is_low && strcmp(precision, "fp32") == 0)
        return usage_error(s,
                           "--grad-dtype low: with --precision fp32 no gradient has 16 bits; add "
                           "--precision bf16 or fp16");
    if (!o->pure) return ZM_OK;
    if (strcmp(precision, "bf16") != 0)
        return usage_error(
            s, arena_printf(&s->arena,
                            "--pure keeps parameters in bf16, not in %s; add --precision bf16",
                            precision));
    if (is_autocast)
        return usage_error(s, "--pure: with --amp autocast parameters are f32 and there are no "
                              "masters to leave out; use --amp master");
    return ZM_OK;
}

static bool is_planned(const char *file)
{
    size_t n = file ? strlen(file) : 0;
    return n >= 4 && strcmp(file + n - 4, ".zir") == 0;
}

/* A .zir has its plan: what made it cannot be asked for any more. */
static Status check_planned(Session *s)
{
    const Options *o = &s->opt;
    if (!is_planned(o->input) || (o->vs && !is_planned(o->vs))) return ZM_OK;
    const struct {
        const char *name;
        bool is_given;
    } of_model[] = {{"-D", o->defines.n > 0},
                    {"--ranks", o->ranks != 0},
                    {"--zero", o->zero != NULL},
                    {"--precision", o->precision != NULL},
                    {"--precision-of", o->precision_of.n > 0},
                    {"--amp", o->amp != NULL},
                    {"--grad-dtype", o->grad_dtype != NULL},
                    {"--moments", o->moments != NULL},
                    {"--pure", o->pure},
                    {"--loss-scale", o->loss_scale != NULL},
                    {"--accumulate", o->accumulate != 0},
                    {"--recompute", o->recompute != NULL},
                    {"--bucket-bytes", o->bucket_bytes != 0},
                    {"--loss-chunk-bytes", o->loss_chunk_bytes != 0}};
    for (size_t i = 0; i < sizeof of_model / sizeof *of_model; i++) {
        if (!of_model[i].is_given) continue;
        diag_error(&s->diag, (SrcPos){0}, E_USAGE,
                   "%s has no effect on %s, which is planned already", of_model[i].name, o->input);
        diag_help(&s->diag, "give the option when the model (.zm) is compiled");
        return ZM_FAIL;
    }
    return ZM_OK;
}

/* How the plan is printed. */
static Status check_printed(Session *s)
{
    const Options *o = &s->opt;
    if (o->json && o->csv)
        return usage_error(s, "--json and --csv: the plan is printed once, choose one of them");
    if (o->vs && (o->csv || o->html))
        return usage_error(s, arena_printf(&s->arena,
                                           "--vs with %s: two plans are compared as a table, or "
                                           "with --json",
                                           o->csv ? "--csv" : "--html"));
    if (o->vs && o->dump_dir)
        return usage_error(s, "--vs with --dump-dir: the second model's dumps would replace the "
                              "first one's; compile them one by one");
    if (o->html && (o->json || o->csv))
        return usage_error(s, arena_printf(&s->arena,
                                           "--html %s with %s: the plan is written once, choose "
                                           "one of them; the page holds the JSON too",
                                           o->html, o->json ? "--json" : "--csv"));
    return ZM_OK;
}

static Status check_options(Session *s)
{
    const Options *o = &s->opt;
    ZM_TRY(check_planned(s));
    ZM_TRY(check_choice(s, "--emit", o->emit, "ast|ir|kernels|program|exe",
                        "ast|ir|kernels|program|exe"));
    ZM_TRY(check_choice(s, "--zero", o->zero, "0|1|2|3", "0"));
    ZM_TRY(check_choice(s, "--precision", o->precision, "fp32|bf16|fp16", "fp32|bf16|fp16"));
    ZM_TRY(check_choice(s, "--amp", o->amp, "master|autocast", "master|autocast"));
    ZM_TRY(check_overrides(s));
    ZM_TRY(check_choice(s, "--grad-dtype", o->grad_dtype, "f32|low", "f32|low"));
    ZM_TRY(check_choice(s, "--moments", o->moments, "f32|bf16", "f32|bf16"));
    ZM_TRY(check_storage(s));
    ZM_TRY(check_choice(s, "--grad-comm", o->grad_comm, "f32|low", "f32"));
    ZM_TRY(check_choice(s, "--recompute", o->recompute, "none|layer|auto", "none|layer|auto"));
    ZM_TRY(check_choice(s, "--zero2-reduce", o->zero2_reduce, "micro|step", "micro|step"));
    if (o->ranks > 1)
        return check_choice(s, "--ranks", arena_printf(&s->arena, "%lld", (long long)o->ranks),
                            arena_printf(&s->arena, "%lld", (long long)o->ranks), "1");
    if (o->loss_scale) ZM_TRY(loss_scale_parse(s, o->loss_scale, &s->loss_scale));
    if (o->no_state_tricks) {
        diag_error(&s->diag, (SrcPos){0}, E_USAGE,
                   "--no-state-tricks is not supported by this version of zmc");
        return ZM_FAIL;
    }
    return check_printed(s);
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
    return check_options(s);
}
