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

/* The parameter that holds element *at of a bucket; *at becomes its own element.  NULL: padding. */
static const ZmpVar *member_at(const Program *p, const ZmpVar *bucket, int64_t *at)
{
    for (uint32_t i = 0; i < p->n_vars; i++) {
        const ZmpVar *v = &p->vars[i];
        if (v->kind != ZMP_PARAM || v->in != (int32_t)(bucket - p->vars) || *at < v->in_offset ||
            *at >= v->in_offset + v->elems)
            continue;
        *at -= v->in_offset;
        return v;
    }
    return NULL;
}

/* "w[3]", "adam.m of w[3]", by the element of this rank's part of a variable. */
static void add_element(Str *out, const Exec *x, const ZmpVar *v, int64_t at)
{
    const Program *p = x->p;
    const ZmpVar *bucket = v->is_bucket ? v : v->of >= 0 ? &p->vars[v->of] : v;
    const ZmpVar *member = NULL;
    if (v->is_sharded) at += exec_rank(x) * v->elems;
    if (bucket->is_bucket) member = member_at(p, bucket, &at);
    if (member && v->kind != ZMP_PARAM) str_addf(out, "%s of ", program_str(p, v->name));
    str_addf(out, "%s[%" PRId64 "]", program_str(p, (member ? member : v)->name), at);
}

/* Views show more than their bucket; a sharded one has no other way to be looked at. */
void numerics_scan_state(Numerics *n, const Exec *x)
{
    const Program *p = x->p;
    for (uint32_t i = 0; i < p->n_vars && !n->is_found; i++) {
        const ZmpVar *v = &p->vars[i], *own = program_storage(p, v);
        if (v->kind == ZMP_SCALAR || v->kind == ZMP_GRAD) continue;
        if (own->is_sharded ? v != own : v->is_bucket) continue;
        const char *at = exec_var(x, v);
        int64_t each = zmp_dtype_bytes(v->dtype), bad;
        exec_fetch(x, at, v->elems * each);
        bad = nonfinite_find(at, v->dtype, v->elems * each);
        if (bad < 0) continue;
        n->is_found = true;
        add_element(&n->text, x, v, bad);
        str_addf(&n->text, " = %g, before the step (declared at %s)",
                 scalar_get(at + bad * each, v->dtype), program_str(p, v->loc));
    }
}

/* A kernel fills its workspace as far as it needs it; the rest is whatever was there. */
static bool is_workspace(const Program *p, const ZmpArg *arg)
{
    return strcmp(program_str(p, p->buffers[arg->buffer].cat), "workspace") == 0;
}

/* ---- what the element is called ---- */

static bool holds(const ZmpArg *arg, int32_t buffer, int64_t byte)
{
    return arg->buffer == buffer && arg->offset <= byte && byte < arg->offset + arg->bytes;
}

/* The probe's argument that shows this byte as the command left it: a gradient.  NULL: none. */
static const ZmpArg *shown_later(const Program *p, const ZmpFunc *f, uint32_t command,
                                 int32_t buffer, int64_t byte)
{
    for (uint32_t k = command + 1; k < f->first_command + f->n_commands; k++) {
        const ZmpCommand *c = &p->commands[k];
        uint32_t n = c->kind == ZMP_PROBE ? c->n_args - 1 : c->n_args;
        for (uint32_t i = c->first_arg; i < c->first_arg + n; i++) {
            if (!holds(&p->args[i], buffer, byte)) continue;
            if (c->kind == ZMP_PROBE) return &p->args[i];
            if (p->args[i].flags & ZMP_ARG_WRITE) return NULL;
        }
    }
    return NULL;
}

/* "gradient of w[3]"; false: it is none.  A rank shows its part of a bucket. */
static bool add_gradient(Str *out, const Exec *x, const ZmpFunc *f, uint32_t command,
                         const ZmpArg *arg, int64_t element)
{
    const Program *p = x->p;
    int64_t each = zmp_dtype_bytes(arg->dtype), byte = arg->offset + element * each;
    const ZmpArg *shown = shown_later(p, f, command, arg->buffer, byte);
    const ZmpVar *of = shown ? program_var(p, program_str(p, shown->name)) : NULL;
    if (!of) return false;
    if (of->kind != ZMP_PARAM && of->of >= 0) of = &p->vars[of->of];
    int64_t at = (byte - shown->offset) / each, n = shown->bytes / each;
    if (of->is_bucket) {
        int64_t whole = of->is_sharded ? of->elems * p->h->ranks : of->elems;
        if (n < whole) at += exec_rank(x) * n;
        const ZmpVar *member = member_at(p, of, &at);
        if (member) of = member;
    }
    str_addf(out, "gradient of %s[%" PRId64 "]", program_str(p, of->name), at);
    return true;
}

/* "gradient of w[3]", of a bucket whose gradients a reduction is about to sum; false: it is none.
 */
static bool add_reduced(Str *out, const Program *p, const ZmpCommand *c, int64_t element)
{
    const char *tensor = program_str(p, p->collectives[c->kernel].tensor);
    const ZmpVar *of = strncmp(tensor, "grad.", 5) == 0 ? program_var(p, tensor + 5) : NULL;
    const ZmpVar *member = of && of->is_bucket ? member_at(p, of, &element) : NULL;
    if (member) str_addf(out, "gradient of %s[%" PRId64 "]", program_str(p, member->name), element);
    return member != NULL;
}

static bool add_name(Str *out, const Exec *x, const ZmpFunc *f, uint32_t command, const ZmpArg *arg,
                     int64_t element)
{
    const ZmpCommand *c = &x->p->commands[command];
    if (c->kind == ZMP_START) return add_reduced(out, x->p, c, element);
    return add_gradient(out, x, f, command, arg, element);
}

static void describe(Numerics *n, const Exec *x, const ZmpFunc *f, uint32_t command, uint32_t arg,
                     int64_t element)
{
    const Program *p = x->p;
    const ZmpCommand *c = &p->commands[command];
    const ZmpArg *a = &p->args[arg];
    double value = scalar_get(x->arg_at[arg] + element * zmp_dtype_bytes(a->dtype), a->dtype);
    const char *name = program_str(p, a->name), *label = program_str(p, c->label);
    const char *verb = c->kind == ZMP_START ? "handed to" : "written by";
    n->is_found = true;
    n->text.n = 0;
    str_addf(&n->text, "%s: ", program_str(p, c->loc));
    if (add_name(&n->text, x, f, command, a, element))
        str_addf(&n->text, " = %g, %s %s", value, verb, label);
    else if (!*name || *name == '%') /* a value without a name in the model */
        str_addf(&n->text, "element %" PRId64 " of the %s of %s is %g", element,
                 c->kind == ZMP_START ? "operand" : "result", label, value);
    else
        str_addf(&n->text, "%s[%" PRId64 "] = %g, %s %s", name, element, value, verb, label);
    str_addf(&n->text, " (command %u of %s)", command - f->first_command, program_str(p, f->name));
}

/* The op inside the kernel, computed again from what it read. */
static void describe_inside(Numerics *n, const Exec *x, const ZmpFunc *f, uint32_t command)
{
    Audit *audit = NULL;
    RtError unused = {0};
    Str where = {0};
    if (n->audit && n->audit->open(&audit, x, &unused) == RT_OK &&
        n->audit->locate(audit, f, command, n->inputs.at, &where))
        str_addf(&n->text, "; first in this kernel: %s", str_c(&where));
    if (n->audit) n->audit->close(audit);
    str_free(&where);
    str_free(&unused.text);
}

/* What the command wrote, or hands to the other ranks: the result of a START is not there yet. */
static bool is_to_check(const Program *p, const ZmpCommand *c, const ZmpArg *arg)
{
    if (c->kind == ZMP_START) return !(arg->flags & ZMP_ARG_WRITE);
    bool is_kind = c->kind == ZMP_KERNEL || c->kind == ZMP_COPY || c->kind == ZMP_WAIT;
    return is_kind && (arg->flags & ZMP_ARG_WRITE) && !is_workspace(p, arg);
}

static RtStatus check(Numerics *n, const Exec *x, const ZmpFunc *f, uint32_t command, RtError *e)
{
    const Program *p = x->p;
    const ZmpCommand *c = &p->commands[command];
    for (uint32_t i = c->first_arg; i < c->first_arg + c->n_args && !n->is_found; i++) {
        const ZmpArg *arg = &p->args[i];
        if (!is_to_check(p, c, arg)) continue;
        exec_fetch(x, x->arg_at[i], arg->bytes);
        int64_t bad = nonfinite_find(x->arg_at[i], arg->dtype, arg->bytes);
        if (bad < 0) continue;
        describe(n, x, f, command, i, bad);
        n->found_at = n->n_seen;
        if (c->kind == ZMP_KERNEL) describe_inside(n, x, f, command);
        if (n->is_quiet) return RT_OK;
        return RT_FAIL(e, RT_FAILED, "first number that is not finite: %s", str_c(&n->text));
    }
    return RT_OK;
}

/* What is handed over is looked at before it is: the sum of all ranks may take its place. */
static RtStatus before(void *self, const Exec *x, const ZmpFunc *f, uint32_t command, RtError *e)
{
    Numerics *n = self;
    uint32_t kind = x->p->commands[command].kind;
    n->n_seen++;
    if (kind == ZMP_START) return check(n, x, f, command, e);
    if (!n->audit || n->is_found || kind != ZMP_KERNEL) return RT_OK;
    return kernel_inputs_take(&n->inputs, x, command, e);
}

static RtStatus after(void *self, const Exec *x, const ZmpFunc *f, uint32_t command, RtError *e)
{
    if (x->p->commands[command].kind == ZMP_START) return RT_OK;
    return check(self, x, f, command, e);
}

Observer numerics_observer(Numerics *n)
{
    return (Observer){.self = n, .before = before, .after = after};
}

void numerics_free(Numerics *n)
{
    kernel_inputs_free(&n->inputs);
    str_free(&n->text);
}
