/* rt_state_fault.c -- a rank that fails while all save or resume: every rank says so, and what was
 * there before stays whole.  And memory: no rank's share of loading grows with the model. */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "runtime/checkpoint.h"
#include "runtime/weights.h"
#include "tests/unit/rt_parts.h"

static const Param params[] = {{"h.0.w", 2, ZMP_NORMAL, {251, 7}},
                               {"h.0.b", 1, ZMP_ZEROS, {7, 0}},
                               {"wte", 2, ZMP_NORMAL, {1021, 11}},
                               {"h.1.b", 1, ZMP_CONST, {251, 0}}};

typedef struct Job {
    const Parts *parts;
    int64_t step;     /* to save as, to find */
    int victim;       /* rank to which something happens; -1: none */
    const char *says; /* about checkpoints that were passed over; NULL: nothing */
} Job;

static void body_save(OnRank *r, Comm *c)
{
    const Job *j = r->self;
    CheckpointInfo info = {.step = j->step};
    OnParts o;
    parts_enter(&o, j->parts, c);
    parts_fill(&o.s);
    r->status = checkpoint_save("ck", &o.x, &o.s, &info, &r->error);
    parts_leave(&o);
}

static void body_resume(OnRank *r, Comm *c)
{
    const Job *j = r->self;
    CheckpointInfo info;
    Str skipped = {0};
    OnParts o;
    parts_enter(&o, j->parts, c);
    r->status = checkpoint_resume("ck", &o.s, "fp32", &info, &skipped, &r->error);
    if (r->status == RT_OK) {
        CHECK(info.step == j->step);
        parts_check(&o.s);
    }
    if (j->says ? !strstr(str_c(&skipped), j->says) : skipped.n > 0) {
        fprintf(stderr, "rank %d passed over: %s\n", r->rank, str_c(&skipped));
        CHECK(!"as expected");
    }
    str_free(&skipped);
    parts_leave(&o);
}

/* The rank's thread has a working directory of its own from now on, where there is nothing. */
static void go_elsewhere(const OnRank *r)
{
    const Job *j = r->self;
    if (r->rank == j->victim) CHECK(unshare(CLONE_FS) == 0 && chdir("/") == 0);
}

static void body_save_elsewhere(OnRank *r, Comm *c)
{
    go_elsewhere(r);
    body_save(r, c);
}

static void body_export_elsewhere(OnRank *r, Comm *c)
{
    const Job *j = r->self;
    OnParts o;
    go_elsewhere(r);
    parts_enter(&o, j->parts, c);
    r->status = weights_export(&o.x, &o.s, &o.arena, "out", &r->error);
    parts_leave(&o);
}

static void body_resume_elsewhere(OnRank *r, Comm *c)
{
    go_elsewhere(r);
    body_resume(r, c);
}

static void body_save_and_stop(OnRank *r, Comm *c)
{
    const Job *j = r->self;
    if (r->rank != j->victim) {
        body_save(r, c);
        return;
    }
    usleep(100000); /* the others are in the save */
    comm_fail(c, RT_FAILED, "out of luck");
    r->status = RT_FAILED;
}

static void run(void (*body)(OnRank *, Comm *), Job *job, RtStatus status, const char *text)
{
    OnRank on[RANKS_MAX];
    int n = job->parts->layout.ranks;
    ranks_run(on, n, 0, body, job);
    ranks_all(on, n, status, text);
}

/* Only step 1 is in ck, and it is sound. */
static void check_kept(const Parts *t)
{
    Job job = {.parts = t, .step = 1};
    CHECK(system("test \"$(ls -A ck)\" = step-00000001") == 0);
    run(body_resume, &job, RT_OK, NULL);
}

static void limit_files(rlim_t n_bytes)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = n_bytes;
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

/* Padding lies with the last rank, whose file then is under the limit. */
static void test_full_disk(const Parts *t)
{
    Job job = {.parts = t, .step = 2};
    limit_files(60000);
    run(body_save, &job, RT_FAILED, "rank 0: cannot write ck/.tmp-step-00000002-");
    limit_files(RLIM_INFINITY);
    check_kept(t);
    limit_files(1000); /* everybody's */
    OnRank on[RANKS_MAX];
    ranks_run(on, 3, 0, body_save, &job);
    CHECK(strncmp(str_c(&on[0].error.text), "cannot write ck/.tmp-", 21) == 0);
    ranks_all(on, 3, RT_FAILED, "rank-0.safetensors: File too large; free space there");
    limit_files(RLIM_INFINITY);
    check_kept(t);
}

static void test_elsewhere(const Parts *t)
{
    Job job = {.parts = t, .step = 2, .victim = 1};
    run(body_save_elsewhere, &job, RT_FAILED, "rank 1: cannot see ck/.tmp-step-00000002-");
    check_kept(t);
    run(body_export_elsewhere, &job, RT_FAILED, "rank 1: cannot see out.tmp-");
    CHECK(system("test -z \"$(ls -d out* 2>/dev/null)\"") == 0);
    job = (Job){.parts = t, .step = 1, .victim = 2, .says = "rank 2: cannot read ck/step-00000001"};
    run(body_resume_elsewhere, &job, RT_BAD, "no checkpoint in ck is valid");
    job.victim = 0; /* who looks for them */
    job.says = NULL;
    run(body_resume_elsewhere, &job, RT_BAD, "rank 0: cannot read checkpoints in ck: No such file");
}

/* A rank that ends at once: the others hear of it, what they wrote goes with the next save. */
static void test_stops(const Parts *t)
{
    OnRank on[RANKS_MAX];
    for (int victim = 0; victim < 3; victim++) {
        Job job = {.parts = t, .step = 2, .victim = victim};
        ranks_run(on, 3, 0, body_save_and_stop, &job);
        for (int r = 0; r < 3; r++) {
            CHECK(on[r].status == RT_FAILED);
            CHECK(r == victim || strstr(str_c(&on[r].error.text), "out of luck"));
        }
        ranks_free(on, 3);
        CHECK(access("ck/step-00000002", F_OK) != 0);
    }
    Job job = {.parts = t, .step = 1};
    run(body_save, &job, RT_OK, NULL);
    check_kept(t);
}

static void flip(const char *path, long at)
{
    FILE *f = fopen(path, "r+b");
    CHECK(f && fseek(f, at, at < 0 ? SEEK_END : SEEK_SET) == 0);
    int c = fgetc(f);
    CHECK(fseek(f, -1, SEEK_CUR) == 0 && fputc(c ^ 1, f) != EOF && fclose(f) == 0);
}

/* Whichever rank's file it is and whichever rank reads it: all go back to the same one. */
static void test_damage(const Parts *t, const Parts *other)
{
    char path[64], says[128];
    for (int r = 0; r < 3; r++) {
        Job job = {.parts = t, .step = 2};
        run(body_save, &job, RT_OK, NULL);
        snprintf(path, sizeof path, "ck/step-00000002/rank-%d.safetensors", r);
        snprintf(says, sizeof says, "%s is damaged: the checksum of tensor", path);
        flip(path, -9);
        job = (Job){.parts = t, .step = 1, .says = says};
        run(body_resume, &job, RT_OK, NULL);
        job.parts = other;
        run(body_resume, &job, RT_OK, NULL);
        CHECK(truncate(path, 5000) == 0);
        snprintf(says, sizeof says, "%s is truncated", path);
        run(body_resume, &job, RT_OK, NULL);
        CHECK(unlink(path) == 0);
        snprintf(says, sizeof says, "cannot read %s", path);
        run(body_resume, &job, RT_OK, NULL);
        CHECK(system("rm -r ck/step-00000002") == 0);
    }
}

/* The first `from` in the manifest becomes `to`; its checksum holds again. */
static void edit_manifest(const char *path, const char *from, const char *to)
{
    static char text[1 << 16];
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    CHECK(n > 0 && n < sizeof text - 1 && fclose(f) == 0);
    text[n] = '\0';
    char *at = strstr(text, from), *end = strstr(text, ",\n\"checksum\"");
    CHECK(at && end && at < end);
    Str out = {0};
    str_add_n(&out, text, (size_t)(at - text));
    str_add(&out, to);
    at += strlen(from);
    str_add_n(&out, at, (size_t)(end - at));
    uint64_t check = XXH3_64bits(out.at, out.n);
    str_addf(&out, ",\n\"checksum\":\"%016llx\"}\n", (unsigned long long)check);
    f = fopen(path, "wb");
    CHECK(f && fwrite(out.at, 1, out.n, f) == out.n && fclose(f) == 0);
    str_free(&out);
}

/* A piece that is missing, or twice there, would leave elements as they were. */
static void test_holes(const Parts *t)
{
    static const char path[] = "ck/step-00000002/manifest.json";
    static const char *const edits[][2] = {
        {"\"first\":0,\"elems\":7,", "\"first\":1,\"elems\":7,"},
        {"\"first\":0,\"elems\":7,", "\"first\":0,\"elems\":6,"},
        {"\"shape\":[7]", "\"shape\":[8]"},
        {"\"shape\":[7]", "\"shape\":[-7]"},
    };
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        Job job = {.parts = t, .step = 2};
        run(body_save, &job, RT_OK, NULL);
        edit_manifest(path, "\"step\":2", "\"step\":2"); /* nothing: still sound */
        run(body_resume, &job, RT_OK, NULL);
        edit_manifest(path, edits[i][0], edits[i][1]);
        job = (Job){.parts = t, .step = 1, .says = "h.0.b"};
        run(body_resume, &job, RT_OK, NULL);
    }
    CHECK(system("rm -r ck/step-00000002") == 0);
}

/* ---- memory ---- */

static int64_t proc_kib(const char *key)
{
    char line[128];
    long long kib = -1;
    FILE *in = fopen("/proc/self/status", "r");
    CHECK(in != NULL);
    while (kib < 0 && fgets(line, sizeof line, in))
        if (strncmp(line, key, strlen(key)) == 0) kib = atoll(line + strlen(key));
    CHECK(fclose(in) == 0 && kib >= 0);
    return kib;
}

static void reset_peak(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY);
    CHECK(fd >= 0 && write(fd, "5", 1) == 1 && close(fd) == 0);
}

static RtStatus memory_step(OnParts *o, int step, RtError *e)
{
    CheckpointInfo info = {.step = 1};
    Str skipped = {0};
    switch (step) {
    case 0: return weights_export(&o->x, &o->s, &o->arena, "w", e);
    case 1: return checkpoint_save("big", &o->x, &o->s, &info, e);
    case 2: return weights_load(&o->x, &o->s, &o->arena, "w", e);
    case 3: return checkpoint_resume("big", &o->s, "fp32", &info, &skipped, e);
    }
    return RT_BAD;
}

/* What all ranks together need beside their arenas while they write or read all of the state. */
static void body_memory(OnRank *r, Comm *c)
{
    enum { MIB_A_RANK = 10 };
    const Job *j = r->self;
    OnParts o;
    parts_enter(&o, j->parts, c);
    for (int step = 0; step < 4 && r->status == RT_OK; step++) {
        CHECK(comm_agree(c, RT_OK, "start", 0, &r->error) == RT_OK);
        if (r->rank == 0) reset_peak();
        int64_t before = proc_kib("VmRSS:");
        CHECK(comm_agree(c, RT_OK, "measured", 0, &r->error) == RT_OK);
        r->status = memory_step(&o, step, &r->error);
        int64_t grown = proc_kib("VmHWM:") - before;
        if (grown > r->size * MIB_A_RANK * 1024)
            fprintf(stderr, "step %d, %d ranks: %lld KiB more\n", step, r->size, (long long)grown);
        CHECK(grown <= r->size * MIB_A_RANK * 1024);
    }
    parts_leave(&o);
}

static void test_memory(void)
{
    static const Param big[] = {{"a", 2, ZMP_NORMAL, {3000, 4096}}, {"b", 1, ZMP_ONES, {11, 0}}};
    for (int ranks = 1; ranks <= 4; ranks += 3) {
        Parts t;
        Layout l = {.ranks = ranks, .stage = ranks > 1 ? 3 : 0, .unit = 64};
        parts_build(&t, &l, big, 2); /* 47 MiB, with moments 141 */
        Job job = {.parts = &t};
        run(body_memory, &job, RT_OK, NULL);
        parts_free(&t);
        CHECK(system("rm -r big w") == 0);
    }
}

static char dir[] = "/tmp/zmrt-state-XXXXXX";

int main(void)
{
    CHECK(mkdtemp(dir) && chdir(dir) == 0);
    signal(SIGXFSZ, SIG_IGN);
    Layout l = {.ranks = 3, .stage = 3, .unit = 2048}, m = {.ranks = 2, .stage = 1, .unit = 3};
    Parts t, other;
    parts_build(&t, &l, params, 4);
    parts_build(&other, &m, params, 4);
    Job job = {.parts = &t, .step = 1};
    run(body_save, &job, RT_OK, NULL);
    check_kept(&t);
    test_full_disk(&t);
    test_elsewhere(&t);
    test_stops(&t);
    test_damage(&t, &other);
    test_holes(&t);
    test_memory();
    parts_free(&t);
    parts_free(&other);
    CHECK(chdir("/") == 0);
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command) != 0;
}
