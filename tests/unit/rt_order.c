/* rt_order.c -- order of samples, initial values, conversions: what must be the same on every
 * machine. */
#include <math.h>

#include "ir/base/philox.h"
#include "runtime/convert.h"
#include "runtime/data.h"
#include "runtime/init.h"
#include "tests/unit/rt_tiny.h"

static void test_bijection(void)
{
    static const int64_t sizes[] = {1, 2, 3, 4, 5, 16, 17, 255, 1000, 4097};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        int64_t n = sizes[s];
        for (int64_t epoch = 0; epoch < 3; epoch++) {
            char *seen = calloc((size_t)n, 1);
            for (int64_t i = 0; i < n; i++) {
                int64_t at = order_sample(ORDER_RANDOM, 42, n, epoch * n + i);
                CHECK(at >= 0 && at < n && !seen[at]);
                seen[at] = 1;
                CHECK(order_sample(ORDER_SEQUENTIAL, 42, n, epoch * n + i) == i);
            }
            free(seen);
        }
    }
    int64_t huge = (int64_t)1 << 50;
    for (int64_t i = 0; i < 1000; i++) {
        int64_t at = order_sample(ORDER_RANDOM, 1, huge - 7, i * 1234567);
        CHECK(at >= 0 && at < huge - 7);
    }
}

/* Epochs and seeds give different orders; neighbours do not stay neighbours.  Of n = 1000 positions
 * a random permutation keeps 1 on average; more than 12 in one place has probability below 1e-9
 * (Poisson). */
static void test_random(void)
{
    int64_t n = 1000, same_epoch = 0, same_seed = 0, fixed = 0, follows = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = order_sample(ORDER_RANDOM, 0, n, i);
        same_epoch += at == order_sample(ORDER_RANDOM, 0, n, n + i);
        same_seed += at == order_sample(ORDER_RANDOM, (uint64_t)1 << 40, n, i);
        fixed += at == i;
        follows += i + 1 < n && order_sample(ORDER_RANDOM, 0, n, i + 1) == at + 1;
    }
    CHECK(same_epoch <= 12 && same_seed <= 12 && fixed <= 12 && follows <= 12);
}

/* Box and Muller's formula by libm, rounded once: the same floats, but for an error of some 1e-15
 * before the rounding. */
static void test_normal(void)
{
    enum { N = 20000 };
    static float all[N];
    init_elements(all, "w", ZMP_NORMAL, 1, 5, 0, N);
    uint64_t hash = hash_bytes("w", 1, 0);
    for (uint32_t i = 0; i < N / 2; i++) {
        Philox r = philox(i, 0, (uint32_t)hash, (uint32_t)(hash >> 32), 5, 0);
        double u1 = ((double)((uint64_t)r.x[0] << 20 | r.x[1] >> 12) + 0.5) * 0x1p-52;
        double u2 = ((double)((uint64_t)r.x[2] << 20 | r.x[3] >> 12) + 0.5) * 0x1p-52;
        double radius = sqrt(-2 * log(u1)), angle = 6.283185307179586476925 * u2;
        double want[] = {radius * cos(angle), radius * sin(angle)};
        for (int k = 0; k < 2; k++)
            CHECK(fabs((double)all[2 * i + (uint32_t)k] - want[k]) <=
                  0x1p-24 * fabs(want[k]) + 1e-14);
    }
}

/* Mean and variance within 5 standard errors; chunks and single elements agree with the whole. */
static void test_init(void)
{
    enum { N = 100001 };
    static float all[N], part[N];
    init_elements(all, "h.0.w", ZMP_NORMAL, 0.02, 7, 0, N);
    double sum = 0, square = 0;
    for (int i = 0; i < N; i++) {
        sum += (double)all[i];
        square += (double)all[i] * all[i];
    }
    CHECK(fabs(sum / N) < 5 * 0.02 / sqrt(N));
    CHECK(fabs(square / N / (0.02 * 0.02) - 1) < 5 * sqrt(2.0 / N));
    init_elements(part, "h.0.w", ZMP_NORMAL, 0.02, 7, 501, N - 501);
    CHECK(memcmp(part, all + 501, (N - 501) * sizeof *all) == 0);
    init_elements(part, "h.1.w", ZMP_NORMAL, 0.02, 7, 0, N);
    CHECK(part[0] != all[0] && part[1] != all[1]);
    init_elements(part, "h.0.w", ZMP_NORMAL, 0.02, 8, 0, N);
    CHECK(part[0] != all[0] && part[1] != all[1]);
    init_elements(part, "u", ZMP_UNIFORM, 3, 7, 0, N);
    double low = 0, high = 0;
    for (int i = 0; i < N; i++) {
        low = fmin(low, (double)part[i]);
        high = fmax(high, (double)part[i]);
    }
    CHECK(low >= -3 && high <= 3 && low < -2.99 && high > 2.99);
    init_elements(part, "c", ZMP_CONST, 0.25, 7, 0, 3);
    CHECK(part[0] == 0.25f && part[2] == 0.25f);
}

/* Every f16 and bf16 value goes to f32 and back unchanged (a NaN stays one); halfway cases go to
 * even. */
static void test_convert(void)
{
    static const uint32_t dtypes[] = {ZMP_F16, ZMP_BF16};
    for (int d = 0; d < 2; d++)
        for (uint32_t u = 0; u < 65536; u++) {
            uint16_t in = (uint16_t)u, back;
            float f;
            convert_to_f32(&f, &in, dtypes[d], 1);
            convert_from_f32(&back, dtypes[d], &f, 1);
            float again;
            convert_to_f32(&again, &back, dtypes[d], 1);
            CHECK(isnan(f) ? isnan(again) : back == in);
        }
    static const struct {
        float in;
        uint32_t dtype;
        uint16_t out;
    } cases[] = {{1 + 0x1p-11f, ZMP_F16, 0x3c00},
                 {1 + 3 * 0x1p-11f, ZMP_F16, 0x3c02},
                 {65519.0f, ZMP_F16, 0x7bff},
                 {65520.0f, ZMP_F16, 0x7c00},
                 {0x1p-25f, ZMP_F16, 0},
                 {0x1.8p-25f, ZMP_F16, 1},
                 {-0x1p-14f * (1 - 0x1p-12f), ZMP_F16, 0x8400},
                 {1 + 0x1p-8f, ZMP_BF16, 0x3f80},
                 {1 + 3 * 0x1p-8f, ZMP_BF16, 0x3f82},
                 {0x1.ffp127f, ZMP_BF16, 0x7f80}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint16_t out;
        convert_from_f32(&out, cases[i].dtype, &cases[i].in, 1);
        CHECK(out == cases[i].out);
    }
    double d = 0.1;
    float f;
    convert_to_f32(&f, &d, ZMP_F64, 1);
    CHECK(f == 0.1f);
}

int main(void)
{
    test_bijection();
    test_random();
    test_normal();
    test_init();
    test_convert();
    return 0;
}
