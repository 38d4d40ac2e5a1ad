/* gradients.c -- see gradients.h. */
#include "runtime/gradients.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/comm_agree.h"
#include "runtime/convert.h"

enum { CHUNK_ELEMS = 1 << 14 };

static bool has_probe(const Program *p)
{
    for (uint32_t i = 0; i < p->last->n_commands; i++) {
        const ZmpCommand *c = &p->commands[p->last->first_command + i];
        if (c->kind == ZMP_PROBE && c->n_args >= 2) return true;
    }
    return false;
}

/* ---- --dump-grads ---- */

RtStatus grad_dump_open(GradDump *g, Arena *a, const Exec *x, const char *path, RtError *e)
{
    const Program *p = x->p;
    *g = (GradDump){0};
    if (!has_probe(p))
        return RT_FAIL(e, RT_BAD,
                       "--dump-grads: this program shows no gradients; compile the model again "
                       "with its train section");
    g->entries = ARENA_ARRAY(a, SafeEntry, p->n_vars + 1);
    g->param = ARENA_ARRAY(a, const ZmpVar *, p->n_vars + 1);
    for (uint32_t i = 0; i < p->n_vars; i++) {
        const ZmpVar *v = &p->vars[i];
        if (v->kind != ZMP_PARAM || v->is_bucket) continue;
        SafeEntry *entry = &g->entries[g->n];
        *entry = (SafeEntry){.name = program_str(p, v->name), .dtype = ZMP_F32, .rank = v->rank};
        memcpy(entry->dim, v->dim, sizeof entry->dim);
        g->param[g->n++] = v;
    }
    return shared_create(&g->file, x->comm, a, path, "the gradients of --dump-grads", g->entries,
                         g->n, NULL, e);
}

/* Elements [first, first + n) of a gradient, perhaps a bucket's. */
typedef struct Shown {
    const char *at;
    uint32_t dtype;
    int64_t first, n;
    float factor;
} Shown;

static Shown shown_from(const Shown *s, int64_t first, int64_t n)
{
    Shown part = *s;
    part.at += (first - s->first) * zmp_dtype_bytes(s->dtype);
    part.first = first;
    part.n = n;
    return part;
}

/* What this rank writes of argument `arg`, the gradient of `of`: all ranks have the same, or each
 * has its part. */
static Shown shown_of(const Exec *x, uint32_t arg, const ZmpVar *of, float factor)
{
    const ZmpArg *a = &x->p->args[arg];
    int ranks = comm_size_or_1(x->comm), rank = exec_rank(x);
    int64_t whole = of->elems * (of->is_sharded ? ranks : 1), first;
    Shown s = {.at = x->arg_at[arg], .dtype = a->dtype, .factor = factor};
    s.n = a->bytes / zmp_dtype_bytes(a->dtype);
    if (s.n != whole) {
        s.first = rank * s.n;
        return s;
    }
    int64_t n = comm_shard(whole, rank, ranks, &first);
    return shown_from(&s, first, n);
}

/* Into parameter i, whose first element is number `offset` of what is shown. */
static RtStatus write_one(GradDump *g, uint32_t i, int64_t offset, const Shown *s, RtError *e)
{
    float buf[CHUNK_ELEMS];
    int64_t first, left = elems_common(s->first, s->n, offset, g->param[i]->elems, &first), n;
    for (; left > 0; left -= n, first += n) {
        n = left < CHUNK_ELEMS ? left : CHUNK_ELEMS;
        convert_to_f32(buf, shown_from(s, first, n).at, s->dtype, (size_t)n);
        for (int64_t j = 0; j < n; j++) buf[j] *= s->factor;
        int64_t to = g->entries[i].offset + (first - offset) * (int64_t)sizeof *buf;
        RT_TRY(safe_put(&g->file.writer, to, buf, (size_t)n * sizeof *buf, e));
    }
    return RT_OK;
}

/* The variable that a gradient belongs to: named directly, or through the accumulator of it. */
static const ZmpVar *gradient_of(const Program *p, const ZmpArg *arg)
{
    const ZmpVar *v = program_var(p, program_str(p, arg->name));
    if (v && v->kind != ZMP_PARAM && v->of >= 0) v = &p->vars[v->of];
    return v;
}

static RtStatus write_probe(GradDump *g, const Exec *x, uint32_t arg, float factor, RtError *e)
{
    const Program *p = x->p;
    const ZmpVar *of = gradient_of(p, &p->args[arg]);
    if (!of)
        return RT_FAIL(e, RT_FAILED, "the program shows the gradient of %s, which it does not have",
                       program_str(p, p->args[arg].name));
    Shown shown = shown_of(x, arg, of, factor);
    for (uint32_t i = 0; i < g->n; i++) {
        const ZmpVar *v = g->param[i];
        bool is_in = of->is_bucket && v->in == (int32_t)(of - p->vars);
        if (v == of || is_in) RT_TRY(write_one(g, i, is_in ? v->in_offset : 0, &shown, e));
    }
    return RT_OK;
}

static RtStatus dump_after(void *self, const Exec *x, const ZmpFunc *f, uint32_t command,
                           RtError *e)
{
    (void)f;
    const ZmpCommand *c = &x->p->commands[command];
    if (c->kind != ZMP_PROBE) return RT_OK;
    uint32_t last = c->first_arg + c->n_args - 1;
    float factor;
    for (uint32_t i = c->first_arg; i <= last; i++)
        exec_fetch(x, x->arg_at[i], x->p->args[i].bytes);
    convert_to_f32(&factor, x->arg_at[last], x->p->args[last].dtype, 1);
    for (uint32_t i = c->first_arg; i < last; i++) RT_TRY(write_probe(self, x, i, factor, e));
    return RT_OK;
}

Observer grad_dump_observer(GradDump *g)
{
    return (Observer){.self = g, .after = dump_after};
}

RtStatus grad_dump_close(GradDump *g, RtError *e)
{
    if (e->text.n) { /* the step failed: leave nothing behind */
        shared_abandon(&g->file);
        return RT_OK;
    }
    return shared_finish(&g->file, RT_OK, e);
}

/* ---- --fault ---- */

static RtStatus bad_fault(const char *text, RtError *e)
{
    return RT_FAIL(e, RT_BAD, "--fault takes nonfinite@STEP[:RANK],..., at most 32, not \"%s\"",
                   text);
}

static RtStatus parse_list(FaultPlan *f, const char *text, uint32_t ranks, RtError *e)
{
    const char *at = text;
    if (strncmp(at, "nonfinite@", 10) != 0) return bad_fault(text, e);
    at += 10;
    for (;;) {
        char *end;
        struct Fault fault = {.rank = -1};
        if (f->n == sizeof f->at / sizeof *f->at || *at < '0' || *at > '9')
            return bad_fault(text, e);
        fault.step = strtoll(at, &end, 10);
        at = end;
        if (*at == ':') {
            if (at[1] < '0' || at[1] > '9') return bad_fault(text, e);
            fault.rank = strtoll(at + 1, &end, 10);
            at = end;
            if (fault.rank >= ranks)
                return RT_FAIL(e, RT_BAD, "--fault names rank %lld, the program has ranks 0 to %u",
                               (long long)fault.rank, ranks - 1);
        }
        f->at[f->n++] = fault;
        if (!*at) return RT_OK;
        if (*at++ != ',') return bad_fault(text, e);
        if (strncmp(at, "nonfinite@", 10) == 0) at += 10;
    }
}

/* Does `a` hold the first element of `b`? */
static bool holds_first(const ZmpArg *a, const ZmpArg *b)
{
    return a->buffer == b->buffer && a->offset <= b->offset && b->offset < a->offset + a->bytes;
}

/* The last command before the probe that writes the first element of its first gradient: right
 * after it nobody has read the result. */
static bool find_writer(FaultPlan *f, const Program *p)
{
    uint32_t first = p->last->first_command, probe = first, end = first + p->last->n_commands;
    while (probe < end && (p->commands[probe].kind != ZMP_PROBE || p->commands[probe].n_args < 2))
        probe++;
    if (probe == end) return false;
    f->arg = p->commands[probe].first_arg;
    f->dtype = p->args[f->arg].dtype;
    for (uint32_t c = probe; c-- > first;)
        for (uint32_t i = 0; i < p->commands[c].n_args; i++) {
            const ZmpArg *arg = &p->args[p->commands[c].first_arg + i];
            if (!(arg->flags & ZMP_ARG_WRITE) || !holds_first(arg, &p->args[f->arg])) continue;
            f->command = c;
            return true;
        }
    return false;
}

/* On many ranks: the operand of the first reduction of gradients, before it starts. */
static bool find_reduction(FaultPlan *f, const Program *p)
{
    for (uint32_t i = 0; i < p->last->n_commands; i++) {
        const ZmpCommand *c = &p->commands[p->last->first_command + i];
        if (c->kind != ZMP_START) continue;
        const ZmpCollective *k = &p->collectives[c->kernel];
        if (k->kind == ZMP_ALL_GATHER || strcmp(program_str(p, k->what), "grads") != 0) continue;
        f->command = p->last->first_command + i;
        f->arg = c->first_arg + 1;
        f->dtype = p->args[f->arg].dtype;
        f->is_before = true;
        return true;
    }
    return false;
}

RtStatus fault_parse(FaultPlan *f, const char *text, const Exec *x, RtError *e)
{
    *f = (FaultPlan){0};
    if (!text) return RT_OK;
    RT_TRY(parse_list(f, text, x->p->h->ranks, e));
    if (!find_reduction(f, x->p) && !find_writer(f, x->p))
        return RT_FAIL(e, RT_BAD,
                       "--fault: this program has no place where a gradient can be reached");
    return RT_OK;
}

bool fault_is_due(const FaultPlan *f, int64_t step, int64_t rank)
{
    for (uint32_t i = 0; i < f->n; i++)
        if (f->at[i].step == step && (f->at[i].rank < 0 || f->at[i].rank == rank)) return true;
    return false;
}

static void plant(const Exec *x, const FaultPlan *plan)
{
    scalar_set(x->arg_at[plan->arg], plan->dtype, INFINITY);
    exec_put(x, x->arg_at[plan->arg], zmp_dtype_bytes(plan->dtype));
}

static RtStatus fault_before(void *self, const Exec *x, const ZmpFunc *f, uint32_t command,
                             RtError *e)
{
    (void)f;
    (void)e;
    FaultPlan *plan = self;
    if (plan->is_before && command == plan->command) plant(x, plan);
    return RT_OK;
}

static RtStatus fault_after(void *self, const Exec *x, const ZmpFunc *f, uint32_t command,
                            RtError *e)
{
    (void)f;
    (void)e;
    FaultPlan *plan = self;
    if (!plan->is_before && command == plan->command) plant(x, plan);
    return RT_OK;
}

Observer fault_observer(FaultPlan *f)
{
    return (Observer){.self = f, .before = fault_before, .after = fault_after};
}
