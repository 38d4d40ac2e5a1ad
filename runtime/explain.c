/* explain.c -- the end of a run that does not move: why, and where the first number that is not
 * finite came from.  All ranks find it together and say the same. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/ranks.h"

enum { TEXT_BYTES = 1016 };

/* No target of the whole step counts on this rank. */
static bool ignores_all(Run *r)
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

/* On no rank does a target count: then no number is wrong, there is nothing to learn. */
static bool all_ignored(Run *r)
{
    RtError unused = {0};
    int64_t counts = 1;
    if (ranks_max(r, !ignores_all(r), &counts, "the targets", &unused) != RT_OK) counts = 1;
    str_free(&unused.text);
    return !counts;
}

typedef struct Found { /* what a rank saw */
    int64_t at;        /* commands before it; INT64_MAX: nothing */
    char text[TEXT_BYTES];
} Found;

/* The earliest of all ranks' findings. */
static void share_finding(Run *r, Numerics *n, RtError *e)
{
    if (!r->comm) return;
    int size = comm_size(r->comm), best = 0;
    Found mine = {.at = n->is_found ? n->found_at : INT64_MAX}, *all;
    snprintf(mine.text, sizeof mine.text, "%s", str_c(&n->text));
    all = calloc((size_t)size, sizeof *all);
    if (!all) return;
    if (ranks_gather(r->comm, &mine, all, sizeof mine, "the explanation", e) == RT_OK) {
        for (int k = 1; k < size; k++)
            if (all[k].at < all[best].at) best = k;
        n->is_found = all[best].at != INT64_MAX;
        n->text.n = 0;
        str_addf(&n->text, "on rank %d, %s", best, all[best].text);
    }
    free(all);
}

/* A skipped step leaves the state as it was but for the scaler's, so the step can be run again,
 * looking at every number that is written. */
static void find_nonfinite(Run *r, Numerics *n, RtError *e)
{
    int64_t is_before = 0;
    numerics_scan_state(n, &r->x);
    if (ranks_max(r, n->is_found, &is_before, "the explanation", e) == RT_OK && !is_before) {
        n->is_quiet = r->comm != NULL;
        exec_set_scalar(&r->x, ZMP_S_SCALE, exec_scalar(&r->x, ZMP_S_SCALE_USED, 1));
        exec_observe(&r->x, numerics_observer(n));
        r->x.limit_s = NUMERICS_LIMIT_S;
        run_micros(r, r->step, e); /* on one rank it ends where the first one is written */
        exec_unobserve(&r->x, n);
    }
    share_finding(r, n, e);
}

static const char *remedy(const Run *r)
{
    if (strcmp(program_str(&r->p, r->p.h->precision), "fp16") != 0)
        return "lower the learning rate, clip, or look at the data of this step";
    return "if it is beyond 65504, the largest fp16: keep it in f32 (precision f32 { } or "
           "--precision-of) or compile with --precision bf16; else lower the learning rate, clip, "
           "or look at the data of this step";
}

RtStatus run_explain_skips(Run *r, const StepResult *last, RtError *e)
{
    long long step = (long long)r->step;
    Str why = {0};
    RtError unused = {0};
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
        find_nonfinite(r, &n, &unused);
        rt_say(e, "%s; first number that is not finite: %s; %s", str_c(&why),
               n.is_found ? str_c(&n.text) : "not found when the step ran again", remedy(r));
    }
    numerics_free(&n);
    str_free(&why);
    str_free(&unused.text);
    r->is_agreed = r->comm && comm_poll(r->comm, &unused) == RT_OK;
    str_free(&unused.text);
    return RT_FAILED;
}
