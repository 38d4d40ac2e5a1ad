/* expr.c -- scalar nodes of the kernel form as CUDA C expressions.
 *
 * 16-bit floats are computed in f32 and rounded to their type after each op, as the interpreter
 * rounds each result. */
#include "codegen/cuda/print.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* $0 $1 $2: operands.  $f: "f" when the op computes in f32, "" in f64.  The back ends' entry for
 * LOWER(""), the primitives. */
static const char *const op_text[N_OP] = {
    [OP_ABS] = "zm_abs($0)",
    [OP_ADD] = "$0 + $1",
    [OP_AND] = "$0 & $1",
    [OP_COS] = "cos$f($0)",
    [OP_DIV] = "$0 / $1",
    [OP_EQ] = "$0 == $1",
    [OP_ERF] = "erf$f($0)",
    [OP_EXP] = "exp$f($0)",
    [OP_FLOOR] = "floor$f($0)",
    [OP_GE] = "$0 >= $1",
    [OP_GT] = "$0 > $1",
    [OP_IS_FINITE] = "zm_is_finite($0)",
    [OP_LE] = "$0 <= $1",
    [OP_LOG] = "log$f($0)",
    [OP_LT] = "$0 < $1",
    [OP_MAX] = "zm_max($0, $1)",
    [OP_MIN] = "zm_min($0, $1)",
    [OP_MUL] = "$0 * $1",
    [OP_NE] = "$0 != $1",
    [OP_NEG] = "-$0",
    [OP_NOT] = "!$0",
    [OP_OR] = "$0 | $1",
    [OP_ROUND_BF16] = "zm_round_bf16($0, $1)",
    [OP_SELECT] = "$0 ? $1 : $2",
    [OP_SIN] = "sin$f($0)",
    [OP_SQRT] = "sqrt$f($0)",
    [OP_SUB] = "$0 - $1",
    [OP_TANH] = "tanh$f($0)",
};

const char *memory_type(DType dt)
{
    switch (dt) {
    case DT_I1: return "unsigned char";
    case DT_I32: return "int";
    case DT_BF16: return "zm_bf16";
    case DT_F16: return "zm_f16";
    case DT_F32: return "float";
    case DT_F64: return "double";
    case DT_NONE:
    case N_DTYPE: break;
    }
    ZM_UNREACHABLE("dtype of a kernel argument");
}

const char *register_type(DType dt)
{
    return dt == DT_BF16 || dt == DT_F16 ? "float" : memory_type(dt);
}

static const char *round_function(DType dt)
{
    return dt == DT_BF16 ? "zm_round_bf16" : dt == DT_F16 ? "zm_round_f16" : NULL;
}

/* The fewest digits that read back as v. */
static void print_f32(Str *out, float v)
{
    char text[40];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)v);
        if (strtof(text, NULL) == v) break;
    }
    str_addf(out, strpbrk(text, ".e") ? "%sf" : "%s.0f", text);
}

void print_const(Str *out, DType dt, double v)
{
    v = dtype_round(dt, v);
    if (dt == DT_I1) {
        str_addf(out, "(unsigned char)%d", v != 0);
    } else if (dt == DT_I32) {
        /* -2147483648 in C is minus a number that does not fit. */
        if (v <= INT32_MIN)
            str_add(out, "(-2147483647 - 1)");
        else
            str_addf(out, v < 0 ? "(%d)" : "%d", (int)v);
    } else if (!isfinite(v)) {
        const char *name = isnan(v) ? "ZM_NAN" : v > 0 ? "ZM_INF" : "(-ZM_INF)";
        str_addf(out, dt == DT_F64 ? "(double)%s" : "%s", name);
    } else {
        if (signbit(v)) str_add(out, "(");
        if (dt == DT_F64)
            str_add_f64(out, v);
        else
            print_f32(out, (float)v);
        if (signbit(v)) str_add(out, ")");
    }
}

void print_use(Printer *p, int32_t node)
{
    const Node *n = &p->k->nodes[node];
    if (n->kind == KN_CONST)
        print_const(p->out, n->dtype, n->imm);
    else
        str_addf(p->out, "v%d", node);
}

/* base + sum stride * index; no dynamic part. */
static void print_affine(Printer *p, int64_t base, const int64_t *stride)
{
    const char *plus = "";
    for (uint32_t d = 0; d < p->k->n_loops; d++) {
        if (stride[d] == 0) continue;
        str_addf(p->out, "%s%c%u", plus, p->is_pack && (int)d == p->wide_loop ? 'p' : 'i', d);
        if (stride[d] != 1)
            str_addf(p->out, stride[d] < 0 ? " * (%lld)" : " * %lld", (long long)stride[d]);
        plus = " + ";
    }
    if (base < 0 && *plus)
        str_addf(p->out, " - %lld", -(long long)base);
    else if (base != 0 || !*plus)
        str_addf(p->out, "%s%lld", plus, (long long)base);
}

void print_offset(Printer *p, const Access *at)
{
    print_affine(p, at->base, at->stride);
    if (at->dyn < 0 || at->dyn_stride == 0) return;
    str_add(p->out, p->s.is_64bit ? " + (long long)" : " + ");
    print_use(p, at->dyn);
    str_addf(p->out, " * %lld", (long long)at->dyn_stride);
}

/* Comparisons that always hold are left out.  Returns false when nothing is left. */
static bool print_guard(Printer *p, const Guard *g, const char *joint)
{
    int64_t low = g->base, high = g->base;
    for (uint32_t d = 0; d < p->k->n_loops; d++) {
        int64_t reach = g->stride[d] * (p->k->loops[d].extent - 1);
        if (reach < 0)
            low += reach;
        else
            high += reach;
    }
    bool is_printed = false;
    if (low < g->lo) {
        str_addf(p->out, "%s", joint);
        print_affine(p, g->base, g->stride);
        str_addf(p->out, " >= %lld", (long long)g->lo);
        is_printed = true;
    }
    if (high >= g->hi) {
        str_add(p->out, is_printed ? " && " : joint);
        print_affine(p, g->base, g->stride);
        str_addf(p->out, " < %lld", (long long)g->hi);
        is_printed = true;
    }
    return is_printed;
}

bool print_guards(Printer *p, const Access *at)
{
    const char *joint = "";
    for (uint32_t i = 0; i < at->n_guards; i++)
        if (print_guard(p, &at->guards[i], joint)) joint = " && ";
    if (*joint) str_add(p->out, " ? ");
    return *joint != 0;
}

static void print_load(Printer *p, const Access *at)
{
    DType dt = p->k->args[at->arg].dtype;
    bool is_guarded = print_guards(p, at);
    bool is_16bit = round_function(dt) != NULL;
    str_addf(p->out, is_16bit ? "zm_to_float(a%d[" : "a%d[", at->arg);
    print_offset(p, at);
    str_add(p->out, is_16bit ? "])" : "]");
    if (!is_guarded) return;
    str_add(p->out, " : ");
    print_const(p->out, dt, 0);
}

static void print_cast(Printer *p, const Node *n)
{
    DType from = p->k->nodes[n->arg[0]].dtype;
    const char *round = round_function(n->dtype);
    const char *open = "", *close = "";
    if (round) {
        /* f32 and 16-bit values are rounded once; i32 and f64 do not fit f32 and go by way of
         * rounding to odd. */
        bool is_wide = from == DT_F64 || from == DT_I32;
        str_add(p->out, round);
        open = is_wide ? "(zm_odd(" : "(";
        close = is_wide ? "))" : ")";
    } else if (n->dtype == DT_I1) {
        close = " != 0";
    } else {
        str_addf(p->out, "(%s)", register_type(n->dtype));
    }
    str_add(p->out, open);
    print_use(p, n->arg[0]);
    str_add(p->out, close);
}

static void print_op(Printer *p, const Node *n)
{
    if (n->op == OP_CAST) {
        print_cast(p, n);
        return;
    }
    const char *text = op_text[n->op];
    ZM_CHECK(text != NULL);
    const char *round = round_function(n->dtype);
    if (round) str_addf(p->out, "%s(", round);
    for (const char *c = text; *c; c++) {
        if (*c != '$') {
            str_add_n(p->out, c, 1);
            continue;
        }
        c++;
        if (*c == 'f')
            str_add(p->out, n->dtype == DT_F64 ? "" : "f");
        else
            print_use(p, n->arg[*c - '0']);
    }
    if (round) str_add(p->out, ")");
}

static void print_random_call(Printer *p, const Node *n)
{
    const int32_t *a = n->arg;
    str_add(p->out, "zm_random(");
    for (int i = 0; i < 3; i++) {
        print_use(p, a[i]);
        str_add(p->out, ", ");
    }
    print_use(p, a[3]);
    str_add(p->out, " + ");
    print_use(p, a[5]);
    str_add(p->out, ", ");
    print_use(p, a[4]);
    str_add(p->out, ", (unsigned int)");
    print_use(p, a[6]);
    str_add(p->out, ", (unsigned int)");
    print_use(p, a[7]);
    str_add(p->out, ")");
}

void print_node_expr(Printer *p, uint32_t node)
{
    const Node *n = &p->k->nodes[node];
    switch (n->kind) {
    case KN_OP: print_op(p, n); return;
    case KN_CONST: print_const(p->out, n->dtype, n->imm); return;
    case KN_LOAD: print_load(p, &p->k->accesses[n->index]); return;
    case KN_INDEX: {
        const Access *at = &p->k->accesses[n->index];
        if (p->s.is_64bit) str_add(p->out, "(int)(");
        print_affine(p, at->base, at->stride);
        if (p->s.is_64bit) str_add(p->out, ")");
        return;
    }
    case KN_RANDOM: print_random_call(p, n); return;
    case KN_REDUCE:
    case KN_ACC: break;
    }
    ZM_UNREACHABLE("node without an expression");
}

void print_store_value(Printer *p, const Store *store)
{
    DType dt = p->k->args[store->to.arg].dtype;
    bool is_16bit = round_function(dt) != NULL;
    bool is_rounded = store->mode == ST_SET && p->k->nodes[store->node].dtype == dt;
    const char *how = dt == DT_F16 ? "zm_to_f16(" : is_rounded ? "zm_keep_bf16(" : "zm_to_bf16(";
    if (is_16bit) str_add(p->out, how);
    if (is_16bit && store->mode == ST_ADD) {
        str_addf(p->out, "zm_to_float(a%d[", store->to.arg);
        print_offset(p, &store->to);
        str_add(p->out, "]) + ");
    }
    print_use(p, store->node);
    if (is_16bit) str_add(p->out, ")");
}
