/* gpu_test.h -- for tests of whole programs on the simulator: it stands for the driver in this
 * process, and what it reports is counted.  $ZMC_GPU=driver: on the machine's own driver. */
#ifndef ZM_TESTS_GPU_TEST_H
#define ZM_TESTS_GPU_TEST_H

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codegen/cuda/cuda.h"
#include "tests/unit/gpusim_driver.h"
#include "tools/zm-run/gpu_program.h"

enum { GPU_EXIT_SKIP = 77 };

typedef struct GpuTest {
    unsigned long (*reports)(void); /* of the simulator, so far */
    char folder[PATH_MAX];          /* of this program */
} GpuTest;

static inline unsigned long no_reports(void)
{
    return 0;
}

/* False, and says so: no NVRTC.  Opened by its path the simulator is libcuda.so.1 by its SONAME. */
static inline bool gpu_test_open(GpuTest *g, const char *name)
{
    Arena a = {0};
    Nvrtc nvrtc;
    Str why = {0};
    bool is_found = nvrtc_find(&a, &nvrtc, &why);
    if (!is_found) printf("SKIP %s: NVRTC not found (%s)\n", name, str_c(&why));
    str_free(&why);
    ssize_t n = readlink("/proc/self/exe", g->folder, sizeof g->folder - 1);
    g->folder[n < 0 ? 0 : n] = '\0';
    if (strrchr(g->folder, '/')) *strrchr(g->folder, '/') = '\0';
    setenv("ZMC_CACHE", arena_printf(&a, "%s/nvrtc-cache", g->folder), 0);
    setenv("GPUSIM_ARCH", "120", 0); /* runs the PTX of all */
    g->reports = no_reports;
    if (driver_is_machines()) {
        arena_free(&a);
        return is_found;
    }
    void *library =
        dlopen(arena_printf(&a, "%s/gpusim/libcuda.so.1", g->folder), RTLD_NOW | RTLD_GLOBAL);
    void *at = library ? dlsym(library, "gpusim_report_count") : NULL;
    if (!at) {
        fprintf(stderr, "%s: no simulator: %s\n", name, dlerror());
        exit(1);
    }
    memcpy(&g->reports, &at, sizeof at);
    arena_free(&a);
    return is_found;
}

/* A target whose kernels come as PTX alone: "compute_80". */
static inline CodegenTarget gpu_test_target(Arena *a, Diag *d, const char *arch)
{
    CodegenTarget t;
    ZM_CHECK(codegen_target_init(&t, a, d, "cuda", NULL) == ZM_OK);
    t.arch = arch;
    return t;
}

#endif
