/* cli.c -- see cli.h. */
#include "runtime/cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum OptionKind { KIND_TEXT, KIND_COUNT, KIND_SEED, KIND_FLAG } OptionKind;

typedef struct OptionInfo {
    const char *name;
    OptionKind kind;
    size_t offset; /* of the member in Options */
    const char *arg, *doc;
    bool is_own; /* may differ between ranks */
} OptionInfo;

enum { RANKS_SAME, RANKS_OWN };

static const OptionInfo infos[] = {
#define OPTION(MEMBER, RANKS, NAME, KIND, ARG, DOC)                                                \
    {NAME, KIND_##KIND, offsetof(Options, MEMBER), ARG, DOC, RANKS_##RANKS == RANKS_OWN},
#include "runtime/options.def"
#undef OPTION
};
enum { N_OPTIONS = sizeof infos / sizeof *infos };

static void list_accepted(Str *out)
{
    size_t column = 0;
    for (int i = 0; i < N_OPTIONS; i++) {
        size_t n = strlen(infos[i].name) + 3;
        str_addf(out, "%s--%s", column == 0 || column + n > 92 ? "\n   " : " ", infos[i].name);
        column = column == 0 || column + n > 92 ? n + 3 : column + n;
    }
}

static RtStatus unknown_option(const char *arg, RtError *e)
{
    Str accepted = {0};
    list_accepted(&accepted);
    RtStatus s = RT_FAIL(e, RT_BAD, "unknown option %s; accepted are%s\n  --help explains them",
                         arg, str_c(&accepted));
    str_free(&accepted);
    return s;
}

static const OptionInfo *option_find(const char *name, size_t n)
{
    for (int i = 0; i < N_OPTIONS; i++)
        if (strlen(infos[i].name) == n && memcmp(infos[i].name, name, n) == 0) return &infos[i];
    return NULL;
}

static RtStatus option_set(Options *o, const OptionInfo *info, const char *value, RtError *e)
{
    char *at = (char *)o + info->offset, *end;
    errno = 0;
    switch (info->kind) {
    case KIND_FLAG: *(OptionFlag *)at = true; return RT_OK;
    case KIND_TEXT: *(OptionText *)at = value; return RT_OK;
    case KIND_COUNT: {
        long long n = strtoll(value, &end, 10);
        if (errno || *end || end == value || n < 0 || n > INT32_MAX)
            return RT_FAIL(e, RT_BAD, "--%s takes a whole number from 0 to %d, not \"%s\"",
                           info->name, INT32_MAX, value);
        *(OptionCount *)at = n;
        return RT_OK;
    }
    case KIND_SEED: {
        unsigned long long n = strtoull(value, &end, 10);
        if (errno || *end || end == value || *value == '-')
            return RT_FAIL(e, RT_BAD,
                           "--%s takes a whole number from 0 to 18446744073709551615, not \"%s\"",
                           info->name, value);
        *(OptionSeed *)at = (OptionSeed){true, n};
        return RT_OK;
    }
    }
    return RT_OK;
}

RtStatus options_parse(Options *o, int argc, char **argv, RtError *e)
{
    *o = (Options){0};
    for (int i = 0; i < N_OPTIONS; i++)
        if (infos[i].kind == KIND_COUNT) *(OptionCount *)((char *)o + infos[i].offset) = -1;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (strncmp(arg, "--", 2) != 0) {
            if (strcmp(arg, "-h") != 0) return unknown_option(arg, e);
            o->help = true;
            continue;
        }
        const char *equals = strchr(arg, '=');
        const OptionInfo *info =
            option_find(arg + 2, equals ? (size_t)(equals - arg - 2) : strlen(arg + 2));
        if (!info) return unknown_option(arg, e);
        if (info->kind == KIND_FLAG && equals)
            return RT_FAIL(e, RT_BAD, "--%s takes no value", info->name);
        const char *value = equals ? equals + 1 : NULL;
        if (info->kind != KIND_FLAG && !value) {
            if (i + 1 >= argc)
                return RT_FAIL(e, RT_BAD, "--%s needs a value: --%s %s", info->name, info->name,
                               info->arg);
            value = argv[++i];
        }
        RT_TRY(option_set(o, info, value, e));
    }
    return RT_OK;
}

RtStatus options_check(const Options *o, RtError *e)
{
    if (o->steps < 0)
        return RT_FAIL(e, RT_BAD,
                       "--steps N is missing: the total number of steps (0 to only load, evaluate, "
                       "export or generate)");
    if (o->load && o->resume)
        return RT_FAIL(e, RT_BAD,
                       "--load and --resume exclude each other: a checkpoint holds its weights");
    if (o->save_every >= 0 && !o->save) return RT_FAIL(e, RT_BAD, "--save-every needs --save DIR");
    if (o->save_every == 0) return RT_FAIL(e, RT_BAD, "--save-every takes 1 or more steps");
    if (o->eval_every >= 0 && !o->eval_data)
        return RT_FAIL(e, RT_BAD, "--eval-every needs --eval-data FILE");
    if (o->eval_every == 0) return RT_FAIL(e, RT_BAD, "--eval-every takes 1 or more steps");
    if (o->check_replicas == 0) return RT_FAIL(e, RT_BAD, "--check-replicas takes 1 or more steps");
    if (o->threads == 0 || o->threads > 1024)
        return RT_FAIL(e, RT_BAD, "--threads takes 1 to 1024");
    if (o->prompt && o->generate < 0) return RT_FAIL(e, RT_BAD, "--prompt needs --generate N");
    if (o->dtype && strcmp(o->dtype, "u8") != 0 && strcmp(o->dtype, "u16") != 0 &&
        strcmp(o->dtype, "u32") != 0)
        return RT_FAIL(e, RT_BAD, "--dtype takes u8, u16 or u32, not \"%s\"", o->dtype);
    if (o->order && strcmp(o->order, "random") != 0 && strcmp(o->order, "sequential") != 0)
        return RT_FAIL(e, RT_BAD, "--order takes random or sequential, not \"%s\"", o->order);
    return RT_OK;
}

static void option_value(const Options *o, const OptionInfo *info, Str *out)
{
    const char *at = (const char *)o + info->offset;
    switch (info->kind) {
    case KIND_FLAG: str_add(out, *(const OptionFlag *)at ? "given" : "not given"); return;
    case KIND_TEXT: {
        OptionText text = *(const OptionText *)at;
        str_add(out, text ? text : "not given");
        return;
    }
    case KIND_COUNT: {
        OptionCount n = *(const OptionCount *)at;
        if (n < 0)
            str_add(out, "not given");
        else
            str_addf(out, "%lld", (long long)n);
        return;
    }
    case KIND_SEED: str_addf(out, "%llu", (unsigned long long)((const OptionSeed *)at)->value);
    }
}

const char *options_shared(const Options *o, uint32_t i, char *value, size_t n, uint64_t *hash)
{
    for (int k = 0; k < N_OPTIONS; k++) {
        if (infos[k].is_own || i-- > 0) continue;
        Str text = {0};
        option_value(o, &infos[k], &text);
        snprintf(value, n, "%s", str_c(&text));
        *hash = hash_bytes(str_c(&text), text.n, 0);
        str_free(&text);
        return infos[k].name;
    }
    return NULL;
}

void options_help(Str *out, const char *program)
{
    str_addf(out, "usage: %s --data FILE --steps N [option]...\n", program);
    for (int i = 0; i < N_OPTIONS; i++) {
        size_t at = out->n;
        str_addf(out, "  --%s%s%s", infos[i].name, *infos[i].arg ? " " : "", infos[i].arg);
        at = out->n - at;
        if (at > 30)
            str_addf(out, "\n%30s", "");
        else
            str_addf(out, "%*s", (int)(30 - at), "");
        str_addf(out, " %s\n", infos[i].doc);
    }
    str_add(out, "exit codes: 0 done, 1 bad use or input, 2 failed while running, 130 and 143 "
                 "stopped by a signal\n");
}
