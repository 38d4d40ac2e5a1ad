/* zm-peaks -- measures this machine's peaks (runtime/peaks.h) and prints them as JSON.
 *
 *     zm-peaks [THREADS [SECONDS]]
 *
 * `tools/bench --peaks` runs it and stores what it prints where --profile looks for it. */
#include <stdio.h>
#include <stdlib.h>

#include "runtime/peaks.h"

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : cpus_available();
    double seconds = argc > 2 ? atof(argv[2]) : 5;
    if (threads < 1 || argc > 3) {
        fprintf(stderr, "usage: zm-peaks [THREADS [SECONDS]]\n");
        return 1;
    }
    RtError e = {0};
    Pool *pool = NULL;
    Peaks p;
    RtStatus s = pool_new(&pool, threads, 0, &e);
    if (s == RT_OK) s = peaks_measure(&p, pool, seconds, &e);
    pool_free(pool);
    Str text = {0};
    if (s == RT_OK) peaks_add_json(&text, &p);
    fputs(str_c(&text), stdout);
    if (s != RT_OK) fprintf(stderr, "zm-peaks: error: %s\n", str_c(&e.text));
    str_free(&text);
    str_free(&e.text);
    return (int)s;
}
