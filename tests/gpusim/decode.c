/* decode.c -- an entry of PTX becomes code: slots for registers and constants, calls expanded in
 * place, branches resolved.  The families of instructions are in decode_*.c. */
#include "tests/gpusim/decode.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 8 };

ZM_PRINTF(2, 3) _Noreturn void decode_fail(Decoder *d, const char *fmt, ...)
{
    va_list args;
    int n = d->now ? snprintf(d->error, d->error_size, "PTX line %u: '%s': ", d->now->ptx_line,
                              d->now->op)
                   : 0;
    va_start(args, fmt);
    vsnprintf(d->error + n, d->error_size - (size_t)n, fmt, args);
    va_end(args);
    longjmp(d->failed, 1);
}

/* ---- opcodes ---- */

void parts_split(Parts *p, const char *op)
{
    p->n = 0;
    snprintf(p->text, sizeof p->text, "%s", op);
    for (char *save = NULL, *s = strtok_r(p->text, ".", &save); s && p->n < MAX_PARTS;
         s = strtok_r(NULL, ".", &save))
        p->at[p->n++] = s;
}

bool parts_has(const Parts *p, const char *name)
{
    for (int i = 1; i < p->n; i++)
        if (strcmp(p->at[i], name) == 0) return true;
    return false;
}

bool parts_take(Parts *p, const char *name)
{
    for (int i = 1; i < p->n; i++) {
        if (strcmp(p->at[i], name) != 0) continue;
        memmove(&p->at[i], &p->at[i + 1], (size_t)(p->n - i - 1) * sizeof p->at[0]);
        p->n--;
        return true;
    }
    return false;
}

const char *parts_last(const Parts *p)
{
    return p->at[p->n - 1];
}

void parts_key(const Parts *p, char *out, size_t n)
{
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < p->n && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, i ? ".%s" : "%s", p->at[i]);
}

uint8_t type_size(Decoder *d, const char *type)
{
    if (strcmp(type, "pred") == 0) return 0;
    if (strcmp(type, "bf16") == 0 || strcmp(type, "f16") == 0) return 2;
    if (strcmp(type, "f16x2") == 0 || strcmp(type, "bf16x2") == 0 || strcmp(type, "tf32") == 0)
        return 4;
    int bits = strchr("bufs", type[0]) ? atoi(type + 1) : 0;
    if (bits != 8 && bits != 16 && bits != 32 && bits != 64 && bits != 128)
        decode_fail(d, "type '%s' is not known", type);
    return (uint8_t)(bits / 8);
}

/* ---- slots ---- */

uint32_t new_slot(Decoder *d, uint8_t bytes)
{
    uint32_t at = d->code->n_reg_bytes;
    d->code->n_reg_bytes += bytes == 8 ? SLOT_BYTES : SLOT_BYTES / 2;
    return at;
}

uint32_t constant_slot(Decoder *d, uint64_t value, uint8_t bytes)
{
    int width = bytes == 0 ? 3 : bytes == 8 ? 2 : bytes == 4 ? 1 : 0;
    if (bytes == 0) value = value != 0;
    if (bytes == 4) value &= 0xffffffffu;
    if (bytes == 2) value &= 0xffffu;
    uint32_t found = map_get(&d->constants[width], value);
    if (found != MAP_NONE) return d->code->constants.at[found].slot;
    Constant c = {new_slot(d, bytes), bytes, value};
    map_put(&d->constants[width], value, d->code->constants.n);
    VEC_PUSH(d->a, &d->code->constants, c);
    return c.slot;
}

static const char *const special_names[N_SPECIAL] = {
    "%tid.x",          "%tid.y",       "%tid.z",
    "%laneid",         "%warpid",      "%ctaid.x",
    "%ctaid.y",        "%ctaid.z",     "%ntid.x",
    "%ntid.y",         "%ntid.z",      "%nctaid.x",
    "%nctaid.y",       "%nctaid.z",    "%nwarpid",
    "%lanemask_eq",    "%lanemask_lt", "%lanemask_le",
    "%lanemask_gt",    "%lanemask_ge", "%dynamic_smem_size",
    "%total_smem_size"};

static uint32_t special_slot(Decoder *d, const char *name)
{
    if (strcmp(name, "WARP_SZ") == 0) return constant_slot(d, LANES, 4);
    for (int i = 0; i < N_SPECIAL; i++) {
        if (strcmp(special_names[i], name) != 0) continue;
        uint32_t *slot = &d->code->special[i];
        if (*slot == UINT32_MAX) *slot = new_slot(d, 4);
        return *slot;
    }
    decode_fail(d, "the simulator has no register '%s'", name);
}

static const Frame *owner_of(const Frame *f, const PtxOperand *names, PtxSymbol *const *formals,
                             const PtxSymbol **s)
{
    for (uint32_t i = 0; names && i < names->n; i++) {
        if (formals[i] != *s) continue;
        *s = f->caller->f->operands.at[names->first + i].symbol;
        return f->caller;
    }
    return NULL;
}

/* Address of a symbol within its space.  A parameter of an expanded call is the caller's variable.
 */
static uint64_t symbol_address(Decoder *d, const PtxSymbol *s)
{
    const Frame *f = d->frame;
    for (const Frame *up = f; up && up->caller; f = up) {
        up = owner_of(f, f->args, f->f->params.at, &s);
        if (!up) up = owner_of(f, f->results, f->f->results.at, &s);
        if (!up) break;
    }
    if (s->space == SPACE_GLOBAL) return s->address;
    if (s->space == SPACE_LOCAL) return f->local_base + s->offset;
    if (s->space == SPACE_PARAM) return s->offset;
    if (s->is_dynamic) return d->code->dynamic_offset;
    return s->is_module ? s->offset : f->shared_base + s->offset;
}

const PtxOperand *operand(Decoder *d, uint32_t n)
{
    if (n >= d->now->n_ops) decode_fail(d, "operand %u is missing", n + 1);
    return &d->frame->f->operands.at[d->now->first + n];
}

bool has_operand(const Decoder *d, uint32_t n)
{
    return n < d->now->n_ops;
}

uint8_t operand_bytes(Decoder *d, const PtxOperand *o)
{
    if (o->kind == OPD_SPECIAL) return 4;
    bool is_reg = (o->kind == OPD_REG || o->kind == OPD_PAIR) && o->reg >= 0;
    return is_reg ? d->frame->f->reg_bytes.at[o->reg] : 0;
}

static uint32_t register_slot(Decoder *d, int32_t reg, uint8_t bytes)
{
    uint8_t have = d->frame->f->reg_bytes.at[reg];
    if (bytes != ANY_BYTES && have != bytes)
        decode_fail(d, "a register of %d bits where %d are taken", have * 8, bytes * 8);
    return d->frame->slots[reg];
}

uint32_t source(Decoder *d, const PtxOperand *o, uint8_t bytes)
{
    switch (o->kind) {
    case OPD_REG: return register_slot(d, o->reg, bytes);
    case OPD_IMM: return constant_slot(d, o->imm, bytes == ANY_BYTES ? 8 : bytes);
    case OPD_SPECIAL: return special_slot(d, o->name);
    case OPD_SYMBOL:
        return constant_slot(d, symbol_address(d, o->symbol) + o->imm,
                             bytes == ANY_BYTES ? 8 : bytes);
    case OPD_PAIR:
    case OPD_ADDRESS:
    case OPD_VECTOR:
    case OPD_LABEL:
    case OPD_NAMES:
    case OPD_FUNC:
    case OPD_SINK: break;
    }
    decode_fail(d, "an operand of a kind that it does not take");
}

uint32_t target_slot(Decoder *d, const PtxOperand *o, uint8_t bytes)
{
    if (o->kind == OPD_SINK || (o->kind == OPD_PAIR && o->reg < 0)) return new_slot(d, 8);
    if (o->kind != OPD_REG && o->kind != OPD_PAIR) decode_fail(d, "the result is no register");
    return register_slot(d, o->reg, bytes);
}

/* ---- emitting ---- */

Insn *emit(Decoder *d, ExecFn fn)
{
    Insn in = {.fn = fn,
               .kind = INSN_PLAIN,
               .loc = d->now->loc,
               .ptx_line = d->now->ptx_line,
               .text = d->now->op,
               .members = UINT32_MAX,
               .d2 = UINT32_MAX,
               .e = UINT32_MAX};
    if (d->now->guard >= 0) {
        in.has_guard = true;
        in.guard = d->frame->slots[d->now->guard];
        in.is_not = d->now->guard_not;
    }
    VEC_PUSH(d->a, &d->code->insns, in);
    return &d->code->insns.at[d->code->insns.n - 1];
}

void set_address(Decoder *d, Insn *in, const PtxOperand *o)
{
    if (o->kind != OPD_ADDRESS) decode_fail(d, "an address is expected");
    in->imm = (int64_t)o->imm;
    in->address_bytes = 8;
    if (o->reg >= 0) {
        in->address_bytes = d->frame->f->reg_bytes.at[o->reg];
        in->a = d->frame->slots[o->reg];
    } else {
        in->a = constant_slot(d, o->symbol ? symbol_address(d, o->symbol) : 0, 8);
    }
}

/* One register, or the elements of a { }. */
void set_vector(Decoder *d, Insn *in, const PtxOperand *o, bool is_written)
{
    const PtxOperand *elems = o;
    uint32_t n = 1;
    if (o->kind == OPD_VECTOR) {
        elems = &d->frame->f->operands.at[o->first];
        n = o->n;
    }
    if (in->n_vec + n > MAX_VEC) decode_fail(d, "too many elements");
    for (uint32_t i = 0; i < n; i++) {
        uint8_t bytes = operand_bytes(d, &elems[i]);
        if (elems[i].kind == OPD_IMM) bytes = in->bytes < 2 ? 2 : in->bytes;
        if (bytes) in->reg_bytes = bytes;
        in->vec[in->n_vec++] = is_written ? target_slot(d, &elems[i], ANY_BYTES)
                                          : source(d, &elems[i], bytes ? bytes : ANY_BYTES);
    }
}

/* ---- functions ---- */

static void decode_function(Decoder *d, Frame *f);

static void expand_call(Decoder *d)
{
    const Frame *caller = d->frame;
    const PtxInsn *call = d->now;
    uint32_t n = 0;
    const PtxOperand *results = NULL, *args = NULL, *callee;
    if (operand(d, 0)->kind == OPD_NAMES) results = operand(d, n++);
    callee = operand(d, n++);
    if (has_operand(d, n)) args = operand(d, n);
    const PtxFunc *f = callee->kind == OPD_FUNC ? ptx_find(d->m, callee->name) : NULL;
    if (f && f->shared_bytes) decode_fail(d, "%s has shared memory of its own", f->name);
    if (!f || f->insns.n == 0) decode_fail(d, "what it calls is not in this module");
    if (caller->depth == MAX_DEPTH) decode_fail(d, "calls are nested too deep");
    if ((args ? args->n : 0) != f->params.n || (results ? results->n : 0) != f->results.n)
        decode_fail(d, "the call does not match %s", f->name);
    Frame inner = {
        .f = f, .caller = caller, .results = results, .args = args, .depth = caller->depth + 1};
    uint32_t skip = UINT32_MAX;
    if (call->guard >= 0) {
        Insn *in = emit(d, NULL);
        in->kind = INSN_BRANCH;
        in->is_not = !in->is_not;
        skip = d->code->insns.n - 1;
    }
    decode_function(d, &inner);
    if (skip != UINT32_MAX) d->code->insns.at[skip].target = (int32_t)d->code->insns.n;
    d->frame = caller;
    d->now = call;
}

static void add_fixup(Decoder *d, uint32_t label)
{
    VEC_PUSH(d->a, &d->fixups, ((Fixup){d->code->insns.n - 1, label}));
}

static bool decode_control(Decoder *d, const Parts *p)
{
    const char *base = p->at[0];
    const Frame *f = d->frame;
    if (strcmp(base, "bra") == 0) {
        if (operand(d, 0)->kind != OPD_LABEL) decode_fail(d, "the target is no label");
        emit(d, NULL)->kind = INSN_BRANCH;
        add_fixup(d, (uint32_t)operand(d, 0)->imm);
    } else if (strcmp(base, "ret") == 0 && f->caller) {
        emit(d, NULL)->kind = INSN_BRANCH;
        add_fixup(d, f->f->insns.n);
    } else if (strcmp(base, "ret") == 0 || strcmp(base, "exit") == 0) {
        emit(d, NULL)->kind = INSN_EXIT;
    } else if (strcmp(base, "trap") == 0) {
        emit(d, NULL)->kind = INSN_TRAP;
    } else if (strcmp(base, "call") == 0) {
        expand_call(d);
    } else
        return false;
    return true;
}

static void drop_hints(Parts *p)
{
    static const char *const hints[] = {"approx", "full",    "volatile", "relaxed", "weak",
                                        "gpu",    "sys",     "aligned",  "nc",      "ca",
                                        "cg",     "cs",      "lu",       "cv",      "wb",
                                        "wt",     "acquire", "release",  "acq_rel"};
    for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++)
        while (parts_take(p, hints[i])) {
        }
    for (int i = p->n - 1; i > 0; i--)
        if (strncmp(p->at[i], "L1::", 4) == 0 || strncmp(p->at[i], "L2::", 4) == 0)
            (void)parts_take(p, p->at[i]);
}

static void decode_insn(Decoder *d)
{
    Parts p;
    parts_split(&p, d->now->op);
    if (decode_control(d, &p)) return;
    drop_hints(&p);
    if (decode_memory(d, &p) || decode_sync(d, &p) || decode_arith(d, &p)) return;
    decode_fail(d, "the simulator does not know this instruction");
}

static uint32_t round_up(uint32_t v, uint32_t to)
{
    return (v + to - 1) / to * to;
}

static void decode_function(Decoder *d, Frame *f)
{
    Code *code = d->code;
    uint32_t n_fixups = d->fixups.n, n = f->f->insns.n;
    f->slots = ARENA_ARRAY(d->a, uint32_t, f->f->reg_bytes.n + 1);
    f->start = ARENA_ARRAY(d->a, uint32_t, n + 1);
    for (uint32_t i = 0; i < f->f->reg_bytes.n; i++)
        f->slots[i] = new_slot(d, f->f->reg_bytes.at[i]);
    f->local_base = code->local_bytes;
    code->local_bytes = round_up(code->local_bytes + f->f->local_bytes, 16);
    d->frame = f;
    for (uint32_t i = 0; i < n; i++) {
        f->start[i] = code->insns.n;
        d->now = &f->f->insns.at[i];
        decode_insn(d);
    }
    f->start[n] = code->insns.n;
    for (uint32_t i = n_fixups; i < d->fixups.n; i++)
        code->insns.at[d->fixups.at[i].insn].target = (int32_t)f->start[d->fixups.at[i].label];
    d->fixups.n = n_fixups;
}

bool code_build(Arena *a, const PtxModule *m, const PtxFunc *f, Code *out, char *error,
                size_t error_size)
{
    *out = (Code){.module = m, .func = f, .n_registers = f->reg_bytes.n};
    for (int i = 0; i < N_SPECIAL; i++) out->special[i] = UINT32_MAX;
    out->shared_bytes = round_up(m->shared_bytes, 16);
    Decoder *d = ARENA_NEW(a, Decoder);
    *d = (Decoder){.a = a, .code = out, .m = m, .error = error, .error_size = error_size};
    for (int i = 0; i < 4; i++) d->constants[i].arena = a;
    Frame *entry = ARENA_NEW(a, Frame);
    *entry = (Frame){.f = f, .shared_base = out->shared_bytes};
    out->shared_bytes += f->shared_bytes;
    out->dynamic_offset = round_up(out->shared_bytes, 128);
    if (setjmp(d->failed)) return false;
    out->carry = new_slot(d, 4);
    decode_function(d, entry);
    d->now = &(PtxInsn){.op = "end", .guard = -1};
    emit(d, NULL)->kind = INSN_EXIT;
    return true;
}
