/* rt_safetensors.c -- files written are read back; every kind of damage is refused with what and
 * where. */
#include "runtime/safetensors.h"
#include "tests/unit/rt_tiny.h"

static Arena arena;

static void test_round_trip(void)
{
    SafeEntry entries[] = {{.name = "a\"b", .dtype = ZMP_F32, .rank = 2, .dim = {2, 3}},
                           {.name = "empty", .dtype = ZMP_F64, .rank = 1, .dim = {0}},
                           {.name = "s", .dtype = ZMP_I32, .rank = 0}};
    float a[6] = {1, 2, 3, 4, 5, 6};
    int32_t s = -7;
    SafeWriter w;
    RtError e = {0};
    CHECK(safe_create(&w, &arena, "x.safetensors", entries, 3, "{\"k\":\"v\"}", &e) == RT_OK);
    CHECK(entries[0].offset % 8 == 0);
    CHECK(safe_put(&w, entries[2].offset, &s, sizeof s, &e) == RT_OK);
    CHECK(safe_put(&w, entries[0].offset, a, sizeof a, &e) == RT_OK);
    CHECK(safe_finish(&w, &e) == RT_OK);
    SafeFile f;
    CHECK(safe_open(&f, &arena, "x.safetensors", &e) == RT_OK);
    CHECK(f.all.n == 3);
    const SafeTensor *t = safe_find(&f, "a\"b");
    CHECK(t && t->dtype == SAFE_F32 && t->rank == 2 && t->dim[1] == 3 &&
          memcmp(t->at, a, sizeof a) == 0);
    t = safe_find(&f, "s");
    CHECK(t && t->rank == 0 && t->elems == 1 && safe_integer(t, 0) == -7);
    CHECK(safe_find(&f, "empty")->n_bytes == 0 && !safe_find(&f, "__metadata__"));
    safe_close(&f);
}

/* A file with this header and n_data bytes. */
static void make(const char *header, size_t n_data)
{
    Str s = {0};
    uint64_t n = strlen(header);
    str_add_n(&s, (const char *)&n, 8);
    str_add(&s, header);
    for (size_t i = 0; i < n_data; i++) str_add_n(&s, "", 1);
    tiny_write("bad.safetensors", s.at, s.n);
    str_free(&s);
}

static void refused(const char *why)
{
    SafeFile f;
    RtError e = {0};
    CHECK(safe_open(&f, &arena, "bad.safetensors", &e) == RT_BAD);
    if (!strstr(str_c(&e.text), why) || !strstr(str_c(&e.text), "bad.safetensors")) {
        fprintf(stderr, "said: %s\nwanted: %s\n", str_c(&e.text), why);
        exit(1);
    }
    str_free(&e.text);
}

static void test_damage(void)
{
    static const struct {
        const char *header;
        size_t n_data;
        const char *why;
    } cases[] = {
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, "truncated"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 8,
         "4 bytes of data, its shape and dtype F32 make 8"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,0]}}", 8, "bad data_offsets"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-4,4]}}", 8,
         "bad data_offsets"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8,
         "no \"data_offsets\""},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "no \"data_offsets\""},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "bad dimension 0"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,8]}}", 8,
         "too many elements"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8,
         "9 dimensions"},
        {"{\"w\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "no \"dtype\""},
        {"{\"w\":3}", 8, "no \"dtype\""},
        {"[1]", 0, "not a JSON object"},
        {"{\"w\":{\"dtype\":", 0, "not valid JSON"},
        {"{\"w\":1,\"w\":2}", 0, "not valid JSON"},
        {"", 0, "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make(cases[i].header, cases[i].n_data);
        refused(cases[i].why);
    }
    tiny_write("bad.safetensors", "abc", 3);
    refused("too short");
    tiny_write("bad.safetensors", "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
    refused("truncated, or not a safetensors file");
    tiny_write("bad.safetensors", "", 0);
    refused("too short");
    unlink("bad.safetensors");
    refused("No such file");
}

/* Cut at every length: never accepted, never read outside. */
static void test_every_truncation(void)
{
    size_t n;
    char *whole = tiny_read("x.safetensors", &n);
    for (size_t k = 0; k < n; k++) {
        tiny_write("cut.safetensors", whole, k);
        SafeFile f;
        RtError e = {0};
        CHECK(safe_open(&f, &arena, "cut.safetensors", &e) == RT_BAD && e.text.n);
        str_free(&e.text);
    }
    free(whole);
}

static void write_one(const char *path, const char *name, float value)
{
    SafeEntry entry = {.name = name, .dtype = ZMP_F32, .rank = 1, .dim = {1}};
    SafeWriter w;
    RtError e = {0};
    CHECK(safe_create(&w, &arena, path, &entry, 1, NULL, &e) == RT_OK);
    CHECK(safe_put(&w, entry.offset, &value, sizeof value, &e) == RT_OK &&
          safe_finish(&w, &e) == RT_OK);
}

static void open_index(const char *index, const char *why)
{
    tiny_write("d/model.safetensors.index.json", index, strlen(index));
    SafeFile f;
    RtError e = {0};
    RtStatus s = safe_open(&f, &arena, "d", &e);
    if (!why) {
        CHECK(s == RT_OK && f.all.n == 2 && safe_find(&f, "a") && safe_find(&f, "b"));
        safe_close(&f);
        CHECK(safe_open(&f, &arena, "d/model.safetensors.index.json", &e) == RT_OK && f.all.n == 2);
        safe_close(&f);
        return;
    }
    CHECK(s == RT_BAD && strstr(str_c(&e.text), why));
    str_free(&e.text);
}

static void test_shards(void)
{
    CHECK(system("mkdir -p d") == 0);
    write_one("d/1.safetensors", "a", 1);
    write_one("d/2.safetensors", "b", 2);
    open_index("{\"metadata\":{},\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}",
               NULL);
    open_index("{\"weight_map\":{\"a\":\"1.safetensors\",\"c\":\"2.safetensors\"}}",
               "tensor c is not in its file");
    open_index("{\"weight_map\":{\"a\":\"3.safetensors\"}}", "3.safetensors: No such file");
    open_index("{\"weight_map\":{\"a\":\"../x.safetensors\"}}", "bad file name");
    open_index("{}", "no \"weight_map\"");
    write_one("d/2.safetensors", "a", 2);
    open_index("{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}",
               "tensor b is not in its file");
}

int main(void)
{
    tiny_enter_dir();
    test_round_trip();
    test_damage();
    test_every_truncation();
    test_shards();
    arena_free(&arena);
    tiny_remove_dir();
    return 0;
}
