/* check.c -- independent proof of a memory plan by abstract execution (memory.h).
 *
 * The memory is a sorted list of byte ranges, each labelled with the data that it holds: (origin
 * value, byte within it). Running a function op by op, every operand must find its own data at its
 * place; results overwrite ranges.  Views and readings of variables carry the origin of what they
 * show.  Uses nothing that the planner computed but the places, and fused_may_alias() for results
 * that overwrite operands of the same op.
 */
#include "passes/memory/memory.h"

#include <string.h>

typedef struct Range { /* bytes [lo, hi) hold bytes from `byte` on of the data `origin` */
    int64_t lo, hi;
    uint32_t origin;
    int64_t byte;
} Range;

typedef struct Data { /* what a value is, as bytes */
    uint32_t origin;  /* value id, or values.n + variable id for a variable's content at entry */
    int64_t byte;
} Data;

/* What a reading of several writings shows: ranges from its first byte on. */
typedef struct Parts {
    VEC(Range) at;
} Parts;

typedef struct Checker {
    Arena *scratch;
    const Module *m;
    const Func *f;
    VEC(Range) memory; /* sorted, disjoint */
    Data *data;        /* by value id */
    bool *is_written;  /* by origin: a variable may hold it */
    Parts *parts;      /* by value id: a reading of bytes of several origins */
} Checker;

/* ---- the memory ---- */

/* First range that ends after `at`. */
static uint32_t range_find(const Checker *c, int64_t at)
{
    uint32_t lo = 0, hi = c->memory.n;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (c->memory.at[mid].hi > at)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

static void range_insert(Checker *c, uint32_t at, Range r)
{
    VEC_RESERVE(c->scratch, &c->memory, c->memory.n + 1);
    memmove(&c->memory.at[at + 1], &c->memory.at[at], (c->memory.n - at) * sizeof(Range));
    c->memory.at[at] = r;
    c->memory.n++;
}

/* Splits so that a range starts at `at` if any covers it. */
static void range_split(Checker *c, int64_t at)
{
    uint32_t i = range_find(c, at);
    if (i == c->memory.n || c->memory.at[i].lo >= at) return;
    Range tail = c->memory.at[i];
    tail.byte += at - tail.lo;
    tail.lo = at;
    c->memory.at[i].hi = at;
    range_insert(c, i + 1, tail);
}

static void memory_set(Checker *c, int64_t lo, int64_t bytes, Data d)
{
    range_split(c, lo);
    range_split(c, lo + bytes);
    uint32_t from = range_find(c, lo), to = range_find(c, lo + bytes);
    Range r = {lo, lo + bytes, d.origin, d.byte};
    if (to == from) {
        range_insert(c, from, r);
        return;
    }
    c->memory.at[from] = r;
    memmove(&c->memory.at[from + 1], &c->memory.at[to], (c->memory.n - to) * sizeof(Range));
    c->memory.n -= to - from - 1;
}

/* Does range r, from memory byte `at` on, hold what byte `byte` of reading `origin` showed?  Then
 * *end is as far as that is so. */
static bool is_part(const Checker *c, uint32_t origin, int64_t byte, const Range *r, int64_t at,
                    int64_t *end)
{
    if (origin >= c->f->values.n) return false;
    const Parts *p = &c->parts[origin];
    for (uint32_t i = 0; i < p->at.n; i++) {
        const Range *q = &p->at.at[i];
        if (byte < q->lo || byte >= q->hi) continue;
        if (at + (q->hi - byte) < *end) *end = at + (q->hi - byte);
        return r->origin == q->origin && r->byte + (at - r->lo) == q->byte + (byte - q->lo);
    }
    return false;
}

/* The origin that holds any of [lo, lo + bytes) instead of d; d.origin when all bytes are d's. */
static uint32_t memory_find_other(const Checker *c, int64_t lo, int64_t bytes, Data d)
{
    int64_t at = lo;
    for (uint32_t i = range_find(c, lo); at < lo + bytes;) {
        if (i == c->memory.n || c->memory.at[i].lo > at) return UINT32_MAX; /* never written */
        const Range *r = &c->memory.at[i];
        int64_t byte = d.byte + (at - lo), end = r->hi;
        bool is_own = r->origin == d.origin && r->byte + (at - r->lo) == byte;
        if (!is_own && !is_part(c, d.origin, byte, r, at, &end)) return r->origin;
        at = end;
        if (at == r->hi) i++;
    }
    return d.origin;
}

/* ---- names in messages ---- */

static const char *origin_text(const Checker *c, uint32_t origin)
{
    if (origin == UINT32_MAX) return "nothing";
    if (origin >= c->f->values.n)
        return arena_printf(c->scratch, "variable @%s",
                            c->m->vars.at[origin - c->f->values.n].name);
    const Value *v = value_cget(c->f, (ValueId){origin});
    if (!op_ok(v->def)) return arena_printf(c->scratch, "input %%%s", v->name ? v->name : "?");
    const Op *op = op_cget(c->f, v->def);
    return arena_printf(c->scratch, "the result %s of %s at line %u",
                        type_text(c->scratch, v->type), op_info(op->code)->name,
                        loc_pos(c->m, op->loc).line);
}

static Status refuse(const Checker *c, const Op *op, ValueId operand, uint32_t other)
{
    const Value *v = value_cget(c->f, operand);
    diag_error(c->m->diag, loc_pos(c->m, op->loc), E_PLAN_OVERLAP,
               "@%s: %s reads bytes %lld..%lld for %s, but they hold %s", c->f->name,
               op_info(op->code)->name, (long long)v->place.offset,
               (long long)(v->place.offset + v->place.bytes),
               origin_text(c, c->data[operand.i].origin), origin_text(c, other));
    return ZM_FAIL;
}

/* ---- ops ---- */

static Status check_operand(const Checker *c, const Op *op, ValueId id)
{
    const Value *v = value_cget(c->f, id);
    if (v->place.bytes != type_bytes(v->type) || v->place.offset < 0 ||
        v->place.offset + v->place.bytes > c->m->arena_bytes)
        return diag_error(
            c->m->diag, loc_pos(c->m, op->loc), E_PLAN_OVERLAP,
            "@%s: a value %s has the place %lld + %lld, outside of the arena of %lld bytes",
            c->f->name, type_text(c->scratch, v->type), (long long)v->place.offset,
            (long long)v->place.bytes, (long long)c->m->arena_bytes);
    uint32_t other = memory_find_other(c, v->place.offset, v->place.bytes, c->data[id.i]);
    return other == c->data[id.i].origin ? ZM_OK : refuse(c, op, id, other);
}

static bool places_meet(const Place *x, const Place *y)
{
    return x->offset < y->offset + y->bytes && y->offset < x->offset + x->bytes;
}

/* Results must not touch operands of the same op, unless the kernel may overwrite that very
 * operand; nor each other. */
static Status check_results(const Checker *c, OpId id)
{
    const Op *op = op_cget(c->f, id);
    for (uint32_t r = 0; r < op->n_out; r++) {
        const Place *out = &value_cget(c->f, op->out[r])->place;
        for (uint32_t i = 0; i < op->n_in; i++) {
            const Place *in = &value_cget(c->f, op->in[i])->place;
            if (!places_meet(out, in)) continue;
            bool same = out->offset == in->offset && out->bytes == in->bytes;
            if (!same || !fused_may_alias(c->scratch, c->f, id, r, i))
                return refuse(c, op, op->in[i], op->out[r].i);
        }
        for (uint32_t q = 0; q < r; q++)
            if (places_meet(out, &value_cget(c->f, op->out[q])->place))
                return refuse(c, op, op->out[q], op->out[r].i);
    }
    return ZM_OK;
}

static VarId op_var(const Checker *c, const Op *op)
{
    return var_find(c->m, attr_str(op->attrs, AT_VAR));
}

static void set_result(Checker *c, ValueId id)
{
    const Place *p = &value_cget(c->f, id)->place;
    c->data[id.i] = (Data){id.i, 0};
    memory_set(c, p->offset, p->bytes, c->data[id.i]);
}

/* A view shows its operand's bytes where they are. */
static Status run_view(Checker *c, const Op *op, ValueId from)
{
    const Value *in = value_cget(c->f, from), *out = value_cget(c->f, op->out[0]);
    int64_t delta = out->place.offset - in->place.offset;
    if (delta < 0 || delta + out->place.bytes > in->place.bytes)
        return diag_error(c->m->diag, loc_pos(c->m, op->loc), E_PLAN_OVERLAP,
                          "@%s: %s lies outside of its operand's place", c->f->name,
                          op_info(op->code)->name);
    c->data[op->out[0].i] = (Data){c->data[from.i].origin, c->data[from.i].byte + delta};
    return ZM_OK;
}

static void record_parts(Checker *c, ValueId v)
{
    const Place *p = &value_cget(c->f, v)->place;
    for (uint32_t i = range_find(c, p->offset); i < c->memory.n; i++) {
        Range r = c->memory.at[i];
        if (r.lo >= p->offset + p->bytes) break;
        if (r.lo < p->offset) {
            r.byte += p->offset - r.lo;
            r.lo = p->offset;
        }
        if (r.hi > p->offset + p->bytes) r.hi = p->offset + p->bytes;
        r.lo -= p->offset;
        r.hi -= p->offset;
        VEC_PUSH(c->scratch, &c->parts[v.i].at, r);
    }
}

/* What stands at the variable's place now. */
static Status run_read(Checker *c, const Op *op)
{
    const Var *v = var_cget(c->m, op_var(c, op));
    const Place *p = &value_cget(c->f, op->out[0])->place;
    if (p->offset != v->place.offset || p->bytes != v->place.bytes)
        return diag_error(c->m->diag, loc_pos(c->m, op->loc), E_PLAN_OVERLAP,
                          "@%s: a reading of @%s is not at the variable's place", c->f->name,
                          v->name);
    const Range *r = &c->memory.at[range_find(c, p->offset)];
    Data seen = {r->origin, r->byte + (p->offset - r->lo)};
    if (memory_find_other(c, p->offset, p->bytes, seen) != seen.origin) {
        c->data[op->out[0].i] = (Data){op->out[0].i, 0};
        record_parts(c, op->out[0]);
    } else
        c->data[op->out[0].i] = seen;
    return ZM_OK;
}

/* The variable's bytes hold the operand, made there or copied. */
static void run_write(Checker *c, const Op *op)
{
    const Place *p = &var_cget(c->m, op_var(c, op))->place;
    c->is_written[c->data[op->in[0].i].origin] = true;
    memory_set(c, p->offset, p->bytes, c->data[op->in[0].i]);
}

static Status run_op(Checker *c, OpId id)
{
    const Op *op = op_cget(c->f, id);
    if (op->code == OP_READ) return run_read(c, op);
    if (op->code == OP_WORKSPACE) {
        set_result(c, op->out[0]);
        return ZM_OK;
    }
    for (uint32_t i = 0; i < op->n_in; i++) ZM_TRY(check_operand(c, op, op->in[i]));
    switch ((int)op->code) {
    case OP_RESHAPE:
    case OP_SLICE: return run_view(c, op, op->in[0]);
    case OP_WRITE: run_write(c, op); return ZM_OK;
    case OP_PACK: set_result(c, op->out[0]); return ZM_OK; /* operands in place or copied here */
    case OP_PROBE:
    case OP_RETURN: return ZM_OK;
    default: break;
    }
    ZM_TRY(check_results(c, id));
    for (uint32_t i = 0; i < op->n_out; i++) set_result(c, op->out[i]);
    return ZM_OK;
}

/* At the end variables hold what they held at first or what was written to them. */
static Status check_kept(const Checker *c)
{
    for (uint32_t i = 1; i < c->m->vars.n; i++) {
        const Var *v = &c->m->vars.at[i];
        if (var_ok(v->in)) continue;
        for (uint32_t r = range_find(c, v->place.offset);
             r < c->memory.n && c->memory.at[r].lo < v->place.offset + v->place.bytes; r++)
            if (!c->is_written[c->memory.at[r].origin])
                return diag_error(c->m->diag, loc_pos(c->m, v->loc), E_PLAN_OVERLAP,
                                  "@%s: %s overwrites variable @%s", c->f->name,
                                  origin_text(c, c->memory.at[r].origin), v->name);
    }
    return ZM_OK;
}

static Status check_function(Arena *scratch, const Module *m, const Func *f)
{
    Checker c = {
        .scratch = scratch, .m = m, .f = f, .data = ARENA_ARRAY(scratch, Data, f->values.n)};
    c.is_written = ARENA_ARRAY(scratch, bool, f->values.n + m->vars.n);
    c.parts = ARENA_ARRAY(scratch, Parts, f->values.n);
    for (uint32_t i = 1; i < m->vars.n; i++) {
        if (var_ok(m->vars.at[i].in)) continue;
        c.is_written[f->values.n + i] = true;
        memory_set(&c, m->vars.at[i].place.offset, m->vars.at[i].place.bytes,
                   (Data){f->values.n + i, 0});
    }
    for (uint32_t i = 0; i < f->params.n; i++) set_result(&c, f->params.at[i]);
    FOR_OPS(f, op) ZM_TRY(run_op(&c, op));
    return check_kept(&c);
}

static Status check_variables(const Module *m)
{
    for (uint32_t i = 1; i < m->vars.n; i++)
        for (uint32_t j = 1; !var_ok(m->vars.at[i].in) && j < i; j++) {
            const Var *x = &m->vars.at[i], *y = &m->vars.at[j];
            if (var_ok(y->in) || !places_meet(&x->place, &y->place)) continue;
            return diag_error(m->diag, loc_pos(m, x->loc), E_PLAN_OVERLAP,
                              "variables @%s and @%s share bytes", x->name, y->name);
        }
    return ZM_OK;
}

Status mem_check(const Module *m, Arena *scratch)
{
    ZM_TRY(check_variables(m));
    for (uint32_t i = 0; i < m->funcs.n; i++) ZM_TRY(check_function(scratch, m, m->funcs.at[i]));
    return ZM_OK;
}
