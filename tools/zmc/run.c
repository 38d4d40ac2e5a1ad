/* run.c -- `zmc run -n N OUT ...`: launches an executable.  One rank needs no launcher. */
#include "tools/zmc/zmc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int run_usage(void)
{
    fputs("zmc: usage: zmc run -n N [--restarts K] OUT [options of OUT]\n", stderr);
    return EXIT_BAD_INPUT;
}

int command_run(int argc, char **argv, const Session *s)
{
    (void)s;
    long n = 0, restarts = 0;
    int at = 0;
    for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
        char *end;
        long v = strtol(argv[at + 1], &end, 10);
        if (*end || end == argv[at + 1] || v < 0) return run_usage();
        if (strcmp(argv[at], "-n") == 0)
            n = v;
        else if (strcmp(argv[at], "--restarts") == 0)
            restarts = v;
        else
            return run_usage();
    }
    if (n < 1 || at >= argc || argv[at][0] == '-') return run_usage();
    if (restarts) {
        fputs("zmc: --restarts is not supported by this version of zmc; start the run again with "
              "--resume\n",
              stderr);
        return EXIT_BAD_INPUT;
    }
    if (n > 1) {
        fprintf(stderr, "zmc: executables of this version run on 1 rank, not %ld\n", n);
        return EXIT_BAD_INPUT;
    }
    execv(argv[at], argv + at);
    fprintf(stderr, "zmc: cannot run %s: %s\n", argv[at], strerror(errno));
    return EXIT_BAD_INPUT;
}
