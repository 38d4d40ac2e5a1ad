/* cuda_driver.c -- see cuda_driver.h. */
#include "runtime/cuda_driver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static bool load_symbol(void *handle, const char *name, void *fn)
{
    void *at = dlsym(handle, name);
    memcpy(fn, &at, sizeof at); /* ISO C has no cast from object to function pointer */
    return at != NULL;
}

static RtStatus load_all(CuDriver *d, RtError *e)
{
    const char *missing = NULL;
#define CU_LOAD(NAME, SYMBOL, PARAMS)                                                              \
    if (!load_symbol(d->handle, SYMBOL, &d->NAME)) missing = SYMBOL;
    CU_DRIVER(CU_LOAD)
#undef CU_LOAD
    if (!missing) return RT_OK;
    return RT_FAIL(e, RT_BAD,
                   "libcuda.so.1 has no %s: the NVIDIA driver is too old for this program; install "
                   "a current one (https://www.nvidia.com/drivers)",
                   missing);
}

RtStatus cuda_driver_open(CuDriver *d, const char *cure, RtError *e)
{
    char text[256];
    *d = (CuDriver){.handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)};
    if (!d->handle)
        return RT_FAIL(e, RT_BAD,
                       "this program runs on an NVIDIA GPU, and its driver is missing: %s; install "
                       "it (https://www.nvidia.com/drivers), or %s",
                       dlerror(), cure);
    RT_TRY(load_all(d, e));
    int error = d->init(0);
    if (error == CU_OK) return RT_OK;
    cuda_driver_error(d, error, text, sizeof text);
    return RT_FAIL(e, RT_BAD,
                   "the NVIDIA driver finds no GPU to work on: %s; `nvidia-smi` lists what it sees "
                   "(CUDA_VISIBLE_DEVICES hides others), or %s",
                   text, cure);
}

void cuda_driver_error(const CuDriver *d, int error, char *out, size_t n)
{
    const char *name = NULL, *text = NULL;
    d->error_name(error, &name);
    d->error_text(error, &text);
    snprintf(out, n, "%s: %s", name ? name : "an unknown error", text ? text : "no text");
}
