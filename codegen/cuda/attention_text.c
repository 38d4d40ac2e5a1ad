/* attention_text.c -- what the printers of attention share: heads, operands, who sees whom,
 * dropout. */
#include "codegen/cuda/attention.h"

Attention attention_of(Printer *p)
{
    const AttnSpec *s = &p->k->attn;
    Attention x = {.p = p,
                   .s = s,
                   .queries = {"t", "t0", (long long)s->T},
                   .keys = {"s", "s0", (long long)s->S},
                   .dt = s->q.dtype == DT_F64 ? DT_F64 : DT_F32};
    x.real = memory_type(x.dt);
    x.f = x.dt == DT_F64 ? "" : "f";
    return x;
}

/* ---- lines ---- */

void print_noted(Attention *x, const char *what, const char *text)
{
    print_indent(x->p);
    str_add(x->p->out, text);
    print_end(x->p, what, x->p->k->loc);
}

void print_number(Attention *x, double v)
{
    print_const(x->p->out, x->dt, v);
}

void print_term(Attention *x, const char *plus, const char *index, int64_t stride)
{
    if (stride == 0) return;
    str_addf(x->p->out, "%s%s", plus, index);
    if (stride != 1) str_addf(x->p->out, stride < 0 ? " * (%lld)" : " * %lld", (long long)stride);
}

void print_shift(Attention *x, long long n)
{
    if (n != 0) str_addf(x->p->out, n < 0 ? " - %lld" : " + %lld", n < 0 ? -n : n);
}

/* name[row * stride + column * stride] as it lies in memory. */
void print_place(Attention *x, const char *name, const AttnOperand *o, const char *row,
                 const char *column)
{
    str_addf(x->p->out, "%s[", name);
    print_term(x, "", row, o->stride[2]);
    print_term(x, o->stride[2] ? " + " : "", column, column ? o->stride[3] : 0);
    bool is_zero = o->stride[2] == 0 && (!column || o->stride[3] == 0);
    str_add(x->p->out, is_zero ? "0]" : "]");
}

bool is_16bit(DType dt)
{
    return dt == DT_BF16 || dt == DT_F16;
}

void print_load(Attention *x, const char *name, const AttnOperand *o, const char *row,
                const char *column)
{
    if (is_16bit(o->dtype)) str_add(x->p->out, "zm_to_float(");
    print_place(x, name, o, row, column);
    if (is_16bit(o->dtype)) str_add(x->p->out, ")");
}

void print_result(Attention *x, const char *name, const AttnOperand *o, const char *row,
                  const char *column, const char *value)
{
    const char *open = o->dtype == DT_BF16  ? "zm_to_bf16("
                       : o->dtype == DT_F16 ? "zm_to_f16("
                       : o->dtype == DT_F32 ? "(float)("
                                            : "";
    if (o->dtype == x->dt) open = "";
    bool is_odd = is_16bit(o->dtype) && x->dt == DT_F64; /* rounds once */
    print_indent(x->p);
    print_place(x, name, o, row, column);
    str_addf(x->p->out, " = %s%s%s%s%s;", open, is_odd ? "zm_odd(" : "", value, is_odd ? ")" : "",
             *open ? ")" : "");
    print_end(x->p, "store", x->p->k->loc);
}

/* ---- heads ---- */

static void print_pointer(Attention *x, const char *name, const AttnOperand *o)
{
    const AttnSpec *s = x->s;
    bool is_other_part = x->owns_keys ? o == &s->dq : o == &s->dk || o == &s->dv;
    if (o->arg < 0 || o == &s->key || o == &s->stream || is_other_part) return;
    const KernelArg *arg = &x->p->k->args[o->arg];
    print_indent(x->p);
    str_addf(x->p->out, "%s%s *%s = a%d", arg->is_out ? "" : "const ", memory_type(arg->dtype),
             name, o->arg);
    print_shift(x, (long long)o->base);
    if (x->s->B > 1) print_term(x, " + ", "b", o->stride[0]);
    if (x->s->H > 1) print_term(x, " + ", "h", o->stride[1]);
    str_add(x->p->out, ";\n");
}

/* Which sample and head `head` = b * H + h is, and where its operands begin. */
void print_operands(Attention *x)
{
    const AttnSpec *s = x->s;
    const char *type = x->p->index_type;
    if (s->B > 1 && s->H > 1)
        print_line(x->p, "const %s h = head %% %lld, b = head / %lld;", type, (long long)s->H,
                   (long long)s->H);
    else if (s->B > 1 || s->H > 1)
        print_line(x->p, "const %s %s = head;", type, s->H > 1 ? "h" : "b");
#define POINTER(NAME) print_pointer(x, #NAME, &s->NAME);
    ATTN_OPERANDS(POINTER)
#undef POINTER
}

void print_words(Attention *x)
{
    const AttnSpec *s = x->s;
    if (s->p <= 0) return;
    print_indent(x->p);
    str_add(x->p->out, "const unsigned int ");
    for (int i = 0; i < 4; i++)
        str_addf(x->p->out, "key%d = a%d[%lld], ", i, s->key.arg, (long long)s->key.base + i);
    for (int i = 0; i < 2; i++)
        str_addf(x->p->out, "stream%d = a%d[%lld]%s", i, s->stream.arg,
                 (long long)s->stream.base + i, i ? ";" : ", ");
    str_add(x->p->out, "\n");
}

/* ---- pairs of a query and a key ---- */

void print_sees(Attention *x, bool looks_at_t, bool looks_at_s)
{
    const AttnSpec *s = x->s;
    Str *out = x->p->out;
    const char *joint = "";
    print_indent(x->p);
    str_add(out, "const bool sees = ");
    if (looks_at_t) str_addf(out, "t < %lld", x->queries.n), joint = " && ";
    if (looks_at_s) str_addf(out, "%ss < %lld", joint, x->keys.n), joint = " && ";
    if (s->is_causal) {
        str_addf(out, "%ss <= t", joint), joint = " && ";
        print_shift(x, x->keys.n - x->queries.n);
    }
    if (s->mask.arg >= 0) {
        str_add(out, joint), joint = " && ";
        print_load(x, "mask", &s->mask, "t", "s");
        str_add(out, " != 0");
    }
    str_add(out, *joint ? ";" : "true;");
    print_end(x->p, "who attends to whom", x->p->k->loc);
}

void print_element(Attention *x)
{
    const char *head = x->s->H > 1 ? "(unsigned int)h" : "0u";
    print_line(x->p, "const unsigned int element = (%s * %lldu + t) * %lldu + s;", head,
               x->queries.n, x->keys.n);
}

void print_keeps(Attention *x)
{
    str_addf(x->p->out, "zm_random(key0, key1, key2, key3%s, element, stream0, stream1) >= ",
             x->s->B > 1 ? " + b" : "");
    print_const(x->p->out, DT_F32, x->s->p);
}
