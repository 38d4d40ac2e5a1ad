/* rt_low.c -- 16-bit parameters with f32 masters: initial values, --load, --export, checkpoints of
 * one precision that another resumes, --dump-grads, --fault and --poison.
 *
 * The tiny program computes with the masters, so that it makes the same numbers in every precision,
 * and what it exports is the same file. */
#include "runtime/convert.h"
#include "runtime/safetensors.h"
#include "tests/unit/rt_tiny.h"

static Arena arena;

/* Every parameter of the checkpoint's file is the rounding of its master. */
static void check_rounded(const char *path, uint32_t dtype)
{
    SafeFile f;
    RtError e = {0};
    CHECK(safe_open(&f, &arena, path, &e) == RT_OK);
    static const char *const names[] = {"w", "b"};
    for (int i = 0; i < 2; i++) {
        const SafeTensor *low = safe_find(&f, arena_printf(&arena, "param/%s", names[i]));
        const SafeTensor *master = safe_find(&f, arena_printf(&arena, "master/%s", names[i]));
        CHECK(low && master && safe_zmp_dtype(low->dtype) == dtype && master->dtype == SAFE_F32);
        bool is_zero = true;
        for (int64_t k = 0; k < low->elems; k++) {
            float wide;
            uint16_t want, have;
            memcpy(&wide, master->at + 4 * k, sizeof wide);
            memcpy(&have, low->at + 2 * k, sizeof have);
            convert_from_f32(&want, dtype, &wide, 1);
            CHECK(want == have);
            is_zero &= wide == 0;
        }
        CHECK(!is_zero || i == 1);
    }
    safe_close(&f);
}

/* Masters are drawn by the parameters' names: those of f32. */
static void test_initial(const Tiny *low, const Tiny *wide, uint32_t dtype)
{
    CHECK(system("rm -rf ck") == 0);
    CHECK(tiny_run(wide, "--steps 0 --seed 7 --export wide.safetensors") == 0);
    CHECK(tiny_run(low, "--steps 0 --seed 7 --export low.safetensors") == 0);
    CHECK(tiny_same("wide.safetensors", "low.safetensors"));
    CHECK(tiny_run(low, "--data text --steps 1 --save ck") == 0);
    check_rounded("ck/step-00000001/rank-0.safetensors", dtype);
    CHECK(
        tiny_run(low, "--data text --steps 0 --load wide.safetensors --export again.safetensors") ==
        0);
    CHECK(tiny_same("wide.safetensors", "again.safetensors"));
    CHECK(tiny_run(low, "--info") == 0 && tiny_has("out", dtype == ZMP_BF16 ? "bf16" : "fp16"));
}

static void test_resume(const Tiny *low, uint32_t dtype)
{
    CHECK(system("rm -rf ck") == 0);
    CHECK(tiny_run(low, "--data text --steps 20 --export straight.safetensors") == 0);
    CHECK(tiny_run(low, "--data text --steps 10 --save ck") == 0);
    CHECK(tiny_run(low,
                   "--data text --steps 20 --resume ck --export resumed.safetensors --save ck") ==
          0);
    CHECK(tiny_same("straight.safetensors", "resumed.safetensors"));
    check_rounded("ck/step-00000020/rank-0.safetensors", dtype);
}

/* From one precision to another: masters go where the numbers are, parameters are their rounding.
 */
static void test_convert(const Tiny *from, const Tiny *to, uint32_t dtype, const char *said)
{
    CHECK(system("rm -rf ck") == 0);
    CHECK(tiny_run(from, "--data text --steps 20 --export straight.safetensors") == 0);
    CHECK(tiny_run(from, "--data text --steps 10 --save ck") == 0);
    CHECK(
        tiny_run(to, "--data text --steps 20 --resume ck --export resumed.safetensors --save ck") ==
        0);
    CHECK(tiny_has("err", said) && tiny_has("err", "resumed at step 10"));
    CHECK(tiny_same("straight.safetensors", "resumed.safetensors"));
    if (dtype) check_rounded("ck/step-00000020/rank-0.safetensors", dtype);
}

static void test_gradients(const Tiny *low, const Tiny *wide)
{
    CHECK(tiny_run(wide, "--data text --steps 1 --dump-grads a") == 0);
    CHECK(tiny_run(low, "--data text --steps 1 --dump-grads b --poison") == 0);
    CHECK(tiny_same("a", "b"));
    CHECK(tiny_run(low, "--data text --steps 2 --fault nonfinite@1 --metrics m") == 0);
    CHECK(tiny_has("m", "\"skipped\":true"));
}

/* Shapes that differ are refused in every precision. */
static void test_refused(const Tiny *low, const Tiny *wide)
{
    static Tiny other;
    other = *low;
    for (uint32_t i = 0; i < other.n_vars; i++)
        if (strcmp(other.strings + other.vars[i].name, "b") == 0)
            other.vars[i].name = tiny_str(&other, "c");
    tiny_pack(&other);
    CHECK(system("rm -rf ck") == 0 && tiny_run(wide, "--data text --steps 1 --save ck") == 0);
    CHECK(tiny_run(&other, "--data text --steps 2 --resume ck") == 1);
    CHECK(tiny_has("err", "is of another model") && tiny_has("err", "master/c: missing") &&
          tiny_has("err", "param/b: not in this program"));
    CHECK(system("rm -rf ck") == 0 && tiny_run(low, "--data text --steps 1 --save ck") == 0);
    CHECK(tiny_run(&other, "--data text --steps 2 --resume ck") == 1);
    CHECK(tiny_has("err", "master/b: not in this program"));
}

static Tiny *build(uint32_t low)
{
    Tiny *t = ARENA_NEW(&arena, Tiny);
    tiny_low = low;
    tiny_build(t);
    return t;
}

int main(void)
{
    Tiny *wide = build(0), *bf16 = build(ZMP_BF16), *f16 = build(ZMP_F16);
    tiny_enter_dir();
    tiny_text("text", 4000);
    test_initial(bf16, wide, ZMP_BF16);
    test_initial(f16, wide, ZMP_F16);
    test_resume(bf16, ZMP_BF16);
    test_resume(f16, ZMP_F16);
    test_convert(wide, bf16, ZMP_BF16, "the checkpoint's precision is fp32: converted to bf16");
    test_convert(bf16, wide, 0, "the checkpoint's precision is bf16: converted to fp32");
    test_convert(f16, bf16, ZMP_BF16, "the checkpoint's precision is fp16: converted to bf16");
    test_gradients(bf16, wide);
    test_gradients(f16, wide);
    test_refused(bf16, wide);
    arena_free(&arena);
    tiny_remove_dir();
    return 0;
}
