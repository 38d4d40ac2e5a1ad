/* session.c -- from an input file to a planned module (zmc.h). */
#include "tools/zmc/zmc.h"

#include <stdlib.h>
#include <string.h>

#include "ir/base/file.h"
#include "passes/memory/memory.h"

enum { DEFAULT_BUCKET_BYTES = 64 << 20, DEFAULT_LOSS_CHUNK_BYTES = 32 << 20 };

static bool has_suffix(const char *text, const char *suffix)
{
    size_t n = strlen(text), k = strlen(suffix);
    return n >= k && strcmp(text + n - k, suffix) == 0;
}

int session_exit_code(const Session *s)
{
    for (uint32_t i = 0; i < s->diag.msgs.n; i++)
        if (s->diag.msgs.at[i].severity == SEV_ERROR && s->diag.msgs.at[i].code == E_PLAN_BUDGET)
            return EXIT_OVER_BUDGET;
    return EXIT_BAD_INPUT;
}

void session_print_messages(Session *s)
{
    diag_print(&s->diag, stderr);
    s->diag.msgs.n = 0;
}

Status session_write_text(Session *s, const Str *text)
{
    if (!s->opt.out || strcmp(s->opt.out, "-") == 0) {
        fwrite(str_c(text), 1, text->n, stdout);
        return fflush(stdout) == 0
                   ? ZM_OK
                   : diag_error(&s->diag, (SrcPos){0}, E_FILE, "cannot write to standard output");
    }
    int err = file_write(s->opt.out, str_c(text), text->n);
    return err ? diag_error(&s->diag, (SrcPos){0}, E_FILE, "cannot write %s: %s", s->opt.out,
                            strerror(err))
               : ZM_OK;
}

Status session_read_input(Session *s, char **text, size_t *n)
{
    int err = file_read(&s->arena, s->opt.input, text, n);
    return err ? diag_error(&s->diag, (SrcPos){0}, E_FILE, "cannot read %s: %s", s->opt.input,
                            strerror(err))
               : ZM_OK;
}

static void print_frontend(const Module *m)
{
    Str text = {0};
    module_print(m, &text);
    fprintf(stderr, "// IR after frontend\n%s", str_c(&text));
    str_free(&text);
}

static PassOptions pass_options(const Session *s, CodegenTarget *t, int64_t steps)
{
    const Options *o = &s->opt;
    return (PassOptions){.ranks = o->ranks.from ? (uint32_t)o->ranks.from : 1,
                         .bucket_bytes = o->bucket_bytes ? o->bucket_bytes : DEFAULT_BUCKET_BYTES,
                         .memory_bytes = s->is_sweep ? 0 : o->memory,
                         .arena_slack = s->arena_slack,
                         .loss_chunk_bytes =
                             o->loss_chunk_bytes ? o->loss_chunk_bytes : DEFAULT_LOSS_CHUNK_BYTES,
                         .recompute_steps = steps,
                         .keep_state_layout = o->no_state_tricks,
                         .max_gathered_bytes = o->max_gathered_bytes,
                         .persist_below = o->persist_below,
                         .workspace_bytes = codegen_workspace_bytes,
                         .target = t};
}

/* Parameters, moments and accumulators: no micro-batch and no recomputation needs less. */
static int64_t persistent_bytes(const Module *m)
{
    int64_t bytes = 0;
    for (uint32_t i = 1; i < m->vars.n; i++)
        if (!var_ok(m->vars.at[i].in)) bytes += m->vars.at[i].place.bytes;
    return bytes;
}

/* More ranks or a higher stage: which of them fit, `zmc plan` finds out. */
static void help_ranks(Session *s, const Module *m)
{
    int64_t ranks = s->opt.ranks.from ? s->opt.ranks.from : 1, most = 64;
    while (most < 4 * ranks && most < MESH_MAX_RANKS) most *= 2;
    diag_help(&s->diag,
              "%s: zmc plan %s --ranks 1..%lld --zero all --memory %lld finds what fits (give -D "
              "and the other options too)",
              ranks == 1          ? "many ranks with --zero 1, 2 or 3 need less each"
              : m->train.zero < 3 ? "a higher --zero or more --ranks need less on each rank"
                                  : "more --ranks need less on each rank",
              s->opt.input, (long long)most, (long long)s->opt.memory);
}

static void help_budget(Session *s, const Module *m)
{
    int64_t persistent = persistent_bytes(m);
    const char *first =
        recompute_is_auto(s)
            ? arena_printf(&s->arena, "the smallest budget that fits is %lld bytes; ",
                           (long long)m->arena_bytes)
            : "";
    if (persistent > s->opt.memory)
        diag_help(&s->diag,
                  "%sparameters, optimizer state and what else lives from step to step take %s "
                  "alone: a smaller model needs less",
                  first, plan_bytes_text(&s->arena, persistent));
    else
        diag_help(&s->diag, "%sa smaller micro-batch with --accumulate needs less",
                  *first ? first : "--recompute auto keeps less for the backward; ");
    help_ranks(s, m);
}

static Status run_pipeline(Session *s, Module *m, PassOptions opt)
{
    const Options *o = &s->opt;
    bool is_frontend = o->print_ir_after && strcmp(o->print_ir_after, "frontend") == 0;
    if (is_frontend) print_frontend(m);
    PipelineRun run = {.opt = opt,
                       .print_after = is_frontend ? NULL : o->print_ir_after,
                       .print_to = stderr,
                       .dump_dir = o->dump_dir,
                       .timing = o->timing};
    Status st = pipeline_run(m, pipeline_text("train"), &run);
    if (st != ZM_OK && session_exit_code(s) == EXIT_OVER_BUDGET) help_budget(s, m);
    return st;
}

/* The smallest fp16 above 0 is 6e-8: gradients of large models are smaller than that. */
static void set_scale(const Session *s, Diag *diag, TrainConfig *t)
{
    if (s->opt.loss_scale)
        t->scale = s->loss_scale;
    else if (t->precision == PREC_FP16 && !t->scale.is_dynamic && t->scale.init == 1) {
        diag_warning(diag, (SrcPos){0}, E_USAGE,
                     "fp16 without a loss scale: small gradients become 0");
        diag_help(diag, "--loss-scale dynamic, or --loss-scale 1 if that is meant");
    }
}

static void set_precision(const Options *o, TrainConfig *t)
{
    const char *p = o->precision ? o->precision : "fp32";
    t->precision = strcmp(p, "bf16") == 0   ? PREC_BF16
                   : strcmp(p, "fp16") == 0 ? PREC_FP16
                                            : PREC_FP32;
    t->amp = o->amp && strcmp(o->amp, "autocast") == 0 ? AMP_AUTOCAST : AMP_MASTER;
    t->grad_low = o->grad_dtype && strcmp(o->grad_dtype, "low") == 0;
    t->moments_bf16 = o->moments && strcmp(o->moments, "bf16") == 0;
    t->pure = o->pure;
}

static void set_zero(const Options *o, TrainConfig *t)
{
    t->zero = o->zero ? *o->zero - '0' : 0;
    t->comm_low = o->grad_comm && strcmp(o->grad_comm, "low") == 0;
    t->reduce_at_step = o->zero2_reduce && strcmp(o->zero2_reduce, "step") == 0;
}

static void check_moments(Diag *diag, const TrainConfig *t)
{
    if (t->moments_bf16 && t->optimizer == OPT_SGD && t->momentum == 0)
        diag_warning(diag, (SrcPos){0}, E_USAGE,
                     "--moments bf16: sgd without momentum has no moments");
}

/* The model with what the command line says of its training. */
static Module *compile_frontend(const Session *s, Arena *a, SourceSet *sources, Diag *diag,
                                const char *text, size_t n)
{
    FrontendOptions fo = {s->opt.defines.at, s->opt.defines.n, s->opt.precision_of.at,
                          s->opt.precision_of.n};
    Module *m = frontend_compile(a, sources, diag, s->opt.input, text, n, &fo);
    if (!m) return NULL;
    if (s->opt.accumulate > MAX_ACCUMULATE) {
        diag_error(diag, (SrcPos){0}, E_USAGE, "--accumulate takes at most %d, not %lld",
                   MAX_ACCUMULATE, (long long)s->opt.accumulate);
        return NULL;
    }
    set_precision(&s->opt, &m->train);
    set_zero(&s->opt, &m->train);
    set_scale(s, diag, &m->train);
    check_moments(diag, &m->train);
    if (s->opt.accumulate) m->train.accumulate = s->opt.accumulate;
    return m;
}

Module *session_try(const Session *s, Arena *a, CodegenTarget *t, const char *text, size_t n,
                    int64_t steps, RecomputeSteps *found)
{
    SourceSet *sources = ARENA_NEW(a, SourceSet);
    sources->arena = a;
    Diag *diag = ARENA_NEW(a, Diag);
    *diag = (Diag){.arena = a, .sources = sources};
    Module *m = compile_frontend(s, a, sources, diag, text, n);
    PipelineRun run = {.opt = pass_options(s, t, steps)};
    run.opt.memory_bytes = 0;
    run.opt.recompute_found = found;
    return m && pipeline_run(m, pipeline_text("train"), &run) == ZM_OK ? m : NULL;
}

static Module *compile_zm(Session *s, CodegenTarget *t, const char *text, size_t n)
{
    int64_t steps = recompute_choose(s, t, text, n);
    Module *m = compile_frontend(s, &s->arena, &s->sources, &s->diag, text, n);
    return m && run_pipeline(s, m, pass_options(s, t, steps)) == ZM_OK ? m : NULL;
}

/* What the pass memplan and its checks would refuse: a dump may have been edited. */
static Status check_plan(Session *s, const Module *m)
{
    if (!(m->facts & FACT_PLANNED)) {
        diag_error(&s->diag, (SrcPos){0}, E_USAGE, "%s has no memory plan", s->opt.input);
        diag_help(
            &s->diag,
            "give a .zm file, or the dump after memplan (--dump-dir, --print-ir-after=memplan)");
        return ZM_FAIL;
    }
    Arena scratch = {0};
    Status st = mem_check(m, &scratch);
    arena_free(&scratch);
    return st == ZM_OK ? mem_check_budget(m, s->opt.memory) : st;
}

/* GPUs multiply bf16 from compute capability 8.0 on; every CPU target computes in it. */
static Status check_target(Session *s, const CodegenTarget *t, PrecisionKind precision)
{
    enum { FIRST_WITH_BF16 = 80 };
    if (!t->is_cuda || precision != PREC_BF16 || atoi(t->arch + 3) >= FIRST_WITH_BF16) return ZM_OK;
    diag_error(&s->diag, (SrcPos){0}, E_USAGE,
               "--precision bf16: GPUs of %s have no bf16 arithmetic, which begins with sm_%d",
               t->arch, FIRST_WITH_BF16);
    diag_help(&s->diag,
              "use --precision fp16 --loss-scale dynamic, or --target cuda:sm_%d or later",
              FIRST_WITH_BF16);
    return ZM_FAIL;
}

Module *session_compile(Session *s, CodegenTarget *t)
{
    char *text;
    size_t n;
    TrainConfig asked = {0};
    set_precision(&s->opt, &asked);
    if (check_target(s, t, asked.precision) != ZM_OK) return NULL;
    if (session_read_input(s, &text, &n) != ZM_OK) return NULL;
    if (!has_suffix(s->opt.input, ".zir")) return compile_zm(s, t, text, n);
    Module *m = module_parse(&s->arena, &s->sources, &s->diag, s->opt.input, text, n);
    if (!m || module_verify(m, NULL) != ZM_OK || check_plan(s, m) != ZM_OK) return NULL;
    return check_target(s, t, m->train.precision) == ZM_OK ? m : NULL;
}

PlanReport session_plan_report(Session *s, const Module *m)
{
    PlanReport r = plan_report(m, &s->arena);
    plan_find_step(m, &r, &s->arena);
    if (!s->without) return r;
    RecomputeReport *again = ARENA_NEW(&s->arena, RecomputeReport);
    *again = plan_recompute(m, &r, s->without, &s->arena);
    again->steps = s->recompute.steps;
    again->n_steps = s->recompute.n_steps;
    r.recompute = again;
    return r;
}
