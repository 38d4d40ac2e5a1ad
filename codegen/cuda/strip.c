/* strip.c -- prints sums down very many columns: a thread takes `width` of them side by side and
 * goes down alone (the gradient of a position embedding: a sum over the batch). */
#include "codegen/cuda/print.h"

#include <stdio.h>

/* One column's row values and stores. */
static void print_column(Printer *p)
{
    const char *j = p->s.width > 1 ? "j" : "0";
    if (p->s.width > 1) print_line(p, "#pragma unroll");
    print_line(p, "for (int j = 0; j < %d; j++) {", p->s.width);
    p->depth++;
    print_line(p, "const %s row = first + j;", p->index_type);
    print_indices(p, LOOP_PAR, "row");
    print_row_nodes(p, 0);
    for (uint32_t i = 0; i < p->k->n_nodes; i++)
        if (is_reduced_at(p, i, 0)) print_reduced(p, i, "r%u[%s]", i, j);
    print_row_nodes(p, 1);
    print_row_stores(p);
    print_close(p);
}

void print_strips(Printer *p)
{
    const CudaSchedule *s = &p->s;
    const char *wide = s->is_64bit ? "(long long)" : "";
    char end[32];
    print_line(p,
               "for (%s first = (%sblockIdx.x * %d + threadIdx.x) * %d; first < %lld; first += "
               "%sgridDim.x * %lld) {",
               p->index_type, wide, s->threads_x, s->width, (long long)s->n_rows, wide,
               (long long)s->rows_per_block);
    p->depth++;
    print_reduce_starts(p, 0);
    p->is_pack = s->width > 1;
    print_indices(p, LOOP_PAR, "first");
    p->is_pack = false;
    if (find_wanted(p, 0)) {
        snprintf(end, sizeof end, "%lld", (long long)s->n_reduced);
        print_line(p, "#pragma unroll 4");
        print_range_loop(p, "0", end, 1);
        print_pack(p, 0, false);
        print_close(p);
    }
    print_column(p);
    print_close(p);
}
