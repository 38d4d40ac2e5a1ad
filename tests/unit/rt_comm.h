/* rt_comm.h -- what collectives must give, for tests over any transport.
 *
 * Every rank knows every rank's data (a function of rank and element), so the expected result is
 * written out here, in rank order, beside the one that came. */
#ifndef RT_COMM_H
#define RT_COMM_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/comm.h"
#include "runtime/convert.h"
#include "tests/unit/check.h"

static inline double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline size_t bytes_of(uint32_t dtype)
{
    return dtype == ZMP_F64 ? 8 : dtype == ZMP_F32 || dtype == ZMP_I32 ? 4 : 2;
}

static inline uint32_t mix(uint32_t rank, uint32_t salt, int64_t i)
{
    uint64_t x = ((uint64_t)i + 1) * 0x9e3779b97f4a7c15u + rank * 0xbf58476d1ce4e5b9u + salt;
    x = (x ^ x >> 30) * 0x94d049bb133111ebu;
    return (uint32_t)(x >> 32);
}

/* Of either sign, over 12 powers of two: another order of terms gives other bits. */
static inline float value_at(uint32_t rank, uint32_t salt, int64_t i)
{
    uint32_t m = mix(rank, salt, i);
    float scale = (float)(1u << (m >> 28)) / 16;
    return ((float)(m & 0xffff) / 65536 - 0.5f) * scale;
}

static inline void fill(void *to, uint32_t dtype, int64_t count, int rank, uint32_t salt)
{
    for (int64_t i = 0; i < count; i++) {
        float f = value_at((uint32_t)rank, salt, i);
        int32_t n = (int32_t)mix((uint32_t)rank, salt, i); /* sums wrap around */
        if (dtype == ZMP_I32)
            memcpy((char *)to + 4 * i, &n, 4);
        else
            convert_from_f32((char *)to + bytes_of(dtype) * (size_t)i, dtype, &f, 1);
    }
}

/* x0 + x1 + ... of all ranks' fills. */
static inline void expect_sum(void *to, uint32_t dtype, int64_t count, int size, uint32_t salt)
{
    size_t b = bytes_of(dtype);
    char *x = malloc((size_t)count * b + 1);
    float *sum = malloc((size_t)count * sizeof *sum + 1), one;
    for (int r = 0; r < size; r++) {
        fill(x, dtype, count, r, salt);
        if (r == 0) memcpy(to, x, (size_t)count * b);
        for (int64_t i = 0; i < count; i++) {
            if (dtype == ZMP_F64 && r) ((double *)to)[i] += ((const double *)(void *)x)[i];
            if (dtype == ZMP_I32 && r) ((uint32_t *)to)[i] += ((const uint32_t *)(void *)x)[i];
            if (dtype == ZMP_F64 || dtype == ZMP_I32) continue;
            convert_to_f32(&one, x + b * (size_t)i, dtype, 1);
            sum[i] = r ? sum[i] + one : one;
        }
    }
    if (dtype != ZMP_F64 && dtype != ZMP_I32) convert_from_f32(to, dtype, sum, (size_t)count);
    free(x);
    free(sum);
}

/* One tensor in four copies: this rank's data, work space, what a sum must give. */
typedef struct Case {
    Comm *c;
    uint32_t dtype;
    int64_t count, first, n; /* this rank's shard */
    size_t b, n_bytes;
    char *mine, *work, *sum, *other;
} Case;

static inline void case_new(Case *k, Comm *c, uint32_t dtype, int64_t count)
{
    *k = (Case){.c = c, .dtype = dtype, .count = count, .b = bytes_of(dtype)};
    k->n = comm_shard(count, comm_rank(c), comm_size(c), &k->first);
    k->n_bytes = (size_t)count * k->b;
    char **all[] = {&k->mine, &k->work, &k->sum, &k->other};
    for (int i = 0; i < 4; i++) CHECK(*all[i] = calloc(1, k->n_bytes + 64));
    fill(k->mine, dtype, count, comm_rank(c), 5);
    expect_sum(k->sum, dtype, count, comm_size(c), 5);
}

static inline void case_free(Case *k)
{
    free(k->mine);
    free(k->work);
    free(k->sum);
    free(k->other);
}

static inline void case_run(const Case *k, CommKind kind, int root, const void *in, void *out)
{
    CommCall call = {kind, k->dtype, root, k->count, in, out, "w", "m.zm:1:2", 0};
    RtError e = {0};
    if (comm_run(k->c, &call, &e) != RT_OK) fprintf(stderr, "%s\n", str_c(&e.text));
    CHECK(!e.text.n);
}

static inline void check_sums(Case *k)
{
    size_t at = (size_t)k->first * k->b, shard = (size_t)k->n * k->b;
    case_run(k, COMM_ALL_REDUCE, 0, k->mine, k->work);
    CHECK(!memcmp(k->work, k->sum, k->n_bytes));
    memcpy(k->work, k->mine, k->n_bytes);
    case_run(k, COMM_ALL_REDUCE, 0, k->work, k->work);
    CHECK(!memcmp(k->work, k->sum, k->n_bytes));
    memset(k->other, 0x55, k->n_bytes + 64);
    case_run(k, COMM_REDUCE_SCATTER, 0, k->mine, k->other);
    CHECK(!memcmp(k->other, k->sum + at, shard) && k->other[shard] == 0x55);
    memcpy(k->work, k->mine, k->n_bytes);
    case_run(k, COMM_REDUCE_SCATTER, 0, k->work, k->work + at);
    CHECK(!memcmp(k->work + at, k->sum + at, shard));
    CHECK(!memcmp(k->work, k->mine, at)); /* nothing else is written */
    case_run(k, COMM_ALL_GATHER, 0, k->work + at, k->work);
    CHECK(!memcmp(k->work, k->sum, k->n_bytes));
    memset(k->work, 0x55, k->n_bytes + 64);
    case_run(k, COMM_ALL_GATHER, 0, k->other, k->work);
    CHECK(!memcmp(k->work, k->sum, k->n_bytes) && k->work[k->n_bytes] == 0x55);
}

static inline void check_broadcasts(Case *k)
{
    for (int root = 0; root < comm_size(k->c); root += 3) {
        bool is_root = root == comm_rank(k->c);
        fill(k->other, k->dtype, k->count, root, 5);
        memset(k->work, 0x55, k->n_bytes + 64);
        case_run(k, COMM_BROADCAST, root, is_root ? k->mine : NULL, k->work);
        CHECK(!memcmp(k->work, k->other, k->n_bytes) && k->work[k->n_bytes] == 0x55);
    }
}

/* Bytes that each kind has sent after one all_reduce, reduce_scatter, all_gather. */
static inline void check_sent(Case *k)
{
    uint64_t before[COMM_N_KINDS], shard = (uint64_t)k->n * k->b;
    uint64_t others = (uint64_t)comm_size(k->c) - 1, all = comm_sent_all(k->c);
    for (int i = 0; i < COMM_N_KINDS; i++) before[i] = comm_sent(k->c, (CommKind)i);
    size_t at = (size_t)k->first * k->b;
    case_run(k, COMM_ALL_REDUCE, 0, k->mine, k->work);
    case_run(k, COMM_REDUCE_SCATTER, 0, k->mine, k->work);
    case_run(k, COMM_ALL_GATHER, 0, k->mine + at, k->work);
    case_run(k, COMM_BROADCAST, 0, k->mine, k->work);
    case_run(k, COMM_BARRIER, 0, NULL, NULL);
    uint64_t sent[COMM_N_KINDS] = {
        [COMM_ALL_GATHER] = others * shard,
        [COMM_REDUCE_SCATTER] = k->n_bytes - shard,
        [COMM_ALL_REDUCE] = k->n_bytes - shard + others * shard,
        [COMM_BROADCAST] = comm_rank(k->c) == 0 ? others * k->n_bytes : 0,
    };
    for (int i = 0; i < COMM_N_KINDS; i++) {
        CHECK(comm_sent(k->c, (CommKind)i) - before[i] == sent[i]);
        all += sent[i];
    }
    CHECK(comm_sent_all(k->c) == all);
}

static const uint32_t comm_dtypes[] = {ZMP_F32, ZMP_BF16, ZMP_F16, ZMP_F64, ZMP_I32};
enum { N_COMM_DTYPES = sizeof comm_dtypes / sizeof *comm_dtypes };

static inline void check_values(Comm *c)
{
    static const int64_t counts[] = {0, 1, 5, 64, 1003, 90001};
    for (int d = 0; d < N_COMM_DTYPES; d++)
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            Case k;
            case_new(&k, c, comm_dtypes[d], counts[i]);
            check_sums(&k);
            check_broadcasts(&k);
            check_sent(&k);
            case_free(&k);
        }
}

/* Twelve collectives in flight, waited for in an order that differs from rank to rank, with polls
 * between. */
static inline void check_in_flight(Comm *c)
{
    enum { N = 12 };
    for (int round = 0; round < 3; round++) {
        Case k[N];
        CommOp op[N];
        int order[N];
        RtError e = {0};
        for (int i = 0; i < N; i++) {
            case_new(&k[i], c, comm_dtypes[i % N_COMM_DTYPES], i * i * 501 + round);
            order[i] = i;
        }
        for (int i = 0; i < N; i++) {
            bool is_sum = i % 3 != 1;
            const char *in = is_sum ? k[i].mine : k[i].sum + (size_t)k[i].first * k[i].b;
            CommKind kind = i % 3 == 2 ? COMM_REDUCE_SCATTER
                            : is_sum   ? COMM_ALL_REDUCE
                                       : COMM_ALL_GATHER;
            CommCall call = {kind, k[i].dtype, 0, k[i].count, in, k[i].work, "w", "m.zm:1:2", 0};
            CHECK(comm_start(c, &call, &op[i], &e) == RT_OK);
        }
        for (int i = N - 1; i > 0; i--) {
            int j = (int)(mix((uint32_t)comm_rank(c), (uint32_t)round, i) % (uint32_t)(i + 1));
            int kept = order[i];
            order[i] = order[j];
            order[j] = kept;
        }
        for (int i = 0; i < N; i++) {
            int j = order[i];
            size_t at = j % 3 == 2 ? (size_t)k[j].first * k[j].b : 0;
            size_t n = j % 3 == 2 ? (size_t)k[j].n * k[j].b : k[j].n_bytes;
            CHECK(comm_poll(c, &e) == RT_OK && comm_wait(c, op[j], &e) == RT_OK);
            CHECK(!memcmp(k[j].work, k[j].sum + at, n));
        }
        for (int i = 0; i < N; i++) case_free(&k[i]);
    }
}

#endif
