/* cuda_nvrtc.c -- real NVRTC takes every printed kernel: PTX for compute_80, PTX and cubin for
 * sm_90.  Skipped by name where NVRTC is not found. */
#include <stdio.h>

#include "codegen/cuda/cuda.h"
#include "tests/unit/cuda_kernels.h"

enum { EXIT_SKIP = 77 };

static int n_failures;

#define FAIL(...) (n_failures++, fprintf(stderr, __VA_ARGS__), fputc('\n', stderr))

static void check_entries(const Str *ptx, const char *target)
{
    if (!strstr(str_c(ptx), target)) FAIL("PTX lacks \"%s\"", target);
    for (int i = 0; i < N_CUDA_CASES; i++) {
        char entry[80];
        snprintf(entry, sizeof entry, ".visible .entry %s(", cuda_cases[i].name);
        if (!strstr(str_c(ptx), entry)) FAIL("PTX lacks %s", entry);
    }
}

static void compile_all(const Nvrtc *n, Diag *diag, const char *src)
{
    Str ptx = {0}, ptx90 = {0}, cubin = {0}, log = {0};
    if (nvrtc_compile(n, diag, src, "cuda_cases.cu", "compute_80", &ptx, NULL, &log) != ZM_OK)
        FAIL("%s", str_c(&log));
    else
        check_entries(&ptx, ".target sm_80");
    if (nvrtc_compile(n, diag, src, "cuda_cases.cu", "sm_90", &ptx90, &cubin, &log) != ZM_OK)
        FAIL("%s", str_c(&log));
    else
        check_entries(&ptx90, ".target sm_90");
    if (cubin.n < 64 || memcmp(cubin.at, "\177ELF", 4) != 0) FAIL("the cubin is no ELF file");
    if (log.n > 0) FAIL("NVRTC warns: %s", str_c(&log));
    str_free(&ptx);
    str_free(&ptx90);
    str_free(&cubin);
    str_free(&log);
}

/* A kernel that does not compile is a diagnostic with NVRTC's words. */
static void check_refusal(const Nvrtc *n, Arena *a)
{
    SourceSet sources = {.arena = a};
    Diag diag = {.arena = a, .sources = &sources};
    Str ptx = {0}, log = {0};
    Status s = nvrtc_compile(n, &diag, "__global__ void k() { nonsense(); }", "bad.cu",
                             "compute_80", &ptx, NULL, &log);
    if (s == ZM_OK || diag.n_errors != 1 || diag.msgs.n < 2)
        FAIL("a broken kernel is not reported");
    else if (!strstr(diag.msgs.at[1].text, "nonsense"))
        FAIL("NVRTC's words are lost: %s", diag.msgs.at[1].text);
    str_free(&ptx);
    str_free(&log);
}

static void check_variable(Arena *a)
{
    Nvrtc n = {0};
    Str why = {0};
    const char *before = getenv("ZMC_NVRTC");
    char *kept = before ? arena_strdup(a, before) : NULL;
    setenv("ZMC_NVRTC", "/nonexistent/libnvrtc.so", 1);
    if (nvrtc_find(a, &n, &why) || !strstr(str_c(&why), "/nonexistent/libnvrtc.so"))
        FAIL("ZMC_NVRTC is not obeyed");
    if (kept)
        setenv("ZMC_NVRTC", kept, 1);
    else
        unsetenv("ZMC_NVRTC");
    str_free(&why);
}

int main(void)
{
    Arena arena = {0};
    SourceSet sources = {.arena = &arena};
    Diag diag = {.arena = &arena, .sources = &sources};
    Nvrtc n = {0};
    Str why = {0}, src = {0};
    check_variable(&arena);
    if (n_failures == 0 && !nvrtc_find(&arena, &n, &why)) {
        printf("SKIP cuda_nvrtc: NVRTC not found (%s)\n", str_c(&why));
        return EXIT_SKIP;
    }
    cuda_print_prelude(&src);
    for (int i = 0; i < N_CUDA_CASES; i++)
        cuda_print_kernel(cuda_cases[i].make(&arena), (CudaArch){0}, cuda_cases[i].name, NULL,
                          &src);
    compile_all(&n, &diag, str_c(&src));
    check_refusal(&n, &arena);
    if (diag.n_errors) diag_print(&diag, stderr);
    printf("%s: %d kernels, NVRTC %d.%d (%s), %d failures\n", n_failures ? "FAIL" : "PASS",
           N_CUDA_CASES, n.major, n.minor, n.path ? n.path : "none", n_failures);
    str_free(&why);
    str_free(&src);
    arena_free(&arena);
    return n_failures != 0;
}
