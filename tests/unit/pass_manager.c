/* pass_manager.c -- the manager catches a pass that breaks its word, and leaves the IR that it was
 * given. */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ir/base/file.h"
#include "passes/pass.h"

static Status run_nothing(PassCtx *cx, bool *changed)
{
    (void)cx;
    *changed = false;
    return ZM_OK;
}

static Status run_boast(PassCtx *cx, bool *changed)
{
    (void)cx;
    *changed = true;
    return ZM_OK;
}

/* Negates the first result of @f. */
static Status run_secret(PassCtx *cx, bool *changed)
{
    Func *f = func_find(cx->m, "f");
    Builder b = {.f = f, .before = f->last};
    b.loc = pass_loc(cx, op_cget(f, f->last)->loc, "secret");
    op_set_operand(f, f->last, 0, build_unary(&b, OP_NEG, op_cget(f, f->last)->in[0]));
    *changed = false;
    return ZM_OK;
}

/* Uses a value before its definition. */
static Status run_damage(PassCtx *cx, bool *changed)
{
    Func *f = func_find(cx->m, "f");
    op_move_before(f, op_cget(f, f->last)->prev, f->first);
    *changed = true;
    return ZM_OK;
}

static Status run_fail(PassCtx *cx, bool *changed)
{
    run_secret(cx, changed);
    return diag_error(cx->diag, (SrcPos){0}, E_PASS_OPTION, "this pass always fails");
}

static Status run_abort(PassCtx *cx, bool *changed)
{
    (void)cx;
    (void)changed;
    abort();
}

static const PassInfo passes[] = {
    {"abort", run_abort, 0, 0, 0, ""},
    {"nothing", run_nothing, 0, 0, 0, ""},
    {"boast", run_boast, 0, 0, 0, ""},
    {"secret", run_secret, 0, 0, 0, ""},
    {"damage", run_damage, 0, 0, 0, ""},
    {"fail", run_fail, 0, 0, 0, ""},
    {"promise", run_nothing, 0, FACT_HAS_LOSS, 0, ""},
    {"needy", run_nothing, FACT_HAS_GRAD, 0, 0, ""},
};

static const char text[] =
    "module \"m\"\nfunc @f(%x: f32[3]) {\n  %0 = exp %x\n  %1 = sqrt %0\n  return %1\n}\n";

typedef struct Case {
    const char *pipeline;
    DiagCode code;    /* of the one error; N_DIAG: none */
    const char *says; /* part of its text */
    bool is_release;  /* as in zmc: without check_changed */
} Case;

static const Case cases[] = {
    {"nothing", N_DIAG, "", false},
    {"nothing,canon,nothing", N_DIAG, "", false},
    {"boast", E_PASS_BROKE, "pass 'boast' lied: it says that it changed something", false},
    {"secret", E_PASS_BROKE, "pass 'secret' lied: it says that it changed nothing", false},
    {"damage", E_IR_STRUCTURE, "", false},
    {"fail", E_PASS_OPTION, "this pass always fails", false},
    {"promise", E_PASS_BROKE,
     "pass 'promise' did not give what it promises: there is no function @train", false},
    {"needy", E_PASS_NEEDS, "pass 'needy' needs the fact 'has_grad': there is no function @train",
     false},
    {"boast", N_DIAG, "", true},
    {"damage", E_IR_STRUCTURE, "", true},
    {"promise", E_PASS_BROKE, "did not give what it promises", true},
};

static bool file_has(Arena *a, const char *path, const char *want)
{
    char *have;
    size_t n;
    return file_read(a, path, &have, &n) == 0 && strstr(have, want) != NULL;
}

static Module *parse(Arena *arena, SourceSet *sources, Diag *diag)
{
    *sources = (SourceSet){.arena = arena};
    *diag = (Diag){.arena = arena, .sources = sources};
    Module *m = module_parse(arena, sources, diag, "text", text, sizeof text - 1);
    ZM_CHECK(m != NULL);
    return m;
}

static PipelineRun run_in(const char *dir)
{
    return (PipelineRun){.check_changed = true,
                         .dump_dir = dir,
                         .extra = passes,
                         .n_extra = sizeof passes / sizeof *passes};
}

/* A pass that aborts takes the process with it, but not the evidence. */
static int check_abort(const char *dir)
{
    pid_t child = fork();
    if (child == 0) {
        Arena arena = {0};
        SourceSet sources;
        Diag diag;
        PipelineRun run = run_in(dir);
        Status st = pipeline_run(parse(&arena, &sources, &diag), "nothing,abort", &run);
        _exit(st == ZM_OK);
    }
    int status = 0;
    Arena arena = {0};
    bool ok = child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status);
    const char *crash = arena_printf(&arena, "%s/crash.zir", dir);
    ok = ok && file_has(&arena, crash, "// RUN: zm-opt --passes='abort'");
    unlink(crash);
    unlink(arena_printf(&arena, "%s/01-nothing.zir", dir));
    arena_free(&arena);
    if (!ok) fprintf(stderr, "an aborting pass left no crash.zir\n");
    return !ok;
}

static int check(const Case *c, const char *dir)
{
    Arena arena = {0};
    SourceSet sources;
    Diag diag;
    Module *m = parse(&arena, &sources, &diag);
    PipelineRun run = run_in(dir);
    run.check_changed = !c->is_release;
    bool wants_fail = c->code != N_DIAG;
    bool ok = (pipeline_run(m, c->pipeline, &run) != ZM_OK) == wants_fail;
    if (wants_fail)
        ok = ok && diag.n_errors == 1 && diag.msgs.at[0].code == c->code &&
             strstr(diag.msgs.at[0].text, c->says);
    /* crash.zir holds the IR before the pass, with the command that shows the failure */
    const char *crash = arena_printf(&arena, "%s/crash.zir", dir);
    const char *head = arena_printf(&arena, "// RUN: zm-opt --passes='%s'", c->pipeline);
    if (wants_fail)
        ok = ok && file_has(&arena, crash, head) && file_has(&arena, crash, "return %1") &&
             !file_has(&arena, crash, "neg");
    else
        ok = ok && access(crash, F_OK) != 0;
    unlink(crash);
    if (!ok) {
        fprintf(stderr, "pipeline '%s': unexpected outcome\n", c->pipeline);
        diag_print(&diag, stderr);
    }
    arena_free(&arena);
    return !ok;
}

int main(void)
{
    char dir[] = "/tmp/zm-manager-XXXXXX";
    ZM_CHECK(mkdtemp(dir) != NULL);
    int bad = check_abort(dir);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) bad += check(&cases[i], dir);
    Arena arena = {0};
    const char *dumps[] = {"01-nothing.zir", "02-canon.zir", "03-nothing.zir", "01-boast.zir"};
    for (int i = 0; i < 4; i++) {
        const char *path = arena_printf(&arena, "%s/%s", dir, dumps[i]);
        if (!file_has(&arena, path, "func @f")) {
            fprintf(stderr, "there is no dump %s\n", dumps[i]);
            bad++;
        }
        unlink(path);
    }
    arena_free(&arena);
    rmdir(dir);
    return bad > 0;
}
