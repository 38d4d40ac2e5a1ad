/* data_order.c -- see data.h.
 *
 * Random order: a Feistel network over the smallest even number of bits that holds n, its rounds
 * keyed by Philox with (seed, epoch, round); values >= n are sent through again (cycle walking:
 * Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).  The domain is below 4
 * n, so fewer than 4 turns are expected.  No table of n entries. */
#include "runtime/data.h"

#include "ir/base/philox.h"

enum { FEISTEL_ROUNDS = 6 };

static uint64_t feistel(uint64_t v, int half_bits, uint64_t seed, uint64_t epoch)
{
    uint64_t mask = ((uint64_t)1 << half_bits) - 1;
    uint64_t left = v >> half_bits, right = v & mask;
    for (uint32_t round = 0; round < FEISTEL_ROUNDS; round++) {
        Philox r = philox((uint32_t)right, round, (uint32_t)epoch, (uint32_t)(epoch >> 32),
                          (uint32_t)seed, (uint32_t)(seed >> 32));
        uint64_t next = left ^ (((uint64_t)r.x[1] << 32 | r.x[0]) & mask);
        left = right;
        right = next;
    }
    return left << half_bits | right;
}

int64_t order_sample(DataOrder order, uint64_t seed, int64_t n, int64_t k)
{
    uint64_t i = (uint64_t)(k % n), epoch = (uint64_t)(k / n);
    if (order == ORDER_SEQUENTIAL || n == 1) return (int64_t)i;
    int half_bits = 1;
    while (half_bits < 31 && (uint64_t)1 << (2 * half_bits) < (uint64_t)n) half_bits++;
    do i = feistel(i, half_bits, seed, epoch);
    while (i >= (uint64_t)n);
    return (int64_t)i;
}
