/* checkpoint.c -- saving; see checkpoint.h.  Reading is checkpoint_read.c. */
#include "runtime/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "runtime/output.h"
#include "runtime/safetensors.h"

#define TEMPORARY ".tmp-" /* prefix of what is not finished */

const char *order_name(DataOrder order)
{
    return order == ORDER_RANDOM ? "random" : "sequential";
}

bool order_from_name(const char *name, DataOrder *out)
{
    *out = strcmp(name, "sequential") == 0 ? ORDER_SEQUENTIAL : ORDER_RANDOM;
    return strcmp(name, order_name(*out)) == 0;
}

static RtStatus write_tensors(const char *path, Arena *a, const State *s, SafeEntry *entries,
                              RtError *e)
{
    SafeWriter w;
    for (uint32_t i = 0; i < s->all.n; i++) {
        const StateTensor *t = &s->all.at[i];
        entries[i] = (SafeEntry){.name = t->name, .dtype = t->dtype, .rank = t->shape->rank};
        memcpy(entries[i].dim, t->shape->dim, sizeof entries[i].dim);
    }
    RT_TRY(safe_create(&w, a, path, entries, s->all.n, NULL, e));
    RtStatus status = RT_OK;
    for (uint32_t i = 0; i < s->all.n && status == RT_OK; i++)
        status = safe_put(&w, entries[i].offset, s->all.at[i].at, (size_t)entries[i].n_bytes, e);
    if (status == RT_OK) return safe_finish(&w, e);
    safe_abandon(&w);
    return status;
}

static void manifest_tensor(Str *out, const StateTensor *t, const SafeEntry *entry,
                            const char *file)
{
    str_add_json(out, t->name);
    str_addf(out, ":{\"dtype\":\"%s\",\"shape\":[", zmp_dtype_name(t->dtype));
    for (uint32_t d = 0; d < entry->rank; d++)
        str_addf(out, "%s%" PRId64, d ? "," : "", entry->dim[d]);
    str_addf(out,
             "],\"pieces\":[{\"file\":\"%s\",\"offset\":%" PRId64 ",\"first\":0,\"elems\":%" PRId64
             ",\"xxh3\":\"%016" PRIx64 "\"}]}",
             file, entry->offset, t->shape->elems,
             (uint64_t)XXH3_64bits(t->at, (size_t)entry->n_bytes));
}

static void manifest_text(Str *out, const Exec *x, const State *s, const CheckpointInfo *info,
                          const SafeEntry *entries)
{
    const ZmpHeader *h = x->p->h;
    str_add(out, "{\"format\":\"zmc checkpoint\",\"version\":1,\"model\":");
    str_add_json(out, program_str(x->p, h->model));
    str_add(out, ",\"precision\":");
    str_add_json(out, program_str(x->p, h->precision));
    str_addf(out,
             ",\"program\":\"%016" PRIx64 "\",\"ranks\":%u,\"accumulate\":%u,\"batch\":%" PRId64,
             h->hash, h->ranks, h->accumulate, h->batch);
    /* A seed is any 64-bit number: text, since JSON readers round large numbers. */
    str_addf(out,
             ",\"step\":%" PRId64 ",\"samples\":%" PRId64 ",\"seed\":\"%" PRIu64
             "\",\"order\":\"%s\",\"tensors\":{",
             info->step, info->samples, info->seed, order_name(info->order));
    for (uint32_t i = 0; i < s->all.n; i++) {
        str_add(out, i ? ",\n" : "\n");
        manifest_tensor(out, &s->all.at[i], &entries[i], "rank-0.safetensors");
    }
    str_add(out, "}");
    uint64_t check = XXH3_64bits(out->at, out->n);
    str_addf(out, ",\n\"checksum\":\"%016" PRIx64 "\"}\n", check);
}

static RtStatus write_text(const char *path, const Str *text, RtError *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) return output_failed(path, errno, e);
    RtStatus s = output_write(fd, text->at, text->n, path, e);
    if (s == RT_OK) return output_sync_close(fd, path, e);
    close(fd);
    return s;
}

/* ".tmp-step-00001000-PID" of a process that is not there any more, or of this one. */
static bool is_leftover(const char *name)
{
    static const char prefix[] = TEMPORARY "step-";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) return false;
    long pid = atol(strrchr(name, '-') + 1);
    return pid <= 0 || pid == (long)getpid() || (kill((pid_t)pid, 0) != 0 && errno == ESRCH);
}

/* What earlier runs left unfinished. */
static void remove_leftovers(const char *dir, Arena *a)
{
    DIR *d = opendir(dir);
    if (!d) return;
    for (struct dirent *entry; (entry = readdir(d));)
        if (is_leftover(entry->d_name))
            output_remove_dir(arena_printf(a, "%s/%s", dir, entry->d_name));
    closedir(d);
}

static RtStatus write_all(const char *beside, Arena *a, const Exec *x, const State *s,
                          const CheckpointInfo *info, RtError *e)
{
    SafeEntry *entries = ARENA_ARRAY(a, SafeEntry, s->all.n + 1);
    RT_TRY(write_tensors(arena_printf(a, "%s/rank-0.safetensors", beside), a, s, entries, e));
    Str manifest = {0};
    manifest_text(&manifest, x, s, info, entries);
    RtStatus status = write_text(arena_printf(a, "%s/manifest.json", beside), &manifest, e);
    str_free(&manifest);
    if (status == RT_OK) status = output_sync_dir(beside, e);
    return status;
}

/* A checkpoint of the same step changes places with the new one and is removed: at no time is there
 * none.  Where the file system cannot exchange, it is moved aside first. */
static RtStatus put_in_place(const char *dir, const char *beside, const char *final, Arena *a,
                             RtError *e)
{
    const char *old = beside;
    if (access(final, F_OK) != 0) {
        if (rename(beside, final) != 0) return output_failed(final, errno, e);
        return output_sync_dir(dir, e);
    }
    if (renameat2(AT_FDCWD, beside, AT_FDCWD, final, RENAME_EXCHANGE) != 0) {
        old = arena_printf(a, "%s/" TEMPORARY "step-old-%ld", dir, (long)getpid());
        if (rename(final, old) != 0) return output_failed(final, errno, e);
        if (rename(beside, final) != 0) {
            int err = errno;
            if (rename(old, final) != 0) return output_failed(final, errno, e);
            return output_failed(final, err, e);
        }
    }
    RT_TRY(output_sync_dir(dir, e));
    output_remove_dir(old);
    return RT_OK;
}

RtStatus checkpoint_save(const char *dir, const Exec *x, const State *s, const CheckpointInfo *info,
                         RtError *e)
{
    Arena a = {0};
    RtStatus status = output_make_dir(dir, e);
    if (status == RT_OK) {
        remove_leftovers(dir, &a);
        const char *beside = arena_printf(&a, "%s/" TEMPORARY "step-%08" PRId64 "-%ld", dir,
                                          info->step, (long)getpid());
        status = output_make_dir(beside, e);
        if (status == RT_OK) status = write_all(beside, &a, x, s, info, e);
        if (status == RT_OK)
            status = put_in_place(dir, beside,
                                  arena_printf(&a, "%s/step-%08" PRId64, dir, info->step), &a, e);
        if (status != RT_OK) output_remove_dir(beside);
    }
    arena_free(&a);
    return status == RT_OK ? RT_OK : RT_FAILED;
}
