/* train.c -- the step loop.
 *
 *   for each step:  micro-batches 0 .. A-2: fill, @micro;  A-1: fill, @last
 *   then:           scalars -> metrics, progress
 *
 * On a GPU a step is enqueued before the result of the one before it is looked at, so that the GPU
 * never waits for the host: unless something comes between the two (a checkpoint, an evaluation),
 * or the first might end the run. */
#include "runtime/ranks.h"

#include <string.h>

#include "runtime/comm_agree.h"
#include "runtime/signals.h"

int64_t run_first_sample(const Run *r, int64_t s, int64_t m)
{
    const ZmpHeader *h = r->p.h;
    return r->first_samples +
           (((s - r->first_step) * h->accumulate + m) * h->ranks + r->rank) * h->batch;
}

static RtStatus run_micro(Run *r, const ZmpFunc *f, int64_t step, int64_t m, RtError *e)
{
    int64_t k = run_first_sample(r, step, m);
    RT_TRY(data_fill(&r->data, &r->x, f, k, r->p.h->batch, e));
    fill_rng(&r->x, f, r->seed, step, k);
    return exec_run(&r->x, f, e);
}

static void print_audit(Run *r)
{
    Str text = {0};
    str_addf(&text, "numerics of step %lld: each op again in f64, from the numbers that it read\n",
             (long long)r->step);
    r->audit_hooks->add_table(r->audit, &text);
    progress_end(&r->progress);
    fputs(str_c(&text), stdout);
    fflush(stdout);
    str_free(&text);
}

RtStatus run_micros(Run *r, int64_t step, RtError *e)
{
    int64_t n = r->p.h->accumulate;
    bool is_audited = r->audit && step == r->first_step;
    if (is_audited) exec_observe(&r->x, r->audit_hooks->observer(r->audit));
    for (int64_t m = 0; m + 1 < n; m++) RT_TRY(run_micro(r, r->p.micro, step, m, e));
    bool is_faulty = fault_is_due(&r->faults, step, r->rank);
    bool is_dumping = r->grads.file.is_open; /* in the first step */
    if (is_faulty) exec_observe_first(&r->x, fault_observer(&r->faults));
    double limit_s = r->x.limit_s;
    if (is_dumping) {
        exec_observe(&r->x, grad_dump_observer(&r->grads));
        r->x.limit_s = comm_patience_s(r->p.h->n_params * (int64_t)sizeof(float));
    }
    RtStatus s = run_micro(r, r->p.last, step, n - 1, e);
    r->x.limit_s = limit_s;
    exec_unobserve(&r->x, &r->faults);
    exec_unobserve(&r->x, &r->grads);
    if (is_audited) exec_unobserve(&r->x, r->audit);
    if (is_audited && s == RT_OK) print_audit(r);
    return s;
}

/* ---- a step ---- */

/* Closes the trace and prints the roofline of its steps. */
static RtStatus end_profile(Run *r, RtError *e)
{
    if (!r->trace.out) return RT_OK;
    exec_unobserve(&r->x, &r->trace);
    RT_TRY(trace_close(&r->trace, e));
    Str text = {0};
    roofline_add_text(&text, &r->trace.roofline, &r->arena);
    progress_end(&r->progress);
    if (r->rank == 0) fputs(str_c(&text), stderr);
    str_free(&text);
    return RT_OK;
}

static RtStatus start_step(Run *r, RtError *e)
{
    int stop = signal_pending() != 0;
    int64_t sent = exec_sent(&r->x);
    if (r->said_stop != stop) exec_set_scalar(&r->x, ZMP_S_STOP, stop);
    r->said_stop = stop;
    RT_TRY(run_micros(r, r->started, e));
    r->step_bytes[r->started++ % 2] = exec_sent(&r->x) - sent;
    return r->x.device ? device_note_step(r->x.device, e) : RT_OK;
}

/* Waits for the oldest step that is on its way. */
static RtStatus end_step(Run *r, RtError *e)
{
    const ZmpHeader *h = r->p.h;
    StepResult *result = &r->last;
    if (r->x.device) RT_TRY(device_take_step(r->x.device, e));
    step_result_read(result, &r->x, r->step);
    double now = now_seconds();
    result->seconds = now - r->step_ended;
    result->comm_bytes = r->step_bytes[r->step % 2];
    if (r->grads.file.is_open) /* what ranks say about the file is no part of the step */
        RT_TRY(ranks_agree(r, grad_dump_close(&r->grads, e), "the gradients", 0, e));
    result->tokens_per_second = (double)(h->items * h->accumulate * h->ranks) / result->seconds;
    RT_TRY(metrics_step(&r->metrics, result, h->arena_bytes, e));
    progress_step(&r->progress, result);
    data_forget(&r->data);
    r->skips_in_row = result->is_skipped ? r->skips_in_row + 1 : 0;
    if (result->is_exhausted || r->skips_in_row >= MAX_SKIPS_IN_ROW)
        return run_explain_skips(r, result, e);
    r->step++;
    r->step_ended = r->started > r->step ? now : now_seconds(); /* the next one goes on meanwhile */
    if (r->step - r->first_step == TRACE_STEPS) RT_TRY(end_profile(r, e));
    return RT_OK;
}

RtStatus run_save(Run *r, RtError *e)
{
    CheckpointInfo info = {.step = r->step,
                           .samples = r->first_samples + (r->step - r->first_step) *
                                                             r->p.h->accumulate * r->p.h->ranks *
                                                             r->p.h->batch,
                           .seed = r->seed,
                           .order = r->order};
    double started = now_seconds();
    RT_TRY(ranks_agree(r, checkpoint_save(r->o.save, &r->x, &r->s, &info, e), "the checkpoint",
                       (int64_t)r->p.h->persistent_bytes, e));
    r->saved_step = r->step;
    progress_note(&r->progress, "saved %s/step-%08lld in %.1f s", r->o.save, (long long)r->step,
                  now_seconds() - started);
    return RT_OK;
}

/* Before a step one rank's own signals; behind it the sum over all ranks, which came with the
 * scalars: all stop after the same step. */
static bool is_stopped(const Run *r)
{
    if (!r->comm || r->step == r->first_step) return !r->comm && signal_pending();
    return r->last.n_stops > 0;
}

/* At the first comparison: of how much. */
static void say_compared(Run *r)
{
    Replicas *c = &r->replicas;
    if (!c->is_said && r->comm)
        progress_note(&r->progress, "compared: %u tensors, %lld bytes, are alike on all ranks",
                      c->n, (long long)c->n_bytes);
    c->is_said = true;
}

static bool is_due(int64_t every, int64_t step)
{
    return every > 0 && step % every == 0;
}

/* Is the result of the step that was started last wanted before the next one starts?  It is when
 * something comes between them, and when it might end the run, which then is explained from the
 * state that the step left: after a skipped step, and at the least loss scale. */
static bool must_end_now(const Run *r)
{
    const Options *o = &r->o;
    bool is_first = r->step == r->first_step && r->started - r->step == 1;
    double least = r->p.h->loss_scale_min;
    if (!r->x.device || r->started - r->first_step <= r->watched_steps) return true;
    if (r->grads.file.is_open || is_first) return true;
    if (r->last.is_skipped || (r->last.loss_scale_next <= least && !(r->last.hysteresis_next > 1)))
        return true;
    return r->started >= o->steps || is_due(o->check_replicas, r->started) ||
           is_due(o->eval_every, r->started) || is_due(o->save_every, r->started);
}

static RtStatus between_steps(Run *r, RtError *e)
{
    if (is_due(r->o.check_replicas, r->step)) {
        RtStatus s = replicas_check(&r->replicas, &r->x, r->step, e);
        RT_TRY(ranks_agree(r, s, "--check-replicas", 0, e));
        say_compared(r);
    }
    if (is_due(r->o.eval_every, r->step)) RT_TRY(run_evaluate(r, e));
    if (is_due(r->o.save_every, r->step)) RT_TRY(run_save(r, e));
    r->step_ended = now_seconds();
    return RT_OK;
}

RtStatus run_steps(Run *r, RtError *e)
{
    r->started = r->step;
    r->step_ended = now_seconds();
    while (r->started < r->o.steps && !is_stopped(r)) {
        RT_TRY(start_step(r, e));
        while (r->started - r->step > 1) RT_TRY(end_step(r, e));
        if (!must_end_now(r)) continue;
        RT_TRY(end_step(r, e));
        RT_TRY(between_steps(r, e));
    }
    while (r->step < r->started) RT_TRY(end_step(r, e));
    return end_profile(r, e);
}
