/* report_page.c -- `zmc plan --html`: the page of plan_page.html with the plan's JSON in it. */
#include <string.h>

#include "passes/memory/report.h"

static const char plan_mark[] = "@PLAN@";

/* '<' stands only within JSON's strings; without it nothing in them can end the script element. */
static void add_inside_script(Str *out, const char *json)
{
    for (size_t n; *json; json += n) {
        n = strcspn(json, "<");
        str_add_n(out, json, n);
        if (!json[n]) return;
        str_add(out, "\\u003c");
        n++;
    }
}

void plan_print_html(const Module *m, const PlanReport *r, Arena *scratch, Str *out)
{
    const char *mark = strstr(plan_page, plan_mark);
    Str json = {0};
    plan_print_json(m, r, scratch, &json);
    str_add_n(out, plan_page, (size_t)(mark - plan_page));
    add_inside_script(out, str_c(&json));
    str_add(out, mark + strlen(plan_mark));
    str_free(&json);
}
