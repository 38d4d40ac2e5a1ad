/* test_memory.h -- for tests of the back ends: buffers between inaccessible pages, numbers in them.
 */
#ifndef ZM_TESTS_TEST_MEMORY_H
#define ZM_TESTS_TEST_MEMORY_H

#include <string.h>
#include <sys/mman.h>

#include "codegen/kernel.h"

enum { GUARD_PAGE = 4096 };

/* A buffer between two inaccessible pages. */
typedef struct Guarded {
    char *map;
    size_t map_bytes;
    char *at;
    size_t n_bytes;
} Guarded;

static inline Guarded guarded_new(size_t n_bytes, size_t align, bool at_start)
{
    Guarded g = {.n_bytes = n_bytes};
    size_t body = (n_bytes + GUARD_PAGE - 1) / GUARD_PAGE * GUARD_PAGE;
    if (body == 0) body = GUARD_PAGE;
    g.map_bytes = body + 2 * GUARD_PAGE;
    g.map = mmap(NULL, g.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ZM_CHECK(g.map != MAP_FAILED);
    ZM_CHECK(mprotect(g.map, GUARD_PAGE, PROT_NONE) == 0);
    ZM_CHECK(mprotect(g.map + GUARD_PAGE + body, GUARD_PAGE, PROT_NONE) == 0);
    size_t offset = at_start ? 0 : (body - n_bytes) / align * align;
    g.at = g.map + GUARD_PAGE + offset;
    return g;
}

static inline void guarded_free(Guarded *g)
{
    munmap(g->map, g->map_bytes);
}

static inline uint32_t test_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*state >> 33);
}

static inline double test_uniform(uint64_t *state) /* in (-1, 1), exact in 16 bits */
{
    return ((double)(test_random(state) % 255) - 127) / 128;
}

/* Element i of memory of a dtype (16 bits: v must be exact in it). */
static inline double mem_get(const char *at, DType dt, int64_t i)
{
    if (dt == DT_F32) return (double)((const float *)at)[i];
    if (dt == DT_F64) return ((const double *)at)[i];
    if (dt == DT_I32) return ((const int32_t *)at)[i];
    if (dt == DT_I1) return at[i];
    if (dt == DT_F16) return (double)((const _Float16 *)at)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)at)[i] << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return (double)f;
}

static inline void mem_set(char *at, DType dt, int64_t i, double v)
{
    if (dt == DT_F32) ((float *)at)[i] = (float)v;
    if (dt == DT_F64) ((double *)at)[i] = v;
    if (dt == DT_I32) ((int32_t *)at)[i] = (int32_t)v;
    if (dt == DT_I1) at[i] = v != 0;
    if (dt == DT_F16) ((_Float16 *)at)[i] = (_Float16)v;
    if (dt == DT_BF16) { /* v is exact in bf16 */
        float f = (float)v;
        uint32_t bits;
        memcpy(&bits, &f, sizeof f);
        ((uint16_t *)at)[i] = (uint16_t)(bits >> 16);
    }
}

#endif
