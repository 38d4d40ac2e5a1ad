/* gpusim_models.c -- the real NVRTC output of every printed kernel runs on the simulator and gives
 * the reference's numbers, with the scheduled grid and with two blocks; the simulator reports
 * nothing.  Skipped by name where NVRTC is not found. */
#include "tests/unit/cuda_model_jobs.h"
#include "tests/unit/gpusim_driver.h"

/* What run_on_device() runs: RunFn has no room for it. */
static struct {
    Driver driver;
    CUfunction function;
    const Kernel *kernel;
} now;

static size_t bytes_of(const KernelArg *a)
{
    size_t n = (size_t)a->elems * (size_t)dtype_bytes(a->dtype);
    return n ? n : 1;
}

/* Outputs that are no inputs stay unwritten: the kernel must write them before anyone reads. */
static void copy_in(void **args, CUdeviceptr *device)
{
    const Kernel *k = now.kernel;
    for (uint32_t i = 0; i < k->n_args; i++) {
        uint32_t first = 0;
        while (args[first] != args[i]) first++;
        device[i] = device[first];
        if (first == i) DRIVER_TRY(now.driver.cuMemAlloc_v2(&device[i], bytes_of(&k->args[i])));
        if (first == i && !k->args[i].is_out)
            DRIVER_TRY(now.driver.cuMemcpyHtoD_v2(device[i], args[i], bytes_of(&k->args[i])));
    }
}

static void copy_out(void **args, const CUdeviceptr *device)
{
    const Kernel *k = now.kernel;
    for (uint32_t i = 0; i < k->n_args; i++) {
        uint32_t first = 0;
        while (args[first] != args[i]) first++;
        if (k->args[i].is_out)
            DRIVER_TRY(now.driver.cuMemcpyDtoH_v2(args[i], device[i], bytes_of(&k->args[i])));
    }
    for (uint32_t i = 0; i < k->n_args; i++) {
        uint32_t first = 0;
        while (args[first] != args[i]) first++;
        if (first == i) DRIVER_TRY(now.driver.cuMemFree_v2(device[i]));
    }
}

static void run_on_device(void **args, int n_blocks, int x, int y, int is_reversed)
{
    CUdeviceptr device[KERNEL_MAX_ARGS];
    void *params[KERNEL_MAX_ARGS];
    (void)is_reversed; /* the seed decides */
    copy_in(args, device);
    for (uint32_t i = 0; i < now.kernel->n_args; i++) params[i] = &device[i];
    DRIVER_TRY(now.driver.cuLaunchKernel(now.function, (unsigned)n_blocks, 1, 1, (unsigned)x,
                                         (unsigned)y, 1, 0, NULL, params, NULL));
    copy_out(args, device);
}

static void check_job(const Job *job, CUmodule module)
{
    unsigned long before = now.driver.reports();
    now.kernel = job->k;
    DRIVER_TRY(now.driver.cuModuleGetFunction(&now.function, module, job->name));
    if (job->k->kind == KK_ATTENTION) {
        Arena a = {0};
        Case c;
        Built *x = built_of_kernel(&a, job->k, &c);
        check_case(&c, x, run_on_device, job->name);
        arena_free(&a);
    } else
        check_numbers_by(job, run_on_device);
    if (now.driver.reports() != before) FAIL("%s: the simulator reports", job->name);
}

static void check_jobs(const Nvrtc *nvrtc, Diag *diag, const char *name, const Job *jobs, int n)
{
    Str src = {0}, ptx = {0}, log = {0};
    CUmodule module;
    cuda_print_prelude(&src);
    for (int i = 0; i < n; i++)
        cuda_print_kernel(jobs[i].k, (CudaArch){0}, jobs[i].name, jobs[i].m, &src);
    if (nvrtc_compile(nvrtc, diag, str_c(&src), name, "compute_80", &ptx, NULL, &log) != ZM_OK)
        FAIL("%s: NVRTC: %s", name, str_c(&log));
    else if (now.driver.cuModuleLoadData(&module, str_c(&ptx)) != CUDA_SUCCESS)
        FAIL("%s: the simulator does not load it", name);
    else {
        for (int i = 0; i < n; i++)
            if (!jobs[i].info || !jobs[i].info->is_huge) check_job(&jobs[i], module);
        DRIVER_TRY(now.driver.cuModuleUnload(module));
    }
    str_free(&src);
    str_free(&ptx);
    str_free(&log);
}

static void check_cases(const Nvrtc *nvrtc, Arena *a)
{
    static Job jobs[N_CUDA_CASES];
    SourceSet sources = {.arena = a};
    Diag diag = {.arena = a, .sources = &sources};
    for (int i = 0; i < N_CUDA_CASES; i++)
        jobs[i] = (Job){cuda_cases[i].name, &cuda_cases[i], cuda_cases[i].make(a), NULL};
    check_jobs(nvrtc, &diag, "cases", jobs, N_CUDA_CASES);
}

static void check_model(const Nvrtc *nvrtc, Arena *a, const Model *model, PrecisionKind precision)
{
    static Job jobs[MAX_JOBS];
    SourceSet sources = {.arena = a};
    Diag diag = {.arena = a, .sources = &sources};
    Module *m = compile_model(a, &diag, model, precision);
    int n = m ? collect(a, model, m, jobs) : 0;
    check_jobs(nvrtc, &diag, model->name, jobs, n);
}

int main(void)
{
    Arena arena = {0};
    Nvrtc nvrtc = {0};
    Str why = {0};
    if (!nvrtc_find(&arena, &nvrtc, &why)) {
        printf("SKIP gpusim_models: NVRTC not found (%s)\n", str_c(&why));
        str_free(&why);
        return EXIT_SKIP;
    }
    driver_open(&now.driver);
    check_cases(&nvrtc, &arena);
    for (int i = 0; i < N_MODELS; i++)
        for (int p = PREC_FP32; p <= PREC_FP16 && models[i].is_run; p++)
            check_model(&nvrtc, &arena, &models[i], (PrecisionKind)p);
    printf("%s: %d failures\n", n_failures ? "FAIL" : "PASS", n_failures);
    str_free(&why);
    arena_free(&arena);
    return n_failures != 0;
}
