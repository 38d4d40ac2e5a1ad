/* rt_weights.c -- --load and --export: published names, dtypes, and reports of everything that does
 * not fit. */
#include "runtime/convert.h"
#include "runtime/safetensors.h"
#include "runtime/weights.h"
#include "tests/unit/rt_tiny.h"

static Arena arena;

typedef struct Spec {
    const char *name;
    uint32_t dtype, rank;
    int64_t rows, columns;
} Spec;

/* Values that every 16-bit format holds exactly: element i is (i mod 64) / 64. */
static void write_file(const char *path, const Spec *specs, uint32_t n)
{
    SafeEntry entries[8];
    for (uint32_t i = 0; i < n; i++)
        entries[i] = (SafeEntry){.name = specs[i].name,
                                 .dtype = specs[i].dtype,
                                 .rank = specs[i].rank,
                                 .dim = {specs[i].rows, specs[i].columns}};
    SafeWriter w;
    RtError e = {0};
    CHECK(safe_create(&w, &arena, path, entries, n, NULL, &e) == RT_OK);
    for (uint32_t i = 0; i < n; i++) {
        int64_t elems = specs[i].rows * (specs[i].rank == 2 ? specs[i].columns : 1),
                each = entries[i].n_bytes / elems;
        for (int64_t k = 0; k < elems && specs[i].dtype != ZMP_I32; k++) {
            float v = (float)(k % 64) / 64;
            char raw[8];
            convert_from_f32(raw, specs[i].dtype, &v, 1);
            CHECK(safe_put(&w, entries[i].offset + k * each, raw, (size_t)each, &e) == RT_OK);
        }
    }
    CHECK(safe_finish(&w, &e) == RT_OK);
}

static const uint32_t floats[] = {ZMP_F32, ZMP_F16, ZMP_BF16, ZMP_F64};

static void test_names_and_dtypes(const Tiny *t)
{
    for (size_t d = 0; d < 4; d++) {
        Spec published[] = {{"transformer.w", floats[d], 2, TV, TV},
                            {"lm.bias", floats[d], 1, TV, 0},
                            {"h.0.mask", ZMP_I32, 1, 3, 0},
                            {"head", floats[d], 2, TV, TV}};
        write_file("in.safetensors", published, 4);
        CHECK(tiny_run(t, "--steps 0 --load in.safetensors --export out.safetensors") == 0);
        if (d)
            CHECK(tiny_same("out.safetensors", "first.safetensors"));
        else
            CHECK(rename("out.safetensors", "first.safetensors") == 0);
    }
    SafeFile f;
    RtError e = {0};
    CHECK(safe_open(&f, &arena, "first.safetensors", &e) == RT_OK && f.all.n == 2);
    const SafeTensor *w = safe_find(&f, "w"), *b = safe_find(&f, "lm.bias");
    CHECK(w && b && w->dtype == SAFE_F32 && w->dim[0] == TV && b->elems == TV);
    for (int64_t k = 0; k < w->elems; k++)
        CHECK(((const float *)(const void *)w->at)[k] == (float)(k % 64) / 64);
    safe_close(&f);
    Spec aliased[] = {{"b", ZMP_F32, 1, TV, 0},
                      {"head", ZMP_F32, 2, TV, TV}}; /* w only by its alias */
    write_file("in.safetensors", aliased, 2);
    CHECK(tiny_run(t, "--steps 0 --load in.safetensors --export out.safetensors") == 0);
    CHECK(tiny_same("out.safetensors", "first.safetensors"));
    CHECK(tiny_run(t, "--steps 0 --load first.safetensors --export out.safetensors") ==
          0); /* what it wrote itself */
    CHECK(tiny_same("out.safetensors", "first.safetensors"));
    CHECK(system("mkdir -p hub && cp first.safetensors hub/model.safetensors") == 0);
    CHECK(tiny_run(t, "--steps 0 --load hub --export out.safetensors") == 0);
    CHECK(tiny_same("out.safetensors", "first.safetensors"));
}

static void test_refused(const Tiny *t)
{
    Spec wrong[] = {
        {"w", ZMP_F32, 2, TV, TV + 1}, {"extra", ZMP_F32, 1, 2, 0}, {"more", ZMP_F32, 1, 2, 0}};
    write_file("in.safetensors", wrong, 3);
    CHECK(tiny_run(t, "--steps 0 --load in.safetensors --export out2.safetensors") == 1);
    CHECK(tiny_has("err", "missing from the file (1):\n    b [256]"));
    CHECK(tiny_has("err", "unexpected in the file (2):\n    extra\n    more"));
    CHECK(tiny_has("err", "w: [256, 257] in the file, [256, 256] in the program"));
    CHECK(access("out2.safetensors", F_OK) != 0);
    Spec integer[] = {{"w", ZMP_F32, 2, TV, TV}, {"b", ZMP_I32, 1, TV, 0}};
    write_file("in.safetensors", integer, 2);
    CHECK(tiny_run(t, "--steps 0 --load in.safetensors") == 1 &&
          tiny_has("err", "b: dtype I32 in the file"));
    Spec twice[] = {
        {"w", ZMP_F32, 2, TV, TV}, {"b", ZMP_F32, 1, TV, 0}, {"transformer.w", ZMP_F32, 2, TV, TV}};
    write_file("in.safetensors", twice, 3);
    CHECK(tiny_run(t, "--steps 0 --load in.safetensors") == 1 &&
          tiny_has("err", "parameter w is given by w already"));
    CHECK(truncate("first.safetensors", 1000) == 0);
    CHECK(tiny_run(t, "--steps 0 --load first.safetensors") == 1 && tiny_has("err", "truncated"));
    CHECK(tiny_run(t, "--steps 0 --load absent.safetensors") == 1 &&
          tiny_has("err", "cannot read absent.safetensors"));
}

static void test_glob(void)
{
    CHECK(glob_match("h.*.attn.bias", "h.11.attn.bias") &&
          !glob_match("h.*.attn.bias", "h.11.attn.bias2"));
    CHECK(glob_match("*", "") && glob_match("a*b*c", "a-b-b-c") && !glob_match("a*b*c", "a-c-b"));
    CHECK(glob_match("?x", "ax") && !glob_match("?x", "x") && !glob_match("", "a"));
}

int main(void)
{
    static Tiny t, low;
    tiny_build(&t);
    tiny_enter_dir();
    test_glob();
    for (int i = 0; i < 2; i++) { /* 16-bit parameters: what is exported is the masters */
        tiny_low = i ? ZMP_BF16 : ZMP_F16;
        tiny_build(&low);
        test_names_and_dtypes(&low);
    }
    test_names_and_dtypes(&t);
    test_refused(&t);
    arena_free(&arena);
    tiny_remove_dir();
    return 0;
}
