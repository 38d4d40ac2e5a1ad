/* eval.h -- the reference interpreter: what IR means, in doubles, slow and obvious.  It is the
 * oracle for every pass and back end, so nothing here is derived from an op's LOWER or GRAD text.
 *
 * Each op's results are rounded to their dtype once; what happens inside of an op (a row's sum, a
 * contraction) stays in doubles.  is_unrounded keeps floats as doubles everywhere, for gradient
 * checks by differences; integers and i1 are always exact.
 */
#ifndef ZM_IR_EVAL_EVAL_H
#define ZM_IR_EVAL_EVAL_H

#include "ir/ir.h"

typedef struct EvalTensor {
    const Type *type;
    double *at; /* row-major */
} EvalTensor;

/* The state of a module: the bytes of its variables.  Stale once a pass adds or removes variables.
 */
typedef struct Eval {
    const Module *m;
    Arena *arena;
    double **storage; /* by VarId.i; NULL for views of buckets */
    bool is_unrounded;
    bool is_whole; /* of all ranks: what is sharded has all ranks' elements, a partial sum is summed
                    */
} Eval;

EvalTensor eval_tensor(Arena *a, const Type *t); /* zeros */

/* Variables start as zeros, ones or their constant; normal and uniform ones, and those in divided
 * buckets, as zeros, which the caller fills. */
Eval *eval_new(Arena *a, const Module *m);
/* The state of all ranks; to run, it is cut into those of each (below).  Without a mesh as
 * eval_new. */
Eval *eval_new_whole(Arena *a, const Module *m);
/* The elements of a variable: type_elems(type) doubles inside of its storage, those of
 * type_whole(type) when e is whole.  A view in a sharded bucket has no elements of its own
 * otherwise (ZM_CHECK). */
double *eval_var(const Eval *e, VarId v);
int64_t eval_var_elems(const Eval *e, VarId v); /* 0: such a view */
/* Element i of v as this rank holds it; NULL: v lies in a bucket that is divided among the ranks,
 * and another holds that element. */
double *eval_element(const Eval *e, uint32_t rank, VarId v, int64_t i);
/* Sets each variable of `to` that `from` has too, by name, but for those in divided buckets; types
 * agree. */
void eval_copy_vars(Eval *to, const Eval *from);

/* Results of f: type and number are those of its return's operands. */
uint32_t eval_n_results(const Func *f);
const char *eval_result_name(Arena *a, const Func *f, uint32_t i); /* from `names`, or "0", "1" */

/* Runs f on in[0 .. params) and puts its results, allocated in a, into out[0 .. results).  Inputs
 * have the parameters' shapes and dtypes (ZM_CHECK).  ZM_FAIL after a diagnostic: an index or a
 * target out of range. */
Status eval_run(Eval *e, const Func *f, const EvalTensor *in, Arena *a, EvalTensor *out);

/* Runs f on `ranks` ranks at once, op by op: rank r has the state e[r], the inputs
 * in[r * params ...] and gets the results out[r * results ...].  Collectives work over the axis
 * `data`; ZM_FAIL after a diagnostic where its size is not `ranks`. */
Status eval_run_ranks(Eval *const *e, uint32_t ranks, const Func *f, const EvalTensor *in, Arena *a,
                      EvalTensor *out);

/* ---- tensors of all ranks (axis `data`) ---- */

/* t with the elements of all ranks, replicated. */
Type type_whole(const Module *m, const Type *t);

/* What `rank` has of a whole tensor that is placed as t: its part of a sharded dimension; of a
 * partial sum rank 0 has all, the others 0. */
void eval_cut(const Type *t, const double *whole, uint32_t ranks, uint32_t rank, double *part);
/* The whole: sharded parts in rank order, partial sums added in rank order, else what rank 0 has.
 */
void eval_join(const Type *t, double *const *part, uint32_t ranks, double *whole);

void eval_cut_vars(const Eval *whole, Eval *const *e, uint32_t ranks);
void eval_join_vars(Eval *whole, Eval *const *e, uint32_t ranks);
/* Whole inputs of f (rng: of the first sample of all) to in[rank * params ...], allocated in a. */
void eval_cut_inputs(const Func *f, const EvalTensor *whole, uint32_t ranks, Arena *a,
                     EvalTensor *in);
/* out[rank * results ...] to whole results, allocated in a. */
void eval_join_results(const Func *f, const EvalTensor *out, uint32_t ranks, Arena *a,
                       EvalTensor *whole);

#endif
