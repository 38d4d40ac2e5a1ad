/* cuda_nest.c -- the CUDA C of nest, scatter and contraction kernels computes what the kernel form
 * means: hand-built kernels of every shape and random ones, run on the CPU (cuda_run.h). */
#include "tests/unit/cuda_run.h"

/* ---- random kernels: shapes and trees that nobody thought of ---- */

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

/* ---- text ---- */

/* The prelude's conversions against the compiler's: every 16-bit number, and f32 numbers spread
 * over all exponents. */
static const char halves_text[] =
    "extern \"C\" float run_from_f16(unsigned short b) { return zm_to_float(zm_f16{b}); }\n"
    "extern \"C\" unsigned short run_to_f16(float v) { return zm_to_f16(v).bits; }\n"
    "extern \"C\" unsigned short run_to_bf16(float v) { return zm_to_bf16(v).bits; }\n";

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
    cuda_print_kernel(k, (CudaArch){0}, "k", m, &text);
    Job job = {"locations",
               &(CudaCase){.texts = {"// add+mul  net.zm:7:3", "// load  net.zm:7:3",
                                     "// add  net.zm:12:5"}},
               k, m};
    check_text(&job, str_c(&text));
    str_free(&text);
}

static void check_refusals(Arena *a)
{
    Kernel *k = ref_kernel(a, KK_ATTENTION, "sdpa", 1);
    k->attn.D = k->attn.Dv = CUDA_MAX_HEAD;
    if (cuda_refusal(k)) FAIL("attention is refused");
    k->attn.Dv++;
    if (!cuda_refusal(k)) FAIL("a head that is too wide is not refused");
    k = ref_kernel(a, KK_SCATTER, "scatter", 1);
    if (cuda_refusal(k)) FAIL("a scatter is refused");
}

int main(void)
{
    enum { N_RANDOM = 60 };
    static Job jobs[N_CUDA_CASES + N_RANDOM];
    Arena arena = {0};
    int n = 0;
    for (int i = 0; i < N_CUDA_CASES; i++)
        jobs[n++] = (Job){cuda_cases[i].name, &cuda_cases[i], cuda_cases[i].make(&arena), NULL};
    for (int i = 0; i < N_RANDOM; i++)
        jobs[n++] = (Job){arena_printf(&arena, "random%d", i), NULL,
                          make_random(&arena, (uint32_t)i), NULL};
    check_locations(&arena);
    check_refusals(&arena);
    Str src = {0};
    print_jobs(jobs, n, halves_text, &src);
    void *library = compile(&src);
    if (library) check_halves(library);
    for (int i = 0; library && i < n; i++)
        if (!jobs[i].info || !jobs[i].info->is_huge) check_numbers(&jobs[i], library);
    printf("%s: %d kernels, %d failures\n", n_failures ? "FAIL" : "PASS", n, n_failures);
    str_free(&src);
    arena_free(&arena);
    return n_failures != 0;
}
