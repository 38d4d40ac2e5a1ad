/* init.c -- see init.h.
 *
 * Elements 2i and 2i + 1 share one Philox block: counter (i low, i high, H low, H high), key (seed
 * low, seed high), where H = hash_bytes(name, length, 0).  Its words give two uniforms of 52 bits,
 * in (0, 1): u = (first word : upper 20 bits of second + 1/2) / 2^52
 *   normal   a sqrt(-2 ln u1) cos(2 pi u2) for the even element, sin for the odd one (Box and
 *            Muller, 1958), in f64, rounded once
 *   uniform  a (2 u1 - 1) and a (2 u2 - 1)
 *
 * Logarithm, sine and cosine are series of plain operations, so that loops over pairs become
 * vectors and every CPU gives the same bits (no library's choice by CPU, no contraction: ISO mode
 * of the compiler). */
#include "runtime/init.h"

#include <math.h>
#include <string.h>

#include "ir/base/philox.h"
#include "runtime/convert.h"

enum { CHUNK_ELEMS = 1 << 14, BLOCK_PAIRS = 64 };

#define INLINE static inline __attribute__((always_inline))

INLINE double from_bits(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

INLINE uint64_t to_bits(double d)
{
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    return bits;
}

/* [1, 2) holds 52 bits exactly; so does what is left without the 1, and half a step more. */
INLINE double uniform52(uint32_t hi, uint32_t lo)
{
    uint64_t bits = (uint64_t)hi << 20 | lo >> 12;
    return from_bits(UINT64_C(0x3ff) << 52 | bits) - 1 + 0x1p-53;
}

/* ln u for 0 < u < 1: u = 2^e m, sqrt(1/2) <= m < sqrt(2), s = (m - 1) / (m + 1) <= 0.172:
 * ln m = 2 (s + s^3/3 + s^5/5 + ...); the first term left out is below 2^-60 of the sum. */
INLINE double log_unit(double u)
{
    uint64_t shifted = to_bits(u) - to_bits(0.70710678118654752440) + (UINT64_C(0x3ff) << 52);
    double e = (double)(int32_t)((uint32_t)(shifted >> 52) - 0x3ff);
    double m = from_bits((shifted & ((UINT64_C(1) << 52) - 1)) + to_bits(0.70710678118654752440));
    double s = (m - 1) / (m + 1), z = s * s, sum = 1.0 / 23;
    for (int k = 21; k >= 3; k -= 2) sum = sum * z + 1.0 / k;
    double tail = 2 * s * z * sum;
    return e * 0x1.62e42fefa3800p-1 + (e * 0x1.ef35793c76730p-45 + tail + 2 * s);
}

/* cos and sin of 2 pi u, 0 < u < 1.  Quarter turns come off exactly; |t| <= pi/4 is left, whose
 * series end below 2^-60. */
INLINE void cos_sin_turns(double u, double *c, double *s)
{
    int32_t quarter = (int32_t)(4 * u + 0.5);
    double t = 6.28318530717958647693 * (u - 0.25 * quarter), z = t * t;
    double cos_t = 1, sin_t = 1;
    for (int k = 18; k >= 2; k -= 2) {
        cos_t = 1 - cos_t * (z * (1.0 / (k * (k - 1))));
        sin_t = 1 - sin_t * (z * (1.0 / (k * (k + 1))));
    }
    sin_t *= t;
    double x = quarter & 1 ? sin_t : cos_t, y = quarter & 1 ? cos_t : sin_t;
    *c = (quarter + 1) & 2 ? -x : x;
    *s = quarter & 2 ? -y : y;
}

typedef struct Draw {
    uint32_t init;
    uint64_t seed, hash;
} Draw;

/* Both elements of pairs first .. first + BLOCK_PAIRS - 1, before the factor a. */
INLINE void draw_block(const Draw *d, uint64_t first, double *out)
{
    double u1[BLOCK_PAIRS], u2[BLOCK_PAIRS];
    for (int j = 0; j < BLOCK_PAIRS; j++) {
        uint64_t i = first + (uint64_t)j;
        Philox r = philox((uint32_t)i, (uint32_t)(i >> 32), (uint32_t)d->hash,
                          (uint32_t)(d->hash >> 32), (uint32_t)d->seed, (uint32_t)(d->seed >> 32));
        u1[j] = uniform52(r.x[0], r.x[1]);
        u2[j] = uniform52(r.x[2], r.x[3]);
    }
    if (d->init == ZMP_UNIFORM) {
        for (int j = 0; j < BLOCK_PAIRS; j++) {
            out[2 * j] = 2 * u1[j] - 1;
            out[2 * j + 1] = 2 * u2[j] - 1;
        }
        return;
    }
    for (int j = 0; j < BLOCK_PAIRS; j++) {
        double c, s, radius = sqrt(-2 * log_unit(u1[j]));
        cos_sin_turns(u2[j], &c, &s);
        out[2 * j] = radius * c;
        out[2 * j + 1] = radius * s;
    }
}

static void draw_plain(const Draw *d, uint64_t first, double *out)
{
    draw_block(d, first, out);
}

#if defined(__x86_64__)

__attribute__((target("avx512f,avx512dq,avx512vl"))) static void
draw_v4(const Draw *d, uint64_t first, double *out)
{
    draw_block(d, first, out);
}

__attribute__((target("avx2"))) static void draw_v3(const Draw *d, uint64_t first, double *out)
{
    draw_block(d, first, out);
}

static void draw(const Draw *d, uint64_t first, double *out)
{
    if (__builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        draw_v4(d, first, out);
    else if (__builtin_cpu_supports("avx2"))
        draw_v3(d, first, out);
    else
        draw_plain(d, first, out);
}

#else

static void draw(const Draw *d, uint64_t first, double *out)
{
    draw_plain(d, first, out);
}

#endif

void init_elements(float *out, const char *name, uint32_t init, double a, uint64_t seed,
                   int64_t first, int64_t n)
{
    if (init != ZMP_NORMAL && init != ZMP_UNIFORM) {
        float value = init == ZMP_ONES ? 1.0f : init == ZMP_CONST ? (float)a : 0.0f;
        for (int64_t i = 0; i < n; i++) out[i] = value;
        return;
    }
    Draw d = {init, seed, hash_bytes(name, strlen(name), 0)};
    double block[2 * BLOCK_PAIRS];
    for (int64_t done = 0; done < n;) {
        int64_t at = (first + done) % 2, count = 2 * BLOCK_PAIRS - at;
        if (count > n - done) count = n - done;
        draw(&d, (uint64_t)(first + done) / 2, block);
        for (int64_t k = 0; k < count; k++) out[done + k] = (float)(a * block[at + k]);
        done += count;
    }
}

typedef struct InitJob {
    const StateTensor *t;
    uint64_t seed;
} InitJob;

static void init_chunk(const void *job, int64_t task)
{
    const InitJob *j = job;
    float buf[CHUNK_ELEMS];
    int64_t done = task * CHUNK_ELEMS, first = j->t->first + done;
    int64_t n = j->t->n - done < CHUNK_ELEMS ? j->t->n - done : CHUNK_ELEMS;
    init_elements(buf, j->t->path, j->t->shape->init, j->t->shape->init_a, j->seed, first, n);
    convert_from_f32(state_at(j->t, first), j->t->dtype, buf, (size_t)n);
}

void init_state(const Exec *x, const State *s, uint64_t seed, bool has_params)
{
    for (uint32_t i = 0; i < s->all.n; i++) {
        const StateTensor *t = &s->all.at[i];
        if (t->kind == ZMP_SCALAR) {
            double value = t->shape->init == ZMP_ONES    ? 1
                           : t->shape->init == ZMP_CONST ? t->shape->init_a
                                                         : 0;
            for (int64_t k = 0; k < t->shape->elems; k++)
                scalar_set(t->at + k * zmp_dtype_bytes(t->dtype), t->dtype, value);
            exec_put(x, t->at, t->shape->elems * zmp_dtype_bytes(t->dtype));
            continue;
        }
        if (t->kind != ZMP_PARAM && t->kind != ZMP_MASTER) continue; /* moments start at 0 */
        if (t->shape->init == ZMP_ZEROS || !has_params) continue;
        InitJob job = {t, seed};
        pool_run_job(x->pool, init_chunk, &job, (t->n + CHUNK_ELEMS - 1) / CHUNK_ELEMS);
        exec_put(x, t->at, t->n * zmp_dtype_bytes(t->dtype));
        state_forget(s, t);
    }
}
