/* update_ops.c -- see update_ops.h. */
#include "passes/update_ops.h"

#include <string.h>

/* The function's input rng, made if nobody has drawn from it yet. */
static ValueId rng_input(Func *f)
{
    for (uint32_t i = 0; i < f->params.n; i++) {
        const char *name = value_cget(f, f->params.at[i])->name;
        if (name && strcmp(name, "rng") == 0) return f->params.at[i];
    }
    return func_param(f, "rng", type_get(f->m, DT_I32, 1, &(int64_t){4}));
}

/* Seed and step of rng, and `first` as the number of the first sample. */
static ValueId rounding_key(Builder *b, int64_t first)
{
    int64_t zero = 0, three = 3, one = 1;
    ValueId step = build_slice(b, rng_input(b->f), &zero, &three);
    ValueId in[] = {
        step, build_splat(b, (double)(int32_t)(uint32_t)first, type_get(b->f->m, DT_I32, 1, &one))};
    AttrList l = {0};
    attr_add_int(&l, AT_AXIS, 0);
    return build1(b, OP_CONCAT, in, 2, &l);
}

ValueId build_rounding(Builder *b, ValueId x, const char *stream, int64_t first)
{
    const Type *t = value_type(b->f, x);
    int64_t n = type_elems(t);
    ValueId key = rounding_key(b, first);
    AttrList l = {0};
    attr_add_list(&l, AT_SHAPE, &n, 1);
    attr_add_str(&l, AT_STREAM, stream);
    attr_add_int(&l, AT_BATCH, n); /* each element is a sample of its own: it has a number */
    ValueId u = build_reshape(b, build1(b, OP_RANDOM, &key, 1, &l), t->rank, t->dim);
    return build_binary(b, OP_ROUND_BF16, x, u);
}
