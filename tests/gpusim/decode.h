/* decode.h -- shared by the files that turn PTX into code; not for others. */
#ifndef ZM_GPUSIM_DECODE_H
#define ZM_GPUSIM_DECODE_H

#include <setjmp.h>

#include "tests/gpusim/sim.h"

enum { MAX_PARTS = 16, ANY_BYTES = 255, NO_SLOT = -1 };

typedef struct Parts { /* an opcode between its dots */
    const char *at[MAX_PARTS];
    int n;
    char text[96];
} Parts;

/* A function that is expanded in place: the entry, or a call. */
typedef struct Frame {
    const PtxFunc *f;
    const struct Frame *caller;
    const PtxOperand *results, *args; /* of the call: OPD_NAMES, or NULL */
    uint32_t *slots;                  /* of registers */
    uint32_t *start;                  /* instruction -> its code */
    uint32_t local_base, shared_base;
    int depth;
} Frame;

typedef struct Fixup {
    uint32_t insn, label;
} Fixup;

typedef struct Decoder {
    Arena *a;
    Code *code;
    const PtxModule *m;
    Map constants[4]; /* of 2, 4, 8 bytes, predicates */
    const PtxInsn *now;
    const Frame *frame;
    VEC(Fixup) fixups;
    char *error;
    size_t error_size;
    jmp_buf failed;
} Decoder;

ZM_PRINTF(2, 3) _Noreturn void decode_fail(Decoder *d, const char *fmt, ...);

/* The n-th operand of the instruction; its absence is an error. */
const PtxOperand *operand(Decoder *d, uint32_t n);
bool has_operand(const Decoder *d, uint32_t n);
uint32_t constant_slot(Decoder *d, uint64_t value, uint8_t bytes);
uint32_t new_slot(Decoder *d, uint8_t bytes);
/* Slot of an operand that is read; bytes: what the instruction takes, ANY_BYTES: the register's. */
uint32_t source(Decoder *d, const PtxOperand *o, uint8_t bytes);
uint32_t target_slot(Decoder *d, const PtxOperand *o, uint8_t bytes); /* that is written */
uint8_t operand_bytes(Decoder *d, const PtxOperand *o);               /* of a register; else 0 */
Insn *emit(Decoder *d, ExecFn fn);
void set_address(Decoder *d, Insn *in, const PtxOperand *o);
void set_vector(Decoder *d, Insn *in, const PtxOperand *o, bool is_written);

/* ---- opcodes ---- */

void parts_split(Parts *p, const char *op);
bool parts_take(Parts *p, const char *name); /* removes it */
bool parts_has(const Parts *p, const char *name);
const char *parts_last(const Parts *p);
void parts_key(const Parts *p, char *out, size_t n); /* joined by dots */
uint8_t type_size(Decoder *d, const char *type);     /* "b32" -> 4; "pred" -> 0 */

/* ---- families; false: not theirs ---- */

bool decode_memory(Decoder *d, Parts *p);
bool decode_sync(Decoder *d, Parts *p);
bool decode_arith(Decoder *d, Parts *p);

#endif
