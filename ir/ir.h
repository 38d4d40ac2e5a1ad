/* ir.h -- the intermediate representation: chapter 1 of zmc.
 *
 * A Module holds persistent variables (Var) and functions (Func).  A Func is a straight line of ops
 * in single static assignment over concrete tensor types: no control flow, repeats are unrolled.
 * Everything that a training step does is an op.  References are 32-bit ids in one-field structs;
 * id 0 is "none".
 *
 *   Module -> Var*                     parameters, masters, moments, gradient accumulators, scalars
 *          -> Func*  @train  (from the frontend) -> @micro, @last (after accumulate);  @eval,
 * @generate
 *               -> Op (linked list) -> operands, results (Value), attributes, location, body (op
 * `fused` only)
 *
 * Memory effects: `read` and `write` of a variable stay in program order relative to each other
 * when the variables share bytes; every other op is pure.  A `read` yields the variable's value at
 * that point: after a later `write` to the same bytes it must not be used any more unless the
 * writer is the op that consumes it (in place).  The verifier enforces it.
 *
 * Dimension letters used in comments: B batch, T time, C channels, H heads, D head width, V
 * vocabulary, R ranks.
 */
#ifndef ZM_IR_IR_H
#define ZM_IR_IR_H

#include "ir/base/arena.h"
#include "ir/base/diag.h"
#include "ir/base/map.h"
#include "ir/base/str.h"
#include "ir/base/vec.h"

enum { ZM_MAX_RANK = 8, ZM_MAX_OPERANDS = UINT16_MAX };

/* ---- types (type.c)
 * ---------------------------------------------------------------------------------------------- */

typedef enum {
    DT_NONE,
#define DTYPE(ID, NAME, BYTES, CLASS) DT_##ID,
#include "ir/dtypes.def"
#undef DTYPE
    N_DTYPE
} DType;

typedef enum { DTC_NONE, DTC_BOOL, DTC_INT, DTC_FLOAT } DTypeClass;

const char *dtype_name(DType dt);
int64_t dtype_bytes(DType dt);
DTypeClass dtype_class(DType dt);
DType dtype_from_name(const char *name, size_t n); /* DT_NONE when unknown */
double dtype_round(DType dt,
                   double v); /* v rounded to dt, nearest even; integers truncate, i1 is v != 0 */

/* Op round_bf16: a, with floor(65536 u) / 65536 of a bf16 step added to |a|, cut off to bf16. */
double bf16_round_by(double a, double u);

/* Axes of the mesh that the ranks form (mesh.def); 0 = none. */
typedef enum {
    MESH_NONE,
#define AXIS(ID, NAME, DOC) MESH_##ID,
#include "ir/mesh.def"
#undef AXIS
    N_MESH_AXIS
} MeshAxis;
enum { MESH_MAX_RANKS = 65536 };
const char *mesh_axis_name(MeshAxis axis);
MeshAxis mesh_axis_from_name(const char *name, size_t n); /* MESH_NONE when unknown */

/* Interned: equal types are the same pointer.  Row-major.  Dimensions are those of one rank's part.
 * Over an axis of the mesh a tensor is one of
 *   replicated  the same on all ranks (what is not said otherwise)
 *   sharded     axis[d] is the axis: each rank holds an equal part of dimension d, in rank order
 *   partial     the axis is in `partial`: the tensor is the sum of what the ranks hold
 * Text: f32[data:16,768] holds 16 rows of data * 16; f64[]+data is one summand (docs/ir.md). */
typedef struct Type {
    DType dtype;
    int rank;
    int64_t dim[ZM_MAX_RANK];
    uint8_t axis[ZM_MAX_RANK]; /* MeshAxis that divides dimension i; each axis once at most */
    uint8_t partial;           /* bit (1 << MeshAxis) */
} Type;

int64_t type_elems(const Type *t);
int64_t type_bytes(const Type *t);
bool type_same_shape(const Type *a, const Type *b); /* of one rank's parts */
bool type_is_placed(const Type *t);                 /* sharded or partial over an axis */
bool type_is_sharded(const Type *t);                /* a dimension is divided among ranks */
int64_t
type_placing(const Type *t); /* axis of dimension i in bits 4i ..., partial from bit 32 on */
bool type_same_placing(const Type *a, const Type *b); /* equal axis and partial */
const char *type_text(Arena *a, const Type *t);       /* "f32[4,256]"; "f64[]" for a scalar */
enum { TYPE_TEXT_MAX = ZM_MAX_RANK * 30 + N_MESH_AXIS * 8 + 16 };
void type_put(const Type *t, char text[TYPE_TEXT_MAX]);

/* ---- facts: what holds for a module (facts.def); passes need, give and break them
 * ---------------------------------------------------------------------------------------------- */

typedef enum {
#define FACT(ID, NAME, DOC) FACT_##ID##_BIT,
#include "ir/facts.def"
#undef FACT
    N_FACT
} FactBit;

enum {
#define FACT(ID, NAME, DOC) FACT_##ID = 1 << FACT_##ID##_BIT,
#include "ir/facts.def"
#undef FACT
};

/* ---- ids
 * ---------------------------------------------------------------------------------------------------------
 */

typedef struct {
    uint32_t i;
} ValueId; /* within one Func */
typedef struct {
    uint32_t i;
} OpId; /* within one Func */
typedef struct {
    uint32_t i;
} VarId; /* within the Module */
typedef struct {
    uint32_t i;
} LocId; /* within the Module */

/* ---- locations (loc.c)
 * ------------------------------------------------------------------------------------------- */

/* Where an op comes from.  Either a place in a source (parent none), or derived: `parent` plus the
 * pass that made the op and why ("autodiff", "gradient of matmul").  Every chain ends in a source
 * place. */
typedef struct Loc {
    SrcPos pos;
    LocId parent;
    const char *pass; /* interned; NULL for a source place */
    const char *why;  /* interned */
} Loc;

/* ---- attributes
 * --------------------------------------------------------------------------------------------------
 */

typedef enum {
#define ATTR(ID, NAME, KIND) AT_##ID,
#include "ir/attrs.def"
#undef ATTR
    N_ATTR
} AttrKey;

typedef enum { AK_INT, AK_FLOAT, AK_BOOL, AK_STR, AK_LIST, AK_DTYPE } AttrKind;

const char *attr_name(AttrKey key);
AttrKind attr_kind(AttrKey key);

typedef struct Attr {
    AttrKey key;
    union {
        int64_t i;     /* INT, BOOL, DTYPE */
        double f;      /* FLOAT */
        const char *s; /* STR, interned */
        struct {
            const int64_t *at;
            uint32_t n;
        } list; /* LIST */
    } as;
} Attr;

/* Ascending by key, no key twice. */
typedef struct Attrs {
    const Attr *at;
    uint32_t n;
} Attrs;

/* ---- ops: generated from ops.def
 * ----------------------------------------------------------------------------------- */

typedef enum {
    OP_NONE,
#define OP(ID, ...) OP_##ID,
#define POINT(ID, ...) OP_##ID,
#include "ir/ops.def"
#undef OP
#undef POINT
    N_OP
} OpCode;

/* Traits. */
enum {
    TR_PURE =
        1, /* same operands and attributes give the same result; may be merged, moved, removed */
    TR_POINTWISE =
        2, /* element i of every result depends on element i of each operand; all shapes equal */
    TR_VIEW = 4,       /* a rearrangement of its operand's elements: no arithmetic */
    TR_REDUCE = 8,     /* removes attribute `dims` */
    TR_COMMUTES = 16,  /* op(a, b) = op(b, a) bit for bit */
    TR_PRIMITIVE = 32, /* code generation knows it; the rest is expanded by pass `expand` */
    TR_TERMINATOR = 64 /* return: last op of a function */
};

/* The dtype that an op computes in with 16-bit precision: the 16-bit one, f32, the widest of its
 * operands', or that of its operand. */
typedef enum { AMP_LOW, AMP_F32, AMP_PROMOTE, AMP_FOLLOW } AmpClass;

/* How an op becomes code.  POINT: one scalar primitive.  EXPAND: rewritten to simpler ops by pass
 * `expand`. NEST, CONTRACT, ATTENTION, SCATTER: kernel forms (codegen/kernel.h).  VIEW: index maps,
 * no code of its own.  HOST: none. */
typedef enum {
    LK_POINT,
    LK_EXPAND,
    LK_NEST,
    LK_CONTRACT,
    LK_ATTENTION,
    LK_SCATTER,
    LK_VIEW,
    LK_HOST
} LowerKind;

typedef enum { COST_POINTWISE, COST_REDUCE, COST_CONTRACT, COST_ATTENTION, COST_NONE } CostKind;

/* Domain that generated tests draw an op's float operands from. */
typedef enum { SD_ANY, SD_POSITIVE, SD_NONZERO, SD_SMALL, SD_UNIT, SD_SPECIAL } SampleDomain;

typedef struct TypeIn { /* what a type rule sees */
    struct Module *m;
    const Type *const *in;
    uint32_t n_in;
    Attrs attrs;
} TypeIn;

/* Fills out[0..n_out).  Returns NULL, or why the operands are refused (in TypeIn.m's arena). */
typedef const char *(*TypeRule)(const TypeIn *t, const Type **out);

typedef struct OpInfo {
    const char *name;   /* in textual IR */
    int min_in, max_in; /* operands; max_in = -1: any number */
    int n_out;
    uint32_t traits;
    uint64_t attrs; /* bit (1 << AttrKey): allowed */
    TypeRule type_rule;
    AmpClass amp;
    CostKind cost_kind;
    int cost_flops;      /* per output element (pointwise), input element (reduce), multiply-add
                            (contract, attention forward = 4 per 2) */
    const char *factors; /* sharding factors, docs/ir.md */
    LowerKind lower_kind;
    const char *lower; /* LK_POINT, LK_EXPAND of pointwise ops: scalar expression over a, b, c, d;
                          "" = primitive */
    const char *grad;  /* pointwise: expressions over a.., y, g separated by ';', one per operand,
                          "0" = none; else NULL */
    SampleDomain sample;
    double tol_ulp; /* of a back end against the interpreter, per element */
    const char *doc;
} OpInfo;

const OpInfo *op_info(OpCode code);
OpCode op_from_name(const char *name, size_t n); /* OP_NONE when unknown */
/* Those of its entry in ops.def, and `precision`. */
bool op_takes_attr(OpCode code, AttrKey key);

/* ---- functions
 * -----------------------------------------------------------------------------------------------------
 */

/* Where the memory plan put a value; bytes = 0: not placed. */
typedef struct Place {
    int64_t offset, bytes;      /* within the arena; bytes of the value itself, without alignment */
    int32_t live_from, live_to; /* op positions (0, 1, ...) in schedule order, inclusive */
    const char *cat; /* interned: "activations", "grads", "workspace", ... (mem_var_category()) */
} Place;

typedef struct Value {
    const Type *type;
    OpId def;         /* none: a parameter of the function (or body) */
    uint32_t index;   /* which result of def, or which parameter */
    const char *name; /* NULL: printed as a number */
    Place place;
} Value;

typedef struct Op {
    OpCode code;
    LocId loc;
    OpId prev, next; /* program order; erased ops are unlinked and have code OP_NONE */
    uint32_t n_in, n_out;
    ValueId *in;
    ValueId *out;
    Attrs attrs;
    struct Func *body; /* op `fused`: a function whose parameters are this op's operands and whose
                          return its results */
} Op;

typedef struct Func {
    struct Module *m;
    const char *name;  /* without '@'; "" for a body */
    VEC(Value) values; /* [0] unused */
    VEC(Op) ops;       /* [0] unused */
    OpId first, last;
    VEC(ValueId) params;
} Func;

/* ---- variables
 * ------------------------------------------------------------------------------------------------------
 */

typedef enum { VK_PARAM, VK_MASTER, VK_MOMENT, VK_GRAD, VK_SCALAR, N_VAR_KIND } VarKind;
typedef enum { INIT_ZEROS, INIT_ONES, INIT_CONST, INIT_NORMAL, INIT_UNIFORM } InitKind;

const char *var_kind_name(VarKind k); /* "param", ... */

typedef struct Var {
    const char *name; /* parameter path, or "bucket.0", "adam.m.<path>", "update", ...; interned */
    const Type *type;
    VarKind kind;
    InitKind init;
    double
        init_a; /* CONST: value; NORMAL: standard deviation; UNIFORM: bound (draws from [-a, a)) */
    bool has_decay;    /* weight decay applies */
    bool is_bucket;    /* flat storage whose elements belong to the views in it */
    VarId in;          /* storage: none = own; else a view of that bucket ... */
    int64_t in_offset; /* ... starting at this element */
    VarId of; /* moment, master, grad: the variable (parameter or bucket of parameters) that it
                 belongs to */
    LocId loc;
    Place place;
} Var;

/* `weights` section: how published files name things. */
typedef enum { WR_STRIP, WR_IGNORE, WR_ALIAS, WR_RENAME } WeightRuleKind;
typedef struct WeightRule {
    WeightRuleKind kind;
    const char *from; /* prefix (strip), glob (ignore), published name (alias, rename) */
    const char *to;   /* alias, rename: parameter path */
} WeightRule;

/* A data feed: input `name` of every function is filled by the loader; see `data` section. */
typedef enum {
    FEED_TOKENS,       /* causal: the tokens of a sample ... */
    FEED_TARGETS,      /* ... and the ones that follow them */
    FEED_TENSOR,       /* a tensor of the input's name */
    FEED_MASKED,       /* masked_lm: tokens, some of them masked ... */
    FEED_MASK_TARGETS, /* ... and what stood there; ignored elsewhere */
    FEED_SPAN_INPUTS,  /* span_corruption: text with sentinels for spans ... */
    FEED_SPAN_TARGETS, /* ... the spans behind their sentinels, then ignored ... */
    FEED_SPAN_DECODER, /* ... and the targets shifted right by one */
    N_FEED_KIND
} FeedKind;
typedef struct Feed {
    const char *input;
    FeedKind kind;
    int64_t bound; /* integers: valid values are 0 <= v < bound (0: unchecked) ... */
    bool has_ignore;
    int64_t ignore; /* ... or v == ignore */
} Feed;

/* What masked_lm and span_corruption do to a text; docs/language.md. */
typedef struct Corruption {
    double rate; /* masked_lm: of positions; span_corruption: of tokens that are dropped; 0: none */
    double span; /* mean length of a dropped span */
    int64_t mask;  /* id of the mask; of the first sentinel, the others count down from it */
    int64_t eos;   /* ends inputs and targets */
    int64_t start; /* starts the decoder's input, pads inputs */
} Corruption;

typedef enum { SCHED_CONSTANT, SCHED_LINEAR, SCHED_COSINE } ScheduleKind;
typedef enum { OPT_NONE, OPT_SGD, OPT_ADAM, OPT_ADAMW, OPT_LION } OptimizerKind;

enum { MAX_ACCUMULATE = 1 << 20 }; /* micro-batches per step */

typedef enum { PREC_FP32, PREC_BF16, PREC_FP16 } PrecisionKind;
/* With 16 bits.  MASTER: parameters and activations in 16 bits, f32 masters; AUTOCAST: f32
 * parameters, casts by the ops' classes. */
typedef enum { AMP_MASTER, AMP_AUTOCAST } AmpMode;
typedef enum { SCALE_DEEPSPEED, SCALE_GRADSCALER } ScaleRule;
/* Loss scaling: docs/precision.md. */
typedef struct LossScale {
    bool is_dynamic, consecutive;
    ScaleRule rule;
    double init, min; /* static: init is the scale */
    int64_t window, hysteresis;
} LossScale;

/* The `train` section, after defaults and -D, and what the command line adds. */
typedef struct TrainConfig {
    PrecisionKind precision;
    AmpMode amp;
    bool grad_low;     /* gradients are stored in 16 bits */
    bool moments_bf16; /* the optimizer's moments are stored in bf16 */
    bool pure;         /* 16-bit parameters without masters: the update rounds stochastically */
    LossScale scale;
    OptimizerKind optimizer;
    double lr, beta1, beta2, eps, decay, momentum;
    bool nesterov;
    ScheduleKind schedule;
    double warmup, total, min_lr; /* updates, updates, learning rate */
    double clip;                  /* 0: no clipping */
    int64_t accumulate;  /* micro-batches per step, A: 1 to MAX_ACCUMULATE; 0: no train section */
    int64_t zero;        /* ZeRO stage 0 to 3; without effect on one rank */
    bool comm_low;       /* gradients travel in 16 bits */
    bool reduce_at_step; /* stage 2 with accumulation: reduce once a step, not per micro-batch */
    SrcPos pos;
} TrainConfig;
extern const TrainConfig train_defaults;

/* The 16-bit dtype of a precision; DT_NONE for fp32. */
DType precision_dtype(PrecisionKind p);
const char *precision_name(PrecisionKind p); /* "fp32", "bf16", "fp16" */
const char *amp_mode_name(AmpMode a);        /* "master", "autocast" */

/* ---- module
 * ----------------------------------------------------------------------------------------------------------
 */

typedef struct Module {
    Arena *arena;
    Interner strings;
    SourceSet *sources;
    Diag *diag;
    const char *name; /* model name */
    VEC(Var) vars;    /* [0] unused */
    VEC(Func *) funcs;
    VEC(Loc) locs;           /* [0] unused */
    VEC(const Type *) types; /* interned */
    Map type_map;
    Map var_map; /* by name; names never change */
    VEC(WeightRule) weight_rules;
    VEC(Feed) feeds;
    Corruption corruption;
    TrainConfig train;
    int64_t batch;             /* B: dimension 0 of every input */
    int64_t items;             /* loss items of one micro-batch (the B*T of the gradient's seed) */
    int64_t arena_bytes;       /* after the memory plan */
    int64_t mesh[N_MESH_AXIS]; /* ranks along each axis; 0 = 1: no such axis.  Set by pass zero */
    uint32_t facts;            /* ir/facts.def bits that hold (module_new: those that always do) */
} Module;

Module *module_new(Arena *arena, SourceSet *sources, Diag *diag);
int64_t module_ranks(const Module *m); /* along axis `data`; 1 without a mesh */
const Type *type_get(Module *m, DType dtype, int rank, const int64_t *dims); /* replicated */
/* t's elements, placed by axis (t->rank entries; NULL: on no axis) and partial. */
const Type *type_placed(Module *m, const Type *t, const uint8_t *axis, uint8_t partial);
const Type *type_placed_by(Module *m, const Type *t, int64_t placing); /* of type_placing() */
const Type *type_plain(Module *m, const Type *t);                      /* t without its placing */
int64_t type_whole_elems(const Module *m, const Type *t);              /* of all ranks' parts */
const Type *type_with_dtype(Module *m, const Type *t, DType dtype);    /* keeps the placing */
const char *module_str(Module *m, const char *text);                   /* interned */

LocId loc_source(Module *m, SrcPos pos);
LocId loc_derive(Module *m, LocId parent, const char *pass, const char *why);
SrcPos loc_pos(const Module *m, LocId loc); /* the source place at the end of the chain */
const Loc *loc_get(const Module *m, LocId loc);
/* The latest location of the chain that `pass` made; none when it made none. */
LocId loc_by_pass(const Module *m, LocId loc, const char *pass);

VarId var_new(Module *m, Var v); /* v.name must be new */
VarId var_find(const Module *m, const char *name);
Var *var_get(Module *m, VarId id);
const Var *var_cget(const Module *m, VarId id);
VarId var_storage(const Module *m, VarId id,
                  int64_t *offset_elems); /* follows `in` to the variable with own bytes */

Func *func_new(Module *m, const char *name);
Func *func_find(const Module *m, const char *name); /* NULL when absent */
ValueId func_param(Func *f, const char *name, const Type *t);

/* ---- reading (build.c)
 * ------------------------------------------------------------------------------------------------
 */

static inline bool op_ok(OpId op)
{
    return op.i != 0;
}
static inline bool value_ok(ValueId v)
{
    return v.i != 0;
}
static inline bool var_ok(VarId v)
{
    return v.i != 0;
}
static inline bool loc_ok(LocId l)
{
    return l.i != 0;
}

Op *op_get(Func *f, OpId id);
const Op *op_cget(const Func *f, OpId id);
Value *value_get(Func *f, ValueId id);
const Value *value_cget(const Func *f, ValueId id);
const Type *value_type(const Func *f, ValueId id);
uint32_t func_n_ops(const Func *f); /* linked ops */

const Attr *attrs_find(Attrs attrs, AttrKey key); /* NULL when absent */
int64_t attr_int(Attrs attrs, AttrKey key, int64_t otherwise);
double attr_float(Attrs attrs, AttrKey key, double otherwise);
const char *attr_str(Attrs attrs, AttrKey key); /* NULL when absent */

/* Iterate ops in program order; the body may erase or insert before `OP`. */
#define FOR_OPS(F, OP)                                                                             \
    for (OpId OP = (F)->first, next_##OP; op_ok(OP) && (next_##OP = op_cget((F), OP)->next, 1);    \
         OP = next_##OP)

/* Derived data, beside the IR: users of each value, in program order.  Stale after any change. */
typedef struct Uses {
    uint32_t *start; /* users of value v: user[start[v.i] .. start[v.i + 1]) ; an op that uses v
                        twice is listed twice */
    OpId *user;
} Uses;
Uses func_uses(Arena *scratch, const Func *f);
/* Position of every op in program order, indexed by OpId.i. */
uint32_t *func_positions(Arena *scratch, const Func *f);

/* Arithmetic of one op by its COST column (cost.c); a fused op: 0, its body's ops count. */
double op_flops(const Func *f, OpId op);

/* ---- building and changing (build.c)
 * ---------------------------------------------------------------------------------- */

/* Inserts ops before `before` (none: at the end), all with location `loc`. */
typedef struct Builder {
    Func *f;
    OpId before;
    LocId loc;
} Builder;

typedef struct AttrList { /* collects attributes in any order; lists and strings are copied /
                             interned */
    Attr at[N_ATTR];
    uint32_t n;
} AttrList;
void attr_add_int(AttrList *l, AttrKey key, int64_t v); /* INT, BOOL, DTYPE */
void attr_add_float(AttrList *l, AttrKey key, double v);
void attr_add_str(AttrList *l, AttrKey key, const char *s);
void attr_add_list(AttrList *l, AttrKey key, const int64_t *v, uint32_t n);

/* Types of the results, or the reason of refusal (NULL: fine).  out has room for
 * op_info(code)->n_out. */
const char *op_infer(Module *m, OpCode code, const Type *const *in, uint32_t n_in, Attrs attrs,
                     const Type **out);
Attrs attrs_copy(Module *m, const AttrList *l);
/* AT_SHAPE, and AT_SHARD where t is placed: of ops whose result is what they say. */
void attr_add_type(AttrList *l, const Type *t);
void attr_add_shard(AttrList *l, const Type *t); /* nothing where t is not placed */

/* Adds an op; its results' types come from its type rule.  A refusal here is a bug of the caller
 * (ZM_CHECK): a frontend asks op_infer first.  l may be NULL.  Returns the op; build1 the single
 * result. */
OpId build_op(Builder *b, OpCode code, const ValueId *in, uint32_t n_in, const AttrList *l);
ValueId build1(Builder *b, OpCode code, const ValueId *in, uint32_t n_in, const AttrList *l);
ValueId build_unary(Builder *b, OpCode code, ValueId a);
ValueId build_binary(Builder *b, OpCode code, ValueId a,
                     ValueId c); /* equal shapes; scalars (rank 0) are broadcast */
ValueId build_select(Builder *b, ValueId cond, ValueId yes, ValueId no);
ValueId build_const(Builder *b, double v, DType dtype);   /* rank 0 */
ValueId build_splat(Builder *b, double v, const Type *t); /* constant of type t */
ValueId build_cast(Builder *b, ValueId a, DType dtype);   /* a itself when it has that dtype */
ValueId build_broadcast(Builder *b, ValueId a,
                        const Type *shape); /* numpy's trailing rule; a itself when equal */
ValueId build_reshape(Builder *b, ValueId a, int rank, const int64_t *dims);
/* To t's dimensions, sharded as t: where dimensions have size 1, a's type alone does not say. */
ValueId build_reshape_to(Builder *b, ValueId a, const Type *t);
ValueId build_transpose(Builder *b, ValueId a, const int64_t *perm); /* rank entries */
ValueId build_slice(Builder *b, ValueId a, const int64_t *starts, const int64_t *sizes);
ValueId build_pad(Builder *b, ValueId a, const int64_t *low, const int64_t *high);
ValueId build_reduce(Builder *b, OpCode code, ValueId a, const int64_t *dims, uint32_t n_dims);
ValueId build_reduce_keep(Builder *b, OpCode code, ValueId a, const int64_t *dims,
                          uint32_t n_dims); /* reduced dims stay as 1 */
ValueId build_matmul(Builder *b, ValueId x, ValueId y, bool trans_a, bool trans_b);
OpId build_fused(Builder *b, const char *kind, const ValueId *in, uint32_t n_in,
                 Func *body); /* results from body's return */
ValueId build_read(Builder *b, VarId v);
OpId build_write(Builder *b, VarId v, ValueId x);
OpId build_return(Builder *b, const ValueId *in, uint32_t n_in,
                  const char *names); /* names: "loss,count" or NULL */

void func_replace_uses(Func *f, ValueId old, ValueId with);
void op_erase(Func *f, OpId op);                    /* its results must be unused */
void op_move_before(Func *f, OpId op, OpId before); /* none: to the end */
Func *func_clone(Module *m, const Func *f, const char *name);
void op_set_operand(Func *f, OpId op, uint32_t i, ValueId v);
/* Copies op (with its body) into b's function, operands through map[old ValueId.i] (none: the id is
 * kept); records the results in map. */
OpId op_copy(Builder *b, const Func *from, OpId op, ValueId *map);

/* ---- text (print.c, parse.c), checks (verify.c), meaning (eval.c)
 * ------------------------------------------------------ */

void module_print(const Module *m,
                  Str *out); /* docs/ir.md; parse(print(m)) prints the same bytes */
void func_print(const Func *f, Str *out);
/* Parses text into a new module.  NULL after errors (in diag). */
Module *module_parse(Arena *arena, SourceSet *sources, Diag *diag, const char *file,
                     const char *text, size_t n);

/* Structure, types, attributes, effects, location chains.  Errors name `after` (the pass that just
 * ran, or NULL). */
Status module_verify(const Module *m, const char *after);
/* Equal for modules that print the same but for locations and facts: the pass manager compares it
 * with a pass's *changed (hash.c). */
uint64_t module_hash(const Module *m);

#endif
