/* amp.c -- 16-bit precision of the forward functions, as the train section's precision and amp say.
 * Stands before autodiff, so that the backward runs in the dtypes that the forward chose.
 *
 * autocast: parameters and inputs stay f32; each op's operands are cast by its class (ops.def,
 * AMP): low: to 16 bits; f32: to f32; promote, follow: to the widest of them. master:   every
 * parameter and float input is used in 16 bits and every op gives 16 bits; an op of class f32
 * computes in f32 and its result is cast down.  What depends on items of a loss stays f32.  (Pass
 * master then makes 16-bit parameters of the casts of reads.) Both:
 *   - constants have no dtype of their own: they take that of the other operands; one that 16 bits
 *     do not hold has its op computed in f32, then cast.
 *   - product + bias is one op of class low: f32 sums, rounded once (PyTorch's addmm).
 *   - master: normalize * weight + bias is one op of class f32 (PyTorch's layer_norm).
 *   - attribute `precision` of an op ("f32", "low") goes before its class, and is removed.
 *   - results of functions, and what is written to variables, keep their dtype.
 * A value is cast once to a dtype; a cast goes through views that keep every element, so that all
 * uses of a parameter share the cast of its read.  In master through all views: every use of a
 * read is then a cast.
 *
 * With fp32 only the attribute is removed.  Cost O(ops).  Source of the classes: PyTorch 2.15,
 * aten/src/ATen/autocast_mode.h. */
#include <string.h>

#include "passes/pass.h"
#include "passes/value_map.h"

/* What is known of a value of the rewritten function. */
typedef struct Known {
    ValueId low, f32; /* the value in these dtypes, when that exists */
    bool of_loss;     /* depends on items of a loss: stays f32 */
    bool is_norm;     /* f32, a normalised row or one scaled or shifted by a vector */
} Known;

typedef struct Amp {
    PassCtx *cx;
    Func *f;
    DType low; /* DT_NONE: fp32 */
    bool is_master;
    Uses uses; /* of the function as it was */
    ValueMap map;
    VEC(Known) known; /* by ValueId.i */
} Amp;

static Known *known(Amp *a, ValueId v)
{
    while (a->known.n <= v.i) VEC_PUSH(a->cx->scratch, &a->known, (Known){0});
    return &a->known.at[v.i];
}

static bool is_float(const Amp *a, ValueId v)
{
    return dtype_class(value_type(a->f, v)->dtype) == DTC_FLOAT;
}

static const Op *def_of(const Amp *a, ValueId v)
{
    OpId def = value_cget(a->f, v)->def;
    return op_ok(def) ? op_cget(a->f, def) : NULL;
}

static AttrList list_of(Attrs attrs)
{
    AttrList l = {.n = attrs.n};
    if (l.n) memcpy(l.at, attrs.at, l.n * sizeof *l.at);
    return l;
}

/* ---- casts ---- */

/* The constant behind views; NULL: v is something else. */
static const Op *const_of(const Amp *a, ValueId v)
{
    const Op *o = def_of(a, v);
    while (o && (o->code == OP_BROADCAST || o->code == OP_RESHAPE)) o = def_of(a, o->in[0]);
    return o && o->code == OP_CONST ? o : NULL;
}

static bool cast_passes(const Amp *a, OpCode view)
{
    return view == OP_BROADCAST || view == OP_RESHAPE || view == OP_TRANSPOSE ||
           (a->is_master && (view == OP_SLICE || view == OP_PAD));
}

/* v in dtype dt, made before `b`. */
static ValueId in_dtype(Amp *a, Builder b, ValueId v, DType dt)
{
    DType from = value_type(a->f, v)->dtype;
    if (from == dt || dtype_class(from) != DTC_FLOAT || from == DT_F64) return v;
    bool is_low = dt == a->low;
    if (!is_low && dt != DT_F32) return build_cast(&b, v, dt);
    ValueId have = is_low ? known(a, v)->low : known(a, v)->f32;
    if (value_ok(have)) return have;
    const Op *def = def_of(a, v);
    ValueId r;
    if (def && def->code == OP_CONST && from == DT_F32) {
        double value = attr_float(def->attrs, AT_VALUE, 0);
        r = build_splat(&b, value, type_with_dtype(a->cx->m, value_type(a->f, v), dt));
    } else if (def && cast_passes(a, def->code)) {
        Op view = *def;
        AttrList l = list_of(view.attrs);
        ValueId inner = in_dtype(a, b, view.in[0], dt);
        b.loc = view.loc;
        r = build1(&b, view.code, &inner, 1, &l);
    } else {
        r = build_cast(&b, v, dt);
    }
    *(is_low ? &known(a, v)->low : &known(a, v)->f32) = r;
    if (from == a->low) known(a, r)->low = v;
    return r;
}

/* v as an op of class f32 takes it: in master mode its 16-bit value, but for constants and what
 * depends on the loss. */
static ValueId in_f32(Amp *a, Builder b, ValueId v)
{
    if (a->is_master && is_float(a, v) && !known(a, v)->of_loss && !const_of(a, v))
        v = in_dtype(a, b, v, a->low);
    return in_dtype(a, b, v, DT_F32);
}

/* ---- the dtype of an op ---- */

typedef enum {
    IN_LOW,     /* operands in 16 bits */
    IN_F32,     /* operands in f32, in master mode through 16 bits */
    IN_F32_ALL, /* operands in f32 whatever they come from */
    IN_WIDEST   /* the widest dtype of the operands */
} Kind;

static bool any_of_loss(Amp *a, const Op *o)
{
    for (uint32_t i = 0; i < o->n_in; i++)
        if (known(a, o->in[i])->of_loss) return true;
    return false;
}

/* [.., n] from a vector [n]. */
static bool is_row_vector(const Amp *a, ValueId v)
{
    const Op *o = def_of(a, v);
    if (!o || (o->code != OP_BROADCAST && o->code != OP_RESHAPE)) return false;
    const Type *t = value_type(a->f, o->in[0]), *full = value_type(a->f, v);
    return t->rank == 1 && full->rank > 1 && full->dim[full->rank - 1] == t->dim[0];
}

/* Operand i of a commuting op is of some kind and the other one a vector spread over rows; -1: no.
 */
static int side_with_vector(Amp *a, const Op *o, bool (*is_kind)(Amp *, ValueId))
{
    for (int i = 0; i < 2; i++)
        if (is_kind(a, o->in[i]) && is_row_vector(a, o->in[1 - i])) return i;
    return -1;
}

static bool is_norm(Amp *a, ValueId v)
{
    return known(a, v)->is_norm;
}

static bool is_low_product(Amp *a, ValueId v)
{
    const Op *o = def_of(a, v);
    return o && o->code == OP_MATMUL && value_type(a->f, v)->dtype == a->low;
}

static bool continues_norm(Amp *a, const Op *o)
{
    return (o->code == OP_MUL || o->code == OP_ADD) && side_with_vector(a, o, is_norm) >= 0;
}

static bool makes_loss_items(OpCode code)
{
    return code == OP_CROSS_ENTROPY || code == OP_SQUARED_ERROR;
}

static Kind kind_of(Amp *a, const Op *o)
{
    const char *precision = attr_str(o->attrs, AT_PRECISION);
    if (precision) return strcmp(precision, "f32") == 0 ? IN_F32_ALL : IN_LOW;
    AmpClass class = op_info(o->code)->amp;
    if (a->is_master && any_of_loss(a, o) && class != AMP_LOW) return IN_F32_ALL;
    switch (class) {
    case AMP_LOW: return IN_LOW;
    case AMP_F32: return IN_F32;
    case AMP_PROMOTE:
    case AMP_FOLLOW: return a->is_master ? IN_LOW : IN_WIDEST;
    }
    ZM_UNREACHABLE("class");
}

/* Constants do not count; when all operands are constant, f32. */
static DType widest(const Amp *a, const Op *o)
{
    DType dt = DT_NONE;
    for (uint32_t i = 0; i < o->n_in; i++) {
        DType in = value_type(a->f, o->in[i])->dtype;
        if (dtype_class(in) != DTC_FLOAT || const_of(a, o->in[i])) continue;
        if (dt == DT_NONE || dtype_bytes(in) > dtype_bytes(dt)) dt = in;
    }
    return dt == DT_NONE ? DT_F32 : dt;
}

/* A constant operand is no value of `dt`: the op computes in f32. */
static bool has_fine_const(const Amp *a, const Op *o, DType dt)
{
    if (!(op_info(o->code)->traits & TR_POINTWISE)) return false;
    for (uint32_t i = 0; i < o->n_in; i++) {
        const Op *c = is_float(a, o->in[i]) ? const_of(a, o->in[i]) : NULL;
        double v = c ? attr_float(c->attrs, AT_VALUE, 0) : 0;
        if (c && dtype_round(dt, v) != v) return true;
    }
    return false;
}

/* ---- rewriting ---- */

/* what: "operand" or "result", of op. */
static Builder builder_at(Amp *a, OpId op, const char *what)
{
    const Op *o = op_cget(a->f, op);
    const char *why = arena_printf(a->cx->scratch, "%s of %s", what, op_info(o->code)->name);
    return (Builder){.f = a->f, .before = op, .loc = pass_loc(a->cx, o->loc, why)};
}

/* The op on other operands, in its place. */
static void rebuild(Amp *a, OpId op, const ValueId *in, DType round_to)
{
    Op old = *op_cget(a->f, op);
    Builder b = {.f = a->f, .before = op, .loc = old.loc};
    AttrList l = list_of(old.attrs);
    OpId made = build_op(&b, old.code, in, old.n_in, &l);
    for (uint32_t i = 0; i < old.n_out; i++) {
        ValueId r = op_cget(a->f, made)->out[i];
        Builder at = builder_at(a, op, "result");
        if (round_to != DT_NONE && is_float(a, r)) r = in_dtype(a, at, r, round_to);
        value_get(a->f, r)->name = value_cget(a->f, old.out[i])->name;
        value_map_set(&a->map, old.out[i], r);
    }
    op_erase(a->f, op);
    a->cx->n_rewrites++;
}

/* product + vector, the product of 16-bit operands and used here only: the sum is made of the
 * product's f32 and rounded once. */
static bool add_bias(Amp *a, OpId op, const ValueId *was)
{
    const Op o = *op_cget(a->f, op);
    const char *precision = attr_str(o.attrs, AT_PRECISION);
    if (o.code != OP_ADD || (precision && strcmp(precision, "low") != 0)) return false;
    int side = side_with_vector(a, &o, is_low_product);
    if (side < 0) return false;
    if (a->uses.start[was[side].i + 1] - a->uses.start[was[side].i] != 1) return false;
    OpId product = value_cget(a->f, o.in[side])->def;
    Op mm = *op_cget(a->f, product);
    AttrList l = list_of(mm.attrs);
    attr_add_int(&l, AT_WIDE, 1);
    Builder b = {.f = a->f, .before = op, .loc = mm.loc};
    ValueId in[2];
    in[side] = build1(&b, OP_MATMUL, mm.in, 2, &l);
    Builder at = builder_at(a, op, "operand");
    in[1 - side] = in_dtype(a, at, in_dtype(a, at, o.in[1 - side], a->low), DT_F32);
    rebuild(a, op, in, a->low);
    op_erase(a->f, product);
    return true;
}

/* How the operands of one op are taken. */
typedef struct Plan {
    Kind kind;
    bool is_norm;   /* goes on with a normalised row, in f32 */
    DType dt;       /* of the operands */
    DType round_to; /* the result is cast to it; none: as it comes */
} Plan;

static Plan plan_of(Amp *a, const Op *o)
{
    Plan p = {.kind = kind_of(a, o)};
    p.is_norm = a->is_master && p.kind == IN_LOW && !attr_str(o->attrs, AT_PRECISION) &&
                continues_norm(a, o);
    p.dt = p.kind == IN_LOW ? a->low : p.kind == IN_WIDEST ? widest(a, o) : DT_F32;
    if (p.is_norm) p.dt = DT_F32;
    if (p.dt == a->low && has_fine_const(a, o, a->low)) {
        p.round_to = a->low;
        p.dt = DT_F32;
    }
    return p;
}

static ValueId take(Amp *a, Builder b, const Plan *p, ValueId v)
{
    if (p->is_norm && known(a, v)->is_norm) return v;
    bool through_low = p->kind == IN_F32 || p->is_norm || p->round_to != DT_NONE;
    return through_low ? in_f32(a, b, v) : in_dtype(a, b, v, p->dt);
}

/* The operands in the dtypes that they had. */
static void keep_dtypes(Amp *a, OpId op, const ValueId *was)
{
    Builder b = builder_at(a, op, "operand");
    for (uint32_t i = 0; i < op_cget(a->f, op)->n_in; i++) {
        ValueId v = op_cget(a->f, op)->in[i];
        op_set_operand(a->f, op, i, in_dtype(a, b, v, value_type(a->f, was[i])->dtype));
    }
}

/* Does the op take these operands?  A few of IR that no frontend makes want fixed dtypes. */
static bool is_taken(Amp *a, const Op *o, const ValueId *in)
{
    const Type **types = ARENA_ARRAY(a->cx->scratch, const Type *, o->n_in);
    const Type **out = ARENA_ARRAY(a->cx->scratch, const Type *, o->n_out);
    for (uint32_t i = 0; i < o->n_in; i++) types[i] = value_type(a->f, in[i]);
    return !o->body && !op_infer(a->cx->m, o->code, types, o->n_in, o->attrs, out);
}

/* Operands of `op` by its class; the op is built again when one of them changed its dtype. */
static void convert(Amp *a, OpId op, const ValueId *was)
{
    Op o = *op_cget(a->f, op);
    Builder b = builder_at(a, op, "operand");
    Plan p = plan_of(a, &o);
    bool is_norm = p.is_norm || (a->is_master && p.kind == IN_F32 &&
                                 (o.code == OP_NORMALIZE || o.code == OP_RMS_NORMALIZE));
    bool of_loss = a->is_master && (any_of_loss(a, &o) || makes_loss_items(o.code));
    ValueId *in = ARENA_ARRAY(a->cx->scratch, ValueId, o.n_in);
    bool is_same = p.round_to == DT_NONE;
    for (uint32_t i = 0; i < o.n_in; i++) {
        in[i] = take(a, b, &p, o.in[i]);
        is_same &= value_type(a->f, in[i]) == value_type(a->f, was[i]);
    }
    if (is_same)
        for (uint32_t i = 0; i < o.n_in; i++) op_set_operand(a->f, op, i, in[i]);
    else if (is_taken(a, &o, in))
        rebuild(a, op, in, p.round_to);
    else
        keep_dtypes(a, op, was);
    for (uint32_t i = 0; i < o.n_out; i++) {
        Known *r = known(a, value_map_get(&a->map, o.out[i]));
        r->of_loss = of_loss;
        r->is_norm = is_norm;
    }
}

/* Takes floats, all of which may be cast; a view of a constant is one still. */
static bool takes_part(const Amp *a, const Op *o)
{
    if (op_info(o->code)->traits & TR_VIEW && const_of(a, o->in[0])) return false;
    bool has_float = false;
    for (uint32_t i = 0; i < o->n_in; i++) {
        if (value_type(a->f, o->in[i])->dtype == DT_F64) return false;
        has_float |= is_float(a, o->in[i]);
    }
    return has_float;
}

static void visit(Amp *a, OpId op)
{
    const Op *o = op_cget(a->f, op);
    if (o->n_in == 0) return;
    ValueId *was = ARENA_ARRAY(a->cx->scratch, ValueId, o->n_in);
    memcpy(was, o->in, o->n_in * sizeof *was);
    value_map_apply(&a->map, a->f, op);
    if (o->code == OP_CAST) return;
    if (o->code == OP_RETURN || o->code == OP_WRITE || !takes_part(a, o))
        keep_dtypes(a, op, was);
    else if (!add_bias(a, op, was))
        convert(a, op, was);
}

static void remove_overrides(PassCtx *cx, Func *f)
{
    FOR_OPS(f, op)
    {
        Op *o = op_get(f, op);
        if (!attrs_find(o->attrs, AT_PRECISION)) continue;
        AttrList l = {0};
        for (uint32_t i = 0; i < o->attrs.n; i++)
            if (o->attrs.at[i].key != AT_PRECISION) l.at[l.n++] = o->attrs.at[i];
        o->attrs = attrs_copy(cx->m, &l);
        cx->n_rewrites++;
    }
}

static void convert_func(PassCtx *cx, Func *f, const TrainConfig *t)
{
    Amp a = {.cx = cx, .f = f, .low = precision_dtype(t->precision)};
    a.is_master = t->amp == AMP_MASTER;
    a.uses = func_uses(cx->scratch, f);
    a.map.arena = cx->scratch;
    uint32_t n = f->values.n;
    FOR_OPS(f, op) visit(&a, op);
    cx->n_rewrites += f->values.n - n;
}

Status pass_amp(PassCtx *cx, bool *changed)
{
    const TrainConfig *t = &cx->m->train;
    bool is_late = (cx->m->facts & (FACT_HAS_GRAD | FACT_HAS_STEP)) != 0;
    if (t->precision != PREC_FP32 && is_late)
        return diag_error(cx->diag, (SrcPos){0}, E_PASS_NEEDS,
                          "pass 'amp' stands before autodiff: this module has gradients already");
    for (uint32_t i = 0; i < cx->m->funcs.n; i++) {
        Func *f = cx->m->funcs.at[i];
        if (t->precision != PREC_FP32) convert_func(cx, f, t);
        remove_overrides(cx, f);
    }
    *changed = cx->n_rewrites > 0;
    return ZM_OK;
}
