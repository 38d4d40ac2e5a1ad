/* run.c -- `zmc run -n N OUT ...`: launches an executable.  One rank needs no launcher. */
#include "tools/zmc/zmc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int run_usage(void)
{
    fputs("zmc: usage: zmc run -n N OUT [options of OUT]\n", stderr);
    return EXIT_BAD_INPUT;
}

int command_run(int argc, char **argv, const Session *s)
{
    (void)s;
    if (argc < 3 || strcmp(argv[0], "-n") != 0) return run_usage();
    char *end;
    long n = strtol(argv[1], &end, 10);
    if (*end || n < 1) return run_usage();
    if (n > 1) {
        fprintf(stderr, "zmc: executables of this version run on 1 rank, not %ld\n", n);
        return EXIT_BAD_INPUT;
    }
    execv(argv[2], argv + 2);
    fprintf(stderr, "zmc: cannot run %s: %s\n", argv[2], strerror(errno));
    return EXIT_BAD_INPUT;
}
