/* comm_meet.c -- see comm_meet.h. */
#include "runtime/comm_meet.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "runtime/comm_host.h"
#include "runtime/comm_link.h"
#include "runtime/signals.h"

enum { N_GUESTS = 64 };
#define ANSWER_S 5.0 /* for an answer of a rank 0 that lives */
#define REFUSE_S 2.0 /* for ranks that come to a meeting that has failed */
#define TAKEN_S 2.0  /* for an earlier run's rank 0 to end */
static const char magic[8] = "zmcmeet1";

typedef struct Hello { /* to rank 0 */
    char magic[8];
    MeetKey key;
    uint64_t host;
    int32_t rank, world, port, pid;
} Hello;

typedef struct Answer { /* of rank 0 */
    char magic[8];
    int32_t status, rank;
    char text[COMM_TEXT_BYTES];
} Answer;

typedef struct Guest { /* a connection that has not said all of its hello */
    int fd;
    size_t n;
    Hello hello;
} Guest;

static void nap(void)
{
    struct timespec t = {0, 20000000};
    nanosleep(&t, NULL);
}

bool comm_place_is_address(const char *place)
{
    const char *colon = strrchr(place, ':');
    return colon && colon > place && colon[1] &&
           strspn(colon + 1, "0123456789") == strlen(colon + 1) && !strchr(place, '/');
}

/* "[::1]:7000" -> "::1", 7000 */
static void split_address(const char *place, SocketName *host, int *port)
{
    const char *colon = strrchr(place, ':');
    size_t n = (size_t)(colon - place);
    if (n >= 2 && place[0] == '[' && place[n - 1] == ']') {
        place++;
        n -= 2;
    }
    snprintf(host->text, sizeof host->text, "%.*s", (int)n, place);
    *port = atoi(colon + 1);
}

/* ---- rank 0 ---- */

static void answer(const Meeting *m, int fd, RtStatus status, int rank, const char *text)
{
    Answer a = {.status = (int32_t)status, .rank = rank};
    memcpy(a.magic, magic, sizeof a.magic);
    snprintf(a.text, sizeof a.text, "%s", text);
    (void)socket_send(fd, &a, sizeof a, m->deadline); /* who is gone is missed elsewhere */
}

RtStatus meeting_fail(Meeting *m, RtStatus status, RtError *e)
{
    for (int r = 1; r < m->size; r++)
        if (m->control[r] >= 0) answer(m, m->control[r], status, r, str_c(&e->text));
    m->is_told = true;
    return status;
}

void meeting_confirm(Meeting *m)
{
    for (int r = 1; r < m->size; r++) answer(m, m->control[r], RT_OK, r, "");
}

/* The rank that a guest gets; -1: none, and the meeting has failed. */
static int seat_of(const Meeting *m, const Hello *h, RtError *e)
{
    int rank = h->rank;
    if (rank < 0)
        for (rank = 1; rank < m->size && m->control[rank] >= 0;) rank++;
    if (h->world != m->size)
        rt_say(e,
               "a process that came to %s was compiled for %d ranks, and rank 0 for %d: start the "
               "same executable on every rank",
               m->place, h->world, m->size);
    else if (rank >= m->size)
        rt_say(e, "more than %d processes came to %s as ranks, or one as rank %d: start %d",
               m->size, m->place, rank, m->size);
    else if (rank == 0 || m->control[rank] >= 0)
        rt_say(e,
               "two processes came to %s as rank %d (%d and %d): give each its own number in "
               "ZMC_RANK",
               m->place, rank, rank ? m->seat[rank].pid : (int)getpid(), h->pid);
    else
        return rank;
    return -1;
}

static RtStatus take_seat(Meeting *m, Guest *g, int *n_missing, RtError *e)
{
    const Hello *h = &g->hello;
    int rank = m->refusal != RT_OK ? -1 : seat_of(m, h, e);
    --*n_missing;
    if (rank < 0) {
        answer(m, g->fd, m->refusal != RT_OK ? m->refusal : RT_BAD, h->rank, str_c(&e->text));
        close(g->fd);
        return m->refusal != RT_OK ? RT_OK : meeting_fail(m, RT_BAD, e);
    }
    m->seat[rank] =
        (Seat){.host = h->host, .port = h->port, .pid = h->pid, .at = socket_peer(g->fd)};
    m->control[rank] = g->fd;
    answer(m, g->fd, RT_OK, rank, "");
    return RT_OK;
}

/* Reads on; false: the guest is gone, seated or sent away. */
static bool hear_guest(Meeting *m, Guest *g, int *n_missing, RtStatus *status, RtError *e)
{
    size_t n = sizeof g->hello - g->n;
    ssize_t k = recv(g->fd, (char *)&g->hello + g->n, n, MSG_DONTWAIT);
    if (k < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    g->n += k > 0 ? (size_t)k : 0;
    if (k > 0 && g->n < sizeof g->hello) return true;
    bool is_rank = g->n == sizeof g->hello && memcmp(g->hello.magic, magic, sizeof magic) == 0 &&
                   memcmp(&g->hello.key, &m->key, sizeof m->key) == 0;
    if (is_rank)
        *status = take_seat(m, g, n_missing, e);
    else
        close(g->fd); /* of another meeting, or no rank at all */
    return false;
}

static void missing_ranks(const Meeting *m, Str *out)
{
    int n = 0;
    for (int r = 1; r < m->size; r++)
        if (m->control[r] < 0) str_addf(out, "%s%d", n++ ? ", " : "", r);
}

static RtStatus fail_missing(Meeting *m, RtError *e)
{
    Str missing = {0};
    missing_ranks(m, &missing);
    rt_say(e,
           "not all %d ranks have come to %s in %.0f s: missing rank %s; look at what they wrote, "
           "and whether they were given the same --rendezvous (ZMC_MEETING_LIMIT=SECONDS in the "
           "environment waits longer)",
           m->size, m->place, m->limit_s, str_c(&missing));
    str_free(&missing);
    return meeting_fail(m, RT_FAILED, e);
}

static RtStatus fail_left(Meeting *m, int rank, RtError *e)
{
    rt_say(e, "rank %d ended before all %d ranks had come to %s; see what it wrote last", rank,
           m->size, m->place);
    return meeting_fail(m, RT_FAILED, e);
}

static RtStatus fail_signal(Meeting *m, RtError *e)
{
    rt_say(e, "rank 0 was told to stop before all %d ranks had come to %s", m->size, m->place);
    return meeting_fail(m, RT_FAILED, e);
}

typedef struct Door { /* what rank 0 polls */
    Guest guest[N_GUESTS];
    int n_guests;
    struct pollfd *fds; /* listener, guests, seated */
    int *owner;         /* of the seated */
    int n_fds;
} Door;

static void door_list(const Meeting *m, Door *d)
{
    d->n_fds = 0;
    d->fds[d->n_fds++] = (struct pollfd){.fd = m->listener, .events = POLLIN};
    for (int i = 0; i < d->n_guests; i++)
        d->fds[d->n_fds++] = (struct pollfd){.fd = d->guest[i].fd, .events = POLLIN};
    for (int r = 1; r < m->size && m->refusal == RT_OK; r++) {
        if (m->control[r] < 0) continue;
        d->owner[d->n_fds] = r;
        d->fds[d->n_fds++] = (struct pollfd){.fd = m->control[r], .events = POLLIN};
    }
}

/* One look at everybody; what is seated says nothing before all have come: it has ended. */
static RtStatus door_step(Meeting *m, Door *d, int *n_missing, RtError *e)
{
    RtStatus status = RT_OK;
    door_list(m, d);
    if (signal_pending()) return m->refusal != RT_OK ? RT_OK : fail_signal(m, e);
    if (comm_now() >= m->deadline) return m->refusal != RT_OK ? RT_OK : fail_missing(m, e);
    int n_old = d->n_guests, n_kept = 0;
    if (socket_poll(d->fds, (size_t)d->n_fds, m->deadline) <= 0) return RT_OK;
    for (int k = 1 + n_old; k < d->n_fds; k++)
        if (d->fds[k].revents) return fail_left(m, d->owner[k], e);
    for (int i = 0; i < n_old; i++) {
        bool is_kept = status != RT_OK || !d->fds[1 + i].revents ||
                       hear_guest(m, &d->guest[i], n_missing, &status, e);
        if (is_kept) d->guest[n_kept++] = d->guest[i];
    }
    d->n_guests = n_kept;
    if (d->fds[0].revents && d->n_guests < N_GUESTS) {
        int fd = socket_accept(m->listener, -1, 0);
        if (fd >= 0) d->guest[d->n_guests++] = (Guest){.fd = fd};
    }
    return status;
}

static RtStatus seat_all(Meeting *m, RtError *e)
{
    Door d = {0};
    size_t most = 1 + N_GUESTS + (size_t)m->size;
    int n_missing = m->size - 1;
    RtStatus status = RT_OK;
    d.fds = calloc(most, sizeof *d.fds);
    d.owner = calloc(most, sizeof *d.owner);
    if (!d.fds || !d.owner) status = RT_FAIL(e, RT_FAILED, "out of memory for %d ranks", m->size);
    while (status == RT_OK && n_missing > 0) status = door_step(m, &d, &n_missing, e);
    if (m->is_told && comm_now() < m->deadline) { /* those on their way hear of it too */
        m->refusal = status;
        m->deadline = comm_now() + REFUSE_S;
        while (n_missing > 0 && comm_now() < m->deadline && !signal_pending())
            if (door_step(m, &d, &n_missing, e) != RT_OK) break;
    }
    for (int i = 0; i < d.n_guests; i++) close(d.guest[i].fd);
    free(d.fds);
    free(d.owner);
    return status;
}

/* Waits for the ranks at the listener, then tells each where all are. */
static RtStatus meet_as_root(Meeting *m, RtError *e)
{
    m->rank = 0;
    m->seat[0] = (Seat){.host = host_number(), .port = m->port, .pid = getpid()};
    RT_TRY(seat_all(m, e));
    meet_file_remove(m->file);
    m->file = NULL;
    meeting_confirm(m);
    for (int r = 1; r < m->size; r++)
        (void)socket_send(m->control[r], m->seat, (size_t)m->size * sizeof *m->seat, m->deadline);
    return RT_OK;
}

static RtStatus listen_for_file(Meeting *m, RtError *e)
{
    MeetAddress a = {.host = host_number(), .pid = getpid()};
    m->listener = socket_listen(NULL, &m->port);
    if (m->listener < 0)
        return RT_FAIL(e, RT_FAILED, "cannot listen for the other ranks: %s", strerror(errno));
    if (getrandom(&m->key, sizeof m->key, 0) != sizeof m->key)
        return RT_FAIL(e, RT_FAILED, "no random numbers: %s", strerror(errno));
    gethostname(a.name.text, sizeof a.name.text - 1);
    a.key = m->key;
    a.port = m->port;
    return meet_file_write(m->file, &a, e);
}

static RtStatus listen_at_address(Meeting *m, RtError *e)
{
    SocketName host;
    split_address(m->place, &host, &m->port);
    m->listener = socket_listen(host.text, &m->port);
    if (m->listener >= 0) return RT_OK;
    if (errno == EADDRINUSE)
        return RT_FAIL(e, RT_BAD,
                       "--rendezvous %s: the port is in use, by another run or program; give "
                       "another one",
                       m->place);
    return RT_FAIL(e, RT_BAD,
                   "--rendezvous %s: rank 0 cannot listen there: %s; give the name or address of "
                   "the machine that rank 0 runs on",
                   m->place, strerror(errno));
}

/* ---- the others ---- */

RtStatus meeting_listen(Meeting *m, RtError *e)
{
    Answer a;
    if (!socket_receive(m->control[0], &a, sizeof a, m->deadline) ||
        memcmp(a.magic, magic, sizeof magic) != 0)
        return RT_FAIL(
            e, RT_FAILED,
            "rank 0 ended or hangs before all %d ranks were connected; see what it wrote "
            "last",
            m->size);
    a.text[sizeof a.text - 1] = 0;
    m->rank = a.rank;
    if (a.status == RT_OK) return RT_OK;
    m->is_told = true;
    return RT_FAIL(e, (RtStatus)a.status, "%s", a.text);
}

/* Where rank 0 listens; false: nobody says so yet. */
static bool find_root(Meeting *m, int *port)
{
    MeetAddress a;
    if (comm_place_is_address(m->place)) {
        split_address(m->place, &m->root, port);
        return true;
    }
    if (!meet_file_read(m->place, &a)) return false;
    m->key = a.key;
    *port = a.port;
    m->root = a.name;
    if (a.host == host_number()) snprintf(m->root.text, sizeof m->root.text, "127.0.0.1");
    return true;
}

/* Seated, or told why not; false: nobody there who knows of this meeting: try again. */
static bool ask_root(Meeting *m, RtStatus *status, RtError *e)
{
    Hello h = {.rank = m->rank, .world = m->size, .port = m->port, .pid = getpid()};
    int port;
    if (!find_root(m, &port)) return false;
    double patience = comm_now() + ANSWER_S;
    int fd = socket_connect(m->root.text, port, patience);
    if (fd < 0) return false;
    memcpy(h.magic, magic, sizeof h.magic);
    h.key = m->key;
    h.host = host_number();
    char first;
    bool is_answered = socket_send(fd, &h, sizeof h, patience) &&
                       socket_wait(fd, false, patience) &&
                       recv(fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) == 1 && first == magic[0];
    if (!is_answered) {
        close(fd);
        return false;
    }
    m->control[0] = fd;
    m->deadline = comm_now() + m->limit_s + ANSWER_S; /* rank 0 began later, and says what it was */
    *status = meeting_listen(m, e);
    return true;
}

static RtStatus fail_alone(const Meeting *m, RtError *e)
{
    return RT_FAIL(e, RT_FAILED,
                   "nobody has waited for this rank at %s in %.0f s: is rank 0 started, with the "
                   "same --rendezvous? (ZMC_MEETING_LIMIT=SECONDS in the environment waits longer)",
                   m->place, m->limit_s);
}

static RtStatus hear_seats(Meeting *m, RtError *e)
{
    RT_TRY(meeting_listen(m, e));
    if (socket_receive(m->control[0], m->seat, (size_t)m->size * sizeof *m->seat, m->deadline))
        return RT_OK;
    return RT_FAIL(e, RT_FAILED, "rank 0 ended before all %d ranks were connected", m->size);
}

/* ---- both ---- */

/* MEET_MINE: this process is rank 0 by its number, or as the first one. */
static MeetFound take_part(Meeting *m, RtError *e)
{
    if (m->rank > 0) return MEET_TAKEN;
    if (comm_place_is_address(m->place)) return MEET_MINE;
    double patience = comm_now() + TAKEN_S;
    for (;;) {
        MeetFound found = meet_file_take(&m->file, m->place, e);
        if (found != MEET_TAKEN || m->rank < 0) return found;
        if (comm_now() > patience || signal_pending()) {
            rt_say(e,
                   "--rendezvous %s: another run waits for its ranks there; give another file, or "
                   "end that run",
                   m->place);
            return MEET_ERROR;
        }
        nap();
    }
}

static RtStatus come_together(Meeting *m, RtError *e)
{
    RtStatus status = RT_OK;
    while (comm_now() < m->deadline && !signal_pending()) {
        MeetFound found = take_part(m, e);
        if (found == MEET_ERROR) return signal_pending() ? RT_FAILED : RT_BAD;
        if (found == MEET_MINE) {
            if (m->listener >= 0) close(m->listener);
            m->port = 0;
            RT_TRY(m->file ? listen_for_file(m, e) : listen_at_address(m, e));
            return meet_as_root(m, e);
        }
        if (m->listener < 0) m->listener = socket_listen(NULL, &m->port);
        if (m->listener < 0)
            return RT_FAIL(e, RT_FAILED, "cannot listen for other ranks: %s", strerror(errno));
        if (ask_root(m, &status, e)) return status == RT_OK ? hear_seats(m, e) : status;
        nap();
    }
    return fail_alone(m, e);
}

RtStatus meeting_open(Meeting *m, const char *place, int rank, const CommOptions *o, RtError *e)
{
    size_t n = (size_t)o->world;
    *m = (Meeting){.place = place, .rank = rank, .size = o->world, .listener = -1};
    m->limit_s = comm_meeting_limit();
    m->deadline = comm_now() + m->limit_s;
    m->seat = calloc(n, sizeof *m->seat);
    m->control = calloc(n, sizeof *m->control);
    if (!m->seat || !m->control) return RT_FAIL(e, RT_FAILED, "out of memory for %zu ranks", n);
    for (size_t r = 0; r < n; r++) m->control[r] = -1;
    if (rank >= o->world)
        return RT_FAIL(e, RT_BAD, "there is no rank %d among %d: see ZMC_RANK", rank, o->world);
    return come_together(m, e);
}

void meeting_close(Meeting *m)
{
    meet_file_remove(m->file);
    for (int r = 0; m->control && r < m->size; r++)
        if (m->control[r] >= 0) close(m->control[r]);
    if (m->listener >= 0) close(m->listener);
    free(m->seat);
    free(m->control);
    *m = (Meeting){.listener = -1};
}
