/* report.c -- the lines of report.h. */
#include "tests/gpusim/report.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static unsigned long n_lines; /* of the process: the driver's interface has one count */

static const char *const kinds[N_REPORT] = {[REPORT_BOUNDS] = "out of bounds",
                                            [REPORT_ALIGNMENT] = "misaligned",
                                            [REPORT_UNINITIALISED] = "uninitialised",
                                            [REPORT_SHARED_RACE] = "shared race",
                                            [REPORT_GLOBAL_RACE] = "global race",
                                            [REPORT_STREAM_RACE] = "stream race",
                                            [REPORT_BARRIER] = "divergent barrier",
                                            [REPORT_LANE] = "absent lane",
                                            [REPORT_TRAP] = "trap",
                                            [REPORT_API] = "api"};

unsigned long report_count(void)
{
    return n_lines;
}

static void put_line(const char *line)
{
    const char *path = getenv("GPUSIM_REPORT");
    FILE *f = path && *path ? fopen(path, "a") : NULL;
    n_lines++;
    fprintf(stderr, "%s\n", line);
    if (!f) return;
    fprintf(f, "%s\n", line);
    fclose(f);
}

ZM_PRINTF(2, 3) void report_plain(ReportKind kind, const char *fmt, ...)
{
    char line[768];
    int n = snprintf(line, sizeof line, "gpusim: %s: ", kinds[kind]);
    va_list args;
    va_start(args, fmt);
    vsnprintf(line + n, sizeof line - (size_t)n, fmt, args);
    va_end(args);
    put_line(line);
}

/* Line `number` of the CUDA C: $GPUSIM_SOURCE, else the file that the PTX names.  False: not at
 * hand. */
static bool source_line(const PtxModule *m, uint32_t number, char *out, size_t size)
{
    const char *path = getenv("GPUSIM_SOURCE");
    FILE *f = number ? fopen(path && *path ? path : m->file, "r") : NULL;
    bool is_found = false;
    if (!f) return false;
    for (uint32_t i = 1; i <= number; i++) is_found = fgets(out, (int)size, f) != NULL;
    fclose(f);
    if (!is_found) return false;
    out[strcspn(out, "\n")] = 0;
    memmove(out, out + strspn(out, " \t"), strlen(out + strspn(out, " \t")) + 1);
    return true;
}

/* Where: the kernel's own line, when the instruction is of a function inlined there. */
static void add_place(const Warp *w, const Insn *in, int lane, char *out, size_t size)
{
    const Block *b = w->block;
    const PtxModule *m = b->code->module;
    const PtxLoc *loc = &m->locs.at[in->loc];
    uint32_t t = w->number * LANES + (uint32_t)lane, line = loc->caller_line;
    char text[256];
    if (!line) line = loc->line;
    int n = snprintf(out, size, "; kernel %s, block (%u,%u,%u), thread (%u,%u,%u), ",
                     b->code->func->name, b->x, b->y, b->z, t % b->launch->block[0],
                     t / b->launch->block[0] % b->launch->block[1],
                     t / b->launch->block[0] / b->launch->block[1]);
    if (!line)
        n += snprintf(out + n, size - (size_t)n, "PTX line %u: %s", in->ptx_line, in->text);
    else
        n += snprintf(out + n, size - (size_t)n, "%s:%u", *m->file ? m->file : "kernel", line);
    if (source_line(m, line, text, sizeof text)) snprintf(out + n, size - (size_t)n, ": %s", text);
}

static bool is_first(Launch *l, const Insn *in, ReportKind kind)
{
    uint64_t key = (uint64_t)(in - l->code->insns.at) * N_REPORT + kind;
    for (uint32_t i = 0; i < l->reported.n; i++)
        if (l->reported.at[i] == key) return false;
    VEC_PUSH(l->scratch, &l->reported, key);
    return true;
}

ZM_PRINTF(5, 6)
void report_lane(const Warp *w, const Insn *in, int lane, ReportKind kind, const char *fmt, ...)
{
    Launch *l = w->block->launch;
    if (kind == REPORT_BOUNDS) l->is_out_of_bounds = true;
    if (kind == REPORT_ALIGNMENT) l->is_misaligned = true;
    if (!is_first(l, in, kind)) return;
    char line[1024];
    size_t n = (size_t)snprintf(line, sizeof line, "gpusim: %s: ", kinds[kind]);
    va_list args;
    va_start(args, fmt);
    n += (size_t)vsnprintf(line + n, sizeof line / 2, fmt, args);
    va_end(args);
    add_place(w, in, lane, line + n, sizeof line - n);
    put_line(line);
}
