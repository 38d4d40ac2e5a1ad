/* train.c -- the step loop.
 *
 *   for each step:  micro-batches 0 .. A-2: fill, @micro;  A-1: fill, @last  ->  scalars ->
 * metrics, progress A step is finished before anything else is looked at: signals, checkpoints and
 * evaluations come between steps. */
#include "runtime/run.h"

#include <string.h>

#include "runtime/signals.h"

int64_t run_first_sample(const Run *r, int64_t s, int64_t m)
{
    const ZmpHeader *h = r->p.h;
    return r->first_samples +
           (((s - r->first_step) * h->accumulate + m) * h->ranks + r->rank) * h->batch;
}

static RtStatus run_micro(Run *r, const ZmpFunc *f, int64_t m, RtError *e)
{
    int64_t k = run_first_sample(r, r->step, m);
    RT_TRY(data_fill(&r->data, &r->x, f, k, r->p.h->batch, e));
    fill_rng(&r->x, f, r->seed, r->step, k);
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

/* All micro-batches of step r->step. */
static RtStatus run_micros(Run *r, RtError *e)
{
    int64_t n = r->p.h->accumulate;
    bool is_audited = r->audit && r->step == r->first_step;
    if (is_audited) exec_observe(&r->x, r->audit_hooks->observer(r->audit));
    for (int64_t m = 0; m + 1 < n; m++) RT_TRY(run_micro(r, r->p.micro, m, e));
    bool is_faulty = fault_is_due(&r->faults, r->step, r->rank);
    bool is_dumping = r->o.dump_grads && r->step == r->first_step;
    if (is_faulty) exec_observe_first(&r->x, fault_observer(&r->faults));
    if (is_dumping) exec_observe(&r->x, grad_dump_observer(&r->grads));
    RtStatus s = run_micro(r, r->p.last, n - 1, e);
    exec_unobserve(&r->x, &r->faults);
    exec_unobserve(&r->x, &r->grads);
    if (is_audited) exec_unobserve(&r->x, r->audit);
    if (is_audited && s == RT_OK) print_audit(r);
    if (s == RT_OK && is_dumping) s = grad_dump_close(&r->grads, e);
    return s;
}

/* ---- a run that does not move ---- */

/* No target of the whole step counts: then no number is wrong, there is nothing to learn. */
static bool all_ignored(Run *r)
{
    const Program *p = &r->p;
    RtError unused = {0};
    bool is_empty = data_can_pad(p);
    for (int64_t m = 0; m < p->h->accumulate && is_empty; m++) {
        int64_t k = run_first_sample(r, r->step, m);
        is_empty = data_fill(&r->data, &r->x, p->last, k, p->h->batch, &unused) == RT_OK;
        for (uint32_t i = 0; i < p->n_feeds && is_empty; i++) {
            const ZmpPort *port = program_in(p, p->last, program_str(p, p->feeds[i].input));
            if (!feed_is_targets(p->feeds[i].kind) || !port) continue;
            const int32_t *v = (const void *)exec_port(&r->x, port);
            for (int64_t e = 0; e < port_elems(port); e++)
                is_empty = is_empty && v[e] == p->feeds[i].ignore;
        }
    }
    str_free(&unused.text);
    return is_empty;
}

/* A skipped step leaves the state as it was but for the scaler's, so the step can be run again,
 * looking at every number that is written. */
static void find_nonfinite(Run *r, Numerics *n)
{
    numerics_scan_state(n, &r->x);
    if (n->is_found) return;
    RtError unused = {0};
    exec_set_scalar(&r->x, ZMP_S_SCALE, exec_scalar(&r->x, ZMP_S_SCALE_USED, 1));
    exec_observe(&r->x, numerics_observer(n));
    run_micros(r, &unused); /* ends where the first one is written */
    exec_unobserve(&r->x, n);
    str_free(&unused.text);
}

static const char *remedy(const Run *r)
{
    if (strcmp(program_str(&r->p, r->p.h->precision), "fp16") != 0)
        return "lower the learning rate, clip, or look at the data of this step";
    return "if it is beyond 65504, the largest fp16: keep it in f32 (precision f32 { } or "
           "--precision-of) or compile with --precision bf16; else lower the learning rate, clip, "
           "or look at the data of this step";
}

/* The run ends: why, and where the first number that is not finite came from. */
static RtStatus explain_skips(Run *r, const StepResult *last, RtError *e)
{
    long long step = (long long)r->step;
    Str why = {0};
    if (last->is_exhausted)
        str_addf(&why, "step %lld overflowed at the least loss scale, %g, with no hysteresis left",
                 step, last->loss_scale);
    else
        str_addf(&why, "%d steps in a row were skipped, the last is step %lld", MAX_SKIPS_IN_ROW,
                 step);
    Numerics n = {.audit = r->audit_hooks};
    if (!last->is_exhausted && all_ignored(r))
        rt_say(e, "%s: no target of the step counts (all are ignored); look at the data",
               str_c(&why));
    else {
        find_nonfinite(r, &n);
        rt_say(e, "%s; first number that is not finite: %s; %s", str_c(&why),
               n.is_found ? str_c(&n.text) : "not found when the step ran again", remedy(r));
    }
    numerics_free(&n);
    str_free(&why);
    return RT_FAILED;
}

/* ---- a step ---- */

/* Closes the trace and prints the roofline of its steps. */
static RtStatus end_profile(Run *r, RtError *e)
{
    if (!r->trace.out) return RT_OK;
    RT_TRY(trace_close(&r->trace, e));
    Str text = {0};
    roofline_add_text(&text, &r->trace.roofline, &r->arena);
    progress_end(&r->progress);
    fputs(str_c(&text), stderr);
    str_free(&text);
    return RT_OK;
}

static RtStatus run_step(Run *r, RtError *e)
{
    double started = now_seconds();
    RT_TRY(run_micros(r, e));
    StepResult result;
    step_result_read(&result, &r->x, r->step);
    result.seconds = now_seconds() - started;
    const ZmpHeader *h = r->p.h;
    result.tokens_per_second = (double)(h->items * h->accumulate * h->ranks) / result.seconds;
    RT_TRY(metrics_step(&r->metrics, &result, h->arena_bytes, e));
    progress_step(&r->progress, &result);
    data_forget(&r->data);
    r->skips_in_row = result.is_skipped ? r->skips_in_row + 1 : 0;
    if (result.is_exhausted || r->skips_in_row >= MAX_SKIPS_IN_ROW)
        return explain_skips(r, &result, e);
    r->step++;
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
    RT_TRY(checkpoint_save(r->o.save, &r->x, &r->s, &info, e));
    r->saved_step = r->step;
    progress_note(&r->progress, "saved %s/step-%08lld in %.1f s", r->o.save, (long long)r->step,
                  now_seconds() - started);
    return RT_OK;
}

RtStatus run_steps(Run *r, RtError *e)
{
    while (r->step < r->o.steps && !signal_pending()) {
        RT_TRY(run_step(r, e));
        if (r->o.eval_every > 0 && r->step % r->o.eval_every == 0) RT_TRY(run_evaluate(r, e));
        if (r->o.save_every > 0 && r->step % r->o.save_every == 0) RT_TRY(run_save(r, e));
    }
    return end_profile(r, e);
}
