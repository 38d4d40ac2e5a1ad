/* cpu.h -- the CPU back end: kernel forms to object code through LLVM's C API.
 *
 *   target.c     CpuTarget from --cpu
 *   module.c     one LLVM module under construction
 *   loop.c       constants, register types, control flow
 *   memory.c     vector loads and stores, casts
 *   half.c       bf16 and f16 in registers
 *   value.c      scalar nodes to LLVM values: memo, addresses, guards
 *   point.c      the POINT primitives, random numbers
 *   math.c       exp log tanh erf sin cos of f32
 *   nest*.c      kernels `nest` and `scatter`
 *   contract*.c  kernels `contract`
 *   attention*.c kernels `attention`
 *   objects.c    all kernels of a program; program_object.c: its tables
 *
 * Numbers: every IR op is done as written and rounded once; no fast-math flag on nests, no
 * contraction of a * b + c.  Only the order of a reduction's sum is the back end's, fixed by the
 * form and the target.  A contraction accumulates with FMA where the target has it.  16-bit floats
 * live in registers as f32, rounded to nearest even after each op of a 16-bit dtype.
 *
 * Vectors: a value that varies along the vector loop is <lanes x T> (T alone when lanes = 1), any
 * other value is a scalar and is broadcast where it meets a vector.  i1 is LLVM's i1 in registers
 * and one byte in memory.
 */
#ifndef ZM_CODEGEN_CPU_CPU_H
#define ZM_CODEGEN_CPU_CPU_H

#include <llvm-c/Core.h>
#include <llvm-c/TargetMachine.h>

#include "codegen/kernel.h"
#include "ir/base/program.h"

/* ---- target (target.c) ---- */

typedef struct CpuTarget {
    const char *name; /* as given: "native", "x86-64-v3", ... */
    const char *cpu; /* what the code may use: LLVM's "x86-64-v2", "x86-64-v3" or "x86-64-v4" ... */
    const char *features; /* ... plus these, LLVM's feature string */
    const char *tune;     /* LLVM's processor name whose costs to assume */
    const char *needs;    /* comma-separated __builtin_cpu_supports names that the code relies on */
    int vector_bytes;     /* 64, 32 or 16 */
    int n_vector_regs;    /* 32 with AVX-512, else 16 */
    bool has_fma, has_f16c, has_avx2, has_avx512, has_avx512bf16; /* avx512: F, BW, CD, DQ, VL */
    int64_t l1_bytes, l2_bytes; /* per core, for blocking; the same for every host so that sums do
                                   not depend on it */
} CpuTarget;

/* name: native | x86-64-v2 | x86-64-v3 | x86-64-v4 | a processor name of LLVM (znver4,
 * skylake-avx512, ...).  Everything below x86-64-v2, and an unknown name, is an error. */
Status cpu_target_from_name(Arena *a, Diag *diag, const char *name, CpuTarget *out);
/* May this process run code for t? */
bool cpu_target_runs_here(const CpuTarget *t);

/* ---- module (module.c) ---- */

typedef struct CpuModule {
    const CpuTarget *target;
    Arena *arena; /* of this module: names, memo tables */
    LLVMContextRef cx;
    LLVMModuleRef mod;
    LLVMBuilderRef b;
    LLVMTargetMachineRef tm;
    LLVMTypeRef void_t, ptr_t, i1_t, i8_t, i16_t, i32_t, i64_t, f16_t, f32_t, f64_t;
    /* the function under construction (cpu_function_begin) */
    LLVMValueRef fn, bufs, task, scratch; /* ZmKernelFn's parameters */
    LLVMBasicBlockRef entry;              /* where cpu_alloca puts its allocas */
} CpuModule;

/* Once per process, before threads start. */
void cpu_llvm_init(void);
CpuModule *cpu_module_new(Arena *a, const CpuTarget *t, const char *name);
void cpu_module_free(CpuModule *m);
/* Verifies (debug builds), optimises where it pays, writes an object file.  A failure is a
 * diagnostic. */
Status cpu_module_write(CpuModule *m, Diag *diag, const char *path);

/* Starts `void name(char *const *bufs, int64_t task, char *scratch)`, visible to the linker; the
 * builder stands in its first block.  cpu_function_end returns. */
void cpu_function_begin(CpuModule *m, const char *name);
void cpu_function_end(CpuModule *m);
/* Adds the target's attributes (cpu, features, vector width) to any function. */
void cpu_function_attrs(CpuModule *m, LLVMValueRef fn);
LLVMValueRef cpu_buffer(CpuModule *m, uint32_t arg); /* ptr: address of kernel argument `arg` */
LLVMValueRef cpu_alloca(CpuModule *m, LLVMTypeRef t, uint32_t align);
/* A call of an intrinsic or of a libm function with the given signature (result type first). */
LLVMValueRef cpu_intrinsic(CpuModule *m, const char *name, LLVMTypeRef *overload,
                           uint32_t n_overload, LLVMValueRef *args, uint32_t n_args);
LLVMValueRef cpu_libm(CpuModule *m, const char *name, LLVMTypeRef t, LLVMValueRef *args,
                      uint32_t n_args);

/* ---- constants, types, loops (loop.c) ---- */

LLVMValueRef cpu_i64(CpuModule *m, int64_t v);
LLVMValueRef cpu_i32(CpuModule *m, int32_t v);
LLVMValueRef cpu_f32(CpuModule *m, double v);
/* Type of a register of a dtype: i1, i32, float (bf16, f16, f32) or double; <lanes x ...> when
 * lanes > 1. */
LLVMTypeRef cpu_reg_type(CpuModule *m, DType dt, int lanes);
LLVMTypeRef cpu_mem_type(CpuModule *m, DType dt);      /* i8, i32, i16 (bf16, f16), float, double */
LLVMTypeRef cpu_vec_type(LLVMTypeRef elem, int lanes); /* elem itself when lanes = 1 */
int cpu_lanes(LLVMValueRef v);                         /* 1 for a scalar */
LLVMValueRef cpu_splat(CpuModule *m, LLVMValueRef scalar,
                       int lanes); /* v itself when it has the lanes already */
LLVMValueRef cpu_lane_ramp(CpuModule *m, LLVMTypeRef int_elem, int lanes,
                           int64_t step); /* 0, step, 2 step, ... */
/* a * k + b over i64, folding k = 0, 1 and constants */
LLVMValueRef cpu_mad(CpuModule *m, LLVMValueRef a, int64_t k, LLVMValueRef b);

/* for (index = lo; index < hi; index += step) with carried values.  Between begin and end the
 * builder stands in the body and carried[i] is the value at the iteration's start; after end it
 * stands behind the loop and carried[i] is the final value. */
enum { CPU_MAX_CARRIED = 1024 };
typedef struct CpuLoop {
    LLVMValueRef index, hi, step;
    LLVMBasicBlockRef head, body, exit;
    uint32_t n_carried;
    LLVMValueRef *carried; /* phis; in the module's arena */
} CpuLoop;
CpuLoop cpu_loop_begin(CpuModule *m, LLVMValueRef lo, LLVMValueRef hi, int64_t step,
                       const LLVMValueRef *init, uint32_t n_carried);
void cpu_loop_end(CpuModule *m, CpuLoop *l, const LLVMValueRef *next);

/* if (cond) { between begin and end } */
typedef struct CpuIf {
    LLVMBasicBlockRef join;
} CpuIf;
CpuIf cpu_if_begin(CpuModule *m, LLVMValueRef cond);
void cpu_if_end(CpuModule *m, CpuIf *i);

/* ---- memory (memory.c) ---- */

/* Address of element `elem` (i64) of an argument of dtype dt. */
LLVMValueRef cpu_elem_ptr(CpuModule *m, LLVMValueRef base, DType dt, LLVMValueRef elem);
/* `lanes` consecutive elements at p as registers.  mask: NULL, or <lanes x i1> of the lanes that
 * may be touched; others yield 0. The alignment assumed is the element's. */
LLVMValueRef cpu_load(CpuModule *m, DType dt, LLVMValueRef p, int lanes, LLVMValueRef mask);
void cpu_store(CpuModule *m, DType dt, LLVMValueRef v, LLVMValueRef p, int lanes,
               LLVMValueRef mask);
/* Lane i from / to base + elem[i] elements. */
LLVMValueRef cpu_gather(CpuModule *m, DType dt, LLVMValueRef base, LLVMValueRef elems, int lanes,
                        LLVMValueRef mask);
void cpu_scatter(CpuModule *m, DType dt, LLVMValueRef v, LLVMValueRef base, LLVMValueRef elems,
                 int lanes, LLVMValueRef mask);
/* Fetches the line at p (any address) into the second-level cache. */
void cpu_prefetch(CpuModule *m, LLVMValueRef p);
/* <lanes x i1>: lane i is set when index + i < n (i64). */
LLVMValueRef cpu_tail_mask(CpuModule *m, LLVMValueRef index, LLVMValueRef n, int lanes);
/* Registers between dtypes, as op `cast` does. */
LLVMValueRef cpu_cast(CpuModule *m, LLVMValueRef v, DType from, DType to);

/* ---- 16-bit floats (half.c) ---- */

/* A register of a 16-bit dtype after arithmetic in f32: rounded to dt, still float.  Other dtypes:
 * v itself. */
LLVMValueRef cpu_round(CpuModule *m, LLVMValueRef v, DType dt);
/* i16 of memory to float and back; v is exact in dt (cpu_round). */
LLVMValueRef cpu_half_load(CpuModule *m, DType dt, LLVMValueRef raw);
LLVMValueRef cpu_half_store(CpuModule *m, DType dt, LLVMValueRef v);

/* ---- values (value.c, point.c, math.c) ---- */

/* Where nodes are evaluated: loop indices, lanes, memo.  Start with cpu_eval_new at function entry,
 * set `index` of a loop when it starts, and work on a cpu_eval_fork inside a block whose values
 * must not be seen behind it. */
typedef struct CpuEval {
    CpuModule *m;
    const Kernel *k;
    LLVMValueRef index[KERNEL_MAX_LOOPS]; /* i64; of the vector loop: index of lane 0 */
    int vec_loop;                         /* -1: none */
    int lanes;                            /* along vec_loop */
    LLVMValueRef mask;                    /* <lanes x i1> or NULL: lanes that exist */
    LLVMValueRef acc;                     /* KN_ACC: f32 or f64, scalar or <lanes x> */
    LLVMValueRef *bufs;                   /* [n_args] addresses, loaded at entry */
    LLVMValueRef *value; /* [n_nodes] memo; NULL = not computed.  KN_REDUCE: filled by the caller */
    struct CpuPartial *partial; /* [n_accesses + n_stores]: the part of an address known so far */
} CpuEval;
CpuEval cpu_eval_new(CpuModule *m, const Kernel *k);
CpuEval cpu_eval_fork(const CpuEval *e); /* same place, own memo that starts as a copy */
/* Before a loop starts: computes, of nodes[0..n) and what they need, everything that depends on the
 * loops in `known` only (bits of loops whose index is set) and on reductions that have a value; and
 * the part of their addresses that does, also of the stores in `stores` (bit per store, may be 0).
 * What the loops inside use again is then computed once. */
void cpu_eval_hoist(CpuEval *e, const int32_t *nodes, uint32_t n, uint64_t stores, uint32_t known);

/* The value of a node: a scalar if it does not vary along vec_loop, else e->lanes wide. */
LLVMValueRef cpu_emit_node(CpuEval *e, int32_t node);
/* The same, broadcast to e->lanes. */
LLVMValueRef cpu_emit_node_lanes(CpuEval *e, int32_t node);
/* Honours mode (ST_ADD: read, add, write) and mask; value as cpu_emit_node gives it. */
void cpu_emit_store(CpuEval *e, const Store *s, LLVMValueRef value);

/* One POINT primitive on registers of equal lanes.  dt: dtype of the result; in_dt: of the
 * operands. */
LLVMValueRef cpu_emit_point(CpuModule *m, OpCode op, DType dt, DType in_dt, LLVMValueRef *in);

/* f32, any lanes; tests/unit/cpu_math.c holds the bounds. */
LLVMValueRef cpu_exp_f32(CpuModule *m, LLVMValueRef x);
LLVMValueRef cpu_log_f32(CpuModule *m, LLVMValueRef x);
LLVMValueRef cpu_tanh_f32(CpuModule *m, LLVMValueRef x);
LLVMValueRef cpu_erf_f32(CpuModule *m, LLVMValueRef x);
LLVMValueRef cpu_sin_f32(CpuModule *m, LLVMValueRef x);
LLVMValueRef cpu_cos_f32(CpuModule *m, LLVMValueRef x);
/* a * b + c in one rounding where the target has FMA, else in two; for math functions and
 * contractions. */
LLVMValueRef cpu_fma(CpuModule *m, LLVMValueRef a, LLVMValueRef b, LLVMValueRef c);
/* max as ops.def has it: NaN if either is. */
LLVMValueRef cpu_max(CpuModule *m, LLVMValueRef a, LLVMValueRef b);

/* RANDOM of ops.def: f32 in [0, 1) from the key words (i32: seed low, seed high, step, first
 * sample), the element, the sample within the micro-batch and the words of the stream's hash (low,
 * high). */
LLVMValueRef cpu_random(CpuModule *m, const LLVMValueRef key[4], LLVMValueRef element,
                        LLVMValueRef sample, const LLVMValueRef stream[2]);

/* ---- kernels ---- */

typedef struct CpuKernelCode {
    uint32_t n_phases;
    int64_t n_tasks[ZMP_MAX_PHASES];
    int64_t task_cost[ZMP_MAX_PHASES]; /* about flops + bytes of one task */
    const char *fn[ZMP_MAX_PHASES];    /* symbol of each phase: cpu_phase_name() */
    bool has_bf16_products;            /* of pairs, by AVX512-BF16 */
    KernelNeeds needs;                 /* = cpu_kernel_needs() */
} CpuKernelCode;

const char *cpu_phase_name(CpuModule *m, const char *name, uint32_t phase); /* "name_phase" */

/* Each adds the kernel's functions to m.  name: unique in the executable.  When the kernel wants
 * workspace, it is the argument behind the form's own (bufs[k->n_args]), 64-byte aligned, contents
 * undefined. */
Status cpu_emit_nest(CpuModule *m, const Kernel *k, const char *name,
                     CpuKernelCode *out); /* nest, scatter */
Status cpu_emit_contract(CpuModule *m, const Kernel *k, const char *name, CpuKernelCode *out);
Status cpu_emit_attention(CpuModule *m, const Kernel *k, const char *name, CpuKernelCode *out);
KernelNeeds cpu_nest_needs(const CpuTarget *t, const Kernel *k);
KernelNeeds cpu_contract_needs(const CpuTarget *t, const Kernel *k);
KernelNeeds cpu_attention_needs(const CpuTarget *t, const Kernel *k);

/* ---- all kernels of a program (objects.c) ---- */

Status cpu_emit_kernel(CpuModule *m, const Kernel *k, const char *name, CpuKernelCode *out);
/* Before memory planning; a pure function of form and target. */
KernelNeeds cpu_kernel_needs(const CpuTarget *t, const Kernel *k);

typedef struct CpuObjects {
    uint32_t n_kernels;
    const Kernel *const *kernels; /* distinct forms */
    CpuKernelCode *code;          /* [n_kernels], out */
    const char *const *names;     /* [n_kernels], unique C identifiers */
    const char *dir;              /* existing folder for the object files */
    uint32_t n_threads;
    uint32_t n_files;   /* out: a function of the kernels, not of n_threads */
    const char **files; /* out */
} CpuObjects;
/* Compiles every kernel, with n_threads LLVM contexts at a time. */
Status cpu_emit_objects(Arena *a, Diag *diag, const CpuTarget *t, CpuObjects *o);

typedef struct CpuProgramObject {
    const char *blob; /* of ir/base/program.h */
    size_t n_bytes;
    const char *const *fns; /* symbols in the order of the table */
    uint32_t n_fns;
    const char *shim;         /* libzmc_mpi.so, for many ranks */
    size_t shim_bytes;        /* 0: none */
    const char *device_code;  /* of a GPU */
    size_t device_code_bytes; /* 0: none */
} CpuProgramObject;

/* An object file with zm_program, zm_kernel_fns, zm_mpi_shim, zm_device_code and the bytes of each
 * but the second (program_object.c). */
Status cpu_write_program(Arena *a, Diag *diag, const CpuTarget *t, const CpuProgramObject *o,
                         const char *path);

#endif
