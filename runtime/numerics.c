/* numerics.c -- see numerics.h. */
#include "runtime/numerics.h"

#include <inttypes.h>
#include <string.h>

static int64_t find16(const char *at, int64_t n, uint16_t exponent)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t u;
        memcpy(&u, at + 2 * i, sizeof u);
        if ((u & exponent) == exponent) return i;
    }
    return -1;
}

static int64_t find32(const char *at, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, at + 4 * i, sizeof u);
        if ((u & 0x7f800000u) == 0x7f800000u) return i;
    }
    return -1;
}

static int64_t find64(const char *at, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint64_t u;
        memcpy(&u, at + 8 * i, sizeof u);
        if ((u & 0x7ff0000000000000u) == 0x7ff0000000000000u) return i;
    }
    return -1;
}

/* Index of the first element that is not finite; -1: none (or not a float dtype). */
static int64_t nonfinite_find(const char *at, uint32_t dtype, int64_t n_bytes)
{
    switch ((enum ZmpDType)dtype) {
    case ZMP_I1:
    case ZMP_I32: return -1;
    case ZMP_BF16: return find16(at, n_bytes / 2, 0x7f80);
    case ZMP_F16: return find16(at, n_bytes / 2, 0x7c00);
    case ZMP_F32: return find32(at, n_bytes / 4);
    case ZMP_F64: return find64(at, n_bytes / 8);
    }
    return -1;
}

void numerics_scan_state(Numerics *n, const Exec *x)
{
    const Program *p = x->p;
    for (uint32_t i = 0; i < p->n_vars && !n->is_found; i++) {
        const ZmpVar *v = &p->vars[i];
        if (v->kind == ZMP_SCALAR || v->kind == ZMP_GRAD || v->is_bucket) continue;
        const char *at = exec_var(x, v);
        int64_t each = zmp_dtype_bytes(v->dtype),
                bad = nonfinite_find(at, v->dtype, v->elems * each);
        if (bad < 0) continue;
        n->is_found = true;
        str_addf(&n->text, "%s[%" PRId64 "] = %g, before the step (declared at %s)",
                 program_str(p, v->name), bad, scalar_get(at + bad * each, v->dtype),
                 program_str(p, v->loc));
    }
}

/* A kernel fills its workspace as far as it needs it; the rest is whatever was there. */
static bool is_workspace(const Program *p, const ZmpArg *arg)
{
    return strcmp(program_str(p, p->buffers[arg->buffer].cat), "workspace") == 0;
}

static RtStatus after(void *self, const Exec *x, const ZmpFunc *f, uint32_t command, RtError *e)
{
    Numerics *n = self;
    const Program *p = x->p;
    const ZmpCommand *c = &p->commands[command];
    if (c->kind != ZMP_KERNEL && c->kind != ZMP_COPY) return RT_OK;
    for (uint32_t i = c->first_arg; i < c->first_arg + c->n_args; i++) {
        const ZmpArg *arg = &p->args[i];
        if (!(arg->flags & ZMP_ARG_WRITE) || is_workspace(p, arg)) continue;
        int64_t bad = nonfinite_find(x->arg_at[i], arg->dtype, arg->bytes);
        if (bad < 0) continue;
        double value = scalar_get(x->arg_at[i] + bad * zmp_dtype_bytes(arg->dtype), arg->dtype);
        n->is_found = true;
        n->text.n = 0;
        const char *name = program_str(p, arg->name), *label = program_str(p, c->label);
        str_addf(&n->text, "%s: ", program_str(p, c->loc));
        if (!*name || *name == '%') /* a value without a name in the model */
            str_addf(&n->text, "element %" PRId64 " of the result of %s is %g", bad, label, value);
        else
            str_addf(&n->text, "%s[%" PRId64 "] = %g, written by %s", name, bad, value, label);
        str_addf(&n->text, " (command %u of %s)", command - f->first_command,
                 program_str(p, f->name));
        return RT_FAIL(e, RT_FAILED, "first number that is not finite: %s", str_c(&n->text));
    }
    return RT_OK;
}

Observer numerics_observer(Numerics *n)
{
    return (Observer){.self = n, .after = after};
}
