/* print.h -- shared by the files that print CUDA C; not for others. */
#ifndef ZM_CODEGEN_CUDA_PRINT_H
#define ZM_CODEGEN_CUDA_PRINT_H

#include "codegen/cuda/cuda.h"

typedef struct Printer {
    const Kernel *k;
    const Module *m; /* or NULL */
    CudaArch arch;
    CudaSchedule s;
    Str *out;
    int depth;              /* of indentation */
    const char *index_type; /* of element numbers */
    const char *sum_type;   /* contractions: of the accumulators */
    bool *is_live;          /* node: some store or reduction depends on it */
    bool *is_wanted;        /* node: the loop that is being printed computes it */
    int32_t *ready;         /* node: sweeps that must be over before it can be computed */
    uint32_t used_loops;    /* loops whose index is used */
} Printer;

/* ---- print.c: lines ---- */

/* print_indent() starts a line; print_end() ends it, with the op's name and .zm line as comment
 * (what NULL: none).  The others print whole lines. */
void print_indent(Printer *p);
void print_end(Printer *p, const char *what, LocId loc);
ZM_PRINTF(2, 3) void print_line(Printer *p, const char *fmt, ...);
void print_open(Printer *p, const char *text); /* text {, and deeper */
void print_close(Printer *p);

/* ---- print.c: what the form says ---- */

int64_t loops_extent(const Kernel *k, LoopKind kind);         /* of all loops of a kind together */
void mark_inputs(const Kernel *k, uint32_t node, bool *mark); /* mark[] the nodes that it reads */
void mark_store(const Store *s, bool *mark);
LocId node_loc(const Printer *p, uint32_t node); /* its own, or the kernel's */
/* Is it computed before all loops?  It depends on none, nor on a reduction over all of them. */
bool is_constant(const Printer *p, uint32_t node);

/* ---- print.c: nodes, stores, indices ---- */

void print_constants(Printer *p);
void print_node(Printer *p, uint32_t node); /* const float v3 = ...; */
void print_stores(Printer *p, Level level);
/* const int i<d> = ...: the used indices of the loops of a kind out of their flat number. */
void print_indices(Printer *p, LoopKind kind, const char *flat);

/* ---- expr.c ---- */

const char *memory_type(DType dt);   /* of an element in memory: "float", "zm_bf16" */
const char *register_type(DType dt); /* of a value: 16-bit floats are held as float */
void print_const(Str *out, DType dt, double v);
void print_offset(Printer *p, const Access *at); /* element number within the argument */
/* The value of a node: a literal, or the variable that holds it. */
void print_use(Printer *p, int32_t node);
/* The expression that computes a node out of its arguments; not for KN_REDUCE and KN_ACC. */
void print_node_expr(Printer *p, uint32_t node);
void print_store_value(Printer *p, const Store *store);

void print_prelude_mma(Str *out); /* prelude_mma.c: tensor cores */

/* ---- bodies ---- */

void print_sweep_loop(Printer *p);
void print_nest(Printer *p);
void print_scatter(Printer *p); /* within the loop over columns */
void print_contract(Printer *p);
void print_attention(Printer *p);

#endif
