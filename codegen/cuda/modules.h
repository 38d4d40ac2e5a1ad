/* modules.h -- all kernels of a program, compiled ahead of time: CUDA C in a few source texts, each
 * through NVRTC to PTX and cubin, on all cores. */
#ifndef ZM_CODEGEN_CUDA_MODULES_H
#define ZM_CODEGEN_CUDA_MODULES_H

#include "codegen/cuda/cuda.h"

typedef struct CudaModule {
    const char *name; /* "kernels_0.cu" */
    const char *source;
    const char *ptx; /* ends with a NUL, which ptx_bytes counts */
    const char *cubin;
    size_t source_bytes, ptx_bytes, cubin_bytes;
    uint32_t first, n;       /* its kernels */
    const uint32_t *line_of; /* [n]: the line of source where each begins, from 1 */
} CudaModule;

typedef struct CudaModules {
    const Module *m;
    const char *arch; /* "sm_90" */
    uint32_t n_threads;
    uint32_t n_kernels;
    const Kernel *const *kernels; /* named cuda_kernel_name() */
    CudaModule *at;               /* out */
    uint32_t n;                   /* out; a function of the kernels alone */
    uint32_t n_cached;            /* out: how many came out of the cache */
} CudaModules;

const char *cuda_kernel_name(Arena *a, uint32_t kernel); /* "zm_kernel_7" */

/* NVRTC missing, a kernel without a printed form, one that NVRTC refuses: diagnostics with the op
 * and its place. */
Status cuda_compile_modules(Arena *a, Diag *diag, CudaModules *c);

/* The kernel that NVRTC complains about, by the first line of its log, "kernels_0.cu(12): error:
 * ...", or by a kernel's name in it (ptxas).  -1: neither. */
int64_t cuda_kernel_blamed(const CudaModule *m, const char *log);

/* ---- what NVRTC made before (cache.c) ---- */

/* Results of NVRTC by content: a hash of the text, the architecture and NVRTC's version.  They lie
 * in $ZMC_CACHE (empty: no cache), $XDG_CACHE_HOME/zmc or ~/.cache/zmc; one file each, written
 * beside and renamed.  What is damaged or cannot be written does no harm. */
typedef struct CudaCache {
    const char *dir; /* NULL: none */
    const char *arch;
    int major, minor; /* of NVRTC */
} CudaCache;

CudaCache cuda_cache_open(Arena *a, const Nvrtc *n, const char *arch);
bool cuda_cache_get(const CudaCache *c, Arena *a, CudaModule *m);
void cuda_cache_put(const CudaCache *c, const CudaModule *m);

#endif
