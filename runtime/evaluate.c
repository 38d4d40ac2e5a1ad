/* evaluate.c -- the loss over all samples of the evaluation data, in order, each once: function
 * @eval adds up. */
#include "runtime/run.h"

#include "runtime/signals.h"

RtStatus evaluate_check(const Run *r, RtError *e)
{
    if (!r->p.eval)
        return RT_FAIL(e, RT_BAD,
                       "--eval-data: this program was compiled without an evaluation function");
    if (r->eval_data.n_samples < r->p.h->batch && !data_can_pad(&r->p))
        return RT_FAIL(e, RT_BAD,
                       "%s holds %lld samples, fewer than one batch of %lld, and the model cannot "
                       "ignore targets",
                       r->o.eval_data, (long long)r->eval_data.n_samples, (long long)r->p.h->batch);
    return RT_OK;
}

/* A last batch that is not full is padded with ignored targets, or left out where the model has
 * none to ignore. */
RtStatus run_evaluate(Run *r, RtError *e)
{
    int64_t n = r->eval_data.n_samples, batch = r->p.h->batch;
    exec_set_scalar(&r->x, ZMP_S_EVAL_SUM, 0);
    exec_set_scalar(&r->x, ZMP_S_EVAL_COUNT, 0);
    for (int64_t k = 0; k < n; k += batch) {
        int64_t rows = n - k < batch ? n - k : batch;
        if (rows < batch && !data_can_pad(&r->p)) break;
        if (signal_pending()) return RT_OK;
        RT_TRY(data_fill(&r->eval_data, &r->x, r->p.eval, k, rows, e));
        fill_rng(&r->x, r->p.eval, r->seed, r->step, k);
        RT_TRY(exec_run(&r->x, r->p.eval, e));
        data_forget(&r->eval_data);
    }
    double count = exec_scalar(&r->x, ZMP_S_EVAL_COUNT, 0);
    double loss = exec_scalar(&r->x, ZMP_S_EVAL_SUM, 0) / count;
    r->evaluated_step = r->step;
    RT_TRY(metrics_eval(&r->metrics, r->step, loss, count, e));
    progress_note(&r->progress, "eval after step %lld: loss %.4f over %.0f tokens",
                  (long long)r->step, loss, count);
    return RT_OK;
}
