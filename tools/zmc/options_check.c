/* options_check.c -- what options take, and which of them go together (zmc.h). */
#include <string.h>

#include "tools/zmc/zmc.h"

static bool is_one_of(const char *text, const char *choices)
{
    for (const char *p = choices; *p;) {
        size_t n = strcspn(p, "|");
        if (strlen(text) == n && strncmp(p, text, n) == 0) return true;
        p += n + (p[n] != '\0');
    }
    return false;
}

static Status check_choice(Session *s, const char *name, const char *value, const char *valid)
{
    if (!value || is_one_of(value, valid)) return ZM_OK;
    return options_error(s, arena_printf(&s->arena, "%s takes %s, not '%s'", name, valid, value));
}

/* An error with what to do about it. */
static Status refuse(Session *s, const char *what, const char *help)
{
    diag_error(&s->diag, (SrcPos){0}, E_USAGE, "%s", what);
    diag_help(&s->diag, "%s", help);
    return ZM_FAIL;
}

/* f32, or the 16-bit dtype of the step: which of them, --precision says once for all. */
static Status check_low(Session *s, const char *name, const char *value)
{
    bool is_16 = value && is_one_of(value, "bf16|fp16|f16");
    if (!is_16) return check_choice(s, name, value, "f32|low");
    return refuse(s, arena_printf(&s->arena, "%s takes f32|low, not '%s'", name, value),
                  arena_printf(&s->arena, "--precision %s %s low",
                               strcmp(value, "bf16") == 0 ? "bf16" : "fp16", name));
}

bool options_are_many(const Options *o)
{
    return o->ranks.from != o->ranks.to || (o->zero && strcmp(o->zero, "all") == 0);
}

static Status check_overrides(Session *s)
{
    const Options *o = &s->opt;
    for (uint32_t i = 0; i < o->precision_of.n; i++) {
        const Define *d = &o->precision_of.at[i];
        if (!is_one_of(d->value, "f32|low"))
            return options_error(s, arena_printf(&s->arena,
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
    bool is_comm_low = o->grad_comm && strcmp(o->grad_comm, "low") == 0;
    if (is_autocast && strcmp(precision, "fp32") == 0)
        return options_error(s, "--amp autocast: with --precision fp32 nothing is cast; add "
                                "--precision bf16 or fp16");
    if (is_low && strcmp(precision, "fp32") == 0)
        return options_error(s,
                             "--grad-dtype low: with --precision fp32 no gradient has 16 bits; add "
                             "--precision bf16 or fp16");
    if (is_comm_low && strcmp(precision, "fp32") == 0)
        return options_error(s,
                             "--grad-comm low: with --precision fp32 there is no 16-bit dtype to "
                             "send; add --precision bf16 or fp16");
    if (!o->pure) return ZM_OK;
    if (strcmp(precision, "bf16") != 0)
        return options_error(
            s, arena_printf(&s->arena,
                            "--pure keeps parameters in bf16, not in %s; add --precision bf16",
                            precision));
    if (is_autocast)
        return options_error(s, "--pure: with --amp autocast parameters are f32 and there are no "
                                "masters to leave out; use --amp master");
    return ZM_OK;
}

/* Stages that are asked for, as a choice: "3", "0|1|2|3". */
static bool may_have_stage(const Options *o, const char *stages)
{
    return o->zero && (strcmp(o->zero, "all") == 0 || is_one_of(o->zero, stages));
}

/* What does nothing at the stage that is asked for. */
static Status check_stage(Session *s)
{
    const Options *o = &s->opt;
    const char *stage = o->zero ? o->zero : "0";
    if (o->zero2_reduce && !may_have_stage(o, "2|3"))
        return refuse(s,
                      arena_printf(&s->arena,
                                   "--zero2-reduce %s with --zero %s, which reduces gradients once "
                                   "a step",
                                   o->zero2_reduce, stage),
                      "give --zero 2 or 3 too");
    const char *at_3 = o->max_gathered_bytes ? "--max-gathered-bytes"
                       : o->persist_below    ? "--persist-below"
                                             : NULL;
    if (!at_3 || may_have_stage(o, "3")) return ZM_OK;
    return refuse(s,
                  arena_printf(&s->arena,
                               "%s with --zero %s, which gathers no parameters for the "
                               "forward and backward",
                               at_3, stage),
                  "give --zero 3 too");
}

/* What does nothing on one rank. */
static Status check_one_rank(Session *s)
{
    const Options *o = &s->opt;
    const char *name = o->zero && strcmp(o->zero, "0") != 0 ? "--zero"
                       : o->grad_comm                       ? "--grad-comm"
                                                            : NULL;
    if (!name || o->ranks.from) return ZM_OK;
    diag_warning(&s->diag, (SrcPos){0}, E_USAGE,
                 "%s without --ranks: one rank has nothing to share", name);
    diag_help(&s->diag, "add --ranks N, or --ranks 1 if that is meant");
    return ZM_OK;
}

/* One module holds one number of ranks and one stage; `zmc plan` compares many. */
static Status check_many(Session *s)
{
    const Options *o = &s->opt;
    if (!options_are_many(o)) return ZM_OK;
    const char *what = o->ranks.from != o->ranks.to ? "a range of --ranks" : "--zero all";
    if (!s->is_plan)
        return refuse(s, arena_printf(&s->arena, "%s compares plans, it is no program", what),
                      "zmc plan takes it; choose one number of ranks and one stage here");
    const char *other = o->vs               ? "--vs"
                        : o->print_ir_after ? "--print-ir-after"
                        : o->dump_dir       ? "--dump-dir"
                        : o->timing         ? "--timing"
                                            : NULL;
    if (!other) return ZM_OK;
    return refuse(s,
                  arena_printf(&s->arena, "%s with %s, which shows one compilation", what, other),
                  "choose one number of ranks and one stage");
}

static Status check_ranks(Session *s)
{
    const Options *o = &s->opt;
    if (o->ranks.to > MESH_MAX_RANKS)
        return options_error(s, arena_printf(&s->arena, "--ranks takes at most %d, not %lld",
                                             MESH_MAX_RANKS, (long long)o->ranks.to));
    bool is_all = o->zero && strcmp(o->zero, "all") == 0; /* without plan: check_many() */
    ZM_TRY(check_choice(s, "--zero", o->zero, s->is_plan || is_all ? "0|1|2|3|all" : "0|1|2|3"));
    ZM_TRY(check_low(s, "--grad-comm", o->grad_comm));
    ZM_TRY(check_choice(s, "--zero2-reduce", o->zero2_reduce, "micro|step"));
    ZM_TRY(check_stage(s));
    ZM_TRY(check_one_rank(s));
    return check_many(s);
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
                    {"--ranks", o->ranks.from != 0},
                    {"--zero", o->zero != NULL},
                    {"--grad-comm", o->grad_comm != NULL},
                    {"--zero2-reduce", o->zero2_reduce != NULL},
                    {"--max-gathered-bytes", o->max_gathered_bytes != 0},
                    {"--persist-below", o->persist_below != 0},
                    {"--no-state-tricks", o->no_state_tricks},
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
        return options_error(s, "--json and --csv: the plan is printed once, choose one of them");
    if (o->vs && (o->csv || o->html))
        return options_error(s, arena_printf(&s->arena,
                                             "--vs with %s: two plans are compared as a table, or "
                                             "with --json",
                                             o->csv ? "--csv" : "--html"));
    if (o->vs && o->dump_dir)
        return options_error(s, "--vs with --dump-dir: the second model's dumps would replace the "
                                "first one's; compile them one by one");
    if (o->html && (o->json || o->csv))
        return options_error(s, arena_printf(&s->arena,
                                             "--html %s with %s: the plan is written once, choose "
                                             "one of them; the page holds the JSON too",
                                             o->html, o->json ? "--json" : "--csv"));
    return ZM_OK;
}

Status options_check(Session *s)
{
    const Options *o = &s->opt;
    ZM_TRY(check_planned(s));
    ZM_TRY(check_choice(s, "--emit", o->emit, "ast|ir|kernels|program|exe"));
    ZM_TRY(check_choice(s, "--precision", o->precision, "fp32|bf16|fp16"));
    ZM_TRY(check_choice(s, "--amp", o->amp, "master|autocast"));
    ZM_TRY(check_overrides(s));
    ZM_TRY(check_low(s, "--grad-dtype", o->grad_dtype));
    ZM_TRY(check_choice(s, "--moments", o->moments, "f32|bf16"));
    ZM_TRY(check_storage(s));
    ZM_TRY(check_choice(s, "--recompute", o->recompute, "none|layer|auto"));
    ZM_TRY(check_ranks(s));
    if (o->loss_scale) ZM_TRY(loss_scale_parse(s, o->loss_scale, &s->loss_scale));
    return check_printed(s);
}
