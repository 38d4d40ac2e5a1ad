/* nccl_api.c -- see nccl_api.h. */
#include "runtime/nccl_api.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ir/base/nvidia.h"

#define NAME "libnccl.so.2"
#define GET                                                                                        \
    "`pip install nvidia-nccl-cu13` (nvidia-nccl-cu12 for a driver of CUDA 12) or your "           \
    "system's package libnccl2"

static void *open_in(const char *dir)
{
    char path[PATH_MAX];
    struct stat st;
    int n = snprintf(path, sizeof path, "%s/" NAME, dir);
    if ((size_t)n >= sizeof path || stat(path, &st) != 0) return NULL;
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static bool try_directory(void *self, const char *dir)
{
    void **handle = self;
    *handle = open_in(dir);
    return *handle != NULL;
}

static RtStatus find(void **handle, RtError *e)
{
    static const char *const wheels[] = {"nvidia/nccl/lib"};
    const char *set = getenv("ZMC_NCCL");
    struct stat st;
    if (set && *set) {
        bool is_dir = stat(set, &st) == 0 && S_ISDIR(st.st_mode);
        *handle = is_dir ? open_in(set) : dlopen(set, RTLD_NOW | RTLD_LOCAL);
        const char *why = *handle ? NULL : dlerror();
        return *handle
                   ? RT_OK
                   : RT_FAIL(e, RT_BAD,
                             "ZMC_NCCL is \"%s\", which is no " NAME
                             " and no folder that holds one%s%s; unset it (where there "
                             "is none, install " GET "), or set it to the library or its folder",
                             set, why ? ": " : "", why ? why : "");
    }
    *handle = dlopen(NAME, RTLD_NOW | RTLD_LOCAL);
    if (*handle || nvidia_search(wheels, 1, try_directory, handle)) return RT_OK;
    return RT_FAIL(e, RT_BAD,
                   "ranks on GPUs exchange data through NVIDIA's NCCL, and no " NAME
                   " is in " NVIDIA_PLACES "; install " GET ", or set ZMC_NCCL to the library");
}

static bool load_symbol(void *handle, const char *name, void *fn)
{
    void *at = dlsym(handle, name);
    memcpy(fn, &at, sizeof at); /* ISO C has no cast from object to function pointer */
    return at != NULL;
}

static RtStatus load_all(NcclLibrary *l, RtError *e)
{
    const char *missing = NULL;
#define NCCL_LOAD(MEMBER, SYMBOL, PARAMS)                                                          \
    if (!load_symbol(l->handle, SYMBOL, &l->MEMBER)) missing = SYMBOL;
    NCCL_API(NCCL_LOAD)
#undef NCCL_LOAD
    if (!load_symbol(l->handle, "ncclGetErrorString", &l->error_text))
        missing = "ncclGetErrorString";
    (void)load_symbol(l->handle, "ncclGetLastError", &l->last_error);
    if (!missing && (l->version(&l->number) != NCCL_OK || l->number < NCCL_OLDEST))
        missing = "version 2.18";
    if (!missing) return RT_OK;
    return RT_FAIL(e, RT_BAD,
                   NAME " is of version %d.%d and has no %s: 2.18 or later is needed; install " GET,
                   l->number / 10000, l->number / 100 % 100, missing);
}

RtStatus nccl_library_open(NcclLibrary *l, RtError *e)
{
    *l = (NcclLibrary){0};
    RT_TRY(find(&l->handle, e));
    return load_all(l, e);
}

NcclConfig nccl_config(void)
{
    return (NcclConfig){.size = sizeof(NcclConfig),
                        .magic = 0xcafebeef,
                        .version = NCCL_OLDEST,
                        .blocking = 0,
                        .cga_cluster_size = INT_MIN, /* here and below: not set */
                        .min_ctas = INT_MIN,
                        .max_ctas = INT_MIN,
                        .net_name = NULL,
                        .split_share = INT_MIN,
                        .unused = INT_MIN};
}
