/* wgmma.c -- products of a warp group: 64 x 16 from shared memory times 16 x N from shared memory,
 * 128-byte swizzle, both ways of lying ("asynchronous warpgroup level matrix ..." of the PTX ISA).
 *
 * Each of the four warps computes its 16 rows by itself.  The products are done when they are
 * waited for, so that sums which are read too early are wrong; the operands are read at once as
 * well, with all checks, and must be the same bytes then.  Sums as in mma.c: f64, rounded once. */
#include "tests/gpusim/report.h"

#include <string.h>

enum { K = 16, ROWS = 16, MAX_N = 256, HALVES = 8 /* of a chunk */, NOT_COMMITTED = -1 };

typedef struct Lies { /* where an operand lies, from its descriptor */
    uint32_t start, leading, stride;
    bool is_turned;
} Lies;

static Lies lies_of(uint64_t descriptor, bool is_turned)
{
    return (Lies){(uint32_t)(descriptor & 0x3fff) << 4, (uint32_t)(descriptor >> 16 & 0x3fff) << 4,
                  (uint32_t)(descriptor >> 32 & 0x3fff) << 4, is_turned};
}

/* The chunk of 8 neighbours that holds element (x, k); x along M or N. */
static uint32_t chunk_at(const Lies *o, int x, int k)
{
    uint32_t at = o->start;
    if (o->is_turned)
        at += (uint32_t)(x / 64) * o->leading + (uint32_t)(k / 8) * o->stride +
              (uint32_t)(k % 8 * 128 + x % 64 / HALVES * 16);
    else
        at += (uint32_t)(x / 8) * o->stride + (uint32_t)(x % 8 * 128 + k / HALVES * 16);
    return at ^ (at >> 3 & 0x70);
}

static double half_value(uint16_t h, uint8_t kind)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    _Float16 v;
    memcpy(&f, &u, sizeof f);
    memcpy(&v, &h, sizeof v);
    return kind == NUM_BF16 ? (double)f : (double)v;
}

/* Elements [0, n) from x0 on, v[x * K + k]; with checks: as accesses of the warp's lanes. */
static bool read_operand(Warp *w, const Insn *in, const Lies *o, int x0, int n, bool is_checked,
                         double *v, uint64_t *hash)
{
    int along = o->is_turned ? n : K, across = o->is_turned ? K : n, lane = 0;
    for (int i = 0; i < across; i++)
        for (int j = 0; j < along; j += HALVES, lane = (lane + 1) % LANES) {
            int x = o->is_turned ? j : i, k = o->is_turned ? i : j;
            uint32_t at = chunk_at(o, x0 + x, k);
            uint16_t half[HALVES];
            if (at + sizeof half > w->block->shared_bytes) {
                if (is_checked) (void)shared_access(w, in, lane, at, sizeof half, false, false);
                return false;
            }
            if (is_checked) {
                if (!shared_access(w, in, lane, at, sizeof half, false, false)) return false;
                shared_check_published(w, in, lane, at);
            }
            memcpy(half, w->block->shared + at, sizeof half);
            for (int e = 0; e < HALVES; e++) {
                *hash = (*hash ^ half[e]) * 1099511628211u;
                v[(o->is_turned ? (x + e) * K + k : x * K + k + e)] =
                    half_value(half[e], in->variant);
            }
        }
    return true;
}

static uint64_t read_both(Warp *w, const Product *p, bool is_checked, double *a, double *b)
{
    uint64_t hash = 14695981039346656037u;
    Lies oa = lies_of(p->a, p->in->is_signed), ob = lies_of(p->b, p->in->is_not);
    int row = (int)(w->number % 4) * ROWS;
    bool is_read = read_operand(w, p->in, &oa, row, ROWS, is_checked, a, &hash) &&
                   read_operand(w, p->in, &ob, 0, p->in->target, is_checked, b, &hash);
    return is_read ? hash : 0;
}

static bool is_whole(Warp *w, const Insn *in)
{
    if (w->mask == UINT32_MAX) return true;
    report_lane(w, in, __builtin_ctz(w->mask), REPORT_LANE, "only lanes 0x%08x of 32 take part",
                w->mask);
    return false;
}

void exec_wgmma(Warp *w, const Insn *in)
{
    static _Thread_local double a[ROWS * K], b[MAX_N * K];
    if (!is_whole(w, in)) return;
    Product p = {.in = in,
                 .a = SLOT(w, const uint64_t, in->a)[0],
                 .b = SLOT(w, const uint64_t, in->b)[0],
                 .adds = SLOT(w, const uint32_t, in->c)[0] & 1,
                 .batch = NOT_COMMITTED};
    for (int l = 1; l < LANES; l++)
        if (SLOT(w, const uint64_t, in->a)[l] != p.a || SLOT(w, const uint64_t, in->b)[l] != p.b)
            report_lane(w, in, l, REPORT_LANE, "the lanes give different descriptors");
    if (!w->is_product_fenced)
        report_lane(w, in, 0, REPORT_SHARED_RACE, "no wgmma.fence since the last wait");
    if (p.a >> 62 != 1 || p.b >> 62 != 1 || (p.a >> 49 & 7) || (p.b >> 49 & 7)) {
        report_lane(w, in, 0, REPORT_TRAP, "the simulator knows descriptors of 128-byte swizzle");
        return;
    }
    p.hash = read_both(w, &p, true, a, b);
    VEC_PUSH(w->block->launch->scratch, &w->products, p);
}

static void finish(Warp *w, const Product *p)
{
    static _Thread_local double a[ROWS * K], b[MAX_N * K];
    uint64_t hash = read_both(w, p, false, a, b);
    if (hash != p->hash)
        report_lane(w, p->in, 0, REPORT_SHARED_RACE,
                    "an operand in shared memory is written before the product is waited for");
    if (hash == 0) return;
    for (int x = 0; x < p->in->target; x++)
        for (int row = 0; row < ROWS; row++) {
            double sum = 0;
            for (int k = 0; k < K; k++) sum += a[row * K + k] * b[x * K + k];
            int lane = row % 8 * 4 + x % 8 / 2;
            float *d = SLOT(w, float, p->in->wide[x / 8 * 4 + row / 8 * 2 + x % 2]) + lane;
            *d = (float)((p->adds ? (double)*d : 0) + sum);
        }
}

void exec_wgmma_fence(Warp *w, const Insn *in)
{
    if (is_whole(w, in)) w->is_product_fenced = true;
}

void exec_wgmma_commit(Warp *w, const Insn *in)
{
    (void)in;
    for (uint32_t i = 0; i < w->products.n; i++)
        if (w->products.at[i].batch == NOT_COMMITTED)
            w->products.at[i].batch = w->n_product_batches;
    w->n_product_batches++;
}

void exec_wgmma_wait(Warp *w, const Insn *in)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < w->products.n; i++) {
        Product p = w->products.at[i];
        if (p.batch != NOT_COMMITTED && p.batch + in->imm < w->n_product_batches)
            finish(w, &p);
        else
            w->products.at[kept++] = p;
    }
    w->products.n = kept;
    w->is_product_fenced = false;
}
