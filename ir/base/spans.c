/* spans.c -- see spans.h. */
#include "ir/base/spans.h"

#include <math.h>

static int64_t clamp(int64_t v, int64_t least, int64_t most)
{
    return v < least ? least : v > most ? most : v;
}

SpanSizes span_sizes(double density, double span, int64_t n)
{
    int64_t noise = clamp((int64_t)rint((double)n * density), 1, n - 1);
    int64_t kept = n - noise, most = noise < kept ? noise : kept;
    int64_t spans = clamp((int64_t)rint((double)noise / span), 1, most);
    return (SpanSizes){n, noise, spans, kept + spans + 1, noise + spans + 1};
}

/* One more token is kept, or dropped: neither makes the inputs shorter, so bisection finds it. */
SpanSizes span_sizes_fit(double density, double span, int64_t n_inputs)
{
    int64_t n = 1;
    for (int64_t step = (int64_t)1 << 40; step; step /= 2)
        if (span_sizes(density, span, n + step).inputs <= n_inputs) n += step;
    return n < 2 ? (SpanSizes){0} : span_sizes(density, span, n);
}
