/* program.h -- between the files of codegen: a module's kernels, and its program as tables. */
#ifndef ZM_CODEGEN_PROGRAM_H
#define ZM_CODEGEN_PROGRAM_H

#include "codegen/codegen.h"
#include "codegen/kernel.h"
#include "ir/base/program.h"

/* ---- kernels of a module (kernel_set.c) ---- */

typedef struct KernelUse { /* one `fused` op */
    uint32_t kernel;       /* index into KernelSet.kernels */
    const char *label;
    double flops, bytes;
    const int32_t *consts; /* [Kernel.n_consts] */
    const int64_t *first;  /* [Kernel.n_args]: element of the operand where the argument begins */
} KernelUse;

typedef struct KernelSet {
    VEC(const Kernel *) kernels; /* distinct forms, in order of first use */
    VEC(KernelUse) uses;
    Map use_of; /* (function, op) -> index into uses */
} KernelSet;

/* Cuts each argument to what is read of it; first[n_args] = what was cut off before
 * (kernel_trim.c). */
void kernel_trim(Kernel *k, int64_t *first);
/* Builds the form of every fused op and finds equal ones.  An op without a form is an error. */
Status kernel_set_build(Arena *a, const Module *m, KernelSet *out);
const KernelUse *kernel_set_use(const KernelSet *s, uint32_t func,
                                OpId op); /* func: index into Module.funcs */
/* The fused op's last operand when it is a workspace, else none. */
ValueId op_workspace(const Func *f, const Op *op);

/* ---- the program (program.c, program_buffers.c) ---- */

typedef struct KernelCode { /* what the target made of KernelSet.kernels[i] */
    uint32_t n_phases;
    int64_t n_tasks[ZMP_MAX_PHASES], task_cost[ZMP_MAX_PHASES];
    int64_t workspace_bytes, scratch_bytes;
    uint32_t flags;    /* ZmpKernel.flags */
    const char *entry; /* GPU: and what follows, as in ZmpKernel */
    uint32_t module, block_x, block_y, grid_x, shared_bytes;
} KernelCode;

typedef struct ProgramInfo {
    const char *target, *cpu, *cpu_features, *precision, *source, *command_line, *plan_text;
} ProgramInfo;

/* Tables of ir/base/program.h; strings[0] = 0. */
typedef struct Program {
    Arena *a;
    const Module *m;
    ZmpHeader header;
    VEC(char) strings;
    Map string_at; /* hash of a string -> offset */
    VEC(ZmpVar) vars;
    VEC(ZmpBuffer) buffers;
    VEC(ZmpKernel) kernels;
    VEC(ZmpArg) args;
    VEC(int32_t) consts;
    VEC(ZmpCommand) commands;
    VEC(ZmpFunc) funcs;
    VEC(ZmpPort) ports;
    VEC(ZmpFeed) feeds;
    VEC(ZmpWeightRule) weight_rules;
    VEC(ZmpCollective) collectives;
    VEC(ZmpModule) modules;
    int32_t *var_buffer; /* by VarId.i */
} Program;

/* Begins or ends: what the collective is (program_collective.c); its index in the table. */
Status program_collective(Program *p, uint32_t func, OpId op, uint32_t *index);
/* Of the collectives of all functions, as started. */
uint64_t program_order_hash(const Program *p);
/* Bytes from one rank's place of a value to the next one's: of a shard, and of views of one. */
int64_t value_rank_stride(const Func *f, ValueId v);

/* code: per distinct kernel, or NULL (--emit program): no phases then.  m: FACT_PLANNED. */
Status program_build(Arena *a, const Module *m, const KernelSet *set, const KernelCode *code,
                     const ProgramInfo *info, Program *out);
/* The blob: header and tables, every table at a multiple of 8. */
const char *program_blob(Program *p, size_t *n_bytes);
void program_print(const Program *p, Str *out);

/* Compiles m's kernels into dir; *objects: they and the program's (codegen.c). */
Status codegen_objects(Arena *a, const Module *m, const CodegenTarget *t, const CodegenOptions *opt,
                       const char *dir, Program *p, const char *const **objects,
                       uint32_t *n_objects);

ProgramInfo codegen_program_info(const CodegenTarget *t,
                                 const CodegenOptions *opt); /* opt: or NULL */
uint32_t codegen_threads(const CodegenOptions *opt);
/* What a program of many ranks carries; *n_bytes 0: it looks for it when it starts. */
void codegen_read_shim(Arena *a, const Program *p, const char *path, const char **shim,
                       size_t *n_bytes);

uint32_t program_string(Program *p, const char *s); /* NULL: "" */
uint32_t program_loc(Program *p, LocId loc);        /* "gpt2.zm:12:3", "" without a place */

/* Buffers of one function: values whose bytes overlap while both live are one buffer. */
typedef struct FuncBuffers {
    int32_t *buffer_of; /* by ValueId.i; index into Program.buffers, -1: not placed */
    int64_t
        peak_live; /* bytes of the function's own buffers, each aligned, at its fullest command */
} FuncBuffers;
/* command_at[pos]: commands before op position pos; [n_ops]: all of them. */
FuncBuffers program_buffers(Program *p, uint32_t func, const uint32_t *command_at, uint32_t n_ops);
void program_var_buffers(Program *p);

#endif
