/* memcheck_mutants.c -- passes/memory/check.c against wrong plans: places of small planned modules
 * are moved onto others, shifted, shrunk and grown.  A mutant that mem_check accepts must be
 * harmless: a simulation that copies labels byte by byte, op by op, on each rank, finds every
 * operand and every variable as the program means them, and from the start of a collective to its
 * wait no other op stores to its operand or touches its result. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "passes/memory/memory.h"
#include "passes/pass.h"

static const char program[] =
    "module \"m\"\n"
    "mesh {data = 2}\n"
    "var @bucket : f32[32] {kind = param, init = zeros, bucket = true}\n"
    "var @low : f32[16] {kind = param, init = zeros, in = @bucket}\n"
    "var @high : f32[16] {kind = param, init = zeros, in = @bucket, offset = 16}\n"
    "var @m : f32[32] {kind = moment, init = zeros}\n"
    "var @part : f32[data:16] {kind = param, init = zeros, bucket = true}\n"
    "var @in_part : f32[24] {kind = param, init = zeros, in = @part, offset = 8}\n"
    "func @update(%x: f32[16], %y: f32[16]) {\n"
    "  %l = read @low\n"
    "  %a = mul %x, %l\n"
    "  %b = exp %y\n"
    "  %g = pack %a, %b {shape = [40], starts = [0, 20]}\n"
    "  %h = slice %g {sizes = [32], starts = [0]}\n"
    "  %m = read @m\n"
    "  %n = add %m, %h\n"
    "  write @m, %n\n"
    "  %p = read @bucket\n"
    "  %q = sub %p, %n\n"
    "  write @bucket, %q\n"
    "  %r = reduce_sum %b {dims = [0]}\n"
    "  return %r\n"
    "}\n"
    "func @copies(%x: f32[16]) {\n"
    "  %h = read @high\n"
    "  %k = exp %h\n"
    "  %t = tanh %x\n"
    "  write @low, %t\n"
    "  %e = exp %t\n"
    "  write @high, %e\n"
    "  %w = read @bucket\n"
    "  %s = mul %w, %w\n"
    "  %r = reshape %t : f32[4,4]\n"
    "  %c = transpose %r {perm = [1, 0]}\n"
    "  %d = matmul %r, %c\n"
    "  return %k, %s, %d\n"
    "}\n"
    "func @fetch(%x: f32[32]) {\n"
    "  %p = read @part\n"
    "  %g = all_gather %p {mesh = \"data\"}\n"
    "  %a = mul %x, %g\n"
    "  %q = read @bucket\n"
    "  %h = shard %q {mesh = \"data\"}\n"
    "  %k = all_gather %h {mesh = \"data\"}\n"
    "  %b = exp %a\n"
    "  %c = reshape %b : f32[4,8]\n"
    "  %d = reshape %k : f32[8,4]\n"
    "  %r = matmul %c, %d\n"
    "  %n = add %p, %h\n"
    "  write @part, %n\n"
    "  return %r\n"
    "}\n"
    "func @send(%x: f32[24]+data, %y: f32[32]+data, %z: f32[32]) {\n"
    "  %s = pack %x {shape = [32], starts = [4]}\n"
    "  %u = reduce_scatter %s {mesh = \"data\"}\n"
    "  %e = tanh %z\n"
    "  %v = reduce_scatter %y {mesh = \"data\"}\n"
    "  %q = read @bucket\n"
    "  %h = shard %q {mesh = \"data\"}\n"
    "  %l = slice %h {starts = [8], sizes = [8]}\n"
    "  %i = exp %l\n"
    "  %n = add %h, %u\n"
    "  %g = all_gather %n {mesh = \"data\"}\n"
    "  write @bucket, %g\n"
    "  %o = read @m\n"
    "  %w = add %o, %e\n"
    "  write @m, %w\n"
    "  return %v, %i\n"
    "}\n";

/* Waits stand where they are: much is in flight at once. */
static const char in_flight[] =
    "module \"m\"\n"
    "mesh {data = 2}\n"
    "var @part : f32[data:16] {kind = param, init = zeros, bucket = true}\n"
    "var @whole : f32[32] {kind = param, init = zeros, bucket = true}\n"
    "func @late(%x: f32[32]+data, %y: f32[24]+data, %z: f32[32]) {\n"
    "  %p = read @part\n"
    "  %g = all_gather %p {mesh = \"data\", async = true}\n"
    "  %r = reduce_scatter %x {mesh = \"data\", async = true}\n"
    "  %a = exp %z\n"
    "  %s = pack %y {shape = [32], starts = [8]}\n"
    "  %t = reduce_scatter %s {mesh = \"data\", async = true}\n"
    "  %w = read @whole\n"
    "  %h = shard %w {mesh = \"data\"}\n"
    "  %k = all_gather %h {mesh = \"data\", async = true}\n"
    "  %b = reduce_sum %a {dims = [0]}\n"
    "  %gw = wait %g, %p\n"
    "  %c = mul %gw, %a\n"
    "  %d = reduce_sum %c {dims = [0]}\n"
    "  %tw = wait %t, %s\n"
    "  %i = reshape %tw : f32[data:4,4]\n"
    "  %n = add %p, %tw\n"
    "  write @part, %n\n"
    "  %kw = wait %k, %h\n"
    "  %l = slice %kw {starts = [16], sizes = [16]}\n"
    "  %e = exp %l\n"
    "  %rw = wait %r, %x\n"
    "  %o = all_gather %rw {mesh = \"data\", async = true}\n"
    "  %q = tanh %e\n"
    "  %ow = wait %o, %rw\n"
    "  write @whole, %ow\n"
    "  return %b, %d, %i, %q\n"
    "}\n";

typedef struct Byte { /* byte `at` of value or variable `of`; 0: nothing */
    uint32_t of;
    int32_t at;
} Byte;

typedef struct Flight {
    bool is_there;
    int64_t from, n_from, to, n_to; /* bytes of the operand and of the result */
} Flight;

typedef struct Sim {
    Arena *a;
    const Module *m;
    const Func *f;
    Byte *memory;
    int64_t rank;
    int64_t *shift;      /* by value: bytes from its place to this rank's */
    Flight *flight;      /* by value: of the result of a collective */
    bool is_undisturbed; /* what was in flight */
    Byte **want;         /* by value: its bytes */
    Byte **variable;     /* by variable with own bytes */
} Sim;

static bool is_inside(const Module *m, int64_t offset, int64_t bytes)
{
    return offset >= 0 && offset + bytes <= m->arena_bytes;
}

static bool same_bytes(const Byte *x, const Byte *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (x[i].of != y[i].of || x[i].at != y[i].at) return false;
    return true;
}

static Byte *fresh(const Sim *s, uint32_t of, int64_t bytes)
{
    Byte *b = ARENA_ARRAY(s->a, Byte, bytes);
    for (int64_t i = 0; i < bytes; i++) b[i] = (Byte){of, (int32_t)i};
    return b;
}

static int64_t place_of(const Sim *s, ValueId v)
{
    return value_cget(s->f, v)->place.offset + s->shift[v.i];
}

static int64_t bytes_of(const Sim *s, ValueId v)
{
    return type_bytes(value_type(s->f, v));
}

static bool meet(int64_t x, int64_t n, int64_t y, int64_t k)
{
    return x < y + k && y < x + n;
}

/* An op loads or stores [at, at + n). */
static void touch(Sim *s, int64_t at, int64_t n, bool is_store)
{
    for (uint32_t v = 1; v < s->f->values.n; v++) {
        const Flight *fl = &s->flight[v];
        if (!fl->is_there) continue;
        if (meet(at, n, fl->to, fl->n_to)) s->is_undisturbed = false;
        if (is_store && meet(at, n, fl->from, fl->n_from)) s->is_undisturbed = false;
    }
}

static bool make(Sim *s, ValueId v)
{
    int64_t at = place_of(s, v), n = bytes_of(s, v);
    if (!is_inside(s->m, at, n)) return false;
    touch(s, at, n, true);
    s->want[v.i] = fresh(s, v.i, n);
    memcpy(s->memory + at, s->want[v.i], (size_t)n * sizeof(Byte));
    return true;
}

static bool holds(const Sim *s, ValueId v)
{
    int64_t at = place_of(s, v);
    return is_inside(s->m, at, bytes_of(s, v)) &&
           same_bytes(s->memory + at, s->want[v.i], bytes_of(s, v));
}

/* Only at the same place, where the kernel allows it. */
static bool run_kernel(Sim *s, OpId id, const Op *op)
{
    for (uint32_t r = 0; r < op->n_out; r++) {
        int64_t at = place_of(s, op->out[r]), n = bytes_of(s, op->out[r]);
        for (uint32_t i = 0; i < op->n_in; i++) {
            int64_t in = place_of(s, op->in[i]), k = bytes_of(s, op->in[i]);
            if (meet(at, n, in, k) &&
                (at != in || n != k || !fused_may_alias(s->a, s->f, id, r, i)))
                return false;
        }
        for (uint32_t q = 0; q < r; q++)
            if (meet(at, n, place_of(s, op->out[q]), bytes_of(s, op->out[q]))) return false;
    }
    for (uint32_t r = 0; r < op->n_out; r++)
        if (!make(s, op->out[r])) return false;
    if (op->code == OP_FUSED) return true;
    s->flight[op->out[0].i] = (Flight){true, place_of(s, op->in[0]), bytes_of(s, op->in[0]),
                                       place_of(s, op->out[0]), bytes_of(s, op->out[0])};
    return true;
}

static Byte *storage(const Sim *s, const Op *op, const Place **place)
{
    int64_t elems;
    VarId v = var_find(s->m, attr_str(op->attrs, AT_VAR)), own = var_storage(s->m, v, &elems);
    *place = &var_cget(s->m, v)->place;
    return s->variable[own.i] + elems * dtype_bytes(var_cget(s->m, own)->type->dtype);
}

/* Operands in the order of their starts (that of the text), gaps zeroed on the way. */
static bool run_pack(Sim *s, const Op *op)
{
    ValueId out = op->out[0];
    int64_t bytes = bytes_of(s, out), at = place_of(s, out), end = 0;
    if (!is_inside(s->m, at, bytes)) return false;
    touch(s, at, bytes, true);
    const int64_t *start = attrs_find(op->attrs, AT_STARTS)->as.list.at;
    s->want[out.i] = ARENA_ARRAY(s->a, Byte, bytes);
    for (uint32_t i = 0; i < op->n_in; i++) {
        int64_t lo = start[i] * dtype_bytes(value_type(s->f, out)->dtype),
                n = bytes_of(s, op->in[i]);
        memset(s->memory + at + end, 0, (size_t)(lo - end) * sizeof(Byte));
        memmove(s->memory + at + lo, s->memory + place_of(s, op->in[i]), (size_t)n * sizeof(Byte));
        memcpy(s->want[out.i] + lo, s->want[op->in[i].i], (size_t)n * sizeof(Byte));
        end = lo + n;
    }
    memset(s->memory + at + end, 0, (size_t)(bytes - end) * sizeof(Byte));
    return holds(s, out);
}

static bool touches_operands(const Op *op)
{
    return op->code != OP_RESHAPE && op->code != OP_SLICE && op->code != OP_SHARD &&
           op->code != OP_WAIT && op->code != OP_WRITE;
}

/* `bytes` into the operand and, on this rank, `shift` behind its place. */
static bool run_view(Sim *s, const Op *op, int64_t bytes, int64_t shift)
{
    s->want[op->out[0].i] = s->want[op->in[0].i] + bytes + shift;
    s->shift[op->out[0].i] = s->shift[op->in[0].i] + shift;
    return holds(s, op->out[0]);
}

static bool run_op(Sim *s, OpId id)
{
    const Op *op = op_cget(s->f, id);
    const Place *var;
    for (uint32_t i = 0; i < op->n_in; i++) {
        if (!holds(s, op->in[i])) return false;
        if (touches_operands(op)) touch(s, place_of(s, op->in[i]), bytes_of(s, op->in[i]), false);
    }
    switch ((int)op->code) {
    case OP_READ: {
        int64_t n = bytes_of(s, op->out[0]);
        s->want[op->out[0].i] = ARENA_ARRAY(s->a, Byte, n);
        memcpy(s->want[op->out[0].i], storage(s, op, &var), (size_t)n * sizeof(Byte));
        return holds(s, op->out[0]);
    }
    case OP_WRITE: {
        int64_t n = bytes_of(s, op->in[0]);
        memcpy(storage(s, op, &var), s->want[op->in[0].i], (size_t)n * sizeof(Byte));
        if (!is_inside(s->m, var->offset, n)) return false;
        if (place_of(s, op->in[0]) == var->offset) return true; /* made there */
        touch(s, place_of(s, op->in[0]), n, false);
        touch(s, var->offset, n, true);
        memmove(s->memory + var->offset, s->memory + place_of(s, op->in[0]),
                (size_t)n * sizeof(Byte));
        return true;
    }
    case OP_WAIT: s->flight[op->in[0].i].is_there = false; return run_view(s, op, 0, 0);
    case OP_RESHAPE: return run_view(s, op, 0, 0);
    case OP_SHARD: return run_view(s, op, 0, s->rank * bytes_of(s, op->out[0]));
    case OP_SLICE: {
        int64_t start = attrs_find(op->attrs, AT_STARTS)->as.list.at[0]; /* rank 1 here */
        return run_view(s, op, start * dtype_bytes(value_type(s->f, op->out[0])->dtype), 0);
    }
    case OP_PACK: return run_pack(s, op);
    case OP_RETURN: return true;
    default: return run_kernel(s, id, op);
    }
}

static bool is_harmless_in(Arena *a, const Module *m, const Func *f, int64_t rank)
{
    Sim s = {.a = a, .m = m, .f = f, .rank = rank, .is_undisturbed = true};
    s.memory = ARENA_ARRAY(a, Byte, m->arena_bytes + 1);
    s.shift = ARENA_ARRAY(a, int64_t, f->values.n);
    s.flight = ARENA_ARRAY(a, Flight, f->values.n);
    s.want = ARENA_ARRAY(a, Byte *, f->values.n);
    s.variable = ARENA_ARRAY(a, Byte *, m->vars.n);
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *v = &m->vars.at[i];
        if (var_ok(v->in)) continue;
        if (!is_inside(m, v->place.offset, type_bytes(v->type))) return false;
        s.variable[i] = fresh(&s, f->values.n + i, type_bytes(v->type));
        memcpy(s.memory + v->place.offset, s.variable[i],
               (size_t)type_bytes(v->type) * sizeof(Byte));
    }
    for (uint32_t i = 0; i < f->params.n; i++)
        if (!make(&s, f->params.at[i])) return false;
    FOR_OPS(f, op) if (!run_op(&s, op)) return false;
    for (uint32_t i = 1; i < m->vars.n; i++) {
        const Var *v = &m->vars.at[i];
        if (!var_ok(v->in) &&
            !same_bytes(s.memory + v->place.offset, s.variable[i], type_bytes(v->type)))
            return false;
    }
    return s.is_undisturbed;
}

static bool is_harmless(const Module *m)
{
    Arena a = {0};
    bool ok = true;
    for (uint32_t i = 0; i < m->funcs.n; i++)
        for (int64_t rank = 0; rank < m->mesh[MESH_DATA]; rank++)
            ok &= is_harmless_in(&a, m, m->funcs.at[i], rank);
    arena_free(&a);
    return ok;
}

/* ---- mutants ---- */

typedef struct Count {
    int mutants, refused, harmless_refused;
} Count;

static void judge(Module *m, Count *n)
{
    Arena a = {0};
    bool accepted = mem_check(m, &a) == ZM_OK, harmless = is_harmless(m);
    ZM_CHECK(!accepted || harmless);
    n->mutants++;
    n->refused += !accepted;
    n->harmless_refused += !accepted && harmless;
    arena_free(&a);
}

static bool is_view(const Func *f, OpId op)
{
    if (!op_ok(op)) return false;
    OpCode code = op_cget(f, op)->code;
    return code == OP_RESHAPE || code == OP_SLICE || code == OP_WAIT || code == OP_SHARD;
}

static ValueId root_of(const Func *f, ValueId v)
{
    for (OpId def = value_cget(f, v)->def; is_view(f, def); def = value_cget(f, v)->def)
        v = op_cget(f, def)->in[0];
    return v;
}

/* Not what passes left behind. */
static bool is_planned(const Func *f, uint32_t value)
{
    return f->values.at[value].place.bytes > 0;
}

/* Moves a value with its views by delta, or alone. */
static void move(Func *f, ValueId v, int64_t delta, bool with_views)
{
    for (uint32_t i = 1; i < f->values.n; i++)
        if (is_planned(f, i) && (i == v.i || (with_views && root_of(f, (ValueId){i}).i == v.i)))
            f->values.at[i].place.offset += delta;
}

static void mutate_value(Module *m, Func *f, ValueId v, Count *n)
{
    static const int64_t shift[] = {-128, -64, -4, 4, 32, 64, 128};
    for (int with_views = 0; with_views < 2; with_views++) {
        for (size_t k = 0; k < sizeof shift / sizeof *shift; k++) {
            move(f, v, shift[k], with_views);
            judge(m, n);
            move(f, v, -shift[k], with_views);
        }
        for (uint32_t j = 1; j < f->values.n; j++) {
            if (!is_planned(f, j)) continue;
            int64_t delta = f->values.at[j].place.offset - f->values.at[v.i].place.offset;
            move(f, v, delta, with_views);
            judge(m, n);
            move(f, v, -delta, with_views);
        }
    }
    Place *p = &f->values.at[v.i].place, kept = *p;
    const Place sized[] = {{.offset = p->offset, .bytes = p->bytes / 2},
                           {.offset = p->offset, .bytes = p->bytes + 4},
                           {.offset = -64, .bytes = p->bytes},
                           {.offset = m->arena_bytes - p->bytes + 4, .bytes = p->bytes}};
    for (size_t k = 0; k < sizeof sized / sizeof *sized; k++) {
        p->offset = sized[k].offset;
        p->bytes = sized[k].bytes;
        int before = n->refused;
        judge(m, n);
        ZM_CHECK(n->refused == before + 1);
        *p = kept;
    }
}

static void mutate_variable(Module *m, Var *v, Count *n)
{
    static const int64_t shift[] = {-64, -4, 4, 64, 128};
    for (size_t k = 0; k < sizeof shift / sizeof *shift; k++) {
        v->place.offset += shift[k];
        judge(m, n);
        v->place.offset -= shift[k];
    }
}

static void check_module(const char *text, size_t n_text, const char *passes)
{
    Arena arena = {0};
    SourceSet sources = {.arena = &arena};
    Diag diag = {.arena = &arena, .sources = &sources};
    Module *m = module_parse(&arena, &sources, &diag, "t.zir", text, n_text);
    PipelineRun run = {.check_changed = true};
    if (!m || pipeline_run(m, passes, &run) != ZM_OK) {
        diag_print(&diag, stderr);
        exit(1);
    }
    ZM_CHECK(is_harmless(m));
    Count n = {0};
    for (uint32_t i = 0; i < m->funcs.n; i++) {
        Func *f = m->funcs.at[i];
        for (uint32_t k = 0; k < f->params.n; k++) mutate_value(m, f, f->params.at[k], &n);
        FOR_OPS(f, op)
        for (uint32_t k = 0; k < op_cget(f, op)->n_out; k++)
            mutate_value(m, f, op_cget(f, op)->out[k], &n);
    }
    for (uint32_t i = 1; i < m->vars.n; i++) mutate_variable(m, &m->vars.at[i], &n);
    ZM_CHECK(n.mutants > 500 && n.refused > n.mutants / 2 && n.harmless_refused < n.refused / 4);
    printf("%d mutants, %d refused (%d of these harmless)\n", n.mutants, n.refused,
           n.harmless_refused);
    arena_free(&arena);
}

int main(void)
{
    check_module(program, sizeof program - 1, "fuse,schedule,memplan");
    check_module(in_flight, sizeof in_flight - 1, "fuse,memplan");
    return 0;
}
