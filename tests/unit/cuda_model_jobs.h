/* cuda_model_jobs.h -- for tests: the kernels of both models as jobs, at sizes that run and at
 * GPT-2's own. */
#ifndef ZM_TESTS_CUDA_MODEL_JOBS_H
#define ZM_TESTS_CUDA_MODEL_JOBS_H

#include "codegen/program.h"
#include "tests/unit/cuda_model.h"
#include "tests/unit/cuda_run.h"
#include "tests/unit/cuda_run_attention.h"

enum { MAX_JOBS = 256 };

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
    Module *m = frontend_of(a, diag, model);
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
