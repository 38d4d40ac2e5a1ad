/* peaks.c -- see peaks.h.
 *
 * Multiply-adds: independent vector accumulators, enough to hide a latency of 4 to 5 cycles (of
 * bf16 pairs 6) on two units; 16 floats a vector where the CPU has AVX-512, 8 with FMA, else a
 * multiplication and an addition of 4.  Traffic: threads sweep parts of two buffers that no cache
 * holds. */
#include "runtime/peaks.h"

#include <stdio.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "runtime/memory.h"
#include "runtime/progress.h"

enum {
    FMA_TURNS = 100000,
    ACCUMULATORS = 10,
    ACCUMULATORS_BF16 = 14,
    HALF_BYTES = 96 << 20, /* of each of the two buffers */
    CHUNK_BYTES = 1 << 20,
    N_CHUNKS = HALF_BYTES / CHUNK_BYTES
};

typedef struct PeakJob {
    char *to;
    const char *from;
    float *sink; /* one float a task: results are kept, so that they are computed */
} PeakJob;

#if defined(__x86_64__)

/* The empty assembly keeps every turn: nothing may assume what it left in the register.  Named
 * accumulators, because an array of them would live in memory. */
#define STEP(A, FMA)                                                                               \
    A = FMA(A, f, g);                                                                              \
    __asm__("" : "+v"(A))
#define FMA_LOOP(NAME, TARGET, V, SPLAT, FMA, WIDTH)                                               \
    TARGET static double NAME(float *sink)                                                         \
    {                                                                                              \
        V f = SPLAT(0.5f), g = SPLAT(0.25f), a = g, b = g, c = g, d = g, e = g;                    \
        V h = g, i = g, j = g, k = g, l = g;                                                       \
        for (int t = 0; t < FMA_TURNS; t++) {                                                      \
            STEP(a, FMA);                                                                          \
            STEP(b, FMA);                                                                          \
            STEP(c, FMA);                                                                          \
            STEP(d, FMA);                                                                          \
            STEP(e, FMA);                                                                          \
            STEP(h, FMA);                                                                          \
            STEP(i, FMA);                                                                          \
            STEP(j, FMA);                                                                          \
            STEP(k, FMA);                                                                          \
            STEP(l, FMA);                                                                          \
        }                                                                                          \
        a += b + c + d + e + h + i + j + k + l;                                                    \
        *sink = a[0];                                                                              \
        return 2.0 * WIDTH * ACCUMULATORS * FMA_TURNS;                                             \
    }
#define MULTIPLY_ADD(a, f, g) ((a) * (f) + (g))

FMA_LOOP(fma_v4, __attribute__((target("avx512f"))), __m512, _mm512_set1_ps, _mm512_fmadd_ps, 16)
FMA_LOOP(fma_v3, __attribute__((target("avx2,fma"))), __m256, _mm256_set1_ps, _mm256_fmadd_ps, 8)
FMA_LOOP(fma_v2, , __m128, _mm_set1_ps, MULTIPLY_ADD, 4)

#define PAIRS(acc, f, g) _mm512_dpbf16_ps(acc, (__m512bh)(f), (__m512bh)(g))
__attribute__((target("avx512f,avx512bf16"))) static double pairs_v4(float *sink)
{
    __m512 f = _mm512_set1_ps(0.5f), g = f, a = f, b = f, c = f, d = f, e = f, h = f;
    __m512 i = f, j = f, k = f, l = f, m = f, n = f, o = f, p = f;
    for (int t = 0; t < FMA_TURNS; t++) {
        STEP(a, PAIRS);
        STEP(b, PAIRS);
        STEP(c, PAIRS);
        STEP(d, PAIRS);
        STEP(e, PAIRS);
        STEP(h, PAIRS);
        STEP(i, PAIRS);
        STEP(j, PAIRS);
        STEP(k, PAIRS);
        STEP(l, PAIRS);
        STEP(m, PAIRS);
        STEP(n, PAIRS);
        STEP(o, PAIRS);
        STEP(p, PAIRS);
    }
    a += b + c + d + e + h + i + j + k + l + m + n + o + p;
    *sink = a[0];
    return 2.0 * 32 * ACCUMULATORS_BF16 * FMA_TURNS;
}

/* 0: the CPU has no such instruction. */
static double pairs_run(float *sink)
{
    return __builtin_cpu_supports("avx512bf16") ? pairs_v4(sink) : 0;
}

static double fma_run(float *sink)
{
    if (__builtin_cpu_supports("avx512f")) return fma_v4(sink);
    return __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2") ? fma_v3(sink)
                                                                           : fma_v2(sink);
}

static void stream_bytes(char *to, const char *from, size_t n)
{
    for (size_t i = 0; i < n; i += sizeof(__m128i))
        _mm_stream_si128((__m128i *)(to + i), _mm_load_si128((const __m128i *)(from + i)));
    _mm_sfence();
}

static float sum_bytes(const char *from, size_t n)
{
    __m128 acc[8] = {0};
    for (size_t i = 0; i < n; i += sizeof acc)
        for (size_t k = 0; k < 8; k++)
            acc[k] += _mm_load_ps((const float *)(const void *)(from + i) + 4 * k);
    for (int k = 1; k < 8; k++) acc[0] += acc[k];
    return acc[0][0];
}

#else

static double pairs_run(float *sink)
{
    *sink = 0;
    return 0;
}

static double fma_run(float *sink)
{
    float acc[ACCUMULATORS] = {0};
    for (int t = 0; t < FMA_TURNS; t++)
        for (int i = 0; i < ACCUMULATORS; i++) acc[i] = acc[i] * 0.5f + 0.25f;
    for (int i = 0; i < ACCUMULATORS; i++) *sink += acc[i];
    return 2.0 * ACCUMULATORS * FMA_TURNS;
}

static void stream_bytes(char *to, const char *from, size_t n)
{
    memcpy(to, from, n);
}

static float sum_bytes(const char *from, size_t n)
{
    const float *v = (const void *)from;
    float sum = 0;
    for (size_t i = 0; i < n / sizeof *v; i++) sum += v[i];
    return sum;
}

#endif

static void fma_task(const void *job, int64_t task)
{
    const PeakJob *j = job;
    fma_run(&j->sink[task]);
}

static void pairs_task(const void *job, int64_t task)
{
    const PeakJob *j = job;
    pairs_run(&j->sink[task]);
}

static void read_task(const void *job, int64_t task)
{
    const PeakJob *j = job;
    j->sink[task] = sum_bytes(j->from + task * CHUNK_BYTES, CHUNK_BYTES);
}

static void copy_task(const void *job, int64_t task)
{
    const PeakJob *j = job;
    memcpy(j->to + task * CHUNK_BYTES, j->from + task * CHUNK_BYTES, CHUNK_BYTES);
}

static void stream_task(const void *job, int64_t task)
{
    const PeakJob *j = job;
    stream_bytes(j->to + task * CHUNK_BYTES, j->from + task * CHUNK_BYTES, CHUNK_BYTES);
}

/* The greatest of n / seconds over `rounds` calls. */
static void keep_best(double *best, double n, double started)
{
    double took = now_seconds() - started;
    if (took > 0 && n / took > *best) *best = n / took;
}

static void measure_round(Peaks *p, Pool *pool, const PeakJob *j)
{
    double t = now_seconds();
    double n = fma_run(j->sink);
    keep_best(&p->flops_one, n, t);
    t = now_seconds();
    pool_run_job(pool, fma_task, j, p->threads);
    keep_best(&p->flops, n * p->threads, t);
    n = pairs_run(j->sink);
    t = now_seconds();
    if (n > 0) pool_run_job(pool, pairs_task, j, p->threads);
    keep_best(&p->flops_bf16, n * p->threads, t);
    t = now_seconds();
    pool_run_job(pool, read_task, j, N_CHUNKS);
    keep_best(&p->read_bytes_s, HALF_BYTES, t);
    t = now_seconds();
    pool_run_job(pool, copy_task, j, N_CHUNKS);
    keep_best(&p->copy_bytes_s, 2.0 * HALF_BYTES, t);
    t = now_seconds();
    pool_run_job(pool, stream_task, j, N_CHUNKS);
    keep_best(&p->stream_bytes_s, 2.0 * HALF_BYTES, t);
}

/* "AMD EPYC, family 25, model 17, stepping 1": what a stored measurement belongs to. */
void peaks_cpu(char *out, size_t n)
{
    static const char *const keys[] = {"model name", "cpu family", "model", "stepping"};
    char found[4][64] = {"", "", "", ""}, line[256], key[64], value[64];
    FILE *in = fopen("/proc/cpuinfo", "re");
    while (in && fgets(line, sizeof line, in)) {
        if (line[0] == '\n') break; /* the first CPU only */
        if (sscanf(line, "%63[^\t:]%*[\t :]%63[^\n]", key, value) != 2) continue;
        for (int i = 0; i < 4; i++)
            if (strcmp(key, keys[i]) == 0) memcpy(found[i], value, sizeof value);
    }
    if (in) fclose(in);
    snprintf(out, n, "%s, family %s, model %s, stepping %s", found[0], found[1], found[2],
             found[3]);
}

RtStatus peaks_measure(Peaks *p, Pool *pool, double seconds, RtError *e)
{
    *p = (Peaks){.threads = pool_n_threads(pool)};
    peaks_cpu(p->cpu, sizeof p->cpu);
    size_t n_sinks = N_CHUNKS > p->threads ? N_CHUNKS : (size_t)p->threads;
    Memory m;
    RT_TRY(memory_map(&m, 2 * (size_t)HALF_BYTES + n_sinks * sizeof(float), "the test of --profile",
                      e));
    PeakJob j = {
        .to = m.at, .from = m.at + HALF_BYTES, .sink = (void *)(m.at + 2 * (size_t)HALF_BYTES)};
    double started = now_seconds();
    do measure_round(p, pool, &j);
    while (now_seconds() - started < seconds);
    memory_unmap(&m);
    return RT_OK;
}

bool peaks_has_bf16(void)
{
    float sink;
    return pairs_run(&sink) > 0;
}

double peaks_bandwidth(const Peaks *p)
{
    double best = p->read_bytes_s > p->copy_bytes_s ? p->read_bytes_s : p->copy_bytes_s;
    return best > p->stream_bytes_s ? best : p->stream_bytes_s;
}
