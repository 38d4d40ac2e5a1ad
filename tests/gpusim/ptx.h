/* ptx.h -- PTX text as data: what ptx_parse.c reads and decode.c turns into code.
 *
 * Registers are numbered within a function, whatever scope they were declared in; symbols and
 * labels are resolved, so nothing below here knows names or scopes. */
#ifndef ZM_GPUSIM_PTX_H
#define ZM_GPUSIM_PTX_H

#include "ir/base/str.h"
#include "ir/base/vec.h"

typedef enum {
    SPACE_GENERIC,
    SPACE_GLOBAL, /* .const too */
    SPACE_SHARED,
    SPACE_LOCAL, /* and the .param variables of calls: calls are expanded in place */
    SPACE_PARAM  /* of the entry */
} Space;

typedef struct PtxSymbol {
    const char *name;
    Space space;
    uint32_t bytes, align;
    uint32_t offset; /* within its space; global: filled in by the module loader as `address` */
    uint64_t address;
    uint8_t *init; /* global: n_init bytes, the rest is 0; or NULL */
    uint32_t n_init;
    bool is_module;  /* declared outside of functions */
    bool is_dynamic; /* .extern .shared x[]: where the static shared memory of the entry ends */
} PtxSymbol;

typedef enum {
    OPD_REG,
    OPD_PAIR,    /* a|b: reg, reg_b (-1: _) */
    OPD_IMM,     /* imm: bits of a float, or an integer */
    OPD_SPECIAL, /* %tid.x */
    OPD_SYMBOL,  /* its address + imm */
    OPD_ADDRESS, /* [reg or symbol + imm] */
    OPD_VECTOR,  /* {...}: n elements from `first` */
    OPD_LABEL,   /* of the instruction number imm */
    OPD_NAMES,   /* (a, b) of a call: symbols */
    OPD_FUNC,
    OPD_SINK /* _ */
} OperandKind;

typedef struct PtxOperand {
    OperandKind kind;
    bool is_not;
    int32_t reg, reg_b;
    uint64_t imm;
    PtxSymbol *symbol;
    const char *name;
    uint32_t first, n; /* in the function's operands */
} PtxOperand;

typedef struct PtxInsn {
    const char *op; /* add.rn.f32 */
    int32_t guard;  /* register, or -1 */
    bool guard_not;
    uint32_t first, n_ops; /* in the function's operands */
    uint32_t loc;          /* number in the module's locs */
    uint32_t ptx_line;
} PtxInsn;

typedef struct PtxFunc {
    const char *name;
    bool is_entry;
    VEC(uint8_t) reg_bytes; /* of each register: 0 predicate, else 2, 4, 8 */
    VEC(PtxInsn) insns;
    VEC(PtxOperand) operands;
    VEC(PtxSymbol *) params;  /* of a .func: locals */
    VEC(PtxSymbol *) results; /* of a .func */
    uint32_t param_bytes, local_bytes, shared_bytes;
    uint32_t max_threads; /* .maxntid, or 0 */
} PtxFunc;

/* A line of the CUDA C, and where it was called from when it was inlined (0: nowhere). */
typedef struct PtxLoc {
    uint32_t line, caller_line;
} PtxLoc;

typedef struct PtxModule {
    Arena arena;
    VEC(PtxFunc *) funcs;
    VEC(PtxSymbol *) globals; /* .global and .const of the module */
    VEC(PtxLoc) locs;         /* 0: unknown */
    uint32_t shared_bytes;    /* of the module's static shared variables */
    uint32_t target;          /* 80 of sm_80 */
    const char *file;         /* the CUDA C's name, from .file; "" */
    char error[256];          /* why parsing failed */
} PtxModule;

/* NULL-terminated text.  False: m->error says where and why; ptx_free() either way. */
bool ptx_parse(PtxModule *m, const char *text);
void ptx_free(PtxModule *m);
const PtxFunc *ptx_find(const PtxModule *m, const char *name);

/* ---- ptx_lex.c ---- */

typedef enum { TOK_END, TOK_NAME, TOK_NUMBER, TOK_PUNCT } TokenKind;

typedef struct Lexer {
    const char *at;
    uint32_t line;
    TokenKind kind; /* of the token that is next */
    const char *text;
    size_t n;
    uint64_t value;        /* TOK_NUMBER: the integer, or the bits of 0f... and 0d... */
    uint8_t literal_bytes; /* 4, 8: a float literal; 0: an integer */
} Lexer;

void lex_start(Lexer *x, const char *text);
void lex_next(Lexer *x);
void lex_rest_of_line(Lexer *x, const char **text, size_t *n); /* the token and what follows it */
bool lex_is(const Lexer *x, const char *text);
bool lex_accept(Lexer *x, const char *text);

#endif
