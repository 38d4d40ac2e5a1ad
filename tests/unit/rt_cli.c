/* rt_cli.c -- the command line, --info, damaged programs, wrong CPUs, wrong launches. */
#include <signal.h>
#include <sys/resource.h>

#include "runtime/program.h"
#include "tests/unit/rt_tiny.h"

static void test_options(const Tiny *t)
{
    static const struct {
        const char *line, *why;
    } cases[] = {
        {"", "--steps N is missing"},
        {"--steps 1", "--data is missing"},
        {"--data text --step 1", "unknown option --step; accepted are"},
        {"--data text --step 1", "--check-numerics"},
        {"text", "unknown option text"},
        {"--data text --steps", "--steps needs a value: --steps N"},
        {"--data text --steps ten",
         "--steps takes a whole number from 0 to 2147483647, not \"ten\""},
        {"--data text --steps -1", "--steps takes a whole number"},
        {"--data text --steps 1 --info=yes", "--info takes no value"},
        {"--data text --steps 1 --seed -1", "--seed takes a whole number"},
        {"--data text --steps 1 --order up", "--order takes random or sequential, not \"up\""},
        {"--data text --steps 1 --dtype u64", "--dtype takes u8, u16 or u32, not \"u64\""},
        {"--data text --steps 1 --threads 0", "--threads takes 1 to 1024"},
        {"--data text --steps 1 --save-every 2", "--save-every needs --save"},
        {"--data text --steps 1 --eval-every 2", "--eval-every needs --eval-data"},
        {"--data text --steps 1 --save ck --save-every 0", "1 or more"},
        {"--data text --steps 1 --load a --resume b", "exclude each other"},
        {"--data text --steps 1 --prompt a", "--prompt needs --generate"},
        {"--steps 0 --dump-grads g", "leaves none to run"},
        {"--data text --steps 1 --export absent/w", "directory absent: No such file"},
        {"--data text --steps 1 --export /dev/full", "not a regular file"},
        {"--data text --steps 1 --metrics absent/m", "directory absent: No such file"},
        {"--data text --steps 1 --metrics .", "it is a directory"},
        {"--data text --steps 1 --save text", "text is not a directory"},
        {"--data text --steps 1 --save text/ck", "cannot make directory text"},
        {"--data text --steps 1 --fault inf@3", "--fault takes nonfinite@STEP"},
        {"--data text --steps 1 --fault nonfinite@x", "--fault takes nonfinite@STEP"},
        {"--data text --steps 1 --fault nonfinite@3:1",
         "names rank 1, the program has ranks 0 to 0"},
        {"--data text --steps 1 --eval-data absent", "cannot read data absent"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code = tiny_run(t, "%s", cases[i].line);
        if (code != 1) fprintf(stderr, "%s: exit code %d\n", cases[i].line, code);
        CHECK(code == 1 && tiny_has("err", cases[i].why));
    }
    CHECK(tiny_run(t, "--data=text --steps=2 --seed=18446744073709551615 --order=sequential") == 0);
    CHECK(tiny_run(t, "--data text --steps 1 --metrics /dev/full") == 2 &&
          tiny_has("err", "No space left"));
}

static void test_text(const Tiny *t)
{
    CHECK(tiny_run(t, "--help") == 0 && tiny_has("out", "--eval-every N") &&
          tiny_has("out", "exit codes"));
    CHECK(tiny_run(t, "--info") == 0);
    static const char *const facts[] = {
        "tiny.zm", "zmc tiny.zm -o tiny", "cpu x86-64", "ranks       1",
        "fp32",    "the plan of tiny",    "generate",   "tokens: i32[2, 8]"};
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) CHECK(tiny_has("out", facts[i]));
    char line[64];
    snprintf(line, sizeof line, "%llu bytes", (unsigned long long)t->h.arena_bytes);
    CHECK(tiny_has("out", line));
}

static void test_cpu(const Tiny *t)
{
    Tiny other = *t;
    other.h.cpu_features = tiny_str(&other, "sse2,no-such-feature");
    tiny_pack(&other);
    CHECK(tiny_run(&other, "--data text --steps 1") == 1 &&
          tiny_has("err", "cannot be asked for no-such-feature"));
    CHECK(tiny_run(&other, "--info") == 0); /* asks nothing of the CPU */
    bool is_known;
    CHECK(cpu_has("sse2", &is_known) && is_known);
    if (cpu_has("avx512fp16", &is_known) && cpu_has("fma4", &is_known))
        return; /* no CPU has both */
    other.h.cpu_features = tiny_str(&other, "sse2,avx512fp16,fma4");
    tiny_pack(&other);
    CHECK(tiny_run(&other, "--data text --steps 1") == 1 && tiny_has("err", "this CPU lacks "));
}

static void four_ranks(void)
{
    setenv("OMPI_COMM_WORLD_SIZE", "4", 1);
}

static void test_world(const Tiny *t)
{
    CHECK(tiny_wait(tiny_start(t, four_ranks, "--data text --steps 1")) == 1);
    CHECK(tiny_has("err", "compiled for 1 rank, but 4 started; compile it with --ranks 4"));
}

/* Any byte of the blob's header and tables changed: an error or a run, never a crash.  Only what is
 * checked at opening is exercised (--info): kernels trust the arguments that a sound program gives
 * them. */
static void test_damaged_program(const Tiny *t)
{
    Tiny other = *t;
    char *blob = malloc(t->image.program_bytes);
    memcpy(blob, t->image.program, t->image.program_bytes);
    other.image.program = blob;
    for (size_t at = 0; at < t->image.program_bytes; at += at < 400 ? 1 : 61) {
        blob[at] ^= (char)0xff;
        int code = tiny_run(&other, "--info");
        if (code != 0 && code != 2) fprintf(stderr, "byte %zu: exit code %d\n", at, code);
        CHECK(code == 0 || (code == 2 && tiny_has("err", "compile the model again")));
        blob[at] ^= (char)0xff;
    }
    other.image.program_bytes = 100;
    CHECK(tiny_run(&other, "--info") == 2);
    free(blob);
}

static void limit_memory(void)
{
    struct rlimit limit = {(rlim_t)3 << 30, (rlim_t)3 << 30};
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
}

/* Too much memory is a message, not the end by the kernel's hand. */
static void test_memory(const Tiny *t)
{
    Tiny other = *t;
    other.h.arena_bytes = (uint64_t)1 << 45;
    tiny_pack(&other);
    CHECK(tiny_run(&other, "--data text --steps 1") == 2);
    CHECK(tiny_has("err", "the arena takes 33554432.0 MiB of memory") &&
          tiny_has("err", "are available"));
#ifndef __SANITIZE_ADDRESS__ /* needs more address space itself */
    other.h.arena_bytes = (uint64_t)4 << 30;
    tiny_pack(&other);
    CHECK(tiny_wait(tiny_start(&other, limit_memory, "--data text --steps 1")) == 2 &&
          tiny_has("err", "MiB"));
#else
    (void)limit_memory;
#endif
}

static void test_large_vocabulary(const Tiny *t)
{
    CHECK(tiny_run(t, "--steps 0 --generate 3") == 0); /* no prompt: starts from a new line */
    Tiny other = *t;
    for (uint32_t i = 0; i < other.n_ports; i++)
        if (other.ports[i].rank == 3) { /* T x V stays: rows of 512 for a window of 4 */
            other.ports[i].dim[1] = TT / 2;
            other.ports[i].dim[2] = 2 * TV;
            other.ports[i - 1].dim[1] = TT / 2;
        }
    tiny_pack(&other);
    CHECK(tiny_run(&other, "--steps 0 --generate 3 --prompt hello") == 1 &&
          tiny_has("err", "numbers of tokens"));
    CHECK(tiny_run(&other, "--steps 0 --generate 3") == 1 && tiny_has("err", "give --prompt"));
    CHECK(tiny_run(&other, "--steps 0 --generate 3 --prompt 512") == 1 &&
          tiny_has("err", "token 512 is out of range"));
    CHECK(tiny_run(&other, "--steps 0 --generate 0 --prompt 7,8,9") == 0);
}

int main(void)
{
    static Tiny t;
    tiny_build(&t);
    tiny_enter_dir();
    tiny_text("text", 4000);
    test_options(&t);
    test_text(&t);
    test_cpu(&t);
    test_world(&t);
    test_damaged_program(&t);
    test_large_vocabulary(&t);
    test_memory(&t);
    tiny_remove_dir();
    return 0;
}
