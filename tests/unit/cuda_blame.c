/* cuda_blame.c -- which kernel of a text NVRTC's log is about: by its words, and by those of real
 * NVRTC where it is found (else skipped by name). */
#include <stdio.h>
#include <string.h>

#include "codegen/cuda/modules.h"

enum { EXIT_SKIP = 77 };

static int n_failures;

static void expect(const CudaModule *m, const char *log, int64_t want)
{
    int64_t have = cuda_kernel_blamed(m, log);
    if (have == want) return;
    n_failures++;
    fprintf(stderr, "blames %lld, not %lld: %s\n", (long long)have, (long long)want, log);
}

#define KERNEL(NAME, BODY) "extern \"C\" __global__ void " NAME "(float *a0)\n{\n    " BODY "\n}\n"

/* The second of three kernels does not compile. */
static bool real_nvrtc(Arena *a, const CudaModule *m)
{
    Nvrtc nvrtc;
    Str why = {0}, ptx = {0}, log = {0};
    SourceSet sources = {.arena = a};
    Diag diag = {.arena = a, .sources = &sources};
    bool is_found = nvrtc_find(a, &nvrtc, &why);
    if (!is_found) printf("%s\n", str_c(&why));
    if (is_found &&
        nvrtc_compile(&nvrtc, &diag, m->source, m->name, "compute_80", &ptx, NULL, &log) == ZM_OK) {
        n_failures++;
        fprintf(stderr, "a broken kernel compiles\n");
    } else if (is_found)
        expect(m, str_c(&log), 8);
    str_free(&why);
    str_free(&ptx);
    str_free(&log);
    return is_found;
}

int main(void)
{
    Arena a = {0};
    static const uint32_t line_of[] = {2, 6, 10};
    CudaModule m = {.name = "kernels_1.cu", .first = 7, .n = 3, .line_of = line_of};
    m.source = "// prelude\n" KERNEL("zm_kernel_7", "a0[0] = 1;")
        KERNEL("zm_kernel_8", "a0[0] = nonsense;") KERNEL("zm_kernel_9", "a0[0] = 2;");
    m.source_bytes = strlen(m.source);
    expect(&m, "kernels_1.cu(2): error: x", 7);
    expect(&m, "kernels_1.cu(5): warning: y\nkernels_1.cu(12): error: x", 9);
    expect(&m, "kernels_1.cu(1): error: x", -1);
    expect(&m, "ptxas error : Entry function 'zm_kernel_8' uses too much shared data", 8);
    expect(&m, "ptxas error : Entry function 'zm_kernel_80' uses too much shared data", -1);
    expect(&m, "invalid value for --gpu-architecture", -1);
    expect(&m, "", -1);
    bool is_found = real_nvrtc(&a, &m);
    arena_free(&a);
    if (n_failures) return 1;
    return is_found ? 0 : EXIT_SKIP;
}
