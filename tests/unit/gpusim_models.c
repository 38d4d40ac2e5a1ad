/* gpusim_models.c -- the real NVRTC output of hand-made kernels of every shape and of all kernels
 * of small models in every precision, for several chips, on the simulator: the reference's numbers,
 * no report.  Skipped by name where NVRTC is not found. */
#include "tests/unit/cuda_model_jobs.h"
#include "tests/unit/cuda_sim_attention.h"

static void check_cases(Sim *s, const char *arch)
{
    SimCase cases[N_CUDA_CASES];
    int n = 0;
    for (int i = 0; i < N_CUDA_CASES; i++)
        if (!cuda_cases[i].is_huge)
            cases[n++] = (SimCase){.name = cuda_cases[i].name, .k = cuda_cases[i].make(&s->arena)};
    sim_check(s, arch, cases, n);
}

static void check_model(Sim *s, const Model *model, PrecisionKind precision, const char *arch)
{
    static Job jobs[MAX_JOBS];
    static SimCase cases[MAX_JOBS];
    SourceSet sources = {.arena = &s->arena};
    Diag diag = {.arena = &s->arena, .sources = &sources};
    Module *m = compile_model(&s->arena, &diag, model, precision);
    int n = m ? collect(&s->arena, model, m, jobs) : 0;
    for (int i = 0; i < n; i++) cases[i] = (SimCase){.name = jobs[i].name, .k = jobs[i].k};
    s->m = m;
    sim_check(s, arch, cases, n);
    s->m = NULL;
}

int main(void)
{
    static const char *const archs[] = {"compute_75", "compute_80", "compute_90"};
    Sim s;
    if (!sim_open(&s, "gpusim_models")) return EXIT_SKIP;
    s.check_attention = sim_check_attention;
    for (int a = 0; a < 3; a++) {
        check_cases(&s, archs[a]);
        for (int i = 0; i < N_MODELS; i++)
            for (int p = PREC_FP32; p <= PREC_FP16 && models[i].is_run; p++)
                if (p != PREC_BF16 || a > 0)
                    check_model(&s, &models[i], (PrecisionKind)p, archs[a]);
    }
    return sim_close(&s);
}
