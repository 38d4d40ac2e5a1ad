/* sim.h -- the machine: decoded code, warps, blocks, launches.
 *
 * A warp's registers are slots of LANES values side by side, so that most instructions are one loop
 * that the compiler turns into vector code.  Constants and special registers are slots too: an
 * operand is always the byte offset of a slot. */
#ifndef ZM_GPUSIM_SIM_H
#define ZM_GPUSIM_SIM_H

#include "ir/base/map.h"
#include "tests/gpusim/memory.h"
#include "tests/gpusim/ptx.h"

enum {
    LANES = 32,
    MAX_VEC = 16,
    MAX_WARPS = 32, /* of a block */
    N_BARRIERS = 16,
    SLOT_BYTES = 256 /* of a register of 64 bits; others take half */
};

/* Generic addresses of shared and local memory; global ones are themselves. */
#define SHARED_WINDOW 0x0000010000000000ull
#define LOCAL_WINDOW 0x0000011000000000ull
#define WINDOW_BYTES 0x0000000100000000ull

typedef struct Warp Warp;
typedef struct Insn Insn;
typedef void (*ExecFn)(Warp *w, const Insn *in);

typedef enum {
    INSN_PLAIN, /* fn does it all */
    INSN_BRANCH,
    INSN_SYNC, /* fn runs when all lanes of the mask in slot `members` have arrived */
    INSN_BAR,  /* of the block */
    INSN_EXIT,
    INSN_TRAP
} InsnKind;

typedef enum { BAR_SYNC, BAR_ARRIVE, BAR_POPC, BAR_AND, BAR_OR } BarKind;

typedef enum { NUM_UINT, NUM_SINT, NUM_F16, NUM_BF16, NUM_F32, NUM_F64, NUM_TF32 } NumberKind;
typedef enum { ROUND_NEAREST, ROUND_ZERO, ROUND_DOWN, ROUND_UP } Rounding;

typedef struct Conversion {
    uint8_t from, to; /* NumberKind */
    uint8_t from_bytes, to_bytes, from_reg_bytes, to_reg_bytes;
    uint8_t rounding;
    bool is_saturating, to_integral; /* integral: a float result is rounded to an integer */
    bool is_pair;                    /* two results side by side, of a (upper) and b */
    bool is_relu;
} Conversion;

struct Insn {
    ExecFn fn, inner;       /* inner: what fn wraps (rounding) */
    uint8_t kind;           /* InsnKind */
    uint8_t variant;        /* meaning is the instruction's: BarKind, atomic operation, ... */
    uint8_t space;          /* Space */
    uint8_t bytes;          /* of a memory element, or of a type */
    uint8_t reg_bytes;      /* of the registers of vec[] */
    uint8_t address_bytes;  /* of the register of the address, slot a */
    bool is_signed, is_not; /* sign-extends; guard or source predicate is negated */
    bool has_guard;
    uint32_t guard;
    uint32_t d, d2, a, b, c, e; /* slots; UINT32_MAX: none */
    uint32_t members;
    uint32_t vec[MAX_VEC];
    const uint32_t *wide; /* more slots than vec has room for: wgmma's sums */
    uint8_t n_vec;
    Conversion cvt;
    int32_t target; /* of a branch */
    int64_t imm;    /* added to an address */
    uint32_t loc, ptx_line;
    const char *text; /* opcode */
};

typedef enum {
    SR_TID_X,
    SR_TID_Y,
    SR_TID_Z,
    SR_LANE,
    SR_WARP,
    SR_CTA_X,
    SR_CTA_Y,
    SR_CTA_Z,
    SR_NTID_X,
    SR_NTID_Y,
    SR_NTID_Z,
    SR_NCTA_X,
    SR_NCTA_Y,
    SR_NCTA_Z,
    SR_NWARP,
    SR_LANEMASK_EQ,
    SR_LANEMASK_LT,
    SR_LANEMASK_LE,
    SR_LANEMASK_GT,
    SR_LANEMASK_GE,
    SR_DYN_SHARED,
    SR_TOTAL_SHARED,
    N_SPECIAL
} SpecialReg;

typedef struct Constant {
    uint32_t slot;
    uint8_t bytes;
    uint64_t value;
} Constant;

typedef struct Code {
    const PtxModule *module;
    const PtxFunc *func;
    VEC(Insn) insns;
    VEC(Constant) constants;
    uint32_t special[N_SPECIAL]; /* slot, or UINT32_MAX: not used */
    uint32_t carry;              /* slot of the carry flag */
    uint32_t n_reg_bytes;        /* of a warp's registers */
    uint32_t local_bytes, shared_bytes, dynamic_offset;
    uint32_t n_registers;
} Code;

/* Turns an entry into code.  False: error says which instruction is not known. */
bool code_build(Arena *a, const PtxModule *m, const PtxFunc *f, Code *out, char *error,
                size_t error_size);

/* ---- running ---- */

typedef enum { GROUP_READY, GROUP_PARKED } GroupState;

typedef struct Group { /* lanes at one instruction */
    uint32_t mask;
    int32_t pc;
    GroupState state;
} Group;

typedef struct AsyncCopy { /* cp.async that was not waited for */
    uint64_t from;
    uint32_t to, n, n_read; /* the rest is zeros */
    uint8_t lane;
    uint32_t batch; /* UINT32_MAX: not committed */
    const Insn *in;
} AsyncCopy;

typedef struct Product { /* wgmma that was not waited for */
    const Insn *in;
    uint64_t a, b; /* descriptors */
    uint64_t hash; /* of the operands' bytes when it began; 0: they are not there */
    bool adds;
    int64_t batch; /* -1: not committed */
} Product;

typedef struct Launch Launch;
typedef struct Block Block;

struct Warp {
    uint8_t *regs;
    uint32_t mask;     /* lanes that execute now */
    int32_t on[LANES]; /* the same: 0 or -1 */
    uint32_t live;     /* lanes that have not exited */
    Group groups[LANES];
    int n_groups;
    int32_t last;   /* where the group was that used up its slice; -1: none did */
    bool is_forced; /* parked lanes go on though others are missing */
    bool is_at_barrier;
    const Insn *barrier;
    uint32_t barrier_id;
    uint32_t number;
    uint8_t *local, *local_written; /* LANES x local_bytes each */
    uint32_t clock;                 /* of what this warp does; see race.c */
    Stamp stamp;                    /* of its global accesses; see segment.c */
    uint32_t seen[MAX_WARPS];       /* the clock of each warp that it is ordered after */
    VEC(AsyncCopy) copies;
    uint32_t n_batches[LANES];
    VEC(Product) products;
    int64_t n_product_batches;
    bool is_product_fenced;
    uint32_t published; /* the clock up to which wgmma may see what this warp wrote */
    uint64_t n_clocks;  /* that it read */
    Block *block;
};

typedef struct Set { /* of segments of a launch, by number within it */
    uint64_t *bits;
    uint32_t n_words;
} Set;

typedef struct Barrier {
    uint32_t n_arrived, popc; /* threads */
    uint32_t warps;
    bool all, any;
} Barrier;

struct Block {
    const Code *code;
    Launch *launch;
    uint32_t x, y, z;
    uint32_t n_threads, n_warps;
    Warp warps[MAX_WARPS];
    Barrier barriers[N_BARRIERS];
    uint8_t *shared;
    uint32_t *shared_writer, *shared_reader; /* a tag a byte: race.c */
    uint32_t *shared_settled;                /* a word of 4 bytes: race.c */
    uint32_t shared_bytes, n_phases;         /* barriers that completed */
    bool has_partial_barriers;
    Stamp first, phase;   /* segments of this block, since its last barrier, begin */
    VEC(uint8_t) warp_of; /* of the segments from phase on */
    SpanCache *caches;    /* one an instruction */
    bool is_failed;
    Set fenced, before; /* segments: its own that a fence came after; those that it comes after */
};

struct Launch {
    const Code *code;
    Memory *memory;
    uint32_t grid[3], block[3], dynamic_bytes;
    const uint8_t *params;
    const Op *op;      /* of the stream */
    Stamp first, next; /* see memory.h: the launch's number; the first that is not taken */
    uint64_t seed;
    bool is_out_of_bounds, is_misaligned; /* some access was */
    bool is_endless;                      /* a block was stopped */
    Arena *scratch;
    Map words;              /* address of an atomic -> released */
    VEC(Set) released;      /* the segments that were handed over there */
    VEC(uint64_t) reported; /* instruction and kind: once a launch */
};

/* Runs all blocks; what it finds goes to report.h.  Returns 0 or the CUresult that a GPU would
 * give. */
int launch_run(Launch *l);

/* ---- warp.c ---- */

typedef enum { WARP_BARRIER, WARP_SPENT, WARP_DONE, WARP_FAILED } WarpStop; /* SPENT: go on later */

void warp_start(Warp *w, uint32_t n_threads);
WarpStop warp_run(Warp *w);
void warp_set_mask(Warp *w, uint32_t mask);
uint32_t slot_first(const Warp *w, uint32_t slot); /* 32-bit value of the first active lane */

/* ---- race.c: shared memory ---- */

void race_start(Block *b);
/* These report and return whether bytes [at, at + n) may be accessed. */
bool shared_access(Warp *w, const Insn *in, int lane, uint64_t at, uint32_t n, bool is_write,
                   bool is_atomic);
/* The same for a whole warp at addresses at[] that all are fine: false, and nothing done, when that
 * cannot be seen at once. */
bool shared_is_settled(const Warp *w, const uint32_t *at, uint32_t n);
/* May the lane write the word without a closer look?  Then it is recorded. */
bool shared_write_settled(Warp *w, int lane, uint32_t at);
/* An asynchronous copy begins to write there: until it ends, nobody may read. */
void race_pending(Block *b, uint64_t at, uint32_t n);
/* Is what wgmma reads there published (fence.proxy.async)?  Reports. */
void shared_check_published(Warp *w, const Insn *in, int lane, uint32_t at);
void race_sync_warp(Warp *w); /* what the lanes did is ordered now */
void race_sync_block(Block *b, uint32_t warps);

/* ---- segment.c: global memory: what a warp does between barriers and fences ---- */

void segment_start_block(Block *b);
void segment_start_phase(Block *b); /* after a barrier */
void segment_start(Warp *w);
Toucher segment_toucher(const Warp *w);

/* ---- handover.c: order between blocks ---- */

void handover_start(Block *b);
void handover_fence(Warp *w);
void handover_atomic(Warp *w, uint64_t address);
bool handover_is_before(const Warp *w, Stamp s);

/* ---- access.c: bytes of one lane ---- */

/* Where the n bytes at `address` are on the host, after all checks; NULL when it was reported. */
uint8_t *lane_access(Warp *w, const Insn *in, int lane, uint64_t address, uint32_t n,
                     AccessKind kind);
uint8_t *global_access(Warp *w, const Insn *in, int lane, uint64_t address, uint32_t n,
                       AccessKind kind);
uint64_t lane_address(const Warp *w, const Insn *in, int lane);

/* ---- instructions by family ---- */

void exec_load(Warp *w, const Insn *in);
void exec_store(Warp *w, const Insn *in);
void exec_load_param(Warp *w, const Insn *in);
void exec_atomic(Warp *w, const Insn *in);
void exec_cp_async(Warp *w, const Insn *in);
void exec_cp_commit(Warp *w, const Insn *in);
void exec_cp_wait(Warp *w, const Insn *in);
void exec_ldmatrix(Warp *w, const Insn *in);
void exec_proxy_fence(Warp *w, const Insn *in);
void exec_wgmma(Warp *w, const Insn *in);
void exec_wgmma_fence(Warp *w, const Insn *in);
void exec_wgmma_commit(Warp *w, const Insn *in);
void exec_wgmma_wait(Warp *w, const Insn *in);
void exec_mma(Warp *w, const Insn *in);
void exec_shfl(Warp *w, const Insn *in);
void exec_vote(Warp *w, const Insn *in);
void exec_match(Warp *w, const Insn *in);
void exec_redux(Warp *w, const Insn *in);
void exec_activemask(Warp *w, const Insn *in);
void exec_warp_barrier(Warp *w, const Insn *in);
void exec_nothing(Warp *w, const Insn *in);
void exec_fence(Warp *w, const Insn *in);
void exec_clock(Warp *w, const Insn *in); /* a count that rises, of no unit */
void exec_pack(Warp *w, const Insn *in);
void exec_unpack(Warp *w, const Insn *in);
void exec_cvt(Warp *w, const Insn *in);
void exec_rounded(Warp *w, const Insn *in); /* `inner` in rounding mode `variant` */

/* Arithmetic by name: "add.s32" with slots of `shape`, a letter each, result first: p predicate,
 * h 16, w 32, l 64 bits. */
typedef struct Arith {
    const char *key, *shape;
    ExecFn fn;
} Arith;

extern const Arith arith_int[], arith_float[], arith_logic[], arith_cvt[]; /* end: key NULL */

/* ---- lanes ---- */

#define SLOT(W, T, OFFSET) ((T *)(void *)((W)->regs + (OFFSET)))

/* The body for each active lane l. */
#define EACH_LANE(W, BODY)                                                                         \
    do {                                                                                           \
        if ((W)->mask == UINT32_MAX) {                                                             \
            _Pragma("GCC ivdep") for (int l = 0; l < LANES; l++)                                   \
            {                                                                                      \
                BODY;                                                                              \
            }                                                                                      \
        } else {                                                                                   \
            const int32_t *on = (W)->on;                                                           \
            _Pragma("GCC ivdep") for (int l = 0; l < LANES; l++)                                   \
            {                                                                                      \
                if (on[l]) {                                                                       \
                    BODY;                                                                          \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    } while (0)

#endif
