/* checkpoint.h -- DIR/step-00001000/: everything that a run needs to go on as if it had never
 * stopped.
 *
 *   rank-R.safetensors   what rank R writes of the state's tensors (state.h); a part of a tensor is
 *                        one-dimensional
 *   manifest.json        step, samples read, seed, order, and per tensor: dtype, shape, pieces
 * {file, byte offset, first element, elements, xxh3 of the bytes}, which follow one another; ends
 * with its own checksum; written last, by rank 0
 *
 * Tensors are named by parameter, never by bucket or rank, and pieces say which elements they hold,
 * so a program with another layout or number of ranks reads the same files.  A checkpoint is made
 * under another name, synced and renamed: whatever happens while saving, on whichever rank, the
 * ones before stay whole.
 *
 * Over all ranks of the state, which end with one outcome. */
#ifndef ZM_RUNTIME_CHECKPOINT_H
#define ZM_RUNTIME_CHECKPOINT_H

#include "runtime/data.h"
#include "runtime/state.h"

typedef struct CheckpointInfo {
    int64_t step;    /* attempts done */
    int64_t samples; /* running number of the next sample */
    uint64_t seed;
    DataOrder order;
    char precision[16]; /* resume: of the program that saved it */
} CheckpointInfo;

RtStatus checkpoint_save(const char *dir, const Exec *x, const State *s, const CheckpointInfo *info,
                         RtError *e);

/* Step of the newest checkpoint in dir by name, sound or not; -1: none. */
int64_t checkpoint_newest_step(const char *dir);

/* Reads what this rank holds of the newest checkpoint in dir (or dir itself) whose checksums hold;
 * which one that is, rank 0 proposes and all confirm, each having verified its share of the pieces.
 * What was wrong with newer ones is put into *skipped, a line each.  A checkpoint of another
 * precision than `precision` is converted: docs/precision.md. */
RtStatus checkpoint_resume(const char *dir, const State *s, const char *precision,
                           CheckpointInfo *info, Str *skipped, RtError *e);

const char *order_name(DataOrder order); /* "random", "sequential" */
bool order_from_name(const char *name, DataOrder *out);

#endif
