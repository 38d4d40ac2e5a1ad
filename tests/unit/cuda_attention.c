/* cuda_attention.c -- the printed CUDA C of attention, forward and backward: run on the CPU against
 * attention_ref.h with two grids and two orders of threads (the same bits are expected), and
 * compiled by real NVRTC where it is found. */
#include "tests/unit/cuda_run_attention.h"

/* Few pairs of a query and a key: every shuffle is 32 changes of context.  The last ones fill more
 * than a block's 16 rows and a tile's 32. */
static const Case cases[] = {
    {1, 1, 1, 1, 1, 1, true, false, false, 0, ROWS, DT_F32},
    {1, 2, 5, 7, 3, 2, false, false, false, 0, ROWS, DT_F32},
    {2, 2, 9, 9, 24, 24, true, false, false, 0, SLICED, DT_F32},
    {1, 1, 6, 11, 70, 33, true, false, false, 0, ROWS, DT_F32},
    {1, 1, 11, 6, 17, 9, true, false, false, 0, ROWS, DT_F32}, /* the first queries see nothing */
    {1, 2, 7, 9, 8, 8, false, true, false, 0, ROWS, DT_F32},
    {1, 2, 5, 9, 8, 8, false, false, true, 0, COLUMNS, DT_F32},
    {2, 2, 7, 6, 12, 12, true, true, true, 0.25, ROWS, DT_F32},
    {2, 3, 5, 5, 40, 40, true, false, false, 0.5, SLICED, DT_F32},
    {1, 2, 6, 7, 24, 24, true, false, true, 0.25, ROWS, DT_F64},
    {1, 2, 6, 7, 24, 24, true, true, false, 0.25, ROWS, DT_BF16},
    {2, 1, 4, 7, 33, 64, false, true, true, 0.25, COLUMNS, DT_F16},
    {1, 2, 3, 4, 256, 255, true, false, false, 0, ROWS, DT_F32},
    {1, 1, 2, 3, 512, 511, false, false, false, 0, ROWS, DT_F64},
    {1, 2, 35, 67, 40, 24, true, true, false, 0.25, COLUMNS, DT_F32},
    {2, 1, 65, 33, 8, 34, true, false, true, 0.5, ROWS, DT_F32},
};

enum { N_CASES = sizeof cases / sizeof *cases, EXIT_SKIP = 77 };

/* Case i forward, case i backward, ... and last a forward without lse. */
static Built *built_case(Arena *a, int i)
{
    if (i < 2 * N_CASES) return build(a, &cases[i / 2], i % 2);
    Built *x = build(a, &cases[2], false);
    x->k.attn.lse.arg = -1;
    return x;
}

static const Case *case_of(int i)
{
    return i < 2 * N_CASES ? &cases[i / 2] : &cases[2];
}

static void check_nvrtc(const Nvrtc *n, Diag *diag, const char *src)
{
    static const char *const arch[] = {"compute_80", "sm_90"};
    for (int i = 0; i < 2; i++) {
        Str ptx = {0}, cubin = {0}, log = {0};
        Status s =
            nvrtc_compile(n, diag, src, "attention.cu", arch[i], &ptx, i ? &cubin : NULL, &log);
        if (s != ZM_OK || log.n > 0) FAIL("NVRTC, %s: %s", arch[i], str_c(&log));
        if (s == ZM_OK && !strstr(str_c(&ptx), ".visible .entry attn_1(")) FAIL("PTX lacks attn_1");
        str_free(&ptx);
        str_free(&cubin);
        str_free(&log);
    }
}

/* A line of the backward with everything names the .zm line. */
static void check_lines(Arena *a)
{
    static const char *const texts[] = {"sdpa_grad  net.zm:7:3", "// q k^T  net.zm:7:3",
                                        "// score  net.zm:7:3",  "// dropout  net.zm:7:3",
                                        "// dS k  net.zm:7:3",   "// store  net.zm:7:3",
                                        "// dS^T q  net.zm:7:3", "// P^T dout  net.zm:7:3"};
    SourceSet sources = {.arena = a};
    Diag diag = {.arena = a, .sources = &sources};
    Module *m = module_new(a, &sources, &diag);
    uint32_t src = source_add(&sources, "net.zm", "model", 5);
    Case c = {2, 2, 7, 6, 12, 12, true, true, true, 0.25, ROWS, DT_F32};
    Built *x = build(a, &c, true);
    x->k.label = "sdpa_grad";
    x->k.loc = loc_source(m, (SrcPos){src, 7, 3, 1});
    Str text = {0};
    cuda_print_kernel(&x->k, (CudaArch){0}, "k", m, &text);
    const char *at = str_c(&text);
    for (size_t i = 0; at && i < sizeof texts / sizeof *texts; i++) {
        at = strstr(at, texts[i]);
        if (!at) FAIL("expected \"%s\" next in\n%s", texts[i], str_c(&text));
    }
    str_free(&text);
}

int main(void)
{
    Arena a = {0};
    SourceSet sources = {.arena = &a};
    Diag diag = {.arena = &a, .sources = &sources};
    Built *x[2 * N_CASES + 1];
    Str shim = {0}, plain = {0}, why = {0};
    check_lines(&a);
    print_shim(&shim);
    cuda_print_prelude(&plain);
    for (int i = 0; i <= 2 * N_CASES; i++) {
        x[i] = built_case(&a, i);
        if (cuda_refusal(&x[i]->k)) FAIL("attention is refused: %s", cuda_refusal(&x[i]->k));
        const char *name = arena_printf(&a, "attn_%d", i);
        cuda_print_kernel(&x[i]->k, (CudaArch){0}, name, NULL, &plain);
        cuda_print_kernel(&x[i]->k, (CudaArch){0}, name, NULL, &shim);
        str_addf(&shim, "SHIM_EXPORT(%s)\n", name);
    }
    void *library = compile(&shim);
    for (int i = 0; library && i <= 2 * N_CASES; i++) {
        const char *name = arena_printf(&a, "attn_%d", i);
        RunFn fn;
        if (find_symbol(library, arena_printf(&a, "run_%s", name), &fn))
            check_case(case_of(i), x[i], fn, name);
    }
    Nvrtc nvrtc = {0};
    bool has_nvrtc = nvrtc_find(&a, &nvrtc, &why);
    if (has_nvrtc) check_nvrtc(&nvrtc, &diag, str_c(&plain));
    printf("%d kernels, %d failures\n", 2 * N_CASES + 1, n_failures);
    if (!has_nvrtc) printf("SKIP cuda_attention: NVRTC not found (%s)\n", str_c(&why));
    int rc = n_failures ? 1 : has_nvrtc ? 0 : EXIT_SKIP;
    str_free(&shim);
    str_free(&plain);
    str_free(&why);
    arena_free(&a);
    return rc;
}
