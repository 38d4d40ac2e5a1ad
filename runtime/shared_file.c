/* shared_file.c -- see shared_file.h. */
#include "runtime/shared_file.h"

#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "runtime/comm_agree.h"

enum { NAME_BYTES = PATH_MAX + 64 };

/* The temporary name is rank 0's: it has the number of a process. */
static RtStatus share_name(SharedFile *f, Arena *a, const char *path, RtError *e)
{
    _Alignas(4) char name[NAME_BYTES] = "";
    f->to = output_replace(a, path);
    snprintf(name, sizeof name, "%s", f->to.beside);
    RT_TRY(comm_tell(f->comm, name, sizeof name, f->what, e));
    f->to.beside = arena_strdup(a, name);
    return RT_OK;
}

static RtStatus join(SharedFile *f, Arena *a, SafeEntry *entries, uint32_t n, const char *metadata,
                     RtError *e)
{
    if (access(f->to.beside, F_OK) != 0)
        return RT_FAIL(e, RT_FAILED, "cannot see %s: all ranks must share its directory",
                       f->to.beside);
    return safe_join(&f->writer, a, f->to.beside, entries, n, metadata, e);
}

RtStatus shared_create(SharedFile *f, Comm *c, Arena *a, const char *path, const char *what,
                       SafeEntry *entries, uint32_t n, const char *metadata, RtError *e)
{
    *f = (SharedFile){.comm = c, .what = what, .is_first = comm_rank_or_0(c) == 0};
    RT_TRY(share_name(f, a, path, e));
    RtStatus s = RT_OK;
    if (f->is_first) s = safe_create(&f->writer, a, f->to.beside, entries, n, metadata, e);
    f->is_open = f->is_first && s == RT_OK;
    s = comm_agree(c, s, what, 0, e);
    if (s == RT_OK) {
        if (!f->is_first) s = join(f, a, entries, n, metadata, e);
        f->is_open |= s == RT_OK;
        s = comm_agree(c, s, what, 0, e);
    }
    if (s != RT_OK) shared_abandon(f);
    return s;
}

RtStatus shared_finish(SharedFile *f, RtStatus written, RtError *e)
{
    int64_t n_bytes = f->writer.n_bytes;
    if (written == RT_OK) {
        f->is_open = false;
        written = safe_finish(&f->writer, e);
    }
    written = comm_agree(f->comm, written, f->what, n_bytes, e);
    shared_abandon(f);
    if (f->is_first) written = output_replace_end(&f->to, written, e);
    return comm_agree(f->comm, written, f->what, 0, e);
}

void shared_abandon(SharedFile *f)
{
    if (!f->is_open) return;
    f->is_open = false;
    if (f->is_first) {
        safe_abandon(&f->writer);
        return;
    }
    close(f->writer.fd); /* the name is rank 0's */
    f->writer.fd = -1;
}
