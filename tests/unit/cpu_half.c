/* cpu_half.c -- bf16 and f16 of the CPU back end, vectors and single values, for every target that
 * this host runs: loads, stores and rounding against a search in the table of all 65,536 values.
 *
 *   all values     loaded, and stored again
 *   boundaries     every representable value, every midpoint of two, and the floats beside them
 *   random         10 million bit patterns of floats
 *
 * The interpreter's dtype_round and the runtime's convert_from_f32 see the same numbers. */
#include "runtime/convert.h"
#include "tests/unit/cpu_harness.h"

enum { BLOCK = 1 << 16, N_RANDOM = 10000000, N_VALUES = 1 << 16, MAX_FN = 4 };

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* ---- reference ---- */

typedef struct Format {
    DType dt;
    int digits, least;          /* of the significand; exponent of the least subnormal */
    double value[N_VALUES / 2]; /* of the patterns without sign; infinity's is the next power of
                                   two, NaNs' are NaN */
    uint16_t inf;
} Format;

static Format formats[] = {{.dt = DT_BF16, .digits = 8, .least = -133},
                           {.dt = DT_F16, .digits = 11, .least = -24}};

static void format_fill(Format *f)
{
    int fraction = f->digits - 1, top = (1 << (15 - fraction)) - 1;
    f->inf = (uint16_t)(top << fraction);
    for (int p = 0; p < N_VALUES / 2; p++) {
        int e = p >> fraction, m = p & ((1 << fraction) - 1);
        f->value[p] = e == 0 ? ldexp(m, f->least) : ldexp(m + (1 << fraction), f->least + e - 1);
        if (p > f->inf) f->value[p] = NAN;
    }
}

static uint16_t format_round(const Format *f, uint32_t bits)
{
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    float x = float_of(bits & 0x7fffffffu);
    int payload = 24 - f->digits;
    if (isnan(x)) /* the upper bits of the payload, and quiet */
        return (uint16_t)(sign | f->inf | (bits & 0x7fffff) >> payload | 1 << (f->digits - 2));
    uint16_t lo = 0, hi = f->inf; /* value[lo] <= x, and x < value[hi] unless hi = inf */
    while (hi - lo > 1) {
        uint16_t mid = (uint16_t)((lo + hi) / 2);
        if (f->value[mid] <= (double)x)
            lo = mid;
        else
            hi = mid;
    }
    double below = (double)x - f->value[lo], above = f->value[hi] - (double)x;
    bool up = above < below || (above == below && (lo & 1));
    return (uint16_t)(sign | (up ? hi : lo));
}

/* ---- emitted code ---- */

typedef struct Path {
    char name[64];
    DType dt;
    ZmKernelFn widen, narrow;
} Path;

/* bufs[0] = f32, bufs[1] = 16 bits, both [BLOCK]. */
static void emit_path(CpuModule *m, DType dt, int lanes, bool is_narrow, const char *name)
{
    cpu_function_begin(m, name);
    LLVMValueRef wide = cpu_buffer(m, 0), half = cpu_buffer(m, 1);
    CpuLoop l = cpu_loop_begin(m, cpu_i64(m, 0), cpu_i64(m, BLOCK), lanes, NULL, 0);
    LLVMValueRef w = cpu_elem_ptr(m, wide, DT_F32, l.index);
    LLVMValueRef h = cpu_elem_ptr(m, half, dt, l.index);
    if (is_narrow) {
        LLVMValueRef v = cpu_load(m, DT_F32, w, lanes, NULL);
        cpu_store(m, dt, cpu_cast(m, v, DT_F32, dt), h, lanes, NULL);
    } else {
        LLVMValueRef v = cpu_cast(m, cpu_load(m, dt, h, lanes, NULL), dt, DT_F32);
        cpu_store(m, DT_F32, v, w, lanes, NULL);
    }
    cpu_loop_end(m, &l, NULL);
    cpu_function_end(m);
}

typedef struct Target {
    Loaded l;
    Path path[MAX_FN];
    int n;
} Target;

static bool target_open(Target *t, Arena *a, Diag *diag, const char *name)
{
    CpuTarget cpu;
    *t = (Target){.n = 0};
    loaded_open(&t->l, a, diag, name, &cpu);
    for (int i = 0; i < MAX_FN; i++) {
        Path *p = &t->path[t->n++];
        p->dt = i % 2 ? DT_F16 : DT_BF16;
        int lanes = i / 2 ? 1 : cpu.vector_bytes / 4;
        snprintf(p->name, sizeof p->name, "%s %s, %d lanes", name, dtype_name(p->dt), lanes);
        emit_path(t->l.m, p->dt, lanes, false, arena_printf(a, "widen%d", i));
        emit_path(t->l.m, p->dt, lanes, true, arena_printf(a, "narrow%d", i));
    }
    if (loaded_link(&t->l, diag) != ZM_OK) {
        diag_print(diag, stderr);
        abort();
    }
    if (!t->l.handle) {
        loaded_free(&t->l);
        return false;
    }
    for (int i = 0; i < t->n; i++) {
        *(void **)&t->path[i].widen = dlsym(t->l.handle, arena_printf(a, "widen%d", i));
        *(void **)&t->path[i].narrow = dlsym(t->l.handle, arena_printf(a, "narrow%d", i));
    }
    return true;
}

/* ---- checks ---- */

/* A NaN of memory may stay signalling on the way. */
static bool same_value(const Format *f, uint16_t a, uint16_t b)
{
    bool is_nan = (a & 0x7fff) > f->inf;
    uint16_t quiet = (uint16_t)(1 << (f->digits - 2));
    return a == b || (is_nan && (a | quiet) == (b | quiet));
}

static int check_all_values(const Path *p, const Format *f)
{
    static uint16_t in[BLOCK], out[BLOCK];
    static float wide[BLOCK];
    char *bufs[2] = {(char *)wide, (char *)in};
    for (int i = 0; i < BLOCK; i++) in[i] = (uint16_t)i;
    p->widen(bufs, 0, NULL);
    bufs[1] = (char *)out;
    p->narrow(bufs, 0, NULL);
    for (int i = 0; i < BLOCK; i++) {
        double want = copysign(f->value[i & 0x7fff], i & 0x8000 ? -1 : 1);
        bool is_inf = (i & 0x7fff) == f->inf;
        bool is_same = is_inf        ? isinf(wide[i])
                       : isnan(want) ? isnan(wide[i])
                                     : want == (double)wide[i];
        is_same = is_same && !signbit(wide[i]) == !(i & 0x8000);
        if (is_same && same_value(f, in[i], out[i])) continue;
        fprintf(stderr, "%s: %04x is loaded as %g and stored as %04x\n", p->name, i,
                (double)wide[i], out[i]);
        return 1;
    }
    return 0;
}

/* Bits of floats in a block, rounded by every path. */
typedef struct Batch {
    const Target *target;
    int n_targets, n, failed;
    uint32_t bits[BLOCK];
} Batch;

static bool is_nan_pattern(const Format *f, uint16_t p)
{
    return (p & 0x7fff) > f->inf;
}

/* What the interpreter and the runtime make of the float; of a NaN only that it stays one. */
static bool host_agrees(const Format *f, uint32_t bits, uint16_t want)
{
    float in = float_of(bits);
    uint16_t stored;
    convert_from_f32(&stored, (uint32_t)f->dt, &in, 1);
    double rounded = dtype_round(f->dt, (double)in);
    if (is_nan_pattern(f, want)) return is_nan_pattern(f, stored) && isnan(rounded);
    double size = (want & 0x7fff) == f->inf ? INFINITY : f->value[want & 0x7fff];
    return stored == want && fabs(rounded) == size && !signbit(rounded) == !(want & 0x8000);
}

static void check_host(Batch *b, const Format *f, const uint16_t *want)
{
    for (int i = 0; i < b->n; i++) {
        if (host_agrees(f, b->bits[i], want[i])) continue;
        fprintf(stderr, "interpreter or runtime, %s: %08x (%g) is not %04x\n", dtype_name(f->dt),
                b->bits[i], (double)float_of(b->bits[i]), want[i]);
        b->failed++;
        return;
    }
}

static void batch_run(Batch *b)
{
    static uint16_t want[BLOCK], got[BLOCK];
    for (int f = 0; f < 2; f++) {
        for (int i = 0; i < b->n; i++) want[i] = format_round(&formats[f], b->bits[i]);
        check_host(b, &formats[f], want);
        for (int p = 0; p < b->n_targets * MAX_FN; p++) {
            const Path *path = &b->target[p / MAX_FN].path[p % MAX_FN];
            if (path->dt != formats[f].dt) continue;
            char *bufs[2] = {(char *)b->bits, (char *)got};
            path->narrow(bufs, 0, NULL);
            for (int i = 0; i < b->n; i++) {
                if (want[i] == got[i]) continue;
                fprintf(stderr, "%s: %08x (%g) is stored as %04x, not %04x\n", path->name,
                        b->bits[i], (double)float_of(b->bits[i]), got[i], want[i]);
                b->failed++;
                break;
            }
        }
    }
    b->n = 0;
}

static void batch_add(Batch *b, uint32_t bits)
{
    b->bits[b->n++] = bits;
    if (b->n == BLOCK) batch_run(b);
}

/* The float, those beside it, and all of the other sign. */
static void batch_add_near(Batch *b, double v)
{
    float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof f);
    for (int d = bits ? -1 : 0; d <= 1; d++) {
        batch_add(b, bits + (uint32_t)d);
        batch_add(b, (bits + (uint32_t)d) ^ 0x80000000u);
    }
}

static void add_boundaries(Batch *b, const Format *f)
{
    for (int p = 0; p <= f->inf; p++) {
        batch_add_near(b, f->value[p]);
        if (p < f->inf) batch_add_near(b, (f->value[p] + f->value[p + 1]) / 2);
    }
    for (uint32_t i = 0; i < 23; i++) /* NaNs */
        for (uint32_t sign = 0; sign < 2; sign++) batch_add(b, sign << 31 | 0x7f800000u | 1u << i);
}

int main(void)
{
    static const char *const names[] = {"x86-64-v2", "x86-64-v3", "x86-64-v4", "cooperlake"};
    enum { N = sizeof names / sizeof *names };
    Arena a = {0};
    SourceSet sources = {.arena = &a};
    Diag diag = {.arena = &a, .sources = &sources};
    static Target targets[N];
    static Batch b;
    cpu_llvm_init();
    for (int f = 0; f < 2; f++) format_fill(&formats[f]);
    b.target = targets;
    for (int i = 0; i < N; i++)
        b.n_targets += target_open(&targets[b.n_targets], &a, &diag, names[i]);
    for (int p = 0; p < b.n_targets * MAX_FN; p++)
        b.failed += check_all_values(&targets[p / MAX_FN].path[p % MAX_FN], &formats[p % 2]);
    for (int f = 0; f < 2; f++) add_boundaries(&b, &formats[f]);
    uint64_t state = 1;
    for (int i = 0; i < N_RANDOM; i++) {
        uint32_t high = test_random(&state) << 16;
        batch_add(&b, high ^ test_random(&state));
    }
    if (b.n) batch_run(&b);
    for (int i = 0; i < b.n_targets; i++) loaded_free(&targets[i].l);
    printf("%d targets, %d failures\n", b.n_targets, b.failed);
    arena_free(&a);
    return b.failed > 0 || b.n_targets == 0;
}
