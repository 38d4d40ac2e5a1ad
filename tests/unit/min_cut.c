/* min_cut.c -- min_cut_run against every cut of small random graphs. */
#include <stdio.h>
#include <stdlib.h>

#include "ir/base/philox.h"
#include "passes/recompute/min_cut.h"

enum { MOST_NODES = 8, MOST_EDGES = 24, N_GRAPHS = 20000 };

typedef struct Graph {
    uint32_t n, n_edges;
    struct {
        uint32_t from, to;
        int64_t capacity;
    } edge[MOST_EDGES];
} Graph;

static uint32_t draw(uint32_t *counter, uint32_t below)
{
    return philox((*counter)++, 0, 0, 0, 7, 8).x[0] % below;
}

static Graph random_graph(uint32_t *counter)
{
    Graph g = {.n = 2 + draw(counter, MOST_NODES - 1)};
    g.n_edges = draw(counter, MOST_EDGES + 1);
    for (uint32_t i = 0; i < g.n_edges; i++) {
        g.edge[i].from = draw(counter, g.n);
        g.edge[i].to = draw(counter, g.n);
        g.edge[i].capacity = draw(counter, 8) ? draw(counter, 5) : CUT_NEVER;
    }
    return g;
}

/* Capacity of the edges that lead into the sink's side, at most CUT_NEVER. */
static int64_t capacity_of(const Graph *g, uint32_t sink_side)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < g->n_edges; i++) {
        bool crosses = !(sink_side >> g->edge[i].from & 1) && sink_side >> g->edge[i].to & 1;
        if (crosses && g->edge[i].capacity == CUT_NEVER) return CUT_NEVER;
        if (crosses) sum += g->edge[i].capacity;
    }
    return sum;
}

/* Node 0 is the source, node 1 the sink.  The smallest capacity, and the least sink side that has
 * it: the intersection of all of them has it too. */
static int64_t best_of_all(const Graph *g, uint32_t *least)
{
    int64_t best = CUT_NEVER;
    *least = 0;
    for (uint32_t side = 2; side < 1u << g->n; side += 1) {
        if (side & 1 || !(side & 2)) continue;
        int64_t c = capacity_of(g, side);
        if (c < best) *least = side;
        if (c < best) best = c;
        if (c == best) *least &= side;
    }
    return best;
}

static void check(const Graph *g)
{
    Arena a = {0};
    MinCut *c = min_cut_new(&a, g->n);
    for (uint32_t i = 0; i < g->n_edges; i++)
        min_cut_edge(c, g->edge[i].from, g->edge[i].to, g->edge[i].capacity);
    bool is_sink_side[MOST_NODES];
    uint32_t least, have = 0;
    int64_t best = best_of_all(g, &least), flow = min_cut_run(c, 0, 1, is_sink_side);
    ZM_CHECK(best >= CUT_NEVER ? flow >= CUT_NEVER : flow == best);
    for (uint32_t v = 0; v < g->n; v++) have |= (uint32_t)is_sink_side[v] << v;
    ZM_CHECK(best >= CUT_NEVER || have == least);
    arena_free(&a);
}

int main(void)
{
    uint32_t counter = 0;
    for (int i = 0; i < N_GRAPHS; i++) {
        Graph g = random_graph(&counter);
        check(&g);
    }
    printf("%d graphs\n", N_GRAPHS);
    return 0;
}
