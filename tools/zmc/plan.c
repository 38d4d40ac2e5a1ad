/* plan.c -- `zmc plan`: the memory plan of a model or of a dumped, perhaps edited, IR. */
#include "passes/memory/memory.h"
#include "tools/zmc/zmc.h"

int command_plan(Session *s)
{
    CodegenTarget t;
    if (codegen_target_init(&t, &s->arena, &s->diag, s->opt.target, s->opt.cpu) != ZM_OK)
        return EXIT_BAD_INPUT;
    Module *m = session_compile(s, &t);
    if (!m) return session_exit_code(s);
    if (!(m->facts & FACT_PLANNED)) {
        diag_error(&s->diag, (SrcPos){0}, E_USAGE, "%s has no memory plan", s->opt.input);
        diag_help(
            &s->diag,
            "give a .zm file, or the dump after memplan (--dump-dir, --print-ir-after=memplan)");
        return EXIT_BAD_INPUT;
    }
    Arena scratch = {0};
    int code = EXIT_BAD_INPUT;
    if (mem_check(m, &scratch) == ZM_OK) { /* again: a dump's offsets may have been edited */
        PlanReport r = plan_report(m, &scratch);
        Str text = {0};
        if (s->opt.json)
            plan_print_json(m, &r, &scratch, &text);
        else if (s->opt.csv)
            plan_print_csv(m, &scratch, &text);
        else
            plan_print_table(m, &r, &scratch, &text);
        if (session_write_text(s, &text) == ZM_OK) code = EXIT_DONE;
        str_free(&text);
    }
    arena_free(&scratch);
    return code;
}
