/* cuda_model.h -- for tests: a model of models/ with some dimensions set. */
#ifndef ZM_TESTS_CUDA_MODEL_H
#define ZM_TESTS_CUDA_MODEL_H

#include <string.h>

#include "frontend/frontend.h"
#include "ir/base/file.h"
#include "passes/pass.h"

enum { EXIT_SKIP = 77 };

typedef struct Model {
    const char *name, *file;
    const char *defines[12][2];
    bool is_run; /* else compiled only */
} Model;

/* NULL: diag says why. */
static inline Module *frontend_of(Arena *a, Diag *diag, const Model *model)
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
    return frontend_compile(a, diag->sources, diag, model->file, text, n, &opt);
}

#endif
