/* shared_file.h -- one safetensors file that all ranks write, each its own ranges of it, so that
 * none ever holds the whole: rank 0 creates it beside its place, all write, rank 0 renames.
 *
 * Every rank calls shared_create and shared_finish; both end with the same outcome on all. */
#ifndef ZM_RUNTIME_SHARED_FILE_H
#define ZM_RUNTIME_SHARED_FILE_H

#include "runtime/comm.h"
#include "runtime/output.h"
#include "runtime/safetensors.h"

typedef struct SharedFile {
    SafeWriter writer;
    Replacement to;
    Comm *comm;       /* NULL: one rank */
    const char *what; /* for messages: "the exported weights" */
    bool is_first;    /* rank 0 */
    bool is_open;
} SharedFile;

/* The arguments are the same on all ranks; entries get their offsets. */
RtStatus shared_create(SharedFile *f, Comm *c, Arena *a, const char *path, const char *what,
                       SafeEntry *entries, uint32_t n, const char *metadata, RtError *e);

/* written: how this rank's writing went.  On success anywhere the file is whole and in its place;
 * after a failure what was at `path` is still there. */
RtStatus shared_finish(SharedFile *f, RtStatus written, RtError *e);

/* Lets go of it without a word to the others: the run has failed.  Also when it is not open. */
void shared_abandon(SharedFile *f);

#endif
