/* gpusim_wgmma.c -- the simulator's wgmma against the product of small integers, with operands that
 * lie either way in the 128-byte swizzle; and each planted defect is found.  PTX by hand: no NVRTC
 * is needed. */
#include "tests/unit/cuda_compile.h"
#include "tests/unit/gpusim_driver.h"

enum { M = 64, N = 128, K = 16, THREADS = 128, SIDE = 16384, ROW = 128 };

typedef struct Image { /* of shared memory: A, then B */
    uint16_t half[2 * SIDE / 2];
} Image;

/* Of element (x, k): rows x of 64 elements k; turned: blocks of 64 x, rows k. */
static int place(bool is_turned, int x, int k)
{
    int row = is_turned ? k : x, at = is_turned ? x % 64 : k;
    int begin = is_turned ? x / 64 * (K * ROW) : 0;
    return (begin + row * ROW + (at / 8 ^ row % 8) * 16) / 2 + at % 8;
}

static int a_value(int m, int k)
{
    return (3 * m - 5 * k) % 7;
}

static int b_value(int n, int k)
{
    return (n + 2 * k) % 5 - 2;
}

static uint16_t half_of(bool is_bf16, int v)
{
    float f = (float)v;
    _Float16 h = (_Float16)f;
    uint32_t u;
    uint16_t s;
    memcpy(&u, &f, sizeof u);
    memcpy(&s, &h, sizeof s);
    return is_bf16 ? (uint16_t)(u >> 16) : s;
}

static const char head[] =
    ".version 8.0\n.target sm_90a\n.address_size 64\n"
    ".visible .entry k(.param .u64 k_0, .param .u64 k_1)\n{\n"
    ".reg .pred %p<4>;\n.reg .b32 %r<20>;\n.reg .b64 %rd<20>;\n.reg .f32 %f<64>;\n"
    ".shared .align 1024 .b8 sh[32768];\n.loc 1 7 3\n"
    "ld.param.u64 %rd1, [k_0];\nld.param.u64 %rd2, [k_1];\nmov.u32 %r1, %tid.x;\n"
    "mov.u32 %r2, sh;\nshl.b32 %r3, %r1, 4;\nadd.u32 %r4, %r2, %r3;\n"
    "mad.wide.u32 %rd3, %r1, 16, %rd1;\nmad.wide.u32 %rd4, %r1, 256, %rd2;\n";

/* The whole image by 128 threads; then the sums begin with 1. */
static void add_copy(char *body)
{
    for (int i = 0; i < 2 * SIDE; i += THREADS * 16)
        sprintf(body + strlen(body),
                "ld.global.v4.u32 {%%r5,%%r6,%%r7,%%r8}, [%%rd3+%d];\n"
                "st.shared.v4.u32 [%%r4+%d], {%%r5,%%r6,%%r7,%%r8};\n",
                i, i);
    for (int i = 0; i < N / 2; i++) sprintf(body + strlen(body), "mov.f32 %%f%d, 0f3F800000;\n", i);
}

typedef struct Program {
    bool a_turned, b_turned, is_bf16, adds;
    const char *name, *says;              /* a defect, and what the report has */
    const char *before, *between, *after; /* around the product */
} Program;

#define PUBLISH "fence.proxy.async.shared::cta;\nbar.sync 0;\n"
#define FENCE "wgmma.fence.sync.aligned;\n"
#define WAIT "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n"

static void add_product(char *body, const Program *p)
{
    /* stride 1024, leading K rows, 128-byte swizzle; B begins SIDE bytes behind A */
    unsigned long long rest = (K * ROW / 16ull) << 16 | 64ull << 32 | 1ull << 62;
    sprintf(body + strlen(body),
            "shr.u32 %%r9, %%r2, 4;\ncvt.u64.u32 %%rd5, %%r9;\nadd.u64 %%rd5, %%rd5, %llu;\n"
            "add.u64 %%rd6, %%rd5, %d;\nsetp.%s.u32 %%p1, 0, 0;\n%s",
            rest, SIDE / 16, p->adds ? "eq" : "ne", p->before);
    sprintf(body + strlen(body), ".loc 1 42 9\nwgmma.mma_async.sync.aligned.m64n%dk16.f32.%s.%s {",
            N, p->is_bf16 ? "bf16" : "f16", p->is_bf16 ? "bf16" : "f16");
    for (int i = 0; i < N / 2; i++) sprintf(body + strlen(body), "%s%%f%d", i ? ", " : "", i);
    sprintf(body + strlen(body), "}, %%rd5, %%rd6, %%p1, 1, 1, %d, %d;\n%s%s", p->a_turned,
            p->b_turned, p->between, p->after);
    for (int i = 0; i < N / 2; i++)
        sprintf(body + strlen(body), "st.global.f32 [%%rd4+%d], %%f%d;\n", 4 * i, i);
}

static void run(const Driver *d, const char *text, const Image *in, float *out)
{
    CUmodule module;
    CUfunction fn;
    CUdeviceptr from, to;
    void *params[] = {&from, &to};
    DRIVER_TRY(d->cuModuleLoadData(&module, text));
    DRIVER_TRY(d->cuModuleGetFunction(&fn, module, "k"));
    DRIVER_TRY(d->cuMemAlloc_v2(&from, sizeof *in));
    DRIVER_TRY(d->cuMemAlloc_v2(&to, M * N * sizeof *out));
    DRIVER_TRY(d->cuMemcpyHtoD_v2(from, in, sizeof *in));
    DRIVER_TRY(d->cuLaunchKernel(fn, 1, 1, 1, THREADS, 1, 1, 0, NULL, params, NULL));
    DRIVER_TRY(d->cuMemcpyDtoH_v2(out, to, M * N * sizeof *out));
    DRIVER_TRY(d->cuMemFree_v2(from));
    DRIVER_TRY(d->cuMemFree_v2(to));
    DRIVER_TRY(d->cuModuleUnload(module));
}

/* Elements that differ from the product, by the figure of D in the ISA. */
static int count_wrong(const Program *p, const float *out)
{
    int wrong = 0;
    for (int t = 0; t < THREADS; t++)
        for (int r = 0; r < N / 2; r++) {
            int m = t / 32 * 16 + t % 32 / 4 + (r % 4 / 2) * 8, n = r / 4 * 8 + t % 4 * 2 + r % 2;
            int want = p->adds;
            for (int k = 0; k < K; k++) want += a_value(m, k) * b_value(n, k);
            wrong += out[t * (N / 2) + r] != (float)want;
        }
    return wrong;
}

static int run_program(const Driver *d, const Program *p)
{
    static char text[1 << 16];
    static Image in;
    static float out[M * N];
    memset(&in, 0, sizeof in);
    for (int k = 0; k < K; k++) {
        for (int m = 0; m < M; m++)
            in.half[place(p->a_turned, m, k)] = half_of(p->is_bf16, a_value(m, k));
        for (int n = 0; n < N; n++)
            in.half[SIDE / 2 + place(p->b_turned, n, k)] = half_of(p->is_bf16, b_value(n, k));
    }
    strcpy(text, head);
    add_copy(text);
    add_product(text, p);
    strcat(text, "ret;\n}\n.file 1 \"k.cu\"\n");
    run(d, text, &in, out);
    return count_wrong(p, out);
}

static void check_numbers(const Driver *d)
{
    for (int i = 0; i < 16; i++) {
        Program p = {i & 1, i >> 1 & 1,    i >> 2 & 1, i >> 3 & 1, NULL,
                     NULL,  PUBLISH FENCE, WAIT,       ""};
        unsigned long before = d->reports();
        int wrong = run_program(d, &p);
        if (wrong || d->reports() != before)
            FAIL("turned %d %d, bf16 %d, adds %d: %d elements are wrong, %lu reports", p.a_turned,
                 p.b_turned, p.is_bf16, p.adds, wrong, d->reports() - before);
    }
}

static const Program defects[] = {
    {.name = "operands not published",
     .says = "does not publish",
     .before = "bar.sync 0;\n" FENCE,
     .between = WAIT,
     .after = ""},
    {.name = "no barrier behind the copy",
     .says = "no barrier between",
     .before = "fence.proxy.async.shared::cta;\n" FENCE,
     .between = WAIT,
     .after = ""},
    {.name = "no wgmma.fence",
     .says = "no wgmma.fence",
     .before = PUBLISH,
     .between = WAIT,
     .after = ""},
    {.name = "operand overwritten",
     .says = "written before the product is waited for",
     .before = PUBLISH FENCE,
     .between = "wgmma.commit_group.sync.aligned;\nbar.sync 0;\n"
                "mov.u32 %r5, -1;\nst.shared.u32 [%r4], %r5;\n",
     .after = "wgmma.wait_group.sync.aligned 0;\n"},
    {.name = "sums read early",
     .says = NULL,
     .before = PUBLISH FENCE,
     .between = "wgmma.commit_group.sync.aligned;\n",
     .after = ""},
};

static bool has_text(const char *path, const char *text)
{
    static char all[1 << 16];
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(all, 1, sizeof all - 1, f) : 0;
    all[n] = 0;
    if (f) fclose(f);
    return strstr(all, text) != NULL;
}

int main(void)
{
    Driver d;
    char path[] = "/tmp/gpusim_wgmma.XXXXXX";
    int file = mkstemp(path);
    if (file < 0) return 1;
    close(file);
    setenv("GPUSIM_ARCH", "90", 1);
    setenv("GPUSIM_REPORT", path, 1);
    driver_open(&d);
    check_numbers(&d);
    int n_defects = (int)(sizeof defects / sizeof defects[0]);
    for (int i = 0; i < n_defects; i++) {
        const Program *p = &defects[i];
        unsigned long before = d.reports();
        int wrong = run_program(&d, p);
        if (p->says && (d.reports() == before || !has_text(path, p->says)))
            FAIL("%s: not reported", p->name);
        if (!p->says && wrong == 0) FAIL("%s: the numbers are right all the same", p->name);
    }
    unlink(path);
    printf("%s: 16 forms, %d defects, %d failures\n", n_failures ? "FAIL" : "PASS", n_defects,
           n_failures);
    return n_failures != 0;
}
