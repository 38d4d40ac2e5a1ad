/* recompute.c -- how much the backward computes again: --recompute and --memory (docs/memory.md).
 *
 * Each candidate is compiled to its plan, so what is compared is the arena itself: with the order
 * of ops, the kernels and the packing that belong to it.
 */
#include <string.h>

#include "tools/zmc/zmc.h"

enum { N_SCAN = 8 };

typedef struct Trials {
    Session *s;
    CodegenTarget *t;
    const char *text;
    size_t n;
    RecomputeSteps found;
    int64_t best_steps, best_arena; /* smallest arena so far, fewest steps */
} Trials;

/* Arena with so many steps; INT64_MAX when the model does not compile. */
static int64_t try_steps(Trials *x, int64_t steps)
{
    const Module *m = session_compile_zm(x->s, x->t, x->text, x->n, steps, true, &x->found);
    if (!m) return INT64_MAX;
    if (steps == 0) x->s->without = m;
    if (m->arena_bytes < x->best_arena) {
        x->best_arena = m->arena_bytes;
        x->best_steps = steps;
    }
    return m->arena_bytes;
}

/* Fewest steps in (low, high] whose plan fits, given that high's does and low's does not. */
static int64_t bisect(Trials *x, int64_t low, int64_t high)
{
    while (high - low > 1) {
        int64_t mid = low + (high - low) / 2;
        if (try_steps(x, mid) <= x->s->opt.memory)
            high = mid;
        else
            low = mid;
    }
    return high;
}

/* More steps need not mean a smaller arena: a layer's own copies can be its peak.  So where the
 * last step does not fit, some before it are tried. */
static int64_t choose_for(Trials *x, int64_t without)
{
    int64_t all = x->found.n;
    if (without <= x->s->opt.memory || !all) return 0;
    for (int i = 0; i < N_SCAN; i++) {
        int64_t steps = all - all * i / N_SCAN;
        if (try_steps(x, steps) <= x->s->opt.memory) return bisect(x, 0, steps);
    }
    return x->best_steps;
}

int64_t recompute_choose(Session *s, CodegenTarget *t, const char *text, size_t n)
{
    const char *mode = s->opt.recompute ? s->opt.recompute : "none";
    if (strcmp(mode, "none") == 0) return 0;
    Trials x = {.s = s, .t = t, .text = text, .n = n, .best_arena = INT64_MAX};
    int64_t without = try_steps(&x, 0);
    if (without == INT64_MAX) return 0; /* the errors come with the real compilation */
    int64_t steps = x.found.n;
    if (strcmp(mode, "auto") == 0 && s->opt.memory)
        steps = choose_for(&x, without);
    else if (strcmp(mode, "auto") == 0)
        steps = try_steps(&x, x.found.n_cheap) < without ? x.found.n_cheap : 0;
    s->recompute.steps = (uint32_t)steps;
    s->recompute.n_steps = x.found.n;
    return steps;
}
