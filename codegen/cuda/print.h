/* print.h -- shared by the files that print CUDA C; not for others. */
#ifndef ZM_CODEGEN_CUDA_PRINT_H
#define ZM_CODEGEN_CUDA_PRINT_H

#include "codegen/cuda/cuda.h"

typedef struct Printer Printer;
struct Printer {
    const Kernel *k;
    const Module *m; /* or NULL */
    CudaArch arch;
    CudaSchedule s;
    Str *out;
    const char *name;
    int depth;              /* of indentation */
    const char *index_type; /* of element numbers */
    const char *sum_type;   /* contractions: of the accumulators */
    bool *is_live;          /* node: some store or reduction depends on it */
    bool *is_wanted;        /* node: the loop that is being printed computes it */
    int32_t *ready;         /* node: sweeps that must be over before it can be computed */
    uint32_t used_loops;    /* loops whose index is used */
    int wide_loop;          /* the loop that a pack's elements lie along; -1: none */
    bool is_pack;           /* printing what a pack has once: its first element's index is p<d> */
    bool *moves;            /* node: differs from element to element of a pack */
    bool *is_held;      /* load node: its packs stay on the chip: in registers, x<node>[q], or in
                           shared memory, h<node>[q] ... */
    int32_t *held_from; /* ... from this sweep on; -1: not yet */
    bool is_masked;     /* elements outside of a ragged row are computed too, and not counted */
    /* What becomes of an element's value instead of a store; NULL: the store. */
    void (*print_last)(Printer *p, const Store *s);
};

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
void print_store(Printer *p, const Store *s);
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

void print_prelude_mma(Str *out);       /* prelude_mma.c: tensor cores */
void print_prelude_attention(Str *out); /* prelude_attention.c: attention on them */
void print_prelude_contract(Str *out);  /* prelude_contract.c: tiles of contractions */
void print_prelude_wgmma(Str *out);     /* contract_wgmma.c */

bool print_guards(Printer *p, const Access *at); /* "cond ? "; false: nothing to test */

/* ---- wide.c: packs of elements that lie side by side ---- */

/* The loop along which a thread's elements lie, -1: none. */
int wide_loop(const Kernel *k, CudaShape shape);
bool access_moves(const Access *at, int loop, const bool *moves);
/* Sets width and is_ragged: the widest pack that every element store and some load allow. */
void schedule_width(const Kernel *k, CudaSchedule *s);
const Access *ragged_access_of(const Printer *p); /* whose rows the packs follow */
void find_moves(Printer *p);
/* Marks loads whose packs stay on the chip: those that several sweeps want. */
void find_held(Printer *p);
/* Bytes of shared memory for the packs of a row. */
int64_t held_bytes(const Kernel *k, const CudaSchedule *s);
int64_t held_packs(const CudaSchedule *s); /* of a row, of one load */
void print_held_in_shared(Printer *p);     /* h<node>, at the kernel's beginning */
/* The loads of held packs, before sweep `stage`. */
void print_held(Printer *p, int32_t stage);
/* Wanted nodes of one pack, `accumulate` and element stores; within the sweep's loop. */
void print_pack(Printer *p, int32_t stage, bool has_stores);

/* ---- nest.c ---- */

bool is_reduced_at(const Printer *p, uint32_t node, int32_t stage);
bool find_wanted(Printer *p, int32_t stage);
bool is_strip(const Printer *p); /* has a thread several rows side by side? */
DType accumulator_type(const Node *n);
double reduce_identity(const Node *n);
void print_row_nodes(Printer *p, int32_t ready);
void print_reduce_starts(Printer *p, int32_t stage);
void print_reduce_steps(Printer *p, int32_t stage);
const char *combine_name(const Node *n); /* "zm_sum" */
ZM_PRINTF(3, 4) void print_reduced(Printer *p, uint32_t node, const char *fmt, ...);
void print_block_combined(Printer *p, int32_t stage);
void print_range_loop(Printer *p, const char *start, const char *end, int64_t step);
void print_row_stores(Printer *p);

/* ---- bodies ---- */

void print_sweep_loop(Printer *p);
void print_nest(Printer *p);
/* online.c: sweeps 0 and 1 in one? */
bool is_online(const Printer *p);
void print_online(Printer *p);
/* split.c; bytes of the workspace for a schedule of `units` parts. */
int64_t split_workspace(const Kernel *k, const CudaSchedule *s, int64_t units);
void print_split(Printer *p);
void print_strips(Printer *p); /* strip.c */
void print_scatter(Printer *p);
void print_contract(Printer *p);
void print_attention(Printer *p);
void print_flash(Printer *p);
void schedule_flash(const AttnSpec *a, CudaArch arch, CudaSchedule *s); /* attention_tiles.c */
/* Does the tensor core kernel serve s on the chip? */
bool flash_fits(const AttnSpec *s, CudaArch arch);

#endif
