/* init.c -- see init.h.
 *
 * Elements 2i and 2i + 1 share one Philox block: counter (i low, i high, H low, H high), key (seed
 * low, seed high), where H = hash_bytes(name, length, 0).  Its words give two uniforms of 52 bits,
 * in (0, 1): u = (first word : upper 20 bits of second + 1/2) / 2^52 normal   a sqrt(-2 ln u1)
 * cos(2 pi u2) for the even element, sin for the odd one (Box and Muller, 1958), in f64 uniform  a
 * (2 u1 - 1) and a (2 u2 - 1) */
#include "runtime/init.h"

#include <math.h>
#include <string.h>

#include "ir/base/philox.h"
#include "runtime/convert.h"

enum { CHUNK_ELEMS = 1 << 14 };

static double uniform52(uint32_t hi, uint32_t lo)
{
    uint64_t bits = (uint64_t)hi << 20 | lo >> 12;
    return ((double)bits + 0.5) * 0x1p-52;
}

/* Both elements of pair i, before the factor a. */
static void draw_pair(uint32_t init, uint64_t seed, uint64_t hash, uint64_t i, double out[2])
{
    Philox r = philox((uint32_t)i, (uint32_t)(i >> 32), (uint32_t)hash, (uint32_t)(hash >> 32),
                      (uint32_t)seed, (uint32_t)(seed >> 32));
    double u1 = uniform52(r.x[0], r.x[1]), u2 = uniform52(r.x[2], r.x[3]);
    if (init == ZMP_UNIFORM) {
        out[0] = 2 * u1 - 1;
        out[1] = 2 * u2 - 1;
        return;
    }
    double radius = sqrt(-2 * log(u1)), angle = 6.283185307179586476925 * u2;
    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}

void init_elements(float *out, const char *name, uint32_t init, double a, uint64_t seed,
                   int64_t first, int64_t n)
{
    if (init != ZMP_NORMAL && init != ZMP_UNIFORM) {
        float value = init == ZMP_ONES ? 1.0f : init == ZMP_CONST ? (float)a : 0.0f;
        for (int64_t i = 0; i < n; i++) out[i] = value;
        return;
    }
    uint64_t hash = hash_bytes(name, strlen(name), 0);
    double pair[2];
    for (int64_t i = 0; i < n; i++) {
        uint64_t element = (uint64_t)(first + i);
        if (i == 0 || element % 2 == 0) draw_pair(init, seed, hash, element / 2, pair);
        out[i] = (float)(a * pair[element % 2]);
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
    int64_t first = task * CHUNK_ELEMS;
    int64_t n = j->t->shape->elems - first < CHUNK_ELEMS ? j->t->shape->elems - first : CHUNK_ELEMS;
    init_elements(buf, j->t->path, j->t->shape->init, j->t->shape->init_a, j->seed, first, n);
    convert_from_f32(j->t->at + first * zmp_dtype_bytes(j->t->dtype), j->t->dtype, buf, (size_t)n);
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
            continue;
        }
        if (t->kind != ZMP_PARAM && t->kind != ZMP_MASTER) continue; /* moments start at 0 */
        if (t->shape->init == ZMP_ZEROS || !has_params) continue;
        InitJob job = {t, seed};
        pool_run_job(x->pool, init_chunk, &job, (t->shape->elems + CHUNK_ELEMS - 1) / CHUNK_ELEMS);
    }
}
