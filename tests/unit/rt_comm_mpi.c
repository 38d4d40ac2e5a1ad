/* rt_comm_mpi.c -- the collectives between processes under mpirun: the results of rt_comm.h over
 * shared memory and over MPI's messages, and what every rank says when one fails.
 *
 * Without arguments it starts itself under mpirun; "rt_comm_mpi BODY" is one rank. */
#include <signal.h>

#include "runtime/comm.h"
#include "tests/unit/rt_comm.h"

typedef struct Body {
    const char *name;
    void (*run)(Comm *c, RtError *e);
    double limit_s;
} Body;

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

static void run_values(Comm *c, RtError *e)
{
    (void)e;
    check_values(c);
    check_in_flight(c);
}

static void run_other(Comm *c, RtError *e)
{
    float x[300] = {0};
    CommCall here = all_reduce(x, comm_rank(c) == 1 ? 299 : 300);
    comm_run(c, &here, e);
}

static void run_dies(Comm *c, RtError *e)
{
    float x[300] = {0};
    CommCall here = all_reduce(x, 300);
    if (comm_run(c, &here, e) != RT_OK) return;
    if (comm_rank(c) == 1) raise(SIGKILL);
    comm_run(c, &here, e);
}

static void run_stops(Comm *c, RtError *e)
{
    float x[300] = {0};
    CommCall here = all_reduce(x, 300);
    if (comm_rank(c) == 1) comm_fail(c, RT_FAILED, "cannot read tokens.bin");
    comm_run(c, &here, e);
}

static void run_hangs(Comm *c, RtError *e)
{
    float x[300] = {0};
    CommCall here = all_reduce(x, 300);
    if (comm_rank(c) == 1) sleep(6); /* of a limit of 3 s */
    comm_run(c, &here, e);
}

/* Rank 1 computes beyond the limit, and polls. */
static void run_computes(Comm *c, RtError *e)
{
    float x[300] = {0};
    CommCall here = all_reduce(x, 300);
    double end = seconds() + 4.5; /* of a limit of 3 s */
    while (comm_rank(c) == 1 && seconds() < end) {
        CHECK(comm_poll(c, e) == RT_OK);
        usleep(50000);
    }
    comm_run(c, &here, e);
}

static const Body bodies[] = {
    {"values", run_values, 60}, {"other", run_other, 60},      {"dies", run_dies, 60},
    {"stops", run_stops, 60},   {"hangs", run_hangs, 3},       {"hash", run_values, 60},
    {"world", run_values, 60},  {"computes", run_computes, 3},
};

static int rank_main(const char *name)
{
    Comm *c = NULL;
    RtError e = {0};
    const Body *b = bodies;
    const char *world = getenv("OMPI_COMM_WORLD_SIZE"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    while (strcmp(b->name, name)) b++;
    CommOptions o = {.program_hash = 7, .world = world ? atoi(world) : 1, .limit_s = b->limit_s};
    if (!strcmp(name, "hash") && rank && !strcmp(rank, "1")) o.program_hash = 8;
    if (!strcmp(name, "world")) o.world = 5;
    signal(SIGTERM, SIG_IGN); /* mpirun's, when another rank has ended: say first what it was */
    double start = seconds();
    if (comm_mpi_open(&c, NULL, &o, &e) == RT_OK) {
        b->run(c, &e);
        if (!e.text.n) fprintf(stderr, "[rank %d] done over %s\n", comm_rank(c), comm_transport(c));
    }
    if (e.text.n)
        fprintf(stderr, "[rank %s] %.0f%% of the limit: %s\n", rank ? rank : "?",
                (seconds() - start) / b->limit_s * 100, str_c(&e.text));
    comm_close(c);
    int code = e.text.n ? 2 : 0;
    str_free(&e.text);
    return code;
}

/* ---- the test ---- */

static const char *self;

/* What `n` ranks of a body write; to be freed. */
static char *output_of(int n, const char *body, const char *env)
{
    Str command = {0}, out = {0};
    char buffer[4096];
    size_t k;
    str_addf(
        &command,
        "%s OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ASAN_OPTIONS=detect_leaks=0 "
        "timeout -k 1 90 mpirun --oversubscribe --bind-to none --mca odls_base_sigkill_timeout 1 "
        "-n %d '%s' %s 2>&1", /* once a rank has failed mpirun waits that long, twice, come what may
                               */
        env, n, self, body);
    FILE *f = popen(str_c(&command), "r");
    CHECK(f);
    while ((k = fread(buffer, 1, sizeof buffer, f)) > 0) str_add_n(&out, buffer, k);
    pclose(f);
    str_free(&command);
    return out.at ? out.at : strdup("");
}

/* Each rank but `except` has one line with all of the words. */
static void check_lines(int n, const char *body, const char *env, int except,
                        const char *const *words, int n_words)
{
    char *out = output_of(n, body, env);
    for (int r = 0; r < n; r++) {
        char tag[32];
        if (r == except) continue;
        snprintf(tag, sizeof tag, "[rank %d]", r);
        const char *line = strstr(out, tag), *end = line ? strchr(line, '\n') : NULL;
        for (int w = 0; w < n_words; w++) {
            const char *at = line ? strstr(line, words[w]) : NULL;
            if (!at || at > end)
                fprintf(stderr, "%s %s: rank %d of %d does not say \"%s\":\n%s\n", env, body, r, n,
                        words[w], out);
            CHECK(at && at < end);
        }
        double percent = 0;
        if (sscanf(line, "[rank %*d] %lf%% of", &percent) == 1)
            CHECK(percent <= 150); /* with MPI's start */
    }
    free(out);
}
#define LINES(N, BODY, ENV, EXCEPT, ...)                                                           \
    check_lines(N, BODY, ENV, EXCEPT, (const char *const[]){__VA_ARGS__},                          \
                sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static void test_library(void)
{
    RtError e = {0};
    Comm *c = NULL;
    CommOptions o = {.world = 2};
    CHECK(comm_mpi_open(&c, "/nowhere/libzmc_mpi.so", &o, &e) == RT_FAILED);
    CHECK(strstr(str_c(&e.text), "/nowhere/libzmc_mpi.so"));
    CHECK(strstr(str_c(&e.text), "apt-get install libopenmpi-dev openmpi-bin"));
    str_free(&e.text);
    CHECK(comm_mpi_open(&c, "libm.so.6", &o, &e) == RT_FAILED); /* a library, but not the shim */
    CHECK(strstr(str_c(&e.text), "version 0"));
    str_free(&e.text);
}

static void test_results(void)
{
    for (int n = 2; n <= 4; n++) LINES(n, "values", "ZMC_SHM=1", -1, "done over shared memory");
    for (int n = 2; n <= 3; n++) LINES(n, "values", "ZMC_SHM=0", -1, "done over MPI");
}

static void test_slow_rank(void)
{
    LINES(3, "computes", "ZMC_SHM=1", -1, "done over shared memory");
    LINES(3, "computes", "ZMC_SHM=0", -1, "done over MPI");
}

static void test_failures(void)
{
    static const char *const envs[] = {"ZMC_SHM=1", "ZMC_SHM=0"};
    for (int i = 0; i < 2; i++) { /* seen by the transport */
        LINES(3, "dies", envs[i], 1, "rank 1 is gone", "all_reduce of 'h.0.w' (m.zm:4:3)");
        LINES(3, "stops", envs[i], 1, "rank 1 stopped", "all_reduce of 'h.0.w' (m.zm:4:3)",
              "cannot read tokens.bin");
        LINES(3, "hangs", envs[i], 1, "rank 1 hangs", "all_reduce of 'h.0.w' (m.zm:4:3)");
    }
    LINES(3, "other", envs[0], -1, "rank 1", "all_reduce of 'h.0.w' (m.zm:4:3), f32[299]",
          "f32[300]");
    LINES(3, "hash", envs[0], -1, "rank 1 runs another program");
    LINES(3, "world", envs[0], -1, "compiled for 5 ranks and runs on 3", "mpirun -n 5");
}

static bool is_there(const char *path)
{
    return access(path, R_OK) == 0;
}

int main(int argc, char **argv)
{
    if (argc > 1) return rank_main(argv[1]);
    Str library = {0};
    self = realpath("/proc/self/exe", NULL);
    str_add_n(&library, self, (size_t)(strrchr(self, '/') + 1 - self));
    str_add(&library, "libzmc_mpi.so");
    test_library();
    if (system("command -v mpirun >/dev/null") != 0 || !is_there(str_c(&library))) {
        printf("mpirun or libzmc_mpi.so is missing: nothing was run between processes\n");
        return 77;
    }
    test_results();
    test_slow_rank();
    test_failures();
    str_free(&library);
    free((void *)(uintptr_t)self);
    return 0;
}
