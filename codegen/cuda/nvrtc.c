/* nvrtc.c -- NVRTC behind dlopen: no header and no link dependency.  Prototypes: NVRTC's
 * documentation, https://docs.nvidia.com/cuda/nvrtc/. */
#include "codegen/cuda/cuda.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ir/base/nvidia.h"

typedef struct NvrtcProgram *NvrtcProgramRef; /* nvrtcProgram */
enum { NVRTC_SUCCESS = 0 };

struct NvrtcApi {
    int (*version)(int *major, int *minor);
    const char *(*error_text)(int result);
    int (*create)(NvrtcProgramRef *p, const char *src, const char *name, int n_headers,
                  const char *const *headers, const char *const *names);
    int (*destroy)(NvrtcProgramRef *p);
    int (*compile)(NvrtcProgramRef p, int n_options, const char *const *options);
    int (*ptx_size)(NvrtcProgramRef p, size_t *n);
    int (*ptx)(NvrtcProgramRef p, char *out);
    int (*cubin_size)(NvrtcProgramRef p, size_t *n);
    int (*cubin)(NvrtcProgramRef p, char *out);
    int (*log_size)(NvrtcProgramRef p, size_t *n);
    int (*log)(NvrtcProgramRef p, char *out);
    int (*n_archs)(int *n); /* both or neither: since CUDA 11.2 */
    int (*archs)(int *out);
};

static const char *const library_names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
enum { N_LIBRARY_NAMES = sizeof library_names / sizeof library_names[0] };

/* ---- opening ---- */

static bool load_symbol(void *library, const char *name, void *fn)
{
    void *at = dlsym(library, name);
    memcpy(fn, &at, sizeof at); /* ISO C has no cast from object to function pointer */
    return at != NULL;
}

static const NvrtcApi *load_api(Arena *a, void *library)
{
    NvrtcApi *api = ARENA_NEW(a, NvrtcApi);
    bool ok = load_symbol(library, "nvrtcVersion", &api->version) &&
              load_symbol(library, "nvrtcGetErrorString", &api->error_text) &&
              load_symbol(library, "nvrtcCreateProgram", &api->create) &&
              load_symbol(library, "nvrtcDestroyProgram", &api->destroy) &&
              load_symbol(library, "nvrtcCompileProgram", &api->compile) &&
              load_symbol(library, "nvrtcGetPTXSize", &api->ptx_size) &&
              load_symbol(library, "nvrtcGetPTX", &api->ptx) &&
              load_symbol(library, "nvrtcGetCUBINSize", &api->cubin_size) &&
              load_symbol(library, "nvrtcGetCUBIN", &api->cubin) &&
              load_symbol(library, "nvrtcGetProgramLogSize", &api->log_size) &&
              load_symbol(library, "nvrtcGetProgramLog", &api->log);
    if (!load_symbol(library, "nvrtcGetNumSupportedArchs", &api->n_archs) ||
        !load_symbol(library, "nvrtcGetSupportedArchs", &api->archs))
        api->n_archs = NULL;
    return ok ? api : NULL;
}

/* The builtins are looked up by name during a compile; a library that lies in no search path does
 * not find those beside it, unless they are open already. */
static void *open_builtins(const char *library_path, int major, int minor)
{
    const char *slash = strrchr(library_path, '/');
    if (!slash) return NULL;
    char path[4096];
    int n = snprintf(path, sizeof path, "%.*s/libnvrtc-builtins.so.%d.%d",
                     (int)(slash - library_path), library_path, major, minor);
    return n > 0 && (size_t)n < sizeof path ? dlopen(path, RTLD_NOW | RTLD_GLOBAL) : NULL;
}

/* path: a file, or a name for the loader. */
static bool open_library(Arena *a, const char *path, Nvrtc *out)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) return false;
    Nvrtc n = {.handle = handle, .api = load_api(a, handle), .path = arena_strdup(a, path)};
    if (!n.api || n.api->version(&n.major, &n.minor) != NVRTC_SUCCESS) {
        dlclose(handle);
        return false;
    }
    n.builtins = open_builtins(path, n.major, n.minor);
    *out = n;
    return true;
}

static bool open_in_directory(Arena *a, const char *dir, Nvrtc *out)
{
    for (int i = 0; i < N_LIBRARY_NAMES; i++) {
        const char *path = arena_printf(a, "%s/%s", dir, library_names[i]);
        struct stat st;
        if (stat(path, &st) == 0 && open_library(a, path, out)) return true;
    }
    return false;
}

/* ---- where to look ---- */

#define COUNT(T) (sizeof(T) / sizeof *(T))

typedef struct Search {
    Arena *arena;
    Nvrtc *out;
} Search;

static bool try_directory(void *self, const char *dir)
{
    const Search *s = self;
    return open_in_directory(s->arena, dir, s->out);
}

static bool open_by_variable(Arena *a, const char *where, Nvrtc *out, Str *why)
{
    struct stat st;
    bool is_dir = stat(where, &st) == 0 && S_ISDIR(st.st_mode);
    if (is_dir ? open_in_directory(a, where, out) : open_library(a, where, out)) return true;
    str_addf(why,
             "ZMC_NVRTC is \"%s\", which is not an NVRTC library and no directory that holds one; "
             "unset it (`pip install nvidia-cuda-nvrtc` where there is none), or set it to the "
             "library or "
             "its folder",
             where);
    return false;
}

bool nvrtc_find(Arena *a, Nvrtc *out, Str *why)
{
    const char *where = getenv("ZMC_NVRTC");
    if (where && *where) return open_by_variable(a, where, out, why);
    for (int i = 0; i < N_LIBRARY_NAMES; i++)
        if (open_library(a, library_names[i], out)) return true;
    static const char *const wheels[] = {"nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"};
    Search search = {a, out};
    if (nvidia_search(wheels, COUNT(wheels), try_directory, &search)) return true;
    str_add(why, "no libnvrtc in " NVIDIA_PLACES "; install the CUDA toolkit or `pip install "
                 "nvidia-cuda-nvrtc`, or set ZMC_NVRTC to the library");
    return false;
}

/* ---- architectures ---- */

static Status refuse_arch(const Nvrtc *n, Diag *diag, const char *arch, const int *known,
                          int n_known)
{
    Str list = {0};
    int sm = cuda_arch(arch).sm;
    for (int i = 0; i < n_known; i++) str_addf(&list, "%ssm_%d", i ? ", " : "", known[i]);
    diag_error(diag, (SrcPos){0}, E_USAGE,
               "--target cuda:%s: NVRTC %d.%d does not compile for it, but for %s", arch, n->major,
               n->minor, str_c(&list));
    str_free(&list);
    if (sm < known[0])
        diag_help(diag,
                  "GPUs older than sm_%d need an older NVRTC (pip install "
                  "nvidia-cuda-nvrtc-cu12; ZMC_NVRTC names its library): 12 begins with sm_50",
                  known[0]);
    else if (sm > known[n_known - 1])
        diag_help(diag,
                  "a newer GPU needs a newer NVRTC (pip install --upgrade nvidia-cuda-nvrtc), "
                  "or runs what is compiled for sm_%d",
                  known[n_known - 1]);
    else
        diag_help(diag,
                  "nvidia-smi --query-gpu=compute_cap --format=csv says what a GPU has: 9.0 is "
                  "sm_90");
    return ZM_FAIL;
}

Status nvrtc_check_arch(const Nvrtc *n, Diag *diag, const char *arch)
{
    enum { MAX_ARCHS = 256 };
    int n_known = 0, known[MAX_ARCHS], sm = cuda_arch(arch).sm;
    if (!n->api->n_archs || n->api->n_archs(&n_known) != NVRTC_SUCCESS || n_known < 1 ||
        n_known > MAX_ARCHS || n->api->archs(known) != NVRTC_SUCCESS)
        return ZM_OK; /* compiling will tell */
    for (int i = 0; i < n_known; i++)
        if (known[i] == sm) return ZM_OK;
    return refuse_arch(n, diag, arch, known, n_known);
}

/* ---- compiling ---- */

typedef int (*SizeFn)(NvrtcProgramRef p, size_t *n);
typedef int (*BytesFn)(NvrtcProgramRef p, char *out);

static int fetch(NvrtcProgramRef p, SizeFn size, BytesFn bytes, Str *out)
{
    size_t n = 0;
    int rc = size(p, &n);
    if (rc != NVRTC_SUCCESS || n == 0) return rc;
    char *text = malloc(n);
    ZM_CHECK(text != NULL);
    rc = bytes(p, text);
    if (rc == NVRTC_SUCCESS) str_add_n(out, text, n);
    free(text);
    return rc;
}

/* As fetch, without the terminating NUL that NVRTC counts. */
static int fetch_text(NvrtcProgramRef p, SizeFn size, BytesFn bytes, Str *out)
{
    int rc = fetch(p, size, bytes, out);
    while (out->n > 0 && out->at[out->n - 1] == '\0') out->n--;
    return rc;
}

static Status fail(const Nvrtc *n, Diag *diag, const char *name, const char *arch, int rc,
                   const Str *log)
{
    diag_error(diag, (SrcPos){0}, E_CODEGEN, "NVRTC %d.%d cannot compile %s for %s: %s", n->major,
               n->minor, name, arch, n->api->error_text(rc));
    if (log->n > 0) diag_note(diag, (SrcPos){0}, "NVRTC says: %s", str_c(log));
    return ZM_FAIL;
}

Status nvrtc_compile(const Nvrtc *n, Diag *diag, const char *src, const char *name,
                     const char *arch, Str *ptx, Str *cubin, Str *log)
{
    char arch_option[64];
    snprintf(arch_option, sizeof arch_option, "--gpu-architecture=%s", arch);
    /* 177: a function of the prelude that no kernel of this text calls. */
    const char *const options[] = {arch_option, "--fmad=false", "--generate-line-info",
                                   "--diag-suppress=177"};
    NvrtcProgramRef p = NULL;
    int rc = n->api->create(&p, src, name, 0, NULL, NULL);
    if (rc != NVRTC_SUCCESS) return fail(n, diag, name, arch, rc, log);
    rc = n->api->compile(p, (int)COUNT(options), options);
    (void)fetch_text(p, n->api->log_size, n->api->log, log); /* a missing log does not hide rc */
    if (rc == NVRTC_SUCCESS) rc = fetch_text(p, n->api->ptx_size, n->api->ptx, ptx);
    if (rc == NVRTC_SUCCESS && cubin) rc = fetch(p, n->api->cubin_size, n->api->cubin, cubin);
    n->api->destroy(&p);
    return rc == NVRTC_SUCCESS ? ZM_OK : fail(n, diag, name, arch, rc, log);
}
