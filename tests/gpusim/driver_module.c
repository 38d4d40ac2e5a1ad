/* driver_module.c -- modules from PTX text, functions, launches. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpusim/report.h"
#include "tests/gpusim/stream.h"

enum {
    JIT_ERROR_LOG = 5,
    JIT_ERROR_LOG_BYTES = 6,
    STATIC_SHARED_LIMIT = 49152,
    MAX_THREADS = 1024,
    MAX_GRID_YZ = 65535
};

/* ---- loading ---- */

static void unload(System *s, Module_ *m)
{
    for (uint32_t i = 0; i < m->globals.n; i++)
        (void)memory_free(&s->memory, m->globals.at[i]->address);
    ptx_free(&m->ptx);
    free(m);
}

static CUresult place_globals(System *s, Module_ *m)
{
    for (uint32_t i = 0; i < m->ptx.globals.n; i++) {
        PtxSymbol *g = m->ptx.globals.at[i];
        Allocation *a = memory_allocate(&s->memory, m->device, g->bytes ? g->bytes : 1);
        if (!a) return CUDA_ERROR_OUT_OF_MEMORY;
        if (g->init) memcpy(a->host, g->init, g->n_init);
        span_copy_write(a, 0, a->bytes); /* zero where nothing is given */
        g->address = a->address;
        VEC_PUSH(&m->ptx.arena, &m->globals, a);
    }
    return CUDA_SUCCESS;
}

static CUresult build_functions(Module_ *m, char *error, size_t size)
{
    for (uint32_t i = 0; i < m->ptx.funcs.n; i++) {
        const PtxFunc *f = m->ptx.funcs.at[i];
        if (!f->is_entry) continue;
        Function *fn = ARENA_NEW(&m->ptx.arena, Function);
        *fn = (Function){.module = m, .max_dynamic_bytes = STATIC_SHARED_LIMIT};
        if (!code_build(&m->ptx.arena, &m->ptx, f, &fn->code, error, size))
            return CUDA_ERROR_INVALID_PTX;
        VEC_PUSH(&m->ptx.arena, &m->functions, fn);
    }
    return CUDA_SUCCESS;
}

static CUresult load(System *s, Module_ *m, const char *text, char *error, size_t size)
{
    if (!ptx_parse(&m->ptx, text)) {
        snprintf(error, size, "%s", m->ptx.error);
        return CUDA_ERROR_INVALID_PTX;
    }
    if ((int)m->ptx.target > s->arch) {
        snprintf(error, size, "the PTX is for sm_%u, the device is sm_%d", m->ptx.target, s->arch);
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    }
    CUresult rc = place_globals(s, m);
    return rc == CUDA_SUCCESS ? build_functions(m, error, size) : rc;
}

static bool is_binary(const void *image)
{
    static const unsigned char fat[] = {0x50, 0xed, 0x55, 0xba};
    return memcmp(image, "\177ELF", 4) == 0 || memcmp(image, fat, 4) == 0;
}

static void put_log(const char *error, unsigned int n, const int *options, void **values)
{
    char *log = NULL;
    size_t size = 0;
    for (unsigned int i = 0; i < n; i++) {
        if (options[i] == JIT_ERROR_LOG) log = values[i];
        if (options[i] == JIT_ERROR_LOG_BYTES) size = (size_t)(uintptr_t)values[i];
    }
    if (log && size) snprintf(log, size, "%s", error);
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int n_options,
                            const int *options, void **values)
{
    char error[512] = "";
    System *s = system_lock();
    Device *d = system_current();
    *module = NULL;
    if (!d) return system_unlock(CUDA_ERROR_INVALID_CONTEXT);
    if (!image) return system_unlock(CUDA_ERROR_INVALID_VALUE);
    if (is_binary(image)) return system_unlock(CUDA_ERROR_NO_BINARY_FOR_GPU);
    Module_ *m = calloc(1, sizeof *m);
    if (!m) return system_unlock(CUDA_ERROR_OUT_OF_MEMORY);
    m->device = d->ordinal;
    CUresult rc = load(s, m, image, error, sizeof error);
    put_log(error, n_options, options, values);
    if (rc == CUDA_SUCCESS)
        *module = m;
    else
        unload(s, m);
    return system_unlock(rc);
}

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    char log[512] = "";
    const int options[] = {JIT_ERROR_LOG, JIT_ERROR_LOG_BYTES};
    void *values[] = {log, (void *)(uintptr_t)sizeof log};
    CUresult rc = cuModuleLoadDataEx(module, image, 2, options, values);
    if (log[0]) fprintf(stderr, "gpusim: %s\n", log); /* nobody else would see it */
    return rc;
}

CUresult cuModuleUnload(CUmodule module)
{
    System *s = system_lock();
    if (!module) return system_unlock(CUDA_ERROR_INVALID_HANDLE);
    stream_finish_device(s, system_current());
    unload(s, module);
    return system_unlock(CUDA_SUCCESS);
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    (void)system_lock();
    *function = NULL;
    for (uint32_t i = 0; module && i < module->functions.n; i++)
        if (strcmp(module->functions.at[i]->code.func->name, name) == 0)
            *function = module->functions.at[i];
    return system_unlock(!module     ? CUDA_ERROR_INVALID_HANDLE
                         : *function ? CUDA_SUCCESS
                                     : CUDA_ERROR_NOT_FOUND);
}

CUresult cuModuleGetGlobal_v2(CUdeviceptr *address, size_t *bytes, CUmodule module,
                              const char *name)
{
    (void)system_lock();
    for (uint32_t i = 0; module && i < module->ptx.globals.n; i++) {
        const PtxSymbol *g = module->ptx.globals.at[i];
        if (strcmp(g->name, name) != 0) continue;
        if (address) *address = g->address;
        if (bytes) *bytes = g->bytes;
        return system_unlock(CUDA_SUCCESS);
    }
    return system_unlock(CUDA_ERROR_NOT_FOUND);
}

/* ---- functions ---- */

CUresult cuFuncGetAttribute(int *value, int attribute, CUfunction f)
{
    if (!f) return CUDA_ERROR_INVALID_HANDLE;
    const Code *c = &f->code;
    switch (attribute) {
    case 0: *value = c->func->max_threads ? (int)c->func->max_threads : MAX_THREADS; break;
    case 1: *value = (int)c->shared_bytes; break;
    case 2: *value = 0; break;
    case 3: *value = (int)c->local_bytes; break;
    case 4: *value = c->n_registers < 255 ? (int)c->n_registers : 255; break; /* virtual ones */
    case 5:
    case 6: *value = (int)c->module->target; break;
    case 8: *value = f->max_dynamic_bytes; break;
    default: *value = 0; return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction f, int attribute, int value)
{
    int limit = 0;
    if (!f) return CUDA_ERROR_INVALID_HANDLE;
    if (attribute == 9) return CUDA_SUCCESS; /* preferred carveout: a hint */
    (void)cuDeviceGetAttribute(&limit, 97, f->module->device);
    if (attribute != 8 || value < 0 || value + (int)f->code.shared_bytes > limit)
        return CUDA_ERROR_INVALID_VALUE;
    f->max_dynamic_bytes = value;
    return CUDA_SUCCESS;
}

CUresult cuFuncSetCacheConfig(CUfunction f, int config)
{
    (void)config;
    return f ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction f, int threads,
                                                     size_t shared_bytes)
{
    int per_sm = 0;
    if (!f || threads <= 0) return CUDA_ERROR_INVALID_VALUE;
    (void)cuDeviceGetAttribute(&per_sm, 81, f->module->device);
    size_t each = shared_bytes + f->code.shared_bytes;
    int by_threads = 2048 / threads, by_shared = each ? (int)((size_t)per_sm / each) : 32;
    *blocks = by_threads < by_shared ? by_threads : by_shared;
    if (*blocks > 32) *blocks = 32;
    return CUDA_SUCCESS;
}

/* ---- launches ---- */

static bool is_launchable(const CUlaunchConfig *c, const Function *f)
{
    uint64_t threads = (uint64_t)c->blockDimX * c->blockDimY * c->blockDimZ;
    uint32_t most = f->code.func->max_threads ? f->code.func->max_threads : MAX_THREADS;
    uint64_t blocks = (uint64_t)c->gridDimX * c->gridDimY * c->gridDimZ;
    bool fits_shared = (int)c->sharedMemBytes <= f->max_dynamic_bytes &&
                       (f->max_dynamic_bytes > STATIC_SHARED_LIMIT ||
                        f->code.shared_bytes + c->sharedMemBytes <= STATIC_SHARED_LIMIT);
    return threads > 0 && threads <= most && c->blockDimX <= 1024 && c->blockDimY <= 1024 &&
           c->blockDimZ <= 64 && blocks > 0 && c->gridDimX <= 2147483647u &&
           c->gridDimY <= MAX_GRID_YZ && c->gridDimZ <= MAX_GRID_YZ && fits_shared;
}

/* Parameters lie one after another, each aligned: their sizes are those of the PTX. */
static uint8_t *pack_params(const PtxFunc *f, void **params)
{
    uint8_t *out = calloc(f->param_bytes + 1, 1);
    for (uint32_t i = 0; out && i < f->params.n; i++)
        memcpy(out + f->params.at[i]->offset, params[i], f->params.at[i]->bytes);
    return out;
}

static CUresult launch(System *s, const CUlaunchConfig *c, Function *f, void **params, void **extra)
{
    Stream *q = stream_of(s, c->hStream);
    if (!system_current()) return CUDA_ERROR_INVALID_CONTEXT;
    if (!f || !q || f->module->device != system_current()->ordinal)
        return CUDA_ERROR_INVALID_HANDLE;
    if (q->slot > PER_THREAD && q->device != f->module->device) return CUDA_ERROR_INVALID_HANDLE;
    if (extra) return CUDA_ERROR_NOT_SUPPORTED;
    if (!is_launchable(c, f) || (f->code.func->params.n && !params))
        return CUDA_ERROR_INVALID_VALUE;
    Task t = {.kind = TASK_LAUNCH,
              .function = f,
              .grid = {c->gridDimX, c->gridDimY, c->gridDimZ},
              .block = {c->blockDimX, c->blockDimY, c->blockDimZ},
              .shared_bytes = c->sharedMemBytes,
              .params = pack_params(f->code.func, params),
              .op.name = f->code.func->name};
    if (!t.params) return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult rc = stream_push(s, q, &t);
    free(t.params);
    return rc;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **params, void **extra)
{
    System *s = system_lock();
    return system_unlock(launch(s, config, f, params, extra));
}

CUresult cuLaunchKernel(CUfunction f, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
                        unsigned int block_x, unsigned int block_y, unsigned int block_z,
                        unsigned int shared_bytes, CUstream stream, void **params, void **extra)
{
    const CUlaunchConfig c = {grid_x,  grid_y,       grid_z, block_x, block_y,
                              block_z, shared_bytes, stream, NULL,    0};
    return cuLaunchKernelEx(&c, f, params, extra);
}
