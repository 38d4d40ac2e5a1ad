/* gpusim_driver.h -- for tests: the simulator of build/gpusim, opened as libcuda.so.1 is; or the
 * machine's own driver. */
#ifndef ZM_TESTS_GPUSIM_DRIVER_H
#define ZM_TESTS_GPUSIM_DRIVER_H

#include <dlfcn.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/gpusim/api.h"
#include "tests/gpusim/gpusim.h"

#define GPUSIM_FIELD(NAME, PARAMS) CUresult(*NAME) PARAMS;
typedef struct Driver {
    CU_FUNCTIONS(GPUSIM_FIELD)
    bool is_machines; /* own driver: the next three are not there */
    unsigned long (*reports)(void);
    void *(*host_address)(uint64_t address, size_t bytes);
    int (*enqueue)(void *stream, const char *name, GpusimPoll (*fn)(void *arg), void *arg,
                   const GpusimRange *ranges, size_t n_ranges);
    CUcontext context; /* of device 0, current */
} Driver;
#undef GPUSIM_FIELD

static inline void driver_symbol(void *library, const char *name, void *fn)
{
    void *at = dlsym(library, name);
    if (!at) {
        fprintf(stderr, "the driver lacks %s\n", name);
        exit(1);
    }
    memcpy(fn, &at, sizeof at);
}

#define DRIVER_TRY(CALL)                                                                           \
    do {                                                                                           \
        CUresult rc_of_call = (CALL);                                                              \
        if (rc_of_call != CUDA_SUCCESS) {                                                          \
            fprintf(stderr, "%s:%d: %s gives %d\n", __FILE__, __LINE__, #CALL, rc_of_call);        \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* What $ZMC_GPU=driver asks for (tools/gpu-check): kernels run on this machine's GPU. */
static inline bool driver_is_machines(void)
{
    const char *which = getenv("ZMC_GPU");
    return which && strcmp(which, "driver") == 0;
}

/* Folder of the test's program. */
static inline void driver_folder(char path[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 1);
    path[n < 0 ? 0 : n] = 0;
    char *slash = strrchr(path, '/');
    if (slash) *slash = 0;
}

/* Before the driver is opened: what NVRTC makes is kept beside the program, and the simulator takes
 * the PTX of every architecture. */
static inline void driver_test_settings(void)
{
    char path[PATH_MAX], full[PATH_MAX + 32];
    driver_folder(path);
    snprintf(full, sizeof full, "%s/nvrtc-cache", path);
    setenv("ZMC_CACHE", full, 0);
    setenv("GPUSIM_ARCH", "120", 0);
}

/* Handle of libcuda.so.1; NULL: dlerror() says why. */
static inline void *driver_library(bool is_machines)
{
    char path[PATH_MAX], full[PATH_MAX + 32];
    if (is_machines) return dlopen("libcuda.so.1", RTLD_NOW);
    unsetenv("CUDA_VISIBLE_DEVICES"); /* chooses among this machine's, not the simulator's */
    driver_folder(path);
    snprintf(full, sizeof full, "%s/gpusim/libcuda.so.1", path);
    return dlopen(full, RTLD_NOW);
}

static inline void driver_open_library(Driver *d, bool is_machines)
{
    void *library = driver_library(is_machines);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    d->is_machines = is_machines;
#define GPUSIM_LOAD(NAME, PARAMS) driver_symbol(library, #NAME, &d->NAME);
    CU_FUNCTIONS(GPUSIM_LOAD)
#undef GPUSIM_LOAD
    if (!is_machines) {
        driver_symbol(library, "gpusim_report_count", &d->reports);
        driver_symbol(library, "gpusim_host_address", &d->host_address);
        driver_symbol(library, "gpusim_enqueue", &d->enqueue);
    }
    DRIVER_TRY(d->cuInit(0));
    DRIVER_TRY(d->cuCtxCreate_v2(&d->context, 0, 0));
}

/* The simulator, beside the test's program, initialised, with a current context. */
static inline void driver_open(Driver *d)
{
    driver_open_library(d, false);
}

/* The simulator, or the machine's own driver where that is asked for. */
static inline void driver_open_gpu(Driver *d)
{
    driver_open_library(d, driver_is_machines());
}

static inline unsigned long driver_reports(const Driver *d)
{
    return d->is_machines ? 0 : d->reports();
}

#endif
