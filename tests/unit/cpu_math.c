/* cpu_math.c -- accuracy of the emitted f32 functions against libm in f64, for every target level
 * that runs here.
 *
 *   cpu_math               every 4099th of the 2^32 inputs, special values, and neighbours of every
 * switch point cpu_math all [NAME]    all 2^32 inputs (minutes a function) Fails when an error
 * exceeds the function's bound in units of the last place of the exact result. */
#include <float.h>
#include <math.h>

#include "tests/unit/cpu_so.h"

typedef LLVMValueRef (*EmitFn)(CpuModule *m, LLVMValueRef x);

typedef struct MathFn {
    const char *name;
    EmitFn emit;
    double (*exact)(double);
    double max_ulp;
} MathFn;

static const MathFn fns[] = {
    {"exp", cpu_exp_f32, exp, 2}, {"log", cpu_log_f32, log, 2}, {"tanh", cpu_tanh_f32, tanh, 2},
    {"erf", cpu_erf_f32, erf, 2}, {"sin", cpu_sin_f32, sin, 4}, {"cos", cpu_cos_f32, cos, 4},
};
enum { N_FN = sizeof fns / sizeof *fns, BLOCK = 1 << 16, N_TARGET = 3 };

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static double ulp_of(double v)
{
    int e;
    v = fabs(v);
    if (v < 0x1p-126) return 0x1p-149;
    frexp(v < FLT_MAX ? v : FLT_MAX, &e);
    return ldexp(1, e - 24);
}

/* Error of y in ulp; infinite where the kinds of value differ. */
static double error_ulp(float y, double exact)
{
    if (y == (float)exact && y != 0) return 0; /* rounded correctly: most inputs */
    if (isnan(exact) || isnan(y)) return isnan(exact) && isnan(y) ? 0 : INFINITY;
    if (isinf((float)exact) && isinf(y)) return (exact > 0) == (y > 0) ? 0 : INFINITY;
    if (isinf(y))
        return fabs(exact) > FLT_MAX - 2 * 0x1p104 && (exact > 0) == (y > 0) ? 1 : INFINITY;
    if (exact == 0 && y == 0) return !signbit(exact) == !signbit(y) ? 0 : INFINITY;
    return fabs(y - exact) / ulp_of(exact);
}

/* fn: bufs[0][i] = f(bufs[1][i]) for BLOCK elements */
static void emit_map(CpuModule *m, const MathFn *f, int lanes, const char *name)
{
    cpu_function_begin(m, name);
    LLVMValueRef out = cpu_buffer(m, 0), in = cpu_buffer(m, 1);
    CpuLoop l = cpu_loop_begin(m, cpu_i64(m, 0), cpu_i64(m, BLOCK), lanes, NULL, 0);
    LLVMValueRef x = cpu_load(m, DT_F32, cpu_elem_ptr(m, in, DT_F32, l.index), lanes, NULL);
    cpu_store(m, DT_F32, f->emit(m, x), cpu_elem_ptr(m, out, DT_F32, l.index), lanes, NULL);
    cpu_loop_end(m, &l, NULL);
    cpu_function_end(m);
}

typedef struct Case {
    const char *target;
    CpuSo so;
    ZmKernelFn fn[N_FN], scalar[N_FN];
} Case;

static bool case_init(Case *c, const char *target)
{
    Arena a = {0};
    SourceSet sources = {.arena = &a};
    Diag diag = {.arena = &a, .sources = &sources};
    CpuTarget t;
    c->target = target;
    if (cpu_target_from_name(&a, &diag, target, &t) != ZM_OK) so_die(&diag, target);
    if (!cpu_target_runs_here(&t)) {
        printf("%s: does not run here\n", target);
        return false;
    }
    CpuModule *m = cpu_module_new(&a, &t, "math");
    for (int i = 0; i < N_FN; i++) {
        emit_map(m, &fns[i], t.vector_bytes / 4, fns[i].name);
        emit_map(m, &fns[i], 1, arena_printf(&a, "%s_scalar", fns[i].name));
    }
    c->so = so_load(m, &diag);
    for (int i = 0; i < N_FN; i++) {
        c->fn[i] = so_fn(&c->so, fns[i].name);
        c->scalar[i] = so_fn(&c->so, arena_printf(&a, "%s_scalar", fns[i].name));
    }
    cpu_module_free(m);
    arena_free(&a);
    return true;
}

typedef struct Worst {
    double ulp;
    float at;
    uint64_t n_lane_differs;
} Worst;

static void run_block(const Case *cases, int n_cases, int f, const float *x, bool with_scalar,
                      Worst *worst)
{
    static double exact[BLOCK];
    static float y[BLOCK], y1[BLOCK];
    for (int i = 0; i < BLOCK; i++) exact[i] = fns[f].exact(x[i]);
    for (int c = 0; c < n_cases; c++) {
        char *bufs[] = {(char *)y, (char *)(uintptr_t)x};
        char *bufs1[] = {(char *)y1, (char *)(uintptr_t)x};
        cases[c].fn[f](bufs, 0, NULL);
        if (with_scalar) cases[c].scalar[f](bufs1, 0, NULL);
        for (int i = 0; i < BLOCK; i++) {
            double e = error_ulp(y[i], exact[i]);
            if (e > worst[c].ulp) worst[c].ulp = e, worst[c].at = x[i];
            if (with_scalar && memcmp(&y[i], &y1[i], 4) != 0 && !isnan(y[i]))
                worst[c].n_lane_differs++;
        }
    }
}

static void special_block(float *x)
{
    static const float at[] = {0,        1,          FLT_MIN,  0x1p-149f,   INFINITY, FLT_MAX,
                               NAN,      0.625f,     0.89f,    4,           9.02f,    10,
                               88.7228f, -87.3365f,  -103.97f, 0.70710678f, 1048576,  0.78539f,
                               1.41421f, 3.1415927f, 0.34657f, 88,          104,      89};
    int n = 0;
    for (size_t i = 0; i < sizeof at / sizeof *at; i++)
        for (int d = -200; d <= 200; d++) {
            uint32_t bits;
            memcpy(&bits, &at[i], 4);
            x[n++] = float_of(bits + (uint32_t)d);
            x[n++] = float_of((bits + (uint32_t)d) ^ 0x80000000u);
        }
    while (n < BLOCK) x[n] = x[n - 1], n++;
}

static bool check_fn(const Case *cases, int n_cases, int f, bool all)
{
    static float x[BLOCK];
    Worst worst[N_TARGET] = {{0}};
    special_block(x);
    run_block(cases, n_cases, f, x, true, worst);
    uint64_t step = all ? 1 : 4099, next = 0;
    while (next < 1ull << 32) {
        for (int i = 0; i < BLOCK; i++, next += step) x[i] = float_of((uint32_t)next);
        run_block(cases, n_cases, f, x, !all || next / BLOCK % 64 == 0, worst);
    }
    bool ok = true;
    for (int c = 0; c < n_cases; c++) {
        bool good = worst[c].ulp <= fns[f].max_ulp && worst[c].n_lane_differs == 0;
        printf("%s %s: %.3f ulp at %a, bound %g; lanes differ from scalar: %llu%s\n", fns[f].name,
               cases[c].target, worst[c].ulp, (double)worst[c].at, fns[f].max_ulp,
               (unsigned long long)worst[c].n_lane_differs, good ? "" : "  FAILED");
        fflush(stdout);
        ok = ok && good;
    }
    return ok;
}

int main(int argc, char **argv)
{
    static const char *const targets[N_TARGET] = {"x86-64-v2", "x86-64-v3", "x86-64-v4"};
    bool all = argc > 1 && strcmp(argv[1], "all") == 0;
    const char *only = argc > 2 ? argv[2] : NULL;
    Case cases[N_TARGET];
    int n = 0;
    cpu_llvm_init();
    for (int i = 0; i < N_TARGET; i++) n += case_init(&cases[n], targets[i]);
    bool ok = n > 0;
    for (int f = 0; f < N_FN; f++)
        if (!only || strcmp(only, fns[f].name) == 0) ok = check_fn(cases, n, f, all) && ok;
    for (int i = 0; i < n; i++) so_free(&cases[i].so);
    return ok ? 0 : 1;
}
