/* rt_comm.c -- collectives between threads: every dtype, odd sizes and numbers of ranks against the
 * sums written out here, several in flight, and what every rank says when one fails. */
#include <pthread.h>

#include "runtime/comm.h"
#include "runtime/comm_ring.h"
#include "tests/unit/rt_comm.h"

typedef struct Rank {
    pthread_t thread;
    CommGroup *group;
    int rank, size;
    void (*body)(Comm *c, struct Rank *r);
    CommOptions options;
    RtStatus status; /* of opening, then of the body */
    RtError error;
    double waited_s;
    bool is_sleeper;
    RtStatus expected; /* 0: RT_FAILED */
} Rank;

static void *rank_main(void *arg)
{
    Rank *r = arg;
    Comm *c = NULL;
    double start = seconds();
    r->status = comm_local_open(&c, r->group, r->rank, &r->options, &r->error);
    if (r->status == RT_OK) {
        CHECK(comm_rank(c) == r->rank && comm_size(c) == r->size);
        CHECK(!strcmp(comm_transport(c), "threads"));
        r->body(c, r);
        comm_close(c);
    }
    r->waited_s = seconds() - start;
    return NULL;
}

enum { MAX_RANKS = 24 };

static void ranks_init(Rank *rank, int size, void (*body)(Comm *, Rank *))
{
    memset(rank, 0, MAX_RANKS * sizeof *rank);
    for (int i = 0; i < size; i++) {
        rank[i] = (Rank){.rank = i, .size = size, .body = body};
        rank[i].options = (CommOptions){.program_hash = 77, .world = size, .limit_s = 60};
    }
}

static void ranks_run(Rank *rank)
{
    CommGroup *g = NULL;
    RtError e = {0};
    int size = rank[0].size;
    CHECK(comm_group_new(&g, size, &e) == RT_OK);
    for (int i = 0; i < size; i++) {
        rank[i].group = g;
        CHECK(pthread_create(&rank[i].thread, NULL, rank_main, &rank[i]) == 0);
    }
    for (int i = 0; i < size; i++) pthread_join(rank[i].thread, NULL);
    comm_group_free(g);
}

static void ranks_free(Rank *rank)
{
    for (int i = 0; i < rank[0].size; i++) str_free(&rank[i].error.text);
}

/* Every rank failed and says all of the words, within the limit. */
static void check_failed(Rank *rank, const char *const *words, int n_words)
{
    for (int i = 0; i < rank[0].size; i++) {
        const char *text = str_c(&rank[i].error.text);
        RtStatus expected = rank[0].expected ? rank[0].expected : RT_FAILED;
        if (rank[i].status == RT_OK) fprintf(stderr, "rank %d: no failure\n", i);
        CHECK(rank[i].status == expected);
        for (int w = 0; w < n_words; w++) {
            if (!strstr(text, words[w]))
                fprintf(stderr, "rank %d says \"%s\", not \"%s\"\n", i, text, words[w]);
            CHECK(strstr(text, words[w]));
        }
        /* A second for the scheduler of a busy machine; who sleeps hears when it wakes. */
        CHECK(rank[i].is_sleeper || rank[i].waited_s < rank[i].options.limit_s + 1);
    }
}

static void run_failing(Rank *rank, const char *const *words, int n_words)
{
    ranks_run(rank);
    check_failed(rank, words, n_words);
    ranks_free(rank);
}
#define FAILING(RANK, ...)                                                                         \
    run_failing(RANK, (const char *const[]){__VA_ARGS__},                                          \
                sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

/* ---- results ---- */

static void body_values(Comm *c, Rank *r)
{
    (void)r;
    check_values(c);
}

static void body_in_flight(Comm *c, Rank *r)
{
    (void)r;
    check_in_flight(c);
}

static void test_body(int size, void (*body)(Comm *, Rank *))
{
    Rank rank[MAX_RANKS];
    ranks_init(rank, size, body);
    ranks_run(rank);
    for (int i = 0; i < size; i++) CHECK(rank[i].status == RT_OK);
}

static void test_values(int size)
{
    test_body(size, body_values);
    test_body(size, body_in_flight);
}

/* More ranks share the memory of the rings, which then end at odd places. */
static void test_many(void)
{
    CHECK(ring_space_bytes(16) > (size_t)64 << 20 && ring_space_bytes(64) < (size_t)66 << 20);
    CHECK(ring_space_bytes(128) < (size_t)260 << 20);
    test_body(MAX_RANKS, body_in_flight);
}

/* Counts beyond 2^31 and 2^32: shards cover the tensor, in order, each as large as the next or one
 * more. */
static void test_shards(void)
{
    static const int64_t counts[] = {0, 1, 7, 64, 251, 4294967311, (int64_t)1 << 62};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        for (int size = 1; size <= 1024; size = size * 3 + 1) {
            int64_t next = 0, first;
            for (int r = 0; r < size; r++) {
                int64_t n = comm_shard(counts[i], r, size, &first);
                CHECK(first == next && n >= counts[i] / size && n <= counts[i] / size + 1);
                next = first + n;
            }
            CHECK(next == counts[i]);
        }
}

/* ---- failures ---- */

static CommCall call_of(CommKind kind, const char *tensor, int64_t count, float *at)
{
    return (CommCall){.kind = kind,
                      .dtype = ZMP_F32,
                      .count = count,
                      .in = at,
                      .out = at,
                      .tensor = tensor,
                      .loc = "m.zm:4:3"};
}

static void body_other_kind(Comm *c, Rank *r)
{
    float x[300] = {0};
    CommCall same = call_of(COMM_ALL_REDUCE, "first", 300, x);
    CommCall here = call_of(r->rank == 1 ? COMM_REDUCE_SCATTER : COMM_ALL_REDUCE, "h.0.w", 300, x);
    r->status = comm_run(c, &same, &r->error); /* may hear of the next one's failure */
    if (r->status == RT_OK) r->status = comm_run(c, &here, &r->error);
    RtError again = {0};
    CHECK(comm_poll(c, &again) == RT_FAILED && comm_run(c, &here, &again) == RT_FAILED);
    CHECK(!strcmp(str_c(&again.text), str_c(&r->error.text)));
    str_free(&again.text);
}

static void body_other_size(Comm *c, Rank *r)
{
    float x[300] = {0};
    CommCall here = call_of(COMM_ALL_GATHER, "h.0.w", r->rank == 2 ? 299 : 300, x);
    here.out = x; /* the shard at its place */
    int64_t first;
    comm_shard(here.count, r->rank, r->size, &first);
    here.in = x + first;
    r->status = comm_run(c, &here, &r->error);
}

static void body_other_tensor(Comm *c, Rank *r)
{
    float x[300] = {0};
    CommCall here = call_of(COMM_ALL_REDUCE, r->rank == 0 ? "h.0.w" : "h.1.w", 300, x);
    r->status = comm_run(c, &here, &r->error);
}

/* Rank 1 leaves the program between two collectives. */
static void body_early_end(Comm *c, Rank *r)
{
    float x[300] = {0};
    CommCall here = call_of(COMM_ALL_REDUCE, "h.0.w", 300, x);
    CommCall end = {.kind = COMM_BARRIER, .tensor = "the end of the run"};
    if (r->rank == 1)
        r->status = comm_run(c, &end, &r->error);
    else
        r->status = comm_run(c, &here, &r->error);
}

static void body_stops(Comm *c, Rank *r)
{
    float x[300] = {0};
    CommCall here = call_of(COMM_ALL_REDUCE, "h.0.w", 300, x);
    if (r->rank == 1) {
        comm_fail(c, RT_FAILED, "cannot read tokens.bin");
        r->status = comm_run(c, &here, &r->error);
        CHECK(!strcmp(str_c(&r->error.text), "cannot read tokens.bin"));
        str_add(&r->error.text, " rank 1 all_reduce of 'h.0.w' (m.zm:4:3)"); /* its own words */
        return;
    }
    r->status = comm_run(c, &here, &r->error);
}

/* Rank 1 sleeps beyond the limit before it starts what the others wait for; it then hears of it. */
static void body_hangs(Comm *c, Rank *r)
{
    float x[300] = {0};
    CommCall here = call_of(COMM_ALL_REDUCE, "h.0.w", 300, x);
    r->is_sleeper = r->rank == 1;
    if (r->is_sleeper) usleep((useconds_t)(r->options.limit_s * 2e6));
    r->status = comm_run(c, &here, &r->error);
}

/* Rank 1 starts, sends a little (it never waits), and is silent. */
static void body_stalls(Comm *c, Rank *r)
{
    enum { N = 3000000 };
    float *x = calloc(N, sizeof *x);
    CommCall here = call_of(COMM_ALL_REDUCE, "h.0.w", N, x);
    CommOp op;
    r->is_sleeper = r->rank == 1;
    if (r->is_sleeper) {
        CHECK(comm_start(c, &here, &op, &r->error) == RT_OK);
        usleep((useconds_t)(r->options.limit_s * 2e6));
        r->status = comm_wait(c, op, &r->error);
    } else {
        r->status = comm_run(c, &here, &r->error);
    }
    free(x);
}

/* Rank 1 is given up by the others, and does not say that of another one. */
static void failing_silent(int size, void (*body)(Comm *, Rank *))
{
    Rank rank[MAX_RANKS];
    ranks_init(rank, size, body);
    for (int i = 0; i < size; i++) rank[i].options.limit_s = 1;
    ranks_run(rank);
    for (int i = 0; i < size; i++)
        CHECK(strstr(str_c(&rank[i].error.text),
                     i == 1 ? "this rank was stopped, or got no time to run" : "rank 1 hangs: "));
    check_failed(rank, (const char *const[]){"all_reduce of 'h.0.w' (m.zm:4:3)", "--resume DIR"},
                 2);
    ranks_free(rank);
}

static void test_failures(int size)
{
    Rank rank[MAX_RANKS];
    ranks_init(rank, size, body_other_kind);
    FAILING(rank, "rank 1", "reduce_scatter of 'h.0.w' (m.zm:4:3)", "all_reduce of 'h.0.w'",
            "f32[300]", "same program");
    if (size > 2) {
        ranks_init(rank, size, body_other_size);
        FAILING(rank, "rank 2", "all_gather of 'h.0.w' (m.zm:4:3)", "f32[299]", "f32[300]");
    }
    ranks_init(rank, size, body_other_tensor);
    FAILING(rank, "rank 0", "'h.0.w' (m.zm:4:3)", "'h.1.w' (m.zm:4:3)");
    ranks_init(rank, size, body_early_end);
    FAILING(rank, "rank 1", "barrier of 'the end of the run'", "all_reduce of 'h.0.w' (m.zm:4:3)");
    ranks_init(rank, size, body_stops);
    FAILING(rank, "rank 1", "cannot read tokens.bin", "all_reduce of 'h.0.w' (m.zm:4:3)");
    failing_silent(size, body_hangs);
    failing_silent(size, body_stalls);
}

/* Rank 1 computes beyond the limit, and polls: nobody takes it for a rank that hangs. */
static void body_computes(Comm *c, Rank *r)
{
    float x[300] = {0};
    CommCall here = call_of(COMM_ALL_REDUCE, "h.0.w", 300, x);
    double end = seconds() + 2 * r->options.limit_s;
    while (r->rank == 1 && seconds() < end) {
        CHECK(comm_poll(c, &r->error) == RT_OK);
        usleep((useconds_t)(r->options.limit_s * 1e5));
    }
    r->status = comm_run(c, &here, &r->error);
}

static void test_slow_rank(int size)
{
    Rank rank[MAX_RANKS];
    ranks_init(rank, size, body_computes);
    for (int i = 0; i < size; i++) rank[i].options.limit_s = 1;
    ranks_run(rank);
    for (int i = 0; i < size; i++) {
        if (rank[i].status != RT_OK) fprintf(stderr, "%s\n", str_c(&rank[i].error.text));
        CHECK(rank[i].status == RT_OK);
    }
}

static void body_nothing(Comm *c, Rank *r)
{
    (void)c;
    (void)r;
}

static void hello_init(Rank *rank, int size)
{
    ranks_init(rank, size, body_nothing);
    rank[0].expected = RT_BAD;
}

static void test_hello(void)
{
    Rank rank[MAX_RANKS];
    hello_init(rank, 3);
    rank[2].options.program_hash = 78;
    FAILING(rank,
            "rank 2 runs another program (000000000000004e) than rank 0 (000000000000004d): its "
            "source text or its compile options are others; start the same executable");
    hello_init(rank, 2);
    rank[1].options.program_hash = 78;
    rank[0].options.program = "ranks 2, zero stage 2, precision fp32, model m";
    rank[1].options.program = "ranks 2, zero stage 3, precision fp32, model n";
    rank[0].options.source = rank[1].options.source = "m.zm";
    FAILING(rank, "(000000000000004d): it has zero stage 3, rank 0 zero stage 2; model n, rank 0 "
                  "model m; start the same executable");
    hello_init(rank, 2);
    rank[1].options.program_hash = 78;
    rank[0].options.source = "m.zm";
    rank[1].options.source = "n.zm";
    FAILING(rank, ": it has source n.zm, rank 0 source m.zm; start");
    hello_init(rank, 3);
    rank[1].options.world = 4;
    FAILING(rank, "rank 1 expects 4 ranks, rank 0 expects 3");
    hello_init(rank, 2);
    rank[0].options.world = rank[1].options.world = 4;
    FAILING(rank, "compiled for 4 ranks and runs on 2", "mpirun -n 4", "--ranks 2");
    hello_init(rank, 1);
    rank[0].options.world = 4;
    FAILING(rank, "compiled for 4 ranks and runs on 1");
}

/* A rank that never opens: the others do not wait for ever. */
static void test_absent(void)
{
    Rank rank[MAX_RANKS];
    ranks_init(rank, 2, body_nothing);
    CommGroup *g = NULL;
    CHECK(comm_group_new(&g, 2, &rank[0].error) == RT_OK);
    rank[0].group = g;
    rank[0].options.limit_s = 0.5;
    rank_main(&rank[0]);
    CHECK(rank[0].status == RT_FAILED && rank[0].waited_s < 1.5);
    CHECK(strstr(str_c(&rank[0].error.text), "rank 1 hangs"));
    CHECK(strstr(str_c(&rank[0].error.text), "the start of the run"));
    comm_group_free(g);
    str_free(&rank[0].error.text);
}

static void body_bad_use(Comm *c, Rank *r)
{
    float x[4] = {0};
    CommOp op[2];
    RtError e[5] = {{{0}}};
    CommCall good = call_of(COMM_ALL_REDUCE, "w", 4, x), bad = good;
    bad.dtype = ZMP_I1;
    CHECK(comm_start(c, &bad, op, &e[0]) == RT_BAD);
    bad = good;
    bad.kind = COMM_BROADCAST;
    bad.root = 2;
    CHECK(comm_start(c, &bad, op, &e[1]) == RT_BAD);
    CHECK(comm_start(c, &good, &op[0], &e[2]) == RT_OK);
    CHECK(comm_start(c, &good, &op[1], &e[2]) == RT_BAD); /* max_in_flight = 1 */
    CHECK(strstr(str_c(&e[2].text), "1 collectives are in flight"));
    CHECK(comm_wait(c, op[0], &e[3]) == RT_OK && comm_wait(c, op[0], &e[4]) == RT_BAD);
    for (int i = 0; i < 5; i++) str_free(&e[i].text);
    r->status = comm_run(c, &good, &r->error); /* bad use fails the call alone */
}

static void test_bad_use(void)
{
    Rank rank[MAX_RANKS];
    ranks_init(rank, 2, body_bad_use);
    rank[0].options.max_in_flight = rank[1].options.max_in_flight = 1;
    ranks_run(rank);
    CHECK(rank[0].status == RT_OK && rank[1].status == RT_OK);
    CommGroup *g = NULL;
    RtError e = {0};
    CHECK(comm_group_new(&g, 0, &e) == RT_BAD);
    str_free(&e.text);
}

int main(void)
{
    static const int sizes[] = {1, 2, 3, 4, 8};
    test_shards();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) test_values(sizes[i]);
    test_many();
    test_failures(2);
    test_failures(4);
    test_slow_rank(2);
    test_slow_rank(3);
    test_hello();
    test_absent();
    test_bad_use();
    return 0;
}
