/* plan.c -- `zmc plan`: the memory plan of a model or of a dumped, perhaps edited, IR; two plans
 * compared. */
#include "passes/memory/memory.h"
#include "tools/zmc/zmc.h"

static void print_plan(Session *s, const Module *m, Str *text)
{
    Arena scratch = {0};
    PlanReport r = session_plan_report(s, m);
    if (s->opt.html) {
        s->opt.out = s->opt.html;
        plan_print_html(m, &r, &scratch, text);
    } else if (s->opt.json)
        plan_print_json(m, &r, &scratch, text);
    else if (s->opt.csv)
        plan_print_csv(m, &scratch, text);
    else
        plan_print_table(m, &r, &scratch, text);
    arena_free(&scratch);
}

/* Another session with the same options and diagnostics, for --vs. */
static Session second_session(Session *s)
{
    Session b = {.opt = s->opt, .loss_scale = s->loss_scale, .self_dir = s->self_dir};
    b.opt.input = s->opt.vs;
    return b;
}

static int print_comparison(Session *s, CodegenTarget *t, const Module *m, Str *text)
{
    Session b = second_session(s);
    b.sources.arena = &b.arena;
    b.diag = (Diag){.arena = &b.arena, .sources = &b.sources};
    const Module *other = session_compile(&b, t);
    int code = other ? EXIT_DONE : session_exit_code(&b);
    if (other) {
        PlanReport ra = session_plan_report(s, m), rb = session_plan_report(&b, other);
        PlanCompare *c = plan_compare(&b.arena, (PlanSide){s->opt.input, m, &ra},
                                      (PlanSide){b.opt.input, other, &rb});
        (s->opt.json ? plan_compare_print_json : plan_compare_print_table)(c, text);
    }
    diag_print(&b.diag, stderr);
    arena_free(&b.arena);
    return code;
}

int command_plan(Session *s)
{
    CodegenTarget t;
    if (codegen_target_init(&t, &s->arena, &s->diag, s->opt.target, s->opt.cpu) != ZM_OK)
        return EXIT_BAD_INPUT;
    if (options_are_many(&s->opt)) return command_sweep(s, &t);
    Module *m = session_compile(s, &t);
    if (!m) return session_exit_code(s);
    Str text = {0};
    int code = EXIT_DONE;
    if (s->opt.vs)
        code = print_comparison(s, &t, m, &text);
    else
        print_plan(s, m, &text);
    if (code == EXIT_DONE && session_write_text(s, &text) != ZM_OK) code = EXIT_BAD_INPUT;
    str_free(&text);
    return code;
}
