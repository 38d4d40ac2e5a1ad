/* checkpoint_open.h -- one checkpoint while it is looked at: its manifest, the pieces of its
 * tensors, whether they are sound. */
#ifndef ZM_RUNTIME_CHECKPOINT_OPEN_H
#define ZM_RUNTIME_CHECKPOINT_OPEN_H

#include "runtime/checkpoint.h"
#include "runtime/json.h"
#include "runtime/safetensors.h"

enum { OPENED_FILES = 16 };

typedef struct Opened {
    const char *dir;
    json_t *manifest;
    const json_t *tensors;
    const char *file_name[OPENED_FILES]; /* mapped files */
    MappedFile file[OPENED_FILES];
    uint32_t n_files;
} Opened;

typedef struct Piece { /* elements [first, first + elems) of a tensor */
    const char *file;
    int64_t offset, first, elems;
    uint64_t xxh3;
    const unsigned char *at; /* piece_map */
} Piece;

RtStatus opened_read(Opened *o, Arena *a, CheckpointInfo *info, RtError *e); /* of o->dir */
void opened_close(Opened *o);

/* Are the pieces of every tensor, whether this program has it or not, one after another all of it,
 * and sound?  Checksums: of each ranks-th piece, this rank's share. */
RtStatus opened_check(Opened *o, Arena *a, int rank, int ranks, RtError *e);

RtStatus piece_read(const Opened *o, const char *tensor, const json_t *piece, Piece *out,
                    RtError *e);
RtStatus piece_map(Opened *o, Arena *a, const char *tensor, uint32_t dtype, Piece *p, RtError *e);

uint32_t zmp_dtype_named(const char *name); /* 0: none */

/* How much of n_bytes to read at once from `at` on; what was read is let go of (pages_forget). */
size_t pages_chunk(size_t at, size_t n_bytes);

#endif
