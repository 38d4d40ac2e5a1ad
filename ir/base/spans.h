/* spans.h -- sizes of span corruption (Raffel et al., arXiv:1910.10683): how much of a text of n
 * tokens is dropped, in how many spans, and how long inputs and targets become.  The compiler
 * refuses what does not fit with the same arithmetic that the loader runs on. */
#ifndef ZM_BASE_SPANS_H
#define ZM_BASE_SPANS_H

#include <stdint.h>

typedef struct SpanSizes { /* in tokens; text 0: nothing fits */
    int64_t text, noise, spans;
    int64_t inputs;  /* kept tokens, a sentinel for each span, eos */
    int64_t targets; /* sentinels, each with its dropped span, eos */
} SpanSizes;

/* Of a text of n >= 2 tokens; halves are rounded to even, as T5 does.  0 < density < 1, span >= 1:
 * at least one token is dropped and one kept; a piece between two sentinels is never empty. */
SpanSizes span_sizes(double density, double span, int64_t n);

/* Of the longest text whose inputs fit into n_inputs tokens. */
SpanSizes span_sizes_fit(double density, double span, int64_t n_inputs);

#endif
