/* evaluate.c -- the loss over all samples of the evaluation data, in order, each once: function
 * @eval adds up. */
#include "runtime/ranks.h"
#include "runtime/signals.h"

RtStatus evaluate_check(const Run *r, RtError *e)
{
    if (!r->p.eval)
        return RT_FAIL(e, RT_BAD,
                       "--eval-data: this program was compiled without an evaluation function");
    int64_t batch = r->p.h->batch * r->p.h->ranks; /* of all ranks */
    if (r->eval_data.n_samples < batch && !data_can_pad(&r->p))
        return RT_FAIL(e, RT_BAD,
                       "%s holds %lld samples, fewer than one batch of %lld, and the model cannot "
                       "ignore targets",
                       r->o.eval_data, (long long)r->eval_data.n_samples, (long long)batch);
    return RT_OK;
}

/* The samples from k on, one batch a rank.  One that is not full is padded with ignored targets,
 * even when no sample is left for it: all ranks run alike, and their sums come out of @eval. */
static RtStatus evaluate_batch(Run *r, int64_t k, RtError *e)
{
    int64_t batch = r->p.h->batch, mine = k + r->rank * batch, rows = r->eval_data.n_samples - mine;
    rows = rows < 0 ? 0 : rows > batch ? batch : rows;
    RT_TRY(data_fill(&r->eval_data, &r->x, r->p.eval, mine, rows, e));
    fill_rng(&r->x, r->p.eval, r->seed, r->step, mine);
    RT_TRY(exec_run(&r->x, r->p.eval, e));
    data_forget(&r->eval_data);
    return RT_OK;
}

/* Where the model has no targets to ignore, what does not fill a batch of all ranks is left out. */
RtStatus run_evaluate(Run *r, RtError *e)
{
    int64_t n = r->eval_data.n_samples, batch = r->p.h->batch * r->p.h->ranks, signal;
    exec_set_scalar(&r->x, ZMP_S_EVAL_SUM, 0);
    exec_set_scalar(&r->x, ZMP_S_EVAL_COUNT, 0);
    for (int64_t k = 0; k < n; k += batch) {
        if (n - k < batch && !data_can_pad(&r->p)) break;
        RT_TRY(ranks_max(r, signal_pending(), &signal, "a signal", e));
        if (signal) return RT_OK;
        RT_TRY(evaluate_batch(r, k, e));
    }
    double count = exec_scalar(&r->x, ZMP_S_EVAL_COUNT, 0);
    double loss = exec_scalar(&r->x, ZMP_S_EVAL_SUM, 0) / count;
    r->evaluated_step = r->step;
    RT_TRY(metrics_eval(&r->metrics, r->step, loss, count, e));
    progress_note(&r->progress, "eval after step %lld: loss %.4f over %.0f tokens",
                  (long long)r->step, loss, count);
    return RT_OK;
}
