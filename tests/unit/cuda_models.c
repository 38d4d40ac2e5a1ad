/* cuda_models.c -- the CUDA C of every kernel of both models: what it computes (on
 * the CPU, cuda_run.h), and that real NVRTC takes it.  Models are small; the same kernels at
 * GPT-2's own size are compiled only.  Where NVRTC is absent the first half still runs, and the
 * test is skipped by name. */
#include "tests/unit/cuda_model_jobs.h"

static void check_attention(const Job *job, void *library)
{
    Arena a = {0};
    Case c;
    RunFn fn;
    Built *x = built_of_kernel(&a, job->k, &c);
    if (find_symbol(library, arena_printf(&a, "run_%s", job->name), &fn))
        check_case(&c, x, fn, job->name);
    arena_free(&a);
}

static void check_run(const Job *jobs, int n)
{
    Str src = {0};
    print_jobs(jobs, n, "", &src);
    void *library = compile(&src);
    for (int i = 0; library && i < n; i++)
        if (jobs[i].k->kind == KK_ATTENTION)
            check_attention(&jobs[i], library);
        else
            check_numbers(&jobs[i], library);
    str_free(&src);
}

static void check_nvrtc(const Nvrtc *nvrtc, Diag *diag, const Model *model, const Job *jobs, int n)
{
    Str src = {0}, ptx = {0}, log = {0};
    cuda_print_prelude(&src);
    for (int i = 0; i < n; i++)
        cuda_print_kernel(jobs[i].k, (CudaArch){0}, jobs[i].name, jobs[i].m, &src);
    Status s = nvrtc_compile(nvrtc, diag, str_c(&src), model->name, "compute_80", &ptx, NULL, &log);
    if (s != ZM_OK || log.n > 0) FAIL("%s: NVRTC: %s", model->name, str_c(&log));
    for (int i = 0; s == ZM_OK && i < n; i++) {
        const char *entry = arena_printf(diag->arena, ".visible .entry %s(", jobs[i].name);
        if (!strstr(str_c(&ptx), entry)) FAIL("PTX lacks %s", entry);
    }
    str_free(&src);
    str_free(&ptx);
    str_free(&log);
}

int main(void)
{
    static Job jobs[MAX_JOBS];
    Arena arena = {0};
    Nvrtc nvrtc = {0};
    Str why = {0};
    bool has_nvrtc = nvrtc_find(&arena, &nvrtc, &why);
    for (int i = 0; i < N_MODELS; i++) {
        SourceSet sources = {.arena = &arena};
        Diag diag = {.arena = &arena, .sources = &sources};
        Module *m = compile_model(&arena, &diag, &models[i], PREC_FP32);
        int n = m ? collect(&arena, &models[i], m, jobs) : 0;
        if (models[i].is_run) check_run(jobs, n);
        if (has_nvrtc) check_nvrtc(&nvrtc, &diag, &models[i], jobs, n);
    }
    int rc = n_failures ? 1 : has_nvrtc ? 0 : EXIT_SKIP;
    if (rc == EXIT_SKIP)
        printf("SKIP cuda_models: NVRTC not found (%s)\n", str_c(&why));
    else
        printf("%s: %d failures\n", rc ? "FAIL" : "PASS", n_failures);
    str_free(&why);
    arena_free(&arena);
    return rc;
}
