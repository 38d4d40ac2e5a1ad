/* fuse.h -- between the files of pass fuse.
 *
 * - prepare.c: small rewrites that make better kernels
 * - classify.c: which values are held in memory, and which are computed again where they are used
 * - group.c: joins ops into kernels while form.h says that the whole is one kernel
 * - emit.c: writes `fused` ops and their bodies
 *
 * Order: a group runs at the position of one of its own ops.  Joining two groups keeps every edge
 * pointing forward, which also keeps the group graph free of cycles and every read before the
 * writes that overlap it.
 */
#ifndef ZM_PASSES_FUSE_FUSE_H
#define ZM_PASSES_FUSE_FUSE_H

#include "passes/fuse/form.h"
#include "passes/pass.h"

typedef enum {
    FC_NONE,
    FC_HOST, /* stays outside: read, write, pack, probe, return, collectives and parts of theirs */
    FC_VIEW, /* absorbed by whoever reads it; outside only as an alias of a held value */
    FC_INLINE, /* computed again in every kernel that uses it */
    FC_HOME    /* computed in one kernel */
} FuseClass;

typedef struct ValueList {
    const ValueId *at;
    uint32_t n;
} ValueList;

typedef struct FuseGroup {
    FormKind kind;
    uint32_t pos;        /* of the op in whose place the kernel runs */
    uint32_t deadline;   /* first position of a write over what it reads */
    int64_t par, total;  /* points of PAR loops; of all loops (contract: of the epilogue) */
    uint64_t red_key;    /* 0: no reduction; equal for equal row or column patterns */
    bool is_column;      /* reduces, but not along the last dimension */
    uint32_t n_ops;      /* home and inline ops */
    VEC(OpId) ops;       /* home ops, ascending position */
    ValueList outs, ins; /* at the end: stored values; held values read, in order of first use */
} FuseGroup;

typedef struct Fuse {
    PassCtx *cx;
    Func *f;
    Arena *a;      /* this round's scratch */
    uint32_t *pos; /* by op */
    OpId *op_at;   /* by position */
    uint32_t n_pos;
    uint8_t *class;     /* FuseClass by op */
    uint32_t *group_of; /* by op: index + 1 */
    ValueList *leaves;  /* by op, home ops: held values that it reads, each once */
    uint32_t *read_pos; /* by value, results of reads: position from which the value may be used */
    uint32_t *read_end; /* by value, results of reads and shards of them: position of the first
                           overlapping write after it; 0: another value */
    VEC(FuseGroup) groups;
    uint32_t *user_start; /* by value: users[user_start[v] ..] = home and host ops that need v in
                             memory or inside */
    OpId *users;
} Fuse;

void fuse_prepare(PassCtx *cx, Func *f, bool *changed);
/* held: by value, grows: values that must be in memory. */
void fuse_classify(Fuse *s, bool *held);
void fuse_group(Fuse *s);
#define NO_GROUP UINT32_MAX
/* Form of a group, alone (other = NO_GROUP) or with another; outs: values stored. */
Form *fuse_form(Fuse *s, Arena *a, uint32_t g, uint32_t other, ValueList *outs, FormWhy *why);
/* Is v in memory for the kernel of groups g and other? */
bool fuse_is_leaf(const Fuse *s, uint32_t g, uint32_t other, ValueId v);
void fuse_emit(Fuse *s);

bool op_is_host(OpCode code);
/* The value behind views. */
ValueId fuse_strip_views(const Func *f, ValueId v);

#endif
