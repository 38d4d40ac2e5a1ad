/* info.c -- --info. */
#include "runtime/run.h"

#include <inttypes.h>

static void add_port(Str *out, const Program *p, const ZmpPort *port)
{
    str_addf(out, " %s: %s[", program_str(p, port->name), zmp_dtype_name(port->dtype));
    for (uint32_t i = 0; i < port->rank; i++)
        str_addf(out, "%s%" PRId64, i ? ", " : "", port->dim[i]);
    str_add(out, "]");
}

static void add_func(Str *out, const Program *p, const ZmpFunc *f)
{
    double flops = 0;
    for (uint32_t i = 0; i < f->n_commands; i++) flops += p->commands[f->first_command + i].flops;
    str_addf(out, "  %-10s %5u commands  %10.3f GFLOP  peak %" PRId64 " bytes  inputs",
             program_str(p, f->name), f->n_commands, flops * 1e-9, f->peak_live);
    for (uint32_t i = 0; i < f->n_in; i++) add_port(out, p, &p->ports[f->first_in + i]);
    str_add(out, "\n");
}

/* What a rank sends in a step. */
static void add_communication(Str *out, const Program *p)
{
    const ZmpFunc *funcs[] = {p->micro, p->last};
    const int64_t calls[] = {(int64_t)p->h->accumulate - 1, 1};
    double bytes = 0;
    int64_t n = 0;
    for (int f = 0; f < 2; f++)
        for (uint32_t i = 0; funcs[f] && i < funcs[f]->n_commands; i++) {
            const ZmpCommand *c = &p->commands[funcs[f]->first_command + i];
            if (c->kind != ZMP_START) continue;
            bytes += (double)calls[f] * c->bytes;
            n += calls[f];
        }
    str_addf(out, "collectives %" PRId64 " in a step, %.0f bytes sent by a rank\n", n, bytes);
}

void program_info(Str *out, const Program *p)
{
    const ZmpHeader *h = p->h;
    str_addf(out, "model       %s, from %s\n", program_str(p, h->model), program_str(p, h->source));
    str_addf(out, "compiled    %s\n", program_str(p, h->command_line));
    if (program_is_cuda(p))
        str_addf(out, "target      %s, %u modules of PTX and cubin\n", program_str(p, h->target),
                 p->n_modules);
    else
        str_addf(out, "target      %s, cpu %s (needs %s)\n", program_str(p, h->target),
                 program_str(p, h->cpu),
                 *program_str(p, h->cpu_features) ? program_str(p, h->cpu_features)
                                                  : "nothing special");
    str_addf(out, "ranks       %u, zero stage %u\n", h->ranks, h->zero_stage);
    str_addf(out, "precision   %s\n", program_str(p, h->precision));
    str_addf(out, "step        %u micro-batches of %" PRId64 " samples (%" PRId64 " items)\n",
             h->accumulate, h->batch, h->items);
    str_addf(out, "parameters  %" PRId64 "\n", h->n_params);
    str_addf(out,
             "arena       %" PRIu64 " bytes, %" PRIu64 " of them persistent; scratch %" PRIu64
             " bytes a thread\n",
             h->arena_bytes, h->persistent_bytes, h->scratch_bytes);
    if (h->ranks > 1) add_communication(out, p);
    str_addf(out, "kernels     %u\nfunctions\n", p->n_kernels);
    for (uint32_t i = 0; i < p->n_funcs; i++) add_func(out, p, &p->funcs[i]);
    if (*program_str(p, h->plan_text)) str_addf(out, "plan\n%s\n", program_str(p, h->plan_text));
}
