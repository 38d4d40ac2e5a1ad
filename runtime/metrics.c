/* metrics.c -- see metrics.h. */
#include "runtime/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ir/base/file.h"
#include "runtime/output.h"

void json_add_number(Str *s, double v)
{
    if (!isfinite(v))
        str_add(s, "null");
    else if (v == floor(v) && fabs(v) < 1e15)
        str_addf(s, "%.0f", v);
    else
        str_add_f64(s, v);
}

void step_result_read(StepResult *r, const Exec *x, int64_t step)
{
    *r = (StepResult){.step = step};
    r->update = (int64_t)exec_scalar(x, ZMP_S_UPDATE, (double)step + 1);
    r->loss = exec_scalar(x, ZMP_S_LOSS, NAN);
    r->grad_norm = exec_scalar(x, ZMP_S_GRAD_NORM, NAN);
    r->lr = exec_scalar(x, ZMP_S_LR, NAN);
    r->loss_scale = exec_scalar(x, ZMP_S_SCALE_USED, 1);
    r->loss_scale_next = exec_scalar(x, ZMP_S_SCALE, r->loss_scale); /* static: it has no next */
    r->hysteresis_next = exec_scalar(x, ZMP_S_HYSTERESIS, NAN);
    r->is_exhausted = exec_scalar(x, ZMP_S_EXHAUSTED, 0) != 0;
    r->is_skipped = exec_scalar(x, ZMP_S_SKIPPED, 0) != 0;
    r->skips_in_row = (int64_t)exec_scalar(x, ZMP_S_SKIPS, 0);
    r->n_stops = exec_scalar(x, ZMP_S_STOPS, 0);
}

/* Bytes of the whole lines of steps before first_step, and of evaluations up to it. */
static size_t kept_bytes(const char *text, size_t n, int64_t first_step)
{
    static const char key[] = "{\"step\":";
    size_t at = 0;
    while (at < n) {
        const char *end = memchr(text + at, '\n', n - at);
        if (!end || strncmp(text + at, key, sizeof key - 1) != 0) break;
        long long step = strtoll(text + at + sizeof key - 1, NULL, 10);
        bool is_eval = memmem(text + at, (size_t)(end - text) - at, "\"eval_loss\"", 11) != NULL;
        if (step > first_step || (step == first_step && !is_eval)) break;
        at = (size_t)(end - text) + 1;
    }
    return at;
}

static RtStatus cut(Metrics *m, int64_t first_step, RtError *e)
{
    struct stat st;
    if (fstat(m->fd, &st) != 0 || !S_ISREG(st.st_mode)) return RT_OK;
    Arena a = {0};
    char *text;
    size_t n;
    int err = file_read(&a, m->path, &text, &n);
    if (!err && ftruncate(m->fd, (off_t)kept_bytes(text, n, first_step)) != 0) err = errno;
    arena_free(&a);
    return err ? output_failed(m->path, err, e) : RT_OK;
}

RtStatus metrics_open(Metrics *m, const char *path, int64_t first_step, RtError *e)
{
    *m = (Metrics){.path = path, .fd = -1};
    if (!path) return RT_OK;
    m->fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (first_step ? O_APPEND : O_TRUNC), 0666);
    if (m->fd < 0) {
        output_failed(path, errno, e);
        return RT_BAD;
    }
    return first_step ? cut(m, first_step, e) : RT_OK;
}

static RtStatus write_line(Metrics *m, RtError *e)
{
    str_add(&m->line, "}\n");
    return output_write(m->fd, m->line.at, m->line.n, m->path, e);
}

RtStatus metrics_step(Metrics *m, const StepResult *r, uint64_t arena_bytes, RtError *e)
{
    if (m->fd < 0) return RT_OK;
    const struct {
        const char *key;
        double value;
    } numbers[] = {
        {"loss", r->loss},
        {"grad_norm", r->grad_norm},
        {"loss_scale", r->loss_scale},
        {"loss_scale_next", r->loss_scale_next},
        {"hysteresis_next", r->hysteresis_next},
        {"lr", r->lr},
        {"step_s", r->seconds},
        {"tokens_s", r->tokens_per_second},
    };
    m->line.n = 0;
    str_addf(&m->line, "{\"step\":%" PRId64 ",\"update\":%" PRId64, r->step, r->update);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        str_addf(&m->line, ",\"%s\":", numbers[i].key);
        json_add_number(&m->line, numbers[i].value);
    }
    str_addf(&m->line, ",\"skipped\":%s,\"arena_bytes\":%" PRIu64 ",\"comm_bytes\":%" PRId64,
             r->is_skipped ? "true" : "false", arena_bytes, r->comm_bytes);
    return write_line(m, e);
}

RtStatus metrics_eval(Metrics *m, int64_t step, double loss, double tokens, RtError *e)
{
    if (m->fd < 0) return RT_OK;
    m->line.n = 0;
    str_addf(&m->line, "{\"step\":%" PRId64 ",\"eval_loss\":", step);
    json_add_number(&m->line, loss);
    str_add(&m->line, ",\"eval_tokens\":");
    json_add_number(&m->line, tokens);
    return write_line(m, e);
}

RtStatus metrics_close(Metrics *m, RtError *e)
{
    RtStatus s = RT_OK;
    if (m->fd >= 0 && close(m->fd) != 0) s = output_failed(m->path, errno, e);
    m->fd = -1;
    str_free(&m->line);
    return s;
}
