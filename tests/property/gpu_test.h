/* gpu_test.h -- for tests of whole programs on the simulator: it stands for the driver in this
 * process, and what it reports is counted.  $ZMC_GPU=driver: on the machine's own driver. */
#ifndef ZM_TESTS_GPU_TEST_H
#define ZM_TESTS_GPU_TEST_H

#include "codegen/cuda/cuda.h"
#include "tests/unit/gpusim_driver.h"
#include "tools/zm-run/gpu_program.h"

enum { GPU_EXIT_SKIP = 77 };

typedef struct GpuTest {
    void *library; /* of the driver */
    bool is_machines;
} GpuTest;

/* Of the simulator, so far. */
static inline unsigned long gpu_test_reports(const GpuTest *g)
{
    unsigned long (*reports)(void);
    if (g->is_machines) return 0;
    driver_symbol(g->library, "gpusim_report_count", &reports);
    return reports();
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
    driver_test_settings();
    g->is_machines = driver_is_machines();
    g->library = driver_library(g->is_machines);
    if (!g->library) {
        fprintf(stderr, "%s: no driver: %s\n", name, dlerror());
        exit(1);
    }
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
