/* elab_number.c -- arithmetic on compile-time numbers: 64-bit integers that never wrap, doubles
 * that stay finite. */
#include "frontend/elab.h"

#include <math.h>
#include <string.h>

static Val number_overflow(Elab *e, SrcPos pos, const char *opr, Val a, Val b)
{
    return elab_error(e, pos, E_NUMBER, "%s %s %s overflows 64 bits", elab_text(e, a), opr,
                      elab_text(e, b));
}

static Val number_finite(Elab *e, SrcPos pos, double v, const char *what)
{
    if (isfinite(v)) return val_real(v);
    return elab_error(e, pos, E_NUMBER, "%s is not a finite number", what);
}

static Val int_pow(Elab *e, SrcPos pos, Val a, Val b)
{
    int64_t r = 1;
    if (b.as.i < 0) {
        if (a.as.i == 0)
            return elab_error(e, pos, E_NUMBER, "0 ** %lld divides by zero", (long long)b.as.i);
        return val_real(pow((double)a.as.i, (double)b.as.i));
    }
    if (a.as.i == 0 || a.as.i == 1) return val_int(b.as.i == 0 ? 1 : a.as.i);
    if (a.as.i == -1) return val_int(b.as.i % 2 ? -1 : 1);
    for (int64_t i = 0; i < b.as.i; i++) /* at most 63 rounds: |a| >= 2 */
        if (__builtin_mul_overflow(r, a.as.i, &r)) return number_overflow(e, pos, "**", a, b);
    return val_int(r);
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

static Val int_divide(Elab *e, SrcPos pos, Operator opr, Val a, Val b)
{
    if (b.as.i == 0)
        return elab_error(e, pos, E_NUMBER, "%lld %s 0 divides by zero", (long long)a.as.i,
                          operator_text(opr));
    if (b.as.i == -1) { /* INT64_MIN / -1 traps */
        if (opr == OPR_MOD) return val_int(0);
        return a.as.i == INT64_MIN ? number_overflow(e, pos, operator_text(opr), a, b)
                                   : val_int(-a.as.i);
    }
    if (opr == OPR_FLOORDIV) return val_int(floor_div(a.as.i, b.as.i));
    if (opr == OPR_MOD) return val_int(a.as.i - floor_div(a.as.i, b.as.i) * b.as.i);
    return a.as.i % b.as.i ? val_real((double)a.as.i / (double)b.as.i) : val_int(a.as.i / b.as.i);
}

static Val int_binary(Elab *e, SrcPos pos, Operator opr, Val a, Val b)
{
    int64_t r = 0;
    bool overflows = false;
    if (opr == OPR_POW) return int_pow(e, pos, a, b);
    if (opr == OPR_DIV || opr == OPR_FLOORDIV || opr == OPR_MOD)
        return int_divide(e, pos, opr, a, b);
    if (opr == OPR_ADD) overflows = __builtin_add_overflow(a.as.i, b.as.i, &r);
    if (opr == OPR_SUB) overflows = __builtin_sub_overflow(a.as.i, b.as.i, &r);
    if (opr == OPR_MUL) overflows = __builtin_mul_overflow(a.as.i, b.as.i, &r);
    return overflows ? number_overflow(e, pos, operator_text(opr), a, b) : val_int(r);
}

static Val real_binary(Elab *e, SrcPos pos, Operator opr, double a, double b)
{
    double r = 0;
    if (b == 0 && (opr == OPR_DIV || opr == OPR_FLOORDIV || opr == OPR_MOD))
        return elab_error(e, pos, E_NUMBER, "%.12g %s 0 divides by zero", a, operator_text(opr));
    if (opr == OPR_ADD) r = a + b;
    if (opr == OPR_SUB) r = a - b;
    if (opr == OPR_MUL) r = a * b;
    if (opr == OPR_DIV) r = a / b;
    if (opr == OPR_FLOORDIV) r = floor(a / b);
    if (opr == OPR_MOD) r = a - floor(a / b) * b;
    if (opr == OPR_POW) r = pow(a, b);
    const char *what = arena_printf(e->arena, "%.12g %s %.12g", a, operator_text(opr), b);
    return number_finite(e, pos, r, what);
}

static int compare(Val a, Val b) /* -1, 0, 1 */
{
    if (a.kind != VAL_REAL && b.kind != VAL_REAL) return (a.as.i > b.as.i) - (a.as.i < b.as.i);
    double x = val_real_of(a), y = val_real_of(b);
    return (x > y) - (x < y);
}

static bool is_comparison(Operator opr)
{
    return opr == OPR_LT || opr == OPR_LE || opr == OPR_GT || opr == OPR_GE || opr == OPR_EQ ||
           opr == OPR_NE;
}

static bool compare_holds(Operator opr, int c)
{
    return (opr == OPR_LT && c < 0) || (opr == OPR_LE && c <= 0) || (opr == OPR_GT && c > 0) ||
           (opr == OPR_GE && c >= 0) || (opr == OPR_EQ && c == 0) || (opr == OPR_NE && c != 0);
}

static Val number_kinds(Elab *e, SrcPos pos, Operator opr, Val a, Val b)
{
    return elab_error(e, pos, E_TYPE, "'%s' does not take %s and %s", operator_text(opr),
                      val_kind_text(a), val_kind_text(b));
}

Val number_binary(Elab *e, SrcPos pos, Operator opr, Val a, Val b)
{
    if (opr == OPR_AND || opr == OPR_OR) {
        if (a.kind != VAL_BOOL || b.kind != VAL_BOOL) return number_kinds(e, pos, opr, a, b);
        return val_bool(opr == OPR_AND ? a.as.i && b.as.i : a.as.i || b.as.i);
    }
    bool are_bools = a.kind == VAL_BOOL && b.kind == VAL_BOOL && (opr == OPR_EQ || opr == OPR_NE);
    if (!are_bools && (!val_is_number(a) || !val_is_number(b) || opr == OPR_MATMUL))
        return number_kinds(e, pos, opr, a, b);
    if (is_comparison(opr)) return val_bool(compare_holds(opr, compare(a, b)));
    if (a.kind == VAL_INT && b.kind == VAL_INT) return int_binary(e, pos, opr, a, b);
    return real_binary(e, pos, opr, val_real_of(a), val_real_of(b));
}

Val number_unary(Elab *e, SrcPos pos, Operator opr, Val a)
{
    if (opr == OPR_NOT && a.kind == VAL_BOOL) return val_bool(!a.as.i);
    if (opr == OPR_NEG && a.kind == VAL_REAL) return val_real(-a.as.real);
    if (opr == OPR_NEG && a.kind == VAL_INT) {
        if (a.as.i == INT64_MIN) return number_overflow(e, pos, "-", val_int(0), a);
        return val_int(-a.as.i);
    }
    return elab_error(e, pos, E_TYPE, "'%s' does not take %s", operator_text(opr),
                      val_kind_text(a));
}

/* ---- functions ---- */

typedef struct NumberFn {
    const char *name;
    double (*one)(double);
    double (*two)(double, double);
} NumberFn;

static const NumberFn number_fns[] = {
    {"abs", fabs, NULL}, {"cos", cos, NULL},   {"exp", exp, NULL},   {"floor", floor, NULL},
    {"log", log, NULL},  {"max", NULL, fmax},  {"min", NULL, fmin},  {"pow", NULL, pow},
    {"sin", sin, NULL},  {"sqrt", sqrt, NULL}, {"tanh", tanh, NULL},
};

/* abs, floor, min, max and integral results of pow of integers stay integers. */
static Val number_integral(const char *name, const Val *a, double r)
{
    if (strcmp(name, "floor") == 0 && fabs(r) < 0x1p62) return val_int((int64_t)r);
    if (strcmp(name, "max") == 0) return compare(a[0], a[1]) >= 0 ? a[0] : a[1];
    if (strcmp(name, "min") == 0) return compare(a[0], a[1]) <= 0 ? a[0] : a[1];
    if (strcmp(name, "abs") == 0 && a[0].kind == VAL_INT && a[0].as.i != INT64_MIN)
        return val_int(a[0].as.i < 0 ? -a[0].as.i : a[0].as.i);
    return val_real(r);
}

bool number_call(Elab *e, SrcPos pos, const char *name, const Val *args, uint32_t n, Val *out)
{
    for (size_t i = 0; i < sizeof number_fns / sizeof *number_fns; i++) {
        const NumberFn *fn = &number_fns[i];
        if (strcmp(fn->name, name) != 0 || n != (fn->one ? 1u : 2u)) continue;
        for (uint32_t k = 0; k < n; k++)
            if (!val_is_number(args[k])) return false;
        double a = val_real_of(args[0]);
        double r = fn->one ? fn->one(a) : fn->two(a, val_real_of(args[1]));
        const char *what = arena_printf(e->arena, "%s(%.12g%s)", name, a, n > 1 ? ", ..." : "");
        *out = number_finite(e, pos, r, what);
        if (out->kind != VAL_ERROR) *out = number_integral(name, args, r);
        return true;
    }
    return false;
}
