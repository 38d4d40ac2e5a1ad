/* kernel_hash.c -- equality of kernel forms: what two ops must share to share one compiled kernel.
 */
#include <string.h>

#include "codegen/kernel.h"

/* A form as a list of numbers; names, locations, costs, shared memory and
 * the values of constants do not count. */
typedef struct Words {
    Arena arena;
    VEC(int64_t) list;
} Words;

static void put(Words *w, int64_t v)
{
    VEC_PUSH(&w->arena, &w->list, v);
}

static void put_f64(Words *w, double v)
{
    int64_t bits;
    memcpy(&bits, &v, sizeof bits);
    put(w, bits);
}

static void put_strides(Words *w, const int64_t *stride, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) put(w, stride[i]);
}

static void put_access(Words *w, const Access *x, uint32_t n_loops)
{
    put(w, x->arg);
    put(w, x->dyn);
    put(w, x->dyn_stride);
    put(w, x->base);
    put_strides(w, x->stride, n_loops);
    put(w, x->n_guards);
    for (uint32_t i = 0; i < x->n_guards; i++) {
        put(w, x->guards[i].base);
        put(w, x->guards[i].lo);
        put(w, x->guards[i].hi);
        put_strides(w, x->guards[i].stride, n_loops);
    }
}

static void put_node(Words *w, const Node *n)
{
    put(w, n->kind);
    put(w, n->op);
    put(w, n->dtype);
    put(w, n->level);
    put(w, n->stage);
    put(w, n->n_args);
    for (uint32_t i = 0; i < n->n_args; i++) put(w, n->arg[i]);
    put(w, n->index);
    put_f64(w, n->imm);
}

static void put_operand(Words *w, const AttnOperand *x)
{
    put(w, x->arg);
    if (x->arg < 0) return;
    put(w, x->dtype);
    put(w, x->base);
    put_strides(w, x->stride, 4);
}

static void put_attention(Words *w, const AttnSpec *s)
{
    const int64_t dims[] = {s->is_backward, s->is_causal, s->B, s->H, s->T, s->S, s->D, s->Dv};
    put_strides(w, dims, sizeof dims / sizeof *dims);
    put_f64(w, s->scale);
    put_f64(w, s->p);
#define PUT(NAME) put_operand(w, &s->NAME);
    ATTN_OPERANDS(PUT)
#undef PUT
}

static void put_kernel(Words *w, const Kernel *k)
{
    put(w, k->kind);
    put(w, k->n_args);
    put(w, k->n_consts);
    for (uint32_t i = 0; i < k->n_args; i++) {
        put(w, k->args[i].dtype);
        put(w, k->args[i].elems);
        put(w, k->args[i].is_out);
        if (k->kind == KK_SCATTER) put(w, k->args[i].alias_in); /* where the sum starts */
    }
    if (k->kind == KK_ATTENTION) {
        put_attention(w, &k->attn);
        return;
    }
    put(w, k->n_loops);
    for (uint32_t i = 0; i < k->n_loops; i++) {
        put(w, k->loops[i].kind);
        put(w, k->loops[i].extent);
    }
    put(w, k->n_nodes);
    for (uint32_t i = 0; i < k->n_nodes; i++) put_node(w, &k->nodes[i]);
    put(w, k->n_accesses);
    for (uint32_t i = 0; i < k->n_accesses; i++) put_access(w, &k->accesses[i], k->n_loops);
    put(w, k->n_stores);
    for (uint32_t i = 0; i < k->n_stores; i++) {
        put(w, k->stores[i].node);
        put(w, k->stores[i].level);
        put(w, k->stores[i].mode);
        put_access(w, &k->stores[i].to, k->n_loops);
    }
    put(w, k->node_a);
    put(w, k->node_b);
}

uint64_t kernel_hash(const Kernel *k)
{
    Words w = {0};
    put_kernel(&w, k);
    uint64_t h = hash_bytes(w.list.at, w.list.n * sizeof *w.list.at, 0);
    arena_free(&w.arena);
    return h;
}

bool kernel_equal(const Kernel *x, const Kernel *y)
{
    Words p = {0}, q = {0};
    put_kernel(&p, x);
    put_kernel(&q, y);
    bool is_equal =
        p.list.n == q.list.n && memcmp(p.list.at, q.list.at, p.list.n * sizeof *p.list.at) == 0;
    arena_free(&p.arena);
    arena_free(&q.arena);
    return is_equal;
}
