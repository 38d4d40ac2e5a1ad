/* kernel_inputs.c -- see kernel_inputs.h. */
#include "runtime/kernel_inputs.h"

#include <stdlib.h>
#include <string.h>

static bool is_written(const Program *p, const ZmpCommand *c, const ZmpArg *in)
{
    for (uint32_t i = c->first_arg; i < c->first_arg + c->n_args; i++) {
        const ZmpArg *out = &p->args[i];
        if ((out->flags & ZMP_ARG_WRITE) && out->buffer == in->buffer &&
            out->offset < in->offset + in->bytes && in->offset < out->offset + out->bytes)
            return true;
    }
    return false;
}

static RtStatus make_room(KernelInputs *k, size_t n_at, size_t n_bytes, RtError *e)
{
    if (n_at > k->n_at) {
        free(k->at);
        k->at = calloc(n_at, sizeof *k->at);
        k->n_at = k->at ? n_at : 0;
    }
    if (n_bytes > k->n_bytes) {
        free(k->copies);
        k->copies = malloc(n_bytes);
        k->n_bytes = k->copies ? n_bytes : 0;
    }
    if (n_at <= k->n_at && n_bytes <= k->n_bytes) return RT_OK;
    return RT_FAIL(e, RT_FAILED, "cannot get %zu bytes for the inputs of a kernel", n_bytes);
}

RtStatus kernel_inputs_take(KernelInputs *k, const Exec *x, uint32_t command, RtError *e)
{
    const Program *p = x->p;
    const ZmpCommand *c = &p->commands[command];
    size_t n_bytes = 0;
    for (uint32_t i = 0; i < c->n_args; i++) {
        const ZmpArg *a = &p->args[c->first_arg + i];
        if ((a->flags & ZMP_ARG_READ) && is_written(p, c, a)) n_bytes += (size_t)a->bytes;
    }
    RT_TRY(make_room(k, c->n_args, n_bytes, e));
    char *to = k->copies;
    for (uint32_t i = 0; i < c->n_args; i++) {
        const ZmpArg *a = &p->args[c->first_arg + i];
        k->at[i] = a->flags & ZMP_ARG_READ ? x->arg_at[c->first_arg + i] : NULL;
        if (k->at[i]) exec_fetch(x, k->at[i], a->bytes);
        if (!k->at[i] || !is_written(p, c, a)) continue;
        memcpy(to, k->at[i], (size_t)a->bytes);
        k->at[i] = to;
        to += a->bytes;
    }
    return RT_OK;
}

void kernel_inputs_free(KernelInputs *k)
{
    free(k->at);
    free(k->copies);
    *k = (KernelInputs){0};
}
