/* nvidia.h -- where NVIDIA's libraries lie that no loader's path names: the CUDA toolkit's folders
 * and those of Python wheels. */
#ifndef ZM_IR_BASE_NVIDIA_H
#define ZM_IR_BASE_NVIDIA_H

#include <stdbool.h>
#include <stddef.h>

/* Of the places searched, for messages. */
#define NVIDIA_PLACES                                                                              \
    "the loader's path, CUDA_HOME, CUDA_PATH, /usr/local/cuda, or Python's site-packages"

typedef bool (*NvidiaTry)(void *self, const char *dir);

/* Offers each folder that is there to `try`, the toolkit's first, then `wheels` (such as
 * "nvidia/nccl/lib") below each site-packages, until it says true; false: it never did. */
bool nvidia_search(const char *const *wheels, size_t n_wheels, NvidiaTry try, void *self);

#endif
