/* value.c -- see value.h. */
#include "frontend/value.h"

const char *val_text(Arena *a, const Func *f, Val v)
{
    switch (v.kind) {
    case VAL_INT: return arena_printf(a, "%lld", (long long)v.as.i);
    case VAL_REAL: return arena_printf(a, "%.12g", v.as.real);
    case VAL_BOOL: return v.as.i ? "true" : "false";
    case VAL_STRING: return arena_printf(a, "\"%s\"", v.as.text);
    case VAL_TENSOR: return type_text(a, value_type(f, v.tensor));
    case VAL_TUPLE: return arena_printf(a, "%u values", v.n);
    case VAL_NONE:
    case VAL_ERROR:
    case VAL_REST:
    case N_VAL_KIND: break;
    }
    return val_kind_text(v);
}

static const char *const kind_texts[] = {
    [VAL_NONE] = "nothing",    [VAL_ERROR] = "an error",       [VAL_INT] = "an integer",
    [VAL_REAL] = "a number",   [VAL_BOOL] = "a bool",          [VAL_STRING] = "a string",
    [VAL_TENSOR] = "a tensor", [VAL_TUPLE] = "several values", [VAL_REST] = "'...'",
};
_Static_assert(sizeof kind_texts / sizeof *kind_texts == N_VAL_KIND, "one text per kind");

const char *val_kind_text(Val v)
{
    return kind_texts[v.kind];
}
