/* comm_tcp_link.c -- see comm_tcp_link.h. */
#include "runtime/comm_tcp_link.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FINISH_S 2.0 /* for what was sent before the end */
#define BEAT_S 0.5   /* between two beats */

/* ---- bytes ---- */

/* How many bytes went; an error counts as the end of the connection, which reading finds too. */
static size_t send_some(int fd, const char *at, size_t n)
{
    ssize_t k = n ? send(fd, at, n, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
    return k > 0 ? (size_t)k : 0;
}

/* How many bytes came; *is_over: and no more will. */
static size_t receive_some(int fd, char *at, size_t n, bool *is_over)
{
    ssize_t k = n ? recv(fd, at, n, MSG_DONTWAIT) : 0;
    if (n && (k == 0 || (k < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)))
        *is_over = true;
    return k > 0 ? (size_t)k : 0;
}

static void flush_data(TcpLink *l)
{
    l->out_from += send_some(l->data, l->out + l->out_from, l->out_to - l->out_from);
    if (l->out_from == l->out_to) l->out_from = l->out_to = 0;
}

static void flush_words(TcpLink *l)
{
    size_t n = send_some(l->words, l->say, l->n_say);
    l->n_say -= n;
    memmove(l->say, l->say + n, l->n_say);
}

static size_t whole_units(size_t n)
{
    return n / COMM_UNIT * COMM_UNIT;
}

static size_t tcp_room(void *self, char **at)
{
    TcpLink *l = self;
    flush_data(l);
    *at = l->out + l->out_to;
    return TCP_BUFFER_BYTES - l->out_to; /* whole units: only such are pushed */
}

static void tcp_push(void *self, size_t n)
{
    TcpLink *l = self;
    l->out_to += n;
    flush_data(l);
}

static void fill(TcpLink *l)
{
    if (l->in_from == l->in_to) l->in_from = l->in_to = 0;
    if (l->in_to == TCP_BUFFER_BYTES) { /* less than a unit is left */
        l->in_to -= l->in_from;
        memmove(l->in, l->in + l->in_from, l->in_to);
        l->in_from = 0;
    }
    if (!l->is_data_over)
        l->in_to +=
            receive_some(l->data, l->in + l->in_to, TCP_BUFFER_BYTES - l->in_to, &l->is_data_over);
}

static size_t tcp_ready(void *self, const char **at)
{
    TcpLink *l = self;
    if (l->out_to > 0) flush_data(l);
    if (l->in_to - l->in_from < COMM_UNIT) fill(l);
    *at = l->in + l->in_from;
    return whole_units(l->in_to - l->in_from);
}

static void tcp_pop(void *self, size_t n)
{
    TcpLink *l = self;
    l->in_from += n;
}

/* ---- words ---- */

/* Takes one message from the n bytes at `at`; how many bytes it had, 0: it is not all there. */
static size_t take_word(TcpLink *l, const char *at, size_t n)
{
    if (l->n_theirs == 0 && *at == (char)PEER_RUNS) {
        l->n_beats++;
        return 1;
    }
    size_t left = sizeof l->theirs - l->n_theirs;
    if (n > left) n = left;
    memcpy((char *)&l->theirs + l->n_theirs, at, n);
    l->n_theirs += n;
    if (l->n_theirs < sizeof l->theirs) return n;
    l->n_theirs = 0;
    l->theirs.text[sizeof l->theirs.text - 1] = 0;
    if (l->state == PEER_RUNS) l->state = (PeerState)l->theirs.state;
    return n;
}

static void hear(TcpLink *l)
{
    char buffer[TCP_WORD_BYTES];
    size_t n;
    while (!l->is_words_over && l->state == PEER_RUNS &&
           (n = receive_some(l->words, buffer, sizeof buffer, &l->is_words_over)) > 0)
        for (size_t k = 0; k < n && l->state == PEER_RUNS;) k += take_word(l, buffer + k, n - k);
}

static PeerState tcp_peer(void *self, bool is_deep, PeerWord *word)
{
    TcpLink *l = self;
    (void)is_deep; /* the connection tells */
    flush_data(l);
    flush_words(l);
    hear(l);
    *word = (PeerWord){(RtStatus)l->theirs.status, l->theirs.text};
    if (l->state != PEER_RUNS || !l->is_words_over) return l->state;
    bool has_more = l->in_to - l->in_from >= COMM_UNIT; /* which comes before its end */
    if (!has_more) fill(l);
    return has_more || l->is_data_over ? PEER_DEAD : PEER_RUNS; /* the last may be on its way */
}

static void tcp_tell(void *self, PeerState mine, PeerWord word)
{
    TcpLink *l = self;
    TcpWord w = {.state = (uint8_t)mine, .status = (uint8_t)word.status};
    if (l->has_told) return; /* the first word stands */
    l->has_told = true;
    snprintf(w.text, sizeof w.text, "%s", word.text);
    memcpy(l->say + l->n_say, &w, sizeof w); /* behind at most one beat */
    l->n_say += sizeof w;
    flush_words(l);
}

static void tcp_beat(void *self)
{
    TcpLink *l = self;
    double now = comm_now();
    if (l->out_to > 0) flush_data(l);
    if (l->n_say > 0) flush_words(l);
    if (now - l->beat_at < BEAT_S || l->n_say > 0) return;
    l->beat_at = now;
    l->say[l->n_say++] = (char)PEER_RUNS;
    flush_words(l);
}

static uint64_t tcp_beats(void *self)
{
    TcpLink *l = self;
    hear(l);
    return l->n_beats;
}

/* ---- opening, closing ---- */

static void prepare(int fd)
{
    int yes = 1, n = 1 << 20;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &n, sizeof n); /* a wish */
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

RtStatus tcp_link_open(TcpLink *l, int data, int words, RtError *e)
{
    *l = (TcpLink){.data = data, .words = words, .state = PEER_RUNS};
    prepare(data);
    prepare(words);
    l->out = aligned_alloc(COMM_UNIT, TCP_BUFFER_BYTES);
    l->in = aligned_alloc(COMM_UNIT, TCP_BUFFER_BYTES);
    if (l->out && l->in) return RT_OK;
    return RT_FAIL(e, RT_FAILED, "out of memory for %d KiB of messages",
                   2 * TCP_BUFFER_BYTES >> 10);
}

Link tcp_link(TcpLink *l)
{
    static const LinkOps ops = {tcp_room, tcp_push, tcp_ready, tcp_pop,
                                tcp_peer, tcp_tell, tcp_beat,  tcp_beats};
    return (Link){&ops, l};
}

/* Sends what is left, then says that no more comes; true: the peer has said so too. */
static bool finish(TcpLink *l)
{
    char unread[TCP_WORD_BYTES];
    if (l->data < 0) return true;
    flush_data(l);
    flush_words(l);
    if (l->out_to == 0) shutdown(l->data, SHUT_WR);
    if (l->n_say == 0) shutdown(l->words, SHUT_WR);
    /* unread bytes would make the system cut the connection, and lose what the peer has not read */
    while (!l->is_words_over &&
           receive_some(l->words, unread, sizeof unread, &l->is_words_over) > 0) {
    }
    while (!l->is_data_over && receive_some(l->data, unread, sizeof unread, &l->is_data_over) > 0) {
    }
    return l->is_words_over && l->is_data_over;
}

static void link_free(TcpLink *l)
{
    if (l->data >= 0) close(l->data);
    if (l->words >= 0) close(l->words);
    free(l->out);
    free(l->in);
}

void tcp_links_close(TcpLink *l, int n, bool is_orderly)
{
    double end = comm_now() + FINISH_S;
    int turns = 0;
    bool is_through = false;
    while (!is_through) {
        is_through = true;
        for (int r = 0; r < n; r++) is_through &= finish(&l[r]);
        if (!is_orderly || comm_now() > end) break;
        if (!is_through) comm_pause(&turns);
    }
    for (int r = 0; r < n; r++) link_free(&l[r]);
}
