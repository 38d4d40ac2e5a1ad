/* report_compare_print.c -- the text and the JSON of `zmc plan A --vs B`. */
#include <string.h>

#include "passes/memory/report_compare.h"

enum { MAX_ROWS = 24 }; /* of a part of the text; JSON has all */

typedef enum { ONLY_A, ONLY_B, CHANGED } GroupKind;

static GroupKind group_kind(const Group *g)
{
    return !g->n[B] ? ONLY_A : !g->n[A] ? ONLY_B : CHANGED;
}

static void add_change(Str *out, int64_t a, int64_t b)
{
    str_add(out, a == b ? " " : b > a ? "+" : "-");
    plan_add_bytes(out, b > a ? b - a : a - b);
}

/* "a.zm:9", "" */
static const char *line_text(const PlanCompare *c, const Group *g, int side)
{
    return g->line[side] ? arena_printf(c->arena, "%s:%u", c->source[side], g->line[side]) : "";
}

/* The line in A, the line in B, or both where they differ. */
static const char *lines_text(const PlanCompare *c, const Group *g)
{
    const char *a = line_text(c, g, A), *b = line_text(c, g, B);
    if (!*a && !*b) return "(no line)";
    if (!*a || !*b)
        return *a ? arena_printf(c->arena, "%s (A)", a) : arena_printf(c->arena, "%s (B)", b);
    return strcmp(a, b) == 0 ? a : arena_printf(c->arena, "%s = %s", a, b);
}

static const char *group_name(const PlanCompare *c, const Group *g)
{
    return *g->func ? arena_printf(c->arena, "%s.%s", g->func, g->what) : g->what;
}

/* ---- text ---- */

static void print_totals(const PlanCompare *c, Str *out)
{
    str_addf(out, "  %-14s %18s %18s\n", "", "A", "B");
    for (uint32_t i = 0; i < c->totals.n; i++) {
        const Total *t = &c->totals.at[i];
        if (!t->value[A] && !t->value[B]) continue;
        str_addf(out, "  %-14s %18lld %18lld", t->name, (long long)t->value[A],
                 (long long)t->value[B]);
        if (t->value[A] != t->value[B] && !t->is_bytes)
            str_addf(out, "  %+lld", (long long)(t->value[B] - t->value[A]));
        else if (t->value[A] != t->value[B]) {
            str_add(out, "  ");
            add_change(out, t->value[A], t->value[B]);
        }
        str_add(out, "\n");
    }
    str_addf(out, "  %-14s %18.6g %18.6g per step\n", "flops", c->side[A].r->flops,
             c->side[B].r->flops);
}

static void print_comm(const PlanCompare *c, Str *out)
{
    if (c->comm.n) str_add(out, "communication: number in a step, bytes that a rank sends\n");
    for (uint32_t i = 0; i < c->comm.n; i++) {
        const CommRow *r = c->comm.at[i].row;
        str_addf(out, "  %7lld -> %-7lld", (long long)r[A].count, (long long)r[B].count);
        plan_add_bytes(out, r[A].bytes);
        str_add(out, " -> ");
        plan_add_bytes(out, r[B].bytes);
        str_addf(out, "  %s %s (%s)\n", r->op, r->what, r->axis);
    }
}

static void print_rest(Str *out, uint32_t n)
{
    if (n > MAX_ROWS) str_addf(out, "  ... and %u more: --json lists all\n", n - MAX_ROWS);
}

static void print_lines(const PlanCompare *c, Str *out)
{
    if (!c->lines.n) {
        str_add(out, "at the peak: the same bytes at every line\n");
        return;
    }
    str_add(out, "at the peak, by line: A, B, change\n");
    for (uint32_t i = 0; i < c->lines.n && i < MAX_ROWS; i++) {
        const Group *g = &c->lines.at[i];
        str_add(out, "  ");
        plan_add_bytes(out, g->at_peak[A]);
        str_add(out, "  ");
        plan_add_bytes(out, g->at_peak[B]);
        str_add(out, "  ");
        add_change(out, g->at_peak[A], g->at_peak[B]);
        str_addf(out, "  %s\n", lines_text(c, g));
    }
    print_rest(out, c->lines.n);
}

static void print_group(const PlanCompare *c, const Group *g, GroupKind kind, Str *out)
{
    if (kind == CHANGED) {
        str_addf(out, "  %5u -> %-5u", g->n[A], g->n[B]);
        plan_add_bytes(out, g->bytes[A]);
        str_add(out, " -> ");
        plan_add_bytes(out, g->bytes[B]);
    } else {
        str_addf(out, "  %5u ", g->n[kind == ONLY_B]);
        plan_add_bytes(out, g->bytes[kind == ONLY_B]);
    }
    str_addf(out, "  %-12s %-28s %s\n", g->cat, group_name(c, g), lines_text(c, g));
}

static void print_groups(const PlanCompare *c, GroupKind kind, const char *title, Str *out)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->groups.n; i++) {
        const Group *g = &c->groups.at[i];
        if (group_kind(g) != kind) continue;
        if (!n++) str_addf(out, "%s: number, bytes together\n", title);
        if (n <= MAX_ROWS) print_group(c, g, kind, out);
    }
    print_rest(out, n);
}

void plan_compare_print_table(const PlanCompare *c, Str *out)
{
    str_addf(out, "A: %s\nB: %s\n", c->side[A].file, c->side[B].file);
    if (c->is_equal) {
        str_add(out, "nothing differs: the same buffers, lines and bytes\n");
        if (c->n_moved) str_addf(out, "%u buffers lie at other offsets\n", c->n_moved);
        return;
    }
    print_totals(c, out);
    print_comm(c, out);
    print_lines(c, out);
    print_groups(c, ONLY_A, "buffers only in A", out);
    print_groups(c, ONLY_B, "buffers only in B", out);
    print_groups(c, CHANGED, "buffers that change", out);
}

/* ---- JSON ---- */

static void json_pair(Str *out, const char *name, int64_t a, int64_t b)
{
    str_addf(out, "\"%s\":{\"a\":%lld,\"b\":%lld,\"change\":%lld}", name, (long long)a,
             (long long)b, (long long)(b - a));
}

static void json_places(const PlanCompare *c, const Group *g, Str *out)
{
    str_add(out, "{\"line\":{\"a\":");
    str_add_json(out, line_text(c, g, A));
    str_add(out, ",\"b\":");
    str_add_json(out, line_text(c, g, B));
    str_add(out, "},");
}

static void json_group(const PlanCompare *c, const Group *g, Str *out)
{
    json_places(c, g, out);
    str_add(out, "\"name\":");
    str_add_json(out, group_name(c, g));
    str_addf(out, ",\"cat\":\"%s\",", g->cat);
    json_pair(out, "count", g->n[A], g->n[B]);
    str_add(out, ",");
    json_pair(out, "bytes", g->bytes[A], g->bytes[B]);
    str_add(out, ",");
    json_pair(out, "at_peak", g->at_peak[A], g->at_peak[B]);
    str_add(out, "}");
}

static void json_groups(const PlanCompare *c, GroupKind kind, const char *name, Str *out)
{
    const char *comma = "";
    str_addf(out, ",\n\"%s\":[", name);
    for (uint32_t i = 0; i < c->groups.n; i++) {
        if (group_kind(&c->groups.at[i]) != kind) continue;
        str_addf(out, "%s\n", comma);
        json_group(c, &c->groups.at[i], out);
        comma = ",";
    }
    str_add(out, "]");
}

static void json_comm(const PlanCompare *c, Str *out)
{
    str_add(out, "],\n\"comm\":[");
    for (uint32_t i = 0; i < c->comm.n; i++) {
        const CommRow *r = c->comm.at[i].row;
        str_addf(out, "%s\n{\"op\":\"%s\",\"axis\":\"%s\",\"what\":\"%s\",", i ? "," : "", r->op,
                 r->axis, r->what);
        json_pair(out, "count", r[A].count, r[B].count);
        str_add(out, ",");
        json_pair(out, "bytes", r[A].bytes, r[B].bytes);
        str_add(out, "}");
    }
    str_add(out, "]");
}

static void json_side(const PlanCompare *c, int side, Str *out)
{
    str_addf(out, "\"%s\":{\"file\":", side == A ? "a" : "b");
    str_add_json(out, c->side[side].file);
    str_add(out, ",\"model\":");
    str_add_json(out, c->side[side].m->name);
    str_add(out, ",\"flops\":");
    str_add_f64(out, c->side[side].r->flops);
    str_add(out, "},");
}

void plan_compare_print_json(const PlanCompare *c, Str *out)
{
    str_add(out, "{");
    for (int side = 0; side < N_PLANS; side++) json_side(c, side, out);
    str_addf(out, "\"equal\":%s,\"moved\":%u,\n\"totals\":{", c->is_equal ? "true" : "false",
             c->n_moved);
    for (uint32_t i = 0; i < c->totals.n; i++) {
        const Total *t = &c->totals.at[i];
        str_add(out, i ? "," : "");
        json_pair(out, t->name, t->value[A], t->value[B]);
    }
    str_add(out, "},\n\"lines\":[");
    for (uint32_t i = 0; i < c->lines.n; i++) {
        str_add(out, i ? ",\n" : "\n");
        json_places(c, &c->lines.at[i], out);
        json_pair(out, "at_peak", c->lines.at[i].at_peak[A], c->lines.at[i].at_peak[B]);
        str_add(out, "}");
    }
    json_comm(c, out);
    json_groups(c, ONLY_A, "only_a", out);
    json_groups(c, ONLY_B, "only_b", out);
    json_groups(c, CHANGED, "changed", out);
    str_add(out, "}\n");
}
