/* min_cut.h -- smallest cut between two nodes of a directed graph (Dinic's algorithm: Y. Dinitz
 * 1970; blocking flows on level graphs). */
#ifndef ZM_PASSES_RECOMPUTE_MIN_CUT_H
#define ZM_PASSES_RECOMPUTE_MIN_CUT_H

#include "ir/base/arena.h"

#include <stdint.h>

#define CUT_NEVER (INT64_MAX / 4) /* capacity of an edge that no cut may use */

typedef struct MinCut MinCut;
MinCut *min_cut_new(Arena *a, uint32_t n_nodes);
void min_cut_edge(MinCut *c, uint32_t from, uint32_t to, int64_t capacity);

/* is_sink_side[v]: t is reached from v without crossing the cut.  Of all smallest cuts the one
 * nearest to t.  Returns its capacity; from CUT_NEVER on there is no finite cut. */
int64_t min_cut_run(MinCut *c, uint32_t s, uint32_t t, bool *is_sink_side);

#endif
