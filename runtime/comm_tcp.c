/* comm_tcp.c -- see comm.h: ranks as processes that meet by themselves, without MPI.
 *
 * Each rank connects to all lower ones, twice (comm_tcp_link.h). */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/comm_meet.h"
#include "runtime/comm_tcp_link.h"
#include "runtime/signals.h"

enum { CHANNEL_DATA, CHANNEL_WORDS, N_CHANNELS };
#define GREETING_S 5.0 /* from a connection to what it is */
static const char magic[8] = "zmclink1";

typedef struct Greeting { /* the first bytes of a connection */
    char magic[8];
    MeetKey key;
    int32_t rank, channel;
} Greeting;

typedef struct TcpRank {
    Meeting meeting;
    int n_missing;              /* connections from higher ranks */
    int (*sockets)[N_CHANNELS]; /* of every rank; -1: none */
    TcpLink *tcp;
    Link *link;
} TcpRank;

/* ---- connections ---- */

/* Where the rank is for this one. */
static const char *host_of(const Meeting *m, int rank)
{
    const Seat *s = &m->seat[rank];
    if (s->host == m->seat[m->rank].host) return "127.0.0.1";
    if (rank == 0 || socket_is_loopback(&s->at)) return m->root.text; /* rank 0's machine */
    return s->at.text;
}

static RtStatus fail_connect(const Meeting *m, int rank, RtError *e)
{
    return RT_FAIL(e, RT_FAILED,
                   "rank %d cannot connect to rank %d at %s, port %d: it has ended, or a firewall "
                   "is between",
                   m->rank, rank, host_of(m, rank), m->seat[rank].port);
}

static RtStatus connect_to(TcpRank *t, int rank, RtError *e)
{
    Meeting *m = &t->meeting;
    Greeting g = {.key = m->key, .rank = m->rank};
    memcpy(g.magic, magic, sizeof g.magic);
    for (int c = 0; c < N_CHANNELS; c++) {
        int fd = socket_connect(host_of(m, rank), m->seat[rank].port, m->deadline);
        t->sockets[rank][c] = fd;
        g.channel = c;
        if (fd < 0 || !socket_send(fd, &g, sizeof g, m->deadline)) return fail_connect(m, rank, e);
    }
    return RT_OK;
}

/* Takes a connection that was made to this rank; one that is no rank's is closed. */
static void admit(TcpRank *t, int fd)
{
    const Meeting *m = &t->meeting;
    Greeting g;
    bool is_good = socket_receive(fd, &g, sizeof g, comm_now() + GREETING_S) &&
                   memcmp(g.magic, magic, sizeof magic) == 0 &&
                   memcmp(&g.key, &m->key, sizeof m->key) == 0 && g.rank > m->rank &&
                   g.rank < m->size && g.channel >= 0 && g.channel < N_CHANNELS &&
                   t->sockets[g.rank][g.channel] < 0;
    if (!is_good) {
        close(fd);
        return;
    }
    t->sockets[g.rank][g.channel] = fd;
    t->n_missing--;
}

static RtStatus connect_all(TcpRank *t, RtError *e)
{
    Meeting *m = &t->meeting;
    for (int r = 0; r < m->rank; r++) RT_TRY(connect_to(t, r, e));
    while (t->n_missing > 0) {
        int fd = socket_accept(m->listener, m->control[0], m->deadline);
        if (fd < 0) { /* rank 0 knows why it does not go on */
            RT_TRY(meeting_listen(m, e));
            return RT_FAIL(e, RT_FAILED, "rank 0 went on without rank %d", m->rank);
        }
        admit(t, fd);
    }
    char done = 1;
    (void)socket_send(m->control[0], &done, 1, m->deadline); /* what follows tells */
    return meeting_listen(m, e);
}

/* ---- rank 0 ---- */

static RtStatus fail_unconnected(TcpRank *t, int rank, RtError *e)
{
    Meeting *m = &t->meeting;
    if (rank > 0)
        rt_say(e, "rank %d ended before all %d ranks were connected; see what it wrote last", rank,
               m->size);
    else if (signal_pending())
        rt_say(e, "rank 0 was told to stop before all %d ranks were connected", m->size);
    else
        rt_say(e,
               "the %d ranks have come to %s, but not connected to each other in %.0f s: a rank "
               "hangs, or a firewall is between their machines",
               m->size, m->place, m->limit_s);
    return meeting_fail(m, RT_FAILED, e);
}

/* Takes what the ranks have to say: one byte when all their connections are there. */
static RtStatus hear_ranks(TcpRank *t, struct pollfd *fds, int *n_unready, RtError *e)
{
    for (int r = 1; r < t->meeting.size; r++) {
        char byte;
        if (!fds[r].revents) continue;
        if (recv(fds[r].fd, &byte, 1, MSG_DONTWAIT) != 1) return fail_unconnected(t, r, e);
        --*n_unready;
    }
    return RT_OK;
}

static RtStatus admit_all(TcpRank *t, struct pollfd *fds, RtError *e)
{
    Meeting *m = &t->meeting;
    int n_unready = m->size - 1;
    while (n_unready > 0 || t->n_missing > 0) {
        fds[0] = (struct pollfd){.fd = m->listener, .events = POLLIN};
        for (int r = 1; r < m->size; r++)
            fds[r] = (struct pollfd){.fd = m->control[r], .events = POLLIN};
        if (signal_pending() || comm_now() >= m->deadline) return fail_unconnected(t, 0, e);
        if (socket_poll(fds, (size_t)m->size, m->deadline) <= 0) continue;
        RT_TRY(hear_ranks(t, fds, &n_unready, e));
        int fd = fds[0].revents ? socket_accept(m->listener, -1, 0) : -1;
        if (fd >= 0) admit(t, fd);
    }
    meeting_confirm(m);
    return RT_OK;
}

static RtStatus root_connect_all(TcpRank *t, RtError *e)
{
    struct pollfd *fds = calloc((size_t)t->meeting.size, sizeof *fds);
    if (!fds) return RT_FAIL(e, RT_FAILED, "out of memory for %d ranks", t->meeting.size);
    RtStatus s = admit_all(t, fds, e);
    free(fds);
    return s;
}

/* ---- opening ---- */

static RtStatus links_open(TcpRank *t, RtError *e)
{
    for (int r = 0; r < t->meeting.size; r++) {
        int *s = t->sockets[r];
        if (r == t->meeting.rank) continue;
        RtStatus status = tcp_link_open(&t->tcp[r], s[CHANNEL_DATA], s[CHANNEL_WORDS], e);
        s[CHANNEL_DATA] = s[CHANNEL_WORDS] = -1;
        if (status != RT_OK) return status;
        t->link[r] = tcp_link(&t->tcp[r]);
    }
    return RT_OK;
}

static RtStatus tcp_rank_open(TcpRank *t, const char *place, int rank, const CommOptions *o,
                              RtError *e)
{
    size_t n = (size_t)o->world;
    t->sockets = calloc(n, sizeof *t->sockets);
    t->tcp = calloc(n, sizeof *t->tcp);
    t->link = calloc(n, sizeof *t->link);
    if (!t->sockets || !t->tcp || !t->link)
        return RT_FAIL(e, RT_FAILED, "out of memory for the links of %zu ranks", n);
    for (size_t r = 0; r < n; r++) {
        t->sockets[r][CHANNEL_DATA] = t->sockets[r][CHANNEL_WORDS] = -1;
        t->tcp[r] = (TcpLink){.data = -1, .words = -1};
    }
    RT_TRY(meeting_open(&t->meeting, place, rank, o, e));
    t->n_missing = N_CHANNELS * (t->meeting.size - 1 - t->meeting.rank);
    RT_TRY(t->meeting.rank == 0 ? root_connect_all(t, e) : connect_all(t, e));
    return links_open(t, e);
}

static void tcp_close(void *self, bool is_orderly)
{
    TcpRank *t = self;
    int n = t->meeting.size;
    meeting_close(&t->meeting);
    if (t->tcp) tcp_links_close(t->tcp, n, is_orderly);
    for (int r = 0; t->sockets && r < n; r++)
        for (int c = 0; c < N_CHANNELS; c++)
            if (t->sockets[r][c] >= 0) close(t->sockets[r][c]);
    free(t->sockets);
    free(t->tcp);
    free(t->link);
    free(t);
}

/* Why the ranks have not met, where the signal is what has ended the wait. */
static RtStatus stopped(const Meeting *m, RtError *e)
{
    str_free(&e->text);
    e->text = (Str){0};
    return RT_FAIL(e, RT_STOPPED, "stopped by %s before all %d ranks had met at %s",
                   signal_pending() == SIGINT ? "SIGINT" : "SIGTERM", m->size, m->place);
}

RtStatus comm_tcp_open(Comm **out, const char *place, int rank, const CommOptions *o,
                       bool *is_agreed, RtError *e)
{
    TcpRank *t = calloc(1, sizeof *t);
    *is_agreed = false;
    if (!t) return RT_FAIL(e, RT_FAILED, "out of memory for a rank");
    t->meeting = (Meeting){.listener = -1};
    RtStatus status = tcp_rank_open(t, place, rank, o, e);
    if (status != RT_OK) {
        *is_agreed = t->meeting.is_told;
        if (status == RT_FAILED && signal_pending()) status = stopped(&t->meeting, e);
        tcp_close(t, false);
        return status;
    }
    int size = t->meeting.size;
    Transport transport = {t->meeting.rank, size, t->link, "TCP", t, tcp_close};
    meeting_close(&t->meeting);
    t->meeting.size = size; /* of the arrays */
    status = comm_open(out, &transport, o, e);
    *is_agreed = status == RT_BAD;
    return status;
}
