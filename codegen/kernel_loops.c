/* kernel_loops.c -- see kernel_loops.h. */
#include "codegen/kernel_loops.h"

static bool steps_as_one(const int64_t *stride, uint32_t l, int64_t inner)
{
    return stride[l] == stride[l + 1] * inner;
}

static bool access_steps_as_one(const Access *x, uint32_t l, int64_t inner)
{
    bool is_one = steps_as_one(x->stride, l, inner);
    for (uint32_t g = 0; g < x->n_guards; g++)
        is_one = is_one && steps_as_one(x->guards[g].stride, l, inner);
    return is_one;
}

static bool can_merge(const Kernel *k, uint32_t l)
{
    int64_t inner = k->loops[l + 1].extent;
    if (k->loops[l].kind != k->loops[l + 1].kind) return false;
    for (uint32_t i = 0; i < k->n_accesses; i++)
        if (!access_steps_as_one(&k->accesses[i], l, inner)) return false;
    for (uint32_t i = 0; i < k->n_stores; i++)
        if (!access_steps_as_one(&k->stores[i].to, l, inner)) return false;
    return true;
}

/* Loop l goes: the one inside of it takes its iterations. */
static void drop_stride(int64_t *stride, uint32_t l, uint32_t n)
{
    for (; l + 1 < n; l++) stride[l] = stride[l + 1];
    stride[n - 1] = 0;
}

static void access_drop(Access *x, uint32_t l, uint32_t n)
{
    drop_stride(x->stride, l, n);
    for (uint32_t g = 0; g < x->n_guards; g++) drop_stride((int64_t *)x->guards[g].stride, l, n);
}

static void merge(Kernel *k, uint32_t l)
{
    k->loops[l + 1].extent *= k->loops[l].extent;
    for (uint32_t i = 0; i < k->n_accesses; i++) access_drop(&k->accesses[i], l, k->n_loops);
    for (uint32_t i = 0; i < k->n_stores; i++) access_drop(&k->stores[i].to, l, k->n_loops);
    for (uint32_t d = l; d + 1 < k->n_loops; d++) k->loops[d] = k->loops[d + 1];
    k->n_loops--;
}

void kernel_merge_loops(Kernel *k)
{
    for (uint32_t l = 0; l + 1 < k->n_loops;) {
        if (can_merge(k, l))
            merge(k, l);
        else
            l++;
    }
}
