/* decode_arith.c -- arithmetic by table, and cvt, cvta, mov, setp with its combinations. */
#include "tests/gpusim/decode.h"

#include <stdlib.h>
#include <string.h>

/* ---- the tables ---- */

static const Arith *find_in(const Arith *table, const char *key)
{
    for (; table->key; table++)
        if (strcmp(table->key, key) == 0) return table;
    return NULL;
}

/* One table a family keeps the walk short. */
static const Arith *find_arith(const char *key)
{
    const Arith *found = find_in(arith_int, key);
    if (!found) found = find_in(arith_float, key);
    return found ? found : find_in(arith_logic, key);
}

static uint8_t shape_bytes(char c)
{
    return c == 'l' ? 8 : c == 'w' ? 4 : c == 'h' ? 2 : 0;
}

static uint32_t negated(Decoder *d, uint32_t slot)
{
    uint32_t to = new_slot(d, 0);
    Insn *in = emit(d, find_in(arith_logic, "not.pred")->fn);
    in->d = to;
    in->a = slot;
    in->has_guard = false;
    return to;
}

static uint32_t read_operand(Decoder *d, const PtxOperand *o, uint8_t bytes)
{
    uint32_t slot = source(d, o, bytes);
    return o->is_not ? negated(d, slot) : slot;
}

/* ---- modifiers ---- */

static Rounding take_rounding(Parts *p)
{
    if (parts_take(p, "rz")) return ROUND_ZERO;
    if (parts_take(p, "rm")) return ROUND_DOWN;
    if (parts_take(p, "rp")) return ROUND_UP;
    (void)parts_take(p, "rn");
    return ROUND_NEAREST;
}

static uint32_t flushed(Decoder *d, uint32_t slot)
{
    uint32_t to = new_slot(d, 4);
    Insn *in = emit(d, find_in(arith_float, "flush.f32")->fn);
    in->d = to;
    in->a = slot;
    return to;
}

static void emit_in_place(Decoder *d, const char *key, uint32_t slot)
{
    Insn *in = emit(d, find_arith(key)->fn);
    in->d = in->a = slot;
}

static void emit_arith(Decoder *d, const Arith *op, Rounding rounding, bool is_ftz, bool is_sat)
{
    uint32_t slots[5] = {0};
    uint32_t n = (uint32_t)strlen(op->shape);
    for (uint32_t i = 1; i < n; i++) {
        slots[i] = read_operand(d, operand(d, i), shape_bytes(op->shape[i]));
        if (is_ftz && op->shape[i] == 'w') slots[i] = flushed(d, slots[i]);
    }
    slots[0] = target_slot(d, operand(d, 0), shape_bytes(op->shape[0]));
    Insn *in = emit(d, rounding == ROUND_NEAREST ? op->fn : exec_rounded);
    in->inner = op->fn;
    in->variant = (uint8_t)rounding;
    in->d = slots[0];
    in->a = slots[1];
    in->b = slots[2];
    in->c = slots[3];
    in->e = slots[4];
    if (is_ftz && op->shape[0] == 'w') emit_in_place(d, "flush.f32", slots[0]);
    if (is_sat) emit_in_place(d, op->shape[0] == 'l' ? "saturate.f64" : "saturate.f32", slots[0]);
}

/* Carries read and set a flag of the lane; add and sub have no third operand. */
static void emit_carry(Decoder *d, const Arith *op)
{
    uint8_t bytes = shape_bytes(op->shape[0]);
    uint32_t a = source(d, operand(d, 1), bytes), b = source(d, operand(d, 2), bytes),
             c = op->shape[3] ? source(d, operand(d, 3), bytes) : a;
    uint32_t to = target_slot(d, operand(d, 0), bytes);
    Insn *in = emit(d, op->fn);
    in->d = to;
    in->a = a;
    in->b = b;
    in->c = c;
    in->e = d->code->carry;
}

/* ---- setp.CMP.BOOL.TYPE p|q, a, b, c ---- */

static void decode_setp(Decoder *d, Parts *p)
{
    static const char *const joins[] = {"and", "or", "xor"};
    const char *join = NULL;
    char key[64];
    bool is_ftz = parts_take(p, "ftz");
    for (int i = 0; i < 3; i++)
        if (p->n == 4 && parts_take(p, joins[i])) join = joins[i];
    parts_key(p, key, sizeof key);
    const Arith *op = find_in(arith_logic, key);
    if (!op) decode_fail(d, "the simulator does not know this comparison");
    if (operand(d, 0)->kind == OPD_PAIR) decode_fail(d, "the simulator takes one result only");
    emit_arith(d, op, ROUND_NEAREST, is_ftz && strcmp(parts_last(p), "f32") == 0, false);
    if (!join) return;
    uint32_t to = target_slot(d, operand(d, 0), 0), other = read_operand(d, operand(d, 3), 0);
    strcat(strcpy(key, join), ".pred");
    Insn *in = emit(d, find_in(arith_logic, key)->fn);
    in->d = in->a = to;
    in->b = other;
}

/* ---- cvt ---- */

static NumberKind number_kind(Decoder *d, const char *type)
{
    static const struct {
        const char *name;
        NumberKind kind;
    } floats[] = {{"f16", NUM_F16},   {"bf16", NUM_BF16},   {"f32", NUM_F32},  {"f64", NUM_F64},
                  {"f16x2", NUM_F16}, {"bf16x2", NUM_BF16}, {"tf32", NUM_TF32}};
    for (size_t i = 0; i < sizeof floats / sizeof floats[0]; i++)
        if (strcmp(floats[i].name, type) == 0) return floats[i].kind;
    if (type[0] == 's') return NUM_SINT;
    if (type[0] == 'u' || type[0] == 'b') return NUM_UINT;
    decode_fail(d, "the simulator does not convert '%s'", type);
}

static Rounding take_integral(Parts *p, bool *is_integral)
{
    static const char *const names[] = {"rni", "rzi", "rmi", "rpi"};
    for (int i = 0; i < 4; i++) {
        if (!parts_take(p, names[i])) continue;
        *is_integral = true;
        return (Rounding)i;
    }
    *is_integral = false;
    return take_rounding(p);
}

static uint8_t bytes_of_operand(Decoder *d, const PtxOperand *o, uint8_t type_bytes)
{
    uint8_t bytes = operand_bytes(d, o);
    return bytes ? bytes : type_bytes < 2 ? 2 : type_bytes;
}

static bool cvt_by_table(Decoder *d, const Parts *p, const Conversion *c)
{
    char key[64];
    parts_key(p, key, sizeof key);
    const Arith *op = find_in(arith_cvt, key);
    bool is_plain = op && !c->is_saturating && !c->to_integral && !c->is_relu && c->rounding == 0;
    if (!is_plain || shape_bytes(op->shape[0]) != c->to_reg_bytes ||
        shape_bytes(op->shape[1]) != c->from_reg_bytes)
        return false;
    emit_arith(d, op, ROUND_NEAREST, false, false);
    return true;
}

static void decode_cvt(Decoder *d, Parts *p)
{
    Conversion c = {0};
    bool is_away = parts_take(p, "rna");
    bool is_ftz = parts_take(p, "ftz");
    c.is_saturating = parts_take(p, "sat") || parts_take(p, "satfinite");
    c.is_relu = parts_take(p, "relu");
    c.rounding = (uint8_t)take_integral(p, &c.to_integral);
    if (p->n != 3) decode_fail(d, "the simulator does not know this conversion");
    const char *to = p->at[1], *from = p->at[2];
    c.to = (uint8_t)number_kind(d, to);
    c.from = (uint8_t)number_kind(d, from);
    c.is_pair = strstr(to, "x2") != NULL;
    c.to_bytes = c.is_pair ? 2 : type_size(d, to);
    c.from_bytes = type_size(d, from);
    c.to_reg_bytes = bytes_of_operand(d, operand(d, 0), type_size(d, to));
    c.from_reg_bytes = bytes_of_operand(d, operand(d, 1), c.from_bytes);
    if ((c.to == NUM_TF32) != is_away) decode_fail(d, "tf32 takes .rna, others do not");
    if ((c.to == NUM_F16 || c.to == NUM_BF16) && c.rounding != ROUND_NEAREST)
        decode_fail(d, "the simulator rounds to 16 bits to nearest only");
    if (cvt_by_table(d, p, &c)) return;
    uint32_t a = source(d, operand(d, 1), c.from_reg_bytes);
    uint32_t b = c.is_pair ? source(d, operand(d, 2), c.from_reg_bytes) : a;
    if (is_ftz && c.from == NUM_F32) a = flushed(d, a);
    uint32_t target = target_slot(d, operand(d, 0), c.to_reg_bytes);
    Insn *in = emit(d, exec_cvt);
    in->d = target;
    in->a = a;
    in->b = b;
    in->cvt = c;
    if (is_ftz && c.to == NUM_F32) emit_in_place(d, "flush.f32", target);
}

/* ---- mov, cvta ---- */

static bool decode_mov(Decoder *d, const Parts *p)
{
    uint8_t bytes = type_size(d, parts_last(p));
    const PtxOperand *to = operand(d, 0), *from = operand(d, 1);
    if (from->kind == OPD_SPECIAL && strncmp(from->name, "%clock", 6) == 0) {
        uint32_t slot = target_slot(d, to, bytes);
        Insn *clock = emit(d, exec_clock);
        clock->d = slot;
        clock->bytes = bytes;
        return true;
    }
    if (to->kind != OPD_VECTOR && from->kind != OPD_VECTOR) return false;
    bool is_pack = from->kind == OPD_VECTOR;
    Insn draft = {.bytes = (uint8_t)(bytes / (is_pack ? from->n : to->n))};
    set_vector(d, &draft, is_pack ? from : to, !is_pack);
    if (draft.reg_bytes * draft.n_vec != bytes) decode_fail(d, "the elements do not fill the type");
    uint32_t slot = is_pack ? target_slot(d, to, bytes) : source(d, from, bytes);
    Insn *in = emit(d, is_pack ? exec_pack : exec_unpack);
    in->bytes = bytes;
    in->reg_bytes = draft.reg_bytes;
    in->n_vec = draft.n_vec;
    memcpy(in->vec, draft.vec, sizeof in->vec);
    in->d = in->a = slot;
    return true;
}

static void decode_cvta(Decoder *d, Parts *p)
{
    bool is_to = parts_take(p, "to");
    uint64_t window = parts_has(p, "shared") || parts_has(p, "shared::cta") ? SHARED_WINDOW
                      : parts_has(p, "local")                               ? LOCAL_WINDOW
                                                                            : 0;
    uint32_t from = source(d, operand(d, 1), 8), to = target_slot(d, operand(d, 0), 8);
    uint32_t shift = constant_slot(d, is_to ? 0 - window : window, 8);
    Insn *in = emit(d, find_in(arith_int, "add.u64")->fn);
    in->d = to;
    in->a = from;
    in->b = shift;
}

bool decode_arith(Decoder *d, Parts *p)
{
    char key[64];
    const char *base = p->at[0];
    if (strcmp(base, "setp") == 0) return decode_setp(d, p), true;
    if (strcmp(base, "cvt") == 0) return decode_cvt(d, p), true;
    if (strcmp(base, "cvta") == 0) return decode_cvta(d, p), true;
    if (strcmp(base, "mov") == 0 && decode_mov(d, p)) return true;
    bool is_ftz = parts_take(p, "ftz"), is_sat = parts_take(p, "sat");
    bool is_float = parts_last(p)[0] == 'f' || parts_last(p)[0] == 'b';
    Rounding rounding = is_float ? take_rounding(p) : ROUND_NEAREST;
    parts_key(p, key, sizeof key);
    const Arith *op = find_arith(key);
    if (!op) return false;
    if (parts_has(p, "cc") || strncmp(base, "addc", 4) == 0 || strncmp(base, "subc", 4) == 0 ||
        strncmp(base, "madc", 4) == 0)
        emit_carry(d, op);
    else
        emit_arith(d, op, rounding, is_ftz && strcmp(parts_last(p), "f32") == 0, is_sat);
    return true;
}
