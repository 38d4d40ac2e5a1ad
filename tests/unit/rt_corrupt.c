/* rt_corrupt.c -- masked_lm chooses and replaces at its rates; span_corruption keeps every token,
 * in order, exactly once. */
#include <math.h>
#include <stdio.h>

#include "runtime/data.h"

enum { N = 512, VOCABULARY = 1000, MASK = 999, IGNORE = -100, ROWS = 400 };

/* |found - n p| within 5 standard deviations of a binomial. */
static int is_rate(const char *what, int64_t found, int64_t n, double p)
{
    double want = (double)n * p, sigma = sqrt(want * (1 - p));
    if (fabs((double)found - want) <= 5 * sigma) return 0;
    printf("%s: %lld of %lld, expected %.0f +- %.0f\n", what, (long long)found, (long long)n, want,
           5 * sigma);
    return 1;
}

static int test_masks(void)
{
    ZmpHeader h = {.corrupt_rate = 0.15, .corrupt_mask = MASK};
    int32_t text[N], tokens[N], targets[N], again[N];
    int64_t chosen = 0, masked = 0, kept = 0;
    int bad = 0;
    for (int32_t i = 0; i < N; i++) text[i] = i;
    for (int64_t r = 0; r < ROWS; r++) {
        CorruptKey k = {7, r / 100, r % 100};
        corrupt_mask(&k, &h, VOCABULARY, text, N, IGNORE, tokens, targets);
        for (int i = 0; i < N; i++) {
            bool is_chosen = targets[i] != IGNORE;
            chosen += is_chosen;
            masked += is_chosen && tokens[i] == MASK;
            kept += is_chosen && tokens[i] == text[i];
            bad += is_chosen ? targets[i] != text[i] : tokens[i] != text[i];
            bad += tokens[i] < 0 || tokens[i] >= VOCABULARY;
        }
        corrupt_mask(&k, &h, VOCABULARY, text, N, IGNORE, again, targets);
        for (int i = 0; i < N; i++) bad += tokens[i] != again[i];
    }
    bad += is_rate("chosen", chosen, (int64_t)ROWS * N, 0.15);
    bad += is_rate("masked", masked, chosen, 0.8 + 0.1 / VOCABULARY);
    bad += is_rate("kept", kept, chosen, 0.1 + 0.1 / VOCABULARY);
    return bad;
}

/* Puts the spans back behind their sentinels. */
static int is_inverted(const ZmpHeader *h, const SpanRows *r, const int32_t *text, int64_t n)
{
    int64_t at = 0, to = 0;
    for (int64_t i = 0; i < r->n_inputs && r->inputs[i] != h->corrupt_eos; i++) {
        if (r->inputs[i] < n) { /* text counts 0 .. n - 1 */
            if (at >= n || r->inputs[i] != text[at++]) return 0;
            continue;
        }
        if (r->targets[to++] != r->inputs[i]) return 0;
        while (r->targets[to] < n && at < n) {
            if (r->targets[to++] != text[at++]) return 0;
        }
    }
    if (at != n || r->targets[to++] != h->corrupt_eos) return 0;
    while (to < r->n_targets)
        if (r->targets[to++] != r->ignore) return 0;
    return 1;
}

static int test_spans(int64_t n_in, int64_t n_to, double density, double span)
{
    Arena a = {0};
    ZmpHeader h = {.corrupt_rate = density,
                   .corrupt_span = span,
                   .corrupt_mask = 31999,
                   .corrupt_eos = 32001,
                   .corrupt_start = 32002};
    int64_t n = corrupt_raw_length(&h, n_in, n_to), starts = 0;
    int bad = n < 2;
    int32_t *text = ARENA_ARRAY(&a, int32_t, n);
    SpanRows r = {ARENA_ARRAY(&a, int32_t, n_in),
                  ARENA_ARRAY(&a, int32_t, n_to),
                  ARENA_ARRAY(&a, int32_t, n_to),
                  n_in,
                  n_to,
                  IGNORE};
    for (int64_t i = 0; i < n; i++) text[i] = (int32_t)i;
    for (int64_t s = 0; s < 200 && !bad; s++) {
        CorruptKey k = {3, 1, s};
        corrupt_spans(&k, &h, text, n, &r);
        bad += !is_inverted(&h, &r, text, n);
        bad += r.decoder[0] != h.corrupt_start;
        for (int64_t i = 1; i < n_to; i++)
            bad += r.targets[i - 1] != IGNORE && r.decoder[i] != r.targets[i - 1];
        starts += r.inputs[1] >= 31000; /* the first kept piece has one token */
    }
    if (bad) printf("spans of %lld and %lld: %d wrong\n", (long long)n_in, (long long)n_to, bad);
    bool can_vary = n > 40 && density < 0.5; /* else every piece is one token */
    if (can_vary && (starts == 0 || starts == 200)) bad += printf("the pieces do not vary\n") > 0;
    arena_free(&a);
    return bad;
}

int main(void)
{
    int bad = test_masks() + test_spans(512, 114, 0.15, 3) + test_spans(16, 9, 0.15, 3) +
              test_spans(4, 4, 0.15, 3) + test_spans(60, 60, 0.5, 1) + test_spans(100, 48, 0.3, 10);
    ZmpHeader h = {.corrupt_rate = 0.15, .corrupt_span = 3, .corrupt_mask = 99};
    bad += corrupt_raw_length(&h, 2, 2) != 0;
    /* T5's published sizes: inputs of 512 take 568 tokens and give targets of 114. */
    h.corrupt_mask = 32099;
    bad += corrupt_raw_length(&h, 512, 114) != 568 || corrupt_raw_length(&h, 512, 113) != 0;
    printf("%d failures\n", bad);
    return bad != 0;
}
