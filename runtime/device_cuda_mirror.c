/* device_cuda_mirror.c -- see device_cuda.h. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/device_cuda.h"

enum { SPAN_GAP = 256, SMALL_BYTES = 4096 /* the driver copies them itself, at once */ };

static CuAddress address_of(const Device *d, const void *at)
{
    return d->arena + (uint64_t)((const char *)at - d->mirror->at);
}

void device_forget_error(Device *d, int error)
{
    if (!d->failed) d->failed = error;
}

static bool until(Device *d, CuEventRef event)
{
    RtError unused = {0}; /* the next call with a status meets it again */
    bool is_well = device_until(d, event, &unused) == RT_OK;
    str_free(&unused.text);
    return is_well;
}

/* The program's constants are not: they lie in the host's memory already. */
static bool is_mirrored(const Device *d, const void *at)
{
    const char *c = at;
    return c >= d->mirror->at && c < d->mirror->at + d->mirror->n_bytes;
}

/* ---- a tensor, through two pinned buffers ---- */

static int open_stages(Device *d)
{
    int error = CU_OK;
    for (int i = 0; i < DEVICE_STAGES && error == CU_OK && !d->stage[i].at; i++) {
        void *at = NULL;
        error = d->cu.pinned_new(&at, DEVICE_STAGE_BYTES);
        d->stage[i].at = at;
    }
    return error;
}

static size_t chunk_bytes(size_t n_bytes, size_t at)
{
    return n_bytes - at < DEVICE_STAGE_BYTES ? n_bytes - at : DEVICE_STAGE_BYTES;
}

static int fetch_chunk(Device *d, CuAddress from, size_t n_bytes, size_t chunk)
{
    Pinned *s = &d->stage[chunk % DEVICE_STAGES];
    size_t at = chunk * DEVICE_STAGE_BYTES;
    int error = d->cu.copy_out(s->at, from + at, chunk_bytes(n_bytes, at), d->compute);
    return error == CU_OK ? d->cu.event_record(s->used, d->compute) : error;
}

/* One chunk is on its way while the one before it is taken out. */
static int fetch_chunks(Device *d, char *to, CuAddress from, size_t n_bytes)
{
    size_t n = (n_bytes + DEVICE_STAGE_BYTES - 1) / DEVICE_STAGE_BYTES;
    int error = open_stages(d);
    if (error == CU_OK) error = fetch_chunk(d, from, n_bytes, 0);
    for (size_t i = 0; i < n && error == CU_OK; i++) {
        Pinned *s = &d->stage[i % DEVICE_STAGES];
        if (i + 1 < n) error = fetch_chunk(d, from, n_bytes, i + 1);
        if (error != CU_OK || !until(d, s->used)) break;
        size_t at = i * DEVICE_STAGE_BYTES;
        memcpy(to + at, s->at, chunk_bytes(n_bytes, at));
    }
    return error;
}

static int put_chunks(Device *d, CuAddress to, const char *from, size_t n_bytes)
{
    int error = open_stages(d);
    for (size_t at = 0, i = 0; at < n_bytes && error == CU_OK; at += DEVICE_STAGE_BYTES, i++) {
        Pinned *s = &d->stage[i % DEVICE_STAGES];
        if (!until(d, s->used)) break;
        memcpy(s->at, from + at, chunk_bytes(n_bytes, at));
        error = d->cu.copy_in(to + at, s->at, chunk_bytes(n_bytes, at), d->compute);
        if (error == CU_OK) error = d->cu.event_record(s->used, d->compute);
    }
    return error;
}

void device_fetch(Device *d, const void *at, size_t n_bytes)
{
    if (n_bytes == 0 || !is_mirrored(d, at)) return;
    char *to = d->mirror->at + ((const char *)at - d->mirror->at);
    device_forget_error(d, fetch_chunks(d, to, address_of(d, at), n_bytes));
}

/* Few bytes are taken by the driver before it returns; no one waits for what was enqueued. */
void device_put(Device *d, const void *at, size_t n_bytes)
{
    if (n_bytes == 0) return;
    device_forget_error(d, n_bytes <= SMALL_BYTES
                               ? d->cu.copy_in(address_of(d, at), at, n_bytes, d->compute)
                               : put_chunks(d, address_of(d, at), at, n_bytes));
}

void device_forget(Device *d, const void *at, size_t n_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), from = (size_t)((const char *)at - d->mirror->at);
    size_t first = (from + page - 1) / page * page, end = (from + n_bytes) / page * page;
    if (end > first) madvise(d->mirror->at + first, end - first, MADV_DONTNEED); /* a hint */
}

/* ---- scalars ---- */

static int by_place(const void *a, const void *b)
{
    const Span *x = a, *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

RtStatus device_open_scalars(Device *d, RtError *e)
{
    const Program *p = d->p;
    uint32_t n = 0, kept = 0;
    d->span = calloc((size_t)p->n_vars + 1, sizeof *d->span);
    if (!d->span) return RT_FAIL(e, RT_FAILED, "cannot get memory for %u variables", p->n_vars);
    for (uint32_t i = 0; i < p->n_vars; i++)
        if (p->vars[i].kind == ZMP_SCALAR)
            d->span[n++] = (Span){(uint64_t)p->vars[i].arena_offset,
                                  (size_t)(p->vars[i].elems * zmp_dtype_bytes(p->vars[i].dtype))};
    qsort(d->span, n, sizeof *d->span, by_place);
    for (uint32_t i = 0; i < n; i++) { /* neighbours become one */
        Span *last = &d->span[kept ? kept - 1 : 0], *next = &d->span[i];
        if (kept && next->at <= last->at + last->n_bytes + SPAN_GAP) {
            if (next->at + next->n_bytes > last->at + last->n_bytes)
                last->n_bytes = (size_t)(next->at - last->at) + next->n_bytes;
        } else
            d->span[kept++] = *next;
    }
    d->n_spans = kept;
    for (uint32_t i = 0; i < kept; i++) d->step_bytes += d->span[i].n_bytes;
    for (int i = 0; i < DEVICE_STEPS && d->step_bytes > 0; i++) {
        void *at = NULL;
        CU_TRY(d, pinned_new(&at, d->step_bytes), "pinned memory for scalars");
        d->step[i].at = at;
    }
    return RT_OK;
}

RtStatus device_note_step(Device *d, RtError *e)
{
    Pinned *s = &d->step[d->n_noted % DEVICE_STEPS];
    ZM_CHECK(d->n_noted - d->n_taken < DEVICE_STEPS);
    size_t at = 0;
    for (uint32_t i = 0; i < d->n_spans; i++) {
        CU_TRY(d, copy_out(s->at + at, d->arena + d->span[i].at, d->span[i].n_bytes, d->compute),
               "scalars");
        at += d->span[i].n_bytes;
    }
    CU_TRY(d, event_record(s->used, d->compute), "scalars");
    d->n_noted++;
    return RT_OK;
}

RtStatus device_take_step(Device *d, RtError *e)
{
    ZM_CHECK(d->n_taken < d->n_noted);
    Pinned *s = &d->step[d->n_taken % DEVICE_STEPS];
    size_t at = 0;
    if (d->failed) return device_wait(d, e);
    RT_TRY(device_until(d, s->used, e));
    for (uint32_t i = 0; i < d->n_spans; i++) {
        memcpy(d->mirror->at + d->span[i].at, s->at + at, d->span[i].n_bytes);
        at += d->span[i].n_bytes;
    }
    d->n_taken++;
    d->has_scalars = true;
    return RT_OK;
}

void device_fetch_scalars(Device *d)
{
    if (d->has_scalars) return;
    for (uint32_t i = 0; i < d->n_spans; i++)
        device_fetch(d, d->mirror->at + d->span[i].at, d->span[i].n_bytes);
    d->has_scalars = true;
}
