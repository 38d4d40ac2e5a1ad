/* safetensors.c -- reading; see safetensors.h.  The writer is safetensors_write.c. */
#include "runtime/safetensors.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/json.h"

static const struct {
    const char *name;
    int64_t bytes;
} safe_dtypes[N_SAFE_DTYPE] = {
    [SAFE_BOOL] = {"BOOL", 1}, [SAFE_U8] = {"U8", 1},     [SAFE_I8] = {"I8", 1},
    [SAFE_I16] = {"I16", 2},   [SAFE_U16] = {"U16", 2},   [SAFE_I32] = {"I32", 4},
    [SAFE_U32] = {"U32", 4},   [SAFE_I64] = {"I64", 8},   [SAFE_U64] = {"U64", 8},
    [SAFE_F16] = {"F16", 2},   [SAFE_BF16] = {"BF16", 2}, [SAFE_F32] = {"F32", 4},
    [SAFE_F64] = {"F64", 8},   [SAFE_OTHER] = {"?", 0},
};

static SafeDType safe_dtype(const char *name)
{
    for (int i = 0; i < SAFE_OTHER; i++)
        if (strcmp(safe_dtypes[i].name, name) == 0) return (SafeDType)i;
    return SAFE_OTHER;
}

bool safe_is_float(SafeDType dtype)
{
    return dtype >= SAFE_F16 && dtype <= SAFE_F64;
}

bool safe_is_integer(SafeDType dtype)
{
    return dtype <= SAFE_U64;
}

int64_t safe_dtype_bytes(SafeDType dtype)
{
    return safe_dtypes[dtype].bytes;
}

uint32_t safe_zmp_dtype(SafeDType dtype)
{
    return dtype == SAFE_F16    ? ZMP_F16
           : dtype == SAFE_BF16 ? ZMP_BF16
           : dtype == SAFE_F64  ? ZMP_F64
                                : ZMP_F32;
}

int64_t safe_integer(const SafeTensor *t, int64_t element)
{
    unsigned char raw[8] = {0};
    size_t n = (size_t)safe_dtypes[t->dtype].bytes;
    memcpy(raw, t->at + (size_t)element * n, n);
    bool is_signed = t->dtype == SAFE_I8 || t->dtype == SAFE_I16 || t->dtype == SAFE_I32;
    if (is_signed && raw[n - 1] & 0x80) memset(raw + n, 0xff, sizeof raw - n);
    int64_t v;
    memcpy(&v, raw, sizeof v);
    return t->dtype == SAFE_U64 && v < 0 ? INT64_MAX : v;
}

void pages_forget(const void *at, size_t n_bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (uintptr_t)at / page * page;
    uintptr_t to = ((uintptr_t)at + n_bytes + page - 1) / page * page;
    if (n_bytes) madvise((void *)from, to - from, MADV_DONTNEED);
}

/* ---- one file ---- */

static RtStatus read_shape(SafeTensor *t, const json_t *shape, RtError *e)
{
    if (!json_is_array(shape))
        return RT_FAIL(e, RT_BAD, "%s: tensor %s has no \"shape\"", t->file, t->name);
    size_t rank = json_array_size(shape);
    if (rank > ZMP_MAX_RANK)
        return RT_FAIL(e, RT_BAD, "%s: tensor %s has %zu dimensions, more than %d", t->file,
                       t->name, rank, ZMP_MAX_RANK);
    t->rank = (uint32_t)rank;
    t->elems = 1;
    for (size_t i = 0; i < rank; i++) {
        const json_t *d = json_array_get(shape, i);
        int64_t n = json_is_integer(d) ? json_integer_value(d) : -1;
        if (n < 0)
            return RT_FAIL(e, RT_BAD, "%s: tensor %s has a bad dimension %zu in its shape", t->file,
                           t->name, i);
        if (n && t->elems > INT64_MAX / 8 / n)
            return RT_FAIL(e, RT_BAD, "%s: tensor %s has an impossible shape (too many elements)",
                           t->file, t->name);
        t->dim[i] = n;
        t->elems *= n;
    }
    return RT_OK;
}

static RtStatus read_offsets(SafeTensor *t, const json_t *offsets, const unsigned char *data,
                             size_t n_data, RtError *e)
{
    const json_t *b = json_array_get(offsets, 0), *c = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(b) || !json_is_integer(c))
        return RT_FAIL(e, RT_BAD, "%s: tensor %s has no \"data_offsets\" [begin, end]", t->file,
                       t->name);
    int64_t begin = json_integer_value(b), end = json_integer_value(c);
    if (begin < 0 || end < begin)
        return RT_FAIL(e, RT_BAD, "%s: tensor %s has bad data_offsets [%" PRId64 ", %" PRId64 "]",
                       t->file, t->name, begin, end);
    if ((uint64_t)end > n_data)
        return RT_FAIL(e, RT_BAD,
                       "%s: tensor %s ends at byte %" PRId64
                       " of the data, but the file holds %zu: it is truncated; copy it "
                       "again",
                       t->file, t->name, end, n_data);
    int64_t each = safe_dtypes[t->dtype].bytes;
    if (each && end - begin != t->elems * each)
        return RT_FAIL(e, RT_BAD,
                       "%s: tensor %s has %" PRId64
                       " bytes of data, its shape and dtype %s make %" PRId64,
                       t->file, t->name, end - begin, t->dtype_text, t->elems * each);
    t->at = data + begin;
    t->n_bytes = (size_t)(end - begin);
    return RT_OK;
}

static RtStatus read_entry(SafeFile *f, Arena *a, const char *file, const char *name,
                           const json_t *entry, const unsigned char *data, size_t n_data,
                           RtError *e)
{
    SafeTensor t = {.name = arena_strdup(a, name), .file = file};
    const char *dtype;
    if (!json_is_object(entry) || !json_get_text(entry, "dtype", &dtype))
        return RT_FAIL(e, RT_BAD, "%s: tensor %s has no \"dtype\"", file, t.name);
    t.dtype_text = arena_strdup(a, dtype);
    t.dtype = safe_dtype(dtype);
    RT_TRY(read_shape(&t, json_object_get(entry, "shape"), e));
    RT_TRY(read_offsets(&t, json_object_get(entry, "data_offsets"), data, n_data, e));
    VEC_PUSH(a, &f->all, t);
    return RT_OK;
}

static RtStatus read_header(SafeFile *f, Arena *a, const char *file, const MappedFile *map,
                            RtError *e)
{
    uint64_t n = 0;
    if (map->n_bytes < 8)
        return RT_FAIL(e, RT_BAD, "%s: %zu bytes, too short for a safetensors file", file,
                       map->n_bytes);
    memcpy(&n, map->at, sizeof n);
    if (n > map->n_bytes - 8)
        return RT_FAIL(e, RT_BAD,
                       "%s: its header says %" PRIu64
                       " bytes, but the file has %zu: truncated, or not a safetensors file",
                       file, n, map->n_bytes);
    json_t *root;
    RT_TRY(json_object_read(&root, (const char *)map->at + 8, (size_t)n,
                            arena_printf(a, "the header of %s", file), e));
    const unsigned char *data = map->at + 8 + n;
    size_t n_data = map->n_bytes - 8 - (size_t)n;
    RtStatus s = RT_OK;
    const char *name;
    json_t *entry;
    json_object_foreach(root, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0) continue;
        s = read_entry(f, a, file, name, entry, data, n_data, e);
        if (s != RT_OK) break;
    }
    json_decref(root);
    return s;
}

static RtStatus open_one(SafeFile *f, Arena *a, const char *file, RtError *e)
{
    MappedFile map;
    int err = file_map(file, &map);
    if (err) return RT_FAIL(e, RT_BAD, "cannot read %s: %s", file, strerror(err));
    VEC_PUSH(a, &f->maps, map);
    return read_header(f, a, file, &map, e);
}

/* ---- shards and directories ---- */

/* "weight_map": {tensor: file}.  Each file once, in order of first mention; all of its tensors
 * count. */
static RtStatus open_shards(SafeFile *f, Arena *a, const char *index, const json_t *root,
                            RtError *e)
{
    const json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map)) return RT_FAIL(e, RT_BAD, "%s has no \"weight_map\"", index);
    const char *slash = strrchr(index, '/');
    int n_dir = slash ? (int)(slash - index + 1) : 0;
    VEC(const char *) opened = {0};
    const char *tensor;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, tensor, value)
    {
        const char *file = json_string_value(value);
        if (!file || !*file || strchr(file, '/'))
            return RT_FAIL(e, RT_BAD, "%s: bad file name for tensor %s", index, tensor);
        bool is_open = false;
        for (uint32_t i = 0; i < opened.n && !is_open; i++)
            is_open = strcmp(opened.at[i], file) == 0;
        if (is_open) continue;
        const char *name = arena_strdup(a, file);
        VEC_PUSH(a, &opened, name);
        RT_TRY(open_one(f, a, arena_printf(a, "%.*s%s", n_dir, index, file), e));
    }
    json_object_foreach((json_t *)(uintptr_t)map, tensor, value)
    {
        if (!safe_find(f, tensor))
            return RT_FAIL(e, RT_BAD, "%s: tensor %s is not in its file %s", index, tensor,
                           json_string_value(value));
    }
    return RT_OK;
}

static RtStatus open_index(SafeFile *f, Arena *a, const char *index, RtError *e)
{
    char *text;
    size_t n;
    int err = file_read(a, index, &text, &n);
    if (err) return RT_FAIL(e, RT_BAD, "cannot read %s: %s", index, strerror(err));
    json_t *root;
    RT_TRY(json_object_read(&root, text, n, index, e));
    RtStatus s = open_shards(f, a, index, root, e);
    json_decref(root);
    return s;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static RtStatus check_twice(const SafeFile *f, RtError *e)
{
    for (uint32_t i = 0; i < f->all.n && f->maps.n > 1; i++)
        for (uint32_t j = 0; j < i; j++)
            if (strcmp(f->all.at[i].name, f->all.at[j].name) == 0)
                return RT_FAIL(e, RT_BAD, "tensor %s is in both %s and %s", f->all.at[i].name,
                               f->all.at[j].file, f->all.at[i].file);
    return RT_OK;
}

RtStatus safe_open(SafeFile *f, Arena *a, const char *path, RtError *e)
{
    *f = (SafeFile){.path = path};
    struct stat st;
    RtStatus s;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        const char *one = arena_printf(a, "%s/model.safetensors", path);
        const char *index = arena_printf(a, "%s.index.json", one);
        s = access(one, F_OK) != 0 && access(index, F_OK) == 0 ? open_index(f, a, index, e)
                                                               : open_one(f, a, one, e);
    } else
        s = ends_with(path, ".json") ? open_index(f, a, path, e) : open_one(f, a, path, e);
    if (s == RT_OK) s = check_twice(f, e);
    if (s != RT_OK) safe_close(f);
    return s;
}

void safe_close(SafeFile *f)
{
    for (uint32_t i = 0; i < f->maps.n; i++) file_unmap(&f->maps.at[i]);
    *f = (SafeFile){0};
}

const SafeTensor *safe_find(const SafeFile *f, const char *name)
{
    for (uint32_t i = 0; i < f->all.n; i++)
        if (strcmp(f->all.at[i].name, name) == 0) return &f->all.at[i];
    return NULL;
}
