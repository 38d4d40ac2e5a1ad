/* cuda_ops.c -- every op through the whole CUDA path on the simulator.
 *
 *   small shapes  against the interpreter (op_batch.h): expand, fuse, workspace, schedule, memplan,
 *                 CUDA C, NVRTC, program, the runtime's execution.  Each program runs twice, with
 *                 other orders of blocks and warps: the bits must not change.
 *
 * The simulator must report nothing.  Skipped by name where NVRTC is not found. */
#include "tests/property/gpu_test.h"
#include "tests/property/op_batch.h"

static GpuTest gpu;

static EvalTensor *run_on_gpu(Batch *b, const CodegenTarget *t)
{
    unsigned long before = gpu_test_reports(&gpu);
    uint32_t n = eval_n_results(b->p.f);
    EvalTensor *out[2];
    GpuProgram *g = gpu_program_new(b->p.m, t);
    bool is_ok = g != NULL;
    for (int round = 0; round < 2 && is_ok; round++) {
        for (uint32_t i = 0; i < b->p.n_vars; i++) gpu_set_var(g, b->p.var[i].var, b->p.var[i].at);
        out[round] = ARENA_ARRAY(&b->p.arena, EvalTensor, n + 1);
        is_ok = gpu_run(g, b->p.f, b->p.in, &b->p.arena, out[round]) == ZM_OK;
    }
    if (g) gpu_program_free(g);
    if (!is_ok) diag_print(&b->p.diag, stderr);
    if (!is_ok || gpu_test_reports(&gpu) != before) return NULL;
    for (uint32_t r = 0; r < n; r++)
        for (int64_t i = 0; i < type_elems(out[0][r].type); i++)
            if (!prop_same_bits(out[0][r].at[i], out[1][r].at[i])) return NULL;
    return out[0];
}

static int test_arch(const char *arch, bool has_bf16)
{
    Arena a = {0};
    SourceSet sources = {.arena = &a};
    Diag diag = {.arena = &a, .sources = &sources};
    CodegenTarget t = gpu_test_target(&a, &diag, arch);
    int bad = 0;
    for (int v = 0; v < 6; v++) {
        bad += test_values(arch, &t, run_on_gpu, true, DT_F32, v);
        if (v % 2 == 0) bad += test_gradients(arch, &t, run_on_gpu, v);
        if (has_bf16) bad += test_values(arch, &t, run_on_gpu, true, DT_BF16, v);
        bad += test_values(arch, &t, run_on_gpu, true, DT_F16, v);
    }
    for (int which = 0; which < 5; which++) bad += test_partial(arch, &t, run_on_gpu, which);
    arena_free(&a);
    return bad;
}

int main(void)
{
    if (!gpu_test_open(&gpu, "cuda_ops")) return GPU_EXIT_SKIP;
    int bad = test_arch("compute_75", false);
    bad += test_arch("compute_80", true);
    bad += test_arch("compute_90", true);
    printf("3 architectures, %d failures\n", bad);
    return bad > 0;
}
