/* attention_tiles.c -- which attention runs on tensor cores, and in tiles of which size.
 *
 * A warp that owns 32 rows reads a tile of the other side half as often from shared memory as two
 * of 16, which is what bounds mma.sync at 16; it needs twice the registers: per lane 2 D / 8 for
 * each accumulated row block of 16, as much again for each 4 columns of a product, D / 4 for
 * fragments. So 32 rows where 255 registers hold them and there are enough blocks to fill a chip.
 */
#include "codegen/cuda/attention.h"

enum {
    WARPS = CUDA_FLASH_THREADS / 32,
    MIN_HEAD = 8,        /* a narrower one pads half of its products */
    MAX_HEAD = 256,      /* forward; */
    MAX_HEAD_BACK = 128, /* backward: dk and dv of 16 keys are 2 D registers a lane */
    MANY_BLOCKS = 256,   /* of 128 rows: about two for each multiprocessor */
    SHARED_75 = 64 * 1024,
    SHARED_80 = 99 * 1024, /* sm_86, sm_89 and sm_120 have no more */
    SHARED_90 = 113 * 1024 /* two blocks */
};

static int pitch_of(int64_t d)
{
    return (int)((d + 15) / 16 * 16 + 8);
}

static int64_t wider(const AttnSpec *s)
{
    return s->D > s->Dv ? s->D : s->Dv;
}

/* Do blocks of 128 of n rows fill the chip? */
static bool has_many(const AttnSpec *s, int64_t n)
{
    return s->B * s->H * ((n + 127) / 128) >= MANY_BLOCKS;
}

/* Chips whose multiprocessors have more shared memory than two blocks of 128 wide rows take. */
static bool has_room(CudaArch arch)
{
    return arch.sm == 90 || arch.sm == 100;
}

FlashTile flash_tile(const AttnSpec *s, CudaArch arch, FlashPart part)
{
    FlashTile t = {.m = 1, .columns = 32, .in_registers = true};
    int64_t d = wider(s);
    switch (part) {
    case FLASH_FORWARD:
        if (d <= 128 && has_many(s, s->T)) t.m = 2;
        if (d <= 64) t.columns = 64;
        t.in_registers = t.m == 1 || d <= 64;
        if (!t.in_registers) t.columns = 48;
        break;
    case FLASH_DQ:
        if (d <= 64 && has_many(s, s->T)) t.m = 2;
        break;
    case FLASH_DK_DV:
        if (d <= 64 && has_room(arch) && has_many(s, s->S)) t.m = 2;
        if (d <= 64 && t.m == 1) t.columns = 64;
        t.in_registers = d <= 64 && t.m == 1;
        break;
    }
    int pitches = pitch_of(s->D) + pitch_of(s->Dv);
    t.rows = WARPS * 16 * t.m;
    t.own_elems = t.rows * (part == FLASH_FORWARD ? pitch_of(s->D) : pitches);
    t.stage_elems = t.columns * pitches;
    /* Own rows that go to registers lie where the second stage will. */
    int second = t.stage_elems;
    if (!t.in_registers)
        second += t.own_elems;
    else if (t.own_elems > second)
        second = t.own_elems;
    int n_floats = part == FLASH_DQ ? t.rows : part == FLASH_DK_DV ? 2 * t.columns : 0;
    t.shared_bytes = (t.stage_elems + second) * 2 + n_floats * 4;
    return t;
}

static int shared_bytes(const AttnSpec *s, CudaArch arch)
{
    if (!s->is_backward) return flash_tile(s, arch, FLASH_FORWARD).shared_bytes;
    int dq = flash_tile(s, arch, FLASH_DQ).shared_bytes;
    int dk = flash_tile(s, arch, FLASH_DK_DV).shared_bytes;
    return dq > dk ? dq : dk;
}

bool flash_fits(const AttnSpec *s, CudaArch arch)
{
    DType dt = s->q.dtype;
    if (arch.sm < 75 || !is_16bit(dt) || (dt == DT_BF16 && arch.sm < 80)) return false;
    if (s->k.dtype != dt || s->v.dtype != dt) return false;
    if (s->is_backward && (s->out.dtype != dt || s->dout.dtype != dt)) return false;
    int64_t most = s->is_backward ? MAX_HEAD_BACK : MAX_HEAD;
    if (s->D < MIN_HEAD || s->Dv < MIN_HEAD || wider(s) > most) return false;
    if (s->T >= 1 << 30 || s->S >= 1 << 30) return false;
    return shared_bytes(s, arch) <= (arch.sm < 80     ? SHARED_75
                                     : has_room(arch) ? SHARED_90
                                                      : SHARED_80);
}

void schedule_flash(const AttnSpec *a, CudaArch arch, CudaSchedule *s)
{
    int64_t heads = a->B * a->H;
    int32_t rows = flash_tile(a, arch, a->is_backward ? FLASH_DQ : FLASH_FORWARD).rows;
    s->n_rows = heads * (a->T + (a->is_backward ? a->S : 0));
    s->n_reduced = a->is_backward && a->T > a->S ? a->T : a->S;
    s->rows_per_block = rows;
    s->threads_x = CUDA_FLASH_THREADS;
    s->n_blocks = heads * ((a->T + rows - 1) / rows);
    if (a->is_backward) {
        int32_t keys = flash_tile(a, arch, FLASH_DK_DV).rows;
        s->n_blocks += heads * ((a->S + keys - 1) / keys);
    }
    s->shared_bytes = shared_bytes(a, arch);
}
