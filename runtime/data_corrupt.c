/* data_corrupt.c -- masked_lm and span_corruption: a text and what to predict of it (data.h).
 *
 * Drawn by Philox from (seed, epoch, sample, position) alone: the same for any number of ranks,
 * rows, threads and after a resume.  Masks: Devlin et al., arXiv:1810.04805.  Spans: Raffel et al.,
 * arXiv:1910.10683: noise and text are cut into equally many random pieces, text first; inputs and
 * targets share the sentinels, which count down. */
#include "runtime/data.h"

#include "ir/base/philox.h"
#include "ir/base/spans.h"

static Philox draw(const CorruptKey *k, int64_t i, uint32_t purpose)
{
    return philox((uint32_t)i, (uint32_t)k->sample, (uint32_t)k->epoch, purpose, (uint32_t)k->seed,
                  (uint32_t)(k->seed >> 32) ^ (uint32_t)((uint64_t)k->sample >> 32));
}

static double uniform(uint32_t word)
{
    return word / 4294967296.0;
}

enum { DRAW_MASK = 0x6d61736b, DRAW_NOISE = 0x6e6f6973, DRAW_TEXT = 0x74657874 };

void corrupt_mask(const CorruptKey *k, const ZmpHeader *h, int64_t vocabulary, const int32_t *text,
                  int64_t n, int32_t ignore, int32_t *tokens, int32_t *targets)
{
    for (int64_t i = 0; i < n; i++) {
        Philox w = draw(k, i, DRAW_MASK);
        bool is_chosen = uniform(w.x[0]) < h->corrupt_rate;
        double how = uniform(w.x[1]);
        tokens[i] = text[i];
        targets[i] = is_chosen ? text[i] : ignore;
        if (is_chosen && how < 0.8) tokens[i] = (int32_t)h->corrupt_mask;
        if (is_chosen && how >= 0.9)
            tokens[i] = (int32_t)(((uint64_t)w.x[2] * (uint64_t)vocabulary) >> 32);
    }
}

int64_t corrupt_raw_length(const ZmpHeader *h, int64_t n_inputs, int64_t n_targets)
{
    SpanSizes s = span_sizes_fit(h->corrupt_rate, h->corrupt_span, n_inputs);
    return s.targets <= n_targets && s.spans <= h->corrupt_mask + 1 ? s.text : 0;
}

/* Walks the lengths of n_pieces non-empty pieces of n elements, uniform over all ways: element i
 * starts a piece with the probability that makes every choice of starts equally likely (selection
 * sampling). */
typedef struct Pieces {
    const CorruptKey *k;
    uint32_t purpose;
    int64_t n, at, starts_left;
} Pieces;

static int64_t next_piece(Pieces *p)
{
    int64_t length = 1;
    for (p->at++; p->at < p->n; p->at++, length++) {
        double chance = (double)p->starts_left / (double)(p->n - p->at);
        if (uniform(draw(p->k, p->at, p->purpose).x[0]) >= chance) continue;
        p->starts_left--;
        return length;
    }
    return length;
}

void corrupt_spans(const CorruptKey *k, const ZmpHeader *h, const int32_t *text, int64_t n,
                   SpanRows *out)
{
    int64_t in = 0, to = 0, from = 0;
    SpanSizes size = span_sizes(h->corrupt_rate, h->corrupt_span, n);
    Pieces kept = {k, DRAW_TEXT, n - size.noise, 0, size.spans - 1},
           noise = {k, DRAW_NOISE, size.noise, 0, size.spans - 1};
    for (int64_t s = 0; s < size.spans; s++) {
        int32_t sentinel = (int32_t)(h->corrupt_mask - s);
        for (int64_t i = next_piece(&kept); i > 0; i--) out->inputs[in++] = text[from++];
        out->inputs[in++] = sentinel;
        out->targets[to++] = sentinel;
        for (int64_t i = next_piece(&noise); i > 0; i--) out->targets[to++] = text[from++];
    }
    out->inputs[in++] = (int32_t)h->corrupt_eos;
    out->targets[to++] = (int32_t)h->corrupt_eos;
    for (int64_t i = 0; i < out->n_targets; i++) {
        int32_t before = i == 0    ? (int32_t)h->corrupt_start
                         : i <= to ? out->targets[i - 1]
                                   : (int32_t)h->corrupt_start;
        out->decoder[i] = before;
    }
    while (in < out->n_inputs) out->inputs[in++] = (int32_t)h->corrupt_start;
    while (to < out->n_targets) out->targets[to++] = out->ignore;
}
