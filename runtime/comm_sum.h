/* comm_sum.h -- the sum of a reduction, one term after the other. */
#ifndef ZM_RUNTIME_COMM_SUM_H
#define ZM_RUNTIME_COMM_SUM_H

#include <stddef.h>
#include <stdint.h>

size_t comm_elem_bytes(uint32_t dtype); /* 0: not a dtype of collectives */
size_t comm_acc_bytes(uint32_t dtype);  /* of one element of the accumulator */

/* acc = x, acc += x, out = acc (rounded once); n elements, aligned to theirs. */
void comm_sum_set(void *acc, const void *x, uint32_t dtype, size_t n);
void comm_sum_add(void *acc, const void *x, uint32_t dtype, size_t n);
void comm_sum_store(void *out, const void *acc, uint32_t dtype, size_t n);

#endif
