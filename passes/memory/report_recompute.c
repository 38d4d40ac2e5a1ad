/* report_recompute.c -- what each recomputed value saves and costs, by line of the model.
 *
 * The difference of two plans, without recomputation and with: temporaries at the peak, operations
 * of a step.  (Without it, too, kernels compute cheap values again where they are used.)
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "passes/memory/report.h"

/* The row of the line that loc comes from. */
static RecomputeRow *row_of(Arena *a, RecomputeReport *r, const Module *m, LocId at)
{
    SrcPos p = loc_ok(at) ? loc_pos(m, at) : (SrcPos){0};
    const char *loc =
        p.line ? arena_printf(a, "%s:%u", m->sources->all.at[p.source].name, p.line) : "";
    for (uint32_t i = 0; i < r->rows.n; i++)
        if (strcmp(r->rows.at[i].loc, loc) == 0) return &r->rows.at[i];
    VEC_PUSH(a, &r->rows, ((RecomputeRow){.loc = loc, .ops = ""}));
    return &r->rows.at[r->rows.n - 1];
}

/* runs: times in a step; negative: of the plan that is compared with. */
static void add_op(Arena *a, const Func *f, OpId id, double runs, RecomputeReport *r)
{
    const Op *o = op_cget(f, id);
    if (op_info(o->code)->cost_kind == COST_NONE) return;
    RecomputeRow *row = row_of(a, r, f->m, o->loc);
    double flops = runs * op_flops(f, id);
    row->flops += flops;
    if (runs < 0 || !loc_ok(loc_by_pass(f->m, o->loc, "recompute"))) return;
    row->n_ops++;
    if (flops <= row->most_flops) return;
    row->most_flops = flops;
    row->ops = op_info(o->code)->name;
}

static void add_func(Arena *a, const Func *f, double runs, RecomputeReport *r)
{
    FOR_OPS(f, op)
    {
        if (op_cget(f, op)->body)
            add_func(a, op_cget(f, op)->body, runs, r);
        else
            add_op(a, f, op, runs, r);
    }
}

static void add_flops(Arena *a, const Module *m, double sign, RecomputeReport *r)
{
    for (uint32_t i = 0; i < m->funcs.n; i++)
        if (plan_runs(m, m->funcs.at[i]) > 0)
            add_func(a, m->funcs.at[i], sign * plan_runs(m, m->funcs.at[i]), r);
}

static void add_peak(Arena *a, const Module *m, const PlanReport *plan, int64_t sign,
                     RecomputeReport *r)
{
    Buffers all = plan_buffers(a, m);
    for (uint32_t i = 0; i < all.n; i++)
        if (buffer_is_at_peak(&all.at[i], plan))
            row_of(a, r, m, all.at[i].loc)->saved += sign * all.at[i].bytes;
}

static int compare_rows(const void *x, const void *y)
{
    const RecomputeRow *a = x, *b = y;
    if (a->saved != b->saved) return a->saved > b->saved ? -1 : 1;
    return strcmp(a->loc, b->loc);
}

RecomputeReport plan_recompute(const Module *m, const PlanReport *plan, const Module *without,
                               Arena *a)
{
    PlanReport old = plan_report(without, a);
    RecomputeReport r = {
        .arena_without = old.arena, .flops = plan->flops - old.flops, .flops_without = old.flops};
    add_flops(a, m, 1, &r);
    add_flops(a, without, -1, &r);
    add_peak(a, without, &old, 1, &r);
    add_peak(a, m, plan, -1, &r);
    uint32_t n = 0;
    for (uint32_t i = 0; i < r.rows.n; i++)
        if (r.rows.at[i].saved || r.rows.at[i].n_ops || r.rows.at[i].flops != 0)
            r.rows.at[n++] = r.rows.at[i];
    r.rows.n = n;
    if (n) qsort(r.rows.at, n, sizeof *r.rows.at, compare_rows);
    return r;
}

enum { BYTES_WIDTH = 13 };

/* Right-aligned in `width`, the sign at the number. */
static void add_signed_bytes(Str *out, int64_t bytes, int width)
{
    Str text = {0};
    plan_add_bytes(&text, bytes < 0 ? -bytes : bytes);
    const char *number = str_c(&text) + strspn(str_c(&text), " ");
    int pad = width - (int)strlen(number) - (bytes < 0);
    str_addf(out, "%*s%s%s", pad > 0 ? pad : 0, "", bytes < 0 ? "-" : "", number);
    str_free(&text);
}

/* Percent of the step's flops; no "-0.00". */
static double flops_share(const RecomputeReport *r, double flops)
{
    double share = r->flops_without > 0 ? 100 * flops / r->flops_without : 0;
    return fabs(share) < 0.005 ? 0 : share;
}

void recompute_print_table(const PlanReport *plan, Str *out)
{
    const RecomputeReport *r = plan->recompute;
    if (!r->n_steps) {
        str_add(out, "recompute: nothing to compute again: no layers (a repeat in the model)\n");
        return;
    }
    str_addf(out, "recompute: %u of %u steps; arena without ", r->steps, r->n_steps);
    add_signed_bytes(out, r->arena_without, 0);
    str_add(out, ", saved ");
    add_signed_bytes(out, r->arena_without - plan->arena, 0);
    str_addf(out, "; %.4g more flops, %+.2f %% of the step's\n", r->flops,
             flops_share(r, r->flops));
    if (r->rows.n)
        str_add(out, "  saved at the peak     more flops  of the step's  ops again, the dearest  "
                     "line\n");
    for (uint32_t i = 0; i < r->rows.n; i++) {
        const RecomputeRow *x = &r->rows.at[i];
        str_add(out, "      ");
        add_signed_bytes(out, x->saved, BYTES_WIDTH);
        str_addf(out, "  %13.4g  %11.2f %%  %9u  %-12s  %s\n", x->flops, flops_share(r, x->flops),
                 x->n_ops, x->ops, *x->loc ? x->loc : "(inputs)");
    }
}

void recompute_print_json(const PlanReport *plan, Str *out)
{
    const RecomputeReport *r = plan->recompute;
    str_addf(out,
             ",\"recompute\":{\"steps\":%u,\"of\":%u,\"arena_without\":%lld,\"flops\":", r->steps,
             r->n_steps, (long long)r->arena_without);
    str_add_f64(out, r->flops);
    str_add(out, ",\"values\":[");
    for (uint32_t i = 0; i < r->rows.n; i++) {
        const RecomputeRow *x = &r->rows.at[i];
        str_add(out, i ? ",\n{\"loc\":" : "\n{\"loc\":");
        str_add_json(out, x->loc);
        str_addf(out, ",\"ops\":%u,\"dearest\":\"%s\",\"saved\":%lld,\"flops\":", x->n_ops, x->ops,
                 (long long)x->saved);
        str_add_f64(out, x->flops);
        str_add(out, "}");
    }
    str_add(out, "]}");
}
