/* roofline.c -- see roofline.h. */
#include "runtime/roofline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    PATH_BYTES = 4096,
    NAME_WIDTH = 44,
    LOC_WIDTH = 20,
    N_COLLECTIVE_KINDS = ZMP_ALL_REDUCE + 1
};
static const double SHOWN_SHARE = 0.995; /* rows up to this share of the step */

typedef struct Row {
    const char *name, *loc; /* loc: of its first command */
    int64_t calls;          /* in a step */
    double seconds, flops, bytes, limit;
} Row;

static RtStatus measure_gpu(Roofline *r, Device *d, RtError *e)
{
    r->is_gpu = true;
    r->peaks.flops = INFINITY;
    RT_TRY(device_copy_rate(d, &r->peaks.copy_bytes_s, e));
    if (r->peaks.copy_bytes_s <= 0) r->peaks.copy_bytes_s = INFINITY; /* no limit is known */
    return RT_OK;
}

RtStatus roofline_open(Roofline *r, Arena *a, const Exec *x, int32_t max_steps, RtError *e)
{
    const Program *p = x->p;
    Pool *pool = x->pool;
    *r = (Roofline){.p = p, .max_steps = max_steps};
    r->took = ARENA_ARRAY(a, float, (size_t)max_steps * p->n_commands);
    if (x->device) return measure_gpu(r, x->device, e);
    char path[PATH_BYTES];
    peaks_path(path, sizeof path);
    if (peaks_read(&r->peaks, path, pool_n_threads(pool))) {
        r->peaks_from = arena_printf(a, "%s", path);
        return RT_OK;
    }
    if (*path && access(path, F_OK) == 0) r->peaks_not = arena_printf(a, "%s", path);
    return peaks_measure(&r->peaks, pool, 1, e);
}

void roofline_add(Roofline *r, uint32_t command, double seconds)
{
    if (r->p && r->n_steps < r->max_steps)
        r->took[(size_t)r->n_steps * r->p->n_commands + command] += (float)seconds;
}

void roofline_step(Roofline *r)
{
    if (r->p && r->n_steps < r->max_steps) r->n_steps++;
}

static int by_value(const void *x, const void *y)
{
    float a = *(const float *)x, b = *(const float *)y;
    return (a > b) - (a < b);
}

static double median_seconds(const Roofline *r, uint32_t command, float *scratch)
{
    int32_t first = r->n_steps > 1, n = r->n_steps - first;
    for (int32_t s = 0; s < n; s++)
        scratch[s] = r->took[(size_t)(s + first) * r->p->n_commands + command];
    qsort(scratch, (size_t)n, sizeof *scratch, by_value);
    return n % 2 ? scratch[n / 2] : (scratch[n / 2 - 1] + scratch[n / 2]) / 2;
}

/* Rows 0 .. n_kernels - 1 are kernels; then copies, zeros, and each kind of collective: the time to
 * begin it and to wait for its end. */
static uint32_t row_of(const Program *p, const ZmpCommand *c, const char **name)
{
    switch ((enum ZmpCommandKind)c->kind) {
    case ZMP_KERNEL: *name = program_str(p, p->kernels[c->kernel].name); return c->kernel;
    case ZMP_COPY: *name = "copy"; return p->n_kernels;
    case ZMP_PROBE:
    case ZMP_ZERO: *name = "zero"; return p->n_kernels + 1;
    case ZMP_START:
    case ZMP_WAIT: break;
    }
    uint32_t kind = p->collectives[c->kernel].kind;
    *name = comm_kind_name((CommKind)kind);
    return p->n_kernels + 2 + kind;
}

static void add_command(const Roofline *r, Row *rows, uint32_t command, int64_t calls,
                        float *scratch)
{
    const Program *p = r->p;
    const ZmpCommand *c = &p->commands[command];
    if (c->kind == ZMP_PROBE) return;
    const char *name;
    Row *row = &rows[row_of(p, c, &name)];
    if (!row->calls) *row = (Row){.name = name, .loc = program_str(p, c->loc)};
    bool is_bf16 = c->kind == ZMP_KERNEL && p->kernels[c->kernel].flags & ZMP_BF16_PRODUCTS &&
                   r->peaks.flops_bf16 > 0;
    double n = (double)calls, t = median_seconds(r, command, scratch);
    double by_flops = c->flops / (is_bf16 ? r->peaks.flops_bf16 : r->peaks.flops);
    double by_bytes = c->bytes / peaks_bandwidth(&r->peaks);
    row->calls += c->kind == ZMP_WAIT ? 0 : calls;
    row->seconds += t;
    row->flops += n * c->flops;
    row->bytes += n * c->bytes;
    row->limit += n * (by_flops > by_bytes ? by_flops : by_bytes);
}

static int by_seconds(const void *x, const void *y)
{
    const Row *a = x, *b = y;
    return (a->seconds < b->seconds) - (a->seconds > b->seconds);
}

static void add_row(Str *out, const Row *row, double total)
{
    const char *loc = strrchr(row->loc, '/') ? strrchr(row->loc, '/') + 1 : row->loc;
    double t = row->seconds > 0 ? row->seconds : 1;
    str_addf(out, "%-*.*s %-*.*s %5lld %9.3f %5.1f%% %9.3f %9.2f %7.1f %7.1f %6.0f%%\n", NAME_WIDTH,
             NAME_WIDTH, row->name, LOC_WIDTH, LOC_WIDTH, loc, (long long)row->calls,
             row->seconds * 1e3, 100 * row->seconds / total, row->flops * 1e-9, row->bytes * 1e-6,
             row->flops / t * 1e-9, row->bytes / t * 1e-9, 100 * row->limit / t);
}

static void add_rows(Str *out, const Row *rows, uint32_t n, double total)
{
    str_addf(out, "%-*s %-*s %5s %9s %6s %9s %9s %7s %7s %7s\n", NAME_WIDTH, "kernel", LOC_WIDTH,
             "first at", "calls", "ms", "share", "GFLOP", "MB", "GF/s", "GB/s", "limit");
    Row rest = {.name = "all others", .loc = ""};
    double shown = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (shown < SHOWN_SHARE * total) {
            add_row(out, &rows[i], total);
            shown += rows[i].seconds;
            continue;
        }
        rest.calls += rows[i].calls;
        rest.seconds += rows[i].seconds;
        rest.flops += rows[i].flops;
        rest.bytes += rows[i].bytes;
        rest.limit += rows[i].limit;
    }
    if (rest.calls) add_row(out, &rest, total);
}

static void add_peaks(Str *out, const Roofline *r)
{
    const Peaks *k = &r->peaks;
    if (r->is_gpu) {
        str_addf(out,
                 "peaks: copies in the GPU's memory %.1f GB/s, measured before the first step; the "
                 "rate of its arithmetic is not, so limits count bytes alone (tools/gpu-check "
                 "measures both)\n",
                 k->copy_bytes_s * 1e-9);
        return;
    }
    str_addf(out,
             "peaks, %d thread%s: %.1f GF/s of f32 FMA (one thread %.1f), %.1f of bf16 pairs; read "
             "%.1f, copy %.1f, streaming copy %.1f GB/s (",
             k->threads, k->threads == 1 ? "" : "s", k->flops * 1e-9, k->flops_one * 1e-9,
             k->flops_bf16 * 1e-9, k->read_bytes_s * 1e-9, k->copy_bytes_s * 1e-9,
             k->stream_bytes_s * 1e-9);
    if (r->peaks_from)
        str_addf(out, "from %s)\n", r->peaks_from);
    else if (r->peaks_not)
        str_addf(
            out,
            "measured in a second before the first step: %s is not of this CPU, this number of "
            "threads and this version; tools/bench --peaks writes it again)\n",
            r->peaks_not);
    else
        str_add(out, "measured in a second before the first step; tools/bench --peaks measures "
                     "longer and stores it)\n");
}

void roofline_add_text(Str *out, const Roofline *r, Arena *a)
{
    if (!r->p || !r->n_steps) return;
    const Program *p = r->p;
    uint32_t n = p->n_kernels + 2 + N_COLLECTIVE_KINDS;
    Row *rows = ARENA_ARRAY(a, Row, n);
    float *scratch = ARENA_ARRAY(a, float, (size_t)r->max_steps);
    const ZmpFunc *funcs[] = {p->micro, p->last};
    const int64_t calls[] = {(int64_t)p->h->accumulate - 1, 1};
    for (int f = 0; f < 2; f++)
        for (uint32_t i = 0; funcs[f] && i < funcs[f]->n_commands; i++)
            add_command(r, rows, funcs[f]->first_command + i, calls[f], scratch);
    double total = 0, limit = 0, reached = 0;
    for (uint32_t i = 0; i < n; i++) {
        total += rows[i].seconds;
        limit += rows[i].limit;
        reached += rows[i].limit < rows[i].seconds ? rows[i].limit : rows[i].seconds;
    }
    qsort(rows, n, sizeof *rows, by_seconds);
    add_peaks(out, r);
    add_rows(out, rows, n, total);
    str_addf(out,
             "step %.3f ms (medians of %d steps), sum of limits %.3f ms = %.1f %% of it "
             "(%.1f %% with kernels that beat memory in caches counted as 100)\n",
             total * 1e3, r->n_steps > 1 ? r->n_steps - 1 : 1, limit * 1e3, 100 * limit / total,
             100 * reached / total);
}
