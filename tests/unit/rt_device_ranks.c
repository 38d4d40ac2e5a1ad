/* rt_device_ranks.c -- a program of two ranks on simulated GPUs, made by hand: a collective beside
 * computation has its result, by command and as a graph, in every order of streams; what lacks a
 * WAIT is reported; a GPU that does not come is named. */
#include <pthread.h>
#include <sys/wait.h>

#include "runtime/exec.h"
#include "tests/unit/check.h"
#include "tests/unit/gpusim_driver.h"

enum { RANKS = 2, SEEDS = 10, ROUNDS = 4, N = 8, BYTES = 4 * N, SLOT = 256, LIMIT_S = 100 };
enum { B_IN, B_OWN, B_SUM, B_OTHER, B_OUT, N_BUFFERS };

/* add_one: out[i] = in[i] + 1, one block of N threads. */
static const char ptx[] =
    ".version 8.0\n.target sm_80\n.address_size 64\n"
    ".visible .entry add_one(.param .u64 add_one_0, .param .u64 add_one_1)\n{\n"
    ".reg .b32 %r<4>;\n.reg .b64 %rd<6>;\n"
    "ld.param.u64 %rd1, [add_one_0];\nld.param.u64 %rd2, [add_one_1];\n"
    "mov.u32 %r1, %tid.x;\nmul.wide.u32 %rd3, %r1, 4;\n"
    "add.s64 %rd4, %rd1, %rd3;\nadd.s64 %rd5, %rd2, %rd3;\n"
    "ld.global.u32 %r2, [%rd4];\nadd.s32 %r3, %r2, 1;\nst.global.u32 [%rd5], %r3;\nret;\n}\n";

static const char strings[] = "\0add_one\0last\0m.zm:3:5\0cuda:sm_80\0a.cu\0grad.w";
enum { S_ADD_ONE = 1, S_LAST = 9, S_LOC = 14, S_TARGET = 23, S_FILE = 34, S_GRAD = 39 };

static const ZmpKernel kernel = {
    .name = S_ADD_ONE, .entry = S_ADD_ONE, .block_x = N, .block_y = 1, .grid_x = 1};

/* own = in + 1; START sum = all ranks' own; other = in + 1, meanwhile; WAIT; out = sum + 1, and of
 * it each rank's half again: out[half] = other[half] + 1. */
static const ZmpArg args[] = {
    {.buffer = B_IN, .flags = ZMP_ARG_READ, .bytes = BYTES},
    {.buffer = B_OWN, .flags = ZMP_ARG_WRITE, .bytes = BYTES},
    {.buffer = B_SUM, .flags = ZMP_ARG_WRITE, .bytes = BYTES},
    {.buffer = B_OWN, .flags = ZMP_ARG_READ, .bytes = BYTES},
    {.buffer = B_IN, .flags = ZMP_ARG_READ, .bytes = BYTES},
    {.buffer = B_OTHER, .flags = ZMP_ARG_WRITE, .bytes = BYTES},
    {.buffer = B_SUM, .flags = ZMP_ARG_READ, .bytes = BYTES},
    {.buffer = B_OUT, .flags = ZMP_ARG_WRITE, .bytes = BYTES},
    {.buffer = B_OUT, .flags = ZMP_ARG_WRITE, .bytes = BYTES / 2, .rank_stride = BYTES / 2},
    {.buffer = B_OTHER, .flags = ZMP_ARG_READ, .bytes = BYTES / 2, .rank_stride = BYTES / 2},
};
#define KERNEL(FIRST) {.kind = ZMP_KERNEL, .first_arg = FIRST, .n_args = 2, .loc = S_LOC}
static const ZmpCommand commands[] = {
    KERNEL(0), {.kind = ZMP_START, .first_arg = 2, .n_args = 2, .label = S_GRAD, .loc = S_LOC},
    KERNEL(4), {.kind = ZMP_WAIT, .first_arg = 2, .n_args = 2, .label = S_GRAD, .loc = S_LOC},
    KERNEL(6), {.kind = ZMP_COPY, .first_arg = 8, .n_args = 2, .loc = S_LOC},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands, AT_WAIT = 3 };
static const ZmpCollective collective = {
    .kind = ZMP_ALL_REDUCE, .dtype = ZMP_I32, .tensor = S_GRAD, .loc = S_LOC, .count = N};
static const ZmpPort port = {.dtype = ZMP_I32, .rank = 1, .buffer = B_IN, .dim = {N}};

typedef struct Rank {
    const Program *p;
    CommGroup *group;
    int number;
    bool is_lacking; /* a WAIT */
    RtStatus status;
    RtError e;
} Rank;

/* What round `round` must give at element i. */
static int32_t expected(int rank, int round, int i)
{
    int32_t sum = 0;
    for (int r = 0; r < RANKS; r++) sum += 100 * r + 10 * round + i + 1;
    bool is_own = i / (N / RANKS) == rank;
    return is_own ? 100 * rank + 10 * round + i + 1 : sum + 1;
}

static RtStatus run_rounds(Rank *r, Exec *x)
{
    int32_t *in = (void *)exec_port(x, &port);
    const int32_t *out = (const void *)x->buffer_at[B_OUT];
    int64_t sent = exec_sent(x);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < N; i++) in[i] = 100 * r->number + 10 * round + i;
        RT_TRY(exec_run(x, r->p->funcs, &r->e));
        exec_fetch(x, out, BYTES);
        RT_TRY(device_wait(x->device, &r->e));
        for (int i = 0; i < N && !r->is_lacking; i++)
            CHECK(out[i] == expected(r->number, round, i));
    }
    CHECK(exec_sent(x) - sent == ROUNDS * 2 * (RANKS - 1) * BYTES / RANKS);
    return RT_OK;
}

static void *rank_main(void *arg)
{
    Rank *r = arg;
    Exec x = {0};
    Comm *c;
    CommOptions o = {.world = RANKS};
    CHECK(comm_local_open(&c, r->group, r->number, &o, &r->e) == RT_OK);
    CHECK(exec_open_rank(&x, r->p, NULL, 0, c, &r->e) == RT_OK);
    r->status = device_join(x.device, &r->e);
    if (r->status == RT_OK) r->status = run_rounds(r, &x);
    device_leave(x.device, r->status == RT_OK);
    if (r->status != RT_OK) comm_fail(c, r->status, str_c(&r->e.text));
    comm_close(c);
    exec_close(&x);
    return NULL;
}

static void run_ranks(Rank *ranks, bool is_lacking)
{
    static const ZmpHeader header = {
        .arena_bytes = N_BUFFERS * SLOT, .ranks = RANKS, .target = S_TARGET};
    static const ZmpModule module = {.name = S_FILE, .ptx = {0, sizeof ptx}};
    ZmpBuffer buffers[N_BUFFERS] = {{0}};
    ZmpCommand mine[N_COMMANDS];
    ZmpFunc last = {.name = S_LAST, .n_commands = N_COMMANDS, .n_in = 1};
    pthread_t threads[RANKS];
    RtError e = {0};
    CommGroup *group;
    for (int i = 0; i < N_BUFFERS; i++)
        buffers[i] = (ZmpBuffer){.arena_offset = i * SLOT, .bytes = BYTES};
    memcpy(mine, commands, sizeof mine);
    if (is_lacking) mine[AT_WAIT] = (ZmpCommand){.kind = ZMP_PROBE};
    Program p = {.h = &header,
                 .strings = strings,
                 .buffers = buffers,
                 .kernels = &kernel,
                 .args = args,
                 .commands = mine,
                 .funcs = &last,
                 .ports = &port,
                 .collectives = &collective,
                 .modules = &module,
                 .device_code = ptx};
    p.n_buffers = N_BUFFERS;
    p.n_args = sizeof args / sizeof *args;
    p.n_commands = N_COMMANDS;
    p.n_kernels = p.n_funcs = p.n_ports = p.n_collectives = p.n_modules = 1;
    CHECK(comm_group_new(&group, RANKS, &e) == RT_OK);
    for (int r = 0; r < RANKS; r++) {
        ranks[r] = (Rank){.p = &p, .group = group, .number = r, .is_lacking = is_lacking};
        CHECK(pthread_create(&threads[r], NULL, rank_main, &ranks[r]) == 0);
    }
    for (int r = 0; r < RANKS; r++) CHECK(pthread_join(threads[r], NULL) == 0);
    comm_group_free(group);
}

/* ---- scenes, each in a process of its own ---- */

static void right(const Driver *d)
{
    Rank ranks[RANKS];
    run_ranks(ranks, false);
    for (int r = 0; r < RANKS; r++) {
        if (ranks[r].status != RT_OK) fprintf(stderr, "%s\n", str_c(&ranks[r].e.text));
        CHECK(ranks[r].status == RT_OK);
    }
    CHECK(d->reports() == 0);
}

static void lacks_wait(const Driver *d)
{
    Rank ranks[RANKS];
    run_ranks(ranks, true);
    CHECK(d->reports() > 0);
}

/* The GPU of rank 1 stays away, though both processes live; found where a number is fetched. */
static void hangs(const Driver *d)
{
    Rank ranks[RANKS];
    (void)d;
    run_ranks(ranks, false);
    for (int r = 0; r < RANKS; r++) {
        const char *said = str_c(&ranks[r].e.text);
        CHECK(ranks[r].status == RT_FAILED);
        CHECK(strstr(said, "for its GPU in all_reduce of 'grad.w' (m.zm:3:5)"));
        str_free(&ranks[r].e.text);
    }
}

static void in_child(void (*scene)(const Driver *d), int seed, const char *graphs)
{
    static Driver d;
    char text[16];
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        alarm(LIMIT_S);
        snprintf(text, sizeof text, "%d", seed);
        setenv("GPUSIM_SEED", text, 1);
        setenv("ZMC_GRAPHS", graphs, 1);
        if (scene == hangs) setenv("GPUSIM_NCCL_FAULT", "hang@1:1", 1);
        driver_open(&d);
        scene(&d);
        exit(0);
    }
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    if (status != 0) fprintf(stderr, "seed %d, graphs %s\n", seed, graphs);
    CHECK(status == 0);
}

int main(void)
{
    char path[PATH_MAX], full[PATH_MAX + 16];
    driver_folder(path);
    snprintf(full, sizeof full, "%s/gpusim", path);
    setenv("ZMC_NCCL", full, 1);
    setenv("GPUSIM_DEVICES", "2", 1);
    for (int seed = 0; seed < SEEDS; seed++) {
        in_child(right, seed, "1");
        in_child(right, seed, "0");
    }
    in_child(lacks_wait, 0, "0");
    in_child(hangs, 0, "1");
    puts("PASS");
    return 0;
}
