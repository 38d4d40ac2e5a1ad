/* checkpoint.c -- saving; see checkpoint.h.  Reading is checkpoint_read.c. */
#include "runtime/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "runtime/comm_agree.h"
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

typedef struct Save { /* one checkpoint while it is made */
    const char *dir, *beside, *final;
    const Exec *x;
    const State *s;
    const CheckpointInfo *info;
    Arena a;
    int rank, ranks;
} Save;

/* What one rank writes of one tensor; as ranks tell each other. */
typedef struct PieceRecord {
    int64_t offset, first, elems; /* byte of the rank's file; elements of the tensor */
    uint64_t xxh3;
} PieceRecord;

/* ---- this rank's file ---- */

static SafeEntry entry_of(const StateTensor *t)
{
    SafeEntry entry = {.name = t->name, .dtype = t->dtype, .rank = 1, .dim = {t->own_n}};
    if (t->own_n == t->shape->elems) {
        entry.rank = t->shape->rank;
        memcpy(entry.dim, t->shape->dim, sizeof entry.dim);
    }
    return entry;
}

static RtStatus write_tensors(Save *v, PieceRecord *records, RtError *e)
{
    const State *s = v->s;
    const char *path = arena_printf(&v->a, "%s/rank-%d.safetensors", v->beside, v->rank);
    SafeEntry *entries = ARENA_ARRAY(&v->a, SafeEntry, s->all.n + 1);
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->all.n; i++)
        if (s->all.at[i].own_n) entries[n++] = entry_of(&s->all.at[i]);
    if (access(v->beside, F_OK) != 0)
        return RT_FAIL(e, RT_FAILED, "cannot see %s: all ranks must share the directory of --save",
                       v->beside);
    SafeWriter w;
    RT_TRY(safe_create(&w, &v->a, path, entries, n, NULL, e));
    RtStatus status = RT_OK;
    n = 0;
    for (uint32_t i = 0; i < s->all.n && status == RT_OK; i++) {
        const StateTensor *t = &s->all.at[i];
        if (!t->own_n) continue;
        const SafeEntry *entry = &entries[n++];
        const char *from = state_at(t, t->own_first);
        status = state_fetch(s, t, e);
        if (status == RT_OK) status = safe_put(&w, entry->offset, from, (size_t)entry->n_bytes, e);
        records[i] = (PieceRecord){entry->offset, t->own_first, t->own_n,
                                   XXH3_64bits(from, (size_t)entry->n_bytes)};
        state_forget(s, t);
    }
    if (status == RT_OK) return safe_finish(&w, e);
    safe_abandon(&w);
    return status;
}

/* ---- the manifest: rank 0's ---- */

/* records: n of this rank; all: those of rank r at [r * n]. */
static RtStatus gather_records(Save *v, const PieceRecord *records, uint32_t n, PieceRecord *all,
                               RtError *e)
{
    if (!v->s->comm) {
        memcpy(all, records, n * sizeof *all);
        return RT_OK;
    }
    CommCall call = {.kind = COMM_ALL_GATHER,
                     .dtype = ZMP_I32,
                     .count = (int64_t)(n * sizeof *all / 4) * v->ranks,
                     .in = records,
                     .out = all,
                     .tensor = "the pieces of the checkpoint"};
    return comm_run(v->s->comm, &call, e);
}

/* The pieces follow one another by rank: parts are cut in that order. */
static void manifest_tensor(Str *out, const StateTensor *t, const PieceRecord *piece, uint32_t n,
                            int ranks)
{
    bool is_first = true;
    str_add_json(out, t->name);
    str_addf(out, ":{\"dtype\":\"%s\",\"shape\":[", zmp_dtype_name(t->dtype));
    for (uint32_t d = 0; d < t->shape->rank; d++)
        str_addf(out, "%s%" PRId64, d ? "," : "", t->shape->dim[d]);
    str_add(out, "],\"pieces\":[");
    for (int r = 0; r < ranks; r++) {
        const PieceRecord *p = &piece[(size_t)r * n];
        if (!p->elems) continue;
        str_addf(out,
                 "%s{\"file\":\"rank-%d.safetensors\",\"offset\":%" PRId64 ",\"first\":%" PRId64
                 ",\"elems\":%" PRId64 ",\"xxh3\":\"%016" PRIx64 "\"}",
                 is_first ? "" : ",", r, p->offset, p->first, p->elems, p->xxh3);
        is_first = false;
    }
    str_add(out, "]}");
}

/* A few tensors at a time, so that no rank holds what all ranks know of all of them. */
static RtStatus manifest_tensors(Save *v, const PieceRecord *records, Str *out, RtError *e)
{
    enum { AT_ONCE = 64 };
    PieceRecord *all = ARENA_ARRAY(&v->a, PieceRecord, AT_ONCE * (uint32_t)v->ranks);
    uint32_t n_all = v->s->all.n, n;
    for (uint32_t first = 0; first < n_all; first += n) {
        n = n_all - first < AT_ONCE ? n_all - first : AT_ONCE;
        RT_TRY(gather_records(v, records + first, n, all, e));
        for (uint32_t i = 0; i < n && v->rank == 0; i++) {
            str_add(out, first + i ? ",\n" : "\n");
            manifest_tensor(out, &v->s->all.at[first + i], &all[i], n, v->ranks);
        }
    }
    return RT_OK;
}

static void manifest_head(const Save *v, Str *out)
{
    const Program *p = v->x->p;
    const CheckpointInfo *info = v->info;
    str_add(out, "{\"format\":\"zmc checkpoint\",\"version\":1,\"model\":");
    str_add_json(out, program_str(p, p->h->model));
    str_add(out, ",\"precision\":");
    str_add_json(out, program_str(p, p->h->precision));
    str_addf(out,
             ",\"program\":\"%016" PRIx64 "\",\"ranks\":%u,\"accumulate\":%u,\"batch\":%" PRId64,
             p->h->hash, p->h->ranks, p->h->accumulate, p->h->batch);
    /* A seed is any 64-bit number: text, since JSON readers round large numbers. */
    str_addf(out,
             ",\"step\":%" PRId64 ",\"samples\":%" PRId64 ",\"seed\":\"%" PRIu64
             "\",\"order\":\"%s\",\"tensors\":{",
             info->step, info->samples, info->seed, order_name(info->order));
}

static void manifest_end(Str *out)
{
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

/* ---- all of it ---- */

/* The name is rank 0's: it has the number of its process. */
static RtStatus save_begin(Save *v, RtError *e)
{
    _Alignas(4) char name[PATH_MAX + 64] = "";
    snprintf(name, sizeof name, "%s/" TEMPORARY "step-%08" PRId64 "-%ld", v->dir, v->info->step,
             (long)getpid());
    RT_TRY(comm_tell(v->s->comm, name, sizeof name, "the checkpoint's name", e));
    v->beside = arena_strdup(&v->a, name);
    v->final = arena_printf(&v->a, "%s/step-%08" PRId64, v->dir, v->info->step);
    RtStatus status = RT_OK;
    if (v->rank == 0) {
        status = output_make_dir(v->dir, e);
        if (status == RT_OK) remove_leftovers(v->dir, &v->a);
        if (status == RT_OK) status = output_make_dir(v->beside, e);
    }
    return comm_agree(v->s->comm, status, "the checkpoint's directory", 0, e);
}

static RtStatus save_manifest(Save *v, const PieceRecord *records, RtError *e)
{
    Str text = {0};
    manifest_head(v, &text);
    RtStatus status = manifest_tensors(v, records, &text, e);
    manifest_end(&text);
    if (status == RT_OK && v->rank == 0) {
        status = write_text(arena_printf(&v->a, "%s/manifest.json", v->beside), &text, e);
        if (status == RT_OK) status = output_sync_dir(v->beside, e);
        if (status == RT_OK) status = put_in_place(v->dir, v->beside, v->final, &v->a, e);
    }
    str_free(&text);
    return comm_agree(v->s->comm, status, "the checkpoint's manifest", 0, e);
}

static RtStatus save_all(Save *v, RtError *e)
{
    PieceRecord *records = ARENA_ARRAY(&v->a, PieceRecord, v->s->all.n + 1);
    RT_TRY(save_begin(v, e));
    RtStatus status = write_tensors(v, records, e);
    RT_TRY(comm_agree(v->s->comm, status, "the checkpoint", v->s->most_bytes, e));
    return save_manifest(v, records, e);
}

RtStatus checkpoint_save(const char *dir, const Exec *x, const State *s, const CheckpointInfo *info,
                         RtError *e)
{
    Save v = {.dir = dir, .x = x, .s = s, .info = info};
    v.rank = comm_rank_or_0(s->comm);
    v.ranks = comm_size_or_1(s->comm);
    RtStatus status = save_all(&v, e);
    /* Who renames also removes: another rank cannot know whether it did. */
    if (status != RT_OK && v.rank == 0 && v.beside) output_remove_dir(v.beside);
    arena_free(&v.a);
    return status == RT_OK ? RT_OK : RT_FAILED;
}
