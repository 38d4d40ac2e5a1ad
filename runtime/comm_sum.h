/* comm_sum.h -- elements of collectives and their sums. */
#ifndef ZM_RUNTIME_COMM_SUM_H
#define ZM_RUNTIME_COMM_SUM_H

#include <stddef.h>
#include <stdint.h>

size_t comm_elem_bytes(uint32_t dtype); /* 0: not a dtype of collectives */
size_t comm_acc_bytes(uint32_t dtype);  /* of one element of an accumulator: f32 for 16 bits */

enum { COMM_MAX_TERMS = 2 };

typedef struct SumTerms { /* added in this order */
    uint32_t dtype;
    const void *acc; /* an accumulator; NULL: none yet */
    int n_terms;
    const void *term[COMM_MAX_TERMS]; /* of tensors; at least one */
} SumTerms;

/* n elements of the sum, as an accumulator or as elements of a tensor (rounded once).  `to` may be
 * the memory of acc or of a term. */
void comm_sum_acc(void *to, const SumTerms *t, size_t n);
void comm_sum_out(void *to, const SumTerms *t, size_t n);

#endif
