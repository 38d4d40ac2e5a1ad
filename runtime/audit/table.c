/* table.c -- see table.h. */
#include "runtime/audit/table.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const phase_names[] = {"forward", "backward", "update"};

/* Smallest normal and largest finite number of a dtype. */
typedef struct Range {
    double least, most;
} Range;

static Range range_of(DType dt)
{
    if (dt == DT_F16) return (Range){0x1p-14, 65504};
    if (dt == DT_BF16) return (Range){0x1p-126, 0x1.fep127};
    if (dt == DT_F32) return (Range){FLT_MIN, FLT_MAX};
    return (Range){DBL_MIN, DBL_MAX};
}

/* By the passes that made the op out of the model's. */
static AuditPhase phase_of(const Module *m, LocId loc)
{
    AuditPhase phase = PHASE_FORWARD;
    for (const Loc *l = loc_get(m, loc); l->pass; l = loc_get(m, l->parent)) {
        if (strcmp(l->pass, "accumulate") == 0) return PHASE_UPDATE;
        if (strcmp(l->pass, "autodiff") == 0) phase = PHASE_BACKWARD;
        if (!loc_ok(l->parent)) break;
    }
    return phase;
}

static AuditRow *row_of(AuditTable *t, LocId loc, DType dtype)
{
    SrcPos pos = loc_pos(t->m, loc);
    AuditPhase phase = phase_of(t->m, loc);
    for (uint32_t i = 0; i < t->rows.n; i++) {
        AuditRow *r = &t->rows.at[i];
        if (r->pos.source == pos.source && r->pos.line == pos.line && r->phase == phase &&
            r->dtype == dtype)
            return r;
    }
    AuditRow row = {.pos = pos, .phase = phase, .dtype = dtype, .worst = ""};
    VEC_PUSH(t->a, &t->rows, row);
    return &t->rows.at[t->rows.n - 1];
}

void table_add(AuditTable *t, const BodyResult *r)
{
    DType dt = r->type->dtype;
    if (dtype_class(dt) != DTC_FLOAT || r->op->code == OP_CONST || r->op->code == OP_IOTA) return;
    AuditRow *row = row_of(t, r->op->loc, dt);
    Range range = range_of(dt);
    double wrong = 0, whole = 0;
    int64_t n = type_elems(r->type), n_bad = row->n_nonfinite;
    for (int64_t i = 0; i < n; i++) {
        double x = r->machine[i], y = r->exact[i];
        if (!isfinite(x) || !isfinite(y)) {
            row->n_nonfinite++;
            continue;
        }
        wrong += (x - y) * (x - y);
        whole += y * y;
        row->n_under += y != 0 && fabs(x) < range.least;
        row->largest = fmax(row->largest, fabs(x));
    }
    row->n_elems += n;
    if (row->n_nonfinite - n_bad == n) return;
    double error = wrong == 0 ? 0 : sqrt(wrong / whole);
    if (*row->worst && !(error > row->error)) return;
    row->error = error;
    row->worst = op_info(r->op->code)->name;
}

/* ---- printing ---- */

static int by_place(const void *x, const void *y)
{
    const AuditRow *a = x, *b = y;
    if (a->pos.source != b->pos.source) return a->pos.source < b->pos.source ? -1 : 1;
    if (a->pos.line != b->pos.line) return a->pos.line < b->pos.line ? -1 : 1;
    if (a->phase != b->phase) return a->phase < b->phase ? -1 : 1;
    return a->dtype < b->dtype ? -1 : a->dtype > b->dtype;
}

static const char *place_text(const AuditTable *t, Arena *a, SrcPos pos)
{
    if (!pos.line || pos.source >= t->m->sources->all.n) return "(no line)";
    const char *name = t->m->sources->all.at[pos.source].name, *slash = strrchr(name, '/');
    return arena_printf(a, "%s:%u", slash ? slash + 1 : name, pos.line);
}

static const char *headroom_text(Arena *a, const AuditRow *r)
{
    if (r->largest == 0) return "-";
    return arena_printf(a, "%.1f", log2(range_of(r->dtype).most / r->largest));
}

void table_print(const AuditTable *t, Arena *scratch, Str *out)
{
    uint32_t n = t->rows.n;
    AuditRow *rows = ARENA_ARRAY(scratch, AuditRow, n + 1);
    if (n) memcpy(rows, t->rows.at, n * sizeof *rows);
    qsort(rows, n, sizeof *rows, by_place);
    str_addf(out, "%-24s %-8s %-5s %12s %11s  %-16s %10s %9s %9s\n", "line", "phase", "dtype",
             "numbers", "rel. error", "of", "underflow", "headroom", "nonfinite");
    for (uint32_t i = 0; i < n; i++) {
        const AuditRow *r = &rows[i];
        bool is_lost = r->n_nonfinite == r->n_elems; /* nothing to compare */
        double under = 100.0 * (double)r->n_under / (double)r->n_elems;
        str_addf(out, "%-24s %-8s %-5s %12" PRId64 " %11s  %-16s %10s %9s %9" PRId64 "\n",
                 place_text(t, scratch, r->pos), phase_names[r->phase], dtype_name(r->dtype),
                 r->n_elems, is_lost ? "-" : arena_printf(scratch, "%.2e", r->error),
                 is_lost ? "-" : r->worst, is_lost ? "-" : arena_printf(scratch, "%.3f%%", under),
                 headroom_text(scratch, r), r->n_nonfinite);
    }
}
