/* safetensors_write.c -- writing; see safetensors.h. */
#include "runtime/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "runtime/output.h"
#include "runtime/program.h"

static const char *safe_name(uint32_t dtype)
{
    static const char *const name[] = {"?", "BOOL", "I32", "BF16", "F16", "F32", "F64"};
    return name[dtype];
}

/* Data offsets count from the end of the header; `offset` of each entry is set to that. */
static void header_text(Str *s, SafeEntry *entries, uint32_t n, const char *metadata)
{
    int64_t at = 0;
    str_add(s, "{");
    if (metadata) str_addf(s, "\"__metadata__\":%s%s", metadata, n ? "," : "");
    for (uint32_t i = 0; i < n; i++) {
        SafeEntry *t = &entries[i];
        int64_t elems = 1;
        str_add_json(s, t->name);
        str_addf(s, ":{\"dtype\":\"%s\",\"shape\":[", safe_name(t->dtype));
        for (uint32_t d = 0; d < t->rank; d++) {
            str_addf(s, "%s%lld", d ? "," : "", (long long)t->dim[d]);
            elems *= t->dim[d];
        }
        t->offset = at;
        t->n_bytes = elems * zmp_dtype_bytes(t->dtype);
        at += t->n_bytes;
        str_addf(s, "],\"data_offsets\":[%lld,%lld]}%s", (long long)t->offset, (long long)at,
                 i + 1 < n ? "," : "");
    }
    str_add(s, "}");
    while (s->n % 8) str_add(s, " "); /* the data starts aligned */
}

/* The header's text; entries' offsets and the file's size follow from it. */
static void writer_layout(SafeWriter *w, Arena *a, const char *path, SafeEntry *entries, uint32_t n,
                          const char *metadata, Str *header)
{
    *w = (SafeWriter){.path = arena_strdup(a, path), .fd = -1};
    header_text(header, entries, n, metadata);
    int64_t start = w->n_bytes = 8 + (int64_t)header->n;
    for (uint32_t i = 0; i < n; i++) {
        entries[i].offset += start;
        w->n_bytes = entries[i].offset + entries[i].n_bytes;
    }
}

RtStatus safe_create(SafeWriter *w, Arena *a, const char *path, SafeEntry *entries, uint32_t n,
                     const char *metadata, RtError *e)
{
    Str header = {0};
    writer_layout(w, a, path, entries, n, metadata, &header);
    w->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    uint64_t length = header.n;
    RtStatus s = w->fd < 0 ? output_failed(path, errno, e)
                           : output_write(w->fd, &length, sizeof length, path, e);
    if (s == RT_OK) s = output_write(w->fd, header.at, header.n, path, e);
    str_free(&header);
    if (s != RT_OK) safe_abandon(w);
    return s;
}

RtStatus safe_join(SafeWriter *w, Arena *a, const char *path, SafeEntry *entries, uint32_t n,
                   const char *metadata, RtError *e)
{
    Str header = {0};
    writer_layout(w, a, path, entries, n, metadata, &header);
    str_free(&header);
    w->fd = open(path, O_WRONLY | O_CLOEXEC);
    return w->fd < 0 ? output_failed(path, errno, e) : RT_OK;
}

RtStatus safe_put(SafeWriter *w, int64_t offset, const void *at, size_t n_bytes, RtError *e)
{
    return output_pwrite(w->fd, at, n_bytes, offset, w->path, e);
}

RtStatus safe_finish(SafeWriter *w, RtError *e)
{
    if (ftruncate(w->fd, w->n_bytes) != 0) {
        int err = errno;
        safe_abandon(w);
        return output_failed(w->path, err, e);
    }
    int fd = w->fd;
    w->fd = -1;
    return output_sync_close(fd, w->path, e);
}

void safe_abandon(SafeWriter *w)
{
    if (w->fd < 0) return;
    close(w->fd);
    unlink(w->path);
    w->fd = -1;
}
