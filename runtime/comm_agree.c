/* comm_agree.c -- see comm_agree.h. */
#include "runtime/comm_agree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_WORDS = 2048 }; /* of a message: 8 KiB hold a full report of misfits */
#define LEAST_PATIENCE_S 60.0
#define SLOWEST_BYTES_S 2e6 /* of a disk that is still alive */

double comm_patience_s(int64_t n_bytes)
{
    return LEAST_PATIENCE_S + (double)n_bytes / SLOWEST_BYTES_S;
}

static RtStatus broadcast(Comm *c, int root, void *at, size_t n_bytes, const char *what, RtError *e)
{
    CommCall call = {.kind = COMM_BROADCAST,
                     .dtype = ZMP_I32,
                     .root = root,
                     .count = (int64_t)(n_bytes / 4),
                     .in = at,
                     .out = at,
                     .tensor = what};
    return comm_run(c, &call, e);
}

RtStatus comm_tell(Comm *c, void *at, size_t n_bytes, const char *what, RtError *e)
{
    return c ? broadcast(c, 0, at, n_bytes, what, e) : RT_OK;
}

/* The first rank's message becomes everybody's. */
static RtStatus share_failure(Comm *c, const int32_t *status, const char *what, RtError *e)
{
    int32_t text[TEXT_WORDS] = {0};
    int first = 0, n_failed = 0, size = comm_size(c);
    while (status[first] == RT_OK) first++;
    for (int r = 0; r < size; r++) n_failed += status[r] != RT_OK;
    if (comm_rank(c) == first) snprintf((char *)text, sizeof text, "%s", str_c(&e->text));
    RT_TRY(broadcast(c, first, text, sizeof text, what, e));
    str_free(&e->text);
    e->text = (Str){0};
    if (n_failed < size) str_addf(&e->text, "rank %d: ", first);
    str_add(&e->text, (const char *)text);
    return (RtStatus)status[first];
}

RtStatus comm_agree(Comm *c, RtStatus mine, const char *what, int64_t n_bytes, RtError *e)
{
    if (!c) return mine;
    int size = comm_size(c), rank = comm_rank(c);
    int32_t *status = calloc((size_t)size, sizeof *status);
    if (!status) return RT_FAIL(e, RT_FAILED, "out of memory for the status of %d ranks", size);
    status[rank] = (int32_t)mine;
    CommCall call = {.kind = COMM_ALL_GATHER,
                     .dtype = ZMP_I32,
                     .count = size,
                     .in = &status[rank],
                     .out = status,
                     .tensor = what,
                     .limit_s = comm_patience_s(n_bytes)};
    RtStatus agreed = comm_run(c, &call, e);
    bool is_heard = agreed == RT_OK;
    for (int r = 0; r < size && agreed == RT_OK; r++) agreed = (RtStatus)status[r];
    if (is_heard && agreed != RT_OK) agreed = share_failure(c, status, what, e);
    free(status);
    return mine != RT_OK && !is_heard ? mine : agreed;
}
