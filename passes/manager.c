/* manager.c -- runs a pipeline of passes (pass.h).
 *
 *   text -> steps -> for each: needs hold? -> run -> IR valid? facts hold? *changed true? -> print,
 * dump
 *
 * A pass that breaks its word fails the run with E_PASS_BROKE, and with a dump directory the IR
 * that it was given is in crash.zir, one command away from the failure.  The file is written before
 * the pass runs and removed after it, so that a pass that aborts leaves it too. */
#include "passes/pass.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ir/base/file.h"
#include "passes/canon_rules.h"
#include "passes/pipeline_parse.h"

typedef struct StepTime {
    double seconds;
    uint32_t n_ops, n_rewrites; /* ops of all functions after the pass */
} StepTime;

typedef struct Manager {
    Module *m;
    const PipelineRun *run;
    Arena *arena;   /* of the run */
    uint32_t index; /* of the running step */
    uint32_t *rule_hits;
} Manager;

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static uint32_t module_n_ops(const Module *m)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->funcs.n; i++) n += func_n_ops(m->funcs.at[i]);
    return n;
}

/* ---- files ---- */

static Status dump_write(Manager *mg, const char *name, const char *head)
{
    Str text = {0};
    str_add(&text, head);
    module_print(mg->m, &text);
    const char *path = arena_printf(mg->arena, "%s/%s", mg->run->dump_dir, name);
    int err = file_write(path, text.at, text.n);
    str_free(&text);
    if (!err) return ZM_OK;
    return diag_error(mg->m->diag, (SrcPos){0}, E_FILE, "cannot write '%s': %s", path,
                      strerror(err));
}

static Status dump_begin(Manager *mg)
{
    const char *dir = mg->run->dump_dir;
    if (!dir || mkdir(dir, 0777) == 0 || errno == EEXIST) return ZM_OK;
    return diag_error(mg->m->diag, (SrcPos){0}, E_FILE, "cannot make the directory '%s': %s", dir,
                      strerror(errno));
}

static Status crash_file_write(Manager *mg, const PipelineStep *step)
{
    if (!mg->run->dump_dir) return ZM_OK;
    return dump_write(mg, "crash.zir",
                      arena_printf(mg->arena, "// RUN: zm-opt --passes='%s' %%s\n", step->text));
}

static void crash_file_remove(Manager *mg)
{
    if (mg->run->dump_dir) unlink(arena_printf(mg->arena, "%s/crash.zir", mg->run->dump_dir));
}

static Status show_after(Manager *mg, const PipelineStep *step)
{
    const PipelineRun *run = mg->run;
    const char *name = step->pass->name;
    if (run->print_after && run->print_to &&
        (strcmp(run->print_after, "all") == 0 || strcmp(run->print_after, name) == 0)) {
        Str text = {0};
        module_print(mg->m, &text);
        fprintf(run->print_to, "// ---- after %s\n%s", step->text, str_c(&text));
        str_free(&text);
    }
    if (!run->dump_dir) return ZM_OK;
    return dump_write(mg, arena_printf(mg->arena, "%02u-%s.zir", mg->index + 1, name), "");
}

/* ---- contracts ---- */

static Status check_needs(Manager *mg, const PassInfo *info, Arena *scratch)
{
    for (int f = 0; f < N_FACT; f++) {
        if (!(info->needs >> f & 1)) continue;
        const char *why = fact_check(mg->m, (FactBit)f, scratch);
        if (!why) continue;
        diag_error(mg->m->diag, (SrcPos){0}, E_PASS_NEEDS, "pass '%s' needs the fact '%s': %s",
                   info->name, fact_name((FactBit)f), why);
        for (int p = 0; p < N_PASS; p++)
            if (pass_info((PassId)p)->gives >> f & 1)
                diag_help(mg->m->diag, "pass '%s' gives it", pass_info((PassId)p)->name);
        return ZM_FAIL;
    }
    return ZM_OK;
}

static Status fail_broke(Manager *mg, const PassInfo *info, const char *what, const char *why)
{
    return diag_error(mg->m->diag, (SrcPos){0}, E_PASS_BROKE, "pass '%s' %s: %s", info->name, what,
                      why);
}

/* The IR is valid, and the facts that should hold do. */
static Status check_after(Manager *mg, const PassInfo *info, Arena *scratch)
{
    ZM_TRY(module_verify(mg->m, info->name));
    for (int f = 0; f < N_FACT; f++) {
        if (!(mg->m->facts >> f & 1)) continue;
        const char *why = fact_check(mg->m, (FactBit)f, scratch);
        if (why)
            return fail_broke(
                mg, info, info->gives >> f & 1 ? "did not give what it promises" : "broke a fact",
                why);
    }
    return ZM_OK;
}

static Status check_claim(Manager *mg, const PassInfo *info, bool changed, uint64_t hash_before)
{
    bool differs = module_hash(mg->m) != hash_before;
    if (differs && !changed) return fail_broke(mg, info, "lied", "it says that it changed nothing");
    if (!differs && changed)
        return fail_broke(mg, info, "lied", "it says that it changed something");
    return ZM_OK;
}

/* ---- running ---- */

static Status step_run_checked(Manager *mg, const PipelineStep *step, Arena *scratch,
                               StepTime *time)
{
    const PassInfo *info = step->pass;
    bool check_changed = mg->run->check_changed;
    ZM_TRY(check_needs(mg, info, scratch));
    uint64_t hash_before = check_changed ? module_hash(mg->m) : 0;
    PassCtx cx = {.m = mg->m,
                  .scratch = scratch,
                  .diag = mg->m->diag,
                  .opt = &step->opt,
                  .pass = step->pass,
                  .rule_hits = mg->rule_hits};
    bool changed = false;
    double start = now_seconds();
    ZM_TRY(info->run(&cx, &changed));
    time->seconds = now_seconds() - start;
    time->n_rewrites = cx.n_rewrites;
    if (changed) mg->m->facts &= ~info->breaks;
    mg->m->facts |= info->gives;
    ZM_TRY(check_after(mg, info, scratch));
    return check_changed ? check_claim(mg, info, changed, hash_before) : ZM_OK;
}

static Status step_run(Manager *mg, const PipelineStep *step, StepTime *time)
{
    Arena scratch = {0};
    ZM_TRY(crash_file_write(mg, step));
    Status ok = step_run_checked(mg, step, &scratch, time);
    arena_free(&scratch);
    if (ok == ZM_OK) crash_file_remove(mg);
    time->n_ops = module_n_ops(mg->m);
    return ok == ZM_OK ? show_after(mg, step) : ZM_FAIL;
}

static void print_times(const Pipeline *pl, const StepTime *times)
{
    double total = 0;
    fprintf(stderr, "%10s %8s %9s  pass\n", "seconds", "ops", "rewrites");
    for (uint32_t i = 0; i < pl->n; i++) {
        fprintf(stderr, "%10.4f %8u %9u  %s\n", times[i].seconds, times[i].n_ops,
                times[i].n_rewrites, pl->at[i].text);
        total += times[i].seconds;
    }
    fprintf(stderr, "%10.4f %8s %9s  total\n", total, "", "");
}

static Status check_print_after(const Manager *mg, const Pipeline *pl)
{
    const char *name = mg->run->print_after;
    if (!name || strcmp(name, "all") == 0) return ZM_OK;
    Str all = {0};
    for (uint32_t i = 0; i < pl->n; i++) {
        const char *have = pl->at[i].pass->name;
        if (strcmp(name, have) == 0) {
            str_free(&all);
            return ZM_OK;
        }
        bool is_again = false;
        for (uint32_t k = 0; k < i; k++) is_again |= strcmp(pl->at[k].pass->name, have) == 0;
        if (!is_again) str_addf(&all, "%s%s", i ? ", " : "", have);
    }
    diag_error(mg->m->diag, (SrcPos){0}, E_USAGE, "--print-ir-after: pass '%s' is not run", name);
    diag_help(mg->m->diag, "all, or one of %s", str_c(&all));
    str_free(&all);
    return ZM_FAIL;
}

static void print_rule_hits(const uint32_t *hits)
{
    for (uint32_t i = 0; i < n_canon_rules; i++)
        fprintf(stderr, "%8u  %s\n", hits[i], canon_rules[i].name);
}

Status pipeline_run(Module *m, const char *text, const PipelineRun *run)
{
    Arena arena = {0};
    Manager mg = {.m = m, .run = run, .arena = &arena};
    mg.rule_hits = ARENA_ARRAY(&arena, uint32_t, n_canon_rules);
    Pipeline pl = {0};
    Status ok = pipeline_parse(&arena, m->diag, text, run, &pl);
    if (ok == ZM_OK) ok = check_print_after(&mg, &pl);
    if (ok == ZM_OK) ok = dump_begin(&mg);
    StepTime *times = ARENA_ARRAY(&arena, StepTime, pl.n);
    for (; ok == ZM_OK && mg.index < pl.n; mg.index++)
        ok = step_run(&mg, &pl.at[mg.index], &times[mg.index]);
    if (run->timing) print_times(&pl, times);
    if (run->rule_stats) print_rule_hits(mg.rule_hits);
    arena_free(&arena);
    return ok;
}
