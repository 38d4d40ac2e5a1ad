/* check.c -- independent proof of a memory plan by abstract execution (memory.h).
 *
 * The memory is a sorted list of byte ranges, each labelled with the data that it holds: (origin
 * value, byte within it). Running a function op by op, every operand must find its own data at its
 * place; results overwrite ranges.  Views and readings of variables carry the origin of what they
 * show.  Uses nothing that the planner computed but the places, and fused_may_alias() for results
 * that overwrite operands of the same op.
 *
 * From the start of a collective to its wait nobody writes to the bytes of its operand, and nobody
 * touches those of its result.  A `shard` is some part of its operand, another one on each rank:
 * whoever uses it needs all of the operand.
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

typedef VEC(Range) Memory; /* sorted, disjoint */

typedef struct Flight { /* a collective between start and wait */
    OpId start;
    Place from, to; /* its operand (the whole of it where that is a shard) and its result */
} Flight;

typedef struct Checker {
    Arena *scratch;
    const Module *m;
    const Func *f;
    Memory memory; /* what the bytes hold */
    Memory kept;   /* what the bytes of variables have to hold: at entry their own, then what was
                      written */
    Data *data;    /* by value id */
    Memory
        *parts; /* by value id: what a reading of several writings shows, from its first byte on */
    ValueId *whole; /* by value id: of views of a shard the operand of `shard` */
    VEC(Flight) flights;
} Checker;

/* ---- the memory ---- */

/* First range that ends after `at`. */
static uint32_t range_find(const Memory *m, int64_t at)
{
    uint32_t lo = 0, hi = m->n;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (m->at[mid].hi > at)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

static void range_insert(Arena *a, Memory *m, uint32_t at, Range r)
{
    VEC_RESERVE(a, m, m->n + 1);
    memmove(&m->at[at + 1], &m->at[at], (m->n - at) * sizeof(Range));
    m->at[at] = r;
    m->n++;
}

/* Splits so that a range starts at `at` if any covers it. */
static void range_split(Arena *a, Memory *m, int64_t at)
{
    uint32_t i = range_find(m, at);
    if (i == m->n || m->at[i].lo >= at) return;
    Range tail = m->at[i];
    tail.byte += at - tail.lo;
    tail.lo = at;
    m->at[i].hi = at;
    range_insert(a, m, i + 1, tail);
}

static void memory_set(Arena *a, Memory *m, int64_t lo, int64_t bytes, Data d)
{
    range_split(a, m, lo);
    range_split(a, m, lo + bytes);
    uint32_t from = range_find(m, lo), to = range_find(m, lo + bytes);
    Range r = {lo, lo + bytes, d.origin, d.byte};
    if (to == from) {
        range_insert(a, m, from, r);
        return;
    }
    m->at[from] = r;
    memmove(&m->at[from + 1], &m->at[to], (m->n - to) * sizeof(Range));
    m->n -= to - from - 1;
}

/* The data at one byte; origin UINT32_MAX: never written.  *end: where these data end. */
static Data memory_get(const Memory *m, int64_t at, int64_t *end)
{
    uint32_t i = range_find(m, at);
    *end = i == m->n ? INT64_MAX : m->at[i].lo > at ? m->at[i].lo : m->at[i].hi;
    if (i == m->n || m->at[i].lo > at) return (Data){UINT32_MAX, 0};
    return (Data){m->at[i].origin, m->at[i].byte + (at - m->at[i].lo)};
}

/* The origin that holds any of [lo, lo + bytes) instead of d; d.origin when all bytes are d's. */
static uint32_t memory_find_other(const Memory *m, int64_t lo, int64_t bytes, Data d)
{
    for (int64_t at = lo, end; at < lo + bytes; at = end) {
        Data seen = memory_get(m, at, &end);
        if (seen.origin != d.origin || seen.byte != d.byte + (at - lo)) return seen.origin;
    }
    return d.origin;
}

/* The origin that holds any of a value's bytes instead of its data d; d.origin when all are d's. */
static uint32_t find_other(const Checker *c, const Place *p, Data d)
{
    for (int64_t at = p->offset, end; at < p->offset + p->bytes; at = end) {
        int64_t byte = d.byte + (at - p->offset), end_part;
        Data seen = memory_get(&c->memory, at, &end);
        if (seen.origin == d.origin && seen.byte == byte) continue;
        if (d.origin >= c->f->values.n) return seen.origin;
        Data part = memory_get(&c->parts[d.origin], byte, &end_part);
        if (part.origin == UINT32_MAX || part.origin != seen.origin || part.byte != seen.byte)
            return seen.origin;
        if (at + (end_part - byte) < end) end = at + (end_part - byte);
    }
    return d.origin;
}

/* The first byte of [lo, lo + bytes) where the memory does not hold what a variable has to; -1:
 * none. */
static int64_t find_lost(const Checker *c, int64_t lo, int64_t bytes)
{
    for (int64_t at = lo, end; at < lo + bytes; at = end) {
        int64_t end_kept;
        Data seen = memory_get(&c->memory, at, &end), kept = memory_get(&c->kept, at, &end_kept);
        if (seen.origin != kept.origin || seen.byte != kept.byte) return at;
        if (end_kept < end) end = end_kept;
    }
    return -1;
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

static bool ranges_meet(int64_t lo, int64_t n, int64_t lo2, int64_t n2)
{
    return lo < lo2 + n2 && lo2 < lo + n;
}

static bool places_meet(const Place *x, const Place *y)
{
    return ranges_meet(x->offset, x->bytes, y->offset, y->bytes);
}

static Status check_place(const Checker *c, LocId loc, ValueId id)
{
    const Value *v = value_cget(c->f, id);
    int64_t elem = dtype_bytes(v->type->dtype);
    if (v->place.bytes == type_bytes(v->type) && v->place.offset >= 0 &&
        v->place.offset <= c->m->arena_bytes - v->place.bytes) {
        if (v->place.offset % elem == 0) return ZM_OK; /* kernels load whole elements */
        return diag_error(c->m->diag, loc_pos(c->m, loc), E_PLAN_OVERLAP,
                          "@%s: a value %s has the offset %lld, which is not a multiple of its "
                          "%lld-byte elements",
                          c->f->name, type_text(c->scratch, v->type), (long long)v->place.offset,
                          (long long)elem);
    }
    return diag_error(
        c->m->diag, loc_pos(c->m, loc), E_PLAN_OVERLAP,
        "@%s: a value %s has the place %lld + %lld, outside of the arena of %lld bytes", c->f->name,
        type_text(c->scratch, v->type), (long long)v->place.offset, (long long)v->place.bytes,
        (long long)c->m->arena_bytes);
}

/* The value whose bytes must be there for v to be, on whatever rank. */
static ValueId all_of(const Checker *c, ValueId v)
{
    return value_ok(c->whole[v.i]) ? c->whole[v.i] : v;
}

static const Place *place_of_all(const Checker *c, ValueId v)
{
    return &value_cget(c->f, all_of(c, v))->place;
}

static Status check_operand(const Checker *c, const Op *op, ValueId id)
{
    ZM_TRY(check_place(c, op->loc, id));
    ValueId all = all_of(c, id);
    uint32_t other = find_other(c, &value_cget(c->f, all)->place, c->data[all.i]);
    return other == c->data[all.i].origin ? ZM_OK : refuse(c, op, id, other);
}

/* ---- collectives in flight ---- */

static bool is_async(const Op *op)
{
    return op_takes_attr(op->code, AT_ASYNC) && attr_int(op->attrs, AT_ASYNC, 0);
}

static Status refuse_flight(const Checker *c, const Op *op, const char *does, const Place *p,
                            const Flight *fl, const char *whose)
{
    const Op *start = op_cget(c->f, fl->start);
    return diag_error(c->m->diag, loc_pos(c->m, op->loc), E_PLAN_OVERLAP,
                      "@%s: %s %s bytes %lld..%lld, which are the %s of %s at line %u, in flight "
                      "until it is waited for",
                      c->f->name, op_info(op->code)->name, does, (long long)p->offset,
                      (long long)(p->offset + p->bytes), whose, op_info(start->code)->name,
                      loc_pos(c->m, start->loc).line);
}

/* op writes to the bytes of p. */
static Status check_store(const Checker *c, const Op *op, const Place *p)
{
    for (uint32_t i = 0; i < c->flights.n; i++) {
        const Flight *fl = &c->flights.at[i];
        if (places_meet(p, &fl->to)) return refuse_flight(c, op, "writes", p, fl, "result");
        if (places_meet(p, &fl->from)) return refuse_flight(c, op, "writes", p, fl, "operand");
    }
    return ZM_OK;
}

static Status check_load(const Checker *c, const Op *op, const Place *p)
{
    for (uint32_t i = 0; i < c->flights.n; i++)
        if (places_meet(p, &c->flights.at[i].to))
            return refuse_flight(c, op, "reads", p, &c->flights.at[i], "result");
    return ZM_OK;
}

/* What a kernel, a pack, or a collective touches while others are in flight. */
static Status check_flights(const Checker *c, const Op *op)
{
    for (uint32_t i = 0; c->flights.n && i < op->n_in; i++)
        ZM_TRY(check_load(c, op, place_of_all(c, op->in[i])));
    for (uint32_t i = 0; c->flights.n && i < op->n_out; i++)
        ZM_TRY(check_store(c, op, &value_cget(c->f, op->out[i])->place));
    return ZM_OK;
}

static Status run_wait(Checker *c, const Op *op)
{
    OpId start = value_cget(c->f, op->in[0])->def;
    uint32_t i = 0;
    while (i < c->flights.n && c->flights.at[i].start.i != start.i) i++;
    if (i == c->flights.n)
        return diag_error(c->m->diag, loc_pos(c->m, op->loc), E_PLAN_OVERLAP,
                          "@%s: wait is for a collective that is not in flight", c->f->name);
    c->flights.at[i] = c->flights.at[--c->flights.n];
    return ZM_OK;
}

/* ---- effects ---- */

/* Results must not touch operands of the same op, unless the kernel may overwrite that very
 * operand; nor each other. */
static Status check_results(const Checker *c, OpId id)
{
    const Op *op = op_cget(c->f, id);
    for (uint32_t r = 0; r < op->n_out; r++) {
        const Place *out = &value_cget(c->f, op->out[r])->place;
        for (uint32_t i = 0; i < op->n_in; i++) {
            const Place *in = place_of_all(c, op->in[i]);
            if (!places_meet(out, in)) continue;
            bool same = out->offset == in->offset && out->bytes == in->bytes &&
                        !value_ok(c->whole[op->in[i].i]);
            if (!same || !fused_may_alias(c->scratch, c->f, id, r, i))
                return refuse(c, op, op->in[i], op->out[r].i);
        }
        for (uint32_t q = 0; q < r; q++)
            if (places_meet(out, &value_cget(c->f, op->out[q])->place))
                return diag_error(c->m->diag, loc_pos(c->m, op->loc), E_PLAN_OVERLAP,
                                  "@%s: results %u and %u of %s share bytes", c->f->name, q + 1,
                                  r + 1, op_info(op->code)->name);
    }
    return ZM_OK;
}

/* A pack copies its operands that are not in place one after another and zeroes the gaps: nothing
 * that it still reads may lie there. */
static Status check_pack(const Checker *c, const Op *op)
{
    const Place *whole = &value_cget(c->f, op->out[0])->place;
    const int64_t *start = attrs_find(op->attrs, AT_STARTS)->as.list.at;
    int64_t elem = dtype_bytes(value_type(c->f, op->out[0])->dtype);
    Memory in_place = {0}; /* slots that are not touched */
    for (uint32_t i = 0; i < op->n_in; i++) {
        const Place *in = &value_cget(c->f, op->in[i])->place;
        if (in->offset == whole->offset + start[i] * elem && !value_ok(c->whole[op->in[i].i]))
            memory_set(c->scratch, &in_place, in->offset, in->bytes, (Data){0, in->offset});
    }
    for (uint32_t i = 0; i < op->n_in; i++) {
        const Place *in = place_of_all(c, op->in[i]);
        int64_t lo = in->offset > whole->offset ? in->offset : whole->offset;
        int64_t end = whole->offset + whole->bytes;
        if (in->offset + in->bytes < end) end = in->offset + in->bytes;
        if (lo >= end) continue;
        if (memory_find_other(&in_place, lo, end - lo, (Data){0, lo}))
            return refuse(c, op, op->in[i], op->out[0].i);
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
    memory_set(c->scratch, &c->memory, p->offset, p->bytes, c->data[id.i]);
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
    c->whole[op->out[0].i] = c->whole[from.i];
    return ZM_OK;
}

/* Rank r's part is r times its bytes behind rank 0's, which has the operand's place. */
static Status run_shard(Checker *c, const Op *op)
{
    const Value *in = value_cget(c->f, op->in[0]), *out = value_cget(c->f, op->out[0]);
    if (out->place.offset != in->place.offset)
        return diag_error(c->m->diag, loc_pos(c->m, op->loc), E_PLAN_OVERLAP,
                          "@%s: a shard is not at its operand's place", c->f->name);
    c->data[op->out[0].i] = c->data[op->in[0].i];
    c->whole[op->out[0].i] = all_of(c, op->in[0]);
    return ZM_OK;
}

static void record_parts(Checker *c, ValueId v)
{
    const Place *p = &value_cget(c->f, v)->place;
    for (int64_t at = p->offset, end; at < p->offset + p->bytes; at = end) {
        Data seen = memory_get(&c->memory, at, &end);
        if (end > p->offset + p->bytes) end = p->offset + p->bytes;
        memory_set(c->scratch, &c->parts[v.i], at - p->offset, end - at, seen);
    }
}

static Status refuse_lost(const Checker *c, LocId loc, const Var *v, int64_t at, const char *when)
{
    int64_t end;
    return diag_error(c->m->diag, loc_pos(c->m, loc), E_PLAN_OVERLAP,
                      "@%s: %s overwrites variable @%s %s", c->f->name,
                      origin_text(c, memory_get(&c->memory, at, &end).origin), v->name, when);
}

/* The variable's content. */
static Status run_read(Checker *c, const Op *op)
{
    const Var *v = var_cget(c->m, op_var(c, op));
    const Place *p = &value_cget(c->f, op->out[0])->place;
    if (p->offset != v->place.offset || p->bytes != v->place.bytes)
        return diag_error(c->m->diag, loc_pos(c->m, op->loc), E_PLAN_OVERLAP,
                          "@%s: a reading of @%s is not at the variable's place", c->f->name,
                          v->name);
    int64_t lost = find_lost(c, p->offset, p->bytes), end;
    if (lost >= 0) return refuse_lost(c, op->loc, v, lost, "before it is read");
    Data seen = memory_get(&c->memory, p->offset, &end);
    if (memory_find_other(&c->memory, p->offset, p->bytes, seen) != seen.origin) {
        c->data[op->out[0].i] = (Data){op->out[0].i, 0};
        record_parts(c, op->out[0]);
    } else
        c->data[op->out[0].i] = seen;
    return ZM_OK;
}

/* The variable's bytes hold the operand, made there or copied from elsewhere. */
static Status run_write(Checker *c, const Op *op)
{
    const Place *p = &var_cget(c->m, op_var(c, op))->place;
    const Place *from = place_of_all(c, op->in[0]);
    bool is_there = from->offset == p->offset && !value_ok(c->whole[op->in[0].i]);
    if (!is_there) {
        if (places_meet(p, from)) return refuse(c, op, op->in[0], c->data[op->in[0].i].origin);
        ZM_TRY(check_load(c, op, from));
        ZM_TRY(check_store(c, op, p));
    }
    memory_set(c->scratch, &c->memory, p->offset, p->bytes, c->data[op->in[0].i]);
    memory_set(c->scratch, &c->kept, p->offset, p->bytes, c->data[op->in[0].i]);
    return ZM_OK;
}

static Status run_op(Checker *c, OpId id)
{
    const Op *op = op_cget(c->f, id);
    for (uint32_t i = 0; i < op->n_out; i++) ZM_TRY(check_place(c, op->loc, op->out[i]));
    if (op->code == OP_READ) return run_read(c, op);
    if (op->code == OP_WORKSPACE) {
        ZM_TRY(check_flights(c, op));
        set_result(c, op->out[0]);
        return ZM_OK;
    }
    for (uint32_t i = 0; i < op->n_in; i++) ZM_TRY(check_operand(c, op, op->in[i]));
    switch ((int)op->code) {
    case OP_WAIT: ZM_TRY(run_wait(c, op)); return run_view(c, op, op->in[0]);
    case OP_RESHAPE:
    case OP_AFTER:
    case OP_SLICE: return run_view(c, op, op->in[0]);
    case OP_SHARD: return run_shard(c, op);
    case OP_WRITE: return run_write(c, op);
    default: break;
    }
    ZM_TRY(check_flights(c, op));
    if (op->code == OP_PROBE || op->code == OP_RETURN) return ZM_OK;
    ZM_TRY(op->code == OP_PACK ? check_pack(c, op) : check_results(c, id));
    for (uint32_t i = 0; i < op->n_out; i++) set_result(c, op->out[i]);
    if (is_async(op)) {
        Flight fl = {id, *place_of_all(c, op->in[0]), value_cget(c->f, op->out[0])->place};
        VEC_PUSH(c->scratch, &c->flights, fl);
    }
    return ZM_OK;
}

/* At the end variables hold what they held at first or what was written to them. */
static Status check_kept(const Checker *c)
{
    for (uint32_t i = 1; i < c->m->vars.n; i++) {
        const Var *v = &c->m->vars.at[i];
        if (var_ok(v->in)) continue;
        int64_t lost = find_lost(c, v->place.offset, v->place.bytes);
        if (lost >= 0) return refuse_lost(c, v->loc, v, lost, "for good");
    }
    return ZM_OK;
}

static Status check_function(Arena *scratch, const Module *m, const Func *f)
{
    Checker c = {
        .scratch = scratch, .m = m, .f = f, .data = ARENA_ARRAY(scratch, Data, f->values.n)};
    c.parts = ARENA_ARRAY(scratch, Memory, f->values.n);
    c.whole = ARENA_ARRAY(scratch, ValueId, f->values.n);
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *v = &m->vars.at[i];
        if (var_ok(v->in)) continue;
        Data own = {f->values.n + i, 0};
        memory_set(scratch, &c.memory, v->place.offset, v->place.bytes, own);
        memory_set(scratch, &c.kept, v->place.offset, v->place.bytes, own);
    }
    for (uint32_t i = 0; i < f->params.n; i++) {
        ZM_TRY(check_place(&c, (LocId){0}, f->params.at[i]));
        set_result(&c, f->params.at[i]);
    }
    FOR_OPS(f, op) ZM_TRY(run_op(&c, op));
    if (c.flights.n) {
        const Op *start = op_cget(f, c.flights.at[0].start);
        return diag_error(m->diag, loc_pos(m, start->loc), E_PLAN_OVERLAP,
                          "@%s: %s is never waited for", f->name, op_info(start->code)->name);
    }
    return check_kept(&c);
}

/* A variable has bytes of its own in the arena, or its place in the one that it is part of; inside
 * of a sharded one it has no bytes of its own, and that one's place. */
static Status check_variable(const Module *m, VarId id)
{
    const Var *v = var_cget(m, id);
    int64_t elems;
    const Var *own = var_cget(m, var_storage(m, id, &elems));
    bool is_part = var_ok(v->in) && type_is_sharded(own->type);
    int64_t offset = own->place.offset + (is_part ? 0 : elems * dtype_bytes(own->type->dtype));
    int64_t bytes = type_bytes(is_part ? own->type : v->type);
    if (v->place.bytes == bytes && v->place.offset == offset && offset >= 0 &&
        offset <= m->arena_bytes - bytes)
        return ZM_OK;
    return diag_error(m->diag, loc_pos(m, v->loc), E_PLAN_OVERLAP,
                      "variable @%s has the place %lld + %lld instead of %lld + %lld, in an arena "
                      "of %lld bytes",
                      v->name, (long long)v->place.offset, (long long)v->place.bytes,
                      (long long)offset, (long long)bytes, (long long)m->arena_bytes);
}

static Status check_variables(const Module *m)
{
    for (uint32_t i = 1; i < m->vars.n; i++) ZM_TRY(check_variable(m, (VarId){i}));
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
