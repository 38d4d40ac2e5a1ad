/* report.c -- what `zmc plan` prints.
 *
 * Categories: params, master, optimizer and the accumulators among grads are persistent; the rest
 * is what is live at the peak, the function and op position with most live bytes.  padding =
 * alignment within that.
 */
#include "passes/memory/report.h"

#include <stdlib.h>
#include <string.h>

static const char *const category_names[PLAN_N_CATEGORIES] = {
    "params",   "master",    "optimizer", "grads", "activations",
    "gathered", "workspace", "inputs",    "other"};

const char *plan_category_name(int i)
{
    return category_names[i];
}

static int64_t aligned(int64_t bytes)
{
    return (bytes + MEM_ALIGN - 1) / MEM_ALIGN * MEM_ALIGN;
}

static int64_t *category(PlanReport *r, const char *name)
{
    for (int i = 0; i < PLAN_N_CATEGORIES; i++)
        if (strcmp(r->cat[i].name, name) == 0) return &r->cat[i].bytes;
    ZM_UNREACHABLE("category");
}

/* ---- buffers ---- */

static void variable_buffers(Arena *a, const Module *m, int32_t end, Buffers *out)
{
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *v = &m->vars.at[i];
        if (var_ok(v->in)) continue;
        VEC_PUSH(a, out,
                 ((Buffer){NULL,
                           v->name,
                           v->name,
                           v->place.cat,
                           v->place.offset,
                           v->place.bytes,
                           0,
                           0,
                           end,
                           v->loc,
                           {i}}));
    }
}

static int64_t unit_offset(const Func *f, const Units *u, uint32_t i)
{
    ValueId v = u->at[i].name_value;
    return value_cget(f, v)->place.offset - u->of[v.i].offset;
}

/* Of a fused op: the op within that makes its result. */
static const char *result_name(const Op *op, uint32_t result)
{
    const char *what = op_info(op->code)->name;
    if (op->code != OP_FUSED || !op->body->last.i) return what;
    const Op *ret = op_cget(op->body, op->body->last);
    if (result >= ret->n_in) return what;
    OpId def = value_cget(op->body, ret->in[result])->def;
    return op_ok(def) ? op_info(op_cget(op->body, def)->code)->name : what;
}

static const char *unit_what(const Func *f, const Unit *u)
{
    const Value *v = value_cget(f, u->name_value);
    if (!op_ok(v->def)) return v->name ? v->name : "input";
    return result_name(op_cget(f, v->def), v->index);
}

static const char *unit_name(Arena *a, const Func *f, const Unit *u)
{
    const char *what = unit_what(f, u);
    if (!op_ok(value_cget(f, u->name_value)->def)) return what;
    return arena_printf(a, "%s.%s.%u", f->name, what, u->name_value.i);
}

static void function_buffers(Arena *a, const Func *f, int32_t base, Buffers *out)
{
    Units u = units_build(a, f);
    for (uint32_t i = 0; i < u.n; i++) {
        const Unit *unit = &u.at[i];
        if (unit->kind == UNIT_VAR) continue;
        ValueId v = unit->name_value;
        OpId def = value_cget(f, v)->def;
        LocId loc = op_ok(def) ? op_cget(f, def)->loc : (LocId){0};
        VEC_PUSH(a, out,
                 ((Buffer){f,
                           unit_name(a, f, unit),
                           unit_what(f, unit),
                           unit->cat,
                           unit_offset(f, &u, i),
                           unit->bytes,
                           unit->from,
                           unit->to,
                           base,
                           loc,
                           {0}}));
    }
}

/* One time axis for all functions: each starts after the one before it, since they never run
 * together. */
Buffers plan_buffers(Arena *a, const Module *m)
{
    Buffers b = {0};
    int32_t end = 0;
    for (uint32_t i = 0; i < m->funcs.n; i++) end += (int32_t)func_n_ops(m->funcs.at[i]) + 1;
    variable_buffers(a, m, end, &b);
    int32_t base = 0;
    for (uint32_t i = 0; i < m->funcs.n; i++) {
        function_buffers(a, m->funcs.at[i], base, &b);
        base += (int32_t)func_n_ops(m->funcs.at[i]) + 1;
    }
    return b;
}

/* Lifetime [from, to] on the common time axis. */
static void buffer_time(const Buffer *b, int32_t *from, int32_t *to)
{
    *from = b->f ? b->base + b->from : 0;
    *to = b->f ? b->base + b->to : b->base;
}

/* ---- the peak ---- */

static void find_peak(const Module *m, Arena *a, PlanReport *r)
{
    int64_t most = -1;
    for (uint32_t i = 0; i < m->funcs.n; i++) {
        int32_t at;
        Units u = units_build(a, m->funcs.at[i]);
        int64_t live = units_lower_bound(a, &u, &at);
        if (live <= most) continue;
        most = live;
        r->peak_func = m->funcs.at[i]->name;
        r->peak_pos = at;
    }
    r->lower_bound = most < 0 ? 0 : most;
}

/* ---- the step of the allocator ---- */

static int64_t variables_end(const Module *m)
{
    int64_t end = 0;
    for (uint32_t i = 1; i < m->vars.n; i++) {
        int64_t top = m->vars.at[i].place.offset + aligned(m->vars.at[i].place.bytes);
        if (!var_ok(m->vars.at[i].in) && top > end) end = top;
    }
    return end;
}

/* Height of f in the IR's plan, whose variables end at `base`; is it that of u? */
static int64_t compare_offsets(const Func *f, const Units *u, int64_t base, bool *is_same)
{
    int64_t height = 0;
    *is_same = true;
    for (uint32_t k = 0; k < u->n; k++) {
        if (u->at[k].kind == UNIT_VAR) continue;
        int64_t offset = unit_offset(f, u, k) - base, top = offset + aligned(u->at[k].bytes);
        *is_same &= offset == u->at[k].offset;
        if (top > height) height = top;
    }
    return height;
}

/* The plan in the IR names no step, and may have been edited. */
void plan_find_step(const Module *m, PlanReport *r, Arena *a)
{
    int64_t base = variables_end(m), most = -1;
    Units *u = ARENA_ARRAY(a, Units, m->funcs.n);
    AllocResult *again = ARENA_ARRAY(a, AllocResult, m->funcs.n);
    r->plan_step = "given";
    for (uint32_t i = 0; i < m->funcs.n; i++) u[i] = units_build(a, m->funcs.at[i]);
    units_allocate(a, u, m->funcs.n, again);
    for (uint32_t i = 0; i < m->funcs.n; i++) {
        bool is_same;
        int64_t height = compare_offsets(m->funcs.at[i], &u[i], base, &is_same);
        if (height <= most) continue;
        most = height;
        r->plan_step = is_same ? again[i].step : "given";
    }
}

bool buffer_is_at_peak(const Buffer *b, const PlanReport *r)
{
    return b->f && strcmp(b->f->name, r->peak_func) == 0 && b->from <= r->peak_pos &&
           r->peak_pos <= b->to;
}

static void add_live(PlanReport *r, const Buffers *all)
{
    for (uint32_t i = 0; i < all->n; i++) {
        const Buffer *b = &all->at[i];
        if (b->f && !buffer_is_at_peak(b, r)) continue;
        *category(r, b->cat) += b->bytes;
        r->padding += aligned(b->bytes) - b->bytes;
        if (!b->f) r->lower_bound += aligned(b->bytes);
    }
}

static double func_flops(const Func *f)
{
    double total = 0;
    FOR_OPS(f, op)
    {
        const Op *o = op_cget(f, op);
        if (o->body)
            total += func_flops(o->body);
        else
            total += op_flops(f, op);
    }
    return total;
}

double plan_runs(const Module *m, const Func *f)
{
    if (strcmp(f->name, "micro") == 0) return (double)(m->train.accumulate - 1);
    return strcmp(f->name, "last") == 0;
}

/* Along all axes of the mesh. */
static int64_t plan_ranks(const Module *m)
{
    int64_t n = 1;
    for (int i = MESH_NONE + 1; i < N_MESH_AXIS; i++) n *= m->mesh[i] ? m->mesh[i] : 1;
    return n;
}

PlanReport plan_report(const Module *m, Arena *scratch)
{
    PlanReport r = {
        .arena = m->arena_bytes, .ranks = plan_ranks(m), .peak_func = "", .plan_step = ""};
    for (int i = 0; i < PLAN_N_CATEGORIES; i++) r.cat[i].name = category_names[i];
    for (uint32_t i = 1; i < m->vars.n; i++)
        if (m->vars.at[i].kind == VK_PARAM && !m->vars.at[i].is_bucket)
            r.params += type_elems(m->vars.at[i].type);
    find_peak(m, scratch, &r);
    Buffers all = plan_buffers(scratch, m);
    add_live(&r, &all);
    for (int i = 0; i < PLAN_N_CATEGORIES; i++) r.peak_live += r.cat[i].bytes;
    r.peak_live += r.padding;
    r.states = *category(&r, "params") + *category(&r, "master") + *category(&r, "optimizer") +
               *category(&r, "grads");
    r.closed_form = precision_closed_form(m, r.ranks);
    r.fragmentation = r.peak_live ? (double)r.arena / (double)r.peak_live - 1 : 0;
    r.comm = plan_comm(m, scratch);
    for (uint32_t i = 0; i < m->funcs.n; i++) {
        r.flops += plan_runs(m, m->funcs.at[i]) * func_flops(m->funcs.at[i]);
    }
    return r;
}

/* ---- text ---- */

void plan_add_bytes(Str *out, int64_t bytes)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    int u = 0;
    for (; v >= 1024 && u < 4; u++) v /= 1024;
    str_addf(out, u ? "%8.2f %s" : "%8.0f %s", v, unit[u]);
}

const char *plan_bytes_text(Arena *a, int64_t bytes)
{
    Str unit = {0};
    plan_add_bytes(&unit, bytes);
    const char *text = bytes < 1024 ? arena_printf(a, "%lld bytes", (long long)bytes)
                                    : arena_printf(a, "%lld bytes (%s)", (long long)bytes,
                                                   str_c(&unit) + strspn(str_c(&unit), " "));
    str_free(&unit);
    return text;
}

/* How far the arena is above what this order of ops needs. */
static double plan_gap(const PlanReport *r)
{
    return r->lower_bound ? (double)r->arena / (double)r->lower_bound - 1 : 0;
}

static void add_line(Str *out, const char *name, int64_t bytes)
{
    str_addf(out, "  %-14s %15lld B  ", name, (long long)bytes);
    plan_add_bytes(out, bytes);
    str_add(out, "\n");
}

const char *plan_loc_text(Arena *a, const Module *m, LocId loc)
{
    if (!loc_ok(loc)) return "";
    SrcPos p = loc_pos(m, loc);
    return p.line ? arena_printf(a, "%s:%u:%u", m->sources->all.at[p.source].name, p.line, p.col)
                  : "";
}

static int compare_bytes(const void *x, const void *y)
{
    const Buffer *a = x, *b = y;
    if (a->bytes != b->bytes) return a->bytes > b->bytes ? -1 : 1;
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

enum { N_LARGEST = 8 };

static void add_largest(const Module *m, const PlanReport *r, Arena *a, Str *out)
{
    Buffers all = plan_buffers(a, m);
    Buffers live = {0};
    for (uint32_t i = 0; i < all.n; i++) {
        const Buffer *b = &all.at[i];
        if (buffer_is_at_peak(b, r)) VEC_PUSH(a, &live, *b);
    }
    if (live.n) qsort(live.at, live.n, sizeof *live.at, compare_bytes);
    str_addf(out, "largest temporaries at the peak (@%s, op %d):\n", r->peak_func, r->peak_pos);
    for (uint32_t i = 0; i < live.n && i < N_LARGEST; i++) {
        const char *loc = plan_loc_text(a, m, live.at[i].loc);
        str_add(out, "  ");
        plan_add_bytes(out, live.at[i].bytes);
        str_addf(out, "%s  %-12s %-28s %s\n", live.at[i].bytes < 1024 ? "  " : "", live.at[i].cat,
                 live.at[i].name, *loc ? loc : "(input)");
    }
}

void plan_print_table(const Module *m, const PlanReport *r, Arena *scratch, Str *out)
{
    bool is_autocast = m->train.precision != PREC_FP32 && m->train.amp == AMP_AUTOCAST;
    str_addf(
        out,
        "model %s: %lld parameters, micro-batch %lld, accumulate %lld, %lld rank%s, zero %lld, "
        "%s%s\n",
        m->name, (long long)r->params, (long long)m->batch, (long long)m->train.accumulate,
        (long long)r->ranks, r->ranks > 1 ? "s" : "", (long long)m->train.zero,
        precision_name(m->train.precision),
        is_autocast     ? " autocast"
        : m->train.pure ? " pure"
                        : "");
    precision_print_table(m, out);
    if (r->ranks == 1)
        str_add(out, "memory of a rank at its peak:\n");
    else
        str_addf(out, "memory of each of %lld ranks at its peak:\n", (long long)r->ranks);
    for (int i = 0; i < PLAN_N_CATEGORIES; i++)
        if (r->cat[i].bytes) add_line(out, r->cat[i].name, r->cat[i].bytes);
    add_line(out, "padding", r->padding);
    add_line(out, "peak live", r->peak_live);
    add_line(out, "arena", r->arena);
    str_addf(out, "  %-14s %14.3f %%\n", "fragmentation", 100 * r->fragmentation);
    add_line(out, "lower bound", r->lower_bound);
    str_addf(out, "  %-14s %14.3f %%\n", "gap", 100 * plan_gap(r));
    str_addf(out, "  %-14s %s\n", "packed by", r->plan_step);
    add_line(out, "states", r->states);
    add_line(out, "closed form", r->closed_form);
    str_addf(out, "  %-14s %15.4g per step\n", "flops", r->flops);
    comm_print_table(r, out);
    add_largest(m, r, scratch, out);
    if (r->recompute) recompute_print_table(r, out);
}

static void json_category(const PlanReport *r, Str *out)
{
    for (int i = 0; i < PLAN_N_CATEGORIES; i++)
        str_addf(out, "\"%s\":%lld,", r->cat[i].name, (long long)r->cat[i].bytes);
    str_addf(out, "\"padding\":%lld,\"peak_live\":%lld,\"arena\":%lld,\"fragmentation\":",
             (long long)r->padding, (long long)r->peak_live, (long long)r->arena);
    str_add_f64(out, r->fragmentation);
    str_add(out, ",\"gap\":");
    str_add_f64(out, plan_gap(r));
    str_addf(out, ",\"states\":%lld,\"closed_form\":%lld,\"lower_bound\":%lld,\"plan_step\":",
             (long long)r->states, (long long)r->closed_form, (long long)r->lower_bound);
    str_add_json(out, r->plan_step);
}

/* Where each function starts on the time axis, and what runs at each op of the peak's. */
static void json_time(const Module *m, const PlanReport *r, Arena *a, Str *out)
{
    const Func *peak = NULL;
    int32_t base = 0;
    str_add(out, ",\"funcs\":[");
    for (uint32_t i = 0; i < m->funcs.n; i++) {
        const Func *f = m->funcs.at[i];
        int32_t n = (int32_t)func_n_ops(f);
        str_addf(out, "%s{\"name\":", i ? "," : "");
        str_add_json(out, f->name);
        str_addf(out, ",\"from\":%d,\"ops\":%d}", base, n);
        base += n + 1;
        if (strcmp(f->name, r->peak_func) == 0) peak = f;
    }
    str_add(out, "],\"peak\":{\"func\":");
    str_add_json(out, r->peak_func);
    str_addf(out, ",\"op\":%d,\"ops\":[", r->peak_pos);
    if (peak) {
        const char *comma = "";
        FOR_OPS(peak, op)
        {
            const Op *o = op_cget(peak, op);
            str_addf(out, "%s\n{\"op\":\"%s\",\"loc\":", comma, result_name(o, 0));
            str_add_json(out, plan_loc_text(a, m, o->loc));
            str_add(out, "}");
            comma = ",";
        }
    }
    str_add(out, "]}");
}

void plan_print_json(const Module *m, const PlanReport *r, Arena *scratch, Str *out)
{
    str_add(out, "{\"model\":");
    str_add_json(out, m->name);
    str_addf(out, ",\"micro_batch\":%lld,\"accumulate\":%lld,", (long long)m->batch,
             (long long)m->train.accumulate);
    str_addf(out, "\"ranks\":%lld,\"zero\":%lld,", (long long)r->ranks, (long long)m->train.zero);
    precision_print_json(m, out);
    str_addf(out, ",\"params\":%lld,\"per_rank\":[", (long long)r->params);
    for (int64_t rank = 0; rank < r->ranks; rank++) { /* all run the same program */
        str_add(out, rank ? ",\n{" : "{");
        json_category(r, out);
        str_add(out, "}");
    }
    str_add(out, "]");
    comm_print_json(r, out);
    str_add(out, ",\"buffers\":[");
    Buffers all = plan_buffers(scratch, m);
    for (uint32_t i = 0; i < all.n; i++) {
        const Buffer *b = &all.at[i];
        int32_t from, to;
        buffer_time(b, &from, &to);
        str_add(out, i ? ",\n{\"name\":" : "\n{\"name\":");
        str_add_json(out, b->name);
        str_addf(out,
                 ",\"cat\":\"%s\",\"func\":\"%s\",\"offset\":%lld,\"bytes\":%lld,\"from\":%d,"
                 "\"to\":%d,\"loc\":",
                 b->cat, b->f ? b->f->name : "", (long long)b->offset, (long long)b->bytes, from,
                 to);
        str_add_json(out, plan_loc_text(scratch, m, b->loc));
        str_add(out, "}");
    }
    str_add(out, "]");
    json_time(m, r, scratch, out);
    str_add(out, ",\"flops\":");
    str_add_f64(out, r->flops);
    if (r->recompute) recompute_print_json(r, out);
    if (r->sweep) {
        str_add(out, ",\"sweep\":");
        sweep_print_json(r->sweep, out);
    }
    str_add(out, "}\n");
}

void plan_print_csv(const Module *m, Arena *scratch, Str *out)
{
    str_add(out, "id,lower,upper,size,offset,func,cat,name,loc\n");
    Buffers all = plan_buffers(scratch, m);
    for (uint32_t i = 0; i < all.n; i++) {
        const Buffer *b = &all.at[i];
        int32_t from, to;
        buffer_time(b, &from, &to);
        str_addf(out, "%u,%d,%d,%lld,%lld,%s,%s,%s,%s\n", i, from, to + 1, (long long)b->bytes,
                 (long long)b->offset, b->f ? b->f->name : "", b->cat, b->name,
                 plan_loc_text(scratch, m, b->loc));
    }
}
