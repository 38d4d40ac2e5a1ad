/* ops_md.c -- see ops_md.h. */
#include "tools/zm-opt/ops_md.h"

static const char *const amp_names[] = {"low", "f32", "promote", "follow"};
static const char *const lower_names[] = {"point",     "expand",  "nest", "contract",
                                          "attention", "scatter", "view", "host"};

static const struct {
    uint32_t bit;
    const char *name;
} traits[] = {{TR_PURE, "pure"},
              {TR_POINTWISE, "element-wise"},
              {TR_VIEW, "view"},
              {TR_REDUCE, "reduction"},
              {TR_COMMUTES, "commutes"},
              {TR_PRIMITIVE, "primitive"},
              {TR_TERMINATOR, "terminator"}};

static void print_code(Str *out, const char *text)
{
    str_addf(out, "`%s`", text);
}

static void print_traits(Str *out, const OpInfo *op)
{
    uint32_t n = 0;
    for (size_t i = 0; i < sizeof traits / sizeof *traits; i++)
        if (op->traits & traits[i].bit) str_addf(out, "%s%s", n++ ? ", " : "", traits[i].name);
    if (!n) str_add(out, "none");
}

static void print_signature(Str *out, const OpInfo *op)
{
    if (op->max_in < 0)
        str_addf(out, "%d or more operands", op->min_in);
    else if (op->min_in != op->max_in)
        str_addf(out, "%d to %d operands", op->min_in, op->max_in);
    else
        str_addf(out, "%d operand%s", op->min_in, op->min_in == 1 ? "" : "s");
    if (op->n_out < 0)
        str_add(out, ", any number of results");
    else
        str_addf(out, ", %d result%s", op->n_out, op->n_out == 1 ? "" : "s");
}

static void print_attrs(Str *out, const OpInfo *op)
{
    static const char *const kinds[] = {"integer", "number",       "true or false",
                                        "string",  "integer list", "element type"};
    uint32_t n = 0;
    for (int k = 0; k < N_ATTR; k++) {
        if (!(op->attrs >> k & 1)) continue;
        str_add(out, n++ ? ", " : "- attributes: ");
        print_code(out, attr_name((AttrKey)k));
        str_addf(out, " (%s)", kinds[attr_kind((AttrKey)k)]);
    }
    if (n) str_add(out, "\n");
}

static void print_op(Str *out, const OpInfo *op)
{
    str_addf(out, "### %s\n\n%s.\n\n- ", op->name, op->doc);
    print_signature(out, op);
    str_add(out, "; ");
    print_traits(out, op);
    str_add(out, "\n");
    print_attrs(out, op);
    str_addf(out, "- precision class %s; kernel form %s; sharding `%s`\n", amp_names[op->amp],
             lower_names[op->lower_kind], op->factors);
    if (op->lower && *op->lower) {
        str_add(out, "- written as ");
        print_code(out, op->lower);
        str_add(out, "\n");
    }
    if (op->grad) {
        str_add(out, "- gradient ");
        print_code(out, op->grad);
        str_add(out, "\n");
    }
    str_add(out, "\n");
}

static void print_group(Str *out, const char *title, const char *text, bool is_point)
{
    str_addf(out, "## %s\n\n%s\n\n", title, text);
    for (int code = OP_NONE + 1; code < N_OP; code++) {
        const OpInfo *op = op_info((OpCode)code);
        if ((op->grad != NULL) == is_point) print_op(out, op);
    }
}

void ops_md_print(Str *out)
{
    str_add(out, "# Ops\n\n"
                 "Generated from `ir/ops.def` by `zm-opt --print-ops-md`; a test compares this copy"
                 " with the table. How to\nread textual IR: [ir.md](ir.md). How to add an op:"
                 " [adding.md](adding.md).\n\n"
                 "Element types are i1, i32, bf16, f16, f32 and f64. An op computes at least in"
                 " f32 and rounds its results once.\nA primitive op is known to the kernel form;"
                 " every other one is rewritten to primitives by pass `expand`.\nKernel forms and"
                 " precision classes: `ir/ir.h`. Sharding factors: [ir.md](ir.md).\n\n");
    print_group(out, "Element-wise ops",
                "Operands and result have one shape. `a`, `b`, `c` are the operands, `y` the"
                " result, `g` the gradient of the\nloss with respect to the result; one gradient"
                " expression per operand.",
                true);
    print_group(out, "Other ops", "`cast` is element-wise too, with a dtype of its own.", false);
}
