/* codegen.h -- from a planned module to text or to an executable: what the driver calls.
 *
 *   codegen.c   kernels of a module (built once, equal forms shared), statistics, --emit kernels
 *   gpu.c       the same for a GPU: its code is data of the executable
 *   program.c   the blob of ir/base/program.h, --emit program
 *   link.c      objects + libzmrt.a -> executable, through the system's cc
 */
#ifndef ZM_CODEGEN_CODEGEN_H
#define ZM_CODEGEN_CODEGEN_H

#include "ir/ir.h"

/* What --target and --cpu chose. */
typedef struct CodegenTarget {
    Arena *arena;
    Diag *diag;
    bool is_cuda;
    const char *arch;            /* cuda: "sm_90" */
    const struct CpuTarget *cpu; /* cpu */
} CodegenTarget;

/* target: "cpu" (NULL: cpu), "cuda", "cuda:sm_90"; cpu: a --cpu name (NULL: native).  Errors are
 * diagnostics. */
Status codegen_target_init(CodegenTarget *t, Arena *arena, Diag *diag, const char *target,
                           const char *cpu);

/* PassOptions.workspace_bytes: what the target's kernel for fused op `fused` wants beside its
 * operands and results. `target` is a CodegenTarget. */
int64_t codegen_workspace_bytes(void *target, const Func *f, OpId fused);

typedef struct CodegenOptions {
    const char *runtime_lib; /* path of libzmrt.a */
    const char
        *mpi_shim; /* path of libzmc_mpi.so, put into programs of many ranks; may be absent */
    const char *source, *command_line, *plan_text, *precision; /* for OUT --info */
    uint32_t n_threads; /* compile kernels on this many threads; 0 = cores */
    bool timing;        /* seconds per part on stderr */
} CodegenOptions;

typedef struct CodegenStats {
    uint32_t n_ops, n_kernels,
        n_distinct; /* ops before fusion are not known here: fused ops' bodies count */
    double kernels_s, link_s;
} CodegenStats;

/* Compiles m (FACT_PLANNED) and links out_path.  Nothing is left behind on failure. */
Status codegen_executable(const Module *m, const CodegenTarget *t, const CodegenOptions *opt,
                          const char *out_path, CodegenStats *stats);

/* --emit kernels: every distinct kernel, readable: loops for the cpu, CUDA C for cuda (kernels of
 * kinds that the printer does not have yet are listed in a comment and counted in *n_missing). */
Status codegen_print_kernels(const Module *m, const CodegenTarget *t, Str *out,
                             uint32_t *n_missing);
/* --emit program: commands with arguments, buffers, ports as text. */
Status codegen_print_program(const Module *m, const CodegenTarget *t, Str *out);

#endif
