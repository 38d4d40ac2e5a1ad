/* roofline.h -- how near a step comes to the machine's limit: for each kernel its time in a step,
 * the work it does, and the least time that work can take, max(flops / peak, bytes / bandwidth).
 *
 * Times are medians over the traced steps without the first (it touches memory for the first time).
 * Flops and bytes are the program's: arithmetic of the mathematics, bytes that must move once. */
#ifndef ZM_RUNTIME_ROOFLINE_H
#define ZM_RUNTIME_ROOFLINE_H

#include "runtime/exec.h"
#include "runtime/peaks.h"

typedef struct Roofline {
    const Program *p; /* NULL: not asked for */
    Peaks peaks;
    bool is_gpu;            /* peaks are of its memory alone, measured by this run */
    const char *peaks_from; /* a path, or NULL: measured by this run */
    const char *peaks_not;  /* a file that is there but of another machine or version; or NULL */
    int32_t n_steps, max_steps;
    float *took; /* [max_steps][commands of the program]: seconds in a step */
} Roofline;

/* Tables in a; peaks from their file, or measured now over the pool (a second).  Of a GPU it is the
 * rate of copies in its memory, measured now; limits count bytes alone. */
RtStatus roofline_open(Roofline *r, Arena *a, const Exec *x, int32_t max_steps, RtError *e);
/* A command of @micro or @last took `seconds`. */
void roofline_add(Roofline *r, uint32_t command, double seconds);
void roofline_step(Roofline *r); /* a step is complete */
/* The table and the sum of limits; nothing when no step is complete. */
void roofline_add_text(Str *out, const Roofline *r, Arena *a);

#endif
