/* cuda_sim.h -- for tests: kernels through the whole CUDA path on the simulator.  They are printed
 * for a chip, compiled by NVRTC (all in at most 8 texts, results cached by content), loaded into
 * the simulator and run twice:
 *   1. the scheduled grid; outputs in the memory of the input that they may share; each argument an
 *      allocation of its own, exactly as large;
 *   2. another grid; outputs apart; each argument begins its KernelArg.align (0: one element)
 * behind an allocation's aligned beginning, and what is before it must stay as it was. Both must
 * give the same bits, within the derived bounds of the f64 reference (kernel_oracle.h;
 * attention_ref.h for attention), and the simulator must report nothing: out of bounds, misaligned,
 * never written (also of the workspace), races, barriers.
 *
 *     Sim s;
 *     if (!sim_open(&s, "matmul")) return EXIT_SKIP;   // says what is missing
 *     SimCase c[] = {{"tile_edges", make_edges(&s.arena)}, ...};
 *     sim_check(&s, "compute_80", c, n);               // PTX alone; "compute_90a": code for it
 *     return sim_close(&s);                            // prints the sum, 0 when all is well
 *
 * Kernels come from kernel_ref.h's ref_*(), from attention_ref.h's build() (then include
 * cuda_sim_attention.h and set s.check_attention), or out of a model (cuda_model_jobs.h).
 * $ZMC_GPU=driver (tools/gpu-check) takes the machine's GPU instead, and leaves out what its chip
 * does not run.  $GPUSIM_SEED picks the order of blocks and warps; $SIM_KEEP=DIR keeps CUDA C and
 * PTX. */
#ifndef ZM_TESTS_CUDA_SIM_H
#define ZM_TESTS_CUDA_SIM_H

#include "codegen/cuda/modules.h"
#include "ir/base/file.h"
#include "tests/unit/cuda_compile.h"
#include "tests/unit/gpusim_driver.h"
#include "tests/unit/kernel_oracle.h"
#include "tests/unit/test_memory.h"

typedef struct SimCase {
    const char *name;
    const Kernel *k;
    /* Value of an element of an input, rounded to its dtype by the harness; NULL: sim_value(). */
    double (*fill)(const Kernel *k, uint32_t arg, int64_t elem, uint64_t *random);
} SimCase;

typedef struct Sim Sim;
typedef struct SimRun SimRun;
struct Sim {
    Arena arena; /* for the test's kernels too */
    Driver driver;
    const char *name;
    const Module *m; /* gives the .zm lines in the text; may stay NULL */
    int n_kernels;
    const Kernel *instead; /* runs in place of every case, to see that the harness sees it; NULL */
    void (*check_attention)(Sim *s, const SimCase *c, SimRun *r); /* cuda_sim_attention.h */
};

/* ---- memory ---- */

enum { SIM_BEFORE = 0xa5 }; /* bytes before an argument's beginning, in run 2 */

typedef struct SimArg { /* an argument on the device */
    CUdeviceptr base, at;
    size_t bytes, before;
    bool is_shared; /* another argument's memory */
} SimArg;

struct SimRun {
    const Kernel *k;
    CudaSchedule s;
    CUfunction fn;
    bool is_second;
    SimArg arg[KERNEL_MAX_ARGS];
};

static inline size_t sim_bytes(const KernelArg *a)
{
    return (size_t)a->elems * (size_t)dtype_bytes(a->dtype);
}

static inline void sim_alloc(const Sim *s, SimArg *to, size_t bytes, size_t before)
{
    *to = (SimArg){.bytes = bytes, .before = before};
    DRIVER_TRY(s->driver.cuMemAlloc_v2(&to->base, (bytes ? bytes : 1) + before));
    to->at = to->base + before;
    if (before == 0) return;
    if (s->driver.is_machines)
        DRIVER_TRY(s->driver.cuMemsetD8_v2(to->base, SIM_BEFORE, before));
    else /* to the simulator it stays unwritten */
        memset(s->driver.host_address(to->base, before), SIM_BEFORE, before);
}

static inline void sim_free(const Sim *s, SimArg *a, const char *name, uint32_t i)
{
    if (a->is_shared) return;
    unsigned char copy[8]; /* an element is no larger */
    const unsigned char *host = copy;
    if (a->before && s->driver.is_machines)
        DRIVER_TRY(s->driver.cuMemcpyDtoH_v2(copy, a->base, a->before));
    else if (a->before)
        host = s->driver.host_address(a->base, a->before);
    for (size_t b = 0; b < a->before; b++)
        if (host[b] != SIM_BEFORE) FAIL("%s: writes before argument %u", name, i);
    DRIVER_TRY(s->driver.cuMemFree_v2(a->base));
}

/* ---- a run ---- */

static inline unsigned sim_grid(const SimRun *r)
{
    if (!r->is_second) return (unsigned)r->s.n_blocks;
    return r->s.n_blocks == 2 ? 3 : 2;
}

static inline void sim_launch(const Sim *s, SimRun *r)
{
    SimArg workspace = {.is_shared = true};
    void *params[KERNEL_MAX_ARGS + 1];
    for (uint32_t i = 0; i < r->k->n_args; i++) params[i] = &r->arg[i].at;
    if (r->s.workspace_bytes > 0) sim_alloc(s, &workspace, (size_t)r->s.workspace_bytes, 0);
    params[r->k->n_args] = &workspace.at;
    enum { MAX_DYNAMIC_SHARED = 8, FREE_SHARED = 48 << 10 };
    if (r->s.shared_bytes > FREE_SHARED)
        DRIVER_TRY(s->driver.cuFuncSetAttribute(r->fn, MAX_DYNAMIC_SHARED, r->s.shared_bytes));
    DRIVER_TRY(s->driver.cuLaunchKernel(r->fn, sim_grid(r), 1, 1, (unsigned)r->s.threads_x,
                                        (unsigned)r->s.threads_y, 1, (unsigned)r->s.shared_bytes,
                                        NULL, params, NULL));
    DRIVER_TRY(s->driver.cuCtxSynchronize());
    sim_free(s, &workspace, "", 0);
}

/* bytes[i]: the argument in memory, copied in (NULL: it stays unwritten) and, of outputs, copied
 * out to out[i]. */
static inline void sim_run(const Sim *s, SimRun *r, const char *name, char *const *in,
                           char *const *out)
{
    const Kernel *k = r->k;
    for (uint32_t i = 0; i < k->n_args; i++) {
        const KernelArg *a = &k->args[i];
        if (a->is_out && a->alias_in >= 0 && !r->is_second) {
            r->arg[i] = r->arg[a->alias_in];
            r->arg[i].is_shared = true;
            continue;
        }
        size_t before = (size_t)(a->align ? a->align : dtype_bytes(a->dtype));
        sim_alloc(s, &r->arg[i], sim_bytes(a), r->is_second ? before : 0);
        if (in[i] && sim_bytes(a))
            DRIVER_TRY(s->driver.cuMemcpyHtoD_v2(r->arg[i].at, in[i], sim_bytes(a)));
    }
    sim_launch(s, r);
    for (uint32_t i = 0; i < k->n_args; i++)
        if (k->args[i].is_out && sim_bytes(&k->args[i]))
            DRIVER_TRY(s->driver.cuMemcpyDtoH_v2(out[i], r->arg[i].at, sim_bytes(&k->args[i])));
    for (uint32_t i = 0; i < k->n_args; i++) sim_free(s, &r->arg[i], name, i);
}

/* Both runs; false when their bits differ.  out[0], out[1]: of the two. */
static inline bool sim_run_both(const Sim *s, const SimCase *c, SimRun *r, char *const *in,
                                char *const *first, char *const *second)
{
    r->is_second = false;
    sim_run(s, r, c->name, in, first);
    r->is_second = true;
    sim_run(s, r, c->name, in, second);
    bool is_same = true;
    for (uint32_t i = 0; i < r->k->n_args; i++)
        if (r->k->args[i].is_out && memcmp(first[i], second[i], sim_bytes(&r->k->args[i])) != 0) {
            FAIL("%s: argument %u: %u blocks and %u blocks give different bits", c->name, i,
                 (unsigned)r->s.n_blocks, sim_grid(r));
            is_same = false;
        }
    return is_same;
}

/* ---- values ---- */

static inline bool sim_needs_positive(const Kernel *k)
{
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (k->nodes[i].kind == KN_OP && (k->nodes[i].op == OP_SQRT || k->nodes[i].op == OP_LOG))
            return true;
    return false;
}

/* Integers 0 .. 6 (rows of small tables), flags, floats in (-2, 2); in (0, 2) where a root or a
 * logarithm wants it. */
static inline double sim_value(const Kernel *k, uint32_t arg, uint64_t *random)
{
    DType dt = k->args[arg].dtype;
    if (dt == DT_I1) return test_random(random) % 2;
    if (dt == DT_I32) return test_random(random) % 7;
    double v = (test_random(random) % 4095 - 2047.0 + test_random(random) * 0x1p-31) / 1024;
    return sim_needs_positive(k) ? fabs(v) + 0x1p-6 : v;
}

static inline void sim_fill(const SimCase *c, Oracle *r)
{
    const Kernel *k = c->k;
    uint64_t random = k->n_args * 131u + k->n_nodes;
    for (uint32_t i = 0; i < k->n_args; i++)
        for (int64_t e = 0; e < k->args[i].elems; e++) {
            bool is_const = k->n_consts > 0 && i == k->n_args - 1;
            double v = is_const  ? k->consts[e]
                       : c->fill ? c->fill(k, i, e, &random)
                                 : sim_value(k, i, &random);
            r->arg[i].v[e] = dtype_round(k->args[i].dtype, v);
        }
}

/* The argument in memory.  NULL: an output that the kernel writes whole, so that it may start
 * unwritten. */
static inline char *sim_encode(Arena *a, const Oracle *r, uint32_t i, const double *start)
{
    const KernelArg *arg = &r->k->args[i];
    bool is_whole = arg->is_out;
    for (int64_t e = 0; e < arg->elems && is_whole; e++) is_whole = r->arg[i].is_written[e];
    if (is_whole) return NULL;
    char *at = arena_alloc(a, sim_bytes(arg) + 1);
    for (int64_t e = 0; e < arg->elems; e++) mem_set(at, arg->dtype, e, start[e]);
    return at;
}

/* A bound that is a quarter of the values themselves proves nothing: the inputs must be others. */
static inline void sim_check_bounds(const SimCase *c, const Oracle *r, uint32_t i)
{
    double size = 0, bound = 0;
    for (int64_t e = 0; e < c->k->args[i].elems; e++)
        if (isfinite(r->arg[i].v[e])) {
            size += fabs(r->arg[i].v[e]);
            bound += r->arg[i].err[e];
        }
    if (dtype_class(c->k->args[i].dtype) == DTC_FLOAT && size > 0 && !(bound < size / 4))
        FAIL("%s: argument %u: the bounds are %.3g of the values: give it another fill()", c->name,
             i, bound / size);
}

static inline void sim_compare(const SimCase *c, const Oracle *r, char *const *got)
{
    for (uint32_t i = 0; i < c->k->n_args; i++) {
        const KernelArg *arg = &c->k->args[i];
        int64_t n_wrong = 0;
        for (int64_t e = 0; arg->is_out && e < arg->elems; e++) {
            OracleValue want = {r->arg[i].v[e], r->arg[i].err[e], true};
            double v = mem_get(got[i], arg->dtype, e);
            if (oracle_accepts(want, arg->dtype, v) || n_wrong++ > 0) continue;
            FAIL("%s: argument %u, element %lld: %.17g, want %.17g, allowed %.3g", c->name, i,
                 (long long)e, v, want.v, want.err);
        }
        if (arg->is_out) sim_check_bounds(c, r, i);
        if (n_wrong > 1)
            FAIL("%s: argument %u: %lld of %lld elements are wrong", c->name, i, (long long)n_wrong,
                 (long long)arg->elems);
    }
}

static inline void sim_check_numbers(Sim *s, const SimCase *c, SimRun *r)
{
    Arena a = {0};
    const Kernel *k = c->k;
    Oracle *o = oracle_new(&a, k);
    double *start[KERNEL_MAX_ARGS];
    char *in[KERNEL_MAX_ARGS], *first[KERNEL_MAX_ARGS], *second[KERNEL_MAX_ARGS];
    sim_fill(c, o);
    for (uint32_t i = 0; i < k->n_args; i++) {
        start[i] = ARENA_ARRAY(&a, double, k->args[i].elems + 1);
        memcpy(start[i], o->arg[i].v, (size_t)k->args[i].elems * sizeof(double));
        first[i] = arena_alloc(&a, sim_bytes(&k->args[i]) + 1);
        second[i] = arena_alloc(&a, sim_bytes(&k->args[i]) + 1);
    }
    oracle_run(o, &a);
    for (uint32_t i = 0; i < k->n_args; i++) in[i] = sim_encode(&a, o, i, start[i]);
    if (sim_run_both(s, c, r, in, first, second)) sim_compare(c, o, first);
    arena_free(&a);
}

/* ---- modules ---- */

static inline void sim_check_one(Sim *s, CUmodule module, uint32_t number, const SimCase *c,
                                 CudaArch arch)
{
    unsigned long before = driver_reports(&s->driver);
    SimRun r = {.k = c->k, .s = cuda_schedule(c->k, arch)};
    DRIVER_TRY(s->driver.cuModuleGetFunction(&r.fn, module, cuda_kernel_name(&s->arena, number)));
    ZM_CHECK(c->k->kind != KK_ATTENTION || s->check_attention);
    if (c->k->kind == KK_ATTENTION)
        s->check_attention(s, c, &r);
    else
        sim_check_numbers(s, c, &r);
    if (driver_reports(&s->driver) != before) FAIL("%s: the simulator reports", c->name);
    s->n_kernels++;
}

/* What the simulator's reports cite. */
static inline void sim_keep_source(const Sim *s, const CudaModule *m)
{
    const char *dir = getenv("SIM_KEEP"); /* a folder for the CUDA C and the PTX */
    if (!dir) return;
    Arena a = {0};
    const char *path = arena_printf(&a, "%s/%s_%s", dir, s->name, m->name);
    file_write(path, m->source, m->source_bytes);
    file_write(arena_printf(&a, "%s.ptx", path), m->ptx, strlen(m->ptx));
    setenv("GPUSIM_SOURCE", path, 1);
    arena_free(&a);
}

/* Of a text for this chip alone (sm_90a) or any up to its own; the simulator runs all. */
static inline bool sim_runs(const Sim *s, CudaArch arch)
{
    enum { MAJOR = 75, MINOR = 76 };
    int major = 0, minor = 0;
    if (!s->driver.is_machines) return true;
    DRIVER_TRY(s->driver.cuDeviceGetAttribute(&major, MAJOR, 0));
    DRIVER_TRY(s->driver.cuDeviceGetAttribute(&minor, MINOR, 0));
    int sm = 10 * major + minor;
    return arch.is_own ? arch.sm == sm : arch.sm <= sm;
}

static inline void sim_check(Sim *s, const char *arch, const SimCase *cases, int n)
{
    if (!sim_runs(s, cuda_arch(arch))) {
        printf("skipped: %s for %s: this GPU is another\n", s->name, arch);
        return;
    }
    SourceSet sources = {.arena = &s->arena};
    Diag diag = {.arena = &s->arena, .sources = &sources};
    const Kernel **kernels = ARENA_ARRAY(&s->arena, const Kernel *, n + 1);
    for (int i = 0; i < n; i++) kernels[i] = s->instead ? s->instead : cases[i].k;
    CudaModules c = {
        .m = s->m, .arch = arch, .n_threads = 2, .n_kernels = (uint32_t)n, .kernels = kernels};
    if (cuda_compile_modules(&s->arena, &diag, &c) != ZM_OK) {
        FAIL("%s does not compile for %s", s->name, arch);
        diag_print(&diag, stderr);
        return;
    }
    for (uint32_t i = 0; i < c.n; i++) {
        CUmodule module;
        sim_keep_source(s, &c.at[i]);
        if (s->driver.cuModuleLoadData(&module, c.at[i].ptx) != CUDA_SUCCESS) {
            FAIL("%s: the simulator does not load %s for %s", s->name, c.at[i].name, arch);
            continue;
        }
        for (uint32_t k = c.at[i].first; k < c.at[i].first + c.at[i].n; k++)
            sim_check_one(s, module, k, &cases[k], cuda_arch(arch));
        DRIVER_TRY(s->driver.cuModuleUnload(module));
    }
}

/* ---- opening ---- */

/* False: no NVRTC; the test is skipped.  Without a device yet (driver_open). */
static inline bool sim_open_library(Sim *s, const char *name)
{
    *s = (Sim){.name = name};
    Str why = {0};
    Nvrtc nvrtc;
    bool is_found = nvrtc_find(&s->arena, &nvrtc, &why);
    if (!is_found) printf("SKIP %s: NVRTC not found (%s)\n", name, str_c(&why));
    str_free(&why);
    if (!is_found) return false;
    driver_test_settings();
    return true;
}

static inline bool sim_open(Sim *s, const char *name)
{
    if (!sim_open_library(s, name)) return false;
    driver_open_gpu(&s->driver);
    return true;
}

static inline int sim_close(Sim *s)
{
    printf("%s: %d kernels, %d failures\n", s->name, s->n_kernels, n_failures);
    arena_free(&s->arena);
    return n_failures != 0;
}

#endif
