/* program.h (runtime) -- the blob of ir/base/program.h, opened in place and checked once, so that
 * the rest of the runtime indexes its tables without asking. */
#ifndef ZM_RUNTIME_PROGRAM_H
#define ZM_RUNTIME_PROGRAM_H

#include "ir/base/program.h"
#include "runtime/error.h"
#include "runtime/zmrt.h"

typedef struct Program {
    const ZmpHeader *h;
    const char *strings;
    const ZmpVar *vars;
    const ZmpBuffer *buffers;
    const ZmpKernel *kernels;
    const ZmpArg *args;
    const ZmpCommand *commands;
    const ZmpFunc *funcs;
    const ZmpPort *ports;
    const ZmpFeed *feeds;
    const ZmpWeightRule *weight_rules;
    const int32_t *consts;
    const ZmpCollective *collectives;
    const ZmpModule *modules;
    uint32_t n_strings, n_vars, n_buffers, n_kernels, n_args, n_commands, n_funcs, n_ports, n_feeds,
        n_weight_rules, n_consts, n_collectives, n_modules;
    const ZmKernelFn *fns;
    const char *device_code;                       /* what modules point into */
    const ZmpFunc *micro, *last, *eval, *generate; /* NULL when absent; last is always there */
} Program;

/* Checks magic, version, every table and every index in it. */
RtStatus program_open(Program *p, const ZmrtImage *image, RtError *e);
/* The same of a program that is not for training: it need neither have "last" nor a batch. */
RtStatus program_open_functions(Program *p, const ZmrtImage *image, RtError *e);

/* Made for a GPU: kernels are those of `modules`. */
static inline bool program_is_cuda(const Program *p)
{
    return p->n_modules > 0;
}

/* Refuses, naming the feature, when this CPU lacks one that the kernels were compiled for. */
RtStatus program_check_cpu(const Program *p, RtError *e);
bool cpu_has(const char *feature, bool *is_known); /* as __builtin_cpu_supports */

static inline const char *program_str(const Program *p, uint32_t offset)
{
    return p->strings + offset;
}

const ZmpFunc *program_func(const Program *p, const char *name); /* NULL when absent */
const ZmpVar *program_var(const Program *p, const char *name);   /* NULL when absent */
const ZmpPort *program_in(const Program *p, const ZmpFunc *f,
                          const char *name); /* input; NULL when absent */
const ZmpPort *program_out(const Program *p, const ZmpFunc *f,
                           const char *name); /* result; NULL when absent */

/* The variable whose bytes v's elements lie in: v, or the bucket that it is a view of. */
const ZmpVar *program_storage(const Program *p, const ZmpVar *v);
/* Collectives in flight at the fullest moment of any function. */
int program_max_in_flight(const Program *p);
/* Seconds of the longest command where a rank gets little of its cores: for so long a rank that is
 * well may neither send nor call anything. */
double program_longest_s(const Program *p);

int64_t zmp_dtype_bytes(uint32_t dtype); /* 0: no such dtype */
const char *zmp_dtype_name(uint32_t dtype);
int64_t port_elems(const ZmpPort *port); /* -1: dimensions that make no sense */

#endif
