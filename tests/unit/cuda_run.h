/* cuda_run.h -- for tests: compiles printed CUDA C for the CPU against cuda_shim.h, runs it with
 * every thread a coroutine, and compares with kernel_ref.h.  A kernel runs twice, with the
 * scheduled grid and with 2 blocks, threads in opposite orders, outputs in place and apart: the
 * same bits are expected. */
#ifndef ZM_TESTS_CUDA_RUN_H
#define ZM_TESTS_CUDA_RUN_H

#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

#include "codegen/cuda/cuda.h"
#include "tests/unit/cuda_compile.h"
#include "tests/unit/cuda_kernels.h"
#include "tests/unit/test_memory.h"

typedef struct Rng {
    uint64_t state;
} Rng;

static uint32_t rng_below(Rng *r, uint32_t n)
{
    r->state = r->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(r->state >> 33) % n;
}

/* ---- memory ---- */

static void encode(DType dt, double v, char *to)
{
    float f = (float)v;
    _Float16 h = (_Float16)f;
    int32_t i = (int32_t)v;
    uint8_t b = v != 0;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint16_t high = (uint16_t)(bits >> 16);
    const void *from = dt == DT_F32   ? (void *)&f
                       : dt == DT_F64 ? (void *)&v
                       : dt == DT_I32 ? (void *)&i
                       : dt == DT_I1  ? (void *)&b
                       : dt == DT_F16 ? (void *)&h
                                      : (void *)&high;
    memcpy(to, from, (size_t)dtype_bytes(dt));
}

static double decode(DType dt, const char *at)
{
    float f;
    double d;
    _Float16 h;
    int32_t i;
    uint16_t high;
    switch (dt) {
    case DT_F32: memcpy(&f, at, sizeof f); return (double)f;
    case DT_F64: memcpy(&d, at, sizeof d); return d;
    case DT_F16: memcpy(&h, at, sizeof h); return (double)h;
    case DT_I32: memcpy(&i, at, sizeof i); return i;
    case DT_I1: return *(const unsigned char *)at;
    case DT_BF16: {
        memcpy(&high, at, sizeof high);
        uint32_t bits = (uint32_t)high << 16;
        memcpy(&f, &bits, sizeof f);
        return (double)f;
    }
    case DT_NONE:
    case N_DTYPE: break;
    }
    ZM_UNREACHABLE("dtype");
}

/* Inputs: integers 0 .. 6 (rows of tables), floats in [-2, 2), a few NaN and infinities for the
 * case that wants them. */
static double input_value(Rng *r, DType dt, bool is_special)
{
    if (dt == DT_I1) return rng_below(r, 2);
    if (dt == DT_I32) return rng_below(r, 7);
    if (is_special && rng_below(r, 23) == 0)
        return rng_below(r, 2) ? (double)NAN : (double)INFINITY;
    double fine =
        rng_below(r, 1u << 30) / 1073741824.0; /* more bits than f32 has: f64 casts must round */
    return dtype_round(dt, (rng_below(r, 4096) + fine) / 1024.0 - 2);
}

/* ---- running ---- */

typedef struct Job {
    const char *name;
    const CudaCase *info; /* or NULL */
    const Kernel *k;
    const Module *m; /* of the locations, or NULL */
} Job;

/* Runs on guarded copies of mem; outputs come back as bytes in out[i] (guarded, kept).  The first
 * run shares memory where the kernel allows it, the second does not. */
static void run_kernel(const Job *job, RunFn fn, double **mem, Guarded *out, bool is_second)
{
    const Kernel *k = job->k;
    void *args[KERNEL_MAX_ARGS];
    for (uint32_t i = 0; i < k->n_args; i++) {
        const KernelArg *a = &k->args[i];
        size_t bytes = (size_t)dtype_bytes(a->dtype);
        bool is_shared = a->is_out && a->alias_in >= 0 && !is_second;
        out[i] = is_shared ? out[a->alias_in] : guarded_new((size_t)a->elems * bytes, bytes, false);
        for (int64_t e = 0; !is_shared && e < a->elems; e++)
            encode(a->dtype, mem[i][e], out[i].at + (size_t)e * bytes);
        args[i] = out[i].at;
    }
    CudaSchedule s = cuda_schedule(k, (CudaArch){0});
    fn(args, is_second ? 2 : (int)s.n_blocks, s.threads_x, s.threads_y, is_second);
}

/* Unit roundoff of the kernel's arithmetic for an output of dtype dt: a value that passed through
 * f32 has f32's. */
static double roundoff(const Kernel *k, DType dt)
{
    if (dt != DT_F64) return 0x1p-24;
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        const Node *n = &k->nodes[i];
        bool is_arithmetic = n->kind == KN_REDUCE || (n->kind == KN_OP && n->op != OP_CAST);
        if (is_arithmetic && dtype_class(n->dtype) == DTC_FLOAT && n->dtype != DT_F64)
            return 0x1p-24;
    }
    return 0x1p-53;
}

static double tolerance(const Job *job, DType dt, const double *ref, int64_t n)
{
    if (job->info && job->info->is_exact) return 0;
    double scale = 1, condition = job->info ? job->info->condition : 64;
    for (int64_t e = 0; e < n; e++) scale = fmax(scale, fabs(ref[e]));
    double eps = roundoff(job->k, dt);
    double place = dt == DT_BF16  ? 0x1p-8
                   : dt == DT_F16 ? 0x1p-11
                                  : 0; /* f32 error may turn a rounding */
    return (((double)cuda_schedule(job->k, (CudaArch){0}).n_reduced + 8) * eps * condition +
            place) *
           scale;
}

static bool is_close(double got, double want, double allowed)
{
    if (want != want) return got != got;
    return got == want || fabs(got - want) <= allowed;
}

static void check_outputs(const Job *job, double **want, const Guarded *got, const Guarded *again)
{
    for (uint32_t i = 0; i < job->k->n_args; i++) {
        const KernelArg *a = &job->k->args[i];
        if (!a->is_out) continue;
        size_t bytes = (size_t)dtype_bytes(a->dtype);
        double allowed = tolerance(job, a->dtype, want[i], a->elems);
        if (memcmp(got[i].at, again[i].at, bytes * (size_t)a->elems) != 0)
            FAIL("%s: argument %u: the order of threads or the grid changes the result", job->name,
                 i);
        for (int64_t e = 0; e < a->elems; e++) {
            double v = decode(a->dtype, got[i].at + (size_t)e * bytes);
            if (is_close(v, want[i][e], allowed)) continue;
            FAIL("%s: argument %u, element %lld: %.17g, want %.17g, allowed %.3g", job->name, i,
                 (long long)e, v, want[i][e], allowed);
            break;
        }
    }
}

static void free_all(const Kernel *k, Guarded *g, bool is_second)
{
    for (uint32_t i = 0; i < k->n_args; i++)
        if (is_second || !k->args[i].is_out || k->args[i].alias_in < 0) guarded_free(&g[i]);
}

/* fn runs the kernel, wherever. */
static void check_numbers_by(const Job *job, RunFn fn)
{
    Arena arena = {0};
    Rng rng = {job->k->n_args * 131u + job->k->n_nodes};
    double *mem[KERNEL_MAX_ARGS];
    bool is_special = strcmp(job->name, "special") == 0;
    for (uint32_t i = 0; i < job->k->n_args; i++) {
        mem[i] = ARENA_ARRAY(&arena, double, job->k->args[i].elems);
        for (int64_t e = 0; e < job->k->args[i].elems; e++)
            mem[i][e] = input_value(&rng, job->k->args[i].dtype, is_special);
    }
    static Guarded first[KERNEL_MAX_ARGS], second[KERNEL_MAX_ARGS];
    run_kernel(job, fn, mem, first, false);
    run_kernel(job, fn, mem, second, true);
    ref_run(job->k, mem);
    check_outputs(job, mem, first, second);
    free_all(job->k, first, false);
    free_all(job->k, second, true);
    arena_free(&arena);
}

static inline void check_numbers(const Job *job, void *library)
{
    char symbol[80];
    RunFn fn;
    snprintf(symbol, sizeof symbol, "run_%s", job->name);
    if (find_symbol(library, symbol, &fn)) check_numbers_by(job, fn);
}

static inline void check_text(const Job *job, const char *text)
{
    const char *at = text;
    for (int i = 0; i < CUDA_MAX_TEXTS && job->info->texts[i]; i++) {
        const char *found = strstr(at, job->info->texts[i]);
        if (!found) {
            FAIL("%s: expected \"%s\" %s in\n%s", job->name, job->info->texts[i],
                 i ? "next" : "first", text);
            return;
        }
        at = found + strlen(job->info->texts[i]);
    }
}

/* Source of all jobs with a call for each, then `more`. */
static inline void print_jobs(const Job *jobs, int n, const char *more, Str *out)
{
    print_shim(out);
    for (int i = 0; i < n; i++) {
        Str text = {0};
        cuda_print_kernel(jobs[i].k, (CudaArch){0}, jobs[i].name, jobs[i].m, &text);
        if (jobs[i].info) check_text(&jobs[i], str_c(&text));
        if (!jobs[i].info || !jobs[i].info->is_huge)
            str_addf(out, "%sSHIM_EXPORT(%s)\n\n", str_c(&text), jobs[i].name);
        str_free(&text);
    }
    str_add(out, more);
}

#endif
