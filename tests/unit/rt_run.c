/* rt_run.c -- whole runs of a hand-made program: the same numbers for any threads, after resuming,
 * and with poison. */
#include "tests/unit/rt_tiny.h"

#include <jansson.h>
#include <signal.h>
#include <sys/stat.h>

static json_t *line_of(const char *path, int line)
{
    char *text = tiny_read(path, NULL), *at = text;
    for (int i = 0; i < line && at; i++) at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL;
    CHECK(at != NULL);
    json_t *o = json_loads(at, JSON_DISABLE_EOF_CHECK, NULL);
    CHECK(o != NULL);
    free(text);
    return o;
}

static double number(const char *path, int line, const char *key)
{
    json_t *o = line_of(path, line), *v = json_object_get(o, key);
    CHECK(json_is_number(v));
    double d = json_number_value(v);
    json_decref(o);
    return d;
}

static void test_learns(const Tiny *t)
{
    CHECK(tiny_run(t, "--data text --steps 60 --metrics m --export w.safetensors --threads 2") ==
          0);
    CHECK(fabs(number("m", 0, "loss") - log(256)) < 0.1); /* near uniform at start */
    CHECK(number("m", 59, "loss") < 0.6 * number("m", 0, "loss"));
    CHECK(number("m", 59, "step") == 59 && number("m", 59, "update") == 60 &&
          number("m", 59, "lr") == 0.5);
    CHECK(number("m", 0, "loss_scale") == 1 && number("m", 0, "comm_bytes") == 0);
    CHECK(number("m", 0, "arena_bytes") == (double)t->h.arena_bytes);
    json_t *o = line_of("m", 3);
    CHECK(json_is_false(json_object_get(o, "skipped")) &&
          json_is_null(json_object_get(o, "hysteresis_next")));
    json_decref(o);
    CHECK(tiny_has("err", "step 60/60"));
}

static void test_same_bits(const Tiny *t)
{
    for (int threads = 1; threads <= 5; threads += 2) {
        CHECK(tiny_run(t, "--data text --steps 60 --export w%d.safetensors --threads %d", threads,
                       threads) == 0);
        char path[32];
        snprintf(path, sizeof path, "w%d.safetensors", threads);
        CHECK(tiny_same("w.safetensors", path));
    }
    CHECK(tiny_run(t, "--data text --steps 60 --export p.safetensors --poison --check-numerics") ==
          0);
    CHECK(tiny_same("w.safetensors", "p.safetensors"));
    CHECK(tiny_run(t, "--data text --steps 60 --export s.safetensors --seed 1") == 0);
    CHECK(!tiny_same("w.safetensors", "s.safetensors"));
    CHECK(tiny_run(t, "--data text --steps 60 --export s.safetensors --order sequential") == 0);
    CHECK(!tiny_same("w.safetensors", "s.safetensors"));
}

static void test_resume(const Tiny *t)
{
    CHECK(tiny_run(t, "--data text --steps 23 --save ck --save-every 10 --metrics m2") == 0);
    CHECK(access("ck/step-00000010/manifest.json", F_OK) == 0 &&
          access("ck/step-00000023/manifest.json", F_OK) == 0);
    /* A run that was killed had gone on after the checkpoint and was writing a line. */
    CHECK(system("echo '{\"step\":23,\"loss\":9}' >> m2; printf '{\"step\":24,\"lo' >> m2") == 0);
    CHECK(tiny_run(t, "--data text --steps 60 --resume ck --export r.safetensors --metrics m2") ==
          0);
    CHECK(system("test $(wc -l < m2) = 60") == 0);
    CHECK(tiny_same("w.safetensors", "r.safetensors"));
    for (int i = 0; i < 60; i++) CHECK(number("m", i, "loss") == number("m2", i, "loss"));
    CHECK(tiny_run(t, "--data text --steps 60 --resume ck --seed 3") == 1 &&
          tiny_has("err", "leave --seed out"));
    CHECK(tiny_run(t, "--data text --steps 5 --resume ck --export r.safetensors") ==
          0); /* already past it */
}

static void test_eval_and_generate(const Tiny *t)
{
    CHECK(tiny_run(t, "--data text --steps 60 --eval-data text --eval-every 50 --metrics m "
                      "--generate 20 --prompt the") == 0);
    double loss = number("m", 50, "eval_loss"), last = number("m", 61, "eval_loss");
    CHECK(loss > last && last > 0 && number("m", 50, "step") == 50);
    CHECK(number("m", 61, "eval_tokens") ==
          (4000 - 1) / 8 * 8); /* every sample once, the last batch padded */
    size_t n;
    char *text = tiny_read("out", &n);
    CHECK(n == 24 && memcmp(text, "the", 3) == 0);
    free(text);
    CHECK(rename("out", "out1") == 0);
    CHECK(tiny_run(t, "--steps 0 --load w.safetensors --generate 20 --prompt the") == 0);
    CHECK(tiny_same("out", "out1"));
}

/* Of the loss by the formula: mean over the batch of (softmax - one-hot), rows of w by token. */
static void test_dump_grads(const Tiny *t)
{
    CHECK(tiny_run(t, "--data text --steps 2 --order sequential --dump-grads g.safetensors") == 0);
    size_t n;
    char *file = tiny_read("g.safetensors", &n), *text = tiny_read("text", NULL);
    uint64_t header;
    memcpy(&header, file, 8);
    CHECK(n == 8 + header + 4 * TN);
    json_t *o = json_loadb(file + 8, header, 0, NULL);
    CHECK(json_array_size(json_object_get(json_object_get(o, "w"), "shape")) == 2);
    json_decref(o);
    const char *g = file + 8 + header;
    double got = 0, want = 0;
    for (int v = 0; v < TV;
         v++) { /* b's gradient sums to 0; where a letter never is a target it is its probability */
        float f;
        memcpy(&f, g + 4 * (TV * TV + v), 4);
        got += (double)f;
    }
    CHECK(fabs(got) < 1e-5);
    float f;
    memcpy(&f, g + 4 * (TV * TV + 1), 4); /* byte 1 is not in the text */
    CHECK(fabsf(f - 1.0f / 256) < 2e-3f);
    for (int k = 0; k < TA * TB * TT; k++) want += text[k + 1] == 'q';
    memcpy(&f, g + 4 * (TV * TV + 'q'), 4);
    CHECK(fabs((double)f - (1.0 / 256 - want / (TA * TB * TT))) < 2e-3);
    free(file);
    free(text);
}

static void test_skips(const Tiny *t)
{
    CHECK(tiny_run(t, "--data text --steps 5 --fault nonfinite@1,3 --metrics m") == 0);
    for (int i = 0; i < 5; i++) {
        json_t *o = line_of("m", i);
        bool is_fault = i == 1 || i == 3;
        CHECK(json_is_true(json_object_get(o, "skipped")) == is_fault);
        CHECK(json_is_null(json_object_get(o, "grad_norm")) == is_fault);
        json_decref(o);
    }
    CHECK(number("m", 4, "update") == 3);
    tiny_break = BREAK_NAN_LOSS;
    CHECK(tiny_run(t, "--data text --steps 500 --metrics m") == 2);
    CHECK(tiny_has("err", "100 steps in a row were skipped") &&
          tiny_has("err", "tiny.zm:8:3: probs[773] = nan, written by forward"));
    CHECK(tiny_run(t, "--data text --steps 500 --check-numerics") == 2 &&
          tiny_has("err", "probs[773]"));
    tiny_break = BREAK_NOTHING;
}

static void test_poison_finds(const Tiny *t)
{
    tiny_break = BREAK_READS_DEAD;
    CHECK(tiny_run(t, "--steps 0 --eval-data text --metrics m") == 0);
    CHECK(number("m", 0, "eval_loss") > 0);
    CHECK(tiny_run(t, "--steps 0 --eval-data text --metrics m --poison") == 0);
    json_t *o = line_of("m", 0);
    CHECK(json_is_null(json_object_get(o, "eval_loss")));
    json_decref(o);
    tiny_break = BREAK_WRITES_OUTSIDE;
    CHECK(tiny_run(t, "--data text --steps 2 --poison") == 2 &&
          tiny_has("err", "behind the end of buffer items"));
    tiny_break = BREAK_NOTHING;
}

static void test_signals(const Tiny *t)
{
    static const int signals[] = {SIGINT, SIGTERM};
    for (int i = 0; i < 2; i++) {
        pid_t pid = tiny_start(t, NULL, "--data text --steps 100000000 --save sig --metrics sm");
        for (int turn = 0; turn < 500; turn++) { /* until it steps */
            usleep(10000);
            if (access("sm", F_OK) != 0) continue;
            size_t n;
            free(tiny_read("sm", &n));
            if (n) break;
        }
        CHECK(kill(pid, signals[i]) == 0);
        CHECK(tiny_wait(pid) == 128 + signals[i]);
        CHECK(tiny_has("err", "saved sig/step-"));
        CHECK(tiny_run(t, "--data text --steps 0 --resume sig") == 0); /* what was saved is whole */
        CHECK(system("rm -rf sig sm") == 0);
    }
}

static void test_profile(const Tiny *t)
{
    CHECK(tiny_run(t, "--data text --steps 30 --profile trace.json") == 0);
    char *text = tiny_read("trace.json", NULL);
    json_t *o = json_loads(text, 0, NULL);
    CHECK(json_array_size(json_object_get(o, "traceEvents")) ==
          20 * (2 + 5)); /* the probe is no event */
    json_decref(o);
    free(text);
}

#ifndef __SANITIZE_ADDRESS__ /* its shadow counts too */
/* Anonymous memory after the first step must not grow; the peak stays within 24 MiB of the arena.
 */
static void test_memory(const Tiny *t)
{
    pid_t pid = tiny_start(t, NULL, "--data text --steps 100000000 --metrics sm");
    long first = 0, later = 0, peak = 0;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    for (int turn = 0; turn < 60; turn++) {
        usleep(20000);
        char *text = tiny_read(path, NULL), *anon = strstr(text, "RssAnon:"),
             *high = strstr(text, "VmHWM:");
        CHECK(anon && high);
        later = atol(anon + 8);
        peak = atol(high + 6);
        if (turn == 20) first = later;
        free(text);
    }
    kill(pid, SIGTERM);
    CHECK(tiny_wait(pid) == 143);
    CHECK(later <= first && peak * 1024 <= (long)t->h.arena_bytes + (24 << 20));
}
#endif

static void close_stderr(void)
{
    close(2);
}

static void close_all(void)
{
    close(0);
    close(1);
    close(2);
}

/* A file of the run must not get the number of a closed stderr, and with it the progress. */
static void test_closed_outputs(const Tiny *t)
{
    CHECK(tiny_wait(tiny_start(t, close_stderr, "--data text --steps 3 --metrics m --export w")) ==
          0);
    CHECK(tiny_run(t, "--data text --steps 3 --export open") == 0 && tiny_same("w", "open"));
    CHECK(!tiny_has("m", "loss 0") && !tiny_has("m", "tok/s") && tiny_has("m", "\"step\":2,"));
    CHECK(tiny_wait(tiny_start(t, close_all, "--info")) == 2);
}

static void test_links(const Tiny *t)
{
    CHECK(mkdir("there", 0777) == 0 && symlink("there/w", "link") == 0);
    tiny_write("there/w", "", 0);
    CHECK(tiny_run(t, "--data text --steps 2 --export link") == 0);
    CHECK(tiny_run(t, "--data text --steps 2 --export plain") == 0);
    struct stat st;
    CHECK(lstat("link", &st) == 0 && S_ISLNK(st.st_mode) && tiny_same("there/w", "plain"));
    CHECK(tiny_run(t, "--data text --steps 1 --dump-grads link") == 0);
    CHECK(lstat("link", &st) == 0 && S_ISLNK(st.st_mode) && !tiny_same("there/w", "plain"));
}

int main(void)
{
    static Tiny t;
    tiny_build(&t);
    tiny_enter_dir();
    tiny_text("text", 4000);
    test_learns(&t);
    test_same_bits(&t);
    test_resume(&t);
    test_eval_and_generate(&t);
    test_dump_grads(&t);
    test_skips(&t);
    test_poison_finds(&t);
    test_signals(&t);
    test_profile(&t);
    test_closed_outputs(&t);
    test_links(&t);
#ifndef __SANITIZE_ADDRESS__
    test_memory(&t);
#endif
    tiny_remove_dir();
    return 0;
}
