/* trace.c -- see trace.h.  Format: "Trace Event Format", complete events ("ph":"X"), microseconds.
 */
#include "runtime/trace.h"

#include <errno.h>
#include <string.h>

#include "runtime/output.h"
#include "runtime/progress.h"

static void text_json(FILE *out, const char *text)
{
    fputc('"', out);
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c == '"' || c == '\\') fputc('\\', out);
        if (c >= 0x20)
            fputc(c, out);
        else
            fprintf(out, "\\u%04x", c);
    }
    fputc('"', out);
}

static void event(Trace *t, const char *name, const char *cat, double from, double to)
{
    fprintf(t->out, "%s\n{\"ph\":\"X\",\"pid\":%d,\"tid\":0,\"name\":", t->n_events++ ? "," : "",
            t->rank);
    text_json(t->out, name);
    fprintf(t->out, ",\"cat\":\"%s\",\"ts\":%.3f,\"dur\":%.3f", cat, (from - t->started) * 1e6,
            (to - from) * 1e6);
}

const char *trace_path(Arena *a, const char *path, int rank)
{
    if (rank == 0) return path;
    const char *name = strrchr(path, '/'), *dot = strrchr(name ? name : path, '.');
    if (!dot) return arena_printf(a, "%s.rank%d", path, rank);
    return arena_printf(a, "%.*s.rank%d%s", (int)(dot - path), path, rank, dot);
}

RtStatus trace_open(Trace *t, Arena *a, const char *path, const Exec *x, RtError *e)
{
    *t = (Trace){.path = path, .rank = exec_rank(x)};
    if (!path) return RT_OK;
    RT_TRY(roofline_open(&t->roofline, a, x, TRACE_STEPS, e));
    t->out = fopen(path, "we");
    if (!t->out) {
        output_failed(path, errno, e);
        return RT_BAD;
    }
    t->started = t->last_s = now_seconds();
    fprintf(t->out, "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"model\":");
    text_json(t->out, program_str(x->p, x->p->h->model));
    fprintf(t->out, ",\"threads\":%d,\"rank\":%d,\"ranks\":%u},\"traceEvents\":[",
            pool_n_threads(x->pool), t->rank, x->p->h->ranks);
    return RT_OK;
}

static RtStatus begin(void *self, const Exec *x, const ZmpFunc *f, RtError *e)
{
    (void)x;
    (void)f;
    (void)e;
    Trace *t = self;
    t->last_s = now_seconds();
    return RT_OK;
}

static const char *kernel_name(const Program *p, const ZmpCommand *c)
{
    switch ((enum ZmpCommandKind)c->kind) {
    case ZMP_KERNEL: return program_str(p, p->kernels[c->kernel].name);
    case ZMP_COPY: return "copy";
    case ZMP_ZERO: return "zero";
    case ZMP_PROBE: return "probe";
    case ZMP_START:
    case ZMP_WAIT: return comm_kind_name((CommKind)p->collectives[c->kernel].kind);
    }
    return "";
}

/* Names of what it reads or writes, each with its bytes. */
static void event_operands(const Trace *t, const Program *p, const ZmpCommand *c, uint32_t flag,
                           const char *key)
{
    const char *between = "";
    fprintf(t->out, ",\"%s\":[", key);
    for (uint32_t i = 0; i < c->n_args; i++) {
        const ZmpArg *arg = &p->args[c->first_arg + i];
        if (!(arg->flags & flag)) continue;
        fputs(between, t->out);
        text_json(t->out, program_str(p, arg->name));
        fprintf(t->out, ",%lld", (long long)arg->bytes);
        between = ",";
    }
    fputc(']', t->out);
}

static void add(Trace *t, const Exec *x, const ZmpFunc *f, uint32_t command, double from, double to)
{
    const Program *p = x->p;
    const ZmpCommand *c = &p->commands[command];
    double took = to - from;
    if (t->out && (f == p->micro || f == p->last)) roofline_add(&t->roofline, command, took);
    if (!t->out || c->kind == ZMP_PROBE) return;
    event(t, program_str(p, c->label), program_str(p, f->name), from, to);
    fprintf(t->out, ",\"args\":{\"loc\":");
    text_json(t->out, program_str(p, c->loc));
    fprintf(t->out, ",\"kernel\":");
    text_json(t->out, kernel_name(p, c));
    fprintf(t->out, ",\"flops\":%.0f,\"bytes\":%.0f", c->flops, c->bytes);
    event_operands(t, p, c, ZMP_ARG_READ, "reads");
    event_operands(t, p, c, ZMP_ARG_WRITE, "writes");
    if (took > 0)
        fprintf(t->out, ",\"gflops_s\":%.3f,\"gbytes_s\":%.3f", c->flops / took * 1e-9,
                c->bytes / took * 1e-9);
    fprintf(t->out, "}}");
}

static RtStatus after(void *self, const Exec *x, const ZmpFunc *f, uint32_t command, RtError *e)
{
    (void)e;
    Trace *t = self;
    add(t, x, f, command, t->last_s, now_seconds());
    t->last_s = now_seconds(); /* not the writing of this line */
    return RT_OK;
}

static void timed(void *self, const Exec *x, const ZmpFunc *f, uint32_t command, double from_s,
                  double to_s)
{
    add(self, x, f, command, from_s, to_s);
}

static RtStatus end(void *self, const Exec *x, const ZmpFunc *f, RtError *e)
{
    (void)e;
    Trace *t = self;
    if (t->out && f == x->p->last) roofline_step(&t->roofline);
    return RT_OK;
}

Observer trace_observer(Trace *t)
{
    return (Observer){.self = t, .begin = begin, .after = after, .timed = timed, .end = end};
}

RtStatus trace_close(Trace *t, RtError *e)
{
    if (!t->out) return RT_OK;
    fprintf(t->out, "\n]}\n");
    int err = ferror(t->out) ? EIO : 0;
    if (fclose(t->out) != 0) err = errno;
    t->out = NULL;
    return err ? output_failed(t->path, err, e) : RT_OK;
}
