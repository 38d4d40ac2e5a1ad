/* session.c -- from an input file to a planned module (zmc.h). */
#include "tools/zmc/zmc.h"

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

static Status run_pipeline(Session *s, Module *m, CodegenTarget *t)
{
    const Options *o = &s->opt;
    if (o->accumulate > MAX_ACCUMULATE)
        return diag_error(&s->diag, (SrcPos){0}, E_USAGE, "--accumulate takes at most %d, not %lld",
                          MAX_ACCUMULATE, (long long)o->accumulate);
    if (o->accumulate) m->train.accumulate = o->accumulate;
    bool is_frontend = o->print_ir_after && strcmp(o->print_ir_after, "frontend") == 0;
    if (is_frontend) print_frontend(m);
    PipelineRun run = {.print_after = is_frontend ? NULL : o->print_ir_after,
                       .print_to = stderr,
                       .dump_dir = o->dump_dir,
                       .timing = o->timing};
    run.opt = (PassOptions){
        .ranks = 1,
        .bucket_bytes = o->bucket_bytes ? o->bucket_bytes : DEFAULT_BUCKET_BYTES,
        .memory_bytes = o->memory,
        .loss_chunk_bytes = o->loss_chunk_bytes ? o->loss_chunk_bytes : DEFAULT_LOSS_CHUNK_BYTES,
        .keep_state_layout = o->no_state_tricks,
        .workspace_bytes = codegen_workspace_bytes,
        .target = t};
    return pipeline_run(m, pipeline_text("train"), &run);
}

static Module *compile_zm(Session *s, CodegenTarget *t, const char *text, size_t n)
{
    FrontendOptions fo = {s->opt.defines.at, s->opt.defines.n};
    Module *m = frontend_compile(&s->arena, &s->sources, &s->diag, s->opt.input, text, n, &fo);
    if (!m || run_pipeline(s, m, t) != ZM_OK) return NULL;
    return m;
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

Module *session_compile(Session *s, CodegenTarget *t)
{
    char *text;
    size_t n;
    if (session_read_input(s, &text, &n) != ZM_OK) return NULL;
    if (!has_suffix(s->opt.input, ".zir")) return compile_zm(s, t, text, n);
    Module *m = module_parse(&s->arena, &s->sources, &s->diag, s->opt.input, text, n);
    if (!m || module_verify(m, NULL) != ZM_OK || check_plan(s, m) != ZM_OK) return NULL;
    return m;
}
