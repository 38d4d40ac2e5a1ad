/* peaks.h -- what the machine can do at most: multiply-adds and memory traffic.  The roofline
 * of --profile divides by them.
 *
 * `tools/bench --peaks` measures them for seconds and stores them as JSON; --profile takes that
 * file when it was made on this kind of CPU with as many threads, else it measures for a moment
 * itself. */
#ifndef ZM_RUNTIME_PEAKS_H
#define ZM_RUNTIME_PEAKS_H

#include "runtime/pool.h"

enum { PEAKS_NAME_BYTES = 128 };

typedef struct Peaks {
    char cpu[PEAKS_NAME_BYTES]; /* /proc/cpuinfo's model name, family, model and stepping */
    int threads;
    double flops_one, flops; /* f32 FMA, 2 a multiply-add: 1 thread, all */
    double flops_bf16;       /* AVX512-BF16, all threads; 0 where the CPU has none */
    double read_bytes_s, copy_bytes_s, stream_bytes_s; /* all threads; copy counts read + written;
                                                   stream: a copy by non-temporal stores */
} Peaks;

void peaks_cpu(char *out, size_t n); /* the name in Peaks.cpu, of this machine */
/* The greatest rates seen in about `seconds`. */
RtStatus peaks_measure(Peaks *p, Pool *pool, double seconds, RtError *e);
bool peaks_has_bf16(void);              /* does this CPU have a rate for pairs of bf16? */
double peaks_bandwidth(const Peaks *p); /* the best of read, copy and stream, bytes/s */

/* $ZMC_PEAKS, else $XDG_CACHE_HOME/zmc/peaks.json, else ~/.cache/zmc/peaks.json; "" when none. */
void peaks_path(char *out, size_t n);
/* false: no such file, or of another CPU or number of threads, or without a peak of this CPU. */
bool peaks_read(Peaks *p, const char *path, int threads);
void peaks_add_json(Str *out, const Peaks *p);

#endif
