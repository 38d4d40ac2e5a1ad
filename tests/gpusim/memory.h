/* memory.h -- device memory: allocations, what was written, who touched it last.
 *
 * Device addresses lie where no host mapping is, so host code that follows one crashes as it
 * would; pinned host memory is reached by its own address.  Each byte has the stamp of its last
 * writer and of its last reader; each chunk of CHUNK_BYTES the last operations of the streams. */
#ifndef ZM_GPUSIM_MEMORY_H
#define ZM_GPUSIM_MEMORY_H

#include <pthread.h>

#include "ir/base/vec.h"

enum {
    CHUNK_BYTES = 64,
    MAX_STREAMS = 16, /* that have clocks; see stream.h */
    ALLOC_ALIGN = 256
};

#define DEVICE_BASE 0x0000020000000000ull /* of device 0; each device's range follows */
#define DEVICE_RANGE 0x0000002000000000ull

/* Who accessed a byte: a segment, what a warp does between two barriers or fences.  Segments are
 * numbered in the order in which they begin, over all launches, a block's one after another.
 * number << 1 | is_atomic; 0: nobody; 1 << 1: the host or a copy.  A launch's own number, below
 * those of its blocks, stands for "several of its blocks"; that of a block between two barriers for
 * "several of its warps". */
typedef uint32_t Stamp;
enum { STAMP_NONE = 0, STAMP_COPY = 2, STAMP_FIRST = 4, STAMP_LIMIT = 0xc0000000u };

typedef struct Toucher {        /* a warp, when it accesses memory */
    Stamp own;                  /* its segment */
    Stamp launch, block, phase; /* the first of the launch, of the block, since its last barrier */
    uint8_t warp;
    const uint8_t *warp_of; /* segments from `phase` on; 255: several */
} Toucher;

/* An operation of a stream: a launch, copy, memset.  It comes after operation b iff its clock of
 * b's stream has reached b's number there. */
typedef struct Op {
    uint32_t id; /* from 1 */
    uint32_t stream;
    uint32_t clock[MAX_STREAMS]; /* clock[stream]: its own number there */
    const char *name;
} Op;

typedef struct OpRecord { /* what remains of it */
    uint32_t stream, number;
    const char *name;
} OpRecord;

typedef struct Chunk {
    uint32_t last_read, last_written; /* ops, to see at once that nothing is new */
    uint32_t writer;                  /* op */
    uint32_t readers[MAX_STREAMS];    /* the last op of each stream; 0: none */
} Chunk;

typedef struct Allocation {
    uint64_t address;
    uint64_t bytes;
    uint8_t *host; /* its bytes */
    Stamp *writer, *reader;
    Chunk *chunks;
    bool is_live, is_pinned; /* pinned: host memory, address == host */
    int device;
    const char *name; /* of a module's variable, or NULL */
} Allocation;

typedef struct Memory {
    Arena arena;
    VEC(Allocation *) all; /* ascending addresses */
    VEC(OpRecord) ops;     /* by id */
    uint64_t total_bytes, used_bytes, peak_bytes;
    uint64_t next[8]; /* first address that was never used, of each device */
    uint64_t used_of[8];
} Memory;

typedef struct SpanCache {
    Allocation *last;
} SpanCache;

typedef enum { ACCESS_READ, ACCESS_WRITE, ACCESS_ATOMIC } AccessKind;

/* 0: out of memory. */
Allocation *memory_allocate(Memory *m, int device, uint64_t bytes);
Allocation *memory_pin(Memory *m, void *host, uint64_t bytes);
bool memory_free(Memory *m, uint64_t address);              /* false: no allocation begins there */
Allocation *memory_find(const Memory *m, uint64_t address); /* live, and holds it; else NULL */
/* The allocation that ends at or before the address, closest; for messages. */
Allocation *memory_below(const Memory *m, uint64_t address);

/* A number for the operation, whose other fields are set. */
void memory_add_op(Memory *m, Op *op);

/* Records that op accesses n bytes within `at`. NULL: it comes after all that it must come after;
 * else one that it does not come after, though one of the two writes. */
const OpRecord *order_touch(Memory *m, Allocation *at, uint64_t offset, uint64_t n, bool is_write,
                            const Op *op);

/* What is wrong with an access by a block, in the order of the checks. */
typedef enum {
    SPAN_OK,
    SPAN_UNWRITTEN,
    SPAN_WRITE_WRITE, /* another block of the launch, or warp of the block with no barrier between,
                         wrote it */
    SPAN_WRITE_READ,  /* reads what another wrote */
    SPAN_READ_WRITE   /* writes what another read */
} SpanFault;

/* Is the segment another block's of the launch, or another warp's since the block's last barrier?
 */
bool stamp_is_others(Stamp s, const Toucher *by);
/* Checks, records an access of a warp to n bytes within `at`. */
SpanFault span_check(const Allocation *at, uint64_t offset, uint64_t n, AccessKind kind,
                     const Toucher *by);
void span_record(Allocation *at, uint64_t offset, uint64_t n, AccessKind kind, const Toucher *by);
/* Before the numbers run out: what was written is the host's. */
void memory_renumber(Memory *m);
/* The same for a copy or memset: a read of nothing written is a fault, a write marks written. */
bool span_copy_read(Allocation *at, uint64_t offset, uint64_t n);
void span_copy_write(Allocation *at, uint64_t offset, uint64_t n);

#endif
