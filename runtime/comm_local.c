/* comm_local.c -- see comm.h: ranks as threads of one process. */
#include <stdlib.h>
#include <string.h>

#include "runtime/comm_ring.h"

struct CommGroup {
    int size;
    RingSpace *space;
};

typedef struct LocalRank {
    RingLink *ring;
    Link *link;
} LocalRank;

RtStatus comm_group_new(CommGroup **out, int size, RtError *e)
{
    if (size < 1) return RT_FAIL(e, RT_BAD, "a group needs at least one rank, not %d", size);
    size_t n_bytes = (ring_space_bytes(size) + COMM_UNIT - 1) / COMM_UNIT * COMM_UNIT;
    CommGroup *g = calloc(1, sizeof *g);
    if (g) g->space = aligned_alloc(COMM_UNIT, n_bytes);
    if (!g || !g->space) {
        free(g);
        return RT_FAIL(e, RT_FAILED, "out of memory for a group of %d ranks (%zu KiB)", size,
                       n_bytes >> 10);
    }
    memset(g->space, 0, n_bytes);
    ring_space_init(g->space, size);
    g->size = size;
    *out = g;
    return RT_OK;
}

void comm_group_free(CommGroup *g)
{
    if (!g) return;
    free(g->space);
    free(g);
}

static void local_close(void *self, bool is_orderly)
{
    (void)is_orderly;
    LocalRank *l = self;
    if (!l) return;
    free(l->ring);
    free(l->link);
    free(l);
}

static LocalRank *local_new(CommGroup *g, int rank)
{
    LocalRank *l = calloc(1, sizeof *l);
    if (!l) return NULL;
    l->ring = calloc((size_t)g->size, sizeof *l->ring);
    l->link = calloc((size_t)g->size, sizeof *l->link);
    if (!l->ring || !l->link) {
        local_close(l, false);
        return NULL;
    }
    for (int r = 0; r < g->size; r++) {
        if (r == rank) continue;
        ring_link_open(&l->ring[r], g->space, rank, r, 0);
        l->link[r] = ring_link(&l->ring[r]);
    }
    return l;
}

RtStatus comm_local_open(Comm **out, CommGroup *g, int rank, const CommOptions *o, RtError *e)
{
    if (rank < 0 || rank >= g->size)
        return RT_FAIL(e, RT_BAD, "there is no rank %d in a group of %d", rank, g->size);
    LocalRank *l = local_new(g, rank);
    if (!l) return RT_FAIL(e, RT_FAILED, "out of memory for rank %d of %d", rank, g->size);
    Transport t = {rank, g->size, l->link, "threads", l, local_close};
    return comm_open(out, &t, o, e);
}
