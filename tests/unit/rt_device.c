/* rt_device.c -- a program for a GPU made by hand, on the simulator
 * (or, for tools/gpu-check, the machine's GPU): what goes in comes out, and
 * what fails names its command, kernel and place. */
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/exec.h"
#include "tests/unit/gpusim_driver.h"

enum { EXIT_SKIP = 77, N = 8, BYTES = N * 4, ARENA = 4 * 64 };

static int n_failures;

#define CHECK(COND)                                                                                \
    do {                                                                                           \
        if (COND) break;                                                                           \
        n_failures++;                                                                              \
        fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #COND);                         \
    } while (0)

/* add_one: out[i] = in[i] + 1, one block of N threads; far: writes 64 MiB behind its argument. */
static const char ptx[] =
    ".version 8.0\n.target sm_80\n.address_size 64\n"
    ".visible .entry add_one(.param .u64 add_one_0, .param .u64 add_one_1)\n{\n"
    ".reg .b32 %r<4>;\n.reg .b64 %rd<6>;\n"
    "ld.param.u64 %rd1, [add_one_0];\nld.param.u64 %rd2, [add_one_1];\n"
    "mov.u32 %r1, %tid.x;\nmul.wide.u32 %rd3, %r1, 4;\n"
    "add.s64 %rd4, %rd1, %rd3;\nadd.s64 %rd5, %rd2, %rd3;\n"
    "ld.global.u32 %r2, [%rd4];\nadd.s32 %r3, %r2, 1;\nst.global.u32 [%rd5], %r3;\nret;\n}\n"
    ".visible .entry far(.param .u64 far_0, .param .u64 far_1)\n{\n"
    ".reg .b32 %r<2>;\n.reg .b64 %rd<2>;\n"
    "ld.param.u64 %rd1, [far_1];\nmov.u32 %r1, 7;\nst.global.u32 [%rd1+67108864], %r1;\nret;\n}\n";

/* Strings by offset. */
static const char strings[] = "\0add_one\0far\0last\0m.zm:3:5\0cuda:sm_80\0a.cu";
enum { S_ADD_ONE = 1, S_FAR = 9, S_LAST = 13, S_LOC = 18, S_TARGET = 27, S_FILE = 38 };

/* Buffers: x (a variable), in, mid, out; commands: mid = in + 1; out = mid; x = 0; then `far`. */
static const ZmpBuffer buffers[] = {{.func = -1, .arena_offset = 0, .bytes = BYTES},
                                    {.arena_offset = 64, .bytes = BYTES},
                                    {.arena_offset = 128, .bytes = BYTES},
                                    {.arena_offset = 192, .bytes = BYTES}};
static const ZmpKernel kernels[] = {
    {.name = S_ADD_ONE, .entry = S_ADD_ONE, .block_x = N, .block_y = 1, .grid_x = 1},
    {.name = S_FAR, .entry = S_FAR, .block_x = 1, .block_y = 1, .grid_x = 1}};
static const ZmpArg args[] = {{.buffer = 1, .flags = ZMP_ARG_READ, .bytes = BYTES},
                              {.buffer = 2, .flags = ZMP_ARG_WRITE, .bytes = BYTES},
                              {.buffer = 3, .flags = ZMP_ARG_WRITE, .bytes = BYTES},
                              {.buffer = 2, .flags = ZMP_ARG_READ, .bytes = BYTES},
                              {.buffer = 0, .flags = ZMP_ARG_WRITE, .bytes = BYTES}};
static const ZmpCommand commands[] = {
    {.kind = ZMP_KERNEL, .kernel = 0, .first_arg = 0, .n_args = 2, .loc = S_LOC},
    {.kind = ZMP_COPY, .first_arg = 2, .n_args = 2, .loc = S_LOC},
    {.kind = ZMP_ZERO, .first_arg = 4, .n_args = 1, .loc = S_LOC},
    {.kind = ZMP_KERNEL, .kernel = 1, .first_arg = 0, .n_args = 2, .label = S_FAR, .loc = S_LOC}};
static const ZmpPort ports[] = {{.dtype = ZMP_I32, .rank = 1, .buffer = 1, .dim = {N}}};
static const ZmpFunc funcs[] = {
    {.name = S_LAST, .n_commands = 3, .n_in = 1},
    {.name = S_LAST, .first_command = 3, .n_commands = 1, .n_in = 1}, /* fails */
};

static RtStatus nothing(void *self, const Exec *x, const ZmpFunc *f, uint32_t command, RtError *e)
{
    (void)self, (void)x, (void)f, (void)command, (void)e;
    return RT_OK;
}

static bool is_in(const RtError *e, const char *text)
{
    if (strstr(str_c(&e->text), text)) return true;
    fprintf(stderr, "\"%s\" is not in: %s\n", text, str_c(&e->text));
    return false;
}

static void open_one(Exec *x, const Program *p)
{
    RtError e = {0};
    if (exec_open(x, p, NULL, 0, &e) == RT_OK) return;
    fprintf(stderr, "%s\n", str_c(&e.text));
    exit(1);
}

static void test_commands(const Program *p)
{
    Exec x;
    RtError e = {0};
    open_one(&x, p);
    int32_t *in = (void *)exec_port(&x, &ports[0]), *var = (void *)x.buffer_at[0];
    const int32_t *out = (const void *)x.buffer_at[3];
    for (int round = 0; round < 5; round++) { /* more often than there are buffers for inputs */
        for (int i = 0; i < N; i++) var[i] = 5;
        exec_put(&x, var, BYTES);
        for (int i = 0; i < N; i++) in[i] = 10 * round + i;
        CHECK(exec_run(&x, &funcs[0], &e) == RT_OK);
        memset(in, 0, BYTES); /* the next input may come while the last one is in use */
        exec_fetch(&x, out, BYTES);
        exec_fetch(&x, var, BYTES);
        for (int i = 0; i < N; i++) CHECK(out[i] == 10 * round + i + 1 && var[i] == 0);
    }
    CHECK(device_wait(x.device, &e) == RT_OK);
    exec_close(&x);
    str_free(&e.text);
}

/* is_observed: each command is waited for. */
static void check_fault(const Program *p, bool is_observed)
{
    Exec x;
    RtError e = {0};
    open_one(&x, p);
    if (is_observed) exec_observe(&x, (Observer){.after = nothing});
    RtStatus s = exec_run(&x, &funcs[1], &e);
    if (s == RT_OK) s = device_wait(x.device, &e);
    CHECK(s == RT_FAILED);
    CHECK(is_in(&e, is_observed ? "m.zm:3:5: command 3, far (far): CUDA_ERROR_" : "last"));
    CHECK(is_in(&e, is_observed ? "CUDA_ERROR_" : "--check-numerics"));
    exec_close(&x);
    str_free(&e.text);
}

static void test_fault_observed(const Program *p)
{
    check_fault(p, true);
}

static void test_fault_late(const Program *p)
{
    check_fault(p, false);
}

/* In a process of its own: a fault leaves a process without its GPU. */
static void in_child(void (*test)(const Program *p), const Program *p)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        test(p);
        exit(n_failures != 0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) n_failures++;
}

int main(void)
{
    /* The simulator, once opened, is libcuda.so.1 by its SONAME. */
    if (!driver_library(driver_is_machines())) {
        printf("no driver: %s\n", dlerror());
        return EXIT_SKIP;
    }
    static const ZmpHeader header = {
        .arena_bytes = ARENA, .persistent_bytes = 64, .ranks = 1, .target = S_TARGET};
    static const ZmpModule module = {.name = S_FILE, .ptx = {0, sizeof ptx}};
    Program p = {.h = &header,
                 .strings = strings,
                 .buffers = buffers,
                 .kernels = kernels,
                 .args = args,
                 .commands = commands,
                 .funcs = funcs,
                 .ports = ports,
                 .modules = &module,
                 .device_code = ptx};
    p.n_buffers = 4;
    p.n_kernels = 2;
    p.n_args = 5;
    p.n_commands = 4;
    p.n_funcs = 2;
    p.n_ports = p.n_modules = 1;
    in_child(test_commands, &p);
    in_child(test_fault_observed, &p);
    in_child(test_fault_late, &p);
    return n_failures ? 1 : 0;
}
