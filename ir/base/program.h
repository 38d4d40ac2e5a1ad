/* program.h -- the compiled program as the runtime sees it: flat tables in one read-only blob
 * inside the executable.
 *
 * codegen/program.c writes it, runtime/ reads it in place.  Every reference is an index into a
 * table or an offset into the string table (0 = ""); all integers little-endian; every table starts
 * at a multiple of 8. The executable holds these symbols: zm_program (the blob), zm_program_bytes
 * (uint64_t), zm_kernel_fns (array of ZmKernelFn, one per phase of each kernel of the cpu),
 * zm_device_code and zm_device_code_bytes (what the table `modules` points into; cuda).
 */
#ifndef ZM_BASE_PROGRAM_H
#define ZM_BASE_PROGRAM_H

#include <stdint.h>

#define ZMP_MAGIC 0x315247504d5aull /* "ZMPGR1" */
enum { ZMP_VERSION = 7, ZMP_MAX_RANK = 8, ZMP_MAX_PHASES = 4, ZMP_ALIGN = 64 };

/* A CPU kernel runs in phases with a barrier between them; a phase is n_tasks independent tasks, in
 * any order on any thread.  bufs[i]: address of argument i; scratch: scratch_bytes of the calling
 * thread, 64-byte aligned, undefined contents.  The result must not depend on which thread runs a
 * task. */
typedef void (*ZmKernelFn)(char *const *bufs, int64_t task, char *scratch);

typedef struct ZmpRange { /* a table */
    uint64_t offset;      /* bytes from the blob's start */
    uint64_t n;           /* entries */
} ZmpRange;

typedef struct ZmpHeader {
    uint64_t magic;
    uint32_t version;
    uint32_t ranks, zero_stage, accumulate;
    uint64_t hash;             /* of everything below: checkpoint and rank compatibility */
    uint64_t arena_bytes;      /* the plan's arena: what the runtime allocates, to the byte */
    uint64_t persistent_bytes; /* [0, persistent_bytes) of the arena: variables */
    uint64_t scratch_bytes;    /* per thread, maximum over kernels; not in the arena */
    int64_t batch, items;      /* B and B*T of a micro-batch */
    int64_t n_params;          /* elements of all parameters, tied ones once */
    double loss_scale_min; /* an overflow at it with hysteresis spent ends the run; 0: none does */
    double corrupt_rate, corrupt_span; /* = Corruption of ir.h; rate 0: none */
    int64_t corrupt_mask, corrupt_eos, corrupt_start;
    uint32_t model, target /* "cpu", "cuda:sm_90" */, cpu, precision, source,
        command_line;      /* strings */
    uint32_t cpu_features; /* comma-separated names for __builtin_cpu_supports */
    uint32_t plan_text;    /* the table of `zmc plan`, for --info */
    uint32_t ir;           /* the planned module as text, for --audit-numerics; "": none */
    uint64_t order_hash;   /* of the sequence of collectives of all functions: equal on all ranks */
    ZmpRange strings, vars, buffers, kernels, args, commands, funcs, ports, feeds, weight_rules,
        consts, collectives, modules;
} ZmpHeader;

enum ZmpDType { ZMP_I1 = 1, ZMP_I32, ZMP_BF16, ZMP_F16, ZMP_F32, ZMP_F64 };  /* = DType of ir.h */
enum ZmpVarKind { ZMP_PARAM, ZMP_MASTER, ZMP_MOMENT, ZMP_GRAD, ZMP_SCALAR }; /* = VarKind */
enum ZmpInit { ZMP_ZEROS, ZMP_ONES, ZMP_CONST, ZMP_NORMAL, ZMP_UNIFORM };    /* = InitKind */

/* Persistent variables: parameters (views of buckets), buckets, moments, accumulators, scalars.
 * Initial value of element e of a parameter: Philox keyed by (seed, hash_bytes(name), e); see
 * runtime/init.c. */
typedef struct ZmpVar {
    uint32_t name, loc; /* strings; loc = "gpt2.zm:12:3" */
    uint32_t kind, dtype, init, rank;
    uint32_t has_decay, is_bucket;
    int32_t in, of;    /* variable index or -1 (ir.h: Var.in, Var.of) */
    int64_t in_offset; /* elements within `in` */
    int64_t dim[ZMP_MAX_RANK];
    int64_t elems;
    double init_a;
    int64_t arena_offset; /* bytes, of its first element */
    int32_t buffer;       /* index into buffers, of the storage */
    int32_t is_sharded;   /* 1: dim, elems and the storage are those of this rank's part, elements
                             [rank * elems, (rank + 1) * elems) of ranks * elems.  A view in a sharded
                             bucket is not marked itself: it has its own full dims, in_offset counts
                             in the whole bucket, arena_offset is the bucket's; no rank holds all */
    int32_t is_partial;   /* 1: each rank has a summand of its own */
    int32_t reserved;
} ZmpVar;

/* A unit of the memory plan: values that share one storage are one buffer.  func = -1: persistent.
 */
typedef struct ZmpBuffer {
    uint32_t name, cat, loc;
    int32_t func;
    int64_t arena_offset, bytes;
    int32_t live_from,
        live_to; /* command indices within the function, inclusive; inputs from -1, results to n */
} ZmpBuffer;

enum { ZMP_BF16_PRODUCTS = 1 }; /* multiplies pairs of bf16 at the processor's own rate */
typedef struct ZmpKernel {
    uint32_t name;
    uint32_t n_phases;
    uint32_t first_fn; /* zm_kernel_fns[first_fn + phase] */
    uint32_t flags;
    int64_t n_tasks[ZMP_MAX_PHASES];
    int64_t task_cost[ZMP_MAX_PHASES]; /* about flops + bytes of a task: the runtime runs cheap
                                          phases on one thread */
    /* GPU: no phases; arguments are pointers, in the order of the command's args */
    uint32_t entry;  /* string: its name in the module */
    uint32_t module; /* index into modules */
    uint32_t block_x, block_y, grid_x;
    uint32_t shared_bytes; /* asked for at launch; what the code declares itself not counted */
} ZmpKernel;

/* One source text compiled for a GPU, as ranges of zm_device_code.  PTX ends with a NUL that its
 * bytes count; the cubin is for the architecture of header.target alone, and may be absent. */
typedef struct ZmpModule {
    uint32_t name, reserved; /* string: "kernels_0.cu" */
    ZmpRange ptx, cubin;
} ZmpModule;

enum { ZMP_ARG_READ = 1, ZMP_ARG_WRITE = 2 };
typedef struct ZmpArg {
    int32_t buffer; /* -1: the table `consts`, read only */
    uint32_t flags;
    int64_t offset, bytes; /* range within the buffer (or table) that the command may touch */
    int64_t rank_stride;   /* rank r's range begins at offset + r * rank_stride */
    uint32_t dtype;        /* of the elements */
    uint32_t name;         /* of the value or variable */
} ZmpArg;

/* KERNEL: args in the kernel's order.  COPY: args = destination, source.  ZERO: args = destination.
 * PROBE: args = gradients of variables (arg name = variable's name), last the f32 factor that
 * unscales them; a place where
 * --dump-grads reads them; otherwise nothing. */
/* START: begins collective `kernel` of the table `collectives`; args = result, operand.  WAIT: ends
 * it; same args, which belong to it from START to WAIT. */
enum ZmpCommandKind { ZMP_KERNEL, ZMP_COPY, ZMP_ZERO, ZMP_PROBE, ZMP_START, ZMP_WAIT };
typedef struct ZmpCommand {
    uint32_t kind, kernel;
    uint32_t first_arg, n_args;
    uint32_t label, loc; /* "matmul+bias+gelu", "gpt2.zm:20:11" */
    double flops, bytes; /* useful arithmetic, bytes that must move */
} ZmpCommand;

enum ZmpCollectiveKind { ZMP_ALL_GATHER, ZMP_REDUCE_SCATTER, ZMP_ALL_REDUCE }; /* = CommKind */
/* One collective of one function, in the order in which all ranks start them. */
typedef struct ZmpCollective {
    uint32_t kind, dtype; /* on the wire */
    uint32_t tensor, loc; /* strings: "bucket.3", "gpt2.zm:12:3" */
    uint32_t what;        /* string: "params", "grads" or "scalars" */
    int32_t func;
    int64_t count; /* elements of the whole tensor */
} ZmpCollective;

/* A function's inputs and named results.  Inputs are filled by the loader: a feed's name, or "rng"
 * = i32[4] {seed low, seed high, step, number of the first sample of this micro-batch}. */
typedef struct ZmpPort {
    uint32_t name, dtype, rank;
    int32_t buffer;
    int64_t offset;
    int64_t dim[ZMP_MAX_RANK];
} ZmpPort;

/* Functions: "micro" (A - 1 times, absent when A = 1), "last", "eval", "generate" (one sample; may
 * be absent). */
typedef struct ZmpFunc {
    uint32_t name, first_command, n_commands;
    uint32_t first_in, n_in, first_out, n_out; /* ports */
    uint32_t reserved;
    int64_t peak_live;
} ZmpFunc;

enum ZmpFeedKind { /* = FeedKind */
                   ZMP_TOKENS,
                   ZMP_TARGETS,
                   ZMP_TENSOR,
                   ZMP_MASKED,
                   ZMP_MASK_TARGETS,
                   ZMP_SPAN_INPUTS,
                   ZMP_SPAN_TARGETS,
                   ZMP_SPAN_DECODER
};
typedef struct ZmpFeed {
    uint32_t input, kind;
    int64_t bound; /* integers: 0 <= v < bound (0: unchecked) */
    int64_t ignore;
    uint32_t has_ignore, reserved;
} ZmpFeed;

enum ZmpWeightRuleKind { ZMP_STRIP, ZMP_IGNORE, ZMP_ALIAS, ZMP_RENAME }; /* = WeightRuleKind */
typedef struct ZmpWeightRule {
    uint32_t kind, from, to, reserved;
} ZmpWeightRule;

/* Scalar variables that the runtime reads after a step (ZMP_SCALAR, by name).  Passes create them
 * under these names. */
#define ZMP_S_STEP "step"           /* i32: attempts done */
#define ZMP_S_UPDATE "update"       /* i32: updates done */
#define ZMP_S_LOSS_SUM "loss_sum"   /* f64: of the step so far (accumulate > 1); @last zeroes it */
#define ZMP_S_COUNT "count"         /* f64: items with weight, likewise */
#define ZMP_S_LOSS "loss"           /* f64: mean item loss of the last step, unscaled */
#define ZMP_S_GRAD_NORM "grad_norm" /* f64: unscaled, before clipping */
#define ZMP_S_LR "lr" /* f64: applied, or what would have been; already rounded to f32's value */
#define ZMP_S_SKIPPED "skipped"    /* i32: 1 when the last step was skipped */
#define ZMP_S_SKIPS "skips_in_row" /* i32 */
#define ZMP_S_SCALE "loss_scale"   /* f32: for the next step's backward; absent when static */
#define ZMP_S_SCALE_USED "loss_scale_used" /* f32: of the last step's backward */
#define ZMP_S_HYSTERESIS "hysteresis"      /* i32: left */
#define ZMP_S_GOOD "good_steps"            /* i32: clean steps counted towards the scale's growth */
#define ZMP_S_EXHAUSTED                                                                            \
    "scale_exhausted" /* i32: 1: overflow at the least scale, hysteresis spent */
#define ZMP_S_STOP                                                                                 \
    "stop" /* f64: the runtime writes 1 before a step when this rank was told to stop ... */
#define ZMP_S_STOPS                                                                                \
    "stops" /* f64: ... and reads after it how many ranks were; absent on one rank */
#define ZMP_S_EVAL_SUM "eval_loss_sum" /* f64: @eval adds; the runtime zeroes */
#define ZMP_S_EVAL_COUNT "eval_count"  /* f64 */

#endif
