/* attention.h -- shared by the files that print attention; not for others. */
#ifndef ZM_CODEGEN_CUDA_ATTENTION_H
#define ZM_CODEGEN_CUDA_ATTENTION_H

#include "codegen/cuda/print.h"

/* Queries or keys: names in the text of the row, and of the first row of a block or tile. */
typedef struct Side {
    const char *row, *first;
    long long n;
} Side;

typedef struct Attention {
    Printer *p;
    const AttnSpec *s;
    Side queries, keys;
    DType dt;         /* of the arithmetic */
    const char *real; /* its type */
    const char *f;    /* "f": suffix of its functions */
    bool owns_keys;   /* a block's rows are keys: this part computes dk and dv */
} Attention;

/* An operand by its name in the text; columns: its width. */
typedef struct Matrix {
    const char *name;
    const AttnOperand *o;
    const Side *side;
    long long columns;
} Matrix;

Attention attention_of(Printer *p);

/* ---- attention_text.c ---- */

bool is_16bit(DType dt);
/* A line with the op's comment: what it computes, and its .zm line. */
void print_noted(Attention *x, const char *what, const char *text);
void print_number(Attention *x, double v);
/* " + index * stride", nothing for 0. */
void print_term(Attention *x, const char *plus, const char *index, int64_t stride);
void print_shift(Attention *x, long long n); /* " + n" or " - n", nothing for 0 */
/* name[row * stride + column * stride], column NULL: 0; a load gives a float. */
void print_place(Attention *x, const char *name, const AttnOperand *o, const char *row,
                 const char *column);
void print_load(Attention *x, const char *name, const AttnOperand *o, const char *row,
                const char *column);
void print_result(Attention *x, const char *name, const AttnOperand *o, const char *row,
                  const char *column, const char *value);
/* const int b, h = ... of `head`, and the pointers of the operands of this part. */
void print_operands(Attention *x);
void print_words(Attention *x); /* of dropout's key and stream */
/* const bool sees = the query t may attend to the key s, and both exist, as far as looked at. */
void print_sees(Attention *x, bool looks_at_t, bool looks_at_s);
/* zm_random(...) >= p of (t, s), after the line that computes `element`. */
void print_element(Attention *x);
void print_keeps(Attention *x);

/* ---- attention_tiles.c ---- */

/* What a block of a part works on.  A warp owns 16 m rows in A fragments and the other side's rows
 * pass by, `columns` at a time, in two stages. */
typedef struct FlashTile {
    int m, rows, columns; /* rows: of the block, 4 warps */
    bool in_registers;    /* the own rows' fragments; else they are loaded for each product */
    int own_elems, stage_elems;
    int shared_bytes;
} FlashTile;

typedef enum { FLASH_FORWARD, FLASH_DQ, FLASH_DK_DV } FlashPart;

FlashTile flash_tile(const AttnSpec *s, CudaArch arch, FlashPart part);

#endif
