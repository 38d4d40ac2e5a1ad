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

/* Arena with so many steps; INT64_MAX when the model does not compile.  Only the module without
 * recomputation is kept, for the report. */
static int64_t try_steps(Trials *x, int64_t steps)
{
    Arena own = {0}, *a = steps ? &own : &x->s->arena;
    const Module *m = session_try(x->s, a, x->t, x->text, x->n, steps, &x->found);
    int64_t bytes = m ? m->arena_bytes : INT64_MAX;
    if (steps == 0) x->s->without = m;
    arena_free(&own);
    if (bytes < x->best_arena) {
        x->best_arena = bytes;
        x->best_steps = steps;
    }
    return bytes;
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
 * last step does not fit, some before it are tried, and the cheap ones alone.  What is tried does
 * not depend on the budget: when nothing fits, the smallest arena is the smallest budget. */
static int64_t choose_for(Trials *x, int64_t without)
{
    int64_t all = x->found.n, cheap = x->found.n_cheap, last = 0;
    if (without <= x->s->opt.memory) return 0;
    for (int i = 0; i <= N_SCAN; i++) {
        int64_t steps = i < N_SCAN ? all - all * i / N_SCAN : cheap;
        if (steps == last) continue;
        if (try_steps(x, steps) <= x->s->opt.memory) return bisect(x, 0, steps);
        last = steps;
    }
    return x->best_steps;
}

bool recompute_is_auto(const Session *s)
{
    return s->opt.recompute && strcmp(s->opt.recompute, "auto") == 0;
}

int64_t recompute_choose(Session *s, CodegenTarget *t, const char *text, size_t n)
{
    if (!s->opt.recompute || strcmp(s->opt.recompute, "none") == 0) return 0;
    Trials x = {.s = s, .t = t, .text = text, .n = n, .best_arena = INT64_MAX};
    int64_t without = try_steps(&x, 0);
    if (without == INT64_MAX || !x.found.n) return 0; /* errors come with the real compilation */
    int64_t steps = x.found.n;
    if (recompute_is_auto(s) && s->opt.memory)
        steps = choose_for(&x, without);
    else if (recompute_is_auto(s))
        steps = try_steps(&x, x.found.n_cheap) < without ? x.found.n_cheap : 0;
    s->recompute.steps = (uint32_t)steps;
    s->recompute.n_steps = x.found.n;
    return steps;
}
