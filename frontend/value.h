/* value.h -- what an expression means while a model is elaborated: a compile-time number, bool or
 * string, a tensor of the function under construction, or several values. */
#ifndef ZM_FRONTEND_VALUE_H
#define ZM_FRONTEND_VALUE_H

#include "ir/ir.h"

typedef enum {
    VAL_NONE,  /* an argument that was not given */
    VAL_ERROR, /* already reported: everything that depends on it stays silent */
    VAL_INT,
    VAL_REAL,
    VAL_BOOL,
    VAL_STRING,
    VAL_TENSOR,
    VAL_TUPLE,
    VAL_REST, /* '...' in a shape */
    N_VAL_KIND
} ValKind;

typedef struct Val Val;
struct Val {
    ValKind kind;
    uint32_t n;     /* TUPLE */
    ValueId tensor; /* TENSOR */
    ValueId weight; /* TENSOR of loss items: 1 where the item counts, 0 where ignored; none: all
                       count */
    union {
        int64_t i; /* INT, BOOL */
        double real;
        const char *text;
        Val *items; /* TUPLE */
    } as;
};

static inline Val val_none(void)
{
    return (Val){.kind = VAL_NONE};
}

static inline Val val_error(void)
{
    return (Val){.kind = VAL_ERROR};
}

static inline Val val_int(int64_t i)
{
    return (Val){.kind = VAL_INT, .as.i = i};
}

static inline Val val_real(double v)
{
    return (Val){.kind = VAL_REAL, .as.real = v};
}

static inline Val val_bool(bool b)
{
    return (Val){.kind = VAL_BOOL, .as.i = b};
}

static inline Val val_tensor(ValueId v)
{
    return (Val){.kind = VAL_TENSOR, .tensor = v};
}

static inline bool val_is_number(Val v)
{
    return v.kind == VAL_INT || v.kind == VAL_REAL;
}

static inline double val_real_of(Val v) /* of a number or bool */
{
    return v.kind == VAL_REAL ? v.as.real : (double)v.as.i;
}

/* "12", "0.1", "true", "f32[4,8]", "3 values": for messages. */
const char *val_text(Arena *a, const Func *f, Val v);
const char *val_kind_text(Val v); /* "an integer", "a tensor", ... */

#endif
