/* fuse_models.c -- fusion of the models, tiny: same meaning before and after, kernel forms mean
 * what their bodies mean. */
#include "frontend/frontend.h"
#include "ir/base/file.h"
#include "tests/property/fuse_check.h"

typedef struct Case {
    const char *model;
    Define define[10];
    uint32_t n;
} Case;

static Case cases[] = {
    {"models/mlp.zm", {{"in", "6", 0}, {"hidden", "5", 0}, {"classes", "3", 0}, {"B", "4", 0}}, 4},
    {"models/gpt2.zm",
     {{"vocab", "11", 0},
      {"ctx", "6", 0},
      {"layers", "2", 0},
      {"heads", "2", 0},
      {"width", "6", 0},
      {"B", "2", 0},
      {"T", "5", 0}},
     7},
    {"models/gpt2.zm",
     {{"vocab", "7", 0},
      {"ctx", "3", 0},
      {"layers", "1", 0},
      {"heads", "3", 0},
      {"width", "9", 0},
      {"B", "3", 0},
      {"T", "3", 0},
      {"dropout", "0.3", 0}},
     8},
    {"models/gpt2.zm",
     {{"vocab", "7", 0},
      {"ctx", "1", 0},
      {"layers", "1", 0},
      {"heads", "1", 0},
      {"width", "1", 0},
      {"B", "1", 0},
      {"T", "1", 0}},
     7},
};

static bool check_case(Case *c, int64_t accumulate, FuseStats *stats)
{
    Arena a = {0};
    SourceSet sources = {.arena = &a};
    Diag diag = {.arena = &a, .sources = &sources};
    char *text;
    size_t n;
    int err = file_read(&a, c->model, &text, &n);
    if (err) {
        printf("cannot read %s: run it in the root of the repository\n", c->model);
        return false;
    }
    FrontendOptions opt = {.defines = c->define, .n_defines = c->n};
    Module *m = frontend_compile(&a, &sources, &diag, c->model, text, n, &opt);
    if (m) m->train.accumulate = accumulate;
    PipelineRun run = {.opt = {.ranks = 1, .bucket_bytes = 1 << 20}};
    static const char passes[] =
        "canon,cse,autodiff,canon,cse,dce,accumulate,bucket,expand,canon,cse,dce";
    bool ok = m && pipeline_run(m, passes, &run) == ZM_OK && check_fusion(&a, m, stats);
    diag_print(&diag, stdout);
    arena_free(&a);
    return ok;
}

int main(void)
{
    FuseStats stats = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int64_t accumulate = 1; accumulate <= 2; accumulate++)
            if (!check_case(&cases[i], accumulate, &stats)) {
                printf("case %zu, accumulate %lld\n", i, (long long)accumulate);
                return 1;
            }
    printf("%u functions, %u kernels, %u outputs in place\n", stats.n_funcs, stats.n_kernels,
           stats.n_shared);
    return stats.n_kernels > 200 && stats.n_shared > 50 ? 0 : 1;
}
