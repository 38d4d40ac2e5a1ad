/* contract_wgmma.c -- the loop over K of contractions on sm_90a: wgmma reads both operands out of
 * shared memory, four warps at a time, while the threads send for the next tiles.
 *
 * A block has two groups of four warps, 64 rows of the tile each.  Tiles lie as wgmma's 128-byte
 * swizzle wants them: rows of 128 bytes whose 16-byte chunks are permuted by the row, so the
 * chunks' places are those of contract_tiles.c.  A turned tile is blocks of 64 along m or n, each
 * [k][64].  In its turn `t` a block starts the products of step t and sends for step t + 1, into
 * the stage of step t - 2, whose products all warps had waited for before the barrier.
 *
 * Every kernel has a twin on mma.sync: what sm_90 prints.  The descriptor's fields are those of the
 * PTX ISA, "asynchronous warpgroup level matrix shared memory layout". */
#include "codegen/cuda/contract.h"

enum { N = 128, AHEAD = 1 /* steps that are sent for before they are multiplied */ };

static const char wgmma_text[] =
    "#ifdef __CUDA_ARCH_FEAT_SM90_ALL\n"
    "// ---- wgmma ----\n"
    "// Of a tile whose rows k have blocks of 64 elements: block after block of K rows.\n"
    "template <int K> ZM_FN unsigned zm_chunk_in_blocks(int k, int chunk)\n"
    "{\n"
    "    return chunk / 8 * (K * 128) + zm_chunk<8>(k, chunk % 8);\n"
    "}\n"
    "// What threads wrote to shared memory is seen by wgmma after the next barrier.\n"
    "ZM_FN void zm_wgmma_publish()\n"
    "{\n"
    "    asm volatile(\"fence.proxy.async.shared::cta;\" ::: \"memory\");\n"
    "}\n"
    "template <int KEPT> ZM_FN void zm_wgmma_wait()\n"
    "{\n"
    "    asm volatile(\"wgmma.wait_group.sync.aligned %0;\" ::\"n\"(KEPT) : \"memory\");\n"
    "}\n"
    "// 128-byte swizzle; `leading`: bytes between blocks of a turned tile.\n"
    "ZM_FN unsigned long long zm_descriptor(unsigned at, unsigned leading)\n"
    "{\n"
    "    return (unsigned long long)((at & 0x3ffff) >> 4) | (unsigned long long)(leading >> 4) << "
    "16 "
    "| 64ull << 32 | 1ull << 62;\n"
    "}\n";

static void print_accumulators(Str *out)
{
    for (int i = 0; i < N / 2; i++) str_addf(out, "%s%%%d", i ? ", " : "", i);
}

/* acc += A B of 16 in K: one instruction for each type. */
static void print_product(Str *out, const char *type, const char *name)
{
    str_addf(out,
             "template <bool A_TURNED, bool B_TURNED> ZM_FN void zm_wgmma(%s, float "
             "(&acc)[1][%d][4], unsigned long long a, unsigned long long b)\n"
             "{\n"
             "    asm volatile(\"{.reg .pred p; setp.eq.u32 p, 0, 0;\\n\"\n"
             "                 \"wgmma.mma_async.sync.aligned.m64n%dk16.f32.%s.%s {",
             type, N / 8, N, name, name);
    print_accumulators(out);
    str_addf(out, "}, %%%d, %%%d, p, 1, 1, %%%d, %%%d;}\"\n                 : ", N / 2, N / 2 + 1,
             N / 2 + 2, N / 2 + 3);
    for (int i = 0; i < N / 2; i++)
        str_addf(out, "%s\"+f\"(acc[0][%d][%d])", i ? ", " : "", i / 4, i % 4);
    str_add(out,
            "\n                 : \"l\"(a), \"l\"(b), \"n\"(A_TURNED), \"n\"(B_TURNED));\n}\n");
}

static const char multiply_text[] =
    "// Starts a group of products: 64 rows of A by all of B, K deep.\n"
    "template <typename T, int K, bool A_TURNED, bool B_TURNED> ZM_FN void zm_wgmma_start(float "
    "(&acc)[1][16][4], unsigned a, unsigned b)\n"
    "{\n"
    "    const unsigned base = zm_shared_at(zm_shared);\n"
    "    a += base + threadIdx.x / 128 * (K * 128);\n"
    "    b += base;\n"
    "    asm volatile(\"wgmma.fence.sync.aligned;\" ::: \"memory\");\n"
    "#pragma unroll\n"
    "    for (int k = 0; k < K; k += 16)\n"
    "        zm_wgmma<A_TURNED, B_TURNED>(T{}, acc, zm_descriptor(a + k * (A_TURNED ? 128 : 2), K "
    "* "
    "128), zm_descriptor(b + k * (B_TURNED ? 128 : 2), K * 128));\n"
    "    asm volatile(\"wgmma.commit_group.sync.aligned;\" ::: \"memory\");\n"
    "}\n"
    "// The sums are read only now.\n"
    "ZM_FN void zm_wgmma_finish(float (&acc)[1][16][4])\n"
    "{\n"
    "    zm_wgmma_wait<0>();\n"
    "#pragma unroll\n"
    "    for (int i = 0; i < 64; i++) asm volatile(\"\" : \"+f\"(acc[0][i / 4][i % "
    "4])::\"memory\");\n"
    "}\n"
    "#endif\n"
    "\n";

void print_prelude_wgmma(Str *out)
{
    str_add(out, wgmma_text);
    print_product(out, "zm_bf16", "bf16");
    print_product(out, "zm_f16", "f16");
    str_add(out, multiply_text);
}

static void print_start(Printer *p, const ContractTile *t, const Operand *a, const Operand *b)
{
    print_open(p, "if (t >= 0)");
    print_line(p, "const unsigned from = ring + (unsigned)t %% %d * %d;", t->stages,
               contract_stage_bytes(t));
    print_line(p, "zm_wgmma_start<%s, %d, %s, %s>(acc, from, from + %d);",
               memory_type(p->k->nodes[a->side.node].dtype), t->k, a->is_turned ? "true" : "false",
               b->is_turned ? "true" : "false", b->begin);
    print_close(p);
}

void print_steps_wgmma(Printer *p, const ContractTile *t, const Operand *a, const Operand *b)
{
    bool has_copies = a->fill == FILL_COPY || b->fill == FILL_COPY;
    const Operand *both[] = {a, b};
    ZM_CHECK(t->n == N && t->stages == AHEAD + 2);
    print_line(p, "const unsigned ring = -zm_shared_at(zm_shared) & %d;",
               CONTRACT_SWIZZLE_SPAN - 1);
    print_line(p, "#pragma unroll 1");
    print_line(p, "for (int t = -%d; t < steps; t++) {", AHEAD);
    p->depth++;
    if (has_copies) print_line(p, "zm_copies_wait<%d>();", AHEAD - 1);
    print_line(p, "zm_wgmma_publish();");
    print_line(p, "zm_wgmma_wait<1>();");
    print_line(p, "__syncthreads();");
    print_start(p, t, a, b);
    print_line(p, "const int next = t + %d;", AHEAD);
    print_line(p, "const %s k0 = %s(%snext) * %d;", p->index_type,
               p->s.is_64bit ? "(long long)" : "", t->parts > 1 ? "first + " : "", t->k);
    print_line(p, "const unsigned to = ring + (unsigned)next %% %d * %d;", t->stages,
               contract_stage_bytes(t));
    print_open(p, "if (next < steps)");
    for (int i = 0; i < 2; i++)
        if (both[i]->fill != FILL_COPY)
            print_line(p, "uint4 %s[%d];", both[i]->side.tile,
                       contract_chunks_a_thread(p, both[i]));
    for (int i = 0; i < 2; i++) contract_fetch(p, t, both[i]);
    for (int i = 0; i < 2; i++)
        if (both[i]->fill != FILL_COPY) contract_put(p, t, both[i]);
    print_close(p);
    if (has_copies) print_line(p, "zm_copies_commit();");
    print_close(p);
    print_line(p, "zm_wgmma_finish(acc);");
}
