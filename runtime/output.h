/* output.h -- files that a run writes: errors name the path and what the system said, and a full
 * disk is recognised. */
#ifndef ZM_RUNTIME_OUTPUT_H
#define ZM_RUNTIME_OUTPUT_H

#include "ir/base/arena.h"
#include "runtime/error.h"

RtStatus output_failed(const char *path, int err, RtError *e);

/* All n bytes at the current place / at `offset`. */
RtStatus output_write(int fd, const void *at, size_t n, const char *path, RtError *e);
RtStatus output_pwrite(int fd, const void *at, size_t n, int64_t offset, const char *path,
                       RtError *e);

RtStatus output_sync_close(int fd, const char *path, RtError *e);
RtStatus output_sync_dir(const char *dir, RtError *e); /* so that a rename in it lasts */

/* A file that is written beside `final` and renamed to it; a symbolic link stays one. */
typedef struct Replacement {
    const char *final, *beside;
} Replacement;
Replacement output_replace(Arena *a, const char *path);
/* written: how the writing of `beside` ended; on failure nothing of it is left. */
RtStatus output_replace_end(const Replacement *r, RtStatus written, RtError *e);

/* May a file be made at this path?  Asked before a run, so that an hour of training is not lost at
 * its end.  is_plain: it must be a regular file, for it is written beside and renamed. */
RtStatus output_check_file(Arena *a, const char *path, bool is_plain, RtError *e);
/* Refuses an output that is `input`, or lies in it when that is a directory; either may be NULL. */
RtStatus output_check_apart(Arena *a, const char *path, const char *input, RtError *e);
RtStatus output_make_dir(
    const char *dir,
    RtError *e); /* with its parents; fine when it is there; checks that it is writable */
/* Opens what was closed of the three standard files, so that no other file gets their numbers and
 * with it what is meant for them.  Using one still fails. */
void output_guard_standard(void);

void output_remove_dir(const char *dir); /* a flat directory, as far as it goes */

#endif
