/* gpusim_warp.c -- what lanes, warps and blocks do together, and control flow: each case is a body
 * of PTX that turns in[thread] into out[thread], and what it must give. */
#include <math.h>
#include <stdbool.h>

#include "tests/unit/check.h"
#include "tests/unit/gpusim_driver.h"

enum { N = 256 };

typedef uint32_t (*WantFn)(const uint32_t *in, uint32_t t); /* out[t] */

typedef struct Example {
    const char *name, *body;
    unsigned threads;
    WantFn want;
} Example;

/* %w1 = thread of the grid, %w2 = in[%w1], %l1 = in, %l2 = out, %l3 = &out[%w1]; the result is %w0.
 */
static const char head[] =
    ".version 8.0\n.target sm_80\n.address_size 64\n"
    ".global .align 4 .b8 table[16] = {1, 2, 3, 4, 5, 6, 7, 8};\n"
    ".const .align 4 .u32 primes[4] = {2, 3, 5, 7};\n"
    ".extern .shared .align 16 .b8 dynamic[];\n"
    ".func (.param .b32 r) twice(.param .b32 v)\n;\n"
    ".func (.param .b32 r) add_up(.param .b32 v)\n{\n.reg .b32 %w<9>;\n.reg .pred %p<3>;\n"
    "ld.param.u32 %w1, [v];\nmov.u32 %w2, 0;\nLOOP:\nsetp.eq.u32 %p1, %w1, 0;\n@%p1 bra OUT;\n"
    "add.u32 %w2, %w2, %w1;\nsub.u32 %w1, %w1, 1;\nbra.uni LOOP;\nOUT:\n"
    "{\n.param .b32 a;\n.param .b32 b;\nst.param.b32 [a+0], %w2;\n"
    "call.uni (b), twice, (a);\nld.param.b32 %w2, [b+0];\n}\nst.param.b32 [r], %w2;\nret;\n}\n"
    ".func (.param .b32 r) twice(.param .b32 v)\n{\n.reg .b32 %w<9>;\n.reg .pred %p<3>;\n"
    "ld.param.u32 %w1, [v];\nsetp.gt.u32 %p1, %w1, 5000;\n@%p1 bra BIG;\nshl.b32 %w1, %w1, 1;\n"
    "st.param.b32 [r], %w1;\nret;\nBIG:\nst.param.b32 [r], %w1;\nret;\n}\n"
    ".visible .entry k(.param .u64 p0, .param .u64 p1)\n{\n.reg .pred %p<9>;\n.reg .b16 %h<9>;\n"
    ".reg .b32 %w<40>;\n.reg .b64 %l<20>;\n.reg .f32 %f<20>;\n.reg .f64 %d<9>;\n"
    ".shared .align 16 .b8 sh[2048];\n.local .align 16 .b8 lo[64];\n"
    "ld.param.u64 %l1, [p0];\nld.param.u64 %l2, [p1];\nmov.u32 %w1, %tid.x;\nmov.u32 %w0, 0;\n"
    "mad.wide.u32 %l3, %w1, 4, %l2;\nmad.wide.u32 %l4, %w1, 4, %l1;\nld.global.u32 %w2, [%l4];\n"
    "mov.u32 %w3, sh;\nshl.b32 %w4, %w1, 2;\nadd.u32 %w4, %w3, %w4;\nand.b32 %w5, %w2, 7;\n";
static const char tail[] = "st.global.u32 [%l3], %w0;\nret;\n}\n";

/* ---- shuffles: the segment is 8 lanes wide where c says so ---- */

static uint32_t lane_or_own(const uint32_t *in, uint32_t t, int from, int low, int high)
{
    bool is_in = from >= low && from <= high;
    return in[is_in ? (t & ~31u) + (uint32_t)from : t] * 2 + is_in;
}

static uint32_t want_up(const uint32_t *in, uint32_t t)
{
    return lane_or_own(in, t, (int)(t % 32) - 3, 0, 31);
}

static uint32_t want_down(const uint32_t *in, uint32_t t)
{
    return lane_or_own(in, t, (int)(t % 32) + 2, 0, (int)(t % 32 / 8 * 8 + 7));
}

static uint32_t want_xor(const uint32_t *in, uint32_t t)
{
    return lane_or_own(in, t, (int)(t % 32 ^ 5), 0, 31);
}

static uint32_t want_index(const uint32_t *in, uint32_t t)
{
    return lane_or_own(in, t, (int)(t % 32 / 8 * 8 + in[t] % 8), 0, 31);
}

#define SHUFFLE(TEXT)                                                                              \
    "shfl.sync." TEXT ", -1;\nselp.u32 %w9, 1, 0, %p1;\nmad.lo.u32 %w0, %w8, 2, %w9;\n"

/* ---- votes, match, redux: bit 0 of the input is the predicate ---- */

static uint32_t ballot(const uint32_t *in, uint32_t t)
{
    uint32_t v = 0;
    for (uint32_t l = 0; l < 32; l++) v |= (in[(t & ~31u) + l] & 1) << l;
    return v;
}

static uint32_t want_ballot(const uint32_t *in, uint32_t t)
{
    return ballot(in, t);
}

static uint32_t want_any_all(const uint32_t *in, uint32_t t)
{
    uint32_t v = ballot(in, t);
    return (v != 0) + 2 * (v == UINT32_MAX) + 4 * (v == 0 || v == UINT32_MAX) + 8 * (~v != 0);
}

static uint32_t want_match(const uint32_t *in, uint32_t t)
{
    uint32_t v = 0;
    for (uint32_t l = 0; l < 32; l++) v |= (uint32_t)(in[(t & ~31u) + l] % 8 == in[t] % 8) << l;
    return v;
}

static uint32_t want_match_all(const uint32_t *in, uint32_t t)
{
    (void)in;
    (void)t;
    return UINT32_MAX; /* all lanes hold 9; then not all hold the same: 0 is added */
}

static uint32_t want_redux(const uint32_t *in, uint32_t t)
{
    uint32_t sum = 0, and = UINT32_MAX, or = 0, xor = 0, top = 0;
    int32_t low = INT32_MAX;
    for (uint32_t l = t & ~31u; l < (t & ~31u) + 32; l++) {
        sum += in[l];
        and &= in[l];
        or |= in[l];
        xor ^= in[l];
        if (in[l] > top) top = in[l];
        if ((int32_t)in[l] < low) low = (int32_t)in[l];
    }
    return sum ^ and ^ or ^ xor ^ top ^ (uint32_t)low;
}

static uint32_t want_active(const uint32_t *in, uint32_t t)
{
    uint32_t v = ballot(in, t);
    return in[t] & 1 ? v : ~v;
}

/* ---- barriers ---- */

static uint32_t want_bar_red(const uint32_t *in, uint32_t t)
{
    uint32_t n = 0;
    (void)t;
    for (uint32_t i = 0; i < 96; i++) n += in[i] & 1;
    return n * 4 + (n == 96) * 2 + (n != 0);
}

static uint32_t want_turned(const uint32_t *in, uint32_t t)
{
    return in[t ^ 63];
}

/* ---- control flow ---- */

static uint32_t want_loop(const uint32_t *in, uint32_t t)
{
    uint32_t v = 0;
    for (uint32_t i = 0; i < in[t] % 8; i++) v = v * 3 + (i & 1 ? 1 : 5);
    return v;
}

static uint32_t want_call(const uint32_t *in, uint32_t t)
{
    uint32_t n = in[t] % 128, v = n * (n + 1) / 2;
    return in[t] & 1 ? (v > 5000 ? v : 2 * v) : 7;
}

static uint32_t want_count(const uint32_t *in, uint32_t t)
{
    (void)in;
    return t == 0 ? 64 : 0;
}

/* ---- memory ---- */

static uint32_t want_local(const uint32_t *in, uint32_t t)
{
    return (in[t] % 8) * 10 + (in[t] % 8);
}

static uint32_t want_table(const uint32_t *in, uint32_t t)
{
    static const uint32_t primes[] = {2, 3, 5, 7};
    return (in[t] % 8 + 1) * 1000 + primes[in[t] % 4];
}

static uint32_t want_sign(const uint32_t *in, uint32_t t)
{
    return (uint32_t)((int8_t)in[t] * 3 + (int16_t)in[t] + (int)(in[t] & 255));
}

static uint32_t want_vectors(const uint32_t *in, uint32_t t)
{
    uint32_t at = t / 4 * 4;
    return in[at] + 2 * in[at + 1] + 3 * in[at + 2] + 4 * in[at + 3] + 5 * in[t / 2 * 2 + 1];
}

static uint32_t want_atomics(const uint32_t *in, uint32_t t)
{
    uint32_t top = 0, all = 0, xor = 0;
    int32_t low = 0;
    for (uint32_t i = 0; i < 64; i++) {
        if (in[i] > top) top = in[i];
        if ((int32_t)in[i] < low) low = (int32_t)in[i];
        all |= in[i];
        xor ^= in[i];
    }
    const uint32_t want[] = {64, top, (uint32_t)low, all, xor, 64 % 11, 0x42800000u};
    return t < 7 ? want[t] : 0;
}

/* 4 of 16 bytes are copied, the rest are zeros. */
static uint32_t want_async(const uint32_t *in, uint32_t t)
{
    return t % 4 == 0 || t % 8 < 4 ? in[t] : 0;
}

static const Example examples[] = {
    {"shfl up", SHUFFLE("up.b32 %w8|%p1, %w2, 3, 0"), 64, want_up},
    {"shfl down, 8 wide", SHUFFLE("down.b32 %w8|%p1, %w2, 2, 6175"), 64, want_down},
    {"shfl bfly", SHUFFLE("bfly.b32 %w8|%p1, %w2, 5, 31"), 64, want_xor},
    {"shfl idx, 8 wide", SHUFFLE("idx.b32 %w8|%p1, %w2, %w5, 6175"), 64, want_index},
    {"vote ballot",
     "and.b32 %w8, %w2, 1;\nsetp.ne.u32 %p1, %w8, 0;\n"
     "vote.sync.ballot.b32 %w0, %p1, -1;\n",
     64, want_ballot},
    {"vote any, all, uni, negated",
     "and.b32 %w8, %w2, 1;\nsetp.ne.u32 %p1, %w8, 0;\nvote.sync.any.pred %p2, %p1, -1;\n"
     "@%p2 add.u32 %w0, %w0, 1;\nvote.sync.all.pred %p2, %p1, -1;\n@%p2 add.u32 %w0, %w0, 2;\n"
     "vote.sync.uni.pred %p2, %p1, -1;\n@%p2 add.u32 %w0, %w0, 4;\n"
     "vote.sync.any.pred %p2, !%p1, -1;\n@%p2 add.u32 %w0, %w0, 8;\n",
     64, want_any_all},
    {"match any", "match.any.sync.b32 %w0, %w5, -1;\n", 64, want_match},
    {"match any, 64 bits",
     "cvt.u64.u32 %l8, %w5;\nshl.b64 %l8, %l8, 40;\n"
     "match.any.sync.b64 %w0, %l8, -1;\n",
     64, want_match},
    {"match all",
     "mov.u32 %w8, 9;\nmatch.all.sync.b32 %w0|%p1, %w8, -1;\n@!%p1 mov.u32 %w0, 1;\n"
     "mov.u32 %w9, %laneid;\nmatch.all.sync.b32 %w8|%p1, %w9, -1;\n@%p1 mov.u32 %w0, 2;\n"
     "add.u32 %w0, %w0, %w8;\n",
     64, want_match_all},
    {"redux",
     "redux.sync.add.u32 %w8, %w2, -1;\nredux.sync.and.b32 %w9, %w2, -1;\nxor.b32 %w8, %w8, %w9;\n"
     "redux.sync.or.b32 %w9, %w2, -1;\nxor.b32 %w8, %w8, %w9;\nredux.sync.xor.b32 %w9, %w2, -1;\n"
     "xor.b32 %w8, %w8, %w9;\nredux.sync.max.u32 %w9, %w2, -1;\nxor.b32 %w8, %w8, %w9;\n"
     "redux.sync.min.s32 %w9, %w2, -1;\nxor.b32 %w0, %w8, %w9;\n",
     64, want_redux},
    {"activemask",
     "and.b32 %w8, %w2, 1;\nsetp.ne.u32 %p1, %w8, 0;\n@%p1 bra ODD;\nactivemask.b32 %w0;\n"
     "bra.uni DONE;\nODD:\nactivemask.b32 %w0;\nDONE:\n",
     64, want_active},
    {"bar.red",
     "and.b32 %w8, %w2, 1;\nsetp.ne.u32 %p1, %w8, 0;\nbar.red.popc.u32 %w9, 0, %p1;\n"
     "shl.b32 %w0, %w9, 2;\nbar.red.and.pred %p2, 0, %p1;\n@%p2 add.u32 %w0, %w0, 2;\n"
     "bar.red.or.pred %p2, 0, %p1;\n@%p2 add.u32 %w0, %w0, 1;\n",
     96, want_bar_red},
    {"bar.sync",
     "st.shared.u32 [%w4], %w2;\nbar.sync 0;\nxor.b32 %w8, %w4, 252;\n"
     "ld.shared.u32 %w0, [%w8];\n",
     64, want_turned},
    {"named barriers of two warps each",
     "st.shared.u32 [%w4], %w2;\nshr.u32 %w8, %w1, 6;\nadd.u32 %w8, %w8, 1;\nbar.sync %w8, 64;\n"
     "xor.b32 %w8, %w4, 252;\nld.shared.u32 %w0, [%w8];\n",
     128, want_turned},
    {"loops of different length",
     "mov.u32 %w8, 0;\nLOOP:\nsetp.ge.u32 %p1, %w8, %w5;\n@%p1 bra OUT;\nand.b32 %w9, %w8, 1;\n"
     "setp.ne.u32 %p2, %w9, 0;\n@%p2 bra ODD;\nmad.lo.u32 %w0, %w0, 3, 5;\nbra.uni NEXT;\nODD:\n"
     "mad.lo.u32 %w0, %w0, 3, 1;\nNEXT:\nadd.u32 %w8, %w8, 1;\nbra.uni LOOP;\nOUT:\n",
     96, want_loop},
    {"a call by some lanes, that calls",
     "mov.u32 %w0, 7;\nand.b32 %w8, %w2, 1;\nsetp.eq.u32 %p1, %w8, 0;\n@%p1 bra OVER;\n{\n"
     ".reg .b32 %w8;\n.param .b32 a;\n.param .b32 b;\nand.b32 %w8, %w2, 127;\n"
     "st.param.b32 [a+0], %w8;\ncall (b), add_up, (a);\nld.param.b32 %w0, [b+0];\n}\nOVER:\n",
     64, want_call},
    {"a lock that lanes spin for",
     "setp.eq.u32 %p3, %w1, 0;\n@%p3 st.shared.u32 [%w3], 0;\n@%p3 st.shared.u32 [%w3+4], 0;\n"
     "bar.sync 0;\nSPIN:\natom.shared.cas.b32 %w8, [%w3], 0, 1;\nsetp.ne.u32 %p1, %w8, 0;\n"
     "@%p1 bra SPIN;\natom.shared.add.u32 %w9, [%w3+4], 1;\natom.shared.exch.b32 %w8, [%w3], 0;\n"
     "bar.sync 0;\n@%p3 ld.shared.u32 %w0, [%w3+4];\n",
     64, want_count},
    {"local memory, generic addresses",
     "mov.u64 %l8, lo;\nmul.wide.u32 %l9, %w5, 4;\nadd.u64 %l8, %l8, %l9;\nst.local.u32 [%l8], "
     "%w5;\n"
     "cvta.local.u64 %l10, %l8;\nld.u32 %w8, [%l10];\ncvt.u64.u32 %l11, %w4;\n"
     "cvta.shared.u64 %l11, %l11;\nst.u32 [%l11], %w5;\nld.shared.u32 %w9, [%w4];\n"
     "mad.lo.u32 %w0, %w8, 10, %w9;\n",
     64, want_local},
    {"tables",
     "mov.u64 %l8, table;\ncvt.u64.u32 %l9, %w5;\nadd.u64 %l8, %l8, %l9;\nld.global.u8 %w8, "
     "[%l8];\n"
     "and.b32 %w9, %w5, 3;\nmov.u64 %l8, primes;\nmad.wide.u32 %l8, %w9, 4, %l8;\n"
     "ld.const.u32 %w9, [%l8];\nmad.lo.u32 %w0, %w8, 1000, %w9;\n",
     64, want_table},
    {"loads that extend the sign",
     "ld.global.s8 %w8, [%l4];\nld.global.s16 %w9, [%l4];\nld.global.u8 %h1, [%l4];\n"
     "cvt.u32.u16 %w10, %h1;\nmad.lo.s32 %w0, %w8, 3, %w9;\nadd.s32 %w0, %w0, %w10;\n",
     64, want_sign},
    {"vectors, dynamic shared memory",
     "and.b32 %w8, %w1, 252;\nmad.wide.u32 %l8, %w8, 4, %l1;\n"
     "ld.global.v4.u32 {%w10, %w11, %w12, %w13}, [%l8];\nmov.u32 %w3, dynamic;\n"
     "mad.lo.u32 %w9, %w1, 16, %w3;\nst.shared.v4.u32 [%w9], {%w10, %w11, %w12, %w13};\n"
     "ld.shared.v2.u32 {%w14, %w15}, [%w9];\nld.shared.v2.u32 {%w16, %w17}, [%w9+8];\n"
     "mad.lo.u32 %w0, %w15, 2, %w14;\nmad.lo.u32 %w0, %w16, 3, %w0;\nmad.lo.u32 %w0, %w17, 4, "
     "%w0;\n"
     "and.b32 %w8, %w1, 254;\nmad.wide.u32 %l8, %w8, 4, %l1;\nld.global.nc.u64 %l9, [%l8];\n"
     "mov.b64 {%w18, %w19}, %l9;\nmad.lo.u32 %w0, %w19, 5, %w0;\n",
     64, want_vectors},
    {"atomics",
     "setp.lt.u32 %p1, %w1, 16;\n@%p1 st.shared.u32 [%w4], 0;\nbar.sync 0;\n"
     "atom.shared.add.u32 %w8, [%w3], 1;\natom.shared.max.u32 %w8, [%w3+4], %w2;\n"
     "atom.shared.min.s32 %w8, [%w3+8], %w2;\natom.shared.or.b32 %w8, [%w3+12], %w2;\n"
     "red.shared.xor.b32 [%w3+16], %w2;\natom.shared.inc.u32 %w8, [%w3+20], 10;\n"
     "atom.shared.add.f32 %f1, [%w3+24], 0f3F800000;\nbar.sync 0;\nsetp.lt.u32 %p1, %w1, 7;\n"
     "@%p1 ld.shared.u32 %w0, [%w4];\n",
     64, want_atomics},
    {"cp.async",
     "and.b32 %w8, %w1, 3;\nsetp.ne.u32 %p1, %w8, 0;\nand.b32 %w9, %w1, 4;\n"
     "setp.eq.u32 %p2, %w9, 0;\nselp.u32 %w10, 16, 4, %p2;\n"
     "@!%p1 cp.async.cg.shared.global [%w4], [%l4], 16, %w10;\ncp.async.commit_group;\n"
     "cp.async.wait_group 0;\nbar.sync 0;\nld.shared.u32 %w0, [%w4];\n",
     64, want_async},
};

static uint32_t random_word(void)
{
    static uint64_t state = 7;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}

static CUmodule load(const Driver *d, const char *body)
{
    char text[8192];
    CUmodule m;
    CHECK((size_t)snprintf(text, sizeof text, "%s%s%s", head, body, tail) < sizeof text);
    DRIVER_TRY(d->cuModuleLoadData(&m, text));
    return m;
}

/* One block. */
static void run(const Driver *d, const char *body, unsigned threads, const uint32_t *in,
                uint32_t *out)
{
    CUmodule m = load(d, body);
    CUfunction f;
    CUdeviceptr in_at, out_at;
    DRIVER_TRY(d->cuModuleGetFunction(&f, m, "k"));
    DRIVER_TRY(d->cuMemAlloc_v2(&in_at, N * 4));
    DRIVER_TRY(d->cuMemAlloc_v2(&out_at, N * 4));
    DRIVER_TRY(d->cuMemcpyHtoD_v2(in_at, in, N * 4));
    DRIVER_TRY(d->cuMemsetD32_v2(out_at, 0, N));
    void *params[] = {&in_at, &out_at};
    DRIVER_TRY(d->cuLaunchKernel(f, 1, 1, 1, threads, 1, 1, 4096, NULL, params, NULL));
    DRIVER_TRY(d->cuMemcpyDtoH_v2(out, out_at, N * 4));
    DRIVER_TRY(d->cuMemFree_v2(in_at));
    DRIVER_TRY(d->cuMemFree_v2(out_at));
    DRIVER_TRY(d->cuModuleUnload(m));
}

static int check_example(const Driver *d, const Example *x)
{
    uint32_t in[N], out[N];
    unsigned long before = d->reports();
    for (int i = 0; i < N; i++) in[i] = random_word();
    run(d, x->body, x->threads, in, out);
    for (uint32_t t = 0; t < x->threads; t++) {
        if (out[t] == x->want(in, t)) continue;
        fprintf(stderr, "%s: thread %u: %x, want %x\n", x->name, t, out[t], x->want(in, t));
        return 1;
    }
    if (d->reports() == before) return 0;
    fprintf(stderr, "%s: reported\n", x->name);
    return 1;
}

/* ---- tensor cores: in = A (row by row), then B (column by column), as the fragments hold them
 * ---- */

typedef struct MmaForm {
    const char *form;
    int k, per_word; /* elements of a register */
    bool is_bf16;
} MmaForm;

static const MmaForm mma_forms[] = {{"m16n8k16.row.col.f32.bf16.bf16.f32", 16, 2, true},
                                    {"m16n8k16.row.col.f32.f16.f16.f32", 16, 2, false},
                                    {"m16n8k8.row.col.f32.bf16.bf16.f32", 8, 2, true},
                                    {"m16n8k8.row.col.f32.f16.f16.f32", 8, 2, false},
                                    {"m16n8k8.row.col.f32.tf32.tf32.f32", 8, 1, false},
                                    {"m16n8k4.row.col.f32.tf32.tf32.f32", 4, 1, false}};

/* Small integers: exact in every type and sum. Of A: 3 row - 5 column; of B: row + 2 column. */
static int a_value(int row, int column)
{
    return (3 * row - 5 * column) % 7;
}

static int b_value(int row, int column)
{
    return (row + 2 * column) % 5 - 2;
}

static uint32_t bits_of(const MmaForm *f, int v)
{
    float x = (float)v;
    _Float16 h = (_Float16)x;
    uint32_t u = 0;
    uint16_t s;
    memcpy(&u, &x, sizeof u);
    memcpy(&s, &h, sizeof s);
    return f->per_word == 1 ? u : f->is_bf16 ? u >> 16 : s;
}

/* The word of register r of lane l, by the figures of the ISA: 8 x 4-word tiles, of A down first.
 */
static uint32_t a_word(const MmaForm *f, int l, int r)
{
    int row = l / 4 + (r % 2 ? 8 : 0), column = (l % 4 + (r / 2 ? 4 : 0)) * f->per_word;
    uint32_t v = bits_of(f, a_value(row, column));
    return f->per_word == 1 ? v : v | bits_of(f, a_value(row, column + 1)) << 16;
}

static uint32_t b_word(const MmaForm *f, int l, int r)
{
    int column = l / 4, row = (l % 4 + 4 * r) * f->per_word;
    uint32_t v = bits_of(f, b_value(row, column));
    return f->per_word == 1 ? v : v | bits_of(f, b_value(row + 1, column)) << 16;
}

static int check_mma(const Driver *d, const MmaForm *f)
{
    char body[2048], a[64] = "", b[64] = "";
    uint32_t in[N], out[N];
    int n_a = f->k * 16 / 32 / f->per_word, n_b = n_a / 2, n = 0, wrong = 0;
    for (int i = 0; i < n_a; i++) sprintf(a + strlen(a), "%s%%w%d", i ? ", " : "", 10 + i);
    for (int i = 0; i < n_b; i++) sprintf(b + strlen(b), "%s%%w%d", i ? ", " : "", 20 + i);
    for (int i = 0; i < n_a + n_b; i++)
        n += sprintf(body + n, "ld.global.u32 %%w%d, [%%l4+%d];\n", i < n_a ? 10 + i : 20 + i - n_a,
                     128 * i);
    n += sprintf(body + n,
                 "mov.f32 %%f1, 0f3F800000;\nmov.f32 %%f2, 0f00000000;\n"
                 "mma.sync.aligned.%s {%%f4, %%f5, %%f6, %%f7}, {%s}, {%s}, "
                 "{%%f1, %%f2, %%f1, %%f2};\n",
                 f->form, a, b);
    for (int i = 0; i < 4; i++)
        n += sprintf(body + n, "st.global.f32 [%%l3+%d], %%f%d;\n", 128 * i, 4 + i);
    sprintf(body + n, "mov.b32 %%w0, %%f4;\n");
    memset(in, 0, sizeof in);
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < n_a + n_b; i++)
            in[32 * i + l] = i < n_a ? a_word(f, l, i) : b_word(f, l, i - n_a);
    run(d, body, 32, in, out);
    for (int l = 0; l < 32; l++)
        for (int r = 0; r < 4; r++) {
            int row = l / 4 + 8 * (r / 2), column = l % 4 * 2 + r % 2, sum = r % 2 ? 0 : 1;
            for (int k = 0; k < f->k; k++) sum += a_value(row, k) * b_value(k, column);
            float got;
            memcpy(&got, &out[32 * r + l], sizeof got);
            wrong += got != (float)sum;
        }
    if (wrong) fprintf(stderr, "mma %s: %d elements are wrong\n", f->form, wrong);
    return wrong != 0;
}

/* Four 8 x 8 matrices of 16 bits, element = 100 matrix + 10 row + column. */
static int check_ldmatrix(const Driver *d, bool is_transposed)
{
    char body[1024];
    uint32_t in[N], out[N];
    int wrong = 0;
    memset(in, 0, sizeof in);
    uint16_t *halves = (uint16_t *)in;
    for (int i = 0; i < 256; i++) halves[i] = (uint16_t)(100 * (i / 64) + 10 * (i / 8 % 8) + i % 8);
    sprintf(
        body,
        "mad.wide.u32 %%l8, %%w1, 16, %%l1;\nld.global.v4.u32 {%%w8, %%w9, %%w10, %%w11}, [%%l8];\n"
        "mad.lo.u32 %%w12, %%w1, 16, %%w3;\nst.shared.v4.u32 [%%w12], {%%w8, %%w9, %%w10, %%w11};\n"
        "bar.warp.sync -1;\nldmatrix.sync.aligned.m8n8.x4%s.shared.b16 {%%w8, %%w9, %%w10, %%w11}, "
        "[%%w12];\nst.global.u32 [%%l3+128], %%w9;\nst.global.u32 [%%l3+256], %%w10;\n"
        "st.global.u32 [%%l3+384], %%w11;\nmov.b32 %%w0, %%w8;\n",
        is_transposed ? ".trans" : "");
    run(d, body, 32, in, out);
    for (int l = 0; l < 32; l++)
        for (int m = 0; m < 4; m++)
            for (int h = 0; h < 2; h++) {
                int x = l / 4, y = 2 * (l % 4) + h;
                int want = 100 * m + (is_transposed ? 10 * y + x : 10 * x + y);
                wrong += (int)(out[32 * m + l] >> 16 * h & 0xffff) != want;
            }
    if (wrong) fprintf(stderr, "ldmatrix%s: %d are wrong\n", is_transposed ? " .trans" : "", wrong);
    return wrong != 0;
}

/* Every thread of a three-dimensional grid writes its number once. */
static int check_grid(const Driver *d)
{
    CUmodule m =
        load(d, "mov.u32 %w8, %tid.y;\nmov.u32 %w9, %ntid.x;\nmad.lo.u32 %w1, %w8, %w9, %w1;\n"
                "mov.u32 %w8, %tid.z;\nmov.u32 %w10, %ntid.y;\nmul.lo.u32 %w9, %w9, %w10;\n"
                "mad.lo.u32 %w1, %w8, %w9, %w1;\nmov.u32 %w10, %ntid.z;\n"
                "mul.lo.u32 %w9, %w9, %w10;\nmov.u32 %w8, %ctaid.z;\nmov.u32 %w10, %nctaid.y;\n"
                "mov.u32 %w11, %ctaid.y;\nmad.lo.u32 %w8, %w8, %w10, %w11;\n"
                "mov.u32 %w10, %nctaid.x;\nmov.u32 %w11, %ctaid.x;\n"
                "mad.lo.u32 %w8, %w8, %w10, %w11;\nmad.lo.u32 %w0, %w8, %w9, %w1;\n"
                "mad.wide.u32 %l3, %w0, 4, %l2;\n");
    CUfunction f;
    CUdeviceptr a, b;
    uint32_t out[720];
    int wrong = 0;
    DRIVER_TRY(d->cuModuleGetFunction(&f, m, "k"));
    DRIVER_TRY(d->cuMemAlloc_v2(&a, N * 4));
    DRIVER_TRY(d->cuMemsetD32_v2(a, 0, N));
    DRIVER_TRY(d->cuMemAlloc_v2(&b, sizeof out));
    void *params[] = {&a, &b};
    DRIVER_TRY(d->cuLaunchKernel(f, 2, 3, 4, 5, 3, 2, 0, NULL, params, NULL));
    DRIVER_TRY(d->cuMemcpyDtoH_v2(out, b, sizeof out));
    for (uint32_t i = 0; i < 720; i++) wrong += out[i] != i;
    DRIVER_TRY(d->cuModuleUnload(m));
    if (wrong) fprintf(stderr, "grid: %d are wrong\n", wrong);
    return wrong != 0;
}

int main(void)
{
    Driver d;
    int n_failed = 0, n = (int)(sizeof examples / sizeof examples[0]);
    driver_open(&d);
    for (int i = 0; i < n; i++) n_failed += check_example(&d, &examples[i]);
    for (size_t i = 0; i < sizeof mma_forms / sizeof mma_forms[0]; i++, n++)
        n_failed += check_mma(&d, &mma_forms[i]);
    n_failed += check_ldmatrix(&d, false) + check_ldmatrix(&d, true) + check_grid(&d);
    if (d.reports() != 0) n_failed++;
    printf("%s: %d cases, %d failures\n", n_failed ? "FAIL" : "PASS", n + 3, n_failed);
    return n_failed != 0;
}
