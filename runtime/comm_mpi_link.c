/* comm_mpi_link.c -- see comm_mpi_link.h.  An error of MPI counts as the peer's death: what it was
 * becomes the text. */
#include "runtime/comm_mpi_link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/comm_host.h"

enum {
    TAG_DATA = 1,
    TAG_WORD = 2,
    MAX_SLOT_BYTES = 128 * 1024,
    MIN_SLOT_BYTES = 16 * 1024,
    ALL_BYTES = 32 * 1024 * 1024 /* of all slots of a rank, while they are not the smallest */
};
#define FINISH_S 2.0 /* for what was sent before an orderly end */
#define BEAT_S 0.5   /* between two messages that say nothing else */

static void link_broke(MpiLink *l, int code)
{
    char why[256];
    if (l->theirs.state != PEER_RUNS) return;
    l->all->shim->error_text(code, why, sizeof why);
    snprintf(l->theirs.text, sizeof l->theirs.text, "MPI: %s", why);
    l->theirs.state = PEER_STOPPED;
}

/* Whether the request is over by now. */
static bool is_over(MpiLink *l, MpiShimRequest *r, bool *is_busy, size_t *n_bytes)
{
    int is_done = 0, n = 0, peer = 0;
    if (!*is_busy) return true;
    int code = l->all->shim->test(r, &is_done, &n, &peer);
    if (code) {
        link_broke(l, code);
        return false;
    }
    if (!is_done) return false;
    *is_busy = false;
    if (n_bytes) *n_bytes = (size_t)n;
    return true;
}

static size_t mpi_room(void *self, char **at)
{
    MpiLink *l = self;
    MpiSlot *s = &l->out[l->next_out % MPI_LINK_SLOTS];
    *at = s->at;
    return is_over(l, &s->request, &s->is_busy, NULL) ? l->all->slot_bytes : 0;
}

static void mpi_push(void *self, size_t n)
{
    MpiLink *l = self;
    MpiSlot *s = &l->out[l->next_out++ % MPI_LINK_SLOTS];
    int code = l->all->shim->send(s->at, (int)n, l->peer, TAG_DATA, &s->request);
    s->is_busy = !code;
    if (code) link_broke(l, code);
}

static void slot_receive(MpiLink *l, MpiSlot *s)
{
    int n = (int)l->all->slot_bytes;
    int code = l->all->shim->receive(s->at, n, l->peer, TAG_DATA, &s->request);
    s->n_bytes = 0;
    s->is_busy = !code;
    if (code) link_broke(l, code);
}

static size_t mpi_ready(void *self, const char **at)
{
    MpiLink *l = self;
    MpiSlot *s = &l->in[l->next_in % MPI_LINK_SLOTS];
    if (!is_over(l, &s->request, &s->is_busy, &s->n_bytes)) return 0;
    *at = s->at + l->n_read;
    return s->n_bytes - l->n_read;
}

static void mpi_pop(void *self, size_t n)
{
    MpiLink *l = self;
    MpiSlot *s = &l->in[l->next_in % MPI_LINK_SLOTS];
    l->n_read += n;
    if (l->n_read < s->n_bytes) return;
    slot_receive(l, s);
    l->next_in++;
    l->n_read = 0;
}

static void word_receive(MpiLinks *all)
{
    all->is_hearing =
        !all->shim->receive(&all->heard, sizeof all->heard, MPI_SHIM_ANY, TAG_WORD, &all->hearing);
}

static void word_take(MpiLink *l, const Word *heard)
{
    if (heard->state == PEER_RUNS)
        l->n_beats++;
    else
        l->theirs = *heard;
}

/* Takes the words that have come. */
static void words_hear(MpiLinks *all)
{
    int is_done = 1, n, peer = 0;
    while (all->is_hearing && !all->shim->test(&all->hearing, &is_done, &n, &peer) && is_done) {
        if (peer >= 0 && peer < all->n_links) word_take(&all->link[peer], &all->heard);
        word_receive(all);
    }
}

static PeerState mpi_peer(void *self, bool is_deep, PeerWord *word)
{
    MpiLink *l = self;
    bool is_gone = is_deep && process_is_gone(l->process_fd); /* before: its last word */
    words_hear(l->all);
    *word = (PeerWord){(RtStatus)l->theirs.status, l->theirs.text};
    PeerState state = (PeerState)l->theirs.state;
    return state == PEER_RUNS && is_gone ? PEER_DEAD : state;
}

static void mpi_tell(void *self, PeerState mine, PeerWord word)
{
    MpiLink *l = self;
    if (l->mine.state != PEER_RUNS) return; /* the first word stands */
    l->mine.state = mine;
    l->mine.status = (int)word.status;
    snprintf(l->mine.text, sizeof l->mine.text, "%s", word.text);
    l->is_telling = !l->all->shim->send(&l->mine, sizeof l->mine, l->peer, TAG_WORD, &l->telling);
}

RtStatus mpi_links_new(MpiLinks *l, const MpiShim *shim, int n, RtError *e)
{
    size_t share = ALL_BYTES / (2 * MPI_LINK_SLOTS * (size_t)n);
    if (share > MAX_SLOT_BYTES) share = MAX_SLOT_BYTES;
    if (share < MIN_SLOT_BYTES) share = MIN_SLOT_BYTES;
    *l = (MpiLinks){.shim = shim, .n_links = n, .slot_bytes = share / COMM_UNIT * COMM_UNIT};
    l->link = calloc((size_t)n, sizeof *l->link);
    if (!l->link) return RT_FAIL(e, RT_FAILED, "out of memory for links to %d ranks", n);
    return RT_OK;
}

RtStatus mpi_link_open(MpiLinks *l, int peer, int pid, RtError *e)
{
    MpiLink *k = &l->link[peer];
    size_t n_bytes = 2 * MPI_LINK_SLOTS * l->slot_bytes;
    k->all = l;
    k->peer = peer;
    k->memory = aligned_alloc(COMM_UNIT, n_bytes);
    if (!k->memory)
        return RT_FAIL(e, RT_FAILED, "out of memory for %zu KiB of messages", n_bytes >> 10);
    k->process_fd = pid ? process_open(pid) : -1;
    for (int i = 0; i < MPI_LINK_SLOTS; i++) {
        k->out[i].at = k->memory + (size_t)(2 * i) * l->slot_bytes;
        k->in[i].at = k->memory + (size_t)(2 * i + 1) * l->slot_bytes;
        slot_receive(k, &k->in[i]);
    }
    if (!l->is_hearing) word_receive(l);
    return RT_OK;
}

static void mpi_beat(void *self)
{
    MpiLink *l = self;
    double now = comm_now();
    if (now - l->beat_at < BEAT_S || !is_over(l, &l->beating, &l->is_beating, NULL)) return;
    l->beat_at = now;
    l->pulse = PEER_RUNS;
    l->is_beating = !l->all->shim->send(&l->pulse, sizeof l->pulse, l->peer, TAG_WORD, &l->beating);
}

static uint64_t mpi_beats(void *self)
{
    const MpiLink *l = self;
    return l->n_beats;
}

Link mpi_link(MpiLinks *l, int peer)
{
    static const LinkOps ops = {mpi_room, mpi_push, mpi_ready, mpi_pop,
                                mpi_peer, mpi_tell, mpi_beat,  mpi_beats};
    return (Link){&ops, &l->link[peer]};
}

/* Waits until what was sent has left. */
static void link_finish(MpiLink *l)
{
    double end = comm_now() + FINISH_S;
    int turns = 0;
    for (;;) {
        bool is_left = is_over(l, &l->telling, &l->is_telling, NULL);
        is_left &= is_over(l, &l->beating, &l->is_beating, NULL);
        for (int i = 0; i < MPI_LINK_SLOTS; i++)
            is_left &= is_over(l, &l->out[i].request, &l->out[i].is_busy, NULL);
        if (is_left || comm_now() > end) break;
        comm_pause(&turns);
    }
    for (int i = 0; i < MPI_LINK_SLOTS; i++)
        if (l->in[i].is_busy) l->all->shim->cancel(&l->in[i].request);
}

void mpi_links_close(MpiLinks *l, bool is_orderly)
{
    for (int r = 0; l->link && r < l->n_links; r++) {
        MpiLink *k = &l->link[r];
        if (!k->memory) continue;
        if (is_orderly) {
            link_finish(k);
            free(k->memory); /* otherwise MPI may still look at it */
        }
        if (k->process_fd >= 0) close(k->process_fd);
    }
    if (!is_orderly) return;
    if (l->is_hearing) l->shim->cancel(&l->hearing);
    free(l->link);
}
