/* file.c -- see file.h. */
#include "ir/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int file_map(const char *path, MappedFile *out)
{
    *out = (MappedFile){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno;
    struct stat st;
    int err = 0;
    if (fstat(fd, &st) != 0)
        err = errno;
    else if (S_ISDIR(st.st_mode))
        err = EISDIR;
    else if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            err = errno;
        else
            *out = (MappedFile){p, (size_t)st.st_size};
    }
    close(fd);
    return err;
}

void file_unmap(MappedFile *f)
{
    if (f->at) munmap((void *)(uintptr_t)f->at, f->n_bytes);
    *f = (MappedFile){0};
}

int file_read(Arena *a, const char *path, char **text, size_t *n_bytes)
{
    FILE *in = fopen(path, "rbe");
    if (!in) return errno;
    size_t cap = 0, n = 0;
    char *buf = NULL;
    int err = 0;
    do {
        if (n + 1 >= cap) {
            cap = cap ? cap * 2 : 16384;
            char *bigger = arena_alloc(a, cap);
            if (n) memcpy(bigger, buf, n);
            buf = bigger;
        }
        n += fread(buf + n, 1, cap - n - 1, in);
    } while (!feof(in) && !ferror(in));
    if (ferror(in)) err = errno ? errno : EIO;
    fclose(in);
    buf[n] = '\0';
    *text = buf;
    *n_bytes = n;
    return err;
}

int file_write(const char *path, const void *at, size_t n_bytes)
{
    FILE *out = fopen(path, "wbe");
    if (!out) return errno;
    int err = 0;
    if (n_bytes && fwrite(at, 1, n_bytes, out) != n_bytes) err = errno ? errno : EIO;
    if (fclose(out) != 0 && !err) err = errno;
    return err;
}
