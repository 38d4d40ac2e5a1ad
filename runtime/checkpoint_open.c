/* checkpoint_open.c -- see checkpoint_open.h. */
#include "runtime/checkpoint_open.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

void opened_close(Opened *o)
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

RtStatus opened_read(Opened *o, Arena *a, CheckpointInfo *info, RtError *e)
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

static RtStatus opened_map(Opened *o, Arena *a, const char *file, const MappedFile **out,
                           RtError *e)
{
    for (uint32_t i = 0; i < o->n_files; i++)
        if (strcmp(o->file_name[i], file) == 0) {
            *out = &o->file[i];
            return RT_OK;
        }
    const char *path = arena_printf(a, "%s/%s", o->dir, file);
    if (o->n_files == OPENED_FILES) { /* many ranks: keep the newest ones mapped */
        file_unmap(&o->file[0]);
        o->file[0] = o->file[OPENED_FILES - 1];
        o->file_name[0] = o->file_name[OPENED_FILES - 1];
        o->n_files--;
    }
    int err = file_map(path, &o->file[o->n_files]);
    if (err) return RT_FAIL(e, RT_BAD, "cannot read %s: %s", path, strerror(err));
    o->file_name[o->n_files] = file;
    *out = &o->file[o->n_files++];
    return RT_OK;
}

RtStatus piece_read(const Opened *o, const char *tensor, const json_t *piece, Piece *out,
                    RtError *e)
{
    const char *sum = "";
    bool is_ok =
        json_get_text(piece, "file", &out->file) && json_get_int(piece, "offset", &out->offset) &&
        json_get_int(piece, "first", &out->first) && json_get_int(piece, "elems", &out->elems) &&
        json_get_text(piece, "xxh3", &sum) && !strchr(out->file, '/') && out->offset >= 0 &&
        out->first >= 0 && out->elems >= 0 && out->elems <= INT64_MAX / 16;
    out->xxh3 = strtoull(sum, NULL, 16);
    if (is_ok) return RT_OK;
    return RT_FAIL(e, RT_BAD, "%s: bad piece of tensor %s in the manifest", o->dir, tensor);
}

RtStatus piece_map(Opened *o, Arena *a, const char *tensor, uint32_t dtype, Piece *p, RtError *e)
{
    const MappedFile *map = NULL;
    RT_TRY(opened_map(o, a, p->file, &map, e));
    size_t n_bytes = (size_t)(p->elems * zmp_dtype_bytes(dtype));
    if ((uint64_t)p->offset > map->n_bytes || n_bytes > map->n_bytes - (size_t)p->offset)
        return RT_FAIL(e, RT_BAD,
                       "%s/%s is truncated: tensor %s ends at byte %" PRId64 ", the file has %zu",
                       o->dir, p->file, tensor, p->offset + (int64_t)n_bytes, map->n_bytes);
    p->at = map->at + p->offset;
    return RT_OK;
}

size_t pages_chunk(size_t at, size_t n_bytes)
{
    return n_bytes - at < PAGES_CHUNK_BYTES ? n_bytes - at : PAGES_CHUNK_BYTES;
}

static uint64_t checksum_once(const unsigned char *at, size_t n_bytes)
{
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    for (size_t i = 0; i < n_bytes; i += PAGES_CHUNK_BYTES) {
        XXH3_64bits_update(&state, at + i, pages_chunk(i, n_bytes));
        pages_forget(at + i, pages_chunk(i, n_bytes));
    }
    return XXH3_64bits_digest(&state);
}

uint32_t zmp_dtype_named(const char *name)
{
    for (uint32_t d = ZMP_I1; d <= ZMP_F64; d++)
        if (strcmp(name, zmp_dtype_name(d)) == 0) return d;
    return 0;
}

static RtStatus piece_check(Opened *o, Arena *a, const char *tensor, uint32_t dtype, Piece *p,
                            RtError *e)
{
    RT_TRY(piece_map(o, a, tensor, dtype, p, e));
    if (checksum_once(p->at, (size_t)(p->elems * zmp_dtype_bytes(dtype))) == p->xxh3) return RT_OK;
    return RT_FAIL(e, RT_BAD, "%s/%s is damaged: the checksum of tensor %s does not hold", o->dir,
                   p->file, tensor);
}

/* -1: no shape that can be. */
static int64_t shape_elems(const json_t *shape)
{
    int64_t n = 1;
    if (!json_is_array(shape)) return -1;
    for (size_t i = 0; i < json_array_size(shape); i++) {
        int64_t dim = json_integer_value(json_array_get(shape, i));
        if (dim < 0 || __builtin_mul_overflow(n, dim, &n) || n > INT64_MAX / 16) return -1;
    }
    return n;
}

typedef struct Share { /* of the pieces of all tensors, counted through */
    int rank, ranks;
    size_t n_pieces;
} Share;

static RtStatus check_tensor(Opened *o, Arena *a, const char *name, const json_t *tensor,
                             Share *share, RtError *e)
{
    const char *dtype_text = "";
    json_get_text(tensor, "dtype", &dtype_text);
    uint32_t dtype = zmp_dtype_named(dtype_text);
    if (!dtype)
        return RT_FAIL(e, RT_BAD, "%s: tensor %s has no known dtype in the manifest", o->dir, name);
    const json_t *pieces = json_object_get(tensor, "pieces");
    int64_t elems = shape_elems(json_object_get(tensor, "shape")), next = 0;
    for (size_t i = 0; i < json_array_size(pieces); i++) {
        Piece p;
        RT_TRY(piece_read(o, name, json_array_get(pieces, i), &p, e));
        if (p.first != next) break;
        next += p.elems;
        bool is_mine = share->n_pieces++ % (size_t)share->ranks == (size_t)share->rank;
        if (is_mine) RT_TRY(piece_check(o, a, name, dtype, &p, e));
    }
    if (next == elems) return RT_OK;
    return RT_FAIL(
        e, RT_BAD,
        "%s: the pieces of tensor %s in the manifest are not one after another the %" PRId64
        " elements of its shape",
        o->dir, name, elems);
}

RtStatus opened_check(Opened *o, Arena *a, int rank, int ranks, RtError *e)
{
    const char *name;
    json_t *tensor;
    Share share = {.rank = rank, .ranks = ranks};
    json_object_foreach((json_t *)(uintptr_t)o->tensors, name, tensor)
    {
        RT_TRY(check_tensor(o, a, name, tensor, &share, e));
    }
    return RT_OK;
}
