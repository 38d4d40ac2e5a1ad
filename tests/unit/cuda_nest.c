/* cuda_nest.c -- the CUDA C of nest, scatter and contraction kernels computes what the kernel form
 * means. Nothing here needs a GPU: the printed text is compiled for the CPU against cuda_shim.h,
 * run with every thread a coroutine, and compared with kernel_ref.h. Each kernel runs twice, with
 * the scheduled grid and with 2 blocks, threads in opposite orders: the same bits are expected. */
#include <dlfcn.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "codegen/cuda/cuda.h"
#include "tests/unit/cuda_kernels.h"

static int n_failures;

#define FAIL(...) (n_failures++, fprintf(stderr, __VA_ARGS__), fputc('\n', stderr))

/* ---- random kernels: shapes and trees that nobody thought of
 * ------------------------------------------------------------------ */

typedef struct Rng {
    uint64_t state;
} Rng;

static uint32_t rng_below(Rng *r, uint32_t n)
{
    r->state = r->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(r->state >> 33) % n;
}

/* Strides of a dense array over the loops in mask, in a random order of dimensions; *elems = its
 * size. */
static void random_strides(Rng *r, const Kernel *k, uint32_t mask, int64_t *stride, int64_t *elems)
{
    uint32_t order[KERNEL_MAX_LOOPS], n = 0;
    for (uint32_t d = 0; d < k->n_loops; d++) {
        stride[d] = 0;
        if (mask >> d & 1) order[n++] = d;
    }
    *elems = 1;
    while (n > 0) {
        uint32_t pick = rng_below(r, n), d = order[pick];
        order[pick] = order[--n];
        stride[d] = *elems;
        *elems *= k->loops[d].extent;
    }
}

static int random_load(Rng *r, Kernel *k)
{
    int64_t stride[KERNEL_MAX_LOOPS], elems;
    random_strides(r, k, rng_below(r, 1u << k->n_loops), stride, &elems);
    int64_t base = rng_below(r, 4);
    return ref_load(k, ref_in(k, DT_F32, elems + base), base, stride);
}

/* Only operations that are exact, but for the sums: their error is what the tolerance allows. */
static int random_op(Rng *r, Kernel *k)
{
    static const OpCode ops[] = {OP_ADD, OP_SUB, OP_MAX, OP_MIN};
    int x = (int)rng_below(r, k->n_nodes), y = (int)rng_below(r, k->n_nodes);
    switch (rng_below(r, 4)) {
    case 0: return ref_bin(k, OP_MUL, x, ref_const(k, DT_F32, 0.375));
    case 1: return ref_un(k, rng_below(r, 2) ? OP_NEG : OP_ABS, x);
    default: return ref_bin(k, ops[rng_below(r, 4)], x, y);
    }
}

/* Element values are stored everywhere, row values once per row or everywhere. */
static void random_store(Rng *r, Kernel *k, int node, bool is_row)
{
    int64_t stride[KERNEL_MAX_LOOPS], elems;
    uint32_t all = (1u << k->n_loops) - 1;
    random_strides(r, k, is_row ? all & ~ref_red_mask(k) : all, stride, &elems);
    ref_store(k, node, ref_out(k, DT_F32, elems, -1), 0, stride);
}

static Kernel *make_random(Arena *a, uint32_t seed)
{
    Rng r = {seed * 7919u + 1};
    for (int i = 0; i < 8; i++) rng_below(&r, 2);
    uint32_t n_stages = 1 + rng_below(&r, 3);
    Kernel *k = ref_kernel(a, KK_NEST, "random", n_stages);
    static const int64_t extents[] = {2, 3, 5, 7, 17, 33};
    uint32_t n_loops = 1 + rng_below(&r, 4);
    int64_t elems = 1;
    for (uint32_t d = 0; d < n_loops && elems < 1000; d++) {
        ref_loop(k, rng_below(&r, 2) ? LOOP_PAR : LOOP_RED, extents[rng_below(&r, 6)]);
        elems *= k->loops[d].extent;
    }
    for (uint32_t i = 0; i < 3; i++) random_load(&r, k);
    for (uint32_t stage = 0; stage < n_stages; stage++) {
        for (uint32_t i = 0; i < 3; i++) random_op(&r, k);
        if (stage + 1 == n_stages)
            random_store(&r, k, (int)(k->n_nodes - 1 - rng_below(&r, 4)), false);
        if (ref_red_mask(k) == 0) continue;
        uint32_t n_before = k->n_nodes; /* a reduction does not use one of its own stage */
        for (uint32_t i = rng_below(&r, 3); i > 0; i--) {
            int node = (int)rng_below(&r, n_before);
            ref_reduce(k, rng_below(&r, 2) ? OP_REDUCE_SUM : OP_REDUCE_MAX, node, (int)stage);
        }
    }
    int last = (int)k->n_nodes - 1;
    if (k->nodes[last].level != LV_ELEM) random_store(&r, k, last, true);
    return k;
}

/* ---- memory ---- */

/* A buffer that ends at a page that cannot be touched. */
typedef struct Guarded {
    char *map;
    size_t map_bytes;
    char *at;
} Guarded;

static Guarded guarded_new(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), used = (bytes + page - 1) / page * page;
    Guarded g = {.map_bytes = used + 2 * page};
    g.map = mmap(NULL, g.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ZM_CHECK(g.map != MAP_FAILED);
    ZM_CHECK(mprotect(g.map + page, used, PROT_READ | PROT_WRITE) == 0);
    g.at = g.map + page + used - bytes;
    return g;
}

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

/* The prelude's conversions against the compiler's: every 16-bit number, and f32 numbers spread
 * over all exponents. */
static const char halves_text[] =
    "extern \"C\" float run_from_f16(unsigned short b) { return zm_to_float(zm_f16{b}); }\n"
    "extern \"C\" unsigned short run_to_f16(float v) { return zm_to_f16(v).bits; }\n"
    "extern \"C\" unsigned short run_to_bf16(float v) { return zm_to_bf16(v).bits; }\n";

static void *find_symbol(void *library, const char *name, void *fn)
{
    void *at = dlsym(library, name);
    if (!at) FAIL("%s: not in the compiled library", name);
    memcpy(fn, &at, sizeof at);
    return at;
}

typedef void (*RunFn)(void **args, int n_blocks, int x, int y, int is_reversed);

typedef struct Job {
    const char *name;
    const CudaCase *info;
    Kernel *k;
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
        out[i] = is_shared ? out[a->alias_in] : guarded_new((size_t)a->elems * bytes);
        for (int64_t e = 0; !is_shared && e < a->elems; e++)
            encode(a->dtype, mem[i][e], out[i].at + (size_t)e * bytes);
        args[i] = out[i].at;
    }
    CudaSchedule s = cuda_schedule(k);
    fn(args, is_second ? 2 : (int)s.n_blocks, s.threads_x, s.threads_y, is_second);
}

static double tolerance(const Job *job, DType dt, const double *ref, int64_t n)
{
    if (job->info && job->info->is_exact) return 0;
    double scale = 1, condition = job->info ? job->info->condition : 64;
    for (int64_t e = 0; e < n; e++) scale = fmax(scale, fabs(ref[e]));
    double eps = dt == DT_F64 ? 0x1p-53 : 0x1p-24;
    double place = dt == DT_BF16  ? 0x1p-8
                   : dt == DT_F16 ? 0x1p-11
                                  : 0; /* f32 error may turn a rounding */
    return (((double)cuda_schedule(job->k).n_reduced + 8) * eps * condition + place) * scale;
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
        if (is_second || !k->args[i].is_out || k->args[i].alias_in < 0)
            munmap(g[i].map, g[i].map_bytes);
}

static void check_numbers(const Job *job, void *library)
{
    char symbol[80];
    RunFn fn;
    snprintf(symbol, sizeof symbol, "run_%s", job->name);
    if (!find_symbol(library, symbol, &fn)) return;
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

/* ---- text ---- */

static void check_text(const Job *job, const char *text)
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

static void print_jobs(const Job *jobs, int n, Str *out)
{
    str_addf(out, "#include \"%.*scuda_shim.h\"\n", (int)(strrchr(__FILE__, '/') + 1 - __FILE__),
             __FILE__);
    cuda_print_prelude(out);
    for (int i = 0; i < n; i++) {
        Str text = {0};
        cuda_print_kernel(jobs[i].k, jobs[i].name, NULL, &text);
        if (jobs[i].info) check_text(&jobs[i], str_c(&text));
        if (!jobs[i].info || !jobs[i].info->is_huge)
            str_addf(out, "%sSHIM_EXPORT(%s)\n\n", str_c(&text), jobs[i].name);
        str_free(&text);
    }
    str_add(out, halves_text);
}

static void check_to_halves(uint32_t bits, uint16_t (*to_f16)(float), uint16_t (*to_bf16)(float))
{
    float v;
    memcpy(&v, &bits, sizeof v);
    _Float16 h = (_Float16)v;
    uint16_t want, f16 = to_f16(v), bf16 = to_bf16(v);
    memcpy(&want, &h, sizeof want);
    char bytes[2] = {(char)(bf16 & 0xff), (char)(bf16 >> 8)};
    double back = decode(DT_BF16, bytes), rounded = dtype_round(DT_BF16, (double)v);
    bool is_nan = v != v;
    if (is_nan ? (f16 & 0x7fff) <= 0x7c00 : f16 != want)
        FAIL("f16 of %a: %x, want %x", v, f16, want);
    if (is_nan ? back == back : back != rounded) FAIL("bf16 of %a: %a, want %a", v, back, rounded);
}

static void check_halves(void *library)
{
    float (*from_f16)(uint16_t);
    uint16_t (*to_f16)(float), (*to_bf16)(float);
    if (!find_symbol(library, "run_from_f16", &from_f16) ||
        !find_symbol(library, "run_to_f16", &to_f16) ||
        !find_symbol(library, "run_to_bf16", &to_bf16))
        return;
    for (uint32_t b = 0; b < 0x10000 && n_failures < 20; b++) {
        uint16_t u = (uint16_t)b;
        _Float16 h;
        memcpy(&h, &u, sizeof h);
        float got = from_f16(u), want = (float)h;
        if (want == want ? got != want : got == got) FAIL("f16 %x is %a, want %a", b, got, want);
        /* Halfway to the next f16 and to the next bf16 number, and one f32 step to each side. */
        uint32_t bits;
        memcpy(&bits, &want, sizeof bits);
        for (uint32_t step = 0xfff; step <= 0x1001; step++)
            check_to_halves(bits + step, to_f16, to_bf16);
        for (uint32_t step = 0x7fff; step <= 0x8001; step++)
            check_to_halves((b << 16) + step, to_f16, to_bf16);
    }
    /* Spread over all exponents; numbers below f16's normal ones. */
    for (uint32_t b = 0; b < 0x10000 && n_failures < 20; b++)
        check_to_halves(b * 65521u + 0x1000u * (b & 7), to_f16, to_bf16);
}

/* The shared library, or NULL; keeps the source when it does not compile. */
static void *compile(const Str *src)
{
    char dir[] = "/tmp/cuda_nest.XXXXXX", command[512], path[64];
    ZM_CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/k.cc", dir);
    FILE *f = fopen(path, "w");
    ZM_CHECK(f != NULL);
    fputs(str_c(src), f);
    fclose(f);
    const char *cxx = getenv("CXX");
    snprintf(command, sizeof command,
             "%s -std=c++17 -O1 -ffp-contract=off -w -shared -fPIC -o %s/k.so %s",
             cxx ? cxx : "c++", dir, path);
    void *library = NULL;
    if (system(command) != 0)
        FAIL("does not compile: %s", command);
    else {
        snprintf(path, sizeof path, "%s/k.so", dir);
        library = dlopen(path, RTLD_NOW);
        if (!library) FAIL("%s", dlerror());
    }
    snprintf(command, sizeof command, "rm -r %s", dir);
    if (library && !getenv("CUDA_NEST_KEEP") && system(command) != 0) FAIL("%s", command);
    return library;
}

/* A line of a kernel names the .zm line of the op that it computes; the kernel's own where the op
 * has none. */
static void check_locations(Arena *a)
{
    SourceSet sources = {.arena = a};
    Diag diag = {.arena = a, .sources = &sources};
    Module *m = module_new(a, &sources, &diag);
    uint32_t src = source_add(&sources, "net.zm", "model", 5);
    Kernel *k = make_pointwise(a);
    k->loc = loc_source(m, (SrcPos){src, 7, 3, 1});
    k->nodes[3].loc =
        loc_derive(m, loc_source(m, (SrcPos){src, 12, 5, 1}), "autodiff", "gradient of add");
    Str text = {0};
    cuda_print_kernel(k, "k", m, &text);
    Job job = {"locations",
               &(CudaCase){.texts = {"// add+mul  net.zm:7:3", "// load  net.zm:7:3",
                                     "// add  net.zm:12:5"}},
               k};
    check_text(&job, str_c(&text));
    str_free(&text);
}

static void check_refusals(Arena *a)
{
    Kernel *k = ref_kernel(a, KK_ATTENTION, "sdpa", 1);
    if (!cuda_refusal(k)) FAIL("attention is not refused");
    k->kind = KK_SCATTER;
    if (cuda_refusal(k)) FAIL("a scatter is refused");
}

int main(void)
{
    enum { N_RANDOM = 60 };
    static Job jobs[N_CUDA_CASES + N_RANDOM];
    Arena arena = {0};
    int n = 0;
    for (int i = 0; i < N_CUDA_CASES; i++)
        jobs[n++] = (Job){cuda_cases[i].name, &cuda_cases[i], cuda_cases[i].make(&arena)};
    for (int i = 0; i < N_RANDOM; i++)
        jobs[n++] =
            (Job){arena_printf(&arena, "random%d", i), NULL, make_random(&arena, (uint32_t)i)};
    check_locations(&arena);
    check_refusals(&arena);
    Str src = {0};
    print_jobs(jobs, n, &src);
    void *library = compile(&src);
    if (library) check_halves(library);
    for (int i = 0; library && i < n; i++)
        if (!jobs[i].info || !jobs[i].info->is_huge) check_numbers(&jobs[i], library);
    printf("%s: %d kernels, %d failures\n", n_failures ? "FAIL" : "PASS", n, n_failures);
    str_free(&src);
    arena_free(&arena);
    return n_failures != 0;
}
