/* cuda_models.c -- the CUDA C of every kernel of both models: what it computes (on
 * the CPU, cuda_run.h), and that real NVRTC takes it.  Models are small; the same kernels at
 * GPT-2's own size are compiled only.  Where NVRTC is absent the first half still runs, and the
 * test is skipped by name. */
#include "frontend/frontend.h"
#include "ir/base/file.h"
#include "passes/pass.h"
#include "codegen/program.h"
#include "tests/unit/cuda_run.h"
#include "tests/unit/cuda_run_attention.h"

enum { MAX_JOBS = 256, EXIT_SKIP = 77 };

typedef struct Model {
    const char *name, *file;
    const char *defines[12][2];
    bool is_run; /* else compiled only */
} Model;

static const Model models[] = {
    {"gpt2_small",
     "gpt2.zm",
     {{"vocab", "127"},
      {"ctx", "32"},
      {"layers", "2"},
      {"heads", "2"},
      {"width", "48"},
      {"B", "3"},
      {"T", "17"},
      {"dropout", "0.1"}},
     true},
    {"mlp_small", "mlp.zm", {{"in", "13"}, {"hidden", "37"}, {"classes", "7"}, {"B", "8"}}, true},
    {"gpt2", "gpt2.zm", {{"T", "64"}, {"dropout", "0.1"}}, false},
    {"mlp", "mlp.zm", {{NULL, NULL}}, false},
};
enum { N_MODELS = sizeof models / sizeof models[0] };

static Module *compile_model(Arena *a, Diag *diag, const Model *model)
{
    const char *slash = strrchr(__FILE__, '/');
    const char *path =
        arena_printf(a, "%.*s/../../models/%s", (int)(slash - __FILE__), __FILE__, model->file);
    char *text;
    size_t n;
    Define defines[12];
    FrontendOptions opt = {.defines = defines, .n_defines = 0};
    for (; opt.n_defines < 12 && model->defines[opt.n_defines][0]; opt.n_defines++)
        defines[opt.n_defines] =
            (Define){model->defines[opt.n_defines][0], model->defines[opt.n_defines][1], false};
    ZM_CHECK(file_read(a, path, &text, &n) == 0);
    Module *m = frontend_compile(a, diag->sources, diag, model->file, text, n, &opt);
    PipelineRun run = {.opt = {.ranks = 1, .bucket_bytes = 1 << 22}};
    if (m && pipeline_run(m, pipeline_text("train"), &run) == ZM_OK) return m;
    FAIL("%s does not compile", model->name);
    diag_print(diag, stderr);
    return NULL;
}

static int collect(Arena *a, const Model *model, const Module *m, Job *jobs)
{
    KernelSet set;
    int n = 0;
    if (kernel_set_build(a, m, &set) != ZM_OK) {
        FAIL("%s: no kernels", model->name);
        return 0;
    }
    for (uint32_t i = 0; i < set.kernels.n; i++) {
        const Kernel *k = set.kernels.at[i];
        ZM_CHECK(n < MAX_JOBS);
        if (cuda_refusal(k))
            FAIL("%s: kernel %u is not printed: %s", model->name, i, cuda_refusal(k));
        else
            jobs[n++] = (Job){arena_printf(a, "%s_%u", model->name, i), NULL, k, m};
    }
    if (n == 0) FAIL("%s: no kernel is printed", model->name);
    printf("%s: %d kernels printed\n", model->name, n);
    return n;
}

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
    for (int i = 0; i < n; i++) cuda_print_kernel(jobs[i].k, jobs[i].name, jobs[i].m, &src);
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
        Module *m = compile_model(&arena, &diag, &models[i]);
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
