/* nvidia.c -- see nvidia.h. */
#include "ir/base/nvidia.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct Where {    /* a place below a root that an environment variable may give */
    const char *variable; /* NULL: root is used as it is */
    const char *root;     /* glob pattern, appended to the variable's value */
} Where;

static const Where toolkit_places[] = {{"CUDA_HOME", ""},
                                       {"CUDA_PATH", ""},
                                       {NULL, "/usr/local/cuda"},
                                       {NULL, "/usr/local/cuda-*"},
                                       {NULL, "/opt/cuda"}};
static const char *const toolkit_dirs[] = {"lib64", "lib", "targets/*-linux/lib"};

static const Where python_places[] = {{"VIRTUAL_ENV", "/lib/python3*/site-packages"},
                                      {"CONDA_PREFIX", "/lib/python3*/site-packages"},
                                      {"HOME", "/.local/lib/python3*/site-packages"},
                                      {NULL, "/usr/local/lib/python3*/dist-packages"},
                                      {NULL, "/usr/local/lib/python3*/site-packages"},
                                      {NULL, "/usr/lib/python3*/dist-packages"},
                                      {NULL, "/usr/lib/python3*/site-packages"}};

#define COUNT(T) (sizeof(T) / sizeof *(T))

static bool try_pattern(const char *pattern, NvidiaTry try, void *self)
{
    glob_t found;
    bool ok = false;
    if (glob(pattern, 0, NULL, &found) != 0) return false;
    for (size_t i = 0; i < found.gl_pathc && !ok; i++) ok = try(self, found.gl_pathv[i]);
    globfree(&found);
    return ok;
}

static bool try_places(const Where *places, size_t n_places, const char *const *dirs, size_t n_dirs,
                       NvidiaTry try, void *self)
{
    char pattern[4096];
    for (size_t i = 0; i < n_places; i++) {
        const char *root = places[i].variable ? getenv(places[i].variable) : "";
        if (!root || (places[i].variable && !*root)) continue;
        for (size_t d = 0; d < n_dirs; d++) {
            int n = snprintf(pattern, sizeof pattern, "%s%s/%s", root, places[i].root, dirs[d]);
            if ((size_t)n < sizeof pattern && try_pattern(pattern, try, self)) return true;
        }
    }
    return false;
}

bool nvidia_search(const char *const *wheels, size_t n_wheels, NvidiaTry try, void *self)
{
    return try_places(toolkit_places, COUNT(toolkit_places), toolkit_dirs, COUNT(toolkit_dirs), try,
                      self) ||
           try_places(python_places, COUNT(python_places), wheels, n_wheels, try, self);
}
