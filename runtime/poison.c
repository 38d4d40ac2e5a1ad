/* poison.c -- see poison.h. */
#include "runtime/poison.h"

#include <string.h>

enum { GUARD_BYTE = 0xa5, DEAD_BYTE = 0xff, ALIGN = 64 };

/* From the end of the buffer: its alignment gap is guard too. */
static size_t tail_bytes(const ZmpBuffer *b)
{
    size_t n = (size_t)b->bytes;
    return POISON_GUARD_BYTES + (n + ALIGN - 1) / ALIGN * ALIGN - n;
}

void poison_start(const Exec *x)
{
    for (uint32_t i = 0; i < x->p->n_buffers; i++) {
        const ZmpBuffer *b = &x->p->buffers[i];
        memset(x->buffer_at[i] - POISON_GUARD_BYTES, GUARD_BYTE, POISON_GUARD_BYTES);
        memset(x->buffer_at[i] + b->bytes, GUARD_BYTE, tail_bytes(b));
    }
}

static bool is_whole(const char *at, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)at[i] != GUARD_BYTE) return false;
    return true;
}

static void kill_buffer(const Exec *x, uint32_t i)
{
    memset(x->buffer_at[i], DEAD_BYTE, (size_t)x->p->buffers[i].bytes);
}

static bool is_of(const Program *p, const ZmpBuffer *b, const ZmpFunc *f)
{
    return b->func >= 0 && f == &p->funcs[b->func];
}

/* Everything is dead before it is written, but for inputs: alive from -1 and already filled. */
static RtStatus begin(void *self, const Exec *x, const ZmpFunc *f, RtError *e)
{
    (void)self;
    (void)e;
    for (uint32_t i = 0; i < x->p->n_buffers; i++) {
        const ZmpBuffer *b = &x->p->buffers[i];
        if (b->func >= 0 && (!is_of(x->p, b, f) || b->live_from >= 0)) kill_buffer(x, i);
    }
    return RT_OK;
}

static RtStatus after(void *self, const Exec *x, const ZmpFunc *f, uint32_t command, RtError *e)
{
    (void)self;
    (void)e;
    int32_t at = (int32_t)(command - f->first_command);
    for (uint32_t i = 0; i < x->p->n_buffers; i++) {
        const ZmpBuffer *b = &x->p->buffers[i];
        if (is_of(x->p, b, f) && b->live_to == at) kill_buffer(x, i);
    }
    return RT_OK;
}

static RtStatus end(void *self, const Exec *x, const ZmpFunc *f, RtError *e)
{
    (void)self;
    const Program *p = x->p;
    for (uint32_t i = 0; i < p->n_buffers; i++) {
        const ZmpBuffer *b = &p->buffers[i];
        bool is_low_ok = is_whole(x->buffer_at[i] - POISON_GUARD_BYTES, POISON_GUARD_BYTES);
        if (is_low_ok && is_whole(x->buffer_at[i] + b->bytes, tail_bytes(b))) continue;
        return RT_FAIL(
            e, RT_FAILED,
            "poison: function %s wrote %s buffer %s (%s, %lld bytes): a kernel's range is wrong",
            program_str(p, f->name), is_low_ok ? "behind the end of" : "before the start of",
            program_str(p, b->name), program_str(p, b->loc), (long long)b->bytes);
    }
    return RT_OK;
}

Observer poison_observer(void)
{
    return (Observer){.begin = begin, .after = after, .end = end, .is_last = true};
}
