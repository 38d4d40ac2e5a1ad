/* min_cut.c -- see min_cut.h.  Edges lie in pairs: 2k and its reverse 2k + 1. */
#include "passes/recompute/min_cut.h"

#include "ir/base/vec.h"

#include <string.h>

typedef struct Edge {
    uint32_t to, next; /* next edge of the same node + 1 */
    int64_t left;      /* capacity that the flow leaves */
} Edge;

struct MinCut {
    Arena *a;
    uint32_t n;
    uint32_t *first; /* by node: edge + 1 */
    VEC(Edge) edges;
    uint32_t *level; /* distance from s + 1; 0: not reached */
    uint32_t *at;    /* by node: edge + 1 to try next */
    uint32_t *queue;
};

MinCut *min_cut_new(Arena *a, uint32_t n_nodes)
{
    MinCut *c = ARENA_NEW(a, MinCut);
    *c = (MinCut){.a = a, .n = n_nodes};
    c->first = ARENA_ARRAY(a, uint32_t, n_nodes);
    c->level = ARENA_ARRAY(a, uint32_t, n_nodes);
    c->at = ARENA_ARRAY(a, uint32_t, n_nodes);
    c->queue = ARENA_ARRAY(a, uint32_t, n_nodes);
    return c;
}

static void half_edge(MinCut *c, uint32_t from, uint32_t to, int64_t capacity)
{
    VEC_PUSH(c->a, &c->edges, ((Edge){to, c->first[from], capacity}));
    c->first[from] = c->edges.n;
}

void min_cut_edge(MinCut *c, uint32_t from, uint32_t to, int64_t capacity)
{
    half_edge(c, from, to, capacity);
    half_edge(c, to, from, 0);
}

/* Levels from s along edges with capacity left; does one reach t? */
static bool find_levels(MinCut *c, uint32_t s, uint32_t t)
{
    memset(c->level, 0, c->n * sizeof *c->level);
    uint32_t head = 0, tail = 0;
    c->queue[tail++] = s;
    c->level[s] = 1;
    while (head < tail) {
        uint32_t v = c->queue[head++];
        for (uint32_t e = c->first[v]; e; e = c->edges.at[e - 1].next) {
            const Edge *x = &c->edges.at[e - 1];
            if (x->left <= 0 || c->level[x->to]) continue;
            c->level[x->to] = c->level[v] + 1;
            c->queue[tail++] = x->to;
        }
    }
    return c->level[t] > 0;
}

/* One path from s to t, level by level, with what it can carry; 0: none is left.  path: room for
 * n edges. */
static int64_t push_path(MinCut *c, uint32_t s, uint32_t t, uint32_t *path)
{
    uint32_t n = 0, v = s;
    while (v != t) {
        uint32_t e = c->at[v];
        while (e &&
               !(c->edges.at[e - 1].left > 0 && c->level[c->edges.at[e - 1].to] == c->level[v] + 1))
            e = c->edges.at[e - 1].next;
        c->at[v] = e;
        if (e) {
            path[n++] = e - 1;
            v = c->edges.at[e - 1].to;
            continue;
        }
        if (n == 0) return 0;
        uint32_t back = path[--n]; /* a dead end: never again in this phase */
        v = c->edges.at[back ^ 1].to;
        c->at[v] = c->edges.at[back].next;
    }
    int64_t most = CUT_NEVER;
    for (uint32_t i = 0; i < n; i++)
        if (c->edges.at[path[i]].left < most) most = c->edges.at[path[i]].left;
    for (uint32_t i = 0; i < n; i++) {
        c->edges.at[path[i]].left -= most;
        c->edges.at[path[i] ^ 1].left += most;
    }
    return most;
}

/* Nodes from which t is reached along edges with capacity left. */
static void find_sink_side(MinCut *c, uint32_t t, bool *is_sink_side)
{
    memset(is_sink_side, 0, c->n * sizeof *is_sink_side);
    uint32_t head = 0, tail = 0;
    c->queue[tail++] = t;
    is_sink_side[t] = true;
    while (head < tail) {
        uint32_t v = c->queue[head++];
        for (uint32_t e = c->first[v]; e; e = c->edges.at[e - 1].next) {
            uint32_t from = c->edges.at[e - 1].to;
            if (is_sink_side[from] || c->edges.at[(e - 1) ^ 1].left <= 0) continue;
            is_sink_side[from] = true;
            c->queue[tail++] = from;
        }
    }
}

int64_t min_cut_run(MinCut *c, uint32_t s, uint32_t t, bool *is_sink_side)
{
    uint32_t *path = ARENA_ARRAY(c->a, uint32_t, c->n);
    int64_t flow = 0;
    while (flow < CUT_NEVER && find_levels(c, s, t)) {
        memcpy(c->at, c->first, c->n * sizeof *c->at);
        for (int64_t more; flow < CUT_NEVER && (more = push_path(c, s, t, path)) > 0;) flow += more;
    }
    find_sink_side(c, t, is_sink_side);
    return flow;
}
