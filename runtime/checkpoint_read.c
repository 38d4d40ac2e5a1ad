/* checkpoint_read.c -- resuming; see checkpoint.h.
 *
 * Damage (unreadable, wrong checksum) makes a checkpoint invalid: an older one is tried.  A sound
 * checkpoint of another model is an error: going back in time would not help. */
#include "runtime/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "runtime/convert.h"
#include "runtime/json.h"
#include "runtime/safetensors.h"

enum { MAX_LISTED = 20 };

typedef struct Opened { /* one checkpoint while it is looked at */
    const char *dir;
    json_t *manifest;
    const json_t *tensors;
    const char *file_name[16]; /* mapped files */
    MappedFile file[16];
    uint32_t n_files;
} Opened;

static void opened_close(Opened *o)
{
    for (uint32_t i = 0; i < o->n_files; i++) file_unmap(&o->file[i]);
    if (o->manifest) json_decref(o->manifest);
    *o = (Opened){0};
}

/* ---- manifest ---- */

static bool checksum_holds(const char *text, size_t n)
{
    static const char key[] = ",\n\"checksum\":\"";
    const char *found = NULL;
    for (const char *at = text; (at = strstr(at, key)); at++) found = at;
    if (!found || (size_t)(found - text) + sizeof key - 1 + 16 > n) return false;
    return strtoull(found + sizeof key - 1, NULL, 16) ==
           (uint64_t)XXH3_64bits(text, (size_t)(found - text));
}

static RtStatus read_manifest(Opened *o, Arena *a, CheckpointInfo *info, RtError *e)
{
    const char *path = arena_printf(a, "%s/manifest.json", o->dir);
    char *text;
    size_t n;
    int err = file_read(a, path, &text, &n);
    if (err) return RT_FAIL(e, RT_BAD, "cannot read %s: %s", path, strerror(err));
    if (!checksum_holds(text, n))
        return RT_FAIL(e, RT_BAD, "%s is damaged: its checksum does not hold", path);
    RT_TRY(json_object_read(&o->manifest, text, n, path, e));
    int64_t version = 0;
    const char *seed = "", *order = "";
    o->tensors = json_object_get(o->manifest, "tensors");
    bool is_ok = json_get_int(o->manifest, "version", &version) && version == 1 &&
                 json_get_int(o->manifest, "step", &info->step) &&
                 json_get_int(o->manifest, "samples", &info->samples) &&
                 json_get_text(o->manifest, "seed", &seed) &&
                 json_get_text(o->manifest, "order", &order) &&
                 order_from_name(order, &info->order) && json_is_object(o->tensors) &&
                 info->step >= 0 && info->samples >= 0;
    if (!is_ok) return RT_FAIL(e, RT_BAD, "%s is not a checkpoint manifest of version 1", path);
    info->seed = strtoull(seed, NULL, 10);
    const char *precision = "";
    json_get_text(o->manifest, "precision", &precision);
    snprintf(info->precision, sizeof info->precision, "%s", precision);
    return RT_OK;
}

/* ---- pieces ---- */

typedef struct Piece {
    const unsigned char *at;
    int64_t first, elems;
} Piece;

static RtStatus opened_map(Opened *o, Arena *a, const char *file, const MappedFile **out,
                           RtError *e)
{
    for (uint32_t i = 0; i < o->n_files; i++)
        if (strcmp(o->file_name[i], file) == 0) {
            *out = &o->file[i];
            return RT_OK;
        }
    const char *path = arena_printf(a, "%s/%s", o->dir, file);
    if (o->n_files == 16) { /* many ranks: keep the newest ones mapped */
        file_unmap(&o->file[0]);
        o->file[0] = o->file[15];
        o->file_name[0] = o->file_name[15];
        o->n_files--;
    }
    int err = file_map(path, &o->file[o->n_files]);
    if (err) return RT_FAIL(e, RT_BAD, "cannot read %s: %s", path, strerror(err));
    o->file_name[o->n_files] = file;
    *out = &o->file[o->n_files++];
    return RT_OK;
}

static size_t chunk_bytes(size_t at, size_t n_bytes)
{
    return n_bytes - at < PAGES_CHUNK_BYTES ? n_bytes - at : PAGES_CHUNK_BYTES;
}

static uint64_t checksum_once(const unsigned char *at, size_t n_bytes)
{
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    for (size_t i = 0; i < n_bytes; i += PAGES_CHUNK_BYTES) {
        XXH3_64bits_update(&state, at + i, chunk_bytes(i, n_bytes));
        pages_forget(at + i, chunk_bytes(i, n_bytes));
    }
    return XXH3_64bits_digest(&state);
}

static void copy_once(char *to, const unsigned char *from, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i += PAGES_CHUNK_BYTES) {
        memcpy(to + i, from + i, chunk_bytes(i, n_bytes));
        pages_forget(from + i, chunk_bytes(i, n_bytes));
    }
}

/* Maps the piece and checks its range; `is_checked`: its checksum too. */
static RtStatus piece_open(Opened *o, Arena *a, const char *name, const json_t *piece, int64_t each,
                           bool is_checked, Piece *out, RtError *e)
{
    const char *file, *sum;
    int64_t offset;
    bool is_ok = json_get_text(piece, "file", &file) && json_get_int(piece, "offset", &offset) &&
                 json_get_int(piece, "first", &out->first) &&
                 json_get_int(piece, "elems", &out->elems) && json_get_text(piece, "xxh3", &sum) &&
                 !strchr(file, '/') && offset >= 0 && out->first >= 0 && out->elems >= 0 &&
                 out->elems <= INT64_MAX / 16;
    if (!is_ok)
        return RT_FAIL(e, RT_BAD, "%s: bad piece of tensor %s in the manifest", o->dir, name);
    const MappedFile *map = NULL;
    RT_TRY(opened_map(o, a, file, &map, e));
    size_t n_bytes = (size_t)(out->elems * each);
    if ((uint64_t)offset > map->n_bytes || n_bytes > map->n_bytes - (size_t)offset)
        return RT_FAIL(e, RT_BAD,
                       "%s/%s is truncated: tensor %s ends at byte %" PRId64 ", the file has %zu",
                       o->dir, file, name, offset + (int64_t)n_bytes, map->n_bytes);
    out->at = map->at + offset;
    if (is_checked && strtoull(sum, NULL, 16) != checksum_once(out->at, n_bytes))
        return RT_FAIL(e, RT_BAD, "%s/%s is damaged: the checksum of tensor %s does not hold",
                       o->dir, file, name);
    return RT_OK;
}

static uint32_t dtype_from_name(const char *name)
{
    for (uint32_t d = ZMP_I1; d <= ZMP_F64; d++)
        if (strcmp(name, zmp_dtype_name(d)) == 0) return d;
    return 0;
}

/* Every checksum of every tensor, whether this program has the tensor or not. */
static RtStatus check_tensors(Opened *o, Arena *a, RtError *e)
{
    const char *name;
    json_t *tensor;
    json_object_foreach((json_t *)(uintptr_t)o->tensors, name, tensor)
    {
        const char *dtype = "";
        json_get_text(tensor, "dtype", &dtype);
        int64_t each = zmp_dtype_bytes(dtype_from_name(dtype));
        if (!each)
            return RT_FAIL(e, RT_BAD, "%s: tensor %s has no known dtype in the manifest", o->dir,
                           name);
        const json_t *pieces = json_object_get(tensor, "pieces");
        Piece p;
        for (size_t i = 0; i < json_array_size(pieces); i++)
            RT_TRY(piece_open(o, a, name, json_array_get(pieces, i), each, true, &p, e));
    }
    return RT_OK;
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
    if (s.tensor && json_get_text(s.tensor, "dtype", &dtype)) s.dtype = dtype_from_name(dtype);
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

static const char *misfit(const Opened *o, Arena *a, const StateTensor *t)
{
    Source from = source_of(o, a, t);
    if (!from.tensor) return t->kind == ZMP_SCALAR ? NULL : "missing";
    bool converts = t->kind != ZMP_SCALAR && is_float(from.dtype) && is_float(t->dtype);
    if (from.dtype != t->dtype && !converts) return "of another dtype";
    return same_shape(t->shape, json_object_get(from.tensor, "shape")) ? NULL : "of another shape";
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

static void convert_once(char *to, uint32_t dtype, const Piece *p, uint32_t from_dtype)
{
    enum { CHUNK_ELEMS = 1 << 14 };
    float buf[CHUNK_ELEMS];
    int64_t each = zmp_dtype_bytes(dtype), from_each = zmp_dtype_bytes(from_dtype);
    for (int64_t i = 0; i < p->elems; i += CHUNK_ELEMS) {
        size_t n = (size_t)(p->elems - i < CHUNK_ELEMS ? p->elems - i : CHUNK_ELEMS);
        convert_to_f32(buf, p->at + i * from_each, from_dtype, n);
        convert_from_f32(to + i * each, dtype, buf, n);
    }
}

static RtStatus load_tensor(Opened *o, Arena *a, const StateTensor *t, const Source *from,
                            RtError *e)
{
    const json_t *pieces = json_object_get(from->tensor, "pieces");
    int64_t each = zmp_dtype_bytes(t->dtype), covered = 0;
    for (size_t k = 0; k < json_array_size(pieces); k++) {
        Piece p;
        RT_TRY(piece_open(o, a, t->name, json_array_get(pieces, k), zmp_dtype_bytes(from->dtype),
                          false, &p, e));
        if (p.first > t->shape->elems || p.elems > t->shape->elems - p.first)
            return RT_FAIL(e, RT_BAD, "%s: a piece of tensor %s lies outside it", o->dir, t->name);
        char *to = t->at + p.first * each;
        if (from->dtype == t->dtype)
            copy_once(to, p.at, (size_t)(p.elems * each));
        else
            convert_once(to, t->dtype, &p, from->dtype);
        covered += p.elems;
    }
    if (covered == t->shape->elems) return RT_OK;
    return RT_FAIL(e, RT_BAD,
                   "%s: the pieces of tensor %s hold %" PRId64 " of %" PRId64 " elements", o->dir,
                   t->name, covered, t->shape->elems);
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
        if (from.tensor && is_wanted) RT_TRY(load_tensor(o, a, t, &from, e));
    }
    return RT_OK;
}

/* ---- choosing ---- */

/* RT_BAD with *is_other: sound, but of another model. */
static RtStatus try_one(const char *dir, Arena *a, const State *s, const char *precision,
                        CheckpointInfo *info, bool *is_other, RtError *e)
{
    Opened o = {.dir = dir};
    RtStatus status = read_manifest(&o, a, info, e);
    if (status == RT_OK) status = check_tensors(&o, a, e);
    if (status == RT_OK) {
        status = check_fit(&o, a, s, e);
        *is_other = status != RT_OK;
    }
    if (status == RT_OK) status = load_tensors(&o, a, s, precision, e);
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

RtStatus checkpoint_resume(const char *dir, const State *s, const char *precision,
                           CheckpointInfo *info, Str *skipped, RtError *e)
{
    Arena a = {0};
    VEC(const char *) found = {0};
    if (access(arena_printf(&a, "%s/manifest.json", dir), F_OK) == 0)
        VEC_PUSH(&a, &found, dir);
    else {
        DIR *d = opendir(dir);
        RtStatus status =
            d ? RT_OK
              : RT_FAIL(e, RT_BAD, "cannot read checkpoints in %s: %s", dir, strerror(errno));
        for (struct dirent *entry; d && (entry = readdir(d));)
            if (is_step_name(entry->d_name)) {
                const char *path = arena_printf(&a, "%s/%s", dir, entry->d_name);
                VEC_PUSH(&a, &found, path);
            }
        if (d) closedir(d);
        if (status != RT_OK) {
            arena_free(&a);
            return status;
        }
        if (found.n) qsort(found.at, found.n, sizeof *found.at, newest_first);
    }
    RtStatus status = RT_BAD;
    bool is_other = false;
    for (uint32_t i = 0; i < found.n && status != RT_OK && !is_other; i++) {
        RtError why = {0};
        status = try_one(found.at[i], &a, s, precision, info, &is_other, &why);
        if (is_other)
            rt_say(e, "%s", str_c(&why.text));
        else if (status != RT_OK)
            str_addf(skipped, "%s\n", str_c(&why.text));
        str_free(&why.text);
    }
    if (status != RT_OK && !is_other)
        rt_say(e, found.n ? "no checkpoint in %s is valid" : "%s holds no checkpoint (step-...)",
               dir);
    arena_free(&a);
    return status;
}
