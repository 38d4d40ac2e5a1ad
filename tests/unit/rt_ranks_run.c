/* rt_ranks_run.c -- whole runs of a hand-made program on ranks that are threads: sums over ranks,
 * what must be the same on all, --check-replicas, who says what. */
#include <jansson.h>
#include <pthread.h>

#include "runtime/comm.h"
#include "tests/unit/rt_tiny.h"

enum { MAX_RANKS = 4, REDUCED = 3 };

/* ---- the program ---- */

static void add_pair(Tiny *t, ZmpCommand *start, ZmpCommand *wait, int32_t buffer, uint32_t dtype,
                     int64_t count)
{
    uint32_t index = t->n_collectives++, name = t->buffers[buffer].name;
    bool is_grad = dtype == ZMP_F32;
    t->collectives[index] = (ZmpCollective){.kind = ZMP_ALL_REDUCE,
                                            .dtype = dtype,
                                            .tensor = name,
                                            .loc = tiny_str(t, "tiny.zm:9:3"),
                                            .what = tiny_str(t, is_grad ? "grads" : "scalars"),
                                            .func = 1,
                                            .count = count};
    *start = (ZmpCommand){.kind = ZMP_START,
                          .kernel = index,
                          .first_arg = t->n_args,
                          .n_args = 2,
                          .label = name,
                          .loc = t->collectives[index].loc};
    *wait = *start;
    wait->kind = ZMP_WAIT;
    tiny_arg(t, buffer, ZMP_ARG_WRITE, dtype);
    tiny_arg(t, buffer, ZMP_ARG_READ, dtype);
}

/* Behind the backward of @last: starts of the three sums, then their waits in another order. */
static void add_reductions(Tiny *t)
{
    ZmpFunc *last = &t->funcs[1];
    uint32_t at = last->first_command + 2, n = 2 * REDUCED;
    int32_t grad = t->args[t->commands[at - 1].first_arg + 4].buffer;
    CHECK(t->n_commands + n <= sizeof t->commands / sizeof *t->commands);
    memmove(&t->commands[at + n], &t->commands[at], (t->n_commands - at) * sizeof *t->commands);
    t->n_commands += n;
    last->n_commands += n;
    t->funcs[2].first_command += n;
    t->funcs[3].first_command += n;
    for (uint32_t i = 0; i < t->n_buffers; i++) {
        ZmpBuffer *b = &t->buffers[i];
        if (b->func == 1 && b->live_from >= 2) b->live_from += (int32_t)n;
        if (b->func == 1 && b->live_to >= 2) b->live_to += (int32_t)n;
    }
    ZmpCommand *c = &t->commands[at];
    add_pair(t, &c[0], &c[4], grad, ZMP_F32, TPAD);
    add_pair(t, &c[1], &c[5], grad + 1 + S_LOSS_SUM, ZMP_F64, 1);
    add_pair(t, &c[2], &c[3], grad + 1 + S_COUNT, ZMP_F64, 1);
}

static void build(Tiny *t, int ranks, bool is_reduced)
{
    tiny_build(t);
    t->h.ranks = (uint32_t)ranks;
    if (is_reduced) add_reductions(t);
    tiny_pack(t);
}

/* ---- ranks ---- */

typedef struct RunRank {
    pthread_t thread;
    ZmrtImage image;
    CommGroup *group;
    int rank, size, code;
    char line[512];
} RunRank;

static void *rank_main(void *arg)
{
    RunRank *r = arg;
    RtError e = {0};
    CommOptions o = {.program_hash = 7, .world = r->size};
    CHECK(comm_local_open(&r->image.comm, r->group, r->rank, &o, &e) == RT_OK);
    char *argv[64], *rest = r->line;
    int argc = 0;
    for (char *at; (at = strtok_r(rest, " ", &rest));) argv[argc++] = at;
    r->code = zmrt_main(argc, argv, &r->image);
    return NULL;
}

/* In a child, so that what they write is apart; exits with the codes as decimal digits. */
static void run_in_child(const Tiny *t, int size, const char *line, const char *last_line)
{
    RunRank rank[MAX_RANKS];
    CommGroup *g = NULL;
    RtError e = {0};
    int codes = 0;
    CHECK(freopen("out", "wb", stdout) && freopen("err", "wb", stderr));
    CHECK(comm_group_new(&g, size, &e) == RT_OK);
    for (int r = 0; r < size; r++) {
        rank[r] = (RunRank){.image = t->image, .group = g, .rank = r, .size = size};
        snprintf(rank[r].line, sizeof rank[r].line, "tiny --threads 1 %s",
                 r == size - 1 && last_line ? last_line : line);
        CHECK(pthread_create(&rank[r].thread, NULL, rank_main, &rank[r]) == 0);
    }
    for (int r = 0; r < size; r++) {
        pthread_join(rank[r].thread, NULL);
        codes = codes * 10 + rank[r].code;
    }
    comm_group_free(g);
    exit(codes);
}

/* The ranks' exit codes, a decimal digit each.  last_line (or NULL): of the last rank. */
static int run_ranks(const Tiny *t, int size, const char *line, const char *last_line)
{
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) run_in_child(t, size, line, last_line);
    return tiny_wait(pid);
}

static double number(const char *path, int line, const char *key)
{
    char *text = tiny_read(path, NULL), *at = text;
    for (int i = 0; i < line && at; i++) at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL;
    CHECK(at != NULL);
    json_t *o = json_loads(at, JSON_DISABLE_EOF_CHECK, NULL);
    double d = json_number_value(json_object_get(o, key));
    CHECK(json_is_number(json_object_get(o, key)));
    json_decref(o);
    free(text);
    return d;
}

static int count_of(const char *path, const char *text)
{
    char *all = tiny_read(path, NULL);
    int n = 0;
    for (char *at = all; (at = strstr(at, text)); at++) n++;
    free(all);
    return n;
}

/* ---- tests ---- */

/* R ranks of A = 2 take the samples of one rank of A = 2 R, and sum the same gradients. */
static void test_one_rank_and_many(void)
{
    static Tiny one, many;
    for (int size = 2; size <= MAX_RANKS; size++) {
        build(&one, 1, false);
        one.h.accumulate = TA * (uint32_t)size;
        tiny_pack(&one);
        build(&many, size, true);
        CHECK(tiny_run(&one, "--data text --steps 30 --metrics one") == 0);
        const char *line = "--data text --steps 30 --metrics many --check-replicas 1";
        CHECK(run_ranks(&many, size, line, NULL) == 0);
        for (int i = 0; i < 30; i++) {
            double a = number("one", i, "loss"), b = number("many", i, "loss");
            CHECK(fabs(a - b) <= 1e-5 * a);
        }
        /* gradients: all but its part, and its part to all; of a scalar rank 0's part is all */
        double gradients = 2.0 * TPAD * 4 / size * (size - 1), scalars = 2.0 * 8 * (size - 1);
        CHECK(TPAD % size == 0);
        CHECK(number("many", 3, "comm_bytes") == gradients + scalars);
        CHECK(count_of("err", "step 30/30") == 1); /* rank 0 speaks for all */
        line = "--data text --steps 30 --metrics other --poison";
        CHECK(run_ranks(&many, size, line, NULL) == 0);
        CHECK(number("many", 29, "loss") == number("other", 29, "loss"));
        if (size > 2) continue;
        CHECK(run_ranks(&many, size, "--data text --steps 3 --profile t.json", NULL) == 0);
        CHECK(tiny_has("t.rank1.json", "\"rank\":1") && tiny_has("t.json", "\"rank\":0"));
        CHECK(tiny_has("t.json", "all_reduce"));
    }
}

/* Without the sums each rank goes its own way. */
static void test_replicas(void)
{
    static Tiny t;
    build(&t, 3, false);
    CHECK(run_ranks(&t, 3, "--data text --steps 9 --check-replicas 2", NULL) == 222);
    CHECK(tiny_has("err",
                   "after step 2 w (tiny.zm:3:3) has other bits on ranks 1, 2 than on rank 0"));
    CHECK(count_of("err", "error:") == 1);
    CHECK(run_ranks(&t, 3, "--data text --steps 9 --check-replicas 0", NULL) == 111);
}

static void test_refused(void)
{
    static Tiny t;
    build(&t, 2, true);
    CHECK(run_ranks(&t, 2, "--data text --steps 3", "--data text --steps 4") == 11);
    CHECK(tiny_has("err", "--steps differs between ranks: 4 on rank 1, 3 on rank 0"));
    CHECK(count_of("err", "error:") == 1);
    CHECK(run_ranks(&t, 2, "--data text --steps 3", "--data text --steps 3 --poison") == 0);
    CHECK(run_ranks(&t, 2, "--data absent --steps 3", NULL) == 11);
    CHECK(tiny_has("err", "cannot read data absent") && count_of("err", "error:") == 1);
    CHECK(run_ranks(&t, 2, "--data text --steps 3", "--data text --steps 3 --profile absent/t") ==
          11);
    CHECK(tiny_has("err", "rank 1: cannot write absent/t") && count_of("err", "error:") == 1);
    CHECK(run_ranks(&t, 2, "--data text --steps 3 --audit-numerics", NULL) == 11);
    CHECK(tiny_has("err", "--audit-numerics works on one rank"));
}

/* An infinity on rank 1 alone: the step is skipped on both. */
static void test_fault(void)
{
    static Tiny t;
    build(&t, 2, true);
    const char *line = "--data text --steps 4 --metrics m --fault nonfinite@2:1 --check-replicas 1";
    CHECK(run_ranks(&t, 2, line, NULL) == 0);
    for (int i = 0; i < 4; i++) CHECK(number("m", i, "update") == i + (i < 2));
    line = "--data text --steps 4 --fault nonfinite@2:1 --check-numerics";
    CHECK(run_ranks(&t, 2, line, NULL) == 22);
    CHECK(tiny_has("err", "rank 1: error: first number that is not finite: tiny.zm:9:3: gradient "
                          "of w[0] = inf, handed to"));
    CHECK(tiny_has("err", "rank 0: error: rank 1 stopped, awaited by rank 0 in all_reduce of "
                          "'grad.bucket.0' (tiny.zm:9:3)"));
}

/* A file of gradients is no part of the step that it shows. */
static void test_dump(void)
{
    static Tiny t;
    build(&t, 2, true);
    CHECK(run_ranks(&t, 2, "--data text --steps 3 --metrics m --dump-grads g", NULL) == 0);
    CHECK(number("m", 0, "comm_bytes") == number("m", 1, "comm_bytes"));
}

/* A rank in a long command is not one that hangs. */
static void test_longest(void)
{
    static Tiny t;
    Program p = {0};
    RtError e = {0};
    build(&t, 2, true);
    t.commands[0].flops = 2e11;
    t.commands[0].bytes = 3e9;
    tiny_pack(&t);
    CHECK(program_open(&p, &t.image, &e) == RT_OK);
    CHECK(fabs(program_longest_s(&p) - 53) < 1e-9);
}

static void check_damaged(const Tiny *t)
{
    CHECK(tiny_run(t, "--info") == 2);
    CHECK(tiny_has("err", "the compiled program is damaged"));
}

static void test_damaged(void)
{
    static Tiny t;
    enum { START = 4, WAIT = START + REDUCED }; /* of @last */
    build(&t, 2, true);
    CHECK(tiny_run(&t, "--info") == 0 && tiny_has("out", "ranks       2"));
    t.commands[WAIT].kernel = 0; /* twice waited for, once begun */
    tiny_pack(&t);
    check_damaged(&t);
    build(&t, 2, true);
    t.commands[START].kernel = REDUCED;
    tiny_pack(&t);
    check_damaged(&t);
    build(&t, 2, true);
    t.collectives[0].count--;
    tiny_pack(&t);
    check_damaged(&t);
    build(&t, 2, true);
    t.args[0].rank_stride = 1 << 30; /* rank 1 would be outside */
    tiny_pack(&t);
    check_damaged(&t);
}

int main(void)
{
    tiny_enter_dir();
    tiny_text("text", 4000);
    test_one_rank_and_many();
    test_replicas();
    test_refused();
    test_fault();
    test_dump();
    test_longest();
    test_damaged();
    tiny_remove_dir();
    return 0;
}
