/* program_print.c -- zmc --emit program: the tables of a program as text. */
#include "codegen/program.h"

static const char *str_at(const Program *p, uint32_t at)
{
    return p->strings.at + at;
}

static void print_buffers(const Program *p, int32_t func, Str *out)
{
    for (uint32_t i = 0; i < p->buffers.n; i++) {
        const ZmpBuffer *b = &p->buffers.at[i];
        if (b->func != func) continue;
        str_addf(out, "  buffer %u %s @%lld +%lld cat=%s", i, str_at(p, b->name),
                 (long long)b->arena_offset, (long long)b->bytes, str_at(p, b->cat));
        if (func >= 0) str_addf(out, " live=%d..%d", b->live_from, b->live_to);
        str_addf(out, "%s%s\n", b->loc ? " " : "", str_at(p, b->loc));
    }
}

static void print_arg(const Program *p, const ZmpArg *a, Str *out)
{
    if (a->buffer < 0) {
        const int32_t *at = p->consts.at + (size_t)a->offset / sizeof *at;
        str_addf(out, "      r %s =", str_at(p, a->name));
        for (size_t i = 0; i < (size_t)a->bytes / sizeof *at; i++) str_addf(out, " %d", at[i]);
        str_add(out, "\n");
        return;
    }
    str_addf(out, "      %s%s %s = buffer %d [%lld, %lld) %s", a->flags & ZMP_ARG_READ ? "r" : "",
             a->flags & ZMP_ARG_WRITE ? "w" : "", str_at(p, a->name), a->buffer,
             (long long)a->offset, (long long)(a->offset + a->bytes), dtype_name((DType)a->dtype));
    if (a->rank_stride) str_addf(out, " +%lld a rank", (long long)a->rank_stride);
    str_add(out, "\n");
}

static void print_command(const Program *p, uint32_t i, const ZmpCommand *c, Str *out)
{
    static const char *const kinds[] = {"kernel", "copy", "zero", "probe", "start", "wait"};
    str_addf(out, "    %u: %s", i, kinds[c->kind]);
    bool is_indexed = c->kind == ZMP_KERNEL || c->kind == ZMP_START || c->kind == ZMP_WAIT;
    if (is_indexed) str_addf(out, " %u", c->kernel);
    str_addf(out, " %s  %s\n", str_at(p, c->label), str_at(p, c->loc));
    for (uint32_t j = 0; j < c->n_args; j++) print_arg(p, &p->args.at[c->first_arg + j], out);
}

static void print_collectives(const Program *p, Str *out)
{
    static const char *const kinds[] = {"all_gather", "reduce_scatter", "all_reduce"};
    for (uint32_t i = 0; i < p->collectives.n; i++) {
        const ZmpCollective *k = &p->collectives.at[i];
        str_addf(out, "  collective %u %s %s : %s[%lld] what=%s %s\n", i, kinds[k->kind],
                 str_at(p, k->tensor), dtype_name((DType)k->dtype), (long long)k->count,
                 str_at(p, k->what), str_at(p, k->loc));
    }
}

static void print_port(const Program *p, const char *what, const ZmpPort *q, Str *out)
{
    str_addf(out, "  %s %s : %s[", what, str_at(p, q->name), dtype_name((DType)q->dtype));
    for (uint32_t i = 0; i < q->rank; i++)
        str_addf(out, "%s%lld", i ? "," : "", (long long)q->dim[i]);
    str_addf(out, "] = buffer %d +%lld\n", q->buffer, (long long)q->offset);
}

void program_print(const Program *p, Str *out)
{
    const ZmpHeader *h = &p->header;
    str_addf(out, "program %s: arena %llu bytes, variables %llu, accumulate %u",
             str_at(p, h->model), (unsigned long long)h->arena_bytes,
             (unsigned long long)h->persistent_bytes, h->accumulate);
    if (h->ranks > 1) str_addf(out, ", ranks %u, zero %u", h->ranks, h->zero_stage);
    str_add(out, "\n");
    print_buffers(p, -1, out);
    print_collectives(p, out);
    for (uint32_t i = 0; i < p->kernels.n; i++)
        str_addf(out, "  kernel %u %s\n", i, str_at(p, p->kernels.at[i].name));
    for (uint32_t i = 0; i < p->funcs.n; i++) {
        const ZmpFunc *f = &p->funcs.at[i];
        str_addf(out, "function %s: %u commands, peak %lld bytes\n", str_at(p, f->name),
                 f->n_commands, (long long)f->peak_live);
        for (uint32_t j = 0; j < f->n_in; j++)
            print_port(p, "input", &p->ports.at[f->first_in + j], out);
        for (uint32_t j = 0; j < f->n_out; j++)
            print_port(p, "result", &p->ports.at[f->first_out + j], out);
        print_buffers(p, (int32_t)i, out);
        for (uint32_t j = 0; j < f->n_commands; j++)
            print_command(p, j, &p->commands.at[f->first_command + j], out);
    }
}
