/* data_tokens.c -- token files: raw little-endian u8, u16, u32; llm.c's .bin (256 int32 of header:
 * magic, version, number of tokens; github.com/karpathy/llm.c dev/data/data_common.py); Megatron's
 * .idx (github.com/NVIDIA/Megatron-LM core/datasets/indexed_dataset.py: "MMIDIDX\0\0", u64 version
 * 1, u8 dtype, u64 sequences, u64 documents, i32 lengths, i64 byte offsets, ...), whose sequences
 * are read one after another from the .bin beside it. */
#include "runtime/data.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

enum {
    LLMC_HEADER_BYTES = 1024,
    LLMC_GPT2 = 20240520,
    LLMC_LLAMA3 = 20240801,
    MEGATRON_HEADER_BYTES = 34
};

static const char megatron_magic[9] = "MMIDIDX\0";

int64_t token_at(const TokenFile *f, int64_t i)
{
    const unsigned char *at = f->at + i * f->width;
    uint64_t v = 0;
    memcpy(&v, at, (size_t)f->width);
    if (!f->is_signed) return v > INT64_MAX ? INT64_MAX : (int64_t)v;
    int shift = 64 - 8 * f->width;
    return (int64_t)(v << shift) >> shift;
}

static RtStatus set_width(TokenFile *f, int found, int width, bool is_given, RtError *e)
{
    if (is_given && found != width)
        return RT_FAIL(e, RT_BAD,
                       "%s: its header says tokens of %d bits, --dtype says u%d; leave --dtype out",
                       f->path, 8 * found, 8 * width);
    f->width = found;
    return RT_OK;
}

/* ---- llm.c ---- */

static bool is_llmc(const MappedFile *m)
{
    int32_t head[2];
    if (m->n_bytes < LLMC_HEADER_BYTES) return false;
    memcpy(head, m->at, sizeof head);
    return (head[0] == LLMC_GPT2 && head[1] == 1) || (head[0] == LLMC_LLAMA3 && head[1] == 7);
}

static RtStatus open_llmc(TokenFile *f, int width, bool is_given, RtError *e)
{
    int32_t head[3];
    memcpy(head, f->map.at, sizeof head);
    RT_TRY(set_width(f, head[0] == LLMC_GPT2 ? 2 : 4, width, is_given, e));
    int64_t has = (int64_t)(f->map.n_bytes - LLMC_HEADER_BYTES) / f->width;
    if (head[2] < 0 || head[2] > has)
        return RT_FAIL(e, RT_BAD,
                       "%s: its llm.c header says %d tokens, the file holds %" PRId64
                       ": truncated; copy it again",
                       f->path, head[2], has);
    f->at = f->map.at + LLMC_HEADER_BYTES;
    f->n_tokens = head[2];
    return RT_OK;
}

/* ---- Megatron ---- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

/* Total tokens of the index, which must lie one after another in the .bin. */
static RtStatus read_index(TokenFile *f, const char *idx, const MappedFile *m, int width,
                           bool is_given, RtError *e)
{
    /* dtype codes 1 .. 8; 6 and 7 are floats */
    static const int width_of[] = {0, 1, 1, 2, 4, 8, 0, 0, 2};
    if (m->n_bytes < MEGATRON_HEADER_BYTES ||
        memcmp(m->at, megatron_magic, sizeof megatron_magic) != 0)
        return RT_FAIL(e, RT_BAD, "%s is not a Megatron index: it does not start with MMIDIDX",
                       idx);
    uint64_t version, n_sequences;
    memcpy(&version, m->at + 9, sizeof version);
    unsigned code = m->at[17];
    memcpy(&n_sequences, m->at + 18, sizeof n_sequences);
    if (version != 1)
        return RT_FAIL(e, RT_BAD, "%s: Megatron index version %" PRIu64 ", 1 is understood", idx,
                       version);
    if (code >= sizeof width_of / sizeof *width_of || !width_of[code])
        return RT_FAIL(e, RT_BAD, "%s: dtype code %u is not an integer type", idx, code);
    if (n_sequences > (m->n_bytes - MEGATRON_HEADER_BYTES) / 12)
        return RT_FAIL(e, RT_BAD,
                       "%s: says %" PRIu64
                       " sequences, but is too short for them: truncated; copy it again",
                       idx, n_sequences);
    RT_TRY(set_width(f, width_of[code], width, is_given, e));
    f->is_signed = code >= 2 && code <= 5;
    const unsigned char *lengths = m->at + MEGATRON_HEADER_BYTES,
                        *offsets = lengths + 4 * n_sequences;
    int64_t total = 0;
    for (uint64_t i = 0; i < n_sequences; i++) {
        int32_t length;
        int64_t offset;
        memcpy(&length, lengths + 4 * i, sizeof length);
        memcpy(&offset, offsets + 8 * i, sizeof offset);
        if (length < 0 || offset != total * f->width)
            return RT_FAIL(e, RT_BAD,
                           "%s: sequence %" PRIu64 " does not start where the one before ends", idx,
                           i);
        total += length;
    }
    f->n_tokens = total;
    return RT_OK;
}

static RtStatus open_megatron(TokenFile *f, Arena *a, const char *idx, int width, bool is_given,
                              RtError *e)
{
    MappedFile m;
    int err = file_map(idx, &m);
    if (err) return RT_FAIL(e, RT_BAD, "cannot read %s: %s", idx, strerror(err));
    RtStatus s = read_index(f, idx, &m, width, is_given, e);
    file_unmap(&m);
    if (s != RT_OK) return s;
    const char *bin = arena_printf(a, "%.*sbin", (int)strlen(idx) - 3, idx);
    err = file_map(bin, &f->map);
    if (err)
        return RT_FAIL(e, RT_BAD, "cannot read %s, the data of %s: %s", bin, idx, strerror(err));
    f->path = bin;
    f->at = f->map.at;
    if ((uint64_t)f->n_tokens > f->map.n_bytes / (size_t)f->width)
        return RT_FAIL(e, RT_BAD,
                       "%s: %s says %" PRId64
                       " tokens, the file holds %zu: truncated; copy it again",
                       bin, idx, f->n_tokens, f->map.n_bytes / (size_t)f->width);
    return RT_OK;
}

/* ---- one file ---- */

static RtStatus open_raw(TokenFile *f, int width, RtError *e)
{
    f->width = width;
    f->at = f->map.at;
    f->n_tokens = (int64_t)(f->map.n_bytes / (size_t)width);
    if (f->map.n_bytes % (size_t)width)
        return RT_FAIL(e, RT_BAD,
                       "%s: %zu bytes are not a whole number of u%d tokens; check --dtype", f->path,
                       f->map.n_bytes, 8 * width);
    return RT_OK;
}

RtStatus token_file_open(TokenFile *f, Arena *a, const char *path, int width, bool is_given,
                         RtError *e)
{
    *f = (TokenFile){.path = arena_strdup(a, path)};
    if (ends_with(path, ".idx")) return open_megatron(f, a, path, width, is_given, e);
    if (ends_with(path, ".bin")) {
        const char *idx = arena_printf(a, "%.*sidx", (int)strlen(path) - 3, path);
        if (access(idx, F_OK) == 0) return open_megatron(f, a, idx, width, is_given, e);
    }
    int err = file_map(path, &f->map);
    if (err) return RT_FAIL(e, RT_BAD, "cannot read %s: %s", path, strerror(err));
    return is_llmc(&f->map) ? open_llmc(f, width, is_given, e) : open_raw(f, width, e);
}
