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
#include <unistd.h>

#include "codegen/cpu/cpu.h"
#include "tests/unit/test_memory.h"

/* A module of kernels, compiled and loaded. */
typedef struct Loaded {
    Arena arena;
    CpuModule *m;
    void *handle;
    char dir[64];
} Loaded;

/* A module for the target `name`. */
static inline void loaded_open(Loaded *l, Arena *a, Diag *diag, const char *name, CpuTarget *t)
{
    *l = (Loaded){.handle = NULL};
    ZM_CHECK(cpu_target_from_name(a, diag, name, t) == ZM_OK);
    snprintf(l->dir, sizeof l->dir, "/tmp/zm_cpu_test_XXXXXX");
    ZM_CHECK(mkdtemp(l->dir) != NULL);
    l->m = cpu_module_new(&l->arena, t, "test");
}

/* Compiles, and loads where this host runs the target; else handle stays NULL and it says so. */
static inline Status loaded_link(Loaded *l, Diag *diag)
{
    char path[128], so[128], command[512];
    snprintf(path, sizeof path, "%s/k.o", l->dir);
    snprintf(so, sizeof so, "%s/k.so", l->dir);
    ZM_TRY(cpu_module_write(l->m, diag, path));
    if (!cpu_target_runs_here(l->m->target)) {
        printf("%s: compiled, not run: not this host\n", l->m->target->name);
        return ZM_OK;
    }
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
