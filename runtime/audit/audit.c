/* audit.c -- the program's kernels, evaluated from the IR that it was made from (runtime/audit.h).
 *
 * The executable carries its planned module as text.  Kernel commands are the function's `fused`
 * ops in order; their arguments are the op's operands, then its results.  So every command can be
 * computed again by the reference interpreter, op by op, from the bytes that it read. */
#include "runtime/audit.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/audit/body.h"
#include "runtime/audit/table.h"
#include "runtime/convert.h"
#include "runtime/kernel_inputs.h"

struct Audit {
    Arena arena;
    SourceSet sources;
    Diag diag;
    const Exec *x;
    Module *m;
    Eval eval;
    KernelInputs inputs;
    AuditTable table;
};

extern const AuditHooks zm_audit; /* what main.c links in */

/* ---- the program's IR ---- */

static RtStatus audit_open(Audit **out, const Exec *x, RtError *e)
{
    const char *text = program_str(x->p, x->p->h->ir);
    if (!*text)
        return RT_FAIL(e, RT_BAD, "this program was made without its IR: compile the model again");
    Audit *a = calloc(1, sizeof *a);
    ZM_CHECK(a != NULL);
    a->x = x;
    a->sources.arena = &a->arena;
    a->diag = (Diag){.arena = &a->arena, .sources = &a->sources};
    a->m = module_parse(&a->arena, &a->sources, &a->diag, "program", text, strlen(text));
    if (!a->m) {
        arena_free(&a->arena);
        free(a);
        return RT_FAIL(e, RT_FAILED, "the IR in this program does not parse: it is damaged");
    }
    a->eval = (Eval){.m = a->m, .arena = &a->arena};
    a->table = (AuditTable){.a = &a->arena, .m = a->m};
    *out = a;
    return RT_OK;
}

static void audit_close(Audit *a)
{
    if (!a) return;
    kernel_inputs_free(&a->inputs);
    arena_free(&a->arena);
    free(a);
}

/* A kernel command's op, and how many arguments it reads: its operands without the workspace. */
typedef struct Fused {
    const Op *op;
    uint32_t n_in;
} Fused;

static Fused fused_new(const Func *f, const Op *op)
{
    OpId last = op->n_in ? value_cget(f, op->in[op->n_in - 1])->def : (OpId){0};
    bool has_workspace = op_ok(last) && op_cget(f, last)->code == OP_WORKSPACE;
    return (Fused){op, op->n_in - has_workspace};
}

static Fused fused_of(const Audit *a, const ZmpFunc *f, uint32_t command)
{
    const Program *p = a->x->p;
    const Func *func = func_find(a->m, program_str(p, f->name));
    ZM_CHECK(func != NULL);
    uint32_t n = 0;
    for (uint32_t i = f->first_command; i < command; i++) n += p->commands[i].kind == ZMP_KERNEL;
    FOR_OPS(func, op)
    {
        const Op *o = op_cget(func, op);
        if (o->code == OP_FUSED && n-- == 0) return fused_new(func, o);
    }
    ZM_UNREACHABLE("a kernel without an op");
}

/* ---- bytes as numbers ---- */

static EvalTensor tensor_from(const Type *t, const char *at)
{
    enum { CHUNK = 1024 };
    int64_t n = type_elems(t), each = dtype_bytes(t->dtype);
    EvalTensor out = {t, malloc((size_t)n * sizeof(double))};
    ZM_CHECK(out.at != NULL);
    if (t->dtype != DT_F32 && t->dtype != DT_BF16 && t->dtype != DT_F16) {
        for (int64_t i = 0; i < n; i++) out.at[i] = scalar_get(at + i * each, (uint32_t)t->dtype);
        return out;
    }
    float chunk[CHUNK];
    for (int64_t i = 0; i < n; i += CHUNK) {
        int64_t m = n - i < CHUNK ? n - i : CHUNK;
        convert_to_f32(chunk, at + i * each, (uint32_t)t->dtype, (size_t)m);
        for (int64_t k = 0; k < m; k++) out.at[i + k] = (double)chunk[k];
    }
    return out;
}

static void tensors_free(EvalTensor *t, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) free(t[i].at);
}

/* Runs a kernel's body on input, by argument; has_output: against what the command wrote. */
static Status run_kernel(Audit *a, const Fused *k, uint32_t first_arg, char *const *input,
                         bool has_output, const BodyVisitor *visitor)
{
    Arena scratch = {0};
    const Func *body = k->op->body;
    const Op *ret = op_cget(body, body->last);
    uint32_t n_in = body->params.n, n_out = has_output ? k->op->n_out : 0;
    EvalTensor *in = ARENA_ARRAY(&scratch, EvalTensor, n_in + 1),
               *out = ARENA_ARRAY(&scratch, EvalTensor, n_out + 1);
    for (uint32_t i = 0; i < k->n_in; i++)
        in[i] = tensor_from(value_type(body, body->params.at[i]), input[i]);
    for (uint32_t i = 0; i < n_out; i++) {
        uint32_t arg = first_arg + k->n_in + i;
        exec_fetch(a->x, a->x->arg_at[arg], a->x->p->args[arg].bytes);
        out[i] = tensor_from(value_type(body, ret->in[i]), a->x->arg_at[arg]);
    }
    Status s = body_run(&a->eval, body, in, has_output ? out : NULL, visitor);
    tensors_free(in, n_in);
    tensors_free(out, n_out);
    arena_free(&scratch);
    return s;
}

/* ---- --audit-numerics ---- */

static RtStatus before(void *self, const Exec *x, const ZmpFunc *f, uint32_t command, RtError *e)
{
    (void)f;
    Audit *a = self;
    if (x->p->commands[command].kind != ZMP_KERNEL) return RT_OK;
    return kernel_inputs_take(&a->inputs, x, command, e);
}

static bool measure(void *self, const BodyResult *r)
{
    table_add(self, r);
    return true;
}

static RtStatus after(void *self, const Exec *x, const ZmpFunc *f, uint32_t command, RtError *e)
{
    Audit *a = self;
    const ZmpCommand *c = &x->p->commands[command];
    if (c->kind != ZMP_KERNEL) return RT_OK;
    BodyVisitor visitor = {&a->table, measure};
    Fused k = fused_of(a, f, command);
    if (run_kernel(a, &k, c->first_arg, a->inputs.at, true, &visitor) == ZM_OK) return RT_OK;
    return RT_FAIL(e, RT_FAILED, "--audit-numerics: %s cannot be computed again (%s)",
                   program_str(x->p, c->label), program_str(x->p, c->loc));
}

static Observer audit_observer(Audit *a)
{
    return (Observer){.self = a, .before = before, .after = after};
}

static void audit_add_table(const Audit *a, Str *out)
{
    Arena scratch = {0};
    table_print(&a->table, &scratch, out);
    arena_free(&scratch);
}

/* ---- the first number that is not finite ---- */

typedef struct Search {
    const Module *m;
    Str *out;
    bool is_found;
} Search;

static bool look(void *self, const BodyResult *r)
{
    Search *s = self;
    if (dtype_class(r->type->dtype) != DTC_FLOAT || r->op->code == OP_CONST) return true;
    for (int64_t i = 0; i < type_elems(r->type); i++) {
        if (isfinite(r->machine[i])) continue;
        SrcPos pos = loc_pos(s->m, r->op->loc);
        if (pos.line && pos.source < s->m->sources->all.n)
            str_addf(s->out, "%s:%u:%u: ", s->m->sources->all.at[pos.source].name, pos.line,
                     pos.col);
        str_addf(s->out, "element %" PRId64 " of the result of %s, %s, is %g", i,
                 op_info(r->op->code)->name, dtype_name(r->type->dtype), r->machine[i]);
        s->is_found = true;
        return false;
    }
    return true;
}

static bool audit_locate(Audit *a, const ZmpFunc *f, uint32_t command, char *const *input, Str *out)
{
    const ZmpCommand *c = &a->x->p->commands[command];
    if (c->kind != ZMP_KERNEL) return false;
    Search s = {.m = a->m, .out = out};
    BodyVisitor visitor = {&s, look};
    Fused k = fused_of(a, f, command);
    run_kernel(a, &k, c->first_arg, input, false, &visitor);
    return s.is_found;
}

const AuditHooks zm_audit = {audit_open, audit_close, audit_observer, audit_add_table,
                             audit_locate};
