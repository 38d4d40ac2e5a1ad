/* print.h -- shared by the files that print CUDA C; not for others. */
#ifndef ZM_CODEGEN_CUDA_PRINT_H
#define ZM_CODEGEN_CUDA_PRINT_H

#include "codegen/cuda/cuda.h"

typedef struct Printer {
    const Kernel *k;
    const Module *m; /* or NULL */
    CudaSchedule s;
    Str *out;
    int depth;              /* of indentation */
    const char *index_type; /* of element numbers */
    bool *is_live;          /* node: some store or reduction depends on it */
    bool *is_wanted;        /* node: the sweep that is being printed needs it */
    int32_t *ready;         /* node: sweeps that must be over before it can be computed */
    uint32_t used_loops;    /* loops whose index is used */
} Printer;

/* Starts a line; ends it, with the op's name and .zm line as comment (loc none: the name alone;
 * what NULL: no comment). */
void print_indent(Printer *p);
void print_end(Printer *p, const char *what, LocId loc);

const char *memory_type(DType dt);   /* of an element in memory: "float", "zm_bf16" */
const char *register_type(DType dt); /* of a value: 16-bit floats are held as float */
void print_const(Str *out, DType dt, double v);
void print_offset(Printer *p, const Access *at); /* element number within the argument */
/* The value of node i: a literal, or the variable that holds it. */
void print_use(Printer *p, int32_t node);
/* The expression that computes node i out of its arguments; not for KN_REDUCE. */
void print_node_expr(Printer *p, uint32_t node);
void print_store_value(Printer *p, const Store *store);

#endif
