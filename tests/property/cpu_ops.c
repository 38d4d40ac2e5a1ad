/* cpu_ops.c -- every op through the whole CPU path against the interpreter (op_batch.h), on odd
 * shapes and on every target level that runs here: expand, fuse, workspace, schedule, memplan,
 * kernels, program, execution.  Each program runs twice, the second time with the tasks in
 * descending order: the bits must not change. */
#include "codegen/cpu/cpu.h"
#include "codegen/host.h"
#include "tests/property/op_batch.h"

/* Results of the planned module on this machine; NULL when the two orders of tasks differ. */
static EvalTensor *run_on_host(Batch *b, const CodegenTarget *t)
{
    HostProgram *h = host_program_new(b->p.m, t);
    if (!h) {
        diag_print(&b->p.diag, stderr);
        abort();
    }
    uint32_t n = eval_n_results(b->p.f);
    EvalTensor *out[2];
    for (int back = 0; back < 2; back++) {
        for (uint32_t i = 0; i < b->p.n_vars; i++) host_set_var(h, b->p.var[i].var, b->p.var[i].at);
        out[back] = ARENA_ARRAY(&b->p.arena, EvalTensor, n + 1);
        host_run(h, b->p.f, b->p.in, &b->p.arena, out[back], back);
    }
    host_program_free(h);
    for (uint32_t r = 0; r < n; r++)
        for (int64_t i = 0; i < type_elems(out[0][r].type); i++)
            if (!prop_same_bits(out[0][r].at[i], out[1][r].at[i])) return NULL;
    return out[0];
}

int main(void)
{
    static const char *const targets[] = {"x86-64-v2", "x86-64-v3", "x86-64-v4", "cooperlake"};
    enum { N_TARGETS = sizeof targets / sizeof *targets };
    int bad = 0, n = 0;
    for (int i = 0; i < N_TARGETS; i++) {
        Arena a = {0};
        SourceSet sources = {.arena = &a};
        Diag diag = {.arena = &a, .sources = &sources};
        CodegenTarget t;
        if (codegen_target_init(&t, &a, &diag, "cpu", targets[i]) != ZM_OK) return 1;
        if (!cpu_target_runs_here(t.cpu)) {
            printf("%s: does not run here\n", targets[i]);
            continue;
        }
        for (int v = 0; v < 6; v++, n++) {
            bad += test_values(targets[i], &t, run_on_host, false, DT_F32, v);
            if (v % 2 == 0) bad += test_gradients(targets[i], &t, run_on_host, v);
            bad += test_values(targets[i], &t, run_on_host, false, DT_BF16, v);
            bad += test_values(targets[i], &t, run_on_host, false, DT_F16, v);
        }
        for (int which = 0; which < 5; which++)
            bad += test_partial(targets[i], &t, run_on_host, which);
        arena_free(&a);
    }
    printf("%d variants, %d failures\n", n, bad);
    return bad > 0 || n == 0;
}
