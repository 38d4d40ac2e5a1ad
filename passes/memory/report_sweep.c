/* report_sweep.c -- plans of many ranks and ZeRO stages beside each other: which fit, and what they
 * send. */
#include <string.h>

#include "passes/memory/report.h"

/* ---- which fit ---- */

bool sweep_fits(const PlanSweep *s, const SweepRow *r)
{
    return r->is_planned && (!s->memory || r->arena <= s->memory);
}

const SweepRow *sweep_fewest(const PlanSweep *s, int64_t zero)
{
    for (uint32_t i = 0; i < s->n; i++)
        if (s->row[i].zero == zero && sweep_fits(s, &s->row[i])) return &s->row[i];
    return NULL;
}

static bool sends_less(const SweepRow *x, const SweepRow *y)
{
    return x->comm_bytes != y->comm_bytes ? x->comm_bytes < y->comm_bytes : x->arena < y->arena;
}

bool sweep_is_cheapest(const PlanSweep *s, const SweepRow *r)
{
    if (!sweep_fits(s, r)) return false;
    for (uint32_t i = 0; i < s->n; i++) {
        const SweepRow *x = &s->row[i];
        if (x->ranks != r->ranks || x == r || !sweep_fits(s, x)) continue;
        if (sends_less(x, r) || (x < r && !sends_less(r, x))) return false;
    }
    return true;
}

static const SweepRow *smallest_arena(const PlanSweep *s)
{
    const SweepRow *best = NULL;
    for (uint32_t i = 0; i < s->n; i++)
        if (s->row[i].is_planned && (!best || s->row[i].arena < best->arena)) best = &s->row[i];
    return best;
}

const SweepRow *sweep_best(const PlanSweep *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        if (sweep_is_cheapest(s, &s->row[i])) return &s->row[i];
    return smallest_arena(s);
}

/* Stages that have rows: bit z. */
static uint32_t stages(const PlanSweep *s)
{
    uint32_t has = 0;
    for (uint32_t i = 0; i < s->n; i++) has |= 1u << s->row[i].zero;
    return has;
}

enum { N_STAGES = 4 };

/* ---- text ---- */

static int64_t category_bytes(const SweepRow *r, const char *name)
{
    for (int i = 0; i < PLAN_N_CATEGORIES; i++)
        if (strcmp(plan_category_name(i), name) == 0) return r->cat[i];
    ZM_UNREACHABLE("category");
}

static void add_size(Str *out, int64_t bytes)
{
    str_add(out, "  ");
    plan_add_bytes(out, bytes);
    if (bytes < 1024) str_add(out, "  "); /* the unit is shorter */
}

/* One rank sends nothing at any stage. */
static bool is_marked(const PlanSweep *s, const SweepRow *r)
{
    return r->ranks > 1 && sweep_is_cheapest(s, r);
}

static const char *fit_text(const PlanSweep *s, const SweepRow *r)
{
    if (s->memory && !sweep_fits(s, r)) return "no";
    if (is_marked(s, r)) return s->memory ? "yes, sends least" : "sends least";
    return s->memory ? "yes" : "";
}

static void add_legend(const PlanSweep *s, Str *out)
{
    uint32_t i = 0;
    while (i < s->n && !is_marked(s, &s->row[i])) i++;
    if (i == s->n) return;
    str_addf(out,
             "sends least: among the stages %son as many ranks; of equals the smallest arena\n",
             s->memory ? "that fit " : "");
}

static void add_row(const PlanSweep *s, const SweepRow *r, Str *out)
{
    str_addf(out, "  %5lld  %4lld", (long long)r->ranks, (long long)r->zero);
    if (!r->is_planned) {
        str_addf(out, "  refused: %s\n", r->why);
        return;
    }
    add_size(out, r->states);
    add_size(out, category_bytes(r, "activations"));
    add_size(out, category_bytes(r, "gathered"));
    add_size(out, r->arena);
    const char *fit = fit_text(s, r);
    if (*fit) {
        add_size(out, r->comm_bytes);
        str_addf(out, "  %s\n", fit);
        return;
    }
    str_add(out, "  ");
    plan_add_bytes(out, r->comm_bytes);
    str_add(out, "\n");
}

static void add_trimmed(Str *out, int64_t bytes)
{
    Str text = {0};
    plan_add_bytes(&text, bytes);
    str_add(out, str_c(&text) + strspn(str_c(&text), " "));
    str_free(&text);
}

static void add_fewest(const SweepRow *r, int64_t zero, Str *out)
{
    str_addf(out, "zero %lld: ", (long long)zero);
    if (!r) {
        str_add(out, "fits on none of these ranks\n");
        return;
    }
    str_addf(out, "fewest ranks %lld, arena ", (long long)r->ranks);
    add_trimmed(out, r->arena);
    str_add(out, ", sent in a step ");
    add_trimmed(out, r->comm_bytes);
    str_add(out, "\n");
}

static void add_answers(const PlanSweep *s, Str *out)
{
    for (int64_t zero = 0; zero < N_STAGES; zero++)
        if (stages(s) & 1u << zero) add_fewest(sweep_fewest(s, zero), zero, out);
    const SweepRow *best = sweep_best(s);
    if (best && sweep_fits(s, best))
        str_addf(out,
                 "answer: --ranks %lld --zero %lld: the fewest ranks that fit, and what sends "
                 "least on them\n",
                 (long long)best->ranks, (long long)best->zero);
}

void sweep_print_table(const PlanSweep *s, Str *out)
{
    str_addf(out, "model %s: %lld parameters, micro-batch %lld, accumulate %lld, %s", s->model,
             (long long)s->params, (long long)s->batch, (long long)s->accumulate, s->precision);
    if (s->memory) {
        str_add(out, ", ");
        add_trimmed(out, s->memory);
        str_add(out, " for a rank");
    }
    str_add(out, "\n  ranks  zero        states   activations      gathered         arena  "
                 "sent in a step\n");
    for (uint32_t i = 0; i < s->n; i++) add_row(s, &s->row[i], out);
    add_legend(s, out);
    if (s->memory) add_answers(s, out);
}

/* ---- CSV and JSON ---- */

void sweep_print_csv(const PlanSweep *s, Str *out)
{
    str_add(out, "ranks,zero");
    for (int i = 0; i < PLAN_N_CATEGORIES; i++) str_addf(out, ",%s", plan_category_name(i));
    str_add(out, ",padding,peak_live,arena,states,closed_form,comm_bytes,fits,sends_least\n");
    for (uint32_t i = 0; i < s->n; i++) {
        const SweepRow *r = &s->row[i];
        if (!r->is_planned) continue;
        str_addf(out, "%lld,%lld", (long long)r->ranks, (long long)r->zero);
        for (int k = 0; k < PLAN_N_CATEGORIES; k++) str_addf(out, ",%lld", (long long)r->cat[k]);
        str_addf(out, ",%lld,%lld,%lld,%lld,%lld,%lld,%d,%d\n", (long long)r->padding,
                 (long long)r->peak_live, (long long)r->arena, (long long)r->states,
                 (long long)r->closed_form, (long long)r->comm_bytes, sweep_fits(s, r),
                 sweep_is_cheapest(s, r));
    }
}

static void json_row(const PlanSweep *s, const SweepRow *r, Str *out)
{
    str_addf(out, "{\"ranks\":%lld,\"zero\":%lld,", (long long)r->ranks, (long long)r->zero);
    if (!r->is_planned) {
        str_add(out, "\"refused\":");
        str_add_json(out, r->why);
        str_add(out, "}");
        return;
    }
    for (int i = 0; i < PLAN_N_CATEGORIES; i++)
        str_addf(out, "\"%s\":%lld,", plan_category_name(i), (long long)r->cat[i]);
    str_addf(out,
             "\"padding\":%lld,\"peak_live\":%lld,\"arena\":%lld,\"states\":%lld,"
             "\"closed_form\":%lld,\"comm_bytes\":%lld,\"fits\":%s,\"sends_least\":%s}",
             (long long)r->padding, (long long)r->peak_live, (long long)r->arena,
             (long long)r->states, (long long)r->closed_form, (long long)r->comm_bytes,
             sweep_fits(s, r) ? "true" : "false", sweep_is_cheapest(s, r) ? "true" : "false");
}

static void json_choice(const SweepRow *r, Str *out)
{
    if (r)
        str_addf(out, "{\"ranks\":%lld,\"zero\":%lld}", (long long)r->ranks, (long long)r->zero);
    else
        str_add(out, "null");
}

void sweep_print_json(const PlanSweep *s, Str *out)
{
    str_add(out, "{\"model\":");
    str_add_json(out, s->model);
    str_addf(out,
             ",\"micro_batch\":%lld,\"accumulate\":%lld,\"precision\":\"%s\",\"params\":%lld,"
             "\"memory\":",
             (long long)s->batch, (long long)s->accumulate, s->precision, (long long)s->params);
    if (s->memory)
        str_addf(out, "%lld", (long long)s->memory);
    else
        str_add(out, "null");
    str_add(out, ",\"plans\":[");
    for (uint32_t i = 0; i < s->n; i++) {
        str_add(out, i ? ",\n" : "\n");
        json_row(s, &s->row[i], out);
    }
    str_add(out, "],\n\"fewest_ranks\":{");
    const char *comma = "";
    for (int64_t zero = 0; zero < N_STAGES; zero++) {
        if (!(stages(s) & 1u << zero)) continue;
        str_addf(out, "%s\"%lld\":", comma, (long long)zero);
        json_choice(sweep_fewest(s, zero), out);
        comma = ",";
    }
    const SweepRow *best = sweep_best(s);
    str_add(out, "},\"answer\":");
    json_choice(best && sweep_fits(s, best) ? best : NULL, out);
    str_add(out, "}\n");
}
