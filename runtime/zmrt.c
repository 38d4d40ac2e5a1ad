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
#include "runtime/run.h"
#include "runtime/signals.h"
#include "runtime/weights.h"

/* ---- opening ---- */

/* One process is one rank.  A launcher that started another number of them is told how to compile
 * for that. */
static RtStatus check_world(const Program *p, RtError *e)
{
    static const char *const sizes[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"};
    long world = 1;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const char *text = getenv(sizes[i]);
        if (text && atol(text) > 1) world = atol(text);
    }
    if (world != (long)p->h->ranks)
        return RT_FAIL(
            e, RT_BAD,
            "the program was compiled for %u rank%s, but %ld started; compile it with --ranks %ld",
            p->h->ranks, p->h->ranks == 1 ? "" : "s", world, world);
    if (p->h->ranks > 1)
        return RT_FAIL(e, RT_BAD,
                       "this runtime was built without communication; compile with --ranks 1");
    return RT_OK;
}

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

static RtStatus open_data(Run *r, RtError *e)
{
    const Options *o = &r->o;
    DataSpec spec = {.path = o->data, .order = r->order, .seed = r->seed};
    if (o->dtype) spec.width = atoi(o->dtype + 1) / 8;
    if (o->data) {
        RT_TRY(data_open(&r->data, &r->arena, &r->p, &spec, e));
        r->has_data = true;
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
    int threads = r->o.threads > 0 ? (int)r->o.threads : cpus_available();
    RT_TRY(pool_new(&r->pool, threads, (size_t)r->p.h->scratch_bytes, e));
    RT_TRY(exec_open(&r->x, &r->p, r->pool, r->o.poison ? POISON_GUARD_BYTES : 0, e));
    if (r->o.poison) {
        poison_start(&r->x);
        exec_observe(&r->x, poison_observer());
    }
    if (r->o.check_numerics) exec_observe(&r->x, numerics_observer(&r->numerics));
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
        if (skipped.n)
            fprintf(stderr, "warning: checkpoints that are not valid were passed over:\n%s",
                    str_c(&skipped));
        str_free(&skipped);
        RT_TRY(s);
        RT_TRY(take_checkpoint(r, &info, e));
        if (strcmp(info.precision, precision) != 0)
            fprintf(stderr,
                    "the checkpoint's precision is %s: converted to %s, the loss scale starts "
                    "anew\n",
                    info.precision, precision);
        fprintf(stderr, "resumed at step %lld\n", (long long)r->step);
        if (r->o.steps > 0 && r->step >= r->o.steps)
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

static RtStatus open_run(Run *r, RtError *e)
{
    const Options *o = &r->o;
    RT_TRY(check_outputs(r, e));
    r->seed = o->seed.value;
    if (o->order) order_from_name(o->order, &r->order);
    RT_TRY(open_data(r, e));
    if (o->generate >= 0) RT_TRY(generate_check(r, e));
    RT_TRY(open_machine(r, e));
    RT_TRY(fault_parse(&r->faults, o->fault, &r->x, e));
    RT_TRY(open_state(r, e));
    if (o->dump_grads && r->step >= o->steps)
        return RT_FAIL(
            e, RT_BAD,
            "--dump-grads writes the gradients of a step, but --steps %lld leaves none to run",
            (long long)o->steps);
    if (o->dump_grads) RT_TRY(grad_dump_open(&r->grads, &r->arena, &r->x, o->dump_grads, e));
    if (o->audit_numerics) RT_TRY(open_audit(r, e));
    RT_TRY(metrics_open(&r->metrics, o->metrics, r->first_step, e));
    RT_TRY(trace_open(&r->trace, &r->arena, o->profile, &r->x, e));
    if (o->profile) exec_observe(&r->x, trace_observer(&r->trace));
    return RT_OK;
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

/* After the last step; after a signal only the checkpoint. */
static RtStatus finish_run(Run *r, RtError *e)
{
    const Options *o = &r->o;
    bool is_stopped = signal_pending() != 0;
    if (!is_stopped && r->has_eval_data && r->evaluated_step != r->step) RT_TRY(run_evaluate(r, e));
    bool has_news = r->step > r->first_step || !o->resume;
    if (o->save && has_news && r->saved_step != r->step) RT_TRY(run_save(r, e));
    if (is_stopped) return RT_OK;
    if (o->export_to) RT_TRY(weights_export(&r->x, &r->s, &r->arena, o->export_to, e));
    progress_end(&r->progress);
    if (o->generate > 0) RT_TRY(run_generate(r, e));
    return metrics_close(&r->metrics, e);
}

static RtStatus do_run(Run *r, RtError *e)
{
    RT_TRY(options_check(&r->o, e));
    RT_TRY(program_check_cpu(&r->p, e));
    RT_TRY(check_world(&r->p, e));
    RT_TRY(open_run(r, e));
    progress_begin(&r->progress, STDERR_FILENO, r->first_step, r->o.steps);
    RT_TRY(run_steps(r, e));
    return finish_run(r, e);
}

static RtStatus print_text(Str *text, RtError *e)
{
    fputs(str_c(text), stdout);
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
    if (!r->o.info) return do_run(r, e);
    program_info(&text, &r->p);
    return print_text(&text, e);
}

int zmrt_main(int argc, char **argv, const ZmrtImage *image)
{
    Run r = {.saved_step = -1, .evaluated_step = -1};
    r.metrics.fd = -1;
    RtError e = {0};
    output_guard_standard();
    signals_install();
    RtStatus s = main_status(&r, argc, argv, image, &e);
    int stopped = signal_pending();
    close_run(&r);
    signals_restore();
    if (s != RT_OK) fprintf(stderr, "%s: error: %s\n", argc ? argv[0] : "zmrt", str_c(&e.text));
    str_free(&e.text);
    if (s != RT_OK) return (int)s;
    return stopped ? 128 + stopped : 0;
}
