/* data.c -- opening sources and filling inputs; see data.h. */
#include "runtime/data.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/convert.h"
#include "runtime/state.h"

enum { FORGET_BYTES = 4 << 20 }; /* smaller mappings stay */

static const ZmpPort *feed_port(const Program *p, const ZmpFunc *f, const ZmpFeed *feed)
{
    return program_in(p, f, program_str(p, feed->input));
}

bool data_can_pad(const Program *p)
{
    for (uint32_t i = 0; i < p->n_feeds; i++)
        if (feed_is_targets(p->feeds[i].kind) && p->feeds[i].has_ignore) return true;
    return false;
}

/* ---- token files ---- */

static int64_t row_elems(const Data *d, uint32_t kind)
{
    for (uint32_t i = 0; i < d->p->n_feeds; i++) {
        const ZmpPort *port = feed_port(d->p, d->p->last, &d->p->feeds[i]);
        if (d->p->feeds[i].kind == kind && port) return port_elems(port) / port->dim[0];
    }
    return 0;
}

/* span_corruption: what of a text one sample takes follows from the lengths of its rows. */
static RtStatus span_length(Data *d, RtError *e)
{
    int64_t n_in = row_elems(d, ZMP_SPAN_INPUTS), n_to = row_elems(d, ZMP_SPAN_TARGETS);
    d->T = corrupt_raw_length(d->p->h, n_in, n_to);
    if (d->T > 0) return RT_OK;
    return RT_FAIL(
        e, RT_BAD,
        "no text fits into inputs of %lld and targets of %lld tokens with this density, span "
        "and sentinel: compile with longer ones",
        (long long)n_in, (long long)n_to);
}

/* T of the first tokens or targets feed: elements of one row. */
static RtStatus sample_length(Data *d, RtError *e)
{
    const Program *p = d->p;
    if (row_elems(d, ZMP_SPAN_INPUTS)) return span_length(d, e);
    for (uint32_t i = 0; i < p->n_feeds; i++) {
        const ZmpPort *port = feed_port(p, p->last, &p->feeds[i]);
        if (p->feeds[i].kind == ZMP_TENSOR)
            return RT_FAIL(e, RT_BAD,
                           "%s: this model reads tensors, not tokens (input %s); give --data "
                           "FILE.safetensors with tensors "
                           "named like its inputs, dimension 0 = samples",
                           d->spec.path, program_str(p, p->feeds[i].input));
        if (!port) continue;
        int64_t t = port->dim[0] > 0 ? port_elems(port) / port->dim[0] : 0;
        if (d->T && t != d->T)
            return RT_FAIL(e, RT_FAILED, "inputs of the program disagree on T: %lld and %lld",
                           (long long)d->T, (long long)t);
        d->T = t;
    }
    if (!d->T) return RT_FAIL(e, RT_BAD, "this program has no inputs that --data could fill");
    return RT_OK;
}

/* The largest valid token + 1, for the default width. */
static int64_t vocabulary(const Program *p)
{
    int64_t bound = 0;
    for (uint32_t i = 0; i < p->n_feeds; i++)
        if (p->feeds[i].kind != ZMP_TENSOR && !feed_is_targets(p->feeds[i].kind) &&
            p->feeds[i].bound > bound)
            bound = p->feeds[i].bound;
    return bound;
}

static RtStatus add_file(Data *d, Arena *a, const char *path, RtError *e)
{
    TokenFile f;
    int64_t bound = vocabulary(d->p);
    int width = d->spec.width ? d->spec.width : bound > 0 && bound <= 256 ? 1 : 2;
    RtStatus s = token_file_open(&f, a, path, width, d->spec.width != 0, e);
    f.n_samples = f.n_tokens > 0 ? (f.n_tokens - 1) / d->T : 0;
    f.first_sample = d->n_samples;
    d->n_samples += f.n_samples;
    d->mapped_bytes += f.map.n_bytes;
    VEC_PUSH(a, &d->files, f);
    return s;
}

static int by_name(const void *x, const void *y)
{
    return strcmp(*(char *const *)x, *(char *const *)y);
}

/* Regular files that are not hidden, by name; of a Megatron pair only the .idx. */
static RtStatus add_directory(Data *d, Arena *a, const char *dir, RtError *e)
{
    DIR *in = opendir(dir);
    if (!in) return RT_FAIL(e, RT_BAD, "cannot read directory %s: %s", dir, strerror(errno));
    VEC(const char *) names = {0};
    for (struct dirent *entry; (entry = readdir(in));) {
        if (entry->d_name[0] == '.') continue;
        const char *path = arena_printf(a, "%s/%s", dir, entry->d_name);
        size_t n = strlen(path);
        struct stat st;
        if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) continue;
        bool is_bin = n > 4 && strcmp(path + n - 4, ".bin") == 0;
        if (is_bin && access(arena_printf(a, "%.*sidx", (int)n - 3, path), F_OK) == 0) continue;
        VEC_PUSH(a, &names, path);
    }
    closedir(in);
    if (names.n == 0) return RT_FAIL(e, RT_BAD, "directory %s holds no data files", dir);
    qsort(names.at, names.n, sizeof *names.at, by_name);
    for (uint32_t i = 0; i < names.n; i++) RT_TRY(add_file(d, a, names.at[i], e));
    return RT_OK;
}

/* Room for one corrupted row. */
static void alloc_rows(Data *d, Arena *a)
{
    if (d->p->h->corrupt_rate == 0) return;
    int64_t n_in = row_elems(d, ZMP_SPAN_INPUTS), n_to = row_elems(d, ZMP_SPAN_TARGETS);
    d->text = ARENA_ARRAY(a, int32_t, d->T);
    d->row[0] = ARENA_ARRAY(a, int32_t, n_in ? n_in : d->T);
    d->row[1] = ARENA_ARRAY(a, int32_t, n_to ? n_to : d->T);
    d->row[2] = ARENA_ARRAY(a, int32_t, n_to ? n_to : d->T);
}

static RtStatus open_tokens(Data *d, Arena *a, RtError *e)
{
    RT_TRY(sample_length(d, e));
    alloc_rows(d, a);
    struct stat st;
    const char *path = d->spec.path;
    if (stat(path, &st) != 0)
        return RT_FAIL(e, RT_BAD, "cannot read data %s: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        RT_TRY(add_directory(d, a, path, e));
    else if (!S_ISREG(st.st_mode))
        return RT_FAIL(e, RT_BAD,
                       "cannot read data %s: it is not a file that can be mapped; save it as one",
                       path);
    else
        RT_TRY(add_file(d, a, path, e));
    if (d->n_samples > 0) return RT_OK;
    int64_t most = 0;
    for (uint32_t i = 0; i < d->files.n; i++)
        if (d->files.at[i].n_tokens > most) most = d->files.at[i].n_tokens;
    return RT_FAIL(
        e, RT_BAD,
        "%s is shorter than one sample: %" PRId64 " tokens, a sample takes T + 1 = %" PRId64
        "; give more data%s",
        path, most, d->T + 1,
        most < 2 ? ""
                 : arena_printf(a, ", or compile with a smaller T (-D T=%" PRId64 ")", most - 1));
}

/* ---- tensors ---- */

static RtStatus check_tensor(const Data *d, Arena *a, const ZmpFeed *feed, const SafeTensor *t,
                             RtError *e)
{
    const ZmpPort *port = feed_port(d->p, d->p->last, feed);
    const char *name = program_str(d->p, feed->input);
    if (!t)
        return RT_FAIL(e, RT_BAD, "%s has no tensor %s, an input of the model", d->spec.path, name);
    bool is_int = port->dtype == ZMP_I32 || port->dtype == ZMP_I1;
    if (is_int ? !safe_is_integer(t->dtype) : !safe_is_float(t->dtype))
        return RT_FAIL(e, RT_BAD, "%s: tensor %s is %s, the model's input is %s", d->spec.path,
                       name, t->dtype_text, zmp_dtype_name(port->dtype));
    bool is_same = t->rank == port->rank && t->rank > 0;
    for (uint32_t i = 1; i < port->rank && is_same; i++) is_same = t->dim[i] == port->dim[i];
    if (is_same) return RT_OK;
    int64_t want[ZMP_MAX_RANK];
    memcpy(want, port->dim, sizeof want);
    return RT_FAIL(
        e, RT_BAD,
        "%s: tensor %s is %s, the model's input is %s (dimension 0 of the file counts samples)",
        d->spec.path, name, shape_text(a, t->rank, t->dim), shape_text(a, port->rank, want));
}

static RtStatus open_tensors(Data *d, Arena *a, RtError *e)
{
    d->is_tensors = true;
    RT_TRY(safe_open(&d->tensors, a, d->spec.path, e));
    d->feed_tensor = ARENA_ARRAY(a, const SafeTensor *, d->p->n_feeds + 1);
    d->n_samples = -1;
    for (uint32_t i = 0; i < d->p->n_feeds; i++) {
        const ZmpFeed *feed = &d->p->feeds[i];
        if (!feed_port(d->p, d->p->last, feed)) continue;
        const SafeTensor *t = safe_find(&d->tensors, program_str(d->p, feed->input));
        RT_TRY(check_tensor(d, a, feed, t, e));
        if (d->n_samples >= 0 && t->dim[0] != d->n_samples)
            return RT_FAIL(e, RT_BAD,
                           "%s: tensor %s has %" PRId64 " samples, the one before %" PRId64,
                           d->spec.path, t->name, t->dim[0], d->n_samples);
        d->n_samples = t->dim[0];
        d->feed_tensor[i] = t;
        d->mapped_bytes += t->n_bytes;
    }
    if (d->n_samples <= 0) return RT_FAIL(e, RT_BAD, "%s holds no samples", d->spec.path);
    return RT_OK;
}

static bool is_safetensors(const char *path)
{
    size_t n = strlen(path);
    return n > 12 && strcmp(path + n - 12, ".safetensors") == 0;
}

RtStatus data_open(Data *d, Arena *a, const Program *p, const DataSpec *spec, RtError *e)
{
    *d = (Data){.p = p, .spec = *spec};
    RtStatus s = is_safetensors(spec->path) ? open_tensors(d, a, e) : open_tokens(d, a, e);
    if (s != RT_OK) data_close(d);
    return s;
}

void data_close(Data *d)
{
    for (uint32_t i = 0; i < d->files.n; i++) file_unmap(&d->files.at[i].map);
    safe_close(&d->tensors);
    *d = (Data){0};
}

void data_forget(const Data *d)
{
    if (d->mapped_bytes < FORGET_BYTES) return;
    for (uint32_t i = 0; i < d->files.n; i++) {
        const MappedFile *m = &d->files.at[i].map;
        if (m->at) madvise((void *)(uintptr_t)m->at, m->n_bytes, MADV_DONTNEED);
    }
    for (uint32_t i = 0; i < d->p->n_feeds && d->is_tensors; i++)
        if (d->feed_tensor[i]) pages_forget(d->feed_tensor[i]->at, d->feed_tensor[i]->n_bytes);
}

/* ---- filling ---- */

static bool in_range(const ZmpFeed *feed, int64_t v)
{
    if (v >= INT32_MIN && v <= INT32_MAX && (!feed->bound || (v >= 0 && v < feed->bound)))
        return true;
    return feed->has_ignore && v == feed->ignore;
}

static const TokenFile *file_of(const Data *d, int64_t sample)
{
    uint32_t low = 0, high = d->files.n;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (d->files.at[middle].first_sample <= sample)
            low = middle;
        else
            high = middle;
    }
    while (d->files.at[low].n_samples == 0)
        low--; /* an empty file starts where the next one does */
    return &d->files.at[low];
}

static RtStatus row_of_tokens(const Data *d, const ZmpFeed *feed, int64_t sample, char *out,
                              RtError *e)
{
    const TokenFile *f = file_of(d, sample);
    int64_t first = (sample - f->first_sample) * d->T + (feed->kind == ZMP_TARGETS ? 1 : 0);
    for (int64_t i = 0; i < d->T; i++) {
        int64_t v = token_at(f, first + i);
        if (!in_range(feed, v))
            return RT_FAIL(e, RT_BAD,
                           "%s: token %" PRId64 " at position %" PRId64 " (byte %" PRId64
                           ") is out of range: the model's vocabulary is %" PRId64 " (0 to %" PRId64
                           "); check --dtype (read as u%d), or compile with a larger vocabulary",
                           f->path, v, first + i,
                           (int64_t)(f->at - f->map.at) + (first + i) * f->width, feed->bound,
                           feed->bound - 1, 8 * f->width);
        int32_t v32 = (int32_t)v;
        memcpy(out + i * (int64_t)sizeof v32, &v32, sizeof v32);
    }
    return RT_OK;
}

static RtStatus row_of_integers(const Data *d, const ZmpFeed *feed, const ZmpPort *port,
                                const SafeTensor *t, int64_t first, int64_t n, char *out,
                                RtError *e)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t v = safe_integer(t, first + i);
        if (port->dtype == ZMP_I1) {
            out[i] = v != 0;
            continue;
        }
        if (!in_range(feed, v))
            return RT_FAIL(e, RT_BAD,
                           "%s: tensor %s, sample %" PRId64 ", element %" PRId64 ": %" PRId64
                           " is out of range: the model takes 0 to %" PRId64,
                           d->spec.path, t->name, first / n, i, v, feed->bound - 1);
        int32_t v32 = (int32_t)v;
        memcpy(out + i * (int64_t)sizeof v32, &v32, sizeof v32);
    }
    return RT_OK;
}

static RtStatus row_of_tensor(const Data *d, uint32_t feed, const ZmpPort *port, int64_t sample,
                              char *out, RtError *e)
{
    const SafeTensor *t = d->feed_tensor[feed];
    int64_t n = port_elems(port) / port->dim[0];
    if (safe_is_integer(t->dtype))
        return row_of_integers(d, &d->p->feeds[feed], port, t, sample * n, n, out, e);
    const unsigned char *from = t->at + sample * n * safe_dtype_bytes(t->dtype);
    float buf[1024];
    for (int64_t i = 0; i < n; i += 1024) {
        size_t some = n - i < 1024 ? (size_t)(n - i) : 1024;
        convert_to_f32(buf, from + i * safe_dtype_bytes(t->dtype), safe_zmp_dtype(t->dtype), some);
        convert_from_f32(out + i * zmp_dtype_bytes(port->dtype), port->dtype, buf, some);
    }
    return RT_OK;
}

/* Which of Data.row a feed of a corrupted text shows; -1: the feed is none. */
static int corrupted_row(uint32_t kind)
{
    switch (kind) {
    case ZMP_MASKED:
    case ZMP_SPAN_INPUTS: return 0;
    case ZMP_MASK_TARGETS:
    case ZMP_SPAN_TARGETS: return 1;
    case ZMP_SPAN_DECODER: return 2;
    default: return -1;
    }
}

static int32_t targets_ignore(const Data *d)
{
    for (uint32_t i = 0; i < d->p->n_feeds; i++)
        if (feed_is_targets(d->p->feeds[i].kind)) return (int32_t)d->p->feeds[i].ignore;
    return 0;
}

/* One feed's row of the corrupted sample with running number k. */
static RtStatus row_of_corrupted(const Data *d, const ZmpFeed *feed, int64_t k, int64_t sample,
                                 char *out, size_t n_bytes, RtError *e)
{
    CorruptKey key = {d->spec.seed, k / d->n_samples, sample};
    ZmpFeed plain = *feed;
    plain.has_ignore = 0;
    plain.kind = ZMP_TOKENS;
    RT_TRY(row_of_tokens(d, &plain, sample, (char *)d->text, e));
    int32_t ignore = targets_ignore(d);
    SpanRows rows = {d->row[0],
                     d->row[1],
                     d->row[2],
                     row_elems(d, ZMP_SPAN_INPUTS),
                     row_elems(d, ZMP_SPAN_TARGETS),
                     ignore};
    if (rows.n_inputs)
        corrupt_spans(&key, d->p->h, d->text, d->T, &rows);
    else
        corrupt_mask(&key, d->p->h, vocabulary(d->p), d->text, d->T, ignore, d->row[0], d->row[1]);
    memcpy(out, d->row[corrupted_row(feed->kind)], n_bytes);
    return RT_OK;
}

/* A row beyond the data: targets that are ignored, anything else zero. */
static void row_of_nothing(const ZmpFeed *feed, const ZmpPort *port, char *out, size_t n_bytes)
{
    memset(out, 0, n_bytes);
    int32_t ignore = (int32_t)feed->ignore;
    if (!feed_is_targets(feed->kind) || !feed->has_ignore || port->dtype != ZMP_I32) return;
    for (size_t i = 0; i < n_bytes; i += sizeof ignore) memcpy(out + i, &ignore, sizeof ignore);
}

static RtStatus fill_feed(const Data *d, const Exec *x, uint32_t feed, const ZmpPort *port,
                          int64_t first_k, int64_t n_rows, RtError *e)
{
    int64_t row_bytes = port_elems(port) / port->dim[0] * zmp_dtype_bytes(port->dtype);
    for (int64_t b = 0; b < port->dim[0]; b++) {
        char *out = exec_port(x, port) + b * row_bytes;
        if (b >= n_rows) {
            row_of_nothing(&d->p->feeds[feed], port, out, (size_t)row_bytes);
            continue;
        }
        int64_t sample = order_sample(d->spec.order, d->spec.seed, d->n_samples, first_k + b);
        if (d->is_tensors)
            RT_TRY(row_of_tensor(d, feed, port, sample, out, e));
        else if (corrupted_row(d->p->feeds[feed].kind) >= 0)
            RT_TRY(row_of_corrupted(d, &d->p->feeds[feed], first_k + b, sample, out,
                                    (size_t)row_bytes, e));
        else
            RT_TRY(row_of_tokens(d, &d->p->feeds[feed], sample, out, e));
    }
    return RT_OK;
}

RtStatus data_fill(const Data *d, const Exec *x, const ZmpFunc *f, int64_t first_k, int64_t n_rows,
                   RtError *e)
{
    for (uint32_t i = 0; i < d->p->n_feeds; i++) {
        const ZmpPort *port = feed_port(d->p, f, &d->p->feeds[i]);
        if (port) RT_TRY(fill_feed(d, x, i, port, first_k, n_rows, e));
    }
    return RT_OK;
}

void fill_rng(const Exec *x, const ZmpFunc *f, uint64_t seed, int64_t step, int64_t first_k)
{
    const ZmpPort *port = program_in(x->p, f, "rng");
    if (!port) return;
    uint32_t key[4] = {(uint32_t)seed, (uint32_t)(seed >> 32), (uint32_t)step, (uint32_t)first_k};
    memcpy(exec_port(x, port), key, sizeof key);
}
