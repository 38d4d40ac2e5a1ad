/* rt_checkpoint.c -- what can go wrong while saving and resuming: damage, full disks, interrupted
 * writes, other models. */
#include <fcntl.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "tests/unit/rt_tiny.h"

static void limit_files(void)
{
    struct rlimit limit = {400 * 1024, 400 * 1024}; /* the state takes 513 KiB */
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

static void test_full_disk(const Tiny *t)
{
    CHECK(tiny_run(t, "--data text --steps 10 --save ck") == 0);
    CHECK(tiny_wait(tiny_start(
              t, limit_files, "--data text --steps 20 --resume ck --save ck --save-every 5")) == 2);
    CHECK(tiny_has("err", "cannot write ck/.tmp-step-00000015-") &&
          tiny_has("err", "free space there"));
    CHECK(system("test \"$(ls -A ck)\" = step-00000010") == 0); /* nothing half-made is left */
    CHECK(tiny_run(t, "--data text --steps 20 --resume ck --export a.safetensors") == 0);
    CHECK(tiny_run(t, "--data text --steps 20 --export b.safetensors") == 0);
    CHECK(tiny_same("a.safetensors", "b.safetensors"));
    CHECK(tiny_wait(tiny_start(t, limit_files, "--data text --steps 1 --save none")) == 2);
    CHECK(system("test -z \"$(ls -A none)\"") == 0);
}

static void limit_tiny(void)
{
    struct rlimit limit = {4096, 4096};
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

static void test_full_disk_elsewhere(const Tiny *t)
{
    CHECK(rename("a.safetensors", "kept.safetensors") == 0);
    CHECK(tiny_wait(tiny_start(t, limit_tiny, "--data text --steps 1 --export kept.safetensors")) ==
          2);
    CHECK(tiny_has("err", "cannot write kept.safetensors") &&
          tiny_same("kept.safetensors", "b.safetensors"));
    CHECK(tiny_wait(tiny_start(t, limit_tiny, "--data text --steps 100 --metrics m")) == 2 &&
          tiny_has("err", "cannot write m"));
    CHECK(tiny_wait(tiny_start(t, limit_tiny, "--data text --steps 1 --dump-grads g")) == 2 &&
          tiny_has("err", "cannot write g"));
    CHECK(access("g", F_OK) != 0);
    CHECK(tiny_wait(tiny_start(t, limit_tiny, "--data text --steps 9 --profile tr")) == 2 &&
          tiny_has("err", "cannot write tr"));
    CHECK(system("test -z \"$(ls -d *.tmp-* 2>/dev/null)\"") == 0);
}

static void flip(const char *path, long at)
{
    FILE *f = fopen(path, "r+b");
    CHECK(f && fseek(f, at, at < 0 ? SEEK_END : SEEK_SET) == 0);
    int c = fgetc(f);
    CHECK(fseek(f, -1, SEEK_CUR) == 0 && fputc(c ^ 1, f) != EOF && fclose(f) == 0);
}

static void resumes_at(const Tiny *t, int step, const char *why)
{
    char line[64];
    CHECK(tiny_run(t, "--data text --steps 0 --resume ck") == 0);
    snprintf(line, sizeof line, "resumed at step %d\n", step);
    CHECK(tiny_has("err", line) && tiny_has("err", why));
}

static void test_damage(const Tiny *t)
{
    CHECK(system("rm -rf ck") == 0);
    CHECK(tiny_run(t, "--data text --steps 30 --save ck --save-every 5") == 0);
    resumes_at(t, 30, "");
    CHECK(tiny_run(t, "--data text --steps 10 --resume ck") == 0 &&
          tiny_has("err", "warning: --steps 10 counts from the start"));
    flip("ck/step-00000030/rank-0.safetensors", -5000);
    resumes_at(t, 25, "step-00000030/rank-0.safetensors is damaged: the checksum of tensor");
    flip("ck/step-00000025/manifest.json", 200);
    resumes_at(t, 20, "step-00000025/manifest.json is damaged");
    CHECK(truncate("ck/step-00000020/rank-0.safetensors", 10000) == 0);
    resumes_at(t, 15, "step-00000020/rank-0.safetensors is truncated");
    CHECK(unlink("ck/step-00000015/manifest.json") == 0);
    resumes_at(t, 10, "cannot read ck/step-00000015/manifest.json");
    CHECK(unlink("ck/step-00000010/rank-0.safetensors") == 0);
    resumes_at(t, 5, "cannot read ck/step-00000010/rank-0.safetensors");
    CHECK(system("mkdir ck/step-00000099 ck/.tmp-step-00000100-999999999; echo x > "
                 "ck/.tmp-step-00000100-999999999/x") == 0);
    resumes_at(t, 5, "step-00000099");
    CHECK(tiny_run(t, "--data text --steps 7 --resume ck --save ck") == 0);
    CHECK(access("ck/.tmp-step-00000100-999999999", F_OK) !=
          0); /* leftovers go with the next save */
    resumes_at(t, 7, "");
    CHECK(tiny_run(t, "--data text --steps 8 --resume ck/step-00000005 --save ck") ==
          0); /* one of them by name */
    CHECK(truncate("ck/step-00000005/manifest.json", 0) == 0 &&
          system("rm -rf ck/step-00000007 ck/step-00000008") == 0);
    CHECK(tiny_run(t, "--data text --steps 9 --resume ck") == 1 &&
          tiny_has("err", "no checkpoint in ck is valid"));
    CHECK(tiny_run(t, "--data text --steps 9 --resume nowhere") == 1 &&
          tiny_has("err", "nowhere: No such file"));
    CHECK(system("mkdir -p bare") == 0);
    CHECK(tiny_run(t, "--data text --steps 9 --resume bare") == 1 &&
          tiny_has("err", "holds no checkpoint"));
}

/* Every byte of the manifest is under its checksum. */
static void test_every_manifest_byte(const Tiny *t)
{
    size_t n;
    CHECK(system("rm -rf ck") == 0 && tiny_run(t, "--data text --steps 1 --save ck") == 0);
    free(tiny_read("ck/step-00000001/manifest.json", &n));
    for (size_t at = 0; at < n - 4; at += 37) {
        flip("ck/step-00000001/manifest.json", (long)at);
        CHECK(tiny_run(t, "--data text --steps 0 --resume ck") == 1);
        flip("ck/step-00000001/manifest.json", (long)at);
    }
    CHECK(tiny_run(t, "--data text --steps 0 --resume ck") == 0);
}

static void test_other_model(const Tiny *t)
{
    static Tiny other;
    other = *t;
    for (uint32_t i = 0; i < other.n_vars; i++)
        if (strcmp(other.strings + other.vars[i].name, "b") == 0)
            other.vars[i].name = tiny_str(&other, "c");
    tiny_pack(&other);
    CHECK(tiny_run(&other, "--data text --steps 2 --resume ck") == 1);
    CHECK(tiny_has("err", "is of another model") && tiny_has("err", "param/c: missing") &&
          tiny_has("err", "param/b: not in this program") &&
          tiny_has("err", "moment/sgd.m/c: missing"));
}

/* Buckets laid out otherwise read the same checkpoint: b before w, and the moment as one variable a
 * parameter. */
static void test_other_layout(const Tiny *t)
{
    static Tiny other;
    other = *t;
    int32_t moment = -1;
    for (uint32_t i = 0; i < other.n_vars; i++) {
        ZmpVar *v = &other.vars[i];
        const char *name = other.strings + v->name;
        if (strcmp(name, "sgd.m.bucket.0") == 0) moment = (int32_t)i;
        int64_t offset = strcmp(name, "w") == 0 ? TV : 0;
        if (v->in < 0) continue;
        v->arena_offset += 4 * (offset - v->in_offset);
        v->in_offset = offset;
    }
    for (int i = 0; i < 2; i++) { /* views in the moment's bucket */
        ZmpVar *v = &other.vars[other.n_vars++];
        *v = other.vars[moment];
        v->name = tiny_str(&other, i ? "sgd.m.b" : "sgd.m.w");
        v->is_bucket = 0;
        v->in = moment;
        v->of = i ? 2 : 1;
        v->in_offset = i ? 0 : TV;
        v->arena_offset += 4 * v->in_offset;
        v->rank = i ? 1 : 2;
        v->dim[0] = v->dim[1] = TV;
        v->elems = i ? TV : TV * TV;
    }
    tiny_pack(&other);
    CHECK(tiny_run(&other, "--data text --steps 1 --resume ck --save ck2 --export o.safetensors") ==
          0);
    CHECK(tiny_run(t, "--data text --steps 1 --resume ck --export p.safetensors") == 0);
    CHECK(tiny_same("o.safetensors", "p.safetensors"));
    CHECK(tiny_run(&other, "--data text --steps 0 --resume ck") == 0);
}

/* Killed at any moment, also while saving: what is found is whole. */
static void test_killed(const Tiny *t)
{
    for (int round = 0; round < 12; round++) {
        pid_t pid = tiny_start(t, NULL, "--data text --steps 100000000 --save kill --save-every 1");
        for (int turn = 0; turn < 1000 && access("kill", F_OK) != 0; turn++) usleep(2000);
        usleep(3000 + 1237 * (useconds_t)round);
        CHECK(kill(pid, SIGKILL) == 0 && tiny_wait(pid) == 1000 + SIGKILL);
        int code = tiny_run(t, "--data text --steps 0 --resume kill");
        CHECK(code == 0 ? tiny_has("err", "resumed at step")
                        : tiny_has("err", "holds no checkpoint"));
        char *err = tiny_read("err", NULL);
        CHECK(!strstr(err, "warning"));
        free(err);
        if (code) continue;
        CHECK(tiny_run(t, "--data text --steps 0 --resume kill --save kill2") == 0);
        CHECK(system("rm -rf kill kill2") == 0);
    }
}

/* A checkpoint that is made again changes places with the old one: no moment without either. */
static void test_same_step(const Tiny *t)
{
    CHECK(tiny_run(t, "--data text --steps 2 --save again") == 0);
    CHECK(mkdir("x", 0777) == 0 && mkdir("y", 0777) == 0);
    bool can_exchange = renameat2(AT_FDCWD, "x", AT_FDCWD, "y", RENAME_EXCHANGE) == 0;
    int events = inotify_init1(IN_NONBLOCK);
    CHECK(events >= 0 && inotify_add_watch(events, "again", IN_MOVED_FROM | IN_MOVED_TO) >= 0);
    CHECK(tiny_run(t, "--data text --steps 2 --save again --seed 1") == 0);
    _Alignas(struct inotify_event) char text[4096];
    ssize_t n = read(events, text, sizeof text);
    int n_away = 0, n_old = 0;
    for (char *at = text; n > 0 && at < text + n;) {
        const struct inotify_event *e = (const void *)at;
        n_away += strcmp(e->name, "step-00000002") == 0;
        n_old += strncmp(e->name, ".tmp-step-old", 13) == 0;
        at += sizeof *e + e->len;
    }
    CHECK(n_away > 0 && (n_old == 0 || !can_exchange));
    CHECK(close(events) == 0);
    CHECK(tiny_run(t, "--data text --steps 2 --resume again --seed 1") == 0);
    CHECK(system("test $(ls -A again | wc -l) = 1") == 0);
}

int main(void)
{
    static Tiny t;
    tiny_build(&t);
    tiny_enter_dir();
    tiny_text("text", 4000);
    test_full_disk(&t);
    test_full_disk_elsewhere(&t);
    test_damage(&t);
    test_every_manifest_byte(&t);
    test_other_model(&t);
    test_other_layout(&t);
    test_same_step(&t);
    test_killed(&t);
    tiny_remove_dir();
    return 0;
}
