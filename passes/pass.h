/* pass.h -- what a pass is and how passes are run.
 *
 * A pass is one function in one file and one line in passes.def.  The manager (manager.c) checks
 * the facts that the pass needs, runs it with a scratch arena, verifies the module, checks the
 * facts that hold and those that it claims to give, in tools and tests compares a structural hash
 * with *changed (a pass that lies fails), and prints when asked.  No pass calls another; order
 * lives in pipelines.def.
 */
#ifndef ZM_PASSES_PASS_H
#define ZM_PASSES_PASS_H

#include "ir/ir.h"

typedef enum {
#define PASS(NAME, NEEDS, GIVES, BREAKS, DOC) PASS_##NAME,
#include "passes/passes.def"
#undef PASS
    N_PASS
} PassId;

/* Steps of recomputation that a function has: the first n_cheap compute no product, attention or
 * large reduction again. */
typedef struct RecomputeSteps {
    uint32_t n, n_cheap;
} RecomputeSteps;

/* Options that passes read; the driver fills them from the command line, zm-opt from
 * `pass{key=value}`. */
typedef struct PassOptions {
    uint32_t
        ranks; /* along the mesh axis `data`; the stage of ZeRO is the module's (TrainConfig) */
    int64_t bucket_bytes; /* merge buckets up to this size */
    int64_t memory_bytes; /* --memory; 0 = no limit */
    int64_t arena_slack;  /* memplan: an arena within 1/arena_slack of the least possible is good
                             enough, which saves time; 0: search for the least */
    int64_t loss_chunk_bytes; /* chunk_loss: most bytes of logits at a time; 0 = never chunk */
    int64_t recompute_steps;  /* recompute: so many steps of its order, or all */
    RecomputeSteps *recompute_found; /* out: the most of any function; may be NULL */
    bool keep_state_layout;          /* --no-state-tricks */
    int64_t max_gathered_bytes;      /* stage 3: most bytes of gathered parameters at once; 0 = one
                                        bucket more than      the step needs */
    int64_t persist_below;           /* stage 3: buckets of fewer bytes stay whole on every rank */
    /* Bytes of memory that the target wants while fused op `fused` runs (0: none); NULL: no target.
     */
    int64_t (*workspace_bytes)(void *target, const Func *f, OpId fused);
    void *target;
} PassOptions;

typedef struct PassCtx {
    Module *m;
    Arena *scratch; /* emptied after the pass */
    Diag *diag;
    const PassOptions *opt;
    const struct PassInfo *pass;
    uint32_t n_rewrites; /* statistic of the running pass */
    uint32_t *rule_hits; /* by canon: times that each rule of canon_rules.h fired; may be NULL */
} PassCtx;

/* Sets *changed when anything in the module changed.  ZM_FAIL after a diagnostic. */
typedef Status (*PassFn)(PassCtx *cx, bool *changed);

#define PASS(NAME, NEEDS, GIVES, BREAKS, DOC) Status pass_##NAME(PassCtx *cx, bool *changed);
#include "passes/passes.def"
#undef PASS

typedef struct PassInfo {
    const char *name;
    PassFn run;
    uint32_t needs, gives, breaks;
    const char *doc;
} PassInfo;
const PassInfo *pass_info(PassId id);
bool pass_find(const char *name, size_t n, PassId *id);

typedef struct PipelineRun {
    PassOptions opt;
    const char *print_after; /* pass name, "all" or NULL; text goes to print_to */
    FILE *print_to;
    const char *dump_dir; /* NN-pass.zir files, or NULL */
    bool check_changed;   /* hold *changed against a hash of the module, before and after */
    const PassInfo
        *extra; /* passes that a pipeline may name beside those of passes.def: plugins, tests */
    uint32_t n_extra;
    bool timing;     /* table on stderr */
    bool rule_stats; /* on stderr: how often each rewrite rule fired */
} PipelineRun;

/* text: "canon,cse,bucket{bytes=1048576},zero{stage=2}"; errors are diagnostics.  The options of a
 * pass (options.def) hold for that one run of it.  With dump_dir, the IR before a pass that fails
 * (or crashes) is left in crash.zir. */
Status pipeline_run(Module *m, const char *text, const PipelineRun *run);
const char *pipeline_text(const char *name); /* from pipelines.def; NULL when unknown */

/* NULL when the fact holds, else why not (in scratch).  Decided from the IR alone, so that parsed
 * dumps work too. */
const char *fact_check(const Module *m, FactBit fact, Arena *scratch);
const char *fact_name(FactBit fact);

/* The operand of f's return that its attribute `names` calls `name`; none when there is no such. */
ValueId func_result(const Func *f, const char *name);

/* The loc of a new op made by the running pass out of the op at `parent`. */
LocId pass_loc(PassCtx *cx, LocId parent, const char *why);

#endif
