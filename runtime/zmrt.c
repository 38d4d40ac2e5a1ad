/* zmrt.c -- a whole run: open what was asked for (everything that can be refused is refused before
 * the first step), train, then save, export, generate. */
#include "runtime/zmrt.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/init.h"
#include "runtime/output.h"
#include "runtime/poison.h"
#include "runtime/ranks.h"
#include "runtime/signals.h"
#include "runtime/weights.h"

/* ---- opening ---- */

/* Files that are written at the end are tried now.  None may be one that the run reads, but for
 * exported weights, which replace those that were loaded. */
static RtStatus check_outputs(Run *r, RtError *e)
{
    const Options *o = &r->o;
    const char *const outputs[] = {o->metrics, o->profile, o->dump_grads, o->export_to};
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++) {
        RT_TRY(output_check_apart(&r->arena, outputs[i], o->data, e));
        RT_TRY(output_check_apart(&r->arena, outputs[i], o->eval_data, e));
        if (outputs[i] != o->export_to)
            RT_TRY(output_check_apart(&r->arena, outputs[i], o->load, e));
    }
    if (o->export_to) RT_TRY(output_check_file(&r->arena, o->export_to, true, e));
    if (o->dump_grads) RT_TRY(output_check_file(&r->arena, o->dump_grads, true, e));
    if (o->metrics) RT_TRY(output_check_file(&r->arena, o->metrics, false, e));
    if (o->profile) RT_TRY(output_check_file(&r->arena, o->profile, false, e));
    if (o->save) RT_TRY(output_make_dir(o->save, e));
    return RT_OK;
}

static void warn_of_few_samples(const Run *r)
{
    const ZmpHeader *h = r->p.h;
    int64_t n = (int64_t)h->ranks * h->accumulate * h->batch;
    if (r->rank > 0 || r->o.steps <= 0 || r->data.n_samples >= n) return;
    fprintf(stderr,
            "warning: --data %s holds %lld samples, a step takes %lld: samples repeat within a "
            "step\n",
            r->o.data, (long long)r->data.n_samples, (long long)n);
}

static RtStatus open_data(Run *r, RtError *e)
{
    const Options *o = &r->o;
    DataSpec spec = {.path = o->data, .order = r->order, .seed = r->seed};
    if (o->dtype) spec.width = atoi(o->dtype + 1) / 8;
    if (o->data) {
        RT_TRY(data_open(&r->data, &r->arena, &r->p, &spec, e));
        r->has_data = true;
        warn_of_few_samples(r);
    } else if (o->steps > 0)
        return RT_FAIL(e, RT_BAD, "--data is missing: what to train on");
    if (!o->eval_data) return RT_OK;
    spec.path = o->eval_data;
    spec.order = ORDER_SEQUENTIAL;
    spec.seed = 0; /* corrupted texts are the same in every run, so that losses compare */
    RT_TRY(data_open(&r->eval_data, &r->arena, &r->p, &spec, e));
    r->has_eval_data = true;
    return evaluate_check(r, e);
}

static RtStatus open_machine(Run *r, RtError *e)
{
    if (r->o.poison && program_is_cuda(&r->p))
        return RT_FAIL(e, RT_BAD,
                       "--poison works on a program for the CPU: compile the model with --target "
                       "cpu for it");
    RT_TRY(pool_new(&r->pool, r->n_threads, (size_t)r->p.h->scratch_bytes, e));
    RT_TRY(exec_open_rank(&r->x, &r->p, r->pool, r->o.poison ? POISON_GUARD_BYTES : 0, r->comm, e));
    if (r->o.poison) {
        poison_start(&r->x);
        exec_observe(&r->x, poison_observer());
    }
    if (!r->o.check_numerics) return RT_OK;
    exec_observe(&r->x, numerics_observer(&r->numerics));
    r->x.limit_s = NUMERICS_LIMIT_S;
    return RT_OK;
}

/* ---- the state to start from ---- */

static RtStatus take_checkpoint(Run *r, const CheckpointInfo *info, RtError *e)
{
    const Options *o = &r->o;
    if (o->seed.is_given && o->seed.value != info->seed)
        return RT_FAIL(e, RT_BAD,
                       "--seed %llu: the checkpoint was made with seed %llu; leave --seed out",
                       (unsigned long long)o->seed.value, (unsigned long long)info->seed);
    if (o->order && strcmp(o->order, order_name(info->order)) != 0)
        return RT_FAIL(e, RT_BAD,
                       "--order %s: the checkpoint was made with order %s; leave --order out",
                       o->order, order_name(info->order));
    r->step = r->first_step = info->step;
    r->first_samples = info->samples;
    r->seed = info->seed;
    r->order = info->order;
    if (r->has_data) {
        r->data.spec.seed = info->seed;
        r->data.spec.order = info->order;
    }
    return RT_OK;
}

/* A later --resume would take another run's checkpoint. */
static void warn_of_later_checkpoints(const Run *r)
{
    if (r->rank > 0) return; /* the first rank speaks for all */
    int64_t newest = r->o.save ? checkpoint_newest_step(r->o.save) : -1;
    if (newest <= r->step) return;
    fprintf(stderr,
            "warning: %s already holds checkpoints up to step %lld, later than this run's start: "
            "--resume would take the newest; use another directory for a new run\n",
            r->o.save, (long long)newest);
}

static RtStatus open_state(Run *r, RtError *e)
{
    state_list(&r->s, &r->arena, &r->x);
    init_state(&r->x, &r->s, r->seed, !r->o.load && !r->o.resume);
    if (r->o.load) RT_TRY(weights_load(&r->x, &r->s, &r->arena, r->o.load, e));
    if (r->o.resume) {
        const char *precision = program_str(&r->p, r->p.h->precision);
        CheckpointInfo info;
        Str skipped = {0};
        RtStatus s = checkpoint_resume(r->o.resume, &r->s, precision, &info, &skipped, e);
        if (skipped.n && r->rank == 0)
            fprintf(stderr, "warning: checkpoints that are not valid were passed over:\n%s",
                    str_c(&skipped));
        str_free(&skipped);
        RT_TRY(s);
        RT_TRY(take_checkpoint(r, &info, e));
        if (r->rank == 0 && strcmp(info.precision, precision) != 0)
            fprintf(stderr,
                    "the checkpoint's precision is %s: converted to %s, the loss scale starts "
                    "anew\n",
                    info.precision, precision);
        if (r->rank == 0) fprintf(stderr, "resumed at step %lld\n", (long long)r->step);
        if (r->rank == 0 && r->o.steps > 0 && r->step >= r->o.steps)
            fprintf(stderr,
                    "warning: --steps %lld counts from the start of training: none is left to "
                    "run\n",
                    (long long)r->o.steps);
    }
    warn_of_later_checkpoints(r);
    r->skips_in_row = (int64_t)exec_scalar(&r->x, ZMP_S_SKIPS, 0);
    if (r->o.check_numerics) {
        numerics_scan_state(&r->numerics, &r->x);
        if (r->numerics.is_found)
            return RT_FAIL(e, RT_FAILED, "first number that is not finite: %s",
                           str_c(&r->numerics.text));
    }
    return RT_OK;
}

static RtStatus open_audit(Run *r, RtError *e)
{
    if (!r->audit_hooks)
        return RT_FAIL(e, RT_BAD, "--audit-numerics: this program was made without its IR");
    if (r->step >= r->o.steps)
        return RT_FAIL(e, RT_BAD,
                       "--audit-numerics looks at a step, but --steps %lld leaves none to run",
                       (long long)r->o.steps);
    return r->audit_hooks->open(&r->audit, &r->x, e);
}

/* What a rank opens for itself: nothing here waits for the others. */
static RtStatus open_own(Run *r, RtError *e)
{
    const Options *o = &r->o;
    if (r->rank == 0) RT_TRY(check_outputs(r, e));
    r->seed = o->seed.value;
    if (o->order) order_from_name(o->order, &r->order);
    RT_TRY(open_data(r, e));
    if (o->generate >= 0) RT_TRY(generate_check(r, e));
    RT_TRY(open_machine(r, e));
    RT_TRY(fault_parse(&r->faults, o->fault, &r->x, e));
    if (o->audit_numerics && r->p.h->ranks > 1)
        return RT_FAIL(
            e, RT_BAD,
            "--audit-numerics works on one rank: compile the model with --ranks 1 for it");
    return RT_OK;
}

/* What shows or writes the steps, on the state that they start from. */
static RtStatus open_outputs(Run *r, RtError *e)
{
    const Options *o = &r->o;
    if (o->dump_grads && r->step >= o->steps)
        return RT_FAIL(
            e, RT_BAD,
            "--dump-grads writes the gradients of a step, but --steps %lld leaves none to run",
            (long long)o->steps);
    if (o->audit_numerics) RT_TRY(open_audit(r, e));
    RT_TRY(metrics_open(&r->metrics, r->rank == 0 ? o->metrics : NULL, r->first_step, e));
    const char *profile = o->profile ? trace_path(&r->arena, o->profile, (int)r->rank) : NULL;
    RT_TRY(trace_open(&r->trace, &r->arena, profile, &r->x, e));
    if (o->profile) exec_observe(&r->x, trace_observer(&r->trace));
    if (o->check_replicas > 0 && !r->comm)
        fputs("warning: --check-replicas compares ranks, and this run has one: nothing is "
              "compared\n",
              stderr);
    if (o->check_replicas > 0) replicas_open(&r->replicas, &r->arena, &r->x);
    return RT_OK;
}

/* Options of one rank alone; when a step's result is looked at, and with it whether any rank was
 * told to stop, has to be the same on all. */
static RtStatus agree_on_watching(Run *r, RtError *e)
{
    int64_t n = r->o.profile ? TRACE_STEPS : 0;
    if (r->o.check_numerics) n = INT64_MAX;
    return ranks_max(r, n, &r->watched_steps, "the steps that are observed", e);
}

static RtStatus open_run(Run *r, RtError *e)
{
    const Options *o = &r->o;
    int64_t n_bytes = (int64_t)r->p.h->arena_bytes;
    RT_TRY(ranks_threads(r, &r->n_threads, e));
    if (program_is_cuda(&r->p)) RT_TRY(ranks_place(r, e));
    if (o->threads > 0) r->n_threads = (int)o->threads;
    RT_TRY(ranks_agree(r, open_own(r, e), "the start", n_bytes, e));
    if (r->x.device && r->comm)
        RT_TRY(ranks_agree(r, device_join(r->x.device, e), "the GPUs", 0, e));
    RT_TRY(ranks_compare_number(r, r->data.n_samples, "the number of samples of --data", e));
    RT_TRY(ranks_compare_number(r, r->eval_data.n_samples, "that of --eval-data", e));
    RT_TRY(ranks_agree(r, open_state(r, e), "the state to start from", n_bytes, e));
    RT_TRY(ranks_compare_number(r, r->step, "the step to start from", e));
    RT_TRY(ranks_agree(r, open_outputs(r, e), "the outputs", n_bytes, e));
    RT_TRY(agree_on_watching(r, e));
    if (!o->dump_grads) return RT_OK;
    return ranks_agree(r, grad_dump_open(&r->grads, &r->arena, &r->x, o->dump_grads, e),
                       "the gradients", 0, e);
}

static void close_run(Run *r)
{
    RtError late = {0}; /* the run's own error was reported already */
    str_add(&late.text, "closing");
    grad_dump_close(&r->grads, &late);
    trace_close(&r->trace, &late);
    metrics_close(&r->metrics, &late);
    progress_end(&r->progress);
    exec_close(&r->x);
    pool_free(r->pool);
    if (r->has_data) data_close(&r->data);
    if (r->has_eval_data) data_close(&r->eval_data);
    numerics_free(&r->numerics);
    if (r->audit_hooks) r->audit_hooks->close(r->audit);
    str_free(&late.text);
    arena_free(&r->arena);
}

/* ---- the run ---- */

/* After the last step; after a signal to any rank only the checkpoint. */
static RtStatus finish_run(Run *r, RtError *e)
{
    const Options *o = &r->o;
    RT_TRY(ranks_max(r, signal_pending(), &r->stop_signal, "the end of the steps", e));
    bool is_stopped = r->stop_signal != 0;
    if (!is_stopped && r->has_eval_data && r->evaluated_step != r->step) RT_TRY(run_evaluate(r, e));
    bool has_news = r->step > r->first_step || !o->resume;
    if (o->save && has_news && r->saved_step != r->step) RT_TRY(run_save(r, e));
    if (is_stopped) return RT_OK;
    if (o->export_to)
        RT_TRY(ranks_agree(r, weights_export(&r->x, &r->s, &r->arena, o->export_to, e),
                           "the export", (int64_t)r->p.h->n_params * 4, e));
    progress_end(&r->progress);
    if (o->generate > 0) RT_TRY(run_generate(r, e));
    return ranks_agree(r, metrics_close(&r->metrics, e), "the end", 0, e);
}

static RtStatus do_run(Run *r, const ZmrtImage *image, RtError *e)
{
    RT_TRY(ranks_open(r, image, e));
    RtStatus s = options_check(&r->o, e);
    if (s == RT_OK) s = program_check_cpu(&r->p, e);
    RT_TRY(ranks_agree(r, s, "the start", 0, e));
    RT_TRY(ranks_compare(r, e));
    RT_TRY(open_run(r, e));
    progress_begin(&r->progress, r->rank == 0 ? STDERR_FILENO : -1, r->first_step, r->o.steps);
    RT_TRY(run_steps(r, e));
    return finish_run(r, e);
}

static RtStatus print_text(Str *text, RtError *e)
{
    if (ranks_number() == 0) fputs(str_c(text), stdout);
    str_free(text);
    return fflush(stdout) == 0 ? RT_OK : output_failed("stdout", errno, e);
}

static RtStatus main_status(Run *r, int argc, char **argv, const ZmrtImage *image, RtError *e)
{
    Str text = {0};
    RT_TRY(options_parse(&r->o, argc, argv, e));
    if (r->o.help) {
        options_help(&text, argc ? argv[0] : "OUT");
        return print_text(&text, e);
    }
    RT_TRY(program_open(&r->p, image, e));
    r->audit_hooks = r->numerics.audit = image->audit;
    if (!r->o.info) return do_run(r, image, e);
    program_info(&text, &r->p);
    return print_text(&text, e);
}

/* What all ranks know is said once.  Before they have met, a rank knows of the others only what
 * `zmc run` says: that it gave all of them one command line. */
static void say_failure(const Run *r, const char *program, RtStatus s, const RtError *e)
{
    int rank = r->comm ? (int)r->rank : ranks_number();
    bool is_alike = !r->comm && s == RT_BAD && getenv(ZMRT_ALIKE);
    bool is_known = r->is_agreed || is_alike;
    if (is_known && rank > 0) return;
    if (is_known || !(r->comm || ranks_launched()))
        fprintf(stderr, "%s: error: %s\n", program, str_c(&e->text));
    else
        fprintf(stderr, "%s: rank %d: error: %s\n", program, rank, str_c(&e->text));
}

int zmrt_main(int argc, char **argv, const ZmrtImage *image)
{
    Run r = {.saved_step = -1, .evaluated_step = -1, .said_stop = -1};
    r.metrics.fd = -1;
    RtError e = {0};
    output_guard_standard();
    signals_install();
    RtStatus s = main_status(&r, argc, argv, image, &e);
    int stopped = r.stop_signal ? (int)r.stop_signal : signal_pending();
    if (s != RT_OK) {
        progress_end(&r.progress);
        say_failure(&r, argc ? argv[0] : "zmrt", s, &e);
    }
    if (r.x.device) device_leave(r.x.device, s == RT_OK || r.is_agreed);
    ranks_close(&r, s, &e);
    close_run(&r);
    signals_restore();
    str_free(&e.text);
    if (s != RT_OK && s != RT_STOPPED) return (int)s;
    return stopped ? 128 + stopped : 0;
}
