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
    Arena scratch = {0};
    PlanReport r = session_plan_report(s, m);
    Str text = {0};
    if (s->opt.json)
        plan_print_json(m, &r, &scratch, &text);
    else if (s->opt.csv)
        plan_print_csv(m, &scratch, &text);
    else
        plan_print_table(m, &r, &scratch, &text);
    Status st = session_write_text(s, &text);
    str_free(&text);
    arena_free(&scratch);
    return st == ZM_OK ? EXIT_DONE : EXIT_BAD_INPUT;
}
