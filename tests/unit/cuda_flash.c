/* cuda_flash.c -- attention on tensor cores, forward and backward, on the simulator against
 * attention_ref.h: rows and widths that fill no tile, more rows than one, wide and narrow accesses,
 * masks, bias and dropout, bf16 and f16. */
#include "tests/unit/cuda_sim_attention.h"

static const Case cases[] = {
    {1, 2, 1, 1, 16, 16, true, false, false, 0, ROWS, DT_BF16},
    {1, 1, 7, 7, 8, 8, true, false, false, 0, ROWS, DT_BF16},
    {2, 2, 33, 33, 64, 64, true, false, false, 0, SLICED, DT_BF16},
    {1, 1, 65, 100, 40, 24, false, false, false, 0, ROWS, DT_F16},
    {1, 1, 100, 65, 16, 40, true, false, false, 0, ROWS, DT_BF16}, /* the first see nothing */
    {1, 2, 33, 70, 13, 13, true, false, false, 0, ROWS, DT_BF16},
    {1, 2, 40, 33, 16, 16, false, false, true, 0, COLUMNS, DT_BF16},
    {2, 2, 66, 65, 64, 64, true, true, true, 0.25, ROWS, DT_BF16},
    {2, 3, 70, 70, 40, 40, true, false, false, 0.5, SLICED, DT_F16},
    {1, 1, 100, 100, 80, 80, true, false, false, 0, ROWS, DT_BF16},
    {2, 1, 33, 40, 128, 128, false, true, false, 0.25, ROWS, DT_F16},
    {1, 1, 64, 192, 128, 64, true, false, false, 0, ROWS, DT_BF16},
    /* enough blocks for 32 rows a warp */
    {2, 64, 130, 130, 8, 8, true, false, false, 0, SLICED, DT_BF16},
    {8, 32, 3, 35, 64, 64, true, false, false, 0.25, ROWS, DT_F16},
    {16, 16, 2, 53, 128, 128, true, false, false, 0, ROWS, DT_BF16},
    {1, 1, 66, 65, 256, 200, true, false, false, 0.25, ROWS, DT_BF16},
};

enum {
    N_CASES = sizeof cases / sizeof *cases,
    FIRST_MANY = 12,
    EXIT_SKIP = 77,
    MAX_RUNS = 2 * N_CASES + 2
};

static int add(Sim *s, SimCase *to, int n, const Case *c, bool is_backward, CudaArch arch)
{
    Built *x = build(&s->arena, c, is_backward);
    for (uint32_t i = 0; i < x->k.n_args; i++) x->k.args[i].align = 256;
    bool is_flash = cuda_schedule(&x->k, arch).shape == CUDA_FLASH;
    bool is_too_wide = is_backward && (c->D > 128 || c->Dv > 128);
    /* sm_75 multiplies f16 alone and has 64 KiB of shared memory. */
    bool is_old = arch.sm < 80 && (c->dt == DT_BF16 || (is_backward && c->D > 64));
    if (is_flash == (is_too_wide || is_old)) FAIL("case %d: the other kernel", (int)(c - cases));
    if (!is_flash) return n;
    to[n] = (SimCase){.name = arena_printf(&s->arena, "case %d, %s, sm_%d", (int)(c - cases),
                                           is_backward ? "backward" : "forward", arch.sm),
                      .k = &x->k};
    return n + 1;
}

/* Not in the table: no lse; scores times a negative number; a result of f32. */
static int add_odd(Sim *s, SimCase *to)
{
    static const Case c = {1, 2, 35, 70, 24, 16, true, false, false, 0.25, ROWS, DT_BF16};
    enum { NO_LSE, NEGATIVE, F32_RESULT, N_ODD };
    static const char *const names[] = {"no lse", "negative", "f32 result"};
    for (int i = 0; i < N_ODD; i++) {
        Built *x = build(&s->arena, &c, i == NEGATIVE);
        AttnSpec *a = &x->k.attn;
        if (i == NO_LSE) a->lse.arg = -1;
        if (i == NEGATIVE) a->scale = -0.375;
        if (i == F32_RESULT) a->out.dtype = x->k.args[a->out.arg].dtype = DT_F32;
        to[i] = (SimCase){.name = names[i], .k = &x->k};
    }
    return N_ODD;
}

/* Cases from `first` on. */
static void check(Sim *s, const char *arch, int first)
{
    SimCase odd[3];
    SimCase *runs = ARENA_ARRAY(&s->arena, SimCase, MAX_RUNS);
    int n = 0;
    for (int i = first; i < N_CASES; i++)
        for (int part = 0; part < 2; part++)
            n = add(s, runs, n, &cases[i], part == 1, cuda_arch(arch));
    sim_check(s, arch, runs, n);
    if (first == 0 && cuda_arch(arch).sm >= 80) sim_check(s, arch, odd, add_odd(s, odd));
}

/* Element numbers of 64 bits compile. */
static void check_huge(Sim *s)
{
    static const Case c = {1, 2, 35, 70, 24, 16, true, true, true, 0.25, ROWS, DT_F16};
    SourceSet sources = {.arena = &s->arena};
    Diag diag = {.arena = &s->arena, .sources = &sources};
    for (int part = 0; part < 2; part++) {
        Built *x = build(&s->arena, &c, part == 1);
        x->k.args[0].elems = (int64_t)1 << 32;
        const Kernel *k = &x->k;
        CudaModules m = {.arch = "sm_80", .n_threads = 1, .n_kernels = 1, .kernels = &k};
        if (!cuda_schedule(k, cuda_arch("sm_80")).is_64bit) FAIL("not huge");
        if (cuda_compile_modules(&s->arena, &diag, &m) != ZM_OK) {
            FAIL("64-bit element numbers do not compile");
            diag_print(&diag, stderr);
        }
    }
}

/* Lines of the backward name the .zm line. */
static void check_lines(Sim *s)
{
    static const char *const texts[] = {
        "sdpa_grad  net.zm:7:3",  "// delta  net.zm:7:3",    "// q k^T  net.zm:7:3",
        "// score  net.zm:7:3",   "// dout v^T  net.zm:7:3", "// dropout  net.zm:7:3",
        "// softmax  net.zm:7:3", "// dS k  net.zm:7:3",     "// store  net.zm:7:3",
        "// delta  net.zm:7:3",   "// P^T dout  net.zm:7:3", "// dS^T q  net.zm:7:3"};
    SourceSet sources = {.arena = &s->arena};
    Diag diag = {.arena = &s->arena, .sources = &sources};
    Module *m = module_new(&s->arena, &sources, &diag);
    uint32_t src = source_add(&sources, "net.zm", "model", 5);
    Case c = {2, 2, 7, 6, 16, 16, true, true, true, 0.25, ROWS, DT_BF16};
    Built *x = build(&s->arena, &c, true);
    x->k.label = "sdpa_grad";
    x->k.loc = loc_source(m, (SrcPos){src, 7, 3, 1});
    Str text = {0};
    cuda_print_kernel(&x->k, cuda_arch("sm_80"), "k", m, &text);
    const char *at = str_c(&text);
    for (size_t i = 0; at && i < sizeof texts / sizeof *texts; i++) {
        at = strstr(at, texts[i]);
        if (!at) FAIL("expected \"%s\" next in\n%s", texts[i], str_c(&text));
    }
    str_free(&text);
}

int main(void)
{
    Sim s;
    if (!sim_open(&s, "cuda_flash")) return EXIT_SKIP;
    s.check_attention = sim_check_attention;
    check(&s, "compute_80", 0);
    check(&s, "compute_75", 0);
    check(&s, "compute_90", FIRST_MANY); /* more shared memory: other tiles */
    check_lines(&s);
    check_huge(&s);
    return sim_close(&s);
}
