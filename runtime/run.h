/* run.h -- one run of a training executable: what zmrt.c opens and train.c, evaluate.c and
 * generate.c work on.  One rank of `p.h->ranks`; ranks.h is how it meets the others. */
#ifndef ZM_RUNTIME_RUN_H
#define ZM_RUNTIME_RUN_H

#include "runtime/checkpoint.h"
#include "runtime/cli.h"
#include "runtime/data.h"
#include "runtime/gradients.h"
#include "runtime/metrics.h"
#include "runtime/numerics.h"
#include "runtime/progress.h"
#include "runtime/replicas.h"
#include "runtime/trace.h"

enum { MAX_SKIPS_IN_ROW = 100 };

typedef struct Run {
    Options o;
    Arena arena; /* the runtime's own tables; nothing is added in a step */
    Program p;
    Pool *pool;
    Exec x;
    State s;
    Data data, eval_data;
    bool has_data, has_eval_data;
    Metrics metrics;
    Progress progress;
    Trace trace;
    GradDump grads;
    FaultPlan faults;
    Numerics numerics;
    const AuditHooks *audit_hooks; /* NULL: this program has none */
    Audit *audit;                  /* --audit-numerics */
    Comm *comm;                    /* NULL: one rank */
    int64_t rank;
    bool is_agreed;      /* the failure that ends the run is known to all ranks */
    int64_t stop_signal; /* that ended the steps, on any rank; 0: none */
    int n_threads;
    Replicas replicas;     /* --check-replicas */
    int64_t step;          /* attempts done, whose results were looked at */
    int64_t started;       /* attempts enqueued: on a GPU one more may be on its way */
    StepResult last;       /* of the attempt before `step` */
    double step_ended;     /* when its result was there, or the first step began */
    int64_t step_bytes[2]; /* that attempt k sent: [k % 2] */
    int said_stop;         /* ZMP_S_STOP as this rank wrote it; -1: not yet */
    int64_t first_step;    /* of this process */
    int64_t watched_steps; /* the first so many any rank observes: all wait for each of them */
    int64_t first_samples; /* running number of the first sample of first_step */
    uint64_t seed;
    DataOrder order;
    int64_t skips_in_row;
    int64_t saved_step, evaluated_step; /* -1: none by this process */
} Run;

/* Running number of the first sample of micro-batch m of step s on this rank. */
int64_t run_first_sample(const Run *r, int64_t s, int64_t m);

/* Steps until o.steps or a signal; checkpoints and evaluations on the way (train.c). */
RtStatus run_steps(Run *r, RtError *e);
RtStatus run_micros(Run *r, int64_t step, RtError *e); /* all micro-batches of a step */
/* RT_FAILED, with why too many steps were skipped (explain.c). */
RtStatus run_explain_skips(Run *r, const StepResult *last, RtError *e);
RtStatus run_save(Run *r, RtError *e); /* a checkpoint of now */

/* One pass over the evaluation data, a line of metrics (evaluate.c).  A signal stops it without a
 * line. */
RtStatus run_evaluate(Run *r, RtError *e);
RtStatus evaluate_check(const Run *r, RtError *e);

/* Continues o.prompt by o.generate tokens on stdout (generate.c). */
RtStatus run_generate(Run *r, RtError *e);
RtStatus generate_check(const Run *r, RtError *e); /* can it: function, prompt */

void program_info(Str *out, const Program *p); /* --info (info.c) */

#endif
