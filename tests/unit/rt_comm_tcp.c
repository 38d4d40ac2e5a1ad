/* rt_comm_tcp.c -- the collectives between processes that meet over TCP: the results of rt_comm.h,
 * what every rank says when one fails, and every way in which a meeting can go wrong. */
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "runtime/comm_meet.h"
#include "tests/unit/rt_comm.h"

enum { MOST = 8 };

typedef struct Scene Scene;

typedef struct Play { /* one rank of a scene */
    const Scene *scene;
    int number; /* of the process, from 0 */
    Comm *c;
    RtError e;
} Play;

struct Scene {
    const char *name;
    void (*run)(Play *p);     /* after the meeting */
    void (*prepare)(Play *p); /* before it: changes the wish */
    int (*stage)(void);       /* before the processes are there */
    int n;                    /* processes */
    bool has_ranks, is_at_address;
    double limit_s, meeting_s; /* 0: 60 */
    bool is_silent[MOST];      /* processes that say nothing */
    RtStatus status;           /* that the others end with, and ... */
    const char *says[4];       /* ... what they say */
};

static char place[64], address[64];

typedef struct Wish { /* of prepare() */
    int rank;
    CommOptions o;
    const char *place;
} Wish;

static Wish wish;

/* ---- after the meeting ---- */

static CommCall all_reduce(float *x, int64_t n)
{
    return (CommCall){.kind = COMM_ALL_REDUCE,
                      .dtype = ZMP_F32,
                      .count = n,
                      .in = x,
                      .out = x,
                      .tensor = "h.0.w",
                      .loc = "m.zm:4:3"};
}

static void reduce_once(Play *p, int64_t n)
{
    static float x[300];
    CommCall call = all_reduce(x, n);
    (void)comm_run(p->c, &call, &p->e);
}

static void run_values(Play *p)
{
    check_values(p->c);
    check_in_flight(p->c);
}

/* More than all buffers hold, both ways at once. */
static void run_large(Play *p)
{
    enum { N = 5000000 };
    float *x = malloc(N * sizeof *x);
    CHECK(x);
    for (int i = 0; i < N; i++) x[i] = (float)(i % 1000 + comm_rank(p->c));
    CommCall call = all_reduce(x, N);
    CHECK(comm_run(p->c, &call, &p->e) == RT_OK);
    int size = comm_size(p->c), ranks = size * (size - 1) / 2;
    for (int i = 0; i < N; i++) CHECK(x[i] == (float)(i % 1000 * size + ranks));
    free(x);
}

/* A broadcast larger than the buffers: its root goes on before the others have it. */
static void run_broadcast(Play *p)
{
    enum { N = 3000000 };
    float *x = calloc(N, sizeof *x);
    CHECK(x);
    CommCall call = all_reduce(x, N);
    call.kind = COMM_BROADCAST;
    for (int i = 0; i < N && comm_rank(p->c) == 0; i++) x[i] = (float)i;
    CHECK(comm_run(p->c, &call, &p->e) == RT_OK);
    for (int i = 0; i < N; i++) CHECK(x[i] == (float)i);
    free(x);
}

static void run_other(Play *p)
{
    reduce_once(p, comm_rank(p->c) == 1 ? 299 : 300);
}

static void run_dies(Play *p)
{
    reduce_once(p, 300);
    if (comm_rank(p->c) == 1) raise(SIGKILL);
    reduce_once(p, 300);
}

static void run_stops(Play *p)
{
    if (comm_rank(p->c) == 1) comm_fail(p->c, RT_FAILED, "cannot read tokens.bin");
    reduce_once(p, 300);
}

static void run_hangs(Play *p)
{
    reduce_once(p, 300);
    if (comm_rank(p->c) == 1) raise(SIGSTOP); /* the test ends it */
    reduce_once(p, 300);
}

/* Rank 1 computes beyond the limit, and polls. */
static void run_computes(Play *p)
{
    double end = seconds() + 2.5; /* of a limit of 1.5 s */
    while (comm_rank(p->c) == 1 && seconds() < end) {
        CHECK(comm_poll(p->c, &p->e) == RT_OK);
        usleep(50000);
    }
    reduce_once(p, 300);
}

/* A peer that is gone, while this rank waits elsewhere. */
static void run_watches(Play *p)
{
    float x;
    CommCall call = all_reduce(&x, 1);
    double start = seconds();
    reduce_once(p, 300);
    if (comm_rank(p->c) == 1) raise(SIGKILL);
    while (comm_watch(p->c, &call, seconds() - start, &p->e) == RT_OK) usleep(1000);
}

static void run_none(Play *p)
{
    (void)p;
}

/* ---- before the meeting ---- */

static void as_asked(Play *p)
{
    (void)p;
}

static void other_hash(Play *p)
{
    if (p->number == 1) wish.o.program_hash = 8;
    wish.o.program = p->number == 1 ? "ranks 3, zero stage 1" : "ranks 3, zero stage 2";
}

static void other_world(Play *p)
{
    if (p->number == 1) wish.o.world = 5;
}

static void twice(Play *p)
{
    if (p->number == 2) wish.rank = 1;
}

static void too_high(Play *p)
{
    if (p->number == 1) wish.rank = 3;
}

/* One rank too few. */
static void absent(Play *p)
{
    (void)p;
    wish.o.world = 3;
}

static void leaves(Play *p) /* seated, then gone */
{
    absent(p);
    if (p->number == 1) alarm(1);
}

static void no_root(Play *p)
{
    if (p->number == 0) exit(0);
}

static void no_folder(Play *p)
{
    (void)p;
    wish.place = "/nowhere/meet";
}

static void not_here(Play *p)
{
    (void)p;
    wish.place = "192.0.2.1:7000"; /* an address for documentation */
}

/* ---- what is there already; the results are closed afterwards ---- */

static int stage_empty(void)
{
    return -1;
}

/* The file of an earlier run, which gives a port. */
static void leave_file(int port)
{
    MeetFile *f = NULL;
    MeetAddress a = {.host = 1, .name = {"127.0.0.1"}, .port = port, .pid = 1};
    RtError e = {0};
    pid_t earlier = fork();
    if (earlier == 0) {
        CHECK(meet_file_take(&f, place, &e) == MEET_MINE);
        CHECK(meet_file_write(f, &a, &e) == RT_OK);
        _exit(0); /* without meet_file_remove */
    }
    CHECK(waitpid(earlier, NULL, 0) == earlier && access(place, F_OK) == 0);
}

static int stage_stale(void) /* nobody listens */
{
    leave_file(1);
    return -1;
}

static int stage_silent(void) /* a program that never answers has the port now */
{
    int port = 0, fd = socket_listen("127.0.0.1", &port);
    CHECK(fd >= 0);
    leave_file(port);
    return fd;
}

static int stage_taken(void) /* another run's rank 0 waits */
{
    int fd = open(place, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0);
    return fd;
}

static int stage_user_file(void)
{
    FILE *f = fopen(place, "w");
    CHECK(f && fputs("weights\n", f) >= 0 && fclose(f) == 0);
    return -1;
}

static int stage_port(void)
{
    int port = 0, fd = socket_listen("127.0.0.1", &port);
    CHECK(fd >= 0);
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    return fd;
}

/* ---- scenes ---- */

#define COLLECTIVE "all_reduce of 'h.0.w' (m.zm:4:3)"
#define DONE {"done over TCP"}
#define IN_ORDER .has_ranks = false
#define NUMBERED .has_ranks = true
#define AT_PORT NUMBERED, .is_at_address = true

static const Scene scenes[] = {
    {"values", run_values, as_asked, stage_empty, 2, IN_ORDER, .says = DONE},
    {"values", run_values, as_asked, stage_empty, 4, IN_ORDER, .says = DONE},
    {"values", run_values, as_asked, stage_empty, 3, NUMBERED, .says = DONE},
    {"values", run_values, as_asked, stage_empty, 3, AT_PORT, .says = DONE},
    {"large", run_large, as_asked, stage_empty, 3, IN_ORDER, .says = DONE},
    {"broadcast", run_broadcast, as_asked, stage_empty, 3, IN_ORDER, .says = DONE},
    {"computes", run_computes, as_asked, stage_empty, 3, NUMBERED, .limit_s = 1.5, .says = DONE},
    {"stale", run_values, as_asked, stage_stale, 2, NUMBERED, .says = DONE},
    {"stale", run_values, as_asked, stage_stale, 2, IN_ORDER, .says = DONE},
    {"silent", run_values, as_asked, stage_silent, 2, NUMBERED, .says = DONE},
    {"other", run_other, as_asked, stage_empty, 3, NUMBERED, .status = RT_FAILED,
     .says = {"rank 1", COLLECTIVE ", f32[299]", "f32[300]"}},
    {"dies", run_dies, as_asked, stage_empty, 3, NUMBERED, .is_silent[1] = true,
     .status = RT_FAILED, .says = {"rank 1 is gone", COLLECTIVE}},
    {"watches", run_watches, as_asked, stage_empty, 3, NUMBERED, .is_silent[1] = true,
     .status = RT_FAILED, .says = {"rank 1 is gone", COLLECTIVE}},
    {"stops", run_stops, as_asked, stage_empty, 3, NUMBERED, .is_silent[1] = true,
     .status = RT_FAILED, .says = {"rank 1 stopped", COLLECTIVE, "cannot read tokens.bin"}},
    {"hangs", run_hangs, as_asked, stage_empty, 3, NUMBERED, .limit_s = 2, .is_silent[1] = true,
     .status = RT_FAILED, .says = {"rank 1 hangs", COLLECTIVE}},
    {"hash", run_none, other_hash, stage_empty, 3, NUMBERED, .status = RT_BAD,
     .says = {"rank 1 runs another program", "zero stage 1, rank 0 zero stage 2"}},
    {"world", run_none, other_world, stage_empty, 3, NUMBERED, .status = RT_BAD,
     .says = {"compiled for 5 ranks, and rank 0 for 3"}},
    {"twice", run_none, twice, stage_empty, 3, AT_PORT, .status = RT_BAD,
     .says = {"two processes came to", "as rank 1", "ZMC_RANK"}},
    {"too high", run_none, too_high, stage_empty, 3, NUMBERED, .meeting_s = 1, .is_silent[1] = true,
     .status = RT_FAILED, .says = {"missing rank 1;"}},
    {"absent", run_none, absent, stage_empty, 2, NUMBERED, .meeting_s = 1, .status = RT_FAILED,
     .says = {"not all 3 ranks", "missing rank 2;"}},
    {"leaves", run_none, leaves, stage_empty, 2, NUMBERED, .is_silent[1] = true,
     .status = RT_FAILED, .says = {"rank 1 ended before all 3 ranks had come"}},
    {"no root", run_none, no_root, stage_empty, 3, AT_PORT, .meeting_s = 1, .is_silent[0] = true,
     .status = RT_FAILED, .says = {"nobody has waited for this rank at", "is rank 0 started"}},
    {"taken", run_none, as_asked, stage_taken, 1, NUMBERED, .status = RT_BAD,
     .says = {"another run waits for its ranks there"}},
    {"user's file", run_none, as_asked, stage_user_file, 1, IN_ORDER, .status = RT_BAD,
     .says = {"no meeting of ranks has made it"}},
    {"no folder", run_none, no_folder, stage_empty, 1, IN_ORDER, .status = RT_BAD,
     .says = {"/nowhere/meet: No such file"}},
    {"port in use", run_none, as_asked, stage_port, 1, AT_PORT, .status = RT_BAD,
     .says = {"the port is in use"}},
    {"not here", run_none, not_here, stage_empty, 1, AT_PORT, .status = RT_BAD,
     .says = {"rank 0 cannot listen there", "machine that rank 0 runs on"}},
};

/* ---- processes ---- */

static double limit_of(const Scene *k)
{
    return k->limit_s > 0 ? k->limit_s : 60;
}

/* One line on stderr: what came of it, and after how many seconds. */
static void rank_main(const Scene *k, int number)
{
    Play p = {.scene = k, .number = number};
    bool is_agreed = false;
    char text[32];
    snprintf(text, sizeof text, "%g", k->meeting_s > 0 ? k->meeting_s : 60);
    setenv("ZMC_MEETING_LIMIT", text, 1);
    wish = (Wish){.rank = k->has_ranks ? number : -1, .place = k->is_at_address ? address : place};
    wish.o = (CommOptions){.program_hash = 7, .world = k->n, .limit_s = limit_of(k)};
    k->prepare(&p);
    RtStatus s = comm_tcp_open(&p.c, wish.place, wish.rank, &wish.o, &is_agreed, &p.e);
    double start = seconds();
    if (s == RT_OK) k->run(&p);
    if (p.e.text.n == 0) rt_say(&p.e, "done over %s", comm_transport(p.c));
    fprintf(stderr, "[%d] %.1f s: %s\n", number, seconds() - start, str_c(&p.e.text));
    comm_close(p.c);
    str_free(&p.e.text);
    exit(s != RT_OK ? (int)s : strstr(k->says[0], "done") ? 0 : RT_FAILED);
}

static void check_said(const Scene *k, const char *all, int number)
{
    char tag[16];
    snprintf(tag, sizeof tag, "[%d] ", number);
    const char *line = strstr(all, tag), *end = line ? strchr(line, '\n') : NULL;
    double s = 0;
    bool is_good = line && end && sscanf(line, "[%*d] %lf s", &s) == 1;
    is_good &= k->status == RT_OK || s <= limit_of(k);
    for (int i = 0; i < 4 && k->says[i]; i++) {
        const char *at = is_good ? strstr(line, k->says[i]) : NULL;
        is_good = at && at < end;
    }
    if (!is_good) fprintf(stderr, "%s: rank %d of %d:\n%s", k->name, number, k->n, all);
    CHECK(is_good);
}

static void check_scene(const Scene *k)
{
    pid_t pids[MOST];
    char all[8192] = "";
    size_t n = 0;
    int out[2], status;
    snprintf(place, sizeof place, "/tmp/rt_comm_tcp.%d", (int)getpid());
    int port = 0, probe = socket_listen("127.0.0.1", &port);
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    close(probe);
    unlink(place);
    int staged = k->stage();
    CHECK(pipe(out) == 0);
    for (int r = 0; r < k->n; r++) {
        pids[r] = fork();
        CHECK(pids[r] >= 0);
        if (pids[r] > 0) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(out[1], 2);
        if (staged >= 0) close(staged); /* its lock is the parent's alone */
        rank_main(k, r);
    }
    close(out[1]);
    for (int r = 0; r < k->n; r++) {
        if (k->is_silent[r]) continue;
        CHECK(waitpid(pids[r], &status, 0) == pids[r] && WIFEXITED(status));
        if (WEXITSTATUS(status) != (int)k->status)
            fprintf(stderr, "%s: rank %d ends with %d\n", k->name, r, WEXITSTATUS(status));
        CHECK(WEXITSTATUS(status) == (int)k->status);
    }
    for (int r = 0; r < k->n; r++) {
        if (!k->is_silent[r]) continue;
        kill(pids[r], SIGKILL);
        CHECK(waitpid(pids[r], &status, 0) == pids[r]);
    }
    for (ssize_t got; (got = read(out[0], all + n, sizeof all - 1 - n)) > 0;) n += (size_t)got;
    close(out[0]);
    for (int r = 0; r < k->n; r++)
        if (!k->is_silent[r]) check_said(k, all, r);
    CHECK(access(place, F_OK) != 0 || k->stage == stage_user_file || k->stage == stage_taken);
    if (staged >= 0) close(staged);
    unlink(place);
}

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof scenes / sizeof scenes[0]; i++) {
        double start = seconds();
        if (argc > 1 && strcmp(argv[1], scenes[i].name) != 0) continue;
        fflush(stdout);
        check_scene(&scenes[i]);
        printf("%s: %.1f s\n", scenes[i].name, seconds() - start);
    }
    puts("PASS");
    return 0;
}
