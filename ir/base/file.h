/* file.h -- whole files: read, map, write beside and rename. */
#ifndef ZM_BASE_FILE_H
#define ZM_BASE_FILE_H

#include "ir/base/arena.h"

typedef struct MappedFile {
    const unsigned char *at; /* NULL for an empty file */
    size_t n_bytes;
} MappedFile;

/* Each returns 0, or an errno value. */
int file_read(Arena *a, const char *path, char **text,
              size_t *n_bytes); /* text is NUL-terminated */
int file_map(const char *path, MappedFile *out);
void file_unmap(MappedFile *f);
int file_write(const char *path, const void *at,
               size_t n_bytes); /* whole file, then checks close */

#endif
