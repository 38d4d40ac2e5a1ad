/* pipeline_parse.h -- a pipeline as text: name{key=value,key=value},name,... */
#ifndef ZM_PASSES_PIPELINE_PARSE_H
#define ZM_PASSES_PIPELINE_PARSE_H

#include "passes/pass.h"

typedef struct PipelineStep {
    const PassInfo *pass;
    PassOptions opt;  /* the run's options with this step's own over them */
    const char *text; /* this step as written */
} PipelineStep;

typedef struct Pipeline {
    PipelineStep *at;
    uint32_t n;
} Pipeline;

/* Into arena a.  ZM_FAIL after a diagnostic (E_PASS_UNKNOWN, E_PASS_OPTION). */
Status pipeline_parse(Arena *a, Diag *diag, const char *text, const PipelineRun *run,
                      Pipeline *out);

#endif
