/* program.c -- see program.h. */
#include "runtime/program.h"

#include <string.h>

int64_t zmp_dtype_bytes(uint32_t dtype)
{
    static const int64_t bytes[] = {0, 1, 4, 2, 2, 4, 8};
    return dtype < sizeof bytes / sizeof *bytes ? bytes[dtype] : 0;
}

const char *zmp_dtype_name(uint32_t dtype)
{
    static const char *const name[] = {"?", "i1", "i32", "bf16", "f16", "f32", "f64"};
    return dtype < sizeof name / sizeof *name ? name[dtype] : "?";
}

int64_t port_elems(const ZmpPort *port)
{
    int64_t n = 1;
    for (uint32_t i = 0; i < port->rank; i++)
        if (port->dim[i] <= 0 || __builtin_mul_overflow(n, port->dim[i], &n) || n > INT64_MAX / 8)
            return -1;
    return n;
}

/* ---- the tables ---- */

static RtStatus corrupt(RtError *e, const char *what, uint64_t i)
{
    return RT_FAIL(e, RT_FAILED,
                   "the compiled program is damaged: %s %llu points outside its table; compile the "
                   "model again",
                   what, (unsigned long long)i);
}

static bool table_at(const ZmrtImage *im, ZmpRange r, size_t entry_bytes, const void **at,
                     uint32_t *n)
{
    if (r.offset > im->program_bytes || r.n > (im->program_bytes - r.offset) / entry_bytes)
        return false;
    if (r.n > INT32_MAX || (r.offset % 8 != 0 && entry_bytes > 1)) return false;
    *at = (const char *)im->program + r.offset;
    *n = (uint32_t)r.n;
    return true;
}

static RtStatus open_tables(Program *p, const ZmrtImage *im, RtError *e)
{
    const ZmpHeader *h = p->h;
    const void *at[13];
    bool is_ok = table_at(im, h->strings, 1, &at[0], &p->n_strings) &&
                 table_at(im, h->vars, sizeof(ZmpVar), &at[1], &p->n_vars) &&
                 table_at(im, h->buffers, sizeof(ZmpBuffer), &at[2], &p->n_buffers) &&
                 table_at(im, h->kernels, sizeof(ZmpKernel), &at[3], &p->n_kernels) &&
                 table_at(im, h->args, sizeof(ZmpArg), &at[4], &p->n_args) &&
                 table_at(im, h->commands, sizeof(ZmpCommand), &at[5], &p->n_commands) &&
                 table_at(im, h->funcs, sizeof(ZmpFunc), &at[6], &p->n_funcs) &&
                 table_at(im, h->ports, sizeof(ZmpPort), &at[7], &p->n_ports) &&
                 table_at(im, h->feeds, sizeof(ZmpFeed), &at[8], &p->n_feeds) &&
                 table_at(im, h->weight_rules, sizeof(ZmpWeightRule), &at[9], &p->n_weight_rules) &&
                 table_at(im, h->consts, sizeof(int32_t), &at[10], &p->n_consts) &&
                 table_at(im, h->collectives, sizeof(ZmpCollective), &at[11], &p->n_collectives) &&
                 table_at(im, h->modules, sizeof(ZmpModule), &at[12], &p->n_modules);
    if (!is_ok) return corrupt(e, "header entry", 0);
    p->strings = at[0];
    p->vars = at[1];
    p->buffers = at[2];
    p->kernels = at[3];
    p->args = at[4];
    p->commands = at[5];
    p->funcs = at[6];
    p->ports = at[7];
    p->feeds = at[8];
    p->weight_rules = at[9];
    p->consts = at[10];
    p->collectives = at[11];
    p->modules = at[12];
    if (p->n_strings == 0 || p->strings[p->n_strings - 1] != '\0') return corrupt(e, "string", 0);
    return RT_OK;
}

/* ---- the entries ---- */

static bool str_ok(const Program *p, uint32_t offset)
{
    return offset < p->n_strings;
}

static bool buffer_range_ok(const Program *p, int32_t buffer, int64_t offset, int64_t bytes)
{
    if (buffer < 0 || (uint32_t)buffer >= p->n_buffers) return false;
    int64_t has = p->buffers[buffer].bytes;
    return offset >= 0 && bytes >= 0 && offset <= has && bytes <= has - offset;
}

static bool arg_ok(const Program *p, const ZmpArg *a)
{
    if (!str_ok(p, a->name)) return false;
    int64_t last = 0; /* of the last rank, from the first one's */
    if (a->rank_stride < 0 || __builtin_mul_overflow(a->rank_stride, p->h->ranks - 1, &last))
        return false;
    if (a->buffer >= 0)
        return buffer_range_ok(p, a->buffer, a->offset, a->bytes) &&
               last <= p->buffers[a->buffer].bytes - a->offset - a->bytes;
    int64_t has = (int64_t)(p->n_consts * sizeof *p->consts);
    return a->buffer == -1 && a->flags == ZMP_ARG_READ && a->offset >= 0 && a->offset % 4 == 0 &&
           a->bytes >= 0 && a->offset <= has && a->bytes <= has - a->offset;
}

static bool var_ok(const Program *p, const ZmpVar *v)
{
    if (!str_ok(p, v->name) || !str_ok(p, v->loc) || v->rank > ZMP_MAX_RANK ||
        !zmp_dtype_bytes(v->dtype))
        return false;
    if (v->in >= (int32_t)p->n_vars || v->of >= (int32_t)p->n_vars || v->elems < 0) return false;
    if (v->in >= 0 && p->vars[v->in].is_sharded) return p->vars[v->in].buffer == v->buffer;
    if (v->buffer < 0 || (uint32_t)v->buffer >= p->n_buffers) return false;
    int64_t offset = v->arena_offset - p->buffers[v->buffer].arena_offset;
    return v->elems <= INT64_MAX / 8 &&
           buffer_range_ok(p, v->buffer, offset, v->elems * zmp_dtype_bytes(v->dtype));
}

/* Both arguments are as long as the collective takes them to be. */
static bool collective_fits(const Program *p, const ZmpCommand *c)
{
    if (c->kernel >= p->n_collectives) return false;
    const ZmpCollective *k = &p->collectives[c->kernel];
    const ZmpArg *out = &p->args[c->first_arg], *in = out + 1;
    int64_t ranks = p->h->ranks, whole = k->count * zmp_dtype_bytes(k->dtype);
    int64_t part = whole / ranks;
    if (k->kind != ZMP_ALL_REDUCE && k->count % ranks) return false;
    return out->bytes == (k->kind == ZMP_REDUCE_SCATTER ? part : whole) &&
           in->bytes == (k->kind == ZMP_ALL_GATHER ? part : whole);
}

static bool collective_ok(const Program *p, const ZmpCollective *k)
{
    return str_ok(p, k->tensor) && str_ok(p, k->loc) && str_ok(p, k->what) &&
           k->kind <= ZMP_ALL_REDUCE && zmp_dtype_bytes(k->dtype) && k->count >= 0 &&
           k->count <= INT64_MAX / 8;
}

static bool is_pair(const ZmpCommand *start, const ZmpCommand *wait)
{
    return start->kind == ZMP_START && wait->kind == ZMP_WAIT && start->kernel == wait->kernel;
}

static bool command_ok(const Program *p, const ZmpCommand *c)
{
    if (c->first_arg > p->n_args || c->n_args > p->n_args - c->first_arg) return false;
    if (!str_ok(p, c->label) || !str_ok(p, c->loc)) return false;
    switch ((enum ZmpCommandKind)c->kind) {
    case ZMP_KERNEL: return c->kernel < p->n_kernels;
    case ZMP_COPY: return c->n_args == 2;
    case ZMP_ZERO: return c->n_args == 1;
    case ZMP_PROBE: return c->n_args >= 1;
    case ZMP_START:
    case ZMP_WAIT: return c->n_args == 2 && collective_fits(p, c);
    }
    return false;
}

/* Each START of a function is followed by its WAIT there. */
static bool pairs_ok(const Program *p, const ZmpFunc *f)
{
    for (uint32_t i = 0; i < f->n_commands; i++) {
        const ZmpCommand *c = &p->commands[f->first_command + i];
        uint32_t n = 0;
        if (c->kind == ZMP_WAIT)
            for (uint32_t k = 0; k < i; k++) n += is_pair(&p->commands[f->first_command + k], c);
        if (c->kind == ZMP_START)
            for (uint32_t k = i + 1; k < f->n_commands; k++)
                n += is_pair(c, &p->commands[f->first_command + k]);
        if ((c->kind == ZMP_WAIT || c->kind == ZMP_START) && n != 1) return false;
    }
    return true;
}

static bool func_ok(const Program *p, const ZmpFunc *f)
{
    return str_ok(p, f->name) && f->first_command <= p->n_commands &&
           f->n_commands <= p->n_commands - f->first_command && f->first_in <= p->n_ports &&
           f->n_in <= p->n_ports - f->first_in && f->first_out <= p->n_ports &&
           f->n_out <= p->n_ports - f->first_out;
}

static bool port_ok(const Program *p, const ZmpPort *q)
{
    if (!str_ok(p, q->name) || q->rank > ZMP_MAX_RANK || !zmp_dtype_bytes(q->dtype)) return false;
    if (port_elems(q) < 0) return false;
    return buffer_range_ok(p, q->buffer, q->offset, port_elems(q) * zmp_dtype_bytes(q->dtype));
}

static bool buffer_ok(const Program *p, const ZmpBuffer *b)
{
    int64_t arena = (int64_t)p->h->arena_bytes;
    return str_ok(p, b->name) && str_ok(p, b->cat) && str_ok(p, b->loc) && b->bytes >= 0 &&
           b->arena_offset >= 0 && b->arena_offset <= arena && b->bytes <= arena - b->arena_offset;
}

static bool code_ok(const ZmrtImage *im, ZmpRange r)
{
    return r.offset <= im->device_code_bytes && r.n <= im->device_code_bytes - r.offset;
}

static bool module_ok(const Program *p, const ZmrtImage *im, const ZmpModule *m)
{
    if (!str_ok(p, m->name) || !code_ok(im, m->ptx) || !code_ok(im, m->cubin)) return false;
    return m->ptx.n > 0 && p->device_code[m->ptx.offset + m->ptx.n - 1] == '\0';
}

static bool kernel_ok(const Program *p, const ZmpKernel *k)
{
    if (!str_ok(p, k->name) || !str_ok(p, k->entry) || k->n_phases > ZMP_MAX_PHASES) return false;
    return !program_is_cuda(p) || (k->module < p->n_modules && k->n_phases == 0);
}

static RtStatus check_modules(const Program *p, const ZmrtImage *im, RtError *e)
{
    for (uint32_t i = 0; i < p->n_modules; i++)
        if (!module_ok(p, im, &p->modules[i])) return corrupt(e, "module", i);
    return RT_OK;
}

static RtStatus check_header(const Program *p, RtError *e)
{
    const ZmpHeader *h = p->h;
    const uint32_t text[] = {h->model,        h->target,    h->cpu,
                             h->precision,    h->source,    h->command_line,
                             h->cpu_features, h->plan_text, h->ir};
    for (uint32_t i = 0; i < sizeof text / sizeof *text; i++)
        if (!str_ok(p, text[i])) return corrupt(e, "header string", i);
    return h->ranks == 0 ? corrupt(e, "header number", 0) : RT_OK;
}

static RtStatus check_entries(const Program *p, RtError *e)
{
    for (uint32_t i = 0; i < p->n_buffers; i++)
        if (!buffer_ok(p, &p->buffers[i])) return corrupt(e, "buffer", i);
    for (uint32_t i = 0; i < p->n_vars; i++)
        if (!var_ok(p, &p->vars[i])) return corrupt(e, "variable", i);
    for (uint32_t i = 0; i < p->n_kernels; i++)
        if (!kernel_ok(p, &p->kernels[i])) return corrupt(e, "kernel", i);
    for (uint32_t i = 0; i < p->n_args; i++)
        if (!arg_ok(p, &p->args[i])) return corrupt(e, "argument", i);
    for (uint32_t i = 0; i < p->n_collectives; i++)
        if (!collective_ok(p, &p->collectives[i])) return corrupt(e, "collective", i);
    for (uint32_t i = 0; i < p->n_commands; i++)
        if (!command_ok(p, &p->commands[i])) return corrupt(e, "command", i);
    for (uint32_t i = 0; i < p->n_ports; i++)
        if (!port_ok(p, &p->ports[i])) return corrupt(e, "port", i);
    for (uint32_t i = 0; i < p->n_funcs; i++)
        if (!func_ok(p, &p->funcs[i]) || !pairs_ok(p, &p->funcs[i]))
            return corrupt(e, "function", i);
    for (uint32_t i = 0; i < p->n_feeds; i++)
        if (!str_ok(p, p->feeds[i].input)) return corrupt(e, "feed", i);
    for (uint32_t i = 0; i < p->n_weight_rules; i++)
        if (!str_ok(p, p->weight_rules[i].from) || !str_ok(p, p->weight_rules[i].to))
            return corrupt(e, "weight rule", i);
    return RT_OK;
}

RtStatus program_open_functions(Program *p, const ZmrtImage *image, RtError *e)
{
    *p =
        (Program){.h = image->program, .fns = image->kernel_fns, .device_code = image->device_code};
    if (image->program_bytes < sizeof(ZmpHeader) || p->h->magic != ZMP_MAGIC)
        return RT_FAIL(
            e, RT_FAILED,
            "the compiled program is damaged: no program header; compile the model again");
    if (p->h->version != ZMP_VERSION)
        return RT_FAIL(e, RT_FAILED,
                       "the program has format %u, this runtime reads %d; compile the model again",
                       p->h->version, ZMP_VERSION);
    RT_TRY(open_tables(p, image, e));
    RT_TRY(check_header(p, e));
    RT_TRY(check_modules(p, image, e));
    RT_TRY(check_entries(p, e));
    p->micro = program_func(p, "micro");
    p->last = program_func(p, "last");
    p->eval = program_func(p, "eval");
    p->generate = program_func(p, "generate");
    return RT_OK;
}

RtStatus program_open(Program *p, const ZmrtImage *image, RtError *e)
{
    RT_TRY(program_open_functions(p, image, e));
    if (p->h->batch <= 0 || p->h->items <= 0 || p->h->accumulate == 0)
        return corrupt(e, "header number", 0);
    if (!p->last || (!p->micro && p->h->accumulate > 1))
        return RT_FAIL(
            e, RT_FAILED,
            "the compiled program is damaged: function %s is missing; compile the model again",
            p->last ? "micro" : "last");
    return RT_OK;
}

/* ---- by name ---- */

const ZmpFunc *program_func(const Program *p, const char *name)
{
    for (uint32_t i = 0; i < p->n_funcs; i++)
        if (strcmp(program_str(p, p->funcs[i].name), name) == 0) return &p->funcs[i];
    return NULL;
}

const ZmpVar *program_var(const Program *p, const char *name)
{
    for (uint32_t i = 0; i < p->n_vars; i++)
        if (strcmp(program_str(p, p->vars[i].name), name) == 0) return &p->vars[i];
    return NULL;
}

const ZmpVar *program_storage(const Program *p, const ZmpVar *v)
{
    while (v->in >= 0) v = &p->vars[v->in];
    return v;
}

int program_max_in_flight(const Program *p)
{
    int most = 0;
    for (uint32_t i = 0; i < p->n_funcs; i++) {
        const ZmpCommand *c = &p->commands[p->funcs[i].first_command];
        int n = 0;
        for (uint32_t k = 0; k < p->funcs[i].n_commands; k++) {
            n += (c[k].kind == ZMP_START) - (c[k].kind == ZMP_WAIT);
            if (n > most) most = n;
        }
    }
    return most;
}

/* A core of the last ten years does 20 times as many flops, its memory 5 times as many bytes. */
#define LEAST_FLOPS_S 4e9
#define LEAST_BYTES_S 1e9

double program_longest_s(const Program *p)
{
    double most = 0;
    for (uint32_t i = 0; i < p->n_commands; i++) {
        const ZmpCommand *c = &p->commands[i];
        double s = c->flops / LEAST_FLOPS_S + c->bytes / LEAST_BYTES_S;
        bool is_sending = c->kind == ZMP_START || c->kind == ZMP_WAIT; /* it beats there */
        if (!is_sending && s > most) most = s;
    }
    return most;
}

static const ZmpPort *port_find(const Program *p, uint32_t first, uint32_t n, const char *name)
{
    for (uint32_t i = first; i < first + n; i++)
        if (strcmp(program_str(p, p->ports[i].name), name) == 0) return &p->ports[i];
    return NULL;
}

const ZmpPort *program_in(const Program *p, const ZmpFunc *f, const char *name)
{
    return port_find(p, f->first_in, f->n_in, name);
}

const ZmpPort *program_out(const Program *p, const ZmpFunc *f, const char *name)
{
    return port_find(p, f->first_out, f->n_out, name);
}
