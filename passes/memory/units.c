/* units.c -- which values share storage (memory.h).
 *
 * Every value starts as a unit of its own; then, in this order, units are merged where nothing is
 * copied by it:
 *   1. views: reshape, slices that are one contiguous range, `shard`, and `wait`, which shows the
 * collective's result;
 *   2. reads: the variable's storage;
 *   3. operands of a pack that fill their unit: placed inside the pack's, with what they are made
 * over;
 *   4. values written to a variable: made in the variable's storage, when no older reading of it is
 * used later, with what they are made over;
 *   5. results of a kernel over an operand that dies there.
 * What cannot be merged is copied at run time by the `pack` or `write` itself.
 *
 * A `shard` lies at its operand's place, at rank 0's: which of the operand's bytes it is depends on
 * the rank, so it counts as all of them.  The result of a collective begins where that starts: a
 * gathered value may be made in a variable only when older readings were used up by then.
 */
#include "passes/collective.h"
#include "passes/memory/memory.h"

#include <string.h>

typedef struct WriteAt { /* bytes [lo, lo + n) of variable unit `home` */
    int32_t pos;
    uint32_t home;
    int64_t lo, n;
} WriteAt;

typedef struct Build {
    Arena *scratch;
    const Func *f;
    Units u;
    uint32_t *var_unit;  /* unit of a variable's storage, by VarId.i; 0 = none yet */
    bool *is_plain;      /* by unit: one kernel result and its views, not merged by rules 3 to 5 */
    uint32_t *member;    /* by unit: its first value, 0 = none */
    uint32_t *next;      /* by value: the next value of its unit */
    ValueId *whole;      /* by value: for views of a shard the operand of `shard` */
    OpId *op_at;         /* by position */
    VEC(WriteAt) writes; /* in program order */
} Build;

/* ---- positions and lifetimes of values ---- */

static void find_lifetimes(Build *b)
{
    const Func *f = b->f;
    b->u.n_ops = (int32_t)func_n_ops(f);
    b->u.def_pos = ARENA_ARRAY(b->scratch, int32_t, f->values.n);
    b->u.last_use = ARENA_ARRAY(b->scratch, int32_t, f->values.n);
    b->op_at = ARENA_ARRAY(b->scratch, OpId, (size_t)b->u.n_ops + 1);
    int32_t pos = 0;
    FOR_OPS(f, op)
    {
        const Op *o = op_cget(f, op);
        b->op_at[pos] = op;
        for (uint32_t i = 0; i < o->n_in; i++)
            b->u.last_use[o->in[i].i] = o->code == OP_RETURN ? b->u.n_ops : pos;
        for (uint32_t i = 0; i < o->n_out; i++)
            b->u.def_pos[o->out[i].i] = b->u.last_use[o->out[i].i] = pos;
        pos++;
    }
}

/* ---- units ---- */

static uint32_t unit_new(Build *b, UnitKind kind, ValueId v, int64_t bytes)
{
    uint32_t id = b->u.n++;
    int32_t from = value_ok(v) ? b->u.def_pos[v.i] : 0;
    b->u.at[id] = (Unit){.kind = kind, .bytes = bytes, .from = from, .to = from, .name_value = v};
    b->is_plain[id] = kind == UNIT_TEMP;
    return id;
}

static void value_in_unit(Build *b, ValueId v, uint32_t unit, int64_t offset)
{
    b->u.of[v.i] = (struct UnitOf){unit, offset};
    b->next[v.i] = b->member[unit];
    b->member[unit] = v.i;
}

static void value_in_new_unit(Build *b, UnitKind kind, ValueId v)
{
    value_in_unit(b, v, unit_new(b, kind, v, type_bytes(value_type(b->f, v))), 0);
}

static uint32_t storage_unit(Build *b, VarId v, int64_t *offset_bytes)
{
    int64_t elems;
    VarId own = var_storage(b->f->m, v, &elems);
    const Type *t = var_cget(b->f->m, own)->type;
    *offset_bytes = elems * dtype_bytes(t->dtype);
    if (!b->var_unit[own.i]) {
        uint32_t id = unit_new(b, UNIT_VAR, (ValueId){0}, type_bytes(t));
        b->u.at[id].var = own;
        b->u.at[id].to = b->u.n_ops;
        b->var_unit[own.i] = id + 1;
    }
    return b->var_unit[own.i] - 1;
}

static VarId op_var(const Build *b, const Op *op)
{
    return var_find(b->f->m, attr_str(op->attrs, AT_VAR));
}

/* Byte offset of a slice that is one contiguous range of its operand; -1 when it is not. */
static int64_t slice_offset(const Func *f, const Op *op)
{
    const Type *in = value_type(f, op->in[0]);
    const int64_t *start = attrs_find(op->attrs, AT_STARTS)->as.list.at;
    const Type *out = value_type(f, op->out[0]);
    int64_t offset = 0;
    bool inner_whole = true; /* all dimensions inside of i are taken whole */
    int64_t stride = dtype_bytes(in->dtype);
    for (int i = in->rank - 1; i >= 0; i--) {
        if (!inner_whole && out->dim[i] != 1) return -1;
        if (out->dim[i] != in->dim[i]) inner_whole = false;
        offset += start[i] * stride;
        stride *= in->dim[i];
    }
    return offset;
}

/* The bytes of its unit that v may stand for, on whatever rank. */
static int64_t extent(const Build *b, uint32_t v, int64_t *from)
{
    if (value_ok(b->whole[v])) v = b->whole[v].i;
    *from = b->u.of[v].offset;
    return type_bytes(b->f->values.at[v].type);
}

static bool is_view(const Func *f, const Op *op)
{
    return op->code == OP_RESHAPE || op->code == OP_AFTER || op->code == OP_WAIT ||
           op->code == OP_SHARD || (op->code == OP_SLICE && slice_offset(f, op) >= 0);
}

static void assign_view(Build *b, const Op *op)
{
    ValueId in = op->in[0], out = op->out[0];
    struct UnitOf whole = b->u.of[in.i];
    int64_t start = op->code == OP_SLICE ? slice_offset(b->f, op) : 0;
    value_in_unit(b, out, whole.unit, whole.offset + start);
    b->whole[out.i] = b->whole[in.i];
    if (op->code == OP_SHARD && !value_ok(b->whole[in.i])) b->whole[out.i] = in;
}

static void assign_first(Build *b, const Op *op)
{
    if (op->code == OP_READ) {
        int64_t offset;
        uint32_t unit = storage_unit(b, op_var(b, op), &offset);
        value_in_unit(b, op->out[0], unit, offset);
        return;
    }
    if (is_view(b->f, op)) {
        assign_view(b, op);
        return;
    }
    for (uint32_t i = 0; i < op->n_out; i++) {
        value_in_new_unit(b, UNIT_TEMP, op->out[i]);
        if (op->code == OP_WORKSPACE)
            b->is_plain[b->u.of[op->out[i].i].unit] = false; /* used while results are made */
    }
}

/* Moves every value of unit `from` into `into` at `delta` bytes. */
static void merge(Build *b, uint32_t from, uint32_t into, int64_t delta)
{
    for (uint32_t v = b->member[from], next; v; v = next) {
        next = b->next[v];
        value_in_unit(b, (ValueId){v}, into, b->u.of[v].offset + delta);
    }
    b->member[from] = 0;
    b->u.at[from].bytes = 0; /* dropped by finish_units */
    b->is_plain[into] = false;
}

static bool fills_plain_unit(const Build *b, ValueId v)
{
    uint32_t unit = b->u.of[v.i].unit;
    return b->is_plain[unit] && b->u.of[v.i].offset == 0 &&
           b->u.at[unit].bytes == type_bytes(value_type(b->f, v));
}

/* ---- writes ---- */

static bool ranges_meet(int64_t lo1, int64_t n1, int64_t lo2, int64_t n2)
{
    return lo1 < lo2 + n2 && lo2 < lo1 + n1;
}

/* First position at which anything of the unit is written. */
static int32_t unit_first_def(const Build *b, uint32_t unit)
{
    int32_t first = b->u.n_ops;
    for (uint32_t v = b->member[unit]; v; v = b->next[v])
        if (b->u.def_pos[v] < first) first = b->u.def_pos[v];
    return first;
}

static void find_writes(Build *b)
{
    for (int32_t p = 0; p < b->u.n_ops; p++) {
        const Op *op = op_cget(b->f, b->op_at[p]);
        if (op->code != OP_WRITE) continue;
        WriteAt w = {.pos = p, .n = type_bytes(value_type(b->f, op->in[0]))};
        w.home = storage_unit(b, op_var(b, op), &w.lo);
        VEC_PUSH(b->scratch, &b->writes, w);
    }
}

/* Does a write of other bytes of the range come between? */
static bool is_written_between(const Build *b, uint32_t home, int64_t lo, int64_t n, int32_t from,
                               int32_t to)
{
    for (uint32_t i = 0; i < b->writes.n; i++) {
        const WriteAt *w = &b->writes.at[i];
        if (w->pos > from && w->pos < to && w->home == home && ranges_meet(w->lo, w->n, lo, n))
            return true;
    }
    return false;
}

/* May value x, whose storage would be [lo, lo + n) of variable unit `home`, be made there? Readings
 * of these bytes that are older than x must have been used up; the op that makes x may read them
 * itself where its kernel allows.  A collective makes x from its start on. */
static bool may_live_in_variable(Build *b, ValueId x, uint32_t home, int64_t lo, int32_t write_pos)
{
    const Func *f = b->f;
    int64_t n = type_bytes(value_type(f, x));
    int32_t made = unit_first_def(b, b->u.of[x.i].unit);
    const Op *maker = op_cget(f, b->op_at[made]);
    if (maker->code != OP_FUSED && !op_takes_attr(maker->code, AT_ASYNC)) return false;
    uint32_t result = 0;
    while (result < maker->n_out && maker->out[result].i != x.i &&
           b->u.of[maker->out[result].i].unit != b->u.of[x.i].unit)
        result++;
    if (result == maker->n_out || is_written_between(b, home, lo, n, made, write_pos)) return false;
    for (uint32_t v = b->member[home]; v; v = b->next[v]) {
        int64_t at, nv = extent(b, v, &at);
        if (!ranges_meet(at, nv, lo, n)) continue;
        if (b->u.def_pos[v] > write_pos || b->u.last_use[v] < made)
            continue; /* a later reading, or used up */
        if (b->u.def_pos[v] > made || b->u.last_use[v] > made) return false;
        if (at != lo || nv != n || value_ok(b->whole[v])) return false;
        for (uint32_t i = 0; i < maker->n_in; i++)
            if (maker->in[i].i == v && !fused_may_alias(b->scratch, f, b->op_at[made], result, i))
                return false;
    }
    return true;
}

static int32_t unit_last_use(const Build *b, uint32_t unit)
{
    int32_t last = 0;
    for (uint32_t v = b->member[unit]; v; v = b->next[v])
        if (b->u.last_use[v] > last) last = b->u.last_use[v];
    return last;
}

/* May result r of the op be made over operand `in`, also where other operands are views of it? */
static bool may_overwrite(const Build *b, OpId id, uint32_t r, uint32_t in)
{
    const Op *op = op_cget(b->f, id);
    uint32_t unit = b->u.of[op->in[in].i].unit;
    for (uint32_t i = 0; i < op->n_in; i++) {
        if (b->u.of[op->in[i].i].unit != unit) continue;
        if (value_ok(b->whole[op->in[i].i]) || !fused_may_alias(b->scratch, b->f, id, r, i))
            return false;
    }
    return true;
}

/* The operand that dies where x is made and whose bytes x may take over; none: no such operand. */
static ValueId dying_operand(const Build *b, ValueId x)
{
    OpId maker = value_cget(b->f, x)->def;
    const Op *op = op_cget(b->f, maker);
    int32_t pos = b->u.def_pos[x.i];
    for (uint32_t i = 0; op->code == OP_FUSED && i < op->n_in; i++) {
        ValueId in = op->in[i];
        if (value_type(b->f, in) != value_type(b->f, x) || !fills_plain_unit(b, in)) continue;
        if (unit_last_use(b, b->u.of[in.i].unit) != pos) continue;
        if (may_overwrite(b, maker, value_cget(b->f, x)->index, i)) return in;
    }
    return (ValueId){0};
}

/* Makes the written value in the variable's storage, and what it is made over in turn. */
static void place_write(Build *b, const Op *write, int32_t pos)
{
    int64_t lo;
    uint32_t home = storage_unit(b, op_var(b, write), &lo);
    ValueId x = write->in[0];
    if (b->u.last_use[x.i] > pos) return;
    while (value_ok(x) && fills_plain_unit(b, x) && may_live_in_variable(b, x, home, lo, pos)) {
        ValueId under = op_ok(value_cget(b->f, x)->def) ? dying_operand(b, x) : (ValueId){0};
        merge(b, b->u.of[x.i].unit, home, lo);
        x = under;
    }
}

/* A pack lives from its first operand on.  What a placed operand is made over joins it only where
 * that is most of the pack: else the rest of the pack would be taken early for little.  An operand
 * with later readers (the gradient of a bias of one row is that row) is copied: from the pack on
 * its bytes are the pack's. */
static void place_in_pack(Build *b, const Op *pack)
{
    uint32_t into = b->u.of[pack->out[0].i].unit;
    int32_t pos = b->u.def_pos[pack->out[0].i];
    const int64_t *start = attrs_find(pack->attrs, AT_STARTS)->as.list.at;
    int64_t elem = dtype_bytes(value_type(b->f, pack->out[0])->dtype);
    b->is_plain[into] = false;
    for (uint32_t i = 0; i < pack->n_in; i++) {
        ValueId x = pack->in[i];
        bool is_most = 2 * type_bytes(value_type(b->f, x)) >= b->u.at[into].bytes;
        while (value_ok(x) && fills_plain_unit(b, x) && b->u.of[x.i].unit != into &&
               unit_last_use(b, b->u.of[x.i].unit) <= pos) {
            ValueId under =
                is_most && op_ok(value_cget(b->f, x)->def) ? dying_operand(b, x) : (ValueId){0};
            merge(b, b->u.of[x.i].unit, into, start[i] * elem);
            x = under;
        }
    }
}

/* ---- results over dying operands ---- */

/* Does another result of the op lie in the unit already? */
static bool holds_result(const Build *b, const Op *op, uint32_t unit)
{
    for (uint32_t i = 0; i < op->n_out; i++)
        if (b->u.of[op->out[i].i].unit == unit) return true;
    return false;
}

static void reuse_operands(Build *b, OpId id, int32_t pos)
{
    const Op *op = op_cget(b->f, id);
    if (op->code != OP_FUSED) return;
    for (uint32_t r = 0; r < op->n_out; r++)
        for (uint32_t i = 0; i < op->n_in; i++) {
            ValueId out = op->out[r], in = op->in[i];
            if (value_type(b->f, out) != value_type(b->f, in) || b->u.last_use[in.i] != pos)
                continue;
            if (!fills_plain_unit(b, out) || !fills_plain_unit(b, in)) continue;
            if (unit_last_use(b, b->u.of[in.i].unit) != pos || !may_overwrite(b, id, r, i))
                continue;
            uint32_t into = b->u.of[in.i].unit;
            if (holds_result(b, op, into)) continue; /* one that nobody uses dies here, too */
            merge(b, b->u.of[out.i].unit, into, 0);
            b->is_plain[into] = true; /* chains go on */
            break;
        }
}

/* ---- categories ---- */

const char *mem_var_category(VarKind kind)
{
    switch (kind) {
    case VK_PARAM: return "params";
    case VK_MASTER: return "master";
    case VK_MOMENT: return "optimizer";
    case VK_GRAD: return "grads";
    case VK_SCALAR: return "other";
    case N_VAR_KIND: break;
    }
    ZM_UNREACHABLE("variable kind");
}

static void name_value(Build *b, ValueId v, const char *cat)
{
    Unit *u = &b->u.at[b->u.of[v.i].unit];
    if (u->kind == UNIT_TEMP) u->cat = cat;
}

static bool has_accumulators(const Module *m)
{
    for (uint32_t i = 1; i < m->vars.n; i++)
        if (m->vars.at[i].kind == VK_GRAD) return true;
    return false;
}

static bool gathers_grads(const Func *f, const Op *op)
{
    return op->code == OP_ALL_GATHER && strcmp(collective_what(f->m, op), "grads") == 0;
}

static bool func_gathers_grads(const Func *f)
{
    FOR_OPS(f, op)
    if (gathers_grads(f, op_cget(f, op))) return true;
    return false;
}

/* What reductions and gathers work on.  Gradients are what accumulators hold; where there are none,
 * what the update reads: gathered ones, else those that `probe` shows.  What is on its way to be
 * reduced is workspace. */
static void name_comm(Build *b, const Op *o, bool has_sums)
{
    if (o->code == OP_PACK && value_type(b->f, o->out[0])->partial)
        name_value(b, o->out[0], "workspace");
    if (o->code == OP_REDUCE_SCATTER) {
        name_value(b, o->in[0], "workspace");
        name_value(b, o->out[0], "workspace");
    }
    if (o->code != OP_ALL_GATHER) return;
    bool is_grad = gathers_grads(b->f, o);
    name_value(b, o->in[0], is_grad ? "workspace" : "gathered");
    name_value(b, o->out[0], is_grad && !has_sums ? "grads" : "gathered");
}

static void name_units(Build *b)
{
    const Func *f = b->f;
    for (uint32_t i = 0; i < b->u.n; i++) {
        Unit *u = &b->u.at[i];
        u->cat = u->kind == UNIT_INPUT ? "inputs"
                 : u->kind == UNIT_VAR ? mem_var_category(var_cget(f->m, u->var)->kind)
                                       : "activations";
    }
    bool has_sums = has_accumulators(f->m), reads_probed = !has_sums && !func_gathers_grads(f);
    FOR_OPS(f, op) name_comm(b, op_cget(f, op), has_sums);
    FOR_OPS(f, op)
    {
        const Op *o = op_cget(f, op);
        if (o->code == OP_WORKSPACE) name_value(b, o->out[0], "workspace");
        for (uint32_t i = 0; o->code == OP_PROBE && reads_probed && i + 1 < o->n_in; i++)
            name_value(b, o->in[i], "grads");
    }
}

/* Lifetimes of units; drops merged ones. */
static void finish_units(Build *b)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->u.n; i++) {
        Unit u = b->u.at[i];
        if (u.bytes == 0) continue;
        for (uint32_t v = b->member[i]; v; v = b->next[v]) {
            b->u.of[v].unit = n;
            if (u.kind == UNIT_VAR) continue;
            if (b->u.def_pos[v] < u.from) u.from = b->u.def_pos[v];
            if (b->u.last_use[v] > u.to) u.to = b->u.last_use[v];
        }
        b->u.at[n++] = u;
    }
    b->u.n = n;
    name_units(b);
}

Units units_build(Arena *scratch, const Func *f)
{
    Build b = {.scratch = scratch, .f = f};
    find_lifetimes(&b);
    uint32_t most = f->values.n + f->m->vars.n;
    b.u.at = ARENA_ARRAY(scratch, Unit, most);
    b.u.of = ARENA_ARRAY(scratch, struct UnitOf, f->values.n);
    b.var_unit = ARENA_ARRAY(scratch, uint32_t, f->m->vars.n);
    b.is_plain = ARENA_ARRAY(scratch, bool, most);
    b.member = ARENA_ARRAY(scratch, uint32_t, most);
    b.next = ARENA_ARRAY(scratch, uint32_t, f->values.n);
    b.whole = ARENA_ARRAY(scratch, ValueId, f->values.n);
    for (uint32_t i = 0; i < f->params.n; i++) value_in_new_unit(&b, UNIT_INPUT, f->params.at[i]);
    for (int32_t p = 0; p < b.u.n_ops; p++) assign_first(&b, op_cget(f, b.op_at[p]));
    for (int32_t p = 0; p < b.u.n_ops; p++)
        if (op_cget(f, b.op_at[p])->code == OP_PACK) place_in_pack(&b, op_cget(f, b.op_at[p]));
    find_writes(&b);
    for (int32_t p = 0; p < b.u.n_ops; p++)
        if (op_cget(f, b.op_at[p])->code == OP_WRITE) place_write(&b, op_cget(f, b.op_at[p]), p);
    for (int32_t p = 0; p < b.u.n_ops; p++) reuse_operands(&b, b.op_at[p], p);
    finish_units(&b);
    return b.u;
}

int64_t units_lower_bound(Arena *scratch, const Units *u, int32_t *at)
{
    int64_t *delta = ARENA_ARRAY(scratch, int64_t, (size_t)u->n_ops + 2);
    for (uint32_t i = 0; i < u->n; i++) {
        if (u->at[i].kind == UNIT_VAR) continue;
        int64_t bytes = (u->at[i].bytes + MEM_ALIGN - 1) / MEM_ALIGN * MEM_ALIGN;
        delta[u->at[i].from] += bytes;
        delta[u->at[i].to + 1] -= bytes;
    }
    int64_t live = 0, most = 0;
    *at = 0;
    for (int32_t p = 0; p <= u->n_ops; p++) {
        live += delta[p];
        if (live > most) {
            most = live;
            *at = p;
        }
    }
    return most;
}
