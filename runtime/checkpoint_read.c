/* checkpoint_read.c -- resuming; see checkpoint.h.
 *
 * Damage (unreadable, wrong checksum) makes a checkpoint invalid: an older one is tried.  A sound
 * checkpoint of another model is an error: going back in time would not help. */
#include "runtime/checkpoint_open.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/comm_agree.h"
#include "runtime/convert.h"

enum { MAX_LISTED = 20 };

static void copy_once(char *to, const unsigned char *from, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i += PAGES_CHUNK_BYTES) {
        memcpy(to + i, from + i, pages_chunk(i, n_bytes));
        pages_forget(from + i, pages_chunk(i, n_bytes));
    }
}

/* ---- into the state ---- */

static bool same_shape(const ZmpVar *v, const json_t *shape)
{
    if (json_array_size(shape) != v->rank) return false;
    for (uint32_t i = 0; i < v->rank; i++)
        if (json_integer_value(json_array_get(shape, i)) != v->dim[i]) return false;
    return true;
}

/* Where a tensor of this program comes from.  In a checkpoint of another precision:
 *   a parameter in 16 bits or f32   is the rounding (or the value) of the checkpoint's master, if
 * it has one, else of its parameter a master                        is the master, else the
 * parameter a moment                        is the same moment, in f32 or bf16 so that a parameter
 * always is the rounding of its master. */
typedef struct Source {
    const json_t *tensor; /* NULL: none */
    uint32_t dtype;
} Source;

static Source source_named(const Opened *o, const char *name)
{
    const char *dtype = "";
    Source s = {json_object_get(o->tensors, name), 0};
    if (s.tensor && json_get_text(s.tensor, "dtype", &dtype)) s.dtype = zmp_dtype_named(dtype);
    return s;
}

static Source source_of(const Opened *o, Arena *a, const StateTensor *t)
{
    Source own = source_named(o, t->name);
    if (own.tensor && own.dtype == t->dtype) return own;
    if (t->kind != ZMP_PARAM && t->kind != ZMP_MASTER) return own;
    Source master = source_named(o, arena_printf(a, "master/%s", t->path));
    return master.tensor ? master : source_named(o, arena_printf(a, "param/%s", t->path));
}

static bool is_float(uint32_t dtype)
{
    return dtype == ZMP_BF16 || dtype == ZMP_F16 || dtype == ZMP_F32 || dtype == ZMP_F64;
}

static const char *other_shape(Arena *a, const ZmpVar *v, const json_t *shape)
{
    size_t rank = json_array_size(shape);
    int64_t *dim = ARENA_ARRAY(a, int64_t, rank + 1);
    for (size_t i = 0; i < rank; i++) dim[i] = json_integer_value(json_array_get(shape, i));
    return arena_printf(a, "%s in the checkpoint, %s in the program",
                        shape_text(a, (uint32_t)rank, dim), shape_text(a, v->rank, v->dim));
}

static const char *misfit(const Opened *o, Arena *a, const StateTensor *t)
{
    Source from = source_of(o, a, t);
    if (!from.tensor) return t->kind == ZMP_SCALAR ? NULL : "missing";
    bool converts = t->kind != ZMP_SCALAR && is_float(from.dtype) && is_float(t->dtype);
    if (from.dtype != t->dtype && !converts)
        return arena_printf(a, "%s in the checkpoint, %s in the program",
                            zmp_dtype_name(from.dtype), zmp_dtype_name(t->dtype));
    const json_t *shape = json_object_get(from.tensor, "shape");
    return same_shape(t->shape, shape) ? NULL : other_shape(a, t->shape, shape);
}

/* A tensor of the checkpoint that this program neither has nor could take anything from. */
static bool is_foreign(Arena *a, const State *s, const char *name)
{
    if (state_find(s, name) || strncmp(name, "scalar/", 7) == 0) return false;
    return strncmp(name, "master/", 7) != 0 ||
           !state_find(s, arena_printf(a, "param/%s", name + 7));
}

/* Tensors of this program that the checkpoint lacks or has otherwise.  A scalar that it lacks keeps
 * its initial value: a program of another precision has other scalars. */
static RtStatus check_fit(const Opened *o, Arena *a, const State *s, RtError *e)
{
    Str bad = {0};
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->all.n; i++) {
        const char *what = misfit(o, a, &s->all.at[i]);
        if (what && ++n <= MAX_LISTED) str_addf(&bad, "\n    %s: %s", s->all.at[i].name, what);
    }
    const char *name;
    json_t *tensor;
    json_object_foreach((json_t *)(uintptr_t)o->tensors, name, tensor)
    {
        if (!is_foreign(a, s, name)) continue;
        if (++n <= MAX_LISTED) str_addf(&bad, "\n    %s: not in this program", name);
    }
    if (n > MAX_LISTED) str_addf(&bad, "\n    and %u more", n - MAX_LISTED);
    RtStatus status = RT_OK;
    if (n)
        status = RT_FAIL(e, RT_BAD, "checkpoint %s is of another model; nothing was loaded%s",
                         o->dir, str_c(&bad));
    str_free(&bad);
    return status;
}

/* n elements of another dtype. */
static void convert_once(char *to, uint32_t dtype, const unsigned char *from, uint32_t from_dtype,
                         int64_t n)
{
    enum { CHUNK_ELEMS = 1 << 14 };
    float buf[CHUNK_ELEMS];
    int64_t each = zmp_dtype_bytes(dtype), from_each = zmp_dtype_bytes(from_dtype);
    for (int64_t i = 0; i < n; i += CHUNK_ELEMS) {
        size_t some = (size_t)(n - i < CHUNK_ELEMS ? n - i : CHUNK_ELEMS);
        convert_to_f32(buf, from + i * from_each, from_dtype, some);
        convert_from_f32(to + i * each, dtype, buf, some);
        pages_forget(from + i * from_each, some * (size_t)from_each);
    }
}

/* The pieces, or the parts of them, that this rank holds. */
static RtStatus load_tensor(Opened *o, Arena *a, const StateTensor *t, const Source *source,
                            RtError *e)
{
    const json_t *pieces = json_object_get(source->tensor, "pieces");
    int64_t each = zmp_dtype_bytes(source->dtype), first;
    for (size_t k = 0; k < json_array_size(pieces); k++) {
        Piece p;
        RT_TRY(piece_read(o, t->name, json_array_get(pieces, k), &p, e));
        int64_t n = elems_common(p.first, p.elems, t->first, t->n, &first);
        if (!n) continue;
        RT_TRY(piece_map(o, a, t->name, source->dtype, &p, e));
        const unsigned char *from = p.at + (first - p.first) * each;
        if (source->dtype == t->dtype)
            copy_once(state_at(t, first), from, (size_t)(n * each));
        else
            convert_once(state_at(t, first), t->dtype, from, source->dtype, n);
    }
    return RT_OK;
}

/* Scalars that mean the same in every precision; the others are the loss scale's state. */
static bool is_common_scalar(const StateTensor *t)
{
    return strcmp(t->path, ZMP_S_STEP) == 0 || strcmp(t->path, ZMP_S_UPDATE) == 0;
}

static RtStatus load_tensors(Opened *o, Arena *a, const State *s, const char *precision, RtError *e)
{
    const char *have = "";
    bool is_same = json_get_text(o->manifest, "precision", &have) && strcmp(have, precision) == 0;
    for (uint32_t i = 0; i < s->all.n; i++) {
        const StateTensor *t = &s->all.at[i];
        Source from = source_of(o, a, t);
        bool is_wanted = is_same || t->kind != ZMP_SCALAR || is_common_scalar(t);
        if (!from.tensor || !is_wanted) continue;
        RT_TRY(load_tensor(o, a, t, &from, e));
        RT_TRY(state_put(s, t, e));
    }
    return RT_OK;
}

/* ---- choosing ---- */

static RtStatus agree_damage(const State *s, RtStatus mine, RtError *e)
{
    return comm_agree(s->comm, mine == RT_OK ? RT_OK : RT_FAILED, "the checkpoint to resume",
                      s->most_bytes, e);
}

/* RT_BAD: sound, but of another model; RT_FAILED: not sound.  The same on all ranks. */
static RtStatus try_one(const char *dir, Arena *a, const State *s, const char *precision,
                        CheckpointInfo *info, RtError *e)
{
    Opened o = {.dir = dir};
    RtStatus status = opened_read(&o, a, info, e);
    if (status == RT_OK)
        status = opened_check(&o, a, comm_rank_or_0(s->comm), comm_size_or_1(s->comm), e);
    status = agree_damage(s, status, e);
    if (status == RT_OK)
        status = comm_agree(s->comm, check_fit(&o, a, s, e), "the fit of the checkpoint", 0, e);
    if (status == RT_OK) status = agree_damage(s, load_tensors(&o, a, s, precision, e), e);
    opened_close(&o);
    return status;
}

static int newest_first(const void *x, const void *y)
{
    const char *a = *(char *const *)x, *b = *(char *const *)y;
    size_t n = strlen(a), m = strlen(b); /* more digits: a later step */
    return n != m ? (n < m ? 1 : -1) : strcmp(b, a);
}

static bool is_step_name(const char *name)
{
    return strncmp(name, "step-", 5) == 0 && name[5] &&
           strspn(name + 5, "0123456789") == strlen(name + 5);
}

int64_t checkpoint_newest_step(const char *dir)
{
    int64_t newest = -1;
    DIR *d = opendir(dir);
    for (struct dirent *entry; d && (entry = readdir(d));) {
        if (!is_step_name(entry->d_name)) continue;
        long long step = strtoll(entry->d_name + 5, NULL, 10);
        if (step > newest) newest = step;
    }
    if (d) closedir(d);
    return newest;
}

typedef struct Found { /* candidates, newest first; rank 0's */
    VEC(const char *) all;
} Found;

static RtStatus find_all(Found *f, Arena *a, const char *dir, RtError *e)
{
    if (access(arena_printf(a, "%s/manifest.json", dir), F_OK) == 0) {
        VEC_PUSH(a, &f->all, dir);
        return RT_OK;
    }
    DIR *d = opendir(dir);
    if (!d) return RT_FAIL(e, RT_BAD, "cannot read checkpoints in %s: %s", dir, strerror(errno));
    for (struct dirent *entry; (entry = readdir(d));)
        if (is_step_name(entry->d_name)) {
            const char *path = arena_printf(a, "%s/%s", dir, entry->d_name);
            VEC_PUSH(a, &f->all, path);
        }
    closedir(d);
    if (f->all.n) qsort(f->all.at, f->all.n, sizeof *f->all.at, newest_first);
    return RT_OK;
}

/* Candidate i of rank 0 on all ranks; NULL: no more. */
static RtStatus propose(const Found *f, Arena *a, const State *s, uint32_t i, const char **out,
                        RtError *e)
{
    _Alignas(4) char name[PATH_MAX + 64] = "";
    if (i < f->all.n) snprintf(name, sizeof name, "%s", f->all.at[i]);
    RT_TRY(comm_tell(s->comm, name, sizeof name, "the checkpoint to try", e));
    *out = *name ? arena_strdup(a, name) : NULL;
    return RT_OK;
}

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* Damaged ones are passed over with a line in *skipped. */
static RtStatus try_all(const Found *f, Arena *a, const char *dir, const State *s,
                        const char *precision, CheckpointInfo *info, Str *skipped, RtError *e)
{
    for (uint32_t i = 0;; i++) {
        const char *path;
        RtError why = {0};
        RT_TRY(propose(f, a, s, i, &path, e));
        if (!path)
            return RT_FAIL(e, RT_BAD,
                           i ? "no checkpoint in %s is valid" : "%s holds no checkpoint (step-...)",
                           dir);
        RtStatus status = try_one(path, a, s, precision, info, &why);
        if (status == RT_BAD)
            rt_say(e, "%s", str_c(&why.text));
        else if (status != RT_OK)
            str_addf(skipped, "  %s: %s\n", name_of(path), str_c(&why.text));
        str_free(&why.text);
        if (status != RT_FAILED) return status;
    }
}

RtStatus checkpoint_resume(const char *dir, const State *s, const char *precision,
                           CheckpointInfo *info, Str *skipped, RtError *e)
{
    Arena a = {0};
    Found f = {0};
    RtStatus status = comm_rank_or_0(s->comm) == 0 ? find_all(&f, &a, dir, e) : RT_OK;
    status = comm_agree(s->comm, status, "the checkpoints", 0, e);
    if (status == RT_OK) status = try_all(&f, &a, dir, s, precision, info, skipped, e);
    arena_free(&a);
    return status;
}
