/* data.h -- where samples come from and in which order: token files or tensors, memory-mapped, and
 * the map from the running sample number k to the sample that is read (docs/runtime.md, Data).
 *
 *   step s, micro-batch m, rank r, row b  ->  k = ((s * A + m) * ranks + r) * B + b  ->  order  ->
 * sample in [0, n) sequential   k mod n random       a bijection of [0, n), keyed by (seed, epoch =
 * k / n), of k mod n */
#ifndef ZM_RUNTIME_DATA_H
#define ZM_RUNTIME_DATA_H

#include "runtime/exec.h"
#include "runtime/safetensors.h"

typedef enum DataOrder { ORDER_RANDOM, ORDER_SEQUENTIAL } DataOrder;

/* The sample in [0, n) of running number k >= 0. */
int64_t order_sample(DataOrder order, uint64_t seed, int64_t n, int64_t k);

/* ---- token files (data_tokens.c) ---- */

typedef struct TokenFile {
    const char *path;
    MappedFile map;
    const unsigned char *at; /* the first token */
    int64_t n_tokens;
    int width; /* bytes of a token */
    bool is_signed;
    int64_t n_samples;    /* floor((n_tokens - 1) / T), not below 0 */
    int64_t first_sample; /* those of the files before */
} TokenFile;

int64_t token_at(const TokenFile *f, int64_t i);

/* One file: raw tokens of `width` bytes, llm.c's .bin or Megatron's .idx with its .bin.  is_given:
 * --dtype was said. */
RtStatus token_file_open(TokenFile *f, Arena *a, const char *path, int width, bool is_given,
                         RtError *e);

/* ---- corrupted texts (data_corrupt.c) ---- */

typedef struct CorruptKey {
    uint64_t seed;
    int64_t epoch, sample;
} CorruptKey;

/* masked_lm: each position is chosen with probability h->corrupt_rate; of the chosen 80 % become
 * h->corrupt_mask, 10 % a uniform token of the vocabulary, 10 % stay.  targets: the text where
 * chosen, else `ignore`. */
void corrupt_mask(const CorruptKey *k, const ZmpHeader *h, int64_t vocabulary, const int32_t *text,
                  int64_t n, int32_t ignore, int32_t *tokens, int32_t *targets);

typedef struct SpanRows {
    int32_t *inputs, *targets, *decoder;
    int64_t n_inputs, n_targets; /* decoder: n_targets */
    int32_t ignore;
} SpanRows;

/* Tokens of text that one sample takes: the most whose inputs fit; 0: none do, or too few targets
 * or sentinels for it. */
int64_t corrupt_raw_length(const ZmpHeader *h, int64_t n_inputs, int64_t n_targets);
/* span_corruption of text[0..n), n = corrupt_raw_length(). */
void corrupt_spans(const CorruptKey *k, const ZmpHeader *h, const int32_t *text, int64_t n,
                   SpanRows *out);

/* Is a feed of this kind targets, whose ignored elements carry no loss? */
static inline bool feed_is_targets(uint32_t kind)
{
    return kind == ZMP_TARGETS || kind == ZMP_MASK_TARGETS || kind == ZMP_SPAN_TARGETS;
}

/* ---- a source ---- */

typedef struct DataSpec {
    const char *path; /* file, directory or .safetensors */
    int width;        /* of raw tokens; 0: by the vocabulary */
    DataOrder order;
    uint64_t seed;
} DataSpec;

typedef struct Data {
    const Program *p;
    DataSpec spec;
    int64_t n_samples;
    int64_t T;              /* tokens of a sample */
    int32_t *text, *row[3]; /* corrupted texts: T tokens; inputs, targets, decoder of one row */
    bool is_tensors;
    VEC(TokenFile) files; /* in order of name */
    SafeFile tensors;
    const SafeTensor **feed_tensor; /* per feed */
    size_t mapped_bytes;
} Data;

RtStatus data_open(Data *d, Arena *a, const Program *p, const DataSpec *spec, RtError *e);
void data_close(Data *d);

/* Fills f's inputs with the samples of running numbers first_k ...; rows from n_rows on get ignored
 * targets (or zeros). Values out of range are refused with their place.  Safe at any step: never
 * reads outside the files. */
RtStatus data_fill(const Data *d, const Exec *x, const ZmpFunc *f, int64_t first_k, int64_t n_rows,
                   RtError *e);
/* Lets go of mapped pages of large files, so that the resident size stays that of the arena. */
void data_forget(const Data *d);

/* A targets feed that can mark rows as ignored: then an incomplete last batch can be evaluated. */
bool data_can_pad(const Program *p);

/* Fills input "rng", if f has it: seed, step, number of the micro-batch's first sample. */
void fill_rng(const Exec *x, const ZmpFunc *f, uint64_t seed, int64_t step, int64_t first_k);

#endif
