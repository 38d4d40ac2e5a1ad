/* attention_mma.h -- shared by the files that print attention on tensor cores; not for others. */
#ifndef ZM_CODEGEN_CUDA_ATTENTION_MMA_H
#define ZM_CODEGEN_CUDA_ATTENTION_MMA_H

#include "codegen/cuda/attention.h"

#define LOG2_E 1.4426950408889634
#define LN_2 0.6931471805599453

typedef struct Flash {
    Attention at;
    FlashPart part;
    FlashTile tile;
    const char *type;     /* of the operands */
    const char *own_warp; /* the warp's first row */
    const Side *own_side, *far_side;
    Matrix own[2], far[2], result[2];
    int n_own;
    bool is_scaled; /* scores are in powers of 2, with bias, before they are exponentiated */
} Flash;

/* Numbers that a lane holds of a product. */
int flash_n_elements(const Flash *f);
/* Are rows read by 16 bytes? */
bool flash_is_wide(const Flash *f, const AttnOperand *o, long long columns);
void flash_print_unroll(Flash *f, const char *variable, int n);
/* Element e of a product: fragment (i, j), number c; its query t and key s. */
void flash_print_pair(Flash *f, const char *e);
/* Numbers before own rows in shared memory: they lie over the second stage when they go on to
 * registers. */
int flash_own_at(const Flash *f, int i);
/* Numbers before the second tile of a stage. */
int flash_second_at(const Flash *f);
/* Own rows and the first tiles into shared memory, and on to fragments. */
void flash_print_own(Flash *f);
/* to = own rows i times the tile's. */
void flash_print_product(Flash *f, const char *to, int i, const char *what);
/* acc += weight times the tile's rows. */
void flash_print_accumulate(Flash *f, const char *acc, const char *weight, const Matrix *far,
                            const char *what);
void flash_print_accumulator(Flash *f, const char *name, const Matrix *m);
/* x: -inf where the query does not see the key; scaled, with bias, where is_scaled. */
void flash_print_scores(Flash *f);
/* keep: a bit for each element, of which a lane has a multiple or a part of 32. */
void flash_print_dropout_bits(Flash *f);
/* z = what the dropout multiplies element e by. */
void flash_print_factor(Flash *f);
/* Of the exponent: scores times this, in powers of 2. */
void flash_print_scale(Flash *f);
/* begin and end: the rows of the far side that the block's rows need. */
void flash_print_range(Flash *f);
/* The loop over tiles, in which the next one is on its way. */
void flash_print_far_loop(Flash *f);
/* A warp without rows, or all of whose rows see none of the tile, waits for the next. */
void flash_print_skip(Flash *f);
void flash_print_loop_end(Flash *f);
/* The warp's rows of a result, row r scaled by by[r]. */
void flash_print_rows(Flash *f, const Matrix *m, const char *acc, const char *by);

#endif
