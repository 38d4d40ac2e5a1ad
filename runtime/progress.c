/* progress.c -- see progress.h. */
#include "runtime/progress.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static const double terminal_period = 0.1, log_period = 5; /* seconds between lines */

double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Text that cannot be shown is lost: progress must not end a run. */
static void show(Progress *p)
{
    for (size_t done = 0; done < p->line.n;) {
        ssize_t got = write(p->fd, p->line.at + done, p->line.n - done);
        if (got <= 0) return;
        done += (size_t)got;
    }
}

void progress_begin(Progress *p, int fd, int64_t first_step, int64_t n_steps)
{
    *p = (Progress){
        .fd = fd, .is_terminal = isatty(fd), .first_step = first_step, .n_steps = n_steps};
    p->started = now_seconds();
    str_addf(&p->line, "%256s", ""); /* room now, not in a step */
}

static void add_rate(Str *s, double tokens_per_second)
{
    if (tokens_per_second >= 1e6)
        str_addf(s, "  %.2fM tok/s", tokens_per_second / 1e6);
    else if (tokens_per_second >= 1e3)
        str_addf(s, "  %.1fk tok/s", tokens_per_second / 1e3);
    else
        str_addf(s, "  %.0f tok/s", tokens_per_second);
}

static void add_time(Str *s, const char *label, double seconds)
{
    int64_t t = (int64_t)(seconds + 0.5);
    if (t >= 3600)
        str_addf(s, "  %s %" PRId64 ":%02d:%02d", label, t / 3600, (int)(t / 60 % 60),
                 (int)(t % 60));
    else
        str_addf(s, "  %s %d:%02d", label, (int)(t / 60), (int)(t % 60));
}

/* printf writes the sign of a NaN, which says nothing. */
static double unsigned_nan(double v)
{
    return isnan(v) ? (double)NAN : v;
}

void progress_step(Progress *p, const StepResult *r)
{
    double now = now_seconds();
    int64_t done = r->step + 1 - p->first_step, left = p->n_steps - r->step - 1;
    bool is_edge = done == 1 || left == 0;
    p->tokens += r->tokens_per_second * r->seconds;
    p->seconds += r->seconds;
    p->n_skipped += r->is_skipped;
    if (!is_edge && now - p->last_shown < (p->is_terminal ? terminal_period : log_period)) return;
    p->last_shown = now;
    p->line.n = 0;
    str_addf(&p->line, "%sstep %" PRId64 "/%" PRId64 "  loss %.4f  norm %.3g  lr %.3g",
             p->is_terminal ? "\r" : "", r->step + 1, p->n_steps, unsigned_nan(r->loss),
             unsigned_nan(r->grad_norm), r->lr);
    if (p->n_skipped) str_addf(&p->line, "  %" PRId64 " skipped", p->n_skipped);
    if (isfinite(r->loss_scale) && r->loss_scale != 1)
        str_addf(&p->line, "  scale %g", r->loss_scale);
    add_rate(&p->line, p->tokens / p->seconds);
    p->tokens = p->seconds = 0;
    add_time(&p->line, left ? "left" : "took",
             left ? (now - p->started) / (double)done * (double)left : now - p->started);
    str_add(&p->line, p->is_terminal ? "\033[K" : "\n");
    p->has_open_line = p->is_terminal;
    show(p);
}

void progress_note(Progress *p, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    p->line.n = 0;
    str_addf(&p->line, "%s%s\n", p->has_open_line ? "\n" : "", text);
    p->has_open_line = false;
    show(p);
}

void progress_end(Progress *p)
{
    p->line.n = 0;
    if (p->has_open_line) {
        str_add(&p->line, "\n");
        show(p);
    }
    p->has_open_line = false;
    str_free(&p->line);
}
