/* cpu_attention.c -- kernels `attention` of the CPU back end, forward and backward, for every
 * target that this host runs, against attention_ref.h. */
#include "tests/unit/attention_ref.h"
#include "tests/unit/cpu_harness.h"

static const Case cases[] = {
    {1, 1, 1, 1, 1, 1, false, false, false, 0, ROWS, DT_F32},
    {1, 1, 1, 1, 1, 1, true, false, false, 0, ROWS, DT_F32},
    {1, 2, 5, 7, 3, 2, false, false, false, 0, ROWS, DT_F32},
    {2, 1, 13, 13, 16, 16, true, false, false, 0, ROWS, DT_F32},
    {1, 3, 64, 64, 64, 64, true, false, false, 0, SLICED, DT_F32},
    {2, 2, 67, 67, 24, 24, true, false, false, 0, SLICED, DT_F32},
    {1, 1, 70, 131, 20, 33, true, false, false, 0, ROWS, DT_F32},
    {1, 1, 131, 70, 17, 9, true, false, false, 0, ROWS, DT_F32}, /* the first queries see nothing */
    {1, 2, 65, 129, 8, 8, false, true, false, 0, ROWS, DT_F32},
    {1, 2, 65, 129, 8, 8, false, false, true, 0, COLUMNS, DT_F32},
    {2, 2, 33, 30, 12, 12, true, true, true, 0.25, ROWS, DT_F32},
    {3, 3, 66, 66, 16, 16, true, false, false, 0.25, SLICED, DT_F32},
    {3, 3, 66, 100, 16, 16, false, true, true, 0.5, COLUMNS, DT_F32},
    {1, 1, 1, 200, 40, 40, false, false, false, 0, ROWS, DT_F32},
    {1, 1, 200, 1, 40, 40, false, false, false, 0.25, ROWS, DT_F32},
    {1, 2, 67, 70, 24, 24, true, false, true, 0, ROWS, DT_F64},
    {2, 4, 65, 65, 20, 20, true, false, false, 0.25, SLICED, DT_F64},
    {1, 2, 67, 70, 24, 24, true, true, false, 0.25, ROWS, DT_BF16},
    {2, 4, 65, 65, 20, 20, true, false, false, 0, SLICED, DT_BF16},
    {1, 2, 65, 129, 8, 8, false, true, true, 0, COLUMNS, DT_BF16},
    {1, 2, 67, 70, 24, 24, true, true, false, 0.25, ROWS, DT_F16},
    {2, 4, 65, 65, 20, 20, true, false, false, 0, SLICED, DT_F16},
};

static int test_case(const Loaded *l, const Case *c, const Built *x, const CpuKernelCode *code,
                     bool is_backward)
{
    Bufs one = bufs_new(x, false), two = bufs_new(x, true);
    if (is_backward) {
        for_heads(c, x, &one, NULL, true);
        for_heads(c, x, &two, NULL, true);
    }
    kernel_run(l, code, one.at, false);
    kernel_run(l, code, two.at, true);
    int failed = for_heads(c, x, &one, &one, is_backward);
    for (uint32_t i = 0; i < one.n; i++) {
        size_t n = (size_t)(x->k.args[i].elems * dtype_bytes(x->k.args[i].dtype));
        if (memcmp(one.at[i], two.at[i], n) == 0) continue;
        fprintf(stderr, "T%lld S%lld: argument %u differs between one thread and two\n",
                (long long)c->T, (long long)c->S, i);
        failed++;
    }
    bufs_free(&one);
    bufs_free(&two);
    return failed;
}

static int test_target(const char *name)
{
    enum { N = sizeof cases / sizeof *cases };
    Arena a = {0};
    SourceSet sources = {.arena = &a};
    Diag diag = {.arena = &a, .sources = &sources};
    CpuTarget t;
    Loaded l;
    loaded_open(&l, &a, &diag, name, &t);
    static CpuKernelCode code[2 * N];
    Built *built[2 * N];
    int failed = 0;
    for (int i = 0; i < 2 * N; i++) {
        built[i] = build(&a, &cases[i / 2], i % 2);
        ZM_CHECK(cpu_emit_attention(l.m, &built[i]->k, arena_printf(&a, "case%d", i), &code[i]) ==
                 ZM_OK);
        KernelNeeds needs = cpu_attention_needs(&t, &built[i]->k);
        failed += needs.workspace_bytes != code[i].needs.workspace_bytes ||
                  needs.scratch_bytes != code[i].needs.scratch_bytes;
    }
    if (loaded_link(&l, &diag) != ZM_OK) {
        diag_print(&diag, stderr);
        return 1;
    }
    for (int i = 0; i < 2 * N && l.handle; i++)
        failed += test_case(&l, &cases[i / 2], built[i], &code[i], i % 2);
    printf("%s: %d cases, %d failed\n", name, 2 * N, failed);
    loaded_free(&l);
    arena_free(&a);
    return failed;
}

int main(void)
{
    cpu_llvm_init();
    int failed = test_target("x86-64-v2") + test_target("x86-64-v3") + test_target("x86-64-v4") +
                 test_target("cooperlake");
    return failed != 0;
}
