/* kernel_trim.c -- an argument begins at the first element that its kernel reads and ends at the
 * last.  So the same work on another part of a value (a chunk of the tokens) is the same form. */
#include "codegen/program.h"

/* The elements of an argument that its loads reach. */
typedef struct Reach {
    int64_t first, last;
    bool is_known; /* no table, no guard, nothing else than loads */
} Reach;

static void reach_of_access(const Kernel *k, const Access *at, Reach *r)
{
    int64_t first = at->base, last = at->base;
    if (at->dyn >= 0 || at->n_guards > 0) r->is_known = false;
    for (uint32_t d = 0; d < k->n_loops; d++) {
        int64_t span = at->stride[d] * (k->loops[d].extent - 1);
        first += span < 0 ? span : 0;
        last += span > 0 ? span : 0;
    }
    if (first < r->first) r->first = first;
    if (last > r->last) r->last = last;
}

static bool may_share(const Kernel *k, uint32_t arg)
{
    for (uint32_t i = 0; i < k->n_args; i++)
        if (k->args[i].is_out && k->args[i].alias_in == (int32_t)arg) return true;
    return k->args[arg].is_out;
}

static Reach reach_of(const Kernel *k, uint32_t arg)
{
    Reach r = {.first = INT64_MAX, .last = -1, .is_known = !may_share(k, arg)};
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (k->nodes[i].kind == KN_LOAD && k->accesses[k->nodes[i].index].arg == (int32_t)arg)
            reach_of_access(k, &k->accesses[k->nodes[i].index], &r);
    r.is_known &= r.last >= r.first && r.first >= 0 && r.last < k->args[arg].elems;
    return r;
}

void kernel_trim(Kernel *k, int64_t *first)
{
    uint32_t n = k->n_args - (k->n_consts > 0 ? 1 : 0);
    for (uint32_t i = 0; i < n; i++) {
        first[i] = 0;
        Reach r = reach_of(k, i);
        if (k->kind == KK_ATTENTION || !r.is_known) continue;
        first[i] = r.first;
        k->args[i].elems = r.last - r.first + 1;
        for (uint32_t a = 0; a < k->n_accesses; a++)
            if (k->accesses[a].arg == (int32_t)i) k->accesses[a].base -= r.first;
    }
}
