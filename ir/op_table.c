/* op_table.c -- the op table: ops.def expanded to OpInfo, and type inference through it. */
#include "ir/ir.h"

#include <string.h>

#include "ir/sharding.h"
#include "ir/type_rules.h"

#define A(KEY) (UINT64_C(1) << AT_##KEY)
#define SIG(MIN, MAX, N_OUT, TRAITS)                                                               \
    .min_in = MIN, .max_in = MAX, .n_out = N_OUT, .traits = (TRAITS)
#define ATTRS(MASK) .attrs = (MASK)
#define TYPE(RULE) .type_rule = type_##RULE
#define AMP(CLASS) .amp = AMP_##CLASS
#define COST(KIND, FLOPS) .cost_kind = COST_##KIND, .cost_flops = FLOPS
#define FACTORS(TEXT) .factors = TEXT
#define SAMPLE(DOMAIN, ULP) .sample = SD_##DOMAIN, .tol_ulp = ULP
#define DOC(TEXT) .doc = TEXT

static const OpInfo op_table[] = {
    [OP_NONE] = {.name = "none", .traits = 0, .doc = ""},
/* POINT: LOWER holds text; a primitive has none.  First the POINT entries, then the OP entries. */
#define LOWER(TEXT) TEXT
#define GRAD(TEXT) TEXT
#define EVAL(C) 0
#define OP(...)
#define POINT(ID, NAME, N_IN, TRAITS, TYPE_RULE, AMP_CLASS, GRAD_TEXT, FLOPS, LOWER_TEXT, EVAL_C,  \
              SAMPLE_D, DOC_TEXT)                                                                  \
    [OP_##ID] = {.name = NAME,                                                                     \
                 .min_in = N_IN,                                                                   \
                 .max_in = N_IN,                                                                   \
                 .n_out = 1,                                                                       \
                 .traits = TR_PURE | TR_POINTWISE | (TRAITS) |                                     \
                           (sizeof LOWER_TEXT == 1 ? TR_PRIMITIVE : 0),                            \
                 TYPE_RULE,                                                                        \
                 AMP_CLASS,                                                                        \
                 .cost_kind = COST_POINTWISE,                                                      \
                 .cost_flops = FLOPS,                                                              \
                 .factors = "same",                                                                \
                 .lower_kind = sizeof LOWER_TEXT == 1 ? LK_POINT : LK_EXPAND,                      \
                 .lower = LOWER_TEXT,                                                              \
                 .grad = GRAD_TEXT,                                                                \
                 SAMPLE_D,                                                                         \
                 .doc = DOC_TEXT},
#include "ir/ops.def"
#undef OP
#undef POINT
#undef LOWER
#undef GRAD
#define LOWER(KIND) .lower_kind = LK_##KIND
#define GRAD(RULE) .grad = NULL
#define POINT(...)
#define OP(ID, NAME, SIG_, ATTRS_, TYPE_, AMP_, GRAD_, COST_, FACTORS_, LOWER_, EVAL_, SAMPLE_,    \
           DOC_)                                                                                   \
    [OP_##ID] = {                                                                                  \
        .name = NAME, SIG_, ATTRS_, TYPE_, AMP_, GRAD_, COST_, FACTORS_, LOWER_, SAMPLE_, DOC_},
#include "ir/ops.def"
#undef OP
#undef POINT
};
_Static_assert(sizeof op_table / sizeof *op_table == N_OP, "one entry per op");

const OpInfo *op_info(OpCode code)
{
    ZM_CHECK(code < N_OP);
    return &op_table[code];
}

OpCode op_from_name(const char *name, size_t n)
{
    for (int code = OP_NONE + 1; code < N_OP; code++)
        if (strlen(op_table[code].name) == n && memcmp(op_table[code].name, name, n) == 0)
            return (OpCode)code;
    return OP_NONE;
}

bool op_takes_attr(OpCode code, AttrKey key)
{
    return key == AT_PRECISION || op_info(code)->attrs >> key & 1;
}

const char *op_infer(Module *m, OpCode code, const Type *const *in, uint32_t n_in, Attrs attrs,
                     const Type **out)
{
    const OpInfo *info = op_info(code);
    if ((int)n_in < info->min_in || (info->max_in >= 0 && (int)n_in > info->max_in))
        return info->min_in == info->max_in
                   ? arena_printf(m->arena, "takes %d operands, not %u", info->min_in, n_in)
                   : arena_printf(m->arena, "takes at least %d operands, not %u", info->min_in,
                                  n_in);
    for (uint32_t i = 0; i < attrs.n; i++)
        if (!op_takes_attr(code, attrs.at[i].key))
            return arena_printf(m->arena, "has no attribute '%s'", attr_name(attrs.at[i].key));
    const char *precision = attr_str(attrs, AT_PRECISION);
    if (precision && strcmp(precision, "f32") != 0 && strcmp(precision, "low") != 0)
        return arena_printf(m->arena, "precision must be f32 or low, not '%s'", precision);
    TypeIn t = {m, in, n_in, attrs};
    bool is_placed = attrs_find(attrs, AT_SHARD) != NULL;
    for (uint32_t i = 0; i < n_in; i++) is_placed |= type_is_placed(in[i]);
    return is_placed ? sharding_infer(&t, code, out) : info->type_rule(&t, out);
}
