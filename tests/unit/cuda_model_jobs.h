/* cuda_model_jobs.h -- for tests: the kernels of both models as jobs, at sizes that run and at
 * GPT-2's own. */
#ifndef ZM_TESTS_CUDA_MODEL_JOBS_H
#define ZM_TESTS_CUDA_MODEL_JOBS_H

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

static Module *compile_model(Arena *a, Diag *diag, const Model *model, PrecisionKind precision)
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
    if (m) m->train.precision = precision;
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

#endif
