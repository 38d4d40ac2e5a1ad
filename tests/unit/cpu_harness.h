/* cpu_harness.h -- for tests of the CPU back end: compiles hand-built kernels, loads them, and runs
 * their phases over buffers that end (or begin) at an inaccessible page, in the order of one thread
 * or of two. */
#ifndef ZM_TESTS_CPU_HARNESS_H
#define ZM_TESTS_CPU_HARNESS_H

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "codegen/cpu/cpu.h"

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

static inline double test_uniform(uint64_t *state) /* in (-1, 1), exact in bf16 */
{
    return ((double)(test_random(state) % 255) - 127) / 128;
}

/* Element i of memory of a dtype (bf16: v must be exact in it). */
static inline double mem_get(const char *at, DType dt, int64_t i)
{
    if (dt == DT_F32) return (double)((const float *)at)[i];
    if (dt == DT_F64) return ((const double *)at)[i];
    if (dt == DT_I32) return ((const int32_t *)at)[i];
    if (dt == DT_I1) return at[i];
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
    if (dt == DT_BF16) { /* v is exact in bf16 */
        float f = (float)v;
        uint32_t bits;
        memcpy(&bits, &f, sizeof f);
        ((uint16_t *)at)[i] = (uint16_t)(bits >> 16);
    }
}

/* A module of kernels, compiled and loaded. */
typedef struct Loaded {
    Arena arena;
    CpuModule *m;
    void *handle;
    char dir[64];
} Loaded;

static inline Loaded loaded_new(const CpuTarget *t)
{
    Loaded l = {.handle = NULL};
    snprintf(l.dir, sizeof l.dir, "/tmp/zm_cpu_test_XXXXXX");
    ZM_CHECK(mkdtemp(l.dir) != NULL);
    l.m = NULL;
    (void)t;
    return l;
}

static inline Status loaded_link(Loaded *l, Diag *diag)
{
    char path[128], so[128], command[512];
    snprintf(path, sizeof path, "%s/k.o", l->dir);
    snprintf(so, sizeof so, "%s/k.so", l->dir);
    ZM_TRY(cpu_module_write(l->m, diag, path));
    snprintf(command, sizeof command, "cc -shared -o %s %s -lm", so, path);
    ZM_CHECK(system(command) == 0);
    l->handle = dlopen(so, RTLD_NOW);
    if (!l->handle) fprintf(stderr, "%s\n", dlerror());
    ZM_CHECK(l->handle != NULL);
    return ZM_OK;
}

static inline void loaded_free(Loaded *l)
{
    char command[128];
    if (l->handle) dlclose(l->handle);
    if (l->m) cpu_module_free(l->m);
    snprintf(command, sizeof command, "rm -r %s", l->dir);
    if (system(command) != 0) fprintf(stderr, "cannot remove %s\n", l->dir);
    arena_free(&l->arena);
}

/* Runs the kernel: as_two = tasks in a shuffled order over two scratch areas. */
static inline void kernel_run(const Loaded *l, const CpuKernelCode *code, char *const *bufs,
                              bool as_two)
{
    Guarded scratch[2];
    for (int i = 0; i < 2; i++) {
        size_t n = ((size_t)code->needs.scratch_bytes + 63) / 64 * 64;
        scratch[i] = guarded_new(n, 64, as_two);
        memset(scratch[i].at, 0xff, n); /* NaNs */
    }
    uint64_t state = 7;
    for (uint32_t p = 0; p < code->n_phases; p++) {
        ZmKernelFn fn;
        *(void **)&fn = dlsym(l->handle, code->fn[p]);
        ZM_CHECK(fn != NULL);
        int64_t n = code->n_tasks[p];
        int64_t *order = malloc((size_t)n * sizeof *order);
        for (int64_t i = 0; i < n; i++) order[i] = i;
        for (int64_t i = n - 1; as_two && i > 0; i--) {
            int64_t j = test_random(&state) % (i + 1), t = order[i];
            order[i] = order[j];
            order[j] = t;
        }
        for (int64_t i = 0; i < n; i++) fn(bufs, order[i], scratch[as_two ? i & 1 : 0].at);
        free(order);
    }
    guarded_free(&scratch[0]);
    guarded_free(&scratch[1]);
}

#endif
