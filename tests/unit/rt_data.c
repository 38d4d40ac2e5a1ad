/* rt_data.c -- token files of every kind, tensors, directories; what is refused and with which
 * words. */
#include <sys/stat.h>

#include "tests/unit/rt_tiny.h"

/* The same text as bytes, u16, u32, llm.c and Megatron: the same run. */
static void write_wide(const char *path, const char *text, size_t n, size_t width, const char *head,
                       size_t n_head)
{
    Str s = {0};
    if (n_head) str_add_n(&s, head, n_head);
    for (size_t i = 0; i < n; i++) {
        uint32_t v = (unsigned char)text[i];
        str_add_n(&s, (const char *)&v, width);
    }
    tiny_write(path, s.at, s.n);
    str_free(&s);
}

static void write_llmc(const char *path, const char *text, size_t n, int32_t says)
{
    int32_t head[256] = {20240520, 1, says};
    write_wide(path, text, n, 2, (const char *)head, sizeof head);
}

/* Two sequences in one .bin. */
static void write_megatron(const char *bin, const char *idx, const char *text, size_t n,
                           unsigned char code, size_t width)
{
    write_wide(bin, text, n, width, NULL, 0);
    uint64_t one = 1, two = 2;
    int32_t lengths[2] = {100, (int32_t)n - 100};
    int64_t offsets[2] = {0, 100 * (int64_t)width}, documents[3] = {0, 1, 2};
    Str s = {0};
    str_add_n(&s, "MMIDIDX\0\0", 9);
    str_add_n(&s, (const char *)&one, 8);
    str_add_n(&s, (const char *)&code, 1);
    str_add_n(&s, (const char *)&two, 8);
    str_add_n(&s, (const char *)&two, 8);
    str_add_n(&s, (const char *)lengths, sizeof lengths);
    str_add_n(&s, (const char *)offsets, sizeof offsets);
    str_add_n(&s, (const char *)documents, sizeof documents);
    tiny_write(idx, s.at, s.n);
    str_free(&s);
}

static void same_run(const Tiny *t, const char *options)
{
    CHECK(tiny_run(t, "--steps 9 --export y.safetensors %s", options) == 0);
    CHECK(tiny_same("x.safetensors", "y.safetensors"));
}

static void test_kinds(const Tiny *t)
{
    size_t n;
    char *text = tiny_read("text", &n);
    CHECK(tiny_run(t, "--data text --steps 9 --export x.safetensors") == 0);
    write_wide("t16", text, n, 2, NULL, 0);
    same_run(t, "--data t16 --dtype u16");
    write_wide("t32", text, n, 4, NULL, 0);
    same_run(t, "--data t32 --dtype u32");
    write_llmc("llmc.bin", text, n, (int32_t)n);
    same_run(t, "--data llmc.bin");
    write_megatron("meg.bin", "meg.idx", text, n, 8, 2);
    same_run(t, "--data meg.bin");
    same_run(t, "--data meg.idx");
    write_megatron("meg.bin", "meg.idx", text, n, 4, 4); /* int32 */
    same_run(t, "--data meg.idx");
    CHECK(tiny_run(t, "--data llmc.bin --dtype u8 --steps 1") == 1 &&
          tiny_has("err", "leave --dtype out"));
    write_llmc("llmc.bin", text, n, (int32_t)n + 1);
    CHECK(tiny_run(t, "--data llmc.bin --steps 1") == 1 && tiny_has("err", "truncated"));
    CHECK(truncate("meg.bin", 100) == 0);
    CHECK(tiny_run(t, "--data meg.idx --steps 1") == 1 &&
          tiny_has("err", "meg.bin: meg.idx says 4000 tokens, the file holds 25"));
    CHECK(truncate("meg.idx", 40) == 0);
    CHECK(tiny_run(t, "--data meg.idx --steps 1") == 1 && tiny_has("err", "truncated"));
    free(text);
}

/* A directory is its files in order of name; a cut at a sample's border changes nothing but the
 * token shared there. */
static void test_directory(const Tiny *t)
{
    size_t n;
    char *text = tiny_read("text", &n);
    CHECK(system("mkdir -p dir") == 0);
    tiny_write("dir/a", text, 801);
    tiny_write("dir/b", text + 800, n - 800);
    tiny_write("dir/.hidden", "x", 1);
    tiny_write("dir/aa", "tiny", 4); /* shorter than a sample: holds none */
    same_run(t, "--data dir");
    CHECK(system("mkdir -p none") == 0);
    CHECK(tiny_run(t, "--data none --steps 1") == 1 && tiny_has("err", "holds no data files"));
    free(text);
}

/* The same samples as tensors. */
static void test_tensors(const Tiny *t)
{
    size_t n;
    char *text = tiny_read("text", &n);
    int samples = (int)(n - 1) / TT;
    char header[512];
    int bytes = samples * TT;
    int m = snprintf(header, sizeof header,
                     "{\"tokens\":{\"dtype\":\"U8\",\"shape\":[%d,%d],\"data_offsets\":[0,%d]},"
                     "\"targets\":{\"dtype\":\"I64\",\"shape\":[%d,%d],\"data_offsets\":[%d,%d]}}",
                     samples, TT, bytes, samples, TT, bytes, 9 * bytes);
    Str s = {0};
    uint64_t length = (uint64_t)m;
    str_add_n(&s, (const char *)&length, 8);
    str_add(&s, header);
    str_add_n(&s, text, (size_t)bytes);
    for (int i = 0; i < bytes; i++) {
        int64_t v = (unsigned char)text[i + 1];
        str_add_n(&s, (const char *)&v, 8);
    }
    tiny_write("data.safetensors", s.at, s.n);
    same_run(t, "--data data.safetensors");
    s.at[s.n - 7] = 1; /* the last target becomes 256 + ... */
    tiny_write("data.safetensors", s.at, s.n);
    CHECK(tiny_run(t, "--data data.safetensors --steps 124 --order sequential") == 0);
    CHECK(tiny_run(t, "--data data.safetensors --steps 125 --order sequential --metrics m") == 1);
    CHECK(tiny_has("err", "tensor targets, sample 498, element 7") && tiny_has("err", "0 to 255"));
    str_free(&s);
    free(text);
    CHECK(tiny_run(t, "--data x.safetensors --steps 1") == 1 &&
          tiny_has("err", "no tensor tokens"));
}

static void test_refusals(const Tiny *t)
{
    tiny_write("short", "12345678", 8);
    CHECK(tiny_run(t, "--data short --steps 1") == 1);
    CHECK(tiny_has("err", "shorter than one sample: 8 tokens, a sample takes T + 1 = 9") &&
          tiny_has("err", "-D T=7"));
    tiny_write("one", "123456789", 9);
    CHECK(tiny_run(t, "--data one --steps 3") == 0);
    tiny_write("empty", "", 0);
    CHECK(tiny_run(t, "--data empty --steps 1") == 1 &&
          tiny_has("err", "shorter than one sample") && !tiny_has("err", "-D T="));
    CHECK(mkfifo("pipe", 0600) == 0 && tiny_run(t, "--data pipe --steps 1") == 1 &&
          tiny_has("err", "cannot read data pipe: it is not a file that can be mapped"));
    CHECK(tiny_run(t, "--data absent --steps 1") == 1 && tiny_has("err", "absent: No such file"));
    CHECK(tiny_run(t, "--data one --dtype u16 --steps 1") == 1 &&
          tiny_has("err", "not a whole number of u16 tokens"));
    uint16_t wide[4000] = {0};
    wide[3990] = 256; /* read at step 124 in order: exit 1 also then */
    tiny_write("wide", wide, sizeof wide);
    CHECK(tiny_run(t, "--data wide --dtype u16 --steps 124 --order sequential") == 0);
    CHECK(tiny_run(t, "--data wide --dtype u16 --steps 125 --order sequential") == 1);
    CHECK(tiny_has("err", "wide: token 256 at position 3990 (byte 7980) is out of range: the "
                          "model's vocabulary is 256"));
}

/* k = ((s A + m) R + r) B + b: step 0 of two micro-batches of B = 2 reads samples 0 .. 3. */
static void test_rows(const Tiny *t)
{
    char text[TT * 8 + 1];
    for (int k = 0; k < 8; k++) memset(text + k * TT, 'a' + k, TT);
    text[TT * 8] = 'a';
    tiny_write("rows", text, sizeof text);
    CHECK(tiny_run(t, "--data rows --steps 1 --order sequential --dump-grads g.safetensors") == 0);
    size_t n;
    char *g = tiny_read("g.safetensors", &n);
    const char *w = g + n - 4 * TN;
    for (int c = 'a'; c < 'a' + 8; c++) {
        float sum = 0, f;
        for (int v = 0; v < TV; v++) {
            memcpy(&f, w + 4 * (c * TV + v), 4);
            sum += fabsf(f);
        }
        CHECK((sum > 0) == (c < 'a' + 4));
    }
    free(g);
}

/* A mapped file that is cut under a running process. */
static void test_cut_while_running(const Tiny *t)
{
    CHECK(system("cp text cut") == 0);
    pid_t pid = tiny_start(t, NULL, "--data cut --steps 100000000 --metrics cm");
    for (int turn = 0; turn < 1000 && access("cm", F_OK) != 0; turn++) usleep(2000);
    usleep(20000);
    CHECK(truncate("cut", 0) == 0);
    CHECK(tiny_wait(pid) == 2 && tiny_has("err", "became shorter"));
}

int main(void)
{
    static Tiny t;
    tiny_build(&t);
    tiny_enter_dir();
    tiny_text("text", 4000);
    test_kinds(&t);
    test_directory(&t);
    test_tensors(&t);
    test_refusals(&t);
    test_rows(&t);
    test_cut_while_running(&t);
    tiny_remove_dir();
    return 0;
}
