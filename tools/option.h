/* option.h -- options of zm-opt and zm-run that have a value: "--name VALUE" or "--name=VALUE". */
#ifndef ZM_TOOLS_OPTION_H
#define ZM_TOOLS_OPTION_H

#include <stdbool.h>
#include <string.h>

/* True when argv[*i] is option `name`; *i moves to the argument that holds its value.  *value: NULL
 * when none follows. */
static inline bool option_value(const char *name, int argc, char **argv, int *i, const char **value)
{
    size_t n = strlen(name);
    if (strncmp(argv[*i], name, n) != 0 || (argv[*i][n] != '=' && argv[*i][n])) return false;
    if (argv[*i][n])
        *value = argv[*i] + n + 1;
    else
        *value = *i + 1 < argc ? argv[++*i] : NULL;
    return true;
}

#endif
