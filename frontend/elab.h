/* elab.h -- elaboration: walking the syntax tree with values instead of names, and emitting IR on
 * the way.
 *
 * The file's dims and consts are evaluated first (program.c); then each function (@train, @eval,
 * @generate) is made by one walk of the model's body, in which every call of a block is walked
 * again with its own arguments (elab_block.c). So shapes are concrete numbers everywhere, and
 * repeats are unrolled.
 *
 * Errors: reported once per place (a block in 96 layers says it once); the value becomes VAL_ERROR
 * and silences what depends on it.  Limits below keep hostile files from using up memory or stack.
 */
#ifndef ZM_FRONTEND_ELAB_H
#define ZM_FRONTEND_ELAB_H

#include "frontend/ast.h"
#include "frontend/frontend.h"
#include "frontend/value.h"

enum {
    MAX_OPS = 1 << 18,       /* of a function */
    MAX_STEPS = 1 << 22,     /* statements and expressions walked for a function */
    MAX_WALK_DEPTH = 600,    /* nested expressions and calls */
    MAX_SPLIT = 4096,        /* parts of a split */
    MAX_ARGS = 16,           /* parameters of a builtin */
    MAX_INSTANCES = 1 << 17, /* of a function */
    MAX_PATH = 1024,         /* bytes of an instance's path */
    MAX_NAMES = 1 << 14      /* items of a file; names and instances of a block */
};
#define MAX_ELEMS ((int64_t)1 << 48) /* of a tensor */

typedef struct Unused {
    const char *what, *name;
    SrcPos pos;
} Unused;

/* The file, sorted (program.c). */
typedef struct Program {
    Ast *file;
    Ast *model;
    VEC(Ast *) globals; /* DIM, CONST, ASSERT in source order */
    VEC(Ast *) blocks;
    VEC(Ast *) sections;
    VEC(Unused) unused; /* warnings for a file that compiles */
} Program;

/* A declared name.  Bindings of the running block are elab->scope[frame..]; those of the file come
 * first. */
typedef struct Binding {
    const char *name; /* interned */
    Val val;
    SrcPos pos;
} Binding;

#define NOT_A_CHAIN UINT32_MAX

/* A block's instance, or the model (path ""). */
typedef struct Instance Instance;
struct Instance {
    const char *name, *path; /* path: interned, "h.0.attn" */
    const Ast *block;        /* NULL: the model */
    uint32_t count; /* name[count]: the members are kids "0", "1", ...; NOT_A_CHAIN: single */
    SrcPos pos;
    VEC(Instance *) kids; /* in the order of their making: kid i of a chain is member i */
    uint32_t n_streams;   /* random streams drawn so far */
};

typedef struct Call Call;
struct Call { /* the stack of blocks being walked */
    const Ast *block;
    Call *up;
    Val *results; /* of the `return` that was reached */
    uint32_t n_results;
    bool has_returned;
    bool is_anonymous; /* called without an instance: may not have parameters or instances */
    bool has_rest;     /* '...' of the argument types is bound: */
    int rest_rank;
    int64_t rest[ZM_MAX_RANK];
};

typedef enum { MODE_TRAIN, MODE_EVAL, MODE_GENERATE } ElabMode;

typedef struct OutputVal {
    const char *name;
    Val val;
    SrcPos pos;
} OutputVal;

/* Ops [from, to) of the running function come from a walk of `block`. */
typedef struct BlockWalk {
    const char *block, *path; /* path NULL: without an instance */
    uint32_t from, to;
} BlockWalk;

typedef struct Elab {
    Arena *arena;
    Module *m;
    Diag *diag;
    const Program *prog;
    FrontendOptions *opt;
    ElabMode mode;
    Func *f;
    Builder b;
    Ast **define_ast;      /* by index in opt: the parsed value, or NULL */
    const char *batch_dim; /* GENERATE: this dim is 1 */
    int64_t batch;         /* dimension 0 of this function's inputs; 0 before them */
    VEC(Binding) scope;
    uint32_t n_globals, frame;
    Instance *inst;
    Call *call;
    uint32_t depth, n_steps, n_instances;
    bool said, said_limit; /* said: the last error was shown, not a repetition */
    ValueId rng;
    VEC(ValueId) reads; /* by VarId: the read in this function */
    Map *reported;      /* places that had their error */
    Map *param_pos;     /* interned path -> VarId */
    Map *locs;          /* place and instance -> LocId */
    VEC(OutputVal) outputs;
    VEC(BlockWalk) walks; /* of this function; only with --precision-of */
    Val loss;
    SrcPos loss_pos;
} Elab;

/* ---- elab.c: errors, scope ---- */
Val elab_error(Elab *e, SrcPos pos, DiagCode code, const char *fmt, ...) ZM_PRINTF(4, 5);
/* Belong to the last error; silent when that was a repetition. */
void elab_note(Elab *e, SrcPos pos, const char *fmt, ...) ZM_PRINTF(3, 4);
void elab_help(Elab *e, const char *fmt, ...) ZM_PRINTF(2, 3);
void elab_note_operand(Elab *e, const Ast *ast, Val v); /* "x is f32[4,8], declared here" */
void scope_add(Elab *e, const char *name, Val val, SrcPos pos);
const Binding *scope_find(const Elab *e, const char *name); /* NULL when absent */
const char *elab_text(Elab *e, Val v);

/* ---- elab_expr.c ---- */
Val elab_expr(Elab *e, const Ast *ast);
bool elab_int(Elab *e, const Ast *ast, const char *what,
              int64_t *out); /* an integer number; false after an error */
Status val_to_int(Elab *e, SrcPos pos, Val v, const char *what, int64_t *out);

/* ---- elab_number.c: compile-time arithmetic ---- */
Val number_unary(Elab *e, SrcPos pos, Operator opr, Val a);
Val number_binary(Elab *e, SrcPos pos, Operator opr, Val a, Val b);
/* exp, sqrt, min, ... of numbers.  False when `name` is not one of them. */
bool number_call(Elab *e, SrcPos pos, const char *name, const Val *args, uint32_t n, Val *out);

/* ---- elab_ops.c: ops on tensors; every one checks before it builds ---- */
void elab_at(Elab *e,
             SrcPos pos); /* ops emitted from here on come from pos, in the running instance */
Val emit(Elab *e, SrcPos pos, OpCode code, const ValueId *in, uint32_t n_in, const AttrList *l);
/* The same for ops with several results; out[n]. */
Status emit_many(Elab *e, SrcPos pos, OpCode code, const ValueId *in, uint32_t n_in,
                 const AttrList *l, ValueId *out);
const Type *val_type(const Elab *e, Val v);
Status shape_check(Elab *e, SrcPos pos, int rank,
                   const int64_t *dim); /* positive, rank and elements within limits */
/* A number or bool becomes a constant of dtype; a tensor stays. */
Status val_to_tensor(Elab *e, SrcPos pos, Val v, DType dtype, Val *out);
Val emit_point(Elab *e, SrcPos pos, OpCode code, Val *v, const Ast *const *ast, uint32_t n,
               const char *what);
Val emit_select(Elab *e, SrcPos pos, const Val *v, const Ast *const *ast); /* cond, yes, no */
Val emit_binary(Elab *e, const Ast *ast, Operator opr, Val a, Val b);
Val emit_broadcast(Elab *e, SrcPos pos, Val v, int rank, const int64_t *dim);
Val emit_reshape(Elab *e, SrcPos pos, Val v, int rank, const int64_t *dim);
Val emit_transpose(Elab *e, SrcPos pos, Val v, const int64_t *perm);
Val emit_slice(Elab *e, SrcPos pos, Val v, const int64_t *start, const int64_t *size);
Val emit_slice_axis(Elab *e, SrcPos pos, Val v, int axis, int64_t start, int64_t size);
Val emit_index(Elab *e, const Ast *ast, Val base);
Val emit_const(Elab *e, SrcPos pos, double v, DType dtype, int rank, const int64_t *dim);
Val emit_cast(Elab *e, SrcPos pos, Val v, DType dtype);
/* An axis number: from the end when negative, the last when left out. */
Status axis_of(Elab *e, SrcPos pos, Val v, const Type *t, int *axis);

/* ---- builtins.c ---- */
typedef struct BuiltinCall { /* arguments by parameter; NONE where left out */
    SrcPos pos;
    const char *name;
    Val arg[MAX_ARGS];
    const Ast *ast[MAX_ARGS];
    Val *rest; /* of a builtin that takes any number of values */
    uint32_t n_rest;
} BuiltinCall;
typedef Val (*BuiltinFn)(Elab *e, BuiltinCall *c);

bool builtin_exists(const char *name);
void builtin_each(void (*visit)(void *cx, const char *name), void *cx);
Val builtin_call(Elab *e, const Ast *call);

/* ---- elab_block.c: blocks, instances, bodies ---- */
Val elab_call(Elab *e, const Ast *call);         /* instance, block or builtin */
Val elab_instance(Elab *e, const Ast *instance); /* name: block(args) */
void elab_body(Elab *e, const Ast *body);

/* ---- elab_type.c: argument types ---- */
/* Binds new names of the type to the value's dimensions, checks the others. */
Status type_match(Elab *e, const Ast *type, const char *name, const Ast *given, Val v,
                  SrcPos call_pos);
/* The type when all of its dimensions are known. */
Status type_eval(Elab *e, const Ast *type, const Type **out);
/* Does a result fit its declared type?  False after an error. */
Status type_check_result(Elab *e, const Ast *type, const Ast *given, Val v);

/* ---- precision.c ---- */
/* The ops from number `from` on, that have no precision yet, get this one. */
void precision_stamp(Elab *e, uint32_t from, const char *word);
/* A block was walked, whose ops begin with number `from`; inst may be NULL. */
void precision_note_walk(Elab *e, const Ast *block, const Instance *inst, uint32_t from);
void precision_apply(Elab *e);   /* --precision-of, to the function that was walked */
Status precision_check(Elab *e); /* each names something */

/* ---- elab_param.c ---- */
void elab_param(Elab *e, const Ast *param);
/* A parameter of this instance or one in it, by its path from here. */
bool param_find(Elab *e, const char *name, Val *out);

/* ---- elab_model.c ---- */
void elab_assert(Elab *e, const Ast *assertion);
void elab_output(Elab *e, const Ast *output);
void elab_loss(Elab *e, const Ast *loss);
Func *elab_function(Elab *e, ElabMode mode); /* NULL after errors */
const char *model_batch_dim(const Program *prog);

/* ---- program.c, names.c, elab.c, sections.c, index_range.c ---- */
Status program_sort(Arena *arena, Diag *diag, Ast *file, Program *prog);
Status names_check(Arena *arena, Diag *diag, Program *prog);
/* The value of -D name=..., which counts as used from now on; NULL when there is none. */
Ast *define_find(Elab *e, const char *name);
/* "train.optimizer.lr" and every other setting that -D takes. */
void settings_each(Arena *a, void (*visit)(void *cx, const char *name), void *cx);
Status sections_read(Elab *e); /* train, data, weights -> module */
Status feeds_bound(Elab *e);   /* ranges of integer inputs from their uses */

#endif
