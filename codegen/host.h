/* host.h -- a planned module's kernels loaded into this process: zm-run --backend cpu, and tests of
 * the back end against the interpreter.  One thread; training uses runtime/ instead.
 *
 * A module over N ranks runs as N arenas, command by command on each of them, so that a collective
 * finds every rank's operand.  Reductions are those of runtime/comm.h: in rank order, 16 bits in
 * f32. */
#ifndef ZM_CODEGEN_HOST_H
#define ZM_CODEGEN_HOST_H

#include "codegen/codegen.h"
#include "ir/eval/eval.h"

typedef struct HostProgram HostProgram;

/* Compiles m (FACT_PLANNED) for t and loads it through cc -shared.  NULL after a diagnostic, also
 * when this processor cannot run t's code.  Variables start as zeros. */
HostProgram *host_program_new(const Module *m, const CodegenTarget *t);
void host_program_free(HostProgram *h);

uint32_t host_n_ranks(const HostProgram *h);

/* A variable's elements on one rank, row-major; conversion as by dtype_round.  A view in a sharded
 * bucket has no elements of its own: nothing happens. */
void host_set_rank_var(HostProgram *h, uint32_t rank, VarId v, const double *at);
void host_get_rank_var(const HostProgram *h, uint32_t rank, VarId v, double *at);

typedef enum HostOrder {                /* two that must give the same bits */
                         HOST_FORWARDS, /* tasks in ascending order; collectives happen at their
                                           start */
                         HOST_BACKWARDS /* in descending order; at their wait, with garbage in the
                                           result before */
} HostOrder;

/* Runs the function: rank r on in[r * params ...]; its results, allocated in a, go to out[r *
 * results ...]. */
void host_run_ranks(HostProgram *h, const Func *f, const EvalTensor *in, Arena *a, EvalTensor *out,
                    HostOrder order);

/* The same on one rank. */
void host_set_var(HostProgram *h, VarId v, const double *at);
void host_get_var(const HostProgram *h, VarId v, double *at);
void host_run(HostProgram *h, const Func *f, const EvalTensor *in, Arena *a, EvalTensor *out,
              bool backwards);

#endif
