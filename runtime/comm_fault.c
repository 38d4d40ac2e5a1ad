/* comm_fault.c -- see comm_state.h: what each rank says when something is wrong, and how the others
 * hear of it. */
#include "runtime/comm_state.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { WORDS_BYTES = 240 };
#define GO_ON "go on from a checkpoint with --resume DIR, or let zmc run --restarts N do so"
#define LOOK_S 0.01    /* between two questions to the system whether a process lives */
#define SHARE_WAIT 0.9 /* of the limit: until a rank speaks; the rest is for the others to hear */

const char *comm_kind_name(CommKind kind)
{
    static const char *const names[COMM_N_KINDS + 1] = {"all_gather", "reduce_scatter",
                                                        "all_reduce", "broadcast",
                                                        "barrier",    "the start of the run"};
    return (unsigned)kind <= COMM_N_KINDS ? names[kind] : "an unknown collective";
}

static const char *dtype_name(uint32_t dtype)
{
    switch (dtype) {
    case ZMP_I32: return "i32";
    case ZMP_BF16: return "bf16";
    case ZMP_F16: return "f16";
    case ZMP_F32: return "f32";
    case ZMP_F64: return "f64";
    default: return "?";
    }
}

/* "all_gather of 'wte.weight' (gpt2.zm:35:3)" */
static const char *words(char *to, const Header *h, bool is_full)
{
    int n = snprintf(to, WORDS_BYTES, "%s", comm_kind_name((CommKind)h->kind));
    if (h->kind == COMM_HELLO) return to;
    if (h->tensor[0]) n += snprintf(to + n, (size_t)(WORDS_BYTES - n), " of '%s'", h->tensor);
    if (h->loc[0]) n += snprintf(to + n, (size_t)(WORDS_BYTES - n), " (%s)", h->loc);
    if (is_full && h->kind != COMM_BARRIER)
        n += snprintf(to + n, (size_t)(WORDS_BYTES - n), ", %s[%" PRId64 "]", dtype_name(h->dtype),
                      h->count);
    if (is_full && h->kind == COMM_BROADCAST)
        snprintf(to + n, (size_t)(WORDS_BYTES - n), " from rank %d", h->root);
    return to;
}

RtStatus fault_again(const Comm *c, RtError *e)
{
    return RT_FAIL(e, c->status, "%s", c->text);
}

static void tell_all(Comm *c, PeerState mine)
{
    PeerWord word = {c->status, c->text};
    for (int r = 0; r < c->t.size; r++)
        if (r != c->t.rank) c->t.link[r].ops->tell(c->t.link[r].self, mine, word);
}

static RtStatus ZM_PRINTF(3, 4) fault(Comm *c, RtError *e, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->text, sizeof c->text, fmt, ap);
    va_end(ap);
    c->is_failed = true;
    if (c->status == RT_OK) c->status = RT_FAILED;
    tell_all(c, PEER_FAILED);
    return fault_again(c, e);
}

void comm_fail(Comm *c, RtStatus status, const char *text)
{
    if (c->is_failed) return;
    c->is_failed = true;
    c->status = status;
    snprintf(c->text, sizeof c->text, "%s", text);
    tell_all(c, PEER_STOPPED);
}

RtStatus fault_mismatch(Comm *c, int peer, const Header *theirs, const Header *mine, RtError *e)
{
    char a[WORDS_BYTES], b[WORDS_BYTES];
    if (theirs->magic != mine->magic)
        return fault(c, e,
                     "rank %d was built by another version of the compiler than rank %d: start the "
                     "same executable on every rank",
                     peer, c->t.rank);
    return fault(c, e,
                 "rank %d has started %s where rank %d has started %s: all ranks must run the same "
                 "program with the same options",
                 peer, words(a, theirs, true), c->t.rank, words(b, mine, true));
}

/* The i-th of the parts of a text, which commas separate; its length is 0 behind the last one. */
static const char *part_of(const char *text, int i, int *n)
{
    while (i-- > 0) {
        text += strcspn(text, ",");
        text += strspn(text, ", ");
    }
    *n = (int)strcspn(text, ",");
    return text;
}

/* ": it has zero stage 2, rank 0 zero stage 3; ..." */
static void add_differences(Str *out, const Header *theirs, const Header *zero)
{
    const char *lead = ": it has ";
    int n = 1, m = 1;
    for (int i = 0; n || m; i++) {
        const char *a = part_of(theirs->tensor, i, &n), *b = part_of(zero->tensor, i, &m);
        if (n == m && !memcmp(a, b, (size_t)n)) continue;
        str_addf(out, "%s%.*s, rank 0 %.*s", lead, n, a, m, b);
        lead = "; ";
    }
    if (strcmp(theirs->loc, zero->loc) != 0)
        str_addf(out, "%ssource %s, rank 0 source %s", lead, theirs->loc, zero->loc);
    else if (*lead == ':')
        str_add(out, ": its source text or its compile options are others");
}

static RtStatus fault_other_program(Comm *c, int peer, RtError *e)
{
    const Header *h = &c->incoming[peer], *zero = &c->incoming[0];
    Str text = {0};
    add_differences(&text, h, zero);
    RtStatus status = fault(c, e,
                            "rank %d runs another program (%016" PRIx64 ") than rank 0 (%016" PRIx64
                            ")%s; start the same executable on every rank",
                            peer, (uint64_t)h->count, (uint64_t)zero->count, str_c(&text));
    str_free(&text);
    return status;
}

RtStatus fault_hello(Comm *c, int world, RtError *e)
{
    const Header *zero = &c->incoming[0];
    c->status = RT_BAD; /* of what follows: how the ranks were started */
    for (int r = 1; r < c->t.size; r++) {
        const Header *h = &c->incoming[r];
        if (h->count != zero->count) return fault_other_program(c, r, e);
        if (h->root != zero->root)
            return fault(c, e, "rank %d expects %d ranks, rank 0 expects %d", r, h->root,
                         zero->root);
    }
    if (world != c->t.size)
        return fault(c, e,
                     "the program was compiled for %d ranks and runs on %d: start it with mpirun "
                     "-n %d, or compile it with --ranks %d",
                     world, c->t.size, world, c->t.size);
    c->status = RT_OK;
    return RT_OK;
}

/* A collective needs more from the peer than has come. */
static bool is_silent(const Comm *c, int peer)
{
    const Link *link = &c->t.link[peer];
    const char *at;
    return c->receive[peer].seq < c->n_started && !link->ops->ready(link->self, &at);
}

/* The peer does not take what is sent: perhaps since it waits for another one itself. */
static bool is_stuffed(const Comm *c, int peer)
{
    const Link *link = &c->t.link[peer];
    char *at;
    return c->send[peer].seq < c->n_started && !link->ops->room(link->self, &at);
}

/* The collective at which this rank waits for the peer. */
static const char *awaited_words(const Comm *c, int peer, char *to)
{
    int64_t seq = c->receive[peer].seq;
    if (c->send[peer].seq < seq) seq = c->send[peer].seq;
    if (seq < c->n_started) return words(to, &comm_op(c, seq)->mine, false);
    snprintf(to, WORDS_BYTES, "collective %" PRId64, seq);
    return to;
}

/* The others have given up this rank, which lives. */
static void explain_own_silence(Comm *c, const PeerWord *word)
{
    char own[32];
    int n = snprintf(own, sizeof own, "rank %d hangs:", c->t.rank);
    if (strncmp(word->text, own, (size_t)n) != 0) return;
    snprintf(c->text, sizeof c->text,
             "this rank was stopped, or got no time to run, until the others gave it up:%s",
             word->text + n);
}

/* w: where this rank waits for the peer. */
static RtStatus fault_peer(Comm *c, int peer, PeerState state, const PeerWord *word, const char *w,
                           RtError *e)
{
    bool is_told = state == PEER_FAILED || state == PEER_STOPPED;
    if (is_told && word->status != RT_OK) c->status = word->status;
    if (state == PEER_FAILED) { /* the message is for everybody */
        snprintf(c->text, sizeof c->text, "%s", word->text);
        c->is_failed = true;
        tell_all(c, PEER_FAILED);
        explain_own_silence(c, word);
        return fault_again(c, e);
    }
    if (state == PEER_STOPPED)
        return fault(c, e, "rank %d stopped, awaited by rank %d in %s: %s", peer, c->t.rank, w,
                     word->text);
    if (state == PEER_DEAD)
        return fault(c, e,
                     "rank %d is gone, awaited by rank %d in %s; see what it wrote last: one that "
                     "was killed without a word often ran out of memory; " GO_ON,
                     peer, c->t.rank, w);
    return fault(c, e, "rank %d has ended, awaited by rank %d in %s; see what it wrote last", peer,
                 c->t.rank, w);
}

/* Looks at who goes on, though it has sent nothing. */
static void listen(Comm *c, double now)
{
    for (int r = 0; r < c->t.size; r++) {
        if (r == c->t.rank) continue;
        uint64_t n = c->t.link[r].ops->beats(c->t.link[r].self);
        if (n == c->beats[r]) continue;
        c->beats[r] = n;
        c->heard[r] = now;
    }
}

/* The peer to blame for a standstill since `long_ago`: silent longest, or else one that takes
 * nothing; -1: none. */
static int silent_peer(const Comm *c, double long_ago)
{
    int found = -1;
    for (int r = 0; r < c->t.size; r++) {
        if (r == c->t.rank || c->heard[r] > long_ago || !is_silent(c, r)) continue;
        if (found < 0 || c->heard[r] < c->heard[found]) found = r;
    }
    for (int r = 0; r < c->t.size && found < 0; r++)
        if (r != c->t.rank && c->heard[r] <= long_ago && is_stuffed(c, r)) found = r;
    return found;
}

static RtStatus fault_hang(Comm *c, int peer, double idle_s, const char *w, RtError *e)
{
    return fault(
        c, e,
        "rank %d hangs: rank %d has waited %.1f s for it in %s; see what it wrote last and "
        "whether its process is stopped or its machine out of reach; " GO_ON,
        peer, c->t.rank, idle_s, w);
}

RtStatus fault_watch(Comm *c, double idle_s, double limit_s, RtError *e)
{
    double now = idle_s > 0 ? comm_now() : 0;
    bool is_deep = idle_s > 0 && now - c->looked > LOOK_S;
    if (is_deep) {
        c->looked = now;
        listen(c, now);
    }
    for (int r = 0; r < c->t.size; r++) {
        if (r == c->t.rank) continue;
        PeerWord word;
        PeerState state = c->t.link[r].ops->peer(c->t.link[r].self, is_deep, &word);
        if (state == PEER_RUNS) continue;
        if (state != PEER_FAILED && !is_silent(c, r) && !is_stuffed(c, r))
            continue; /* what it sent last comes first */
        char w[WORDS_BYTES];
        return fault_peer(c, r, state, &word, awaited_words(c, r, w), e);
    }
    if (idle_s < SHARE_WAIT * limit_s) return RT_OK;
    int peer = silent_peer(c, now - SHARE_WAIT * limit_s);
    if (peer < 0) return RT_OK; /* a peer's data came just now, or it computes */
    char w[WORDS_BYTES];
    return fault_hang(c, peer, idle_s, awaited_words(c, peer, w), e);
}

RtStatus fault_watch_all(Comm *c, const Header *awaited, double idle_s, RtError *e)
{
    char w[WORDS_BYTES] = "the step";
    double now = comm_now();
    bool is_deep = now - c->looked > LOOK_S;
    int silent = -1;
    if (awaited) words(w, awaited, false);
    if (is_deep) {
        c->looked = now;
        listen(c, now);
    }
    for (int r = 0; r < c->t.size; r++) {
        if (r == c->t.rank) continue;
        PeerWord word;
        PeerState state = c->t.link[r].ops->peer(c->t.link[r].self, is_deep, &word);
        if (state != PEER_RUNS) return fault_peer(c, r, state, &word, w, e);
        if (silent < 0 || c->heard[r] < c->heard[silent]) silent = r;
    }
    double limit_s = SHARE_WAIT * c->limit_s;
    if (silent < 0 || idle_s < limit_s || now - c->heard[silent] < limit_s) return RT_OK;
    return fault_hang(c, silent, now - c->heard[silent], w, e);
}
