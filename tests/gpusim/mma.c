/* mma.c -- tensor core instructions, by the fragment layouts of the PTX ISA.
 *
 * Products are exact in f64 and summed in f64, k ascending, then added to C and rounded once.  A
 * GPU sums in an order and with a truncation of its own: its result differs by some ulp of the
 * largest term. */
#include "tests/gpusim/report.h"

#include <string.h>

static float f32_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static double half_of(uint16_t h, NumberKind kind)
{
    _Float16 v;
    if (kind == NUM_BF16) return (double)f32_of((uint32_t)h << 16);
    memcpy(&v, &h, sizeof v);
    return (double)v;
}

/* 16 bits: register r of A holds rows g + 8 (r & 1), columns 2t + 8 (r >> 1) and the next. */
static void load_halves(const Warp *w, const Insn *in, int k, double *a, double *b)
{
    int n_a = k / 4, n_b = k / 8;
    for (int l = 0; l < LANES; l++) {
        int g = l / 4, t = l % 4;
        for (int r = 0; r < n_a; r++)
            for (int h = 0; h < 2; h++)
                a[(g + 8 * (r & 1)) * k + 2 * t + h + 8 * (r >> 1)] = half_of(
                    SLOT(w, const uint16_t, in->vec[4 + r])[2 * l + h], (NumberKind)in->variant);
        for (int r = 0; r < n_b; r++)
            for (int h = 0; h < 2; h++)
                b[(2 * t + h + 8 * r) * 8 + g] =
                    half_of(SLOT(w, const uint16_t, in->vec[4 + n_a + r])[2 * l + h],
                            (NumberKind)in->variant);
    }
}

/* tf32: register r of A holds row g + 8 (r & 1), column t + 4 (r >> 1); the low 13 bits are
 * ignored. */
static void load_tf32(const Warp *w, const Insn *in, int k, double *a, double *b)
{
    int n_a = k / 2, n_b = k / 4;
    for (int l = 0; l < LANES; l++) {
        int g = l / 4, t = l % 4;
        for (int r = 0; r < n_a; r++)
            a[(g + 8 * (r & 1)) * k + t + 4 * (r >> 1)] =
                (double)f32_of(SLOT(w, const uint32_t, in->vec[4 + r])[l] & 0xffffe000u);
        for (int r = 0; r < n_b; r++)
            b[(t + 4 * r) * 8 + g] =
                (double)f32_of(SLOT(w, const uint32_t, in->vec[4 + n_a + r])[l] & 0xffffe000u);
    }
}

static bool is_whole(Warp *w, const Insn *in)
{
    if (w->mask == UINT32_MAX) return true;
    report_lane(w, in, __builtin_ctz(w->mask), REPORT_LANE, "only lanes 0x%08x of 32 take part",
                w->mask);
    return false;
}

void exec_mma(Warp *w, const Insn *in)
{
    double a[16 * 16] = {0}, b[16 * 8] = {0}, sum[16 * 8] = {0};
    int k = in->bytes;
    if (!is_whole(w, in)) return;
    if (in->variant == NUM_TF32)
        load_tf32(w, in, k, a, b);
    else
        load_halves(w, in, k, a, b);
    for (int i = 0; i < 16; i++)
        for (int x = 0; x < k; x++)
            for (int j = 0; j < 8; j++) sum[i * 8 + j] += a[i * k + x] * b[x * 8 + j];
    for (int l = 0; l < LANES; l++)
        for (int r = 0; r < 4; r++) {
            int row = l / 4 + 8 * (r >> 1), column = 2 * (l % 4) + (r & 1);
            double c = (double)SLOT(w, const float, in->vec[in->n_vec - 4 + r])[l];
            SLOT(w, float, in->vec[r])[l] = (float)(c + sum[row * 8 + column]);
        }
}

/* Lane 8 m + i gives the address of row i of matrix m; lane l gets elements 2 (l % 4) and the next
 * of row l / 4, transposed: of column l / 4. */
void exec_ldmatrix(Warp *w, const Insn *in)
{
    uint16_t rows[8][8];
    if (!is_whole(w, in)) return;
    for (int m = 0; m < in->n_vec; m++) {
        for (int i = 0; i < 8; i++) {
            int lane = 8 * m + i;
            const uint8_t *at =
                lane_access(w, in, lane, lane_address(w, in, lane), in->bytes, ACCESS_READ);
            if (at)
                memcpy(rows[i], at, sizeof rows[i]);
            else
                memset(rows[i], 0, sizeof rows[i]);
        }
        uint16_t *d = SLOT(w, uint16_t, in->vec[m]);
        for (int l = 0; l < LANES; l++)
            for (int h = 0; h < 2; h++) {
                int x = l / 4, y = 2 * (l % 4) + h;
                d[2 * l + h] = in->is_signed ? rows[y][x] : rows[x][y];
            }
    }
}
